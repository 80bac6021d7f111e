//! A task as its users see it: read ranges, wait for them, ask where they came from.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use dfs_artifact::Origin;
use dfs_model::{ByteRange, GROUP_BYTES, GroupRange, HostId, Priority, TaskId, TaskInfo};
use dfs_proto::common;
use dfs_source::Credentials;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::earlier::{Earlier, Listed};
use super::error::ReadError;
use super::keep::KnownBatches;
use super::ledger::{CameFrom, Ledger, Mark, Provenance};
use super::nearer::Nearer;
use super::passing::{Passing, Room};
use super::reserves::Reserve;
use super::voids::Voids;
use crate::conductor::SourceAccess;
use crate::digests::{Appointment, SignedDigests};
use crate::hashtree::{self, Shape};
use crate::limits::{OriginSlot, OriginSlots, Turns};
use crate::store::{StoreError, StoredTask, TakenOut, Use, UseGuard, Verify};

/// How far beyond what is here a reader of a content of unknown length asks at a time.
const GROWING_WINDOW: u64 = 256;

/// How often bytes are fetched that the disk then does not give back.
const ATTEMPTS: u32 = 3;

/// A parent as the scheduler names it.
#[derive(Debug, Clone)]
pub struct ParentHost {
    /// The host.
    pub host: dfs_model::HostInfo,
    /// The scheduler's word that this child may have this task.
    pub grant: Bytes,
    /// Whether it fetches what it lacks.
    pub fetches: bool,
}

impl ParentHost {
    /// A seed that no scheduler named.
    pub(super) fn seed(host: dfs_model::HostInfo) -> Self {
        Self { host, grant: Bytes::new(), fetches: true }
    }

    /// Whether it is reached the same way as `other`, which is the same host.
    pub(super) fn is_where(&self, other: &Self) -> bool {
        self.host.addresses == other.host.addresses && self.grant == other.grant
    }

    /// It is reached as `other`, which is the same host and was named later.
    pub(super) fn is_at(&mut self, other: &Self) {
        self.host.clone_from(&other.host);
        self.grant.clone_from(&other.grant);
    }
}

/// This host's turn at the uplink of a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) id: u64,
    pub(crate) parent: HostId,
    pub(crate) groups: GroupRange,
}

/// What a task's actor is told.
#[derive(Debug)]
pub(crate) enum Command {
    Want {
        groups: GroupRange,
        priority: Priority,
        waiter: Option<Waiter>,
    },
    Abandoned,
    /// A reader goes from front to back and reads this next.
    ReadsNext(GroupRange),
    /// Its parents, and whether what is wanted in any order comes by leases.
    Parents {
        parents: Vec<ParentHost>,
        led: bool,
    },
    Leases {
        leases: Vec<Lease>,
        /// Names of those that hold no longer.
        withdrawn: Vec<u64>,
        /// Those of their parents that were not named before.
        partners: Vec<ParentHost>,
    },
    Holds {
        host: HostId,
        groups: Vec<GroupRange>,
    },
    Source(SourceAccess),
    BackToSource {
        reason: String,
        stand_in: bool,
    },
    /// Who reads the origin for this host's place when nobody else does.
    Reserves(Vec<Reserve>),
    /// Who else than the seeds signs for this task.
    Signers {
        keys: Vec<(HostId, [u8; 32])>,
        /// The scheduler's words for them.
        appointments: Vec<Appointment>,
    },
    Refused(ReadError),
    /// The scheduler has no place for this peer now.
    Unregistered,
    /// The scheduler is not there any more: nobody leases.
    Unled,
    /// A neighbour leads from now on. It may go and leave behind those who do not know what the scheduler knew.
    Delegated,
    Digests(Box<SignedDigests>),
    /// The whole content, with what proves it: the scheduler's answer for a tiny one.
    Tiny {
        whole: common::Whole,
        /// Dropped when it is kept, or will not be.
        looked_at: Option<oneshot::Sender<()>>,
    },
    Lost(GroupRange),
    /// A seed of another area is not to be taken from for a while.
    Doubted(HostId),
}

