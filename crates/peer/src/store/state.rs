//! The file `state`: a header, then blocks of 512 groups, so that it grows without knowing the length.
//!
//! ```text
//! page 0         magic, format, length?, boot id, clean mark, time to live, checksum
//! block (9 pages)
//!   page 0       bitmap of 512 groups, checksum
//!   pages 1..9   1024 digests in in-order numbering: node (l, i) in slot (i << l+1) + (1 << l) - 1
//! ```
//! A zero digest is an unknown one. Header and bitmaps carry checksums and never cross a page, so that
//! damage is seen; digests need none: a group that does not match its digest is fetched again.

use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use dfs_model::{GroupRange, GroupSet, groups_in};

use parking_lot::Mutex;

use crate::hashtree::{Cv, Node};

const MAGIC: &[u8; 8] = b"DFSSTATE";
pub(super) const FORMAT: u32 = 1;
const PAGE: u64 = 4096;
const HEADER_BYTES: usize = 104;
const BLOCK_GROUPS: u64 = 512;
const BLOCK_SLOTS: u64 = 2 * BLOCK_GROUPS;
const BLOCK_BYTES: u64 = 9 * PAGE;
const BITMAP_BYTES: usize = (BLOCK_GROUPS / 8) as usize;
const HEAD_BYTES: usize = BITMAP_BYTES + 16;
const CV_BYTES: usize = 32;

/// The most groups of a task that can be kept: 64 TiB, a bitmap of 128 MiB.
pub(super) const MAX_GROUPS: u64 = 1 << 30;

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) length: Option<u64>,
    /// The boot during which every recorded group is right; zero when some are in doubt.
    pub(super) boot: [u8; 16],
    /// Digest of what was recorded when all of it was durable; zero when something was recorded since.
    pub(super) clean: [u8; 32],
    /// Seconds a task is kept after its last read; zero for none of its own.
    pub(super) ttl: u64,
}

/// What a header page turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderPage {
    Empty,
    Valid(Header),
    Garbage,
    Newer(u32),
}

fn checksum(context: &[u8], bytes: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(context).update(bytes);
    let mut sum = [0; 16];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    sum
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the bounds are of constant distance")
}

