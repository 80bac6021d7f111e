//! Tasks that are opened, closed, and left to the next process.

use dfs_model::GroupRange;
use futures::FutureExt;

use super::*;

const MINUTES: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread")]
async fn many_who_open_a_task_at_once_open_it_once() {
    let field = Field::new();
    let (engine, _dir) = field.engine(Role::Solo, &[]);
    let origin = Arc::new(FakeOrigin::new(3 * GROUP));
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (engine, origin) = (engine.clone(), Arc::clone(&origin));
        opening.spawn(async move { engine.open(&origin.info(), None, Some(origin.clone())).await });
    }
    let tasks: Vec<_> = opening.join_all().await.into_iter().map(|task| task.unwrap()).collect();
    assert!(tasks.iter().all(|task| Arc::ptr_eq(&task.shared, &tasks[0].shared)));
    assert_eq!(read_all(&tasks[7]).await, origin.content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_nobody_uses_is_closed_and_opens_again_on_demand() {
    let field = Field::new();
    let (engine, _dir) = field.engine(Role::Solo, &[]);
    let origin = Arc::new(FakeOrigin::new(3 * GROUP));
    let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    read_all(&task).await;
    let id = task.id();
    let start = Instant::now();
    let at = |minutes: u32| start + MINUTES * minutes;
    assert!(engine.close_idle(at(1), MINUTES).await.is_empty(), "it is held");
    assert!(engine.close_idle(at(3), MINUTES).await.is_empty(), "and was all the time");
    let shared = Arc::downgrade(&task.shared);
    drop(task);
    wait_until(|| shared.upgrade().is_some_and(|shared| shared.is_idle())).await;
    assert!(engine.close_idle(at(4), MINUTES).await.is_empty(), "it was used just now");
    // Looking at it is no use of it, opening it is one.
    assert!(engine.peek(&id).unwrap().2.is_some());
    drop(engine.held(&id).await.unwrap());
    assert!(engine.close_idle(at(6), MINUTES).await.is_empty());
    assert_eq!(engine.close_idle(at(7), MINUTES).await, [id]);
    // Its actor is gone, and with it everything that it held.
    wait_until(|| shared.upgrade().is_none()).await;
    assert!(engine.peek(&id).unwrap().2.is_none());
    let again = engine.held(&id).await.unwrap();
    assert_eq!(read_all(&again).await, origin.content);
    assert_eq!(origin.sent.load(Ordering::Relaxed), 3 * GROUP);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_a_child_follows_stays_open() {
    let field = Field::new();
    let seed = field.honest(Role::Seed, 1, &[]);
    let origin = Arc::new(FakeOrigin::new(3 * GROUP));
    let held = seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let node = field.honest(Role::Node, 2, &[&seed]);
    let task = node.engine.open(&origin.info(), None, None).await.unwrap();
    give_parents(&task, &[&seed]).await;
    task.ensure(ByteRange::new(0, 2 * GROUP), Priority::Bulk).await.unwrap();
    drop(held);
    let (now, engine) = (Instant::now(), &seed.engine);
    assert!(engine.close_idle(now, MINUTES).await.is_empty());
    assert!(engine.close_idle(now + 2 * MINUTES, MINUTES).await.is_empty());
}

/// Has every idle task of an engine closed as time goes by, until `id` is among them.
async fn closes_in_time(engine: &Engine, id: TaskId) {
    let start = Instant::now();
    for minutes in 0..2000 {
        if engine.close_idle(start + MINUTES * minutes, MINUTES).await.contains(&id) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it is never closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_have_everything_do_not_keep_each_others_tasks_open() {
    let field = Field::new();
    let seed = field.honest(Role::Seed, 1, &[]);
    let origin = Arc::new(FakeOrigin::new(40 * GROUP));
    seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let (one, other) =
        (field.honest(Role::Node, 2, &[&seed]), field.honest(Role::Node, 3, &[&seed]));
    let first = one.engine.open(&origin.info(), None, None).await.unwrap();
    let second = other.engine.open(&origin.info(), None, None).await.unwrap();
    give_parents(&first, &[&seed, &other]).await;
    give_parents(&second, &[&seed, &one]).await;
    let (read, again) = tokio::join!(read_all(&first), read_all(&second));
    assert!(read == origin.content && again == origin.content);
    // Named once more, after all came.
    give_parents(&first, &[&seed, &other]).await;
    let id = first.id();
    drop((first, second));
    for engine in [&one.engine, &other.engine, &seed.engine] {
        closes_in_time(engine, id).await;
    }
}

/// A copy of a data directory as a power cut would leave it.
fn copy_of(dir: &std::path::Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let mut left = vec![dir.to_owned()];
    while let Some(from) = left.pop() {
        let to = copy.path().join(from.strip_prefix(dir).unwrap());
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(&from).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => left.push(entry.path()),
                false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
            }
        }
    }
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_orderly_end_the_next_boot_hashes_nothing() {
    let field = Field::new();
    let (engine, dir) = field.engine(Role::Solo, &[]);
    let origin = Arc::new(FakeOrigin::new(5 * GROUP));
    let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    read_all(&task).await;
    let id = task.id();
    let cut = copy_of(dir.path());
    field.stop.cancel();
    field.tracker.close();
    field.tracker.wait().await;
    drop((task, engine));
    let hashed = |dir: &std::path::Path| {
        let options = StoreOptions { boot_id: Some([9; 16]), ..StoreOptions::default() };
        let store = Store::open(dir, options).unwrap();
        let task = store.task(id).unwrap().unwrap();
        assert_eq!(task.have().len(), 5);
        task.settle(GroupRange::new(0, 5)).unwrap().checked
    };
    assert_eq!(hashed(cut.path()), 5, "after a power cut all of it is");
    assert_eq!(hashed(dir.path()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_doubt_is_hashed_where_nobody_else_waits_for_it() {
    let field = Field::new();
    let (engine, _dir) = field.engine(Role::Solo, &[]);
    let origin = Arc::new(FakeOrigin::new(5 * GROUP));
    let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    read_all(&task).await;
    // Somebody cuts it: all the rest is in doubt.
    task.stored().content_file().set_len(4 * GROUP).unwrap();
    assert!(task.stored().read(ByteRange::new(4 * GROUP, 5 * GROUP)).is_err());
    let rest = ByteRange::new(0, 4 * GROUP);
    assert!(task.stored().is_in_doubt(rest.groups()));
    let (told, hashed) = std::sync::mpsc::channel();
    task.stored().interrupt(move || told.send(std::thread::current().id()).unwrap());
    // The turns are few.
    let turns = engine.inner.settling.clone().acquire_many_owned(SETTLED_AT_A_TIME as u32);
    let turns = turns.await.unwrap();
    let mut looking = std::pin::pin!(task.is_sound(rest));
    assert!((&mut looking).now_or_never().is_none());
    assert!(hashed.try_recv().is_err(), "it waits for its turn");
    drop(turns);
    looking.await;
    assert_ne!(hashed.recv().unwrap(), std::thread::current().id());
    assert!(!task.stored().is_in_doubt(rest.groups()));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_the_end_of_an_engine_waits_for_its_writers() {
    for lifetime in [Lifetime::Lasting, Lifetime::OfTheProcess] {
        let field = Field::new();
        let (engine, _dir) = field.engine_for(lifetime, Role::Solo, &[]);
        let (release, released) = std::sync::mpsc::channel::<()>();
        engine.inner.tracker.spawn_blocking(move || released.recv());
        field.stop.cancel();
        field.tracker.close();
        wait_until(|| engine.inner.tracker.is_closed()).await;
        assert!(!field.tracker.is_empty(), "{lifetime:?}");
        drop(release);
        field.tracker.wait().await;
        assert!(engine.inner.tracker.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_moved_is_followed_to_its_new_address() {
    let field = Field::new();
    let seed = field.honest(Role::Seed, 1, &[]);
    let origin = Arc::new(FakeOrigin::new(40 * GROUP));
    seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let mut parent = field.honest(Role::Node, 2, &[&seed]);
    let held = parent.engine.open(&origin.info(), None, None).await.unwrap();
    give_parents(&held, &[&seed]).await;
    let half = ByteRange::new(0, 20 * GROUP);
    held.ensure(half, Priority::Bulk).await.unwrap();
    let child = field.honest(Role::Node, 3, &[&seed]);
    let task = child.engine.open(&origin.info(), None, None).await.unwrap();
    give_parents(&task, &[&parent]).await;
    task.ensure(half, Priority::Bulk).await.unwrap();

    let (old, new) = (parent.info.addresses[0], SocketAddr::from(([10, 0, 0, 22], 1)));
    field.network.refuse(old);
    let pool = child.engine.inner.pool.as_ref().unwrap();
    if let Some(connection) = pool.existing(parent.info.id) {
        connection.close("moved");
    }
    field.serve(&parent.engine, Arc::new(parent.engine.clone()), new);
    parent.info.addresses = vec![new];
    read_all(&held).await;
    give_parents(&task, &[&parent]).await;
    assert_eq!(read_all(&task).await, origin.content);
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_digests_come_one_worker_looks_at_them() {
    let field = Field::new();
    let seed = field.honest(Role::Seed, 1, &[]);
    let origin = Arc::new(FakeOrigin::new(3 * GROUP));
    let held = seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    read_all(&held).await;
    let batches = held.stored().signed_for(GroupRange::new(0, 3));
    let node = field.honest(Role::Node, 2, &[&seed]);
    let task = node.engine.open(&origin.info(), None, None).await.unwrap();
    let workers = node.engine.inner.tracker.len();
    for _ in 0..1000 {
        for batch in &batches {
            let digests = Command::Digests(Box::new((**batch).clone()));
            task.shared.commands.send(digests).await.unwrap();
            // The worker, and the batch that it is looking at.
            assert!(node.engine.inner.tracker.len() <= workers + 1);
        }
    }
    wait_until(|| (0..3).all(|group| task.stored().is_signed(group))).await;
}

/// Where the record of the only task below a data directory is.
fn record_of(dir: &std::path::Path) -> std::path::PathBuf {
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            if entry.file_name() == "record.json" {
                return entry.path();
            }
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            }
        }
    }
    panic!("there is no record");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipe_that_could_not_be_written_is_written_by_the_next_who_opens() {
    let field = Field::new();
    let (engine, dir) = field.engine(Role::Solo, &[]);
    let origin = Arc::new(FakeOrigin::new(3 * GROUP));
    let info = origin.info();
    let place = dfs_artifact::Place { url: info.key.url.clone(), headers: Vec::new() };
    let recipe = Recipe {
        key: info.key.clone(),
        length: info.length,
        origin: dfs_artifact::OriginRecipe::Url { place, ranges: true },
    };
    let _held = engine.open(&info, None, Some(origin.clone())).await.unwrap();
    let in_the_way = record_of(dir.path()).with_extension("json.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let failed = engine.open(&info, Some(recipe.clone()), Some(origin.clone())).await;
    assert!(matches!(failed, Err(OpenError::Store { .. })));
    assert_eq!(engine.recipe(&info.id), None);
    std::fs::remove_dir(&in_the_way).unwrap();
    engine.open(&info, Some(recipe.clone()), Some(origin.clone())).await.unwrap();
    assert_eq!(engine.recipe(&info.id), Some(recipe));
}

/// An origin that takes every request and never answers.
struct Hung {
    asked: AtomicU64,
}

#[async_trait]
impl Origin for Hung {
    fn length(&self) -> Option<u64> {
        Some(GROUP)
    }

    fn ranges(&self) -> bool {
        true
    }

    async fn read(&self, _range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        futures::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_hangs_holds_nobody_up_who_reads_another() {
    let field = Field::new();
    let (engine, _dir) = field.engine(Role::Solo, &[]);
    let hung = Arc::new(Hung { asked: AtomicU64::new(0) });
    let mut waiting = Vec::new();
    for number in 0..20 {
        let mut key = FakeOrigin::new(GROUP).info().key;
        key.url = CanonicalUrl::parse(&format!("http://hung.test/{number}")).unwrap();
        let info = TaskInfo::new(key, Some(GROUP), true);
        let task = engine.open(&info, None, Some(hung.clone())).await.unwrap();
        task.prefetch(ByteRange::new(0, GROUP), Priority::Demand);
        waiting.push(task);
    }
    wait_until(|| hung.asked.load(Ordering::Relaxed) == 16).await;
    let origin = Arc::new(FakeOrigin::new(40 * GROUP));
    let task = engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let read = tokio::time::timeout(LONG_PATIENCE, read_all(&task));
    assert_eq!(read.await.expect("it is read meanwhile"), origin.content);
    assert_eq!(hung.asked.load(Ordering::Relaxed), 16, "and no more than so many hang");
}

/// A parent that has others to serve first, always.
struct Busy {
    engine: Engine,
    asked: Arc<AtomicU64>,
}

#[async_trait]
impl Provider for Busy {
    async fn open(&self, _: &PeerIdentity, _: &PieceRequest) -> Result<SegmentStream, Refusal> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Err(crate::wire::ErrorCode::Busy.into())
    }

    fn watch(&self, peer: &PeerIdentity, request: &WatchRequest) -> Option<HaveStream> {
        Provider::watch(&self.engine, peer, request)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_is_always_busy_keeps_nobody_from_the_source_for_ever() {
    let field = Field::new();
    let asked = Arc::new(AtomicU64::new(0));
    let busy = field
        .member(Role::Seed, 1, &[], |engine| Arc::new(Busy { engine, asked: Arc::clone(&asked) }));
    let node = field.honest(Role::Node, 2, &[]);
    let origin = Arc::new(FakeOrigin::new(3 * GROUP));
    let task = node.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    give_parents(&task, &[&busy]).await;
    let read = tokio::time::timeout(LONG_PATIENCE, read_all(&task));
    assert_eq!(read.await.expect("it helps itself"), origin.content);
    assert!(asked.load(Ordering::Relaxed) > 1, "it was asked again and again");
    assert_eq!(task.ledger().source_bytes, 3 * GROUP);
}

/// An origin that is another task; it is read when as many read it as may ask a host at a time.
struct Through {
    task: Task,
    reading: Arc<AtomicU64>,
}

#[async_trait]
impl Origin for Through {
    fn length(&self) -> Option<u64> {
        self.task.length()
    }

    fn ranges(&self) -> bool {
        true
    }

    fn reads_a_task(&self) -> bool {
        true
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        self.reading.fetch_add(1, Ordering::Relaxed);
        wait_until(|| self.reading.load(Ordering::Relaxed) >= 16).await;
        let all = ByteRange::new(0, self.task.length().unwrap_or(0));
        let read = self.task.read(range.unwrap_or(all), Priority::Demand).await;
        Ok(stream::iter([Ok(read.unwrap())]).boxed())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_through_another_task_holds_nothing_that_this_one_needs() {
    let field = Field::new();
    let (engine, _dir) = field.engine(Role::Solo, &[]);
    let mut inner = FakeOrigin::new(5 * GROUP);
    inner.has_ranges = false;
    let inner = Arc::new(inner);
    let archive = engine.open(&inner.info(), None, Some(inner.clone())).await.unwrap();
    let reading = Arc::new(AtomicU64::new(0));
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..16 {
        let mut key = inner.info().key;
        key.url = CanonicalUrl::parse(&format!("http://origin.test/{number}")).unwrap();
        let info = TaskInfo::new(key, Some(5 * GROUP), true);
        let origin = Arc::new(Through { task: archive.clone(), reading: Arc::clone(&reading) });
        let task = engine.open(&info, None, Some(origin)).await.unwrap();
        readers.spawn(async move {
            tokio::time::timeout(LONG_PATIENCE, read_all(&task)).await.expect("it comes")
        });
    }
    while let Some(read) = readers.join_next().await {
        assert_eq!(read.unwrap(), inner.content);
    }
    assert_eq!(inner.requests.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_archive_without_ranges_unpacks_to_is_read_through_its_task() {
    for ranges in [true, false] {
        let http = dfs_source::HttpOptions::default();
        let field = Field::with(Sources::builder().http(http).build().unwrap());
        let (engine, _dir) = field.engine(Role::Solo, &[]);
        let TaskInfo { mut key, .. } = FakeOrigin::new(GROUP).info();
        key.transform = Transform::Gunzip;
        let place = dfs_artifact::Place { url: key.url.clone(), headers: Vec::new() };
        let origin = dfs_artifact::OriginRecipe::Url { place, ranges };
        let recipe = Recipe { key, length: None, origin };
        let nobody = dfs_source::Credentials::None;
        let task = engine.open_recipe(&recipe, &nobody).await.unwrap();
        let origin = task.shared.origin.lock().clone().unwrap();
        assert_eq!(origin.reads_a_task(), !ranges);
    }
}
