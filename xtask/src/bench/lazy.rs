//! Nodes that mount one file and read here and there in it, each place once: how long a read takes, and how often the
//! file leaves the origin. On a good day, with a neighbour that hangs, and with one whose uplink carries a hundredth.
//!
//! The first node has the whole file and reads nothing: it is whom the others ask. It hangs, or is slow, from when each of
//! them has made a tenth of its reads. Some places are read by many, most by few (Zipf).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use dfs_model::Rate;
use dfs_tests::testbed::{Fleet, Layout, Machine, Role};
use dfs_tests::{Body, Mount, Origin, Testbed};
use rustix::fs::{Advice, fadvise};

use super::Bench;
use super::row::{Row, median, quantile};
use crate::prepare;
use crate::run::{Failure, failed, run};
use crate::units::parse_size;

/// What is read, at the origin.
const FILE: &str = "/file";

/// Bytes of one read.
const READ: u64 = 128 << 10;

/// How many read what, and how often.
#[derive(clap::Args)]
pub struct Args {
    /// How many nodes, the one that has the file among them
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(3..))]
    nodes: u16,
    /// What each machine's link carries, each way, as in 100Mbit
    #[arg(long, value_name = "RATE", default_value = "100Mbit")]
    link: Rate,
    /// Bytes in the file, as in 64MiB
    #[arg(long, default_value = "64MiB", value_parser = parse_size)]
    pub size: u64,
    /// Reads of 128 KiB that each node makes
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(20..))]
    reads: u64,
}

/// What becomes of the neighbour that has the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Neighbour {
    Works,
    Hangs,
    Slow,
}

impl Neighbour {
    const ALL: [Self; 3] = [Self::Works, Self::Hangs, Self::Slow];

    fn name(self) -> &'static str {
        match self {
            Self::Works => "lazy.undisturbed",
            Self::Hangs => "lazy.hangs",
            Self::Slow => "lazy.slow",
        }
    }
}

/// What was seen of one day.
struct Day {
    /// How long each read took, in milliseconds, the quickest first.
    reads: Vec<f64>,
    /// Times that the file left the origin.
    copies: f64,
    /// Requests that a second neighbour was asked for too.
    hedges: f64,
}

/// Measures it.
pub fn measure(bench: &Bench, args: &Args) -> Result<Vec<Row>, Failure> {
    if !prepare::is_root() {
        return Err(Failure::Other("a testbed is made of namespaces: run it as root".into()));
    }
    if args.reads > bench.size / READ {
        return Err(Failure::Other(format!("the file has fewer than {} places", args.reads)));
    }
    let testbed = Testbed::build(&Layout::flat(args.nodes.into(), args.link))?;
    let reaper = testbed.reaper();
    bench.interrupt.on_signal(move || reaper.reap());
    let origin = testbed.start_origin(0)?;
    origin.put(FILE, Body::noise(1, bench.size));
    let mut days = Neighbour::ALL.map(|_| Vec::new());
    for number in 1..=bench.runs {
        for (neighbour, days) in Neighbour::ALL.into_iter().zip(&mut days) {
            bench.interrupt.check()?;
            let day = day(bench, args, &testbed, &origin, neighbour)?;
            bench.says(&format!("{number}/{} {}", bench.runs, day.text(neighbour)));
            days.push(day);
        }
    }
    let rows = Neighbour::ALL.iter().zip(&days);
    Ok(rows.flat_map(|(neighbour, days)| rows_of(*neighbour, days)).collect())
}

fn rows_of(neighbour: Neighbour, days: &[Day]) -> Vec<Row> {
    let row = |figure: &str, unit, of: &dyn Fn(&Day) -> f64| Row {
        row: format!("{}.{figure}", neighbour.name()),
        subject: "dfs",
        value: median(&days.iter().map(of).collect::<Vec<_>>()),
        unit,
        goal: None,
        runs: days.len(),
    };
    vec![
        row("p50", "ms", &|day| day.quantile(0.5)),
        row("p99", "ms", &|day| day.quantile(0.99)),
        row("max", "ms", &|day| day.quantile(1.0)),
        row("copies", "copies", &|day| day.copies),
        row("hedges", "requests", &|day| day.hedges),
    ]
}

impl Day {
    fn quantile(&self, share: f64) -> f64 {
        quantile(&self.reads, share)
    }

    fn text(&self, neighbour: Neighbour) -> String {
        format!(
            "{:<16} p50 {:.1} ms  p99 {:.1} ms  max {:.0} ms  copies {:.3}  hedges {}",
            neighbour.name(),
            self.quantile(0.5),
            self.quantile(0.99),
            self.quantile(1.0),
            self.copies,
            self.hedges,
        )
    }
}

