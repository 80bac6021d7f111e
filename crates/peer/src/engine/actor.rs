//! The owner of one task's download: feeds the conductor, carries its decisions out.
//!
//! One actor a task; it alone mutates the conductor. Flights are tasks of their own that verify, keep
//! and report. When the process dies here, what was kept is kept and the rest is fetched again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dfs_model::{GROUP_BYTES, GroupRange, HostId, HostInfo, Invariant, Priority, same_idc};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::copies::Copies;
use super::error::ReadError;
use super::flight::{Asking, Fault, FlightEvent, Flights, Lacking, Word};
use super::ledger::CameFrom;
use super::patience::{Look, Patience, Resort, Stands};
use super::reserves::Reserves;
use super::task::{Command, Lease, ParentHost, Shared, Task, Waiter, Wanted};
use super::watcher;
use crate::conductor::{
    Action, Conductor, Failure, FlightId, HedgeCount, LeaseEnd, LeaseOutcome, Offer, Place,
    Provider, SourceAccess,
};
use crate::swarm::{Swarm, route_of};

/// From when on a download of which nothing is wanted rests: parts of one are asked for one after the other.
const RESTED: Duration = Duration::from_secs(1);

/// How often a download that is not idle is looked at without an event.
const TICK: Duration = Duration::from_millis(100);

/// How long parents are followed that nothing is chosen from any more: each group that they get is a message from each
/// of them, and a reader may want to choose again soon.
const FOLLOWED_FOR: Duration = Duration::from_secs(1);

/// How long what nobody wants any more goes on.
const UNWANTED_FOR: Duration = Duration::from_secs(20);

/// Commands and events taken before the conductor is asked again.
const BATCH: usize = 64;

/// Those who give by lease whose addresses are kept.
const MOST_PARTNERS: usize = 256;

/// Whether a seed may be there still.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seeds {
    There,
    Gone,
}

pub(super) struct Actor {
    engine: Arc<Inner>,
    shared: Arc<Shared>,
    conductor: Conductor,
    flights: Flights,
    under_way: HashMap<FlightId, (Provider, CancellationToken)>,
    /// Each with what ends the following of what it holds, once that has begun.
    parents: HashMap<HostId, (ParentHost, Option<CancellationToken>)>,
    /// Those who give by lease.
    partners: HashMap<HostId, ParentHost>,
    /// Parents and partners as they were when a neighbour came to lead.
    before: HashMap<HostId, ParentHost>,
    /// Of a seed: the one of an area nearer to the origin that it takes from.
    nearer: Option<HostId>,
    /// What that failed with since it gave something.
    nearer_failure: Option<Failure>,
    waiters: Vec<Waiter>,
    /// What is looked for in other tasks first.
    copies: Copies,
    began: Instant,
    patience: Patience,
    /// Who reads the origin for this host's place when nobody else does.
    reserves: Reserves,
    /// When it chose among its parents last.
    chose_at: Duration,
    /// Events that flights have reported to it.
    heard: u64,
    /// Since when nothing is wanted of what is under way.
    unwanted_since: Option<Duration>,
    /// Whether what is wanted in any order came by leases when that was looked at last.
    was_led: bool,
    told_swarm: bool,
    told_end: bool,
    /// When the swarm was asked for a download; none of one that rested meanwhile.
    asked_at: Option<Instant>,
    /// Since when nothing is wanted and nothing under way.
    idle_since: Option<Duration>,
    stop: CancellationToken,
}

