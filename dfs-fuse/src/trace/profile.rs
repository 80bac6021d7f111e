//! What the readers of an artifact touch, by what they touched in earlier runs.
//!
//! A pure value. Of each range it keeps at what place in a run it was wanted, in the mean, and in which of the last
//! eight runs: what was touched in less than half of them comes after all else, what was touched in none of them is
//! forgotten.

use std::collections::BTreeMap;

use dfs_model::GroupRange;

use super::{MAX_RANGE, MAX_RANGES, Place};

/// Runs that are remembered of each range, one bit each.
const REMEMBERED: u32 = u8::BITS;

/// Largest rank: more groups than any run can touch.
pub(super) const MAX_RANK: u64 = 1 << 48;

/// A range of groups that runs have touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    /// Where.
    pub place: Place,
    /// Groups that a run had touched before it, in the mean.
    pub(super) rank: u64,
    /// In which of the last runs it was touched, the latest in the lowest bit. Never zero.
    pub(super) history: u8,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Runs that it was made of.
    pub(super) runs: u32,
    /// In the order in which they are worth having; no group twice.
    pub(super) touched: Vec<Touched>,
}

/// What of a run is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// What came after that which is known of it.
    Rest,
}

/// A range of one space in a run, and the groups touched before it.
type Ranked = (GroupRange, u64);

impl Profile {
    /// How many runs it was made of.
    pub fn runs(&self) -> u32 {
        self.runs
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }

    /// What is worth having, the first wanted first.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.touched.iter().map(|touched| touched.place)
    }

    /// All that it knows, in the same order.
    pub fn touched(&self) -> &[Touched] {
        &self.touched
    }

    /// With one more run. One in which nothing was read says nothing.
    pub fn with_run(&self, run: &[Place]) -> Self {
        self.with(run, Part::Whole)
    }

    /// With what the last run touched after all that is known of it.
    pub fn with_rest(&self, rest: &[Place]) -> Self {
        self.with(rest, if self.runs == 0 { Part::Whole } else { Part::Rest })
    }

    fn with(&self, run: &[Place], part: Part) -> Self {
        if run.is_empty() {
            return self.clone();
        }
        let mut known: BTreeMap<u16, Vec<Touched>> = BTreeMap::new();
        for touched in &self.touched {
            known.entry(touched.place.space).or_default().push(*touched);
        }
        let mut new: BTreeMap<u16, Vec<Ranked>> = BTreeMap::new();
        let is_of_last = |touched: &&Touched| part == Part::Rest && touched.history & 1 == 1;
        let before = self.touched.iter().filter(is_of_last);
        let mut rank = before.map(|touched| touched.place.groups.count).sum();
        for Place { space, groups } in run {
            new.entry(*space).or_default().push((*groups, rank));
            rank += groups.count;
        }
        let mut merged = Vec::new();
        let spaces: Vec<u16> = known.keys().chain(new.keys()).copied().collect();
        for space in spaces {
            // The second time there is nothing left of it.
            let known = known.remove(&space).unwrap_or_default();
            merge(space, known, new.remove(&space).unwrap_or_default(), part, &mut merged);
        }
        let runs = self.runs.saturating_add(u32::from(part == Part::Whole));
        Self { runs, touched: in_order(merged, runs) }
    }
}

impl Touched {
    /// In how many of the last runs it was touched, of how many.
    pub fn share(&self, runs: u32) -> (u32, u32) {
        (self.history.count_ones(), runs.min(REMEMBERED))
    }

    /// Whether most runs did without it.
    fn is_rare(&self, runs: u32) -> bool {
        let (touched, of) = self.share(runs);
        touched * 2 < of
    }

