//! What peers say of themselves: they register, report, want more, end, leave.

use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{GroupRange, GroupSet, HostId, Priority, TaskId, TaskInfo};

use super::evidence::{self, Evidence, Taken, Wait};
use super::message::bytes_in;
use super::{
    Core, Decision, Done, Ending, Failed, FailureKind, Held, Outcome, Peer, PeerState, RefusalKind,
    Report, SizeScope, Task, Totals, Wanted,
};

/// Most hosts blacklisted per task.
const MAX_BLACKLISTED: usize = 4096;

/// The particulars of a registration.
pub struct Ask {
    /// What the host wants.
    pub wanted: Wanted,
    /// What it holds already; empty: what it has announced.
    pub held: GroupSet,
    /// How urgent that is.
    pub priority: Priority,
}

/// What a host announces of one task.
pub struct Announced {
    /// Which groups it holds.
    pub held: GroupSet,
    /// Signed digests.
    pub digests: Vec<Bytes>,
    /// Whether it was made to stand in before.
    pub stood_in: bool,
}

fn held_from(groups: GroupSet, task: &Task) -> Held {
    if task.groups().is_some_and(|all| groups.len() >= all) {
        Held::All
    } else {
        Held::Part(groups)
    }
}

/// From the first of some groups to the last.
fn span(groups: &GroupSet) -> GroupRange {
    let mut runs = groups.ranges();
    let Some(first) = runs.next() else { return GroupRange::new(0, 0) };
    let end = runs.last().unwrap_or(first).end();
    GroupRange::new(first.first, end - first.first)
}

impl Core {
    pub(super) fn announced(&mut self, host: HostId, spec: TaskInfo, announced: Announced) {
        let (id, now) = (spec.id, self.now);
        let idc = self.idc_of(&host);
        let Some(task) = self.task_for(host, spec) else { return };
        let (groups, all) = (announced.held.len(), task.groups());
        let is_known = task.peer(&host).is_some_and(|peer| !peer.is_hearsay);
        let held = held_from(announced.held.clone(), task);
        let peer = task.enter(host, &idc, || Peer::new(PeerState::Resting, Held::nothing()));
        // What it signs from now on is heard as before.
        peer.stand_in |= announced.stood_in;
        match std::mem::take(&mut peer.is_hearsay) || !is_known {
            // It was asked, and has said meanwhile what it gained since it looked.
            false => announced.held.ranges().for_each(|run| peer.gain(run, all, now)),
            true => {
                peer.holds(held, now);
                if !peer.is_active() {
                    // What it wants it will register anew; what it once wanted it may have evicted since.
                    peer.wanted = Wanted::Groups(GroupSet::new());
                    peer.in_any_order = GroupSet::new();
                }
            }
        }
        let digests = announced.digests.into_iter();
        let fresh: Vec<Bytes> = digests.filter(|batch| task.digests.add(batch.clone())).collect();
        self.note(id, host, Evidence::Announced { held: groups });
        self.publish(id, None, fresh);
        self.recalled(id, &host);
        self.schedule_waiting(id);
        self.forget_if_unused(id);
    }

