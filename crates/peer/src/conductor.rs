//! Which groups to fetch next, and from whom: the pure core of every download.
//!
//! The conductor of one task is told what is wanted ([`Conductor::want`]), who offers what
//! ([`Conductor::set_parents`], [`Conductor::parent_holds`]), what came and what failed, and answers
//! with [`Action`]s. It owns no clock, no socket and no randomness: time is passed in as the time
//! since the engine began, the number of this host as `spread`.
//!
//! Kept here: a group is in at most one flight, so however many ask, it is fetched once (invariant 3), but for what
//! a blocked reader waits for too long: that is asked of one other holder as well ([`hedges`]); demand goes before
//! read-ahead before bulk, bulk is rarest first among the known parents, of those near who have it, and where none has it
//! neighbours divide among them what they fetch from elsewhere; what a parent fails to deliver goes to another one or,
//! when that is allowed, to the source (invariant 4).

#[cfg(test)]
mod hedge_tests;
mod hedges;
#[cfg(test)]
mod lease_tests;
mod leases;
mod parents;
mod plan;
#[cfg(test)]
mod stream_tests;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_model::{GroupRange, GroupSet, HostId, Invariant, Priority, groups_in};

pub use self::hedges::HedgeCount;
use self::hedges::{Hedges, Race};
use self::leases::Leased;
pub use self::leases::{LeaseEnd, LeaseOutcome};
use self::parents::{Asked, Attempt, Parent};
pub use self::parents::{Failure, Offer, Place};
use self::plan::ANY_ORDER;
pub use self::plan::spread_of;
use self::streams::Streams;

/// Names one request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlightId(u64);

/// Where a flight's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Another host's piece plane.
    Parent(HostId),
    /// The origin.
    Source,
}

/// What the shell must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a parent for groups.
    Request {
        /// The flight that it is.
        flight: FlightId,
        /// Whom to ask.
        parent: HostId,
        /// For what.
        groups: GroupRange,
        /// How urgently.
        priority: Priority,
        /// The flight that takes too long, where this one is beside it.
        beside: Option<FlightId>,
    },
    /// Read a run from the origin in one request; `None` is all of it in one sequential stream.
    ReadSource {
        /// The flight that it is.
        flight: FlightId,
        /// Which groups.
        groups: Option<GroupRange>,
        /// How urgently.
        priority: Priority,
    },
    /// Give a flight up; nothing of it is waited for any more.
    Cancel(FlightId),
    /// Nobody known can deliver what is wanted: ask the scheduler for other parents.
    AskForParents {
        /// Parents that failed.
        bad: Vec<HostId>,
    },
}

/// Bounds of one task's download.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Groups asked of one parent at a time.
    pub parent_window: u64,
    /// Groups in one request to a parent.
    pub request: u64,
    /// Requests to the origin at a time.
    pub source_flights: usize,
    /// Groups in one request to the origin.
    pub source_run: u64,
    /// Unwanted groups that a request to the origin may include to join two wanted runs.
    pub source_gap: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { parent_window: 128, request: 32, source_flights: 4, source_run: 256, source_gap: 2 }
    }
}

/// Whether the origin may be read by this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceAccess {
    /// The swarm provides.
    Forbidden,
    /// In ranges, any order.
    Ranges,
    /// Only from the beginning to the end, in one stream.
    Sequential,
}

#[derive(Debug)]
struct Flight {
    provider: Provider,
    /// What has not arrived yet; for a sequential stream everything from here on.
    rest: GroupRange,
    began: Duration,
    /// The lease that it is of.
    lease: Option<u64>,
    /// When something of it came last.
    came: Option<Duration>,
    /// How its parent was asked.
    asked: Option<Asked>,
    /// Since when a reader waits for what comes next of it.
    awaited: Option<Duration>,
    /// Which other one is to bring the same, as long as neither has brought anything of it.
    race: Option<Race>,
    /// Whether another one was ever to bring the same.
    was_in_race: bool,
    /// Whether it was asked beside another one.
    is_beside: bool,
}

/// Number of [`Priority`] levels.
const LEVELS: usize = 5;

