//! P10 and P13: a bucket of very many objects becomes a mount; then one object more comes, and it is mounted again.
//!
//! The store is made up on the way (`dfs_tests::origin::Shelf`): it costs less than any real one, so that what is
//! measured is ours. A cluster's seed reads the listing, a node mounts; then an agent on its own does both.

use std::path::Path;
use std::time::Duration;

use dfs_tests::origin::Shelf;
use dfs_tests::{Cluster, Node, Origin, wait};

use super::super::measure;
use super::{Bench, row, timed};
use crate::bench::row::{Goal, Row};
use crate::run::Failure;

/// Bytes in a MiB.
const MIB: f64 = (1 << 20) as f64;

/// What was measured, a figure a run each.
#[derive(Debug, Default)]
struct Figures {
    times: Vec<f64>,
    again: Vec<f64>,
    memory: Vec<f64>,
    node_memory: Vec<f64>,
    index: Vec<f64>,
    moved: Vec<f64>,
    ready: Vec<f64>,
    mounted_memory: Vec<f64>,
    walked_memory: Vec<f64>,
    alone_times: Vec<f64>,
    alone_memory: Vec<f64>,
    alone_mounted_memory: Vec<f64>,
}

/// Measures run by run.
pub fn measure(bench: &Bench, objects: u64, per_directory: u64) -> Result<Vec<Row>, Failure> {
    let mut figures = Figures::default();
    for run in 1..=bench.runs {
        bench.interrupt.check()?;
        bench.says(&format!("bucket {run}/{}", bench.runs));
        let work = bench.fresh_dir("bucket")?;
        let origin = Origin::start()?;
        let mut shelf = Shelf::new(objects, per_directory);
        origin.shelve("/lab", shelf.clone());
        let url = format!("s3://anonymous@lab/?endpoint=http://{}", origin.address());
        let more = format!("{}-more", shelf.key(objects / 2));
        shelf.put(&more);
        let add_one = || origin.shelve("/lab", shelf.clone());
        figures.in_a_cluster(bench, &work, &url, (&more, &add_one))?;
        // One that reads the listing itself, and moves nothing.
        let alone = Node::start(&bench.binaries, &work, "alone", None)?;
        let idle = own_memory(&alone);
        let (_mount, took) = timed(|| Ok(alone.mount(&url, &work.join("mnt"))?))?;
        figures.alone_times.push(took.as_secs_f64());
        figures.alone_memory.push(peak(alone.process().pid()));
        figures.alone_mounted_memory.push(own_memory(&alone) - idle);
    }
    Ok(figures.rows())
}

impl Figures {
    /// A seed reads the listing, a node mounts it, has it looked at, and mounts it again with `more`.
    fn in_a_cluster(
        &mut self,
        bench: &Bench,
        work: &Path,
        url: &str,
        (more, add_one): (&str, &dyn Fn()),
    ) -> Result<(), Failure> {
        let fresh = work.join("cluster.toml");
        // What was found out is asked anew at once.
        std::fs::write(&fresh, "[scheduler]\nresolve-cache = \"0s\"\n")
            .map_err(|error| Failure::Other(error.to_string()))?;
        let config = ["--config".to_owned(), fresh.display().to_string()];
        let config: Vec<&str> = config.iter().map(String::as_str).collect();
        let cluster = Cluster::start_with(&bench.binaries, work, &config)?;
        let node = Node::start(&bench.binaries, work, "node", Some(cluster.address()?))?;
        let taken = || node.process().metric("dfs_node_taken_bytes_total");
        let own = || own_memory(&node);
        let idle = own();
        let (mount, took) = timed(|| Ok(node.mount(url, &work.join("mnt"))?))?;
        self.times.push(took.as_secs_f64());
        self.memory.push(peak(cluster.process().pid()));
        let before = taken()?;
        self.index.push(before / MIB);
        drop(mount);
        let (mount, took) = timed(|| Ok(node.mount(url, &work.join("ready"))?))?;
        self.ready.push(took.as_secs_f64() * 1000.0);
        self.mounted_memory.push(own() - idle);
        walk(mount.dir())?;
        self.walked_memory.push(own() - idle);
        drop(mount);
        add_one();
        self.again.push(until_there(&node, url, &work.join("again"), more)?.as_secs_f64());
        self.moved.push((taken()? - before) / MIB);
        self.node_memory.push(peak(node.process().pid()));
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        let ours = |name, values: &[f64], unit, goal: Option<f64>| {
            row(name, "dfs", values, unit, goal.map(Goal::AtMost))
        };
        vec![
            ours("P13.time", &self.times, "s to mounted", Some(10.0)),
            ours("P13.again", &self.again, "s with one more", None),
            ours("P13.moved", &self.moved, "MiB with one more", Some(5.0)),
            ours("P13.index", &self.index, "MiB of index", None),
            ours("P8.ready", &self.ready, "ms to mounted, indexed before", Some(50.0)),
            ours("P8.memory", &self.mounted_memory, "MiB beside the index", Some(50.0)),
            ours("P8.memory.walked", &self.walked_memory, "MiB, all looked at", Some(50.0)),
            ours("P10.listing", &self.alone_times, "s to mounted", Some(10.0)),
            ours("P10.listing.rss", &self.alone_memory, "MiB", Some(200.0)),
            ours(
                "P8.memory.alone",
                &self.alone_mounted_memory,
                "MiB, indexed by itself",
                Some(50.0),
            ),
            ours("P10.cluster.rss", &self.memory, "MiB (cluster)", Some(200.0)),
            ours("P13.node.rss", &self.node_memory, "MiB (node)", None),
        ]
    }
}

/// What a node has resident that is in no file, in MiB.
fn own_memory(node: &Node) -> f64 {
    measure::own_memory(node.process().pid()).unwrap_or(0) as f64 / MIB
}

/// The most that a process had resident, in MiB.
fn peak(pid: u32) -> f64 {
    measure::peak_rss(pid).unwrap_or(0) as f64 / MIB
}

/// Looks at every name and what is said of it.
fn walk(dir: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Other(format!("{}: {error}", dir.display()));
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.metadata().map_err(failed)?.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Mounts until this object is there; what the mount took that has it. An agent takes an answer of a moment ago for
/// the answer of now.
fn until_there(node: &Node, url: &str, dir: &Path, object: &str) -> Result<Duration, Failure> {
    let mounted = || -> Result<Option<Duration>, Failure> {
        let (mount, took) = timed(|| Ok(node.mount(url, dir)?))?;
        Ok(mount.path(object).exists().then_some(took))
    };
    wait::find("the new object is there", Duration::from_secs(120), || mounted().transpose())?
}
