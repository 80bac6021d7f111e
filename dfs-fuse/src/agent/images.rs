//! Images for whoever starts containers from them: mounted below the agent's own data, for every user, and given back
//! whole when nobody needs them any more.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_artifact::View;
use dfs_artifact::resolve::{ImageLayers, image_layers};
use dfs_model::{TaskId, TaskKind};
use dfs_peer::opener::{OpenUrlError, Purpose};
use dfs_peer::store::{Pins, StoreError, Verify};
use dfs_source::oci::ContentDigest;
use dfs_source::{Asking, Target};
use parking_lot::Mutex;

use super::before::ToMount;
use super::prefetch::Mode;
use super::{Agent, Asker, CallError, MountRequest, MountTableError, Question};
use crate::core::Owner;
use crate::lane::Wanted;
use crate::mount::{Audience, Detach, Privileges, Programs};

/// What became of bytes that were to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freed {
    /// Nothing of it is left.
    All,
    /// Something else uses some of it.
    InUse,
}

/// The URLs of tasks of the store, as far as somebody wanted to know.
#[derive(Debug, Default)]
pub(crate) struct BlobTasks(Mutex<HashMap<TaskId, Option<String>>>);

impl BlobTasks {
    /// The tasks that are made of this blob, with the disk that each takes. Blocks.
    fn of(&self, agent: &Agent, blob: &ContentDigest) -> Vec<(TaskId, u64)> {
        let (engine, digits) = (&agent.host().engine, blob.hex());
        let listed = engine.store().list();
        let there: HashSet<TaskId> = listed.iter().map(|task| task.id).collect();
        let mut known = self.0.lock();
        known.retain(|id, _| there.contains(id));
        let mut is_of = |id: &TaskId| {
            let url = known.entry(*id).or_insert_with(|| {
                let (info, ..) = engine.peek(id)?;
                // The index of a layer outlives its content.
                let is_content = matches!(info.key.kind, TaskKind::Blob | TaskKind::Space);
                is_content.then(|| info.key.url.as_str().to_owned())
            });
            url.as_ref().is_some_and(|url| url.contains(&digits))
        };
        listed.iter().filter(|task| is_of(&task.id)).map(|task| (task.id, task.bytes)).collect()
    }
}

impl Agent {
    /// Of what layers an image is made.
    pub(crate) async fn image_layers(&self, target: &Target) -> Result<ImageLayers, CallError> {
        let target = self.complete(target, Asking::Own).await?;
        let layers = Box::pin(image_layers(self.host().engine.sources(), &target)).await;
        layers.map_err(|error| Arc::new(OpenUrlError::from(error)).into())
    }

    /// Whether something is mounted there by this agent.
    pub(crate) fn shows_image(&self, dir: &Path) -> bool {
        self.mounts().shown_at(dir).is_some()
    }

    /// Mounts an image for all users of this machine, its programs and device nodes as they are: what a container makes
    /// of these is for its runtime to say.
    pub(crate) async fn mount_image(&self, target: &Target, dir: PathBuf) -> Result<(), CallError> {
        let view = View::Tree;
        let found = match self.complete(target, Asking::Own).await {
            Ok(target) => {
                let question = Question { target, view, command: None, purpose: Purpose::Look };
                self.to_mount(&question, Asker::Owner).await?
            }
            Err(error) => self.to_mount_without_keys(target, view, (Asker::Owner, error)).await?,
        };
        let ToMount { opened, away, in_use: _in_use, .. } = found;
        let is_news = away.is_none();
        let request = MountRequest {
            opened,
            view,
            path: Vec::new(),
            dir,
            way: None,
            audience: Audience::Everyone,
            lane: Wanted::Best,
            owner: Owner::default(),
            privileges: Privileges::Effective,
            programs: Programs::Start,
            by: Asker::Owner,
            // It lies in the agent's own data, beside what is stored, which it must not hide.
            data_dir: self.host().engine.store().place().join("tasks"),
            prefetch: Mode::Trace,
            away,
            cache_quota: None,
            verify: Verify::wanted(false),
            follow: None,
            command: None,
        };
        self.mounts().mount(request.clone()).await?;
        if is_news {
            self.mounts().remember(request).await;
        }
        Ok(())
    }

    /// Takes away what is mounted there, by this agent or one before it, if anything is. Containers that stand on it go on.
    pub(crate) async fn unmount_image(&self, dir: &Path) -> Result<(), MountTableError> {
        match self.mounts().unmount(dir, Detach::Lazily, Asker::Owner).await {
            Ok(_) | Err(MountTableError::NotMounted(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Disk that the content of a blob takes.
    pub(crate) async fn stored_of_blob(&self, tasks: &Arc<BlobTasks>, blob: ContentDigest) -> u64 {
        let tasks = self.tasks_of_blob(tasks, blob).await;
        tasks.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Gives back what is stored of a blob, but for what something else uses, or is pinned.
    pub(crate) async fn free_blob(
        &self,
        tasks: &Arc<BlobTasks>,
        blob: ContentDigest,
    ) -> Result<Freed, StoreError> {
        let mut freed = Freed::All;
        for (id, _) in self.tasks_of_blob(tasks, blob).await {
            match self.host().engine.remove(id, Pins::Count).await {
                Ok(_) | Err(StoreError::Pinned(_) | StoreError::Gone(_)) => {}
                Err(StoreError::InUse { .. }) => freed = Freed::InUse,
                Err(error) => return Err(error),
            }
        }
        Ok(freed)
    }

    async fn tasks_of_blob(
        &self,
        tasks: &Arc<BlobTasks>,
        blob: ContentDigest,
    ) -> Vec<(TaskId, u64)> {
        let (agent, tasks) = (self.clone(), Arc::clone(tasks));
        let looking = tokio::task::spawn_blocking(move || tasks.of(&agent, &blob));
        // It ends early with the process alone.
        looking.await.unwrap_or_default()
    }
}
