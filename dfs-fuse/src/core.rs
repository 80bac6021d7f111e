//! The filesystem core: what a mount answers, in terms of a tree and the content of its spaces.
//!
//! It knows nothing of FUSE. Names and attributes are answered at once from the index; bytes that are
//! here are answered at once from the content ([`Core::read_now`]), missing ones by [`Core::read`],
//! which always ends: with the bytes, with the content's error, or at the deadline. The last reason why
//! reads of a file failed is kept for `user.dfs.error`.
//!
//! Nothing here must survive the process: node ids and directory cookies follow from the index, handles
//! hold nothing, so that another daemon can go on with the same mount. Where the artifact is followed, a later
//! snapshot takes the place of the one that is shown ([`Core::begin_switch`]); what is open stays what it was. Then
//! handles of directories name their snapshot, and which node is where by now must be written down ([`Switch::nodes`]).

mod failures;
mod holes;
mod node;
mod obtain;
mod read;
mod readahead;
mod reads;
mod snapshots;
mod switch;
mod xattr;

use std::collections::HashSet;
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dfs_model::GROUP_BYTES;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::content::{Content, ContentError};
use crate::trace::Recorder;
use crate::tree::{Attr, Kind, Totals, Tree, TreeError};
use failures::Failures;
pub use holes::Seek;
pub use node::{Generation, NodeId, Place};
pub(crate) use read::MAX_READ;
pub use read::{Pattern, Read, Whole};
use readahead::Streams;
pub use reads::{AllReads, Reads, Seen};
pub use snapshots::{EARLIER, Left, Snapshot, Versions};
use snapshots::{Inode, Look, Snapshots};
pub use switch::{Stale, Switch};

/// How a core behaves.
#[derive(Debug, Clone)]
pub struct CoreOptions {
    /// Which snapshot of the artifact this is; part of every node id.
    pub generation: Generation,
    /// How long a read may wait for missing bytes before it fails.
    pub deadline: Duration,
    /// Reads that may wait for missing bytes at once; further ones queue, their deadline running.
    pub waiting_reads: usize,
    /// Who has not read on for so long is not fetched ahead for.
    pub reader_gone: Duration,
    /// Bytes that read-ahead may have under way at once, over all files.
    pub read_ahead_bytes: u64,
    /// Who watches what is read.
    pub recorder: Option<Arc<Recorder>>,
    /// Whose all files appear to be.
    pub owner: Owner,
    /// Who counts what readers meet.
    pub reads: Arc<Reads>,
    /// Where the agent listens that serves it: what its directories answer for it.
    pub socket: Option<PathBuf>,
    /// Whether it ever shows another snapshot.
    pub versions: Versions,
    /// What an earlier daemon left of it, where there was one.
    pub left: Option<Left>,
}

/// Whose all files of a mount appear to be, where that is not whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// The user.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

impl Default for CoreOptions {
    fn default() -> Self {
        Self {
            generation: Generation::FIRST,
            deadline: Duration::from_secs(60),
            waiting_reads: 1024,
            reader_gone: Duration::from_secs(10),
            read_ahead_bytes: 256 << 20,
            owner: Owner::default(),
            recorder: None,
            reads: Arc::default(),
            socket: None,
            versions: Versions::One,
            left: None,
        }
    }
}

/// What is mounted. See the module.
pub struct Core {
    snapshots: Snapshots,
    options: CoreOptions,
    failures: Failures,
    /// Files that are fetched again as a whole, by their keys.
    mending: Arc<Mutex<HashSet<u64>>>,
    streams: Arc<Streams>,
    waiting: Semaphore,
    /// Counted in groups.
    ahead: Arc<Semaphore>,
    runtime: Handle,
    tracker: TaskTracker,
    stopping: CancellationToken,
    /// Whether another process goes on with the mount.
    left: AtomicBool,
    /// Told when what is shown turned out not to be at its origin any more.
    outdated: Notify,
}

/// What a name or a node stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its node id.
    pub node: NodeId,
    /// Its attributes.
    pub attr: Attr,
}

