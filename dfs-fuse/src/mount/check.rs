//! What must be so before mounting; each failure says what to do.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{MountError, table};

/// Where the kernel offers FUSE.
const DEVICE: &str = "/dev/fuse";

/// The mount point made absolute, if something may be mounted there.
pub(super) fn mount_point(dir: &Path) -> Result<PathBuf, MountError> {
    let unreadable = |source| MountError::Unreadable { dir: dir.to_owned(), source };
    let dir_now = match dir.canonicalize() {
        Ok(dir) => dir,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(MountError::NoDirectory(dir.to_owned()));
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            return Err(MountError::Dead(dir.to_owned()));
        }
        Err(error) => return Err(unreadable(error)),
    };
    if let Some(mount) = table::mounted_at(&dir_now).filter(table::MountEntry::is_ours) {
        return Err(MountError::AlreadyMounted { dir: dir_now, name: mount.name });
    }
    match std::fs::metadata(&dir_now) {
        Ok(meta) if meta.is_dir() => Ok(dir_now),
        Ok(_) => Err(MountError::NotADirectory(dir_now)),
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            Err(MountError::Dead(dir_now))
        }
        Err(error) => Err(unreadable(error)),
    }
}

/// Opens the FUSE device. The helper does so with its caller's rights: who may not, cannot mount.
pub(super) fn open_device() -> Result<File, MountError> {
    let meta = std::fs::metadata(DEVICE);
    if !meta.is_ok_and(|meta| meta.file_type().is_char_device()) {
        return Err(MountError::NoDevice);
    }
    OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => MountError::DeviceRefused,
        _ => MountError::NoDevice,
    })
}

/// Where `fusermount3` is: in the search path, or where packages put it.
pub(super) fn find_helper() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/bin", "/usr/local/bin"].map(PathBuf::from))
        .map(|folder| folder.join("fusermount3"))
        .find(|file| {
            std::fs::metadata(file).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
        })
}

/// Whether the system lets users mount for everyone.
pub(super) fn others_allowed() -> bool {
    std::fs::read_to_string("/etc/fuse.conf").is_ok_and(|text| allows_others(&text))
}

fn allows_others(text: &str) -> bool {
    text.lines().any(|line| line.trim() == "user_allow_other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commented_permission_is_none() {
        assert!(allows_others("# x\nmount_max = 5\n user_allow_other\n"));
        assert!(!allows_others("#user_allow_other\n"));
    }

    #[test]
    fn a_mount_point_must_be_a_directory_that_exists() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(mount_point(&file), Err(MountError::NotADirectory(_))));
        let missing = mount_point(&folder.path().join("none"));
        assert!(matches!(missing, Err(MountError::NoDirectory(_))));
        assert_eq!(mount_point(folder.path()).unwrap(), folder.path().canonicalize().unwrap());
    }
}
