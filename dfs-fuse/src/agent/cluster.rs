//! Where the agent's cluster is, and whether it is there: says so in the log when it is not, and when it is again.

use std::error::Error as _;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use dfs_peer::swarm::{ManagerPlace, Swarm};
use dfs_service::config::{LookUpError, ServiceAddress};
use dfs_service::net::{Security, manager};
use parking_lot::Mutex;

/// How long a cluster may be away before it is told: one that restarts is back by then.
const AWAY: Duration = Duration::from_secs(5);

/// How long a manager may take to say who is there.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A manager by the address that people gave. While its name cannot be looked up, what it led to last counts.
pub struct NamedManager {
    address: ServiceAddress,
    last: Mutex<LookedUp>,
}

/// What looking a name up came to.
#[derive(Default)]
struct LookedUp {
    addresses: Vec<SocketAddr>,
    /// Whether it fails, which has been told.
    is_failing: bool,
}

impl NamedManager {
    /// The one at `address`.
    pub fn new(address: ServiceAddress) -> Self {
        Self { address, last: Mutex::default() }
    }

    fn heard(&self, found: Result<Vec<SocketAddr>, LookUpError>) -> Vec<SocketAddr> {
        let mut last = self.last.lock();
        match found {
            Ok(addresses) => *last = LookedUp { addresses, is_failing: false },
            Err(error) => {
                if !std::mem::replace(&mut last.is_failing, true) {
                    let because = error.source().map(ToString::to_string);
                    tracing::warn!(cluster = %self.address, %error, because, "is looked up again and again");
                }
            }
        }
        last.addresses.clone()
    }
}

#[async_trait]
impl ManagerPlace for NamedManager {
    async fn addresses(&self) -> Vec<SocketAddr> {
        self.heard(self.address.resolve().await)
    }
}

impl fmt::Display for NamedManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Follows the cluster whose managers are at these addresses. Never ends by itself.
pub async fn follow(swarm: Swarm, cluster: Vec<ServiceAddress>, security: Security) {
    let named: Vec<String> = cluster.iter().map(ToString::to_string).collect();
    let named = named.join(",");
    loop {
        if tokio::time::timeout(AWAY, swarm.until_connected()).await.is_err() {
            let why = why_away(&swarm, &cluster, &security).await;
            tracing::warn!(cluster = %named, why, "the cluster is not reached: going on without it");
            swarm.until_connected().await;
            tracing::info!(cluster = %named, "the cluster is reached");
        }
        swarm.until_alone().await;
    }
}

/// What is amiss at the first of these addresses at which something is.
async fn why_away(swarm: &Swarm, cluster: &[ServiceAddress], security: &Security) -> String {
    for named in cluster {
        if let Err(reason) = manager::ask(named, ANSWER_WITHIN, security).await {
            return reason.to_string();
        }
    }
    swarm.state()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_looked_up_leads_where_it_led_last() {
        let manager = NamedManager::new("manager.example:4000".parse().unwrap());
        let fails = || Err(LookUpError::Late { host: "manager.example".into() });
        assert!(manager.heard(fails()).is_empty());
        assert!(manager.last.lock().is_failing, "told once");
        let at = vec!["10.0.0.5:4000".parse().unwrap()];
        assert_eq!(manager.heard(Ok(at.clone())), at);
        assert!(!manager.last.lock().is_failing);
        assert_eq!(manager.heard(fails()), at);
        let moved = vec!["10.0.0.6:4000".parse().unwrap()];
        assert_eq!(manager.heard(Ok(moved.clone())), moved);
    }
}
