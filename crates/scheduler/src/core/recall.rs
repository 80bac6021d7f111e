//! What merely lies with hosts: they name it, and say more of it when somebody wants it.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_model::{HostId, TaskId};
use rand::RngExt as _;

use super::strategy::scoring::{idc_affinity, location_affinity};
use super::{Core, Decision, Millis, Peer, PeerState, Timer};

/// Holders that are asked what they hold of a task when it is wanted: as many as a host has partners.
const RECALLED: usize = 64;

/// Of more holders the nearest of so many are asked.
const LOOKED_AT: usize = 256;

/// How long holders may take to answer before others are asked to fetch it.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The holders of a task that were asked.
#[derive(Debug, Default)]
pub struct Recall {
    /// All of them.
    asked: usize,
    /// Those who have not answered.
    open: BTreeSet<HostId>,
    /// Until when they are waited for.
    due: Millis,
}

impl Core {
    /// A host names what it holds.
    pub(super) fn names(&mut self, host: HostId, tasks: &[TaskId]) {
        if !self.hosts.contains_key(&host) {
            return;
        }
        for id in tasks {
            let task = self.tasks.get(id);
            if task.is_some_and(|task| task.peer(&host).is_some()) {
                continue;
            }
            self.shelf.put(id, host);
            let recall = task.and_then(|task| task.recall.as_ref());
            if recall.is_some_and(|recall| recall.asked < RECALLED) {
                self.recall_from(*id, vec![host]);
            }
        }
    }

    /// Asks who holds some of a task, the first time that it is wanted.
    pub(super) fn recall(&mut self, id: TaskId, asker: HostId) {
        if self.tasks.get(&id).is_none_or(|task| task.recall.is_some()) {
            return;
        }
        if self.shelf.len() == 0 {
            return self.recall_from(id, Vec::new());
        }
        let here =
            self.hosts.get(&asker).map(|host| host.info.location.clone()).unwrap_or_default();
        let is_heard_of =
            |host: &&HostId| self.hosts.get(host).is_some_and(|host| host.silent_since.is_none());
        let holders = self.shelf.holders(&id, self.random.random());
        let holders = holders.filter(is_heard_of).filter(|host| **host != asker).take(LOOKED_AT);
        let mut holders: Vec<HostId> = holders.copied().collect();
        let nearness = |host: &HostId| -> f64 {
            let there = self.hosts.get(host).map(|host| &host.info.location);
            there.map_or(0.0, |there| idc_affinity(&here, there) + location_affinity(&here, there))
        };
        holders.sort_by(|a, b| nearness(b).total_cmp(&nearness(a)));
        holders.truncate(RECALLED);
        self.recall_from(id, holders);
    }

    fn recall_from(&mut self, id: TaskId, holders: Vec<HostId>) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let recall = task.recall.get_or_insert_default();
        recall.asked += holders.len();
        recall.due = self.now.after(ANSWER_WITHIN);
        recall.open.extend(&holders);
        if !holders.is_empty() {
            self.timers.set(recall.due, Timer::Recall(id));
        }
        for host in holders {
            self.out.push(Decision::Recall { host, task: id });
        }
    }

    /// A host has said what it holds of a task, or that it is nothing.
    pub(super) fn recalled(&mut self, id: TaskId, host: &HostId) {
        self.shelf.take(&id, host);
        let recall = self.tasks.get_mut(&id).and_then(|task| task.recall.as_mut());
        if recall.is_some_and(|recall| recall.open.remove(host) && recall.open.is_empty()) {
            self.recall_is_over(id);
        }
    }

    /// Who has not answered by now is waited for no more.
    pub(super) fn recall_is_late(&mut self, id: TaskId, at: Millis) {
        let recall = self.tasks.get_mut(&id).and_then(|task| task.recall.as_mut());
        let Some(recall) = recall.filter(|recall| recall.due == at) else { return };
        if !std::mem::take(&mut recall.open).is_empty() {
            self.recall_is_over(id);
        }
    }

    /// What nobody has turned out to hold is to be fetched: also for those who have parents for the rest.
    fn recall_is_over(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(&id) else { return };
        let taking = task.hosts_where(Peer::is_active);
        self.schedule_all(id, taking);
    }

    /// Whether holders may still say that they have what is wanted.
    pub(super) fn is_recalling(&self, id: &TaskId) -> bool {
        let recall = self.tasks.get(id).and_then(|task| task.recall.as_ref());
        recall.is_some_and(|recall| !recall.open.is_empty())
    }

    /// Of a task that is forgotten it is kept who holds some of it for others.
    pub(super) fn shelve(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(&id) else { return };
        let gives = |peer: &Peer| is_put_away(peer) && !peer.held.is_nothing();
        let givers = task.hosts_where(gives);
        let givers = givers.into_iter().filter(|host| !task.blacklist.contains(host));
        for host in givers.collect::<Vec<_>>() {
            self.shelf.put(&id, host);
        }
    }
}

/// Whether a peer takes nothing any more before it registers again.
pub(super) fn is_put_away(peer: &Peer) -> bool {
    peer.state() == PeerState::Resting && (!peer.registered || peer.is_closed)
}
