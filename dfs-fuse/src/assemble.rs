//! The process, put together: what starts, in which order, and what it is told.

mod web;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dfs_artifact::ImagesOnDisk;
use dfs_leader::delegate::{self, Led};
use dfs_model::Capacity;
use dfs_peer::digests::Identity;
use dfs_peer::engine::{Lifetime, Role};
use dfs_peer::host::{Host, HostError, HostOptions, Network};
use dfs_peer::limits::SlotLimits;
use dfs_peer::store::{Lent, Medium};
use dfs_peer::swarm::ManagerPlace;
use dfs_proto::node::node_server::NodeServer;
use dfs_service::admin::Readiness;
use dfs_service::config::{Loader, ServiceAddress};
use dfs_service::data_dir::DataDir;
use dfs_service::lifecycle::TaskError;
use dfs_service::metrics::Metrics;
use dfs_service::net::{
    self, GrpcChannels, LocalListener, NetError, Port, Security, SocketAccess, TcpLinkAcceptor,
    TcpLinkDialer,
};
use dfs_service::process::{self, Fault};
use dfs_service::run_info::RunInfo;
use dfs_service::tls::enrol::{self, Keeper, Renewer};
use dfs_service::{Extensions, Lifecycle, OnFailure, Tracker, tls};
use dfs_source::oci::CredentialProviders;
use dfs_source::{FileOptions, HttpOptions, OciOptions, S3Options, SourcesBuilder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use self::web::Web;
use crate::agent::api::NodeService;
use crate::agent::cluster::{self, NamedManager};
use crate::agent::{self, Agent, AgentFacts, Ending};
use crate::holder::process::HolderError;
use crate::holder::{self, Holder, Own, Starting, Systemd};
use crate::metrics::{self, Counted};
use crate::mount::Custody;
use crate::options::{Command, Flags, HolderChoice, Options, PROCESS};
use crate::snapshotter::{SnapshotError, Snapshotter};
use crate::web::{MirrorError, ProxyError, ProxyOptions};

/// How long an agent that exits when idle waits for something to do.
const QUIET: Duration = Duration::from_secs(10);

/// How often it is looked whether a socket is free by now that another process has.
const TAKEN: Duration = Duration::from_secs(1);

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// For a reason that every process can have.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// Store, identity, sources.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The mirror of registries.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// What is told of credential providers.
    #[error(
        "image-credential-provider-config says which credential providers there are, \
         image-credential-provider-bin-dir where they lie: one of them is missing"
    )]
    Providers,
    /// Who keeps its mounts.
    #[error("the holder of its mounts cannot be used")]
    Holder(#[source] io::Error),
    /// What it shows to containerd.
    #[error("the snapshotter cannot be started")]
    Snapshotter(#[source] SnapshotError),
}

impl Error {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Process(error) => error.fault(),
            Self::Host(HostError::Medium(_)) => Fault::Usage,
            Self::Host(error) => Fault::of(error),
            Self::Mirror(MirrorError::Open { .. }) | Self::Providers => Fault::Usage,
            Self::Mirror(error) => Fault::of(error),
            Self::Proxy(error) if error.is_of_usage() => Fault::Usage,
            Self::Proxy(error) => Fault::of(error),
            Self::Holder(error) => Fault::of(error),
            Self::Snapshotter(SnapshotError::Invalid(_)) => Fault::Usage,
            Self::Snapshotter(error) => Fault::of(error),
        }
    }
}

/// The whole process, with what its site compiled in.
pub fn main(extensions: Extensions) -> ExitCode {
    dfs_service::allocator::share_one_heap();
    if holder::second::is_meant() {
        return process::exit_code(PROCESS, holder::second::run(), |error| Fault::of(error));
    }
    let mut flags = process::parsed::<Flags>();
    match flags.command.take() {
        Some(Command::Holder(flags)) => {
            process::exit_code(PROCESS, holder::process::run(&flags), HolderError::fault)
        }
        None => process::main(PROCESS, run(flags, extensions), Error::fault),
    }
}

/// Runs what the command line says until a signal, or until idle where that was asked for.
async fn run(flags: Flags, extensions: Extensions) -> Result<(), Error> {
    let loader = Loader::new(PROCESS).file(flags.shared.config.clone());
    let (shared, own) = loader.load_beside(&flags).map_err(process::Error::from)?;
    let told = Told { shared, own, exit_when_idle: flags.exit_when_idle, extensions };
    let (shared, data_dir) = (told.shared.clone(), told.own.data_dir.clone());
    process::run(&shared, &data_dir, async |data_dir, lifecycle| {
        start(told, data_dir, lifecycle).await
    })
    .await
}

