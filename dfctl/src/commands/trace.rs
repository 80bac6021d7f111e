//! `dfctl trace …`.

use std::path::Path;
use std::sync::Arc;

use clap::Subcommand;
use dfs_fuse::mount::mounted_at;
use dfs_model::ByteSize;

use super::inside::Access;
use super::mount::mount_point;
use crate::backend::{Backend, Profile, Traced, View};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::links;
use crate::output::{counted, files, printable};

mod apply;
mod export;
mod record;
mod show;

/// What to do with traces.
#[derive(Subcommand)]
pub enum Command {
    Record(record::Args),
    Show(show::Args),
    Export(export::Args),
    Apply(apply::Args),
}

impl Command {
    /// Does it.
    pub async fn run(self, context: &Context) -> Result<Outcome, CliError> {
        match self {
            Self::Record(args) => record::run(args, context).await,
            Self::Show(args) => show::run(args, context).await,
            Self::Export(args) => export::run(args, context).await,
            Self::Apply(args) => apply::run(args, context).await,
        }
    }
}

/// Whose profile is meant, as the commands take it.
#[derive(clap::Args)]
struct Whose {
    /// Where it is mounted, or what a mount of it would name: URL or `URL!path`
    #[arg(value_name = "MOUNT|URL[!path]", value_hint = clap::ValueHint::AnyPath)]
    whose: String,
    /// Of a URL: as it would be mounted
    #[arg(long = "as", value_enum, value_name = "VIEW", env = "DFS_AS", hide_env_values = true)]
    view: Option<View>,
    #[command(flatten)]
    access: Access,
}

impl Whose {
    /// The agent that knows, and what to ask it for.
    async fn find(&self, context: &Context) -> Result<(Arc<dyn Backend>, Traced), CliError> {
        let backend = context.resident_backend()?;
        let dir = mounted_on(Path::new(&self.whose));
        if mounted_at(&dir).ok().flatten().is_some_and(|mount| mount.is_ours()) {
            return Ok((backend, Traced::Mount(mount_point(&dir)?.to_owned())));
        }
        let locator = self.access.locate(context, &self.whose).await?;
        let path = locator.inner.clone().unwrap_or_default();
        let view = self.view.unwrap_or(View::Auto);
        Ok((backend, Traced::Target { target: Box::new(locator.target), view, path }))
    }
}

/// The name as mounts are listed by.
pub fn mounted_on(dir: &Path) -> std::path::PathBuf {
    links::places(dir).last().unwrap_or_else(|| dir.to_owned())
}

/// In words.
pub fn runs(number: u32) -> String {
    counted(number.into(), "run", "runs")
}

/// What is known, in a line.
fn told(word: &str, profile: &Profile) -> String {
    let what = profile.dir.as_deref().unwrap_or(&profile.url);
    match profile.runs {
        0 => format!("{word}  {}   nothing was read yet", printable(what)),
        number => format!(
            "{word}  {}   {} in {}, of {}",
            printable(what),
            ByteSize(profile.bytes),
            files(profile.files),
            runs(number)
        ),
    }
}
