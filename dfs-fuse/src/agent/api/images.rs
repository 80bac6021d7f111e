//! Images of which something is known here, and how much of each is here: by their indexes, which are kept as anything else
//! is. Nobody is asked for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dfs_artifact::ImageFacts;
use dfs_model::TaskId;
use dfs_peer::opener::OpenIndex;
use dfs_peer::store::TaskSummary;
use dfs_proto::node::ImageHere;

use super::cached::Spaces;
use crate::agent::mounts::{TreeOf, tree_of_index};
use crate::agent::{Agent, Asker, CallError, MountTableError};
use crate::tree::{Kind, Tree};

/// Most images that are told of.
const MOST: usize = 512;

/// What is known beside their indexes.
struct Around {
    agent: Agent,
    kept: HashMap<TaskId, TaskSummary>,
    /// Indexes that are mounted, and where.
    mounts: Vec<(TaskId, String)>,
}

/// The images that the asker may be told of, those that were used last first.
pub(super) async fn images(agent: &Agent, asker: Asker) -> Result<Vec<ImageHere>, CallError> {
    let engine = &agent.host().engine;
    let around = Arc::new(Around::of(agent, asker));
    let (mut images, mut seen) = (Vec::new(), HashSet::new());
    for info in engine.kept_images(MOST).await.into_iter().filter(|info| asker.may_see(&info.key)) {
        let Some(index) = engine.kept_index(&info).await else { continue };
        let Some(image) = index.index.facts().image.clone() else { continue };
        // What was indexed twice is one image.
        let name = index.index.facts().url.to_string();
        if !seen.insert((name, image.manifest, info.key.domain.clone())) {
            continue;
        }
        let around = Arc::clone(&around);
        let looking = tokio::task::spawn_blocking(move || around.look(&index, image));
        images.push(looking.await.map_err(|_| MountTableError::Stopping)??);
    }
    Ok(images)
}

impl Around {
    fn of(agent: &Agent, asker: Asker) -> Self {
        let kept = agent.host().engine.store().list();
        let kept = kept.into_iter().map(|one| (one.id, one)).collect();
        let mounts = agent.mounts().list(None).into_iter();
        let mounts = mounts.filter(|view| asker.may_see_mount(view.by, &view.opened));
        let mounts = mounts.filter_map(|view| {
            let index = view.opened.index.as_ref()?.task.id();
            Some((index, view.dir.to_string_lossy().into_owned()))
        });
        Self { agent: agent.clone(), kept, mounts: mounts.collect() }
    }

    /// How much of one is here. Looks at every inode: blocks.
    fn look(&self, index: &OpenIndex, image: ImageFacts) -> Result<ImageHere, CallError> {
        let spaces = Spaces::of_index(&self.agent, &self.kept, index);
        let tree = tree_of_index(&index.index, TreeOf::Archive)?;
        let whole = spaces.entry(&tree, (tree.root(), Kind::Directory));
        let mounts = self.mounts.iter().filter(|(mounted, _)| *mounted == index.task.id());
        Ok(ImageHere {
            url: dfs_model::redact(index.index.facts().url.as_str()),
            digest: image.digest.to_string(),
            manifest: image.manifest.to_string(),
            platform: image.platform.unwrap_or_default(),
            whole: Some(whole.map_err(MountTableError::from)?),
            mounts: mounts.map(|(_, dir)| dir.clone()).collect(),
        })
    }
}
