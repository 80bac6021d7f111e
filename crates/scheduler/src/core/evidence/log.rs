//! Where entries are kept: a ring for each task, and a bound for all of them together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dfs_model::{HostId, HostInfo, TaskId, shortened};

use super::{Entry, Evidence, Millis, Scheduling, Who};

/// Entries kept of one task.
pub const MAX_ENTRIES_PER_TASK: usize = 256;

/// Entries kept of all tasks together: those written first go first.
pub const MAX_ENTRIES: usize = 32_768;

/// Hosts that are gone whose names are remembered.
const MAX_DEPARTED: usize = 1024;

/// Bytes remembered of a name.
const NAME_BYTES: usize = 128;

/// Characters kept of a reason that somebody else wrote.
pub const REASON_CHARS: usize = 300;

/// Hosts named in one entry.
pub const MAX_NAMED: usize = 16;

/// What was decided about tasks.
#[derive(Debug, Default)]
pub struct Log {
    rings: BTreeMap<TaskId, Ring>,
    /// What was written, in order; entries that have left their ring stand in it until it is swept.
    order: VecDeque<(TaskId, u64)>,
    departed: VecDeque<Who>,
}

/// The entries of one task.
#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    last: u64,
}

impl Log {
    /// Writes an entry, or counts it with an earlier one that says the same.
    pub fn note(&mut self, task: TaskId, host: HostId, what: Evidence, now: Millis) {
        let what = bounded(what);
        let ring = self.rings.entry(task).or_default();
        if let Some(older) = ring.same(host, &what) {
            older.last = now;
            older.times = older.times.saturating_add(1);
            older.what = what;
            return;
        }
        ring.last += 1;
        let number = ring.last;
        ring.entries.push_back(Entry { number, first: now, last: now, times: 1, host, what });
        if ring.entries.len() > MAX_ENTRIES_PER_TASK {
            ring.entries.pop_front();
        }
        self.order.push_back((task, number));
        if self.order.len() > MAX_ENTRIES {
            self.sweep();
        }
    }

    /// Forgets what has left its ring, and a quarter of the rest where that does not do.
    fn sweep(&mut self) {
        let rings = &mut self.rings;
        let is_kept = |rings: &BTreeMap<TaskId, Ring>, (task, number): &(TaskId, u64)| {
            let first = rings.get(task).and_then(|ring| ring.entries.front());
            first.is_some_and(|first| first.number <= *number)
        };
        self.order.retain(|written| is_kept(rings, written));
        while self.order.len() > MAX_ENTRIES / 4 * 3 {
            let Some((task, _)) = self.order.pop_front() else { break };
            let Some(ring) = rings.get_mut(&task) else { continue };
            ring.entries.pop_front();
        }
    }

    /// Nothing is known of a task any more.
    pub fn forget(&mut self, task: &TaskId) {
        self.rings.remove(task);
    }

    /// A host is gone: what is told of it is told by its name.
    pub fn departs(&mut self, host: &HostInfo) {
        self.departed.retain(|known| known.id != host.id);
        self.departed.push_back(who(host));
        if self.departed.len() > MAX_DEPARTED {
            self.departed.pop_front();
        }
    }

    /// The entries of a task after number `after`, the oldest first.
    pub fn of(&self, task: &TaskId, after: u64) -> impl Iterator<Item = &Entry> {
        let entries = self.rings.get(task).map(|ring| &ring.entries);
        entries.into_iter().flatten().filter(move |entry| entry.number > after)
    }

    /// How many of a task's entries are kept no more.
    pub fn forgotten(&self, task: &TaskId) -> u64 {
        let Some(ring) = self.rings.get(task) else { return 0 };
        ring.entries.front().map_or(ring.last, |first| first.number - 1)
    }

    /// Who those are of `hosts` that are gone, as far as it is remembered.
    pub fn names_of(&self, hosts: &BTreeSet<HostId>) -> Vec<Who> {
        self.departed.iter().filter(|who| hosts.contains(&who.id)).cloned().collect()
    }

    /// Entries kept.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.rings.values().map(|ring| ring.entries.len()).sum()
    }
}

impl Ring {
    /// The entry that says the same, with nothing of another kind about the host since.
    fn same(&mut self, host: HostId, what: &Evidence) -> Option<&mut Entry> {
        for entry in self.entries.iter_mut().rev() {
            if entry.host != host {
                continue;
            }
            if what.repeats(&entry.what) {
                return Some(entry);
            }
            if !what.alternates_with(&entry.what) {
                return None;
            }
        }
        None
    }
}

/// What is remembered of a host.
pub fn who(host: &HostInfo) -> Who {
    let mut name = host.name.clone();
    name.truncate(name.floor_char_boundary(NAME_BYTES));
    Who { id: host.id, name, kind: host.kind }
}

