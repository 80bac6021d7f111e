//! Leases: what is wanted in any order is asked of those whose turn the scheduler says it is.
//!
//! As long as it is heard of, nothing of that is asked of parents by the peer's own choice; once it is not, the peer
//! chooses for itself again. A lease of what is under way already is kept until that has landed, or stands still for a
//! while: it is over when it brings nothing more.

use std::time::Duration;

use dfs_model::{GroupRange, GroupSet, HostId, Priority};

use super::plan::{ANY_ORDER, IN_ORDER};
use super::{Action, Conductor, Failure, Flight, FlightId, Provider, SourceAccess};

/// After so long without a word from whoever leases, a peer chooses for itself.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// What the peer asked for by its own choice, and has brought nothing for so long, gives way to a lease: the way may be
/// dead that the one goes, and whoever is to give the other would be taken to be.
pub(super) const LATE_AFTER: Duration = Duration::from_millis(300);

/// Most runs that are told to be wanted in any order; what lies behind them is told once they have come.
const MOST_RUNS: usize = 4096;

/// A lease under way.
#[derive(Debug)]
pub(super) struct Leased {
    parent: HostId,
    groups: GroupRange,
    began: Duration,
    flights: Vec<FlightId>,
    /// What it brought that was not here.
    brought: Vec<GroupRange>,
    /// Whether anything was asked of the parent.
    was_asked: bool,
    failure: Option<Failure>,
}

/// A lease that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseEnd {
    /// Its name.
    pub id: u64,
    /// Whose uplink it was.
    pub parent: HostId,
    /// What of it is here, where it ended with all of its groups; what it brought where it did not.
    pub here: Vec<GroupRange>,
    /// How long it took.
    pub cost: Duration,
    /// How it ended.
    pub outcome: LeaseOutcome,
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// It brought all of its groups.
    Whole,
    /// It brought what was wanted of them, or what of them had not come without it.
    Part,
    /// All of its groups came without it.
    Held,
    /// Nobody wants anything of it here.
    Unwanted,
    /// Whoever leases took it back.
    Withdrawn,
    /// The parent did not give it.
    Failed(Failure),
}

impl LeaseOutcome {
    /// Whether what is here of it is its own to tell.
    pub fn tells_groups(self) -> bool {
        matches!(self, Self::Whole | Self::Held)
    }
}