    /// The part of it that begins at `first`, where a run touched it at `rank` or not at all; nothing once it is to be
    /// forgotten.
    fn after_run(&self, groups: GroupRange, rank: Option<u64>, part: Part) -> Option<Self> {
        let own = (self.rank + (groups.first - self.place.groups.first)).min(MAX_RANK);
        let times = u64::from(self.history.count_ones());
        let mean = rank.map_or(own, |rank| (own * times + rank) / (times + 1));
        let place = Place::new(self.place.space, groups);
        let touched = u8::from(rank.is_some());
        let (rank, history) = match part {
            Part::Whole => (mean, self.history << 1 | touched),
            Part::Rest if self.history & 1 == 0 => (mean, self.history | touched),
            Part::Rest => (own, self.history),
        };
        (history != 0).then_some(Self { place, rank, history })
    }
}

/// Puts together what is known of a space and what a run touched of it.
fn merge(
    space: u16,
    mut known: Vec<Touched>,
    mut new: Vec<Ranked>,
    part: Part,
    merged: &mut Vec<Touched>,
) {
    known.sort_unstable_by_key(|touched| touched.place.groups.first);
    new.sort_unstable_by_key(|(groups, _)| groups.first);
    let edges = |groups: GroupRange| [groups.first, groups.end()];
    let mut cuts: Vec<u64> = known.iter().flat_map(|touched| edges(touched.place.groups)).collect();
    cuts.extend(new.iter().flat_map(|(groups, _)| edges(*groups)));
    cuts.sort_unstable();
    cuts.dedup();
    let (mut old, mut run) = (known.iter().peekable(), new.iter().peekable());
    for cut in cuts.windows(2) {
        let groups = GroupRange::new(cut[0], cut[1] - cut[0]);
        while old.next_if(|old| old.place.groups.end() <= groups.first).is_some() {}
        while run.next_if(|(run, _)| run.end() <= groups.first).is_some() {}
        let rank = run.peek().filter(|(run, _)| run.contains(groups.first));
        let rank = rank.map(|(run, rank)| rank + (groups.first - run.first));
        match (old.peek().filter(|old| old.place.groups.contains(groups.first)), rank) {
            (Some(old), rank) => merged.extend(old.after_run(groups, rank, part)),
            (None, Some(rank)) => {
                merged.push(Touched { place: Place::new(space, groups), rank, history: 1 });
            }
            (None, None) => {}
        }
    }
}

/// The order in which they are worth having, neighbours joined, and no more than there may be.
fn in_order(mut all: Vec<Touched>, runs: u32) -> Vec<Touched> {
    all.sort_unstable_by_key(|touched| (touched.is_rare(runs), touched.rank, touched.place));
    let mut joined: Vec<Touched> = Vec::new();
    for next in all {
        match joined.last_mut() {
            Some(last) if last.place.joins(next.place) && last.history == next.history => {
                last.place.groups.count += next.place.groups.count;
            }
            _ => joined.push(next),
        }
    }
    joined.truncate(MAX_RANGES);
    joined
}

