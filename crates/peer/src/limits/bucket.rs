//! The token bucket: how long bytes must wait so that a rate holds.

use std::time::Duration;

use dfs_model::Rate;

/// A token bucket that may be overdrawn: takers are let in at once and told how long to wait.
///
/// Waiting as told keeps the bytes released in any span of `t` seconds at or below
/// `rate × t + burst + one taking`. Time is a [`Duration`] since an epoch that the caller picks.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: Rate,
    /// The lead that a full bucket gives over the rate.
    burst: Duration,
    /// When everything taken so far would have been earned without the burst.
    earned_at: Duration,
}

impl TokenBucket {
    /// A full bucket. A rate of zero is taken as one byte a second.
    pub fn new(rate: Rate, burst_bytes: u64) -> Self {
        let rate = Rate(rate.0.max(1));
        Self { rate, burst: cost(rate, burst_bytes), earned_at: Duration::ZERO }
    }

    /// The rate it keeps.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes `bytes` at `now`; how long to wait before they may leave.
    pub fn take(&mut self, now: Duration, bytes: u64) -> Duration {
        self.earned_at = self.earned_at.max(now).saturating_add(cost(self.rate, bytes));
        self.earned_at.saturating_sub(now.saturating_add(self.burst))
    }
}

/// The time it takes to earn `bytes`, rounded up.
fn cost(rate: Rate, bytes: u64) -> Duration {
    let nanos = (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(rate.0));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_bucket_lets_its_burst_pass_and_then_keeps_the_rate() {
        let mut bucket = TokenBucket::new(Rate(1000), 500);
        let now = Duration::from_secs(7);
        assert_eq!(bucket.take(now, 500), Duration::ZERO);
        assert_eq!(bucket.take(now, 100), Duration::from_millis(100));
        assert_eq!(bucket.take(now, 100), Duration::from_millis(200));
        let later = now + Duration::from_secs(60);
        assert_eq!(bucket.take(later, 500), Duration::ZERO);
        assert_eq!(bucket.take(later, 1), Duration::from_millis(1));
    }

    #[test]
    fn absurd_numbers_saturate() {
        let mut bucket = TokenBucket::new(Rate(0), u64::MAX);
        assert!(bucket.take(Duration::MAX, u64::MAX) <= Duration::MAX);
    }

    proptest! {
        #[test]
        fn no_span_releases_more_than_rate_and_burst(
            rate in 1u64..1_000_000,
            burst in 0u64..100_000,
            takings in prop::collection::vec((0u64..2_000_000_000, 1u64..100_000), 1..60),
        ) {
            let mut bucket = TokenBucket::new(Rate(rate), burst);
            let mut now = Duration::ZERO;
            let mut released: Vec<(Duration, u64)> = Vec::new();
            for (pause, bytes) in takings {
                now += Duration::from_nanos(pause);
                released.push((now + bucket.take(now, bytes), bytes));
            }
            for first in 0..released.len() {
                let mut sum = 0u64;
                for &(at, bytes) in &released[first..] {
                    sum += bytes;
                    let span = (at - released[first].0).as_secs_f64();
                    // The first taking of the span was paid for before it began.
                    let bound = span * rate as f64 + (burst + released[first].1) as f64 + 1.0;
                    prop_assert!(sum as f64 <= bound, "{sum} bytes in {span} s, bound {bound}");
                }
            }
        }
    }
}
