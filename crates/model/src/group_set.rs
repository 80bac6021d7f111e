//! A set of groups: what a peer holds of a task.

use crate::GroupRange;

/// A growing bitmap over groups, with runs in and out. One bit a group in memory; runs on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupSet {
    words: Vec<u64>,
    len: u64,
}

/// A run list that is not canonical: out of order, overlapping, empty or beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("groups are not a canonical list of runs below {limit}")]
pub struct GroupSetDecodeError {
    limit: u64,
}

/// The words that a range touches, each with the bits that are in it.
fn words_of(range: GroupRange) -> impl Iterator<Item = (usize, u64)> {
    let (first, end) = (range.first, range.end());
    (first / 64..end.div_ceil(64)).filter(move |_| first < end).map(move |word| {
        let from = first.saturating_sub(word * 64).min(63);
        let beyond = (word + 1) * 64 - end.min((word + 1) * 64);
        (word as usize, u64::MAX << from & u64::MAX >> beyond)
    })
}

impl From<GroupRange> for GroupSet {
    fn from(range: GroupRange) -> Self {
        let mut set = Self::new();
        set.insert_range(range);
        set
    }
}

impl GroupSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The set `0..count`.
    pub fn full(count: u64) -> Self {
        GroupRange::new(0, count).into()
    }

    /// Number of groups in the set.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// From its first group to its last; none while it is empty.
    pub fn span(&self) -> Option<GroupRange> {
        let is_set = |word: &u64| *word != 0;
        let (low, high) =
            (self.words.iter().position(is_set)?, self.words.iter().rposition(is_set)?);
        let first = low as u64 * 64 + u64::from(self.words[low].trailing_zeros());
        let end = (high as u64 + 1) * 64 - u64::from(self.words[high].leading_zeros());
        Some(GroupRange::new(first, end - first))
    }

    /// Whether `group` is in it.
    pub fn contains(&self, group: u64) -> bool {
        let word = usize::try_from(group / 64).ok().and_then(|at| self.words.get(at));
        word.is_some_and(|word| word >> (group % 64) & 1 == 1)
    }

    /// Whether all of `range` is in it.
    pub fn contains_all(&self, range: GroupRange) -> bool {
        self.missing_in(range).next().is_none()
    }

    /// Adds a group; whether it was new.
    pub fn insert(&mut self, group: u64) -> bool {
        let at = (group / 64) as usize;
        if at >= self.words.len() {
            self.words.resize(at + 1, 0);
        }
        let bit = 1 << (group % 64);
        let new = self.words[at] & bit == 0;
        self.words[at] |= bit;
        self.len += u64::from(new);
        new
    }

    /// Removes a group; whether it was there.
    pub fn remove(&mut self, group: u64) -> bool {
        let there = self.contains(group);
        if there {
            self.words[(group / 64) as usize] &= !(1 << (group % 64));
            self.len -= 1;
        }
        there
    }

    /// Adds every group of `range`.
    pub fn insert_range(&mut self, range: GroupRange) {
        let words = range.end().div_ceil(64) as usize;
        if !range.is_empty() && words > self.words.len() {
            self.words.resize(words, 0);
        }
        for (at, bits) in words_of(range) {
            let word = &mut self.words[at];
            self.len += u64::from((bits & !*word).count_ones());
            *word |= bits;
        }
    }

    /// Removes every group of `range`.
    pub fn remove_range(&mut self, range: GroupRange) {
        let known = GroupRange::new(0, self.words.len() as u64 * 64);
        for (at, bits) in words_of(range.intersection(known)) {
            let word = &mut self.words[at];
            self.len -= u64::from((bits & *word).count_ones());
            *word &= !bits;
        }
    }

    /// Adds every group of another set.
    pub fn insert_all(&mut self, other: &Self) {
        if other.words.len() > self.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, bits) in self.words.iter_mut().zip(&other.words) {
            self.len += u64::from((bits & !*word).count_ones());
            *word |= bits;
        }
    }

    /// Removes every group of another set.
    pub fn remove_all(&mut self, other: &Self) {
        for (word, bits) in self.words.iter_mut().zip(&other.words) {
            self.len -= u64::from((bits & *word).count_ones());
            *word &= !bits;
        }
    }

    /// Removes every group from `end` on.
    pub fn truncate(&mut self, end: u64) {
        self.remove_range(GroupRange::new(end, u64::MAX - end));
        self.words.truncate(end.div_ceil(64) as usize);
    }

    /// Whether every group of another set is in it.
    pub fn contains_set(&self, other: &Self) -> bool {
        let own = self.words.iter().copied().chain(std::iter::repeat(0));
        other.words.iter().zip(own).all(|(wanted, own)| wanted & !own == 0)
    }

    /// First group at or after `from` whose membership is `present`, below `end`.
    fn next(&self, from: u64, end: u64, present: bool) -> Option<u64> {
        // Beyond the last word nothing is present, and everything is missing.
        let end = if present { end.min(self.words.len() as u64 * 64) } else { end };
        let mut group = from;
        while group < end {
            let word = self.words.get((group / 64) as usize).copied().unwrap_or(0);
            let word = if present { word } else { !word } >> (group % 64);
            if word != 0 {
                let found = group + u64::from(word.trailing_zeros());
                return (found < end).then_some(found);
            }
            group = (group / 64 + 1) * 64;
        }
        None
    }

    fn runs(&self, range: GroupRange, present: bool) -> impl Iterator<Item = GroupRange> + '_ {
        let end = range.end();
        let mut at = range.first;
        std::iter::from_fn(move || {
            let first = self.next(at, end, present)?;
            at = self.next(first, end, !present).unwrap_or(end);
            Some(GroupRange::new(first, at - first))
        })
    }

    /// The runs of `range` that are in the set.
    pub fn present_in(&self, range: GroupRange) -> impl Iterator<Item = GroupRange> + '_ {
        self.runs(range, true)
    }

    /// The runs of `range` that are not in the set.
    pub fn missing_in(&self, range: GroupRange) -> impl Iterator<Item = GroupRange> + '_ {
        self.runs(range, false)
    }

    /// All runs in the set, in order.
    pub fn ranges(&self) -> impl Iterator<Item = GroupRange> + '_ {
        self.present_in(GroupRange::new(0, self.words.len() as u64 * 64))
    }

    /// Reads runs off the wire: strictly ascending, not touching the limit, bounded by it.
    pub fn from_ranges(
        ranges: impl IntoIterator<Item = GroupRange>,
        limit: u64,
    ) -> Result<Self, GroupSetDecodeError> {
        let mut set = Self::new();
        let mut next = 0;
        for range in ranges {
            let end = range.first.checked_add(range.count);
            let fits = end.is_some_and(|end| end <= limit);
            if range.is_empty() || range.first < next || !fits {
                return Err(GroupSetDecodeError { limit });
            }
            set.insert_range(range);
            next = range.end();
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn runs_come_out_as_they_went_in() {
        let ranges = [GroupRange::new(1, 2), GroupRange::new(62, 5), GroupRange::new(128, 1)];
        let set = GroupSet::from_ranges(ranges, 129).unwrap();
        assert_eq!(set.len(), 8);
        assert_eq!(set.ranges().collect::<Vec<_>>(), ranges);
        let missing: Vec<_> = set.missing_in(GroupRange::new(0, 64)).collect();
        assert_eq!(missing, [GroupRange::new(0, 1), GroupRange::new(3, 59)]);
        assert!(set.contains_all(GroupRange::new(62, 5)));
        assert!(!set.contains_all(GroupRange::new(62, 6)));
        assert!(set.contains_all(GroupRange::new(500, 0)));
    }

    #[test]
    fn hostile_run_lists_are_refused() {
        for bad in [
            vec![GroupRange::new(5, 1), GroupRange::new(4, 1)],
            vec![GroupRange::new(5, 0)],
            vec![GroupRange::new(9, 2)],
            vec![GroupRange::new(u64::MAX, 2)],
            vec![GroupRange::new(1, 3), GroupRange::new(2, 1)],
        ] {
            assert!(GroupSet::from_ranges(bad.clone(), 10).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sets_change_by_ranges_and_by_sets_as_group_by_group() {
        let mut random: u64 = 7;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let (mut set, mut other) = (GroupSet::new(), GroupSet::new());
        let (mut known, mut others) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..2000 {
            let range = GroupRange::new(next(300), next(140));
            let single = GroupRange::new(next(300), 1);
            match next(6) {
                0 => (set.insert_range(range), known.extend(range.iter())).0,
                1 => (set.remove_range(range), known.retain(|group| !range.contains(*group))).0,
                2 => (other.insert_range(single), others.extend(single.iter())).0,
                3 => (set.insert_all(&other), known.extend(&others)).0,
                4 => (set.remove_all(&other), known.retain(|group| !others.contains(group))).0,
                _ => (set.truncate(range.first), known.retain(|group| *group < range.first)).0,
            }
            let span = known.first().zip(known.last());
            let span = span.map(|(first, last)| GroupRange::new(*first, last - first + 1));
            assert_eq!(set.span(), span);
            assert_eq!(set.len(), known.len() as u64);
            assert!(known.iter().all(|group| set.contains(*group)));
            assert_eq!(set.contains_set(&other), others.is_subset(&known));
        }
    }

    #[test]
    fn removal_keeps_the_count() {
        let mut set = GroupSet::full(100);
        assert!(set.remove(99));
        assert!(!set.remove(99));
        assert!(!set.insert(0));
        assert_eq!(set.len(), 99);
        set.remove_range(GroupRange::new(90, u64::MAX));
        assert_eq!(set.len(), 90);
        assert_eq!(set.present_in(GroupRange::new(0, u64::MAX)).count(), 1);
    }
}
