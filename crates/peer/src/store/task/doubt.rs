//! What to believe of a task after a crash or a disk error: groups are hashed again, one by one, and
//! those that do not match are missing.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use dfs_model::{GROUP_BYTES, GroupRange, Invariant};

use super::super::state;
use super::{Facts, Opened, StoreError, StoredTask};
use crate::hashtree::{Node, Shape, group_digest};

/// What hashing again found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// Groups hashed.
    pub checked: u64,
    /// Those that were wrong or whose digest is not known; they are missing now.
    pub bad: Vec<GroupRange>,
}

/// When what is forgotten reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durable {
    /// Before anything else happens.
    Always,
    /// So where the disk may have a mark that vouches for it. Once that is gone all is doubted after a power cut.
    WhereVouchedFor,
}

impl StoredTask {
    /// Whether what is here of `groups` is to be hashed again before it is read.
    pub fn is_in_doubt(&self, groups: GroupRange) -> bool {
        let facts = self.opened.facts.read();
        facts.doubts(groups)
    }

    /// That all of `groups` are here and none of them in doubt: to be asked before the content file is
    /// read directly. What is in doubt is hashed again; what is not here is an error.
    pub fn ready(&self, groups: GroupRange) -> Result<(), StoreError> {
        self.ready_as_of(groups).map(drop)
    }

    /// As [`StoredTask::ready`]; how often something had been taken out of the content when that was so.
    pub(super) fn ready_as_of(&self, groups: GroupRange) -> Result<u64, StoreError> {
        let opened = &*self.opened;
        if opened.presence.broken.load(Relaxed) {
            return Err(StoreError::Gone(opened.id));
        }
        if groups.end() > state::MAX_GROUPS {
            return Err(StoreError::Missing { task: opened.id, groups });
        }
        loop {
            let (doubted, taken_out) = {
                let facts = opened.facts.read();
                if let Some(missing) = facts.have.missing_in(groups).next() {
                    return Err(StoreError::Missing { task: opened.id, groups: missing });
                }
                (facts.doubts(groups), facts.taken_out)
            };
            if !doubted {
                return Ok(taken_out);
            }
            // Every round leaves less in doubt.
            self.settle(groups)?;
        }
    }

    /// The runs of `groups` that can be read: what of them is in doubt is hashed again first.
    pub fn ready_in(&self, groups: GroupRange) -> Vec<GroupRange> {
        // What cannot be hashed stays in doubt.
        let _ = self.settle(groups);
        let present = self.present_in(groups).into_iter();
        present.filter(|run| self.ready(*run).is_ok()).collect()
    }

    /// Hashes again what is in doubt among `groups`. What does not match is missing from now on.
    pub fn settle(&self, groups: GroupRange) -> Result<Check, StoreError> {
        let doubted: Vec<_> = {
            let facts = self.opened.facts.read();
            facts.doubt.present_in(groups).collect()
        };
        self.check(&doubted)
    }

    /// Hashes again whatever is here of `groups`. What does not match is missing from now on.
    pub fn verify(&self, groups: GroupRange) -> Result<Check, StoreError> {
        let present: Vec<_> = {
            let facts = self.opened.facts.read();
            facts.have.present_in(groups).collect()
        };
        self.check(&present)
    }

    fn check(&self, runs: &[GroupRange]) -> Result<Check, StoreError> {
        let opened = &*self.opened;
        let shape = self.shape();
        let mut buf = vec![0; GROUP_BYTES as usize];
        let mut check = Check::default();
        let mut marked = Ok(());
        for group in runs.iter().flat_map(|run| run.iter()) {
            {
                let _no_holes = opened.holes.read();
                if !opened.facts.read().have.contains(group) {
                    // Taken out since, or found bad by somebody else.
                    continue;
                }
                check.checked += 1;
                if opened.is_intact(shape, group, &mut buf) {
                    continue;
                }
            }
            // At once: what comes after it may take long, and nobody is to be given it meanwhile.
            let bad = GroupRange::new(group, 1);
            let until =
                if check.bad.is_empty() { Durable::Always } else { Durable::WhereVouchedFor };
            marked = marked.and(self.forget_bad(bad, until));
            match check.bad.last_mut() {
                Some(last) if last.end() == group => last.count += 1,
                _ => check.bad.push(bad),
            }
        }
        marked?;
        let mut facts = opened.facts.write();
        if !facts.doubt.is_empty() {
            runs.iter().for_each(|run| facts.doubt.remove_range(*run));
            let named = facts.dirty(&opened.state, opened.directory.boot());
            named.map_err(StoreError::write(opened.id, &opened.path))?;
        }
        Ok(check)
    }

