//! A tree in memory: the model that tests compare a mount with, and small trees that need no index.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use super::{Attr, DirEntry, Extent, Kind, Timestamp, Totals, Tree, TreeError};

/// Inode number of the root; the following ones are given in the order of adding.
const ROOT: u64 = 36;

/// Cookies of the first real entry and after; `.` and `..` carry 1 and 2.
const FIRST_COOKIE: u64 = 3;

#[derive(Debug, Clone)]
struct Inode {
    attr: Attr,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    File(Vec<Extent>),
    Directory {
        parent: u64,
        children: BTreeMap<u64, (Vec<u8>, u64)>,
        names: BTreeMap<Vec<u8>, u64>,
    },
    Symlink(Vec<u8>),
    Special,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct MemoryTree {
    inodes: Vec<Inode>,
    totals: Totals,
}

/// A path that cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot add '{path}' to the tree: {reason}")]
pub struct TreeBuildError {
    path: String,
    reason: &'static str,
}

/// Makes a [`MemoryTree`] path by path; parents come first.
#[derive(Debug, Clone)]
pub struct MemoryTreeBuilder {
    tree: MemoryTree,
}

impl Default for MemoryTreeBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryTreeBuilder {
    /// A tree of nothing but its root, mode 0755.
    pub fn new() -> Self {
        let mut root = Inode::new(Kind::Directory, 0o755, Body::empty_directory(ROOT));
        root.attr.ino = ROOT;
        root.attr.nlink = 2;
        let totals = Totals { inodes: 1, ..Totals::default() };
        Self { tree: MemoryTree { inodes: vec![root], totals } }
    }

    /// Adds a directory.
    pub fn dir(&mut self, path: &str, permissions: u16) -> Result<u64, TreeBuildError> {
        let parent = self.parent_of(path)?.0;
        let mut inode = Inode::new(Kind::Directory, permissions, Body::empty_directory(parent));
        inode.attr.nlink = 2;
        let nid = self.add(path, inode)?;
        self.tree.inodes[index_of(parent)].attr.nlink += 1;
        Ok(nid)
    }

    /// Adds a regular file made of `extents` in order.
    pub fn file(
        &mut self,
        path: &str,
        permissions: u16,
        extents: Vec<Extent>,
    ) -> Result<u64, TreeBuildError> {
        let mut inode = Inode::new(Kind::File, permissions, Body::Special);
        inode.attr.size = extents.iter().map(Extent::length).sum();
        let bytes = inode.attr.size;
        let data = extents.iter().filter(|extent| matches!(extent, Extent::Data { .. }));
        inode.attr.stored = data.map(Extent::length).sum();
        inode.body = Body::File(extents);
        let nid = self.add(path, inode)?;
        self.tree.totals.bytes += bytes;
        Ok(nid)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &[u8]) -> Result<u64, TreeBuildError> {
        let mut inode = Inode::new(Kind::Symlink, 0o777, Body::Symlink(target.to_vec()));
        inode.attr.size = target.len() as u64;
        inode.attr.stored = inode.attr.size;
        self.add(path, inode)
    }

    /// Adds a device, pipe or socket; `rdev` in the kernel's 32-bit encoding.
    pub fn special(
        &mut self,
        path: &str,
        kind: Kind,
        permissions: u16,
        rdev: u32,
    ) -> Result<u64, TreeBuildError> {
        let mut inode = Inode::new(kind, permissions, Body::Special);
        inode.attr.rdev = rdev;
        self.add(path, inode)
    }

    /// Gives the inode `nid`, which is not a directory, one more name.
    pub fn hard_link(&mut self, path: &str, nid: u64) -> Result<(), TreeBuildError> {
        let known = self.tree.inode(nid).is_ok_and(|inode| inode.attr.kind != Kind::Directory);
        if !known {
            return Err(refuse(path, "the linked inode does not exist or is a directory"));
        }
        self.link(path, nid)?;
        self.tree.inodes[index_of(nid)].attr.nlink += 1;
        Ok(())
    }