/// All that the process was told.
struct Told {
    shared: process::Options,
    own: Options,
    exit_when_idle: bool,
    extensions: Extensions,
}

async fn start(
    mut told: Told,
    data_dir: &DataDir,
    lifecycle: &mut Lifecycle,
) -> Result<RunInfo, Error> {
    if let Some(mirror) = told.own.mirror() {
        mirror.check()?;
    }
    let proxy = told.own.proxy().map(ProxyOptions::prepared).transpose()?;
    let holder = holder(&told.own.holder, data_dir.path())?;
    let engine = lifecycle.service("engine");
    let security = secure(&mut told.own, data_dir, &lifecycle.service("certificate")).await?;
    let (told, options) = (&told, &told.own);
    let (acceptor, pieces_at) = listen(told, &security).await?;
    let leads = listen_as_delegate(told, &security).await?;
    let leads_at = leads.iter().flat_map(|(_, at)| at.clone());
    let mut own_ports: Vec<_> = [pieces_at].into_iter().chain(leads_at).collect();
    let network = Network {
        dialer: Arc::new(TcpLinkDialer::new(security.clone())),
        acceptor: Some(Arc::new(acceptor)),
        channels: Arc::new(GrpcChannels::new(security.clone())),
        advertise: options.advertise.clone(),
        leads_at: leads.as_ref().map(|(_, at)| at.clone()).unwrap_or_default(),
    };
    let lent = Lent::default();
    let store = left_with_systemd(&options.holder);
    let left = agent::left(holder.as_ref(), store, data_dir.path(), &lent);
    let left = left.await.map_err(Error::Holder)?;
    let host =
        Host::start(host_options(told, data_dir, lent)?, network, engine.tasks(), engine.token())?;
    let led = leads.and_then(|(listener, _)| {
        serve_as_delegate(&host, listener, security.clone(), &lifecycle.service("delegate"))
    });
    let facts = AgentFacts {
        data_dir: data_dir.path().to_owned(),
        cluster: cluster_name(options),
        socket: Some(socket_of(options, data_dir.path()).map_err(process::Error::from)?),
        capacity: host.engine.store().capacity(),
    };
    let custody = holder.clone().map(|holder| Custody { holder, resend: options.resend });
    let agent = Agent::new(host, facts, custody);
    agent.resume_mounts(left, holder.as_ref()).await.map_err(Error::Holder)?;
    keep_mounts(lifecycle.service("mounts"), agent.clone(), lifecycle.failed());
    keep_house(lifecycle.service("housekeeping"), agent.clone());
    follow_cluster(lifecycle.service("cluster"), &agent, options.cluster.clone(), security);
    serve_snapshotter(options, &lifecycle.service("snapshotter"), &agent).await?;
    let socket = serve_api(options, lifecycle.service("api"), agent.clone())?;
    let mut web = Web::mirror(options, &lifecycle.service("mirror"), &agent).await?;
    let led = led.unwrap_or_default();
    let counted = Counted { led, mirror: web.mirrored(), proxy: web.proxied() };
    let metrics_at =
        serve_admin(&told.shared, &lifecycle.service("admin"), &agent, counted).await?;
    own_ports.push(metrics_at);
    let ground = (&agent, http_options(options), &*own_ports);
    web.proxy(proxy, &lifecycle.service("proxy"), ground).await?;
    if told.exit_when_idle {
        stop_when_idle(lifecycle, agent.clone());
    }
    stop_when_replaced(lifecycle, &agent);
    tracing::info!(
        host = %agent.host().info.id, pieces = %pieces_at, socket = %socket.display(), "started"
    );
    let info = RunInfo::of_this_process("node", env!("CARGO_PKG_VERSION"))
        .with_address("pieces", pieces_at)
        .with_address("metrics", metrics_at)
        .with_socket(&socket);
    Ok(web.told(info))
}

