//! Reading past a cache that is full: verified bytes go to whoever waits for them, and are not kept.
//!
//! Owns the groups that lie in memory between their arrival and their reader ([`Passing`]), and whether the
//! store takes more at all ([`Room`]). While it does not, only what a reader waits for is fetched: what nobody
//! waits for would have to be thrown away. Lost with the process, as any read under way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dfs_model::{ByteRange, GROUP_BYTES, GroupRange, Priority};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::error::ReadError;
use super::task::{Shared, Task};
use crate::digests::SignedDigests;
use crate::hashtree::{Cv, Node};
use crate::store::{StoreError, StoredTask, Verify};

/// Groups in memory at a time, over all tasks: 64 MiB.
const GROUPS_IN_MEMORY: usize = 1024;

/// Groups that one reader waits for at a time: 8 MiB.
const AT_A_TIME: u64 = 128;

/// How long a store that was full is taken to be so; every read past it tries to keep what comes.
const STAYS_FULL: Duration = Duration::from_secs(5);

/// How long it is remembered that the store was full, and between two lines in the log about it.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How long a reader waits for its share of the memory. It goes on without: others may wait for this one.
const SHARE_WITHIN: Duration = Duration::from_secs(2);

/// Runs that a stream without ranges leaves behind it in memory: readers come in small steps, and beside each
/// other.
const LEFT_BEHIND: usize = 4;

/// How long one stream from the origin waits for the reader of its next bytes.
const READER_WITHIN: Duration = Duration::from_secs(5);

/// How often bytes are fetched that are gone again before they are read.
const ATTEMPTS: u32 = 3;

/// Whether the store has room, as found out by trying; of all tasks together.
pub(super) struct Room {
    state: Mutex<RoomState>,
    memory: Arc<Semaphore>,
    /// One eviction at a time.
    pub(super) evicting: Semaphore,
    /// How often that freed something.
    pub(super) evictions: AtomicU64,
}

#[derive(Default)]
struct RoomState {
    full_since: Option<Instant>,
    was_full: Option<Instant>,
    warned: Option<Instant>,
}

impl Default for Room {
    fn default() -> Self {
        let memory = Arc::new(Semaphore::new(GROUPS_IN_MEMORY));
        Self {
            state: Mutex::default(),
            memory,
            evicting: Semaphore::new(1),
            evictions: AtomicU64::new(0),
        }
    }
}

impl Room {
    /// Whether the store took nothing the last time, a moment ago.
    pub(super) fn is_lacking(&self, now: Instant) -> bool {
        self.state.lock().full_since.is_some_and(|since| now < since + STAYS_FULL)
    }

    /// Whether it took nothing some time in the last minute: whoever was told so may ask only now.
    pub(super) fn has_lacked(&self, now: Instant) -> bool {
        self.state.lock().was_full.is_some_and(|was| now < was + REMEMBERED)
    }

    /// The store took something.
    pub(super) fn found(&self) {
        self.state.lock().full_since = None;
    }

    /// The store took nothing although what could go has gone; whether that is worth a line in the log.
    pub(super) fn lacks(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        (state.full_since, state.was_full) = (Some(now), Some(now));
        let is_news = state.warned.is_none_or(|warned| now >= warned + REMEMBERED);
        if is_news {
            state.warned = Some(now);
        }
        is_news
    }
}

/// Verified groups with everything that proves them.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) groups: GroupRange,
    pub(super) bytes: Bytes,
    pub(super) nodes: Vec<(Node, Cv)>,
    pub(super) signed: Vec<Arc<SignedDigests>>,
    /// Bytes of the whole content, where the sender states it.
    pub(super) length: Option<u64>,
}

/// One group in memory.
#[derive(Clone)]
struct Came {
    bytes: Bytes,
    proof: Arc<Proof>,
}

/// What proves some groups.
struct Proof {
    nodes: Vec<(Node, Cv)>,
    signed: Vec<Arc<SignedDigests>>,
}

/// The groups of one task that readers wait for, and those of them that came and could not be kept.
#[derive(Default)]
pub(super) struct Passing {
    groups: Mutex<Groups>,
    /// Somebody has begun to wait for something.
    awaited: Notify,
}

#[derive(Default)]
struct Groups {
    slots: BTreeMap<u64, Slot>,
    /// The last runs of a stream that is under way, oldest first.
    behind: Option<VecDeque<Run>>,
}

/// A run of groups in memory.
struct Run {
    groups: GroupRange,
    bytes: Bytes,
    proof: Arc<Proof>,
}

