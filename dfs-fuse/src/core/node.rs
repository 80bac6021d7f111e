//! Node ids: how the kernel names inodes of a mount.
//!
//! A node id is the snapshot's generation in the upper 28 bits, which a mount that switches every second has enough of for
//! eight years, and the index's inode number in the lower 36; the root is 1 in every snapshot. It names the [`Place`] where something was first looked up, and is what
//! programs see as the inode number. What is the same in a later snapshot keeps it: then
//! [`Snapshots`](super::snapshots::Snapshots) knows where that is now. Any other id means the place that it names, so a
//! later daemon that takes the mount over understands the ids that the kernel remembers.

use super::FsError;
use crate::tree::{MAX_NID, TreeError};

/// Bits of a node id that are the inode's number.
const NID_BITS: u32 = MAX_NID.count_ones();

/// Name of an inode of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(u64);

impl NodeId {
    /// The root directory.
    pub const ROOT: Self = Self(1);

    /// A node id as the kernel sent it, still to be checked.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The number that the kernel is given.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The place that it names by itself.
    pub(super) const fn names(self) -> Place {
        Place::from_raw(self.0)
    }
}

/// Number of a snapshot among those that one mount has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(u32);

impl Generation {
    /// The snapshot that a mount starts with.
    pub const FIRST: Self = Self(0);

    /// The last one that there can be.
    pub const LAST: Self = Self((1 << 28) - 1);

    /// The one of this number, up to the last.
    pub fn new(number: u32) -> Option<Self> {
        (number <= Self::LAST.0).then_some(Self(number))
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// That of the next one; `None` after the last.
    pub fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }
}

/// An inode of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which snapshot.
    pub generation: Generation,
    /// The inode's number in its index, at most 36 bits.
    pub nid: u64,
}

impl Place {
    /// As a number: a node id that names it, or the handle of a directory.
    pub const fn raw(self) -> u64 {
        (self.generation.0 as u64) << NID_BITS | self.nid
    }

    /// The place of such a number, still to be checked.
    pub const fn from_raw(raw: u64) -> Self {
        Self { generation: Generation((raw >> NID_BITS) as u32), nid: raw & MAX_NID }
    }

    /// The node id that names it. Numbers that collide with the kernel's own 0 and 1 are a damaged index.
    pub(super) fn node(self) -> Result<NodeId, FsError> {
        let raw = self.raw();
        if self.nid > MAX_NID || raw <= NodeId::ROOT.raw() {
            let reason = format!("inode number {} is reserved", self.nid);
            return Err(TreeError::Corrupt(reason).into());
        }
        Ok(NodeId(raw))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_node_id_leads_back_to_its_inode(number in 0..=Generation::LAST.0, nid in 2..=MAX_NID) {
            let place = Place { generation: Generation(number), nid };
            let node = place.node().unwrap();
            prop_assert_eq!(node.names(), place);
            prop_assert_eq!(Place::from_raw(node.raw()), place);
            prop_assert_ne!(node, NodeId::ROOT);
        }
    }

    #[test]
    fn after_the_last_generation_there_is_none() {
        assert_eq!(Generation::FIRST.next(), Generation::new(1));
        assert_eq!((Generation::LAST.next(), Generation::new(1 << 28)), (None, None));
        let last = Place { generation: Generation::LAST, nid: MAX_NID };
        assert_eq!(last.raw(), u64::MAX);
    }

    #[test]
    fn reserved_numbers_are_refused() {
        for nid in [0, 1, MAX_NID + 1] {
            let place = Place { generation: Generation::FIRST, nid };
            assert!(place.node().is_err(), "{nid}");
        }
    }
}
