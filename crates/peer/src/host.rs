//! A host: store, identity, engine and piece server put together, the same way for a seed, a node agent
//! and a one-shot client. The processes bring the network ([`Dialer`], [`Acceptor`], [`Channels`]).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dfs_artifact::image::attached::IndexTrust;
use dfs_model::{ByteSize, HostInfo, HostKind, Location, Rate};
use dfs_source::{SourceError, SourcesBuilder};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::conductor::Limits;
use crate::dial::{Acceptor, Dialer};
use crate::digests::{Identity, IdentityError};
use crate::engine::{Engine, EngineParts, Keyring, Lifetime, Role};
use crate::limits::{RateLimiter, SlotLimits, UploadSlots};
use crate::store::{Lent, Medium, MediumError, Store, StoreError, StoreOptions};
use crate::swarm::{Channels, KeptList, ManagerPlace, SwarmOptions};
use crate::wire::{
    Compression, LocalHost, PieceServer, Pool, PoolOptions, ServerOptions, WireCounters,
};

/// How often the store is looked at for eviction.
const HOUSEKEEPING: Duration = Duration::from_secs(5);

/// How long a task stays open that nobody uses.
const IDLE: Duration = Duration::from_secs(300);

/// Children that take turns at one upload slot: a child holds a slot for a segment, and stays for hours.
const CHILDREN_PER_SLOT: usize = 16;

/// How a host is set up.
pub struct HostOptions {
    /// What it is to the swarm.
    pub role: Role,
    /// Where it keeps everything; private to this process.
    pub data_dir: PathBuf,
    /// Name for people.
    pub name: String,
    /// Where it stands.
    pub location: Location,
    /// Where its cache lies.
    pub medium: Medium,
    /// Disk that the cache may take; what the file system has when `None`.
    pub capacity: Option<ByteSize>,
    /// Bytes in a second that it uploads at most.
    pub upload_rate: Option<Rate>,
    /// Uploads at a time.
    pub slots: SlotLimits,
    /// How long a node waits for a swarm that does not deliver before it reads the origin itself.
    pub patience: Duration,
    /// Where the managers' gRPC is; none is solo.
    pub managers: Vec<Arc<dyn ManagerPlace>>,
    /// How origins are read.
    pub sources: SourcesBuilder,
    /// How long what it keeps is to last.
    pub lifetime: Lifetime,
    /// Whether pieces travel compressed where that pays, to it and from it.
    pub compression: Compression,
    /// Which indexes are believed that somebody attached to an image.
    pub index_trust: IndexTrust,
    /// Content files that it must not open anew.
    pub lent: Lent,
}

/// How a host reaches others, and is reached.
pub struct Network {
    /// Makes links.
    pub dialer: Arc<dyn Dialer>,
    /// Takes links; a host without one serves nobody.
    pub acceptor: Option<Arc<dyn Acceptor>>,
    /// Makes gRPC channels.
    pub channels: Arc<dyn Channels>,
    /// Addresses to announce instead of those the acceptor listens at.
    pub advertise: Vec<SocketAddr>,
    /// Where others come to that this host leads; none where it leads nobody.
    pub leads_at: Vec<SocketAddr>,
}

