//! Who is here: hosts come, fall silent, go; tasks nobody takes are forgotten.

use std::sync::Arc;

use dfs_model::{HostId, HostInfo, TaskId};

use super::evidence::Evidence;
use super::recall::is_unused;
use super::{Core, Decision, Held, Host, Millis, PeerState, Skill, Task, Timer};

/// Tasks of one host in which it is told that it is silent: one that holds thousands must not displace all that is known.
const MAX_NOTED: usize = 256;

impl Core {
    pub(super) fn host_joined(&mut self, info: Arc<HostInfo>) {
        let id = info.id;
        let fresh = Host::new(info, self.limits.upload_slots);
        self.touch_all_of(&id);
        if self.hosts.get(&id).is_some_and(|host| host.silent_since.is_some()) {
            self.note_in_all_of(&id, &Evidence::Returned);
        }
        self.is_to_announce(&id);
        let is_elsewhere = self.hosts.get(&id).is_some_and(|host| host.idc != fresh.idc);
        match self.hosts.get_mut(&id) {
            Some(host) => {
                host.address += u32::from(host.info != fresh.info);
                host.info = fresh.info;
                host.area = fresh.area;
                host.idc = fresh.idc;
                host.rack = fresh.rack;
                host.limit = fresh.limit;
                host.silent_since = None;
            }
            None => {
                self.hosts.insert(id, Host { since: self.now, ..fresh });
            }
        }
        if is_elsewhere {
            self.moves_in_all_of(&id);
        }
    }

