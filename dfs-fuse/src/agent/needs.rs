//! What has to be here for all that a tree, or a part of it, shows, and how much of it is.

use dfs_model::{ByteRange, GroupSet, TaskId};
use dfs_peer::engine::{Engine, Task};
use dfs_peer::opener::OpenArtifact;

use super::mounts::{MountTableError, tree_of, whole_tree};
use crate::trace::Place;
use crate::tree::Footprint;

/// What has to be here.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Where it lies.
    pub places: Vec<Place>,
    /// The same, by task.
    pub tasks: Vec<Needed>,
    /// How many files it is.
    pub files: u64,
}

/// What of a task has to be here.
#[derive(Debug, Clone)]
pub(super) struct Needed {
    pub task: TaskId,
    pub length: u64,
    pub groups: GroupSet,
}

impl Needed {
    pub fn bytes(&self) -> u64 {
        self.groups.ranges().map(|run| run.bytes(self.length).len()).sum()
    }

    /// What of it is among what `have` has.
    pub fn within(&self, have: &GroupSet) -> impl Iterator<Item = ByteRange> {
        let here = self.groups.ranges().flat_map(|run| have.present_in(run));
        here.map(|run| run.bytes(self.length))
    }
}

impl Needs {
    /// Of what lies at `path`. Looks at every inode: blocks.
    pub fn of(opened: &OpenArtifact, path: &[u8]) -> Result<Self, MountTableError> {
        let index = opened.index.as_ref().ok_or(MountTableError::NoTree)?;
        let (tree, known) = tree_of(whole_tree(opened)?, path)?;
        let footprint = match known.into_inner().flatten() {
            Some(footprint) => footprint,
            None => Footprint::of(&*tree)?,
        };
        let whole = |task: &Task| {
            let length = task.length().unwrap_or(0);
            let groups = GroupSet::from(ByteRange::new(0, length).groups());
            Needed { task: task.id(), length, groups }
        };
        let mut needs =
            Self { tasks: vec![whole(&index.task)], files: footprint.files, ..Self::default() };
        for (space, groups) in footprint.groups() {
            let task = opened.tasks.get(usize::from(space)).ok_or(MountTableError::NoTree)?;
            needs.places.extend(groups.ranges().map(|run| Place::new(space, run)));
            let length = task.length().unwrap_or(u64::MAX);
            needs.tasks.push(Needed { task: task.id(), length, groups });
        }
        Ok(needs)
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> u64 {
        self.tasks.iter().map(Needed::bytes).sum()
    }

    /// Bytes of it that are here. Blocks.
    pub fn here(&self, engine: &Engine) -> u64 {
        let of = |needed: &Needed| {
            let kept = engine.peek(&needed.task);
            kept.map_or(0, |(_, stored, _)| {
                needed.within(&stored.have()).map(|run| run.len()).sum()
            })
        };
        self.tasks.iter().map(of).sum()
    }
}