/// Who this node is to others, settled before it opens a port: by the certificate that it has, or gets for a token. It
/// leads to the cluster, too, where no other is named.
async fn secure(
    options: &mut Options,
    data_dir: &DataDir,
    tracker: &Tracker,
) -> Result<Security, Error> {
    let dir = data_dir.path();
    let identity = Identity::load_or_create(dir).map_err(HostError::from)?;
    let hosts = vec![tls::Host { identity, role: tls::Role::Node }];
    let entered = enrol::enter(dir, options.join.as_ref(), &hosts).await;
    let Some(credentials) = entered.map_err(process::Error::from)? else {
        return Ok(Security::Plain);
    };
    if options.cluster.is_empty() {
        options.cluster = credentials.managers().to_vec();
    }
    let renewer = Renewer::Managers(options.cluster.clone());
    let keeper = Keeper::new(credentials, hosts, renewer, Some(dir.to_owned()));
    let keeper = keeper.map_err(process::Error::from)?;
    let security = keeper.security();
    keeper.start(tracker);
    Ok(security)
}

async fn listen(
    told: &Told,
    security: &Security,
) -> Result<(TcpLinkAcceptor, SocketAddr), process::Error> {
    let port = Port::given_or(told.own.port_pieces, 4001);
    let ip = told.shared.listen;
    if ip.to_canonical().is_unspecified() && told.own.advertise.is_empty() {
        return Err(NetError::NothingToAnnounce(ip).into());
    }
    let listener = net::bind("pieces", ip, port, security).await?;
    let at = listener.local_addr()?;
    Ok((TcpLinkAcceptor::new(listener, security.clone())?, at))
}

/// Where others come to that this node leads, and where it says that this is; nowhere without a cluster.
async fn listen_as_delegate(
    told: &Told,
    security: &Security,
) -> Result<Option<(TcpListener, Vec<SocketAddr>)>, process::Error> {
    if told.own.cluster.is_empty() {
        return Ok(None);
    }
    let port = Port::given_or(told.own.port_grpc, 4003);
    let listener = net::bind("grpc", told.shared.listen, port, security).await?;
    let at = listener.local_addr()?;
    let advertised: BTreeSet<IpAddr> = told.own.advertise.iter().map(SocketAddr::ip).collect();
    let named = match advertised.is_empty() {
        true => vec![at],
        false => advertised.into_iter().map(|ip| SocketAddr::new(ip, at.port())).collect(),
    };
    Ok(Some((listener, named)))
}

fn serve_as_delegate(
    host: &Host,
    listener: TcpListener,
    security: Security,
    tracker: &Tracker,
) -> Option<Led> {
    let (grpc, led) = delegate::start(host, tracker)?;
    let serving = net::serve_grpc(Routes::new(grpc), listener, security, tracker.token().clone());
    tracker.spawn("grpc", OnFailure::Report, serving);
    Some(led)
}

fn stop_when_idle(lifecycle: &mut Lifecycle, agent: Agent) {
    let (stopper, idle) = (lifecycle.stopper(), lifecycle.service("idle"));
    let stop = idle.token().clone();
    idle.spawn("idle", OnFailure::Report, async move {
        if stop.run_until_cancelled(agent.idle_for(QUIET)).await.is_some() {
            stopper.stop();
        }
        Ok::<(), std::convert::Infallible>(())
    });
}

fn stop_when_replaced(lifecycle: &mut Lifecycle, agent: &Agent) {
    let (stopper, replaced) = (lifecycle.stopper(), lifecycle.service("replacement"));
    let (stop, handing_over) = (replaced.token().clone(), agent.handing_over());
    replaced.spawn("replacement", OnFailure::Report, async move {
        if stop.run_until_cancelled(handing_over.cancelled()).await.is_some() {
            stopper.stop();
        }
        Ok::<(), std::convert::Infallible>(())
    });
}

fn cluster_name(options: &Options) -> String {
    let names: Vec<String> = options.cluster.iter().map(ToString::to_string).collect();
    names.join(",")
}

/// Names are looked up when a manager is to be asked, not before: an agent starts without a resolver.
fn manager(named: &ServiceAddress) -> Arc<dyn ManagerPlace> {
    Arc::new(NamedManager::new(named.clone()))
}

fn host_options(told: &Told, data_dir: &DataDir, lent: Lent) -> Result<HostOptions, Error> {
    let options = &told.own;
    let capacity = options.capacity.map(Capacity::size);
    let memory = options.cache_memory.map(Capacity::size);
    Ok(HostOptions {
        role: if options.cluster.is_empty() { Role::Solo } else { Role::Node },
        data_dir: data_dir.path().to_owned(),
        name: told.shared.host_name(),
        location: told.shared.location(),
        medium: Medium::of(options.cache_medium, memory, capacity).map_err(HostError::from)?,
        capacity,
        upload_rate: options.upload_rate,
        slots: SlotLimits::default(),
        patience: Duration::from_secs(options.patience_seconds.into()),
        managers: options.cluster.iter().map(manager).collect(),
        sources: sources(told)?,
        lifetime: Lifetime::Lasting,
        compression: options.compression,
        index_trust: options.index_trust(),
        lent,
    })
}

