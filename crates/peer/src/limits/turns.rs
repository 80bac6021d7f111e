//! What nobody waits for gives way, on this machine's processors and its disk, to what somebody waits for.
//!
//! Verifying and storing what comes in takes both, and a fill that comes as fast as it can takes them all. While somebody
//! is blocked on a read, all that comes in the background takes turns: one part of it is verified and stored at a time. It
//! never stops, and nobody who waits finds more than one of its parts in the way.

use std::sync::atomic::{AtomicUsize, Ordering};

use dfs_model::Priority;
use tokio::sync::{Semaphore, SemaphorePermit};

/// See the module.
#[derive(Debug)]
pub struct Turns {
    waiting: AtomicUsize,
    one: Semaphore,
}

/// Somebody waits, as long as this is there.
#[derive(Debug)]
pub struct Waiting<'a>(&'a Turns);

impl Default for Turns {
    fn default() -> Self {
        Self { waiting: AtomicUsize::new(0), one: Semaphore::new(1) }
    }
}

impl Turns {
    /// Somebody begins to wait for what has this priority, if that is what others give way to.
    pub fn waits(&self, priority: Priority) -> Option<Waiting<'_>> {
        (priority == Priority::Demand).then(|| {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            Waiting(self)
        })
    }

    /// Waits for the turn of a part of what has this priority; none is needed where it need not give way.
    pub async fn turn(&self, priority: Priority) -> Option<SemaphorePermit<'_>> {
        if priority < Priority::Prefetch || self.waiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        // It is never closed.
        self.one.acquire().await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn while_somebody_waits_the_background_does_one_thing_at_a_time() {
        let turns = Turns::default();
        let at_once = |priority| turns.turn(priority).now_or_never();
        assert!(matches!(at_once(Priority::Background), Some(None)));
        let waits = turns.waits(Priority::Demand);
        assert!(turns.waits(Priority::ReadAhead).is_none(), "nobody is blocked on that");
        let first = at_once(Priority::Background);
        assert!(matches!(first, Some(Some(_))));
        assert!(at_once(Priority::Prefetch).is_none());
        assert!(matches!(at_once(Priority::Demand), Some(None)));
        assert!(matches!(at_once(Priority::Bulk), Some(None)));
        drop(first);
        assert!(matches!(at_once(Priority::Prefetch), Some(Some(_))));
        drop(waits);
        assert!(matches!(at_once(Priority::Background), Some(None)));
    }
}
