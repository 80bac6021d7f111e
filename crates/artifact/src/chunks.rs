//! The table of a space that is chunks of a blob, each with its digest, as tables of contents of images have them. Zeros lie
//! between them.
//!
//! Its canonical encoding is frozen: the BLAKE3 of it is the space's validator. The blob's own version is part of it, and
//! pins every read.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dfs_model::{ByteRange, Validator};
use dfs_source::oci::ContentDigest;
use serde::{Deserialize, Serialize};

use crate::encoding::{put_validator, take, take_u32, take_u64, take_validator};

const TAG: &[u8; 16] = b"dfs.chunks.v1\0\0\0";
/// Longest chunk, unpacked, with what is unpacked before it, in bytes.
pub const LONGEST_CHUNK: u64 = 16 << 20;
/// Most packed bytes of a chunk: what no compressor makes longer than this.
pub const LONGEST_PACKED: u64 = most_packed(LONGEST_CHUNK);
/// Most chunks of a table.
pub const MOST_CHUNKS: usize = 1 << 20;
/// Bytes of a chunk in the encoding.
const CHUNK_BYTES: usize = 2 * 8 + 3 * 4 + 2 + 32;

/// Bytes that so many take at most, however badly they are packed.
pub const fn most_packed(unpacked: u64) -> u64 {
    unpacked + unpacked / 128 + 64 * 1024
}

/// How a chunk's bytes are packed in the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// They stand there as they are.
    Stored,
    /// Members of gzip.
    Gzip,
    /// Frames of zstd.
    Zstd,
    /// One block of LZ4, without a frame.
    Lz4,
}

/// What a chunk is held against.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkDigest {
    /// SHA-256 of its bytes.
    Sha256([u8; 32]),
    /// BLAKE3 of them.
    Blake3([u8; 32]),
}

impl ChunkDigest {
    /// The digest of these bytes by the same algorithm.
    pub fn like(&self, bytes: &[u8]) -> Self {
        match (self, ContentDigest::sha256(bytes)) {
            (Self::Sha256(_), ContentDigest::Sha256(digest)) => Self::Sha256(digest),
            _ => Self::Blake3(*blake3::hash(bytes).as_bytes()),
        }
    }
}

impl fmt::Display for ChunkDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(bytes) => ContentDigest::Sha256(*bytes).fmt(f),
            Self::Blake3(bytes) => write!(f, "blake3:{}", blake3::Hash::from_bytes(*bytes)),
        }
    }
}

impl fmt::Debug for ChunkDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One chunk of a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins in the space, in bytes.
    pub offset: u64,
    /// Bytes in it; never 0.
    pub length: u32,
    /// Where its packed bytes begin in the blob.
    pub from: u64,
    /// Packed bytes from there on that are enough to have it.
    pub packed: u32,
    /// Unpacked bytes from there on that come before it.
    pub skip: u32,
    /// How they are packed.
    pub codec: Codec,
    /// What it is held against.
    pub digest: ChunkDigest,
}

impl Chunk {
    /// Its place in the space.
    pub fn range(&self) -> ByteRange {
        ByteRange::at(self.offset, self.length.into())
    }

    /// Where its packed bytes lie in the blob.
    pub fn extent(&self) -> ByteRange {
        ByteRange::at(self.from, self.packed.into())
    }

    /// Bytes that are unpacked to have it.
    pub fn unpacked(&self) -> u64 {
        u64::from(self.skip) + u64::from(self.length)
    }

    /// What is wrong with it in a blob of so many bytes.
    fn fault(&self, blob_length: u64) -> Option<ChunkTableError> {
        let unpacked = self.unpacked();
        let is_long = unpacked > LONGEST_CHUNK || u64::from(self.packed) > LONGEST_PACKED;
        let end = self.from.checked_add(self.packed.into());
        let lies_outside = end.is_none_or(|end| end > blob_length);
        let is_short = self.codec == Codec::Stored && u64::from(self.packed) < unpacked;
        if is_long {
            return Some(ChunkTableError::TooLong);
        }
        (lies_outside || is_short || self.length == 0 || self.packed == 0)
            .then_some(ChunkTableError::Order)
    }
}

/// The chunks of a space, ascending and apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ChunkTable {
    /// The version of the blob.
    pub blob: Validator,
    /// Bytes of the blob.
    pub blob_length: u64,
    length: u64,
    chunks: Vec<Chunk>,
}

