//! Trees, and parts of them, that are kept whole: what is missing is fetched when nothing else is to do, and nothing of
//! it is evicted.
//!
//! A pin is a file below the data directory, written before any of its tasks is pinned and removed after the last one
//! was let go: whenever the process dies, the next one finds all of it and goes on. No credentials are among what is
//! written. The tasks themselves are pinned in the store, which asks nobody here before it evicts.
//!
//! What cannot be had now is tried again, less and less often; what is whole is looked at now and then, as a disk may
//! lose some of it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, ByteSize, GroupSet, Priority, TaskId, TaskInfo, TaskKey};
use dfs_peer::engine::{Engine, Task};
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::{PinChange, Store, TaskSummary};
use dfs_peer::{error_chain, targets};
use dfs_proto::convert;
use dfs_proto::node::{PinRecord, PinState, PinnedTree, ShownMount};
use dfs_service::private_file::{self, Outlives};
use dfs_source::Asking;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::content::SpaceContent;
use super::filling::{self, Ended, Filling, News};
use super::kept;
use super::mounts::{Meant, MountTableError, What, tree_of, whole_tree};
use super::prefetch::Mode;
use super::traces::subject;
use super::{Agent, Asker, CallError};
use crate::core::Owner;
use crate::trace::{Place, Subject};
use crate::tree::Footprint;

/// The only format that there is.
const FORMAT: u32 = 1;

/// Where in the data directory.
const DIR: &str = "pins";

/// Most pins, and the longest record of one.
const MOST: usize = 256;
const RECORD_BYTES: u64 = 256 << 10;

/// Pins filled at a time; the others wait for their turn.
const AT_A_TIME: usize = 2;

/// How soon, and how late, what could not be had is tried again.
const SOONEST: Duration = Duration::from_secs(2);
const LATEST: Duration = Duration::from_secs(300);

/// How often it is looked whether what was whole still is.
const LOOK: Duration = Duration::from_secs(60);

/// How long it may take to open what a pin is about.
const OPENED: Duration = Duration::from_secs(60);

/// What is evicted at least where there is no room for a pin.
const ROOM: ByteSize = ByteSize(32 << 20);

/// See the module.
pub struct Pins {
    dir: PathBuf,
    pins: Mutex<BTreeMap<String, Arc<Pin>>>,
    /// Held while pins come and go, and the store's pins with them.
    changing: tokio::sync::Mutex<()>,
    /// There is a pin that nobody looks after yet.
    news: Notify,
    turns: Semaphore,
}

/// Something that is kept whole.
struct Pin {
    record: PinRecord,
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

/// What has to be here.
#[derive(Debug, Default)]
struct Needs {
    places: Vec<Place>,
    tasks: Vec<Needed>,
    files: u64,
}

#[derive(Debug, Clone)]
struct Needed {
    task: TaskId,
    length: u64,
    groups: GroupSet,
}

impl Needed {
    fn bytes(&self) -> u64 {
        self.groups.ranges().map(|run| run.bytes(self.length).len()).sum()
    }

    /// Bytes of it that are among what `have` has.
    fn bytes_in(&self, have: &GroupSet) -> u64 {
        let here = self.groups.ranges().flat_map(|run| have.present_in(run));
        here.map(|run| run.bytes(self.length).len()).sum()
    }
}

impl Needs {
    /// Of what lies at `path`. Looks at every inode: blocks.
    fn of(opened: &OpenArtifact, path: &[u8]) -> Result<Self, MountTableError> {
        let index = opened.index.as_ref().ok_or(MountTableError::NoTree)?;
        let (tree, known) = tree_of(whole_tree(opened)?, path)?;
        let footprint = match known.into_inner().flatten() {
            Some(footprint) => footprint,
            None => Footprint::of(&*tree)?,
        };
        let whole = |task: &Task| {
            let length = task.length().unwrap_or(0);
            let groups = GroupSet::from(ByteRange::new(0, length).groups());
            Needed { task: task.id(), length, groups }
        };
        let mut needs =
            Self { tasks: vec![whole(&index.task)], files: footprint.files, ..Self::default() };
        for (space, groups) in footprint.groups() {
            let task = opened.tasks.get(usize::from(space)).ok_or(MountTableError::NoTree)?;
            needs.places.extend(groups.ranges().map(|run| Place::new(space, run)));
            let length = task.length().unwrap_or(u64::MAX);
            needs.tasks.push(Needed { task: task.id(), length, groups });
        }
        Ok(needs)
    }

