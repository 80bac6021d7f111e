//! Tables of contents that some image builders put at the end of a layer: eStargz (gzip) and zstd:chunked.
//!
//! Each piece of a file begins a member or frame of its own, so that it is had without what lies before. The
//! tables do not say where it lies in the tar: the content of these checkpoints is what they name, side by
//! side in the order of the stream, without the tar's headers and padding.
//!
//! A table is to be held against the digest that the image's manifest has of it: of the JSON for eStargz, of
//! the compressed table for zstd:chunked. Paths are as the table has them: whoever makes a tree checks them.

use std::borrow::Cow;

use dfs_model::{ByteRange, Transform};
use serde::Deserialize;

use super::checkpoints::{Checkpoint, CheckpointError, Checkpoints, Entry, Runs};
use super::{Limits, UnpackError, Unpacker};
use crate::encoding::take_u64;

/// Bytes at the very end of a layer that tell whether it has a table; of a shorter one all of them.
pub const TAIL: usize = 8 + 64;

/// Longest compressed table, in bytes.
const LONGEST: u64 = 64 << 20;
/// What a table may unfold to.
const UNFOLDED: Limits = Limits { length: 128 << 20, ratio: 250, free: 32 << 20 };
/// Most objects in the JSON of a table: an entry takes a few hundred bytes of memory.
const MOST_OBJECTS: usize = 1 << 20;
/// Name of the table in the tar of an eStargz layer.
const NAME: &[u8] = b"stargz.index.json";

/// Where the table of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What the layer is unpacked by.
    pub transform: Transform,
    /// The bytes of the layer to be given to [`Self::json`].
    pub range: ByteRange,
}

/// What a table says of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Regular files that are not empty, in the table's order.
    pub files: Vec<File>,
    /// Where their pieces are begun from.
    pub checkpoints: Checkpoints,
}

/// A regular file of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path as the table has it.
    pub path: String,
    /// Bytes in it; never 0.
    pub length: u64,
    /// Its pieces, ascending; zeros lie between them.
    pub pieces: Vec<Piece>,
}

/// Bytes of a file that lie together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where they begin in the file.
    pub offset: u64,
    /// How many; never 0.
    pub length: u64,
    /// Where they begin in the content of [`Contents::checkpoints`].
    pub at: u64,
    /// Their digest, or that of the file if it has no other piece.
    pub digest: Option<String>,
}

