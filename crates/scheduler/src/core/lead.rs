//! Leases: what peers want in any order is brought to them by whoever's uplink is free, as the matcher says.
//!
//! A task is led from the first word of a peer on what it wants in any order. The matcher is told what changes about
//! the peers of a task once an event is over; what comes of it goes out as one decision for each child. Parents are
//! given as in a task that is not led: for reads that cannot wait, and for children that hear nothing any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{GroupRange, GroupSet, HostId, TaskId, TaskKey};

use super::{
    Core, Decision, Done, Failed, FailureKind, Held, Host, Lease, LeaseEnd, LeaseFailure, Millis,
    Peer, PeerState, Task, TaskState, Timer, Wanted,
};
use crate::matcher::{self, Joining, LeaseId, Matcher, Micros, PeerNumber, Place, Role, Tuning};

/// Most pieces of a task: a piece is one group, or the next power of two of groups that makes no more of them.
const MAX_PIECES: u64 = 4096;

/// A child that waits for leases hears so often that it still does.
const HEARD_EVERY: Duration = Duration::from_secs(1);

/// The leases of one task.
#[derive(Debug)]
pub struct Lead {
    matcher: Matcher,
    /// Groups in the content, and in a piece as a power of two.
    groups: u64,
    level: u8,
    hosts: BTreeMap<PeerNumber, HostId>,
    places: Places,
    /// When the timer that is set fires.
    due: Option<Millis>,
    /// When those who wait were looked for last.
    swept: Millis,
}

/// A peer's part in the leases of its task.
#[derive(Debug)]
pub(super) struct Led {
    number: PeerNumber,
    /// Whether others are leased its uplink.
    gives: bool,
    /// What the matcher was told that it wants.
    wants: GroupSet,
    /// What it gained that the matcher was not told of.
    gained: Vec<GroupRange>,
    /// Whether it has turned out to hold something else than it gained.
    is_other: bool,
    /// Hosts that it was told the addresses of.
    partners: BTreeSet<HostId>,
    heard: Millis,
}

/// Numbers for the names of places.
#[derive(Debug, Default)]
struct Places(BTreeMap<(String, String), Place>);

impl Places {
    fn of(&mut self, host: &Host) -> Place {
        let location = &host.info.location;
        let name = (location.idc.to_ascii_lowercase(), location.rack.to_ascii_lowercase());
        if let Some(place) = self.0.get(&name) {
            return *place;
        }
        let number = |most: Option<u32>| most.map_or(0, |most| most + 1);
        let same_idc = self.0.iter().find(|((idc, _), _)| *idc == name.0).map(|(_, at)| at.idc);
        let idc = same_idc.unwrap_or_else(|| number(self.0.values().map(|at| at.idc).max()));
        let rack = number(self.0.values().map(|at| at.rack).max());
        *self.0.entry(name).or_insert(Place { idc, rack })
    }
}

impl Led {
    /// It holds these groups too.
    pub(super) fn gain(&mut self, run: GroupRange) {
        self.gained.push(run);
    }

    /// It holds something else than what it gained.
    pub(super) fn is_other(&mut self) {
        self.is_other = true;
    }

    /// Whoever it was told of it is to be told of again.
    pub(super) fn forget_partners(&mut self) {
        self.partners.clear();
    }
}

impl Lead {
    fn new(groups: u64, tuning: Tuning, seed: u64) -> Self {
        let level = (0..u8::MAX).find(|level| groups.div_ceil(1 << level) <= MAX_PIECES);
        let level = level.unwrap_or_default();
        let pieces = u32::try_from(groups.div_ceil(1 << level)).unwrap_or(u32::MAX);
        let piece_bytes = dfs_model::GROUP_BYTES << level;
        Self {
            matcher: Matcher::new(pieces, piece_bytes, tuning, seed),
            groups,
            level,
            hosts: BTreeMap::new(),
            places: Places::default(),
            due: None,
            swept: Millis::default(),
        }
    }

    /// Pieces of which some group is in a run.
    fn touched(&self, run: GroupRange) -> std::ops::Range<u32> {
        let run = run.intersection(GroupRange::new(0, self.groups));
        clipped(run.first >> self.level)..clipped(run.end().div_ceil(1 << self.level))
    }

    /// The groups of a run of pieces.
    fn groups_in(&self, first: u32, count: u32) -> GroupRange {
        let run = GroupRange::new(u64::from(first) << self.level, u64::from(count) << self.level);
        run.intersection(GroupRange::new(0, self.groups))
    }

