//! How quickly a child's link takes what is sent to it.
//!
//! A write says nothing of that: what fits the buffers of two kernels is written at once, and scheduled children
//! are seldom sent more. So a ping goes out behind a segment now and then, and its pong says when the child had
//! read everything before it. A rate is what was delivered from the last pong before the segment to its own
//! (BBR's estimator, draft-cheng-iccrg-delivery-rate-estimation, with pongs for acknowledgements).

use std::collections::VecDeque;
use std::time::Duration;

use dfs_model::Rate;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Bytes between two pings of a stream: 20 ms of 100 Mbit/s.
const PING_EVERY: u64 = 256 << 10;
/// What is shorter measures the way there and back, not the link: a compressed group of text is longer.
const SHORTEST: u64 = 16 << 10;
/// Pings without a pong: a child that answers none gets no further ones.
const FLYING: usize = 64;
/// Rates remembered. The one in the middle counts: a child that is put aside makes a quick link seem slow now and then, and
/// one that lets the first of what comes pass at once, as shapers do, makes a slow one seem quick.
const RATES: usize = 9;

/// A ping under way.
#[derive(Debug, Clone, Copy)]
struct Flight {
    id: u32,
    /// Bytes sent to its end, since the connection began.
    sent: u64,
    /// Bytes known to be delivered when it began, and since when nothing else of them was known.
    delivered: u64,
    since: Duration,
}

/// The state. Pure: the time is passed in.
#[derive(Debug, Default)]
struct Deliveries {
    next: u32,
    sent: u64,
    delivered: u64,
    delivered_at: Duration,
    flying: VecDeque<Flight>,
    rates: VecDeque<Rate>,
}

impl Deliveries {
    /// So many bytes are about to be written; the ping to put behind them, if any.
    fn sends(&mut self, bytes: u64, wanted: bool, now: Duration) -> Option<u32> {
        let before = self.sent;
        self.sent += bytes;
        if !wanted || bytes < SHORTEST || self.flying.len() >= FLYING {
            return None;
        }
        match self.flying.back() {
            Some(last) if self.sent - last.sent < PING_EVERY => return None,
            Some(_) => {}
            // The link was idle as far as is known: the clock begins now, with what is sent now.
            None => (self.delivered, self.delivered_at) = (before, now),
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let (delivered, since) = (self.delivered, self.delivered_at);
        self.flying.push_back(Flight { id, sent: self.sent, delivered, since });
        Some(id)
    }

    /// The child has read everything up to this ping. Others that it did not answer are answered by it.
    fn arrived(&mut self, id: u32, now: Duration) {
        let Some(at) = self.flying.iter().position(|flight| flight.id == id) else { return };
        let Some(flight) = self.flying.drain(..=at).next_back() else { return };
        (self.delivered, self.delivered_at) = (flight.sent, now);
        let took = now.saturating_sub(flight.since).max(Duration::from_micros(1));
        let rate = (flight.sent - flight.delivered) as f64 / took.as_secs_f64();
        if self.rates.len() >= RATES {
            self.rates.pop_front();
        }
        self.rates.push_back(Rate(rate as u64));
    }

    fn rate(&self) -> Option<Rate> {
        let mut rates: Vec<_> = self.rates.iter().copied().collect();
        rates.sort_unstable();
        rates.get(rates.len() / 2).copied()
    }
}

/// What one connection delivered.
#[derive(Debug)]
pub(in crate::wire) struct Delivery {
    epoch: Instant,
    state: Mutex<Deliveries>,
}

impl Delivery {
    /// Of a connection that begins.
    pub(in crate::wire) fn new() -> Self {
        Self { epoch: Instant::now(), state: Mutex::default() }
    }

    /// So many bytes are about to be written; the ping to put behind them, if one is `wanted` and due.
    pub(in crate::wire) fn sends(&self, bytes: u64, wanted: bool) -> Option<u32> {
        self.state.lock().sends(bytes, wanted, self.epoch.elapsed())
    }

    /// A pong came.
    pub(in crate::wire) fn arrived(&self, id: u32) {
        self.state.lock().arrived(id, self.epoch.elapsed());
    }

