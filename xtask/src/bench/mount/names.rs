//! P8: names to look at, and small files to read.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Measured, drop_names, drop_pages, may_drop_names};
use crate::bench::row::{Goal, Row, median};
use crate::bench::subject::{Lane, Peer, Subject};
use crate::bench::{Bench, measure, write_noise};
use crate::run::{Failure, failed};

/// Where small files are, in the tree.
pub const FILES: &str = "files";
/// Where names are.
const NAMES: &str = "names";

/// How many names, how many small files, and bytes in each of these.
const NAME_COUNT: u64 = 10_000;
const FILE_COUNT: u64 = 4000;
const BYTES: u64 = 9000;

/// What is done in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// `find` with the length of every file.
    Find,
    /// Every small file read.
    Read,
}

impl Walk {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Find, Self::Read];

    /// In the names of rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Find => "find",
            Self::Read => "small",
        }
    }

    fn seconds(self, root: &Path) -> Result<f64, Failure> {
        let mut command = Command::new("find");
        match self {
            Self::Find => command.arg(root.join(NAMES)).args(["-printf", "%s"]),
            Self::Read => {
                command.arg(root.join(FILES)).args(["-type", "f", "-exec", "cat", "{}", "+"])
            }
        };
        Ok(measure::wall(&mut command)?.as_secs_f64())
    }

    /// What is wanted of ours: hot, and from what is kept.
    fn goals(self, lane: Lane) -> (f64, Option<f64>) {
        match (lane, self) {
            (Lane::Kernel, _) => (0.95, None),
            (_, Self::Find) => (0.85, Some(0.4)),
            (_, Self::Read) => (0.8, Some(0.45)),
        }
    }
}

/// Makes names and small files below `root`.
pub fn make(root: &Path) -> Result<(), Failure> {
    for number in 0..NAME_COUNT {
        let dir = root.join(NAMES).join(format!("d{}", number / 100));
        fs::create_dir_all(&dir).map_err(failed(root))?;
        fs::write(dir.join(format!("file-{number}")), number.to_string()).map_err(failed(root))?;
    }
    for number in 0..FILE_COUNT {
        let dir = root.join(FILES).join(format!("d{}", number / 100));
        fs::create_dir_all(&dir).map_err(failed(root))?;
        write_noise(&dir.join(format!("file-{number}")), BYTES)?;
    }
    Ok(())
}

/// One walk, hot and then with the mount's caches dropped.
pub fn walk(one: &mut Measured, walk: Walk) -> Result<(), Failure> {
    let (root, figures) = (&one.mounted.dir, &mut one.figures);
    walk.seconds(root)?;
    let hot = [walk.seconds(root)?, walk.seconds(root)?, walk.seconds(root)?];
    figures.add(format!("{}.hot", walk.name()), median(&hot));
    if one.subject == Subject::Peer(Peer::Native) || !may_drop_names() {
        return Ok(());
    }
    if walk == Walk::Read {
        drop_all_pages(&root.join(FILES))?;
    }
    drop_names()?;
    figures.add(format!("{}.path", walk.name()), walk.seconds(root)?);
    Ok(())
}

fn drop_all_pages(dir: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let path = entry.map_err(failed(dir))?.path();
        if path.is_dir() { drop_all_pages(&path)? } else { drop_pages(&path)? }
    }
    Ok(())
}

/// Shares of the native tree; the kernel's lane from what it keeps against the kernel's own image.
pub fn rows(bench: &Bench, all: &[Measured]) -> Vec<Row> {
    let mut rows = Vec::new();
    let runs = bench.runs;
    for walk in Walk::ALL {
        let [hot, path] = ["hot", "path"].map(|kind| format!("{}.{kind}", walk.name()));
        let Some(base) = all[0].figures.median(&hot) else { continue };
        let row = format!("P8.{hot}");
        rows.push(Row { row, subject: "native", value: base, unit: "s", goal: None, runs });
        let kernel = all.iter().find(|one| one.subject == Subject::Peer(Peer::Erofs));
        let kernel = kernel.and_then(|one| one.figures.median(&path));
        for (what, is_hot) in [(&hot, true), (&path, false)] {
            for one in all.iter().skip(1) {
                let Some(took) = one.figures.median(what) else { continue };
                let least = match one.subject {
                    Subject::Dfs(lane) if is_hot => Some(walk.goals(lane).0),
                    Subject::Dfs(lane) => walk.goals(lane).1,
                    Subject::Peer(_) => None,
                };
                let (subject, goal) = (one.subject.name(), least.map(Goal::AtLeast));
                let (row, unit) = (format!("P8.{what}"), "× native hot");
                rows.push(Row { row, subject, value: base / took, unit, goal, runs });
                if let (Subject::Dfs(Lane::Kernel), false, Some(kernel)) =
                    (one.subject, is_hot, kernel)
                {
                    let (row, unit) = (format!("P8.{what}.kernel"), "× kernel EROFS");
                    let goal = Some(Goal::AtLeast(0.95));
                    rows.push(Row { row, subject, value: kernel / took, unit, goal, runs });
                }
            }
        }
    }
    rows
}
