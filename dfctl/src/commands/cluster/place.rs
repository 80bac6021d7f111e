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
use crate::output::{Record, printable, quoted_path, table};

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const MAX_PAGE: u64 = 64 * 1024;

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
}

/// Where this user's cluster keeps things, and its process, if there is one.
pub fn of_this_machine(context: &Context) -> Result<(PathBuf, Option<RunInfo>), CliError> {
    let dir = context.settings.cluster_dir()?;
    let run = running(&dir)?;
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
        let page = match address {
            Some(address) => {
                tokio::time::timeout(ANSWER_WITHIN, readiness(address)).await.ok().flatten()
            }
            None => None,
        };
        let (ready, checks) = match page {
            Some((ready, page)) => (ready, checks(&page)),
            None => (false, vec![("process".to_owned(), "does not answer".to_owned())]),
        };
        Self { run, dir: dir.to_owned(), ready, checks }
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
        facts.push(("state in", self.dir.display().to_string()));
        facts.push(("log", log_of(&self.dir).display().to_string()));
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
            "log": log_of(&self.dir).display().to_string(),
            "checks": checks,
        })
    }

    fn name(&self) -> Vec<u8> {
        self.run.addresses.get("grpc").cloned().unwrap_or_default().into_bytes()
    }
}

/// Its log.
pub fn log_of(dir: &Path) -> PathBuf {
    dir.join("cluster.log")
}

/// The readiness page of the process at `address`, and whether it says ready.
async fn readiness(address: SocketAddr) -> Option<(bool, String)> {
    let mut link = TcpLinkDialer.dial(address).await.ok()?;
    let request = format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    link.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    link.take(MAX_PAGE).read_to_end(&mut answer).await.ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let ready = head.split_whitespace().nth(1) == Some("200");
    Some((ready, body.to_owned()))
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
