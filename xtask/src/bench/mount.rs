//! P7 and P8: a file, names and small files through mounts: ours by lane, others, and the tree itself.
//!
//! *hot*: in the caches of the mount. *path*: everything in the store (of rclone: in its cache; of the others: in the page
//! cache of their image), and dropped from the caches of the mount: pages by `POSIX_FADV_DONTNEED` on each file, names by
//! writing 2 to `/proc/sys/vm/drop_caches`, which takes root, drops what the kernel knows of names and files without pages
//! on the whole machine, and no page of a store. *cold*: store or cache empty, origin on this machine.
//!
//! All are mounted at once and come in turn, load by load, run by run.

use std::fs::{self, File};
use std::path::Path;

use clap::ValueEnum;
use rustix::fs::{Advice, fadvise};

mod cold;
mod demand;
mod names;
mod takeover;

use self::names::Walk;
use super::fio::{LOADS, Load};
use super::measure;
use super::row::{Goal, Row, median};
use super::server::{Scheme, Server};
use super::subject::{Lane, Mounted, Peer, Subject, Tree, Whom};
use super::{Bench, write_noise};
use crate::prepare;
use crate::run::{Failure, failed};

/// The file whose content is read.
const FILE: &str = "file";

/// A part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// P7: content of a file, hot and from a full store
    Content,
    /// P8: names and small files
    Names,
    /// P7: content of a file through an empty mount, made up on the way: it takes no place but in stores
    Cold,
    /// P7: small reads of what is not here, alone and beside a reader of another file, which is made up on the way too
    Demand,
    /// P7: reads of what is here while the agent is killed and the next one is started
    Takeover,
}

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    whom: Whom,
    /// Only this part; may be given several times
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
}

impl Args {
    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Figures of one subject: what was measured, and of each run the value.
#[derive(Default)]
struct Figures(Vec<(String, Vec<f64>)>);

impl Figures {
    fn add(&mut self, what: String, value: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == what) {
            Some((_, values)) => values.push(value),
            None => self.0.push((what, vec![value])),
        }
    }

    fn median(&self, what: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == what).map(|(_, values)| median(values))
    }
}

/// A subject, and what was seen of it.
type Seen = (Subject, Figures);

/// One at work.
struct Measured {
    subject: Subject,
    mounted: Mounted,
    figures: Figures,
}

/// Measures it.
pub fn measure(bench: &Bench, args: &Args) -> Result<Vec<Row>, Failure> {
    let mut subjects = args.whom.subjects(bench, |_| true)?;
    let mut rows = Vec::new();
    if args.has(Part::Content) || args.has(Part::Names) {
        // What others are shares of is in memory: a disk's file system has larger pages than a mount.
        let memory = bench.memory_dir()?;
        let root = memory.path().to_owned();
        bench.says("making the tree");
        if args.has(Part::Content) {
            write_noise(&root.join(FILE), bench.size)?;
        }
        if args.has(Part::Names) {
            names::make(&root)?;
        }
        let server = Server::start(&root, &bench.fresh_dir("nginx")?, &bench.interrupt)?;
        let known = if args.has(Part::Content) { FILE } else { names::FILES };
        let images = bench.fresh_dir("images")?;
        let tree = Tree { root, url: server.url(Scheme::Http, ""), known, images };
        // Also fills stores and caches.
        let mut all = mount_all(bench, &subjects, &tree)?;
        warm(bench, args, &mut all)?;
        let all: Vec<Seen> = all.into_iter().map(|one| (one.subject, one.figures)).collect();
        rows.extend(content_rows(bench.runs, &all));
        rows.extend(names::rows(bench.runs, &all));
    }
    subjects.retain(|subject| subject.fetches());
    if args.has(Part::Cold) {
        rows.extend(cold::measure(bench, &subjects)?);
    }
    if args.has(Part::Demand) {
        rows.extend(demand::measure(bench, &subjects)?);
    }
    if args.has(Part::Takeover) {
        rows.extend(takeover::measure(bench, &subjects)?);
    }
    Ok(rows)
}

fn mount_all(bench: &Bench, subjects: &[Subject], tree: &Tree) -> Result<Vec<Measured>, Failure> {
    let mut all = Vec::new();
    for subject in subjects {
        bench.interrupt.check()?;
        bench.says(&format!("mounting {}", subject.name()));
        let work = bench.fresh_dir(subject.name())?;
        let mounted = subject.mount_whole(bench, tree, &work);
        let Some(mounted) = subject.unless_left_out(bench, mounted)? else { continue };
        all.push(Measured { subject: *subject, mounted, figures: Figures::default() });
    }
    Ok(all)
}

