//! What a path names that leads into a mount of dfs: which mount, and what of it.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_fuse::mount::{MountEntry, mounts};

use super::inside::answer;
use crate::codes;
use crate::context::Context;
use crate::error::CliError;
use crate::links;
use crate::output::{printable, quoted_path};

/// How long a mount may take to say what a name in it leads to.
pub const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// Something inside of a mount.
#[derive(Debug, PartialEq, Eq)]
pub struct Within {
    /// The mount that has it, as it was made: not where another name shows it.
    pub mount: MountEntry,
    /// From its root, elements joined by slashes; empty is all of it.
    pub path: Vec<u8>,
}

/// Where `path` leads, by symbolic links too; `None` where that is in no mount of dfs.
pub async fn within(context: &Context, path: &Path) -> Result<Option<Within>, CliError> {
    let named = path.to_owned();
    let looking = tokio::task::spawn_blocking(move || {
        let real = named.canonicalize()?;
        Ok::<_, io::Error>(find(&mounts()?, &real))
    });
    let shown = printable(&path.display().to_string());
    match answer(context, tokio::time::timeout(LOOK_WITHIN, looking)).await? {
        Ok(Ok(Ok(found))) => Ok(found),
        Ok(Ok(Err(error))) if is_dead(&error) => Err(dead(path)),
        Ok(Ok(Err(error))) => {
            let what = format!("cannot find out what {shown} is");
            Err(CliError::new(&codes::NOT_FOUND, what).caused_by(&error))
        }
        Ok(Err(error)) => {
            let what = format!("cannot find out what {shown} is");
            Err(CliError::new(&codes::UNEXPECTED, what).caused_by(&error))
        }
        Err(_) => {
            let what = format!("the mount that has {shown} does not answer");
            Err(CliError::new(&codes::AGENT_SILENT, what)
                .because("its agent hangs, or is gone and waited for")
                .hint("dfctl doctor"))
        }
    }
}

/// Whether a name leads into a mount without a process.
pub fn is_dead(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let dead = [Errno::NOTCONN, Errno::CONNABORTED];
    dead.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// What is to be said of a name that leads into such a mount.
pub fn dead(path: &Path) -> CliError {
    stale(&around(path).unwrap_or_else(|| path.to_owned()))
}

/// The mount of dfs that a name leads into, as far as its way can be followed. Blocks for as long as what is on the way
/// takes to answer.
pub fn around(path: &Path) -> Option<PathBuf> {
    of_table(links::places(path).last().unwrap_or_else(|| path.to_owned()))
}

/// The same by the name alone, of which nothing is looked up.
pub fn around_by_name(path: &Path) -> Option<PathBuf> {
    of_table(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
}

fn of_table(real: PathBuf) -> Option<PathBuf> {
    let table = mounts().unwrap_or_default();
    let around = table.iter().filter(|mount| mount.is_ours() && real.starts_with(&mount.dir));
    around.map(|mount| mount.dir.clone()).next_back()
}

/// A mount on `dir` has lost its agent.
pub fn stale(dir: &Path) -> CliError {
    let shown = printable(&dir.display().to_string());
    CliError::new(&codes::STALE_MOUNT, format!("the mount on {shown} is dead: its agent is gone"))
        .hint(take_away(dir))
}

/// How a dead mount is taken away, in the one way that every message names.
pub fn take_away(dir: &Path) -> String {
    format!("dfctl umount {}      or all that are dead: dfctl doctor --fix", quoted_path(dir))
}

/// The mount in `table` that shows `real`, an absolute name without links, and what of it that is.
fn find(table: &[MountEntry], real: &Path) -> Option<Within> {
    let above = table.iter().enumerate().filter(|(_, mount)| real.starts_with(&mount.dir));
    let nearest = above.max_by_key(|(made, mount)| (mount.dir.iter().count(), *made));
    let (_, shows) = nearest.filter(|(_, mount)| mount.shows_ours())?;
    // The directory of a mount may be shown elsewhere too.
    let is_made = |other: &&MountEntry| {
        other.device == shows.device && other.root == Path::new("/") && other.kind == shows.kind
    };
    let made = table.iter().find(is_made).unwrap_or(shows);
    let below: PathBuf = shows.root.strip_prefix("/").unwrap_or(&shows.root).to_owned();
    let below = below.join(real.strip_prefix(&shows.dir).ok()?);
    let path = below.as_os_str().as_bytes().to_vec();
    let path = path.strip_suffix(b"/").map(<[u8]>::to_vec).unwrap_or(path);
    Some(Within { mount: made.clone(), path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::mounted;

    fn mount(dir: &str, root: &str, device: &str, kind: &str) -> MountEntry {
        mounted((dir, root), device, kind)
    }

    #[test]
    fn a_path_belongs_to_the_innermost_mount_that_shows_it() {
        let table = [
            mount("/", "/", "8:1", "ext4"),
            mount("/mnt/a", "/", "0:40", "fuse.dfs"),
            mount("/mnt/a/b", "/", "0:41", "fuse.dfs"),
            mount("/mnt/a/c", "/", "0:9", "tmpfs"),
            mount("/srv/part", "/deep/er", "0:40", "fuse.dfs"),
        ];
        let found = |path: &str| {
            let within = find(&table, Path::new(path))?;
            let dir = within.mount.dir.display().to_string();
            Some((dir, String::from_utf8(within.path).unwrap()))
        };
        let told = |dir: &str, path: &str| Some((dir.to_owned(), path.to_owned()));
        assert_eq!(found("/mnt/a/x/y"), told("/mnt/a", "x/y"));
        assert_eq!(found("/mnt/a"), told("/mnt/a", ""));
        assert_eq!(found("/mnt/a/b/x"), told("/mnt/a/b", "x"));
        assert_eq!(found("/mnt/a/c/x"), None, "something else lies over it");
        assert_eq!(found("/mnt/ab"), None);
        assert_eq!(found("/srv/part/f"), told("/mnt/a", "deep/er/f"), "it is shown there too");
        assert_eq!(found("/srv/part"), told("/mnt/a", "deep/er"));
    }

    #[test]
    fn what_lies_over_a_mount_later_is_what_one_sees() {
        let table = [mount("/m", "/", "0:40", "fuse.dfs"), mount("/m", "/", "0:9", "tmpfs")];
        assert_eq!(find(&table, Path::new("/m/f")), None);
    }
}
