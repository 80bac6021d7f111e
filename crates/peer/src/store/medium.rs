//! Where the bytes of tasks lie: on the disk of the data directory, or in memory.
//!
//! What lies in memory are files all the same, on a file system in memory (tmpfs), so that everything that reads and
//! writes the store does so as on a disk, and that what is kept outlives the process: an agent that is killed finds it
//! again, as long as the machine runs.
//!
//! Invariant: what tasks take of memory is bounded by a budget, and by what the machine has left.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use dfs_model::ByteSize;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, StatVfs, flock, statfs, statvfs};
use serde::{Deserialize, Serialize};

use super::StoreError;

/// What a setting says of where the bytes of tasks lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MediumChoice {
    /// On the disk of the data directory.
    #[default]
    Disk,
    /// In memory.
    Memory,
    /// In memory, and on disk once that is needed.
    Layered,
}

impl FromStr for MediumChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "disk" => Ok(Self::Disk),
            "memory" => Ok(Self::Memory),
            "layered" => Ok(Self::Layered),
            other => Err(format!("'{other}' is not disk, memory or layered")),
        }
    }
}

/// Settings that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MediumError {
    /// A budget of memory for what takes none.
    #[error(
        "cache-memory says how much memory the cache takes, but it lies on disk: say cache-medium too"
    )]
    NoMemoryTaken,
    /// A share of the disk for what takes none.
    #[error(
        "capacity says how much disk the cache takes, but it lies in memory: say cache-memory instead"
    )]
    NoDiskTaken,
}

/// Where the bytes of tasks lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Medium {
    /// On the disk of the data directory.
    #[default]
    Disk,
    /// In so much memory. They are gone when the machine ends, or the process for good.
    Memory(ByteSize),
    /// What comes lies in so much memory until that is needed for what comes next, and then on the disk.
    Layered(ByteSize),
}

impl Medium {
    /// What settings say: which, how much of `memory`, and how much of the disk is told with it.
    pub fn of(
        choice: MediumChoice,
        memory: Option<ByteSize>,
        disk: Option<ByteSize>,
    ) -> Result<Self, MediumError> {
        match (choice, memory, disk) {
            (MediumChoice::Disk, None, _) => Ok(Self::Disk),
            (MediumChoice::Disk, Some(_), _) => Err(MediumError::NoMemoryTaken),
            (MediumChoice::Memory, _, Some(_)) => Err(MediumError::NoDiskTaken),
            (MediumChoice::Memory, budget, None) => {
                Ok(Self::Memory(budget.unwrap_or_else(usual_budget)))
            }
            (MediumChoice::Layered, budget, _) => {
                Ok(Self::Layered(budget.unwrap_or_else(usual_budget)))
            }
        }
    }

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory(_) => "memory",
            Self::Layered(_) => "layered",
        }
    }
}

/// Where file systems in memory are.
const SHARED_MEMORY: &str = "/dev/shm";

/// In the data directory: somebody may have mounted such a file system there.
const OWN: &str = "memory";

/// In a directory of shared memory: the name of the data directory that it belongs to.
const OF: &str = "data-dir";

/// What a file system in memory says that it is.
const TMPFS: i64 = 0x0102_1994;

/// How long what the machine had left is taken to be so.
const FRESH: Duration = Duration::from_millis(100);

/// A directory in memory, for the tasks of one data directory.
#[derive(Debug)]
pub(super) struct Memory {
    dir: PathBuf,
    /// Says that somebody works with it, also to who does not see the data directory that it belongs to.
    _held: File,
    machine: MachineMemory,
    left: Mutex<Option<Left>>,
}

/// What there was to be had.
#[derive(Debug, Clone, Copy)]
struct Left {
    at: Instant,
    bytes: u64,
    /// What the tasks took then.
    used: u64,
}

