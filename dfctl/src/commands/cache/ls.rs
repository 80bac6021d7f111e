//! `dfctl cache ls`.

use dfs_model::ByteSize;

use crate::backend::{AgentStatus, CachedTask};
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::table::{Align, Table};
use crate::output::{printable, tasks as tasks_in_words, when};

/// List what the cache holds, the longest unread first
///
/// Examples:
///   dfctl cache ls
///   dfctl cache ls --format jsonl
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs it.
pub async fn run(_args: Args, context: &Context) -> Result<Outcome, CliError> {
    let backend = context.resident_backend()?;
    let failed = |failure| CliError::backend("list", "the cache", failure);
    let mut tasks = answer(context, backend.tasks("")).await?.map_err(failed)?;
    let status = answer(context, backend.status()).await?.map_err(failed)?;
    tasks.sort_by_key(|task| task.last_read_ms);
    context.output.records("cache", &tasks, || human(&tasks, &status))?;
    Ok(Outcome::Done)
}

/// Why eviction leaves it alone.
fn kept_for(task: &CachedTask) -> &'static str {
    match (task.in_use, task.pinned) {
        (true, true) => "in use, pinned",
        (true, false) => "in use",
        (false, true) => "pinned",
        (false, false) => "-",
    }
}

/// How much the cache takes, and where.
pub fn taken(status: &AgentStatus) -> String {
    let of = match status.capacity {
        0 => String::new(),
        capacity => format!(" of {}", ByteSize(capacity)),
    };
    let medium = match &*status.medium {
        "" | "disk" => String::new(),
        medium => format!("{} ", printable(medium)),
    };
    let dir = if status.cache_dir.is_empty() { &status.data_dir } else { &status.cache_dir };
    format!("{}{of} in {medium}{}", ByteSize(status.used), printable(dir))
}

fn human(tasks: &[CachedTask], status: &AgentStatus) -> String {
    let mut table = Table::new(&[
        (if status.medium == "memory" { "IN MEMORY" } else { "ON DISK" }, Align::Right),
        ("READ", Align::Left),
        ("USE", Align::Left),
        ("TASK", Align::Left),
        ("URL", Align::Left),
    ]);
    for task in tasks {
        table.row(vec![
            ByteSize(task.disk).to_string(),
            when::ago(task.last_read_ms),
            kept_for(task).to_owned(),
            task.task.id.short(),
            task.task.key.url.to_string(),
        ]);
    }
    let number = tasks_in_words(tasks.len());
    let used = format!("{number}, {}", taken(status));
    if tasks.is_empty() { used } else { format!("{}\n{used}", table.render()) }
}
