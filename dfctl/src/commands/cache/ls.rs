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

fn human(tasks: &[CachedTask], status: &AgentStatus) -> String {
    let mut table = Table::new(&[
        ("ON DISK", Align::Right),
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
    let of = match status.capacity {
        0 => String::new(),
        capacity => format!(" of {}", ByteSize(capacity)),
    };
    let number = tasks_in_words(tasks.len());
    let used =
        format!("{number}, {}{of} in {}", ByteSize(status.used), printable(&status.data_dir));
    if tasks.is_empty() { used } else { format!("{}\n{used}", table.render()) }
}
