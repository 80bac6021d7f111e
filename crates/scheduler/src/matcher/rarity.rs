//! Pieces by how many copies there are of each: the rarest of some are found without looking at every one of them.

use super::classes;
use super::rows::Rows;

/// Classes that a power of two of copies is divided into.
const PARTS: u64 = 4;

const fn class_of(copies: u32) -> usize {
    classes::class_of(copies as u64, PARTS)
}

// Each has a bit.
const _: () = assert!(class_of(u32::MAX) < 128);

/// The bit that stands for a word among at most 64: where there are more, each for several.
pub(super) fn sign_of(word: usize) -> u64 {
    1 << (word % 64)
}

/// Sets of pieces, one for each class of copies.
#[derive(Debug)]
pub(super) struct Rarity {
    rows: Rows,
    /// By class: the signs of words that are not empty.
    signs: Vec<u64>,
    /// Classes that have any piece, a bit each.
    classes: u128,
}

impl Rarity {
    /// All pieces without a copy.
    pub(super) fn new(pieces: usize) -> Self {
        let mut rarity = Self { rows: Rows::new(pieces), signs: Vec::new(), classes: 0 };
        rarity.reach(1);
        for piece in 0..pieces {
            rarity.add(0, piece);
        }
        rarity
    }

    fn reach(&mut self, class: usize) {
        while self.signs.len() <= class {
            self.rows.add();
            self.signs.push(0);
        }
    }

    fn add(&mut self, class: usize, piece: usize) {
        self.reach(class);
        self.rows.put(class, piece, true);
        self.signs[class] |= sign_of(piece / 64);
        self.classes |= 1 << class;
    }

    fn take(&mut self, class: usize, piece: usize) {
        self.rows.put(class, piece, false);
        let words = self.rows.row(class);
        let same_sign = words.iter().skip(piece / 64 % 64).step_by(64);
        if same_sign.copied().all(|word| word == 0) {
            self.signs[class] &= !sign_of(piece / 64);
        }
        if self.signs[class] == 0 {
            self.classes &= !(1 << class);
        }
    }

    /// There are more copies of a piece, or fewer.
    pub(super) fn changes(&mut self, piece: usize, before: u32, copies: u32) {
        let (before, class) = (class_of(before), class_of(copies));
        if before != class {
            self.take(before, piece);
            self.add(class, piece);
        }
    }

    /// The pieces without a copy.
    pub(super) fn without_copy(&self) -> &[u64] {
        self.rows.row(0)
    }

    /// The pieces with one.
    pub(super) fn with_one(&self) -> &[u64] {
        self.rows.row(1)
    }

    /// Those with as many copies as the rarest of `some`; the words of these that are not empty have `signs`.
    pub(super) fn as_the_rarest_of(&self, some: &[u64], signs: u64) -> Option<&[u64]> {
        let mut classes = self.classes;
        while classes != 0 {
            let class = classes.trailing_zeros() as usize;
            classes &= classes - 1;
            let row = self.rows.row(class);
            let mut signs = signs & self.signs[class];
            while signs != 0 {
                let word = signs.trailing_zeros() as usize;
                signs &= signs - 1;
                if (word..row.len()).step_by(64).any(|word| row[word] & some[word] != 0) {
                    return Some(row);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::matcher::rows::pieces_in;

    proptest! {
        #[test]
        fn the_rarest_are_of_the_lowest_class(
            copies in prop::collection::vec(0u32..40, 1..300),
            some in prop::collection::vec(any::<usize>(), 1..20),
            spread in 1usize..40,
        ) {
            // Words far apart, so that some have the same sign.
            let pieces = copies.len() * spread;
            let copies_of = |piece: usize| copies[piece / spread];
            let mut rarity = Rarity::new(pieces);
            for piece in 0..pieces {
                for copies in 0..copies_of(piece) {
                    rarity.changes(piece, copies, copies + 1);
                }
                rarity.changes(piece, copies_of(piece), copies_of(piece) + 7);
                rarity.changes(piece, copies_of(piece) + 7, copies_of(piece));
            }
            let some: Vec<usize> = some.into_iter().map(|piece| piece % pieces).collect();
            let mut words = vec![0; pieces.div_ceil(64)];
            some.iter().for_each(|piece| words[piece / 64] |= 1u64 << (piece % 64));
            let signs = some.iter().fold(0, |signs, piece| signs | sign_of(piece / 64));
            let lowest = some.iter().map(|piece| class_of(copies_of(*piece))).min().unwrap();
            let row = rarity.as_the_rarest_of(&words, signs).unwrap().iter().enumerate();
            let found: Vec<usize> = row.flat_map(|(word, bits)| pieces_in(word, *bits)).collect();
            let expected = (0..pieces).filter(|piece| class_of(copies_of(*piece)) == lowest);
            prop_assert_eq!(found, expected.collect::<Vec<_>>());
        }
    }
}