    fn bytes(&self) -> u64 {
        self.tasks.iter().map(Needed::bytes).sum()
    }

    /// Bytes of it that are here. Blocks.
    fn here(&self, engine: &Engine) -> u64 {
        let of = |needed: &Needed| {
            let kept = engine.peek(&needed.task);
            kept.map_or(0, |(_, stored, _)| needed.bytes_in(&stored.have()))
        };
        self.tasks.iter().map(of).sum()
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
        Arc::new(Self { record, key, progress: Mutex::new(progress), lifted, again })
    }

    /// What a file of the data directory says, if it is a pin.
    fn of_file(bytes: &[u8]) -> Option<Arc<Self>> {
        let record = convert::decode_pin(bytes).ok().filter(|record| record.format == FORMAT)?;
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
        self.record.by_hand.iter().any(|id| id[..] == task.as_bytes()[..])
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
    /// Those kept below an agent's data directory. What cannot be read as one is left there and said.
    pub fn in_dir(data_dir: &Path) -> Self {
        let dir = data_dir.join(DIR);
        let pins = load(&dir).unwrap_or_else(|error| {
            tracing::error!(dir = %dir.display(), %error, "pins cannot be read");
            BTreeMap::new()
        });
        let (changing, news) = (tokio::sync::Mutex::default(), Notify::new());
        if !pins.is_empty() {
            news.notify_one();
        }
        Self { dir, pins: Mutex::new(pins), changing, news, turns: Semaphore::new(AT_A_TIME) }
    }

    fn all(&self) -> Vec<(String, Arc<Pin>)> {
        self.pins.lock().iter().map(|(id, pin)| (id.clone(), Arc::clone(pin))).collect()
    }

    fn file(&self, id: &str) -> PathBuf {
        self.dir.join(id)
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
        let _in_use = SpaceContent::of(opened, None).map_err(MountTableError::from)?;
        let needs = Needs::of(opened, path)?;
        self.check_room(engine, agent.facts().data_dir.as_path(), &needs)?;
        let key = opened.index.as_ref().ok_or(MountTableError::NoTree)?.task.info().key.clone();
        let record = self.record(engine.store(), &meant, &needs);
        self.write(&id, &record).map_err(CallError::PinNotKept)?;
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
        let bytes = |id: &TaskId| Bytes::copy_from_slice(id.as_bytes());
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
            following: None,
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        PinRecord {
            format: FORMAT,
            shown: Some(kept::without_credentials(&kept::shown(&what))),
            since_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            files: needs.files,
            bytes: needs.bytes(),
            tasks: tasks.iter().map(bytes).collect(),
            by_hand: tasks.iter().filter(|task| is_by_hand(task)).map(bytes).collect(),
        }
    }

    /// Refuses what cannot be kept beside what is pinned already.
    fn check_room(&self, engine: &Engine, data_dir: &Path, needs: &Needs) -> Result<(), CallError> {
        let (store, own) = (engine.store(), needs.bytes());
        let others = self.promised(store, needs);
        let refused = |room: u64| CallError::TooLargeToPin { needs: own, others, room };
        match store.room_for_content() {
            Some(room) if own.saturating_add(others) > room => Err(refused(room)),
            Some(_) => Ok(()),
            None => {
                let evictable = store.eviction_entries();
                let evictable = evictable.iter().filter(|task| !task.pinned && !task.in_use);
                let free = free_on(data_dir).saturating_add(evictable.map(|task| task.bytes).sum());
                let missing = own.saturating_sub(needs.here(engine));
                if missing > free { Err(refused(free)) } else { Ok(()) }
            }
        }
    }

    /// Bytes that pins are to have beside these, each once.
    fn promised(&self, store: &Store, needs: &Needs) -> u64 {
        let mut all: HashMap<TaskId, Needed> = HashMap::new();
        let (mut unknown, pins) = (0, self.all());
        for (_, pin) in &pins {
            match pin.progress.lock().needs.clone() {
                Some(needs) => needs.tasks.iter().for_each(|needed| {
                    let known = all
                        .entry(needed.task)
                        .or_insert_with(|| Needed { groups: GroupSet::new(), ..needed.clone() });
                    known.groups.insert_all(&needed.groups);
                }),
                None => unknown += pin.record.bytes,
            }
        }
        for needed in &needs.tasks {
            if let Some(known) = all.get_mut(&needed.task) {
                known.groups.remove_all(&needed.groups);
            }
        }
        let by_hand = |task: &&TaskSummary| {
            let is_counted = needs.tasks.iter().any(|needed| needed.task == task.id);
            task.pinned && !is_counted && !pins.iter().any(|(_, pin)| pin.has(&task.id))
        };
        let by_hand: u64 = store.list().iter().filter(by_hand).map(|task| task.bytes).sum();
        all.values().map(Needed::bytes).sum::<u64>() + unknown + by_hand
    }

    fn write(&self, id: &str, record: &PinRecord) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        private_file::replace(&self.file(id), &convert::encode_pin(record), Outlives::Power)
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
        match fs::remove_file(self.file(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        File::open(&self.dir)?.sync_all()
    }
}

fn load(dir: &Path) -> io::Result<BTreeMap<String, Arc<Pin>>> {
    let files = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        files => files?,
    };
    let mut pins = BTreeMap::new();
    for file in files {
        let path = file?.path();
        let id = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bytes = private_file::read(&path, RECORD_BYTES).ok().flatten().unwrap_or_default();
        match Pin::of_file(&bytes).filter(|_| is_id && pins.len() < MOST) {
            Some(pin) => drop(pins.insert(id, pin)),
            None => tracing::warn!(file = %path.display(), "is no pin that this version can read"),
        }
    }
    Ok(pins)
}

/// Bytes that the disk of a directory still takes; as many as there are where it does not say.
fn free_on(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
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

/// How an attempt at making a pin whole ended.
enum Attempt {
    Whole,
    Later(String),
    Lost(String),
}

/// What is fetched for a pin.
struct Fill<'a> {
    pin: &'a Pin,
    agent: &'a Agent,
    content: Arc<SpaceContent>,
    /// Why the last of it could not be had.
    why: Mutex<Option<String>>,
}

#[async_trait]
impl Filling for Fill<'_> {
    fn content(&self) -> Option<Arc<SpaceContent>> {
        (!self.pin.lifted.is_cancelled()).then(|| Arc::clone(&self.content))
    }

