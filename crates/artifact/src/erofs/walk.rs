//! Everything in an image, each directory once.

use std::collections::HashSet;

use super::format::FormatError;
use super::inode::Kind;
use super::reader::Image;
use crate::tree::MAX_PATH;

/// An entry met on a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// Its path from the root, without a leading slash.
    pub path: Vec<u8>,
    /// The node.
    pub nid: u64,
    /// What it is.
    pub kind: Kind,
}

/// Goes through an image in the order of paths, parents first. Directories form a tree: one that is
/// reached twice ends the walk with an error, as do more entries than the image has room for.
pub struct Walk<'a, D> {
    image: &'a Image<D>,
    /// Path of the innermost open directory.
    path: Vec<u8>,
    /// Open directories, each with its parent, the length of the path to it and the next cookie.
    stack: Vec<(u64, u64, usize, u64)>,
    seen: HashSet<u64>,
    budget: u64,
}

impl<D: AsRef<[u8]> + Send + Sync + 'static> Image<D> {
    /// Walks the whole image; the root itself is not reported.
    pub fn walk(&self) -> Walk<'_, D> {
        let root = self.root();
        Walk {
            image: self,
            path: Vec::new(),
            stack: vec![(root, root, 0, 0)],
            seen: HashSet::from([root]),
            // An entry of an honest image takes 12 bytes and a name of its own.
            budget: self.length() / 13 + 1,
        }
    }
}

impl<D: AsRef<[u8]> + Send + Sync + 'static> Walk<'_, D> {
    fn step(&mut self) -> Result<Option<Visit>, FormatError> {
        while let Some((dir, parent, length, cookie)) = self.stack.last_mut() {
            let (dir, parent) = (*dir, *parent);
            self.path.truncate(*length);
            let Some(entry) = self.image.read_dir(dir, *cookie, 1)?.pop() else {
                self.stack.pop();
                continue;
            };
            let corrupt = |what| FormatError::Corrupt { nid: dir, what };
            self.budget = self.budget.checked_sub(1).ok_or(corrupt("it repeats other entries"))?;
            *cookie = entry.cookie;
            let expected = match &entry.name[..] {
                b"." => Some(dir),
                b".." => Some(parent),
                _ => None,
            };
            if let Some(expected) = expected {
                if entry.nid != expected || entry.kind != Kind::Directory {
                    return Err(corrupt("its own or its parent's entry points elsewhere"));
                }
                continue;
            }
            let mut full = Vec::with_capacity(self.path.len() + 1 + entry.name.len());
            full.extend_from_slice(&self.path);
            if !full.is_empty() {
                full.push(b'/');
            }
            full.extend_from_slice(&entry.name);
            if full.len() > MAX_PATH {
                return Err(corrupt("it lies too deep"));
            }
            if entry.kind == Kind::Directory {
                if !self.seen.insert(entry.nid) {
                    return Err(corrupt("a directory is reached twice"));
                }
                self.stack.push((entry.nid, dir, full.len(), 0));
                self.path.clone_from(&full);
            }
            return Ok(Some(Visit { path: full, nid: entry.nid, kind: entry.kind }));
        }
        Ok(None)
    }
}

impl<D: AsRef<[u8]> + Send + Sync + 'static> Iterator for Walk<'_, D> {
    type Item = Result<Visit, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.step() {
            Ok(visit) => visit.map(Ok),
            Err(error) => {
                self.stack.clear();
                Some(Err(error))
            }
        }
    }
}
