//! What pins one version of a source's content.

use serde::{Deserialize, Serialize};

/// How far a validator can be trusted to change whenever the bytes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ValidatorStrength {
    /// Nothing but the length: shown as *unpinned*.
    None,
    /// Weak ETag or modification time.
    Weak,
    /// Strong ETag, version id or digest.
    Strong,
}

/// The origin's own words for one version of a content; part of the task's identity (design §3.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Validator {
    /// ETag as sent, quotes and `W/` included.
    pub etag: Option<String>,
    /// Modification time as the origin writes it (HTTP date, or `seconds.nanoseconds` for files).
    pub modified: Option<String>,
    /// Version id of stores that have them.
    pub version: Option<String>,
    /// Length in bytes, where known beforehand.
    pub length: Option<u64>,
}

impl Validator {
    /// How far it can be trusted.
    pub fn strength(&self) -> ValidatorStrength {
        match (&self.version, &self.etag, &self.modified) {
            (Some(_), _, _) => ValidatorStrength::Strong,
            (_, Some(etag), _) if !etag.starts_with("W/") => ValidatorStrength::Strong,
            (_, Some(_), _) | (_, _, Some(_)) => ValidatorStrength::Weak,
            _ => ValidatorStrength::None,
        }
    }

    /// Canonical bytes for hashing: every field length-prefixed, absent ones marked.
    pub(crate) fn hash_into(&self, hasher: &mut crate::task::FieldHasher) {
        let length = self.length.map(|length| length.to_string());
        for field in [&self.etag, &self.modified, &self.version, &length] {
            hasher.optional(field.as_deref());
        }
    }
}
