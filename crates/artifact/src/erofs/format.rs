//! The on-disk structures, little-endian, as the kernel's `erofs_fs.h` defines them.

/// Where the superblock stands.
pub(crate) const SUPER_OFFSET: usize = 1024;
/// Bytes in the superblock.
pub(super) const SUPER_BYTES: usize = 128;
/// Bytes in a slot of the device table.
pub(super) const DEVICE_SLOT_BYTES: usize = 128;
/// Bytes in an inode slot: a nid counts these.
pub(super) const SLOT_BYTES: u64 = 32;
/// Bytes in an extended inode.
pub(super) const INODE_BYTES: usize = 64;
/// Bytes in a directory entry, its name apart.
pub(super) const DIRENT_BYTES: usize = 12;
/// Bytes in a chunk index.
pub(super) const CHUNK_BYTES: usize = 8;
/// A chunk that is all zeros.
pub(super) const NULL_BLOCK: u32 = u32::MAX;
/// A chunk is at most a block shifted by this.
pub(super) const MAX_CHUNK_SHIFT: u32 = 31;
/// Chunk format flag: 8-byte indexes with a device.
pub(super) const CHUNK_INDEXES: u16 = 0x20;

/// Most spaces of one tree.
pub const MAX_SPACES: usize = 256;

pub(crate) const MAGIC: u32 = 0xe0f5_e1e2;
const COMPAT_CHECKSUM: u32 = 0x1;
const COMPAT_MTIME: u32 = 0x2;
const INCOMPAT_CHUNKED: u32 = 0x4;
const INCOMPAT_DEVICES: u32 = 0x8;
/// `ZERO_PADDING` says something of compressed data only.
const INCOMPAT_HARMLESS: u32 = 0x1;

/// Unit of addresses in an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockSize {
    /// 512 bytes: addresses into tars.
    B512,
    /// 4096 bytes.
    B4096,
}

impl BlockSize {
    /// In bytes.
    pub fn bytes(self) -> u64 {
        1 << self.log2()
    }

    pub(super) fn log2(self) -> u8 {
        match self {
            Self::B512 => 9,
            Self::B4096 => 12,
        }
    }
}

/// Why an image is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Not an image, or one that was cut or changed.
    #[error("the index is not an intact EROFS image: {0}")]
    NotAnImage(&'static str),
    /// A feature that this reader does not have.
    #[error("the index needs {0}, which this version cannot read")]
    Unsupported(&'static str),
    /// Something inside points nowhere or contradicts itself.
    #[error("the index is corrupt at node {nid}: {what}")]
    Corrupt {
        /// The node at fault.
        nid: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The node is not of the kind that was asked for.
    #[error("node {nid} is not {wanted}")]
    WrongKind {
        /// The node.
        nid: u64,
        /// What was wanted.
        wanted: &'static str,
    },
}

/// One device of the image: a task, as seen from the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// Bytes in it; the image itself stores whole blocks only.
    pub length: u64,
    /// Who it is: the task id in hexadecimal digits, padded with NUL.
    pub tag: [u8; 64],
}

pub(super) struct Super {
    pub block_log2: u8,
    pub root_nid: u16,
    pub inodes: u64,
    pub build_secs: i64,
    pub build_nanos: u32,
    pub blocks: u32,
    pub meta_block: u32,
    pub xattr_block: u32,
    pub uuid: [u8; 16],
    pub spaces: u16,
    pub devices_slot: u16,
}

/// Little-endian fields, appended.
pub(super) trait Put {
    fn put(&mut self, bytes: &[u8]) -> &mut Self;
    fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }
    fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }
    fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }
    fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.extend_from_slice(bytes);
        self
    }
}

