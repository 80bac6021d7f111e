//! P7, cold: a large file through empty mounts, and by `dfctl get`: in order, and mapped by eight processes at once, as
//! those do that load a model. The origin makes the bytes up from their place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use dfs_tests::{Body, Dfctl, Origin};

use super::{FILE, Figures, Seen};
use crate::bench::fio::Load;
use crate::bench::row::{Goal, Row};
use crate::bench::subject::{Lane, Mounted, Subject, Tree};
use crate::bench::{Bench, measure};
use crate::run::{Failure, failed, said};

/// Where somebody works who begins with nothing.
const WORK: &str = "cold";

/// So much memory is used before each turn at most.
const MEMORY: u64 = 4 << 30;

/// How it is read.
const LOADS: [Load; 2] = [Load::Sequential, Load::Mapped { jobs: 8 }];

/// Measures it run by run.
pub fn measure(bench: &Bench, subjects: &[Subject]) -> Result<Vec<Row>, Failure> {
    let origin = Origin::of(&format!("/{FILE}"), Body::noise(1, bench.size))?;
    // Nobody mounts it: it is only there where it is served.
    let nowhere = PathBuf::new();
    let tree = Tree { root: nowhere.clone(), url: origin.url("/"), known: FILE, images: nowhere };
    let mut get = Figures::default();
    let mut all: Vec<Seen> =
        subjects.iter().map(|subject| (*subject, Figures::default())).collect();
    for round in 1..=bench.runs {
        bench.interrupt.check()?;
        bench.says(&format!("cold {round}/{}", bench.runs));
        warm_memory(bench)?;
        get.add("get".to_owned(), get_it(bench, &origin)?);
        Subject::each(bench, &mut all, |subject, figures| {
            measure_one(bench, subject, &tree, figures)
        })?;
    }
    Ok(rows(bench, &get, &all))
}

/// Each load through an empty mount of its own.
fn measure_one(
    bench: &Bench,
    subject: Subject,
    tree: &Tree,
    figures: &mut Figures,
) -> Result<(), Failure> {
    for load in LOADS {
        bench.interrupt.check()?;
        warm_memory(bench)?;
        let mounted = subject.mount(bench, tree, &bench.fresh_dir(WORK)?)?;
        let file = mounted.dir.join(FILE);
        let begun = Instant::now();
        load.run(&file)?;
        figures.add(load.name(), begun.elapsed().as_secs_f64());
        if load == Load::Sequential {
            figures.add("pages".to_owned(), pages(subject, &mounted)?);
        }
        drop(mounted);
        // What it kept may be large.
        bench.fresh_dir(WORK)?;
    }
    Ok(())
}

/// What the host of a virtual machine takes for memory that it gives back is nobody's. The pages of a mount and of a store.
fn warm_memory(bench: &Bench) -> Result<(), Failure> {
    let memory = bench.memory_dir()?;
    measure::use_memory(&memory.path().join("used"), (2 * bench.size).min(MEMORY))
}

/// Seconds of `dfctl get` of it.
fn get_it(bench: &Bench, origin: &Origin) -> Result<f64, Failure> {
    let out = bench.fresh_dir("out")?.join(FILE);
    let mut get = Dfctl::new(&bench.binaries).command()?;
    get.args(["--solo", "-q", "get", &origin.url(&format!("/{FILE}")), "-o"]).arg(&out);
    let took = measure::wall(&mut get)?.as_secs_f64();
    fs::remove_file(&out).map_err(failed(&out))?;
    Ok(took)
}

/// Bytes in the page cache, of what is shown and of what is kept.
fn pages(subject: Subject, mounted: &Mounted) -> Result<f64, Failure> {
    let mut files = Vec::new();
    collect(&mounted.kept, &mut files)?;
    if subject.has_own_pages() {
        files.push(mounted.dir.join(FILE));
    }
    let mut fincore = Command::new("fincore");
    fincore.args(["--bytes", "--noheadings", "--raw", "--output", "RES"]).args(files);
    let said = said(&mut fincore)?;
    Ok(said.lines().filter_map(|line| line.trim().parse::<f64>().ok()).sum())
}

/// The plain files below `path`, or itself.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let kind = path.symlink_metadata().map_err(failed(path))?.file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(path).map_err(failed(path))? {
            collect(&entry.map_err(failed(path))?.path(), files)?;
        }
    } else if kind.is_file() {
        files.push(path.to_owned());
    }
    Ok(())
}

fn rows(bench: &Bench, get: &Figures, all: &[Seen]) -> Vec<Row> {
    let Some(get) = get.median("get") else { return Vec::new() };
    let (row, value) = ("P7.cold".to_owned(), bench.size as f64 / get / 1e6);
    let mut rows =
        vec![Row { row, subject: "dfctl get", value, unit: "MB/s", goal: None, runs: bench.runs }];
    let mut add = |row: &str, subject: Subject, value, unit, goal| {
        let (row, subject, runs) = (row.to_owned(), subject.name(), bench.runs);
        rows.push(Row { row, subject, value, unit, goal, runs });
    };
    for load in LOADS {
        let row = match load {
            Load::Sequential => "P7.cold".to_owned(),
            _ => format!("P7.cold.{}", load.name()),
        };
        for (subject, figures) in all {
            let Some(took) = figures.median(&load.name()) else { continue };
            let goal = matches!(subject, Subject::Dfs(_)).then_some(Goal::AtLeast(0.9));
            add(&row, *subject, get / took, "× dfctl get", goal);
        }
    }
    for (subject, figures) in all {
        let Some(pages) = figures.median("pages") else { continue };
        // What the agent answers is copied: the mount has pages beside those of the store.
        let is_shared = matches!(subject, Subject::Dfs(Lane::Passthrough | Lane::Kernel));
        let goal = is_shared.then_some(Goal::AtMost(1.15));
        add("P7.pages", *subject, pages / bench.size as f64, "× bytes read", goal);
    }
    rows
}
