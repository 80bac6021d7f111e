//! Identity of tasks (design §4).

use serde::{Deserialize, Serialize};

use crate::{CanonicalUrl, PieceLayout, TaskId, Validator};

/// What the bytes of a task are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// The content behind one URL.
    Blob,
    /// Members of a listing or an archive laid side by side; the validator's ETag is the digest of the
    /// table of what lies where.
    Space,
    /// An EROFS index with its dfs sections.
    Index,
    /// What makes one index of an earlier one of the same URL.
    Delta,
}

impl TaskKind {
    fn tag(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Space => "space",
            Self::Index => "index",
            Self::Delta => "delta",
        }
    }
}

/// What was done to the origin's bytes before they became the task's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transform {
    /// Nothing.
    #[default]
    Identity,
    /// All members of a gzip file were decompressed.
    Gunzip,
    /// All frames of a zstd file were decompressed.
    Unzstd,
}

impl Transform {
    const ALL: [Self; 3] = [Self::Identity, Self::Gunzip, Self::Unzstd];

    /// Its word in every stored and hashed form.
    pub fn tag(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gunzip => "gunzip",
            Self::Unzstd => "unzstd",
        }
    }

    /// The transform of a word.
    pub fn of_tag(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|transform| transform.tag() == tag)
    }
}

/// Everything that makes a task what it is. Piece size is not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskKey {
    /// `public` when fetched without credentials, else the tenant.
    pub domain: String,
    /// What the bytes are.
    pub kind: TaskKind,
    /// Where they come from.
    pub url: CanonicalUrl,
    /// Headers that change content, lower-case names, sorted.
    pub headers: Vec<(String, String)>,
    /// Which version.
    pub validator: Validator,
    /// What was done to them.
    pub transform: Transform,
}

impl TaskKey {
    /// The domain of content fetched without credentials.
    pub const PUBLIC: &'static str = "public";
    /// The domain of content fetched with credentials by somebody who is of no tenant.
    pub const PRIVATE: &'static str = "private";

    /// Bytes of the content, where its version tells: that of a transformed content tells the origin's.
    pub fn pinned_length(&self) -> Option<u64> {
        self.validator.length.filter(|_| self.transform == Transform::Identity)
    }

    /// BLAKE3 over a version tag and the length-prefixed fields; frozen by test vectors.
    pub fn id(&self) -> TaskId {
        let mut hasher = FieldHasher::new("dfs.task.v1");
        hasher.field(&self.domain);
        hasher.field(self.kind.tag());
        hasher.field(self.url.as_str());
        hasher.field(&self.headers.len().to_string());
        for (name, value) in &self.headers {
            hasher.field(name);
            hasher.field(value);
        }
        self.validator.hash_into(&mut hasher);
        hasher.field(self.transform.tag());
        TaskId::from_bytes(hasher.finish())
    }
}

/// A task as the swarm knows it: its identity, and what is known of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInfo {
    /// The key's hash.
    pub id: TaskId,
    /// Its identity.
    pub key: TaskKey,
    /// Where it is read, of what its key names by its content; `None` where the key's own URL is the place.
    pub place: Option<CanonicalUrl>,
    /// Bytes, where known.
    pub length: Option<u64>,
    /// Groups per piece, as a power of two.
    pub piece_level: u8,
    /// Whether its origin can be read in ranges.
    pub ranges: bool,
}

impl TaskInfo {
    /// Length for which the layout of a content of unknown length is chosen: 1 GiB.
    const GUESSED_LENGTH: u64 = 1 << 30;

    /// A task with the customary layout for its length.
    pub fn new(key: TaskKey, length: Option<u64>, ranges: bool) -> Self {
        let layout = PieceLayout::for_length(length.unwrap_or(Self::GUESSED_LENGTH));
        let piece_level = layout.level();
        Self { id: key.id(), key, place: None, length, piece_level, ranges }
    }

    /// The same, read at this place.
    pub fn at(self, place: &CanonicalUrl) -> Self {
        let place = Some(place).filter(|place| **place != self.key.url).cloned();
        Self { place, ..self }
    }

    /// Where it is read.
    pub fn place(&self) -> &CanonicalUrl {
        self.place.as_ref().unwrap_or(&self.key.url)
    }
}

/// Hashes fields so that no two sequences of fields give the same bytes.
pub(crate) struct FieldHasher(blake3::Hasher);

impl FieldHasher {
    pub(crate) fn new(tag: &str) -> Self {
        let mut hasher = Self(blake3::Hasher::new());
        hasher.field(tag);
        hasher
    }

    pub(crate) fn field(&mut self, field: &str) {
        self.0.update(&(field.len() as u64).to_le_bytes());
        self.0.update(field.as_bytes());
    }

    pub(crate) fn optional(&mut self, field: Option<&str>) {
        match field {
            Some(field) => {
                self.0.update(&[1]);
                self.field(field);
            }
            None => {
                self.0.update(&[0]);
            }
        }
    }

    pub(crate) fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TaskKey {
        TaskKey {
            domain: TaskKey::PUBLIC.into(),
            kind: TaskKind::Blob,
            url: CanonicalUrl::parse("https://example.org/model.bin").unwrap(),
            headers: Vec::new(),
            validator: Validator {
                etag: Some("\"a1b2\"".into()),
                length: Some(10),
                ..Validator::default()
            },
            transform: Transform::Identity,
        }
    }

    #[test]
    fn the_byte_layout_is_frozen() {
        assert_eq!(
            key().id().to_string(),
            "f20513f8e45c1b417a3080389d3f820570be28caeaac2eff80c758e1a9697baf"
        );
    }

    #[test]
    fn every_field_counts() {
        let base = key().id();
        let mut other = key();
        other.validator.etag = Some("\"a1b3\"".into());
        assert_ne!(base, other.id());
        let mut other = key();
        other.validator.modified = Some(String::new());
        assert_ne!(base, other.id());
        let mut other = key();
        other.domain = "tenant".into();
        assert_ne!(base, other.id());
        let mut other = key();
        other.headers.push(("accept".into(), "x".into()));
        assert_ne!(base, other.id());
        let mut other = key();
        other.kind = TaskKind::Index;
        assert_ne!(base, other.id());
        let mut other = key();
        other.transform = Transform::Gunzip;
        assert_ne!(base, other.id());
    }
}
