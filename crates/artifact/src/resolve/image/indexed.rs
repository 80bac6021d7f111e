//! The indexes of an image's layers for others: made, or taken from what is kept; and taken over from a file.

use bytes::Bytes;
use dfs_model::UrlError;
use dfs_source::oci::{ContentDigest, Located};
use dfs_source::{SourceError, Sources, Target};

use super::attached::Believed;
use super::stack::distinct;
use super::{Context, Documents, ImageError, ResolveError};
use crate::image::attached::{About, Attached, LayerIndex};
use crate::image::manifest::ManifestError;
use crate::recipe::{OriginRecipe, Recipe};
use crate::resolve::ResolveOptions;

/// The indexes of an image's layers.
#[derive(Debug, Clone)]
pub struct IndexedImage {
    /// The image's manifest.
    pub about: About,
    /// Its layers, each once, the lowest first; without those that have a table of contents themselves.
    pub layers: Vec<IndexedLayer>,
}

/// The index of a layer.
#[derive(Debug, Clone)]
pub struct IndexedLayer {
    /// Its blob.
    pub layer: ContentDigest,
    /// What that unpacks to.
    pub diff_id: ContentDigest,
    /// What is known of it.
    pub known: LayerIndex,
}

/// What became of indexes that were to be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// Layers of the image, each once.
    pub layers: usize,
    /// Those whose indexes were taken over.
    pub taken: usize,
    /// Those whose indexes were known already.
    pub known: usize,
}

/// The indexes of an image's layers. What is not known is made: such a layer is read.
pub async fn index_layers(
    sources: &Sources,
    target: &Target,
    options: &ResolveOptions,
) -> Result<IndexedImage, ResolveError> {
    let (context, reference, documents) = read(sources, target, options).await?;
    let stack = documents.stack(&reference);
    let mut layers = Vec::new();
    for wanted in distinct(&stack).0 {
        let index = context.layer(&stack, wanted, sources).await?.index;
        let Some(tar) = index.spaces().first().filter(|first| is_tar(first)) else { continue };
        let beside = match &options.opener {
            Some(opener) => opener.beside(tar).await,
            None => Vec::new(),
        };
        let (layer, diff_id) = (wanted.layer.blob.digest, wanted.diff_id);
        let known = LayerIndex { index: index.image().data().clone(), beside };
        layers.push(IndexedLayer { layer, diff_id, known });
    }
    Ok(IndexedImage { about: documents.about.clone(), layers })
}

/// What has a table of contents is in no need of an index: nobody reads it as a whole.
fn is_tar(space: &Recipe) -> bool {
    matches!(space.origin, OriginRecipe::Url { .. })
}

/// Takes over what is at `from`, a manifest of indexes on a disk or in a registry: whoever names it believes it.
pub async fn import_indexes(
    sources: &Sources,
    target: &Target,
    from: &Target,
    options: &ResolveOptions,
) -> Result<Imported, ResolveError> {
    let believed = named(sources, from).await?;
    let (context, reference, documents) = read(sources, target, options).await?;
    let stack = documents.stack(&reference);
    let mut imported = Imported { layers: 0, taken: 0, known: 0 };
    for wanted in distinct(&stack).0 {
        imported.layers += 1;
        let name = context.name_of(&reference, wanted, "");
        if context.kept_layer(&reference, wanted, &name).await?.is_some() {
            imported.known += 1;
        } else if context.taken_or_said(&believed, &reference, wanted).await.is_some() {
            imported.taken += 1;
        }
    }
    Ok(imported)
}

/// A manifest of indexes that somebody names.
async fn named(sources: &Sources, from: &Target) -> Result<Believed, ResolveError> {
    let source = sources.for_target(from)?;
    let stat = source.stat(from).await?;
    let located = located(&stat.url)?;
    let target = Target { url: stat.url.clone(), ..from.clone() };
    let options = ResolveOptions::default();
    let context = Context { source: std::sync::Arc::clone(&source), target, options: &options };
    let bytes: Bytes = context.document(&context.target, &stat).await?;
    let attached = Attached::parse(&bytes);
    let attached = attached.map_err(|error| {
        context.image_error(ImageError::Document(ManifestError::Form {
            what: "list of indexes",
            source: serde::de::Error::custom(error),
        }))
    })?;
    Ok(Believed::named(source, context.target, located, attached))
}

fn located(url: &dfs_model::CanonicalUrl) -> Result<Located, SourceError> {
    let unusable = |reason| UrlError::Unusable { url: url.to_string(), reason };
    Located::of(url).map_err(unusable).map_err(SourceError::from)
}

async fn read<'a>(
    sources: &Sources,
    target: &Target,
    options: &'a ResolveOptions,
) -> Result<(Context<'a>, Located, Documents), ResolveError> {
    let source = sources.for_target(target)?;
    let stat = source.stat(target).await?;
    let target = Target { url: stat.url.clone(), ..target.clone() };
    let context = Context { source, target, options };
    let reference = located(&stat.url)?;
    let documents = context.documents(&reference, &stat).await?;
    Ok((context, reference, documents))
}
