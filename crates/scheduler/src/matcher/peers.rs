//! Who takes part, what each has and lacks, and how fast its uplink turned out to be.

use rand::Rng;

use super::crowd::{Crowd, NOWHERE};
use super::rows::{Rows, pieces_in};
use super::{Joining, Micros};

/// What a peer is in the swarm of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has the task from outside: the origin, or a seed that reads it for the others.
    Source,
    /// It is fed, and feeds others.
    Node,
    /// It is fed, and feeds nobody.
    Taker,
}

/// Where a peer is: numbers that the caller gives to the names of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Its data centre.
    pub idc: u32,
    /// Its rack in there.
    pub rack: u32,
}

/// How near; the areas of a peer are in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Rack,
    Idc,
    World,
}

/// Weight of what was measured last, one in so many.
const SMOOTH: u64 = 8;

/// Microseconds over which an uplink is measured at least.
const MEASURED_FOR: u64 = 50_000;

#[derive(Debug, Clone)]
struct Peer {
    role: Role,
    is_here: bool,
    counts: bool,
    /// Pieces that it is leased to give, and that it is sent.
    giving: u32,
    getting: u32,
    /// Leases that it gives, and may give.
    given: u32,
    slots: u32,
    /// When it was leased anything last, or joined.
    leased_at: Micros,
    /// A lease to it came to nothing, and nothing has come since.
    is_let_down: bool,
    /// From how many it is kept apart.
    apart: u32,
    /// Who said last that it has not got what it was leased to give, since it sent anything.
    denied_by: u32,
    /// Pieces that it has, and those that it wants, has not and is not being sent.
    held: u32,
    lacking: u32,
    domains: [u32; 3],
    hungry: [u32; 3],
    idle: [u32; 3],
    /// Bytes a second; zero while it is not known.
    rate: u64,
    /// Since when its uplink is measured, and what it sent since; it has never been idle meanwhile.
    measured_since: Micros,
    measured: u64,
    last_sent: Micros,
    /// Leases to it that came to nothing in a row, while their senders served others.
    strikes: u16,
    /// Since when.
    struck_at: Micros,
    /// Pieces that it may be leased at a time.
    window: u32,
    /// It did not send what it was leased to, and nothing since.
    is_doubtful: bool,
}

/// Peers by their numbers.
#[derive(Debug)]
pub(super) struct Peers {
    peers: Vec<Peer>,
    vacant: Vec<u32>,
    has: Rows,
    lacks: Rows,
    coming: Rows,
    /// What of that counts as a copy.
    expected: Rows,
    /// By piece: how many have it, whether they count or not.
    holders: Vec<u32>,
    /// By area.
    hungry: Vec<Crowd>,
    idle: Vec<Crowd>,
    /// Of all whose rate is known, and of the nodes among them.
    total_rate: u64,
    rated: u64,
    node_rate: u64,
    rated_nodes: u64,
}

impl Peers {
    pub(super) fn new(pieces: usize) -> Self {
        Self {
            peers: Vec::new(),
            vacant: Vec::new(),
            has: Rows::new(pieces),
            lacks: Rows::new(pieces),
            coming: Rows::new(pieces),
            expected: Rows::new(pieces),
            holders: vec![0; pieces],
            hungry: Vec::new(),
            idle: Vec::new(),
            total_rate: 0,
            rated: 0,
            node_rate: 0,
            rated_nodes: 0,
        }
    }

