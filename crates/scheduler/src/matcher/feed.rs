//! Feeding: what a free uplink gives, and to whom.

use std::ops::Range;

use rand::RngExt;

use super::crowd::NOWHERE;
use super::peers::Level;
use super::pieces::{May, WORLD, Way};
use super::rarity::sign_of;
use super::rows::pieces_around;
use super::{Choice, Matcher, Micros, PeerNumber, Role, TICK};

/// Idle uplinks that are looked at when somebody has become hungry.
const WAKEN: usize = 8;

/// Receivers that are looked for when something has come into where they are.
const WAKEN_INSIDE: usize = 2;

/// Idle uplinks that are looked at when time has passed, or a piece has lost its last copy.
const WAKEN_BY_TIME: usize = 64;

/// Receivers that are looked at when time has passed, whether they starve.
const STARVING_BY_TIME: usize = 64;

/// Others that an uplink without room for them looks at besides its partners: some may be urgent.
const STRANGERS: usize = 2;

/// Pieces about as rare as the rarest that are compared for one receiver.
const COMPARED: usize = 16;

/// Pieces that are looked at for one receiver, whether nobody has them but who has none for it.
const DOUBTED: usize = 256;

/// What one decision is made from; kept from one to the next so that nothing is allocated where
/// nobody doubts anybody.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Receivers, and what would go to each, one after the other.
    drawn: Vec<u32>,
    useful: Vec<u64>,
    /// What would go to any of them.
    any: Vec<u64>,
    /// Uplinks that may have something for somebody.
    idle: Vec<u32>,
}

/// By what one receiver comes before another: copies of the piece, what it is being sent, what it has.
type Key = (u32, u32, u32);

impl Matcher {
    /// Something about a peer has changed: what it can give, or that it can take more.
    pub(super) fn look_at(&mut self, peer: u32) {
        if !self.peers.is_here(peer) {
            return;
        }
        let was_hungry = self.peers.is_hungry(peer);
        self.peers.refresh_hunger(peer, self.downlink);
        self.serve(peer);
        if !was_hungry {
            self.waken_for(peer);
        }
    }

    /// Lets uplinks look that had nothing to give: the nearest first.
    pub(super) fn waken_for(&mut self, to: u32) {
        if !self.peers.is_hungry(to) {
            return;
        }
        for at in 0..self.sources.len() {
            self.offer(self.sources[at], to);
        }
        let (mut looked_at, takes_strangers) = (0, self.is_urgent(to) || self.is_open(to));
        for (level, area) in self.areas_of(to) {
            let mut idle = std::mem::take(&mut self.draft.idle);
            idle.clear();
            self.draw_idle_partners(to, level, WAKEN - looked_at, &mut idle);
            if takes_strangers {
                self.draw_idle_strangers(to, area, WAKEN - looked_at, &mut idle);
            }
            looked_at += idle.len();
            // Whoever has failed it would be leased the same again.
            idle.sort_by_key(|from| self.doubts.has_failed(to, *from));
            for from in &idle {
                self.offer(*from, to);
            }
            self.draft.idle = idle;
            if looked_at >= WAKEN || !self.peers.is_hungry(to) {
                return;
            }
        }
    }

    /// Up to `most` idle uplinks that have to do with a receiver, as near as that.
    fn draw_idle_partners(&mut self, to: u32, level: Level, most: usize, into: &mut Vec<u32>) {
        let lot = self.random.random();
        let idle = self.peers.idle();
        let is_near = |from: &u32| self.is_within(*from, to, level);
        let partners = self.partners.around(to, lot).filter(|from| idle.has(*from));
        into.extend(partners.filter(is_near).take(most));
    }

    /// Others of an area that may come to have to do with it, until there are `most`.
    fn draw_idle_strangers(&mut self, to: u32, area: u32, most: usize, into: &mut Vec<u32>) {
        let lot = self.random.random();
        for from in self.peers.idle().sample(area, most - into.len(), lot) {
            if from != to && self.may_meet(from, to) && !self.partners.are(from, to) {
                into.push(from);
            }
        }
    }

