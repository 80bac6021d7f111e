//! What is known of one parent: what it holds, how fast it is, whether it may be asked now.

use std::time::Duration;

use dfs_model::{GROUP_BYTES, GroupRange, GroupSet, HostId};

/// A host that may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Who it is.
    pub host: HostId,
    /// Whether it goes back to source for what it lacks.
    pub fetches: bool,
    /// Where it is.
    pub place: Place,
}

/// Where somebody is, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the same data centre, as far as that is known.
    Here,
    /// In another one: the way there is others' too.
    Elsewhere,
}

/// Why a flight did not bring what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It does not hold the groups after all.
    NotHeld,
    /// It has no free slot.
    Busy,
    /// The connection broke or could not be made.
    Disconnected,
    /// Nothing came in time.
    Timeout,
    /// The bytes did not verify: never asked again.
    BadDigest,
    /// It cannot get the groups from the origin.
    OriginFailed,
    /// The origin does not have the first of them any more: nobody is to blame, the others may come.
    Void,
    /// It has the groups, and nobody known here vouches for them (yet): a reserve may have signed them for a place that
    /// was cut off.
    Unvouched,
    /// Anything else.
    Other,
}

/// Rate assumed of a parent that has not delivered yet, in bytes per second.
const FIRST_GUESS: f64 = 50e6;

/// Time assumed between asking a parent and the first that comes: little, so that each is tried.
const FIRST_TRIP: Duration = Duration::from_millis(1);

/// Extra cost of asking a seed for what it must fetch itself, until one such request has been measured.
const SOURCE_TRIP: Duration = Duration::from_millis(20);

/// A seed serves everybody: until it is known how long that takes its time counts so many times a neighbour's.
const SEED_FACTOR: f64 = 2.0;

/// After so long what a parent took says nothing of what it takes: it may have woken, or others have left it.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Rates are not measured over less.
const SHORTEST_MEASURE: Duration = Duration::from_millis(5);

/// What a parent sends in this time is asked of it in one request.
const RUN: Duration = Duration::from_millis(20);

/// Groups asked of a parent at first, in any order, where others could bring them too; twice as many as were asked for
/// with each round that came within [`SOON`] beside the way there and back, half as many where that took longer: what
/// waits at one parent could have come from another one meanwhile.
const FIRST_AHEAD: u64 = 4;
const LEAST_AHEAD: u64 = 2;
const MOST_AHEAD: u64 = 1024;
const SOON: Duration = Duration::from_millis(300);

/// Pause after the first failure; doubles with each further one up to [`LONGEST_PAUSE`], which is short
/// against the patience of a node: one that comes back is found before the origin is burdened.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Somebody in this place who sends so many times slower than one elsewhere is waited for no more.
const MUCH_SLOWER: f64 = 8.0;

/// Whoever has come to hold nothing more for so long fetches nothing.
const GETS_ON: Duration = Duration::from_secs(2);

/// How long what nobody known has signed is not asked for again, but where somebody is known who was not.
const UNVOUCHED_FOR: Duration = Duration::from_secs(10);

/// Failures in a row after which other parents are asked for.
const BAD_AFTER: u32 = 3;

/// What was asked of a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trip {
    /// It has it.
    There,
    /// It must fetch it first.
    Origin,
}

/// How a parent was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) trip: Trip,
    /// Whether it had nothing else to do: the first that comes tells how long it takes.
    pub(super) was_idle: bool,
}

/// How long it takes from asking to the first that comes.
#[derive(Debug, Default, Clone, Copy)]
struct Trips {
    mean: Duration,
    /// When that was known last.
    at: Option<Duration>,
}

impl Trips {
    /// A moving average, as long as it is remembered.
    fn see(&mut self, took: Duration, now: Duration) {
        self.mean = self.known(now).map_or(took, |mean| mean * 3 / 4 + took / 4);
        self.at = Some(now);
    }

    /// It takes longer than this, and than was thought by far.
    fn exceeds(&mut self, took: Duration, now: Duration) {
        self.mean = self.known(now).map_or(took, |mean| took.max(2 * mean).min(REMEMBERED));
        self.at = Some(now);
    }

    fn known(&self, now: Duration) -> Option<Duration> {
        let at = self.at?;
        (now < at + REMEMBERED).then_some(self.mean)
    }
}

