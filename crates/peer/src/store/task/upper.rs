//! The part of a task that lies in memory over the disk.
//!
//! Invariant: a group is recorded in one layer, the one that it is read from; on disk only once it was written there.
//! If the process dies, what lies in memory is found again; if the machine does, it is not here any more. A step down
//! is: the bytes, what proves them, the record on disk, the record in memory, the memory. Where it ends half way the disk is right.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use dfs_model::{ByteRange, GROUP_BYTES, GroupRange};
use rustix::fs::fallocate;

use super::super::state::{Header, HeaderPage, StateFile};
use super::super::upper::Upper;
use super::holes::HOLE;
use super::{Opened, StoreError, StoredTask, end_of};
use crate::hashtree::{Cv, Node};

/// Groups that are put down at a time: 4 MiB, which a slow disk takes in a moment.
const STEP: u64 = 64;

/// The files of it.
#[derive(Debug)]
pub(super) struct UpperFiles {
    content: File,
    state: StateFile,
}

impl UpperFiles {
    fn open(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let content = options.open(dir.join("content"))?;
        Ok(Self { content, state: StateFile::open(&dir.join("state"))? })
    }
}

impl Opened {
    fn layer(&self) -> Option<&Upper> {
        self.directory.upper()
    }

    /// Takes up what lies in memory from an earlier process; what does not fit what is on disk is dropped.
    pub(super) fn find_upper(&self) -> io::Result<()> {
        let Some(upper) = self.layer().filter(|upper| upper.dir(self.id).exists()) else {
            return Ok(());
        };
        let files = UpperFiles::open(&upper.dir(self.id))?;
        let mut facts = self.facts.write();
        let length = facts.header.length;
        let fits = match files.state.header()? {
            HeaderPage::Valid(header) => {
                header.boot == self.directory.boot() && header.length == length
            }
            _ => false,
        };
        let (found, damaged) = files.state.recorded(length)?;
        let is_whole = files.content.metadata()?.len() >= end_of(&found, length);
        if !fits || !damaged.is_empty() || !is_whole {
            upper.remove(self.id);
            self.give_memory_back(u64::MAX);
            return Ok(());
        }
        // What is on disk too was put down; in no doubt is only what is here.
        for run in found.ranges() {
            let lacking: Vec<_> = facts.have.missing_in(run).collect();
            lacking.iter().for_each(|run| facts.upper.insert_range(*run));
        }
        let runs: Vec<_> = facts.upper.ranges().collect();
        runs.iter().for_each(|run| facts.have.insert_range(*run));
        self.presence.dirty.fetch_or(!runs.is_empty(), Relaxed);
        // Nobody else has it yet.
        let _ = self.upper.set(files);
        Ok(())
    }

    /// Less of the memory is taken by this task.
    pub(super) fn give_memory_back(&self, bytes: u64) {
        let less = |now: u64| Some(now.saturating_sub(bytes));
        let before = self.presence.upper.try_update(Relaxed, Relaxed, less).unwrap_or(0);
        if let Some(upper) = self.layer() {
            upper.release(before.min(bytes));
        }
    }

    fn upper_files(&self, upper: &Upper, header: &Header) -> io::Result<&UpperFiles> {
        if let Some(files) = self.upper.get() {
            return Ok(files);
        }
        let files = UpperFiles::open(&upper.dir(self.id))?;
        files.state.write_header(&Header { boot: self.directory.boot(), ..*header })?;
        Ok(self.upper.get_or_init(|| files))
    }

    /// Keeps new groups in memory; false where they are not new, or there is no room for them. The caller shares
    /// `holes`.
    pub(super) fn write_up(
        &self,
        groups: GroupRange,
        bytes: &[u8],
        nodes: &[(Node, Cv)],
    ) -> io::Result<bool> {
        let Some(upper) = self.layer().filter(|_| !self.presence.uses_reserve.load(Relaxed)) else {
            return Ok(false);
        };
        let taken = groups.count * GROUP_BYTES;
        let is_new = self.facts.read().have.present_in(groups).next().is_none();
        if !is_new || !upper.reserve(taken) {
            return Ok(false);
        }
        self.presence.upper.fetch_add(taken, Relaxed);
        let kept = self.keep_up(upper, groups, bytes, nodes);
        let kept_groups = *kept.as_ref().unwrap_or(&0);
        self.give_memory_back(taken - kept_groups * GROUP_BYTES);
        match kept {
            // Others fill the same file system: the disk has room.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(false),
            kept => kept.map(|_| true),
        }
    }

