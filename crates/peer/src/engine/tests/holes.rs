//! Members that changed at the origin: only their own bytes are gone.

use dfs_model::GroupSet;

use super::*;
use crate::wire::ErrorCode;

/// Where the holes are in a content of 100 groups: two small members inside of groups, a long one.
fn holes() -> Vec<ByteRange> {
    vec![
        ByteRange::at(3 * GROUP + 4096, 1000),
        ByteRange::at(20 * GROUP - 500, 1000),
        ByteRange::at(40 * GROUP + 1, 3 * GROUP),
    ]
}

fn holed() -> Arc<FakeOrigin> {
    holed_by(changed)
}

fn holed_by(why: fn(ByteRange) -> SourceError) -> Arc<FakeOrigin> {
    let mut origin = FakeOrigin::new(100 * GROUP + 5);
    (origin.holes, origin.hole) = (Some(holes()), why);
    Arc::new(origin)
}

/// Reads everything in steps of about three groups; a step that cannot be had is cut until it can.
async fn assert_all_but_the_holes(task: &Task, origin: &FakeOrigin, step: u64) {
    let end = origin.content.len() as u64;
    let mut edges: Vec<u64> = (0..end).step_by(step as usize).collect();
    edges.extend(holes().iter().flat_map(|hole| [hole.start, hole.end]).chain([end]));
    edges.sort_unstable();
    edges.dedup();
    for edge in edges.windows(2) {
        let range = ByteRange::new(edge[0], edge[1]);
        let read = task.read(range, Priority::Demand).await;
        let is_hole = holes().iter().any(|hole| !hole.intersection(range).is_empty());
        match read {
            Ok(bytes) => {
                assert!(!is_hole, "{range} has a hole");
                assert!(bytes == origin.content[range.start as usize..range.end as usize]);
            }
            Err(error) => {
                assert!(is_hole, "{range}: {error}");
                let (text, why) = (error.to_string(), (origin.hole)(range));
                let class = ReadError::from(why).to_string();
                let class = class.split(':').next().unwrap();
                assert!(text.contains(class) && text.contains("origin.test"), "{text}");
            }
        }
    }
}