impl Run {
    fn group(&self, group: u64) -> Option<Came> {
        if !self.groups.contains(group) {
            return None;
        }
        let first = ((group - self.groups.first) * GROUP_BYTES) as usize;
        let end = (first + GROUP_BYTES as usize).min(self.bytes.len());
        let bytes = self.bytes.slice(first.min(end)..end);
        Some(Came { bytes, proof: Arc::clone(&self.proof) })
    }
}

#[derive(Default)]
struct Slot {
    readers: usize,
    came: Option<Came>,
}

impl Passing {
    /// Hands bytes over to those who wait for them; whether anybody does. While a stream is under way some of it
    /// stays for readers to come.
    pub(super) fn hand_over(&self, proven: Proven) -> bool {
        let Proven { groups, bytes, nodes, signed, .. } = proven;
        let run = Run { groups, bytes, proof: Arc::new(Proof { nodes, signed }) };
        let mut memory = self.groups.lock();
        let awaited = memory.slots.range(groups.first..groups.end()).count() as u64;
        // A few groups do not keep all the others in memory.
        let is_few = awaited < groups.count / 2;
        for (group, slot) in memory.slots.range_mut(groups.first..groups.end()) {
            slot.came = run.group(*group).map(|came| match is_few {
                true => Came { bytes: Bytes::copy_from_slice(&came.bytes), ..came },
                false => came,
            });
        }
        if let Some(behind) = &mut memory.behind {
            if behind.len() >= LEFT_BEHIND {
                behind.pop_front();
            }
            behind.push_back(run);
        }
        awaited > 0
    }

    /// One stream of everything is under way until the guard is dropped.
    pub(super) fn begin_stream(&self) -> Streaming<'_> {
        self.groups.lock().behind = Some(VecDeque::new());
        Streaming { passing: self }
    }

    /// Whether a group is in memory.
    pub(super) fn has(&self, group: u64) -> bool {
        self.groups.lock().slots.get(&group).is_some_and(|slot| slot.came.is_some())
    }

    /// The bytes of a group, if they are in memory.
    pub(super) fn group(&self, group: u64) -> Option<Bytes> {
        Some(self.groups.lock().slots.get(&group)?.came.as_ref()?.bytes.clone())
    }

    /// The bytes of `part`, which lies in one group, if they are in memory.
    fn part(&self, group: u64, part: ByteRange) -> Option<Bytes> {
        let bytes = self.group(group)?;
        let first = group * GROUP_BYTES;
        let (from, to) = ((part.start - first) as usize, (part.end - first) as usize);
        (to <= bytes.len()).then(|| bytes.slice(from..to))
    }

    /// The first group that somebody waits for and that is not here.
    fn first_awaited(&self, stored: &StoredTask) -> Option<u64> {
        let memory = self.groups.lock();
        let absent = memory.slots.iter().filter(|(_, slot)| slot.came.is_none());
        let mut groups = absent.map(|(group, _)| *group);
        groups.find(|group| !stored.has(GroupRange::new(*group, 1)))
    }

    /// Waits until somebody waits for `group` or what follows it; false when whoever there is wants what lies
    /// before, or nobody comes.
    pub(super) async fn is_awaited_from(&self, group: u64, stored: &StoredTask) -> bool {
        let comes = async {
            loop {
                let mut awaited = std::pin::pin!(self.awaited.notified());
                awaited.as_mut().enable();
                if let Some(first) = self.first_awaited(stored) {
                    return first >= group;
                }
                awaited.await;
            }
        };
        tokio::time::timeout(READER_WITHIN, comes).await.unwrap_or(false)
    }

    pub(super) fn begin(&self, groups: GroupRange) {
        let mut memory = self.groups.lock();
        let Groups { slots, behind } = &mut *memory;
        for group in groups.iter() {
            let slot = slots.entry(group).or_default();
            slot.readers += 1;
            if slot.came.is_none() {
                slot.came = behind.iter().flatten().rev().find_map(|run| run.group(group));
            }
        }
        drop(memory);
        self.awaited.notify_waiters();
    }

    fn end(&self, groups: GroupRange) {
        let mut memory = self.groups.lock();
        for group in groups.iter() {
            let Some(slot) = memory.slots.get_mut(&group) else { continue };
            slot.readers -= 1;
            if slot.readers == 0 {
                memory.slots.remove(&group);
            }
        }
    }
}

/// A stream of everything, as long as this lives.
pub(super) struct Streaming<'a> {
    passing: &'a Passing,
}

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        self.passing.groups.lock().behind = None;
    }
}

