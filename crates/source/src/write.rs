//! What is written, and how.

use std::fmt;

use dfs_model::CanonicalUrl;

use crate::{Action, Attempt, ByteStream, SourceError, Target, Timestamp};

/// Bytes to be written.
pub struct Content {
    /// The bytes; an error ends the writing, and nothing is changed.
    pub bytes: ByteStream,
    /// How many they are, where that is known; another number is an error.
    pub length: Option<u64>,
}

/// How to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// What happens to what is there.
    pub existing: Existing,
    /// A directory above the target that is not left by way of symlinks, and below which missing
    /// directories are made. The target's own directory when `None`.
    pub root: Option<CanonicalUrl>,
    /// When the content was last changed, for origins that keep times they are told.
    pub modified: Option<Timestamp>,
}

/// What happens to what is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Existing {
    /// It gives way.
    #[default]
    Replace,
    /// It stays: writing fails with [`SourceError::Exists`].
    Keep,
}

/// What became of what killed processes had left half-written.
#[derive(Debug, Default)]
pub struct TakenBack {
    /// How many are gone.
    pub done: u64,
    /// How many stay.
    pub failed: u64,
    /// Why the first of these does.
    pub error: Option<SourceError>,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("length", &self.length).finish_non_exhaustive()
    }
}

/// The answer of origins that are only read.
pub(crate) fn read_only(action: Action, target: &Target) -> SourceError {
    SourceError::ReadOnly {
        attempt: Attempt::new(action, &target.url),
        scheme: target.url.url().scheme().to_owned(),
    }
}

/// Makes sure that as many bytes came as were promised.
pub(crate) fn check_length(
    promised: Option<u64>,
    written: u64,
    attempt: &Attempt,
) -> Result<(), SourceError> {
    match promised {
        Some(promised) if promised != written => {
            let reason = format!("{written} bytes came where {promised} were promised");
            Err(SourceError::Malformed { attempt: attempt.clone(), reason })
        }
        _ => Ok(()),
    }
}
