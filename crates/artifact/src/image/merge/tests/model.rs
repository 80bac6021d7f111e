//! The same in the most naive way: a map of paths, to which layers are applied one by one.

use std::collections::{BTreeMap, BTreeSet};

use super::made::{Entry, Seen, What};
use crate::erofs::Kind;
use crate::tree::{DeviceNumber, Xattrs};

/// What is at a path.
#[derive(Debug, Clone)]
struct Node {
    seen: Seen,
    implied: bool,
    /// Names of the same number are hard links.
    inode: usize,
}

type Paths = BTreeMap<String, Node>;

fn parent(path: &str) -> Option<&str> {
    if path.is_empty() {
        None
    } else {
        Some(path.rsplit_once('/').map_or("", |(parent, _)| parent))
    }
}

fn ancestors(path: &str) -> Vec<String> {
    let mut found: Vec<String> =
        std::iter::successors(parent(path), |path| parent(path)).map(str::to_owned).collect();
    found.reverse();
    found
}

fn is_marked(path: &str) -> bool {
    path.split('/').any(|name| name.starts_with(".wh."))
}

fn is_below(path: &str, top: &str) -> bool {
    path != top && (top.is_empty() || path.starts_with(&format!("{top}/")))
}

fn implied() -> Seen {
    let (text, same_as) = (String::new(), String::new());
    let xattrs = Xattrs::new();
    Seen { kind: Kind::Directory, mode: 0o755, uid: 0, mtime: 0, xattrs, text, same_as }
}

/// The entry as it is seen, its hard links apart.
fn seen(entry: &Entry) -> Seen {
    let device = |&major: &u32, &minor: &u32| format!("{:?}", DeviceNumber { major, minor });
    let (kind, text) = match &entry.what {
        What::Directory => (Kind::Directory, String::new()),
        What::File(text) => (Kind::File, text.clone()),
        What::Sparse(length, at, text) => {
            let mut content = vec![b'\0'; *length as usize];
            content[*at as usize..][..text.len()].copy_from_slice(text.as_bytes());
            (Kind::File, String::from_utf8(content).unwrap())
        }
        What::Symlink(target) => (Kind::Symlink, target.clone()),
        What::Char(major, minor) => (Kind::CharDevice, device(major, minor)),
        What::Block(major, minor) => (Kind::BlockDevice, device(major, minor)),
        What::Fifo => (Kind::Fifo, String::new()),
        What::Link(_) => unreachable!("links are what they point at"),
    };
    let xattrs =
        entry.xattrs.iter().map(|(name, value)| (name.clone().into(), value.clone().into()));
    let (mode, uid, mtime, xattrs) = (entry.mode, entry.uid, entry.mtime, xattrs.collect());
    Seen { kind, mode, uid, mtime, xattrs, text, same_as: String::new() }
}

/// Takes out all below a path.
fn empty(paths: &mut Paths, top: &str) {
    paths.retain(|path, _| !is_below(path, top));
}

/// Takes out a path and all below it.
fn remove(paths: &mut Paths, top: &str) {
    empty(paths, top);
    paths.remove(top);
}

/// The tree that layers make.
#[derive(Default)]
pub struct Model {
    paths: Paths,
    inodes: usize,
}

impl Model {
    /// The layer's own names, in which a link may be followed by what it points at.
    fn own(&mut self, entries: &[Entry]) -> (Paths, Vec<(String, String)>) {
        let mut own = Paths::new();
        for entry in entries.iter().filter(|entry| !matches!(entry.what, What::Link(_))) {
            for path in ancestors(&entry.path) {
                own.entry(path).or_insert(Node { seen: implied(), implied: true, inode: 0 });
            }
            self.inodes += 1;
            let node = Node { seen: seen(entry), implied: false, inode: self.inodes };
            own.insert(entry.path.clone(), node);
        }
        let mut waiting = Vec::new();
        for entry in entries {
            let What::Link(target) = &entry.what else { continue };
            let through_link =
                |path: &String| own.get(path).is_some_and(|node| node.seen.kind == Kind::Symlink);
            if !ancestors(target).iter().any(through_link) {
                self.link(&mut own, &entry.path, target, &mut waiting);
            }
        }
        let mut pending = Vec::new();
        for (path, target) in waiting {
            self.link(&mut own, &path, &target, &mut pending);
        }
        (own, pending)
    }

