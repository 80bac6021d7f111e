//! From a tree in memory to the image.
//!
//! Layout: boot area and superblock, device table, then every inode in breadth-first order (so the
//! entries of one directory lie together) each followed by its attributes, short data and chunk indexes,
//! then the blocks of directories and links too long for that. The same tree gives the same bytes, and a tree that
//! differs by an entry gives bytes that differ little: the entries of a directory, from one landmark to the next,
//! are a run with some room behind it, so that one more of them rarely moves what lies behind.

use super::dir::{self, NewEntry};
use super::format::{
    self, BlockSize, CHUNK_BYTES, DEVICE_SLOT_BYTES, INODE_BYTES, MAX_SPACES, NULL_BLOCK, Put,
    SLOT_BYTES, SUPER_BYTES, SUPER_OFFSET, Space, Super,
};
use super::inode::{Attr, Inode, Kind, Layout, chunk_shift};
use super::xattr;
use crate::tree::{
    Content, DeviceNumber, FileData, Location, Mtime, Node, NodeId, SparseFile, TreeBuilder,
};

/// What the image is to be like.
#[derive(Debug, Clone)]
pub struct ImageOptions {
    /// Unit of addresses: 512 bytes for tars, else 4096.
    pub block_size: BlockSize,
    /// When the tree was made; part of the bytes, so take it from the content.
    pub build_time: Mtime,
    /// The devices that files lie in.
    pub spaces: Vec<Space>,
}

/// An image and what became of the tree's files in it.
#[derive(Debug, Clone)]
pub struct WrittenImage {
    /// The image: whole blocks.
    pub bytes: Vec<u8>,
    /// Digests that the tree knew, by the file's nid, ascending.
    pub digests: Vec<(u64, [u8; 32])>,
    /// Regular files, hard links counted once.
    pub files: u64,
    /// Bytes in them.
    pub content_bytes: u64,
}

/// Why a tree cannot become an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// More devices than an index can have.
    #[error("{0} spaces are more than the 256 of one tree")]
    TooManySpaces(usize),
    /// A space beyond 32-bit block addresses.
    #[error("space {space} of {length} bytes is beyond the addresses of {block}-byte blocks")]
    SpaceTooLarge {
        /// Which one.
        space: usize,
        /// Bytes in it.
        length: u64,
        /// Bytes of a block.
        block: u64,
    },
    /// A file that does not lie where it is said to.
    #[error("a file of {length} bytes cannot lie at {offset} of space {space}: {reason}")]
    BadLocation {
        /// Which space.
        space: u16,
        /// Where in it.
        offset: u64,
        /// Bytes of the file.
        length: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file with holes that no reasonable number of chunks can express.
    #[error("a file of {length} bytes has holes too small or too odd for an index")]
    Scattered {
        /// Bytes of the file.
        length: u64,
    },
    /// More than an image can address.
    #[error("the tree has more entries than one index can hold")]
    TooLarge,
}

/// Makes the image.
pub fn write_image(tree: &TreeBuilder, options: &ImageOptions) -> Result<WrittenImage, WriteError> {
    let blocks = check_spaces(options)?;
    let mut plan = Plan::new(tree, options)?;
    plan.place()?;
    plan.encode(&blocks)
}

/// Blocks of every space.
fn check_spaces(options: &ImageOptions) -> Result<Vec<u32>, WriteError> {
    if options.spaces.len() > MAX_SPACES {
        return Err(WriteError::TooManySpaces(options.spaces.len()));
    }
    let block = options.block_size.bytes();
    let blocks = options.spaces.iter().enumerate().map(|(space, Space { length, .. })| {
        let too_large = WriteError::SpaceTooLarge { space, length: *length, block };
        let blocks = u32::try_from(length.div_ceil(block)).ok();
        blocks.filter(|&blocks| blocks < format::NULL_BLOCK).ok_or(too_large)
    });
    blocks.collect()
}

/// Inodes of fewer bytes together have no room behind them: small directories are many.
const ROOM_FROM: u64 = 2048;

/// Bytes that a run of inodes takes, with the room behind it: one sixteenth of them on average.
fn with_room(bytes: u64) -> u64 {
    if bytes < ROOM_FROM {
        return bytes;
    }
    bytes.next_multiple_of(1 << (bytes.ilog2() - 3))
}

/// A node without a place in the order.
const NOWHERE: u32 = u32::MAX;

struct Placed {
    node: NodeId,
    /// Place of the parent directory in the order; its own for the root.
    parent: usize,
    nlink: u32,
    /// Byte offset of the inode in the image.
    at: u64,
    /// Whether a run begins with it.
    begins: bool,
    /// Bytes of a directory's entries or a link's target.
    data_bytes: usize,
    layout: Layout,
}

