//! P8: names to look at, and small files to read.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Measured, Seen, drop_names, drop_pages, may_drop_names};
use crate::bench::row::{Goal, Row, median};
use crate::bench::subject::{Lane, Peer, Subject};
use crate::bench::{measure, write_noise};
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

    /// Where in the tree.
    fn place(self) -> &'static str {
        match self {
            Self::Find => NAMES,
            Self::Read => FILES,
        }
    }

    fn seconds(self, root: &Path) -> Result<f64, Failure> {
        let mut command = Command::new("find");
        command.arg(root.join(self.place()));
        match self {
            Self::Find => command.args(["-printf", "%s"]),
            Self::Read => command.args(["-type", "f", "-exec", "cat", "{}", "+"]),
        };
        Ok(measure::wall(&mut command)?.as_secs_f64())
    }

    /// What is wanted of ours: hot, and from what is kept.
    fn goals(self, lane: Lane) -> (Option<f64>, Option<f64>) {
        match (lane, self) {
            (Lane::Kernel, _) => (Some(0.95), None),
            (_, Self::Find) => (Some(0.85), Some(0.4)),
            (_, Self::Read) => (Some(0.8), Some(0.45)),
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
    // What the kernel gives back in the background while it is walked is then of this tree alone, whoever was before.
    drop_names()?;
    walk.seconds(root)?;
    // With pages of its file the kernel keeps an inode.
    drop_all_pages(&root.join(walk.place()))?;
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
pub fn rows(runs: usize, all: &[Seen]) -> Vec<Row> {
    Walk::ALL.into_iter().flat_map(|walk| walk_rows(runs, all, walk)).collect()
}

fn walk_rows(runs: usize, all: &[Seen], walk: Walk) -> Vec<Row> {
    let [hot, path] = ["hot", "path"].map(|kind| format!("{}.{kind}", walk.name()));
    let [(native, figures), others @ ..] = all else { return Vec::new() };
    let Some(base) = figures.median(&hot) else { return Vec::new() };
    let row = |name: String, subject: Subject, value, unit, least: Option<f64>| {
        let (row, subject) = (format!("P8.{name}"), subject.name());
        Row { row, subject, value, unit, goal: least.map(Goal::AtLeast), runs }
    };
    let mut rows = vec![row(hot.clone(), *native, base, "s", None)];
    let goals = |subject| match subject {
        Subject::Dfs(lane) => walk.goals(lane),
        Subject::Peer(_) => (None, None),
    };
    for (subject, figures) in others {
        let Some(took) = figures.median(&hot) else { continue };
        rows.push(row(hot.clone(), *subject, base / took, "× native hot", goals(*subject).0));
    }
    let kernel = all.iter().find(|(subject, _)| *subject == Subject::Peer(Peer::Erofs));
    let kernel = kernel.and_then(|(_, figures)| figures.median(&path));
    for (subject, figures) in others {
        let Some(took) = figures.median(&path) else { continue };
        rows.push(row(path.clone(), *subject, base / took, "× native hot", goals(*subject).1));
        if let (Subject::Dfs(Lane::Kernel), Some(kernel)) = (*subject, kernel) {
            let name = format!("{path}.kernel");
            rows.push(row(name, *subject, kernel / took, "× kernel EROFS", Some(0.95)));
        }
    }
    rows
}
