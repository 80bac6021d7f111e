//! The table of what lies in a space: members of a listing side by side, zeros between them.
//!
//! Its canonical encoding is frozen: the BLAKE3 of it is the space's validator, so every node that plans
//! the same listing names the same task.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dfs_model::{ByteRange, Validator, ValidatorStrength};
use serde::{Deserialize, Serialize};

use crate::encoding::{put_bytes, put_validator, take_bytes, take_u64, take_validator};
use crate::tree::check_path;

const TAG: &[u8; 16] = b"dfs.members.v1\0\0";
/// Fewest bytes that a member takes in the encoding.
const MIN_MEMBER: usize = 4 + 1 + 8 + 8 + 4;

/// One member of a space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its path below the listing.
    pub path: Vec<u8>,
    /// Where it begins in the space, in bytes.
    pub offset: u64,
    /// Bytes in it; never 0.
    pub length: u64,
    /// The version that was listed; pins every read of it.
    pub validator: Validator,
}

impl Member {
    /// Its place in the space.
    pub fn range(&self) -> ByteRange {
        ByteRange::at(self.offset, self.length)
    }

    /// Whether `other`, of another version of the listing, is this one in the same version: as far as the origin's
    /// validators tell, and not where it gives none.
    pub fn is_as(&self, other: &Self) -> bool {
        let is_pinned = self.validator.strength() != ValidatorStrength::None;
        is_pinned
            && (&self.path, self.length) == (&other.path, other.length)
            && self.validator == other.validator
    }
}

/// The members of a space, ascending and apart; kept as they are encoded, so that a million of them cost little more
/// than their names.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MemberTable {
    /// The canonical encoding.
    encoded: Bytes,
    /// Where each member stands in it.
    places: Arc<[u32]>,
}

/// Why a table is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MemberTableError {
    /// The bytes are not its encoding.
    #[error("the member table is cut off or not one at all")]
    Encoding,
    /// Members overlap, are out of order, empty or end nowhere.
    #[error("the members of the table overlap or are out of order")]
    Order,
    /// More of them than one table holds.
    #[error("the members of the table are too many")]
    TooLong,
    /// A path that leaves its listing.
    #[error("the path of a member is not one")]
    Path,
}

impl MemberTable {
    /// Takes members in ascending order.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Result<Self, MemberTableError> {
        let mut table = TableWriter::default();
        for Member { path, offset, length, validator } in members {
            table.add(&path, offset, length, &encode_validator(&validator))?;
        }
        Ok(table.finish())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// The member of this number, in the order of their offsets.
    pub fn member(&self, number: usize) -> Option<Member> {
        let mut rest = self.at(number)?;
        take_member(&mut rest)
    }

