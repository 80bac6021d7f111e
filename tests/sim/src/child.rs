//! A node that takes part as the real peer does: its piece picker and its patience, unchanged, and what stands around
//! them without connections, disks and clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use dfs_model::{GroupRange, GroupSet, HostId, Priority, TaskInfo, groups_in};
use dfs_scheduler::core::{
    self, Decision, Done, Event, Failed, FailureKind, LeaseFailure, Outcome, Report, SeedEvent,
    Taken, Wanted,
};
use dfs_scheduler::matcher::Micros;

use crate::hosts::{host, node};
use crate::peer::conductor::{
    Action, Conductor, Failure, FlightId, LeaseEnd, LeaseOutcome, Offer, Place, Provider,
    SourceAccess,
};
use crate::peer::patience::{Look, Patience, Resort, Stands};
use crate::policy::{Node, Order};
use crate::scenario::Reads;

/// How long a node bears that nothing moves, where it is the least patient of all.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long parents are followed that nothing is chosen from any more.
const FOLLOWED_FOR: Duration = Duration::from_secs(1);

/// Pieces that are fetched ahead of who reads from front to back, and so many of them are said to be read next.
const READ_AHEAD: u64 = 64;
const READ_NEXT: u64 = 16;

/// Those who give by lease that are remembered.
const MOST_PARTNERS: usize = 256;

/// What a child does.
#[derive(Debug, Clone, PartialEq)]
pub enum Does {
    /// Asks another for pieces.
    Asks(Order),
    /// Gives up what it asked for: the order's name, and who was asked.
    Stops(u64, Node),
    /// Wants to hear from now on what another holds.
    Follows(Node),
    /// Wants that no more.
    LetsBe(Node),
    /// Says something to the scheduler.
    Says(Box<Event>),
}

/// Something asked for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    flight: FlightId,
    provider: Provider,
    order: Order,
    since: Micros,
}

/// One node's download.
pub struct Child {
    node: Node,
    task: TaskInfo,
    conductor: Conductor,
    patience: Patience,
    patient_for: Duration,
    /// By the order's name.
    asked: BTreeMap<u64, Asked>,
    parents: BTreeSet<Node>,
    /// Those who give by lease.
    partners: BTreeSet<Node>,
    follows: BTreeSet<Node>,
    chose_at: Duration,
    was_led: bool,
    is_connected: bool,
    is_registered: bool,
    stands_in: bool,
    /// What it has, as a host that announces it.
    held: GroupSet,
    reads: Reads,
    /// Up to where it has said what it reads next.
    said_until: u64,
    wants: GroupSet,
    report: Report,
    bad: Option<Vec<HostId>>,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    ToCome,
    Due,
    Told,
}

impl Child {
    /// One that has this and wants the rest, once it is connected.
    pub fn new(node: Node, task: &TaskInfo, held: GroupSet, reads: Reads) -> Self {
        let groups = groups_in(task.length.unwrap_or_default());
        let lot = blake3::hash(&node.to_le_bytes());
        let mut spread = [0; 8];
        spread.copy_from_slice(&lot.as_bytes()[..8]);
        let mut conductor =
            Conductor::new(task.length, task.piece_level, held.clone(), u64::from_le_bytes(spread));
        if reads == Reads::AnyOrder {
            conductor.want(GroupRange::new(0, groups), Priority::Bulk);
        }
        let end = if held.len() >= groups { End::Told } else { End::ToCome };
        Self {
            node,
            task: task.clone(),
            conductor,
            patience: Patience::default(),
            patient_for: PATIENCE.mul_f64(1.0 + f64::from(lot.as_bytes()[8]) / 255.0),
            asked: BTreeMap::new(),
            parents: BTreeSet::new(),
            partners: BTreeSet::new(),
            follows: BTreeSet::new(),
            chose_at: Duration::ZERO,
            was_led: false,
            is_connected: false,
            is_registered: end == End::ToCome,
            stands_in: false,
            held,
            reads,
            said_until: 0,
            wants: GroupSet::new(),
            report: Report::default(),
            bad: None,
            end,
        }
    }

