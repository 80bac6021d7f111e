//! Files that the kernel reads from the store by itself: the passthrough lane.
//!
//! A file that is a space as a whole, and whose bytes are all here, is opened so that the kernel reads the store's own
//! content file; until they are, it is read through this process like any other. Of one inode the kernel takes
//! no opens of both ways at a time (it fails them with EIO), and one content file at a time, named by an id that lives as
//! long as the mount. So the ids are made once, before the first open, and what an inode is open as is written down
//! before the open is answered: a later agent that has not seen the opens keeps to it.
//!
//! Nothing keeps a content file from being read so once it is open: it stays while it is in use, is never cut short
//! and gets no holes.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use dfs_proto::node::{ContentFile, OpenNode};
use fuser::{BackingId, FileHandle};
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::content::Content;
use crate::core::{Core, FsError, NodeId};
use crate::holder::InKeeping;

/// Opens that nobody counts.
const UNCOUNTED: FileHandle = FileHandle(0);

/// Inodes of which it is known as what they are open; all others are read through this process from then on.
const NODES: usize = 1024;

/// What the kernel calls the content files of spaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ids(BTreeMap<u16, Id>);

/// One of them: an id, and the file that it was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    id: u32,
    device: u64,
    inode: u64,
}

impl Ids {
    /// Tells the kernel of the content files of `spaces`.
    pub fn of(device: BorrowedFd<'_>, content: &dyn Content, spaces: &[u16]) -> io::Result<Self> {
        let mut ids = BTreeMap::new();
        for space in spaces {
            let file = content.file(*space);
            let file = file.ok_or_else(|| io::Error::other("a space has no file"))??;
            let (of, id) = (file.metadata()?, BackingId::create_raw(device, file));
            let id = id.map_err(said_better)?;
            ids.insert(*space, Id { id, device: of.dev(), inode: of.ino() });
        }
        Ok(Self(ids))
    }

    /// As they were written down, of the files that are still the spaces'.
    pub fn from_wire(files: &[ContentFile], content: &dyn Content) -> Self {
        let known = files.iter().filter_map(|file| {
            let space = u16::try_from(file.space).ok()?;
            let now = content.file(space)?.and_then(|file| file.metadata()).ok()?;
            let is_same = (now.dev(), now.ino()) == (file.device, file.inode);
            let id = Id { id: file.id, device: file.device, inode: file.inode };
            is_same.then_some((space, id))
        });
        Self(known.collect())
    }

    /// To be written down.
    pub fn to_wire(&self) -> Vec<ContentFile> {
        let wire = |(space, id): (&u16, &Id)| {
            let Id { id, device, inode } = *id;
            ContentFile { space: u32::from(*space), id, device, inode }
        };
        self.0.iter().map(wire).collect()
    }
}

fn said_better(error: io::Error) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::LOOP) => io::Error::other("the cache lies on an overlay, or on FUSE itself"),
        Some(Errno::PERM) => io::Error::other("it takes root on the host, CAP_SYS_ADMIN"),
        _ => error,
    }
}

/// See the module.
pub(crate) struct Direct {
    core: Arc<Core>,
    ids: Ids,
    /// Which agent of the mount this one is: names its own opens.
    agent: u64,
    nodes: Mutex<HashMap<NodeId, State>>,
    kept: Option<Arc<InKeeping>>,
}

/// As what an inode is open that could be open either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The kernel reads the content file, from now on.
    Direct,
    /// It is read through this process, by so many opens.
    Cached(u64),
    /// So it was when an earlier agent ended; nobody knows until when.
    CachedBefore,
}

/// How a file is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The kernel reads the content file of this id.
    Direct(u32),
    /// Through this process.
    Cached(FileHandle),
}

impl Direct {
    /// Where a mount begins.
    pub fn new(core: Arc<Core>, ids: Ids, kept: Option<Arc<InKeeping>>) -> Self {
        Self { core, ids, agent: 1, nodes: Mutex::default(), kept }
    }

    /// Where another agent ended, that has opened `nodes`.
    pub fn resumed(
        core: Arc<Core>,
        ids: Ids,
        agent: u64,
        nodes: &[OpenNode],
        kept: Option<Arc<InKeeping>>,
    ) -> Self {
        let known = |node: &OpenNode| {
            let state = if node.direct { State::Direct } else { State::CachedBefore };
            (NodeId::from_raw(node.node), state)
        };
        if nodes.iter().any(|node| node.direct) {
            core.some_reads_are_unseen();
        }
        let nodes = Mutex::new(nodes.iter().map(known).collect());
        Self { core, ids, agent, nodes, kept }
    }

    /// How `node` is to be opened.
    pub fn open(&self, node: NodeId) -> Result<Way, FsError> {
        let Some(whole) = self.core.whole(node)? else { return Ok(Way::Cached(UNCOUNTED)) };
        let id = self.ids.0.get(&whole.space).map(|id| id.id);
        let mut nodes = self.nodes.lock();
        let known = nodes.get(&node).copied();
        if known == Some(State::Direct) && !whole.is_here {
            // The kernel would open it in no other way, and read what is wrong.
            return Err(self.core.mend(node, whole.space));
        }
        let Some(id) = id else {
            return match known {
                // The file that the kernel would read is not the space's any more.
                Some(State::Direct) => Err(FsError::Unrecorded),
                _ => Ok(Way::Cached(UNCOUNTED)),
            };
        };
        let state = match known {
            Some(State::Cached(opens)) => State::Cached(opens + 1),
            Some(state) => state,
            None if nodes.len() >= NODES => return Ok(Way::Cached(UNCOUNTED)),
            None if whole.is_here => State::Direct,
            None => State::Cached(1),
        };
        let was = nodes.insert(node, state);
        let is_news = was.is_none();
        if is_news && self.write_down(&nodes).is_err() {
            // A later agent would not know of it: it must not be open in the way that is refused later.
            nodes.remove(&node);
            return Err(FsError::Unrecorded);
        }
        drop(nodes);
        if is_news && state == State::Direct {
            self.core.is_read_elsewhere(whole.space);
        }
        Ok(match state {
            State::Direct => Way::Direct(id),
            State::Cached(_) => Way::Cached(FileHandle(self.agent)),
            State::CachedBefore => Way::Cached(UNCOUNTED),
        })
    }

    /// One open less.
    pub fn release(&self, node: NodeId, handle: FileHandle) {
        if handle.0 != self.agent {
            return;
        }
        let mut nodes = self.nodes.lock();
        // Once there is no room there never is again: inodes that were open then are not known.
        let has_room = nodes.len() < NODES;
        match nodes.get_mut(&node) {
            Some(State::Cached(opens)) if *opens > 1 => *opens -= 1,
            Some(State::Cached(_)) if has_room => {
                nodes.remove(&node);
                // Where this fails a later agent takes it for open, which costs speed only.
                let _ = self.write_down(&nodes);
            }
            _ => {}
        }
    }

    fn write_down(&self, nodes: &HashMap<NodeId, State>) -> io::Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let open = nodes
            .iter()
            .map(|(node, state)| OpenNode { node: node.raw(), direct: *state == State::Direct });
        let mut record = kept.record.read()?;
        record.open = open.collect();
        kept.record.write(&record)
    }
}
