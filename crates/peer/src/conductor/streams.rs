//! Readers that go from front to back: what they read next comes in any order where others take it too, by leases or as
//! this peer chooses, and in order from parents where nobody does.
//!
//! All who read the same from its beginning wait for the same, which nobody but a seed has yet. Were it asked of the seed
//! that would send it to each of them. In any order it goes to one, and from there to the others, so a reader waits
//! [`PATIENCE`] for that.

use std::time::Duration;

use dfs_model::{GroupRange, GroupSet, Priority};

use super::{Action, Conductor};

/// How long a blocked reader leaves what it waits for, and what nobody is asked for, to the swarm, after something that any
/// waited for has come.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most readers told apart; who has not said for the longest time what it reads next reads anywhere.
const MOST_STREAMS: usize = 16;

/// What readers read next.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Who said so last is the last.
    next: Vec<GroupRange>,
    /// What of it is left to the swarm, as of the last plan.
    left: GroupSet,
    /// Since when a reader waits for that.
    blocked_since: Option<Duration>,
}

impl Conductor {
    /// Somebody reads from front to back, and these next.
    pub fn reads_next(&mut self, groups: GroupRange) {
        let streams = &mut self.streams.next;
        // What it still waits for of what it was to read before.
        let former =
            streams.extract_if(.., |next| next.first <= groups.first && groups.first <= next.end());
        let first = former.map(|next| next.first).min().unwrap_or(groups.first);
        let first = first.max(groups.first.saturating_sub(groups.count));
        streams.push(GroupRange::new(first, groups.end() - first));
        if streams.len() > MOST_STREAMS {
            streams.remove(0);
        }
    }

    /// What readers wait for has come.
    pub(super) fn reads_on(&mut self) {
        self.streams.blocked_since = None;
    }

    /// What readers from front to back read next and is wanted in any order.
    fn streamed(&self) -> GroupSet {
        let mut streamed = GroupSet::new();
        let all = self.streams.next.iter().map(|next| self.in_any_order(*next));
        all.for_each(|wanted| streamed.insert_all(&wanted));
        streamed
    }

    /// Whether any of those who may be asked are to come to what they lack.
    fn is_in_crowd(&self) -> bool {
        let takes = |count| self.parents.iter().any(|parent| parent.takes_part(count));
        self.groups.is_some_and(takes)
    }

    /// Asks parents in order for what readers from front to back read next, where this peer is alone with them.
    pub(super) fn plan_streams(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.streams.next.is_empty() || self.is_in_crowd() {
            return;
        }
        let streamed = self.streamed();
        let runs = streamed.ranges().flat_map(|run| self.flying.missing_in(run)).collect();
        self.plan_in_order(runs, Priority::ReadAhead, now, actions);
    }

    /// Has what readers from front to back read next left to the swarm, where there is one.
    pub(super) fn leave_to_swarm(&mut self, now: Duration) {
        self.streams.left = GroupSet::new();
        if self.streams.next.is_empty() || !(self.is_led(now) || self.is_in_crowd()) {
            return;
        }
        let streamed = self.streamed();
        let demanded = self.wanted[Priority::Demand as usize].ranges();
        let is_blocked = demanded
            .flat_map(|run| streamed.present_in(run))
            .any(|run| self.flying.missing_in(run).next().is_some());
        let since = is_blocked.then(|| self.streams.blocked_since.unwrap_or(now));
        self.streams.blocked_since = since;
        if since.is_none_or(|since| now.saturating_sub(since) < PATIENCE) {
            self.streams.left = streamed;
        }
    }

    /// Those of a run that are not left to the swarm.
    pub(super) fn not_left_to_swarm(
        &self,
        run: GroupRange,
    ) -> impl Iterator<Item = GroupRange> + '_ {
        self.streams.left.missing_in(run)
    }
}
