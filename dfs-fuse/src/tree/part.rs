//! A part of a tree as a tree of its own: a directory and what is below it, or one file in a directory made
//! for it.

use std::ops::ControlFlow;

use super::{Attr, DirEntry, Extent, Kind, MAX_NID, Timestamp, Totals, Tree, TreeError, walk};

/// The directory that is made for a file; no image is so long that one of its inodes has this number.
const MADE: u64 = MAX_NID;

/// The part of a tree that lies at a path.
#[derive(Debug)]
pub struct PartTree<T> {
    tree: T,
    root: Root,
    totals: Totals,
}

#[derive(Debug)]
enum Root {
    Directory(u64),
    File { name: Vec<u8>, nid: u64 },
}

impl<T: Tree> PartTree<T> {
    /// What is at `path`, elements joined by slashes; `None` when nothing is, or neither a file nor a
    /// directory.
    pub fn at(tree: T, path: &[u8]) -> Result<Option<Self>, TreeError> {
        let mut nid = tree.root();
        let mut last: &[u8] = b"";
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            if tree.attr(nid)?.kind != Kind::Directory {
                return Ok(None);
            }
            let Some(next) = tree.lookup(nid, name)? else { return Ok(None) };
            (nid, last) = (next, name);
        }
        let attr = tree.attr(nid)?;
        let acls = tree.totals().acls;
        let (root, totals) = match attr.kind {
            Kind::Directory => (Root::Directory(nid), totals(&tree, nid)?),
            Kind::File => {
                let totals = Totals { inodes: 2, bytes: attr.size, acls };
                (Root::File { name: last.to_vec(), nid }, totals)
            }
            _ => return Ok(None),
        };
        Ok(Some(Self { tree, root, totals: Totals { acls, ..totals } }))
    }

    /// The file of a directory that was made, where `nid` is that directory.
    fn made(&self, nid: u64) -> Option<(&[u8], u64)> {
        match &self.root {
            Root::File { name, nid: file } if nid == MADE => Some((name, *file)),
            _ => None,
        }
    }
}

/// Counts what is below a directory.
fn totals(tree: &impl Tree, root: u64) -> Result<Totals, TreeError> {
    let (mut inodes, mut bytes) = (0, 0u64);
    let directories = walk(tree, root, &mut |nid, _| {
        let attr = tree.attr(nid)?;
        inodes += 1;
        if attr.kind == Kind::File {
            bytes = bytes.saturating_add(attr.size);
        }
        Ok(())
    })?;
    Ok(Totals { inodes: inodes + directories, bytes, ..Totals::default() })
}

impl<T: Tree> Tree for PartTree<T> {
    fn root(&self) -> u64 {
        match self.root {
            Root::Directory(nid) => nid,
            Root::File { .. } => MADE,
        }
    }

    fn attr(&self, nid: u64) -> Result<Attr, TreeError> {
        let Some((_, file)) = self.made(nid) else { return self.tree.attr(nid) };
        let mtime: Timestamp = self.tree.attr(file)?.mtime;
        Ok(Attr {
            ino: MADE,
            kind: Kind::Directory,
            permissions: 0o755,
            nlink: 2,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            stored: 0,
            mtime,
        })
    }

    fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<u64>, TreeError> {
        match self.made(parent) {
            Some((only, file)) => Ok((name == only).then_some(file)),
            None => self.tree.lookup(parent, name),
        }
    }

