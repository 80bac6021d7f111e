//! What a listing yields, and the one check that keeps every name inside its directory.

use dfs_model::Validator;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::Timestamp;

/// Longest element of a path, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// Longest path of an entry, in bytes.
pub const MAX_PATH_BYTES: usize = 4096;

/// Something below a listed directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the listed directory, elements separated by `/`; always passes [`check_path`].
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Exact length in bytes of a file; `None` when the listing does not tell or rounds it.
    pub length: Option<u64>,
    /// When it was last changed; `None` when the listing does not tell or rounds it.
    pub modified: Option<Timestamp>,
    /// The file's version, where the listing tells it.
    pub validator: Option<Validator>,
    /// What only file systems know.
    pub attributes: Option<Attributes>,
}

/// Kinds of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// Bytes.
    File,
    /// A directory; what lies in it follows.
    Directory,
    /// A symbolic link and the bytes it holds.
    Symlink(Vec<u8>),
    /// Something that has a name and no bytes.
    Special(SpecialKind),
    /// Something that no tree can hold, and why; its path is what can be shown of it.
    Unusable(&'static str),
    /// A directory, told before, that cannot be looked into, and why.
    Closed(String),
}

/// Things in a file system without content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialKind {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
}

/// What only file systems know of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device and inode number when the thing has several names: entries that share them are hard
    /// links.
    pub hard_link: Option<(u64, u64)>,
    /// Extended attributes, name and value, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Bounds of one listing: an origin that exceeds one fails the listing, clearly.
#[derive(Debug, Clone)]
pub struct ListLimits {
    /// Directories below one another.
    pub depth: usize,
    /// Entries in all.
    pub entries: usize,
    /// Bytes of one index page.
    pub page_bytes: usize,
    /// Pages fetched at a time; of the web's index pages twice as many while the origin answers fast.
    pub pages_at_once: usize,
}

impl Default for ListLimits {
    fn default() -> Self {
        Self { depth: 64, entries: 4_000_000, page_bytes: 32 << 20, pages_at_once: 8 }
    }
}

/// Why a path cannot be an entry's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing between two slashes, or nothing at all.
    #[error("it has an empty element")]
    EmptyElement,
    /// `.` or `..`.
    #[error("it has an element '.' or '..'")]
    DotElement,
    /// A NUL byte.
    #[error("it has a NUL byte")]
    Nul,
    /// An element above [`MAX_NAME_BYTES`] or the whole above [`MAX_PATH_BYTES`].
    #[error("it is too long")]
    TooLong,
}

/// Whether `path` names something strictly below a directory: relative, no empty, `.` or `..`
/// element, no NUL, bounded.
pub fn check_path(path: &[u8]) -> Result<(), PathError> {
    if path.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong);
    }
    path.split(|byte| *byte == b'/').try_for_each(check_element)
}

/// What can be shown of a name that is no path: one element, percent-encoded, cut where it is too
/// long. Always passes [`check_path`].
pub(crate) fn escaped(name: &[u8]) -> Vec<u8> {
    const SHOWN: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b' ').remove(b'+').remove(b'=');
    let mut text = percent_encode(name, SHOWN).to_string();
    if text.is_empty() {
        text.push('%');
    }
    text.truncate(MAX_NAME_BYTES);
    text.into_bytes()
}

fn check_element(element: &[u8]) -> Result<(), PathError> {
    match element {
        b"" => Err(PathError::EmptyElement),
        b"." | b".." => Err(PathError::DotElement),
        _ if element.len() > MAX_NAME_BYTES => Err(PathError::TooLong),
        _ if element.contains(&0) => Err(PathError::Nul),
        _ => Ok(()),
    }
}

impl Entry {
    /// An entry of which nothing else is known yet; the path is checked.
    pub fn new(path: Vec<u8>, kind: EntryKind) -> Result<Self, PathError> {
        check_path(&path)?;
        Ok(Self { path, kind, length: None, modified: None, validator: None, attributes: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_never_leaves_its_directory() {
        for (path, error) in [
            (&b""[..], PathError::EmptyElement),
            (b"/etc", PathError::EmptyElement),
            (b"a//b", PathError::EmptyElement),
            (b"a/", PathError::EmptyElement),
            (b"a/../b", PathError::DotElement),
            (b".", PathError::DotElement),
            (b"a\0b", PathError::Nul),
            (&[b'x'; 256], PathError::TooLong),
        ] {
            assert_eq!(check_path(path), Err(error), "{path:?}");
        }
        assert_eq!(check_path(&[b'x'; 255]), Ok(()));
        assert_eq!(check_path(b"...a/\xff\x01/ b"), Ok(()));
    }

    proptest! {
        #[test]
        fn whatever_cannot_be_taken_can_be_shown(name in proptest::collection::vec(any::<u8>(), 0..400)) {
            let shown = escaped(&name);
            prop_assert!(check_path(&shown).is_ok() && !shown.contains(&b'/'));
        }

        #[test]
        fn accepted_paths_stay_below_when_resolved(path in "[./a\0]{0,12}") {
            if check_path(path.as_bytes()).is_ok() {
                let mut depth = 0;
                for element in path.split('/') {
                    depth += match element { "" | "." => 0, ".." => -1, _ => 1 };
                    prop_assert!(depth > 0);
                }
            }
        }
    }
}
