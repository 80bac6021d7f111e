//! The data directory: its lock, where things lie in it, and how much of the disk they take.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime};

use dfs_model::{ByteSize, TaskId};
use rustix::fs::{FlockOperation, OFlags, flock, statvfs};

use super::clock::StoreClock;
use super::medium::{Medium, Memory};
use super::state::{Header, StateFile};
use super::upper::Upper;
use super::uses::Presence;
use super::{Lent, StoreError, StoreOptions};

/// Where everything is. Holds the lock as long as anything of the store is alive.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    _lock: File,
    /// Where tasks lie, if not there.
    memory: Option<Memory>,
    /// Memory over the disk.
    upper: Option<Upper>,
    boot: [u8; 16],
    capacity: Option<ByteSize>,
    used: AtomicU64,
    discarded: AtomicU64,
    clock: StoreClock,
    lent: Lent,
}

/// The part of the capacity that content leaves free, so that new trees can be looked into while everything is
/// in use: a sixteenth.
const RESERVE: u64 = 16;

/// Most bytes of the disk that eviction leaves free, whatever the capacity.
const KEPT_FREE: u64 = 64 << 20;

/// A disk, in bytes.
struct Disk {
    total: u64,
    free: u64,
}

impl Disk {
    /// What is to be left for those who keep no account: a thirty-second, and no more than [`KEPT_FREE`].
    fn kept_free(&self) -> u64 {
        (self.total / 32).min(KEPT_FREE)
    }
}

/// What a task may take of the capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// All but the reserve.
    Content,
    /// The reserve too.
    Reserve,
}

/// What can be seen of a task without opening it.
pub(super) struct Survey {
    pub(super) bytes: u64,
    /// Of them those in memory over the disk.
    pub(super) upper: u64,
    pub(super) last_read: SystemTime,
    /// Seconds; zero for none.
    pub(super) ttl: u64,
    pub(super) dirty: bool,
    pub(super) pinned: bool,
}

/// The file in a task's directory that says that it is pinned. It comes and goes with the directory.
const PIN: &str = "pinned";

fn make(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(StoreError::io("make", path))
}

fn lock(root: &Path) -> Result<File, StoreError> {
    let path = root.join("store.lock");
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // What is written into it is not meant for another file.
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(&path);
    let mut file = open.map_err(StoreError::io("open", &path))?;
    if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(StoreError::io("lock", &path)(error.into()));
        }
        let mut pid = String::new();
        // Only a hint for the message: whoever holds the lock may not have written it yet.
        let read = file.take(20).read_to_string(&mut pid);
        let pid = read.ok().and_then(|_| pid.trim().parse().ok());
        return Err(StoreError::Busy { dir: root.to_owned(), pid });
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(StoreError::io("write", &path))?;
    Ok(file)
}

/// This boot as the kernel names it; without one, a random name that no later start will trust.
fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut boot = [0; 16];
    if text.trim().is_empty() {
        // Without random bytes the name stays zero, which is never trusted either.
        getrandom::fill(&mut boot).unwrap_or_default();
        return boot;
    }
    boot.copy_from_slice(&blake3::hash(text.trim().as_bytes()).as_bytes()[..16]);
    boot
}

impl Directory {
    pub(super) fn open(root: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        make(root)?;
        let lock = lock(root)?;
        let (memory, upper, capacity) = match options.medium {
            Medium::Disk => (None, None, options.capacity),
            Medium::Memory(budget) => (Some(Memory::open(root, budget)?), None, Some(budget)),
            Medium::Layered(budget) => (None, Some(Upper::open(root, budget)?), options.capacity),
        };
        let directory = Self {
            root: root.to_owned(),
            _lock: lock,
            memory,
            upper,
            boot: options.boot_id.unwrap_or_else(boot_id),
            capacity,
            used: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
            clock: StoreClock::start(options.wall.unwrap_or_else(SystemTime::now), Instant::now()),
            lent: options.lent.clone(),
        };
        make(&directory.tasks())?;
        make(&directory.trash())?;
        directory.empty_trash()?;
        Ok(directory)
    }

