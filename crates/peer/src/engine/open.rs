//! Which tasks are open: each is opened once however many ask at once, no lock is held over its files, and one
//! that nobody has used for a while is closed again.
//!
//! A task closed here loses nothing: its files and its actor come back with the next one who opens it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use dfs_model::TaskId;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::task::{Command, Hold, Shared, Task};

/// The open tasks.
#[derive(Default)]
pub(super) struct OpenTasks {
    slots: Mutex<HashMap<TaskId, Arc<Slot>>>,
    /// Mailboxes of those that were found taken away before they were closed for it.
    found_gone: Mutex<HashMap<TaskId, mpsc::Sender<Command>>>,
}

/// The place of one task, from the first who wants it open.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) running: OnceCell<Running>,
}

/// An open task, its actor at work.
pub(super) struct Running {
    shared: Arc<Shared>,
    stop: CancellationToken,
    state: Mutex<State>,
}

struct State {
    hold: Weak<Hold>,
    idle_since: Option<Instant>,
    closed: bool,
}

impl Running {
    pub(super) fn new(shared: Arc<Shared>, stop: CancellationToken) -> Self {
        let state = State { hold: Weak::new(), idle_since: None, closed: false };
        Self { shared, stop, state: Mutex::new(state) }
    }

    /// A handle that keeps it open; none once it was closed.
    fn take(&self) -> Option<Task> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        state.idle_since = None;
        let hold = state.hold.upgrade().unwrap_or_default();
        state.hold = Arc::downgrade(&hold);
        Some(Task::new(Arc::clone(&self.shared), Some(hold)))
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.stop.cancel();
    }

    /// Whether nobody has held it, and nothing moved, since `after` ago; it is closed then.
    fn close_if_idle(&self, now: Instant, after: Duration) -> bool {
        let mut state = self.state.lock();
        if state.hold.strong_count() > 0 || !self.shared.is_idle() {
            state.idle_since = None;
            return false;
        }
        let since = *state.idle_since.get_or_insert(now);
        if state.closed || now.saturating_duration_since(since) < after {
            return false;
        }
        state.closed = true;
        self.stop.cancel();
        true
    }
}

/// What became of a task that was taken away.
pub(super) enum Closed {
    /// It is not open any more; its mailbox, where it was.
    Now(Option<mpsc::Sender<Command>>),
    /// Somebody opened it since, or is about to; the mailbox of the one before, where that was open.
    OpenedAnew(Option<mpsc::Sender<Command>>),
}

impl OpenTasks {
    /// The place of a task, made where there is none.
    pub(super) fn slot(&self, id: TaskId) -> Arc<Slot> {
        Arc::clone(self.slots.lock().entry(id).or_default())
    }

    /// A handle on the task in `slot`, if that still is its place.
    pub(super) fn take(&self, id: &TaskId, slot: &Arc<Slot>) -> Option<Task> {
        let running = slot.running.get()?;
        let slots = self.slots.lock();
        if slots.get(id).is_none_or(|current| !Arc::ptr_eq(current, slot)) {
            running.close();
            return None;
        }
        drop(slots);
        self.held(id)
    }

    /// A handle that keeps the task open, where it is.
    pub(super) fn held(&self, id: &TaskId) -> Option<Task> {
        let mut slots = self.slots.lock();
        let running = slots.get(id)?.running.get()?;
        if running.shared.stored.is_gone() {
            // Taken away a moment ago: it is opened anew.
            running.close();
            self.found_gone.lock().insert(*id, running.shared.commands.clone());
            slots.remove(id);
            return None;
        }
        running.take()
    }

    /// A handle to look at the task by, where it is open.
    pub(super) fn seen(&self, id: &TaskId) -> Option<Task> {
        let slots = self.slots.lock();
        let running = slots.get(id)?.running.get()?;
        Some(Task::new(Arc::clone(&running.shared), None))
    }

    /// Those of a listing's members.
    pub(super) fn listed(&self) -> Vec<(TaskId, Arc<Shared>)> {
        let slots = self.slots.lock();
        let running = slots.values().filter_map(|slot| slot.running.get());
        let listed = running.filter(|running| running.shared.listed.get().is_some());
        listed.map(|running| (running.shared.info.id, Arc::clone(&running.shared))).collect()
    }

    /// A task could not be opened: its place goes unless somebody else is trying.
    pub(super) fn give_up(&self, id: &TaskId, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock();
        // The table's and the caller's.
        if Arc::strong_count(slot) <= 2 && slot.running.get().is_none() {
            slots.remove(id);
        }
    }

    /// Closes a task that was taken away, whoever holds it. Others may open it again at once: `released` is what must
    /// be over before.
    pub(super) fn close_gone(&self, id: &TaskId, released: impl FnOnce()) -> Closed {
        let mut slots = self.slots.lock();
        let found = self.found_gone.lock().remove(id);
        let Some(slot) = slots.get(id).cloned() else {
            released();
            return Closed::Now(found);
        };
        let Some(running) = slot.running.get().filter(|open| open.shared.stored.is_gone()) else {
            return Closed::OpenedAnew(found);
        };
        slots.remove(id);
        released();
        drop(slots);
        running.close();
        Closed::Now(Some(running.shared.commands.clone()))
    }

    /// Closes what was idle for so long, and gives it. Others may open it again at once: `released` is what
    /// must be over before.
    pub(super) fn close_idle(
        &self,
        now: Instant,
        after: Duration,
        released: impl Fn(&TaskId),
    ) -> Vec<Arc<Shared>> {
        let mut closed = Vec::new();
        self.slots.lock().retain(|id, slot| {
            let Some(running) = slot.running.get() else {
                // Whoever wanted it open went away, or failed together with another, when only the table's is
                // left.
                return Arc::strong_count(slot) > 1;
            };
            if !running.close_if_idle(now, after) {
                return true;
            }
            released(id);
            closed.push(Arc::clone(&running.shared));
            false
        });
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_task_that_nobody_opens_any_more_goes() {
        let (tasks, id) = (OpenTasks::default(), TaskId::from_bytes([7; 32]));
        let close_idle = || tasks.close_idle(Instant::now(), Duration::ZERO, |_| {});
        let opening = tasks.slot(id);
        assert!(close_idle().is_empty());
        assert!(Arc::ptr_eq(&opening, &tasks.slot(id)), "somebody is opening it");
        drop(opening);
        assert!(close_idle().is_empty());
        assert!(tasks.slots.lock().is_empty());
    }
}
