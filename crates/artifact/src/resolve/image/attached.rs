//! Indexes of layers that somebody attached to the image: taken in place of reading a whole layer, where who attached them is
//! believed. Nobody is asked for them otherwise.
//!
//! Invariant: what is taken names the tasks that this resolution would name, and no others; all in it is checked as an
//! index of anybody else is. What is wrong with it is said, and the layer is read.

use std::sync::Arc;

use bytes::Bytes;
use dfs_model::Transform;
use dfs_source::oci::{ContentDigest, Located, Referrer, validator, verify};
use dfs_source::{Source, SourceError, Target, read_short};

use super::Context;
use super::layers::Wanted;
use super::stack::Stack;
use crate::image::attached::{
    Attached, AttachedError, AttachedLayer, AttachedPart, INDEX_ARTIFACT, LayerIndex,
};
use crate::image::manifest::MAX_DOCUMENT;
use crate::index::Index;
use crate::recipe::{OriginRecipe, Recipe};
use crate::resolve::ResolveError;

/// Most artifacts with indexes that are looked at of one image.
const MOST: usize = 8;

/// Artifacts that are believed, and where their blobs are.
pub(super) struct Believed {
    source: Arc<dyn Source>,
    target: Target,
    located: Located,
    found: Vec<Attached>,
}

/// Why an attached index is not taken.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    Attached(#[from] AttachedError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("it is of another layer, or of another way to lay it out")]
    Other,
    #[error("what goes with it is broken, or missing")]
    Beside,
    #[error("this process stops")]
    Stopping,
}

impl Believed {
    /// One that somebody named.
    pub fn named(source: Arc<dyn Source>, target: Target, located: Located, one: Attached) -> Self {
        Self { source, target, located, found: vec![one] }
    }

    fn find(&self, wanted: Wanted<'_>) -> impl Iterator<Item = &AttachedLayer> {
        let (layer, diff_id) = (wanted.layer.blob.digest, wanted.diff_id);
        self.found.iter().filter_map(move |one| one.find(&layer, &diff_id))
    }

    /// A blob of it, held against its digest.
    async fn blob(&self, blob: &ContentDigest, size: u64) -> Result<Bytes, SourceError> {
        let target = Target { url: self.located.blob(*blob).url(), ..self.target.clone() };
        read_short(&*self.source, &target, &validator(blob, Some(size)), size).await
    }
}

