//! The choice itself: turns what is wanted and who offers it into actions.

use std::time::Duration;

use dfs_model::{GroupRange, GroupSet, HostId, Priority};

use super::parents::Parent;
use super::{Action, Conductor, Flight, Provider, SourceAccess};

/// Missing runs looked at before one is chosen for a bulk request.
const CANDIDATES: usize = 32;

/// Holders of whom the one expected to be the first is asked in order.
const CHOICES: usize = 4;

/// Parts into which the content is divided among neighbours at least, and how large one is at most, in powers of two
/// groups.
const LEAST_PARTS: u64 = 64;
const MOST_PART: u8 = 6;

/// How long nothing moves before other parents are asked for, and between two such requests.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Priorities whose groups are fetched in order, each from the parent expected to be first.
pub(super) const IN_ORDER: [Priority; 2] = [Priority::Demand, Priority::ReadAhead];

/// Priorities whose groups are fetched rarest first, as many parents at once as there are.
pub(super) const ANY_ORDER: [Priority; 3] =
    [Priority::Bulk, Priority::Prefetch, Priority::Background];

/// What is chosen from for one parent.
struct Pick<'a> {
    parent: &'a Parent,
    wanted: &'a GroupSet,
    /// What is not asked of it: those have it who are nearer.
    near: GroupSet,
    /// What [`Conductor::neighbours`] says.
    neighbours: Vec<u64>,
}

