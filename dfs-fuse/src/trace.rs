//! Access traces: what readers of an artifact touched first, in which order, and what follows from it for the next
//! mount.
//!
//! A [`Recorder`] watches the reads of a mount; its trace is one *run*. A [`Profile`] is what several runs have in
//! common, in the order in which they wanted it. Both are advice about groups of the artifact's spaces: neither knows
//! bytes, names or origins, and nothing outside of the artifact can be named by them.

mod format;
mod profile;
mod recorder;

use dfs_model::GroupRange;

pub use format::{MAX_BYTES, ProfileError};
pub use profile::{Profile, Touched};
pub use recorder::{Recorder, Tally};

/// Most ranges that a trace or a profile has.
pub const MAX_RANGES: usize = 64 << 10;

/// Most groups in one of them: 16 MiB.
const MAX_RANGE: u64 = 256;

/// Groups of a space that are watched: 16 TiB.
const MAX_GROUPS: u64 = 1 << 28;

/// Groups of a space of an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Which space.
    pub space: u16,
    /// Which of its groups.
    pub groups: GroupRange,
}

impl Place {
    /// Groups of a space.
    pub fn new(space: u16, groups: GroupRange) -> Self {
        Self { space, groups }
    }
}

/// What a profile is about: the tree's index, which pins a version of everything it points at, and what of the tree is
/// shown. Every node that mounts the same comes to the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subject([u8; 32]);

impl Subject {
    /// That of a part of the tree whose index is the task `index`; an empty path is all of it.
    pub fn of(index: dfs_model::TaskId, path: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("dfs prefetch profile 1");
        hasher.update(index.as_bytes()).update(path);
        Self(hasher.finalize().into())
    }

    /// Its name.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
