//! A directory hierarchy in memory, before it becomes an index: names, attributes and where each
//! file's bytes lie in the spaces. Pure; the same set of additions gives the same tree in any order.
//!
//! Invariant: every name is one that a kernel accepts (1 to 255 bytes, no `/`, no NUL, not `.` or `..`).

mod by_node;
mod follow;
mod sparse;

use std::collections::BTreeMap;

use crate::erofs::Kind;
use serde::{Deserialize, Serialize};
pub use sparse::{MAX_CHUNKS, Run, SparseFile};

/// Longest name of one entry, in bytes.
pub const MAX_NAME: usize = 255;
/// Longest path of an entry, in bytes.
pub const MAX_PATH: usize = 65_535;
/// Longest symbolic link target, in bytes.
pub const MAX_SYMLINK: usize = 4095;
/// Longest value of one extended attribute, in bytes.
pub const MAX_XATTR_VALUE: usize = 65_535;
/// Longest file, in bytes.
const LONGEST_FILE: u64 = i64::MAX as u64;
/// Most bytes that the attributes of one file may take, names and values.
pub const MAX_XATTR_TOTAL: usize = 192 * 1024;

/// A modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mtime {
    /// Seconds since 1970, negative before it.
    pub secs: i64,
    /// Nanoseconds, below 1 000 000 000.
    pub nanos: u32,
}

/// Extended attributes by their full name (`user.x`, `security.capability`, …).
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What an entry has besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits with set-id and sticky: `0o7777` at most.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When its content last changed.
    pub mtime: Mtime,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

impl Meta {
    /// These permissions, owned by root, modified at the epoch.
    pub fn with_mode(mode: u16) -> Self {
        Self { mode, ..Self::default() }
    }
}

/// Where a file's bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// Number of the space, counted from 0.
    pub space: u16,
    /// Offset in the space, in bytes; a multiple of the index's block size.
    pub offset: u64,
}

/// The content of a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileData {
    /// Bytes in it.
    pub length: u64,
    /// Where they begin; of no meaning for an empty file.
    pub location: Location,
    /// BLAKE3 of the whole content, where known.
    pub digest: Option<Box<[u8; 32]>>,
}

/// Numbers of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    /// Driver, below 4096.
    pub major: u32,
    /// Unit, below 1 048 576.
    pub minor: u32,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Directory,
    /// A regular file.
    File(FileData),
    /// A regular file with holes.
    Sparse(SparseFile),
    /// A symbolic link to these bytes.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// An entry that could not join a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its path.
    pub path: Vec<u8>,
    /// Why.
    pub reason: String,
}

/// A hard link to what another tree has: in a layer of an image, to a file of a lower one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingLink {
    /// Its path.
    pub path: Vec<u8>,
    /// What it points at there.
    pub target: Vec<u8>,
}

/// What is at the origin and not in the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// How many things.
    pub count: u64,
    /// Which, and why: the first [`MAX_NAMED`] of them.
    pub named: Vec<Skipped>,
}

impl LeftOut {
    /// Adds one thing; further ones are only counted.
    pub fn add(&mut self, path: &[u8], mut reason: String) {
        self.count += 1;
        if self.named.len() >= MAX_NAMED {
            return;
        }
        let end = (0..=reason.len().min(MAX_REASON)).rev().find(|at| reason.is_char_boundary(*at));
        reason.truncate(end.unwrap_or(0));
        let path = path[..path.len().min(dfs_source::MAX_PATH_BYTES)].to_vec();
        self.named.push(Skipped { path, reason });
    }

    /// Adds all of another.
    pub fn join(&mut self, other: Self) {
        let room = MAX_NAMED.saturating_sub(self.named.len());
        self.count += other.count;
        self.named.extend(other.named.into_iter().take(room));
    }
}

/// Things that an index names as left out.
pub const MAX_NAMED: usize = 1000;

/// Bytes of the reason why something is left out.
const MAX_REASON: usize = 1024;

