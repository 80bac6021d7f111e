//! What a parent holds, followed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use dfs_model::{GroupRange, GroupSet, TaskId};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{Connection, Shared};
use crate::wire::frame::Frame;
use crate::wire::message::{HaveUpdate, WatchRequest};

/// What a parent says it holds of a task. A claim: only verified bytes prove it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holding {
    /// Length of the content in bytes, once the parent knows it.
    pub length: Option<u64>,
    /// It holds everything; `groups` need not say so.
    pub full: bool,
    /// Groups it holds, below the limit given to [`Connection::watch`].
    pub groups: GroupSet,
    /// No more updates come: the parent does not tell, dropped the task, or the connection is over.
    pub ended: bool,
}

impl Holding {
    /// Whether the parent holds all of `range`.
    pub fn holds(&self, range: GroupRange) -> bool {
        !self.ended && (self.full || self.groups.contains_all(range))
    }

    fn apply(&mut self, update: &HaveUpdate, limit: u64) {
        if update.snapshot {
            self.groups = GroupSet::new();
        }
        self.length = update.length.or(self.length);
        self.full = update.full;
        let within = GroupRange::new(0, limit);
        for run in &update.groups {
            self.groups.insert_range(run.intersection(within));
        }
    }
}

/// Follows one task at one parent; see [`Connection::watch`]. Dropping the last one ends the watch.
pub struct HaveWatch {
    updates: watch::Receiver<Holding>,
    task: TaskId,
    connection: Connection,
}

impl HaveWatch {
    /// What the parent holds now.
    pub fn current(&self) -> watch::Ref<'_, Holding> {
        self.updates.borrow()
    }

    /// Waits for news since the last look with this; `false` when there will be none.
    pub async fn changed(&mut self) -> bool {
        if self.updates.borrow().ended {
            return false;
        }
        self.updates.changed().await.is_ok()
    }
}

impl Drop for HaveWatch {
    fn drop(&mut self) {
        self.connection.shared.watches.leave(self.task);
    }
}

/// The watches of a connection as they should be; the agent tells the parent what changed.
#[derive(Default)]
pub(super) struct WatchTable {
    watched: Mutex<HashMap<TaskId, Watched>>,
    changed: Notify,
}

struct Watched {
    request: WatchRequest,
    updates: watch::Sender<Holding>,
    limit: u64,
    watchers: usize,
    announced: bool,
}

pub(super) fn start(connection: &Connection, request: WatchRequest, limit: u64) -> HaveWatch {
    let table = &connection.shared.watches;
    let task = request.task;
    let mut watched = table.watched.lock();
    let entry = match watched.entry(task) {
        // A parent that ended the watch is asked again.
        Entry::Occupied(entry) if entry.get().updates.borrow().ended => {
            let entry = entry.into_mut();
            let watchers = entry.watchers;
            *entry = Watched { watchers, ..Watched::new(request, limit) };
            entry
        }
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(Watched::new(request, limit)),
    };
    entry.watchers += 1;
    entry.limit = entry.limit.max(limit);
    let updates = entry.updates.subscribe();
    if connection.shared.closed.is_cancelled() {
        entry.updates.send_modify(|holding| holding.ended = true);
    }
    drop(watched);
    table.changed.notify_one();
    HaveWatch { updates, task, connection: connection.clone() }
}

impl Watched {
    fn new(request: WatchRequest, limit: u64) -> Self {
        let updates = watch::Sender::new(Holding::default());
        Self { request, updates, limit, watchers: 0, announced: false }
    }
}

impl WatchTable {
    pub(super) fn apply(&self, task: TaskId, update: &HaveUpdate) {
        let watched = self.watched.lock();
        let Some(entry) = watched.get(&task) else { return };
        entry.updates.send_modify(|holding| holding.apply(update, entry.limit));
    }

    pub(super) fn end(&self, task: TaskId) {
        if let Some(entry) = self.watched.lock().get(&task) {
            entry.updates.send_modify(|holding| holding.ended = true);
        }
    }

    fn end_all(&self) {
        for entry in self.watched.lock().values() {
            entry.updates.send_modify(|holding| holding.ended = true);
        }
    }

    fn leave(&self, task: TaskId) {
        if let Some(entry) = self.watched.lock().get_mut(&task) {
            entry.watchers = entry.watchers.saturating_sub(1);
        }
        self.changed.notify_one();
    }

    /// What the parent has to be told.
    fn frames(&self) -> Vec<Frame> {
        let mut frames = Vec::new();
        self.watched.lock().retain(|task, entry| {
            if entry.watchers == 0 {
                frames.extend(entry.announced.then_some(Frame::Unwatch { task: *task }));
                return false;
            }
            if !entry.announced {
                entry.announced = true;
                frames.push(Frame::Watch(entry.request.clone()));
            }
            true
        });
        frames
    }
}

/// Tells the parent about watches that came and went, in order, until the connection is over.
pub(super) async fn run(shared: Arc<Shared>) {
    let tell = async {
        loop {
            shared.watches.changed.notified().await;
            for frame in shared.watches.frames() {
                if shared.outgoing.send(frame).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = shared.closed.cancelled() => {}
        () = tell => {}
    }
    shared.watches.end_all();
}
