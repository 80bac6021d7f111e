//! `dfctl task watch`.

use crate::backend::swarm::{Detail, SwarmTask};
use crate::commands::swarm::{Asked, backend, find};
use crate::commands::watching::Watch;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::Format;
use crate::output::swarm::screen;

/// Watch a swarm: who holds how much, takes from whom, and how fast
///
/// Examples:
///   dfctl task watch 9f2c41
///   dfctl task watch https://host/model.bin --format jsonl
///
/// On a terminal it is drawn every second until Ctrl-C; in a pipe there is a line every few seconds, and with --format
/// jsonl an object every second. It ends by itself when no scheduler knows the task any more.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// A task's id or the beginning of it, a file inside a mount, or a URL
    #[arg(value_name = "TASK|FILE|URL", value_hint = clap::ValueHint::AnyPath)]
    task: String,
    /// Only what is there now
    #[arg(long, env = "DFS_ONCE", hide_env_values = true)]
    once: bool,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let asked = Asked::of(context, &args.task, "task watch").await?;
    let backend = backend(context).await?;
    // Of a file in several tasks the first one is watched.
    let Some(which) = asked.which().into_iter().next() else { return Ok(Outcome::Nothing) };
    let mut watch = Watch::new(context, &*backend, which, Detail::Peers, args.once);
    let mut tasks = find(watch.look().await?, &asked, &args.task)?;
    loop {
        show(context, &mut watch, &tasks)?;
        if watch.is_once() {
            return Ok(Outcome::Done);
        }
        watch.pause().await?;
        tasks = watch.look().await?;
        if tasks.is_empty() {
            context.output.note("no scheduler knows the task any more");
            return Ok(Outcome::Done);
        }
    }
}

fn show(context: &Context, watch: &mut Watch<'_>, tasks: &[SwarmTask]) -> Result<(), CliError> {
    let joined = |one: &dyn Fn(&SwarmTask) -> String, between: &str| {
        tasks.iter().map(one).collect::<Vec<_>>().join(between)
    };
    match context.output.format {
        Format::Human => watch.show(
            |rates| joined(&|task| screen::task(task, rates), "\n\n"),
            |rates| joined(&|task| screen::summary(task, rates), "\n"),
        ),
        Format::Jsonl => tasks.iter().try_for_each(|task| watch.tell(task)),
        Format::Json | Format::Name => watch.list(tasks),
    }
}
