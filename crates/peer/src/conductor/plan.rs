//! The choice itself: turns what is wanted and who offers it into actions.

use std::time::Duration;

use dfs_model::{GroupRange, GroupSet, HostId, Priority};

use super::{Action, Conductor, Provider, SourceAccess};

/// Missing runs looked at before one is chosen for a bulk request.
const CANDIDATES: usize = 32;

/// How long nothing moves before other parents are asked for, and between two such requests.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Priorities whose groups are fetched in order, each from the parent expected to be first.
const IN_ORDER: [Priority; 2] = [Priority::Demand, Priority::ReadAhead];

/// Priorities whose groups are fetched rarest first, as many parents at once as there are.
const ANY_ORDER: [Priority; 3] = [Priority::Bulk, Priority::Prefetch, Priority::Background];

impl Conductor {
    /// What to do now. Call again after every event and every tick.
    pub fn plan(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.source == SourceAccess::Sequential {
            self.plan_stream(now, &mut actions);
        }
        for priority in IN_ORDER {
            self.plan_in_order(priority, now, &mut actions);
        }
        for priority in ANY_ORDER {
            self.plan_any_order(priority, now, &mut actions);
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
        if streaming || self.wanted.iter().all(GroupSet::is_empty) {
            return;
        }
        let flight = self.take_off(Provider::Source, GroupRange::new(0, 0), now);
        if let Some(flight) = self.flights.get_mut(&flight) {
            flight.rest = GroupRange::new(0, self.groups.unwrap_or(u64::MAX));
        }
        actions.push(Action::ReadSource { flight, groups: None });
    }

    fn plan_in_order(&mut self, priority: Priority, now: Duration, actions: &mut Vec<Action>) {
        if self.parents.is_empty() {
            return;
        }
        // Blocked readers may overdraw a window: somebody waits.
        let factor = if priority == Priority::Demand { 2 } else { 1 };
        let window = self.limits.parent_window * factor;
        for run in self.missing(priority) {
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
        let parent = able.min_by_key(|parent| parent.expected(run.first, limit))?;
        let held = parent.holds(run.first);
        let same = |group: &u64| parent.can_give(*group) && parent.holds(*group) == held;
        let wanted = GroupRange::new(run.first, limit.min(parent.room(window)));
        let count = wanted.iter().take_while(same).count() as u64;
        Some((parent.host, count))
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

    /// The rarest of a few missing runs that `host` can give.
    fn rarest(&self, host: HostId, priority: Priority, now: Duration) -> Option<GroupRange> {
        let parent = self.parents.iter().find(|parent| parent.host == host)?;
        let room = parent.room(self.limits.parent_window);
        if !parent.may_be_asked(now) || room == 0 {
            return None;
        }
        let limit = self.limits.request.min(1 << self.piece_level).min(room);
        let wanted = &self.wanted[priority as usize];
        let end = self.groups.unwrap_or_else(|| wanted.ranges().last().map_or(0, |r| r.end()));
        if end == 0 {
            return None;
        }
        let start = (self.spread % end) >> self.piece_level << self.piece_level;
        let halves = [GroupRange::new(start, end - start), GroupRange::new(0, start)];
        let runs = halves.into_iter().flat_map(|half| wanted.present_in(half).collect::<Vec<_>>());
        let pieces = runs.flat_map(|run| self.split(run)).filter_map(|run| {
            let free = self.flying.missing_in(run).next()?;
            let first = free.iter().find(|group| parent.can_give(*group))?;
            let rest = GroupRange::new(first, (free.end() - first).min(limit));
            let count = rest.iter().take_while(|group| parent.can_give(*group)).count() as u64;
            Some(GroupRange::new(first, count))
        });
        pieces.take(CANDIDATES).min_by_key(|run| self.copies(run.first))
    }

    /// Cuts a run at piece boundaries.
    fn split(&self, run: GroupRange) -> impl Iterator<Item = GroupRange> + use<> {
        let size = 1u64 << self.piece_level;
        let mut at = run.first;
        let end = run.end();
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let next = ((at / size + 1) * size).min(end);
            let piece = GroupRange::new(at, next - at);
            at = next;
            Some(piece)
        })
    }

    fn copies(&self, group: u64) -> usize {
        self.parents.iter().filter(|parent| parent.holds(group)).count()
    }

    fn plan_source(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let mut reading =
            self.flights.values().filter(|flight| flight.provider == Provider::Source).count();
        let everything = IN_ORDER.into_iter().chain(ANY_ORDER);
        for priority in everything {
            // A blocked reader does not wait for the requests of a bulk download.
            let most = match priority {
                Priority::Demand => self.limits.source_flights * 2,
                _ => self.limits.source_flights,
            };
            for run in self.only_at_source(self.missing(priority), now) {
                // An earlier run may have been joined with a part of this one.
                while reading < most {
                    let Some(left) = self.flying.missing_in(run).next() else { break };
                    let groups = self.source_run(left);
                    let flight = self.take_off(Provider::Source, groups, now);
                    actions.push(Action::ReadSource { flight, groups: Some(groups) });
                    reading += 1;
                }
            }
        }
    }

    /// The parts of `runs` that no parent can give now: the source comes last.
    fn only_at_source(&self, runs: Vec<GroupRange>, now: Duration) -> Vec<GroupRange> {
        let able: Vec<_> = self.parents.iter().filter(|parent| parent.may_be_asked(now)).collect();
        if able.is_empty() {
            return runs;
        }
        let mut left = GroupSet::new();
        for group in runs.iter().flat_map(GroupRange::iter) {
            if !able.iter().any(|parent| parent.can_give(group)) {
                left.insert(group);
            }
        }
        left.ranges().collect()
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
        if self.source != SourceAccess::Forbidden || !self.stuck() {
            self.asked_for_parents = None;
            return;
        }
        // Parents usually come by themselves soon after the first want.
        let asked = *self.asked_for_parents.get_or_insert(now);
        if now < asked + ASK_AGAIN && self.bad.is_empty() {
            return;
        }
        let waiting_for_room = self
            .parents
            .iter()
            .any(|parent| parent.has_prospects() && parent.room(self.limits.parent_window) == 0);
        if waiting_for_room && self.bad.is_empty() {
            return;
        }
        self.asked_for_parents = Some(now);
        actions.push(Action::AskForParents { bad: std::mem::take(&mut self.bad) });
    }

    /// Runs wanted at `priority` that are in no flight.
    fn missing(&self, priority: Priority) -> Vec<GroupRange> {
        let wanted = &self.wanted[priority as usize];
        wanted.ranges().flat_map(|run| self.flying.missing_in(run).collect::<Vec<_>>()).collect()
    }

    fn request(
        &mut self,
        parent: HostId,
        groups: GroupRange,
        priority: Priority,
        now: Duration,
    ) -> Action {
        let flight = self.take_off(Provider::Parent(parent), groups, now);
        Action::Request { flight, parent, groups, priority }
    }
}