    pub(super) fn add(&mut self, joining: &Joining<'_>, domains: [u32; 3], now: Micros) -> u32 {
        let most = domains.into_iter().filter(|domain| *domain != NOWHERE).max().unwrap_or(0);
        let areas = self.hungry.len().max(most as usize + 1);
        self.hungry.resize(areas, Crowd::default());
        self.idle.resize(areas, Crowd::default());
        let peer = Peer {
            role: joining.role,
            is_here: true,
            counts: joining.role == Role::Node,
            giving: 0,
            getting: 0,
            given: 0,
            slots: joining.slots,
            leased_at: now,
            is_let_down: false,
            apart: 0,
            denied_by: NOWHERE,
            held: 0,
            lacking: 0,
            domains,
            hungry: [NOWHERE; 3],
            idle: [NOWHERE; 3],
            rate: 0,
            measured_since: Micros::default(),
            measured: 0,
            last_sent: Micros::default(),
            strikes: 0,
            struck_at: Micros::default(),
            window: 0,
            is_doubtful: false,
        };
        if let Some(number) = self.vacant.pop() {
            self.peers[number as usize] = peer;
            return number;
        }
        self.has.add();
        self.lacks.add();
        self.coming.add();
        self.expected.add();
        self.peers.push(peer);
        (self.peers.len() - 1) as u32
    }

    /// Takes a peer out; how many pieces it lacked.
    pub(super) fn remove(&mut self, number: u32) -> u64 {
        self.set_hungry(number, false);
        self.set_idle(number, false);
        self.forget_rate(number);
        let row = number as usize;
        let lacking = self.lacks.count(row);
        for piece in self.pieces_of(number) {
            self.holders[piece] -= 1;
        }
        self.has.clear(row);
        self.lacks.clear(row);
        self.coming.clear(row);
        self.expected.clear(row);
        self.peers[row].is_here = false;
        self.vacant.push(number);
        lacking as u64
    }

    fn peer(&self, number: u32) -> &Peer {
        &self.peers[number as usize]
    }

    fn peer_mut(&mut self, number: u32) -> &mut Peer {
        &mut self.peers[number as usize]
    }