/// One day with everything started afresh.
fn day(
    bench: &Bench,
    args: &Args,
    testbed: &Testbed,
    origin: &Origin,
    neighbour: Neighbour,
) -> Result<Day, Failure> {
    let mut fleet = Fleet::start(testbed, &bench.binaries, &bench.fresh_dir("fleet")?)?;
    origin.reset_counters();
    let url = origin.url(FILE);
    let machines: Vec<&Machine> = testbed.all(Role::Node).collect();
    let (first, struck) = (machines[0], machines[0].name().to_owned());
    let mut get = fleet.nodes()[0].dfctl_command()?;
    get.args(["-q", "get", "--force", &url, "-o"]).arg(bench.path("whole"));
    first.inside(|| Ok(run(&mut get)))??;
    let mut mounts: Vec<Mount> = Vec::new();
    let mut files = Vec::new();
    for (machine, node) in machines.iter().zip(fleet.nodes()).skip(1) {
        let dir = bench.fresh_dir(&format!("mount-{}", machine.name()))?;
        mounts.push(machine.inside(|| node.mount(&url, &dir))?);
        let file = dir.join(FILE.trim_start_matches('/'));
        let file = File::open(&file).map_err(failed(&file))?;
        fadvise(&file, 0, None, Advice::Random).map_err(|error| failed(&dir)(error.into()))?;
        files.push(file);
    }
    let reads = read_all(args, bench.size, &files, || match neighbour {
        Neighbour::Works => Ok(()),
        Neighbour::Hangs => Ok(fleet.freeze(&struck)?),
        Neighbour::Slow => Ok(testbed.slow_uplink(&struck, Rate((args.link.0 / 100).max(1)))?),
    });
    match neighbour {
        Neighbour::Works => {}
        Neighbour::Hangs => fleet.thaw(&struck)?,
        Neighbour::Slow => testbed.restore(&struck)?,
    }
    let asked = "dfs_node_hedges_total{outcome=\"asked\"}";
    // None is counted of programs that do not hedge.
    let hedges = fleet.nodes().iter().map(|node| node.process().metric(asked).unwrap_or(0.0)).sum();
    drop(files);
    drop(mounts);
    let copies = origin.counters().body_bytes as f64 / bench.size as f64;
    Ok(Day { reads: reads?, copies, hedges })
}

/// All read at once; after a tenth something happens.
fn read_all(
    args: &Args,
    size: u64,
    files: &[File],
    happens: impl FnOnce() -> Result<(), Failure>,
) -> Result<Vec<f64>, Failure> {
    let places = Places::new(size / READ);
    let early = args.reads / 10;
    let barrier = Barrier::new(files.len() + 1);
    let (times, happened) = thread::scope(|scope| {
        let readers: Vec<_> = files
            .iter()
            .zip(1..)
            .map(|(file, seed)| {
                let (places, barrier) = (&places, &barrier);
                scope.spawn(move || {
                    let places = places.draw(args.reads, seed);
                    let (before, after) = places.split_at(early as usize);
                    let mut times = read_each(file, before);
                    barrier.wait();
                    barrier.wait();
                    if let Ok(times) = &mut times {
                        times.extend(read_each(file, after)?);
                    }
                    times
                })
            })
            .collect();
        barrier.wait();
        let happened = happens();
        barrier.wait();
        let times = readers
            .into_iter()
            .map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (times.collect::<Result<Vec<_>, Failure>>(), happened)
    });
    happened?;
    let mut all: Vec<f64> = times?.concat();
    all.sort_by(f64::total_cmp);
    Ok(all)
}

fn read_each(file: &File, places: &[u64]) -> Result<Vec<f64>, Failure> {
    let mut bytes = vec![0; READ as usize];
    let timed = places.iter().map(|place| {
        let begun = Instant::now();
        let read = file.read_exact_at(&mut bytes, place * READ);
        read.map_err(|error| Failure::Other(format!("a read of place {place} failed: {error}")))?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    });
    timed.collect()
}

/// Places in a file: the n-th most popular is read 1/n times as often as the first.
pub struct Places {
    /// The sum of the weights up to each.
    sums: Vec<f64>,
}

impl Places {
    /// So many.
    pub fn new(count: u64) -> Self {
        let weights = (1..=count).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Self { sums: weights.collect() }
    }

    /// So many of them, none twice. The popular ones lie all over the file.
    pub fn draw(&self, count: u64, seed: u64) -> Vec<u64> {
        let all = self.sums.len() as u64;
        let (mut state, mut drawn) = (seed, Vec::new());
        let mut is_drawn = vec![false; self.sums.len()];
        let most = self.sums.last().copied().unwrap_or(0.0);
        while (drawn.len() as u64) < count.min(all) {
            let lot = unit(&mut state) * most;
            let rank = self.sums.partition_point(|sum| *sum < lot).min(self.sums.len() - 1);
            if !std::mem::replace(&mut is_drawn[rank], true) {
                drawn.push(scattered(rank as u64, all));
            }
        }
        drawn
    }
}

/// Another place for each, far from its neighbours.
fn scattered(rank: u64, all: u64) -> u64 {
    // No divisor but 1 in common: none is another's.
    let step = (all * 5 / 8 + 1..).find(|step| divisor(*step, all) == 1).unwrap_or(1);
    rank * step % all
}

/// The greatest that both have.
fn divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { divisor(other, one % other) }
}

/// A number from 0 to 1, the next of a row (`SplitMix64`).
fn unit(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((word ^ (word >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_drawn_once_and_all_over_the_file() {
        let places = Places::new(512);
        let mut drawn = places.draw(512, 7);
        let near = drawn.windows(2).filter(|two| two[0].abs_diff(two[1]) <= 1).count();
        assert!(near < 20, "{near} of them would be fetched ahead");
        drawn.sort_unstable();
        assert_eq!(drawn, (0..512).collect::<Vec<_>>());
    }

    #[test]
    fn readers_share_what_is_popular() {
        let places = Places::new(512);
        let [one, other] = [1, 2].map(|seed| places.draw(50, seed));
        let shared = one.iter().filter(|place| other.contains(place)).count();
        assert!(shared > 10, "{shared} of 50");
    }
}