    /// The scheduler is reached: what it is told first, after the host itself.
    pub fn connects(&mut self) -> Vec<Event> {
        self.is_connected = true;
        let mut words = Vec::new();
        if !self.held.is_empty() {
            words.push(self.announces());
        }
        words.push(Event::AnnouncedAll(host(self.node)));
        // Complaints were of the scheduler before it, and what came is announced.
        (self.report, self.bad) = (Report::default(), None);
        if self.is_registered {
            words.push(self.registers());
            if !self.wants.is_empty() {
                words.push(self.wants());
            }
        }
        words
    }

    fn announces(&self) -> Event {
        Event::Announced {
            host: host(self.node),
            task: self.task.clone(),
            held: self.held.clone(),
            digests: Vec::new(),
            stood_in: self.stands_in,
        }
    }

    /// The scheduler is gone.
    pub fn is_alone(&mut self) {
        self.is_connected = false;
        self.conductor.release();
    }

    /// The scheduler has decided something about it.
    pub fn told(&mut self, decision: &Decision, now: Micros, out: &mut Vec<Does>) {
        let clock = clock(now);
        match decision {
            Decision::SendParents { parents, led, .. } => {
                match led {
                    true => self.conductor.lead(clock),
                    false => self.conductor.release(),
                }
                self.set_parents(parents.iter().map(|info| node(&info.id)).collect(), out);
                self.patience.is_answered();
            }
            Decision::SendLeases { leases, withdrawn, partners, .. } => {
                self.meets(partners.iter().map(|info| node(&info.id)));
                self.conductor.lead(clock);
                for id in withdrawn {
                    let actions = self.conductor.withdraw(*id, clock);
                    self.carry_out(actions, out);
                }
                for core::Lease { id, parent, groups } in leases {
                    self.conductor.lease(*id, *parent, *groups, clock);
                }
            }
            Decision::BackToSource { stand_in, .. } => {
                self.stands_in = *stand_in;
                self.conductor.set_source(SourceAccess::Ranges);
            }
            Decision::Refuse { .. } => self.is_registered = false,
            Decision::Recall { host, task } => {
                let lacks = Event::Lacks { host: *host, task: *task };
                let answer = if self.held.is_empty() { lacks } else { self.announces() };
                out.push(Does::Says(Box::new(answer)));
            }
            _ => {}
        }
    }

    /// Those who give by lease, named.
    fn meets(&mut self, partners: impl ExactSizeIterator<Item = Node>) {
        if self.partners.len() + partners.len() > MOST_PARTNERS {
            let asked: BTreeSet<Node> = self.asked.values().map(|one| one.order.from).collect();
            self.partners.retain(|partner| asked.contains(partner));
        }
        self.partners.extend(partners);
    }

    /// What a parent holds too.
    pub fn parent_holds(&mut self, parent: Node, groups: &[GroupRange]) {
        if self.follows.contains(&parent) {
            self.conductor.parent_holds(host(parent), groups);
        }
    }

    /// What it asked for is here.
    pub fn came(&mut self, order: &Order, now: Micros) {
        let Some(Asked { flight, provider, since, .. }) = self.asked.remove(&order.id) else {
            return;
        };
        let groups = groups_of(order);
        let news = self.conductor.arrived(flight, groups, clock(now));
        self.held.insert_range(groups);
        if !self.conductor.is_leased(flight) {
            let cost = clock(now).saturating_sub(clock(since));
            let parent = match provider {
                Provider::Parent(parent) => Some(parent),
                Provider::Source => None,
            };
            news.into_iter().for_each(|run| self.tell_done(run, parent, cost));
        }
        self.patience = Patience::default();
        self.conductor.ended(flight, None, clock(now));
    }

    /// What it asked for does not come.
    pub fn failed(&mut self, order: u64, failure: Failure, now: Micros) {
        let Some(Asked { flight, provider, .. }) = self.asked.remove(&order) else { return };
        let is_leased = self.conductor.is_leased(flight);
        self.conductor.ended(flight, Some(failure), clock(now));
        if failure == Failure::Busy {
            self.patience.excused(clock(now));
        }
        if let (Provider::Parent(parent), false) = (provider, is_leased) {
            self.report.failed.push(Failed { parent, kind: kind(failure) });
        }
    }

