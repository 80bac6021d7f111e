mod areas;
pub(super) mod copies;
mod delegates;
mod full;
mod holes;
mod life;
mod private;
mod reserves;
mod stand_ins;
mod turns;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use dfs_artifact::origin::{Part, PartStream, RequestCount, Requests};
use dfs_model::{
    ByteRange, CanonicalUrl, GROUP_BYTES, GroupRange, HostInfo, HostKind, Location, Priority,
    TaskKind,
};
use dfs_model::{Transform, Validator};
use dfs_proto::common;
use dfs_source::{Action, Attempt, ByteStream, SourceError, Sources};
use futures::stream;
use futures::{StreamExt, TryStreamExt};
use tempfile::TempDir;

use super::*;
use crate::dial::memory::MemoryNetwork;
use crate::limits::{RateLimiter, SlotLimits, UploadSlots};
use crate::store::{StoreError, StoreOptions, Use};
use crate::wire::{
    Codec, HaveStream, LocalHost, PeerIdentity, PieceRequest, PieceServer, PoolOptions, Provider,
    Ready, Refusal, Segment, SegmentStream, ServerOptions, WatchRequest,
};

pub(super) const GROUP: u64 = GROUP_BYTES;

/// Of hosts that have nobody to wait for.
const SHORT_PATIENCE: Duration = Duration::from_millis(500);

/// Of hosts whose parents deliver in the end, however busy the machine is.
const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// An origin in memory that counts what leaves it.
pub(super) struct FakeOrigin {
    pub(super) content: Bytes,
    announces_length: bool,
    has_ranges: bool,
    /// Of what has members: where they are gone.
    holes: Option<Vec<ByteRange>>,
    /// Why they are.
    hole: fn(ByteRange) -> SourceError,
    sent: AtomicU64,
    pub(super) requests: AtomicU64,
    counted: Requests,
}

impl FakeOrigin {
    pub(super) fn new(length: u64) -> Self {
        let mut content = vec![0; length as usize];
        blake3::Hasher::new().update(&length.to_le_bytes()).finalize_xof().fill(&mut content);
        Self {
            content: content.into(),
            announces_length: true,
            has_ranges: true,
            holes: None,
            hole: changed,
            sent: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            counted: Requests::default(),
        }
    }

    pub(super) fn info(&self) -> TaskInfo {
        let length = self.announces_length.then_some(self.content.len() as u64);
        let key = TaskKey {
            domain: TaskKey::PUBLIC.into(),
            kind: TaskKind::Blob,
            url: CanonicalUrl::parse("http://origin.test/x").unwrap(),
            headers: Vec::new(),
            validator: Validator { etag: Some("\"1\"".into()), ..Validator::default() },
            transform: Transform::Identity,
        };
        TaskInfo::new(key, length, self.has_ranges)
    }
}

#[async_trait]
impl Origin for FakeOrigin {
    fn length(&self) -> Option<u64> {
        self.announces_length.then_some(self.content.len() as u64)
    }

    fn ranges(&self) -> bool {
        self.has_ranges
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        let all = ByteRange::new(0, self.content.len() as u64);
        let range = range.unwrap_or(all);
        assert!(range.end <= all.end && (self.has_ranges || range == all), "{range}");
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.counted.made();
        self.sent.fetch_add(range.len(), Ordering::Relaxed);
        let holes = self.holes.iter().flatten();
        if let Some(hole) = holes.map(|hole| hole.intersection(range)).find(|hole| !hole.is_empty())
        {
            return Err((self.hole)(hole));
        }
        Ok(self.stream(range))
    }

    fn has_members(&self) -> bool {
        self.holes.is_some()
    }

    fn count_in(&self, count: &RequestCount) {
        self.counted.count_in(count);
    }

    async fn read_parts(&self, range: ByteRange) -> Result<PartStream, SourceError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.counted.made();
        let mut parts: Vec<PartStream> = Vec::new();
        let mut at = range.start;
        let holes = self.holes.iter().flatten().map(|hole| hole.intersection(range));
        for hole in holes.filter(|hole| !hole.is_empty()) {
            parts.push(self.stream(ByteRange::new(at, hole.start)).map_ok(Part::Bytes).boxed());
            let void = Part::Void { length: hole.len(), error: (self.hole)(hole) };
            parts.push(stream::iter([Ok(void)]).boxed());
            at = hole.end;
        }
        parts.push(self.stream(ByteRange::new(at, range.end)).map_ok(Part::Bytes).boxed());
        self.sent.fetch_add(range.len(), Ordering::Relaxed);
        Ok(stream::iter(parts).flatten().boxed())
    }
}