/// Why a table is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkTableError {
    /// The bytes are not its encoding.
    #[error("the chunk table is cut off or not one at all")]
    Encoding,
    /// Chunks overlap, are out of order, empty or lie outside.
    #[error("the chunks of the table overlap, are out of order or lie outside of their blob")]
    Order,
    /// A chunk that is longer than what is unpacked at a time.
    #[error("a chunk of the table is longer than the 16 MiB that are unpacked at a time")]
    TooLong,
    /// More of them than are taken.
    #[error("the table has more than 1048576 chunks")]
    TooMany,
}

impl ChunkTable {
    /// Takes chunks of a space of `length` bytes in ascending order.
    pub fn new(
        blob: Validator,
        blob_length: u64,
        length: u64,
        chunks: Vec<Chunk>,
    ) -> Result<Self, ChunkTableError> {
        if chunks.len() > MOST_CHUNKS {
            return Err(ChunkTableError::TooMany);
        }
        let mut end = 0;
        for chunk in &chunks {
            if let Some(fault) = chunk.fault(blob_length) {
                return Err(fault);
            }
            let next = chunk.offset.checked_add(chunk.length.into());
            end = next.filter(|_| chunk.offset >= end).ok_or(ChunkTableError::Order)?;
        }
        if end > length {
            return Err(ChunkTableError::Order);
        }
        Ok(Self { blob, blob_length, length, chunks })
    }

    /// The chunks in the order of their offsets.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Bytes of the space.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// BLAKE3 of the canonical encoding, in hexadecimal digits: the ETag of the space.
    pub fn digest(&self) -> String {
        blake3::hash(&self.encode()).to_hex().to_string()
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = TAG.to_vec();
        put_validator(&mut out, &self.blob);
        for number in [self.blob_length, self.length, self.chunks.len() as u64] {
            out.extend(number.to_le_bytes());
        }
        out.reserve(self.chunks.len() * CHUNK_BYTES);
        for chunk in &self.chunks {
            put_chunk(&mut out, chunk);
        }
        out
    }

    /// Reads the canonical encoding; no other bytes are taken.
    pub fn decode(bytes: &[u8]) -> Result<Self, ChunkTableError> {
        let read = || {
            let mut rest = bytes.strip_prefix(TAG)?;
            let blob = take_validator(&mut rest)?;
            let (blob_length, length) = (take_u64(&mut rest)?, take_u64(&mut rest)?);
            let count = usize::try_from(take_u64(&mut rest)?).ok()?;
            if count.checked_mul(CHUNK_BYTES) != Some(rest.len()) {
                return None;
            }
            let chunks = (0..count).map(|_| take_chunk(&mut rest)).collect::<Option<Vec<_>>>()?;
            Some(Self::new(blob, blob_length, length, chunks))
        };
        let table = read().ok_or(ChunkTableError::Encoding)??;
        // Booleans and absent fields have one spelling each.
        if table.encode() != bytes {
            return Err(ChunkTableError::Encoding);
        }
        Ok(table)
    }
}

fn put_chunk(out: &mut Vec<u8>, chunk: &Chunk) {
    let Chunk { offset, length, from, packed, skip, codec, digest } = chunk;
    out.extend(offset.to_le_bytes());
    out.extend(from.to_le_bytes());
    for number in [length, packed, skip] {
        out.extend(number.to_le_bytes());
    }
    out.push(match codec {
        Codec::Stored => 0,
        Codec::Gzip => 1,
        Codec::Zstd => 2,
        Codec::Lz4 => 3,
    });
    let (algorithm, digest) = match digest {
        ChunkDigest::Sha256(digest) => (0, digest),
        ChunkDigest::Blake3(digest) => (1, digest),
    };
    out.push(algorithm);
    out.extend(digest);
}

fn take_chunk(rest: &mut &[u8]) -> Option<Chunk> {
    let (offset, from) = (take_u64(rest)?, take_u64(rest)?);
    let (length, packed, skip) = (take_u32(rest)?, take_u32(rest)?, take_u32(rest)?);
    let codec = match take(rest, 1)?[0] {
        0 => Codec::Stored,
        1 => Codec::Gzip,
        2 => Codec::Zstd,
        3 => Codec::Lz4,
        _ => return None,
    };
    let algorithm = take(rest, 1)?[0];
    let digest = *take(rest, 32)?.first_chunk()?;
    let digest = match algorithm {
        0 => ChunkDigest::Sha256(digest),
        1 => ChunkDigest::Blake3(digest),
        _ => return None,
    };
    Some(Chunk { offset, length, from, packed, skip, codec, digest })
}

