//! A container image as its tree: from what its manifest says to one index over its layers. What has a manifest and is no
//! image is the tree of its files.
//!
//! Each layer is a task of its own, the tar that its blob unpacks to: images that share layers share these. All of a layer
//! is read once, and held against what the image's configuration says of it, before anything of it is shown.

mod whole;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{TaskKey, TaskKind, Transform, UrlError, Validator};
use dfs_source::oci::{ContentDigest, Located, Named, validator};
use dfs_source::{SourceError, Sources, Stat, Target};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use self::whole::Whole;
use super::{Artifact, Context, Planned, ResolveError};
use crate::erofs::{BlockSize, ImageOptions, Space, WriteError, write_image};
use crate::image::artifact::ArtifactFile;
use crate::image::manifest::{Contents, LayerBlob, MAX_DOCUMENT};
use crate::image::media::Compression;
use crate::image::{
    Descriptor, Document, ImageConfig, Layer, Manifest, ManifestError, MergeError, NoSuchPlatform,
    Platform, choose, merge, parse,
};
use crate::index::validate::space_tag;
use crate::index::{Index, IndexError, write_layer_index};
use crate::recipe::{OriginRecipe, Place, Recipe};
use crate::tar::{ScannedTar, TarError, TarScan};
use crate::tree::{
    Content, FileData, LeftOut, Location, Meta, Mtime, PendingLink, TreeBuilder, TreeError,
};

/// Indexes within indexes that are followed.
const MAX_DEPTH: usize = 3;

/// Layers, and files of an artifact, that are looked at at a time.
const AT_ONCE: usize = 4;