    /// Opens a content file to be read and written, made if it is not there; the one that was lent, if there is one.
    pub(super) fn open_content(&self, path: &Path) -> io::Result<File> {
        if let Some(lent) = fs::metadata(path).ok().and_then(|there| self.lent.of(&there)) {
            return lent;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
    }

    /// What time it is.
    pub(super) fn now(&self) -> SystemTime {
        self.clock.at(Instant::now())
    }

    /// See [`StoreClock::is_past`].
    pub(super) fn is_past(&self, time: SystemTime) {
        self.clock.is_past(time);
    }

    pub(super) fn boot(&self) -> [u8; 16] {
        self.boot
    }

    /// Where what is kept lies.
    pub(super) fn place(&self) -> &Path {
        self.memory.as_ref().map_or(&self.root, Memory::dir)
    }

    fn tasks(&self) -> PathBuf {
        self.place().join("tasks")
    }

    fn trash(&self) -> PathBuf {
        self.place().join("trash")
    }

    /// Gives back what cannot outlive the machine anyway: all of it. To be called when nothing is in use any more.
    pub(super) fn give_memory_back(&self) -> Result<(), StoreError> {
        let memory = self.memory.as_ref().or(self.upper().map(Upper::memory));
        memory.map_or(Ok(()), Memory::give_back)
    }

    /// The layer in memory over the disk.
    pub(super) fn upper(&self) -> Option<&Upper> {
        self.upper.as_ref()
    }

    /// Less of that is taken.
    pub(super) fn release_memory(&self, bytes: u64) {
        if let Some(upper) = &self.upper {
            upper.release(bytes);
        }
    }

    pub(super) fn path(&self, id: TaskId) -> PathBuf {
        let name = id.to_string();
        self.tasks().join(&name[..2]).join(name)
    }

    /// Every task that has a directory; other names are left alone.
    pub(super) fn task_ids(&self) -> Result<Vec<TaskId>, StoreError> {
        let mut ids = Vec::new();
        let tasks = self.tasks();
        for shelf in list(&tasks)? {
            if !shelf.is_dir() {
                continue;
            }
            let id = |path: &PathBuf| path.file_name()?.to_str()?.parse::<TaskId>().ok();
            // What of it is asked for fails by itself.
            let named = match list(&shelf) {
                Ok(paths) => paths.iter().filter_map(id).collect::<Vec<_>>(),
                Err(error) => {
                    tracing::warn!(%error, "tasks that are kept are not counted");
                    continue;
                }
            };
            ids.extend(named.into_iter().filter(|id| self.path(*id).starts_with(&shelf)));
        }
        Ok(ids)
    }

    pub(super) fn make_task(&self, id: TaskId) -> Result<(), StoreError> {
        let path = self.path(id);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(StoreError::write(id, &path))
    }

    pub(super) fn survey(&self, id: TaskId) -> Survey {
        let path = self.path(id);
        let read = fs::metadata(&path).and_then(|metadata| metadata.modified());
        let header = StateFile::peek(&path.join("state"));
        let (content, aside) = self.allocated(id);
        let dirty = |header: &Header| header.boot == self.boot && !header.is_clean();
        Survey {
            bytes: content + aside,
            upper: self.upper().map_or(0, |upper| upper.bytes_of(id)),
            last_read: read.unwrap_or(SystemTime::UNIX_EPOCH),
            ttl: header.as_ref().map_or(0, |header| header.ttl),
            dirty: header.as_ref().is_some_and(dirty),
            pinned: path.join(PIN).exists(),
        }
    }

    /// Notes on disk that a task is pinned, for good.
    pub(super) fn note_pin(&self, id: TaskId) -> Result<(), StoreError> {
        let path = self.path(id);
        let pin = path.join(PIN);
        let made =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&pin);
        made.and_then(|pin| pin.sync_all()).map_err(StoreError::io("write", &pin))?;
        sync(&path)
    }