/// Somebody who waits until groups are here.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(super) groups: GroupRange,
    pub(super) priority: Priority,
    /// Whether they may be in memory only: whoever waits takes them from there.
    pub(super) in_passing: bool,
    /// When the read began.
    pub(super) since: Instant,
    pub(super) done: oneshot::Sender<Result<(), ReadError>>,
}

/// What the actor and the users of a task share.
pub(crate) struct Shared {
    pub(super) info: TaskInfo,
    pub(super) stored: StoredTask,
    pub(super) origin: Mutex<Option<Arc<dyn Origin>>>,
    /// Its members, where it has some.
    pub(super) listed: OnceLock<Listed>,
    /// What other tasks have of them.
    pub(super) earlier: OnceLock<Arc<Earlier>>,
    /// With which it was opened here.
    pub(super) credentials: Mutex<Credentials>,
    /// The turn of a child whose credentials the origin is asked about.
    pub(super) proving: Semaphore,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) batches: KnownBatches,
    pub(super) provenance: Provenance,
    /// Whether anything is wanted.
    pub(super) busy: AtomicBool,
    /// Whether this process has written down how the origin is read.
    pub(super) recorded: AtomicBool,
    /// Whether the scheduler made this host read the origin for others too.
    pub(super) stands_in: AtomicBool,
    /// Whether this host is to read the origin for others once nobody else does.
    pub(super) is_reserve: AtomicBool,
    /// Whether this host leads others in it.
    pub(super) leads: AtomicBool,
    /// Groups that cannot come, for a while.
    pub(super) voids: Voids,
    /// Groups that come and cannot be kept.
    pub(super) passing: Passing,
    /// Whether the store takes more, over all tasks.
    pub(super) room: Arc<Room>,
    /// Requests to origins at a time, over all tasks.
    pub(super) source_slots: Arc<OriginSlots>,
    pub(super) turns: Arc<Turns>,
    /// Turns of hashing again what is in doubt, over all tasks.
    pub(super) settling: Arc<Semaphore>,
    /// What is wanted, as of which event.
    pub(super) wanted: watch::Sender<Wanted>,
    /// Events that flights have reported.
    pub(super) reported: AtomicU64,
    /// Groups as they become present.
    pub(super) gained: broadcast::Sender<GroupRange>,
    pub(super) length: watch::Sender<Option<u64>>,
    /// Why nothing moves, while it does not.
    pub(super) waiting_for: Mutex<Option<String>>,
    /// Names of the parents it has now.
    pub(super) parents: Mutex<Vec<String>>,
}

/// What is wanted, as it is after so many of the flights' events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    pub(super) events: u64,
    /// The first of the groups, and the end of the last.
    pub(super) span: Option<(u64, u64)>,
}

impl Shared {
    pub(super) fn shape(&self) -> Shape {
        Shape::new(*self.length.borrow())
    }

    /// A turn to ask the origin. None is needed where another task asks it: who held one and waited for that task,
    /// which needs one too, could wait for ever.
    pub(super) async fn source_slot(
        &self,
        origin: &dyn Origin,
        priority: Priority,
    ) -> Option<OriginSlot> {
        match origin.reads_a_task() {
            true => None,
            false => Some(self.source_slots.acquire(&self.info.key.url, priority).await),
        }
    }

    /// Whether nothing is wanted, nor was asked for since the actor looked last.
    pub(super) fn is_idle(&self) -> bool {
        let unread = self.commands.max_capacity() - self.commands.capacity();
        unread == 0 && !self.busy.load(Ordering::Relaxed)
    }
}

/// Keeps a task open.
#[derive(Default)]
pub(super) struct Hold;

