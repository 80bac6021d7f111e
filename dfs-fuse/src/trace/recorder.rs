//! Watches reads: which groups were touched, which of them first, and how well that was foreseen.
//!
//! A bit for each group, made when something near is first touched; a read of what was touched before looks at its bits
//! and goes on, without a lock. Memory is bounded: bits for [`MAX_GROUPS`] of each space, [`MAX_RANGES`] ranges in order.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_model::{ByteRange, GroupRange, GroupSet, groups_in};
use parking_lot::Mutex;

use super::{MAX_GROUPS, MAX_RANGES, Place, Profile};

/// Words of bits that are made at once: for 2 GiB.
const CHUNK: usize = 512;

/// Groups in it.
const CHUNK_GROUPS: u64 = CHUNK as u64 * 64;

/// Ranges before the last one that a touch may go on: so many readers take turns.
const READERS: usize = 8;

/// Groups touched before it is judged whether a profile is right about them.
const ENOUGH: u64 = 64;

/// See the module. One for all mounts that show the same.
#[derive(Debug)]
pub struct Recorder {
    spaces: Vec<Space>,
    run: Mutex<Run>,
}

/// Bits, made when one of them is first set.
type Chunk = OnceLock<Box<[AtomicU64; CHUNK]>>;

#[derive(Debug)]
struct Space {
    length: Option<u64>,
    touched: Box<[Chunk]>,
}

/// What is known of the run, and of what was foreseen of it.
#[derive(Debug, Default)]
struct Run {
    order: Vec<Place>,
    /// Of each space.
    foreseen: Vec<GroupSet>,
    fetched: Vec<GroupSet>,
    tally: Tally,
    /// Groups touched since a profile was followed: that it foresaw, and that it did not.
    right: u64,
    wrong: u64,
}

/// What a run came to so far, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// That readers touched.
    pub touched: u64,
    /// That were fetched before any reader had touched them.
    pub fetched: u64,
    /// Of those, what readers touched then.
    pub hit: u64,
}

impl Tally {
    /// How much of what was fetched ahead was read.
    pub fn hit_rate(&self) -> Option<f64> {
        (self.fetched > 0).then(|| self.hit as f64 / self.fetched as f64)
    }

    /// How much of what was read had been fetched ahead.
    pub fn coverage(&self) -> Option<f64> {
        (self.touched > 0).then(|| self.hit as f64 / self.touched as f64)
    }
}

impl Space {
    fn new(length: Option<u64>) -> Self {
        let chunks = length.map_or(MAX_GROUPS, groups_in).min(MAX_GROUPS).div_ceil(CHUNK_GROUPS);
        Self { length, touched: (0..chunks).map(|_| OnceLock::new()).collect() }
    }

    /// The word with a group's bit, and the bit.
    fn word(&self, group: u64) -> Option<(&Chunk, usize, u64)> {
        let chunk = self.touched.get(usize::try_from(group / CHUNK_GROUPS).ok()?)?;
        Some((chunk, (group % CHUNK_GROUPS / 64) as usize, 1 << (group % 64)))
    }

    fn is_touched(&self, group: u64) -> bool {
        let Some((chunk, word, bit)) = self.word(group) else { return false };
        chunk.get().is_some_and(|words| words[word].load(Ordering::Relaxed) & bit != 0)
    }

    /// Whether it is for the first time; what is beyond all that is watched never is.
    fn touch(&self, group: u64) -> bool {
        let Some((chunk, word, bit)) = self.word(group) else { return false };
        let words = chunk.get_or_init(|| Box::new([const { AtomicU64::new(0) }; CHUNK]));
        words[word].fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// The groups that there are and that are watched.
    fn within(&self, groups: GroupRange) -> GroupRange {
        let end = self.length.map_or(MAX_GROUPS, groups_in).min(MAX_GROUPS);
        groups.intersection(GroupRange::new(0, end))
    }

    fn bytes(&self, groups: GroupRange) -> u64 {
        groups.bytes(self.length.unwrap_or(u64::MAX)).len()
    }
}

impl Recorder {
    /// Over spaces of these lengths, where they are known.
    pub fn new(lengths: impl IntoIterator<Item = Option<u64>>) -> Self {
        let spaces: Vec<_> = lengths.into_iter().map(Space::new).collect();
        let run = Mutex::new(Run::of(spaces.len()));
        Self { spaces, run }
    }