    /// The members in the order of their offsets.
    pub fn members(&self) -> impl DoubleEndedIterator<Item = Member> + '_ {
        (0..self.count()).filter_map(|number| self.member(number))
    }

    /// The member of this path, in a table that has them in the order of their paths, as those of a plan do.
    pub fn find(&self, path: &[u8]) -> Option<Member> {
        let number = partition(0..self.count(), |number| self.path(number) < Some(path));
        self.member(number).filter(|member| member.path == path)
    }

    /// The same in memory of its own: it does not keep alive what it was read from.
    pub fn detached(&self) -> Self {
        let encoded = Bytes::copy_from_slice(&self.encoded);
        Self { encoded, places: Arc::clone(&self.places) }
    }

    /// Bytes of the space: where its last member ends.
    pub fn length(&self) -> u64 {
        self.count().checked_sub(1).map_or(0, |last| self.range(last).end)
    }

    /// The members that have a byte in `range`.
    pub fn touched(&self, range: ByteRange) -> impl ExactSizeIterator<Item = Member> + '_ {
        let numbers = 0..self.count();
        let first = partition(numbers.clone(), |number| self.range(number).end <= range.start);
        let end = partition(numbers, |number| self.range(number).start < range.end);
        let member = |number| self.member(number).expect("the table was checked");
        (first..end.max(first)).map(member)
    }

    /// BLAKE3 of the canonical encoding, in hexadecimal digits: the ETag of the space.
    pub fn digest(&self) -> String {
        blake3::hash(&self.encoded).to_hex().to_string()
    }

    /// The canonical encoding.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Reads the canonical encoding and keeps it; no other bytes are taken.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, MemberTableError> {
        let encoded = bytes.into();
        let broken = MemberTableError::Encoding;
        let mut rest = encoded.strip_prefix(TAG).ok_or(broken)?;
        let count = take_u64(&mut rest).ok_or(broken)?;
        if count > (rest.len() / MIN_MEMBER) as u64 {
            return Err(broken);
        }
        let (mut places, mut end, mut again) = (Vec::with_capacity(count as usize), 0, Vec::new());
        for _ in 0..count {
            let before = rest;
            places.push(u32::try_from(encoded.len() - rest.len()).map_err(|_| broken)?);
            let member = take_member(&mut rest).ok_or(broken)?;
            end = checked_end(&member.path, member.offset, member.length, end)?;
            // Booleans and absent fields have one spelling each.
            again.clear();
            let validator = encode_validator(&member.validator);
            put_member(&mut again, &member.path, member.offset, member.length, &validator);
            if before[..before.len() - rest.len()] != again[..] {
                return Err(broken);
            }
        }
        if !rest.is_empty() {
            return Err(broken);
        }
        Ok(Self { encoded, places: places.into() })
    }

    fn at(&self, number: usize) -> Option<&[u8]> {
        let place = usize::try_from(*self.places.get(number)?).ok()?;
        self.encoded.get(place..)
    }

    fn path(&self, number: usize) -> Option<&[u8]> {
        take_bytes(&mut self.at(number)?)
    }

    /// Where the member of this number lies, without the rest of it.
    fn range(&self, number: usize) -> ByteRange {
        let place = || {
            let mut rest = self.at(number)?;
            take_bytes(&mut rest)?;
            Some(ByteRange::at(take_u64(&mut rest)?, take_u64(&mut rest)?))
        };
        place().expect("the table was checked")
    }
}

/// The first of the numbers for which it no longer holds.
fn partition(numbers: Range<usize>, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (numbers.start, numbers.end);
    while low < high {
        let middle = usize::midpoint(low, high);
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

impl fmt::Debug for MemberTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members()).finish()
    }
}

/// A version as tables hold it.
pub fn encode_validator(validator: &Validator) -> Vec<u8> {
    let mut out = Vec::new();
    put_validator(&mut out, validator);
    out
}

/// Makes a table, member by member.
#[derive(Debug)]
pub struct TableWriter {
    encoded: Vec<u8>,
    places: Vec<u32>,
    end: u64,
}

impl Default for TableWriter {
    fn default() -> Self {
        let encoded = [&TAG[..], &[0; 8]].concat();
        Self { encoded, places: Vec::new(), end: 0 }
    }
}

impl TableWriter {
    /// Where the last member so far ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many there are so far.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// Adds the next member, with its version as [`encode_validator`] makes it.
    pub fn add(
        &mut self,
        path: &[u8],
        offset: u64,
        length: u64,
        validator: &[u8],
    ) -> Result<(), MemberTableError> {
        self.end = checked_end(path, offset, length, self.end)?;
        let place = u32::try_from(self.encoded.len()).map_err(|_| MemberTableError::TooLong)?;
        self.places.push(place);
        put_member(&mut self.encoded, path, offset, length, validator);
        Ok(())
    }

    /// The table of them.
    pub fn finish(mut self) -> MemberTable {
        let count = (self.places.len() as u64).to_le_bytes();
        self.encoded[TAG.len()..][..count.len()].copy_from_slice(&count);
        self.encoded.shrink_to_fit();
        MemberTable { encoded: self.encoded.into(), places: self.places.into() }
    }
}

/// Where a member ends that comes behind `end`.
fn checked_end(path: &[u8], offset: u64, length: u64, end: u64) -> Result<u64, MemberTableError> {
    check_path(path).map_err(|_| MemberTableError::Path)?;
    let next = offset.checked_add(length).filter(|_| offset >= end);
    next.filter(|_| length > 0).ok_or(MemberTableError::Order)
}

