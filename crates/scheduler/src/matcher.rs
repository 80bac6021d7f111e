//! The matcher of strategy `swarm`: whenever an uplink is free it is leased the rarest useful piece for one of a few
//! hungry receivers, the nearest first.
//!
//! One matcher is one task's swarm. It owns who has which piece, what is on its way, and how fast uplinks turned out to
//! be; peers and places are small numbers that the caller gives meaning to.
//!
//! What always holds: a lease is from who has the piece to who neither has it nor is being sent it; a source gives only
//! what no counting node has or is being sent; a piece enters an area that has or imports it already from nowhere but
//! inside; nobody gives or takes more leases at a time than [`Tuning`] says. A node whose uplink is far slower than the
//! others does not count as a holder: what only it has may be given again.

mod crowd;
mod leases;
mod peers;
mod pieces;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crowd::NOWHERE;
use leases::Leases;
pub use leases::{Lease, LeaseId};
use peers::{Level, Peers};
pub use peers::{Place, Role};
use pieces::{May, Pieces, WORLD};

/// A point in time, in microseconds on a clock that only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub u64);

/// Names a peer within one matcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerNumber(pub u32);

/// How a piece is chosen among the useful ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// One of those that the fewest have.
    #[default]
    Rarest,
    /// Any.
    Random,
}

/// Bounds of one task's matching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Receivers looked at for one lease.
    pub sampled: usize,
    /// Pieces that an uplink is leased at a time: enough to hide the way to the scheduler and back.
    pub uplink: u32,
    /// As many more as it sends in so many microseconds, once it is known how fast it is; none where that is zero.
    pub window: u64,
    /// Leases that a receiver is sent at a time.
    pub downlink: u32,
    /// Pieces in one lease at most: as many as an uplink sends in [`LEASED_FOR`].
    pub run: u16,
    /// Which piece goes.
    pub choice: Choice,
    /// Who is so many times slower than the mean does not count as a holder.
    pub straggler: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            sampled: 8,
            uplink: 10,
            window: 50_000,
            downlink: 20,
            run: 64,
            choice: Choice::Rarest,
            straggler: 8,
        }
    }
}

/// Idle uplinks that are looked at when somebody has become hungry.
const WAKEN: usize = 8;

/// Idle uplinks that are looked at when time has passed, or a piece has lost its last copy.
const WAKEN_BY_TIME: usize = 64;

/// A lease of an uplink whose rate is known may take so many times what it should, and [`LEAST_PATIENCE`].
const PATIENCE: u64 = 4;

/// However fast an uplink is, in microseconds.
const LEAST_PATIENCE: u64 = 400_000;

/// However slow the uplink of a node is: there are others. A source is waited for, and who is not known yet.
const MOST_PATIENCE: u64 = 4_000_000;

/// After so long without anything carried out a slow uplink is better than none.
const STANDSTILL: u64 = 1_000_000;

/// Time passes at least so often while anything is wanted.
const TICK: u64 = 100_000;

/// Microseconds of an uplink that one lease takes: a piece more is never for less.
const LEASED_FOR: u64 = 5_000;

/// Leases that an uplink has at a time at least, once it is leased long runs.
const LEASES_IN_A_WINDOW: u32 = 8;

/// However fast it is, an uplink is leased no more pieces at a time.
const MOST_LEASED: u32 = 1024;

/// How long who could not reach another is not leased to it again, in microseconds.
const APART: u64 = 5_000_000;

/// Why a lease was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The sender does not have it, or has something else.
    NotThere,
    /// The receiver does not want it any more.
    Unwanted,
    /// The two do not reach each other: each is left to others for a while.
    Apart,
    /// Anything else: the sender is left alone for a moment.
    Other,
}

/// One task's swarm.
#[derive(Debug)]
pub struct Matcher {
    tuning: Tuning,
    piece_bytes: u64,
    random: StdRng,
    now: Micros,
    peers: Peers,
    pieces: Pieces,
    under_way: Leases,
    /// Pieces that nodes want and do not have.
    outstanding: u64,
    /// When anything was carried out last.
    moved: Micros,
    /// Always looked at first: they have what nobody else has.
    sources: Vec<u32>,
    /// Who is not leased to whom, each until when.
    apart: BTreeMap<(u32, u32), Micros>,
    out: Vec<Lease>,
    withdrawn: Vec<Lease>,
}

