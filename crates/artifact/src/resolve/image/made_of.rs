//! Of what an image is made, by its documents alone: for whoever knows its layers by the names that they have in stacks.

use dfs_model::UrlError;
use dfs_source::oci::{ContentDigest, Located, Reference, digest_of};
use dfs_source::{SourceError, Sources, Target};

use super::{Context, Documents, ResolveError};
use crate::resolve::ResolveOptions;

/// An image and its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLayers {
    /// The image, by its digest.
    pub image: Reference,
    /// Its layers, the lowest first.
    pub layers: Vec<NamedLayer>,
}

/// A layer of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedLayer {
    /// Its blob.
    pub blob: ContentDigest,
    /// The name of it with all below it: the chain id of the OCI specification.
    pub chain: ContentDigest,
}

/// Reads of what layers an image is made for this machine. None of them is asked for.
pub async fn image_layers(sources: &Sources, target: &Target) -> Result<ImageLayers, ResolveError> {
    let source = sources.for_target(target)?;
    let stat = source.stat(target).await?;
    let target = Target { url: stat.url.clone(), ..target.clone() };
    let options = ResolveOptions::default();
    let context = Context { source, target, options: &options };
    let unusable = |reason| UrlError::Unusable { url: stat.url.to_string(), reason };
    let named = Reference::of(&stat.url).map_err(unusable).map_err(SourceError::from)?;
    let reference = Located::Registry(named.clone());
    let Documents { layers, config, .. } = context.documents(&reference, &stat).await?;
    let image = digest_of(&stat.validator)
        .map(|digest| named.manifest(digest).with_platform(named.platform().cloned()));
    let chains = chains(&config.diff_ids);
    let layers = layers.iter().zip(chains);
    let layers = layers.map(|(layer, chain)| NamedLayer { blob: layer.blob.digest, chain });
    Ok(ImageLayers { image: image.unwrap_or(named), layers: layers.collect() })
}

/// The name of each layer with all below it.
fn chains(diff_ids: &[ContentDigest]) -> Vec<ContentDigest> {
    let mut below: Option<ContentDigest> = None;
    let over = |diff_id: &ContentDigest| {
        let chain = match below {
            None => *diff_id,
            Some(below) => ContentDigest::sha256(format!("{below} {diff_id}").as_bytes()),
        };
        below = Some(chain);
        chain
    };
    diff_ids.iter().map(over).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_named_as_the_specification_has_it() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| ContentDigest::sha256(bytes));
        let ab = ContentDigest::sha256(format!("{a} {b}").as_bytes());
        let abc = ContentDigest::sha256(format!("{ab} {c}").as_bytes());
        assert_eq!(chains(&[a, b, c]), [a, ab, abc]);
        assert!(chains(&[]).is_empty());
    }
}
