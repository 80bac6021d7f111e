//! P9: a cold start. Some files of a real root file system are read one after another by a machine that has nothing of it,
//! behind a narrow link: how long that takes, and what the link carries.
//!
//! The origin has the root as an uncompressed tar and as a tree of files; rclone reads the tree, dfs one and the other,
//! and the tar as one of a cluster in which somebody has mounted it before, without and with a profile of what they read;
//! nydusd reads an image made beforehand. The
//! clock runs from `dfctl mount`, of an agent that runs already, from the start of rclone, or from when nydusd's names are
//! asked for, to the last byte of the last file. What it is compared with is one
//! curl, over the same link in the same run, that gets those files alone, as one tar packed by zstd. Every answer of the
//! origin may be late, as that of a distant one is. Everything that was read is compared with the root.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use dfs_model::{Rate, parse_duration};
use dfs_tests::testbed::{Fleet, Layout, Machine, Role};
use dfs_tests::wait::{self, PATIENCE};
use dfs_tests::{Body, Fault, Node, Origin, Testbed};

use super::Bench;
use super::measure;
use super::row::{Goal, Row, median};
use super::subject::{
    Agent, Lane, Mounted, Peer, Subject, Whom, is_in_lane, listed, mount_dfs, mount_nydusd,
    mount_rclone, nydus,
};
use crate::prepare;
use crate::run::{Failure, failed, run};

/// How many files are read, and how many bytes at most.
const FILES: usize = 121;
const BYTES: u64 = 5_300_000;

/// What the origin has.
const TREE: &str = "/tree/";
const ARCHIVE: &str = "/tree.tar";
const TOUCHED: &str = "/touched.tar.zst";
const NAMES: &str = "/nydus-names";

/// A name in the root.
const KNOWN: &str = "usr";

/// How narrow and how far.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    // Of whom it is compared with, those who read from an origin.
    #[command(flatten)]
    whom: Whom,
    /// What each machine's link carries, each way, as in 100Mbit
    #[arg(long, value_name = "RATE", default_value = "100Mbit")]
    link: Rate,
    /// What dfs mounts
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Source::Tar, Source::Tree, Source::Cluster, Source::Profile])]
    from: Vec<Source>,
    /// How late every answer of the origin is
    #[arg(long, value_delimiter = ',', default_value = "0ms,40ms", value_parser = parse_duration)]
    first_byte: Vec<Duration>,
    /// Files and their order are drawn from this: usually 3 to 5 MB of Debian 13
    #[arg(long, default_value_t = 34)]
    seed: u64,
}

/// A file that is read, and what is in it.
struct Touched {
    path: PathBuf,
    content: Vec<u8>,
}

/// What dfs mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    /// The tar, by an agent on its own
    Tar,
    /// The tree of files, by an agent on its own
    Tree,
    /// The tar, by one of a cluster that knows it already
    Cluster,
    /// The same with a profile of somebody who has read the same files
    Profile,
}

/// Who starts, from what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Ours(Lane, Source),
    Theirs(Peer),
}

impl Case {
    /// All that these subjects do.
    fn all(subjects: &[Subject], sources: &[Source]) -> Vec<Self> {
        let each = subjects.iter().flat_map(|subject| match subject {
            Subject::Dfs(lane) => sources.iter().map(|source| Self::Ours(*lane, *source)).collect(),
            Subject::Peer(peer) => vec![Self::Theirs(*peer)],
        });
        each.collect()
    }

    /// The rows that it is in.
    fn group(self) -> &'static str {
        match self {
            Self::Ours(_, Source::Tar) | Self::Theirs(_) => "P9",
            Self::Ours(_, Source::Tree) => "P9.tree",
            Self::Ours(_, Source::Cluster) => "P9.cluster",
            Self::Ours(_, Source::Profile) => "P9.profile",
        }
    }

    fn name(self) -> &'static str {
        Subject::from(self).name()
    }
}

impl From<Case> for Subject {
    fn from(case: Case) -> Self {
        match case {
            Case::Ours(lane, _) => Self::Dfs(lane),
            Case::Theirs(peer) => Self::Peer(peer),
        }
    }
}

