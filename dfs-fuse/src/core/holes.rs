//! Where a file has bytes and where it has none: lseek(2) with SEEK_DATA and SEEK_HOLE.

use super::{Core, FsError, NodeId};
use crate::tree::{Extent, TreeError};

/// Extents looked at for one answer; beyond them it is said that there are bytes, which is always allowed.
const LOOKED_AT: usize = 1 << 16;

/// What is looked for from an offset on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// Bytes.
    Data,
    /// None; the end of a file counts.
    Hole,
}

impl Core {
    /// The first offset from `offset` on with what is looked for. [`FsError::PastEnd`] where there is none, or the
    /// offset is not in the file.
    pub fn seek(&self, node: NodeId, offset: u64, what: Seek) -> Result<u64, FsError> {
        let inode = self.inode(node)?;
        let (tree, nid) = (&inode.snapshot.tree, inode.nid);
        let mut at = offset;
        for _ in 0..LOOKED_AT {
            let Some(extent) = tree.extent(nid, at)? else { break };
            let found = match extent {
                Extent::Data { .. } => Seek::Data,
                Extent::Zero { .. } => Seek::Hole,
            };
            if found == what {
                return Ok(at);
            }
            if extent.length() == 0 {
                return Err(TreeError::Corrupt("an extent of it is empty".to_owned()).into());
            }
            at = at.saturating_add(extent.length());
        }
        let end = tree.attr(nid)?.size;
        match what {
            _ if offset >= end => Err(FsError::PastEnd),
            Seek::Hole => Ok(end),
            Seek::Data if at >= end => Err(FsError::PastEnd),
            Seek::Data => Ok(at),
        }
    }
}