/// Why an entry cannot join a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A path with an element no tree can hold.
    #[error("path '{path}' is refused: {reason}")]
    BadPath {
        /// The path, made printable.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name is taken by something of another kind.
    #[error("'{path}' is there already and is of another kind")]
    Conflict {
        /// The path, made printable.
        path: String,
    },
    /// A parent is not a directory.
    #[error("'{path}' cannot be below something that is not a directory")]
    NotADirectory {
        /// The path, made printable.
        path: String,
    },
    /// A hard link to what is not there, or to a directory.
    #[error("'{path}' is a hard link to '{target}', which is not a file in the tree")]
    BadLink {
        /// The link, made printable.
        path: String,
        /// What it points at, made printable.
        target: String,
    },
    /// An attribute out of bounds.
    #[error("'{path}' is refused: {reason}")]
    BadAttribute {
        /// The path, made printable.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Number of a node in a [`TreeBuilder`].
pub(crate) type NodeId = usize;

/// What is in a directory, by name.
type Children = BTreeMap<Box<[u8]>, NodeId>;

/// An entry. There may be millions: what few of them have stands elsewhere.
#[derive(Debug)]
pub(crate) struct Node {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
    xattrs: Option<Box<Xattrs>>,
    pub content: Content,
    children: Option<Box<Children>>,
    /// Made because something below it was added, not for its own sake.
    pub implicit: bool,
}

/// Collects entries; an [`crate::erofs::write_image`] makes the image of it.
#[derive(Debug)]
pub struct TreeBuilder {
    nodes: Vec<Node>,
}

impl Default for TreeBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeBuilder {
    /// The root of every tree.
    pub(crate) const ROOT: NodeId = 0;

    /// A tree of one empty directory.
    pub fn new() -> Self {
        Self { nodes: vec![Node::implicit_directory()] }
    }

    /// Adds an entry; the empty path is the root. Missing parents are made with mode 0755. An entry of
    /// the same kind is replaced (a directory keeps what is in it), one of another kind is a conflict.
    pub fn add(&mut self, path: &[u8], meta: Meta, content: Content) -> Result<(), TreeError> {
        check_meta(path, &meta)?;
        check_content(path, &content)?;
        if path.is_empty() {
            return self.replace_node(path, Self::ROOT, meta, content);
        }
        let (parent, name) = self.parent_of(path)?;
        if let Some(&there) = self.nodes[parent].children().get(name) {
            if matches!(content, Content::Directory) {
                return self.replace_node(path, there, meta, content);
            }
            // A new node, so that other hard links to the old one keep what they have.
            self.check_same_kind(path, there, &content)?;
        }
        let node = self.push(Node::new(meta, content));
        self.nodes[parent].children_mut().insert(name.into(), node);
        Ok(())
    }

    /// Adds a further name for the entry at `target`, which must be there and not be a directory.
    pub fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), TreeError> {
        let bad = || TreeError::BadLink { path: printable(path), target: printable(target) };
        let node = self.find(target).ok_or_else(bad)?;
        if matches!(self.nodes[node].content, Content::Directory) {
            return Err(bad());
        }
        let (parent, name) = self.parent_of(path)?;
        if let Some(&there) = self.nodes[parent].children().get(name) {
            self.check_same_kind(path, there, &self.nodes[node].content)?;
        }
        self.nodes[parent].children_mut().insert(name.into(), node);
        Ok(())
    }

    /// Takes an entry, and all below it, out of the tree; whether it was there.
    pub fn remove(&mut self, path: &[u8]) -> bool {
        let Some((parent, name)) = split(path) else { return false };
        let Some(parent) = self.find(parent) else { return false };
        self.nodes[parent].children_mut().remove(name).is_some()
    }

    /// Whether a directory is at `path`.
    pub fn is_directory(&self, path: &[u8]) -> bool {
        let node = self.find(path).map(|node| &self.nodes[node].content);
        matches!(node, Some(Content::Directory))
    }

    /// Whether anything is at `path`.
    pub fn contains(&self, path: &[u8]) -> bool {
        self.find(path).is_some()
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// Nodes ever made: an upper bound of those in the tree.
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Regular files without holes, those that are not in the tree any more among them.
    pub(crate) fn files(&self) -> impl Iterator<Item = &FileData> {
        self.nodes.iter().filter_map(|node| match &node.content {
            Content::File(file) => Some(file),
            _ => None,
        })
    }

    /// The same, to be changed.
    pub(crate) fn files_mut(&mut self) -> impl Iterator<Item = &mut FileData> {
        self.nodes.iter_mut().filter_map(|node| match &mut node.content {
            Content::File(file) => Some(file),
            _ => None,
        })
    }

    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    pub(crate) fn find(&self, path: &[u8]) -> Option<NodeId> {
        if path.is_empty() {
            return Some(Self::ROOT);
        }
        path.split(|&byte| byte == b'/')
            .try_fold(Self::ROOT, |at, name| self.nodes[at].children().get(name).copied())
    }

    fn parent_of<'a>(&mut self, path: &'a [u8]) -> Result<(NodeId, &'a [u8]), TreeError> {
        check_path(path)?;
        let (parents, name) = split(path).unwrap_or((b"", path));
        let mut at = Self::ROOT;
        for element in parents.split(|&byte| byte == b'/').filter(|element| !element.is_empty()) {
            at = match self.nodes[at].children().get(element) {
                Some(&next) => next,
                None => {
                    let next = self.push(Node::implicit_directory());
                    self.nodes[at].children_mut().insert(element.into(), next);
                    next
                }
            };
            if !matches!(self.nodes[at].content, Content::Directory) {
                return Err(TreeError::NotADirectory { path: printable(path) });
            }
        }
        Ok((at, name))
    }

    fn check_same_kind(
        &self,
        path: &[u8],
        node: NodeId,
        content: &Content,
    ) -> Result<(), TreeError> {
        let same = Kind::of(&self.nodes[node].content) == Kind::of(content);
        let error = || TreeError::Conflict { path: printable(path) };
        same.then_some(()).ok_or_else(error)
    }

    fn replace_node(
        &mut self,
        path: &[u8],
        id: NodeId,
        meta: Meta,
        content: Content,
    ) -> Result<(), TreeError> {
        self.check_same_kind(path, id, &content)?;
        let node = &mut self.nodes[id];
        *node = Node { children: node.children.take(), ..Node::new(meta, content) };
        Ok(())
    }

    /// Gives every directory that nobody described the newest time of what is in it.
    pub fn date_implicit_directories(&mut self) {
        // Parents are made before their children, so children are settled first from the end;
        // a directory that was replaced keeps its number.
        for id in (0..self.nodes.len()).rev() {
            if !self.nodes[id].implicit {
                continue;
            }
            let times = self.nodes[id].children().values().map(|&child| self.nodes[child].mtime);
            if let Some(newest) = times.max() {
                self.nodes[id].mtime = newest;
            }
        }
    }
}

impl Node {
    fn new(meta: Meta, content: Content) -> Self {
        let Meta { mode, uid, gid, mtime, xattrs } = meta;
        let xattrs = (!xattrs.is_empty()).then(|| Box::new(xattrs));
        Self { mode, uid, gid, mtime, xattrs, content, children: None, implicit: false }
    }

    fn implicit_directory() -> Self {
        Self { implicit: true, ..Self::new(Meta::with_mode(0o755), Content::Directory) }
    }

    pub fn xattrs(&self) -> &Xattrs {
        static NONE: Xattrs = Xattrs::new();
        self.xattrs.as_deref().unwrap_or(&NONE)
    }

    /// Children by name; none unless a directory.
    pub fn children(&self) -> &Children {
        static NONE: Children = Children::new();
        self.children.as_deref().unwrap_or(&NONE)
    }

    fn children_mut(&mut self) -> &mut Children {
        self.children.get_or_insert_default()
    }
}

/// The parent's path and the last element.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => Some((&path[..at], &path[at + 1..])),
        None => Some((b"", path)),
    }
}

