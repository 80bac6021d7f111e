//! A long-running process: what each of them can be told, and its course from the command line to the exit.
//!
//! A process adds its own flags and options to the [`Flags`] and [`Options`] here, loads both at once
//! ([`Loader::load_beside`](crate::config::Loader::load_beside)), and is then run by [`run`].

use std::error::Error as StdError;
use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use dfs_model::{Location, printable};
use dfs_peer::error_chain;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::admin::{self, Readiness};
use crate::config::{self, ConfigError, passing_over_empty};
use crate::data_dir::{DataDir, DataDirError};
use crate::lifecycle::{self, LifecycleError};
use crate::metrics::Metrics;
use crate::net::{self, NetError, Port, Security};
use crate::run_info::{RunInfo, RunInfoError};
use crate::telemetry::{self, LogFormat, TelemetryError};
use crate::tls::JoinToken;
use crate::tls::enrol::EnrolError;
use crate::{Lifecycle, OnFailure, Tracker};

/// How long all services together may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Flags of every process; what is not given comes from variables, files and defaults.
#[derive(Debug, Clone, Default, clap::Args, Serialize)]
#[group(skip)]
#[serde(rename_all = "kebab-case")]
pub struct Flags {
    /// Configuration file over those in /etc/dfs.
    #[arg(long, value_name = "FILE", env = "DFS_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address to listen on; others can reach this process only where it has joined with --join [default: 127.0.0.1].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<IpAddr>,
    /// Port of metrics and health; 0 is a free one [default: 4090 of a node, 4091 of a cluster, or a
    /// free one if that is taken].
    #[arg(long, value_name = "PORT")]
    pub port_metrics: Option<u16>,
    /// Address at which others may read metrics and health too, with the token of --metrics-token-file; the page on
    /// loopback stays.
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// File with the token that who reads metrics from elsewhere shows, as `Authorization: Bearer METRICS-TOKEN`.
    #[arg(long, value_name = "FILE")]
    pub metrics_token_file: Option<PathBuf>,
    /// Name for people; the machine's own when not given.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Area (region) this process stands in; one has schedulers and seeds of its own.
    #[arg(long, value_name = "NAME")]
    pub area: Option<String>,
    /// Data centre it stands in.
    #[arg(long, value_name = "NAME")]
    pub idc: Option<String>,
    /// Finer place in it, elements separated by `|`.
    #[arg(long, value_name = "NAME")]
    pub rack: Option<String>,
    /// What is logged, as in RUST_LOG [default: info].
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// How it is logged: human, json or auto [default: auto].
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// The options of every process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Address to listen on.
    pub listen: IpAddr,
    /// Port of metrics and health.
    pub port_metrics: Option<u16>,
    /// Address at which others may read metrics and health too, with the token; the page on loopback stays.
    pub metrics_listen: Option<SocketAddr>,
    /// File with the token that who reads metrics from elsewhere shows.
    pub metrics_token_file: Option<PathBuf>,
    /// Name for people; the machine's own when empty.
    #[serde(deserialize_with = "config::label")]
    pub name: String,
    /// Area (region) this process stands in; one has schedulers and seeds of its own.
    #[serde(deserialize_with = "config::label")]
    pub area: String,
    /// Data centre it stands in.
    #[serde(deserialize_with = "config::label")]
    pub idc: String,
    /// Finer place in it, elements separated by `|`.
    #[serde(deserialize_with = "config::label")]
    pub rack: String,
    /// What is logged.
    pub log: String,
    /// How it is logged.
    pub log_format: LogFormat,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port_metrics: None,
            metrics_listen: None,
            metrics_token_file: None,
            name: String::new(),
            area: String::new(),
            idc: String::new(),
            rack: String::new(),
            log: telemetry::DEFAULT_FILTER.to_owned(),
            log_format: LogFormat::Auto,
        }
    }
}

impl Options {
    /// Where the process stands.
    pub fn location(&self) -> Location {
        let (area, idc, rack) = (self.area.clone(), self.idc.clone(), self.rack.clone());
        Location { area, idc, rack }
    }

    /// Its name for people.
    pub fn host_name(&self) -> String {
        if self.name.is_empty() {
            return printable(&rustix::system::uname().nodename().to_string_lossy());
        }
        self.name.clone()
    }
}

