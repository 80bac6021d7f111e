//! What a URL names: its tasks, and for a tree the index over them.
//!
//! A listing is its tree; a container image is the tree that its layers make; an archive (a tar, also compressed, a zip), by its content, is the tree inside; any
//! other single URL is a directory that holds one file. The same answers of the origin give the same artifact, byte for byte.

mod archive;
mod image;
mod listing;
mod zip;

use std::ops::RangeInclusive;
use std::sync::Arc;

use archive::Shown;
use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{CanonicalUrl, TaskKey, TaskKind, Transform, Validator};
use dfs_source::oci::{Platform, content_name};
use dfs_source::{Source, SourceError, Sources, Stat, StatKind, Target, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::image::{
    ImageError, ImageLayers, Imported, IndexedImage, IndexedLayer, NamedLayer, image_layers,
    import_indexes, index_layers,
};
use crate::erofs::{BlockSize, ImageOptions, Space, WriteError, write_image};
use crate::image::attached::{AttachedPart, IndexTrust};
use crate::index::validate::space_tag;
use crate::index::{ImageFacts, Index, IndexError, write_index};
use crate::origin::Origin;
use crate::parts::PartTableError;
use crate::recipe::{OriginRecipe, Place, Recipe};
use crate::spaces::PlanError;
use crate::tar::TarError;
use crate::tree::{Content, FileData, Location, Meta, Mtime, TreeBuilder, TreeError};
pub use crate::tree::{LeftOut, Skipped};
use crate::zip::ZipError;

/// How an artifact is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum View {
    /// The bytes behind the URL, as one file.
    File,
    /// A tree: of a listing, or inside an archive.
    Tree,
    /// A tree where there is one, else a directory with the one file.
    #[default]
    Auto,
    /// A directory with the one file, whatever is in it.
    OneFile,
}

/// Opens tasks for the resolution to read from, so that what it reads is kept for later.
#[async_trait]
pub trait OpenTask: Send + Sync {
    /// The bytes of this task.
    async fn open(&self, recipe: &Recipe) -> Result<Arc<dyn Origin>, SourceError>;

    /// What was kept by [`Self::keep`] under this name.
    async fn kept(&self, _name: &TaskKey) -> Option<Bytes> {
        None
    }

    /// Indexes of layers that were kept under names of the domain and registry of `name`, and whose content is all here:
    /// those that were read last come first.
    async fn layers(&self, _name: &TaskKey) -> Vec<Index> {
        Vec::new()
    }

    /// All of this task was read, by what [`Self::open`] gave, and is what its name says.
    async fn confirm(&self, _recipe: &Recipe) {}

    /// What is kept beside the content of this task, longer than that.
    async fn beside(&self, _recipe: &Recipe) -> Vec<AttachedPart> {
        Vec::new()
    }

    /// Keeps that of somebody who is believed; whether all that is needed of it is here then.
    async fn keep_beside(&self, _recipe: &Recipe, _beside: Vec<AttachedPart>) -> bool {
        false
    }

    /// Keeps something that was made on the way, and takes long to make: it may go at any time.
    async fn keep(&self, _name: &TaskKey, _content: Bytes) {}
}

/// How to resolve.
#[derive(Clone)]
pub struct ResolveOptions {
    /// Domain of the tasks: [`TaskKey::PUBLIC`], or the tenant whose credentials are used.
    pub domain: String,
    /// Members of a listing that are asked for their length and version at a time: at first, and while the origin
    /// answers fast.
    pub stats_at_once: RangeInclusive<usize>,
    /// Where the bytes of archives are read; straight from the source when `None`.
    pub opener: Option<Arc<dyn OpenTask>>,
    /// Which indexes of layers are believed that somebody attached to an image.
    pub index_trust: Arc<IndexTrust>,
    /// For which machine it is, where an image is for several kinds and its URL names none.
    pub platform: Platform,
}

impl Default for ResolveOptions {
    fn default() -> Self {
        Self {
            domain: TaskKey::PUBLIC.to_owned(),
            stats_at_once: 16..=48,
            opener: None,
            index_trust: Arc::default(),
            platform: Platform::here(),
        }
    }
}

/// What a URL names.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Where it is, as the origin names it.
    pub url: CanonicalUrl,
    /// How it is seen: [`View::File`] or [`View::Tree`].
    pub view: View,
    /// The index of a tree, and the task that it is.
    pub index: Option<BuiltIndex>,
    /// The tasks: of a tree, its spaces by their numbers; of a file, the one.
    pub tasks: Vec<Recipe>,
    /// Members of a listing or an archive that are not in the tree.
    pub left_out: LeftOut,
}

