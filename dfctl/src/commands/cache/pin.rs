//! `dfctl cache pin`.

use super::pins;
use crate::backend::Pin;
use crate::context::Context;
use crate::error::{CliError, Outcome};

/// Keep tasks in the cache whatever happens, until they are unpinned
///
/// Examples:
///   dfctl cache pin 9f2c41
///   dfctl cache pin 9f2c41 77ab03
///
/// What is here of a task, and what comes to be here, is neither evicted nor removed by `dfctl cache gc`; nothing is
/// fetched because of it. A pin stays over restarts. Only the agent's own user and root may do it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Ids of tasks, or the beginnings of them
    #[arg(required = true, value_name = "TASK")]
    tasks: Vec<String>,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    pins::change(&args.tasks, Pin::Set, context).await
}