/// A number of a host that differs from that of others.
pub fn spread_of(host: HostId) -> u64 {
    host.as_bytes()[..8].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What a host draws for a piece: the steps are those that end SplitMix64 (Steele, Lea, Flood 2014).
fn lot(piece: u64, spread: u64) -> u64 {
    let mixed = |number: u64| {
        let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    };
    mixed(spread ^ mixed(piece.wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

impl Conductor {
    /// What to do now. Call again after every event and every tick.
    pub fn plan(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        self.settle_hedges(&mut actions);
        for parent in &mut self.parents {
            parent.measure();
            parent.tries_unvouched(now);
            parent.note_gain(now);
        }
        if self.source == SourceAccess::Sequential {
            self.plan_stream(now, &mut actions);
        }
        self.leave_to_swarm(now);
        for priority in IN_ORDER {
            let runs = self.missing(priority);
            self.plan_in_order(runs, priority, now, &mut actions);
        }
        self.plan_hedges(now, &mut actions);
        self.plan_leases(now, &mut actions);
        if !self.is_led(now) {
            self.plan_streams(now, &mut actions);
            for priority in ANY_ORDER {
                self.plan_any_order(priority, now, &mut actions);
            }
        }
        if self.source == SourceAccess::Ranges {
            self.plan_source(now, &mut actions);
        }
        self.plan_help(now, &mut actions);
        actions
    }

    /// One stream from the origin brings everything, whatever is wanted first.
    fn plan_stream(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let streaming = self.flights.values().any(|flight| flight.provider == Provider::Source);
        let wanted = |priority: &Priority| !self.wanted[*priority as usize].is_empty();
        let urgent = IN_ORDER.into_iter().chain(ANY_ORDER).find(wanted);
        let Some(priority) = urgent.filter(|_| !streaming) else { return };
        let flight = self.take_off(Provider::Source, GroupRange::new(0, 0), now);
        if let Some(flight) = self.flights.get_mut(&flight) {
            flight.rest = GroupRange::new(0, self.groups.unwrap_or(u64::MAX));
        }
        actions.push(Action::ReadSource { flight, groups: None, priority });
    }

    /// Asks for runs that are in no flight from their beginnings on.
    pub(super) fn plan_in_order(
        &mut self,
        runs: Vec<GroupRange>,
        priority: Priority,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        if self.parents.is_empty() {
            return;
        }
        // Blocked readers may overdraw a window: somebody waits.
        let factor = if priority == Priority::Demand { 2 } else { 1 };
        let window = self.limits.parent_window * factor;
        for run in runs {
            let mut at = run.first;
            while at < run.end() {
                let left = GroupRange::new(at, run.end() - at);
                let Some((parent, count)) = self.fastest(left, window, now) else {
                    at += 1;
                    continue;
                };
                let groups = GroupRange::new(at, count);
                actions.push(self.request(parent, groups, priority, now));
                at = groups.end();
            }
        }
    }

    /// The parent expected to deliver the first group soonest, and how much to ask of it.
    fn fastest(&self, run: GroupRange, window: u64, now: Duration) -> Option<(HostId, u64)> {
        let limit = run.count.min(self.limits.request);
        let able = self.parents.iter().filter(|parent| {
            parent.may_be_asked(now) && parent.room(window) > 0 && parent.can_give(run.first)
        });
        let parent = self.soonest(able, run.first, limit, now)?;
        let held = parent.holds(run.first);
        let same = |group: &u64| parent.can_give(*group) && parent.holds(*group) == held;
        let wanted = GroupRange::new(run.first, limit.min(parent.room(window)));
        let count = wanted.iter().take_while(same).count() as u64;
        Some((parent.host, count))
    }

    /// The one expected to have sent so much the soonest, of at most four who have the first of it and of those who
    /// must fetch it: where more are known, others each time, so that not all take the same one for the best.
    pub(super) fn soonest<'a>(
        &self,
        able: impl Iterator<Item = &'a Parent>,
        first: u64,
        groups: u64,
        now: Duration,
    ) -> Option<&'a Parent> {
        let (mut holders, fetchers): (Vec<_>, Vec<_>) =
            able.partition(|parent| parent.holds(first));
        if holders.len() > CHOICES {
            let turn = self.spread.wrapping_add(first) % holders.len() as u64;
            holders.rotate_left(turn as usize);
            holders.truncate(CHOICES);
        }
        let all = holders.into_iter().chain(fetchers);
        all.min_by_key(|parent| parent.expected(first, groups, now))
    }

    fn plan_any_order(&mut self, priority: Priority, now: Duration, actions: &mut Vec<Action>) {
        let hosts: Vec<HostId> = self.parents().collect();
        let mut progress = true;
        while progress {
            progress = false;
            for host in &hosts {
                if let Some(groups) = self.rarest(*host, priority, now) {
                    actions.push(self.request(*host, groups, priority, now));
                    progress = true;
                }
            }
        }
    }

    /// The rarest of a few missing pieces that `host` has, with those behind it that are as rare; where it has none of
    /// them, of those that it can fetch: what must come from the origin first comes last. While the length
    /// is not known the first one: a seed reads it from its beginning on, and what is far ahead may not be there at all.
    /// That neighbours then fetch the same first is the lesser evil: nobody is faster than the one stream.
    fn rarest(&self, host: HostId, priority: Priority, now: Duration) -> Option<GroupRange> {
        let parent = self.parents.iter().find(|parent| parent.host == host)?;
        let room = parent.room(self.window_in_any_order(parent));
        let wanted = &self.wanted[priority as usize];
        if !parent.may_be_asked(now) || room == 0 || wanted.is_empty() {
            return None;
        }
        let pick = Pick {
            parent,
            wanted,
            near: self.held_nearer(parent, now),
            neighbours: self.neighbours(parent, now),
        };
        let is_own = |group: u64| self.is_own(group, &pick.neighbours);
        self.rarest_of(&pick, room, is_own).or_else(|| {
            let room = room.min(self.room_for_others(&pick, now)?);
            self.rarest_of(&pick, room, |_| true)
        })
    }

    fn rarest_of(
        &self,
        pick: &Pick<'_>,
        room: u64,
        is_own: impl Fn(u64) -> bool,
    ) -> Option<GroupRange> {
        let Pick { parent, wanted, near, .. } = pick;
        let GroupRange { first, count } = wanted.span().filter(|_| room > 0)?;
        let end = first + count;
        let piece = 1 << self.piece_level;
        let (start, candidates) = match self.groups {
            Some(_) => ((first + self.spread % count) / piece * piece, CANDIDATES),
            None => (0, 1),
        };
        let halves = [GroupRange::new(start, end - start), GroupRange::new(0, start)];
        let rarest = |first_in: fn(&Parent, GroupRange) -> Option<u64>| {
            let runs = halves.into_iter().flat_map(|half| wanted.present_in(half));
            let pieces = runs.flat_map(|run| run.cut(piece)).filter(|run| is_own(run.first));
            let firsts = pieces.filter_map(|run| {
                let free = self.flying.missing_in(run).next()?;
                near.missing_in(free).find_map(|free| first_in(parent, free))
            });
            firsts.take(candidates).min_by_key(|first| self.copies(*first))
        };
        let first = rarest(Parent::first_held).or_else(|| rarest(Parent::first_given))?;
        let size = parent.run().clamp(piece.min(self.limits.request), self.limits.request);
        let run = GroupRange::new(first, size.min(room)).cut(size).next()?;
        let copies = self.copies(first);
        let alike = |group: &u64| {
            wanted.contains(*group)
                && !self.flying.contains(*group)
                && parent.can_give(*group)
                && !near.contains(*group)
                && is_own(*group)
                && self.copies(*group) == copies
        };
        Some(GroupRange::new(first, run.iter().take_while(alike).count() as u64))
    }

    /// Those in this place who fetch the same, where a parent is elsewhere: they take the same narrow way, and none says
    /// what it has asked for.
    fn neighbours(&self, parent: &Parent, now: Duration) -> Vec<u64> {
        let Some(groups) = self.groups.filter(|_| parent.is_elsewhere()) else { return Vec::new() };
        let is_one = |other: &&Parent| {
            !other.is_elsewhere() && other.takes_part(groups) && other.gets_on(now)
        };
        self.parents.iter().filter(is_one).map(|other| spread_of(other.host)).collect()
    }

    /// Whether of all in this place it is this host that fetches the piece of a group from elsewhere: all come to the same
    /// answer without a word.
    fn is_own(&self, group: u64, neighbours: &[u64]) -> bool {
        let part = group >> self.part_level();
        let own = lot(part, self.spread);
        neighbours.iter().all(|other| lot(part, *other) <= own)
    }

    /// The content is divided into some sixty-four parts at least, of a piece or more and of 4 MiB at most: each is to be
    /// asked for in few requests.
    fn part_level(&self) -> u32 {
        let part = self.groups.unwrap_or_default() / LEAST_PARTS;
        part.max(1)
            .ilog2()
            .clamp(u32::from(self.piece_level), MOST_PART.max(self.piece_level).into())
    }

    /// Whoever has all of its own helps the others, with half of what would be its share of what is missing at a time: less
    /// and less. None where nothing is anybody else's.
    fn room_for_others(&self, pick: &Pick<'_>, now: Duration) -> Option<u64> {
        let sharers = pick.neighbours.len() as u64 + 1;
        let is_elsewhere = |provider| {
            let mut elsewhere = self.parents.iter().filter(|other| other.is_elsewhere());
            elsewhere.any(|other| Provider::Parent(other.host) == provider)
        };
        let is_own_choice = |flight: &Flight| flight.lease.is_none() && flight.awaited.is_none();
        let mut own = self.flights.values().filter(|flight| is_own_choice(flight));
        let is_through = !own.any(|flight| is_elsewhere(flight.provider) && !flight.is_late(now));
        (sharers > 1 && is_through).then(|| (pick.wanted.len() / (2 * sharers)).max(1))
    }

    /// What those have who are nearer: for that nobody goes through the narrow way to this parent.
    fn held_nearer(&self, parent: &Parent, now: Duration) -> GroupSet {
        let mut near = GroupSet::new();
        let nearer = self.parents.iter().filter(|other| other.is_nearer_than(parent, now));
        nearer.for_each(|other| other.add_held(&mut near));
        near
    }

    /// How much may be asked of a parent at a time in any order. A single one that works may have all of it to do.
    fn window_in_any_order(&self, parent: &Parent) -> u64 {
        let most = self.limits.parent_window;
        let works = |other: &&Parent| other.has_prospects() && !other.is_failing();
        let has_others = self.parents.iter().filter(works).any(|other| other.host != parent.host);
        if has_others { most.min(parent.ahead()) } else { most }
    }

    fn copies(&self, group: u64) -> usize {
        self.parents.iter().filter(|parent| parent.holds(group)).count()
    }

    fn plan_source(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let mut reading =
            self.flights.values().filter(|flight| flight.provider == Provider::Source).count();
        for priority in IN_ORDER.into_iter().chain(ANY_ORDER) {
            // A blocked reader does not wait for the requests of a bulk download.
            let most = match priority {
                Priority::Demand => self.limits.source_flights * 2,
                _ => self.limits.source_flights,
            };
            while reading < most {
                let Some(run) = self.next_from_source(priority, now) else { break };
                let groups = self.source_run(run);
                let flight = self.take_off(Provider::Source, groups, now);
                actions.push(Action::ReadSource { flight, groups: Some(groups), priority });
                reading += 1;
            }
        }
    }

    /// The first run in no flight that no parent can give now: the source comes last.
    fn next_from_source(&self, priority: Priority, now: Duration) -> Option<GroupRange> {
        let able: Vec<_> = self.parents.iter().filter(|parent| parent.may_be_asked(now)).collect();
        let only_here = |group: &u64| !able.iter().any(|parent| parent.can_give(*group));
        let wanted = &self.wanted[priority as usize];
        let mut missing = wanted.ranges().flat_map(|run| self.flying.missing_in(run));
        missing.find_map(|run| {
            let first = run.iter().find(only_here)?;
            let rest = GroupRange::new(first, (run.end() - first).min(self.limits.source_run));
            let count = rest.iter().take_while(only_here).count() as u64;
            Some(GroupRange::new(first, count))
        })
    }

    /// A wanted run, joined with wanted runs close behind it into one request.
    fn source_run(&self, run: GroupRange) -> GroupRange {
        let limit = self.limits.source_run;
        let mut end = run.end().min(run.first + limit);
        while end < run.first + limit {
            let reach = GroupRange::new(end, self.limits.source_gap + 1);
            let near = self.wanted.iter().flat_map(|wanted| wanted.present_in(reach)).min();
            let Some(next) = near else { break };
            let between = GroupRange::new(end, next.end() - end);
            if self.flying.present_in(between).next().is_some()
                || self.have.present_in(between).next().is_some()
            {
                break;
            }
            end = next.end().min(run.first + limit);
        }
        GroupRange::new(run.first, end - run.first)
    }

    fn plan_help(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let asks_nobody = self.follows_leases_alone(now) || !self.stuck();
        if self.source != SourceAccess::Forbidden || asks_nobody {
            self.asked_for_parents = None;
            return;
        }
        // Parents usually come by themselves soon after the first want.
        let asked = *self.asked_for_parents.get_or_insert(now);
        if now < asked + ASK_AGAIN && self.bad.is_empty() {
            return;
        }
        let waiting_for_room = self.parents.iter().any(|parent| {
            parent.has_prospects() && parent.room(self.window_in_any_order(parent)) == 0
        });
        // Some of it neighbours are about to fetch.
        let waits_for_neighbours =
            || self.parents.iter().any(|parent| !self.neighbours(parent, now).is_empty());
        if self.bad.is_empty() && (waiting_for_room || waits_for_neighbours()) {
            return;
        }
        self.asked_for_parents = Some(now);
        actions.push(Action::AskForParents { bad: std::mem::take(&mut self.bad) });
    }

    /// Runs wanted at `priority` that are in no flight and not left to the swarm.
    fn missing(&self, priority: Priority) -> Vec<GroupRange> {
        let wanted = &self.wanted[priority as usize];
        let missing = wanted.ranges().flat_map(|run| self.flying.missing_in(run));
        missing.flat_map(|run| self.not_left_to_swarm(run)).collect()
    }

    fn request(
        &mut self,
        parent: HostId,
        groups: GroupRange,
        priority: Priority,
        now: Duration,
    ) -> Action {
        let flight = self.take_off(Provider::Parent(parent), groups, now);
        Action::Request { flight, parent, groups, priority, beside: None }
    }
}
