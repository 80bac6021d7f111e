//! Proofs: the siblings that lead from some groups to digests a receiver trusts.
//!
//! A proof is hostile until [`verify`] accepted it: every node in it must be a sibling on a path upwards
//! from the groups that came with it, and only what lies below a digest the receiver trusts counts as
//! proven.

use std::collections::BTreeMap;

use dfs_model::GroupRange;

use super::{ContentError, Cv, Node, Shape, fold, group_digests, merge};

/// Siblings that a receiver of some groups needs, strictly ascending by node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    nodes: Vec<(Node, Cv)>,
}

/// A proof that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofDecodeError {
    /// More nodes than any honest proof has.
    #[error("the proof has more than {} nodes", Proof::MAX_NODES)]
    TooManyNodes,
    /// Its length does not fit its number of nodes.
    #[error("the proof is cut off or followed by other bytes")]
    WrongLength,
    /// Out of order, repeated, or outside any tree.
    #[error("{0} of the proof is repeated, out of order or impossible")]
    BadNode(Node),
}

/// Why no proof can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProveError {
    /// No trusted node covers the group.
    #[error("no trusted digest covers group {0}")]
    NotCovered(u64),
    /// A sibling's digest is not known here.
    #[error("the digest of {0} is not known here")]
    Unknown(Node),
    /// The groups lie past the end.
    #[error("{0} lie past the end of the content")]
    NoSuchGroups(GroupRange),
}

/// Why groups are not what they are said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The bytes cannot be these groups.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// More nodes than any honest proof has.
    #[error("the proof has more than {} nodes", Proof::MAX_NODES)]
    TooManyNodes,
    /// A node that leads nowhere from these groups, or names them itself.
    #[error("{0} has no place in the proof")]
    ForeignNode(Node),
    /// Bytes or proof differ from what is trusted.
    #[error("the digest of {0} is not the trusted one")]
    Mismatch(Node),
    /// Nothing trusted is reached from the group.
    #[error("group {0} is not proven by any trusted digest")]
    Unproven(u64),
}

impl Proof {
    /// The most nodes in a proof for one run of groups: a path to the left and one to the right.
    pub const MAX_NODES: usize = 2 * 64;
    const NODE_BYTES: usize = 1 + 6 + 32;
    /// The longest encoding.
    pub const MAX_BYTES: usize = 1 + Self::MAX_NODES * Self::NODE_BYTES;

    /// The siblings, ascending.
    pub fn nodes(&self) -> &[(Node, Cv)] {
        &self.nodes
    }

    /// Whether the groups need no siblings: they are whole trusted subtrees.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Appends the encoding: the number of nodes, then level, 48-bit little-endian index and digest of each.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert!(self.nodes.len() <= Self::MAX_NODES, "prove gives no more");
        out.push(self.nodes.len() as u8);
        for (node, cv) in &self.nodes {
            encode_node(*node, cv, out);
        }
    }

    /// Reads exactly one encoded proof.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofDecodeError> {
        let (&count, rest) = bytes.split_first().ok_or(ProofDecodeError::WrongLength)?;
        let count = usize::from(count);
        if count > Self::MAX_NODES {
            return Err(ProofDecodeError::TooManyNodes);
        }
        if rest.len() != count * Self::NODE_BYTES {
            return Err(ProofDecodeError::WrongLength);
        }
        let nodes: Vec<_> = rest.chunks_exact(Self::NODE_BYTES).map(decode_node).collect();
        let ascending = |at: usize| at == 0 || nodes[at - 1].0 < nodes[at].0;
        match (0..count).find(|&at| !nodes[at].0.is_possible() || !ascending(at)) {
            Some(at) => Err(ProofDecodeError::BadNode(nodes[at].0)),
            None => Ok(Self { nodes }),
        }
    }

    #[cfg(test)]
    pub(super) fn from_nodes(nodes: Vec<(Node, Cv)>) -> Self {
        Self { nodes }
    }
}

pub(crate) fn encode_node(node: Node, cv: &Cv, out: &mut Vec<u8>) {
    out.push(node.level);
    out.extend_from_slice(&node.index.to_le_bytes()[..6]);
    out.extend_from_slice(cv);
}

