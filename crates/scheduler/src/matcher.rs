//! The matcher of strategy `swarm`: whenever an uplink is free it is leased the rarest useful piece for one of a few
//! hungry receivers, the nearest first.
//!
//! One matcher is one task's swarm. It owns who has which piece, what is on its way, and how fast uplinks turned out to
//! be; peers and places are small numbers that the caller gives meaning to.
//!
//! Who reads from front to back is given as much as others are, and of what may go to it what it reads next ([`ahead`]).
//!
//! What always holds: a lease is from who has the piece to who neither has it nor is being sent it; a source gives only
//! what no counting node has or is being sent; a piece enters an area that has or imports it already from nowhere but
//! inside; nobody gives or takes more leases at a time than [`Tuning`] says. A node whose uplink is far slower than the
//! others, or that did not send what it was leased to, does not count as a holder: what only it has may be given
//! again. So is what is on its way to who did not take what others sent; such a receiver comes last. For a receiver those
//! have no copies who have failed it since something came to it, or whom it does not reach ([`doubts`]): who has nothing
//! is worse off than who pays for a second copy.

mod acquaintance;
mod ahead;
mod classes;
mod crowd;
mod doubts;
mod feed;
mod gates;
mod leases;
mod partners;
mod peers;
mod pieces;
mod rarity;
mod rows;
#[cfg(test)]
mod tests;
mod uplinks;
mod windows;

use std::ops::Range;

use rand::SeedableRng;
use rand::rngs::StdRng;

use ahead::Ahead;
use doubts::Doubts;
use feed::{Draft, crossed};
use gates::Gates;
use leases::{End, Leases, Out, Side};
pub use leases::{Lease, LeaseId};
use partners::Partners;
use peers::Peers;
pub use peers::{Place, Role};
use pieces::Pieces;

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
    /// Who is so many times slower than what is usual does not count as a holder.
    pub straggler: u64,
    /// Peers that one gives to or takes from, both together: each costs a handshake and a connection, and four bytes
    /// here; 60 leave what is known of a peer within 512. Four at least, 255 at most.
    pub partners: u32,
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
            partners: 60,
        }
    }
}

/// Time passes at least so often while anything is wanted.
const TICK: u64 = 100_000;

/// How long who could not reach another is not leased to it again, in microseconds.
const APART: u64 = 5_000_000;

/// Why a lease was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The receiver has it already.
    Held,
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
    partners: Partners,
    gates: Gates,
    /// Partners that have become strangers since leases were asked for.
    parted: Vec<(u32, u32)>,
    /// Pieces that anybody is sent at a time.
    downlink: u32,
    /// Pieces that nodes want and do not have.
    outstanding: u64,
    /// When anything was carried out last, or was wanted again after nothing was.
    moved: Micros,
    /// Always looked at first: they have what nobody else has.
    sources: Vec<u32>,
    /// Whose copies are none for whom.
    doubts: Doubts,
    ahead: Ahead,
    out: Vec<Lease>,
    withdrawn: Vec<Lease>,
    draft: Draft,
}

/// A peer that takes part from now on.
#[derive(Debug, Clone)]
pub struct Joining<'a> {
    /// What it is.
    pub role: Role,
    /// Where it is.
    pub place: Place,
    /// Leases that it gives at a time at most.
    pub slots: u32,
    /// Bytes a second that its uplink turned out to send elsewhere; zero where that is not known.
    pub rate: u64,
    /// Pieces that it has.
    pub has: &'a [Range<u32>],
    /// Pieces that it wants; those it has too change nothing.
    pub wants: &'a [Range<u32>],
}

