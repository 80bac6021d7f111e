//! P9 of an image, and P14: an ordinary image of an ordinary registry is started by a machine that has nothing of it, behind
//! a narrow link, and by a crowd of them at once.
//!
//! The clock runs from `dfctl mount`, of an agent that runs already, to the first byte of a file, and to the answers of two
//! programs that run in the image, one after another: alone, and as one of a cluster in which somebody has mounted the image
//! before, so that its index is known. It runs from the start of skopeo for a full pull that umoci unpacks, and from when
//! nydusd's names are asked for, and from stargz-snapshotter's pull, of images made beforehand. Each answer of the registry may have a long way. Bytes are what
//! the machine's link brought, against those in all files that the programs open; the ideal is one curl that gets these
//! files alone, as one tar packed by zstd.
//!
//! Before that, with no link on the way, it is seen how fast layers are read for their index.
//!
//! The crowd is one of a cluster with a seed that has nothing either; it is compared with one machine of the same cluster that
//! starts alone.

mod indexing;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use dfs_model::{Rate, parse_duration};
use dfs_tests::registry::Guard;
use dfs_tests::testbed::{Fleet, Layout, Machine, Role};
use dfs_tests::{Binaries, Body, Distance, Fault, Mount, Node, Origin, Registry, Testbed};

use super::row::{Goal, Row, median};
use super::subject::{mount_nydusd, nydus, stargz};
use super::{Bench, measure};
use crate::image::{FIRST, Image, NAME, PLAIN, PROGRAMS};
use crate::prepare;
use crate::run::{Failure, failed, run};

/// What the origin has beside the registry.
const TOUCHED: &str = "/touched.tar.zst";
const NAMES: &str = "/nydus-names";
/// What the registry has beside the image.
const CONVERTED: &str = "bench/debian:estargz";

/// A name in the root, by which a mount is seen to be there.
const KNOWN: &str = "usr";

/// How narrow, how far, and how many.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What each machine's link carries, each way, as in 100Mbit
    #[arg(long, value_name = "RATE", default_value = "100Mbit")]
    link: Rate,
    /// The round trip to the registry
    #[arg(long, value_delimiter = ',', default_value = "0ms,40ms", value_parser = parse_duration)]
    away: Vec<Duration>,
    /// Whom to compare with
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Other::Pull, Other::Nydusd, Other::Stargz])]
    vs: Vec<Other>,
    /// How many start at once, for P14; 0 leaves it out
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(..=64))]
    nodes: u16,
}

/// Who else starts an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Other {
    /// skopeo gets all of it, umoci unpacks it
    Pull,
    /// An image of its own format; left out where nydusd and nydus-image are not installed
    Nydusd,
    /// An image whose layers were converted to eStargz, by containerd and stargz-snapshotter; left out where these are not
    /// installed
    Stargz,
}

/// Who starts the image, knowing what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Case {
    /// An agent alone, of an image that nobody has mounted
    First,
    /// One of a cluster that has mounted it before
    Known,
    Pull,
    Nydusd,
    Stargz,
}

impl Case {
    fn of(other: Other) -> Self {
        match other {
            Other::Pull => Self::Pull,
            Other::Nydusd => Self::Nydusd,
            Other::Stargz => Self::Stargz,
        }
    }

    /// The rows that it is in, and its name there.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::First => ("P9.image", "dfs"),
            Self::Known => ("P9.image.known", "dfs"),
            Self::Pull => ("P9.image", "pull"),
            Self::Nydusd => ("P9.image", "nydusd"),
            Self::Stargz => ("P9.image", "stargz"),
        }
    }

    fn is_there(self) -> Result<(), Failure> {
        let missing = match self {
            Self::First | Self::Known | Self::Pull => None,
            Self::Nydusd => {
                let missing = nydus::PROGRAMS.iter().find(|one| !prepare::is_installed(one));
                missing.map(|one| (*one).to_owned())
            }
            Self::Stargz => stargz::missing(),
        };
        match missing {
            Some(missing) => Err(Failure::LeftOut(format!("{missing} is not there"))),
            None => Ok(()),
        }
    }
}

/// What all runs share.
struct Field<'a> {
    bench: &'a Bench,
    binaries: Binaries,
    testbed: &'a Testbed,
    origin: &'a Origin,
    registry: &'a Registry,
    way: Distance,
    image: &'a Image,
    stargz: Option<&'a stargz::Program>,
}

