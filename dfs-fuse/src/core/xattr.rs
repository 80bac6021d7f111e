//! Extended attributes: those of the index, and `user.dfs.*`, which dfs answers itself.
//!
//! The latter are never listed, so that comparisons of trees and archives with attributes stay exact.

use std::collections::BTreeSet;

use dfs_model::ByteRange;

use super::{Core, FsError, NodeId};
use crate::tree::{Extent, Kind, TreeError};

/// Why the last read of this file failed, while it does.
pub const ERROR: &str = "user.dfs.error";

/// How many of the file's bytes are on this machine, as a decimal number.
pub const CACHED_BYTES: &str = "user.dfs.cached_bytes";

/// The tasks that hold the file's bytes, in hexadecimal, separated by commas.
pub const TASK: &str = "user.dfs.task";

/// Extents looked at for one answer: a file of more is answered for its beginning.
const EXTENTS: usize = 1 << 16;

impl Core {
    /// The value of an extended attribute.
    pub fn get_xattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>, FsError> {
        let nid = self.nodes.nid(node)?;
        let own = if name == ERROR.as_bytes() {
            self.failures.last(nid).map(|error| error.to_string())
        } else if name == CACHED_BYTES.as_bytes() {
            self.cached_bytes(nid)?.map(|bytes| bytes.to_string())
        } else if name == TASK.as_bytes() {
            self.tasks(nid)?
        } else {
            return self.tree.xattr(nid, name)?.ok_or(FsError::NoAttribute);
        };
        own.map(String::into_bytes).ok_or(FsError::NoAttribute)
    }

    /// Names of the extended attributes that the index has.
    pub fn list_xattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>, FsError> {
        Ok(self.tree.list_xattr(self.nodes.nid(node)?)?)
    }

    fn cached_bytes(&self, nid: u64) -> Result<Option<u64>, FsError> {
        if self.tree.attr(nid)?.kind != Kind::File {
            return Ok(None);
        }
        let mut cached = 0u64;
        self.each_data_extent(nid, |space, range| {
            cached = cached.saturating_add(self.content.cached_bytes(space, range));
        })?;
        Ok(Some(cached))
    }

    fn tasks(&self, nid: u64) -> Result<Option<String>, FsError> {
        if self.tree.attr(nid)?.kind != Kind::File {
            return Ok(None);
        }
        let mut spaces = BTreeSet::new();
        self.each_data_extent(nid, |space, _| {
            spaces.insert(space);
        })?;
        let tasks: Vec<_> = spaces
            .into_iter()
            .filter_map(|space| self.content.task(space))
            .map(|task| task.to_string())
            .collect();
        Ok(Some(tasks.join(",")).filter(|tasks| !tasks.is_empty()))
    }

    fn each_data_extent(
        &self,
        nid: u64,
        mut visit: impl FnMut(u16, ByteRange),
    ) -> Result<(), TreeError> {
        let mut at = 0u64;
        for _ in 0..EXTENTS {
            let Some(extent) = self.tree.extent(nid, at)? else { break };
            at = at.saturating_add(extent.length());
            if let Extent::Data { space, offset, length } = extent {
                visit(space, ByteRange::at(offset, length));
            }
        }
        Ok(())
    }
}
