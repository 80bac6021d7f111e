//! One line of the central directory.

use super::{ZipError, names, times, u16_at, u32_at, u64_at};
use crate::parts::{Method, Refusal};
use crate::tree::{Meta, Mtime};

/// Bytes of a line without its name, extra field and comment.
pub(crate) const ENTRY_BYTES: usize = 46;
/// Flag bit: encrypted.
const ENCRYPTED: u16 = 1;
/// Flag bit: the name is UTF-8.
const UTF8: u16 = 1 << 11;
/// Most that a deflated byte gives.
const DEFLATE_RATIO: u64 = 1032;

/// Systems that lines are made on.
const DOS: u8 = 0;
const UNIX: u8 = 3;
const DARWIN: u8 = 19;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
    Symlink,
    /// A device or the like, of which a zip tells nothing more.
    Other,
}

/// One member as the directory tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    pub meta: Meta,
    /// Where its local header stands, as the directory counts.
    pub from: u64,
    pub packed: u64,
    pub length: u64,
    pub method: Method,
    pub crc: u32,
    /// Bytes of the name as it stands there.
    pub name_bytes: u64,
}

/// What a line's extra fields say.
#[derive(Default)]
struct Extra {
    length: Option<u64>,
    packed: Option<u64>,
    from: Option<u64>,
    mtime: Option<Mtime>,
    owner: Option<(u32, u32)>,
    path: Option<Vec<u8>>,
}

impl Entry {
    /// Bytes that follow the fixed part of a line.
    pub fn rest_bytes(fixed: &[u8; ENTRY_BYTES]) -> Option<u64> {
        let length = |at| u64::from(u16_at(fixed, at));
        fixed.starts_with(b"PK\x01\x02").then(|| length(28) + length(30) + length(32))
    }

    /// Reads a line that stands at `at`.
    pub fn parse(fixed: &[u8; ENTRY_BYTES], rest: &[u8], at: u64) -> Result<Self, ZipError> {
        let corrupt = ZipError::Corrupt { at };
        let (name_bytes, extra_bytes) =
            (usize::from(u16_at(fixed, 28)), usize::from(u16_at(fixed, 30)));
        let name = rest.get(..name_bytes).ok_or(corrupt.clone())?;
        let extra = rest[name_bytes..].get(..extra_bytes).ok_or(corrupt)?;
        let extra = Extra::parse(extra, fixed, name);
        if ![0, u16::MAX].contains(&u16_at(fixed, 34)) {
            return Err(ZipError::Split);
        }
        let (flags, system) = (u16_at(fixed, 8), fixed[5]);
        let path = match extra.path {
            Some(path) => path,
            None if flags & UTF8 != 0 || matches!(system, UNIX | DARWIN) => name.to_vec(),
            None => names::from_cp437(name),
        };
        let path = if system == DOS { names::with_slashes(path) } else { path };
        let (kind, mode) = kind_and_mode(system, u32_at(fixed, 38), path.last() == Some(&b'/'));
        let dos = times::of_dos(u16_at(fixed, 14), u16_at(fixed, 12));
        let (uid, gid) = extra.owner.unwrap_or_default();
        let packed = extra.packed.unwrap_or_else(|| u64::from(u32_at(fixed, 20)));
        let length = extra.length.unwrap_or_else(|| u64::from(u32_at(fixed, 24)));
        Ok(Self {
            path,
            kind,
            meta: Meta { uid, gid, mtime: extra.mtime.unwrap_or(dos), ..Meta::with_mode(mode) },
            from: extra.from.unwrap_or_else(|| u64::from(u32_at(fixed, 42))),
            packed,
            length,
            method: method(flags, u16_at(fixed, 10), packed, length),
            crc: u32_at(fixed, 16),
            name_bytes: name_bytes as u64,
        })
    }
}

fn method(flags: u16, method: u16, packed: u64, length: u64) -> Method {
    let possible = packed.saturating_add(1).saturating_mul(DEFLATE_RATIO);
    match method {
        _ if flags & ENCRYPTED != 0 => Method::Refused(Refusal::Encrypted),
        0 if packed == length => Method::Stored,
        8 if length <= possible => Method::Deflated,
        0 | 8 => Method::Refused(Refusal::Lies),
        other => Method::Refused(Refusal::Method(u8::try_from(other).unwrap_or(u8::MAX))),
    }
}

fn kind_and_mode(system: u8, attributes: u32, slash: bool) -> (Kind, u16) {
    let by_name = if slash { Kind::Directory } else { Kind::File };
    let unix = (attributes >> 16) as u16;
    if matches!(system, UNIX | DARWIN) && unix != 0 {
        let kind = match unix & 0o170_000 {
            0 => by_name,
            0o040_000 => Kind::Directory,
            0o100_000 if slash => Kind::Directory,
            0o100_000 => Kind::File,
            0o120_000 => Kind::Symlink,
            _ => Kind::Other,
        };
        return (kind, unix & 0o7777);
    }
    let kind = if attributes & 0x10 != 0 { Kind::Directory } else { by_name };
    let read_only = attributes & 1 != 0;
    match kind {
        Kind::Directory => (kind, 0o755),
        _ if read_only => (kind, 0o444),
        _ => (kind, 0o644),
    }
}

impl Extra {
    /// Reads the fields that are known; one that is cut off ends them.
    fn parse(mut bytes: &[u8], fixed: &[u8; ENTRY_BYTES], name: &[u8]) -> Self {
        let mut extra = Self::default();
        while bytes.len() >= 4 {
            let (id, length) = (u16_at(bytes, 0), usize::from(u16_at(bytes, 2)));
            let Some(field) = bytes[4..].get(..length) else { break };
            bytes = &bytes[4 + length..];
            match id {
                0x0001 => extra.large(field, fixed),
                0x5455 => extra.mtime = times::of_unix(field).or(extra.mtime),
                0x000a => extra.mtime = extra.mtime.or_else(|| times::of_ntfs(field)),
                0x7875 => extra.owner = owner(field),
                0x7075 => extra.path = names::of_unicode(field, name),
                _ => {}
            }
        }
        extra
    }

    /// Numbers that do not fit the line, in the order of their fields.
    fn large(&mut self, field: &[u8], fixed: &[u8; ENTRY_BYTES]) {
        let mut numbers = field.chunks_exact(8).map(|number| u64_at(number, 0));
        for (at, number) in [(24, &mut self.length), (20, &mut self.packed), (42, &mut self.from)] {
            if u32_at(fixed, at) == u32::MAX {
                *number = numbers.next();
            }
        }
    }
}

/// Info-ZIP's owners, each with its own length.
fn owner(field: &[u8]) -> Option<(u32, u32)> {
    let number = |bytes: &[u8]| {
        let number = bytes
            .iter()
            .rev()
            .try_fold(0u32, |sum, &byte| Some(sum.checked_mul(256)? + u32::from(byte)));
        number.unwrap_or(65534)
    };
    let (&uid_bytes, rest) = field.strip_prefix(&[1])?.split_first()?;
    let (uid, rest) = rest.split_at_checked(usize::from(uid_bytes))?;
    let (&gid_bytes, rest) = rest.split_first()?;
    let gid = rest.get(..usize::from(gid_bytes))?;
    Some((number(uid), number(gid)))
}
