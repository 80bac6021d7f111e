//! The digests of a content's groups, of bytes that pass in order.

use blake3::hazmat::HasherExt as _;
use dfs_model::{GROUP_BYTES, groups_in};

use super::{Cv, Node, Shape};

/// Takes a content of known length from its first byte to its last.
pub struct GroupHashing {
    shape: Shape,
    length: u64,
    at: u64,
    hasher: blake3::Hasher,
    digests: Vec<Cv>,
}

impl GroupHashing {
    /// Begins a content of `length` bytes.
    pub fn new(length: u64) -> Self {
        let (shape, hasher) = (Shape::new(Some(length)), blake3::Hasher::new());
        Self { shape, length, at: 0, hasher, digests: Vec::new() }
    }

    /// Takes what follows.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.at > 0 && self.at.is_multiple_of(GROUP_BYTES) {
                self.begin_group();
            }
            let room = GROUP_BYTES - self.at % GROUP_BYTES;
            let (now, rest) = bytes.split_at(bytes.len().min(room as usize));
            self.hasher.update(now);
            self.at += now.len() as u64;
            bytes = rest;
            if self.at.is_multiple_of(GROUP_BYTES) {
                self.end_group();
            }
        }
    }

    /// The digests, as [`super::group_digest`] gives them; `None` where fewer bytes came than there are, or more.
    pub fn finish(mut self) -> Option<Vec<Cv>> {
        if self.at != self.length {
            return None;
        }
        if (self.digests.len() as u64) < groups_in(self.length) {
            self.end_group();
        }
        Some(self.digests)
    }

    fn end_group(&mut self) {
        let group = self.digests.len() as u64;
        self.digests.push(match self.shape.is_root(Node::group(group)) {
            true => *self.hasher.finalize().as_bytes(),
            false => self.hasher.finalize_non_root(),
        });
    }

    fn begin_group(&mut self) {
        self.hasher = blake3::Hasher::new();
        self.hasher.set_input_offset(self.at);
    }
}

#[cfg(test)]
mod tests {
    use dfs_model::GroupRange;

    use super::*;
    use crate::hashtree::group_digests;

    #[test]
    fn what_passes_in_any_steps_has_the_digests_of_its_groups() {
        let group = GROUP_BYTES as usize;
        let content: Vec<u8> = (0..3 * group + 77).map(|at| (at * 7 % 251) as u8).collect();
        for length in [0, 1, group - 1, group, group + 1, 3 * group, 3 * group + 77] {
            let (content, length) = (&content[..length], length as u64);
            let groups = GroupRange::new(0, groups_in(length));
            let expected = group_digests(Shape::new(Some(length)), groups, content).unwrap();
            for step in [1000, group, 5 * group] {
                let mut hashing = GroupHashing::new(length);
                content.chunks(step).for_each(|bytes| hashing.update(bytes));
                assert_eq!(hashing.finish().as_ref(), Some(&expected), "{length} by {step}");
            }
        }
    }

    #[test]
    fn fewer_bytes_or_more_than_there_are_have_none() {
        for (length, passed) in [(10, 9), (10, 11), (0, 1), (GROUP_BYTES, 70_000)] {
            let mut hashing = GroupHashing::new(length);
            hashing.update(&vec![1; passed]);
            assert_eq!(hashing.finish(), None);
        }
    }
}
