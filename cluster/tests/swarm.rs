//! Manager and scheduler over real gRPC on loopback, with a seed that the test plays itself.

#![allow(clippy::unwrap_used)] // The lint knows only functions marked as tests, not what they call.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dfs_cluster::membership::{self, Members};
use dfs_cluster::metrics::{ManagerMetrics, SchedulerMetrics};
use dfs_cluster::{manager, scheduler};
use dfs_model::{CanonicalUrl, HostId, TaskId, TaskInfo, TaskKey, TaskKind, Transform, Validator};
use dfs_peer::dial::Callee;
use dfs_peer::digests::{Appointment, DigestBatch, Identity, Office};
use dfs_peer::hashtree;
use dfs_peer::swarm::{Holdings, ManagerPlace, Swarm, SwarmOptions};
use dfs_proto::manager::Role;
use dfs_proto::manager::manager_server::ManagerServer;
use dfs_proto::scheduler::host_message::Kind as Up;
use dfs_proto::scheduler::scheduler_client::SchedulerClient;
use dfs_proto::scheduler::scheduler_message::Kind as Down;
use dfs_proto::scheduler::scheduler_server::SchedulerServer;
use dfs_proto::scheduler::{
    Announce, Held, HostMessage, Names, Register, Registered, ResolveRequest, SizeScope,
};
use dfs_proto::seed::seed_server::{Seed, SeedServer};
use dfs_proto::seed::{ObtainEvent, ObtainRequest, Obtaining, obtain_event};
use dfs_proto::{common, convert, seed};
use dfs_service::admin::Readiness;
use dfs_service::metrics::Metrics;
use dfs_service::net::{self, Caller, GrpcChannels, Port, Security};
use dfs_service::{Lifecycle, OnFailure};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How long a test waits for what must happen before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = net::bind("test", LOOPBACK, Port::Exactly(0), &Security::Plain).await.unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

fn task(name: &str, length: u64) -> TaskInfo {
    let key = TaskKey {
        domain: TaskKey::PUBLIC.into(),
        kind: TaskKind::Blob,
        url: CanonicalUrl::parse(&format!("https://example.org/{name}")).unwrap(),
        headers: Vec::new(),
        validator: Validator { length: Some(length), ..Validator::default() },
        transform: Transform::Identity,
    };
    TaskInfo::new(key, Some(length), true)
}

fn host(identity: &Identity, kind: common::HostKind, grpc: Option<SocketAddr>) -> common::Host {
    common::Host {
        id: identity.host().as_bytes().to_vec().into(),
        kind: kind.into(),
        name: "test".into(),
        pieces: vec![SocketAddr::new(LOOPBACK, 9).into()],
        grpc: grpc.into_iter().map(Into::into).collect(),
        public_key: identity.public_key().to_vec().into(),
        ..common::Host::default()
    }
}

fn identity() -> Identity {
    Identity::load_or_create(tempfile::tempdir().unwrap().path()).unwrap()
}

/// One order that the played seed has received.
struct Ordered {
    request: ObtainRequest,
    say: mpsc::Sender<Result<ObtainEvent, Status>>,
}

impl Ordered {
    async fn says(&self, kind: obtain_event::Kind) {
        self.say.send(Ok(ObtainEvent { kind: Some(kind) })).await.unwrap();
    }

    async fn obtains(&self, tiny: &'static [u8]) {
        let task = self.request.task.clone();
        let tiny = Bytes::from_static(tiny);
        self.says(obtain_event::Kind::Obtaining(Obtaining { task, held: Vec::new(), tiny })).await;
    }
}

/// A seed that does what the test says.
struct Played {
    orders: mpsc::Sender<Ordered>,
    resolutions: Arc<AtomicUsize>,
    /// A resolution is answered for every permit.
    answers: Arc<Semaphore>,
    /// For which machines it was asked.
    platforms: Arc<Mutex<Vec<String>>>,
    /// The connections that it was asked over, by the other end's address.
    asked_over: Arc<Mutex<BTreeSet<SocketAddr>>>,
}

#[tonic::async_trait]
impl Seed for Played {
    type PreheatStream = ReceiverStream<Result<common::Preheating, Status>>;

    async fn preheat(
        &self,
        _: Request<seed::PreheatRequest>,
    ) -> Result<Response<Self::PreheatStream>, Status> {
        Err(Status::unimplemented("nobody asks a played seed for it"))
    }

    type ObtainStream = ReceiverStream<Result<ObtainEvent, Status>>;

    async fn resolve(
        &self,
        request: Request<seed::ResolveRequest>,
    ) -> Result<Response<seed::ResolveReply>, Status> {
        self.resolutions.fetch_add(1, Ordering::SeqCst);
        let caller = Caller::of(request.extensions());
        self.asked_over.lock().unwrap().extend(caller.address());
        let answer = self.answers.acquire().await;
        answer.map_err(|_| Status::unavailable("the seed was told to fail"))?.forget();
        let request = request.into_inner();
        self.platforms.lock().unwrap().push(request.platform);
        let url = request.target.unwrap_or_default().url;
        if url.ends_with("missing") {
            return Err(Status::not_found("the origin answered 404"));
        }
        if url.ends_with("failing") {
            return Err(Status::unknown("the origin answered 502"));
        }
        let tasks = vec![common::Task::from(&task("resolved", 1 << 20))];
        let artifact = common::Artifact { url, tasks, ..common::Artifact::default() };
        Ok(Response::new(seed::ResolveReply { artifact: Some(artifact), ..Default::default() }))
    }