/// What all runs share.
struct Field<'a> {
    bench: &'a Bench,
    testbed: &'a Testbed,
    machine: &'a Machine,
    origin: &'a Origin,
    touched: &'a [Touched],
}

/// What was seen of one start.
struct Start {
    /// Until it was mounted.
    mounted: f64,
    /// Until the last byte.
    whole: f64,
    /// Bytes that the machine's link brought.
    carried: f64,
}

/// Measures each distance, run by run, subject by subject.
pub fn measure(bench: &Bench, args: &Args) -> Result<Vec<Row>, Failure> {
    if !prepare::is_root() {
        return Err(Failure::Other("a testbed is made of namespaces: run it as root".into()));
    }
    prepare::packages(prepare::FOR_COLD)?;
    prepare::packages(prepare::FOR_DEBIAN_ROOT)?;
    let subjects = args.whom.subjects(bench, reads_from_afar)?;
    let root = prepare::erofs_oracle()?;
    let touched = draw(&root, args.seed)?;
    let testbed = Testbed::build(&Layout::flat(3, args.link))?;
    let reaper = testbed.reaper();
    bench.interrupt.on_signal(move || reaper.reap());
    let (origin, machine) = (testbed.start_origin(0)?, testbed.first(Role::Node)?);
    serve(bench, &origin, &root, &touched)?;
    if subjects.contains(&Subject::Peer(Peer::Nydusd)) {
        let image = nydus::Image::of(&root, bench.work.path(), nydus::Packing::Zstd)?;
        image.serve(&origin)?;
        origin.put(NAMES, Body::File(image.bootstrap));
    }
    let (testbed, origin, touched) = (&testbed, &origin, &*touched);
    let field = Field { bench, testbed, machine, origin, touched };
    let cases = Case::all(&subjects, &args.from);
    let bytes: usize = touched.iter().map(|file| file.content.len()).sum();
    bench.says(&format!("{} files with {bytes} bytes", touched.len()));
    let mut rows = Vec::new();
    for late in &args.first_byte {
        let fault = origin.inject(Fault::late(*late));
        rows.extend(field.measure(&cases, *late, bytes as f64)?);
        fault.lift();
    }
    Ok(rows)
}

/// Whether it shows a tree that an origin has.
fn reads_from_afar(subject: Subject) -> bool {
    subject.fetches() || subject == Subject::Peer(Peer::Nydusd)
}

/// Files of a root, in any order, none larger than what is left of all bytes.
fn draw(root: &Path, seed: u64) -> Result<Vec<Touched>, Failure> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    let lot = |place: usize| {
        let mut lot = [0; 8];
        dfs_tests::origin::fill(seed, place as u64 * 8, &mut lot);
        lot
    };
    let mut lots: Vec<_> = files.into_iter().enumerate().collect();
    lots.sort_by_key(|(place, _)| lot(*place));
    let (mut left, mut touched) = (BYTES, Vec::new());
    for (_, (path, length)) in lots {
        if length > left {
            continue;
        }
        let content = fs::read(&path).map_err(failed(&path))?;
        let inside = path.strip_prefix(root).unwrap_or(&path).to_owned();
        touched.push(Touched { path: inside, content });
        left -= length;
        if touched.len() == FILES {
            break;
        }
    }
    Ok(touched)
}

/// The files below `dir` in which something is, and how much.
fn collect(dir: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<(), Failure> {
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let path = entry.map_err(failed(dir))?.path();
        let status = path.symlink_metadata().map_err(failed(&path))?;
        if status.is_dir() {
            collect(&path, files)?;
        } else if status.is_file() && status.len() > 0 {
            files.push((path, status.len()));
        }
    }
    Ok(())
}

/// Puts the root and what will be read of it at the origin.
fn serve(bench: &Bench, origin: &Origin, root: &Path, touched: &[Touched]) -> Result<(), Failure> {
    bench.says("packing the root");
    let tar = |name: &str| {
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--numeric-owner", "-C"])
            .arg(root)
            .arg("-cf")
            .arg(bench.path(name));
        tar
    };
    run(tar("whole").arg("."))?;
    run(tar("touched").arg("--zstd").args(touched.iter().map(|file| &file.path)))?;
    origin.put(ARCHIVE, Body::File(bench.path("whole")));
    origin.put(TOUCHED, Body::File(bench.path("touched")));
    origin.show(TREE, root);
    Ok(())
}

