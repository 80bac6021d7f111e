//! Where the bytes of a task came from, group by group, so that any range can be accounted for.

use std::collections::{BTreeMap, VecDeque};
use std::ops::AddAssign;
use std::sync::atomic::Ordering;

use dfs_artifact::origin::RequestCount;
use dfs_model::{ByteRange, GroupRange, GroupSet, HostId, HostKind};
use parking_lot::Mutex;

/// Reads past the store that an account can still be made of.
const PASSES: usize = 4096;

/// Where some bytes came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CameFrom {
    /// Read from the origin by this host.
    Source,
    /// Copied from another task, which has some of the same.
    Here,
    /// Sent by another host.
    Parent(HostId),
}

/// A parent as a person should see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentBytes {
    /// Who it is.
    pub host: HostId,
    /// Its name.
    pub name: String,
    /// Seed or node.
    pub kind: HostKind,
    /// Content bytes that came from it.
    pub bytes: u64,
}

/// An account of bytes that adds up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Were here before.
    pub cache_bytes: u64,
    /// Read from the origin by this host.
    pub source_bytes: u64,
    /// Requests that this host made to the origin for this task.
    pub source_requests: u64,
    /// Content bytes by parent.
    pub parents: Vec<ParentBytes>,
    /// Bytes of the piece plane: payload as it was encoded, proofs, signatures. Fewer than those of the content where
    /// it came compressed.
    pub wire_bytes: u64,
}

impl Ledger {
    /// Content bytes in all.
    pub fn content_bytes(&self) -> u64 {
        self.cache_bytes + self.source_bytes + self.parent_bytes(None)
    }

    /// Content bytes from parents, of one kind or of all.
    pub fn parent_bytes(&self, kind: Option<HostKind>) -> u64 {
        let counted = self.parents.iter().filter(|parent| kind.is_none_or(|k| k == parent.kind));
        counted.map(|parent| parent.bytes).sum()
    }
}

impl AddAssign<&Ledger> for Ledger {
    fn add_assign(&mut self, other: &Ledger) {
        self.cache_bytes += other.cache_bytes;
        self.source_bytes += other.source_bytes;
        self.source_requests += other.source_requests;
        self.wire_bytes += other.wire_bytes;
        for parent in &other.parents {
            match self.parents.iter_mut().find(|known| known.host == parent.host) {
                Some(known) => known.bytes += parent.bytes,
                None => self.parents.push(parent.clone()),
            }
        }
    }
}

/// Which group came from where, since this process opened the task.
#[derive(Debug, Default)]
pub(super) struct Provenance {
    inner: Mutex<Inner>,
    /// Requests that were made to the origin.
    pub requests: RequestCount,
}

#[derive(Debug, Default)]
struct Inner {
    from: BTreeMap<CameFrom, GroupSet>,
    names: BTreeMap<HostId, (String, HostKind)>,
    /// What was handed to readers past the store, the latest last.
    passed: VecDeque<ByteRange>,
    /// How many of them there were.
    passes: u64,
    /// All bytes that were handed to readers and not kept.
    not_kept: BTreeMap<CameFrom, u64>,
    /// How many requests to the origin the accounts of operations that ended have told.
    told_requests: u64,
    wire_bytes: u64,
    /// What parents sent, content and all of it.
    sent: BTreeMap<HostId, Sent>,
    /// What came as the task was opened for an operation that has not begun.
    opened_with: GroupSet,
}

/// What one parent sent.
#[derive(Debug, Default, Clone, Copy)]
struct Sent {
    content: u64,
    wire: u64,
}

/// What was known when some operation began; what came later is attributed by [`Provenance::since`].
#[derive(Debug, Clone)]
pub struct Mark {
    had: GroupSet,
    passes: u64,
    not_kept: BTreeMap<CameFrom, u64>,
    source_requests: u64,
    wire_bytes: u64,
}

impl Mark {
    /// The same mark, as of the opening of the task.
    pub(super) fn beginning(mut self) -> Self {
        self.passes = 0;
        self.not_kept = BTreeMap::new();
        self.source_requests = 0;
        self.wire_bytes = 0;
        self
    }
}

