//! The owner of the core: one task that takes mail, lets the core decide, and does what it says.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dfs_model::{HostId, HostInfo, HostKind, Measure, TaskId, TaskInfo};
use dfs_peer::dial::Callee;
use dfs_peer::digests::{Appointment, Identity, MOST_APPOINTED, Office};
use dfs_proto::common::Endpoint;
use dfs_proto::scheduler::{SchedulerMessage, Signer};
use dfs_service::Tracker;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::announcement::{self, Announced};
use super::obtain::{Order, Way, obtain};
use super::{Error, Fill, Policy, Seeds, messages};
use crate::members::{Member, Members};
use crate::metrics::SchedulerMetrics;
use dfs_scheduler::core::{
    ArmReport, Core, Decision, Event, Look, Millis, Outcome, RefusalKind, SeedEvent, Skill, Taken,
    TaskReport, Totals, Which,
};

const MAILBOX: usize = 1024;

/// How often hosts hear that a delegate is there.
const BEAT: Duration = Duration::from_secs(1);

/// Tasks in one answer for people.
const MAX_REPORTED: usize = 1000;

/// What is sent to a host's stream.
pub type Outgoing = mpsc::Sender<Result<SchedulerMessage, Status>>;

/// What the owner is told.
pub enum Mail {
    /// A host's stream is open.
    Attach(Stream),
    /// A host's stream has ended.
    Detach(HostId, StreamId),
    /// Something for the core.
    Event(Box<Event>),
    /// What a host holds.
    Announced(Box<Announced>),
    /// Somebody wants to look.
    Look(Look, oneshot::Sender<Seen>),
    /// A delegate leads a task from now on.
    Lead(TaskId),
    /// And no more: those whom it leads go back.
    LeadNoMore(TaskId),
    /// How many it leads there who want something.
    CountLed(TaskId, oneshot::Sender<usize>),
}

/// What somebody who looks sees.
pub struct Seen {
    /// The tasks asked for, or the first of them.
    pub tasks: Vec<TaskReport>,
    /// Who decides.
    pub strategy: &'static str,
    /// The arms, where they were asked for.
    pub arms: Vec<ArmReport>,
    /// When the core's time began, in milliseconds since 1970.
    pub epoch: u64,
}

/// Tells a host's streams apart.
pub type StreamId = u64;

/// One host's open stream.
pub struct Stream {
    /// Whose.
    pub host: Arc<HostInfo>,
    /// Which of that host's.
    pub id: StreamId,
    /// The way to it.
    pub out: Outgoing,
    /// Cancelled when the host is dropped.
    pub stop: CancellationToken,
    /// What it can do about delegates.
    pub skill: Skill,
    /// Where it leads, if it does.
    pub grpc: Vec<Endpoint>,
}

/// Talks to the service. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    mail: mpsc::Sender<Mail>,
}

impl Handle {
    /// Talks to whoever takes the mail.
    #[cfg(test)]
    pub fn to(mail: mpsc::Sender<Mail>) -> Self {
        Self { mail }
    }

    /// Sends mail; waits while the mailbox is full.
    pub async fn send(&self, mail: Mail) -> Result<(), Error> {
        self.mail.send(mail).await.map_err(|_| Error::Stopped)
    }

    /// How many of those who are led in a task want something.
    pub async fn count_led(&self, task: TaskId) -> Result<usize, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Mail::CountLed(task, reply)).await?;
        answer.await.map_err(|_| Error::Stopped)
    }

    /// The swarm as people look at it: the first thousand of the tasks that are asked for.
    pub async fn look(&self, look: Look) -> Result<Seen, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Mail::Look(look, reply)).await?;
        answer.await.map_err(|_| Error::Stopped)
    }
}

struct Seed {
    host: Arc<HostInfo>,
    grpc: Option<SocketAddr>,
    way: Way,
}