/// Hot and path, run by run, load by load, subject by subject.
fn warm(bench: &Bench, args: &Args, all: &mut [Measured]) -> Result<(), Failure> {
    for round in 1..=bench.runs {
        if args.has(Part::Content) {
            for load in LOADS {
                bench.says(&format!("{} {round}/{}", load.name(), bench.runs));
                for one in all.iter_mut() {
                    bench.interrupt.check()?;
                    read(one, load, bench.size)?;
                }
            }
        }
        if args.has(Part::Names) {
            for walk in Walk::ALL {
                bench.says(&format!("{} {round}/{}", walk.name(), bench.runs));
                for one in all.iter_mut() {
                    bench.interrupt.check()?;
                    names::walk(one, walk)?;
                }
            }
        }
    }
    for one in all.iter_mut() {
        let Some(pid) = one.mounted.pid else { continue };
        for (figure, bytes) in [("rss", measure::peak_rss(pid)), ("own", measure::own_memory(pid))]
        {
            let Some(bytes) = bytes else { continue };
            one.figures.add(figure.to_owned(), bytes as f64 / f64::from(1 << 20));
        }
    }
    Ok(())
}

/// One load, hot and then from what is kept.
fn read(one: &mut Measured, load: Load, size: u64) -> Result<(), Failure> {
    let (file, figures) = (one.mounted.dir.join(FILE), &mut one.figures);
    // Everything into the page cache, also what an earlier load dropped.
    Load::Sequential.run(&file)?;
    figures.add(format!("hot.{}", load.name()), load.run(&file)?);
    if one.subject == Subject::Peer(Peer::Native) {
        return Ok(());
    }
    // The host of a virtual machine takes back what is free for a while (free page reporting), and who fills the page cache
    // then waits for each page: it is given them again first.
    drop_pages(&file)?;
    Load::Sequential.run(&file)?;
    drop_pages(&file)?;
    let cpu = || one.mounted.pid.and_then(measure::cpu);
    let before = cpu();
    figures.add(format!("path.{}", load.name()), load.run(&file)?);
    if let (Load::Sequential, Some(before), Some(after)) = (load, before, cpu()) {
        let gib = size as f64 / f64::from(1 << 30);
        figures.add("cpu".to_owned(), after.saturating_sub(before).as_secs_f64() / gib);
    }
    Ok(())
}

/// What a row of ours is to be, and against whom.
struct Wanted {
    hot: f64,
    rival: Option<f64>,
    unit: &'static str,
}

/// The kernel's lane is against the kernel, the others are against who answers as they do.
fn wanted(all: &[Seen], lane: Lane, path: &str) -> Wanted {
    let of = |is_rival: fn(Subject) -> bool| {
        let rivals = all.iter().filter(|(subject, _)| is_rival(*subject));
        rivals.filter_map(|(_, figures)| figures.median(path)).max_by(f64::total_cmp)
    };
    match lane {
        Lane::Kernel => {
            let rival = of(|subject| subject == Subject::Peer(Peer::Erofs));
            Wanted { hot: 0.95, rival, unit: "× kernel EROFS" }
        }
        Lane::Fuse | Lane::Passthrough => {
            Wanted { hot: 1.0, rival: of(Subject::is_fuse_peer), unit: "× best FUSE peer" }
        }
    }
}

fn path_goal(lane: Lane, load: Load) -> Option<Goal> {
    match (lane, load) {
        (Lane::Kernel, _) => Some(Goal::AtLeast(0.95)),
        (_, Load::Sequential) => Some(Goal::AtLeast(1.3)),
        (_, Load::Random { kib: 4, jobs: 1 }) => Some(Goal::AtLeast(3.0)),
        (_, Load::Random { .. } | Load::Mapped { .. }) => None,
    }
}

fn content_rows(runs: usize, all: &[Seen]) -> Vec<Row> {
    let mut rows = Vec::new();
    for load in LOADS {
        rows.extend(load_rows(runs, all, load));
    }
    for (subject, figures) in all {
        let is_fuse = *subject == Subject::Dfs(Lane::Fuse);
        // The most that was resident, its program and libraries included; and of what is at the end, what no file has.
        let told = [
            ("cpu", "cpu", "s/GiB", Some(0.35)),
            ("rss", "rss", "MiB", Some(24.0)),
            ("own", "rss.own", "MiB", None),
        ];
        for (figure, row, unit, most) in told {
            let Some(value) = figures.median(figure) else { continue };
            let goal = most.filter(|_| is_fuse).map(Goal::AtMost);
            let row = format!("P7.{row}");
            rows.push(Row { row, subject: subject.name(), value, unit, goal, runs });
        }
    }
    rows
}

