//! P7, takeover: how long the slowest of many readers waits when the agent is killed under them and whoever keeps its
//! mounts starts the next one. All of the file is here, and dropped from the page cache of the mount before each read, so
//! that it is a question to whoever shows it: in the lane fuse, as the others read by themselves what is here.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dfs_tests::{Body, Origin};
use rustix::fs::{Advice, fadvise};

use super::FILE;
use crate::bench::Bench;
use crate::bench::row::{Goal, Row, median};
use crate::bench::subject::{Agent, Lane, Subject, mount_in_lane};
use crate::run::{Failure, failed};

/// Who reads at once.
const READERS: u64 = 64;

/// Bytes of one read, which begins at a multiple of them.
const LENGTH: usize = 4096;

/// From one read to the next, in as many bytes.
const STEP: u64 = 7919;

/// How long is read before the agent is killed, and after.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_secs(3);

/// Measures it, run by run and lane by lane.
pub fn measure(bench: &Bench, subjects: &[Subject]) -> Result<Vec<Row>, Failure> {
    let origin = Origin::of(&format!("/{FILE}"), Body::noise(1, bench.size))?;
    let mut rows = Vec::new();
    for subject in subjects {
        let Subject::Dfs(lane @ Lane::Fuse) = subject else { continue };
        let mut longest = Vec::new();
        for number in 1..=bench.runs {
            bench.interrupt.check()?;
            let Some(took) = subject.unless_left_out(bench, turn(bench, &origin, *lane))? else {
                break;
            };
            let (name, runs) = (subject.name(), bench.runs);
            bench.says(&format!("takeover {number}/{runs} {name} {took:.0} ms"));
            longest.push(took);
        }
        if longest.is_empty() {
            continue;
        }
        let (row, subject, value) = ("P7.takeover".to_owned(), subject.name(), median(&longest));
        let goal = Some(Goal::AtMost(1000.0));
        rows.push(Row {
            row,
            subject,
            value,
            unit: "ms, the longest read",
            goal,
            runs: longest.len(),
        });
    }
    Ok(rows)
}

/// Milliseconds of the longest read of all.
fn turn(bench: &Bench, origin: &Origin, lane: Lane) -> Result<f64, Failure> {
    let work = bench.fresh_dir("takeover")?;
    let mut agent = Agent::kept(bench, &work)?;
    let dir = bench.fresh_dir("takeover-mount")?;
    let url = origin.url(&format!("/{FILE}"));
    let _mount = mount_in_lane(bench, &agent, lane, &[], &url, &dir)?;
    let path = dir.join(FILE);
    io::copy(&mut File::open(&path).map_err(failed(&path))?, &mut io::sink())
        .map_err(failed(&path))?;
    let (is_killed, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let longest = thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|seed| {
                let (path, is_killed, is_over) = (&path, &is_killed, &is_over);
                scope.spawn(move || longest_read(path, seed, bench.size, is_killed, is_over))
            })
            .collect();
        thread::park_timeout(BEFORE);
        is_killed.store(true, Ordering::Relaxed);
        agent.kill();
        thread::park_timeout(AFTER);
        is_over.store(true, Ordering::Relaxed);
        let ended = readers.into_iter().map(|reader| reader.join().expect("a reader panicked"));
        ended.collect::<io::Result<Vec<_>>>().map_err(failed(&path))
    })?;
    if longest.iter().any(Option::is_none) {
        return Err(Failure::Other("no other agent answered in time".to_owned()));
    }
    let longest = longest.into_iter().flatten().max().unwrap_or_default();
    Ok(longest.as_secs_f64() * 1e3)
}

/// The longest of its reads that ended after the kill, each of another place; `None` where none began after it.
fn longest_read(
    path: &Path,
    seed: u64,
    size: u64,
    is_killed: &AtomicBool,
    is_over: &AtomicBool,
) -> io::Result<Option<Duration>> {
    let file = File::open(path)?;
    fadvise(&file, 0, None, Advice::Random)?;
    let (mut buffer, count) = ([0; LENGTH], size / LENGTH as u64);
    let (mut place, mut longest) = (seed * count / READERS, Duration::ZERO);
    let mut has_begun_after = false;
    while !is_over.load(Ordering::Relaxed) {
        let begins_after = is_killed.load(Ordering::Relaxed);
        place = (place + STEP) % count;
        let (start, length) = (place * LENGTH as u64, NonZeroU64::new(LENGTH as u64));
        fadvise(&file, start, length, Advice::DontNeed)?;
        let begun = Instant::now();
        file.read_exact_at(&mut buffer, start)?;
        if is_killed.load(Ordering::Relaxed) {
            longest = longest.max(begun.elapsed());
        }
        has_begun_after |= begins_after;
    }
    Ok(has_begun_after.then_some(longest))
}
