//! The layer of an image that its bootstrap is in: a tar, mostly compressed.

use bytes::Bytes;

use super::{MAX_BOOTSTRAP, RafsError};
use crate::tar::TarScan;
use crate::tree::{Content, FileData, Location};
use crate::unpack::{Limits, MAGIC, transform_of, unpack_all};

/// Its name in the tar.
const BOOTSTRAP: &[u8] = b"image/image.boot";

/// How much a layer may unfold to. Most of a bootstrap of small files may be zeros.
const LIMITS: Limits = Limits { length: MAX_BOOTSTRAP, ratio: 250, free: 64 << 20 };

/// The bootstrap in a layer.
pub fn bootstrap_in(layer: Bytes) -> Result<Bytes, RafsError> {
    let tar = unpacked(layer)?;
    let mut scan = TarScan::new(tar.len() as u64);
    while let Some(wanted) = scan.wanted() {
        let end = wanted.end.min(tar.len() as u64) as usize;
        let bytes = tar.get(wanted.start as usize..end).unwrap_or_default();
        scan.feed(bytes)?;
    }
    let tree = scan.finish()?.tree;
    let node = tree.find(BOOTSTRAP).map(|id| &tree.node(id).content);
    let Some(Content::File(FileData { length, location, .. })) = node else {
        return Err(RafsError::NoBootstrap);
    };
    let Location { offset, .. } = *location;
    let range = offset as usize..(offset + length) as usize;
    let inside = range.end <= tar.len();
    inside.then(|| tar.slice(range)).ok_or(RafsError::NoBootstrap)
}

fn unpacked(layer: Bytes) -> Result<Bytes, RafsError> {
    let first = &layer[..layer.len().min(MAGIC)];
    match transform_of(first) {
        Some(transform) => Ok(unpack_all(transform, LIMITS, &layer)?.into()),
        None => Ok(layer),
    }
}