impl From<ChunkTable> for String {
    fn from(table: ChunkTable) -> Self {
        STANDARD.encode(table.encode())
    }
}

impl TryFrom<String> for ChunkTable {
    type Error = ChunkTableError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::decode(&STANDARD.decode(text).map_err(|_| ChunkTableError::Encoding)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(offset: u64, length: u32, codec: Codec) -> Chunk {
        let digest = ChunkDigest::Sha256([7; 32]);
        Chunk { offset, length, from: 30, packed: length, skip: 0, codec, digest }
    }

    fn table() -> ChunkTable {
        let blake3 = ChunkDigest::Blake3([9; 32]);
        let chunks = vec![
            chunk(0, 5, Codec::Gzip),
            Chunk { skip: 5, ..chunk(512, 9, Codec::Gzip) },
            chunk(521, 9, Codec::Stored),
            chunk(1024, 30, Codec::Zstd),
            Chunk { digest: blake3, ..chunk(1060, 9, Codec::Lz4) },
        ];
        let blob = Validator { etag: Some("\"1\"".into()), ..Validator::default() };
        ChunkTable::new(blob, 100, 1100, chunks).unwrap()
    }

    #[test]
    fn the_encoding_reads_back_and_is_frozen() {
        let table = table();
        assert_eq!(ChunkTable::decode(&table.encode()), Ok(table.clone()));
        assert_eq!(
            table.digest(),
            "2a35e81584613fe8e59adc658d176e2d423f72cad915125a3bdd17384b8fd0e2"
        );
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<ChunkTable>(&text).unwrap(), table);
    }

    #[test]
    fn chunks_that_overlap_or_lie_outside_are_refused() {
        let made = |chunks| ChunkTable::new(Validator::default(), 50, 100, chunks);
        let refused = |chunks| made(chunks) == Err(ChunkTableError::Order);
        assert!(refused(vec![chunk(0, 5, Codec::Gzip), chunk(4, 1, Codec::Gzip)]));
        assert!(refused(vec![chunk(99, 2, Codec::Gzip)]));
        assert!(refused(vec![chunk(0, 0, Codec::Gzip)]));
        assert!(refused(vec![chunk(0, 21, Codec::Gzip)]));
        assert!(refused(vec![Chunk { packed: 4, ..chunk(0, 5, Codec::Stored) }]));
        assert!(refused(vec![Chunk { skip: 1, ..chunk(0, 5, Codec::Stored) }]));
        assert!(refused(vec![Chunk { from: u64::MAX, ..chunk(0, 5, Codec::Zstd) }]));
        assert!(refused(vec![chunk(u64::MAX, 5, Codec::Zstd)]));
        assert!(made(vec![chunk(0, 20, Codec::Stored), chunk(20, 1, Codec::Lz4)]).is_ok());
    }

    #[test]
    fn what_is_unpacked_at_a_time_is_bounded() {
        let made = |chunk| ChunkTable::new(Validator::default(), 1 << 40, 1 << 40, vec![chunk]);
        let long = Chunk { packed: 9, ..chunk(0, LONGEST_CHUNK as u32, Codec::Gzip) };
        assert!(made(long).is_ok());
        assert_eq!(made(Chunk { skip: 1, ..long }), Err(ChunkTableError::TooLong));
        assert_eq!(made(Chunk { skip: u32::MAX, ..long }), Err(ChunkTableError::TooLong));
        let packed = LONGEST_PACKED as u32;
        assert!(made(Chunk { packed, ..long }).is_ok());
        assert_eq!(made(Chunk { packed: packed + 1, ..long }), Err(ChunkTableError::TooLong));
    }

    #[test]
    fn digests_are_of_the_algorithm_that_they_name() {
        let sha256 = ChunkDigest::Sha256([0; 32]).like(b"abc");
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256.to_string(), expected);
        let blake3 = ChunkDigest::Blake3([0; 32]).like(b"abc");
        let expected = "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85";
        assert_eq!(blake3.to_string(), expected);
    }

    proptest! {
        #[test]
        fn mutated_tables_are_read_or_refused(at in 0usize..500, byte: u8, cut in 0usize..500) {
            let mut bytes = table().encode();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut.min(length) / 7);
            if let Ok(table) = ChunkTable::decode(&bytes) {
                prop_assert_eq!(table.encode(), bytes);
            }
        }
    }
}