/// A handle on an open task, which stays open while there is one; cheap to clone.
#[derive(Clone)]
pub struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) verify: Verify,
    _hold: Option<Arc<Hold>>,
}

impl Task {
    /// A handle; without a hold it keeps nothing open.
    pub(super) fn new(shared: Arc<Shared>, hold: Option<Arc<Hold>>) -> Self {
        Self { shared, verify: Verify::default(), _hold: hold }
    }

    /// The same handle, whose reads hold bytes against their digests as said.
    pub fn verifying(self, verify: Verify) -> Self {
        Self { verify, ..self }
    }

    /// Its identity and layout.
    pub fn info(&self) -> &TaskInfo {
        &self.shared.info
    }

    /// Its name.
    pub fn id(&self) -> TaskId {
        self.shared.info.id
    }

    /// Bytes in the content, once known.
    pub fn length(&self) -> Option<u64> {
        // The store knows it first.
        let told = *self.shared.length.borrow();
        told.or_else(|| self.shared.stored.length())
    }

    /// Whether it still works; what was evicted, or closed with the engine, does not.
    pub fn is_open(&self) -> bool {
        !self.shared.commands.is_closed()
    }

    /// A handle on the same that does not keep it open.
    pub fn without_hold(&self) -> Self {
        Self::new(Arc::clone(&self.shared), None).verifying(self.verify)
    }

    /// From now on this host leads others in it: it fetches what they ask it for, as a seed does.
    pub fn lead(&self) {
        self.shared.leads.store(true, Ordering::Relaxed);
    }

    /// It leads nobody any more.
    pub fn lead_no_more(&self) {
        self.shared.leads.store(false, Ordering::Relaxed);
    }

    /// Whether it fetches what others ask it for and it lacks: it leads them, or they have nobody else.
    pub(super) fn fetches_for_others(&self) -> bool {
        self.shared.leads.load(Ordering::Relaxed) || self.shared.is_reserve.load(Ordering::Relaxed)
    }

    /// Waits until it is closed: evicted, left idle, or ended with the engine.
    pub async fn closed(&self) {
        self.shared.commands.closed().await;
    }

    /// Waits until the length is known.
    pub async fn known_length(&self) -> Result<u64, ReadError> {
        let mut length = self.shared.length.subscribe();
        let everything = GroupRange::new(0, u64::from(u32::MAX));
        // Of what is not kept: the end of what has passed.
        let mut passed = None;
        while length.borrow_and_update().is_none() {
            let edge = self.shared.stored.missing_in(everything).first().map_or(0, |run| run.first);
            let edge = passed.unwrap_or(0).max(edge);
            let window = GroupRange::new(edge, GROWING_WINDOW);
            if passed.is_none() {
                match self.ensure_groups(window, Priority::Bulk).await {
                    Err(error) if error.is_no_space() => {}
                    kept => {
                        kept?;
                        continue;
                    }
                }
            }
            passed = Some(self.passage(window, Priority::Bulk).await?.end());
        }
        let known = *length.borrow();
        known.ok_or(ReadError::Closing(self.id()))
    }

    /// What the store keeps of it.
    pub fn stored(&self) -> &StoredTask {
        &self.shared.stored
    }

    /// Keeps it from being evicted while the guard lives.
    pub fn in_use(&self, purpose: Use) -> Result<UseGuard, ReadError> {
        Ok(self.shared.stored.in_use(purpose)?)
    }

    /// Content bytes that are here.
    pub fn cached_bytes(&self) -> u64 {
        let groups = self.shared.stored.have();
        let length = self.length().unwrap_or(u64::MAX);
        groups.ranges().map(|run| run.bytes(length).len()).sum()
    }

    /// Whether every byte is here.
    pub fn is_complete(&self) -> bool {
        self.length().is_some_and(|length| self.has(ByteRange::new(0, length)))
    }

    /// Whether every byte of `range` is here.
    pub fn has(&self, range: ByteRange) -> bool {
        self.shared.stored.has(range.groups())
    }

