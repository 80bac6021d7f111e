//! What the core wants to look at again, and when. Stale entries are harmless: whoever set one checks
//! its own state when it fires.

use std::collections::BTreeSet;

use dfs_model::{HostId, TaskId};

use super::Millis;

/// Something to look at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A host whose stream is broken.
    Silence(HostId),
    /// A seed that was asked and has not answered.
    Obtain(TaskId),
    /// A peer without parents.
    Retry(TaskId, HostId),
    /// A task that nobody takes.
    Idle(TaskId),
    /// Holders of a task who were asked what they hold.
    Recall(TaskId),
    /// Those of a task that were handed to a delegate.
    HandedOver(TaskId),
    /// Leases of a task.
    Lead(TaskId),
    /// A task of which a seed is to be ordered more.
    Order(TaskId),
    /// Reserves of a task that are to be named anew.
    Reserves(TaskId),
}

/// Timers in order of time; the same one may be set for several times.
#[derive(Debug, Default)]
pub struct Timers(BTreeSet<(Millis, Timer)>);

impl Timers {
    /// Sets one.
    pub fn set(&mut self, at: Millis, timer: Timer) {
        self.0.insert((at, timer));
    }

    /// Takes the first one that is due.
    pub fn pop(&mut self, now: Millis) -> Option<(Millis, Timer)> {
        let first = *self.0.first()?;
        (first.0 <= now).then(|| {
            self.0.remove(&first);
            first
        })
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Millis> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Number of timers set.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
