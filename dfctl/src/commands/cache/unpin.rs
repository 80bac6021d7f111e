//! `dfctl cache unpin`.

use super::pins;
use crate::backend::Pin;
use crate::context::Context;
use crate::error::{CliError, Outcome};

/// Let pinned tasks go the way of all others
///
/// Examples:
///   dfctl cache unpin 9f2c41
///   dfctl cache unpin 9f2c41 77ab03
///
/// They stay until the cache needs their room. Only the agent's own user and root may do it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Ids of tasks, or the beginnings of them
    #[arg(required = true, value_name = "TASK")]
    tasks: Vec<String>,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    pins::change(&args.tasks, Pin::Lift, context).await
}
