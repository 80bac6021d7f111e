//! The streams of hosts at the gRPC edge: messages in, status codes out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use dfs_model::{HostInfo, HostKind};
use dfs_peer::digests::Identity;
use dfs_proto::convert::grpc_addresses;
use dfs_proto::scheduler::host_message::Kind as Up;
use dfs_proto::scheduler::{
    Announce, Held, HostMessage, SchedulerMessage, TasksReply, TasksRequest,
};
use dfs_service::net::Caller;
use dfs_service::tls::Role;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::announcement::{self, Announced, Findings, Pending, Trusted};
use super::messages::{self, Unacceptable};
use super::naming::{self, MOST_NAMES, Naming, Step};
use super::service::{Mail, Stream, StreamId};
use super::{Error, Handle, looking};
use crate::members::Members;
use crate::metrics::SchedulerMetrics;
use dfs_scheduler::core::{Event, Skill};

/// Messages on the way to one host; one that lets them pile up is dropped.
const OUTGOING: usize = 1024;

/// Tasks one announcement may list.
const MAX_ANNOUNCED: usize = dfs_scheduler::core::MAX_TASKS_PER_HOST;

/// Announcements looked through at a time: a message full of signatures keeps a core busy for seconds.
const VERIFYING: usize = 2;

/// Bytes of announcements that wait for their signers to be known, of all hosts together.
const PENDING: usize = 64 << 20;

/// Addresses at which a host leads.
const MOST_ADDRESSES: usize = 8;

/// How long one announcement is looked through while others wait for their turn.
const TURN: Duration = Duration::from_millis(100);

/// Takes the streams of hosts.
pub struct Reception {
    edge: Edge,
    last_stream: AtomicU64,
    stop: CancellationToken,
}

/// What all streams have in common.
#[derive(Clone)]
struct Edge {
    handle: Handle,
    members: watch::Receiver<Arc<Members>>,
    me: Arc<Identity>,
    metrics: SchedulerMetrics,
    verifying: Arc<Semaphore>,
    pending: Arc<Semaphore>,
    naming: Arc<Semaphore>,
    pulse: Pulse,
    tasks: TaskTracker,
}

/// Whether hosts hear all the time that who leads them is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// They find out by the connection.
    Silent,
    /// They hear of a delegate again and again: one that hangs is left soon.
    Beats,
}

/// What a host hears.
pub type Heard = ReceiverStream<Result<SchedulerMessage, Status>>;

impl Reception {
    /// Streams are tasks of `tasks` and end with `stop`.
    pub fn new(
        handle: Handle,
        members: watch::Receiver<Arc<Members>>,
        me: Arc<Identity>,
        metrics: SchedulerMetrics,
        (tasks, stop): (TaskTracker, CancellationToken),
        pulse: Pulse,
    ) -> Self {
        let edge = Edge {
            handle,
            members,
            me,
            metrics,
            verifying: Arc::new(Semaphore::new(VERIFYING)),
            pending: Arc::new(Semaphore::new(PENDING)),
            naming: Arc::new(Semaphore::new(naming::TURNS)),
            pulse,
            tasks,
        };
        Self { edge, last_stream: AtomicU64::new(0), stop }
    }

    /// Who announces itself. Nobody speaks for a host but that host, as its certificate says, nor for a member of the
    /// cluster but that member.
    fn identify(&self, caller: &Caller, announce: &Announce) -> Result<HostInfo, Status> {
        let host = announce.host.clone().unwrap_or_default();
        let host = HostInfo::try_from(host).map_err(|error| malformed(&error.into()))?;
        let roles: &[Role] = match host.kind {
            HostKind::Node => &[Role::Node, Role::Guest],
            HostKind::Seed => &[Role::Seed],
        };
        caller.require(host.id, roles)?;
        let known = self.edge.members.borrow().key_of(&host.id);
        match known {
            Some(key) if key != host.public_key => {
                Err(Status::permission_denied("this host id belongs to another key"))
            }
            None if host.kind == HostKind::Seed => {
                Err(Status::permission_denied("seeds join the manager first"))
            }
            _ => Ok(host),
        }
    }

