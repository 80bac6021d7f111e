//! What commands about images have in common: documents, their digests, and why an image cannot be read.

use bytes::Bytes;
use dfs_artifact::image::graph::GraphError;
use dfs_artifact::image::{self, Descriptor, Platform};
use dfs_source::oci::ContentDigest;

use crate::backend::{Failure, FailureClass};
use crate::commands::sync::of_source_error;
use crate::error::CliError;

/// A manifest or an index, as it is.
pub struct Document {
    pub digest: ContentDigest,
    pub media_type: String,
    pub bytes: Bytes,
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

/// For which machines a list has images; none where it is no list.
pub fn platforms(document: &image::Document) -> Vec<(Platform, ContentDigest)> {
    let image::Document::Index(named) = document else { return Vec::new() };
    let images = named.iter().filter(|named: &&Descriptor| !named.is_attestation());
    images.filter_map(|named| Some((named.platform.clone()?, named.digest))).collect()
}
