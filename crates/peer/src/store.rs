//! What this host keeps: the bytes of tasks, which groups of them are there, and why they are right
//! (design §7).
//!
//! Owns `<data>/tasks/<2 hex>/<task id>/{content,state,signed,record.json}` (of a store in memory the same in a
//! directory there, see [`Medium`]), who uses a task, and what is evicted. One process at a time: the directory is locked.
//!
//! Invariants: a byte is returned only from a group that was recorded *after* it was written, and after
//! an unclean reboot only once it was hashed again; nothing in use is ever taken away. If the process
//! dies here nothing is lost: the page cache has the bytes, and the boot id tells that it survived.
//! Every call blocks on local disk; callers choose the thread.

mod clock;
mod directory;
mod error;
mod evict;
mod glance;
mod lent;
mod medium;
mod signed;
mod state;
mod task;
#[cfg(test)]
mod tests;
mod upper;
mod uses;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use dfs_model::{ByteSize, GroupRange, TaskId};
use parking_lot::Mutex;

pub use error::StoreError;
pub use evict::{EvictionEntry, Watermarks, plan};
pub use glance::Glance;
pub use lent::Lent;
pub use medium::{InMemory, Medium, MediumChoice, MediumError, closed_memory, in_memory};
pub use task::{Check, EndGuard, Ends, StoredTask, TakenOut, Verify};
pub use uses::{DirectGuard, InUse, Pins, Reads, Use, UseGuard};

use directory::{Directory, Share, Survey};
use task::Opened;
use upper::Upper;
use uses::Presence;

/// How a store behaves.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// Where tasks lie.
    pub medium: Medium,
    /// Disk that tasks may take; nothing beyond it is recorded. None: what the file system has. In memory it is the
    /// medium that says how much.
    pub capacity: Option<ByteSize>,
    /// When eviction begins and where it ends.
    pub watermarks: Watermarks,
    /// How long a task is kept after its last read, where it has no such time of its own.
    pub ttl: Option<Duration>,
    /// Names this boot of the machine. None: what the kernel says.
    pub boot_id: Option<[u8; 16]>,
    /// The time when it is opened. None: what the machine's clock says.
    pub wall: Option<SystemTime>,
    /// Content files that must not be opened anew.
    pub lent: Lent,
}

/// Bytes that are put down from memory at a time when the store is closed, before it is asked whether there is time.
const AT_THE_END: u64 = 16 << 20;

/// After so many tasks that cannot be taken away no others are tried: it is the disk, not they.
const MOST_STUCK: usize = 16;

/// What was read so lately does not make room for others on the disk.
const JUST_NOW: Duration = Duration::from_secs(60);

/// All tasks kept on this host.
#[derive(Debug)]
pub struct Store {
    directory: Arc<Directory>,
    options: StoreOptions,
    tasks: Mutex<HashMap<TaskId, Entry>>,
    /// How many ask that nothing is evicted.
    spared: Arc<AtomicUsize>,
    /// Another process goes on with what is here.
    left: AtomicBool,
}

/// While it lives nothing is evicted.
#[derive(Debug)]
pub struct Spared(Arc<AtomicUsize>);

impl Drop for Spared {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug, Clone)]
struct Entry {
    presence: Arc<Presence>,
    /// Open while anybody has it. Its own lock is held while its files are opened, so that a slow disk holds
    /// up only who wants the same task.
    opened: Arc<Mutex<Weak<Opened>>>,
}

impl Entry {
    fn new(id: TaskId, survey: &Survey) -> Self {
        Self { presence: Arc::new(Presence::new(id, survey)), opened: Arc::default() }
    }
}

/// One task as a listing shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskSummary {
    /// Its name.
    pub id: TaskId,
    /// Disk it takes.
    pub bytes: u64,
    /// When it was last read.
    pub last_read: SystemTime,
    /// Whether it is pinned.
    pub pinned: bool,
    /// What uses it now.
    pub in_use: InUse,
}

/// What became of a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinChange {
    /// Nothing of the task is kept.
    Absent,
    /// It was so before.
    Unchanged,
    /// It is so from now on.
    Changed,
}

impl PinChange {
    fn of(is_news: bool) -> Self {
        if is_news { Self::Changed } else { Self::Unchanged }
    }
}

/// What eviction did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Tasks taken away.
    pub evicted: Vec<TaskId>,
    /// Disk they took, in bytes.
    pub freed: u64,
}