impl Field<'_> {
    fn measure(&self, cases: &[Case], late: Duration, bytes: f64) -> Result<Vec<Row>, Failure> {
        let mut ideal = Vec::new();
        let mut all: Vec<(Case, Vec<Start>)> =
            cases.iter().map(|case| (*case, Vec::new())).collect();
        for number in 1..=self.bench.runs {
            ideal.push(self.ideal()?);
            Subject::each(self.bench, &mut all, |case, starts| {
                let start = self.start(case)?;
                let of = format!("{number}/{} {late:?} away", self.bench.runs);
                self.bench.says(&format!("{of} {} {} {start}", case.group(), case.name()));
                starts.push(start);
                Ok(())
            })?;
        }
        let far = if late.is_zero() { String::new() } else { format!(".{late:?}") };
        let (ideal, runs) = (median(&ideal), self.bench.runs);
        let row = format!("P9.ideal{far}");
        let mut rows =
            vec![Row { row, subject: "curl", value: ideal, unit: "s", goal: None, runs }];
        for (case, starts) in &all {
            rows.extend(rows_of(*case, starts, &far, ideal, bytes));
        }
        Ok(rows)
    }

    /// Seconds of getting what will be read and nothing else.
    fn ideal(&self) -> Result<f64, Failure> {
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "--noproxy", "*", "-o", "/dev/null", &self.origin.url(TOUCHED)]);
        let took = self.machine.inside(|| Ok(measure::wall(&mut curl)))??;
        Ok(took.as_secs_f64())
    }

    /// One start with nothing there.
    fn start(&self, case: Case) -> Result<Start, Failure> {
        let work = self.bench.fresh_dir("cold")?;
        let dir = work.join("mnt");
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        let (lane, source) = match case {
            Case::Ours(lane, source) => (lane, source),
            Case::Theirs(Peer::Nydusd) => return Ok(self.timed(&dir, || self.nydusd(&work))?.0),
            Case::Theirs(_) => {
                let (url, cache) = (self.origin.url(TREE), work.join("cache"));
                let mount = || mount_rclone(self.bench, &url, &cache, &dir, KNOWN);
                return Ok(self.timed(&dir, mount)?.0);
            }
        };
        let url = self.origin.url(if source == Source::Tree { TREE } else { ARCHIVE });
        if let Source::Cluster | Source::Profile = source {
            let fleet = Fleet::start(self.testbed, &self.bench.binaries, &work)?;
            let (first, other) = (&fleet.nodes()[0], &fleet.nodes()[1]);
            let known = self.testbed.machine(other.name())?;
            let before = known.inside(|| other.mount(&url, &work.join("known")))?;
            if source == Source::Profile {
                self.read(before.dir())?;
                other.dfctl([OsStr::new("umount"), before.dir().as_os_str()])?.ok()?;
                self.is_told(&fleet.nodes()[2], &url, &work.join("told"))?;
            }
            drop(before);
            let mount = || mount_dfs(self.bench, first, lane, &url, &dir);
            let (start, _mount) = self.timed(&dir, mount)?;
            is_in_lane(first, lane, &dir)?;
            return Ok(start);
        }
        let agent = self.machine.inside(|| Ok(Agent::start(self.bench, &work, lane)))??;
        let (start, _mount) =
            self.timed(&dir, || mount_dfs(self.bench, &agent, lane, &url, &dir))?;
        is_in_lane(&agent, lane, &dir)?;
        Ok(start)
    }

    /// Has `node` mount it until the cluster tells it a profile.
    fn is_told(&self, node: &Node, url: &str, dir: &Path) -> Result<(), Failure> {
        let machine = self.testbed.machine(node.name())?;
        let told = || -> Result<bool, Failure> {
            let mounted = machine.inside(|| node.mount(url, dir))?;
            let shown = listed(node, mounted.dir())?;
            node.dfctl([OsStr::new("umount"), dir.as_os_str()])?.ok()?;
            Ok(shown["prefetch"]["runs"] == 1)
        };
        wait::find("the cluster tells a profile", PATIENCE, || match told() {
            Ok(false) => None,
            done => Some(done.map(drop)),
        })?
    }

    /// Gets the names, and mounts what they are of.
    fn nydusd(&self, work: &Path) -> Result<Mounted, Failure> {
        let names = work.join("names");
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "--noproxy", "*", &self.origin.url(NAMES), "-o"]).arg(&names);
        run(&mut curl)?;
        mount_nydusd(self.bench, &names, self.origin, work, KNOWN)
    }

    /// The content of each file, one after another.
    fn read(&self, dir: &Path) -> Result<Vec<Vec<u8>>, Failure> {
        let read = self.touched.iter().map(|file| {
            let path = dir.join(&file.path);
            fs::read(&path).map_err(failed(&path))
        });
        read.collect()
    }

    /// Mounts on `dir` and reads there; what was mounted is still there then.
    fn timed<M: Send>(
        &self,
        dir: &Path,
        mount: impl FnOnce() -> Result<M, Failure> + Send,
    ) -> Result<(Start, M), Failure> {
        let (before, begun) = (self.machine.traffic()?, Instant::now());
        let mount = self.machine.inside(|| Ok(mount()))??;
        let mounted = begun.elapsed().as_secs_f64();
        let read = self.read(dir)?;
        let whole = begun.elapsed().as_secs_f64();
        let carried = (self.machine.traffic()? - before).received as f64;
        match self.touched.iter().zip(read).find(|(file, content)| *content != file.content) {
            Some((file, _)) => {
                Err(Failure::Other(format!("wrong bytes in {}", dir.join(&file.path).display())))
            }
            None => Ok((Start { mounted, whole, carried }, mount)),
        }
    }
}

