//! Who may come to have to do with whom: the matcher draws from partners, and from others as long as there is room.

use rand::RngExt;

use super::crowd::NOWHERE;
use super::partners::Nearness;
use super::peers::Level;
use super::pieces::WORLD;
use super::{Matcher, Role};

/// Whoever is hungry and was leased nothing for so long, in microseconds, is taken by anybody.
const STARVED_FOR: u64 = 1_000_000;

impl Matcher {
    /// The areas of a peer in which it is looked for others, the nearest first. Of some that are the same the farthest.
    pub(super) fn areas_of(&self, peer: u32) -> impl Iterator<Item = (Level, u32)> + use<> {
        let areas = self.peers.domains(peer);
        let is_same = |area| area != WORLD && self.pieces.is_everywhere(area, self.sources.len());
        let is_there = areas.map(|area| area != NOWHERE && !is_same(area));
        let all = [Level::Rack, Level::Idc, Level::World].into_iter().zip(areas).zip(is_there);
        all.filter(|(_, is_there)| *is_there).map(|(area, _)| area)
    }

    /// Whether two are no farther from each other than that.
    pub(super) fn is_within(&self, one: u32, other: u32, level: Level) -> bool {
        level == Level::World
            || self.nearness(one, other).is_some_and(|near| near as u32 <= level as u32)
    }

    /// The smallest area that two nodes have in common.
    pub(super) fn nearness(&self, one: u32, other: u32) -> Nearness {
        let (one, other) = (self.peers.domains(one), self.peers.domains(other));
        if one[0] == NOWHERE || other[0] == NOWHERE {
            None
        } else if one[0] == other[0] {
            Some(Level::Rack)
        } else if one[1] == other[1] {
            Some(Level::Idc)
        } else {
            Some(Level::World)
        }
    }

    fn has_room(&self, peer: u32, near: Nearness) -> bool {
        let is_whole = match near {
            None | Some(Level::World) => [true; 2],
            Some(Level::Rack | Level::Idc) => {
                let [rack, idc, _] = self.peers.domains(peer);
                [rack, idc].map(|area| self.pieces.is_everywhere(area, self.sources.len()))
            }
        };
        self.partners.has_room(peer, near, is_whole)
    }

    /// Whether it may come to have to do with anybody whom it has nothing to do with, however far away.
    pub(super) fn is_open(&self, peer: u32) -> bool {
        let is_source = self.peers.role(peer) == Role::Source;
        self.has_room(peer, if is_source { None } else { Some(Level::World) })
    }

    /// Whether nobody may turn a receiver away: it has next to no partners, or was leased nothing for long.
    pub(super) fn is_urgent(&self, to: u32) -> bool {
        self.partners.is_poor(to)
            || self.now.0 >= self.peers.leased_at(to).0.saturating_add(STARVED_FOR)
    }

    /// Whether two that are no partners may become some.
    pub(super) fn may_meet(&self, from: u32, to: u32) -> bool {
        if self.is_urgent(to) {
            return true;
        }
        let near = self.nearness(from, to);
        self.has_room(from, near) && self.has_room(to, near)
    }

    /// Makes two partners, if they are not; whether they are then. Who has no room gives one up that it has nothing to
    /// do with at the moment.
    pub(super) fn meet(&mut self, from: u32, to: u32) -> bool {
        if self.partners.are(from, to) {
            return true;
        }
        let near = self.nearness(from, to);
        for peer in [from, to] {
            if !self.has_room(peer, near) && !self.make_room(peer) {
                return false;
            }
        }
        self.partners.meet(from, to, near);
        true
    }

    fn make_room(&mut self, peer: u32) -> bool {
        let lot = self.random.random();
        let is_spare = |partner: &u32| {
            !self.under_way.is_between(peer, *partner) && self.peers.role(*partner) != Role::Source
        };
        let Some(spare) = self.partners.around(peer, lot).find(is_spare) else { return false };
        self.end_pair(peer, spare);
        self.parted.push((peer, spare));
        true
    }

    /// A peer goes, and has to do with nobody any more.
    pub(super) fn part_all(&mut self, peer: u32) {
        while let Some(partner) = self.partners.of(peer).last().copied() {
            self.end_pair(peer, partner);
            self.parted.push((peer, partner));
        }
    }

    /// What they said of each other was said by somebody: their numbers may become others'.
    fn end_pair(&mut self, one: u32, other: u32) {
        self.partners.part(one, other, self.nearness(one, other));
        self.peers.forget_name(one, other);
        self.peers.forget_name(other, one);
        self.doubts.forget_failures(one, other);
    }
}