/// Why a table of contents is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    /// The end of the layer names a table that cannot be there.
    #[error("the layer's table of contents lies outside of it")]
    Bounds,
    /// It cannot be unpacked.
    #[error("the layer's table of contents cannot be unpacked")]
    Unpack(#[from] UnpackError),
    /// It is not what it should be.
    #[error("the layer's table of contents is not one: {0}")]
    Table(&'static str),
    /// Its JSON is none.
    #[error("the layer's table of contents is not JSON as it should be: {0}")]
    Json(String),
    /// Its places are none.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
}

/// Where the table is of a layer of `length` bytes that ends in `tail`; `None` where it has none.
pub fn find(tail: &[u8], length: u64) -> Result<Option<Found>, ContentsError> {
    let found = stargz(tail, length).or_else(|| chunked(tail));
    let Some((transform, start, end)) = found else { return Ok(None) };
    let lies_inside = start > 0 && start < end && end <= length && end - start <= LONGEST;
    let range = ByteRange::new(start, end);
    if lies_inside { Ok(Some(Found { transform, range })) } else { Err(ContentsError::Bounds) }
}

/// The footer of eStargz, an empty member whose extra field has the table's offset, and that of its elder.
fn stargz(tail: &[u8], length: u64) -> Option<(Transform, u64, u64)> {
    const BEGIN: &[u8] = &[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0];
    const FIELD: usize = 16 + 6;
    const END: &[u8] = &[1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
    let extra: [&[u8]; 2] = [&[26, 0, b'S', b'G', 22, 0], &[22, 0]];
    let field = extra.into_iter().find_map(|extra| {
        let footer = BEGIN.len() + 1 + extra.len() + FIELD + END.len();
        let rest = tail.get(tail.len().checked_sub(footer)?..)?.strip_prefix(BEGIN)?;
        // The operating system differs.
        let rest = rest.get(1..)?.strip_prefix(extra)?.strip_suffix(END)?;
        Some((rest.strip_suffix(b"STARGZ")?, footer as u64))
    });
    let (digits, footer) = field?;
    let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_hex)?;
    let start = u64::from_str_radix(digits, 16).ok()?;
    Some((Transform::Gunzip, start, length.checked_sub(footer)?))
}

/// The footer of zstd:chunked, in a frame to be skipped: as containers/storage writes it, and stargz-snapshotter.
fn chunked(tail: &[u8]) -> Option<(Transform, u64, u64)> {
    [(64, b"GNUlInUx"), (40, b"GnUlInUx"), (40, b"GNUlInUx")].into_iter().find_map(
        |(bytes, magic)| {
            let rest = tail.get(tail.len().checked_sub(8 + bytes)?..)?;
            let rest = rest.strip_prefix(&[0x50, 0x2a, 0x4d, 0x18, bytes as u8, 0, 0, 0])?;
            let mut rest = rest.strip_suffix(magic)?;
            let (start, length) = (take_u64(&mut rest)?, take_u64(&mut rest)?);
            Some((Transform::Unzstd, start, start.saturating_add(length)))
        },
    )
}

impl Found {
    /// The JSON of the table, from the bytes of [`Self::range`].
    pub fn json(&self, table: &[u8]) -> Result<Vec<u8>, ContentsError> {
        let unpacked = unpacked(self.transform, table)?;
        match self.transform {
            Transform::Gunzip => in_tar(unpacked),
            Transform::Identity | Transform::Unzstd => Ok(unpacked),
        }
    }

    /// Reads the JSON of the table.
    pub fn contents(&self, json: &[u8]) -> Result<Contents, ContentsError> {
        if json.iter().filter(|&&byte| byte == b'{').count() > MOST_OBJECTS {
            return Err(ContentsError::Table("it has more entries than are read"));
        }
        let table: Table<'_> =
            serde_json::from_slice(json).map_err(|error| ContentsError::Json(error.to_string()))?;
        if table.version != 1 {
            return Err(ContentsError::Table("its version is not 1"));
        }
        let mut files = files(&table.entries)?;
        let checkpoints = self.place(&mut files)?;
        let files = files.into_iter().map(Draft::finish).collect();
        Ok(Contents { files, checkpoints })
    }

    /// Lays the pieces out side by side, in the order of the stream.
    fn place(&self, files: &mut [Draft<'_>]) -> Result<Checkpoints, ContentsError> {
        let mut pieces: Vec<_> = files.iter_mut().flat_map(|file| &mut file.pieces).collect();
        pieces.sort_by_key(|piece| (piece.packed, piece.inner));
        let (mut points, mut end) = (Vec::new(), 0u64);
        for member in pieces.chunk_by_mut(|a, b| a.packed == b.packed) {
            let (packed, at) = (member[0].packed, end);
            points.push(Checkpoint { packed, at, entry: Entry::Start });
            for piece in member {
                let place = at.checked_add(piece.inner);
                let until = place.and_then(|place| place.checked_add(piece.length));
                let (place, until) = place.zip(until).ok_or(CheckpointError::Order)?;
                piece.at = place;
                end = end.max(until);
            }
        }
        let lengths = (self.range.start, end);
        Ok(Checkpoints::new(self.transform, Runs::Apart, lengths, points)?)
    }
}

fn unpacked(transform: Transform, mut table: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let cannot = || UnpackError::Corrupt("it cannot be unpacked".to_owned());
    let mut unpacker = Unpacker::new(transform, UNFOLDED).ok_or_else(cannot)?;
    let mut out = Vec::new();
    while unpacker.step(&mut table, &mut out)? || !table.is_empty() {}
    unpacker.finish().map(|()| out)
}

/// The table of eStargz is a file of the tar, behind a header of one record.
fn in_tar(mut tar: Vec<u8>) -> Result<Vec<u8>, ContentsError> {
    let length = || {
        let name = tar.get(..100)?.split(|&byte| byte == 0).next();
        let digits = std::str::from_utf8(tar.get(124..136)?).ok()?;
        let digits = digits.trim_matches(['\0', ' ']);
        usize::from_str_radix(digits, 8).ok().filter(|_| name == Some(NAME))
    };
    let length = length().filter(|&length| length <= tar.len().saturating_sub(512));
    let length = length.ok_or(ContentsError::Table("its tar does not begin with it"))?;
    tar.drain(..512);
    tar.truncate(length);
    Ok(tar)
}

#[derive(Deserialize)]
struct Table<'a> {
    version: u64,
    #[serde(borrow)]
    entries: Vec<Row<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    inner_offset: u64,
    #[serde(default)]
    chunk_offset: u64,
    #[serde(default)]
    chunk_size: u64,
    #[serde(borrow, default)]
    chunk_type: Cow<'a, str>,
    #[serde(borrow, default)]
    chunk_digest: Cow<'a, str>,
    #[serde(borrow, default)]
    digest: Cow<'a, str>,
}

/// A file whose pieces are being collected.
struct Draft<'a> {
    path: &'a str,
    length: u64,
    /// Bytes that pieces and zeros cover so far.
    covered: u64,
    pieces: Vec<DraftPiece<'a>>,
}

