//! An uncompressed tar as a tree, by its headers alone: file bodies are skipped, not read.
//!
//! [`TarScan`] is a pure state machine: it says which bytes it wants next and takes them. It reads ustar,
//! GNU (long names and links) and PAX (names, times, owners, sizes, `SCHILY.xattr.*`). Files lie in space
//! 0 at the offset they have in the tar. Memory is bounded by the headers that were read, and by limits.

mod extended;
mod header;

use dfs_model::ByteRange;

use crate::tree::{Content, FileData, Location, Meta, Mtime, TreeBuilder, TreeError, printable};
use extended::Overrides;
use header::Header;

/// Bytes in a record of a tar.
pub const RECORD: usize = 512;
/// Longest extended header that is read.
const MAX_EXTENSION: u64 = 1 << 20;
/// Longest extended headers together.
const MAX_EXTENSIONS: u64 = 256 << 20;
/// Most entries, parents that are only implied included.
const MAX_ENTRIES: usize = 8_000_000;

/// Why a tar is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// A header that is not one.
    #[error("the tar is corrupt at byte {at}: {reason}")]
    Corrupt {
        /// Where the header stands.
        at: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// It ends before its entries do.
    #[error("the tar is cut off: an entry at byte {at} goes on behind its end")]
    Truncated {
        /// Where the entry stands.
        at: u64,
    },
    /// Something this scan cannot express.
    #[error("the tar has {what} at byte {at}, which cannot be indexed")]
    Unsupported {
        /// Where.
        at: u64,
        /// What.
        what: &'static str,
    },
    /// More than the limits allow.
    #[error("the tar has more {0} than an index can hold")]
    TooMuch(&'static str),
    /// An entry that no tree can hold.
    #[error("the entry at byte {at} of the tar cannot be in a tree")]
    Entry {
        /// Where.
        at: u64,
        /// Why.
        #[source]
        source: TreeError,
    },
}

/// Whether the first 512 bytes of something are those of a tar.
pub fn is_tar(first: &[u8]) -> bool {
    let Some(record) = first.first_chunk::<RECORD>() else { return false };
    record[257..].starts_with(b"ustar") && header::checksum_matches(record)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next record is a header.
    Header,
    /// The body of an extended header of this type and length is next.
    Extension(u8, u64),
    /// The end was seen.
    Done,
}

/// The scan of one tar.
#[derive(Debug)]
pub struct TarScan {
    tree: TreeBuilder,
    length: u64,
    /// Where the next wanted byte stands.
    at: u64,
    /// Where the header of the entry in hand stands.
    entry_at: u64,
    state: State,
    /// What extended headers say of the next entry, and of all that follow.
    next: Overrides,
    global: Overrides,
    extensions: u64,
    newest: Mtime,
}

impl TarScan {
    /// Begins the scan of a tar of `length` bytes.
    pub fn new(length: u64) -> Self {
        let state = if length == 0 { State::Done } else { State::Header };
        Self {
            tree: TreeBuilder::new(),
            length,
            at: 0,
            entry_at: 0,
            state,
            next: Overrides::default(),
            global: Overrides::default(),
            extensions: 0,
            newest: Mtime::default(),
        }
    }

    /// The bytes wanted next, at most 1 MiB; `None` when the scan is complete.
    pub fn wanted(&self) -> Option<ByteRange> {
        match self.state {
            State::Header => Some(ByteRange::at(self.at, RECORD as u64)),
            State::Extension(_, length) => Some(ByteRange::at(self.at, length)),
            State::Done => None,
        }
    }

    /// Takes the bytes of [`TarScan::wanted`].
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        match self.state {
            State::Header => self.header(bytes)?,
            State::Extension(kind, length) => self.extension(kind, length, bytes)?,
            State::Done => {}
        }
        if self.state == State::Done {
            return Ok(());
        }
        // Writers may leave the end marks out.
        if self.state == State::Header && self.at == self.length {
            self.state = State::Done;
        }
        match self.wanted() {
            Some(wanted) if wanted.end > self.length => {
                Err(TarError::Truncated { at: self.entry_at })
            }
            _ => Ok(()),
        }
    }

    /// The tree, and the newest time in it, once nothing is wanted any more.
    pub fn finish(mut self) -> Result<(TreeBuilder, Mtime), TarError> {
        if self.state != State::Done {
            return Err(TarError::Truncated { at: self.entry_at });
        }
        self.tree.date_implicit_directories();
        Ok((self.tree, self.newest))
    }

    fn header(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        let truncated = TarError::Truncated { at: self.at };
        let record: &[u8; RECORD] = bytes.first_chunk().ok_or(truncated)?;
        if record.iter().all(|&byte| byte == 0) {
            self.state = State::Done;
            return Ok(());
        }
        // Extended headers in front belong to the entry.
        if !self.next.any() {
            self.entry_at = self.at;
        }
        let corrupt = |reason| TarError::Corrupt { at: self.at, reason };
        let header = Header::parse(record).map_err(corrupt)?;
        self.at += RECORD as u64;
        if matches!(header.kind, b'x' | b'X' | b'g' | b'L' | b'K') {
            return self.begin_extension(&header);
        }
        let overrides = std::mem::take(&mut self.next);
        self.entry(&header, &overrides)
    }

    fn begin_extension(&mut self, header: &Header<'_>) -> Result<(), TarError> {
        self.extensions = self.extensions.saturating_add(header.size);
        if header.size > MAX_EXTENSION || self.extensions > MAX_EXTENSIONS {
            return Err(TarError::TooMuch("extended headers"));
        }
        if header.size > 0 {
            self.state = State::Extension(header.kind, header.size);
        }
        Ok(())
    }

    fn extension(&mut self, kind: u8, length: u64, bytes: &[u8]) -> Result<(), TarError> {
        let at = self.at;
        let body = usize::try_from(length).ok().and_then(|length| bytes.get(..length));
        let body = body.ok_or(TarError::Truncated { at })?;
        let overrides = if kind == b'g' { &mut self.global } else { &mut self.next };
        match kind {
            b'L' => overrides.path = Some(header::text(body).to_vec()),
            b'K' => overrides.link = Some(header::text(body).to_vec()),
            _ => overrides.read_pax(body).map_err(|reason| TarError::Corrupt { at, reason })?,
        }
        if overrides.sparse {
            return Err(TarError::Unsupported { at, what: "a sparse file" });
        }
        self.at += length.next_multiple_of(RECORD as u64);
        self.state = State::Header;
        Ok(())
    }

    fn entry(&mut self, header: &Header<'_>, overrides: &Overrides) -> Result<(), TarError> {
        let at = self.entry_at;
        let global = &self.global;
        let header_path = header.path();
        let path = overrides.path.as_ref().or(global.path.as_ref()).unwrap_or(&header_path);
        let link = overrides.link.as_deref().or(global.link.as_deref()).unwrap_or(header.link);
        let bodiless = matches!(header.kind, b'1'..=b'6');
        let size = overrides.size.or(global.size).unwrap_or(header.size);
        let size = if bodiless { 0 } else { size };
        let body_at = self.at;
        let end =
            size.checked_next_multiple_of(RECORD as u64).and_then(|size| size.checked_add(body_at));
        // The last body may lack its padding.
        let fits = body_at.checked_add(size).is_some_and(|end| end <= self.length);
        let end = end.filter(|_| fits).ok_or(TarError::Truncated { at })?;
        let meta = overrides.meta(global, header);
        let file = FileData {
            length: size,
            location: Location { space: 0, offset: body_at },
            digest: None,
        };
        let directory_name = path.last() == Some(&b'/');
        let path = relative(path, at)?;
        let link = link.to_vec();
        self.at = end.min(self.length);
        self.newest = self.newest.max(meta.mtime);
        let content = match header.kind {
            b'0' | 0 | b'7' if !directory_name => Content::File(file),
            b'0' | 0 | b'5' | b'D' => Content::Directory,
            b'1' => return self.hard_link(at, &path, &link),
            b'2' => Content::Symlink(link),
            b'3' => Content::CharDevice(header.device()),
            b'4' => Content::BlockDevice(header.device()),
            b'6' => Content::Fifo,
            b'V' => return Ok(()),
            b'S' => return Err(TarError::Unsupported { at, what: "a sparse file" }),
            b'M' => {
                return Err(TarError::Unsupported { at, what: "a part of another volume's file" });
            }
            _ => return Err(TarError::Unsupported { at, what: "an entry of an unknown type" }),
        };
        self.put(at, &path, meta, content)
    }

    /// Later entries replace earlier ones; a directory keeps what is in it.
    fn put(&mut self, at: u64, path: &[u8], meta: Meta, content: Content) -> Result<(), TarError> {
        let keep = matches!(content, Content::Directory) && self.tree.is_directory(path);
        if !keep {
            self.tree.remove(path);
        }
        self.tree.add(path, meta, content).map_err(|source| TarError::Entry { at, source })?;
        self.bounded()
    }

    fn hard_link(&mut self, at: u64, path: &[u8], target: &[u8]) -> Result<(), TarError> {
        let target = relative(target, at)?;
        if path == target && self.tree.contains(path) {
            return Ok(());
        }
        self.tree.remove(path);
        self.tree.link(path, &target).map_err(|source| TarError::Entry { at, source })?;
        self.bounded()
    }

    fn bounded(&self) -> Result<(), TarError> {
        let full = self.tree.node_count() > MAX_ENTRIES;
        if full { Err(TarError::TooMuch("entries")) } else { Ok(()) }
    }
}

/// A path as an archive has it, made relative: leading slashes, `.` and empty elements go, `..` is refused.
fn relative(path: &[u8], at: u64) -> Result<Vec<u8>, TarError> {
    let elements: Vec<&[u8]> = path
        .split(|&byte| byte == b'/')
        .filter(|element| !matches!(*element, b"" | b"."))
        .collect();
    let joined = elements.join(&b'/');
    if elements.contains(&&b".."[..]) {
        let reason = "an element is '..'";
        let source = TreeError::BadPath { path: printable(path), reason };
        return Err(TarError::Entry { at, source });
    }
    Ok(joined)
}

#[cfg(test)]
mod tests;
