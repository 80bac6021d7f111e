//! Finding parents, and what happens to a peer for whom there are none.

use std::collections::BTreeSet;
use std::sync::Arc;

use dfs_model::{HostId, HostInfo, TaskId, TaskKey};
use rand::RngExt as _;

use super::evidence::{Evidence, Scheduling, SourceReason, Wait};
use super::strategy::{Ask, Choice, Swarm};
use super::{
    Core, Decision, Held, MAX_PARENTS, Millis, Peer, PeerState, RefusalKind, SizeScope, TaskState,
    Timer,
};

impl Core {
    /// Has several peers scheduled before this event is over, the most urgent first.
    pub(super) fn schedule_all(&mut self, task_id: TaskId, mut hosts: Vec<HostId>) {
        let Some(task) = self.tasks.get(&task_id) else { return };
        hosts.sort_by_key(|host| task.peer(host).map(|peer| (peer.priority, *host)));
        self.queue.extend(hosts.into_iter().map(|host| (task_id, host)));
    }

    /// The same for everybody in the task who waits.
    pub(super) fn schedule_waiting(&mut self, task_id: TaskId) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let waiting = task.waiting();
        self.schedule_all(task_id, waiting);
    }

    /// Schedules whoever the event left without what they need, and whoever that touches in turn.
    pub(super) fn settle(&mut self) {
        while let Some((task, host)) = self.queue.pop_front() {
            self.touched.push(task);
            self.schedule(task, host);
        }
    }

    /// Gives a peer that wants something the best parents there are now, or the next best thing.
    fn schedule(&mut self, task_id: TaskId, child: HostId) {
        let Some(task) = self.tasks.get(&task_id) else { return };
        let Some(peer) = task.peer(&child) else { return };
        if !matches!(peer.state(), PeerState::Waiting { .. } | PeerState::Fetching) {
            return;
        }
        let had_parents = !task.dag.parents(&child).is_empty();
        if self.answer_with_content(task_id, child) || self.waits_for_content(task_id, child) {
            return;
        }
        let (choice, descendants) = self.assign(task_id, child);
        let parents = self.grant(task_id, child, &choice.chosen, &descendants);
        self.note_scheduling(task_id, child, choice, &parents);
        if !parents.is_empty() {
            return self.send_parents(task_id, child, parents);
        }
        if had_parents {
            self.tell_parents(task_id, child, Vec::new());
        }
        self.find_origin(task_id, child);
    }

    /// A tiny content comes with the answer, as soon as the seed has given it.
    fn waits_for_content(&mut self, task_id: TaskId, child: HostId) -> bool {
        let Some(task) = self.tasks.get(&task_id) else { return false };
        let unanswered = task.peer(&child).is_some_and(|peer| !peer.answered);
        if task.scope() != SizeScope::Tiny || !unanswered {
            return false;
        }
        if matches!(task.state, TaskState::Asked { .. }) {
            let due = self.now.after(self.limits.seed_answer);
            self.wait(task_id, child, Wait::Seed, due);
            return true;
        }
        // Digests follow the seed's first word: the answer waits for them once.
        let expects_digests = task.tiny.is_some()
            && task.digests.is_empty()
            && matches!(task.state, TaskState::Seeded { obtain: Some(_), .. })
            && task.peer(&child).is_some_and(|peer| peer.tries < self.limits.tries);
        if expects_digests {
            self.count_try(task_id, child);
            let due = self.now.after(self.limits.retry_after);
            self.wait(task_id, child, Wait::Digests, due);
        }
        expects_digests
    }

    /// Whom the strategy chooses, with what holds for every strategy: whoever looked is told by the candidates. And who
    /// lives on the child.
    fn assign(&mut self, task_id: TaskId, child: HostId) -> (Choice, BTreeSet<HostId>) {
        let former = self.release_parents(task_id, child);
        let Some(task) = self.tasks.get(&task_id) else { return Default::default() };
        let Some(peer) = task.peer(&child) else { return Default::default() };
        let descendants = task.dag.descendants(&child);
        let swarm = Swarm { task, hosts: &self.hosts, now: self.now };
        let ask = Ask { child, peer, former: &former, descendants: &descendants };
        let Choice { chosen: mut parents, candidates } =
            self.arms.of(task.arm).strategy.parents(&swarm, &ask, &mut self.random);
        let may_serve = |parent: &HostId| swarm.refusal(&ask, parent).is_none();
        parents.retain(&may_serve);
        parents.truncate(MAX_PARENTS);
        // What nobody else has, the seed fetches: it joins the four where they do not suffice.
        if let Some(seed) = task.state.seed().filter(may_serve)
            && !parents.contains(&seed)
            && !task.covers(&parents, peer)
        {
            parents.truncate(MAX_PARENTS - 1);
            parents.push(seed);
        }
        let covered = task.covers(&parents, peer);
        if !covered && task.is_void(self.now) {
            return (Choice { chosen: Vec::new(), candidates }, descendants);
        }
        if task.scope() == SizeScope::Small && task.covers(&parents[..parents.len().min(1)], peer) {
            parents.truncate(1);
        }
        (Choice { chosen: parents, candidates }, descendants)
    }

    /// Keeps for people whom it looked at and what came of it. That it looked at itself is no news.
    fn note_scheduling(
        &mut self,
        task_id: TaskId,
        child: HostId,
        choice: Choice,
        granted: &[HostId],
    ) {
        let of = self.tasks.get(&task_id).map_or(0, |task| task.roster().len());
        let mut candidates = choice.candidates;
        candidates.retain(|candidate| candidate.host != child);
        let scheduling = Scheduling { candidates, granted: granted.to_vec(), of };
        self.note(task_id, child, Evidence::Scheduled(scheduling));
    }

    /// Draws the edges; says which there are.
    fn grant(
        &mut self,
        task_id: TaskId,
        child: HostId,
        parents: &[HostId],
        descendants: &BTreeSet<HostId>,
    ) -> Vec<HostId> {
        let Some(task) = self.tasks.get_mut(&task_id) else { return Vec::new() };
        let mut granted = Vec::new();
        for parent in parents {
            let host = self.hosts.get_mut(parent);
            let Some(host) = host.filter(|host| host.has_room_for(&child)) else { continue };
            if task.dag.connect(*parent, child, descendants) {
                host.take(child);
                granted.push(*parent);
            }
        }
        granted
    }

    fn send_parents(&mut self, task_id: TaskId, child: HostId, parents: Vec<HostId>) {
        self.answer(task_id, child);
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(peer) = task.peer_mut(&child) else { return };
        peer.become_(PeerState::Fetching);
        parents.iter().for_each(|parent| peer.meet(*parent));
        let infos: Vec<_> = parents
            .iter()
            .filter_map(|parent| self.hosts.get(parent).map(|host| Arc::clone(&host.info)))
            .collect();
        self.tell_parents(task_id, child, infos);
        let Some(task) = self.tasks.get(&task_id) else { return };
        let covered = task.peer(&child).is_some_and(|peer| task.covers(&parents, peer));
        if !covered {
            self.order_seed(task_id, child);
        }
    }

    pub(super) fn tell_parents(&mut self, task: TaskId, host: HostId, parents: Vec<Arc<HostInfo>>) {
        let led = self.is_led(&task);
        self.out.push(Decision::SendParents { host, task, parents, led });
    }

    /// Takes a peer's parents away without a word; says who they were.
    pub(super) fn release_parents(&mut self, task_id: TaskId, child: HostId) -> Vec<HostId> {
        let Some(task) = self.tasks.get_mut(&task_id) else { return Vec::new() };
        let former = task.dag.orphan(&child);
        for parent in &former {
            if let Some(host) = self.hosts.get_mut(parent) {
                host.release(&child);
            }
        }
        former
    }

    /// No parents: a seed, else the source, else patience.
    fn find_origin(&mut self, task_id: TaskId, child: HostId) {
        let peer = self.tasks.get(&task_id).and_then(|task| task.peer(&child));
        let is_patient = peer.is_some_and(|peer| peer.tries < self.limits.tries);
        if self.recalls(task_id, child) {
            self.answer_unless_tiny(task_id, child);
            let due = self.now.after(self.limits.retry_after);
            return self.wait(task_id, child, Wait::Holders, due);
        }
        if is_patient && self.order_seed(task_id, child) {
            self.answer_unless_tiny(task_id, child);
            let due = self.now.after(self.limits.seed_answer);
            return self.wait(task_id, child, Wait::Seed, due);
        }
        let Some(task) = self.tasks.get(&task_id) else { return };
        if let TaskState::Void { kind, reason, .. } = &task.state
            && task.is_void(self.now)
        {
            let (kind, reason) = (*kind, reason.clone());
            let own = task.spec.key.domain != TaskKey::PUBLIC;
            if kind == RefusalKind::NotPermitted && own {
                return self.send_to_source(task_id, child, false, SourceReason::OwnCredentials);
            }
            return self.refuse(task_id, child, kind, reason);
        }
        let has_seed = task.state.seed().is_some();
        if !has_seed && self.is_hearing() {
            self.answer(task_id, child);
            let due = self.now.after(self.limits.retry_after);
            return self.wait(task_id, child, Wait::Hearing, due);
        }
        if !has_seed && self.is_needed_as_stand_in(task_id, child) {
            return self.send_to_source(task_id, child, true, SourceReason::NoSeed);
        }
        if self.is_looked_at_early(task_id, child) {
            return;
        }
        self.count_try(task_id, child);
        if self.gives_up(task_id, child) {
            return;
        }
        let peer = self.tasks.get_mut(&task_id).and_then(|task| task.peer_mut(&child));
        let Some(peer) = peer else { return };
        // Whom it does without may be the only one there is: an attempt more is better than none.
        peer.forgive();
        self.answer(task_id, child);
        let due = self.now.after(self.limits.retry_after);
        self.wait(task_id, child, Wait::Parents, due);
    }

    /// Sends a peer to the source whose attempts are used up; whether that is so. What failed it, a seed that hangs,
    /// is going to fail its neighbours: it reads for them too, and they wait for it as long again. So does it
    /// where somebody came to have everything meanwhile, as those who stood in before it do.
    pub(super) fn gives_up(&mut self, task_id: TaskId, child: HostId) -> bool {
        let peer = self.tasks.get(&task_id).and_then(|task| task.peer(&child));
        let tries = peer.map_or(0, |peer| peer.tries);
        let for_all = self.is_needed_as_stand_in(task_id, child);
        let is_early =
            tries < self.limits.tries || !for_all || self.has_whole_parent(task_id, child);
        let gives_up = tries >= 2 * self.limits.tries || !is_early;
        if gives_up {
            self.send_to_source(task_id, child, for_all, SourceReason::NoParent);
        }
        gives_up
    }

    /// Whether somebody has everything, is heard of, and may serve it.
    fn has_whole_parent(&self, task_id: TaskId, child: HostId) -> bool {
        let Some(task) = self.tasks.get(&task_id) else { return false };
        let Some(peer) = task.peer(&child) else { return false };
        let descendants = task.dag.descendants(&child);
        let swarm = Swarm { task, hosts: &self.hosts, now: self.now };
        let ask = Ask { child, peer, former: &[], descendants: &descendants };
        let is_heard_of =
            |host: &HostId| self.hosts.get(host).is_some_and(|host| host.silent_since.is_none());
        task.peers().any(|(host, other)| {
            other.held == Held::All && is_heard_of(host) && swarm.refusal(&ask, host).is_none()
        })
    }

    /// Whether it waits and something else than its own timer had it looked at: that is no attempt.
    fn is_looked_at_early(&self, task_id: TaskId, child: HostId) -> bool {
        let peer = self.tasks.get(&task_id).and_then(|task| task.peer(&child));
        peer.is_some_and(|peer| {
            matches!(peer.state(), PeerState::Waiting { due, .. } if due > self.now)
                && peer.answered
        })
    }

    pub(super) fn count_try(&mut self, task_id: TaskId, child: HostId) {
        let peer = self.tasks.get_mut(&task_id).and_then(|task| task.peer_mut(&child));
        if let Some(peer) = peer {
            peer.tries += 1;
        }
    }

    /// With no seed alive, one node per IDC reads the source for the others; two where there are none.
    pub(super) fn is_needed_as_stand_in(&self, task_id: TaskId, child: HostId) -> bool {
        let Some(task) = self.tasks.get(&task_id) else { return false };
        let Some(idc) = self.hosts.get(&child).map(|host| &host.idc) else { return false };
        if task.blacklist.contains(&child) {
            return false;
        }
        let enough = if idc.is_empty() { 2 } else { 1 };
        let standing_in = task.at_source().filter(|(host, peer)| {
            peer.state() == PeerState::Source { stand_in: true }
                && self
                    .hosts
                    .get(host)
                    .is_some_and(|host| host.silent_since.is_none() && host.idc == *idc)
        });
        standing_in.take(enough).count() < enough
    }

    pub(super) fn send_to_source(
        &mut self,
        task_id: TaskId,
        child: HostId,
        stand_in: bool,
        reason: SourceReason,
    ) {
        let Some(task) = self.tasks.get(&task_id) else { return };
        let there = task.at_source().count();
        self.answer(task_id, child);
        if !self.release_parents(task_id, child).is_empty() {
            // It would go on asking them, before the source.
            self.tell_parents(task_id, child, Vec::new());
        }
        if there >= self.limits.at_source {
            // Its turn comes; not everybody looks at the same moment.
            let jitter = self.random.random_range(1.0..2.0);
            let due = self.now.after(self.limits.retry_after.mul_f64(jitter));
            return self.wait(task_id, child, Wait::Turn, due);
        }
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let words = match &task.state {
            TaskState::Void { reason: words, .. } if reason == SourceReason::OwnCredentials => {
                words.clone()
            }
            _ => reason.text().to_owned(),
        };
        let Some(peer) = task.peer_mut(&child) else { return };
        peer.become_(PeerState::Source { stand_in });
        if stand_in {
            peer.stand_in = true;
            peer.gives_since = Some(self.now);
        }
        task.is_unsettled(child);
        self.note(task_id, child, Evidence::Source { reason, stand_in });
        let (host, task, why) = (child, task_id, reason);
        self.out.push(Decision::BackToSource { host, task, why, reason: words, stand_in });
        if stand_in {
            self.schedule_waiting(task_id);
        }
    }

    pub(super) fn refuse(
        &mut self,
        task_id: TaskId,
        child: HostId,
        kind: RefusalKind,
        reason: String,
    ) {
        self.release_parents(task_id, child);
        let task = self.tasks.get_mut(&task_id);
        if let Some(peer) = task.and_then(|task| task.peer_mut(&child)) {
            peer.become_(PeerState::Failed);
        }
        self.note(task_id, child, Evidence::Refused { kind, reason: reason.clone() });
        self.out.push(Decision::Refuse { host: child, task: task_id, kind, reason });
        self.abandon_children(task_id, child);
    }

    /// A peer that failed is nobody's parent: its children are told.
    pub(super) fn abandon_children(&mut self, task_id: TaskId, parent: HostId) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let children = task.dag.childless(&parent);
        if let Some(host) = self.hosts.get_mut(&parent) {
            children.iter().for_each(|child| host.release(child));
        }
        self.schedule_all(task_id, children);
    }

    pub(super) fn wait(&mut self, task_id: TaskId, child: HostId, wait: Wait, due: Millis) {
        let most = self.limits.tries;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(peer) = task.peer_mut(&child) else { return };
        peer.become_(PeerState::Waiting { due, wait });
        let tries = (peer.tries, most);
        task.is_unsettled(child);
        self.note(task_id, child, Evidence::Waits { wait, tries });
        self.timers.set(due, Timer::Retry(task_id, child));
    }

    pub(super) fn retry(&mut self, task_id: TaskId, child: HostId, at: Millis) {
        let peer = self.tasks.get(&task_id).and_then(|task| task.peer(&child));
        let is_due =
            |peer: &Peer| matches!(peer.state(), PeerState::Waiting { due, .. } if due == at);
        if peer.is_some_and(is_due) {
            self.queue.push_back((task_id, child));
        }
    }
}
