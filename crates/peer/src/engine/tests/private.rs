//! Content that its origin gives only to those who may read it.

use dfs_artifact::OriginRecipe;
use dfs_artifact::recipe::Place;
use dfs_model::{GroupRange, HostId};
use dfs_source::{Credentials, Source, Stat, StatKind, Target};

use super::*;
use crate::dial::PeerAddress;
use crate::wire::{Codecs, ErrorCode};

const MINUTES: Duration = Duration::from_secs(300);

/// An origin that asks who reads it.
struct Guarded {
    content: FakeOrigin,
    /// Tokens that it takes.
    taken: Mutex<Vec<&'static str>>,
    /// Whose credentials came with each read, none for nobody's.
    asked: Mutex<Vec<Option<String>>>,
}

impl Guarded {
    fn new(length: u64, taken: &[&'static str]) -> Arc<Self> {
        let content = FakeOrigin::new(length);
        Arc::new(Self { content, taken: Mutex::new(taken.to_vec()), asked: Mutex::default() })
    }

    fn field(self: &Arc<Self>) -> Field {
        Field::with(
            Sources::builder().with("http", Arc::new(Behind(self.clone()))).build().unwrap(),
        )
    }

    fn recipe(&self) -> Recipe {
        let TaskInfo { mut key, length, ranges, .. } = self.content.info();
        key.domain = TaskKey::PRIVATE.into();
        let place = Place { url: key.url.clone(), headers: Vec::new() };
        Recipe { key, length, origin: OriginRecipe::Url { place, ranges } }
    }

    fn asked(&self) -> Vec<Option<String>> {
        std::mem::take(&mut self.asked.lock())
    }

    /// Whether it takes the credentials of who asks; whose they are is counted.
    fn admits(&self, target: &Target) -> bool {
        let token = match &target.credentials {
            Credentials::Bearer(token) => Some(token.expose().to_owned()),
            _ => None,
        };
        let may = token.as_ref().is_some_and(|token| self.taken.lock().contains(&token.as_str()));
        self.asked.lock().push(token);
        may
    }

    fn sent(&self) -> u64 {
        self.content.sent.load(Ordering::Relaxed)
    }
}

struct Behind(Arc<Guarded>);

#[async_trait]
impl Source for Behind {
    async fn stat(&self, target: &Target) -> Result<Stat, SourceError> {
        match self.0.admits(target) {
            true => Ok(Stat {
                length: Some(self.0.content.content.len() as u64),
                validator: Validator::default(),
                content_type: None,
                ranges: true,
                kind: StatKind::File,
                url: target.url.clone(),
                unpinned: false,
                modified: None,
                max_age: None,
            }),
            false => Err(forbidden(ByteRange::new(0, 0))),
        }
    }

    async fn read(
        &self,
        target: &Target,
        range: Option<ByteRange>,
        _pin: &Validator,
    ) -> Result<ByteStream, SourceError> {
        if !self.0.admits(target) {
            return Err(forbidden(range.unwrap_or(ByteRange::new(0, 0))));
        }
        self.0.content.read(range).await
    }

    fn list(
        &self,
        _: &Target,
    ) -> futures::stream::BoxStream<'static, Result<dfs_source::Entry, SourceError>> {
        unreachable!("it is one file")
    }
}

fn token(token: &str) -> Credentials {
    Credentials::Bearer(token.into())
}

async fn open(member: &Member, origin: &Guarded, as_whom: &str) -> Task {
    member.engine.open_recipe(&origin.recipe(), &token(as_whom)).await.unwrap()
}

async fn read(task: &Task, first: u64, count: u64) -> Result<Bytes, ReadError> {
    task.read(ByteRange::at(first * GROUP, count * GROUP), Priority::Demand).await
}

