//! Who takes part, what each has and lacks, and how fast its uplink turned out to be.

use super::crowd::{Crowds, NOWHERE};
use super::rows::{Rows, pieces_in};
use super::uplinks::{Rates, Uplink, rate_of};
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

/// A time that does not come.
const NEVER: Micros = Micros(u64::MAX);

/// Who has no name here any more.
const SOMEBODY: u32 = NOWHERE - 1;

/// What there is one of for each of very many peers is kept small.
fn clipped(count: u32) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[derive(Debug, Clone)]
struct Peer {
    role: Role,
    is_here: bool,
    counts: bool,
    /// Pieces that it is leased to give, and that it is sent.
    giving: u32,
    getting: u32,
    /// Leases that it gives, and may give.
    given: u16,
    slots: u16,
    /// When it was leased anything last, or joined.
    leased_at: Micros,
    /// A lease to it came to nothing, and nothing has come since.
    is_let_down: bool,
    /// Who said last that it has not got what it was leased to give, since it sent anything.
    denied_by: u32,
    /// Pieces that it has, and those that it wants, has not and is not being sent.
    held: u32,
    lacking: u32,
    domains: [u32; 3],
    uplink: Uplink,
    /// Since when leases to it come to nothing while their senders serve others.
    struck_at: Micros,
    /// Pieces that it may be leased at a time.
    window: u16,
    /// It did not send what it was leased to, and nothing since.
    is_doubtful: bool,
    /// When that changed what is thought of its rate.
    disappointed_at: Micros,
}

/// Peers by their numbers.
#[derive(Debug)]
pub(super) struct Peers {
    peers: Vec<Peer>,
    vacant: Vec<u32>,
    has: Rows,
    lacks: Rows,
    coming: Rows,
    /// By piece: how many have it, whether they count or not.
    holders: Vec<u32>,
    hungry: Crowds,
    idle: Crowds,
    rates: Rates,
}

impl Peers {
    pub(super) fn new(pieces: usize) -> Self {
        Self {
            peers: Vec::new(),
            vacant: Vec::new(),
            has: Rows::new(pieces),
            lacks: Rows::new(pieces),
            coming: Rows::new(pieces),
            holders: vec![0; pieces],
            hungry: Crowds::default(),
            idle: Crowds::default(),
            rates: Rates::default(),
        }
    }