    /// What it waits for.
    pub fn asked(&self) -> impl Iterator<Item = (&Order, Micros)> {
        self.asked.values().map(|asked| (&asked.order, asked.since))
    }

    /// Does what follows from all that it was told.
    pub fn act(&mut self, now: Micros, last_order: &mut u64, out: &mut Vec<Does>) {
        let is_led = self.conductor.is_led(clock(now));
        if std::mem::replace(&mut self.was_led, is_led) && !is_led {
            self.keep_to_partners(out);
        }
        self.reads_on(out);
        self.follow_parents(clock(now), out);
        let actions = self.conductor.plan(clock(now));
        self.ask(actions, now, last_order, out);
        self.tell_lease_ends();
        self.is_over(out);
        let wants = self.tell_wants();
        let resort = self.watch_patience(clock(now));
        match resort {
            Resort::Wait => {}
            Resort::Ask => self.complain(out),
            Resort::Source => {
                self.patience = Patience::default();
                self.conductor.set_source(SourceAccess::Ranges);
                let actions = self.conductor.plan(clock(now));
                self.ask(actions, now, last_order, out);
            }
        }
        self.say(wants, out);
    }

    /// Whoever reads from front to back waits for the first that it lacks.
    fn reads_on(&mut self, out: &mut Vec<Does>) {
        let all = GroupRange::new(0, groups_in(self.task.length.unwrap_or_default()));
        let Some(GroupRange { first, .. }) = self.held.missing_in(all).next() else { return };
        match self.reads {
            Reads::AnyOrder => return,
            Reads::FrontToBack => {
                self.conductor.want(GroupRange::new(first, 1), Priority::Demand);
            }
            Reads::Piped => {}
        }
        let ahead = GroupRange::new(first, READ_AHEAD).intersection(all);
        self.conductor.want(ahead, Priority::Bulk);
        let next = GroupRange::new(first, READ_NEXT).intersection(all);
        if next.end() > self.said_until {
            self.said_until = first + READ_NEXT + READ_NEXT / 2;
            self.conductor.reads_next(next);
            if self.is_connected && self.is_registered {
                let mut groups = GroupSet::new();
                groups.insert_range(next);
                let (host, task) = (host(self.node), self.task.id);
                let priority = Priority::ReadAhead;
                out.push(Does::Says(Box::new(Event::Want { host, task, groups, priority })));
            }
        }
    }

    fn ask(
        &mut self,
        actions: Vec<Action>,
        now: Micros,
        last_order: &mut u64,
        out: &mut Vec<Does>,
    ) {
        for action in actions {
            let (flight, provider, groups) = match action {
                Action::Request { flight, parent, groups, .. } => {
                    (flight, Provider::Parent(parent), groups)
                }
                Action::ReadSource { flight, groups: Some(groups), .. } => {
                    (flight, Provider::Source, groups)
                }
                other => {
                    self.carry_out(vec![other], out);
                    continue;
                }
            };
            let from = match provider {
                Provider::Parent(parent) => node(&parent),
                Provider::Source => 0,
            };
            let is_known = self.parents.contains(&from) || self.partners.contains(&from);
            if provider != Provider::Source && !is_known {
                self.conductor.ended(flight, Some(Failure::Disconnected), clock(now));
                continue;
            }
            *last_order += 1;
            let (first, count) = (groups.first as u32, groups.count as u32);
            let order = Order { id: *last_order, from, to: self.node, first, count };
            self.asked.insert(order.id, Asked { flight, provider, order, since: now });
            out.push(Does::Asks(order));
        }
    }

    /// What of what is to be done asks nobody for anything.
    fn carry_out(&mut self, actions: Vec<Action>, out: &mut Vec<Does>) {
        for action in actions {
            match action {
                Action::Cancel(flight) => {
                    let of_it = self.asked.iter().find(|(_, asked)| asked.flight == flight);
                    let Some((id, from)) = of_it.map(|(id, asked)| (*id, asked.order.from)) else {
                        continue;
                    };
                    self.asked.remove(&id);
                    out.push(Does::Stops(id, from));
                }
                Action::AskForParents { bad } => {
                    self.bad.get_or_insert_default().extend(bad);
                }
                Action::Request { .. } | Action::ReadSource { .. } => {}
            }
        }
    }

