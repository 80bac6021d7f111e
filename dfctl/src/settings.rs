//! What is in force for this run: flag > environment > `~/.config/dfs/dfctl.toml` > `/etc/dfs/*.toml` > default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dfs_service::config::Loader;
use dfs_service::data_dir::Places;
use serde::{Deserialize, Serialize};

use crate::cli::GlobalArgs;
use crate::codes;
use crate::error::CliError;
use crate::output::{Color, Format, progress};

/// Every key of the configuration, in kebab-case.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct Options {
    cluster: Option<SocketAddr>,
    socket: Option<PathBuf>,
    solo: Option<bool>,
    data_dir: Option<PathBuf>,
    format: Option<Format>,
    progress: Option<progress::Mode>,
    color: Option<Color>,
}

/// The settings in force.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Cluster that an agent must take part in.
    pub cluster: Option<SocketAddr>,
    /// Socket of the agent, where one was named.
    pub socket: Option<PathBuf>,
    /// Never ask an agent.
    pub solo: bool,
    /// Where processes started here keep their data, where it was named.
    pub data_dir: Option<PathBuf>,
    /// Shape of results.
    pub format: Format,
    /// How progress is shown.
    pub progress: progress::Mode,
    /// When to colour.
    pub color: Color,
    /// Where things are by default.
    pub places: Places,
}

impl Settings {
    /// Lays flags and variables (clap has read both) over the files.
    pub fn load(flags: &GlobalArgs) -> Result<Self, CliError> {
        let places = Places::current();
        let loader = Loader::new("dfctl")
            .environment(std::iter::empty::<(String, String)>())
            .user_file(Some(places.config.join("dfctl.toml")));
        let loaded = loader.load::<Options, _>(flags).map_err(|error| {
            CliError::new(&codes::BAD_CONFIG, "cannot use the configuration").caused_by(&error)
        })?;
        Ok(Self::of(loaded.options, places))
    }

    fn of(options: Options, places: Places) -> Self {
        Self {
            cluster: options.cluster,
            socket: options.socket,
            solo: options.solo.unwrap_or(false),
            data_dir: options.data_dir,
            format: options.format.unwrap_or_default(),
            progress: options.progress.unwrap_or_default(),
            color: options.color.unwrap_or_default(),
            places,
        }
    }

    /// Nothing but defaults, for tests.
    #[cfg(test)]
    pub fn for_test(places: Places) -> Self {
        Self::of(Options::default(), places)
    }

    /// Whether one particular agent is meant, and no other way will do.
    pub fn names_an_agent(&self) -> bool {
        self.socket.is_some() && !self.solo
    }

    /// The sockets an agent may listen on, in the order in which they are tried.
    pub fn sockets(&self) -> Vec<PathBuf> {
        if let Some(socket) = &self.socket {
            return vec![socket.clone()];
        }
        let own = self.own_socket();
        let resident = self.resident_socket();
        if own == resident { vec![own] } else { vec![own, resident] }
    }

    /// Where agents listen that were started without naming a socket: this user's, the machine's, and that of
    /// `user`.
    pub fn usual_sockets(&self, user: Option<u32>) -> Vec<PathBuf> {
        let mut sockets = vec![self.places.runtime.join("agent.sock"), self.resident_socket()];
        if let Some(user) = user {
            sockets.push(format!("/run/user/{user}/dfs/agent.sock").into());
            sockets.push(format!("/tmp/dfs-{user}/agent.sock").into());
        }
        sockets
    }

    /// Whether the agent on `socket` is looked for only because a machine may have one for all its users.
    pub fn is_the_machines(&self, socket: &Path) -> bool {
        self.socket.is_none() && socket == self.resident_socket() && socket != self.own_socket()
    }

    fn resident_socket(&self) -> PathBuf {
        self.places.resident.join("agent.sock")
    }

    /// Where an agent started for this user listens.
    pub fn own_socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.places.runtime.join("agent.sock"))
    }

    /// Where an agent started for this user keeps its data.
    pub fn agent_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| self.places.data.join("agent"))
    }

    /// Where a command that finds no agent keeps what it reads, until it ends.
    pub fn solo_dir(&self) -> PathBuf {
        self.data_dir.as_ref().unwrap_or(&self.places.data).join("solo")
    }

    /// Where a cluster started here keeps its data.
    pub fn cluster_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| self.places.data.join("cluster"))
    }
}
