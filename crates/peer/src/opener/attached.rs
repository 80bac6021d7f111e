//! The indexes of an image's layers for others, and those of others: with what is kept beside the content of each layer, so
//! that nobody who has them reads a whole layer.
//!
//! Invariant: an index of somebody else is used only together with the digests of the groups of its layer. What is read of
//! the layer from then on is held against these.

use bytes::Bytes;
use dfs_artifact::Recipe;
use dfs_artifact::image::attached::AttachedPart;
use dfs_artifact::origin::KeepCheckpoints as _;
use dfs_artifact::resolve::{Imported, IndexedImage, import_indexes, index_layers};
use dfs_artifact::unpack::Checkpoints;
use dfs_source::Target;
use dfs_source::oci::Platform;

use super::OpenUrlError;
use super::confirmed::ConfirmedGroups;
use super::resolving::{Beside, CHECKPOINTS, GROUPS};
use crate::engine::Engine;

fn named(kind: &str, content: Option<Bytes>) -> Option<AttachedPart> {
    Some(AttachedPart { kind: kind.trim().to_owned(), content: content? })
}

/// What is kept beside the content of a layer.
pub(super) async fn beside(engine: &Engine, tar: &Recipe) -> Vec<AttachedPart> {
    let checkpoints = Beside::checkpoints(engine, tar).known().await;
    let groups = Beside::groups(engine, tar).known().await;
    let known = [named(CHECKPOINTS, checkpoints), named(GROUPS, groups)];
    known.into_iter().flatten().collect()
}

/// Keeps what somebody who is believed says of it; whether all that is needed was there, and fit for it. What is not known
/// here is left.
pub(super) async fn keep_beside(engine: &Engine, tar: &Recipe, beside: Vec<AttachedPart>) -> bool {
    let find = |kind: &str| beside.iter().find(|one| one.kind == kind.trim());
    let content = |kind: &str| find(kind).map(|found| found.content.clone());
    let (checkpoints, groups) = (content(CHECKPOINTS), content(GROUPS));
    let Some(groups) = groups else { return false };
    let (checked, of) = ((checkpoints.clone(), groups.clone()), tar.clone());
    let checking = tokio::task::spawn_blocking(move || is_fit(checked, &of));
    if !checking.await.unwrap_or(false) {
        return false;
    }
    Beside::groups(engine, tar).keep(groups).await;
    if let Some(checkpoints) = checkpoints {
        Beside::checkpoints(engine, tar).keep(checkpoints).await;
    }
    true
}

fn is_fit((checkpoints, groups): (Option<Bytes>, Bytes), tar: &Recipe) -> bool {
    let is_of_it = |found: Checkpoints| {
        found.transform() == tar.key.transform && Some(found.length()) == tar.length
    };
    let checkpoints = checkpoints.map(Checkpoints::decode);
    let groups = ConfirmedGroups::decode(&groups);
    groups.is_some_and(|groups| Some(groups.length()) == tar.length)
        && checkpoints.is_none_or(|found| found.is_ok_and(is_of_it))
}

impl Engine {
    /// The indexes of an image's layers, of those that are kept here and of those that are made now.
    pub async fn index_layers(&self, target: &Target) -> Result<IndexedImage, OpenUrlError> {
        let (opener, options) = self.resolving(target, Platform::here());
        let indexed = Box::pin(index_layers(self.sources(), target, &options)).await;
        if let Err(error) = &indexed {
            opener.give_back(error).await;
        }
        Ok(indexed?)
    }

    /// Takes over the indexes of an image's layers that are at `from`.
    pub async fn import_indexes(
        &self,
        target: &Target,
        from: &Target,
    ) -> Result<Imported, OpenUrlError> {
        let (_, options) = self.resolving(target, Platform::here());
        let importing = import_indexes(self.sources(), target, from, &options);
        Ok(Box::pin(importing).await?)
    }
}
