//! Leases: what is wanted in any order is asked of those whose turn the scheduler says it is.
//!
//! As long as it is heard of, nothing of that is asked of parents by the peer's own choice; once it is not, the peer
//! chooses for itself again.

use std::time::Duration;

use dfs_model::{GroupRange, GroupSet, HostId, Priority};

use super::plan::{ANY_ORDER, IN_ORDER};
use super::{Action, Conductor, Failure, FlightId, Provider, SourceAccess};

/// After so long without a word from whoever leases, a peer chooses for itself.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// A lease under way.
#[derive(Debug)]
pub(super) struct Leased {
    parent: HostId,
    groups: GroupRange,
    began: Duration,
    flights: Vec<FlightId>,
    failure: Option<Failure>,
}

/// How a lease ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseEnd {
    /// Its name.
    pub id: u64,
    /// Whose uplink it was.
    pub parent: HostId,
    /// What of it is here.
    pub here: Vec<GroupRange>,
    /// How long it took.
    pub cost: Duration,
    /// Why not all of it is.
    pub failure: Option<LeaseFailure>,
}

/// Why a lease did not bring everything that it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseFailure {
    /// Nobody wants it here any more.
    Unwanted,
    /// The parent did not give it.
    Parent(Failure),
}

impl Conductor {
    /// Whoever leases is there.
    pub fn lead(&mut self, now: Duration) {
        if self.source == SourceAccess::Forbidden {
            self.led_at = Some(now);
        }
    }

    /// Nobody leases: the peer chooses for itself.
    pub fn release(&mut self) {
        self.led_at = None;
    }

    /// Whether what is wanted in any order comes by leases.
    pub fn is_led(&self, now: Duration) -> bool {
        self.led_at.is_some_and(|at| now < at + HEARD_WITHIN)
    }

    /// Whether it is of no use to know what parents hold.
    pub fn follows_leases_alone(&self, now: Duration) -> bool {
        let in_order = IN_ORDER.iter().any(|level| !self.wanted[*level as usize].is_empty());
        self.is_led(now) && !in_order
    }

    /// It is this peer's turn at the uplink of `parent`, which holds these groups.
    pub fn lease(
        &mut self,
        id: u64,
        parent: HostId,
        groups: GroupRange,
        now: Duration,
    ) -> Vec<Action> {
        self.lead(now);
        let groups = match self.groups {
            Some(count) => groups.intersection(GroupRange::new(0, count)),
            None => groups,
        };
        let asked: Vec<GroupRange> = ANY_ORDER
            .into_iter()
            .flat_map(|priority| self.wanted[priority as usize].present_in(groups))
            .flat_map(|run| self.flying.missing_in(run).collect::<Vec<_>>())
            .collect();
        let mut asked_once = GroupSet::new();
        asked.into_iter().for_each(|run| asked_once.insert_range(run));
        let mut leased = Leased { parent, groups, began: now, flights: Vec::new(), failure: None };
        let mut actions = Vec::new();
        for run in asked_once.ranges() {
            let flight = self.take_off(Provider::Parent(parent), run, now);
            if let Some(flight) = self.flights.get_mut(&flight) {
                flight.lease = Some(id);
            }
            leased.flights.push(flight);
            let priority = Priority::Bulk;
            actions.push(Action::Request { flight, parent, groups: run, priority });
        }
        self.leases.insert(id, leased);
        self.end_if_landed(id, now);
        actions
    }

    /// A lease holds no longer: what is under way of it is given up, and nothing is said of it.
    pub fn withdraw(&mut self, id: u64) -> Vec<Action> {
        let Some(leased) = self.leases.remove(&id) else { return Vec::new() };
        self.cancel(leased.flights)
    }

    /// Whether a flight is of a lease, whose end is told as one.
    pub fn is_leased(&self, flight: FlightId) -> bool {
        self.flights.get(&flight).is_some_and(|flight| flight.lease.is_some())
    }

    /// Leases that have ended since this was asked last.
    pub fn take_lease_ends(&mut self) -> Vec<LeaseEnd> {
        std::mem::take(&mut self.lease_ends)
    }

    /// Whoever leases has forgotten what was told.
    pub fn tell_any_order_anew(&mut self) {
        self.any_order_told = GroupSet::new();
        self.any_order_changed = true;
    }

    /// All that is wanted in any order, if that has changed in another way than by coming since it was asked last.
    pub fn news_of_any_order(&mut self) -> Option<GroupSet> {
        if !std::mem::take(&mut self.any_order_changed) {
            return None;
        }
        let mut wanted = GroupSet::new();
        for priority in ANY_ORDER {
            self.wanted[priority as usize].ranges().for_each(|run| wanted.insert_range(run));
        }
        let told = std::mem::replace(&mut self.any_order_told, wanted.clone());
        let is_new = wanted.ranges().any(|run| !told.contains_all(run));
        let is_given_up = |run: GroupRange| !self.have.contains_all(run);
        let is_less = told.ranges().flat_map(|run| wanted.missing_in(run)).any(is_given_up);
        (is_new || is_less).then_some(wanted)
    }

    /// A flight of a lease is over.
    pub(super) fn lease_landed(
        &mut self,
        id: u64,
        flight: FlightId,
        failure: Option<Failure>,
        now: Duration,
    ) {
        let Some(leased) = self.leases.get_mut(&id) else { return };
        leased.flights.retain(|one| *one != flight);
        leased.failure = leased.failure.or(failure);
        self.end_if_landed(id, now);
    }

    fn end_if_landed(&mut self, id: u64, now: Duration) {
        let Some(leased) = self.leases.get(&id).filter(|leased| leased.flights.is_empty()) else {
            return;
        };
        let here: Vec<GroupRange> = self.have.present_in(leased.groups).collect();
        let is_whole = self.have.contains_all(leased.groups);
        let failure = (!is_whole)
            .then(|| leased.failure.map_or(LeaseFailure::Unwanted, LeaseFailure::Parent));
        if failure == Some(LeaseFailure::Unwanted) {
            // Whoever leases takes it to be so: if it is wanted again, that is news.
            self.any_order_told.remove_range(leased.groups);
            self.any_order_changed = true;
        }
        let cost = now.saturating_sub(leased.began);
        self.lease_ends.push(LeaseEnd { id, parent: leased.parent, here, cost, failure });
        self.leases.remove(&id);
    }
}
