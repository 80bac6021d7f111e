//! P7, demand: small reads of what is not here, each of another place: while nothing else happens, while another file
//! comes in the background through the same agent (`--prefetch all`), and while somebody reads a third one from front to
//! back, both as fast as they come.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use dfs_model::GROUP_BYTES;
use dfs_tests::{Body, Origin};

use crate::bench::Bench;
use crate::bench::lazy::Places;
use crate::bench::row::{Goal, Row, median, quantile};
use crate::bench::subject::{Agent, Lane, Subject, mount_in_lane};
use crate::run::{Failure, failed};

/// What is read here and there, what comes in the background, and what is read as a whole.
const READ: &str = "read";
const FILL: &str = "fill";
const STREAM: &str = "stream";

/// Reads of a turn alone, and at most beside each of the others.
const READS: u64 = 400;

/// Fewer beside a fill say nothing of the slowest hundredth.
const LEAST: usize = 100;

/// Bytes of one read.
const LENGTH: usize = 4096;

/// The 99th percentile of each turn, in milliseconds.
struct Turn {
    idle: f64,
    fill: f64,
    reader: f64,
}

/// Measures it, run by run and lane by lane.
pub fn measure(bench: &Bench, subjects: &[Subject]) -> Result<Vec<Row>, Failure> {
    if bench.size / GROUP_BYTES < 3 * READS {
        let least = (3 * READS * GROUP_BYTES) >> 20;
        return Err(Failure::Other(format!("the file needs {least} MiB for all reads")));
    }
    let origin = Origin::start()?;
    origin.put(&format!("/{READ}"), Body::noise(1, bench.size));
    origin.put(&format!("/{FILL}"), Body::noise(2, bench.size));
    origin.put(&format!("/{STREAM}"), Body::noise(3, bench.size));
    let lanes = subjects.iter().filter_map(|subject| match subject {
        Subject::Dfs(lane) => Some(*lane),
        Subject::Peer(_) => None,
    });
    let mut all: Vec<(Lane, Vec<Turn>)> = lanes.map(|lane| (lane, Vec::new())).collect();
    for number in 1..=bench.runs {
        Subject::each(bench, &mut all, |lane, turns| {
            let turn = turn(bench, &origin, lane)?;
            let (name, runs) = (Subject::from(lane).name(), bench.runs);
            let Turn { idle, fill, reader } = turn;
            bench.says(&format!(
                "demand {number}/{runs} {name} p99 {idle:.2} ms, beside a fill {fill:.2} ms, a reader {reader:.2} ms"
            ));
            turns.push(turn);
            Ok(())
        })?;
    }
    Ok(all.iter().flat_map(|(lane, turns)| rows(*lane, turns)).collect())
}

fn rows(lane: Lane, turns: &[Turn]) -> Vec<Row> {
    let row = |figure: &str, unit, goal, of: &dyn Fn(&Turn) -> f64| {
        let value = median(&turns.iter().map(of).collect::<Vec<_>>());
        let (row, subject) = (format!("P7.demand{figure}"), Subject::Dfs(lane).name());
        Row { row, subject, value, unit, goal, runs: turns.len() }
    };
    let most = Some(Goal::AtMost(3.0));
    vec![
        row(".idle", "ms p99", None, &|turn| turn.idle),
        row(".fill", "ms p99", None, &|turn| turn.fill),
        row(".reader", "ms p99", None, &|turn| turn.reader),
        row("", "× idle p99", most, &|turn| turn.fill / turn.idle),
    ]
}

