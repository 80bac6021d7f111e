//! Inodes: one entry's attributes and where its data is.

use super::format::{
    CHUNK_INDEXES, FormatError, INODE_BYTES, MAX_CHUNK_SHIFT, Put, decode_rdev, u16_at, u32_at,
    u64_at,
};
use super::xattr;
use crate::tree::{Content, DeviceNumber, Mtime};

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    /// The file type bits of a mode (`S_IFMT`).
    pub fn mode_bits(self) -> u16 {
        match self {
            Self::Fifo => 0o010_000,
            Self::CharDevice => 0o020_000,
            Self::Directory => 0o040_000,
            Self::BlockDevice => 0o060_000,
            Self::File => 0o100_000,
            Self::Symlink => 0o120_000,
            Self::Socket => 0o140_000,
        }
    }

    fn from_mode(mode: u16) -> Option<Self> {
        let kinds = [
            Self::Fifo,
            Self::CharDevice,
            Self::Directory,
            Self::BlockDevice,
            Self::File,
            Self::Symlink,
            Self::Socket,
        ];
        kinds.into_iter().find(|kind| kind.mode_bits() == mode & 0o170_000)
    }

    /// The type byte of a directory entry.
    pub(super) fn dirent_type(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::CharDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }

    pub(super) fn from_dirent_type(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::File,
            2 => Self::Directory,
            3 => Self::CharDevice,
            4 => Self::BlockDevice,
            5 => Self::Fifo,
            6 => Self::Socket,
            7 => Self::Symlink,
            _ => return None,
        })
    }

    /// The kind of a tree's entry.
    pub(crate) fn of(content: &Content) -> Self {
        match content {
            Content::Directory => Self::Directory,
            Content::File(_) | Content::Sparse(_) => Self::File,
            Content::Symlink(_) => Self::Symlink,
            Content::CharDevice(_) => Self::CharDevice,
            Content::BlockDevice(_) => Self::BlockDevice,
            Content::Fifo => Self::Fifo,
            Content::Socket => Self::Socket,
        }
    }
}

/// Attributes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Its number: the place of its inode in units of 32 bytes; fits 48 bits.
    pub nid: u64,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky, without the file type.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When its content last changed.
    pub mtime: Mtime,
    /// Names it has; of a directory, 2 and its subdirectories.
    pub nlink: u32,
    /// Bytes in it.
    pub size: u64,
    /// Numbers of a device node.
    pub device: Option<DeviceNumber>,
}

/// How an inode's data is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// In consecutive blocks of the image.
    Plain { block: u32 },
    /// The same, with the last block behind the inode.
    Inline { block: u32 },
    /// In chunks of `1 << log2` bytes, each with an index behind the inode.
    Chunks { log2: u32 },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Inode {
    pub attr: Attr,
    pub layout: Layout,
    /// Bytes of the inode itself.
    pub inode_bytes: usize,
    /// Bytes of extended attributes behind it.
    pub xattr_bytes: usize,
    /// Of a directory: that nobody described it, it is only on the way to something. Stands in bytes that the
    /// format reserves.
    pub implied: bool,
}

/// Where an extended inode says that it is an implied directory.
const IMPLIED_AT: usize = 48;

/// Chunks of a file above this many blocks are longer than one block by this shift.
pub(super) fn chunk_shift(length: u64, block_log2: u8) -> u32 {
    let blocks = length.div_ceil(1 << block_log2).max(1);
    blocks.next_power_of_two().ilog2().min(MAX_CHUNK_SHIFT)
}

impl Inode {
    /// The 64 bytes of an extended inode; `number` is its place in the order of inodes.
    pub fn encode(&self, number: u32, block_log2: u8) -> Vec<u8> {
        let (layout, union) = match self.layout {
            Layout::Plain { block } => (0u16, block),
            Layout::Inline { block } => (2, block),
            Layout::Chunks { log2 } => {
                let shift = u16::try_from(log2).expect("a chunk has fewer than 64 bits")
                    - u16::from(block_log2);
                (4, u32::from(shift | CHUNK_INDEXES))
            }
        };
        let attr = &self.attr;
        let union = attr
            .device
            .map_or(union, |device| super::format::encode_rdev(device.major, device.minor));
        let mut out = Vec::with_capacity(INODE_BYTES);
        out.u16(1 | layout << 1).u16(xattr::count_field(self.xattr_bytes));
        out.u16(attr.mode | attr.kind.mode_bits()).u16(0).u64(attr.size);
        out.u32(union).u32(number).u32(attr.uid).u32(attr.gid);
        out.put(&attr.mtime.secs.to_le_bytes()).u32(attr.mtime.nanos).u32(attr.nlink);
        out.resize(INODE_BYTES, 0);
        out[IMPLIED_AT] = u8::from(self.implied);
        out
    }