impl Provenance {
    pub(super) fn came(&self, groups: GroupRange, from: CameFrom) {
        let mut inner = self.inner.lock();
        // What came twice (a parent was given up too early, or it was lost in between) counts once.
        for (other, had) in &mut inner.from {
            if *other != from {
                had.remove_range(groups);
            }
        }
        inner.from.entry(from).or_default().insert_range(groups);
    }

    /// Which of these groups came from whom.
    pub(super) fn by_giver(&self, groups: GroupRange) -> Vec<(CameFrom, GroupRange)> {
        let inner = self.inner.lock();
        let of = |(from, came): (&CameFrom, &GroupSet)| {
            came.present_in(groups).map(|run| (from.clone(), run)).collect::<Vec<_>>()
        };
        inner.from.iter().flat_map(of).collect()
    }

    pub(super) fn name(&self, host: HostId, name: &str, kind: HostKind) {
        self.inner.lock().names.insert(host, (name.to_owned(), kind));
    }

    fn source_requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// So many bytes of content were received, which took so many on the wire: more with their proofs, or fewer where
    /// they came compressed.
    pub(super) fn received(&self, from: &CameFrom, content: u64, wire: u64) {
        let mut inner = self.inner.lock();
        inner.wire_bytes += wire;
        if let CameFrom::Parent(parent) = from {
            let sent = inner.sent.entry(*parent).or_default();
            (sent.content, sent.wire) = (sent.content + content, sent.wire + wire);
        }
    }

    /// The operation that the task was opened for is to tell of what came with the answer to what it is.
    pub(super) fn came_with_opening(&self, groups: GroupRange) {
        self.inner.lock().opened_with.insert_range(groups);
    }

    pub(super) fn mark(&self, mut had: GroupSet) -> Mark {
        let mut inner = self.inner.lock();
        std::mem::take(&mut inner.opened_with).ranges().for_each(|run| had.remove_range(run));
        let Inner { passes, wire_bytes, .. } = *inner;
        let (not_kept, source_requests) = (inner.not_kept.clone(), self.source_requests());
        Mark { had, passes, not_kept, source_requests, wire_bytes }
    }

    /// Bytes were read from the origin for a reader and not kept.
    pub(super) fn passed(&self, range: ByteRange) {
        let mut inner = self.inner.lock();
        if inner.passed.len() >= PASSES {
            inner.passed.pop_front();
        }
        inner.passed.push_back(range);
        inner.passes += 1;
        *inner.not_kept.entry(CameFrom::Source).or_default() += range.len();
    }

    /// Groups that [came](Self::came) were handed to their readers and not kept.
    pub(super) fn passed_through(&self, from: CameFrom, bytes: u64) {
        *self.inner.lock().not_kept.entry(from).or_default() += bytes;
    }

    /// The account of these runs of a content of `length` bytes, which are here, with all that was read since the
    /// mark and not kept, and what it all cost, whoever it was for.
    pub(super) fn account(
        &self,
        mark: &Mark,
        runs: impl IntoIterator<Item = ByteRange>,
        length: u64,
    ) -> Ledger {
        let inner = self.inner.lock();
        let mut ledger = Ledger::default();
        for run in runs {
            let kept = inner.kept_since(&mut ledger, mark, run, length);
            ledger.cache_bytes += run.len().saturating_sub(kept);
        }
        for (from, bytes) in &inner.not_kept {
            let before = mark.not_kept.get(from).copied().unwrap_or(0);
            inner.attribute(&mut ledger, from, bytes - before);
        }
        ledger.source_requests = self.source_requests() - mark.source_requests;
        ledger.wire_bytes = inner.wire_bytes - mark.wire_bytes;
        ledger
    }

