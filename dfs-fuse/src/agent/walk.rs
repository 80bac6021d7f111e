//! Listing and finding inside an index, for those who look without mounting.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use dfs_artifact::Index;
use dfs_artifact::erofs::{Attr, FormatError, Kind};
use dfs_proto::node::{EntryKind, ListEntry};

/// Entries of a directory taken at a time.
const PORTION: usize = 256;

/// How far below a directory a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// What lies right in it.
    Level,
    /// All of it.
    Everything,
}

/// A walk over a tree, depth first; entries come one by one so that a million of them cost no more memory than
/// the directories on the path. What is below a directory stands where it stands in the order of whole paths, as in
/// a store's list of keys: `a-b` before `a/c`, although `a` is before `a-b`.
pub(super) struct Walk {
    index: Arc<Index>,
    stack: Vec<Level>,
    /// The directory that is looked through now.
    path: Vec<u8>,
    /// Directories met: in an index that somebody made up they may go round in circles.
    met: HashSet<u64>,
    depth: Depth,
}

struct Level {
    dir: u64,
    /// Length of the path of the directory above.
    above: usize,
    cookie: u64,
    ready: VecDeque<(Vec<u8>, u64)>,
    /// Directories whose names all that came since begin with: names before what is in them may follow.
    held: Vec<(Vec<u8>, u64)>,
}

impl Level {
    fn new(dir: u64, above: usize) -> Self {
        Self { dir, above, cookie: 0, ready: VecDeque::new(), held: Vec::new() }
    }

    /// The directory whose turn it is, now that nothing comes any more that is before what is in it.
    fn release(&mut self) -> Option<(Vec<u8>, u64)> {
        let (held, _) = self.held.last()?;
        let in_it = held.iter().chain(b"/");
        let is_due = self.ready.front().is_none_or(|(next, _)| in_it.lt(next));
        if is_due { self.held.pop() } else { None }
    }
}

/// The inode at a path, `None` when there is none.
pub(super) fn find(index: &Index, path: &[u8]) -> Result<Option<u64>, FormatError> {
    let image = index.image();
    let mut nid = image.root();
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        if image.attr(nid)?.kind != Kind::Directory {
            return Ok(None);
        }
        match image.lookup(nid, name)? {
            Some(next) => nid = next,
            None => return Ok(None),
        }
    }
    Ok(Some(nid))
}

impl Walk {
    pub(super) fn new(index: Arc<Index>, dir: u64, path: Vec<u8>, depth: Depth) -> Self {
        let (stack, met) = (vec![Level::new(dir, 0)], HashSet::from([dir]));
        Self { index, stack, path, met, depth }
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let separator: &[u8] = if self.path.is_empty() { b"" } else { b"/" };
        [&self.path[..], separator, name].concat()
    }

    fn entry(&self, path: Vec<u8>, nid: u64) -> Result<ListEntry, FormatError> {
        let image = self.index.image();
        let attr = image.attr(nid)?;
        let link_target = match attr.kind {
            Kind::Symlink => image.read_link(nid)?,
            _ => Vec::new(),
        };
        Ok(describe(path, &attr, link_target))
    }

    fn advance(&mut self) -> Result<Option<ListEntry>, FormatError> {
        while let Some(level) = self.stack.last_mut() {
            if level.ready.is_empty() {
                let entries = self.index.image().read_dir(level.dir, level.cookie, PORTION)?;
                level.cookie = entries.last().map_or(level.cookie, |last| last.cookie);
                let names = entries.into_iter().map(|entry| (entry.name, entry.nid));
                level.ready.extend(names.filter(|(name, _)| name != b"." && name != b".."));
            }
            if let Some((name, nid)) = level.release() {
                if !self.met.insert(nid) {
                    let what = "it is a directory of two names";
                    return Err(FormatError::Corrupt { nid, what });
                }
                let path = self.path_of(&name);
                self.stack.push(Level::new(nid, self.path.len()));
                self.path.clone_from(&path);
                return self.entry(path, nid).map(Some);
            }
            let Some((name, nid)) = level.ready.pop_front() else {
                self.path.truncate(level.above);
                self.stack.pop();
                continue;
            };
            let entry = self.entry(self.path_of(&name), nid)?;
            match self.stack.last_mut() {
                Some(level)
                    if self.depth == Depth::Everything && entry.kind() == EntryKind::Directory =>
                {
                    level.held.push((name, nid));
                }
                _ => return Ok(Some(entry)),
            }
        }
        Ok(None)
    }
}

impl Iterator for Walk {
    type Item = Result<ListEntry, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if matches!(next, Some(Err(_))) {
            self.stack.clear();
        }
        next
    }
}

pub(super) fn describe(path: Vec<u8>, attr: &Attr, link_target: Vec<u8>) -> ListEntry {
    let kind = match attr.kind {
        Kind::File => EntryKind::File,
        Kind::Directory => EntryKind::Directory,
        Kind::Symlink => EntryKind::Symlink,
        _ => EntryKind::Other,
    };
    ListEntry {
        path: path.into(),
        kind: kind.into(),
        length: if kind == EntryKind::File { attr.size } else { 0 },
        mode: u32::from(attr.mode),
        mtime_seconds: attr.mtime.secs,
        mtime_nanos: attr.mtime.nanos,
        uid: attr.uid,
        gid: attr.gid,
        link_target: link_target.into(),
        why: String::new(),
    }
}

/// What the index says is missing of a directory: at its next level, or anywhere below.
pub(super) fn missing(index: &Index, dir: &[u8], depth: Depth) -> Vec<ListEntry> {
    let goes_on = depth == Depth::Everything;
    let is_of = |path: &[u8]| {
        let below = match dir {
            [] => Some(path),
            dir => path.strip_prefix(dir).and_then(|rest| rest.strip_prefix(b"/")),
        };
        path == dir || below.is_some_and(|rest| goes_on || !rest.contains(&b'/'))
    };
    let left_out = index.left_out();
    let entry = |path: &[u8], why: String| ListEntry {
        path: path.to_vec().into(),
        kind: EntryKind::Missing.into(),
        why,
        ..ListEntry::default()
    };
    let of_dir = left_out.named.iter().filter(|skipped| is_of(&skipped.path));
    let mut missing: Vec<_> =
        of_dir.map(|skipped| entry(&skipped.path, skipped.reason.clone())).collect();
    let unnamed = left_out.count.saturating_sub(left_out.named.len() as u64);
    if unnamed > 0 && (dir.is_empty() || goes_on) {
        missing.push(entry(b"", format!("{unnamed} more of the whole tree, too many to name")));
    }
    missing
}
