//! P4: one file from nginx into a file, plain and over TLS.
//!
//! Every run gives each subject its turn; nothing is dropped from any cache between them, and the
//! output of one is removed before the next begins. Before each turn as much memory is used and given
//! free again: a virtual machine hands free memory back to its host, and what the next one who needs it
//! pays for that (seconds for each GiB) is not the subject's.

use std::fs;
use std::path::Path;
use std::process::Command;

use dfs_tests::Dfctl;

use super::measure::{self, Cost};
use super::row::{Goal, Row, median};
use super::server::{Scheme, Server};
use super::{Bench, write_noise};
use crate::run::{Failure, failed};
use crate::units::time;

/// Who gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Dfs,
    Curl,
    Aria2,
}

const SUBJECTS: [Subject; 3] = [Subject::Dfs, Subject::Curl, Subject::Aria2];

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Dfs => "dfs",
            Self::Curl => "curl",
            Self::Aria2 => "aria2",
        }
    }

    fn command(self, bench: &Bench, url: &str, ca: &Path, out: &Path) -> Result<Command, Failure> {
        Ok(match self {
            Self::Dfs => {
                let mut dfctl = Dfctl::new(&bench.binaries).command()?;
                dfctl.env("SSL_CERT_FILE", ca);
                dfctl.args(["--solo", "-q", "get", url, "-o"]).arg(out);
                dfctl
            }
            Self::Curl => {
                let mut curl = Command::new("curl");
                curl.args(["-sSf", "--noproxy", "*", "--cacert"]).arg(ca);
                curl.arg("-o").arg(out).arg(url);
                curl
            }
            Self::Aria2 => {
                let mut aria2 = Command::new("aria2c");
                aria2.args(["-q", "-x8", "-s8", "-k1M", "--file-allocation=none", "--no-conf"]);
                aria2.arg(format!("--ca-certificate={}", ca.display()));
                aria2.arg("-d").arg(out.parent().unwrap_or(Path::new("/")));
                aria2.arg("-o").arg(out.file_name().unwrap_or_default()).arg(url);
                aria2
            }
        })
    }
}

/// Measures plain HTTP, then TLS.
pub fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let root = bench.fresh_dir("root")?;
    bench.says("making the file");
    write_noise(&root.join("file"), bench.size)?;
    let server = Server::start(&root, &bench.fresh_dir("nginx")?, &bench.interrupt)?;
    let mut rows = Vec::new();
    for scheme in [Scheme::Http, Scheme::Https] {
        let costs = costs(bench, &server, scheme, &root)?;
        rows.extend(self::rows(bench, scheme, &costs));
    }
    Ok(rows)
}

type Costs = Vec<(Subject, Vec<Cost>)>;

fn costs(bench: &Bench, server: &Server, scheme: Scheme, root: &Path) -> Result<Costs, Failure> {
    let url = server.url(scheme, "file");
    let out = bench.fresh_dir("out")?.join("file");
    let mut costs: Costs = SUBJECTS.map(|subject| (subject, Vec::new())).into();
    // The first round warms everybody up and is not counted; it is the one that is compared.
    for run in 0..=bench.runs {
        for (subject, costs) in &mut costs {
            bench.interrupt.check()?;
            measure::use_memory(&out, bench.size)?;
            let mut command = subject.command(bench, &url, &server.ca, &out)?;
            let cost = measure::run(&mut command)?;
            if run == 0 {
                same(&root.join("file"), &out)?;
            } else {
                bench.says(&format!(
                    "{} {run}/{} {:<5} {:>8}  cpu {:>8}",
                    scheme.name(),
                    bench.runs,
                    subject.name(),
                    time(cost.wall),
                    time(cost.cpu)
                ));
                costs.push(cost);
            }
            fs::remove_file(&out).map_err(failed(&out))?;
        }
    }
    Ok(costs)
}

fn same(a: &Path, b: &Path) -> Result<(), Failure> {
    crate::run::run(Command::new("cmp").arg(a).arg(b))
}

fn rows(bench: &Bench, scheme: Scheme, costs: &Costs) -> Vec<Row> {
    let gib = bench.size as f64 / f64::from(1 << 30);
    let of = |subject: Subject, figure: &dyn Fn(&Cost) -> f64| {
        let costs = costs.iter().find(|(one, _)| *one == subject);
        let figures = costs.map(|(_, costs)| costs.iter().map(figure).collect::<Vec<_>>());
        median(&figures.unwrap_or_default())
    };
    let wall = |subject| of(subject, &|cost| cost.wall.as_secs_f64());
    let cpu = |subject| of(subject, &|cost| cost.cpu.as_secs_f64());
    let rss = |subject| of(subject, &|cost| cost.rss as f64 / f64::from(1 << 20));
    let mut rows = Vec::new();
    for subject in SUBJECTS {
        let mut add = |figure: &str, value, unit, goal: Option<Goal>| {
            let row = format!("P4.{}.{figure}", scheme.name());
            let goal = goal.filter(|_| subject == Subject::Dfs);
            rows.push(Row { row, subject: subject.name(), value, unit, goal, runs: bench.runs });
        };
        if subject != Subject::Curl {
            let speed = wall(Subject::Curl) / wall(subject);
            add("speed", speed, "× curl", Some(Goal::AtLeast(1.2)));
            let share = cpu(subject) / cpu(Subject::Curl);
            add("cpu", share, "× curl", Some(Goal::AtMost(1.3)));
        }
        add("rss", rss(subject), "MiB", Some(Goal::AtMost(32.0)));
        add("rate", gib * 1024.0 / wall(subject), "MiB/s", None);
        add("cpu_time", cpu(subject) / gib, "s/GiB", None);
    }
    rows
}
