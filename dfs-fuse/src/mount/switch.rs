//! Has a mount show another snapshot.
//!
//! What a later process must know is written down before the kernel can learn anything of the next snapshot: a process
//! that dies half way leaves a mount that shows one of both.

use std::io;
use std::sync::Arc;

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
        let mut untold = None;
        let kept = switch.compare(&*next.snapshot.tree, next.same, &mut |stale: Stale<'_>| {
            if untold.is_none() {
                untold = self.notices.forget(stale).err();
            }
        })?;
        if let Some(error) = untold {
            return Err(SwitchError::Untold(error));
        }
        let nodes = switch.nodes(&kept);
        self.record(generation, next.shown, &nodes).map_err(SwitchError::Unrecorded)?;
        switch.commit(next.snapshot, &kept);
        Ok(generation)
    }

    /// Has the kernel forget what it has read of these inodes of the snapshot that is shown. Blocks while it does.
    pub fn forget_pages(&self, nids: impl Iterator<Item = u64>) {
        for node in nids.filter_map(|nid| self.core.node_of(nid).ok()) {
            // It does not know every inode, and a mount that is gone shows nothing.
            let _ = self.notices.forget(Stale::Pages(node));
        }
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
    use super::*;

    #[test]
    fn a_table_of_nodes_reads_back() {
        let node = |raw| (NodeId::from_raw(raw), Place::from_raw(raw ^ 3 << 36));
        let nodes = [node(5), node(7 << 36 | 9)];
        assert_eq!(decode_nodes(&encode(&nodes)), nodes);
        assert_eq!(decode_nodes(&encode(&nodes)[..31]).len(), 1);
    }
}
