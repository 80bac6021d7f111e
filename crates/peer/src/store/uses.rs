//! Who uses a task. The one lock under which a use begins is the one under which eviction decides.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant, SystemTime};

use dfs_model::{Invariant, TaskId};
use parking_lot::Mutex;

use super::clock::{from_millis, millis};
use super::directory::{Directory, Survey};
use super::task::Wanted;
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
}

/// What uses a task now. A file that is open for a moment is among the uses and has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InUse {
    /// A file of it is open.
    pub handles: u64,
    /// Mounts lie over it.
    pub mounts: u64,
    /// It is being given to children.
    pub serves: u64,
    /// It is being fetched.
    pub fetches: u64,
}

impl InUse {
    fn count(&mut self, reason: Use) -> &mut u64 {
        match reason {
            Use::Handle => &mut self.handles,
            Use::Mount => &mut self.mounts,
            Use::Serve => &mut self.serves,
            Use::Fetch => &mut self.fetches,
        }
    }

    /// Whether anything does.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uses = [
            (self.mounts, "a mount shows it"),
            (self.fetches, "it is being fetched"),
            (self.serves, "it is being given to others"),
            (self.handles, "somebody reads it"),
        ];
        let uses: Vec<_> =
            uses.iter().filter(|(count, _)| *count > 0).map(|(_, why)| *why).collect();
        f.write_str(&uses.join(", "))
    }
}

/// Whether a pin keeps a task from being taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pins {
    /// It does.
    Count,
    /// It goes with the task.
    GoToo,
}

/// A task as long as the store is open, whether or not its files are.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) id: TaskId,
    uses: Mutex<Uses>,
    /// Milliseconds since 1970.
    last_read: AtomicU64,
    /// Whether `last_read` has moved since it was noted on disk.
    pub(super) read_since: AtomicBool,
    /// Allocated on disk, as it was counted last.
    bytes: AtomicU64,
    /// Of that, what is not its content or its state.
    pub(super) aside: AtomicU64,
    /// Of memory over the disk.
    pub(super) upper: AtomicU64,
    /// Whether it was taken from its place. Held while it is counted and while it is taken, so that nothing that has
    /// gone is counted.
    taken: Mutex<bool>,
    /// Seconds; zero for none.
    pub(super) ttl: AtomicU64,
    /// Something of it is not marked durable.
    pub(super) dirty: AtomicBool,
    /// An fsync failed.
    pub(super) broken: AtomicBool,
    /// It may take the reserve of the capacity.
    pub(super) uses_reserve: AtomicBool,
    /// Held while a pin is noted on disk.
    pub(super) pinning: Mutex<()>,
    direct: Mutex<Direct>,
    /// Held while the content's file is made to end there.
    pub(super) wanted_end: Mutex<Wanted>,
}

/// Who reads the content file without this store's doing: through a map, by its path, or as the kernel does.
#[derive(Debug, Default)]
struct Direct {
    now: u64,
    /// When the last of those ended that may be behind.
    ended: Option<Instant>,
}

/// When somebody who reads the content file by himself has ended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// As soon as that is said: the kernel for a mount, a map.
    UntilSaid,
    /// A while later: who was told of bytes in the file, and copies them by itself.
    AWhileLonger,
}

/// Who was told of bytes in the content file, and copies them by itself, may be so far behind.
const LAGS: Duration = Duration::from_secs(60);

impl Direct {
    fn may_be(&self, now: Instant) -> bool {
        let lags = self.ended.is_some_and(|ended| now.saturating_duration_since(ended) < LAGS);
        self.now > 0 || lags
    }
}

#[derive(Debug, Default)]
struct Uses {
    now: InUse,
    /// Somebody wants it kept for ever.
    pinned: bool,
    gone: bool,
}

impl Presence {
    pub(super) fn new(id: TaskId, survey: &Survey) -> Self {
        Self {
            id,
            uses: Mutex::new(Uses { pinned: survey.pinned, ..Uses::default() }),
            last_read: AtomicU64::new(millis(survey.last_read)),
            read_since: AtomicBool::new(false),
            bytes: AtomicU64::new(survey.bytes),
            aside: AtomicU64::new(0),
            upper: AtomicU64::new(survey.upper),
            taken: Mutex::new(false),
            ttl: AtomicU64::new(survey.ttl),
            dirty: AtomicBool::new(survey.dirty),
            broken: AtomicBool::new(false),
            uses_reserve: AtomicBool::new(false),
            pinning: Mutex::default(),
            direct: Mutex::default(),
            wanted_end: Mutex::default(),
        }
    }

