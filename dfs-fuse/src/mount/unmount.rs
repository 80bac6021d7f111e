//! Taking a mount away: by umount(2) as root, otherwise with `fusermount3`.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::check;
use super::table::{self, MountEntry};

/// For how long a mount may be in use by somebody who only looks at all mounts of the machine.
const LOOKED_AT: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What to do about a mount in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detach {
    /// Refuse.
    WhenUnused,
    /// Free the name at once; whoever has files open goes on until they are closed.
    Lazily,
    /// The same of what has lost its process, unless something else stands in it, which would go with it.
    Remains,
}

/// Why a mount was not taken away.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// Files in it are open, or it is somebody's working directory.
    #[error(
        "{0} is in use: a file in it is open, it is the working directory of a process, or something is mounted in it"
    )]
    Busy(PathBuf),
    /// Nothing is mounted there.
    #[error("nothing is mounted on {0}")]
    NotMounted(PathBuf),
    /// It is not what one would see there.
    #[error("something else is mounted over {0}; take that away first")]
    Covered(PathBuf),
    /// Another mount stands in it.
    #[error("{other} is mounted in {dir}, and would go with it; take that away first", other = .other.display(), dir = .dir.display())]
    Carries {
        /// The mount point.
        dir: PathBuf,
        /// That of the other.
        other: PathBuf,
    },
    /// This user may not.
    #[error("{0} was mounted by another user; unmount it as that user or as root")]
    NotPermitted(PathBuf),
    /// What is mounted is not known.
    #[error("cannot see what is mounted on {dir}", dir = .dir.display())]
    Unseen {
        /// The mount point.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no helper for users who are not root.
    #[error("unmounting as a user needs fusermount3; install it (apt-get install fuse3)")]
    NoHelper,
    /// The kernel or the helper refused.
    #[error("unmounting {dir} failed", dir = .dir.display())]
    Refused {
        /// The mount point.
        dir: PathBuf,
        /// What they said.
        source: io::Error,
    },
}

impl UnmountError {
    /// See [`super::is_scarce`].
    pub fn is_for_want_of_resources(&self) -> bool {
        matches!(self, Self::Refused { source, .. } | Self::Unseen { source, .. } if super::is_scarce(source))
    }
}

/// Takes away this mount, by whichever process it is served, and nothing that lies over it or has its name by now.
pub fn unmount(mount: &MountEntry, detach: Detach) -> Result<(), UnmountError> {
    match Found::of(mount) {
        Ok(found) => {
            let carried = match detach {
                Detach::Remains => found.carried(mount)?,
                Detach::WhenUnused | Detach::Lazily => None,
            };
            match carried {
                Some(other) => Err(UnmountError::Carries { dir: found.dir, other }),
                None => found.unmount(detach),
            }
        }
        // What got the number of one that is gone is gone itself by now.
        Err(UnmountError::Covered(_) | UnmountError::Refused { .. }) if table::is_gone(mount) => {
            Err(UnmountError::NotMounted(mount.dir.clone()))
        }
        Err(error) => Err(error),
    }
}

/// Where a mount is.
struct Found {
    dir: PathBuf,
    /// The directory that it stands in: no name on the way leads elsewhere.
    above: OwnedFd,
    name: OsString,
}

impl Found {
    /// Where this one is, and nothing lies over it.
    fn of(mount: &MountEntry) -> Result<Self, UnmountError> {
        let there = table::still_there(mount)
            .map_err(|source| UnmountError::Unseen { dir: mount.dir.clone(), source })?;
        let Some(there) = there else {
            return Err(UnmountError::NotMounted(mount.dir.clone()));
        };
        let dir = there.dir;
        let refused = |source: io::Error| UnmountError::Refused { dir: dir.clone(), source };
        let (Some(above), Some(name)) = (dir.parent(), dir.file_name()) else {
            return Err(UnmountError::NotMounted(dir));
        };
        let name = name.to_owned();
        // The last one is not followed.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS;
        let above = rustix::fs::openat2(rustix::fs::CWD, above, flags, Mode::empty(), resolve)
            .map_err(|error| refused(error.into()))?;
        let seen = rustix::fs::openat(&above, &name, flags | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|error| refused(error.into()))?;
        let (id, only_id) = (table::mount_id(&seen).map_err(refused)?, table::only_id(&seen));
        // It would keep the mount in use.
        drop(seen);
        if id != there.id {
            return Err(UnmountError::Covered(dir));
        }
        if mount.only_id.zip(only_id).is_some_and(|(one, other)| one != other) {
            // Another one got the number of this one.
            return Err(UnmountError::NotMounted(mount.dir.clone()));
        }
        Ok(Self { dir, above, name })
    }

