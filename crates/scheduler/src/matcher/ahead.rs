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
    /// By piece: how many read it next; empty while nobody does.
    readers: Vec<u32>,
    /// Those that anybody does.
    soon: Rows,
    pieces: usize,
}

impl Ahead {
    pub(super) fn new(pieces: usize) -> Self {
        let mut soon = Rows::new(pieces);
        soon.add();
        Self { runs: BTreeMap::new(), readers: Vec::new(), soon, pieces }
    }

    /// This is what a peer reads next, and no more what it was to.
    pub(super) fn set(&mut self, peer: u32, next: Range<usize>) {
        let former = self.runs.remove(&peer).unwrap_or(0..0);
        if self.readers.is_empty() && !next.is_empty() {
            self.readers.resize(self.pieces, 0);
        }
        for piece in former {
            self.readers[piece] -= 1;
            if self.readers[piece] == 0 {
                self.soon.put(0, piece, false);
            }
        }
        for piece in next.clone() {
            self.readers[piece] += 1;
            self.soon.put(0, piece, true);
        }
        if !next.is_empty() {
            self.runs.insert(peer, next);
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

    /// The first piece that `can` has by word and that anybody reads next.
    pub(super) fn first_for_anybody(&self, can: impl Fn(usize) -> u64) -> Option<usize> {
        if self.runs.is_empty() {
            return None;
        }
        let words = self.soon.row(0).iter().enumerate().filter(|(_, bits)| **bits != 0);
        let mut pieces = words.flat_map(|(word, bits)| pieces_in(word, bits & can(word)));
        pieces.next()
    }
}
