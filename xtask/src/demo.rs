//! `cargo xtask demo`: a cluster and some nodes on this machine, one URL mounted on all of them,
//! everything read at once, every byte compared, and an account of where it came from.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Subcommand, ValueEnum};
use dfs_tests::Binaries;

mod fleet;
mod ledger;
mod pick;
mod read;
mod stage;
mod subject;

use crate::interrupt::Interrupt;
use crate::prepare;
use crate::run::{self, Failure};
use crate::units::{bytes, count, time};
use crate::workspace::{built, cargo};
use ledger::Ledger;
use stage::Stage;
use subject::{Known, Subject, Truth};

const PROFILE: &str = "demo";

/// What to demonstrate.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    act: Option<Act>,
    #[command(flatten)]
    nodes: Nodes,
}

#[derive(Subcommand)]
enum Act {
    /// A fleet of machines, each a network namespace: they start an image, follow it, and lose whom they rely on; needs root
    Fleet(OfAFleet),
}

#[derive(clap::Args)]
struct OfAFleet {
    #[command(flatten)]
    fleet: fleet::Args,
    /// How the result is printed; json is one object, on the last line
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Take the programs from here instead of building them
    #[arg(long, value_name = "DIR")]
    bins: Option<PathBuf>,
}

/// What to demonstrate on nodes of this machine.
#[derive(clap::Args)]
struct Nodes {
    /// What to mount: http, https, file or a path; directories of this machine when not given
    url: Option<String>,
    /// Leave everything running until Ctrl-C, and say how to look around
    #[arg(long)]
    keep: bool,
    /// How the result is printed; json is one object, on the last line
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Node agents
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: u8,
    /// Take the programs from here instead of building them
    #[arg(long, value_name = "DIR")]
    bins: Option<PathBuf>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Human,
    /// For programs.
    Json,
}

/// Says how far it is: on stdout, or on stderr where that is for programs.
struct Narrator(Format);

impl Narrator {
    fn say(&self, text: &str) {
        match self.0 {
            Format::Human => println!("{text}"),
            Format::Json => eprintln!("{text}"),
        }
    }

    fn step(&self, name: &str, what: &str, took: Option<Duration>) {
        let took = took.map(time).unwrap_or_default();
        self.say(format!("  {name:<9} {what:<62} {took:>8}").trim_end());
    }
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let interrupt = Interrupt::install()?;
    let done = match &args.act {
        Some(Act::Fleet(args)) => start_fleet(args, &interrupt),
        None => perform(&args.nodes, &interrupt),
    };
    // What fails after the signal fails because of it.
    done.map_err(|failure| interrupt.check().err().unwrap_or(failure))
}

fn start_fleet(args: &OfAFleet, interrupt: &Interrupt) -> Result<(), Failure> {
    let binaries = match &args.bins {
        Some(dir) => Binaries::in_dir(dir),
        None => build()?,
    };
    fleet::run_fleet(&args.fleet, args.format, binaries, interrupt)
}

fn perform(args: &Nodes, interrupt: &Interrupt) -> Result<(), Failure> {
    let narrator = Narrator(args.format);
    prepare::packages(prepare::FOR_DEMO)?;
    let begun = Instant::now();
    let binaries = match &args.bins {
        Some(dir) => Binaries::in_dir(dir),
        None => build()?,
    };
    interrupt.check()?;
    narrator.say(&format!(
        "\ndfs demo: one cluster, {} nodes, each with a store of its own\n",
        args.nodes
    ));
    if args.bins.is_none() {
        narrator.step("built", "dfs-cluster, dfs-fuse, dfctl", Some(begun.elapsed()));
    }

    let subject = Subject::of(args.url.as_deref())?;
    tell_subject(&narrator, &subject);
    let work = tempfile::Builder::new()
        .prefix("dfs-demo-")
        .tempdir()
        .map_err(|error| Failure::Other(format!("no temporary directory: {error}")))?;
    let begun = Instant::now();
    let stage = Stage::start(&binaries, work.path(), args.nodes.into(), interrupt)?;
    let cluster = format!("{}: manager, scheduler, seed", stage.cluster.address()?);
    narrator.step("cluster", &cluster, Some(begun.elapsed() - stage.ready));
    let nodes = format!("{} agents, started within {}", args.nodes, time(stage.spread));
    narrator.step("nodes", &nodes, Some(stage.ready));

    let result = show(&narrator, args, &subject, &stage, work.path(), interrupt);
    if result.is_err() && interrupt.check().is_ok() {
        tell_logs(&stage);
    }
    if args.keep && interrupt.check().is_ok() {
        narrator.say(&around(&stage, &binaries));
        interrupt.wait();
        return result;
    }
    result
}