struct DraftPiece<'a> {
    offset: u64,
    length: u64,
    packed: u64,
    inner: u64,
    digest: &'a str,
    at: u64,
}

impl<'a> Draft<'a> {
    /// The next piece: behind the one before, within the file, to its end where no size is given.
    fn add(&mut self, row: &'a Row<'a>, whole: &'a str) -> Result<(), ContentsError> {
        let left = self.length - self.covered;
        let length = if row.chunk_size == 0 { left } else { row.chunk_size };
        if row.chunk_offset != self.covered || length == 0 || length > left {
            return Err(ContentsError::Table("the pieces of a file do not follow each other"));
        }
        self.covered += length;
        match &*row.chunk_type {
            "" => self.pieces.push(DraftPiece {
                offset: row.chunk_offset,
                length,
                packed: row.offset,
                inner: row.inner_offset,
                digest: if row.chunk_digest.is_empty() { whole } else { &row.chunk_digest },
                at: 0,
            }),
            "zeros" => {}
            _ => return Err(ContentsError::Table("a piece is of a kind that is not known")),
        }
        Ok(())
    }

    fn finish(self) -> File {
        let piece = |piece: DraftPiece<'_>| Piece {
            offset: piece.offset,
            length: piece.length,
            at: piece.at,
            digest: Some(piece.digest).filter(|digest| !digest.is_empty()).map(str::to_owned),
        };
        let pieces = self.pieces.into_iter().map(piece).collect();
        File { path: self.path.to_owned(), length: self.length, pieces }
    }
}

/// The regular files of a table, each with what is said of its pieces.
fn files<'a>(rows: &'a [Row<'a>]) -> Result<Vec<Draft<'a>>, ContentsError> {
    let mut files: Vec<Draft<'a>> = Vec::new();
    for row in rows {
        let whole = match &*row.kind {
            "reg" if row.size > 0 => {
                let (path, length) = (&*row.name, row.size);
                files.push(Draft { path, length, covered: 0, pieces: Vec::new() });
                let is_one = row.chunk_size == 0 || row.chunk_size == row.size;
                if is_one { &*row.digest } else { "" }
            }
            "chunk" => "",
            _ => continue,
        };
        let file = files.last_mut().filter(|file| row.name.is_empty() || row.name == file.path);
        file.ok_or(ContentsError::Table("a piece belongs to no file"))?.add(row, whole)?;
    }
    let is_whole = |file: &Draft<'_>| file.covered == file.length;
    if !files.iter().all(is_whole) {
        return Err(ContentsError::Table("a file lacks pieces"));
    }
    Ok(files)
}
