//! How much of the cache one mount may take: what it holds beyond that is given back while it goes on, least recently
//! read first.
//!
//! Owns when which part was read ([`Recency`], pure), and which mount's quota counts for a task that several show
//! ([`Quotas`]): the larger one, and none where one of them has none. Recency is lost with the process: what was not
//! read since goes first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dfs_model::{ByteRange, ByteSize, GROUP_BYTES, GroupRange, GroupSet, TaskId};
use dfs_peer::engine::Task;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::content::SpaceContent;

/// Groups that are remembered and go together: 1 MiB, what the kernel reads at once.
const CHUNK: u64 = 16;

/// How often it is looked at what others than the mount brought.
const LOOK: Duration = Duration::from_secs(2);

/// How long a reader waits at most until something is given back: it goes on all the same.
const ROOM_WITHIN: Duration = Duration::from_secs(1);

/// A part of a quota that is freed at a time, and that it is passed by at most before readers wait: an eighth.
const SLACK: u64 = 8;

/// When which chunk was read or fetched last, counted in touches.
#[derive(Debug, Default)]
struct Recency {
    touches: u64,
    chunks: HashMap<Chunk, u64>,
    /// Those that somebody waits for, and how many do: what has come of them stays until the rest has.
    coming: HashMap<Chunk, u32>,
}

fn chunks(groups: GroupRange) -> std::ops::Range<u64> {
    groups.first / CHUNK..groups.end().div_ceil(CHUNK)
}

impl Recency {
    fn touch(&mut self, space: u16, groups: GroupRange) {
        self.touches += 1;
        for chunk in chunks(groups) {
            self.chunks.insert((space, chunk), self.touches);
        }
    }

    fn begin(&mut self, space: u16, groups: GroupRange) {
        for chunk in chunks(groups) {
            *self.coming.entry((space, chunk)).or_default() += 1;
        }
    }

    fn end(&mut self, space: u16, groups: GroupRange) {
        for chunk in chunks(groups) {
            let Entry::Occupied(mut waiting) = self.coming.entry((space, chunk)) else { continue };
            *waiting.get_mut() -= 1;
            if *waiting.get() == 0 {
                waiting.remove();
            }
        }
    }

    /// What is known now, to plan by while readers go on.
    fn known(&self) -> Known {
        Known { chunks: self.chunks.clone(), coming: self.coming.keys().copied().collect() }
    }

    /// Forgets what goes by a plan, and what is not here: gives what goes. What was read or asked for since it was planned
    /// stays.
    fn let_go(&mut self, plan: Plan) -> Vec<(u16, GroupRange)> {
        let is_as_planned = |going: &Going| {
            self.chunks.get(&going.chunk).copied().unwrap_or(0) == going.read
                && !self.coming.contains_key(&going.chunk)
        };
        let gone: Vec<Going> = plan.going.into_iter().filter(is_as_planned).collect();
        for (chunk, read) in plan.not_here {
            if self.chunks.get(&chunk) == Some(&read) {
                self.chunks.remove(&chunk);
            }
        }
        for going in &gone {
            self.chunks.remove(&going.chunk);
        }
        gone.into_iter().map(|going| (going.chunk.0, going.run)).collect()
    }
}

/// A chunk of a space.
type Chunk = (u16, u64);

/// What was known of recency at a moment.
#[derive(Debug)]
struct Known {
    chunks: HashMap<Chunk, u64>,
    coming: HashSet<Chunk>,
}

/// What is to go of a chunk.
#[derive(Debug)]
struct Going {
    chunk: Chunk,
    /// When it was read last, as far as was known.
    read: u64,
    run: GroupRange,
}

/// What is to go, and what need not be remembered: what is not here, and when that was read.
#[derive(Debug, Default)]
struct Plan {
    going: Vec<Going>,
    not_here: Vec<(Chunk, u64)>,
}

impl Known {
    /// What of `here` that nobody waits for is to go so that at least `excess` groups do, least recently read first.
    fn plan(mut self, here: &[(u16, GroupSet)], excess: u64) -> Plan {
        let mut all: Vec<(u64, Chunk)> = Vec::new();
        for (space, have) in here {
            let mut after = 0;
            for run in have.ranges() {
                let of_run = chunks(run);
                for chunk in of_run.start.max(after)..of_run.end {
                    let chunk = (*space, chunk);
                    all.push((self.chunks.remove(&chunk).unwrap_or(0), chunk));
                }
                after = of_run.end;
            }
        }
        all.sort_unstable();
        let sets: HashMap<u16, &GroupSet> =
            here.iter().map(|(space, have)| (*space, have)).collect();
        let mut plan = Plan { going: Vec::new(), not_here: self.chunks.into_iter().collect() };
        let mut going = 0;
        for (read, chunk) in all {
            if going >= excess {
                break;
            }
            if self.coming.contains(&chunk) {
                continue;
            }
            for run in sets[&chunk.0].present_in(GroupRange::new(chunk.1 * CHUNK, CHUNK)) {
                going += run.count;
                plan.going.push(Going { chunk, read, run });
            }
        }
        plan
    }
}

