//! P1, P2: one file to a crowd of nodes on shaped links, against the least time that such links allow, and how often
//! the origin sent it. Each node, the seed, and the origin has a network namespace and a link of its own.
//!
//! The clock runs from before the first command is started to the end of the last. What was there before is removed
//! before it starts, and every output is compared after it has stopped. Every run begins with what one curl gets over
//! one such link; dfs and whom it is compared with come in turn, each with nothing cached.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::ValueEnum;
use dfs_model::{Rate, parse_duration};
use dfs_tests::testbed::{Fleet, Machine, Role};
use dfs_tests::{Body, Origin, Testbed};

mod bencode;
mod bound;
mod load;
mod rush;
mod torrent;
mod tracker;

use self::bound::Crowd;
use self::load::{Load, Meter};
use self::rush::{arrivals, rush};
use self::torrent::Torrent;
use super::content::Content;
use super::reader::reader;
use super::row::{Goal, Row, median};
use super::{Bench, measure};
use crate::run::{Failure, run, said};
use crate::testbed::Links;
use crate::units::parse_size;

/// What is fetched, below the origin's root.
const FILE: &str = "file";

/// How large the crowd is, and what comes between it and the file.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    links: Links,
    /// Bytes in the file, as in 64MiB
    #[arg(long, default_value = "64MiB", value_parser = parse_size)]
    pub size: u64,
    /// What is in the file
    #[arg(long, value_enum, default_value_t = Content::Random)]
    content: Content,
    /// The seeds have all of it before the clock starts: the origin's own link is as slow as the others
    #[arg(long)]
    warm: bool,
    /// Node I sends no faster than this, as in 1:1Mbit; repeatable
    #[arg(long, value_name = "I:RATE", value_parser = parse_slow)]
    slow: Vec<Slow>,
    /// From the start of the first node to that of the last, as in 30s
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    spread: Duration,
    /// Whom to compare with, in turn with dfs; repeatable
    #[arg(long, value_enum)]
    vs: Vec<Subject>,
    /// Where the data of all machines is; memory, where this machine has it as a directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Args {
    /// Where the data of all machines is: a disk that sixteen machines share would be measured in place of their links.
    pub fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(memory)
    }
}

/// Memory, where this machine has it as a directory.
pub fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { env::temp_dir() }
}

/// A node whose uplink is slower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slow {
    node: usize,
    rate: Rate,
}

fn parse_slow(text: &str) -> Result<Slow, String> {
    let (node, rate) = text.split_once(':').ok_or("write it as in 1:1Mbit")?;
    let node = node.parse().map_err(|_| format!("'{node}' is not the number of a node"))?;
    Ok(Slow { node, rate: rate.parse().map_err(|error| format!("{error}"))? })
}

/// Who brings the file to the crowd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Subject {
    #[value(skip)]
    Dfs,
    /// dfs too, each node mounting the file and reading it from front to back
    Mount,
    /// A BitTorrent swarm of aria2, the origin's machine one of it
    Aria2,
    /// A curl on each node, from the origin
    Curl,
}

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Dfs => "dfs",
            Self::Mount => "mount",
            Self::Aria2 => "aria2",
            Self::Curl => "curl",
        }
    }
}

/// What all runs share.
struct Field<'a> {
    bench: &'a Bench,
    testbed: &'a Testbed,
    origin: &'a Origin,
    /// Of the origin.
    root: &'a Path,
    spread: Duration,
    warm: bool,
}

/// What was seen of one run.
#[derive(Debug, Clone)]
struct Turn {
    /// Until each had it, from the first start.
    times: Vec<Duration>,
    /// Bytes of the file that the origin sent; where it is one of a swarm, all that its link carried away.
    sent: u64,
    /// Requests at the origin.
    requests: Option<u64>,
    /// Bytes that the seeds' links carried away from them.
    seeds_sent: Option<u64>,
    load: Load,
}

/// A run, what one curl got before it, and the bound of that.
struct Run {
    turn: Turn,
    goodput: f64,
    bound: Duration,
}

/// How a subject brings the file.
enum Means {
    Dfs,
    Mount,
    Aria2(Torrent),
    Curl,
}

impl Means {
    fn of(subject: Subject, field: &Field<'_>) -> Result<Self, Failure> {
        Ok(match subject {
            Subject::Dfs => Self::Dfs,
            Subject::Mount => Self::Mount,
            Subject::Aria2 => Self::Aria2(Torrent::make(field)?),
            Subject::Curl => Self::Curl,
        })
    }

