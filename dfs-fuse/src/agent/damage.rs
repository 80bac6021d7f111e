//! What was found damaged in the cache: it is told to mounts, and fetched again.
//!
//! Who reads a damaged group through this process waits until it has come again. Two others would go on with what is
//! wrong: the kernel with pages that it has read before, so it is told to forget them; and whoever reads a mount that
//! the kernel shows by itself, since nobody asks for what is missing there, so that is fetched at once.
//!
//! What could not be fetched again is remembered as long as this process lives: who repairs means that, too.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_model::{ByteRange, GroupRange, GroupSet, Priority, TaskId};
use dfs_peer::engine::{Engine, Task};
use dfs_peer::error_chain;
use parking_lot::Mutex;
use rustix::fs::{Advice, Mode, OFlags, fadvise, open};

use super::Agent;
use super::mounts::{Displayed, MountTableError, tree_of, whole_tree};
use crate::core::FsError;
use crate::lane::Lane;
use crate::tree::{FileOver, TreeError, files_over};

/// How long what was found damaged may take to come again.
const REPAIRED: Duration = Duration::from_secs(120);

/// What was found damaged and has not come again.
#[derive(Debug, Default)]
pub struct Damage(Mutex<BTreeMap<TaskId, GroupSet>>);

impl Damage {
    fn add(&self, task: TaskId, groups: &[GroupRange]) {
        let mut all = self.0.lock();
        if !groups.is_empty() {
            let of_task = all.entry(task).or_default();
            groups.iter().for_each(|run| of_task.insert_range(*run));
        }
    }

    /// What is still missing of it.
    fn left(&self, task: &TaskId, have: &GroupSet) -> GroupSet {
        let mut all = self.0.lock();
        let Some(groups) = all.get_mut(task) else { return GroupSet::new() };
        groups.remove_all(have);
        let left = groups.clone();
        if left.is_empty() {
            all.remove(task);
        }
        left
    }
}

/// Whether what is damaged is to come again before anybody reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Only where nobody would wait for it.
    WhereNobodyAsks,
    /// It is.
    Always,
}

/// What became of the damage to a task.
#[derive(Debug, Default)]
pub struct Mended {
    /// What was damaged.
    pub bad: GroupSet,
    /// Groups of it that came again.
    pub repaired: u64,
    /// Why others did not.
    pub why_not: String,
}

impl Agent {
    /// Sees to what was found `bad` of a task, and to what was before and was not fetched again.
    pub(super) async fn mend(&self, id: TaskId, bad: &[GroupRange], repair: Repair) -> Mended {
        let engine = &self.host().engine;
        self.damage().add(id, bad);
        let have = || engine.peek(&id).map(|(_, stored, _)| stored.have()).unwrap_or_default();
        let displayed = self.mounts().that_show(&id);
        let alone: Vec<&Path> = by_kernel(&displayed).collect();
        if repair == Repair::WhereNobodyAsks && alone.is_empty() {
            let bad = set_of(bad);
            forget_pages(displayed, bad.clone()).await;
            return Mended { bad, ..Mended::default() };
        }
        let bad = self.damage().left(&id, &have());
        let fetched = fetch(engine, &id, &bad).await;
        let left = self.damage().left(&id, &have()).len();
        let why_not = match fetched {
            Ok(()) => String::new(),
            Err(why) => alone.iter().fold(why, |why, dir| {
                format!("{why}; until it is, {} shows it as it is", dir.display())
            }),
        };
        forget_pages(displayed, bad.clone()).await;
        let repaired = bad.len().saturating_sub(left);
        Mended { bad, repaired, why_not }
    }
}

fn set_of(runs: &[GroupRange]) -> GroupSet {
    let mut set = GroupSet::new();
    runs.iter().for_each(|run| set.insert_range(*run));
    set
}

