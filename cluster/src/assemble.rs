//! The process, put together: what starts, in which order, and what it is told.
//!
//! Before anything else it is settled who the process is to others ([`secure`]). Services stop in reverse: the gRPC
//! server is named first, so that it is there until those behind it have ended their streams.

use std::net::SocketAddr;
use std::process::ExitCode;

use dfs_peer::digests::IdentityError;
use dfs_service::config::Loader;
use dfs_service::data_dir::{DataDir, DataDirError};
use dfs_service::net::{self, NetError, Port, Security};
use dfs_service::process::{self, Fault};
use dfs_service::run_info::RunInfo;
use dfs_service::tls::Credentials;
use dfs_service::tls::authority::AuthorityError;
use dfs_service::{Extensions, Lifecycle, OnFailure};
use tokio::net::TcpListener;

use self::site::Site;
use crate::options::{Cli, Options, PROCESS, Role};
use crate::{manager, seed};

mod secure;
mod site;

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum Error {
    /// For a reason that every process can have.
    Process(#[from] process::Error),
    /// The host's name and key.
    Identity(#[from] IdentityError),
    /// The manager.
    Manager(#[from] manager::Error),
    /// The seed.
    Seed(#[from] seed::Error),
    /// Its directory.
    DataDir(#[from] DataDirError),
    /// The cluster's certificate authority.
    Authority(#[from] AuthorityError),
    /// A role that needs a manager has none.
    #[error(
        "no manager is named: give --join JOIN-TOKEN or --manager HOST:PORT, or run `dfs-cluster all`"
    )]
    NoManager,
    /// A role that has a manager was given another one.
    #[error("{flag} is for a scheduler or a seed: the manager of `{PROCESS} {role}` is its own")]
    OwnManager {
        /// The role.
        role: &'static str,
        /// What was given.
        flag: &'static str,
    },
}

impl Error {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Process(error) => error.fault(),
            Self::NoManager | Self::OwnManager { .. } => Fault::Usage,
            Self::DataDir(error) => error.fault(),
            Self::Identity(_) | Self::Manager(_) | Self::Seed(_) | Self::Authority(_) => {
                Fault::of(self)
            }
        }
    }
}

/// All that the process was told.
struct Told {
    role: Role,
    shared: process::Options,
    own: Options,
    extensions: Extensions,
}

/// The whole process, with what its site compiled in.
pub fn main(extensions: Extensions) -> ExitCode {
    process::main(PROCESS, run(process::parsed::<Cli>(), extensions), Error::fault)
}

/// Runs what the command line says until a signal.
async fn run(cli: Cli, extensions: Extensions) -> Result<(), Error> {
    let (role, flags) = cli.role.into_parts();
    // In a file it may be meant for the other processes that read it.
    let given = [("--manager", flags.manager.is_some()), ("--join", flags.join.is_some())];
    if let Some((flag, _)) = given.into_iter().find(|(_, given)| role.has_manager() && *given) {
        return Err(Error::OwnManager { role: role.name(), flag });
    }
    let loader = Loader::new(PROCESS).file(flags.shared.config.clone());
    let loaded = loader.load_beside(&flags).map_err(process::Error::from)?;
    let (shared, own): (process::Options, Options) = loaded;
    let knows_one = own.manager.is_some() || own.join.is_some();
    if !role.has_manager() && !knows_one && !Credentials::are_in(&own.data_dir) {
        return Err(Error::NoManager);
    }
    let listen = shared.listen;
    if listen.to_canonical().is_unspecified() && own.advertise.is_empty() {
        return Err(process::Error::from(NetError::NothingToAnnounce(listen)).into());
    }
    let told = Told { role, shared, own, extensions };
    let (shared, data_dir) = (told.shared.clone(), told.own.data_dir.clone());
    process::run(&shared, &data_dir, async |data_dir, lifecycle| {
        start(told, data_dir, lifecycle).await
    })
    .await
}

/// Starts every service of the role; says where they are.
async fn start(
    told: Told,
    data_dir: &DataDir,
    lifecycle: &mut Lifecycle,
) -> Result<RunInfo, Error> {
    let role = told.role;
    let server = lifecycle.service("grpc");
    let secured = secure::secure(&told, data_dir).await?;
    let security = secured.security.clone();
    let (listener, at) = listen("grpc", &told.shared, told.own.port_grpc, 4000, &security).await?;
    let mut site = Site::new(told, secured, at)?;
    site.keep_certificate(&lifecycle.service("certificate"));
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
    let Site { told, host, routes, metrics, readiness, .. } = site;
    let (routes, stop) = (routes.routes(), server.token().clone());
    let serving = net::serve_grpc(routes, listener, security, stop);
    server.spawn("grpc", OnFailure::StopProcess, serving);

    let pages = lifecycle.service("admin");
    let metrics_at = process::serve_admin(&told.shared, 4091, &pages, metrics, readiness).await?;
    tracing::info!(role = role.name(), grpc = %at, metrics = %metrics_at, host = %host.id, "started");
    let info = RunInfo::of_this_process(role.name(), env!("CARGO_PKG_VERSION"))
        .with_address("grpc", at)
        .with_address("metrics", metrics_at);
    Ok(match pieces {
        Some(pieces) => info.with_address("pieces", pieces),
        None => info,
    })
}

/// A listener, on the usual port where none is given, and where it listens.
async fn listen(
    service: &str,
    options: &process::Options,
    port: Option<u16>,
    usual: u16,
    security: &Security,
) -> Result<(TcpListener, SocketAddr), process::Error> {
    let listener =
        net::bind(service, options.listen, Port::given_or(port, usual), security).await?;
    let at = listener.local_addr()?;
    Ok((listener, at))
}
