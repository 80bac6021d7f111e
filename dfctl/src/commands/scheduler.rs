//! `dfctl scheduler …`.

use clap::Subcommand;

use crate::context::Context;
use crate::error::{CliError, Outcome};

mod compare;

/// What to ask of schedulers.
#[derive(Subcommand)]
pub enum Command {
    Compare(compare::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Outcome, CliError> {
        match self {
            Self::Compare(args) => compare::run(args, context).await,
        }
    }
}
