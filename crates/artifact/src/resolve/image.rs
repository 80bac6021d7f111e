//! A container image as its tree: from what its manifest says to one index over its layers. What has a manifest and is no
//! image is the tree of its files.
//!
//! Each layer is a task of its own, the tar that its blob unpacks to, named by registry and digest: images that share layers
//! share these, whatever their repositories (decision 33). All of a layer is read once, and held against what the image's
//! configuration says of it, before anything of it is shown; but one that has a table of contents is shown by that, and each
//! chunk of it held against the table (decision 40).

mod attached;
mod by_toc;
mod equal;
mod indexed;
mod layers;
mod made_of;
mod rafs;
mod stack;
mod whole;

use bytes::Bytes;
use dfs_model::{TaskKey, TaskKind, UrlError};
use dfs_source::oci::{ContentDigest, Located, Named, digest_of, validator};
use dfs_source::{SourceError, Sources, Stat, Target, read_short};
use futures::{StreamExt as _, TryStreamExt as _, stream};

pub use self::indexed::{Imported, IndexedImage, IndexedLayer, import_indexes, index_layers};
pub use self::made_of::{ImageLayers, NamedLayer, image_layers};
use self::stack::Stack;
use super::{Artifact, Context, Planned, ResolveError};
use crate::erofs::{BlockSize, WriteError};
use crate::image::artifact::ArtifactFile;
use crate::image::attached::About;
use crate::image::manifest::{Contents, LayerBlob, MAX_DOCUMENT};
use crate::image::{
    Descriptor, Document, ImageConfig, Manifest, ManifestError, MergeError, NoSuchPlatform, check,
    choose, parse,
};
use crate::index::{ImageFacts, IndexError};
use crate::rafs::RafsError;
use crate::recipe::{OriginRecipe, Place, Recipe};
use crate::tar::TarError;
use crate::tree::{Content, FileData, LeftOut, Location, Meta, Mtime, TreeBuilder, TreeError};

/// Indexes within indexes that are followed.
const MAX_DEPTH: usize = 3;

/// What a manifest is of which nobody says what it is.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

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
    /// It has fewer.
    #[error("the image has {has} layers, and {wanted} are asked for")]
    FewerLayers {
        /// How many are asked for.
        wanted: usize,
        /// How many there are.
        has: usize,
    },
    /// What has a manifest is something else.
    #[error("it is no image: it has files, and no layers")]
    NoImage,
    /// It is not made of layers over one another.
    #[error(
        "an image that Nydus made is shown as a whole: it has no layers to be shown by themselves"
    )]
    NoLayers,
    /// Nydus made it, and it cannot be read.
    #[error(transparent)]
    Rafs(#[from] RafsError),
}

/// What is known of something without the configuration of an image.
fn facts_of(stat: &Stat, chosen: &Chosen) -> ImageFacts {
    let manifest = chosen.about.digest;
    let digest = digest_of(&stat.validator).unwrap_or(manifest);
    ImageFacts { digest, manifest, platform: None }
}

/// Whether a target names a manifest of a registry, whose contents make a tree.
pub(super) fn is_manifest(target: &Target) -> bool {
    Located::of(&target.url).is_ok_and(|reference| !matches!(reference.named(), Named::Blob(_)))
}

/// The documents of an image, read and held against each other.
struct Documents {
    about: About,
    /// What the name stood for.
    named: ContentDigest,
    layers: Vec<LayerBlob>,
    config: ImageConfig,
}

impl Documents {
    /// All of its layers.
    fn stack<'a>(&'a self, reference: &'a Located) -> Stack<'a> {
        let of = ImageFacts {
            digest: self.named,
            manifest: self.about.digest,
            platform: Some(self.config.platform.to_string()),
        };
        Stack::new(reference, &self.layers, &self.config.diff_ids, of)
    }
}

