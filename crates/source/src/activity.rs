//! Whether anything still happens on a way of bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When something was last seen, and how many bytes were seen in all.
#[derive(Debug)]
pub struct Activity {
    last: Mutex<Instant>,
    bytes: AtomicU64,
}

impl Default for Activity {
    /// It begins now.
    fn default() -> Self {
        Self { last: Mutex::new(Instant::now()), bytes: AtomicU64::new(0) }
    }
}

impl Activity {
    /// So many bytes have passed.
    pub fn note(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        *self.last.lock() = Instant::now();
    }

    /// Bytes that have passed.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Ends once nothing has passed for so long.
    pub async fn quiet_for(&self, limit: Duration) {
        loop {
            let until = *self.last.lock() + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_passes_now_and_then_is_not_quiet() {
        let (activity, limit, began) =
            (Activity::default(), Duration::from_secs(10), Instant::now());
        for _ in 0..5 {
            let quiet = tokio::time::timeout(limit / 2, activity.quiet_for(limit));
            assert!(quiet.await.is_err());
            activity.note(3);
        }
        activity.quiet_for(limit).await;
        assert_eq!((activity.bytes(), began.elapsed()), (15, limit * 7 / 2));
    }
}