/// What was seen of a case, against the least time and the bytes that were read.
fn rows_of(case: Case, starts: &[Start], far: &str, ideal: f64, bytes: f64) -> Vec<Row> {
    let (most_time, most_bytes) = match case {
        Case::Ours(_, Source::Profile) => (1.3, 0.6),
        Case::Ours(..) | Case::Theirs(_) => (2.5, 0.9),
    };
    let of = |figure: fn(&Start) -> f64| median(&starts.iter().map(figure).collect::<Vec<_>>());
    let row = |figure: &str, value, unit, most: Option<f64>| {
        let (row, subject) = (format!("{}.{figure}{far}", case.group()), case.name());
        let goal = most.filter(|_| matches!(case, Case::Ours(..))).map(Goal::AtMost);
        Row { row, subject, value, unit, goal, runs: starts.len() }
    };
    vec![
        row("time", of(|one| one.whole) / ideal, "× ideal", Some(most_time)),
        row("bytes", of(|one| one.carried) / bytes, "× bytes read", Some(most_bytes)),
        row("mount", of(|one| one.mounted), "s to mounted", None),
    ]
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mounted, whole, carried } = self;
        write!(f, "mounted {mounted:.2} s  read {whole:.2} s  {:.2} MB", carried / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_told_against_the_least_and_only_ours_has_a_goal() {
        let starts = [Start { mounted: 0.5, whole: 2.0, carried: 3e6 }];
        let of = |case| rows_of(case, &starts, ".40ms", 0.5, 4e6);
        let ours = of(Case::Ours(Lane::Fuse, Source::Cluster));
        assert_eq!((ours[0].row.as_str(), ours[0].value), ("P9.cluster.time.40ms", 4.0));
        assert_eq!((ours[1].value, ours[1].goal), (0.75, Some(Goal::AtMost(0.9))));
        let theirs = of(Case::Theirs(Peer::Rclone));
        assert_eq!((theirs[0].row.as_str(), theirs[0].goal), ("P9.time.40ms", None));
    }

    #[test]
    fn files_are_drawn_once_and_all_over_the_root() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..200_u64 {
            let dir = root.path().join(format!("d{}", number / 10));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(number.to_string()), vec![1; number as usize % 7]).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("link")).unwrap();
        let drawn = |seed| {
            let touched = draw(root.path(), seed).unwrap();
            touched.into_iter().map(|file| file.path).collect::<Vec<_>>()
        };
        let first = drawn(1);
        assert_eq!(first, drawn(1));
        assert_ne!(first, drawn(2));
        let mut sorted = first.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!((sorted.len(), sorted == first), (FILES, false));
    }
}