impl Context<'_> {
    /// The index of a layer, if one is attached to the image that is believed and can be used.
    pub(super) async fn attached(&self, stack: &Stack<'_>, wanted: Wanted<'_>) -> Option<Index> {
        let Located::Registry(reference) = stack.reference else { return None };
        if !self.options.index_trust.may_believe(reference.registry()) {
            return None;
        }
        let believed = stack.believed.get_or_init(|| self.believed(stack, reference.registry()));
        let believed = believed.await.as_ref()?;
        self.taken_or_said(believed, stack.reference, wanted).await
    }

    /// As [`Self::taken`]; why it is not is said.
    pub(super) async fn taken_or_said(
        &self,
        believed: &Believed,
        reference: &Located,
        wanted: Wanted<'_>,
    ) -> Option<Index> {
        for found in believed.find(wanted) {
            match Box::pin(self.taken(believed, found, reference, wanted)).await {
                Ok(index) => return Some(index),
                Err(error) => {
                    let (layer, why) = (found.layer, error.to_string());
                    tracing::warn!(url = %self.target.url, %layer, why, "an attached index is not used");
                }
            }
        }
        None
    }

    /// What is attached to the image and believed; what is not is said, once for the image.
    async fn believed(&self, stack: &Stack<'_>, registry: &str) -> Option<Believed> {
        let manifest = stack.of.manifest;
        let asked = self.source.referrers(&self.target, &manifest, Some(INDEX_ARTIFACT)).await;
        let referrers = asked.unwrap_or_else(|error| {
            tracing::info!(url = %self.target.url, %error, "what is attached to it cannot be found out");
            Vec::new()
        });
        let mut found = Vec::new();
        for referrer in referrers.iter().take(MOST) {
            match self.attached_manifest(stack.reference, referrer, registry).await {
                Ok(one) => found.push(one),
                Err(error) => {
                    let (attached, why) = (referrer.digest, error.to_string());
                    tracing::warn!(url = %self.target.url, %attached, why, "attached indexes are not used");
                }
            }
        }
        let (source, target) = (Arc::clone(&self.source), self.target.clone());
        let located = stack.reference.clone();
        (!found.is_empty()).then_some(Believed { source, target, located, found })
    }

    async fn attached_manifest(
        &self,
        reference: &Located,
        referrer: &Referrer,
        registry: &str,
    ) -> Result<Attached, NotTaken> {
        if referrer.size > MAX_DOCUMENT as u64 {
            return Err(AttachedError::Manifest("it is too long".to_owned()).into());
        }
        let digest = &referrer.digest;
        let target = Target { url: reference.manifest(*digest).url(), ..self.target.clone() };
        let pin = validator(digest, Some(referrer.size));
        let bytes = read_short(&*self.source, &target, &pin, MAX_DOCUMENT as u64).await?;
        let other = |_| AttachedError::Manifest("it is not what its digest says".to_owned());
        verify(&bytes, digest).map_err(other)?;
        let attached = Attached::parse(&bytes)?;
        self.options.index_trust.check(registry, &attached)?;
        Ok(attached)
    }

    /// Takes the index of a layer over, and what goes with it.
    async fn taken(
        &self,
        believed: &Believed,
        found: &AttachedLayer,
        reference: &Located,
        wanted: Wanted<'_>,
    ) -> Result<Index, NotTaken> {
        let blob = believed.blob(&found.blob, found.size).await?;
        let opened = blocking(move || {
            let LayerIndex { index, beside } = LayerIndex::decode(&blob)?;
            Ok::<_, NotTaken>((Index::open(index).map_err(|_| NotTaken::Other)?, beside))
        });
        let (theirs, beside): (Index, Vec<AttachedPart>) = opened.await?;
        let spaces = self.own_spaces(reference, wanted, &theirs).await?;
        let (tar, url) = (spaces[0].clone(), spaces[0].key.url.clone());
        let rebound = blocking(move || {
            let bytes = theirs.rebound(url, &spaces).map_err(|_| NotTaken::Other)?;
            Index::parse(bytes).map_err(|_| NotTaken::Other)
        });
        let index = rebound.await?;
        let Some(opener) = &self.options.opener else { return Ok(index) };
        if !opener.keep_beside(&tar, beside).await {
            return Err(NotTaken::Beside);
        }
        opener.keep(&self.name_of(reference, wanted, ""), index.image().data().clone()).await;
        Ok(index)
    }

    /// The tasks of a layer's index as they are named here, laid out as theirs has them.
    async fn own_spaces(
        &self,
        reference: &Located,
        wanted: Wanted<'_>,
        theirs: &Index,
    ) -> Result<Vec<Recipe>, NotTaken> {
        let mut tar = self.tar_recipe(reference, wanted.layer).await?;
        let (first, rest) = theirs.spaces().split_first().ok_or(NotTaken::Other)?;
        let length = first.length.ok_or(NotTaken::Other)?;
        let is_plain = tar.key.transform == Transform::Identity;
        if is_plain && tar.length != Some(length) {
            return Err(NotTaken::Other);
        }
        tar.length = Some(length);
        let [parts] = rest else {
            return if rest.is_empty() { Ok(vec![tar]) } else { Err(NotTaken::Other) };
        };
        let OriginRecipe::Parts { table, .. } = &parts.origin else { return Err(NotTaken::Other) };
        let (whole, parts) = (table.length(), table.parts().to_vec());
        let parts = self.parts_of_layer(reference, wanted.layer, &tar, whole, parts)?;
        Ok(vec![tar, parts])
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NotTaken> + Send + 'static,
) -> Result<T, NotTaken> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Err(NotTaken::Stopping),
    })
}
