//! Following what a parent holds.

use bytes::Bytes;
use dfs_model::{GroupRange, TaskId};

use super::rig::*;
use crate::wire::*;

fn watch(task: TaskId) -> WatchRequest {
    WatchRequest { task, grant: Bytes::new() }
}

async fn sender(rig: &Rig, nth: usize) -> tokio::sync::mpsc::UnboundedSender<HaveUpdate> {
    eventually("the provider is asked", || rig.played.updates.lock().len() > nth).await;
    rig.played.updates.lock()[nth].clone()
}

async fn until(watch: &mut HaveWatch, what: &str, condition: impl Fn(&Holding) -> bool) {
    while !condition(&watch.current()) {
        assert!(watch.changed().await, "ended before: {what}");
    }
}

#[tokio::test(start_paused = true)]
async fn snapshots_replace_and_deltas_add() {
    let rig = Rig::new();
    let connection = rig.connect().await;
    let mut watched = connection.watch(watch(Script::Gives.task()), 1 << 20);
    let updates = sender(&rig, 0).await;
    let many: Vec<_> = (0..10_000).map(|at| GroupRange::new(at * 2, 1)).collect();
    let update = HaveUpdate { snapshot: true, groups: many, ..HaveUpdate::default() };
    updates.send(update).unwrap();
    until(&mut watched, "all runs", |holding| holding.groups.len() == 10_000).await;
    let delta = HaveUpdate {
        length: Some(5),
        groups: vec![GroupRange::new(1, 1), GroupRange::new((1 << 20) - 1, 9)],
        ..HaveUpdate::default()
    };
    updates.send(delta).unwrap();
    until(&mut watched, "the delta", |holding| holding.length == Some(5)).await;
    assert!(watched.current().holds(GroupRange::new(0, 3)));
    assert_eq!(watched.current().groups.len(), 10_002, "beyond the limit nothing is recorded");
    let full = HaveUpdate { full: true, snapshot: true, ..HaveUpdate::default() };
    updates.send(full).unwrap();
    until(&mut watched, "full", |holding| holding.full && holding.groups.is_empty()).await;
    assert!(watched.current().holds(GroupRange::new(77, 3)));
    drop((watched, updates, connection));
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_watcher_ends_the_watch() {
    let rig = Rig::new();
    let connection = rig.connect().await;
    let first = connection.watch(watch(Script::Gives.task()), 100);
    sender(&rig, 0).await;
    let second = connection.watch(watch(Script::Gives.task()), 100);
    drop(first);
    assert_eq!(collect(connection.request(Script::Gives.ask(0, 1))).await, Ok(1));
    assert_eq!(rig.ended(), 1, "only the request ended");
    drop(second);
    eventually("the provider stops", || rig.ended() == 2).await;
    drop(connection);
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_dropped_can_be_watched_again() {
    let rig = Rig::new();
    let connection = rig.connect().await;
    let mut watched = connection.watch(watch(Script::Gives.task()), 100);
    drop(sender(&rig, 0).await);
    rig.played.updates.lock().clear();
    while watched.changed().await {}
    assert!(watched.current().ended);
    let mut again = connection.watch(watch(Script::Gives.task()), 100);
    drop(watched);
    let updates = sender(&rig, 0).await;
    let groups = vec![GroupRange::new(3, 1)];
    updates.send(HaveUpdate { groups, ..HaveUpdate::default() }).unwrap();
    until(&mut again, "news", |holding| holding.groups.contains(3)).await;
    drop((again, updates, connection));
    rig.finish().await;
}

#[tokio::test(start_paused = true)]
async fn watches_end_with_their_connection_and_unknown_tasks_at_once() {
    let rig = Rig::new();
    let connection = rig.connect().await;
    let mut unknown = connection.watch(watch(Script::Refuses.task()), 100);
    assert!(unknown.changed().await && unknown.current().ended);
    let mut watched = connection.watch(watch(Script::Gives.task()), 100);
    sender(&rig, 0).await;
    connection.close("for the test");
    while watched.changed().await {}
    assert!(watched.current().ended);
    let late = connection.watch(watch(Script::Gives.task()), 100);
    assert!(late.current().ended);
    drop((unknown, watched, late, connection));
    rig.finish().await;
}
