//! Delegates: where messages are too many, one peer of a place leads the others there.
//!
//! Messages are counted. Beyond the limit the peers of one data centre, or one rack, are handed to one of them, where
//! that saves most; from then on it is one child here, and what the others do is told to it. They stay in the task
//! as holders of what they had then. They say that they went; who does not is called back. Whoever a delegate fails comes back, registers, and is led here; once it has
//! failed several its delegation is over, and so it is when it resigns, is not heard of any more, or leads nobody.
//! Nothing is taken back because messages have become fewer: that would cost what was saved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{HostId, TaskId};

use super::evidence::{Evidence, Wait};
use super::timers::Timer;
use super::{Core, Decision, Event, Held, Host, Millis, Peer, PeerState, Task};

/// Messages are counted for so long, and then judged.
const WINDOW: Duration = Duration::from_millis(500);

/// How long a host may take to say whether it will lead.
const ACCEPTS_WITHIN: Duration = Duration::from_secs(2);

/// How long who was handed over may take to say that it went.
pub(super) const GOES_WITHIN: Duration = Duration::from_secs(5);

/// Who was called back and does not register is led here after so long all the same.
const REGISTERS_WITHIN: Duration = Duration::from_secs(1);

/// A delegation is over that has failed so many, or one in so many of those that were handed over.
const FAILED: usize = 2;
const FAILED_OF: usize = 4;

/// A place in which so many delegations have failed, or one has failed those whom it led, has none for so long.
const FAILED_THERE: u32 = 2;
pub(super) const BARRED_FOR: Duration = Duration::from_secs(300);

/// Of the limit, so much is to be left of messages: in percent.
const LEFT: u64 = 75;

/// Most hosts that one leads: it is a node as any other.
const MOST_LED: usize = 512;

/// Most tasks and places that are handed over at a time.
const MOST_AT_ONCE: usize = 4096;

/// What a host can do about delegates, as it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Skill {
    /// It knows nothing of them.
    #[default]
    None,
    /// It goes to one when it is told.
    Follows,
    /// And others can be told to come to it.
    Leads,
}

/// An area, a data centre and a rack in it, the latter in small letters; without a rack all of a data centre.
pub type Area = (Arc<str>, Arc<str>, Arc<str>);

/// Messages of late.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Places in which a delegate leads, or was asked to.
    places: usize,
    since: Millis,
    /// The number of the window.
    window: u64,
    messages: u64,
}

/// Messages about one task in a window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    window: u64,
    messages: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It was asked, and has until then to answer.
    Asked(Millis),
    /// It leads.
    Leads,
}

/// One place in which a delegate leads.
#[derive(Debug)]
pub(super) struct Delegation {
    pub(super) delegate: HostId,
    stage: Stage,
    /// Those who were handed over and have not come back, nor come to an end, each with until when it may take to say
    /// that it went, if it has not.
    pub(super) members: BTreeMap<HostId, Option<Millis>>,
    /// Those who came back.
    failed: BTreeSet<HostId>,
    handed: usize,
}

/// The delegates of one task.
#[derive(Debug, Default)]
pub(super) struct Delegations {
    pub(super) places: BTreeMap<Area, Delegation>,
    /// Hosts that are not asked again.
    barred: BTreeSet<HostId>,
    /// Places in which delegations have failed: how many, and when that was last.
    failed: BTreeMap<Area, (u32, Millis)>,
    traffic: Traffic,
}

/// What could be handed over.
struct Saving {
    messages: u64,
    task: TaskId,
    area: Area,
    delegate: HostId,
}

impl Delegations {
    fn of(&self, delegate: &HostId) -> Option<Area> {
        let mut places = self.places.iter();
        places.find(|(_, place)| place.delegate == *delegate).map(|(area, _)| area.clone())
    }

    /// Whether a host leads, or was asked to.
    pub(super) fn is_delegate(&self, host: &HostId) -> bool {
        self.places.values().any(|place| place.delegate == *host)
    }

    /// Those who lead, each with how many.
    pub(super) fn leading(&self) -> impl Iterator<Item = (HostId, usize)> {
        let leading = self.places.values().filter(|place| place.stage == Stage::Leads);
        leading.map(|place| (place.delegate, place.members.len()))
    }

    /// A delegation has failed in a place. Those of longer ago are forgotten.
    fn fail(&mut self, area: Area, now: Millis) {
        let (failed, last) = self.failed.entry(area).or_insert((0, now));
        let before = if now < last.after(BARRED_FOR) { *failed } else { 0 };
        (*failed, *last) = (before.saturating_add(1), now);
    }

