//! Ordering seeds to take part, and what they answer.

use bytes::Bytes;
use dfs_model::{GroupSet, HostId, RouteKey, TaskId, order_areas, rank};

use super::evidence::Evidence;
use super::{
    Core, Decision, Held, Host, Millis, Peer, PeerState, RefusalKind, SeedEvent, TINY_BYTES,
    TaskState, Timer, Totals, Wanted,
};

impl Core {
    /// Orders a seed to take part where none does; whether an answer is being waited for.
    pub(super) fn order_seed(&mut self, task_id: TaskId, asker: HostId) -> bool {
        if self.recalls(task_id, asker) {
            return true;
        }
        let Some(task) = self.tasks.get(&task_id) else { return false };
        match &task.state {
            TaskState::Asked { .. } => return true,
            TaskState::Seeded { .. } => return false,
            TaskState::Void { until, .. } if *until > self.now => return false,
            TaskState::Void { .. } | TaskState::Open => {}
        }
        let Some(seed) = self.seed_for(task_id, asker) else { return false };
        let deadline = self.now.after(self.limits.seed_answer);
        let obtain = self.next_obtain();
        let Some(task) = self.tasks.get_mut(&task_id) else { return false };
        task.state = TaskState::Asked { seed, obtain, deadline };
        task.seed_mute_since = None;
        let wanted = task.wanted_in_any_order();
        task.orders(wanted, self.now);
        task.ordered_at = task.ordered_at.filter(|_| !task.ordered.is_empty());
        let wanted = match task.ordered.is_empty() {
            true => task.peer(&asker).map_or(Wanted::All, |peer| peer.wanted.clone()),
            false => Wanted::Groups(task.ordered.clone()),
        };
        (task.proven, task.unjudged) = (GroupSet::new(), false);
        let (task, proven) = (task.spec.clone(), GroupSet::new());
        self.timers.set(deadline, Timer::Obtain(task_id));
        self.note(task_id, seed, Evidence::Ordered { asker: Some(asker) });
        self.out.push(Decision::ObtainFromSeed { seed, task, wanted, proven, obtain });
        true
    }

    /// The first by rendezvous rank of the seeds in the asker's area, else of the area that is nearest to the origin.
    fn seed_for(&self, task_id: TaskId, asker: HostId) -> Option<HostId> {
        let task = self.tasks.get(&task_id)?;
        let usable = |id: &HostId| {
            let paused = task.failed_seeds.get(id).is_some_and(|until| *until > self.now);
            !paused && !task.blacklist.contains(id)
        };
        let area = &self.hosts.get(&asker)?.info.location.area;
        let seeds = self
            .hosts
            .iter()
            .filter(|(id, host)| host.is_seed() && host.silent_since.is_none() && usable(id));
        let (mut near, far): (Vec<_>, Vec<_>) =
            seeds.partition(|(_, host)| host.info.location.area == *area);
        if near.is_empty() {
            let areas = far.iter().map(|(_, host)| host.info.location.area.as_str());
            let order = order_areas(&task.spec.key.url, &self.nearest, areas);
            let nearest = order.first().copied();
            let is_there = |host: &Host| nearest == Some(&host.info.location.area);
            near.extend(far.into_iter().filter(|(_, host)| is_there(host)));
        }
        let key = RouteKey::of(&task.spec.key.domain, &task.spec.key.url);
        rank(&key, near.into_iter().map(|(id, _)| id)).first().copied()
    }

