//! The files of a table, each with its pieces.

use super::TocError;
use super::rows::Row;
use crate::chunks::{ChunkDigest, LONGEST_CHUNK};
use crate::image::ContentDigest;

/// A regular file that is not empty.
#[derive(Debug)]
pub(super) struct File<'a> {
    /// The number of its row.
    pub row: usize,
    path: &'a str,
    pub length: u64,
    /// Bytes that pieces and zeros cover so far.
    covered: u64,
    /// Ascending; zeros lie between them.
    pub pieces: Vec<Piece>,
}

/// Bytes of a file that lie together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// Where they begin in the file.
    pub offset: u64,
    /// How many; never 0.
    pub length: u64,
    /// Where the member or frame that they are in begins in the layer.
    pub from: u64,
    /// Bytes of that before them.
    pub inner: u64,
    pub digest: ChunkDigest,
}

impl Piece {
    /// Bytes that are unpacked to have it.
    pub fn unpacked(&self) -> u64 {
        self.inner + self.length
    }
}

/// The regular files of a table that are not empty.
pub(super) fn files<'a>(rows: &'a [Row<'a>]) -> Result<Vec<File<'a>>, TocError> {
    let mut files: Vec<File<'a>> = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let whole = match &*row.kind {
            "reg" if row.size > 0 => {
                let (path, length) = (&*row.name, row.size);
                files.push(File { row: number, path, length, covered: 0, pieces: Vec::new() });
                let is_one = row.chunk_size == 0 || row.chunk_size == row.size;
                if is_one { &*row.digest } else { "" }
            }
            "chunk" => "",
            _ => continue,
        };
        let file = files.last_mut().filter(|file| row.name.is_empty() || row.name == file.path);
        file.ok_or(TocError::Table("a piece belongs to no file"))?.add(row, whole)?;
    }
    let is_whole = |file: &File<'_>| file.covered == file.length;
    if !files.iter().all(is_whole) {
        return Err(TocError::Table("a file lacks pieces"));
    }
    Ok(files)
}

impl File<'_> {
    /// The next piece: behind the one before, within the file, to its end where no size is given.
    fn add(&mut self, row: &Row<'_>, whole: &str) -> Result<(), TocError> {
        let left = self.length - self.covered;
        let length = if row.chunk_size == 0 { left } else { row.chunk_size };
        if row.chunk_offset != self.covered || length == 0 || length > left {
            return Err(TocError::Table("the pieces of a file do not follow each other"));
        }
        let offset = self.covered;
        self.covered += length;
        match &*row.chunk_type {
            "" => {}
            "zeros" => return Ok(()),
            _ => return Err(TocError::Table("a piece is of a kind that is not known")),
        }
        let digest = if row.chunk_digest.is_empty() { whole } else { &row.chunk_digest };
        let Ok(ContentDigest::Sha256(digest)) = digest.parse() else {
            return Err(TocError::Table("a piece has no SHA-256"));
        };
        let end = row.inner_offset.checked_add(length);
        if end.is_none_or(|end| end > LONGEST_CHUNK) {
            return Err(TocError::Table("a piece is longer than what is unpacked at a time"));
        }
        let (from, inner, digest) = (row.offset, row.inner_offset, ChunkDigest::Sha256(digest));
        self.pieces.push(Piece { offset, length, from, inner, digest });
        Ok(())
    }
}