/// Why an image has no tree.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Its documents.
    #[error(transparent)]
    Document(#[from] ManifestError),
    /// It is for other machines.
    #[error(transparent)]
    Platform(#[from] NoSuchPlatform),
    /// Its indexes lead to indexes.
    #[error("the image's index leads to indexes more than {MAX_DEPTH} deep")]
    Depth,
    /// The tar of a layer.
    #[error("layer {number} cannot be indexed")]
    Tar {
        /// Which one, counted from 1, the lowest.
        number: usize,
        /// Why.
        #[source]
        source: TarError,
    },
    /// A layer is not what the image's configuration says.
    #[error("layer {number} unpacks to {actual}, and the image's config says {expected}")]
    OtherLayer {
        /// Which one, counted from 1, the lowest.
        number: usize,
        /// What it is.
        actual: ContentDigest,
        /// What it should be.
        expected: ContentDigest,
    },
    /// A blob is longer or shorter than the manifest says.
    #[error("blob {digest} has {actual} bytes, and the manifest says {expected}")]
    Length {
        /// Which one.
        digest: ContentDigest,
        /// Bytes that were announced.
        expected: u64,
        /// Bytes that there are.
        actual: u64,
    },
    /// The index of a layer.
    #[error("the index of layer {number} cannot be written")]
    Write {
        /// Which one, counted from 1, the lowest.
        number: usize,
        /// Why.
        #[source]
        source: WriteError,
    },
    /// The same, around it.
    #[error("the index of layer {number} cannot be made")]
    Read {
        /// Which one, counted from 1, the lowest.
        number: usize,
        /// Why.
        #[source]
        source: IndexError,
    },
    /// Its layers make no tree together.
    #[error(transparent)]
    Merge(#[from] MergeError),
}

/// Whether a target names a manifest of a registry, whose contents make a tree.
pub(super) fn is_manifest(target: &Target) -> bool {
    Located::of(&target.url).is_ok_and(|reference| !matches!(reference.named(), Named::Blob(_)))
}

/// A layer of an image, and what it must unpack to.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// Counted from 1, the lowest.
    number: usize,
    layer: &'a LayerBlob,
    diff_id: ContentDigest,
}

impl Context<'_> {
    fn image_error(&self, error: impl Into<ImageError>) -> ResolveError {
        ResolveError::Image { url: self.url(), source: Box::new(error.into()) }
    }

    /// The tree of what a manifest names.
    pub(super) async fn image(
        &self,
        stat: &Stat,
        sources: &Sources,
    ) -> Result<Artifact, ResolveError> {
        let url = &stat.url;
        let unusable = |reason| UrlError::Unusable { url: url.to_string(), reason };
        let reference = Located::of(url).map_err(unusable).map_err(SourceError::from)?;
        let manifest = self.manifest(&reference, stat).await?;
        match manifest.contents().map_err(|error| self.image_error(error))? {
            Contents::Image(layers) => {
                let config = reference.blob(manifest.config.digest);
                let config = self.described(&config, &manifest.config).await?;
                let config = ImageConfig::parse(&config, &manifest, &layers);
                let config = config.map_err(|error| self.image_error(error))?;
                self.layers(&reference, &layers, &config.diff_ids, sources).await
            }
            Contents::Artifact { files, .. } => self.files(&reference, &files).await,
        }
    }

    /// The manifest that is for this machine.
    async fn manifest(&self, reference: &Located, stat: &Stat) -> Result<Manifest, ResolveError> {
        let mut bytes = self.document(&self.target, stat).await?;
        let mut served_as = stat.content_type.clone();
        for _ in 0..MAX_DEPTH {
            let document = parse(&bytes, served_as.as_deref());
            let named = match document.map_err(|error| self.image_error(error))? {
                Document::Manifest(manifest) => return Ok(*manifest),
                Document::Index(named) => named,
            };
            let chosen = choose(&named, &Platform::here());
            let chosen = chosen.map_err(|error| self.image_error(error))?;
            bytes = self.described(&reference.manifest(chosen.digest), chosen).await?;
            served_as = Some(chosen.media_type.clone()).filter(|kind| !kind.is_empty());
        }
        Err(self.image_error(ImageError::Depth))
    }

    /// A document by its descriptor, which it must be like.
    async fn described(
        &self,
        reference: &Located,
        descriptor: &Descriptor,
    ) -> Result<Bytes, ResolveError> {
        if descriptor.size > MAX_DOCUMENT as u64 {
            let (what, length) = ("document", descriptor.size);
            return Err(self.image_error(ManifestError::TooLong { what, length }));
        }
        let target = Target { url: reference.url(), ..self.target.clone() };
        let pin = validator(&descriptor.digest, Some(descriptor.size));
        let bytes = self.gather(&target, &pin).await?;
        descriptor.verify("document", &bytes).map_err(|error| self.image_error(error))?;
        Ok(bytes)
    }

    async fn document(&self, target: &Target, stat: &Stat) -> Result<Bytes, ResolveError> {
        let length = stat.length.unwrap_or_default();
        if length > MAX_DOCUMENT as u64 {
            let what = "manifest";
            return Err(self.image_error(ManifestError::TooLong { what, length }));
        }
        Ok(self.gather(target, &stat.validator).await?)
    }

    /// All of something short.
    async fn gather(&self, target: &Target, pin: &Validator) -> Result<Bytes, SourceError> {
        let mut stream = self.source.read(target, None, pin).await?;
        let mut all = Vec::new();
        while let Some(bytes) = stream.try_next().await? {
            // Never more than the pin says, or than a registry's documents have.
            all.extend_from_slice(&bytes);
        }
        Ok(all.into())
    }

    /// The task of a blob as it is in the registry.
    async fn blob_recipe(
        &self,
        reference: &Located,
        descriptor: &Descriptor,
    ) -> Result<Recipe, ResolveError> {
        let url = reference.blob(descriptor.digest).url();
        let target = Target { url, ..self.target.clone() };
        let stat = self.source.stat(&target).await?;
        if stat.length.is_some_and(|length| length != descriptor.size) {
            let (digest, expected) = (descriptor.digest, descriptor.size);
            let actual = stat.length.unwrap_or_default();
            return Err(self.image_error(ImageError::Length { digest, expected, actual }));
        }
        let version = validator(&descriptor.digest, Some(descriptor.size));
        Ok(Recipe {
            key: self.key(TaskKind::Blob, &target, version),
            length: Some(descriptor.size),
            origin: OriginRecipe::Url { place: Place::of(&target), ranges: stat.ranges },
        })
    }

    async fn layers(
        &self,
        reference: &Located,
        layers: &[LayerBlob],
        diff_ids: &[ContentDigest],
        sources: &Sources,
    ) -> Result<Artifact, ResolveError> {
        // An image may have one layer several times.
        let mut places = HashMap::new();
        let mut distinct = Vec::new();
        for (number, (layer, diff_id)) in (1..).zip(layers.iter().zip(diff_ids)) {
            places.entry((layer.blob.digest, *diff_id)).or_insert_with(|| {
                distinct.push(Wanted { number, layer, diff_id: *diff_id });
                distinct.len() - 1
            });
        }
        let reading = distinct.into_iter().map(|layer| self.layer(reference, layer, sources));
        let reading: Vec<_> = reading.collect();
        let read: Vec<Index> = stream::iter(reading).buffered(AT_ONCE).try_collect().await?;
        let order = layers.iter().zip(diff_ids);
        let order = order.filter_map(|(layer, diff_id)| places.get(&(layer.blob.digest, *diff_id)));
        let order: Vec<usize> = order.copied().collect();
        // A large image takes seconds.
        let merging = tokio::task::spawn_blocking(move || lay_over(&read, &order));
        let merged = merging.await;
        let merged = merged.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        self.finish(merged.map_err(|error| self.image_error(error))?).await
    }

    /// The index of a layer alone, which is made once.
    async fn layer(
        &self,
        reference: &Located,
        wanted: Wanted<'_>,
        sources: &Sources,
    ) -> Result<Index, ResolveError> {
        let name = self.name_of(reference, wanted);
        let kept = match &self.options.opener {
            Some(opener) => opener.kept(&name).await,
            None => None,
        };
        // One that cannot be used is made again.
        if let Some(index) = kept.and_then(|bytes| Index::parse(bytes).ok()) {
            return Ok(index);
        }
        let bytes = self.index_layer(reference, wanted, sources).await?;
        if let Some(opener) = &self.options.opener {
            opener.keep(&name, bytes.clone()).await;
        }
        let source = |source| ImageError::Read { number: wanted.number, source };
        Index::open(bytes).map_err(|error| self.image_error(source(error)))
    }

    /// By what the index of a layer is found again: its blob, and what that was seen to unpack to.
    fn name_of(&self, reference: &Located, Wanted { layer, diff_id, .. }: Wanted<'_>) -> TaskKey {
        let url = reference.blob(layer.blob.digest).url();
        let target = Target { url, ..self.target.clone() };
        let version = validator(&layer.blob.digest, None);
        let version = Validator { version: Some(diff_id.to_string()), ..version };
        self.key(TaskKind::Index, &target, version)
    }

    /// Reads all of a layer; its index.
    async fn index_layer(
        &self,
        reference: &Located,
        Wanted { number, layer, diff_id }: Wanted<'_>,
        sources: &Sources,
    ) -> Result<Bytes, ResolveError> {
        let mut recipe = self.blob_recipe(reference, &layer.blob).await?;
        let transform = match layer.layer_type.compression {
            Compression::None => Transform::Identity,
            Compression::Gzip => Transform::Gunzip,
            Compression::Zstd => Transform::Unzstd,
        };
        if transform != Transform::Identity {
            (recipe.key.transform, recipe.length) = (transform, None);
        }
        let origin = self.open(&recipe, sources).await?;
        let length = origin.known_length().await?;
        recipe.length = Some(length);
        let tar = |source| self.image_error(ImageError::Tar { number, source });
        let mut whole = Whole::new(origin.read(None).await?, length, &diff_id);
        let mut scan = TarScan::new(length);
        while let Some(wanted) = scan.wanted() {
            let bytes = whole.read(wanted).await?;
            scan.feed(&bytes).map_err(tar)?;
        }
        let actual = whole.finish().await?;
        if actual != diff_id {
            let error = ImageError::OtherLayer { number, actual, expected: diff_id };
            return Err(self.image_error(error));
        }
        let (mut scanned, links) = scan.finish_layer().map_err(tar)?;
        let parts = std::mem::take(&mut scanned.parts);
        let mut tasks = vec![recipe];
        if !parts.is_empty() {
            let target = Target { url: tasks[0].key.url.clone(), ..self.target.clone() };
            let inside =
                Context { source: Arc::clone(&self.source), target, options: self.options };
            tasks.push(inside.parts(&tasks[0], length, scanned.parts_length, parts)?);
        }
        let indexed = Indexed { scanned, links, tasks, number };
        let writing = tokio::task::spawn_blocking(move || indexed.write());
        let written = writing.await;
        let bytes = written.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        bytes.map_err(|error| self.image_error(error))
    }

    /// A tree of the files of an artifact that is no image, each a task of its own.
    async fn files(
        &self,
        reference: &Located,
        files: &[ArtifactFile],
    ) -> Result<Artifact, ResolveError> {
        let looking = files.iter().map(|file| self.blob_recipe(reference, &file.blob));
        let looking: Vec<_> = looking.collect();
        let tasks: Vec<Recipe> = stream::iter(looking).buffered(AT_ONCE).try_collect().await?;
        let mut tree = TreeBuilder::new();
        for (place, file) in files.iter().enumerate() {
            // More than a tree can have is refused where it is written.
            let space = u16::try_from(place).unwrap_or(u16::MAX);
            let location = Location { space, offset: 0 };
            let content =
                Content::File(FileData { length: file.blob.size, location, digest: None });
            let added = tree.add(&file.path, Meta::with_mode(0o644), content);
            added.map_err(|source: TreeError| ResolveError::Tree { url: self.url(), source })?;
        }
        tree.date_implicit_directories();
        let (block_size, build_time) = (BlockSize::B4096, Mtime::default());
        let left_out = LeftOut::default();
        self.finish(Planned { tree, block_size, build_time, tasks, left_out }).await
    }
}