    fn turn(&self, field: &Field<'_>) -> Result<Turn, Failure> {
        match self {
            Self::Dfs => field.dfs(),
            Self::Mount => field.mounted(),
            Self::Aria2(torrent) => torrent.turn(field),
            Self::Curl => field.curl(),
        }
    }
}

/// Measures it.
pub fn measure(bench: &Bench, args: &Args) -> Result<Vec<Row>, Failure> {
    let testbed = Testbed::build(&args.links.layout()?)?;
    let reaper = testbed.reaper();
    bench.interrupt.on_signal(move || reaper.reap());
    for slow in &args.slow {
        testbed.slow_uplink(&format!("node{}", slow.node), slow.rate)?;
    }
    let root = bench.fresh_dir("root")?;
    args.content.write(&root.join(FILE), bench.size)?;
    let origin = testbed.start_origin(0)?;
    origin.put(&format!("/{FILE}"), Body::File(root.join(FILE)));
    let (testbed, origin, root) = (&testbed, &origin, &root);
    let (spread, warm) = (args.spread, args.warm);
    let runs = all_runs(&Field { bench, testbed, origin, root, spread, warm }, args)?;
    let rows = runs.iter().flat_map(|(subject, runs)| rows(*subject, runs, args, bench.size));
    Ok(rows.collect())
}

type Runs = Vec<(Subject, Vec<Run>)>;

fn all_runs(field: &Field<'_>, args: &Args) -> Result<Runs, Failure> {
    let bench = field.bench;
    let subjects = [Subject::Dfs].iter().chain(&args.vs);
    let mut runs: Runs = subjects.map(|subject| (*subject, Vec::new())).collect();
    let means = runs.iter().map(|(subject, _)| Means::of(*subject, field));
    let means = means.collect::<Result<Vec<_>, _>>()?;
    for number in 1..=bench.runs {
        let goodput = field.goodput()?;
        let bound = crowd(args, bench.size, goodput).bound();
        for (means, (subject, runs)) in means.iter().zip(&mut runs) {
            bench.interrupt.check()?;
            let run = Run { turn: means.turn(field)?, goodput, bound };
            bench.says(&format!("{number}/{} {}", bench.runs, run.text(*subject, field)));
            runs.push(run);
        }
    }
    Ok(runs)
}

fn crowd(args: &Args, size: u64, goodput: f64) -> Crowd {
    let share = |rate: Rate| rate.0 as f64 / args.links.link.0 as f64;
    Crowd {
        size,
        nodes: args.links.nodes,
        sources: args.links.seeds,
        goodput,
        slow: args.slow.iter().map(|slow| share(slow.rate)).collect(),
        idc: args.links.uplink.map(share),
        spread: args.spread,
    }
}