    /// A place is led here for a while: nothing came to it, which another delegate would not change.
    fn bar(&mut self, area: Area, now: Millis) {
        self.failed.insert(area, (FAILED_THERE, now));
    }

    /// Whether somebody could be asked to lead in a place.
    fn is_free(&self, area: &Area, now: Millis) -> bool {
        let is_barred = self
            .failed
            .get(area)
            .is_some_and(|(failed, last)| *failed >= FAILED_THERE && now < last.after(BARRED_FOR));
        !is_barred && !self.places.contains_key(area)
    }

    fn count(&mut self, window: u64, messages: u64) {
        let before = if self.traffic.window == window { self.traffic.messages } else { 0 };
        self.traffic = Traffic { window, messages: before + messages };
    }

    fn counted(&self, window: u64) -> u64 {
        if self.traffic.window == window { self.traffic.messages } else { 0 }
    }
}

impl Host {
    /// Where it would have a delegate; nowhere where it does not say in which data centre it is.
    fn delegation_area(&self) -> Option<Area> {
        let place = || (Arc::clone(&self.area), Arc::clone(&self.idc), Arc::clone(&self.rack));
        (!self.idc.is_empty()).then(place)
    }
}

impl Peer {
    /// Whether it takes by lease, and may be handed over.
    fn takes_by_lease(&self, groups: Option<u64>) -> bool {
        let takes = matches!(self.state(), PeerState::Waiting { .. } | PeerState::Fetching);
        takes && self.registered && !self.in_any_order.is_empty() && self.is_hungry(groups)
    }
}

impl Core {
    /// Counts what an event and its decisions are in messages of hosts, and judges them when it is time.
    pub(super) fn count_messages(&mut self, event: Option<TaskId>) {
        let limit = self.limits.delegate_above;
        if limit == 0 {
            return;
        }
        let window = self.load.window;
        if let Some(id) = event {
            self.load.messages += 1;
            if let Some(task) = self.tasks.get_mut(&id) {
                task.delegations.count(window, 1);
            }
        }
        for decision in &self.out {
            let (task, messages) = match decision {
                Decision::SendLeases { task, .. } | Decision::SendParents { task, .. } => {
                    (*task, 1)
                }
                Decision::SendRegistered { task, .. } => (task.id, 1),
                Decision::SendUpdate { task, hosts, .. }
                | Decision::NameReserves { task, hosts, .. } => (*task, hosts.len() as u64),
                _ => continue,
            };
            self.load.messages += messages;
            if let Some(task) = self.tasks.get_mut(&task) {
                task.delegations.count(window, messages);
            }
        }
        let elapsed = self.now.0.saturating_sub(self.load.since.0);
        if u128::from(elapsed) < WINDOW.as_millis() {
            return;
        }
        let rate = self.load.messages.saturating_mul(1000) / elapsed.max(1);
        if rate > limit {
            self.delegate(rate, elapsed);
        }
        let places = self.load.places;
        self.load = Load { places, since: self.now, window: window + 1, messages: 0 };
    }

    /// Asks hosts to lead where that saves most, until what is left is below the limit.
    fn delegate(&mut self, rate: u64, elapsed: u64) {
        let now = self.now;
        let mut is_asked = false;
        for task in self.tasks.values_mut() {
            let mut late = Vec::new();
            task.delegations.places.retain(|area, place| match place.stage {
                Stage::Asked(due) if due <= now => {
                    task.delegations.barred.insert(place.delegate);
                    late.push(area.clone());
                    self.load.places -= 1;
                    false
                }
                Stage::Asked(_) => {
                    is_asked = true;
                    true
                }
                Stage::Leads => true,
            });
            late.into_iter().for_each(|area| task.delegations.fail(area, now));
        }
        if is_asked {
            // What these save is not seen yet.
            return;
        }
        let savings = self.tasks.iter().flat_map(|(id, task)| {
            savings_in(*id, task, &self.hosts, &self.limits, self.load.window, now)
        });
        let mut savings: Vec<Saving> = savings.collect();
        savings.sort_by(|a, b| {
            b.messages.cmp(&a.messages).then_with(|| (a.task, &a.area).cmp(&(b.task, &b.area)))
        });
        let mut left = rate;
        for saving in savings.into_iter().take(MOST_AT_ONCE) {
            if left <= self.limits.delegate_above.saturating_mul(LEFT) / 100 {
                return;
            }
            left = left.saturating_sub(saving.messages.saturating_mul(1000) / elapsed.max(1));
            self.ask_to_lead(saving);
        }
    }