    /// Sets owner and time of the inode `nid`; unknown inodes are left alone.
    pub fn own(&mut self, nid: u64, uid: u32, gid: u32, mtime: Timestamp) -> &mut Self {
        if let Some(inode) = self.tree.inodes.get_mut(index_of(nid)) {
            (inode.attr.uid, inode.attr.gid, inode.attr.mtime) = (uid, gid, mtime);
        }
        self
    }

    /// Sets an extended attribute of the inode `nid`; unknown inodes are left alone.
    pub fn xattr(&mut self, nid: u64, name: &str, value: &[u8]) -> &mut Self {
        if let Some(inode) = self.tree.inodes.get_mut(index_of(nid)) {
            inode.xattrs.insert(name.as_bytes().to_vec(), value.to_vec());
            self.tree.totals.acls |= name.starts_with("system.posix_acl_");
        }
        self
    }

    /// The tree.
    pub fn build(self) -> MemoryTree {
        self.tree
    }

    fn parent_of<'a>(&self, path: &'a str) -> Result<(u64, &'a str), TreeBuildError> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() || name == "." || name == ".." || name.len() > 255 {
            return Err(refuse(path, "the last element is not a usable name"));
        }
        let mut at = ROOT;
        for element in folder.split('/').filter(|element| !element.is_empty()) {
            at = match self.tree.lookup(at, element.as_bytes()) {
                Ok(Some(nid)) => nid,
                _ => return Err(refuse(path, "a directory on the way is missing")),
            };
        }
        Ok((at, name))
    }

    fn add(&mut self, path: &str, mut inode: Inode) -> Result<u64, TreeBuildError> {
        let nid = ROOT + self.tree.inodes.len() as u64;
        inode.attr.ino = nid;
        self.link(path, nid)?;
        self.tree.inodes.push(inode);
        self.tree.totals.inodes += 1;
        Ok(nid)
    }

    /// Gives an inode one more name, also a directory, which no tree of a file system does.
    pub(crate) fn link(&mut self, path: &str, nid: u64) -> Result<(), TreeBuildError> {
        let (parent, name) = self.parent_of(path)?;
        let Body::Directory { children, names, .. } = &mut self.tree.inodes[index_of(parent)].body
        else {
            return Err(refuse(path, "its parent is not a directory"));
        };
        if names.contains_key(name.as_bytes()) {
            return Err(refuse(path, "the name is taken"));
        }
        let cookie = FIRST_COOKIE + children.len() as u64;
        names.insert(name.as_bytes().to_vec(), cookie);
        children.insert(cookie, (name.as_bytes().to_vec(), nid));
        Ok(())
    }
}

impl Inode {
    fn new(kind: Kind, permissions: u16, body: Body) -> Self {
        let attr = Attr {
            ino: 0,
            kind,
            permissions: permissions & 0o7777,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            stored: 0,
            mtime: Timestamp::default(),
        };
        Self { attr, xattrs: BTreeMap::new(), body }
    }
}

impl Body {
    fn empty_directory(parent: u64) -> Self {
        Self::Directory { parent, children: BTreeMap::new(), names: BTreeMap::new() }
    }
}

impl MemoryTree {
    fn inode(&self, nid: u64) -> Result<&Inode, TreeError> {
        self.inodes.get(index_of(nid)).ok_or(TreeError::NoInode(nid))
    }
}

impl Tree for MemoryTree {
    fn root(&self) -> u64 {
        ROOT
    }

    fn attr(&self, nid: u64) -> Result<Attr, TreeError> {
        Ok(self.inode(nid)?.attr.clone())
    }

    fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<u64>, TreeError> {
        let Body::Directory { children, names, .. } = &self.inode(parent)?.body else {
            return Err(TreeError::NotADirectory(parent));
        };
        Ok(names.get(name).and_then(|cookie| children.get(cookie)).map(|(_, nid)| *nid))
    }

