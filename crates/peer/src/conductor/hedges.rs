//! Hedges: what a blocked reader waits for too long is asked of a second holder as well, and who is first wins.
//!
//! Too long is what nineteen of twenty of the last requests of blocked readers did not take from parents that had what
//! was asked, within [`LEAST_DELAY`] and [`MOST_DELAY`]. A second one is asked only where it holds it: what must come
//! from the origin is not fetched twice. As long as neither of two has brought anything there is no third; then either may
//! be too long in its turn. All hedges of a task together ask for no more than a twentieth of what blocked readers got,
//! after [`MOST_CREDIT`]; what is asked of a second one instead, as the first has brought nothing, does not count.

use std::collections::VecDeque;
use std::time::Duration;

use dfs_model::{GroupRange, HostId, Invariant, Priority};

use super::parents::{Asked, Parent, Trip};
use super::{Action, Conductor, Flight, FlightId, Provider};

/// However soon others answer.
const LEAST_DELAY: Duration = Duration::from_millis(20);

/// However late.
const MOST_DELAY: Duration = Duration::from_secs(1);

/// As long as it is not known what requests take.
const FIRST_DELAY: Duration = Duration::from_millis(200);

/// Waits from which that is known, and how many are remembered.
const FEW_WAITS: usize = 20;
const MOST_WAITS: usize = 128;

/// A hedge for a group costs as many groups that blocked readers got.
const SHARE: u64 = 20;

/// Groups that may be asked for twice when none has been for long.
const MOST_CREDIT: u64 = 64;

/// What hedges did since it was asked last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HedgeCount {
    /// Requests that were hedged.
    pub asked: u64,
    /// Of which the second one was the first to bring something.
    pub won: u64,
}

/// What a task's readers have waited, and how much may be asked for twice.
#[derive(Debug)]
pub(super) struct Hedges {
    /// The latest last.
    waits: VecDeque<Duration>,
    delay: Duration,
    /// In parts of a group.
    credit: u64,
    count: HedgeCount,
    /// Those of two that were not the first to bring something, since the last plan.
    losers: Vec<Lost>,
    /// Whether a reader waited for any flight at the last plan: else there is nothing to be looked for.
    is_any_awaited: bool,
}

/// One of two flights that are to bring the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    First,
    Second,
}

/// That two flights are to bring the same, as one of them sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Race {
    other: FlightId,
    half: Half,
    /// Groups that the second one was asked for.
    groups: u64,
}

/// One of two, and the other one, which was the first to bring something.
#[derive(Debug)]
struct Lost {
    flight: FlightId,
    to: FlightId,
    /// What that cost.
    groups: u64,
}

impl Default for Hedges {
    fn default() -> Self {
        Self {
            waits: VecDeque::new(),
            delay: FIRST_DELAY,
            credit: MOST_CREDIT * SHARE,
            count: HedgeCount::default(),
            losers: Vec::new(),
            is_any_awaited: false,
        }
    }
}

impl Hedges {
    /// A blocked reader has waited for a parent.
    fn waited(&mut self, wait: Duration) {
        if self.waits.len() >= MOST_WAITS {
            self.waits.pop_front();
        }
        self.waits.push_back(wait);
        if self.waits.len() < FEW_WAITS {
            return;
        }
        let mut waits: Vec<Duration> = self.waits.iter().copied().collect();
        let rank = waits.len() * 19 / 20;
        let (_, late, _) = waits.select_nth_unstable(rank);
        self.delay = (*late).clamp(LEAST_DELAY, MOST_DELAY);
    }

    fn earn(&mut self, groups: u64) {
        self.credit = self.credit.saturating_add(groups).min(MOST_CREDIT * SHARE);
    }

    fn affords(&self, groups: u64) -> bool {
        self.credit >= groups * SHARE
    }
}

impl Conductor {
    /// What hedges did since this was asked last.
    pub fn take_hedges(&mut self) -> HedgeCount {
        std::mem::take(&mut self.hedges.count)
    }

