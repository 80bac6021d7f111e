//! P8: names and small files of a mount, against the same tree itself and through rclone.
//!
//! *hot*: again, with everything in the kernel's caches. *path*: everything in the store (of rclone: in its cache),
//! and the mount is new, so that the kernel knows nothing of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::Node;

use super::super::mount::rclone;
use super::super::server::{Scheme, Server};
use super::super::{measure, write_noise};
use super::{Bench, row};
use crate::bench::row::{Goal, Row, median};
use crate::run::{Failure, failed};

/// Files that are only looked at, and small files that are read.
const NAMES: u64 = 10_000;
const FILES: u64 = 4000;
const BYTES: u64 = 9000;

/// What is done in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// `find` with the length of every file.
    Find,
    /// Every small file read.
    Read,
}

impl Walk {
    fn name(self) -> &'static str {
        match self {
            Self::Find => "find",
            Self::Read => "small",
        }
    }

    fn seconds(self, root: &Path) -> Result<f64, Failure> {
        let mut command = Command::new("find");
        match self {
            Self::Find => command.arg(root.join("names")).args(["-printf", "%s"]),
            Self::Read => {
                command.arg(root.join("files")).args(["-type", "f", "-exec", "cat", "{}", "+"])
            }
        };
        Ok(measure::wall(&mut command)?.as_secs_f64())
    }
}

#[derive(Default)]
struct Figures {
    find_hot: Vec<f64>,
    find_path: Vec<f64>,
    small_hot: Vec<f64>,
    small_path: Vec<f64>,
}

impl Figures {
    /// Walks a tree that the kernel does not know yet, then again; twice before a native one counts.
    fn walk(&mut self, root: &Path) -> Result<(), Failure> {
        for walk in [Walk::Find, Walk::Read] {
            let path = walk.seconds(root)?;
            let hot = median(&[walk.seconds(root)?, walk.seconds(root)?, walk.seconds(root)?]);
            match walk {
                Walk::Find => (&mut self.find_hot, &mut self.find_path),
                Walk::Read => (&mut self.small_hot, &mut self.small_path),
            }
            .push_both(hot, path);
        }
        Ok(())
    }

    fn of(&self, walk: Walk) -> (f64, f64) {
        match walk {
            Walk::Find => (median(&self.find_hot), median(&self.find_path)),
            Walk::Read => (median(&self.small_hot), median(&self.small_path)),
        }
    }
}

trait PushBoth {
    fn push_both(self, hot: f64, path: f64);
}

impl PushBoth for (&mut Vec<f64>, &mut Vec<f64>) {
    fn push_both(self, hot: f64, path: f64) {
        self.0.push(hot);
        self.1.push(path);
    }
}

/// Measures run by run, subject by subject.
pub fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let root = make(bench)?;
    let server = Server::start(&root, &bench.fresh_dir("nginx")?, &bench.interrupt)?;
    let url = server.url(Scheme::Http, "");
    let work = bench.fresh_dir("names")?;
    let node = Node::start(&bench.binaries, &work, "agent", None)?;
    let (dir, cache) = (work.join("mnt"), work.join("cache"));
    let (mut native, mut dfs, mut theirs) =
        (Figures::default(), Figures::default(), Figures::default());
    for run in 0..=bench.runs {
        bench.interrupt.check()?;
        bench.says(&format!("names and small files {run}/{}", bench.runs));
        // The first run fills stores and caches and is not counted.
        let mut unused = [Figures::default(), Figures::default(), Figures::default()];
        let [a, b, c] = match run {
            0 => unused.each_mut(),
            _ => [&mut native, &mut dfs, &mut theirs],
        };
        a.walk(&root)?;
        let mount = node.mount(&url, &dir)?;
        b.walk(&dir)?;
        drop(mount);
        let (server, mount) = rclone(bench, &url, &cache, &dir, "names")?;
        c.walk(&dir)?;
        drop((mount, server));
    }
    Ok(rows(&native, &[("dfs", &dfs), ("rclone", &theirs)], bench.runs))
}

fn rows(native: &Figures, subjects: &[(&'static str, &Figures)], runs: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for walk in [Walk::Find, Walk::Read] {
        let (base, _) = native.of(walk);
        let (hot_goal, path_goal) = match walk {
            Walk::Find => (0.85, 0.4),
            Walk::Read => (0.8, 0.45),
        };
        for &(subject, figures) in subjects {
            let (hot, path) = figures.of(walk);
            let goal = |least| (subject == "dfs").then_some(Goal::AtLeast(least));
            for (kind, took, least) in [("hot", hot, hot_goal), ("path", path, path_goal)] {
                let name = format!("P8.{}.{kind}", walk.name());
                let one = row(&name, subject, &[base / took], "× native hot", goal(least));
                rows.push(Row { runs, ..one });
            }
        }
    }
    rows
}

/// The tree: names to look at, files to read.
fn make(bench: &Bench) -> Result<PathBuf, Failure> {
    bench.says("making a tree");
    let root = bench.fresh_dir("root")?;
    for number in 0..NAMES {
        let dir = root.join("names").join(format!("d{}", number / 100));
        fs::create_dir_all(&dir).map_err(failed(&root))?;
        fs::write(dir.join(format!("file-{number}")), number.to_string()).map_err(failed(&root))?;
    }
    for number in 0..FILES {
        let dir = root.join("files").join(format!("d{}", number / 100));
        fs::create_dir_all(&dir).map_err(failed(&root))?;
        write_noise(&dir.join(format!("file-{number}")), BYTES)?;
    }
    Ok(root)
}