    /// Takes a host's stream, once it has said who it is.
    pub async fn attend(
        &self,
        request: Request<Streaming<HostMessage>>,
    ) -> Result<Response<Heard>, Status> {
        let caller = Caller::of(request.extensions());
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|message| message.kind);
        let Some(Up::Announce(announce)) = first else {
            return Err(Status::invalid_argument("a host announces itself first"));
        };
        let host = self.identify(&caller, &announce).inspect_err(|_| {
            self.edge.metrics.malformed.inc();
        })?;
        let (out, receiver) = mpsc::channel(OUTGOING);
        let attendance = Attendance {
            host: Arc::new(host),
            id: self.last_stream.fetch_add(1, Ordering::Relaxed) + 1,
            edge: self.edge.clone(),
            stop: self.stop.child_token(),
        };
        self.edge.tasks.spawn(attendance.serve(announce, messages, out));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    /// What is known of tasks, for people.
    pub async fn tasks(
        &self,
        request: Request<TasksRequest>,
    ) -> Result<Response<TasksReply>, Status> {
        // Who takes what from whom is nobody's business but the cluster's.
        Caller::of(request.extensions()).require_member()?;
        let look = looking::look(&request.into_inner()).map_err(|error| malformed(&error))?;
        let seen = self.edge.handle.look(look).await.map_err(|error| stopped(&error))?;
        Ok(Response::new(looking::reply(&seen)))
    }
}

fn malformed(error: &Unacceptable) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: &Error) -> Status {
    Status::unavailable(error.to_string())
}

/// One host's stream, from its announcement to its end.
struct Attendance {
    host: Arc<HostInfo>,
    id: StreamId,
    edge: Edge,
    stop: CancellationToken,
}

impl Attendance {
    async fn serve(
        self,
        announce: Announce,
        messages: Streaming<HostMessage>,
        out: mpsc::Sender<Result<SchedulerMessage, Status>>,
    ) {
        let read = self.read(announce, messages, out.clone());
        let end = match self.stop.run_until_cancelled(read).await {
            Some(Ok(())) => None,
            Some(Err(status)) => Some(status),
            None => Some(Status::unavailable("the scheduler ends this stream")),
        };
        // Neither a scheduler that has stopped nor a host that has gone needs to know.
        let _ = self.edge.handle.send(Mail::Detach(self.host.id, self.id)).await;
        if let Some(status) = end {
            let _ = out.try_send(Err(status));
        }
    }

    async fn read(
        &self,
        announce: Announce,
        mut messages: Streaming<HostMessage>,
        out: mpsc::Sender<Result<SchedulerMessage, Status>>,
    ) -> Result<(), Status> {
        let (host, id, stop) = (Arc::clone(&self.host), self.id, self.stop.clone());
        let grpc = announce.host.as_ref().map(|host| host.grpc.clone()).unwrap_or_default();
        let skill = skill(&announce);
        let out_to = out.clone();
        self.send(Mail::Attach(Stream { host, id, out: out_to, stop, skill, grpc })).await?;
        // Who joins from here on is news to what waits.
        let mut members = self.edge.members.clone();
        members.mark_unchanged();
        let mut pending = Pending::new(Arc::clone(&self.edge.pending));
        let mut naming = Naming::new(Arc::clone(&self.edge.naming));
        // A delegate knows of what it leads, and is asked for nothing else.
        naming.said(announce.more && self.edge.pulse == Pulse::Silent);
        self.announce(announce.held, &mut pending).await?;
        self.send(Mail::Event(Box::new(Event::AnnouncedAll(self.host.id)))).await?;
        loop {
            let message = tokio::select! {
                message = messages.message() => message?,
                Ok(()) = members.changed(), if !pending.is_empty() => {
                    pending = self.vouch(pending).await?;
                    continue;
                }
                step = naming.step() => {
                    if step == Step::Ask {
                        // One that does not read what is sent to it has had its turn.
                        let _ = out.try_send(Ok(messages::name_held(MOST_NAMES)));
                    }
                    continue;
                }
            };
            let Some(message) = message else { return Ok(()) };
            match message.kind {
                Some(Up::Held(held)) => {
                    self.announce(vec![held], &mut pending).await?;
                    continue;
                }
                Some(Up::Names(ref names)) => {
                    naming.said(names.more && self.edge.pulse == Pulse::Silent);
                }
                _ => {}
            }
            // Of signatures at most one, over one batch: less than a millisecond.
            let event = messages::event(&self.host, message).map_err(|error| self.bad(&error))?;
            self.send(Mail::Event(Box::new(event))).await?;
        }
    }

    /// Takes what is announced; what nobody known vouches for is added to what is pending.
    async fn announce(&self, held: Vec<Held>, pending: &mut Pending) -> Result<(), Status> {
        if held.len() > MAX_ANNOUNCED {
            return Err(self.bad(&Unacceptable::TooMany));
        }
        let mut rest = held.into_iter();
        while rest.len() > 0 {
            let (verified, left) = self.verify(rest).await?;
            rest = left;
            // One task that cannot be read must not keep a host and all its others away.
            let unreadable = |error: &Unacceptable| {
                self.edge.metrics.malformed.inc();
                tracing::debug!(host = %self.host.id, %error, "a task is not taken in");
            };
            let readable =
                verified.into_iter().filter_map(|found| found.inspect_err(unreadable).ok());
            for Findings { announced, rest } in readable {
                rest.into_iter().for_each(|unproven| pending.add(unproven));
                self.say(announced).await?;
            }
        }
        Ok(())
    }