    /// What is mounted in it.
    fn carried(&self, mount: &MountEntry) -> Result<Option<PathBuf>, UnmountError> {
        let table = table::mounts()
            .map_err(|source| UnmountError::Unseen { dir: self.dir.clone(), source })?;
        Ok(table.into_iter().find(|other| other.parent == mount.id).map(|other| other.dir))
    }

    fn unmount(&self, detach: Detach) -> Result<(), UnmountError> {
        let above = Path::new("/proc/self/fd").join(self.above.as_raw_fd().to_string());
        let at = above.join(&self.name);
        let begun = Instant::now();
        loop {
            match by_system_call(&self.dir, &at, detach) {
                Err(UnmountError::Busy(_)) if begun.elapsed() < LOOKED_AT => {
                    std::thread::park_timeout(LOOK_AGAIN);
                }
                done => return done,
            }
        }
    }
}

/// Takes away what is mounted on `dir`, which `at` leads to.
fn by_system_call(dir: &Path, at: &Path, detach: Detach) -> Result<(), UnmountError> {
    let flags = match detach {
        Detach::WhenUnused => UnmountFlags::NOFOLLOW,
        Detach::Lazily | Detach::Remains => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(at, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(UnmountError::Busy(dir.to_owned())),
        Err(Errno::INVAL | Errno::NOENT) => Err(UnmountError::NotMounted(dir.to_owned())),
        Err(Errno::PERM) => by_helper(dir, detach),
        Err(error) => {
            Err(UnmountError::Refused { dir: dir.to_owned(), source: io::Error::from(error) })
        }
    }
}

/// Whether a mount on `dir` has lost the process that served it. Blocks for as long as one that is there takes to
/// answer.
pub fn is_dead(dir: &Path) -> bool {
    // Unlike attributes, the kernel remembers no answer to this.
    matches!(rustix::fs::statfs(dir), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// How a mount is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// By a process that answers.
    Live,
    /// Its process is gone.
    Dead,
    /// Its process does not answer, or is gone and waited for.
    Silent,
}

/// How the mount on `dir` is served, by what it answers within a time.
pub fn served(dir: &Path, within: Duration) -> Served {
    let (tell, told) = channel();
    let dir = dir.to_owned();
    // It waits as long as nobody answers; nobody waits for it.
    let asking = std::thread::Builder::new().name("dfs-served".to_owned());
    let asked = asking.spawn(move || tell.send(is_dead(&dir)));
    match asked.map(|_| told.recv_timeout(within)) {
        Ok(Ok(true)) => Served::Dead,
        Ok(Ok(false)) => Served::Live,
        _ => Served::Silent,
    }
}

fn by_helper(dir: &Path, detach: Detach) -> Result<(), UnmountError> {
    let helper = check::find_helper().ok_or(UnmountError::NoHelper)?;
    let mut command = Command::new(helper);
    command.arg("-u");
    if detach != Detach::WhenUnused {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(dir)
        .env("LC_ALL", "C")
        .output()
        .map_err(|source| UnmountError::Refused { dir: dir.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(understand(dir, said))
}

/// The helper has one exit status for everything; its words are all there is.
fn understand(dir: &Path, said: String) -> UnmountError {
    let dir = dir.to_owned();
    if said.contains("busy") {
        UnmountError::Busy(dir)
    } else if said.contains("not found in") || said.contains("not mounted") {
        UnmountError::NotMounted(dir)
    } else if said.contains("not permitted") || said.contains("Permission denied") {
        UnmountError::NotPermitted(dir)
    } else {
        UnmountError::Refused { dir, source: io::Error::other(said) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helpers_words_are_understood() {
        let said = |text: &str| understand(Path::new("/m"), text.to_owned());
        let busy = "fusermount3: failed to unmount /m: Device or resource busy";
        assert!(matches!(said(busy), UnmountError::Busy(_)));
        let none = "fusermount3: entry for /m not found in /etc/mtab";
        assert!(matches!(said(none), UnmountError::NotMounted(_)));
        let other = "fusermount3: failed to unmount /m: Operation not permitted";
        assert!(matches!(said(other), UnmountError::NotPermitted(_)));
        assert!(matches!(said("what?"), UnmountError::Refused { .. }));
    }
}
