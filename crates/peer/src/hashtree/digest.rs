//! Digests of groups, and of what they merge into.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use dfs_model::{GROUP_BYTES, GroupRange};

use super::{Cv, Node, Shape};

/// Bytes that are not the groups they are said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// The group lies past the end.
    #[error("group {group} lies past the end of the content")]
    NoSuchGroup {
        /// Its position.
        group: u64,
    },
    /// Too few or too many bytes.
    #[error("{groups} hold {expected} bytes, got {got}")]
    WrongLength {
        /// Which groups.
        groups: GroupRange,
        /// Bytes there are in them.
        expected: u64,
        /// Bytes given.
        got: u64,
    },
}

/// The digest of one group: the finalized hash when it is the whole content, else its chaining value.
///
/// While the length is unknown the caller must know that the group is not the last.
pub fn group_digest(shape: Shape, group: u64, bytes: &[u8]) -> Result<Cv, ContentError> {
    let expected = shape.group_bytes(group).ok_or(ContentError::NoSuchGroup { group })?;
    if bytes.len() != expected {
        return Err(ContentError::WrongLength {
            groups: GroupRange::new(group, 1),
            expected: expected as u64,
            got: bytes.len() as u64,
        });
    }
    if shape.is_root(Node::group(group)) {
        return Ok(*blake3::hash(bytes).as_bytes());
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(group * GROUP_BYTES);
    hasher.update(bytes);
    Ok(hasher.finalize_non_root())
}

/// The digests of a run of groups, one each. `bytes` is the content of exactly these groups.
pub fn group_digests(
    shape: Shape,
    groups: GroupRange,
    bytes: &[u8],
) -> Result<Vec<Cv>, ContentError> {
    let last = groups.first.saturating_add(groups.count.saturating_sub(1));
    let expected = shape.bytes_in(groups).ok_or(ContentError::NoSuchGroup { group: last })?;
    let got = bytes.len() as u64;
    if got != expected {
        return Err(ContentError::WrongLength { groups, expected, got });
    }
    if bytes.is_empty() {
        // Nothing, or the one empty group of an empty content.
        return groups.iter().map(|group| group_digest(shape, group, bytes)).collect();
    }
    let chunks = bytes.chunks(GROUP_BYTES as usize);
    groups.iter().zip(chunks).map(|(group, bytes)| group_digest(shape, group, bytes)).collect()
}

/// The digest of `parent` from the digests of its two children.
pub fn merge(shape: Shape, parent: Node, left: &Cv, right: &Cv) -> Cv {
    if shape.is_root(parent) {
        return *merge_subtrees_root(left, right, Mode::Hash).as_bytes();
    }
    merge_subtrees_non_root(left, right, Mode::Hash)
}

/// The digest of `node` from the highest known digests at or below it; none when some are missing.
///
/// `lookup` is asked for canonical nodes only. The root of an empty content is always known.
pub fn fold(shape: Shape, node: Node, lookup: impl Fn(Node) -> Option<Cv>) -> Option<Cv> {
    fold_below(shape, shape.canonical(node)?, &lookup)
}

fn fold_below(shape: Shape, node: Node, lookup: &dyn Fn(Node) -> Option<Cv>) -> Option<Cv> {
    if let Some(cv) = lookup(node) {
        return Some(cv);
    }
    let Some((left, right)) = shape.children(node) else {
        return (shape.length() == Some(0)).then(|| *blake3::hash(&[]).as_bytes());
    };
    let left = fold_below(shape, left, lookup)?;
    let right = fold_below(shape, right, lookup)?;
    Some(merge(shape, node, &left, &right))
}