impl Place {
    /// Whether `next` goes on where this one ends, and both together are not too long.
    pub(super) fn joins(self, next: Self) -> bool {
        let count = self.groups.count + next.groups.count;
        self.space == next.space && self.groups.end() == next.groups.first && count <= MAX_RANGE
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// Runs as a recorder makes them: no group twice.
    pub(in crate::trace) fn run() -> impl Strategy<Value = Vec<Place>> {
        let place = (0u16..3, 0u64..200, 1u64..12);
        prop::collection::vec(place, 0..40).prop_map(|places| {
            let mut met = BTreeSet::new();
            let mut run = Vec::new();
            for (space, first, count) in places {
                let groups = GroupRange::new(first, count);
                if groups.iter().all(|group| !met.contains(&(space, group))) {
                    met.extend(groups.iter().map(|group| (space, group)));
                    run.push(Place::new(space, groups));
                }
            }
            run
        })
    }

    fn groups(place: Place) -> impl Iterator<Item = (u16, u64)> {
        place.groups.iter().map(move |group| (place.space, group))
    }

    fn of(runs: &[Vec<Place>]) -> Profile {
        runs.iter().fold(Profile::default(), |profile, run| profile.with_run(run))
    }

    fn at(first: u64) -> Place {
        Place::new(0, GroupRange::new(first, 1))
    }

    #[test]
    fn one_run_is_told_as_it_was() {
        let run: Vec<_> = [9, 3, 7, 5].map(at).into();
        assert_eq!(of(std::slice::from_ref(&run)).places().collect::<Vec<_>>(), run);
    }

    #[test]
    fn what_one_of_many_runs_touched_comes_last() {
        let usual: Vec<_> = [9, 3, 7].map(at).into();
        let odd: Vec<_> = [1, 9, 3, 7].map(at).into();
        let profile = of(&[usual.clone(), odd, usual]);
        assert_eq!(profile.places().collect::<Vec<_>>(), [9, 3, 7, 1].map(at));
    }

    #[test]
    fn what_eight_runs_did_without_is_forgotten() {
        let mut runs = vec![vec![at(1), at(5)]];
        runs.extend(vec![vec![at(5)]; 7]);
        assert!(of(&runs).places().any(|place| place == at(1)));
        runs.push(vec![at(5)]);
        assert_eq!(of(&runs).places().collect::<Vec<_>>(), [at(5)]);
    }

    #[test]
    fn a_run_in_which_nothing_was_read_changes_nothing() {
        let profile = of(&[vec![at(1)]]);
        assert_eq!(profile.with_run(&[]), profile);
    }

    proptest! {
        #[test]
        fn a_profile_has_what_the_last_eight_runs_touched_and_each_group_once(
            runs in prop::collection::vec(run(), 1..14),
        ) {
            let told: Vec<_> = runs.iter().filter(|run| !run.is_empty()).cloned().collect();
            let last = &told[told.len().saturating_sub(8)..];
            let wanted: BTreeSet<_> = last.iter().flatten().copied().flat_map(groups).collect();
            let profile = of(&runs);
            let known: Vec<_> = profile.places().flat_map(groups).collect();
            prop_assert_eq!(profile.runs() as usize, told.len());
            prop_assert_eq!(known.len(), wanted.len());
            prop_assert_eq!(known.into_iter().collect::<BTreeSet<_>>(), wanted);
        }

        #[test]
        fn what_most_runs_touched_comes_before_what_few_did(
            runs in prop::collection::vec(run(), 1..8),
        ) {
            let told: Vec<_> = runs.into_iter().filter(|run| !run.is_empty()).collect();
            let mut times: BTreeMap<_, usize> = BTreeMap::new();
            for group in told.iter().flatten().copied().flat_map(groups) {
                *times.entry(group).or_default() += 1;
            }
            let profile = of(&told);
            let rare: Vec<_> =
                profile.places().flat_map(groups).map(|at| times[&at] * 2 < told.len()).collect();
            prop_assert!(rare.is_sorted(), "{:?}", rare);
        }

        #[test]
        fn a_run_told_in_parts_is_the_same_run(runs in prop::collection::vec(run(), 0..5), cut: prop::sample::Index) {
            let Some((last, before)) = runs.split_last() else { return Ok(()) };
            let before = of(before);
            let (first, rest) = last.split_at(if last.is_empty() { 0 } else { cut.index(last.len()) });
            prop_assume!(!first.is_empty());
            let in_parts = before.with_run(first).with_rest(rest);
            let at_once = before.with_run(last);
            prop_assert_eq!(in_parts.runs(), at_once.runs());
            let known = |profile: &Profile| profile.places().flat_map(groups).collect::<BTreeSet<_>>();
            // What was to be forgotten with the first part is as if it were touched for the first time.
            prop_assert_eq!(known(&in_parts), known(&at_once));
            if before.is_empty() {
                let order = |profile: &Profile| profile.places().flat_map(groups).collect::<Vec<_>>();
                prop_assert_eq!(order(&in_parts), order(&at_once));
            }
        }

        #[test]
        fn the_same_run_again_and_again_keeps_its_order(run in run(), times in 1usize..12) {
            let once: Vec<_> = run.iter().copied().flat_map(groups).collect();
            let profile = of(&vec![run; times]);
            prop_assert_eq!(profile.places().flat_map(groups).collect::<Vec<_>>(), once);
        }
    }
}