fn put_member(out: &mut Vec<u8>, path: &[u8], offset: u64, length: u64, validator: &[u8]) {
    put_bytes(out, path);
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(validator);
}

fn take_member(rest: &mut &[u8]) -> Option<Member> {
    let path = take_bytes(rest)?.to_vec();
    let (offset, length) = (take_u64(rest)?, take_u64(rest)?);
    let validator = take_validator(rest)?;
    Some(Member { path, offset, length, validator })
}

impl From<MemberTable> for String {
    fn from(table: MemberTable) -> Self {
        STANDARD.encode(&table.encoded)
    }
}

impl TryFrom<String> for MemberTable {
    type Error = MemberTableError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::decode(STANDARD.decode(text).map_err(|_| MemberTableError::Encoding)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(path: &[u8], offset: u64, length: u64) -> Member {
        let etag = Some(format!("\"{offset}\""));
        let validator = Validator { etag, length: Some(length), ..Validator::default() };
        Member { path: path.to_vec(), offset, length, validator }
    }

    fn table() -> MemberTable {
        let members =
            vec![member(b"a", 0, 5), member(b"b/\xff", 4096, 4096), member(b"c", 8192, 1)];
        MemberTable::new(members).unwrap()
    }

    #[test]
    fn the_encoding_reads_back_and_is_frozen() {
        let table = table();
        assert_eq!(MemberTable::decode(table.encoded().clone()), Ok(table.clone()));
        assert_eq!(
            table.digest(),
            "4cb2909dd8a095a4048f9626f837201470b087c95c1ff92c890251165b6ad071"
        );
        let text = serde_json::to_string(&table).unwrap();
        assert_eq!(serde_json::from_str::<MemberTable>(&text).unwrap(), table);
    }

    #[test]
    fn a_range_touches_the_members_that_have_a_byte_in_it() {
        let table = table();
        let paths = |start, end| -> Vec<Vec<u8>> {
            table.touched(ByteRange::new(start, end)).map(|member| member.path).collect()
        };
        assert_eq!(paths(0, 1), [b"a"]);
        assert_eq!(paths(5, 4096), Vec::<Vec<u8>>::new());
        assert_eq!(paths(4, 4097), [&b"a"[..], b"b/\xff"]);
        assert_eq!(paths(8191, 8193), [&b"b/\xff"[..], b"c"]);
        assert_eq!(paths(8193, 9000), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_member_is_found_by_its_path_and_is_the_same_in_one_version_only() {
        let table = table();
        for member in table.members() {
            assert_eq!(table.detached().find(&member.path), Some(member.clone()));
            assert!(member.is_as(&Member { offset: 1 << 30, ..member.clone() }));
            let other = Validator { etag: Some("\"other\"".into()), ..member.validator.clone() };
            assert!(!member.is_as(&Member { validator: other, ..member.clone() }));
            let unpinned = Validator { length: Some(member.length), ..Validator::default() };
            let unpinned = Member { validator: unpinned, ..member };
            assert!(!unpinned.is_as(&unpinned.clone()));
        }
        for path in [&b""[..], b"aa", b"b", b"d"] {
            assert_eq!(table.find(path), None);
        }
    }

    #[test]
    fn overlapping_and_outlandish_members_are_refused() {
        for members in [
            vec![member(b"a", 0, 5), member(b"b", 4, 1)],
            vec![member(b"a", 0, 0)],
            vec![member(b"a", u64::MAX, 2)],
        ] {
            assert_eq!(MemberTable::new(members), Err(MemberTableError::Order));
        }
        let outside = MemberTable::new(vec![member(b"../a", 0, 1)]);
        assert_eq!(outside, Err(MemberTableError::Path));
    }

    proptest! {
        #[test]
        fn mutated_tables_are_read_or_refused(at in 0usize..400, byte: u8, cut in 0usize..400) {
            let mut bytes = table().encoded().to_vec();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut.min(length) / 7);
            if let Ok(table) = MemberTable::decode(bytes.clone()) {
                let again = MemberTable::new(table.members()).unwrap();
                prop_assert_eq!(again.encoded(), &bytes);
            }
        }
    }
}
