//! `dfctl cluster …`.

use clap::Subcommand;

use crate::context::Context;
use crate::error::{CliError, Outcome};

pub mod asked;
mod down;
mod join_token;
mod place;
mod status;
mod up;

pub use place::of_this_machine;

/// What to do with the cluster of this machine.
#[derive(Subcommand)]
pub enum Command {
    Up(up::Args),
    Down(down::Args),
    Status(status::Args),
    JoinToken(join_token::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Outcome, CliError> {
        match self {
            Self::Up(args) => up::run(args, context).await,
            Self::Down(args) => down::run(args, context).await,
            Self::Status(args) => status::run(args, context).await,
            Self::JoinToken(args) => join_token::run(args, context).await,
        }
    }
}