/// The quotas of all mounts that have one.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    limits: Mutex<Limits>,
    /// Bytes given back so far.
    freed: AtomicU64,
}

#[derive(Debug, Default)]
struct Limits {
    last: u64,
    of_task: HashMap<TaskId, Vec<(ByteSize, u64)>>,
}

impl Quotas {
    /// Bytes given back so far.
    pub(super) fn freed(&self) -> u64 {
        self.freed.load(Relaxed)
    }

    /// The quota of a mount of these tasks, until it is dropped.
    pub(super) fn enter(self: &Arc<Self>, limit: ByteSize, tasks: Vec<TaskId>) -> Arc<Quota> {
        let mut limits = self.limits.lock();
        limits.last += 1;
        let number = limits.last;
        for task in &tasks {
            limits.of_task.entry(*task).or_default().push((limit, number));
        }
        drop(limits);
        Arc::new(Quota {
            limit,
            number,
            tasks,
            all: Arc::clone(self),
            recency: Mutex::default(),
            held: AtomicU64::new(0),
            coming: AtomicU64::new(0),
            pressed: Notify::new(),
            freed: Notify::new(),
            stuck: AtomicBool::new(false),
        })
    }

    fn leave(&self, number: u64, tasks: &[TaskId]) {
        let mut limits = self.limits.lock();
        for task in tasks {
            let Some(of_task) = limits.of_task.get_mut(task) else { continue };
            of_task.retain(|(_, other)| *other != number);
            if of_task.is_empty() {
                limits.of_task.remove(task);
            }
        }
    }

    /// Whether it is this one that counts for the task: of all mounts that show it none has a larger one.
    fn counts(&self, number: u64, task: TaskId) -> bool {
        let limits = self.limits.lock();
        let largest = limits.of_task.get(&task).and_then(|of_task| of_task.iter().max());
        largest.is_some_and(|(_, largest)| *largest == number)
    }
}

/// What one mount may hold.
#[derive(Debug)]
pub struct Quota {
    limit: ByteSize,
    number: u64,
    tasks: Vec<TaskId>,
    all: Arc<Quotas>,
    recency: Mutex<Recency>,
    /// Bytes, as they were counted last, and what has come since.
    held: AtomicU64,
    /// Bytes asked for that are not here yet.
    coming: AtomicU64,
    pressed: Notify,
    freed: Notify,
    /// Nothing went the last time that something should have: others need it, and nobody waits for it.
    stuck: AtomicBool,
}

impl Drop for Quota {
    fn drop(&mut self) {
        self.all.leave(self.number, &self.tasks);
    }
}

/// Bytes under way to a mount, until they are here or will not be.
pub(super) struct Coming {
    quota: Arc<Quota>,
    space: u16,
    groups: GroupRange,
    bytes: u64,
}

impl Coming {
    /// They are here.
    pub(super) fn came(self) {
        self.quota.recency.lock().touch(self.space, self.groups);
        self.quota.held.fetch_add(self.bytes, Relaxed);
        self.quota.press_if_over(0);
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.quota.coming.fetch_sub(self.bytes, Relaxed);
        self.quota.recency.lock().end(self.space, self.groups);
    }
}

impl Quota {
    /// What the mount may hold.
    pub fn limit(&self) -> ByteSize {
        self.limit
    }

    /// Takes note that it was read.
    pub(super) fn touch(&self, space: u16, groups: GroupRange) {
        self.recency.lock().touch(space, groups);
    }

