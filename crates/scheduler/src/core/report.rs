//! The swarm as people look at it.

use std::sync::Arc;

use dfs_model::{HostId, HostInfo, TaskId, TaskInfo, groups_in};

use super::Core;

/// One task.
#[derive(Debug, Clone)]
pub struct TaskReport {
    /// What it is.
    pub task: TaskInfo,
    /// Its state, in a word.
    pub state: &'static str,
    /// Who takes part.
    pub peers: Vec<PeerReport>,
}

/// One peer.
#[derive(Debug, Clone)]
pub struct PeerReport {
    /// The host.
    pub host: Arc<HostInfo>,
    /// Its state, in a word.
    pub state: &'static str,
    /// Groups it holds.
    pub held_groups: u64,
    /// Its parents, best first.
    pub parents: Vec<HostId>,
}

impl Core {
    /// One task, or the first `most` of all.
    pub fn report(&self, only: Option<TaskId>, most: usize) -> Vec<TaskReport> {
        let chosen = self.tasks.iter().filter(|(id, _)| only.is_none_or(|only| only == **id));
        chosen.take(most).map(|(_, task)| self.report_task(task)).collect()
    }

    fn report_task(&self, task: &super::Task) -> TaskReport {
        let groups = task.spec.length.map_or(0, groups_in);
        let peers = task.peers().filter_map(|(id, peer)| {
            Some(PeerReport {
                host: Arc::clone(&self.hosts.get(id)?.info),
                state: peer.state().name(),
                held_groups: peer.held.count(groups),
                parents: task.dag.parents(id).to_vec(),
            })
        });
        let peers = peers.collect();
        TaskReport { task: task.spec.clone(), state: task.state.name(), peers }
    }
}
