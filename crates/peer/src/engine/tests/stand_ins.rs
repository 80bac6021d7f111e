//! A node that the scheduler made to stand in for a seed.

use super::*;

/// A node that was told to read the origin for others, and has.
async fn stand_in(field: &Field, origin: &Arc<FakeOrigin>) -> (Member, Task) {
    // Patient: it reads the origin because it is told to.
    let absent = field.honest(Role::Seed, 1, &[]);
    let node = field.honest(Role::Node, 2, &[&absent]);
    let task = node.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let order = Command::BackToSource { reason: "no seed is alive".to_owned(), stand_in: true };
    task.shared.commands.send(order).await.unwrap();
    assert_eq!(read_all(&task).await, origin.content);
    assert_eq!(task.ledger().source_bytes, origin.content.len() as u64);
    (node, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stand_in_reads_feeds_those_whom_the_scheduler_tells_its_key() {
    let field = Field::new();
    let origin = Arc::new(FakeOrigin::new(40 * GROUP + 3));
    let (parent, held) = stand_in(&field, &origin).await;
    assert!((0..41).all(|group| held.stored().is_signed(group)), "it signs what it reads");
    let child = field.honest(Role::Node, 3, &[&parent_less(&field)]);
    let task = child.engine.open(&origin.info(), None, None).await.unwrap();
    let key = (parent.info.id, parent.info.public_key);
    task.shared
        .commands
        .send(Command::Signers { keys: vec![key], appointments: Vec::new() })
        .await
        .unwrap();
    give_parents(&task, &[&parent]).await;
    assert_eq!(read_all(&task).await, origin.content);
    assert_eq!(task.ledger().parent_bytes(None), origin.content.len() as u64);
    assert_eq!(origin.sent.load(Ordering::Relaxed), origin.content.len() as u64, "one copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_had_read_for_itself_before_feeds_them_too() {
    let field = Field::new();
    let origin = Arc::new(FakeOrigin::new(40 * GROUP + 3));
    let absent = field.honest(Role::Seed, 1, &[]);
    let parent = field.honest(Role::Node, 2, &[&absent]);
    let held = parent.engine.open(&origin.info(), None, Some(origin.clone())).await.unwrap();
    let told = |stand_in| Command::BackToSource { reason: "no seed is alive".to_owned(), stand_in };
    held.shared.commands.send(told(false)).await.unwrap();
    held.ensure(ByteRange::new(0, 5 * GROUP), Priority::Demand).await.unwrap();
    assert!(!held.stored().is_signed(0));
    held.shared.commands.send(told(true)).await.unwrap();
    assert_eq!(read_all(&held).await, origin.content);
    let child = field.honest(Role::Node, 3, &[&parent_less(&field)]);
    let task = child.engine.open(&origin.info(), None, None).await.unwrap();
    let keys = vec![(parent.info.id, parent.info.public_key)];
    let signers = Command::Signers { keys, appointments: Vec::new() };
    task.shared.commands.send(signers).await.unwrap();
    give_parents(&task, &[&parent]).await;
    let reading = tokio::time::timeout(Duration::from_secs(20), read_all(&task));
    assert!(reading.await.expect("it cannot prove what it has") == origin.content);
    assert_eq!(origin.sent.load(Ordering::Relaxed), origin.content.len() as u64, "one copy");
}

/// Somebody to be patient for.
fn parent_less(field: &Field) -> Member {
    field.honest(Role::Seed, 9, &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_believes_a_node_that_the_scheduler_did_not_name_for_the_task() {
    let field = Field::new();
    let origin = Arc::new(FakeOrigin::new(3 * GROUP));
    let (parent, _held) = stand_in(&field, &origin).await;
    // It has nobody to be patient for, and no origin: it says so soon.
    let child = field.honest(Role::Node, 3, &[]);
    let key = (parent.info.id, parent.info.public_key);
    child.engine.inner.keyring.learn_stand_ins(TaskId::from_bytes([7; 32]), vec![key]);
    let task = child.engine.open(&origin.info(), None, None).await.unwrap();
    give_parents(&task, &[&parent]).await;
    let read = task.read(ByteRange::new(0, GROUP), Priority::Demand).await;
    assert!(matches!(read, Err(ReadError::Swarm(_))), "{read:?}");
    assert!(task.stored().have().is_empty());
}
