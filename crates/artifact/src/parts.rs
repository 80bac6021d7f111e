//! The table of a space that is put together from parts of an archive: members of a zip, pieces of files
//! with holes. Zeros lie between them.
//!
//! Its canonical encoding is frozen: the BLAKE3 of it is the space's validator. The archive's own version
//! is part of it, and pins every read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dfs_model::{ByteRange, Transform, Validator};
use serde::{Deserialize, Serialize};

use crate::encoding::{
    put_bytes, put_validator, take, take_bytes, take_u32, take_u64, take_validator,
};

const TAG: &[u8; 16] = b"dfs.parts.v1\0\0\0\0";
/// Longest deflated part that is unpacked in memory, packed and unpacked, in bytes; longer ones are read
/// as streams.
pub(crate) const SHORT: u64 = 8 << 20;
/// Bytes of a part in the encoding.
const PART_BYTES: usize = 5 * 8 + 4 + 1;

/// How a part's bytes are packed in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// They stand there as they are.
    Raw,
    /// As they are, behind the local header of a zip.
    Stored,
    /// Deflated, behind the local header of a zip.
    Deflated,
    /// They cannot be read.
    Refused(Refusal),
}

/// Why a member cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// It needs a password.
    #[error("this member of the zip is encrypted")]
    Encrypted,
    /// It is packed in a way that is not read here.
    #[error(
        "this member of the zip is compressed by method {0}: only stored and deflated ones can be read"
    )]
    Method(u8),
    /// Its length is more than its packed bytes can give.
    #[error("this member of the zip is not as long as the directory of the zip says")]
    Lies,
}

/// One part of a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it begins in the space, in bytes.
    pub offset: u64,
    /// Bytes in it; never 0.
    pub length: u64,
    /// Where its packed bytes, or the local header in front of them, begin in the archive.
    pub from: u64,
    /// Where something else begins in the archive.
    pub until: u64,
    /// Packed bytes.
    pub packed: u64,
    /// How they are packed.
    pub method: Method,
    /// CRC-32 of the part, of a zip's members.
    pub crc: u32,
}

impl Part {
    /// Its place in the space.
    pub fn range(&self) -> ByteRange {
        ByteRange::at(self.offset, self.length)
    }
}

/// The parts of a space, ascending and apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PartTable {
    /// The version of the archive.
    pub archive: Validator,
    /// What was done to the origin's bytes before they were the archive.
    pub transform: Transform,
    /// Bytes of the archive.
    pub archive_length: u64,
    length: u64,
    parts: Vec<Part>,
}

/// Why a table is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PartTableError {
    /// The bytes are not its encoding.
    #[error("the part table is cut off or not one at all")]
    Encoding,
    /// Parts overlap, are out of order, empty or lie outside.
    #[error("the parts of the table overlap or are out of order")]
    Order,
}

impl PartTable {
    /// Takes parts of a space of `length` bytes in ascending order.
    pub fn new(
        archive: Validator,
        transform: Transform,
        archive_length: u64,
        length: u64,
        parts: Vec<Part>,
    ) -> Result<Self, PartTableError> {
        let mut end = 0;
        for part in &parts {
            let next = part.offset.checked_add(part.length).filter(|_| part.offset >= end);
            end = next.filter(|_| part.length > 0).ok_or(PartTableError::Order)?;
            let packed = part.from.checked_add(part.packed);
            let whole = packed.is_some_and(|packed| packed <= part.until);
            let plain =
                !matches!(part.method, Method::Raw | Method::Stored) || part.packed == part.length;
            if !whole || !plain || part.until > archive_length {
                return Err(PartTableError::Order);
            }
        }
        if end > length {
            return Err(PartTableError::Order);
        }
        Ok(Self { archive, transform, archive_length, length, parts })
    }

    /// The parts in the order of their offsets.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Bytes of the space.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The parts that have a byte in `range`.
    pub fn touched(&self, range: ByteRange) -> &[Part] {
        let first = self.parts.partition_point(|part| part.range().end <= range.start);
        let end = self.parts.partition_point(|part| part.offset < range.end);
        self.parts.get(first..end).unwrap_or_default()
    }

    /// BLAKE3 of the canonical encoding, in hexadecimal digits: the ETag of the space.
    pub fn digest(&self) -> String {
        blake3::hash(&self.encode()).to_hex().to_string()
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = TAG.to_vec();
        put_validator(&mut out, &self.archive);
        put_bytes(&mut out, self.transform.tag().as_bytes());
        for number in [self.archive_length, self.length, self.parts.len() as u64] {
            out.extend(number.to_le_bytes());
        }
        out.reserve(self.parts.len() * PART_BYTES);
        for part in &self.parts {
            for number in [part.offset, part.length, part.from, part.until, part.packed] {
                out.extend(number.to_le_bytes());
            }
            out.extend(part.crc.to_le_bytes());
            out.push(method_byte(part.method));
        }
        out
    }

