//! Signed digests of a task: kept for children, and believed here.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use dfs_model::GroupRange;

use super::super::signed::SignedLog;
use super::{Opened, StoreError, StoredTask};
use crate::digests::{Appointment, SignedDigests};
use crate::hashtree::{Cv, Node, Shape, fold};

/// What files take grows by so many bytes.
const PAGE: u64 = 4096;

impl StoredTask {
    /// Keeps a batch whose signature the caller has verified: its length and digests are known from now
    /// on. Where they contradict what this host found by itself, the signer is right, and the groups
    /// below are missing.
    pub fn add_signed(&self, signed: &SignedDigests) -> Result<(), StoreError> {
        let opened = &*self.opened;
        let batch = signed.batch();
        opened.presence.check()?;
        if batch.task != opened.id {
            return Err(StoreError::OtherTask { task: opened.id, got: batch.task });
        }
        if let Some(length) = batch.length {
            self.set_length(length)?;
        }
        let shape = self.shape();
        // Whoever does not know the length cannot know the root.
        let blind_root = |node| batch.length.is_none() && shape.is_root(node);
        let misplaced = |node: &Node| !opened.keeps(shape, *node) || blind_root(*node);
        if let Some(node) = batch.entries.iter().map(|(node, _)| *node).find(misplaced) {
            return Err(StoreError::Misplaced { task: opened.id, node });
        }
        let contradicts = |(node, cv): &&(Node, Cv)| {
            self.believed(shape, *node).is_some_and(|believed| believed != *cv)
        };
        let wrong: Vec<Node> =
            batch.entries.iter().filter(contradicts).map(|(node, _)| *node).collect();
        let has_grown = opened.with_log(|log| {
            let before = log.len();
            if !wrong.is_empty() || !log.knows(signed) {
                log.append(signed)?;
            }
            Ok(log.len().div_ceil(PAGE) != before.div_ceil(PAGE))
        })?;
        for node in wrong {
            self.mark_bad(&[shape.groups_of(node)])?;
        }
        opened.presence.dirty.store(true, Relaxed);
        let written = opened.state.write_nodes(batch.entries.iter().copied());
        match has_grown {
            true => opened.directory.measure(&opened.presence),
            // Digests may have made the file of the state longer.
            false => opened.recount(0),
        }
        written.map_err(StoreError::write(opened.id, &opened.path))
    }

    /// Keeps a scheduler's word on who signs for this task, to be handed back to a scheduler.
    pub fn add_appointment(&self, appointment: &Appointment) -> Result<(), StoreError> {
        let opened = &*self.opened;
        opened.presence.check()?;
        if appointment.task != opened.id {
            return Err(StoreError::OtherTask { task: opened.id, got: appointment.task });
        }
        opened.with_log(|log| log.appoint(appointment))
    }

    /// What this host holds the digest of `node` to be.
    fn believed(&self, shape: Shape, node: Node) -> Option<Cv> {
        if let Some(cv) = self.opened.known(node) {
            return Some(cv);
        }
        if !self.has(shape.groups_of(node)) {
            return None;
        }
        fold(shape, node, |node| self.opened.known(node))
    }

    /// The signed batches with the highest digests over `groups`, and one that tells the length: what a
    /// child needs to verify them. None when the log cannot be read.
    pub fn signed_for(&self, groups: GroupRange) -> Vec<Arc<SignedDigests>> {
        self.opened.with_log(|log| Ok(log.batches_for(groups))).unwrap_or_default()
    }

    /// Schedulers' words for those of whom these batches are, where they stand in for seeds.
    pub fn appointments_for(&self, batches: &[Bytes]) -> Vec<Bytes> {
        self.opened.with_log(|log| Ok(log.appointments_for(batches))).unwrap_or_default()
    }

    /// Whether a signed digest over `group` is kept; to be asked often, it reads no batch.
    pub fn is_signed(&self, group: u64) -> bool {
        self.opened.with_log(|log| Ok(log.covers(group))).unwrap_or(false)
    }

    /// Brings back the signed digests over `groups` after they were forgotten.
    pub(super) fn restore_signed(&self, groups: GroupRange) -> Result<(), StoreError> {
        let opened = &*self.opened;
        let shape = self.shape();
        let batches = opened.with_log(|log| Ok(log.batches_for(groups)))?;
        let entries = batches.iter().flat_map(|signed| &signed.batch().entries).copied();
        let over = |node: Node| {
            opened.keeps(shape, node) && !shape.groups_of(node).intersection(groups).is_empty()
        };
        let written = opened.state.write_nodes(entries.filter(|(node, _)| over(*node)));
        written.map_err(StoreError::write(opened.id, &opened.path))
    }
}

impl Opened {
    /// What `look` makes of the log; none when it cannot be read.
    pub(in crate::store) fn glance_log<T>(&self, look: impl FnOnce(&SignedLog) -> T) -> Option<T> {
        self.with_log(|log| Ok(look(log))).ok()
    }

    fn with_log<T>(
        &self,
        act: impl FnOnce(&mut SignedLog) -> std::io::Result<T>,
    ) -> Result<T, StoreError> {
        let path = self.path.join("signed");
        let mut signed = self.signed.lock();
        let done = match &mut *signed {
            Some(log) => act(log),
            None => SignedLog::open(&path).and_then(|log| act(signed.insert(log))),
        };
        done.map_err(StoreError::write(self.id, &path))
    }
}