fn sources(told: &Told) -> Result<SourcesBuilder, Error> {
    let options = &told.own;
    let http = http_options(options);
    let files = FileOptions { exports: options.export.clone(), ..FileOptions::default() };
    let s3 = S3Options::of_process();
    let (providers, registries_conf) = (providers(options)?, options.registries_conf.clone());
    let oci = OciOptions { providers, registries_conf, ..OciOptions::of_process() };
    let sources = told.extensions.sources().http(http).s3(s3).oci(oci).file(files.clone());
    Ok(ImagesOnDisk::known(sources, files))
}

fn providers(options: &Options) -> Result<Option<CredentialProviders>, Error> {
    let config = options.image_credential_provider_config.clone();
    match (config, options.image_credential_provider_bin_dir.clone()) {
        (Some(config), Some(programs)) => Ok(Some(CredentialProviders { config, programs })),
        (None, None) => Ok(None),
        _ => Err(Error::Providers),
    }
}

/// How the web is asked.
fn http_options(options: &Options) -> HttpOptions {
    let reach = options.proxy().map(|proxy| proxy.reach_of_engine()).unwrap_or_default();
    HttpOptions { ca_files: options.ca_file.clone(), reach, ..HttpOptions::of_process() }
}

/// Who keeps the mounts when this process dies. Its own holder starts it again as it was started.
fn holder(choice: &HolderChoice, data_dir: &Path) -> Result<Option<Arc<dyn Holder>>, Error> {
    Ok(match choice {
        HolderChoice::Off => None,
        HolderChoice::Systemd => Some(Arc::new(Systemd::of_process().map_err(Error::Holder)?)),
        HolderChoice::At(socket) => Some(Own::new(socket.clone(), Starting::Machine, data_dir)),
        HolderChoice::Own => {
            let program = std::env::current_exe().map_err(Error::Holder)?.into_os_string();
            let command = [program].into_iter().chain(std::env::args_os().skip(1)).collect();
            Some(Own::new(holder::socket_in(data_dir), Starting::Agent(command), data_dir))
        }
    })
}

/// What an earlier agent of this service left with systemd, where this one has another holder. What is not asked for would
/// stay open here, and nobody would answer.
fn left_with_systemd(choice: &HolderChoice) -> Option<Systemd> {
    match choice {
        HolderChoice::Systemd => None,
        // Who is no service has nothing there.
        HolderChoice::Off | HolderChoice::At(_) | HolderChoice::Own => Systemd::of_process().ok(),
    }
}

/// Mounts go before the engine does: nobody is left waiting for bytes that nobody fetches.
fn keep_mounts(tracker: Tracker, agent: Agent, failed: CancellationToken) {
    let stop = tracker.token().clone();
    tracker.spawn("unmount", OnFailure::Report, async move {
        stop.cancelled().await;
        let ending = if failed.is_cancelled() { Ending::Failed } else { Ending::Asked };
        agent.end_mounts(ending).await;
        Ok::<(), std::convert::Infallible>(())
    });
}

fn keep_house(tracker: Tracker, agent: Agent) {
    let stop = tracker.token().clone();
    tracker.spawn("housekeeping", OnFailure::Report, async move {
        stop.run_until_cancelled(agent.keep_house()).await;
        Ok::<(), std::convert::Infallible>(())
    });
}

fn follow_cluster(
    tracker: Tracker,
    agent: &Agent,
    cluster: Vec<ServiceAddress>,
    security: Security,
) {
    let Some(swarm) = agent.host().engine.swarm().cloned() else { return };
    let stop = tracker.token().clone();
    tracker.spawn("cluster", OnFailure::Report, async move {
        stop.run_until_cancelled(cluster::follow(swarm, cluster, security)).await;
        Ok::<(), std::convert::Infallible>(())
    });
}

/// Where it is to listen. It is announced: whoever reads that may stand elsewhere.
fn socket_of(options: &Options, data_dir: &Path) -> io::Result<PathBuf> {
    match &options.socket {
        Some(socket) => std::path::absolute(socket),
        None => Ok(data_dir.join("agent.sock")),
    }
}