impl Header {
    pub(super) fn is_clean(&self) -> bool {
        self.clean != [0; 32]
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut page = [0; HEADER_BYTES];
        page[..8].copy_from_slice(MAGIC);
        page[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        page[12] = u8::from(self.length.is_some());
        page[16..24].copy_from_slice(&self.length.unwrap_or(0).to_le_bytes());
        page[24..40].copy_from_slice(&self.boot);
        page[40..72].copy_from_slice(&self.clean);
        page[72..80].copy_from_slice(&self.ttl.to_le_bytes());
        let sum = checksum(b"header", &page[..88]);
        page[88..].copy_from_slice(&sum);
        page
    }

    fn decode(page: &[u8]) -> HeaderPage {
        if page.len() < HEADER_BYTES || &page[..8] != MAGIC {
            return HeaderPage::Garbage;
        }
        let format = u32::from_le_bytes(field(page, 8));
        // Every format, newer ones too, has its checksum at the same place.
        if checksum(b"header", &page[..88]) != field(page, 88) {
            return HeaderPage::Garbage;
        }
        if format != FORMAT {
            return HeaderPage::Newer(format);
        }
        let length = u64::from_le_bytes(field(page, 16));
        let header = Self {
            length: (page[12] == 1).then_some(length),
            boot: field(page, 24),
            clean: field(page, 40),
            ttl: u64::from_le_bytes(field(page, 72)),
        };
        if header.length.is_some_and(|length| groups_in(length) > MAX_GROUPS) {
            return HeaderPage::Garbage;
        }
        HeaderPage::Valid(header)
    }
}

/// Names what is recorded, and the content file as it was then, for the clean mark: a file that was put in its
/// place, or written to by others, does not match it.
pub(super) fn clean_mark(length: Option<u64>, have: &GroupSet, content: &Metadata) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[u8::from(length.is_some())]).update(&length.unwrap_or(0).to_le_bytes());
    for number in [content.ino(), content.len()] {
        hasher.update(&number.to_le_bytes());
    }
    for number in [content.mtime(), content.mtime_nsec()] {
        hasher.update(&number.to_le_bytes());
    }
    for range in have.ranges() {
        hasher.update(&range.first.to_le_bytes()).update(&range.count.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

const fn slot(node: Node) -> u64 {
    (node.index << (node.level + 1)) + (1 << node.level) - 1
}

const fn slot_offset(slot: u64) -> u64 {
    let block = PAGE + slot / BLOCK_SLOTS * BLOCK_BYTES;
    block + PAGE + slot % BLOCK_SLOTS * CV_BYTES as u64
}

/// Whether the node has a place in the file: all nodes of a content of at most [`MAX_GROUPS`].
pub(super) fn has_slot(node: Node) -> bool {
    node.is_possible() && slot(node) < 2 * MAX_GROUPS
}

/// The open file.
#[derive(Debug)]
pub(super) struct StateFile {
    file: File,
    /// What slots hold that were looked at or written lately: every group is proven by several digests, and proves
    /// others with them.
    near: Mutex<HashMap<u64, Cv>>,
}

/// Most slots remembered of a file: 200 KiB.
const MOST_NEAR: usize = 4096;

/// What a slot holds whose digest is not known.
const UNKNOWN: Cv = [0; CV_BYTES];

impl StateFile {
    fn of(file: File) -> Self {
        Self { file, near: Mutex::default() }
    }

    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        Ok(Self::of(options.open(path)?))
    }

    #[cfg(test)]
    pub(super) fn over(file: File) -> Self {
        Self::of(file)
    }

    /// The header of a file that stays closed.
    pub(super) fn peek(path: &Path) -> Option<Header> {
        Self::glance(path).map(|(header, _)| header)
    }

    /// A file that is only looked at, and its header.
    pub(super) fn glance(path: &Path) -> Option<(Header, Self)> {
        let state = Self::of(File::open(path).ok()?);
        match state.header() {
            Ok(HeaderPage::Valid(header)) => Some((header, state)),
            _ => None,
        }
    }

    /// Reads up to the end of the file; how much there was.
    fn read_some(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.file.read_at(&mut buf[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    pub(super) fn header(&self) -> io::Result<HeaderPage> {
        let mut page = [0; HEADER_BYTES];
        match self.read_some(&mut page, 0)? {
            0 => Ok(HeaderPage::Empty),
            count => Ok(Header::decode(&page[..count])),
        }
    }

    pub(super) fn write_header(&self, header: &Header) -> io::Result<()> {
        self.file.write_all_at(&header.encode(), 0)
    }

    /// Forgets everything.
    pub(super) fn reset(&self) -> io::Result<()> {
        let mut near = self.near.lock();
        near.clear();
        self.file.set_len(0)
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// One past the last group that the file has room for now.
    pub(super) fn groups(&self) -> io::Result<u64> {
        let blocks = self.file.metadata()?.len().saturating_sub(PAGE).div_ceil(BLOCK_BYTES);
        Ok(blocks * BLOCK_GROUPS)
    }

    /// The recorded groups, and those among them whose record is damaged.
    pub(super) fn recorded(&self, length: Option<u64>) -> io::Result<(GroupSet, GroupSet)> {
        let limit = length.map_or(MAX_GROUPS, groups_in);
        let (mut have, mut damaged) = (GroupSet::new(), GroupSet::new());
        for block in 0..self.groups()?.min(limit).div_ceil(BLOCK_GROUPS) {
            let mut head = [0; HEAD_BYTES];
            self.read_some(&mut head, PAGE + block * BLOCK_BYTES)?;
            if head == [0; HEAD_BYTES] {
                continue;
            }
            let (bitmap, sum) = head.split_at(BITMAP_BYTES);
            let intact = checksum(&block.to_le_bytes(), bitmap) == sum;
            for bit in 0..BLOCK_GROUPS {
                let group = block * BLOCK_GROUPS + bit;
                if bitmap[(bit / 8) as usize] >> (bit % 8) & 1 == 1 && group < limit {
                    have.insert(group);
                    if !intact {
                        damaged.insert(group);
                    }
                }
            }
        }
        Ok((have, damaged))
    }

    /// Records the membership of the blocks that `groups` touch.
    pub(super) fn record(&self, have: &GroupSet, groups: GroupRange) -> io::Result<()> {
        let blocks = groups.first / BLOCK_GROUPS..groups.end().div_ceil(BLOCK_GROUPS);
        for block in blocks {
            let first = block * BLOCK_GROUPS;
            let mut head = [0; HEAD_BYTES];
            for run in have.present_in(GroupRange::new(first, BLOCK_GROUPS)) {
                for bit in run.iter().map(|group| group - first) {
                    head[(bit / 8) as usize] |= 1 << (bit % 8);
                }
            }
            let sum = checksum(&block.to_le_bytes(), &head[..BITMAP_BYTES]);
            head[BITMAP_BYTES..].copy_from_slice(&sum);
            self.file.write_all_at(&head, PAGE + block * BLOCK_BYTES)?;
        }
        Ok(())
    }

    /// The digest of a node, when it is known. A digest that cannot be read is not known.
    pub(super) fn node(&self, node: Node) -> Option<Cv> {
        if !has_slot(node) {
            return None;
        }
        let slot = slot(node);
        // Held while it is read: what is written meanwhile is newer.
        let mut near = self.near.lock();
        if let Some(cv) = near.get(&slot) {
            return Some(*cv).filter(|cv| *cv != UNKNOWN);
        }
        let mut cv = UNKNOWN;
        let count = self.read_some(&mut cv, slot_offset(slot)).ok()?;
        let cv = if count == CV_BYTES { cv } else { UNKNOWN };
        remember(&mut near, slot, cv);
        Some(cv).filter(|cv| *cv != UNKNOWN)
    }

    /// Writes digests, neighbouring slots together. Every node must have a slot.
    pub(super) fn write_nodes(
        &self,
        nodes: impl IntoIterator<Item = (Node, Cv)>,
    ) -> io::Result<()> {
        let mut slots: Vec<(u64, Cv)> =
            nodes.into_iter().map(|(node, cv)| (slot(node), cv)).collect();
        slots.sort_unstable_by_key(|(slot, _)| *slot);
        let mut near = self.near.lock();
        slots.retain(|(slot, cv)| near.get(slot) != Some(cv));
        let adjacent =
            |a: &(u64, Cv), b: &(u64, Cv)| a.0 + 1 == b.0 && !b.0.is_multiple_of(BLOCK_SLOTS);
        let mut bytes = Vec::new();
        for run in slots.chunk_by(adjacent) {
            bytes.clear();
            run.iter().for_each(|(_, cv)| bytes.extend_from_slice(cv));
            if let Err(error) = self.file.write_all_at(&bytes, slot_offset(run[0].0)) {
                near.clear();
                return Err(error);
            }
            run.iter().for_each(|(slot, cv)| remember(&mut near, *slot, *cv));
        }
        Ok(())
    }
}

fn remember(near: &mut HashMap<u64, Cv>, slot: u64, cv: Cv) {
    if near.len() >= MOST_NEAR {
        near.clear();
    }
    near.insert(slot, cv);
}

/// Has a header say that it is of another format.
#[cfg(test)]
pub(super) fn renumber(page: &mut [u8], format: u32) {
    page[8..12].copy_from_slice(&format.to_le_bytes());
    let sum = checksum(b"header", &page[..88]);
    page[88..HEADER_BYTES].copy_from_slice(&sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_a_slot_of_its_own_beside_its_groups() {
        let mut seen = std::collections::HashSet::new();
        for level in 0..12u8 {
            for index in 0..(2048 >> level) {
                let slot = slot(Node::new(level, index));
                assert!(seen.insert(slot) && slot < 2 * 2048);
                assert!(slot_offset(slot).is_multiple_of(CV_BYTES as u64));
            }
        }
        assert!(!has_slot(Node::group(MAX_GROUPS)) && has_slot(Node::group(MAX_GROUPS - 1)));
        assert!(!has_slot(Node::new(48, 0)) && has_slot(Node::new(30, 0)));
    }

    #[test]
    fn damage_to_the_record_is_seen() {
        let file = tempfile::tempfile().unwrap();
        let state = StateFile::over(file.try_clone().unwrap());
        assert_eq!(state.header().unwrap(), HeaderPage::Empty);
        let header = Header { length: Some(1 << 30), boot: [3; 16], ..Header::default() };
        state.write_header(&header).unwrap();
        let have = GroupSet::from_ranges([GroupRange::new(510, 4)], 1024).unwrap();
        state.record(&have, GroupRange::new(510, 4)).unwrap();
        assert_eq!(state.header().unwrap(), HeaderPage::Valid(header));
        assert_eq!(state.recorded(header.length).unwrap(), (have.clone(), GroupSet::new()));

        file.write_all_at(&[0xff], PAGE + BLOCK_BYTES).unwrap();
        let (found, damaged) = state.recorded(header.length).unwrap();
        assert_eq!(damaged, GroupSet::from_ranges([GroupRange::new(512, 8)], 1024).unwrap());
        assert!(found.contains(510) && found.contains(519));
        file.write_all_at(&[1], 30).unwrap();
        assert_eq!(state.header().unwrap(), HeaderPage::Garbage);
    }

    #[test]
    fn a_newer_format_is_told_from_garbage() {
        let mut page = Header::default().encode();
        page[8] = 2;
        assert_eq!(Header::decode(&page), HeaderPage::Garbage);
        renumber(&mut page, 2);
        assert_eq!(Header::decode(&page), HeaderPage::Newer(2));
        assert_eq!(Header::decode(&page[..50]), HeaderPage::Garbage);
    }

    #[test]
    fn digests_survive_in_any_order_and_zero_is_unknown() {
        let state = StateFile::over(tempfile::tempfile().unwrap());
        let nodes =
            [Node::group(511), Node::new(1, 0), Node::group(0), Node::new(9, 0), Node::group(512)];
        state.write_nodes(nodes.map(|node| (node, [node.level + 1; 32]))).unwrap();
        for node in nodes {
            assert_eq!(state.node(node), Some([node.level + 1; 32]), "{node}");
        }
        assert_eq!(state.node(Node::group(1)), None);
        assert_eq!(state.node(Node::new(10, 0)), None);
        state.write_nodes([(nodes[0], [0; 32])]).unwrap();
        assert_eq!(state.node(nodes[0]), None);
    }
}
