//! From one snapshot's index to the next: a seed that has the one before makes the difference of the two a task, and
//! a node that has it too fetches that. Any doubt ends in the whole index.

use std::sync::Arc;

use bytes::Bytes;
use dfs_artifact::index::delta::{self, DeltaError};
use dfs_artifact::{Index, IndexError};
use dfs_model::{TaskId, TaskInfo, TaskKey, TaskKind, Transform, Validator};
use dfs_proto::common;
use dfs_proto::convert::BadMessage;

use super::{LARGEST_INDEX, OpenArtifact, OpenIndex, read_whole};
use crate::engine::{Engine, ReadError};

/// Indexes of fewer bytes are fetched whole.
const DELTA_FROM: u64 = 1 << 20;

/// A delta of more than one byte in so many of the index is not worth it.
const WORTH: u64 = 2;

/// Why an index was not made of an earlier one.
#[derive(Debug, thiserror::Error)]
enum NoDelta {
    #[error("the answer is unreadable: {0}")]
    Malformed(#[from] BadMessage),
    #[error("the earlier index is not here")]
    NoBase,
    #[error("what was named is no delta of this index")]
    Other,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Delta(#[from] DeltaError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("what it makes is not the index that was announced")]
    Wrong,
    #[error("this host is closing")]
    Closing,
}

/// What a delta says of itself in its key: from which index to which.
fn steps(base: &TaskId, index: &TaskId) -> String {
    format!("{base}-{index}")
}

/// Whether these are tasks of one artifact.
fn are_of_one(a: &TaskKey, b: &TaskKey) -> bool {
    (&a.domain, &a.url, &a.headers) == (&b.domain, &b.url, &b.headers)
}

impl Engine {
    /// The way from the newest earlier index of this artifact that is kept here; it is made where there is none yet.
    pub async fn delta_to(&self, opened: &OpenArtifact) -> Option<common::IndexDelta> {
        let index = opened.index.as_ref()?;
        let length = index.task.length().filter(|length| *length >= DELTA_FROM)?;
        let base = self.newest_before(index.task.info()).await?;
        let task = match self.delta_between(&base, index).await {
            Ok(task) => task,
            Err(error) => {
                let url = &opened.target.url;
                tracing::info!(%url, %error, "no delta is made of the index before");
                return None;
            }
        };
        let is_worth_it = task.length.is_some_and(|bytes| bytes <= length / WORTH);
        let base_id = base.as_bytes().to_vec().into();
        is_worth_it.then(|| common::IndexDelta { base_id, task: Some((&task).into()) })
    }

    /// The index of the same artifact that was read last, another than this one.
    async fn newest_before(&self, index: &TaskInfo) -> Option<TaskId> {
        let (catalog, info) = (self.catalog(), index.clone());
        let found = tokio::task::spawn_blocking(move || {
            catalog.newest(|id, key| {
                key.kind == TaskKind::Index && *id != info.id && are_of_one(key, &info.key)
            })
        });
        found.await.ok()?
    }

    async fn delta_between(&self, base: &TaskId, index: &OpenIndex) -> Result<TaskInfo, NoDelta> {
        let (catalog, key) = (self.catalog(), index.task.info().key.clone());
        let version = Some(steps(base, &index.task.info().id));
        let made = {
            let (version, key) = (version.clone(), key.clone());
            tokio::task::spawn_blocking(move || {
                let found = catalog.newest(|_, known| {
                    known.kind == TaskKind::Delta
                        && known.validator.version == version
                        && are_of_one(known, &key)
                })?;
                catalog.info(&found, None)
            })
        };
        if let Some(info) = made.await.map_err(|_| NoDelta::Closing)? {
            return Ok(TaskInfo { length: info.key.validator.length, ..info });
        }
        let base = self.whole(base).await?;
        let new = index.index.image().data().clone();
        let diff = tokio::task::spawn_blocking(move || delta::diff(&base, &new));
        let bytes = Bytes::from(diff.await.map_err(|_| NoDelta::Closing)??);
        let length = Some(bytes.len() as u64);
        let etag = Some(blake3::hash(&bytes).to_hex().to_string());
        let validator = Validator { etag, version, length, modified: None };
        let kind = TaskKind::Delta;
        let key = TaskKey { kind, validator, transform: Transform::Identity, ..key };
        let info = TaskInfo::new(key, length, true);
        self.import(&info, bytes).await?;
        Ok(info)
    }

    /// The bytes of a task that is all here.
    async fn whole(&self, id: &TaskId) -> Result<Bytes, NoDelta> {
        let task = self.held(id).await.filter(crate::engine::Task::is_complete);
        Ok(read_whole(&task.ok_or(NoDelta::NoBase)?, LARGEST_INDEX).await?)
    }

    /// Makes an index of the one before where that is here; otherwise it comes whole.
    pub(super) async fn step_to(
        &self,
        info: &TaskInfo,
        delta: common::IndexDelta,
    ) -> Option<OpenIndex> {
        if self.held(&info.id).await.is_some_and(|task| task.is_complete()) {
            return None;
        }
        match self.make_index(info, delta).await {
            Ok(index) => Some(index),
            Err(error) => {
                tracing::debug!(url = %info.key.url, %error, "the index comes whole");
                None
            }
        }
    }

    async fn make_index(
        &self,
        info: &TaskInfo,
        delta: common::IndexDelta,
    ) -> Result<OpenIndex, NoDelta> {
        let base = delta.base_id.as_ref().try_into().map_err(|_| NoDelta::NoBase)?;
        let base = TaskId::from_bytes(base);
        let length = info.length.filter(|length| *length <= LARGEST_INDEX).ok_or(NoDelta::Other)?;
        let delta = TaskInfo::try_from(delta.task.unwrap_or_default())?;
        let is_of_it = delta.key.kind == TaskKind::Delta
            && are_of_one(&delta.key, &info.key)
            && delta.key.validator.version.as_deref() == Some(steps(&base, &info.id).as_str());
        if !is_of_it {
            return Err(NoDelta::Other);
        }
        let base = self.whole(&base).await?;
        let task = self.open(&delta, None, None).await.map_err(|_| NoDelta::Closing)?;
        let delta = read_whole(&task, length).await?;
        let announced = info.key.validator.etag.clone();
        let made = tokio::task::spawn_blocking(move || {
            let length = usize::try_from(length).map_err(|_| NoDelta::Other)?;
            let made = delta::patch(&base, &delta, length)?;
            let digest = blake3::hash(&made).to_hex();
            if announced.as_deref() != Some(digest.as_str()) {
                return Err(NoDelta::Wrong);
            }
            Ok(Bytes::from(made))
        });
        let made = made.await.map_err(|_| NoDelta::Closing)??;
        let task = self.import(info, made.clone()).await?;
        let made = task.stored().mapped().unwrap_or(made);
        let parsed = tokio::task::spawn_blocking(move || Index::parse(made)).await;
        Ok(self.index_of(task, Arc::new(parsed.map_err(|_| NoDelta::Closing)??)))
    }
}
