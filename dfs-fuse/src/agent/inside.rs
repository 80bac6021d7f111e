//! An agent inside another process, for commands that find no daemon: the same service, reached over a pipe
//! instead of a socket. Alone: straight from the origin, serving nobody.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dfs_model::Location;
use dfs_peer::engine::{Lifetime, Role};
use dfs_peer::host::{Host, HostError, HostOptions, Network};
use dfs_peer::limits::SlotLimits;
use dfs_proto::node::node_server::NodeServer;
use dfs_service::data_dir::{DataDir, DataDirError, private_dir};
use dfs_service::net::{self, GrpcChannels, TcpLinkDialer};
use dfs_service::process::Fault;
use dfs_source::s3::Environment;
use dfs_source::{FileOptions, HttpOptions, S3Options};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;

use super::api::NodeService;
use super::{Agent, AgentFacts};

/// Bytes that the pipe holds before its writer waits.
const PIPE: usize = 1 << 20;

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
}

impl InsideError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::DataDir(error) => error.fault(),
            Self::Host(error) => Fault::of(error),
        }
    }
}

/// A running agent with a directory of its own, which is removed with it.
pub struct InsideAgent {
    channel: Channel,
    dir: PathBuf,
    tracker: TaskTracker,
    stop: CancellationToken,
    _data_dir: DataDir,
}

impl InsideAgent {
    /// Starts one below `parent`, which is made if it is not there; what killed processes left there is
    /// removed.
    pub fn start(parent: &Path, http: HttpOptions) -> Result<Self, InsideError> {
        let parent = private_dir(parent)?;
        sweep_private(&parent);
        let dir = parent.join(std::process::id().to_string());
        let data_dir = DataDir::take(&dir)?;
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let network = Network {
            dialer: Arc::new(TcpLinkDialer),
            acceptor: None,
            channels: Arc::new(GrpcChannels::default()),
            advertise: Vec::new(),
        };
        let host = Host::start(options(&dir, http), network, &tracker, &stop)?;
        let facts = AgentFacts { data_dir: dir.clone(), cluster: String::new(), capacity: None };
        let service = NodeServer::new(NodeService::new(Agent::new(host, facts)));
        let router = net::grpc_server().add_service(service);
        let (channel, serving) = net::grpc_pipe(router, PIPE, stop.clone());
        tracker.spawn(serving);
        Ok(Self { channel, dir, tracker, stop, _data_dir: data_dir })
    }

    /// The way to it.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Ends it and removes what it kept.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        // What does not end in time ends with the process.
        let _ = tokio::time::timeout(STOP_WITHIN, self.tracker.wait()).await;
    }
}

impl Drop for InsideAgent {
    fn drop(&mut self) {
        self.stop.cancel();
        // Best effort: what stays is swept by the next one.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn options(dir: &Path, http: HttpOptions) -> HostOptions {
    HostOptions {
        role: Role::Solo,
        data_dir: dir.to_owned(),
        name: "solo".to_owned(),
        location: Location::default(),
        capacity: None,
        upload_rate: None,
        slots: SlotLimits::default(),
        patience: Duration::from_secs(3),
        managers: Vec::new(),
        http,
        lifetime: Lifetime::OfTheProcess,
        s3: S3Options { environment: Some(Environment::of_process()), ..S3Options::default() },
        files: FileOptions::default(),
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

/// Removes directories whose process is gone: nobody holds their lock.
fn sweep_private(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if let Ok(abandoned) = DataDir::take(&entry.path()) {
            // Best effort, as above.
            let _ = std::fs::remove_dir_all(abandoned.path());
        }
    }
}
