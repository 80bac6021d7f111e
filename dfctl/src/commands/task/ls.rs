//! `dfctl task ls`.

use dfs_model::ByteSize;

use crate::backend::CachedTask;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::table::{Align, Table};
use crate::output::when;

/// List the tasks that this machine holds bytes of
///
/// Examples:
///   dfctl task ls
///   dfctl task ls --format name
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs it.
pub async fn run(_args: Args, context: &Context) -> Result<Outcome, CliError> {
    let backend = context.resident_backend()?;
    let tasks = answer(context, backend.tasks(""))
        .await?
        .map_err(|failure| CliError::backend("list", "the tasks", failure))?;
    context.output.records("tasks", &tasks, || table(&tasks))?;
    Ok(Outcome::Done)
}

fn table(tasks: &[CachedTask]) -> String {
    let mut table = Table::new(&[
        ("TASK", Align::Left),
        ("KIND", Align::Left),
        ("LENGTH", Align::Right),
        ("HERE", Align::Right),
        ("READ", Align::Left),
        ("STATE", Align::Left),
        ("URL", Align::Left),
    ]);
    for task in tasks {
        table.row(vec![
            task.task.id.short(),
            format!("{:?}", task.task.key.kind).to_lowercase(),
            task.task
                .length
                .map_or_else(|| "unknown".to_owned(), |length| ByteSize(length).to_string()),
            share(task),
            when::ago(task.last_read_ms),
            state(task),
            task.task.place().to_string(),
        ]);
    }
    table.render()
}

/// How much of a task is here, in percent.
pub fn share(task: &CachedTask) -> String {
    if task.complete {
        return "all".to_owned();
    }
    match task.task.length {
        Some(length) if length > 0 => {
            format!("{} %", u128::from(task.cached) * 100 / u128::from(length))
        }
        _ => ByteSize(task.cached).to_string(),
    }
}

/// In a word or two.
pub fn state(task: &CachedTask) -> String {
    let now = match (task.fetching, task.in_use) {
        (true, _) => "fetching",
        (false, true) => "in use",
        (false, false) => "idle",
    };
    if task.pinned { format!("{now}, pinned") } else { now.to_owned() }
}
