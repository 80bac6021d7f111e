//! What tasks want the schedulers to know, merged until it is sent.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use dfs_model::TaskInfo;
use dfs_model::{GroupRange, GroupSet, HostId, Priority, TaskId};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::conductor::Failure;
use crate::engine::{Command, Ledger};

/// Failures reported in one batch of one task.
const MAX_FAILURES: usize = 256;

/// Batches of digests waiting to be sent of one task; the oldest go first, children get them with the bytes.
const MAX_SIGNED: usize = 4096;

/// A task that takes part.
#[derive(Clone)]
pub(super) struct Registration {
    pub(super) task: TaskInfo,
    pub(super) priority: Priority,
    pub(super) commands: mpsc::Sender<Command>,
}

/// What happened in one task since the last batch.
#[derive(Default)]
pub(super) struct News {
    pub(super) register: bool,
    /// Digests that this host has signed.
    pub(super) signed: VecDeque<Bytes>,
    pub(super) done: BTreeMap<Option<HostId>, Delivered>,
    pub(super) failed: Vec<(GroupRange, HostId, Failure)>,
    pub(super) reschedule: Option<Vec<HostId>>,
    pub(super) end: Option<PeerEnd>,
    pub(super) leave: bool,
}

/// What one parent, or the source, delivered.
#[derive(Default)]
pub(super) struct Delivered {
    pub(super) groups: GroupSet,
    /// How long the last of it took.
    pub(super) cost: Duration,
}

/// How a peer's part in a task ended.
pub(super) struct PeerEnd {
    /// Why it failed; `None` when it has everything.
    pub(super) reason: Option<String>,
    pub(super) ledger: Ledger,
}

#[derive(Default)]
struct Inner {
    tasks: HashMap<TaskId, Registration>,
    news: BTreeMap<TaskId, News>,
    state: String,
    connected: usize,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    filled: Notify,
}

impl Outbox {
    fn tell(&self, task: TaskId, change: impl FnOnce(&mut News)) {
        change(self.inner.lock().news.entry(task).or_default());
        self.filled.notify_one();
    }

    pub(super) fn register(
        &self,
        task: TaskInfo,
        priority: Priority,
        commands: mpsc::Sender<Command>,
    ) {
        let id = task.id;
        self.inner.lock().tasks.insert(id, Registration { task, priority, commands });
        self.tell(id, |news| news.register = true);
    }

    pub(super) fn done(
        &self,
        task: TaskId,
        groups: GroupRange,
        parent: Option<HostId>,
        cost: Duration,
    ) {
        self.tell(task, |news| {
            let delivered = news.done.entry(parent).or_default();
            delivered.groups.insert_range(groups);
            delivered.cost = cost;
        });
    }

    pub(super) fn signed(&self, task: TaskId, batch: Bytes) {
        self.tell(task, |news| {
            if news.signed.len() >= MAX_SIGNED {
                news.signed.pop_front();
            }
            news.signed.push_back(batch);
        });
    }

    pub(super) fn ended(&self, task: TaskId, end: PeerEnd) {
        self.tell(task, |news| news.end = Some(end));
    }

    pub(super) fn failed(&self, task: TaskId, groups: GroupRange, host: HostId, why: Failure) {
        self.tell(task, |news| {
            if news.failed.len() < MAX_FAILURES {
                news.failed.push((groups, host, why));
            }
        });
    }

    pub(super) fn reschedule(&self, task: TaskId, bad: Vec<HostId>) {
        self.tell(task, |news| news.reschedule.get_or_insert_default().extend(bad));
    }

    pub(super) fn leave(&self, task: TaskId) {
        self.inner.lock().tasks.remove(&task);
        self.tell(task, |news| news.leave = true);
    }

    /// Waits until there is something to send.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    pub(super) fn take(&self) -> BTreeMap<TaskId, News> {
        std::mem::take(&mut self.inner.lock().news)
    }

    /// Drops complaints about parents: they were made while their scheduler was away, and a new one must
    /// not judge its peers by them.
    pub(super) fn forget_complaints(&self) {
        for news in self.inner.lock().news.values_mut() {
            news.failed.clear();
            news.reschedule = None;
        }
    }

    pub(super) fn registration(&self, task: &TaskId) -> Option<Registration> {
        self.inner.lock().tasks.get(task).cloned()
    }

    pub(super) fn registrations(&self) -> Vec<Registration> {
        self.inner.lock().tasks.values().cloned().collect()
    }

    pub(super) fn set_state(&self, state: impl Into<String>) {
        self.inner.lock().state = state.into();
    }

    pub(super) fn state(&self) -> String {
        let inner = self.inner.lock();
        if inner.state.is_empty() { "a scheduler".to_owned() } else { inner.state.clone() }
    }

    pub(super) fn connected(&self, change: isize) {
        let mut inner = self.inner.lock();
        inner.connected = inner.connected.saturating_add_signed(change);
    }

    pub(super) fn is_connected(&self) -> bool {
        self.inner.lock().connected > 0
    }
}
