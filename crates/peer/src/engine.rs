//! The piece engine: every role that moves bytes — seed, node agent, one-shot client — is this, with
//! another [`Role`].
//!
//! Owns the open tasks. A task is opened once; its actor (`actor`) drives the conductor, flights
//! (`flight`) bring verified groups into the store (`keep`), children are served from there (`serve`).
//! When the process dies, what the store holds is all that is left, and all that is needed.

mod actor;
mod around;
mod catalog;
mod chunk;
mod copies;
mod credentials;
mod earlier;
mod error;
mod flight;
mod growing;
mod keep;
mod ledger;
mod nearer;
mod open;
mod passing;
mod patience;
mod reserves;
mod serve;
mod task;
#[cfg(test)]
mod tests;
mod voids;
mod watcher;

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dfs_artifact::image::attached::IndexTrust;
use dfs_artifact::{Origin, Recipe};
use dfs_model::TaskInfo;
use dfs_model::{ByteSize, CanonicalUrl, TaskId, TaskKey, TaskKind};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::actor::Actor;
use self::catalog::Catalog;
use self::ledger::Provenance;
use self::open::{Closed, OpenTasks, Running};
use self::passing::{Passing, Room};
use self::task::Shared;
use crate::areas::Areas;
use crate::conductor::{Conductor, HedgeCount, Limits, SourceAccess, spread_of};
use crate::digests::Identity;
use crate::limits::{OriginSlots, Turns};
use crate::opener::Indexes;
use crate::store::{CloseReport, GcReport, Medium, Pins, Store, StoreError, StoredTask, Use};
use crate::swarm::{Swarm, SwarmOptions};
use crate::wire::{Compression, Pool};

pub use self::error::ReadError;
pub use self::growing::Growth;
pub use self::keep::Keyring;
use self::keep::KnownBatches;
pub use self::ledger::{CameFrom, Ledger, Mark, ParentBytes};
pub use self::nearer::Nearer;
pub(crate) use self::reserves::{MOST_RESERVES, Reserve};
pub(crate) use self::task::{Command, Lease};
pub use self::task::{ParentHost, Task};

/// What is evicted at least when a download finds the cache full.
const ROOM: ByteSize = ByteSize(64 << 20);

/// Readers for whom what is in doubt is hashed again at a time: what reads and is not in doubt has the other processors.
const SETTLED_AT_A_TIME: usize = 2;

/// How long the end may take in all: less than a process gives to one of its services.
const END_WITHIN: Duration = Duration::from_millis(1800);

/// How long of that work under way may take, before a store that is to last is closed all the same.
const WORK_WITHIN: Duration = Duration::from_millis(900);

/// What this host is to the swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes from parents, serves children; reads the origin only when told to or left alone.
    Node,
    /// Reads the origin for the cluster, signs what it read, serves.
    Seed,
    /// Alone: straight from the origin.
    Solo,
}

impl Role {
    fn relies_on_swarm(self) -> bool {
        self == Self::Node
    }

    fn serves_by_fetching(self) -> bool {
        self == Self::Seed
    }
}

/// What an engine is made of.
pub struct EngineParts {
    /// What this host is.
    pub role: Role,
    /// Keeps everything.
    pub store: Store,
    /// Who this host is, and its signing key.
    pub identity: Identity,
    /// Signers whose digests count.
    pub keyring: Arc<Keyring>,
    /// Connections to other hosts; none when solo.
    pub pool: Option<Pool>,
    /// The schedulers; none when solo or on a seed without children of its own.
    pub swarm: Option<SwarmOptions>,
    /// Reads origins again for tasks found in the store.
    pub sources: dfs_source::Sources,
    /// How long a node waits for a swarm that does not deliver before it reads the origin itself.
    pub patience: Duration,
    /// Bounds of each download.
    pub limits: Limits,
    /// Requests to one origin host at a time, over all tasks, a quarter of them for blocked readers alone; to all hosts
    /// together eight times as many.
    pub source_requests: usize,
    /// What becomes of the store when this process ends.
    pub lifetime: Lifetime,
    /// Whether parents may compress what they send.
    pub compression: Compression,
    /// Which indexes are believed that somebody attached to an image.
    pub index_trust: IndexTrust,
}