    /// Pieces of which all groups are held, of those that a run touches.
    fn whole(&self, held: &Held, run: GroupRange) -> Vec<std::ops::Range<u32>> {
        let of = |piece: u32| self.groups_in(piece, 1);
        let mut whole: Vec<std::ops::Range<u32>> = Vec::new();
        for piece in self.touched(run).filter(|piece| held.contains_all(of(*piece))) {
            match whole.last_mut() {
                Some(last) if last.end == piece => last.end += 1,
                _ => whole.push(piece..piece + 1),
            }
        }
        whole
    }

    /// A peer is gone.
    pub(super) fn leave(&mut self, led: &Led) {
        self.hosts.remove(&led.number);
        self.matcher.leave(led.number, Micros::default());
    }
}

fn clipped(piece: u64) -> u32 {
    u32::try_from(piece).unwrap_or(u32::MAX)
}

fn micros(now: Millis) -> Micros {
    Micros(now.0.saturating_mul(1000))
}

fn why(failure: LeaseFailure) -> matcher::Failure {
    match failure {
        LeaseFailure::Unwanted => matcher::Failure::Unwanted,
        LeaseFailure::Parent(FailureKind::NotHeld) => matcher::Failure::NotThere,
        LeaseFailure::Parent(
            FailureKind::Timeout | FailureKind::Disconnected | FailureKind::BadDigest,
        ) => matcher::Failure::Apart,
        LeaseFailure::Parent(FailureKind::Busy | FailureKind::Origin | FailureKind::Other) => {
            matcher::Failure::Other
        }
    }
}

/// What of a peer the matcher is to know.
struct Part {
    role: Role,
    place: Place,
    gives: bool,
    wants: GroupSet,
}

impl Core {
    /// Whether what peers want of a task in any order comes to them by leases.
    pub(super) fn is_led(&self, task: &TaskId) -> bool {
        let may_be = |task: &Task| {
            task.spec.length.is_some_and(|length| length >= self.limits.led_from)
                // What is private a seed fetches for those who ask it with their own credentials.
                && task.spec.key.domain == TaskKey::PUBLIC
        };
        self.strategy.leases().is_some() && self.tasks.get(task).is_some_and(may_be)
    }

    /// A peer has said what it wants in any order.
    pub(super) fn wants_in_any_order(&mut self, task_id: TaskId, host: HostId, groups: GroupSet) {
        if !self.is_led(&task_id) {
            return;
        }
        let tuning = self.strategy.leases().unwrap_or_default();
        let seed = rand::RngExt::random(&mut self.random);
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(all) = task.groups() else { return };
        if task.lead.is_none() {
            task.lead = Some(Lead::new(all, tuning, seed));
            task.everybody_changed();
        }
        let Some(peer) = task.peer_mut(&host) else { return };
        peer.in_any_order = groups;
        self.order_in_any_order(task_id, host);
    }

