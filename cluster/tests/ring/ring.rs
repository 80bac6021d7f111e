//! A cluster on machines of a simulated world: an origin, a manager, a scheduler, seeds, nodes. All but the origin are
//! what our processes are made of.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dfs_cluster::membership;
use dfs_cluster::metrics::{ManagerMetrics, SchedulerMetrics};
use dfs_cluster::{manager, scheduler, seed};
use dfs_model::{ByteSize, HostId, Location};
use dfs_peer::dial::{Callee, Dialer};
use dfs_peer::digests::Identity;
use dfs_peer::engine::{Lifetime, Role};
use dfs_peer::host::{Host, HostOptions, Network as Ways};
use dfs_peer::limits::SlotLimits;
use dfs_peer::swarm::{Channels, KeptList, ManagerPlace, Swarm};
use dfs_peer::wire::Compression;
use dfs_proto::common;
use dfs_proto::manager::Role as MemberRole;
use dfs_proto::manager::manager_server::ManagerServer;
use dfs_proto::scheduler::scheduler_server::SchedulerServer;
use dfs_proto::scheduler::{Detail, TasksRequest};
use dfs_service::admin::Readiness;
use dfs_service::data_dir::{DataDir, private_dir};
use dfs_service::metrics::Metrics;
use dfs_service::{OnFailure, Tracker, net};
use dfs_source::{Sources, SourcesBuilder};
use futures::stream;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tonic::service::{Routes, RoutesBuilder};

use crate::network::{Card, Network, SimulatedAcceptor, SimulatedChannels};
use crate::origin::{self, OriginSource, Shelf};
use crate::reading::{self, Manner, Progress};
use crate::world::{Start, Which, World};

const GRPC: u16 = 4000;
const PIECES: u16 = 4001;

/// How long a cluster may take until everybody knows everybody.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// How long a server lets calls go on once it is to stop, as the programs do.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Largest message that a host and its scheduler exchange, as in the programs.
const MAX_MESSAGE: usize = 32 << 20;

/// What a cramped node has room for.
const CRAMPED: ByteSize = ByteSize(1536 << 10);

/// What can be seen of a process.
pub enum Face {
    /// The origin's shelf is seen elsewhere.
    Origin,
    /// A manager.
    Manager,
    /// A scheduler, by what it counts.
    Scheduler(SchedulerMetrics),
    /// A seed, and its hold on its disk.
    Seed(seed::Service, #[expect(dead_code, reason = "held until its end")] DataDir),
    /// A node.
    Node(Host),
}

/// How large a cluster is.
#[derive(Debug, Clone)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Schedulers.
    pub schedulers: usize,
    /// Seeds.
    pub seeds: usize,
    /// Nodes, the first ones, that have room for a part of a content only.
    pub cramped: usize,
    /// Bytes in a second of each uplink.
    pub rate: u64,
    /// Lengths of what the origin has.
    pub contents: Vec<usize>,
}

/// The cluster.
pub struct Ring {
    /// Its machines.
    pub world: World<Face>,
    /// The origin's.
    pub origin: Which,
    /// The manager's.
    pub manager: Which,
    /// Those of the schedulers.
    pub schedulers: Vec<Which>,
    /// Those of the seeds.
    pub seeds: Vec<Which>,
    /// Those of the nodes.
    pub nodes: Vec<Which>,
    /// What the origin has.
    pub shelf: Arc<Shelf>,
    cramped: usize,
}

impl Ring {
    /// A cluster whose members know each other.
    pub fn new(chance: u64, size: &Size) -> Self {
        crate::log();
        let mut world = World::new(Network::new(chance, size.rate));
        let [origin, manager] = ["origin", "manager"].map(|name| world.add(name));
        let mut named = |name: &str, count: usize| -> Vec<Which> {
            (1..=count).map(|number| world.add(&format!("{name}{number}"))).collect()
        };
        let schedulers = named("scheduler", size.schedulers);
        let (seeds, nodes) = (named("seed", size.seeds), named("node", size.nodes));
        let shelf = Arc::new(Shelf::new(chance, &size.contents));
        let cramped = size.cramped;
        let mut ring = Self { world, origin, manager, schedulers, seeds, nodes, shelf, cramped };
        let mut names = StdRng::seed_from_u64(chance ^ 0x6e61_6d65_7321_2121);
        for which in 0..ring.world.machines.len() {
            ring.name(which, &mut names);
            ring.boot(which);
        }
        ring.settle();
        ring
    }

