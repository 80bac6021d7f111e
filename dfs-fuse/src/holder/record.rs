//! What is known of a mount, in memory that outlives the process that wrote it.
//!
//! Two places take turns, so that a writer that dies half way leaves what was there before.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use dfs_proto::convert;
use dfs_proto::node::{KeptMount, NodeTable};
use rustix::fs::{FallocateFlags, MemfdFlags};

/// The format that is written and understood.
pub const FORMAT: u32 = 1;

/// Bytes of one of the two places: the head, and what it says follows.
const PLACE: u64 = 256 << 10;

/// Where tables of nodes lie, which take turns, too. Nothing is stored of what is between them.
const TABLES: [u64; 2] = [1 << 40, 2 << 40];

/// Longest table that is read: of more nodes than a kernel keeps.
const TABLE_BYTES: u64 = 1 << 30;

/// Number, length and digest.
const HEAD: usize = 8 + 8 + 32;

/// See the module.
#[derive(Debug)]
pub struct Record(File);

impl Record {
    /// A record of `kept`.
    pub fn of(kept: &KeptMount) -> io::Result<Self> {
        let memory = rustix::fs::memfd_create("dfs-mount", MemfdFlags::CLOEXEC)?;
        let record = Self(memory.into());
        record.write(kept)?;
        Ok(record)
    }

    /// The record behind a descriptor.
    pub fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self(descriptor.into())
    }

    /// Another hold on the same.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Replaces what it says. One writer at a time.
    pub fn write(&self, kept: &KeptMount) -> io::Result<()> {
        let bytes = convert::encode_kept_mount(kept);
        if bytes.len() as u64 > PLACE - HEAD as u64 {
            return Err(io::Error::other("a mount's record is too long"));
        }
        let (number, place) = match self.newest() {
            Some((number, place, _)) => (number + 1, 1 - place),
            None => (1, 0),
        };
        let mut whole = Vec::with_capacity(HEAD + bytes.len());
        whole.extend_from_slice(&u64::to_le_bytes(number));
        whole.extend_from_slice(&u64::to_le_bytes(bytes.len() as u64));
        whole.extend_from_slice(digest(number, &bytes).as_bytes());
        whole.extend_from_slice(&bytes);
        self.0.write_all_at(&whole, place * PLACE)
    }

    /// What it says.
    pub fn read(&self) -> io::Result<KeptMount> {
        let unreadable = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let (_, _, bytes) = self.newest().ok_or_else(|| unreadable("a mount's record is empty"))?;
        let kept =
            convert::decode_kept_mount(&bytes).map_err(|error| unreadable(&error.to_string()))?;
        match kept.format {
            FORMAT => Ok(kept),
            other => Err(unreadable(&format!("a mount's record has format {other}"))),
        }
    }

    /// Replaces what it says, and the table of nodes that belongs to it.
    pub fn write_with(&self, kept: KeptMount, nodes: &[u8]) -> io::Result<()> {
        let used = self
            .newest()
            .and_then(|(_, _, bytes)| Some(convert::decode_kept_mount(&bytes).ok()?.nodes?.offset));
        let [first, second] = TABLES;
        let offset = if used == Some(first) { second } else { first };
        let length = nodes.len() as u64;
        if length > TABLE_BYTES {
            return Err(io::Error::other("a mount's table of nodes is too long"));
        }
        self.0.write_all_at(nodes, offset)?;
        let digest = blake3::hash(nodes).as_bytes().to_vec().into();
        let table = (length > 0).then_some(NodeTable { offset, length, digest });
        self.write(&KeptMount { nodes: table, ..kept })?;
        if let Some(used) = used {
            // What stays there costs memory only.
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = rustix::fs::fallocate(&self.0, how, used, TABLE_BYTES);
        }
        Ok(())
    }

    /// The table of nodes that belongs to what it said.
    pub fn nodes(&self, of: &KeptMount) -> io::Result<Vec<u8>> {
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, "a mount's table of nodes is damaged");
        let Some(table) = &of.nodes else { return Ok(Vec::new()) };
        let length = usize::try_from(table.length.min(TABLE_BYTES)).map_err(|_| damaged())?;
        let mut nodes = vec![0; length];
        self.0.read_exact_at(&mut nodes, table.offset)?;
        let is_whole = blake3::hash(&nodes).as_bytes()[..] == table.digest[..];
        if is_whole { Ok(nodes) } else { Err(damaged()) }
    }

    /// The number, the place and the bytes of what was written last and whole.
    fn newest(&self) -> Option<(u64, u64, Vec<u8>)> {
        let written = [0, 1].into_iter().filter_map(|place| {
            let (number, bytes) = self.at(place)?;
            Some((number, place, bytes))
        });
        written.max_by_key(|(number, ..)| *number)
    }

    fn at(&self, place: u64) -> Option<(u64, Vec<u8>)> {
        let mut head = [0; HEAD];
        self.0.read_exact_at(&mut head, place * PLACE).ok()?;
        let number = u64::from_le_bytes(head[..8].try_into().ok()?);
        let length = u64::from_le_bytes(head[8..16].try_into().ok()?);
        if length > PLACE - HEAD as u64 {
            return None;
        }
        let mut bytes = vec![0; length as usize];
        self.0.read_exact_at(&mut bytes, place * PLACE + HEAD as u64).ok()?;
        (digest(number, &bytes).as_bytes()[..] == head[16..]).then_some((number, bytes))
    }
}

impl AsFd for Record {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn digest(number: u64, bytes: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes()).update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use dfs_proto::common;
    use dfs_proto::node::{
        ContentFile, EarlierSnapshot, LocalUser, MountedAt, OpenNode, Prefetch, ShownMount,
    };

    use super::*;

