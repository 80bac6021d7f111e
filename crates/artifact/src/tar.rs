//! An uncompressed tar as a tree, by its headers alone: file bodies are skipped, not read.
//!
//! [`TarScan`] is a pure state machine: it says which bytes it wants next and takes them. It reads what the
//! seventh edition, POSIX (ustar and PAX), GNU and star write: long names, large numbers, `SCHILY.xattr.*`,
//! `SCHILY.acl.*`, global headers, files with holes in all four formats. Files lie in space 0 at the offset they have in the
//! tar. Memory is bounded by limits, and an entry that no tree can hold is left out, not followed anywhere.

mod acl;
mod extended;
mod header;
mod sparse;

use dfs_model::ByteRange;

use crate::parts::Part;
use crate::placing::{Placing, TooMuch};
use crate::tree::{
    Content, DeviceNumber, FileData, LeftOut, Location, Meta, Mtime, PendingLink, TreeBuilder,
};
use extended::Overrides;
pub(crate) use extended::{attribute, mode_with};
use header::Header;
pub(crate) use header::{device_number, owner};

/// Bytes in a record of a tar.
pub const RECORD: usize = 512;
/// Longest extended header that is read.
const MAX_EXTENSION: u64 = 1 << 20;
/// Longest extended headers and maps together.
const MAX_EXTENSIONS: u64 = 256 << 20;

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
}

impl From<TooMuch> for TarError {
    fn from(TooMuch(what): TooMuch) -> Self {
        Self::TooMuch(what)
    }
}

/// Whether the first 512 bytes of something are those of a tar.
pub fn is_tar(first: &[u8]) -> bool {
    let Some(record) = first.first_chunk::<RECORD>() else { return false };
    let known = record[257..].starts_with(b"ustar") || header::is_v7(record);
    known && header::checksum_matches(record)
}

/// What a scan found.
#[derive(Debug)]
pub struct ScannedTar {
    /// The tree; its files lie in space 0, the tar, and in space 1.
    pub tree: TreeBuilder,
    /// The newest time in it.
    pub newest: Mtime,
    /// What space 1 is put together from; none in most tars.
    pub parts: Vec<Part>,
    /// Bytes of space 1.
    pub parts_length: u64,
    /// Entries that are not in the tree, the first of them.
    pub left_out: LeftOut,
}

#[derive(Debug)]
enum State {
    /// The next record is a header.
    Header,
    /// The body of an extended header of this type and length is next.
    Extension(u8, u64),
    /// The next record is a part of the map of a file with holes.
    Map(Box<Mapped>),
    /// The end was seen.
    Done,
}

/// A file with holes whose map is being read.
#[derive(Debug)]
struct Mapped {
    entry: Entry,
    length: u64,
    map: sparse::Source,
}

/// An entry's header, and what extended headers said of it.
#[derive(Debug)]
struct Entry {
    /// Where it stands.
    at: u64,
    kind: u8,
    path: Vec<u8>,
    link: Vec<u8>,
    meta: Meta,
    device: DeviceNumber,
    /// Bytes of the body.
    size: u64,
}

/// The scan of one tar.
#[derive(Debug)]
pub struct TarScan {
    placing: Placing,
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
    /// Where the bytes of the file lie whose header was read last.
    body: Option<ByteRange>,
}

impl TarScan {
    /// Begins the scan of a tar of `length` bytes.
    pub fn new(length: u64) -> Self {
        Self {
            placing: Placing::default(),
            length,
            at: 0,
            entry_at: 0,
            state: if length == 0 { State::Done } else { State::Header },
            next: Overrides::default(),
            global: Overrides::default(),
            extensions: 0,
            body: None,
        }
    }

    /// The bytes wanted next, at most 1 MiB; `None` when the scan is complete.
    pub fn wanted(&self) -> Option<ByteRange> {
        match self.state {
            State::Header | State::Map(_) => Some(ByteRange::at(self.at, RECORD as u64)),
            State::Extension(_, length) => Some(ByteRange::at(self.at, length)),
            State::Done => None,
        }
    }