    /// Gives a machine a name and a key: who is responsible for what, and how patient somebody is, comes from them.
    fn name(&self, which: Which, names: &mut StdRng) {
        let dir = &self.world.machines[which].dir;
        let dir = match self.seeds.contains(&which) {
            true => private_dir(&dir.join("seed")).expect("a disk of its own"),
            false => dir.clone(),
        };
        let mut identity = b"DFSHOST1".to_vec();
        identity.resize(8 + HostId::LEN + 32, 0);
        names.fill_bytes(&mut identity[8..]);
        let path = dir.join("identity");
        std::fs::write(&path, identity).expect("a disk that is not full");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a disk of its own");
    }

    /// Starts a machine's process.
    pub fn boot(&mut self, which: Which) {
        let manager = SocketAddr::new(self.world.ip(self.manager), GRPC);
        let origin = SocketAddr::new(self.world.ip(self.origin), origin::PORT);
        let name = self.world.machines[which].name.clone();
        let shelf = Arc::clone(&self.shelf);
        if which == self.origin {
            self.world.boot(which, async |start| {
                origin::serve(start, &shelf);
                Face::Origin
            });
        } else if which == self.manager {
            self.world.boot(which, run_manager);
        } else if self.schedulers.contains(&which) {
            self.world.boot(which, async |start| run_scheduler(start, manager));
        } else if self.seeds.contains(&which) {
            self.world.boot(which, async |start| run_seed(start, name, manager, origin));
        } else {
            let is_cramped = self.nodes.iter().take(self.cramped).any(|node| *node == which);
            let room = is_cramped.then_some(CRAMPED);
            self.world.boot(which, async |start| run_node(start, name, room, [manager, origin]));
        }
    }

    /// Waits until the scheduler has a stream of every node that runs, and they know a seed.
    pub fn settle(&mut self) {
        assert!(self.wait(SETTLED_WITHIN, Self::is_settled), "the cluster is not complete");
    }

    /// Lets time pass until something is so; whether it is within that time.
    pub fn wait(&mut self, within: Duration, is_so: impl Fn(&Self) -> bool) -> bool {
        let until = self.world.now + within;
        while !is_so(self) {
            if self.world.now >= until {
                return false;
            }
            self.world.step();
        }
        true
    }

    /// Somebody begins to read on a node.
    pub fn read(&self, node: Which, content: usize, manner: Manner) -> Arc<Mutex<Progress>> {
        let progress = Arc::default();
        self.go_on_reading(node, content, manner, &progress);
        progress
    }

    /// Somebody begins to read on a node what was not read to its end before.
    pub fn go_on_reading(
        &self,
        node: Which,
        content: usize,
        manner: Manner,
        progress: &Arc<Mutex<Progress>>,
    ) {
        let host = self.host(node).expect("a node that runs").clone();
        let expected = self.shelf.content(content).clone();
        let running = self.world.machines[node].running.as_ref().expect("it runs");
        running.spawn(reading::read(host, content, expected, manner, Arc::clone(progress)));
    }

    /// What the scheduler says of a content, and why; to be read by people.
    pub fn explain(&mut self, content: usize) -> String {
        let asks = |which: &Which| self.host(*which).is_some_and(is_connected);
        let Some(node) = self.nodes.iter().copied().find(asks) else {
            return "no node talks to the scheduler".to_owned();
        };
        let host = self.host(node).expect("a node that runs").clone();
        let request = TasksRequest {
            url: origin::url(content),
            detail: Detail::Evidence.into(),
            ..TasksRequest::default()
        };
        let running = self.world.machines[node].running.as_ref().expect("it runs");
        let said: Arc<Mutex<Option<String>>> = Arc::default();
        let saying = Arc::clone(&said);
        running.spawn(async move {
            let seen = host.engine.swarm().expect("a node of a cluster").look(&request).await;
            let answers = seen.into_iter().flatten().map(|seen| format!("{:#?}", seen.answer));
            *saying.lock() = Some(answers.collect());
        });
        self.wait(SETTLED_WITHIN, |_| said.lock().is_some());
        let said = said.lock().take().unwrap_or_default();
        let word = |line: &str| {
            let blank = line.trim().trim_matches(['[', ']', '{', '}', '(', ')', ',']);
            !blank.is_empty() && !blank.ends_with(": 0") && !blank.ends_with(": None")
        };
        said.lines().filter(|line| word(line)).map(|line| format!("{line}\n")).collect()
    }