/// A layer that was read.
struct Indexed {
    scanned: ScannedTar,
    links: Vec<PendingLink>,
    /// Its tar, and what is put together from parts of it.
    tasks: Vec<Recipe>,
    number: usize,
}

impl Indexed {
    /// Blocks.
    fn write(self) -> Result<Bytes, ImageError> {
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

/// Lays layers over one another in this order, the lowest first. Blocks.
fn lay_over(read: &[Index], order: &[usize]) -> Result<Planned, ImageError> {
    let mut first_spaces = Vec::with_capacity(read.len());
    let mut spaces = 0_u16;
    for layer in read {
        first_spaces.push(spaces);
        spaces = spaces.saturating_add(layer.image().spaces());
    }
    let layers = order.iter().map(|&place| Layer {
        image: read[place].image(),
        first_space: first_spaces[place],
        links: read[place].links(),
        digest: &|_| None,
    });
    let merged = merge(&layers.collect::<Vec<_>>())?;
    let build_time = read.iter().map(|layer| layer.image().build_time()).max().unwrap_or_default();
    let mut left_out = merged.left_out;
    let mut tasks = Vec::with_capacity(spaces.into());
    for layer in read {
        left_out.join(layer.left_out().clone());
        tasks.extend_from_slice(layer.spaces());
    }
    Ok(Planned { tree: merged.tree, block_size: BlockSize::B512, build_time, tasks, left_out })
}
