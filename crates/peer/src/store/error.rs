//! What the store refuses.

use std::io;
use std::path::{Path, PathBuf};

use dfs_model::{ByteSize, GroupRange, TaskId};
use rustix::io::Errno;

use super::uses::InUse;
use crate::hashtree::{ContentError, Node};

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("cannot {what} {path}", path = path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// Another process has the store.
    #[error("{dir} is in use by another process{holder}", dir = dir.display(),
        holder = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Busy {
        /// The data directory.
        dir: PathBuf,
        /// Who has it, when that is known.
        pid: Option<u32>,
    },
    /// The disk or the store's own share of it is full. Nothing was recorded.
    #[error("no space left in {dir} to keep task {task}{limit}", dir = dir.display(),
        limit = limit.map(|limit| format!(": the cache there may take {limit}")).unwrap_or_default())]
    NoSpace {
        /// What was to be kept.
        task: TaskId,
        /// Where.
        dir: PathBuf,
        /// The store's own share, where it is that which is full.
        limit: Option<ByteSize>,
    },
    /// There is no memory for a cache in memory.
    #[error("there is no file system in memory for the cache: /dev/shm is none, and nobody has mounted one on {own}",
        own = own.display())]
    NoMemory {
        /// Where one could be mounted.
        own: PathBuf,
    },
    /// More memory than there is.
    #[error("the cache cannot take {budget} of memory: {place} has {most}")]
    Budget {
        /// What it was to take.
        budget: ByteSize,
        /// What has less.
        place: String,
        /// How much that has.
        most: ByteSize,
    },
    /// What belongs to somebody else, or can be looked into, is no place for a cache.
    #[error("{0} belongs to somebody else, or others may look into it")]
    NotPrivate(PathBuf),
    /// These groups are not here, or not any more.
    #[error("{groups} of task {task} are not here")]
    Missing {
        /// Of which task.
        task: TaskId,
        /// The first run that is missing.
        groups: GroupRange,
    },
    /// Groups or bytes that the content does not have.
    #[error("task {task}: {source}")]
    Content {
        /// Which task.
        task: TaskId,
        /// What is wrong with them.
        source: ContentError,
    },
    /// A node that the task's tree does not have, or has as its root.
    #[error("{node} has no digest in the tree of task {task}")]
    Misplaced {
        /// Which task.
        task: TaskId,
        /// The node.
        node: Node,
    },
    /// More than any store keeps.
    #[error("task {task} is {claimed} bytes long: no content that long can be kept")]
    TooLong {
        /// Which task.
        task: TaskId,
        /// The length given.
        claimed: u64,
    },
    /// A length that contradicts what is known.
    #[error("task {task} cannot be {claimed} bytes long: {reason}")]
    Length {
        /// Which task.
        task: TaskId,
        /// The length given.
        claimed: u64,
        /// What it contradicts.
        reason: &'static str,
    },
    /// Digests of some other task.
    #[error("digests of task {got} were given for task {task}")]
    OtherTask {
        /// The task at hand.
        task: TaskId,
        /// The task they are of.
        got: TaskId,
    },
    /// The task was evicted or removed while the caller held no use of it.
    #[error("task {0} was taken away")]
    Gone(TaskId),
    /// Something uses the task.
    #[error("task {task} is in use: {by}")]
    InUse {
        /// Which task.
        task: TaskId,
        /// What uses it.
        by: InUse,
    },
    /// Others read the content's file, as it ends now.
    #[error("another mount has the kernel read the same file in another way")]
    EndsElsewhere(
        /// Of which task.
        TaskId,
    ),
    /// Somebody wants the task kept.
    #[error("task {0} is pinned")]
    Pinned(TaskId),
    /// The caller's record cannot be read or written as JSON.
    #[error("the record of task {task} is malformed: {source}")]
    Record {
        /// Which task.
        task: TaskId,
        /// The parser's words.
        source: serde_json::Error,
    },
}

impl StoreError {
    /// Whether this process, or the machine, has too many files open.
    pub fn is_out_of_files(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        let errno = source.raw_os_error();
        [Errno::MFILE, Errno::NFILE].iter().any(|full| errno == Some(full.raw_os_error()))
    }

    /// For `map_err`: the attempt on a path.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// As [`StoreError::io`], telling a full disk apart.
    pub(super) fn write(task: TaskId, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { task, dir: path, limit: None }
            }
            _ => Self::Io { what: "write", path, source },
        }
    }
}