#[derive(Debug)]
pub(super) struct Parent {
    pub(super) host: HostId,
    fetches: bool,
    place: Place,
    held: GroupSet,
    /// Whether it has come to hold more since that was looked at, and when it had last.
    has_gained: bool,
    gained_at: Option<Duration>,
    /// Groups that it said it cannot get.
    refused: GroupSet,
    /// Groups that it has, signed by nobody known here, and until when it is not asked for them.
    unvouched: GroupSet,
    unvouched_until: Duration,
    /// Whether there were such since it brought something last.
    is_unvouched: bool,
    outstanding: u64,
    ahead: u64,
    /// The most that was outstanding since that was changed.
    most_outstanding: u64,
    /// When it was.
    ahead_at: Duration,
    bytes_per_second: f64,
    /// Whether that was measured.
    is_measured: bool,
    /// Groups that came since `measured_at`; none before the first comes of what it was asked when it was idle.
    unmeasured: u64,
    measured_at: Option<Duration>,
    /// When the last of them came, and when it was asked last that had nothing else to do.
    came_at: Duration,
    asked_at: Duration,
    trips: Trips,
    /// The same of what it had to fetch.
    fetches_in: Trips,
    /// The least that either ever took: hardly more than the way.
    way: Option<Duration>,
    failures: u32,
    /// When the last of them was counted.
    failed_at: Option<Duration>,
    paused_until: Duration,
    never: bool,
}

/// An attempt that failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) began: Duration,
    pub(super) failure: Failure,
    /// What it did not bring.
    pub(super) groups: GroupRange,
}

impl Parent {
    pub(super) fn new(offer: Offer) -> Self {
        Self {
            host: offer.host,
            fetches: offer.fetches,
            place: offer.place,
            held: GroupSet::new(),
            has_gained: false,
            gained_at: None,
            refused: GroupSet::new(),
            unvouched: GroupSet::new(),
            unvouched_until: Duration::ZERO,
            is_unvouched: false,
            outstanding: 0,
            ahead: FIRST_AHEAD,
            most_outstanding: 0,
            ahead_at: Duration::ZERO,
            bytes_per_second: FIRST_GUESS,
            is_measured: false,
            unmeasured: 0,
            measured_at: None,
            came_at: Duration::ZERO,
            asked_at: Duration::ZERO,
            trips: Trips::default(),
            fetches_in: Trips::default(),
            way: None,
            failures: 0,
            failed_at: None,
            paused_until: Duration::ZERO,
            never: false,
        }
    }

    pub(super) fn renewed(mut self, offer: Offer) -> Self {
        (self.fetches, self.place) = (offer.fetches, offer.place);
        self
    }

    pub(super) fn gained(&mut self, groups: GroupRange) {
        self.has_gained |= !self.held.contains_all(groups);
        self.held.insert_range(groups);
        self.refused.remove_range(groups);
    }

    pub(super) fn note_gain(&mut self, now: Duration) {
        if std::mem::take(&mut self.has_gained) {
            self.gained_at = Some(now);
        }
    }

    /// Whether it has come to hold more of late, as far as that was heard of.
    pub(super) fn gets_on(&self, now: Duration) -> bool {
        self.gained_at.is_some_and(|at| now < at + GETS_ON)
    }

    /// Whether something of what it was asked for has come of late, if it was asked for anything.
    pub(super) fn is_moving(&self, now: Duration) -> bool {
        let since = self.came_at.max(self.asked_at);
        self.outstanding == 0 || now.saturating_sub(since) < SOON + self.way.unwrap_or_default()
    }

    pub(super) fn holds(&self, group: u64) -> bool {
        self.held.contains(group)
    }

    pub(super) fn can_give(&self, group: u64) -> bool {
        self.held.contains(group) || (self.fetches && !self.refused.contains(group))
    }

    /// Whether it lacks any of so many groups and does not fetch them itself: others bring it what it gives on.
    pub(super) fn takes_part(&self, groups: u64) -> bool {
        !self.never && !self.fetches && !self.held.contains_all(GroupRange::new(0, groups))
    }

    /// The first of a run that it has.
    pub(super) fn first_held(&self, run: GroupRange) -> Option<u64> {
        Some(self.held.present_in(run).next()?.first)
    }

