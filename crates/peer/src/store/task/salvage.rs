//! A task whose state cannot be read, since a newer release wrote it or it is damaged: what stands in its content file
//! is not lost. Signed digests are kept apart; what they cover is here, in doubt, and hashed before it is used.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

use dfs_model::{GROUP_BYTES, GroupRange, GroupSet, groups_in};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::super::signed::SignedLog;
use super::super::state::{self, Header, MAX_GROUPS};
use super::Opened;
use crate::hashtree::{Cv, Node, Shape, fold, group_digest};

/// The highest digest below which all groups are hashed to prove one of them: that of the largest piece.
const HIGHEST: u8 = 8;

impl Opened {
    /// Takes what is in the content file for here and in doubt, as far as signed digests tell what it must be.
    pub(super) fn salvage(&self) -> io::Result<()> {
        let mut log = SignedLog::open(&self.path.join("signed"))?;
        let batches = log.batches_for(GroupRange::new(0, MAX_GROUPS));
        let length = batches.iter().find_map(|signed| signed.batch().length);
        let Some(length) = length.filter(|length| groups_in(*length) <= MAX_GROUPS) else {
            return Ok(());
        };
        let shape = Shape::known(length);
        let entries = batches.iter().flat_map(|signed| &signed.batch().entries).copied();
        let entries = entries.filter(|(node, _)| self.keeps(shape, *node) && node.level <= HIGHEST);
        let entries: Vec<(Node, Cv)> = entries.collect();
        let written = self.written(length)?;
        let mut here = GroupSet::new();
        for (node, _) in &entries {
            written.present_in(shape.groups_of(*node)).for_each(|run| here.insert_range(run));
        }
        self.lengthen(length)?;
        self.state.write_nodes(entries)?;
        let mut facts = self.facts.write();
        // No boot is named while anything is in doubt: the next start doubts it too.
        let header = Header { length: Some(length), boot: [0; 16], ..facts.header };
        self.state.record(&here, GroupRange::new(0, groups_in(length)))?;
        self.state.write_header(&header)?;
        (facts.header, facts.have, facts.doubt) = (header, here.clone(), here);
        self.presence.dirty.store(true, Relaxed);
        Ok(())
    }

    /// The groups of which anything was ever written, as the file system tells.
    fn written(&self, length: u64) -> io::Result<GroupSet> {
        let (mut groups, mut at) = (GroupSet::new(), 0);
        while at < length {
            let start = match rustix::fs::seek(&self.content, SeekFrom::Data(at)) {
                Ok(start) if start < length => start,
                Ok(_) | Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            let end = rustix::fs::seek(&self.content, SeekFrom::Hole(start))?.min(length);
            let first = start / GROUP_BYTES;
            groups.insert_range(GroupRange::new(first, end.div_ceil(GROUP_BYTES) - first));
            at = end.max(start + 1);
        }
        Ok(groups)
    }

    /// The digest of a group of which only one further up is known, if all below that one is as it says; the digests of
    /// its neighbours are known from then on too.
    pub(super) fn prove_from_above(&self, shape: Shape, group: u64) -> io::Result<Option<Cv>> {
        let known = (1..=HIGHEST)
            .map(|level| Node::new(level, group >> level))
            .filter(|node| self.keeps(shape, *node))
            .find_map(|node| Some((node, self.known(node)?)));
        let Some((above, expected)) = known else { return Ok(None) };
        let mut leaves = HashMap::new();
        let mut buf = vec![0; GROUP_BYTES as usize];
        for group in shape.groups_of(above).iter() {
            let Some(bytes) = shape.group_bytes(group).and_then(|count| buf.get_mut(..count))
            else {
                return Ok(None);
            };
            self.read_layers(bytes, group * GROUP_BYTES)?;
            let digest = group_digest(shape, group, bytes).map_err(io::Error::other)?;
            leaves.insert(Node::group(group), digest);
        }
        if fold(shape, above, |node| leaves.get(&node).copied()) != Some(expected) {
            return Ok(None);
        }
        let found = leaves.get(&Node::group(group)).copied();
        self.state.write_nodes(leaves.into_iter().filter(|(node, _)| state::has_slot(*node)))?;
        Ok(found)
    }
}