    /// Ends the order under way, if any: nobody waits for it.
    pub(super) fn drop_order(&mut self, task_id: TaskId) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        if let Some(obtain) = task.state.obtain() {
            self.out.push(Decision::EndObtain { obtain });
        }
        if task.state.seed().is_some() {
            task.state = TaskState::Open;
        }
    }

    pub(super) fn seed_is_late(&mut self, task_id: TaskId, at: Millis) {
        let Some(task) = self.tasks.get(&task_id) else { return };
        if let TaskState::Asked { seed, deadline, .. } = task.state
            && deadline == at
        {
            let reason = "the seed did not answer in time".to_owned();
            self.seed_failed(task_id, seed, RefusalKind::OriginFailed, reason);
        }
    }

    pub(super) fn seed_event(
        &mut self,
        seed: HostId,
        task_id: TaskId,
        obtain: u64,
        event: SeedEvent,
    ) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        if task.state.obtain() != Some(obtain) || !self.hosts.contains_key(&seed) {
            return;
        }
        task.seed_mute_since = None;
        match event {
            SeedEvent::Obtaining { length, held, tiny } => {
                self.seed_takes_part(task_id, seed, held);
                self.learn_length(task_id, length);
                self.learn_content(task_id, tiny);
                self.schedule_waiting(task_id);
            }
            SeedEvent::Digests(batch) => {
                if task.digests.add(batch.clone()) {
                    self.publish(task_id, None, vec![batch]);
                    self.answer_tiny(task_id);
                }
            }
            SeedEvent::Unjudged => task.unjudged = true,
            SeedEvent::Verified { groups, length, giver } => {
                if !task.unjudged {
                    // Their digests came before.
                    task.proven.insert_all(&groups);
                }
                self.seed_gains(task_id, seed, &groups, (giver, length));
                self.learn_length(task_id, length);
            }
            SeedEvent::Failed { kind, reason } => self.seed_failed(task_id, seed, kind, reason),
            SeedEvent::Ended if matches!(task.state, TaskState::Asked { .. }) => {
                let reason = "the seed ended without a word".to_owned();
                self.seed_failed(task_id, seed, RefusalKind::OriginFailed, reason);
            }
            SeedEvent::Ended => {
                task.state = TaskState::Seeded { seed, obtain: None };
                self.schedule_waiting(task_id);
            }
        }
    }

    /// A seed has come to hold these, of another one or of the source, as long as it says that the content is.
    fn seed_gains(
        &mut self,
        task_id: TaskId,
        seed: HostId,
        groups: &GroupSet,
        (giver, length): (Option<HostId>, Option<u64>),
    ) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let (all, length) = (task.groups(), length.or(task.spec.length));
        let Some(peer) = task.peer_mut(&seed) else { return };
        let came = peer.held.lacking(groups, length);
        groups.ranges().for_each(|range| peer.gain(range, all, now));
        match giver {
            Some(giver) => {
                peer.tally.came(giver, came, now);
                let moved = Totals { taken: came, crossed: came, ..Totals::default() };
                self.count_moved(task_id, moved);
            }
            None => {
                peer.tally.came_from_source(came, now);
                self.count_read_by_seed(task_id, came);
            }
        }
    }

    /// A child has no answer from these parents. A seed of which children say so again and again, and of which
    /// nobody hears anything meanwhile, hangs: it counts as not alive, and others are found for all.
    pub(super) fn parents_are_mute(&mut self, task_id: TaskId, parents: &[HostId]) {
        let (now, silence) = (self.now, self.limits.seed_silence);
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let TaskState::Seeded { seed, .. } = task.state else { return };
        if !parents.contains(&seed) {
            return;
        }
        let since = *task.seed_mute_since.get_or_insert(now);
        if since.after(silence) <= now {
            let reason = "its children hear nothing of the seed".to_owned();
            self.seed_failed(task_id, seed, RefusalKind::OriginFailed, reason);
        }
    }

    fn seed_takes_part(&mut self, task_id: TaskId, seed: HostId, held: GroupSet) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(obtain) = task.state.obtain() else { return };
        if task.peer(&seed).is_some_and(|peer| peer.state() != PeerState::Seeding) {
            // It announced what it holds as any host does; from now on it serves by order.
            self.replace_peer(task_id, seed);
        }
        let idc = self.idc_of(&seed);
        self.shelf.take(&task_id, &seed);
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        task.state = TaskState::Seeded { seed, obtain: Some(obtain) };
        let takes_part = task.peer(&seed).is_some();
        let peer = task.enter(seed, &idc, || Peer::new(PeerState::Seeding, Held::nothing()));
        let groups = held.len();
        // Of one that took part already: what it has more it says next, by who gave it.
        let mut known = held.clone();
        if let Held::Part(before) = &peer.held
            && takes_part
        {
            let mut news = held;
            news.remove_all(before);
            known.remove_all(&news);
        }
        peer.holds(Held::Part(known), self.now);
        self.note(task_id, seed, Evidence::Obtains { held: groups });
        if let Some(host) = self.hosts.get_mut(&seed) {
            host.tasks.insert(task_id);
        }
    }

    /// Takes an ordinary part away so that another kind can be entered; edges go with it.
    fn replace_peer(&mut self, task_id: TaskId, id: HostId) {
        self.release_parents(task_id, id);
        self.abandon_children(task_id, id);
        if let Some(task) = self.tasks.get_mut(&task_id) {
            task.exit(&id, self.now);
        }
    }

    /// The seed's word on the length is the one that counts.
    fn learn_length(&mut self, task_id: TaskId, length: Option<u64>) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(length) = length.filter(|length| task.spec.length != Some(*length)) else {
            return;
        };
        if dfs_model::groups_in(length) > super::MAX_GROUPS {
            return;
        }
        task.spec.length = Some(length);
        // Leases are of pieces of so many groups as there were.
        task.lead_no_more();
        self.publish(task_id, Some(length), Vec::new());
        self.begin_to_lead(task_id);
    }

    fn learn_content(&mut self, task_id: TaskId, tiny: Option<Bytes>) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        task.tiny = tiny.filter(|content| {
            content.len() as u64 <= TINY_BYTES && task.spec.length == Some(content.len() as u64)
        });
    }

    fn answer_tiny(&mut self, task_id: TaskId) {
        if self.tasks.get(&task_id).is_some_and(|task| task.tiny_is_ready()) {
            self.schedule_waiting(task_id);
        }
    }

    /// A seed cannot: the next one is asked, or nobody where the origin itself said no.
    fn seed_failed(&mut self, task_id: TaskId, seed: HostId, kind: RefusalKind, reason: String) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        task.failed_seeds.retain(|_, until| *until > self.now);
        task.failed_seeds.insert(seed, self.now.after(self.limits.seed_pause));
        let what = Evidence::SeedFailed { kind, reason: reason.clone() };
        self.log.note(task_id, seed, what, self.now);
        self.drop_order(task_id);
        if kind.is_final()
            && let Some(task) = self.tasks.get_mut(&task_id)
        {
            let until = self.now.after(self.limits.refusal);
            task.state = TaskState::Void { kind, reason, until };
        }
        let Some(task) = self.tasks.get(&task_id) else { return };
        let unserved = task.hosts_where(|peer| match peer.state() {
            PeerState::Waiting { .. } => true,
            PeerState::Fetching => kind.is_final(),
            _ => false,
        });
        for host in &unserved {
            // So that seeds which fail in turn do not keep anybody waiting for ever.
            self.count_try(task_id, *host);
        }
        self.schedule_all(task_id, unserved);
        self.remove_peer(task_id, seed);
        self.forget_if_unused(task_id);
    }
}
