//! Indexes in use: each is in memory once however often it is mounted, and stands in the store's page cache where it
//! can.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use dfs_artifact::Index;
use dfs_artifact::resolve::BuiltIndex;
use dfs_model::{ByteRange, Priority, TaskId, TaskInfo};
use parking_lot::Mutex;

use super::{LARGEST_INDEX, OpenIndex, OpenUrlError, READ_STEP, read_whole};
use crate::engine::{Engine, ReadError, Task};

/// Those that somebody has, by their tasks.
#[derive(Default)]
pub(crate) struct Indexes {
    open: Mutex<HashMap<TaskId, Weak<Index>>>,
}

impl Indexes {
    fn find(&self, id: &TaskId) -> Option<Arc<Index>> {
        self.open.lock().get(id)?.upgrade()
    }

    fn keep(&self, id: TaskId, index: &Arc<Index>) {
        let mut open = self.open.lock();
        open.retain(|_, index| index.strong_count() > 0);
        open.insert(id, Arc::downgrade(index));
    }
}

impl Engine {
    pub(super) async fn import_index(&self, built: BuiltIndex) -> Result<OpenIndex, OpenUrlError> {
        let info = TaskInfo::new(built.key, Some(built.bytes.len() as u64), true);
        let task = self.import(&info, built.bytes.clone()).await?;
        if let Some(index) = self.indexes().find(&info.id) {
            return Ok(OpenIndex { task, index });
        }
        let bytes = task.stored().mapped().unwrap_or(built.bytes);
        let opened = tokio::task::spawn_blocking(move || Index::open(bytes)).await;
        let closing = ReadError::Closing(info.id);
        Ok(self.index_of(task, Arc::new(opened.map_err(|_| closing)??)))
    }

    pub(super) async fn fetch_index(&self, info: TaskInfo) -> Result<OpenIndex, OpenUrlError> {
        let task = self.open(&info, None, None).await?;
        if let Some(index) = self.indexes().find(&info.id) {
            return Ok(OpenIndex { task, index });
        }
        let (bytes, digest) = content(&task).await?;
        if info.key.validator.etag.as_deref() != Some(digest.to_hex().as_str()) {
            return Err(OpenUrlError::OtherIndex(info.key.url.to_string()));
        }
        // Walked once by whoever made it and bound to its digest; every access stays checked.
        let parsed = tokio::task::spawn_blocking(move || Index::parse(bytes)).await;
        let closing = ReadError::Closing(info.id);
        Ok(self.index_of(task, Arc::new(parsed.map_err(|_| closing)??)))
    }

    pub(super) fn index_of(&self, task: Task, index: Arc<Index>) -> OpenIndex {
        self.indexes().keep(task.id(), &index);
        OpenIndex { task, index }
    }
}

/// All bytes of an index and their digest.
async fn content(task: &Task) -> Result<(Bytes, blake3::Hash), ReadError> {
    if let Some(mapped) = task.stored().mapped() {
        return Ok((mapped, digest(task).await?));
    }
    let read = read_whole(task, LARGEST_INDEX).await?;
    let hashed = tokio::task::spawn_blocking(move || (blake3::hash(&read), read)).await;
    let (digest, read) = hashed.map_err(|_| ReadError::Closing(task.id()))?;
    Ok((task.stored().mapped().unwrap_or(read), digest))
}

/// The digest of what is here, read and not as it is mapped: what the disk cannot read any more is an error there,
/// and would end the process here.
async fn digest(task: &Task) -> Result<blake3::Hash, ReadError> {
    let (mut hasher, mut at, length) = (blake3::Hasher::new(), 0, task.known_length().await?);
    while at < length {
        let part = ByteRange::new(at, (at + READ_STEP).min(length));
        let bytes = task.read(part, Priority::Demand).await?;
        let hashing = tokio::task::spawn_blocking(move || {
            hasher.update(&bytes);
            hasher
        });
        hasher = hashing.await.map_err(|_| ReadError::Closing(task.id()))?;
        at = part.end;
    }
    Ok(hasher.finalize())
}