    fn ask_to_lead(&mut self, saving: Saving) {
        let Saving { task: id, area, delegate, .. } = saving;
        let due = self.now.after(ACCEPTS_WITHIN);
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let place = Delegation {
            delegate,
            stage: Stage::Asked(due),
            members: BTreeMap::new(),
            failed: BTreeSet::new(),
            handed: 0,
        };
        let is_new = task.delegations.places.insert(area, place).is_none();
        self.load.places += usize::from(is_new);
        let spec = task.spec.clone();
        self.note(id, delegate, Evidence::AskedToLead);
        self.out.push(Decision::AskToLead { host: delegate, task: spec });
    }

    /// A host leads from now on: it is handed those of its place.
    pub(super) fn leads(&mut self, delegate: HostId, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let Some(area) = task.delegations.of(&delegate) else {
            return self.out.push(Decision::LeadNoMore { host: delegate, task: id });
        };
        if let Some(place) = task.delegations.places.get_mut(&area) {
            place.stage = Stage::Leads;
        }
        let Some(task) = self.tasks.get(&id) else { return };
        let groups = task.groups();
        let takes = |(host, peer): &(&HostId, &Peer)| {
            peer.takes_by_lease(groups) && may_go(task, &self.hosts, host, &area)
        };
        let members = task.peers().filter(takes).map(|(host, _)| *host);
        let members: Vec<HostId> = members.take(MOST_LED).collect();
        self.note(id, delegate, Evidence::Leads { hosts: members.len() });
        if members.is_empty() {
            return self.delegation_is_over(id, &area, "there is nobody to lead");
        }
        self.hand_over(id, &area, members);
    }

    /// A host that has come to want something in any order goes to the delegate of its place, if there is one.
    pub(super) fn goes_to_delegate(&mut self, id: TaskId, host: HostId) {
        let Some(task) = self.tasks.get(&id) else { return };
        let area = self.hosts.get(&host).and_then(Host::delegation_area);
        let Some(area) = area.filter(|_| !task.delegations.places.is_empty()) else { return };
        let place = task.delegations.places.get(&area);
        let leads = place
            .is_some_and(|place| place.stage == Stage::Leads && place.members.len() < MOST_LED);
        let takes = task.peer(&host).is_some_and(|peer| peer.takes_by_lease(task.groups()));
        if !leads || !takes || !may_go(task, &self.hosts, &host, &area) {
            return;
        }
        self.hand_over(id, &area, vec![host]);
    }

    /// Tells hosts who leads them from now on. What is under way to them goes on.
    fn hand_over(&mut self, id: TaskId, area: &Area, hosts: Vec<HostId>) {
        let now = self.now;
        let Some(place) =
            self.tasks.get_mut(&id).and_then(|task| task.delegations.places.get_mut(area))
        else {
            return;
        };
        let delegate = place.delegate;
        let due = now.after(GOES_WITHIN);
        place.members.extend(hosts.iter().map(|host| (*host, Some(due))));
        self.timers.set(due, Timer::HandedOver(id));
        place.handed += hosts.len();
        for host in &hosts {
            self.release_parents(id, *host);
            let Some(task) = self.tasks.get_mut(&id) else { return };
            task.begin_anew(host, now);
            let Some(peer) = task.peer_mut(host) else { continue };
            peer.become_(PeerState::Resting);
            peer.delegate = Some(delegate);
            // It may turn out to be a liar.
            peer.meet(delegate);
            peer.in_any_order = dfs_model::GroupSet::new();
            self.note(id, *host, Evidence::Delegated { to: delegate });
        }
        if let Some(lead) = self.tasks.get_mut(&id).and_then(|task| task.lead.as_mut()) {
            lead.go_on_with_what_is_under_way(&hosts);
        }
        self.touched.push(id);
        self.out.push(Decision::Delegate { hosts, task: id, to: Some(delegate) });
    }

    /// A host says that it will not lead, or leads no more.
    pub(super) fn resigns(&mut self, delegate: HostId, id: TaskId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.delegations.barred.insert(delegate);
        if let Some(area) = task.delegations.of(&delegate) {
            task.delegations.fail(area.clone(), self.now);
            self.delegation_is_over(id, &area, "it resigned");
        }
    }

    /// Who was handed over says that it went: it wants nothing here.
    pub(super) fn went(&mut self, id: TaskId, host: HostId) {
        let places = self.tasks.get_mut(&id).map(|task| task.delegations.places.values_mut());
        let mut awaited = places.into_iter().flatten();
        if let Some(due) = awaited.find_map(|place| place.members.get_mut(&host)) {
            *due = None;
        }
    }

