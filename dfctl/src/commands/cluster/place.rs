//! The cluster of this machine: what its data directory and its readiness page say.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_peer::dial::Dialer;
use dfs_service::net::TcpLinkDialer;
use dfs_service::run_info::{RunInfo, RunState};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::codes;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{Record, printable, quoted_path, shell_quoted, table};

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const MAX_PAGE: u64 = 64 * 1024;

/// Where `dfs-cluster` works when nobody says otherwise, as its service does.
const RESIDENT: &str = "/var/lib/dfs-cluster";

/// What a node agent calls itself.
const AGENT: &str = "node";

/// What is known of a running cluster.
pub struct Cluster {
    /// Its announcement.
    pub run: RunInfo,
    /// Where it keeps things.
    pub dir: PathBuf,
    /// Whether it can do its work.
    pub ready: bool,
    /// Its parts, as `(name, state)`.
    pub checks: Vec<(String, String)>,
    /// Nodes that its scheduler talks to now.
    pub nodes: Option<u64>,
    /// Where what it says goes.
    pub log: Log,
}

/// Where what a cluster says goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Log {
    /// Into this file.
    File(PathBuf),
    /// Into the journal, under this unit.
    Journal(String),
    /// To whoever started it.
    Stderr,
}

impl Log {
    /// Of a process that works on `dir`: the file is that of `dfctl cluster up`.
    pub fn of(run: &RunInfo, dir: &Path) -> Self {
        let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", run.pid));
        Self::found(unit_in(&cgroup.unwrap_or_default()), log_of(dir))
    }

    fn found(unit: Option<String>, file: PathBuf) -> Self {
        match unit {
            Some(unit) => Self::Journal(unit),
            None if file.exists() => Self::File(file),
            None => Self::Stderr,
        }
    }

    /// The command that shows it.
    pub fn command(&self) -> Option<String> {
        match self {
            Self::File(file) => Some(format!("less {}", quoted_path(file))),
            Self::Journal(unit) => Some(format!("journalctl -u {}", shell_quoted(unit))),
            Self::Stderr => None,
        }
    }

    fn human(&self) -> String {
        match self {
            Self::File(file) => file.display().to_string(),
            Self::Journal(unit) => format!("journalctl -u {}", shell_quoted(unit)),
            Self::Stderr => "the standard error of its process".to_owned(),
        }
    }
}

/// The service of ours that a process belongs to, by its cgroup. One that was started from a shell belongs to whatever
/// service the shell does, as that of SSH or of a CI runner: that one is no way to it.
fn unit_in(cgroup: &str) -> Option<String> {
    let path = cgroup.lines().find_map(|line| line.split_once("::").map(|(_, path)| path))?;
    let is_ours = |part: &&str| part.starts_with("dfs-cluster") && part.ends_with(".service");
    path.split('/').rfind(is_ours).filter(|_| path.contains("system.slice")).map(str::to_owned)
}

/// Where this user's cluster keeps things, and its process, if there is one.
pub fn of_this_machine(context: &Context) -> Result<(PathBuf, Option<RunInfo>), CliError> {
    let dir = context.settings.cluster_dir()?;
    let run = running(&dir)?;
    if run.is_none() && context.settings.data_dir.is_none() {
        // The system's own, where it may be looked at.
        let resident = PathBuf::from(RESIDENT);
        if let Ok(Some(run)) = running(&resident) {
            return Ok((resident, Some(run)));
        }
    }
    Ok((dir, run))
}

