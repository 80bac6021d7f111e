//! What the process can be told: flags and variables over configuration files over defaults.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use dfs_service::config::{self, ServiceAddress};
use dfs_service::process;
use dfs_service::tls::JoinToken;
use serde::{Deserialize, Serialize};

use crate::{manager, scheduler, seed};

/// The process's name in configuration files.
pub const PROCESS: &str = "dfs-cluster";

const EXAMPLES: &str = "\
Examples:
  dfs-cluster all --data-dir /var/lib/dfs-cluster
  dfs-cluster all --listen 10.0.0.5 --data-dir /var/lib/dfs-cluster
  dfs-cluster seed --data-dir /srv/seed --listen 10.0.0.6 --join JOIN-TOKEN

Every flag can also be given as a variable: --data-dir is DFS_DATA_DIR.";

/// The cluster's processes: the manager keeps the members, the scheduler says who may take what
/// from whom, the seed reads origins for all.
#[derive(Debug, Parser)]
#[command(name = PROCESS, version, before_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// Which of them runs here.
    #[command(subcommand)]
    pub role: RoleCommand,
}

/// What runs in this process.
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Everything, behind one gRPC port.
    #[command(before_help = EXAMPLES)]
    All(Flags),
    /// The manager: members and their leases.
    #[command(before_help = EXAMPLES)]
    Manager(Flags),
    /// A scheduler: who may be whose parent.
    #[command(before_help = EXAMPLES)]
    Scheduler(Flags),
    /// A seed: reads origins once for everybody, and keeps.
    #[command(before_help = EXAMPLES)]
    Seed(Flags),
}

/// A part of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// All of them.
    All,
    /// The manager alone.
    Manager,
    /// A scheduler alone.
    Scheduler,
    /// A seed alone.
    Seed,
}

impl Role {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Manager => "manager",
            Self::Scheduler => "scheduler",
            Self::Seed => "seed",
        }
    }

    /// Whether the manager runs here.
    pub fn has_manager(self) -> bool {
        matches!(self, Self::All | Self::Manager)
    }

    /// Whether a scheduler runs here.
    pub fn has_scheduler(self) -> bool {
        matches!(self, Self::All | Self::Scheduler)
    }

    /// Whether a seed runs here.
    pub fn has_seed(self) -> bool {
        matches!(self, Self::All | Self::Seed)
    }
}

impl RoleCommand {
    /// The role and what was given for it.
    pub fn into_parts(self) -> (Role, Flags) {
        match self {
            Self::All(flags) => (Role::All, flags),
            Self::Manager(flags) => (Role::Manager, flags),
            Self::Scheduler(flags) => (Role::Scheduler, flags),
            Self::Seed(flags) => (Role::Seed, flags),
        }
    }
}

/// Flags; what is not given comes from variables, files and defaults.
#[derive(Debug, Clone, Default, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Flags {
    /// Where the process keeps what must survive it; `dfctl cluster up` says another one [default: /var/lib/dfs-cluster].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address that others reach this process at, where it is not the one it listens on; repeatable.
    #[arg(long, value_name = "ADDR")]
    pub advertise: Vec<IpAddr>,
    /// Port of the gRPC services; 0 is a free one [default: 4000, or a free one if that is taken].
    #[arg(long, value_name = "PORT")]
    pub port_grpc: Option<u16>,
    /// Port of the seed's piece plane; 0 is a free one [default: 4002, or a free one if that is taken].
    #[arg(long, value_name = "PORT")]
    pub port_pieces: Option<u16>,
    /// The manager to join, as host:port; not where the manager runs in this process. A token names it too.
    #[arg(long, value_name = "ADDR")]
    pub manager: Option<ServiceAddress>,
    /// Token that this process joins the cluster with, once: `dfctl cluster join-token --role ROLE` prints it. Not
    /// where the manager runs in this process.
    #[arg(long, value_name = "JOIN-TOKEN")]
    pub join: Option<JoinToken>,
    /// Uses certificates on loopback too: everybody then has to join. On other addresses there is no other way.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
    /// What every process can be told.
    #[command(flatten)]
    #[serde(flatten)]
    pub shared: process::Flags,
}

/// The options in force, beside those of every process ([`process::Options`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Options {
    /// Where the process keeps what must survive it.
    pub data_dir: PathBuf,
    /// Addresses that others reach it at; empty is the one it listens on.
    #[serde(deserialize_with = "config::reachable_all")]
    pub advertise: Vec<IpAddr>,
    /// Port of the gRPC services.
    pub port_grpc: Option<u16>,
    /// Port of the seed's piece plane.
    pub port_pieces: Option<u16>,
    /// The manager to join.
    pub manager: Option<ServiceAddress>,
    /// Token that the process joins the cluster with, once.
    pub join: Option<JoinToken>,
    /// Whether there are certificates on loopback too.
    pub tls: bool,
    /// The manager's own options.
    pub members: manager::Options,
    /// The scheduler's own options.
    pub scheduler: scheduler::Options,
    /// The seed's own options.
    pub seed: seed::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/dfs-cluster"),
            advertise: Vec::new(),
            port_grpc: None,
            port_pieces: None,
            manager: None,
            join: None,
            tls: false,
            members: manager::Options::default(),
            scheduler: scheduler::Options::default(),
            seed: seed::Options::default(),
        }
    }
}

/// The tree of commands, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use dfs_service::config::Loader;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        command().debug_assert();
        let help = command().find_subcommand_mut("all").unwrap().render_long_help().to_string();
        assert!(help.contains("dfs-cluster all --data-dir"), "{help}");
        assert!(EXAMPLES.lines().all(|line| line.len() <= 80), "a terminal would break it");
    }

    #[test]
    fn flags_win_over_variables_and_these_over_defaults() {
        let place = ["--name", "n", "--area", "a", "--idc", "i", "--rack", "r|1"];
        let words = [&[PROCESS, "all", "--port-grpc", "0"], &place[..]].concat();
        let cli = Cli::try_parse_from(words).unwrap();
        let (role, flags) = cli.role.into_parts();
        let (shared, options) = Loader::new(PROCESS)
            .system_dir("/nonexistent")
            .environment([
                ("DFS_PORT_GRPC", "5000"),
                ("DFS_DATA_DIR", "/somewhere"),
                ("DFS_SCHEDULER__RESOLVE_CACHE", "1m"),
                ("DFS_MEMBERS__NEAREST", r#"{ "example.org:81" = "eu", bucket = "us" }"#),
                ("DFS_SCHEDULER__ARMS", r#"{ a = { share = "10%", strategy = "random" } }"#),
            ])
            .load_beside::<process::Options, Options, _>(&flags)
            .unwrap();
        let location = shared.location();
        assert_eq!(
            [&shared.name, &location.area, &location.idc, &location.rack],
            ["n", "a", "i", "r|1"]
        );
        assert_eq!((role, options.port_grpc), (Role::All, Some(0)));
        assert_eq!(options.data_dir, PathBuf::from("/somewhere"));
        assert_eq!(options.scheduler.resolve_cache.as_secs(), 60);
        let named = [("example.org:81", "eu"), ("bucket", "us")];
        let nearest = named.map(|(origin, area)| (origin.to_owned(), area.to_owned())).into();
        assert!(options.scheduler.arms.contains_key("a"));
        assert_eq!(options.members, manager::Options { nearest, ..Default::default() });
    }
}
