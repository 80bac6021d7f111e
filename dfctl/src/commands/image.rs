//! `dfctl image …`.

use clap::Subcommand;
use dfs_artifact::image::graph::Machines;
use dfs_artifact::image::{Platform, PlatformError};

use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};

mod export;
mod inspect;
pub mod parts;

/// What to do with images.
#[derive(Subcommand)]
pub enum Command {
    Inspect(inspect::Args),
    Export(export::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Outcome, CliError> {
        match self {
            Self::Inspect(args) => inspect::run(args, context).await,
            Self::Export(args) => export::run(args, context).await,
        }
    }
}

/// The machines that a flag names; all where none is named.
pub fn machines(platform: Option<&str>) -> Result<Machines, CliError> {
    let Some(platform) = platform else { return Ok(Machines::All) };
    let platform: Platform = platform.parse().map_err(|error: PlatformError| {
        CliError::new(&codes::USAGE, "the platform cannot be understood")
            .caused_by(&error)
            .hint("--platform linux/arm64")
    })?;
    Ok(Machines::One(platform))
}