fn load_rows(runs: usize, all: &[Seen], load: Load) -> Vec<Row> {
    let (hot, path) = (format!("hot.{}", load.name()), format!("path.{}", load.name()));
    let [(native, figures), others @ ..] = all else { return Vec::new() };
    let Some(base) = figures.median(&hot) else { return Vec::new() };
    let row = |row: String, subject: Subject, value, unit, goal| {
        let subject = subject.name();
        Row { row, subject, value, unit, goal, runs }
    };
    let mut rows = vec![row(format!("P7.{hot}"), *native, base / 1e6, "MB/s", None)];
    for (subject, figures) in others {
        let goal = match subject {
            Subject::Dfs(lane) => Some(Goal::AtLeast(wanted(all, *lane, &path).hot)),
            Subject::Peer(_) => None,
        };
        let value = figures.median(&hot).unwrap_or(f64::NAN) / base;
        rows.push(row(format!("P7.{hot}"), *subject, value, "× native", goal));
    }
    for (subject, figures) in others {
        let value = figures.median(&path).unwrap_or(f64::NAN);
        let share = format!("P7.{path}.share");
        rows.push(row(share, *subject, value / base, "× native hot", None));
        let Subject::Dfs(lane) = *subject else { continue };
        let Wanted { rival: Some(rival), unit, .. } = wanted(all, lane, &path) else { continue };
        let goal = path_goal(lane, load);
        rows.push(row(format!("P7.{path}"), *subject, value / rival, unit, goal));
    }
    rows
}

/// Drops a file's pages from the page cache of the mount; what serves it keeps its own.
fn drop_pages(path: &Path) -> Result<(), Failure> {
    let dropped = File::open(path).and_then(|file| Ok(fadvise(&file, 0, None, Advice::DontNeed)?));
    dropped.map_err(failed(path))
}

/// Drops what the kernel knows of names and of files that have no pages.
fn drop_names() -> Result<(), Failure> {
    let path = Path::new("/proc/sys/vm/drop_caches");
    fs::write(path, "2").map_err(failed(path))
}

/// Whether [`drop_names`] may be asked for.
fn may_drop_names() -> bool {
    prepare::is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(subject: Subject, hot: f64, path: f64) -> Seen {
        let mut figures = Figures::default();
        figures.add("hot.seq".to_owned(), hot);
        figures.add("path.seq".to_owned(), path);
        (subject, figures)
    }

    fn value(rows: &[Row], row: &str, subject: &str) -> Option<(f64, Option<Goal>)> {
        let found = rows.iter().find(|one| one.row == row && one.subject == subject)?;
        Some((found.value, found.goal))
    }

    #[test]
    fn a_lane_is_held_against_the_best_of_its_kind_in_the_run() {
        let mut all = vec![
            seen(Subject::Peer(Peer::Native), 10.0, 0.0),
            seen(Subject::Dfs(Lane::Fuse), 9.0, 6.0),
            seen(Subject::Dfs(Lane::Kernel), 9.5, 8.0),
            seen(Subject::Peer(Peer::Rclone), 1.0, 1.0),
            seen(Subject::Peer(Peer::Squashfuse), 8.0, 4.0),
        ];
        let rows = content_rows(1, &all);
        let goal = |least| Some(Goal::AtLeast(least));
        assert_eq!(value(&rows, "P7.hot.seq", "dfs"), Some((0.9, goal(1.0))));
        assert_eq!(value(&rows, "P7.hot.seq", "dfs-kernel"), Some((0.95, goal(0.95))));
        assert_eq!(value(&rows, "P7.path.seq", "dfs"), Some((1.5, goal(1.3))));
        assert_eq!(value(&rows, "P7.path.seq.share", "squashfuse"), Some((0.4, None)));
        // Nobody of its kind is there.
        assert_eq!(value(&rows, "P7.path.seq", "dfs-kernel"), None);
        all.push(seen(Subject::Peer(Peer::Erofs), 10.0, 16.0));
        let rows = content_rows(1, &all);
        assert_eq!(value(&rows, "P7.path.seq", "dfs-kernel"), Some((0.5, goal(0.95))));
        assert_eq!(value(&rows, "P7.path.seq", "dfs"), Some((1.5, goal(1.3))));
    }
}
