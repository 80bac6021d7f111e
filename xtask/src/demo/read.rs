//! Reading everything on every node at once, and comparing it with the truth.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::pick;
use super::subject::Truth;
use crate::interrupt::Interrupt;
use crate::run::{Failure, failed, run};

const CHUNK: usize = 1 << 20;
/// Readers on each node.
const READERS: usize = 4;
/// What curl downloads at a time.
const BATCH_FILES: usize = 500;
const BATCH_BYTES: u64 = 256 << 20;
/// Differences that are told before the rest is counted.
const TOLD: usize = 5;

/// The plain files of a mount with their lengths, by path.
pub fn list(dir: &Path) -> Vec<(PathBuf, u64)> {
    let inside =
        |file: pick::Found| Some((file.path.strip_prefix(dir).ok()?.to_owned(), file.length));
    let mut files: Vec<_> = pick::files(dir).into_iter().filter_map(inside).collect();
    files.sort();
    files
}

/// What went wrong, the first few in words.
#[derive(Default)]
struct Wrong {
    told: Vec<String>,
    count: usize,
}

/// Collects what goes wrong on any thread.
#[derive(Default)]
struct Findings(Mutex<Wrong>);

impl Findings {
    fn add(&self, text: String) {
        let mut wrong = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.count += 1;
        if wrong.told.len() < TOLD {
            wrong.told.push(text);
        }
    }

    fn into_result(self) -> Result<(), Failure> {
        let wrong = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        if wrong.count == 0 {
            return Ok(());
        }
        let told = wrong.told.join("\n  ");
        Err(Failure::Other(format!("{} files are not as they should be:\n  {told}", wrong.count)))
    }
}

/// Every node's files must be those of the first, and those of the truth where it is here.
pub fn same_files(nodes: &[(String, Vec<(PathBuf, u64)>)], truth: &Truth) -> Result<(), Failure> {
    let findings = Findings::default();
    let Some(((first, files), others)) = nodes.split_first() else { return Ok(()) };
    for (name, other) in others {
        for (path, _) in difference(files, other) {
            findings.add(format!("{}: not the same on {first} and {name}", path.display()));
        }
    }
    if let Truth::Local(local) = truth {
        let length = |path: &Path| path.metadata().map(|status| status.len()).unwrap_or(0);
        let wanted: Vec<_> =
            local.iter().map(|(inside, path)| (inside.clone(), length(path))).collect();
        for (path, _) in difference(&wanted, files) {
            findings.add(format!("{}: not the same at the origin and on {first}", path.display()));
        }
    }
    findings.into_result()
}

/// What only one of two sorted lists has.
fn difference<'a>(a: &'a [(PathBuf, u64)], b: &'a [(PathBuf, u64)]) -> Vec<&'a (PathBuf, u64)> {
    let missing = |from: &'a [(PathBuf, u64)], other: &'a [(PathBuf, u64)]| {
        from.iter().filter(|one| other.binary_search(one).is_err()).collect::<Vec<_>>()
    };
    let mut found = missing(a, b);
    found.extend(missing(b, a));
    found
}

/// Reads every file on every node at once; compares what is read with the truth where it is here.
pub fn everything(
    nodes: &[(String, PathBuf)],
    files: &[(PathBuf, u64)],
    truth: &Truth,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let findings = Findings::default();
    thread::scope(|scope| {
        for (name, dir) in nodes {
            let next = std::sync::Arc::new(AtomicUsize::new(0));
            for _ in 0..READERS {
                let (next, findings) = (next.clone(), &findings);
                scope.spawn(move || {
                    while let Some((path, _)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if interrupt.check().is_err() {
                            return;
                        }
                        let true_file = match truth {
                            Truth::Local(local) => local.get(path).map(PathBuf::as_path),
                            Truth::Urls(_) => None,
                        };
                        if let Err(why) = read_one(&dir.join(path), true_file) {
                            findings.add(format!("{}: on {name}: {why}", path.display()));
                        }
                    }
                });
            }
        }
    });
    interrupt.check()?;
    findings.into_result()
}

/// Reads a mounted file to its end, beside the true one where there is one.
fn read_one(path: &Path, true_path: Option<&Path>) -> Result<(), String> {
    let explained = |error: io::Error| match reason(path) {
        Some(reason) => format!("{error}: {reason}"),
        None => error.to_string(),
    };
    let mut file = File::open(path).map_err(explained)?;
    let truth = true_path.map(File::open).transpose();
    let truth = truth.map_err(|error| format!("the true file: {error}"))?;
    let (mut bytes, mut expected, mut at) = (vec![0; CHUNK], vec![0; CHUNK], 0);
    loop {
        let count = read_full(&mut file, &mut bytes).map_err(explained)?;
        if let Some(truth) = &truth {
            let wanted = &mut expected[..count];
            truth.read_exact_at(wanted, at).map_err(|error| format!("the true file: {error}"))?;
            if let Some(place) = first_difference(&bytes[..count], wanted) {
                return Err(format!("byte {} is wrong", at + place as u64));
            }
        }
        at += count as u64;
        if count < CHUNK {
            return Ok(());
        }
    }
}

