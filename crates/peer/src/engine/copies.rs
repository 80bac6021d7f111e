//! Which groups of a task are looked for in others of this host before anybody else is asked for them.
//!
//! A few at a time, what is waited for first: nobody waits for more than that. What is being looked for, or will be, is
//! held back meanwhile: whoever else wants it waits, too, and nobody is asked for what is here. Only what is wanted
//! still is looked for.

use std::collections::BTreeMap;

use dfs_model::{GroupRange, GroupSet, Priority};

/// Groups looked for together, at most.
const TOGETHER: u64 = 256;

/// Runs looked for at a time; the last one is for blocked readers alone.
const AT_A_TIME: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// Found or not.
    looked_for: GroupSet,
    under_way: Vec<GroupRange>,
    /// What is held back and nobody waits for.
    unawaited: BTreeMap<Priority, GroupSet>,
}

impl Copies {
    /// Whether something is being looked for.
    pub fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Those of `groups` that others may be asked for.
    pub fn let_through(&self, groups: GroupRange) -> impl Iterator<Item = GroupRange> {
        self.looked_for.present_in(groups)
    }

    /// Somebody wants these groups, and does not wait for them.
    pub fn hold_back(&mut self, groups: GroupRange, priority: Priority) {
        let held: Vec<_> = self.looked_for.missing_in(groups).collect();
        let of_priority = self.unawaited.entry(priority).or_default();
        held.into_iter().for_each(|run| of_priority.insert_range(run));
    }

    /// What nobody waits for is not wanted any more.
    pub fn drop_unawaited(&mut self) {
        self.unawaited.clear();
    }

    /// Begins to look for some of what is `awaited`, or wanted otherwise: of that which `missing` says of a range. `None`
    /// where enough is looked for, or nothing is left.
    pub fn next(
        &mut self,
        awaited: impl Iterator<Item = (Priority, GroupRange)>,
        missing: impl Fn(GroupRange) -> Vec<GroupRange>,
    ) -> Option<GroupRange> {
        let unawaited = self.unawaited.iter().flat_map(|(priority, groups)| {
            groups.ranges().map(|run| (*priority, run)).collect::<Vec<_>>()
        });
        let most = |priority| AT_A_TIME - usize::from(priority != Priority::Demand);
        let has_turn = |(priority, _): &(Priority, _)| self.under_way.len() < most(*priority);
        let mut wanted: Vec<_> = awaited.chain(unawaited).filter(has_turn).collect();
        wanted.sort_by_key(|(priority, _)| *priority);
        let mut missing = wanted.into_iter().flat_map(|(_, groups)| missing(groups));
        let found = missing.find_map(|run| self.left_of(run))?;
        self.under_way.push(found);
        Some(found)
    }

    /// The first of `groups` that are not looked for.
    fn left_of(&self, groups: GroupRange) -> Option<GroupRange> {
        let begun_at = |group| self.under_way.iter().find(|run| run.iter().contains(&group));
        self.looked_for.missing_in(groups).find_map(|run| {
            let mut first = run.first;
            while let Some(begun) = begun_at(first) {
                first = begun.end();
            }
            let begun = self.under_way.iter().map(|run| run.first).filter(|at| *at > first);
            let end = begun.chain([run.end(), first + TOGETHER]).min()?;
            (first < end).then(|| GroupRange::new(first, end - first))
        })
    }

    /// These have been looked for: what of them was wanted by nobody who waits.
    pub fn ended(&mut self, groups: GroupRange) -> Vec<(Priority, GroupRange)> {
        self.under_way.retain(|run| *run != groups);
        self.looked_for.insert_range(groups);
        let mut wanted = Vec::new();
        for (priority, held) in &mut self.unawaited {
            wanted.extend(held.present_in(groups).map(|run| (*priority, run)));
            held.remove_range(groups);
        }
        self.unawaited.retain(|_, held| !held.is_empty());
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, count: u64) -> GroupRange {
        GroupRange::new(first, count)
    }

    fn all_missing(groups: GroupRange) -> Vec<GroupRange> {
        vec![groups]
    }

    fn nobody() -> impl Iterator<Item = (Priority, GroupRange)> {
        std::iter::empty()
    }

    #[test]
    fn much_is_looked_for_a_little_at_a_time_and_what_is_waited_for_first() {
        let mut copies = Copies::default();
        copies.hold_back(run(0, 10_000), Priority::Bulk);
        let mut begun: Vec<_> = std::iter::from_fn(|| copies.next(nobody(), all_missing)).collect();
        assert_eq!(begun, [run(0, 256), run(256, 256), run(512, 256)]);
        // One turn is left to who is blocked.
        let blocked = || [(Priority::Demand, run(9_000, 2))].into_iter();
        assert_eq!(copies.next(blocked(), all_missing), Some(run(9_000, 2)));
        assert_eq!(copies.next(blocked(), all_missing), None);
        assert_eq!(copies.ended(begun.remove(0)), [(Priority::Bulk, run(0, 256))]);
        assert_eq!(copies.let_through(run(0, 1_000)).collect::<Vec<_>>(), [run(0, 256)]);
        assert!(copies.next(blocked(), all_missing).is_none(), "it is being looked for");
        assert_eq!(copies.ended(run(9_000, 2)), [(Priority::Bulk, run(9_000, 2))]);
        assert_eq!(copies.next(blocked(), all_missing), Some(run(768, 256)));
    }

    #[test]
    fn what_is_here_and_what_nobody_wants_any_more_is_not_looked_for() {
        let mut copies = Copies::default();
        let missing = |groups: GroupRange| vec![groups.intersection(run(7, 1_000))];
        let waits = [(Priority::Bulk, run(0, 9))].into_iter();
        assert_eq!(copies.next(waits, missing), Some(run(7, 2)));
        copies.hold_back(run(20, 5), Priority::Prefetch);
        copies.drop_unawaited();
        assert_eq!(copies.next(nobody(), missing), None);
        assert!(copies.is_busy());
        assert_eq!(copies.ended(run(7, 2)), []);
        assert!(!copies.is_busy());
    }

    #[test]
    fn nothing_is_looked_for_twice() {
        let mut copies = Copies::default();
        copies.hold_back(run(0, 4), Priority::Bulk);
        assert_eq!(copies.next(nobody(), all_missing), Some(run(0, 4)));
        copies.hold_back(run(2, 4), Priority::ReadAhead);
        assert_eq!(copies.next(nobody(), all_missing), Some(run(4, 2)));
        let both = [(Priority::ReadAhead, run(2, 2)), (Priority::Bulk, run(0, 4))];
        assert_eq!(copies.ended(run(0, 4)), both);
        copies.hold_back(run(0, 4), Priority::Demand);
        assert_eq!(copies.next(nobody(), all_missing), None);
        assert_eq!(copies.let_through(run(0, 9)).collect::<Vec<_>>(), [run(0, 4)]);
    }
}
