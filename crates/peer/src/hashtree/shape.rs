//! Where the nodes of a content's tree lie, by its length alone.

use std::fmt;

use dfs_model::{GROUP_BYTES, GroupRange, groups_in};
use serde::{Deserialize, Serialize};

/// A subtree: groups `index << level .. (index + 1) << level`, clipped at the end of the content.
///
/// Level 0 is one group. Ordered by level, then by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Height above groups; at most [`Node::MAX_LEVEL`].
    pub level: u8,
    /// Position among the nodes of its level.
    pub index: u64,
}

impl Node {
    /// Level of the root of the longest content that a 64-bit length can name.
    pub const MAX_LEVEL: u8 = 48;

    /// The node `index` of `level`.
    pub const fn new(level: u8, index: u64) -> Self {
        Self { level, index }
    }

    /// The node of one group.
    pub const fn group(group: u64) -> Self {
        Self { level: 0, index: group }
    }

    /// Whether it lies inside the tree of the longest possible content: the only nodes that exist.
    pub const fn is_possible(&self) -> bool {
        self.level <= Self::MAX_LEVEL && self.index >> (Self::MAX_LEVEL - self.level) == 0
    }

    /// The groups it covers before clipping. The node must be possible.
    pub(crate) const fn unclipped(&self) -> GroupRange {
        GroupRange::new(self.index << self.level, 1 << self.level)
    }

    /// The node above it, whatever the content's end. None above the highest level.
    const fn above(&self) -> Option<Self> {
        if self.level >= Self::MAX_LEVEL {
            return None;
        }
        Some(Self::new(self.level + 1, self.index >> 1))
    }

    /// The other child of the node above it.
    pub(super) const fn sibling(&self) -> Self {
        Self::new(self.level, self.index ^ 1)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}/{}", self.level, self.index)
    }
}

/// The geometry of one content's tree.
///
/// While the length is unknown the tree has no end and no root; then only groups that are complete
/// *and known not to be the last* have a digest, because the last one might turn out to be the root.
///
/// A clipped node with only a left child *is* that child: [`Shape::canonical`] gives the lowest of its
/// names, the only one under which digests are stored, published and looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    length: Option<u64>,
}

impl Shape {
    /// A content of `length` bytes.
    pub const fn known(length: u64) -> Self {
        Self { length: Some(length) }
    }

    /// A content whose end is not known yet.
    pub const fn growing() -> Self {
        Self { length: None }
    }

    /// A content of `length` bytes, or of a length not known yet.
    pub const fn new(length: Option<u64>) -> Self {
        Self { length }
    }

    /// Bytes in the content, when known.
    pub const fn length(&self) -> Option<u64> {
        self.length
    }

    /// Groups in the content, when its length is known.
    pub fn groups(&self) -> Option<u64> {
        self.length.map(groups_in)
    }

    /// One past the last group that can exist.
    fn limit(&self) -> u64 {
        self.groups().unwrap_or(1 << Node::MAX_LEVEL)
    }

    /// The node whose digest is the BLAKE3 of the whole content; an empty content has it too.
    /// None while the length is unknown.
    pub fn root(&self) -> Option<Node> {
        let groups = self.groups()?.max(1);
        let level = u8::try_from(groups.next_power_of_two().ilog2()).unwrap_or(Node::MAX_LEVEL);
        Some(Node::new(level, 0))
    }

    /// Whether the node covers the whole content.
    pub fn is_root(&self, node: Node) -> bool {
        self.root().is_some_and(|root| node.index == 0 && node.level >= root.level)
    }

    /// Whether the node covers any group of the content, or is the root of an empty one.
    pub fn exists(&self, node: Node) -> bool {
        node.is_possible() && (node.unclipped().first < self.limit() || self.is_root(node))
    }

    /// The lowest name of the node; none when it does not exist.
    pub fn canonical(&self, node: Node) -> Option<Node> {
        if !self.exists(node) {
            return None;
        }
        let mut node = node;
        let limit = self.limit();
        while node.level > 0
            && Node::new(node.level - 1, node.index * 2 + 1).unclipped().first >= limit
        {
            node = Node::new(node.level - 1, node.index * 2);
        }
        Some(node)
    }

    /// The groups that the node covers; empty when it does not exist.
    pub fn groups_of(&self, node: Node) -> GroupRange {
        if !self.exists(node) {
            return GroupRange::new(self.limit(), 0);
        }
        node.unclipped().intersection(GroupRange::new(0, self.limit()))
    }

    /// The two subtrees that the node's digest is merged from; none for a group.
    pub fn children(&self, node: Node) -> Option<(Node, Node)> {
        let node = self.canonical(node)?;
        let level = node.level.checked_sub(1)?;
        let right = self.canonical(Node::new(level, node.index * 2 + 1))?;
        Some((Node::new(level, node.index * 2), right))
    }

    /// The node that this one is a child of; none for the root and for what does not exist.
    pub fn parent(&self, node: Node) -> Option<Node> {
        let node = self.canonical(node)?;
        let mut above = node.above()?;
        while !self.is_root(node) {
            if self.canonical(above)? != node {
                return Some(above);
            }
            above = above.above()?;
        }
        None
    }

    /// Bytes in a group; none when it does not exist. Every group is complete while the end is unknown.
    pub fn group_bytes(&self, group: u64) -> Option<usize> {
        if !self.exists(Node::group(group)) {
            return None;
        }
        let Some(length) = self.length else { return Some(GROUP_BYTES as usize) };
        Some(length.saturating_sub(group * GROUP_BYTES).min(GROUP_BYTES) as usize)
    }

    /// Bytes in a run of groups; none when some do not exist. An empty content has one empty group.
    pub fn bytes_in(&self, groups: GroupRange) -> Option<u64> {
        if groups.is_empty() {
            return Some(0);
        }
        let last = groups.first.checked_add(groups.count - 1)?;
        Some((groups.count - 1) * GROUP_BYTES + self.group_bytes(last)? as u64)
    }

    /// The fewest nodes that together cover exactly `range`, in order; none where it leaves the content.
    pub fn cover(&self, range: GroupRange) -> Vec<Node> {
        let range = range.intersection(GroupRange::new(0, self.limit()));
        let end = range.end();
        let mut at = range.first;
        let mut nodes = Vec::new();
        while at < end {
            let mut node = Node::group(at);
            while let Some(above) = node.above() {
                let groups = self.groups_of(above);
                if groups.first != at || groups.end() > end {
                    break;
                }
                node = above;
            }
            at = self.groups_of(node).end();
            nodes.extend(self.canonical(node));
        }
        nodes
    }
}