    /// A reader wants these bytes.
    pub fn touch(&self, space: u16, range: ByteRange) {
        let Some(bits) = self.spaces.get(usize::from(space)) else { return };
        let groups = bits.within(range.groups());
        let mut new = groups.iter().filter(|group| !bits.is_touched(*group));
        if let Some(first) = new.next() {
            let rest = GroupRange::new(first, groups.end() - first);
            self.run.lock().note(space, bits, rest);
        }
    }

    /// A space is read from now on where nobody sees it: it is taken to be read as it was foreseen.
    pub fn touch_unseen(&self, space: u16) {
        let foreseen = self.run.lock().foreseen.get(usize::from(space)).cloned();
        for groups in foreseen.iter().flat_map(GroupSet::ranges) {
            self.touch(space, groups.bytes(u64::MAX));
        }
    }

    /// What of a place is worth fetching: what is in the artifact.
    pub fn within(&self, place: Place) -> Option<Place> {
        let groups = self.spaces.get(usize::from(place.space))?.within(place.groups);
        (!groups.is_empty()).then_some(Place::new(place.space, groups))
    }

    /// Bytes in a place.
    pub fn bytes(&self, place: Place) -> u64 {
        let space = self.spaces.get(usize::from(place.space));
        space.map_or(0, |space| space.bytes(space.within(place.groups)))
    }

    /// A profile is followed from now on.
    pub fn follow(&self, profile: &Profile) {
        let mut run = self.run.lock();
        run.foreseen = vec![GroupSet::new(); self.spaces.len()];
        for Place { space, groups } in profile.places().filter_map(|place| self.within(place)) {
            run.foreseen[usize::from(space)].insert_range(groups);
        }
        (run.right, run.wrong) = (0, 0);
    }

    /// Whether the profile that is followed tells less of what is read than it leaves out.
    pub fn is_misled(&self) -> bool {
        let run = self.run.lock();
        run.right + run.wrong >= ENOUGH && run.wrong > run.right
    }

    /// This place is fetched before anybody asked for it.
    pub fn fetches(&self, place: Place) {
        let Some(space) = self.spaces.get(usize::from(place.space)) else { return };
        let mut run = self.run.lock();
        for group in space.within(place.groups).iter().filter(|group| !space.is_touched(*group)) {
            if run.fetched[usize::from(place.space)].insert(group) {
                run.tally.fetched += space.bytes(GroupRange::new(group, 1));
            }
        }
    }

    /// It could not be had.
    pub fn gives_up(&self, place: Place) {
        let Some(space) = self.spaces.get(usize::from(place.space)) else { return };
        let mut run = self.run.lock();
        for group in space.within(place.groups).iter().filter(|group| !space.is_touched(*group)) {
            if run.fetched[usize::from(place.space)].remove(group) {
                run.tally.fetched -= space.bytes(GroupRange::new(group, 1));
            }
        }
    }

    /// What it came to so far.
    pub fn tally(&self) -> Tally {
        self.run.lock().tally
    }

    /// The places touched so far, the first one first.
    pub fn trace(&self) -> Vec<Place> {
        self.run.lock().order.clone()
    }

    /// Ends the run, and begins another one: what it touched.
    pub fn begin_anew(&self) -> Vec<Place> {
        let mut run = self.run.lock();
        let chunks = self.spaces.iter().flat_map(|space| space.touched.iter());
        for word in chunks.filter_map(OnceLock::get).flat_map(|words| words.iter()) {
            word.store(0, Ordering::Relaxed);
        }
        let foreseen = std::mem::take(&mut run.foreseen);
        let ended = std::mem::replace(&mut *run, Run { foreseen, ..Run::of(self.spaces.len()) });
        ended.order
    }
}

impl Run {
    fn of(spaces: usize) -> Self {
        let none = || vec![GroupSet::new(); spaces];
        Self { foreseen: none(), fetched: none(), ..Self::default() }
    }

