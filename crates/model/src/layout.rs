//! How a task's bytes fall into pieces.

use crate::{GROUP_BYTES, GroupRange, groups_in};

/// The piece size of a task of known length: the unit of scheduling (design §1).
///
/// A power of two between 64 KiB and 16 MiB, about `length ÷ 1024`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PieceLayout {
    length: u64,
    groups_per_piece_log2: u8,
}

impl PieceLayout {
    /// Largest piece: 16 MiB.
    pub const MAX_LOG2: u8 = 8;

    /// The customary layout for a content of `length` bytes.
    pub fn for_length(length: u64) -> Self {
        let wanted = (length / 1024 / GROUP_BYTES).max(1);
        let log2 = u8::try_from(wanted.ilog2()).unwrap_or(Self::MAX_LOG2);
        Self { length, groups_per_piece_log2: log2.min(Self::MAX_LOG2) }
    }

    /// A layout chosen by the scheduler; `None` when it is out of bounds.
    pub fn new(length: u64, groups_per_piece_log2: u8) -> Option<Self> {
        (groups_per_piece_log2 <= Self::MAX_LOG2).then_some(Self { length, groups_per_piece_log2 })
    }

    /// Bytes in the content.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Level of a piece in the hash tree: groups per piece, as a power of two.
    pub fn level(&self) -> u8 {
        self.groups_per_piece_log2
    }

    /// Bytes in every piece but the last.
    pub fn piece_bytes(&self) -> u64 {
        GROUP_BYTES << self.groups_per_piece_log2
    }

    /// Number of groups in the content.
    pub fn groups(&self) -> u64 {
        groups_in(self.length)
    }

    /// Number of pieces.
    pub fn pieces(&self) -> u64 {
        self.groups().div_ceil(1 << self.groups_per_piece_log2)
    }

    /// The piece that `group` belongs to.
    pub fn piece_of(&self, group: u64) -> u64 {
        group >> self.groups_per_piece_log2
    }

    /// The groups of `piece`; the last piece may be shorter, one past the end is empty.
    pub fn groups_of(&self, piece: u64) -> GroupRange {
        let size = 1u64 << self.groups_per_piece_log2;
        let first = piece.saturating_mul(size).min(self.groups());
        GroupRange::new(first, size.min(self.groups() - first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_about_a_thousandth_within_bounds() {
        assert_eq!(PieceLayout::for_length(0).pieces(), 0);
        assert_eq!(PieceLayout::for_length(1).piece_bytes(), 64 << 10);
        assert_eq!(PieceLayout::for_length(1 << 30).piece_bytes(), 1 << 20);
        assert_eq!(PieceLayout::for_length(1 << 40).piece_bytes(), 16 << 20);
    }

    #[test]
    fn the_last_piece_is_what_is_left() {
        let layout = PieceLayout::new(5 * GROUP_BYTES + 1, 2).unwrap();
        assert_eq!(layout.pieces(), 2);
        assert_eq!(layout.groups_of(1), GroupRange::new(4, 2));
        assert_eq!(layout.groups_of(9), GroupRange::new(6, 0));
        assert_eq!(layout.piece_of(5), 1);
    }
}
