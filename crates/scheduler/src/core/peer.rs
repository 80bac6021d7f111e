//! A host's part in one task, as an explicit state machine.

use std::collections::{BTreeMap, BTreeSet};

use dfs_model::{GroupRange, GroupSet, HostId, Priority};

use super::evidence::Wait;
use super::lead::Led;
use super::{Held, Millis, Tally, Wanted};

/// Where a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// Takes nothing now: it has what it wanted, or only announced what it holds. May give.
    Resting,
    /// Wants groups and has no parents; looked at again at `due`.
    Waiting {
        /// When.
        due: Millis,
        /// For what.
        wait: Wait,
    },
    /// Has parents.
    Fetching,
    /// Was sent to the source.
    Source {
        /// Whether it may sign and serve what it reads.
        stand_in: bool,
    },
    /// A seed that takes part by order.
    Seeding,
    /// Gave up or was refused; may register again.
    Failed,
}

impl PeerState {
    /// Whether the machine has this transition.
    pub fn may_become(self, next: Self) -> bool {
        use PeerState::{Failed, Fetching, Resting, Seeding, Source, Waiting};
        match (self, next) {
            (Seeding, _) | (_, Seeding) => false,
            (Resting | Failed, Resting | Waiting { .. } | Failed) => true,
            (Resting | Failed, Fetching | Source { .. }) => false,
            (Waiting { .. } | Fetching, _) => true,
            (Source { .. }, Fetching) => false,
            (Source { .. }, _) => true,
        }
    }

    /// A word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resting => "resting",
            Self::Waiting { .. } => "waiting",
            Self::Fetching => "fetching",
            Self::Source { .. } => "source",
            Self::Seeding => "seeding",
            Self::Failed => "failed",
        }
    }
}

/// What groups cost a peer to get: enough for a mean and a deviation, not a history.
#[derive(Debug, Clone, Copy, Default)]
pub struct Costs {
    count: u64,
    mean: f64,
    squares: f64,
    last: f64,
    /// From which cost on the last run counted as broken, judged by the runs before it.
    bound: f64,
}

impl Costs {
    const FEW: u64 = 30;
    const NEVER_BAD_MS: f64 = 5.0;

    /// Notes a run of groups.
    pub fn add(&mut self, cost_ms: u32, groups: u64) {
        let cost = f64::from(cost_ms) / groups.max(1) as f64;
        self.bound = self.bound_for_next();
        self.count += 1;
        let off = cost - self.mean;
        self.mean += off / self.count as f64;
        self.squares += off * (cost - self.mean);
        self.last = cost;
    }

    /// Whether the last run was so slow that the peer counts as broken (seed 004's "bad node").
    pub fn is_bad(&self) -> bool {
        self.last > self.bound && self.count > 1
    }

    fn bound_for_next(&self) -> f64 {
        if self.count < Self::FEW {
            // A mean of nearly nothing must not turn a millisecond into a fault.
            return (20.0 * self.mean).max(Self::NEVER_BAD_MS);
        }
        let deviation = (self.squares / self.count as f64).sqrt();
        (self.mean + 3.0 * deviation).max(Self::NEVER_BAD_MS)
    }
}

/// A host's part in one task.
#[derive(Debug)]
pub struct Peer {
    /// Where it stands.
    state: PeerState,
    /// Whether it asked to take part, not only announced.
    pub registered: bool,
    /// Whether what comes of its registration is still to be told.
    pub(super) owes_result: bool,
    /// Whether its registration has been answered.
    pub answered: bool,
    /// Whether it registered for what it holds and no more: before it takes anything it registers again.
    pub is_closed: bool,
    /// Whether it was ever allowed to sign what it read.
    pub stand_in: bool,
    /// Whether it holds groups that it read from the source without being a stand-in.
    pub serves_only_itself: bool,
    /// How urgently it wants.
    pub priority: Priority,
    /// What it wants.
    pub wanted: Wanted,
    /// What of that it wants in any order, as it said last.
    pub in_any_order: GroupSet,
    /// What of that comes next where it reads from front to back, as it said last.
    pub(super) reads_next: GroupRange,
    /// What it holds.
    pub held: Held,
    /// Whether it said so over a stream that has broken since.
    pub(super) is_hearsay: bool,
    /// What groups cost it.
    pub costs: Costs,
    /// Schedulings and attempts in vain since the last group arrived.
    pub tries: u32,
    /// Parents it wants no more.
    pub(super) blocked: BTreeMap<HostId, Block>,
    /// Since when it gives what it did not give before: it stands in, or has come to have everything.
    pub(super) gives_since: Option<Millis>,
    /// Parents it was ever given.
    pub met: BTreeSet<HostId>,
    /// What it took, by who gave it.
    pub tally: Tally,
    /// Bytes from other data centres since it succeeded last.
    pub(super) crossed: u64,
    /// Who leads it, where that is a delegate.
    pub(super) delegate: Option<HostId>,
    /// So many reserves had been named in the task when it was told of those of its place.
    pub(super) reserves_told: u64,
    /// Its part in the leases of the task.
    pub(super) led: Option<Led>,
}

