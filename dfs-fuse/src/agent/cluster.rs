//! Whether the agent's cluster is there: says so in the log when it is not, and when it is again.

use std::net::SocketAddr;
use std::time::Duration;

use dfs_peer::swarm::Swarm;

use crate::manager;

/// How long a cluster may be away before it is told: one that restarts is back by then.
const AWAY: Duration = Duration::from_secs(5);

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(250);

/// How long a manager may take to say who is there.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Follows the cluster of `managers`, `named` so. Never ends by itself.
pub async fn follow(swarm: Swarm, managers: Vec<SocketAddr>, named: String) {
    loop {
        if tokio::time::timeout(AWAY, until(&swarm, true)).await.is_err() {
            let why = why_away(&swarm, &managers).await;
            tracing::warn!(cluster = %named, why, "the cluster is not reached: going on without it");
            until(&swarm, true).await;
            tracing::info!(cluster = %named, "the cluster is reached");
        }
        until(&swarm, false).await;
    }
}

async fn until(swarm: &Swarm, connected: bool) {
    while swarm.is_connected() != connected {
        tokio::time::sleep(LOOK).await;
    }
}

async fn why_away(swarm: &Swarm, managers: &[SocketAddr]) -> String {
    match manager::ask_any(managers, ANSWER_WITHIN).await {
        Ok(_) => swarm.state(),
        Err(reason) => reason.to_string(),
    }
}
