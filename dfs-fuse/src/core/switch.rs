//! From one snapshot to the next.
//!
//! In this order: answers stop holding; what differs is found out and the kernel told to forget it, while the earlier
//! snapshot is still shown; then the next one is shown, at one instant. Whoever sees something of it sees
//! nothing else of the earlier one any more, except through what it has open.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::snapshots::Snapshot;
use super::{Core, FsError, Generation, NodeId, Place};
use crate::tree::{Change, Comparison, Extent, Kept, Tree, TreeError};

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
    /// The node of an inode of the snapshot that is shown.
    pub fn node_of(&self, nid: u64) -> Result<NodeId, FsError> {
        let current = self.snapshots.current();
        self.snapshots.look().node(&current, nid)
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
    /// `same` says of two extents of equal length, of the snapshot now and of the next one, whether their bytes are equal.
    pub fn compare(
        &self,
        tree: &dyn Tree,
        same: &dyn Fn(Extent, Extent) -> bool,
        show: &mut dyn FnMut(Stale<'_>),
    ) -> Result<Kept, FsError> {
        let look = || self.core.snapshots.look();
        let current = self.core.snapshots.current();
        if look().is_partial() {
            for name in names_of_both(&*current.tree, tree)? {
                show(Stale::Name(NodeId::ROOT, &name));
            }
            show(Stale::Attributes(NodeId::ROOT));
            return Ok(Kept::new());
        }
        let known = |nid| look().is_known(nid);
        let comparison = Comparison { before: &*current.tree, after: tree, known: &known, same };
        let mut failed = None;
        let kept = comparison.run(&mut |change| {
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
        failed.map_or(Ok(kept), Err)
    }

    /// Where nodes will be that do not say so themselves: a daemon that takes over must know.
    pub fn nodes(&self, kept: &Kept) -> Vec<(NodeId, Place)> {
        self.core.snapshots.nodes_after(self.next, kept)
    }

    /// Shows the next snapshot from now on.
    pub fn commit(self, next: Snapshot, kept: &Kept) {
        let next = Snapshot { generation: self.next, ..next };
        self.core.snapshots.switch(next, kept);
        self.core.snapshots.settle();
    }
}

impl Drop for Switch<'_> {
    fn drop(&mut self) {
        self.core.snapshots.end_switch();
    }
}

/// The names in the roots of two trees.
fn names_of_both(before: &dyn Tree, after: &dyn Tree) -> Result<BTreeSet<Vec<u8>>, TreeError> {
    let mut names = BTreeSet::new();
    for tree in [before, after] {
        tree.read_dir(tree.root(), 0, &mut |entry| {
            names.insert(entry.name.to_vec());
            ControlFlow::Continue(())
        })?;
    }
    names.retain(|name| !matches!(&name[..], b"." | b".."));
    Ok(names)
}
