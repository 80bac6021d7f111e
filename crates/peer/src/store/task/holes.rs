//! Taking parts out of a task that is in use: what a mount's quota has no room for.
//!
//! Invariant: nobody reads a hole. What goes is first no longer recorded as here; then nobody judges or writes to the
//! content while the hole is made, and who read meanwhile reads again ([`StoredTask::read_at`]). Where others read the
//! content file by themselves, nothing goes, whether they are known here or the kernel alone knows of them; nor where the file
//! system does not tell of the latter. If the process
//! or the machine dies in between, what is recorded is less than what is there, or is hashed again and found missing.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use dfs_model::{ByteSize, GROUP_BYTES, GroupRange, Invariant};
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;

use super::sole::Opens;
use super::{Opened, StoreError, StoredTask};

/// What is made of it: nothing moves, and no length changes.
pub(super) const HOLE: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// What was taken out of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakenOut {
    /// The groups that are not here any more.
    pub groups: Vec<GroupRange>,
    /// Disk that this gave back.
    pub freed: ByteSize,
}

impl StoredTask {
    /// Whether the file system can give parts of a content back at all, and tells who else has it open.
    pub fn can_take_out(&self) -> Result<(), StoreError> {
        let content = &self.opened.content;
        let tried = content.metadata().and_then(|metadata| {
            if matches!(Opens::of(content), Opens::Unknown) {
                return Err(io::Error::other("it has no leases: nobody can tell who reads them"));
            }
            // Behind its end there is nothing.
            Ok(fallocate(content, HOLE, metadata.len(), GROUP_BYTES)?)
        });
        tried.map_err(StoreError::io("give back parts of", &self.content_path()))
    }

    /// Takes those of `runs` that are here out of the content, and gives their disk back, although the task may be in use;
    /// what proves them stays. Nothing goes of what is pinned, or read by others directly ([`StoredTask::read_directly`]).
    pub fn take_out(&self, runs: &[GroupRange]) -> Result<TakenOut, StoreError> {
        let opened = &*self.opened;
        opened.presence.check()?;
        let path = self.content_path();
        let failed = || StoreError::io("give back parts of", &path);
        let _alone = opened.holes.write();
        // Who copies from the content file by its path holds a shared one.
        match flock(&opened.content, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(TakenOut::default()),
            Err(error) => return Err(failed()(error.into())),
        }
        let taken = opened.take_out(runs);
        // It was this file's own: there is nothing to fail.
        let _ = flock(&opened.content, FlockOperation::Unlock);
        taken.map_err(failed())
    }
}

impl Opened {
    fn take_out(&self, runs: &[GroupRange]) -> io::Result<TakenOut> {
        let forgotten = self.presence.while_undirected(Instant::now(), || {
            // An earlier agent's mount may be there that nobody could go on with, or one without a name.
            let opens = Opens::of(&self.content);
            let is_sole = matches!(opens, Opens::Sole { .. });
            let may_go = is_sole || Invariant::NothingInUseIsTaken.is_broken();
            may_go.then(|| (opens, self.forget(runs)))
        });
        let Some((_opens, forgotten)) = forgotten.flatten() else {
            return Ok(TakenOut::default());
        };
        let (groups, from_memory) = forgotten?;
        let before = self.presence.bytes();
        for run in &groups {
            let (offset, length) = (run.first * GROUP_BYTES, run.count * GROUP_BYTES);
            let punched = fallocate(&self.content, HOLE, offset, length).map_err(io::Error::from);
            if let Err(error) = punched.and_then(|()| self.punch_upper(*run, 0)) {
                // It is not here any more all the same, and whoever has to know that is told.
                tracing::warn!(task = %self.id, groups = %run, %error, "disk could not be given back");
            }
        }
        self.give_memory_back(from_memory * GROUP_BYTES);
        if !groups.is_empty() {
            self.directory.measure(&self.presence);
        }
        let freed = ByteSize(before.saturating_sub(self.presence.bytes()));
        Ok(TakenOut { groups, freed })
    }

    /// Records that those of `runs` that are here are not any more; which, and how many of them lay in memory.
    fn forget(&self, runs: &[GroupRange]) -> io::Result<(Vec<GroupRange>, u64)> {
        let mut facts = self.facts.write();
        let here = |run: &GroupRange| facts.have.present_in(*run).collect::<Vec<_>>();
        let gone: Vec<GroupRange> = runs.iter().flat_map(here).collect();
        if gone.is_empty() {
            return Ok((gone, 0));
        }
        let in_memory = facts.upper.len();
        let was_clean = facts.header.is_clean();
        self.presence.dirty.store(true, Relaxed);
        facts.dirty(&self.state, self.directory.boot())?;
        facts.taken_out += 1;
        for run in &gone {
            facts.have.remove_range(*run);
            facts.doubt.remove_range(*run);
            facts.upper.remove_range(*run);
            self.record_upper(&facts.upper, *run)?;
            self.state.record(&facts.below(), *run)?;
        }
        // After a power cut the mark on disk would vouch for them.
        if was_clean && self.state.sync().is_err() {
            self.give_up(&mut facts);
        }
        let from_memory = in_memory - facts.upper.len();
        Ok((gone, from_memory))
    }
}

/// What a test has happen in the middle of a read, a check or a commit.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Interruption(parking_lot::Mutex<Option<Box<dyn FnOnce() + Send>>>);

#[cfg(test)]
impl std::fmt::Debug for Interruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Interruption")
    }
}

#[cfg(test)]
impl Interruption {
    pub(super) fn happens(&self) {
        let act = self.0.lock().take();
        act.into_iter().for_each(|act| act());
    }
}

#[cfg(test)]
impl StoredTask {
    /// The next one who has looked at what is here, and is about to read or write it, finds that this happens.
    pub(crate) fn interrupt(&self, act: impl FnOnce() + Send + 'static) {
        *self.opened.interruption.0.lock() = Some(Box::new(act));
    }

    /// Whether a hole could be made now.
    pub(in crate::store) fn could_be_taken_out(&self) -> bool {
        self.opened.holes.try_write().is_some()
    }
}