fn changed(hole: ByteRange) -> SourceError {
    let url = CanonicalUrl::parse("http://origin.test/x").unwrap();
    let attempt = Attempt::new(Action::Read(Some(hole)), &url);
    SourceError::Changed { attempt, detail: "it has another ETag".to_owned() }
}

fn forbidden(hole: ByteRange) -> SourceError {
    let url = CanonicalUrl::parse("http://origin.test/x").unwrap();
    let attempt = Attempt::new(Action::Read(Some(hole)), &url);
    SourceError::NotPermitted { attempt, status: Some(403), reason: None }
}

impl FakeOrigin {
    fn stream(&self, range: ByteRange) -> ByteStream {
        let content = self.content.slice(range.start as usize..range.end as usize);
        // Odd sizes: chunks and groups must not depend on how bytes come.
        let parts: Vec<_> =
            content.chunks(50_001).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        stream::iter(parts).boxed()
    }
}

/// Hosts that reach each other through memory.
pub(super) struct Field {
    network: MemoryNetwork,
    /// What its engines find behind URLs.
    sources: Sources,
    tracker: TaskTracker,
    stop: CancellationToken,
}

pub(super) struct Member {
    pub(super) engine: Engine,
    pub(super) info: HostInfo,
    _dir: TempDir,
}

impl Field {
    pub(super) fn new() -> Self {
        Self::with(Sources::builder().build().unwrap())
    }

