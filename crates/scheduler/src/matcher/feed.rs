//! Feeding: what a free uplink gives, to whom, and how much at a time.

use rand::RngExt;

use super::crowd::NOWHERE;
use super::peers::Level;
use super::pieces::{May, WORLD};
use super::{Matcher, Micros, PeerNumber, Role};

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

/// Microseconds of an uplink that one lease takes: a piece more is never for less.
const LEASED_FOR: u64 = 5_000;

/// Leases that an uplink has at a time at least, once it is leased long runs.
const LEASES_IN_A_WINDOW: u32 = 8;

/// However fast it is, an uplink is leased no more pieces at a time.
const MOST_LEASED: u32 = 1024;

impl Matcher {
    /// Something about a peer has changed: what it can give, or that it can take more.
    pub(super) fn look_at(&mut self, peer: u32) {
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
    pub(super) fn waken_for(&mut self, peer: u32) {
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
    pub(super) fn waken_for_lost(&mut self) {
        if self.pieces.take_lost() {
            self.waken_anybody();
        }
    }

    /// Lets uplinks look that had nothing to give, wherever they are.
    pub(super) fn waken_anybody(&mut self) {
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
    pub(super) fn serve(&mut self, peer: u32) {
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

    /// The way to a receiver: what may go there, and the areas that it enters. Whoever was let down is given anything.
    fn way(&self, from: u32, to: u32, may: May) -> Way {
        if self.peers.is_let_down(to) {
            return Way { may: May::Anything, entered: [None, None] };
        }
        Way { may, entered: crossed(self.peers.domains(from), self.peers.domains(to)) }
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
                let way = self.way(from, to, may);
                let Some(piece) = self.useful(from, to, &way) else { continue };
                let is_struck = self.peers.is_struck(to);
                let (getting, held) = (self.peers.getting(to), self.peers.held(to));
                let key = (is_struck, self.pieces.copies(piece), getting, held);
                if best.is_none_or(|(known, ..)| key < known) {
                    best = Some((key, to, piece));
                }
            }
            if best.is_some() {
                break;
            }
        }
        let Some((_, to, first)) = best else { return false };
        self.grant(from, to, first, &self.way(from, to, may));
        true
    }

    /// The piece that `from` would give `to`.
    fn useful(&mut self, from: u32, to: u32, way: &Way) -> Option<usize> {
        let (has, lacks) = self.peers.has_and_lacks(from, to);
        let start = self.random.random_range(0..self.pieces.len().max(1));
        let can =
            |word| has[word] & lacks[word] & self.pieces.may_enter(word, way.may, &way.entered);
        self.pieces.pick(start, self.tuning.choice, can, &mut self.random)
    }

    fn grant(&mut self, from: u32, to: u32, first: usize, way: &Way) {
        let copies = self.pieces.copies(first);
        let suits = |piece: usize| {
            self.peers.has(from, piece)
                && self.peers.lacks(to, piece)
                && self.pieces.copies(piece) == copies
                && self.pieces.may_piece_enter(piece, way.may, &way.entered)
        };
        let most = first + self.run_of(from, to);
        let end = (first + 1..most.min(self.pieces.len())).find(|piece| !suits(*piece));
        let count = end.unwrap_or(most.min(self.pieces.len())) - first;
        let is_promising = self.is_promising(from, to);
        for piece in first..first + count {
            self.peers.send(to, piece);
            self.expect(to, piece, is_promising);
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

    /// An uplink has sent so many bytes: it may be leased as it turns out to be fast.
    pub(super) fn measure(&mut self, from: u32, bytes: u64) {
        if let Some(rate) = self.peers.sent(from, bytes, self.now) {
            let most = self.sent_in(rate, self.tuning.window).min(MOST_LEASED);
            self.peers.widen(from, most, self.tuning.uplink);
        }
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
        self.peers.giving(peer) < self.window_of(peer) && self.peers.has_slot(peer)
    }

    /// Pieces that anybody is sent at a time: as the uplinks of all are in the mean.
    pub(super) fn downlink(&self) -> u32 {
        let sent = self.sent_in(self.peers.mean_rate(), self.tuning.window);
        let more = sent.min(MOST_LEASED) / self.tuning.uplink.max(1);
        self.tuning.downlink.saturating_mul(more.max(1))
    }
}

/// What may go from one peer to another, and the areas that it enters.
struct Way {
    may: May,
    entered: [Option<u32>; 2],
}

/// By what one receiver comes before another: whether nothing came of what it was leased last, copies of the piece,
/// what it is being sent, what it has.
type Key = (bool, u32, u32, u32);

/// The areas that a piece on its way from one peer to another enters.
fn crossed(from: [u32; 3], to: [u32; 3]) -> [Option<u32>; 2] {
    let entered = |level: Level| {
        let at = level as usize;
        (from[at] != to[at] && to[at] != NOWHERE).then_some(to[at])
    };
    [entered(Level::Rack), entered(Level::Idc)]
}