struct Plan<'a> {
    tree: &'a TreeBuilder,
    options: &'a ImageOptions,
    order: Vec<Placed>,
    /// Place in the order, by node; [`NOWHERE`] until it has one.
    by_node: Vec<u32>,
    /// End of the inode area, then of the image, in bytes.
    end: u64,
}

impl<'a> Plan<'a> {
    /// Fixes the order of inodes and counts names.
    fn new(tree: &'a TreeBuilder, options: &'a ImageOptions) -> Result<Self, WriteError> {
        if tree.node_count() >= NOWHERE as usize {
            return Err(WriteError::TooLarge);
        }
        let mut plan = Self {
            tree,
            options,
            order: Vec::with_capacity(tree.node_count()),
            by_node: vec![NOWHERE; tree.node_count()],
            end: (SUPER_OFFSET + SUPER_BYTES + options.spaces.len() * DEVICE_SLOT_BYTES) as u64,
        };
        plan.append(TreeBuilder::ROOT, 0, true);
        let mut next = 0;
        while next < plan.order.len() {
            for (number, (name, &child)) in (0..).zip(tree.node(plan.order[next].node).children()) {
                plan.append(child, next, number == 0 || dir::landmark(name));
            }
            next += 1;
        }
        Ok(plan)
    }

    fn append(&mut self, node: NodeId, parent: usize, begins: bool) {
        if self.by_node[node] != NOWHERE {
            self.order[self.by_node[node] as usize].nlink += 1;
            return;
        }
        let directory = matches!(self.tree.node(node).content, Content::Directory);
        if directory && !self.order.is_empty() {
            self.order[parent].nlink += 1;
        }
        self.by_node[node] = u32::try_from(self.order.len()).expect("there are fewer nodes");
        let nlink = if directory { 2 } else { 1 };
        let layout = Layout::Plain { block: 0 };
        self.order.push(Placed { node, parent, nlink, at: 0, begins, data_bytes: 0, layout });
    }

    fn block(&self) -> usize {
        1 << self.options.block_size.log2()
    }

    /// Gives every inode, then every block of data, its place.
    fn place(&mut self) -> Result<(), WriteError> {
        let (mut at, mut begun) = (self.end, self.end);
        let mut blocks = Vec::new();
        for number in 0..self.order.len() {
            if self.order[number].begins {
                at = begun + with_room(at - begun);
                begun = at;
            }
            let node = self.tree.node(self.order[number].node);
            let head = (INODE_BYTES + xattr::body_bytes(node.xattrs())) as u64;
            at = at.next_multiple_of(SLOT_BYTES);
            let data_bytes = self.data_bytes(number, node);
            let mut tail = 0;
            let mut layout = Layout::Plain { block: 0 };
            if matches!(node.content, Content::File(_) | Content::Sparse(_)) {
                if let Some((log2, chunks)) = self.chunks(&node.content)? {
                    layout = Layout::Chunks { log2 };
                    tail = (head.next_multiple_of(CHUNK_BYTES as u64) - head)
                        + chunks * CHUNK_BYTES as u64;
                }
            } else if let Some(inline) = self.inline_bytes(data_bytes) {
                layout = Layout::Inline { block: 0 };
                at = self.align_inline(at, head, inline);
                tail = inline;
            }
            let placed = &mut self.order[number];
            (placed.at, placed.data_bytes, placed.layout) = (at, data_bytes, layout);
            let outside =
                data_bytes as u64 - if tail > 0 { tail.min(data_bytes as u64) } else { 0 };
            if outside > 0 {
                blocks.push((number, outside.div_ceil(self.block() as u64)));
            }
            at += head + tail;
        }
        let mut block = at.div_ceil(self.block() as u64);
        for (number, count) in blocks {
            let first = u32::try_from(block).map_err(|_| WriteError::TooLarge)?;
            let layout = &mut self.order[number].layout;
            *layout = match layout {
                Layout::Inline { .. } => Layout::Inline { block: first },
                _ => Layout::Plain { block: first },
            };
            block += count;
        }
        u32::try_from(block).map_err(|_| WriteError::TooLarge)?;
        self.end = block * self.block() as u64;
        Ok(())
    }

    /// Bytes of a directory's entries or of a link's target.
    fn data_bytes(&self, number: usize, node: &Node) -> usize {
        match &node.content {
            Content::Directory => {
                let entries = self.entries(number);
                let names: Vec<&[u8]> = entries.iter().map(|entry| entry.0).collect();
                dir::dir_bytes(&names, self.block())
            }
            Content::Symlink(target) => target.len(),
            _ => 0,
        }
    }

