//! Trees, and parts of them, that are kept whole: what is missing is fetched when nothing else is to do, and nothing of
//! it is evicted.
//!
//! A pin is a file below the data directory, written before any of its tasks is pinned and removed after the last one
//! was let go: whenever the process dies, the next one finds all of it and goes on. No credentials are among what is
//! written. The tasks themselves are pinned in the store, which asks nobody here before it evicts.
//!
//! What cannot be had now is tried again, less and less often; what is whole is looked at now and then, as a disk may
//! lose some of it.

mod keeping;
mod records;
mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dfs_model::{TaskId, TaskInfo, TaskKey};
use dfs_peer::engine::Engine;
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::{PinChange, Store, Verify};
use dfs_proto::node::{PinRecord, PinState, PinnedTree, ShownMount};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use self::records::{FORMAT, Records};
use super::content::SpaceContent;
use super::kept;
use super::mounts::{Meant, MountTableError, What};
use super::needs::Needs;
use super::prefetch::Mode;
use super::traces::subject;
use super::{Agent, Asker, CallError};
use crate::core::Owner;
use crate::trace::Subject;

/// Most pins.
const MOST: usize = 256;

/// Pins filled at a time; the others wait for their turn.
const AT_A_TIME: usize = 2;

/// See the module.
pub struct Pins {
    records: Records,
    pins: Mutex<BTreeMap<String, Arc<Pin>>>,
    /// Held while pins come and go, and the store's pins with them.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// There is a pin that nobody looks after yet.
    news: Notify,
    turns: Semaphore,
}

/// Something that is kept whole.
struct Pin {
    record: PinRecord,
    /// Those of its tasks that are pinned by themselves, too, as they are written down.
    by_hand: Mutex<BTreeSet<TaskId>>,
    /// Of its index: who may be told of it.
    key: TaskKey,
    progress: Mutex<Progress>,
    lifted: CancellationToken,
    /// Somebody wants it tried at once.
    again: Notify,
}

struct Progress {
    state: State,
    /// Somebody sees to it.
    attended: bool,
    needs: Option<Arc<Needs>>,
    /// With the credentials of who asked for it, as long as it is not whole.
    opened: Option<OpenArtifact>,
}

/// How far a pin is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Fetching,
    Waiting(String),
    Whole,
    Failed(String),
}

impl State {
    fn wire(&self) -> (PinState, &str) {
        match self {
            Self::Fetching => (PinState::Fetching, ""),
            Self::Waiting(why) => (PinState::Waiting, why),
            Self::Whole => (PinState::Whole, ""),
            Self::Failed(why) => (PinState::Failed, why),
        }
    }
}

/// Whether it is what `pin` is about, at this address, whatever its version.
fn is_at(shown: &ShownMount, url: &str, path: &[u8]) -> bool {
    shown.target.as_ref().is_some_and(|target| target.url == url) && shown.path == path
}

impl Pin {
    fn new(
        record: PinRecord,
        key: TaskKey,
        needs: Option<Needs>,
        opened: Option<OpenArtifact>,
    ) -> Arc<Self> {
        let needs = needs.map(Arc::new);
        let progress = Progress { state: State::Fetching, attended: false, needs, opened };
        let (lifted, again) = (CancellationToken::new(), Notify::new());
        let by_hand = record.by_hand.iter().filter_map(|id| TaskId::from_slice(id)).collect();
        let (by_hand, progress) = (Mutex::new(by_hand), Mutex::new(progress));
        Arc::new(Self { record, by_hand, key, progress, lifted, again })
    }

    /// As it was written down; `None` where that makes no sense.
    fn again(record: PinRecord) -> Option<Arc<Self>> {
        let index = record.shown.as_ref()?.artifact.as_ref()?.index.clone()?;
        let key = TaskInfo::try_from(index).ok()?.key;
        Some(Self::new(record, key, None, None))
    }

    fn shown(&self) -> ShownMount {
        self.record.shown.clone().unwrap_or_default()
    }

    fn tasks(&self) -> impl Iterator<Item = TaskId> {
        self.record.tasks.iter().filter_map(|id| TaskId::from_slice(id))
    }

    fn has(&self, task: &TaskId) -> bool {
        self.tasks().any(|own| own == *task)
    }

