//! `cargo xtask testbed`: machines on shaped links for a person to try things on, and lines on the standard input that
//! break them.

use std::io::BufRead;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc::{self, Sender};
use std::thread;

use dfs_model::Rate;
use dfs_tests::testbed::{Fleet, Idcs, Layout, Links as Protection, Machine, Role};
use dfs_tests::{Binaries, Body, Origin, Testbed};

use crate::interrupt::Interrupt;
use crate::prepare;
use crate::run::Failure;
use crate::units::parse_size;
use crate::workspace::release_binaries;

/// What is served for a start.
const FILE: &str = "/file";
const HELP: &str = "
  kill NAME          SIGKILL              restart NAME    start it again where it was
  stop NAME          SIGSTOP              cont NAME       SIGCONT
  down MACHINE       unplug it            up MACHINE      plug it in
  slow MACHINE RATE  its link, each way   fast MACHINE    as it was
  ls                 machines, their processes, and what their links carried
  help               this

NAME is manager, scheduler, or the machine of a seed or a node. Ctrl-C ends all of it.";

/// What to build.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    links: Links,
    /// Bytes in the file that its origin has
    #[arg(long, default_value = "64MiB", value_parser = parse_size)]
    size: u64,
    /// Take the programs from here instead of building them
    #[arg(long, value_name = "DIR")]
    bins: Option<PathBuf>,
}

/// Machines and links.
#[derive(Debug, clap::Args)]
pub struct Links {
    /// How many nodes
    #[arg(long, default_value_t = 16)]
    pub nodes: usize,
    /// How many seeds
    #[arg(long, default_value_t = 1)]
    pub seeds: usize,
    /// What each machine's link carries, each way, as in 100Mbit
    #[arg(long, value_name = "RATE", default_value = "100Mbit")]
    pub link: Rate,
    /// What the link of manager and scheduler carries; they have all they want when it is not given
    #[arg(long, value_name = "RATE")]
    pub control_link: Option<Rate>,
    /// Data centres that the nodes are dealt out to, each behind an uplink
    #[arg(long, value_name = "K", requires = "uplink")]
    pub idcs: Option<usize>,
    /// What the uplink of each data centre carries, each way
    #[arg(long, value_name = "RATE", requires = "idcs")]
    pub uplink: Option<Rate>,
    /// Protects no connection, to see what TLS costs
    #[arg(long)]
    pub no_tls: bool,
}

impl Links {
    /// As the testbed takes it.
    ///
    /// # Errors
    /// Nobody but root may build one.
    pub fn layout(&self) -> Result<Layout, Failure> {
        if !prepare::is_root() {
            return Err(Failure::Other("a testbed is made of namespaces: run it as root".into()));
        }
        let idcs = self.idcs.zip(self.uplink).map(|(count, uplink)| Idcs { count, uplink });
        let (nodes, seeds, link) = (self.nodes, self.seeds, self.link);
        let links = if self.no_tls { Protection::Plain } else { Protection::Tls };
        let flat = Layout::flat(nodes, link);
        Ok(Layout { seeds, control_link: self.control_link, idcs, links, ..flat })
    }
}

/// What a line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Order {
    Kill(String),
    Stop(String),
    Cont(String),
    Restart(String),
    Down(String),
    Up(String),
    Slow(String, Rate),
    Fast(String),
    List,
    Help,
    Nothing,
}

impl FromStr for Order {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = |name: &str| name.to_owned();
        Ok(match *words {
            [] => Self::Nothing,
            ["kill", of] => Self::Kill(name(of)),
            ["stop", of] => Self::Stop(name(of)),
            ["cont", of] => Self::Cont(name(of)),
            ["restart", of] => Self::Restart(name(of)),
            ["down", of] => Self::Down(name(of)),
            ["up", of] => Self::Up(name(of)),
            ["fast", of] => Self::Fast(name(of)),
            ["slow", of, rate] => {
                Self::Slow(name(of), rate.parse().map_err(|error| format!("{error}"))?)
            }
            ["ls"] => Self::List,
            ["help"] => Self::Help,
            _ => return Err(format!("'{}' is none of these:{HELP}", line.trim())),
        })
    }
}

