//! What `--fix` does: small steps, each told before it is done, none of which takes anything from who is at work.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use dfs_fuse::agent::inside;
use dfs_fuse::mount::{Detach, MountEntry, is_dead, unmount};
use rustix::fs::{
    CWD, FileType, FlockOperation, Mode, OFlags, ResolveFlags, flock, fstat, openat2,
};

use super::memory::give_back;
use crate::output::quoted_path;

/// One step.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Takes away a mount that has lost its process, also where it is in use, unless something is mounted in it.
    Bury(MountEntry),
    /// Takes away a mount that needs no process and that nobody has noted, unless it is in use.
    Unmount(MountEntry),
    /// Removes what commands that were killed left below a directory.
    Sweep(PathBuf),
    /// Removes a socket on which nobody listens.
    Socket(PathBuf),
    /// Removes an empty directory of a store that nobody has open.
    EmptyTask(PathBuf),
    /// Removes what a store that nobody has open threw away.
    Trash(PathBuf),
    /// Gives back the memory that the store of a data directory takes with which nobody works.
    Memory(PathBuf, PathBuf),
    /// Gives a file these permissions.
    Mode(PathBuf, u32),
    /// Gives a file to this user and group.
    Owner(PathBuf, u32, u32),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bury(mount) => write!(f, "umount --lazy {}", quoted_path(&mount.dir)),
            Self::Unmount(mount) => write!(f, "umount {}", quoted_path(&mount.dir)),
            Self::Sweep(dir) => {
                write!(f, "rm -r what killed commands left in {}", quoted_path(dir))
            }
            Self::Socket(socket) => write!(f, "rm {}", quoted_path(socket)),
            Self::EmptyTask(dir) => write!(f, "rmdir {}", quoted_path(dir)),
            Self::Trash(dir) | Self::Memory(dir, _) => write!(f, "rm -r {}", quoted_path(dir)),
            Self::Mode(path, mode) => write!(f, "chmod {mode:o} {}", quoted_path(path)),
            Self::Owner(path, uid, gid) => write!(f, "chown {uid}:{gid} {}", quoted_path(path)),
        }
    }
}

impl Step {
    /// Does it. Blocks.
    pub fn take(&self) -> Result<(), String> {
        let told = |done: io::Result<()>| done.map_err(|error| error.to_string());
        match self {
            // Somebody may have come for it since.
            Self::Bury(mount) if !is_dead(&mount.dir) => Err("it is served again".to_owned()),
            Self::Bury(mount) => unmount(mount, Detach::Remains).map_err(|error| error.to_string()),
            Self::Unmount(mount) => {
                unmount(mount, Detach::WhenUnused).map_err(|error| error.to_string())
            }
            Self::Sweep(dir) => {
                inside::sweep(dir);
                match inside::abandoned(dir).len() {
                    0 => Ok(()),
                    left => Err(format!("{left} of what killed commands left cannot be removed")),
                }
            }
            Self::Socket(socket) => match is_left(socket) {
                true => told(fs::remove_file(socket)),
                false => Err("somebody listens on it by now".to_owned()),
            },
            Self::EmptyTask(dir) => told(unopened(dir, 3).and_then(|_lock| fs::remove_dir(dir))),
            Self::Trash(dir) => told(unopened(dir, 2).and_then(|_lock| fs::remove_dir_all(dir))),
            Self::Memory(dir, data_dir) => told(give_back(dir, data_dir)),
            Self::Mode(path, mode) => {
                let mode = Permissions::from_mode(*mode);
                told(held(path).and_then(|file| fs::set_permissions(by_handle(&file), mode)))
            }
            Self::Owner(path, uid, gid) => {
                told(held(path).and_then(|file| chown(by_handle(&file), Some(*uid), Some(*gid))))
            }
        }
    }
}

/// What is at a path that was found without a link on its way. Its owner may have put one there since, or given it the name of
/// another file, and root does for nobody what he may not do himself.
fn held(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let found = fstat(&file)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => Ok(file),
        FileType::RegularFile if found.st_nlink == 1 => Ok(file),
        _ => Err(io::Error::other("it is not the file that was found")),
    }
}

fn by_handle(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether nobody listens on a socket that is there.
pub(super) fn is_left(socket: &Path) -> bool {
    matches!(
        UnixStream::connect(socket),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused
    )
}

/// Keeps the store open to nobody else, in whose directory `path` lies so many levels deep.
fn unopened(path: &Path, levels: usize) -> io::Result<File> {
    let root = path.ancestors().nth(levels).unwrap_or(path);
    closed_store(root)?.ok_or_else(|| io::Error::other("an agent works with it"))
}

/// The lock of the store in a directory, held; `None` while an agent works with it.
pub(super) fn closed_store(root: &Path) -> io::Result<Option<File>> {
    let lock = File::options().read(true).write(true).open(root.join("store.lock"))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(lock)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_became_another_file_since_it_was_found_stays_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let (dir, other) = (root.join("dir"), root.join("other"));
        for dir in [&dir, &other] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("file"), "").unwrap();
            fs::set_permissions(dir.join("file"), Permissions::from_mode(0o400)).unwrap();
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (file, theirs) = (dir.join("file"), other.join("file"));
        let step = Step::Mode(file.clone(), 0o666);
        step.take().unwrap();
        assert_eq!(mode(&file), 0o666);

        let refused = |how: &str| {
            assert!(step.take().is_err(), "{how}");
            assert!(Step::Owner(file.clone(), 1, 1).take().is_err(), "{how}");
            assert_eq!(mode(&theirs), 0o400, "{how}");
        };
        fs::remove_file(&file).unwrap();
        fs::hard_link(&theirs, &file).unwrap();
        refused("another name of it");
        fs::remove_file(&file).unwrap();
        symlink(&theirs, &file).unwrap();
        refused("a link to it");
        fs::remove_dir_all(&dir).unwrap();
        symlink(&other, &dir).unwrap();
        refused("a link on the way to it");
    }
}
