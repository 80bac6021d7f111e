//! The tree of a listing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use dfs_model::{TaskKind, Validator};
use dfs_source::{Attributes, Entry, EntryKind, SourceError, SpecialKind, StatKind, Timestamp};
use futures::TryStreamExt as _;

use super::{Artifact, Context, LeftOut, Planned, ResolveError, Skipped, mtime};
use crate::erofs::BlockSize;
use crate::erofs::xattr::split_name;
use crate::members::MemberTable;
use crate::recipe::{OriginRecipe, Place, Recipe};
use crate::spaces::{Listed, OWN_SPACE_FROM, SpacePlan, plan_spaces};
use crate::tree::{
    Content, DeviceNumber, FileData, Location, MAX_XATTR_VALUE, Meta, Mtime, TreeBuilder, TreeError,
};

/// A listed entry of which everything that a tree needs is known.
struct Known {
    entry: Entry,
    /// Of a file; elsewhere the default.
    length: u64,
    validator: Validator,
    ranges: bool,
}

enum Asked {
    Known(Box<Known>),
    Skipped(Skipped),
    /// A directory of which nothing below is known.
    Closed(Skipped),
}

impl Context<'_> {
    pub(super) async fn listing(&self) -> Result<Artifact, ResolveError> {
        let asked: Vec<Asked> = self
            .source
            .list(&self.target)
            .map_ok(|entry| self.complete(entry))
            .try_buffer_unordered(self.options.stats_at_once.max(1))
            .try_collect()
            .await?;
        let (mut known, mut skipped, mut closed) = (Vec::new(), Vec::new(), HashSet::new());
        for asked in asked {
            match asked {
                Asked::Known(entry) => known.push(*entry),
                Asked::Skipped(entry) => skipped.push(entry),
                Asked::Closed(entry) => {
                    closed.insert(entry.path.clone());
                    skipped.push(entry);
                }
            }
        }
        known.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        skipped.sort_by(|a, b| a.path.cmp(&b.path));
        let mut left_out = LeftOut::default();
        skipped.into_iter().for_each(|one| left_out.add(&one.path, one.reason));
        let planned = self.plan(&known, left_out, &closed)?;
        self.finish(planned).await
    }

    /// Asks the member itself for what the listing does not tell exactly.
    async fn complete(&self, entry: Entry) -> Result<Asked, SourceError> {
        let known = |entry, length, validator, ranges| {
            Ok(Asked::Known(Box::new(Known { entry, length, validator, ranges })))
        };
        match entry.kind {
            EntryKind::Unusable(reason) => {
                let reason = reason.to_owned();
                return Ok(Asked::Skipped(Skipped { path: entry.path, reason }));
            }
            EntryKind::Closed(reason) => {
                return Ok(Asked::Closed(Skipped { path: entry.path, reason }));
            }
            _ => {}
        }
        if entry.kind != EntryKind::File {
            return known(entry, 0, Validator::default(), true);
        }
        if let (Some(length), Some(validator)) = (entry.length, entry.validator.clone()) {
            return known(entry, length, validator, true);
        }
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
            Some(length) => known(entry, length, stat.validator, stat.ranges),
            None => skipped("the origin does not tell its length".to_owned()),
        }
    }

    fn plan(
        &self,
        known: &[Known],
        left_out: LeftOut,
        closed: &HashSet<Vec<u8>>,
    ) -> Result<Planned, ResolveError> {
        let (files, links) = distinct_files(known);
        let listed: Vec<Listed> = files
            .iter()
            .map(|&at| Listed {
                path: known[at].entry.path.clone(),
                length: known[at].length,
                validator: known[at].validator.clone(),
            })
            .collect();
        let plan = plan_spaces(&listed);
        let plan = plan.map_err(|source| ResolveError::Plan { url: self.url(), source })?;
        let places: HashMap<usize, Location> = files
            .iter()
            .zip(&plan.locations)
            .filter_map(|(&at, location)| location.map(|location| (at, location)))
            .collect();
        let (tree, build_time) = grow(known, &links, &places, closed)
            .map_err(|source| ResolveError::Tree { url: self.url(), source })?;
        let ranges: HashMap<&[u8], bool> =
            files.iter().map(|&at| (&known[at].entry.path[..], known[at].ranges)).collect();
        let tasks = self.tasks(plan, &ranges)?;
        let block_size = BlockSize::B4096;
        Ok(Planned { tree, block_size, build_time, tasks, left_out })
    }

    fn tasks(
        &self,
        plan: SpacePlan,
        ranges: &HashMap<&[u8], bool>,
    ) -> Result<Vec<Recipe>, ResolveError> {
        let recipe = |table: MemberTable| match table.members() {
            // The same task as the member's own URL: whoever has one has the other.
            [member] if member.length >= OWN_SPACE_FROM => {
                let target = self.target.join(&member.path).map_err(SourceError::from)?;
                let ranges = ranges.get(&member.path[..]).copied().unwrap_or(true);
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
fn distinct_files(known: &[Known]) -> (Vec<usize>, HashMap<usize, usize>) {
    let mut first: HashMap<(u64, u64), usize> = HashMap::new();
    let (mut files, mut links) = (Vec::new(), HashMap::new());
    for (at, one) in known.iter().enumerate() {
        let attributes = one.entry.attributes.as_ref();
        if let Some(inode) = attributes.and_then(|attributes| attributes.hard_link) {
            if let Some(&earlier) = first.get(&inode) {
                links.insert(at, earlier);
                continue;
            }
            first.insert(inode, at);
        }
        if one.entry.kind == EntryKind::File {
            files.push(at);
        }
    }
    (files, links)
}

fn grow(
    known: &[Known],
    links: &HashMap<usize, usize>,
    places: &HashMap<usize, Location>,
    closed: &HashSet<Vec<u8>>,
) -> Result<(TreeBuilder, Mtime), TreeError> {
    let mut tree = TreeBuilder::new();
    let mut newest = Mtime::default();
    for (at, one) in known.iter().enumerate() {
        let path = &one.entry.path;
        if let Some(&first) = links.get(&at) {
            tree.link(path, &known[first].entry.path)?;
            continue;
        }
        let content = match &one.entry.kind {
            EntryKind::Directory => Content::Directory,
            EntryKind::Symlink(link) => Content::Symlink(link.clone()),
            EntryKind::Special(kind) => special(*kind),
            // Left out when it was listed.
            EntryKind::Unusable(_) | EntryKind::Closed(_) => continue,
            EntryKind::File => {
                let nowhere = Location { space: 0, offset: 0 };
                let location = places.get(&at).copied().unwrap_or(nowhere);
                Content::File(FileData { length: one.length, location, digest: None })
            }
        };
        let mut meta = meta(one);
        if one.entry.kind == EntryKind::Directory && closed.contains(path) {
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
fn meta(one: &Known) -> Meta {
    let time = one.entry.modified.or_else(|| Timestamp::of_validator(&one.validator));
    let mode = if one.entry.kind == EntryKind::Directory { 0o755 } else { 0o644 };
    let plain = Meta { mtime: time.map(mtime).unwrap_or_default(), ..Meta::with_mode(mode) };
    let Some(Attributes { mode, uid, gid, xattrs, .. }) = &one.entry.attributes else {
        return plain;
    };
    // Attributes of namespaces that no index holds are left out.
    let held = |(name, value): &&(Vec<u8>, Vec<u8>)| {
        split_name(name).is_some() && value.len() <= MAX_XATTR_VALUE
    };
    Meta {
        mode: (mode & 0o7777) as u16,
        uid: *uid,
        gid: *gid,
        xattrs: xattrs.iter().filter(held).cloned().collect(),
        ..plain
    }
}
