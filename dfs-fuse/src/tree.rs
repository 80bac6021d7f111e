//! What the filesystem core needs of an index: names, attributes and where bytes lie.
//!
//! A tree is immutable and whole on local disk, so every answer is given at once, without waiting.
//! Indexes come over the network: an implementation checks what it reads and answers with
//! [`TreeError`] instead of panicking or looping.

mod changes;
mod footprint;
mod index;
mod memory;
mod over;
mod part;
mod spaces;

use std::collections::HashSet;
use std::ops::ControlFlow;

pub use changes::{Change, Comparison, Unchanged};
pub use footprint::Footprint;
pub use index::IndexTree;
pub use memory::{MemoryTree, MemoryTreeBuilder, TreeBuildError};
pub use over::{FileOver, files_over};
pub use part::PartTree;
pub use spaces::SpacesTree;

/// Largest inode number an index may use: node ids leave 36 bits for it.
pub const MAX_NID: u64 = (1 << 36) - 1;

/// A directory hierarchy over the bytes of numbered spaces.
pub trait Tree: Send + Sync + 'static {
    /// Inode number of the root directory.
    fn root(&self) -> u64;

    /// Attributes of an inode.
    fn attr(&self, nid: u64) -> Result<Attr, TreeError>;

    /// The inode that `name` leads to in the directory `parent`; `None` when there is no such name.
    fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<u64>, TreeError>;

    /// Shows the entries of a directory after `cookie`, `.` and `..` among them, until `visit` breaks.
    ///
    /// 0 is the cookie of the beginning; every entry carries the one that continues after it. Cookies
    /// are the same in every process that opens the same index.
    fn read_dir(
        &self,
        nid: u64,
        cookie: u64,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), TreeError>;

    /// What a symbolic link holds.
    fn read_link(&self, nid: u64) -> Result<Vec<u8>, TreeError>;

    /// The value of an extended attribute; `None` when the inode has none of that name.
    fn xattr(&self, nid: u64, name: &[u8]) -> Result<Option<Vec<u8>>, TreeError>;

    /// Names of all extended attributes of an inode.
    fn list_xattr(&self, nid: u64) -> Result<Vec<Vec<u8>>, TreeError>;

    /// Where the bytes of a file from `offset` on lie; `None` at or beyond its end.
    ///
    /// The extent has at least one byte and ends at the file's end or before it.
    fn extent(&self, nid: u64, offset: u64) -> Result<Option<Extent>, TreeError>;

    /// What the whole tree holds.
    fn totals(&self) -> Totals;
}

/// Shows every entry at and below the directory `root` that is no directory, as often as it has names; how many
/// directories there are. A directory has one name: in an index that gives it another, circles are possible.
fn walk(
    tree: &dyn Tree,
    root: u64,
    show: &mut dyn FnMut(u64, Kind) -> Result<(), TreeError>,
) -> Result<u64, TreeError> {
    let mut met = HashSet::from([root]);
    let mut open = vec![root];
    while let Some(dir) = open.pop() {
        let (mut below, mut shown) = (Vec::new(), Vec::new());
        tree.read_dir(dir, 0, &mut |entry| {
            match entry.kind {
                _ if matches!(entry.name, b"." | b"..") => {}
                Kind::Directory => below.push(entry.nid),
                kind => shown.push((entry.nid, kind)),
            }
            ControlFlow::Continue(())
        })?;
        if !below.iter().all(|dir| met.insert(*dir)) {
            return Err(TreeError::Corrupt("a directory of it has two names".to_owned()));
        }
        open.append(&mut below);
        shown.into_iter().try_for_each(|(nid, kind)| show(nid, kind))?;
    }
    Ok(met.len() as u64)
}

/// Attributes of an inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attr {
    /// Its number; of what a mount shows the one that programs see.
    pub ino: u64,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, the lower twelve of a mode.
    pub permissions: u16,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Device number in the kernel's 32-bit encoding; 0 for what is no device.
    pub rdev: u32,
    /// Bytes in a file, in a link's target, in a directory's entries.
    pub size: u64,
    /// How many of these bytes are not holes.
    pub stored: u64,
    /// Last modification.
    pub mtime: Timestamp,
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
}

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after them, below a thousand million.
    pub nanoseconds: u32,
}

/// One name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The name, without `/` and NUL.
    pub name: &'a [u8],
    /// The inode it leads to.
    pub nid: u64,
    /// What that is.
    pub kind: Kind,
    /// Continues a listing after this entry.
    pub cookie: u64,
}

/// Bytes of a file that lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// In a space.
    Data {
        /// Number of the space.
        space: u16,
        /// First byte there.
        offset: u64,
        /// Number of bytes, at least one.
        length: u64,
    },
    /// Nowhere: they read as zeros.
    Zero {
        /// Number of bytes, at least one.
        length: u64,
    },
}

impl Extent {
    /// Number of bytes.
    pub fn length(&self) -> u64 {
        match *self {
            Self::Data { length, .. } | Self::Zero { length } => length,
        }
    }

    /// The part that follows the first `bytes`, at most `length` long.
    pub fn clip(&self, bytes: u64, length: u64) -> Self {
        let rest = self.length().saturating_sub(bytes).min(length);
        match *self {
            Self::Data { space, offset, .. } => {
                Self::Data { space, offset: offset.saturating_add(bytes), length: rest }
            }
            Self::Zero { .. } => Self::Zero { length: rest },
        }
    }
}

/// What a tree holds in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Inodes.
    pub inodes: u64,
    /// Bytes of all regular files.
    pub bytes: u64,
    /// Whether any inode has a POSIX access control list, which the kernel must then ask for.
    pub acls: bool,
}

/// Why an index gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// No inode has that number.
    #[error("the index has no inode {0}")]
    NoInode(u64),
    /// A name was looked for in something else than a directory.
    #[error("inode {0} is not a directory")]
    NotADirectory(u64),
    /// A target was asked of something else than a symbolic link.
    #[error("inode {0} is not a symbolic link")]
    NotASymlink(u64),
    /// Data was asked of something else than a regular file.
    #[error("inode {0} is not a regular file")]
    NotAFile(u64),
    /// The index contradicts itself.
    #[error("the index is damaged: {0}")]
    Corrupt(String),
}
