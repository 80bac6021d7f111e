//! From a stream of bytes to whole groups, cut at absolute multiples of sixteen groups, with holes.

use bytes::{Bytes, BytesMut};
use dfs_model::{GROUP_BYTES, GroupRange};

/// Bytes of the origin that are digested and kept together: sixteen groups.
const CHUNK: u64 = 16 * GROUP_BYTES;

/// Gathers a stream into whole groups.
pub(super) struct Chunk {
    /// Where the buffer begins: a group.
    at: u64,
    buffer: BytesMut,
    /// Bytes in front of `at` that are still to come and of no use: their group has a hole.
    useless: u64,
}

impl Chunk {
    pub(super) fn starting(at: u64) -> Self {
        Self { at, buffer: BytesMut::new(), useless: 0 }
    }

    /// Takes from `bytes`; gives a chunk, with its first group, once it is whole.
    pub(super) fn take(&mut self, bytes: &mut Bytes) -> Option<(u64, Bytes)> {
        let useless = bytes.len().min(usize::try_from(self.useless).unwrap_or(usize::MAX));
        drop(bytes.split_to(useless));
        self.useless -= useless as u64;
        let end = (self.at / CHUNK + 1) * CHUNK;
        let wanted = (end - self.at) as usize - self.buffer.len();
        let part = bytes.split_to(wanted.min(bytes.len()));
        let whole = part.len() == wanted;
        self.buffer.reserve(wanted);
        self.buffer.extend_from_slice(&part);
        if !whole {
            return None;
        }
        let first = self.at / GROUP_BYTES;
        self.at = end;
        Some((first, std::mem::take(&mut self.buffer).freeze()))
    }

    /// Uses the room of what was taken and is not needed any more; what somebody else still has stays theirs.
    pub(super) fn reuse(&mut self, taken: Bytes) {
        if let Ok(mut room) = taken.try_into_mut()
            && self.buffer.is_empty()
        {
            room.clear();
            self.buffer = room;
        }
    }

    /// The whole groups that are there, before their chunk is; `last` bytes at least stay.
    pub(super) fn early(&mut self, last: usize) -> Option<(u64, Bytes)> {
        let whole = self.buffer.len().saturating_sub(last) as u64 / GROUP_BYTES * GROUP_BYTES;
        let first = self.at / GROUP_BYTES;
        self.at += whole;
        (whole > 0).then(|| (first, self.buffer.split_to(whole as usize).freeze()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next `length` bytes never come: gives the whole groups before them, and the groups that they void.
    pub(super) fn skip(&mut self, length: u64) -> (Option<(u64, Bytes)>, GroupRange) {
        let from = self.at + self.buffer.len() as u64 - self.useless;
        let to = from.saturating_add(length);
        let first = from / GROUP_BYTES;
        let groups = GroupRange::new(first, to.div_ceil(GROUP_BYTES).max(first + 1) - first);
        let whole = (first * GROUP_BYTES).saturating_sub(self.at) as usize;
        let before = (self.at / GROUP_BYTES, self.buffer.split_to(whole).freeze());
        self.buffer.clear();
        self.at = groups.end() * GROUP_BYTES;
        self.useless = self.at - to;
        ((whole > 0).then_some(before), groups)
    }

    pub(super) fn rest(self) -> Option<(u64, Bytes)> {
        (!self.buffer.is_empty()).then(|| (self.at / GROUP_BYTES, self.buffer.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GROUPS: u64 = 40;

    #[test]
    fn the_room_of_a_chunk_that_is_kept_is_that_of_the_next() {
        let mut chunk = Chunk::starting(0);
        let fill = |chunk: &mut Chunk| {
            let (_, whole) = chunk.take(&mut vec![7; CHUNK as usize].into()).unwrap();
            whole
        };
        let first = fill(&mut chunk);
        let room = first.as_ptr();
        chunk.reuse(first);
        let second = fill(&mut chunk);
        assert_eq!(second.as_ptr(), room);
        let held = second.clone();
        chunk.reuse(second);
        let third = fill(&mut chunk);
        assert_ne!(third.as_ptr(), room, "somebody still reads it");
        assert!(held.iter().all(|byte| *byte == 7));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn groups_without_a_hole_come_whole_and_the_others_are_named(
            start in 0..4u64,
            tail in 1..=GROUP_BYTES,
            parts in prop::collection::vec((1..200_000u64, any::<bool>()), 1..60),
        ) {
            let (start, end) = (start * GROUP_BYTES, GROUPS * GROUP_BYTES + tail);
            let content: Bytes = (0..end).map(|at| (at / 7 % 251) as u8).collect::<Vec<_>>().into();
            let slice = |at: u64, length: u64| content.slice(at as usize..(at + length) as usize);
            let (mut chunk, mut at) = (Chunk::starting(start), start);
            let (mut holes, mut void) = (Vec::new(), dfs_model::GroupSet::new());
            let mut came: Vec<(u64, Bytes)> = Vec::new();
            let parts = parts.into_iter().chain([(u64::MAX, false)]);
            for (length, is_hole) in parts {
                let length = length.min(end - at);
                if length == 0 {
                    continue;
                }
                if is_hole {
                    holes.push(dfs_model::ByteRange::at(at, length));
                    let (before, groups) = chunk.skip(length);
                    came.extend(before);
                    void.insert_range(groups);
                } else {
                    let mut bytes = slice(at, length);
                    while let Some(whole) = chunk.take(&mut bytes) {
                        came.push(whole);
                    }
                    if length % 3 == 0 {
                        came.extend(chunk.early((length % 2) as usize));
                    }
                }
                at += length;
            }
            came.extend(chunk.rest());
            let mut kept = dfs_model::GroupSet::new();
            for (first, bytes) in came {
                prop_assert!(bytes == slice(first * GROUP_BYTES, bytes.len() as u64));
                kept.insert_range(GroupRange::new(first, dfs_model::groups_in(bytes.len() as u64)));
            }
            for group in start / GROUP_BYTES..dfs_model::groups_in(end) {
                let bytes = GroupRange::new(group, 1).bytes(end);
                let is_void = holes.iter().any(|hole| !hole.intersection(bytes).is_empty());
                prop_assert_eq!((void.contains(group), kept.contains(group)), (is_void, !is_void));
            }
        }
    }
}
