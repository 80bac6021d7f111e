//! Whom this machine talks to: its node agent and the cluster.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dfs_service::config::ServiceAddress;
use rustix::process::geteuid;

use super::Finding;
use crate::backend::AgentStatus;
use crate::codes;
use crate::commands::cache::ls::taken;
use crate::commands::cluster::asked;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{quoted_path, when};

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Clocks that differ by more than this are told apart; dates of answers are in whole seconds.
const CLOCK_WARN: Duration = Duration::from_secs(5);
/// Most of what is signed is refused beyond this.
const CLOCK_FAIL: Duration = Duration::from_secs(300);

/// What is known of the node agent.
#[derive(Default)]
pub(super) struct AgentFound {
    pub findings: Vec<Finding>,
    /// Where it keeps its data, where that is this user's.
    pub data_dir: Option<PathBuf>,
    /// The cluster it takes part in.
    pub clusters: Vec<ServiceAddress>,
}

/// Looks for the agent that commands would ask.
pub(super) async fn agent(context: &Context) -> Result<AgentFound, CliError> {
    let settings = &context.settings;
    let mut found = AgentFound::default();
    if settings.solo {
        found.findings.push(Finding::ok("agent", "solo: no node agent is asked"));
        return Ok(found);
    }
    for socket in settings.sockets() {
        match UnixStream::connect(&socket) {
            Ok(_) => {
                found.ask(context, &socket).await?;
                return Ok(found);
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                found.findings.push(denied(context, &socket));
            }
            Err(_) => {}
        }
    }
    if settings.names_an_agent() {
        let socket = settings.own_socket();
        let text = format!("no node agent listens on {}", socket.display());
        let (dir, socket) = (quoted_path(&settings.agent_dir()?), quoted_path(&socket));
        let next = format!("dfs-fuse --data-dir {dir} --socket {socket}");
        found.findings.push(Finding::fail("agent", &codes::NO_AGENT, text).hint(next));
    } else if found.findings.is_empty() {
        let text = "no node agent runs: commands go to the origin, `mount` starts one";
        found.findings.push(Finding::ok("agent", text));
    }
    Ok(found)
}

/// The machine's agent need not be for everybody; one's own must be.
fn denied(context: &Context, socket: &Path) -> Finding {
    let text = format!("the node agent on {} is closed to this user", socket.display());
    let is_the_machines = context.settings.is_the_machines(socket);
    let finding = if is_the_machines { Finding::warn } else { Finding::fail };
    finding("agent", &codes::AGENT_DENIED, text)
        .hint("ask for membership in its socket group, or go around it: --solo")
}

impl AgentFound {
    async fn ask(&mut self, context: &Context, socket: &Path) -> Result<(), CliError> {
        let agent = context.agent_at(socket);
        let asking = tokio::time::timeout(ANSWER_WITHIN, agent.status());
        let status = match answer(context, asking).await? {
            Ok(Ok(status)) => status,
            Ok(Err(failure)) => {
                self.silent(socket, &failure.message);
                return Ok(());
            }
            Err(_) => {
                self.silent(socket, "it does not answer");
                return Ok(());
            }
        };
        let dir = PathBuf::from(&status.data_dir);
        let is_own = dir.metadata().is_ok_and(|dir| dir.uid() == geteuid().as_raw());
        self.data_dir = is_own.then_some(dir);
        let cluster = status.cluster.as_deref().unwrap_or_default();
        self.clusters = cluster.split(',').filter_map(|address| address.parse().ok()).collect();
        self.findings.push(known(socket, &status));
        if !self.clusters.is_empty() && !status.cluster_connected {
            let text = format!("the node agent does not reach its cluster {cluster}");
            let next = "dfctl cluster status --cluster ".to_owned() + &self.clusters[0].to_string();
            self.findings.push(Finding::fail("cluster", &codes::CLUSTER_SILENT, text).hint(next));
        }
        Ok(())
    }

    fn silent(&mut self, socket: &Path, why: &str) {
        let text = format!("the node agent on {}: {why}", socket.display());
        let next = format!("fuser -v {}", quoted_path(socket));
        self.findings.push(Finding::fail("agent", &codes::AGENT_SILENT, text).hint(next));
    }
}

fn known(socket: &Path, status: &AgentStatus) -> Finding {
    let text = format!(
        "node agent {}, pid {}, on {}: cache {}",
        status.version,
        status.pid,
        socket.display(),
        taken(status)
    );
    let own = env!("CARGO_PKG_VERSION");
    match status.version == own {
        true => Finding::ok("agent", text),
        false => Finding::warn("agent", &codes::OTHER_VERSION, format!("{text}; dfctl is {own}"))
            .hint("dfctl version"),
    }
}

/// Looks at the cluster that was named, else at those of the agent.
pub(super) async fn clusters(
    context: &Context,
    of_the_agent: &[ServiceAddress],
) -> Result<Vec<Finding>, CliError> {
    let addresses = match &context.settings.cluster {
        Some(address) => vec![address.clone()],
        None => of_the_agent.to_vec(),
    };
    let mut findings = Vec::new();
    for address in addresses {
        let asking = asked::ask(context, &address, ANSWER_WITHIN);
        match answer(context, asking).await? {
            Ok(reached) => {
                findings.push(Finding::ok("cluster", format!("cluster {address} is reached")));
                findings.extend(reached.date.map(|date| clocks(SystemTime::now(), date)));
            }
            Err(why) => {
                let because = CliError::new(&codes::CLUSTER_SILENT, "").caused_by(&why).because;
                let because = because.join(": ");
                let text = format!("the cluster {address} is not reached: {because}");
                let next = "dfctl config explain cluster      or: dfctl cluster status";
                findings.push(Finding::fail("cluster", &codes::CLUSTER_SILENT, text).hint(next));
            }
        }
    }
    Ok(findings)
}

fn clocks(own: SystemTime, theirs: SystemTime) -> Finding {
    let apart = own.duration_since(theirs).or_else(|_| theirs.duration_since(own));
    let apart = apart.unwrap_or_default();
    let text =
        format!("the clocks of this machine and the cluster are {} apart", when::rough(apart));
    match apart {
        apart if apart >= CLOCK_FAIL => {
            Finding::fail("clock", &codes::CLOCK, text).hint("timedatectl")
        }
        apart if apart >= CLOCK_WARN => {
            Finding::warn("clock", &codes::CLOCK, text).hint("timedatectl")
        }
        _ => Finding::ok("clock", "the cluster has the same time, to the second or so"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn clocks_that_differ_by_much_fail() {
        let now = SystemTime::now();
        let level = |seconds| clocks(now, now + Duration::from_secs(seconds)).level;
        assert_eq!([level(1), level(30), level(3_600)], [Level::Ok, Level::Warn, Level::Fail]);
        let behind = clocks(now + Duration::from_secs(600), now);
        assert_eq!(behind.level, Level::Fail);
    }
}
