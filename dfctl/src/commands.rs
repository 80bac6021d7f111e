//! One file per leaf command, each of the same shape: `Args`, whose doc comment is the help, and `run`.

use clap::Subcommand;

use crate::context::Context;
use crate::error::{CliError, Outcome};

mod cache;
mod cat;
mod cluster;
mod completion;
mod config;
mod doctor;
mod elsewhere;
mod explain;
mod get;
mod image;
pub mod inside;
mod ls;
mod mount;
mod mounts;
mod preheat;
mod push;
mod runtime;
mod saving;
mod scheduler;
mod served;
mod stat;
mod swarm;
mod sync;
mod task;
mod top;
mod trace;
mod umount;
mod upgrade;
mod version;
mod watching;
mod why;
mod within;

pub use inside::interrupted;

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    Get(get::Args),
    Cat(cat::Args),
    Ls(ls::Args),
    Stat(stat::Args),
    Sync(sync::Args),
    Push(push::Args),
    Preheat(preheat::Args),
    Mount(mount::Args),
    Umount(umount::Args),
    Mounts(mounts::Args),
    /// Look at container images and copy them to files
    #[command(subcommand)]
    Image(image::Command),
    /// Look at what readers of mounts touch first, and carry it elsewhere
    #[command(subcommand)]
    Trace(trace::Command),
    Upgrade(upgrade::Args),
    /// Look at what is being distributed, or was
    #[command(subcommand)]
    Task(task::Command),
    /// Look after this machine's cache
    #[command(subcommand)]
    Cache(cache::Command),
    /// Run a cluster on this machine
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Look at the configuration of dfctl and change it
    #[command(subcommand)]
    Config(config::Command),
    /// Look at how the cluster decides who sends what to whom
    #[command(subcommand)]
    Scheduler(scheduler::Command),
    /// Have container runtimes pull through the node agent
    #[command(subcommand)]
    Runtime(runtime::Command),
    Why(why::Args),
    Top(top::Args),
    Explain(explain::Args),
    Doctor(doctor::Args),
    Completion(completion::Args),
    Version(version::Args),
}

impl Command {
    /// Whether it says the same whatever is configured: it must also where the configuration is wrong.
    pub fn goes_without_settings(&self) -> bool {
        match self {
            Self::Explain(_) | Self::Completion(_) | Self::Doctor(_) => true,
            // What is wrong may be what is to be put right.
            Self::Config(command) => command.changes(),
            _ => false,
        }
    }

    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Outcome, CliError> {
        match self {
            Self::Get(args) => Box::pin(get::run(args, context)).await,
            Self::Cat(args) => Box::pin(cat::run(args, context)).await,
            Self::Ls(args) => ls::run(args, context).await,
            Self::Stat(args) => stat::run(args, context).await,
            Self::Sync(args) => Box::pin(sync::run(args, context)).await,
            Self::Push(args) => Box::pin(push::run(args, context)).await,
            Self::Image(command) => Box::pin(command.run(context)).await,
            Self::Preheat(args) => preheat::run(args, context).await,
            Self::Mount(args) => Box::pin(mount::run(args, context)).await,
            Self::Umount(args) => umount::run(args, context).await,
            Self::Mounts(args) => mounts::run(args, context).await,
            Self::Trace(command) => command.run(context).await,
            Self::Upgrade(args) => upgrade::run(args, context).await,
            Self::Task(command) => command.run(context).await,
            Self::Cache(command) => command.run(context).await,
            Self::Cluster(command) => command.run(context).await,
            Self::Config(command) => command.run(context),
            Self::Doctor(args) => Box::pin(doctor::run(args, context)).await,
            Self::Scheduler(command) => command.run(context).await,
            Self::Runtime(command) => command.run(context).await,
            Self::Why(args) => why::run(args, context).await,
            Self::Top(args) => top::run(args, context).await,
            Self::Explain(args) => explain::run(args, context),
            Self::Completion(args) => completion::run(&args, context),
            Self::Version(args) => version::run(args, context).await,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
