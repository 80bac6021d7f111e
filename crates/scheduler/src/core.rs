//! The scheduler's pure core: `(state, event, now) → decisions`.
//!
//! Owns what the swarm looks like: hosts, tasks, who feeds whom. It has no clock, no socket and no
//! random source of its own, and knows no crate of this project but the nouns, so the same code runs
//! in the service and under a simulator. All of it is lost when the process dies; hosts re-announce.
//!
//! What always holds: edges never form a cycle; a child has at most [`MAX_PARENTS`] parents, none of
//! them itself, gone, blacklisted or beyond its upload limit when granted; and whoever registered and
//! still wants something has parents, or waits for a seed or a timer, or was sent to the source, or
//! to a delegate, or was refused.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{HostId, HostInfo, Measure, Nearest, RouteKey, TaskId};
use rand::SeedableRng;
use rand::rngs::StdRng;

mod arms;
mod assign;
mod dag;
mod delegation;
mod evidence;
mod host;
mod lead;
mod leading;
mod message;
mod peer;
mod presence;
mod recall;
mod registration;
mod report;
mod reserves;
mod results;
mod roster;
mod seeds;
mod shelf;
mod standing;
mod strategy;
mod tally;
mod task;
mod timers;

#[cfg(test)]
mod delegation_tests;
#[cfg(test)]
mod evidence_tests;
#[cfg(test)]
mod lead_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod recall_tests;
#[cfg(test)]
mod tests;

pub use arms::{Arm, Arms, MAX_ARMS};
use dag::Dag;
pub use delegation::{Area, Skill};
use delegation::{Delegations, Load};
use evidence::Log;
pub use evidence::{
    Candidate, Entry, Evidence, MAX_ENTRIES, MAX_ENTRIES_PER_TASK, REASON_CHARS, Reason,
    Scheduling, Scores, SourceReason, Taken, Verdict, Wait, Who,
};
use host::Host;
pub use message::{
    Decision, Done, Event, Failed, FailureKind, Held, Lease, LeaseEnd, LeaseFailure, Millis,
    Outcome, RefusalKind, Report, SeedEvent, SizeScope, Wanted,
};
use peer::Peer;
pub use peer::PeerState;
pub use report::{Detail, Look, PeerReport, TaskReport, Which};
pub use results::{ArmReport, Series};
use roster::Roster;
pub use shelf::MAX_SHELVED_PER_HOST;
use shelf::Shelf;
pub use standing::Standing;
pub use strategy::leases::Leases;
pub use strategy::seed004::Seed004;
pub use strategy::seed004_plus::Seed004Plus;
pub use strategy::{Ask, Choice, Strategy, Swarm};
pub use tally::{Ending, Given, Giver, Tally};
use task::Task;
pub use task::{TINY_BYTES, TaskState, Totals};
use timers::{Timer, Timers};

/// Most parents a child has (`candidateParentLimit`).
pub const MAX_PARENTS: usize = 4;

/// Longest content the core keeps bitmaps for: 4 TiB, 8 MiB of bitmap a peer.
pub const MAX_GROUPS: u64 = 1 << 26;

/// Most tasks one host may take part in.
pub const MAX_TASKS_PER_HOST: usize = 65_536;

