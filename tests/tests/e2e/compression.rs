//! Pieces that travel compressed: fewer bytes move, the same arrive, and every account says so.
//!
//! Links are slow by the seed's own limit, so that nothing depends on how busy this machine is.

use std::fs;

use dfs_tests::origin::prose;
use dfs_tests::{Body, Cluster, Origin};
use serde_json::Value;

use crate::support::ledger::{Account, assert_adds_up};
use crate::support::{Agent, Expected, Place, all, binaries};

const MIB: u64 = 1 << 20;

/// A cluster whose seed sends 2 MiB in a second and is told this about compression.
fn cluster(place: &Place, compression: &str) -> Cluster {
    let config = place.path("cluster.toml");
    let seed = format!("[seed]\nupload-rate = \"2MiB\"\ncompression = \"{compression}\"\n");
    fs::write(&config, seed).unwrap();
    let extra = ["--config", config.to_str().unwrap()];
    Cluster::start_with(&binaries(), place.root(), &extra).unwrap()
}

/// An agent that is told this about compression.
fn agent(cluster: &Cluster, place: &Place, compression: &str) -> Agent {
    let config = place.path("agent.toml");
    fs::write(&config, format!("compression = \"{compression}\"\n")).unwrap();
    Agent::of_with(cluster, place, "agent", &["--config", config.to_str().unwrap()])
}

/// What a body took on its way from the seed to an agent.
struct Moved {
    length: u64,
    ledger: Value,
    agent: Agent,
    cluster: Cluster,
    origin: Origin,
}

impl Moved {
    /// Gets it, and sees that it is the same.
    fn of(place: &Place, body: Body, [seed, node]: [&str; 2]) -> Self {
        let (expected, length) = (all(&body), body.length().unwrap());
        let origin = Origin::of("/file", body).unwrap();
        let cluster = cluster(place, seed);
        let agent = agent(&cluster, place, node);
        let out = place.path("out");
        let url = origin.url("/file");
        let words = ["get", &url, "-o", out.to_str().unwrap(), "--format", "json"];
        let ledger = agent.dfctl(&words).done().json().unwrap()["ledger"].clone();
        assert!(fs::read(&out).unwrap() == expected, "wrong bytes");
        Self { length, ledger, agent, cluster, origin }
    }

    fn seed(&self, name: &str) -> u64 {
        self.cluster.process().metric(&format!("dfs_seed_{name}")).unwrap() as u64
    }

    fn groups(&self, codec: &str) -> u64 {
        self.seed(&format!("served_groups_total{{codec=\"{codec}\"}}"))
    }

    /// Everybody's accounts, to the byte. What it took beside the content lies between proofs alone, and everything
    /// that was read from the link.
    fn assert_adds_up(&self) {
        let account = Account::of(&self.ledger);
        assert_eq!((account.seed, account.total()), (self.length, self.length));
        assert_adds_up(&self.origin, Some(&self.cluster), &[&self.agent]);
        let taken = |name: &str| self.agent.metric(&format!("dfs_node_{name}"));
        assert_eq!(taken("taken_bytes_total"), self.length);
        assert_eq!(self.seed("served_bytes_total"), self.length);
        assert_eq!(taken("taken_encoded_bytes_total"), self.seed("served_encoded_bytes_total"));
        let groups = self.groups("raw") + self.groups("zstd");
        assert_eq!(groups, self.length.div_ceil(64 << 10));
        let wire = self.ledger["wire"].as_u64().unwrap();
        let read = taken("wire_bytes_total{direction=\"in\"}");
        let encoded = taken("taken_encoded_bytes_total");
        assert!((encoded..=read).contains(&wire), "{wire} of {encoded} and {read}");
    }
}

#[test]
fn text_moves_in_fewer_bytes_over_a_slow_link_and_the_accounts_say_so() {
    let place = Place::new();
    let moved = Moved::of(&place, Body::bytes(prose(1, 4 << 20 | 77)), ["auto", "auto"]);
    moved.assert_adds_up();
    assert_eq!(moved.groups("raw"), 0, "the limit is known before the first segment");
    let encoded = moved.seed("served_encoded_bytes_total");
    assert!(encoded < moved.length / 2, "{encoded} of {}", moved.length);
    assert!(moved.agent.metric("dfs_node_wire_bytes_total{direction=\"in\"}") < moved.length / 2);
    assert!(moved.ledger["wire"].as_u64().unwrap() < moved.length / 2, "{}", moved.ledger);
}

#[test]
fn what_cannot_be_compressed_moves_as_it_is() {
    let place = Place::new();
    let moved = Moved::of(&place, Body::noise(1, 3 * MIB + 77), ["auto", "auto"]);
    moved.assert_adds_up();
    assert_eq!(moved.groups("zstd"), 0);
    assert_eq!(moved.seed("served_encoded_bytes_total"), moved.length);
}

#[test]
fn whoever_is_told_not_to_neither_sends_nor_takes_it_and_both_understand_the_other() {
    for settings in [["off", "auto"], ["auto", "off"]] {
        let place = Place::new();
        let moved = Moved::of(&place, Body::bytes(prose(2, 2 << 20)), settings);
        moved.assert_adds_up();
        assert_eq!(moved.groups("zstd"), 0, "{settings:?}");
        assert_eq!(moved.seed("served_encoded_bytes_total"), moved.length);
    }
}