    async fn obtain(
        &self,
        request: Request<ObtainRequest>,
    ) -> Result<Response<Self::ObtainStream>, Status> {
        let caller = Caller::of(request.extensions());
        self.asked_over.lock().unwrap().extend(caller.address());
        let (say, stream) = mpsc::channel(16);
        let order = Ordered { request: request.into_inner(), say };
        self.orders.send(order).await.map_err(|_| Status::unavailable("stopping"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// The test's end of a played seed.
struct Stage {
    identity: Identity,
    orders: mpsc::Receiver<Ordered>,
    resolutions: Arc<AtomicUsize>,
    answers: Arc<Semaphore>,
    platforms: Arc<Mutex<Vec<String>>>,
    asked_over: Arc<Mutex<BTreeSet<SocketAddr>>>,
}

impl Stage {
    async fn order(&mut self) -> Ordered {
        soon("an order to the seed", self.orders.recv()).await.unwrap()
    }
}

/// A cluster in this process.
struct Cluster {
    at: SocketAddr,
    lifecycle: Lifecycle,
    members: watch::Receiver<Arc<Members>>,
    metrics: SchedulerMetrics,
}

impl Cluster {
    async fn start(dir: &Path, lease: Duration) -> Self {
        Self::start_with(dir, lease, Duration::from_secs(600), PATIENCE).await
    }

    /// One that remembers for so long what URLs are, and takes so long to find out at most.
    async fn start_with(
        dir: &Path,
        lease: Duration,
        remember: Duration,
        timeout: Duration,
    ) -> Self {
        let mut lifecycle = Lifecycle::new(PATIENCE).unwrap();
        let (listener, at) = listen().await;
        let mut all = Metrics::new();
        let mut routes = RoutesBuilder::default();
        let server = lifecycle.service("grpc");

        let tracker = lifecycle.service("manager");
        let options = manager::Options { lease, ..manager::Options::default() };
        let metrics = ManagerMetrics::register(&mut all);
        let check = Readiness::default().check("manager");
        let opening = manager::Service::open(&options, dir, metrics, check).await;
        let (service, handle) = opening.unwrap();
        let stop = tracker.token().clone();
        let grpc = manager::Grpc::new(handle, tracker.tasks().clone(), stop.clone());
        routes.add_service(ManagerServer::new(grpc));
        tracker.spawn("members", OnFailure::StopProcess, service.run(stop));

        let tracker = lifecycle.service("scheduler");
        let own = Arc::new(Identity::load_or_create(dir).unwrap());
        let me = host(&own, common::HostKind::Node, Some(at));
        let manager = net::grpc_channel_to(at, Callee::Manager, &Security::Plain);
        let members = membership::follow(manager, me, Role::Scheduler, None, &tracker);
        let metrics = SchedulerMetrics::register(&mut all);
        let settings = scheduler::Settings {
            remember,
            keep: Duration::from_secs(600),
            timeout,
            area: String::new(),
        };
        let (tasks, stop) = (tracker.tasks().clone(), tracker.token().clone());
        let channels = Arc::new(GrpcChannels::default());
        let resolver = scheduler::Resolver::new(
            settings,
            members.clone(),
            channels.clone(),
            metrics.clone(),
            tracker.clone(),
        );
        let options = scheduler::Options::default();
        let (service, handle) = scheduler::Service::new(
            options.policy(),
            members.clone(),
            scheduler::Seeds::Listed(channels),
            Arc::clone(&own),
            tracker.clone(),
            metrics.clone(),
        );
        let (heard, counted) = (members.clone(), metrics.clone());
        let reception = scheduler::Reception::new(
            handle,
            heard,
            own,
            counted,
            (tasks, stop),
            scheduler::Pulse::Silent,
        );
        let grpc = scheduler::Grpc::new(reception, resolver);
        routes.add_service(SchedulerServer::new(grpc));
        tracker.spawn("scheduling", OnFailure::StopProcess, service.run());

        let stop = server.token().clone();
        let serving = net::serve_grpc(routes.routes(), listener, Security::Plain, stop);
        server.spawn("grpc", OnFailure::StopProcess, serving);
        Self { at, lifecycle, members, metrics }
    }

    fn channel(&self) -> Channel {
        net::grpc_channel_to(self.at, Callee::Manager, &Security::Plain)
    }

    /// Adds a played seed and waits until the scheduler knows it.
    async fn add_seed(&mut self) -> Stage {
        let (listener, at) = listen().await;
        let (orders, received) = mpsc::channel(16);
        let resolutions = Arc::new(AtomicUsize::new(0));
        let answers = Arc::new(Semaphore::new(0));
        let (asked_over, platforms) = (Arc::default(), Arc::default());
        let played = Played {
            orders,
            resolutions: Arc::clone(&resolutions),
            answers: Arc::clone(&answers),
            platforms: Arc::clone(&platforms),
            asked_over: Arc::clone(&asked_over),
        };
        let tracker = self.lifecycle.service("played seed");
        let (routes, stop) = (Routes::new(SeedServer::new(played)), tracker.token().clone());
        let serving = net::serve_grpc(routes, listener, Security::Plain, stop);
        tracker.spawn("seed", OnFailure::StopProcess, serving);
        let identity = identity();
        let me = host(&identity, common::HostKind::Seed, Some(at));
        membership::follow(self.channel(), me, Role::Seed, None, &tracker);
        self.wait_for_members("the seed is listed", |members| {
            members.key_of(&identity.host()).is_some()
        })
        .await;
        Stage { identity, orders: received, resolutions, answers, platforms, asked_over }
    }

    async fn wait_for_members(&self, what: &str, is_so: impl Fn(&Members) -> bool) {
        let mut members = self.members.clone();
        soon(what, members.wait_for(|members| is_so(members))).await.unwrap();
    }

    async fn node(&self) -> Node {
        let identity = identity();
        let me = host(&identity, common::HostKind::Node, None);
        Node::attend(self.channel(), identity, me).await.unwrap()
    }
}

/// A host's stream to the scheduler.
struct Node {
    identity: Identity,
    up: mpsc::Sender<HostMessage>,
    down: tonic::Streaming<dfs_proto::scheduler::SchedulerMessage>,
}

impl Node {
    async fn attend(
        channel: Channel,
        identity: Identity,
        me: common::Host,
    ) -> Result<Self, Status> {
        Self::attend_with(channel, identity, me, Vec::new()).await
    }

    async fn attend_with(
        channel: Channel,
        identity: Identity,
        me: common::Host,
        held: Vec<Held>,
    ) -> Result<Self, Status> {
        let (up, stream) = mpsc::channel(16);
        let announce = Announce { host: Some(me), held, more: true, ..Announce::default() };
        up.try_send(HostMessage { kind: Some(Up::Announce(announce)) }).unwrap();
        let mut client = SchedulerClient::new(channel);
        let down = client.attend(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Self { identity, up, down })
    }

    async fn says(&self, kind: Up) -> bool {
        self.up.send(HostMessage { kind: Some(kind) }).await.is_ok()
    }

    async fn registers(&self, task: &TaskInfo) -> bool {
        let register = Register { task: Some(task.into()), ..Register::default() };
        self.says(Up::Register(register)).await
    }

    /// The first message that `pick` takes.
    async fn hears<T>(&mut self, what: &str, pick: impl Fn(Down) -> Option<T>) -> T {
        let hearing = async {
            loop {
                let message = self.down.message().await.unwrap().expect("the stream goes on");
                if let Some(picked) = message.kind.and_then(&pick) {
                    return picked;
                }
            }
        };
        soon(what, hearing).await
    }

    async fn hears_answer(&mut self) -> Registered {
        self.hears("the answer", |message| match message {
            Down::Registered(registered) => Some(registered),
            _ => None,
        })
        .await
    }

    /// The next parents that are any.
    async fn hears_parents(&mut self) -> Vec<Bytes> {
        self.hears("parents", |message| match message {
            Down::Parents(parents) if !parents.parents.is_empty() => {
                let hosts = parents.parents.into_iter().filter_map(|parent| parent.host);
                Some(hosts.map(|host| host.id).collect())
            }
            _ => None,
        })
        .await
    }
}

fn bytes(id: HostId) -> Bytes {
    id.as_bytes().to_vec().into()
}

fn question(url: &str) -> ResolveRequest {
    let url = format!("https://example.org/{url}");
    let target = common::Target { url, ..common::Target::default() };
    ResolveRequest { target: Some(target), view: 1, ..ResolveRequest::default() }
}

fn secret(url: &str) -> ResolveRequest {
    let mut question = question(url);
    let kind = Some(common::credentials::Kind::Bearer("hunter2".into()));
    let credentials = common::Credentials { kind, headers: Vec::new() };
    question.target.as_mut().unwrap().credentials = Some(credentials);
    question
}

#[tokio::test]
async fn children_get_the_seed_once_it_takes_part_and_its_digests_as_it_signs_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let mut seed = cluster.add_seed().await;
    let task = task("big", 100 << 20);
    let mut first = cluster.node().await;
    first.registers(&task).await;
    let order = seed.order().await;
    assert_eq!(order.request.task, Some((&task).into()));
    order.obtains(b"").await;
    assert_eq!(first.hears_parents().await, [bytes(seed.identity.host())]);

    let signer = seed.identity.host();
    let batch = DigestBatch { task: task.id, signer, length: task.length, entries: Vec::new() };
    let encoded = Bytes::from(batch.sign(seed.identity.signing_key()).unwrap().encode());
    let digests = common::SignedDigests { encoded: encoded.clone() };
    order.says(obtain_event::Kind::Digests(digests)).await;
    let update = first.hears("digests", |message| match message {
        Down::Update(update) if !update.digests.is_empty() => Some(update),
        _ => None,
    });
    assert_eq!(update.await.digests[0].encoded, encoded);

    let mut second = cluster.node().await;
    second.registers(&task).await;
    assert_eq!(second.hears_answer().await.digests.len(), 1, "late joiners get a snapshot");
    assert!(second.hears_parents().await.contains(&bytes(first.identity.host())));
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_host_has_named_it_is_asked_for_when_somebody_wants_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let _seed = cluster.add_seed().await;
    let task = task("kept", 100 << 20);
    let mut holder = cluster.node().await;
    let turn = holder.hears("its turn", |message| match message {
        Down::NameHeld(turn) => Some(turn.most),
        _ => None,
    });
    assert!(turn.await > 0);
    holder.says(Up::Names(Names { task_ids: bytes_of(task.id), more: true })).await;
    let again = holder.hears("its next turn", |message| match message {
        Down::NameHeld(_) => Some(()),
        _ => None,
    });
    again.await;
    let mut node = cluster.node().await;
    node.registers(&task).await;
    let recalled = holder.hears("what is wanted", |message| match message {
        Down::Recall(recall) => Some(recall.task_id),
        _ => None,
    });
    assert_eq!(recalled.await, bytes_of(task.id));
    let groups = vec![common::GroupRun { first: 0, count: 1600 }];
    let held = Held { task: Some((&task).into()), groups, ..Held::default() };
    holder.says(Up::Held(held)).await;
    assert_eq!(node.hears_parents().await, [bytes(holder.identity.host())]);
    let too_many = Names { task_ids: vec![0; 32 * 5000].into(), more: false };
    holder.says(Up::Names(too_many)).await;
    let ended = soon("it is refused", async {
        loop {
            if let Err(status) = holder.down.message().await {
                return status.code();
            }
        }
    });
    assert_eq!(ended.await, Code::InvalidArgument);
    cluster.lifecycle.stop().await.unwrap();
}

fn bytes_of(id: TaskId) -> Bytes {
    id.as_bytes().to_vec().into()
}

#[tokio::test]
async fn a_tiny_task_comes_with_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let mut seed = cluster.add_seed().await;
    let task = task("tiny", 3);
    let mut node = cluster.node().await;
    node.registers(&task).await;
    let order = seed.order().await;
    order.obtains(b"abc").await;
    let signer = seed.identity.host();
    let batch = DigestBatch { task: task.id, signer, length: task.length, entries: Vec::new() };
    let encoded = batch.sign(seed.identity.signing_key()).unwrap().encode().into();
    order.says(obtain_event::Kind::Digests(common::SignedDigests { encoded })).await;
    let registered = node.hears_answer().await;
    assert_eq!((registered.scope(), &registered.content[..]), (SizeScope::Tiny, &b"abc"[..]));
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn when_the_seed_breaks_the_next_one_is_asked_and_then_a_node_stands_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let (mut a, mut b) = (cluster.add_seed().await, cluster.add_seed().await);
    let mut node = cluster.node().await;
    node.registers(&task("big", 100 << 20)).await;
    let broken = || Err(Status::unavailable("injected"));
    let mut asked = Vec::new();
    for _ in 0..2 {
        let order = soon("an order", async {
            tokio::select! {
                Some(order) = a.orders.recv() => { asked.push('a'); order }
                Some(order) = b.orders.recv() => { asked.push('b'); order }
            }
        });
        order.await.say.send(broken()).await.unwrap();
    }
    asked.sort_unstable();
    assert_eq!(asked, ['a', 'b'], "each was asked once");
    let stand_in = node.hears("the order to read the source", |message| match message {
        Down::BackToSource(order) => Some(order.stand_in),
        _ => None,
    });
    assert!(stand_in.await);
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_stand_in_signs_reaches_the_others_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), PATIENCE).await;
    let task = task("big", 100 << 20);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let node = cluster.node().await;
        node.registers(&task).await;
        nodes.push(node);
    }
    let (mut stand_ins, mut children) = (Vec::new(), Vec::new());
    for mut node in nodes {
        let stands_in = node.hears("its part", |message| match message {
            Down::BackToSource(order) => Some(order.stand_in),
            Down::Parents(parents) if !parents.parents.is_empty() => Some(false),
            _ => None,
        });
        if stands_in.await { stand_ins.push(node) } else { children.push(node) }
    }
    assert!((1..=2).contains(&stand_ins.len()), "{} stand in", stand_ins.len());
    let batch_of = |node: &Node| {
        let signer = node.identity.host();
        let batch = DigestBatch { task: task.id, signer, length: task.length, entries: Vec::new() };
        Bytes::from(batch.sign(node.identity.signing_key()).unwrap().encode())
    };
    // Who stands in for nobody is not heard.
    let encoded = batch_of(&children[0]);
    children[0].says(Up::Digests(common::SignedDigests { encoded })).await;
    let encoded = batch_of(&stand_ins[0]);
    stand_ins[0].says(Up::Digests(common::SignedDigests { encoded: encoded.clone() })).await;
    let update = children[0].hears("digests", |message| match message {
        Down::Update(update) if !update.digests.is_empty() => Some(update),
        _ => None,
    });
    let update = update.await;
    assert_eq!(update.digests, [common::SignedDigests { encoded }]);
    let mut keys: Vec<_> =
        update.signers.iter().map(|signer| convert::signer(signer).unwrap()).collect();
    let of = |node: &Node| (node.identity.host(), node.identity.public_key());
    let mut expected: Vec<_> = stand_ins.iter().map(of).collect();
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys, expected);

    let mut late = cluster.node().await;
    late.registers(&task).await;
    let registered = late.hears_answer().await;
    assert_eq!((registered.digests.len(), registered.signers.len()), (1, expected.len()));
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn a_new_scheduler_hands_late_joiners_the_digests_that_holders_announce() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let seed = cluster.add_seed().await;
    let task = task("big", 100 << 20);
    let batch_by = |identity: &Identity| {
        let signer = identity.host();
        let batch = DigestBatch { task: task.id, signer, length: task.length, entries: Vec::new() };
        Bytes::from(batch.sign(identity.signing_key()).unwrap().encode())
    };
    let holder = identity();
    let me = host(&holder, common::HostKind::Node, None);
    // The seed's batch, which this scheduler never saw, and one that a node made itself.
    let batches = [batch_by(&seed.identity), batch_by(&holder)];
    let held = Held {
        task: Some((&task).into()),
        groups: vec![common::GroupRun { first: 0, count: 16 }],
        digests: batches.iter().cloned().map(|encoded| common::SignedDigests { encoded }).collect(),
        appointments: Vec::new(),
    };
    let _holder = Node::attend_with(cluster.channel(), holder, me, vec![held]).await.unwrap();
    let mut late = cluster.node().await;
    late.registers(&task).await;
    let digests = late.hears_answer().await.digests;
    assert_eq!(digests, [common::SignedDigests { encoded: batches[0].clone() }]);
    cluster.lifecycle.stop().await.unwrap();
}