/// What was seen of one start, in seconds.
struct Start {
    mounted: f64,
    first: f64,
    /// Until each program had answered, one after another.
    answered: [f64; PROGRAMS.len()],
    /// Bytes that the machine's link brought.
    carried: f64,
}

/// What was seen of a crowd, or of one that starts alone.
struct Rush {
    /// Until the slowest was ready.
    ready: f64,
    /// Bytes that left the registry.
    bytes: f64,
    /// Blobs, or parts of blobs, that it was asked for.
    requests: f64,
}

/// Measures each distance, run by run, case by case.
pub fn measure(bench: &Bench, args: &Args) -> Result<Vec<Row>, Failure> {
    if !prepare::is_root() {
        return Err(Failure::Other("a testbed is made of namespaces: run it as root".into()));
    }
    prepare::packages(prepare::FOR_IMAGES)?;
    prepare::packages(prepare::FOR_DEBIAN_ROOT)?;
    let image = Image::make(&bench.path("image"))?;
    let (packed, files) = (image.packed, image.touched.len());
    let bytes = image.touched_bytes;
    bench.says(&format!("an image of {packed} bytes; {files} files with {bytes} are touched"));
    let testbed = Testbed::build(&Layout::flat(usize::from(args.nodes).max(2), args.link))?;
    let reaper = testbed.reaper();
    bench.interrupt.on_signal(move || reaper.reap());
    let (origin, far) = (testbed.start_origin(0)?, testbed.first(Role::Origin)?);
    let registry = far.inside(|| Registry::start(bench.work.path(), Guard::Nobody))?;
    far.inside(|| registry.push(&image.layout, NAME))?;
    let cases = cases(bench, &args.vs)?;
    serve(bench, &origin, &image, &cases)?;
    let stargz = converted(bench, &cases, far, &registry)?;
    let mut rows = indexing::rows(bench, &bench.binaries, &image)?;
    for away in &args.away {
        let at = (far.address(), 0).into();
        let to = registry.address().parse();
        let to = to.map_err(|_| Failure::Other("a registry without an address".to_owned()))?;
        let way = far.inside(|| Distance::start(at, to, *away))?;
        let binaries = bench.binaries.clone().with(PLAIN, &way.address().to_string());
        let (testbed, origin, registry, image) = (&testbed, &origin, &registry, &image);
        let stargz = stargz.as_ref();
        let field = Field { bench, binaries, testbed, origin, registry, way, image, stargz };
        let far = if away.is_zero() { String::new() } else { format!(".{away:?}") };
        let fault = field.origin.inject(Fault::late(*away));
        rows.extend(field.one_by_one(&cases, &far)?);
        if args.nodes > 0 {
            rows.extend(field.crowds(args.nodes.into(), &far)?);
        }
        fault.lift();
    }
    Ok(rows)
}