    fn priority(&self) -> Priority {
        Priority::Background
    }

    async fn makes_room(&self) {
        // Where nothing can go it waits for room.
        let _ = self.agent.host().engine.evict(Some(ROOM)).await;
    }

    fn says(&self, news: News) {
        self.pin.say(match news {
            News::Fetching => State::Fetching,
            News::Waiting(why) => {
                *self.why.lock() = Some(why.clone());
                State::Waiting(why)
            }
        });
    }
}

impl Pin {
    /// Makes it whole, and again when it is not any more. Ends when it is lifted.
    async fn keep(self: Arc<Self>, agent: &Agent) {
        let keeping = async {
            let mut pause = SOONEST;
            loop {
                // An agent that ends when it is idle goes on until this is whole.
                let busy = agent.enter();
                let attempt = match agent.pins().turns.acquire().await {
                    Ok(_turn) => Box::pin(self.attempt(agent)).await,
                    Err(_) => return,
                };
                let wait = match attempt {
                    Attempt::Whole => {
                        self.whole();
                        pause = SOONEST;
                        drop(busy);
                        LOOK
                    }
                    Attempt::Later(why) => {
                        self.say(State::Waiting(why));
                        let wait = pause;
                        pause = (pause * 2).min(LATEST);
                        wait
                    }
                    Attempt::Lost(why) => {
                        self.say(State::Failed(why));
                        drop(busy);
                        LATEST
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.again.notified() => pause = SOONEST,
                }
            }
        };
        self.lifted.run_until_cancelled(keeping).await;
    }

    fn whole(&self) {
        let mut progress = self.progress.lock();
        progress.state = State::Whole;
        // Its files need not be open.
        progress.opened = None;
    }

    async fn attempt(&self, agent: &Agent) -> Attempt {
        let needs = self.progress.lock().needs.clone();
        if let Some(needs) = &needs
            && is_here(agent, needs).await
        {
            return Attempt::Whole;
        }
        let opened = match timeout(OPENED, self.open(agent)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(why)) => return Attempt::Later(why),
            Err(_) => return Attempt::Later("it could not be opened in time".to_owned()),
        };
        match self.fill(agent, &opened).await {
            Ok(attempt) => attempt,
            Err(error) => Attempt::Later(error_chain(&error)),
        }
    }