    /// Whether anything of it is being fetched for somebody.
    pub fn is_wanted(&self) -> bool {
        self.shared.busy.load(Ordering::Relaxed)
    }

    /// Why nothing moves, while it does not.
    pub fn waiting_for(&self) -> Option<String> {
        self.shared.waiting_for.lock().clone()
    }

    /// Names of the parents it has now.
    pub fn parents(&self) -> Vec<String> {
        self.shared.parents.lock().clone()
    }

    /// BLAKE3 of the whole content, once all of it is here.
    pub fn digest(&self) -> Option<[u8; 32]> {
        let shape = self.shared.shape();
        if !self.is_complete() {
            return None;
        }
        hashtree::fold(shape, shape.root()?, |node| self.shared.stored.node(node))
    }

    /// The groups as they become present from now on.
    pub fn gained(&self) -> broadcast::Receiver<GroupRange> {
        self.shared.gained.subscribe()
    }

    /// Which of these groups, that came since it was opened, came from whom.
    pub fn by_giver(&self, groups: GroupRange) -> Vec<(CameFrom, GroupRange)> {
        self.shared.provenance.by_giver(groups)
    }

    /// Where an account begins.
    pub fn mark(&self) -> Mark {
        self.shared.provenance.mark(self.shared.stored.have())
    }

    /// The account of `range` since the mark; the range must be here.
    pub fn ledger_since(&self, mark: &Mark, range: ByteRange) -> Ledger {
        let length = self.length().unwrap_or(range.end);
        self.shared.provenance.since(mark, range, length)
    }

    /// As [`Self::ledger_since`] for an operation that ends: of operations that went on at the same time, one
    /// tells each request to the origin.
    pub fn told_since(&self, mark: &Mark, range: ByteRange) -> Ledger {
        let length = self.length().unwrap_or(range.end);
        self.shared.provenance.told_since(mark, range, length)
    }

    /// The account since the mark of these ranges, which are here, and of all that was read and not kept; with what it
    /// all cost, whoever it was for.
    pub fn account_since(
        &self,
        mark: &Mark,
        ranges: impl IntoIterator<Item = ByteRange>,
    ) -> Ledger {
        self.shared.provenance.account(mark, ranges, self.length().unwrap_or(0))
    }

    /// The account of everything that is here; what an earlier process brought counts as cache.
    pub fn ledger(&self) -> Ledger {
        let origin = Mark::beginning(self.shared.provenance.mark(dfs_model::GroupSet::new()));
        let length = self.length().unwrap_or(0);
        let here = self.shared.stored.have();
        self.account_since(&origin, here.ranges().map(|run| run.bytes(length)))
    }

    /// Asks for a range without waiting for it. Nothing is asked for that could not be kept.
    pub fn prefetch(&self, range: ByteRange, priority: Priority) {
        if self.lacks_room() {
            return;
        }
        let groups = self.clipped(range).groups();
        // There may be no more at all.
        let most = if self.length().is_some() { u64::MAX } else { GROWING_WINDOW };
        let groups = GroupRange::new(groups.first, groups.count.min(most));
        let room = self.shared.stored.room() / GROUP_BYTES;
        let groups = GroupRange::new(groups.first, groups.count.min(room));
        let mut at = groups.first;
        while at < groups.end() {
            let rest = GroupRange::new(at, groups.end() - at);
            let hole = self.hole_in(rest).map_or(GroupRange::new(rest.end(), 0), |(hole, _)| hole);
            let groups = GroupRange::new(at, hole.first - at);
            at = hole.end();
            if !groups.is_empty() && !self.shared.stored.has(groups) {
                let want = Command::Want { groups, priority, waiter: None };
                // A full mailbox means that more urgent things are under way: prefetching can wait.
                let _ = self.shared.commands.try_send(want);
            }
        }
    }

