//! The process, put together: what starts, in which order, and what it is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::Location;
use dfs_peer::engine::{Lifetime, Role};
use dfs_peer::host::{Host, HostError, HostOptions, Network};
use dfs_peer::limits::SlotLimits;
use dfs_proto::node::node_server::NodeServer;
use dfs_service::admin::{self, Readiness};
use dfs_service::config::{ConfigError, Loader};
use dfs_service::data_dir::{DataDir, DataDirError};
use dfs_service::lifecycle::LifecycleError;
use dfs_service::metrics::Metrics;
use dfs_service::net::{
    self, GrpcChannels, LocalListener, NetError, Port, SocketAccess, TcpLinkAcceptor, TcpLinkDialer,
};
use dfs_service::run_info::{RunInfo, RunInfoError};
use dfs_service::telemetry::{self, TelemetryError};
use dfs_service::{Lifecycle, OnFailure, Tracker};
use dfs_source::HttpOptions;

use crate::agent::api::NodeService;
use crate::agent::{Agent, AgentFacts};
use crate::metrics;
use crate::options::{Flags, Options, PROCESS};

/// How long all services together may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How long an agent that exits when idle waits for something to do.
const QUIET: Duration = Duration::from_secs(10);

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
    /// A listener or an address.
    Net(#[from] NetError),
    /// Store, identity, sources.
    Host(#[from] HostError),
    /// The announcement of the process.
    RunInfo(#[from] RunInfoError),
    /// The running of it.
    Lifecycle(#[from] LifecycleError),
    /// A listener has no address.
    #[error("a listener has no address")]
    Listener(#[from] std::io::Error),
}

/// Runs what the command line says until a signal, or until idle where that was asked for.
pub async fn run(flags: Flags) -> Result<(), Error> {
    let options: Options = Loader::new(PROCESS).file(flags.config.clone()).load(&flags)?.options;
    telemetry::init(&options.log, options.log_format.parse()?)?;
    let data_dir = DataDir::take(&options.data_dir)?;
    let mut lifecycle = Lifecycle::new(STOP_WITHIN)?;
    let started = start(&options, &data_dir, &mut lifecycle).await;
    let (agent, info) = match started {
        Ok(started) => started,
        Err(error) => {
            // The first error is the reason; what also fails on the way out does not hide it.
            let _ = lifecycle.stop().await;
            return Err(error);
        }
    };
    let announced = info.announce(data_dir.path())?;
    if flags.exit_when_idle {
        let (stopper, watched) = (lifecycle.stopper(), agent.clone());
        let idle = lifecycle.service("idle");
        let stop = idle.token().clone();
        idle.spawn("idle", OnFailure::Report, async move {
            if stop.run_until_cancelled(watched.idle_for(QUIET)).await.is_some() {
                stopper.stop();
            }
            Ok::<(), std::convert::Infallible>(())
        });
    }
    let ended = lifecycle.run().await;
    drop(announced);
    Ok(ended?)
}

async fn start(
    options: &Options,
    data_dir: &DataDir,
    lifecycle: &mut Lifecycle,
) -> Result<(Agent, RunInfo), Error> {
    let engine = lifecycle.service("engine");
    let port = Port::given_or(options.port_pieces, 4001);
    let pieces = net::bind("pieces", options.listen, port).await?;
    let pieces_at = pieces.local_addr()?;
    let acceptor = Arc::new(TcpLinkAcceptor::new(pieces)?);
    let network = Network {
        dialer: Arc::new(TcpLinkDialer),
        acceptor: Some(acceptor),
        channels: Arc::new(GrpcChannels::default()),
        advertise: options.advertise.clone(),
    };
    let host =
        Host::start(host_options(options, data_dir), network, engine.tasks(), engine.token())?;
    let facts = AgentFacts {
        data_dir: data_dir.path().to_owned(),
        cluster: cluster_name(options),
        capacity: options.capacity,
    };
    let agent = Agent::new(host, facts);
    keep_mounts(lifecycle.service("mounts"), agent.clone());
    let socket = serve_api(options, lifecycle.service("api"), agent.clone())?;
    let metrics_at = serve_admin(options, lifecycle.service("admin"), &agent).await?;
    tracing::info!(
        host = %agent.host().info.id, pieces = %pieces_at, socket = %socket.display(), "started"
    );
    let info = RunInfo::of_this_process("node", env!("CARGO_PKG_VERSION"))
        .with_address("pieces", pieces_at)
        .with_address("metrics", metrics_at)
        .with_socket(&socket);
    Ok((agent, info))
}

fn cluster_name(options: &Options) -> String {
    let names: Vec<String> = options.cluster.iter().map(ToString::to_string).collect();
    names.join(",")
}

fn host_options(options: &Options, data_dir: &DataDir) -> HostOptions {
    let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    HostOptions {
        role: if options.cluster.is_empty() { Role::Solo } else { Role::Node },
        data_dir: data_dir.path().to_owned(),
        name: if options.name.is_empty() { machine() } else { options.name.clone() },
        location: Location {
            area: options.area.clone(),
            idc: options.idc.clone(),
            rack: options.rack.clone(),
        },
        capacity: options.capacity,
        upload_rate: options.upload_rate,
        slots: SlotLimits::default(),
        patience: Duration::from_secs(options.patience_seconds.into()),
        managers: options.cluster.clone(),
        http: HttpOptions { ca_files: options.ca_file.clone(), ..HttpOptions::default() },
        lifetime: Lifetime::Lasting,
    }
}

/// Mounts go before the engine does: nobody is left waiting for bytes that nobody fetches.
fn keep_mounts(tracker: Tracker, agent: Agent) {
    let stop = tracker.token().clone();
    tracker.spawn("unmount", OnFailure::Report, async move {
        stop.cancelled().await;
        agent.mounts().unmount_all().await;
        Ok::<(), std::convert::Infallible>(())
    });
}

fn serve_api(options: &Options, tracker: Tracker, agent: Agent) -> Result<PathBuf, Error> {
    let socket =
        options.socket.clone().unwrap_or_else(|| agent.facts().data_dir.join("agent.sock"));
    let access = options.socket_group.map_or(SocketAccess::Owner, SocketAccess::Group);
    let listener = LocalListener::bind(&socket, access)?;
    let router = net::grpc_server().add_service(NodeServer::new(NodeService::new(agent)));
    let serving = net::serve_grpc_local(router, listener, tracker.token().clone());
    tracker.spawn("api", OnFailure::StopProcess, serving);
    Ok(socket)
}

async fn serve_admin(
    options: &Options,
    tracker: Tracker,
    agent: &Agent,
) -> Result<std::net::SocketAddr, Error> {
    let port = Port::given_or(options.port_metrics, 4090);
    let listener = net::bind("metrics", options.listen, port).await?;
    let at = listener.local_addr()?;
    let mut all = Metrics::new();
    metrics::install(&mut all, agent);
    let readiness = Readiness::default();
    let check = readiness.check("agent");
    let router = admin::router(Arc::new(all), readiness);
    let token = tracker.token().clone();
    tracker.spawn("admin", OnFailure::StopProcess, async move {
        check.ready();
        admin::serve(listener, router, token).await
    });
    Ok(at)
}