/// One agent that has nothing yet.
fn turn(bench: &Bench, origin: &Origin, lane: Lane) -> Result<Turn, Failure> {
    let work = bench.fresh_dir("demand")?;
    let agent = Agent::start(bench, &work, lane)?;
    let show = |name: &str, prefetch: &str| {
        let dir = bench.fresh_dir(&format!("demand-{name}"))?;
        let url = origin.url(&format!("/{name}"));
        let options = ["--prefetch", prefetch];
        let mount = mount_in_lane(bench, &agent, lane, &options, &url, &dir)?;
        Ok::<_, Failure>((dir.join(name), mount))
    };
    let ((read, _read), (stream, _stream)) = (show(READ, "off")?, show(STREAM, "off")?);
    let file = File::open(&read).map_err(failed(&read))?;
    let places = Places::new(bench.size / GROUP_BYTES).draw(3 * READS, 1);
    let (first, others) = places.split_at(READS as usize);
    let (second, third) = others.split_at(READS as usize);
    let idle = read_each(&file, first, || false)?;
    let before = sent(origin, FILL);
    let (_, filled) = show(FILL, "all")?;
    let fill = read_each(&file, second, || sent(origin, FILL) - before >= bench.size)?;
    drop(filled);
    let reader = beside_reader(&stream, |has_ended| {
        read_each(&file, third, || has_ended.load(Ordering::Relaxed))
    })?;
    if let Some(few) = [&fill, &reader].into_iter().find(|times| times.len() < LEAST) {
        let said =
            format!("the other file was here after {} reads: take a larger --size", few.len());
        return Err(Failure::Other(said));
    }
    let [idle, fill, reader] = [idle, fill, reader].map(|times| quantile(&times, 0.99));
    Ok(Turn { idle, fill, reader })
}

/// Bytes of it that left the origin.
fn sent(origin: &Origin, name: &str) -> u64 {
    origin.counters().paths.get(&format!("/{name}")).map_or(0, |path| path.body_bytes)
}

/// Does `work` while `stream` is being read, and tells it when that ends.
fn beside_reader<T>(
    stream: &Path,
    work: impl FnOnce(&AtomicBool) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (has_ended, is_enough) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let filling = scope.spawn(|| {
            let filled = read_all(stream, &is_enough);
            has_ended.store(true, Ordering::Relaxed);
            filled
        });
        let done = work(&has_ended);
        is_enough.store(true, Ordering::Relaxed);
        filling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        done
    })
}

fn read_all(path: &Path, is_enough: &AtomicBool) -> Result<(), Failure> {
    let mut file = File::open(path).map_err(failed(path))?;
    let mut buffer = vec![0; 1 << 20];
    while !is_enough.load(Ordering::Relaxed) {
        if file.read(&mut buffer).map_err(failed(path))? == 0 {
            break;
        }
    }
    Ok(())
}

/// How long each took, in milliseconds, the quickest first.
fn read_each(file: &File, places: &[u64], is_over: impl Fn() -> bool) -> Result<Vec<f64>, Failure> {
    let (mut bytes, mut times) = ([0; LENGTH], Vec::new());
    for place in places {
        let begun = Instant::now();
        let read = file.read_exact_at(&mut bytes, place * GROUP_BYTES);
        read.map_err(|error| Failure::Other(format!("a read of place {place} failed: {error}")))?;
        if is_over() {
            break;
        }
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_fill_costs_is_told_in_times_of_what_it_costs_without_one() {
        let turns = [(2.0, 5.0), (1.0, 9.0), (2.0, 4.0)];
        let turns = turns.map(|(idle, fill)| Turn { idle, fill, reader: 7.0 });
        let rows = rows(Lane::Fuse, &turns);
        let told: Vec<_> = rows.iter().map(|row| (row.row.as_str(), row.value)).collect();
        let [.., times] = &*rows else { panic!() };
        assert_eq!(
            told[..3],
            [("P7.demand.idle", 2.0), ("P7.demand.fill", 5.0), ("P7.demand.reader", 7.0)]
        );
        assert_eq!((times.value, times.goal), (2.5, Some(Goal::AtMost(3.0))));
    }

    #[test]
    fn reads_end_with_the_fill() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 * GROUP_BYTES).unwrap();
        let read = |has_ended| read_each(file.as_file(), &[1, 5], || has_ended);
        assert_eq!((read(false).unwrap().len(), read(true).unwrap().len()), (2, 0));
        assert!(read_each(file.as_file(), &[8], || false).is_err());
    }
}
