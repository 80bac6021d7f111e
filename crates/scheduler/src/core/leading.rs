//! Leases: what peers want in any order is brought to them by whoever's uplink is free, as the matcher says.
//!
//! A task is led from the first word of a peer on what it wants in any order. The matcher is told what changes about
//! the peers of a task once an event is over; what comes of it goes out as one decision for each child. Parents are
//! given as in a task that is not led: for reads that cannot wait, and for children that hear nothing any more.

use std::sync::Arc;
use std::time::Duration;

use dfs_model::{GroupRange, GroupSet, HostId, TaskId, TaskKey};

use super::evidence::{Evidence, SourceReason};
use super::lead::{HEARD_EVERY, Lead, Letter, Part, Places, micros};
use super::{
    Core, Decision, Done, Failed, FailureKind, Held, LeaseEnd, LeaseFailure, Millis, Peer,
    PeerState, Task, TaskState, Timer, Wanted,
};
use crate::matcher::{self, LeaseId, Micros, Role};

/// How often a seed is ordered more of a task: each order ends the one before.
pub(super) const ORDERED_EVERY: Duration = Duration::from_millis(50);

/// Orders that come due in so long may follow each other at once: who begins to read from front to back wants a little
/// more again and again.
pub(super) const ORDERED_AHEAD: Duration = Duration::from_millis(400);

/// So long nothing may come of any lease, some of which have come to nothing, until a seed is asked for what others say
/// that they have.
const STANDSTILL: Duration = Duration::from_secs(2);

/// So long after nobody wants anything any more what was known of who has what is let go of.
const LED_FOR: Duration = Duration::from_secs(60);

/// What came of leases.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) done: Vec<Done>,
    /// Parents that were leased, and did not give.
    pub(super) failed: Vec<Failed>,
    /// Bytes a second that uplinks have turned out to send.
    rates: Vec<(HostId, u64)>,
}

impl From<LeaseFailure> for matcher::Failure {
    fn from(failure: LeaseFailure) -> Self {
        match failure {
            LeaseFailure::Held => Self::Held,
            LeaseFailure::Unwanted => Self::Unwanted,
            LeaseFailure::Parent(FailureKind::NotHeld | FailureKind::Unvouched) => Self::NotThere,
            LeaseFailure::Parent(
                FailureKind::Timeout | FailureKind::Disconnected | FailureKind::BadDigest,
            ) => Self::Apart,
            LeaseFailure::Parent(FailureKind::Busy | FailureKind::Origin | FailureKind::Other) => {
                Self::Other
            }
        }
    }
}

impl Core {
    /// Whether what peers want of a task in any order comes to them by leases.
    pub(super) fn is_led(&self, task: &TaskId) -> bool {
        let may_be = |task: &Task| {
            task.spec.length.is_some_and(|length| length >= self.limits.led_from)
                // What is private a seed fetches for those who ask it with their own credentials.
                && task.spec.key.domain == TaskKey::PUBLIC
        };
        let is_leased = |task: &Task| self.arms.of(task.arm).strategy.leases().is_some();
        self.tasks.get(task).is_some_and(|task| is_leased(task) && may_be(task))
    }

