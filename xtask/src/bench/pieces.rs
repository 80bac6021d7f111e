//! Ways to write pieces into a file: one file in pieces of 1 MiB at random places, and then read once, as whatever is kept
//! is read by who waited for it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use dfs_tests::process::Said;
use serde_json::Value;

use super::Bench;
use super::fio::Load;
use super::row::{Row, median};
use crate::run::{Failure, failed};

/// A way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    name: &'static str,
    engine: &'static str,
    direct: bool,
    /// Pieces under way at a time.
    depth: u32,
}

const WAYS: [Way; 5] = [
    Way { name: "pwrite", engine: "psync", direct: false, depth: 1 },
    Way { name: "pwrite-direct", engine: "psync", direct: true, depth: 1 },
    Way { name: "io_uring", engine: "io_uring", direct: false, depth: 8 },
    Way { name: "io_uring-direct", engine: "io_uring", direct: true, depth: 8 },
    Way { name: "mmap", engine: "mmap", direct: false, depth: 1 },
];

/// What one run came to.
struct Cost {
    /// Seconds until all of it was written, and on disk.
    durable: f64,
    /// Seconds of CPU that the writing thread took.
    cpu: f64,
    /// Seconds until all of it was written, without waiting for the disk, and read.
    read: f64,
}

/// Whether who writes waits for the disk at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    OnDisk,
    Anywhere,
}

impl Way {
    /// Writes all of `file`, which has its length; seconds that this takes, and those of CPU.
    fn write(self, file: &Path, bytes: u64, end: End) -> Result<(f64, f64), Failure> {
        let mut fio = Command::new("fio");
        fio.args(["--name=pieces", "--rw=randwrite", "--bs=1M", "--thread", "--fallocate=none"]);
        fio.args(["--output-format=json", "--randrepeat=0", "--group_reporting"]);
        fio.arg(format!("--filename={}", file.display())).arg(format!("--size={bytes}"));
        fio.arg(format!("--ioengine={}", self.engine)).arg(format!("--iodepth={}", self.depth));
        fio.arg(format!("--direct={}", u8::from(self.direct)));
        fio.arg(format!("--end_fsync={}", u8::from(end == End::OnDisk)));
        let said = Said::by(&mut fio)?.ok()?;
        let text = said.text();
        // Notes may stand before the object.
        let json = text.find('{').map_or("", |start| &text[start..]);
        let report: Value = serde_json::from_str(json)
            .map_err(|error| Failure::Other(format!("fio printed no JSON: {error}")))?;
        let job = &report["jobs"][0];
        let number = |name: &str| {
            let missing = || Failure::Other(format!("fio told no {name}"));
            job[name].as_f64().ok_or_else(missing)
        };
        let seconds = number("job_runtime")? / 1e3;
        Ok((seconds, seconds * (number("usr_cpu")? + number("sys_cpu")?) / 100.0))
    }

    fn run(self, bench: &Bench) -> Result<Cost, Failure> {
        let path = bench.path("pieces");
        let fresh = || {
            let file = File::create(&path).map_err(failed(&path))?;
            file.set_len(bench.size).map_err(failed(&path))
        };
        fresh()?;
        let (durable, cpu) = self.write(&path, bench.size, End::OnDisk)?;
        fresh()?;
        let (written, _) = self.write(&path, bench.size, End::Anywhere)?;
        let read = written + bench.size as f64 / Load::Sequential.run(&path)?;
        fs::remove_file(&path).map_err(failed(&path))?;
        Ok(Cost { durable, cpu, read })
    }
}

/// Every way in turn, run by run.
pub fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    let mut costs: Vec<(Way, Vec<Cost>)> = WAYS.map(|way| (way, Vec::new())).into();
    // What memory costs that nobody had before is nobody's of them.
    WAYS[0].run(bench)?;
    for run in 1..=bench.runs {
        bench.says(&format!("run {run} of {}", bench.runs));
        for (way, costs) in &mut costs {
            bench.interrupt.check()?;
            costs.push(way.run(bench)?);
        }
    }
    Ok(costs.iter().flat_map(|(way, costs)| rows(*way, costs, bench.size as f64)).collect())
}

fn rows(way: Way, costs: &[Cost], bytes: f64) -> [Row; 3] {
    let row = |what: &str, unit, value: &dyn Fn(&Cost) -> f64| Row {
        row: format!("pieces.{what}"),
        subject: way.name,
        value: median(&costs.iter().map(value).collect::<Vec<_>>()),
        unit,
        goal: None,
        runs: costs.len(),
    };
    [
        row("durable", "GB/s", &|cost| bytes / 1e9 / cost.durable),
        row("cpu", "s/GiB", &|cost| cost.cpu * f64::from(1 << 30) / bytes),
        row("written-and-read", "GB/s", &|cost| bytes / 1e9 / cost.read),
    ]
}