    fn had_by_hand(&self, task: &TaskId) -> bool {
        self.by_hand.lock().contains(task)
    }

    /// As it is named on the command line.
    fn url(&self) -> String {
        let shown = self.shown();
        let url = shown.target.map(|target| dfs_model::redact(&target.url)).unwrap_or_default();
        match &shown.path[..] {
            b"" => url,
            path => format!("{url}!{}", String::from_utf8_lossy(path)),
        }
    }

    fn say(&self, state: State) {
        self.progress.lock().state = state;
    }

    /// As it is told. Blocks.
    fn tell(&self, id: &str, engine: &Engine) -> PinnedTree {
        let (state, needs) = {
            let progress = self.progress.lock();
            (progress.state.clone(), progress.needs.clone())
        };
        let here = match needs {
            Some(needs) => needs.here(engine),
            None => {
                let kept = self.tasks().filter_map(|task| engine.peek(&task));
                let here = kept.map(|(info, stored, _)| {
                    let length = info.length.unwrap_or(u64::MAX);
                    stored.have().ranges().map(|run| run.bytes(length).len()).sum::<u64>()
                });
                here.sum::<u64>().min(self.record.bytes)
            }
        };
        let (wire, why) = state.wire();
        PinnedTree {
            id: id.as_bytes().to_vec().into(),
            url: self.url(),
            files: self.record.files,
            bytes: self.record.bytes,
            cached_bytes: here,
            state: wire.into(),
            why: why.to_owned(),
            since_unix_ms: self.record.since_unix_ms,
        }
    }
}

impl Pins {
    /// Those kept below an agent's data directory.
    pub fn in_dir(data_dir: &Path) -> Self {
        let records = Records::in_dir(data_dir);
        let found = records.load(MOST).into_iter();
        let pins = found.filter_map(|(id, record)| Some((id, Pin::again(record)?)));
        let pins: BTreeMap<_, _> = pins.collect();
        let (changing, news) = (Arc::default(), Notify::new());
        if !pins.is_empty() {
            news.notify_one();
        }
        Self { records, pins: Mutex::new(pins), changing, news, turns: Semaphore::new(AT_A_TIME) }
    }

    fn all(&self) -> Vec<(String, Arc<Pin>)> {
        self.pins.lock().iter().map(|(id, pin)| (id.clone(), Arc::clone(pin))).collect()
    }

