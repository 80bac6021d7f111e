//! The directories of a process: where they are by default, and that they are its own.
//!
//! What lies in a data directory is trusted after a restart, and holds keys and other people's
//! content. So it must be a real directory of this user that nobody else can enter; one that is
//! not is refused, never repaired: it may be somebody's home. The directory of a socket may be
//! entered by others, who are then asked for their rights at the socket, but written by nobody else; one that
//! is closed to them is opened.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};

use crate::private_file;
use crate::run_info::started_ticks;

const LOCK_FILE: &str = "lock";

/// What others may do in a directory.
#[derive(Debug, Clone, Copy)]
enum Others {
    Nothing,
    Enter,
}

impl Others {
    fn mode(self) -> u32 {
        match self {
            Self::Nothing => 0o700,
            Self::Enter => 0o755,
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Nothing => "chmod 700",
            Self::Enter => "chmod go-w",
        }
    }
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The directory could not be made or looked at.
    #[error("cannot use directory {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The name is a symbolic link or a file.
    #[error("{} is not a directory (symbolic links are not followed here)", path.display())]
    NotADirectory {
        /// The name.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to uid {owner}, not to uid {own}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who this process is.
        own: u32,
    },
    /// Others may do more in it than they should.
    #[error(
        "{} is open to others (mode {mode:04o}): close it with `{remedy}`, or name another",
        path.display()
    )]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The command that closes it.
        remedy: &'static str,
    },
    /// Another process works on it.
    #[error("{} is in use by {holder}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who.
        holder: Holder,
    },
}

/// The process that has a directory, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// This one.
    Process {
        /// Its number.
        pid: u32,
        /// What the kernel calls it.
        name: String,
    },
    /// One that has not said who it is.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } => write!(f, "{name}, pid {pid}"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

impl Holder {
    /// Takes down in the lock that it is this process's.
    fn sign(mut lock: &File) -> io::Result<()> {
        let pid = std::process::id();
        lock.set_len(0)?;
        writeln!(lock, "{pid} {}", started_ticks(pid).unwrap_or(0))
    }

    /// Who signed the lock last, if that process is still there.
    fn of(lock: &File) -> Self {
        let mut text = String::new();
        // The lock of an older process is empty.
        let read = lock.take(64).read_to_string(&mut text);
        let signed = text.trim_end().split_once(' ').filter(|_| read.is_ok());
        let signed = signed.and_then(|(pid, ticks)| Some((pid.parse().ok()?, ticks.parse().ok()?)));
        match signed {
            Some((pid, ticks)) if started_ticks(pid) == Some(ticks) => {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let name = name.chars().filter(|c| !c.is_control()).collect();
                Self::Process { pid, name }
            }
            _ => Self::Unknown,
        }
    }
}

/// A private directory that this process alone works on, until this is dropped or the process
/// ends in whatever way.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes sure that `path` is a private directory, and takes it.
    pub fn take(path: &Path) -> Result<Self, DataDirError> {
        let path = private_dir(path)?;
        let failed = |source| DataDirError::Io { path: path.clone(), source };
        let lock = match Self::open_lock(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Empty as it was, somebody swept it.
                private_dir(&path)?;
                Self::open_lock(&path)
            }
            opened => opened,
        };
        let lock = lock.map_err(failed)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // On a full disk it is taken all the same, by somebody unknown.
                let _ = Holder::sign(&lock);
                private_file::sweep(&path);
                Ok(Self { path, _lock: lock })
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(DataDirError::InUse { path, holder: Holder::of(&lock) })
            }
            Err(errno) => Err(failed(errno.into())),
        }
    }

    fn open_lock(path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path.join(LOCK_FILE))
    }

    /// Who works on `path`, where that process has said so and is still there.
    pub fn taken_by(path: &Path) -> Option<Holder> {
        let lock = File::open(path.join(LOCK_FILE)).ok()?;
        Some(Holder::of(&lock)).filter(|holder| *holder != Holder::Unknown)
    }

    /// Whether `path` is a directory that somebody took once: others are none of ours.
    pub fn was_taken(path: &Path) -> bool {
        path.join(LOCK_FILE).symlink_metadata().is_ok_and(|lock| lock.is_file())
    }

    /// Removes it with all that is in it; the lock, which says that it was taken, behind everything else. What goes
    /// by itself meanwhile is as good as removed.
    pub fn remove(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            gone(match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
                Ok(_) if entry.file_name() != LOCK_FILE => fs::remove_file(entry.path()),
                looked_at => looked_at.map(drop),
            })?;
        }
        gone(fs::remove_dir_all(&self.path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A private directory inside, made if it is not there.
    pub fn subdir(&self, name: &str) -> Result<PathBuf, DataDirError> {
        private_dir(&self.path.join(name))
    }
}

/// Whether something is not there any more, whoever removed it.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

/// Makes `path` and its missing parents with mode 0700, or checks that what is there is a
/// directory of this user that no other can enter. Returns its absolute name.
pub fn private_dir(path: &Path) -> Result<PathBuf, DataDirError> {
    own_dir(path, Others::Nothing)
}

/// As [`private_dir`], for the directory of a socket: others may enter it (mode 0755), but not
/// write there.
pub fn socket_dir(path: &Path) -> Result<PathBuf, DataDirError> {
    own_dir(path, Others::Enter)
}

fn own_dir(path: &Path, others: Others) -> Result<PathBuf, DataDirError> {
    let failed = |source| DataDirError::Io { path: path.to_owned(), source };
    // Also takes away a trailing slash, which would follow a link.
    let path: PathBuf = std::path::absolute(path).map_err(failed)?.components().collect();
    if let Some(parent) = path.parent() {
        // As closed as what is made in them: they are somebody's data directory next.
        let made = DirBuilder::new().recursive(true).mode(others.mode()).create(parent);
        made.map_err(|source| match parent.ancestors().find(|place| place.is_file()) {
            Some(file) => DataDirError::NotADirectory { path: file.to_owned() },
            None => failed(source),
        })?;
    }
    match DirBuilder::new().mode(others.mode()).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => check(&path, others)?,
    }
    Ok(path)
}