    /// Forgets what is believed of these groups: that they are here, and every digest that rests on them and
    /// is not signed. To be called on a disk error or when the bytes turn out to be wrong.
    pub fn mark_bad(&self, runs: &[GroupRange]) -> Result<(), StoreError> {
        let mut until =
            [Durable::Always].into_iter().chain(std::iter::repeat(Durable::WhereVouchedFor));
        runs.iter()
            .try_for_each(|run| self.forget_bad(*run, until.next().unwrap_or(Durable::Always)))
    }

    /// As [`StoredTask::mark_bad`]. Where that cannot be written down nobody is given them all the same, as long as this
    /// process lives.
    fn forget_bad(&self, groups: GroupRange, durable: Durable) -> Result<(), StoreError> {
        let opened = &*self.opened;
        let mut facts = opened.facts.write();
        let runs: Vec<_> = facts.have.present_in(groups).collect();
        let vouched_for = facts.header.is_clean();
        opened.presence.dirty.store(true, Relaxed);
        let dirtied = facts.dirty(&opened.state, opened.directory.boot());
        for run in &runs {
            facts.have.remove_range(*run);
            facts.doubt.remove_range(*run);
            facts.upper.remove_range(*run);
            facts.taken_out += 1;
        }
        let recorded = runs.iter().try_for_each(|run| {
            opened.record_upper(&facts.upper, *run)?;
            opened.state.record(&facts.below(), *run)
        });
        let forgotten = dirtied.and(recorded).and_then(|()| opened.forget_nodes(groups));
        forgotten.map_err(StoreError::write(opened.id, &opened.path))?;
        // An older clean mark on disk would vouch for them after a power cut.
        let is_due = vouched_for || durable == Durable::Always;
        if is_due && opened.state.sync().is_err() {
            opened.give_up(&mut facts);
        }
        drop(facts);
        self.restore_signed(groups)
    }
}

impl Facts {
    fn doubts(&self, groups: GroupRange) -> bool {
        let doubted = self.doubt.present_in(groups).next().is_some();
        doubted && !Invariant::DoubtIsResolved.is_broken()
    }
}

impl Opened {
    /// Whether a group's bytes match its digest. What cannot be read or has no digest does not.
    fn is_intact(&self, shape: Shape, group: u64, buf: &mut [u8]) -> bool {
        let Some(bytes) = shape.group_bytes(group).and_then(|count| buf.get_mut(..count)) else {
            return false;
        };
        let read = self.read_layers(bytes, group * GROUP_BYTES).is_ok();
        read && self.matches(shape, group, bytes)
    }

    /// Whether these are the bytes of a group, by its digest. What has none is not believed.
    pub(super) fn matches(&self, shape: Shape, group: u64, bytes: &[u8]) -> bool {
        let expected = match self.known(Node::group(group)) {
            Some(known) => Some(known),
            None => self.prove_from_above(shape, group).unwrap_or(None),
        };
        let found = group_digest(shape, group, bytes).ok();
        expected.is_some() && expected == found
    }

    /// Clears the known digests of `groups` and of everything above them.
    fn forget_nodes(&self, groups: GroupRange) -> std::io::Result<()> {
        let groups = groups.intersection(GroupRange::new(0, self.nodes_up_to()?));
        let Some(last) = groups.end().checked_sub(1).filter(|_| !groups.is_empty()) else {
            return Ok(());
        };
        let mut known = BTreeSet::new();
        for level in 0..=Node::MAX_LEVEL {
            let nodes =
                (groups.first >> level..=last >> level).map(|index| Node::new(level, index));
            known.extend(nodes.filter(|node| self.known(*node).is_some()));
        }
        debug_assert!(known.iter().all(|node| state::has_slot(*node)));
        self.forget_in_memory(known.iter().copied())?;
        self.state.write_nodes(known.into_iter().map(|node| (node, [0; 32])))
    }
}