    /// Notes that it is pinned no more.
    pub(super) fn forget_pin(&self, id: TaskId) -> Result<(), StoreError> {
        let path = self.path(id);
        let pin = path.join(PIN);
        match fs::remove_file(&pin) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &pin)(error))
            }
            _ => sync(&path),
        }
    }

    /// Bytes that a task's files and its directory take, as the file system counts them: its content and what says
    /// which of it is here, and all else.
    fn allocated(&self, id: TaskId) -> (u64, u64) {
        let path = self.path(id);
        let of =
            |name: &str| fs::metadata(path.join(name)).map_or(0, |metadata| allocated(&metadata));
        let in_memory = self.upper().map_or(0, |upper| upper.bytes_of(id));
        (of("content") + of("state") + in_memory, of("signed") + of("record.json") + of(""))
    }

    /// Whether anything of a task's content has a place on disk.
    pub(super) fn has_content(&self, id: TaskId) -> bool {
        fs::metadata(self.path(id).join("content")).is_ok_and(|content| content.len() > 0)
    }

    /// Counts what a task takes now.
    pub(super) fn measure(&self, presence: &Presence) {
        presence.recount(self, 0, |_| {
            let (content, aside) = self.allocated(presence.id);
            presence.aside.store(aside, Relaxed);
            content + aside
        });
    }

    /// Notes on disk when a task was last read: the time of its directory. Losing it costs only a worse
    /// choice at eviction.
    pub(super) fn note_read(&self, presence: &Presence) {
        if !presence.read_since.swap(false, Relaxed) {
            return;
        }
        if let Ok(dir) = File::open(self.path(presence.id)) {
            let _ = dir.set_modified(presence.last_read());
        }
    }

    /// Moves a task out of sight at once, to be deleted by [`Directory::empty_trash`].
    pub(super) fn discard(&self, id: TaskId) -> Result<(), StoreError> {
        let path = self.path(id);
        let number = self.discarded.fetch_add(1, Relaxed);
        match fs::rename(&path, self.trash().join(format!("{id}.{number}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", &path)(error))
            }
            _ => {
                if let Some(upper) = &self.upper {
                    upper.remove(id);
                }
                Ok(())
            }
        }
    }

    /// Removes all that can be removed.
    pub(super) fn empty_trash(&self) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        for path in list(&self.trash())? {
            let removed = match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => fs::remove_dir_all(&path),
                Ok(_) => fs::remove_file(&path),
                Err(error) => Err(error),
            };
            match removed {
                // Another thread empties it too.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => outcome = outcome.and(removed.map_err(StoreError::io("remove", &path))),
            }
        }
        outcome
    }

    /// Bytes that lack for the disk to have left what is [kept free](Disk::kept_free).
    pub(super) fn lacks(&self) -> u64 {
        self.disk().map_or(0, |disk| disk.kept_free().saturating_sub(disk.free))
    }

    /// What is known of the disk it is on; in memory, of what there is left to be had.
    fn disk(&self) -> Option<Disk> {
        let disk = statvfs(self.place()).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        let (total, free) = (bytes(disk.f_blocks), bytes(disk.f_bavail));
        let left = |memory: &Memory| memory.left(Instant::now(), self.used());
        Some(Disk { total, free: free.min(self.memory.as_ref().map_or(u64::MAX, left)) })
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// One task took `before` bytes and takes `after` now.
    pub(super) fn account(&self, before: u64, after: u64) {
        // Wrapping: it goes down too.
        self.used.fetch_add(after.wrapping_sub(before), Relaxed);
    }

    /// Bytes that may still be taken.
    pub(super) fn room(&self, share: Share) -> u64 {
        self.limit(share).saturating_sub(self.used()).min(self.room_on_disk(share))
    }

    /// Bytes that the disk still takes. Content leaves half of what eviction keeps free: new tasks, and trees that
    /// are looked into, find room while everything is in use.
    fn room_on_disk(&self, share: Share) -> u64 {
        match (share, self.disk()) {
            (Share::Content, Some(disk)) => disk.free.saturating_sub(disk.kept_free() / 2),
            // The writing finds out.
            (Share::Reserve, _) | (_, None) => u64::MAX,
        }
    }

    /// Bytes that the tasks may take of it.
    pub(super) fn limit(&self, share: Share) -> u64 {
        let Some(ByteSize(capacity)) = self.capacity else { return u64::MAX };
        match share {
            Share::Content => capacity - capacity / RESERVE,
            Share::Reserve => capacity,
        }
    }

    /// What the tasks may take in all.
    pub(super) fn capacity(&self) -> Option<ByteSize> {
        self.capacity
    }

    /// Counts `bytes` more as taken; false where they would go beyond the capacity, or fill the disk.
    pub(super) fn reserve(&self, bytes: u64, share: Share) -> bool {
        if bytes > 0 && bytes > self.room_on_disk(share) {
            return false;
        }
        let limit = self.limit(share);
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit || bytes == 0);
        self.used.try_update(Relaxed, Relaxed, more).is_ok()
    }
}

/// Bytes that a file takes on disk.
pub(super) fn allocated(metadata: &Metadata) -> u64 {
    metadata.blocks() * 512
}

fn sync(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", dir))
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    entries.map_err(StoreError::io("list", dir))
}
