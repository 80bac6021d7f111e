//! Who leads this host in which tasks, where that is no scheduler.
//!
//! Lost with the process: it registers with its schedulers, and is told again.

use std::collections::HashMap;
use std::net::SocketAddr;

use dfs_model::{HostId, HostInfo, TaskId, TaskInfo};
use dfs_proto::convert::{self, BadMessage};
use dfs_proto::scheduler;

use super::Charge;
use super::outbox::Delegated;

/// The delegates of this host.
#[derive(Debug, Default)]
pub(super) struct Delegates {
    of: HashMap<TaskId, HostId>,
}

impl Delegates {
    /// Who leads in a task, if that is a delegate.
    pub(super) fn of(&self, task: &TaskId) -> Option<HostId> {
        self.of.get(task).copied()
    }

    /// Goes to a delegate.
    pub(super) fn follow(&mut self, task: TaskId, delegate: HostId) {
        self.of.insert(task, delegate);
    }

    /// Does without the delegate of a task.
    pub(super) fn leave(&mut self, task: &TaskId) -> Option<HostId> {
        self.of.remove(task)
    }

    /// Tasks in which a host leads.
    pub(super) fn tasks_of(&self, delegate: HostId) -> Vec<TaskId> {
        let tasks = self.of.iter().filter(|(_, leads)| **leads == delegate);
        tasks.map(|(task, _)| *task).collect()
    }

    /// Whether a host leads in anything.
    pub(super) fn leads(&self, host: &HostId) -> bool {
        self.of.values().any(|delegate| delegate == host)
    }
}

/// Reads who leads, as it was said by one who led so far.
pub(super) fn read(said: scheduler::Delegated, by: HostId) -> Result<Delegated, BadMessage> {
    let task = convert::task_id(&said.task_id)?;
    let to = match said.host {
        Some(host) => {
            let addresses: Vec<SocketAddr> = convert::grpc_addresses(&host)?;
            let host = HostInfo::try_from(host)?;
            addresses.first().map(|at| (host.id, *at))
        }
        None => None,
    };
    Ok(Delegated { task, by, to })
}

/// Reads what this host is asked.
pub(super) fn charge(said: scheduler::Lead) -> Result<Charge, BadMessage> {
    let task = said.task.unwrap_or_default();
    Ok(match said.ends {
        true => Charge::LeadNoMore(convert::task_id(&task.id)?),
        false => Charge::Lead(Box::new(TaskInfo::try_from(task)?)),
    })
}
