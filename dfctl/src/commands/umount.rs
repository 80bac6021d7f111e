//! `dfctl umount`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_fuse::mount::{
    Detach, MountEntry, Served, UnmountError, mounted_at, mounts, served, unmount,
};
use serde_json::{Value, json};

use super::elsewhere::{not_of_this_agent, what_it_shows};
use super::inside::{answer, of_many};
use super::mount::mount_point;
use crate::backend::FailureClass;
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome, carries};
use crate::links;
use crate::output::{Record, printable, quoted_path};

/// How long an agent that may have the mount is given to say so.
pub(super) const ASK_WITHIN: Duration = Duration::from_secs(2);

/// Take a mount away
///
/// Examples:
///   dfctl umount /mnt/data
///   dfctl umount --lazy /mnt/data /mnt/models
///
/// Only who mounted it, the agent's own user and root may do it. What a dead agent left behind is cleared, unless
/// something else is mounted in it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Where it is mounted
    #[arg(required = true, value_name = "MOUNT")]
    dirs: Vec<PathBuf>,
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

/// Runs it. What cannot be taken away keeps nothing else from it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let detach = if args.lazy { Detach::Lazily } else { Detach::WhenUnused };
    let mut failed = Vec::new();
    for dir in &args.dirs {
        match one(context, dir, detach).await {
            Ok(_) => {}
            Err(error) if error.code == &codes::INTERRUPTED => return Err(error),
            Err(error) => failed.push(error),
        }
    }
    of_many(context, args.dirs.len(), failed, "were not taken away")
}

async fn one(context: &Context, dir: &Path, detach: Detach) -> Result<Outcome, CliError> {
    let dir = absolute(dir);
    let text = mount_point(&dir)?;
    // The one before may have been the last of its agent.
    let Some(backend) = context.answering_backend()? else {
        return without_agent(context, dir, detach).await;
    };
    let is_lazy = detach == Detach::Lazily;
    let left = match answer(context, backend.unmount(text, is_lazy)).await? {
        Ok(left) => left,
        Err(failure) if failure.class == FailureClass::NotMounted => {
            let Some(mount) = mounted_at(&dir).ok().flatten() else {
                let failed = CliError::backend("unmount", text, failure);
                return Err(match around(&dir) {
                    Some(mount) => failed.hint(format!("dfctl umount {}", quoted_path(&mount))),
                    None => failed,
                });
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

/// The mount of dfs that a name lies in.
fn around(dir: &Path) -> Option<PathBuf> {
    let mut mounts = mounts().unwrap_or_default().into_iter();
    let around = mounts.rfind(|mount| mount.is_ours() && dir.starts_with(&mount.dir));
    around.map(|mount| mount.dir)
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
        Served::Silent if mount.is_ours() => return Err(silent(&dir)),
        _ => return Err(elsewhere(context, &dir, &mount).await),
    }
    let detach = if detach == Detach::Lazily { detach } else { Detach::Remains };
    take_away(context, dir, mount, detach).await
}

/// What is to be said of a mount that does not answer.
pub(super) fn silent(dir: &Path) -> CliError {
    let what = format!("the mount on {} does not answer", printable(&dir.display().to_string()));
    CliError::new(&codes::MOUNT_BUSY, what)
        .because("its agent hangs, or is gone and waited for")
        .hint(format!("dfctl umount --lazy {}", quoted_path(dir)))
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
        Ok(Err(error)) => Err(refused(format!("cannot unmount {shown}"), &dir, &error)),
        Err(error) => {
            let what = format!("cannot unmount {shown}");
            Err(CliError::new(&codes::UNEXPECTED, what).caused_by(&error))
        }
    }
}

/// What is to be said of a mount on `dir` that stays.
pub(super) fn refused(what: String, dir: &Path, error: &UnmountError) -> CliError {
    let code = match error {
        UnmountError::NotPermitted(_) => &codes::AGENT_REFUSED,
        UnmountError::Busy(_) | UnmountError::Carries { .. } => &codes::MOUNT_BUSY,
        UnmountError::NotMounted(_) => &codes::NOT_MOUNTED,
        UnmountError::Covered(_) => &codes::MOUNT_COVERED,
        UnmountError::NoHelper | UnmountError::Unseen { .. } | UnmountError::Refused { .. } => {
            &codes::MOUNT_FAILED
        }
    };
    let refused = CliError::new(code, what).caused_by(error);
    match error {
        UnmountError::Carries { .. } => refused.hint(carries(&quoted_path(dir))),
        _ => refused,
    }
}

/// The name as mounts are listed by: symbolic links are followed, also at its end, as far as the file system still
/// answers. What has lost its process does not, and is no link.
fn absolute(dir: &Path) -> PathBuf {
    links::places(dir).last().unwrap_or_else(|| dir.to_owned())
}
