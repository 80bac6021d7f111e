//! `dfctl cache …`.

use clap::Subcommand;

use crate::context::Context;
use crate::error::{CliError, Outcome};

mod gc;
pub mod ls;
mod pin;
mod pins;
mod rm;
mod unpin;
mod verify;
pub mod what;

/// What to do with the cache.
#[derive(Subcommand)]
pub enum Command {
    Ls(ls::Args),
    Pin(pin::Args),
    Unpin(unpin::Args),
    Rm(rm::Args),
    Gc(gc::Args),
    Verify(verify::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Outcome, CliError> {
        match self {
            Self::Ls(args) => ls::run(args, context).await,
            Self::Pin(args) => pin::run(args, context).await,
            Self::Unpin(args) => unpin::run(args, context).await,
            Self::Rm(args) => rm::run(args, context).await,
            Self::Gc(args) => gc::run(args, context).await,
            Self::Verify(args) => verify::run(args, context).await,
        }
    }
}
