//! What of something is in the cache, and what is kept there.

use bytes::Bytes;
use dfs_artifact::image::attached::About;
use dfs_source::Target;
use dfs_source::oci::ContentDigest;

use super::{CachedTask, EntryKind, Ledger, View};

/// Something of a mount, or of what could be mounted.
#[derive(Debug, Clone)]
pub enum Named {
    /// What lies at a path below a mount point.
    Within {
        /// The mount point, as its agent knows it.
        dir: String,
        /// From there; empty is all of it.
        path: Vec<u8>,
    },
    /// What a mount of this would show.
    Target {
        /// The artifact.
        target: Box<Target>,
        /// How it would be shown.
        view: View,
        /// What of its tree; empty is all of it.
        path: Vec<u8>,
    },
}

/// What of something is here.
#[derive(Debug, Clone)]
pub struct CachedTree {
    /// What it is.
    pub url: String,
    /// All of it, without a name.
    pub whole: CachedEntry,
    /// Of a directory, its first entries by name.
    pub entries: Vec<CachedEntry>,
    /// How many there are.
    pub entries_in_all: u64,
    /// In which it lies, its index included.
    pub tasks: Vec<CachedTask>,
}

/// A file, or all that is below a directory.
#[derive(Debug, Clone)]
pub struct CachedEntry {
    /// Any bytes.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// How many files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of those, here.
    pub cached: u64,
    /// Whether nothing of it is evicted.
    pub pinned: bool,
    /// When what it lies in was read last, in milliseconds since 1970; 0 where it lies in nothing.
    pub last_read_ms: u64,
}

/// An image that is known here.
#[derive(Debug, Clone)]
pub struct ImageHere {
    /// By what name.
    pub url: String,
    /// What that stood for: a manifest, or a list of them.
    pub digest: String,
    /// The manifest.
    pub manifest: String,
    /// For which machines it is; `None` of what has a manifest and is no image.
    pub platform: Option<String>,
    /// All that it shows, without a name.
    pub whole: CachedEntry,
    /// Where it is mounted.
    pub mounts: Vec<String>,
}

/// The indexes of an image's layers.
#[derive(Debug, Clone)]
pub struct LayerIndexes {
    /// The image.
    pub about: About,
    /// One of each layer, the lowest first.
    pub layers: Vec<LayerIndexBlob>,
}

/// The index of a layer, as it is attached.
#[derive(Debug, Clone)]
pub struct LayerIndexBlob {
    /// The layer, as it is packed.
    pub layer: ContentDigest,
    /// What that unpacks to.
    pub diff_id: ContentDigest,
    /// It.
    pub content: Bytes,
}

/// What became of indexes that were to be taken over: of how many layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// Of the image, each once.
    pub layers: u32,
    /// Those whose indexes were taken over.
    pub taken: u32,
    /// Those whose indexes were known already.
    pub known: u32,
}

/// How a pull goes.
#[derive(Debug, Clone, Default)]
pub struct Pulling {
    /// Bytes that are to be here, its index included.
    pub bytes: u64,
    /// Of those, here.
    pub cached: u64,
    /// Where they came from.
    pub ledger: Ledger,
    /// All of it is here.
    pub complete: bool,
}

/// Something that is kept whole.
#[derive(Debug, Clone)]
pub struct PinnedTree {
    /// Its name among the pins.
    pub id: Vec<u8>,
    /// What it is, with the path inside.
    pub url: String,
    /// How many files.
    pub files: u64,
    /// Bytes that are to be here.
    pub bytes: u64,
    /// Of those, here.
    pub cached: u64,
    /// How far it is.
    pub state: PinState,
    /// Why it waits, or cannot be had.
    pub why: String,
    /// Milliseconds since 1970.
    pub since_ms: u64,
}

/// How far a pin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinState {
    /// What is missing is fetched.
    Fetching,
    /// It cannot be had now, and is tried again.
    Waiting,
    /// All of it is here.
    Whole,
    /// Some of it cannot be had any more.
    Failed,
}

impl PinState {
    /// In JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fetching => "fetching",
            Self::Waiting => "waiting",
            Self::Whole => "whole",
            Self::Failed => "failed",
        }
    }
}

/// What came of lifting a pin.
#[derive(Debug, Clone, Default)]
pub struct Unpinned {
    /// Those that were lifted.
    pub pins: Vec<PinnedTree>,
    /// Where there was none: what is pinned and has it in it.
    pub within: Option<String>,
}

/// What readers of a mount met, where their reads came to the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadsInfo {
    /// How many reads.
    pub reads: u64,
    /// Bytes that they were given.
    pub bytes: u64,
    /// Those that found something missing.
    pub waits: u64,
    /// Of those, waited for a second or more.
    pub stalls: u64,
    /// Those that failed.
    pub errors: u64,
    /// Those that wait now.
    pub waiting: u64,
    /// How long half of those that waited did at most, in microseconds.
    pub wait_p50_us: u64,
    /// How long 99 % of them did at most.
    pub wait_p99_us: u64,
    /// Whether there may be more reads, which the kernel made by itself.
    pub unseen: bool,
}

/// What is done about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// It is fetched when somebody reads it.
    WhenRead,
    /// It is fetched at once.
    Now,
}