/// Owns the core and the ways to hosts and seeds.
pub struct Service {
    fill: Fill,
    core: Core,
    started: Instant,
    epoch: u64,
    mail: mpsc::Receiver<Mail>,
    sender: mpsc::Sender<Mail>,
    members: watch::Receiver<Arc<Members>>,
    reached: Seeds,
    streams: HashMap<HostId, Stream>,
    seeds: BTreeMap<HostId, Seed>,
    orders: HashMap<u64, CancellationToken>,
    /// Signs for those it makes stand in.
    me: Arc<Identity>,
    /// The stand-ins of tasks and the reserves that have read, the oldest first and those that have gone included: whose
    /// digests count beside the seeds'.
    signers: HashMap<TaskId, Vec<Signer>>,
    tracker: Tracker,
    metrics: SchedulerMetrics,
    /// What was moved in each arm when that was counted last.
    moved: Vec<Totals>,
    /// Of a delegate: what it leads.
    charge: HashSet<TaskId>,
}

impl Service {
    /// A scheduler that knows nobody yet. Orders to seeds are tasks of `tracker`.
    pub fn new(
        policy: Policy,
        members: watch::Receiver<Arc<Members>>,
        reached: Seeds,
        me: Arc<Identity>,
        tracker: Tracker,
        metrics: SchedulerMetrics,
    ) -> (Self, Handle) {
        let core = Core::new(policy.limits, policy.arms, rand::random());
        let moved = core.moved().map(|(_, moved)| *moved).collect();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (sender, mail) = mpsc::channel(MAILBOX);
        let handle = Handle { mail: sender.clone() };
        let service = Self {
            fill: policy.fill,
            core,
            started: Instant::now(),
            epoch: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            mail,
            sender,
            members,
            reached,
            streams: HashMap::new(),
            seeds: BTreeMap::new(),
            orders: HashMap::new(),
            me,
            signers: HashMap::new(),
            tracker,
            metrics,
            moved,
            charge: HashSet::new(),
        };
        (service, handle)
    }

