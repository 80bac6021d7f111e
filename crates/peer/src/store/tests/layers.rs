//! Memory over disk.

use super::*;

/// A store with memory for so many groups over the disk; all of it lies in memory of its own.
fn over_disk(dir: &Path, groups: u64) -> Store {
    let medium = Medium::Layered(ByteSize(groups * GROUP_BYTES));
    let options = StoreOptions { medium, boot_id: Some([1; 16]), ..StoreOptions::default() };
    Store::open(dir, options).unwrap()
}

fn on_disk(task: &StoredTask) -> u64 {
    let content = fs::metadata(task.content_path()).unwrap();
    std::os::unix::fs::MetadataExt::blocks(&content) * 512
}

#[test]
fn what_comes_lies_in_memory_until_that_is_needed_and_is_read_from_where_it_is() {
    let dir = TempDir::new_in("/dev/shm").unwrap();
    let content = content(40 * GROUP + 77);
    let store = over_disk(dir.path(), 16);
    let task = store.create(id(1)).unwrap();
    task.set_length(content.len() as u64).unwrap();
    commit(&task, &content, GroupRange::new(0, 8)).unwrap();
    assert_eq!((on_disk(&task), store.used_memory()), (0, 8 * GROUP_BYTES));
    assert_eq!(store.relieve().unwrap(), 0, "nobody needs it");

    commit(&task, &content, GroupRange::new(8, 8)).unwrap();
    let moved = store.relieve().unwrap();
    assert!(moved >= 8 * GROUP_BYTES && store.used_memory() <= 8 * GROUP_BYTES, "{moved}");
    assert_eq!(on_disk(&task), moved);
    // What does not fit goes to the disk at once.
    commit(&task, &content, GroupRange::new(16, 25)).unwrap();
    assert_eq!(store.used_memory(), 0);
    task.take_out(&[GroupRange::new(20, 4)]).unwrap();
    commit(&task, &content, GroupRange::new(20, 4)).unwrap();
    assert_eq!(store.used_memory(), 4 * GROUP_BYTES);
    assert_eq!(task.read(whole(&content)).unwrap(), content);
    assert!(!task.complete(), "not all of it is in the content file");
    task.put_down(GroupRange::new(0, 41), u64::MAX).unwrap();
    assert!(task.complete() && store.used_memory() == 0);
    assert_eq!(fs::read(task.content_path()).unwrap(), content);
}

#[test]
fn what_goes_before_memory_is_needed_never_reaches_the_disk_and_gives_it_back() {
    let dir = TempDir::new_in("/dev/shm").unwrap();
    let content = content(8 * GROUP);
    let store = over_disk(dir.path(), 16);
    for round in 0..5 {
        let task = store.create(id(1)).unwrap();
        task.set_length(content.len() as u64).unwrap();
        commit(&task, &content, GroupRange::new(0, 8)).unwrap();
        assert_eq!((on_disk(&task), store.used_memory()), (0, 8 * GROUP_BYTES), "{round}");
        if round % 2 == 0 {
            task.take_out(&[GroupRange::new(2, 3)]).unwrap();
            assert_eq!(store.used_memory(), 5 * GROUP_BYTES);
        }
        store.remove(id(1), Pins::Count).unwrap();
        drop(task);
        assert_eq!((store.used_memory(), store.used_bytes()), (0, 0), "{round}");
    }
}

#[test]
fn a_disk_that_is_full_loses_nothing_of_what_lies_in_memory() {
    let dir = TempDir::new_in("/dev/shm").unwrap();
    let content = content(13 * GROUP);
    let store = over_disk(dir.path(), 12);
    let path = store.directory.path(id(1));
    fs::create_dir_all(&path).unwrap();
    std::os::unix::fs::symlink("/dev/full", path.join("content")).unwrap();
    let task = store.create(id(1)).unwrap();
    let keep = |groups: GroupRange| {
        let bytes = &content[groups.first as usize * GROUP..groups.end() as usize * GROUP];
        let nodes: Vec<_> = groups.iter().map(|group| (Node::group(group), [1; 32])).collect();
        task.commit(groups, bytes, &nodes)
    };
    keep(GroupRange::new(0, 11)).unwrap();
    let refused = store.relieve();
    assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{refused:?}");
    assert_eq!(task.read(ByteRange::new(0, 11 * GROUP_BYTES)).unwrap(), &content[..11 * GROUP]);
    // What does not fit into memory either is not kept.
    let full = keep(GroupRange::new(11, 2));
    assert!(matches!(full, Err(StoreError::NoSpace { .. })), "{full:?}");
}

