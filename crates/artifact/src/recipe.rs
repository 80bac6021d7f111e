//! Recipes: how the bytes of a task are obtained from its origin, by whoever holds credentials of their
//! own. A recipe travels between hosts and is stored: it never carries a credential.

use std::sync::Arc;

use dfs_model::{CanonicalUrl, TaskKey};
use dfs_source::{Credentials, Target};
use serde::{Deserialize, Serialize};

use crate::members::MemberTable;

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

mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::members::MemberTable;

    pub fn serialize<S: Serializer>(table: &Arc<MemberTable>, to: S) -> Result<S::Ok, S::Error> {
        MemberTable::serialize(table, to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<MemberTable>, D::Error> {
        MemberTable::deserialize(from).map(Arc::new)
    }
}