    /// Whether so many bytes more stay within it.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.expected().saturating_add(bytes) <= self.limit.0
    }

    fn expected(&self) -> u64 {
        self.held.load(Relaxed).saturating_add(self.coming.load(Relaxed))
    }

    fn press_if_over(&self, slack: u64) -> bool {
        let is_over = self.expected() > self.limit.0.saturating_add(slack);
        if is_over {
            self.pressed.notify_one();
        }
        is_over
    }

    /// Lets `missing` bytes of `groups` come, once enough was given back, or a moment has passed.
    pub(super) async fn admit(
        self: Arc<Self>,
        space: u16,
        groups: GroupRange,
        missing: u64,
    ) -> Coming {
        self.coming.fetch_add(missing, Relaxed);
        self.recency.lock().begin(space, groups);
        let coming = Coming { quota: Arc::clone(&self), space, groups, bytes: missing };
        let enough = async {
            loop {
                let mut freed = std::pin::pin!(self.freed.notified());
                freed.as_mut().enable();
                if !self.press_if_over(self.limit.0 / SLACK) || self.stuck.load(Relaxed) {
                    return;
                }
                freed.await;
            }
        };
        // What is under way can be more than all of the quota: then nobody waits for what cannot be.
        let _ = tokio::time::timeout(ROOM_WITHIN, enough).await;
        coming
    }

    /// Gives back what is held beyond it, whenever that is so; until the mount's content goes.
    pub(super) async fn keep(self: Arc<Self>, content: Weak<SpaceContent>) {
        loop {
            let Some(content) = content.upgrade() else { return };
            self.enforce(&content).await;
            drop(content);
            tokio::select! {
                () = self.pressed.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn enforce(self: &Arc<Self>, content: &Arc<SpaceContent>) {
        let (quota, counted) = (Arc::clone(self), Arc::clone(content));
        let planning = tokio::task::spawn_blocking(move || quota.plan(counted.spaces())).await;
        // The agent is stopping.
        let Ok(going) = planning else { return };
        let (is_due, mut went) = (!going.is_empty(), false);
        for (space, runs) in going {
            let Some(task) = content.spaces().get(usize::from(space)) else { continue };
            match task.take_out(runs).await {
                Ok(taken) => {
                    went |= !taken.groups.is_empty();
                    let bytes: u64 = taken.groups.iter().map(|run| run.count * GROUP_BYTES).sum();
                    let less = |held: u64| Some(held.saturating_sub(bytes));
                    let _ = self.held.try_update(Relaxed, Relaxed, less);
                    self.all.freed.fetch_add(taken.freed.0, Relaxed);
                }
                Err(error) => {
                    tracing::warn!(task = %task.id(), %error, "nothing is given back for a mount's quota");
                }
            }
        }
        self.stuck.store(is_due && !went, Relaxed);
        self.freed.notify_waiters();
    }

    /// Counts what is held, and says what of it is to go, by space.
    fn plan(&self, spaces: &[Task]) -> Vec<(u16, Vec<GroupRange>)> {
        let own = (0..).zip(spaces).filter(|(_, task)| self.all.counts(self.number, task.id()));
        let here: Vec<(u16, GroupSet)> =
            own.map(|(space, task)| (space, task.stored().have())).collect();
        let groups: u64 = here.iter().map(|(_, have)| have.len()).sum();
        self.held.store(groups * GROUP_BYTES, Relaxed);
        let over = self.expected() > self.limit.0;
        let low = self.limit.0 - self.limit.0 / SLACK;
        let excess = self.expected().saturating_sub(low).div_ceil(GROUP_BYTES);
        if groups == 0 {
            // What is not its own to give back it need not remember.
            self.recency.lock().chunks.clear();
        }
        if !over || groups == 0 {
            return Vec::new();
        }
        let mut going: Vec<(u16, Vec<GroupRange>)> = Vec::new();
        // Whoever reads takes that lock: it is held for as long as copying takes, and not sorting.
        let known = self.recency.lock().known();
        let plan = known.plan(&here, excess);
        let mut planned = self.recency.lock().let_go(plan);
        planned.sort_unstable_by_key(|(space, run)| (*space, run.first));
        for (space, run) in planned {
            match going.last_mut() {
                Some((last, runs)) if *last == space => match runs.last_mut() {
                    Some(before) if before.end() == run.first => before.count += run.count,
                    _ => runs.push(run),
                },
                _ => going.push((space, vec![run])),
            }
        }
        going
    }
}

/// Bytes of the groups of `range` that are not here.
pub(super) fn missing_bytes(task: &Task, range: ByteRange) -> u64 {
    task.stored().missing_in(range.groups()).iter().map(|run| run.count * GROUP_BYTES).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(runs: &[(u64, u64)]) -> GroupSet {
        let mut set = GroupSet::new();
        runs.iter().for_each(|(first, count)| set.insert_range(GroupRange::new(*first, *count)));
        set
    }

    impl Recency {
        /// What goes where nothing happens meanwhile.
        fn plan(&mut self, here: &[(u16, GroupSet)], excess: u64) -> Vec<(u16, GroupRange)> {
            let plan = self.known().plan(here, excess);
            self.let_go(plan)
        }
    }

    #[test]
    fn what_is_read_or_asked_for_while_it_is_planned_stays() {
        let mut recency = Recency::default();
        let here = [(0, set(&[(0, 64)])), (3, set(&[(0, 16)]))];
        recency.touch(0, GroupRange::new(0, 16));
        recency.touch(9, GroupRange::new(0, 32));
        let plan = recency.known().plan(&here, 80);
        assert_eq!(plan.going.len(), 5);
        recency.touch(0, GroupRange::new(5, 1));
        recency.touch(0, GroupRange::new(20, 1));
        recency.begin(3, GroupRange::new(0, 1));
        recency.touch(9, GroupRange::new(0, 1));
        let gone = recency.let_go(plan);
        assert_eq!(gone, [(0, GroupRange::new(32, 16)), (0, GroupRange::new(48, 16))]);
        // Of what is not here only what was read since is remembered.
        let mut known: Vec<Chunk> = recency.chunks.keys().copied().collect();
        known.sort_unstable();
        assert_eq!(known, [(0, 0), (0, 1), (9, 0)]);
    }

    #[test]
    fn of_several_mounts_of_one_task_the_largest_quota_counts() {
        let quotas = Arc::<Quotas>::default();
        let ids = [1, 2].map(|number| TaskId::from_bytes([number; 32]));
        let small = quotas.enter(ByteSize(1), ids.into());
        assert!(ids.iter().all(|id| quotas.counts(small.number, *id)));
        let large = quotas.enter(ByteSize(2), vec![ids[0]]);
        assert!(quotas.counts(large.number, ids[0]) && !quotas.counts(small.number, ids[0]));
        assert!(quotas.counts(small.number, ids[1]));
        let same = quotas.enter(ByteSize(2), vec![ids[0]]);
        let counting =
            [&large, &same].iter().filter(|one| quotas.counts(one.number, ids[0])).count();
        assert_eq!(counting, 1, "one of them");
        drop((large, same));
        assert!(quotas.counts(small.number, ids[0]));
        drop(small);
        assert!(quotas.limits.lock().of_task.is_empty());
    }

    #[test]
    fn what_was_read_last_goes_last_and_no_more_goes_than_must() {
        let mut recency = Recency::default();
        let here = [(0, set(&[(0, 64)])), (1, set(&[(5, 1), (100, 20)]))];
        recency.touch(1, GroupRange::new(100, 20));
        recency.touch(0, GroupRange::new(0, 64));
        recency.touch(0, GroupRange::new(20, 1));
        // What nobody read, then what was read first.
        assert_eq!(recency.plan(&here, 1), [(1, GroupRange::new(5, 1))]);
        let rest = [(0, set(&[(0, 64)])), (1, set(&[(100, 20)]))];
        let gone = recency.plan(&rest, 21);
        let order: Vec<_> = gone.iter().map(|(space, run)| (*space, run.first)).collect();
        assert_eq!(order, [(1, 100), (1, 112), (0, 0)]);
        // What somebody waits for stays, however old the part of it is that has come.
        recency.begin(0, GroupRange::new(3, 20));
        recency.begin(0, GroupRange::new(20, 1));
        recency.end(0, GroupRange::new(20, 1));
        let gone = recency.plan(&[(0, set(&[(0, 64)]))], 64);
        let order: Vec<_> = gone.iter().map(|(_, run)| run.first).collect();
        assert_eq!(order, [32, 48]);
        recency.end(0, GroupRange::new(3, 20));
        assert_eq!(recency.plan(&[(0, set(&[(0, 64)]))], 64).len(), 4);
    }

    proptest! {
        #[test]
        fn enough_goes_where_there_is_enough_and_the_youngest_stay(
            runs in proptest::collection::vec((0..3u16, 0..200u64, 1..40u64), 1..20),
            touches in proptest::collection::vec((0..3u16, 0..200u64, 1..40u64), 0..40),
            excess in 0..600u64,
        ) {
            let mut sets: Vec<(u16, GroupSet)> = (0..3).map(|space| (space, GroupSet::new())).collect();
            for (space, first, count) in runs {
                sets[usize::from(space)].1.insert_range(GroupRange::new(first, count));
            }
            let mut recency = Recency::default();
            for (space, first, count) in touches {
                recency.touch(space, GroupRange::new(first, count));
            }
            let before = recency.chunks.clone();
            let age = |space: u16, group: u64| before.get(&(space, group / CHUNK)).copied().unwrap_or(0);
            let all: u64 = sets.iter().map(|(_, have)| have.len()).sum();
            let gone = recency.plan(&sets, excess);
            let going: u64 = gone.iter().map(|(_, run)| run.count).sum();
            prop_assert!(going >= excess.min(all) && going < excess.max(1) + CHUNK);
            let mut youngest = 0;
            for (space, run) in &gone {
                prop_assert!(sets[usize::from(*space)].1.contains_all(*run));
                sets[usize::from(*space)].1.remove_range(*run);
                youngest = youngest.max(age(*space, run.first));
            }
            for (space, have) in &sets {
                for group in have.ranges().flat_map(|run| run.iter().collect::<Vec<_>>()) {
                    prop_assert!(going < excess || age(*space, group) >= youngest || excess == 0);
                }
            }
        }
    }
}
