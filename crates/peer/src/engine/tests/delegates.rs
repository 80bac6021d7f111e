//! A node that leads its neighbours.

use super::*;

/// Tells a child that this host gives it what it wants, and fetches what it lacks itself.
async fn give_delegate(task: &Task, delegate: &Member) {
    let host = ParentHost { host: delegate.info.clone(), grant: Bytes::new(), fetches: true };
    let parents = Command::Parents { parents: vec![host], led: false };
    task.shared.commands.send(parents).await.unwrap();
}

/// Reads what the delegate lacks below it, when the child has been told `before` of it.
async fn read_below(before: impl Fn(&Member) -> Option<Command>) {
    let field = Field::new();
    let origin = Arc::new(FakeOrigin::new(40 * GROUP + 3));
    let seed = field.honest(Role::Seed, 1, &[]);
    let _seeded = seed.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let delegate = field.honest(Role::Node, 2, &[&seed]);
    let leading = delegate.engine.open(&origin.info(), None, None).await.unwrap();
    give_parents(&leading, &[&seed]).await;
    leading.lead();
    let child = field.honest(Role::Node, 3, &[&seed]);
    let task = child.engine.open(&origin.info(), None, None).await.unwrap();
    if let Some(before) = before(&delegate) {
        task.shared.commands.send(before).await.unwrap();
    }
    give_delegate(&task, &delegate).await;
    let range = ByteRange::new(5 * GROUP, 7 * GROUP);
    let read = tokio::time::timeout(Duration::from_secs(20), task.read(range, Priority::Demand));
    let read = read.await.expect("it is not asked to fetch").unwrap();
    assert!(read == origin.content.slice(range.start as usize..range.end as usize));
    assert!(
        leading.stored().has(GroupRange::new(5, 2))
            && !leading.stored().has(GroupRange::new(20, 20))
    );
    assert_eq!(task.ledger().parent_bytes(Some(dfs_model::HostKind::Node)), range.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_below_a_delegate_of_what_it_lacks_has_it_fetch_it_and_no_more() {
    read_below(|_| None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gave_by_lease_before_fetches_once_it_is_a_parent_that_does() {
    read_below(|delegate| {
        let host = delegate.info.clone();
        let partners = vec![ParentHost { host, grant: Bytes::new(), fetches: false }];
        Some(Command::Leases { leases: Vec::new(), withdrawn: Vec::new(), partners })
    })
    .await;
}
