//! `dfctl runtime …`.

use clap::Subcommand;

use crate::context::Context;
use crate::error::{CliError, Outcome};

mod install;

/// What to do with container runtimes.
#[derive(Subcommand)]
pub enum Command {
    Install(install::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Outcome, CliError> {
        match self {
            Self::Install(args) => install::run(args, context).await,
        }
    }
}
