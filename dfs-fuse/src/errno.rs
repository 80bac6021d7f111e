//! The one place where errors of the filesystem core become numbers of the kernel.

use crate::content::ContentErrorClass;
use crate::core::FsError;
use crate::tree::TreeError;

/// The error number a program sees; the readable reason is in `user.dfs.error` of the file.
///
/// Whatever kept bytes away is `EIO`: programs know what to do with it, and nothing else says more
/// without being mistaken for a statement about the file's permissions or existence.
pub fn errno(error: &FsError) -> i32 {
    match error {
        FsError::Stale(_) => libc::ESTALE,
        FsError::IsADirectory => libc::EISDIR,
        FsError::NoAttribute => libc::ENODATA,
        FsError::PastEnd => libc::ENXIO,
        FsError::ReadOnly => libc::EROFS,
        FsError::Stopping | FsError::Unrecorded => libc::EIO,
        FsError::Tree(error) => match error {
            TreeError::NoInode(_) => libc::ESTALE,
            TreeError::NotADirectory(_) => libc::ENOTDIR,
            TreeError::NotASymlink(_) | TreeError::NotAFile(_) => libc::EINVAL,
            TreeError::Corrupt(_) => libc::EIO,
        },
        FsError::Content(error) => match error.class {
            ContentErrorClass::Io
            | ContentErrorClass::Integrity
            | ContentErrorClass::OriginChanged
            | ContentErrorClass::NotPermitted
            | ContentErrorClass::Timeout => libc::EIO,
        },
    }
}
