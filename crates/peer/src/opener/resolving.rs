//! What a resolution reads is read through the engine, and what it makes on the way is kept by name: the indexes of
//! layers, and of layers over one another.
//!
//! Kept means kept here: nobody signed it, so it is asked of nobody and given to nobody. It may be evicted as anything
//! else, and is then made again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_artifact::image::attached::AttachedPart;
use dfs_artifact::origin::KeepCheckpoints;
use dfs_artifact::resolve::{ImageError, OpenTask};
use dfs_artifact::{Index, Origin, Recipe, ResolveError};
use dfs_model::{
    CanonicalUrl, TaskId, TaskInfo, TaskKey, TaskKind, Transform, Validator, groups_in,
};
use dfs_source::oci::is_content_name;
use dfs_source::{Credentials, SourceError, Target};
use parking_lot::Mutex;

use super::confirmed::{ConfirmedGroups, HeldAgainst, Seen};
use super::{Kept, attached, read_whole};
use crate::classes::Class;
use crate::engine::{Engine, Role};
use crate::store::{Pins, StoreError};

/// How often, and after what time, what is given back is tried to be removed again while it is still in use.
const LET_GO_TRIES: usize = 50;
const LET_GO_EVERY: Duration = Duration::from_millis(20);

/// Longest thing that is kept by name, and its digest in front of it.
const LARGEST_KEPT: u64 = 1 << 30;
const DIGEST_BYTES: usize = blake3::OUT_LEN;

/// What of the name of what is kept beside a content tells what it is, and its format.
pub(super) const CHECKPOINTS: &str = " checkpoints.1";
pub(super) const GROUPS: &str = " groups.1";

/// Most other layers that are looked into for equal files, and most bytes of their indexes.
const LAYERS: usize = 48;
const LAYER_BYTES: u64 = 256 << 20;

/// Lets the resolution of an archive read through the engine, so that nothing is read twice.
pub(super) struct KeepWhatIsRead {
    engine: Engine,
    credentials: Credentials,
    /// Where it is, what is resolved.
    place: CanonicalUrl,
    opened: Mutex<HashMap<TaskId, Opened>>,
}

/// Whether anything was given back that was here before: another try reads it anew.
pub(super) struct WasHere(pub bool);

/// A task that is read while something is resolved.
struct Opened {
    recipe: Recipe,
    /// Whether nothing of it was here before.
    is_fresh: bool,
    seen: Seen,
}

impl KeepWhatIsRead {
    pub fn new(engine: &Engine, target: &Target) -> Self {
        let (credentials, place) = (target.credentials.clone(), target.url.clone());
        Self { engine: engine.clone(), credentials, place, opened: Mutex::default() }
    }

    /// What an archive unpacked to that turned out to be none is of no use to anybody, and may be long. The archive
    /// itself may still be wanted as the file that it is; a layer that is not what it should be is wanted by nobody: kept,
    /// it would be as wrong the next time.
    pub async fn give_back(&self, error: &ResolveError) -> WasHere {
        let is_wrong = is_other_layer(error);
        let is_none =
            matches!(Class::of_resolution(error), Class::BrokenArchive | Class::Unsupported);
        let opened = std::mem::take(&mut *self.opened.lock());
        let mut was_here = false;
        for (task, Opened { recipe, is_fresh, .. }) in opened {
            let is_useless = is_none && is_fresh && recipe.key.transform != Transform::Identity;
            let is_doubtful =
                is_wrong && Beside::groups(&self.engine, &recipe).known().await.is_none();
            if is_useless || is_doubtful {
                was_here |= self.engine.let_go(task).await && !is_fresh;
            }
        }
        WasHere(was_here)
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
        let is_fresh = self.engine.peek(&id).is_none();
        let opened = Opened { recipe: recipe.clone(), is_fresh, seen: Seen::default() };
        let seen = self.opened.lock().entry(id).or_insert(opened).seen.clone();
        match self.engine.open_recipe(recipe, &self.credentials).await {
            Ok(task) => Ok(Arc::new(Kept { seen: Some(seen), ..Kept::of(task) })),
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
        let (mut found, mut room) = (Vec::new(), LAYER_BYTES);
        for (_, name) in names.await.unwrap_or_default() {
            let Some((kept, ..)) = self.engine.peek(&name.id()) else { continue };
            let Some(left) = room.checked_sub(kept.length.unwrap_or(u64::MAX)) else { continue };
            let Some(index) = self.layer(&name).await else { continue };
            room = left;
            found.push(index);
        }
        found
    }

    async fn confirm(&self, recipe: &Recipe) {
        self.engine.sources().proved(&Target::new(recipe.origin.place().url.clone()));
        let opened = self.opened.lock().get(&recipe.key.id()).map(|opened| opened.seen.clone());
        let Some(seen) = opened.and_then(|seen| seen.take()) else { return };
        Beside::groups(&self.engine, recipe).keep(seen.encode().into()).await;
    }

    async fn beside(&self, recipe: &Recipe) -> Vec<AttachedPart> {
        attached::beside(&self.engine, recipe).await
    }

    async fn keep_beside(&self, recipe: &Recipe, beside: Vec<AttachedPart>) -> bool {
        attached::keep_beside(&self.engine, recipe, beside).await
    }

    async fn keep(&self, name: &TaskKey, content: Bytes) {
        self.engine.keep_by_name(name, &self.place, content).await;
    }
}

impl KeepWhatIsRead {
    /// The kept index of a layer whose tar is all here.
    async fn layer(&self, name: &TaskKey) -> Option<Index> {
        let kept = self.kept(name).await?;
        let opening = tokio::task::spawn_blocking(move || Index::open(kept));
        let index = opening.await.ok()?.ok()?;
        self.engine.is_whole(&index.spaces().first()?.key.id()).then_some(index)
    }
}

/// What is kept by the name of a content, beside it and longer than it.
pub(super) struct Beside {
    engine: Engine,
    name: TaskKey,
    place: CanonicalUrl,
}

impl Beside {
    /// Where a compressed archive can be begun from, beside what it unpacks to.
    pub fn checkpoints(engine: &Engine, recipe: &Recipe) -> Self {
        Self::of(engine, recipe, CHECKPOINTS)
    }

