//! One file to a crowd of nodes on shaped links, and something happens in the middle of it: how long the slowest takes of
//! those whom it does not strike, against the same crowd on a good day. Whoever is struck has the file once it is over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use dfs_model::Rate;
use dfs_tests::testbed::{Fleet, Layout, Machine, Role, Trouble};
use dfs_tests::wait::PATIENCE;
use dfs_tests::{Body, Mount, Origin, Testbed, wait};

use super::reader::reader;
use super::row::{Goal, Row, median};
use super::{Bench, measure};
use crate::prepare;
use crate::run::{Failure, run};
use crate::units::parse_size;

/// What is fetched, at the origin.
const FILE: &str = "/file";

/// A day may take so many times as long as a good one.
const TIMES: f64 = 2.0;

/// And so much longer, until it is found out who is not there.
const FOUND_OUT: f64 = 5.0;

/// How large the crowd is, and what happens to it.
#[derive(clap::Args)]
pub struct Args {
    /// What happens, as in kill:node2; repeatable; each of the usual when not given
    #[arg(long, value_name = "WHAT:WHOM")]
    fault: Vec<Trouble>,
    /// How many nodes
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..))]
    nodes: u16,
    /// What each machine's link carries, each way, as in 60Mbit
    #[arg(long, value_name = "RATE", default_value = "60Mbit")]
    link: Rate,
    /// Bytes in the file, as in 12MiB
    #[arg(long, default_value = "12MiB", value_parser = parse_size)]
    pub size: u64,
    /// Each node mounts the file and reads it from front to back, in place of getting it
    #[arg(long)]
    mounted: bool,
}

/// What all days share.
struct Field<'a> {
    bench: &'a Bench,
    testbed: &'a Testbed,
    origin: &'a Origin,
    body: &'a Body,
    mounted: bool,
}

/// What was seen of one day.
#[derive(Debug, Clone, Copy)]
struct Day {
    /// Until the last of those who were not struck had the file, from the first start.
    slowest: f64,
    /// Until who was struck had it, from when that was over.
    struck: Option<f64>,
    /// Times that the file left the origin.
    copies: f64,
}

/// How one node's command ended, and when.
struct Ended {
    name: String,
    /// From the first start.
    at: Duration,
    how: Result<(), Failure>,
}

/// Measures it.
pub fn measure(bench: &Bench, args: &Args) -> Result<Vec<Row>, Failure> {
    if !prepare::is_root() {
        return Err(Failure::Other("a testbed is made of namespaces: run it as root".into()));
    }
    let testbed = Testbed::build(&Layout::flat(args.nodes.into(), args.link))?;
    let reaper = testbed.reaper();
    bench.interrupt.on_signal(move || reaper.reap());
    let (origin, body) = (testbed.start_origin(0)?, Body::noise(1, bench.size));
    origin.put(FILE, body.clone());
    let field =
        Field { bench, testbed: &testbed, origin: &origin, body: &body, mounted: args.mounted };
    let faults = if args.fault.is_empty() { Trouble::usual() } else { args.fault.clone() };
    let (mut good, mut bad): (Vec<Day>, BTreeMap<usize, Vec<Day>>) = Default::default();
    for number in 1..=bench.runs {
        let tell = |what: &str, day: Day| {
            bench.says(&format!("{number}/{} {}", bench.runs, day.text(what)));
        };
        good.push(field.day(None)?);
        tell("undisturbed", good[number - 1]);
        for (at, fault) in faults.iter().enumerate() {
            bench.interrupt.check()?;
            let day = field.day(Some(fault))?;
            tell(&fault.to_string(), day);
            bad.entry(at).or_default().push(day);
        }
    }
    let undisturbed = of(&good, |day| day.slowest);
    let mut rows = vec![row("storm.undisturbed", undisturbed, "s", None, good.len())];
    for (fault, days) in faults.iter().zip(bad.values()) {
        rows.extend(rows_of(&fault.to_string(), days, undisturbed));
    }
    Ok(rows)
}