impl Flight {
    /// Whether it has brought nothing for so long that others may bring the same.
    pub(super) fn is_late(&self, now: Duration) -> bool {
        now.saturating_sub(self.came.unwrap_or_default().max(self.began)) >= LATE_AFTER
    }
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
        let is_heard_of = self.led_at.is_some_and(|at| now < at + HEARD_WITHIN);
        is_heard_of && self.own_choice_until.is_none_or(|until| now >= until)
    }

    /// Leases have brought nothing for too long: for a while the peer chooses for itself beside them.
    pub fn doubt_leases(&mut self, now: Duration) {
        self.own_choice_until = Some(now + HEARD_WITHIN);
    }

    /// Whether a lease has failed since anything came by one.
    pub fn do_leases_fail(&self) -> bool {
        self.leases_fail
    }

    /// Whether it is of no use to know what parents hold.
    pub fn follows_leases_alone(&self, now: Duration) -> bool {
        let in_order = |level: &Priority| {
            let mut wanted = self.wanted[*level as usize].ranges();
            wanted.any(|run| self.not_left_to_swarm(run).next().is_some())
        };
        self.is_led(now) && !IN_ORDER.iter().any(in_order)
    }

    /// It is this peer's turn at the uplink of `parent`, which holds these groups. What is to be done comes with the
    /// next plan.
    pub fn lease(&mut self, id: u64, parent: HostId, groups: GroupRange, now: Duration) {
        self.lead(now);
        let groups = self.existing(groups);
        let leased = Leased {
            parent,
            groups,
            began: now,
            flights: Vec::new(),
            brought: Vec::new(),
            was_asked: false,
            failure: None,
        };
        self.leases.insert(id, leased);
        self.leases_to_plan.push(id);
    }

    /// Asks for what leases are for and is in no flight; ends those that bring nothing more.
    pub(super) fn plan_leases(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for id in std::mem::take(&mut self.leases_to_plan) {
            let Some(leased) = self.leases.get(&id).filter(|leased| leased.flights.is_empty())
            else {
                continue;
            };
            let (parent, groups) = (leased.parent, leased.groups);
            let has_failed = leased.failure.is_some();
            let wanted = self.in_any_order(groups);
            if !has_failed {
                actions.extend(self.give_way(&wanted, parent, now));
            }
            let missing: Vec<GroupRange> =
                wanted.ranges().flat_map(|run| self.flying.missing_in(run)).collect();
            if wanted.is_empty() || has_failed {
                self.end_lease(id, None, now);
            } else if missing.is_empty() {
                // Others bring all of it, and may fail.
                self.leases_to_plan.push(id);
            }
            for run in missing.into_iter().filter(|_| !has_failed) {
                let flight = self.take_off(Provider::Parent(parent), run, now);
                if let Some(flight) = self.flights.get_mut(&flight) {
                    flight.lease = Some(id);
                }
                if let Some(leased) = self.leases.get_mut(&id) {
                    leased.flights.push(flight);
                    leased.was_asked = true;
                }
                let priority = Priority::Bulk;
                actions.push(Action::Request {
                    flight,
                    parent,
                    groups: run,
                    priority,
                    beside: None,
                });
            }
        }
    }

    /// Gives up what was asked for by the peer's own choice of some groups and has brought nothing for a while; who is
    /// waited for by a reader has a second one asked besides.
    fn give_way(&mut self, groups: &GroupSet, to: HostId, now: Duration) -> Vec<Action> {
        let is_mute = |host: HostId| {
            let parent = self.parents.iter().find(|parent| parent.host == host);
            parent.is_none_or(|parent| !parent.is_moving(now))
        };
        let gives_way = |flight: &Flight| {
            let is_of_mute = match flight.provider {
                Provider::Parent(host) => host != to && is_mute(host),
                Provider::Source => false,
            };
            let is_own_choice = flight.lease.is_none() && flight.awaited.is_none();
            let is_for_same = groups.present_in(flight.rest).next().is_some();
            is_of_mute && is_own_choice && is_for_same && flight.is_late(now)
        };
        let late = self.flights.iter().filter(|(_, flight)| gives_way(flight));
        let late = late.map(|(id, _)| *id).collect();
        self.cancel(late)
    }

    /// Those of some groups that are wanted in any order.
    pub(super) fn in_any_order(&self, groups: GroupRange) -> GroupSet {
        let mut wanted = GroupSet::new();
        for level in ANY_ORDER {
            let runs = self.wanted[level as usize].present_in(groups);
            runs.for_each(|run| wanted.insert_range(run));
        }
        wanted
    }

    /// A lease holds no longer: what is under way of it is given up.
    pub fn withdraw(&mut self, id: u64, now: Duration) -> Vec<Action> {
        let Some(leased) = self.leases.get_mut(&id) else { return Vec::new() };
        self.leases_fail |= leased.was_asked;
        let flights = std::mem::take(&mut leased.flights);
        let actions = self.cancel(flights);
        self.end_lease(id, Some(LeaseOutcome::Withdrawn), now);
        actions
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
        let has_more = self.any_order_goes_on && self.have.contains_set(&self.any_order_told);
        if !std::mem::take(&mut self.any_order_changed) && !has_more {
            return None;
        }
        let mut wanted = GroupSet::new();
        ANY_ORDER.into_iter().for_each(|level| wanted.insert_all(&self.wanted[level as usize]));
        let beyond = wanted.ranges().nth(MOST_RUNS).map(|run| run.first);
        self.any_order_goes_on = beyond.is_some();
        beyond.into_iter().for_each(|first| wanted.truncate(first));
        let is_new = !self.any_order_told.contains_set(&wanted);
        let mut less = std::mem::replace(&mut self.any_order_told, wanted.clone());
        less.remove_all(&wanted);
        let is_less = !self.have.contains_set(&less);
        (is_new || is_less).then_some(wanted)
    }

    /// Something has come that was not here: by a lease, where the flight is of one.
    pub(super) fn lease_brings(&mut self, flight: FlightId, news: &[GroupRange]) {
        let lease = self.flights.get(&flight).and_then(|flight| flight.lease);
        let Some(leased) = lease.and_then(|lease| self.leases.get_mut(&lease)) else { return };
        for run in news {
            match leased.brought.last_mut() {
                Some(last) if last.end() == run.first => last.count += run.count,
                _ => leased.brought.push(*run),
            }
        }
    }

    /// A flight of a lease is over.
    pub(super) fn lease_landed(&mut self, id: u64, flight: FlightId, failure: Option<Failure>) {
        let Some(leased) = self.leases.get_mut(&id) else { return };
        leased.flights.retain(|one| *one != flight);
        leased.failure = leased.failure.or(failure);
        self.leases_to_plan.push(id);
    }

    fn end_lease(&mut self, id: u64, outcome: Option<LeaseOutcome>, now: Duration) {
        let Some(leased) = self.leases.remove(&id) else { return };
        let is_here = self.have.contains_all(leased.groups);
        let outcome = outcome.unwrap_or(match leased.failure {
            _ if is_here && leased.brought.is_empty() => LeaseOutcome::Held,
            _ if leased.brought == [leased.groups] => LeaseOutcome::Whole,
            Some(failure) if !is_here => LeaseOutcome::Failed(failure),
            _ if !leased.brought.is_empty() => LeaseOutcome::Part,
            _ => LeaseOutcome::Unwanted,
        });
        let here = match outcome.tells_groups() {
            true => vec![leased.groups],
            false => leased.brought,
        };
        self.leases_fail |= matches!(outcome, LeaseOutcome::Failed(_));
        if outcome == LeaseOutcome::Unwanted {
            // Whoever leases takes it to be so: if it is wanted again, that is news.
            self.any_order_told.remove_range(leased.groups);
            self.any_order_changed = true;
        }
        let cost = now.saturating_sub(leased.began);
        self.lease_ends.push(LeaseEnd { id, parent: leased.parent, here, cost, outcome });
    }
}
