//! What a pin needs, and whether there is room for it beside what is promised already.

use std::collections::HashMap;
use std::path::Path;

use dfs_model::{ByteRange, GroupSet, TaskId};
use dfs_peer::engine::{Engine, Task};
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::{Store, TaskSummary};

use super::Pins;
use crate::agent::CallError;
use crate::agent::mounts::{MountTableError, tree_of, whole_tree};
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
    length: u64,
    groups: GroupSet,
}

impl Needed {
    fn bytes(&self) -> u64 {
        self.groups.ranges().map(|run| run.bytes(self.length).len()).sum()
    }

    /// Bytes of it that are among what `have` has.
    fn bytes_in(&self, have: &GroupSet) -> u64 {
        let here = self.groups.ranges().flat_map(|run| have.present_in(run));
        here.map(|run| run.bytes(self.length).len()).sum()
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
            kept.map_or(0, |(_, stored, _)| needed.bytes_in(&stored.have()))
        };
        self.tasks.iter().map(of).sum()
    }
}

impl Pins {
    /// Refuses what cannot be kept beside what is pinned already.
    pub(super) fn check_room(
        &self,
        engine: &Engine,
        data_dir: &Path,
        needs: &Needs,
    ) -> Result<(), CallError> {
        let (store, own) = (engine.store(), needs.bytes());
        let others = self.promised(store, needs);
        let refused = |room: u64| CallError::TooLargeToPin { needs: own, others, room };
        match store.room_for_content() {
            Some(room) if own.saturating_add(others) > room => Err(refused(room)),
            Some(_) => Ok(()),
            None => {
                let evictable = store.eviction_entries();
                let evictable = evictable.iter().filter(|task| !task.pinned && !task.in_use);
                let free = free_on(data_dir).saturating_add(evictable.map(|task| task.bytes).sum());
                let missing = own.saturating_sub(needs.here(engine));
                if missing > free { Err(refused(free)) } else { Ok(()) }
            }
        }
    }

    /// Bytes that pins are to have beside these, each once.
    fn promised(&self, store: &Store, needs: &Needs) -> u64 {
        let mut all: HashMap<TaskId, Needed> = HashMap::new();
        let (mut unknown, pins) = (0, self.all());
        for (_, pin) in &pins {
            match pin.progress.lock().needs.clone() {
                Some(needs) => needs.tasks.iter().for_each(|needed| {
                    let known = all
                        .entry(needed.task)
                        .or_insert_with(|| Needed { groups: GroupSet::new(), ..needed.clone() });
                    known.groups.insert_all(&needed.groups);
                }),
                None => unknown += pin.record.bytes,
            }
        }
        for needed in &needs.tasks {
            if let Some(known) = all.get_mut(&needed.task) {
                known.groups.remove_all(&needed.groups);
            }
        }
        let by_hand = |task: &&TaskSummary| {
            let is_counted = needs.tasks.iter().any(|needed| needed.task == task.id);
            task.pinned && !is_counted && !pins.iter().any(|(_, pin)| pin.has(&task.id))
        };
        let by_hand: u64 = store.list().iter().filter(by_hand).map(|task| task.bytes).sum();
        all.values().map(Needed::bytes).sum::<u64>() + unknown + by_hand
    }
}

/// Bytes that the disk of a directory still takes; as many as there are where it does not say.
fn free_on(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}
