//! The process, put together: what starts, in which order, and what it is told.
//!
//! Services stop in reverse: the gRPC server is named first, so that it is there until those behind
//! it have ended their streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{HostInfo, HostKind, Location};
use dfs_peer::digests::{Identity, IdentityError};
use dfs_proto::manager::Role as MemberRole;
use dfs_proto::manager::manager_server::ManagerServer;
use dfs_proto::scheduler::scheduler_server::SchedulerServer;
use dfs_proto::{common, convert};
use dfs_service::admin::{self, Readiness};
use dfs_service::config::{ConfigError, Loader};
use dfs_service::data_dir::{DataDir, DataDirError};
use dfs_service::lifecycle::LifecycleError;
use dfs_service::metrics::Metrics;
use dfs_service::net::{self, GrpcChannels, NetError, Port, TcpLinkAcceptor};
use dfs_service::run_info::{RunInfo, RunInfoError};
use dfs_service::telemetry::{self, TelemetryError};
use dfs_service::{Lifecycle, OnFailure, Tracker};
use tokio::sync::watch;
use tonic::service::RoutesBuilder;
use tonic::transport::Channel;

use crate::membership::{self, Members};
use crate::metrics::{ManagerMetrics, SchedulerMetrics, SeedMetrics};
use crate::options::{Cli, Options, PROCESS, Role};
use crate::{manager, scheduler, seed};