    /// Has an uplink that has a slot give something to a receiver, and then to others.
    fn offer(&mut self, from: u32, to: u32) {
        if !self.peers.is_here(from) || !self.peers.is_hungry(to) || !self.has_slot(from) {
            return;
        }
        let is_never = from == to || self.is_apart(from, to) || self.is_shut(from, to);
        if is_never || !(self.partners.are(from, to) || self.may_meet(from, to)) {
            return;
        }
        self.draft.drawn.clear();
        self.draft.drawn.push(to);
        if self.lease_one(from, self.may(from)) {
            self.serve(from);
        }
    }

    /// A piece that has no copy any more, somewhere, may be given by who had nothing to give.
    pub(super) fn waken_for_lost(&mut self) {
        if self.pieces.take_lost() {
            self.waken_anybody();
        }
    }

    /// Lets uplinks look that had nothing to give, wherever they are.
    pub(super) fn waken_anybody(&mut self) {
        for at in 0..self.sources.len() {
            self.serve(self.sources[at]);
        }
        let lot = self.random.random();
        let idle = self.peers.idle().sample(WORLD, WAKEN_BY_TIME, lot);
        idle.collect::<Vec<_>>().into_iter().for_each(|one| self.serve(one));
    }

    /// Lets uplinks look for who was leased nothing for long, whether they had to do with it or not.
    pub(super) fn waken_for_starving(&mut self) {
        let lot = self.random.random();
        let hungry = self.peers.hungry().sample(WORLD, STARVING_BY_TIME, lot);
        let starving: Vec<u32> = hungry.filter(|to| self.is_urgent(*to)).collect();
        starving.into_iter().for_each(|to| self.waken_for(to));
    }

    /// Gives an uplink leases as long as there is a slot and something to give.
    pub(super) fn serve(&mut self, peer: u32) {
        if !self.peers.is_here(peer) || self.peers.role(peer) == Role::Taker {
            return;
        }
        while self.has_slot(peer) {
            if !self.feed(peer) {
                return self.peers.set_idle(peer, true);
            }
        }
        self.peers.set_idle(peer, false);
    }

    /// What an uplink may give of what it has.
    fn may(&self, from: u32) -> May {
        match self.peers.role(from) {
            Role::Source => May::WithoutCopy,
            Role::Node if self.is_gated(from) => May::OnlyCopy,
            Role::Node | Role::Taker => May::Anything,
        }
    }

    /// The way to a receiver: what may go there, and the areas that it enters.
    fn way(&self, from: u32, to: u32, may: May) -> Way {
        Way { may, entered: crossed(self.peers.domains(from), self.peers.domains(to)) }
    }

    pub(super) fn is_apart(&self, from: u32, to: u32) -> bool {
        self.doubts.is_apart(to, from)
    }

    /// The data centre that a piece enters, for one who is elsewhere. Where everybody is there is no way in.
    pub(super) fn way_in(&self, from: u32, to: u32) -> Option<u32> {
        let is_everywhere = |area: &u32| self.pieces.is_everywhere(*area, self.sources.len());
        self.entered(from, to).filter(|area| !is_everywhere(area))
    }

    /// Whether enough is on its way in.
    fn is_shut(&self, from: u32, to: u32) -> bool {
        self.way_in(from, to).is_some_and(|area| self.gates.room(area) == 0)
    }

    /// Lets uplinks look for others of an area: they may have waited for something to be through.
    pub(super) fn waken_inside(&mut self, area: u32) {
        let lot = self.random.random();
        let hungry: Vec<u32> = self.peers.hungry().sample(area, WAKEN_INSIDE, lot).collect();
        hungry.into_iter().for_each(|to| self.waken_for(to));
    }

    /// Leases one run of pieces to somebody, the nearest first; whether there was anything to give.
    fn feed(&mut self, from: u32) -> bool {
        let may = self.may(from);
        for (level, area) in self.areas_of(from) {
            self.draw_hungry(from, level, area);
            let Self { peers, doubts, draft, .. } = self;
            let is_last = |to: &mut u32| peers.is_struck(*to) || doubts.has_failed(*to, from);
            let last: Vec<u32> = draft.drawn.extract_if(.., is_last).collect();
            if self.lease_one(from, may) {
                return true;
            }
            self.draft.drawn = last;
            if self.lease_one(from, may) {
                return true;
            }
        }
        false
    }