/// Limits and spans of the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Uploads at a time of a host that names no limit.
    pub upload_slots: u32,
    /// Schedulings in vain before a peer is sent to the source.
    pub tries: u32,
    /// Between two of them.
    pub retry_after: Duration,
    /// Peers of one task at the source at a time.
    pub at_source: usize,
    /// How long a host may be silent before its peers are collected.
    pub host_lease: Duration,
    /// How long a seed may take to answer an order.
    pub seed_answer: Duration,
    /// How long a seed that failed a task is not asked for it again.
    pub seed_pause: Duration,
    /// How long children may complain of a seed that they hear nothing of until it counts as not alive.
    pub seed_silence: Duration,
    /// How long a child does without a parent that failed it.
    pub block: Duration,
    /// How long after the start seeds may take to be heard of, before anybody is sent to the source.
    pub hearing: Duration,
    /// How long the origin's "no" stands.
    pub refusal: Duration,
    /// How long a task is remembered that nobody has open any more.
    pub idle: Duration,
    /// Bytes from which on a content is led by leases; of a shorter one there is more in parents.
    pub led_from: u64,
    /// Messages in a second beyond which delegates are appointed; 0: never.
    pub delegate_above: u64,
    /// Peers of a task in one place that a delegate may lead.
    pub delegate_from: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            upload_slots: 200,
            tries: 4,
            retry_after: Duration::from_millis(500),
            at_source: 200,
            host_lease: Duration::from_secs(30),
            seed_answer: Duration::from_secs(5),
            seed_pause: Duration::from_secs(10),
            seed_silence: Duration::from_secs(2),
            block: Duration::from_secs(3),
            hearing: Duration::from_secs(3),
            refusal: Duration::from_secs(10),
            idle: Duration::from_secs(3600),
            led_from: 4 << 20,
            delegate_above: 50_000,
            delegate_from: 8,
        }
    }
}

/// The scheduler's state.
pub struct Core {
    limits: Limits,
    arms: Arms,
    random: StdRng,
    hosts: BTreeMap<HostId, Host>,
    nearest: Nearest,
    tasks: BTreeMap<TaskId, Task>,
    timers: Timers,
    /// Peers to be scheduled before the event is over.
    queue: VecDeque<(TaskId, HostId)>,
    last_obtain: u64,
    load: Load,
    /// Tasks in which somebody may have come to give or want something.
    touched: Vec<TaskId>,
    now: Millis,
    /// What was decided and why, for people.
    log: Log,
    /// When the first event came.
    began: Option<Millis>,
    out: Vec<Decision>,
    /// What hosts hold that is in no task.
    shelf: Shelf,
    /// What came of each URL of which a task is known.
    came: BTreeMap<RouteKey, results::Own>,
    /// Hosts of which the event has found that they give to each other no more.
    parted: Vec<(HostId, HostId)>,
    /// What the event has added to the results of arms.
    counted: Vec<(arms::ArmNumber, Measure, f64)>,
}

impl Core {
    /// An empty swarm. Equal seeds and events give equal decisions.
    pub fn new(limits: Limits, arms: impl Into<Arms>, seed: u64) -> Self {
        Self {
            limits,
            arms: arms.into(),
            random: StdRng::seed_from_u64(seed),
            hosts: BTreeMap::new(),
            nearest: Nearest::new(),
            tasks: BTreeMap::new(),
            timers: Timers::default(),
            queue: VecDeque::new(),
            last_obtain: 0,
            load: Load::default(),
            touched: Vec::new(),
            now: Millis::default(),
            log: Log::default(),
            began: None,
            out: Vec::new(),
            shelf: Shelf::default(),
            came: BTreeMap::new(),
            parted: Vec::new(),
            counted: Vec::new(),
        }
    }

    /// Whether it has only just started and knows no seed: one may be there all the same.
    fn is_hearing(&self) -> bool {
        let young = self.began.is_some_and(|began| self.now < began.after(self.limits.hearing));
        young && !self.hosts.values().any(Host::is_seed)
    }

    /// A number that no order to a seed has had.
    fn next_obtain(&mut self) -> u64 {
        self.last_obtain += 1;
        self.last_obtain
    }

