//! One kept task: its bytes, which groups of them are there, and the digests that prove them.

mod doubt;
mod ends;
mod holes;
mod mapped;
mod read;
mod salvage;
mod signatures;
mod sole;
mod upper;

use upper::UpperFiles;

pub use doubt::Check;
pub(super) use ends::Wanted;
pub use ends::{EndGuard, Ends};
pub use holes::TakenOut;
pub use read::Verify;

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dfs_model::{GROUP_BYTES, GroupRange, GroupSet, TaskId, groups_in};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::directory::{Directory, Share, allocated};
use super::signed::SignedLog;
use super::state::{self, Header, HeaderPage, MAX_GROUPS, StateFile};
use super::uses::Presence;
use super::{DirectGuard, Reads, StoreError, Use, UseGuard};
use crate::hashtree::{ContentError, Cv, Node, Shape};

/// A kept task; cheap to clone. Holding one does not keep it from being evicted: a [`Use`] does.
#[derive(Debug, Clone)]
pub struct StoredTask {
    opened: Arc<Opened>,
}

/// The open files of a task and what is known of them. One per task at a time.
#[derive(Debug)]
pub(super) struct Opened {
    id: TaskId,
    path: PathBuf,
    directory: Arc<Directory>,
    presence: Arc<Presence>,
    content: File,
    state: StateFile,
    /// Opened at first need.
    signed: Mutex<Option<SignedLog>>,
    facts: RwLock<Facts>,
    /// Held by who makes a hole in the content, and shared by who writes to it or judges what it finds in it.
    holes: RwLock<()>,
    /// Opened when something of it lies in memory over the disk.
    upper: OnceLock<UpperFiles>,
    #[cfg(test)]
    interruption: holes::Interruption,
}

/// What is recorded. Nothing is added here before it is on disk.
#[derive(Debug)]
struct Facts {
    /// As on disk.
    header: Header,
    /// The groups whose bytes were written and recorded.
    have: GroupSet,
    /// Those of them to be hashed again before they are used. While there are any, the header on disk
    /// names no boot, so that the next start doubts them too.
    doubt: GroupSet,
    /// Those of them that lie in memory over the disk, and not there.
    upper: GroupSet,
    /// How often something was taken out of the content, since the files were opened: who read meanwhile may have read
    /// a hole.
    taken_out: u64,
}

impl Facts {
    /// What the state file says, judged by whether this boot is the one it was written in.
    fn load(id: TaskId, (state, content): (&StateFile, &File), boot: [u8; 16]) -> io::Result<Self> {
        let header = match state.header()? {
            HeaderPage::Valid(header) => header,
            page => {
                if page == HeaderPage::Garbage {
                    tracing::warn!(task = %id, "the state of a task is damaged: it is verified anew");
                }
                state.reset()?;
                let header = Header { boot, ..Header::default() };
                state.write_header(&header)?;
                let nothing = GroupSet::new;
                let (have, doubt, upper) = (nothing(), nothing(), nothing());
                return Ok(Self { header, have, doubt, upper, taken_out: 0 });
            }
        };
        let (have, damaged) = state.recorded(header.length)?;
        let same_boot = header.boot == boot && boot != [0; 16];
        let trusted = match header.is_clean() {
            true => header.clean == state::clean_mark(header.length, &have, &content.metadata()?),
            false => same_boot,
        } && content.metadata()?.len() >= end_of(&have, header.length);
        let doubt = if trusted { damaged } else { have.clone() };
        let mut facts = Self { header, have, doubt, upper: GroupSet::new(), taken_out: 0 };
        if !facts.doubt.is_empty() {
            facts.dirty(state, boot)?;
        }
        Ok(facts)
    }

    /// What is on disk.
    fn below(&self) -> GroupSet {
        let mut below = self.have.clone();
        below.remove_all(&self.upper);
        below
    }

