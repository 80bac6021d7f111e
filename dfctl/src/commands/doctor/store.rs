//! The store of an agent: whether everything in it is its owner's to use, and nothing half-made is left.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::Finding;
use super::mending::{Step, closed_store};
use crate::codes;
use crate::output::{counted, printable, quoted_path};

/// Most names looked at.
const MOST: usize = 500_000;

/// What an owner must be allowed to do.
const DIRECTORY: u32 = 0o700;
const FILE: u32 = 0o600;

/// Where in a data directory an agent keeps things, and how deep they lie there.
const KEPT: [(&str, usize); 7] = [
    ("tasks", 3),
    ("trash", 3),
    ("pins", 1),
    ("mounts", 1),
    ("artifacts", 1),
    ("profiles", 1),
    ("solo", 0),
];

/// Looks at the store in `dir`, if there is one. Blocks.
pub(super) fn look(dir: &Path) -> Vec<Finding> {
    let Ok(own) = dir.symlink_metadata().map_err(drop).and_then(|own| match own.is_dir() {
        true => Ok(own),
        false => Err(()),
    }) else {
        return Vec::new();
    };
    // From here on no link is followed.
    let real = dir.canonicalize();
    let dir = real.as_deref().unwrap_or(dir);
    if !dir.join("tasks").is_dir() {
        return Vec::new();
    }
    let mut findings = vec![rights(dir, &own)];
    findings.extend(half_made(dir));
    findings
}

/// Whether the owner of the directory may use all that is in it.
fn rights(dir: &Path, own: &Metadata) -> Finding {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (name, depth) in KEPT {
        walk(&dir.join(name), depth, &mut seen, &mut |path, found| {
            wrong.extend(mending_of(path, found, own));
        });
    }
    if wrong.is_empty() {
        return Finding::ok("store", format!("all of {} is its owner's to use", shown(dir)));
    }
    let number = counted(wrong.len() as u64, "file or directory", "files and directories");
    let text = format!("{number} in {} cannot be used by the agent", shown(dir));
    let finding = Finding::fail("store", &codes::STORE_RIGHTS, text);
    let is_root = geteuid().is_root();
    let is_own = own.uid() == geteuid().as_raw();
    let foreign = wrong.iter().any(|step| matches!(step, Step::Owner(..)));
    match is_root || is_own && !foreign {
        true => finding.hint("dfctl doctor --fix").mended_by(wrong),
        false => {
            let (uid, gid) = (own.uid(), own.gid());
            finding.hint(format!("sudo chown -R {uid}:{gid} {}", quoted_path(dir)))
        }
    }
}

/// What would make one usable.
fn mending_of(path: &Path, found: &Metadata, own: &Metadata) -> Vec<Step> {
    let mut steps = Vec::new();
    if found.uid() != own.uid() {
        steps.push(Step::Owner(path.to_owned(), own.uid(), own.gid()));
    }
    let mode = found.mode() & 0o7777;
    let needed = match () {
        () if found.is_dir() => DIRECTORY,
        () if found.is_file() => FILE,
        () => 0,
    };
    if mode & needed != needed {
        steps.push(Step::Mode(path.to_owned(), mode | needed));
    }
    steps
}

/// Shows what lies in `dir` down to so many levels, itself first; nothing behind a link. What cannot be entered is shown
/// itself.
fn walk(dir: &Path, depth: usize, seen: &mut usize, visit: &mut dyn FnMut(&Path, &Metadata)) {
    *seen += 1;
    let Ok(found) = dir.symlink_metadata() else { return };
    visit(dir, &found);
    if depth == 0 || !found.is_dir() || *seen > MOST {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        walk(&entry.path(), depth - 1, seen, visit);
    }
}

/// What a process left in the middle of making or removing a task. Only of a store that nobody has open: whoever has is
/// at it.
fn half_made(dir: &Path) -> Option<Finding> {
    let _lock = closed_store(dir).ok()??;
    let entries = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<PathBuf>>()
    };
    let shelves = entries(&dir.join("tasks"));
    let tasks = shelves.iter().filter(|shelf| is_dir(shelf)).flat_map(|shelf| entries(shelf));
    let is_empty = |task: &PathBuf| is_dir(task) && entries(task).is_empty();
    let empty = tasks.filter(is_empty).map(Step::EmptyTask);
    let thrown_away = entries(&dir.join("trash")).into_iter().map(Step::Trash);
    let steps: Vec<Step> = empty.chain(thrown_away).take(MOST).collect();
    if steps.is_empty() {
        return None;
    }
    let number = counted(steps.len() as u64, "half-made task", "half-made tasks");
    let text = format!("{number} left in {}: the agent died over it", shown(dir));
    let finding = Finding::warn("half-made", &codes::HALF_MADE, text);
    Some(finding.hint("dfctl doctor --fix").mended_by(steps))
}

fn is_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

fn shown(dir: &Path) -> String {
    printable(&dir.display().to_string())
}
