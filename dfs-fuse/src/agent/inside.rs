//! An agent inside another process, for commands that find no daemon: the same service, reached over a pipe
//! instead of a socket. Alone: straight from the origin, serving nobody; or, where a cluster is named, a peer in it
//! that serves others what it holds until it leaves.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dfs_artifact::image::attached::IndexTrust;
use dfs_model::Location;
use dfs_peer::dial::Acceptor;
use dfs_peer::digests::Identity;
use dfs_peer::engine::{Lifetime, Role};
use dfs_peer::host::{Host, HostError, HostOptions, Network};
use dfs_peer::limits::SlotLimits;
use dfs_peer::store::Medium;
use dfs_peer::swarm::ManagerPlace;
use dfs_peer::wire::Compression;
use dfs_proto::node::node_server::NodeServer;
use dfs_service::data_dir::{DataDir, DataDirError, private_dir};
use dfs_service::net::{self, GrpcChannels, Security, TcpLinkAcceptor, TcpLinkDialer};
use dfs_service::process::Fault;
use dfs_service::tls::enrol::{self, EnrolError, Keeper, Renewer};
use dfs_service::tls::{self, Credentials};
use dfs_source::SourcesBuilder;
use tokio::runtime::{EnterGuard, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use super::api::NodeService;
use super::{Agent, AgentFacts};

/// One reads from the network while the other digests.
const THREADS: usize = 2;

/// Bytes that the pipe holds before its writer waits.
const PIPE: usize = 1 << 20;

/// How long taking leave may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// How long the end may take.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum InsideError {
    /// Its directory.
    DataDir(#[from] DataDirError),
    /// Store, identity, sources.
    Host(#[from] HostError),
    /// Its certificate.
    Enrol(#[from] EnrolError),
    /// Its threads, or the port that others would reach it at.
    System(#[from] io::Error),
}

impl InsideError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::DataDir(error) => error.fault(),
            Self::Host(error) => Fault::of(error),
            Self::Enrol(error) => error.fault(),
            Self::System(error) => Fault::of(error),
        }
    }
}

/// Its runtime.
struct Threads(Option<Runtime>);

impl Threads {
    fn start() -> io::Result<Self> {
        Ok(Self(Some(dfs_service::lifecycle::runtime(THREADS).build()?)))
    }

    fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Runtime::enter)
    }

    fn end(&mut self) {
        // What blocks in the background has nothing left to deliver.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end();
    }
}

/// A running agent with threads and a directory of its own, which go with it.
pub struct InsideAgent {
    threads: Threads,
    channel: Channel,
    host: Host,
    tracker: TaskTracker,
    stop: CancellationToken,
    data_dir: DataDir,
}

impl InsideAgent {
    /// Starts one below `parent`, which is made if it is not there, alone or in the cluster of `managers`, where it
    /// stands at `location`; what killed processes left there is removed. Where this machine has a certificate
    /// (`node`, and where it is kept), it takes part as a guest of it.
    pub async fn start(
        parent: &Path,
        sources: SourcesBuilder,
        managers: &[SocketAddr],
        node: Option<(Credentials, PathBuf)>,
        location: Location,
    ) -> Result<Self, InsideError> {
        let parent = private_dir(parent)?;
        sweep_private(&parent);
        let dir = parent.join(std::process::id().to_string());
        let data_dir = DataDir::take(&dir)?;
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let threads = Threads::start()?;
        let guest = match node.filter(|_| !managers.is_empty()) {
            Some((node, kept_in)) => Some(as_guest(node, kept_in, &dir).await?),
            None => None,
        };
        let security = guest.as_ref().map_or(Security::Plain, Keeper::security);
        let entered = threads.enter();
        if let Some(guest) = guest {
            tracker.spawn(guest.run(stop.clone()));
        }
        let towards = managers.first().map(|manager| listen_towards(*manager, &security));
        let acceptor = towards.transpose()?;
        let network = Network {
            dialer: Arc::new(TcpLinkDialer::new(security.clone())),
            acceptor: acceptor.map(|acceptor| Arc::new(acceptor) as Arc<dyn Acceptor>),
            channels: Arc::new(GrpcChannels::new(security)),
            advertise: Vec::new(),
            leads_at: Vec::new(),
        };
        let host =
            Host::start(options(&dir, sources, managers, location), network, &tracker, &stop)?;
        let name = managers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let facts =
            AgentFacts { data_dir: dir.clone(), cluster: name, capacity: None, socket: None };
        let service = NodeServer::new(NodeService::new(Agent::new(host.clone(), facts, None)));
        let router = net::grpc_server().add_service(service);
        let (channel, serving) = net::grpc_pipe(router, PIPE, stop.clone());
        tracker.spawn(serving);
        drop(entered);
        Ok(Self { threads, channel, host, tracker, stop, data_dir })
    }