    /// Draws receivers so near: strangers as long as there is room for them, then partners.
    fn draw_hungry(&mut self, from: u32, level: Level, area: u32) {
        let mut drawn = std::mem::take(&mut self.draft.drawn);
        drawn.clear();
        let lots: [u32; 2] = self.random.random();
        let (hungry, most) = (self.peers.hungry(), self.tuning.sampled);
        let sampled = if self.is_open(from) { most } else { STRANGERS.min(most) };
        let strangers = hungry
            .sample(area, sampled, lots[0])
            .filter(|to| *to != from && self.may_meet(from, *to) && !self.partners.are(from, *to));
        let is_out = |to: u32| self.is_apart(from, to) || self.is_shut(from, to);
        drawn.extend(strangers.filter(|to| !is_out(*to)));
        for to in self.partners.around(from, lots[1]) {
            if drawn.len() >= most {
                break;
            }
            if hungry.has(to) && self.is_within(from, to, level) && !is_out(to) {
                drawn.push(to);
            }
        }
        self.draft.drawn = drawn;
    }

    /// Leases the rarest useful piece to one of those that are drawn; whether there is any.
    fn lease_one(&mut self, from: u32, may: May) -> bool {
        if self.draft.drawn.is_empty() {
            return false;
        }
        let Some((to, piece)) = self.best_of_drawn(from, may) else { return false };
        if !self.meet(from, to) {
            return false;
        }
        self.grant(from, to, piece, &self.way(from, to, may));
        true
    }

    /// The rarest useful piece, and who of those drawn gets it: who is sent the least, and has the least.
    fn best_of_drawn(&mut self, from: u32, may: May) -> Option<(u32, usize)> {
        let mut draft = std::mem::take(&mut self.draft);
        let signs = self.find_useful(from, may, &mut draft);
        let best = if signs == 0 { None } else { self.best_of(&draft, signs) };
        self.draft = draft;
        best
    }

    fn best_of(
        &mut self,
        Draft { drawn, useful, any, .. }: &Draft,
        signs: u64,
    ) -> Option<(u32, usize)> {
        let start = self.random.random_range(0..self.pieces.len().max(1));
        let rare = match self.tuning.choice {
            Choice::Rarest => self.pieces.as_the_rarest_of(any, signs),
            Choice::Random => None,
        };
        let mut best: Option<(Key, (u32, usize))> = None;
        for (to, useful) in drawn.iter().zip(useful.chunks_exact(any.len())) {
            let can = |word: usize| useful[word] & rare.map_or(u64::MAX, |rare| rare[word]);
            let some = pieces_around(start, any.len(), can);
            let piece = match self.tuning.choice {
                Choice::Rarest => self
                    .ahead
                    .first_for_anybody(can)
                    .or_else(|| some.take(COMPARED).min_by_key(|piece| self.pieces.copies(*piece))),
                Choice::Random => some.into_iter().next(),
            };
            let Some(piece) = piece else { continue };
            let key = (self.pieces.copies(piece), self.peers.getting(*to), self.peers.held(*to));
            if best.is_none_or(|(known, _)| key < known) {
                // Who it is, is decided by what is rare: who reads in order gets no more than others do.
                // Of what it reads next the rare comes first, and nothing before what only one has: else who has much would
                // send the same to each reader.
                let next = self.ahead.first_of(*to, can).or_else(|| {
                    (key.0 > 1).then(|| self.ahead.first_of(*to, |word| useful[word])).flatten()
                });
                best = Some((key, (*to, next.unwrap_or(piece))));
            }
        }
        best.map(|(_, best)| best)
    }

    /// What would go to each of those drawn, and to any of them; the signs of words that are not empty.
    fn find_useful(&self, from: u32, may: May, draft: &mut Draft) -> u64 {
        let words = self.pieces.words();
        let Draft { drawn, useful, any, .. } = draft;
        useful.resize(drawn.len() * words, 0);
        any.clear();
        any.resize(words, 0);
        for (to, useful) in drawn.iter().zip(useful.chunks_exact_mut(words.max(1))) {
            let way = self.way(from, *to, may);
            self.pieces.useful(self.peers.has_and_lacks(from, *to), &way, useful);
            self.add_doubted(from, *to, &way, useful);
            any.iter_mut().zip(&*useful).for_each(|(any, useful)| *any |= useful);
        }
        let signs = any.iter().enumerate().filter(|(_, any)| **any != 0);
        signs.fold(0, |signs, (word, _)| signs | sign_of(word))
    }