/// For how long an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Until it is taken back.
    ForEver,
    /// It is to be asked again: another snapshot is about to be shown.
    Once,
}

/// Something that was asked, and for how long it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// What.
    pub value: T,
    /// For how long.
    pub validity: Validity,
}

/// One line of a directory listing.
pub struct Listed<'a> {
    /// The name.
    pub name: &'a [u8],
    /// What it stands for.
    pub entry: Entry,
    /// Continues the listing after this line.
    pub cookie: u64,
    /// For how long the name stands for it.
    pub validity: Validity,
    told: Told<'a>,
}

/// What is told of a line.
struct Told<'a> {
    look: &'a Look<'a>,
    snapshot: &'a Snapshot,
    nid: u64,
}

impl Listed<'_> {
    /// The kernel takes the name for looked up, once it is told of it.
    fn is_looked_up(&self) -> Result<(), FsError> {
        self.told.look.remember(self.entry.node, self.told.snapshot, self.told.nid)
    }

    /// It is not told of it.
    fn is_left_out(&self) {
        self.told.look.take_back(self.entry.node);
    }
}

/// Whether a line of a listing finds room in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It is in it.
    Found,
    /// The answer is full without it.
    None,
}

/// Why an operation was refused or failed; [`crate::errno`] has the numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    /// The node belongs to another snapshot, or to nothing.
    #[error("node {0:#x} is not of this snapshot")]
    Stale(u64),
    /// A directory was read as a file.
    #[error("is a directory")]
    IsADirectory,
    /// The inode has no such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// There is nothing of what is looked for, or the offset is not in the file.
    #[error("beyond the end of the file")]
    PastEnd,
    /// Something would have to be written.
    #[error("read-only filesystem")]
    ReadOnly,
    /// The index could not answer.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The bytes could not be had.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The mount is being taken down.
    #[error("the mount is being taken down")]
    Stopping,
    /// What a later agent must know could not be written down.
    #[error("the mount's record cannot be written")]
    Unrecorded,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

impl Core {
    /// A core over `tree` and `content`; what has to wait runs on `runtime`.
    pub fn new(
        tree: Arc<dyn Tree>,
        content: Arc<dyn Content>,
        mut options: CoreOptions,
        runtime: Handle,
    ) -> Self {
        let recorder = options.recorder.take();
        let snapshot = Snapshot { generation: options.generation, tree, content, recorder };
        let groups = usize::try_from(options.read_ahead_bytes / GROUP_BYTES).unwrap_or(usize::MAX);
        Self {
            snapshots: Snapshots::new(options.versions, snapshot, options.left.take()),
            failures: Failures::default(),
            mending: Arc::default(),
            streams: Arc::new(Streams::new(Instant::now())),
            waiting: Semaphore::new(options.waiting_reads.clamp(1, Semaphore::MAX_PERMITS)),
            ahead: Arc::new(Semaphore::new(groups.min(Semaphore::MAX_PERMITS))),
            runtime,
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            left: AtomicBool::new(false),
            outdated: Notify::new(),
            options,
        }
    }

    /// Ends everything that waits: reads fail with [`FsError::Stopping`], read-ahead is dropped.
    pub fn stop(&self) {
        self.tracker.close();
        self.stopping.cancel();
    }