/// Reads what [`encode_node`] wrote: 39 bytes. The node may be impossible.
pub(crate) fn decode_node(bytes: &[u8]) -> (Node, Cv) {
    let mut index = [0; 8];
    index[..6].copy_from_slice(&bytes[1..7]);
    let mut cv = [0; 32];
    cv.copy_from_slice(&bytes[7..39]);
    (Node::new(bytes[0], u64::from_le_bytes(index)), cv)
}

/// The fewest siblings by which a receiver of exactly `groups` arrives at the nodes it trusts.
///
/// For every group the lowest of `trusted` that covers it is used. `lookup` gives the digests known
/// here; a sibling not known itself is folded from what lies below it.
pub fn prove(
    shape: Shape,
    groups: GroupRange,
    trusted: &[Node],
    lookup: impl Fn(Node) -> Option<Cv>,
) -> Result<Proof, ProveError> {
    let mut trusted: Vec<Node> = trusted.iter().filter_map(|node| shape.canonical(*node)).collect();
    trusted.sort_unstable();
    let mut nodes = Vec::new();
    let mut at = groups.first;
    while at < groups.end() {
        if !shape.exists(Node::group(at)) {
            return Err(ProveError::NoSuchGroups(groups));
        }
        let covers = |node: &&Node| shape.groups_of(**node).contains(at);
        let goal = *trusted.iter().find(covers).ok_or(ProveError::NotCovered(at))?;
        // A later goal may lie above an earlier one; both then want the same siblings.
        siblings(shape, groups, goal, &lookup, &mut nodes)?;
        at = shape.groups_of(goal).end();
    }
    nodes.sort_unstable_by_key(|(node, _)| *node);
    nodes.dedup_by_key(|(node, _)| *node);
    Ok(Proof { nodes })
}

fn siblings(
    shape: Shape,
    groups: GroupRange,
    node: Node,
    lookup: &dyn Fn(Node) -> Option<Cv>,
    out: &mut Vec<(Node, Cv)>,
) -> Result<(), ProveError> {
    let covered = shape.groups_of(node);
    let wanted = covered.intersection(groups);
    if wanted.is_empty() {
        let cv = fold(shape, node, lookup).ok_or(ProveError::Unknown(node))?;
        out.push((node, cv));
        return Ok(());
    }
    match shape.children(node) {
        Some((left, right)) if wanted != covered => {
            siblings(shape, groups, left, lookup, out)?;
            siblings(shape, groups, right, lookup, out)
        }
        _ => Ok(()),
    }
}

/// As [`verify`], from the bytes of the groups.
pub fn verify_bytes(
    shape: Shape,
    groups: GroupRange,
    bytes: &[u8],
    proof: &Proof,
    trusted: impl Fn(Node) -> Option<Cv>,
) -> Result<Vec<(Node, Cv)>, VerifyError> {
    let cvs = group_digests(shape, groups, bytes)?;
    verify(shape, groups.first, &cvs, proof, trusted)
}

/// Checks the digests of the groups `first ..` against what is trusted, with the help of `proof`.
///
/// Gives every node that is now proven: the groups, their siblings, all between, and those trusted nodes
/// that were reached. `trusted` is asked for canonical nodes only. Siblings that lead to nothing trusted
/// prove nothing and are left out.
pub fn verify(
    shape: Shape,
    first: u64,
    cvs: &[Cv],
    proof: &Proof,
    trusted: impl Fn(Node) -> Option<Cv>,
) -> Result<Vec<(Node, Cv)>, VerifyError> {
    let groups = GroupRange::new(first, cvs.len() as u64);
    let missing = ContentError::NoSuchGroup { group: groups.end().saturating_sub(1) };
    if !cvs.is_empty() && !shape.exists(Node::group(groups.end() - 1)) {
        return Err(missing.into());
    }
    let mut climb = Climb { shape, trusted: &trusted, known: Vec::new(), waiting: BTreeMap::new() };
    climb.take_proof(groups, proof)?;
    for (group, cv) in groups.iter().zip(cvs) {
        climb.add(Node::group(group), *cv, Origin::Group)?;
    }
    climb.run()?;
    climb.proven()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Group,
    Proof,
    Merged,
    Trusted,
}

struct Known {
    node: Node,
    cv: Cv,
    origin: Origin,
    proven: bool,
    parent: Option<usize>,
}

/// Nodes merging upwards, level by level.
struct Climb<'a> {
    shape: Shape,
    trusted: &'a dyn Fn(Node) -> Option<Cv>,
    /// Children always stand before their parents.
    known: Vec<Known>,
    /// What has not been merged yet, by its highest name tried so far; values point into `known`.
    waiting: BTreeMap<Node, usize>,
}

