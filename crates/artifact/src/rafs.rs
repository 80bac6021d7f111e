//! Bootstraps of RAFS v6, as Nydus writes them: a tree whose files lie in chunks of blobs, each chunk with its digest.
//!
//! A bootstrap is an EROFS image that has more in it: behind the superblock what makes it RAFS ([`superblock`]), a table of
//! its blobs ([`blobs`]) and one of all chunks ([`chunks`]). Each blob is a space, in which its chunks lie at the places that
//! they have unpacked; files are runs in these spaces, as in any tree here. Pure, bounded, and hostile until checked: what was
//! read agrees with itself, and no byte of a file lies where no chunk is.

mod blobs;
mod chunks;
mod layer;
mod superblock;

use bytes::Bytes;
use dfs_source::oci::ContentDigest;

pub use blobs::Blob;
pub use layer::bootstrap_in;

use crate::chunks::ChunkTableError;
use crate::erofs::{FormatError, Image, MAX_SPACES};
use crate::image::{Layer, MergeError, Merged, merge};
use crate::tar::TarError;
use crate::tree::{Content, LeftOut, Location, Mtime, TreeBuilder};
use crate::unpack::UnpackError;
use superblock::Tables;

/// Longest bootstrap that is read: one of some three million files.
pub const MAX_BOOTSTRAP: u64 = 512 << 20;

/// Why a bootstrap is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RafsError {
    /// The layer is not the tar of one.
    #[error("the bootstrap layer cannot be read")]
    Tar(#[from] TarError),
    /// The layer cannot be unpacked.
    #[error("the bootstrap layer cannot be unpacked")]
    Unpack(#[from] UnpackError),
    /// The layer has no bootstrap in it.
    #[error("the bootstrap layer has no file image/image.boot")]
    NoBootstrap,
    /// More than is read.
    #[error("the bootstrap has {length} bytes, and the longest that is read has {MAX_BOOTSTRAP}")]
    TooLong {
        /// Bytes in it, or in the layer that it is in.
        length: u64,
    },
    /// Another version of the format.
    #[error(
        "the image is of RAFS v{0}, and only v6 can be mounted: convert it anew with `nydusify convert --fs-version 6`, or mount the image that it was made of"
    )]
    Version(String),
    /// Something else altogether.
    #[error("the bootstrap is no RAFS v6: {0}")]
    NotRafs(&'static str),
    /// A feature that nobody here reads.
    #[error("the image has {0}, which cannot be mounted: mount the image that it was made of")]
    Unsupported(String),
    /// It contradicts itself.
    #[error("the bootstrap is corrupt: {0}")]
    Corrupt(String),
    /// Its inodes.
    #[error("the bootstrap's tree cannot be read")]
    Image(#[from] FormatError),
    /// Its tree.
    #[error("the bootstrap has no tree that can be shown")]
    Tree(#[from] MergeError),
    /// A blob that is somewhere else.
    #[error(
        "the bootstrap has files in blob {0}, which is no layer of the image: only blobs that a registry has can be read"
    )]
    Elsewhere(ContentDigest),
    /// Its chunks.
    #[error("the bootstrap's chunks cannot be laid out")]
    Chunks(#[from] ChunkTableError),
    /// A blob without the chunk.
    #[error("blob {blob} has {length} bytes, and a chunk of it ends at {end}")]
    Short {
        /// Which one.
        blob: ContentDigest,
        /// Bytes in it.
        length: u64,
        /// Where the chunk ends.
        end: u64,
    },
}

fn corrupt(what: impl Into<String>) -> RafsError {
    RafsError::Corrupt(what.into())
}

/// What a bootstrap says.
#[derive(Debug)]
pub struct Rafs {
    /// The tree; its files lie in the spaces of [`Self::blobs`].
    pub tree: TreeBuilder,
    /// Entries that are not in the tree.
    pub left_out: LeftOut,
    /// The newest time in it.
    pub newest: Mtime,
    /// Blobs, by the numbers of their spaces.
    pub blobs: Vec<Blob>,
}

impl Rafs {
    /// Reads a bootstrap.
    pub fn parse(bytes: Bytes) -> Result<Self, RafsError> {
        if bytes.len() as u64 > MAX_BOOTSTRAP {
            return Err(RafsError::TooLong { length: bytes.len() as u64 });
        }
        let tables = Tables::find(&bytes)?;
        let mut blobs = blobs::read(&bytes[tables.blobs.clone()], tables.chunk_size)?;
        chunks::read(&bytes[tables.chunks.clone()], &mut blobs, tables.chunk_size)?;
        let image = Image::open_whole(bytes)?;
        if usize::from(image.spaces()) != blobs.len() || blobs.len() >= MAX_SPACES {
            return Err(corrupt("its devices are not its blobs"));
        }
        let layer = Layer { image: &image, first_space: 0, links: &[], digest: &|_| None };
        let Merged { tree, left_out } = merge(&[layer])?;
        let newest = check_places(&tree, &blobs)?;
        Ok(Self { tree, left_out, newest, blobs })
    }
}

/// Holds the files of a tree against the chunks that they are to lie in; the newest time in it.
fn check_places(tree: &TreeBuilder, blobs: &[Blob]) -> Result<Mtime, RafsError> {
    let mut newest = Mtime::default();
    for id in 0..tree.node_count() {
        let node = tree.node(id);
        newest = newest.max(node.mtime);
        match &node.content {
            Content::File(file) => check_place(file.location, file.length, blobs)?,
            Content::Sparse(file) => {
                let runs = file.runs();
                if runs.iter().map(|run| run.length).sum::<u64>() != file.length() {
                    return Err(corrupt("a file has bytes that lie in no blob"));
                }
                runs.iter().try_for_each(|run| check_place(run.location, run.length, blobs))?;
            }
            _ => {}
        }
    }
    Ok(newest)
}

fn check_place(location: Location, length: u64, blobs: &[Blob]) -> Result<(), RafsError> {
    let Location { space, offset } = location;
    let lies = length == 0
        || blobs.get(usize::from(space)).is_some_and(|blob| blob.covers(offset, length));
    let error = || {
        let digest = blobs.get(usize::from(space)).map(|blob| blob.digest.to_string());
        let blob = digest.unwrap_or_else(|| "that is not there".to_owned());
        corrupt(format!("a file lies at {offset} of blob {blob}, where no chunk is"))
    };
    lies.then_some(()).ok_or_else(error)
}

#[cfg(test)]
mod tests;
