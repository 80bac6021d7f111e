//! The file `signed`: batches as their signers sent them, appended, so that children can be given them.
//!
//! ```text
//! magic with format, then records {length u32, checksum 8 bytes, encoded batch or appointment}
//! ```
//! A damaged record is skipped, a torn tail cut off: what is lost here the scheduler tells again. In
//! memory only the position of the batch that holds the highest digest over each group.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{GroupRange, GroupSet};

use crate::digests::{Appointment, MOST_APPOINTED, SignedDigests};
use crate::hashtree::Node;

const MAGIC: &[u8; 8] = b"DFSSIGN1";
const RECORD_HEAD: usize = 4 + 8;

#[derive(Debug)]
pub(super) struct SignedLog {
    file: File,
    end: u64,
    /// Where the batch with this node's digest lies; never a node below another one here.
    index: BTreeMap<Node, u64>,
    /// Where a batch lies that tells the content's length.
    length_at: Option<u64>,
    /// Who was made to sign beside the seeds, the oldest first.
    appointments: VecDeque<Appointment>,
    /// Batches that were read lately, by where they lie, and the digests in them together: one is given with every
    /// group that it is about.
    near: HashMap<u64, Arc<SignedDigests>>,
    near_digests: usize,
}

/// Most digests in the batches that are remembered: 200 KiB.
const MOST_NEAR: usize = 4096;

fn checksum(payload: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(&blake3::hash(payload).as_bytes()[..8]);
    sum
}

/// The bytes of a record, and whether they are as they were written. None past the last one.
fn read_record(file: &File, at: u64) -> Option<(Vec<u8>, bool)> {
    let mut head = [0; RECORD_HEAD];
    file.read_exact_at(&mut head, at).ok()?;
    let (length, sum) = head.split_at(4);
    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
    if length == 0 || length > SignedDigests::MAX_BYTES {
        return None;
    }
    let mut payload = vec![0; length];
    file.read_exact_at(&mut payload, at + RECORD_HEAD as u64).ok()?;
    let intact = checksum(&payload) == sum;
    Some((payload, intact))
}