    /// When the next plan may have something to hedge, if nothing comes until then.
    pub fn next_hedge(&self, now: Duration) -> Option<Duration> {
        if !self.hedges.is_any_awaited {
            return None;
        }
        let due = self.flights.values().filter_map(|flight| flight.hedged_at(self.hedges.delay));
        due.filter(|due| *due > now).min()
    }

    /// Something of a flight has come: what that says of its parent, of what readers wait, and of the other one of two.
    pub(super) fn note_arrival(&mut self, id: FlightId, groups: GroupRange, now: Duration) {
        let demanded: u64 = self.demanded(groups).map(|run| run.count).sum();
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let is_first = flight.came.is_none();
        flight.came = Some(now);
        let Provider::Parent(host) = flight.provider else { return };
        let (began, waited, asked) = (flight.began, flight.waited(now), flight.asked);
        let race = flight.race.take();
        self.hedges.earn(demanded);
        if is_first {
            waited.into_iter().for_each(|wait| self.hedges.waited(wait));
            if let Some((asked, parent)) = asked.zip(self.parent_mut(host))
                && asked.was_idle
            {
                parent.answers_in(asked.trip, groups.count, now.saturating_sub(began), now);
            }
        }
        if let Some(race) = race {
            self.is_ahead_of(id, race, now);
        }
    }

    /// One of two is the first to bring something: the other one has lost.
    fn is_ahead_of(&mut self, winner: FlightId, race: Race, now: Duration) {
        let Race { other, half, groups } = race;
        let Some(flight) = self.flights.get_mut(&other) else { return };
        flight.race = None;
        let (began, provider) = (flight.began, flight.provider);
        let waited = flight.waited(now);
        self.hedges.losers.push(Lost { flight: other, to: winner, groups });
        if half == Half::First {
            return;
        }
        self.hedges.count.won += 1;
        let Some(wait) = waited else { return };
        self.hedges.waited(wait);
        if let Provider::Parent(host) = provider
            && let Some(parent) = self.parent_mut(host)
        {
            parent.is_slower_than(now.saturating_sub(began), now);
        }
    }

    /// Those of some groups that blocked readers wait for.
    fn demanded(&self, groups: GroupRange) -> impl Iterator<Item = GroupRange> {
        self.wanted[Priority::Demand as usize].present_in(groups)
    }

    /// A flight brings these no more; others still may, where it was ever one of two.
    pub(super) fn comes_no_more(&mut self, rest: GroupRange, of: &Flight) {
        self.flying.remove_range(rest);
        if let Some(other) = of.race.and_then(|race| self.flights.get_mut(&race.other)) {
            other.race = None;
        }
        if !of.was_in_race || Invariant::SourcePaysOnce.is_broken() {
            return;
        }
        for flight in self.flights.values_mut() {
            let both = flight.rest.intersection(rest);
            self.have.missing_in(both).for_each(|run| self.flying.insert_range(run));
        }
    }

    /// Gives up whoever lost to the other one of two: the second one, and a first one that brings nothing more, or has
    /// brought nothing at all since it lost last. What else that was to bring is asked of others. What a lease is to bring
    /// whoever leases takes back.
    pub(super) fn settle_hedges(&mut self, actions: &mut Vec<Action>) {
        for Lost { flight: id, to, groups } in std::mem::take(&mut self.hedges.losers) {
            let covered = self.flights.get(&to).map_or(GroupRange::new(0, 0), |flight| flight.rest);
            let Some(flight) = self.flights.get_mut(&id) else { continue };
            let brings_more = self.wanted.iter().any(|wanted| {
                wanted.present_in(flight.rest).any(|run| run.intersection(covered) != run)
            });
            let is_mute = flight.came.is_none() && flight.lease.is_none();
            if is_mute && !flight.is_beside {
                // It was asked of another one instead: nothing of it comes twice.
                self.hedges.earn(groups * SHARE);
            }
            if flight.is_beside || !brings_more || is_mute {
                actions.extend(self.cancel(vec![id]));
            } else {
                // What comes next of it tells nothing of the way.
                flight.came = None;
                flight.asked = flight.asked.map(|asked| Asked { was_idle: false, ..asked });
            }
        }
    }

