//! How many copies of each piece there are, and where.

use std::collections::BTreeMap;

use rand::{Rng, RngExt};

use super::Choice;
use super::crowd::NOWHERE;
use super::peers::{Place, Role};
use super::rows::{Rows, pieces_from, pieces_in};

/// The area of everybody.
pub(super) const WORLD: u32 = 0;

/// What of the pieces that a sender has it may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    Anything,
    /// A source: what no node has or is being sent.
    WithoutCopy,
    /// A straggler: what only one node has, which is itself.
    OnlyCopy,
}

/// Copies that nodes have or are being sent. What a source has is none.
#[derive(Debug)]
pub(super) struct Pieces {
    copies: Vec<u32>,
    /// Row 0: pieces without a copy. Row 1: those with one.
    few: Rows,
    /// Whether a piece has lost its last copy, everywhere or in an area, since that was asked.
    is_lost: bool,
    /// By area: pieces of which there is a copy inside, and how many.
    inside: Rows,
    counts: Vec<u32>,
    idcs: BTreeMap<u32, u32>,
    racks: BTreeMap<(u32, u32), u32>,
}

impl Pieces {
    pub(super) fn new(pieces: usize) -> Self {
        let (mut few, mut inside) = (Rows::new(pieces), Rows::new(pieces));
        let all = few.add();
        few.fill(all);
        few.add();
        inside.add();
        Self {
            copies: vec![0; pieces],
            few,
            is_lost: false,
            inside,
            counts: vec![0; pieces],
            idcs: BTreeMap::new(),
            racks: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.copies.len()
    }

    /// The rack, the IDC and the world of a peer. A source is in no rack of anybody's.
    pub(super) fn domains_of(&mut self, role: Role, place: Place) -> [u32; 3] {
        if role == Role::Source {
            return [NOWHERE, NOWHERE, WORLD];
        }
        let (pieces, inside, counts) = (self.copies.len(), &mut self.inside, &mut self.counts);
        let mut new_domain = || {
            counts.resize(counts.len() + pieces, 0);
            inside.add() as u32
        };
        let idc = *self.idcs.entry(place.idc).or_insert_with(&mut new_domain);
        let rack = *self.racks.entry((place.idc, place.rack)).or_insert_with(&mut new_domain);
        [rack, idc, WORLD]
    }

    pub(super) fn copies(&self, piece: usize) -> u32 {
        self.copies[piece]
    }

    /// One more copy in a place, or one less.
    pub(super) fn count(&mut self, domains: [u32; 3], piece: usize, is_there: bool) {
        let change = |count: &mut u32| {
            *count = if is_there { *count + 1 } else { *count - 1 };
            *count
        };
        let copies = change(&mut self.copies[piece]);
        self.few.put(0, piece, copies == 0);
        self.few.put(1, piece, copies == 1);
        self.is_lost |= copies == 0;
        for domain in domains.into_iter().filter(|domain| *domain != WORLD) {
            let at = domain as usize * self.copies.len() + piece;
            let copies = change(&mut self.counts[at]);
            self.inside.put(domain as usize, piece, copies > 0);
            self.is_lost |= copies == 0;
        }
    }

    /// Whether a piece has lost its last copy somewhere since this was asked last.
    pub(super) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.is_lost)
    }

    /// Pieces of a word that may be sent by such a sender to where these areas are entered.
    pub(super) fn may_enter(&self, word: usize, may: May, crossed: &[Option<u32>; 2]) -> u64 {
        let given = match may {
            May::Anything => u64::MAX,
            May::WithoutCopy => self.few.row(0)[word],
            May::OnlyCopy => self.few.row(1)[word],
        };
        let entered = crossed.iter().flatten();
        entered.fold(given, |may, domain| may & !self.inside.row(*domain as usize)[word])
    }

    pub(super) fn may_piece_enter(
        &self,
        piece: usize,
        may: May,
        crossed: &[Option<u32>; 2],
    ) -> bool {
        let (word, bit) = (piece / 64, 1 << (piece % 64));
        self.may_enter(word, may, crossed) & bit != 0
    }

    /// One of the pieces that `can` has, looked through from the piece `start` on.
    pub(super) fn pick(
        &self,
        start: usize,
        choice: Choice,
        can: impl Fn(usize) -> u64,
        random: &mut impl Rng,
    ) -> Option<usize> {
        let words = self.few.row(0).len();
        let (begin, turn) = (start / 64, (start % 64) as u32);
        let order = (0..words).map(|at| (begin + at) % words);
        match choice {
            Choice::Rarest => {
                let all = order.flat_map(|word| pieces_from(word, can(word), turn));
                let mut best: Option<(u32, usize)> = None;
                for piece in all {
                    let copies = self.copies[piece];
                    if best.is_none_or(|(known, _)| copies < known) {
                        best = Some((copies, piece));
                        if copies == 0 {
                            break;
                        }
                    }
                }
                best.map(|(_, piece)| piece)
            }
            Choice::Random => {
                let mut all = order.map(|word| (word, can(word))).filter(|(_, bits)| *bits != 0);
                let (word, bits) = all.next()?;
                let chosen = random.random_range(0..bits.count_ones());
                pieces_in(word, bits).nth(chosen as usize)
            }
        }
    }
}