    /// A record of the first format, as it lay in memory: kept for ever, as somebody's agent is to go on with such a mount.
    const FIRST: &[u8] = include_bytes!("record/format-1");

    /// What it says: something of everything.
    fn first() -> KeptMount {
        let url = "http://origin/d/".to_owned();
        let view = common::View::Tree.into();
        let artifact = common::Artifact {
            url: url.clone(),
            view,
            files: 3,
            bytes: 70_000,
            ..Default::default()
        };
        let shown = ShownMount {
            target: Some(common::Target { url: url.clone(), ..Default::default() }),
            artifact: Some(artifact.clone()),
            path: b"below/\xff".to_vec().into(),
            user: Some(1000),
            reads_as: Some(LocalUser { uid: 1001, gid: 100 }),
            prefetch: Prefetch::Off.into(),
            uid: Some(5),
            gid: Some(6),
            view: common::View::Auto.into(),
            cache_quota: Some(64 << 20),
            follow_ms: 60_000,
            switches: 2,
            switched_unix_ms: 1_700_000_000_000,
            verify_reads: false,
            command: Default::default(),
        };
        let at = MountedAt { dir: b"/mnt/d".to_vec().into(), device: "0:77".to_owned(), name: url };
        KeptMount {
            format: 1,
            served: true,
            at: Some(at),
            capabilities: 0x1234_5678_9abc,
            generation: 3,
            shown: Some(shown),
            files: vec![ContentFile { space: 1, id: 9, device: 2049, inode: 4711 }],
            open: vec![OpenNode { node: 3 << 48 | 17, direct: true }],
            agents: 4,
            lazy: true,
            earlier: vec![EarlierSnapshot { generation: 2, artifact: Some(artifact) }],
            nodes: None,
        }
    }

    #[test]
    #[ignore = "writes the record of this format, for one that is written in another"]
    fn write() {
        let record = Record::of(&first()).unwrap();
        let mut bytes = vec![0; record.0.metadata().unwrap().len() as usize];
        record.0.read_exact_at(&mut bytes, 0).unwrap();
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/holder/record");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("format-{FORMAT}")), bytes).unwrap();
    }

    #[test]
    fn what_the_first_release_wrote_down_of_a_mount_is_understood() {
        let memory = rustix::fs::memfd_create("dfs-test", MemfdFlags::CLOEXEC).unwrap();
        let record = Record::from_descriptor(memory);
        record.0.write_all_at(FIRST, 0).unwrap();
        assert_eq!(record.read().unwrap(), first());
        // It is gone on with in the same place.
        record.write(&of_generation(4)).unwrap();
        assert_eq!(record.read().unwrap().generation, 4);
    }

    fn of_generation(generation: u32) -> KeptMount {
        KeptMount { format: FORMAT, generation, ..KeptMount::default() }
    }

    #[test]
    fn what_was_written_last_is_read_also_by_who_has_another_hold_on_it() {
        let record = Record::of(&of_generation(1)).unwrap();
        let other = Record::from_descriptor(record.as_fd().try_clone_to_owned().unwrap());
        for generation in 1..10 {
            assert_eq!(other.read().unwrap().generation, generation);
            record.write(&of_generation(generation + 1)).unwrap();
        }
    }

    #[test]
    fn a_write_that_was_cut_off_anywhere_leaves_what_was_there_before() {
        let record = Record::of(&of_generation(1)).unwrap();
        let length = record.0.metadata().unwrap().len();
        record.write(&of_generation(2)).unwrap();
        let written = record.0.metadata().unwrap().len();
        for cut in PLACE..written {
            record.0.set_len(cut).unwrap();
            assert_eq!(record.read().unwrap().generation, 1, "cut at {cut}");
        }
        assert!(length < PLACE);
    }

    #[test]
    fn a_table_of_nodes_belongs_to_what_was_written_with_it() {
        let record = Record::of(&of_generation(0)).unwrap();
        assert_eq!(record.nodes(&record.read().unwrap()).unwrap(), b"");
        for generation in 1..5 {
            let nodes = vec![generation as u8; 100_000];
            let before = record.read().unwrap();
            record.write_with(of_generation(generation), &nodes).unwrap();
            let after = record.read().unwrap();
            assert_eq!(after.generation, generation);
            assert_eq!(record.nodes(&after).unwrap(), nodes);
            assert!(generation == 1 || record.nodes(&before).is_err(), "its room was given back");
            record.write(&KeptMount { agents: 7, ..after.clone() }).unwrap();
            assert_eq!(record.nodes(&record.read().unwrap()).unwrap(), nodes);
        }
        let blocks = rustix::fs::fstat(&record.0).unwrap().st_blocks;
        assert!(blocks < 4096, "{blocks} blocks are stored");
    }

    #[test]
    fn a_table_that_was_cut_off_leaves_the_one_before() {
        let record = Record::of(&of_generation(0)).unwrap();
        record.write_with(of_generation(1), b"first").unwrap();
        // Its writer died before it wrote down where it lies.
        record.0.write_all_at(b"half of the second", TABLES[1]).unwrap();
        let read = record.read().unwrap();
        assert_eq!(record.nodes(&read).unwrap(), b"first");
        record.0.write_all_at(b"F", TABLES[0]).unwrap();
        assert!(record.nodes(&read).is_err());
    }

    #[test]
    fn a_later_format_and_no_record_at_all_are_told() {
        let later = KeptMount { format: FORMAT + 1, ..KeptMount::default() };
        let told = |record: &Record| record.read().unwrap_err().to_string();
        assert!(told(&Record::of(&later).unwrap()).contains("format 2"));
        let empty = rustix::fs::memfd_create("dfs-test", MemfdFlags::CLOEXEC).unwrap();
        assert!(told(&Record::from_descriptor(empty)).contains("empty"));
    }
}
