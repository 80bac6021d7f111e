//! `dfctl cache rm`: the same as `dfctl task rm`.

use crate::commands::task::Removal;
use crate::context::Context;
use crate::error::{CliError, Outcome};

/// Remove tasks from the cache, as dfctl task rm does
///
/// Examples:
///   dfctl cache rm 9f2c41
///   dfctl cache rm --dry-run 9f2c41 77ab03
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    removal: Removal,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    args.removal.run(context).await
}
