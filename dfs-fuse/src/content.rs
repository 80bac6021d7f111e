//! Where the bytes of a tree's spaces come from: the joint between the filesystem and the piece engine.
//!
//! Invariant: bytes are handed out only after they were verified. What is here is answered at once on
//! the asking thread; what is missing is fetched by an engine that sees to it that many askers of one
//! range cost one fetch.

mod memory;

use std::fs::File;
use std::io;

use bytes::Bytes;
use dfs_model::{ByteRange, Priority, TaskId};
use futures::FutureExt;
use futures::future::BoxFuture;

pub use memory::{FailingContent, MemoryContent, SlowContent};

/// The bytes of numbered spaces.
pub trait Content: Send + Sync + 'static {
    /// Fills `buf` with the bytes of `space` from `offset`, if all of them are here and verified.
    ///
    /// `None` when any is missing. Runs on a thread of the filesystem: it may cost one read from the
    /// page cache or the disk, never a wait for the network. Bytes beyond the space's end are an error.
    fn try_read(&self, space: u16, offset: u64, buf: &mut [u8])
    -> Option<Result<(), ContentError>>;

    /// Whether all bytes of `range` are here; what lies beyond the space's end counts as here.
    fn present(&self, space: u16, range: ByteRange) -> bool;

    /// Whether who reads the space's file directly would find all bytes of `range` as they should be: they are here, and in
    /// no doubt. What is in doubt is looked at, where nobody else waits for it.
    fn is_sound(&self, space: u16, range: ByteRange) -> BoxFuture<'static, bool> {
        std::future::ready(self.present(space, range)).boxed()
    }

    /// Resolves when every byte of `range` is here, or with the reason why it cannot be.
    ///
    /// What lies beyond the space's end is ignored. Nothing is fetched twice: overlapping calls share.
    /// Dropping the future withdraws the wish; other askers are not touched.
    fn fetch(
        &self,
        space: u16,
        range: ByteRange,
        priority: Priority,
    ) -> BoxFuture<'static, Result<(), ContentError>>;

    /// A reader goes from front to back, and through `range` next: of what is fetched for it with [`Priority::Bulk`]
    /// that comes first.
    fn reads_next(&self, _space: u16, _range: ByteRange) {}

    /// Exactly the bytes of `range`, although [`Content::fetch`] of the groups around them failed: of a group
    /// that cannot be proved as a whole, because something else in it changed at the origin.
    ///
    /// `None` when that is not why it failed.
    fn read_around(
        &self,
        _space: u16,
        _range: ByteRange,
    ) -> BoxFuture<'static, Option<Result<Bytes, ContentError>>> {
        std::future::ready(None).boxed()
    }

    /// The file in which every byte of the space that is here has the same offset as in the space. It lives as long as
    /// this does, and what is in it is never taken out again; it ends with the space. `None` where there is no such file.
    fn file(&self, _space: u16) -> Option<io::Result<File>> {
        None
    }

    /// Whether every byte of the space is in that file as it should be, and in no doubt.
    fn is_whole(&self, _space: u16) -> bool {
        false
    }

    /// How many bytes the space has; `None` where that is not known.
    fn length(&self, space: u16) -> Option<u64>;

    /// What of `range` is here: ascending and apart.
    fn cached(&self, space: u16, range: ByteRange) -> Vec<ByteRange>;

    /// BLAKE3 of the space's whole content, once it is known.
    fn digest(&self, _space: u16) -> Option<[u8; 32]> {
        None
    }

    /// Where what begins at `offset` of the space comes from, for people.
    fn source(&self, _space: u16, _offset: u64) -> Option<String> {
        None
    }

    /// The task whose bytes `space` holds; `None` for a space without one.
    fn task(&self, space: u16) -> Option<TaskId>;
}

/// Why bytes could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {reason}")]
pub struct ContentError {
    /// The kind of failure: what the reader can do about it.
    pub class: ContentErrorClass,
    /// What was tried, on what, and what it said, for a person to read.
    pub reason: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ContentErrorClass {
    /// The network, the origin or the disk failed.
    #[error("input/output error")]
    Io,
    /// What arrived is not what was promised.
    #[error("integrity error")]
    Integrity,
    /// The origin has a new version; this one can no longer be had.
    #[error("origin changed")]
    OriginChanged,
    /// The origin or the cluster refuses this reader.
    #[error("not permitted")]
    NotPermitted,
    /// No answer in time.
    #[error("timed out")]
    Timeout,
}

impl ContentError {
    /// A failure of a class with its reason.
    pub fn new(class: ContentErrorClass, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into() }
    }
}