    /// How many are in which state.
    pub fn count_by_state(&self) -> [(&'static str, u64); 4] {
        let mut counts = [("fetching", 0), ("waiting", 0), ("whole", 0), ("failed", 0)];
        for (_, pin) in self.all() {
            let place = match pin.progress.lock().state {
                State::Fetching => 0,
                State::Waiting(_) => 1,
                State::Whole => 2,
                State::Failed(_) => 3,
            };
            counts[place].1 += 1;
        }
        counts
    }

    /// For what a task is kept, if it is for a pin.
    pub fn keeper_of(&self, task: &TaskId) -> Option<String> {
        self.all().into_iter().find(|(_, pin)| pin.has(task)).map(|(_, pin)| pin.url())
    }

    /// Takes note of a pin for good, and pins its tasks. Blocks.
    fn begin(&self, agent: &Agent, meant: Meant) -> Result<(PinnedTree, bool), CallError> {
        let engine = &agent.host().engine;
        let Meant { opened, path, .. } = &meant;
        let subject: Subject = subject(opened, path).ok_or(MountTableError::NoTree)?;
        let id = subject.to_string();
        let known = self.pins.lock().get(&id).cloned();
        if let Some(pin) = known {
            // Whoever asks again may know the way.
            pin.progress.lock().opened = Some(meant.opened);
            pin.again.notify_one();
            return Ok((pin.tell(&id, engine), false));
        }
        if self.pins.lock().len() >= MOST {
            return Err(CallError::TooManyPins(MOST));
        }
        // Nothing of it goes before it is pinned.
        let _in_use =
            SpaceContent::of(opened, None, Verify::Arrivals).map_err(MountTableError::from)?;
        let needs = Needs::of(opened, path)?;
        self.check_room(engine, agent.facts().data_dir.as_path(), &needs)?;
        let key = opened.index.as_ref().ok_or(MountTableError::NoTree)?.task.info().key.clone();
        let record = self.record(engine.store(), &meant, &needs);
        self.records.write(&id, &record).map_err(CallError::PinNotKept)?;
        let pin = Pin::new(record, key, Some(needs), Some(meant.opened));
        if let Err(error) = pin_tasks(engine.store(), &pin) {
            self.let_go(engine.store(), &id, &pin).map_err(CallError::PinNotKept)?;
            return Err(error);
        }
        self.pins.lock().insert(id.clone(), Arc::clone(&pin));
        self.news.notify_one();
        Ok((pin.tell(&id, engine), true))
    }

    fn record(&self, store: &Store, meant: &Meant, needs: &Needs) -> PinRecord {
        let pinned: Vec<TaskId> =
            store.list().iter().filter(|task| task.pinned).map(|task| task.id).collect();
        let others = self.all();
        let is_by_hand = |task: &TaskId| {
            let mut keepers = others.iter().filter(|(_, pin)| pin.has(task)).peekable();
            let is_free = keepers.peek().is_none();
            pinned.contains(task) && (is_free || keepers.any(|(_, pin)| pin.had_by_hand(task)))
        };
        let tasks: Vec<TaskId> = needs.tasks.iter().map(|needed| needed.task).collect();
        let what = What {
            opened: meant.opened.clone(),
            view: meant.view,
            path: meant.path.clone(),
            by: Asker::Owner,
            prefetch: Mode::Off,
            owner: Owner::default(),
            away: None,
            cache_quota: None,
            verify: Verify::default(),
            following: None,
            command: None,
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        PinRecord {
            format: FORMAT,
            shown: Some(kept::without_credentials(&kept::shown(&what))),
            since_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            files: needs.files,
            bytes: needs.bytes(),
            tasks: tasks.iter().map(id_bytes).collect(),
            by_hand: tasks.iter().filter(|task| is_by_hand(task)).map(id_bytes).collect(),
        }
    }

    /// Takes note that a task is pinned by itself, also where pins need it; whether that is news to one of them. Blocks.
    fn note_by_hand(&self, task: TaskId) -> io::Result<bool> {
        let mut is_news = false;
        for (id, pin) in self.all() {
            let mut by_hand = pin.by_hand.lock();
            if !pin.has(&task) || by_hand.contains(&task) {
                continue;
            }
            let all = by_hand.iter().chain([&task]).map(id_bytes).collect();
            self.records.write(&id, &PinRecord { by_hand: all, ..pin.record.clone() })?;
            by_hand.insert(task);
            is_news = true;
        }
        Ok(is_news)
    }

    /// Unpins what no other pin keeps, and nobody kept before; then it is forgotten. Blocks.
    fn let_go(&self, store: &Store, id: &str, pin: &Pin) -> io::Result<()> {
        let others = self.all();
        let is_kept = |task: &TaskId| {
            pin.had_by_hand(task) || others.iter().any(|(other, pin)| other != id && pin.has(task))
        };
        for task in pin.tasks().filter(|task| !is_kept(task)) {
            store.unpin(task).map_err(io::Error::other)?;
        }
        self.records.remove(id)
    }
}

fn id_bytes(id: &TaskId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

/// Has the store keep the tasks of a pin. Blocks.
fn pin_tasks(store: &Store, pin: &Pin) -> Result<(), CallError> {
    let pinned: Vec<TaskId> =
        store.list().iter().filter(|task| task.pinned).map(|task| task.id).collect();
    for task in pin.tasks().filter(|task| !pinned.contains(task)) {
        if store.pin(task)? == PinChange::Absent {
            return Err(CallError::NoTask(task));
        }
    }
    Ok(())
}

impl Agent {
    /// What is kept whole.
    pub fn pins(&self) -> &Pins {
        &self.inner.pins
    }

    /// Sees to all pins. Never ends by itself.
    pub(super) async fn keep_pins(&self) {
        let mut keeping = FuturesUnordered::new();
        loop {
            for (_, pin) in self.pins().all() {
                let is_new = !std::mem::replace(&mut pin.progress.lock().attended, true);
                if is_new {
                    keeping.push(pin.keep(self));
                }
            }
            tokio::select! {
                () = self.pins().news.notified() => {}
                Some(()) = keeping.next() => {}
            }
        }
    }

    /// Changes which pins there are, one who does at a time: to its end, whoever asked for it may leave meanwhile.
    async fn change_pins<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Self) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let alone = Arc::clone(&self.pins().changing).lock_owned().await;
        let agent = self.clone();
        let changing = async move {
            let changed = agent.with_pins(change).await;
            drop(alone);
            changed
        };
        self.works().to_the_end(changing).await?
    }

    async fn with_pins<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let agent = self.clone();
        let working = tokio::task::spawn_blocking(move || work(&agent));
        working.await.map_err(|_| MountTableError::Stopping)?
    }

