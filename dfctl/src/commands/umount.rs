//! `dfctl umount`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_fuse::mount::{
    Detach, MountEntry, Served, UnmountError, mounted_at, mounts, served, unmount,
};
use serde_json::{Value, json};

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
            return Err(not_of_this_agent(context, &dir, &mount).await);
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
        _ => return Err(not_of_this_agent(context, &dir, &mount).await),
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

/// Something is mounted there, and not by the agent that was asked: says what, for whom, and whom to ask.
async fn not_of_this_agent(context: &Context, dir: &Path, mount: &MountEntry) -> CliError {
    let shown = printable(&dir.display().to_string());
    let quoted = quoted_path(dir);
    if !mount.is_ours() {
        let lies_below = |other: &MountEntry| other.dir == dir && other.is_ours();
        let error = match mounts().is_ok_and(|mounts| mounts.iter().any(lies_below)) {
            true => {
                let what =
                    format!("something else is mounted on top of the mount of dfs on {shown}");
                CliError::new(&codes::MOUNT_COVERED, what)
            }
            false => {
                let what = format!("what is mounted on {shown} is not of dfs");
                CliError::new(&codes::NOT_MOUNTED, what)
            }
        };
        return error.because(what_it_shows(mount)).hint(format!("umount {quoted}"));
    }
    let what = format!("another node agent serves the mount on {shown}");
    let user = mount.user.map(|user| format!(", mounted for uid {user}")).unwrap_or_default();
    let error = CliError::new(&codes::MOUNT_ELSEWHERE, what)
        .because(format!("it shows {}{user}", mount.name));
    let own = rustix::process::geteuid();
    match who_serves(context, dir, mount.user).await {
        Some(socket) => {
            error.hint(format!("dfctl --socket {} umount {quoted}", quoted_path(&socket)))
        }
        None => match mount.user.filter(|user| !own.is_root() && *user != own.as_raw()) {
            Some(user) => error.hint(format!("as uid {user} or root: dfctl umount {quoted}")),
            None => error.hint(format!(
                "with the socket of the agent that mounted it: dfctl --socket PATH umount {quoted}"
            )),
        },
    }
}

fn what_it_shows(mount: &MountEntry) -> String {
    format!("it shows {}, a file system of type {}", mount.name, mount.kind)
}

/// The socket of the agent that has the mount, among those where agents usually listen.
async fn who_serves(context: &Context, dir: &Path, user: Option<u32>) -> Option<PathBuf> {
    let dir = dir.to_str()?;
    for socket in context.settings.usual_sockets(user) {
        if std::os::unix::net::UnixStream::connect(&socket).is_err() {
            continue;
        }
        let agent = context.agent_at(&socket);
        let mounts = tokio::time::timeout(ASK_WITHIN, agent.mounts()).await;
        let has_it =
            |mounts: Vec<crate::backend::MountInfo>| mounts.iter().any(|mount| mount.dir == dir);
        if mounts.is_ok_and(|mounts| mounts.is_ok_and(has_it)) {
            return Some(socket);
        }
    }
    None
}

/// The name as mounts are listed by: symbolic links are followed, also at its end, as far as the file system still
/// answers. What has lost its process does not, and is no link.
fn absolute(dir: &Path) -> PathBuf {
    links::places(dir).last().unwrap_or_else(|| dir.to_owned())
}
