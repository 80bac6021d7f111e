//! P7, fuse lane: one file through a mount, against the same file itself and through rclone.
//!
//! *hot*: in the page cache of the mount. *path*: everything in the store (of rclone: in its
//! cache) and in the page cache of that, and dropped from the page cache of the mount by
//! `POSIX_FADV_DONTNEED`. *cold*: store or cache empty, origin on this machine.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dfs_tests::{Dfctl, Mount, Node, wait};
use rustix::fs::{Advice, fadvise};
use rustix::process::{Pid, Signal, kill_process_group};

use super::fio::{LOADS, Load};
use super::measure;
use super::row::{Goal, Row, median};
use super::server::{Scheme, Server};
use super::{Bench, write_noise};
use crate::run::{Failure, failed, run};

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

/// A mount of the file by somebody; gone when this is dropped.
struct Mounted {
    file: PathBuf,
    pid: u32,
    // Dropped in this order: the mount, then who serves it.
    _mount: Mount,
    _server: Serving,
}

/// Who serves a mount; held, never read.
enum Serving {
    Dfs { _node: Box<Node> },
    Rclone { _child: Rclone },
}

/// A running rclone; killed when this is dropped.
pub struct Rclone(Child);

impl Drop for Rclone {
    fn drop(&mut self) {
        kill(self.0.id());
        let _ = self.0.wait();
    }
}

/// Measures hot and path on mounts that stay, then cold ones.
pub fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let root = bench.fresh_dir("root")?;
    bench.says("making the file");
    let native = root.join("file");
    write_noise(&native, bench.size)?;
    let server = Server::start(&root, &bench.fresh_dir("nginx")?, &bench.interrupt)?;
    let mut of = [Figures::default(), Figures::default(), Figures::default()];
    {
        let dfs = mount_dfs(bench, &server, "warm")?;
        let rclone = mount_rclone(bench, &server, "warm")?;
        warm(bench, &native, &dfs, &rclone, &mut of)?;
    }
    cold(bench, &server, &mut of)?;
    Ok(rows(bench, &of))
}

/// Hot and path, run by run, load by load, subject by subject.
fn warm(
    bench: &Bench,
    native: &Path,
    dfs: &Mounted,
    rclone: &Mounted,
    of: &mut [Figures; 3],
) -> Result<(), Failure> {
    for mounted in [dfs, rclone] {
        run(Command::new("cmp").arg(native).arg(&mounted.file))?;
    }
    let subjects = [(native, None), (&*dfs.file, Some(dfs.pid)), (&*rclone.file, Some(rclone.pid))];
    for round in 1..=bench.runs {
        bench.says(&format!("hot and path {round}/{}", bench.runs));
        for load in LOADS {
            for ((file, pid), figures) in subjects.iter().zip(of.iter_mut()) {
                bench.interrupt.check()?;
                // Everything into the page cache, also what an earlier load dropped.
                Load::Sequential.run(file)?;
                figures.add(format!("hot.{}", load.name()), load.run(file)?);
                let Some(pid) = *pid else { continue };
                drop_cache(file)?;
                let before = measure::cpu(pid).unwrap_or_default();
                figures.add(format!("path.{}", load.name()), load.run(file)?);
                let used = measure::cpu(pid).unwrap_or_default().saturating_sub(before);
                if load == Load::Sequential {
                    let gib = bench.size as f64 / f64::from(1 << 30);
                    figures.add("cpu".to_owned(), used.as_secs_f64() / gib);
                }
            }
        }
    }
    for (mounted, figures) in [(dfs, 1), (rclone, 2)] {
        let rss = measure::peak_rss(mounted.pid).unwrap_or(0);
        of[figures].add("rss".to_owned(), rss as f64 / f64::from(1 << 20));
    }
    Ok(())
}