fn void_groups() -> GroupSet {
    let mut groups = GroupSet::new();
    holes().iter().for_each(|hole| groups.insert_range(hole.groups()));
    groups
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_holes_brings_everything_else() {
    let field = Field::new();
    let (engine, _dir) = field.engine(Role::Solo, &[]);
    let origin = holed();
    let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    // All of it is read as one run.
    task.prefetch(ByteRange::new(0, 100 * GROUP + 5), Priority::Bulk);
    let expected = 101 - void_groups().len();
    wait_until(|| task.stored().have().len() == expected).await;
    assert_eq!(origin.requests.load(Ordering::Relaxed), 1);
    assert!(void_groups().ranges().all(|run| task.stored().missing_in(run) == [run]));
    assert_all_but_the_holes(&task, &origin, 3 * GROUP + 77).await;
    // What was read around the holes serves the readers and is not kept.
    assert_eq!(task.stored().have().len(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_gets_everything_but_the_void_groups_and_reads_around_them_itself() {
    for why in [changed, forbidden] {
        a_child_gets_everything_but_the_void_groups_of(holed_by(why)).await;
    }
}

async fn a_child_gets_everything_but_the_void_groups_of(origin: Arc<FakeOrigin>) {
    let field = Field::new();
    let seed = field.honest(Role::Seed, 1, &[]);
    seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let node = field.honest(Role::Node, 2, &[&seed]);
    let task = node.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    give_parents(&task, &[&seed]).await;
    assert_all_but_the_holes(&task, &origin, 7 * GROUP).await;
    let expected = 101 - void_groups().len();
    wait_until(|| task.stored().have().len() == expected).await;
    let ledger = task.ledger();
    let kept = task.cached_bytes();
    assert_eq!(ledger.parent_bytes(None), kept, "all that is kept came from the seed");
    assert!(ledger.source_bytes > 0, "what was read around is the origin's: {ledger:?}");
    assert_eq!(ledger.cache_bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_of_a_hole_do_not_have_the_origin_asked_for_their_group_again() {
    let field = Field::new();
    let (engine, _dir) = field.engine(Role::Solo, &[]);
    let origin = holed();
    let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let neighbour = ByteRange::at(3 * GROUP, 4096);
    let mark = task.mark();
    for _ in 0..3 {
        let read = task.read(neighbour, Priority::Demand).await.unwrap();
        assert!(read == origin.content[3 * GROUP as usize..][..4096]);
    }
    // The group once, and what was asked for each time.
    assert_eq!(origin.requests.load(Ordering::Relaxed), 4);
    let ledger = task.ledger_since(&mark, neighbour);
    assert_eq!((ledger.source_bytes, ledger.cache_bytes), (4096, 0));
    assert_eq!(ledger.source_requests, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_member_does_not_keep_its_neighbours_from_a_child_that_cannot_read_the_origin()
{
    let field = Field::new();
    let seed = field.honest(Role::Seed, 1, &[]);
    let origin = holed_by(forbidden);
    seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let node = field.honest(Role::Node, 2, &[&seed]);
    let task = node.engine.open(&origin.info(), None, None).await.unwrap();
    give_parents(&task, &[&seed]).await;
    task.prefetch(ByteRange::new(0, 100 * GROUP + 5), Priority::Bulk);
    let error = task.read(holes()[0], Priority::Demand).await.unwrap_err();
    assert!(error.to_string().contains("not permitted"), "{error}");
    let expected = 101 - void_groups().len();
    wait_until(|| task.stored().have().len() == expected).await;
    assert_eq!(task.ledger().source_bytes, 0);
}

/// An origin of members that may be too busy to give any.
struct Overloaded {
    content: FakeOrigin,
    busy: AtomicBool,
    turned_away: AtomicU64,
}

impl Overloaded {
    fn check(&self) -> Result<(), SourceError> {
        if !self.busy.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        let attempt = Attempt::new(Action::Read(None), &self.content.info().key.url);
        let status =
            SourceError::Status { attempt: attempt.clone(), status: 503, retry_after: None };
        let (cause, retry_after) = (Box::new(status), None);
        Err(SourceError::Unavailable { attempt, attempts: 6, retry_after, cause })
    }
}

#[async_trait]
impl Origin for Overloaded {
    fn length(&self) -> Option<u64> {
        self.content.length()
    }

    fn ranges(&self) -> bool {
        true
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        self.check()?;
        self.content.read(range).await
    }

    fn has_members(&self) -> bool {
        true
    }

    async fn read_parts(&self, range: ByteRange) -> Result<PartStream, SourceError> {
        self.check()?;
        self.content.read_parts(range).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_origin_is_asked_by_the_seed_alone_and_again_when_somebody_reads_again() {
    let field = Field::new();
    let seed = field.honest(Role::Seed, 1, &[]);
    let content = FakeOrigin::new(4 * GROUP);
    let (busy, turned_away) = (AtomicBool::new(true), AtomicU64::new(0));
    let origin = Arc::new(Overloaded { content, busy, turned_away });
    let info = origin.content.info();
    seed.engine.open(&info, None, Some(origin.clone())).await.unwrap();
    let node = field.honest(Role::Node, 2, &[&seed]);
    let task = node.engine.open(&info, None, Some(origin.clone())).await.unwrap();
    give_parents(&task, &[&seed]).await;
    let range = ByteRange::new(0, 1000);
    for failed in 1..=3 {
        let error = task.read(range, Priority::Demand).await.unwrap_err();
        assert!(error.to_string().contains("given up after 6 attempts"), "{error}");
        let turned_away = origin.turned_away.load(Ordering::Relaxed);
        // Read ahead and read: one request, unless the first fails before the other begins.
        assert!((failed..=2 * failed).contains(&turned_away), "{turned_away} after {failed} reads");
    }
    assert_eq!(task.ledger().source_requests, 0, "the seed's alone");
    origin.busy.store(false, Ordering::Relaxed);
    assert_eq!(task.read(range, Priority::Demand).await.unwrap(), origin.content.content[..1000]);
    let ledger = task.ledger();
    assert_eq!((ledger.source_requests, ledger.source_bytes), (0, 0), "from the seed");
}

/// A node that says of everything that the origin does not have it.
struct Doomsayer {
    engine: Engine,
    code: ErrorCode,
    asked: Arc<AtomicU64>,
}

#[async_trait]
impl Provider for Doomsayer {
    async fn open(&self, _: &PeerIdentity, _: &PieceRequest) -> Result<SegmentStream, Refusal> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Err(Refusal::new(self.code, "origin changed: all of it"))
    }

    fn watch(&self, peer: &PeerIdentity, request: &WatchRequest) -> Option<HaveStream> {
        Provider::watch(&self.engine, peer, request)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_the_origin_has_only_a_seeds_word_counts() {
    for code in [ErrorCode::OriginChanged, ErrorCode::Void, ErrorCode::OriginFailed] {
        for holes in [None, Some(Vec::new())] {
            let mut origin = FakeOrigin::new(40 * GROUP);
            origin.holes = holes;
            a_doomsayer_costs_nothing(Arc::new(origin), code).await;
        }
    }
}

async fn a_doomsayer_costs_nothing(origin: Arc<FakeOrigin>, code: ErrorCode) {
    let field = Field::new();
    let seed = field.honest(Role::Seed, 1, &[]);
    seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let doomsayer = field.member(Role::Node, 2, &[&seed], |engine| {
        Arc::new(Doomsayer { engine, code, asked: Arc::clone(&asked) })
    });
    let held = doomsayer.engine.open(&origin.info(), None, None).await.unwrap();
    give_parents(&held, &[&seed]).await;
    read_all(&held).await;
    let child = field.honest(Role::Node, 3, &[&seed]);
    let task = child.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    give_parents(&task, &[&doomsayer]).await;
    let reader = task.clone();
    let mut reading = tokio::task::JoinSet::new();
    reading.spawn(async move { read_all(&reader).await });
    wait_until(|| asked.load(Ordering::Relaxed) > 0).await;
    give_parents(&task, &[&doomsayer, &seed]).await;
    assert_eq!(reading.join_next().await.unwrap().unwrap(), origin.content, "{code:?}");
    let ledger = task.ledger();
    assert_eq!((ledger.source_requests, ledger.source_bytes), (0, 0), "{code:?}");
}