/// Ours, and those of the others who can be had here.
fn cases(bench: &Bench, others: &[Other]) -> Result<Vec<Case>, Failure> {
    let mut cases = vec![Case::First, Case::Known];
    for case in others.iter().map(|other| Case::of(*other)) {
        match case.is_there() {
            Ok(()) => cases.push(case),
            Err(Failure::LeftOut(why)) => {
                bench.says(&format!("{} is left out: {why}", case.names().1))
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(cases)
}

/// Has the origin serve what is not the registry's.
fn serve(bench: &Bench, origin: &Origin, image: &Image, cases: &[Case]) -> Result<(), Failure> {
    let touched = bench.path("touched");
    image.pack_touched(&touched)?;
    origin.put(TOUCHED, Body::File(touched));
    if cases.contains(&Case::Nydusd) {
        let made = nydus::Image::of(&image.root, bench.work.path(), nydus::Packing::Zstd)?;
        made.serve(origin)?;
        origin.put(NAMES, Body::File(made.bootstrap));
    }
    Ok(())
}

/// Has the registry have the image by another name as eStargz, where somebody wants it so; who shows it then.
fn converted(
    bench: &Bench,
    cases: &[Case],
    far: &Machine,
    registry: &Registry,
) -> Result<Option<stargz::Program>, Failure> {
    if !cases.contains(&Case::Stargz) {
        return Ok(None);
    }
    bench.says("the image is converted to eStargz, and stargz-snapshotter is built");
    let (work, address) = (bench.fresh_dir("convert")?, registry.address());
    let (image, into) = (format!("{address}/{NAME}"), format!("{address}/{CONVERTED}"));
    far.inside(|| Ok(stargz::convert(&work, &image, &into)))??;
    stargz::Program::make(&bench.fresh_dir("stargz")?).map(Some)
}

impl Field<'_> {
    fn url(&self) -> String {
        format!("oci://{}/{NAME}", self.way.address())
    }

    /// One machine at a time.
    fn one_by_one(&self, cases: &[Case], far: &str) -> Result<Vec<Row>, Failure> {
        let machine = self.testbed.first(Role::Node)?;
        let mut ideal = Vec::new();
        let mut starts: BTreeMap<Case, Vec<Start>> = BTreeMap::new();
        for number in 1..=self.bench.runs {
            ideal.push(self.ideal(machine)?);
            for case in cases {
                self.bench.interrupt.check()?;
                let start = self.start(machine, *case)?;
                let (group, name) = case.names();
                self.bench
                    .says(&format!("{number}/{}{far} {group} {name} {start}", self.bench.runs));
                starts.entry(*case).or_default().push(start);
            }
        }
        let (ideal, runs) = (median(&ideal), self.bench.runs);
        let row = format!("P9.image.ideal{far}");
        let mut rows =
            vec![Row { row, subject: "curl", value: ideal, unit: "s", goal: None, runs }];
        let bytes = self.image.touched_bytes as f64;
        for (case, starts) in &starts {
            rows.extend(rows_of(*case, starts, far, ideal, bytes));
        }
        Ok(rows)
    }

    /// Seconds of getting what is touched and nothing else.
    fn ideal(&self, machine: &Machine) -> Result<f64, Failure> {
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "--noproxy", "*", "-o", "/dev/null", &self.origin.url(TOUCHED)]);
        let took = machine.inside(|| Ok(measure::wall(&mut curl)))??;
        Ok(took.as_secs_f64())
    }

    /// One start with nothing there.
    fn start(&self, machine: &Machine, case: Case) -> Result<Start, Failure> {
        let work = self.bench.fresh_dir("start")?;
        let dir = work.join("root");
        match case {
            Case::First => {
                let agent = machine.inside(|| Node::start(&self.binaries, &work, "agent", None))?;
                let mount = || Ok(agent.mount(&self.url(), &dir)?);
                Ok(self.timed(machine, &dir, mount)?.0)
            }
            Case::Known => {
                let fleet = Fleet::start(self.testbed, &self.binaries, &work)?;
                let (first, other) = (&fleet.nodes()[0], &fleet.nodes()[1]);
                let known = self.testbed.machine(other.name())?;
                let _known = known.inside(|| other.mount(&self.url(), &work.join("known")))?;
                let mount = || Ok(first.mount(&self.url(), &dir)?);
                Ok(self.timed(machine, &dir, mount)?.0)
            }
            Case::Pull => {
                let root = work.join("bundle/rootfs");
                Ok(self.timed(machine, &root, || self.pull(&work))?.0)
            }
            Case::Nydusd => {
                let mount = || {
                    let names = work.join("names");
                    let mut curl = Command::new("curl");
                    curl.args(["-sSf", "--noproxy", "*", &self.origin.url(NAMES), "-o"])
                        .arg(&names);
                    run(&mut curl)?;
                    fs::create_dir_all(work.join("mnt")).map_err(failed(&work))?;
                    mount_nydusd(self.bench, &names, self.origin, &work, KNOWN)
                };
                Ok(self.timed(machine, &work.join("mnt"), mount)?.0)
            }
            Case::Stargz => {
                let left_out = || Failure::LeftOut("there is no stargz-snapshotter".to_owned());
                let program = self.stargz.ok_or_else(left_out)?;
                let image = format!("{}/{CONVERTED}", self.way.address());
                let stargz = machine.inside(|| Ok(stargz::Stargz::start(program, &work)))??;
                let (start, ()) = self.timed(machine, &dir, || stargz.mount(&image, &dir))?;
                Ok(start)
            }
        }
    }

    /// Gets all of the image, and unpacks it.
    fn pull(&self, work: &Path) -> Result<(), Failure> {
        let layout = format!("{}:1", work.join("pulled").display());
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]);
        skopeo.arg(format!("docker://{}/{NAME}", self.way.address())).arg(format!("oci:{layout}"));
        run(&mut skopeo)?;
        let mut umoci = Command::new("umoci");
        run(umoci.args(["unpack", "--image", &layout]).arg(work.join("bundle")))
    }

    /// Makes `dir` the root of the image, and starts it; what was mounted is still there then.
    fn timed<M: Send>(
        &self,
        machine: &Machine,
        dir: &Path,
        mount: impl FnOnce() -> Result<M, Failure> + Send,
    ) -> Result<(Start, M), Failure> {
        let (before, begun) = (machine.traffic()?, Instant::now());
        let seconds = || begun.elapsed().as_secs_f64();
        let mount = machine.inside(|| Ok(mount()))??;
        let mounted = seconds();
        let path = dir.join(FIRST);
        let read = fs::read(&path).map_err(failed(&path))?;
        let first = seconds();
        let mut answered = [0.0; PROGRAMS.len()];
        for (program, answered) in PROGRAMS.iter().zip(&mut answered) {
            program.start(dir)?;
            *answered = seconds();
        }
        let carried = (machine.traffic()? - before).received as f64;
        let whole = self.image.root.join(FIRST);
        if fs::read(&whole).map_err(failed(&whole))? != read {
            return Err(Failure::Other(format!("wrong bytes in {}", path.display())));
        }
        Ok((Start { mounted, first, answered, carried }, mount))
    }

    /// All at once against one alone.
    fn crowds(&self, nodes: usize, far: &str) -> Result<Vec<Row>, Failure> {
        let (mut alone, mut together) = (Vec::new(), Vec::new());
        for number in 1..=self.bench.runs {
            for (count, seen) in [(1, &mut alone), (nodes, &mut together)] {
                self.bench.interrupt.check()?;
                let rush = self.rush(count)?;
                self.bench
                    .says(&format!("{number}/{}{far} P14 {count} nodes {rush}", self.bench.runs));
                seen.push(rush);
            }
        }
        Ok(crowd_rows(&alone, &together, far))
    }

    /// The first `count` nodes of a cluster start the image at once.
    fn rush(&self, count: usize) -> Result<Rush, Failure> {
        let work = self.bench.fresh_dir("rush")?;
        let fleet = Fleet::start(self.testbed, &self.binaries, &work)?;
        let machines: Vec<_> = self.testbed.all(Role::Node).collect();
        let (before, asked) = (self.way.sent_back(), self.requests());
        let line = Barrier::new(count);
        let crowd: Vec<_> = machines.into_iter().zip(fleet.nodes()).take(count).collect();
        let ended: Vec<_> = thread::scope(|scope| {
            let starting: Vec<_> = crowd
                .iter()
                .map(|(machine, node)| {
                    let (line, dir) = (&line, work.join(format!("root-{}", node.name())));
                    scope.spawn(move || self.ready(machine, node, &dir, line))
                })
                .collect();
            let ended = starting
                .into_iter()
                .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            ended.collect()
        });
        let ended = ended.into_iter().collect::<Result<Vec<_>, _>>()?;
        let ready = ended.iter().map(|(took, _)| *took).fold(0.0, f64::max);
        let bytes = (self.way.sent_back() - before) as f64;
        let requests = (self.requests() - asked) as f64;
        Ok(Rush { ready, bytes, requests })
    }

    /// Blobs that the registry was asked for so far.
    fn requests(&self) -> usize {
        self.registry.requests("GET", "/blobs/")
    }

    /// Seconds until a node has mounted the image, and its programs have answered.
    fn ready(
        &self,
        machine: &Machine,
        node: &Node,
        dir: &Path,
        line: &Barrier,
    ) -> Result<(f64, Mount), Failure> {
        fs::create_dir_all(dir).map_err(failed(dir))?;
        let mount = Mount::guard(dir);
        let dfctl = node.dfctl_command();
        line.wait();
        let begun = Instant::now();
        let mut dfctl = dfctl?;
        dfctl.args(["-q", "mount", &self.url()]).arg(dir);
        machine.inside(|| Ok(run(&mut dfctl)))??;
        let script: Vec<_> = PROGRAMS.iter().map(|program| program.in_shell()).collect();
        let mut shell = Command::new("sh");
        shell.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        shell.args(["-ec", &script.join("\n"), "start"]).arg(dir);
        run(&mut shell)?;
        Ok((begun.elapsed().as_secs_f64(), mount))
    }
}

