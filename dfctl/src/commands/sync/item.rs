//! What stands on either side under one name, and the order in which both sides tell it.

use std::cmp::Ordering;

use dfs_model::Validator;
use dfs_source::{EntryKind as Kind, Timestamp};
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::backend::{Entry, EntryKind, Missing};
use crate::codes;
use crate::error::CliError;
use crate::part::whole_of;

/// An entry of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// It, with its path below the side's root.
    pub entry: Entry,
    /// What its side says of its version beside length and time: an ETag.
    pub tag: Option<String>,
}

/// What a side tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Something with a name.
    Item(Item),
    /// Something that is there and cannot be known or taken.
    Hole(Missing),
}

/// Everything of a side, in the order of [`Item::cmp_place`].
pub type Listing = BoxStream<'static, Result<Told, CliError>>;

impl Item {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.entry.kind == EntryKind::Directory
    }

    /// What it is a part of, where a transfer left it unfinished: it is nobody's content.
    pub fn is_part_of(&self) -> Option<&[u8]> {
        let may_be = matches!(self.entry.kind, EntryKind::File | EntryKind::Symlink);
        whole_of(&self.entry.path).filter(|_| may_be)
    }

    /// The order of whole paths, a directory's with a slash behind it: that of the keys of a store.
    pub fn cmp_place(&self, other: &Self) -> Ordering {
        let key = |item: &Self| {
            let end = item.is_directory().then_some(b'/');
            item.entry.path.clone().into_iter().chain(end)
        };
        key(self).cmp(key(other))
    }

    /// Its time, where its side tells one.
    pub fn time(&self) -> Option<Timestamp> {
        let (seconds, nanos) = self.entry.mtime;
        (self.entry.mtime != (0, 0)).then_some(Timestamp { seconds, nanos })
    }

    /// What pins a file of this machine.
    pub fn pin(&self) -> Validator {
        Validator {
            etag: self.tag.clone(),
            modified: self.time().map(|time| time.to_string()),
            version: None,
            length: Some(self.entry.length),
        }
    }
}

/// An entry of a source's own listing; `None` cannot be an item and says why.
pub fn of_source(entry: dfs_source::Entry) -> Told {
    let (kind, link_target) = match entry.kind {
        Kind::File => (EntryKind::File, Vec::new()),
        Kind::Directory => (EntryKind::Directory, Vec::new()),
        Kind::Symlink(target) => (EntryKind::Symlink, target),
        Kind::Special(_) => (EntryKind::Other, Vec::new()),
        Kind::Unusable(why) => {
            return Told::Hole(Missing { path: entry.path, why: why.to_owned() });
        }
        Kind::Closed(why) => return Told::Hole(Missing { path: entry.path, why }),
    };
    let usual = if kind == EntryKind::Directory { 0o755 } else { 0o644 };
    let attributes = entry.attributes.as_ref();
    let mtime = entry.modified.map_or((0, 0), |time| (time.seconds, time.nanos));
    Told::Item(Item {
        tag: entry.validator.and_then(|validator| validator.etag),
        entry: Entry {
            path: entry.path,
            kind,
            length: entry.length.unwrap_or(0),
            mode: attributes.map_or(usual, |attributes| attributes.mode),
            mtime,
            uid: attributes.map_or(0, |attributes| attributes.uid),
            gid: attributes.map_or(0, |attributes| attributes.gid),
            link_target,
        },
    })
}

/// One side, item by item; its holes are put aside, and that it keeps its order is seen to.
pub struct Side {
    listing: Listing,
    next: Option<Item>,
    last: Option<Item>,
    /// What cannot be known of it.
    pub holes: Vec<Missing>,
    shown: String,
}

/// Holes of one side that are remembered by name.
const MAX_HOLES: usize = 10_000;

impl Side {
    /// A side that people know as `shown`.
    pub fn new(listing: Listing, shown: String) -> Self {
        Self { listing, next: None, last: None, holes: Vec::new(), shown }
    }

