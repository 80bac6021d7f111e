//! What nobody waits for gives way, on this machine's processors and its disk, to what somebody waits for.
//!
//! Verifying and storing what comes in takes both, and a fill that comes as fast as it can takes them all. While somebody
//! is blocked on a read, all that comes in the background takes turns: one part of it is verified and stored at a time. It
//! never stops, and nobody who waits finds more than one of its parts in the way. What somebody waits for needs no turn,
//! whoever wanted it first.

use std::collections::BTreeMap;

use dfs_model::{GroupRange, Priority, TaskId};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

/// See the module.
#[derive(Debug)]
pub struct Turns {
    /// What somebody waits for, by a number of his own.
    waiting: Mutex<BTreeMap<u64, (TaskId, GroupRange)>>,
    one: Semaphore,
}

/// Somebody waits, as long as this is there.
#[derive(Debug)]
pub struct Waiting<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Default for Turns {
    fn default() -> Self {
        Self { waiting: Mutex::default(), one: Semaphore::new(1) }
    }
}

impl Turns {
    /// Somebody begins to wait for groups of a task with this priority, if that is what others give way to.
    pub fn waits(
        &self,
        priority: Priority,
        task: TaskId,
        groups: GroupRange,
    ) -> Option<Waiting<'_>> {
        (priority == Priority::Demand).then(|| {
            let mut waiting = self.waiting.lock();
            let number = waiting.last_key_value().map_or(0, |(last, _)| last + 1);
            waiting.insert(number, (task, groups));
            Waiting { turns: self, number }
        })
    }

    /// Waits for the turn of groups of a task that came with this priority; none is needed where they need not give way.
    pub async fn turn(
        &self,
        priority: Priority,
        task: TaskId,
        groups: GroupRange,
    ) -> Option<SemaphorePermit<'_>> {
        if priority < Priority::Prefetch || !self.gives_way(task, groups) {
            return None;
        }
        // It is never closed.
        self.one.acquire().await.ok()
    }

    /// Whether somebody waits, and nobody for any of these.
    fn gives_way(&self, task: TaskId, groups: GroupRange) -> bool {
        let waiting = self.waiting.lock();
        let is_awaited = |(of, awaited): &(TaskId, GroupRange)| {
            *of == task && !awaited.intersection(groups).is_empty()
        };
        !waiting.is_empty() && !waiting.values().any(is_awaited)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.turns.waiting.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn while_somebody_waits_the_background_does_one_thing_at_a_time() {
        let turns = Turns::default();
        let (task, other) = (TaskId::from_bytes([1; 32]), TaskId::from_bytes([2; 32]));
        let (awaited, all) = (GroupRange::new(3, 1), GroupRange::new(0, 8));
        let at_once = |priority| turns.turn(priority, other, all).now_or_never();
        assert!(matches!(at_once(Priority::Background), Some(None)));
        let waits = turns.waits(Priority::Demand, task, awaited);
        assert!(turns.waits(Priority::ReadAhead, task, all).is_none(), "nobody is blocked on that");
        let first = at_once(Priority::Background);
        assert!(matches!(first, Some(Some(_))));
        assert!(at_once(Priority::Prefetch).is_none());
        // What is waited for comes in the background by chance, and gives way to nobody.
        let own = |groups| turns.turn(Priority::Background, task, groups).now_or_never();
        assert!(matches!(own(all), Some(None)));
        assert!(own(GroupRange::new(4, 4)).is_none());
        assert!(matches!(at_once(Priority::Demand), Some(None)));
        assert!(matches!(at_once(Priority::Bulk), Some(None)));
        drop(first);
        assert!(matches!(at_once(Priority::Prefetch), Some(Some(_))));
        drop(waits);
        assert!(matches!(at_once(Priority::Background), Some(None)));
    }
}
