//! The tree inside an archive: of a tar the headers are read and the bodies skipped, of a zip the directory
//! is read. A compressed tar is unpacked once, into a task of its own.

use std::sync::Arc;

use dfs_model::{ByteRange, Transform};
use dfs_source::{SourceError, Sources};
use futures::TryStreamExt as _;

use super::{Artifact, Context, Planned, ResolveError, zip};
use crate::erofs::BlockSize;
use crate::origin::{Forward, Origin, open_origin};
use crate::parts::PartTable;
use crate::recipe::{OriginRecipe, Recipe};
use crate::tar::{RECORD, ScannedTar, TarScan, is_tar};
use crate::unpack::{Limits, Unpacker, transform_of};
use crate::zip::{Directory, ZipError, may_be_zip};

/// Bytes of the beginning that tell what something is: what a compressor takes before it gives the first
/// record. zstd gives nothing of a block of up to 128 KiB before it has all of it.
const BEGINNING: u64 = 132 * 1024;

/// What the beginning of a content shows it to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// A tar.
    Tar,
    /// A tar, compressed.
    Packed(Transform),
    /// A zip with its directory there.
    Zip(Directory),
    /// It begins as a zip and is none that can be read.
    BrokenZip(ZipError),
    /// Something else.
    Other,
}

/// Looks at the first bytes of `length`.
pub(super) async fn look(origin: &Arc<dyn Origin>, length: u64) -> Result<Shown, SourceError> {
    let mut first = beginning(&**origin, length, RECORD as u64).await?;
    if is_tar(&first) {
        return Ok(Shown::Tar);
    }
    if may_be_zip(&first) {
        return Ok(match zip::find(Arc::clone(origin), length).await? {
            Ok(directory) => Shown::Zip(directory),
            Err(error) if first.starts_with(b"PK") => Shown::BrokenZip(error),
            Err(_) => Shown::Other,
        });
    }
    let Some(transform) = transform_of(&first) else { return Ok(Shown::Other) };
    let Some(mut unpacker) = Unpacker::new(transform, Limits::default()) else {
        return Ok(Shown::Other);
    };
    if length > first.len() as u64 {
        first = beginning(&**origin, length, BEGINNING).await?;
    }
    let (mut input, mut out) = (&first[..], Vec::new());
    // What is broken here is no tar.
    while out.len() < RECORD && unpacker.step(&mut input, &mut out).is_ok_and(|more| more) {}
    Ok(if is_tar(&out) { Shown::Packed(transform) } else { Shown::Other })
}

/// The first `wanted` bytes, fewer where there are fewer.
async fn beginning(origin: &dyn Origin, length: u64, wanted: u64) -> Result<Vec<u8>, SourceError> {
    let wanted = wanted.min(length) as usize;
    let mut first = Vec::with_capacity(wanted);
    if wanted == 0 {
        return Ok(first);
    }
    // An origin without ranges begins its whole answer, of which the rest is left.
    let range = origin.ranges().then(|| ByteRange::new(0, wanted as u64));
    let mut stream = origin.read(range).await?;
    while first.len() < wanted {
        let Some(bytes) = stream.try_next().await? else { break };
        first.extend_from_slice(&bytes[..bytes.len().min(wanted - first.len())]);
    }
    Ok(first)
}

impl Context<'_> {
    /// The bytes of a task, kept where there is somebody to keep them.
    pub(super) async fn open(
        &self,
        recipe: &Recipe,
        sources: &Sources,
    ) -> Result<Arc<dyn Origin>, SourceError> {
        match &self.options.opener {
            Some(opener) => opener.open(recipe).await,
            None => open_origin(recipe, sources, self.target.credentials.clone()),
        }
    }

    /// The tree inside a compressed tar. Its length is known once all of it was unpacked.
    pub(super) async fn packed_tar(
        &self,
        blob: Recipe,
        transform: Transform,
        sources: &Sources,
    ) -> Result<Artifact, ResolveError> {
        let mut recipe = Recipe { length: None, ..blob };
        recipe.key.transform = transform;
        let origin = self.open(&recipe, sources).await?;
        let length = origin.known_length().await?;
        recipe.length = Some(length);
        self.tar(recipe, origin, length).await
    }

    pub(super) async fn tar(
        &self,
        recipe: Recipe,
        origin: Arc<dyn Origin>,
        length: u64,
    ) -> Result<Artifact, ResolveError> {
        let tar = |source| ResolveError::Tar { url: self.url(), source };
        let mut reader = Forward::new(origin, length);
        let mut scan = TarScan::new(length);
        while let Some(wanted) = scan.wanted() {
            let bytes = reader.read(wanted).await?;
            scan.feed(&bytes).map_err(tar)?;
        }
        let ScannedTar { tree, newest, parts, parts_length, left_out } =
            scan.finish().map_err(tar)?;
        let mut tasks = vec![recipe];
        if !parts.is_empty() {
            tasks.push(self.parts(&tasks[0], length, parts_length, parts)?);
        }
        let block_size = BlockSize::B512;
        let image = None;
        self.finish(Planned { tree, block_size, build_time: newest, tasks, left_out, image }).await
    }

    /// A space of `length` bytes put together from parts of an archive.
    pub(super) fn parts(
        &self,
        archive: &Recipe,
        archive_length: u64,
        length: u64,
        parts: Vec<crate::parts::Part>,
    ) -> Result<Recipe, ResolveError> {
        let OriginRecipe::Url { place, ranges } = archive.origin.clone() else {
            return Err(ResolveError::NoTree(self.url()));
        };
        let (version, transform) = (archive.key.validator.clone(), archive.key.transform);
        let table = PartTable::new(version, transform, archive_length, length, parts);
        let table = table.map_err(|source| ResolveError::Parts { url: self.url(), source })?;
        let key = archive.key_inside(table.digest(), length);
        let origin = OriginRecipe::Parts { place, ranges, table: Arc::new(table) };
        Ok(Recipe { key, length: Some(length), origin })
    }
}
