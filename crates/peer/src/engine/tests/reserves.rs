//! Nodes that are left alone by whoever led them.

use super::*;
use crate::digests::{Appointment, Office};

/// Tells a task who reads for all when nobody else does, by the word of one scheduler.
async fn name_reserves(task: &Task, reserves: &[&Member], scheduler: &Member) {
    let named = reserves.iter().map(|member| {
        let HostInfo { id, public_key, .. } = member.info;
        let scheduler = scheduler.engine.identity();
        Reserve {
            parent: ParentHost { host: member.info.clone(), grant: Bytes::new(), fetches: true },
            word: Appointment::sign(task.id(), Office::Reserve, (id, public_key), scheduler),
        }
    });
    task.shared.commands.send(Command::Reserves(named.collect())).await.unwrap();
}

/// What four nodes take from where, of whom the first two are reserves; how much the origin sent.
async fn all_read(field: &Field, reserves: &[&Member], readers: &[&Member]) -> (Vec<Ledger>, u64) {
    let origin = Arc::new(FakeOrigin::new(40 * GROUP + 3));
    let mut tasks = Vec::new();
    for member in readers {
        let task = member.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
        name_reserves(&task, reserves, &field.honest(Role::Node, 99, &[])).await;
        tasks.push(task);
    }
    for read in futures::future::join_all(tasks.iter().map(read_all)).await {
        assert!(read == origin.content);
    }
    (tasks.iter().map(Task::ledger).collect(), origin.sent.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_left_alone_take_what_is_missing_from_one_who_reads_for_all() {
    let field = Field::new();
    let nodes: Vec<Member> = (1..=4).map(|n| field.honest(Role::Node, n, &[])).collect();
    let all: Vec<&Member> = nodes.iter().collect();
    let (ledgers, sent) = all_read(&field, &all[..2], &all).await;
    assert_eq!(sent, 40 * GROUP + 3, "one copy: {ledgers:?}");
    assert_eq!(ledgers[0].source_bytes, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_first_is_not_there_the_second_one_reads_for_all() {
    let field = Field::new();
    let nodes: Vec<Member> = (1..=4).map(|n| field.honest(Role::Node, n, &[])).collect();
    let mut absent = field.honest(Role::Node, 5, &[]);
    absent.info.addresses = vec![SocketAddr::from(([10, 0, 0, 66], 1))];
    let all: Vec<&Member> = nodes.iter().collect();
    let (ledgers, sent) = all_read(&field, &[&absent, all[1]], &all).await;
    assert_eq!(sent, 40 * GROUP + 3, "one copy: {ledgers:?}");
    assert_eq!(ledgers[1].source_bytes, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_none_is_there_each_reads_for_itself() {
    let field = Field::new();
    let nodes: Vec<Member> = (1..=2).map(|n| field.honest(Role::Node, n, &[])).collect();
    let absent = [5, 6].map(|n| {
        let mut absent = field.honest(Role::Node, n, &[]);
        absent.info.addresses = vec![SocketAddr::from(([10, 0, 0, 60 + n], 1))];
        absent
    });
    let all: Vec<&Member> = nodes.iter().collect();
    let (ledgers, _) = all_read(&field, &absent.each_ref(), &all).await;
    assert!(ledgers.iter().all(|ledger| ledger.source_bytes == 40 * GROUP + 3), "{ledgers:?}");
}

#[tokio::test]
async fn what_a_reserve_signs_is_not_believed_before_it_is_needed() {
    let field = Field::new();
    let (reserve, scheduler) =
        (field.honest(Role::Node, 1, &[]), field.honest(Role::Node, 99, &[]));
    let (engine, _dir) = field.engine(Role::Node, &[&scheduler]);
    let task = engine.open(&FakeOrigin::new(8 * GROUP).info(), None, None).await.unwrap();
    // A second owner of the task, driven by hand.
    let (mut actor, _events) = engine.actor(&task.shared, CancellationToken::new());
    let HostInfo { id, public_key, .. } = reserve.info;
    let word = Appointment::sign(
        task.id(),
        Office::Reserve,
        (id, public_key),
        scheduler.engine.identity(),
    );
    let host = reserve.info.clone();
    let parent = ParentHost { host, grant: Bytes::new(), fetches: true };
    actor.command(Command::Reserves(vec![Reserve { parent, word }]));
    let key = || engine.inner.keyring.key(&task.id(), &id);
    assert_eq!(key(), None);
    assert!(actor.turns_to_reserve("nobody is there"));
    assert_eq!(key(), Some(public_key));
    assert!(!actor.turns_to_reserve("nor is that one"), "liveness: it reads the origin itself");
}