/// How long what a process keeps is to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Over restarts and reboots: made durable at an orderly end.
    Lasting,
    /// As long as the process.
    OfTheProcess,
}

/// Kept beside a task, to open it again in a later process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Its identity.
    pub key: TaskKey,
    /// Where it is read, of what its key names by its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<CanonicalUrl>,
    /// Groups per piece, as a power of two.
    pub piece_level: u8,
    /// Whether its origin can be read in ranges.
    pub ranges: bool,
    /// How to read its origin, where this host knows.
    pub recipe: Option<Recipe>,
}

/// A task that cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error("the cache cannot keep task {}", .id.short())]
    Store {
        /// Which task.
        id: TaskId,
        /// Why not.
        #[source]
        source: Arc<crate::store::StoreError>,
    },
    /// The engine is stopping.
    #[error("the engine is stopping")]
    Closing,
}

impl OpenError {
    /// Whether no host could keep it.
    pub fn is_too_long(&self) -> bool {
        matches!(self, Self::Store { source, .. } if matches!(**source, crate::store::StoreError::TooLong { .. }))
    }
}

/// How long a task that cannot be opened for want of files or of disk waits for others to be closed.
const WANT_WITHIN: Duration = Duration::from_secs(2);

/// What a task was not opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// This process, or the machine, has too many files open.
    Files,
    /// The disk is full.
    Space,
}

impl OpenError {
    fn want(&self) -> Option<Want> {
        let Self::Store { source, .. } = self else { return None };
        match **source {
            StoreError::NoSpace { .. } => Some(Want::Space),
            _ => source.is_out_of_files().then_some(Want::Files),
        }
    }
}

/// Attempts at something for which files or disk are short.
pub struct TriesWhileShort {
    engine: Engine,
    /// Once the first has come to nothing.
    until: Option<Instant>,
}

impl TriesWhileShort {
    /// Has the files of tasks closed that nobody uses, and waits a moment; whether to try again.
    pub async fn with_more_files(&mut self) -> bool {
        if let Ok(_turn) = self.engine.inner.closing.try_acquire() {
            self.engine.inner.out_of_files.notify_one();
            self.engine.close_idle(Instant::now(), Duration::ZERO).await;
        }
        self.once_more().await
    }

    /// Waits a moment; whether to try again.
    async fn once_more(&mut self) -> bool {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + WANT_WITHIN);
        tokio::time::sleep(WANT_WITHIN / 40).await;
        now < until
    }
}

/// What came of requests that a second parent was asked for too, growing only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HedgeNumbers {
    /// Requests, and those of which the second parent was the first to bring something.
    pub count: HedgeCount,
    /// Content bytes that came although they had come before.
    pub twice: u64,
}

