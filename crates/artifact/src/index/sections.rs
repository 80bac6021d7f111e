//! Named byte strings behind the image, found through a footer at the very end of the file.

use std::ops::Range;

/// Number of the layout of everything behind the image.
pub const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"dfsindex";
/// Magic, format, sections, table offset, image length, BLAKE3 of what stands between image and it.
const FOOTER_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 32;
/// Kind, number, offset, length.
const ENTRY_BYTES: usize = 4 + 4 + 8 + 8;
/// Most sections: one for each space and a few.
const MAX_SECTIONS: usize = 1024;
/// Room for the short sections and the table: what does not fit moves the image.
const ROOM: usize = 256 * 1024;
/// Bytes of an entry in the digest section: nid and BLAKE3, ascending.
pub(super) const DIGEST_BYTES: usize = 8 + 32;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SectionKind {
    /// Facts, as JSON.
    Facts = 1,
    /// The member table of the space of this number.
    Members = 2,
    /// Digests of files.
    Digests = 3,
    /// The part table of the space of this number.
    Parts = 4,
    /// What the tree lacks, as JSON; absent where it lacks nothing.
    LeftOut = 5,
    /// Of a layer of an image: hard links to what lower layers have, as JSON; absent where there are none.
    Links = 6,
    /// The chunk table of the space of this number.
    Chunks = 7,
}

/// Why what stands behind the image is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SectionError {
    /// No footer, or not ours.
    #[error("the index has no dfs footer: it was cut off, or is another file")]
    NoFooter,
    /// A format that this version does not know.
    #[error("the index is of format {0}, this version reads format {FORMAT}")]
    Format(u32),
    /// The digest of the sections is another.
    #[error("the sections of the index were changed: their digest does not match")]
    Digest,
    /// A section outside the file.
    #[error("a section of the index lies outside it")]
    Bounds,
    /// A section that must be there is not.
    #[error("the index has no {0}")]
    Missing(&'static str),
}

/// Appends sections to an image.
pub(super) struct Writer {
    bytes: Vec<u8>,
    image: usize,
    table: Vec<(SectionKind, u32, Range<usize>)>,
}

impl Writer {
    /// Behind `image`; there is to be room for so many bytes of long sections at once.
    pub fn new(mut image: Vec<u8>, long: usize) -> Self {
        image.reserve_exact(long + ROOM);
        Self { image: image.len(), bytes: image, table: Vec::new() }
    }

    pub fn add(&mut self, kind: SectionKind, number: u32, content: &[u8]) {
        self.align();
        let start = self.bytes.len();
        self.bytes.extend_from_slice(content);
        self.table.push((kind, number, start..self.bytes.len()));
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.align();
        let table_at = self.bytes.len() as u64;
        for (kind, number, place) in &self.table {
            self.bytes.extend((*kind as u32).to_le_bytes());
            self.bytes.extend(number.to_le_bytes());
            self.bytes.extend((place.start as u64).to_le_bytes());
            self.bytes.extend((place.len() as u64).to_le_bytes());
        }
        self.bytes.extend(MAGIC);
        self.bytes.extend(FORMAT.to_le_bytes());
        self.bytes.extend((self.table.len() as u32).to_le_bytes());
        self.bytes.extend(table_at.to_le_bytes());
        self.bytes.extend((self.image as u64).to_le_bytes());
        let digest = blake3::hash(&self.bytes[self.image..]);
        self.bytes.extend(digest.as_bytes());
        self.bytes
    }
}

/// The sections of a file.
pub(super) struct Sections<'a> {
    bytes: &'a [u8],
    table: Vec<(u32, u32, Range<usize>)>,
}

impl<'a> Sections<'a> {
    /// Reads the footer and the table of a file whose image ends at `image`.
    pub fn read(bytes: &'a [u8], image: usize) -> Result<Self, SectionError> {
        let footer_at = bytes.len().checked_sub(FOOTER_BYTES).filter(|&at| at >= image);
        let footer_at = footer_at.ok_or(SectionError::NoFooter)?;
        let footer = bytes[footer_at..].strip_prefix(MAGIC).ok_or(SectionError::NoFooter)?;
        let format = u32_at(footer, 0);
        if format != FORMAT {
            return Err(SectionError::Format(format));
        }
        let digest_at = bytes.len() - 32;
        if blake3::hash(&bytes[image..digest_at])
            != <[u8; 32]>::try_from(&bytes[digest_at..]).expect("32 bytes")
        {
            return Err(SectionError::Digest);
        }
        if u64_at(footer, 16) != image as u64 {
            return Err(SectionError::Bounds);
        }
        let count = u32_at(footer, 4) as usize;
        let table_at = usize::try_from(u64_at(footer, 8)).map_err(|_| SectionError::Bounds)?;
        let whole = count <= MAX_SECTIONS
            && table_at >= image
            && table_at.checked_add(count * ENTRY_BYTES) == Some(footer_at);
        if !whole {
            return Err(SectionError::Bounds);
        }
        let mut table = Vec::with_capacity(count);
        for entry in bytes[table_at..footer_at].chunks_exact(ENTRY_BYTES) {
            let start = usize::try_from(u64_at(entry, 8)).ok().filter(|&start| start >= image);
            let length = usize::try_from(u64_at(entry, 16)).ok();
            let end = start.zip(length).and_then(|(start, length)| start.checked_add(length));
            let place = start.zip(end).filter(|&(_, end)| end <= table_at);
            let (start, end) = place.ok_or(SectionError::Bounds)?;
            table.push((u32_at(entry, 0), u32_at(entry, 4), start..end));
        }
        Ok(Self { bytes, table })
    }

    /// Where a section stands in the file.
    pub fn place(&self, kind: SectionKind, number: u32) -> Option<Range<usize>> {
        let hit = |entry: &&(u32, u32, Range<usize>)| entry.0 == kind as u32 && entry.1 == number;
        self.table.iter().find(hit).map(|entry| entry.2.clone())
    }

    /// The bytes of a section.
    pub fn find(&self, kind: SectionKind, number: u32) -> Option<&'a [u8]> {
        self.place(kind, number).and_then(|place| self.bytes.get(place))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("within a fixed-size structure"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("within a fixed-size structure"))
}
