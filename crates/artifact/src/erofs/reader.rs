//! Reads an image. Every offset in it is taken as hostile: an answer is right or an error, never a
//! panic, and never costs memory or time beyond what the image's own size justifies.

use super::dir::{DirBlock, RawEntry};
use super::format::{
    self, CHUNK_BYTES, DEVICE_SLOT_BYTES, DIRENT_BYTES, FormatError, NULL_BLOCK, SLOT_BYTES, Super,
    u16_at, u32_at,
};
use super::inode::{Attr, Inode, Kind, Layout};
use super::xattr;
use crate::tree::{MAX_CHUNKS, MAX_SYMLINK, Mtime, Xattrs};

/// Further chunks that are looked at to tell how far a run goes.
const TOGETHER: u64 = 256;

/// An image over some bytes: a mapped file, a vector.
#[derive(Debug)]
pub struct Image<D> {
    data: D,
    head: Head,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    block_log2: u8,
    root: u64,
    inodes: u64,
    epoch: Mtime,
    /// Bytes of the image proper; the file may go on behind it.
    length: usize,
    meta: u64,
    shared_xattrs: u64,
    spaces: u16,
    devices: usize,
    uuid: [u8; 16],
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// The node it names.
    pub nid: u64,
    /// What that is.
    pub kind: Kind,
    /// Where to go on behind it; never 0.
    pub cookie: u64,
}

/// Where a run of a file's bytes lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Number of the space, counted from 0; `None` for zeros that lie nowhere.
    pub space: Option<u16>,
    /// Offset in the space, in bytes.
    pub offset: u64,
    /// Bytes from there that follow each other.
    pub length: u64,
}

