//! A cache that is smaller than what is read: everything is read all the same, and what fits stays.

use std::os::unix::fs::FileExt;

use super::*;
use crate::store::Verify;

/// Groups of the content.
const GROUPS: u64 = 100;

/// What a small cache may take with all it writes beside the content.
const LIMIT: u64 = 44 * GROUP;

/// A cache with room for less than half of it.
fn small() -> StoreOptions {
    StoreOptions { capacity: Some(ByteSize(40 * GROUP)), ..StoreOptions::default() }
}

impl Field {
    fn small_engine(&self, role: Role, trusted: &[&Member]) -> (Engine, TempDir) {
        self.engine_with(small(), Lifetime::Lasting, role, trusted)
    }

    fn small_member(&self, role: Role, number: u8, trusted: &[&Member]) -> Member {
        let engine = self.small_engine(role, trusted);
        self.member_on(engine, role, number, |engine| Arc::new(engine))
    }
}

/// Reads everything in order, a few groups at a time, with read-ahead, as a mount does.
async fn assert_reads_in_order(task: &Task, origin: &FakeOrigin) {
    let end = origin.content.len() as u64;
    let step = 3 * GROUP + 1000;
    for start in (0..end).step_by(step as usize) {
        let range = ByteRange::new(start, (start + step).min(end));
        task.prefetch(ByteRange::new(range.end, end.max(range.end)), Priority::ReadAhead);
        let bytes = task.read(range, Priority::Demand).await.unwrap();
        assert!(bytes == origin.content[range.start as usize..range.end as usize], "{range}");
    }
}

/// Bytes on disk, measured.
fn kept_by(engine: &Engine) -> u64 {
    engine.store().gc(engine.store().now()).unwrap();
    engine.store().used_bytes()
}