    #[cfg(test)]
    pub(super) fn has_been_let_down(&self, number: u32) -> bool {
        self.peer(number).is_let_down
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> u32 {
        self.peers.len() as u32
    }

    pub(super) fn is_here(&self, number: u32) -> bool {
        self.peers.get(number as usize).is_some_and(|peer| peer.is_here)
    }

    /// It gives from now on, or does not. How fast it does turns out anew.
    pub(super) fn become_(&mut self, number: u32, role: Role) {
        self.forget_rate(number);
        self.set_idle(number, false);
        self.peer_mut(number).role = role;
    }

    pub(super) fn role(&self, number: u32) -> Role {
        self.peer(number).role
    }

    pub(super) fn domains(&self, number: u32) -> [u32; 3] {
        self.peer(number).domains
    }

    pub(super) fn giving(&self, number: u32) -> u32 {
        self.peer(number).giving
    }

    pub(super) fn getting(&self, number: u32) -> u32 {
        self.peer(number).getting
    }

    pub(super) fn held(&self, number: u32) -> u32 {
        self.peer(number).held
    }

    pub(super) fn has(&self, number: u32, piece: usize) -> bool {
        self.has.has(number as usize, piece)
    }

    pub(super) fn lacks(&self, number: u32, piece: usize) -> bool {
        self.lacks.has(number as usize, piece)
    }

    pub(super) fn has_and_lacks(&self, from: u32, to: u32) -> (&[u64], &[u64]) {
        (self.has.row(from as usize), self.lacks.row(to as usize))
    }

    pub(super) fn lacks_nothing(&self, number: u32) -> bool {
        let peer = self.peer(number);
        peer.lacking == 0 && peer.getting == 0
    }

    pub(super) fn pieces_of(&self, number: u32) -> Vec<usize> {
        let words = self.has.row(number as usize).iter().enumerate();
        words.flat_map(|(word, bits)| pieces_in(word, *bits)).collect()
    }

    /// It turned out not to have a piece; whether that is news.
    pub(super) fn lose(&mut self, number: u32, piece: usize) -> bool {
        let news = self.has.put(number as usize, piece, false);
        self.holders[piece] -= u32::from(news);
        self.peer_mut(number).held -= u32::from(news);
        news
    }

    /// It has a piece from now on; whether that is news.
    pub(super) fn gain(&mut self, number: u32, piece: usize) -> bool {
        let news = self.has.put(number as usize, piece, true);
        self.holders[piece] += u32::from(news);
        let lacked = self.lacks.put(number as usize, piece, false);
        let peer = self.peer_mut(number);
        peer.held += u32::from(news);
        peer.lacking -= u32::from(lacked);
        news
    }

    /// It wants a piece, or lacks it again; whether that is news.
    pub(super) fn want(&mut self, number: u32, piece: usize) -> bool {
        if self.has(number, piece) {
            return false;
        }
        let news = self.lacks.put(number as usize, piece, true);
        self.peer_mut(number).lacking += u32::from(news);
        news
    }

    /// It does not want a piece any more; whether it lacked it and was not being sent it.
    pub(super) fn forget(&mut self, number: u32, piece: usize) -> bool {
        let lacked = self.lacks.put(number as usize, piece, false);
        self.peer_mut(number).lacking -= u32::from(lacked);
        lacked
    }

    /// It is being sent a piece.
    pub(super) fn send(&mut self, number: u32, piece: usize) {
        let lacked = self.lacks.put(number as usize, piece, false);
        self.coming.put(number as usize, piece, true);
        self.peer_mut(number).lacking -= u32::from(lacked);
    }

    /// It is not being sent a piece any more.
    pub(super) fn arrived(&mut self, number: u32, piece: usize) {
        self.coming.put(number as usize, piece, false);
        self.expected.put(number as usize, piece, false);
    }

    /// What it is being sent counts as a copy, or not; whether that is news.
    pub(super) fn expect(&mut self, number: u32, piece: usize, is_expected: bool) -> bool {
        self.expected.put(number as usize, piece, is_expected)
    }

    pub(super) fn is_expected(&self, number: u32, piece: usize) -> bool {
        self.expected.has(number as usize, piece)
    }

    pub(super) fn is_coming(&self, number: u32, piece: usize) -> bool {
        self.coming.has(number as usize, piece)
    }

    /// Whether anybody has something that it lacks and is not being sent.
    pub(super) fn is_held_what_is_lacked(&self, number: u32) -> bool {
        let lacked = self.lacks.row(number as usize).iter().enumerate();
        let mut lacked = lacked.flat_map(|(word, bits)| pieces_in(word, *bits));
        lacked.any(|piece| self.holders[piece] > 0)
    }

    pub(super) fn begins(&mut self, from: u32, to: u32, pieces: u32, now: Micros) {
        let sender = self.peer_mut(from);
        if sender.giving == 0 {
            (sender.measured_since, sender.measured) = (now, 0);
        }
        sender.giving += pieces;
        sender.given += 1;
        let receiver = self.peer_mut(to);
        receiver.getting += pieces;
        receiver.leased_at = now;
    }

    pub(super) fn ends(&mut self, from: u32, to: u32, pieces: u32) {
        let sender = self.peer_mut(from);
        sender.giving -= pieces;
        sender.given -= 1;
        self.peer_mut(to).getting -= pieces;
    }

    /// Whether it may give one lease more.
    pub(super) fn has_slot(&self, number: u32) -> bool {
        let peer = self.peer(number);
        peer.given < peer.slots
    }

    pub(super) fn leased_at(&self, number: u32) -> Micros {
        self.peers.get(number as usize).map_or(Micros::default(), |peer| peer.leased_at)
    }

    /// A lease to it came to nothing.
    pub(super) fn let_down(&mut self, number: u32) {
        self.peer_mut(number).is_let_down = true;
    }

    /// Whether it is to be given whatever there is.
    pub(super) fn is_let_down(&self, number: u32) -> bool {
        let peer = self.peer(number);
        peer.is_let_down || peer.apart > 0
    }

    /// It is kept apart from one more, or one less.
    pub(super) fn parts(&mut self, number: u32, from: i32) {
        let peer = self.peer_mut(number);
        peer.apart = peer.apart.saturating_add_signed(from);
    }

    /// Somebody says that it has not got what it should; whether somebody else has said so since it sent anything.
    pub(super) fn is_denied_by(&mut self, number: u32, by: u32) -> bool {
        let before = std::mem::replace(&mut self.peer_mut(number).denied_by, by);
        before != NOWHERE && before != by
    }

    pub(super) fn is_hungry(&self, number: u32) -> bool {
        self.peer(number).hungry[Level::World as usize] != NOWHERE
    }

    /// It is hungry where it lacks something and its downlink takes more.
    pub(super) fn refresh_hunger(&mut self, number: u32, most: u32) {
        let peer = self.peer(number);
        // Who seems dead is tried again, with one.
        let most = if peer.strikes > 0 { 1 } else { most };
        let is_hungry = peer.is_here && peer.lacking > 0 && peer.getting < most;
        self.set_hungry(number, is_hungry);
    }

    fn set_hungry(&mut self, number: u32, is_in: bool) {
        enlist(&mut self.peers, &mut self.hungry, number, is_in, |peer| &mut peer.hungry);
    }

    /// Its uplink has a slot and nothing to give.
    pub(super) fn set_idle(&mut self, number: u32, is_in: bool) {
        enlist(&mut self.peers, &mut self.idle, number, is_in, |peer| &mut peer.idle);
    }

    pub(super) fn hungry(
        &self,
        domain: u32,
        most: usize,
        random: &mut impl Rng,
    ) -> impl Iterator<Item = u32> {
        self.hungry[domain as usize].sample(most, random)
    }

    pub(super) fn idle(
        &self,
        domain: u32,
        most: usize,
        random: &mut impl Rng,
    ) -> impl Iterator<Item = u32> {
        self.idle[domain as usize].sample(most, random)
    }

    pub(super) fn counts(&self, number: u32) -> bool {
        self.peer(number).counts
    }

    pub(super) fn set_counts(&mut self, number: u32, counts: bool) {
        self.peer_mut(number).counts = counts;
    }

    /// Its uplink has sent so many bytes; its rate, where that was measured. Reports come together: a rate is of some
    /// time.
    pub(super) fn sent(&mut self, number: u32, bytes: u64, now: Micros) -> Option<u64> {
        let peer = self.peer_mut(number);
        (peer.last_sent, peer.measured) = (now, peer.measured + bytes);
        peer.is_doubtful = false;
        peer.denied_by = NOWHERE;
        let took = now.0.saturating_sub(peer.measured_since.0);
        if took < MEASURED_FOR && (peer.rate > 0 || took == 0) {
            return None;
        }
        let measured = u128::from(peer.measured) * 1_000_000 / u128::from(took);
        let measured = u64::try_from(measured).unwrap_or(u64::MAX >> 8);
        (peer.measured_since, peer.measured) = (now, 0);
        let rate = match peer.rate {
            0 => measured,
            known => known - known / SMOOTH + measured / SMOOTH,
        };
        self.set_rate(number, rate.max(1));
        Some(rate)
    }

    /// It may be leased more pieces at a time, up to so many: each time it was measured twice as many. What the queues
    /// on the way take at first says nothing of what they take for long.
    pub(super) fn widen(&mut self, number: u32, most: u32, least: u32) {
        let peer = self.peer_mut(number);
        peer.window = most.min(peer.window.max(least / 2).saturating_mul(2));
    }

    /// Pieces that it may be leased at a time.
    pub(super) fn window(&self, number: u32) -> u32 {
        self.peer(number).window
    }

    /// A lease came to nothing. Where the sender served others meanwhile, or since others failed the receiver too, it
    /// is the receiver's fault; else the sender is slower than that.
    pub(super) fn disappoint(
        &mut self,
        from: u32,
        to: u32,
        bytes: u64,
        since: Micros,
        now: Micros,
    ) {
        let last_sent = self.peer(from).last_sent;
        let receiver = self.peer_mut(to);
        let is_struck = receiver.strikes > 0;
        if last_sent > since || (is_struck && last_sent > receiver.struck_at) {
            receiver.strikes = receiver.strikes.saturating_add(1);
            receiver.struck_at = if is_struck { receiver.struck_at } else { now };
            return;
        }
        self.peer_mut(from).is_doubtful = true;
        let took = u128::from(now.0.saturating_sub(since.0).max(1));
        let most = u64::try_from(u128::from(bytes) * 1_000_000 / took).unwrap_or(u64::MAX >> 8);
        let known = self.peer(from).rate;
        let rate = if known == 0 { most } else { most.min(known / 2) };
        self.set_rate(from, rate.max(1));
    }

    /// Whether nothing came of what it was leased last, though its senders served others.
    pub(super) fn is_struck(&self, number: u32) -> bool {
        self.peer(number).strikes > 0
    }

    /// Whether it is tried with one lease at a time.
    pub(super) fn is_doubtful(&self, number: u32) -> bool {
        self.peer(number).is_doubtful
    }

    /// Something has come to it; whether nothing did before.
    pub(super) fn forgive(&mut self, number: u32) -> bool {
        let peer = self.peer_mut(number);
        peer.is_let_down = false;
        std::mem::take(&mut peer.strikes) > 0
    }

    fn set_rate(&mut self, number: u32, rate: u64) {
        self.forget_rate(number);
        let peer = self.peer_mut(number);
        peer.rate = rate;
        let node = u64::from(peer.role == Role::Node);
        self.total_rate += rate;
        self.rated += 1;
        self.node_rate += rate * node;
        self.rated_nodes += node;
    }

    fn forget_rate(&mut self, number: u32) {
        let peer = self.peer_mut(number);
        let rate = std::mem::take(&mut peer.rate);
        let node = u64::from(peer.role == Role::Node && rate > 0);
        self.total_rate -= rate;
        self.rated -= u64::from(rate > 0);
        self.node_rate -= rate * node;
        self.rated_nodes -= node;
    }

    /// Bytes a second of an uplink in the mean, as far as they are known.
    pub(super) fn mean_rate(&self) -> u64 {
        self.total_rate.checked_div(self.rated).unwrap_or(0)
    }

    /// Bytes a second: its own, of the nodes in the mean, of all together. None while its own is not known. One node
    /// has only sources to be compared with.
    pub(super) fn rates(&self, number: u32) -> Option<(u64, u64, u64)> {
        let own = self.peer(number).rate;
        let mean = match self.rated_nodes {
            0 | 1 => self.mean_rate(),
            nodes => self.node_rate / nodes,
        };
        (own > 0).then_some((own, mean, self.total_rate))
    }
}

/// Puts a peer into the crowds of its areas, or takes it out of them.
fn enlist(
    peers: &mut [Peer],
    crowds: &mut [Crowd],
    number: u32,
    is_in: bool,
    places: impl Fn(&mut Peer) -> &mut [u32; 3],
) {
    let peer = &mut peers[number as usize];
    let domains = peer.domains;
    if (places(peer)[Level::World as usize] != NOWHERE) == is_in {
        return;
    }
    for (level, domain) in domains.into_iter().enumerate().filter(|(_, domain)| *domain != NOWHERE)
    {
        let crowd = &mut crowds[domain as usize];
        let place = &mut places(&mut peers[number as usize])[level];
        if is_in {
            *place = crowd.add(number);
            continue;
        }
        let left = std::mem::replace(place, NOWHERE);
        if let Some(moved) = crowd.take(left) {
            places(&mut peers[moved as usize])[level] = left;
        }
    }
}
