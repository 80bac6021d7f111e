//! `dfctl ls`.

use std::num::NonZeroU16;

use dfs_model::ByteSize;
use futures::stream::BoxStream;

use super::inside::{self, Named, answer, entry_at, missing_error, next};
use crate::backend::{
    Backend, Entry, EntryKind, Failure, FailureClass, Listed, Missing, Purpose, View,
};
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::locator::Locator;
use crate::output::{Format, Items, Output, missing, printable_name, when};

/// List what is behind a URL
///
/// Examples:
///   dfctl ls https://host/dir/
///   dfctl ls -r https://host/source.tar!src
///   dfctl ls --depth 2 s3://bucket/prefix/
///
/// With --format name, names are as they are, one a line; on a terminal what does not print is written out.
/// A name may hold a newline: scripts that must not be fooled take --null, as in
/// dfctl ls -r0 URL | xargs -0 printf '%s\n'.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    named: Named,
    /// Everything below, not only the next level
    #[arg(short, long, env = "DFS_RECURSIVE", hide_env_values = true)]
    recursive: bool,
    /// Everything below, no more than so many levels deep; of a directory or bucket the origin is asked for no more
    #[arg(long, value_name = "LEVELS", env = "DFS_DEPTH", hide_env_values = true)]
    depth: Option<NonZeroU16>,
    /// Only names, each ended by a NUL byte instead of a newline, which names may hold
    #[arg(short = '0', long, env = "DFS_NULL", hide_env_values = true)]
    null: bool,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let locator = args.named.locate(context).await?;
    if args.null && !matches!(context.output.format, Format::Human | Format::Name) {
        let what = "--null prints names, which is not what --format asks for";
        return Err(CliError::new(&codes::USAGE, what).hint("one of the two"));
    }
    let shown = locator.shown();
    let backend = inside::backend(context).await?;
    let mut listing = Listing::new(&context.output, args.null);
    let whole = args.recursive && args.depth.is_none();
    let levels = args.depth.map_or(1, |depth| u32::from(depth.get()));
    let top = locator.inner.clone().unwrap_or_default();
    // Directories to be looked into and what comes before them, the next one last.
    let mut due = vec![Due::Inside { path: top, levels }];
    while let Some(next_one) = due.pop() {
        let (path, levels) = match next_one {
            Due::Shown { entry, levels } => {
                listing.show(&entry)?;
                if entry.kind == EntryKind::Directory && levels > 0 {
                    due.push(Due::Inside { path: entry.path, levels });
                }
                continue;
            }
            Due::Inside { path, levels } => (path, levels),
        };
        let entries = backend.list(&locator.target, &path, whole);
        if levels == 1 {
            let show = |listing: &mut Listing<'_>, entry: Entry| listing.show(&entry);
            listing.take(context, (&*backend, &locator), entries, show).await?;
            continue;
        }
        let mut found = Vec::new();
        let keep = |_: &mut Listing<'_>, entry| {
            found.push(entry);
            Ok(())
        };
        listing.take(context, (&*backend, &locator), entries, keep).await?;
        // As when all of it is listed at once.
        found.sort_by(|a, b| order(b).cmp(order(a)));
        due.extend(found.into_iter().map(|entry| Due::Shown { entry, levels: levels - 1 }));
    }
    listing.items.finish()?;
    let missed = listing.missed;
    if missed.is_empty() {
        return Ok(Outcome::Done);
    }
    missed.iter().for_each(|one| context.output.error(&missing_error(&shown, one)));
    let what = format!("{shown} is listed with {}", missing(missed.len() as u64));
    Err(CliError::new(&codes::PARTLY, what).because("each is named above"))
}

/// What a listing of some levels still has to do.
enum Due {
    /// Tell of this, and of so many levels below it.
    Shown { entry: Entry, levels: u32 },
    /// List this directory and so many levels in all.
    Inside { path: Vec<u8>, levels: u32 },
}

/// The bytes of a path, a directory's with a slash behind it.
fn order(entry: &Entry) -> impl Iterator<Item = &u8> {
    let end: &[u8] = if entry.kind == EntryKind::Directory { b"/" } else { b"" };
    entry.path.iter().chain(end)
}

/// What is named is a single file: its own entry.
async fn the_file(backend: &dyn Backend, locator: &Locator) -> Result<Entry, Failure> {
    if let Some(path) = &locator.inner {
        return entry_at(backend, locator, path).await;
    }
    let artifact = backend.open(&locator.target, View::File, Purpose::Look).await?;
    let name = locator.file_name().unwrap_or_else(|| "content".to_owned());
    Ok(Entry {
        path: name.into_bytes(),
        kind: EntryKind::File,
        length: artifact.bytes,
        mode: 0o444,
        mtime: (0, 0),
        uid: 0,
        gid: 0,
        link_target: Vec::new(),
    })
}

struct Listing<'a> {
    output: &'a Output,
    items: Items<'a>,
    null: bool,
    shown: u64,
    missed: Vec<Missing>,
}

impl<'a> Listing<'a> {
    fn new(output: &'a Output, null: bool) -> Self {
        Self { output, items: Items::new(output, "entries"), null, shown: 0, missed: Vec::new() }
    }

    /// Takes what is listed, and of what is no directory itself.
    async fn take(
        &mut self,
        context: &Context,
        (backend, locator): (&dyn Backend, &Locator),
        mut entries: BoxStream<'static, Result<Listed, Failure>>,
        mut each: impl FnMut(&mut Self, Entry) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let shown = locator.shown();
        let failed = |failure| CliError::backend("list", &shown, failure);
        while let Some(entry) = next(context, &mut entries).await? {
            match entry {
                Ok(Listed::Entry(entry)) => each(self, entry)?,
                Ok(Listed::Missing(one)) => self.missed.push(one),
                Err(failure) if failure.class == FailureClass::NotTree && self.shown == 0 => {
                    let file = answer(context, the_file(backend, locator)).await?;
                    return self.show(&file.map_err(failed)?);
                }
                Err(failure) => return Err(failed(failure)),
            }
        }
        Ok(())
    }

    /// Entries are shown as they come: a listing may be long.
    fn show(&mut self, entry: &Entry) -> Result<(), CliError> {
        self.shown += 1;
        if self.null {
            self.output.bytes(&entry.path)?;
            return self.output.bytes(b"\0");
        }
        if self.output.format == Format::Human {
            return self.output.line(&human(entry));
        }
        self.items.push(entry)
    }
}

fn human(entry: &Entry) -> String {
    let size = match entry.kind {
        EntryKind::File => ByteSize(entry.length).to_string(),
        EntryKind::Directory | EntryKind::Symlink | EntryKind::Other => "-".to_owned(),
    };
    let modified = if entry.mtime == (0, 0) { "-".to_owned() } else { when::minute(entry.mtime.0) };
    let name = printable_name(&entry.path);
    let end = match entry.kind {
        EntryKind::Directory => "/".to_owned(),
        EntryKind::Symlink => format!(" -> {}", printable_name(&entry.link_target)),
        EntryKind::File | EntryKind::Other => String::new(),
    };
    format!("{size:>10}  {modified:<17}  {name}{end}")
}
