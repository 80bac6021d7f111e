//! `dfctl sync`.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dfs_source::{FileOptions, ListLimits, S3Options, Sources};

use super::get::Filter;
use super::inside::{Access, missing_error};
use crate::ask;
use crate::backend::{Ledger, Missing};
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::progress::{Meter, Progress};
use crate::output::{Format, count, printable_name, quoted_path};

mod apart;
mod carry_out;
mod confirm;
mod destination;
mod into_bucket;
mod into_directory;
mod item;
mod origin;
mod plan;
mod planning;
mod seen;
mod told;

use destination::Destination;
use item::Item;
use origin::Origin;
pub use origin::of_source_error;
use planning::Planned;
use told::Synced;

/// Directories below one another, and entries, of a directory of this machine.
const DEEPEST: usize = 256;
const MOST_ENTRIES: usize = 100_000_000;

/// Make a directory or bucket what a source is: only what changed moves
///
/// Examples:
///   dfctl sync https://host/dir/ data
///   dfctl sync --delete data s3://bucket/data/
///
/// SRC is a directory of this machine, a listing on the web, a bucket's prefix, or an archive, also with !path; DST
/// a directory or a bucket's prefix. A file is the same when length and time of change are; a directory keeps the
/// time, a bucket keeps it beside the object. Files are replaced whole or not at all, and a run that was cut short is
/// taken up by the next. A bucket holds no symbolic links, permissions or empty directories.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// What to copy: URL, `URL!path`, or a directory of this machine
    #[arg(value_name = "SRC")]
    source: String,
    /// Where to: a directory of this machine, or s3://bucket/prefix/
    #[arg(value_name = "DST")]
    destination: String,
    #[command(flatten)]
    access: Access,
    /// Delete what is in DST and not in SRC, once all else is done; asks first
    #[arg(long, env = "DFS_DELETE", hide_env_values = true)]
    delete: bool,
    /// Only say what would be done
    #[arg(short = 'n', long, env = "DFS_DRY_RUN", hide_env_values = true)]
    dry_run: bool,
    /// Answer yes beforehand
    #[arg(short, long, env = "DFS_YES", hide_env_values = true)]
    yes: bool,
    /// Compare the bytes of files of the same length, instead of their times
    #[arg(long, env = "DFS_CHECKSUM", hide_env_values = true)]
    checksum: bool,
    /// Only files that match, on both sides; a pattern without / matches names at any depth, one with / whole paths
    #[arg(long, value_name = "GLOB", env = "DFS_INCLUDE", hide_env_values = true)]
    include: Vec<String>,
    /// Nothing that matches, on both sides, nor what lies below it; counts more than --include
    #[arg(long, value_name = "GLOB", env = "DFS_EXCLUDE", hide_env_values = true)]
    exclude: Vec<String>,
}

/// What is decided before anything is looked at.
struct Wishes {
    delete: bool,
    dry_run: bool,
    yes: bool,
    checksum: bool,
    filter: Filter,
}

/// A sync under way.
struct Run<'a> {
    context: &'a Context,
    origin: Origin,
    destination: Destination,
    /// The source as people know it.
    shown: String,
    /// Whether what the source lacks goes.
    deletes: bool,
    progress: RefCell<Progress<'a>>,
    tally: Tally,
    /// Part files that stay for a later run.
    left: RefCell<Vec<PathBuf>>,
}

/// What was done.
#[derive(Debug, Default)]
struct Tally {
    files: Cell<u64>,
    bytes: Cell<u64>,
    deleted: Cell<u64>,
    failed: Cell<u64>,
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get().saturating_add(more));
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let begun = Instant::now();
    let wishes = Wishes {
        delete: args.delete,
        dry_run: args.dry_run,
        yes: args.yes,
        checksum: args.checksum,
        filter: Filter::new(&args.include, &args.exclude)?,
    };
    let source = args.access.locate(context, &args.source).await?;
    let destination = args.access.locate_output(context, &args.destination).await?;
    apart::check(&source, &destination)?;
    if wishes.delete && !wishes.dry_run && !wishes.yes {
        ask::attended(&format!("delete what {} has alone?", destination.shown()))?;
    }
    let sources = sources(context)?;
    let shown = source.shown();
    let destination = Destination::open(context, &sources, destination).await?;
    let origin = Origin::open(context, &sources, source).await?;
    let planned = planning::plan(context, &wishes, &origin, &destination, &shown).await;
    let planned = planned?;
    planned.parts_left().for_each(|parts| context.output.note(&parts));
    if wishes.dry_run {
        return dry_run(context, &wishes, &planned, &shown, &destination);
    }
    let deletes = wishes.delete && planned.totals.deletes > 0;
    let held = held_back(&planned, deletes);
    let deletes = deletes && held.is_none();
    let asks = deletes && !wishes.yes;
    if asks && !confirm::confirmed(context, &planned, &destination.shown()).await? {
        context.output.note("nothing was done");
        return Ok(Outcome::Nothing);
    }
    destination.take_back(context).await?;
    let meter = Meter::new(&destination.shown(), Some(planned.totals.bytes), 0);
    let progress = Progress::new(&context.output, context.settings.progress, meter);
    let run = Run {
        context,
        origin,
        destination,
        shown,
        deletes,
        progress: RefCell::new(progress),
        tally: Tally::default(),
        left: RefCell::default(),
    };
    let done = run.carry_out(&planned).await;
    sources.settle().await;
    run.progress.borrow_mut().finish();
    done?;
    run.conclude(&planned, &wishes, held, begun.elapsed())
}