    /// Nothing is believed any more that was recorded on disk: all of it is hashed again before it is used.
    fn doubt_all(&mut self, state: &StateFile, boot: [u8; 16]) -> io::Result<()> {
        self.doubt = self.below();
        self.dirty(state, boot)
    }

    /// To be called before anything is recorded: the clean mark goes, this boot is named.
    fn dirty(&mut self, state: &StateFile, boot: [u8; 16]) -> io::Result<()> {
        let boot = if self.doubt.is_empty() { boot } else { [0; 16] };
        let header = Header { boot, clean: [0; 32], ..self.header };
        if header != self.header {
            state.write_header(&header)?;
            self.header = header;
        }
        Ok(())
    }
}

/// Where what was recorded of a content ends, in bytes.
fn end_of(have: &GroupSet, length: Option<u64>) -> u64 {
    let end = have.span().map_or(0, |span| span.end() * GROUP_BYTES);
    length.map_or(end, |length| end.min(length))
}

/// The state file of a task, and whether there was one that cannot be read. That of a newer release is set aside for
/// it; the content stays in any case.
fn open_state(id: TaskId, path: &Path) -> io::Result<(StateFile, bool)> {
    let state = StateFile::open(path)?;
    match state.header()? {
        HeaderPage::Newer(format) => {
            tracing::warn!(task = %id, format, "a newer release kept this task: it is verified anew");
            fs::rename(path, path.with_extension(format.to_string()))?;
            Ok((StateFile::open(path)?, true))
        }
        page => Ok((state, page == HeaderPage::Garbage)),
    }
}

impl Opened {
    pub(super) fn open(
        id: TaskId,
        directory: &Arc<Directory>,
        presence: &Arc<Presence>,
    ) -> Result<Self, StoreError> {
        let path = directory.path(id);
        let content_path = path.join("content");
        let content = directory.open_content(&content_path);
        let content = content.map_err(StoreError::write(id, &content_path))?;
        let state_path = path.join("state");
        let failed = || StoreError::write(id, &state_path);
        let (state, is_lost) = open_state(id, &state_path).map_err(failed())?;
        let facts = Facts::load(id, (&state, &content), directory.boot()).map_err(failed())?;
        presence.dirty.fetch_or(!facts.header.is_clean(), Relaxed);
        let (directory, presence) = (Arc::clone(directory), Arc::clone(presence));
        let (signed, facts) = (Mutex::new(None), RwLock::new(facts));
        let holes = RwLock::default();
        let upper = OnceLock::new();
        let opened = Self {
            id,
            path,
            directory,
            presence,
            content,
            state,
            signed,
            facts,
            holes,
            upper,
            #[cfg(test)]
            interruption: holes::Interruption::default(),
        };
        if is_lost {
            opened.salvage().map_err(failed())?;
        }
        opened.find_upper().map_err(failed())?;
        opened.directory.measure(&opened.presence);
        Ok(opened)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.directory.note_read(&self.presence);
        if self.presence.check().is_err() {
            // It was taken away, and what came since is nobody's.
            self.give_memory_back(u64::MAX);
        }
    }
}

impl StoredTask {
    pub(super) fn new(opened: Arc<Opened>) -> Self {
        Self { opened }
    }

    /// Its name.
    pub fn id(&self) -> TaskId {
        self.opened.id
    }

    /// Lets it take what content leaves free: for what others cannot be read without.
    pub fn use_reserve(&self) {
        self.opened.presence.uses_reserve.store(true, Relaxed);
    }

    fn share(&self) -> Share {
        match self.opened.presence.uses_reserve.load(Relaxed) {
            true => Share::Reserve,
            false => Share::Content,
        }
    }

    /// Whether it was taken away.
    pub fn is_gone(&self) -> bool {
        self.opened.presence.check().is_err()
    }

    /// Bytes in the content, once known.
    pub fn length(&self) -> Option<u64> {
        self.opened.facts.read().header.length
    }

