//! The bounds of one answer, kept alike by the side that sends it and the side that takes it.

use dfs_model::GroupRange;

use super::frame::FrameError;
use super::message::{Codecs, PieceRequest, Segment};

/// Segments beyond one per group that an answer may have: news and the empty last one.
const SPARE_SEGMENTS: u64 = 8;
const EXTRAS_FIXED: u64 = 64 << 10;
const EXTRAS_PER_GROUP: u64 = 4 << 10;
const EXTRAS_SIGNED: u64 = 512 << 10;

/// What came of an answer so far.
#[derive(Debug)]
pub(super) struct Exchange {
    wanted: GroupRange,
    accepted: Codecs,
    /// A bit per group asked for.
    seen: [u64; 4],
    segments_left: u64,
    extras_left: u64,
}

impl Exchange {
    /// An answer to `request`, which is within the bounds of a frame.
    pub(super) fn new(request: &PieceRequest) -> Self {
        Self {
            wanted: request.groups,
            accepted: request.codecs,
            seen: [0; 4],
            segments_left: request.groups.count + SPARE_SEGMENTS,
            extras_left: extras(request),
        }
    }

    /// Most bytes that the whole answer can hold: payload, proofs and digests.
    pub(super) fn room(request: &PieceRequest) -> u64 {
        request.groups.count * dfs_model::GROUP_BYTES + extras(request)
    }

    /// Takes a segment into account; an error says which bound it breaks.
    pub(super) fn accept(&mut self, segment: &Segment) -> Result<(), FrameError> {
        if !self.accepted.has(segment.codec) {
            return Err(FrameError::Malformed("an encoding that nobody asked for"));
        }
        let groups = segment.groups();
        if !groups.is_empty() && groups.intersection(self.wanted) != groups {
            return Err(FrameError::Malformed("groups that were not asked for"));
        }
        let extras = segment.extras() as u64;
        if self.segments_left == 0 || extras > self.extras_left {
            return Err(FrameError::Malformed("more proofs or segments than an answer may have"));
        }
        for group in groups.iter() {
            let (word, bit) = self.place(group);
            if self.seen[word] & bit != 0 {
                return Err(FrameError::Malformed("a group that was sent before"));
            }
            self.seen[word] |= bit;
        }
        self.segments_left -= 1;
        self.extras_left -= extras;
        Ok(())
    }

    /// Whether every group asked for was there.
    pub(super) fn complete(&self) -> bool {
        let seen: u32 = self.seen.iter().map(|word| word.count_ones()).sum();
        u64::from(seen) == self.wanted.count
    }

    fn place(&self, group: u64) -> (usize, u64) {
        let at = group - self.wanted.first;
        ((at / 64) as usize, 1 << (at % 64))
    }
}

fn extras(request: &PieceRequest) -> u64 {
    let signed = if request.want_signed { EXTRAS_SIGNED } else { 0 };
    EXTRAS_FIXED + request.groups.count * EXTRAS_PER_GROUP + signed
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dfs_model::TaskId;

    use super::*;

    fn segment(first: u64, count: u16) -> Segment {
        Segment { first, count, ..Segment::default() }
    }

    #[test]
    fn an_answer_is_complete_when_every_group_came_once() {
        let request = PieceRequest::new(TaskId::from_bytes([0; 32]), GroupRange::new(100, 256));
        let mut exchange = Exchange::new(&request);
        for nth in (0..16).rev() {
            assert!(!exchange.complete());
            exchange.accept(&segment(100 + nth * 16, 16)).unwrap();
        }
        assert!(exchange.complete());
        assert!(exchange.accept(&segment(355, 1)).is_err());
        assert!(exchange.accept(&segment(99, 1)).is_err());
        assert!(exchange.accept(&segment(356, 1)).is_err());
    }

    #[test]
    fn news_and_proofs_are_bounded() {
        let request = PieceRequest::new(TaskId::from_bytes([0; 32]), GroupRange::new(0, 1));
        let mut exchange = Exchange::new(&request);
        let news = (0..100).take_while(|_| exchange.accept(&segment(0, 0)).is_ok()).count();
        assert_eq!(news, 9);
        let proof = Bytes::from(vec![0; (EXTRAS_FIXED + EXTRAS_PER_GROUP) as usize + 1]);
        assert!(Exchange::new(&request).accept(&Segment { proof, ..segment(0, 1) }).is_err());
    }
}
