//! `dfctl umount`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_fuse::mount::{Detach, MountEntry, Served, UnmountError, mounted_at, served, unmount};
use serde_json::{Value, json};

use super::elsewhere::{not_of_this_agent, what_it_shows};
use super::inside::answer;
use super::mount::mount_point;
use crate::backend::FailureClass;
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::links;
use crate::output::{Record, printable, quoted_path};

/// How long an agent that may have the mount is given to say so.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// Take a mount away
///
/// Examples:
///   dfctl umount /mnt/data
///   dfctl umount --lazy /mnt/data
///
/// Only who mounted it, the agent's own user and root may do it. What a dead agent left behind is cleared.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Where it is mounted
    #[arg(value_name = "MOUNT")]
    dir: PathBuf,
    /// Take the name away now and the rest when the last user leaves
    #[arg(short, long, env = "DFS_LAZY", hide_env_values = true)]
    lazy: bool,
}

/// What was done.
struct Unmounted {
    dir: PathBuf,
    /// Mounts that its agent still has; `None` where that is gone.
    left: Option<u32>,
}

impl Unmounted {
    fn tell(&self, context: &Context) -> Result<Outcome, CliError> {
        context.output.report("unmounted", self, || {
            let shown = printable(&self.dir.display().to_string());
            match self.left {
                Some(left) => format!("unmounted  {shown}   {left} left"),
                None => format!("unmounted  {shown}, whose agent is gone"),
            }
        })?;
        Ok(Outcome::Done)
    }
}

impl Record for Unmounted {
    fn json(&self) -> Value {
        json!({ "dir": self.dir.to_string_lossy(), "left": self.left })
    }

    fn name(&self) -> Vec<u8> {
        self.dir.as_os_str().as_bytes().to_vec()
    }
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let dir = absolute(&args.dir);
    let text = mount_point(&dir)?;
    let Some(backend) = context.answering_backend()? else {
        let detach = if args.lazy { Detach::Lazily } else { Detach::WhenUnused };
        return without_agent(context, dir, detach).await;
    };
    let left = match answer(context, backend.unmount(text, args.lazy)).await? {
        Ok(left) => left,
        Err(failure) if failure.class == FailureClass::NotMounted => {
            let Some(mount) = mounted_at(&dir).ok().flatten() else {
                return Err(CliError::backend("unmount", text, failure));
            };
            return Err(elsewhere(context, &dir, &mount).await);
        }
        Err(failure) => {
            let failed = CliError::backend("unmount", text, failure);
            let is_covered = failed.code == &codes::MOUNT_COVERED;
            let above = mounted_at(&dir).ok().flatten().filter(|_| is_covered);
            return Err(match above {
                Some(above) => failed.because(what_it_shows(&above)),
                None => failed,
            });
        }
    };
    Unmounted { dir, left: Some(left) }.tell(context)
}

async fn elsewhere(context: &Context, dir: &Path, mount: &MountEntry) -> CliError {
    let typed = format!("dfctl{{}} umount {}", quoted_path(dir));
    not_of_this_agent(context, dir, mount, &typed).await
}

/// With no agent to ask, only what a dead one left is there to be taken away; lazily also what is waited for.
async fn without_agent(
    context: &Context,
    dir: PathBuf,
    detach: Detach,
) -> Result<Outcome, CliError> {
    let shown = printable(&dir.display().to_string());
    let there = mounted_at(&dir).map_err(|error| {
        let what = format!("cannot see what is mounted on {shown}");
        CliError::new(&codes::MOUNT_FAILED, what).caused_by(&error)
    })?;
    let Some(mount) = there else {
        return Err(CliError::new(&codes::NOT_MOUNTED, format!("nothing is mounted on {shown}")));
    };
    if mount.is_by_kernel() {
        return take_away(context, dir, mount, detach).await;
    }
    let looking = dir.clone();
    let looking = tokio::task::spawn_blocking(move || served(&looking, ASK_WITHIN));
    match answer(context, looking).await?.unwrap_or(Served::Live) {
        Served::Dead if mount.is_ours() => {}
        Served::Silent if mount.is_ours() && detach == Detach::Lazily => {}
        Served::Silent if mount.is_ours() => {
            let what = format!("the mount on {shown} does not answer");
            return Err(CliError::new(&codes::MOUNT_BUSY, what)
                .because("its agent hangs, or is gone and waited for")
                .hint(format!("dfctl umount --lazy {}", quoted_path(&dir))));
        }
        _ => return Err(elsewhere(context, &dir, &mount).await),
    }
    take_away(context, dir, mount, Detach::Lazily).await
}

/// Takes away what no agent has to do with any more.
async fn take_away(
    context: &Context,
    dir: PathBuf,
    mount: MountEntry,
    detach: Detach,
) -> Result<Outcome, CliError> {
    let shown = printable(&dir.display().to_string());
    let clearing = tokio::task::spawn_blocking(move || unmount(&mount, detach));
    match answer(context, clearing).await? {
        Ok(Ok(())) => Unmounted { dir, left: None }.tell(context),
        Ok(Err(error)) => Err(refused(&shown, &error)),
        Err(error) => {
            let what = format!("cannot unmount {shown}");
            Err(CliError::new(&codes::UNEXPECTED, what).caused_by(&error))
        }
    }
}

fn refused(shown: &str, error: &UnmountError) -> CliError {
    let code = match error {
        UnmountError::NotPermitted(_) => &codes::AGENT_REFUSED,
        UnmountError::Busy(_) => &codes::MOUNT_BUSY,
        UnmountError::NotMounted(_) => &codes::NOT_MOUNTED,
        UnmountError::Covered(_) => &codes::MOUNT_COVERED,
        UnmountError::NoHelper | UnmountError::Unseen { .. } | UnmountError::Refused { .. } => {
            &codes::MOUNT_FAILED
        }
    };
    CliError::new(code, format!("cannot unmount {shown}")).caused_by(error)
}

/// The name as mounts are listed by: symbolic links are followed, also at its end, as far as the file system still
/// answers. What has lost its process does not, and is no link.
fn absolute(dir: &Path) -> PathBuf {
    links::places(dir).last().unwrap_or_else(|| dir.to_owned())
}