/// What a host says that it holds of a task: a batch, and who may have signed it.
fn holding(task: &TaskInfo, signer: &Identity, appointments: Vec<Bytes>) -> Held {
    let (id, signer_id) = (task.id, signer.host());
    let batch =
        DigestBatch { task: id, signer: signer_id, length: task.length, entries: Vec::new() };
    let encoded = batch.sign(signer.signing_key()).unwrap().encode().into();
    Held {
        task: Some(task.into()),
        groups: vec![common::GroupRun { first: 0, count: 16 }],
        digests: vec![common::SignedDigests { encoded }],
        appointments,
    }
}

async fn late_joiner(cluster: &Cluster, task: &TaskInfo) -> Registered {
    let mut late = cluster.node().await;
    late.registers(task).await;
    late.hears_answer().await
}

#[tokio::test]
async fn a_restarted_scheduler_knows_the_stand_ins_again_that_it_appointed_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), PATIENCE).await;
    let (task, other) = (task("big", 100 << 20), task("other", 100 << 20));
    let mut stand_in = cluster.node().await;
    stand_in.registers(&task).await;
    let signers = stand_in.hears("the order to stand in", |message| match message {
        Down::BackToSource(order) if order.stand_in => Some(order.signers),
        _ => None,
    });
    let words: Vec<Bytes> = signers.await.into_iter().map(|signer| signer.appointment).collect();
    assert_eq!(words.len(), 1);
    cluster.lifecycle.stop().await.unwrap();

    let cluster = Cluster::start(dir.path(), PATIENCE).await;
    let stood_in = stand_in.identity;
    // A holder makes itself one: for the same task, and by the word that another was given.
    let liar = identity();
    let self_made =
        Appointment::sign(task.id, Office::StandIn, (liar.host(), liar.public_key()), &liar)
            .encode();
    let lie = holding(&task, &liar, vec![self_made, words[0].clone()]);
    // And one repeats what was said of another task.
    let misplaced = holding(&other, &stood_in, words.clone());
    let me = host(&liar, common::HostKind::Node, None);
    let held = vec![lie, misplaced];
    let liar = Node::attend_with(cluster.channel(), liar, me, held).await.unwrap();
    let registered = late_joiner(&cluster, &task).await;
    assert!(registered.digests.is_empty(), "nobody makes itself a signer");
    assert!(late_joiner(&cluster, &other).await.digests.is_empty());
    drop(liar);

    let holder = identity();
    let me = host(&holder, common::HostKind::Node, None);
    let held = vec![holding(&task, &stood_in, words.clone())];
    let batch = held[0].digests.clone();
    let _holder = Node::attend_with(cluster.channel(), holder, me, held).await.unwrap();
    let heard = async {
        loop {
            let registered = late_joiner(&cluster, &task).await;
            if !registered.digests.is_empty() {
                return registered;
            }
        }
    };
    let registered = soon("what the holder announced", heard).await;
    assert_eq!(registered.digests, batch);
    let signers: Vec<_> =
        registered.signers.iter().map(|signer| convert::signer(signer).unwrap()).collect();
    assert_eq!(signers, [(stood_in.host(), stood_in.public_key())]);
    assert_eq!(registered.signers[0].appointment, words[0], "to be handed back again");

    // It goes on reading the origin for others: what it signs now is heard too.
    let mut child = cluster.node().await;
    child.registers(&task).await;
    let me = host(&stood_in, common::HostKind::Node, None);
    let held = vec![holding(&task, &stood_in, words)];
    let again = Node::attend_with(cluster.channel(), stood_in, me, held).await.unwrap();
    let (signer, length) = (again.identity.host(), task.length);
    let entries = vec![(hashtree::Node::group(1), [7; 32])];
    let batch = DigestBatch { task: task.id, signer, length, entries };
    let encoded = Bytes::from(batch.sign(again.identity.signing_key()).unwrap().encode());
    again.says(Up::Digests(common::SignedDigests { encoded: encoded.clone() })).await;
    let update = child.hears("its digests", |message| match message {
        Down::Update(update) if !update.digests.is_empty() => Some(update),
        _ => None,
    });
    assert_eq!(update.await.digests, [common::SignedDigests { encoded }]);
    cluster.lifecycle.stop().await.unwrap();
}

