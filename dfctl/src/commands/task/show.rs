//! `dfctl task show`.

use dfs_model::{ByteSize, HostKind};

use super::ls::{share, state};
use crate::backend::CachedTask;
use crate::codes;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::records::piece_bytes;
use crate::output::{count, printable, table, when};

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
    let prefix = args.task.to_ascii_lowercase();
    if prefix.is_empty()
        || prefix.len() > 64
        || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        let what = format!("'{}' is not a task id: up to 64 hexadecimal digits", args.task);
        return Err(CliError::new(&codes::USAGE, what).hint("dfctl task ls"));
    }
    let backend = context.resident_backend()?;
    let mut tasks = answer(context, backend.tasks(&prefix))
        .await?
        .map_err(|failure| CliError::backend("show task", &prefix, failure))?;
    let Some(task) = tasks.pop() else {
        let what = format!("this machine holds nothing of a task {prefix}…");
        return Err(CliError::new(&codes::NOT_FOUND, what).hint("dfctl task ls"));
    };
    if !tasks.is_empty() {
        let what = format!("{} tasks begin with {prefix}", tasks.len() + 1);
        let ids: Vec<_> =
            tasks.iter().chain([&task]).take(8).map(|task| task.task.id.short()).collect();
        return Err(CliError::new(&codes::USAGE, what)
            .because(ids.join(", "))
            .hint(format!("dfctl task show {}", task.task.id.short())));
    }
    context.output.record("task", &task, || human(&task))?;
    Ok(Outcome::Done)
}

fn human(cached: &CachedTask) -> String {
    let task = &cached.task;
    let length = match task.length {
        Some(length) => {
            let pieces = length.div_ceil(piece_bytes(task));
            format!(
                "{}, {} pieces of {}",
                ByteSize(length),
                count(pieces),
                ByteSize(piece_bytes(task))
            )
        }
        None => "unknown until its end is reached".to_owned(),
    };
    let from = |kind| ByteSize(cached.ledger.from_kind(kind));
    let mut facts = vec![
        ("task", task.id.to_string()),
        ("url", printable(task.key.url.as_str())),
        ("kind", format!("{:?}", task.key.kind).to_lowercase()),
        ("domain", printable(&task.key.domain)),
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
        ("state", state(cached).to_owned()),
        ("last read", when::ago(cached.last_read_ms)),
        (
            "came from",
            format!(
                "source {} ({} requests), seed {}, peers {}",
                ByteSize(cached.ledger.source),
                cached.ledger.source_requests,
                from(HostKind::Seed),
                from(HostKind::Node),
            ),
        ),
    ];
    if !cached.parents.is_empty() {
        facts.push(("parents", printable(&cached.parents.join(", "))));
    }
    table::facts(&facts)
}