/// The download of one task. See the module's documentation.
#[derive(Debug)]
pub struct Conductor {
    limits: Limits,
    groups: Option<u64>,
    piece_level: u8,
    have: GroupSet,
    wanted: [GroupSet; LEVELS],
    flying: GroupSet,
    flights: BTreeMap<FlightId, Flight>,
    next_flight: u64,
    parents: Vec<Parent>,
    source: SourceAccess,
    /// This host's number: by it hosts that start together fetch different pieces.
    spread: u64,
    asked_for_parents: Option<Duration>,
    bad: Vec<HostId>,
    /// When whoever leases was heard of last.
    led_at: Option<Duration>,
    /// Until when the peer chooses for itself whatever it hears.
    own_choice_until: Option<Duration>,
    leases: BTreeMap<u64, Leased>,
    /// Those that the next plan looks at: they are new, or something of them has landed.
    leases_to_plan: Vec<u64>,
    lease_ends: Vec<LeaseEnd>,
    /// Whether one has failed since anything came by one.
    leases_fail: bool,
    /// What was told to be wanted in any order, and whether that may have changed.
    any_order_told: GroupSet,
    any_order_changed: bool,
    /// Whether more is wanted than was told.
    any_order_goes_on: bool,
    hedges: Hedges,
    streams: Streams,
}

impl Conductor {
    /// A download of a task of which `have` is here already. `spread` is this host's number, as others know it: see
    /// [`spread_of`].
    pub fn new(length: Option<u64>, piece_level: u8, have: GroupSet, spread: u64) -> Self {
        Self {
            limits: Limits::default(),
            groups: length.map(groups_in),
            piece_level,
            have,
            wanted: Default::default(),
            flying: GroupSet::new(),
            flights: BTreeMap::new(),
            next_flight: 0,
            parents: Vec::new(),
            source: SourceAccess::Forbidden,
            spread,
            asked_for_parents: None,
            bad: Vec::new(),
            led_at: None,
            own_choice_until: None,
            leases: BTreeMap::new(),
            leases_to_plan: Vec::new(),
            lease_ends: Vec::new(),
            leases_fail: false,
            any_order_told: GroupSet::new(),
            any_order_changed: false,
            any_order_goes_on: false,
            hedges: Hedges::default(),
            streams: Streams::default(),
        }
    }

    /// Replaces the bounds.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The length became known.
    pub fn set_length(&mut self, length: u64) {
        let groups = groups_in(length);
        self.groups = Some(groups);
        let beyond = GroupRange::new(groups, u64::from(u32::MAX));
        for wanted in &mut self.wanted {
            let excess: Vec<GroupRange> = wanted.present_in(beyond).collect();
            excess.into_iter().for_each(|range| wanted.remove_range(range));
        }
        self.any_order_changed = true;
    }

    /// Somebody wants these groups; those that are here or known not to exist are passed over.
    pub fn want(&mut self, groups: GroupRange, priority: Priority) {
        let missing: Vec<GroupRange> = self.have.missing_in(self.existing(groups)).collect();
        for run in missing {
            self.wanted[priority as usize].insert_range(run);
            self.any_order_changed |= ANY_ORDER.contains(&priority);
        }
    }

    /// Those of some groups that the content has, as far as that is known.
    fn existing(&self, groups: GroupRange) -> GroupRange {
        match self.groups {
            Some(count) => groups.intersection(GroupRange::new(0, count)),
            None => groups,
        }
    }

    /// Somebody asks anew: what a seed could not get from the origin before, it may get now.
    pub fn forgive(&mut self, groups: GroupRange) {
        self.parents.iter_mut().for_each(|parent| parent.forgive(groups));
    }

    /// Somebody who is known may have signed these by now.
    pub fn are_vouched_for(&mut self, groups: GroupRange) {
        self.parents.iter_mut().for_each(|parent| parent.are_vouched_for(groups));
    }

    /// Nobody wants these groups any more.
    pub fn forget(&mut self, groups: GroupRange) {
        self.any_order_changed = true;
        self.is_wanted_no_more(groups);
    }

    fn is_wanted_no_more(&mut self, groups: GroupRange) {
        for wanted in &mut self.wanted {
            wanted.remove_range(groups);
        }
    }

    /// Nobody wants these groups any more, which no parent could get; whoever wants them next has them asked for
    /// anew.
    pub fn give_up(&mut self, groups: GroupRange) {
        self.forget(groups);
        self.forgive(groups);
    }

    /// Replaces the parents; flights to those that are gone are cancelled.
    pub fn set_parents(&mut self, offers: Vec<Offer>) -> Vec<Action> {
        let mut kept: Vec<Parent> = Vec::with_capacity(offers.len());
        for offer in offers {
            match self.parents.iter().position(|parent| parent.host == offer.host) {
                Some(at) => kept.push(self.parents.swap_remove(at).renewed(offer)),
                None => kept.push(Parent::new(offer)),
            }
        }
        let gone = std::mem::replace(&mut self.parents, kept);
        self.asked_for_parents = None;
        gone.into_iter().flat_map(|parent| self.cancel_from(parent.host)).collect()
    }

