//! The filesystem core: what a mount answers, in terms of a tree and the content of its spaces.
//!
//! It knows nothing of FUSE. Names and attributes are answered at once from the index; bytes that are
//! here are answered at once from the content ([`Core::read_now`]), missing ones by [`Core::read`],
//! which always ends: with the bytes, with the content's error, or at the deadline. The last reason why
//! reads of a file failed is kept for `user.dfs.error`.
//!
//! Nothing here must survive the process: node ids and directory cookies follow from the index, handles
//! hold nothing, so that another daemon can go on with the same mount.

mod failures;
mod holes;
mod node;
mod obtain;
mod read;
mod readahead;
mod reads;
mod xattr;

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dfs_model::GROUP_BYTES;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::content::{Content, ContentError};
use crate::trace::Recorder;
use crate::tree::{Attr, Kind, Totals, Tree, TreeError};
use failures::Failures;
pub use holes::Seek;
use node::Nodes;
pub use node::{Generation, NodeId};
pub(crate) use read::MAX_READ;
pub use read::{Pattern, Read, Whole};
use readahead::Streams;
pub use reads::{AllReads, Reads, Seen};

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
        }
    }
}

/// One mounted snapshot. See the module.
pub struct Core {
    tree: Arc<dyn Tree>,
    content: Arc<dyn Content>,
    nodes: Nodes,
    options: CoreOptions,
    failures: Failures,
    streams: Arc<Streams>,
    waiting: Semaphore,
    /// Counted in groups.
    ahead: Arc<Semaphore>,
    runtime: Handle,
    tracker: TaskTracker,
    stopping: CancellationToken,
    /// Whether another process goes on with the mount.
    left: AtomicBool,
}

/// What a name or a node stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its node id.
    pub node: NodeId,
    /// Its attributes.
    pub attr: Attr,
}

/// One line of a directory listing.
#[derive(Debug)]
pub struct Listed<'a> {
    /// The name.
    pub name: &'a [u8],
    /// What it stands for.
    pub entry: Entry,
    /// Continues the listing after this line.
    pub cookie: u64,
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
        f.debug_struct("Core").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Core {
    /// A core over `tree` and `content`; what has to wait runs on `runtime`.
    pub fn new(
        tree: Arc<dyn Tree>,
        content: Arc<dyn Content>,
        options: CoreOptions,
        runtime: Handle,
    ) -> Self {
        let groups = usize::try_from(options.read_ahead_bytes / GROUP_BYTES).unwrap_or(usize::MAX);
        Self {
            nodes: Nodes::new(options.generation, tree.root()),
            failures: Failures::default(),
            streams: Arc::new(Streams::new(Instant::now())),
            waiting: Semaphore::new(options.waiting_reads.clamp(1, Semaphore::MAX_PERMITS)),
            ahead: Arc::new(Semaphore::new(groups.min(Semaphore::MAX_PERMITS))),
            runtime,
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            left: AtomicBool::new(false),
            tree,
            content,
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
        if let Some(recorder) = &self.options.recorder {
            recorder.touch_unseen(space);
        }
    }

    /// Where the bytes come from.
    pub(crate) fn content(&self) -> &dyn Content {
        &*self.content
    }

    /// The snapshot's number.
    pub fn generation(&self) -> Generation {
        self.options.generation
    }

    /// What `name` in the directory `parent` stands for; `None` when there is no such name.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Option<Entry>, FsError> {
        match self.tree.lookup(self.nodes.nid(parent)?, name)? {
            Some(nid) => Ok(Some(self.entry(nid)?)),
            None => Ok(None),
        }
    }

    /// Attributes of a node.
    pub fn attr(&self, node: NodeId) -> Result<Attr, FsError> {
        self.attr_of(self.nodes.nid(node)?)
    }

    fn attr_of(&self, nid: u64) -> Result<Attr, FsError> {
        let mut attr = self.tree.attr(nid)?;
        attr.uid = self.options.owner.uid.unwrap_or(attr.uid);
        attr.gid = self.options.owner.gid.unwrap_or(attr.gid);
        Ok(attr)
    }

    /// What a symbolic link holds.
    pub fn read_link(&self, node: NodeId) -> Result<Vec<u8>, FsError> {
        Ok(self.tree.read_link(self.nodes.nid(node)?)?)
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

    /// Whether a directory may be opened. Opening keeps no state.
    pub fn open_dir(&self, node: NodeId) -> Result<(), FsError> {
        let nid = self.nodes.nid(node)?;
        match self.tree.attr(nid)?.kind {
            Kind::Directory => Ok(()),
            _ => Err(TreeError::NotADirectory(nid).into()),
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

    /// Shows a directory after `cookie` (0: from the beginning) until `visit` breaks.
    pub fn read_dir(
        &self,
        node: NodeId,
        cookie: u64,
        visit: &mut dyn FnMut(Listed<'_>) -> ControlFlow<()>,
    ) -> Result<(), FsError> {
        let nid = self.nodes.nid(node)?;
        let mut failed = None;
        self.tree.read_dir(nid, cookie, &mut |found| match self.entry(found.nid) {
            Ok(entry) => visit(Listed { name: found.name, entry, cookie: found.cookie }),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// What the whole tree holds.
    pub fn totals(&self) -> Totals {
        self.tree.totals()
    }

    fn entry(&self, nid: u64) -> Result<Entry, FsError> {
        Ok(Entry { node: self.nodes.node(nid)?, attr: self.attr_of(nid)? })
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
mod tests;
