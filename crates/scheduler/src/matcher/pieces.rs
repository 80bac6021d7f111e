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
    /// By area: how many are there. One that nobody is in is given to the next that is new.
    inhabitants: Vec<u32>,
    vacant: Vec<u32>,
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
            inhabitants: vec![0],
            vacant: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn domains(&self) -> usize {
        self.inhabitants.len()
    }

    pub(super) fn len(&self) -> usize {
        self.copies.len()
    }

    /// The rack, the IDC and the world of a peer that comes. A source is in no rack of anybody's.
    pub(super) fn enter(&mut self, role: Role, place: Place) -> [u32; 3] {
        let domains = match role {
            Role::Source => [NOWHERE, NOWHERE, WORLD],
            Role::Node | Role::Taker => {
                let idc = self.idcs.get(&place.idc).copied();
                let idc = idc.unwrap_or_else(|| self.new_domain());
                let rack = self.racks.get(&(place.idc, place.rack)).copied();
                let rack = rack.unwrap_or_else(|| self.new_domain());
                self.idcs.insert(place.idc, idc);
                self.racks.insert((place.idc, place.rack), rack);
                [rack, idc, WORLD]
            }
        };
        for domain in domains.into_iter().filter(|domain| *domain != NOWHERE) {
            self.inhabitants[domain as usize] += 1;
        }
        domains
    }

    fn new_domain(&mut self) -> u32 {
        if let Some(domain) = self.vacant.pop() {
            return domain;
        }
        self.counts.resize(self.counts.len() + self.copies.len(), 0);
        self.inhabitants.push(0);
        self.inside.add() as u32
    }

    /// A peer that was in these areas goes; its copies are counted no more.
    pub(super) fn leave(&mut self, domains: [u32; 3]) {
        for domain in domains.into_iter().filter(|domain| *domain != NOWHERE && *domain != WORLD) {
            self.inhabitants[domain as usize] -= 1;
            if self.inhabitants[domain as usize] == 0 {
                self.idcs.retain(|_, known| *known != domain);
                self.racks.retain(|_, known| *known != domain);
                self.vacant.push(domain);
            }
        }
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
