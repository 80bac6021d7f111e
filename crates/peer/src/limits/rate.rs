//! A byte rate shared by everything that sends.

use parking_lot::Mutex;
use tokio::time::Instant;

use dfs_model::Rate;

use super::TokenBucket;

/// Keeps what leaves the process below a rate. Waiters are served in the order they came.
///
/// Take small amounts (64 KiB or so): whoever comes next waits behind what was taken before.
#[derive(Debug)]
pub struct RateLimiter {
    epoch: Instant,
    bucket: Mutex<Option<TokenBucket>>,
}

impl RateLimiter {
    /// A limiter for `rate`, or none for `None`.
    pub fn new(rate: Option<Rate>) -> Self {
        Self { epoch: Instant::now(), bucket: Mutex::new(rate.map(bucket)) }
    }

    /// Changes the rate for whatever is taken from now on.
    pub fn set_rate(&self, rate: Option<Rate>) {
        let mut current = self.bucket.lock();
        if current.as_ref().map(TokenBucket::rate) != rate {
            *current = rate.map(bucket);
        }
    }

    /// The rate it keeps.
    pub fn rate(&self) -> Option<Rate> {
        self.bucket.lock().as_ref().map(TokenBucket::rate)
    }

    /// Waits until `bytes` may leave. Bytes stay accounted for when the wait is given up.
    pub async fn take(&self, bytes: u64) {
        let wait = match self.bucket.lock().as_mut() {
            Some(bucket) => bucket.take(self.epoch.elapsed(), bytes),
            None => return,
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Accounts for bytes that do not wait: small frames that others wait for.
    pub fn charge(&self, bytes: u64) {
        if let Some(bucket) = self.bucket.lock().as_mut() {
            bucket.take(self.epoch.elapsed(), bytes);
        }
    }
}

/// Room for 50 ms, and for one frame: smaller bursts cost wake-ups and gain nothing.
fn bucket(rate: Rate) -> TokenBucket {
    TokenBucket::new(rate, (rate.0 / 20).max(64 << 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn takers_are_held_to_the_rate() {
        let limiter = RateLimiter::new(Some(Rate(1 << 20)));
        let start = Instant::now();
        for _ in 0..160 {
            limiter.take(64 << 10).await;
        }
        // The clock is the runtime's own: 10 MiB at 1 MiB/s, less the burst.
        let seconds = start.elapsed().as_secs_f64();
        assert!((9.9..=10.0).contains(&seconds), "{seconds}");
        limiter.set_rate(None);
        limiter.take(u64::MAX).await;
    }
}
