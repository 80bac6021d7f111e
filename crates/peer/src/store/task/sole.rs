//! Whether anybody else has a content file open: the kernel, for a mount of which this process may know nothing, or
//! another process.
//!
//! A write lease (fcntl(2)) is granted only on a file that nobody else has open, by whatever name or way, and as long as it
//! is held whoever opens the file waits.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `F_SETSIG`: by which signal the kernel tells of what happens to a descriptor.
const SET_SIGNAL: c_int = 10;

/// What the kernel says to who holds a lease that somebody waits for: it is held for a moment only, and the signal that
/// is sent otherwise ends a process.
const TOLD_BY: c_int = libc::SIGURG;

/// Nobody else has a file open, and nobody opens it until this is dropped.
pub(super) struct Sole<'a>(&'a File);

/// Who has a file open.
pub(super) enum Opens<'a> {
    /// Nobody but who asks, until this is dropped.
    Sole { _until: Sole<'a> },
    /// Somebody else, too, as far as can be told now.
    Shared,
    /// The file system never tells.
    Unknown,
}

impl<'a> Opens<'a> {
    /// Those of a file that was opened to be written to; copies of its descriptor are the same open.
    pub(super) fn of(file: &'a File) -> Self {
        let leased = control(file, SET_SIGNAL, TOLD_BY)
            .and_then(|()| control(file, libc::F_SETLEASE, libc::F_WRLCK));
        match leased {
            Ok(()) => Self::Sole { _until: Sole(file) },
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Self::Unknown,
            Err(_) => Self::Shared,
        }
    }
}

impl Drop for Sole<'_> {
    fn drop(&mut self) {
        // The kernel takes it away by itself from who does not give it back.
        let _ = control(self.0, libc::F_SETLEASE, libc::F_UNLCK);
    }
}

#[allow(unsafe_code)]
fn control(file: &File, command: c_int, argument: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call, and these commands take a number.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn a_file_that_is_one_s_alone_is_opened_by_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let copy = file.try_clone().unwrap();
        let sole = Opens::of(&file);
        assert!(matches!(sole, Opens::Sole { .. }), "a copy is no other open");
        // Whoever does not want to wait is told, and this process lives.
        let open = || File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        assert_eq!(open().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(sole);
        let other = open().unwrap();
        assert!(matches!(Opens::of(&file), Opens::Shared));
        drop((other, copy));
        assert!(matches!(Opens::of(&file), Opens::Sole { .. }));
    }

    #[test]
    fn what_cannot_be_told_now_is_taken_for_somebody_else_s_too() {
        let dir = tempfile::tempdir().unwrap();
        // Nothing that is no file has a lease.
        assert!(matches!(Opens::of(&File::open(dir.path()).unwrap()), Opens::Unknown));
        let path = dir.path().join("content");
        File::create(&path).unwrap();
        let named = File::options().read(true).custom_flags(libc::O_PATH).open(&path).unwrap();
        assert!(matches!(Opens::of(&named), Opens::Shared));
    }
}
