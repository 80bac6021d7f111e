//! `dfctl cluster …`.

use clap::Subcommand;

use crate::context::Context;
use crate::error::{CliError, Outcome};

pub mod asked;
mod down;
mod place;
mod status;
mod up;

/// What to do with the cluster of this machine.
#[derive(Subcommand)]
pub enum Command {
    Up(up::Args),
    Down(down::Args),
    Status(status::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Outcome, CliError> {
        match self {
            Self::Up(args) => up::run(args, context).await,
            Self::Down(args) => down::run(args, context).await,
            Self::Status(args) => status::run(args, context).await,
        }
    }
}
