//! The bytes of a mounted tree, from the engine's tasks.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dfs_artifact::{Index, OriginRecipe};
use dfs_model::{ByteRange, Priority, TaskId};
use dfs_peer::engine::{ReadError, Task};
use dfs_peer::error_chain;
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::{DirectGuard, EndGuard, Ends, Reads, StoreError, Use, UseGuard, Verify};
use dfs_source::Credentials;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::quota::{Coming, Quota, missing_bytes};
use crate::content::{Content, ContentError, ContentErrorClass};

/// The spaces of one artifact. While it lives nothing of them is evicted.
pub struct SpaceContent {
    spaces: Vec<Task>,
    index: Option<Arc<Index>>,
    _in_use: Vec<UseGuard>,
    /// What of them may be here at most.
    quota: Option<Arc<Quota>>,
    /// Without a quota nothing that is here goes.
    _all: Vec<DirectGuard>,
    /// The kernel reads their files by itself.
    ends: Mutex<Vec<EndGuard>>,
}

impl SpaceContent {
    /// Takes the spaces of an artifact into use, and its index: whoever goes on with a mount opens it again.
    pub fn of(
        opened: &OpenArtifact,
        quota: Option<Arc<Quota>>,
        verify: Verify,
    ) -> Result<Self, ReadError> {
        let spaces = opened.tasks.iter().map(|task| task.clone().verifying(verify));
        let spaces: Vec<_> = spaces.collect();
        let index = opened.index.as_ref().map(|index| &index.task);
        let in_use = spaces.iter().chain(index).map(|task| task.in_use(Use::Mount));
        let _in_use = in_use.collect::<Result<_, _>>()?;
        let index = opened.index.as_ref().map(|index| Arc::clone(&index.index));
        let unlimited = spaces.iter().filter(|_| quota.is_none());
        let _all = unlimited.map(|task| task.stored().read_directly(Reads::UntilSaid)).collect();
        Ok(Self { _in_use, index, quota, _all, spaces, ends: Mutex::default() })
    }

    /// Has the files of all spaces end as the kernel can show them, for as long as this lives.
    pub(super) fn end_on_groups(&self) -> Result<(), StoreError> {
        self.spaces.iter().try_for_each(|task| self.keep_end(task, Ends::OnGroup))
    }

    fn keep_end(&self, task: &Task, ends: Ends) -> Result<(), StoreError> {
        let end = task.stored().keep_end(ends)?;
        self.ends.lock().push(end);
        Ok(())
    }

    /// The tasks, by the numbers of their spaces.
    pub(super) fn spaces(&self) -> &[Task] {
        &self.spaces
    }

    /// What of them may be here at most, where that is bounded.
    pub(super) fn quota(&self) -> Option<&Arc<Quota>> {
        self.quota.as_ref()
    }

    /// Whether what is missing of a range could be kept without anything being evicted for it.
    pub fn has_room(&self, space: u16, range: ByteRange) -> bool {
        self.space(space).is_ok_and(|task| {
            let missing = || missing_bytes(task, clipped(task, range));
            self.quota.as_ref().is_none_or(|quota| quota.has_room(missing()))
                && !task.lacks_room()
                && task.stored().has_room_for(clipped(task, range).groups())
        })
    }

    fn space(&self, number: u16) -> Result<&Task, ContentError> {
        let missing = || {
            let reason =
                format!("the index names space {number}, which the artifact does not have");
            ContentError::new(ContentErrorClass::Integrity, reason)
        };
        self.spaces.get(usize::from(number)).ok_or_else(missing)
    }
}

fn clipped(task: &Task, range: ByteRange) -> ByteRange {
    range.intersection(ByteRange::new(0, task.length().unwrap_or(u64::MAX)))
}

impl Content for SpaceContent {
    fn try_read(
        &self,
        space: u16,
        offset: u64,
        buf: &mut [u8],
    ) -> Option<Result<(), ContentError>> {
        let task = match self.space(space) {
            Ok(task) => task,
            Err(error) => return Some(Err(error)),
        };
        let range = ByteRange::at(offset, buf.len() as u64);
        if !task.has(range) {
            return None;
        }
        match task.read_here(range, buf) {
            Ok(()) => {
                if let Some(quota) = &self.quota {
                    quota.touch(space, range.groups());
                }
                Some(Ok(()))
            }
            Err(StoreError::Missing { .. }) => None,
            Err(error) => Some(Err(content_error(&error.into()))),
        }
    }

    fn present(&self, space: u16, range: ByteRange) -> bool {
        self.space(space).is_ok_and(|task| task.has(clipped(task, range)))
    }

