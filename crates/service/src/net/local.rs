//! A Unix socket that appears ready and with the right permissions, and goes with its owner.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use tokio::net::UnixListener;

use super::NetError;

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketAccess {
    /// This user: mode 0600.
    Owner,
    /// This user and the members of a group, by number: mode 0660.
    Group(u32),
}

impl SocketAccess {
    /// The directory on the way to `path` that those who are let in may not enter, as far as permission bits
    /// tell: what others may do on the socket is then of no use to them.
    pub fn shut_out_by(self, path: &Path) -> Option<PathBuf> {
        let Self::Group(group) = self else { return None };
        let parent = std::path::absolute(path).ok()?.parent()?.canonicalize().ok()?;
        let enters = |dir: &Path| {
            fs::metadata(dir).is_ok_and(|found| {
                let bit = if found.gid() == group { 0o010 } else { 0o001 };
                found.mode() & bit != 0
            })
        };
        parent.ancestors().find(|dir| !enters(dir)).map(Path::to_owned)
    }
}

/// A listening Unix socket; its name goes when this is dropped.
#[derive(Debug)]
pub struct LocalListener {
    listener: UnixListener,
    name: SocketName,
}

/// The name of a socket, and which file it was.
#[derive(Debug)]
pub(super) struct SocketName {
    path: PathBuf,
    inode: u64,
}

impl LocalListener {
    /// Listens on `path`, in place of a socket on which nobody answers. The caller makes sure that
    /// the directory is private or that only this process makes sockets in it.
    pub fn bind(path: &Path, access: SocketAccess) -> Result<Self, NetError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => NetError::SocketInUse { path: path.to_owned() },
            _ => NetError::Socket { path: path.to_owned(), source },
        };
        let bind = |path: &Path| UnixListener::bind(path);
        let listener = published(path, access, connect_at_once, bind).map_err(failed)?;
        let inode = fs::symlink_metadata(path).map_err(failed)?.ino();
        Ok(Self { listener, name: SocketName { path: path.to_owned(), inode } })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.name.path
    }

    pub(super) fn into_parts(self) -> (UnixListener, SocketName) {
        (self.listener, self.name)
    }
}

impl Drop for SocketName {
    fn drop(&mut self) {
        // A successor may have put its own socket there.
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|status| status.ino() == self.inode);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whoever listens and takes nobody in, because it is stopped, is there all the same: nobody waits for it.
fn connect_at_once(path: &Path) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// What `bind` makes of the name of a socket, at `path`, in place of a socket on which nobody answers who would `connect`.
/// It is made beside and renamed: it is there with its permissions, or not at all. Where somebody answers it is in use
/// ([`io::ErrorKind::AddrInUse`]).
pub fn published<L>(
    path: &Path,
    access: SocketAccess,
    connect: impl FnOnce(&Path) -> io::Result<()>,
    bind: impl FnOnce(&Path) -> io::Result<L>,
) -> io::Result<L> {
    if answers(path, connect)? {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    remove(&beside)?;
    let listener = bind(&beside)?;
    let renamed = permit(&beside, access).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = renamed {
        // Best effort: the error that matters is the first.
        let _ = remove(&beside);
        return Err(error);
    }
    Ok(listener)
}

/// Whether somebody listens on `path`. A file that is not a socket is an error.
fn answers(path: &Path, connect: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<bool> {
    match connect(path) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Ok(false),
            io::ErrorKind::ConnectionRefused => match is_socket(path) {
                Ok(true) => Ok(false),
                Ok(false) => {
                    let why = "there is a file of this name";
                    Err(io::Error::new(io::ErrorKind::AlreadyExists, why))
                }
                // Whoever had it has taken it away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            },
            _ => Err(error),
        },
    }
}

fn is_socket(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).map(|status| status.file_type().is_socket())
}

fn permit(path: &Path, access: SocketAccess) -> io::Result<()> {
    match access {
        SocketAccess::Owner => fs::set_permissions(path, Permissions::from_mode(0o600)),
        SocketAccess::Group(group) => {
            chown(path, None, Some(group))?;
            fs::set_permissions(path, Permissions::from_mode(0o660))
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let listener = LocalListener::bind(&path, SocketAccess::Owner).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(StdUnixStream::connect(listener.path()).is_ok());
        drop(listener);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_socket_of_somebody_who_takes_nobody_in_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let stopped = StdUnixListener::bind(&path).unwrap();
        rustix::net::listen(&stopped, 0).unwrap();
        let _waiting = StdUnixStream::connect(&path).unwrap();
        for _ in 0..3 {
            let refused = LocalListener::bind(&path, SocketAccess::Owner);
            assert!(matches!(refused, Err(NetError::SocketInUse { .. })), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn a_group_may_be_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let own = rustix::process::getegid().as_raw();
        let _listener = LocalListener::bind(&path, SocketAccess::Group(own)).unwrap();
        assert_eq!(mode(&path), 0o660);
    }

    #[test]
    fn a_directory_that_shuts_the_group_out_is_found_wherever_it_is_on_the_way() {
        let place = tempfile::tempdir().unwrap();
        let inner = place.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let socket = inner.join("agent.sock");
        let access = |mode, inner_mode| {
            fs::set_permissions(&inner, Permissions::from_mode(inner_mode)).unwrap();
            fs::set_permissions(place.path(), Permissions::from_mode(mode)).unwrap();
            SocketAccess::Group(4242).shut_out_by(&socket)
        };
        assert_eq!(access(0o711, 0o711), None);
        assert_eq!(access(0o711, 0o700), Some(inner.canonicalize().unwrap()));
        assert_eq!(access(0o710, 0o711), Some(place.path().canonicalize().unwrap()));
        assert_eq!(SocketAccess::Owner.shut_out_by(&socket), None);
        let own = rustix::process::getegid().as_raw();
        assert_eq!(SocketAccess::Group(own).shut_out_by(&socket), None, "by the group's own bit");
    }

    #[tokio::test]
    async fn a_socket_left_by_a_crash_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the crash left its socket");
        let _listener = LocalListener::bind(&path, SocketAccess::Owner).unwrap();
        let error = LocalListener::bind(&path, SocketAccess::Owner).unwrap_err();
        assert!(matches!(error, NetError::SocketInUse { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        fs::write(&path, "precious").unwrap();
        assert!(LocalListener::bind(&path, SocketAccess::Owner).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