fn sources(context: &Context) -> Result<Sources, CliError> {
    let listing = ListLimits { depth: DEEPEST, entries: MOST_ENTRIES, ..ListLimits::default() };
    let files = FileOptions { listing, ..FileOptions::default() };
    let unfinished = context.settings.sync_dir().ok();
    let s3 = S3Options { unfinished, ..S3Options::of_process() };
    context.sources(files).s3(s3).build().map_err(|error| {
        CliError::new(&codes::BAD_CONFIG, "cannot set up the access to files and stores")
            .caused_by(&error)
    })
}

/// Why nothing is deleted although that was asked for.
fn held_back(planned: &Planned, deletes: bool) -> Option<&'static str> {
    match () {
        () if !deletes => None,
        () if !planned.holes.is_empty() => {
            Some("nothing is deleted: what is missing in the listing may be there")
        }
        () if planned.totals.listed == 0 => {
            Some("nothing is deleted: the source is empty, which it may not be meant to be")
        }
        () => None,
    }
}

/// Says what would be done, and does nothing.
fn dry_run(
    context: &Context,
    wishes: &Wishes,
    planned: &Planned,
    shown: &str,
    destination: &Destination,
) -> Result<Outcome, CliError> {
    let held = held_back(planned, wishes.delete && planned.totals.deletes > 0);
    told::steps(&context.output, planned, wishes.delete && held.is_none())?;
    tell_holes(context, shown, &planned.holes);
    let synced = Synced::of_plan(planned, shown, &destination.shown(), held.is_none());
    if context.output.format == Format::Human {
        context.output.note(&synced.would());
    }
    match (planned.holes.is_empty(), held) {
        (true, None) if planned.totals.is_nothing(wishes.delete) => Ok(Outcome::Nothing),
        (true, None) => Ok(Outcome::Done),
        (_, held) => Err(partly(0, &planned.holes, shown, held)),
    }
}

fn tell_holes(context: &Context, shown: &str, holes: &[Missing]) {
    holes.iter().for_each(|hole| context.output.error(&missing_error(shown, hole)));
}

/// Some of it was not done: what `failed` may come another time, a hole of the source stays one.
fn partly(failed: u64, holes: &[Missing], shown: &str, held: Option<&str>) -> CliError {
    let not_done = failed + holes.len() as u64;
    let what = match not_done {
        0 => format!("{shown} was not synced completely"),
        1 => format!("1 entry of {shown} was not synced"),
        failed => format!("{} entries of {shown} were not synced", count(failed)),
    };
    let error = CliError::new(&codes::PARTLY, what);
    let error = if not_done > 0 { error.because("each is named above") } else { error };
    let error = held.into_iter().fold(error, |error, why| error.because(why));
    let can_be_left_out = holes.iter().all(|hole| !hole.path.is_empty());
    error.hint(match failed == 0 && not_done > 0 && can_be_left_out {
        true => "the same command with --exclude GLOB leaves these out",
        false => "the same command again: it takes what is missing",
    })
}

impl Run<'_> {
    /// A file of the source, for people.
    fn name_in_source(&self, item: &Item) -> String {
        let name = printable_name(&item.entry.path);
        let separator = if self.shown.ends_with('/') { "" } else { "/" };
        match &self.origin {
            Origin::Directory { .. } => format!("{}{separator}{name}", self.shown),
            Origin::Artifact { locator, .. } => match &locator.inner {
                Some(_) => format!("{}/{name}", self.shown),
                None => format!("{}!{name}", self.shown),
            },
        }
    }

    /// One entry's failure is told at once, and the others go on.
    fn note(&self, error: &CliError) {
        add(&self.tally.failed, 1);
        self.context.output.error(error);
    }

    /// Says how it ended.
    fn conclude(
        &self,
        planned: &Planned,
        wishes: &Wishes,
        held: Option<&'static str>,
        took: Duration,
    ) -> Result<Outcome, CliError> {
        tell_holes(self.context, &self.shown, &planned.holes);
        let failed = self.tally.failed.get() + planned.holes.len() as u64;
        let held = held.or_else(|| {
            (self.deletes && self.tally.failed.get() > 0)
                .then_some("nothing is deleted while something is not done")
        });
        if failed == 0 && planned.is_of_all {
            self.destination.settle();
        }
        if let Some(left_out) = planned.left_out(&self.origin, &self.destination) {
            self.context.output.note(&left_out);
        }
        let ledger: Ledger = self.progress.borrow().meter().ledger();
        let synced = Synced {
            copied: self.tally.files.get(),
            bytes: self.tally.bytes.get(),
            deleted: self.tally.deleted.get(),
            failed,
            took,
            ledger,
            ..Synced::of_plan(planned, &self.shown, &self.destination.shown(), false)
        };
        self.context.output.report("synced", &synced, || synced.line())?;
        match (failed, held) {
            (0, None) if planned.totals.is_nothing(wishes.delete) => Ok(Outcome::Nothing),
            (0, None) => Ok(Outcome::Done),
            (_, held) => Err(partly(self.tally.failed.get(), &planned.holes, &self.shown, held)),
        }
    }

    /// An end in the middle, with what is there already and how to go on.
    fn stopped(&self, error: CliError) -> CliError {
        let files = crate::output::files(self.tally.files.get());
        let mut error = error.because(format!("{files} are done"));
        for part in self.left.borrow().iter() {
            if !error.names(part) {
                error = error.because(format!("a part is in {}", quoted_path(part)));
            }
        }
        let first = if error.code == &codes::NO_SPACE { "make room there, then " } else { "" };
        error.hint(format!("{first}the same command again: it goes on from there"))
    }
}
