//! Has a mount show another snapshot.
//!
//! What a later process must know is written down before the kernel can learn anything of the next snapshot: a process
//! that dies half way leaves a mount that shows one of both.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;

use dfs_model::{GroupSet, TaskId};
use dfs_proto::node::{EarlierSnapshot, ShownMount};

use crate::core::{Core, FsError, Generation, NodeId, Place, Snapshot, Stale};
use crate::fuse::Notices;
use crate::holder::InKeeping;
use crate::tree::Extent;

/// What a mount is to show next.
pub struct Next<'a> {
    /// It; its number is found here.
    pub snapshot: Snapshot,
    /// As it is written down.
    pub shown: ShownMount,
    /// Whether two extents of equal length have the same bytes: one of what is shown now, one of this.
    pub same: &'a dyn Fn(Extent, Extent) -> bool,
}

/// Why a mount shows what it did.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// It cannot count further.
    #[error("it has shown too many versions; mount it again")]
    TooMany,
    /// An index contradicts itself.
    #[error("what differs cannot be found out")]
    Compare(#[from] FsError),
    /// The kernel does not forget.
    #[error("the kernel was not told")]
    Untold(#[source] io::Error),
    /// A later process would not know.
    #[error("it could not be written down")]
    Unrecorded(#[source] io::Error),
}

/// Switches one mount; cheap to clone.
#[derive(Debug, Clone)]
pub struct Switcher {
    pub(super) core: Arc<Core>,
    pub(super) notices: Notices,
    pub(super) kept: Option<Arc<InKeeping>>,
}

impl Switcher {
    /// Shows `next` from now on. One at a time; blocks while the kernel does.
    pub fn show(&self, next: Next<'_>) -> Result<Generation, SwitchError> {
        let switch = self.core.begin_switch().ok_or(SwitchError::TooMany)?;
        let generation = switch.generation();
        let telling = self.notices.begin().map_err(SwitchError::Untold)?;
        let untold = RefCell::new(None);
        let knows = |node| {
            let answered = telling.knows(node);
            // In doubt it does.
            answered.unwrap_or_else(|error| untold.borrow_mut().replace(error).is_none())
        };
        let mut forget = |stale: Stale<'_>| {
            if untold.borrow().is_none() {
                *untold.borrow_mut() = telling.forget(stale).err();
            }
        };
        let unchanged = switch.compare(&*next.snapshot.tree, next.same, &knows, &mut forget)?;
        if let Some(error) = untold.into_inner() {
            return Err(SwitchError::Untold(error));
        }
        let nodes = switch.nodes(&unchanged);
        self.record(generation, next.shown, &nodes).map_err(SwitchError::Unrecorded)?;
        switch.commit(next.snapshot, &unchanged);
        Ok(generation)
    }

    /// Whether it shows something of a task, or somebody still uses a version that did.
    pub fn shows(&self, task: &TaskId) -> bool {
        self.core.shows(task)
    }

    /// Has the kernel forget what it has read of these groups of a task, in every version that is used. Blocks while it does.
    pub fn forget_pages(&self, task: &TaskId, groups: &GroupSet) -> Result<(), FsError> {
        let nodes = self.core.nodes_over(task, groups)?;
        let Ok(telling) = self.notices.begin() else { return Ok(()) };
        for node in nodes {
            // It does not know every inode, and a mount that is gone shows nothing.
            let _ = telling.forget(Stale::Pages(node));
        }
        Ok(())
    }

    fn record(
        &self,
        generation: Generation,
        shown: ShownMount,
        nodes: &[(NodeId, Place)],
    ) -> io::Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let mut record = kept.record.read()?;
        let artifact = record.shown.take().and_then(|shown| shown.artifact);
        record.earlier.push(EarlierSnapshot { generation: record.generation, artifact });
        self.retain_used(&mut record.earlier);
        (record.generation, record.shown) = (generation.number(), Some(shown));
        kept.record.write_with(record, &encode(nodes))
    }

    /// Resolves when an earlier snapshot was let go.
    pub async fn released(&self) {
        self.core.released().await;
    }

    /// Resolves when a read failed because the origin has another version by now.
    pub async fn outdated(&self) {
        self.core.outdated().await;
    }

    /// Writes down which earlier snapshots are used. Not while a switch is made; blocks.
    pub fn note_released(&self) -> io::Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let mut record = kept.record.read()?;
        self.retain_used(&mut record.earlier);
        kept.record.write(&record)
    }

    fn retain_used(&self, earlier: &mut Vec<EarlierSnapshot>) {
        let mut used = self.core.earlier();
        used.push(self.core.generation());
        earlier.retain(|one| used.iter().any(|used| used.number() == one.generation));
    }

    /// How many earlier snapshots are still used.
    pub fn earlier(&self) -> usize {
        self.core.earlier().len()
    }
}

/// As a table of nodes is kept.
fn encode(nodes: &[(NodeId, Place)]) -> Vec<u8> {
    let numbers = nodes.iter().flat_map(|(node, at)| [node.raw(), at.raw()]);
    numbers.flat_map(u64::to_le_bytes).collect()
}