/// A peer that takes part from now on.
#[derive(Debug, Clone)]
pub struct Joining<'a> {
    /// What it is.
    pub role: Role,
    /// Where it is.
    pub place: Place,
    /// Pieces that it has.
    pub has: &'a [Range<u32>],
    /// Pieces that it wants; those it has too change nothing.
    pub wants: &'a [Range<u32>],
}

impl Matcher {
    /// A swarm without peers, of `pieces` pieces of `piece_bytes` each. Equal seeds and events give equal leases.
    pub fn new(pieces: u32, piece_bytes: u64, tuning: Tuning, seed: u64) -> Self {
        Self {
            tuning,
            piece_bytes: piece_bytes.max(1),
            random: StdRng::seed_from_u64(seed),
            now: Micros::default(),
            peers: Peers::new(pieces as usize),
            pieces: Pieces::new(pieces as usize),
            under_way: Leases::named_from(seed),
            outstanding: 0,
            moved: Micros::default(),
            sources: Vec::new(),
            apart: BTreeMap::new(),
            out: Vec::new(),
            withdrawn: Vec::new(),
        }
    }

    /// A peer joins.
    pub fn join(&mut self, joining: &Joining<'_>, now: Micros) -> PeerNumber {
        self.advance(now);
        let domains = self.pieces.domains_of(joining.role, joining.place);
        let peer = self.peers.add(joining.role, domains);
        let all = 0..self.pieces.len() as u32;
        let within = |range: &Range<u32>| range.start.min(all.end)..range.end.min(all.end);
        for piece in joining.has.iter().flat_map(within) {
            if self.peers.gain(peer, piece as usize) {
                self.count(peer, piece as usize, true);
            }
        }
        for piece in joining.wants.iter().flat_map(within) {
            self.outstanding += u64::from(self.peers.want(peer, piece as usize));
        }
        if joining.role == Role::Source {
            self.sources.push(peer);
        }
        self.peers.refresh_hunger(peer, self.downlink());
        self.serve(peer);
        self.waken_for(peer);
        PeerNumber(peer)
    }

    /// A peer has these pieces, however they came: by a lease that was withdrawn, or from elsewhere.
    pub fn gained(&mut self, peer: PeerNumber, pieces: Range<u32>, now: Micros) {
        self.advance(now);
        let PeerNumber(peer) = peer;
        if !self.peers.is_here(peer) {
            return;
        }
        for piece in pieces.start..pieces.end.min(self.pieces.len() as u32) {
            self.gain(peer, piece as usize);
        }
        self.look_at(peer);
    }

    /// A peer wants these pieces too.
    pub fn want(&mut self, peer: PeerNumber, pieces: Range<u32>, now: Micros) {
        self.advance(now);
        let PeerNumber(peer) = peer;
        if !self.peers.is_here(peer) {
            return;
        }
        for piece in pieces.start..pieces.end.min(self.pieces.len() as u32) {
            if !self.peers.is_coming(peer, piece as usize) {
                self.outstanding += u64::from(self.peers.want(peer, piece as usize));
            }
        }
        self.look_at(peer);
    }

    /// A peer does not want these pieces any more. What is being sent to it comes all the same.
    pub fn forget(&mut self, peer: PeerNumber, pieces: Range<u32>, now: Micros) {
        self.advance(now);
        let PeerNumber(peer) = peer;
        if !self.peers.is_here(peer) {
            return;
        }
        for piece in pieces.start..pieces.end.min(self.pieces.len() as u32) {
            self.outstanding -= u64::from(self.peers.forget(peer, piece as usize));
        }
        self.look_at(peer);
    }

