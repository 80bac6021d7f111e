//! How much at a time: what an uplink is leased, what anybody is sent, and how long that may take.

use super::uplinks::{bytes_in, micros_for};
use super::{Matcher, PeerNumber, Role};

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
    /// Whether a transfer by this uplink would outlast all others together. Where nothing has moved for a while, slow
    /// is better than never.
    pub(super) fn is_gated(&self, peer: u32) -> bool {
        let rates = self.peers.rates();
        let Some(own) = self.peers.rate(peer) else { return false };
        if own.saturating_mul(2) >= rates.usual()
            || self.now.0 > self.moved.0.saturating_add(STANDSTILL)
        {
            return false;
        }
        // What it has before it takes longer than all that is outstanding takes all together.
        let ahead = u64::from(self.peers.giving(peer)) + 1;
        u128::from(ahead) * u128::from(rates.total())
            > u128::from(self.outstanding) * u128::from(own)
    }

    /// How long what an uplink was leased last may take; twice as long where it comes into a data centre from another
    /// one: who takes it from elsewhere instead pays for the way in once more.
    pub(super) fn patience(&self, from: u32, to: u32) -> u64 {
        let Some(own) = self.peers.rate(from) else { return MOST_PATIENCE };
        let ahead = u64::from(self.peers.giving(from));
        let takes = micros_for(self.piece_bytes.saturating_mul(ahead), own);
        let patience = takes.saturating_mul(PATIENCE).saturating_add(LEAST_PATIENCE);
        match self.peers.role(from) {
            Role::Source => patience,
            Role::Node | Role::Taker => {
                let times = if self.entered(from, to).is_some() { 2 } else { 1 };
                patience.saturating_mul(times).min(MOST_PATIENCE)
            }
        }
    }

    /// Pieces in one lease: few enough to be passed on soon, enough that the uplink has work.
    pub(super) fn run_of(&self, from: u32, to: u32) -> usize {
        if self.tuning.run == 1 {
            return 1;
        }
        let own = self.peers.rate(from).unwrap_or(0);
        let left = self.window_of(from).saturating_sub(self.peers.giving(from));
        let room = self.downlink.saturating_sub(self.peers.getting(to));
        // Of a window a part: who has the whole of it in one lease waits for the next.
        let left = left.min(self.window_of(from).div_ceil(LEASES_IN_A_WINDOW));
        let room = self.way_in(from, to).map_or(room, |area| room.min(self.gates.room(area)));
        let most = self.sent_in(own, LEASED_FOR).min(left).min(room).min(self.tuning.run.into());
        most.max(1) as usize
    }

    /// An uplink has sent so many bytes: it may be leased as it turns out to be fast. As long as that is more than it is
    /// leased, two windows tell how fast it is.
    pub(super) fn measure(&mut self, from: u32, bytes: u64) {
        let window = self.window_of(from);
        let may_be = self.peers.rate(from).map_or(0, |rate| self.sent_in(rate, self.tuning.window));
        let enough = match may_be.min(MOST_LEASED) > window {
            true => 2 * u64::from(window) * self.piece_bytes,
            false => u64::MAX,
        };
        if let Some(rate) = self.peers.sent(from, bytes, enough, self.now) {
            let most = self.sent_in(rate, self.tuning.window).min(MOST_LEASED);
            self.peers.widen(from, most, self.tuning.uplink);
            self.set_downlink();
        }
    }

    /// It is known how fast an uplink is before it sends anything: it is leased as much at once.
    pub(super) fn begins_with(&mut self, from: u32, rate: u64) {
        self.peers.begins_with(from, rate, self.sent_in(rate, self.tuning.window).min(MOST_LEASED));
        self.set_downlink();
    }

    /// How fast an uplink turned out to be.
    pub fn rate(&self, PeerNumber(peer): PeerNumber) -> Option<u64> {
        self.peers.rate(peer)
    }

    /// Anybody is sent as many pieces at a time as the uplinks of all are in the mean.
    pub(super) fn set_downlink(&mut self) {
        let sent = self.sent_in(self.peers.rates().mean(), self.tuning.window);
        let more = sent.min(MOST_LEASED) / self.tuning.uplink.max(1);
        self.downlink = self.tuning.downlink.saturating_mul(more.max(1));
    }

    /// Pieces that are sent at a rate in some microseconds.
    fn sent_in(&self, rate: u64, micros: u64) -> u32 {
        u32::try_from(bytes_in(micros, rate) / self.piece_bytes).unwrap_or(u32::MAX)
    }

    /// Pieces that an uplink is leased at a time; one as long as it is not known how fast it is.
    fn window_of(&self, peer: u32) -> u32 {
        if self.peers.rate(peer).is_none() || self.peers.is_doubtful(peer) {
            return 1;
        }
        self.peers.window(peer).max(self.tuning.uplink)
    }

    pub(super) fn has_slot(&self, peer: u32) -> bool {
        self.peers.giving(peer) < self.window_of(peer) && self.peers.has_slot(peer)
    }
}