    fn with(sources: Sources) -> Self {
        Self {
            network: MemoryNetwork::default(),
            sources,
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn engine(&self, role: Role, trusted: &[&Member]) -> (Engine, TempDir) {
        self.engine_for(Lifetime::Lasting, role, trusted)
    }

    fn engine_for(&self, lifetime: Lifetime, role: Role, trusted: &[&Member]) -> (Engine, TempDir) {
        self.engine_with(StoreOptions::default(), lifetime, role, trusted)
    }

    fn engine_with(
        &self,
        options: StoreOptions,
        lifetime: Lifetime,
        role: Role,
        trusted: &[&Member],
    ) -> (Engine, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(dir.path()).unwrap();
        let keyring = Arc::new(Keyring::default());
        keyring.learn(trusted.iter().map(|seed| (seed.info.id, seed.info.public_key)));
        let me = LocalHost { host: identity.host(), name: "test".into(), capabilities: 0 };
        let dialer = Arc::new(self.network.clone());
        let pool = Pool::new(dialer, me, PoolOptions::default(), &self.tracker, &self.stop);
        let parts = EngineParts {
            role,
            store: Store::open(dir.path(), options).unwrap(),
            identity,
            keyring,
            pool: Some(pool),
            swarm: None,
            sources: self.sources.clone(),
            // Nobody falls back on an origin unless a test gives it nothing else.
            patience: if trusted.is_empty() { SHORT_PATIENCE } else { LONG_PATIENCE },
            limits: Limits::default(),
            source_requests: 16,
            lifetime,
            compression: crate::wire::Compression::Auto,
            index_trust: Default::default(),
        };
        (Engine::start(parts, &self.tracker, self.stop.clone()), dir)
    }

    /// A host that serves what `provider` makes of its engine.
    fn member(
        &self,
        role: Role,
        number: u8,
        trusted: &[&Member],
        provider: impl FnOnce(Engine) -> Arc<dyn Provider>,
    ) -> Member {
        self.member_on(self.engine(role, trusted), role, number, provider)
    }

    fn member_on(
        &self,
        (engine, dir): (Engine, TempDir),
        role: Role,
        number: u8,
        provider: impl FnOnce(Engine) -> Arc<dyn Provider>,
    ) -> Member {
        let address = SocketAddr::from(([10, 0, 0, number], 1));
        self.serve(&engine, provider(engine.clone()), address);
        let info = HostInfo {
            id: engine.identity().host(),
            kind: if role == Role::Seed { HostKind::Seed } else { HostKind::Node },
            name: format!("host{number}"),
            location: Location::default(),
            addresses: vec![address],
            public_key: engine.identity().public_key(),
            upload_slots: 4,
        };
        Member { engine, info, _dir: dir }
    }

    /// Serves at an address what `provider` gives.
    fn serve(&self, engine: &Engine, provider: Arc<dyn Provider>, address: SocketAddr) {
        let me = LocalHost { host: engine.identity().host(), name: "test".into(), capabilities: 0 };
        let server = PieceServer::new(
            provider,
            me,
            ServerOptions::default(),
            UploadSlots::new(SlotLimits::default()),
            Arc::new(RateLimiter::new(None)),
        );
        let acceptor = Arc::new(self.network.listen(address));
        let stop = self.stop.clone();
        self.tracker.spawn(async move { server.serve(acceptor, stop).await });
    }

    pub(super) fn honest(&self, role: Role, number: u8, trusted: &[&Member]) -> Member {
        self.member(role, number, trusted, |engine| Arc::new(engine))
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn give_parents(task: &Task, parents: &[&Member]) {
    let hosts = parents
        .iter()
        .map(|member| ParentHost {
            host: member.info.clone(),
            grant: Bytes::new(),
            fetches: member.info.kind == dfs_model::HostKind::Seed,
        })
        .collect();
    task.shared.commands.send(Command::Parents { parents: hosts, led: false }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_content_that_comes_with_the_answer_is_kept_where_it_is_proven() {
    let (field, origin) = (Field::new(), Arc::new(FakeOrigin::new(3_000)));
    let seed = field.honest(Role::Seed, 1, &[]);
    let seeded = seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let content = read_all(&seeded).await;
    let digests = seeded.stored().signed_for(GroupRange::new(0, 1));
    let digests = digests.iter().map(|signed| signed.encode().into());
    let digests = digests.map(|encoded| common::SignedDigests { encoded }).collect();
    let whole = common::Whole { content: content.clone(), digests };
    let other = Bytes::from(vec![1; 3_000]);
    let lies = [
        common::Whole { content: other, ..whole.clone() },
        common::Whole { content: content.slice(1..), ..whole.clone() },
        common::Whole { digests: Vec::new(), ..whole.clone() },
    ];
    let (engine, _dir) = field.engine(Role::Node, &[&seed]);
    let task = engine.open(&origin.info(), None, None).await.unwrap();
    for lie in lies {
        task.take(lie).await;
        assert!(!task.is_complete());
    }
    task.take(whole).await;
    assert!(task.is_complete());
    assert_eq!(read_all(&task).await, content);
    assert_eq!(task.ledger().parent_bytes(None), 3_000);
}

pub(super) async fn read_all(task: &Task) -> Bytes {
    crate::opener::read_whole(task, u64::MAX).await.unwrap()
}

fn lengths() -> [u64; 7] {
    [0, 1, GROUP - 1, GROUP, GROUP + 1, 17 * GROUP, 100 * GROUP + 77]
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_every_length_reads_back_and_leaves_the_origin_once() {
    for length in lengths() {
        let field = Field::new();
        let (engine, _dir) = field.engine(Role::Solo, &[]);
        let origin = Arc::new(FakeOrigin::new(length));
        let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
        assert_eq!(read_all(&task).await, origin.content, "{length}");
        assert_eq!(origin.sent.load(Ordering::Relaxed), length);
        assert_eq!(task.digest(), Some(*blake3::hash(&origin.content).as_bytes()), "{length}");
        let ledger = task.ledger();
        assert_eq!((ledger.source_bytes, ledger.cache_bytes), (length, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_of_unknown_length_without_ranges_is_read_in_one_request() {
    for length in lengths() {
        let field = Field::new();
        let (engine, _dir) = field.engine(Role::Solo, &[]);
        let mut origin = FakeOrigin::new(length);
        (origin.announces_length, origin.has_ranges) = (false, false);
        let origin = Arc::new(origin);
        let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
        assert_eq!(read_all(&task).await, origin.content, "{length}");
        assert_eq!(origin.requests.load(Ordering::Relaxed), 1, "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_take_from_a_seed_and_each_other_and_the_origin_pays_once() {
    for announces_length in [true, false] {
        let field = Field::new();
        let seed = field.honest(Role::Seed, 1, &[]);
        let mut origin = FakeOrigin::new(64 * GROUP + 5);
        origin.announces_length = announces_length;
        origin.has_ranges = announces_length;
        let origin = Arc::new(origin);
        seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
        let nodes: Vec<Member> =
            (2..5).map(|number| field.honest(Role::Node, number, &[&seed])).collect();
        let mut reading = tokio::task::JoinSet::new();
        for (at, node) in nodes.iter().enumerate() {
            let task = node.engine.open(&origin.info(), None, None).await.unwrap();
            let parents: Vec<&Member> = std::iter::once(&seed).chain(&nodes[..at]).collect();
            give_parents(&task, &parents).await;
            reading.spawn(async move { (read_all(&task).await, task.ledger()) });
        }
        while let Some(read) = reading.join_next().await {
            let (bytes, ledger) = read.unwrap();
            assert_eq!(bytes, origin.content);
            assert_eq!(ledger.parent_bytes(None), origin.content.len() as u64);
            assert_eq!(ledger.source_bytes, 0);
        }
        assert_eq!(origin.sent.load(Ordering::Relaxed), origin.content.len() as u64);
    }
}

/// Serves what it holds with something wrong.
struct Liar {
    engine: Engine,
    lie: fn(&mut Segment),
    lied: Arc<AtomicBool>,
}

/// One bit is wrong.
fn wrong_bit(segment: &mut Segment) {
    let mut payload = segment.payload.to_vec();
    *payload.last_mut().unwrap() ^= 1;
    segment.payload = payload.into();
}

/// So many zeros, compressed: as short as a payload may be.
fn zeros(segment: &mut Segment, count: u64) {
    let bytes = zstd::bulk::compress(&vec![0; count as usize], 1).unwrap();
    (segment.codec, segment.payload) = (Codec::Zstd, bytes.into());
}

/// Stands for a thousand times the bytes of its groups.
fn bomb(segment: &mut Segment) {
    zeros(segment, segment.content_bytes() * 1000);
}

/// Stands for a byte less than its groups have.
fn dud(segment: &mut Segment) {
    zeros(segment, segment.content_bytes() - 1);
}

/// Decodes well, to other bytes.
fn other_bytes(segment: &mut Segment) {
    zeros(segment, segment.content_bytes());
}

/// Decodes to nothing at all.
fn garbage(segment: &mut Segment) {
    (segment.codec, segment.payload) = (Codec::Zstd, Bytes::from_static(b"no such thing"));
}

#[async_trait]
impl Provider for Liar {
    async fn open(
        &self,
        peer: &PeerIdentity,
        request: &PieceRequest,
    ) -> Result<SegmentStream, Refusal> {
        let (told, lied) = (self.lie, Arc::clone(&self.lied));
        let honest = Provider::open(&self.engine, peer, request).await?;
        let lie = move |ready: Ready| {
            let lied = Arc::clone(&lied);
            Ready::new(move || {
                let mut segment = ready.read()?;
                if !segment.payload.is_empty() {
                    told(&mut segment);
                    lied.store(true, Ordering::Relaxed);
                }
                Ok(segment)
            })
        };
        Ok(honest.map(move |ready| ready.map(&lie)).boxed())
    }

    fn watch(&self, peer: &PeerIdentity, request: &WatchRequest) -> Option<HaveStream> {
        Provider::watch(&self.engine, peer, request)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_sends_wrong_bytes_is_dropped_and_the_reader_never_notices() {
    for lie in [wrong_bit, bomb, dud, other_bytes, garbage] {
        drops_a_liar(lie).await;
    }
}

async fn drops_a_liar(lie: fn(&mut Segment)) {
    let field = Field::new();
    let seed = field.honest(Role::Seed, 1, &[]);
    let origin = Arc::new(FakeOrigin::new(40 * GROUP));
    seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let lied = Arc::new(AtomicBool::new(false));
    let liar = field.member(Role::Node, 2, &[&seed], |engine| {
        Arc::new(Liar { engine, lie, lied: Arc::clone(&lied) })
    });
    let held = liar.engine.open(&origin.info(), None, None).await.unwrap();
    give_parents(&held, &[&seed]).await;
    read_all(&held).await;
    let victim = field.honest(Role::Node, 3, &[&seed]);
    let task = victim.engine.open(&origin.info(), None, None).await.unwrap();
    give_parents(&task, &[&liar]).await;
    let reader = task.clone();
    let mut reading = tokio::task::JoinSet::new();
    reading.spawn(async move { read_all(&reader).await });
    wait_until(|| lied.load(Ordering::Relaxed)).await;
    give_parents(&task, &[&liar, &seed]).await;
    assert_eq!(reading.join_next().await.unwrap().unwrap(), origin.content);
    let ledger = task.ledger();
    assert!(ledger.parents.iter().all(|parent| parent.host != liar.info.id), "{ledger:?}");
    assert_eq!(ledger.content_bytes(), origin.content.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn left_alone_a_node_reads_the_origin_itself_and_serves_nobody_from_it() {
    let field = Field::new();
    let node = field.honest(Role::Node, 1, &[]);
    let origin = Arc::new(FakeOrigin::new(3 * GROUP));
    let task = node.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    assert_eq!(read_all(&task).await, origin.content);
    assert_eq!(task.ledger().source_bytes, 3 * GROUP);
    assert!(task.stored().signed_for(dfs_model::GroupRange::new(0, 3)).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_is_never_evicted() {
    let field = Field::new();
    let (engine, _dir) = field.engine(Role::Solo, &[]);
    let origin = Arc::new(FakeOrigin::new(3 * GROUP));
    let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    read_all(&task).await;
    let guard = task.in_use(Use::Mount).unwrap();
    let swept = engine.evict(Some(ByteSize(u64::MAX))).await.unwrap();
    assert!(swept.evicted.is_empty());
    assert_eq!(read_all(&task).await, origin.content);
    drop(guard);
    let swept = engine.evict(Some(ByteSize(u64::MAX))).await.unwrap();
    assert_eq!(swept.evicted, [task.id()]);
    let again = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    assert_eq!(read_all(&again).await, origin.content);
    assert_eq!(origin.sent.load(Ordering::Relaxed), 6 * GROUP);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_that_nobody_waits_for_any_more_leaves_no_dead_task_open() {
    let field = Field::new();
    let (engine, _dir) = field.engine(Role::Solo, &[]);
    let origin = Arc::new(FakeOrigin::new(3 * GROUP));
    for _ in 0..50 {
        // An eviction that was given up may take what was opened just now.
        loop {
            let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
            match crate::opener::read_whole(&task, u64::MAX).await {
                Err(ReadError::Closing(_)) => {}
                Err(ReadError::Store(error)) if matches!(*error, StoreError::Gone(_)) => {}
                read => break assert_eq!(read.unwrap(), origin.content),
            }
        }
        // Given up as soon as it has begun, and begun again where the task was still in use.
        let evicting = async {
            while !engine.store().list().is_empty() {
                let evicting = engine.evict(Some(ByteSize(u64::MAX)));
                let _ = tokio::time::timeout(Duration::ZERO, evicting).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), evicting).await.expect("it is taken away");
    }
    // Taken away, and nobody told the engine.
    let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    read_all(&task).await;
    let taking = async {
        // What was fetched is in use for a moment more.
        while !task.stored().is_gone() {
            engine.store().make_room(engine.store().now(), ByteSize(u64::MAX)).unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), taking).await.expect("it is taken away");
    assert!(engine.held(&task.id()).await.is_none());
    let again = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    assert_eq!(read_all(&again).await, origin.content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_goes_away_costs_latency_only() {
    let field = Field::new();
    let seed = field.honest(Role::Seed, 1, &[]);
    let origin = Arc::new(FakeOrigin::new(200 * GROUP));
    seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let first = field.honest(Role::Node, 2, &[&seed]);
    let held = first.engine.open(&origin.info(), None, None).await.unwrap();
    give_parents(&held, &[&seed]).await;
    read_all(&held).await;
    let second = field.honest(Role::Node, 3, &[&seed]);
    let task = second.engine.open(&origin.info(), None, None).await.unwrap();
    give_parents(&task, &[&first]).await;
    task.ensure(ByteRange::new(0, 20 * GROUP), Priority::Bulk).await.unwrap();
    field.network.refuse(first.info.addresses[0]);
    if let Some(connection) = second.engine.inner.pool.as_ref().unwrap().existing(first.info.id) {
        connection.close("killed");
    }
    give_parents(&task, &[&first, &seed]).await;
    assert_eq!(read_all(&task).await, origin.content);
    assert_eq!(origin.sent.load(Ordering::Relaxed), 200 * GROUP);
}

async fn wait_until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the condition holds");
}