fn of(days: &[Day], figure: impl Fn(&Day) -> f64) -> f64 {
    median(&days.iter().map(figure).collect::<Vec<_>>())
}

fn row(name: &str, value: f64, unit: &'static str, goal: Option<f64>, runs: usize) -> Row {
    Row { row: name.to_owned(), subject: "dfs", value, unit, goal: goal.map(Goal::AtMost), runs }
}

fn rows_of(fault: &str, days: &[Day], undisturbed: f64) -> Vec<Row> {
    let slowest = of(days, |day| day.slowest);
    let most = ((TIMES * undisturbed + FOUND_OUT) * 100.0).round() / 100.0;
    let runs = days.len();
    let name = |figure: &str| format!("storm.{fault}{figure}");
    let mut rows = vec![
        row(&name(""), slowest, "s", Some(most), runs),
        row(&name(".ratio"), slowest / undisturbed, "× undisturbed", None, runs),
        row(&name(".copies"), of(days, |day| day.copies), "copies", None, runs),
    ];
    if days.iter().all(|day| day.struck.is_some()) {
        let after = of(days, |day| day.struck.unwrap_or_default());
        rows.push(row(&name(".struck"), after, "s after it", None, runs));
    }
    rows
}

impl Field<'_> {
    fn url(&self) -> String {
        self.origin.url(FILE)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.bench.path(&format!("{name}.out"))
    }

    /// What a node runs to have the file.
    fn command(&self, fleet: &Fleet<'_>, name: &str) -> Result<(Command, Option<Mount>), Failure> {
        let named = fleet.nodes().iter().find(|node| node.name() == name);
        let node = named.ok_or_else(|| Failure::Other(format!("no node is called {name}")))?;
        if self.mounted {
            let at = self.bench.path(&format!("{name}.mount"));
            let (reader, mount) = reader(node, &self.url(), &at, &self.out(name))?;
            return Ok((reader, Some(mount)));
        }
        let mut dfctl = node.dfctl_command()?;
        dfctl.args(["-q", "get", "--force", &self.url(), "-o"]).arg(self.out(name));
        Ok((dfctl, None))
    }

    /// One day with everything started afresh.
    fn day(&self, fault: Option<&Trouble>) -> Result<Day, Failure> {
        let dir = self.bench.fresh_dir("fleet")?;
        let mut fleet = Fleet::start(self.testbed, &self.bench.binaries, &dir)?;
        self.origin.reset_counters();
        let machines = self.testbed.all(Role::Node);
        let crowd = machines.map(|one| {
            let (command, mount) = self.command(&fleet, one.name())?;
            Ok(((one, command), mount))
        });
        let crowd = crowd.collect::<Result<Vec<_>, Failure>>()?;
        let (crowd, _mounts): (Vec<_>, Vec<_>) = crowd.into_iter().unzip();
        let (sender, ended) = mpsc::channel();
        thread::scope(|scope| {
            let begun = Instant::now();
            for (machine, command) in crowd {
                let sender = sender.clone();
                scope.spawn(move || take(machine, command, begun, &sender));
            }
            drop(sender);
            self.watch(fault, &mut fleet, begun, &ended)
        })
    }

    /// Strikes in the middle, and sees everybody through.
    fn watch(
        &self,
        fault: Option<&Trouble>,
        fleet: &mut Fleet<'_>,
        begun: Instant,
        ended: &Receiver<Ended>,
    ) -> Result<Day, Failure> {
        let mut all: BTreeMap<String, Ended> = BTreeMap::new();
        let nodes = fleet.nodes().len();
        let whom = fault.map_or("", Trouble::whom);
        if let Some(fault) = fault {
            self.strike(fault, fleet)?;
        }
        let others = fleet.nodes().iter().filter(|node| node.name() != whom).count();
        while all.keys().filter(|name| *name != whom).count() < others {
            self.next(ended, &mut all)?;
        }
        let slowest = all.values().filter(|one| one.name != whom).map(|one| one.at).max();
        for (_, one) in all.extract_if(.., |name, _| name != whom) {
            one.how?;
            self.is_right(&one.name)?;
        }
        let mut day = Day {
            slowest: slowest.unwrap_or_default().as_secs_f64(),
            struck: None,
            copies: self.origin.counters().body_bytes as f64 / self.bench.size as f64,
        };
        let Some(fault) = fault else { return Ok(day) };
        let over = begun.elapsed();
        fault.heal(self.testbed, fleet)?;
        if others < nodes {
            while all.is_empty() {
                self.next(ended, &mut all)?;
            }
            let done = self.see_through(fleet, whom, begun, all.remove(whom))?;
            day.struck = Some(done.saturating_sub(over).as_secs_f64());
        }
        Ok(day)
    }

    fn strike(&self, fault: &Trouble, fleet: &mut Fleet<'_>) -> Result<(), Failure> {
        let witness = fault.witness(self.testbed)?;
        let before = witness.traffic()?;
        let is_middle = || {
            let carried = witness.traffic().map(|now| now - before);
            carried.is_ok_and(|carried| Trouble::is_middle(carried, self.bench.size))
        };
        wait::until(&format!("a crowd is in the middle for {fault}"), is_middle)?;
        Ok(fault.strike(self.testbed, fleet)?)
    }

    fn next(
        &self,
        ended: &Receiver<Ended>,
        all: &mut BTreeMap<String, Ended>,
    ) -> Result<(), Failure> {
        let one = ended.recv_timeout(PATIENCE * 2);
        self.bench.interrupt.check()?;
        let one = one.map_err(|_| Failure::Other("a node did not come to an end".to_owned()))?;
        all.insert(one.name.clone(), one);
        Ok(())
    }

    /// Has who was struck take it again where that broke its command off; when it had it.
    fn see_through(
        &self,
        fleet: &mut Fleet<'_>,
        whom: &str,
        begun: Instant,
        ended: Option<Ended>,
    ) -> Result<Duration, Failure> {
        let broken = ended.as_ref().is_none_or(|ended| ended.how.is_err());
        if broken {
            let (mut command, _mount) = self.command(fleet, whom)?;
            run(&mut command)?;
        }
        self.is_right(whom)?;
        Ok(ended.filter(|_| !broken).map_or_else(|| begun.elapsed(), |ended| ended.at))
    }

    fn is_right(&self, name: &str) -> Result<(), Failure> {
        let out = self.out(name);
        let got = std::fs::read(&out).map_err(crate::run::failed(&out))?;
        let wanted = self.body.read(0, self.bench.size).map_err(crate::run::failed(&out))?;
        if got == wanted {
            return Ok(());
        }
        Err(Failure::Other(format!("{name} has wrong bytes")))
    }
}