    /// Whoever was handed over and has not said that it went is called back.
    pub(super) fn look_who_went(&mut self, id: TaskId, at: Millis) {
        let Some(task) = self.tasks.get(&id) else { return };
        let is_late = |due: &Option<Millis>| due.is_some_and(|due| due <= at);
        let late = task.delegations.places.values().flat_map(|place| {
            let late = place.members.iter().filter(|(_, due)| is_late(due));
            late.map(|(host, _)| (*host, place.delegate))
        });
        let late: Vec<(HostId, HostId)> = late.collect();
        for (host, delegate) in late {
            let peer = self.tasks.get(&id).and_then(|task| task.peer(&host));
            if peer.is_none_or(|peer| peer.delegate != Some(delegate)) {
                continue;
            }
            self.call_back(id, vec![host]);
            self.fails(id, delegate, host);
        }
    }

    /// Hosts are led here again: they are told, and heard. Who does not register is led all the same.
    fn call_back(&mut self, id: TaskId, hosts: Vec<HostId>) {
        let due = self.now.after(REGISTERS_WITHIN);
        for host in &hosts {
            let Some(task) = self.tasks.get_mut(&id) else { return };
            let groups = task.groups();
            let Some(peer) = task.peer_mut(host) else { continue };
            peer.delegate = None;
            if peer.registered && peer.state() == PeerState::Resting && peer.is_hungry(groups) {
                peer.tries = 0;
                self.wait(id, *host, Wait::Parents, due);
            }
        }
        if !hosts.is_empty() {
            self.out.push(Decision::Delegate { hosts, task: id, to: None });
        }
    }

    /// A host comes back from its delegate, which failed it.
    pub(super) fn comes_back(&mut self, host: HostId, id: TaskId, delegate: HostId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let was_led = task.peer(&host).is_some_and(|peer| peer.delegate == Some(delegate));
        if was_led {
            self.note(id, host, Evidence::CameBack { from: delegate });
        }
        if was_led {
            self.fails(id, delegate, host);
        }
    }

    /// A delegate has failed one of those whom it led; who fails several leads no more.
    fn fails(&mut self, id: TaskId, delegate: HostId, host: HostId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let Some(area) = task.delegations.of(&delegate) else { return };
        let Some(place) = task.delegations.places.get_mut(&area) else { return };
        place.members.remove(&host);
        place.failed.insert(host);
        let most = FAILED.max(place.handed / FAILED_OF);
        if place.failed.len() >= most {
            task.delegations.barred.insert(delegate);
            task.delegations.bar(area.clone(), self.now);
            self.delegation_is_over(id, &area, "it failed those whom it led");
        } else if place.members.is_empty() {
            self.delegation_is_over(id, &area, "nobody is left to lead");
        }
    }

    /// A delegate is not heard of here any more: those whom it leads may hear of it, and those to come are led here.
    pub(super) fn delegate_is_silent(&mut self, host: HostId) {
        let tasks = self.hosts.get(&host).map(|host| host.tasks.clone()).unwrap_or_default();
        for id in tasks {
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            let Some(area) = task.delegations.of(&host) else { continue };
            let Some(place) = task.delegations.places.remove(&area) else { continue };
            self.load.places -= 1;
            let reason = "it is not heard of";
            self.note(id, host, Evidence::LeadsNoMore { reason });
            let awaited = place.members.into_iter().filter(|(_, due)| due.is_some());
            self.call_back(id, awaited.map(|(host, _)| host).collect());
        }
    }

    /// A delegate is none any more: those whom it led are called back.
    fn delegation_is_over(&mut self, id: TaskId, area: &Area, reason: &'static str) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let Some(place) = task.delegations.places.remove(area) else { return };
        self.load.places -= 1;
        let Delegation { delegate, members, .. } = place;
        self.note(id, delegate, Evidence::LeadsNoMore { reason });
        self.out.push(Decision::LeadNoMore { host: delegate, task: id });
        self.call_back(id, members.into_keys().collect());
    }

    /// A host is led by no delegate any more: it registers anew, has come to its end, or is gone. And if it led, others
    /// are called back.
    pub(super) fn is_delegated_no_more(&mut self, id: TaskId, host: HostId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if task.delegations.places.is_empty() {
            return;
        }
        if let Some(area) = task.delegations.of(&host)
            && task.peer(&host).is_none()
        {
            return self.delegation_is_over(id, &area, "it is gone");
        }
        let places = &mut task.delegations.places;
        let is_emptied = |place: &mut Delegation| {
            place.members.remove(&host).is_some() && place.members.is_empty()
        };
        let emptied =
            places.iter_mut().find_map(|(area, place)| is_emptied(place).then(|| area.clone()));
        if let Some(area) = emptied {
            self.delegation_is_over(id, &area, "nobody is left to lead");
        }
    }