    /// A peer has said what it wants in any order.
    pub(super) fn wants_in_any_order(
        &mut self,
        task_id: TaskId,
        host: HostId,
        mut groups: GroupSet,
    ) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        groups.truncate(task.groups().unwrap_or(super::MAX_GROUPS));
        task.wants_in_any_order(&host, groups);
        self.begin_to_lead(task_id);
    }

    /// Leads a task of which somebody wants something in any order, once it is known how long it is.
    pub(super) fn begin_to_lead(&mut self, task_id: TaskId) {
        if !self.is_led(&task_id) {
            return;
        }
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let tuning = self.arms.of(task.arm).strategy.leases().unwrap_or_default();
        let Some(groups) = task.groups() else { return };
        if task.lead.is_none() {
            if task.peers().all(|(_, peer)| peer.in_any_order.is_empty()) {
                return;
            }
            let seed = rand::RngExt::random(&mut self.random);
            task.lead = Some(Lead::new(groups, tuning, seed));
            task.everybody_changed();
        }
        self.order_in_any_order(task_id);
    }

    /// Has the seed fetch what peers want in any order, before anybody is leased it.
    pub(super) fn order_in_any_order(&mut self, task_id: TaskId) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(wanted) = task.unordered() else { return };
        let rested = now.before(ORDERED_AHEAD);
        let due = task.ordered_at.map_or(rested, |at| at.after(ORDERED_EVERY)).max(rested);
        if due > now {
            return self.timers.set(due, Timer::Order(task_id));
        }
        task.orders(wanted, due);
        let Some(seed) = task.state.seed() else { return };
        let has_all = |peer: &Peer| match &peer.held {
            Held::All => true,
            Held::Part(held) => held.contains_set(&task.ordered),
        };
        if task.peer(&seed).is_some_and(has_all) {
            return;
        }
        let (spec, wanted) = (task.spec.clone(), Wanted::Groups(task.ordered.clone()));
        let obtain = self.next_obtain();
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let proven = task.proven.clone();
        task.unjudged = false;
        let former = match &mut task.state {
            TaskState::Asked { obtain: number, .. } => Some(std::mem::replace(number, obtain)),
            TaskState::Seeded { obtain: number, .. } => number.replace(obtain),
            TaskState::Open | TaskState::Void { .. } => return,
        };
        let ended = former.map(|obtain| Decision::EndObtain { obtain });
        self.out.extend(ended);
        self.note(task_id, seed, Evidence::Ordered { asker: None });
        self.out.push(Decision::ObtainFromSeed { seed, task: spec, wanted, proven, obtain });
    }

    /// Tells the matchers what has changed about peers, and the peers what comes of it.
    pub(super) fn lead_touched(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for task in touched {
            self.lead(task);
        }
    }

    fn lead(&mut self, task_id: TaskId) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(mut lead) = task.lead.take() else { return };
        for host in task.take_changed() {
            let part =
                self.tasks.get(&task_id).and_then(|task| self.part(task, &host, &mut lead.places));
            let task = self.tasks.get_mut(&task_id);
            if let Some(peer) = task.and_then(|task| task.peer_untouched(&host)) {
                lead.tell(host, peer, part, self.now);
            }
        }
        self.parted.extend(lead.take_parted());
        let letters = lead.letters();
        for ((child, giver), leases) in std::mem::take(&mut lead.let_down) {
            self.note(task_id, child, Evidence::LetDown { giver, leases });
        }
        self.look_again(task_id, &mut lead);
        if let Some(task) = self.tasks.get_mut(&task_id) {
            task.lead = Some(lead);
        }
        for (child, letter) in letters {
            self.send_letter(task_id, child, letter);
        }
    }

    /// What the matcher is to know of a peer; none while it neither gives nor takes.
    fn part(&self, task: &Task, id: &HostId, places: &mut Places) -> Option<Part> {
        let peer = task.peer(id)?;
        let host = self.hosts.get(id).filter(|host| host.silent_since.is_none())?;
        let gives = !peer.serves_only_itself
            && peer.state() != PeerState::Failed
            && !task.blacklist.contains(id);
        let takes = peer.registered
            && matches!(peer.state(), PeerState::Waiting { .. } | PeerState::Fetching);
        let takes = takes && !peer.in_any_order.is_empty();
        if !gives && !takes {
            return None;
        }
        let role = match (peer.state(), gives) {
            (_, false) => Role::Taker,
            (PeerState::Seeding, true) => Role::Source,
            (_, true) => Role::Node,
        };
        // Who is through reads nothing next.
        let reads_next = if takes { peer.reads_next } else { GroupRange::new(0, 0) };
        let (place, slots, rate) = (places.of(host), host.limit, host.rate(self.now));
        Some(Part { role, place, slots, rate, takes, reads_next })
    }

    /// Sets the timer that the matcher asks for; one far ahead once nobody wants anything.
    fn look_again(&mut self, task_id: TaskId, lead: &mut Lead) {
        let due = match lead.matcher.next_tick() {
            Some(Micros(at)) => Millis(at.div_ceil(1000)),
            None => self.now.after(LED_FOR),
        };
        if lead.due.is_none_or(|set| set > due) {
            lead.due = Some(due);
            self.timers.set(due, Timer::Lead(task_id));
        }
    }

    fn send_letter(&mut self, task_id: TaskId, child: HostId, letter: Letter) {
        let now = self.now;
        let task = self.tasks.get_mut(&task_id);
        let peer = task.and_then(|task| task.peer_untouched(&child));
        let Some(peer) = peer else { return };
        let Some(led) = peer.led.as_mut() else { return };
        peer.tally.withdrawn(letter.withdrawn.len());
        led.heard = now;
        let mut partners = Vec::new();
        for lease in &letter.leases {
            peer.tally.leased(lease.parent);
            let Some(host) = self.hosts.get(&lease.parent) else { continue };
            if led.meet(lease.parent, host.address) {
                partners.push(Arc::clone(&host.info));
            }
        }
        let Letter { leases, withdrawn } = letter;
        let (host, task) = (child, task_id);
        self.out.push(Decision::SendLeases { host, task, leases, withdrawn, partners });
    }

    /// Time has passed for the leases of a task.
    pub(super) fn lead_on(&mut self, task_id: TaskId, at: Millis) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(lead) = task.lead.as_mut().filter(|lead| lead.due == Some(at)) else { return };
        lead.due = None;
        if lead.matcher.next_tick().is_none() {
            return task.lead_no_more();
        }
        lead.matcher.tick(micros(now));
        let late: Vec<HostId> = lead.late_sources().collect();
        let let_down = lead.let_down_for(STANDSTILL, now).filter(|_| task.state.seed().is_none());
        self.touched.push(task_id);
        self.keep_in_touch(task_id);
        if let Some(child) = let_down {
            // Whoever says that it has what is wanted does not give it, and no seed has been asked for it.
            self.order_seed(task_id, child);
        }
        // As if its children had said so: they were leased it, and have nothing of it.
        self.parents_are_mute(task_id, &late);
    }

    /// Whoever waits for leases, not in vain, hears that it does. Where nobody has what one lacks and nobody brings it,
    /// somebody is to.
    fn keep_in_touch(&mut self, task_id: TaskId) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(mut lead) = task.lead.take() else { return };
        let due = lead.take_waiting(now);
        let brings = !due.is_empty() && task.brings_more(now);
        let is_provided = brings || task.state.seed().is_some();
        let (mut hopeful, mut starving) = (Vec::new(), None);
        for host in due {
            let peer = task.peer_untouched(&host);
            let Some(led) = peer.and_then(|peer| peer.led.as_mut()) else { continue };
            let heard_until = led.heard.after(HEARD_EVERY);
            let is_to_hear = heard_until <= now && !led.wants.is_empty();
            let again = match is_to_hear && lead.is_hopeful(led.number, brings, now) {
                true => {
                    hopeful.push(host);
                    now.after(HEARD_EVERY)
                }
                // One without hope may have some when time has passed.
                false => heard_until.max(Millis(now.0 + 1)),
            };
            if is_to_hear && !is_provided && starving.is_none() && lead.starves(led.number) {
                starving = Some(host);
            }
            lead.looks_again(host, led, again);
        }
        task.lead = Some(lead);
        for host in hopeful {
            self.send_letter(task_id, host, Letter::default());
        }
        if let Some(host) = starving {
            self.nobody_has_it(task_id, host);
        }
    }

    /// What a peer lacks nobody has who is heard of: a seed is to fetch it, or the peer itself, for its neighbours too.
    fn nobody_has_it(&mut self, task_id: TaskId, host: HostId) {
        let is_void = self.tasks.get(&task_id).is_none_or(|task| task.is_void(self.now));
        if self.order_seed(task_id, host) || is_void || self.is_hearing() {
            return;
        }
        if self.is_needed_as_stand_in(task_id, host) {
            self.send_to_source(task_id, host, true, SourceReason::NoSeed);
        }
    }

    /// What came to a host by leases that are not out, or not its own, any more: nobody knows whose they were, but it
    /// is there all the same.
    pub(super) fn strays(&self, host: HostId, task_id: TaskId, ends: &[LeaseEnd]) -> Vec<Done> {
        let Some(task) = self.tasks.get(&task_id) else { return Vec::new() };
        let number = task.peer(&host).and_then(|peer| Some(peer.led.as_ref()?.number));
        let is_out = |end: &LeaseEnd| {
            let lease = task.lead.as_ref().and_then(|lead| lead.matcher.lease(LeaseId(end.id)));
            lease.is_some_and(|lease| Some(lease.to) == number)
        };
        let strays = ends.iter().filter(|end| end.is_news() && !is_out(end));
        strays.map(|end| end.done(host)).collect()
    }

    /// Leases to a host have ended: what came of them, as of anything else that it asked a parent for.
    pub(super) fn leases_ended(
        &mut self,
        host: HostId,
        task_id: TaskId,
        ends: &[LeaseEnd],
    ) -> Ended {
        let (mut ended, now) = (Ended::default(), self.now);
        let Some(task) = self.tasks.get_mut(&task_id) else { return ended };
        let Some(mut lead) = task.lead.take() else { return ended };
        if let Some(peer) = task.peer_untouched(&host) {
            // Before an uplink that is free by the end of a lease gives it what it has by now.
            lead.catch_up(peer, now);
            for end in ends {
                lead.ended(host, peer, end, now, &mut ended);
            }
        }
        task.lead = Some(lead);
        for (giver, rate) in ended.rates.drain(..) {
            // What it sends of one task it is to be known for in the next one.
            if let Some(host) = self.hosts.get_mut(&giver) {
                host.sends(rate, now);
            }
        }
        ended
    }
}