    /// A lease that is out.
    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.under_way.get(id).map(|out| out.lease)
    }

    /// It has a piece from now on. One that is on its way to it is counted since then.
    fn gain(&mut self, peer: u32, piece: usize) {
        let was_wanted = self.peers.is_coming(peer, piece) || self.peers.lacks(peer, piece);
        let is_counted = self.peers.is_expected(peer, piece);
        if self.peers.gain(peer, piece) {
            self.outstanding -= u64::from(was_wanted);
            if !is_counted {
                self.count(peer, piece, true);
            }
        }
    }

    /// It turned out not to have a piece; what is being sent to it still comes.
    fn lose(&mut self, peer: u32, piece: usize) {
        if !self.peers.lose(peer, piece) {
            return;
        }
        self.outstanding += u64::from(self.peers.is_coming(peer, piece));
        if !self.peers.is_expected(peer, piece) {
            self.count(peer, piece, false);
        }
    }

    /// A peer is gone: so is what it was sending and being sent, and its copies.
    pub fn leave(&mut self, peer: PeerNumber, now: Micros) {
        self.advance(now);
        let PeerNumber(peer) = peer;
        if !self.peers.is_here(peer) {
            return;
        }
        let leases = self.under_way.of(peer);
        let dropped: Vec<Lease> = leases.into_iter().filter_map(|id| self.drop_lease(id)).collect();
        for piece in self.peers.pieces_of(peer) {
            self.count(peer, piece, false);
        }
        self.outstanding -= self.peers.remove(peer);
        self.apart.retain(|(from, to), _| *from != peer && *to != peer);
        self.sources.retain(|source| *source != peer);
        for Lease { from: PeerNumber(from), to: PeerNumber(to), .. } in dropped {
            self.look_at(from);
            self.look_at(to);
        }
        self.waken_for_lost();
    }

    /// A lease was carried out.
    pub fn done(&mut self, id: LeaseId, now: Micros) {
        self.advance(now);
        let Some(lease) = self.under_way.take(id) else { return };
        let Lease { from: PeerNumber(from), to: PeerNumber(to), .. } = lease.lease;
        for piece in lease.lease.pieces() {
            self.gain(to, piece);
            self.peers.arrived(to, piece);
        }
        self.moved = self.now;
        self.peers.forgive(to);
        let bytes = self.piece_bytes * u64::from(lease.lease.count);
        if let Some(rate) = self.peers.sent(from, bytes, self.now) {
            let most = self.sent_in(rate, self.tuning.window).min(MOST_LEASED);
            self.peers.widen(from, most, self.tuning.uplink);
        }
        self.peers.ends(from, to, lease.lease.count);
        self.weigh(from);
        self.look_at(from);
        self.look_at(to);
        self.waken_for_lost();
    }

    /// A lease was not carried out, and will not be.
    pub fn failed(&mut self, id: LeaseId, why: Failure, now: Micros) {
        self.advance(now);
        let Some(lease) = self.drop_lease(id) else { return };
        let Lease { from: PeerNumber(from), to: PeerNumber(to), .. } = lease;
        match why {
            Failure::NotThere => {
                lease.pieces().for_each(|piece| self.lose(from, piece));
            }
            Failure::Unwanted => {
                for piece in lease.pieces() {
                    self.outstanding -= u64::from(self.peers.forget(to, piece));
                }
            }
            Failure::Apart => {
                let until = Micros(self.now.0.saturating_add(APART));
                self.apart.insert((from, to), until);
            }
            Failure::Other => {}
        }
        // It is looked at again when time has passed: what failed would fail again at once.
        self.peers.set_idle(from, true);
        self.look_at(to);
        self.waken_for_lost();
    }

    /// Time has passed: leases that came to nothing are withdrawn and given to others.
    pub fn tick(&mut self, now: Micros) {
        self.advance(now);
        self.apart.retain(|_, until| *until > now);
        while let Some(late) = self.under_way.overdue(self.now) {
            let Lease { id, from: PeerNumber(from), to: PeerNumber(to), count, .. } = late.lease;
            self.drop_lease(id);
            self.withdrawn.push(late.lease);
            let bytes = self.piece_bytes * u64::from(count);
            self.peers.disappoint(from, to, bytes, late.since, self.now);
            self.weigh(from);
            // Others come first: it would be leased the same again.
            self.peers.set_idle(from, true);
            self.look_at(to);
        }
        self.waken_anybody();
    }

    /// When [`Self::tick`] is due at the latest; none while nobody wants anything.
    pub fn next_tick(&self) -> Option<Micros> {
        (self.outstanding > 0).then(|| Micros(self.now.0.saturating_add(TICK)))
    }

    /// The leases since this was asked last; to be asked after every event.
    pub fn leases(&mut self) -> std::vec::Drain<'_, Lease> {
        // Who gives or takes it may have left since.
        self.out.retain(|lease| self.under_way.get(lease.id).is_some());
        self.out.drain(..)
    }

    /// Leases since this was asked last that are given up: who sends stops. What comes of one all the same is told by
    /// [`Self::gained`].
    pub fn withdrawn(&mut self) -> std::vec::Drain<'_, Lease> {
        self.withdrawn.drain(..)
    }

    /// Whether a peer has all that it wants.
    pub fn is_complete(&self, peer: PeerNumber) -> bool {
        self.peers.lacks_nothing(peer.0)
    }

    fn advance(&mut self, now: Micros) {
        self.now = self.now.max(now);
    }

    /// Counts a copy that a peer has or is being sent, or no longer.
    fn count(&mut self, peer: u32, piece: usize, is_there: bool) {
        if self.peers.counts(peer) {
            self.pieces.count(self.peers.domains(peer), piece, is_there);
        }
    }

    /// Something about a peer has changed: what it can give, or that it can take more.
    fn look_at(&mut self, peer: u32) {
        if !self.peers.is_here(peer) {
            return;
        }
        let was_hungry = self.peers.is_hungry(peer);
        self.peers.refresh_hunger(peer, self.downlink());
        self.serve(peer);
        if !was_hungry && self.peers.is_hungry(peer) {
            self.waken_for(peer);
        }
    }

    /// Lets uplinks look that had nothing to give: the nearest first.
    fn waken_for(&mut self, peer: u32) {
        if !self.peers.is_hungry(peer) {
            return;
        }
        self.serve_sources();
        let domains = self.peers.domains(peer);
        let mut idle = Vec::with_capacity(WAKEN);
        for domain in domains.into_iter().filter(|domain| *domain != NOWHERE) {
            let rest = WAKEN - idle.len();
            let found = self.peers.idle(domain, rest, &mut self.random);
            let found: Vec<u32> = found.filter(|one| *one != peer && !idle.contains(one)).collect();
            idle.extend(found);
            if idle.len() >= WAKEN {
                break;
            }
        }
        idle.into_iter().for_each(|one| self.serve(one));
    }

    /// A piece that has no copy any more, somewhere, may be given by who had nothing to give.
    fn waken_for_lost(&mut self) {
        if self.pieces.take_lost() {
            self.waken_anybody();
        }
    }

    /// Lets uplinks look that had nothing to give, wherever they are.
    fn waken_anybody(&mut self) {
        self.serve_sources();
        let idle: Vec<u32> = self.peers.idle(WORLD, WAKEN_BY_TIME, &mut self.random).collect();
        idle.into_iter().for_each(|one| self.serve(one));
    }

    fn serve_sources(&mut self) {
        for at in 0..self.sources.len() {
            self.serve(self.sources[at]);
        }
    }

    /// Gives an uplink leases as long as there is a slot and something to give.
    fn serve(&mut self, peer: u32) {
        if !self.peers.is_here(peer) || self.peers.role(peer) == Role::Taker {
            return;
        }
        while self.peers.is_here(peer) && self.has_slot(peer) {
            if !self.feed(peer) {
                return self.peers.set_idle(peer, true);
            }
        }
        self.peers.set_idle(peer, false);
    }

    /// Whether a transfer by this uplink would outlast all others together. Where nothing has moved for a while, slow
    /// is better than never.
    fn is_gated(&self, peer: u32) -> bool {
        if self.now.0 > self.moved.0.saturating_add(STANDSTILL) {
            return false;
        }
        let Some((own, mean, total)) = self.peers.rates(peer) else { return false };
        let ahead = u64::from(self.peers.giving(peer)) + 1;
        let takes = u128::from(self.piece_bytes * ahead) * 1_000_000 / u128::from(own.max(1));
        let usual = u128::from(2 * self.piece_bytes) * 1_000_000 / u128::from(mean.max(1));
        let remaining =
            u128::from(self.outstanding * self.piece_bytes) * 1_000_000 / u128::from(total.max(1));
        takes > usual * u128::from(ahead) && takes > remaining
    }

    /// What an uplink may give of what it has.
    fn may(&self, from: u32) -> May {
        match self.peers.role(from) {
            Role::Source => May::WithoutCopy,
            Role::Node if self.is_gated(from) => May::OnlyCopy,
            Role::Node | Role::Taker => May::Anything,
        }
    }

    /// Leases one run of pieces; whether there was anything to give.
    fn feed(&mut self, from: u32) -> bool {
        let (domains, may) = (self.peers.domains(from), self.may(from));
        let mut best: Option<(Key, u32, usize)> = None;
        for domain in domains.into_iter().filter(|domain| *domain != NOWHERE) {
            let hungry: Vec<u32> =
                self.peers.hungry(domain, self.tuning.sampled, &mut self.random).collect();
            for to in hungry.into_iter().filter(|to| *to != from) {
                if self.apart.contains_key(&(from, to)) {
                    continue;
                }
                let Some(piece) = self.useful(from, to, may) else { continue };
                let key = (self.pieces.copies(piece), self.peers.getting(to), self.peers.held(to));
                if best.is_none_or(|(known, ..)| key < known) {
                    best = Some((key, to, piece));
                }
            }
            if best.is_some() {
                break;
            }
        }
        let Some((_, to, first)) = best else { return false };
        self.grant(from, to, first, may);
        true
    }

    /// The piece that `from` would give `to`.
    fn useful(&mut self, from: u32, to: u32, may: May) -> Option<usize> {
        let (has, lacks) = self.peers.has_and_lacks(from, to);
        let crossed = crossed(self.peers.domains(from), self.peers.domains(to));
        let start = self.random.random_range(0..self.pieces.len().max(1));
        let can = |word| has[word] & lacks[word] & self.pieces.may_enter(word, may, &crossed);
        self.pieces.pick(start, self.tuning.choice, can, &mut self.random)
    }

    fn grant(&mut self, from: u32, to: u32, first: usize, may: May) {
        let crossed = crossed(self.peers.domains(from), self.peers.domains(to));
        let copies = self.pieces.copies(first);
        let suits = |piece: usize| {
            self.peers.has(from, piece)
                && self.peers.lacks(to, piece)
                && self.pieces.copies(piece) == copies
                && self.pieces.may_piece_enter(piece, may, &crossed)
        };
        let most = first + self.run_of(from, to);
        let end = (first + 1..most.min(self.pieces.len())).find(|piece| !suits(*piece));
        let count = end.unwrap_or(most.min(self.pieces.len())) - first;
        for piece in first..first + count {
            self.peers.send(to, piece);
            self.expect(to, piece, self.peers.counts(from) || may == May::WithoutCopy);
        }
        self.peers.begins(from, to, count as u32, self.now);
        self.peers.refresh_hunger(to, self.downlink());
        let due = Micros(self.now.0.saturating_add(self.patience(from)));
        let (from, to) = (PeerNumber(from), PeerNumber(to));
        let lease =
            self.under_way.add(from, to, first as u32..(first + count) as u32, self.now, due);
        self.out.push(lease);
    }

    /// How long what an uplink was leased last may take.
    fn patience(&self, from: u32) -> u64 {
        let Some((own, ..)) = self.peers.rates(from) else { return MOST_PATIENCE };
        let ahead = u64::from(self.peers.giving(from));
        let takes = u128::from(self.piece_bytes * ahead) * 1_000_000 / u128::from(own.max(1));
        let takes = u64::try_from(takes).unwrap_or(u64::MAX);
        let patience = takes.saturating_mul(PATIENCE).saturating_add(LEAST_PATIENCE);
        match self.peers.role(from) {
            Role::Source => patience,
            Role::Node | Role::Taker => patience.min(MOST_PATIENCE),
        }
    }

    /// Pieces in one lease: few enough to be passed on soon, enough that the uplink has work.
    fn run_of(&self, from: u32, to: u32) -> usize {
        let own = self.peers.rates(from).map_or(0, |(own, ..)| own);
        let left = self.window_of(from).saturating_sub(self.peers.giving(from));
        let room = self.downlink().saturating_sub(self.peers.getting(to));
        // Of a window a part: who has the whole of it in one lease waits for the next.
        let left = left.min(self.window_of(from).div_ceil(LEASES_IN_A_WINDOW));
        let most = self.sent_in(own, LEASED_FOR).min(left).min(room).min(self.tuning.run.into());
        most.max(1) as usize
    }

    /// Pieces that are sent at a rate in some microseconds.
    fn sent_in(&self, rate: u64, micros: u64) -> u32 {
        let bytes = u128::from(rate) * u128::from(micros) / 1_000_000;
        u32::try_from(bytes / u128::from(self.piece_bytes)).unwrap_or(u32::MAX)
    }

    /// Pieces that an uplink is leased at a time; one as long as it is not known how fast it is.
    fn window_of(&self, peer: u32) -> u32 {
        if self.peers.rates(peer).is_none() || self.peers.is_doubtful(peer) {
            return 1;
        }
        self.peers.window(peer).max(self.tuning.uplink)
    }

    fn has_slot(&self, peer: u32) -> bool {
        self.peers.giving(peer) < self.window_of(peer)
    }

    /// Pieces that anybody is sent at a time: as the uplinks of all are in the mean.
    fn downlink(&self) -> u32 {
        let sent = self.sent_in(self.peers.mean_rate(), self.tuning.window);
        let more = sent.min(MOST_LEASED) / self.tuning.uplink.max(1);
        self.tuning.downlink.saturating_mul(more.max(1))
    }

    /// Ends a lease that brought nothing.
    fn drop_lease(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.under_way.take(id)?.lease;
        let Lease { from: PeerNumber(from), to: PeerNumber(to), .. } = lease;
        for piece in lease.pieces() {
            self.expect(to, piece, false);
            self.peers.arrived(to, piece);
            self.peers.want(to, piece);
        }
        self.peers.ends(from, to, lease.count);
        Some(lease)
    }

    /// Counts a piece that is on its way as a copy, or no longer. What came in another way is one all the same.
    fn expect(&mut self, to: u32, piece: usize, is_expected: bool) {
        let is_news = self.peers.expect(to, piece, is_expected);
        if is_news && !self.peers.has(to, piece) {
            self.count(to, piece, is_expected);
        }
    }

    /// Has the copies of a node counted or not, and what it sends, as its uplink turned out to be.
    fn weigh(&mut self, peer: u32) {
        let Some((own, mean, _)) = self.peers.rates(peer) else { return };
        let counts = own.saturating_mul(self.tuning.straggler) >= mean;
        if self.peers.role(peer) != Role::Node || counts == self.peers.counts(peer) {
            return;
        }
        let coming = self.under_way.to(peer).flat_map(Lease::pieces);
        let coming = coming
            .filter(|piece| self.peers.is_expected(peer, *piece) && !self.peers.has(peer, *piece));
        let copies: Vec<usize> = self.peers.pieces_of(peer).into_iter().chain(coming).collect();
        if !counts {
            copies.iter().for_each(|piece| self.count(peer, *piece, false));
        }
        self.peers.set_counts(peer, counts);
        if counts {
            copies.iter().for_each(|piece| self.count(peer, *piece, true));
        }
        let sent: Vec<Lease> = self.under_way.from(peer).copied().collect();
        for lease in sent {
            lease.pieces().for_each(|piece| self.expect(lease.to.0, piece, counts));
        }
    }
}

/// By what one receiver comes before another: copies of the piece, what it is being sent, what it has.
type Key = (u32, u32, u32);

/// The areas that a piece on its way from one peer to another enters.
fn crossed(from: [u32; 3], to: [u32; 3]) -> [Option<u32>; 2] {
    let entered = |level: Level| {
        let at = level as usize;
        (from[at] != to[at] && to[at] != NOWHERE).then_some(to[at])
    };
    [entered(Level::Rack), entered(Level::Idc)]
}
