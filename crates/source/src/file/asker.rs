//! Reading files for another user of this machine: with that user's rights, below directories that
//! are exported.
//!
//! Every path is opened on a thread that has given up all rights but the user's and ends afterwards:
//! nothing is left to be given back, and no error on the way leaves a thread with rights that are not
//! its own. The user's further groups are not known here, so they open nothing.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::blocking;
use crate::{LocalUser, SourceError};

/// Opens for reading without waiting for anybody (a named pipe would).
const READ: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A path, and who names it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    path: PathBuf,
    /// Another user, and the exported directory that is never left.
    other: Option<(LocalUser, PathBuf)>,
    /// A directory that it lies in, and that no link leads out of.
    within: Option<PathBuf>,
}

impl Place {
    /// A path named by this process's own user.
    pub fn own(path: PathBuf) -> Self {
        Self { path, other: None, within: None }
    }

    /// A path named by `user`; `None` where it lies in no exported directory.
    pub fn of(path: PathBuf, user: LocalUser, exports: &[PathBuf]) -> Option<Self> {
        let export = exports.iter().find(|export| path.starts_with(export))?.clone();
        Some(Self { path, other: Some((user, export)), within: None })
    }

    /// The same path, which lies in `dir` and is not followed out of it.
    pub fn within(self, dir: PathBuf) -> Self {
        Self { within: Some(dir), ..self }
    }

    /// Opens what stands there, as who names it.
    pub fn open(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let Some(dir) = &self.within else { return self.open_at(&self.path, READ | flags) };
        let root = self.open_at(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
        match beneath(&root, self.path.strip_prefix(dir).ok(), READ | flags) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let why = format!("a link in it leads out of {}", dir.display());
                Err(io::Error::other(why))
            }
            opened => opened,
        }
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let Some((_, export)) = &self.other else {
            return Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
        };
        let root = rustix::fs::openat(CWD, export, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        beneath(&root, path.strip_prefix(export).ok(), flags)
    }

    /// What is known of it without reading, where its own user asks. Another user must be able to
    /// read it: what is read for them is kept.
    pub fn metadata(&self) -> io::Result<Metadata> {
        match (&self.other, &self.within) {
            (None, None) => std::fs::metadata(&self.path),
            _ => File::from(self.open(OFlags::empty())?).metadata(),
        }
    }

    /// Runs blocking work with the rights of who names the path.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let Some((user, _)) = &self.other else { return blocking(work).await };
        let user = user.clone();
        blocking(move || {
            let thread = std::thread::Builder::new().name("asker".to_owned());
            let started = thread.spawn(move || {
                become_user(&user).map_err(|cause| {
                    SourceError::setup(format!("reading files as user {}", user.uid), cause)
                })?;
                work()
            });
            let thread =
                started.map_err(|cause| SourceError::setup("a thread to read files on", cause))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .await
    }
}

/// Opens what lies below a directory, and never anything else; the directory itself where `below` is empty.
fn beneath(root: &OwnedFd, below: Option<&Path>, flags: OFlags) -> io::Result<OwnedFd> {
    let below = below.ok_or(io::ErrorKind::NotFound)?;
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root, below, flags, Mode::empty(), inside)?)
}

/// Gives up everything but the user's rights, for this thread and for good.
fn become_user(user: &LocalUser) -> io::Result<()> {
    use rustix::process::{Gid, Uid};
    // To the kernel -1 means whoever one is already, and root would give up nothing.
    if matches!(user.uid, 0 | u32::MAX) || user.gid == u32::MAX {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_groups(&[gid])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}
