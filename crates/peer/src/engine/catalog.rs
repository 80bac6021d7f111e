//! What the tasks in the store are, without opening them: for announcing, and for whoever looks.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{CanonicalUrl, TaskId, TaskInfo, TaskKey};
use dfs_proto::{common, convert, scheduler};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::store::Store;
use crate::swarm::Holdings;

/// Most tasks under way that are announced to a scheduler, so that they fit into one message.
const MAX_ANNOUNCED: usize = 10_000;

/// Most bytes of signed digests in one announcement, and of one task in it.
const ANNOUNCED_DIGESTS: usize = 8 << 20;
const DIGESTS_OF_ONE: usize = 512 << 10;

/// Most tasks remembered.
const MAX_KNOWN: usize = 2 * MAX_ANNOUNCED;

/// What is announced of a task's record; the recipe in it may be large and is passed over.
#[derive(Debug, Deserialize)]
struct Head {
    key: TaskKey,
    #[serde(default)]
    place: Option<CanonicalUrl>,
    piece_level: u8,
    ranges: bool,
}

/// The store's tasks by their keys, each record read once.
pub(crate) struct Catalog {
    store: Arc<Store>,
    known: Mutex<HashMap<TaskId, Arc<Head>>>,
}

impl Catalog {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store, known: Mutex::default() }
    }

    /// A task that is kept; none when its record is unreadable or of another task.
    pub(crate) fn info(&self, id: &TaskId, length: Option<u64>) -> Option<TaskInfo> {
        let head = self.head(id)?;
        let Head { key, place, piece_level, ranges } = &*head;
        let (key, place) = (key.clone(), place.clone());
        let (piece_level, ranges) = (*piece_level, *ranges);
        Some(TaskInfo { id: *id, length, key, place, piece_level, ranges })
    }

    fn head(&self, id: &TaskId) -> Option<Arc<Head>> {
        let (head, is_known) = self.looked_up(id)?;
        if is_known {
            return Some(head);
        }
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(*id, Arc::clone(&head));
        Some(head)
    }

    /// Of a task, and whether it was remembered.
    fn looked_up(&self, id: &TaskId) -> Option<(Arc<Head>, bool)> {
        if let Some(head) = self.known.lock().get(id) {
            return Some((Arc::clone(head), true));
        }
        let head: Head = self.store.record(*id).ok()??;
        (head.key.id() == *id).then(|| (Arc::new(head), false))
    }

    /// The task that was read last among those that are wanted. Blocks.
    pub(crate) fn newest(&self, is_wanted: impl Fn(&TaskId, &TaskKey) -> bool) -> Option<TaskId> {
        let mut summaries = self.store.list();
        summaries.sort_unstable_by_key(|summary| std::cmp::Reverse(summary.last_read));
        let wanted = |id: &TaskId| self.head(id).is_some_and(|head| is_wanted(id, &head.key));
        summaries.into_iter().map(|summary| summary.id).find(wanted)
    }

    /// The tasks among those that are wanted, those that were read last first. Blocks.
    pub(crate) fn all(
        &self,
        most: usize,
        is_wanted: impl Fn(&TaskKey) -> bool,
    ) -> Vec<(TaskId, TaskKey)> {
        let mut summaries = self.store.list();
        summaries.sort_unstable_by_key(|summary| std::cmp::Reverse(summary.last_read));
        let wanted = summaries.into_iter().filter_map(|summary| {
            let head = self.head(&summary.id).filter(|head| is_wanted(&head.key))?;
            Some((summary.id, head.key.clone()))
        });
        wanted.take(most).collect()
    }

    /// A task was taken away.
    pub(super) fn forget(&self, id: &TaskId) {
        self.known.lock().remove(id);
    }

    /// What this host can give others of one task, with at most `digests` bytes of what proves it.
    fn held(&self, id: TaskId, digests: usize) -> Option<scheduler::Held> {
        let glance = self.store.glance(id, digests)?;
        if glance.provable.is_empty() {
            return None;
        }
        let info = self.info(&id, glance.length)?;
        let signed = |encoded: Bytes| common::SignedDigests { encoded };
        Some(scheduler::Held {
            task: Some((&info).into()),
            groups: convert::runs(&glance.provable),
            digests: glance.batches.into_iter().map(signed).collect(),
            appointments: glance.appointments,
        })
    }
}

impl Holdings for Catalog {
    /// What a message cannot hold is not announced: those that come first are.
    fn held(&self, tasks: &[TaskId]) -> Vec<scheduler::Held> {
        let mut left = ANNOUNCED_DIGESTS;
        let held = tasks.iter().filter_map(|id| {
            let held = self.held(*id, left.min(DIGESTS_OF_ONE))?;
            let digests: usize = held.digests.iter().map(|signed| signed.encoded.len()).sum();
            let bytes = digests + held.appointments.iter().map(Bytes::len).sum::<usize>();
            left = left.saturating_sub(bytes);
            Some(held)
        });
        held.take(MAX_ANNOUNCED).collect()
    }

    fn names(&self, is_asked: &dyn Fn(&TaskKey) -> bool) -> Vec<TaskId> {
        let mut summaries = self.store.list();
        summaries.sort_unstable_by_key(|summary| std::cmp::Reverse(summary.last_read));
        let named = summaries.into_iter().map(|summary| summary.id);
        // What is looked at once does not displace what is asked for often.
        let is_its = |id: &TaskId| self.looked_up(id).is_some_and(|(head, _)| is_asked(&head.key));
        named.filter(is_its).collect()
    }
}
