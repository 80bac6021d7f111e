//! Sockets by names of any length: a socket's address has room for 107 bytes.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::SocketAddrUnix;

/// Longest name that an address holds, in bytes.
const LONGEST: usize = 107;

/// The address of the socket at `path`, as long as this lives.
pub(super) struct Address {
    /// What is asked for.
    pub at: SocketAddrUnix,
    /// The directory that a long name is in, where that is named by its handle.
    _dir: Option<OwnedFd>,
}

impl Address {
    /// That of a path.
    pub fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self { at: SocketAddrUnix::new(path)?, _dir: None });
        }
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, dir, flags, Mode::empty())?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        Ok(Self { at: SocketAddrUnix::new(&short)?, _dir: Some(dir) })
    }
}
