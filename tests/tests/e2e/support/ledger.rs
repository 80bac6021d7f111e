//! Accounts: what nodes, seed and origin say of where the bytes came from, and whether it adds up.

use dfs_tests::{Cluster, Origin};
use serde_json::Value;

use super::Agent;

/// The bytes of one account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    pub cache: u64,
    pub source: u64,
    pub seed: u64,
    pub peers: u64,
}

impl Account {
    /// Reads the `ledger` of a record; it must add up by itself.
    pub fn of(ledger: &Value) -> Self {
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{ledger}"));
        let parents = ledger["parents"].as_array().unwrap();
        let from = |kind: &str| {
            parents.iter().filter(|p| p["kind"] == kind).map(|p| number(&p["bytes"])).sum::<u64>()
        };
        let account = Self {
            cache: number(&ledger["cache"]),
            source: number(&ledger["source"]),
            seed: from("seed"),
            peers: from("node"),
        };
        assert_eq!(account.total(), number(&ledger["total"]), "{ledger}");
        account
    }

    /// The account of the one mount of an agent.
    pub fn of_mount(agent: &Agent) -> Self {
        let listed = agent.dfctl(&["mounts", "--format", "json"]).json().unwrap();
        let mounts = listed["items"].as_array().unwrap().iter();
        let mounts: Vec<_> =
            mounts.filter(|mount| mount["state"] != "dead" && mount["state"] != "silent").collect();
        assert_eq!(mounts.len(), 1, "{listed}");
        Self::of(&mounts[0]["ledger"])
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.cache + self.source + self.seed + self.peers
    }
}

/// What the origin sent of files is what the seed and the nodes say that they read, in bytes and in requests.
#[track_caller]
pub fn assert_adds_up(origin: &Origin, cluster: Option<&Cluster>, agents: &[&Agent]) {
    let counters = origin.counters();
    let seed = |name: &str| {
        cluster.map_or(0, |cluster| {
            cluster.process().metric(&format!("dfs_seed_{name}")).unwrap() as u64
        })
    };
    let nodes = |name: &str| {
        agents.iter().map(|agent| agent.metric(&format!("dfs_node_{name}"))).sum::<u64>()
    };
    let bytes = seed("source_bytes_total") + nodes("source_bytes_total");
    assert_eq!(bytes, counters.body_bytes, "bytes that seed and nodes read, and the origin sent");
    let requests = seed("source_requests_total") + nodes("source_requests_total");
    assert_eq!(
        requests, counters.requests,
        "requests that seed and nodes made, and the origin got"
    );
}
