//! What differs between two snapshots of a tree, as far as somebody knows the earlier one.
//!
//! A pure function of both. Only directories that are known are looked into: of no other can anybody remember an entry.
//! Directories are the same by their path; anything else is the same where all that can be seen of it is.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::{Attr, Extent, Kind, Tree, TreeError};

/// Something that is not so any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change<'a> {
    /// A name of a directory stands for something else, for nothing, or for something for the first time.
    Name {
        /// The directory's number in the earlier tree.
        dir: u64,
        /// The name.
        name: &'a [u8],
    },
    /// Attributes of a directory that is still there; its size is among them, and so anything that is listed in it.
    Attributes {
        /// Its number in the earlier tree.
        dir: u64,
    },
}

/// Numbers of known inodes that are what they were: in the earlier tree, and in the later one.
pub type Unchanged = HashMap<u64, u64>;

/// Two snapshots of one tree.
pub struct Comparison<'a> {
    /// The earlier one.
    pub before: &'a dyn Tree,
    /// The later one.
    pub after: &'a dyn Tree,
    /// Whether anybody remembers an inode of the earlier one.
    pub known: &'a dyn Fn(u64) -> bool,
    /// Whether two extents of the same length have the same bytes; where that cannot be told they have not.
    pub same: &'a dyn Fn(Extent, Extent) -> bool,
}

impl Comparison<'_> {
    /// Shows every change to what is known; what is known and no change.
    pub fn run(&self, show: &mut dyn FnMut(Change<'_>)) -> Result<Unchanged, TreeError> {
        let (before, after) = (self.before.root(), self.after.root());
        let mut unchanged = Unchanged::from([(before, after)]);
        let mut open = vec![(before, after)];
        while let Some((before, after)) = open.pop() {
            let mut has_news = self.differ(before, after)?;
            let mut below = Vec::new();
            each_name(self.before, before, |name, nid| {
                match self.still(nid, self.after.lookup(after, name)?)? {
                    Still::Directory(now) => below.push((nid, now)),
                    Still::So(now) => drop(unchanged.insert(nid, now)),
                    Still::Unknown => {}
                    Still::Not => {
                        has_news = true;
                        show(Change::Name { dir: before, name });
                    }
                }
                Ok(())
            })?;
            each_name(self.after, after, |name, _| {
                if self.before.lookup(before, name)?.is_none() {
                    has_news = true;
                    show(Change::Name { dir: before, name });
                }
                Ok(())
            })?;
            if has_news {
                show(Change::Attributes { dir: before });
            }
            for (before, after) in below {
                if unchanged.insert(before, after).is_some() {
                    return Err(TreeError::Corrupt("a directory of it has two names".to_owned()));
                }
                open.push((before, after));
            }
        }
        Ok(unchanged)
    }

    /// What became of `nid`, whose name leads to `now`.
    fn still(&self, nid: u64, now: Option<u64>) -> Result<Still, TreeError> {
        if !(self.known)(nid) {
            return Ok(Still::Unknown);
        }
        let Some(now) = now else { return Ok(Still::Not) };
        let (was, is) = (self.before.attr(nid)?, self.after.attr(now)?);
        match (was.kind, is.kind) {
            (Kind::Directory, Kind::Directory) => Ok(Still::Directory(now)),
            // Of several names one may be another file by now.
            _ if was.nlink != 1 || !looks_same(&was, &is) => Ok(Still::Not),
            (kind, _) => {
                let is_so = self.has_same_content(kind, nid, now)? && !self.differ(nid, now)?;
                Ok(if is_so { Still::So(now) } else { Still::Not })
            }
        }
    }

    /// Whether attributes or extended ones do.
    fn differ(&self, before: u64, after: u64) -> Result<bool, TreeError> {
        if !looks_same(&self.before.attr(before)?, &self.after.attr(after)?) {
            return Ok(true);
        }
        let (mut was, mut is) = (self.before.list_xattr(before)?, self.after.list_xattr(after)?);
        was.sort_unstable();
        is.sort_unstable();
        if was != is {
            return Ok(true);
        }
        for name in &was {
            if self.before.xattr(before, name)? != self.after.xattr(after, name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has_same_content(&self, kind: Kind, before: u64, after: u64) -> Result<bool, TreeError> {
        match kind {
            Kind::File => self.has_same_bytes(before, after),
            Kind::Symlink => Ok(self.before.read_link(before)? == self.after.read_link(after)?),
            _ => Ok(true),
        }
    }

    fn has_same_bytes(&self, before: u64, after: u64) -> Result<bool, TreeError> {
        let mut at = 0u64;
        loop {
            let (was, is) = (self.before.extent(before, at)?, self.after.extent(after, at)?);
            let (Some(was), Some(is)) = (was, is) else { return Ok(was.is_none() && is.is_none()) };
            let length = was.length().min(is.length());
            if length == 0 {
                return Err(TreeError::Corrupt("an extent of it is empty".to_owned()));
            }
            let is_same = match (was.clip(0, length), is.clip(0, length)) {
                (Extent::Zero { .. }, Extent::Zero { .. }) => true,
                (was @ Extent::Data { .. }, is @ Extent::Data { .. }) => (self.same)(was, is),
                _ => false,
            };
            if !is_same {
                return Ok(false);
            }
            at = at.saturating_add(length);
        }
    }
}

/// What became of something.
enum Still {
    /// It is a directory, as it was.
    Directory(u64),
    /// It is what it was.
    So(u64),
    /// It is something else, or gone.
    Not,
    /// Nobody remembers it.
    Unknown,
}

/// Whether all attributes are the same but the number.
fn looks_same(was: &Attr, is: &Attr) -> bool {
    *was == Attr { ino: was.ino, ..is.clone() }
}

/// Shows the names in a directory but its own and its parent's.
fn each_name(
    tree: &dyn Tree,
    dir: u64,
    mut show: impl FnMut(&[u8], u64) -> Result<(), TreeError>,
) -> Result<(), TreeError> {
    let mut outcome = Ok(());
    tree.read_dir(dir, 0, &mut |entry| {
        if matches!(entry.name, b"." | b"..") {
            return ControlFlow::Continue(());
        }
        outcome = show(entry.name, entry.nid);
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    outcome
}

#[cfg(test)]
mod tests;