    /// Works until the tracker's token is cancelled.
    pub async fn run(mut self) -> Result<(), Error> {
        let stop = self.tracker.token().clone();
        self.members.mark_changed();
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let tick = self.core.next_tick();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(mail) = self.mail.recv() => self.take(mail),
                Ok(()) = self.members.changed() => self.learn_members(),
                () = until(self.started, tick) => self.decide(Event::Tick),
                _ = beat.tick(), if self.is_delegate() => self.beat(),
            }
            self.observe();
        }
    }

    /// Those who are led hear that who leads them is there: of nobody but this owner, without whom it is not.
    fn beat(&self) {
        for stream in self.streams.values() {
            // One that does not read is dropped when there is something to say.
            let _ = stream.out.try_send(Ok(messages::alive()));
        }
    }

    fn now(&self) -> Millis {
        Millis::default().after(self.started.elapsed())
    }

    fn take(&mut self, mail: Mail) {
        self.metrics.events.inc();
        match mail {
            Mail::Event(event) => {
                match &*event {
                    Event::Seed { obtain, event: SeedEvent::Ended, .. } => {
                        self.orders.remove(obtain);
                    }
                    Event::PeerResult { host, task, outcome, taken } => {
                        self.count_result(host, task, *outcome, taken);
                    }
                    _ => {}
                }
                match self.is_strange(&event) {
                    Some((host, task)) => self.send_back(host, task),
                    None => self.decide(*event),
                }
            }
            Mail::Announced(announced) => self.announced(*announced),
            Mail::Lead(task) => drop(self.charge.insert(task)),
            Mail::LeadNoMore(task) => self.leads_no_more(task),
            Mail::CountLed(task, reply) => {
                let wants = self.core.hosts_of(&task).into_iter().filter(|(_, wants)| *wants);
                // Whoever asked may have gone.
                let _ = reply.send(wants.count());
            }
            Mail::Attach(stream) => self.attach(stream),
            Mail::Detach(host, id) => {
                if self.streams.get(&host).is_some_and(|stream| stream.id == id) {
                    self.detach(host);
                }
            }
            Mail::Look(look, reply) => {
                let tasks = self.core.look(&look, MAX_REPORTED, self.now());
                let arms = match look.which {
                    Which::Arms => self.core.arms(),
                    _ => Vec::new(),
                };
                // Whoever asked may have gone.
                let (strategy, epoch) = (self.core.strategy(), self.epoch);
                drop(reply.send(Seen { tasks, strategy, arms, epoch }));
            }
        }
    }

    /// Counts what came of a task on a host, as it says itself.
    fn count_result(&self, host: &HostId, task: &TaskId, outcome: Outcome, taken: &Taken) {
        let result = match outcome {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
        };
        self.metrics.results.of([result]).inc();
        for (from, bytes) in
            [("source", taken.source), ("seed", taken.seed), ("peers", taken.peers)]
        {
            self.metrics.taken.of([from]).inc_by(bytes);
        }
        let Taken { source, seed, peers, cost_ms } = *taken;
        tracing::info!(%host, %task, result, source, seed, peers, cost_ms, "a host is through");
    }

    /// Counts what the last event added to the results of arms.
    fn count_in_arms(&self) {
        for (arm, measure, value) in self.core.counted() {
            match measure {
                Measure::Blocked => self.metrics.arm_blocked.of([arm]).observe(value / 1e6),
                Measure::Completion => self.metrics.arm_completion.of([arm]).observe(value / 1e3),
                Measure::Failed => {
                    let result = if value > 0.0 { "failure" } else { "success" };
                    self.metrics.arm_results.of([arm, result]).inc();
                }
                Measure::Source | Measure::Crossed => {}
            }
        }
    }

    /// A host has one stream: a newer one replaces the older.
    fn attach(&mut self, stream: Stream) {
        let (host, skill) = (Arc::clone(&stream.host), stream.skill);
        let welcome = messages::welcome(self.epoch, self.core.strategy());
        // The queue is new; if the host has gone already, its end is on the way.
        let _ = stream.out.try_send(Ok(welcome));
        if let Some(older) = self.streams.insert(host.id, stream) {
            older.stop.cancel();
        }
        if !self.seeds.contains_key(&host.id) {
            let id = host.id;
            self.decide(Event::HostJoined(host));
            self.decide(Event::Skilled { host: id, skill });
        }
    }

    fn detach(&mut self, host: HostId) {
        if let Some(stream) = self.streams.remove(&host) {
            stream.stop.cancel();
        }
        // A seed is here as long as the manager lists it.
        if !self.seeds.contains_key(&host) {
            self.decide(Event::HostSilent(host));
        }
    }

    fn learn_members(&mut self) {
        let members = Arc::clone(&self.members.borrow_and_update());
        self.decide(Event::Nearest(members.nearest.clone()));
        let reached = self.reached.of(&members);
        let gone: Vec<HostId> = self.seeds.keys().copied().collect();
        let is_listed = |id: &HostId| reached.iter().any(|seed| seed.host.id == *id);
        for id in gone.into_iter().filter(|id| !is_listed(id)) {
            self.seeds.remove(&id);
            self.decide(Event::HostLeft(id));
        }
        for seed in reached {
            let same = |known: &Seed| known.host == seed.host && known.grpc == seed.grpc;
            if self.seeds.get(&seed.host.id).is_some_and(same) {
                continue;
            }
            let host = Arc::clone(&seed.host);
            self.seeds.insert(host.id, seed);
            self.decide(Event::HostJoined(host));
        }
    }

    /// Lets the core decide, and does what it says; a host that does not read is an event of its own.
    fn decide(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.now();
            let decisions = self.core.handle(event, now);
            self.count_in_arms();
            for decision in decisions {
                self.metrics.decisions.of([messages::name(&decision)]).inc();
                events.extend(self.perform(decision).into_iter().map(Event::HostSilent));
            }
        }
    }

    /// Does one thing; says who was dropped over it.
    fn perform(&mut self, decision: Decision) -> Vec<HostId> {
        match decision {
            Decision::ObtainFromSeed { seed, task, wanted, proven, obtain } => {
                let request = messages::obtain_request(&task, &wanted, &proven, self.fill);
                self.order(seed, task, request, obtain);
            }
            Decision::EndObtain { obtain } => {
                if let Some(stop) = self.orders.remove(&obtain) {
                    stop.cancel();
                }
            }
            Decision::Blacklisted { host, task } => {
                self.metrics.blacklisted.inc();
                tracing::warn!(%host, %task, "a host served bytes that did not verify");
            }
            Decision::Delegate { hosts, task, to } => {
                return self.send_to_delegate(hosts, task, to);
            }
            // Whoever cannot be served here is led by who leads this host: nobody is sent to the source from here.
            Decision::BackToSource { host, task, .. } if self.is_delegate() => {
                return self.post(host, &[messages::delegated(task, None)]);
            }
            Decision::Refuse { host, task, kind, .. }
                if self.is_delegate() && kind != RefusalKind::Busy =>
            {
                return self.post(host, &[messages::delegated(task, None)]);
            }
            // Of what a delegate does not lead it asks nobody, and its word for a reserve counts nowhere.
            Decision::Recall { .. } | Decision::NameReserves { .. } if self.is_delegate() => {}
            Decision::NameReserves { hosts, task, reserves } => {
                return self.name_reserves(&hosts, task, reserves);
            }
            Decision::Forget { task } => {
                self.signers.remove(&task);
                tracing::debug!(%task, "forgotten");
            }
            decision => {
                if let Decision::BackToSource { host, task, why, stand_in, .. } = &decision {
                    self.metrics.back_to_source.of([why.name()]).inc();
                    let reason = why.text();
                    tracing::info!(%host, %task, reason, stand_in, "a host is sent to the source");
                    if *stand_in {
                        self.appoint(*host, *task);
                    }
                }
                return self.send(decision);
            }
        }
        Vec::new()
    }

    /// A host's task, with the stand-ins that an earlier scheduler appointed for it.
    fn announced(&mut self, announced: Announced) {
        let Announced { event, signers, office } = announced;
        let (Event::Announced { task: TaskInfo { id, .. }, .. } | Event::Vouched { task: id, .. }) =
            event
        else {
            return;
        };
        if let Some((host, task)) = self.is_strange(&event) {
            return self.send_back(host, task);
        }
        if office == Office::Reserve && self.has_signer(&id) {
            // One node's word, that it could have had for the asking, against a seed's.
            return;
        }
        // Before the digests go out: whoever is sent them is told whose they may be.
        signers
            .into_iter()
            .for_each(|signer| remember(self.signers.entry(id).or_default(), signer));
        self.decide(event);
        if !self.core.knows(&id) {
            self.signers.remove(&id);
        }
    }

    /// Whether a seed or a stand-in signs for a task: what reserves sign is nothing to others then.
    fn has_signer(&self, task: &TaskId) -> bool {
        let has_seed = self.is_delegate() || self.members.borrow().seeds().next().is_some();
        has_seed || self.signers.get(task).into_iter().flatten().any(is_stand_in)
    }

    /// Those whose digests of a task count beside the seeds', as hosts are told of them.
    fn signers_of(&self, task: &TaskId) -> Vec<Signer> {
        let has_signer = self.has_signer(task);
        let known = self.signers.get(task).into_iter().flatten();
        known.filter(|signer| !has_signer || is_stand_in(signer)).cloned().collect()
    }

    /// Remembers that a host signs for a task, with the key it announced itself by.
    fn appoint(&mut self, host: HostId, task: TaskId) {
        let Some(info) = self.core.host(&host) else { return };
        let appointment =
            Appointment::sign(task, Office::StandIn, (host, info.public_key), &self.me);
        remember(self.signers.entry(task).or_default(), announcement::signer(&appointment));
    }

    /// Tells of reserves, with a word for each. They count from when they are needed: until then the scheduler names
    /// none of them as a signer.
    fn name_reserves(
        &mut self,
        hosts: &[HostId],
        task: TaskId,
        reserves: Vec<Arc<HostInfo>>,
    ) -> Vec<HostId> {
        let signed = reserves.into_iter().map(|info| {
            let word =
                Appointment::sign(task, Office::Reserve, (info.id, info.public_key), &self.me);
            (info, announcement::signer(&word))
        });
        let message = [messages::reserves(task, signed)];
        hosts.iter().flat_map(|host| self.post(*host, &message)).collect()
    }

    fn send(&mut self, decision: Decision) -> Vec<HostId> {
        let signers = match &decision {
            Decision::SendRegistered { task, .. } => self.signers_of(&task.id),
            Decision::SendUpdate { task, .. } | Decision::BackToSource { task, .. } => {
                self.signers_of(task)
            }
            _ => Vec::new(),
        };
        let (hosts, mut messages) = messages::messages(decision, &signers);
        if let Seeds::Own(own, _) = &self.reached {
            messages.iter_mut().for_each(|message| messages::name_as_delegate(message, own.id));
        }
        hosts.into_iter().flat_map(|host| self.post(host, &messages)).collect()
    }

    /// Sends these to a host; says whether it was dropped over it.
    fn post(&mut self, host: HostId, messages: &[SchedulerMessage]) -> Vec<HostId> {
        let Some(stream) = self.streams.get(&host) else { return Vec::new() };
        // Who has hung up is read to the end: its last word may be that it goes for good.
        let is_full = |message: &SchedulerMessage| {
            matches!(stream.out.try_send(Ok(message.clone())), Err(TrySendError::Full(_)))
        };
        if !messages.iter().any(is_full) {
            return Vec::new();
        }
        tracing::warn!(%host, "a host does not read what is sent to it: dropped");
        self.metrics.dropped.inc();
        stream.stop.cancel();
        self.streams.remove(&host);
        if self.seeds.contains_key(&host) { Vec::new() } else { vec![host] }
    }

    /// Tells hosts who leads them: a delegate that is not to be found any more leads nobody.
    fn send_to_delegate(
        &mut self,
        hosts: Vec<HostId>,
        task: TaskId,
        to: Option<HostId>,
    ) -> Vec<HostId> {
        let delegate = to.and_then(|to| self.streams.get(&to)).map(|stream| {
            let grpc = stream.grpc.clone();
            dfs_proto::common::Host { grpc, ..(&*stream.host).into() }
        });
        let message = [messages::delegated(task, delegate)];
        hosts.into_iter().flat_map(|host| self.post(host, &message)).collect()
    }

    fn is_delegate(&self) -> bool {
        matches!(self.reached, Seeds::Own(..))
    }

    /// Whether a host says something to a delegate about what that does not lead: who, and of what.
    fn is_strange(&self, event: &Event) -> Option<(HostId, TaskId)> {
        let (Event::Register { host, task: TaskInfo { id, .. }, .. }
        | Event::Announced { host, task: TaskInfo { id, .. }, .. }
        | Event::Want { host, task: id, .. }) = event
        else {
            return None;
        };
        (self.is_delegate() && !self.charge.contains(id)).then_some((*host, *id))
    }

    fn send_back(&mut self, host: HostId, task: TaskId) {
        for dropped in self.post(host, &[messages::delegated(task, None)]) {
            self.decide(Event::HostSilent(dropped));
        }
    }

    /// Everybody goes back whence they came.
    fn leads_no_more(&mut self, task: TaskId) {
        self.charge.remove(&task);
        for (host, wants) in self.core.hosts_of(&task) {
            if wants {
                self.send_back(host, task);
            }
            self.decide(Event::Leave { host, task });
        }
    }

    fn order(
        &mut self,
        seed: HostId,
        task: TaskInfo,
        request: dfs_proto::seed::ObtainRequest,
        number: u64,
    ) {
        // The core orders only from hosts that joined as seeds, and these are they.
        let Some(Seed { host, way, .. }) = self.seeds.get(&seed) else { return };
        let members = self.members.clone();
        let order = Order { number, seed: Arc::clone(host), task, request, members };
        let stop = self.tracker.token().child_token();
        let work = obtain(order, way.clone(), self.sender.clone());
        self.orders.insert(number, stop.clone());
        self.tracker.tasks().spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }

    fn observe(&mut self) {
        let (hosts, tasks) = self.core.size();
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.hosts.set(count(hosts));
        self.metrics.tasks.set(count(tasks));
        self.metrics.shelved.set(count(self.core.shelved()));
        self.metrics.streams.set(count(self.streams.len()));
        self.metrics.obtaining.set(count(self.orders.len()));
        self.metrics.delegates.set(count(self.core.delegations()));
        self.count_moved();
    }

    /// Counters only grow: what was moved is added as it grew.
    fn count_moved(&mut self) {
        for ((arm, now), before) in self.core.moved().zip(&mut self.moved) {
            let Totals { source, taken, crossed } = *now;
            let grown = [
                ("source", source - before.source),
                ("peers", taken - before.taken),
                ("crossed", crossed - before.crossed),
            ];
            for (from, bytes) in grown.into_iter().filter(|(_, bytes)| *bytes > 0) {
                self.metrics.arm_moved.of([arm, from]).inc_by(bytes);
            }
            *before = *now;
        }
    }
}

