//! How fast uplinks turned out to be: each of them, all together, and the usual one.

use super::classes::{class_of, least_of};
use super::{Micros, Role};

/// Weight of what was measured last, one in so many.
const SMOOTH: u64 = 8;

/// Microseconds over which an uplink is measured at least, and where it has sent enough meanwhile: what two reports that
/// came together say of it is of the way that they took.
const MEASURED_FOR: u64 = 50_000;
const LEAST_MEASURED_FOR: u64 = 5_000;

/// Rates are told apart to one part in so many of their power of two, where only the median is asked for.
const PARTS: u64 = 8;

/// Bytes a second of which nothing can be more.
const MOST: u64 = u64::MAX >> 8;

/// What an uplink has sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Uplink {
    /// Bytes a second; zero while it is not known.
    rate: u64,
    /// Since when it is measured, and what it sent since; it has never been idle meanwhile.
    since: Micros,
    measured: u64,
    last_sent: Micros,
}

impl Uplink {
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    pub(super) fn last_sent(&self) -> Micros {
        self.last_sent
    }

    /// It had nothing to send until now.
    pub(super) fn begins(&mut self, now: Micros) {
        (self.since, self.measured) = (now, 0);
    }

    /// It has sent so many bytes; its rate, where that was measured. Reports come together: a rate is of some time, or of
    /// as much as is `enough`.
    pub(super) fn sent(&mut self, bytes: u64, enough: u64, now: Micros) -> Option<u64> {
        (self.last_sent, self.measured) = (now, self.measured + bytes);
        let took = now.0.saturating_sub(self.since.0);
        let least = if self.measured >= enough { LEAST_MEASURED_FOR } else { MEASURED_FOR };
        if took == 0 || (took < least && self.rate != 0) {
            return None;
        }
        let measured = rate_of(self.measured, took);
        self.begins(now);
        let rate = match self.rate {
            0 => measured,
            known => known - known / SMOOTH + measured / SMOOTH,
        };
        Some(rate.max(1))
    }
}

/// Bytes a second, where so many took so many microseconds.
pub(super) fn rate_of(bytes: u64, micros: u64) -> u64 {
    (bytes.saturating_mul(1_000_000) / micros.max(1)).min(MOST)
}

/// Bytes that are sent at a rate in some microseconds.
pub(super) fn bytes_in(micros: u64, rate: u64) -> u64 {
    rate.saturating_mul(micros) / 1_000_000
}

/// Microseconds that bytes take at a rate.
pub(super) fn micros_for(bytes: u64, rate: u64) -> u64 {
    bytes.saturating_mul(1_000_000) / rate.max(1)
}

/// The rates that are known, together.
#[derive(Debug, Default)]
pub(super) struct Rates {
    total: u64,
    known: u64,
    nodes: Median,
}

impl Rates {
    /// A rate is known from now on, in place of what was; zero: it is not known any more.
    pub(super) fn set(&mut self, uplink: &mut Uplink, role: Role, rate: u64) {
        let before = std::mem::replace(&mut uplink.rate, rate);
        self.total = self.total - before + rate;
        self.known = self.known + u64::from(rate > 0) - u64::from(before > 0);
        if role == Role::Node {
            self.nodes.change(before, rate);
        }
    }

    /// Of all together.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Of one in the mean.
    pub(super) fn mean(&self) -> u64 {
        self.total.checked_div(self.known).unwrap_or(0)
    }

    /// Of a node that half of the others are slower than: however fast a few are, and however slow. One node has only
    /// sources to be compared with.
    pub(super) fn usual(&self) -> u64 {
        if self.nodes.count < 2 { self.mean() } else { self.nodes.value() }
    }
}

/// The median of rates that come and go, to one part in [`PARTS`] of its power of two.
#[derive(Debug, Default)]
struct Median {
    /// By class: how many are in it.
    counts: Vec<u32>,
    count: u32,
    /// The class of the median, and how many are in lower ones.
    at: usize,
    below: u32,
}

impl Median {
    /// A rate goes, and another comes; zero is none.
    fn change(&mut self, before: u64, rate: u64) {
        if before > 0 {
            let class = class_of(before, PARTS);
            self.counts[class] -= 1;
            self.count -= 1;
            self.below -= u32::from(class < self.at);
        }
        if rate > 0 {
            let class = class_of(rate, PARTS);
            self.counts.resize(self.counts.len().max(class + 1), 0);
            self.counts[class] += 1;
            self.count += 1;
            self.below += u32::from(class < self.at);
        }
        self.seek();
    }

    fn seek(&mut self) {
        if self.count == 0 {
            return;
        }
        while self.below > self.count / 2 {
            self.at -= 1;
            self.below -= self.counts[self.at];
        }
        while self.below + self.counts[self.at] <= self.count / 2 {
            self.below += self.counts[self.at];
            self.at += 1;
        }
    }

    fn value(&self) -> u64 {
        least_of(self.at, PARTS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_median_is_the_one_in_the_middle(
            changes in prop::collection::vec((0usize..20, 0u64..1_000_000), 1..200),
        ) {
            let (mut median, mut rates) = (Median::default(), [0u64; 20]);
            for (at, rate) in changes {
                median.change(rates[at], rate);
                rates[at] = rate;
                let mut known: Vec<u64> = rates.iter().copied().filter(|rate| *rate > 0).collect();
                known.sort_unstable();
                if let Some(middle) = known.get(known.len() / 2) {
                    let expected = least_of(class_of(*middle, PARTS), PARTS);
                    prop_assert_eq!(median.value(), expected);
                }
            }
        }
    }

    #[test]
    fn a_rate_is_of_some_time_or_of_enough_bytes() {
        let mut uplink = Uplink::default();
        let first = uplink.sent(1000, u64::MAX, Micros(1000)).unwrap();
        assert_eq!(first, 1_000_000, "anything says more than nothing");
        Rates::default().set(&mut uplink, Role::Node, first);
        assert_eq!(uplink.sent(4000, 8000, Micros(2000)), None);
        assert_eq!(uplink.sent(4000, 8000, Micros(5_999)), None, "they came together");
        assert_eq!(uplink.sent(12_000, 8000, Micros(6_000)), Some(875_000 + 4_000_000 / SMOOTH));
        assert_eq!(uplink.sent(4000, u64::MAX, Micros(55_999)), None);
        assert_eq!(uplink.sent(46_000, u64::MAX, Micros(56_000)), Some(1_000_000));
    }

    #[test]
    fn a_few_that_are_far_faster_change_nothing_of_what_is_usual() {
        let (mut rates, mut uplinks) = (Rates::default(), [Uplink::default(); 10]);
        for (at, uplink) in uplinks.iter_mut().enumerate() {
            rates.set(uplink, Role::Node, if at < 2 { 1_000_000 } else { 1000 });
        }
        assert!(rates.mean() > 100_000 && rates.usual() <= 1000);
        rates.set(&mut uplinks[0], Role::Node, 0);
        assert_eq!((rates.known, rates.total), (9, 1_008_000));
    }
}
