//! What the kernel is told to forget.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;

use fuser::{INodeNo, Notifier};
use rustix::io::Errno;

use crate::core::Stale;

/// Tells the kernel what it knows of a mount and is not so any more.
///
/// A call waits for what others look up in the same directory, which this process answers meanwhile: it is not for the
/// threads that do.
#[derive(Clone)]
pub(crate) struct Notices(Notifier);

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notices").finish()
    }
}

impl Notices {
    pub fn new(notifier: Notifier) -> Self {
        Self(notifier)
    }

    /// Has it forget something; what it does not know is no error.
    pub fn forget(&self, stale: Stale<'_>) -> io::Result<()> {
        let told = match stale {
            Stale::Name(dir, name) => {
                self.0.inval_entry(INodeNo(dir.raw()), OsStr::from_bytes(name))
            }
            Stale::Attributes(node) => self.0.inval_inode(INodeNo(node.raw()), -1, 0),
            Stale::Pages(node) => self.0.inval_inode(INodeNo(node.raw()), 0, 0),
        };
        told.or_else(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            // A directory that is no directory for it any more.
            Some(Errno::NOTDIR) => Ok(()),
            _ => Err(error),
        })
    }
}
