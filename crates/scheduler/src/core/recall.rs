//! What merely lies with hosts: they name it, and say more of it when somebody wants it.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_model::{HostId, Location, TaskId};
use rand::RngExt as _;

use super::strategy::scoring::{idc_affinity, location_affinity};
use super::{Core, Decision, Millis, Peer, PeerState, Task, Timer};

/// Holders that are asked what they hold of a task at a time: as many as a host has partners.
const RECALLED: usize = 64;

/// Of more holders the nearest of so many, drawn at random, are asked.
const LOOKED_AT: usize = 256;

/// How long holders may take to answer before others are asked to fetch it.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How often others are asked where those before lack something, for one that wants it.
const ROUNDS: u32 = 4;

/// The holders of a task that were asked.
#[derive(Debug, Default)]
pub struct Recall {
    /// Those who have never answered.
    mute: BTreeSet<HostId>,
    /// Those who are waited for, and until when.
    open: BTreeSet<HostId>,
    due: Millis,
    rounds: u32,
    /// Those who were asked because they named it, since anybody came to want it.
    beside: usize,
}

impl Core {
    /// A host names what it holds. What is wanted already it is asked for, as long as not too many were, and nobody waits
    /// for it: others are on it.
    pub(super) fn names(&mut self, host: HostId, tasks: &[TaskId]) {
        if !self.hosts.contains_key(&host) {
            return;
        }
        let takes_part = |id: &TaskId| self.tasks.get(id).is_some_and(|t| t.peer(&host).is_some());
        let named: Vec<TaskId> = tasks.iter().filter(|id| !takes_part(id)).copied().collect();
        for id in self.shelf.put(&named, host) {
            let recall = self.tasks.get_mut(&id).and_then(|task| task.recall.as_mut());
            let Some(recall) = recall.filter(|recall| recall.beside < RECALLED) else { continue };
            recall.beside += 1;
            recall.mute.insert(host);
            self.out.push(Decision::Recall { host, task: id });
        }
    }

    /// Somebody wants a task from now on: who holds some of it is asked. So is the one itself, where it has only named
    /// it: it registers for what it lacks.
    pub(super) fn recall_for(&mut self, id: TaskId, asker: HostId) {
        if self.shelf.take(&id, &asker) {
            self.out.push(Decision::Recall { host: asker, task: id });
        }
        if let Some(task) = self.tasks.get_mut(&id) {
            let recall = task.recall.get_or_insert_default();
            (recall.rounds, recall.beside) = (0, 0);
        }
        self.recalls(id, asker);
    }

    /// Whether holders may still say that they have what is wanted: those who are asked, or those who are asked now
    /// because nobody is.
    pub(super) fn recalls(&mut self, id: TaskId, asker: HostId) -> bool {
        let task = self.tasks.get(&id);
        let Some(recall) = task.and_then(|task| task.recall.as_ref()) else { return false };
        if !recall.open.is_empty() {
            return true;
        }
        if recall.rounds >= ROUNDS {
            return false;
        }
        let holders = self.holders_near(id, asker);
        let due = self.now.after(ANSWER_WITHIN);
        let recall = self.tasks.get_mut(&id).and_then(|task| task.recall.as_mut());
        let Some(recall) = recall.filter(|_| !holders.is_empty()) else { return false };
        (recall.due, recall.rounds) = (due, recall.rounds + 1);
        recall.open.extend(&holders);
        recall.mute.extend(&holders);
        self.timers.set(due, Timer::Recall(id));
        self.out.extend(holders.into_iter().map(|host| Decision::Recall { host, task: id }));
        true
    }

    /// Those of them who have not been asked.
    fn holders_near(&mut self, id: TaskId, asker: HostId) -> Vec<HostId> {
        let Some(recall) = self.tasks.get(&id).and_then(|task| task.recall.as_ref()) else {
            return Vec::new();
        };
        if self.shelf.len() == 0 {
            return Vec::new();
        }
        let here = self.hosts.get(&asker).map(|host| host.info.location.clone());
        let here = here.unwrap_or_default();
        let may_answer = |host: &HostId| {
            let is_heard_of = self.hosts.get(host).is_some_and(|host| host.silent_since.is_none());
            is_heard_of && *host != asker && !recall.mute.contains(host)
        };
        let holders = self.shelf.holders(&id, self.random.random());
        let holders = holders.filter(|host| may_answer(host)).take(LOOKED_AT);
        let mut holders: Vec<(f64, HostId)> = holders
            .map(|host| {
                let there = self.hosts.get(host).map(|host| &host.info.location);
                (there.map_or(0.0, |there| nearness(&here, there)), *host)
            })
            .collect();
        holders.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        holders.into_iter().take(RECALLED).map(|(_, host)| host).collect()
    }

    /// A host has said what it holds of a task, or that it is nothing.
    pub(super) fn recalled(&mut self, id: TaskId, host: &HostId) {
        self.shelf.take(&id, host);
        let recall = self.tasks.get_mut(&id).and_then(|task| task.recall.as_mut());
        let Some(recall) = recall else { return };
        recall.mute.remove(host);
        if recall.open.remove(host) && recall.open.is_empty() {
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
        let lacking = task.peers().filter(|(host, peer)| match peer.state() {
            PeerState::Waiting { .. } => true,
            PeerState::Fetching => !task.covers(task.dag.parents(host), peer),
            _ => false,
        });
        let lacking = lacking.map(|(host, _)| *host).collect();
        self.schedule_all(id, lacking);
    }

    /// Of a task that is forgotten it is kept who holds some of it for others.
    pub(super) fn shelve(&mut self, id: TaskId) {
        let Some(task) = self.tasks.get(&id) else { return };
        let gives = |peer: &Peer| is_put_away(peer) && !peer.held.is_nothing();
        let givers = task.hosts_where(gives);
        let givers = givers.into_iter().filter(|host| !task.blacklist.contains(host));
        for host in givers.collect::<Vec<_>>() {
            self.shelf.put(&[id], host);
        }
    }
}

fn nearness(here: &Location, there: &Location) -> f64 {
    idc_affinity(here, there) + location_affinity(here, there)
}

/// Whether a peer takes nothing any more before it registers again.
pub(super) fn is_put_away(peer: &Peer) -> bool {
    peer.state() == PeerState::Resting && (!peer.registered || peer.is_closed)
}

/// Whether all who are in a task only hold it for others.
pub(super) fn is_unused(task: &Task) -> bool {
    task.peers().all(|(_, peer)| peer.state() == PeerState::Seeding || is_put_away(peer))
}