    /// Reads the canonical encoding; no other bytes are taken.
    pub fn decode(bytes: &[u8]) -> Result<Self, PartTableError> {
        let read = || {
            let mut rest = bytes.strip_prefix(TAG)?;
            let archive = take_validator(&mut rest)?;
            let transform = std::str::from_utf8(take_bytes(&mut rest)?).ok()?;
            let transform = Transform::of_tag(transform)?;
            let (archive_length, length) = (take_u64(&mut rest)?, take_u64(&mut rest)?);
            let count = usize::try_from(take_u64(&mut rest)?).ok()?;
            if count.checked_mul(PART_BYTES) != Some(rest.len()) {
                return None;
            }
            let parts = (0..count).map(|_| take_part(&mut rest)).collect::<Option<Vec<_>>>()?;
            Some(Self::new(archive, transform, archive_length, length, parts))
        };
        let table = read().ok_or(PartTableError::Encoding)??;
        // Booleans and absent fields have one spelling each.
        if table.encode() != bytes {
            return Err(PartTableError::Encoding);
        }
        Ok(table)
    }
}

/// Zip's own numbers below 128, reasons against reading from there on.
fn method_byte(method: Method) -> u8 {
    match method {
        Method::Stored => 0,
        Method::Deflated => 8,
        Method::Raw => 127,
        Method::Refused(Refusal::Encrypted) => 128,
        Method::Refused(Refusal::Lies) => 129,
        Method::Refused(Refusal::Method(number)) => 130 + number.min(125),
    }
}

fn method_of(byte: u8) -> Option<Method> {
    Some(match byte {
        0 => Method::Stored,
        8 => Method::Deflated,
        127 => Method::Raw,
        128 => Method::Refused(Refusal::Encrypted),
        129 => Method::Refused(Refusal::Lies),
        130.. => Method::Refused(Refusal::Method(byte - 130)),
        _ => return None,
    })
}

fn take_part(rest: &mut &[u8]) -> Option<Part> {
    let (offset, length) = (take_u64(rest)?, take_u64(rest)?);
    let (from, until, packed) = (take_u64(rest)?, take_u64(rest)?, take_u64(rest)?);
    let crc = take_u32(rest)?;
    let method = method_of(take(rest, 1)?[0])?;
    Some(Part { offset, length, from, until, packed, method, crc })
}

impl From<PartTable> for String {
    fn from(table: PartTable) -> Self {
        STANDARD.encode(table.encode())
    }
}

impl TryFrom<String> for PartTable {
    type Error = PartTableError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::decode(&STANDARD.decode(text).map_err(|_| PartTableError::Encoding)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(offset: u64, length: u64, method: Method) -> Part {
        Part { offset, length, from: 30, until: 30 + length, packed: length, method, crc: 7 }
    }

    fn table() -> PartTable {
        let parts = vec![
            part(0, 5, Method::Deflated),
            part(512, 9, Method::Stored),
            part(1024, 9, Method::Refused(Refusal::Method(12))),
        ];
        let archive = Validator { etag: Some("\"1\"".into()), ..Validator::default() };
        PartTable::new(archive, Transform::Gunzip, 100, 1100, parts).unwrap()
    }

    #[test]
    fn the_encoding_reads_back_and_is_frozen() {
        let table = table();
        assert_eq!(PartTable::decode(&table.encode()), Ok(table.clone()));
        assert_eq!(
            table.digest(),
            "94f4a13efcd4229ecdf5d8c2fb48301795c0a93cbaaa50cc6003a3261722eeb9"
        );
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<PartTable>(&text).unwrap(), table);
    }

    #[test]
    fn parts_that_overlap_or_lie_outside_are_refused() {
        let refused = |parts| {
            PartTable::new(Validator::default(), Transform::Identity, 50, 100, parts)
                == Err(PartTableError::Order)
        };
        assert!(refused(vec![part(0, 5, Method::Raw), part(4, 1, Method::Raw)]));
        assert!(refused(vec![part(99, 2, Method::Raw)]));
        assert!(refused(vec![part(0, 0, Method::Raw)]));
        assert!(refused(vec![part(0, 21, Method::Raw)]));
        assert!(refused(vec![Part { packed: 4, ..part(0, 5, Method::Stored) }]));
        assert!(refused(vec![Part { packed: u64::MAX, ..part(0, 5, Method::Deflated) }]));
        assert!(!refused(vec![part(0, 20, Method::Raw), part(20, 1, Method::Raw)]));
    }

    proptest! {
        #[test]
        fn mutated_tables_are_read_or_refused(at in 0usize..300, byte: u8, cut in 0usize..300) {
            let mut bytes = table().encode();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut.min(length) / 7);
            if let Ok(table) = PartTable::decode(&bytes) {
                prop_assert_eq!(table.encode(), bytes);
            }
        }
    }
}