    /// Bytes in a second that the link took lately, once known.
    pub(in crate::wire) fn rate(&self) -> Option<Rate> {
        self.state.lock().rate()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEGMENT: u64 = 1 << 20;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_stream_is_measured_whatever_the_buffers_take() {
        let mut deliveries = Deliveries::default();
        // All four are written at once; the link takes 100 ms for each, and the way back 5.
        let ids: Vec<_> =
            (0..4).map(|_| deliveries.sends(SEGMENT, true, millis(0)).unwrap()).collect();
        assert_eq!(deliveries.rate(), None);
        for (nth, id) in (1..).zip(ids) {
            deliveries.arrived(id, millis(100 * nth + 5));
        }
        let rate = deliveries.rate().unwrap().0;
        // Each was sent with those before it: they count together.
        assert!((SEGMENT * 10 * 95 / 100..=SEGMENT * 10).contains(&rate), "{rate}");
    }

    #[test]
    fn a_link_that_was_idle_is_not_a_slow_one() {
        let mut deliveries = Deliveries::default();
        for second in 0..20 {
            let id = deliveries.sends(SEGMENT, true, millis(1000 * second)).unwrap();
            deliveries.arrived(id, millis(1000 * second + 10));
        }
        assert_eq!(deliveries.rate(), Some(Rate(SEGMENT * 100)));
    }

    #[test]
    fn bursts_and_hiccups_are_not_the_rate() {
        let mut deliveries = Deliveries::default();
        for (nth, took) in (0..).zip([100, 100, 1, 100, 900, 100, 1, 100, 2]) {
            let now = millis(1000 * nth);
            let id = deliveries.sends(SEGMENT, true, now).unwrap();
            deliveries.arrived(id, now + millis(took));
        }
        assert_eq!(deliveries.rate(), Some(Rate(SEGMENT * 10)));
    }

    #[test]
    fn who_never_answers_is_not_asked_for_ever_and_lies_are_ignored() {
        let mut deliveries = Deliveries::default();
        let pings = (0..1000).filter_map(|_| deliveries.sends(SEGMENT, true, millis(0))).count();
        assert_eq!(pings, FLYING);
        deliveries.arrived(12_345, millis(1));
        assert_eq!(deliveries.rate(), None);
        // The last answers for all.
        deliveries.arrived(63, millis(1000));
        assert!(deliveries.flying.is_empty());
        deliveries.arrived(63, millis(1000));
        deliveries.arrived(5, millis(1000));
        assert_eq!(deliveries.rates.len(), 1);
        assert!(deliveries.sends(SEGMENT, true, millis(1000)).is_some());
    }

    #[test]
    fn small_and_unwanted_sends_are_not_measured() {
        let mut deliveries = Deliveries::default();
        assert_eq!(deliveries.sends(SHORTEST - 1, true, millis(0)), None);
        assert_eq!(deliveries.sends(SEGMENT, false, millis(0)), None);
        let id = deliveries.sends(SEGMENT, true, millis(100)).unwrap();
        assert_eq!(deliveries.sends(PING_EVERY - 1, true, millis(100)), None);
        deliveries.arrived(id, millis(200));
        // What went before it is not counted as delivered with it.
        assert_eq!(deliveries.rate(), Some(Rate(SEGMENT * 10)));
    }

    proptest! {
        /// A link of a constant rate: no estimate is above it but by what rounding does.
        #[test]
        fn no_link_is_quicker_than_it_is(
            rate in 100_000u64..1_000_000_000,
            delay in 0u64..100_000,
            sends in prop::collection::vec((1u64..=1 << 20, 0u64..50_000, any::<bool>()), 1..100),
        ) {
            let mut deliveries = Deliveries::default();
            let mut free_at = Duration::ZERO;
            let mut now = Duration::ZERO;
            let mut pongs: VecDeque<(Duration, u32)> = VecDeque::new();
            for (bytes, pause, wanted) in sends {
                now += Duration::from_micros(pause);
                while pongs.front().is_some_and(|(at, _)| *at <= now) {
                    let (at, id) = pongs.pop_front().unwrap();
                    deliveries.arrived(id, at);
                }
                free_at = free_at.max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
                if let Some(id) = deliveries.sends(bytes, wanted, now) {
                    pongs.push_back((free_at + Duration::from_micros(delay), id));
                }
            }
            for (at, id) in pongs {
                deliveries.arrived(id, at);
            }
            if let Some(found) = deliveries.rate() {
                prop_assert!(found.0 as f64 <= rate as f64 * 1.001, "{} of {rate}", found.0);
            }
        }
    }
}