#[test]
fn a_disk_that_fails_to_keep_what_is_put_down_is_not_trusted_again() {
    let dir = TempDir::new_in("/dev/shm").unwrap();
    let content = content(12 * GROUP);
    let store = over_disk(dir.path(), 12);
    let path = store.directory.path(id(1));
    fs::create_dir_all(&path).unwrap();
    // It takes what is written, and refuses to sync it.
    std::os::unix::fs::symlink("/dev/null", path.join("content")).unwrap();
    let task = store.create(id(1)).unwrap();
    let nodes: Vec<_> = (0..12).map(|group| (Node::group(group), [1; 32])).collect();
    task.commit(GroupRange::new(0, 12), &content, &nodes).unwrap();
    assert!(store.relieve().is_err());
    assert!(task.is_gone() && task.read(whole(&content)).is_err());
    assert!(store.task(id(1)).unwrap().is_none(), "it is dropped");
}

#[test]
fn one_that_cannot_be_put_down_and_is_in_use_keeps_no_other_from_it() {
    let dir = TempDir::new_in("/dev/shm").unwrap();
    let content = content(10 * GROUP);
    let store = over_disk(dir.path(), 12);
    let path = store.directory.path(id(1));
    fs::create_dir_all(&path).unwrap();
    std::os::unix::fs::symlink("/dev/null", path.join("content")).unwrap();
    let keep = |task: &StoredTask, count: u64| {
        let nodes: Vec<_> = (0..count).map(|group| (Node::group(group), [1; 32])).collect();
        let bytes = &content[..count as usize * GROUP];
        task.commit(GroupRange::new(0, count), bytes, &nodes).unwrap();
    };
    let failing = store.create(id(1)).unwrap();
    let _used = failing.in_use(Use::Mount).unwrap();
    keep(&failing, 10);
    assert!(store.relieve().is_err() && failing.is_gone());
    // Its memory stays taken, so it is looked at each time.
    let other = store.create(id(2)).unwrap();
    keep(&other, 2);
    assert_eq!(on_disk(&other), 0);
    assert_eq!(store.relieve().unwrap(), 2 * GROUP_BYTES);
    assert_eq!(on_disk(&other), 2 * GROUP_BYTES);
}

#[test]
fn memory_has_room_for_as_much_content_as_its_budget() {
    let dir = TempDir::new_in("/dev/shm").unwrap();
    let options = |medium| StoreOptions { medium, ..StoreOptions::default() };
    let store = Store::open(dir.path(), options(Medium::Memory(ByteSize(16 << 20)))).unwrap();
    assert_eq!(store.room_for_content(), Some(15 << 20));
    drop(store);
    let store = Store::open(dir.path(), options(Medium::Disk)).unwrap();
    assert_eq!(store.room_for_content(), None, "the disk says");
}

#[test]
fn an_orderly_end_leaves_all_of_it_on_disk() {
    let dir = TempDir::new_in("/dev/shm").unwrap();
    let content = content(12 * GROUP + 5);
    let store = over_disk(dir.path(), 64);
    let task = store.create(id(1)).unwrap();
    task.set_length(content.len() as u64).unwrap();
    commit(&task, &content, GroupRange::new(0, 13)).unwrap();
    drop(task);
    store.close(|| true).unwrap();
    store.give_memory_back().unwrap();
    drop(store);
    assert!(!dir.path().join("memory/store").exists());
    let task = open(dir.path(), 2).task(id(1)).unwrap().unwrap();
    assert_eq!(task.read(whole(&content)).unwrap(), content);
}

/// Prints how fast pieces are kept on each medium. `DFS_SLOW` names a directory on another disk than that of /var/tmp.
#[test]
#[ignore = "a measurement: run it alone, with --no-capture"]
fn how_fast_pieces_are_kept() {
    const PIECES: u64 = 512;
    let mut dirs = vec![std::path::PathBuf::from("/var/tmp")];
    dirs.extend(std::env::var_os("DFS_SLOW").map(Into::into));
    let content = content(16 * GROUP);
    let budget = ByteSize(1 << 30);
    for at in dirs {
        for medium in [Medium::Disk, Medium::Memory(budget), Medium::Layered(budget)] {
            let dir = TempDir::new_in(&at).unwrap();
            let store = Store::open(dir.path(), StoreOptions { medium, ..StoreOptions::default() })
                .unwrap();
            let task = store.create(id(1)).unwrap();
            task.set_length(PIECES * content.len() as u64).unwrap();
            let began = std::time::Instant::now();
            for piece in 0..PIECES {
                let groups = GroupRange::new(piece * 16, 16);
                let nodes: Vec<_> = groups.iter().map(|g| (Node::group(g), [7; 32])).collect();
                task.commit(groups, &content, &nodes).unwrap();
            }
            let kept = began.elapsed().as_secs_f64();
            store.close(|| true).unwrap();
            let durable = began.elapsed().as_secs_f64();
            let rate = |seconds: f64| (PIECES << 20) as f64 / 1e6 / seconds;
            let (at, medium) = (at.display(), medium.name());
            println!(
                "{at} {medium}: {:.0} MB/s kept, {:.0} MB/s durable",
                rate(kept),
                rate(durable)
            );
            drop(task);
            store.give_memory_back().unwrap();
        }
    }
}