    fn read_dir(
        &self,
        nid: u64,
        cookie: u64,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), TreeError> {
        let Body::Directory { parent, children, .. } = &self.inode(nid)?.body else {
            return Err(TreeError::NotADirectory(nid));
        };
        let dots = [(&b"."[..], nid, 1), (&b".."[..], *parent, 2)];
        for (name, nid, own) in dots.into_iter().filter(|(_, _, own)| *own > cookie) {
            if visit(DirEntry { name, nid, kind: Kind::Directory, cookie: own }).is_break() {
                return Ok(());
            }
        }
        for (own, (name, nid)) in children.range((Bound::Excluded(cookie), Bound::Unbounded)) {
            let kind = self.inode(*nid)?.attr.kind;
            if visit(DirEntry { name, nid: *nid, kind, cookie: *own }).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn read_link(&self, nid: u64) -> Result<Vec<u8>, TreeError> {
        match &self.inode(nid)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(TreeError::NotASymlink(nid)),
        }
    }

    fn xattr(&self, nid: u64, name: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        Ok(self.inode(nid)?.xattrs.get(name).cloned())
    }

    fn list_xattr(&self, nid: u64) -> Result<Vec<Vec<u8>>, TreeError> {
        Ok(self.inode(nid)?.xattrs.keys().cloned().collect())
    }

    fn extent(&self, nid: u64, offset: u64) -> Result<Option<Extent>, TreeError> {
        let Body::File(extents) = &self.inode(nid)?.body else {
            return Err(TreeError::NotAFile(nid));
        };
        let mut start = 0;
        for extent in extents {
            let end = start + extent.length();
            if offset < end {
                return Ok(Some(extent.clip(offset - start, u64::MAX)));
            }
            start = end;
        }
        Ok(None)
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

/// Place in the inode table; numbers below the root's lead past its end.
fn index_of(nid: u64) -> usize {
    nid.checked_sub(ROOT).and_then(|index| usize::try_from(index).ok()).unwrap_or(usize::MAX)
}

fn refuse(path: &str, reason: &'static str) -> TreeBuildError {
    TreeBuildError { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tree: &MemoryTree, nid: u64, cookie: u64) -> Vec<(Vec<u8>, u64)> {
        let mut seen = Vec::new();
        tree.read_dir(nid, cookie, &mut |entry| {
            seen.push((entry.name.to_vec(), entry.cookie));
            ControlFlow::Continue(())
        })
        .unwrap();
        seen
    }

    #[test]
    fn a_listing_continues_after_any_cookie() {
        let mut builder = MemoryTreeBuilder::new();
        builder.dir("a", 0o755).unwrap();
        builder.symlink("a/b", b"c").unwrap();
        builder.symlink("a/c", b"d").unwrap();
        let tree = builder.build();
        let a = tree.lookup(tree.root(), b"a").unwrap().unwrap();
        let all = names(&tree, a, 0);
        assert_eq!(all.len(), 4);
        for (at, (_, cookie)) in all.iter().enumerate() {
            assert_eq!(names(&tree, a, *cookie), all[at + 1..]);
        }
    }

    #[test]
    fn a_name_is_given_once_and_below_a_directory() {
        let mut builder = MemoryTreeBuilder::new();
        let file = builder.file("f", 0o644, vec![]).unwrap();
        assert!(builder.file("f", 0o644, vec![]).is_err());
        assert!(builder.file("f/g", 0o644, vec![]).is_err());
        assert!(builder.file("x/g", 0o644, vec![]).is_err());
        builder.hard_link("h", file).unwrap();
        assert_eq!(builder.build().attr(file).unwrap().nlink, 2);
    }

    #[test]
    fn extents_are_found_from_any_offset() {
        let mut builder = MemoryTreeBuilder::new();
        let parts = vec![
            Extent::Data { space: 1, offset: 100, length: 10 },
            Extent::Zero { length: 5 },
            Extent::Data { space: 0, offset: 0, length: 1 },
        ];
        let file = builder.file("f", 0o644, parts).unwrap();
        let tree = builder.build();
        let at = |offset| tree.extent(file, offset).unwrap();
        assert_eq!(at(4), Some(Extent::Data { space: 1, offset: 104, length: 6 }));
        assert_eq!(at(10), Some(Extent::Zero { length: 5 }));
        assert_eq!(at(15), Some(Extent::Data { space: 0, offset: 0, length: 1 }));
        assert_eq!(at(16), None);
        assert_eq!(tree.attr(file).unwrap().size, 16);
    }
}
