//! Extended attributes: those of the index, and `user.dfs.*`, which dfs answers itself.
//!
//! The latter are never listed, so that comparisons of trees and archives with attributes stay exact.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;

use dfs_model::ByteRange;

use super::{Core, FsError, Inode, NodeId};
use crate::content::ContentErrorClass;
use crate::tree::{Extent, Kind, TreeError};

/// Why the last read of this file failed, while it does.
pub const ERROR: &str = "user.dfs.error";

/// How many of the file's bytes are on this machine, as a decimal number.
pub const CACHED_BYTES: &str = "user.dfs.cached_bytes";

/// The tasks that hold the file's bytes, in hexadecimal, separated by commas.
pub const TASK: &str = "user.dfs.task";

/// Whether the file's bytes are on this machine: `complete`, `partial` or `missing`.
pub const STATE: &str = "user.dfs.state";

/// Which of the file's bytes are on this machine: half-open ranges such as `0..65536`, separated by commas; `…` stands for
/// more than fit.
pub const CACHED: &str = "user.dfs.cached";

/// BLAKE3 of the file's content, in hexadecimal, where it is known: of files that are a task by themselves, once they are
/// complete.
pub const DIGEST: &str = "user.dfs.digest";

/// The URL that the file's bytes come from.
pub const SOURCE: &str = "user.dfs.source";

/// Of a directory: the socket on which the agent listens that serves the mount.
pub const SOCKET: &str = "user.dfs.socket";

/// Extents and ranges looked at for one answer: of a file with more it is not said how much of it is here.
const LOOKED_AT: usize = 1 << 16;

/// Longest list of ranges, in bytes.
const RANGES_BYTES: usize = 4000;

/// What dfs answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    Error,
    State,
    CachedBytes,
    Cached,
    Task,
    Digest,
    Source,
    Socket,
}

impl Own {
    fn named(name: &[u8]) -> Option<Self> {
        let all = [
            (ERROR, Self::Error),
            (STATE, Self::State),
            (CACHED_BYTES, Self::CachedBytes),
            (CACHED, Self::Cached),
            (TASK, Self::Task),
            (DIGEST, Self::Digest),
            (SOURCE, Self::Source),
            (SOCKET, Self::Socket),
        ];
        all.into_iter().find(|(known, _)| known.as_bytes() == name).map(|(_, own)| own)
    }
}

impl Core {
    /// The value of an extended attribute.
    pub fn get_xattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>, FsError> {
        let inode = &self.inode(node)?;
        let Some(own) = Own::named(name) else {
            return inode.snapshot.tree.xattr(inode.nid, name)?.ok_or(FsError::NoAttribute);
        };
        let kind = match own {
            Own::Socket => Kind::Directory,
            _ => Kind::File,
        };
        if inode.snapshot.tree.attr(inode.nid)?.kind != kind {
            return Err(FsError::NoAttribute);
        }
        let value = match own {
            Own::Socket => {
                let socket = self.options.socket.as_ref();
                return socket
                    .map(|socket| socket.as_os_str().as_bytes().to_vec())
                    .ok_or(FsError::NoAttribute);
            }
            Own::Error => self.failure(inode)?,
            Own::State => inode.state()?.map(str::to_owned),
            Own::CachedBytes => inode.cached()?.map(|here| bytes_in(&here).to_string()),
            Own::Cached => inode.cached()?.map(|here| listed(&here)),
            Own::Task => inode.tasks()?,
            Own::Digest => self
                .whole(node)?
                .and_then(|whole| inode.snapshot.content.digest(whole.space))
                .map(|digest| blake3::Hash::from_bytes(digest).to_string()),
            Own::Source => inode.source()?,
        };
        value.map(String::into_bytes).ok_or(FsError::NoAttribute)
    }

    /// Names of the extended attributes that the index has.
    pub fn list_xattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>, FsError> {
        let inode = self.inode(node)?;
        Ok(inode.snapshot.tree.list_xattr(inode.nid)?)
    }

