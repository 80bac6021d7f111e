//! What a resolution reads is read through the engine, and what it makes on the way is kept by name: the indexes of
//! layers, and of layers over one another.
//!
//! Kept means kept here: nobody signed it, so it is asked of nobody and given to nobody. It may be evicted as anything
//! else, and is then made again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_artifact::origin::KeepCheckpoints;
use dfs_artifact::resolve::{ImageError, OpenTask};
use dfs_artifact::unpack::Checkpoints;
use dfs_artifact::{Index, Origin, Recipe, ResolveError};
use dfs_model::{CanonicalUrl, TaskId, TaskInfo, TaskKey, TaskKind, Transform, groups_in};
use dfs_source::oci::is_content_name;
use dfs_source::{Credentials, SourceError, Target};
use parking_lot::Mutex;

use super::{Kept, read_whole};
use crate::classes::Class;
use crate::engine::Engine;
use crate::store::{Pins, StoreError};

/// How often, and after what time, what is given back is tried to be removed again while it is still in use.
const LET_GO_TRIES: usize = 50;
const LET_GO_EVERY: Duration = Duration::from_millis(20);

/// Longest thing that is kept by name, and its digest in front of it.
const LARGEST_KEPT: u64 = 1 << 30;
const DIGEST_BYTES: usize = blake3::OUT_LEN;

/// What of the name of kept checkpoints tells their format.
const CHECKPOINTS: &str = " checkpoints.1";

/// Most other layers that are looked into for equal files, and most bytes of their indexes.
const LAYERS: usize = 48;
const LAYER_BYTES: usize = 256 << 20;

/// Lets the resolution of an archive read through the engine, so that nothing is read twice.
pub(super) struct KeepWhatIsRead {
    engine: Engine,
    credentials: Credentials,
    /// Where it is, what is resolved.
    place: CanonicalUrl,
    /// Tasks of which nothing was here before, and how each of them is read.
    fresh: Mutex<Vec<(TaskId, Transform)>>,
}

impl KeepWhatIsRead {
    pub fn new(engine: &Engine, target: &Target) -> Self {
        let (credentials, place) = (target.credentials.clone(), target.url.clone());
        Self { engine: engine.clone(), credentials, place, fresh: Mutex::default() }
    }

    /// What an archive unpacked to that turned out to be none is of no use to anybody, and may be long. The archive
    /// itself may still be wanted as the file that it is; a layer that is not what it should be is wanted by nobody: kept,
    /// it would be as wrong the next time.
    pub async fn give_back(&self, error: &ResolveError) {
        let is_wrong = is_other_layer(error);
        let is_none =
            matches!(Class::of_resolution(error), Class::BrokenArchive | Class::Unsupported);
        if !is_wrong && !is_none {
            return;
        }
        let fresh = std::mem::take(&mut *self.fresh.lock());
        let given = fresh.into_iter().filter(|(_, how)| is_wrong || *how != Transform::Identity);
        for (task, _) in given {
            for _ in 0..LET_GO_TRIES {
                // In use as long as what read it has not seen the error.
                match self.engine.remove(task, Pins::Count).await {
                    Err(StoreError::InUse { .. }) => tokio::time::sleep(LET_GO_EVERY).await,
                    _ => break,
                }
            }
        }
    }
}

/// Whether a layer is not the one that its image says, or may be another: it broke before all of it was compared.
fn is_other_layer(error: &ResolveError) -> bool {
    let ResolveError::Image { source, .. } = error else { return false };
    matches!(**source, ImageError::OtherLayer { .. } | ImageError::Tar { .. })
}

/// Whether what came was not what was asked for.
pub(super) fn is_other_content(error: &ResolveError) -> bool {
    let class = Class::of_resolution(error);
    is_other_layer(error) || matches!(class, Class::BrokenArchive | Class::BadAnswer)
}

#[async_trait]
impl OpenTask for KeepWhatIsRead {
    async fn open(&self, recipe: &Recipe) -> Result<Arc<dyn Origin>, SourceError> {
        let id = recipe.key.id();
        if self.engine.peek(&id).is_none() {
            self.fresh.lock().push((id, recipe.key.transform));
        }
        match self.engine.open_recipe(recipe, &self.credentials).await {
            Ok(task) => Ok(Arc::new(Kept::of(task))),
            // The store refuses: the archive is read all the same.
            Err(_) => {
                dfs_artifact::open_origin(recipe, self.engine.sources(), self.credentials.clone())
            }
        }
    }