    /// The geometry of its tree, as far as known.
    pub fn shape(&self) -> Shape {
        Shape::new(self.length())
    }

    /// Records the content's length. Refused when it contradicts what is known.
    pub fn set_length(&self, length: u64) -> Result<(), StoreError> {
        let opened = &*self.opened;
        opened.presence.check()?;
        let refuse = |reason| StoreError::Length { task: opened.id, claimed: length, reason };
        if groups_in(length) > MAX_GROUPS {
            return Err(StoreError::TooLong { task: opened.id, claimed: length });
        }
        let mut facts = opened.facts.write();
        match facts.header.length {
            Some(known) if known == length => return Ok(()),
            Some(_) => return Err(refuse("another length is known")),
            None => {}
        }
        let last = facts.have.ranges().last().map_or(0, |range| range.end());
        if last * GROUP_BYTES > length {
            return Err(refuse("more is here already"));
        }
        let written = opened.lengthen(length).and_then(|()| {
            facts.dirty(&opened.state, opened.directory.boot())?;
            // What had a chaining value while it might have been followed by more is the root now.
            let shape = Shape::known(length);
            let root = shape.root().filter(|root| state::has_slot(*root));
            if let Some(root) = root.filter(|root| *root == Node::group(0)) {
                facts.have.remove(0);
                facts.upper.remove(0);
                facts.taken_out += 1;
                opened.record_upper(&facts.upper, root.unclipped())?;
                opened.state.record(&facts.below(), root.unclipped())?;
            }
            opened.state.write_nodes(root.map(|root| (root, [0; 32])))?;
            opened.forget_in_memory(root)?;
            let header = Header { length: Some(length), ..facts.header };
            opened.state.write_header(&header)?;
            opened.lengthen_upper(&header)?;
            facts.header = header;
            Ok(())
        });
        opened.presence.dirty.store(true, Relaxed);
        written.map_err(StoreError::write(opened.id, &opened.path))
    }

    /// How long it is kept after its last read; none for what the store does by default.
    pub fn set_ttl(&self, ttl: Option<Duration>) -> Result<(), StoreError> {
        let opened = &*self.opened;
        // Zero stands for none of its own: the shortest is a second.
        let seconds = ttl.map_or(0, |ttl| ttl.as_secs().max(1));
        let mut facts = opened.facts.write();
        let header = Header { ttl: seconds, ..facts.header };
        opened.state.write_header(&header).map_err(StoreError::write(opened.id, &opened.path))?;
        facts.header = header;
        opened.presence.ttl.store(seconds, Relaxed);
        Ok(())
    }

    /// A copy of the set of groups that are here, those in doubt after an unclean reboot included: one
    /// of these may still turn out to be missing when it is read.
    pub fn have(&self) -> GroupSet {
        self.opened.facts.read().have.clone()
    }

    /// Whether all of `groups` are here, as [`StoredTask::have`] counts.
    pub fn has(&self, groups: GroupRange) -> bool {
        groups.end() <= MAX_GROUPS && self.opened.facts.read().have.contains_all(groups)
    }

    /// The runs of `groups` that are here, as [`StoredTask::have`] counts.
    pub fn present_in(&self, groups: GroupRange) -> Vec<GroupRange> {
        self.opened.facts.read().have.present_in(groups).collect()
    }

    /// The runs of `groups` that are not here; groups that no task can have are left out.
    pub fn missing_in(&self, groups: GroupRange) -> Vec<GroupRange> {
        let groups = groups.intersection(GroupRange::new(0, MAX_GROUPS));
        self.opened.facts.read().have.missing_in(groups).collect()
    }

    /// Whether every byte is here, on disk, and none in doubt: its content file can be read as it is.
    pub fn complete(&self) -> bool {
        let facts = self.opened.facts.read();
        let groups = facts.header.length.map(groups_in);
        facts.doubt.is_empty()
            && facts.upper.is_empty()
            && groups.is_some_and(|groups| facts.have.len() == groups)
    }

