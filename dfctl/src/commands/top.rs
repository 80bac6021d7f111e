//! `dfctl top`.

use super::swarm::backend;
use super::watching::Watch;
use crate::backend::swarm::{Detail, Which};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::Format;
use crate::output::swarm::screen;

/// Show what the cluster is busy with, live
///
/// Examples:
///   dfctl top
///   dfctl top --once --format json
///
/// Each task with its hosts: how many have all of it, want something, and get nothing (`dfctl why TASK` says why); how
/// fast it moves; what left the source for it. On a terminal it is drawn every second until Ctrl-C, in a pipe there is a
/// line every few seconds, and with --format jsonl an object for each task every second.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Only what is there now
    #[arg(long, env = "DFS_ONCE", hide_env_values = true)]
    once: bool,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let backend = backend(context).await?;
    let mut watch = Watch::new(context, &*backend, Which::All, Detail::Summary, args.once);
    loop {
        let tasks = watch.look().await?;
        match context.output.format {
            Format::Human => watch
                .show(|rates| screen::all(&tasks, rates), |rates| screen::totals(&tasks, rates))?,
            Format::Jsonl => tasks.iter().try_for_each(|task| watch.tell(task))?,
            Format::Json | Format::Name => watch.list(&tasks)?,
        }
        if watch.is_once() {
            return Ok(Outcome::Done);
        }
        watch.pause().await?;
    }
}