    /// What a node takes part in: of whom it takes it, and what it waits for.
    pub fn doings(&self, node: Which) -> Vec<String> {
        let Some(host) = self.host(node) else { return vec!["it is down".to_owned()] };
        let store = host.engine.store().list();
        let open = store.iter().filter_map(|task| host.engine.peek(&task.id));
        let open = open.filter_map(|(info, _, task)| Some((info, task?)));
        open.map(|(info, task)| {
            let (url, bytes) = (info.key.url, task.cached_bytes());
            let (parents, waits) = (task.parents(), task.waiting_for());
            format!("{url}: {bytes} bytes, parents {parents:?}, waits for {waits:?}")
        })
        .collect()
    }

    /// Copies of a content that left the origin.
    pub fn copies(&self, content: usize) -> f64 {
        self.shelf.counts(content).bytes as f64 / self.shelf.content(content).len() as f64
    }

    /// What can be seen of a node, or of a seed.
    pub fn host(&self, which: Which) -> Option<&Host> {
        match self.world.face(which) {
            Some(Face::Node(host)) => Some(host),
            Some(Face::Seed(seed, _)) => Some(seed.host()),
            _ => None,
        }
    }

    /// What a scheduler counts.
    pub fn counts(&self, scheduler: Which) -> Option<&SchedulerMetrics> {
        match self.world.face(scheduler) {
            Some(Face::Scheduler(metrics)) => Some(metrics),
            _ => None,
        }
    }

    /// Whether every node that runs talks to every scheduler that does, and everybody knows every seed that runs.
    pub fn is_settled(&self) -> bool {
        let runs = |which: &&Which| self.world.face(**which).is_some();
        let seeds = self.seeds.iter().filter(runs).count();
        let running = self.nodes.iter().filter(runs).count() + seeds;
        let streams = self.nodes.iter().filter(runs).count();
        let has = |count: i64, least: usize| usize::try_from(count).is_ok_and(|c| c >= least);
        let mut schedulers = self.schedulers.iter().filter_map(|which| self.counts(*which));
        let mut nodes = self.nodes.iter().filter_map(|node| self.host(*node));
        schedulers.all(|its| has(its.hosts.get(), running) && has(its.streams.get(), streams))
            && nodes.all(|host| {
                let swarm = host.engine.swarm().expect("a node of a cluster");
                is_connected(host) && swarm.members().borrow().seeds.len() >= seeds
            })
    }
}

fn is_connected(host: &Host) -> bool {
    host.engine.swarm().is_some_and(Swarm::is_connected)
}

async fn run_manager(start: &mut Start<'_>) -> Face {
    let server = start.service("grpc");
    let tracker = start.service("manager");
    let metrics = ManagerMetrics::register(&mut Metrics::new());
    let check = Readiness::default().check("manager");
    let options = manager::Options::default();
    let opening = manager::Service::open(&options, start.dir, metrics, check).await;
    let (service, handle) = opening.expect("a manager");
    let stop = tracker.token().clone();
    let grpc = manager::Grpc::new(handle, tracker.tasks().clone(), stop.clone());
    tracker.spawn("members", OnFailure::StopProcess, service.run(stop));
    serve(start.card.listen(GRPC), Routes::new(ManagerServer::new(grpc)), &server);
    Face::Manager
}

fn run_scheduler(start: &mut Start<'_>, manager: SocketAddr) -> Face {
    let server = start.service("grpc");
    let tracker = start.service("scheduler");
    let own = Arc::new(Identity::load_or_create(start.dir).expect("a name"));
    let me = common::Host {
        id: own.host().as_bytes().to_vec().into(),
        kind: common::HostKind::Node.into(),
        name: "scheduler".into(),
        grpc: vec![start.card.at(GRPC).into()],
        public_key: own.public_key().to_vec().into(),
        ..common::Host::default()
    };
    let channels = Arc::new(SimulatedChannels::new(&start.card));
    let manager = channels.channel(manager, Callee::Manager);
    let members = membership::follow(manager, me, MemberRole::Scheduler, kept(start.dir), &tracker);
    let metrics = SchedulerMetrics::register(&mut Metrics::new());
    let options = scheduler::Options::default();
    let settings = scheduler::Settings {
        remember: options.resolve_cache,
        keep: options.resolve_kept,
        timeout: options.resolve_timeout,
        area: String::new(),
    };
    let resolver = scheduler::Resolver::new(
        settings,
        members.clone(),
        channels.clone(),
        metrics.clone(),
        tracker.clone(),
    );
    let (service, handle) = scheduler::Service::new(
        options.policy(),
        members.clone(),
        scheduler::Seeds::Listed(channels),
        Arc::clone(&own),
        tracker.clone(),
        metrics.clone(),
    );
    let (tasks, stop) = (tracker.tasks().clone(), tracker.token().clone());
    let counted = metrics.clone();
    let reception = scheduler::Reception::new(
        handle,
        members,
        own,
        counted,
        (tasks, stop),
        scheduler::Pulse::Silent,
    );
    let grpc = SchedulerServer::new(scheduler::Grpc::new(reception, resolver))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    tracker.spawn("scheduling", OnFailure::StopProcess, service.run());
    serve(start.card.listen(GRPC), Routes::new(grpc), &server);
    Face::Scheduler(metrics)
}