/// Why a process cannot run, for reasons that every process can have.
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
    /// Its certificate.
    Enrol(#[from] EnrolError),
    /// The announcement of the process.
    RunInfo(#[from] RunInfoError),
    /// The running of it.
    Lifecycle(#[from] LifecycleError),
    /// The page of metrics for others.
    Pages(#[from] admin::PagesError),
    /// A listener has no address.
    #[error("a listener has no address")]
    Listener(#[from] io::Error),
}

/// Begins to log, takes the data directory, starts what `start` starts, announces the process, and runs until
/// there is a reason to stop.
pub async fn run<E: From<Error>>(
    options: &Options,
    data_dir: &Path,
    start: impl AsyncFnOnce(&DataDir, &mut Lifecycle) -> Result<RunInfo, E>,
) -> Result<(), E> {
    telemetry::init(&options.log, options.log_format).map_err(Error::from)?;
    let data_dir = DataDir::take(data_dir).map_err(Error::from)?;
    let mut lifecycle = Lifecycle::new(STOP_WITHIN).map_err(Error::from)?;
    let started = start(&data_dir, &mut lifecycle).await;
    let announced = started
        .and_then(|info| info.announce(data_dir.path()).map_err(|error| Error::from(error).into()));
    let announced = match announced {
        Ok(announced) => announced,
        Err(error) => {
            // The first error is the reason; what also fails on the way out does not hide it.
            let _ = lifecycle.fail().await;
            return Err(error);
        }
    };
    let ended = lifecycle.run().await;
    drop(announced);
    Ok(ended.map_err(Error::from)?)
}

/// Serves metrics and health, on the usual port where none is given; says where. They are for this machine: where the
/// process listens for others, they are on loopback all the same, and for others only where that was said, with a token.
pub async fn serve_admin(
    options: &Options,
    usual_port: u16,
    tracker: &Tracker,
    metrics: Metrics,
    readiness: Readiness,
) -> Result<SocketAddr, Error> {
    let port = Port::given_or(options.port_metrics, usual_port);
    let ip = match options.listen.to_canonical().is_loopback() {
        true => options.listen,
        false => Ipv4Addr::LOCALHOST.into(),
    };
    let listener = net::bind("metrics", ip, port, &Security::Plain).await?;
    let at = listener.local_addr()?;
    let router = admin::router(Arc::new(metrics), readiness);
    if let Some(elsewhere) = options.metrics_listen {
        let token = admin::Token::of(options.metrics_token_file.as_deref())?;
        let bound = TcpListener::bind(elsewhere).await;
        let listener = bound.map_err(|source| NetError::Bind {
            service: "metrics".to_owned(),
            address: elsewhere,
            source,
        })?;
        tracing::info!(at = %listener.local_addr()?, "metrics are given to who shows the token");
        let serving = admin::serve(listener, token.guard(router.clone()), tracker.token().clone());
        tracker.spawn("metrics", OnFailure::StopProcess, serving);
    }
    let serving = admin::serve(listener, router, tracker.token().clone());
    tracker.spawn("admin", OnFailure::StopProcess, serving);
    Ok(at)
}

/// The code of a command line that cannot be understood.
const MISTYPED: u16 = 1001;

/// Why a process ends, as its exit code tells; they mean what those of `dfctl` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// What was told: the command line or the configuration.
    Usage,
    /// This user may not.
    NotPermitted,
    /// A disk is full.
    NoSpace,
    /// The cluster does not let this machine in.
    NotLetIn,
    /// The cluster is not reached by who wants to join it.
    Unreached,
    /// Anything else.
    Other,
}

impl Fault {
    /// Of an error that stems from the file system or the network, by what the system said.
    pub fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                    return Self::NotPermitted;
                }
                Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                    return Self::NoSpace;
                }
                _ => next = error.source(),
            }
        }
        Self::Other
    }

    /// The stable code that `dfctl explain` knows it by.
    pub fn code(self) -> u16 {
        match self {
            Self::Other => 4105,
            Self::Usage => 1003,
            Self::NotPermitted => 4115,
            Self::NoSpace => 4114,
            Self::NotLetIn => 4121,
            Self::Unreached => 4122,
        }
    }

    /// What the process ends with.
    pub fn exit(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::NotPermitted => 4,
            Self::NotLetIn => 4,
            Self::Unreached => 5,
            Self::NoSpace => 7,
        }
    }
}