fn check(path: &Path, others: Others) -> Result<(), DataDirError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed())
        .open(path);
    let (dir, status) = match opened.and_then(|dir| Ok((dir.metadata()?, dir))) {
        Ok((status, dir)) => (dir, status),
        Err(error) if is_not_a_directory(&error) => {
            return Err(DataDirError::NotADirectory { path: path.to_owned() });
        }
        Err(source) => return Err(DataDirError::Io { path: path.to_owned(), source }),
    };
    let own = rustix::process::geteuid().as_raw();
    if status.uid() != own {
        return Err(DataDirError::Foreign { path: path.to_owned(), owner: status.uid(), own });
    }
    let mode = status.mode() & 0o7777;
    if matches!(others, Others::Enter) && mode == 0o700 {
        // As an older process left it, or a strict umask: nobody else would find the way to the socket.
        let enter = fs::Permissions::from_mode(others.mode());
        return dir
            .set_permissions(enter)
            .map_err(|source| DataDirError::Io { path: path.to_owned(), source });
    }
    if mode & 0o777 & !others.mode() != 0 {
        let remedy = others.remedy();
        return Err(DataDirError::Open { path: path.to_owned(), mode, remedy });
    }
    Ok(())
}

fn is_not_a_directory(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP))
}

/// Where things are kept when nobody says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Data: `/var/lib/dfs`, or `~/.local/share/dfs` of an ordinary user.
    pub data: Option<PathBuf>,
    /// Sockets: `/run/dfs`, or below `$XDG_RUNTIME_DIR`, or `/tmp/dfs-<uid>`.
    pub runtime: PathBuf,
    /// Sockets of what runs for every user of the machine: `/run/dfs`.
    pub resident: PathBuf,
    /// The user's own configuration: `~/.config/dfs`.
    pub config: Option<PathBuf>,
}

impl Places {
    /// The places of the user this process runs as.
    pub fn current() -> Self {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        Self::of(rustix::process::geteuid().as_raw(), variable)
    }

    fn of(uid: u32, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let absolute = |name| variable(name).filter(|path| path.is_absolute());
        let below_home = |own, otherwise| {
            let own = absolute(own).or_else(|| Some(absolute("HOME")?.join(otherwise)));
            own.map(|dir: PathBuf| dir.join("dfs"))
        };
        let config = below_home("XDG_CONFIG_HOME", ".config");
        let resident = PathBuf::from("/run/dfs");
        if uid == 0 {
            return Self {
                data: Some("/var/lib/dfs".into()),
                runtime: resident.clone(),
                resident,
                config,
            };
        }
        let runtime = absolute("XDG_RUNTIME_DIR")
            .map_or_else(|| PathBuf::from(format!("/tmp/dfs-{uid}")), |dir| dir.join("dfs"));
        Self { data: below_home("XDG_DATA_HOME", ".local/share"), runtime, resident, config }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_directory_is_private() {
        let place = tempfile::tempdir().unwrap();
        let path = private_dir(&place.path().join("a/b/data")).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(private_dir(&path).unwrap(), path);
        // The directory it was made in can be taken too.
        assert!(DataDir::take(&place.path().join("a/b")).is_ok());
    }

    #[test]
    fn what_was_taken_is_known_and_goes_as_a_whole() {
        let place = tempfile::tempdir().unwrap();
        let path = private_dir(&place.path().join("data")).unwrap();
        assert!(!DataDir::was_taken(&path));
        let taken = DataDir::take(&path).unwrap();
        assert!(DataDir::was_taken(&path));
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("c"), b"c").unwrap();
        symlink(place.path(), path.join("d")).unwrap();
        taken.remove().unwrap();
        assert!(!path.exists() && place.path().exists());
    }