impl<'a> Joining<'a> {
    /// One that is nowhere in particular, gives as many leases as it can, and has sent nothing anywhere yet.
    pub fn new(role: Role, has: &'a [Range<u32>], wants: &'a [Range<u32>]) -> Self {
        Self { role, place: Place::default(), slots: u32::MAX, rate: 0, has, wants }
    }
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
            partners: Partners::new(tuning.partners),
            gates: Gates::new(tuning.uplink),
            parted: Vec::new(),
            downlink: tuning.downlink,
            outstanding: 0,
            moved: Micros::default(),
            sources: Vec::new(),
            doubts: Doubts::default(),
            ahead: Ahead::new(pieces as usize),
            out: Vec::new(),
            withdrawn: Vec::new(),
            draft: Draft::default(),
        }
    }

    /// A peer joins.
    pub fn join(&mut self, joining: &Joining<'_>, now: Micros) -> PeerNumber {
        self.advance(now);
        let domains = self.pieces.enter(joining.role, joining.place);
        let peer = self.peers.add(joining, domains, self.now);
        self.under_way.reach(self.peers.count());
        self.partners.reach(self.peers.count());
        let pieces = self.pieces.len();
        for piece in joining.has.iter().flat_map(|run| within(run, pieces)) {
            if self.peers.gain(peer, piece) {
                self.count(peer, piece, true);
            }
        }
        for piece in joining.wants.iter().flat_map(|run| within(run, pieces)) {
            let is_more = self.peers.want(peer, piece);
            self.is_outstanding(is_more);
        }
        if joining.role == Role::Source {
            self.sources.push(peer);
        }
        if joining.rate > 0 {
            self.begins_with(peer, joining.rate);
        }
        self.peers.refresh_hunger(peer, self.downlink);
        self.serve(peer);
        self.waken_for(peer);
        PeerNumber(peer)
    }

    /// A node gives from now on, or does not: one of [`Role::Node`] and [`Role::Taker`] has become the other.
    pub fn becomes(&mut self, peer: PeerNumber, role: Role, now: Micros) {
        self.advance(now);
        let PeerNumber(peer) = peer;
        let is_change = self.peers.is_here(peer) && self.peers.role(peer) != role;
        if !is_change || role == Role::Source || self.peers.role(peer) == Role::Source {
            return;
        }
        let given: Vec<LeaseId> = match role {
            Role::Taker => self.leases_of(peer, Side::Gives),
            Role::Node | Role::Source => Vec::new(),
        };
        let given: Vec<Lease> = given.into_iter().filter_map(|id| self.withdraw(id)).collect();
        self.peers.become_(peer, role);
        self.weigh(peer);
        self.look_at(peer);
        given.into_iter().for_each(|lease| self.look_at(lease.to.0));
        self.waken_for_lost();
    }

    /// A peer has these pieces, however they came: by a lease that was withdrawn, or from elsewhere.
    pub fn gained(&mut self, peer: PeerNumber, pieces: &[Range<u32>], now: Micros) {
        self.change(peer, pieces, now, Self::gain);
    }

    /// A peer has these pieces no more: none of them is leased before all of them are known. What of it is being sent
    /// all the same fails by itself.
    pub fn lost(&mut self, peer: PeerNumber, pieces: &[Range<u32>], now: Micros) {
        self.change(peer, pieces, now, Self::lose);
        self.waken_for_lost();
    }

    /// A peer wants these pieces too.
    pub fn want(&mut self, peer: PeerNumber, pieces: &[Range<u32>], now: Micros) {
        self.change(peer, pieces, now, |matcher, peer, piece| {
            if !matcher.peers.is_coming(peer, piece) {
                let is_more = matcher.peers.want(peer, piece);
                matcher.is_outstanding(is_more);
            }
        });
    }

    /// A peer does not want these pieces any more. What is being sent to it comes all the same.
    pub fn forget(&mut self, peer: PeerNumber, pieces: &[Range<u32>], now: Micros) {
        self.change(peer, pieces, now, |matcher, peer, piece| {
            matcher.outstanding -= u64::from(matcher.peers.forget(peer, piece));
        });
    }

    /// A peer reads from front to back, and these pieces next: of what it wants they come first, in order. An empty
    /// run: it does not any more.
    pub fn reads(&mut self, peer: PeerNumber, next: Range<u32>) {
        if self.peers.is_here(peer.0) {
            let Self { ahead, peers, .. } = self;
            let next = within(&next, self.pieces.len());
            ahead.set(peer.0, next, |piece| peers.has(peer.0, piece));
        }
    }

    fn change(
        &mut self,
        peer: PeerNumber,
        pieces: &[Range<u32>],
        now: Micros,
        change: impl Fn(&mut Self, u32, usize),
    ) {
        self.advance(now);
        let PeerNumber(peer) = peer;
        if !self.peers.is_here(peer) || pieces.is_empty() {
            return;
        }
        let most = self.pieces.len();
        for piece in pieces.iter().flat_map(|run| within(run, most)) {
            change(self, peer, piece);
        }
        self.look_at(peer);
    }

    /// A lease that is out.
    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.under_way.get(id).map(|out| out.lease)
    }

    /// Whether a peer has a piece, as far as was told.
    pub fn has(&self, peer: PeerNumber, piece: u32) -> bool {
        (piece as usize) < self.pieces.len()
            && self.peers.is_here(peer.0)
            && self.peers.has(peer.0, piece as usize)
    }

    /// Whether it is being sent a piece by somebody who counts.
    fn is_expected(&self, peer: u32, piece: usize) -> bool {
        let covers =
            |lease: &Lease| (lease.first..lease.first + lease.count).contains(&(piece as u32));
        self.peers.is_coming(peer, piece)
            && self.under_way.of(peer, Side::Takes).any(|out| out.counts && covers(&out.lease))
    }

    /// It has a piece from now on. One that is on its way to it is counted since then.
    fn gain(&mut self, peer: u32, piece: usize) {
        let was_wanted = self.peers.is_coming(peer, piece) || self.peers.lacks(peer, piece);
        if self.peers.gain(peer, piece) {
            self.ahead.came(peer, piece);
            self.outstanding -= u64::from(was_wanted);
            if !self.is_expected(peer, piece) {
                self.count(peer, piece, true);
            }
        }
    }

    /// It turned out not to have a piece; what is being sent to it still comes.
    fn lose(&mut self, peer: u32, piece: usize) {
        if !self.peers.lose(peer, piece) {
            return;
        }
        self.ahead.went(peer, piece);
        self.is_outstanding(self.peers.is_coming(peer, piece));
        if !self.is_expected(peer, piece) {
            self.count(peer, piece, false);
        }
    }

    /// A piece more is wanted, where it is. What nobody wanted did not stand still.
    fn is_outstanding(&mut self, is_more: bool) {
        if is_more && self.outstanding == 0 {
            self.moved = self.now;
        }
        self.outstanding += u64::from(is_more);
    }

    fn leases_of(&self, peer: u32, side: Side) -> Vec<LeaseId> {
        self.under_way.of(peer, side).map(|out| out.lease.id).collect()
    }

    /// A peer is gone: so are its copies, and what it was sending and being sent is withdrawn.
    pub fn leave(&mut self, peer: PeerNumber, now: Micros) {
        self.advance(now);
        let PeerNumber(peer) = peer;
        if !self.peers.is_here(peer) {
            return;
        }
        let leases =
            [self.leases_of(peer, Side::Gives), self.leases_of(peer, Side::Takes)].concat();
        let dropped: Vec<Lease> = leases.into_iter().filter_map(|id| self.withdraw(id)).collect();
        for piece in self.peers.pieces_of(peer) {
            self.count(peer, piece, false);
        }
        self.doubts.forget(peer);
        self.part_all(peer);
        for area in self.pieces.leave(self.peers.domains(peer)) {
            self.gates.forget(area);
        }
        let Self { ahead, peers, .. } = self;
        ahead.set(peer, 0..0, |piece| peers.has(peer, piece));
        self.outstanding -= self.peers.remove(peer);
        self.sources.retain(|source| *source != peer);
        for Lease { from: PeerNumber(from), to: PeerNumber(to), .. } in dropped {
            self.look_at(from);
            self.look_at(to);
        }
        self.waken_for_lost();
    }

    /// A lease was carried out.
    pub fn done(&mut self, id: LeaseId, now: Micros) {
        self.done_in_part(id, |_| true, now);
    }

    /// A lease was carried out as far as its receiver wanted it: a piece that is not there as a whole it wants no more.
    pub fn done_in_part(&mut self, id: LeaseId, is_here: impl Fn(u32) -> bool, now: Micros) {
        self.advance(now);
        let Some(out) = self.under_way.take(id) else { return };
        let Lease { from: PeerNumber(from), to: PeerNumber(to), count, .. } = out.lease;
        for piece in out.lease.pieces() {
            let had = self.peers.has(to, piece);
            let has = is_here(piece as u32);
            if has && self.peers.gain(to, piece) {
                self.ahead.came(to, piece);
            }
            self.outstanding -= u64::from(!had);
            if !had && has != out.counts {
                self.count(to, piece, has);
            }
            self.peers.arrived(to, piece);
        }
        self.moved = self.now;
        self.ends_its_way(&out, End::Brought);
        self.doubts.forgive(to);
        if self.peers.forgive(to) {
            self.receiver_changed(to);
        }
        self.measure(from, self.piece_bytes * u64::from(count));
        self.peers.ends(from, to, count);
        self.weigh(from);
        self.look_at(from);
        self.look_at(to);
        if let Some(area) = self.way_in(from, to) {
            self.waken_inside(area);
        }
        self.waken_for_lost();
    }

    /// The data centre that a piece enters on its way from one peer to another.
    fn entered(&self, from: u32, to: u32) -> Option<u32> {
        crossed(self.peers.domains(from), self.peers.domains(to))[1]
    }

    /// What a lease was to bring into a data centre is on its way no more.
    fn ends_its_way(&mut self, out: &Out, end: End) {
        if let Some(area) = self.entered(out.lease.from.0, out.lease.to.0) {
            self.gates.ends(area, out, end, self.now);
        }
    }

    /// A lease was not carried out, and will not be.
    pub fn failed(&mut self, id: LeaseId, why: Failure, now: Micros) {
        self.advance(now);
        let out = self.under_way.get(id).copied();
        let (Some(out), Some(lease)) = (out, self.drop_lease(id)) else { return };
        let Lease { from: PeerNumber(from), to: PeerNumber(to), .. } = lease;
        match why {
            Failure::Held => {
                lease.pieces().for_each(|piece| self.gain(to, piece));
                // What came from elsewhere hides that this one brings nothing.
                if self.now.0.saturating_sub(out.since.0) >= out.may_take() / 2 {
                    self.peers.doubt_if_mute(from, out.since);
                }
            }
            Failure::NotThere => self.is_denied(&lease),
            Failure::Unwanted => {
                for piece in lease.pieces() {
                    self.outstanding -= u64::from(self.peers.forget(to, piece));
                }
            }
            Failure::Apart => self.part(from, to),
            Failure::Other => {}
        }
        if !matches!(why, Failure::Held | Failure::Unwanted) {
            self.lets_down(from, to);
        }
        // It is looked at again when time has passed: what failed would fail again at once.
        self.peers.set_idle(from, self.peers.role(from) != Role::Taker);
        self.look_at(to);
        self.waken_for_lost();
    }

    /// A receiver says that the sender has not got what it should have. That is one's word against the other's: the two
    /// are left to others, until somebody else says so too. What a source is to have it will have.
    fn is_denied(&mut self, lease: &Lease) {
        let Lease { from: PeerNumber(from), to: PeerNumber(to), .. } = *lease;
        self.part(from, to);
        let is_known = self.peers.is_denied_by(from, to);
        if is_known && self.peers.role(from) != Role::Source {
            lease.pieces().for_each(|piece| self.lose(from, piece));
        }
    }

    fn part(&mut self, from: u32, to: u32) {
        self.doubts.part(to, from, Micros(self.now.0.saturating_add(APART)));
    }

    /// A lease came to nothing.
    fn lets_down(&mut self, from: u32, to: u32) {
        self.peers.let_down(to);
        self.doubts.fails(to, from);
    }

    /// Time has passed: leases that came to nothing are withdrawn and given to others.
    pub fn tick(&mut self, now: Micros) {
        self.advance(now);
        self.doubts.pass(now);
        for late in self.under_way.overdue(self.now) {
            let Lease { id, from: PeerNumber(from), to: PeerNumber(to), count, .. } = late.lease;
            self.withdraw(id);
            let bytes = self.piece_bytes * u64::from(count);
            self.peers.disappoint(from, to, bytes, late.since, self.now);
            self.lets_down(from, to);
            self.weigh(from);
            self.receiver_changed(to);
            // Others come first: it would be leased the same again.
            self.peers.set_idle(from, true);
            self.look_at(to);
        }
        self.set_downlink();
        self.waken_anybody();
        self.waken_for_starving();
    }

    /// When [`Self::tick`] is due at the latest; none while nobody wants anything.
    pub fn next_tick(&self) -> Option<Micros> {
        (self.outstanding > 0).then(|| Micros(self.now.0.saturating_add(TICK)))
    }

    /// The leases since this was asked last; to be asked after every event.
    pub fn leases(&mut self) -> std::vec::Drain<'_, Lease> {
        self.parted.clear();
        // Who gives or takes it may have left since.
        self.out.retain(|lease| self.under_way.get(lease.id).is_some());
        self.out.drain(..)
    }

    /// Leases since this was asked last that are given up: who sends stops. What comes of one all the same is told by
    /// [`Self::gained`].
    pub fn withdrawn(&mut self) -> std::vec::Drain<'_, Lease> {
        self.withdrawn.drain(..)
    }

    /// What a peer reads next, as far as that was told.
    #[cfg(test)]
    pub fn read_next(&self, peer: PeerNumber) -> Option<&Range<usize>> {
        self.ahead.of(peer.0)
    }

    /// Whether a peer has all that it wants.
    pub fn is_complete(&self, peer: PeerNumber) -> bool {
        self.peers.lacks_nothing(peer.0)
    }

    /// Whether somebody has something that a peer lacks and is not being sent.
    pub fn has_anything_for(&self, peer: PeerNumber) -> bool {
        self.peers.is_here(peer.0) && self.peers.is_held_what_is_lacked(peer.0)
    }

    /// Sources that did not send what they were leased to, nor anything since.
    pub fn late_sources(&self) -> impl Iterator<Item = PeerNumber> {
        let late = self.sources.iter().filter(|source| self.peers.is_doubtful(**source));
        late.map(|source| PeerNumber(*source))
    }

    /// When a peer was leased anything last, or joined.
    pub fn leased_at(&self, peer: PeerNumber) -> Micros {
        self.peers.leased_at(peer.0)
    }

    /// Whether a peer is being sent anything.
    pub fn is_sent_anything(&self, peer: PeerNumber) -> bool {
        self.peers.is_here(peer.0) && self.peers.getting(peer.0) > 0
    }

    /// Since when nothing was carried out, though anything was wanted.
    pub fn moved(&self) -> Micros {
        self.moved
    }

    /// Whether a lease to a peer has come to nothing, and nothing has come to it since.
    pub fn is_let_down(&self, peer: PeerNumber) -> bool {
        let PeerNumber(peer) = peer;
        self.peers.is_here(peer) && (self.peers.is_let_down(peer) || self.doubts.has_any(peer))
    }

    /// Pairs of partners that have nothing to do with each other any more since [`Self::leases`] was asked last; those of
    /// who left, too.
    pub fn parted(&self) -> impl Iterator<Item = (PeerNumber, PeerNumber)> {
        self.parted.iter().map(|(one, other)| (PeerNumber(*one), PeerNumber(*other)))
    }

    /// Pairs that have become partners, ever: as many handshakes.
    pub fn handshakes(&self) -> u64 {
        self.partners.met()
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

    /// Gives a lease up, and has who receives it hear of that.
    fn withdraw(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.drop_lease(id)?;
        self.withdrawn.push(lease);
        Some(lease)
    }

    /// Whether a piece of a peer is counted, or is about to be.
    fn is_copy(&self, peer: u32, piece: usize) -> bool {
        self.peers.counts(peer) && (self.peers.has(peer, piece) || self.is_expected(peer, piece))
    }

    /// Ends a lease that brought nothing.
    fn drop_lease(&mut self, id: LeaseId) -> Option<Lease> {
        let out = self.under_way.take(id)?;
        self.ends_its_way(&out, End::GivenUp);
        let Out { lease, counts, .. } = out;
        let Lease { from: PeerNumber(from), to: PeerNumber(to), .. } = lease;
        for piece in lease.pieces() {
            if counts && !self.peers.has(to, piece) {
                self.count(to, piece, false);
            }
            self.peers.arrived(to, piece);
            self.peers.want(to, piece);
        }
        self.peers.ends(from, to, lease.count);
        Some(lease)
    }

    /// Whether what is on its way will be a copy, as far as anybody can tell.
    fn is_promising(&self, from: u32, to: u32) -> bool {
        let is_sent = self.peers.counts(from) || self.peers.role(from) == Role::Source;
        is_sent && !self.peers.is_struck(to)
    }

    /// Has what a lease brings counted as copies or not, as who gives and takes it turned out to be.
    fn reconsider(&mut self, Out { lease, counts, .. }: Out) {
        let (PeerNumber(from), PeerNumber(to)) = (lease.from, lease.to);
        let is_promising = self.is_promising(from, to);
        if counts == is_promising {
            return;
        }
        self.under_way.set_counts(lease.id, is_promising);
        for piece in lease.pieces() {
            if !self.peers.has(to, piece) {
                self.count(to, piece, is_promising);
            }
        }
    }

    /// A downlink turned out not to take anything, or to take something again.
    fn receiver_changed(&mut self, to: u32) {
        let coming: Vec<Out> = self.under_way.of(to, Side::Takes).copied().collect();
        coming.into_iter().for_each(|out| self.reconsider(out));
    }

    /// Has the copies of a node counted or not, and what it sends, as its uplink turned out to be.
    fn weigh(&mut self, peer: u32) {
        let usual = self.peers.rates().usual();
        let is_slow = self
            .peers
            .rate(peer)
            .is_some_and(|own| own.saturating_mul(self.tuning.straggler) < usual);
        let counts =
            self.peers.role(peer) == Role::Node && !is_slow && !self.peers.is_doubtful(peer);
        if counts == self.peers.counts(peer) {
            return;
        }
        let coming = self.under_way.of(peer, Side::Takes).filter(|out| out.counts);
        let coming = coming.flat_map(|out| out.lease.pieces());
        let coming = coming.filter(|piece| !self.peers.has(peer, *piece));
        let copies: Vec<usize> = self.peers.pieces_of(peer).into_iter().chain(coming).collect();
        if !counts {
            copies.iter().for_each(|piece| self.count(peer, *piece, false));
        }
        self.peers.set_counts(peer, counts);
        if counts {
            copies.iter().for_each(|piece| self.count(peer, *piece, true));
        }
        let sent: Vec<Out> = self.under_way.of(peer, Side::Gives).copied().collect();
        sent.into_iter().for_each(|out| self.reconsider(out));
    }
}

/// Those of a run that there are.
fn within(run: &Range<u32>, pieces: usize) -> Range<usize> {
    (run.start as usize).min(pieces)..(run.end as usize).min(pieces)
}