    /// Keeps what lies at `path`, and has what is missing fetched; whether that is news.
    pub(super) async fn pin(&self, meant: Meant) -> Result<(PinnedTree, bool), CallError> {
        self.change_pins(move |agent| agent.pins().begin(agent, meant)).await
    }

    /// Lets go of the pins that `is_meant` says.
    pub(super) async fn unpin(
        &self,
        is_meant: impl Fn(&str, &ShownMount) -> bool + Send + 'static,
    ) -> Result<Vec<PinnedTree>, CallError> {
        let lifted = self.change_pins(move |agent| {
            let (pins, engine) = (agent.pins(), &agent.host().engine);
            let mut lifted = Vec::new();
            for (id, pin) in pins.all() {
                if is_meant(&id, &pin.shown()) {
                    pins.let_go(engine.store(), &id, &pin).map_err(CallError::PinNotKept)?;
                    pin.lifted.cancel();
                    pins.pins.lock().remove(&id);
                    lifted.push(pin.tell(&id, engine));
                }
            }
            Ok(lifted)
        });
        lifted.await
    }

    /// What has `path` of the artifact at `url` in it.
    pub(super) fn pinned_around(&self, url: &str, path: &[u8]) -> Option<String> {
        let is_within = |above: &[u8]| {
            above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"))
        };
        let found = self.pins().all().into_iter().find(|(_, pin)| {
            let shown = pin.shown();
            is_at(&shown, url, &shown.path) && is_within(&shown.path)
        });
        found.map(|(_, pin)| pin.url())
    }

    /// All pins that the asker may see.
    pub(super) async fn pinned(&self, asker: Asker) -> Result<Vec<PinnedTree>, CallError> {
        let told = self.with_pins(move |agent| {
            let pins = agent.pins().all().into_iter();
            let visible = pins.filter(|(_, pin)| asker.may_see(&pin.key));
            Ok(visible.map(|(id, pin)| pin.tell(&id, &agent.host().engine)).collect::<Vec<_>>())
        });
        let mut told = told.await?;
        told.sort_by(|one, other| one.url.cmp(&other.url));
        Ok(told)
    }

    /// Pins one task by itself: it stays so when the pin of a tree that needs it is lifted.
    pub(super) async fn pin_alone(&self, task: TaskId) -> Result<PinChange, CallError> {
        let pinned = self.change_pins(move |agent| {
            let change = agent.host().engine.store().pin(task)?;
            if change == PinChange::Absent {
                return Ok(change);
            }
            let noted = agent.pins().note_by_hand(task).map_err(CallError::PinNotKept)?;
            Ok(if noted { PinChange::Changed } else { change })
        });
        pinned.await
    }

    /// Lets go of one task, which no pin of a tree may need.
    pub(super) async fn unpin_alone(&self, task: TaskId) -> Result<PinChange, CallError> {
        let unpinned = self.change_pins(move |agent| {
            if let Some(keeper) = agent.pins().keeper_of(&task) {
                return Err(CallError::KeptForPin { task, keeper });
            }
            Ok(agent.host().engine.store().unpin(task)?)
        });
        unpinned.await
    }
}

/// Whether a pin is the one of `subject`, or where no such is named at this address.
pub(super) fn is_pin_of(
    subject: Option<Subject>,
    url: String,
    path: Vec<u8>,
) -> impl Fn(&str, &ShownMount) -> bool + Send + 'static {
    let id = subject.map(|subject| subject.to_string());
    move |pin, shown| match &id {
        Some(id) => pin == id,
        None => is_at(shown, &url, &path),
    }
}
