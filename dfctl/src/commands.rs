//! One file per leaf command, each of the same shape: `Args`, whose doc comment is the help, and `run`.

use clap::Subcommand;

use crate::context::Context;
use crate::error::{CliError, Outcome};

mod cache;
mod cat;
mod cluster;
mod get;
mod inside;
mod ls;
mod mount;
mod mounts;
mod stat;
mod task;
mod umount;
mod version;

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    Get(get::Args),
    Cat(cat::Args),
    Ls(ls::Args),
    Stat(stat::Args),
    Mount(mount::Args),
    Umount(umount::Args),
    Mounts(mounts::Args),
    /// Look at what is being distributed, or was
    #[command(subcommand)]
    Task(task::Command),
    /// Look after this machine's cache
    #[command(subcommand)]
    Cache(cache::Command),
    /// Run a cluster on this machine
    #[command(subcommand)]
    Cluster(cluster::Command),
    Version(version::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Outcome, CliError> {
        match self {
            Self::Get(args) => Box::pin(get::run(args, context)).await,
            Self::Cat(args) => Box::pin(cat::run(args, context)).await,
            Self::Ls(args) => ls::run(args, context).await,
            Self::Stat(args) => stat::run(args, context).await,
            Self::Mount(args) => Box::pin(mount::run(args, context)).await,
            Self::Umount(args) => umount::run(args, context).await,
            Self::Mounts(args) => mounts::run(args, context).await,
            Self::Task(command) => command.run(context).await,
            Self::Cache(command) => command.run(context).await,
            Self::Cluster(command) => command.run(context).await,
            Self::Version(args) => version::run(args, context).await,
        }
    }
}

#[cfg(test)]
mod tests;
