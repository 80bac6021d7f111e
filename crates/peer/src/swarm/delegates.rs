//! Who leads this host in which tasks, where that is no scheduler.
//!
//! Lost with the process: it registers with its schedulers, and is told again.

use std::collections::HashMap;
use std::sync::Arc;

use dfs_model::{HostId, TaskId, TaskInfo};
use dfs_proto::common::Host;
use dfs_proto::convert::{self, BadMessage};
use dfs_proto::scheduler;
use dfs_proto::scheduler::RefusalKind;
use dfs_proto::scheduler::scheduler_message::Kind as Down;
use parking_lot::Mutex;

use super::Charge;
use super::outbox::Delegated;

/// The delegates of this host. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Delegates {
    of: Arc<Mutex<HashMap<TaskId, HostId>>>,
}

/// A delegate says what only a scheduler may, or what cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Presumes;

impl Delegates {
    /// Who leads in a task, if that is a delegate.
    pub(super) fn of(&self, task: &TaskId) -> Option<HostId> {
        self.of.lock().get(task).copied()
    }

    /// Goes to a delegate.
    pub(super) fn follow(&self, task: TaskId, delegate: HostId) {
        self.of.lock().insert(task, delegate);
    }

    /// Does without the delegate of a task.
    pub(super) fn leave(&self, task: &TaskId) -> Option<HostId> {
        self.of.lock().remove(task)
    }

    /// Tasks in which a host leads.
    pub(super) fn tasks_of(&self, delegate: HostId) -> Vec<TaskId> {
        let of = self.of.lock();
        let tasks = of.iter().filter(|(_, leads)| **leads == delegate);
        tasks.map(|(task, _)| *task).collect()
    }

    /// Whether a host leads in anything.
    pub(super) fn leads(&self, host: &HostId) -> bool {
        self.of.lock().values().any(|delegate| delegate == host)
    }

    /// Whether what a delegate says is heeded: of what it leads here. Of what it led it may not know yet that it does no
    /// more.
    pub(super) fn heeds(&self, delegate: HostId, said: Option<&Down>) -> Result<bool, Presumes> {
        let task = match said {
            Some(Down::Welcome(_) | Down::Alive(_)) => return Ok(true),
            Some(Down::Registered(said)) => said.task.as_ref().map(|task| &task.id),
            Some(Down::Update(said)) => Some(&said.task_id),
            Some(Down::Parents(said)) => Some(&said.task_id),
            Some(Down::Leases(said)) => Some(&said.task_id),
            Some(Down::Refused(said)) if said.kind() == RefusalKind::Busy => Some(&said.task_id),
            Some(Down::Delegated(said)) if said.host.is_none() => Some(&said.task_id),
            // Of a newer release.
            None => return Ok(false),
            Some(_) => return Err(Presumes),
        };
        let task = convert::task_id(task.map(|id| &id[..]).unwrap_or_default());
        Ok(self.of(&task.map_err(|_| Presumes)?) == Some(delegate))
    }
}

/// Reads who leads, as it was said by one who led so far.
pub(super) fn read(said: scheduler::Delegated, by: HostId) -> Result<Delegated, BadMessage> {
    let task = convert::task_id(&said.task_id)?;
    let read = |host: Host| {
        let id = convert::host_id(&host.id)?;
        // At none it is not reached.
        Ok((id, convert::grpc_addresses(&host).unwrap_or_default()))
    };
    Ok(Delegated { task, by, to: said.host.map(read).transpose()? })
}

/// Reads what this host is asked.
pub(super) fn charge(said: scheduler::Lead) -> Result<Charge, BadMessage> {
    let task = said.task.unwrap_or_default();
    Ok(match said.ends {
        true => Charge::LeadNoMore(convert::task_id(&task.id)?),
        false => Charge::Lead(Box::new(TaskInfo::try_from(task)?)),
    })
}

#[cfg(test)]
mod tests {
    use dfs_proto::{common, scheduler};

    use super::*;

    #[test]
    fn a_delegate_says_what_a_delegate_may_of_what_it_leads_here_and_nothing_else() {
        let (host, other) = (HostId::from_bytes([1; 16]), HostId::from_bytes([2; 16]));
        let tasks = [1, 2, 3].map(|number| TaskId::from_bytes([number; 32]));
        let delegates = Delegates::default();
        delegates.follow(tasks[0], host);
        delegates.follow(tasks[1], other);
        let id = |task: TaskId| bytes::Bytes::copy_from_slice(task.as_bytes());
        let of = |kind| delegates.heeds(host, Some(&kind));
        for (at, task) in tasks.into_iter().enumerate() {
            let (task_id, is_led) = (id(task), Ok(at == 0));
            let update = scheduler::TaskUpdate { task_id: task_id.clone(), ..Default::default() };
            assert_eq!(of(Down::Update(update)), is_led);
            let parents = scheduler::Parents { task_id: task_id.clone(), ..Default::default() };
            assert_eq!(of(Down::Parents(parents)), is_led);
            let leases = scheduler::Leases { task_id: task_id.clone(), ..Default::default() };
            assert_eq!(of(Down::Leases(leases)), is_led);
            let task = common::Task { id: task_id.clone(), ..Default::default() };
            let task = Some(task);
            let registered = scheduler::Registered { task, ..Default::default() };
            assert_eq!(of(Down::Registered(registered)), is_led);
            let refused = |kind: RefusalKind| scheduler::Refused {
                task_id: task_id.clone(),
                reason: String::new(),
                kind: kind.into(),
            };
            assert_eq!(of(Down::Refused(refused(RefusalKind::Busy))), is_led);
            for kind in [RefusalKind::NotFound, RefusalKind::OriginChanged] {
                assert_eq!(of(Down::Refused(refused(kind))), Err(Presumes));
            }
            let back = scheduler::Delegated { task_id: task_id.clone(), host: None };
            assert_eq!(of(Down::Delegated(back.clone())), is_led);
            let host = Some(common::Host::default());
            let on = scheduler::Delegated { host, ..back };
            assert_eq!(of(Down::Delegated(on)), Err(Presumes));
            let source = scheduler::BackToSource { task_id, ..Default::default() };
            assert_eq!(of(Down::BackToSource(source)), Err(Presumes));
        }
        assert_eq!(of(Down::Alive(Default::default())), Ok(true));
        assert_eq!(of(Down::Update(Default::default())), Err(Presumes), "of no task");
        for kind in [
            Down::Lead(Default::default()),
            Down::NameHeld(Default::default()),
            Down::Recall(Default::default()),
        ] {
            assert_eq!(of(kind), Err(Presumes));
        }
    }
}