/// A handle on the engine; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    role: Role,
    store: Arc<Store>,
    catalog: Arc<Catalog>,
    identity: Arc<Identity>,
    keyring: Arc<Keyring>,
    pool: Option<Pool>,
    swarm: Option<Swarm>,
    /// Of a seed: who is nearer to origins.
    nearer: OnceLock<Nearer>,
    sources: dfs_source::Sources,
    patience: Duration,
    limits: Limits,
    compression: Compression,
    index_trust: Arc<IndexTrust>,
    hedges: Mutex<HedgeNumbers>,
    source_slots: Arc<OriginSlots>,
    turns: Arc<Turns>,
    settling: Arc<Semaphore>,
    room: Arc<Room>,
    tasks: OpenTasks,
    indexes: Indexes,
    out_of_files: Notify,
    taken_away: Notify,
    /// Who closes what is idle then; the others wait.
    closing: Semaphore,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Inner {
    /// Whether there is room in the store now where there was none: housekeeping comes every few seconds only.
    async fn made_room(self: &Arc<Self>) -> bool {
        let before = self.room.evictions.load(Ordering::Relaxed);
        let Ok(_turn) = self.room.evicting.acquire().await else { return false };
        // Whoever had the turn before may have made enough.
        if self.room.evictions.load(Ordering::Relaxed) != before {
            return true;
        }
        let engine = Engine { inner: Arc::clone(self) };
        let room =
            self.store.capacity().map_or(ROOM, |capacity| ByteSize(ROOM.0.min(capacity.0 / 8)));
        let has_freed = engine.evict(Some(room)).await.is_ok_and(|report| report.freed > 0);
        self.room.evictions.fetch_add(u64::from(has_freed), Ordering::Relaxed);
        has_freed
    }

    /// Who signs what this host reads from the origin of a task: a seed, and a stand-in.
    fn signer_of(&self, task: &Shared) -> Option<Arc<Identity>> {
        let signs = self.role == Role::Seed || task.stands_in.load(Ordering::Relaxed);
        signs.then(|| Arc::clone(&self.identity))
    }

    /// Whether the origin is this host's to read without being told. Files are their own host's.
    fn reads_origin_of(&self, task: &TaskInfo) -> bool {
        !self.role.relies_on_swarm() || task.key.url.lies_here()
    }

    /// Patience differs from host to host, so that a herd left alone does not stampede to the origin.
    fn patience_for(&self, task: &TaskId) -> Duration {
        let mut hasher = blake3::Hasher::new();
        hasher.update(task.as_bytes()).update(self.identity.host().as_bytes());
        let share = f64::from(hasher.finalize().as_bytes()[0]) / 255.0;
        self.patience.mul_f64(1.0 + share)
    }
}

impl Engine {
    /// Starts an engine that ends with `stop`. `tracker` waits, for a while, until nothing works in the store
    /// any more, and where it is to last until what it has is durable.
    pub fn start(parts: EngineParts, tracker: &TaskTracker, stop: CancellationToken) -> Self {
        let store = Arc::new(parts.store);
        let work = TaskTracker::new();
        let lasting = (parts.lifetime == Lifetime::Lasting).then(|| Arc::clone(&store));
        tracker.spawn(end_work(work.clone(), lasting, stop.clone()));
        let catalog = Arc::new(Catalog::new(Arc::clone(&store)));
        let held = Arc::clone(&catalog);
        let swarm = parts.swarm.map(|options| Swarm::start(options, held, &work, stop.clone()));
        parts.keyring.learn([(parts.identity.host(), parts.identity.public_key())]);
        let inner = Inner {
            role: parts.role,
            store,
            catalog,
            identity: Arc::new(parts.identity),
            keyring: parts.keyring,
            pool: parts.pool,
            swarm,
            nearer: OnceLock::new(),
            sources: parts.sources,
            patience: parts.patience,
            limits: parts.limits,
            compression: parts.compression,
            index_trust: Arc::new(parts.index_trust),
            hedges: Mutex::default(),
            source_slots: Arc::new(OriginSlots::new(parts.source_requests)),
            turns: Arc::default(),
            settling: Arc::new(Semaphore::new(SETTLED_AT_A_TIME)),
            room: Arc::default(),
            tasks: OpenTasks::default(),
            indexes: Indexes::default(),
            out_of_files: Notify::new(),
            taken_away: Notify::new(),
            closing: Semaphore::new(1),
            tracker: work,
            stop,
        };
        Self { inner: Arc::new(inner) }
    }

    /// What this host is.
    pub fn role(&self) -> Role {
        self.inner.role
    }