/// A seed at which the task was opened with alice's credentials and then left alone for so long that it was
/// closed, with one group of it.
async fn idle_seed(field: &Field, origin: &Guarded) -> Member {
    let seed = field.honest(Role::Seed, 1, &[]);
    let task = open(&seed, origin, "alice").await;
    read(&task, 0, 1).await.unwrap();
    let shared = Arc::downgrade(&task.shared);
    drop(task);
    wait_until(|| shared.upgrade().is_some_and(|shared| shared.is_idle())).await;
    let later = Instant::now() + MINUTES;
    assert!(seed.engine.close_idle(later, MINUTES).await.is_empty(), "idle from now on");
    assert_eq!(seed.engine.close_idle(later + MINUTES, MINUTES).await.len(), 1);
    assert_eq!(origin.asked(), [Some("alice".to_owned())]);
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_forgot_the_credentials_reads_with_those_of_the_child_that_asks() {
    let origin = Guarded::new(40 * GROUP, &["alice", "bob"]);
    let field = origin.field();
    let seed = idle_seed(&field, &origin).await;
    let child = field.honest(Role::Node, 2, &[&seed]);
    let task = open(&child, &origin, "bob").await;
    give_parents(&task, &[&seed]).await;
    assert_eq!(read(&task, 0, 1).await.unwrap(), origin.content.content[..GROUP as usize]);
    assert!(origin.asked().is_empty(), "it holds that");
    assert_eq!(read_all(&task).await, origin.content.content);
    assert!(origin.asked().iter().all(|asked| asked.as_deref() == Some("bob")), "nobody else's");
    let other = field.honest(Role::Node, 3, &[&seed]);
    let again = open(&other, &origin, "bob").await;
    give_parents(&again, &[&seed]).await;
    assert_eq!(read_all(&again).await, origin.content.content);
    assert_eq!((origin.sent(), task.ledger().source_bytes), (40 * GROUP, 0), "one copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_withdrawn_are_replaced_by_those_of_the_next_child() {
    let origin = Guarded::new(8 * GROUP, &["alice", "bob"]);
    let field = origin.field();
    let seed = field.honest(Role::Seed, 1, &[]);
    let _held = open(&seed, &origin, "alice").await;
    origin.taken.lock().retain(|token| *token != "alice");
    let child = field.honest(Role::Node, 2, &[&seed]);
    let task = open(&child, &origin, "bob").await;
    give_parents(&task, &[&seed]).await;
    assert_eq!(read_all(&task).await, origin.content.content);
    // Read ahead and read: what the first was refused the second may be refused too.
    let mut asked = origin.asked();
    asked.dedup();
    assert_eq!(asked, [Some("alice".to_owned()), Some("bob".to_owned())]);
    assert_eq!(task.ledger().source_bytes, 0, "the seed read it");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_good_credentials_hears_so_from_the_origin_and_spoils_nobodys_reads() {
    let origin = Guarded::new(8 * GROUP, &["alice", "bob"]);
    let field = origin.field();
    let seed = idle_seed(&field, &origin).await;
    let thief = field.honest(Role::Node, 2, &[&seed]);
    let task = open(&thief, &origin, "eve").await;
    give_parents(&task, &[&seed]).await;
    let refused = read(&task, 3, 1).await;
    assert!(matches!(refused, Err(ReadError::NotPermitted(_))), "{refused:?}");
    assert!(origin.asked().iter().all(|asked| asked.as_deref() == Some("eve")));
    let nobody = field.honest(Role::Node, 3, &[&seed]);
    let info = task.info().clone();
    let unnamed = nobody.engine.open(&info, None, None).await.unwrap();
    give_parents(&unnamed, &[&seed]).await;
    let refused = read(&unnamed, 3, 1).await;
    assert!(matches!(refused, Err(ReadError::NotPermitted(_))), "{refused:?}");
    assert!(origin.asked().is_empty(), "nobody is asked without credentials");
    let child = field.honest(Role::Node, 4, &[&seed]);
    let task = open(&child, &origin, "bob").await;
    give_parents(&task, &[&seed]).await;
    assert_eq!(read_all(&task).await, origin.content.content);
    assert_eq!(task.ledger().source_bytes, 0, "the seed read it");
}

/// What a seed gives somebody who sends these credentials unasked.
async fn ask_seed(seed: &Member, task: &Task, groups: GroupRange, as_whom: &str) -> Vec<ErrorCode> {
    let host = HostId::from_bytes([9; 16]);
    let address = PeerAddress::plain(SocketAddr::from(([10, 0, 0, 9], 1)));
    let peer = PeerIdentity { host, name: "eve".into(), address, version: 1, capabilities: 0 };
    let request = PieceRequest {
        task: task.id(),
        groups,
        priority: Priority::Demand,
        codecs: Codecs::RAW,
        want_signed: true,
        fetch: true,
        grant: Bytes::new(),
        credentials: crate::targets::seal(&token(as_whom)),
        deadline: LONG_PATIENCE,
    };
    match Provider::open(&seed.engine, &peer, &request).await {
        Ok(segments) => segments.filter_map(async |sent| Some(sent.err()?.code)).collect().await,
        Err(refusal) => vec![refusal.code],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_nobody_asked_for_replace_none_that_work() {
    let origin = Guarded::new(80 * GROUP, &["alice", "bob"]);
    let field = origin.field();
    let seed = field.honest(Role::Seed, 1, &[]);
    let held = open(&seed, &origin, "alice").await;
    assert_eq!(ask_seed(&seed, &held, GroupRange::new(0, 1), "eve").await, []);
    let child = field.honest(Role::Node, 2, &[&seed]);
    let task = open(&child, &origin, "bob").await;
    give_parents(&task, &[&seed]).await;
    assert_eq!(read_all(&task).await, origin.content.content);
    assert_eq!((origin.sent(), task.ledger().source_bytes), (80 * GROUP, 0), "one copy");
    let asked = origin.asked();
    assert!(asked.iter().all(|asked| asked.as_deref() == Some("alice")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_without_credentials_takes_only_those_that_the_origin_takes() {
    let origin = Guarded::new(40 * GROUP, &["alice", "bob"]);
    let field = origin.field();
    let seed = idle_seed(&field, &origin).await;
    let held = seed.engine.held(&origin.recipe().key.id()).await.unwrap();
    let refused = ask_seed(&seed, &held, GroupRange::new(3, 1), "eve").await;
    assert_eq!(refused, [ErrorCode::Credentials]);
    assert!(!held.may_ask_origin(), "it has still none");
    assert_eq!(ask_seed(&seed, &held, GroupRange::new(3, 1), "bob").await, []);
    assert_eq!(ask_seed(&seed, &held, GroupRange::new(30, 1), "eve").await, []);
    let asked: Vec<_> = origin.asked().into_iter().flatten().collect();
    assert_eq!(asked[..3], ["eve", "bob", "bob"], "asked of each once, and then read");
    assert!(asked[3..].iter().all(|asked| asked == "bob"), "{asked:?}");
}

/// A node that holds everything and asks for credentials instead of giving it.
struct Curious {
    engine: Engine,
    asked: Arc<AtomicU64>,
    told: Arc<AtomicBool>,
}

#[async_trait]
impl Provider for Curious {
    async fn open(&self, _: &PeerIdentity, ask: &PieceRequest) -> Result<SegmentStream, Refusal> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.told.fetch_or(!ask.credentials.is_empty(), Ordering::Relaxed);
        Err(ErrorCode::Credentials.into())
    }

    fn watch(&self, peer: &PeerIdentity, request: &WatchRequest) -> Option<HaveStream> {
        Provider::watch(&self.engine, peer, request)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_is_no_seed_is_told_no_credentials() {
    let origin = Guarded::new(40 * GROUP, &["bob"]);
    let field = origin.field();
    let seed = field.honest(Role::Seed, 1, &[]);
    let _held = open(&seed, &origin, "bob").await;
    let (asked, told) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let curious = field.member(Role::Node, 2, &[&seed], |engine| {
        Arc::new(Curious { engine, asked: Arc::clone(&asked), told: Arc::clone(&told) })
    });
    let held = open(&curious, &origin, "bob").await;
    give_parents(&held, &[&seed]).await;
    read_all(&held).await;
    let child = field.honest(Role::Node, 3, &[&seed]);
    let task = open(&child, &origin, "bob").await;
    give_parents(&task, &[&curious]).await;
    task.prefetch(ByteRange::new(0, 40 * GROUP), Priority::Bulk);
    wait_until(|| asked.load(Ordering::Relaxed) > 0).await;
    give_parents(&task, &[&curious, &seed]).await;
    assert_eq!(read_all(&task).await, origin.content.content);
    assert!(!told.load(Ordering::Relaxed), "a node has no use for them");
    assert_eq!(task.ledger().source_bytes, 0, "and drives nobody to the origin");
}
