//! What those who read from front to back read next.
//!
//! Of what may go to such a reader that goes first. Of pieces that are equally rare those that any reader reads next go
//! before others: what only a source has would come to readers in any order. How much anybody is given changes for nobody.

use std::collections::BTreeMap;
use std::ops::Range;

use super::rows::{Rows, pieces_in};

/// The pieces that readers read next.
#[derive(Debug)]
pub(super) struct Ahead {
    runs: BTreeMap<u32, Range<usize>>,
    /// By piece: how many read it next and have it not; empty while nobody reads anything next.
    readers: Vec<u32>,
    /// Those that are anybody's.
    soon: Rows,
    pieces: usize,
}

impl Ahead {
    pub(super) fn new(pieces: usize) -> Self {
        let mut soon = Rows::new(pieces);
        soon.add();
        Self { runs: BTreeMap::new(), readers: Vec::new(), soon, pieces }
    }

    /// This is what a peer reads next, and no more what it was to; which pieces it `has`.
    pub(super) fn set(&mut self, peer: u32, next: Range<usize>, has: impl Fn(usize) -> bool) {
        let former = self.runs.remove(&peer).unwrap_or(0..0);
        if self.readers.is_empty() && !next.is_empty() {
            self.readers.resize(self.pieces, 0);
        }
        former.filter(|piece| !has(*piece)).for_each(|piece| self.waits_no_more(piece));
        next.clone().filter(|piece| !has(*piece)).for_each(|piece| self.waits(piece));
        if !next.is_empty() {
            self.runs.insert(peer, next);
        }
    }

    /// A peer has a piece from now on.
    pub(super) fn came(&mut self, peer: u32, piece: usize) {
        if self.of(peer).is_some_and(|run| run.contains(&piece)) {
            self.waits_no_more(piece);
        }
    }

    /// It has it no more.
    pub(super) fn went(&mut self, peer: u32, piece: usize) {
        if self.of(peer).is_some_and(|run| run.contains(&piece)) {
            self.waits(piece);
        }
    }

    fn waits(&mut self, piece: usize) {
        self.readers[piece] += 1;
        self.soon.put(0, piece, true);
    }

    fn waits_no_more(&mut self, piece: usize) {
        self.readers[piece] -= 1;
        if self.readers[piece] == 0 {
            self.soon.put(0, piece, false);
        }
    }

    /// What a peer reads next, where it reads from front to back.
    pub(super) fn of(&self, peer: u32) -> Option<&Range<usize>> {
        self.runs.get(&peer)
    }

    /// The first piece that `can` has by word and that a peer reads next.
    pub(super) fn first_of(&self, peer: u32, can: impl Fn(usize) -> u64) -> Option<usize> {
        let run = self.of(peer)?;
        let words = run.start / 64..run.end.div_ceil(64);
        let mut pieces = words.flat_map(|word| pieces_in(word, can(word)));
        pieces.find(|piece| run.contains(piece))
    }

    /// The first piece that `can` has by word and that anybody reads next and has not.
    pub(super) fn first_for_anybody(&self, can: impl Fn(usize) -> u64) -> Option<usize> {
        if self.runs.is_empty() {
            return None;
        }
        let words = self.soon.row(0).iter().enumerate().filter(|(_, bits)| **bits != 0);
        let mut pieces = words.flat_map(|(word, bits)| pieces_in(word, bits & can(word)));
        pieces.next()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Reads(u32, usize, usize),
        Comes(u32, usize),
        Goes(u32, usize),
    }

    const PEERS: u32 = 3;
    const PIECES: usize = 130;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..PEERS, 0..PIECES, 0..40usize).prop_map(|(peer, at, n)| Step::Reads(peer, at, n)),
            (0..PEERS, 0..PIECES).prop_map(|(peer, piece)| Step::Comes(peer, piece)),
            (0..PEERS, 0..PIECES).prop_map(|(peer, piece)| Step::Goes(peer, piece)),
        ]
    }

    proptest! {
        #[test]
        fn what_a_reader_has_it_waits_for_no_more(steps in vec(step(), 1..60)) {
            let mut ahead = Ahead::new(PIECES);
            let mut held = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Reads(peer, at, count) => {
                        let next = at..(at + count).min(PIECES);
                        ahead.set(peer, next, |piece| held.contains(&(peer, piece)));
                    }
                    Step::Comes(peer, piece) if held.insert((peer, piece)) => ahead.came(peer, piece),
                    Step::Goes(peer, piece) if held.remove(&(peer, piece)) => ahead.went(peer, piece),
                    Step::Comes(..) | Step::Goes(..) => {}
                }
                let waits = |piece: &usize| {
                    let mut runs = ahead.runs.iter();
                    runs.any(|(peer, run)| run.contains(piece) && !held.contains(&(*peer, *piece)))
                };
                prop_assert_eq!(ahead.first_for_anybody(|_| u64::MAX), (0..PIECES).find(waits));
            }
        }
    }
}