    /// Why bytes of a file could not be read that still are not here: they may have come in another way.
    fn failure(&self, inode: &Inode) -> Result<Option<String>, FsError> {
        let Some((range, error)) = self.failures.last(inode.key()) else { return Ok(None) };
        let is_of_index = error.class == ContentErrorClass::Integrity && range.is_empty();
        let is_over =
            !is_of_index && inode.missing_parts(range).is_ok_and(|missing| missing.is_empty());
        if is_over {
            self.failures.healed(inode.key(), range);
        }
        Ok((!is_over).then(|| error.to_string()))
    }
}

impl Inode {
    /// What of a file is here; what is stored nowhere, because it is zeros, always is. `None` where that is too much to
    /// tell.
    fn cached(&self) -> Result<Option<Vec<ByteRange>>, FsError> {
        let mut here: Vec<ByteRange> = Vec::new();
        let mut seen = 0;
        let mut add = |range: ByteRange| match here.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => here.push(range),
        };
        let all = self.each_extent(|at, extent| {
            match extent {
                Extent::Zero { length } => add(ByteRange::at(at, length)),
                Extent::Data { space, offset, length } => {
                    let cached = self.snapshot.content.cached(space, ByteRange::at(offset, length));
                    seen += cached.len();
                    for range in cached {
                        add(ByteRange::at(at + (range.start - offset), range.len()));
                    }
                }
            }
            if seen > LOOKED_AT { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok((all == Looked::AtAll).then_some(here))
    }

    fn state(&self) -> Result<Option<&'static str>, FsError> {
        let size = self.snapshot.tree.attr(self.nid)?.size;
        Ok(self.cached()?.map(|here| match bytes_in(&here) {
            here if here == size => "complete",
            0 => "missing",
            _ => "partial",
        }))
    }

    fn source(&self) -> Result<Option<String>, FsError> {
        let mut source = None;
        self.each_extent(|_, extent| match extent {
            Extent::Data { space, offset, .. } => {
                source = self.snapshot.content.source(space, offset);
                ControlFlow::Break(())
            }
            Extent::Zero { .. } => ControlFlow::Continue(()),
        })?;
        Ok(source)
    }

    fn tasks(&self) -> Result<Option<String>, FsError> {
        let mut spaces = BTreeSet::new();
        self.each_extent(|_, extent| {
            if let Extent::Data { space, .. } = extent {
                spaces.insert(space);
            }
            ControlFlow::Continue(())
        })?;
        let tasks: Vec<_> = spaces
            .into_iter()
            .filter_map(|space| self.snapshot.content.task(space))
            .map(|task| task.to_string())
            .collect();
        Ok(Some(tasks.join(",")).filter(|tasks| !tasks.is_empty()))
    }

    /// Shows the extents of a file with where they begin in it, as long as that is wanted and they are not too many.
    fn each_extent(
        &self,
        mut visit: impl FnMut(u64, Extent) -> ControlFlow<()>,
    ) -> Result<Looked, TreeError> {
        let mut at = 0u64;
        for _ in 0..LOOKED_AT {
            let Some(extent) = self.snapshot.tree.extent(self.nid, at)? else {
                return Ok(Looked::AtAll);
            };
            if visit(at, extent).is_break() {
                break;
            }
            at = at.saturating_add(extent.length());
        }
        Ok(Looked::AtSome)
    }
}

/// How much of a file's extents was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    AtAll,
    AtSome,
}

fn bytes_in(ranges: &[ByteRange]) -> u64 {
    ranges.iter().map(ByteRange::len).sum()
}

fn listed(ranges: &[ByteRange]) -> String {
    let mut list = String::new();
    for range in ranges {
        let comma = if list.is_empty() { "" } else { "," };
        if list.len() > RANGES_BYTES {
            list.push_str(",…");
            break;
        }
        list.push_str(&format!("{comma}{range}"));
    }
    list
}
