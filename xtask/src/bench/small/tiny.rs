//! P6: a file of 2 KiB that nobody has seen, through a cluster whose nodes are connected already: by the first node
//! that wants it, and by the next one. The whole command is measured, its start included.

use std::path::Path;

use dfs_tests::{Body, Cluster, Node, Origin};

use super::super::measure;
use super::{Bench, row};
use crate::bench::row::{Goal, Row};
use crate::run::{Failure, failed};

/// Files a run.
const FILES: usize = 20;

/// Measures the first and the second of two nodes.
pub fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let work = bench.fresh_dir("tiny")?;
    let origin = Origin::start()?;
    let cluster = Cluster::start(&bench.binaries, &work)?;
    let at = cluster.address()?;
    let node = |name| Node::start(&bench.binaries, &work, name, Some(at));
    let nodes = [node("a")?, node("b")?];
    let (mut first, mut next, mut wakes) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..=bench.runs {
        bench.interrupt.check()?;
        bench.says(&format!("tiny files {run}/{}", bench.runs));
        for file in 0..FILES {
            let path = format!("/{run}/{file}");
            origin.put(&path, Body::noise((run * FILES + file) as u64, 2048));
            let url = origin.url(&path);
            let took = [get(&nodes[0], &url, &work)?, get(&nodes[1], &url, &work)?];
            let start = measure::wall(nodes[0].dfctl_command()?.arg("--version"))?;
            // The first run connects everybody and is not counted.
            if run > 0 {
                first.push(took[0]);
                next.push(took[1]);
                wakes.push(start.as_secs_f64() * 1e3);
            }
        }
    }
    let goal = Some(Goal::AtMost(5.0));
    Ok(vec![
        row("P6.first", "dfs", &first, "ms", None),
        row("P6", "dfs", &next, "ms", goal),
        row("P6.start", "dfs", &wakes, "ms of it to start", None),
    ])
}

fn get(node: &Node, url: &str, work: &Path) -> Result<f64, Failure> {
    // Not over another file: what ext4 has on the disk before it lets one replace another is no cost of ours.
    let out = work.join(format!("out-{}", node.name()));
    if out.exists() {
        std::fs::remove_file(&out).map_err(failed(&out))?;
    }
    let mut command = node.dfctl_command()?;
    command.args(["-q", "get", url, "-o"]).arg(&out);
    Ok(measure::wall(&mut command)?.as_secs_f64() * 1e3)
}