impl DataDirError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Foreign { .. } | Self::Open { .. } => Fault::NotPermitted,
            Self::Io { .. } | Self::NotADirectory { .. } | Self::InUse { .. } => Fault::of(self),
        }
    }
}

impl EnrolError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Refused { .. } | Self::Stranger { .. } | Self::OfAnother { .. } => {
                Fault::NotLetIn
            }
            Self::NoManager => Fault::NotLetIn,
            Self::Unreached { .. } => Fault::Unreached,
            other => Fault::of(other),
        }
    }
}

impl Error {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Enrol(error) => error.fault(),
            Self::Config(_) | Self::Pages(_) => Fault::Usage,
            Self::Net(NetError::NotLoopback { .. } | NetError::NothingToAnnounce(_)) => {
                Fault::Usage
            }
            Self::DataDir(error) => error.fault(),
            other => Fault::of(other),
        }
    }
}

/// What the command line says; ends the process where that cannot be understood, with its stable code, and after
/// help and version.
pub fn parsed<P: clap::Parser>() -> P {
    let command = passing_over_empty(P::command());
    let matched = command.try_get_matches().and_then(|matched| P::from_arg_matches(&matched));
    matched.map_err(without_tokens).unwrap_or_else(|error| {
        let is_mistake = error.use_stderr()
            && error.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        let printed = error.print().and_then(|()| io::stdout().flush());
        // A reader that has gone wants no help.
        let is_lost = printed.is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe);
        if is_lost && !error.use_stderr() {
            std::process::exit(Fault::Other.exit().into());
        }
        if is_mistake {
            let _ = writeln!(io::stderr(), "DFS-{MISTYPED}");
        }
        std::process::exit(error.exit_code())
    })
}

/// The same without a token that could not be read: but for a letter it may be one.
fn without_tokens(mut error: clap::Error) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let of_token = text(ContextKind::InvalidArg).ends_with("<JOIN-TOKEN>");
    for (kind, is_one) in [
        (ContextKind::InvalidValue, of_token),
        (ContextKind::InvalidArg, JoinToken::is_like(text(ContextKind::InvalidArg))),
    ] {
        if is_one {
            error.insert(kind, ContextValue::String("…".to_owned()));
        }
    }
    error
}

/// The `main` of the process `name`: runs `work` to its end.
pub fn main<E: StdError + 'static>(
    name: &str,
    work: impl Future<Output = Result<(), E>>,
    fault: impl Fn(&E) -> Fault,
) -> ExitCode {
    match lifecycle::block_on(work) {
        Ok(ended) => exit_code(name, ended, fault),
        Err(error) => exit_code(name, Err(error), |_| Fault::Other),
    }
}

/// What the process `name` ends with; says in one line what it failed with and the stable code.
pub fn exit_code<E: StdError + 'static>(
    name: &str,
    ended: Result<(), E>,
    fault: impl Fn(&E) -> Fault,
) -> ExitCode {
    let Err(error) = ended else { return ExitCode::SUCCESS };
    let fault = fault(&error);
    // Where a full disk takes no log there is nobody to tell.
    let (error, code) = (printable(&error_chain(&error)), fault.code());
    let _ = writeln!(io::stderr(), "{name}: {error}  DFS-{code}");
    ExitCode::from(fault.exit())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Told {
        #[arg(long, value_name = "JOIN-TOKEN")]
        join: Option<JoinToken>,
        #[arg(long, value_name = "PORT")]
        port: Option<u16>,
    }

    #[test]
    fn a_token_that_cannot_be_read_is_not_printed_and_anything_else_is() {
        let said = |line: &[&str]| {
            let error = Told::try_parse_from([&["x"], line].concat()).unwrap_err();
            without_tokens(error).render().to_string()
        };
        for line in [&["--join", "dfs1-c2VjcmV0"][..], &["--join=c2VjcmV0"], &["dfs1-c2VjcmV0"]] {
            let said = said(line);
            assert!(!said.contains("c2VjcmV0"), "{said}");
        }
        assert!(said(&["--join", "dfs1-c2VjcmV0"]).contains("not whole"));
        assert!(said(&["--port", "many"]).contains("many"));
        assert!(said(&["--pory"]).contains("--pory"));
    }
}
