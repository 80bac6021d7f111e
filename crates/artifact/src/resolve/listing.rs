//! The tree of a listing.

mod rows;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dfs_model::{TaskKind, Validator};
use dfs_source::{
    Attributes, Entry, EntryKind, Pace, Question, SourceError, SpecialKind, StatKind,
};
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{StreamExt as _, TryStreamExt as _};
use rows::{Row, Rows};

use super::{Artifact, Context, LeftOut, Planned, ResolveError, Skipped, mtime};
use crate::erofs::BlockSize;
use crate::erofs::xattr::split_name;
use crate::members::MemberTable;
use crate::recipe::{OriginRecipe, Place, Recipe};
use crate::spaces::{Listed, OWN_SPACE_FROM, SpacePlan, plan_spaces};
use crate::tree::{
    Content, DeviceNumber, FileData, Location, MAX_XATTR_VALUE, Meta, Mtime, TreeBuilder, TreeError,
};

/// Members that wait until they are asked; the listing waits for them when there are more.
const WAITING: usize = 1024;

/// An entry of which everything that a tree needs is known.
struct Known {
    entry: Entry,
    /// Of a file; elsewhere the default.
    length: u64,
    validator: Validator,
    ranges: bool,
}

/// What was found out about an entry.
enum Asked {
    Known(Box<Known>),
    Skipped(Skipped),
    /// A directory of which nothing below is known.
    Closed(Skipped),
}

impl Asked {
    fn known(entry: Entry, length: u64, validator: Validator, ranges: bool) -> Self {
        Self::Known(Box::new(Known { entry, length, validator, ranges }))
    }
}

/// What a listing tells of an entry.
enum Told {
    Enough(Asked),
    /// Of a file without its exact length and its version.
    TooLittle(Entry),
}

fn told(entry: Entry) -> Told {
    let skipped = |path, reason| Skipped { path, reason };
    Told::Enough(match (&entry.kind, entry.length, &entry.validator) {
        (EntryKind::Unusable(reason), ..) => {
            Asked::Skipped(skipped(entry.path, (*reason).to_owned()))
        }
        (EntryKind::Closed(reason), ..) => Asked::Closed(skipped(entry.path, reason.clone())),
        (EntryKind::File, Some(length), Some(validator)) => {
            let validator = validator.clone();
            Asked::known(entry, length, validator, true)
        }
        (EntryKind::File, ..) => return Told::TooLittle(entry),
        _ => Asked::known(entry, 0, Validator::default(), true),
    })
}

/// What came of a listing.
#[derive(Default)]
struct Seen {
    rows: Rows,
    skipped: Vec<Skipped>,
    /// Directories of which nothing below is known.
    closed: HashSet<Vec<u8>>,
}

impl Seen {
    fn take(&mut self, asked: Asked) {
        match asked {
            Asked::Known(known) => {
                let Known { entry, length, validator, ranges } = *known;
                self.rows.take(entry, length, &validator, ranges);
            }
            Asked::Skipped(entry) => self.skipped.push(entry),
            Asked::Closed(entry) => {
                self.closed.insert(entry.path.clone());
                self.skipped.push(entry);
            }
        }
    }
}