    pub(super) fn add(&mut self, joining: &Joining<'_>, domains: [u32; 3], now: Micros) -> u32 {
        let peer = Peer {
            role: joining.role,
            is_here: true,
            counts: joining.role == Role::Node,
            giving: 0,
            getting: 0,
            given: 0,
            slots: clipped(joining.slots),
            leased_at: now,
            is_let_down: false,
            denied_by: NOWHERE,
            held: 0,
            lacking: 0,
            domains,
            uplink: Uplink::default(),
            struck_at: NEVER,
            window: 0,
            is_doubtful: false,
            disappointed_at: Micros::default(),
        };
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.has.add();
            self.lacks.add();
            self.coming.add();
            self.peers.push(peer.clone());
            (self.peers.len() - 1) as u32
        });
        self.peers[number as usize] = peer;
        let most = domains.into_iter().filter(|domain| *domain != NOWHERE).max().unwrap_or(0);
        for crowds in [&mut self.hungry, &mut self.idle] {
            crowds.reach(most as usize + 1, self.peers.len());
        }
        number
    }

    /// Takes a peer out; how many pieces it lacked.
    pub(super) fn remove(&mut self, number: u32) -> u64 {
        let domains = self.domains(number);
        self.hungry.put(number, domains, false);
        self.set_idle(number, false);
        self.set_rate(number, 0);
        let row = number as usize;
        let lacking = self.lacks.count(row);
        for piece in self.pieces_of(number) {
            self.holders[piece] -= 1;
        }
        self.has.clear(row);
        self.lacks.clear(row);
        self.coming.clear(row);
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

    /// Numbers that have ever been given.
    pub(super) fn count(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn is_here(&self, number: u32) -> bool {
        self.peers.get(number as usize).is_some_and(|peer| peer.is_here)
    }

    /// It gives from now on, or does not. How fast it does turns out anew.
    pub(super) fn become_(&mut self, number: u32, role: Role) {
        self.set_rate(number, 0);
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

    pub(super) fn has_and_lacks(&self, from: u32, to: u32) -> [&[u64]; 2] {
        [self.has.row(from as usize), self.lacks.row(to as usize)]
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
            sender.uplink.begins(now);
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

    /// Whether one did, and nothing has come to it since.
    pub(super) fn is_let_down(&self, number: u32) -> bool {
        self.peer(number).is_let_down
    }

    /// Somebody says that it has not got what it should; whether somebody else has said so since it sent anything.
    pub(super) fn is_denied_by(&mut self, number: u32, by: u32) -> bool {
        let before = std::mem::replace(&mut self.peer_mut(number).denied_by, by);
        before != NOWHERE && before != by
    }

    /// If it was this one who said so, it was somebody.
    pub(super) fn forget_name(&mut self, number: u32, by: u32) {
        let denied_by = &mut self.peer_mut(number).denied_by;
        if *denied_by == by {
            *denied_by = SOMEBODY;
        }
    }

    pub(super) fn is_hungry(&self, number: u32) -> bool {
        self.hungry.has(number)
    }

    /// It is hungry where it lacks something and its downlink takes more.
    pub(super) fn refresh_hunger(&mut self, number: u32, most: u32) {
        let peer = &self.peers[number as usize];
        // Who seems dead is tried again, with one.
        let most = if peer.struck_at == NEVER { most } else { 1 };
        let is_hungry = peer.is_here && peer.lacking > 0 && peer.getting < most;
        self.hungry.put(number, peer.domains, is_hungry);
    }

    /// Its uplink has a slot and nothing to give.
    pub(super) fn set_idle(&mut self, number: u32, is_in: bool) {
        self.idle.put(number, self.peers[number as usize].domains, is_in);
    }

    pub(super) fn hungry(&self) -> &Crowds {
        &self.hungry
    }

    pub(super) fn idle(&self) -> &Crowds {
        &self.idle
    }

    pub(super) fn counts(&self, number: u32) -> bool {
        self.peer(number).counts
    }

    pub(super) fn set_counts(&mut self, number: u32, counts: bool) {
        self.peer_mut(number).counts = counts;
    }

    /// Its uplink has sent so many bytes; its rate, where that was measured.
    pub(super) fn sent(
        &mut self,
        number: u32,
        bytes: u64,
        enough: u64,
        now: Micros,
    ) -> Option<u64> {
        let peer = self.peer_mut(number);
        peer.is_doubtful = false;
        peer.denied_by = NOWHERE;
        let rate = peer.uplink.sent(bytes, enough, now)?;
        self.set_rate(number, rate);
        Some(rate)
    }

    fn set_rate(&mut self, number: u32, rate: u64) {
        let peer = &mut self.peers[number as usize];
        self.rates.set(&mut peer.uplink, peer.role, rate);
    }

    /// Its rate was known before it came, and what it is leased by that.
    pub(super) fn begins_with(&mut self, number: u32, rate: u64, window: u32) {
        self.peer_mut(number).window = clipped(window);
        self.set_rate(number, rate);
    }

    /// It may be leased more pieces at a time, up to so many: each time it was measured twice as many. What the queues
    /// on the way take at first says nothing of what they take for long.
    pub(super) fn widen(&mut self, number: u32, most: u32, least: u32) {
        let peer = self.peer_mut(number);
        let wider = u32::from(peer.window).max(least / 2).saturating_mul(2);
        peer.window = clipped(wider.min(most));
    }

    /// Pieces that it may be leased at a time.
    pub(super) fn window(&self, number: u32) -> u32 {
        self.peer(number).window.into()
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
        let last_sent = self.peer(from).uplink.last_sent();
        let receiver = self.peer_mut(to);
        if last_sent > since || last_sent > receiver.struck_at {
            receiver.struck_at = receiver.struck_at.min(now);
            return;
        }
        let sender = self.peer_mut(from);
        sender.is_doubtful = true;
        if since < sender.disappointed_at {
            // It came to nothing of the same cause as the one before.
            return;
        }
        sender.disappointed_at = now;
        let rate = match sender.uplink.rate() {
            0 => rate_of(bytes, now.0.saturating_sub(since.0)),
            known => known / 2,
        };
        self.set_rate(from, rate.max(1));
    }

    /// It is tried with one lease at a time, where it has sent nobody anything since.
    pub(super) fn doubt_if_mute(&mut self, number: u32, since: Micros) {
        let peer = self.peer_mut(number);
        peer.is_doubtful |= peer.uplink.last_sent() <= since;
    }

    /// Whether nothing came of what it was leased last, though its senders served others.
    pub(super) fn is_struck(&self, number: u32) -> bool {
        self.peer(number).struck_at != NEVER
    }

    /// Whether it is tried with one lease at a time.
    pub(super) fn is_doubtful(&self, number: u32) -> bool {
        self.peer(number).is_doubtful
    }

    /// Something has come to it; whether nothing did before.
    pub(super) fn forgive(&mut self, number: u32) -> bool {
        let peer = self.peer_mut(number);
        peer.is_let_down = false;
        std::mem::replace(&mut peer.struck_at, NEVER) != NEVER
    }

    /// Bytes a second of its uplink; none while that is not known.
    pub(super) fn rate(&self, number: u32) -> Option<u64> {
        Some(self.peer(number).uplink.rate()).filter(|rate| *rate > 0)
    }

    /// Those of all.
    pub(super) fn rates(&self) -> &Rates {
        &self.rates
    }
}
