//! What must be so before mounting; each failure says what to do.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::MountError;
use super::table::{MountEntry, Table};

/// Where the kernel offers FUSE.
const DEVICE: &str = "/dev/fuse";

/// A directory that may be mounted on. It stays this one, whatever its name leads to by the time of the mount, and as long as
/// this is there nobody else of this process mounts on it.
#[derive(Debug)]
pub(super) struct MountPoint {
    /// Its absolute name.
    pub dir: PathBuf,
    handle: OwnedFd,
    _turn: Turn,
}

/// Where this process is about to mount: two that find nothing mounted there would mount one over the other.
static UNDER_WAY: (Mutex<BTreeSet<PathBuf>>, Condvar) =
    (Mutex::new(BTreeSet::new()), Condvar::new());

/// Of those who want to mount on a directory the one who does.
#[derive(Debug)]
struct Turn(PathBuf);

impl Turn {
    /// Waits for the one before.
    fn at(dir: &Path) -> Self {
        let (under_way, ended) = &UNDER_WAY;
        let mut under_way = under_way.lock();
        ended.wait_while(&mut under_way, |under_way| under_way.contains(dir));
        under_way.insert(dir.to_owned());
        Self(dir.to_owned())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        UNDER_WAY.0.lock().remove(&self.0);
        UNDER_WAY.1.notify_all();
    }
}

impl MountPoint {
    /// Whether what lies at `path` could not be reached any more, or not be made: it lies below, or this one lies below it.
    pub fn is_in_the_way_of(&self, path: &Path) -> bool {
        path.canonicalize()
            .is_ok_and(|real| real.starts_with(&self.dir) || self.dir.starts_with(&real))
    }

    /// Whether it is `dir`, or below it.
    pub fn lies_within(&self, dir: &Path) -> bool {
        dir.canonicalize().is_ok_and(|real| self.dir.starts_with(real))
    }

    /// A name that leads to the directory itself, for as long as this is.
    pub fn target(&self) -> PathBuf {
        name_of(&self.handle)
    }
}

fn name_of(handle: &OwnedFd) -> PathBuf {
    Path::new("/proc/self/fd").join(handle.as_raw_fd().to_string())
}

/// The mount point, if something may be mounted there; `owner` is whose it must be. Where another `way` leads to it, its
/// own name is not looked up.
pub(super) fn mount_point(
    dir: &Path,
    way: Option<&Path>,
    owner: Option<u32>,
) -> Result<MountPoint, MountError> {
    // Not asked to be a directory: that would have systemd mount on it what is being mounted (autofs).
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let (real, name, flags) = match way {
        Some(way) => (dir.to_owned(), way.to_owned(), flags),
        None => {
            let real = dir.canonicalize().map_err(|error| unusable(dir, error))?;
            (real.clone(), real, flags | OFlags::NOFOLLOW)
        }
    };
    // From here on it is looked at through the handle: a name can be given to another directory in between.
    let handle = rustix::fs::open(&name, flags, Mode::empty())
        .map_err(|error| unusable(&real, error.into()))?;
    let found = rustix::fs::fstat(&handle).map_err(|error| unusable(&real, error.into()))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return Err(MountError::NotADirectory(real));
    }
    let named = name_of(&handle).read_link().map_err(|error| unusable(&real, error))?;
    let point = MountPoint { _turn: Turn::at(&named), dir: named, handle };
    let there = Table::open().and_then(|mut table| table.mounted_at(&point.dir));
    let there = there.map_err(|error| unusable(&point.dir, error))?;
    if let Some(mount) = there.filter(MountEntry::shows_ours) {
        return Err(MountError::AlreadyMounted { dir: point.dir, name: mount.name });
    }
    let status =
        rustix::fs::fstat(&point.handle).map_err(|error| unusable(&point.dir, error.into()))?;
    if owner.is_some_and(|owner| owner != status.st_uid) {
        return Err(MountError::NotTheirs(point.dir));
    }
    Ok(point)
}

fn unusable(dir: &Path, source: io::Error) -> MountError {
    let dir = dir.to_owned();
    match source.kind() {
        ErrorKind::NotFound => MountError::NoDirectory(dir),
        ErrorKind::NotADirectory => MountError::NotADirectory(dir),
        ErrorKind::NotConnected => MountError::Dead(dir),
        _ => MountError::Unreadable { dir, source },
    }
}

/// Opens the FUSE device. The helper does so with its caller's rights: who may not, cannot mount.
pub fn open_device() -> Result<File, MountError> {
    let meta = std::fs::metadata(DEVICE);
    if !meta.is_ok_and(|meta| meta.file_type().is_char_device()) {
        return Err(MountError::NoDevice);
    }
    OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => MountError::DeviceRefused,
        _ if is_no_driver(&error) => MountError::NoDevice,
        _ => MountError::Device { source: error },
    })
}