    /// Keeps verified groups: their bytes, then the nodes that were proven with them, then the record
    /// that they are here. `nodes` must hold each group's own node, or they are fetched again after an
    /// unclean reboot. Without space nothing is recorded.
    pub fn commit(
        &self,
        groups: GroupRange,
        bytes: &[u8],
        nodes: &[(Node, Cv)],
    ) -> Result<(), StoreError> {
        let opened = &*self.opened;
        opened.presence.check()?;
        let shape = self.shape();
        opened.check_bytes(shape, groups, bytes.len() as u64)?;
        opened.check_nodes(shape, nodes)?;
        let _no_holes = opened.holes.read();
        let (new, unsure) = {
            let facts = opened.facts.read();
            let new: u64 = facts.have.missing_in(groups).map(|run| run.count).sum();
            (new, facts.doubt.present_in(groups).next().is_some())
        };
        let new_bytes = (new * GROUP_BYTES).min(bytes.len() as u64);
        if !opened.directory.reserve(new_bytes, self.share()) {
            return Err(self.full());
        }
        let is_written = new == 0 && !unsure;
        #[cfg(test)]
        opened.interruption.happens();
        let written = match is_written && opened.write_proof(groups, nodes)? {
            true => Ok(()),
            false => opened.write(groups, bytes, nodes),
        };
        opened.recount(new_bytes);
        written
    }

    /// That there is no room for more of it.
    pub fn full(&self) -> StoreError {
        let (dir, limit) = (self.opened.path.clone(), self.opened.directory.capacity());
        StoreError::NoSpace { task: self.opened.id, dir, limit }
    }

    /// Whether the capacity allows to keep those of `groups` that are not here.
    pub fn has_room_for(&self, groups: GroupRange) -> bool {
        let missing: u64 = self.missing_in(groups).iter().map(|run| run.count).sum();
        missing == 0 || self.room() >= missing * GROUP_BYTES
    }

    /// Bytes that the store may still take, before anything is evicted.
    pub fn room(&self) -> u64 {
        self.opened.directory.room(self.share())
    }

    /// Keeps digests that were proven with groups which are not kept themselves: they prove others to children,
    /// and take a two-thousandth of the space.
    pub fn keep_nodes(&self, nodes: &[(Node, Cv)]) -> Result<(), StoreError> {
        let opened = &*self.opened;
        opened.presence.check()?;
        opened.check_nodes(self.shape(), nodes)?;
        opened.presence.dirty.store(true, Relaxed);
        let written = opened.state.write_nodes(nodes.iter().copied());
        opened.recount(0);
        written.map_err(StoreError::write(opened.id, &opened.path))
    }

    /// The digest of a node, when it is known: proven with some groups, or signed.
    pub fn node(&self, node: Node) -> Option<Cv> {
        self.opened.known(self.shape().canonical(node)?)
    }

    /// The file with every byte at its final offset, for those who read it directly: only groups that
    /// are here, and only while they hold a use.
    pub fn content_file(&self) -> &File {
        &self.opened.content
    }

    /// Where that file is.
    pub fn content_path(&self) -> PathBuf {
        self.opened.path.join("content")
    }

    /// For who reads the content file directly: until the guard is dropped, or a while longer, nothing is taken out of
    /// it. To be asked before [`StoredTask::ready`].
    pub fn read_directly(&self, reads: Reads) -> DirectGuard {
        self.opened.presence.begin_direct(reads)
    }

    /// Begins a use, during which the task is never taken away. Refused when it has been already.
    pub fn in_use(&self, reason: Use) -> Result<UseGuard, StoreError> {
        self.opened.presence.check()?;
        self.opened.presence.begin(reason)
    }

    /// The caller's own record, if there is one.
    pub fn record<T: DeserializeOwned>(&self) -> Result<Option<T>, StoreError> {
        read_record(self.opened.id, &self.opened.path)
    }