impl Memory {
    /// The place for a data directory. Refused where it could not hold `budget`.
    pub(super) fn open(data_dir: &Path, budget: ByteSize) -> Result<Self, StoreError> {
        let dir = place(data_dir)?;
        let there = statvfs(&dir).map_err(|error| StoreError::io("look at", &dir)(error.into()))?;
        let machine = MachineMemory::this();
        let most = machine.total().min(total(&there));
        if budget.0 > most {
            // Nothing lies there unless an earlier one kept it.
            let _ = fs::remove_dir(&dir);
            let place = match most == machine.total() {
                true => "this machine, or its control group,".to_owned(),
                false => dir.parent().unwrap_or(&dir).display().to_string(),
            };
            return Err(StoreError::Budget { budget, place, most: ByteSize(most) });
        }
        let real = data_dir.canonicalize().map_err(StoreError::io("look at", data_dir))?;
        note_of(&dir, &real);
        let held = hold(&dir, FlockOperation::NonBlockingLockShared);
        let held = held.map_err(StoreError::io("lock", &dir))?;
        Ok(Self { dir, _held: held, machine, left: Mutex::default() })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes that may be had without pressing others, where the tasks take `used`.
    pub(super) fn left(&self, now: Instant, used: u64) -> u64 {
        let mut left = self.left.lock();
        let fresh = left.filter(|left| now.saturating_duration_since(left.at) < FRESH);
        let known = fresh.unwrap_or_else(|| Left { at: now, bytes: self.machine.left(), used });
        *left = Some(known);
        known.bytes.saturating_sub(used.saturating_sub(known.used))
    }

    /// Gives all of it back.
    pub(super) fn give_back(&self) -> Result<(), StoreError> {
        fs::remove_dir_all(&self.dir).map_err(StoreError::io("remove", &self.dir))
    }
}

fn total(there: &StatVfs) -> u64 {
    there.f_blocks.saturating_mul(there.f_frsize)
}

fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|there| there.f_type == TMPFS)
}