/// How long all services together may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Largest message taken from a host: an announcement of all it holds.
const MAX_MESSAGE: usize = 32 << 20;

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Error {
    /// The configuration.
    Config(#[from] ConfigError),
    /// The log.
    Telemetry(#[from] TelemetryError),
    /// The data directory.
    DataDir(#[from] DataDirError),
    /// The host's name and key.
    Identity(#[from] IdentityError),
    /// A listener or an address.
    Net(#[from] NetError),
    /// The manager.
    Manager(#[from] manager::Error),
    /// The seed.
    Seed(#[from] seed::Error),
    /// The announcement of the process.
    RunInfo(#[from] RunInfoError),
    /// The running of it.
    Lifecycle(#[from] LifecycleError),
    /// A listener has no address.
    #[error("a listener has no address")]
    Listener(#[from] std::io::Error),
    /// A role that needs a manager has none.
    #[error("no manager is named: give --manager HOST:PORT, or run `dfs-cluster all`")]
    NoManager,
}

/// Runs what the command line says until a signal.
pub async fn run(cli: Cli) -> Result<(), Error> {
    let (role, flags) = cli.role.into_parts();
    let options: Options = Loader::new(PROCESS).file(flags.config.clone()).load(&flags)?.options;
    telemetry::init(&options.log, options.log_format)?;
    let data_dir = DataDir::take(&options.data_dir)?;
    let mut lifecycle = Lifecycle::new(STOP_WITHIN)?;
    let started = start(role, options, &data_dir, &mut lifecycle).await;
    let announced = match started {
        Ok(info) => info.announce(data_dir.path())?,
        Err(error) => {
            // The first error is the reason; what also fails on the way out does not hide it.
            let _ = lifecycle.stop().await;
            return Err(error);
        }
    };
    let ended = lifecycle.run().await;
    drop(announced);
    Ok(ended?)
}

/// Starts every service of the role; says where they are.
async fn start(
    role: Role,
    options: Options,
    data_dir: &DataDir,
    lifecycle: &mut Lifecycle,
) -> Result<RunInfo, Error> {
    let server = lifecycle.service("grpc");
    let listener =
        net::bind("gRPC", options.listen, Port::given_or(options.port_grpc, 4000)).await?;
    let at = listener.local_addr()?;
    let mut site = Site::new(role, options, data_dir, at)?;
    if role.has_manager() {
        site.add_manager(data_dir, lifecycle.service("manager")).await?;
    }
    if role.has_scheduler() {
        site.add_scheduler(lifecycle.service("scheduler"));
    }
    let pieces = match role.has_seed() {
        true => Some(site.add_seed(data_dir, lifecycle.service("seed")).await?),
        false => None,
    };
    let router = net::grpc_server().add_routes(site.routes.routes());
    let serving = net::serve_grpc(router, listener, server.token().clone());
    server.spawn("grpc", OnFailure::StopProcess, serving);

    let admin_at = Port::given_or(site.options.port_metrics, 4091);
    let pages = lifecycle.service("admin");
    let listener = net::bind("metrics", site.options.listen, admin_at).await?;
    let metrics_at = listener.local_addr()?;
    let router = admin::router(Arc::new(site.metrics), site.readiness);
    let serving = admin::serve(listener, router, pages.token().clone());
    pages.spawn("admin", OnFailure::StopProcess, serving);

    tracing::info!(role = role.name(), grpc = %at, metrics = %metrics_at, host = %site.host.id, "started");
    let info = RunInfo::of_this_process(role.name(), env!("CARGO_PKG_VERSION"))
        .with_address("grpc", at)
        .with_address("metrics", metrics_at);
    Ok(match pieces {
        Some(pieces) => info.with_address("pieces", pieces),
        None => info,
    })
}

/// What the services of one process share while they are put together. A further role adds itself
/// as the others do: routes here, tasks in a tracker of its own.
struct Site {
    options: Options,
    host: HostInfo,
    grpc: Vec<SocketAddr>,
    manager: Channel,
    routes: RoutesBuilder,
    metrics: Metrics,
    readiness: Readiness,
}

impl Site {
    fn new(
        role: Role,
        options: Options,
        data_dir: &DataDir,
        at: SocketAddr,
    ) -> Result<Self, Error> {
        let identity = Identity::load_or_create(data_dir.path())?;
        let manager = match (&options.manager, role.has_manager()) {
            (_, true) => net::grpc_channel(&at.to_string())?,
            (Some(manager), false) => net::grpc_channel(manager)?,
            (None, false) => return Err(Error::NoManager),
        };
        let advertised = options.advertised().into_iter();
        Ok(Self {
            host: describe(&options, &identity),
            grpc: advertised.map(|ip| SocketAddr::new(ip, at.port())).collect(),
            options,
            manager,
            routes: RoutesBuilder::default(),
            metrics: Metrics::new(),
            readiness: Readiness::default(),
        })
    }

    async fn add_manager(&mut self, data_dir: &DataDir, tracker: Tracker) -> Result<(), Error> {
        let metrics = ManagerMetrics::register(&mut self.metrics);
        let members = &self.options.members;
        let check = self.readiness.check("manager");
        let opening = manager::Service::open(members, data_dir.path(), metrics, check);
        let (service, handle) = opening.await?;
        let stop = tracker.token().clone();
        let grpc = manager::Grpc::new(handle, tracker.tasks().clone(), stop.clone());
        self.routes.add_service(ManagerServer::new(grpc));
        tracker.spawn("members", OnFailure::StopProcess, service.run(stop));
        Ok(())
    }

    fn add_scheduler(&mut self, tracker: Tracker) {
        let metrics = SchedulerMetrics::register(&mut self.metrics);
        let members = self.join(&self.host, MemberRole::Scheduler, "scheduler", &tracker);
        let (tasks, stop) = (tracker.tasks().clone(), tracker.token().clone());
        let options = self.options.scheduler.clone();
        let settings = scheduler::Settings {
            remember: options.resolve_cache,
            timeout: options.resolve_timeout,
            area: self.options.area.clone(),
        };
        let channels = Arc::new(GrpcChannels::default());
        let resolver = scheduler::Resolver::new(
            settings,
            members.clone(),
            channels.clone(),
            metrics.clone(),
            tracker.clone(),
        );
        let (service, handle) = scheduler::Service::new(
            options,
            members.clone(),
            channels,
            tracker.clone(),
            metrics.clone(),
        );
        let grpc = scheduler::Grpc::new(handle, resolver, members, metrics, tasks, stop);
        let grpc = SchedulerServer::new(grpc)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        self.routes.add_service(grpc);
        tracker.spawn("scheduling", OnFailure::StopProcess, service.run());
    }

    async fn add_seed(
        &mut self,
        data_dir: &DataDir,
        tracker: Tracker,
    ) -> Result<SocketAddr, Error> {
        let port = Port::given_or(self.options.port_pieces, 4002);
        let listener = net::bind("pieces", self.options.listen, port).await?;
        let at = listener.local_addr()?;
        let acceptor = Arc::new(TcpLinkAcceptor::new(listener)?);
        let name = format!("seed@{}", self.host.name);
        let location = self.host.location.clone();
        let options = &self.options.seed;
        let seed = seed::Service::start(options, name, location, data_dir, acceptor, &tracker)?;
        SeedMetrics::install(&mut self.metrics, seed.host().clone());
        self.routes.add_service(seed.grpc());
        self.join(&seed.host().info, MemberRole::Seed, "seed", &tracker);
        Ok(at)
    }

    /// Joins the manager in a role, whose readiness is to know the other members.
    fn join(
        &self,
        host: &HostInfo,
        role: MemberRole,
        name: &'static str,
        tracker: &Tracker,
    ) -> watch::Receiver<Arc<Members>> {
        let mut me = common::Host::from(host);
        me.grpc = self.grpc.iter().copied().map(Into::into).collect();
        debug_assert!(convert::grpc_addresses(&me).is_ok());
        let members = membership::follow(self.manager.clone(), me, role, tracker);
        let (check, stop) = (self.readiness.check(name), tracker.token().clone());
        let mut heard = members.clone();
        tracker.spawn("readiness", OnFailure::Report, async move {
            let is_known = |members: &Arc<Members>| !members.cluster_id.is_empty();
            let waited = stop.run_until_cancelled(heard.wait_for(is_known)).await;
            if waited.is_some_and(|waited| waited.is_ok()) {
                check.ready();
                stop.cancelled().await;
            }
            Ok::<(), std::convert::Infallible>(())
        });
        members
    }
}

/// This process as a host of the cluster.
fn describe(options: &Options, identity: &Identity) -> HostInfo {
    let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    HostInfo {
        id: identity.host(),
        kind: HostKind::Node,
        name: if options.name.is_empty() { machine() } else { options.name.clone() },
        location: Location {
            area: options.area.clone(),
            idc: options.idc.clone(),
            rack: options.rack.clone(),
        },
        addresses: Vec::new(),
        public_key: identity.public_key(),
        upload_slots: 0,
    }
}