    /// The part of `data_bytes` that goes behind the inode: what the last block would hold, unless
    /// finding it a place there would waste more than it saves.
    fn inline_bytes(&self, data_bytes: usize) -> Option<u64> {
        let tail = data_bytes % self.block();
        (tail > 0 && tail <= self.block() / 2).then_some(tail as u64)
    }

    /// The first place from `at` on where data behind the inode stays within one block.
    fn align_inline(&self, at: u64, head: u64, inline: u64) -> u64 {
        let block = self.block() as u64;
        let mut at = at;
        while (at + head) % block + inline > block {
            at += SLOT_BYTES;
        }
        at
    }

    /// Size of a chunk as a power of two and the number of chunks; `None` for an empty file.
    fn chunks(&self, content: &Content) -> Result<Option<(u32, u64)>, WriteError> {
        let block_log2 = self.options.block_size.log2();
        let (length, log2) = match content {
            Content::File(data) => {
                self.check_place(data.location, data.length)?;
                (data.length, u32::from(block_log2) + chunk_shift(data.length, block_log2))
            }
            Content::Sparse(file) => {
                for run in file.runs() {
                    self.check_place(run.location, run.length)?;
                }
                let least = u32::from(block_log2);
                let limit = least + chunk_shift(file.length(), block_log2);
                let bad = || WriteError::Scattered { length: file.length() };
                (file.length(), file.chunk_log2(least, limit).ok_or_else(bad)?)
            }
            _ => return Ok(None),
        };
        Ok((length > 0).then(|| (log2, length.div_ceil(1 << log2))))
    }

    /// Refuses bytes that do not lie in their space, from a block on.
    fn check_place(&self, location: Location, length: u64) -> Result<(), WriteError> {
        if length == 0 {
            return Ok(());
        }
        let bad = |reason| {
            let Location { space, offset } = location;
            Err(WriteError::BadLocation { space, offset, length, reason })
        };
        let Some(space) = self.options.spaces.get(usize::from(location.space)) else {
            return bad("there is no such space");
        };
        if location.offset.checked_add(length).is_none_or(|end| end > space.length) {
            return bad("it ends behind the space");
        }
        if !location.offset.is_multiple_of(self.block() as u64) {
            return bad("it does not begin at a block");
        }
        Ok(())
    }

    /// Names of a directory, its own and its parent's included, sorted; with their places in the order.
    fn entries(&self, number: usize) -> Vec<(&'a [u8], usize)> {
        let placed = &self.order[number];
        let children = self.tree.node(placed.node).children();
        let mut entries: Vec<(&[u8], usize)> = Vec::with_capacity(children.len() + 2);
        entries.extend([(&b"."[..], number), (&b".."[..], placed.parent)]);
        entries.extend(children.iter().map(|(name, node)| (&**name, self.by_node[*node] as usize)));
        entries.sort_unstable();
        entries
    }

    fn nid(&self, number: usize) -> u64 {
        self.order[number].at / SLOT_BYTES
    }

    fn kind(&self, number: usize) -> Kind {
        Kind::of(&self.tree.node(self.order[number].node).content)
    }

    fn encode(&self, device_blocks: &[u32]) -> Result<WrittenImage, WriteError> {
        let length = usize::try_from(self.end).map_err(|_| WriteError::TooLarge)?;
        let mut written = WrittenImage {
            bytes: vec![0; length],
            digests: Vec::new(),
            files: 0,
            content_bytes: 0,
        };
        self.encode_head(&mut written.bytes, device_blocks);
        for number in 0..self.order.len() {
            self.encode_node(number, &mut written);
        }
        format::seal(&mut written.bytes, self.options.block_size.log2());
        Ok(written)
    }

    fn encode_head(&self, image: &mut [u8], device_blocks: &[u32]) {
        let block = self.block() as u64;
        let root_nid = u16::try_from(self.nid(0)).expect("the root stands behind the device table");
        let superblock = Super {
            block_log2: self.options.block_size.log2(),
            root_nid,
            inodes: self.order.len() as u64,
            build_secs: self.options.build_time.secs,
            build_nanos: self.options.build_time.nanos,
            blocks: u32::try_from(self.end / block).expect("checked when placed"),
            meta_block: 0,
            xattr_block: 0,
            uuid: [0; 16],
            spaces: u16::try_from(device_blocks.len()).expect("at most 256"),
            devices_slot: ((SUPER_OFFSET + SUPER_BYTES) / DEVICE_SLOT_BYTES) as u16,
        };
        let mut head = superblock.encode();
        for (space, &blocks) in self.options.spaces.iter().zip(device_blocks) {
            head.put(&format::encode_device(space, blocks));
        }
        image[SUPER_OFFSET..SUPER_OFFSET + head.len()].copy_from_slice(&head);
    }