/// A manifest that was come by.
struct Chosen {
    manifest: Manifest,
    about: About,
    /// Whether no list led to it, which says for which machines it is.
    is_alone: bool,
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
        let chosen = self.manifest(&reference, stat).await?;
        match chosen.manifest.contents().map_err(|error| self.image_error(error))? {
            Contents::Image(layers) => {
                let documents = self.of_image(&reference, stat, chosen, layers).await?;
                let mut stack = documents.stack(&reference);
                let (wanted, has) = (reference.layers(), stack.layers.len());
                let wanted = wanted.unwrap_or(has);
                if wanted > has {
                    return Err(self.image_error(ImageError::FewerLayers { wanted, has }));
                }
                stack.layers = &documents.layers[..wanted];
                stack.diff_ids = &documents.config.diff_ids[..wanted];
                self.layers(&stack, sources).await
            }
            Contents::Rafs(layers) => {
                let of = facts_of(stat, &chosen);
                self.rafs(&reference, &layers, of).await
            }
            Contents::Artifact { files, .. } => {
                let of = facts_of(stat, &chosen);
                self.files(&reference, &files, of).await
            }
        }
    }

    /// The documents of what is an image.
    async fn documents(&self, reference: &Located, stat: &Stat) -> Result<Documents, ResolveError> {
        let chosen = self.manifest(reference, stat).await?;
        let contents = chosen.manifest.contents();
        match contents.map_err(|error| self.image_error(error))? {
            Contents::Image(layers) => self.of_image(reference, stat, chosen, layers).await,
            Contents::Rafs(_) => Err(self.image_error(ImageError::NoLayers)),
            Contents::Artifact { .. } => Err(self.image_error(ImageError::NoImage)),
        }
    }

    async fn of_image(
        &self,
        reference: &Located,
        stat: &Stat,
        chosen: Chosen,
        layers: Vec<LayerBlob>,
    ) -> Result<Documents, ResolveError> {
        let Chosen { manifest, about, is_alone } = chosen;
        let config = reference.blob(manifest.config.digest);
        let config = self.described(&config, &manifest.config).await?;
        let config = ImageConfig::parse(&config, &manifest, &layers);
        let config = config.map_err(|error| self.image_error(error))?;
        if let Some(wanted) = reference.platform().filter(|_| is_alone) {
            check(&config.platform, wanted).map_err(|error| self.image_error(error))?;
        }
        let named = digest_of(&stat.validator).unwrap_or(about.digest);
        Ok(Documents { about, named, layers, config })
    }

    /// The manifest that is for the machines that are named, or for the one that asks.
    async fn manifest(&self, reference: &Located, stat: &Stat) -> Result<Chosen, ResolveError> {
        let mut bytes = self.document(&self.target, stat).await?;
        let mut served_as = stat.content_type.clone();
        let wanted = reference.platform().unwrap_or(&self.options.platform);
        for depth in 0..MAX_DEPTH {
            let document = parse(&bytes, served_as.as_deref());
            let named = match document.map_err(|error| self.image_error(error))? {
                Document::Manifest(manifest) => {
                    let about = About {
                        media_type: served_as.unwrap_or_else(|| MANIFEST.to_owned()),
                        digest: ContentDigest::sha256(&bytes),
                        size: bytes.len() as u64,
                    };
                    return Ok(Chosen { manifest: *manifest, about, is_alone: depth == 0 });
                }
                Document::Index(named) => named,
            };
            let chosen = choose(&named, wanted);
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
        let bytes = read_short(&*self.source, &target, &pin, MAX_DOCUMENT as u64).await?;
        descriptor.verify("document", &bytes).map_err(|error| self.image_error(error))?;
        Ok(bytes)
    }

    async fn document(&self, target: &Target, stat: &Stat) -> Result<Bytes, ResolveError> {
        let length = stat.length.unwrap_or_default();
        if length > MAX_DOCUMENT as u64 {
            let what = "manifest";
            return Err(self.image_error(ManifestError::TooLong { what, length }));
        }
        Ok(read_short(&*self.source, target, &stat.validator, MAX_DOCUMENT as u64).await?)
    }

    /// The task of a blob, of which the registry is asked whether it gives it to who asks here.
    async fn blob_recipe(
        &self,
        reference: &Located,
        descriptor: &Descriptor,
    ) -> Result<Recipe, ResolveError> {
        let target = self.blob_target(reference, &descriptor.digest);
        let stat = self.source.stat(&target).await?;
        if stat.length.is_some_and(|length| length != descriptor.size) {
            let (digest, expected) = (descriptor.digest, descriptor.size);
            let actual = stat.length.unwrap_or_default();
            return Err(self.image_error(ImageError::Length { digest, expected, actual }));
        }
        Ok(self.recipe_of(&target, descriptor, stat.ranges))
    }

    fn recipe_of(&self, target: &Target, descriptor: &Descriptor, ranges: bool) -> Recipe {
        let version = validator(&descriptor.digest, Some(descriptor.size));
        Recipe {
            key: self.key(TaskKind::Blob, target, version),
            length: Some(descriptor.size),
            origin: OriginRecipe::Url { place: Place::of(target), ranges },
        }
    }

    /// A blob of the repository that was named, asked for by who names it.
    fn blob_target(&self, reference: &Located, digest: &ContentDigest) -> Target {
        Target { url: reference.blob(*digest).url(), ..self.target.clone() }
    }

    /// Whether what is fetched is for everybody: then what a layer is may be believed, and is found out as it is read.
    fn is_public(&self, reference: &Located) -> bool {
        self.options.domain == TaskKey::PUBLIC && matches!(reference, Located::Registry(_))
    }

    /// A tree of the files of an artifact that is no image, each a task of its own.
    async fn files(
        &self,
        reference: &Located,
        files: &[ArtifactFile],
        of: ImageFacts,
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
        let image = Some(of);
        self.finish(Planned { tree, block_size, build_time, tasks, left_out, image }).await
    }
}