/// The command on this user's cluster, as it is to be typed again.
pub fn command(context: &Context, name: &str) -> String {
    let dir = context.settings.data_dir.as_deref();
    // What was named may have been so from another directory.
    let dir = dir.map(|dir| std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
    let dir = dir.map(|dir| format!(" --data-dir {}", quoted_path(&dir))).unwrap_or_default();
    format!("dfctl cluster {name}{dir}")
}

/// The process that works on `dir`, if there is one. Its announcement names it by number and start time, so a
/// later process with the same number is not it.
pub fn running(dir: &Path) -> Result<Option<RunInfo>, CliError> {
    match RunInfo::read(dir) {
        // An agent keeps a directory of its own in the same way.
        Ok(RunState::Running(info)) if info.role == AGENT => Ok(None),
        Ok(RunState::Running(info)) => Ok(Some(info)),
        Ok(RunState::Absent | RunState::Stale(_)) => Ok(None),
        Err(error) => {
            Err(CliError::new(&codes::UNEXPECTED, "cannot find out whether a cluster runs")
                .caused_by(&error))
        }
    }
}

impl Cluster {
    /// Asks it how it is.
    pub async fn of(run: RunInfo, dir: &Path) -> Self {
        let address = run.addresses.get("metrics").and_then(|address| address.parse().ok());
        let (ready, checks) = match page(address, "/readyz").await {
            Some((ready, page)) => (ready, checks(&page)),
            None => (false, vec![("process".to_owned(), "does not answer".to_owned())]),
        };
        let nodes = match ready {
            true => page(address, "/metrics").await.and_then(|(_, page)| nodes(&page)),
            false => None,
        };
        let log = Log::of(&run, dir);
        Self { run, dir: dir.to_owned(), ready, checks, nodes, log }
    }

    /// For people.
    pub fn human(&self) -> String {
        let address = |name: &str| {
            let address = self.run.addresses.get(name).cloned();
            printable(&address.unwrap_or_else(|| "-".to_owned()))
        };
        let mut facts = vec![(
            "cluster",
            format!(
                "{}   pid {}   version {}",
                address("grpc"),
                self.run.pid,
                printable(&self.run.version)
            ),
        )];
        for (name, state) in &self.checks {
            facts.push((name, printable(state)));
        }
        facts.extend(self.nodes.map(|nodes| ("nodes", format!("{nodes} connected"))));
        facts.push(("state in", self.dir.display().to_string()));
        facts.push(("log", self.log.human()));
        facts.push(("metrics", format!("http://{}/metrics", address("metrics"))));
        table::facts(&facts)
    }
}

impl Record for Cluster {
    fn json(&self) -> Value {
        let checks: serde_json::Map<_, _> =
            self.checks.iter().map(|(name, state)| (name.clone(), json!(state))).collect();
        json!({
            "ready": self.ready,
            "pid": self.run.pid,
            "role": self.run.role,
            "version": self.run.version,
            "addresses": self.run.addresses,
            "data_dir": self.dir.display().to_string(),
            "log": match &self.log {
                Log::File(file) => Some(file.display().to_string()),
                Log::Journal(_) | Log::Stderr => None,
            },
            "unit": match &self.log {
                Log::Journal(unit) => Some(unit),
                Log::File(_) | Log::Stderr => None,
            },
            "checks": checks,
            "nodes": self.nodes,
        })
    }

    fn name(&self) -> Vec<u8> {
        self.run.addresses.get("grpc").cloned().unwrap_or_default().into_bytes()
    }
}

/// The log of one that `dfctl cluster up` starts.
pub fn log_of(dir: &Path) -> PathBuf {
    dir.join("cluster.log")
}

/// A page of the process at `address`, and whether it was given without reserve.
async fn page(address: Option<SocketAddr>, path: &str) -> Option<(bool, String)> {
    tokio::time::timeout(ANSWER_WITHIN, get(address?, path)).await.ok().flatten()
}

async fn get(address: SocketAddr, path: &str) -> Option<(bool, String)> {
    let (mut link, _) = TcpLinkDialer::default().dial(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    link.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    link.take(MAX_PAGE).read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let ready = head.split_whitespace().nth(1) == Some("200");
    Some((ready, body.to_owned()))
}

/// Hosts that the scheduler has a stream to: seeds are spoken to in another way.
fn nodes(metrics: &str) -> Option<u64> {
    metrics
        .lines()
        .find_map(|line| line.strip_prefix("dfs_scheduler_streams ")?.trim().parse().ok())
}

/// `ok NAME` and `not ready NAME: why`, a line each.
fn checks(page: &str) -> Vec<(String, String)> {
    let check = |line: &str| {
        if let Some(name) = line.strip_prefix("ok ") {
            return Some((name.to_owned(), "ready".to_owned()));
        }
        let (name, why) = line.strip_prefix("not ready ")?.split_once(": ")?;
        Some((name.to_owned(), format!("not ready: {why}")))
    };
    page.lines().filter_map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_says_is_in_the_journal_and_what_a_command_started_in_its_file() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("cluster.log");
        let own = unit_in("0::/system.slice/dfs-cluster.service\n");
        assert_eq!(own.as_deref(), Some("dfs-cluster.service"));
        let part =
            unit_in("0::/system.slice/system-dfs\\x2dcluster.slice/dfs-cluster@seed.service\n");
        assert_eq!(part.as_deref(), Some("dfs-cluster@seed.service"));
        assert_eq!(unit_in("0::/user.slice/user-7.slice/user@7.service/app.slice/x.scope\n"), None);
        assert_eq!(unit_in("0::/\n"), None);
        for other in ["runner", "ssh", "cron"] {
            assert_eq!(unit_in(&format!("0::/system.slice/{other}.service\n")), None);
        }
        assert_eq!(Log::found(None, file.clone()), Log::Stderr);
        std::fs::write(&file, "").unwrap();
        assert_eq!(Log::found(None, file.clone()), Log::File(file.clone()));
        let log = Log::found(own, file);
        assert_eq!(log.command().as_deref(), Some("journalctl -u dfs-cluster.service"));
    }

    #[test]
    fn nodes_are_counted_by_the_streams_to_them() {
        assert_eq!(nodes("# TYPE x gauge\ndfs_scheduler_streams 12\n"), Some(12));
        assert_eq!(nodes("dfs_seed_served 1\n"), None);
    }

    #[test]
    fn a_readiness_page_is_read_line_by_line() {
        let page = "ok manager\nnot ready seed: no space left\nnonsense\n";
        assert_eq!(
            checks(page),
            [
                ("manager".into(), "ready".into()),
                ("seed".into(), "not ready: no space left".into())
            ]
        );
    }
}