    /// Has the seed fetch what a peer wants in any order, before anybody is leased it.
    fn order_in_any_order(&mut self, task_id: TaskId, host: HostId) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(peer) = task.peer(&host) else { return };
        let wanted = &peer.in_any_order;
        if wanted.ranges().all(|run| task.ordered.contains_all(run)) {
            return;
        }
        let mut ordered = task.ordered.clone();
        wanted.ranges().for_each(|run| ordered.insert_range(run));
        task.ordered = ordered;
        let Some(seed) = task.state.seed() else { return };
        let has_all = |held: &Held| task.ordered.ranges().all(|run| held.contains_all(run));
        if task.peer(&seed).is_some_and(|seed| has_all(&seed.held)) {
            return;
        }
        let (spec, wanted) = (task.spec.clone(), Wanted::Groups(task.ordered.clone()));
        self.last_obtain += 1;
        let obtain = self.last_obtain;
        let former = match &mut task.state {
            TaskState::Asked { obtain: number, .. } => Some(std::mem::replace(number, obtain)),
            TaskState::Seeded { obtain: number, .. } => number.replace(obtain),
            TaskState::Open | TaskState::Void { .. } => return,
        };
        let ended = former.map(|obtain| Decision::EndObtain { obtain });
        self.out.extend(ended);
        self.out.push(Decision::ObtainFromSeed { seed, task: spec, wanted, obtain });
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
        let Some(task) = self.tasks.get_mut(&task_id).filter(|task| task.lead.is_some()) else {
            return;
        };
        for host in task.take_changed() {
            self.tell_matcher(task_id, host);
        }
        self.send_leases(task_id);
    }

    fn part(&self, task: &Task, id: &HostId, places: &mut Places) -> Option<Part> {
        let peer = task.peer(id)?;
        let host = self.hosts.get(id).filter(|host| host.silent_since.is_none())?;
        let is_ordered = peer.state() == PeerState::Seeding;
        let gives = !peer.serves_only_itself
            && peer.state() != PeerState::Failed
            && !task.blacklist.contains(id);
        let takes = peer.registered
            && matches!(peer.state(), PeerState::Waiting { .. } | PeerState::Fetching);
        let wants = if takes { peer.in_any_order.clone() } else { GroupSet::new() };
        let role = match (is_ordered, gives) {
            (_, false) => Role::Taker,
            (true, true) => Role::Source,
            (false, true) => Role::Node,
        };
        let is_part = gives || !wants.is_empty();
        is_part.then(|| Part { role, place: places.of(host), gives, wants })
    }

    /// Brings what the matcher knows of a peer to what it is now.
    fn tell_matcher(&mut self, task_id: TaskId, host: HostId) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(mut lead) = task.lead.take() else { return };
        let Some(task) = self.tasks.get(&task_id) else { return };
        let part = self.part(task, &host, &mut lead.places);
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        if let Some(peer) = task.peer_mut(&host) {
            lead.tell(host, peer, part, now);
        }
        task.lead = Some(lead);
        task.is_told(&host);
    }

    fn send_leases(&mut self, task_id: TaskId) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(mut lead) = task.lead.take() else { return };
        let mut letters: BTreeMap<HostId, (Vec<Lease>, Vec<u64>)> = BTreeMap::new();
        let withdrawn: Vec<matcher::Lease> = lead.matcher.withdrawn().collect();
        for lease in withdrawn {
            if let Some(child) = lead.hosts.get(&lease.to) {
                letters.entry(*child).or_default().1.push(lease.id.0);
            }
        }
        let leases: Vec<matcher::Lease> = lead.matcher.leases().collect();
        for lease in leases {
            let pair = (lead.hosts.get(&lease.to), lead.hosts.get(&lease.from));
            let (Some(child), Some(parent)) = pair else { continue };
            let groups = lead.groups_in(lease.first, lease.count);
            let lease = Lease { id: lease.id.0, parent: *parent, groups };
            letters.entry(*child).or_default().0.push(lease);
        }
        if lead.due.is_none()
            && let Some(Micros(at)) = lead.matcher.next_tick()
        {
            let due = Millis(at.div_ceil(1000));
            lead.due = Some(due);
            self.timers.set(due, Timer::Lead(task_id));
        }
        for (child, (leases, withdrawn)) in letters {
            let Some(peer) = task.peer_untouched(&child) else { continue };
            let mut partners = Vec::new();
            for lease in &leases {
                let info = self.hosts.get(&lease.parent).map(|host| Arc::clone(&host.info));
                peer.meet(lease.parent);
                let is_new = peer.led.as_mut().is_some_and(|led| led.partners.insert(lease.parent));
                partners.extend(info.filter(|_| is_new));
            }
            if let Some(led) = &mut peer.led {
                led.heard = now;
            }
            let host = child;
            let task = task_id;
            self.out.push(Decision::SendLeases { host, task, leases, withdrawn, partners });
        }
        task.lead = Some(lead);
    }

    /// Time has passed for the leases of a task.
    pub(super) fn lead_on(&mut self, task_id: TaskId, at: Millis) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(lead) = task.lead.as_mut().filter(|lead| lead.due == Some(at)) else { return };
        lead.due = None;
        lead.matcher.tick(micros(now));
        self.touched.push(task_id);
        if lead.swept.after(HEARD_EVERY) > now {
            return;
        }
        lead.swept = now;
        let hosts: Vec<HostId> = lead.hosts.values().copied().collect();
        for host in hosts {
            let Some(led) = task.peer_untouched(&host).and_then(|peer| peer.led.as_mut()) else {
                continue;
            };
            if !led.wants.is_empty() && led.heard.after(HEARD_EVERY) <= now {
                led.heard = now;
                self.out.push(Decision::SendLeases {
                    host,
                    task: task_id,
                    leases: Vec::new(),
                    withdrawn: Vec::new(),
                    partners: Vec::new(),
                });
            }
        }
    }

    /// Leases to a host have ended: what came of them, as of anything else that it asked a parent for.
    pub(super) fn leases_ended(
        &mut self,
        host: HostId,
        task_id: TaskId,
        ends: &[LeaseEnd],
    ) -> (Vec<Done>, Vec<Failed>) {
        let (mut done, mut failed, mut unwanted) = (Vec::new(), Vec::new(), Vec::new());
        let now = micros(self.now);
        let Some(task) = self.tasks.get_mut(&task_id) else { return (done, failed) };
        let number = task.peer(&host).and_then(|peer| peer.led.as_ref()).map(|led| led.number);
        let Some(lead) = &mut task.lead else { return (done, failed) };
        for end in ends {
            let id = LeaseId(end.id);
            let lease = lead.matcher.lease(id).filter(|lease| Some(lease.to) == number);
            let parent = lease.and_then(|lease| lead.hosts.get(&lease.from).copied());
            match end.failure {
                None => {
                    let cost_ms = end.cost_ms;
                    // Without a lease nobody knows whose it was; that it is there counts all the same.
                    done.push(Done { groups: end.groups, parent: parent.or(Some(host)), cost_ms });
                    if lease.is_some() {
                        lead.matcher.done(id, now);
                    }
                }
                Some(failure) => {
                    if let Some(lease) = lease {
                        lead.matcher.failed(id, why(failure), now);
                        let groups = lead.groups_in(lease.first, lease.count);
                        unwanted.extend((failure == LeaseFailure::Unwanted).then_some(groups));
                    }
                    if let (Some(parent), LeaseFailure::Parent(kind)) = (parent, failure) {
                        failed.push(Failed { parent, kind });
                    }
                }
            }
        }
        let peer = task.peer_untouched(&host).filter(|_| !unwanted.is_empty());
        if let Some(peer) = peer {
            // What it says next of what it wants is news.
            for groups in unwanted {
                peer.in_any_order.remove_range(groups);
                peer.led.iter_mut().for_each(|led| led.wants.remove_range(groups));
            }
        }
        (done, failed)
    }
}