fn serve_api(options: &Options, tracker: Tracker, agent: Agent) -> Result<PathBuf, process::Error> {
    let socket = socket_of(options, &agent.facts().data_dir)?;
    let access = options
        .socket_group
        .map_or(SocketAccess::Owner, |group| SocketAccess::Group(group.number()));
    // Not an error: access control lists, or whoever opens it later, may let them in all the same.
    if let Some(dir) = access.shut_out_by(&socket) {
        tracing::warn!(dir = %dir.display(), "the socket's group may not enter a directory on its way");
    }
    let bound = match LocalListener::bind(&socket, access) {
        // Whoever reads its mounts would wait for as long as the other one is there.
        Err(error @ NetError::SocketInUse { .. }) if *agent.mounts().count().borrow() > 0 => {
            tracing::error!(%error, "nobody can ask this agent; its mounts go on");
            None
        }
        bound => Some(bound?),
    };
    let (at, stop) = (socket.clone(), tracker.token().clone());
    tracker.spawn("api", OnFailure::StopProcess, async move {
        let listener = match bound {
            Some(listener) => listener,
            None => match stop.run_until_cancelled(bound_in_time(&at, access)).await {
                Some(listener) => listener,
                None => return Ok(()),
            },
        };
        let routes = Routes::new(NodeServer::new(NodeService::new(agent)));
        Ok::<(), TaskError>(net::serve_grpc_local(routes, listener, stop).await?)
    });
    Ok(socket)
}

/// Snapshots for containerd, and its CRI for a kubelet, where these are wanted.
async fn serve_snapshotter(
    options: &Options,
    tracker: &Tracker,
    agent: &Agent,
) -> Result<(), Error> {
    let Some(socket) = &options.snapshotter_socket else {
        let why = "cri-socket is for the snapshotter: name its socket too (snapshotter-socket)";
        let alone = || Error::Snapshotter(SnapshotError::Invalid(why.to_owned()));
        return options.cri_socket.as_ref().map_or(Ok(()), |_| Err(alone()));
    };
    let starting = Box::pin(Snapshotter::start(agent.clone()));
    let snapshotter = starting.await.map_err(Error::Snapshotter)?;
    let serve = |name, socket: &Path, routes| {
        let listener = LocalListener::bind(socket, SocketAccess::Owner);
        let (listener, stop) = (listener.map_err(process::Error::from)?, tracker.token().clone());
        tracker.spawn(name, OnFailure::StopProcess, async move {
            Ok::<(), TaskError>(net::serve_grpc_local(routes, listener, stop).await?)
        });
        Ok::<(), Error>(())
    };
    serve("snapshots", socket, snapshotter.routes())?;
    if let Some(socket) = &options.cri_socket {
        serve("cri", socket, snapshotter.cri_routes(&options.containerd_socket))?;
    }
    let stop = tracker.token().clone();
    tracker.spawn("given back", OnFailure::Report, async move {
        stop.run_until_cancelled(snapshotter.keep_house()).await;
        Ok::<(), std::convert::Infallible>(())
    });
    Ok(())
}

/// Listens there once nobody else does.
async fn bound_in_time(socket: &Path, access: SocketAccess) -> LocalListener {
    let mut told = false;
    loop {
        match LocalListener::bind(socket, access) {
            Err(NetError::SocketInUse { .. }) => {}
            // Its mounts go on meanwhile.
            Err(error) if !told => {
                tracing::warn!(%error, "nobody can ask this agent yet");
                told = true;
            }
            Err(_) => {}
            Ok(listener) => return listener,
        }
        tokio::time::sleep(TAKEN).await;
    }
}

async fn serve_admin(
    options: &process::Options,
    tracker: &Tracker,
    agent: &Agent,
    counted: Counted,
) -> Result<SocketAddr, process::Error> {
    let mut metrics = Metrics::new();
    metrics::install(&mut metrics, agent, counted);
    let readiness = Readiness::default();
    let check = readiness.check("agent");
    check.ready();
    let stop = tracker.token().clone();
    // Until the process stops.
    tracker.spawn("readiness", OnFailure::Report, async move {
        stop.cancelled().await;
        drop(check);
        Ok::<(), std::convert::Infallible>(())
    });
    process::serve_admin(options, 4090, tracker, metrics, readiness).await
}