/// An index that was just made.
#[derive(Debug, Clone)]
pub struct BuiltIndex {
    /// Its task: the validator's ETag is the BLAKE3 of its bytes.
    pub key: TaskKey,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Why a URL could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The origin.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A directory cannot be one file.
    #[error("{0} is a directory: it cannot be taken as a file")]
    IsDirectory(CanonicalUrl),
    /// Something that is no archive was asked for as a tree of its own.
    #[error("{0} is neither a directory nor an archive that can be read: there is no tree in it")]
    NoTree(CanonicalUrl),
    /// A mount needs the length.
    #[error("{0} does not tell its length: it can be read as a file, not mounted")]
    LengthUnknown(CanonicalUrl),
    /// The archive.
    #[error("cannot index {url}")]
    Tar {
        /// Which one.
        url: CanonicalUrl,
        /// Why.
        #[source]
        source: TarError,
    },
    /// The zip.
    #[error("cannot index {url}")]
    Zip {
        /// Which one.
        url: CanonicalUrl,
        /// Why.
        #[source]
        source: ZipError,
    },
    /// The container image, or artifact.
    #[error("cannot make a tree of {url}")]
    Image {
        /// Which one.
        url: CanonicalUrl,
        /// Why.
        #[source]
        source: Box<ImageError>,
    },
    /// The spaces of the archive.
    #[error("cannot lay out {url}")]
    Parts {
        /// Which archive.
        url: CanonicalUrl,
        /// Why.
        #[source]
        source: PartTableError,
    },
    /// The listing's paths.
    #[error("cannot make a tree of {url}")]
    Tree {
        /// Which listing.
        url: CanonicalUrl,
        /// Why.
        #[source]
        source: TreeError,
    },
    /// The listing's bytes.
    #[error("cannot lay out {url}")]
    Plan {
        /// Which listing.
        url: CanonicalUrl,
        /// Why.
        #[source]
        source: PlanError,
    },
    /// The image.
    #[error("cannot write the index of {url}")]
    Write {
        /// Of what.
        url: CanonicalUrl,
        /// Why.
        #[source]
        source: WriteError,
    },
    /// The index around it.
    #[error("cannot write the index of {url}")]
    Index {
        /// Of what.
        url: CanonicalUrl,
        /// Why.
        #[source]
        source: IndexError,
    },
}

/// Resolves a target to its artifact.
pub async fn resolve(
    sources: &Sources,
    target: &Target,
    view: View,
    options: &ResolveOptions,
) -> Result<Artifact, ResolveError> {
    let source = sources.for_target(target)?;
    let stat = source.stat(target).await?;
    let target = Target { url: stat.url.clone(), ..target.clone() };
    let context = Context { source, target, options };
    if stat.kind == StatKind::Directory {
        return match view {
            View::File | View::OneFile => Err(ResolveError::IsDirectory(stat.url)),
            View::Tree | View::Auto => context.listing().await,
        };
    }
    if matches!(view, View::Tree | View::Auto) && image::is_manifest(&context.target) {
        return context.image(&stat, sources).await;
    }
    let recipe = context.blob(&stat);
    if view == View::File {
        let tasks = vec![recipe];
        let (index, left_out) = (None, LeftOut::default());
        return Ok(Artifact { url: stat.url, view: View::File, index, tasks, left_out });
    }
    let length = stat.length.ok_or_else(|| ResolveError::LengthUnknown(stat.url.clone()))?;
    if view == View::OneFile {
        return context.single_file(recipe, length).await;
    }
    let origin = context.open(&recipe, sources).await?;
    match archive::look(&origin, length).await? {
        Shown::Tar => context.tar(recipe, origin, length).await,
        Shown::Packed(transform) => context.packed_tar(recipe, transform, sources).await,
        Shown::Zip(directory) => context.zip(recipe, origin, length, directory).await,
        Shown::BrokenZip(source) if view == View::Tree => {
            Err(ResolveError::Zip { url: stat.url, source })
        }
        Shown::Other if view == View::Tree => Err(ResolveError::NoTree(stat.url)),
        Shown::Other | Shown::BrokenZip(_) => context.single_file(recipe, length).await,
    }
}

/// What lies right in the directory `below` of a listing, as the index of a tree that has nothing else; `None` where
/// the target is no listing.
pub async fn resolve_level(
    sources: &Sources,
    target: &Target,
    below: &[u8],
    options: &ResolveOptions,
) -> Result<Option<BuiltIndex>, ResolveError> {
    let source = sources.for_target(target)?;
    let stat = source.stat(target).await?;
    if stat.kind != StatKind::Directory {
        return Ok(None);
    }
    let target = Target { url: stat.url, ..target.clone() };
    let entries = source.list_level(&target, below);
    let context = Context { source, target, options };
    Ok(context.listing_of(None, entries).await?.index)
}