impl Lead {
    fn tell(&mut self, host: HostId, peer: &mut Peer, part: Option<Part>, now: Millis) {
        let now_micros = micros(now);
        let is_same = |led: &Led, part: &Part| led.gives == part.gives && !led.is_other;
        let stays = match (&peer.led, &part) {
            (Some(led), Some(part)) => is_same(led, part),
            _ => false,
        };
        if !stays && let Some(led) = peer.led.take() {
            self.hosts.remove(&led.number);
            self.matcher.leave(led.number, now_micros);
        }
        let Some(part) = part else { return };
        let Some(led) = &mut peer.led else {
            peer.led = Some(self.join(host, &peer.held, part, now));
            return;
        };
        let (gained, gives) = (std::mem::take(&mut led.gained), led.gives);
        for run in gained.into_iter().filter(|_| gives) {
            for pieces in self.whole(&peer.held, run) {
                self.matcher.gained(led.number, pieces, now_micros);
            }
        }
        if led.wants == part.wants {
            return;
        }
        for run in led.wants.ranges().flat_map(|run| part.wants.missing_in(run)) {
            let is_wanted =
                |piece: u32| part.wants.present_in(self.groups_in(piece, 1)).next().is_some();
            let pieces: Vec<u32> = self.touched(run).filter(|piece| !is_wanted(*piece)).collect();
            for piece in pieces {
                self.matcher.forget(led.number, piece..piece + 1, now_micros);
            }
        }
        for run in part.wants.ranges().flat_map(|run| led.wants.missing_in(run)) {
            self.matcher.want(led.number, self.touched(run), now_micros);
        }
        led.wants = part.wants;
    }

    fn join(&mut self, host: HostId, held: &Held, part: Part, now: Millis) -> Led {
        let whole = self.whole(held, GroupRange::new(0, self.groups));
        let has: &[_] = if part.gives { &whole } else { &[] };
        let missing = |run: GroupRange| -> Vec<GroupRange> {
            match held {
                Held::All => Vec::new(),
                Held::Part(held) => held.missing_in(run).collect(),
            }
        };
        let wants: Vec<_> =
            part.wants.ranges().flat_map(missing).map(|run| self.touched(run)).collect();
        let joining =
            Joining { role: part.role, place: part.place, slots: u32::MAX, has, wants: &wants };
        let number = self.matcher.join(&joining, micros(now));
        self.hosts.insert(number, host);
        Led {
            number,
            gives: part.gives,
            wants: part.wants,
            gained: Vec::new(),
            is_other: false,
            partners: BTreeSet::new(),
            heard: now,
        }
    }
}
