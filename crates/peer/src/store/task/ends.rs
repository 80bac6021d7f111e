//! Where the content's file ends, for others who read it by themselves.
//!
//! Whom the kernel lets read the file in place of one of its own reads as far as the file goes: it must end with the
//! content. The kernel, where it shows files of it as a file system's, reads whole pages, and takes one that the file has a
//! part of only for a failure of the disk: it must end on a group. So who reads it says which, and for how long.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use dfs_model::GROUP_BYTES;

use super::sole::Opens;
use super::{Opened, StoredTask};
use crate::store::StoreError;
use crate::store::uses::Presence;

/// Where the file of a content ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ends {
    /// With the last byte.
    #[default]
    WithContent,
    /// Where the group of the last byte does.
    OnGroup,
}

/// Who wants it to end somewhere.
#[derive(Debug, Default)]
pub(in crate::store) struct Wanted {
    ends: Ends,
    by: usize,
}

/// The file of a content ends where it does until this is dropped.
#[derive(Debug)]
#[must_use = "it may end elsewhere when the guard is dropped"]
pub struct EndGuard {
    presence: Arc<Presence>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.presence.wanted_end.lock().by -= 1;
    }
}

impl StoredTask {
    /// Has the content's file end there until the guard is dropped. Refused while it is to end elsewhere for somebody else,
    /// also where this process knows nothing of whom: a mount that was taken away lazily goes on for who has files of it
    /// open, and outlives the agent that knew of it. Where the length is not known yet it is left as it is.
    pub fn keep_end(&self, ends: Ends) -> Result<EndGuard, StoreError> {
        let opened = &*self.opened;
        opened.presence.check()?;
        let mut wanted = opened.presence.wanted_end.lock();
        let length = opened.length();
        let is_one = length.is_none_or(|length| length.is_multiple_of(GROUP_BYTES));
        if wanted.by > 0 && wanted.ends != ends && !is_one {
            return Err(StoreError::EndsElsewhere(opened.id));
        }
        if let Some(length) = length {
            let ended = opened.end(length, ends);
            if !ended.map_err(StoreError::write(opened.id, &opened.path))? {
                return Err(StoreError::EndsElsewhere(opened.id));
            }
        }
        wanted.ends = ends;
        wanted.by += 1;
        Ok(EndGuard { presence: Arc::clone(&opened.presence) })
    }
}

impl Opened {
    /// Whether it ends there now: not where somebody else has it open, and it ended elsewhere.
    fn end(&self, length: u64, ends: Ends) -> io::Result<bool> {
        let mut facts = self.facts.write();
        let now = self.content.metadata()?.len();
        let end = match ends {
            // One that is too short was cut by somebody else, and is seen to elsewhere.
            Ends::WithContent => now.min(length),
            Ends::OnGroup => now.max(length.next_multiple_of(GROUP_BYTES)),
        };
        if now == end {
            return Ok(true);
        }
        let opens = Opens::of(&self.content);
        if matches!(opens, Opens::Shared) {
            return Ok(false);
        }
        // A clean mark names the file's length.
        facts.dirty(&self.state, self.directory.boot())?;
        self.presence.dirty.store(true, Relaxed);
        // Nobody maps what is cut off here: it is no byte of the content's.
        self.content.set_len(end)?;
        Ok(true)
    }
}