fn bounded(what: Evidence) -> Evidence {
    let short = |reason: String| shortened(&reason, REASON_CHARS).into_owned();
    match what {
        Evidence::SeedFailed { kind, reason } => {
            Evidence::SeedFailed { kind, reason: short(reason) }
        }
        Evidence::Refused { kind, reason } => Evidence::Refused { kind, reason: short(reason) },
        Evidence::Rescheduled { mut bad } => {
            bad.truncate(MAX_NAMED);
            Evidence::Rescheduled { bad }
        }
        Evidence::Scheduled(Scheduling { mut candidates, granted, of }) => {
            candidates.truncate(MAX_NAMED + 4);
            Evidence::Scheduled(Scheduling { candidates, granted, of })
        }
        what => what,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FailureKind, Wait};
    use super::*;

    fn task(n: u32) -> TaskId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        TaskId::from_bytes(bytes)
    }

    fn host(n: u8) -> HostId {
        HostId::from_bytes([n; 16])
    }

    fn failed(parent: u8) -> Evidence {
        let kind = FailureKind::Timeout;
        Evidence::Failed { parent: host(parent), kind, blocked: true }
    }

    #[test]
    fn a_task_keeps_its_last_entries_and_says_how_many_went() {
        let mut log = Log::default();
        for n in 0..300 {
            log.note(task(1), host(1), Evidence::Registered { held: n }, Millis(n));
        }
        let kept: Vec<u64> = log.of(&task(1), 0).map(|entry| entry.number).collect();
        assert_eq!(kept, (45..=300).collect::<Vec<_>>());
        assert_eq!(log.forgotten(&task(1)), 44);
        assert_eq!(log.of(&task(1), 298).count(), 2);
        log.forget(&task(1));
        assert_eq!((log.len(), log.forgotten(&task(1))), (0, 0));
    }

    #[test]
    fn all_tasks_together_are_bounded_and_a_busy_one_displaces_nobody() {
        let mut log = Log::default();
        log.note(task(0), host(1), Evidence::Silent, Millis(0));
        for n in 0..3 * MAX_ENTRIES as u64 {
            log.note(task(1), host(1), Evidence::Registered { held: n }, Millis(n));
        }
        assert_eq!(log.of(&task(0), 0).count(), 1, "what is forgotten of one is its own");
        for n in 0..2 * MAX_ENTRIES as u32 {
            log.note(task(n), host(2), Evidence::Silent, Millis(0));
            assert!(log.order.len() <= MAX_ENTRIES);
            assert!(n % 4096 > 0 || log.len() <= MAX_ENTRIES);
        }
        assert_eq!(log.of(&task(0), 0).count(), 0, "the oldest go first");
        assert_eq!(log.of(&task(2 * MAX_ENTRIES as u32 - 1), 0).count(), 1);
    }

    #[test]
    fn what_is_told_again_is_counted_and_what_came_between_is_not_hidden() {
        let mut log = Log::default();
        let waits = |tries| Evidence::Waits { wait: Wait::Parents, tries: (tries, 4) };
        let nobody = || Evidence::Scheduled(Scheduling::default());
        for (at, tries) in [(1, 0), (2, 1), (3, 2)] {
            log.note(task(1), host(1), nobody(), Millis(at));
            log.note(task(1), host(1), waits(tries), Millis(at));
            log.note(task(1), host(2), failed(9), Millis(at));
        }
        let told: Vec<_> = log.of(&task(1), 0).map(|e| (e.times, e.first, e.last)).collect();
        assert_eq!(told, [(3, Millis(1), Millis(3)); 3]);
        assert_eq!(log.of(&task(1), 0).nth(1).unwrap().what, waits(2), "as it was last");
        log.note(task(1), host(1), failed(9), Millis(4));
        log.note(task(1), host(1), nobody(), Millis(5));
        assert_eq!(log.of(&task(1), 0).count(), 5, "parents looked for after a failure are news");
    }

    #[test]
    fn what_others_wrote_is_cut() {
        let mut log = Log::default();
        let (kind, reason) = (super::super::RefusalKind::OriginFailed, "ä".repeat(70_000));
        log.note(task(1), host(1), Evidence::SeedFailed { kind, reason }, Millis(0));
        let bad = vec![host(2); 60_000];
        log.note(task(1), host(2), Evidence::Rescheduled { bad }, Millis(0));
        let entries: Vec<_> = log.of(&task(1), 0).map(|entry| entry.what.clone()).collect();
        let [Evidence::SeedFailed { reason, .. }, Evidence::Rescheduled { bad }] = &entries[..]
        else {
            panic!("{entries:?}");
        };
        assert_eq!((reason.chars().count(), bad.len()), (REASON_CHARS + 1, MAX_NAMED));
    }
}
