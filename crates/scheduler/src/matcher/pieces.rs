//! How many copies of each piece there are, and where.

use std::collections::BTreeMap;

use super::crowd::NOWHERE;
use super::peers::{Place, Role};
use super::rarity::Rarity;
use super::rows::Rows;

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

/// What may go from one peer to another, and the areas that it enters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) may: May,
    pub(super) entered: [Option<u32>; 2],
}

/// Copies that nodes have or are being sent. What a source has is none.
#[derive(Debug)]
pub(super) struct Pieces {
    copies: Vec<u32>,
    rarity: Rarity,
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
        let mut inside = Rows::new(pieces);
        inside.add();
        Self {
            copies: vec![0; pieces],
            rarity: Rarity::new(pieces),
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

    /// Words of a row of them.
    pub(super) fn words(&self) -> usize {
        self.copies.len().div_ceil(64)
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

    /// A peer that was in these areas goes; its copies are counted no more. The areas that nobody is left in.
    pub(super) fn leave(&mut self, domains: [u32; 3]) -> Vec<u32> {
        let mut left = Vec::new();
        for domain in domains.into_iter().filter(|domain| *domain != NOWHERE) {
            self.inhabitants[domain as usize] -= 1;
            if self.inhabitants[domain as usize] == 0 && domain != WORLD {
                self.idcs.retain(|_, known| *known != domain);
                self.racks.retain(|_, known| *known != domain);
                left.push(domain);
            }
        }
        self.vacant.extend(&left);
        left
    }

    pub(super) fn copies(&self, piece: usize) -> u32 {
        self.copies[piece]
    }

    pub(super) fn copies_in(&self, area: u32, piece: usize) -> u32 {
        self.counts[area as usize * self.copies.len() + piece]
    }

    /// One more copy in a place, or one less.
    pub(super) fn count(&mut self, domains: [u32; 3], piece: usize, is_there: bool) {
        let change = |count: &mut u32| {
            *count = if is_there { *count + 1 } else { *count - 1 };
            *count
        };
        let before = self.copies[piece];
        let copies = change(&mut self.copies[piece]);
        self.rarity.changes(piece, before, copies);
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

    /// The pieces that such a sender gives of those it has, by word; none: any.
    fn given(&self, may: May) -> Option<&[u64]> {
        match may {
            May::Anything => None,
            May::WithoutCopy => Some(self.rarity.without_copy()),
            May::OnlyCopy => Some(self.rarity.with_one()),
        }
    }

    /// What goes a way, of `some`: put into `into`, which has nothing yet.
    pub(super) fn useful(&self, some: [&[u64]; 2], way: &Way, into: &mut [u64]) {
        let [has, lacks] = some;
        let each = into.iter_mut().zip(has.iter().zip(lacks));
        each.for_each(|(useful, (has, lacks))| *useful = has & lacks);
        if let Some(given) = self.given(way.may) {
            into.iter_mut().zip(given).for_each(|(useful, given)| *useful &= given);
        }
        for entered in way.entered.iter().flatten() {
            let inside = self.inside.row(*entered as usize);
            into.iter_mut().zip(inside).for_each(|(useful, inside)| *useful &= !inside);
        }
    }

    /// Whether a piece may go a way.
    pub(super) fn may_go(&self, piece: usize, way: &Way) -> bool {
        let (word, bit) = (piece / 64, 1 << (piece % 64));
        let is_given = self.given(way.may).is_none_or(|given| given[word] & bit != 0);
        let mut entered = way.entered.iter().flatten();
        is_given && !entered.any(|area| self.inside.has(*area as usize, piece))
    }

    /// Those with as many copies as the rarest of `some`; the words of these that are not empty have `signs`.
    pub(super) fn as_the_rarest_of(&self, some: &[u64], signs: u64) -> Option<&[u64]> {
        self.rarity.as_the_rarest_of(some, signs)
    }

    /// Whether all nodes are in an area, of which there are `sources` besides.
    pub(super) fn is_everywhere(&self, domain: u32, sources: usize) -> bool {
        self.inhabitants[domain as usize] + sources as u32 >= self.inhabitants[WORLD as usize]
    }
}