/// Whether the device is there and the kernel has nothing behind it.
fn is_no_driver(error: &io::Error) -> bool {
    let absent = [Errno::NODEV, Errno::NXIO, Errno::NOENT];
    absent.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Where `fusermount3` is: where packages put it, else in the search path.
pub fn find_helper() -> Option<PathBuf> {
    find_in(["/usr/bin", "/bin"], &std::env::var_os("PATH").unwrap_or_default())
}

fn find_in<const N: usize>(first: [&str; N], path: &OsStr) -> Option<PathBuf> {
    first
        .map(PathBuf::from)
        .into_iter()
        .chain(std::env::split_paths(path))
        .chain([PathBuf::from("/usr/local/bin")])
        .map(|folder| folder.join("fusermount3"))
        .find(|file| {
            std::fs::metadata(file).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
        })
}

/// Whether the system lets users mount for everyone.
pub fn others_allowed() -> bool {
    std::fs::read_to_string("/etc/fuse.conf").is_ok_and(|text| allows_others(&text))
}

fn allows_others(text: &str) -> bool {
    text.lines().any(|line| line.trim() == "user_allow_other")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn a_commented_permission_is_none() {
        assert!(allows_others("# x\nmount_max = 5\n user_allow_other\n"));
        assert!(!allows_others("#user_allow_other\n"));
    }

    #[test]
    fn the_systems_helper_goes_before_that_of_the_search_path() {
        let place = tempfile::tempdir().unwrap();
        let folder = |name: &str, mode| {
            let folder = place.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let helper = folder.join("fusermount3");
            std::fs::write(&helper, "").unwrap();
            std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(mode)).unwrap();
            folder
        };
        let (inert, system, own) = (folder("a", 0o644), folder("b", 0o755), folder("c", 0o755));
        let path = own.as_os_str();
        let found = |first: &Path| find_in([first.to_str().unwrap()], path).unwrap();
        assert_eq!(found(&system), system.join("fusermount3"));
        assert_eq!(found(&inert), own.join("fusermount3"));
    }

    #[test]
    fn a_mount_point_must_be_a_directory_that_exists() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(mount_point(&file, None, None), Err(MountError::NotADirectory(_))));
        let missing = mount_point(&folder.path().join("none"), None, None);
        assert!(matches!(missing, Err(MountError::NoDirectory(_))));
        let point = mount_point(folder.path(), None, None).unwrap();
        assert_eq!(point.dir, folder.path().canonicalize().unwrap());
    }

    #[test]
    fn another_way_leads_to_the_directory_and_its_name_is_that_of_where_it_leads() {
        let folder = tempfile::tempdir().unwrap();
        let open = File::open(folder.path()).unwrap();
        let way = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd()));
        // The name is not looked up: it may be one that waits.
        let point = mount_point(Path::new("/nonexistent"), Some(&way), None).unwrap();
        assert_eq!(point.dir, folder.path().canonicalize().unwrap());
        let file = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
        let refused = mount_point(folder.path(), Some(file.path()), None);
        assert!(matches!(refused, Err(MountError::NotADirectory(_))), "{refused:?}");
    }

    #[test]
    fn a_mount_point_hides_itself_and_what_is_below() {
        let folder = tempfile::tempdir().unwrap();
        let (data, beside) = (folder.path().join("data"), folder.path().join("data-2"));
        std::fs::create_dir_all(data.join("store")).unwrap();
        std::fs::create_dir(&beside).unwrap();
        for (dir, hides) in [(folder.path(), true), (&data, true), (&beside, false)] {
            assert_eq!(
                mount_point(dir, None, None).unwrap().is_in_the_way_of(&data),
                hides,
                "{dir:?}"
            );
        }
        assert!(mount_point(&data.join("store"), None, None).unwrap().is_in_the_way_of(&data));
    }

    #[test]
    fn of_those_who_want_to_mount_on_a_directory_one_does_at_a_time() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let about_to = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..100 {
                        let point = mount_point(folder.path(), None, None).unwrap();
                        assert_eq!(about_to.fetch_add(1, Relaxed), 0);
                        // Elsewhere nobody is in the way.
                        drop(mount_point(other.path(), None, None).unwrap());
                        about_to.fetch_sub(1, Relaxed);
                        drop(point);
                    }
                });
            }
        });
    }

    #[test]
    fn a_mount_point_belongs_to_whom_it_must() {
        let folder = tempfile::tempdir().unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert!(mount_point(folder.path(), None, Some(own)).is_ok());
        let refused = mount_point(folder.path(), None, Some(own + 1));
        assert!(matches!(refused, Err(MountError::NotTheirs(_))), "{refused:?}");
    }

    #[test]
    fn a_mount_point_stays_the_directory_that_was_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (name, moved, other) = (root.join("name"), root.join("moved"), root.join("other"));
        std::fs::create_dir(&name).unwrap();
        std::fs::create_dir(&other).unwrap();
        let point = mount_point(&name, None, None).unwrap();
        std::fs::rename(&name, &moved).unwrap();
        std::os::unix::fs::symlink(&other, &name).unwrap();
        assert_eq!(point.target().canonicalize().unwrap(), moved);
    }
}