    /// A host served bytes that did not verify: it leads nobody.
    pub(super) fn liar_leads_no_more(&mut self, id: TaskId, liar: HostId) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if let Some(area) = task.delegations.of(&liar) {
            task.delegations.fail(area.clone(), self.now);
            self.delegation_is_over(id, &area, "its bytes did not verify");
        }
    }

    /// Places in which a delegate leads, or was asked to.
    pub fn delegations(&self) -> usize {
        self.load.places
    }
}

/// Whether a host may be handed to the delegate of a place.
fn may_go(task: &Task, hosts: &BTreeMap<HostId, Host>, id: &HostId, area: &Area) -> bool {
    let Some(place) = task.delegations.places.get(area) else { return false };
    let is_there = hosts.get(id).is_some_and(|host| {
        host.skill >= Skill::Follows
            && host.silent_since.is_none()
            && host.delegation_area().as_ref() == Some(area)
    });
    is_there && place.delegate != *id && !place.failed.contains(id)
}

/// What could be handed over of one task: of every place without a delegate that has enough who take, and one who can
/// lead.
fn savings_in(
    id: TaskId,
    task: &Task,
    hosts: &BTreeMap<HostId, Host>,
    limits: &super::Limits,
    window: u64,
    now: Millis,
) -> Vec<Saving> {
    let messages = task.delegations.counted(window);
    if messages == 0 || task.lead.is_none() || !is_provided(task, hosts, now) {
        return Vec::new();
    }
    let groups = task.groups();
    let (mut all, mut places) = (0u64, BTreeMap::<Area, Vec<HostId>>::new());
    for (host, _) in task.peers().filter(|(_, peer)| peer.takes_by_lease(groups)) {
        all += 1;
        let known = hosts.get(host).filter(|host| host.skill >= Skill::Follows);
        if let Some(area) = known.and_then(Host::delegation_area) {
            places.entry(area).or_default().push(*host);
        }
    }
    let is_free = |area: &Area| task.delegations.is_free(area, now);
    let large = places
        .into_iter()
        .filter(|(area, takers)| takers.len() >= limits.delegate_from.max(2) && is_free(area));
    let saved = large.filter_map(|(area, takers)| {
        let delegate = best_of(task, hosts, &takers, now)?;
        let led = takers.len().saturating_sub(1).min(MOST_LED) as u64;
        let share = messages.saturating_mul(led) / all.max(1);
        Some(Saving { messages: share, task: id, area, delegate })
    });
    saved.collect()
}

/// Whether all of a task is to be had: a delegate could not find who has it, or have somebody read the source.
fn is_provided(task: &Task, hosts: &BTreeMap<HostId, Host>, now: Millis) -> bool {
    let is_heard_of = |id: &HostId| hosts.get(id).is_some_and(|host| host.silent_since.is_none());
    let has_all = |(id, peer): (&HostId, &Peer)| peer.held == Held::All && is_heard_of(id);
    task.brings_more(now) || task.peers().any(has_all)
}

/// Who of these is to lead: of those that get on the one that has been here longest.
fn best_of(
    task: &Task,
    hosts: &BTreeMap<HostId, Host>,
    takers: &[HostId],
    now: Millis,
) -> Option<HostId> {
    let is_able = |id: &&HostId| {
        let host = hosts.get(id);
        let is_here =
            host.is_some_and(|host| host.skill == Skill::Leads && host.silent_since.is_none());
        let gets_on = task.peer(id).is_some_and(|peer| {
            !peer.is_bad_node()
                && !peer.serves_only_itself
                && peer.led.as_ref().is_some_and(|led| led.gets_on(now))
        });
        let is_trusted = !task.blacklist.contains(id) && !task.delegations.barred.contains(id);
        is_here && gets_on && is_trusted && !task.delegations.is_delegate(id)
    };
    let able = takers.iter().filter(is_able);
    able.min_by_key(|id| (hosts.get(id).map(|host| host.since), **id)).copied()
}

impl Event {
    /// Whether a host or a seed said it, of a task.
    pub(super) fn message(&self) -> Option<TaskId> {
        match self {
            Self::Vouched { .. } | Self::Tick => None,
            event => event.task(),
        }
    }
}