/// Two bytes at `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Four bytes at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Eight bytes at `at`.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Super {
    /// The 128 bytes with a zero checksum; [`seal`] fills it in.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SUPER_BYTES);
        out.u32(MAGIC).u32(0).u32(COMPAT_CHECKSUM | COMPAT_MTIME);
        out.u8(self.block_log2).u8(0).u16(self.root_nid).u64(self.inodes);
        out.put(&self.build_secs.to_le_bytes()).u32(self.build_nanos);
        out.u32(self.blocks).u32(self.meta_block).u32(self.xattr_block);
        out.put(&self.uuid).put(&[0; 16]);
        out.u32(INCOMPAT_CHUNKED | INCOMPAT_DEVICES).u16(0);
        out.u16(self.spaces).u16(self.devices_slot);
        out.resize(SUPER_BYTES, 0);
        out
    }

    /// Reads and checks the superblock of an image.
    pub fn decode(image: &[u8]) -> Result<Self, FormatError> {
        let short = || FormatError::NotAnImage("it is too short");
        let raw = image.get(SUPER_OFFSET..SUPER_OFFSET + SUPER_BYTES).ok_or_else(short)?;
        let u32_of = |at| u32_at(raw, at).expect("within the superblock");
        let u16_of = |at| u16_at(raw, at).expect("within the superblock");
        let u64_of = |at| u64_at(raw, at).expect("within the superblock");
        if u32_of(0) != MAGIC {
            return Err(FormatError::NotAnImage("its magic number is another"));
        }
        let block_log2 = raw[12];
        if !(9..=16).contains(&block_log2) {
            return Err(FormatError::Unsupported("an unusual block size"));
        }
        let incompat = u32_of(80) & !INCOMPAT_HARMLESS;
        if incompat & !(INCOMPAT_CHUNKED | INCOMPAT_DEVICES) != 0 || raw[13] != 0 || raw[90] != 0 {
            return Err(FormatError::Unsupported("a newer feature of EROFS"));
        }
        if u32_of(8) & COMPAT_CHECKSUM != 0 {
            let sum = checksum(image, block_log2).ok_or_else(short)?;
            if sum != u32_of(4) {
                return Err(FormatError::NotAnImage("its checksum does not match"));
            }
        }
        let devices = incompat & INCOMPAT_DEVICES != 0;
        Ok(Self {
            block_log2,
            root_nid: u16_of(14),
            inodes: u64_of(16),
            build_secs: u64_of(24).cast_signed(),
            build_nanos: u32_of(32),
            blocks: u32_of(36),
            meta_block: u32_of(40),
            xattr_block: u32_of(44),
            uuid: *raw[48..].first_chunk().expect("within the superblock"),
            spaces: if devices { u16_of(86) } else { 0 },
            devices_slot: u16_of(88),
        })
    }
}

/// CRC-32C of the superblock's block, from the superblock on, its checksum field taken as zero and
/// without the final inversion: what the kernel compares.
fn checksum(image: &[u8], block_log2: u8) -> Option<u32> {
    let block = 1usize << block_log2;
    let length = if block > SUPER_OFFSET { block - SUPER_OFFSET } else { block };
    let covered = image.get(SUPER_OFFSET..SUPER_OFFSET + length)?;
    let head = crc32c::crc32c(&covered[..4]);
    let head = crc32c::crc32c_append(head, &[0; 4]);
    Some(!crc32c::crc32c_append(head, &covered[8..]))
}

/// Gives a finished image its content-derived UUID and its checksum.
pub(super) fn seal(image: &mut [u8], block_log2: u8) {
    let digest = blake3::hash(image);
    let mut uuid: [u8; 16] = *digest.as_bytes().first_chunk().expect("32 is more than 16");
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    image[SUPER_OFFSET + 48..SUPER_OFFSET + 64].copy_from_slice(&uuid);
    let sum = checksum(image, block_log2).expect("an image has at least its first blocks");
    image[SUPER_OFFSET + 4..SUPER_OFFSET + 8].copy_from_slice(&sum.to_le_bytes());
}

/// The same of one that was changed after it was sealed.
pub(super) fn reseal(image: &mut [u8], block_log2: u8) {
    image[SUPER_OFFSET + 4..SUPER_OFFSET + 8].fill(0);
    image[SUPER_OFFSET + 48..SUPER_OFFSET + 64].fill(0);
    seal(image, block_log2);
}

/// A slot of the device table.
pub(super) fn encode_device(space: &Space, blocks: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(DEVICE_SLOT_BYTES);
    out.put(&space.tag).u32(blocks).u32(0);
    out.resize(DEVICE_SLOT_BYTES, 0);
    out
}

/// Raw device number as the kernel's `new_encode_dev` has it.
pub(super) fn encode_rdev(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

/// Major and minor of a raw device number.
pub(super) fn decode_rdev(raw: u32) -> (u32, u32) {
    ((raw & 0xf_ff00) >> 8, raw & 0xff | (raw >> 12) & 0xf_ff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Super {
        Super {
            block_log2: 12,
            root_nid: 40,
            inodes: 3,
            build_secs: -5,
            build_nanos: 7,
            blocks: 2,
            meta_block: 0,
            xattr_block: 0,
            uuid: [0; 16],
            spaces: 2,
            devices_slot: 9,
        }
    }

    #[test]
    fn the_superblock_reads_back_and_a_flipped_bit_is_seen() {
        let mut image = vec![0; 8192];
        image[SUPER_OFFSET..SUPER_OFFSET + SUPER_BYTES].copy_from_slice(&sample().encode());
        seal(&mut image, 12);
        let back = Super::decode(&image).unwrap();
        assert_eq!((back.root_nid, back.inodes, back.build_secs), (40, 3, -5));
        assert_eq!((back.spaces, back.devices_slot, back.blocks), (2, 9, 2));
        image[SUPER_OFFSET + 17] ^= 1;
        assert!(matches!(Super::decode(&image), Err(FormatError::NotAnImage(_))));
    }

    #[test]
    fn device_numbers_read_back() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (259, 256), (4095, (1 << 20) - 1)] {
            assert_eq!(decode_rdev(encode_rdev(major, minor)), (major, minor));
        }
    }
}