    /// Waits until the cluster is reached; what it waits for when `within` is over. One that is alone has nothing to
    /// reach.
    pub fn reached(&self, within: Duration) -> impl Future<Output = Result<(), String>> + use<> {
        let swarm = self.host.engine.swarm().cloned();
        async move {
            let Some(swarm) = swarm else { return Ok(()) };
            let connected = swarm.until_connected();
            tokio::time::timeout(within, connected).await.map_err(|_| swarm.state())
        }
    }

    /// Bytes of content that it has given to others so far.
    pub fn given(&self) -> u64 {
        self.host.served.numbers().payload_sent
    }

    /// The way to it.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Ends it and removes what it kept; the cluster hears that it goes.
    pub async fn stop(self) {
        if let Some(swarm) = self.host.engine.swarm() {
            swarm.depart(LEAVE_WITHIN).await;
        }
        self.stop.cancel();
        self.tracker.close();
        // What does not end in time ends with the process.
        let _ = tokio::time::timeout(STOP_WITHIN, self.tracker.wait()).await;
    }
}

impl Drop for InsideAgent {
    fn drop(&mut self) {
        self.stop.cancel();
        self.threads.end();
        // Best effort: what stays is swept by the next one.
        let _ = self.data_dir.remove();
    }
}

/// The certificate of a process that ends some time, by the one that the machine has.
async fn as_guest(node: Credentials, kept_in: PathBuf, dir: &Path) -> Result<Keeper, InsideError> {
    let identity = Identity::load_or_create(dir).map_err(HostError::from)?;
    let hosts = vec![tls::Host { identity, role: tls::Role::Guest }];
    let credentials = enrol::for_guest(node, &hosts).await?;
    Ok(Keeper::new(credentials, hosts, Renewer::NodeIn(kept_in), None)?)
}

/// Listens on a free port of the address from which the cluster is reached: others of it reach that too.
fn listen_towards(cluster: SocketAddr, security: &Security) -> io::Result<TcpLinkAcceptor> {
    let ip = address_towards(cluster)?;
    security.allows("pieces", ip).map_err(io::Error::other)?;
    let listener = TcpListener::bind((ip, 0))?;
    listener.set_nonblocking(true)?;
    TcpLinkAcceptor::new(tokio::net::TcpListener::from_std(listener)?, security.clone())
}

/// This machine's own address on the way there.
pub fn address_towards(cluster: SocketAddr) -> io::Result<IpAddr> {
    let any: SocketAddr = match cluster {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Nothing is sent: the kernel only says which address it would use.
    let towards = UdpSocket::bind(any)?;
    towards.connect(cluster)?;
    Ok(towards.local_addr()?.ip())
}

fn options(
    dir: &Path,
    sources: SourcesBuilder,
    managers: &[SocketAddr],
    location: Location,
) -> HostOptions {
    let (role, name) = match managers {
        [] => (Role::Solo, "solo".to_owned()),
        _ => (Role::Node, format!("dfctl-{}", std::process::id())),
    };
    HostOptions {
        role,
        data_dir: dir.to_owned(),
        name,
        location,
        medium: Medium::Disk,
        capacity: None,
        upload_rate: None,
        slots: SlotLimits::default(),
        patience: Duration::from_secs(3),
        managers: managers.iter().map(|at| Arc::new(*at) as Arc<dyn ManagerPlace>).collect(),
        sources,
        lifetime: Lifetime::OfTheProcess,
        compression: Compression::Auto,
        index_trust: IndexTrust::default(),
        lent: dfs_peer::store::Lent::default(),
    }
}

/// Removes what killed processes left below `parent`, if it is there and this user's alone.
pub fn sweep(parent: &Path) {
    if !parent.is_dir() {
        return;
    }
    if let Ok(parent) = private_dir(parent) {
        sweep_private(&parent);
    }
}

/// Directories below `parent` that killed processes left, if it is there and this user's alone.
pub fn abandoned(parent: &Path) -> Vec<PathBuf> {
    match parent.is_dir().then(|| private_dir(parent)) {
        Some(Ok(parent)) => taken_over(&parent).map(|dir| dir.path().to_owned()).collect(),
        Some(Err(_)) | None => Vec::new(),
    }
}

/// Removes directories whose process is gone.
fn sweep_private(parent: &Path) {
    for dir in numbered(parent) {
        // Of one that was killed before it took it: nothing is in it.
        let _ = std::fs::remove_dir(dir);
    }
    for abandoned in taken_over(parent) {
        // Best effort, as above.
        let _ = abandoned.remove();
    }
}

/// Directories whose process is gone: nobody holds their lock.
fn taken_over(parent: &Path) -> impl Iterator<Item = DataDir> {
    let taken = numbered(parent).filter(|dir| DataDir::was_taken(dir));
    taken.filter_map(|dir| DataDir::take(&dir).ok())
}

/// What has the name of a process below `parent`: whatever else a user keeps there is theirs.
fn numbered(parent: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let of_processes =
        entries.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    of_processes.map(|entry| entry.path())
}