    /// Who this host is.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.inner.identity
    }

    /// What is kept.
    pub fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    /// What came of what two parents were asked for.
    pub fn hedges(&self) -> HedgeNumbers {
        *self.inner.hedges.lock()
    }

    /// The schedulers, unless solo.
    pub fn swarm(&self) -> Option<&Swarm> {
        self.inner.swarm.as_ref()
    }

    /// Has a seed take from those of areas nearer to an origin what they give, and trust what they sign; as long as it
    /// is not told of any it asks every origin itself. Only the first call counts.
    pub fn take_from_nearer(&self, mut areas: watch::Receiver<Arc<Areas>>) {
        if self.inner.nearer.set(Nearer::new(areas.clone())).is_err() {
            return;
        }
        let (keyring, stop) = (Arc::clone(&self.inner.keyring), self.inner.stop.clone());
        self.inner.tracker.spawn(async move {
            loop {
                let seeds = Arc::clone(&areas.borrow_and_update());
                keyring.learn(seeds.seeds.iter().map(|seed| (seed.id, seed.public_key)));
                match stop.run_until_cancelled(areas.changed()).await {
                    Some(Ok(())) => {}
                    None | Some(Err(_)) => return,
                }
            }
        });
    }

    /// Those of areas nearer to origins, of a seed that was told.
    pub fn nearer(&self) -> Option<&Nearer> {
        self.inner.nearer.get()
    }

    /// Reads origins.
    pub fn sources(&self) -> &dfs_source::Sources {
        &self.inner.sources
    }

    /// Opens a task, or gives a handle on the one that is open. `origin` is how this host would read it by
    /// itself, `recipe` what is kept so that a later process can. Where files or disk lack for it, has those of
    /// tasks that nobody uses closed or evicted, and waits a while until they are.
    pub async fn open(
        &self,
        info: &TaskInfo,
        recipe: Option<Recipe>,
        origin: Option<Arc<dyn Origin>>,
    ) -> Result<Task, OpenError> {
        let mut tries = self.tries_while_short();
        let mut has_evicted = false;
        loop {
            let opened = self.open_now(info, recipe.clone(), origin.clone()).await;
            let goes_on = match opened.as_ref().err().and_then(OpenError::want) {
                None => return opened,
                Some(Want::Files) => tries.with_more_files().await,
                // What is evicted takes its disk until those who have it open have heard of it.
                Some(Want::Space) if has_evicted => tries.once_more().await,
                Some(Want::Space) => {
                    has_evicted = self.inner.made_room().await;
                    has_evicted
                }
            };
            if !goes_on {
                return opened;
            }
        }
    }

    /// For whoever finds that files are short: to try again, for a while.
    pub fn tries_while_short(&self) -> TriesWhileShort {
        TriesWhileShort { engine: self.clone(), until: None }
    }

    async fn open_now(
        &self,
        info: &TaskInfo,
        recipe: Option<Recipe>,
        origin: Option<Arc<dyn Origin>>,
    ) -> Result<Task, OpenError> {
        loop {
            if self.inner.stop.is_cancelled() {
                return Err(OpenError::Closing);
            }
            let slot = self.inner.tasks.slot(info.id);
            let begin = || self.begin(info.clone(), recipe.clone());
            let opened = slot.running.get_or_try_init(begin).await;
            if let Err(error) = opened {
                self.inner.tasks.give_up(&info.id, &slot);
                return Err(error);
            }
            // Closed since: it is opened anew.
            let Some(task) = self.inner.tasks.take(&info.id, &slot) else { continue };
            self.equip(&task, recipe, origin).await?;
            return Ok(task);
        }
    }

    /// A task that is open, or kept in the store from an earlier time: then the origin of what is private is
    /// not known until somebody gives credentials for it.
    pub async fn held(&self, id: &TaskId) -> Option<Task> {
        if let Some(task) = self.inner.tasks.held(id) {
            return Some(task);
        }
        let (engine, id) = (self.clone(), *id);
        let look = move || Some((engine.kept(&id)?.0, engine.recipe(&id)));
        let (info, recipe) = tokio::task::spawn_blocking(look).await.ok()??;
        let public = recipe.filter(|recipe| recipe.key.domain == TaskKey::PUBLIC);
        let origin = public.and_then(|recipe| {
            let nobody = dfs_source::Credentials::None;
            dfs_artifact::open_origin(&recipe, &self.inner.sources, nobody).ok()
        });
        self.open(&info, None, origin).await.ok()
    }

    /// What a task is and what is here of it, without opening it; a handle where it is open.
    pub fn peek(&self, id: &TaskId) -> Option<(TaskInfo, StoredTask, Option<Task>)> {
        if let Some(task) = self.inner.tasks.seen(id) {
            let info = TaskInfo { length: task.length(), ..task.info().clone() };
            return Some((info, task.stored().clone(), Some(task)));
        }
        let (info, stored) = self.kept(id)?;
        Some((info, stored, None))
    }

    fn kept(&self, id: &TaskId) -> Option<(TaskInfo, StoredTask)> {
        let stored = self.inner.store.task(*id).ok()??;
        Some((self.inner.catalog.info(id, stored.length())?, stored))
    }

    /// How the origin of a kept task is read, where that was known when it was opened last.
    fn recipe(&self, id: &TaskId) -> Option<Recipe> {
        let record: TaskRecord = self.inner.store.record(*id).ok()??;
        record.recipe.filter(|_| record.key.id() == *id)
    }

    /// What the tasks in the store are.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.inner.catalog)
    }

    /// Which indexes are believed that somebody attached to an image.
    pub(crate) fn index_trust(&self) -> Arc<IndexTrust> {
        Arc::clone(&self.inner.index_trust)
    }

    /// The indexes that somebody has.
    pub(crate) fn indexes(&self) -> &Indexes {
        &self.inner.indexes
    }

    /// Keeps a whole content that this host made itself, such as an index.
    pub async fn import(&self, info: &TaskInfo, content: Bytes) -> Result<Task, ReadError> {
        let task = self.open(info, None, None).await.map_err(|error| match error {
            OpenError::Store { source, .. } => ReadError::Store(source),
            OpenError::Closing => ReadError::Closing(info.id),
        })?;
        let shared = Arc::clone(&task.shared);
        let signer = self.inner.signer_of(&shared);
        let id = info.id;
        let used = task.in_use(Use::Fetch)?;
        let work = || {
            let (shared, signer) = (Arc::clone(&shared), signer.clone());
            let content = content.clone();
            move || keep::import(&shared, signer.as_deref(), &content)
        };
        let mut kept = self.inner.tracker.spawn_blocking(work()).await;
        if kept.as_ref().is_ok_and(|kept| kept.as_ref().is_err_and(keep::KeepError::is_no_space))
            && self.inner.made_room().await
        {
            kept = self.inner.tracker.spawn_blocking(work()).await;
        }
        drop(used);
        kept.map_err(|_| ReadError::Closing(id))?.map_err(|error| error.into_read(id))?;
        Ok(task)
    }

    /// Evicts what must go and at least `room` where that is given, never what is in use; closes what
    /// was evicted.
    pub async fn evict(&self, room: Option<ByteSize>) -> Result<GcReport, ReadError> {
        let engine = self.clone();
        let swept = self.inner.tracker.spawn_blocking(move || {
            let report = match room {
                Some(room) => engine.inner.store.make_room(engine.inner.store.now(), room),
                None => engine.inner.store.gc(engine.inner.store.now()),
            }?;
            // Here: whoever waits may go away, and what was taken away must not stay open.
            for id in &report.evicted {
                engine.close_gone(id);
            }
            Ok(report)
        });
        swept.await.unwrap_or_else(|_| Ok(GcReport::default()))
    }

    /// Takes one task away, as [`Store::remove`], and closes it.
    pub async fn remove(&self, id: TaskId, pins: Pins) -> Result<Option<u64>, StoreError> {
        let engine = self.clone();
        let removed = self.inner.tracker.spawn_blocking(move || {
            let freed = engine.inner.store.remove(id, pins)?;
            if freed.is_some() {
                engine.close_gone(&id);
            }
            Ok(freed)
        });
        removed.await.unwrap_or(Ok(None))
    }

    /// Closes a task that was taken away from the store.
    fn close_gone(&self, id: &TaskId) {
        let forget = || self.inner.keyring.forget_stand_ins(id);
        let mailbox = match self.inner.tasks.close_gone(id, forget) {
            Closed::Now(mailbox) => {
                self.inner.catalog.forget(id);
                mailbox
            }
            Closed::OpenedAnew(mailbox) => mailbox,
        };
        self.inner.taken_away.notify_one();
        if let Some(swarm) = &self.inner.swarm {
            swarm.leave(*id, mailbox.as_ref());
        }
    }

    /// Closes the tasks that nobody here or elsewhere has used for `after`, as of `now`; what they hold is
    /// still known to the scheduler. To be called every so often; says which.
    pub async fn close_idle(&self, now: Instant, after: Duration) -> Vec<TaskId> {
        let forget = |id: &TaskId| self.inner.keyring.forget_stand_ins(id);
        let closed = self.inner.tasks.close_idle(now, after, forget);
        let ids = closed.iter().map(|shared| shared.info.id).collect();
        let Some(swarm) = &self.inner.swarm else { return ids };
        for shared in closed {
            let (store, swarm) = (Arc::clone(&self.inner.store), swarm.clone());
            let rest = move || {
                let id = shared.info.id;
                let provable = store.glance(id, 0).map(|glance| glance.provable);
                swarm.rest(id, &provable.unwrap_or_default(), &shared.commands);
            };
            // The engine is stopping when this does not end.
            let _ = tokio::task::spawn_blocking(rest).await;
        }
        ids
    }

    /// Waits until a task cannot be opened because too many files are: whoever holds tasks that it can do without
    /// lets go of them.
    pub async fn out_of_files(&self) {
        self.inner.out_of_files.notified().await;
    }

    /// Waits until a task was taken away: what it took stays taken as long as anybody holds on to it.
    pub async fn taken_away(&self) {
        self.inner.taken_away.notified().await;
    }

    async fn begin(&self, info: TaskInfo, recipe: Option<Recipe>) -> Result<Running, OpenError> {
        let engine = self.clone();
        let stored = self.inner.tracker.spawn_blocking(move || {
            let (stored, recorded) = engine.store_of(&info, recipe)?;
            Ok((stored, recorded, info))
        });
        let (stored, recorded, info) = stored.await.map_err(|_| OpenError::Closing)??;
        let length = info.length.or(stored.length());
        let (commands, mailbox) = mpsc::channel(256);
        let shared = Arc::new(Shared {
            stored,
            origin: Mutex::default(),
            listed: OnceLock::new(),
            earlier: OnceLock::new(),
            credentials: Mutex::default(),
            proving: Semaphore::new(1),
            commands,
            batches: KnownBatches::default(),
            provenance: Provenance::default(),
            voids: voids::Voids::default(),
            passing: Passing::default(),
            room: Arc::clone(&self.inner.room),
            busy: AtomicBool::new(false),
            wanted: watch::Sender::default(),
            reported: AtomicU64::default(),
            recorded: AtomicBool::new(recorded),
            stands_in: AtomicBool::new(false),
            is_reserve: AtomicBool::new(false),
            leads: AtomicBool::new(false),
            source_slots: Arc::clone(&self.inner.source_slots),
            turns: Arc::clone(&self.inner.turns),
            settling: Arc::clone(&self.inner.settling),
            gained: broadcast::channel(256).0,
            length: watch::Sender::new(length),
            waiting_for: Mutex::new(None),
            parents: Mutex::default(),
            info,
        });
        let stop = self.inner.stop.child_token();
        let (actor, events) = self.actor(&shared, stop.clone());
        self.inner.tracker.spawn(actor.run(mailbox, events));
        Ok(Running::new(shared, stop))
    }

    /// A task in the store, with what is known of it, and whether the recipe is kept. Blocks.
    fn store_of(
        &self,
        info: &TaskInfo,
        recipe: Option<Recipe>,
    ) -> Result<(StoredTask, bool), OpenError> {
        let failed = Self::store_failed(info.id);
        let stored = self.inner.store.create(info.id).map_err(&failed)?;
        if let Some(length) = info.length
            && stored.length().is_none()
        {
            stored.set_length(length).map_err(&failed)?;
        }
        if info.key.kind == TaskKind::Index {
            stored.use_reserve();
        }
        if self.inner.catalog.info(&info.id, None).is_none() || !stored.has_record() {
            let recorded = recipe.is_some();
            write_record(&stored, info, recipe)?;
            return Ok((stored, recorded));
        }
        Ok((stored, false))
    }

    fn store_failed(id: TaskId) -> impl Fn(crate::store::StoreError) -> OpenError {
        move |source| OpenError::Store { id, source: Arc::new(source) }
    }

    fn actor(
        &self,
        shared: &Arc<Shared>,
        stop: CancellationToken,
    ) -> (Actor, mpsc::Receiver<flight::FlightEvent>) {
        let spread = spread_of(self.inner.identity.host());
        let have = shared.stored.have();
        let (length, piece_level) = (*shared.length.borrow(), shared.info.piece_level);
        let conductor =
            Conductor::new(length, piece_level, have, spread).with_limits(self.inner.limits);
        Actor::new(Arc::clone(&self.inner), Arc::clone(shared), conductor, stop)
    }

    /// Gives an open task what it lacked.
    async fn equip(
        &self,
        task: &Task,
        recipe: Option<Recipe>,
        origin: Option<Arc<dyn Origin>>,
    ) -> Result<(), OpenError> {
        let Some(origin) = origin else { return Ok(()) };
        task.shared.earlier.get().cloned().into_iter().for_each(|known| origin.take_from(known));
        let source = access(Some(origin.as_ref()));
        origin.count_in(&task.shared.provenance.requests);
        *task.shared.origin.lock() = Some(origin);
        if self.inner.reads_origin_of(task.info()) {
            // The actor is gone only when the task closes.
            let _ = task.shared.commands.send(Command::Source(source)).await;
        }
        if recipe.is_none() || task.shared.recorded.load(Ordering::Relaxed) {
            return Ok(());
        }
        let shared = Arc::clone(&task.shared);
        let write = move || {
            write_record(&shared.stored, &shared.info, recipe)?;
            // Not before: what failed is tried again by the next one.
            shared.recorded.store(true, Ordering::Relaxed);
            Ok(())
        };
        let written = self.inner.tracker.spawn_blocking(write).await;
        written.map_err(|_| OpenError::Closing)?
    }
}