/// The answer to a host that has announced what it holds just before.
async fn announcing(cluster: &Cluster, host: Identity, held: Vec<Held>) -> Registered {
    let me = crate::host(&host, common::HostKind::Node, None);
    let task = held[0].task.clone();
    let mut host = Node::attend_with(cluster.channel(), host, me, held).await.unwrap();
    host.says(Up::Register(Register { task, ..Register::default() })).await;
    host.hears_answer().await
}

#[tokio::test]
async fn what_a_reserve_signs_counts_where_nobody_else_signs_and_nowhere_else() {
    let (dir, later) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Identity::load_or_create(dir.path()).unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap().flatten() {
        std::fs::copy(file.path(), later.path().join(file.file_name())).unwrap();
    }
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let mut seed = cluster.add_seed().await;
    let task = task("big", 100 << 20);
    let mut reserve = cluster.node().await;
    reserve.registers(&task).await;
    seed.order().await.obtains(b"").await;
    let signer = reserve.hears("that it is a reserve", |message| match message {
        Down::Reserves(reserves) => reserves.reserves.into_iter().next()?.signer,
        _ => None,
    });
    let signer = signer.await;
    assert_eq!(signer.host_id, bytes(reserve.identity.host()));
    let word = signer.appointment.clone();
    let said = || vec![holding(&task, &reserve.identity, vec![word.clone()])];

    let registered = announcing(&cluster, identity(), said()).await;
    assert!(registered.digests.is_empty(), "there is a seed: {registered:?}");
    assert!(registered.signers.is_empty());
    cluster.lifecycle.stop().await.unwrap();

    let cluster = Cluster::start(later.path(), PATIENCE).await;
    cluster.wait_for_members("the scheduler is listed", |members| !members.all.is_empty()).await;
    let registered = announcing(&cluster, identity(), said()).await;
    assert_eq!(registered.digests, said()[0].digests);
    assert_eq!(registered.signers, [signer]);
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn digests_that_the_seed_did_not_sign_end_its_part() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let mut seed = cluster.add_seed().await;
    let task = task("big", 100 << 20);
    let mut node = cluster.node().await;
    node.registers(&task).await;
    let order = seed.order().await;
    order.obtains(b"").await;
    node.hears_parents().await;
    let (signer, forger) = (seed.identity.host(), identity());
    let batch = DigestBatch { task: task.id, signer, length: task.length, entries: Vec::new() };
    let encoded = batch.sign(forger.signing_key()).unwrap().encode().into();
    order.says(obtain_event::Kind::Digests(common::SignedDigests { encoded })).await;
    let forged = node.hears("the order to read the source", |message| match message {
        Down::Update(_) => Some(true),
        Down::BackToSource(_) => Some(false),
        _ => None,
    });
    assert!(!forged.await, "forged digests reach nobody");
    cluster.lifecycle.stop().await.unwrap();
}