    /// Asks second holders for what blocked readers wait for too long.
    pub(super) fn plan_hedges(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let demand = &self.wanted[Priority::Demand as usize];
        if demand.is_empty() && !self.hedges.is_any_awaited {
            return;
        }
        self.hedges.is_any_awaited = false;
        for flight in self.flights.values_mut() {
            let is_awaited = demand.present_in(flight.rest).next().is_some();
            flight.awaited = is_awaited.then(|| flight.awaited.unwrap_or(now));
            self.hedges.is_any_awaited |= is_awaited;
        }
        let delay = self.hedges.delay;
        let is_late = |flight: &Flight| flight.hedged_at(delay).is_some_and(|due| due <= now);
        let late: Vec<FlightId> =
            self.flights.iter().filter(|(_, flight)| is_late(flight)).map(|(id, _)| *id).collect();
        for id in &late {
            actions.extend(self.hedge(*id, &late, now));
        }
    }

    fn hedge(&mut self, id: FlightId, late: &[FlightId], now: Duration) -> Option<Action> {
        let flight = self.flights.get(&id)?;
        let in_time = |run: GroupRange| {
            let others = self.flights.iter().filter(|(other, _)| !late.contains(other));
            others.map(|(_, other)| other.rest).find(|rest| !rest.intersection(run).is_empty())
        };
        let awaited = self.demanded(flight.rest).find(|run| in_time(*run).is_none())?;
        let (parent, count) = self.second_best(awaited, now)?;
        if !self.hedges.affords(count) {
            return None;
        }
        self.hedges.credit -= count * SHARE;
        self.hedges.count.asked += 1;
        let groups = GroupRange::new(awaited.first, count);
        let second = self.take_off(Provider::Parent(parent), groups, now);
        for (id, other, half) in [(id, second, Half::First), (second, id, Half::Second)] {
            if let Some(flight) = self.flights.get_mut(&id) {
                let race = Race { other, half, groups: groups.count };
                (flight.race, flight.was_in_race) = (Some(race), true);
                flight.is_beside = half == Half::Second;
                flight.awaited.get_or_insert(now);
            }
        }
        let (flight, priority, beside) = (second, Priority::Demand, Some(id));
        Some(Action::Request { flight, parent, groups, priority, beside })
    }

    /// Who has the first of a run and is expected to send it the soonest of those who are not asked for it, and how much
    /// it has.
    fn second_best(&self, run: GroupRange, now: Duration) -> Option<(HostId, u64)> {
        let asked = self.flights.values().filter(|flight| flight.rest.contains(run.first));
        let asked: Vec<Provider> = asked.map(|flight| flight.provider).collect();
        let limit = run.count.min(self.limits.request);
        let window = self.limits.parent_window * 2;
        let able = self.parents.iter().filter(|parent| {
            let has_room = parent.may_be_asked(now) && parent.room(window) > 0;
            let is_asked = asked.contains(&Provider::Parent(parent.host));
            !is_asked && parent.holds(run.first) && has_room
        });
        let parent: &Parent = self.soonest(able, run.first, limit, now)?;
        let groups = GroupRange::new(run.first, limit.min(parent.room(window)));
        let count = groups.iter().take_while(|group| parent.holds(*group)).count() as u64;
        Some((parent.host, count))
    }
}

impl Flight {
    /// How long a reader has waited for it, where it comes from who has it: what the origin takes is no measure of others.
    fn waited(&self, now: Duration) -> Option<Duration> {
        let is_there = self.asked.is_none_or(|asked| asked.trip == Trip::There);
        let since = self.awaited.filter(|_| is_there || self.lease.is_some())?;
        Some(now.saturating_sub(since))
    }

    /// When a reader has waited for it for too long; none where nobody waits, or another one is to bring it too.
    fn hedged_at(&self, delay: Duration) -> Option<Duration> {
        let awaited = self.awaited.filter(|_| self.race.is_none())?;
        matches!(self.provider, Provider::Parent(_)).then_some(())?;
        Some(self.came.map_or(awaited, |came| came.max(awaited)) + delay)
    }
}