    /// The hosts that are parents now.
    pub fn parents(&self) -> impl Iterator<Item = HostId> + '_ {
        self.parents.iter().map(|parent| parent.host)
    }

    /// A parent says what more it holds.
    pub fn parent_holds(&mut self, host: HostId, groups: &[GroupRange]) {
        if let Some(parent) = self.parent_mut(host) {
            groups.iter().for_each(|range| parent.gained(*range));
        }
    }

    /// Whether and how the origin may be read from now on.
    pub fn set_source(&mut self, access: SourceAccess) {
        self.source = access;
        if access != SourceAccess::Forbidden {
            self.release();
        }
    }

    /// Whether and how the origin may be read.
    pub fn source(&self) -> SourceAccess {
        self.source
    }

    /// Groups came some other way than by a flight.
    pub fn here(&mut self, groups: GroupRange) {
        self.have.insert_range(groups);
        self.is_wanted_no_more(groups);
    }

    /// Groups arrived, were verified and kept; those of them that had not come before.
    pub fn arrived(
        &mut self,
        flight: FlightId,
        groups: GroupRange,
        now: Duration,
    ) -> Vec<GroupRange> {
        let news: Vec<GroupRange> = self.have.missing_in(groups).collect();
        self.note_arrival(flight, groups, now);
        self.streams_get_on(flight, &news);
        self.lease_brings(flight, &news);
        self.have.insert_range(groups);
        self.flying.remove_range(groups);
        self.is_wanted_no_more(groups);
        self.leases_fail &= !self.is_leased(flight);
        if let Some(parent) = self.passed(flight, groups) {
            parent.delivered(groups.count, now);
        }
        news
    }

    /// Groups that a flight found out nobody can bring: they are waited for no longer. More may follow them.
    pub fn void(&mut self, flight: FlightId, groups: GroupRange) {
        self.flying.remove_range(groups);
        self.forget(groups);
        if let Some(parent) = self.passed(flight, groups) {
            parent.landed(groups.count);
        }
    }

    /// A flight is past these groups; its parent, where it has one.
    fn passed(&mut self, flight: FlightId, groups: GroupRange) -> Option<&mut Parent> {
        let flight = self.flights.get_mut(&flight)?;
        if flight.rest.first <= groups.first {
            let end = flight.rest.end();
            let first = groups.end().min(end).max(flight.rest.first);
            flight.rest = GroupRange::new(first, end - first);
        }
        match flight.provider {
            Provider::Parent(host) => self.parent_mut(host),
            Provider::Source => None,
        }
    }

    /// A flight is over; what it did not bring is wanted again.
    pub fn ended(&mut self, id: FlightId, failure: Option<Failure>, now: Duration) {
        let Some(flight) = self.flights.remove(&id) else { return };
        let lease = flight.lease;
        let missing = self.landed(flight, failure, now);
        if let Some(lease) = lease {
            self.lease_landed(lease, id, failure.or(missing.then_some(Failure::NotHeld)));
        }
    }

    /// A flight is over for a reason of this host: nobody is to blame.
    pub fn given_up(&mut self, id: FlightId) {
        let _ = self.cancel(vec![id]);
    }

    /// Takes note of a flight that is over; whether something of it is still to come.
    fn landed(&mut self, flight: Flight, failure: Option<Failure>, now: Duration) -> bool {
        let rest = self.existing(flight.rest);
        self.comes_no_more(rest, &flight);
        let (asked, missing) = (flight.rest.count, rest.count);
        let Provider::Parent(host) = flight.provider else { return missing > 0 };
        let Some(parent) = self.parent_mut(host) else { return missing > 0 };
        // Also what lies beyond an end that became known meanwhile was asked for.
        parent.landed(asked);
        match failure {
            // Nobody asked it to fetch that.
            Some(Failure::NotHeld) if flight.is_beside => parent.lost(rest),
            Some(failure) => {
                let attempt = Attempt { began: flight.began, failure, groups: rest };
                let banned = parent.failed(attempt, now);
                if banned && !self.bad.contains(&host) {
                    self.bad.push(host);
                }
            }
            // It ended before the last group: it has no more, or the content has not.
            None if missing > 0 => parent.lacks(rest, now),
            None => parent.answered(flight.began, now),
        }
        missing > 0
    }

    /// Groups that turned out damaged on disk: no longer here. Those that were.
    pub fn lost(&mut self, groups: GroupRange) -> Vec<GroupRange> {
        let lost = self.have.present_in(groups).collect();
        self.have.remove_range(groups);
        self.any_order_told.remove_range(groups);
        lost
    }

    /// Whether anything wanted is still missing.
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.wanted.iter().all(GroupSet::is_empty)
    }

    /// The first of the groups that are wanted, and the end of the last.
    pub fn wanted_span(&self) -> Option<(u64, u64)> {
        let spans = self.wanted.iter().filter_map(GroupSet::span);
        let spans = spans.map(|span| (span.first, span.end()));
        spans.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
    }

    /// Number of flights under way.
    pub fn flights(&self) -> usize {
        self.flights.len()
    }

    /// Whether somebody is being asked who has not failed since they brought something last.
    pub fn is_promising(&self) -> bool {
        self.flights.values().any(|flight| match flight.provider {
            Provider::Source => true,
            Provider::Parent(_) if flight.lease.is_some() => !self.leases_fail,
            Provider::Parent(host) => {
                self.parents.iter().any(|parent| parent.host == host && !parent.is_failing())
            }
        })
    }

    /// Parents that are asked and have not answered, or failed since they brought something last.
    pub fn mute_parents(&self) -> Vec<HostId> {
        let is_mute = |parent: &&Parent| parent.is_failing() || parent.is_asked();
        self.parents.iter().filter(is_mute).map(|parent| parent.host).collect()
    }

    /// Wanted groups that are in no flight: nobody can or may deliver them now.
    pub fn stuck(&self) -> bool {
        self.wanted
            .iter()
            .any(|wanted| wanted.ranges().any(|run| self.flying.missing_in(run).next().is_some()))
    }

    /// Whether some parent may still deliver one of these groups.
    pub fn can_come(&self, groups: GroupRange) -> bool {
        let able = |parent: &Parent| {
            parent.has_prospects() && groups.iter().any(|group| parent.can_give(group))
        };
        self.parents.iter().any(able)
    }

    /// Whether nothing is wanted any more of what is under way.
    pub fn is_unwanted(&self) -> bool {
        !self.flights.is_empty() && self.wanted.iter().all(GroupSet::is_empty)
    }

    /// Gives up the requests of which nothing is wanted any more. One stream of everything goes on: it would have
    /// to begin anew.
    pub fn drop_unwanted(&mut self) -> Vec<Action> {
        let is_wanted = |flight: &Flight| {
            let is_stream =
                flight.provider == Provider::Source && self.source == SourceAccess::Sequential;
            is_stream || self.wanted.iter().any(|w| w.present_in(flight.rest).next().is_some())
        };
        let flights = self.flights.iter().filter(|(_, flight)| !is_wanted(flight));
        let unwanted = flights.map(|(id, _)| *id).collect();
        self.cancel(unwanted)
    }

    /// Whether a flight was asked beside another one: of who has it, and nobody who would fetch it.
    pub fn is_beside(&self, flight: FlightId) -> bool {
        self.flights.get(&flight).is_some_and(|flight| flight.is_beside)
    }

    /// Gives up every request.
    pub fn drop_all(&mut self) -> Vec<Action> {
        let all = self.flights.keys().copied().collect();
        self.cancel(all)
    }

    fn cancel(&mut self, flights: Vec<FlightId>) -> Vec<Action> {
        for id in &flights {
            let Some(flight) = self.flights.remove(id) else { continue };
            if let Some(lease) = flight.lease {
                self.lease_landed(lease, *id, None);
            }
            self.comes_no_more(flight.rest, &flight);
            if let Provider::Parent(host) = flight.provider
                && let Some(parent) = self.parent_mut(host)
            {
                parent.landed(flight.rest.count);
            }
        }
        flights.into_iter().map(Action::Cancel).collect()
    }

    fn parent_mut(&mut self, host: HostId) -> Option<&mut Parent> {
        self.parents.iter_mut().find(|parent| parent.host == host)
    }

    fn cancel_from(&mut self, host: HostId) -> Vec<Action> {
        let ids: Vec<FlightId> = self
            .flights
            .iter()
            .filter(|(_, flight)| {
                flight.provider == Provider::Parent(host) && flight.lease.is_none()
            })
            .map(|(id, _)| *id)
            .collect();
        for id in &ids {
            self.ended(*id, None, Duration::ZERO);
        }
        ids.into_iter().map(Action::Cancel).collect()
    }

    fn take_off(&mut self, provider: Provider, rest: GroupRange, now: Duration) -> FlightId {
        let id = FlightId(self.next_flight);
        self.next_flight += 1;
        if !Invariant::SourcePaysOnce.is_broken() {
            self.flying.insert_range(rest);
        }
        let mut asked = None;
        if let Provider::Parent(host) = provider
            && let Some(parent) = self.parent_mut(host)
        {
            asked = Some(parent.took(rest, now));
        }
        let flight = Flight {
            provider,
            rest,
            began: now,
            lease: None,
            came: None,
            asked,
            awaited: None,
            race: None,
            was_in_race: false,
            is_beside: false,
        };
        self.flights.insert(id, flight);
        id
    }
}
