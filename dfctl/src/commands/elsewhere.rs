//! Mounts that another agent serves than the one that is asked: which one that is, and what to type instead.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_fuse::mount::{MountEntry, mounts};

use super::inside::answer;
use crate::codes;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{printable, quoted_path};

/// How long an agent that may have the mount is given to say so.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// What a directory of a mount says of who serves it, and the longest name of a socket.
const SOCKET: &str = "user.dfs.socket";
const LONGEST: usize = 4096;

/// What is mounted on `dir` is not of the agent that was asked: of whom it is, and what is typed there, in which `{}`
/// stands for that agent's `--socket`. Who may not see it is told neither what it shows nor where its agent listens.
pub async fn not_of_this_agent(
    context: &Context,
    dir: &Path,
    mount: &MountEntry,
    typed: &str,
) -> CliError {
    if !mount.shows_ours() {
        return of_something_else(dir, mount);
    }
    let shown = printable(&dir.display().to_string());
    let socket = who_serves(context, dir, mount.user).await;
    let own = rustix::process::geteuid();
    let may_see = own.is_root()
        || mount.user == Some(own.as_raw())
        || match &socket {
            Some(socket) => lists(context, socket, dir).await,
            None => false,
        };
    if !may_see {
        let whose = mount.user.filter(|user| *user != 0);
        let who = whose.map_or_else(|| "root".to_owned(), |user| format!("uid {user} or root"));
        let what = format!("the mount on {shown} is another user's");
        return CliError::new(&codes::AGENT_REFUSED, what)
            .hint(format!("as {who}: {}", typed.replace("{}", "")));
    }
    let what = format!("another node agent serves the mount on {shown}");
    let user = mount.user.map(|user| format!(", mounted for uid {user}")).unwrap_or_default();
    let error = CliError::new(&codes::MOUNT_ELSEWHERE, what)
        .because(format!("it shows {}{user}", mount.name));
    match socket {
        Some(socket) => {
            let socket = format!(" --socket {}", quoted_path(&socket));
            error.hint(typed.replace("{}", &socket))
        }
        None => error.hint(format!(
            "with the socket of the agent that mounted it: {}",
            typed.replace("{}", " --socket PATH")
        )),
    }
}

fn of_something_else(dir: &Path, mount: &MountEntry) -> CliError {
    let shown = printable(&dir.display().to_string());
    let lies_below = |other: &MountEntry| other.dir == dir && other.is_ours();
    let error = match mounts().is_ok_and(|mounts| mounts.iter().any(lies_below)) {
        true => {
            let what = format!("something else is mounted on top of the mount of dfs on {shown}");
            CliError::new(&codes::MOUNT_COVERED, what)
        }
        false => {
            let what = format!("what is mounted on {shown} is not of dfs");
            CliError::new(&codes::NOT_MOUNTED, what)
        }
    };
    error.because(what_it_shows(mount)).hint(format!("umount {}", quoted_path(dir)))
}

/// What is mounted, for people.
pub fn what_it_shows(mount: &MountEntry) -> String {
    format!("it shows {}, a file system of type {}", mount.name, mount.kind)
}

/// The socket of the agent that has the mount: as the mount says it, else by asking those that usually are there.
pub async fn who_serves(context: &Context, dir: &Path, user: Option<u32>) -> Option<PathBuf> {
    if let Some(socket) = told_by(context, dir).await {
        return Some(socket);
    }
    for socket in context.settings.usual_sockets(user) {
        if UnixStream::connect(&socket).is_ok() && lists(context, &socket, dir).await {
            return Some(socket);
        }
    }
    None
}

/// Whether the agent on `socket` tells this user that it has the mount on `dir`.
async fn lists(context: &Context, socket: &Path, dir: &Path) -> bool {
    let agent = context.agent_at(socket);
    let mounts = tokio::time::timeout(ASK_WITHIN, agent.mounts()).await;
    let has_it = |mounts: Vec<crate::backend::MountInfo>| {
        mounts.iter().any(|mount| Path::new(&mount.dir) == dir)
    };
    mounts.is_ok_and(|mounts| mounts.is_ok_and(has_it))
}

/// Where the agent listens that serves what is mounted on `dir`, as that says itself.
pub async fn told_by(context: &Context, dir: &Path) -> Option<PathBuf> {
    let dir = dir.to_owned();
    // It waits as long as nobody answers; nobody waits for it.
    let asking = tokio::task::spawn_blocking(move || socket_of(&dir));
    answer(context, tokio::time::timeout(ASK_WITHIN, asking)).await.ok()?.ok()?.ok()?
}

/// The same, waiting for as long as it takes.
pub fn socket_of(path: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let mut value = vec![0; LONGEST];
    let length = rustix::fs::getxattr(path, SOCKET, &mut value[..]).ok()?;
    value.truncate(length);
    let socket = PathBuf::from(std::ffi::OsString::from_vec(value));
    socket.is_absolute().then_some(socket)
}
