//! `dfctl cache gc`.

use dfs_model::ByteSize;

use crate::backend::Collected;
use crate::commands::inside::answer;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::tasks;

/// Evict what nobody reads; never what is in use or pinned
///
/// Examples:
///   dfctl cache gc --dry-run
///   dfctl cache gc --target 10GiB
///
/// Only the agent's own user and root may do it; everybody who may use the agent may look with --dry-run.
/// It does not ask: what goes can be fetched again.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Evict until no more than this is used; without it, down to the agent's own
    /// low mark, and until the disk below has 64MiB left
    #[arg(long, value_name = "SIZE", env = "DFS_TARGET", hide_env_values = true)]
    target: Option<ByteSize>,
    /// Only say what would go
    #[arg(short = 'n', long, env = "DFS_DRY_RUN", hide_env_values = true)]
    dry_run: bool,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let backend = context.resident_backend()?;
    let target = args.target.map(|size| size.0);
    let collected = answer(context, backend.collect_garbage(target, args.dry_run))
        .await?
        .map_err(|failure| CliError::backend("clean", "the cache", failure))?;
    let text = || human(&collected, args.dry_run);
    match args.dry_run {
        true => context.output.record("gc", &collected, text)?,
        false => context.output.report("gc", &collected, text)?,
    }
    Ok(if collected.tasks.is_empty() { Outcome::Nothing } else { Outcome::Done })
}

fn human(collected: &Collected, dry_run: bool) -> String {
    if collected.tasks.is_empty() {
        return format!("nothing to evict: {} used", ByteSize(collected.used));
    }
    let (verb, left) = if dry_run { ("would evict", "would be") } else { ("evicted", "are") };
    let mut text = String::new();
    if dry_run {
        collected.tasks.iter().for_each(|id| text.push_str(&format!("{id}\n")));
    }
    let tasks = tasks(collected.tasks.len());
    text.push_str(&format!(
        "{verb} {tasks}, {}; {} {left} still used",
        ByteSize(collected.freed),
        ByteSize(collected.used)
    ));
    text
}
