//! P5: a file from a seed that has all of it to an agent that has nothing, over loopback, by whether pieces may travel
//! compressed. On a link as quick as memory that must not cost anything: noise takes at most a twentieth longer.
//!
//! Each run gives every content and either setting its turn, the first of them changing from run to run; each turn
//! has an agent of its own. The clock runs over `dfctl get`, which ends when the file is there.

use std::fs;
use std::time::Duration;

use dfs_tests::{Cluster, Node, Origin};

use super::content::Content;
use super::row::{Goal, Row, median};
use super::{Bench, measure};
use crate::run::{Failure, failed, run};

/// Either setting of the agents; the seed's own is its default.
const SETTINGS: [&str; 2] = ["auto", "off"];

/// What one turn took.
#[derive(Debug, Clone, Copy)]
struct Turn {
    wall: Duration,
    /// Of the agent and the cluster.
    cpu: Duration,
    /// Bytes of the piece plane that the agent took.
    wire: u64,
}

/// Turns of one content under one setting.
struct Turns {
    content: Content,
    setting: &'static str,
    turns: Vec<Turn>,
}

/// Measures it.
pub fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let origin = Origin::start()?;
    let root = bench.fresh_dir("root")?;
    let cluster = Cluster::start(&bench.binaries, &bench.fresh_dir("cluster")?)?;
    let mut all = Vec::new();
    for content in Content::ALL {
        let path = root.join(content.name());
        content.write(&path, bench.size)?;
        origin.put(&format!("/{}", content.name()), dfs_tests::Body::File(path));
        for setting in SETTINGS {
            all.push(Turns { content, setting, turns: Vec::new() });
        }
    }
    let field = Field { bench, origin: &origin, cluster: &cluster };
    // The first round fills the seed, and compares.
    for round in 0..=bench.runs {
        if round % 2 == 1 {
            all.reverse();
        }
        for of in &mut all {
            bench.interrupt.check()?;
            let turn = field.turn(of.content, of.setting)?;
            if round > 0 {
                bench.says(&format!(
                    "{round}/{} {:<6} {:<4} {:.3} s  cpu {:.2} s  {} bytes on the wire",
                    bench.runs,
                    of.content.name(),
                    of.setting,
                    turn.wall.as_secs_f64(),
                    turn.cpu.as_secs_f64(),
                    turn.wire
                ));
                of.turns.push(turn);
            }
        }
    }
    Ok(Content::ALL.iter().flat_map(|content| rows(*content, &all, bench.size)).collect())
}

struct Field<'a> {
    bench: &'a Bench,
    origin: &'a Origin,
    cluster: &'a Cluster,
}

impl Field<'_> {
    fn turn(&self, content: Content, setting: &str) -> Result<Turn, Failure> {
        let dir = self.bench.fresh_dir("agent")?;
        let config = dir.join("agent.toml");
        fs::write(&config, format!("compression = \"{setting}\"\n")).map_err(failed(&config))?;
        let told = config.to_string_lossy().into_owned();
        let manager = Some(self.cluster.address()?);
        let extra = ["--config", &told];
        let mut node = Node::spawn(&self.bench.binaries, &dir, "agent", manager, &extra)?;
        node.wait_ready()?;
        let pids = [node.process().pid(), self.cluster.process().pid()];
        let cpu = || pids.into_iter().filter_map(measure::cpu).sum::<Duration>();
        let (before, out) = (cpu(), dir.join("out"));
        let mut dfctl = node.dfctl_command()?;
        let url = self.origin.url(&format!("/{}", content.name()));
        let wall = measure::wall(dfctl.args(["-q", "get", &url, "-o"]).arg(&out))?;
        let cpu = cpu().saturating_sub(before);
        let wire = node.process().metric("dfs_node_wire_bytes_total{direction=\"in\"}")? as u64;
        let had = self.bench.path("root").join(content.name());
        run(std::process::Command::new("cmp").arg(had).arg(&out))?;
        Ok(Turn { wall, cpu, wire })
    }
}

fn rows(content: Content, all: &[Turns], size: u64) -> Vec<Row> {
    let turns = |setting: &str| {
        let of = all.iter().find(|of| of.content == content && of.setting == setting);
        of.map(|of| of.turns.as_slice()).unwrap_or_default()
    };
    let runs = turns("auto").len();
    let mut rows = Vec::new();
    let mut add = |figure: &str, subject, value, unit, goal| {
        let row = format!("P5.{}.{figure}", content.name());
        rows.push(Row { row, subject, value, unit, goal, runs });
    };
    let ratios = turns("auto").iter().zip(turns("off"));
    let ratios = ratios.map(|(auto, off)| auto.wall.as_secs_f64() / off.wall.as_secs_f64());
    let goal = (content == Content::Random).then_some(Goal::AtMost(1.05));
    add("time", "auto", median(&ratios.collect::<Vec<_>>()), "× off", goal);
    for setting in SETTINGS {
        let of = |figure: &dyn Fn(&Turn) -> f64| {
            median(&turns(setting).iter().map(figure).collect::<Vec<_>>())
        };
        let mib = size as f64 / f64::from(1 << 20);
        add("rate", setting, mib / of(&|turn| turn.wall.as_secs_f64()), "MiB/s", None);
        add("cpu", setting, of(&|turn| turn.cpu.as_secs_f64()) / mib * 1024.0, "s/GiB", None);
        add(
            "wire",
            setting,
            of(&|turn| turn.wire as f64) / size as f64,
            "copies on the wire",
            None,
        );
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_compared_turn_by_turn() {
        let turns = |setting, walls: [u64; 3]| Turns {
            content: Content::Random,
            setting,
            turns: walls
                .map(|wall| Turn {
                    wall: Duration::from_secs(wall),
                    cpu: Duration::from_secs(1),
                    wire: 100,
                })
                .into(),
        };
        // The machine was slow in the second of them, for both.
        let all = [turns("off", [10, 40, 10]), turns("auto", [10, 41, 11])];
        let rows = rows(Content::Random, &all, 100);
        assert_eq!((rows[0].row.as_str(), rows[0].value), ("P5.random.time", 1.025));
        assert_eq!(
            rows.iter().filter(|row| row.value == 1.0 && row.unit.contains("wire")).count(),
            2
        );
    }
}
