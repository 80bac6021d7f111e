//! From one snapshot to the next.
//!
//! In this order: answers stop holding; what differs is found out and the kernel told to forget it, while the earlier
//! snapshot is still shown; then the next one is shown, at one instant. Whoever sees something of it sees
//! nothing else of the earlier one any more, except through what it has open.

use std::collections::BTreeSet;

use dfs_model::{GroupSet, TaskId};

use super::snapshots::Snapshot;
use super::{Core, FsError, Generation, NodeId, Place};
use crate::tree::{Change, Comparison, Extent, Tree, TreeError, Unchanged, files_over};

/// Something that the kernel is to forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale<'a> {
    /// A name of a directory, also one that it knows not to be there.
    Name(NodeId, &'a [u8]),
    /// Attributes.
    Attributes(NodeId),
    /// Bytes.
    Pages(NodeId),
}

/// A switch that is being made; dropping it leaves the mount as it is.
pub struct Switch<'a> {
    core: &'a Core,
    next: Generation,
}

impl Core {
    /// The nodes of all files that have bytes in these groups of a task in any snapshot that is there; and what they are
    /// in the others, too, as pages stay with what is the same. Looks at every inode.
    pub fn nodes_over(&self, task: &TaskId, groups: &GroupSet) -> Result<Vec<NodeId>, FsError> {
        let all = self.snapshots.all();
        let mut paths = BTreeSet::new();
        for snapshot in &all {
            let Some(space) = snapshot.space_of(task) else { continue };
            let length = snapshot.content.length(space).unwrap_or(u64::MAX);
            let ranges: Vec<_> = groups.ranges().map(|run| run.bytes(length)).collect();
            let files = files_over(&*snapshot.tree, space, &ranges)?;
            paths.extend(files.into_iter().map(|file| file.path));
        }
        let mut nodes = Vec::new();
        for (snapshot, path) in all.iter().flat_map(|one| paths.iter().map(move |path| (one, path)))
        {
            if let Some(nid) = find(&*snapshot.tree, path)? {
                nodes.push(self.snapshots.look().node(snapshot, nid)?);
            }
        }
        Ok(nodes)
    }

    /// Whether any snapshot that is there has bytes of a task.
    pub fn shows(&self, task: &TaskId) -> bool {
        self.snapshots.all().iter().any(|snapshot| snapshot.space_of(task).is_some())
    }

    /// Begins a switch; one at a time. `None` where a mount has shown as many snapshots as it can count.
    pub fn begin_switch(&self) -> Option<Switch<'_>> {
        let next = self.snapshots.look().next_generation()?;
        self.snapshots.begin_switch();
        Some(Switch { core: self, next })
    }
}

impl Switch<'_> {
    /// The number of the next snapshot.
    pub fn generation(&self) -> Generation {
        self.next
    }

    /// Shows what the kernel must forget before `tree` is shown; what of what it knows is still so.
    ///
    /// `same` says of two extents of equal length, of the snapshot now and of the next one, whether their bytes are equal;
    /// `knows` whether the kernel knows a node, and of all that it was told below it before: it is asked where an earlier
    /// daemon may have told it.
    pub fn compare(
        &self,
        tree: &dyn Tree,
        same: &dyn Fn(Extent, Extent) -> bool,
        knows: &dyn Fn(NodeId) -> bool,
        show: &mut dyn FnMut(Stale<'_>),
    ) -> Result<Unchanged, FsError> {
        // Never held while the kernel is asked: it waits for who is answered here.
        let look = || self.core.snapshots.look();
        let current = self.core.snapshots.current();
        let asks = look().is_partial();
        let known = |nid| {
            let Ok(node) = look().node(&current, nid) else { return false };
            if !asks && !look().is_uncertain(node) {
                return look().is_known(nid);
            }
            let is_known = knows(node);
            look().notice(node, nid, is_known)
        };
        if asks {
            // For what is being looked up in it.
            knows(NodeId::ROOT);
        }
        let comparison = Comparison { before: &*current.tree, after: tree, known: &known, same };
        let mut failed = None;
        let unchanged = comparison.run(&mut |change| {
            let of = |dir| look().node(&current, dir);
            let stale = match change {
                Change::Name { dir, name } => of(dir).map(|dir| Stale::Name(dir, name)),
                Change::Attributes { dir } => of(dir).map(Stale::Attributes),
            };
            match stale {
                Ok(stale) => show(stale),
                Err(error) => failed = Some(error),
            }
        })?;
        failed.map_or(Ok(unchanged), Err)
    }

    /// Where nodes will be that do not say so themselves: a daemon that takes over must know.
    pub fn nodes(&self, unchanged: &Unchanged) -> Vec<(NodeId, Place)> {
        self.core.snapshots.nodes_after(self.next, unchanged)
    }

    /// Shows the next snapshot from now on.
    pub fn commit(self, next: Snapshot, unchanged: &Unchanged) {
        let next = Snapshot { generation: self.next, ..next };
        self.core.snapshots.switch(next, unchanged);
        self.core.snapshots.settle();
    }
}

impl Drop for Switch<'_> {
    fn drop(&mut self) {
        self.core.snapshots.end_switch();
    }
}

/// What a path from the root leads to; `None` where it leads to nothing.
fn find(tree: &dyn Tree, path: &[u8]) -> Result<Option<u64>, TreeError> {
    let mut at = tree.root();
    for name in path.split(|byte| *byte == b'/') {
        match tree.lookup(at, name) {
            Ok(Some(nid)) => at = nid,
            Ok(None) | Err(TreeError::NotADirectory(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(at))
}