/// Groups that are here, in the store or in memory, as long as this lives.
pub(super) struct Passage {
    shared: Arc<Shared>,
    groups: GroupRange,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Passage {
    /// The group behind the last one.
    pub(super) fn end(&self) -> u64 {
        self.groups.end()
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.shared.passing.end(self.groups);
    }
}

impl Shared {
    /// Those of `groups` that are neither in the store nor in memory.
    pub(super) fn outstanding(&self, groups: GroupRange) -> Vec<GroupRange> {
        let mut outstanding = dfs_model::GroupSet::new();
        let missing = self.stored.missing_in(groups);
        let absent = missing.iter().flat_map(GroupRange::iter).filter(|g| !self.passing.has(*g));
        absent.for_each(|group| {
            outstanding.insert(group);
        });
        outstanding.ranges().collect()
    }

    /// The bytes of `range`, from the store or from memory. Blocks.
    pub(super) fn bytes(&self, range: ByteRange, verify: Verify) -> Result<Bytes, StoreError> {
        let groups = range.groups();
        if self.stored.has(groups) {
            return self.stored.read_by(range, verify);
        }
        let mut out = BytesMut::with_capacity(range.len() as usize);
        for group in groups.iter() {
            let part = GroupRange::new(group, 1).bytes(range.end).intersection(range);
            match self.passing.part(group, part) {
                Some(bytes) => out.extend_from_slice(&bytes),
                None => out.extend_from_slice(&self.stored.read_by(part, verify)?),
            }
        }
        Ok(out.freeze())
    }

    /// A digest that is kept, or came with groups in memory.
    pub(super) fn node(&self, node: Node) -> Option<Cv> {
        let in_memory = || {
            let memory = self.passing.groups.lock();
            let mut nodes = memory.slots.values().filter_map(|slot| slot.came.as_ref());
            let found =
                nodes.find_map(|came| came.proof.nodes.iter().find(|(known, _)| *known == node));
            found.map(|(_, cv)| *cv)
        };
        self.stored.node(node).or_else(in_memory)
    }

    /// Signed batches over `groups`: those that are kept, and those that came with groups in memory.
    pub(super) fn signed_for(&self, groups: GroupRange) -> Vec<Arc<SignedDigests>> {
        let mut signed = self.stored.signed_for(groups);
        let memory = self.passing.groups.lock();
        let came =
            memory.slots.range(groups.first..groups.end()).filter_map(|(_, s)| s.came.as_ref());
        for batch in came.flat_map(|came| &came.proof.signed) {
            if !signed.contains(batch) {
                signed.push(Arc::clone(batch));
            }
        }
        signed
    }
}

impl Task {
    /// Whether the store takes nothing more now, so that what is missing comes only to readers.
    pub fn lacks_room(&self) -> bool {
        self.shared.room.is_lacking(Instant::now())
    }

    /// Waits until `groups` are in the store or in memory, where they stay until the passage is dropped.
    pub(super) async fn passage(
        &self,
        groups: GroupRange,
        priority: Priority,
    ) -> Result<Passage, ReadError> {
        let groups = GroupRange::new(groups.first, groups.count.min(AT_A_TIME));
        let memory = Arc::clone(&self.shared.room.memory);
        let share = memory.acquire_many_owned(u32::try_from(groups.count).unwrap_or(u32::MAX));
        let permits = match tokio::time::timeout(SHARE_WITHIN, share).await {
            Ok(permits) => Some(permits.map_err(|_| ReadError::Closing(self.id()))?),
            Err(_) => None,
        };
        self.shared.passing.begin(groups);
        let passage = Passage { shared: Arc::clone(&self.shared), groups, _memory: permits };
        self.wait_for(groups, priority, true).await?;
        Ok(passage)
    }

    /// The bytes of `range` although the store takes nothing.
    pub(super) async fn read_past_store(
        &self,
        range: ByteRange,
        priority: Priority,
    ) -> Result<Bytes, ReadError> {
        let mut parts = Vec::new();
        for groups in range.groups().cut(AT_A_TIME) {
            let part = groups.bytes(range.end).intersection(range);
            parts.push(self.pass_part(part, priority).await?);
        }
        match <[Bytes; 1]>::try_from(parts) {
            Ok([only]) => Ok(only),
            Err(parts) => Ok(parts.concat().into()),
        }
    }

    async fn pass_part(&self, part: ByteRange, priority: Priority) -> Result<Bytes, ReadError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let passage = self.passage(part.groups(), priority).await?;
            let verify = self.verify;
            let read =
                tokio::task::spawn_blocking(move || passage.shared.bytes(part, verify)).await;
            match read.map_err(|_| ReadError::Closing(self.id()))? {
                Err(StoreError::Missing { groups, .. }) if attempts < ATTEMPTS => {
                    self.report_lost(groups).await?;
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}