impl LeaseEnd {
    /// Whether something is there that was not in what was told as having come.
    fn is_news(&self) -> bool {
        !self.groups.is_empty() && matches!(self.failure, None | Some(LeaseFailure::Held))
    }

    fn done(&self, parent: HostId) -> Done {
        Done { groups: self.groups, parent: Some(parent), cost_ms: self.cost_ms }
    }
}

impl Lead {
    /// A lease to a peer has ended. One that is not out any more, or is another's, is no lease of its.
    fn ended(
        &mut self,
        host: HostId,
        peer: &mut Peer,
        end: &LeaseEnd,
        now: Millis,
        ended: &mut Ended,
    ) {
        let now = micros(now);
        let number = peer.led.as_ref().map(|led| led.number);
        let lease = self.matcher.lease(LeaseId(end.id)).filter(|lease| Some(lease.to) == number);
        let Some(lease) = lease else { return };
        let parent = self.host(lease.from);
        if end.is_news() {
            // It cannot have been itself: that is nobody's credit.
            let giver = parent.filter(|_| end.failure.is_none()).unwrap_or(host);
            ended.done.push(end.done(giver));
        }
        match end.failure {
            None if !end.groups.is_empty() => self.matcher.done(lease.id, now),
            None => {
                // What it wanted of it came; what it has by now it has said.
                let whole: Vec<bool> = (lease.first..lease.first + lease.count)
                    .map(|piece| self.is_whole(&peer.held, piece))
                    .collect();
                let is_here = |piece: u32| whole[(piece - lease.first) as usize];
                self.matcher.done_in_part(lease.id, is_here, now);
            }
            Some(failure) => self.matcher.failed(lease.id, failure.into(), now),
        }
        // What a lease that came to nothing makes of a rate is a guess.
        let rate = self.matcher.rate(lease.from).filter(|_| end.failure.is_none());
        ended.rates.extend(parent.zip(rate));
        let groups = self.groups_in(lease.first, lease.count);
        if let (Some(failure), Some(parent)) = (end.failure, parent) {
            peer.tally.ended(parent, failure.into());
        }
        match (end.failure, parent) {
            // What it says next of what it wants is news.
            (Some(LeaseFailure::Unwanted), _) => peer.unwant(&groups.into()),
            (Some(LeaseFailure::Parent(kind)), Some(parent)) => {
                if let Some(led) = &mut peer.led {
                    led.misses(&parent);
                }
                ended.failed.push(Failed { parent, kind });
            }
            _ => {}
        }
    }
}
