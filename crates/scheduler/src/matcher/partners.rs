//! Who has to do with whom: a connection costs a handshake and memory at both ends, so a peer has few.

use super::crowd::fall;
use super::peers::Level;

/// One place of so many is kept for sources, whoever else there is; and one at least.
const FOR_SOURCES: u32 = 32;

/// One place of so many is kept for who is in another data centre, and as many more for who is in another rack: a piece
/// could not enter where everybody knows only neighbours.
const FOR_FARTHER: u32 = 8;

/// Who has less than one in so many of the partners that it may have, is taken by whoever is asked.
const POOR: u32 = 8;

/// How many partners of a peer are how near.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    all: u8,
    /// In the same rack; in the same data centre, those of the rack among them; and all nodes.
    within: [u8; 3],
}

/// Pairs, seen from both sides.
#[derive(Debug)]
pub(super) struct Partners {
    most: u32,
    counts: Vec<Counts>,
    /// By peer: `most` places, of which the first are taken.
    table: Vec<u32>,
    met: u64,
}

/// The smallest area that two nodes have in common; none where one of them is a source.
pub(super) type Nearness = Option<Level>;

impl Partners {
    /// None, and `most` for each at most.
    pub(super) fn new(most: u32) -> Self {
        let most = most.clamp(4, u8::MAX.into());
        Self { most, counts: Vec::new(), table: Vec::new(), met: 0 }
    }

    /// There are so many peers at least.
    pub(super) fn reach(&mut self, peers: usize) {
        let peers = peers.max(self.counts.len());
        self.counts.resize(peers, Counts::default());
        self.table.resize(peers * self.most as usize, 0);
    }

    pub(super) fn of(&self, peer: u32) -> &[u32] {
        let first = peer as usize * self.most as usize;
        &self.table[first..first + usize::from(self.counts[peer as usize].all)]
    }

    pub(super) fn are(&self, one: u32, other: u32) -> bool {
        // As many as there are at once: the compiler compares several in a step.
        self.of(one).iter().fold(false, |found, partner| found | (*partner == other))
    }

    /// Whether a peer may have one more that is so near. `is_whole` says of each area whether it is all there is.
    pub(super) fn has_room(&self, peer: u32, near: Nearness, is_whole: [bool; 2]) -> bool {
        let counts = &self.counts[peer as usize];
        let all = u32::from(counts.all) < self.most;
        let Some(level) = near else { return all };
        let nodes = self.most - (self.most / FOR_SOURCES).max(1);
        let farther = (self.most / FOR_FARTHER).max(1);
        let idc = nodes - if is_whole[1] { 0 } else { farther };
        let rack = idc - if is_whole[0] { 0 } else { farther };
        let fits = |level: Level, most| u32::from(counts.within[level as usize]) < most;
        let mut limits = [(Level::Rack, rack), (Level::Idc, idc), (Level::World, nodes)]
            .into_iter()
            .skip(level as usize);
        all && limits.all(|(level, most)| fits(level, most))
    }

    /// Whether it has so few that nobody may turn it away.
    pub(super) fn is_poor(&self, peer: u32) -> bool {
        u32::from(self.counts[peer as usize].all) < (self.most / POOR).max(1)
    }

    /// Two have to do with each other from now on. The caller has seen that there is room.
    pub(super) fn meet(&mut self, one: u32, other: u32, near: Nearness) {
        for (peer, partner) in [(one, other), (other, one)] {
            let counts = &mut self.counts[peer as usize];
            self.table[peer as usize * self.most as usize + usize::from(counts.all)] = partner;
            counts.all += 1;
            levels(near).for_each(|level| counts.within[level as usize] += 1);
        }
        self.met += 1;
    }

    /// Two have nothing to do with each other any more.
    pub(super) fn part(&mut self, one: u32, other: u32, near: Nearness) {
        for (peer, partner) in [(one, other), (other, one)] {
            let Some(at) = self.of(peer).iter().position(|known| *known == partner) else { return };
            let first = peer as usize * self.most as usize;
            let counts = &mut self.counts[peer as usize];
            counts.all -= 1;
            levels(near).for_each(|level| counts.within[level as usize] -= 1);
            self.table[first + at] = self.table[first + usize::from(counts.all)];
        }
    }

    /// A peer's partners, from where `lot` falls on.
    pub(super) fn around(&self, peer: u32, lot: u32) -> impl Iterator<Item = u32> {
        let all = self.of(peer);
        let (before, from) = all.split_at(fall(lot, all.len()));
        from.iter().chain(before).copied()
    }

    /// Pairs that have ever met: as many handshakes.
    pub(super) fn met(&self) -> u64 {
        self.met
    }
}

/// The areas in which a partner so near is counted.
fn levels(near: Nearness) -> impl Iterator<Item = Level> {
    let all = [Level::Rack, Level::Idc, Level::World];
    let first = near.map_or(all.len(), |level| level as usize);
    all.into_iter().skip(first)
}
