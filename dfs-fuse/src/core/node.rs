//! Node ids: how the kernel names inodes of a mount.
//!
//! A node id is the snapshot's generation in the upper 16 bits and the index's inode number in the
//! lower 48; the root is 1 in every snapshot. It follows from the index alone, so a later daemon that
//! takes the mount over understands the ids that the kernel remembers.

use super::FsError;
use crate::tree::{MAX_NID, TreeError};

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
}

/// Number of a snapshot among those that one mount has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u16);

impl Generation {
    /// The snapshot that a mount starts with.
    pub const FIRST: Self = Self(0);
}

/// Translates between node ids and the inode numbers of one snapshot.
#[derive(Debug)]
pub(super) struct Nodes {
    generation: Generation,
    root: u64,
}

impl Nodes {
    pub(super) fn new(generation: Generation, root: u64) -> Self {
        Self { generation, root }
    }

    /// The node id of an inode. Numbers that collide with the kernel's own 0 and 1 are a damaged index.
    pub(super) fn node(&self, nid: u64) -> Result<NodeId, FsError> {
        if nid == self.root {
            return Ok(NodeId::ROOT);
        }
        let raw = u64::from(self.generation.0) << 48 | nid;
        if nid > MAX_NID || raw <= NodeId::ROOT.raw() {
            let reason = format!("inode number {nid} is reserved");
            return Err(TreeError::Corrupt(reason).into());
        }
        Ok(NodeId(raw))
    }

    /// The inode behind a node id.
    pub(super) fn nid(&self, node: NodeId) -> Result<u64, FsError> {
        if node == NodeId::ROOT {
            return Ok(self.root);
        }
        if node.0 >> 48 != u64::from(self.generation.0) {
            return Err(FsError::Stale(node.0));
        }
        Ok(node.0 & MAX_NID)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_node_id_leads_back_to_its_inode(generation: u16, root in 2..=MAX_NID, nid in 2..=MAX_NID) {
            let nodes = Nodes::new(Generation(generation), root);
            let node = nodes.node(nid).unwrap();
            prop_assert_eq!(nodes.nid(node).unwrap(), nid);
            prop_assert_eq!(node == NodeId::ROOT, nid == root);
        }

        #[test]
        fn a_node_of_another_snapshot_is_stale(generation: u16, other: u16, nid in 2..=MAX_NID) {
            prop_assume!(generation != other);
            let node = Nodes::new(Generation(other), 7).node(nid).unwrap();
            prop_assume!(node != NodeId::ROOT);
            let answer = Nodes::new(Generation(generation), 7).nid(node);
            prop_assert_eq!(answer, Err(FsError::Stale(node.raw())));
        }
    }

    #[test]
    fn reserved_numbers_are_refused() {
        let nodes = Nodes::new(Generation::FIRST, 36);
        for nid in [0, 1, MAX_NID + 1] {
            assert!(nodes.node(nid).is_err(), "{nid}");
        }
        assert_eq!(nodes.node(36), Ok(NodeId::ROOT));
    }
}