/// For how long a peer does without a parent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    since: Millis,
    until: Millis,
}

/// Most parents remembered per peer for judging its reports.
const MET: usize = 128;

impl Peer {
    /// Whether it downloads so slowly that nobody should depend on it (seed 004's "bad node"). One that has
    /// everything downloads no more: what its last run cost says nothing of how it serves.
    pub fn is_bad_node(&self) -> bool {
        self.held != Held::All && self.costs.is_bad()
    }

    /// A peer in `state` that wants nothing.
    pub fn new(state: PeerState, held: Held) -> Self {
        Self {
            state,
            registered: false,
            owes_result: false,
            answered: false,
            is_closed: false,
            stand_in: false,
            serves_only_itself: false,
            priority: Priority::default(),
            wanted: Wanted::Groups(GroupSet::new()),
            in_any_order: GroupSet::new(),
            reads_next: GroupRange::new(0, 0),
            held,
            is_hearsay: false,
            costs: Costs::default(),
            tries: 0,
            blocked: BTreeMap::new(),
            gives_since: None,
            met: BTreeSet::new(),
            tally: Tally::default(),
            crossed: 0,
            delegate: None,
            reserves_told: 0,
            led: None,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> PeerState {
        self.state
    }

    /// Moves along the machine.
    pub fn become_(&mut self, next: PeerState) {
        debug_assert!(self.state.may_become(next), "{:?} to {next:?}", self.state);
        self.state = next;
    }

    /// Whether it wants groups it does not hold.
    pub fn is_hungry(&self, groups: Option<u64>) -> bool {
        match (&self.wanted, &self.held, groups) {
            (_, Held::All, _) => false,
            (Wanted::All, Held::Part(held), Some(groups)) => held.len() < groups,
            (Wanted::All, Held::Part(_), None) => true,
            (Wanted::Groups(wanted), held, _) => {
                wanted.ranges().any(|range| !held.contains_all(range))
            }
        }
    }

    /// Whether it takes part and still wants something.
    pub fn is_active(&self) -> bool {
        matches!(
            self.state,
            PeerState::Waiting { .. } | PeerState::Fetching | PeerState::Source { .. }
        )
    }

    /// Until when it does without one that lied.
    pub const FOR_EVER: Millis = Millis(u64::MAX);

    /// Notes a parent it was given.
    pub fn meet(&mut self, parent: HostId) {
        if self.met.len() < MET {
            self.met.insert(parent);
        }
    }

    /// Does without `parent` from now on, until `until`.
    pub fn block(&mut self, parent: HostId, now: Millis, until: Millis) {
        if self.met.contains(&parent) {
            let before = self.blocked.get(&parent).map_or(until, |block| block.until);
            self.blocked.insert(parent, Block { since: now, until: until.max(before) });
        }
    }

    /// Gives those it does without for a time another chance.
    pub fn forgive(&mut self) {
        self.blocked.retain(|_, block| block.until == Self::FOR_EVER);
    }

    /// Whether it does without `parent` now. One that did not deliver and has come to have what is wanted since
    /// is worth an attempt.
    pub fn blocks(&self, parent: &HostId, giver: &Self, now: Millis) -> bool {
        let Some(block) = self.blocked.get(parent) else { return false };
        let has_changed = giver.gives_since.is_some_and(|since| since > block.since);
        block.until == Self::FOR_EVER || (block.until > now && !has_changed)
    }

    /// Those it does without now, each until when.
    pub fn blocked(&self, now: Millis) -> impl Iterator<Item = (HostId, Millis)> + '_ {
        let blocks = self.blocked.iter().map(|(host, block)| (*host, block.until));
        blocks.filter(move |(_, until)| *until > now)
    }

    /// Holds these groups of the task's `all`, if that is known.
    pub fn gain(&mut self, run: GroupRange, all: Option<u64>, now: Millis) {
        self.change(now, |held| held.insert(run, all));
        if let Some(led) = &mut self.led {
            led.gain(run);
        }
    }

    /// Holds this, and nothing else.
    pub fn holds(&mut self, held: Held, now: Millis) {
        if self.held != held
            && let Some(led) = &mut self.led
        {
            led.is_other();
        }
        self.change(now, |had| *had = held);
    }

    /// Holds these groups no more. What it says next of what it wants of them is news.
    pub fn lose(&mut self, lost: &GroupSet, all: Option<u64>, now: Millis) {
        let mut held = self.held.clone();
        held.remove(lost, all);
        self.holds(held, now);
        self.unwant(lost);
    }

    /// What it said that it wants of these counts no more: what it says next is news.
    pub fn unwant(&mut self, groups: &GroupSet) {
        self.in_any_order.remove_all(groups);
        if let Some(led) = &mut self.led {
            led.wants.remove_all(groups);
        }
    }

    fn change(&mut self, now: Millis, change: impl FnOnce(&mut Held)) {
        let lacked = self.held != Held::All;
        change(&mut self.held);
        if lacked && self.held == Held::All {
            self.gives_since = Some(now);
        }
    }

    /// Whether it only reads, here and there: what it will come to hold is what it will be asked for.
    pub fn is_reader(&self) -> bool {
        self.wanted == Wanted::All && self.priority < Priority::Bulk
    }

    /// Whether it will hold everything, however long that turns out to be.
    pub fn will_hold_all(&self) -> bool {
        self.state == PeerState::Seeding
            || self.held == Held::All
            || (self.is_active() && self.wanted == Wanted::All && !self.is_reader())
    }

    /// The parts of `run` that it neither holds nor will hold once it has what it wants.
    pub fn lacks(&self, run: GroupRange) -> Vec<GroupRange> {
        let Held::Part(held) = &self.held else { return Vec::new() };
        if self.state == PeerState::Seeding {
            return Vec::new();
        }
        let missing = held.missing_in(run);
        let wanted = match &self.wanted {
            _ if !self.is_active() => return missing.collect(),
            Wanted::All if self.is_reader() => &self.in_any_order,
            Wanted::All => return Vec::new(),
            Wanted::Groups(wanted) => wanted,
        };
        missing.flat_map(|run| wanted.missing_in(run).collect::<Vec<_>>()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_twenty_times_slower_than_its_mean_is_bad() {
        let mut costs = Costs::default();
        for _ in 0..5 {
            costs.add(10, 1);
        }
        assert!(!costs.is_bad());
        costs.add(199, 1);
        assert!(!costs.is_bad());
        costs.add(10_000, 1);
        assert!(costs.is_bad());
    }

    #[test]
    fn with_many_samples_three_deviations_are_bad() {
        let mut costs = Costs::default();
        for n in 0..100 {
            costs.add(if n % 2 == 0 { 9 } else { 11 }, 1);
        }
        assert!(!costs.is_bad());
        costs.add(20, 1);
        assert!(costs.is_bad());
        costs.add(10, 1);
        assert!(!costs.is_bad());
    }

    #[test]
    fn seeds_change_state_for_nobody_and_resting_peers_wait_first() {
        assert!(!PeerState::Seeding.may_become(PeerState::Failed));
        assert!(!PeerState::Resting.may_become(PeerState::Fetching));
        let waits = PeerState::Waiting { due: Millis(0), wait: Wait::Parents };
        assert!(waits.may_become(PeerState::Fetching));
        assert!(PeerState::Failed.may_become(waits));
    }
}