    /// A host wants this fetched: it does not have it, and waits. If it is one that this host would take it from both
    /// would wait, where they know other areas: who has the smaller name of the two does not.
    pub(super) async fn is_wanted_by(&self, host: HostId, nearer: &Nearer, own: HostId) {
        if own < host && nearer.is_asked_for(&self.shared.info, host) {
            nearer.doubt(host, Some(self.shared.info.id), Instant::now());
            // Gone only with the task.
            let _ = self.shared.commands.send(Command::Doubted(host)).await;
        }
    }

    /// Somebody reads from front to back, and `range` next: of what is wanted in any order it comes first.
    pub fn reads_next(&self, range: ByteRange) {
        let groups = self.clipped(range).groups();
        if !groups.is_empty() && !self.shared.stored.has(groups) {
            // A full mailbox means that more urgent things are under way: it is said again with the next step.
            let _ = self.shared.commands.try_send(Command::ReadsNext(groups));
        }
    }

    /// Waits until every byte of `range` is here and verified.
    pub async fn ensure(&self, range: ByteRange, priority: Priority) -> Result<(), ReadError> {
        if let Some(length) = self.length()
            && range.end > length
        {
            return Err(ReadError::PastEnd { offset: range.end - 1, length });
        }
        self.ensure_groups(range.groups(), priority).await
    }

    pub(crate) async fn ensure_groups(
        &self,
        groups: GroupRange,
        priority: Priority,
    ) -> Result<(), ReadError> {
        if self.shared.stored.has(groups) {
            return Ok(());
        }
        self.wait_for(groups, priority, false).await
    }

    /// Waits until groups are here: in the store or, where that is enough, in memory.
    pub(super) async fn wait_for(
        &self,
        groups: GroupRange,
        priority: Priority,
        in_passing: bool,
    ) -> Result<(), ReadError> {
        if let Some((_, error)) = self.hole_in(groups) {
            return Err(error);
        }
        let (done, waited) = oneshot::channel();
        let since = Instant::now();
        let waiter = Waiter { groups, priority, in_passing, since, done };
        let _waiting = self.shared.turns.waits(priority, self.id(), groups);
        let want = Command::Want { groups, priority, waiter: Some(waiter) };
        let closing = ReadError::Closing(self.id());
        self.shared.commands.send(want).await.map_err(|_| closing.clone())?;
        let mut abandoned = AbandonGuard { shared: &self.shared, armed: true };
        let result = waited.await.unwrap_or(Err(closing));
        abandoned.armed = false;
        result
    }

    /// As [`Self::ensure`], for at most `patience`.
    pub async fn ensure_within(
        &self,
        range: ByteRange,
        priority: Priority,
        patience: Duration,
    ) -> Result<(), ReadError> {
        match tokio::time::timeout(patience, self.ensure(range, priority)).await {
            Ok(result) => result,
            Err(_) => Err(ReadError::Timeout {
                waited: patience,
                why: self.waiting_for().unwrap_or_else(|| "no parent delivered".to_owned()),
            }),
        }
    }

    /// The bytes of `range`, clipped at the end of the content; at most a few MiB at a time. What cannot be kept,
    /// because a neighbour in its group changed or the store is full, is handed over all the same
    /// ([`Task::passes`]).
    pub async fn read(&self, range: ByteRange, priority: Priority) -> Result<Bytes, ReadError> {
        let range = self.clipped(range);
        match self.read_whole(range, priority).await {
            Err(error) if self.has_holes_in(range) => {
                self.read_around(range, priority, error).await
            }
            outcome => outcome,
        }
    }

    /// The bytes of `range`, all groups of which must come.
    pub(super) async fn read_whole(
        &self,
        range: ByteRange,
        priority: Priority,
    ) -> Result<Bytes, ReadError> {
        match self.read_kept(range, priority).await {
            Err(error) if error.is_no_space() => self.read_past_store(range, priority).await,
            outcome => outcome,
        }
    }

