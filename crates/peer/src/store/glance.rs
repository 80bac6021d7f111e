//! Looking at a kept task without opening it: no file stays open and nothing is written, so that ten thousand
//! tasks can be told to a scheduler.

use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{GroupSet, TaskId};
use serde::de::DeserializeOwned;

use super::signed::SignedLog;
use super::state::StateFile;
use super::task::{Opened, read_record};
use super::{Store, StoreError};

/// What others may be told of a task.
#[derive(Debug, Clone, Default)]
pub struct Glance {
    /// Bytes in the content, once known.
    pub length: Option<u64>,
    /// The groups that are here and that a signed digest covers.
    pub provable: GroupSet,
    /// Signed batches as they were signed, the one that tells the length and the highest digests first.
    pub batches: Vec<Bytes>,
    /// The schedulers' words for those of their signers that are no seeds.
    pub appointments: Vec<Bytes>,
}

impl Glance {
    fn new(length: Option<u64>, have: &GroupSet, log: &SignedLog, limit: usize) -> Self {
        let provable = log.covered(have);
        let batches = if provable.is_empty() { Vec::new() } else { log.best(limit) };
        let appointments = log.appointments_for(&batches);
        Self { length, provable, batches, appointments }
    }
}

impl Store {
    /// What is kept of a task, with signed batches of at most `limit` bytes. None where nothing is kept or
    /// its files cannot be read.
    pub fn glance(&self, id: TaskId, limit: usize) -> Option<Glance> {
        if let Some(opened) = self.opened_now(id)? {
            let have = opened.have();
            return opened.glance_log(|log| Glance::new(opened.length(), &have, log, limit));
        }
        let path = self.directory.path(id);
        let (header, state) = StateFile::glance(&path.join("state"))?;
        let (have, _) = state.recorded(header.length).ok()?;
        let log = SignedLog::glance(&path.join("signed"))?;
        Some(Glance::new(header.length, &have, &log, limit))
    }

    /// The caller's own record of a task, which is not opened for it.
    pub fn record<T: DeserializeOwned>(&self, id: TaskId) -> Result<Option<T>, StoreError> {
        read_record(id, &self.directory.path(id))
    }

    #[cfg(test)]
    pub(super) fn has_open(&self, id: TaskId) -> bool {
        self.opened_now(id).flatten().is_some()
    }

    /// Whether the task is kept; its files where they are open.
    fn opened_now(&self, id: TaskId) -> Option<Option<Arc<Opened>>> {
        let opened = Arc::clone(&self.tasks.lock().get(&id)?.opened);
        let opened = opened.lock();
        Some(opened.upgrade())
    }
}