    /// Takes note of what of `groups` nobody touched before.
    fn note(&mut self, number: u16, space: &Space, groups: GroupRange) {
        for group in groups.iter().filter(|group| space.touch(*group)) {
            let bytes = space.bytes(GroupRange::new(group, 1));
            self.tally.touched += bytes;
            if self.fetched[usize::from(number)].contains(group) {
                self.tally.hit += bytes;
            }
            match self.foreseen[usize::from(number)].contains(group) {
                true => self.right += 1,
                false => self.wrong += 1,
            }
            self.go_on(Place::new(number, GroupRange::new(group, 1)));
        }
    }

    /// Adds a place to the order, to a range that it goes on where there is one.
    fn go_on(&mut self, place: Place) {
        let ranges = self.order.len();
        let recent = ranges.saturating_sub(READERS);
        let ends_here = |range: &&mut Place| range.joins(place);
        match self.order[recent..].iter_mut().rev().find(ends_here) {
            Some(range) => range.groups.count += place.groups.count,
            None if ranges < MAX_RANGES => self.order.push(place),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dfs_model::GROUP_BYTES;
    use proptest::prelude::*;

    use super::*;

    fn place(space: u16, first: u64, count: u64) -> Place {
        Place::new(space, GroupRange::new(first, count))
    }

    fn groups(place: Place) -> impl Iterator<Item = (u16, u64)> {
        place.groups.iter().map(move |group| (place.space, group))
    }

    fn bytes(first: u64, count: u64) -> ByteRange {
        ByteRange::at(first * GROUP_BYTES, count * GROUP_BYTES)
    }

    #[test]
    fn places_are_told_in_the_order_they_were_touched_and_readers_that_take_turns_in_theirs() {
        let recorder = Recorder::new([Some(100 * GROUP_BYTES), None]);
        recorder.touch(1, bytes(7, 1));
        for step in 0..5 {
            recorder.touch(0, bytes(50 + step, 1));
            recorder.touch(0, bytes(10 + step, 1));
        }
        recorder.touch(1, bytes(7, 1));
        recorder.touch(1, bytes(3, 1));
        let told = [place(1, 7, 1), place(0, 50, 5), place(0, 10, 5), place(1, 3, 1)];
        assert_eq!(recorder.trace(), told);
    }

    #[test]
    fn what_is_not_of_the_artifact_is_not_watched() {
        let recorder = Recorder::new([Some(GROUP_BYTES + 5), None]);
        recorder.touch(7, bytes(0, 1));
        recorder.touch(0, bytes(0, 1000));
        recorder.touch(1, ByteRange::new(u64::MAX - 5, u64::MAX));
        recorder.touch(1, bytes(MAX_GROUPS - 1, 5));
        assert_eq!(recorder.trace(), [place(0, 0, 2), place(1, MAX_GROUPS - 1, 1)]);
        assert_eq!(recorder.tally().touched, GROUP_BYTES + 5 + GROUP_BYTES);
        for strange in [place(9, 0, 1), place(0, 2, 1), place(1, MAX_GROUPS, 200)] {
            assert_eq!(recorder.within(strange), None);
            recorder.fetches(strange);
        }
        assert_eq!(recorder.within(place(0, 1, 200)), Some(place(0, 1, 1)));
        recorder.follow(&Profile::default().with_run(&[place(0, 1 << 27, 200), place(9, 0, 1)]));
        assert_eq!(recorder.tally().fetched, 0);
    }

    #[test]
    fn of_a_run_that_jumps_about_no_more_than_so_many_places_are_kept_and_all_of_it_is_counted() {
        let recorder = Recorder::new([None]);
        let jumps = MAX_RANGES as u64 + 1000;
        // From the end on, and never to where one would go on.
        (0..jumps).rev().for_each(|at| recorder.touch(0, bytes(2 * at, 1)));
        let trace = recorder.trace();
        assert_eq!(trace.len(), MAX_RANGES);
        assert_eq!(trace.first(), Some(&place(0, 2 * (jumps - 1), 1)), "the first ones are kept");
        assert_eq!(recorder.tally().touched, jumps * GROUP_BYTES);
        // The last of them goes on all the same.
        let last = trace.last().unwrap().groups;
        recorder.touch(0, bytes(last.end(), 1));
        assert_eq!(recorder.trace().last().unwrap().groups.count, 2);
        assert_eq!(recorder.begin_anew().len(), MAX_RANGES);
    }

    #[test]
    fn what_is_watched_takes_memory_where_it_is_read_only() {
        // Of a space that nobody knows the length of: all that may be.
        let recorder = Recorder::new([None]);
        let chunks = &recorder.spaces[0].touched;
        assert_eq!(chunks.len() as u64, MAX_GROUPS / CHUNK_GROUPS);
        recorder.touch(0, bytes(MAX_GROUPS - 1, 1));
        recorder.touch(0, bytes(5, 1));
        recorder.touch(0, bytes(CHUNK_GROUPS - 1, 1));
        assert_eq!(chunks.iter().filter(|chunk| chunk.get().is_some()).count(), 2);
    }

    #[test]
    fn what_was_fetched_ahead_is_a_hit_once_it_is_read_and_not_when_it_was_read_before() {
        let recorder = Recorder::new([Some(10 * GROUP_BYTES)]);
        recorder.touch(0, bytes(0, 2));
        recorder.fetches(place(0, 0, 8));
        recorder.fetches(place(0, 4, 4));
        recorder.touch(0, bytes(1, 3));
        let tally = recorder.tally();
        assert_eq!(tally.fetched, 6 * GROUP_BYTES);
        assert_eq!((tally.hit, tally.touched), (2 * GROUP_BYTES, 4 * GROUP_BYTES));
        assert_eq!((tally.hit_rate(), tally.coverage()), (Some(2.0 / 6.0), Some(0.5)));
        recorder.gives_up(place(0, 2, 6));
        assert_eq!(recorder.tally().fetched, 2 * GROUP_BYTES);
    }

    #[test]
    fn a_profile_is_wrong_once_enough_was_read_and_most_of_it_elsewhere() {
        let foresees = |first, count| {
            let recorder = Recorder::new([Some(1000 * GROUP_BYTES)]);
            recorder.follow(&Profile::default().with_run(&[place(0, first, count)]));
            recorder
        };
        let right = foresees(0, 200);
        right.touch(0, bytes(0, 300));
        assert!(!right.is_misled());
        let wrong = foresees(500, 200);
        wrong.touch(0, bytes(0, ENOUGH - 1));
        assert!(!wrong.is_misled(), "too early to tell");
        wrong.touch(0, bytes(0, ENOUGH));
        assert!(wrong.is_misled());
        wrong.follow(&Profile::default().with_run(&[place(0, 100, 200)]));
        assert!(!wrong.is_misled(), "another one is another matter");
    }

    #[test]
    fn a_run_that_begins_anew_knows_nothing_of_the_one_before() {
        let recorder = Recorder::new([None]);
        recorder.touch(0, bytes(5, 2));
        recorder.fetches(place(0, 9, 1));
        assert_eq!(recorder.begin_anew(), [place(0, 5, 2)]);
        assert_eq!(recorder.tally(), Tally::default());
        recorder.touch(0, bytes(6, 1));
        assert_eq!(recorder.trace(), [place(0, 6, 1)]);
    }

    proptest! {
        #[test]
        fn every_group_is_told_once_however_it_is_read(
            reads in prop::collection::vec((0u16..3, 0u64..300, 1u64..20), 0..200),
        ) {
            let recorder = Recorder::new([Some(250 * GROUP_BYTES), None]);
            let mut touched = BTreeSet::new();
            for (space, first, count) in reads {
                recorder.touch(space, bytes(first, count));
                let known = |at: &(u16, u64)| at.0 == 1 || at.0 == 0 && at.1 < 250;
                touched.extend(groups(place(space, first, count)).filter(known));
            }
            let told: Vec<_> = recorder.trace().into_iter().flat_map(groups).collect();
            prop_assert_eq!(told.len(), touched.len());
            prop_assert_eq!(recorder.tally().touched, touched.len() as u64 * GROUP_BYTES);
            prop_assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), touched);
        }

        #[test]
        fn a_trace_makes_a_profile_that_can_be_written(
            reads in prop::collection::vec((0u64..MAX_GROUPS + 9, 1u64..2000), 0..50),
        ) {
            let recorder = Recorder::new([None]);
            for (first, count) in reads {
                recorder.touch(0, bytes(first, count));
            }
            let profile = Profile::default().with_run(&recorder.trace());
            let subject = super::super::Subject([1; 32]);
            prop_assert_eq!(Profile::decode(&profile.encode(subject)), Ok((subject, profile)));
        }
    }
}
