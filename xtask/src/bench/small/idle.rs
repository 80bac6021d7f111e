//! P11: memory of an agent and of a whole cluster with nothing to do. P12: `dfctl` from its start to its end, for its
//! shortest answer and for a completion with live names.

use dfs_tests::{Cluster, Dfctl, Node};

use super::super::measure;
use super::{Bench, row};
use crate::bench::row::{Goal, Row};
use crate::run::Failure;

const TIMES: usize = 20;

/// Measures both.
pub fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    bench.says("idle");
    let work = bench.fresh_dir("idle")?;
    let (mut agents, mut clusters) = (Vec::new(), Vec::new());
    let (mut starts, mut completions) = (Vec::new(), Vec::new());
    for run in 0..bench.runs {
        bench.interrupt.check()?;
        let work = work.join(run.to_string());
        std::fs::create_dir_all(&work).map_err(|error| Failure::Other(error.to_string()))?;
        let cluster = Cluster::start(&bench.binaries, &work)?;
        let node = Node::start(&bench.binaries, &work, "node", Some(cluster.address()?))?;
        for _ in 0..TIMES {
            let mut start = Dfctl::new(&bench.binaries).command()?;
            starts.push(measure::wall(start.arg("--version"))?.as_secs_f64() * 1e3);
            let mut complete = Dfctl::new(&bench.binaries).command()?;
            complete.args(["__complete", "bash", "--socket"]).arg(node.socket());
            complete.args(["task", "show", ""]);
            completions.push(measure::wall(&mut complete)?.as_secs_f64() * 1e3);
        }
        let mib = |pid| measure::rss(pid).unwrap_or(0) as f64 / f64::from(1 << 20);
        agents.push(mib(node.process().pid()));
        clusters.push(mib(cluster.process().pid()));
    }
    Ok(vec![
        row("P11.agent", "dfs", &agents, "MiB", Some(Goal::AtMost(30.0))),
        row("P11.cluster", "dfs", &clusters, "MiB", Some(Goal::AtMost(60.0))),
        row("P12.start", "dfs", &starts, "ms", Some(Goal::AtMost(15.0))),
        row("P12.completion", "dfs", &completions, "ms", Some(Goal::AtMost(50.0))),
    ])
}
