//! Maps of files with holes, in the four ways that tars say them: old GNU (in the header and records
//! behind it), GNU in PAX 0.0 and 0.1 (in the extended header) and 1.0 (in front of the body).

use super::header;
use super::{RECORD, ascii_number};
use crate::tree::{Location, Run, SparseFile};

/// Longest map in front of a body, in records.
const MAX_MAP: usize = 2048;
/// Entries of an old GNU map in a header, and where they begin.
const IN_HEADER: (usize, usize) = (4, 386);
/// The same of a record behind it.
const IN_RECORD: (usize, usize) = (21, 0);
const ENTRY: usize = 24;

/// A part that is not a hole: offset in the file, length.
pub(super) type Piece = (u64, u64);

/// What extended headers say of a file with holes.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub name: Option<Vec<u8>>,
    pub length: Option<u64>,
    major: Option<u64>,
    pieces: Vec<Piece>,
    /// The offset of a piece whose length is not told yet.
    half: Option<u64>,
    any: bool,
}

/// Where the map of a file is.
#[derive(Debug)]
pub(super) enum Source {
    /// Here.
    Told(Vec<Piece>),
    /// In records behind the header.
    Records(Vec<Piece>),
    /// In front of the body.
    Body(TextMap),
}

impl Told {
    pub fn is_any(&self) -> bool {
        self.any
    }

    /// Reads what stands behind `GNU.sparse.`; others are passed over.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let number = || ascii_number(value).ok_or("a number of a sparse file cannot be read");
        self.any = true;
        match key {
            b"name" => self.name = (!value.is_empty()).then(|| value.to_vec()),
            b"size" | b"realsize" => self.length = Some(number()?),
            b"major" => self.major = Some(number()?),
            b"offset" => self.half = Some(number()?),
            b"numbytes" => {
                let at = self.half.take().ok_or("a part of a sparse file has no offset")?;
                self.pieces.push((at, number()?));
            }
            b"map" => {
                let numbers = value.split(|&byte| byte == b',').map(ascii_number);
                let numbers = numbers.collect::<Option<Vec<u64>>>();
                let numbers = numbers.filter(|numbers| numbers.len() % 2 == 0);
                let numbers = numbers.ok_or("the map of a sparse file cannot be read")?;
                self.pieces = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            }
            _ => {}
        }
        Ok(())
    }

    /// Where the map is; a file of format 1.0 has it in front of its body.
    pub fn source(&mut self) -> Source {
        if self.major == Some(1) {
            return Source::Body(TextMap::default());
        }
        Source::Told(std::mem::take(&mut self.pieces))
    }
}

/// The map in an old GNU header; the file's length; whether more records follow.
pub(super) fn of_header(record: &[u8; RECORD]) -> Option<(Vec<Piece>, u64, bool)> {
    let mut pieces = Vec::new();
    read_entries(&record[IN_HEADER.1..], IN_HEADER.0, &mut pieces)?;
    Some((pieces, header::unsigned(&record[483..495])?, record[482] != 0))
}

/// A further record of an old GNU map; whether more follow.
pub(super) fn of_record(record: &[u8; RECORD], pieces: &mut Vec<Piece>) -> Option<bool> {
    read_entries(&record[IN_RECORD.1..], IN_RECORD.0, pieces)?;
    Some(record[504] != 0)
}

fn read_entries(record: &[u8], count: usize, pieces: &mut Vec<Piece>) -> Option<()> {
    for entry in record.chunks_exact(ENTRY).take(count) {
        if entry[12] == 0 {
            break;
        }
        pieces.push((header::unsigned(&entry[..12])?, header::unsigned(&entry[12..])?));
    }
    Some(())
}

/// The map of format 1.0: decimal numbers, each in a line; how many pieces, then offset and length of
/// each, padded to whole records.
#[derive(Debug, Default)]
pub(super) struct TextMap {
    pieces: Vec<Piece>,
    wanted: Option<u64>,
    half: Option<u64>,
    digits: Vec<u8>,
    records: usize,
}

impl TextMap {
    /// Bytes of the body that it took so far.
    pub fn bytes(&self) -> u64 {
        (self.records * RECORD) as u64
    }

    /// Takes the next record; the pieces once it was the last.
    pub fn record(&mut self, record: &[u8]) -> Result<Option<Vec<Piece>>, &'static str> {
        self.records += 1;
        if self.records > MAX_MAP {
            return Err("the map of a sparse file is too long");
        }
        for &byte in record {
            if byte != b'\n' {
                self.digits.push(byte);
                if self.digits.len() > 20 {
                    return Err("the map of a sparse file cannot be read");
                }
                continue;
            }
            let number = ascii_number(&self.digits).filter(|_| !self.digits.is_empty());
            self.digits.clear();
            self.number(number.ok_or("the map of a sparse file cannot be read")?);
            if self.wanted == Some(self.pieces.len() as u64) {
                return Ok(Some(std::mem::take(&mut self.pieces)));
            }
        }
        Ok(None)
    }

    fn number(&mut self, number: u64) {
        match (self.wanted, self.half.take()) {
            (None, _) => self.wanted = Some(number),
            (Some(_), None) => self.half = Some(number),
            (Some(_), Some(at)) => self.pieces.push((at, number)),
        }
    }
}

/// The file whose pieces stand one behind the other from `body_at` on, in at most `packed` bytes.
pub(super) fn file(
    length: u64,
    pieces: &[Piece],
    body_at: u64,
    packed: u64,
) -> Result<SparseFile, &'static str> {
    let mut offset = body_at;
    let mut runs = Vec::with_capacity(pieces.len());
    let end = body_at.saturating_add(packed);
    for &(at, length) in pieces {
        runs.push(Run { at, length, location: Location { space: 0, offset } });
        let next = offset.checked_add(length).filter(|&next| next <= end);
        offset = next.ok_or("the map of a sparse file names more bytes than there are")?;
    }
    SparseFile::new(length, runs).ok_or("the map of a sparse file is out of order")
}