    /// The first of a run that it can give.
    pub(super) fn first_given(&self, run: GroupRange) -> Option<u64> {
        run.iter().find(|group| self.can_give(*group))
    }

    /// Whether it is in this place, works, and is not known to be far slower than `other`, which is not here.
    pub(super) fn is_nearer_than(&self, other: &Self, now: Duration) -> bool {
        let works = self.may_be_asked(now) && !self.is_failing() && self.is_moving(now);
        let is_near = (self.place, other.place) == (Place::Here, Place::Elsewhere);
        let is_slow =
            other.is_measured && self.bytes_per_second * MUCH_SLOWER < other.bytes_per_second;
        is_near && works && !is_slow
    }

    pub(super) fn is_elsewhere(&self) -> bool {
        self.place == Place::Elsewhere
    }

    /// Adds what it has.
    pub(super) fn add_held(&self, to: &mut GroupSet) {
        to.insert_all(&self.held);
    }

    pub(super) fn may_be_asked(&self, now: Duration) -> bool {
        !self.never && now >= self.paused_until
    }

    /// Whether it could be asked at some later time.
    pub(super) fn has_prospects(&self) -> bool {
        !self.never
    }

    pub(super) fn room(&self, window: u64) -> u64 {
        window.saturating_sub(self.outstanding)
    }

    /// Groups that it may be asked for in any order, where others could be asked too.
    pub(super) fn ahead(&self) -> u64 {
        self.ahead
    }

    /// It has brought all of a request that began then.
    pub(super) fn answered(&mut self, began: Duration, now: Duration) {
        if began < self.ahead_at {
            return;
        }
        let is_soon = now.saturating_sub(began) <= SOON + self.way.unwrap_or_default();
        let ahead =
            if is_soon { self.ahead.max(2 * self.most_outstanding) } else { self.ahead / 2 };
        self.ahead = ahead.clamp(LEAST_AHEAD, MOST_AHEAD);
        (self.most_outstanding, self.ahead_at) = (self.outstanding, now);
    }

    /// How long until it would have sent `groups` more, were they asked for now.
    pub(super) fn expected(&self, first: u64, groups: u64, now: Duration) -> Duration {
        let queue = self.takes(self.outstanding + groups);
        let known = self.trips.known(now);
        let there = known.unwrap_or(FIRST_TRIP) + queue;
        let there = match known {
            None if self.fetches => there.mul_f64(SEED_FACTOR),
            _ => there,
        };
        match self.fetches_in.known(now) {
            _ if self.held.contains(first) => there,
            Some(fetches_in) => fetches_in + queue,
            None => there + SOURCE_TRIP,
        }
    }

    /// How long it takes to send so much.
    fn takes(&self, groups: u64) -> Duration {
        Duration::from_secs_f64((groups * GROUP_BYTES) as f64 / self.bytes_per_second.max(1.0))
    }

    /// It is asked for these groups.
    pub(super) fn took(&mut self, groups: GroupRange, now: Duration) -> Asked {
        let was_idle = self.outstanding == 0;
        if was_idle {
            self.asked_at = now;
            // What it was idle for is not its rate, nor is the way there.
            (self.unmeasured, self.measured_at) = (0, None);
        }
        self.outstanding += groups.count;
        self.most_outstanding = self.most_outstanding.max(self.outstanding);
        let trip = if self.held.contains(groups.first) { Trip::There } else { Trip::Origin };
        Asked { trip, was_idle }
    }

    /// The first of what it was asked when it was idle has come, so many groups, after so long.
    pub(super) fn answers_in(&mut self, trip: Trip, groups: u64, took: Duration, now: Duration) {
        let took = took.saturating_sub(self.takes(groups));
        match trip {
            Trip::There => self.trips.see(took, now),
            Trip::Origin => self.fetches_in.see(took, now),
        }
        self.way = Some(self.way.map_or(took, |way| way.min(took)));
    }

    /// Nothing has come for so long of what it was asked and has, and another one was faster.
    pub(super) fn is_slower_than(&mut self, took: Duration, now: Duration) {
        self.trips.exceeds(took, now);
    }

    pub(super) fn landed(&mut self, groups: u64) {
        self.outstanding = self.outstanding.saturating_sub(groups);
    }