    fn set_parents(&mut self, parents: BTreeSet<Node>, out: &mut Vec<Does>) {
        let offer = |parent: &Node| Offer {
            host: host(*parent),
            fetches: *parent == 0,
            place: Place::Here,
        };
        let actions = self.conductor.set_parents(parents.iter().map(offer).collect());
        self.carry_out(actions, out);
        let is_news = parents.iter().any(|parent| !self.parents.contains(parent));
        self.partners.retain(|partner| !parents.contains(partner));
        self.parents = parents;
        let gone: Vec<Node> = self.follows.difference(&self.parents).copied().collect();
        gone.iter().for_each(|parent| self.lets_be(*parent, out));
        if !self.parents.is_empty() {
            self.conductor.set_source(SourceAccess::Forbidden);
            if is_news {
                self.patience.has_new_parents();
            }
        }
    }

    fn lets_be(&mut self, parent: Node, out: &mut Vec<Does>) {
        self.follows.remove(&parent);
        out.push(Does::LetsBe(parent));
    }

    /// Nobody says any more who gives what: those who gave so far are parents as good as any.
    fn keep_to_partners(&mut self, out: &mut Vec<Does>) {
        if self.conductor.source() != SourceAccess::Forbidden || self.partners.is_empty() {
            return;
        }
        let mut all = std::mem::take(&mut self.partners);
        all.extend(&self.parents);
        self.set_parents(all, out);
    }

    /// What parents hold is of use to who chooses among them, and lacks something.
    fn follow_parents(&mut self, now: Duration, out: &mut Vec<Does>) {
        if self.is_complete() {
            return;
        }
        if self.conductor.follows_leases_alone(now) {
            if now.saturating_sub(self.chose_at) >= FOLLOWED_FOR {
                self.follows_nobody(out);
            }
            return;
        }
        self.chose_at = now;
        let news: Vec<Node> = self.parents.difference(&self.follows).copied().collect();
        for parent in news {
            self.follows.insert(parent);
            out.push(Does::Follows(parent));
        }
    }

    fn follows_nobody(&mut self, out: &mut Vec<Does>) {
        for parent in std::mem::take(&mut self.follows) {
            out.push(Does::LetsBe(parent));
        }
    }

    /// Whether it has all of it.
    pub fn is_complete(&self) -> bool {
        self.end != End::ToCome || self.held.len() >= groups_in(self.task.length.unwrap_or(0))
    }

    fn is_over(&mut self, out: &mut Vec<Does>) {
        if self.end == End::ToCome && self.is_complete() {
            self.end = End::Due;
            self.follows_nobody(out);
        }
    }

    fn watch_patience(&mut self, now: Duration) -> Resort {
        let stands = Stands {
            is_wanted: self.conductor.flights() > 0 || self.conductor.stuck(),
            is_promising: self.conductor.is_promising(),
            is_led: self.conductor.is_led(now),
            do_leases_fail: self.conductor.do_leases_fail(),
        };
        match self.patience.look(stands, self.patient_for, now) {
            Look::Moves | Look::Led => return Resort::Wait,
            Look::LeasesFail => {
                self.conductor.doubt_leases(now);
                return Resort::Wait;
            }
            Look::Stuck => {}
        }
        let relies_on_swarm = self.conductor.source() == SourceAccess::Forbidden;
        self.patience.resort(self.patient_for, relies_on_swarm && self.is_connected, now)
    }

    fn complain(&mut self, out: &mut Vec<Does>) {
        if self.is_registered {
            let mute = self.conductor.mute_parents();
            return self.bad.get_or_insert_default().extend(mute);
        }
        self.is_registered = true;
        self.conductor.tell_any_order_anew();
        out.push(Does::Says(Box::new(self.registers())));
    }

