//! Which files of a tree lie over a part of a space.

use std::collections::HashSet;
use std::ops::ControlFlow;

use dfs_model::ByteRange;

use super::{Extent, Kind, Tree, TreeError};

/// A file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOver {
    /// Its inode.
    pub nid: u64,
    /// One of its names, from the root.
    pub path: Vec<u8>,
}

/// The files of `tree` that have bytes in one of `ranges` of a space, hard links once. Looks at every inode.
pub fn files_over(
    tree: &dyn Tree,
    space: u16,
    ranges: &[ByteRange],
) -> Result<Vec<FileOver>, TreeError> {
    let (mut met, mut over) = (HashSet::from([tree.root()]), Vec::new());
    let mut open = vec![(tree.root(), Vec::new())];
    while let Some((dir, path)) = open.pop() {
        let mut below = Vec::new();
        tree.read_dir(dir, 0, &mut |entry| {
            if !matches!(entry.name, b"." | b"..") && met.insert(entry.nid) {
                let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                below.push((entry.nid, entry.kind, [&path, separator, entry.name].concat()));
            }
            ControlFlow::Continue(())
        })?;
        for (nid, kind, path) in below {
            match kind {
                Kind::Directory => open.push((nid, path)),
                Kind::File if lies_over(tree, nid, space, ranges)? => {
                    over.push(FileOver { nid, path });
                }
                _ => {}
            }
        }
    }
    Ok(over)
}

fn lies_over(
    tree: &dyn Tree,
    nid: u64,
    space: u16,
    ranges: &[ByteRange],
) -> Result<bool, TreeError> {
    let mut at = 0;
    while let Some(extent) = tree.extent(nid, at)? {
        if let Extent::Data { space: of, offset, length } = extent {
            let own = ByteRange::at(offset, length);
            if of == space && ranges.iter().any(|range| !range.intersection(own).is_empty()) {
                return Ok(true);
            }
        }
        at += extent.length();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::MemoryTreeBuilder;
    use super::*;

    #[test]
    fn those_and_only_those_are_named_that_have_a_byte_there() {
        let data = |space, offset, length| Extent::Data { space, offset, length };
        let mut tree = MemoryTreeBuilder::new();
        tree.dir("d", 0o755).unwrap();
        tree.file("d/before", 0o644, vec![data(1, 0, 100)]).unwrap();
        let linked = tree.file("d/first", 0o644, vec![data(1, 100, 1)]).unwrap();
        tree.hard_link("other", linked).unwrap();
        let late = vec![data(0, 0, 50), Extent::Zero { length: 4 }, data(1, 150, 100)];
        tree.file("late", 0o644, late).unwrap();
        tree.file("another", 0o644, vec![data(0, 100, 100)]).unwrap();
        tree.symlink("link", b"late").unwrap();
        let tree = tree.build();
        let over = |space, ranges: &[(u64, u64)]| {
            let ranges: Vec<_> =
                ranges.iter().map(|(start, end)| ByteRange::new(*start, *end)).collect();
            let over = files_over(&tree, space, &ranges).unwrap();
            let mut paths: Vec<_> =
                over.into_iter().map(|file| String::from_utf8(file.path).unwrap()).collect();
            paths.sort();
            paths
        };
        assert_eq!(over(1, &[(100, 160)]), ["late", "other"]);
        assert_eq!(over(1, &[(0, 1), (249, 300)]), ["d/before", "late"]);
        assert_eq!(over(0, &[(60, 100)]), [""; 0]);
        assert_eq!(over(2, &[(0, 1000)]), [""; 0]);
    }
}
