use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_model::{CanonicalUrl, TaskInfo, TaskKind, Transform, Validator};
use dfs_peer::conductor::Limits;
use dfs_peer::digests::Identity;
use dfs_peer::engine::{EngineParts, Keyring, Lifetime, Role};
use dfs_peer::store::{Store, StoreOptions};
use dfs_proto::seed::obtain_event::Kind;
use dfs_proto::seed::seed_server::Seed as _;
use dfs_source::Sources;
use futures::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;

const MINUTES: Duration = Duration::from_secs(300);

fn engine(dir: &std::path::Path, tracker: &TaskTracker, stop: &CancellationToken) -> Engine {
    let parts = EngineParts {
        role: Role::Seed,
        store: Store::open(dir, StoreOptions::default()).unwrap(),
        identity: Identity::load_or_create(dir).unwrap(),
        keyring: Arc::new(Keyring::default()),
        pool: None,
        swarm: None,
        sources: Sources::builder().build().unwrap(),
        patience: MINUTES,
        limits: Limits::default(),
        source_requests: 1,
        lifetime: Lifetime::Lasting,
        compression: dfs_peer::wire::Compression::Auto,
        index_trust: Default::default(),
    };
    Engine::start(parts, tracker, stop.clone())
}

fn info(length: u64) -> TaskInfo {
    let key = TaskKey {
        domain: TaskKey::PUBLIC.into(),
        kind: TaskKind::Blob,
        url: CanonicalUrl::parse("http://origin.test/x").unwrap(),
        headers: Vec::new(),
        validator: Validator::default(),
        transform: Transform::Identity,
    };
    TaskInfo::new(key, Some(length), true)
}

fn said_at_once(events: &mut Events) -> Vec<Kind> {
    let next = || events.next().now_or_never().flatten()?.unwrap().kind;
    std::iter::from_fn(next).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_does_not_keep_a_task_open_and_ends_with_it() {
    let (dir, tracker, stop) =
        (tempfile::tempdir().unwrap(), TaskTracker::new(), CancellationToken::new());
    let engine = engine(dir.path(), &tracker, &stop);
    let content = Bytes::from(vec![7; 100_000]);
    let info = info(content.len() as u64);
    engine.import(&info, content).await.unwrap();
    let request = ObtainRequest { task: Some((&info).into()), ..ObtainRequest::default() };
    let mut lifecycle = dfs_service::Lifecycle::new(MINUTES).unwrap();
    let service = SeedService::new(
        engine.clone(),
        "seed".to_owned(),
        Arc::new(dfs_service::net::GrpcChannels::default()),
        lifecycle.service("seed"),
        Answers::in_dir(dir.path().join("answers")),
    );
    let mut events = service.obtain(Request::new(request.clone())).await.unwrap().into_inner();
    let said = said_at_once(&mut events);
    let [Kind::Obtaining(_), Kind::Digests(_), Kind::Verified(read), Kind::Verified(all)] =
        &said[..]
    else {
        panic!("{said:?}");
    };
    assert_eq!((&read.groups, &read.giver_id[..]), (&all.groups, &[][..]));
    let proven =
        vec![dfs_proto::common::GroupRun { first: 0, count: dfs_model::groups_in(100_000) }];
    let again = ObtainRequest { proven, ..request };
    let mut other = service.obtain(Request::new(again)).await.unwrap().into_inner();
    let said = said_at_once(&mut other);
    assert!(matches!(said[..], [Kind::Obtaining(_), Kind::Verified(_)]), "that was proven before");
    drop(other);

    let ending = tracker.spawn(async move { while events.next().await.is_some() {} });
    let start = Instant::now();
    let mut closed = Vec::new();
    for minutes in 0..2000 {
        closed = engine.close_idle(start + MINUTES * minutes, MINUTES).await;
        if !closed.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(closed, [info.id]);
    tokio::time::timeout(MINUTES, ending).await.unwrap().unwrap();
    stop.cancel();
}