/// From the mount to the verdict.
fn show(
    narrator: &Narrator,
    args: &Nodes,
    subject: &Subject,
    stage: &Stage,
    work: &Path,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let begun = Instant::now();
    stage.mount(&subject.url)?;
    let mount = ledger::mount_of(stage, 0)?;
    let lists: Vec<_> =
        stage.dirs().into_iter().map(|(name, dir)| (name, read::list(&dir))).collect();
    let files = &lists[0].1;
    let mounted = format!("{} files on every node", count(files.len() as u64));
    narrator.step("mounted", &mounted, Some(begun.elapsed()));

    let url = mount["url"].as_str().unwrap_or(&subject.url);
    let truth = subject::truth(subject, url, files, work)?;
    read::same_files(&lists, &truth)?;
    let sum: u64 = files.iter().map(|(_, length)| length).sum();
    // Members of an archive are a part of it; what is paid for is the archive.
    let content = match url.ends_with('/') {
        true => sum,
        false => mount["content_bytes"].as_u64().unwrap_or(sum),
    };

    let begun = Instant::now();
    read::everything(&stage.dirs(), files, &truth, interrupt)?;
    let took = begun.elapsed();
    let rate = bytes((sum as f64 * lists.len() as f64 / took.as_secs_f64()) as u64);
    let what = format!("{} × {} at once, {rate}/s in sum", lists.len(), bytes(sum));
    narrator.step("read", &what, Some(took));

    let counters = subject.origin.as_ref().map(|origin| || origin.counters());
    let counters = counters.as_ref().map(|count| count as &dyn Fn() -> _);
    let ledger = Ledger::take(stage, content, counters)?;
    let begun = Instant::now();
    if let Truth::Urls(urls) = &truth {
        read::against_curl(&stage.dirs(), files, urls, work, interrupt)?;
        narrator.step("compared", "every byte with curl's", Some(begun.elapsed()));
    } else {
        narrator.step("compared", "every byte with the origin's, while it was read", None);
    }
    narrator.say(&format!("\n{}\n", ledger.human()));
    if args.format == Format::Json {
        println!("{}", ledger.json(took));
    }
    ledger.judge()
}

fn build() -> Result<Binaries, Failure> {
    let packages = ["-p", "dfctl", "-p", "dfs-fuse", "-p", "dfs-cluster", "--bins"];
    let mut arguments = vec!["build", "--profile", PROFILE];
    arguments.extend(packages);
    run::run(&mut cargo(&arguments)?)?;
    Ok(Binaries::in_dir(built(PROFILE)?))
}

fn tell_subject(narrator: &Narrator, subject: &Subject) {
    let size = match &subject.known {
        Known::Tree(local) => {
            let length = |path: &Path| path.metadata().map_or(0, |status| status.len());
            let sum = local.values().map(|path| length(path)).sum();
            format!("{} files, {}, served in place", count(local.len() as u64), bytes(sum))
        }
        Known::File(path) => format!("{}, served in place", path.display()),
        Known::Elsewhere => String::new(),
    };
    narrator.step("origin", format!("{}  {size}", subject.url).trim_end(), None);
}

/// Where to look when it failed: the logs go with the rest.
fn tell_logs(stage: &Stage) {
    let processes = stage.places.iter().map(|place| place.node.process());
    for process in std::iter::once(stage.cluster.process()).chain(processes) {
        let log = process.log();
        let bad =
            |line: &&str| ["WARN", "ERROR", "panicked"].iter().any(|word| line.contains(word));
        let lines: Vec<_> = log.lines().filter(bad).collect();
        let last = &lines[lines.len().saturating_sub(8)..];
        if !last.is_empty() {
            eprintln!("\n{}:\n  {}", process.log_path().display(), last.join("\n  "));
        }
    }
}

/// How to look around, and how to stop.
fn around(stage: &Stage, binaries: &Binaries) -> String {
    let dfctl = binaries.path("dfctl").map(|path| path.display().to_string()).unwrap_or_default();
    let mut text = String::from("still running; look around:\n");
    for place in &stage.places {
        text.push_str(&format!("  ls -l {}\n", place.dir.display()));
    }
    if let Some(place) = stage.places.first() {
        let socket = place.node.socket().display();
        for command in ["mounts", "task ls", "cache ls"] {
            text.push_str(&format!("  {dfctl} --socket {socket} {command}\n"));
        }
        if let Ok(metrics) = place.node.process().address("metrics") {
            text.push_str(&format!("  curl http://{metrics}/metrics\n"));
        }
        text.push_str(&format!("  less {}\n", stage.cluster.process().log_path().display()));
    }
    text + "\nCtrl-C stops everything and cleans up"
}