    /// There are other members: takes what they vouch for; gives the rest.
    async fn vouch(&self, mut pending: Pending) -> Result<Pending, Status> {
        let looking = self.on_thread(move |host, trusted| {
            let vouched = pending.vouched(host, trusted);
            (vouched, pending)
        });
        let (vouched, pending) = looking.await?;
        self.say(vouched).await?;
        Ok(pending)
    }

    async fn say(&self, all: Vec<Announced>) -> Result<(), Status> {
        for announced in all {
            self.send(Mail::Announced(Box::new(announced))).await?;
        }
        Ok(())
    }

    /// Looks through an announcement for a turn, on a thread of its own, which serves no other stream. The turn is
    /// over before anything is said to the core: nobody's verification waits for somebody's mail.
    async fn verify(&self, mut rest: IntoIter<Held>) -> Result<Turn, Status> {
        self.on_thread(move |host, trusted| {
            let began = Instant::now();
            let look = |held| announcement::held(host, held, trusted);
            let verified = within_turn(&mut rest, look, || began.elapsed() >= TURN);
            (verified, rest)
        })
        .await
    }

    /// Does what takes long with signatures, when its turn has come.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&HostInfo, &Trusted<'_>) -> T + Send + 'static,
    ) -> Result<T, Status> {
        // Closed only with the process.
        let turn = Arc::clone(&self.edge.verifying).acquire_owned().await;
        let (host, members, me) =
            (Arc::clone(&self.host), self.edge.members.clone(), self.edge.me.clone());
        let looking = self.edge.tasks.spawn_blocking(move || {
            let _turn = turn;
            let members = Arc::clone(&members.borrow());
            work(&host, &Trusted { members: &members, me: &me })
        });
        looking.await.map_err(|_| Status::unavailable("the scheduler ends this stream"))
    }

    async fn send(&self, mail: Mail) -> Result<(), Status> {
        self.edge.handle.send(mail).await.map_err(|error| stopped(&error))
    }

    fn bad(&self, error: &Unacceptable) -> Status {
        self.edge.metrics.malformed.inc();
        malformed(error)
    }
}

/// What a host can do about delegates. Others are told where it leads: that must be readable.
fn skill(announce: &Announce) -> Skill {
    let addresses = announce.host.as_ref().map(grpc_addresses);
    let leads = addresses.is_some_and(|addresses| {
        addresses.is_ok_and(|all| (1..=MOST_ADDRESSES).contains(&all.len()))
    });
    match (announce.follows, leads) {
        (false, _) => Skill::None,
        (true, false) => Skill::Follows,
        (true, true) => Skill::Leads,
    }
}

/// What a turn came to, and what is left for the next one.
type Turn = (Vec<Result<Findings, Unacceptable>>, IntoIter<Held>);

/// What `look` makes of the next ones until the turn is over; of one at least.
fn within_turn<T, U>(
    rest: &mut IntoIter<T>,
    look: impl Fn(T) -> U,
    is_over: impl Fn() -> bool,
) -> Vec<U> {
    let mut looked = Vec::new();
    for next in rest.by_ref() {
        looked.push(look(next));
        if is_over() {
            break;
        }
    }
    looked
}

#[cfg(test)]
mod tests {
    use dfs_model::{HostId, Location};
    use dfs_service::Lifecycle;
    use dfs_service::metrics::Metrics;
    use dfs_service::net::{Peer, Trust};
    use dfs_service::tls::Names;
    use tokio::task::JoinSet;
    use tonic::Code;

    use super::super::service::Seen;
    use super::messages::tests::some_task;
    use super::*;

    /// The edge of a core that takes its mail from the other end.
    fn edge(lifecycle: &mut Lifecycle) -> (Reception, mpsc::Receiver<Mail>) {
        let (mail, core) = mpsc::channel(1);
        let members = watch::channel(Arc::new(Members::default())).1;
        let me = Identity::load_or_create(tempfile::tempdir().unwrap().path()).unwrap();
        let metrics = SchedulerMetrics::register(&mut Metrics::new());
        let tracker = lifecycle.service("scheduler");
        let (tasks, stop) = (tracker.tasks().clone(), tracker.token().clone());
        let me = Arc::new(me);
        let reception =
            Reception::new(Handle::to(mail), members, me, metrics, (tasks, stop), Pulse::Silent);
        (reception, core)
    }

