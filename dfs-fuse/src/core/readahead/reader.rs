//! Whether somebody who was fetched ahead for is still there.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

/// Who reads on through a file.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Milliseconds since the readers of the mount were first followed.
    seen: AtomicU64,
    /// Reads of its that wait for bytes.
    waiting: AtomicU64,
    /// What was to be fetched for it is not.
    withdrawn: AtomicBool,
}

impl Reader {
    pub(super) fn seen(&self, now: Duration) {
        self.seen.store(now.as_millis() as u64, Relaxed);
    }

    pub(super) fn away(&self, now: Duration) -> Duration {
        match self.waiting.load(Relaxed) {
            0 => now.saturating_sub(Duration::from_millis(self.seen.load(Relaxed))),
            _ => Duration::ZERO,
        }
    }

    pub(super) fn waits(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Relaxed);
        Waiting(Arc::clone(self))
    }

    /// Nothing is fetched for it any more; should it read on, it is to be told again what to fetch.
    pub(crate) fn withdrawn(&self) {
        self.withdrawn.store(true, Relaxed);
    }

    /// Whether that was so, since this was asked last.
    pub(super) fn was_withdrawn(&self) -> bool {
        self.withdrawn.load(Relaxed) && self.withdrawn.swap(false, Relaxed)
    }
}

/// A read that waits. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Waiting(Arc<Reader>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}
