//! Hedges: what a blocked reader waits for too long is asked of a second holder as well, and who is first wins.
//!
//! Too long is what nineteen of twenty of the last requests of blocked readers did not take from parents that had what
//! was asked, within [`LEAST_DELAY`] and [`MOST_DELAY`]. A second one is asked only where it holds it: what must come
//! from the origin is not fetched twice. A request is hedged once, and all hedges of a task together ask for no more
//! than a twentieth of what blocked readers got, after [`MOST_CREDIT`].

use std::collections::VecDeque;
use std::time::Duration;

use dfs_model::{GroupRange, HostId, Invariant, Priority};

use super::parents::{Parent, Trip};
use super::{Action, Conductor, FlightId, Provider};

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
    losers: Vec<FlightId>,
    /// Whether a reader waited for any flight at the last plan: else there is nothing to be looked for.
    is_any_awaited: bool,
}

/// One of two flights that are to bring the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    First,
    Second,
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
        let (began, trip, awaited) = (flight.began, flight.trip, flight.awaited);
        let is_ahead = std::mem::take(&mut flight.is_open);
        let race = flight.twin.zip(flight.hedged).filter(|_| is_ahead);
        self.hedges.earn(demanded);
        if is_first {
            if let Some(since) = awaited.filter(|_| trip != Some(Trip::Origin)) {
                self.hedges.waited(now.saturating_sub(since));
            }
            if let Some((trip, parent)) = trip.zip(self.parent_mut(host)) {
                parent.answers_in(trip, groups.count, now.saturating_sub(began), now);
            }
        }
        if let Some((twin, half)) = race {
            self.is_ahead_of(twin, half, now);
        }
    }

    /// One of two is the first to bring something: the other one has lost.
    fn is_ahead_of(&mut self, other: FlightId, half: Half, now: Duration) {
        let Some(flight) = self.flights.get_mut(&other) else { return };
        flight.is_open = false;
        let (began, provider) = (flight.began, flight.provider);
        let since = flight.awaited.unwrap_or(began);
        self.hedges.losers.push(other);
        if half == Half::First {
            return;
        }
        self.hedges.count.won += 1;
        self.hedges.waited(now.saturating_sub(since));
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

    /// A flight brings these no more; the other one of the two still may.
    pub(super) fn comes_no_more(&mut self, rest: GroupRange, twin: Option<FlightId>) {
        self.flying.remove_range(rest);
        let Some(twin) = twin.and_then(|twin| self.flights.get_mut(&twin)) else { return };
        twin.twin = None;
        if !Invariant::SourcePaysOnce.is_broken() {
            let runs: Vec<GroupRange> = self.have.missing_in(twin.rest).collect();
            runs.into_iter().for_each(|run| self.flying.insert_range(run));
        }
    }

    /// Gives up whoever lost to the other one of two, unless it is to bring something else too.
    pub(super) fn settle_hedges(&mut self, actions: &mut Vec<Action>) {
        for id in std::mem::take(&mut self.hedges.losers) {
            let Some(flight) = self.flights.get(&id) else { continue };
            let twin = flight.twin.and_then(|twin| self.flights.get(&twin));
            let covered = twin.map_or(GroupRange::new(0, 0), |twin| twin.rest);
            let wanted = self.wanted.iter().flat_map(|wanted| wanted.present_in(flight.rest));
            let brings_more = wanted.into_iter().any(|run| run.intersection(covered) != run);
            if flight.hedged == Some(Half::Second) || !brings_more {
                actions.extend(self.cancel(vec![id]));
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
        let late = self
            .flights
            .iter()
            .filter(|(_, flight)| flight.hedged_at(delay).is_some_and(|due| due <= now));
        let mut late: Vec<FlightId> = late.map(|(id, _)| *id).collect();
        late.sort_unstable();
        for id in late {
            actions.extend(self.hedge(id, now));
        }
    }

    fn hedge(&mut self, id: FlightId, now: Duration) -> Option<Action> {
        let flight = self.flights.get(&id)?;
        let Provider::Parent(slow) = flight.provider else { return None };
        let awaited = self.demanded(flight.rest).next()?;
        let (parent, count) = self.second_best(awaited, slow, now)?;
        if !self.hedges.affords(count) {
            return None;
        }
        self.hedges.credit -= count * SHARE;
        self.hedges.count.asked += 1;
        let groups = GroupRange::new(awaited.first, count);
        let second = self.take_off(Provider::Parent(parent), groups, now);
        for (id, twin, half) in [(id, second, Half::First), (second, id, Half::Second)] {
            if let Some(flight) = self.flights.get_mut(&id) {
                (flight.twin, flight.hedged, flight.is_open) = (Some(twin), Some(half), true);
                flight.awaited.get_or_insert(now);
            }
        }
        let (flight, priority, beside) = (second, Priority::Demand, Some(id));
        Some(Action::Request { flight, parent, groups, priority, beside })
    }

    /// Who has the first of a run and is expected to send it the soonest beside one that does not, and how much it has.
    fn second_best(&self, run: GroupRange, slow: HostId, now: Duration) -> Option<(HostId, u64)> {
        let limit = run.count.min(self.limits.request);
        let window = self.limits.parent_window * 2;
        let able = self.parents.iter().filter(|parent| {
            let has_room = parent.may_be_asked(now) && parent.room(window) > 0;
            parent.host != slow && parent.holds(run.first) && has_room
        });
        let parent: &Parent = self.soonest(able, run.first, limit, now)?;
        let groups = GroupRange::new(run.first, limit.min(parent.room(window)));
        let count = groups.iter().take_while(|group| parent.holds(*group)).count() as u64;
        Some((parent.host, count))
    }
}

impl super::Flight {
    /// When a reader has waited for it for too long; none where nobody waits, or it is hedged.
    fn hedged_at(&self, delay: Duration) -> Option<Duration> {
        let awaited = self.awaited.filter(|_| self.hedged.is_none())?;
        matches!(self.provider, Provider::Parent(_)).then_some(())?;
        Some(self.came.map_or(awaited, |came| came.max(awaited)) + delay)
    }
}