impl Context<'_> {
    pub(super) async fn listing(&self) -> Result<Artifact, ResolveError> {
        let root = self.source.described(&self.target).await?;
        let root = root.map(|(modified, attributes)| described(&attributes, mtime(modified)));
        self.listing_of(root, self.source.list(&self.target)).await
    }

    /// The tree of what was listed; of its root may be known more than that it is a directory.
    pub(super) async fn listing_of(
        &self,
        root: Option<Meta>,
        entries: BoxStream<'static, Result<Entry, SourceError>>,
    ) -> Result<Artifact, ResolveError> {
        let Seen { rows, mut skipped, closed } = self.see_all(entries).await?;
        let mut left_out = LeftOut::default();
        skipped.sort_by(|a, b| a.path.cmp(&b.path));
        skipped.into_iter().for_each(|one| left_out.add(&one.path, one.reason));
        let mut planned = self.plan(rows, left_out, &closed)?;
        if let Some(root) = root {
            let added = planned.tree.add(b"", root, Content::Directory);
            added.map_err(|source| ResolveError::Tree { url: self.url(), source })?;
        }
        self.finish(planned).await
    }

    /// Takes what is listed as it comes. Members that the listing does not tell enough of are asked themselves, meanwhile,
    /// as many at a time as the origin answers well.
    async fn see_all(
        &self,
        mut entries: BoxStream<'static, Result<Entry, SourceError>>,
    ) -> Result<Seen, SourceError> {
        let mut pace = Pace::within(self.options.stats_at_once.clone());
        let (mut seen, mut waiting) = (Seen::default(), VecDeque::new());
        let (mut asking, mut is_listed) = (FuturesUnordered::new(), false);
        loop {
            while asking.len() < pace.at_once()
                && let Some(entry) = waiting.pop_front()
            {
                asking.push(self.timed(pace.asks(), entry));
            }
            tokio::select! {
                biased;
                Some((question, took, asked)) = asking.next() => {
                    pace.answered(question, took);
                    seen.take(asked?);
                }
                listed = entries.try_next(), if !is_listed && waiting.len() < WAITING => match listed? {
                    Some(entry) => match told(entry) {
                        Told::Enough(asked) => seen.take(asked),
                        Told::TooLittle(entry) => waiting.push_back(entry),
                    },
                    None => is_listed = true,
                },
                else => return Ok(seen),
            }
        }
    }

    async fn timed(
        &self,
        question: Question,
        entry: Entry,
    ) -> (Question, Duration, Result<Asked, SourceError>) {
        let begun = Instant::now();
        let asked = self.ask(entry).await;
        (question, begun.elapsed(), asked)
    }

    /// Asks the member itself for what the listing does not tell exactly.
    async fn ask(&self, entry: Entry) -> Result<Asked, SourceError> {
        let skipped =
            |reason: String| Ok(Asked::Skipped(Skipped { path: entry.path.clone(), reason }));
        let target = self.target.join(&entry.path)?;
        let stat = match self.source.stat(&target).await {
            Ok(stat) => stat,
            // Gone since it was listed, never there, or not for this asker: the others still are.
            Err(error @ (SourceError::NotFound { .. } | SourceError::NotPermitted { .. })) => {
                return skipped(error.to_string());
            }
            Err(error) => return Err(error),
        };
        if stat.kind == StatKind::Directory {
            return skipped("it is listed as a file and is a directory".to_owned());
        }
        match stat.length {
            Some(length) => Ok(Asked::known(entry, length, stat.validator, stat.ranges)),
            None => skipped("the origin does not tell its length".to_owned()),
        }
    }

    fn plan(
        &self,
        mut rows: Rows,
        left_out: LeftOut,
        closed: &HashSet<Vec<u8>>,
    ) -> Result<Planned, ResolveError> {
        rows.sort();
        let (files, links) = distinct_files(rows.all());
        let listed: Vec<Listed<'_>> =
            files.iter().map(|&at| rows.listed(&rows.all()[at])).collect();
        let plan = plan_spaces(&listed);
        let plan = plan.map_err(|source| ResolveError::Plan { url: self.url(), source })?;
        drop(listed);
        let (tree, build_time) = grow(&rows, &links, &files, &plan.locations, closed)
            .map_err(|source| ResolveError::Tree { url: self.url(), source })?;
        let tasks = self.tasks(plan, &rows)?;
        let block_size = BlockSize::B4096;
        Ok(Planned { tree, block_size, build_time, tasks, left_out, image: None })
    }

    fn tasks(&self, plan: SpacePlan, rows: &Rows) -> Result<Vec<Recipe>, ResolveError> {
        let only = |table: &MemberTable| table.member(0).filter(|_| table.count() == 1);
        let recipe = |table: MemberTable| match only(&table) {
            // The same task as the member's own URL: whoever has one has the other.
            Some(member) if member.length >= OWN_SPACE_FROM => {
                let target = self.target.join(&member.path).map_err(SourceError::from)?;
                let ranges = rows.find(&member.path).is_none_or(|row| row.ranges);
                Ok(Recipe {
                    key: self.key(TaskKind::Blob, &target, member.validator.clone()),
                    length: Some(member.length),
                    origin: OriginRecipe::Url { place: Place::of(&target), ranges },
                })
            }
            _ => {
                let length = Some(table.length());
                let etag = Some(table.digest());
                let validator = Validator { etag, length, ..Validator::default() };
                let base = Place::of(&self.target);
                Ok(Recipe {
                    key: self.key(TaskKind::Space, &self.target, validator),
                    length,
                    origin: OriginRecipe::Members { base, table: Arc::new(table) },
                })
            }
        };
        plan.tables.into_iter().map(recipe).collect()
    }
}