/// What was seen of a case, against the least time and the bytes that are touched.
fn rows_of(case: Case, starts: &[Start], far: &str, ideal: f64, bytes: f64) -> Vec<Row> {
    let of =
        |figure: &dyn Fn(&Start) -> f64| median(&starts.iter().map(figure).collect::<Vec<_>>());
    let (group, subject) = case.names();
    let is_ours = matches!(case, Case::First | Case::Known);
    let row = |figure: &str, value, unit, most: Option<f64>| {
        let goal = most.filter(|_| is_ours).map(Goal::AtMost);
        let row = format!("{group}.{figure}{far}");
        Row { row, subject, value, unit, goal, runs: starts.len() }
    };
    let last = of(&|one| one.answered[PROGRAMS.len() - 1]);
    // Who has nothing of the image has to read each layer once: only what is known can be lazy.
    let (time, moved) = if case == Case::Known { (Some(2.5), Some(0.9)) } else { (None, None) };
    let mut rows = vec![
        row("mount", of(&|one| one.mounted), "s to mounted", None),
        row("first", of(&|one| one.first), "s to the first file", None),
    ];
    rows.extend(PROGRAMS.iter().enumerate().map(|(number, program)| {
        row(program.name, of(&|one| one.answered[number]), "s to its answer", None)
    }));
    rows.push(row("time", last / ideal, "× ideal", time));
    rows.push(row("bytes", of(&|one| one.carried) / bytes, "× bytes touched", moved));
    rows
}