    /// As [`Self::since`] for an operation that ends: of operations that went on at the same time, one tells
    /// each request to the origin.
    pub(super) fn told_since(&self, mark: &Mark, range: ByteRange, length: u64) -> Ledger {
        let mut ledger = self.since(mark, range, length);
        let mut inner = self.inner.lock();
        let known = mark.source_requests.max(inner.told_requests);
        let requests = self.source_requests();
        ledger.source_requests = requests.saturating_sub(known);
        inner.told_requests = requests.max(known);
        ledger
    }

    /// The account of `range` of a content of `length` bytes, all of which is here now: what was here
    /// at the mark counts as cache. What parents sent beside it is shared out by length.
    pub(super) fn since(&self, mark: &Mark, range: ByteRange, length: u64) -> Ledger {
        let inner = self.inner.lock();
        let mut ledger = Ledger {
            source_requests: self.source_requests() - mark.source_requests,
            ..Ledger::default()
        };
        let attributed = inner.kept_since(&mut ledger, mark, range, length);
        let passed = inner.passed_since(mark, range);
        ledger.source_bytes += passed;
        ledger.cache_bytes = range.len().saturating_sub(attributed + passed);
        ledger
    }
}

impl Inner {
    /// Adds what came of `range` since the mark, and what it took on the wire; how many bytes that are.
    fn kept_since(&self, ledger: &mut Ledger, mark: &Mark, range: ByteRange, length: u64) -> u64 {
        let mut attributed = 0;
        for (from, groups) in &self.from {
            let new = groups
                .present_in(range.groups())
                .flat_map(|run| mark.had.missing_in(run))
                .map(|run| run.bytes(length).intersection(range).len())
                .sum();
            attributed += new;
            self.attribute(ledger, from, new);
            ledger.wire_bytes += self.wire(from, new);
        }
        attributed
    }

    /// What so many bytes from a parent took on the wire.
    fn wire(&self, from: &CameFrom, content: u64) -> u64 {
        let CameFrom::Parent(parent) = from else { return 0 };
        let Some(sent) = self.sent.get(parent).filter(|sent| sent.content > 0) else {
            return content;
        };
        let wire = u128::from(content) * u128::from(sent.wire) / u128::from(sent.content);
        u64::try_from(wire).unwrap_or(u64::MAX)
    }

    fn attribute(&self, ledger: &mut Ledger, from: &CameFrom, bytes: u64) {
        match from {
            CameFrom::Source => ledger.source_bytes += bytes,
            CameFrom::Here => ledger.cache_bytes += bytes,
            CameFrom::Parent(_) if bytes == 0 => {}
            CameFrom::Parent(host) => {
                let known = self.names.get(host).cloned();
                let (name, kind) = known.unwrap_or_else(|| (host.short(), HostKind::Node));
                *ledger += &Ledger {
                    parents: vec![ParentBytes { host: *host, name, kind, bytes }],
                    ..Ledger::default()
                };
            }
        }
    }