impl Seeds {
    /// Those of a member list that orders reach.
    fn of(&self, members: &Members) -> Vec<Seed> {
        match self {
            Self::Listed(channels) => {
                let seed = |Member { host, grpc, .. }: &Member| {
                    let way = Way::Seed(channels.channel(*grpc, Callee::Seed(host.id)));
                    Seed { host: Arc::clone(host), grpc: Some(*grpc), way }
                };
                members.seeds().map(seed).collect()
            }
            Self::Own(host, engine) => {
                let host = HostInfo { kind: HostKind::Seed, ..HostInfo::clone(host) };
                vec![Seed { host: Arc::new(host), grpc: None, way: Way::Own(engine.clone()) }]
            }
        }
    }
}

fn is_stand_in(signer: &Signer) -> bool {
    let word = Appointment::decode(&signer.appointment);
    word.is_ok_and(|word| word.office == Office::StandIn)
}

/// Adds one who is appointed and news; beyond what is kept, the oldest are forgotten. A host makes its name and its key
/// together: under a name that has one, as for the peers who are told, another key is nobody's.
fn remember(signers: &mut Vec<Signer>, signer: Signer) {
    if !signers.iter().any(|known| known.host_id == signer.host_id) {
        signers.push(signer);
    }
    signers.drain(..signers.len().saturating_sub(MOST_APPOINTED));
}

async fn until(started: Instant, tick: Option<Millis>) {
    // One more, so that the clock has passed it for certain.
    let at = tick.map(|Millis(at)| Duration::from_millis(at.saturating_add(1)));
    match at.and_then(|at| started.checked_add(at)) {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_beyond_what_is_kept_displaces_the_oldest_and_nobody_of_its_own_name() {
        let signer = |number: usize| Signer {
            host_id: vec![number as u8; 16].into(),
            public_key: vec![number as u8; 32].into(),
            appointment: Default::default(),
        };
        let mut signers = Vec::new();
        let thief = Signer { public_key: vec![0xEE; 32].into(), ..signer(MOST_APPOINTED) };
        (0..=MOST_APPOINTED).for_each(|number| remember(&mut signers, signer(number)));
        remember(&mut signers, signer(7));
        remember(&mut signers, thief);
        assert_eq!(signers.len(), MOST_APPOINTED);
        assert_eq!(signers.first(), Some(&signer(1)));
        assert_eq!(signers.last(), Some(&signer(MOST_APPOINTED)));
    }
}
