//! `dfctl stat`.

use dfs_model::ByteSize;

use super::inside::{self, Named, answer, entry_at};
use crate::backend::{Artifact, Entry, EntryKind, FailureClass, Purpose, View};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::records::{is_unpinned, piece_bytes};
use crate::output::{count, files, printable_name, table, when};

/// Say what is behind a URL: kind, size, version, task
///
/// Examples:
///   dfctl stat https://host/model.bin
///   dfctl stat --as tree https://host/source.tar
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    named: Named,
    /// Look at it as one file or as a tree, instead of as a mount would show it
    #[arg(long = "as", value_enum, value_name = "VIEW", env = "DFS_AS", hide_env_values = true)]
    view: Option<View>,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let locator = args.named.locate(context).await?;
    let shown = locator.shown();
    let failed = |failure| CliError::backend("look at", &shown, failure);
    let backend = inside::backend(context).await?;
    if let Some(path) = &locator.inner {
        let entry = answer(context, entry_at(&*backend, &locator, path)).await?.map_err(failed)?;
        context.output.record("entry", &entry, || of_entry(&shown, &entry))?;
        return Ok(Outcome::Done);
    }
    let view = args.view.unwrap_or(View::File);
    let mut opened = answer(context, backend.open(&locator.target, view, Purpose::Look)).await?;
    if args.view.is_none() && opened.as_ref().is_err_and(|f| f.class == FailureClass::IsTree) {
        opened = answer(context, backend.open(&locator.target, View::Auto, Purpose::Look)).await?;
    }
    let artifact = opened.map_err(failed)?;
    context.output.record("artifact", &artifact, || of_artifact(&artifact))?;
    Ok(Outcome::Done)
}

fn of_entry(shown: &str, entry: &Entry) -> String {
    let mut facts = vec![
        ("name", shown.to_owned()),
        ("kind", entry.kind.word().to_owned()),
        ("length", exact(entry.length)),
        ("mode", format!("{:04o}", entry.mode & 0o7777)),
        ("owner", format!("{}:{}", entry.uid, entry.gid)),
        ("modified", when::iso(entry.mtime.0)),
    ];
    if entry.kind == EntryKind::Symlink {
        facts.push(("target", printable_name(&entry.link_target)));
    }
    table::facts(&facts)
}

fn of_artifact(artifact: &Artifact) -> String {
    let mut facts = vec![("url", artifact.url.clone())];
    match artifact.view {
        View::Tree => {
            facts.push(("kind", format!("tree of {}", files(artifact.files))));
            facts.push(("content", exact(artifact.bytes)));
        }
        View::File | View::Auto => facts.push(("kind", "file".to_owned())),
    }
    if let Some(index) = &artifact.index {
        facts.push(("index", format!("{}  {}", index.id, length(index.length))));
    }
    for task in &artifact.tasks {
        facts.push(("task", format!("{}  {}", task.id, length(task.length))));
        facts.push(("pieces", format!("of {}", ByteSize(piece_bytes(task)))));
        let validator = &task.key.validator;
        let version = [
            validator.version.as_ref().map(|version| format!("version {version}")),
            validator.etag.as_ref().map(|etag| format!("ETag {etag}")),
            validator.modified.as_ref().map(|modified| format!("modified {modified}")),
        ];
        let version: Vec<_> = version.into_iter().flatten().collect();
        let version = match version.is_empty() {
            true => "unpinned: the origin names no version".to_owned(),
            false if is_unpinned(task) => format!("{} (unpinned)", version.join(", ")),
            false => version.join(", "),
        };
        facts.push(("version", version));
        if !task.ranges {
            facts.push(("ranges", "no: the origin sends it whole or not at all".to_owned()));
        }
    }
    table::facts(&facts)
}

fn exact(bytes: u64) -> String {
    match bytes {
        0..1024 => ByteSize(bytes).to_string(),
        _ => format!("{} ({} bytes)", ByteSize(bytes), count(bytes)),
    }
}

fn length(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "length unknown".to_owned(), exact)
}