    /// Bytes of `range` that were read and not kept since the mark; what was read twice counts once. They
    /// are of groups that never came.
    fn passed_since(&self, mark: &Mark, range: ByteRange) -> u64 {
        let new = usize::try_from(self.passes - mark.passes).unwrap_or(usize::MAX);
        let latest = self.passed.iter().rev().take(new);
        let mut ranges: Vec<_> = latest
            .map(|passed| passed.intersection(range))
            .filter(|passed| !passed.is_empty())
            .collect();
        ranges.sort_unstable_by_key(|passed| passed.start);
        let mut end = range.start;
        let mut sum = 0;
        for passed in ranges {
            sum += passed.end.saturating_sub(passed.start.max(end));
            end = end.max(passed.end);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use dfs_model::GROUP_BYTES;

    use super::*;

    #[test]
    fn every_byte_of_a_range_is_attributed_once() {
        let length = 4 * GROUP_BYTES + 10;
        let provenance = Provenance::default();
        let had: GroupSet = GroupSet::full(1);
        let mark = provenance.mark(had);
        let parent = HostId::from_bytes([1; 16]);
        provenance.name(parent, "a", HostKind::Seed);
        provenance.came(GroupRange::new(1, 2), CameFrom::Source);
        provenance.came(GroupRange::new(3, 2), CameFrom::Parent(parent));
        provenance.requests.fetch_add(1, Ordering::Relaxed);
        // Twice, from two hosts: once in the account.
        provenance.came(GroupRange::new(3, 2), CameFrom::Parent(HostId::from_bytes([2; 16])));
        provenance.came(GroupRange::new(3, 2), CameFrom::Parent(parent));
        let ledger = provenance.since(&mark, ByteRange::new(5, length), length);
        assert_eq!(ledger.cache_bytes, GROUP_BYTES - 5);
        assert_eq!(ledger.source_bytes, 2 * GROUP_BYTES);
        assert_eq!(ledger.parent_bytes(Some(HostKind::Seed)), GROUP_BYTES + 10);
        assert_eq!(ledger.content_bytes(), length - 5);
        assert_eq!(ledger.source_requests, 1);
    }

    #[test]
    fn operations_at_the_same_time_tell_together_what_it_cost_and_no_more() {
        let length = 4 * GROUP_BYTES;
        let provenance = Provenance::default();
        let from = CameFrom::Parent(HostId::from_bytes([1; 16]));
        let files = [ByteRange::new(0, 100_000), ByteRange::new(100_000, length)];
        let marks = files.map(|_| provenance.mark(GroupSet::new()));
        provenance.came(GroupRange::new(0, 4), from.clone());
        provenance.received(&from, length, length + 1000);
        provenance.requests.fetch_add(1, Ordering::Relaxed);
        provenance.requests.fetch_add(1, Ordering::Relaxed);
        let mut told = Ledger::default();
        for (mark, file) in marks.iter().zip(files) {
            let ledger = provenance.told_since(mark, file, length);
            assert!(ledger.wire_bytes >= file.len(), "{ledger:?}");
            told += &ledger;
        }
        assert_eq!((told.source_requests, told.parent_bytes(None)), (2, length));
        assert!((length + 998..=length + 1000).contains(&told.wire_bytes), "{told:?}");
        let account = provenance.account(&marks[0], [], length);
        assert_eq!((account.source_requests, account.wire_bytes), (2, length + 1000));
    }

    #[test]
    fn what_came_compressed_is_all_of_the_content_and_less_on_the_wire() {
        let length = 4 * GROUP_BYTES;
        let provenance = Provenance::default();
        let from = CameFrom::Parent(HostId::from_bytes([1; 16]));
        let mark = provenance.mark(GroupSet::new());
        provenance.came(GroupRange::new(0, 4), from.clone());
        provenance.received(&from, length, length / 4);
        let whole = provenance.account(&mark, [ByteRange::new(0, length)], length);
        assert_eq!((whole.content_bytes(), whole.wire_bytes), (length, length / 4));
        let half = provenance.since(&mark, ByteRange::new(0, length / 2), length);
        assert_eq!((half.content_bytes(), half.wire_bytes), (length / 2, length / 8));
    }

    #[test]
    fn bytes_that_were_not_kept_count_as_the_origins_once_and_since_the_mark() {
        let provenance = Provenance::default();
        provenance.passed(ByteRange::new(0, 100));
        let mark = provenance.mark(GroupSet::new());
        for range in [ByteRange::new(50, 150), ByteRange::new(140, 200), ByteRange::new(140, 160)] {
            provenance.passed(range);
        }
        let ledger = provenance.since(&mark, ByteRange::new(0, 180), 1000);
        assert_eq!((ledger.source_bytes, ledger.cache_bytes), (130, 50));
        assert_eq!(provenance.account(&mark.clone().beginning(), [], 100).source_bytes, 280);
        // What is kept after all, later, is told once more, and not a third time.
        provenance.came(GroupRange::new(0, 1), CameFrom::Source);
        let account = provenance.account(&mark.clone().beginning(), [ByteRange::new(0, 100)], 100);
        assert_eq!((account.source_bytes, account.cache_bytes), (380, 0));
        let before = provenance.mark(GroupSet::new());
        provenance.passed_through(CameFrom::Source, 20);
        assert_eq!(provenance.account(&before, [], 100).source_bytes, 20);
    }
}