/// Counts how often it is asked what a host holds.
#[derive(Default)]
struct Looked(AtomicUsize);

impl Holdings for Looked {
    fn held(&self, _: &[TaskId]) -> Vec<Held> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Vec::new()
    }

    fn names(&self, _: &dyn Fn(&TaskKey) -> bool) -> Vec<TaskId> {
        Vec::new()
    }
}

#[tokio::test]
async fn a_host_looks_through_what_it_holds_only_for_schedulers_that_it_reaches() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    // A scheduler that takes every connection and drops it.
    let (listener, at) = listen().await;
    let dropped = Arc::new(AtomicUsize::new(0));
    let tracker = cluster.lifecycle.service("broken scheduler");
    let (counted, stop) = (Arc::clone(&dropped), tracker.token().clone());
    tracker.tasks().spawn(stop.run_until_cancelled_owned(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    }));
    let broken = identity();
    let me = host(&broken, common::HostKind::Node, Some(at));
    membership::follow(cluster.channel(), me, Role::Scheduler, None, &tracker);
    cluster.wait_for_members("it is listed", |members| members.all.len() == 2).await;

    let looked = Arc::new(Looked::default());
    let me = dfs_model::HostInfo::try_from(host(&identity(), common::HostKind::Node, None));
    let options = SwarmOptions {
        managers: vec![Arc::new(cluster.at)],
        host: me.unwrap(),
        channels: Arc::new(GrpcChannels::default()),
        keyring: Arc::default(),
        call_timeout: PATIENCE,
        kept: None,
        leads_at: Vec::new(),
    };
    let (tasks, stop) = (tracker.tasks(), tracker.token().child_token());
    let swarm = Swarm::start(options, Arc::clone(&looked) as _, tasks, stop);
    let trying = async {
        while !swarm.is_connected() || dropped.load(Ordering::SeqCst) < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("attempts to reach the broken one", trying).await;
    assert_eq!(looked.0.load(Ordering::SeqCst), 1, "for the one that answers");
    cluster.lifecycle.stop().await.unwrap();
}