    /// The bytes of `range`, all groups of which must come and be kept.
    async fn read_kept(&self, range: ByteRange, priority: Priority) -> Result<Bytes, ReadError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            self.ensure(range, priority).await?;
            let (stored, verify) = (self.shared.stored.clone(), self.verify);
            let read = tokio::task::spawn_blocking(move || stored.read_by(range, verify)).await;
            let outcome = read.map_err(|_| ReadError::Closing(self.id()))?;
            match outcome {
                Ok(bytes) => return Ok(bytes),
                Err(StoreError::Missing { .. }) if attempts < ATTEMPTS => {
                    self.report_lost(range.groups()).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Fills `buf` with the bytes of `range`, all of which must be here.
    pub fn read_here(&self, range: ByteRange, buf: &mut [u8]) -> Result<(), StoreError> {
        self.shared.stored.read_at(range, buf, self.verify)
    }

    /// Keeps the whole of a tiny content that came with the answer to what it is, where it is proven to be that. Ends
    /// when it is here or will not be: it is fetched then, as any other.
    pub(crate) async fn take(&self, whole: common::Whole) {
        if self.is_complete() {
            return;
        }
        let (looked_at, kept) = oneshot::channel();
        let taken = Command::Tiny { whole, looked_at: Some(looked_at) };
        if self.shared.commands.send(taken).await.is_ok() {
            // It is dropped, never sent.
            let _ = kept.await;
        }
        if self.is_complete() {
            self.shared.provenance.came_with_opening(GroupRange::new(0, 1));
        }
    }

    /// Whether all of `range` is here and in no doubt. What is in doubt is hashed again first, for a
    /// few readers at a time: that takes as long as reading it from the disk.
    pub async fn is_sound(&self, range: ByteRange) -> bool {
        let (stored, groups) = (self.shared.stored.clone(), self.clipped(range).groups());
        if !stored.is_in_doubt(groups) {
            return stored.ready(groups).is_ok();
        }
        let turn = Arc::clone(&self.shared.settling).acquire_owned().await;
        let Ok(turn) = turn else { return false };
        // It goes on where nobody waits for it any more, and so does its turn.
        let settling = tokio::task::spawn_blocking(move || {
            let is_ready = stored.ready(groups).is_ok();
            drop(turn);
            is_ready
        });
        settling.await.unwrap_or(false)
    }

    /// What was thought to be here is not (bit rot, a disk error): it is fetched again when wanted.
    pub async fn report_lost(&self, groups: GroupRange) -> Result<(), ReadError> {
        let lost = self.shared.commands.send(Command::Lost(groups)).await;
        lost.map_err(|_| ReadError::Closing(self.id()))
    }

    /// Takes what is here of `runs` out of the store, as [`StoredTask::take_out`], and tells others that it is here no
    /// more.
    pub async fn take_out(&self, runs: Vec<GroupRange>) -> Result<TakenOut, ReadError> {
        let stored = self.shared.stored.clone();
        let taking = tokio::task::spawn_blocking(move || stored.take_out(&runs)).await;
        let taken = taking.map_err(|_| ReadError::Closing(self.id()))??;
        for run in &taken.groups {
            self.report_lost(*run).await?;
        }
        Ok(taken)
    }

    fn clipped(&self, range: ByteRange) -> ByteRange {
        self.length().map_or(range, |length| range.intersection(ByteRange::new(0, length)))
    }
}

/// Tells the actor when a waiter goes away before its groups came.
struct AbandonGuard<'a> {
    shared: &'a Shared,
    armed: bool,
}

impl Drop for AbandonGuard<'_> {
    fn drop(&mut self) {
        if self.armed {
            // A full mailbox is no loss: the actor looks for abandoned waiters at every tick too.
            let _ = self.shared.commands.try_send(Command::Abandoned);
        }
    }
}