    /// Reads the inode at the start of `raw`. `epoch` is what compact inodes count their time from.
    pub fn decode(nid: u64, raw: &[u8], block_log2: u8, epoch: Mtime) -> Result<Self, FormatError> {
        let corrupt = |what| FormatError::Corrupt { nid, what };
        let short = || corrupt("its inode is cut off");
        let format = u16_at(raw, 0).ok_or_else(short)?;
        let extended = format & 1 == 1;
        let inode_bytes = if extended { INODE_BYTES } else { INODE_BYTES / 2 };
        let raw = raw.get(..inode_bytes).ok_or_else(short)?;
        let u16_of = |at| u16_at(raw, at).ok_or_else(short);
        let u32_of = |at| u32_at(raw, at).ok_or_else(short);
        let mode = u16_of(4)?;
        let kind = Kind::from_mode(mode).ok_or_else(|| corrupt("its type is unknown"))?;
        let union = u32_of(16)?;
        let layout = layout_of(format, union, kind, block_log2).map_err(corrupt)?;
        let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice).then(|| {
            let (major, minor) = decode_rdev(union);
            DeviceNumber { major, minor }
        });
        let (size, uid, gid, nlink, mtime) = if extended {
            let secs = u64_at(raw, 32).ok_or_else(short)?.cast_signed();
            let mtime = Mtime { secs, nanos: u32_of(40)? };
            let size = u64_at(raw, 8).ok_or_else(short)?;
            (size, u32_of(24)?, u32_of(28)?, u32_of(44)?, mtime)
        } else {
            let secs = epoch.secs.saturating_add(i64::from(u32_of(12)?));
            let mtime = Mtime { secs, nanos: epoch.nanos };
            let owner = (u32::from(u16_of(24)?), u32::from(u16_of(26)?));
            (u64::from(u32_of(8)?), owner.0, owner.1, u32::from(u16_of(6)?), mtime)
        };
        if mtime.nanos >= 1_000_000_000 || size > i64::MAX as u64 {
            return Err(corrupt("its time or size is out of bounds"));
        }
        let mode = mode & 0o7777;
        let xattr_bytes = xattr::body_of_count(u16_of(2)?);
        let attr = Attr { nid, kind, mode, uid, gid, mtime, nlink, size, device };
        let implied = kind == Kind::Directory && raw.get(IMPLIED_AT) == Some(&1);
        Ok(Self { attr, layout, inode_bytes, xattr_bytes, implied })
    }

    /// Bytes from the inode's start to what stands behind its attributes.
    pub fn head_bytes(&self) -> usize {
        self.inode_bytes + self.xattr_bytes
    }
}

fn layout_of(format: u16, union: u32, kind: Kind, block_log2: u8) -> Result<Layout, &'static str> {
    if format >> 4 != 0 {
        return Err("its format is unknown");
    }
    match format >> 1 & 7 {
        0 => Ok(Layout::Plain { block: union }),
        2 => Ok(Layout::Inline { block: union }),
        4 if kind == Kind::File => {
            let known = union & !0x1f == u32::from(CHUNK_INDEXES);
            let layout = Layout::Chunks { log2: u32::from(block_log2) + (union & 0x1f) };
            known.then_some(layout).ok_or("its chunks are of an unknown format")
        }
        _ => Err("its data layout is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_inodes_read_back() {
        let attr = Attr {
            nid: 99,
            kind: Kind::File,
            mode: 0o4755,
            uid: 70_000,
            gid: 5,
            mtime: Mtime { secs: -1, nanos: 999_999_999 },
            nlink: 70_000,
            size: 5 << 30,
            device: None,
        };
        let layout = Layout::Chunks { log2: 9 + chunk_shift(attr.size, 9) };
        let inode =
            Inode { attr, layout, inode_bytes: INODE_BYTES, xattr_bytes: 16, implied: false };
        let raw = inode.encode(3, 9);
        let back = Inode::decode(99, &raw, 9, Mtime::default()).unwrap();
        assert_eq!((back.attr, back.layout, back.xattr_bytes), (attr, layout, 16));
    }

    #[test]
    fn one_chunk_holds_a_file_up_to_the_largest_chunk() {
        assert_eq!(chunk_shift(1, 9), 0);
        assert_eq!(chunk_shift(513, 9), 1);
        assert_eq!(chunk_shift(5 << 30, 12), 21);
        assert_eq!(chunk_shift(u64::MAX / 2, 9), 31);
    }
}