/// What the mount says about a file that cannot be read.
fn reason(path: &Path) -> Option<String> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::getxattr(path, "user.dfs.error", &mut value[..]).ok()?;
    Some(String::from_utf8_lossy(&value[..length]).into_owned())
}

fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b {
        return None;
    }
    a.iter().zip(b).position(|(a, b)| a != b).or(Some(a.len().min(b.len())))
}

/// Compares all nodes with a download of each URL by curl, some files at a time, in `work`.
pub fn against_curl(
    nodes: &[(String, PathBuf)],
    files: &[(PathBuf, u64)],
    urls: &BTreeMap<PathBuf, String>,
    work: &Path,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let findings = Findings::default();
    let dir = work.join("downloads");
    for batch in batches(files) {
        interrupt.check()?;
        let downloads: Vec<_> = batch
            .iter()
            .enumerate()
            .filter_map(|(place, (path, _))| {
                Some((path, urls.get(path)?, dir.join(place.to_string())))
            })
            .collect();
        download(&dir, downloads.iter().map(|(_, url, to)| (url.as_str(), to.as_path())))?;
        for (path, _, downloaded) in &downloads {
            for (name, node) in nodes {
                if let Err(why) = read_one(&node.join(path), Some(downloaded)) {
                    findings.add(format!("{}: on {name}: {why}", path.display()));
                }
            }
        }
    }
    findings.into_result()
}

/// Parts of the list that are quickly downloaded and take little disk.
fn batches(files: &[(PathBuf, u64)]) -> Vec<&[(PathBuf, u64)]> {
    let (mut batches, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (place, (_, length)) in files.iter().enumerate() {
        if place > start && (place - start >= BATCH_FILES || bytes + length > BATCH_BYTES) {
            batches.push(&files[start..place]);
            (start, bytes) = (place, 0);
        }
        bytes += length;
    }
    batches.push(&files[start..]);
    batches
}

/// Downloads into an empty directory by one curl, over as few connections as it likes.
fn download<'a>(
    dir: &Path,
    wanted: impl Iterator<Item = (&'a str, &'a Path)>,
) -> Result<(), Failure> {
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(failed(dir))?;
    }
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let lines = wanted.map(|(url, to)| {
        let url = url.replace('\\', "\\\\").replace('"', "\\\"");
        format!("url = \"{url}\"\noutput = \"{}\"\n", to.display())
    });
    let list = dir.join("list");
    fs::write(&list, lines.collect::<String>()).map_err(failed(dir))?;
    run(Command::new("curl").args(["-fsSL", "--retry", "3", "--globoff", "-K"]).arg(&list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_is_found_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let mut bytes = vec![7; 3 * CHUNK / 2];
        std::fs::write(&a, &bytes).unwrap();
        bytes[CHUNK + 5] = 8;
        std::fs::write(&b, &bytes).unwrap();
        assert_eq!(read_one(&a, Some(&a)), Ok(()));
        let place = CHUNK + 5;
        assert_eq!(read_one(&a, Some(&b)), Err(format!("byte {place} is wrong")));
    }

    #[test]
    fn batches_hold_every_file_once() {
        let sizes = [1, BATCH_BYTES, 5, 5, BATCH_BYTES + 1, 1];
        let files: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(n, size)| (PathBuf::from(n.to_string()), *size))
            .collect();
        let cut = batches(&files);
        assert_eq!(cut.iter().map(|batch| batch.len()).collect::<Vec<_>>(), [1, 1, 2, 1, 1]);
        assert_eq!(cut.concat(), files);
    }

    #[test]
    fn lists_that_differ_are_told_apart() {
        let file = |name: &str, length| (PathBuf::from(name), length);
        let (a, b) = (vec![file("x", 1), file("y", 2)], vec![file("x", 1), file("y", 3)]);
        assert_eq!(difference(&a, &b).len(), 2);
        let lists = [("a".to_owned(), a.clone()), ("b".to_owned(), a)];
        assert!(same_files(&lists, &Truth::Urls(Default::default())).is_ok());
        let lists = [lists[0].clone(), ("b".to_owned(), b)];
        assert!(same_files(&lists, &Truth::Urls(Default::default())).is_err());
    }
}