/// A path made fit for a message.
pub(crate) fn printable(path: &[u8]) -> String {
    path[..path.len().min(1024)].escape_ascii().to_string()
}

/// What is wrong with a name, if anything.
pub(crate) fn name_fault(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" => Some("an element is empty"),
        b"." | b".." => Some("an element is '.' or '..'"),
        _ if name.len() > MAX_NAME => Some("an element is longer than 255 bytes"),
        _ if name.contains(&0) => Some("an element holds a NUL byte"),
        _ if name.contains(&b'/') => Some("an element holds a slash"),
        _ => None,
    }
}

/// Refuses a relative path that a tree cannot hold.
pub(crate) fn check_path(path: &[u8]) -> Result<(), TreeError> {
    let fault = match path.len() > MAX_PATH {
        true => Some("it is longer than 65535 bytes"),
        false => path.split(|&byte| byte == b'/').find_map(name_fault),
    };
    match fault {
        Some(reason) => Err(TreeError::BadPath { path: printable(path), reason }),
        None => Ok(()),
    }
}

fn check_meta(path: &[u8], meta: &Meta) -> Result<(), TreeError> {
    let bad = |reason| Err(TreeError::BadAttribute { path: printable(path), reason });
    if meta.mode > 0o7777 {
        return bad("its mode has bits beyond 07777");
    }
    if meta.mtime.nanos >= 1_000_000_000 {
        return bad("its time has more than a second of nanoseconds");
    }
    let mut total = 0;
    for (name, value) in &meta.xattrs {
        if crate::erofs::xattr::split_name(name).is_none() {
            return bad("an extended attribute is in no namespace of the kernel");
        }
        if value.len() > MAX_XATTR_VALUE {
            return bad("an extended attribute is longer than 65535 bytes");
        }
        total += name.len() + value.len() + 8;
    }
    if total > MAX_XATTR_TOTAL {
        return bad("its extended attributes are longer than 192 KiB together");
    }
    Ok(())
}

