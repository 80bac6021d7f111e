//! `dfctl image …`.

use clap::Subcommand;
use dfs_artifact::image::graph::Machines;
use dfs_source::oci::Located;

use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::locator::Locator;

mod export;
mod index;
mod inspect;
mod ls;
pub mod parts;
mod pull;

/// What to do with images.
#[derive(Subcommand)]
pub enum Command {
    Inspect(inspect::Args),
    Ls(ls::Args),
    Pull(pull::Args),
    Index(index::Args),
    Export(export::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Outcome, CliError> {
        match self {
            Self::Inspect(args) => inspect::run(args, context).await,
            Self::Ls(args) => ls::run(args, context).await,
            Self::Pull(args) => pull::run(args, context).await,
            Self::Index(args) => index::run(args, context).await,
            Self::Export(args) => export::run(args, context).await,
        }
    }
}

/// The machines that the name of an image is meant for; all where it says none.
pub fn machines(locator: &Locator) -> Machines {
    let located = Located::of(&locator.target.url).ok();
    let platform = located.as_ref().and_then(Located::platform);
    platform.cloned().map_or(Machines::All, Machines::One)
}
