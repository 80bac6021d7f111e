//! The upper layer of a cache in memory over disk: what comes lies in memory until that is needed for what comes next,
//! and is put down then. What goes before, because nobody wants it any more, never reaches the disk.
//!
//! Owns how much memory the tasks take together. Their own part is `task/upper.rs`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use dfs_model::{ByteSize, TaskId};
use tokio::sync::Notify;

use super::StoreError;
use super::medium::Memory;

/// See the module.
#[derive(Debug)]
pub(super) struct Upper {
    memory: Memory,
    budget: u64,
    used: AtomicU64,
    pressed: Notify,
}

impl Upper {
    pub(super) fn open(data_dir: &Path, budget: ByteSize) -> Result<Self, StoreError> {
        let memory = Memory::open(data_dir, budget)?;
        let (used, pressed) = (AtomicU64::new(0), Notify::new());
        let upper = Self { memory, budget: budget.0, used, pressed };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(upper.shelf());
        made.map_err(StoreError::io("make", &upper.shelf()))?;
        Ok(upper)
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    fn shelf(&self) -> PathBuf {
        self.memory.dir().join("upper")
    }

    /// Where a task's part lies.
    pub(super) fn dir(&self, id: TaskId) -> PathBuf {
        self.shelf().join(id.to_string())
    }

    /// Bytes that a task's part takes, as the file system counts them.
    pub(super) fn bytes_of(&self, id: TaskId) -> u64 {
        fs::metadata(self.dir(id).join("content")).map_or(0, |content| content.blocks() * 512)
    }

    /// Takes a task's part away; what it took is given back by who counted it.
    pub(super) fn remove(&self, id: TaskId) {
        match fs::remove_dir_all(self.dir(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, task = %id, "what a task took of memory stays taken");
            }
            _ => {}
        }
    }

    /// Takes away what belongs to no task that is kept.
    pub(super) fn sweep(&self, is_kept: impl Fn(TaskId) -> bool) {
        let names = fs::read_dir(self.shelf()).into_iter().flatten().flatten();
        let ids = names.filter_map(|entry| entry.file_name().to_str()?.parse::<TaskId>().ok());
        ids.filter(|id| !is_kept(*id)).for_each(|id| self.remove(id));
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Counts `bytes` more as taken; false where they would go beyond the budget, or press others.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        let used = self.used();
        let fits = bytes <= self.memory.left(Instant::now(), used);
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.budget);
        let reserved = fits && self.used.try_update(Relaxed, Relaxed, more).is_ok();
        if !reserved || self.excess() > 0 {
            self.pressed.notify_one();
        }
        reserved
    }

    /// Counts what was found in memory.
    pub(super) fn found(&self, bytes: u64) {
        self.used.fetch_add(bytes, Relaxed);
    }

    pub(super) fn release(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used.try_update(Relaxed, Relaxed, less);
    }

    /// Bytes above the half of the budget once three quarters of it are taken; all of them where others want the memory.
    pub(super) fn excess(&self) -> u64 {
        let used = self.used();
        if self.memory.left(Instant::now(), used) == 0 {
            return used;
        }
        if used > self.budget / 4 * 3 { used - self.budget / 2 } else { 0 }
    }

    /// Waits until something is to be put down.
    pub(super) async fn pressed(&self) {
        self.pressed.notified().await;
    }
}