    /// The digests of the groups of what was held against its digest as a whole.
    pub fn groups(engine: &Engine, recipe: &Recipe) -> Self {
        Self::of(engine, recipe, GROUPS)
    }

    fn of(engine: &Engine, recipe: &Recipe, what: &str) -> Self {
        let version = recipe.key.validator.version.as_deref().unwrap_or_default();
        let validator =
            Validator { version: Some(format!("{version}{what}")), ..Validator::default() };
        let name = TaskKey { kind: TaskKind::Index, validator, ..recipe.key.clone() };
        Self { engine: engine.clone(), name, place: recipe.origin.place().url.clone() }
    }

    pub async fn known(&self) -> Option<Bytes> {
        Box::pin(self.engine.kept_by_name(&self.name)).await
    }
}

#[async_trait]
impl KeepCheckpoints for Beside {
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

    /// An origin of which every part is held against what was seen of the content, where that was.
    pub(super) async fn held_against_what_was_seen(
        &self,
        recipe: &Recipe,
        origin: Arc<dyn Origin>,
    ) -> Arc<dyn Origin> {
        let is_named = recipe.key.kind == TaskKind::Blob && is_content_name(&recipe.key.url);
        if !is_named || self.role() == Role::Node || self.is_whole(&recipe.key.id()) {
            return origin;
        }
        let known = Beside::groups(self, recipe).known().await;
        let groups = known.and_then(|encoded| ConfirmedGroups::decode(&encoded));
        let is_of_it =
            |groups: &ConfirmedGroups| recipe.length.is_none_or(|length| length == groups.length());
        match groups.filter(is_of_it).map(Arc::new) {
            Some(groups) => {
                let url = recipe.origin.place().url.clone();
                Arc::new(HeldAgainst { origin, groups, url })
            }
            None => origin,
        }
    }

    /// Removes a task, once nobody uses it any more; whether it is gone.
    async fn let_go(&self, task: TaskId) -> bool {
        for _ in 0..LET_GO_TRIES {
            // In use as long as what read it has not seen the error.
            match self.remove(task, Pins::Count).await {
                Err(StoreError::InUse { .. }) => tokio::time::sleep(LET_GO_EVERY).await,
                removed => return removed.is_ok(),
            }
        }
        false
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
        let checking = tokio::task::spawn_blocking(move || {
            let (digest, content) = whole.split_first_chunk::<DIGEST_BYTES>()?;
            (blake3::hash(content) == *digest).then(|| whole.slice(DIGEST_BYTES..))
        });
        checking.await.ok()?
    }

    /// Keeps something that was made here, of what is at `place`, instead of what was kept under the name before.
    pub(super) async fn keep_by_name(&self, name: &TaskKey, place: &CanonicalUrl, content: Bytes) {
        let length = (DIGEST_BYTES + content.len()) as u64;
        if length > LARGEST_KEPT {
            tracing::info!(url = %place, length, "what was made on the way is too long to be kept");
            return;
        }
        let sealing = tokio::task::spawn_blocking(move || {
            Bytes::from([blake3::hash(&content).as_bytes(), &content[..]].concat())
        });
        let Ok(whole) = sealing.await else { return };
        let info = TaskInfo::new(name.clone(), Some(length), true).at(place);
        // In use by somebody who reads it now, it is as good as this one.
        let _ = self.remove(info.id, Pins::Count).await;
        if let Err(error) = self.import(&info, whole).await {
            tracing::info!(url = %place, %error, "what was made on the way is not kept");
        }
    }
}
