//! Reading around a hole: bytes of healthy members whose group cannot come because another member of it
//! changed at the origin.
//!
//! A group is proved as a whole, so such a group is never kept and never served. The bytes asked for are
//! read from the origin, pinned to their own member's version, and handed to this host's reader only.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dfs_artifact::Origin;
use dfs_model::{ByteRange, GroupRange, Priority};
use futures::StreamExt;
use tokio::time::Instant;

use super::error::ReadError;
use super::task::Task;

/// Bytes of one read that may be read around holes: what a reader holds in memory at a time.
const MOST: u64 = 8 << 20;

impl Task {
    /// Whether [`Task::read`] may give bytes of `range` that are not going to be in the store: the cache is full,
    /// or some of its groups cannot come as a whole.
    pub fn passes(&self, range: ByteRange) -> bool {
        self.has_holes_in(range) || self.shared.room.has_lacked(Instant::now())
    }

    pub(super) fn has_holes_in(&self, range: ByteRange) -> bool {
        self.members_origin().is_some() && self.hole_in(range.groups()).is_some()
    }

    /// The first run of `groups` that is void and not here.
    pub(super) fn hole_in(&self, groups: GroupRange) -> Option<(GroupRange, ReadError)> {
        let mut at = groups.first;
        while at < groups.end() {
            let rest = GroupRange::new(at, groups.end() - at);
            let (void, error) = self.shared.voids.first_in(rest, Instant::now())?;
            if let Some(missing) = self.shared.stored.missing_in(void).first() {
                return Some((*missing, error));
            }
            at = void.end();
        }
        None
    }

    fn members_origin(&self) -> Option<Arc<dyn Origin>> {
        self.shared.origin.lock().clone().filter(|origin| origin.has_members())
    }

    /// The bytes of `range`, of which some groups cannot come: these from the origin, the others as always.
    pub(super) async fn read_around(
        &self,
        range: ByteRange,
        priority: Priority,
        error: ReadError,
    ) -> Result<Bytes, ReadError> {
        let Some(origin) = self.members_origin().filter(|_| range.len() <= MOST) else {
            return Err(error);
        };
        if self.hole_in(range.groups()).is_none() {
            return Err(error);
        }
        let mut out = BytesMut::with_capacity(range.len() as usize);
        let mut at = range.start;
        while at < range.end {
            let rest = ByteRange::new(at, range.end);
            let hole = self.hole_in(rest.groups()).map(|(hole, _)| hole.bytes(u64::MAX));
            let part = match hole {
                Some(hole) if hole.start <= at => {
                    let part = hole.intersection(rest);
                    out.extend_from_slice(&self.pass(&*origin, part).await?);
                    part
                }
                hole => {
                    let end = hole.map_or(range.end, |hole| hole.start);
                    let part = ByteRange::new(at, end);
                    match self.read_whole(part, priority).await {
                        Ok(bytes) => out.extend_from_slice(&bytes),
                        // Each round finds a hole more, or the read ends.
                        Err(_) if self.hole_in(part.groups()).is_some() => continue,
                        Err(error) => return Err(error),
                    }
                    part
                }
            };
            at = part.end;
        }
        Ok(out.freeze())
    }

    /// Exactly these bytes from the origin, past the store.
    async fn pass(&self, origin: &dyn Origin, range: ByteRange) -> Result<Bytes, ReadError> {
        let _slot = self.shared.source_slot(origin, Priority::Demand).await;
        let mut stream = origin.read(Some(range)).await?;
        let mut bytes = BytesMut::with_capacity(range.len() as usize);
        while let Some(part) = stream.next().await {
            bytes.extend_from_slice(&part?);
            if bytes.len() as u64 > range.len() {
                break;
            }
        }
        if bytes.len() as u64 != range.len() {
            let why = format!("it sent {} bytes where {} were asked for", bytes.len(), range.len());
            return Err(ReadError::OriginChanged(why));
        }
        self.shared.provenance.passed(range);
        Ok(bytes.freeze())
    }
}
