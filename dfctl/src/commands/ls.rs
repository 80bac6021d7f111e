//! `dfctl ls`.

use dfs_model::ByteSize;

use super::inside::{self, Named, answer, entry_at, missing_error, next};
use crate::backend::{Backend, Entry, EntryKind, Failure, FailureClass, Listed, Purpose, View};
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
    let failed = |failure| CliError::backend("list", &shown, failure);
    let backend = inside::backend(context).await?;
    let path = locator.inner.clone().unwrap_or_default();
    let (mut listing, mut missed) = (Listing::new(&context.output, args.null), Vec::new());
    let mut entries = backend.list(&locator.target, &path, args.recursive);
    while let Some(entry) = next(context, &mut entries).await? {
        match entry {
            Ok(Listed::Entry(entry)) => listing.show(&entry)?,
            Ok(Listed::Missing(one)) => missed.push(one),
            Err(failure) if failure.class == FailureClass::NotTree && listing.shown == 0 => {
                let entry =
                    answer(context, the_file(&*backend, &locator)).await?.map_err(failed)?;
                listing.show(&entry)?;
                break;
            }
            Err(failure) => return Err(failed(failure)),
        }
    }
    listing.items.finish()?;
    if missed.is_empty() {
        return Ok(Outcome::Done);
    }
    missed.iter().for_each(|one| context.output.error(&missing_error(&shown, one)));
    let what = format!("{shown} is listed with {}", missing(missed.len() as u64));
    Err(CliError::new(&codes::PARTLY, what).because("each is named above"))
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
}

impl<'a> Listing<'a> {
    fn new(output: &'a Output, null: bool) -> Self {
        Self { output, items: Items::new(output, "entries"), null, shown: 0 }
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
