//! Indexes of images that are kept here, for whoever wants to know which there are.

use dfs_model::{CanonicalUrl, TaskInfo, TaskKind};
use dfs_source::oci::{Located, Named};

use super::OpenIndex;
use crate::engine::Engine;

impl Engine {
    /// The tasks of at most so many indexes of images, those that were read last first.
    pub async fn kept_images(&self, most: usize) -> Vec<TaskInfo> {
        let engine = self.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let is_index = |kind| kind == TaskKind::Index;
            let found =
                engine.catalog().all(most, |key| is_index(key.kind) && names_image(&key.url));
            found.into_iter().filter_map(|(id, _)| Some(engine.peek(&id)?.0)).collect()
        });
        looking.await.unwrap_or_default()
    }

    /// An index, if all of it is here.
    pub async fn kept_index(&self, info: &TaskInfo) -> Option<OpenIndex> {
        let is_whole = self.is_whole(&info.id);
        if is_whole { self.fetch_index(info.clone()).await.ok() } else { None }
    }
}

fn names_image(url: &CanonicalUrl) -> bool {
    Located::of(url).is_ok_and(|located| !matches!(located.named(), Named::Blob(_)))
}
