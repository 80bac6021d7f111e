//! Reading what has no known length, as it grows.
//!
//! While the length is not known every group that is here is a whole one: the store learns the length before it
//! keeps the last.

use bytes::Bytes;
use dfs_model::{ByteRange, GROUP_BYTES, GroupRange, Priority};

use super::error::ReadError;
use super::task::Task;

/// What there is behind some byte of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Growth {
    /// These bytes, in the store.
    Here(ByteRange),
    /// These, which the store has no room for.
    Passed(Bytes),
    /// The content has so many bytes: from now on it is read as any other.
    Ended(u64),
}

impl Task {
    /// Waits for bytes from `at` on, of which at most `most` are told, or for the length.
    pub async fn grown(&self, at: u64, most: u64, priority: Priority) -> Result<Growth, ReadError> {
        let group = GroupRange::new(at / GROUP_BYTES, 1);
        loop {
            let here = self.here_from(group.first, most / GROUP_BYTES);
            // In this order: what was here before the length was known is whole.
            if let Some(length) = self.length() {
                return Ok(Growth::Ended(length));
            }
            if here > 0 {
                return Ok(Growth::Here(ByteRange::new(at, (group.first + here) * GROUP_BYTES)));
            }
            let passage = match self.ensure_groups(group, priority).await {
                Ok(()) => continue,
                Err(error) if error.is_no_space() => self.passage(group, priority).await,
                Err(error) => Err(error),
            };
            match passage {
                Ok(_in_memory) => {
                    let came = self.shared.passing.group(group.first);
                    let whole = came.filter(|bytes| bytes.len() as u64 == GROUP_BYTES);
                    if let (Some(bytes), None) = (whole, self.length()) {
                        let from = (at - group.first * GROUP_BYTES) as usize;
                        return Ok(Growth::Passed(bytes.slice(from..)));
                    }
                }
                Err(_) if self.length().is_some() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Groups that are here from `first` on, without a gap; `most` are enough, and one is always looked at.
    fn here_from(&self, first: u64, most: u64) -> u64 {
        let groups = GroupRange::new(first, most.max(1));
        let missing = self.shared.stored.missing_in(groups);
        missing.first().map_or(groups.end(), |run| run.first).min(groups.end()) - first
    }
}
