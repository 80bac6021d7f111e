//! `dfctl task …`.

use clap::Subcommand;

use crate::context::Context;
use crate::error::{CliError, Outcome};

mod ls;
mod named;
mod rm;
mod show;
mod watch;

pub use ls::share;
pub use named::named;
pub use rm::Removal;

/// What to do with tasks.
#[derive(Subcommand)]
pub enum Command {
    Ls(ls::Args),
    Show(show::Args),
    Watch(watch::Args),
    Rm(rm::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Outcome, CliError> {
        match self {
            Self::Ls(args) => ls::run(args, context).await,
            Self::Show(args) => show::run(args, context).await,
            Self::Watch(args) => watch::run(args, context).await,
            Self::Rm(args) => rm::run(args, context).await,
        }
    }
}