    /// Takes the bytes of [`TarScan::wanted`].
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        match std::mem::replace(&mut self.state, State::Header) {
            State::Header => self.header(bytes)?,
            State::Extension(kind, length) => self.extension(kind, length, bytes)?,
            State::Map(mapped) => self.map(*mapped, bytes)?,
            State::Done => self.state = State::Done,
        }
        // Writers may leave the end marks out.
        if matches!(self.state, State::Header) && self.at == self.length {
            self.state = State::Done;
        }
        match self.wanted() {
            Some(wanted) if wanted.end > self.length => {
                Err(TarError::Truncated { at: self.entry_at })
            }
            _ => Ok(()),
        }
    }

    /// Where the bytes of a regular file lie whose header was just taken, once: they come before what is wanted next.
    pub fn take_body(&mut self) -> Option<ByteRange> {
        self.body.take()
    }

    /// What was found, once nothing is wanted any more.
    pub fn finish(mut self) -> Result<ScannedTar, TarError> {
        self.check_done()?;
        self.placing.finish();
        Ok(self.scanned())
    }

    /// What was found in a layer of an image. Hard links to what it does not have are for [`crate::image::merge`] to resolve:
    /// they are in neither its tree nor what is left out.
    pub fn finish_layer(mut self) -> Result<(ScannedTar, Vec<PendingLink>), TarError> {
        self.check_done()?;
        let links = self.placing.finish_layer();
        Ok((self.scanned(), links))
    }

    fn check_done(&self) -> Result<(), TarError> {
        let done = matches!(self.state, State::Done);
        done.then_some(()).ok_or(TarError::Truncated { at: self.entry_at })
    }

    fn scanned(self) -> ScannedTar {
        let Placing { tree, newest, scattered, left_out, .. } = self.placing;
        let parts_length = scattered.length();
        ScannedTar { tree, newest, parts: scattered.parts, parts_length, left_out }
    }

    fn header(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        let truncated = TarError::Truncated { at: self.at };
        let record: &[u8; RECORD] = bytes.first_chunk().ok_or(truncated)?;
        // What stands behind is the writer's padding, or nobody's, as `tar` takes it.
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
        self.entry(record, &header, overrides)
    }

    fn begin_extension(&mut self, header: &Header<'_>) -> Result<(), TarError> {
        if header.size > MAX_EXTENSION {
            return Err(TarError::TooMuch("extended headers"));
        }
        self.spend(header.size)?;
        if header.size > 0 {
            self.state = State::Extension(header.kind, header.size);
        }
        Ok(())
    }

    fn spend(&mut self, bytes: u64) -> Result<(), TarError> {
        self.extensions = self.extensions.saturating_add(bytes);
        let much = self.extensions > MAX_EXTENSIONS;
        if much { Err(TarError::TooMuch("extended headers")) } else { Ok(()) }
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
        if overrides.volume {
            return Err(TarError::Unsupported { at, what: "a part of another volume's file" });
        }
        self.at += length.next_multiple_of(RECORD as u64);
        Ok(())
    }

    fn entry(
        &mut self,
        record: &[u8; RECORD],
        header: &Header<'_>,
        mut overrides: Overrides,
    ) -> Result<(), TarError> {
        let at = self.entry_at;
        if header.kind == b'M' {
            return Err(TarError::Unsupported { at, what: "a part of another volume's file" });
        }
        let global = &self.global;
        let bodiless = matches!(header.kind, b'1'..=b'6');
        let size = overrides.size.or(global.size).unwrap_or(header.size);
        let meta = overrides.meta(global, header);
        let real_name = overrides.sparse.name.take();
        let path = real_name.or(overrides.path).or_else(|| global.path.clone());
        let link = overrides.link.or_else(|| global.link.clone());
        let entry = Entry {
            at,
            kind: header.kind,
            path: path.unwrap_or_else(|| header.path()),
            link: link.unwrap_or_else(|| header.link.to_vec()),
            meta,
            device: header.device(),
            size: if bodiless { 0 } else { size },
        };
        if header.kind == b'S' {
            let corrupt = TarError::Corrupt { at, reason: "the map of a file cannot be read" };
            let (pieces, length, more) = sparse::of_header(record).ok_or(corrupt)?;
            return match more {
                true => self.expect_map(entry, length, sparse::Source::Records(pieces)),
                false => self.sparse_file(entry, length, &pieces, 0),
            };
        }
        let regular = matches!(entry.kind, b'0' | 0 | b'7');
        if let Some(length) = overrides.sparse.length.filter(|_| regular) {
            return match overrides.sparse.source() {
                sparse::Source::Told(pieces) => self.sparse_file(entry, length, &pieces, 0),
                map => self.expect_map(entry, length, map),
            };
        }
        self.plain(entry)
    }

    fn expect_map(
        &mut self,
        entry: Entry,
        length: u64,
        map: sparse::Source,
    ) -> Result<(), TarError> {
        self.spend(RECORD as u64)?;
        self.state = State::Map(Box::new(Mapped { entry, length, map }));
        Ok(())
    }

    /// A record of a map.
    fn map(&mut self, mapped: Mapped, bytes: &[u8]) -> Result<(), TarError> {
        let Mapped { entry, length, map } = mapped;
        let truncated = TarError::Truncated { at: entry.at };
        let record: &[u8; RECORD] = bytes.first_chunk().ok_or(truncated)?;
        let at = self.at;
        let corrupt = |reason| TarError::Corrupt { at, reason };
        self.at += RECORD as u64;
        match map {
            sparse::Source::Records(mut pieces) => {
                let more = sparse::of_record(record, &mut pieces);
                match more.ok_or(corrupt("the map of a file cannot be read"))? {
                    true => self.expect_map(entry, length, sparse::Source::Records(pieces)),
                    false => self.sparse_file(entry, length, &pieces, 0),
                }
            }
            sparse::Source::Body(mut text) => {
                let pieces = text.record(record).map_err(corrupt)?;
                let taken = text.bytes();
                match pieces {
                    Some(pieces) => {
                        self.at -= taken;
                        self.sparse_file(entry, length, &pieces, taken)
                    }
                    None => self.expect_map(entry, length, sparse::Source::Body(text)),
                }
            }
            sparse::Source::Told(pieces) => self.sparse_file(entry, length, &pieces, 0),
        }
    }

    /// A file of `length` bytes whose pieces stand behind `map` bytes of its body.
    fn sparse_file(
        &mut self,
        entry: Entry,
        length: u64,
        pieces: &[sparse::Piece],
        map: u64,
    ) -> Result<(), TarError> {
        let at = entry.at;
        let body_at = self.skip_body(&entry)?;
        let corrupt = |reason| TarError::Corrupt { at, reason };
        let packed = entry.size.checked_sub(map);
        let packed = packed.ok_or(corrupt("the map of a sparse file is longer than its body"))?;
        let file = sparse::file(length, pieces, body_at + map, packed).map_err(corrupt)?;
        Ok(self.placing.put_sparse(&entry.path, entry.meta, file)?)
    }

    fn plain(&mut self, entry: Entry) -> Result<(), TarError> {
        let body_at = self.skip_body(&entry)?;
        let Entry { kind, path, link, meta, device, size, .. } = entry;
        let location = Location { space: 0, offset: body_at };
        let directory_name = path.last() == Some(&b'/');
        let content = match kind {
            b'1' => return Ok(self.placing.link(&path, &link)?),
            b'2' => Content::Symlink(link),
            b'3' => Content::CharDevice(device),
            b'4' => Content::BlockDevice(device),
            b'5' | b'D' => Content::Directory,
            b'6' => Content::Fifo,
            // The name of the archive itself.
            b'V' => return Ok(()),
            b'0' | 0 if directory_name => Content::Directory,
            // POSIX: what a reader does not know is a regular file to it.
            _ => {
                self.body = Some(ByteRange::at(body_at, size));
                Content::File(FileData { length: size, location, digest: None })
            }
        };
        Ok(self.placing.put(&path, meta, content)?)
    }

    /// Goes behind the body, whose place is given.
    fn skip_body(&mut self, entry: &Entry) -> Result<u64, TarError> {
        let (body_at, size) = (self.at, entry.size);
        // The last body may lack its padding.
        let end = body_at.checked_add(size).filter(|&end| end <= self.length);
        let end = end.ok_or(TarError::Truncated { at: entry.at })?;
        self.at = (body_at + (end - body_at).next_multiple_of(RECORD as u64)).min(self.length);
        Ok(body_at)
    }
}

/// A decimal number and nothing else.
fn ascii_number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let digits = digits.iter().all(u8::is_ascii_digit).then_some(digits)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