    fn read_dir(
        &self,
        nid: u64,
        cookie: u64,
        visit: &mut dyn FnMut(DirEntry<'_>) -> ControlFlow<()>,
    ) -> Result<(), TreeError> {
        let Some((only, file)) = self.made(nid) else {
            return self.tree.read_dir(nid, cookie, visit);
        };
        let entries = [
            (&b"."[..], MADE, Kind::Directory),
            (b"..", MADE, Kind::Directory),
            (only, file, Kind::File),
        ];
        for ((name, nid, kind), next) in entries.into_iter().zip(1..).skip(cookie as usize) {
            if visit(DirEntry { name, nid, kind, cookie: next }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self, nid: u64) -> Result<Vec<u8>, TreeError> {
        match self.made(nid) {
            Some(_) => Err(TreeError::NotASymlink(nid)),
            None => self.tree.read_link(nid),
        }
    }

    fn xattr(&self, nid: u64, name: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        if self.made(nid).is_some() { Ok(None) } else { self.tree.xattr(nid, name) }
    }

    fn list_xattr(&self, nid: u64) -> Result<Vec<Vec<u8>>, TreeError> {
        if self.made(nid).is_some() { Ok(Vec::new()) } else { self.tree.list_xattr(nid) }
    }

    fn extent(&self, nid: u64, offset: u64) -> Result<Option<Extent>, TreeError> {
        match self.made(nid) {
            Some(_) => Err(TreeError::NotAFile(nid)),
            None => self.tree.extent(nid, offset),
        }
    }

    fn totals(&self) -> Totals {
        self.totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_artifact::erofs::{BlockSize, Image, ImageOptions, write_image};
    use dfs_artifact::tree::{Content, FileData, Location, Meta, Mtime, TreeBuilder};

    use dfs_model::{ByteRange, GroupSet};

    use super::super::{Footprint, IndexTree};

    fn tree() -> IndexTree<Vec<u8>> {
        let mut builder = TreeBuilder::new();
        let location = Location { space: 0, offset: 0 };
        let file = |length| Content::File(FileData { length, location, digest: None });
        for (path, length) in [("a/b/f", 5), ("a/b/c/g", 7), ("h", 9)] {
            builder.add(path.as_bytes(), Meta::with_mode(0o640), file(length)).unwrap();
        }
        let link = Content::Symlink(b"h".to_vec());
        builder.add(b"a/link", Meta::with_mode(0o777), link).unwrap();
        let space = dfs_artifact::erofs::Space { length: 4096, tag: [0; 64] };
        let options = ImageOptions {
            block_size: BlockSize::B4096,
            build_time: Mtime::default(),
            spaces: vec![space],
        };
        let image = Image::open(write_image(&builder, &options).unwrap().bytes).unwrap();
        let inodes = image.inodes();
        IndexTree::new(image, Totals { inodes, bytes: 21, acls: true })
    }

    fn names(tree: &impl Tree, nid: u64) -> Vec<String> {
        let mut names = Vec::new();
        tree.read_dir(nid, 0, &mut |entry| {
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
        names
    }

    #[test]
    fn the_footprint_of_a_part_is_that_of_its_files() {
        let all = GroupSet::full(4);
        let of = |path: &[u8]| {
            let part = PartTree::at(tree(), path).unwrap().unwrap();
            let footprint = Footprint::of(&part).unwrap();
            let within: Vec<_> = footprint.within(0, &all, 4096).collect();
            (footprint.files, footprint.bytes, within)
        };
        // All its files lie at the beginning of the space.
        assert_eq!(of(b"a/b"), (2, 12, vec![ByteRange::new(0, 7)]));
        assert_eq!(of(b"a/b/c/g"), (1, 7, vec![ByteRange::new(0, 7)]));
        let part = Footprint::of(&PartTree::at(tree(), b"a").unwrap().unwrap()).unwrap();
        assert_eq!(part.within(0, &GroupSet::new(), 4096).count(), 0);
        assert_eq!(part.within(7, &all, 4096).count(), 0);
    }

    #[test]
    fn a_directory_is_shown_with_what_is_below_it() {
        let part = PartTree::at(tree(), b"a/b").unwrap().unwrap();
        assert_eq!(names(&part, part.root()), [".", "..", "c", "f"]);
        assert_eq!(part.totals(), Totals { inodes: 4, bytes: 12, acls: true });
    }

    #[test]
    fn a_file_is_shown_in_a_directory_of_its_own() {
        let part = PartTree::at(tree(), b"a/b/f").unwrap().unwrap();
        assert_eq!(names(&part, part.root()), [".", "..", "f"]);
        let file = part.lookup(part.root(), b"f").unwrap().unwrap();
        assert_eq!(part.attr(file).unwrap().size, 5);
        assert_eq!(part.attr(part.root()).unwrap().kind, Kind::Directory);
        assert_eq!(part.lookup(part.root(), b"g"), Ok(None));
        assert_eq!(part.totals(), Totals { inodes: 2, bytes: 5, acls: true });
    }

    #[test]
    fn what_is_not_there_or_no_tree_is_none() {
        for path in [&b"x"[..], b"a/b/f/x", b"a/link", b"h/x"] {
            assert!(PartTree::at(tree(), path).unwrap().is_none(), "{}", path.escape_ascii());
        }
    }
}
