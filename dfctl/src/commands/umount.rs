//! `dfctl umount`.

use std::path::{Path, PathBuf};

use super::inside::answer;
use super::mount::mount_point;
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};

/// Take a mount away
///
/// Examples:
///   dfctl umount /mnt/data
///   dfctl umount --lazy /mnt/data
///
/// Only who mounted it, the agent's own user and root may do it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Where it is mounted
    dir: PathBuf,
    /// Take the name away now and the rest when the last user leaves
    #[arg(short, long, env = "DFS_LAZY", hide_env_values = true)]
    lazy: bool,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let dir = absolute(&args.dir);
    let shown = dir.display().to_string();
    let Some(backend) = context.running_backend()? else {
        return Err(CliError::new(&codes::NOT_MOUNTED, format!("nothing is mounted on {shown}"))
            .because("no node agent answers, so nothing of dfs is mounted by one")
            .hint(format!("findmnt {shown}")));
    };
    let text = mount_point(&dir)?;
    let left = answer(context, backend.unmount(text, args.lazy))
        .await?
        .map_err(|failure| CliError::backend("unmount", &shown, failure))?;
    context.output.note(&format!("unmounted  {shown}   {left} left"));
    Ok(Outcome::Done)
}

/// The name without its last symbolic links, where the file system still answers: one whose daemon died does not.
fn absolute(dir: &Path) -> PathBuf {
    let lexical = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let parent = lexical.parent().and_then(|parent| parent.canonicalize().ok());
    match (parent, lexical.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => lexical,
    }
}
