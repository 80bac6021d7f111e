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

/// Measures run by run.
pub fn measure(bench: &Bench, objects: u64, per_directory: u64) -> Result<Vec<Row>, Failure> {
    let mib = f64::from(1 << 20);
    let (mut times, mut again, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    let (mut node_memory, mut index, mut moved) = (Vec::new(), Vec::new(), Vec::new());
    let (mut alone_times, mut alone_memory) = (Vec::new(), Vec::new());
    for run in 1..=bench.runs {
        bench.interrupt.check()?;
        bench.says(&format!("bucket {run}/{}", bench.runs));
        let work = bench.fresh_dir("bucket")?;
        let origin = Origin::start()?;
        let mut shelf = Shelf::new(objects, per_directory);
        origin.shelve("/lab", shelf.clone());
        let url = format!("s3://anonymous@lab/?endpoint=http://{}", origin.address());
        let fresh = work.join("cluster.toml");
        // What was found out is asked anew at once.
        std::fs::write(&fresh, "[scheduler]\nresolve-cache = \"0s\"\n")
            .map_err(|error| Failure::Other(error.to_string()))?;
        let config = ["--config".to_owned(), fresh.display().to_string()];
        let config: Vec<&str> = config.iter().map(String::as_str).collect();
        let cluster = Cluster::start_with(&bench.binaries, &work, &config)?;
        let node = Node::start(&bench.binaries, &work, "node", Some(cluster.address()?))?;
        let taken = || node.process().metric("dfs_node_taken_bytes_total");
        let (mount, took) = timed(|| Ok(node.mount(&url, &work.join("mnt"))?))?;
        times.push(took.as_secs_f64());
        memory.push(measure::peak_rss(cluster.process().pid()).unwrap_or(0) as f64 / mib);
        let before = taken()?;
        index.push(before / mib);
        drop(mount);
        let more = format!("{}-more", shelf.key(objects / 2));
        shelf.put(&more);
        origin.shelve("/lab", shelf);
        again.push(until_there(&node, &url, &work.join("again"), &more)?.as_secs_f64());
        moved.push((taken()? - before) / mib);
        node_memory.push(measure::peak_rss(node.process().pid()).unwrap_or(0) as f64 / mib);
        drop((node, cluster));
        // One that reads the listing itself, and moves nothing.
        let alone = Node::start(&bench.binaries, &work, "alone", None)?;
        let (mount, took) = timed(|| Ok(alone.mount(&url, &work.join("mnt"))?))?;
        alone_times.push(took.as_secs_f64());
        alone_memory.push(measure::peak_rss(alone.process().pid()).unwrap_or(0) as f64 / mib);
        drop(mount);
    }
    Ok(vec![
        row("P13.time", "dfs", &times, "s to mounted", Some(Goal::AtMost(10.0))),
        row("P13.again", "dfs", &again, "s with one more", None),
        row("P13.moved", "dfs", &moved, "MiB with one more", Some(Goal::AtMost(5.0))),
        row("P13.index", "dfs", &index, "MiB of index", None),
        row("P10.listing", "dfs", &alone_times, "s to mounted", Some(Goal::AtMost(10.0))),
        row("P10.listing.rss", "dfs", &alone_memory, "MiB", Some(Goal::AtMost(200.0))),
        row("P10.cluster.rss", "dfs", &memory, "MiB (cluster)", Some(Goal::AtMost(200.0))),
        row("P13.node.rss", "dfs", &node_memory, "MiB (node)", None),
    ])
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
