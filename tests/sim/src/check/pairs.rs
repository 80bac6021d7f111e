//! Who has to do with whom, counted from what was decided.

use std::collections::BTreeSet;

use crate::policy::Node;

/// Pairs of nodes that give to each other, one way or both.
#[derive(Debug)]
pub struct Pairs {
    of: Vec<BTreeSet<Node>>,
    /// Partners that a node has had at a time, at most.
    pub most: u32,
    /// Pairs that have come to be: as many handshakes.
    pub made: u64,
}

impl Pairs {
    /// None.
    pub fn new(nodes: usize) -> Self {
        Self { of: vec![BTreeSet::new(); nodes], most: 0, made: 0 }
    }

    /// Two have to do with each other; the one with more partners, and how many it has then.
    pub fn meet(&mut self, one: Node, other: Node) -> (Node, u32) {
        if self.of[one as usize].insert(other) {
            self.of[other as usize].insert(one);
            self.made += 1;
        }
        let count = |node: Node| (self.of[node as usize].len() as u32, node);
        let (most, node) = count(one).max(count(other));
        self.most = self.most.max(most);
        (node, most)
    }

    /// Two have nothing to do with each other any more.
    pub fn part(&mut self, one: Node, other: Node) {
        self.of[one as usize].remove(&other);
        self.of[other as usize].remove(&one);
    }

    /// A node is gone.
    pub fn left(&mut self, node: Node) {
        for other in std::mem::take(&mut self.of[node as usize]) {
            self.of[other as usize].remove(&node);
        }
    }

    /// Nobody knows anybody any more.
    pub fn clear(&mut self) {
        self.of.iter_mut().for_each(BTreeSet::clear);
    }
}