/// A file system in memory that was mounted in the data directory, or on which that lies, else the one of the machine.
fn place(data_dir: &Path) -> Result<PathBuf, StoreError> {
    let own = data_dir.join(OWN);
    let nearest = if own.is_dir() { &own } else { data_dir };
    let dir = match is_in_memory(nearest) {
        // What is mounted belongs to who mounted it: below it is the store's.
        true => own.join("store"),
        false if !is_in_memory(Path::new(SHARED_MEMORY)) => {
            return Err(StoreError::NoMemory { own });
        }
        false => Path::new(SHARED_MEMORY).join(name(data_dir)?),
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.map_err(StoreError::io("make", &dir))?;
    is_private(&dir)?;
    Ok(dir)
}

fn hold(dir: &Path, how: FlockOperation) -> io::Result<File> {
    let held = File::open(dir)?;
    flock(&held, how)?;
    Ok(held)
}

/// Keeps others from working with what lies at a place in memory, until what it gives is dropped; `None` where somebody does,
/// in whatever container.
pub fn closed_memory(dir: &Path) -> io::Result<Option<File>> {
    match hold(dir, FlockOperation::NonBlockingLockExclusive) {
        Ok(held) => Ok(Some(held)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says in shared memory to which data directory it belongs: nothing else leads from there to it.
fn note_of(dir: &Path, real: &Path) {
    let (note, of) = (dir.join(OF), real.as_os_str().as_bytes());
    let is_news = || fs::read(&note).map_or(true, |known| known != of);
    if dir.starts_with(SHARED_MEMORY) && is_news() {
        // Where that is full it is not found later, and nothing else is wrong.
        let _ = fs::write(&note, of);
    }
}

/// What lies in shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InMemory {
    /// Where.
    pub dir: PathBuf,
    /// Of which data directory the tasks are.
    pub data_dir: PathBuf,
    /// Bytes that it takes.
    pub bytes: u64,
}

/// What stores of this user keep in shared memory, whether or not a process works with them. Blocks.
pub fn in_memory() -> Vec<InMemory> {
    let entries = fs::read_dir(SHARED_MEMORY).into_iter().flatten().flatten();
    let places = entries.filter_map(|entry| {
        let dir = entry.path();
        is_private(&dir).ok()?;
        let of = fs::read(dir.join(OF)).ok()?;
        let data_dir = PathBuf::from(OsStr::from_bytes(&of));
        // As it was named when it was made, or it is something else.
        let is_it = entry.file_name() == *name_of(&data_dir);
        let bytes = is_it.then(|| allocated_below(&dir))?;
        Some(InMemory { dir, data_dir, bytes })
    });
    places.collect()
}

fn allocated_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => allocated_below(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    });
    bytes.sum()
}

/// Everybody may make directories in shared memory: one of somebody else is not taken for one's own.
fn is_private(dir: &Path) -> Result<(), StoreError> {
    let found = fs::symlink_metadata(dir).map_err(StoreError::io("look at", dir))?;
    let own = rustix::process::geteuid().as_raw();
    match found.is_dir() && found.uid() == own && found.mode() & 0o077 == 0 {
        true => Ok(()),
        false => Err(StoreError::NotPrivate(dir.to_owned())),
    }
}

/// The same for the same data directory, another one for every other.
fn name(data_dir: &Path) -> Result<String, StoreError> {
    let real = data_dir.canonicalize().map_err(StoreError::io("look at", data_dir))?;
    Ok(name_of(&real))
}

fn name_of(real: &Path) -> String {
    let digest = blake3::hash(real.as_os_str().as_bytes()).to_hex();
    format!("dfs-{}-{}", rustix::process::geteuid().as_raw(), &digest[..16])
}

/// What the machine, and the control group that this process runs in, have of memory.
#[derive(Debug)]
struct MachineMemory {
    /// The control groups that bound it.
    groups: Vec<Group>,
}

/// A control group, by its files.
#[derive(Debug)]
struct Group {
    /// What there is at most.
    most: PathBuf,
    /// What is taken, the page cache included.
    taken: PathBuf,
    /// What the lines that tell of the page cache begin with.
    lines: [&'static str; 2],
}

impl Group {
    /// Of the unified hierarchy.
    fn unified(dir: &Path) -> Self {
        let lines = ["active_file ", "inactive_file "];
        Self { most: dir.join("memory.max"), taken: dir.join("memory.current"), lines }
    }

    /// Of the older one, of memory alone.
    fn older(dir: &Path) -> Self {
        let (most, taken) = (dir.join("memory.limit_in_bytes"), dir.join("memory.usage_in_bytes"));
        Self { most, taken, lines: ["total_active_file ", "total_inactive_file "] }
    }

    fn total(&self) -> Option<u64> {
        number(&self.most)
    }

    /// Bytes that can be taken: what lies in the page cache gives way.
    fn left(&self) -> Option<u64> {
        let most = self.total()?;
        let told = fs::read_to_string(self.taken.with_file_name("memory.stat")).unwrap_or_default();
        let of = |name: &str| {
            told.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        let cached: u64 = self.lines.iter().filter_map(|name| of(name)).sum();
        Some(most.saturating_sub(number(&self.taken)?.saturating_sub(cached)))
    }
}

/// The group of a line of /proc/self/cgroup and all above it.
fn above<'a>(root: &'a str, path: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    // In a container the root is the group.
    Path::new(path.trim_start_matches('/')).ancestors().map(|group| Path::new(root).join(group))
}

impl MachineMemory {
    fn this() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let of_line = |line: &str| -> Vec<Group> {
            let mut parts = line.splitn(3, ':').skip(1);
            match (parts.next(), parts.next()) {
                (Some(""), Some(path)) => {
                    above("/sys/fs/cgroup", path).map(|dir| Group::unified(&dir)).collect()
                }
                (Some(of), Some(path)) if of.split(',').any(|of| of == "memory") => {
                    above("/sys/fs/cgroup/memory", path).map(|dir| Group::older(&dir)).collect()
                }
                _ => Vec::new(),
            }
        };
        let groups = own.lines().flat_map(of_line).filter(|group| group.total().is_some());
        Self { groups: groups.collect() }
    }

    /// Bytes at most.
    fn total(&self) -> u64 {
        let groups = self.groups.iter().filter_map(Group::total);
        groups.chain(meminfo("MemTotal:")).min().unwrap_or(u64::MAX)
    }

    /// Bytes that can be taken, but for a sixteenth of all, which is left to others.
    fn left(&self) -> u64 {
        let groups = self.groups.iter().filter_map(Group::left);
        let left = groups.chain(meminfo("MemAvailable:")).min().unwrap_or(u64::MAX);
        left.saturating_sub(self.total() / 16)
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A line of /proc/meminfo, in bytes.
fn meminfo(name: &str) -> Option<u64> {
    let told = fs::read_to_string("/proc/meminfo").ok()?;
    let line = told.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// A quarter of the memory that there is at most: what a cache in memory takes where nobody says how much.
fn usual_budget() -> ByteSize {
    ByteSize(MachineMemory::this().total() / 4)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn one_data_directory_has_one_place_and_others_have_others() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |dir: &Path| Memory::open(dir, ByteSize(1 << 20)).unwrap();
        let (first, second) = (at(one.path()), at(other.path()));
        assert_eq!(first.dir(), at(one.path()).dir());
        assert_ne!(first.dir(), second.dir());
        assert!(is_in_memory(first.dir()));
        let mode = fs::metadata(first.dir()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        fs::write(first.dir().join("task"), [1; 5000]).unwrap();
        let mut listed = in_memory();
        listed.retain(|place| [first.dir(), second.dir()].contains(&&*place.dir));
        listed.sort_by_key(|place| place.bytes);
        let of = |dir: &TempDir| dir.path().canonicalize().unwrap();
        assert_eq!([&listed[1].data_dir, &listed[0].data_dir], [&of(&one), &of(&other)]);
        assert_eq!(listed[1].bytes - listed[0].bytes, 8192);
        first.give_back().unwrap();
        assert!(!first.dir().exists());
        second.give_back().unwrap();
    }

    #[test]
    fn a_data_directory_in_memory_holds_its_own() {
        let dir = tempfile::tempdir_in(SHARED_MEMORY).unwrap();
        let memory = Memory::open(dir.path(), ByteSize(1 << 20)).unwrap();
        assert_eq!(memory.dir(), dir.path().join("memory/store"));
        assert!(closed_memory(memory.dir()).unwrap().is_none(), "somebody works with it");
        let place = memory.dir().to_owned();
        drop(memory);
        let closed = closed_memory(&place).unwrap();
        assert!(closed.is_some());
        // Whoever takes it away is not at it at the same time.
        assert!(Memory::open(dir.path(), ByteSize(1 << 20)).is_err());
    }

    #[test]
    fn what_somebody_else_put_there_is_not_taken() {
        let data = tempfile::tempdir().unwrap();
        let place = Path::new(SHARED_MEMORY).join(name(data.path()).unwrap());
        symlink(data.path(), &place).unwrap();
        let refused = Memory::open(data.path(), ByteSize(1 << 20)).unwrap_err();
        fs::remove_file(&place).unwrap();
        assert!(matches!(refused, StoreError::NotPrivate(_)), "{refused}");
        fs::create_dir(&place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = Memory::open(data.path(), ByteSize(1 << 20)).unwrap_err();
        fs::remove_dir(&place).unwrap();
        assert!(matches!(refused, StoreError::NotPrivate(_)), "{refused}");
    }

    #[test]
    fn no_more_is_promised_than_there_is() {
        let data = tempfile::tempdir().unwrap();
        let refused = Memory::open(data.path(), ByteSize(1 << 50)).unwrap_err();
        assert!(matches!(refused, StoreError::Budget { .. }), "{refused}");
        assert!(!Path::new(SHARED_MEMORY).join(name(data.path()).unwrap()).exists());
        let memory = Memory::open(data.path(), ByteSize(1 << 20)).unwrap();
        let now = Instant::now();
        let left = memory.left(now, 1 << 20);
        assert!(left > 0 && left < memory.machine.total());
        // What was taken since counts at once, not only when it is looked at again.
        assert_eq!(memory.left(now, 3 << 20), left.saturating_sub(2 << 20));
        memory.give_back().unwrap();
    }
}