/// Where the kernel reads by itself.
fn by_kernel(displayed: &[Displayed]) -> impl Iterator<Item = &Path> {
    let alone = displayed.iter().filter(|one| one.shown.lane().lane == Lane::Kernel);
    alone.map(|one| one.dir.as_path())
}

/// Fetches groups that were found bad.
async fn fetch(engine: &Engine, id: &TaskId, bad: &GroupSet) -> Result<(), String> {
    if bad.is_empty() {
        return Ok(());
    }
    let task = engine.held(id).await.ok_or_else(|| "it cannot be opened".to_owned())?;
    for groups in bad.ranges() {
        let range = groups.bytes(task.length().unwrap_or(u64::MAX));
        task.ensure_within(range, Priority::Bulk, REPAIRED)
            .await
            .map_err(|error| error_chain(&error))?;
    }
    Ok(())
}

/// Why the kernel was not told to forget.
#[derive(Debug, thiserror::Error)]
#[error("the files over it cannot be found")]
enum Unforgotten {
    /// Of a mount that the kernel serves.
    Mount(#[from] MountTableError),
    /// Of one that is served here.
    Here(#[from] FsError),
}

impl From<TreeError> for Unforgotten {
    fn from(error: TreeError) -> Self {
        MountTableError::from(error).into()
    }
}

/// Has the kernel forget what it has read of these groups in each of the mounts. Best effort: one that is not told shows what
/// was wrong until it needs the memory.
async fn forget_pages(displayed: Vec<Displayed>, groups: GroupSet) {
    if groups.is_empty() {
        return;
    }
    let forgetting = tokio::task::spawn_blocking(move || {
        for one in displayed {
            if let Err(error) = one.forget_pages(&groups) {
                let dir = one.dir.display();
                let error = error_chain(&error);
                tracing::warn!(%dir, error, "the kernel may still show what was damaged");
            }
        }
    });
    // It ends early only with the process.
    let _ = forgetting.await;
}

impl Displayed {
    /// Blocks.
    fn forget_pages(&self, groups: &GroupSet) -> Result<(), Unforgotten> {
        if let Some(switcher) = &self.switcher {
            return Ok(switcher.forget_pages(&self.task, groups)?);
        }
        let Some(space) = self.shown.space_of(&self.task) else { return Ok(()) };
        let what = self.shown.what();
        let length = what.opened.tasks.get(usize::from(space)).and_then(Task::length);
        let bytes = |run: GroupRange| run.bytes(length.unwrap_or(u64::MAX));
        let ranges: Vec<ByteRange> = groups.ranges().map(bytes).collect();
        let (tree, _) = tree_of(whole_tree(&what.opened)?, &what.path)?;
        files_over(&*tree, space, &ranges)?.iter().for_each(|file| self.forget_pages_of(file));
        Ok(())
    }

    /// Of a mount that the kernel serves: nothing of this is asked of this process.
    fn forget_pages_of(&self, file: &FileOver) {
        let path: PathBuf = self.dir.join(std::ffi::OsStr::from_bytes(&file.path));
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        // What is not there is covered by something else, or not mounted any more.
        let _ = open(path, flags, Mode::empty())
            .and_then(|file| fadvise(file, 0, None, Advice::DontNeed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_damaged_is_remembered_until_it_is_here_again() {
        let (damage, task) = (Damage::default(), TaskId::from_slice(&[1; 32]).unwrap());
        let run = |first, count| GroupRange::new(first, count);
        damage.add(task, &[run(0, 2)]);
        damage.add(task, &[run(7, 1)]);
        damage.add(task, &[]);
        assert_eq!(damage.left(&task, &set_of(&[run(1, 3)])), set_of(&[run(0, 1), run(7, 1)]));
        // It is not missing once it came, whatever becomes of it.
        assert_eq!(damage.left(&task, &GroupSet::new()), set_of(&[run(0, 1), run(7, 1)]));
        assert!(damage.left(&task, &set_of(&[run(0, 8)])).is_empty());
        assert!(damage.0.lock().is_empty());
    }
}