    fn is_sound(&self, space: u16, range: ByteRange) -> BoxFuture<'static, bool> {
        let task = self.space(space).ok().cloned();
        async move {
            match task {
                Some(task) => task.is_sound(range).await,
                None => false,
            }
        }
        .boxed()
    }

    fn fetch(
        &self,
        space: u16,
        range: ByteRange,
        priority: Priority,
    ) -> BoxFuture<'static, Result<(), ContentError>> {
        let task = match self.space(space) {
            Ok(task) => task.clone(),
            Err(error) => return std::future::ready(Err(error)).boxed(),
        };
        let quota = self.quota.clone();
        async move {
            let range = clipped(&task, range);
            let coming = match quota {
                Some(quota) => {
                    let missing = missing_bytes(&task, range);
                    Some(quota.admit(space, range.groups(), missing).await)
                }
                None => None,
            };
            // What was thought to be here may have turned out damaged: it is fetched again.
            if !task.is_sound(range).await && task.has(range) {
                task.report_lost(range.groups()).await.map_err(|error| content_error(&error))?;
            }
            task.ensure(range, priority).await.map_err(|error| content_error(&error))?;
            coming.into_iter().for_each(Coming::came);
            Ok(())
        }
        .boxed()
    }

    fn reads_next(&self, space: u16, range: ByteRange) {
        if let Ok(task) = self.space(space) {
            task.reads_next(range);
        }
    }

    fn read_around(
        &self,
        space: u16,
        range: ByteRange,
    ) -> BoxFuture<'static, Option<Result<Bytes, ContentError>>> {
        let task = self.space(space).ok().cloned();
        let is_limited = self.quota.is_some();
        async move {
            // What a quota takes away before it is read is read as it comes.
            let task = task.filter(|task| task.passes(range) || is_limited)?;
            let read = task.read(range, Priority::Demand).await;
            Some(read.map_err(|error| content_error(&error)))
        }
        .boxed()
    }

    fn file(&self, space: u16) -> Option<io::Result<File>> {
        let task = self.space(space).ok()?;
        let kept = self.keep_end(task, Ends::WithContent).map_err(io::Error::other);
        Some(kept.and_then(|()| task.stored().content_file().try_clone()))
    }

    fn is_whole(&self, space: u16) -> bool {
        self.space(space).is_ok_and(|task| task.stored().complete())
    }

    fn length(&self, space: u16) -> Option<u64> {
        self.space(space).ok()?.length()
    }

    fn cached(&self, space: u16, range: ByteRange) -> Vec<ByteRange> {
        let Ok(task) = self.space(space) else { return Vec::new() };
        let length = task.length().unwrap_or(u64::MAX);
        let runs = task.stored().present_in(range.groups()).into_iter();
        runs.map(|run| run.bytes(length).intersection(range)).collect()
    }

    fn digest(&self, space: u16) -> Option<[u8; 32]> {
        self.space(space).ok()?.digest()
    }

    fn source(&self, space: u16, offset: u64) -> Option<String> {
        let recipe = self.index.as_ref()?.spaces().get(usize::from(space))?;
        match &recipe.origin {
            OriginRecipe::Url { place, .. }
            | OriginRecipe::Parts { place, .. }
            | OriginRecipe::Chunks { place, .. } => Some(place.url.to_string()),
            OriginRecipe::Members { base, table } => {
                let member = table.touched(ByteRange::at(offset, 1)).next()?;
                Some(base.target(Credentials::None).join(&member.path).ok()?.url.to_string())
            }
        }
    }

    fn task(&self, space: u16) -> Option<TaskId> {
        self.space(space).ok().map(Task::id)
    }
}

/// The class says in words what it is: the reason need not again.
fn content_error(error: &ReadError) -> ContentError {
    let (class, reason) = match error {
        ReadError::OriginChanged(reason) => (ContentErrorClass::OriginChanged, reason.clone()),
        ReadError::NotPermitted(reason) => (ContentErrorClass::NotPermitted, reason.clone()),
        ReadError::Timeout { .. } => (ContentErrorClass::Timeout, error_chain(error)),
        _ => (ContentErrorClass::Io, error_chain(error)),
    };
    ContentError::new(class, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once() {
        let told = |error: ReadError| content_error(&error).to_string();
        let changed = told(ReadError::origin_changed("the ETag is now \"b\""));
        assert_eq!(changed, "origin changed: the ETag is now \"b\"");
        assert_eq!(told(ReadError::NotPermitted("no".into())), "not permitted: no");
    }
}