/// The last list that was heard, as a disk keeps it.
fn kept(dir: &Path) -> Option<KeptList> {
    Some(KeptList::in_dir(dir))
}

fn run_seed(start: &mut Start<'_>, name: String, manager: SocketAddr, origin: SocketAddr) -> Face {
    let server = start.service("grpc");
    let tracker = start.service("seed");
    let given = seed::Given {
        name,
        location: Location::default(),
        sources: sources(&start.card, origin),
        network: ways(&start.card),
    };
    let data_dir = DataDir::take(start.dir).expect("a disk that nobody else has");
    let options = seed::Options::default();
    let seed = seed::Service::start(&options, given, &data_dir, &tracker).expect("a seed");
    let mut me = common::Host::from(&seed.host().info);
    me.grpc = vec![start.card.at(GRPC).into()];
    let manager = SimulatedChannels::new(&start.card).channel(manager, Callee::Manager);
    seed.follow(membership::follow(manager, me, MemberRole::Seed, kept(start.dir), &tracker));
    let mut routes = RoutesBuilder::default();
    routes.add_service(seed.grpc());
    serve(start.card.listen(GRPC), routes.routes(), &server);
    Face::Seed(seed, data_dir)
}

fn run_node(
    start: &mut Start<'_>,
    name: String,
    capacity: Option<ByteSize>,
    [manager, origin]: [SocketAddr; 2],
) -> Face {
    let tracker = start.service("node");
    let options = HostOptions {
        role: Role::Node,
        data_dir: start.dir.to_owned(),
        name,
        location: Location::default(),
        medium: dfs_peer::store::Medium::Disk,
        capacity,
        upload_rate: None,
        slots: SlotLimits::default(),
        patience: Duration::from_secs(3),
        managers: vec![Arc::new(manager) as Arc<dyn ManagerPlace>],
        sources: sources(&start.card, origin),
        lifetime: Lifetime::Lasting,
        compression: Compression::Auto,
        index_trust: Default::default(),
        lent: dfs_peer::store::Lent::default(),
    };
    let started = Host::start(options, ways(&start.card), tracker.tasks(), tracker.token());
    Face::Node(started.expect("a node"))
}

fn sources(card: &Arc<Card>, origin: SocketAddr) -> SourcesBuilder {
    Sources::builder().with("http", Arc::new(OriginSource::new(Arc::clone(card), origin)))
}

fn ways(card: &Arc<Card>) -> Ways {
    Ways {
        dialer: Arc::clone(card) as Arc<dyn Dialer>,
        acceptor: Some(card.listen(PIECES)),
        channels: Arc::new(SimulatedChannels::new(card)),
        advertise: Vec::new(),
        leads_at: Vec::new(),
    }
}

/// Serves gRPC as the programs do, over simulated links.
fn serve(acceptor: Arc<SimulatedAcceptor>, routes: Routes, tracker: &Tracker) {
    let incoming = stream::unfold(acceptor, |acceptor| async move {
        Some((Ok::<_, std::io::Error>(acceptor.next().await), acceptor))
    });
    let (stop, late) = (tracker.token().clone(), tracker.token().clone());
    let router = net::grpc_server().add_routes(routes);
    let serving = router.serve_with_incoming_shutdown(Box::pin(incoming), stop.cancelled_owned());
    tracker.spawn("grpc", OnFailure::StopProcess, async move {
        let grace = async {
            late.cancelled().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            ended = serving => ended,
            () = grace => Ok(()),
        }
    });
}
