//! What a tree shows in all, and where in its spaces that lies.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use dfs_model::{ByteRange, GroupSet};

use super::{Extent, Kind, Tree, TreeError};

/// The files of a tree, hard links counted once.
#[derive(Debug, Default)]
pub struct Footprint {
    /// How many.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Where they lie in each space, ascending and apart.
    spaces: BTreeMap<u16, Vec<ByteRange>>,
}

impl Footprint {
    /// Looks at every inode of `tree`, which has been walked before: its directories form no circle.
    pub fn of(tree: &dyn Tree) -> Result<Self, TreeError> {
        let (mut footprint, mut seen) = (Self::default(), HashSet::new());
        let mut open = vec![tree.root()];
        while let Some(dir) = open.pop() {
            let mut files = Vec::new();
            tree.read_dir(dir, 0, &mut |entry| {
                match entry.kind {
                    _ if matches!(entry.name, b"." | b"..") => {}
                    Kind::Directory => open.push(entry.nid),
                    Kind::File => files.push(entry.nid),
                    _ => {}
                }
                ControlFlow::Continue(())
            })?;
            for nid in files {
                if seen.insert(nid) {
                    footprint.add(tree, nid)?;
                }
            }
        }
        footprint.spaces.values_mut().for_each(join);
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
    ranges.shrink_to_fit();
}