impl Field<'_> {
    fn url(&self) -> String {
        self.origin.url(&format!("/{FILE}"))
    }

    /// A directory for what each node gets, empty.
    fn outs(&self) -> Result<Vec<PathBuf>, Failure> {
        self.bench.fresh_dir("out")?;
        let nodes = self.testbed.all(Role::Node);
        nodes.map(|node| self.bench.fresh_dir(&format!("out/{}", node.name()))).collect()
    }

    /// Bytes in a second that one curl gets over one link.
    fn goodput(&self) -> Result<f64, Failure> {
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "--noproxy", "*", "-o", "/dev/null", "-w", "%{speed_download}"]);
        curl.arg(self.url());
        // A seed stands in the core, as the origin does.
        let said = self.testbed.first(Role::Seed)?.inside(|| Ok(said(&mut curl)))??;
        said.parse().map_err(|_| Failure::Other(format!("curl says no speed: {said}")))
    }

    /// One run with everything started afresh.
    fn dfs(&self) -> Result<Turn, Failure> {
        let outs = self.outs()?;
        let mut fleet = self.fleet()?;
        let url = self.url();
        let crowd = self.testbed.all(Role::Node).zip(fleet.nodes()).zip(&outs);
        let crowd = crowd.map(|((machine, node), out)| {
            let mut dfctl = node.dfctl_command()?;
            dfctl.args(["--format", "json", "get", &url, "-o"]).arg(out.join(FILE));
            Ok((machine, dfctl))
        });
        let crowd = crowd.collect::<Result<Vec<_>, Failure>>()?;
        let pids = fleet.pids();
        self.fetch(crowd, &pids, &outs)
    }

    /// The same, each reading a mount.
    fn mounted(&self) -> Result<Turn, Failure> {
        let outs = self.outs()?;
        let mut fleet = self.fleet()?;
        let url = self.url();
        let readers = self.testbed.all(Role::Node).zip(fleet.nodes()).zip(&outs);
        let readers = readers.map(|((machine, node), out)| {
            let (reader, mount) = reader(node, &url, &out.join("mount"), &out.join(FILE))?;
            Ok(((machine, reader), mount))
        });
        let readers: Vec<_> = readers.collect::<Result<_, Failure>>()?;
        let (crowd, _mounts): (Vec<_>, Vec<_>) = readers.into_iter().unzip();
        let pids = fleet.pids();
        self.fetch(crowd, &pids, &outs)
    }

    /// A cluster that has nothing, but for what is to be there before.
    fn fleet(&self) -> Result<Fleet<'_>, Failure> {
        let dir = self.bench.fresh_dir("fleet")?;
        let fleet = Fleet::start(self.testbed, &self.bench.binaries, &dir)?;
        if let (true, Some(node)) = (self.warm, fleet.nodes().first()) {
            let mut preheat = node.dfctl_command()?;
            preheat.args(["-q", "preheat", "--wait", &self.url()]);
            self.testbed.first(Role::Node)?.inside(|| Ok(run(&mut preheat)))??;
        }
        Ok(fleet)
    }

    /// One run without us.
    fn curl(&self) -> Result<Turn, Failure> {
        let outs = self.outs()?;
        let crowd = self.testbed.all(Role::Node).zip(&outs).map(|(machine, out)| {
            let mut curl = Command::new("curl");
            curl.args(["-sSf", "--noproxy", "*", "-o"]).arg(out.join(FILE)).arg(self.url());
            (machine, curl)
        });
        self.fetch(crowd.collect(), &[], &outs)
    }

    /// Runs a command on each node, which ends when it has the file.
    fn fetch(
        &self,
        crowd: Vec<(&Machine, Command)>,
        pids: &[u32],
        outs: &[PathBuf],
    ) -> Result<Turn, Failure> {
        self.origin.reset_counters();
        self.touch_memory();
        let (seeds, meter) = (self.seeds_sent()?, Meter::start(pids)?);
        let (_, times) = rush(crowd, self.spread, &self.bench.interrupt, |begun, command| {
            measure::wall(command).map(|_| begun.at.elapsed())
        })?;
        let load = meter.stop(pids)?;
        let counters = self.origin.counters();
        let (sent, requests) = (counters.body_bytes, Some(counters.requests));
        let seeds_sent = Some(self.seeds_sent()? - seeds);
        outs.iter().try_for_each(|out| same(&self.root.join(FILE), &out.join(FILE)))?;
        Ok(Turn { times, sent, requests, seeds_sent, load })
    }

    /// What all may write, each to its cache and to its output.
    fn touch_memory(&self) {
        load::touch_memory(self.bench.size * 2 * self.testbed.machines().len() as u64);
    }

    fn seeds_sent(&self) -> Result<u64, Failure> {
        let seeds = self.testbed.all(Role::Seed).map(|seed| Ok(seed.traffic()?.sent));
        seeds.sum()
    }
}

fn same(a: &Path, b: &Path) -> Result<(), Failure> {
    run(Command::new("cmp").arg(a).arg(b))
}

impl Run {
    fn last(&self) -> f64 {
        self.turn.times.iter().max().map_or(f64::NAN, Duration::as_secs_f64)
    }

    /// The last of those whose uplinks are not slower.
    fn last_other(&self, slow: &[Slow]) -> f64 {
        let is_slow = |at: usize| slow.iter().any(|slow| slow.node == at + 1);
        let others = self.turn.times.iter().enumerate().filter(|(at, _)| !is_slow(*at));
        others.map(|(_, time)| time).max().map_or(f64::NAN, Duration::as_secs_f64)
    }

    /// What the node in the middle waited.
    fn middle(&self, spread: Duration) -> f64 {
        let came = arrivals(self.turn.times.len(), spread);
        let waited = self.turn.times.iter().zip(came).map(|(time, came)| time.saturating_sub(came));
        median(&waited.map(|time| time.as_secs_f64()).collect::<Vec<_>>())
    }

