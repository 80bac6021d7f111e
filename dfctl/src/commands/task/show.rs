//! `dfctl task show`.

use dfs_model::{ByteSize, HostKind};

use super::ls::{share, state};
use super::named::named;
use crate::backend::CachedTask;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::records::piece_bytes;
use crate::output::{counted, table, when};

/// Show one task in full
///
/// Examples:
///   dfctl task show 9f2c41
///   dfctl task show 9f2c41 --format json
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Its id, or the beginning of it
    task: String,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let backend = context.resident_backend()?;
    let task = named(context, &*backend, &args.task).await?;
    context.output.record("task", &task, || human(&task))?;
    Ok(Outcome::Done)
}

fn human(cached: &CachedTask) -> String {
    let task = &cached.task;
    let length = match task.length {
        Some(length) => {
            let pieces = length.div_ceil(piece_bytes(task));
            format!(
                "{}, {} of {}",
                ByteSize(length),
                counted(pieces, "piece", "pieces"),
                ByteSize(piece_bytes(task))
            )
        }
        None => "unknown until its end is reached".to_owned(),
    };
    let from = |kind| ByteSize(cached.ledger.from_kind(kind));
    let mut facts = vec![
        ("task", task.id.to_string()),
        ("url", task.place().to_string()),
        ("kind", format!("{:?}", task.key.kind).to_lowercase()),
        ("domain", task.key.domain.clone()),
        ("length", length),
        (
            "here",
            format!(
                "{} ({}), {} on disk",
                share(cached),
                ByteSize(cached.cached),
                ByteSize(cached.disk)
            ),
        ),
        ("state", state(cached)),
        ("last read", when::ago(cached.last_read_ms)),
        (
            "came from",
            format!(
                "source {} ({}), seed {}, peers {}",
                ByteSize(cached.ledger.source),
                counted(cached.ledger.source_requests, "request", "requests"),
                from(HostKind::Seed),
                from(HostKind::Node),
            ),
        ),
    ];
    if task.place.is_some() {
        facts.insert(2, ("name", task.key.url.to_string()));
    }
    if !cached.parents.is_empty() {
        facts.push(("parents", cached.parents.join(", ")));
    }
    table::facts(&facts)
}