    #[tokio::test]
    async fn what_goes_on_is_shown_to_the_cluster_and_to_nobody_without_a_certificate() {
        let mut lifecycle = Lifecycle::new(Duration::ZERO).unwrap();
        let (reception, mut core) = edge(&mut lifecycle);
        let mut others = JoinSet::new();
        others.spawn(async move {
            while let Some(Mail::Look(_, reply)) = core.recv().await {
                let (tasks, arms) = (Vec::new(), Vec::new());
                let _ = reply.send(Seen { tasks, strategy: "swarm", arms, epoch: 0 });
            }
        });
        let ask = async |trust| {
            let mut request = Request::new(TasksRequest::default());
            let address = ([127, 0, 0, 1], 4001).into();
            request.extensions_mut().insert(Peer { address, trust });
            reception.tasks(request).await.map(|answer| answer.into_inner().strategy)
        };
        let stranger = ask(Trust::Anonymous).await.unwrap_err();
        assert_eq!(stranger.code(), Code::Unauthenticated);
        let names =
            |role| Trust::Certified(Arc::new(Names::one(HostId::from_bytes([7; 16]), role)));
        for trust in [names(Role::Node), names(Role::Guest), names(Role::Manager), Trust::Plain] {
            assert_eq!(ask(trust).await.unwrap(), "swarm");
        }
    }

    fn held() -> Held {
        Held { task: Some(messages::task_message(&some_task())), ..Held::default() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_announcement_that_waits_for_the_core_keeps_nobody_from_his_turn() {
        let (mail, mut core) = mpsc::channel(1);
        let me = Identity::load_or_create(tempfile::tempdir().unwrap().path()).unwrap();
        let host = HostInfo {
            id: me.host(),
            kind: HostKind::Node,
            name: "node".into(),
            location: Location::default(),
            addresses: Vec::new(),
            public_key: me.public_key(),
            upload_slots: 1,
        };
        let verifying = Arc::new(Semaphore::new(VERIFYING));
        let attendance = Attendance {
            host: Arc::new(host),
            id: 1,
            edge: Edge {
                handle: Handle::to(mail.clone()),
                members: watch::channel(Arc::new(Members::default())).1,
                me: Arc::new(me),
                metrics: SchedulerMetrics::register(&mut Metrics::new()),
                verifying: Arc::clone(&verifying),
                pending: Arc::new(Semaphore::new(PENDING)),
                naming: Arc::new(Semaphore::new(1)),
                pulse: Pulse::Silent,
                tasks: TaskTracker::new(),
            },
            stop: CancellationToken::new(),
        };
        let mut pending = Pending::new(Arc::clone(&attendance.edge.pending));
        let mut announcing = JoinSet::new();
        announcing.spawn(async move {
            attendance.announce(vec![held(), held(), held()], &mut pending).await
        });
        while mail.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(verifying.available_permits(), VERIFYING);
        for _ in 0..3 {
            assert!(matches!(core.recv().await, Some(Mail::Announced(_))));
        }
        announcing.join_next().await.unwrap().unwrap().unwrap();
    }

    #[test]
    fn a_turn_ends_when_its_time_is_over_and_leaves_the_rest_for_the_next_one() {
        let mut rest = vec![1, 2, 3, 4].into_iter();
        let looked = std::cell::Cell::new(0);
        let look = |n: i32| {
            looked.set(looked.get() + 1);
            n * 10
        };
        assert_eq!(within_turn(&mut rest, look, || looked.get() == 2), [10, 20]);
        assert_eq!(within_turn(&mut rest, look, || true), [30], "one at least");
        assert_eq!(within_turn(&mut rest, look, || false), [40]);
    }

    #[test]
    fn only_who_can_be_reached_where_it_says_is_asked_to_lead() {
        let said = |follows, addresses: &[&str]| {
            let endpoint = |address: &&str| dfs_proto::common::Endpoint {
                ip: address.to_string(),
                port: 4003,
            };
            let grpc = addresses.iter().map(endpoint).collect();
            let host = Some(dfs_proto::common::Host { grpc, ..Default::default() });
            skill(&Announce { host, follows, ..Announce::default() })
        };
        assert_eq!(said(true, &["10.0.0.1", "fd00::1"]), Skill::Leads);
        assert_eq!(said(true, &[]), Skill::Follows);
        assert_eq!(said(true, &["not an address"]), Skill::Follows);
        assert_eq!(said(true, &["10.0.0.1"; MOST_ADDRESSES + 1]), Skill::Follows);
        assert_eq!(said(false, &["10.0.0.1"]), Skill::None);
    }
}