    /// Its announcement may be long ago: what it holds by now it has said since.
    pub(super) fn vouched(
        &mut self,
        host: HostId,
        task_id: TaskId,
        digests: Vec<Bytes>,
        stood_in: bool,
    ) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(peer) = task.peer_mut(&host) else { return };
        peer.stand_in |= stood_in;
        let digests = digests.into_iter();
        let fresh: Vec<Bytes> = digests.filter(|batch| task.digests.add(batch.clone())).collect();
        self.publish(task_id, None, fresh);
        self.schedule_waiting(task_id);
    }

    pub(super) fn register(&mut self, host: HostId, spec: TaskInfo, ask: Ask) {
        let (id, now) = (spec.id, self.now);
        let idc = self.idc_of(&host);
        let Some(task) = self.task_for(host, spec) else {
            let known = self.hosts.contains_key(&host);
            let (kind, reason) = if known {
                (RefusalKind::Busy, "the host or the task is beyond what a scheduler keeps")
            } else {
                (RefusalKind::NotPermitted, "the host has not announced itself")
            };
            return self.out.push(Decision::Refuse { host, task: id, kind, reason: reason.into() });
        };
        let is_closed = !ask.held.is_empty()
            && matches!(&ask.wanted, Wanted::Groups(wanted) if ask.held.contains_set(wanted));
        let held = (!ask.held.is_empty()).then(|| held_from(ask.held, task));
        // It may have forgotten its leases, and whom it was told of.
        task.begin_anew(&host, now);
        self.is_delegated_no_more(id, host);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let groups = task.groups().unwrap_or_default();
        let peer = task.enter(host, &idc, || Peer::new(PeerState::Resting, Held::nothing()));
        if peer.state() == PeerState::Seeding {
            let reason = "a seed that takes part by order needs no registration".to_owned();
            let kind = RefusalKind::NotPermitted;
            return self.out.push(Decision::Refuse { host, task: id, kind, reason });
        }
        peer.registered = true;
        peer.delegate = None;
        peer.owes_result = true;
        peer.answered = false;
        peer.is_closed = is_closed;
        if let Some(held) = held {
            peer.holds(held, now);
        }
        peer.serves_only_itself = false;
        peer.wanted = ask.wanted;
        peer.in_any_order = GroupSet::new();
        peer.reads_next = GroupRange::new(0, 0);
        peer.priority = ask.priority;
        peer.tries = 0;
        peer.blocked.clear();
        let held = peer.held.count(groups);
        self.note(id, host, Evidence::Registered { held });
        match is_closed {
            true => drop(self.shelf.take(&id, &host)),
            false => self.recall_for(id, host),
        }
        self.start(id, host);
        self.forget_if_unused(id);
    }

    /// Puts a registered peer to work, or to rest when it wants nothing.
    fn start(&mut self, task_id: TaskId, host: HostId) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let groups = task.groups();
        let Some(peer) = task.peer_mut(&host) else { return };
        let is_hungry = peer.is_hungry(groups);
        peer.become_(if is_hungry {
            PeerState::Waiting { due: self.now, wait: Wait::Parents }
        } else {
            PeerState::Resting
        });
        let wants_nothing = matches!(&peer.wanted, Wanted::Groups(groups) if groups.is_empty());
        if wants_nothing {
            // It only says what it holds: digests would be of no use to it.
            peer.answered = true;
        }
        task.is_unsettled(host);
        self.release_parents(task_id, host);
        if is_hungry {
            return self.schedule_all(task_id, vec![host]);
        }
        self.answer(task_id, host);
    }

    /// Answers a registration, once.
    pub(super) fn answer(&mut self, task_id: TaskId, host: HostId) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let scope = match task.scope() {
            SizeScope::Tiny => SizeScope::Small,
            scope => scope,
        };
        if task.peer(&host).is_none_or(|peer| peer.answered) {
            return;
        }
        let (spec, version) = (task.spec.clone(), task.version);
        let digests = task.digests.snapshot();
        let Some(peer) = task.peer_mut(&host) else { return };
        peer.answered = true;
        let content = None;
        self.out.push(Decision::SendRegistered {
            host,
            task: spec,
            scope,
            content,
            digests,
            version,
        });
        self.name_reserves_to(task_id, host);
    }

    pub(super) fn answer_unless_tiny(&mut self, task_id: TaskId, host: HostId) {
        if self.tasks.get(&task_id).is_some_and(|task| task.scope() != SizeScope::Tiny) {
            self.answer(task_id, host);
        }
    }

    /// Answers with the whole content, where it is tiny and known; whether it did.
    pub(super) fn answer_with_content(&mut self, task_id: TaskId, host: HostId) -> bool {
        let Some(task) = self.tasks.get_mut(&task_id) else { return false };
        if task.scope() != SizeScope::Tiny || !task.tiny_is_ready() {
            return false;
        }
        let (spec, version, content) = (task.spec.clone(), task.version, task.tiny.clone());
        let digests = task.digests.snapshot();
        let Some(peer) = task.peer_mut(&host).filter(|peer| !peer.answered) else { return false };
        peer.answered = true;
        peer.become_(PeerState::Resting);
        let scope = SizeScope::Tiny;
        self.out.push(Decision::SendRegistered {
            host,
            task: spec,
            scope,
            content,
            digests,
            version,
        });
        self.release_parents(task_id, host);
        true
    }

    pub(super) fn progress(&mut self, id: HostId, task_id: TaskId, report: &Report) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&id) else { return };
        host.reported_uploads = report.uploads;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let groups = task.groups();
        let Some(peer) = task.peer_mut(&id) else { return };
        let has_readers = peer.registered;
        if !report.lost.is_empty() {
            peer.lose(&report.lost, groups, now);
        }
        // Of whom it was never given nothing that it says is judged.
        let met = |parent: &HostId| peer.met.contains(parent);
        let failed: Vec<Failed> =
            report.failed.iter().filter(|failed| met(&failed.parent)).copied().collect();
        let giver = |parent: HostId| if met(&parent) { parent } else { id };
        let done: Vec<Done> = report
            .done
            .iter()
            .map(|done| Done { parent: done.parent.map(giver), ..*done })
            .collect();
        if has_readers {
            self.keep_blocked(task_id, &report.blocked_us);
        }
        let strays = self.strays(id, task_id, &report.leases);
        self.count_failures(id, task_id, &failed);
        let lost_a_parent = self.note_failures(id, task_id, &failed);
        self.note_done(id, task_id, &done);
        self.note_done(id, task_id, &strays);
        let leased = self.leases_ended(id, task_id, &report.leases);
        let lost_a_partner = self.note_failures(id, task_id, &leased.failed);
        self.note_done(id, task_id, &leased.done);
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(peer) = task.peer_mut(&id) else { return };
        if [&done, &strays, &leased.done].iter().any(|came| !came.is_empty()) {
            peer.tries = 0;
        }
        if peer.is_active() && peer.registered && !peer.is_hungry(groups) {
            return self.rest(task_id, id);
        }
        if lost_a_parent || lost_a_partner {
            self.schedule_all(task_id, vec![id]);
        }
    }

    /// Notes what arrived, for the child, its parents and the seed's bitmap. What it gave itself is to nobody's credit.
    fn note_done(&mut self, id: HostId, task_id: TaskId, done: &[Done]) {
        if done.is_empty() {
            return;
        }
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let groups = task.groups();
        let limit = groups.unwrap_or(super::MAX_GROUPS);
        let seed = task.state.seed();
        if seed.is_some() && done.iter().any(|run| run.parent == seed) {
            task.seed_mute_since = None;
        }
        let here = self.hosts.get(&id).map(|host| Arc::clone(&host.idc));
        let (mut taken, mut crossed, mut from_source) = (0u64, 0u64, 0u64);
        let length = task.spec.length;
        let Some(peer) = task.peer_mut(&id) else { return };
        for run in done.iter().filter(|run| run.groups.end() <= limit) {
            peer.gain(run.groups, groups, now);
            let bytes = bytes_in(run.groups, length);
            match run.parent {
                Some(parent) if parent != id => {
                    peer.costs.add(run.cost_ms, run.groups.count);
                    peer.tally.came(parent, bytes, now);
                    taken += bytes;
                    if let Some(host) = self.hosts.get_mut(&parent) {
                        host.uploads_done += 1;
                        let is_far = here.as_ref().is_some_and(|here| host.is_in_another_idc(here));
                        let far = if is_far { bytes } else { 0 };
                        peer.crossed = peer.crossed.saturating_add(far);
                        crossed += far;
                    }
                }
                Some(_) => {}
                // What an ordinary node read from the source serves only itself.
                None => {
                    peer.serves_only_itself |= !peer.stand_in;
                    peer.tally.came_from_source(bytes, now);
                    from_source += bytes;
                }
            }
        }
        self.count_moved(task_id, Totals { source: from_source, taken, crossed });
    }

    /// Counts what did not come from parents; of leases that is counted where they end.
    fn count_failures(&mut self, id: HostId, task_id: TaskId, failed: &[Failed]) {
        if failed.is_empty() {
            return;
        }
        let task = self.tasks.get_mut(&task_id);
        let Some(peer) = task.and_then(|task| task.peer_mut(&id)) else { return };
        for failure in failed {
            peer.tally.ended(failure.parent, Ending::Failed(failure.kind));
        }
    }

    /// Notes what did not arrive from whom it was given or leased; whether the child must do without a parent it has.
    fn note_failures(&mut self, id: HostId, task_id: TaskId, failed: &[Failed]) -> bool {
        if failed.is_empty() {
            return false;
        }
        let now = self.now;
        let block_until = now.after(self.limits.block);
        let (mut liars, mut mute) = (Vec::new(), Vec::new());
        let mut lost = false;
        let Some(task) = self.tasks.get_mut(&task_id) else { return false };
        let parents = task.dag.parents(&id).to_vec();
        let Some(peer) = task.peer_mut(&id) else { return false };
        for failure in failed {
            let kind = failure.kind;
            let passes =
                matches!(kind, FailureKind::NotHeld | FailureKind::Busy | FailureKind::Origin);
            let what = Evidence::Failed { parent: failure.parent, kind, blocked: !passes };
            self.log.note(task_id, id, what, now);
            let until = match kind {
                FailureKind::BadDigest => {
                    liars.push(failure.parent);
                    Peer::FOR_EVER
                }
                FailureKind::Timeout | FailureKind::Disconnected => {
                    mute.push(failure.parent);
                    block_until
                }
                FailureKind::Unvouched | FailureKind::Other => block_until,
                FailureKind::NotHeld | FailureKind::Busy | FailureKind::Origin => continue,
            };
            peer.block(failure.parent, now, until);
            lost |= parents.contains(&failure.parent);
            if let Some(host) = self.hosts.get_mut(&failure.parent) {
                host.uploads_failed += 1;
            }
        }
        for liar in liars {
            self.blacklist(task_id, liar, id);
        }
        self.parents_are_mute(task_id, &mute);
        lost
    }

    fn blacklist(&mut self, task_id: TaskId, liar: HostId, by: HostId) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        if task.blacklist.len() >= MAX_BLACKLISTED || !task.blacklist.insert(liar) {
            return;
        }
        task.has_changed(liar);
        self.note(task_id, liar, Evidence::Blacklisted { by });
        self.out.push(Decision::Blacklisted { host: liar, task: task_id });
        self.liar_leads_no_more(task_id, liar);
        self.reserve_lies(task_id, &liar);
        self.abandon_children(task_id, liar);
    }

    /// A peer has what it wanted: it gives its parents free.
    fn rest(&mut self, task_id: TaskId, host: HostId) {
        let task = self.tasks.get_mut(&task_id);
        let Some(peer) = task.and_then(|task| task.peer_mut(&host)) else { return };
        peer.become_(PeerState::Resting);
        self.release_parents(task_id, host);
        self.schedule_waiting(task_id);
    }

    pub(super) fn want(
        &mut self,
        host: HostId,
        task_id: TaskId,
        groups: GroupSet,
        priority: Priority,
    ) {
        let task = self.tasks.get_mut(&task_id);
        let Some(task) = task.filter(|task| task.peer(&host).is_some_and(|p| p.registered)) else {
            return self.refuse_stranger(host, task_id);
        };
        if task.peer(&host).is_some_and(|peer| peer.delegate.is_some()) {
            // It has not heard of it yet, or has gone there and wants nothing here.
            if groups.is_empty() {
                self.went(task_id, host);
            }
            return;
        }
        let all = task.groups();
        let parents = task.dag.parents(&host).to_vec();
        if priority >= Priority::Bulk {
            self.wants_in_any_order(task_id, host, groups.clone());
        }
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(peer) = task.peer_mut(&host) else { return };
        match priority {
            // What it wants in any order it wants all the same.
            Priority::ReadAhead => peer.reads_next = span(&groups),
            _ => peer.priority = priority,
        }
        if let Wanted::Groups(wanted) = &mut peer.wanted {
            groups.ranges().for_each(|range: GroupRange| wanted.insert_range(range));
        }
        if !peer.is_hungry(all) {
            return;
        }
        self.may_need_reserves(task_id, host);
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(peer) = task.peer_mut(&host) else { return };
        match peer.state() {
            PeerState::Resting | PeerState::Failed => {
                peer.tries = 0;
                peer.become_(PeerState::Waiting { due: self.now, wait: Wait::Parents });
                task.is_unsettled(host);
                self.schedule_all(task_id, vec![host]);
            }

            PeerState::Fetching => {
                let covered = task.peer(&host).is_some_and(|peer| task.covers(&parents, peer));
                if !covered {
                    self.schedule_all(task_id, vec![host]);
                }
            }
            PeerState::Waiting { .. } | PeerState::Source { .. } | PeerState::Seeding => {}
        }
        if priority >= Priority::Bulk {
            self.goes_to_delegate(task_id, host);
        }
    }

    fn refuse_stranger(&mut self, host: HostId, task: TaskId) {
        let (kind, reason) = (RefusalKind::Busy, "the host has not registered".to_owned());
        self.out.push(Decision::Refuse { host, task, kind, reason });
    }

    /// Tells who asked for parents what it has, where nothing of what was decided tells it: whoever is not answered
    /// takes the scheduler to be gone.
    pub(super) fn answer_at_all(&mut self, host: HostId, task_id: TaskId) {
        let is_answer = |decision: &Decision| match decision {
            Decision::SendParents { host: to, task, .. }
            | Decision::BackToSource { host: to, task, .. }
            | Decision::Refuse { host: to, task, .. } => (*to, *task) == (host, task_id),
            _ => false,
        };
        if self.out.iter().any(is_answer) {
            return;
        }
        let parents = self.tasks.get(&task_id).map(|task| task.dag.parents(&host));
        let known = parents.into_iter().flatten().filter_map(|parent| self.hosts.get(parent));
        let parents = known.map(|host| Arc::clone(&host.info)).collect();
        self.tell_parents(task_id, host, parents);
    }

    pub(super) fn reschedule(&mut self, host: HostId, task_id: TaskId, bad: &[HostId]) {
        let until = self.now.after(self.limits.block);
        let counts = !self.is_hearing();
        let task = self.tasks.get(&task_id);
        if !task.and_then(|task| task.peer(&host)).is_some_and(|peer| peer.registered) {
            return self.refuse_stranger(host, task_id);
        }
        if task.and_then(|task| task.peer(&host)).is_some_and(|peer| peer.delegate.is_some()) {
            return;
        }
        let named = bad.iter().take(evidence::MAX_NAMED).copied().collect();
        self.log.note(task_id, host, Evidence::Rescheduled { bad: named }, self.now);
        if task.is_some_and(|task| task.state.obtain().is_some()) {
            self.parents_are_mute(task_id, bad);
        }
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let (now, groups) = (self.now, task.groups());
        let seed_is_through = matches!(task.state, super::TaskState::Seeded { obtain: None, .. });
        let silent_seed = task.state.seed().filter(|seed| seed_is_through && bad.contains(seed));
        let Some(peer) = task.peer_mut(&host).filter(|peer| peer.registered) else { return };
        for parent in bad.iter().filter(|parent| Some(**parent) != silent_seed) {
            peer.block(*parent, now, until);
        }
        match peer.state() {
            // One that names culprits has others tried first; one that does not is out of hope.
            PeerState::Fetching => peer.tries += u32::from(counts && bad.is_empty()),
            // It is known that nobody serves it: asking again is no attempt more.
            PeerState::Waiting { .. } => {}
            PeerState::Resting if peer.is_hungry(groups) => {
                // It could not use the content that came with its answer.
                peer.become_(PeerState::Waiting { due: now, wait: Wait::Parents });
                task.is_unsettled(host);
            }
            _ => return,
        }
        if let Some(seed) = silent_seed {
            // It has said all it had to say and still does not serve: it is ordered anew.
            self.remove_peer(task_id, seed);
        }
        if !self.gives_up(task_id, host) {
            self.schedule_all(task_id, vec![host]);
        }
    }

    pub(super) fn stand_in_digests(&mut self, host: HostId, task_id: TaskId, batch: Bytes) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let signs = task.peer(&host).is_some_and(|peer| peer.stand_in);
        if signs && task.digests.add(batch.clone()) {
            self.publish(task_id, None, vec![batch]);
        }
    }

    /// Sends what is new about a task to everybody in it who may need it.
    pub(super) fn publish(&mut self, task_id: TaskId, length: Option<u64>, digests: Vec<Bytes>) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        if length.is_none() && digests.is_empty() {
            return;
        }
        task.version += 1;
        let version = task.version;
        let hosts = task.hosts_where(|peer| {
            peer.answered && peer.state() != PeerState::Failed && peer.held != Held::All
        });
        if !hosts.is_empty() {
            self.out.push(Decision::SendUpdate { hosts, task: task_id, version, length, digests });
        }
    }

    pub(super) fn peer_result(
        &mut self,
        host: HostId,
        task_id: TaskId,
        outcome: Outcome,
        taken: Taken,
    ) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let length_known = task.groups().is_some();
        let Some(peer) = task.peer_mut(&host).filter(|peer| peer.registered) else { return };
        if peer.state() == PeerState::Seeding {
            return;
        }
        if peer.delegate.take().is_some() {
            self.is_delegated_no_more(task_id, host);
        }
        let success = outcome == Outcome::Success;
        self.log.note(task_id, host, Evidence::Ended { success, taken }, now);
        self.keep_result(task_id, host, (outcome, taken), now);
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(peer) = task.peer_mut(&host) else { return };
        match outcome {
            Outcome::Success => {
                if peer.wanted == Wanted::All && length_known {
                    peer.holds(Held::All, now);
                }
                peer.wanted = Wanted::Groups(GroupSet::new());
                if peer.is_active() {
                    self.rest(task_id, host);
                }
            }
            Outcome::Failure => {
                peer.become_(PeerState::Failed);
                self.release_parents(task_id, host);
                self.abandon_children(task_id, host);
                self.schedule_waiting(task_id);
            }
        }
    }

    pub(super) fn leave(&mut self, host: HostId, task_id: TaskId) {
        self.recalled(task_id, &host);
        let is_seeding = |peer: &Peer| peer.state() == PeerState::Seeding;
        let peer = self.tasks.get(&task_id).and_then(|task| task.peer(&host));
        if peer.is_some_and(|peer| !is_seeding(peer)) {
            self.remove_peer(task_id, host);
            self.schedule_waiting(task_id);
        }
    }
}