    /// Whether that was so.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Runs something for it that ends by itself.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(work, &self.runtime);
    }

    /// Another process is to go on with the mount: what fails from now on is left to that one to answer.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// See [`leave`](Self::leave).
    pub fn is_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// A space is read without this process from now on.
    pub(crate) fn is_read_elsewhere(&self, space: u16) {
        self.some_reads_are_unseen();
        if let Some(recorder) = &self.snapshots.current().recorder {
            recorder.touch_unseen(space);
        }
    }

    /// The kernel may read some of it by itself from now on.
    pub(crate) fn some_reads_are_unseen(&self) {
        self.options.reads.some_are_unseen();
    }

    /// Where the bytes come from of what is shown now.
    pub(crate) fn content(&self) -> Arc<dyn Content> {
        Arc::clone(&self.snapshots.current().content)
    }

    /// The number of the snapshot that is shown.
    pub fn generation(&self) -> Generation {
        self.snapshots.current().generation
    }

    /// The numbers of earlier snapshots that are still there, the oldest first.
    pub fn earlier(&self) -> Vec<Generation> {
        self.snapshots.earlier()
    }

    /// Resolves when an earlier snapshot was let go.
    pub async fn released(&self) {
        self.snapshots.released().await;
    }

    /// Resolves when a read of what is shown failed because its origin has another version by now.
    pub async fn outdated(&self) {
        self.outdated.notified().await;
    }

    /// Whether another snapshot is ever shown.
    pub fn versions(&self) -> Versions {
        self.snapshots.versions()
    }

    fn inode(&self, node: NodeId) -> Result<Inode, FsError> {
        self.snapshots.find(node)
    }

    /// What `name` in the directory `parent` stands for; `None` when there is no such name. The kernel is taken to know the
    /// node until it [forgets](Self::forget) it.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Answer<Option<Entry>>, FsError> {
        let look = self.snapshots.look();
        let dir = look.inode(parent)?;
        let value = match dir.snapshot.tree.lookup(dir.nid, name)? {
            Some(nid) => {
                let entry = self.entry(&look, &dir.snapshot, nid)?;
                look.remember(entry.node, &dir.snapshot, nid)?;
                Some(entry)
            }
            None => None,
        };
        Ok(Answer { value, validity: look.validity() })
    }

    /// The kernel forgets so many lookups of a node; all of them, as a rule.
    pub fn forget(&self, node: NodeId, lookups: u64) {
        self.snapshots.forget(node, lookups);
    }

    /// Attributes of a node.
    pub fn attr(&self, node: NodeId) -> Result<Attr, FsError> {
        Ok(self.stat(node)?.value)
    }

    /// The same, and for how long they hold.
    pub fn stat(&self, node: NodeId) -> Result<Answer<Attr>, FsError> {
        let look = self.snapshots.look();
        let inode = look.inode(node)?;
        let value = self.attr_of(&inode.snapshot, inode.nid, node)?;
        Ok(Answer { value, validity: look.validity() })
    }

    /// What programs see: the number that the kernel knows it by, so that no two that are there at a time have the same.
    fn attr_of(&self, snapshot: &Snapshot, nid: u64, node: NodeId) -> Result<Attr, FsError> {
        let mut attr = snapshot.tree.attr(nid)?;
        attr.ino = node.raw();
        attr.uid = self.options.owner.uid.unwrap_or(attr.uid);
        attr.gid = self.options.owner.gid.unwrap_or(attr.gid);
        Ok(attr)
    }

    /// What a symbolic link holds.
    pub fn read_link(&self, node: NodeId) -> Result<Vec<u8>, FsError> {
        let inode = self.inode(node)?;
        Ok(inode.snapshot.tree.read_link(inode.nid)?)
    }

    /// Whether a file may be opened: for reading only, and not a directory. Opening keeps no state.
    pub fn open(&self, node: NodeId, access: Access) -> Result<(), FsError> {
        if access == Access::Write {
            return Err(FsError::ReadOnly);
        }
        match self.attr(node)?.kind {
            Kind::Directory => Err(FsError::IsADirectory),
            _ => Ok(()),
        }
    }

    /// Whether a directory may be opened; the handle names what is to be listed, also after the mount has switched. It is
    /// to be [closed](Self::close_dir) where another snapshot is ever shown; otherwise opening keeps no state.
    pub fn open_dir(&self, node: NodeId) -> Result<Place, FsError> {
        let look = self.snapshots.look();
        let inode = look.inode(node)?;
        if inode.snapshot.tree.attr(inode.nid)?.kind != Kind::Directory {
            return Err(TreeError::NotADirectory(inode.nid).into());
        }
        let at = Place { generation: inode.snapshot.generation, nid: inode.nid };
        if self.versions() == Versions::Followed {
            look.open_dir(at);
        }
        Ok(at)
    }

    /// A directory is closed that was open as this.
    pub fn close_dir(&self, opened: Place) {
        if self.versions() == Versions::Followed {
            self.snapshots.close_dir(opened);
        }
    }

    /// Whether an access is conceivable at all; permission bits are checked by the kernel.
    pub fn access(&self, node: NodeId, access: Access) -> Result<(), FsError> {
        let attr = self.attr(node)?;
        let written = matches!(attr.kind, Kind::File | Kind::Directory | Kind::Symlink);
        if access == Access::Write && written {
            return Err(FsError::ReadOnly);
        }
        Ok(())
    }

    /// Shows a directory after `cookie` (0: from the beginning) until `visit` breaks: as it was when it was opened, if it
    /// was.
    ///
    /// Names that still are there stand for what they stand for now: who is told of them keeps that.
    pub fn read_dir(
        &self,
        node: NodeId,
        opened: Option<Place>,
        cookie: u64,
        visit: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), FsError> {
        let look = self.snapshots.look();
        let now = look.inode(node)?;
        let at = opened.unwrap_or(Place { generation: now.snapshot.generation, nid: now.nid });
        let snapshot = look.snapshot(at)?;
        let is_current = snapshot.generation == now.snapshot.generation;
        let validity = if is_current { look.validity() } else { Validity::Once };
        let meant = |name: &[u8], nid: u64| {
            if matches!(name, b"." | b"..") || is_current {
                return Ok((snapshot, nid));
            }
            let still = now.snapshot.tree.lookup(now.nid, name)?;
            Ok::<_, FsError>(still.map_or((snapshot, nid), |nid| (&now.snapshot, nid)))
        };
        let mut failed = None;
        snapshot.tree.read_dir(at.nid, cookie, &mut |found| {
            let entry = meant(found.name, found.nid)
                .and_then(|(snapshot, nid)| Ok((self.entry(&look, snapshot, nid)?, snapshot, nid)));
            match entry {
                Ok((entry, snapshot, nid)) => visit(Listed {
                    name: found.name,
                    entry,
                    cookie: found.cookie,
                    validity,
                    told: Told { look: &look, snapshot, nid },
                }),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Shows a directory as [`read_dir`](Self::read_dir) does, to a kernel that takes what is in the answer for looked up.
    ///
    /// What fails behind a line is met again by who asks for what follows it: an answer that fails tells of nothing.
    pub fn look_up_all(
        &self,
        node: NodeId,
        opened: Option<Place>,
        cookie: u64,
        add: &mut dyn FnMut(&Listed<'_>) -> Room,
    ) -> Result<(), FsError> {
        let (mut told, mut failed) = (false, None);
        let outcome = self.read_dir(node, opened, cookie, &mut |listed| {
            // The kernel takes these for what they are.
            let counts = !matches!(listed.name, b"." | b"..");
            if let Some(Err(error)) = counts.then(|| listed.is_looked_up()) {
                failed = Some(error);
                return ControlFlow::Break(());
            }
            if add(&listed) == Room::Found {
                told = true;
                return ControlFlow::Continue(());
            }
            if counts {
                listed.is_left_out();
            }
            ControlFlow::Break(())
        });
        match outcome.and(failed.map_or(Ok(()), Err)) {
            Err(_) if told => Ok(()),
            outcome => outcome,
        }
    }

    /// What the whole tree holds.
    pub fn totals(&self) -> Totals {
        self.snapshots.current().tree.totals()
    }

    fn entry(&self, look: &Look<'_>, snapshot: &Snapshot, nid: u64) -> Result<Entry, FsError> {
        let node = look.node(snapshot, nid)?;
        Ok(Entry { node, attr: self.attr_of(snapshot, nid, node)? })
    }
}

/// What a program wants to do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read, execute, search or merely exist.
    Read,
    /// Change anything.
    Write,
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod switching;
#[cfg(test)]
mod tests;