    async fn kept(&self, name: &TaskKey) -> Option<Bytes> {
        self.engine.kept_by_name(name).await
    }

    async fn layers(&self, name: &TaskKey) -> Vec<Index> {
        let (engine, like) = (self.engine.clone(), name.clone());
        let names = tokio::task::spawn_blocking(move || {
            engine.catalog().all(LAYERS, |key| {
                key.kind == TaskKind::Index
                    && key.domain == like.domain
                    && is_content_name(&key.url)
                    && key.url.origin() == like.url.origin()
            })
        });
        let (mut found, mut bytes) = (Vec::new(), 0);
        for (_, name) in names.await.unwrap_or_default() {
            let Some(index) = self.layer(&name).await else { continue };
            bytes += index.image().data().len();
            if bytes > LAYER_BYTES {
                break;
            }
            found.push(index);
        }
        found
    }

    async fn keep(&self, name: &TaskKey, content: Bytes) {
        self.engine.keep_by_name(name, &self.place, content).await;
    }
}

impl KeepWhatIsRead {
    /// The kept index of a layer whose tar is all here.
    async fn layer(&self, name: &TaskKey) -> Option<Index> {
        let index = Index::open(self.kept(name).await?).ok()?;
        self.engine.is_whole(&index.spaces().first()?.key.id()).then_some(index)
    }
}

/// The checkpoints of a compressed archive, kept by its name beside what it unpacks to.
pub(super) struct CheckpointsByName {
    engine: Engine,
    name: TaskKey,
    place: CanonicalUrl,
}

impl CheckpointsByName {
    pub fn new(engine: &Engine, recipe: &Recipe) -> Self {
        let mut name = TaskKey { kind: TaskKind::Index, ..recipe.key.clone() };
        let version = name.validator.version.take().unwrap_or_default();
        name.validator.version = Some(format!("{version}{CHECKPOINTS}"));
        Self { engine: engine.clone(), name, place: recipe.origin.place().url.clone() }
    }

    pub async fn known(&self) -> Option<Checkpoints> {
        let encoded = Box::pin(self.engine.kept_by_name(&self.name)).await?;
        Checkpoints::decode(encoded).ok()
    }
}

#[async_trait]
impl KeepCheckpoints for CheckpointsByName {
    async fn keep(&self, encoded: Bytes) {
        self.engine.keep_by_name(&self.name, &self.place, encoded).await;
    }
}

impl Engine {
    /// Whether all of a task is here.
    pub(super) fn is_whole(&self, id: &TaskId) -> bool {
        self.peek(id).is_some_and(|(info, stored, _)| {
            info.length.is_some_and(|length| stored.have().len() == groups_in(length))
        })
    }

    /// What was kept here under a name.
    pub(super) async fn kept_by_name(&self, name: &TaskKey) -> Option<Bytes> {
        let (info, ..) = self.peek(&name.id())?;
        let task = self.open(&info, None, None).await.ok()?;
        // Others are not asked: what it says nobody has signed.
        if !task.is_complete() || info.key != *name {
            return None;
        }
        let whole = read_whole(&task, LARGEST_KEPT).await.ok()?;
        let (digest, content) = whole.split_first_chunk::<DIGEST_BYTES>()?;
        (blake3::hash(content) == *digest).then(|| whole.slice(DIGEST_BYTES..))
    }

    /// Keeps something that was made here, of what is at `place`.
    pub(super) async fn keep_by_name(&self, name: &TaskKey, place: &CanonicalUrl, content: Bytes) {
        let digest = blake3::hash(&content);
        let whole = Bytes::from([digest.as_bytes(), &content[..]].concat());
        let info = TaskInfo::new(name.clone(), Some(whole.len() as u64), true).at(place);
        if let Err(error) = self.import(&info, whole).await {
            tracing::info!(url = %place, %error, "what was made on the way is not kept");
        }
    }
}