/// Files that have bytes of their own, and the further names of them: (name, first name).
fn distinct_files(rows: &[Row]) -> (Vec<usize>, HashMap<usize, usize>) {
    let mut first: HashMap<(u64, u64), usize> = HashMap::new();
    let (mut files, mut links) = (Vec::new(), HashMap::new());
    for (at, row) in rows.iter().enumerate() {
        if let Some(inode) = row.attributes.as_ref().and_then(|attributes| attributes.hard_link) {
            if let Some(&earlier) = first.get(&inode) {
                links.insert(at, earlier);
                continue;
            }
            first.insert(inode, at);
        }
        if *row.kind() == EntryKind::File {
            files.push(at);
        }
    }
    (files, links)
}

fn grow(
    rows: &Rows,
    links: &HashMap<usize, usize>,
    files: &[usize],
    locations: &[Option<Location>],
    closed: &HashSet<Vec<u8>>,
) -> Result<(TreeBuilder, Mtime), TreeError> {
    let mut tree = TreeBuilder::new();
    let mut newest = Mtime::default();
    let mut places = files.iter().zip(locations).peekable();
    for (at, row) in rows.all().iter().enumerate() {
        let path = rows.path(row);
        let location = places.next_if(|(file, _)| **file == at).and_then(|(_, location)| *location);
        if let Some(&first) = links.get(&at) {
            tree.link(path, rows.path(&rows.all()[first]))?;
            continue;
        }
        let content = match row.kind() {
            EntryKind::Directory => Content::Directory,
            EntryKind::Symlink(link) => Content::Symlink(link.clone()),
            EntryKind::Special(kind) => special(*kind),
            // Left out when it was listed.
            EntryKind::Unusable(_) | EntryKind::Closed(_) => continue,
            EntryKind::File => {
                let location = location.unwrap_or(Location { space: 0, offset: 0 });
                Content::File(FileData { length: row.length, location, digest: None })
            }
        };
        let mut meta = meta(row);
        if *row.kind() == EntryKind::Directory && closed.contains(path) {
            // What is in it is not known: it must not look empty.
            meta.mode = 0;
        }
        newest = newest.max(meta.mtime);
        tree.add(path, meta, content)?;
    }
    tree.date_implicit_directories();
    Ok((tree, newest))
}

fn special(kind: SpecialKind) -> Content {
    let number =
        |major: u32, minor: u32| DeviceNumber { major: major & 0xfff, minor: minor & 0xf_ffff };
    match kind {
        SpecialKind::Fifo => Content::Fifo,
        SpecialKind::Socket => Content::Socket,
        SpecialKind::CharDevice(major, minor) => Content::CharDevice(number(major, minor)),
        SpecialKind::BlockDevice(major, minor) => Content::BlockDevice(number(major, minor)),
    }
}

/// What is known of an entry; a listing of the web knows only times.
fn meta(row: &Row) -> Meta {
    let mode = if *row.kind() == EntryKind::Directory { 0o755 } else { 0o644 };
    let time = row.modified.map(mtime).unwrap_or_default();
    let plain = || Meta { mtime: time, ..Meta::with_mode(mode) };
    row.attributes.as_deref().map_or_else(plain, |attributes| described(attributes, time))
}

/// What a file system knows.
fn described(attributes: &Attributes, mtime: Mtime) -> Meta {
    let Attributes { mode, uid, gid, xattrs, .. } = attributes;
    // Attributes of namespaces that no index holds are left out.
    let held = |(name, value): &&(Vec<u8>, Vec<u8>)| {
        split_name(name).is_some() && value.len() <= MAX_XATTR_VALUE
    };
    Meta {
        mode: (mode & 0o7777) as u16,
        uid: *uid,
        gid: *gid,
        xattrs: xattrs.iter().filter(held).cloned().collect(),
        mtime,
    }
}
