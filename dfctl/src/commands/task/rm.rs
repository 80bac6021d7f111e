//! `dfctl task rm`, which is `dfctl cache rm` too.

use std::time::Duration;

use dfs_model::ByteSize;
use serde_json::{Value, json};

use crate::ask;
use crate::backend::{Backend, CachedTask, FailureClass, Pins};
use crate::codes;
use crate::commands::cache::what::all_tasks;
use crate::commands::inside::{answer, interrupted};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::{self, Record, printable};

/// How often one looks whether a task is still in use.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Remove tasks from this machine; what is in use or pinned is refused
///
/// Examples:
///   dfctl task rm 9f2c41
///   dfctl task rm --wait --yes 9f2c41 https://host/data/
///
/// What goes can be fetched again, as long as its origin or a neighbour has it. Where one task is refused, none is
/// removed. Only the agent's own user and root may do it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    removal: Removal,
}

/// What is removed and how.
#[derive(clap::Args)]
pub struct Removal {
    /// Ids of tasks or the beginnings of them; a path inside of a mount, or a URL, means the tasks in which it lies
    #[arg(required = true, value_name = "TASK|FILE|URL", value_hint = clap::ValueHint::AnyPath)]
    tasks: Vec<String>,
    /// Remove what is in use as soon as nothing uses it
    #[arg(short, long, env = "DFS_WAIT", hide_env_values = true)]
    wait: bool,
    /// Remove also what is pinned
    #[arg(long, env = "DFS_UNPIN", hide_env_values = true)]
    unpin: bool,
    /// Do not ask
    #[arg(short, long, env = "DFS_YES", hide_env_values = true)]
    yes: bool,
    /// Only say what would go
    #[arg(short = 'n', long, env = "DFS_DRY_RUN", hide_env_values = true)]
    dry_run: bool,
}

/// A task that went, or would.
struct Removed {
    task: CachedTask,
    freed: u64,
}

impl Record for Removed {
    fn json(&self) -> Value {
        json!({
            "task": self.task.task.id.to_string(),
            "url": self.task.task.place().to_string(),
            "freed_bytes": self.freed,
        })
    }

    fn name(&self) -> Vec<u8> {
        self.task.task.id.to_string().into_bytes()
    }
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    args.removal.run(context).await
}

impl Removal {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Outcome, CliError> {
        let (backend, tasks) = all_tasks(context, &self.tasks, "cache rm").await?;
        self.refuse(&tasks)?;
        let whole: u64 = tasks.iter().map(|task| task.disk).sum();
        let all = format!("{}, {}", output::tasks(tasks.len()), ByteSize(whole));
        if self.dry_run {
            let would: Vec<_> =
                tasks.into_iter().map(|task| Removed { freed: task.disk, task }).collect();
            context.output.records("removed", &would, || listed("would remove", &would, &all))?;
            return Ok(Outcome::Done);
        }
        if !self.yes {
            tasks.iter().for_each(|task| context.output.say(&line("", task, task.disk)));
            if !ask::confirmed(context, &format!("remove {all}?")).await? {
                context.output.note("nothing was removed");
                return Ok(Outcome::Nothing);
            }
        }
        let mut removed = Vec::new();
        for task in tasks {
            let freed = self.remove(context, &*backend, &task).await.map_err(|error| {
                let before = output::tasks(removed.len());
                if removed.is_empty() {
                    error
                } else {
                    error.because(format!("removed before: {before}"))
                }
            })?;
            removed.push(Removed { task, freed });
        }
        let freed: u64 = removed.iter().map(|one| one.freed).sum();
        let all = format!("{}, {}", output::tasks(removed.len()), ByteSize(freed));
        context.output.report_all("removed", &removed, || listed("removed", &removed, &all))?;
        Ok(Outcome::Done)
    }

    /// What may not go is told before anything goes.
    fn refuse(&self, tasks: &[CachedTask]) -> Result<(), CliError> {
        let used = tasks.iter().filter(|task| task.in_use && !self.wait);
        let used = used.map(|task| (task, "is in use"));
        let pinned = tasks.iter().filter(|task| task.pinned && !self.unpin);
        let mut refused = used.chain(pinned.map(|task| (task, "is pinned"))).peekable();
        let Some((_, first_reason)) = refused.peek() else { return Ok(()) };
        let way_out = match *first_reason {
            "is pinned" => "the same command with --unpin",
            _ => "dfctl mounts      or the same command with --wait: as soon as nothing uses it",
        };
        let error = CliError::new(&codes::TASK_IN_USE, "nothing was removed").hint(way_out);
        Err(refused.fold(error, |error, (task, reason)| {
            let url = task.task.place();
            error.because(format!("task {} {reason}: {url}", task.task.id.short()))
        }))
    }

    async fn remove(
        &self,
        context: &Context,
        backend: &dyn Backend,
        task: &CachedTask,
    ) -> Result<u64, CliError> {
        let id = task.task.id;
        let pins = if self.unpin { Pins::GoToo } else { Pins::Count };
        let mut told = false;
        loop {
            let failure = match answer(context, backend.remove_task(id, pins)).await? {
                Ok(freed) => return Ok(freed),
                // Somebody else was faster.
                Err(failure) if failure.class == FailureClass::NoTask => return Ok(0),
                Err(failure) => failure,
            };
            if failure.class != FailureClass::TaskInUse || !self.wait {
                return Err(CliError::backend("remove task", &id.short(), failure));
            }
            if !std::mem::replace(&mut told, true) {
                context.output.note(&format!("waiting: {}", printable(&failure.message)));
            }
            tokio::select! {
                () = context.interrupted.cancelled() => return Err(interrupted()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

fn line(verb: &str, task: &CachedTask, bytes: u64) -> String {
    let url = task.task.place();
    format!("{verb}  {}  {}  {url}", task.task.id.short(), ByteSize(bytes)).trim_start().to_owned()
}

fn listed(verb: &str, tasks: &[Removed], all: &str) -> String {
    let lines: Vec<_> = tasks.iter().map(|one| line(verb, &one.task, one.freed)).collect();
    match lines.len() {
        1 => lines.concat(),
        _ => format!("{}\n{verb} {all}", lines.join("\n")),
    }
}
