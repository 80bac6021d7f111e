//! Choosing directories of this machine: real files of many sizes, enough and not too many.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::subject::is_readable;

/// What is wanted at least.
const BYTES: u64 = 220 << 20;
const FILES: usize = 600;
/// What one directory may have at most.
const MOST_BYTES: u64 = 300 << 20;
const MOST_FILES: usize = 1500;

/// A directory that is shown.
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// The files in it.
    pub files: Vec<Found>,
}

/// A plain file.
pub struct Found {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes in it.
    pub length: u64,
}

/// Directories that together have enough; fewer on a machine that has not.
pub fn directories() -> Vec<Directory> {
    let mut waiting: VecDeque<PathBuf> = places().into();
    let (mut chosen, mut bytes, mut files) = (Vec::<Directory>::new(), 0, 0);
    while bytes < BYTES || files < FILES {
        let Some(path) = waiting.pop_front() else { break };
        if chosen.iter().any(|one| path.starts_with(&one.path)) {
            continue;
        }
        let found = match bounded(&path) {
            Some(found) => found,
            None => {
                waiting.extend(below(&path));
                continue;
            }
        };
        if found.is_empty() {
            continue;
        }
        bytes += found.iter().map(|file| file.length).sum::<u64>();
        files += found.len();
        chosen.push(Directory { path, files: found });
    }
    chosen
}

/// Where to look, best first: large libraries, then many small files.
fn places() -> Vec<PathBuf> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().ok();
    let sysroot = sysroot.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let mut places = Vec::new();
    if let Some(sysroot) = sysroot.filter(|text| !text.is_empty()) {
        places.push(Path::new(&sysroot).join("lib/rustlib"));
    }
    let system = ["/usr/share/perl", "/usr/lib/python3", "/usr/share/zoneinfo", "/usr/include"];
    places.extend(system.map(PathBuf::from));
    places.extend(["/usr/lib", "/usr/share"].map(PathBuf::from));
    places.into_iter().filter_map(|path| path.canonicalize().ok()).collect()
}

fn below(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let directories =
        entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut paths: Vec<_> = directories.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The files of a directory; `None` when it has too much.
fn bounded(path: &Path) -> Option<Vec<Found>> {
    let (mut files, mut bytes) = (Vec::new(), 0);
    walk(path, &mut |file| {
        bytes += file.length;
        files.push(file);
        bytes <= MOST_BYTES && files.len() <= MOST_FILES
    })
    .then_some(files)
}

/// The plain files below a directory that this user may read; links are not followed.
pub fn files(path: &Path) -> Vec<Found> {
    let mut files = Vec::new();
    walk(path, &mut |file| {
        files.push(file);
        true
    });
    files
}

/// Calls `take` until it says no; what cannot be read is left out.
fn walk(path: &Path, take: &mut impl FnMut(Found) -> bool) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return true };
    for entry in entries.flatten() {
        let Ok(status) = entry.metadata() else { continue };
        let path = entry.path();
        if status.is_dir() {
            if !walk(&path, take) {
                return false;
            }
        } else if status.is_file()
            && is_readable(&path)
            && !take(Found { path, length: status.len() })
        {
            return false;
        }
    }
    true
}