    pub(super) fn note_read(&self, now: SystemTime) {
        let now = millis(now);
        if self.last_read.load(Relaxed) != now {
            self.last_read.store(now, Relaxed);
            self.read_since.store(true, Relaxed);
        }
    }

    pub(super) fn last_read(&self) -> SystemTime {
        from_millis(self.last_read.load(Relaxed))
    }

    /// Claims it for removal: from now on no use can begin. False when it is in use or claimed already.
    pub(super) fn claim(&self, pins: Pins) -> bool {
        let mut uses = self.uses.lock();
        let pinned = uses.pinned && pins == Pins::Count;
        let idle = !uses.now.any() && !pinned;
        let free = (idle || Invariant::NothingInUseIsTaken.is_broken()) && !uses.gone;
        uses.gone |= free;
        free
    }

    /// It could not be removed: it is there as before.
    pub(super) fn give_back(&self) {
        self.uses.lock().gone = false;
    }

    /// Bytes that it takes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Counts anew what it takes, in place of what it took and of what was `reserved` for it: `count` is given both
    /// together.
    pub(super) fn recount(
        &self,
        directory: &Directory,
        reserved: u64,
        count: impl FnOnce(u64) -> u64,
    ) {
        let taken = self.taken.lock();
        if *taken {
            return directory.account(reserved, 0);
        }
        let before = self.bytes() + reserved;
        let now = count(before);
        self.bytes.store(now, Relaxed);
        directory.account(before, now);
    }

    /// It is being moved out of its place by `go`; bytes that it took.
    pub(super) fn leave(
        &self,
        directory: &Directory,
        go: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<u64, StoreError> {
        let mut taken = self.taken.lock();
        go()?;
        *taken = true;
        let bytes = self.bytes.swap(0, Relaxed);
        directory.account(bytes, 0);
        directory.release_memory(self.upper.swap(0, Relaxed));
        Ok(bytes)
    }

    pub(super) fn is_evictable(&self) -> bool {
        let uses = self.uses.lock();
        !uses.now.any() && !uses.pinned
    }

    /// Pins it or lets it go; whether that is news.
    pub(super) fn set_pinned(&self, pinned: bool) -> Result<bool, StoreError> {
        let mut uses = self.uses.lock();
        if uses.gone {
            return Err(StoreError::Gone(self.id));
        }
        Ok(std::mem::replace(&mut uses.pinned, pinned) != pinned)
    }

    /// Why it cannot be taken away, where that is so.
    pub(super) fn refusal(&self) -> StoreError {
        let uses = self.uses.lock();
        match uses.now.any() {
            true => StoreError::InUse { task: self.id, by: uses.now },
            false => StoreError::Pinned(self.id),
        }
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
        *uses.now.count(reason) += 1;
        Ok(UseGuard { presence: Arc::clone(self), reason })
    }

    pub(super) fn begin_direct(self: &Arc<Self>, reads: Reads) -> DirectGuard {
        self.direct.lock().now += 1;
        DirectGuard { presence: Arc::clone(self), reads }
    }

    /// What `act` does to the content, where that is nobody's but this store's; nobody else begins to read it meanwhile.
    pub(super) fn while_undirected<T>(&self, now: Instant, act: impl FnOnce() -> T) -> Option<T> {
        let direct = self.direct.lock();
        let is_held = direct.may_be(now) && !Invariant::NothingInUseIsTaken.is_broken();
        if is_held || self.uses.lock().pinned {
            return None;
        }
        Some(act())
    }

    pub(super) fn summary(&self) -> TaskSummary {
        let uses = self.uses.lock();
        TaskSummary {
            id: self.id,
            bytes: self.bytes(),
            last_read: self.last_read(),
            pinned: uses.pinned,
            in_use: uses.now,
        }
    }

    pub(super) fn eviction_entry(&self, default_ttl: Option<Duration>) -> EvictionEntry {
        let TaskSummary { id, bytes, last_read, pinned, in_use } = self.summary();
        let own = self.ttl.load(Relaxed);
        let ttl = if own == 0 { default_ttl } else { Some(Duration::from_secs(own)) };
        EvictionEntry { id, bytes, last_read, pinned, in_use: in_use.any(), ttl }
    }
}

/// The content file of a task is read by others: until this is dropped nothing is taken out of it.
#[derive(Debug)]
#[must_use = "it may be taken away when the guard is dropped"]
pub struct DirectGuard {
    presence: Arc<Presence>,
    reads: Reads,
}

impl Drop for DirectGuard {
    fn drop(&mut self) {
        let mut direct = self.presence.direct.lock();
        direct.now -= 1;
        if self.reads == Reads::AWhileLonger {
            direct.ended = Some(Instant::now());
        }
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
        *self.presence.uses.lock().now.count(self.reason) -= 1;
    }
}
