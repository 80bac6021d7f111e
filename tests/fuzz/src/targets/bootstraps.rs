//! Bootstraps of images that Nydus made. Nobody here writes any: its corpus is what nydus-image made.

use bytes::Bytes;
use dfs_artifact::rafs::Rafs;

/// Reads one. Of what is taken no chunk lies outside of its space.
pub(super) fn parse(bytes: &[u8]) {
    let Ok(rafs) = Rafs::parse(Bytes::copy_from_slice(bytes)) else { return };
    for blob in &rafs.blobs {
        assert!(blob.chunks.iter().all(|chunk| chunk.range().end <= blob.length));
    }
}