impl Actor {
    pub(super) fn new(
        engine: Arc<Inner>,
        shared: Arc<Shared>,
        conductor: Conductor,
        stop: CancellationToken,
    ) -> (Self, mpsc::Receiver<FlightEvent>) {
        let (flights, events) =
            Flights::new(Arc::clone(&engine), Arc::clone(&shared), stop.clone());
        let actor = Self {
            engine,
            shared,
            conductor,
            flights,
            under_way: HashMap::new(),
            parents: HashMap::new(),
            partners: HashMap::new(),
            before: HashMap::new(),
            nearer: None,
            nearer_failure: None,
            waiters: Vec::new(),
            copies: Copies::default(),
            began: Instant::now(),
            patience: Patience::default(),
            reserves: Reserves::default(),
            chose_at: Duration::ZERO,
            heard: 0,
            unwanted_since: None,
            was_led: false,
            told_swarm: false,
            told_end: false,
            asked_at: None,
            idle_since: None,
            stop,
        };
        (actor, events)
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut events: mpsc::Receiver<FlightEvent>,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let busy = self.is_busy();
            let hedge = self.conductor.next_hedge(self.now()).map(|due| self.began + due);
            let hedge_due = tokio::time::sleep_until(hedge.unwrap_or(self.began));
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(event) = events.recv() => self.event(event),
                Some(command) = commands.recv() => self.command(command),
                () = hedge_due, if hedge.is_some() => {}
                _ = tick.tick(), if busy => {
                    self.sweep_waiters();
                    self.give_up_unwanted(self.now());
                }
                else => break,
            }
            for _ in 0..BATCH {
                if let Ok(event) = events.try_recv() {
                    self.event(event);
                } else if let Ok(command) = commands.try_recv() {
                    self.command(command);
                } else {
                    break;
                }
            }
            self.act();
            let busy = self.looks_whether_busy();
            self.shared.busy.store(busy, Ordering::Relaxed);
            let wanted = Wanted { events: self.heard, span: self.conductor.wanted_span() };
            self.shared.wanted.send_if_modified(|told| std::mem::replace(told, wanted) != wanted);
        }
        let closing = ReadError::Closing(self.shared.info.id);
        self.fail_waiters(None, &closing);
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn is_busy(&self) -> bool {
        !self.conductor.is_idle() || !self.waiters.is_empty() || self.copies.is_busy()
    }

    /// Whether it is, and notes since when it is not.
    fn looks_whether_busy(&mut self) -> bool {
        let busy = self.is_busy();
        self.idle_since = if busy { None } else { self.idle_since.or(Some(self.now())) };
        busy
    }

    /// How long a download took says nothing where nobody wanted it for a while.
    fn wakes(&mut self) {
        let rested = self.idle_since.take().map(|since| self.now().saturating_sub(since));
        if rested.is_some_and(|span| span >= RESTED) {
            self.asked_at = None;
        }
    }

    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Want { groups, priority, waiter } => self.want(groups, priority, waiter),
            Command::Abandoned => self.sweep_waiters(),
            Command::ReadsNext(groups) => {
                self.conductor.reads_next(groups);
                if let Some(swarm) = self.engine.swarm.as_ref().filter(|_| self.told_swarm) {
                    swarm.reads_next(self.shared.info.id, groups);
                }
            }
            Command::Parents { parents, led } => {
                // Who is led follows no parent.
                match led {
                    true => self.conductor.lead(self.now()),
                    false => self.conductor.release(),
                }
                self.set_parents(parents);
                self.patience.is_answered();
            }
            Command::Leases { leases, withdrawn, partners } => {
                self.leased(leases, withdrawn, partners);
            }
            Command::Holds { host, groups } => self.conductor.parent_holds(host, &groups),
            Command::Source(access) => {
                self.look_for_nearer();
                if self.nearer.is_none() {
                    self.conductor.set_source(access);
                }
            }
            Command::BackToSource { reason, stand_in } => {
                let stood_in = self.shared.stands_in.swap(stand_in, Ordering::Relaxed);
                if stand_in && !stood_in {
                    self.flights.keep_word(Word::StandsIn);
                }
                self.back_to_source(&reason, if stand_in { Seeds::Gone } else { Seeds::There });
            }
            Command::Reserves(reserves) => {
                self.reserves.named(reserves);
                let is_one = self.reserves.has(self.engine.identity.host());
                self.shared.is_reserve.store(is_one, Ordering::Relaxed);
            }
            Command::Signers { keys, appointments } => {
                self.engine.keyring.learn_stand_ins(self.shared.info.id, keys);
                self.flights.keep_appointments(appointments);
                self.conductor.are_vouched_for(GroupRange::new(0, u64::MAX));
            }
            Command::Refused(error) => self.refused(&error),
            // The next want asks anew; whoever waits now has this host's patience.
            Command::Unregistered => self.told_swarm = false,
            Command::Unled => self.conductor.release(),
            Command::Delegated => {
                self.before = self.known();
                self.conductor.release();
            }
            Command::Digests(digests) => {
                let proven = digests.batch().entries.iter().map(|(node, _)| node.unclipped());
                proven.for_each(|groups| self.conductor.are_vouched_for(groups));
                self.flights.keep_word(Word::Digests(*digests));
            }
            Command::Tiny { whole, looked_at } => self.flights.keep_tiny(whole, looked_at),
            Command::Lost(groups) => {
                // It may have come again since.
                self.take_note_of_lost(groups);
            }
            Command::Doubted(host) => {
                if self.nearer == Some(host) {
                    self.take_from_next();
                }
            }
        }
    }

    /// The scheduler will not have this peer: whoever waits is told.
    fn refused(&mut self, error: &ReadError) {
        if let Some(swarm) = &self.engine.swarm {
            let task = Task::new(Arc::clone(&self.shared), None);
            swarm.gave_up(self.shared.info.id, error.to_string(), task.ledger());
        }
        self.told_swarm = false;
        self.asked_at = None;
        self.fail_waiters(None, error);
    }

    fn want(&mut self, groups: GroupRange, priority: Priority, waiter: Option<Waiter>) {
        if !self.let_through(groups).is_empty() {
            self.begin_to_ask(priority);
        }
        if waiter.is_some() {
            // The store is right about what is here: verification may have found some of it bad.
            let missing = self.shared.stored.missing_in(groups);
            missing.into_iter().for_each(|run| self.lost(run));
            self.conductor.forgive(groups);
        }
        // Of what cannot be kept nothing is fetched but what a reader takes from memory.
        let has_room = !self.shared.room.is_lacking(Instant::now());
        let Some(waiter) = waiter else {
            if has_room {
                self.ask_for(groups, priority);
                if self.holds_back() {
                    self.copies.hold_back(groups, priority);
                }
                self.look_for_more();
            }
            return;
        };
        let full = || Err(self.shared.stored.full().into());
        let is_futile = !has_room && !waiter.in_passing;
        match self.answer_for(&waiter).or_else(|| is_futile.then(full)) {
            Some(answer) => {
                // The reader may have gone: nobody to tell then.
                let _ = waiter.done.send(answer);
            }
            None if self.want_for(&waiter) => {
                self.waiters.push(waiter);
                self.look_for_more();
            }
            // It came this moment.
            None => {
                let _ = waiter.done.send(Ok(()));
            }
        }
    }

    /// Before others are asked for anything.
    fn begin_to_ask(&mut self, priority: Priority) {
        self.wakes();
        self.look_for_nearer();
        self.tell_swarm(priority);
    }

    /// Whether anything is looked for in other tasks first. What could not be kept is not.
    fn holds_back(&self) -> bool {
        let has_others = self.shared.earlier.get().is_some_and(|earlier| earlier.has_others());
        has_others && !self.shared.room.is_lacking(Instant::now())
    }

    /// Those of `groups` that others may be asked for by now.
    fn let_through(&self, groups: GroupRange) -> Vec<GroupRange> {
        match self.holds_back() {
            true => self.copies.let_through(self.existing(groups)).collect(),
            false => vec![groups],
        }
    }

    /// Wants what of `groups` is not looked for here first.
    fn ask_for(&mut self, groups: GroupRange, priority: Priority) {
        for run in self.let_through(groups) {
            self.conductor.want(run, priority);
        }
    }

    /// Looks for more of what is wanted in other tasks, as far as it is its turn.
    fn look_for_more(&mut self) {
        while self.holds_back() {
            let awaited = self.waiters.iter().map(|waiter| (waiter.priority, waiter.groups));
            let count = self.shared.shape().groups().unwrap_or(0);
            let all = GroupRange::new(0, count);
            let stored = &self.shared.stored;
            let missing = |groups: GroupRange| stored.missing_in(groups.intersection(all));
            let Some(groups) = self.copies.next(awaited, missing) else { return };
            self.flights.copy(groups);
        }
    }

    /// What other tasks have of `groups` is here: others are asked for what they have not. Where nothing is held back any
    /// more, they are asked for all that somebody waits for: of the rest nobody may have begun to look for anything.
    fn looked_for(&mut self, groups: GroupRange) {
        let unawaited = self.copies.ended(groups);
        let holds_back = self.holds_back();
        let missing = self.shared.stored.missing_in(groups);
        let lacks =
            |wanted: GroupRange| missing.iter().any(|run| !run.intersection(wanted).is_empty());
        let awaited = self.waiters.iter().map(|waiter| (waiter.priority, waiter.groups));
        let all = awaited.chain(unawaited.iter().copied());
        let most_urgent = all.filter(|(_, groups)| !holds_back || lacks(*groups));
        let most_urgent = most_urgent.map(|(priority, _)| priority);
        if let Some(priority) = most_urgent.min() {
            self.begin_to_ask(priority);
            if !self.shared.room.is_lacking(Instant::now()) {
                unawaited.into_iter().for_each(|(priority, run)| self.ask_for(run, priority));
            }
            self.want_for_waiters();
        }
        self.look_for_more();
    }

    /// Groups turned out damaged: whoever was told that they are here is told that they are not.
    fn lost(&mut self, groups: GroupRange) {
        for run in self.conductor.lost(groups) {
            if let Some(swarm) = self.engine.swarm.as_ref().filter(|_| self.told_swarm) {
                swarm.lost(self.shared.info.id, run);
            }
        }
    }

    /// Those of `groups` that the store does not have are lost; who waits for them and for others has seen them come once.
    fn take_note_of_lost(&mut self, groups: GroupRange) {
        let missing = self.shared.stored.missing_in(self.existing(groups));
        if missing.is_empty() {
            return;
        }
        missing.into_iter().for_each(|run| self.lost(run));
        self.want_for_waiters();
    }

    /// The first want registers the peer with its scheduler.
    fn tell_swarm(&mut self, priority: Priority) {
        if self.told_swarm || self.conductor.source() != SourceAccess::Forbidden {
            return;
        }
        self.told_swarm = true;
        if priority == Priority::Bulk {
            self.asked_at.get_or_insert_with(Instant::now);
        }
        self.conductor.tell_any_order_anew();
        let Some(swarm) = &self.engine.swarm else { return };
        swarm.register(&self.shared.info, priority, self.shared.commands.clone());
        let seeds = swarm.seeds_without_scheduler(&route_of(&self.shared.info.key));
        if !seeds.is_empty() {
            self.set_parents(seeds.into_iter().map(ParentHost::seed).collect());
        }
    }

    /// `Some` when the waiter has nothing more to wait for.
    fn answer_for(&self, waiter: &Waiter) -> Option<Result<(), ReadError>> {
        let groups = self.existing(waiter.groups);
        let is_here = match waiter.in_passing {
            true => self.shared.outstanding(groups).is_empty(),
            false => self.shared.stored.has(groups),
        };
        is_here.then_some(Ok(()))
    }

    fn event(&mut self, event: FlightEvent) {
        self.heard += 1;
        let now = self.now();
        match event {
            FlightEvent::Kept { flight, groups, from, cost } => {
                let news = self.conductor.arrived(flight, groups, now);
                let twice = groups.count - news.iter().map(|run| run.count).sum::<u64>();
                if twice > 0 {
                    self.engine.hedges.lock().twice += twice * GROUP_BYTES;
                }
                if !self.conductor.is_leased(flight) {
                    news.into_iter().for_each(|run| self.tell_done(run, from.clone(), cost));
                }
                self.kept(groups);
                // It may have been taken out before this was heard.
                self.take_note_of_lost(groups);
            }
            FlightEvent::Copied { groups } => {
                self.conductor.here(groups);
                self.kept(groups);
            }
            FlightEvent::LookedFor { groups } => self.looked_for(groups),
            FlightEvent::Passed { flight, groups, error } => self.passed(flight, groups, &error),
            FlightEvent::Void { flight, groups, error } => self.void(flight, groups, error),
            FlightEvent::Tiny { seed } => {
                let all = GroupRange::new(0, 1);
                self.conductor.here(all);
                self.shared.provenance.name(seed, "seed", dfs_model::HostKind::Seed);
                self.tell_done(all, CameFrom::Parent(seed), Duration::ZERO);
                self.kept(all);
            }
            FlightEvent::Length(length) => {
                self.conductor.set_length(length);
                if self.is_complete() {
                    self.completed();
                }
                self.release_waiters(None);
            }
            FlightEvent::Ended { flight, fault } => self.ended(flight, fault, now),
        }
    }

    /// A member that changed at the origin: only who waits for its groups is told.
    fn void(&mut self, flight: FlightId, groups: GroupRange, error: ReadError) {
        tracing::debug!(%groups, %error, "groups that the origin does not have any more");
        self.conductor.void(flight, groups);
        self.shared.voids.add(groups, error.clone(), Instant::now());
        self.fail_waiters(Some(groups), &error);
    }

    /// The store is full: from now on only readers are served, from memory; whoever wants bytes to be kept is
    /// told, and what nobody waits for is not fetched.
    fn passed(&mut self, flight: FlightId, groups: GroupRange, error: &ReadError) {
        self.conductor.void(flight, groups);
        self.patience = Patience::default();
        self.release_waiters(Some(groups));
        let waiting = std::mem::take(&mut self.waiters);
        let (readers, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|w| w.in_passing);
        self.waiters = readers;
        for waiter in others {
            // The reader may have gone: nobody to tell then.
            let _ = waiter.done.send(Err(error.clone()));
        }
        self.conductor.forget(GroupRange::new(0, u64::MAX));
        self.copies.drop_unawaited();
        self.want_for_waiters();
        let actions = self.conductor.drop_unwanted();
        self.carry_out(actions);
    }

    /// The scheduler hears what came, and from whom.
    fn tell_done(&self, groups: GroupRange, from: CameFrom, cost: Duration) {
        let Some(swarm) = self.engine.swarm.as_ref().filter(|_| self.told_swarm) else { return };
        let parent = match from {
            CameFrom::Parent(host) => Some(host),
            CameFrom::Source | CameFrom::Here => None,
        };
        swarm.done(self.shared.info.id, groups, parent, cost);
    }

    /// And what came of its leases.
    fn tell_lease_ends(&mut self) {
        for end in self.conductor.take_lease_ends() {
            let LeaseEnd { id, parent, here, cost, outcome } = &end;
            if !outcome.tells_groups() {
                tracing::debug!(lease = id, %parent, ?outcome, ?here, "a lease came to nothing");
                let from = || CameFrom::Parent(*parent);
                here.iter().for_each(|run| self.tell_done(*run, from(), *cost));
            }
            let swarm = self.engine.swarm.as_ref().filter(|_| self.told_swarm);
            if let Some(swarm) = swarm.filter(|_| *outcome != LeaseOutcome::Withdrawn) {
                swarm.lease_ended(self.shared.info.id, end);
            }
        }
    }

    /// And what it is to have brought in any order.
    fn tell_wants(&mut self) {
        if !self.told_swarm || self.conductor.source() != SourceAccess::Forbidden {
            return;
        }
        let Some(wanted) = self.conductor.news_of_any_order() else { return };
        if let Some(swarm) = &self.engine.swarm {
            swarm.want(self.shared.info.id, &wanted);
        }
    }

    fn leased(&mut self, leases: Vec<Lease>, withdrawn: Vec<u64>, partners: Vec<ParentHost>) {
        let now = self.now();
        if self.partners.len() + partners.len() > MOST_PARTNERS {
            // Whoever is leased and not known is named anew.
            self.partners.retain(|host, _| {
                self.under_way.values().any(|(provider, _)| *provider == Provider::Parent(*host))
            });
        }
        for partner in partners {
            let host = &partner.host;
            self.shared.provenance.name(host.id, &host.name, host.kind);
            if let Some((parent, _)) = self.parents.get_mut(&host.id) {
                parent.is_at(&partner);
            }
            self.partners.insert(host.id, partner);
        }
        self.conductor.lead(now);
        for id in withdrawn {
            let actions = self.conductor.withdraw(id, now);
            self.carry_out(actions);
        }
        for Lease { id, parent, groups } in leases {
            self.conductor.lease(id, parent, groups, now);
        }
    }

    fn kept(&mut self, groups: GroupRange) {
        // No subscriber is no loss.
        let _ = self.shared.gained.send(groups);
        self.reserves.rest();
        if self.is_complete() {
            self.completed();
        }
        self.patience = Patience::default();
        self.release_waiters(Some(groups));
    }

    /// Everything is here: the swarm is told once, and nobody is followed any more. Two who follow each other
    /// would keep each other's task open for ever.
    fn completed(&mut self) {
        self.tell_lease_ends();
        self.follow_nobody();
        if let Some(earlier) = self.shared.earlier.get() {
            earlier.is_done();
        }
        if self.told_swarm
            && !self.told_end
            && let Some(swarm) = &self.engine.swarm
        {
            self.told_end = true;
            let task = Task::new(Arc::clone(&self.shared), None);
            let took = self.asked_at.map(|asked| asked.elapsed());
            swarm.complete(self.shared.info.id, task.ledger(), took);
        }
    }

    fn is_complete(&self) -> bool {
        let groups = self.shared.shape().groups();
        groups.is_some_and(|count| self.shared.stored.has(GroupRange::new(0, count)))
    }

    fn ended(&mut self, flight: FlightId, fault: Option<Fault>, now: Duration) {
        let provider = self.under_way.remove(&flight).map(|(provider, _)| provider);
        let is_leased = self.conductor.is_leased(flight);
        let is_of_nearer = self.nearer.is_some_and(|host| provider == Some(Provider::Parent(host)));
        let is_beside = self.conductor.is_beside(flight);
        match fault {
            None => {
                if is_of_nearer {
                    self.nearer_failure = None;
                }
                self.conductor.ended(flight, None, now);
            }
            Some(Fault::Parent { failure, groups, reason }) => {
                tracing::debug!(?failure, %groups, reason, "a parent did not deliver");
                self.conductor.ended(flight, Some(failure), now);
                if failure == Failure::Busy {
                    self.patience.excused(now);
                }
                if is_of_nearer {
                    return self.nearer_failed(failure);
                }
                if let (Some(swarm), Some(Provider::Parent(host)), Failure::BadDigest) =
                    (&self.engine.swarm, provider, failure)
                {
                    swarm.lied(self.shared.info.id, groups, host);
                }
                // What a lease came to is told when it ends. Who was not to fetch it may lack it.
                let is_told = is_leased || (is_beside && failure == Failure::NotHeld);
                if let (Some(swarm), Some(Provider::Parent(host)), false) =
                    (&self.engine.swarm, provider, is_told)
                {
                    swarm.failed(self.shared.info.id, groups, host, failure);
                }
                if failure == Failure::OriginFailed {
                    self.fail_hopeless(groups, ReadError::Swarm(reason));
                }
            }
            Some(Fault::Void { group, error }) => {
                self.void(flight, GroupRange::new(group, 1), error);
                self.conductor.ended(flight, Some(Failure::Void), now);
            }
            Some(Fault::NoCredentials { groups, reason }) => {
                self.conductor.ended(flight, Some(Failure::OriginFailed), now);
                // Asked by this host itself, with its own credentials, the origin gives or says why not.
                let is_known = self.shared.origin.lock().is_some();
                match is_known {
                    true => self.back_to_source(&reason, Seeds::There),
                    false => self.fail_hopeless(groups, ReadError::NotPermitted(reason)),
                }
            }
            Some(Fault::NoRanges) => {
                self.conductor.given_up(flight);
                self.conductor.set_source(SourceAccess::Sequential);
            }
            Some(Fault::Fatal { groups, error }) => {
                self.conductor.given_up(flight);
                self.conductor.forget(groups);
                self.fail_waiters(Some(groups), &error);
            }
        }
    }

    /// The seed cannot get it: if nobody else can either, whoever waits is told.
    fn fail_hopeless(&mut self, groups: GroupRange, error: ReadError) {
        if self.conductor.source() != SourceAccess::Forbidden {
            return;
        }
        if self.conductor.can_come(groups) {
            return;
        }
        // Left as it is, the next reader would wait for nothing and then burden an origin that is failing.
        self.conductor.give_up(groups);
        self.fail_waiters(Some(groups), &error);
    }

    fn release_waiters(&mut self, arrived: Option<GroupRange>) {
        let mut at = 0;
        while at < self.waiters.len() {
            let touched =
                arrived.is_none_or(|run| !run.intersection(self.waiters[at].groups).is_empty());
            match touched.then(|| self.answer_for(&self.waiters[at])).flatten() {
                Some(answer) => {
                    let waiter = self.waiters.swap_remove(at);
                    if answer.is_ok() {
                        self.tell_blocked(&waiter);
                    }
                    // The reader may have gone: nobody to tell then.
                    let _ = waiter.done.send(answer);
                }
                None => at += 1,
            }
        }
    }

    /// Somebody's read has waited for what came.
    fn tell_blocked(&self, waiter: &Waiter) {
        let swarm = self.engine.swarm.as_ref().filter(|_| self.told_swarm);
        if let Some(swarm) = swarm.filter(|_| waiter.priority == Priority::Demand) {
            swarm.blocked(self.shared.info.id, waiter.since.elapsed());
        }
    }

    fn fail_waiters(&mut self, groups: Option<GroupRange>, error: &ReadError) {
        let affected = |waiter: &Waiter| {
            groups.is_none_or(|groups| !groups.intersection(waiter.groups).is_empty())
        };
        let (failed, kept) = std::mem::take(&mut self.waiters).into_iter().partition(affected);
        self.waiters = kept;
        for waiter in failed {
            self.conductor.forget(waiter.groups);
            // The reader may have gone: nobody to tell then.
            let _ = waiter.done.send(Err(error.clone()));
        }
        self.want_for_waiters();
    }

    /// Drops what only readers wanted who have gone.
    fn sweep_waiters(&mut self) {
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiters).into_iter().partition(|w| w.done.is_closed());
        self.waiters = kept;
        if gone.is_empty() {
            return;
        }
        gone.iter().for_each(|waiter| self.conductor.forget(waiter.groups));
        self.want_for_waiters();
    }

    /// What goes on and is wanted by nobody is given up after a while: whoever left may come back, and a stream of
    /// everything would begin anew; but one that is slow, or has no end, would go on for ever.
    fn give_up_unwanted(&mut self, now: Duration) {
        if !self.conductor.is_unwanted() {
            self.unwanted_since = None;
            return;
        }
        let since = *self.unwanted_since.get_or_insert(now);
        if now.saturating_sub(since) >= UNWANTED_FOR {
            tracing::info!(task = %self.shared.info.id.short(), "nobody waits for it any more: given up");
            let actions = self.conductor.drop_all();
            self.carry_out(actions);
        }
    }

    /// Wants what waiters lack. Who lacks nothing is told here: the flight that handed it over may be given up before
    /// it says so, as nothing of it is wanted any more.
    fn want_for_waiters(&mut self) {
        for waiter in std::mem::take(&mut self.waiters) {
            if self.want_for(&waiter) {
                self.waiters.push(waiter);
            } else {
                // The reader may have gone: nobody to tell then.
                let _ = waiter.done.send(Ok(()));
            }
        }
    }

    /// Wants what a waiter lacks; whether that is anything.
    fn want_for(&mut self, waiter: &Waiter) -> bool {
        if !waiter.in_passing {
            self.ask_for(waiter.groups, waiter.priority);
            return true;
        }
        let outstanding = self.shared.outstanding(self.existing(waiter.groups));
        outstanding.iter().for_each(|run| self.ask_for(*run, waiter.priority));
        !outstanding.is_empty()
    }

    /// Those of `groups` that the content has, as far as that is known.
    fn existing(&self, groups: GroupRange) -> GroupRange {
        match self.shared.shape().groups() {
            Some(count) => groups.intersection(GroupRange::new(0, count)),
            None => groups,
        }
    }

    fn set_parents(&mut self, parents: Vec<ParentHost>) {
        let here = self.engine.swarm.as_ref().map(Swarm::idc).unwrap_or_default();
        // Whoever does not say where it is, is elsewhere for those who do.
        let is_here = |idc: &str| here.is_empty() || same_idc(here, idc) == Some(true);
        let place = |host: &HostInfo| match is_here(&host.location.idc) {
            true => Place::Here,
            false => Place::Elsewhere,
        };
        let offer = |parent: &ParentHost| Offer {
            host: parent.host.id,
            fetches: parent.fetches,
            place: place(&parent.host),
        };
        let offers = parents.iter().map(offer).collect();
        let actions = self.conductor.set_parents(offers);
        self.carry_out(actions);
        let names = parents.iter().map(|parent| parent.host.name.clone());
        *self.shared.parents.lock() = names.collect();
        let old = std::mem::take(&mut self.parents);
        for (host, (known, watching)) in &old {
            let stays = |parent: &ParentHost| parent.host.id == *host && parent.is_where(known);
            if let Some(watching) = watching.as_ref().filter(|_| !parents.iter().any(stays)) {
                watching.cancel();
            }
        }
        // The same ones named again are no news: what stands still goes on standing still.
        let is_news = parents.iter().any(|parent| !old.contains_key(&parent.host.id));
        for parent in parents {
            let host = parent.host.id;
            self.shared.provenance.name(host, &parent.host.name, parent.host.kind);
            // Where it was named last is where it is.
            self.partners.entry(host).and_modify(|partner| partner.is_at(&parent));
            let watching = match old.get(&host) {
                Some((known, watching)) if known.is_where(&parent) => watching.clone(),
                _ => None,
            };
            self.parents.insert(host, (parent, watching));
        }
        self.follow_parents();
        if !self.parents.is_empty() && !self.engine.reads_origin_of(&self.shared.info) {
            self.conductor.set_source(SourceAccess::Forbidden);
            if is_news {
                self.patience.has_new_parents();
            }
        }
    }

    /// Nobody says any more who gives what: those who gave so far are parents as good as any.
    fn keep_to_partners(&mut self) {
        let knows_others = !self.partners.is_empty() || !self.before.is_empty();
        if self.conductor.source() != SourceAccess::Forbidden || !knows_others {
            return;
        }
        let mut all = self.before.clone();
        all.extend(self.known());
        self.set_parents(all.into_values().collect());
    }

    fn all_parents(&self) -> impl Iterator<Item = ParentHost> + '_ {
        self.parents.values().map(|(parent, _)| parent.clone())
    }

    /// Those who give, or have given by lease.
    fn known(&self) -> HashMap<HostId, ParentHost> {
        let all = self.partners.values().cloned().chain(self.all_parents());
        all.map(|known| (known.host.id, known)).collect()
    }

    /// What parents hold is of use to who chooses among them, and lacks something.
    fn follow_parents(&mut self) {
        let now = self.now();
        if self.is_complete() {
            return;
        }
        if self.conductor.follows_leases_alone(now) {
            if now.saturating_sub(self.chose_at) >= FOLLOWED_FOR {
                self.follow_nobody();
            }
            return;
        }
        self.chose_at = now;
        for (parent, watching) in self.parents.values_mut() {
            if watching.as_ref().is_none_or(CancellationToken::is_cancelled) {
                *watching = Some(watcher::watch(&self.engine, &self.shared, parent, &self.stop));
            }
        }
    }

    fn follow_nobody(&mut self) {
        let followed = self.parents.values_mut().filter_map(|(_, watching)| watching.take());
        followed.for_each(|watching| watching.cancel());
    }

    fn back_to_source(&mut self, reason: &str, seeds: Seeds) {
        let origin = self.shared.origin.lock().clone();
        match origin {
            Some(origin) => {
                tracing::info!(task = %self.shared.info.id.short(), reason, "going back to source");
                let ranges = origin.ranges();
                let access = if ranges { SourceAccess::Ranges } else { SourceAccess::Sequential };
                // Of a seed that hangs nothing is waited for. What others would fetch this host fetches.
                let is_gone = |parent: &ParentHost| parent.fetches && seeds == Seeds::Gone;
                let parents = self.all_parents().filter(|parent| !is_gone(parent));
                let parents = parents.map(|parent| ParentHost { fetches: false, ..parent });
                self.set_parents(parents.collect());
                self.conductor.set_source(access);
            }
            None => {
                let text = format!("no parent delivers, and the origin is unknown here ({reason})");
                self.fail_waiters(None, &ReadError::Swarm(text));
            }
        }
    }

    /// A seed reads an origin itself only where no area is nearer to it, or nobody there gives.
    fn look_for_nearer(&mut self) {
        let Some(nearer) = self.engine.nearer.get() else { return };
        let streams = self.conductor.source() == SourceAccess::Sequential;
        if self.conductor.flights() > 0 && (streams || self.nearer.is_some()) {
            return;
        }
        let found = nearer.seed_for(&self.shared.info, Instant::now());
        let is_taken = |seed: &HostInfo| {
            let parent = self.parents.get(&seed.id).filter(|_| self.nearer == Some(seed.id));
            parent.is_some_and(|(parent, _)| parent.host.addresses == seed.addresses)
        };
        if !found.as_ref().map_or(self.nearer.is_none(), is_taken) {
            self.take_from(found);
        }
    }

    /// Takes from a seed of another area, or from the origin.
    fn take_from(&mut self, nearer: Option<HostInfo>) {
        self.nearer = nearer.as_ref().map(|seed| seed.id);
        self.nearer_failure = None;
        self.patience = Patience::default();
        let Some(host) = nearer else {
            self.set_parents(Vec::new());
            return self.back_to_source("no seed of another area gives it", Seeds::There);
        };
        let task = self.shared.info.id.short();
        tracing::debug!(%task, seed = host.name, "taken from another area");
        self.conductor.set_source(SourceAccess::Forbidden);
        self.set_parents(vec![ParentHost::seed(host)]);
    }

    /// The seed of another area did not deliver. What it says of the origin, that may say to this host itself.
    fn nearer_failed(&mut self, failure: Failure) {
        self.nearer_failure = Some(failure);
        if matches!(failure, Failure::OriginFailed | Failure::BadDigest) {
            self.give_up_nearer();
        }
    }

    /// Does without it for a while: in this task where it answers, and altogether where it does not.
    fn give_up_nearer(&mut self) {
        let (Some(host), Some(nearer)) = (self.nearer, self.engine.nearer.get()) else { return };
        let (task, now) = (&self.shared.info, Instant::now());
        let failure = self.nearer_failure;
        let answers = matches!(
            failure,
            Some(
                Failure::NotHeld
                    | Failure::Busy
                    | Failure::OriginFailed
                    | Failure::Unvouched
                    | Failure::Other
            )
        );
        nearer.doubt(host, answers.then_some(task.id), now);
        let short = task.id.short();
        tracing::info!(task = %short, seed = %host, ?failure, "another area does not give it");
        self.take_from_next();
    }

    fn take_from_next(&mut self) {
        let Some(nearer) = self.engine.nearer.get() else { return };
        self.take_from(nearer.seed_for(&self.shared.info, Instant::now()));
    }

    fn act(&mut self) {
        let now = self.now();
        let is_led = self.conductor.is_led(now);
        if is_led != self.was_led {
            self.was_led = is_led;
            let missing = self.conductor.wanted_span();
            tracing::debug!(task = %self.shared.info.id.short(), is_led, ?missing, "leases");
            if !is_led {
                self.keep_to_partners();
            }
        }
        self.follow_parents();
        let actions = self.conductor.plan(now);
        self.carry_out(actions);
        self.count_hedges();
        self.tell_lease_ends();
        self.tell_wants();
        self.watch_patience(now);
    }

    fn count_hedges(&mut self) {
        let HedgeCount { asked, won } = self.conductor.take_hedges();
        if asked + won > 0 {
            tracing::debug!(task = %self.shared.info.id.short(), asked, won, "hedges");
            let count = &mut self.engine.hedges.lock().count;
            (count.asked, count.won) = (count.asked + asked, count.won + won);
        }
    }

    /// Nothing moves although something is wanted: after a while this host has itself helped, or helps itself.
    fn watch_patience(&mut self, now: Duration) {
        let patience = match self.reserves.is_first(self.engine.identity.host()) {
            true => self.engine.patience,
            false => self.engine.patience_for(&self.shared.info.id),
        };
        let stands = Stands {
            is_wanted: self.conductor.flights() > 0 || self.conductor.stuck(),
            is_promising: self.conductor.is_promising(),
            is_led: self.conductor.is_led(now),
            do_leases_fail: self.conductor.do_leases_fail(),
        };
        let look = self.patience.look(stands, patience, now);
        if look == Look::Moves {
            *self.shared.waiting_for.lock() = None;
            return;
        }
        let reason = match (&self.engine.swarm, self.parents.len()) {
            (Some(swarm), 0) => swarm.state(),
            (Some(_), n) => format!("{n} parents that do not deliver"),
            (None, _) => "the origin".to_owned(),
        };
        *self.shared.waiting_for.lock() = Some(reason.clone());
        match look {
            Look::Moves | Look::Led => return,
            Look::LeasesFail => {
                tracing::debug!(task = %self.shared.info.id.short(), "leases bring nothing");
                return self.conductor.doubt_leases(now);
            }
            Look::Stuck => {}
        }
        let relies_on_swarm = self.conductor.source() == SourceAccess::Forbidden;
        let swarm = self.engine.swarm.as_ref().filter(|_| relies_on_swarm);
        let is_connected = swarm.is_some_and(Swarm::is_connected);
        match self.patience.resort(patience, is_connected, now) {
            Resort::Wait => {}
            Resort::Ask => self.complain(),
            Resort::Source if Invariant::SwarmIsOptional.is_broken() => {}
            Resort::Source => {
                self.patience = Patience::default();
                if self.nearer.is_some() {
                    return self.give_up_nearer();
                }
                if !relies_on_swarm || !self.turns_to_reserve(&reason) {
                    self.back_to_source(&reason, Seeds::There);
                }
                let actions = self.conductor.plan(now);
                self.carry_out(actions);
            }
        }
    }

    /// Who else reads the origin for this place is asked first, and this host reads for all where it is its turn; whether
    /// either is so.
    pub(super) fn turns_to_reserve(&mut self, reason: &str) -> bool {
        let words = self.reserves.words();
        let Some(reserve) = self.reserves.next() else { return false };
        let is_own = reserve.host.id == self.engine.identity.host();
        if is_own && self.shared.origin.lock().is_none() {
            return self.turns_to_reserve(reason);
        }
        // From here on what they sign is believed.
        let keys = words.iter().map(|word| (word.host, word.key)).collect();
        self.command(Command::Signers { keys, appointments: words });
        let (task, name) = (self.shared.info.id.short(), &reserve.host.name);
        if is_own {
            tracing::info!(%task, reason, "reading the origin for the others of this place");
            self.command(Command::BackToSource { reason: reason.to_owned(), stand_in: true });
        } else {
            tracing::info!(%task, reason, name, "another one reads the origin for this place");
            let others = self.all_parents().filter(|parent| parent.host.id != reserve.host.id);
            let all = others.chain([reserve.clone()]).collect();
            self.set_parents(all);
        }
        true
    }

    /// Tells the scheduler that nothing comes from the parents that it gave, or that it forgot this host.
    fn complain(&mut self) {
        if !self.told_swarm {
            return self.tell_swarm(Priority::Demand);
        }
        if let Some(swarm) = &self.engine.swarm {
            swarm.reschedule(self.shared.info.id, self.conductor.mute_parents());
        }
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Request { flight, parent, groups, priority, beside } => {
                    // A parent may be to fetch what it lacks, whoever else gives by lease.
                    let partner = || self.partners.get(&parent);
                    let known = self.parents.get(&parent).map(|(parent, _)| parent);
                    let Some(parent) = known.or_else(partner) else {
                        let fault = Some(Failure::Disconnected);
                        self.conductor.ended(flight, fault, self.began.elapsed());
                        continue;
                    };
                    let stop = self.stop.child_token();
                    let lacking = beside.map_or(Lacking::Fetches, |_| Lacking::SaysSo);
                    let asking = Asking { flight, groups, priority, lacking };
                    self.flights.request(asking, parent, stop.clone());
                    self.under_way.insert(flight, (Provider::Parent(parent.host.id), stop));
                }
                Action::ReadSource { flight, groups, priority } => {
                    let stop = self.stop.child_token();
                    self.flights.read_source(flight, groups, priority, stop.clone());
                    self.under_way.insert(flight, (Provider::Source, stop));
                }
                Action::Cancel(flight) => {
                    if let Some((_, stop)) = self.under_way.remove(&flight) {
                        stop.cancel();
                    }
                }
                Action::AskForParents { bad } => {
                    if self.nearer.is_some_and(|nearer| bad.contains(&nearer)) {
                        self.give_up_nearer();
                    }
                    if let Some(swarm) = &self.engine.swarm {
                        swarm.reschedule(self.shared.info.id, bad);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::oneshot;

    use super::super::Role;
    use super::super::passing::Proven;
    use super::super::tests::copies::{open, version};
    use super::super::tests::{FakeOrigin, Field, GROUP, read_all};
    use super::*;

    #[tokio::test]
    async fn a_seed_of_another_area_that_gave_since_it_failed_has_not_failed() {
        let field = Field::new();
        let (engine, _dir) = field.engine(Role::Solo, &[]);
        let origin = FakeOrigin::new(8 * GROUP);
        let task = engine.open(&origin.info(), None, None).await.unwrap();
        let (mut actor, _events) = engine.actor(&task.shared, CancellationToken::new());
        let nearer = dfs_model::HostId::from_bytes([7; 16]);
        let ends = |actor: &mut Actor, fault| {
            actor.conductor.set_source(SourceAccess::Ranges);
            actor.want(GroupRange::new(0, 1), Priority::Bulk, None);
            let planned = actor.conductor.plan(actor.now());
            let [Action::ReadSource { flight, .. }] = planned[..] else { panic!("{planned:?}") };
            actor.nearer = Some(nearer);
            actor.under_way.insert(flight, (Provider::Parent(nearer), CancellationToken::new()));
            actor.ended(flight, fault, actor.now());
            actor.nearer_failure
        };
        let groups = GroupRange::new(0, 1);
        let busy = Fault::Parent { failure: Failure::Busy, groups, reason: String::new() };
        assert_eq!(ends(&mut actor, Some(busy)), Some(Failure::Busy));
        assert_eq!(ends(&mut actor, None), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_being_copied_is_not_fetched_for_who_wants_it_too() {
        let (field, at) = (Field::new(), |number: u64| (number, number * GROUP));
        let (engine, _dir) = field.engine(Role::Solo, &[]);
        let listed = |count| version(&(0..count).map(at).collect::<Vec<_>>(), GROUP);
        let (first, _) = open(&engine, listed(8)).await;
        read_all(&first).await;
        let (second, _) = open(&engine, listed(9)).await;
        // A second owner of the task, driven by hand.
        let (mut actor, mut events) = engine.actor(&second.shared, CancellationToken::new());
        actor.conductor.set_source(SourceAccess::Ranges);
        actor.want(GroupRange::new(0, 6), Priority::Bulk, None);
        let (done, told) = oneshot::channel();
        let (groups, priority) = (GroupRange::new(4, 5), Priority::Demand);
        let waiter = Waiter { groups, priority, in_passing: false, since: Instant::now(), done };
        actor.want(groups, priority, Some(waiter));
        assert_eq!(actor.conductor.plan(actor.now()), [], "all of it may be here");
        assert!(actor.is_busy());
        while actor.copies.is_busy() {
            actor.event(events.recv().await.unwrap());
        }
        assert_eq!(second.shared.stored.missing_in(GroupRange::new(0, 9)), [GroupRange::new(8, 1)]);
        let planned = actor.conductor.plan(actor.now());
        let last = Some(GroupRange::new(8, 1));
        assert!(
            matches!(planned[..], [Action::ReadSource { groups, .. }] if groups == last),
            "{planned:?}"
        );
        // Who has gone wants no more.
        drop(told);
        actor.sweep_waiters();
        assert!(actor.conductor.is_unwanted());
    }

    #[tokio::test]
    async fn a_stream_that_nobody_waits_for_any_more_ends_after_a_while_and_not_before() {
        let field = Field::new();
        let (engine, _dir) = field.engine(Role::Solo, &[]);
        let origin = FakeOrigin::new(8 * GROUP);
        let task = engine.open(&origin.info(), None, None).await.unwrap();
        let (mut actor, _events) = engine.actor(&task.shared, CancellationToken::new());
        actor.conductor.set_source(SourceAccess::Sequential);
        let ask = |actor: &mut Actor| {
            let (done, told) = oneshot::channel();
            let groups = GroupRange::new(0, 1);
            let (priority, since) = (Priority::Bulk, Instant::now());
            let waiter = Waiter { groups, priority, in_passing: false, since, done };
            actor.want(groups, Priority::Bulk, Some(waiter));
            told
        };
        let told = ask(&mut actor);
        assert_eq!(actor.conductor.plan(actor.now()).len(), 1);
        let at = |actor: &mut Actor, seconds| {
            actor.sweep_waiters();
            actor.give_up_unwanted(Duration::from_secs(seconds));
            actor.conductor.flights()
        };
        assert_eq!([at(&mut actor, 0), at(&mut actor, 1000)], [1, 1], "somebody waits");
        drop(told);
        assert_eq!([at(&mut actor, 1001), at(&mut actor, 1020)], [1, 1], "they may come back");
        let told = ask(&mut actor);
        assert_eq!(at(&mut actor, 1030), 1, "they came back");
        drop(told);
        assert_eq!([at(&mut actor, 1031), at(&mut actor, 1050)], [1, 1]);
        assert_eq!(at(&mut actor, 1051), 0);
        assert!(!actor.conductor.is_unwanted());
    }

    #[tokio::test]
    async fn a_download_has_a_time_unless_it_rested_or_nobody_waits_for_it() {
        let field = Field::new();
        let asked = async |priority, rests| {
            let (engine, _dir) = field.engine(Role::Node, &[]);
            let task = engine.open(&FakeOrigin::new(8 * GROUP).info(), None, None).await.unwrap();
            let (mut actor, _events) = engine.actor(&task.shared, CancellationToken::new());
            let first = GroupRange::new(0, 1);
            actor.want(first, priority, None);
            assert!(actor.looks_whether_busy());
            actor.began -= RESTED;
            actor.want(first, Priority::Bulk, None);
            if rests {
                actor.conductor.forget(first);
            }
            assert_eq!(actor.looks_whether_busy(), !rests);
            actor.began -= RESTED;
            actor.want(GroupRange::new(1, 1), Priority::Bulk, None);
            actor.asked_at.is_some()
        };
        assert!(asked(Priority::Bulk, false).await, "it is slow");
        assert!(!asked(Priority::Bulk, true).await);
        assert!(!asked(Priority::Prefetch, false).await);
        assert!(!asked(Priority::Background, false).await);
    }

    #[tokio::test]
    async fn who_is_led_follows_nobody_until_a_reader_chooses() {
        let field = Field::new();
        let parent = field.honest(Role::Node, 1, &[]);
        let (engine, _dir) = field.engine(Role::Node, &[&parent]);
        let task = engine.open(&FakeOrigin::new(8 * GROUP).info(), None, None).await.unwrap();
        let (mut actor, _events) = engine.actor(&task.shared, CancellationToken::new());
        let parent = ParentHost { host: parent.info.clone(), grant: Bytes::new(), fetches: false };
        let parents = vec![parent];
        let follows =
            |actor: &Actor| actor.parents.values().any(|(_, watching)| watching.is_some());
        let later = |actor: &mut Actor| {
            actor.began -= FOLLOWED_FOR;
            actor.conductor.lead(actor.now());
            actor.act();
        };

        actor.command(Command::Parents { parents, led: true });
        actor.act();
        assert!(!follows(&actor), "what parents hold is of no use");
        let groups = GroupRange::new(0, 1);
        actor.want(groups, Priority::Demand, None);
        actor.act();
        assert!(follows(&actor));
        actor.conductor.forget(groups);
        later(&mut actor);
        assert!(!follows(&actor), "each group of theirs would be a message for ever");

        actor.command(Command::Unled);
        actor.act();
        assert!(follows(&actor), "nobody else says who gives what");
    }

    #[tokio::test]
    async fn whom_a_neighbour_leaves_that_led_it_knows_whom_it_knew_before() {
        let field = Field::new();
        let seed = field.honest(Role::Seed, 1, &[]);
        let neighbours = [2, 3].map(|number| field.honest(Role::Node, number, &[]));
        let (engine, _dir) = field.engine(Role::Node, &[&seed]);
        let task = engine.open(&FakeOrigin::new(8 * GROUP).info(), None, None).await.unwrap();
        let (mut actor, _events) = engine.actor(&task.shared, CancellationToken::new());
        let parent = |host: &HostInfo, fetches| ParentHost {
            host: host.clone(),
            grant: Bytes::new(),
            fetches,
        };
        let [delegate, partner] = [0, 1].map(|at| parent(&neighbours[at].info, at == 0));
        let told = |actor: &mut Actor, command| {
            actor.command(command);
            actor.act();
            let mut known: Vec<_> = actor
                .parents
                .values()
                .map(|(parent, _)| (parent.host.id, parent.fetches))
                .collect();
            known.sort_unstable();
            known
        };
        let mut all =
            vec![(seed.info.id, true), (delegate.host.id, true), (partner.host.id, false)];
        all.sort_unstable();
        told(&mut actor, Command::Parents { parents: vec![parent(&seed.info, true)], led: true });
        let (leases, withdrawn, partners) = (Vec::new(), Vec::new(), vec![partner]);
        told(&mut actor, Command::Leases { leases, withdrawn, partners });
        told(&mut actor, Command::Delegated);
        // Whoever leases tells once where a partner is.
        let others = Command::Parents { parents: vec![parent(&seed.info, true)], led: true };
        told(&mut actor, Command::Unled);
        told(&mut actor, others);
        assert!(actor.partners.contains_key(&neighbours[1].info.id));
        let by_delegate = Command::Parents { parents: vec![delegate.clone()], led: true };
        assert_eq!(told(&mut actor, by_delegate), [(delegate.host.id, true)]);
        assert_eq!(told(&mut actor, Command::Unled), all);
    }

    #[tokio::test]
    async fn what_a_seed_has_evicted_it_does_not_fetch_for_who_asks_another_for_it_too() {
        let (field, origin) = (Field::new(), Arc::new(FakeOrigin::new(8 * GROUP)));
        let slow = field.honest(Role::Node, 1, &[]);
        let seed = field.honest(Role::Seed, 2, &[]);
        let _seeded = seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
        let (engine, _dir) = field.engine(Role::Node, &[&seed]);
        let task = engine.open(&origin.info(), None, None).await.unwrap();
        let (mut actor, mut events) = engine.actor(&task.shared, CancellationToken::new());
        let members = [&slow, &seed].map(|member| member.info.clone());
        let parents = members.iter().map(|host| ParentHost {
            host: host.clone(),
            grant: Bytes::new(),
            fetches: host.kind == dfs_model::HostKind::Seed,
        });
        actor.set_parents(parents.collect());
        let groups = GroupRange::new(0, 1);
        members.iter().for_each(|host| actor.conductor.parent_holds(host.id, &[groups]));
        actor.want(groups, Priority::Demand, None);
        let first = actor.conductor.plan(Duration::ZERO);
        assert!(matches!(first[..], [Action::Request { parent, .. }] if parent == slow.info.id));
        let second = actor.conductor.plan(FOLLOWED_FOR);
        assert!(matches!(second[..], [Action::Request { parent, .. }] if parent == seed.info.id));
        actor.carry_out(second);
        let said = events.recv().await.unwrap();
        let FlightEvent::Ended { fault: Some(Fault::Parent { failure, .. }), .. } = &said else {
            panic!("{said:?}")
        };
        assert_eq!(*failure, Failure::NotHeld);
        assert_eq!(origin.requests.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_reader_is_told_of_what_lies_in_memory_when_the_flight_that_brought_it_is_given_up() {
        let field = Field::new();
        let (engine, _dir) = field.engine(Role::Solo, &[]);
        let origin = FakeOrigin::new(8 * GROUP);
        let task = engine.open(&origin.info(), None, None).await.unwrap();
        // A second owner of the task, driven by hand.
        let (mut actor, _events) = engine.actor(&task.shared, CancellationToken::new());
        actor.conductor.set_source(SourceAccess::Ranges);
        let mut ask = |groups| {
            let (done, told) = oneshot::channel();
            task.shared.passing.begin(groups);
            let (priority, since) = (Priority::Demand, Instant::now());
            let waiter = Waiter { groups, priority, in_passing: true, since, done };
            actor.want(groups, Priority::Demand, Some(waiter));
            let [Action::ReadSource { flight, .. }] = actor.conductor.plan(actor.now())[..] else {
                panic!("each is a flight of its own");
            };
            (flight, told)
        };
        let brought = GroupRange::new(1, 1);
        let (_, mut told) = ask(brought);
        let (other, mut waits) = ask(GroupRange::new(5, 2));

        let hand_over = |groups: GroupRange| {
            let bytes = origin
                .content
                .slice((groups.first * GROUP) as usize..(groups.end() * GROUP) as usize);
            let (nodes, signed) = Default::default();
            task.shared.passing.hand_over(Proven { groups, bytes, nodes, signed, length: None })
        };
        assert!(hand_over(brought));
        assert!(told.try_recv().is_err(), "its flight has not said so yet");
        // And never will: the other one finds the cache full, and what nobody lacks is given up.
        let first = GroupRange::new(5, 1);
        assert!(hand_over(first));
        let full = task.shared.stored.full().into();
        actor.passed(other, first, &full);
        assert!(matches!(told.try_recv(), Ok(Ok(()))), "it would wait for ever");
        assert!(waits.try_recv().is_err(), "half of it is not here");
        assert_eq!(actor.conductor.flights(), 1);
    }
}