/// Takes the file on its machine, and tells of its end.
fn take(machine: &Machine, mut command: Command, begun: Instant, ended: &Sender<Ended>) {
    let name = machine.name().to_owned();
    let entered = machine.enter().map_err(Failure::from);
    let how = entered.and_then(|()| measure::wall(&mut command).map(drop));
    // Whoever waited may have given up.
    let _ = ended.send(Ended { name, at: begun.elapsed(), how });
}

impl Day {
    fn text(&self, what: &str) -> String {
        let struck = self.struck.map(|after| format!("  the struck one {after:.2} s after it"));
        format!(
            "{what:<18} slowest {:.2} s  copies {:.3}{}",
            self.slowest,
            self.copies,
            struck.unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_told_against_a_good_one() {
        let day = |slowest| Day { slowest, struck: Some(1.0), copies: 1.0 };
        let rows = rows_of("kill:node1", &[day(6.0), day(8.0), day(40.0)], 2.0);
        assert_eq!((rows[0].value, rows[0].goal), (8.0, Some(Goal::AtMost(9.0))));
        assert_eq!((rows[1].row.as_str(), rows[1].value), ("storm.kill:node1.ratio", 4.0));
        assert_eq!(rows[3].row, "storm.kill:node1.struck");
        let seed = rows_of("kill:seed1", &[Day { struck: None, ..day(1.0) }], 2.0);
        assert_eq!(seed.len(), 3);
    }
}