    /// Whether the caller has left a record, readable or not.
    pub fn has_record(&self) -> bool {
        self.opened.path.join("record.json").exists()
    }

    /// Replaces the caller's own record, all or nothing.
    pub fn write_record<T: Serialize>(&self, record: &T) -> Result<(), StoreError> {
        let opened = &*self.opened;
        opened.presence.check()?;
        let malformed = |source| StoreError::Record { task: opened.id, source };
        let text = serde_json::to_vec_pretty(record).map_err(malformed)?;
        let path = opened.path.join("record.json");
        let draft = opened.path.join("record.json.new");
        // One writer at a time: they share the draft.
        let _facts = opened.facts.write();
        if fs::read(&path).is_ok_and(|there| there == text) {
            // A full disk keeps nobody from opening what is here.
            return Ok(());
        }
        let written = write_private(&draft, &text).and_then(|()| fs::rename(&draft, &path));
        opened.directory.measure(&opened.presence);
        written.map_err(StoreError::write(opened.id, &path))
    }

    /// Makes everything recorded durable, and says so in the header. What cannot be is given up.
    pub(super) fn mark_clean(&self) {
        let opened = &*self.opened;
        let mut facts = opened.facts.write();
        if !facts.doubt.is_empty() {
            return;
        }
        // With its times, which the mark names.
        let synced = opened.content.sync_all().and_then(|()| opened.state.sync());
        let marked = synced.and_then(|()| {
            let content = opened.content.metadata()?;
            let clean = state::clean_mark(facts.header.length, &facts.below(), &content);
            let header = Header { boot: opened.directory.boot(), clean, ..facts.header };
            opened.state.write_header(&header)?;
            opened.state.sync()?;
            Ok(header)
        });
        let Ok(header) = marked else { return opened.give_up(&mut facts) };
        facts.header = header;
        opened.presence.dirty.store(false, Relaxed);
    }
}

impl Opened {
    pub(super) fn have(&self) -> GroupSet {
        self.facts.read().have.clone()
    }

    pub(super) fn length(&self) -> Option<u64> {
        self.facts.read().header.length
    }

    /// Bytes that it takes on disk, as far as its open files tell.
    fn takes(&self) -> u64 {
        let of =
            |metadata: io::Result<Metadata>| metadata.map_or(0, |metadata| allocated(&metadata));
        let on_disk = of(self.content.metadata()) + of(self.state.metadata());
        on_disk + self.takes_of_memory() + self.presence.aside.load(Relaxed)
    }

    /// Counts anew what it takes, of which so much was `reserved`; never less than before: some file systems count
    /// what was written only later.
    fn recount(&self, reserved: u64) {
        self.presence.recount(&self.directory, reserved, |before| self.takes().max(before));
    }

    fn check_bytes(&self, shape: Shape, groups: GroupRange, got: u64) -> Result<(), StoreError> {
        let refuse = |source| Err(StoreError::Content { task: self.id, source });
        let expected = shape.bytes_in(groups).filter(|_| groups.end() <= MAX_GROUPS);
        match expected {
            None => refuse(ContentError::NoSuchGroup { group: groups.end().saturating_sub(1) }),
            Some(expected) if expected != got => {
                refuse(ContentError::WrongLength { groups, expected, got })
            }
            Some(_) => Ok(()),
        }
    }

    fn check_nodes(&self, shape: Shape, nodes: &[(Node, Cv)]) -> Result<(), StoreError> {
        match nodes.iter().find(|(node, _)| !self.keeps(shape, *node)) {
            Some((node, _)) => Err(StoreError::Misplaced { task: self.id, node: *node }),
            None => Ok(()),
        }
    }

    fn keeps(&self, shape: Shape, node: Node) -> bool {
        shape.canonical(node) == Some(node) && state::has_slot(node)
    }

    fn lengthen(&self, length: u64) -> io::Result<()> {
        // Never shorter: somebody may have it mapped.
        if self.content.metadata()?.len() < length {
            self.content.set_len(length)?;
        }
        Ok(())
    }