    fn encode_node(&self, number: usize, written: &mut WrittenImage) {
        let placed = &self.order[number];
        let node = self.tree.node(placed.node);
        let inode = self.inode(number, node);
        let block_log2 = self.options.block_size.log2();
        // What a 32-bit `stat` shows; it moves only with the inode.
        let shown = u32::try_from(inode.attr.nid).unwrap_or(u32::MAX);
        let mut bytes = inode.encode(shown, block_log2);
        bytes.put(&xattr::encode(node.xattrs()));
        let data = match &node.content {
            Content::Directory => self.encode_directory(number),
            Content::Symlink(target) => target.clone(),
            Content::File(data) => {
                written.files += 1;
                written.content_bytes = written.content_bytes.saturating_add(data.length);
                written
                    .digests
                    .extend(data.digest.as_deref().map(|digest| (self.nid(number), *digest)));
                self.encode_chunks(data, placed.layout, &mut bytes);
                Vec::new()
            }
            Content::Sparse(file) => {
                written.files += 1;
                written.content_bytes = written.content_bytes.saturating_add(file.length());
                self.encode_sparse(file, placed.layout, &mut bytes);
                Vec::new()
            }
            _ => Vec::new(),
        };
        debug_assert_eq!(data.len(), placed.data_bytes, "the plan and the bytes agree");
        let (outside, block) = match placed.layout {
            Layout::Inline { block } => {
                let whole = data.len() - data.len() % self.block();
                bytes.put(&data[whole..]);
                (&data[..whole], block)
            }
            Layout::Plain { block } => (&data[..], block),
            Layout::Chunks { .. } => (&data[..], 0),
        };
        let at = placed.at as usize;
        written.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
        let at = block as usize * self.block();
        written.bytes[at..at + outside.len()].copy_from_slice(outside);
    }

    fn inode(&self, number: usize, node: &Node) -> Inode {
        let placed = &self.order[number];
        let (size, device): (u64, Option<DeviceNumber>) = match &node.content {
            Content::File(data) => (data.length, None),
            Content::Sparse(file) => (file.length(), None),
            Content::CharDevice(device) | Content::BlockDevice(device) => (0, Some(*device)),
            _ => (placed.data_bytes as u64, None),
        };
        let attr = Attr {
            nid: self.nid(number),
            kind: self.kind(number),
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime,
            nlink: placed.nlink,
            size,
            device,
        };
        let xattr_bytes = xattr::body_bytes(node.xattrs());
        let (layout, implied) = (placed.layout, node.implicit);
        Inode { attr, layout, inode_bytes: INODE_BYTES, xattr_bytes, implied }
    }

    fn encode_directory(&self, number: usize) -> Vec<u8> {
        let entries: Vec<NewEntry<'_>> = self
            .entries(number)
            .into_iter()
            .map(|(name, child)| NewEntry {
                name,
                nid: self.nid(child),
                file_type: self.kind(child).dirent_type(),
            })
            .collect();
        dir::encode(&entries, self.block())
    }

    fn encode_chunks(&self, data: &FileData, layout: Layout, out: &mut Vec<u8>) {
        let Layout::Chunks { log2 } = layout else { return };
        out.resize(out.len().next_multiple_of(CHUNK_BYTES), 0);
        let Location { space, offset } = data.location;
        for chunk in 0..data.length.div_ceil(1 << log2) {
            self.encode_chunk(Some(Location { space, offset: offset + (chunk << log2) }), out);
        }
    }

    fn encode_sparse(&self, file: &SparseFile, layout: Layout, out: &mut Vec<u8>) {
        let Layout::Chunks { log2 } = layout else { return };
        out.resize(out.len().next_multiple_of(CHUNK_BYTES), 0);
        for location in file.chunks(log2) {
            self.encode_chunk(location, out);
        }
    }

    fn encode_chunk(&self, location: Option<Location>, out: &mut Vec<u8>) {
        let Some(Location { space, offset }) = location else {
            out.u16(0).u16(0).u32(NULL_BLOCK);
            return;
        };
        let block = u32::try_from(offset >> self.options.block_size.log2());
        let block = block.expect("the file lies within a checked space");
        // Device 0 is the image itself.
        out.u16(0).u16(space + 1).u32(block);
    }
}