/// A crowd against one alone.
fn crowd_rows(alone: &[Rush], together: &[Rush], far: &str) -> Vec<Row> {
    let of = |seen: &[Rush], figure: fn(&Rush) -> f64| {
        median(&seen.iter().map(figure).collect::<Vec<_>>())
    };
    let row = |figure: &str, value, unit, goal: Option<f64>| {
        let (row, goal) = (format!("P14.{figure}{far}"), goal.map(Goal::AtMost));
        Row { row, subject: "dfs", value, unit, goal, runs: together.len() }
    };
    let ready = of(alone, |one| one.ready);
    vec![
        row("alone", ready, "s to ready", None),
        row("time", of(together, |all| all.ready) / ready, "× one alone", Some(2.0)),
        row(
            "copies",
            of(together, |all| all.bytes) / of(alone, |one| one.bytes),
            "copies",
            Some(1.02),
        ),
        row("requests", of(together, |all| all.requests), "requests for blobs", None),
    ]
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mounted, first, answered, carried } = self;
        write!(f, "mounted {mounted:.2} s  first {first:.2} s")?;
        for (program, answered) in PROGRAMS.iter().zip(answered) {
            write!(f, "  {} {answered:.2} s", program.name)?;
        }
        write!(f, "  {:.2} MB", carried / 1e6)
    }
}

impl fmt::Display for Rush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ready, bytes, requests } = self;
        write!(f, "ready {ready:.2} s  {:.2} MB in {requests} requests", bytes / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_held_against_a_goal() {
        let starts = [Start { mounted: 0.5, first: 0.6, answered: [1.0, 2.0], carried: 3e6 }];
        let of = |case| rows_of(case, &starts, ".40ms", 0.5, 4e6);
        let known = of(Case::Known);
        let time = known.iter().find(|row| row.row == "P9.image.known.time.40ms").unwrap();
        assert_eq!((time.value, time.goal), (4.0, Some(Goal::AtMost(2.5))));
        let pulled = of(Case::Pull);
        assert!(pulled.iter().all(|row| row.subject == "pull" && row.goal.is_none()));
        assert_eq!(pulled[2].row, "P9.image.python.40ms");
    }

    #[test]
    fn a_crowd_is_told_against_one_alone() {
        let rush = |ready, bytes| Rush { ready, bytes, requests: 3.0 };
        let rows = crowd_rows(&[rush(2.0, 100.0)], &[rush(3.0, 101.0)], "");
        assert_eq!((rows[1].value, rows[2].value), (1.5, 1.01));
        assert_eq!(rows[2].goal, Some(Goal::AtMost(1.02)));
    }
}