    /// The next item; it stays until it is taken.
    pub async fn peek(&mut self) -> Result<Option<&Item>, CliError> {
        while self.next.is_none() {
            match self.listing.next().await.transpose()? {
                None => break,
                Some(Told::Hole(hole)) if self.holes.len() < MAX_HOLES => self.holes.push(hole),
                Some(Told::Hole(_)) => {
                    let what = format!("cannot list {}", self.shown);
                    return Err(CliError::new(&codes::SOURCE_FAILED, what)
                        .because(format!("more than {MAX_HOLES} entries are missing")));
                }
                Some(Told::Item(item)) => {
                    self.check_order(&item)?;
                    self.next = Some(item);
                }
            }
        }
        Ok(self.next.as_ref())
    }

    /// Takes what was peeked at.
    pub fn take(&mut self) -> Option<Item> {
        let item = self.next.take()?;
        self.last = Some(item.clone());
        Some(item)
    }

    fn check_order(&self, item: &Item) -> Result<(), CliError> {
        let ordered = self.last.as_ref().is_none_or(|last| last.cmp_place(item).is_lt());
        if ordered {
            return Ok(());
        }
        let what = format!("{} changed while it was listed", self.shown);
        Err(CliError::new(&codes::ORIGIN_CHANGED, what).hint("the same command again"))
    }
}

/// One name, and what stands under it on either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// In the source.
    pub source: Option<Item>,
    /// In the destination.
    pub there: Option<Item>,
}

/// The next name of both sides.
pub async fn next_pair(source: &mut Side, there: &mut Side) -> Result<Option<Pair>, CliError> {
    let order = match (source.peek().await?, there.peek().await?) {
        (None, None) => return Ok(None),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (Some(source), Some(there)) => source.cmp_place(there),
    };
    Ok(Some(Pair {
        source: if order.is_le() { source.take() } else { None },
        there: if order.is_ge() { there.take() } else { None },
    }))
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::backend::fake::entry;

    fn side(names: &[&str]) -> Side {
        let item = |name: &&str| {
            let kind = if name.ends_with('/') { EntryKind::Directory } else { EntryKind::File };
            let entry = entry(name.trim_end_matches('/'), kind, 1);
            Ok(Told::Item(Item { entry, tag: None }))
        };
        let told: Vec<_> = names.iter().map(item).collect();
        Side::new(stream::iter(told).boxed(), "side".to_owned())
    }

    async fn merged(a: &[&str], b: &[&str]) -> Result<Vec<String>, CliError> {
        let (mut a, mut b, mut all) = (side(a), side(b), Vec::new());
        while let Some(pair) = next_pair(&mut a, &mut b).await? {
            let which = match (&pair.source, &pair.there) {
                (Some(_), Some(_)) => "=",
                (Some(_), None) => "+",
                _ => "-",
            };
            let item = pair.source.or(pair.there).unwrap();
            all.push(format!("{which}{}", String::from_utf8_lossy(&item.entry.path)));
        }
        Ok(all)
    }

    #[tokio::test]
    async fn two_sides_meet_name_by_name_and_a_file_is_not_the_directory_of_its_name() {
        let all = merged(&["a-b", "a/", "a/c", "d"], &["a", "a-b", "a/", "a/b", "d"]).await;
        assert_eq!(all.unwrap(), ["-a", "=a-b", "=a", "-a/b", "+a/c", "=d"]);
        assert_eq!(merged(&["a"], &["a/", "a/b"]).await.unwrap(), ["+a", "-a", "-a/b"]);
    }

    #[tokio::test]
    async fn a_side_that_loses_its_order_is_not_believed() {
        assert_eq!(merged(&["b", "a"], &[]).await.unwrap_err().code, &codes::ORIGIN_CHANGED);
        assert_eq!(merged(&[], &["a", "a"]).await.unwrap_err().code, &codes::ORIGIN_CHANGED);
    }
}
