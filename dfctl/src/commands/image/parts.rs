//! What commands about images have in common: documents, their digests, and why an image cannot be read.

use std::sync::Arc;

use bytes::Bytes;
use dfs_artifact::image::graph::GraphError;
use dfs_artifact::image::{self, Descriptor, Platform, parse};
use dfs_model::Validator;
use dfs_source::oci::{ContentDigest, MAX_DOCUMENT};
use dfs_source::{Source, SourceError, Target};
use futures::TryStreamExt;

use crate::backend::{Failure, FailureClass};
use crate::commands::sync::of_source_error;
use crate::error::CliError;

/// A manifest or an index, as it is.
pub struct Document {
    pub media_type: String,
    pub bytes: Bytes,
}

/// The digest of a document.
pub fn digest_of(bytes: &[u8]) -> ContentDigest {
    ContentDigest::sha256(bytes)
}

/// `action` on the image `shown` failed.
pub fn failed(action: &str, shown: &str, error: impl Into<GraphError>) -> CliError {
    let failure = match error.into() {
        GraphError::Source(error) => of_source_error(&error),
        error @ GraphError::Platform(_) => Failure::new(FailureClass::NoPath, error.to_string()),
        error => {
            let failure = Failure::new(FailureClass::BadAnswer, error.to_string());
            match std::error::Error::source(&error) {
                Some(cause) => failure.because(cause.to_string()),
                None => failure,
            }
        }
    };
    CliError::backend(action, shown, failure)
}

/// Has what is checked here said as it is said of any origin.
pub fn bad_answer(action: &str, shown: &str, reason: String) -> CliError {
    CliError::backend(action, shown, Failure::new(FailureClass::BadAnswer, reason))
}

/// What a name stands for.
pub struct Top {
    /// Its digest.
    pub digest: ContentDigest,
    /// What it was served as.
    pub media_type: Option<String>,
    /// It.
    pub document: image::Document,
}

/// Reads what a name stands for.
pub async fn top(source: &Arc<dyn Source>, target: &Target, action: &str) -> Result<Top, CliError> {
    let shown = target.url.to_string();
    let stat = source.stat(target).await.map_err(|error| failed(action, &shown, error))?;
    let target = Target { url: stat.url.clone(), ..target.clone() };
    let bytes = gathered(source, &target, &stat.validator, (action, &shown)).await?;
    let document = parse(&bytes, stat.content_type.as_deref());
    let document = document.map_err(|error| failed(action, &shown, GraphError::from(error)))?;
    Ok(Top { digest: digest_of(&bytes), media_type: stat.content_type, document })
}

/// For which machines a list has images; none where it is no list.
pub fn platforms(document: &image::Document) -> Vec<(Platform, ContentDigest)> {
    let image::Document::Index(named) = document else { return Vec::new() };
    let images = named.iter().filter(|named: &&Descriptor| !named.is_attestation());
    images.filter_map(|named| Some((named.platform.clone()?, named.digest))).collect()
}

/// All of a document; what is done for which name is for an error.
pub async fn gathered(
    source: &Arc<dyn Source>,
    target: &Target,
    pin: &Validator,
    (action, shown): (&str, &str),
) -> Result<Vec<u8>, CliError> {
    let cannot = |error: SourceError| failed(action, shown, error);
    let mut parts = source.read(target, None, pin).await.map_err(cannot)?;
    let mut all = Vec::new();
    while let Some(part) = parts.try_next().await.map_err(cannot)? {
        if all.len() + part.len() > MAX_DOCUMENT {
            let why = format!("a document of it has more than {MAX_DOCUMENT} bytes");
            return Err(bad_answer(action, shown, why));
        }
        all.extend_from_slice(&part);
    }
    Ok(all)
}