/// What the main thread waits for.
enum Event {
    Line(String),
    End,
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let interrupt = Interrupt::install()?;
    let layout = args.links.layout()?;
    prepare::packages(prepare::FOR_TESTBED)?;
    let binaries = match &args.bins {
        Some(dir) => Binaries::in_dir(dir),
        None => release_binaries()?,
    };
    interrupt.check()?;
    let work = tempfile::Builder::new().prefix("dfs-testbed-").tempdir();
    let work = work.map_err(|error| Failure::Other(format!("no temporary directory: {error}")))?;
    let testbed = Testbed::build(&layout)?;
    let reaper = testbed.reaper();
    interrupt.on_signal(move || reaper.reap());
    let origin = testbed.start_origin(80)?;
    origin.put(FILE, Body::noise(1, args.size));
    let started = Fleet::start(&testbed, &binaries, work.path());
    let mut fleet = started.map_err(|failure| asked_to_stop(&interrupt, failure.into()))?;
    let (events, received) = mpsc::channel();
    let ended = events.clone();
    interrupt.on_signal(move || drop(ended.send(Event::End)));
    read_lines(events)?;
    list(&testbed, &mut fleet)?;
    show_use(&testbed, &fleet, &binaries, &origin)?;
    while let Ok(Event::Line(line)) = received.recv() {
        match line.parse() {
            Ok(order) => {
                obey(order, &testbed, &mut fleet).unwrap_or_else(|failure| println!("{failure}"))
            }
            Err(why) => println!("{why}"),
        }
    }
    Ok(())
}

/// What came of the signal is not what went wrong.
fn asked_to_stop(interrupt: &Interrupt, failure: Failure) -> Failure {
    interrupt.check().err().unwrap_or(failure)
}

/// Without a standard input it stays all the same.
fn read_lines(events: Sender<Event>) -> Result<(), Failure> {
    let read = move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        for line in lines {
            if events.send(Event::Line(line)).is_err() {
                return;
            }
        }
    };
    let started = thread::Builder::new().name("lines".to_owned()).spawn(read);
    started.map_err(|error| Failure::Other(format!("cannot read lines: {error}")))?;
    Ok(())
}

fn obey(order: Order, testbed: &Testbed, fleet: &mut Fleet<'_>) -> Result<(), dfs_tests::Failure> {
    match order {
        Order::Kill(name) => fleet.kill(&name),
        Order::Stop(name) => fleet.freeze(&name),
        Order::Cont(name) => fleet.thaw(&name),
        Order::Restart(name) => fleet.restart(&name),
        Order::Down(name) => testbed.unplug(&name),
        Order::Up(name) => testbed.plug(&name),
        Order::Slow(name, rate) => testbed.slow(&name, rate),
        Order::Fast(name) => testbed.restore(&name),
        Order::List => list(testbed, fleet),
        Order::Help => {
            println!("{HELP}");
            Ok(())
        }
        Order::Nothing => Ok(()),
    }
}

fn list(testbed: &Testbed, fleet: &mut Fleet<'_>) -> Result<(), dfs_tests::Failure> {
    println!(
        "{:<10} {:<14} {:<28} {:>12} {:>12}  processes",
        "machine", "address", "namespace", "sent", "received"
    );
    for machine in testbed.machines() {
        let traffic = machine.traffic()?;
        let (sent, received) =
            (crate::units::bytes(traffic.sent), crate::units::bytes(traffic.received));
        let (name, namespace) = (machine.name(), machine.namespace());
        let address = machine.address().to_string();
        let processes = processes(machine, fleet)?;
        println!("{name:<10} {address:<14} {namespace:<28} {sent:>12} {received:>12}  {processes}");
    }
    Ok(())
}

fn processes(machine: &Machine, fleet: &mut Fleet<'_>) -> Result<String, dfs_tests::Failure> {
    let names = match machine.place().role {
        Role::Control => vec!["manager", "scheduler"],
        Role::Origin => Vec::new(),
        Role::Scheduler | Role::Seed | Role::Node => vec![machine.name()],
    };
    let each = names.into_iter().map(|name| {
        let (_, process) = fleet.part(name)?;
        Ok(match process.has_ended() {
            None => format!("{name} {}", process.pid()),
            Some(end) => format!("{name} ended: {end}"),
        })
    });
    Ok(each.collect::<Result<Vec<_>, dfs_tests::Failure>>()?.join(", "))
}

fn show_use(
    testbed: &Testbed,
    fleet: &Fleet<'_>,
    binaries: &Binaries,
    origin: &Origin,
) -> Result<(), Failure> {
    let node = testbed.first(Role::Node)?;
    let socket = fleet.nodes().first().map(|node| node.socket().display().to_string());
    println!(
        "\nrun something on a machine:\n  ip netns exec {} {} --socket {} get {} -o OUT --explain\n{HELP}\n",
        node.namespace(),
        binaries.path("dfctl")?.display(),
        socket.unwrap_or_default(),
        origin.url(FILE),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_order() {
        let node = || "node3".to_owned();
        for (line, order) in [
            ("kill node3", Order::Kill(node())),
            ("  slow node3 1Mbit ", Order::Slow(node(), Rate(125_000))),
            ("restart node3", Order::Restart(node())),
            ("", Order::Nothing),
            ("ls", Order::List),
        ] {
            assert_eq!(line.parse(), Ok(order), "{line}");
        }
        assert!("slow node3 1M".parse::<Order>().unwrap_err().contains("two readings"));
        assert!("kill".parse::<Order>().unwrap_err().contains("SIGKILL"));
    }
}
