//! An image that Nydus made, as its tree: its bootstrap is read, of its blobs nothing but the chunks that somebody reads.
//!
//! The manifest vouches for the bootstrap, which is held against its digest as a whole, and that for each chunk (decision 41).

use std::collections::BTreeSet;

use dfs_model::TaskKey;
use dfs_source::oci::{Located, validator};
use dfs_source::read_short;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{AT_ONCE, Context, Descriptor, ImageError};
use crate::erofs::BlockSize;
use crate::image::manifest::RafsLayers;
use crate::index::ImageFacts;
use crate::rafs::{Blob, MAX_BOOTSTRAP, Rafs, RafsError, bootstrap_in};
use crate::recipe::Recipe;
use crate::resolve::{Artifact, Planned, ResolveError};

/// Number of how a bootstrap becomes an index: what was kept by another one is made again.
const FORMAT: &str = "rafs.1";
/// The version of RAFS that is read.
const VERSION: &str = "6";

impl Context<'_> {
    /// The tree that these layers are.
    pub(super) async fn rafs(
        &self,
        reference: &Located,
        layers: &RafsLayers,
        of: ImageFacts,
    ) -> Result<Artifact, ResolveError> {
        if reference.layers().is_some() {
            return Err(self.image_error(ImageError::NoLayers));
        }
        if let Some(other) = layers.version.as_deref().filter(|version| *version != VERSION) {
            return Err(self.image_error(RafsError::Version(other.to_owned())));
        }
        let name = self.name_of_rafs(reference, layers);
        if let Some(name) = &name {
            if !self.is_public(reference) {
                self.ask_for(reference, &BTreeSet::from([layers.bootstrap.digest])).await?;
            }
            let own = layers.blobs.iter().map(|blob| blob.digest).collect();
            if let Some(artifact) = self.kept_stack((reference, &of), name, &own).await? {
                return Ok(artifact);
            }
        }
        let rafs = self.bootstrap(reference, &layers.bootstrap).await?;
        let laying = rafs.blobs.into_iter().map(|blob| self.space_of(reference, layers, blob));
        let laying: Vec<_> = laying.collect();
        let tasks: Vec<Recipe> = stream::iter(laying).buffered(AT_ONCE).try_collect().await?;
        let planned = Planned {
            tree: rafs.tree,
            block_size: BlockSize::B4096,
            build_time: rafs.newest,
            tasks,
            left_out: rafs.left_out,
            image: Some(of),
        };
        self.finish_and_keep(planned, name.as_ref()).await
    }

    /// By what the index is found again.
    fn name_of_rafs(&self, reference: &Located, layers: &RafsLayers) -> Option<TaskKey> {
        let digests = std::iter::once(&layers.bootstrap).chain(&layers.blobs);
        let list: String = digests.map(|layer| format!("{}\n", layer.digest)).collect();
        self.name_of_list(reference, &list, FORMAT)
    }

    /// What the bootstrap says.
    async fn bootstrap(
        &self,
        reference: &Located,
        layer: &Descriptor,
    ) -> Result<Rafs, ResolveError> {
        if layer.size > MAX_BOOTSTRAP {
            return Err(self.image_error(RafsError::TooLong { length: layer.size }));
        }
        let target = self.blob_target(reference, &layer.digest);
        let version = validator(&layer.digest, Some(layer.size));
        let bytes = read_short(&*self.source, &target, &version, MAX_BOOTSTRAP).await?;
        layer.verify("bootstrap", &bytes).map_err(|error| self.image_error(error))?;
        // One of a large image takes seconds.
        let reading = tokio::task::spawn_blocking(move || Rafs::parse(bootstrap_in(bytes)?));
        let read = reading.await;
        let read = read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        read.map_err(|error| self.image_error(error))
    }

    /// The space of a blob's chunks.
    async fn space_of(
        &self,
        reference: &Located,
        layers: &RafsLayers,
        blob: Blob,
    ) -> Result<Recipe, ResolveError> {
        let failed = |error: RafsError| self.image_error(error);
        let there = layers.blobs.iter().find(|there| there.digest == blob.digest);
        let there = there.ok_or_else(|| failed(RafsError::Elsewhere(blob.digest)))?;
        let (length, end) = (there.size, blob.packed_end());
        if end > length {
            return Err(failed(RafsError::Short { blob: blob.digest, length, end }));
        }
        let target = self.blob_target(reference, &there.digest);
        let of_blob = match self.is_public(reference) {
            true => self.recipe_of(&target, there, true),
            false => self.blob_recipe(reference, there).await?,
        };
        let space = Recipe::of_chunks(&of_blob, blob.length, blob.chunks);
        space.map_err(|error| failed(error.into()))
    }
}
