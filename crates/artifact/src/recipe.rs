//! Recipes: how the bytes of a task are obtained from its origin, by whoever holds credentials of their
//! own. A recipe travels between hosts and is stored: it never carries a credential.

use std::sync::Arc;

use dfs_model::{CanonicalUrl, TaskInfo, TaskKey, TaskKind, Transform, Validator};
use dfs_source::oci::{content_name, is_content_name};
use dfs_source::{Credentials, Target};
use serde::{Deserialize, Serialize};

use crate::chunks::{Chunk, ChunkTable, ChunkTableError};
use crate::members::MemberTable;
use crate::parts::PartTable;

/// A place at an origin, without who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where it is.
    pub url: CanonicalUrl,
    /// Headers that change content, lower-case names, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
}

impl Place {
    /// The place a target names.
    pub fn of(target: &Target) -> Self {
        Self { url: target.url.clone(), headers: target.headers.clone() }
    }

    /// Where a task of one URL is read; `None` where what is said of that is not what its key names. Who is sent there
    /// shows credentials.
    pub fn of_task(info: &TaskInfo) -> Option<Self> {
        let url = info.place().clone();
        let is_itself = info.place.is_none() && !is_content_name(&url);
        let is_its_place = is_itself || content_name(&url) == info.key.url;
        (is_its_place && !is_content_name(&url))
            .then(|| Self { url, headers: info.key.headers.clone() })
    }

    /// The same place, asked by somebody.
    pub fn target(&self, credentials: Credentials) -> Target {
        Target { url: self.url.clone(), headers: self.headers.clone(), credentials }
    }
}

/// Where a task's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum OriginRecipe {
    /// One URL; its version is the validator of the task's key.
    Url {
        /// Where.
        place: Place,
        /// Whether the origin honours ranges, as far as it showed.
        ranges: bool,
    },
    /// Members of a listing, zeros between them.
    Members {
        /// The listed directory; members lie below it.
        base: Place,
        /// What lies where.
        #[serde(with = "shared")]
        table: Arc<MemberTable>,
    },
    /// Parts of an archive, unpacked, zeros between them.
    Parts {
        /// Where the archive is.
        place: Place,
        /// Whether its origin honours ranges, as far as it showed.
        ranges: bool,
        /// What lies where, and which version of the archive it is in.
        #[serde(with = "shared")]
        table: Arc<PartTable>,
    },
    /// Chunks of a blob, unpacked and held against their digests, zeros between them.
    Chunks {
        /// Where the blob is.
        place: Place,
        /// Whether its origin honours ranges, as far as it showed.
        ranges: bool,
        /// What lies where, and which version of the blob it is in.
        #[serde(with = "shared")]
        table: Arc<ChunkTable>,
    },
}

/// A task and how to obtain it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// What it is.
    pub key: TaskKey,
    /// Bytes in it; `None` when only reading it tells.
    pub length: Option<u64>,
    /// Where they come from.
    pub origin: OriginRecipe,
}

impl OriginRecipe {
    /// Where it is, or the directory that its members are in.
    pub fn place(&self) -> &Place {
        match self {
            Self::Url { place, .. } | Self::Parts { place, .. } | Self::Chunks { place, .. } => {
                place
            }
            Self::Members { base, .. } => base,
        }
    }

    /// Has it read at another URL.
    pub(crate) fn relocate(&mut self, url: CanonicalUrl) {
        match self {
            Self::Url { place, .. } | Self::Parts { place, .. } | Self::Chunks { place, .. } => {
                place.url = url;
            }
            Self::Members { base, .. } => base.url = url,
        }
    }
}

impl Recipe {
    /// Whether it is read where its key says. Who is sent elsewhere shows credentials there.
    pub fn is_read_at_its_place(&self) -> bool {
        let (url, place) = (&self.key.url, &self.origin.place().url);
        match is_content_name(url) {
            true => content_name(place) == *url && !is_content_name(place),
            false => place == url,
        }
    }

    /// The task that this one is made of: the compressed content, the archive whose parts it is, or the blob whose chunks.
    pub fn archive(&self) -> Option<Self> {
        let (place, ranges, validator, transform, length) = match &self.origin {
            OriginRecipe::Parts { place, ranges, table } => {
                let length = Some(table.archive_length);
                (place, *ranges, table.archive.clone(), table.transform, length)
            }
            OriginRecipe::Chunks { place, ranges, table } => {
                let length = Some(table.blob_length);
                (place, *ranges, table.blob.clone(), Transform::Identity, length)
            }
            OriginRecipe::Url { place, ranges } if self.key.transform != Transform::Identity => {
                let validator = self.key.validator.clone();
                let length = validator.length;
                (place, *ranges, validator, Transform::Identity, length)
            }
            OriginRecipe::Url { .. } | OriginRecipe::Members { .. } => return None,
        };
        let kind = TaskKind::Blob;
        let key = TaskKey { kind, validator, transform, ..self.key.clone() };
        let origin = OriginRecipe::Url { place: place.clone(), ranges };
        Some(Self { key, length, origin })
    }

    /// The space of `length` bytes that these chunks of `blob`, a content behind one URL, make.
    pub fn of_chunks(
        blob: &Self,
        length: u64,
        chunks: Vec<Chunk>,
    ) -> Result<Self, ChunkTableError> {
        let OriginRecipe::Url { place, ranges } = blob.origin.clone() else {
            return Err(ChunkTableError::Order);
        };
        let blob_length = blob.length.unwrap_or_default();
        let table = ChunkTable::new(blob.key.validator.clone(), blob_length, length, chunks)?;
        let key = blob.key_inside(table.digest(), length);
        let origin = OriginRecipe::Chunks { place, ranges, table: Arc::new(table) };
        Ok(Self { key, length: Some(length), origin })
    }

    /// The key of a space of `length` bytes that is made of this task by the table of this digest.
    pub(crate) fn key_inside(&self, table: String, length: u64) -> TaskKey {
        let (etag, length) = (Some(table), Some(length));
        let validator = Validator { etag, length, ..Validator::default() };
        let (kind, transform) = (TaskKind::Space, Transform::Identity);
        TaskKey { kind, validator, transform, ..self.key.clone() }
    }
}

mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer>(
        table: &Arc<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        T::serialize(table, to)
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<Arc<T>, D::Error>
    where
        T: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        T::deserialize(from).map(Arc::new)
    }
}