impl<D: AsRef<[u8]> + Send + Sync + 'static> Image<D> {
    /// Takes the bytes of an image, or of a file that begins with one.
    pub fn open(data: D) -> Result<Self, FormatError> {
        let head = Super::decode(data.as_ref())?;
        let length = u64::from(head.blocks) << head.block_log2;
        Self::over(data, head, length)
    }

    /// Takes bytes all of which are an image, whose superblock may count other blocks than its own: as that of RAFS does.
    pub(crate) fn open_whole(data: D) -> Result<Self, FormatError> {
        let head = Super::decode(data.as_ref())?;
        let length = data.as_ref().len() as u64;
        Self::over(data, head, length)
    }

    fn over(data: D, head: Super, length: u64) -> Result<Self, FormatError> {
        let short = || FormatError::NotAnImage("it is shorter than it says");
        let there = data.as_ref().len();
        let length = usize::try_from(length).ok().filter(|&length| length <= there);
        let devices = usize::from(head.devices_slot) * DEVICE_SLOT_BYTES;
        let devices_end = devices + usize::from(head.spaces) * DEVICE_SLOT_BYTES;
        let length = length.filter(|&length| devices_end <= length).ok_or_else(short)?;
        if head.build_nanos >= 1_000_000_000 {
            return Err(FormatError::NotAnImage("its build time is out of bounds"));
        }
        let head = Head {
            block_log2: head.block_log2,
            root: u64::from(head.root_nid),
            inodes: head.inodes,
            epoch: Mtime { secs: head.build_secs, nanos: head.build_nanos },
            length,
            meta: u64::from(head.meta_block) << head.block_log2,
            shared_xattrs: u64::from(head.xattr_block) << head.block_log2,
            spaces: head.spaces,
            devices,
            uuid: head.uuid,
        };
        let image = Self { data, head };
        if image.attr(image.root())?.kind != Kind::Directory {
            return Err(FormatError::NotAnImage("its root is not a directory"));
        }
        Ok(image)
    }

    /// All the bytes that were given to [`Image::open`].
    pub fn data(&self) -> &D {
        &self.data
    }

    /// The image proper.
    fn bytes(&self) -> &[u8] {
        &self.data.as_ref()[..self.head.length]
    }

    /// Bytes of the image proper: whole blocks.
    pub fn length(&self) -> u64 {
        self.head.length as u64
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> u64 {
        1 << self.head.block_log2
    }

    /// Derived from the content.
    pub fn uuid(&self) -> [u8; 16] {
        self.head.uuid
    }

    /// When the tree was made.
    pub fn build_time(&self) -> Mtime {
        self.head.epoch
    }

    /// Number of inodes, as the image says.
    pub fn inodes(&self) -> u64 {
        self.head.inodes
    }

    /// Number of spaces.
    pub fn spaces(&self) -> u16 {
        self.head.spaces
    }

    /// Tag and blocks of a space.
    pub fn space(&self, number: u16) -> Option<([u8; 64], u64)> {
        if number >= self.head.spaces {
            return None;
        }
        let slot =
            self.bytes().get(self.head.devices + usize::from(number) * DEVICE_SLOT_BYTES..)?;
        Some((*slot.first_chunk()?, u64::from(u32_at(slot, 64)?)))
    }

    /// The image proper with these tags on its spaces, in their order: as if it had been written with them.
    pub fn retagged<'t>(&self, tags: impl IntoIterator<Item = &'t [u8; 64]>) -> Vec<u8> {
        let mut image = self.bytes().to_vec();
        let slots = (0..usize::from(self.head.spaces)).zip(tags);
        for (number, tag) in slots {
            let at = self.head.devices + number * DEVICE_SLOT_BYTES;
            image[at..at + tag.len()].copy_from_slice(tag);
        }
        format::reseal(&mut image, self.head.block_log2);
        image
    }

    /// The root directory.
    pub fn root(&self) -> u64 {
        self.head.root
    }

    /// Attributes of a node.
    pub fn attr(&self, nid: u64) -> Result<Attr, FormatError> {
        self.inode(nid).map(|inode| inode.attr)
    }

    /// Whether a node is a directory that nobody described: it is there because something below it is.
    pub fn is_implied(&self, nid: u64) -> Result<bool, FormatError> {
        self.inode(nid).map(|inode| inode.implied)
    }

    fn inode_at(&self, nid: u64) -> Option<usize> {
        let at = nid.checked_mul(SLOT_BYTES)?.checked_add(self.head.meta)?;
        usize::try_from(at).ok().filter(|&at| at < self.head.length)
    }

    fn inode(&self, nid: u64) -> Result<Inode, FormatError> {
        let outside = || FormatError::Corrupt { nid, what: "there is no such node" };
        let raw = &self.bytes()[self.inode_at(nid).ok_or_else(outside)?..];
        Inode::decode(nid, raw, self.head.block_log2, self.head.epoch)
    }

    fn directory(&self, nid: u64) -> Result<Inode, FormatError> {
        let inode = self.inode(nid)?;
        let directory = inode.attr.kind == Kind::Directory;
        directory.then_some(inode).ok_or(FormatError::WrongKind { nid, wanted: "a directory" })
    }

    /// Block `number` of data that lies in the image; shorter at the end of the data.
    fn data_block(&self, inode: &Inode, number: u64) -> Result<&[u8], FormatError> {
        let nid = inode.attr.nid;
        let corrupt = || FormatError::Corrupt { nid, what: "its data lies outside the image" };
        let block = self.block_bytes();
        let last = inode.attr.size.div_ceil(block).checked_sub(1).ok_or_else(corrupt)?;
        if number > last {
            return Err(corrupt());
        }
        let length = if number == last { inode.attr.size - last * block } else { block };
        let at = match inode.layout {
            Layout::Inline { .. } if number == last => {
                let at = self.inode_at(nid).ok_or_else(corrupt)? + inode.head_bytes();
                Some(at as u64)
            }
            Layout::Plain { block: first } | Layout::Inline { block: first } => {
                u64::from(first).checked_add(number).and_then(|at| at.checked_mul(block))
            }
            Layout::Chunks { .. } => None,
        };
        let at = at.and_then(|at| usize::try_from(at).ok()).ok_or_else(corrupt)?;
        let bytes = self.bytes().get(at..).and_then(|rest| rest.get(..length as usize));
        bytes.ok_or_else(corrupt)
    }

    fn dir_blocks(&self, inode: &Inode) -> u64 {
        inode.attr.size.div_ceil(self.block_bytes())
    }

    fn dir_block(&self, inode: &Inode, number: u64) -> Result<DirBlock<'_>, FormatError> {
        DirBlock::new(inode.attr.nid, self.data_block(inode, number)?)
    }

    fn entry(&self, raw: RawEntry<'_>, dir: u64, cookie: u64) -> Result<DirEntry, FormatError> {
        let corrupt = FormatError::Corrupt { nid: dir, what: "an entry is of an unknown type" };
        let kind = Kind::from_dirent_type(raw.file_type).ok_or(corrupt)?;
        Ok(DirEntry { name: raw.name.to_vec(), nid: raw.nid, kind, cookie })
    }

    /// The node of this name in a directory, by binary search.
    pub fn lookup(&self, dir: u64, name: &[u8]) -> Result<Option<u64>, FormatError> {
        let inode = self.directory(dir)?;
        let (mut low, mut high) = (0, self.dir_blocks(&inode));
        // The block is the last one whose first name is not behind the wanted one.
        while low < high {
            let middle = low + (high - low) / 2;
            if self.dir_block(&inode, middle)?.entry(0)?.name <= name {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(number) = low.checked_sub(1) else { return Ok(None) };
        let found = self.dir_block(&inode, number)?.find(name)?;
        Ok(found.map(|entry| entry.nid))
    }

    /// At most `limit` entries of a directory, from a cookie on (0: the first), `.` and `..` included,
    /// in the order of their names. Fewer than `limit` means that there are no more.
    pub fn read_dir(
        &self,
        dir: u64,
        cookie: u64,
        limit: usize,
    ) -> Result<Vec<DirEntry>, FormatError> {
        let inode = self.directory(dir)?;
        let block = self.block_bytes();
        let (mut number, mut slot) = (cookie / block, (cookie % block) as usize / DIRENT_BYTES);
        let mut entries = Vec::new();
        while number < self.dir_blocks(&inode) {
            let raw = self.dir_block(&inode, number)?;
            while slot < raw.count() {
                if entries.len() == limit {
                    return Ok(entries);
                }
                let next = match slot + 1 == raw.count() {
                    true => (number + 1) * block,
                    false => number * block + ((slot + 1) * DIRENT_BYTES) as u64,
                };
                entries.push(self.entry(raw.entry(slot)?, dir, next)?);
                slot += 1;
            }
            (number, slot) = (number + 1, 0);
        }
        Ok(entries)
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, nid: u64) -> Result<Vec<u8>, FormatError> {
        let inode = self.inode(nid)?;
        if inode.attr.kind != Kind::Symlink {
            return Err(FormatError::WrongKind { nid, wanted: "a symbolic link" });
        }
        if inode.attr.size == 0 || inode.attr.size > MAX_SYMLINK as u64 {
            return Err(FormatError::Corrupt {
                nid,
                what: "its link target is of no usable length",
            });
        }
        let mut target = Vec::with_capacity(inode.attr.size as usize);
        for number in 0..inode.attr.size.div_ceil(self.block_bytes()) {
            target.extend_from_slice(self.data_block(&inode, number)?);
        }
        Ok(target)
    }

    fn visit_xattrs<'a>(
        &'a self,
        nid: u64,
        visit: impl FnMut(xattr::RawXattr<'a>) -> bool,
    ) -> Result<(), FormatError> {
        let inode = self.inode(nid)?;
        let corrupt = || FormatError::Corrupt { nid, what: "its attributes lie outside the image" };
        let at = self.inode_at(nid).ok_or_else(corrupt)? + inode.inode_bytes;
        let body = self.bytes().get(at..).and_then(|rest| rest.get(..inode.xattr_bytes));
        let shared = usize::try_from(self.head.shared_xattrs).ok();
        let shared = shared.and_then(|at| self.bytes().get(at..)).unwrap_or_default();
        xattr::visit(nid, body.ok_or_else(corrupt)?, shared, visit)
    }

    /// One extended attribute by its full name.
    pub fn xattr(&self, nid: u64, name: &[u8]) -> Result<Option<Vec<u8>>, FormatError> {
        let Some((index, suffix)) = xattr::split_name(name) else { return Ok(None) };
        let mut found = None;
        self.visit_xattrs(nid, |raw| {
            let hit = raw.index == index && raw.suffix == suffix;
            if hit {
                found = Some(raw.value.to_vec());
            }
            hit
        })?;
        Ok(found)
    }

    /// All extended attributes.
    pub fn xattrs(&self, nid: u64) -> Result<Xattrs, FormatError> {
        let mut found = Xattrs::new();
        let mut budget = super::xattr::MAX_LISTED_BYTES;
        let mut over = false;
        self.visit_xattrs(nid, |raw| {
            let cost = raw.suffix.len() + raw.value.len() + 64;
            over |= cost > budget;
            budget = budget.saturating_sub(cost);
            if let Some(name) = raw.name().filter(|_| !over) {
                found.entry(name).or_insert_with(|| raw.value.to_vec());
            }
            over
        })?;
        let what = "its attributes are longer than any file's";
        if over { Err(FormatError::Corrupt { nid, what }) } else { Ok(found) }
    }

    /// Where the bytes of a regular file from `offset` on lie; `None` at or behind its end. The run
    /// ends where the next one lies elsewhere, or may.
    pub fn extent(&self, nid: u64, offset: u64) -> Result<Option<Extent>, FormatError> {
        let inode = self.inode(nid)?;
        if inode.attr.kind != Kind::File {
            return Err(FormatError::WrongKind { nid, wanted: "a regular file" });
        }
        if offset >= inode.attr.size {
            return Ok(None);
        }
        let Layout::Chunks { log2 } = inode.layout else {
            return Err(FormatError::Unsupported("file content inside the image"));
        };
        let corrupt = |what| FormatError::Corrupt { nid, what };
        let start = (offset >> log2) << log2;
        let length = (1u64 << log2).min(inode.attr.size - start);
        let index = self.chunk_index(&inode, offset >> log2);
        let (device, block) = index.ok_or_else(|| corrupt("a chunk index is cut off"))?;
        let more = self.continued(&inode, offset >> log2, log2, (device, block));
        let length = length - (offset - start) + more;
        if block == NULL_BLOCK {
            return Ok(Some(Extent { space: None, offset: 0, length }));
        }
        let device_mask = (u32::from(self.head.spaces) + 1).next_power_of_two() - 1;
        let space = (device & device_mask as u16).checked_sub(1);
        let space = space.filter(|&space| space < self.head.spaces);
        let space = space.ok_or_else(|| corrupt("a chunk lies in no space"))?;
        let at = (u64::from(block) << self.head.block_log2) + (offset - start);
        let (_, blocks) = self.space(space).ok_or_else(|| corrupt("a chunk lies in no space"))?;
        if at + length > blocks << self.head.block_log2 {
            return Err(corrupt("a chunk ends behind its space"));
        }
        Ok(Some(Extent { space: Some(space), offset: at, length }))
    }

    /// Bytes of the next few chunks that lie right behind this one, or nowhere as it does.
    fn continued(&self, inode: &Inode, chunk: u64, log2: u32, (device, block): (u16, u32)) -> u64 {
        let size = inode.attr.size;
        let rest = size.div_ceil(1 << log2).saturating_sub(chunk + 1);
        let follows = |step: &u64| {
            let next = self.chunk_index(inode, chunk + step);
            next.is_some_and(|(next_device, next)| match block {
                NULL_BLOCK => next == NULL_BLOCK,
                block => {
                    let wanted =
                        u64::from(block) + (step << (log2 - u32::from(self.head.block_log2)));
                    next != NULL_BLOCK && next_device == device && u64::from(next) == wanted
                }
            })
        };
        let steps = (1..=rest.min(TOGETHER)).take_while(follows).count() as u64;
        let behind = (chunk + 1) << log2;
        size.min(behind.saturating_add(steps << log2)).saturating_sub(behind)
    }

    /// Bytes of a node that are not holes: all of what is no regular file. Of one with more chunks than
    /// [`MAX_CHUNKS`], or whose indexes are cut off, no further holes are told.
    pub fn stored(&self, nid: u64) -> Result<u64, FormatError> {
        let inode = self.inode(nid)?;
        let size = inode.attr.size;
        let Layout::Chunks { log2 } = inode.layout else { return Ok(size) };
        let chunk = 1u64 << log2;
        let count = size.div_ceil(chunk).min(MAX_CHUNKS);
        let indexes = (0..count).map_while(|at| Some((at, self.chunk_index(&inode, at)?.1)));
        let holes = indexes.filter(|(_, block)| *block == NULL_BLOCK);
        Ok(size - holes.map(|(at, _)| chunk.min(size - at * chunk)).sum::<u64>())
    }

    fn chunk_index(&self, inode: &Inode, chunk: u64) -> Option<(u16, u32)> {
        let first =
            (self.inode_at(inode.attr.nid)? + inode.head_bytes()).next_multiple_of(CHUNK_BYTES);
        let at = chunk.checked_mul(CHUNK_BYTES as u64)?.checked_add(first as u64)?;
        let raw = self.bytes().get(usize::try_from(at).ok()?..)?.get(..CHUNK_BYTES)?;
        Some((u16_at(raw, 2)?, u32_at(raw, 4)?))
    }
}