/// Reads what [`encode`] wrote.
pub fn decode_nodes(bytes: &[u8]) -> Vec<(NodeId, Place)> {
    let (numbers, _) = bytes.as_chunks::<8>();
    let (pairs, _) = numbers.as_chunks::<2>();
    let pair = |[node, at]: &[[u8; 8]; 2]| {
        let at = Place::from_raw(u64::from_le_bytes(*at));
        (NodeId::from_raw(u64::from_le_bytes(*node)), at)
    };
    pairs.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};

    use dfs_proto::node::KeptMount;
    use tokio::runtime::Runtime;

    use super::*;
    use crate::content::MemoryContent;
    use crate::core::{CoreOptions, Validity, Versions};
    use crate::holder::{Guard, Holder, InKeepingIs, Kept, Left, RECORD_FORMAT, Record, Then};
    use crate::tree::{MemoryTree, MemoryTreeBuilder};

    #[test]
    fn a_table_of_nodes_reads_back() {
        let node = |raw| (NodeId::from_raw(raw), Place::from_raw(raw ^ 3 << 36));
        let nodes = [node(5), node(7 << 36 | 9)];
        assert_eq!(decode_nodes(&encode(&nodes)), nodes);
        assert_eq!(decode_nodes(&encode(&nodes)[..31]).len(), 1);
    }

    /// Keeps nothing.
    #[derive(Debug)]
    struct Nobody;

    impl Holder for Nobody {
        fn take_over(&self) -> io::Result<Left> {
            Ok(Left::default())
        }
        fn ready(&self) -> io::Result<()> {
            Ok(())
        }
        fn keep(&self, _: Kept) -> io::Result<()> {
            Ok(())
        }
        fn let_go(&self, _: &str) -> io::Result<()> {
            Ok(())
        }
        fn cannot_guard(&self) -> Option<&'static str> {
            None
        }
        fn guard(&self, _: Guard) -> io::Result<OwnedFd> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn close(&self, _: &str) -> io::Result<()> {
            Ok(())
        }
        fn line(&self, _: &str) -> Option<OwnedFd> {
            None
        }
        fn farewell(&self, _: Then) -> io::Result<()> {
            Ok(())
        }
        fn outlives_a_stop(&self) -> bool {
            false
        }
        fn pid(&self) -> Option<u32> {
            None
        }
    }

    fn tree(files: u32) -> Arc<MemoryTree> {
        let mut tree = MemoryTreeBuilder::new();
        for number in 0..files {
            tree.file(&number.to_string(), 0o644, Vec::new()).unwrap();
        }
        Arc::new(tree.build())
    }

    /// A mount of one file, whose kernel is whoever reads `device`.
    fn switcher(runtime: &Runtime, device: &str, kept: Option<Arc<InKeeping>>) -> Switcher {
        let options = CoreOptions { versions: Versions::Followed, ..CoreOptions::default() };
        let content = Arc::new(MemoryContent::cached(Vec::new()));
        let core = Arc::new(Core::new(tree(1), content, options, runtime.handle().clone()));
        let device = File::options().write(true).open(device).unwrap();
        Switcher { core, notices: Notices::new(device.into()), kept }
    }

    fn show(switcher: &Switcher) -> Result<Generation, SwitchError> {
        let content = Arc::new(MemoryContent::cached(Vec::new()));
        let generation = Generation::FIRST;
        let snapshot = Snapshot { generation, tree: tree(2), content, recorder: None };
        switcher.show(Next { snapshot, shown: ShownMount::default(), same: &|_, _| false })
    }

    /// How many files it shows, and for how long that holds.
    fn shown(switcher: &Switcher) -> (usize, Validity) {
        let lookup = |name: &str| switcher.core.lookup(NodeId::ROOT, name.as_bytes()).unwrap();
        let found = ["0", "1"].map(lookup);
        (found.iter().filter(|found| found.value.is_some()).count(), found[0].validity)
    }

    #[test]
    fn a_kernel_that_forgets_nothing_leaves_the_mount_as_it_is() {
        let runtime = Runtime::new().unwrap();
        let refuses = switcher(&runtime, "/dev/full", None);
        assert!(matches!(show(&refuses), Err(SwitchError::Untold(_))));
        assert_eq!(shown(&refuses), (1, Validity::ForEver));
        let forgets = switcher(&runtime, "/dev/null", None);
        assert_eq!(show(&forgets).unwrap().number(), 1);
        assert_eq!(shown(&forgets), (2, Validity::ForEver));
    }

    #[test]
    fn what_cannot_be_written_down_is_not_shown() {
        let runtime = Runtime::new().unwrap();
        let record = KeptMount { format: RECORD_FORMAT, ..KeptMount::default() };
        let record = Record::of(&record).unwrap();
        let path = format!("/proc/self/fd/{}", record.as_fd().as_raw_fd());
        let read_only = File::open(path).unwrap();
        let (name, record) = ("m".to_owned(), Record::from_descriptor(read_only.into()));
        let what = InKeepingIs::Requests;
        let kept = Arc::new(InKeeping { holder: Arc::new(Nobody), name, record, what });
        let unkept = switcher(&runtime, "/dev/null", Some(kept));
        assert!(matches!(show(&unkept), Err(SwitchError::Unrecorded(_))));
        assert_eq!(shown(&unkept), (1, Validity::ForEver));
    }
}