    /// How many groups are new.
    fn keep_up(
        &self,
        upper: &Upper,
        groups: GroupRange,
        bytes: &[u8],
        nodes: &[(Node, Cv)],
    ) -> io::Result<u64> {
        let header = self.facts.read().header;
        let files = self.upper_files(upper, &header)?;
        files.content.write_all_at(bytes, groups.first * GROUP_BYTES)?;
        files.state.write_nodes(nodes.iter().copied())?;
        let mut facts = self.facts.write();
        let new: Vec<_> = facts.have.missing_in(groups).collect();
        for run in &new {
            facts.have.insert_range(*run);
            facts.upper.insert_range(*run);
        }
        self.presence.dirty.store(true, Relaxed);
        let recorded = files.state.record(&facts.upper, groups);
        if recorded.is_err() {
            for run in &new {
                facts.have.remove_range(*run);
                facts.upper.remove_range(*run);
            }
        }
        recorded.map(|()| new.iter().map(|run| run.count).sum())
    }

    /// The digest of a node, of whichever layer: of memory first, since what came there last was proven then, and what
    /// the disk has of it may have rotted.
    pub(super) fn known(&self, node: Node) -> Option<Cv> {
        let in_memory = self.upper.get().and_then(|files| files.state.node(node));
        in_memory.or_else(|| self.state.node(node))
    }

    /// One past the last group that a digest may be known of.
    pub(super) fn nodes_up_to(&self) -> io::Result<u64> {
        let in_memory = self.upper.get().map_or(Ok(0), |files| files.state.groups())?;
        Ok(self.state.groups()?.max(in_memory))
    }

    /// Clears digests in memory.
    pub(super) fn forget_in_memory(&self, nodes: impl IntoIterator<Item = Node>) -> io::Result<()> {
        let Some(files) = self.upper.get() else { return Ok(()) };
        let known = nodes.into_iter().filter(|node| files.state.node(*node).is_some());
        files.state.write_nodes(known.map(|node| (node, [0; 32])))
    }

    /// The digests of `run` and of all above it, that came with it and that the disk has not, or not so, go there.
    fn put_nodes_down(&self, files: &UpperFiles, run: GroupRange) -> io::Result<()> {
        let last = run.end().saturating_sub(1);
        let over = (0..=Node::MAX_LEVEL).flat_map(|level| {
            (run.first >> level..=last >> level).map(move |index| Node::new(level, index))
        });
        let came = over.filter_map(|node| Some((node, files.state.node(node)?)));
        let lacking: Vec<_> =
            came.filter(|(node, cv)| self.state.node(*node) != Some(*cv)).collect();
        self.state.write_nodes(lacking)
    }

    /// The length is known from now on. The caller has locked the facts.
    pub(super) fn lengthen_upper(&self, header: &Header) -> io::Result<()> {
        let Some(files) = self.upper.get() else { return Ok(()) };
        files.state.write_header(&Header { boot: self.directory.boot(), ..*header })
    }

    /// Records what of `groups` is in memory. The caller has locked the facts that say so.
    pub(super) fn record_upper(
        &self,
        upper: &dfs_model::GroupSet,
        groups: GroupRange,
    ) -> io::Result<()> {
        self.upper.get().map_or(Ok(()), |files| files.state.record(upper, groups))
    }

    /// Gives the memory of groups back that are recorded there no more. The caller holds `holes` alone.
    pub(super) fn punch_upper(&self, run: GroupRange, groups: u64) -> io::Result<()> {
        let Some(files) = self.upper.get() else { return Ok(()) };
        fallocate(&files.content, HOLE, run.first * GROUP_BYTES, run.count * GROUP_BYTES)?;
        self.give_memory_back(groups * GROUP_BYTES);
        Ok(())
    }

