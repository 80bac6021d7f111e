//! What many small things cost: P6 and P10 to P13.

use std::time::{Duration, Instant};

use clap::ValueEnum;

mod bucket;
mod idle;
mod many;
mod tar;
mod tiny;

use super::Bench;
use super::row::{Goal, Row, median};
use crate::run::Failure;

/// A part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// P6: a tiny file through a cluster
    Tiny,
    /// P6: many small files as one tree, from the origin and from those who have them
    Many,
    /// P10: an archive becomes a mount
    Tar,
    /// P11, P12: what it takes to be there, and to start
    Idle,
    /// P10, P13: a bucket of very many objects becomes a mount, and one more comes
    Bucket,
}

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only this part; may be given several times
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Objects in the bucket
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..10_000_000))]
    objects: u64,
    /// How many of them to a directory; 0: all in one
    #[arg(long, default_value_t = 1000)]
    per_directory: u64,
    /// Small files in a tree
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..1_000_000))]
    files: u64,
}

/// Measures part by part.
pub fn measure(bench: &Bench, args: &Args) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for part in Part::value_variants() {
        if !args.only.is_empty() && !args.only.contains(part) {
            continue;
        }
        bench.interrupt.check()?;
        rows.extend(match part {
            Part::Tiny => tiny::measure(bench)?,
            Part::Many => many::measure(bench, args.files)?,
            Part::Tar => tar::measure(bench)?,
            Part::Idle => idle::measure(bench)?,
            Part::Bucket => bucket::measure(bench, args.objects, args.per_directory)?,
        });
    }
    Ok(rows)
}

/// One row of what was measured in each run.
fn row(
    name: &str,
    subject: &'static str,
    values: &[f64],
    unit: &'static str,
    goal: Option<Goal>,
) -> Row {
    let (value, runs) = (median(values), values.len());
    Row { row: name.to_owned(), subject, value, unit, goal, runs }
}

/// How long it takes.
fn timed<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<(T, Duration), Failure> {
    let begun = Instant::now();
    let done = work()?;
    Ok((done, begun.elapsed()))
}