    /// What may go to a receiver as nobody has it but those whose copies are none for it: some of that, where it is much.
    fn add_doubted(&self, from: u32, to: u32, way: &Way, useful: &mut [u64]) {
        if !self.doubts.has_any(to) {
            return;
        }
        let doubted = self.doubted(from, to);
        let [has, lacks] = self.peers.has_and_lacks(from, to);
        let kept: Vec<u64> = useful.to_vec();
        let rest = |word: usize| has[word] & lacks[word] & !kept[word];
        // Another part each time, so that all of it is looked at.
        let start = (self.now.0 / TICK) as usize * DOUBTED % self.pieces.len().max(1);
        let some = pieces_around(start, useful.len(), rest).take(DOUBTED);
        for piece in some.filter(|piece| self.may_go_past(&doubted, *piece, way)) {
            useful[piece / 64] |= 1 << (piece % 64);
        }
    }

    /// Those whose copies are none for a receiver, but the one that is to give.
    fn doubted(&self, from: u32, to: u32) -> Vec<u32> {
        self.doubts.of(to).filter(|one| *one != from).collect()
    }

    /// Whether a piece may go a way if these have none of it.
    fn may_go_past(&self, doubted: &[u32], piece: usize, way: &Way) -> bool {
        let all = doubted.len() as u32;
        let none_for_it = |area: u32| {
            let is_there = |one: &&u32| self.peers.domains(**one).contains(&area);
            let copies = doubted.iter().filter(is_there).filter(|one| self.is_copy(**one, piece));
            copies.count() as u32
        };
        let are_few = |copies: u32, area: u32, most: u32| {
            copies <= most.saturating_add(all) && copies.saturating_sub(none_for_it(area)) <= most
        };
        let most = match way.may {
            May::Anything => u32::MAX,
            May::WithoutCopy => 0,
            May::OnlyCopy => 1,
        };
        let mut entered = way.entered.iter().flatten();
        entered.all(|area| are_few(self.pieces.copies_in(*area, piece), *area, 0))
            && are_few(self.pieces.copies(piece), WORLD, most)
    }

    fn grant(&mut self, from: u32, to: u32, first: usize, way: &Way) {
        let doubted = self.doubted(from, to);
        let copies = self.pieces.copies(first);
        let is_next = |piece: usize| self.ahead.of(to).is_some_and(|run| run.contains(&piece));
        let is_as_good = |piece: usize| match is_next(first) {
            true if copies > 1 => is_next(piece),
            _ => self.pieces.copies(piece) == copies,
        };
        let suits = |piece: usize| {
            self.peers.has(from, piece)
                && self.peers.lacks(to, piece)
                && is_as_good(piece)
                && (self.pieces.may_go(piece, way) || self.may_go_past(&doubted, piece, way))
        };
        let most = (first + self.run_of(from, to)).min(self.pieces.len());
        let end = (first + 1..most).find(|piece| !suits(*piece)).unwrap_or(most);
        self.lease_run(from, to, first..end);
    }

    fn lease_run(&mut self, from: u32, to: u32, pieces: Range<usize>) {
        let counts = self.is_promising(from, to);
        for piece in pieces.clone() {
            self.peers.send(to, piece);
            if counts {
                self.count(to, piece, true);
            }
        }
        self.peers.begins(from, to, pieces.len() as u32, self.now);
        if let Some(area) = self.entered(from, to) {
            self.gates.begins(area, pieces.len() as u32);
        }
        self.peers.refresh_hunger(to, self.downlink);
        let due = Micros(self.now.0.saturating_add(self.patience(from, to)));
        let (pair, run) =
            ([PeerNumber(from), PeerNumber(to)], pieces.start as u32..pieces.end as u32);
        let lease = self.under_way.add(pair, run, [self.now, due], counts);
        self.out.push(lease);
    }
}

/// The areas that a piece on its way from one peer to another enters.
pub(super) fn crossed(from: [u32; 3], to: [u32; 3]) -> [Option<u32>; 2] {
    let entered = |level: Level| {
        let at = level as usize;
        (from[at] != to[at] && to[at] != NOWHERE).then_some(to[at])
    };
    [entered(Level::Rack), entered(Level::Idc)]
}