/// A name that leads nowhere at first, then to where the manager was, then to it.
struct Moving {
    looked: AtomicUsize,
    was: SocketAddr,
    is: SocketAddr,
}

impl std::fmt::Display for Moving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("manager.example:4000")
    }
}

#[tonic::async_trait]
impl ManagerPlace for Moving {
    async fn addresses(&self) -> Vec<SocketAddr> {
        match self.looked.fetch_add(1, Ordering::SeqCst) {
            0 => Vec::new(),
            1 => vec![self.was],
            _ => vec![self.was, self.is],
        }
    }
}

#[tokio::test]
async fn a_manager_is_found_once_its_name_leads_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let seed = cluster.add_seed().await;
    let (listener, was) = listen().await;
    drop(listener);
    let moving = Arc::new(Moving { looked: AtomicUsize::default(), was, is: cluster.at });
    let me = dfs_model::HostInfo::try_from(host(&identity(), common::HostKind::Node, None));
    let options = SwarmOptions {
        managers: vec![Arc::clone(&moving) as _],
        host: me.unwrap(),
        channels: Arc::new(GrpcChannels::default()),
        keyring: Arc::default(),
        call_timeout: PATIENCE,
        kept: None,
        leads_at: Vec::new(),
    };
    let tracker = cluster.lifecycle.service("node");
    let (tasks, stop) = (tracker.tasks(), tracker.token().child_token());
    let swarm = Swarm::start(options, Arc::new(Looked::default()), tasks, stop);
    soon("the node to meet the scheduler", swarm.until_connected()).await;
    assert_eq!(
        moving.looked.load(Ordering::SeqCst),
        3,
        "once it answers it is not looked up again"
    );
    drop(seed);
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn a_member_renews_its_lease_however_often_the_list_changes() {
    let (dir, lease) = (tempfile::tempdir().unwrap(), Duration::from_secs(4));
    let cluster = Cluster::start(dir.path(), lease).await;
    cluster.wait_for_members("the scheduler is listed", |members| members.all.len() == 1).await;
    let (restless, at) = (identity(), cluster.at);
    let request = |name: u32| dfs_proto::manager::MembershipRequest {
        host: Some(common::Host {
            name: name.to_string(),
            ..host(&restless, common::HostKind::Seed, Some(at))
        }),
        role: Role::Seed.into(),
        ..Default::default()
    };
    let (say, said) = mpsc::channel(1);
    say.send(request(0)).await.unwrap();
    let mut client = dfs_proto::manager::manager_client::ManagerClient::new(cluster.channel());
    let joined = client.membership(ReceiverStream::new(said)).await;
    let mut lists = joined.unwrap().into_inner();
    let began = std::time::Instant::now();
    let mut name = 0;
    while began.elapsed() < lease * 2 {
        let list = soon("the next list", lists.message()).await.unwrap().unwrap();
        let schedulers = list.members.iter().filter(|member| member.role() == Role::Scheduler);
        assert_eq!(schedulers.count(), 1, "it was dropped");
        name += 1;
        say.send(request(name)).await.unwrap();
    }
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn many_askers_cost_one_question_and_its_answer_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let seed = cluster.add_seed().await;
    let client = SchedulerClient::new(cluster.channel());
    let ask = |request| {
        let mut client = client.clone();
        async move { client.resolve(request).await.map(Response::into_inner) }
    };
    let asking = futures::future::join_all((0..10).map(|_| ask(question("a"))));
    let flights = cluster.metrics.resolved.of(["flight"]);
    let answering = async {
        while flights.get() < 9 {
            tokio::task::yield_now().await;
        }
        seed.answers.add_permits(1);
    };
    let (answers, ()) = soon("ten answers", async { tokio::join!(asking, answering) }).await;
    for answer in answers {
        assert_eq!(answer.unwrap().seed_id, bytes(seed.identity.host()));
    }
    soon("the remembered answer", ask(question("a"))).await.unwrap();
    assert_eq!(seed.resolutions.load(Ordering::SeqCst), 1);

    let fresh = ResolveRequest { fresh: true, ..question("a") };
    seed.answers.add_permits(1);
    soon("a fresh answer", ask(fresh)).await.unwrap();
    assert_eq!(seed.resolutions.load(Ordering::SeqCst), 2);
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn an_image_is_found_out_for_the_machine_that_asks_and_once_for_all_of_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let seed = cluster.add_seed().await;
    let client = SchedulerClient::new(cluster.channel());
    let ask = async |url: &str, platform: &str| {
        let target = common::Target { url: url.to_owned(), ..common::Target::default() };
        let platform = platform.to_owned();
        let question = ResolveRequest { target: Some(target), platform, ..question("") };
        seed.answers.add_permits(1);
        soon("an answer", client.clone().resolve(question)).await.unwrap();
        std::mem::take(&mut *seed.platforms.lock().unwrap())
    };
    let image = "oci://example.org/app:1";
    assert_eq!(ask(image, "linux/amd64").await, ["linux/amd64"]);
    assert_eq!(ask(image, "linux/aarch64").await, ["linux/arm64"]);
    assert_eq!(ask(image, "linux/arm64").await, [""; 0], "it is remembered");
    // Where the URL says it, or there is nothing to choose, it is one question.
    let (named, other) = ("oci://example.org/app:1?platform=linux/s390x", "https://example.org/x");
    for url in [named, other] {
        assert_eq!(ask(url, "linux/amd64").await, [""]);
        assert_eq!(ask(url, "linux/arm64").await, [""; 0]);
    }
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn who_wants_fresh_answers_while_one_is_found_out_shares_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let seed = cluster.add_seed().await;
    let client = SchedulerClient::new(cluster.channel());
    let asking = TaskTracker::new();
    let ask = || {
        let mut client = client.clone();
        let fresh = ResolveRequest { fresh: true, ..question("a") };
        asking.spawn(async move { client.resolve(fresh).await.map(Response::into_inner) })
    };
    let asked = async |times| {
        while seed.resolutions.load(Ordering::SeqCst) < times {
            tokio::task::yield_now().await;
        }
    };
    let first = ask();
    soon("the first question", asked(1)).await;
    let others: Vec<_> = (0..5).map(|_| ask()).collect();
    let flights = cluster.metrics.resolved.of(["flight"]);
    let all_wait = async {
        while flights.get() < 4 {
            tokio::task::yield_now().await;
        }
    };
    soon("all wait", all_wait).await;
    assert_eq!(seed.resolutions.load(Ordering::SeqCst), 1, "one at a time");
    seed.answers.add_permits(1);
    soon("the first answer", first).await.unwrap().unwrap();
    soon("the next question", asked(2)).await;
    assert!(others.iter().all(|other| !other.is_finished()), "theirs began later");
    let late = ask();
    seed.answers.add_permits(2);
    for other in others.into_iter().chain([late]) {
        soon("a fresh answer", other).await.unwrap().unwrap();
    }
    assert_eq!(seed.resolutions.load(Ordering::SeqCst), 3);
    assert!(cluster.metrics.resolved.of(["flight"]).get() == 4, "who came last joined nobody");
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn what_a_url_was_is_said_where_nobody_can_say_what_it_is_and_to_no_other_area() {
    let (dir, millisecond) = (tempfile::tempdir().unwrap(), Duration::from_millis(1));
    let mut cluster = Cluster::start_with(dir.path(), PATIENCE, millisecond, PATIENCE).await;
    let seed = cluster.add_seed().await;
    let client = SchedulerClient::new(cluster.channel());
    let ask = |request| {
        let mut client = client.clone();
        async move { client.resolve(request).await.map(Response::into_inner) }
    };
    seed.answers.add_permits(1);
    let known = soon("an answer", ask(question("a"))).await.unwrap();
    // From here on it fails.
    seed.answers.close();
    until_forgotten().await;
    for times in [1, 2] {
        let answer = soon("the answer as it was", ask(question("a"))).await.unwrap();
        assert_eq!(answer, known);
        assert_eq!(cluster.metrics.resolved.of(["kept"]).get(), times);
    }
    let fresh = ResolveRequest { fresh: true, ..question("a") };
    let for_area = ResolveRequest { for_area: true, ..question("a") };
    let asked = [fresh, for_area, question("never asked"), secret("a")];
    for request in asked {
        let no = soon("a refusal", ask(request)).await.unwrap_err();
        assert_eq!(no.code(), Code::Unavailable);
    }
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn an_origin_that_fails_is_not_asked_anew_for_everybody_who_comes_then() {
    let (dir, millisecond) = (tempfile::tempdir().unwrap(), Duration::from_millis(1));
    let mut cluster = Cluster::start_with(dir.path(), PATIENCE, millisecond, PATIENCE).await;
    let seed = cluster.add_seed().await;
    let mut client = SchedulerClient::new(cluster.channel());
    seed.answers.add_permits(3);
    for _ in 0..2 {
        let error = soon("an error", client.resolve(question("failing"))).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unknown, "the origin answered 502"));
    }
    assert_eq!(seed.resolutions.load(Ordering::SeqCst), 1);
    assert_eq!(cluster.metrics.resolved.of(["failed"]).get(), 1);
    // Whoever asks with credentials is told what comes of these.
    soon("an error", client.resolve(secret("failing"))).await.unwrap_err();
    assert_eq!(seed.resolutions.load(Ordering::SeqCst), 2);
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn there_is_one_deadline_however_many_seeds_are_asked() {
    let (dir, second) = (tempfile::tempdir().unwrap(), Duration::from_secs(1));
    let mut cluster = Cluster::start_with(dir.path(), PATIENCE, second, second).await;
    let seeds = [cluster.add_seed().await, cluster.add_seed().await];
    let mut client = SchedulerClient::new(cluster.channel());
    let late = soon("an error", client.resolve(question("a"))).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    let asked = seeds.iter().map(|seed| seed.resolutions.load(Ordering::SeqCst));
    assert_eq!(asked.sum::<usize>(), 1);
    seeds.iter().for_each(|seed| seed.answers.close());
    cluster.lifecycle.stop().await.unwrap();
}

/// Waits until what was remembered for a millisecond is not remembered any more.
async fn until_forgotten() {
    let asked = std::time::Instant::now();
    while asked.elapsed() < Duration::from_millis(5) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_was_found_with_credentials_is_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let seed = cluster.add_seed().await;
    let mut client = SchedulerClient::new(cluster.channel());
    seed.answers.add_permits(3);
    for request in [secret("a"), secret("a"), question("a")] {
        soon("an answer", client.resolve(request)).await.unwrap();
    }
    assert_eq!(seed.resolutions.load(Ordering::SeqCst), 3);
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn a_scheduler_asks_and_orders_over_one_connection_to_each_seed() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let mut seed = cluster.add_seed().await;
    let mut client = SchedulerClient::new(cluster.channel());
    seed.answers.add_permits(3);
    for _ in 0..3 {
        soon("an answer", client.resolve(secret("a"))).await.unwrap();
    }
    let node = cluster.node().await;
    node.registers(&task("big", 100 << 20)).await;
    seed.order().await;
    assert_eq!(seed.resolutions.load(Ordering::SeqCst), 3);
    assert_eq!(seed.asked_over.lock().unwrap().len(), 1);
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn the_origins_no_reaches_the_asker_and_is_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let mut client = SchedulerClient::new(cluster.channel());
    let alone = soon("an error", client.resolve(question("a"))).await.unwrap_err();
    assert_eq!(alone.code(), Code::Unavailable, "without seeds nobody knows");
    let seed = cluster.add_seed().await;
    seed.answers.add_permits(2);
    for _ in 0..2 {
        let error = soon("an error", client.resolve(question("missing"))).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::NotFound, "the origin answered 404"));
    }
    assert_eq!(seed.resolutions.load(Ordering::SeqCst), 2);
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn nobody_speaks_for_a_seed_but_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let seed = cluster.add_seed().await;
    let thief = identity();
    let mut me = host(&thief, common::HostKind::Node, None);
    me.id = bytes(seed.identity.host());
    let error = Node::attend(cluster.channel(), thief, me).await.err().unwrap();
    assert_eq!(error.code(), Code::PermissionDenied);
    let stranger = identity();
    let me = host(&stranger, common::HostKind::Seed, None);
    let error = Node::attend(cluster.channel(), stranger, me).await.err().unwrap();
    assert_eq!(error.code(), Code::PermissionDenied, "seeds join the manager first");
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_that_cannot_be_read_ends_the_stream_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), PATIENCE).await;
    let mut node = cluster.node().await;
    let mut forged = common::Task::from(&task("a", 10));
    forged.id = vec![0; 32].into();
    node.says(Up::Register(Register { task: Some(forged), ..Register::default() })).await;
    let error = soon("the end", async {
        loop {
            if let Err(error) = node.down.message().await {
                return error;
            }
        }
    });
    assert_eq!(error.await.code(), Code::InvalidArgument);
    assert_eq!(cluster.metrics.malformed.get(), 1);
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn a_host_that_does_not_read_is_dropped_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), PATIENCE).await;
    let deaf = cluster.node().await;
    let empty = task("empty", 0);
    soon("the drop", async {
        while cluster.metrics.dropped.get() == 0 && deaf.registers(&empty).await {}
    })
    .await;
    assert_eq!(cluster.metrics.dropped.get(), 1);
    let mut other = cluster.node().await;
    other.registers(&empty).await;
    let scope = other.hears("the answer", |message| match message {
        Down::Registered(registered) => Some(registered.scope()),
        _ => None,
    });
    assert_eq!(scope.await, SizeScope::Empty);
    cluster.lifecycle.stop().await.unwrap();
}

#[tokio::test]
async fn members_stay_listed_over_a_restart_and_go_when_their_lease_runs_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), PATIENCE).await;
    let seed = cluster.add_seed().await;
    let before = Arc::clone(&cluster.members.borrow());
    cluster.lifecycle.stop().await.unwrap();

    // The seed does not come back: it is listed until its lease runs out.
    let again = Cluster::start(dir.path(), Duration::from_millis(500)).await;
    again.wait_for_members("the list", |members| !members.cluster_id.is_empty()).await;
    let after = Arc::clone(&again.members.borrow());
    assert_eq!(after.cluster_id, before.cluster_id);
    assert!(after.version > before.version, "the scheduler is at another port");
    let gone = |members: &Members| members.key_of(&seed.identity.host()).is_none();
    again.wait_for_members("the lease runs out", gone).await;
    assert!(again.members.borrow().all.iter().any(|member| member.role == Role::Scheduler));
    again.lifecycle.stop().await.unwrap();
}
