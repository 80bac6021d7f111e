//! Readers that go from front to back: what they read next comes in any order where others take it too, by leases or as
//! this peer chooses, and in order from parents where nobody does.
//!
//! All who read the same from its beginning wait for the same, which nobody but a seed has yet. Were it asked of the seed
//! that would send it to each of them. In any order it goes to one, and from there to the others, so a reader waits
//! [`PATIENCE`] for that.

use std::time::Duration;

use dfs_model::{GroupRange, GroupSet, Priority};

use super::{Action, Conductor, FlightId};

/// How long a blocked reader leaves what it waits for, and what nobody is asked for, to the swarm. Then it does not any more,
/// until something of what it reads next has come by the swarm.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most readers told apart; who has not said for the longest time what it reads next reads anywhere.
const MOST_STREAMS: usize = 16;

/// What readers read next.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Who said so last is the last.
    all: Vec<Stream>,
    /// What of it is left to the swarm, as of the last plan.
    left: GroupSet,
}

/// What one reader reads next.
#[derive(Debug)]
struct Stream {
    next: GroupRange,
    /// Since when it waits for something of that which nobody is asked for.
    blocked_since: Option<Duration>,
}

impl Stream {
    fn is_patient(&self, now: Duration) -> bool {
        self.blocked_since.is_none_or(|since| now.saturating_sub(since) < PATIENCE)
    }
}

impl Conductor {
    /// Somebody reads from front to back, and these next.
    pub fn reads_next(&mut self, groups: GroupRange) {
        let streams = &mut self.streams.all;
        let is_it =
            |one: &mut Stream| one.next.first <= groups.first && groups.first <= one.next.end();
        let former: Vec<Stream> = streams.extract_if(.., is_it).collect();
        // What it still waits for of what it was to read before.
        let first = former.iter().map(|one| one.next.first).min().unwrap_or(groups.first);
        let first = first.max(groups.first.saturating_sub(groups.count));
        let next = GroupRange::new(first, groups.end() - first);
        let blocked_since = former.iter().filter_map(|one| one.blocked_since).min();
        streams.push(Stream { next, blocked_since });
        if streams.len() > MOST_STREAMS {
            streams.remove(0);
        }
    }

    /// Something has come. Who reads it next has patience anew, but where it was asked for because somebody had none.
    pub(super) fn streams_get_on(&mut self, flight: FlightId, news: &[GroupRange]) {
        let is_leased = self.is_leased(flight);
        let Self { streams, wanted, .. } = self;
        let demanded = &wanted[Priority::Demand as usize];
        for one in streams.all.iter_mut().filter(|one| one.blocked_since.is_some()) {
            let mut here = news.iter().map(|run| run.intersection(one.next));
            let is_of_swarm = |run: GroupRange| {
                !run.is_empty() && (is_leased || demanded.missing_in(run).next().is_some())
            };
            if here.any(is_of_swarm) {
                one.blocked_since = None;
            }
        }
    }

    /// Whether any of those who may be asked are to come to what they lack.
    fn is_in_crowd(&self) -> bool {
        let takes = |count| self.parents.iter().any(|parent| parent.takes_part(count));
        self.groups.is_some_and(takes)
    }

    /// Asks parents in order for what readers from front to back read next, where this peer is alone with them.
    pub(super) fn plan_streams(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.streams.all.is_empty() || self.is_in_crowd() {
            return;
        }
        let mut streamed = GroupSet::new();
        for one in &self.streams.all {
            streamed.insert_all(&self.in_any_order(one.next));
        }
        let runs = streamed.ranges().flat_map(|run| self.flying.missing_in(run)).collect();
        self.plan_in_order(runs, Priority::ReadAhead, now, actions);
    }

    /// Has what readers from front to back read next left to the swarm, where there is one.
    pub(super) fn leave_to_swarm(&mut self, now: Duration) {
        let Streams { mut all, .. } = std::mem::take(&mut self.streams);
        let mut left = GroupSet::new();
        let is_swarm = !all.is_empty() && (self.is_led(now) || self.is_in_crowd());
        for one in all.iter_mut().filter(|_| is_swarm) {
            let streamed = self.in_any_order(one.next);
            let demanded = self.wanted[Priority::Demand as usize].present_in(one.next);
            let mut waits = demanded.flat_map(|run| streamed.present_in(run));
            if waits.any(|run| self.flying.missing_in(run).next().is_some()) {
                one.blocked_since.get_or_insert(now);
            }
            if one.is_patient(now) {
                left.insert_all(&streamed);
            }
        }
        self.streams = Streams { all, left };
    }

    /// Those of a run that are not left to the swarm.
    pub(super) fn not_left_to_swarm(
        &self,
        run: GroupRange,
    ) -> impl Iterator<Item = GroupRange> + '_ {
        self.streams.left.missing_in(run)
    }
}
