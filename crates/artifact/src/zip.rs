//! A zip as a tree, by its central directory alone: members are neither read nor unpacked.
//!
//! [`find_directory`] finds it from the end, so that what stands in front of the zip (a program that unpacks
//! it) does not matter; [`Entry`] is one line of it. Everything in it is hostile: members that overlap are
//! taken for a bomb, those whose lengths lie or that cannot be read are listed and refuse to be read.

mod entry;
mod layout;
pub(crate) mod member;
mod names;
#[cfg(test)]
mod tests;
mod times;

pub(crate) use entry::{ENTRY_BYTES, Entry, Kind};
pub(crate) use layout::{Laid, Layout};

/// Bytes of the end record without its comment.
const END_BYTES: usize = 22;
/// Bytes of the record that says where the larger end record is.
const LOCATOR_BYTES: usize = 20;
/// Bytes of the larger end record.
const END64_BYTES: usize = 56;
/// Bytes at the end in which the directory is announced: end records and the longest comment.
pub(crate) const TAIL: u64 = (END64_BYTES + LOCATOR_BYTES + END_BYTES + 65_535) as u64;
/// Most members.
const MAX_ENTRIES: u64 = 8_000_000;
/// Longest directory.
const MAX_DIRECTORY: u64 = 2 << 30;

/// Why a zip is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZipError {
    /// No end record, or none that makes sense.
    #[error("the zip has no central directory: it is cut off, or no zip at all")]
    NoDirectory,
    /// A line of the directory that makes no sense.
    #[error("the directory of the zip is corrupt at byte {at}")]
    Corrupt {
        /// Where.
        at: u64,
    },
    /// One of several files.
    #[error("the zip is a part of one that was split: put it together first")]
    Split,
    /// Members that lie over each other.
    #[error("members of the zip overlap at byte {at}: it is taken for a bomb")]
    Overlap {
        /// Where the second one begins.
        at: u64,
    },
    /// More than the limits allow.
    #[error("the zip has more {0} than an index can hold")]
    TooMuch(&'static str),
}

/// Where the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Its first byte.
    pub at: u64,
    /// Bytes in it.
    pub length: u64,
    /// Lines in it.
    pub entries: u64,
    /// Bytes in front of the zip that its offsets do not count.
    pub shift: u64,
}

/// Whether something that begins so may be a zip: by itself, or behind a program.
pub(crate) fn may_be_zip(first: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 6] =
        [b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08", b"MZ", b"\x7fELF", b"#!"];
    BEGINNINGS.iter().any(|beginning| first.starts_with(beginning))
}

/// Finds the directory by the last bytes, which begin at `tail_at`.
pub(crate) fn find_directory(tail: &[u8], tail_at: u64) -> Result<Directory, ZipError> {
    let last = tail.len().checked_sub(END_BYTES).ok_or(ZipError::NoDirectory)?;
    let candidates = (0..=last).rev().filter(|&at| tail[at..].starts_with(b"PK\x05\x06"));
    // A comment may hold what looks like an end record; one that fits is taken.
    let mut failure = ZipError::NoDirectory;
    for at in candidates {
        match directory_at(tail, tail_at, at) {
            Ok(directory) => return Ok(directory),
            Err(ZipError::NoDirectory) => {}
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn directory_at(tail: &[u8], tail_at: u64, at: usize) -> Result<Directory, ZipError> {
    let end = &tail[at..];
    if at + END_BYTES + usize::from(u16_at(end, 20)) > tail.len() {
        return Err(ZipError::NoDirectory);
    }
    let (disk, disks) = (u16_at(end, 4), u16_at(end, 6));
    let mut found = Directory {
        at: tail_at + at as u64,
        length: u64::from(u32_at(end, 12)),
        entries: u64::from(u16_at(end, 10)),
        shift: 0,
    };
    let mut offset = u64::from(u32_at(end, 16));
    let large =
        at.checked_sub(LOCATOR_BYTES).filter(|&locator| tail[locator..].starts_with(b"PK\x06\x07"));
    if let Some(locator) = large {
        let end64 = end64_before(tail, tail_at, locator).ok_or(ZipError::NoDirectory)?;
        let record = &tail[end64..];
        found.at = tail_at + end64 as u64;
        (found.entries, found.length) = (u64_at(record, 32), u64_at(record, 40));
        offset = u64_at(record, 48);
    } else if (disk, disks) != (0, 0) && (disk, disks) != (u16::MAX, u16::MAX) {
        return Err(ZipError::Split);
    }
    found.at = found.at.checked_sub(found.length).ok_or(ZipError::NoDirectory)?;
    found.shift = found.at.checked_sub(offset).ok_or(ZipError::NoDirectory)?;
    if found.entries > MAX_ENTRIES || found.length > MAX_DIRECTORY {
        return Err(ZipError::TooMuch("members"));
    }
    Ok(found)
}

/// The larger end record that a locator names, or the one right in front of it.
fn end64_before(tail: &[u8], tail_at: u64, locator: usize) -> Option<usize> {
    let named = u64_at(&tail[locator..], 8).checked_sub(tail_at);
    let named = named.and_then(|at| usize::try_from(at).ok());
    let is_one = |at: &usize| {
        at.checked_add(END64_BYTES).is_some_and(|end| end <= locator)
            && tail[*at..].starts_with(b"PK\x06\x06")
    };
    named.filter(is_one).or_else(|| locator.checked_sub(END64_BYTES).filter(is_one))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(*bytes[at..].first_chunk().expect("within a record"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("within a record"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("within a record"))
}