impl SignedLog {
    /// Opens the log and finds what is in it. A file of another kind starts anew.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path)?;
        let mut magic = [0; 8];
        if file.read_exact_at(&mut magic, 0).is_err() || &magic != MAGIC {
            file.set_len(0)?;
            file.write_all_at(MAGIC, 0)?;
        }
        let log = Self::load(file);
        log.file.set_len(log.end)?;
        Ok(log)
    }

    /// A log that is only looked at; none where there is no file of this kind.
    pub(super) fn glance(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let mut magic = [0; 8];
        let is_log = file.read_exact_at(&mut magic, 0).is_ok() && &magic == MAGIC;
        is_log.then(|| Self::load(file))
    }

    fn load(file: File) -> Self {
        let end = MAGIC.len() as u64;
        let mut log = Self {
            file,
            end,
            index: BTreeMap::new(),
            length_at: None,
            appointments: VecDeque::new(),
            near: HashMap::new(),
            near_digests: 0,
        };
        while let Some((payload, intact)) = read_record(&log.file, log.end) {
            match SignedDigests::decode(&payload) {
                Ok(signed) if intact => log.remember(&signed, log.end),
                Err(_) if intact => log.appointments.extend(Appointment::decode(&payload)),
                _ => {}
            }
            log.forget_oldest();
            log.end += (RECORD_HEAD + payload.len()) as u64;
        }
        log
    }

    /// The groups among `groups` over which a digest is known.
    pub(super) fn covered(&self, groups: &GroupSet) -> GroupSet {
        let mut covered = GroupSet::new();
        for node in self.index.keys() {
            groups.present_in(node.unclipped()).for_each(|run| covered.insert_range(run));
        }
        covered
    }

    /// Batches of at most `limit` bytes together, as they were signed: one that tells the length, then those
    /// with the highest digests, of these the newest first.
    pub(super) fn best(&self, limit: usize) -> Vec<Bytes> {
        let highest = self.index.iter().map(|(node, at)| (node.level, *at));
        let mut places: Vec<(u8, u64)> = highest.collect();
        places.sort_unstable_by(|a, b| b.cmp(a));
        let places = self.length_at.into_iter().chain(places.into_iter().map(|(_, at)| at));
        let (mut seen, mut left, mut batches) = (BTreeSet::new(), limit, Vec::new());
        for at in places.filter(|at| seen.insert(*at)) {
            let Some((payload, true)) = read_record(&self.file, at) else { continue };
            let Some(rest) = left.checked_sub(payload.len()) else { break };
            left = rest;
            batches.push(payload.into());
        }
        batches
    }

    /// The appointments of those who signed these batches.
    pub(super) fn appointments_for(&self, batches: &[Bytes]) -> Vec<Bytes> {
        let signers: BTreeSet<_> =
            batches.iter().filter_map(|batch| SignedDigests::signer_of(batch)).collect();
        let theirs = self.appointments.iter().filter(|one| signers.contains(&one.host));
        theirs.map(Appointment::encode).collect()
    }

    fn forget_oldest(&mut self) {
        let beyond = self.appointments.len().saturating_sub(MOST_APPOINTED);
        self.appointments.drain(..beyond);
    }

    /// Keeps an appointment, once.
    pub(super) fn appoint(&mut self, appointment: &Appointment) -> io::Result<()> {
        if self.appointments.contains(appointment) {
            return Ok(());
        }
        self.write(&appointment.encode())?;
        self.appointments.push_back(appointment.clone());
        self.forget_oldest();
        Ok(())
    }

    /// The levels at which digests are known, lowest first.
    fn levels(&self) -> Vec<u8> {
        let mut levels = Vec::new();
        let mut from = Node::new(0, 0);
        while let Some((node, _)) = self.index.range(from..).next() {
            levels.push(node.level);
            from = Node::new(node.level + 1, 0);
        }
        levels
    }

    fn is_below_another(&self, node: Node, levels: &[u8]) -> bool {
        let above = levels.iter().filter(|level| **level > node.level);
        above
            .map(|level| Node::new(*level, node.index >> (level - node.level)))
            .any(|node| self.index.contains_key(&node))
    }

    fn remember(&mut self, signed: &SignedDigests, at: u64) {
        if signed.batch().length.is_some() {
            self.length_at = Some(at);
        }
        let mut levels = self.levels();
        for (node, _) in &signed.batch().entries {
            if self.is_below_another(*node, &levels) {
                continue;
            }
            for level in levels.iter().filter(|level| **level < node.level) {
                let below = node.unclipped();
                let (first, end) = (below.first >> level, below.end() >> level);
                let covered: Vec<_> = self
                    .index
                    .range(Node::new(*level, first)..Node::new(*level, end))
                    .map(|(node, _)| *node)
                    .collect();
                for node in covered {
                    self.index.remove(&node);
                }
            }
            if !levels.contains(&node.level) {
                levels.push(node.level);
            }
            self.index.insert(*node, at);
        }
    }

    /// Whether the batch tells nothing that the log does not tell.
    pub(super) fn knows(&self, signed: &SignedDigests) -> bool {
        let batch = signed.batch();
        let levels = self.levels();
        let known =
            |node: Node| self.index.contains_key(&node) || self.is_below_another(node, &levels);
        (batch.length.is_none() || self.length_at.is_some())
            && batch.entries.iter().all(|(node, _)| known(*node))
    }

    /// Whether a digest over `group` is known.
    pub(super) fn covers(&self, group: u64) -> bool {
        let node = Node::group(group);
        self.index.contains_key(&node) || self.is_below_another(node, &self.levels())
    }

    /// Adds a batch. A failed write leaves no trace: the next one overwrites it.
    pub(super) fn append(&mut self, signed: &SignedDigests) -> io::Result<()> {
        let at = self.write(&signed.encode())?;
        self.remember(signed, at);
        Ok(())
    }

    /// Adds a record; says where.
    fn write(&mut self, payload: &[u8]) -> io::Result<u64> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut record = Vec::with_capacity(RECORD_HEAD + payload.len());
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(&checksum(payload));
        record.extend_from_slice(payload);
        let at = self.end;
        self.file.write_all_at(&record, at)?;
        self.end += record.len() as u64;
        Ok(at)
    }

    /// Bytes in it behind its name, as far as they were written.
    pub(super) fn len(&self) -> u64 {
        self.end - MAGIC.len() as u64
    }

    /// The batches with the highest digests over `groups`, and one that tells the length.
    pub(super) fn batches_for(&mut self, groups: GroupRange) -> Vec<Arc<SignedDigests>> {
        let mut places: BTreeSet<u64> = self.length_at.into_iter().collect();
        if let Some(last) = groups.end().checked_sub(1).filter(|_| !groups.is_empty()) {
            for level in self.levels() {
                let from = Node::new(level, groups.first >> level);
                let to = Node::new(level, last >> level);
                places.extend(self.index.range(from..=to).map(|(_, at)| *at));
            }
        }
        places.into_iter().filter_map(|at| self.batch_at(at)).collect()
    }

    /// The batch that lies there; none where it is damaged.
    fn batch_at(&mut self, at: u64) -> Option<Arc<SignedDigests>> {
        if let Some(batch) = self.near.get(&at) {
            return Some(Arc::clone(batch));
        }
        let (payload, _) = read_record(&self.file, at).filter(|(_, intact)| *intact)?;
        let batch = Arc::new(SignedDigests::decode(&payload).ok()?);
        if self.near_digests >= MOST_NEAR {
            self.near.clear();
            self.near_digests = 0;
        }
        // One without digests takes memory too.
        self.near_digests += batch.batch().entries.len().max(1);
        self.near.insert(at, Arc::clone(&batch));
        Some(batch)
    }
}
