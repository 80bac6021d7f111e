//! Where snapshots lie: a directory each with what is written, and one for each image that is mounted.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use dfs_service::data_dir::private_dir;

use super::store::{Below, Kind, SnapshotError, Usage};

/// The unit of what the kernel says that a file takes.
const BLOCK: u64 = 512;

/// See the module.
#[derive(Debug, Clone)]
pub struct Dirs {
    root: PathBuf,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Directory { action, path, source }
}

impl Dirs {
    /// Those below an agent's data directory, made where they are missing.
    pub fn in_dir(data_dir: &Path) -> Result<Self, SnapshotError> {
        let root = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        // The agent knows its mounts by what their directories are really called.
        let root = root.canonicalize().unwrap_or(root).join("snapshotter");
        // These part the layers of an overlay.
        if root.to_string_lossy().contains([':', ',', '\\']) {
            let why = format!(
                "{} cannot hold snapshots: overlay takes no ':', ',' or '\\' in a path",
                data_dir.display()
            );
            return Err(SnapshotError::Invalid(why));
        }
        for dir in [root.clone(), root.join("snapshots"), root.join("images")] {
            let made = private_dir(&dir).map_err(io::Error::other);
            made.map_err(failed("make", &dir))?;
        }
        Ok(Self { root })
    }

    /// The file of the database.
    pub fn database(&self) -> PathBuf {
        self.root.join("snapshots.db")
    }

    /// What was written in a snapshot.
    pub fn written(&self, id: i64) -> PathBuf {
        self.of(id).join("fs")
    }

    /// What the kernel needs beside it.
    pub fn work(&self, id: i64) -> PathBuf {
        self.of(id).join("work")
    }

    fn of(&self, id: i64) -> PathBuf {
        self.root.join("snapshots").join(id.to_string())
    }

    /// Where the stack of layers of this name is mounted.
    pub fn image(&self, name: &str) -> PathBuf {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        self.root.join("images").join(name.chars().map(letter).collect::<String>())
    }

    /// Where what lies below a snapshot is seen.
    pub fn below(&self, below: &Below) -> PathBuf {
        match below {
            Below::Directory(id) => self.written(*id),
            Below::Image { name, .. } => self.image(name),
        }
    }

    /// Makes that of a new snapshot, which looks from above as `like` does.
    pub fn make(&self, id: i64, kind: Kind, like: Option<&Path>) -> Result<(), SnapshotError> {
        let dir = self.of(id);
        // A crash may have left one by a number that was not used then.
        gone(fs::remove_dir_all(&dir)).map_err(failed("remove", &dir))?;
        let made = |dir: &Path, mode: u32| {
            DirBuilder::new().mode(mode).create(dir).map_err(failed("make", dir))
        };
        made(&dir, 0o700)?;
        let written = self.written(id);
        made(&written, 0o755)?;
        if kind == Kind::Active {
            made(&self.work(id), 0o711)?;
        }
        let Some(like) = like else { return Ok(()) };
        let seen = fs::metadata(like).map_err(failed("look at", like))?;
        let alike = chown(&written, Some(seen.uid()), Some(seen.gid()))
            .and_then(|()| fs::set_permissions(&written, Permissions::from_mode(seen.mode())));
        alike.map_err(failed("change", &written))
    }

    /// Removes that of a snapshot that is not there any more.
    pub fn remove(&self, id: i64) -> Result<(), SnapshotError> {
        let dir = self.of(id);
        gone(fs::remove_dir_all(&dir)).map_err(failed("remove", &dir))
    }

    /// The numbers of snapshots that have a directory.
    pub fn snapshots(&self) -> Result<HashSet<i64>, SnapshotError> {
        let names = names(&self.root.join("snapshots"))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The directories for images.
    pub fn images(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let dir = self.root.join("images");
        Ok(names(&dir)?.into_iter().map(|name| dir.join(name)).collect())
    }
}

fn names(dir: &Path) -> Result<Vec<String>, SnapshotError> {
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(failed("list", dir))?;
    Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a directory takes with all that is in it, each file once, whatever goes away meanwhile.
pub fn usage_of(dir: &Path) -> Result<Usage, SnapshotError> {
    let (mut left, mut seen, mut usage) = (vec![dir.to_owned()], HashSet::new(), Usage::default());
    while let Some(path) = left.pop() {
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound && path != dir => continue,
            Err(error) => return Err(failed("look at", &path)(error)),
        };
        if seen.insert((found.dev(), found.ino())) {
            let bytes = i64::try_from(found.blocks() * BLOCK).unwrap_or(i64::MAX);
            usage.size = usage.size.saturating_add(bytes);
            usage.inodes += 1;
        }
        if found.is_dir() {
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("list", &path)(error)),
            };
            left.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_looks_as_what_is_below_it() {
        let folder = tempfile::tempdir().unwrap();
        let dirs = Dirs::in_dir(folder.path()).unwrap();
        let below = folder.path().join("below");
        fs::create_dir(&below).unwrap();
        fs::set_permissions(&below, Permissions::from_mode(0o1777)).unwrap();
        dirs.make(1, Kind::Active, Some(&below)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!((mode(&dirs.written(1)), mode(&dirs.work(1))), (0o1777, 0o711));
        fs::write(dirs.written(1).join("left"), b"by a crash").unwrap();
        dirs.make(1, Kind::View, None).unwrap();
        assert_eq!(fs::read_dir(dirs.written(1)).unwrap().count(), 0);
        assert!(!dirs.work(1).exists());
        assert_eq!(dirs.snapshots().unwrap(), HashSet::from([1]));
        dirs.remove(1).unwrap();
        dirs.remove(1).unwrap();
        assert!(dirs.snapshots().unwrap().is_empty());
        let refused = Dirs::in_dir(&folder.path().join("a:b")).unwrap_err();
        assert!(refused.to_string().contains("overlay takes no ':'"), "{refused}");
    }

    #[test]
    fn each_file_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("dir");
        fs::create_dir_all(dir.join("inner")).unwrap();
        fs::write(dir.join("file"), vec![1; 100_000]).unwrap();
        let one = usage_of(&dir).unwrap();
        fs::hard_link(dir.join("file"), dir.join("inner/again")).unwrap();
        let two = usage_of(&dir).unwrap();
        assert_eq!((one.inodes, two.inodes), (3, 3));
        assert!(one.size >= 100_000, "{one:?}");
        assert!(usage_of(&dir.join("nothing")).is_err());
    }
}