    /// The usual strategy's name.
    pub fn strategy(&self) -> &'static str {
        self.arms.usual().strategy.name()
    }

    /// The data centre of a host, in small letters; empty where it is not known.
    fn idc_of(&self, host: &HostId) -> Arc<str> {
        self.hosts.get(host).map(|host| Arc::clone(&host.idc)).unwrap_or_default()
    }

    /// Keeps for people what was decided.
    fn note(&mut self, task: TaskId, host: HostId, what: Evidence) {
        self.log.note(task, host, what, self.now);
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn next_tick(&self) -> Option<Millis> {
        self.timers.next()
    }

    /// What a host says of itself.
    pub fn host(&self, host: &HostId) -> Option<&Arc<HostInfo>> {
        self.hosts.get(host).map(|host| &host.info)
    }

    /// Whether anything is known of a task.
    pub fn knows(&self, task: &TaskId) -> bool {
        self.tasks.contains_key(task)
    }

    /// Everybody who takes part in a task, and whether they want something.
    pub fn hosts_of(&self, task: &TaskId) -> Vec<(HostId, bool)> {
        let peers = self.tasks.get(task).into_iter().flat_map(Task::peers);
        peers.map(|(host, peer)| (*host, peer.is_active())).collect()
    }

    /// Pairs of hosts that the last event has found to give to each other no more in a task, by lease: neither counts
    /// among the partners of the other.
    pub fn parted(&self) -> &[(HostId, HostId)] {
        &self.parted
    }

    /// Number of hosts and of tasks known.
    pub fn size(&self) -> (usize, usize) {
        (self.hosts.len(), self.tasks.len())
    }

    /// Number of contents that hosts have named and nobody asks for, each once for every host.
    pub fn shelved(&self) -> usize {
        self.shelf.len()
    }

    /// Takes an event in and says what is to be done. `now` never goes back.
    pub fn handle(&mut self, event: Event, now: Millis) -> Vec<Decision> {
        self.now = self.now.max(now);
        self.began.get_or_insert(self.now);
        self.touched.extend(event.task());
        self.counted.clear();
        self.parted.clear();
        let message = event.message();
        match event {
            Event::HostJoined(info) => self.host_joined(info),
            Event::HostSilent(host) => self.host_silent(host),
            Event::HostLeft(host) => self.host_left(host),
            Event::Nearest(nearest) => self.nearest = nearest,
            Event::Announced { host, task, held, digests, stood_in } => {
                let announced = registration::Announced { held, digests, stood_in };
                self.announced(host, task, announced);
            }
            Event::Names { host, tasks } => self.names(host, &tasks),
            Event::Lacks { host, task } => self.recalled(task, &host),
            Event::AnnouncedAll(host) => self.announced_all(host),
            Event::Vouched { host, task, digests, stood_in } => {
                self.vouched(host, task, digests, stood_in);
            }
            Event::Register { host, task, wanted, held, priority } => {
                self.register(host, task, registration::Ask { wanted, held, priority });
            }
            Event::Progress { host, task, report } => self.progress(host, task, &report),
            Event::Want { host, task, groups, priority } => self.want(host, task, groups, priority),
            Event::Reschedule { host, task, bad_parents } => {
                self.reschedule(host, task, &bad_parents);
                self.settle();
                self.answer_at_all(host, task);
            }
            Event::Digests { host, task, batch } => self.stand_in_digests(host, task, batch),
            Event::PeerResult { host, task, outcome, taken } => {
                self.peer_result(host, task, outcome, taken);
            }
            Event::Leave { host, task } => self.leave(host, task),
            Event::Skilled { host, skill } => self.skilled(host, skill),
            Event::Leads { host, task } => self.leads(host, task),
            Event::Resigns { host, task } => self.resigns(host, task),
            Event::ComesBack { host, task, delegate } => self.comes_back(host, task, delegate),
            Event::Seed { seed, task, obtain, event } => self.seed_event(seed, task, obtain, event),
            Event::Tick => self.tick(),
        }
        self.settle();
        self.lead_touched();
        self.count_messages(message);
        std::mem::take(&mut self.out)
    }

    fn tick(&mut self) {
        while let Some((at, timer)) = self.timers.pop(self.now) {
            match timer {
                Timer::Silence(host) => self.silence_is_over(host, at),
                Timer::Obtain(task) => self.seed_is_late(task, at),
                Timer::Retry(task, host) => self.retry(task, host, at),
                Timer::Idle(task) => self.idle(task, at),
                Timer::Recall(task) => self.recall_is_late(task, at),
                Timer::HandedOver(task) => self.look_who_went(task, at),
                Timer::Lead(task) => self.lead_on(task, at),
                Timer::Order(task) => self.order_in_any_order(task),
                Timer::Reserves(task) => self.renew_due_reserves(task),
            }
            self.settle();
        }
    }
}