    /// Bytes of memory that it takes, as far as its open files tell.
    pub(super) fn takes_of_memory(&self) -> u64 {
        let metadata = self.upper.get().and_then(|files| files.content.metadata().ok());
        metadata.map_or(0, |metadata| super::allocated(&metadata))
    }

    /// Reads from the layers that have it. What moves meanwhile is for the caller to notice.
    pub(super) fn read_layers(&self, buf: &mut [u8], start: u64) -> io::Result<()> {
        #[cfg(test)]
        self.interruption.happens();
        let Some(files) = self.upper.get() else { return self.content.read_exact_at(buf, start) };
        let range = ByteRange::at(start, buf.len() as u64);
        let groups = range.groups();
        let runs: Vec<_> = self.facts.read().upper.present_in(groups).collect();
        let mut at = start;
        let mut rest = buf;
        let ends = runs.iter().map(|run| (run.first * GROUP_BYTES, run.end() * GROUP_BYTES));
        for (from, to) in ends.chain([(range.end, range.end)]) {
            let (from, to) = (from.max(at), to.min(range.end));
            let (below, others) = rest.split_at_mut((from - at) as usize);
            self.content.read_exact_at(below, at)?;
            let (above, others) = others.split_at_mut((to - from) as usize);
            files.content.read_exact_at(above, from)?;
            (at, rest) = (to, others);
        }
        Ok(())
    }

    fn step_down(&self, files: &UpperFiles, run: GroupRange) -> io::Result<u64> {
        let length = self.length().unwrap_or(u64::MAX);
        let bytes = run.bytes(length);
        let before = {
            let _no_holes = self.holes.read();
            let before = {
                let facts = self.facts.read();
                if !facts.upper.contains_all(run) {
                    return Ok(0);
                }
                facts.taken_out
            };
            let mut buf = vec![0; bytes.len() as usize];
            files.content.read_exact_at(&mut buf, bytes.start)?;
            self.doubt_if_cut()?;
            self.content.write_all_at(&buf, bytes.start)?;
            // What waits for the disk would take memory a second time.
            if let Err(error) = self.content.sync_data() {
                // What was written before may be among what was lost, and nobody is told twice.
                self.give_up(&mut self.facts.write());
                return Err(error);
            }
            before
        };
        let _alone = self.holes.write();
        let mut facts = self.facts.write();
        if facts.taken_out != before {
            // What was copied may have been found bad meanwhile.
            return Ok(0);
        }
        self.put_nodes_down(files, run)?;
        facts.dirty(&self.state, self.directory.boot())?;
        facts.upper.remove_range(run);
        if let Err(error) = self.state.record(&facts.below(), run) {
            facts.upper.insert_range(run);
            return Err(error);
        }
        facts.taken_out += 1;
        self.record_upper(&facts.upper, run)?;
        drop(facts);
        self.punch_upper(run, run.count)?;
        Ok(run.count * GROUP_BYTES)
    }
}

impl StoredTask {
    /// Puts those of `groups` on disk that lie in memory, at most about so many bytes; how many. To be asked before the
    /// content file is read directly.
    pub fn put_down(&self, groups: GroupRange, most: u64) -> Result<u64, StoreError> {
        let opened = &*self.opened;
        let Some(files) = opened.upper.get() else { return Ok(0) };
        let runs: Vec<_> = opened.facts.read().upper.present_in(groups).collect();
        let mut moved = 0;
        for run in runs.into_iter().flat_map(|run| run.cut(STEP)) {
            if moved >= most {
                break;
            }
            let stepped = opened.step_down(files, run);
            moved += stepped.map_err(StoreError::write(opened.id, &opened.path))?;
        }
        opened.directory.measure(&opened.presence);
        Ok(moved)
    }

    /// Groups that lie in memory over the disk.
    #[cfg(test)]
    pub(in crate::store) fn upper(&self) -> dfs_model::GroupSet {
        self.opened.facts.read().upper.clone()
    }
}
