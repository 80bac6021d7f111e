//! Who uses a task. The one lock under which a use begins is the one under which eviction decides.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, SystemTime};

use dfs_model::{Invariant, TaskId};
use parking_lot::Mutex;

use super::directory::Survey;
use super::{EvictionEntry, StoreError, TaskSummary};

/// Why a task must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// A file of it is open, or its content file is read by the kernel.
    Handle,
    /// A mount lays its tree over it.
    Mount,
    /// It is being given to a child.
    Serve,
    /// It is being fetched.
    Fetch,
    /// Somebody wants it kept for ever.
    Pin,
}

/// A task as long as the store is open, whether or not its files are.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) id: TaskId,
    uses: Mutex<Uses>,
    /// Seconds since 1970.
    last_read: AtomicU64,
    /// Whether `last_read` has moved since it was noted on disk.
    pub(super) read_since: AtomicBool,
    /// Allocated on disk, as far as known.
    pub(super) bytes: AtomicU64,
    /// Seconds; zero for none.
    pub(super) ttl: AtomicU64,
    /// Something of it is not marked durable.
    pub(super) dirty: AtomicBool,
    /// An fsync failed.
    pub(super) broken: AtomicBool,
    /// It may take the reserve of the capacity.
    pub(super) uses_reserve: AtomicBool,
}

#[derive(Debug, Default)]
struct Uses {
    others: u64,
    pins: u64,
    gone: bool,
}

impl Uses {
    fn count(&mut self, reason: Use) -> &mut u64 {
        match reason {
            Use::Pin => &mut self.pins,
            Use::Handle | Use::Mount | Use::Serve | Use::Fetch => &mut self.others,
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Presence {
    pub(super) fn new(id: TaskId, survey: &Survey) -> Self {
        Self {
            id,
            uses: Mutex::default(),
            last_read: AtomicU64::new(seconds(survey.last_read)),
            read_since: AtomicBool::new(false),
            bytes: AtomicU64::new(survey.bytes),
            ttl: AtomicU64::new(survey.ttl),
            dirty: AtomicBool::new(survey.dirty),
            broken: AtomicBool::new(false),
            uses_reserve: AtomicBool::new(false),
        }
    }

    pub(super) fn note_read(&self) {
        let now = seconds(SystemTime::now());
        if self.last_read.load(Relaxed) != now {
            self.last_read.store(now, Relaxed);
            self.read_since.store(true, Relaxed);
        }
    }

    pub(super) fn last_read(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.last_read.load(Relaxed))
    }

    /// Claims it for removal: from now on no use can begin. False when it is in use or claimed already.
    pub(super) fn claim(&self) -> bool {
        let mut uses = self.uses.lock();
        let idle = uses.others == 0 && uses.pins == 0;
        let free = (idle || Invariant::NothingInUseIsTaken.is_broken()) && !uses.gone;
        uses.gone |= free;
        free
    }

    pub(super) fn is_evictable(&self) -> bool {
        let uses = self.uses.lock();
        uses.others == 0 && uses.pins == 0
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.uses.lock().gone || self.broken.load(Relaxed) {
            return Err(StoreError::Gone(self.id));
        }
        Ok(())
    }

    pub(super) fn begin(self: &Arc<Self>, reason: Use) -> Result<UseGuard, StoreError> {
        let mut uses = self.uses.lock();
        if uses.gone {
            return Err(StoreError::Gone(self.id));
        }
        *uses.count(reason) += 1;
        Ok(UseGuard { presence: Arc::clone(self), reason })
    }

    pub(super) fn summary(&self) -> TaskSummary {
        let uses = self.uses.lock();
        TaskSummary {
            id: self.id,
            bytes: self.bytes.load(Relaxed),
            last_read: self.last_read(),
            pinned: uses.pins > 0,
            in_use: uses.others > 0,
        }
    }

    pub(super) fn eviction_entry(&self, default_ttl: Option<Duration>) -> EvictionEntry {
        let TaskSummary { id, bytes, last_read, pinned, in_use } = self.summary();
        let own = self.ttl.load(Relaxed);
        let ttl = if own == 0 { default_ttl } else { Some(Duration::from_secs(own)) };
        EvictionEntry { id, bytes, last_read, pinned, in_use, ttl }
    }
}

/// A task in use: it stays until this is dropped.
#[derive(Debug)]
#[must_use = "the use ends when the guard is dropped"]
pub struct UseGuard {
    presence: Arc<Presence>,
    reason: Use,
}

impl UseGuard {
    /// What is in use.
    pub fn task(&self) -> TaskId {
        self.presence.id
    }
}

impl Drop for UseGuard {
    fn drop(&mut self) {
        *self.presence.uses.lock().count(self.reason) -= 1;
    }
}