    fn registers(&self) -> Event {
        let priority = match self.reads {
            Reads::AnyOrder | Reads::Piped => Priority::Bulk,
            Reads::FrontToBack => Priority::Demand,
        };
        Event::Register {
            host: host(self.node),
            task: self.task.clone(),
            wanted: Wanted::All,
            held: GroupSet::new(),
            priority,
        }
    }

    fn wants(&self) -> Event {
        Event::Want {
            host: host(self.node),
            task: self.task.id,
            groups: self.wants.clone(),
            priority: Priority::Bulk,
        }
    }

    fn tell_wants(&mut self) -> Option<Event> {
        if !self.is_registered || self.conductor.source() != SourceAccess::Forbidden {
            return None;
        }
        self.wants = self.conductor.news_of_any_order()?;
        Some(self.wants())
    }

    fn tell_done(&mut self, groups: GroupRange, parent: Option<HostId>, cost: Duration) {
        self.report.done.push(Done { groups, parent, cost_ms: millis(cost) });
    }

    fn tell_lease_ends(&mut self) {
        for LeaseEnd { id, parent, here, cost, outcome } in self.conductor.take_lease_ends() {
            let all = here.first().copied().filter(|_| outcome.tells_groups());
            if !outcome.tells_groups() {
                here.iter().for_each(|run| self.tell_done(*run, Some(parent), cost));
            }
            let failure = match outcome {
                LeaseOutcome::Withdrawn => continue,
                LeaseOutcome::Whole | LeaseOutcome::Part => None,
                LeaseOutcome::Held => Some(LeaseFailure::Held),
                LeaseOutcome::Unwanted => Some(LeaseFailure::Unwanted),
                LeaseOutcome::Failed(failure) => Some(LeaseFailure::Parent(kind(failure))),
            };
            let groups = all.unwrap_or(GroupRange::new(0, 0));
            let cost_ms = millis(cost);
            self.report.leases.push(core::LeaseEnd { id, groups, cost_ms, failure });
        }
    }

    /// All that there is to say, in the order in which it holds.
    fn say(&mut self, wants: Option<Event>, out: &mut Vec<Does>) {
        if !self.is_connected || !self.is_registered {
            return;
        }
        let (host, task) = (host(self.node), self.task.id);
        if self.report != Report::default() {
            let report = std::mem::take(&mut self.report);
            out.push(Does::Says(Box::new(Event::Progress { host, task, report })));
        }
        out.extend(wants.map(|wants| Does::Says(Box::new(wants))));
        if self.end == End::Due {
            self.end = End::Told;
            let (outcome, taken) = (Outcome::Success, Taken::default());
            out.push(Does::Says(Box::new(Event::PeerResult { host, task, outcome, taken })));
        }
        if let Some(bad_parents) = self.bad.take() {
            out.push(Does::Says(Box::new(Event::Reschedule { host, task, bad_parents })));
        }
    }
}

/// What the source says that is told to obtain something: it has it all.
pub fn obtained(task: &TaskInfo, seed: Node, obtain: u64) -> Vec<Event> {
    let all = GroupSet::full(groups_in(task.length.unwrap_or_default()));
    let obtaining = SeedEvent::Obtaining { length: task.length, held: all, tiny: None };
    let digests = SeedEvent::Digests(Bytes::from_static(b"digests"));
    let said = [obtaining, digests, SeedEvent::Ended];
    let event = |event| Event::Seed { seed: host(seed), task: task.id, obtain, event };
    said.map(event).into()
}

/// The groups of an order.
pub fn groups_of(order: &Order) -> GroupRange {
    GroupRange::new(order.first.into(), order.count.into())
}

fn clock(now: Micros) -> Duration {
    Duration::from_micros(now.0)
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

fn kind(failure: Failure) -> FailureKind {
    match failure {
        Failure::NotHeld => FailureKind::NotHeld,
        Failure::Unvouched => FailureKind::Unvouched,
        Failure::Busy => FailureKind::Busy,
        Failure::Disconnected => FailureKind::Disconnected,
        Failure::Timeout => FailureKind::Timeout,
        Failure::BadDigest => FailureKind::BadDigest,
        Failure::OriginFailed | Failure::Void => FailureKind::Origin,
        Failure::Other => FailureKind::Other,
    }
}