    /// What a host can do about delegates, as it says once it has joined.
    pub(super) fn skilled(&mut self, id: HostId, skill: Skill) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.skill = skill;
        }
    }

    /// What a host held it is about to say anew.
    fn is_to_announce(&mut self, id: &HostId) {
        let Some(host) = self.hosts.get(id) else { return };
        for task in &host.tasks {
            let task = self.tasks.get_mut(task);
            if let Some(peer) = task.and_then(|task| task.peer_untouched(id)) {
                peer.is_hearsay = true;
            }
        }
    }

    /// What a host did not announce it takes no part in any more; it may have lost it while it was away.
    pub(super) fn announced_all(&mut self, id: HostId) {
        let tasks = self.hosts.get(&id).map(|host| host.tasks.clone()).unwrap_or_default();
        for task_id in tasks {
            let Some(task) = self.tasks.get_mut(&task_id) else { continue };
            let groups = task.groups();
            let Some(peer) = task.peer_mut(&id).filter(|peer| peer.is_hearsay) else { continue };
            peer.is_hearsay = false;
            match peer.state() {
                PeerState::Seeding => {}
                _ if peer.is_active() && peer.is_hungry(groups) => {
                    peer.holds(Held::nothing(), self.now);
                }
                // It may lie there still: it is asked when it has named it, or now.
                _ => {
                    self.leave(id, task_id);
                    self.names(id, &[task_id]);
                }
            }
            self.touched.push(task_id);
        }
    }

    pub(super) fn host_silent(&mut self, id: HostId) {
        let Some(host) = self.hosts.get_mut(&id) else { return };
        host.silent_since = Some(self.now);
        self.touch_all_of(&id);
        self.delegate_is_silent(id);
        self.note_in_all_of(&id, &Evidence::Silent);
        self.timers.set(self.now.after(self.limits.host_lease), Timer::Silence(id));
    }

    /// What the tasks of a host may lease of it and to it has changed.
    fn touch_all_of(&mut self, id: &HostId) {
        let Some(host) = self.hosts.get(id) else { return };
        for task_id in &host.tasks {
            if let Some(task) = self.tasks.get_mut(task_id) {
                task.has_changed(*id);
                self.touched.push(*task_id);
            }
        }
    }

    /// A host is in another data centre than it was.
    fn moves_in_all_of(&mut self, id: &HostId) {
        let Some(host) = self.hosts.get(id) else { return };
        let (idc, tasks) = (Arc::clone(&host.idc), host.tasks.clone());
        for task_id in tasks {
            let Some(task) = self.tasks.get_mut(&task_id) else { continue };
            task.moves(*id, &idc);
            if let Some(peer) = task.peer_untouched(id) {
                peer.reserves_told = 0;
            }
            self.is_reserve_no_more(task_id, id);
        }
    }

    /// Keeps for people what happened to a host, in every task that it takes part in.
    fn note_in_all_of(&mut self, id: &HostId, what: &Evidence) {
        let Some(host) = self.hosts.get(id) else { return };
        for task in host.tasks.iter().take(MAX_NOTED) {
            self.log.note(*task, *id, what.clone(), self.now);
        }
    }

    pub(super) fn silence_is_over(&mut self, id: HostId, at: Millis) {
        let lease = self.limits.host_lease;
        let silent = self.hosts.get(&id).and_then(|host| host.silent_since);
        if silent.is_some_and(|since| since.after(lease) <= at) {
            self.host_left(id);
        }
    }

    pub(super) fn host_left(&mut self, id: HostId) {
        // Out of the table first: nobody may be rescheduled to a host that is going.
        let Some(host) = self.hosts.remove(&id) else { return };
        self.shelf.clear(&id);
        self.log.departs(&host.info);
        for task in &host.tasks {
            self.remove_peer(*task, id);
        }
    }

    /// Takes a host's part in a task away; its children are told, and the task may be forgotten.
    pub(super) fn remove_peer(&mut self, task_id: TaskId, id: HostId) {
        self.release_parents(task_id, id);
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        if task.exit(&id, self.now).is_none() {
            return;
        }
        self.log.note(task_id, id, Evidence::Gone, self.now);
        self.touched.push(task_id);
        self.is_delegated_no_more(task_id, id);
        self.is_reserve_no_more(task_id, &id);
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let children = task.dag.childless(&id);
        if let Some(host) = self.hosts.get_mut(&id) {
            host.tasks.remove(&task_id);
            children.iter().for_each(|child| host.release(child));
        }
        if task.state.seed() == Some(id) {
            self.drop_order(task_id);
            self.schedule_waiting(task_id);
        }
        self.schedule_all(task_id, children);
        self.forget_if_unused(task_id);
    }

    /// Forgets a task without peers; sets the idle timer of one that nobody takes part in any more.
    pub(super) fn forget_if_unused(&mut self, task_id: TaskId) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        if !is_unused(task) {
            return;
        }
        task.put_away_at = self.now;
        if task.roster().is_empty() && !matches!(task.state, super::TaskState::Void { .. }) {
            self.forget(task_id);
        } else if task.idle_due.is_none() {
            let due = self.now.after(self.limits.idle);
            task.idle_due = Some(due);
            self.timers.set(due, Timer::Idle(task_id));
        }
    }

    pub(super) fn idle(&mut self, task_id: TaskId, at: Millis) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        if task.idle_due != Some(at) {
            return;
        }
        task.idle_due = None;
        let due = task.put_away_at.after(self.limits.idle);
        if is_unused(task) && due > self.now {
            task.idle_due = Some(due);
            self.timers.set(due, Timer::Idle(task_id));
        } else if is_unused(task) {
            self.shelve(task_id);
            self.forget(task_id);
        }
    }

    fn forget(&mut self, task_id: TaskId) {
        self.drop_order(task_id);
        let Some(task) = self.tasks.remove(&task_id) else { return };
        self.log.forget(&task_id);
        self.forget_route(task.route);
        for host in task.roster().all() {
            if let Some(host) = self.hosts.get_mut(host) {
                host.tasks.remove(&task_id);
            }
        }
        self.out.push(Decision::Forget { task: task_id });
    }

    /// The task of `spec`, made when it is new; `None` where a host overreaches.
    pub(super) fn task_for(
        &mut self,
        host: HostId,
        spec: dfs_model::TaskInfo,
    ) -> Option<&mut Task> {
        let host = self.hosts.get_mut(&host)?;
        if host.tasks.len() >= super::MAX_TASKS_PER_HOST && !host.tasks.contains(&spec.id) {
            return None;
        }
        if spec.length.is_some_and(|length| dfs_model::groups_in(length) > super::MAX_GROUPS) {
            return None;
        }
        host.tasks.insert(spec.id);
        let (arms, came) = (&self.arms, &mut self.came);
        Some(self.tasks.entry(spec.id).or_insert_with(|| {
            let arm = arms.drawn(&spec.key);
            let task = Task::new(spec, arm);
            Self::keep_route(came, &task);
            task
        }))
    }
}
