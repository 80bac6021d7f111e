//! The table of what lies in a space: members of a listing side by side, zeros between them.
//!
//! Its canonical encoding is frozen: the BLAKE3 of it is the space's validator, so every node that plans
//! the same listing names the same task.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dfs_model::{ByteRange, Validator};
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
}

/// The members of a space, ascending and apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MemberTable {
    members: Vec<Member>,
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
    /// A path that leaves its listing.
    #[error("the path of a member is not one")]
    Path,
}

impl MemberTable {
    /// Takes members in ascending order.
    pub fn new(members: Vec<Member>) -> Result<Self, MemberTableError> {
        let mut end = 0;
        for member in &members {
            check_path(&member.path).map_err(|_| MemberTableError::Path)?;
            let next = member.offset.checked_add(member.length).filter(|_| member.offset >= end);
            end = next.filter(|_| member.length > 0).ok_or(MemberTableError::Order)?;
        }
        Ok(Self { members })
    }

    /// The members in the order of their offsets.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Bytes of the space: where its last member ends.
    pub fn length(&self) -> u64 {
        self.members.last().map_or(0, |member| member.range().end)
    }

    /// The members that have a byte in `range`.
    pub fn touched(&self, range: ByteRange) -> &[Member] {
        let first = self.members.partition_point(|member| member.range().end <= range.start);
        let end = self.members.partition_point(|member| member.offset < range.end);
        self.members.get(first..end).unwrap_or_default()
    }

    /// BLAKE3 of the canonical encoding, in hexadecimal digits: the ETag of the space.
    pub fn digest(&self) -> String {
        blake3::hash(&self.encode()).to_hex().to_string()
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = TAG.to_vec();
        out.extend((self.members.len() as u64).to_le_bytes());
        for member in &self.members {
            put_bytes(&mut out, &member.path);
            out.extend(member.offset.to_le_bytes());
            out.extend(member.length.to_le_bytes());
            put_validator(&mut out, &member.validator);
        }
        out
    }

    /// Reads the canonical encoding; no other bytes are taken.
    pub fn decode(bytes: &[u8]) -> Result<Self, MemberTableError> {
        let mut rest = bytes.strip_prefix(TAG).ok_or(MemberTableError::Encoding)?;
        let count = take_u64(&mut rest).ok_or(MemberTableError::Encoding)?;
        if count > (rest.len() / MIN_MEMBER) as u64 {
            return Err(MemberTableError::Encoding);
        }
        let members = (0..count).map(|_| take_member(&mut rest)).collect::<Option<Vec<_>>>();
        let members = members.filter(|_| rest.is_empty()).ok_or(MemberTableError::Encoding)?;
        let table = Self::new(members)?;
        // Booleans and absent fields have one spelling each.
        if table.encode() != bytes {
            return Err(MemberTableError::Encoding);
        }
        Ok(table)
    }
}

fn take_member(rest: &mut &[u8]) -> Option<Member> {
    let path = take_bytes(rest)?.to_vec();
    let (offset, length) = (take_u64(rest)?, take_u64(rest)?);
    let validator = take_validator(rest)?;
    Some(Member { path, offset, length, validator })
}

impl From<MemberTable> for String {
    fn from(table: MemberTable) -> Self {
        STANDARD.encode(table.encode())
    }
}

impl TryFrom<String> for MemberTable {
    type Error = MemberTableError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::decode(&STANDARD.decode(text).map_err(|_| MemberTableError::Encoding)?)
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
        assert_eq!(MemberTable::decode(&table.encode()), Ok(table.clone()));
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
        let paths = |start, end| -> Vec<&[u8]> {
            table
                .touched(ByteRange::new(start, end))
                .iter()
                .map(|member| &member.path[..])
                .collect()
        };
        assert_eq!(paths(0, 1), [b"a"]);
        assert_eq!(paths(5, 4096), Vec::<&[u8]>::new());
        assert_eq!(paths(4, 4097), [&b"a"[..], b"b/\xff"]);
        assert_eq!(paths(8191, 8193), [&b"b/\xff"[..], b"c"]);
        assert_eq!(paths(8193, 9000), Vec::<&[u8]>::new());
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
            let mut bytes = table().encode();
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut.min(length) / 7);
            if let Ok(table) = MemberTable::decode(&bytes) {
                prop_assert_eq!(table.encode(), bytes);
            }
        }
    }
}
