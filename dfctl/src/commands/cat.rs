//! `dfctl cat`.

use super::get::{self, Destination, ReadOptions};
use super::inside::Named;
use crate::context::Context;
use crate::error::{CliError, Outcome};

/// Write the content behind a URL to the standard output
///
/// Examples:
///   dfctl cat https://host/notes.txt
///   dfctl cat https://host/source.tar!src/main.rs
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    options: ReadOptions,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let locator = args.named.locate(context).await?;
    get::single::to_stream(context, &locator, &args.options, Destination::Stdout).await?;
    Ok(Outcome::Done)
}