/// The file through empty mounts, and by `dfctl get`.
fn cold(bench: &Bench, server: &Server, of: &mut [Figures; 3]) -> Result<(), Failure> {
    for round in 1..=bench.runs {
        bench.says(&format!("cold {round}/{}", bench.runs));
        bench.interrupt.check()?;
        let out = bench.fresh_dir("out")?.join("file");
        let mut get = Dfctl::new(&bench.binaries).command()?;
        get.args(["--solo", "-q", "get", &server.url(Scheme::Http, "file"), "-o"]).arg(&out);
        of[0].add("get".to_owned(), measure::wall(&mut get)?.as_secs_f64());
        drop(fs::remove_file(&out));
        for (mounted, figures) in
            [(mount_dfs(bench, server, "cold")?, 1), (mount_rclone(bench, server, "cold")?, 2)]
        {
            bench.interrupt.check()?;
            let begun = Instant::now();
            Load::Sequential.run(&mounted.file)?;
            of[figures].add("cold".to_owned(), begun.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

fn rows(bench: &Bench, [native, dfs, rclone]: &[Figures; 3]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |row: String, subject, value: Option<f64>, unit, goal| {
        let Some(value) = value else { return };
        rows.push(Row { row, subject, value, unit, goal, runs: bench.runs });
    };
    let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    for load in LOADS {
        let name = load.name();
        let (hot, path) = (format!("hot.{name}"), format!("path.{name}"));
        let base = native.median(&hot);
        add(format!("P7.{hot}"), "native", base.map(|b| b / 1e6), "MB/s", None);
        let goal = Some(Goal::AtLeast(1.0));
        add(format!("P7.{hot}"), "dfs", ratio(dfs.median(&hot), base), "× native", goal);
        add(format!("P7.{hot}"), "rclone", ratio(rclone.median(&hot), base), "× native", None);
        let goal = match load {
            Load::Sequential => Some(Goal::AtLeast(1.3)),
            Load::Random => Some(Goal::AtLeast(3.0)),
            Load::RandomBy8 | Load::Mapped => None,
        };
        let best = rclone.median(&path);
        add(format!("P7.{path}"), "dfs", ratio(dfs.median(&path), best), "× rclone", goal);
        let share = format!("P7.{path}.share");
        add(share.clone(), "dfs", ratio(dfs.median(&path), base), "× native hot", None);
        add(share, "rclone", ratio(best, base), "× native hot", None);
    }
    let get = native.median("get");
    let goal = Some(Goal::AtLeast(0.9));
    add("P7.cold".into(), "dfs", ratio(get, dfs.median("cold")), "× dfctl get", goal);
    add("P7.cold".into(), "rclone", ratio(get, rclone.median("cold")), "× dfctl get", None);
    add("P7.cpu".into(), "dfs", dfs.median("cpu"), "s/GiB", Some(Goal::AtMost(0.35)));
    add("P7.cpu".into(), "rclone", rclone.median("cpu"), "s/GiB", None);
    add("P7.rss".into(), "dfs", dfs.median("rss"), "MiB", Some(Goal::AtMost(24.0)));
    add("P7.rss".into(), "rclone", rclone.median("rss"), "MiB", None);
    rows
}

/// Drops the file's pages from the page cache of the mount; what serves it keeps its own.
fn drop_cache(path: &Path) -> Result<(), Failure> {
    let dropped = File::open(path).and_then(|file| Ok(fadvise(&file, 0, None, Advice::DontNeed)?));
    dropped.map_err(failed(path))
}

fn mount_dfs(bench: &Bench, server: &Server, name: &str) -> Result<Mounted, Failure> {
    let work = bench.fresh_dir(&format!("dfs-{name}"))?;
    let node = Node::start(&bench.binaries, &work, "agent", None)?;
    let (pid, dir) = (node.process().pid(), work.join("mnt"));
    gone_on_signal(bench, pid, &dir);
    let mount = node.mount(&server.url(Scheme::Http, "file"), &dir)?;
    let server = Serving::Dfs { _node: Box::new(node) };
    Ok(Mounted { file: dir.join("file"), pid, _mount: mount, _server: server })
}

fn mount_rclone(bench: &Bench, server: &Server, name: &str) -> Result<Mounted, Failure> {
    let work = bench.fresh_dir(&format!("rclone-{name}"))?;
    let dir = work.join("mnt");
    let url = server.url(Scheme::Http, "");
    let (rclone, mount) = rclone(bench, &url, &work.join("cache"), &dir, "file")?;
    let pid = rclone.0.id();
    let served = Serving::Rclone { _child: rclone };
    Ok(Mounted { file: dir.join("file"), pid, _mount: mount, _server: served })
}

/// Mounts `url` on `dir` by rclone, and waits until `known` is seen in it.
pub fn rclone(
    bench: &Bench,
    url: &str,
    cache: &Path,
    dir: &Path,
    known: &str,
) -> Result<(Rclone, Mount), Failure> {
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let mount = Mount::guard(dir);
    let mut rclone = Command::new("rclone");
    rclone.args(["mount", "--read-only", "--vfs-cache-mode", "full", "--config", "/dev/null"]);
    rclone.arg("--http-url").arg(url).arg("--cache-dir").arg(cache);
    rclone.arg(":http:").arg(dir).process_group(0);
    rclone.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = rclone
        .spawn()
        .map_err(|error| Failure::Other(format!("rclone could not be started: {error}")))?;
    gone_on_signal(bench, child.id(), dir);
    let rclone = Rclone(child);
    let limit = Duration::from_secs(30);
    wait::find("rclone has mounted", limit, || dir.join(known).exists().then_some(()))?;
    Ok((rclone, mount))
}

fn gone_on_signal(bench: &Bench, pid: u32, dir: &Path) {
    let dir = dir.to_owned();
    bench.interrupt.on_signal(move || {
        dfs_tests::cluster::detach(&dir);
        kill(pid);
    });
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}