/// What an orderly end had no time for: it is verified again after a reboot, and nothing of it is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CloseReport {
    /// Tasks that are not marked durable.
    pub unmarked: usize,
    /// Disk they take, in bytes.
    pub bytes: u64,
}

/// What was found by hashing one task again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// Which task.
    pub id: TaskId,
    /// Groups hashed.
    pub checked: u64,
    /// Those that were wrong or could not be checked; they are missing now.
    pub bad: Vec<GroupRange>,
}

impl Store {
    /// Opens the store in `dir`, made if it is not there. Refused while another process has it open.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let directory = Arc::new(Directory::open(dir, &options)?);
        let mut tasks = HashMap::new();
        for id in directory.task_ids()? {
            let survey = directory.survey(id);
            directory.is_past(survey.last_read);
            let entry = Entry::new(id, &survey);
            directory.account(0, entry.presence.bytes());
            if let Some(upper) = directory.upper() {
                upper.found(survey.upper);
            }
            tasks.insert(id, entry);
        }
        if let Some(upper) = directory.upper() {
            upper.sweep(|id| tasks.contains_key(&id));
        }
        Ok(Self {
            directory,
            options,
            tasks: Mutex::new(tasks),
            spared: Arc::default(),
            left: AtomicBool::new(false),
        })
    }

    /// The task, if anything of it is kept.
    pub fn task(&self, id: TaskId) -> Result<Option<StoredTask>, StoreError> {
        loop {
            self.drop_broken(id)?;
            let Some(entry) = self.tasks.lock().get(&id).cloned() else { return Ok(None) };
            match self.opened(id, &entry) {
                Err(StoreError::Gone(_)) if self.is_replaced(id, &entry) => {}
                outcome => return outcome.map(Some),
            }
        }
    }

    /// The task, kept from now on. It may be evicted at any time unless the caller takes a use of it.
    pub fn create(&self, id: TaskId) -> Result<StoredTask, StoreError> {
        loop {
            if let Some(task) = self.task(id)? {
                return Ok(task);
            }
            self.directory.make_task(id)?;
            let survey = self.directory.survey(id);
            // Whoever was faster made the same directory.
            let mut tasks = self.tasks.lock();
            let mut is_ours = false;
            let enter = || {
                is_ours = true;
                self.directory.account(0, survey.bytes);
                Entry::new(id, &survey)
            };
            let made = tasks.entry(id).or_insert_with(enter).clone();
            drop(tasks);
            made.presence.note_read(self.directory.now());
            match self.opened(id, &made) {
                Err(StoreError::Gone(_)) if self.is_replaced(id, &made) => {}
                Err(error @ StoreError::NoSpace { .. }) if is_ours => {
                    self.drop_half_made(id, &made);
                    return Err(error);
                }
                outcome => return outcome,
            }
        }
    }

    /// Takes away a task that there was no room to make, unless somebody else was more fortunate.
    fn drop_half_made(&self, id: TaskId, made: &Entry) {
        {
            let mut tasks = self.tasks.lock();
            let is_it =
                tasks.get(&id).is_some_and(|now| Arc::ptr_eq(&now.presence, &made.presence));
            // Another thread may have found room for it since, and begun to fill it.
            let is_begun = self.directory.has_content(id);
            if !is_it || is_begun || !made.presence.claim(Pins::Count) {
                return;
            }
            if let Err(error) = self.discard(&mut tasks, id) {
                tracing::warn!(%error, task = %id, "what is left of a task without room stays");
            }
        }
        self.empty_trash();
    }

    /// Whether the task was taken away since the caller looked.
    fn is_replaced(&self, id: TaskId, entry: &Entry) -> bool {
        let tasks = self.tasks.lock();
        tasks.get(&id).is_none_or(|now| !Arc::ptr_eq(&now.presence, &entry.presence))
    }

    fn opened(&self, id: TaskId, entry: &Entry) -> Result<StoredTask, StoreError> {
        // Not taken away, nor made anew by somebody else, while its files are opened.
        let _used = entry.presence.begin(Use::Handle)?;
        let mut opened = entry.opened.lock();
        if let Some(opened) = opened.upgrade() {
            return Ok(StoredTask::new(opened));
        }
        self.directory.make_task(id)?;
        let fresh = Arc::new(Opened::open(id, &self.directory, &entry.presence)?);
        *opened = Arc::downgrade(&fresh);
        Ok(StoredTask::new(fresh))
    }

    /// A task whose fsync failed is never trusted again: it goes as soon as nothing uses it.
    fn drop_broken(&self, id: TaskId) -> Result<(), StoreError> {
        {
            let mut tasks = self.tasks.lock();
            let Some(entry) = tasks.get(&id) else { return Ok(()) };
            if !entry.presence.broken.load(Relaxed) {
                return Ok(());
            }
            // What cannot be trusted is kept for nobody.
            if !entry.presence.claim(Pins::GoToo) {
                return Err(StoreError::Gone(id));
            }
            self.discard(&mut tasks, id)?;
        }
        self.directory.empty_trash()
    }

    /// Content files that must not be opened anew.
    pub fn lent(&self) -> &Lent {
        &self.options.lent
    }

    /// Everything kept, in no order.
    pub fn list(&self) -> Vec<TaskSummary> {
        self.tasks.lock().values().map(|entry| entry.presence.summary()).collect()
    }

    /// Disk, or memory, that tasks may take, where that is bounded.
    pub fn capacity(&self) -> Option<ByteSize> {
        self.directory.capacity()
    }

    /// Where tasks lie.
    pub fn medium(&self) -> Medium {
        self.options.medium
    }

    /// In which directory.
    pub fn place(&self) -> &Path {
        self.directory.place()
    }

    /// Another process goes on with what is here, also with what lies in memory.
    pub fn leave(&self) {
        self.left.store(true, Relaxed);
    }

    /// Memory taken by tasks, in bytes.
    pub fn used_memory(&self) -> u64 {
        match (self.options.medium, self.directory.upper()) {
            (Medium::Memory(_), _) => self.used_bytes(),
            (_, upper) => upper.map_or(0, Upper::used),
        }
    }

    /// Waits until memory over the disk is needed for what comes; never where there is none.
    pub async fn pressed(&self) {
        match self.directory.upper() {
            Some(upper) => upper.pressed().await,
            None => std::future::pending().await,
        }
    }

    /// Puts down what was not read for longest until enough of the memory over the disk is free; how many bytes. What
    /// cannot be put down stays where it is.
    pub fn relieve(&self) -> Result<u64, StoreError> {
        let Some(upper) = self.directory.upper() else { return Ok(0) };
        let mut presences: Vec<_> =
            self.tasks.lock().values().map(|entry| Arc::clone(&entry.presence)).collect();
        presences.retain(|presence| presence.upper.load(Relaxed) > 0);
        presences.sort_by_key(|presence| presence.last_read());
        let (mut moved, mut outcome) = (0, Ok(()));
        for presence in presences {
            let excess = upper.excess();
            if excess == 0 {
                break;
            }
            let put_down = self.task(presence.id).and_then(|task| match task {
                Some(task) => task.put_down(GroupRange::new(0, u64::MAX), excess),
                None => Ok(0),
            });
            match put_down {
                Ok(bytes) => moved += bytes,
                // Nobody reads it again: others are put down.
                Err(StoreError::Gone(_)) => {}
                Err(error) => outcome = Err(error),
            }
        }
        outcome.map(|()| moved)
    }

    /// Gives the memory back that tasks lie in, with the tasks, unless somebody goes on with them. Of a disk nothing goes.
    /// The last thing that is done with a store.
    pub fn give_memory_back(&self) -> Result<(), StoreError> {
        if self.left.load(Relaxed) {
            return Ok(());
        }
        self.directory.give_memory_back()
    }

    /// Bytes of content that it takes at most, where its capacity is bounded, as it is in memory: the rest is for new trees
    /// to be looked into.
    pub fn room_for_content(&self) -> Option<u64> {
        self.capacity().map(|_| self.directory.limit(Share::Content))
    }

    /// Disk taken by all tasks, in allocated bytes.
    pub fn used_bytes(&self) -> u64 {
        self.directory.used()
    }

    /// Takes one task away, and says what disk that gives back, in bytes; `None` where it is not kept. Refused
    /// while it is in use, or pinned and pins count.
    pub fn remove(&self, id: TaskId, pins: Pins) -> Result<Option<u64>, StoreError> {
        let freed = {
            let mut tasks = self.tasks.lock();
            let Some(entry) = tasks.get(&id) else { return Ok(None) };
            if !entry.presence.claim(pins) {
                return Err(entry.presence.refusal());
            }
            self.discard(&mut tasks, id)?
        };
        self.empty_trash();
        Ok(Some(freed))
    }

    /// Keeps what is here of a task, and what comes to be, over eviction and restarts.
    pub fn pin(&self, id: TaskId) -> Result<PinChange, StoreError> {
        let Some(presence) = self.presence(id) else { return Ok(PinChange::Absent) };
        let _alone = presence.pinning.lock();
        // First in memory: from here on nothing evicts it.
        let is_news = presence.set_pinned(true)?;
        if let Err(error) = self.directory.note_pin(id) {
            if is_news {
                presence.set_pinned(false)?;
            }
            return Err(error);
        }
        Ok(PinChange::of(is_news))
    }

    /// Lets a pinned task go the way of all others.
    pub fn unpin(&self, id: TaskId) -> Result<PinChange, StoreError> {
        let Some(presence) = self.presence(id) else { return Ok(PinChange::Absent) };
        let _alone = presence.pinning.lock();
        self.directory.forget_pin(id)?;
        presence.set_pinned(false).map(PinChange::of)
    }

    fn presence(&self, id: TaskId) -> Option<Arc<Presence>> {
        self.tasks.lock().get(&id).map(|entry| Arc::clone(&entry.presence))
    }

    /// Evicts what is past its time to live, then, above the high watermark, the least recently read
    /// down to the low one. Then, until the disk below has a little left, what was not read just now: others who
    /// fill it do not take the cache away from those who use it. Never what is pinned or in use.
    pub fn gc(&self, now: SystemTime) -> Result<GcReport, StoreError> {
        self.measure();
        let mut report = self.evict(now, self.above_mark(), Duration::ZERO)?;
        let lacks = self.directory.lacks();
        if lacks > 0 {
            let more = self.evict(now, lacks, JUST_NOW)?;
            report.evicted.extend(more.evicted);
            report.freed += more.freed;
        }
        Ok(report)
    }

    /// Evicts what is past its time to live, then the least recently read, so that at least `bytes` are freed
    /// where that is possible, and what [`Store::to_free`] says.
    pub fn make_room(&self, now: SystemTime, bytes: ByteSize) -> Result<GcReport, StoreError> {
        // Cheap beside measuring, and asked often while everything is in use.
        if !self.has_evictable() {
            return Ok(GcReport::default());
        }
        self.measure();
        self.evict(now, self.to_free().max(bytes.0), Duration::ZERO)
    }

    /// The time that [`Store::gc`] goes by: that of the machine when the store was opened, and what has passed since.
    pub fn now(&self) -> SystemTime {
        self.directory.now()
    }

    /// Bytes above the low watermark once the high one is passed, or that lack for the disk to have a little left.
    pub fn to_free(&self) -> u64 {
        self.above_mark().max(self.directory.lacks())
    }

    fn above_mark(&self) -> u64 {
        self.options.watermarks.to_free(self.used_bytes(), self.capacity())
    }

    fn has_evictable(&self) -> bool {
        self.tasks.lock().values().any(|entry| entry.presence.is_evictable())
    }

    /// Everything kept as eviction sees it, for [`plan`].
    pub fn eviction_entries(&self) -> Vec<EvictionEntry> {
        self.entries_of(&self.tasks.lock())
    }

    fn entries_of(&self, tasks: &HashMap<TaskId, Entry>) -> Vec<EvictionEntry> {
        tasks.values().map(|entry| entry.presence.eviction_entry(self.options.ttl)).collect()
    }

    /// Evicts nothing for a while: who opens many tasks is about to use them all.
    pub fn spare(&self) -> Spared {
        // Under the lock that eviction holds: one that has begun is over.
        let _tasks = self.tasks.lock();
        self.spared.fetch_add(1, Relaxed);
        Spared(Arc::clone(&self.spared))
    }

    /// Spares what was read less than `rested` ago.
    fn evict(
        &self,
        now: SystemTime,
        to_free: u64,
        rested: Duration,
    ) -> Result<GcReport, StoreError> {
        let (mut report, mut failed) = (GcReport::default(), None);
        let mut stuck: Vec<TaskId> = Vec::new();
        let mut tasks = self.tasks.lock();
        if self.spared.load(Relaxed) > 0 {
            return Ok(report);
        }
        loop {
            let known = stuck.len();
            let mut entries = self.entries_of(&tasks);
            let has_rested = |entry: &EvictionEntry| {
                now.duration_since(entry.last_read).unwrap_or_default() >= rested
            };
            entries.retain(|entry| !stuck.contains(&entry.id) && has_rested(entry));
            for id in plan(now, &entries, to_free.saturating_sub(report.freed)) {
                // A use may have begun since the plan was made: then the task stays.
                if !tasks.get(&id).is_some_and(|entry| entry.presence.claim(Pins::Count)) {
                    continue;
                }
                match self.discard(&mut tasks, id) {
                    Ok(freed) => {
                        report.freed += freed;
                        report.evicted.push(id);
                    }
                    Err(error) => {
                        stuck.push(id);
                        failed = failed.or(Some(error));
                    }
                }
            }
            // Others go in place of those that cannot be moved.
            if stuck.len() == known || stuck.len() > MOST_STUCK {
                break;
            }
        }
        drop(tasks);
        self.empty_trash();
        match failed {
            // Whoever evicts closes what has gone.
            Some(error) if report.evicted.is_empty() => Err(error),
            Some(error) => {
                tracing::warn!(%error, "a task that is to go cannot be taken away");
                Ok(report)
            }
            None => Ok(report),
        }
    }

    /// Gives the disk of what was taken away back. What cannot be removed now is tried again with the next.
    fn empty_trash(&self) {
        if let Err(error) = self.directory.empty_trash() {
            tracing::warn!(%error, "what was taken away still takes disk");
        }
    }

    /// Moves a claimed task out of sight; its disk space, in bytes.
    fn discard(&self, tasks: &mut HashMap<TaskId, Entry>, id: TaskId) -> Result<u64, StoreError> {
        let Some(entry) = tasks.get(&id) else { return Ok(0) };
        let gone = entry.presence.leave(&self.directory, || self.directory.discard(id));
        let bytes = gone.inspect_err(|_| entry.presence.give_back())?;
        tasks.remove(&id);
        Ok(bytes)
    }

    /// Asks the file system what every task really takes, and notes when each was last read.
    fn measure(&self) {
        let presences: Vec<_> =
            self.tasks.lock().values().map(|entry| Arc::clone(&entry.presence)).collect();
        for presence in presences {
            self.directory.measure(&presence);
            self.directory.note_read(&presence);
        }
    }

    /// Hashes one task again, or all of them; what is wrong is missing afterwards.
    pub fn verify(&self, only: Option<TaskId>) -> Result<Vec<VerifyReport>, StoreError> {
        let ids = match only {
            Some(id) => vec![id],
            None => self.tasks.lock().keys().copied().collect(),
        };
        let mut reports = Vec::new();
        for id in ids {
            let Some(task) = self.task(id)? else { continue };
            let Check { checked, bad } = task.verify(GroupRange::new(0, u64::MAX))?;
            reports.push(VerifyReport { id, checked, bad });
        }
        Ok(reports)
    }

    /// Makes everything durable and marks it so, that the next boot trusts it unseen; what is recorded later
    /// takes the mark away again. A task that cannot be made durable is dropped. The most recently read come
    /// first, and no further one is begun once `goes_on` says no. Not calling this costs only hashing after a
    /// reboot.
    pub fn close(&self, mut goes_on: impl FnMut() -> bool) -> Result<CloseReport, StoreError> {
        let mut entries: Vec<_> =
            self.tasks.lock().iter().map(|(id, entry)| (*id, entry.clone())).collect();
        entries.sort_by_key(|(_, entry)| Reverse(entry.presence.last_read()));
        let mut report = CloseReport::default();
        let mut outcome = Ok(());
        for (id, entry) in entries {
            if goes_on() {
                outcome = outcome.and(self.close_task(id, &entry, &mut goes_on));
            } else if entry.presence.dirty.load(Relaxed) {
                report.unmarked += 1;
                report.bytes += entry.presence.bytes();
            }
        }
        outcome.map(|()| report)
    }

    fn close_task(
        &self,
        id: TaskId,
        entry: &Entry,
        goes_on: &mut impl FnMut() -> bool,
    ) -> Result<(), StoreError> {
        self.directory.note_read(&entry.presence);
        if !entry.presence.dirty.load(Relaxed) {
            return Ok(());
        }
        let marked = self.opened(id, entry).and_then(|task| {
            // Memory that somebody goes on with stays as it is.
            let all = GroupRange::new(0, u64::MAX);
            let mut is_moving = !self.left.load(Relaxed);
            while is_moving {
                is_moving = task.put_down(all, AT_THE_END)? > 0 && goes_on();
            }
            task.mark_clean();
            Ok(())
        });
        match marked.and_then(|()| self.drop_broken(id)) {
            // Still in use: the next start finds that it names no boot. Or it was evicted.
            Err(StoreError::Gone(_)) => Ok(()),
            outcome => outcome,
        }
    }
}