fn assert_in_bounds(engine: &Engine) {
    let used = kept_by(engine);
    assert!(used > 20 * GROUP && used <= LIMIT, "{used} bytes are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_read_all_the_same_and_what_fits_stays() {
    let field = Field::new();
    let (engine, _dir) = field.small_engine(Role::Solo, &[]);
    let origin = Arc::new(FakeOrigin::new(GROUPS * GROUP + 5));
    let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let _in_use = task.in_use(Use::Mount).unwrap();
    assert_reads_in_order(&task, &origin).await;
    assert_in_bounds(&engine);
    let held = task.stored().have().len();
    let sent = origin.sent.load(Ordering::Relaxed);
    assert_reads_in_order(&task, &origin).await;
    // The second time only what was not kept is fetched; a step ends inside of a group that the next one needs.
    let again = origin.sent.load(Ordering::Relaxed) - sent;
    let missing = (GROUPS + 1 - held) * GROUP;
    assert!(again >= missing - GROUP && again <= 2 * missing, "{again} of {missing}");
    let ledger = task.ledger();
    assert!(ledger.source_bytes > origin.content.len() as u64, "{ledger:?}");

    // Another content, while all the room is taken.
    let other = Arc::new(FakeOrigin::new(7 * GROUP));
    let key = TaskKey { url: CanonicalUrl::parse("http://o.test/y").unwrap(), ..other.info().key };
    let info = TaskInfo::new(key, Some(7 * GROUP), true);
    let task = engine.open(&info, None, Some(other.clone())).await.unwrap();
    assert_reads_in_order(&task, &other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_kept_and_cannot_be_is_one_error_and_nothing_is_fetched_in_vain() {
    let field = Field::new();
    let (engine, _dir) = field.small_engine(Role::Solo, &[]);
    // Of whole chunks: no smaller one at the end finds room.
    let all = ByteRange::new(0, 96 * GROUP);
    let origin = Arc::new(FakeOrigin::new(all.end));
    let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let _in_use = task.in_use(Use::Mount).unwrap();
    let error = task.ensure(all, Priority::Bulk).await.unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert!(task.passes(all));
    wait_until(|| !task.shared.busy.load(Ordering::Relaxed)).await;
    let requests = origin.requests.load(Ordering::Relaxed);
    task.prefetch(all, Priority::Bulk);
    let chunk = ByteRange::new(80 * GROUP, 96 * GROUP);
    assert!(task.ensure(chunk, Priority::Bulk).await.is_err());
    let bytes = task.read(chunk, Priority::Demand).await.unwrap();
    assert!(bytes == origin.content[chunk.start as usize..chunk.end as usize]);
    assert_eq!(origin.requests.load(Ordering::Relaxed), requests + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_read_of_what_rotted_beside_what_is_not_kept_gives_neither_unhashed() {
    let field = Field::new();
    let (engine, dir) = field.small_engine(Role::Solo, &[]);
    let origin = Arc::new(FakeOrigin::new(GROUPS * GROUP));
    let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let _in_use = task.in_use(Use::Mount).unwrap();
    assert_reads_in_order(&task, &origin).await;
    // Where what is kept ends.
    let kept = task.stored().have().ranges().next().unwrap();
    let last = kept.end() - 1;
    let file = std::fs::File::options().write(true).open(task.stored().content_path()).unwrap();
    file.write_all_at(&[!origin.content[(last * GROUP) as usize + 5]], last * GROUP + 5).unwrap();
    let range = ByteRange::at(last * GROUP, 2 * GROUP);
    let bytes = &origin.content[range.start as usize..range.end as usize];
    let read = task.clone().read(range, Priority::Demand).await.unwrap();
    assert!(read != bytes, "it has rotted");
    let read = task.verifying(Verify::Reads).read(range, Priority::Demand).await.unwrap();
    assert!(read == bytes);
    drop(dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_without_ranges_is_streamed_along_with_its_readers() {
    let field = Field::new();
    for step in [16 * GROUP, 3 * GROUP + 1000, 500] {
        let (engine, _dir) = field.small_engine(Role::Solo, &[]);
        let mut origin = FakeOrigin::new(GROUPS * GROUP + 5);
        origin.has_ranges = false;
        let origin = Arc::new(origin);
        let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
        let _in_use = task.in_use(Use::Mount).unwrap();
        // From somewhere on small steps take long: only across some edges.
        let from = if step < GROUP { 70 * GROUP - 5000 } else { 0 };
        let to = if step < GROUP { 90 * GROUP } else { GROUPS * GROUP + 5 };
        for start in (from..to).step_by(step as usize) {
            let range = ByteRange::new(start, (start + step).min(to));
            // Two, one of them a little ahead.
            let ahead = ByteRange::new(range.start, (range.end + GROUP).min(to));
            let (first, second) = tokio::join!(
                task.read(range, Priority::Demand),
                task.read(ahead, Priority::ReadAhead)
            );
            for (range, bytes) in [(range, first.unwrap()), (ahead, second.unwrap())] {
                assert!(bytes == origin.content[range.start as usize..range.end as usize]);
            }
        }
        // It begins anew at most where it was found that there is no room.
        let requests = origin.requests.load(Ordering::Relaxed);
        assert!(requests <= 2, "{requests} in steps of {step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_begins_anew_with_other_bytes_is_a_change() {
    let field = Field::new();
    let (engine, _dir) = field.small_engine(Role::Seed, &[]);
    let mut origin = FakeOrigin::new(GROUPS * GROUP);
    origin.has_ranges = false;
    let mut other = FakeOrigin::new(GROUPS * GROUP);
    other.has_ranges = false;
    other.content = Bytes::from(vec![7; origin.content.len()]);
    let (origin, other) = (Arc::new(origin), Arc::new(other));
    let info = origin.info();
    let task = engine.open(&info, None, Some(origin.clone())).await.unwrap();
    let _in_use = task.in_use(Use::Mount).unwrap();
    assert_reads_in_order(&task, &origin).await;
    engine.open(&info, None, Some(other)).await.unwrap();
    let last = ByteRange::new(90 * GROUP, 91 * GROUP);
    let error = task.read(last, Priority::Demand).await.unwrap_err();
    assert!(matches!(error, ReadError::OriginChanged(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_seed_serves_and_a_full_node_reads() {
    let field = Field::new();
    for (seed_is_small, node_is_small) in [(true, false), (false, true), (true, true)] {
        let number = 10 + 2 * u8::from(seed_is_small) + 4 * u8::from(node_is_small);
        let seed = match seed_is_small {
            true => field.small_member(Role::Seed, number, &[]),
            false => field.honest(Role::Seed, number, &[]),
        };
        let node = match node_is_small {
            true => field.small_member(Role::Node, number + 1, &[&seed]),
            false => field.honest(Role::Node, number + 1, &[&seed]),
        };
        let origin = Arc::new(FakeOrigin::new(GROUPS * GROUP + 5));
        let fetching = seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
        let _in_use = fetching.in_use(Use::Mount).unwrap();
        let task = node.engine.open(&origin.info(), None, None).await.unwrap();
        let _in_use = task.in_use(Use::Mount).unwrap();
        give_parents(&task, &[&seed]).await;
        assert_reads_in_order(&task, &origin).await;
        let (in_seed, in_node) = (kept_by(&seed.engine), kept_by(&node.engine));
        assert_eq!(in_seed <= LIMIT, seed_is_small, "the seed keeps {in_seed}");
        assert_eq!(in_node <= LIMIT, node_is_small, "the node keeps {in_node}");
        assert!(task.ledger().parent_bytes(Some(HostKind::Seed)) >= GROUPS * GROUP);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_out_under_who_waits_for_more_comes_again() {
    let field = Field::new();
    let (engine, _dir) = field.engine(Role::Solo, &[]);
    let origin = Arc::new(FakeOrigin::new(6 * GROUPS * GROUP + 5));
    let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let whole = ByteRange::new(0, origin.content.len() as u64);
    let reader = task.clone();
    let waiting = field.tracker.spawn(async move { reader.ensure(whole, Priority::Demand).await });
    let (mut rounds, mut taken) = (0, 0);
    while rounds < 20 && !waiting.is_finished() {
        let gone = task.take_out(vec![whole.groups()]).await.unwrap().groups;
        rounds += u64::from(!gone.is_empty());
        taken += gone.iter().map(|run| run.count).sum::<u64>();
        tokio::task::yield_now().await;
    }
    assert!(taken > 0, "something was taken out under it");
    let ended = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    ended.expect("it waits for what nobody brings").unwrap().unwrap();
    assert!(task.is_complete());
}