impl Climb<'_> {
    fn take_proof(&mut self, groups: GroupRange, proof: &Proof) -> Result<(), VerifyError> {
        if proof.nodes.len() > Proof::MAX_NODES {
            return Err(VerifyError::TooManyNodes);
        }
        for (node, cv) in &proof.nodes {
            let covered = self.shape.groups_of(*node);
            let canonical = self.shape.canonical(*node) == Some(*node);
            if !canonical
                || !covered.intersection(groups).is_empty()
                || self.waiting.contains_key(node)
            {
                return Err(VerifyError::ForeignNode(*node));
            }
            self.add(*node, *cv, Origin::Proof)?;
        }
        Ok(())
    }

    /// Adds a node under its canonical name and compares it with what is trusted.
    fn add(&mut self, node: Node, cv: Cv, origin: Origin) -> Result<usize, VerifyError> {
        let trusted = match origin {
            Origin::Trusted => Some(cv),
            _ => (self.trusted)(node),
        };
        if trusted.is_some_and(|trusted| trusted != cv) {
            return Err(VerifyError::Mismatch(node));
        }
        let at = self.known.len();
        self.known.push(Known { node, cv, origin, proven: trusted.is_some(), parent: None });
        self.waiting.insert(node, at);
        Ok(at)
    }

    fn run(&mut self) -> Result<(), VerifyError> {
        // Lowest level first, so that whatever can merge into a node has done so before it is looked at.
        while let Some((name, at)) = self.waiting.pop_first() {
            let Some(above) = self.shape.parent(self.known[at].node) else { continue };
            let sibling = name.sibling();
            match self.shape.canonical(sibling) {
                // Only a left child: the node above is this one under another name.
                None => {
                    self.waiting.insert(Node::new(name.level + 1, name.index / 2), at);
                }
                Some(canonical) => {
                    if let Some(other) = self.take_sibling(sibling, canonical, at)? {
                        self.merge(above, name, at, other)?;
                    }
                }
            }
        }
        let unused =
            self.known.iter().find(|known| known.origin == Origin::Proof && known.parent.is_none());
        unused.map_or(Ok(()), |known| Err(VerifyError::ForeignNode(known.node)))
    }

    /// The sibling, from what came along or else from what is trusted.
    fn take_sibling(
        &mut self,
        name: Node,
        canonical: Node,
        of: usize,
    ) -> Result<Option<usize>, VerifyError> {
        if let Some(at) = self.waiting.remove(&name).or_else(|| self.waiting.remove(&canonical)) {
            return Ok(Some(at));
        }
        // What is proven already needs no climb on trusted siblings; a proof node must come with its own.
        if self.known[of].proven || self.known[of].origin == Origin::Proof {
            return Ok(None);
        }
        let Some(cv) = (self.trusted)(canonical) else { return Ok(None) };
        let at = self.add(canonical, cv, Origin::Trusted)?;
        self.waiting.remove(&canonical);
        Ok(Some(at))
    }

    fn merge(
        &mut self,
        above: Node,
        name: Node,
        at: usize,
        other: usize,
    ) -> Result<(), VerifyError> {
        if self.known[at].origin == Origin::Proof && self.known[other].origin == Origin::Proof {
            return Err(VerifyError::ForeignNode(self.known[at].node));
        }
        let (left, right) = if name.index.is_multiple_of(2) { (at, other) } else { (other, at) };
        let cv = merge(self.shape, above, &self.known[left].cv, &self.known[right].cv);
        let parent = self.add(above, cv, Origin::Merged)?;
        for child in [left, right] {
            self.known[child].parent = Some(parent);
        }
        self.known[parent].proven |= self.known[left].proven && self.known[right].proven;
        Ok(())
    }

    fn proven(mut self) -> Result<Vec<(Node, Cv)>, VerifyError> {
        for at in (0..self.known.len()).rev() {
            let above = self.known[at].parent.is_some_and(|parent| self.known[parent].proven);
            self.known[at].proven |= above;
        }
        let unproven = |known: &&Known| known.origin == Origin::Group && !known.proven;
        if let Some(known) = self.known.iter().find(unproven) {
            return Err(VerifyError::Unproven(known.node.index));
        }
        Ok(self
            .known
            .iter()
            .filter(|known| known.proven)
            .map(|known| (known.node, known.cv))
            .collect())
    }
}
