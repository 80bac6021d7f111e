//! Where every byte came from, by the nodes' accounts and by the origin's own counters.

use std::time::Duration;

use dfs_tests::origin::Counters;
use dfs_tests::process::Process;
use dfs_tests::wait;
use serde_json::{Value, json};

use super::stage::Stage;
use crate::run::Failure;
use crate::units::{bytes, count};

/// How long the last bytes that the origin has written may take to be accounted for.
const SETTLE: Duration = Duration::from_secs(10);

/// More copies than this are a failure.
pub const COPIES: f64 = 1.05;

/// Content bytes of one node by where they came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    name: String,
    source: u64,
    seed: u64,
    peers: u64,
    cache: u64,
}

/// What was asked of the origin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    bytes: u64,
    requests: u64,
}

/// The whole account.
#[derive(Debug)]
pub struct Ledger {
    rows: Vec<Row>,
    /// Content bytes of the artifact.
    content: u64,
    /// As seed and nodes account it.
    accounted: Asked,
    /// As the origin counts it, where it is ours.
    counted: Option<Asked>,
}

impl Row {
    fn of(name: &str, mount: &Value) -> Self {
        let ledger = &mount["ledger"];
        let number = |key: &str| ledger[key].as_u64().unwrap_or(0);
        let none = Vec::new();
        let parents = ledger["parents"].as_array().unwrap_or(&none);
        let from = |kind: &str| -> u64 {
            let of_kind = parents.iter().filter(|parent| parent["kind"] == kind);
            of_kind.filter_map(|parent| parent["bytes"].as_u64()).sum()
        };
        Self {
            name: name.to_owned(),
            source: number("source"),
            seed: from("seed"),
            peers: from("node"),
            cache: number("cache"),
        }
    }

    fn add(mut self, other: &Self) -> Self {
        self.source += other.source;
        self.seed += other.seed;
        self.peers += other.peers;
        self.cache += other.cache;
        self
    }

    fn json(&self) -> Value {
        let Self { name, source, seed, peers, cache } = self;
        json!({"name": name, "source": source, "seed": seed, "peers": peers, "cache": cache})
    }

    fn line(&self) -> String {
        let [source, seed, peers, cache] =
            [self.source, self.seed, self.peers, self.cache].map(bytes);
        format!("  {:<10}{source:>12}{seed:>12}{peers:>12}{cache:>12}", self.name)
    }
}

/// What the mounts of a node say: the one that matters.
pub fn mount_of(stage: &Stage, place: usize) -> Result<Value, Failure> {
    let place = &stage.places[place];
    let said = place.node.dfctl(["mounts", "--format", "json"])?.ok()?.json()?;
    let none = Vec::new();
    let mounts = said["items"].as_array().unwrap_or(&none);
    let dir = place.dir.to_string_lossy();
    let mount = mounts.iter().find(|mount| mount["dir"].as_str() == Some(&dir)).cloned();
    mount.ok_or_else(|| {
        Failure::Other(format!("{} does not list its mount on {dir}", place.node.name()))
    })
}

impl Ledger {
    /// Takes the accounts. `content` is what the artifact has; `origin` the origin's counters.
    pub fn take(
        stage: &Stage,
        content: u64,
        origin: Option<&dyn Fn() -> Counters>,
    ) -> Result<Self, Failure> {
        let rows = (0..stage.places.len()).map(|number| {
            let name = stage.places[number].node.name();
            mount_of(stage, number).map(|mount| Row::of(name, &mount))
        });
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let Some(origin) = origin else {
            return Ok(Self { rows, content, accounted: accounted(stage)?, counted: None });
        };
        let mut last = (Asked::default(), Asked::default());
        // What the origin has written may still be on its way; what stays unequal is told below.
        let _ = wait::find("the accounts are equal", SETTLE, || {
            let counters = origin();
            let counted = Asked { bytes: counters.body_bytes, requests: counters.requests };
            last = (accounted(stage).ok()?, counted);
            (last.0 == last.1).then_some(())
        });
        Ok(Self { rows, content, accounted: last.0, counted: Some(last.1) })
    }

    /// What left the origin: by its own count where there is one.
    fn asked(&self) -> Asked {
        self.counted.unwrap_or(self.accounted)
    }

    fn copies(&self) -> f64 {
        self.asked().bytes as f64 / self.content.max(1) as f64
    }

