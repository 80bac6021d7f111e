//! The tree of a layer by its table, and the space that its files lie in.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dfs_model::Transform;
use dfs_source::Timestamp;

use super::TocError;
use super::announced::TABLE_NAME;
use super::pieces::{File, files};
use super::rows::{self, Row};
use crate::chunks::{Chunk, Codec, most_packed};
use crate::erofs::BlockSize;
use crate::placing::{MAX_SPACE, Placing};
use crate::tar::{ScannedTar, attribute, device_number, mode_with, owner};
use crate::tree::{
    Content, FileData, LeftOut, Location, Meta, Mtime, PendingLink, TreeBuilder, Xattrs,
};
use crate::unpack::Limits;

/// How some writers say that there is no time.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// What the writers of eStargz add: where what is to be fetched first ends, and the table.
const OF_THE_FORMAT: [&[u8]; 3] = [b".prefetch.landmark", b".no.prefetch.landmark", TABLE_NAME];

/// A layer as its table has it.
#[derive(Debug)]
pub struct LayerByTable {
    /// The tree; its files lie in space 0, the chunks.
    pub tree: TreeBuilder,
    /// The newest time in it.
    pub newest: Mtime,
    /// Entries that are not in the tree, the first of them.
    pub left_out: LeftOut,
    /// Hard links to what lower layers have.
    pub links: Vec<PendingLink>,
    /// What the space is made of.
    pub chunks: Vec<Chunk>,
    /// Bytes of the space.
    pub length: u64,
}

impl LayerByTable {
    /// Reads the JSON of a table that begins at `end` of a layer so packed, behind all pieces.
    pub fn read(json: &[u8], packed: Transform, end: u64) -> Result<Self, TocError> {
        let rows = rows::read(json)?;
        let files = files(&rows)?;
        let space = Laid::of(files, packed, end)?;
        let mut placing = Placing::default();
        for (number, row) in rows.iter().enumerate() {
            put(&mut placing, row, space.places.get(&number).copied())?;
        }
        let links = placing.finish_layer();
        let Placing { tree, newest, left_out, .. } = placing;
        let Laid { chunks, length, .. } = space;
        Ok(Self { tree, newest, left_out, links, chunks, length })
    }

    /// Without what the writers of eStargz put beside what the image has.
    pub(super) fn without_landmarks(mut self) -> Self {
        for name in OF_THE_FORMAT {
            self.tree.remove(name);
        }
        self
    }

    /// As what was found in the layer's tar, with the links to what lower layers have.
    pub(crate) fn scanned(self) -> (ScannedTar, Vec<PendingLink>) {
        let Self { tree, newest, left_out, links, .. } = self;
        (ScannedTar { tree, newest, parts: Vec::new(), parts_length: 0, left_out }, links)
    }
}

/// The files of a layer side by side, in the order in which they lie in the layer.
struct Laid {
    chunks: Vec<Chunk>,
    /// Where a file begins, by the number of its row.
    places: BTreeMap<usize, u64>,
    length: u64,
}

impl Laid {
    fn of(mut files: Vec<File<'_>>, packed: Transform, end: u64) -> Result<Self, TocError> {
        let extents = extents(&files, end)?;
        files.sort_by_key(|file| file.pieces.first().map_or((u64::MAX, 0), |p| (p.from, p.inner)));
        let codec = if packed == Transform::Unzstd { Codec::Zstd } else { Codec::Gzip };
        let (mut chunks, mut places, mut length) = (Vec::new(), BTreeMap::new(), 0u64);
        for file in &files {
            let at = length.next_multiple_of(BlockSize::B512.bytes());
            length = at
                .checked_add(file.length)
                .filter(|&length| length <= MAX_SPACE)
                .ok_or(TocError::TooMuch("bytes"))?;
            places.insert(file.row, at);
            chunks.extend(file.pieces.iter().map(|piece| Chunk {
                offset: at + piece.offset,
                length: piece.length as u32,
                from: piece.from,
                packed: extents.get(&piece.from).copied().unwrap_or_default(),
                skip: piece.inner as u32,
                codec,
                digest: piece.digest,
            }));
        }
        Limits::default().admit(end, length)?;
        Ok(Self { chunks, places, length })
    }
}

/// Packed bytes of each member or frame that has pieces, by where it begins: those up to the next one at most.
fn extents(files: &[File<'_>], end: u64) -> Result<BTreeMap<u64, u32>, TocError> {
    let mut unpacked = BTreeMap::new();
    for piece in files.iter().flat_map(|file| &file.pieces) {
        let most = unpacked.entry(piece.from).or_insert(0);
        *most = piece.unpacked().max(*most);
    }
    if unpacked.last_key_value().is_some_and(|(&last, _)| last >= end) {
        return Err(TocError::Table("a piece lies behind all of them"));
    }
    let ends = unpacked.keys().copied().skip(1).chain([end]);
    let extents = unpacked.iter().zip(ends).map(|((&from, &unpacked), end)| {
        // What is unpacked is short, and so is what it is packed in.
        (from, (end - from).min(most_packed(unpacked)) as u32)
    });
    Ok(extents.collect())
}

/// Puts an entry in its place, as the scan of a tar does.
fn put(placing: &mut Placing, row: &Row<'_>, place: Option<u64>) -> Result<(), TocError> {
    let path = row.name.as_bytes();
    let device = || device_number(row.dev_major, row.dev_minor);
    let content = match &*row.kind {
        "chunk" => return Ok(()),
        "hardlink" => return Ok(placing.link(path, row.link_name.as_bytes())?),
        "reg" if path.last() == Some(&b'/') => Content::Directory,
        "reg" => {
            let location = Location { space: 0, offset: place.unwrap_or_default() };
            Content::File(FileData { length: row.size, location, digest: None })
        }
        "dir" => Content::Directory,
        "symlink" => Content::Symlink(row.link_name.as_bytes().to_vec()),
        "char" => Content::CharDevice(device()),
        "block" => Content::BlockDevice(device()),
        "fifo" => Content::Fifo,
        _ => return Err(TocError::Table("an entry is of a kind that is not known")),
    };
    Ok(placing.put(path, meta(row)?, content)?)
}

fn meta(row: &Row<'_>) -> Result<Meta, TocError> {
    let mut xattrs = Xattrs::new();
    for (name, value) in row.xattrs.iter().flatten() {
        let value = STANDARD.decode(value.as_deref().unwrap_or_default());
        let value = value.map_err(|_| TocError::Table("an extended attribute cannot be read"))?;
        if let Some(name) = attribute(name.as_bytes(), &value) {
            xattrs.insert(name, value);
        }
    }
    let mtime = match row.modtime.as_deref().unwrap_or_default() {
        "" | NEVER => Mtime::default(),
        text => {
            let time = Timestamp::of_iso(text);
            let Timestamp { seconds, nanos } =
                time.ok_or(TocError::Table("a time cannot be read"))?;
            Mtime { secs: seconds, nanos }
        }
    };
    let mode = mode_with(&xattrs, (row.mode & 0o7777) as u16);
    Ok(Meta { mode, uid: owner(row.uid), gid: owner(row.gid), mtime, xattrs })
}