    pub(super) fn delivered(&mut self, groups: u64, now: Duration) {
        self.landed(groups);
        (self.failures, self.is_unvouched) = (0, false);
        self.came_at = now;
        match self.measured_at {
            Some(_) => self.unmeasured += groups,
            None => self.measured_at = Some(now),
        }
    }

    /// Takes a measurement, once all that came at the same time is counted: what came since the last one, over
    /// the time that it took, enters a moving average.
    pub(super) fn measure(&mut self) {
        let took = self.measured_at.map_or(Duration::ZERO, |at| self.came_at.saturating_sub(at));
        if self.unmeasured == 0 || took < SHORTEST_MEASURE {
            return;
        }
        let rate = (self.unmeasured * GROUP_BYTES) as f64 / took.as_secs_f64();
        self.bytes_per_second = self.bytes_per_second * 0.75 + rate * 0.25;
        self.is_measured = true;
        (self.unmeasured, self.measured_at) = (0, Some(self.came_at));
    }

    /// Groups to ask for in one bulk request, a power of two: enough that requests do not matter beside the
    /// bytes, few enough that others get to hear of them soon.
    pub(super) fn run(&self) -> u64 {
        let groups = (self.bytes_per_second * RUN.as_secs_f64()) as u64 / GROUP_BYTES;
        1 << groups.max(1).ilog2()
    }

    /// It does not have these groups: one that fetches is asked again after a while, another one once it says
    /// that it got them.
    pub(super) fn lacks(&mut self, groups: GroupRange, now: Duration) {
        self.held.remove_range(groups);
        if self.fetches {
            self.paused_until = self.paused_until.max(now + FIRST_PAUSE);
        } else {
            self.refused.insert_range(groups);
        }
    }

    /// It has these groups no more; whether it would fetch them it was not asked.
    pub(super) fn lost(&mut self, groups: GroupRange) {
        self.held.remove_range(groups);
    }

    /// What it could not get before, it may get now.
    pub(super) fn forgive(&mut self, groups: GroupRange) {
        if self.fetches {
            self.refused.remove_range(groups);
        }
    }

    /// Somebody who is known may have signed these by now.
    pub(super) fn are_vouched_for(&mut self, groups: GroupRange) {
        let anew: Vec<GroupRange> = self.unvouched.present_in(groups).collect();
        for run in anew {
            self.unvouched.remove_range(run);
            self.held.insert_range(run);
        }
    }

    /// And in any case after a while.
    pub(super) fn tries_unvouched(&mut self, now: Duration) {
        if !self.unvouched.is_empty() && now >= self.unvouched_until {
            self.are_vouched_for(GroupRange::new(0, u64::MAX));
        }
    }

    /// Whether it is to bring something now.
    pub(super) fn is_asked(&self) -> bool {
        self.outstanding > 0
    }

    /// Whether it has failed since it brought something last.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0 || self.is_unvouched
    }

    /// Records a failure; whether the parent has become a bad one.
    pub(super) fn failed(&mut self, attempt: Attempt, now: Duration) -> bool {
        match attempt.failure {
            Failure::NotHeld => {
                self.lacks(attempt.groups, now);
                if !self.fetches {
                    return false;
                }
                // A seed that cannot get what it should is to be asked again, not for ever.
            }
            Failure::Unvouched if !self.fetches => {
                self.held.remove_range(attempt.groups);
                self.unvouched.insert_range(attempt.groups);
                self.unvouched_until = now + UNVOUCHED_FOR;
                self.is_unvouched = true;
                return false;
            }
            Failure::Void => return false,
            Failure::OriginFailed => {
                self.refused.insert_range(attempt.groups);
                return false;
            }
            Failure::BadDigest => {
                self.never = true;
                return true;
            }
            Failure::Busy => {
                self.paused_until = self.paused_until.max(now + FIRST_PAUSE);
                return false;
            }
            Failure::Disconnected | Failure::Timeout | Failure::Unvouched | Failure::Other => {}
        }
        // Whatever was under way when a connection broke failed of one cause.
        if self.failed_at.is_none_or(|at| attempt.began > at) {
            self.failed_at = Some(now);
            self.failures = self.failures.saturating_add(1);
            let pause = FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(10) - 1);
            self.paused_until = now + pause.min(LONGEST_PAUSE);
        }
        self.failures >= BAD_AFTER
    }
}