    fn ratio(&self) -> f64 {
        self.last() / self.bound.as_secs_f64()
    }

    fn copies(&self, size: u64) -> f64 {
        self.turn.sent as f64 / size as f64
    }

    /// How it was, in one line and one more for each node's time.
    fn text(&self, subject: Subject, field: &Field<'_>) -> String {
        let each: Vec<_> =
            self.turn.times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
        format!(
            "{:<5} {:.3} × bound  last {:.2} s  median {:.2} s  copies {:.3}  cpu {:.1} s  softirq {:.1} s  \
             busy {:.0} %\n        each (s): {}",
            subject.name(),
            self.ratio(),
            self.last(),
            self.middle(field.spread),
            self.copies(field.bench.size),
            self.turn.load.cpu.as_secs_f64(),
            self.turn.load.softirq.as_secs_f64(),
            self.turn.load.busy * 100.0,
            each.join(" "),
        )
    }
}

fn rows(subject: Subject, runs: &[Run], args: &Args, size: u64) -> Vec<Row> {
    let of = |figure: &dyn Fn(&Run) -> f64| median(&runs.iter().map(figure).collect::<Vec<_>>());
    let mut rows = Vec::new();
    let mut add = |row: &str, value: f64, unit, goal: Option<f64>| {
        let is_dfs = matches!(subject, Subject::Dfs | Subject::Mount);
        let goal = goal.filter(|_| is_dfs).map(Goal::AtMost);
        let (row, subject, runs) = (row.to_owned(), subject.name(), runs.len());
        rows.push(Row { row, subject, value, unit, goal, runs });
    };
    add("P1", of(&Run::ratio), "× bound", Some(1.04));
    if !args.slow.is_empty() {
        let others = |run: &Run| run.last_other(&args.slow) / run.bound.as_secs_f64();
        add("P1.others", of(&others), "× bound", None);
    }
    let copies = if subject == Subject::Aria2 { "copies on the wire" } else { "copies" };
    add("P2", of(&|run| run.copies(size)), copies, Some(1.01));
    add("P1.last", of(&Run::last), "s", None);
    add("P1.median", of(&|run| run.middle(args.spread)), "s", None);
    add("P1.goodput", of(&|run| run.goodput * 8.0 / 1e6), "Mbit/s", None);
    if runs.iter().all(|run| run.turn.requests.is_some()) {
        let requests = |run: &Run| run.turn.requests.unwrap_or(0) as f64;
        add("P2.requests", of(&requests), "requests", None);
    }
    if matches!(subject, Subject::Dfs | Subject::Mount) {
        let seeds = |run: &Run| run.turn.seeds_sent.unwrap_or(0) as f64 / size as f64;
        add("P2.seeds", of(&seeds), "copies on the wire", None);
    }
    add("P1.cpu", of(&|run| run.turn.load.cpu.as_secs_f64()), "s", None);
    add("P1.softirq", of(&|run| run.turn.load.softirq.as_secs_f64()), "s", None);
    add("P1.busy", of(&|run| run.turn.load.busy * 100.0), "%", None);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(times: &[u64]) -> Run {
        let times = times.iter().copied().map(Duration::from_secs).collect();
        let load = Load::default();
        let turn = Turn { times, sent: 150, requests: None, seeds_sent: None, load };
        Run { turn, goodput: 1.0, bound: Duration::from_secs(4) }
    }

    #[test]
    fn a_run_is_told_by_its_last_and_its_middle() {
        let run = run_of(&[8, 1, 3]);
        assert_eq!((run.last(), run.ratio(), run.copies(100)), (8.0, 2.0, 1.5));
        assert_eq!(run.middle(Duration::ZERO), 3.0);
        assert_eq!(run_of(&[2, 2, 5]).middle(Duration::from_secs(2)), 2.0);
        let slow = [Slow { node: 1, rate: Rate(1) }];
        assert_eq!(run.last_other(&slow), 3.0);
    }

    #[test]
    fn a_slow_node_is_a_number_and_a_rate() {
        assert_eq!(parse_slow("3:1Mbit"), Ok(Slow { node: 3, rate: Rate(125_000) }));
        assert!(parse_slow("1Mbit").is_err() && parse_slow("x:1Mbit").is_err());
        assert!(parse_slow("1:1M").is_err());
    }
}
