//! The index of one layer: made by its table of contents, or while all of it is read, and kept for every image that has the layer.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{TaskKey, TaskKind, Transform, Validator};
use dfs_source::Sources;
use dfs_source::oci::{ContentDigest, Located, validator};

use super::equal::LEAST;
use super::stack::Stack;
use super::whole::Whole;
use super::{Context, ImageError};
use crate::erofs::{BlockSize, ImageOptions, Space, write_image};
use crate::image::manifest::LayerBlob;
use crate::image::media::Compression;
use crate::index::validate::space_tag;
use crate::index::{Index, write_layer_index};
use crate::parts::Part;
use crate::recipe::Recipe;
use crate::resolve::ResolveError;
use crate::tar::{ScannedTar, TarScan};
use crate::tree::PendingLink;

/// A layer of an image, and what it must unpack to.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Counted from 1, the lowest.
    pub number: usize,
    pub layer: &'a LayerBlob,
    pub diff_id: ContentDigest,
}

/// The index of a layer.
pub(super) struct Known {
    pub index: Index,
    /// Whether all of the layer was read now, and its files digested.
    pub is_new: bool,
}

impl Context<'_> {
    /// The index of a layer alone, which is made once.
    pub(super) async fn layer(
        &self,
        stack: &Stack<'_>,
        wanted: Wanted<'_>,
        sources: &Sources,
    ) -> Result<Known, ResolveError> {
        let reference = stack.reference;
        let name = self.name_of(reference, wanted, "");
        if let Some(known) = self.kept_layer(reference, wanted, &name).await? {
            return Ok(known);
        }
        if let Some(known) = self.layer_by_table(reference, wanted, sources).await? {
            return Ok(known);
        }
        if let Some(index) = self.attached(stack, wanted).await {
            return Ok(Known { index, is_new: false });
        }
        let bytes = self.index_layer(reference, wanted, sources).await?;
        let known = self.keep_layer(wanted, &name, bytes).await?;
        Ok(Known { is_new: true, ..known })
    }

    /// The index of a layer that was kept under this name. One that cannot be used is made again.
    pub(super) async fn kept_layer(
        &self,
        reference: &Located,
        wanted: Wanted<'_>,
        name: &TaskKey,
    ) -> Result<Option<Known>, ResolveError> {
        let Some(opener) = &self.options.opener else { return Ok(None) };
        let kept = opener.kept(name).await;
        let Some(index) = kept.and_then(|bytes| Index::parse(bytes).ok()) else { return Ok(None) };
        if !self.is_public(reference) {
            // Another repository may have had it fetched.
            self.blob_recipe(reference, &wanted.layer.blob).await?;
        }
        Ok(Some(Known { index, is_new: false }))
    }

    /// Keeps an index that was made under this name.
    pub(super) async fn keep_layer(
        &self,
        wanted: Wanted<'_>,
        name: &TaskKey,
        bytes: Bytes,
    ) -> Result<Known, ResolveError> {
        if let Some(opener) = &self.options.opener {
            opener.keep(name, bytes.clone()).await;
        }
        let source = |source| ImageError::Read { number: wanted.number, source };
        let index = Index::open(bytes).map_err(|error| self.image_error(source(error)))?;
        Ok(Known { index, is_new: false })
    }

    /// By what the index of a layer is found again: its blob, what that was seen to unpack to, or is said to, and by what it was
    /// made where it was not by reading all of it.
    pub(super) fn name_of(
        &self,
        reference: &Located,
        Wanted { layer, diff_id, .. }: Wanted<'_>,
        made_by: &str,
    ) -> TaskKey {
        let target = self.blob_target(reference, &layer.blob.digest);
        let version = validator(&layer.blob.digest, None);
        let version = Validator { version: Some(format!("{diff_id}{FORMAT}{made_by}")), ..version };
        self.key(TaskKind::Index, &target, version)
    }

    /// The task of a layer's blob. Of what everybody may have, the manifest is believed: what is not so fails as it is read.
    pub(super) async fn layer_blob(
        &self,
        reference: &Located,
        layer: &LayerBlob,
    ) -> Result<Recipe, ResolveError> {
        if !self.is_public(reference) {
            return self.blob_recipe(reference, &layer.blob).await;
        }
        let target = self.blob_target(reference, &layer.blob.digest);
        Ok(self.recipe_of(&target, &layer.blob, true))
    }

    /// The task of a layer's tar.
    pub(super) async fn tar_recipe(
        &self,
        reference: &Located,
        layer: &LayerBlob,
    ) -> Result<Recipe, ResolveError> {
        let mut recipe = self.layer_blob(reference, layer).await?;
        let transform = match layer.layer_type.compression {
            Compression::None => Transform::Identity,
            Compression::Gzip => Transform::Gunzip,
            Compression::Zstd => Transform::Unzstd,
        };
        if transform != Transform::Identity {
            (recipe.key.transform, recipe.length) = (transform, None);
        }
        Ok(recipe)
    }

    /// What is put together from parts of a layer's tar.
    pub(super) fn parts_of_layer(
        &self,
        reference: &Located,
        layer: &LayerBlob,
        tar: &Recipe,
        length: u64,
        parts: Vec<Part>,
    ) -> Result<Recipe, ResolveError> {
        let target = self.blob_target(reference, &layer.blob.digest);
        let inside = Context { source: Arc::clone(&self.source), target, options: self.options };
        inside.parts(tar, tar.length.unwrap_or_default(), length, parts)
    }

    /// Reads all of a layer; its index.
    async fn index_layer(
        &self,
        reference: &Located,
        Wanted { number, layer, diff_id }: Wanted<'_>,
        sources: &Sources,
    ) -> Result<Bytes, ResolveError> {
        let mut recipe = self.tar_recipe(reference, layer).await?;
        let origin = self.open(&recipe, sources).await?;
        let length = origin.known_length().await?;
        recipe.length = Some(length);
        let tar = |source| self.image_error(ImageError::Tar { number, source });
        let mut whole = Whole::new(origin.read(None).await?, length, &diff_id);
        let (mut scan, mut digests) = (TarScan::new(length), HashMap::new());
        while let Some(wanted) = scan.wanted() {
            let bytes = whole.read(wanted).await?;
            scan.feed(&bytes).map_err(tar)?;
            if let Some(body) = scan.take_body().filter(|body| body.len() >= LEAST) {
                digests.insert(body.start, whole.digest(body).await?);
            }
        }
        let actual = whole.finish().await?;
        if actual != diff_id {
            let error = ImageError::OtherLayer { number, actual, expected: diff_id };
            return Err(self.image_error(error));
        }
        if let Some(opener) = &self.options.opener {
            opener.confirm(&recipe).await;
        }
        let (mut scanned, links) = scan.finish_layer().map_err(tar)?;
        for file in scanned.tree.files_mut().filter(|file| file.length >= LEAST) {
            file.digest = digests.get(&file.location.offset).copied().map(Box::new);
        }
        let parts = std::mem::take(&mut scanned.parts);
        let mut tasks = vec![recipe];
        if !parts.is_empty() {
            let whole = scanned.parts_length;
            tasks.push(self.parts_of_layer(reference, layer, &tasks[0], whole, parts)?);
        }
        let indexed = Indexed { scanned, links, tasks, number };
        let writing = tokio::task::spawn_blocking(move || indexed.write());
        let written = writing.await;
        let bytes = written.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        bytes.map_err(|error| self.image_error(error))
    }
}

/// What of the name of a kept index tells how it was made: one without digests of files is not taken.
const FORMAT: &str = " 2";

/// A layer that was read, or whose table was.
pub(super) struct Indexed {
    pub scanned: ScannedTar,
    pub links: Vec<PendingLink>,
    /// Its tar, and what is put together from parts of it; or its chunks.
    pub tasks: Vec<Recipe>,
    pub number: usize,
}

impl Indexed {
    /// Blocks.
    pub(super) fn write(self) -> Result<Bytes, ImageError> {
        let Self { scanned, links, tasks, number } = self;
        let space = |recipe: &Recipe| Space {
            // Of a layer that was read it is known.
            length: recipe.length.unwrap_or_default(),
            tag: space_tag(recipe),
        };
        let options = ImageOptions {
            block_size: BlockSize::B512,
            build_time: scanned.newest,
            spaces: tasks.iter().map(space).collect(),
        };
        let image = write_image(&scanned.tree, &options);
        let image = image.map_err(|source| ImageError::Write { number, source })?;
        let url = tasks[0].key.url.clone();
        let index = write_layer_index(image, url, &tasks, &scanned.left_out, &links);
        index.map(Bytes::from).map_err(|source| ImageError::Read { number, source })
    }
}