/// What a resolution works with.
struct Context<'a> {
    source: Arc<dyn Source>,
    target: Target,
    options: &'a ResolveOptions,
}

/// A tree ready to be written, with the recipes of its spaces.
struct Planned {
    tree: TreeBuilder,
    block_size: BlockSize,
    build_time: Mtime,
    tasks: Vec<Recipe>,
    left_out: LeftOut,
    image: Option<ImageFacts>,
}

impl Context<'_> {
    fn url(&self) -> CanonicalUrl {
        self.target.url.clone()
    }

    fn key(&self, kind: TaskKind, target: &Target, validator: Validator) -> TaskKey {
        TaskKey {
            domain: self.options.domain.clone(),
            kind,
            url: content_name(&target.url),
            headers: target.headers.clone(),
            validator,
            transform: Transform::Identity,
        }
    }

    fn blob(&self, stat: &Stat) -> Recipe {
        Recipe {
            key: self.key(TaskKind::Blob, &self.target, stat.validator.clone()),
            length: stat.length,
            origin: OriginRecipe::Url { place: Place::of(&self.target), ranges: stat.ranges },
        }
    }

    /// A directory that holds the one file under its own name.
    async fn single_file(&self, recipe: Recipe, length: u64) -> Result<Artifact, ResolveError> {
        let name = self.target.url.file_name().unwrap_or_else(|| "content".to_owned());
        let time = Timestamp::of_validator(&recipe.key.validator).map(mtime).unwrap_or_default();
        let meta = Meta { mtime: time, ..Meta::with_mode(0o644) };
        let location = Location { space: 0, offset: 0 };
        let content = Content::File(FileData { length, location, digest: None });
        let mut tree = TreeBuilder::new();
        let added = tree.add(name.as_bytes(), meta, content);
        added.map_err(|source| ResolveError::Tree { url: self.url(), source })?;
        tree.date_implicit_directories();
        let block_size = BlockSize::B4096;
        let (tasks, left_out) = (vec![recipe], LeftOut::default());
        let image = None;
        self.finish(Planned { tree, block_size, build_time: time, tasks, left_out, image }).await
    }

    /// Writes the index, on a thread for such work: a large tree takes seconds.
    async fn finish(&self, planned: Planned) -> Result<Artifact, ResolveError> {
        let url = self.url();
        let built = tokio::task::spawn_blocking(move || planned.write(url));
        let built =
            built.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let Written { bytes, tasks, left_out } = built?;
        Ok(self.built(bytes, tasks, left_out))
    }

    /// The tree of an index that is ready.
    fn built(&self, bytes: Vec<u8>, tasks: Vec<Recipe>, left_out: LeftOut) -> Artifact {
        let validator = Validator {
            etag: Some(blake3::hash(&bytes).to_hex().to_string()),
            length: Some(bytes.len() as u64),
            ..Validator::default()
        };
        let key = self.key(TaskKind::Index, &self.target, validator);
        let index = Some(BuiltIndex { key, bytes: bytes.into() });
        Artifact { url: self.url(), view: View::Tree, index, tasks, left_out }
    }
}

/// An index and what it was made of.
struct Written {
    bytes: Vec<u8>,
    tasks: Vec<Recipe>,
    left_out: LeftOut,
}

impl Planned {
    fn write(self, url: CanonicalUrl) -> Result<Written, ResolveError> {
        let space = |recipe: &Recipe| -> Option<Space> {
            Some(Space { length: recipe.length?, tag: space_tag(recipe) })
        };
        let spaces = self.tasks.iter().map(space).collect::<Option<Vec<_>>>();
        let spaces = spaces.ok_or_else(|| ResolveError::LengthUnknown(url.clone()))?;
        let Self { tree, block_size, build_time, tasks, left_out, image: of } = self;
        let image = write_image(&tree, &ImageOptions { block_size, build_time, spaces });
        let image = image.map_err(|source| ResolveError::Write { url: url.clone(), source })?;
        drop(tree);
        let bytes = write_index(image, url.clone(), &tasks, &left_out, of);
        let bytes = bytes.map_err(|source| ResolveError::Index { url, source })?;
        Ok(Written { bytes, tasks, left_out })
    }
}

fn mtime(time: Timestamp) -> Mtime {
    Mtime { secs: time.seconds, nanos: time.nanos.min(999_999_999) }
}