    /// The account as one object.
    pub fn json(&self, took: Duration) -> Value {
        let asked = self.asked();
        json!({
            "content_bytes": self.content,
            "origin_bytes": asked.bytes,
            "origin_requests": asked.requests,
            "copies": (self.copies() * 10_000.0).round() / 10_000.0,
            "nodes": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "seconds": (took.as_secs_f64() * 1000.0).round() / 1000.0,
        })
    }

    /// The account as a table.
    pub fn human(&self) -> String {
        let [source, seed, peers, cache] = ["source", "seed", "peers", "cache"];
        let head = format!("  {:<10}{source:>12}{seed:>12}{peers:>12}{cache:>12}", "came from");
        let mut lines = vec![head];
        lines.extend(self.rows.iter().map(Row::line));
        let sum = self.rows.iter().fold(Row::default(), Row::add);
        lines.push(Row { name: "sum".to_owned(), ..sum }.line());
        let asked = self.asked();
        let by = match self.counted {
            Some(_) if self.is_equal() => "as it counts itself and as seed and nodes account for",
            Some(_) => "as it counts itself",
            None => "as seed and nodes account for",
        };
        lines.push(format!(
            "\n  the origin sent {} of {}: {:.3} copies in {} requests,\n  {by}",
            bytes(asked.bytes),
            bytes(self.content),
            self.copies(),
            count(asked.requests),
        ));
        lines.join("\n")
    }

    fn is_equal(&self) -> bool {
        self.counted.is_none_or(|counted| counted == self.accounted)
    }

    /// An error unless the source was paid once and the accounts are equal.
    pub fn judge(&self) -> Result<(), Failure> {
        if let Some(counted) = self.counted.filter(|_| !self.is_equal()) {
            let Asked { bytes, requests } = self.accounted;
            return Err(Failure::Other(format!(
                "the accounts differ: the origin counts {} bytes in {} requests, seed and nodes \
                 {bytes} ({:+}) in {requests} ({:+})",
                counted.bytes,
                counted.requests,
                bytes.cast_signed() - counted.bytes.cast_signed(),
                requests.cast_signed() - counted.requests.cast_signed(),
            )));
        }
        if self.copies() > COPIES {
            let copies = self.copies();
            return Err(Failure::Other(format!(
                "{copies:.3} copies left the origin; at most {COPIES} may"
            )));
        }
        Ok(())
    }
}

/// What the seed and all nodes say they asked of the origin.
fn accounted(stage: &Stage) -> Result<Asked, Failure> {
    let of = |process: &Process, prefix: &str| -> Result<Asked, Failure> {
        let number = |name: &str| process.metric(&format!("{prefix}_{name}"));
        Ok(Asked {
            bytes: number("source_bytes_total")? as u64,
            requests: number("source_requests_total")? as u64,
        })
    };
    let mut sum = of(stage.cluster.process(), "dfs_seed")?;
    for place in &stage.places {
        let node = of(place.node.process(), "dfs_node")?;
        sum.bytes += node.bytes;
        sum.requests += node.requests;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(accounted: u64, counted: u64) -> Ledger {
        let asked = |bytes| Asked { bytes, requests: 3 };
        let rows = vec![Row { name: "n".to_owned(), seed: 100, ..Row::default() }];
        let (accounted, counted) = (asked(accounted), Some(asked(counted)));
        Ledger { rows, content: 100, accounted, counted }
    }

    #[test]
    fn what_differs_or_was_paid_twice_fails() {
        assert!(ledger(100, 100).judge().is_ok());
        let differ = ledger(90, 100).judge().unwrap_err().to_string();
        assert!(
            differ.contains("100 bytes in 3 requests") && differ.contains("90 (-10) in 3 (+0)")
        );
        assert!(ledger(106, 106).judge().unwrap_err().to_string().contains("1.060 copies"));
    }

    #[test]
    fn the_ledger_is_one_object() {
        let json = ledger(100, 100).json(Duration::from_millis(1234));
        assert_eq!(json["copies"], 1.0);
        assert_eq!(json["seconds"], 1.234);
        assert_eq!(json["nodes"][0]["seed"], 100);
        assert_eq!(json["origin_requests"], 3);
    }

    #[test]
    fn a_mount_is_read_by_where_its_bytes_came_from() {
        let mount = json!({"ledger": {"cache": 1, "source": 2, "parents": [
            {"kind": "seed", "bytes": 4}, {"kind": "node", "bytes": 8}, {"kind": "node", "bytes": 16},
        ]}});
        let row = Row::of("n", &mount);
        assert_eq!((row.cache, row.source, row.seed, row.peers), (1, 2, 4, 24));
    }
}