fn check_content(path: &[u8], content: &Content) -> Result<(), TreeError> {
    let bad = |reason| Err(TreeError::BadAttribute { path: printable(path), reason });
    match content {
        Content::Symlink(target) if target.is_empty() => bad("its link target is empty"),
        Content::Symlink(target) if target.len() > MAX_SYMLINK => {
            bad("its link target is longer than 4095 bytes")
        }
        Content::Symlink(target) if target.contains(&0) => bad("its link target holds a NUL byte"),
        Content::CharDevice(number) | Content::BlockDevice(number)
            if number.major >= 1 << 12 || number.minor >= 1 << 20 =>
        {
            bad("its device number is too large")
        }
        Content::File(FileData { length, .. }) if *length > LONGEST_FILE => {
            bad("it is longer than any file")
        }
        Content::Sparse(file) if file.length() > LONGEST_FILE => bad("it is longer than any file"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Content {
        let location = Location { space: 0, offset: 0 };
        Content::File(FileData { length: 1, location, digest: None })
    }

    fn meta() -> Meta {
        Meta::with_mode(0o644)
    }

    #[test]
    fn paths_that_leave_or_confuse_are_refused() {
        let long = vec![b'x'; 256];
        let paths: [&[u8]; 8] = [b"..", b"a/../b", b".", b"a/./b", b"/a", b"a//b", b"a/", b"a\0b"];
        for path in paths.into_iter().chain([&long[..]]) {
            let refused = TreeBuilder::new().add(path, meta(), file());
            assert!(matches!(refused, Err(TreeError::BadPath { .. })), "{}", printable(path));
        }
        assert_eq!(TreeBuilder::new().add(&long[..255], meta(), file()), Ok(()));
    }

    #[test]
    fn a_name_has_one_kind() {
        let mut tree = TreeBuilder::new();
        tree.add(b"a/b", meta(), file()).unwrap();
        tree.add(b"a/b", meta(), file()).unwrap();
        let conflict = tree.add(b"a", meta(), file());
        assert!(matches!(conflict, Err(TreeError::Conflict { .. })));
        let below = tree.add(b"a/b/c", meta(), file());
        assert!(matches!(below, Err(TreeError::NotADirectory { .. })));
        assert!(tree.remove(b"a"));
        assert!(tree.add(b"a", meta(), file()).is_ok());
    }

    #[test]
    fn hard_links_need_a_file_to_point_at() {
        let mut tree = TreeBuilder::new();
        tree.add(b"d/f", meta(), file()).unwrap();
        assert!(tree.link(b"l", b"d/f").is_ok());
        assert!(matches!(tree.link(b"m", b"d"), Err(TreeError::BadLink { .. })));
        assert!(matches!(tree.link(b"m", b"gone"), Err(TreeError::BadLink { .. })));
        assert!(matches!(tree.link(b"d", b"l"), Err(TreeError::Conflict { .. })));
    }

    #[test]
    fn describing_a_directory_late_keeps_what_is_in_it() {
        let mut tree = TreeBuilder::new();
        tree.add(b"d/f", meta(), file()).unwrap();
        tree.add(b"d", Meta::with_mode(0o700), Content::Directory).unwrap();
        assert!(tree.contains(b"d/f"));
        assert!(tree.is_directory(b"d"));
    }

    #[test]
    fn attributes_out_of_bounds_are_refused() {
        let mut tree = TreeBuilder::new();
        let mut odd = meta();
        odd.xattrs.insert(b"nonsense.x".to_vec(), Vec::new());
        for (meta, content) in [
            (odd, file()),
            (Meta::with_mode(0o10000), file()),
            (meta(), Content::Symlink(Vec::new())),
            (meta(), Content::Symlink(vec![b'x'; 4096])),
            (meta(), Content::CharDevice(DeviceNumber { major: 4096, minor: 0 })),
        ] {
            let refused = tree.add(b"x", meta, content);
            assert!(matches!(refused, Err(TreeError::BadAttribute { .. })), "{refused:?}");
        }
    }
}