    /// What proves groups that were here; whether they still are then: what was found bad meanwhile has to be written again.
    fn write_proof(&self, groups: GroupRange, nodes: &[(Node, Cv)]) -> Result<bool, StoreError> {
        let written = self.state.write_nodes(nodes.iter().copied());
        written.map_err(StoreError::write(self.id, &self.path))?;
        let facts = self.facts.read();
        let is_here = facts.have.missing_in(groups).next().is_none();
        Ok(is_here && facts.doubt.present_in(groups).next().is_none())
    }

    /// The bytes, then what proves them, then the record.
    fn write(
        &self,
        groups: GroupRange,
        bytes: &[u8],
        nodes: &[(Node, Cv)],
    ) -> Result<(), StoreError> {
        let up = self.write_up(groups, bytes, nodes);
        if up.map_err(StoreError::write(self.id, &self.path))? {
            return Ok(());
        }
        // What is written behind a cut would make zeros of what is gone.
        let written = self
            .doubt_if_cut()
            .and_then(|()| self.content.write_all_at(bytes, groups.first * GROUP_BYTES));
        written.map_err(StoreError::write(self.id, &self.path.join("content")))?;
        let recorded =
            self.state.write_nodes(nodes.iter().copied()).and_then(|()| self.record(groups));
        recorded.map_err(StoreError::write(self.id, &self.path))
    }

    /// Where the content file ends before what was recorded does, somebody cut it.
    fn doubt_if_cut(&self) -> io::Result<()> {
        let end = |facts: &Facts| end_of(&facts.below(), facts.header.length);
        // Asked first: what is recorded meanwhile was written before.
        let recorded = end(&self.facts.read());
        if self.content.metadata()?.len() >= recorded {
            return Ok(());
        }
        tracing::warn!(task = %self.id, "the content of a task was cut short: it is verified anew");
        let mut facts = self.facts.write();
        facts.doubt_all(&self.state, self.directory.boot())?;
        self.lengthen(end(&facts))
    }

    /// Records that `groups` are here; their bytes and nodes are written.
    fn record(&self, groups: GroupRange) -> io::Result<()> {
        let mut facts = self.facts.write();
        let existing = facts.header.length.map_or(MAX_GROUPS, groups_in);
        let groups = groups.intersection(GroupRange::new(0, existing));
        let new: Vec<_> = facts.have.missing_in(groups).collect();
        let settled: Vec<_> = facts.doubt.present_in(groups).collect();
        if new.is_empty() && settled.is_empty() {
            return Ok(());
        }
        settled.iter().for_each(|run| facts.doubt.remove_range(*run));
        self.presence.dirty.store(true, Relaxed);
        facts.dirty(&self.state, self.directory.boot())?;
        new.iter().for_each(|run| facts.have.insert_range(*run));
        let recorded = self.state.record(&facts.below(), groups);
        if recorded.is_err() {
            new.iter().for_each(|run| facts.have.remove_range(*run));
        }
        recorded
    }

    /// An fsync failed: nothing here is trusted again.
    fn give_up(&self, facts: &mut Facts) {
        self.presence.broken.store(true, Relaxed);
        let header = Header { boot: [0; 16], clean: [0; 32], ..facts.header };
        // Best effort: the task is dropped whether or not this can still be written.
        if self.state.write_header(&header).is_ok() {
            facts.header = header;
        }
    }
}

/// The record kept in a task's directory.
pub(super) fn read_record<T: DeserializeOwned>(
    id: TaskId,
    dir: &Path,
) -> Result<Option<T>, StoreError> {
    let path = dir.join("record.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", &path)(error)),
    };
    let malformed = |source| StoreError::Record { task: id, source };
    serde_json::from_slice(&text).map(Some).map_err(malformed)
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // By position, as everything in the store: no other kind of file is written so.
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all_at(bytes, 0)
}