    /// With the credentials of who asked for it; after a restart with the agent's own.
    async fn open(&self, agent: &Agent) -> Result<OpenArtifact, String> {
        let opened = self.progress.lock().opened.clone();
        if let Some(opened) = opened.filter(|opened| opened.tasks.iter().all(Task::is_open)) {
            return Ok(opened);
        }
        let shown = self.shown();
        let target = targets::from_wire(shown.target.clone()).map_err(|error| error.to_string())?;
        let target = agent.complete(&target, Asking::Own).await;
        let target = target.map_err(|error| error_chain(&*error))?;
        let opened = agent.open_shown(&target, shown).await;
        let opened = opened.map_err(|error| error_chain(&error))?;
        self.progress.lock().opened = Some(opened.clone());
        Ok(opened)
    }

    async fn fill(&self, agent: &Agent, opened: &OpenArtifact) -> Result<Attempt, CallError> {
        let needs = self.needs(agent, opened).await?;
        let content = Arc::new(SpaceContent::of(opened, None).map_err(MountTableError::from)?);
        if let Some(index) = &opened.index {
            let length = index.task.length().unwrap_or(0);
            index.task.ensure(ByteRange::new(0, length), Priority::Background).await?;
        }
        let fill = Fill { pin: self, agent, content, why: Mutex::default() };
        let filled = filling::fill(&fill, needs.places.clone()).await;
        let why = fill.why.into_inner();
        Ok(match filled.lost {
            Some(why) => Attempt::Lost(why),
            None if filled.ended == Ended::Through && filled.later.is_empty() => {
                match is_here(agent, &needs).await {
                    true => Attempt::Whole,
                    false => Attempt::Later("some of it is gone again".to_owned()),
                }
            }
            None => Attempt::Later(why.unwrap_or_else(|| "it could not be had".to_owned())),
        })
    }

    /// What it needs; its tasks are pinned then, also where the process died before they were.
    async fn needs(&self, agent: &Agent, opened: &OpenArtifact) -> Result<Arc<Needs>, CallError> {
        let known = self.progress.lock().needs.clone();
        let path = self.shown().path.to_vec();
        let (opened, store) = (opened.clone(), Arc::clone(agent.host().engine.store()));
        let looking = tokio::task::spawn_blocking(move || match known {
            Some(needs) => Ok(needs),
            None => Needs::of(&opened, &path).map(Arc::new),
        });
        let needs = looking.await.map_err(|_| MountTableError::Stopping)??;
        self.progress.lock().needs = Some(Arc::clone(&needs));
        // Under the lock under which it would be lifted.
        let _alone = agent.pins().changing.lock().await;
        if !self.lifted.is_cancelled() {
            pin_tasks(&store, self)?;
        }
        Ok(needs)
    }
}

async fn is_here(agent: &Agent, needs: &Arc<Needs>) -> bool {
    let (engine, needs) = (agent.host().engine.clone(), Arc::clone(needs));
    let looking = tokio::task::spawn_blocking(move || needs.here(&engine) == needs.bytes());
    looking.await.unwrap_or(false)
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
        let _alone = self.pins().changing.lock().await;
        self.with_pins(move |agent| agent.pins().begin(agent, meant)).await
    }

    /// Lets go of the pins that `is_meant` says.
    pub(super) async fn unpin(
        &self,
        is_meant: impl Fn(&str, &ShownMount) -> bool + Send + 'static,
    ) -> Result<Vec<PinnedTree>, CallError> {
        let _alone = self.pins().changing.lock().await;
        let lifted = self.with_pins(move |agent| {
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

    /// Changes the pin of one task, which no pin of a tree may need.
    pub(super) async fn pin_alone<T: Send + 'static>(
        &self,
        task: TaskId,
        change: impl FnOnce(&Self) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let _alone = self.pins().changing.lock().await;
        if let Some(keeper) = self.pins().keeper_of(&task) {
            return Err(CallError::KeptForPin { task, keeper });
        }
        self.with_pins(change).await
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