/// A host that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Where its store is to lie.
    #[error(transparent)]
    Medium(#[from] MediumError),
    /// Its sources.
    #[error(transparent)]
    Sources(#[from] SourceError),
}

/// A running host.
#[derive(Clone)]
pub struct Host {
    /// Its piece engine.
    pub engine: Engine,
    /// Itself, as it announces itself.
    pub info: HostInfo,
    /// What its piece server counts.
    pub served: Arc<WireCounters>,
    /// What its connections to parents count.
    pub taken: Arc<WireCounters>,
}

impl Host {
    /// Opens the store and starts everything on `tracker`, until `stop`.
    pub fn start(
        options: HostOptions,
        network: Network,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, HostError> {
        let identity = Identity::load_or_create(&options.data_dir)?;
        let store_options = StoreOptions {
            medium: options.medium,
            capacity: options.capacity,
            lent: options.lent.clone(),
            ..StoreOptions::default()
        };
        let store = Store::open(&options.data_dir, store_options)?;
        let sources = options.sources.clone().build()?;
        let info = describe(&options, &identity, &network);
        let me = LocalHost { host: info.id, name: info.name.clone(), capabilities: 0 };
        let pool =
            Pool::new(Arc::clone(&network.dialer), me.clone(), pool_options(), tracker, stop);
        let taken = Arc::clone(pool.counters());
        let keyring = Arc::new(Keyring::default());
        let lasts = options.lifetime == Lifetime::Lasting;
        let swarm = (!options.managers.is_empty()).then(|| SwarmOptions {
            managers: options.managers.clone(),
            host: info.clone(),
            channels: Arc::clone(&network.channels),
            keyring: Arc::clone(&keyring),
            // A seed may list for long: longer than the scheduler waits for it is enough.
            call_timeout: Duration::from_secs(150),
            kept: lasts.then(|| KeptList::in_dir(&options.data_dir)),
            leads_at: network.leads_at.clone(),
        });
        let parts = EngineParts {
            role: options.role,
            store,
            identity,
            keyring,
            pool: Some(pool),
            swarm,
            sources,
            patience: options.patience,
            limits: Limits::default(),
            source_requests: 16,
            lifetime: options.lifetime,
            compression: options.compression,
            index_trust: options.index_trust.clone(),
        };
        let engine = Engine::start(parts, tracker, stop.clone());
        let served = serve(&options, &network, me, &engine, tracker, stop);
        tracker.spawn(keep_house(engine.clone(), stop.clone()));
        tracker.spawn(relieve_memory(engine.clone(), stop.clone()));
        Ok(Self { engine, info, served, taken })
    }
}

/// A parent that comes back after a restart is found again within seconds.
fn pool_options() -> PoolOptions {
    PoolOptions {
        backoff: Duration::from_millis(200),
        backoff_limit: Duration::from_secs(3),
        ..PoolOptions::default()
    }
}

fn describe(options: &HostOptions, identity: &Identity, network: &Network) -> HostInfo {
    let kind = if options.role == Role::Seed { HostKind::Seed } else { HostKind::Node };
    let listening = || network.acceptor.as_ref().map(|acceptor| acceptor.local_addrs());
    let addresses = match network.advertise.is_empty() {
        true => listening().unwrap_or_default(),
        false => network.advertise.clone(),
    };
    HostInfo {
        id: identity.host(),
        kind,
        name: options.name.clone(),
        location: options.location.clone(),
        addresses,
        public_key: identity.public_key(),
        upload_slots: u32::try_from(options.slots.slots.saturating_mul(CHILDREN_PER_SLOT))
            .unwrap_or(u32::MAX),
    }
}

fn serve(
    options: &HostOptions,
    network: &Network,
    me: LocalHost,
    engine: &Engine,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> Arc<WireCounters> {
    let server = PieceServer::new(
        Arc::new(engine.clone()),
        me,
        ServerOptions { compression: options.compression, ..ServerOptions::default() },
        UploadSlots::new(options.slots),
        Arc::new(RateLimiter::new(options.upload_rate)),
    );
    let counters = Arc::clone(server.counters());
    if let Some(acceptor) = network.acceptor.clone() {
        let stop = stop.clone();
        tracker.spawn(async move { server.serve(acceptor, stop).await });
    }
    counters
}

/// Puts on disk what lies in memory over it, as that is needed.
async fn relieve_memory(engine: Engine, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = engine.store().pressed() => {}
        }
        let store = Arc::clone(engine.store());
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || store.relieve()).await {
            tracing::warn!(%error, "what lies in memory cannot be put on disk");
            tokio::time::sleep(HOUSEKEEPING).await;
        }
    }
}

/// Evicts when the store is above its mark, closes what nobody uses.
async fn keep_house(engine: Engine, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(HOUSEKEEPING) => {}
        }
        if let Err(error) = engine.evict(None).await {
            tracing::warn!(%error, "eviction failed");
        }
        engine.close_idle(Instant::now(), IDLE).await;
    }
}