    fn link(
        &self,
        own: &mut Paths,
        path: &str,
        target: &str,
        otherwise: &mut Vec<(String, String)>,
    ) {
        match own.get(target).cloned() {
            Some(node) if node.seen.kind == Kind::Directory => {}
            Some(node) => {
                for path in ancestors(path) {
                    own.entry(path).or_insert(Node { seen: implied(), implied: true, inode: 0 });
                }
                own.insert(path.to_owned(), node);
            }
            None => otherwise.push((path.to_owned(), target.to_owned())),
        }
    }

    pub fn apply(&mut self, entries: &[Entry]) {
        let (own, pending) = self.own(entries);
        let linked: Vec<String> = pending.iter().map(|(path, _)| path.clone()).collect();
        let mut links: BTreeMap<String, Node> = BTreeMap::new();
        let mut in_order = Vec::new();
        for (path, target) in pending.into_iter().filter(|(path, _)| !is_marked(path)) {
            let there = links.get(&target).or_else(|| self.paths.get(&target)).cloned();
            if let Some(node) = there.filter(|node| node.seen.kind != Kind::Directory) {
                links.insert(path.clone(), node.clone());
                in_order.push((path, node));
            }
        }
        let names: BTreeSet<&String> = own.keys().chain(&linked).collect();
        for path in names.into_iter().filter(|path| !path.is_empty()) {
            let top = parent(path).unwrap_or_default();
            let name = path.rsplit('/').next().unwrap();
            if is_marked(top) {
                continue;
            }
            match name.strip_prefix(".wh.") {
                Some(".wh..opq") => empty(&mut self.paths, top),
                Some(hidden) if !hidden.starts_with(".wh.") && !hidden.is_empty() => {
                    let hidden =
                        if top.is_empty() { hidden.into() } else { format!("{top}/{hidden}") };
                    remove(&mut self.paths, &hidden);
                }
                _ => {}
            }
        }
        for (path, node) in own.into_iter().filter(|(path, _)| !is_marked(path)) {
            self.put(&path, node);
        }
        for (path, node) in in_order {
            for path in ancestors(&path) {
                self.put(&path, Node { seen: implied(), implied: true, inode: 0 });
            }
            remove(&mut self.paths, &path);
            self.paths.insert(path, node);
        }
    }

    fn put(&mut self, path: &str, node: Node) {
        let directory = |node: &Node| node.seen.kind == Kind::Directory;
        let over_one = directory(&node) && self.paths.get(path).is_some_and(directory);
        if !over_one {
            remove(&mut self.paths, path);
        }
        if !(over_one && node.implied) {
            self.paths.insert(path.to_owned(), node);
        }
    }

    /// All there is.
    pub fn seen(&self) -> BTreeMap<String, Seen> {
        let mut paths = self.paths.clone();
        paths.entry(String::new()).or_insert(Node { seen: implied(), implied: true, inode: 0 });
        // What lies deepest is settled first.
        let mut dirs: Vec<String> =
            paths.iter().filter(|(_, node)| node.implied).map(|(path, _)| path.clone()).collect();
        dirs.sort_by_key(|path| {
            std::cmp::Reverse(if path.is_empty() { 0 } else { path.split('/').count() })
        });
        for dir in dirs {
            let within = paths.iter().filter(|(path, _)| parent(path) == Some(&dir));
            let newest = within.map(|(_, node)| node.seen.mtime).max();
            paths.get_mut(&dir).unwrap().seen.mtime = newest.unwrap_or(0);
        }
        // Names are counted in the order of the walk: by their elements.
        let mut walk: Vec<&String> = paths.keys().collect();
        walk.sort_by_key(|path| path.split('/').collect::<Vec<_>>());
        let mut first: BTreeMap<usize, String> = BTreeMap::new();
        for path in walk {
            first.entry(paths[path].inode).or_insert_with(|| path.clone());
        }
        let shown = |(path, node): (&String, &Node)| {
            let directory = node.seen.kind == Kind::Directory;
            let same_as = if directory { String::new() } else { first[&node.inode].clone() };
            (path.clone(), Seen { same_as, ..node.seen.clone() })
        };
        paths.iter().map(shown).collect()
    }
}
