//! Parts that go while the task stays in use.

use std::sync::atomic::AtomicBool;

use rustix::fs::{FlockOperation, flock};

use super::*;

#[test]
fn what_is_taken_out_is_missing_gives_its_disk_back_and_can_come_again() {
    let dir = TempDir::new().unwrap();
    let content = content(40 * GROUP + 77);
    let (store, task) = kept(dir.path(), 1, &content);
    let _used = task.in_use(Use::Mount).unwrap();
    let before = store.used_bytes();
    let runs = [GroupRange::new(3, 8), GroupRange::new(40, 1)];
    let taken = task.take_out(&runs).unwrap();
    assert_eq!(taken.groups, runs);
    assert!(taken.freed.0 >= 8 * GROUP_BYTES, "{}", taken.freed);
    assert_eq!(store.used_bytes(), before - taken.freed.0);
    let gone = task.read(runs[0].bytes(content.len() as u64));
    assert!(matches!(gone, Err(StoreError::Missing { .. })), "{gone:?}");
    assert!(!task.complete() && task.take_out(&runs).unwrap().groups.is_empty());
    // What proves them stays: children ask for it, and whoever brings them again needs no more.
    assert!(task.node(Node::group(5)).is_some());
    commit(&task, &content, runs[0]).unwrap();
    commit(&task, &content, runs[1]).unwrap();
    assert_eq!(task.read(whole(&content)).unwrap(), content);
}

#[test]
fn nothing_is_taken_out_of_what_is_pinned_or_read_without_the_store() {
    let dir = TempDir::new().unwrap();
    let content = content(40 * GROUP);
    let (store, task) = kept(dir.path(), 1, &content);
    let some = [GroupRange::new(0, 40)];
    store.pin(id(1)).unwrap();
    assert_eq!(task.take_out(&some).unwrap(), TakenOut::default());
    store.unpin(id(1)).unwrap();

    // By its path.
    let other = fs::File::open(task.content_path()).unwrap();
    flock(&other, FlockOperation::LockShared).unwrap();
    assert_eq!(task.take_out(&some).unwrap(), TakenOut::default());
    drop(other);

    // By somebody of whom nothing is known here: the kernel, for a mount of an earlier agent.
    let unknown = fs::File::open(task.content_path()).unwrap();
    assert_eq!(task.take_out(&some).unwrap(), TakenOut::default());
    drop(unknown);

    let mapped = task.mapped().unwrap();
    assert_eq!(task.take_out(&some).unwrap(), TakenOut::default());
    assert_eq!(mapped, content);
    drop(mapped);

    // By the kernel, as long as it does.
    let direct = task.read_directly(Reads::UntilSaid);
    assert_eq!(task.take_out(&some).unwrap(), TakenOut::default());
    drop(direct);
    assert_eq!(task.take_out(&some).unwrap().groups, some);
    commit(&task, &content, some[0]).unwrap();

    // By somebody who was told of it a moment ago.
    let direct = task.read_directly(Reads::AWhileLonger);
    assert_eq!(task.take_out(&some).unwrap(), TakenOut::default());
    drop(direct);
    assert_eq!(task.take_out(&some).unwrap(), TakenOut::default());
}

#[test]
fn what_is_taken_out_is_not_vouched_for_by_an_older_mark() {
    let dir = TempDir::new().unwrap();
    let content = content(6 * GROUP);
    let (store, task) = kept(dir.path(), 1, &content);
    drop(task);
    store.close(|| true).unwrap();
    drop(store);
    let store = open(dir.path(), 2);
    let task = store.task(id(1)).unwrap().unwrap();
    task.take_out(&[GroupRange::new(2, 2)]).unwrap();
    drop((task, store));
    // The machine dies.
    let task = open(dir.path(), 3).task(id(1)).unwrap().unwrap();
    assert!(matches!(task.read(whole(&content)), Err(StoreError::Missing { .. })));
    let rest = ByteRange::new(0, 2 * GROUP_BYTES);
    assert_eq!(task.read(rest).unwrap(), &content[..2 * GROUP]);
}

#[test]
fn who_has_looked_before_parts_go_does_not_read_a_hole() {
    let dir = TempDir::new().unwrap();
    let content = content(8 * GROUP);
    let (_store, task) = kept(dir.path(), 1, &content);
    let goes = task.clone();
    task.interrupt(move || {
        let gone = goes.take_out(&[GroupRange::new(3, 1)]).unwrap();
        assert_eq!(gone.groups.len(), 1);
    });
    let Err(StoreError::Missing { groups, .. }) = task.read(whole(&content)) else {
        panic!("a hole was read");
    };
    assert_eq!(groups, GroupRange::new(3, 1));
    commit(&task, &content, GroupRange::new(3, 1)).unwrap();

    let (goes, bytes) = (task.clone(), content.clone());
    task.interrupt(move || {
        goes.take_out(&[GroupRange::new(3, 1)]).unwrap();
        commit(&goes, &bytes, GroupRange::new(3, 1)).unwrap();
    });
    assert!(task.read(whole(&content)).unwrap() == content);
}

#[test]
fn no_hole_is_made_where_somebody_writes_or_judges() {
    let dir = TempDir::new().unwrap();
    let content = content(8 * GROUP);
    let (store, task) = kept(dir.path(), 1, &content);
    assert!(task.could_be_taken_out());
    task.take_out(&[GroupRange::new(3, 1)]).unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let look = || {
        let (other, seen) = (task.clone(), Arc::clone(&seen));
        task.interrupt(move || {
            assert!(!other.could_be_taken_out());
            seen.fetch_add(1, Relaxed);
        });
    };
    look();
    commit(&task, &content, GroupRange::new(3, 1)).unwrap();
    assert_eq!(seen.load(Relaxed), 1, "while it is written");
    look();
    assert_eq!(store.verify(None).unwrap()[0].bad, []);
    assert_eq!(seen.load(Relaxed), 2, "while it is hashed");
}

#[test]
fn who_reads_while_parts_go_and_come_never_reads_a_hole() {
    let dir = TempDir::new().unwrap();
    let content = content(8 * GROUP);
    let (_store, task) = kept(dir.path(), 1, &content);
    let all = GroupRange::new(0, 8);
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                threads.spawn(|| {
                    let mut read = 0;
                    while !over.load(Relaxed) {
                        match task.read(whole(&content)) {
                            Ok(bytes) => {
                                assert!(bytes == content, "a hole was read");
                                read += 1;
                            }
                            Err(StoreError::Missing { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                        // Nor takes a check a hole for damage: what it would find bad is forgotten for good.
                        assert_eq!(task.verify(GroupRange::new(0, 1)).unwrap().bad, []);
                    }
                    read
                })
            })
            .collect();
        for _ in 0..600 {
            assert_eq!(task.take_out(&[all]).unwrap().groups, [all]);
            commit(&task, &content, all).unwrap();
        }
        over.store(true, Relaxed);
        let read: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(read > 0, "they read something");
    });
}