/// At the end: waits for everything that writes into the store, and makes durable what is to last, as far as
/// there is time.
async fn end_work(work: TaskTracker, lasting: Option<Arc<Store>>, stop: CancellationToken) {
    stop.cancelled().await;
    let until = tokio::time::Instant::now() + END_WITHIN;
    work.close();
    let for_work = if lasting.is_some() { WORK_WITHIN } else { END_WITHIN };
    // What still goes on takes the mark away from what it touches.
    let _ = tokio::time::timeout(for_work, work.wait()).await;
    let Some(store) = lasting else { return };
    let in_time = move || tokio::time::Instant::now() < until;
    let closing = tokio::task::spawn_blocking(move || {
        let closed = match store.medium() {
            // It ends with the machine at the latest.
            Medium::Memory(_) => Ok(CloseReport::default()),
            Medium::Disk | Medium::Layered(_) => store.close(in_time),
        };
        if let Err(error) = store.give_memory_back() {
            tracing::warn!(%error, "the memory of the cache is not given back");
        }
        closed
    });
    match tokio::time::timeout_at(until, closing).await {
        Ok(Ok(Ok(CloseReport { unmarked: 0, .. }))) => {}
        Ok(Ok(Ok(CloseReport { unmarked, bytes }))) => {
            let bytes = ByteSize(bytes);
            tracing::info!(unmarked, %bytes, "no time to mark all tasks durable: they are verified after a reboot");
        }
        Ok(Ok(Err(error))) => {
            tracing::warn!(%error, "the cache is not durable: it is verified again after a reboot");
        }
        // It was dropped before it began, or the disk holds on to one task: the rest is left as it is.
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(
                "the disk is too slow to mark the cache durable: it is verified after a reboot"
            );
        }
    }
}

/// Keeps beside a task what a later process needs to open it.
fn write_record(
    stored: &StoredTask,
    info: &TaskInfo,
    recipe: Option<Recipe>,
) -> Result<(), OpenError> {
    let record = TaskRecord {
        key: info.key.clone(),
        place: info.place.clone(),
        piece_level: info.piece_level,
        ranges: info.ranges,
        recipe,
    };
    stored.write_record(&record).map_err(Engine::store_failed(info.id))
}

fn access(origin: Option<&dyn Origin>) -> SourceAccess {
    match origin {
        Some(origin) if origin.ranges() => SourceAccess::Ranges,
        Some(_) => SourceAccess::Sequential,
        None => SourceAccess::Forbidden,
    }
}
