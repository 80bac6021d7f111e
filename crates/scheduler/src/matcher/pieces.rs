//! How many copies of each piece there are, and where.

use std::collections::BTreeMap;

use rand::{Rng, RngExt};

use super::Choice;
use super::peers::{Place, Role};
use super::rows::{Rows, pieces_from, pieces_in};

/// The area of everybody.
pub(super) const WORLD: u32 = 0;

/// Copies that nodes have or are being sent. What a source has is none.
#[derive(Debug)]
pub(super) struct Pieces {
    copies: Vec<u32>,
    /// Row 0: pieces without a copy.
    without: Rows,
    /// By area: pieces of which there is a copy inside, and how many.
    inside: Rows,
    counts: Vec<u32>,
    idcs: BTreeMap<u32, u32>,
    racks: BTreeMap<(u32, u32), u32>,
}

impl Pieces {
    pub(super) fn new(pieces: usize) -> Self {
        let (mut without, mut inside) = (Rows::new(pieces), Rows::new(pieces));
        let all = without.add();
        without.fill(all);
        inside.add();
        Self {
            copies: vec![0; pieces],
            without,
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
            return [u32::MAX, u32::MAX, WORLD];
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
        self.without.put(0, piece, copies == 0);
        for domain in domains.into_iter().filter(|domain| *domain != WORLD) {
            let at = domain as usize * self.copies.len() + piece;
            let copies = change(&mut self.counts[at]);
            self.inside.put(domain as usize, piece, copies > 0);
        }
    }

    /// Pieces of a word that may be sent to where these areas are entered.
    pub(super) fn may_enter(
        &self,
        word: usize,
        is_source: bool,
        crossed: &[Option<u32>; 2],
    ) -> u64 {
        let without = if is_source { self.without.row(0)[word] } else { u64::MAX };
        let entered = crossed.iter().flatten();
        entered.fold(without, |may, domain| may & !self.inside.row(*domain as usize)[word])
    }

    pub(super) fn may_piece_enter(
        &self,
        piece: usize,
        is_source: bool,
        crossed: &[Option<u32>; 2],
    ) -> bool {
        let (word, bit) = (piece / 64, 1 << (piece % 64));
        self.may_enter(word, is_source, crossed) & bit != 0
    }

    /// One of the pieces that `can` has, looked through from the piece `start` on.
    pub(super) fn pick(
        &self,
        start: usize,
        choice: Choice,
        can: impl Fn(usize) -> u64,
        random: &mut impl Rng,
    ) -> Option<usize> {
        let words = self.without.row(0).len();
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