    #[test]
    fn what_goes_by_itself_meanwhile_keeps_nothing_from_being_removed() {
        let place = tempfile::tempdir().unwrap();
        let taken = DataDir::take(&place.path().join("data")).unwrap();
        let files: Vec<_> = (0..3000).map(|n| taken.path().join(n.to_string())).collect();
        for file in &files {
            fs::write(file, b"").unwrap();
        }
        std::thread::scope(|threads| {
            threads.spawn(|| {
                files.iter().for_each(|file| drop(fs::remove_file(file)));
            });
            taken.remove().unwrap();
        });
        assert!(!taken.path().exists());
    }

    #[test]
    fn a_directory_open_to_others_is_refused_and_left_as_it_is() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("open");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let error = private_dir(&path).unwrap_err();
        assert!(matches!(error, DataDirError::Open { mode: 0o755, .. }), "{error}");
        assert_eq!(mode(&path), 0o755);
    }

    #[test]
    fn the_directory_of_a_socket_may_be_entered_but_not_written() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("run");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(socket_dir(&path).unwrap(), path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!((socket_dir(&path).unwrap(), mode(&path)), (path.clone(), 0o755));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(
            (socket_dir(&path).unwrap(), mode(&path)),
            (path.clone(), 0o750),
            "as it was meant"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(matches!(socket_dir(&path), Err(DataDirError::Open { mode: 0o1777, .. })));
    }

    #[test]
    fn a_link_to_a_directory_is_refused_with_or_without_a_slash() {
        let place = tempfile::tempdir().unwrap();
        private_dir(&place.path().join("real")).unwrap();
        let link = place.path().join("link");
        symlink("real", &link).unwrap();
        for name in [link.clone(), place.path().join("link/")] {
            let error = private_dir(&name).unwrap_err();
            assert!(matches!(error, DataDirError::NotADirectory { .. }), "{error}");
        }
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = private_dir(&place.path().join("theirs")).unwrap();
        // Only root can give a directory away; for others the root directory is somebody else's.
        let theirs = match std::os::unix::fs::chown(&path, Some(4242), None) {
            Ok(()) => path,
            Err(_) => PathBuf::from("/"),
        };
        let error = private_dir(&theirs).unwrap_err();
        assert!(matches!(error, DataDirError::Foreign { .. }), "{error}");
    }

    #[test]
    fn a_directory_is_taken_by_one_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        let first = DataDir::take(&path).unwrap();
        let error = DataDir::take(&path).unwrap_err();
        let own = std::process::id();
        assert!(
            matches!(&error, DataDirError::InUse { holder: Holder::Process { pid, .. }, .. } if *pid == own),
            "{error}"
        );
        assert!(error.to_string().ends_with(&format!(", pid {own}")), "{error}");
        drop(first);
        assert!(DataDir::take(&path).is_ok());
    }

    #[test]
    fn a_process_that_is_gone_or_never_said_its_name_is_not_named() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        let _taken = DataDir::take(&path).unwrap();
        let own = std::process::id();
        for signed in ["", "1", "x y", &format!("{own} 1"), &"9".repeat(1000)] {
            fs::write(path.join(LOCK_FILE), signed).unwrap();
            let error = DataDir::take(&path).unwrap_err();
            assert!(error.to_string().ends_with("in use by another process"), "{signed}: {error}");
        }
    }

    #[test]
    fn ordinary_users_keep_their_things_at_home() {
        let variable = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/ann"));
        let places = Places::of(1000, variable);
        assert_eq!(places.data.as_deref(), Some(Path::new("/home/ann/.local/share/dfs")));
        assert_eq!(places.runtime, Path::new("/tmp/dfs-1000"));
        assert_eq!(places.config.as_deref(), Some(Path::new("/home/ann/.config/dfs")));
        let of_root = Places::of(0, variable);
        assert_eq!(of_root.data.as_deref(), Some(Path::new("/var/lib/dfs")));
    }

    #[test]
    fn who_has_no_home_has_no_place_at_home() {
        for home in [None, Some(""), Some("a/b")] {
            let variable = |name: &str| home.filter(|_| name == "HOME").map(PathBuf::from);
            let places = Places::of(1000, variable);
            assert_eq!((places.data, places.config), (None, None), "{home:?}");
            let of_root = Places::of(0, variable);
            assert!(of_root.data.is_some() && of_root.config.is_none(), "{home:?}");
        }
    }
}
