//! What of a tree is here, for each entry of a directory: sums over all that is below it.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};

use dfs_artifact::Recipe;
use dfs_model::{GroupSet, TaskId};
use dfs_peer::engine::Task;
use dfs_peer::opener::{OpenArtifact, OpenIndex};
use dfs_peer::store::TaskSummary;
use dfs_proto::node::{CachedEntry, CachedReply, EntryKind};

use super::views;
use crate::agent::mounts::{shown, whole_tree};
use crate::agent::walk::find;
use crate::agent::{Agent, CallError, MountTableError};
use crate::tree::{Footprint, Kind, Tree, TreeError};

/// Most entries that are told, and bytes of their names.
const MOST: usize = 10_000;
const MOST_NAMES: usize = 4 << 20;

/// A space as it is now.
struct Space {
    task: TaskId,
    length: u64,
    have: GroupSet,
    summary: Option<TaskSummary>,
}

/// The spaces of an artifact as they are now.
pub(super) struct Spaces {
    index: Option<TaskSummary>,
    spaces: Vec<Space>,
}

impl Spaces {
    fn of(agent: &Agent, opened: &OpenArtifact) -> Self {
        let kept = agent.host().engine.store().list();
        let kept: HashMap<TaskId, TaskSummary> =
            kept.into_iter().map(|one| (one.id, one)).collect();
        let space = |task: &Task| Space {
            task: task.id(),
            length: task.length().unwrap_or(0),
            have: task.stored().have(),
            summary: kept.get(&task.id()).copied(),
        };
        let index = opened.index.as_ref().and_then(|index| kept.get(&index.task.id())).copied();
        Self { index, spaces: opened.tasks.iter().map(space).collect() }
    }

    /// Those of an index that is kept, which need not be open.
    pub fn of_index(agent: &Agent, kept: &HashMap<TaskId, TaskSummary>, index: &OpenIndex) -> Self {
        let space = |recipe: &Recipe| {
            let task = recipe.key.id();
            let here = agent.host().engine.peek(&task);
            let have = here.map_or_else(GroupSet::new, |(_, stored, _)| stored.have());
            let (length, summary) = (recipe.length.unwrap_or(0), kept.get(&task).copied());
            Space { task, length, have, summary }
        };
        let spaces = index.index.spaces().iter().map(space).collect();
        Self { index: kept.get(&index.task.id()).copied(), spaces }
    }

    /// What of an inode and all that is below it is here.
    pub fn entry(
        &self,
        tree: &dyn Tree,
        (nid, kind): (u64, Kind),
    ) -> Result<CachedEntry, TreeError> {
        let footprint = Footprint::at(tree, nid, kind)?;
        let own = || footprint.spaces().filter_map(|space| self.spaces.get(usize::from(space)));
        let cached = self.spaces.iter().enumerate().map(|(number, space)| {
            let here = footprint.within(number, &space.have, space.length);
            here.map(|run| run.len()).sum::<u64>()
        });
        // What takes no room is kept with its name.
        let summaries = || own().map(|space| &space.summary).chain([&self.index]);
        let is_pinned = |summary: &Option<TaskSummary>| summary.is_some_and(|one| one.pinned);
        let reads = own().filter_map(|space| Some(millis(space.summary?.last_read)));
        let kind = match kind {
            Kind::File => EntryKind::File,
            Kind::Directory => EntryKind::Directory,
            Kind::Symlink => EntryKind::Symlink,
            _ => EntryKind::Other,
        };
        // What is stored nowhere, because it is zeros, always is here.
        let stored: u64 = (0..self.spaces.len()).map(|space| footprint.bytes_in(space)).sum();
        let holes = footprint.bytes.saturating_sub(stored);
        Ok(CachedEntry {
            kind: kind.into(),
            files: footprint.files,
            bytes: footprint.bytes,
            cached_bytes: (cached.sum::<u64>() + holes).min(footprint.bytes),
            pinned: summaries().all(is_pinned),
            last_read_unix_ms: reads.max().unwrap_or(0),
            ..CachedEntry::default()
        })
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What lies at `path`, the first `most` entries of it by name. Looks at every inode below: blocks.
pub(super) fn look(
    agent: &Agent,
    opened: &OpenArtifact,
    path: &[u8],
    most: usize,
) -> Result<CachedReply, CallError> {
    let index = opened.index.as_ref().ok_or(CallError::NotTree)?;
    let none = || CallError::NoPath(String::from_utf8_lossy(path).into_owned());
    let nid = find(&index.index, path)?.ok_or_else(none)?;
    let tree = whole_tree(opened)?;
    let spaces = Spaces::of(agent, opened);
    let kind = tree.attr(nid).map_err(MountTableError::from)?.kind;
    let (mut found, entries_in_all) = match kind {
        Kind::Directory => listed(&tree, nid, most.min(MOST)).map_err(MountTableError::from)?,
        _ => (Vec::new(), 0),
    };
    let mut entries = Vec::with_capacity(found.len());
    found.sort_by(|one, other| one.0.cmp(&other.0));
    for (name, nid, kind) in found {
        let entry = spaces.entry(&tree, (nid, kind)).map_err(MountTableError::from)?;
        entries.push(CachedEntry { name: name.into(), ..entry });
    }
    let whole = spaces.entry(&tree, (nid, kind)).map_err(MountTableError::from)?;
    let footprint = Footprint::at(&tree, nid, kind).map_err(MountTableError::from)?;
    let behind = footprint.spaces().filter_map(|space| spaces.spaces.get(usize::from(space)));
    let behind = behind.map(|space| space.task).chain([index.task.id()]).collect::<Vec<_>>();
    Ok(CachedReply {
        url: dfs_model::redact(&shown(&opened.target.url, path)),
        whole: Some(whole),
        entries,
        entries_in_all,
        tasks: views::tasks_of(agent, &behind),
    })
}

type Listed = Vec<(Vec<u8>, u64, Kind)>;

/// The first entries of a directory, and how many there are.
fn listed(tree: &dyn Tree, dir: u64, most: usize) -> Result<(Listed, u64), TreeError> {
    let (mut found, mut names, mut count) = (Vec::new(), 0, 0);
    tree.read_dir(dir, 0, &mut |entry| {
        if matches!(entry.name, b"." | b"..") {
            return ControlFlow::Continue(());
        }
        count += 1;
        names += entry.name.len();
        if found.len() < most && names <= MOST_NAMES {
            found.push((entry.name.to_vec(), entry.nid, entry.kind));
        }
        ControlFlow::Continue(())
    })?;
    Ok((found, count))
}
