//! What a tree shows in all, and where in its spaces that lies.

use std::collections::{BTreeMap, HashSet};

use dfs_model::{ByteRange, GROUP_BYTES, GroupSet};

use super::{Extent, Kind, Tree, TreeError, walk};

/// The files of a tree, hard links counted once.
#[derive(Debug, Default)]
pub struct Footprint {
    /// How many.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Where they lie in each space, ascending and apart, at most one range a group: as many bytes as are theirs, at
    /// its beginning.
    spaces: BTreeMap<u16, Vec<ByteRange>>,
}

impl Footprint {
    /// Looks at every inode of `tree`.
    pub fn of(tree: &dyn Tree) -> Result<Self, TreeError> {
        Self::at(tree, tree.root(), Kind::Directory)
    }

    /// Looks at one inode of `tree`, and at all that is below it.
    pub fn at(tree: &dyn Tree, nid: u64, kind: Kind) -> Result<Self, TreeError> {
        let (mut footprint, mut seen) = (Self::default(), HashSet::new());
        let mut look = |nid, kind| {
            if kind == Kind::File && seen.insert(nid) {
                footprint.add(tree, nid)?;
            }
            Ok(())
        };
        match kind {
            Kind::Directory => walk(tree, nid, &mut look).map(drop)?,
            kind => look(nid, kind)?,
        }
        for ranges in footprint.spaces.values_mut() {
            join(ranges);
            *ranges = by_group(ranges);
        }
        Ok(footprint)
    }

    fn add(&mut self, tree: &dyn Tree, nid: u64) -> Result<(), TreeError> {
        self.files += 1;
        let mut at = 0;
        while let Some(extent) = tree.extent(nid, at)? {
            if let Extent::Data { space, offset, length } = extent {
                self.spaces.entry(space).or_default().push(ByteRange::at(offset, length));
            }
            at += extent.length();
        }
        self.bytes = self.bytes.saturating_add(at);
        Ok(())
    }

    /// The spaces that it lies in.
    pub fn spaces(&self) -> impl Iterator<Item = u16> {
        self.spaces.keys().copied()
    }

    /// How many bytes of a space are its.
    pub fn bytes_in(&self, space: usize) -> u64 {
        let own = u16::try_from(space).ok().and_then(|space| self.spaces.get(&space));
        own.into_iter().flatten().map(|range| range.len()).sum()
    }

    /// Its groups of each space.
    pub fn groups(&self) -> impl Iterator<Item = (u16, GroupSet)> {
        self.spaces.iter().map(|(space, ranges)| {
            let mut groups = GroupSet::new();
            ranges.iter().for_each(|range| groups.insert_range(range.groups()));
            (*space, groups)
        })
    }

    /// Its bytes of a space of `length` bytes that `have` covers.
    pub fn within(
        &self,
        space: usize,
        have: &GroupSet,
        length: u64,
    ) -> impl Iterator<Item = ByteRange> {
        let own = u16::try_from(space).ok().and_then(|space| self.spaces.get(&space));
        own.into_iter().flatten().flat_map(move |range| {
            let present = have.present_in(range.groups());
            present.map(move |run| run.bytes(length).intersection(*range))
        })
    }
}

/// Makes one of ranges that touch, in order.
fn join(ranges: &mut Vec<ByteRange>) {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, before| {
        let touches = next.start <= before.end;
        if touches {
            before.end = before.end.max(next.end);
        }
        touches
    });
}

/// The same bytes of each group, as one range: a tree of small files takes no more memory than one of large ones.
fn by_group(ranges: &[ByteRange]) -> Vec<ByteRange> {
    let mut groups: Vec<ByteRange> = Vec::new();
    let mut take = |range: ByteRange| {
        let group = range.start / GROUP_BYTES;
        let start = group * GROUP_BYTES;
        match groups.last_mut() {
            // Only whole groups end where the next begins.
            Some(last) if last.end == start || (last.end - 1) / GROUP_BYTES == group => {
                last.end += range.len();
            }
            _ => groups.push(ByteRange::at(start, range.len())),
        }
    };
    for range in ranges {
        let mut rest = *range;
        while !rest.is_empty() {
            let end = (rest.start / GROUP_BYTES + 1) * GROUP_BYTES;
            let here = ByteRange::new(rest.start, end.min(rest.end));
            take(here);
            rest = ByteRange::new(here.end, rest.end);
        }
    }
    groups.shrink_to_fit();
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::MemoryTreeBuilder;
    use super::*;

    proptest! {
        #[test]
        fn each_group_keeps_its_bytes(steps in proptest::collection::vec((0..100_000u64, 1..200_000u64), 0..40)) {
            let mut at = 0;
            let mut ranges: Vec<_> = steps
                .iter()
                .map(|(gap, length)| {
                    let range = ByteRange::at(at + gap, *length);
                    at = range.end;
                    range
                })
                .collect();
            join(&mut ranges);
            let grouped = by_group(&ranges);
            prop_assert!(grouped.windows(2).all(|pair| pair[0].end < pair[1].start));
            for group in 0..=at / GROUP_BYTES {
                let whole = ByteRange::at(group * GROUP_BYTES, GROUP_BYTES);
                let of = |ranges: &[ByteRange]| -> u64 {
                    ranges.iter().map(|range| range.intersection(whole).len()).sum()
                };
                prop_assert_eq!(of(&grouped), of(&ranges), "group {}", group);
            }
        }
    }

    #[test]
    fn a_group_that_begins_late_goes_on_from_a_whole_one() {
        let late = ByteRange::at(GROUP_BYTES + 5, 10);
        let grouped = by_group(&[ByteRange::new(0, GROUP_BYTES), late]);
        assert_eq!(grouped, [ByteRange::new(0, GROUP_BYTES + 10)]);
    }

    #[test]
    fn a_file_of_many_names_counts_once_and_a_directory_that_holds_itself_is_an_error() {
        let mut tree = MemoryTreeBuilder::new();
        let data = Extent::Data { space: 0, offset: 0, length: 10 };
        let file = tree.file("f", 0o644, vec![data]).unwrap();
        for number in 0..20 {
            tree.hard_link(&format!("name-{number}"), file).unwrap();
        }
        let footprint = Footprint::of(&tree.clone().build()).unwrap();
        assert_eq!((footprint.files, footprint.bytes), (1, 10));
        let root = tree.clone().build().root();
        tree.link("again", root).unwrap();
        assert!(matches!(Footprint::of(&tree.build()), Err(TreeError::Corrupt(_))));
    }
}
