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
mod error;
mod flight;
mod keep;
mod ledger;
mod serve;
mod task;
#[cfg(test)]
mod tests;
mod voids;
mod watcher;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dfs_artifact::{Origin, Recipe};
use dfs_model::TaskInfo;
use dfs_model::{ByteSize, GROUP_BYTES, TaskId, TaskKey};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::actor::Actor;
use self::catalog::Catalog;
use self::ledger::Provenance;
use self::task::Shared;
use crate::conductor::{Conductor, Limits, SourceAccess};
use crate::digests::Identity;
use crate::store::{GcReport, Store, StoredTask};
use crate::swarm::{Swarm, SwarmOptions};
use crate::wire::Pool;

pub use self::error::ReadError;
pub use self::keep::Keyring;
pub use self::ledger::{CameFrom, Ledger, Mark, ParentBytes};
pub(crate) use self::task::Command;
pub use self::task::{ParentHost, Task};

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
    /// Requests to origins at a time, over all tasks.
    pub source_requests: usize,
}

/// Kept beside a task, to open it again in a later process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Its identity.
    pub key: TaskKey,
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
    sources: dfs_source::Sources,
    patience: Duration,
    limits: Limits,
    source_slots: Arc<Semaphore>,
    tasks: Mutex<HashMap<TaskId, (Task, CancellationToken)>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Inner {
    /// Who signs what this host reads from the origin of a task: a seed, and a stand-in.
    fn signer_of(&self, task: &Shared) -> Option<Arc<Identity>> {
        let signs = self.role == Role::Seed || task.stands_in.load(Ordering::Relaxed);
        signs.then(|| Arc::clone(&self.identity))
    }

    /// Whether the origin is this host's to read without being told. Files are their own host's.
    fn reads_origin_of(&self, task: &TaskInfo) -> bool {
        !self.role.relies_on_swarm() || task.key.url.url().scheme() == "file"
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
    /// Starts an engine whose work is done on `tracker` and ends with `stop`.
    pub fn start(parts: EngineParts, tracker: TaskTracker, stop: CancellationToken) -> Self {
        let store = Arc::new(parts.store);
        let catalog = Arc::new(Catalog::new(Arc::clone(&store)));
        let held = Arc::clone(&catalog);
        let swarm = parts.swarm.map(|options| Swarm::start(options, held, &tracker, stop.clone()));
        parts.keyring.learn([(parts.identity.host(), parts.identity.public_key())]);
        let inner = Inner {
            role: parts.role,
            store,
            catalog,
            identity: Arc::new(parts.identity),
            keyring: parts.keyring,
            pool: parts.pool,
            swarm,
            sources: parts.sources,
            patience: parts.patience,
            limits: parts.limits,
            source_slots: Arc::new(Semaphore::new(parts.source_requests)),
            tasks: Mutex::default(),
            tracker,
            stop,
        };
        Self { inner: Arc::new(inner) }
    }

    /// What this host is.
    pub fn role(&self) -> Role {
        self.inner.role
    }

    /// Who this host is.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// What is kept.
    pub fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    /// The schedulers, unless solo.
    pub fn swarm(&self) -> Option<&Swarm> {
        self.inner.swarm.as_ref()
    }

    /// Reads origins.
    pub fn sources(&self) -> &dfs_source::Sources {
        &self.inner.sources
    }

    /// Opens a task, or gives the handle there is. `origin` is how this host would read it by itself,
    /// `recipe` what is kept so that a later process can.
    pub fn open(
        &self,
        info: &TaskInfo,
        recipe: Option<Recipe>,
        origin: Option<Arc<dyn Origin>>,
    ) -> Result<Task, OpenError> {
        if self.inner.stop.is_cancelled() {
            return Err(OpenError::Closing);
        }
        let mut tasks = self.inner.tasks.lock();
        match tasks.entry(info.id) {
            Entry::Occupied(known) => {
                let task = known.get().0.clone();
                self.equip(&task, recipe, origin)?;
                Ok(task)
            }
            Entry::Vacant(place) => {
                let (task, stop) = self.begin(info.clone(), recipe, origin)?;
                place.insert((task.clone(), stop));
                Ok(task)
            }
        }
    }

    /// A task that is open, or kept in the store from an earlier time.
    pub fn held(&self, id: &TaskId) -> Option<Task> {
        if let Some((task, _)) = self.inner.tasks.lock().get(id) {
            return Some(task.clone());
        }
        let (info, _) = self.kept(id)?;
        let origin = self.recipe(id).and_then(|recipe| {
            let credentials = dfs_source::Credentials::default();
            dfs_artifact::open_origin(&recipe, &self.inner.sources, credentials).ok()
        });
        self.open(&info, None, origin).ok()
    }

    /// What a task is and what is here of it, without opening it; the handle where it is open.
    pub fn peek(&self, id: &TaskId) -> Option<(TaskInfo, StoredTask, Option<Task>)> {
        if let Some((task, _)) = self.inner.tasks.lock().get(id) {
            let info = TaskInfo { length: task.length(), ..task.info().clone() };
            return Some((info, task.stored().clone(), Some(task.clone())));
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

    /// The tasks that are open now.
    pub fn opened(&self) -> Vec<Task> {
        self.inner.tasks.lock().values().map(|(task, _)| task.clone()).collect()
    }

    /// Keeps a whole content that this host made itself, such as an index.
    pub async fn import(&self, info: &TaskInfo, content: Bytes) -> Result<Task, ReadError> {
        let task = self.open(info, None, None).map_err(|error| match error {
            OpenError::Store { source, .. } => ReadError::Store(source),
            OpenError::Closing => ReadError::Closing(info.id),
        })?;
        let shared = Arc::clone(&task.shared);
        let signer = self.inner.signer_of(&shared);
        let id = info.id;
        let work = move || -> Result<(), keep::KeepError> {
            let shape = shared.shape();
            for (at, part) in content.chunks(16 * GROUP_BYTES as usize).enumerate() {
                keep::own(&shared, signer.as_deref(), shape, at as u64 * 16, part)?;
            }
            Ok(())
        };
        let kept = tokio::task::spawn_blocking(work).await;
        kept.map_err(|_| ReadError::Closing(id))?.map_err(|error| error.into_read(id))?;
        Ok(task)
    }

    /// Evicts what must go and at least `room` where that is given, never what is in use; closes what
    /// was evicted.
    pub async fn evict(&self, room: Option<ByteSize>) -> Result<GcReport, ReadError> {
        let store = Arc::clone(&self.inner.store);
        let swept = tokio::task::spawn_blocking(move || match room {
            Some(room) => store.make_room(SystemTime::now(), room),
            None => store.gc(SystemTime::now()),
        });
        let report = match swept.await {
            Ok(report) => report?,
            Err(_) => return Ok(GcReport::default()),
        };
        report.evicted.iter().for_each(|id| {
            self.inner.catalog.forget(id);
            self.close(id);
        });
        Ok(report)
    }

    fn close(&self, id: &TaskId) {
        if let Some((_, stop)) = self.inner.tasks.lock().remove(id) {
            stop.cancel();
        }
        self.inner.keyring.forget_stand_ins(id);
        if let Some(swarm) = &self.inner.swarm {
            swarm.leave(*id);
        }
    }

    fn store_failed(id: TaskId) -> impl Fn(crate::store::StoreError) -> OpenError {
        move |source| OpenError::Store { id, source: Arc::new(source) }
    }

    fn begin(
        &self,
        info: TaskInfo,
        recipe: Option<Recipe>,
        origin: Option<Arc<dyn Origin>>,
    ) -> Result<(Task, CancellationToken), OpenError> {
        let failed = Self::store_failed(info.id);
        let stored = self.inner.store.create(info.id).map_err(&failed)?;
        if let Some(length) = info.length
            && stored.length().is_none()
        {
            stored.set_length(length).map_err(&failed)?;
        }
        let length = info.length.or(stored.length());
        let (commands, mailbox) = mpsc::channel(256);
        let shared = Arc::new(Shared {
            stored,
            origin: Mutex::new(origin),
            commands,
            provenance: Provenance::default(),
            voids: voids::Voids::default(),
            stands_in: AtomicBool::new(false),
            source_slots: Arc::clone(&self.inner.source_slots),
            gained: broadcast::channel(256).0,
            length: watch::Sender::new(length),
            waiting_for: Mutex::new(None),
            parents: Mutex::default(),
            info,
        });
        let task = Task { shared };
        self.keep_record(&task, recipe)?;
        let stop = self.inner.stop.child_token();
        let actor = self.actor(&task, stop.clone());
        let (actor, events) = actor;
        self.inner.tracker.spawn(actor.run(mailbox, events));
        Ok((task, stop))
    }

    fn actor(
        &self,
        task: &Task,
        stop: CancellationToken,
    ) -> (Actor, mpsc::Receiver<flight::FlightEvent>) {
        let shared = Arc::clone(&task.shared);
        let spread = u64::from_le_bytes(
            self.inner.identity.host().as_bytes()[..8].try_into().unwrap_or_default(),
        );
        let have = shared.stored.have();
        let mut conductor = Conductor::new(task.length(), task.info().piece_level, have, spread)
            .with_limits(self.inner.limits);
        if self.inner.reads_origin_of(&shared.info) {
            conductor.set_source(access(shared.origin.lock().as_deref()));
        }
        Actor::new(Arc::clone(&self.inner), shared, conductor, stop)
    }

    /// Gives an open task what it lacked.
    fn equip(
        &self,
        task: &Task,
        recipe: Option<Recipe>,
        origin: Option<Arc<dyn Origin>>,
    ) -> Result<(), OpenError> {
        let Some(origin) = origin else { return Ok(()) };
        let source = access(Some(origin.as_ref()));
        *task.shared.origin.lock() = Some(origin);
        if self.inner.reads_origin_of(task.info()) {
            // A full mailbox: the next want finds the origin all the same.
            let _ = task.shared.commands.try_send(Command::Source(source));
        }
        self.keep_record(task, recipe)
    }

    fn keep_record(&self, task: &Task, recipe: Option<Recipe>) -> Result<(), OpenError> {
        let id = task.id();
        if recipe.is_none() && self.inner.catalog.info(&id, None).is_some() {
            return Ok(());
        }
        let info = task.info();
        let record = TaskRecord {
            key: info.key.clone(),
            piece_level: info.piece_level,
            ranges: info.ranges,
            recipe,
        };
        task.shared.stored.write_record(&record).map_err(Self::store_failed(id))
    }
}

fn access(origin: Option<&dyn Origin>) -> SourceAccess {
    match origin {
        Some(origin) if origin.ranges() => SourceAccess::Ranges,
        Some(_) => SourceAccess::Sequential,
        None => SourceAccess::Forbidden,
    }
}
