mod holes;
mod layers;
mod model;
mod signatures;
mod verified;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use dfs_model::{ByteRange, GROUP_BYTES, groups_in};
use tempfile::TempDir;

use super::*;
use crate::hashtree::{Cv, Node, Shape, fold, group_digests};

const GROUP: usize = GROUP_BYTES as usize;

fn id(number: u8) -> TaskId {
    TaskId::from_bytes([number; 32])
}

fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"stored").finalize_xof().fill(&mut bytes);
    bytes
}

fn open(dir: &Path, boot: u8) -> Store {
    Store::open(dir, StoreOptions { boot_id: Some([boot; 16]), ..StoreOptions::default() }).unwrap()
}

/// The nodes of `groups` and all that fold from them, as a verified download gives them.
fn nodes_of(shape: Shape, groups: GroupRange, bytes: &[u8]) -> Vec<(Node, Cv)> {
    let cvs = group_digests(shape, groups, bytes).unwrap();
    let mut nodes: Vec<_> = groups.iter().map(Node::group).zip(cvs).collect();
    for level in 1..=shape.root().unwrap().level {
        let of_level =
            (groups.first >> level..=groups.end() >> level).map(|index| Node::new(level, index));
        for node in of_level.filter_map(|node| shape.canonical(node)) {
            let covered = shape.groups_of(node);
            if node.level == level && covered.intersection(groups) == covered {
                let known =
                    |node| nodes.iter().find(|(known, _)| *known == node).map(|(_, cv)| *cv);
                nodes.push((node, fold(shape, node, known).unwrap()));
            }
        }
    }
    nodes
}

fn commit(task: &StoredTask, content: &[u8], groups: GroupRange) -> Result<(), StoreError> {
    let range = groups.bytes(content.len() as u64);
    let bytes = &content[range.start as usize..range.end as usize];
    task.commit(groups, bytes, &nodes_of(task.shape(), groups, bytes))
}

/// A whole task kept under `boot`, its store still open.
fn kept(dir: &Path, boot: u8, content: &[u8]) -> (Store, StoredTask) {
    let store = open(dir, boot);
    let task = store.create(id(1)).unwrap();
    let length = content.len() as u64;
    task.set_length(length).unwrap();
    commit(&task, content, GroupRange::new(0, groups_in(length))).unwrap();
    (store, task)
}

fn damage(dir: &Path, name: &str, at: u64) {
    let path = fs::read_dir(dir.join("tasks/01")).unwrap().next().unwrap().unwrap().path();
    let file = OpenOptions::new().read(true).write(true).open(path.join(name)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
}

fn whole(content: &[u8]) -> ByteRange {
    ByteRange::new(0, content.len() as u64)
}

#[test]
fn one_process_at_a_time() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 1);
    let refused = Store::open(dir.path(), StoreOptions::default()).unwrap_err();
    let own = std::process::id();
    assert!(
        matches!(&refused, StoreError::Busy { pid: Some(pid), .. } if *pid == own),
        "{refused}"
    );
    drop(store);
    open(dir.path(), 1);
}

#[test]
fn what_was_kept_is_read_and_what_was_not_is_missing() {
    let dir = TempDir::new().unwrap();
    let content = content(5 * GROUP + 9);
    let store = open(dir.path(), 1);
    let task = store.create(id(1)).unwrap();
    task.set_length(content.len() as u64).unwrap();
    commit(&task, &content, GroupRange::new(4, 2)).unwrap();
    let range = ByteRange::new(4 * GROUP_BYTES + 5, 5 * GROUP_BYTES + 9);
    assert_eq!(task.read(range).unwrap(), content[range.start as usize..range.end as usize]);
    let missing = task.read(ByteRange::new(0, 5 * GROUP_BYTES)).unwrap_err();
    assert!(
        matches!(missing, StoreError::Missing { groups, .. } if groups == GroupRange::new(0, 4))
    );
    assert_eq!(task.missing_in(GroupRange::new(3, 3)), [GroupRange::new(3, 1)]);
    for hostile in [ByteRange::new(0, u64::MAX), ByteRange::new(u64::MAX - 1, u64::MAX)] {
        assert!(task.read(hostile).is_err());
    }
    assert!(!task.complete());
    commit(&task, &content, GroupRange::new(0, 4)).unwrap();
    assert!(task.complete() && task.has(GroupRange::new(0, 6)));
    assert!(task.node(Node::new(2, 0)).is_some() && task.node(Node::new(3, 0)).is_none());
    assert_eq!(fs::metadata(task.content_path()).unwrap().len(), content.len() as u64);
}

#[test]
fn groups_that_the_content_does_not_have_are_refused() {
    let dir = TempDir::new().unwrap();
    let task = open(dir.path(), 1).create(id(1)).unwrap();
    assert!(task.commit(GroupRange::new(0, 1), &[0; 9], &[]).is_err(), "the end is not known");
    task.commit(GroupRange::new(1, 1), &[7; GROUP], &[]).unwrap();
    assert!(task.set_length(GROUP_BYTES).is_err(), "more is here");
    task.set_length(2 * GROUP_BYTES + 9).unwrap();
    assert!(task.set_length(2 * GROUP_BYTES).is_err(), "the length is known");
    assert!(task.commit(GroupRange::new(2, 1), &[0; 10], &[]).is_err());
    assert!(task.commit(GroupRange::new(u64::MAX, 2), &[0; 10], &[]).is_err());
    let foreign = [(Node::new(3, 0), [1; 32])];
    let refused = task.commit(GroupRange::new(2, 1), &[0; 9], &foreign);
    assert!(matches!(refused, Err(StoreError::Misplaced { .. })));
    assert!(!task.has(GroupRange::new(2, 1)));
}

#[test]
fn a_kill_loses_nothing_and_doubts_nothing() {
    let dir = TempDir::new().unwrap();
    let content = content(3 * GROUP + 1);
    drop(kept(dir.path(), 1, &content));
    let task = open(dir.path(), 1).task(id(1)).unwrap().unwrap();
    assert!(task.complete());
    assert_eq!(task.read(whole(&content)).unwrap(), content);
}

#[test]
fn after_a_power_cut_only_what_still_matches_is_used() {
    let dir = TempDir::new().unwrap();
    let content = content(3 * GROUP + 1);
    drop(kept(dir.path(), 1, &content));
    damage(dir.path(), "content", GROUP_BYTES + 7);
    let store = open(dir.path(), 2);
    let task = store.task(id(1)).unwrap().unwrap();
    assert!(!task.complete() && task.has(GroupRange::new(0, 4)), "in doubt, not lost");
    let missing = task.read(whole(&content)).unwrap_err();
    assert!(
        matches!(missing, StoreError::Missing { groups, .. } if groups == GroupRange::new(1, 1))
    );
    commit(&task, &content, GroupRange::new(1, 1)).unwrap();
    assert_eq!(task.read(whole(&content)).unwrap(), content);
    assert!(task.complete());
}

#[test]
fn files_that_were_swapped_while_nobody_looked_are_found_out() {
    let dir = TempDir::new().unwrap();
    let contents = [content(2 * GROUP + 3), vec![7; 2 * GROUP + 3]];
    let store = open(dir.path(), 1);
    let paths: Vec<_> = (1..=2_u8)
        .map(|number| {
            let (task, content) =
                (store.create(id(number)).unwrap(), &contents[usize::from(number) - 1]);
            task.set_length(content.len() as u64).unwrap();
            commit(&task, content, GroupRange::new(0, 3)).unwrap();
            task.content_path()
        })
        .collect();
    store.close(|| true).unwrap();
    drop(store);
    let aside = dir.path().join("aside");
    fs::rename(&paths[0], &aside).unwrap();
    fs::rename(&paths[1], &paths[0]).unwrap();
    fs::rename(&aside, &paths[1]).unwrap();
    let store = open(dir.path(), 1);
    for number in [1, 2] {
        let task = store.task(id(number)).unwrap().unwrap();
        assert!(matches!(task.read(whole(&contents[0])), Err(StoreError::Missing { .. })));
    }
}

#[test]
fn what_a_newer_release_kept_is_set_aside_and_the_task_is_usable() {
    let dir = TempDir::new().unwrap();
    let content = content(GROUP + 1);
    let (store, task) = kept(dir.path(), 1, &content);
    let state = task.content_path().with_file_name("state");
    drop((store, task));
    let mut newer = fs::read(&state).unwrap();
    state::renumber(&mut newer, 7);
    fs::write(&state, &newer).unwrap();
    let store = open(dir.path(), 1);
    let task = store.task(id(1)).unwrap().unwrap();
    assert!(task.have().is_empty());
    assert_eq!(fs::read(state.with_extension("7")).unwrap(), newer, "it waits for that release");
    task.set_length(content.len() as u64).unwrap();
    commit(&task, &content, GroupRange::new(0, 2)).unwrap();
    assert_eq!(task.read(whole(&content)).unwrap(), content);
}

/// What signed digests cover is not lost with the state, and is hashed before it is used.
#[test]
fn what_a_newer_release_kept_is_verified_by_the_signed_digests_where_there_are_some() {
    let content = content(6 * GROUP + 1);
    let (shape, length) = (Shape::known(content.len() as u64), content.len() as u64);
    for is_newer in [true, false] {
        let dir = TempDir::new().unwrap();
        let (store, task) = kept(dir.path(), 1, &content);
        let all = nodes_of(shape, GroupRange::new(0, 7), &content);
        let signs = |wanted: &[Node]| {
            let entries = all.iter().copied().filter(|(node, _)| wanted.contains(node)).collect();
            signatures::signed(Some(length), entries)
        };
        // A piece of four groups by one digest, two groups by their own, the last one by none.
        task.add_signed(&signs(&[Node::group(4), Node::group(5)])).unwrap();
        task.add_signed(&signs(&[Node::new(2, 0)])).unwrap();
        let state = task.content_path().with_file_name("state");
        drop((store, task));
        damage(dir.path(), "content", 5 * GROUP_BYTES + 7);
        let mut bytes = fs::read(&state).unwrap();
        match is_newer {
            true => state::renumber(&mut bytes, 7),
            false => bytes[20] ^= 1,
        }
        fs::write(&state, &bytes).unwrap();
        let store = open(dir.path(), 1);
        let task = store.task(id(1)).unwrap().unwrap();
        assert_eq!(task.length(), Some(length));
        assert_eq!(task.have().ranges().collect::<Vec<_>>(), [GroupRange::new(0, 6)]);
        assert!(task.read(ByteRange::at(5 * GROUP_BYTES, 9)).is_err(), "its bytes are wrong");
        let read = task.read(ByteRange::new(0, 5 * GROUP_BYTES)).unwrap();
        assert!(read[..] == content[..5 * GROUP]);
        assert_eq!(task.have().ranges().collect::<Vec<_>>(), [GroupRange::new(0, 5)]);
        commit(&task, &content, GroupRange::new(5, 2)).unwrap();
        assert_eq!(task.read(whole(&content)).unwrap(), content);
        assert!(!is_newer || state.with_extension("7").exists(), "it waits for that release");
    }
}

#[test]
fn doubt_outlives_the_process_that_did_not_resolve_it() {
    let dir = TempDir::new().unwrap();
    let content = content(2 * GROUP);
    drop(kept(dir.path(), 1, &content));
    damage(dir.path(), "content", 7);
    let store = open(dir.path(), 2);
    let task = store.task(id(1)).unwrap().unwrap();
    assert_eq!(task.read(ByteRange::at(GROUP_BYTES, 9)).unwrap(), content[GROUP..GROUP + 9]);
    drop((store, task));
    let store = open(dir.path(), 2);
    let task = store.task(id(1)).unwrap().unwrap();
    assert!(task.read(ByteRange::at(0, 9)).is_err());
    assert!(task.read(ByteRange::at(GROUP_BYTES, 9)).is_ok());
}

#[test]
fn what_is_not_as_it_should_be_hides_nothing_beside_it() {
    let dir = TempDir::new().unwrap();
    let content = content(3 * GROUP);
    drop(kept(dir.path(), 1, &content));
    damage(dir.path(), "content", GROUP_BYTES + 7);
    let store = open(dir.path(), 2);
    let task = store.task(id(1)).unwrap().unwrap();
    let all = GroupRange::new(0, 3);
    assert_eq!(task.ready_in(all), [GroupRange::new(0, 1), GroupRange::new(2, 1)]);
    assert_eq!(task.missing_in(all), [GroupRange::new(1, 1)]);
}

#[test]
fn a_clean_end_spares_the_next_boot_all_hashing_until_something_is_added() {
    let dir = TempDir::new().unwrap();
    let content = content(4 * GROUP);
    let store = open(dir.path(), 1);
    let task = store.create(id(1)).unwrap();
    task.set_length(content.len() as u64).unwrap();
    commit(&task, &content, GroupRange::new(0, 3)).unwrap();
    let state = task.content_path().with_file_name("state");
    drop(task);
    store.close(|| true).unwrap();
    drop(store);
    let marked = fs::read(&state).unwrap();

    let store = open(dir.path(), 2);
    let task = store.task(id(1)).unwrap().unwrap();
    assert_eq!(task.settle(GroupRange::new(0, 4)).unwrap().checked, 0);
    commit(&task, &content, GroupRange::new(3, 1)).unwrap();
    drop((store, task));
    // The power goes when the new record has reached the disk, and the header that takes the mark away
    // has not: the mark must not vouch for what came later.
    let file = OpenOptions::new().write(true).open(&state).unwrap();
    file.write_all_at(&marked[..4096], 0).unwrap();
    let store = open(dir.path(), 3);
    let task = store.task(id(1)).unwrap().unwrap();
    assert_eq!(task.settle(GroupRange::new(0, 4)).unwrap().checked, 4);
    assert!(task.complete());
}

#[test]
fn a_state_that_is_cut_off_or_garbage_costs_one_task_and_no_more() {
    let dir = TempDir::new().unwrap();
    let content = content(2 * GROUP);
    drop(kept(dir.path(), 1, &content));
    damage(dir.path(), "state", 20);
    let store = open(dir.path(), 1);
    let task = store.task(id(1)).unwrap().unwrap();
    assert!(task.have().is_empty() && task.length().is_none());
    task.set_length(content.len() as u64).unwrap();
    commit(&task, &content, GroupRange::new(0, 2)).unwrap();
    assert_eq!(task.read(whole(&content)).unwrap(), content);
}

#[test]
fn a_content_cut_short_is_missing_not_wrong() {
    let dir = TempDir::new().unwrap();
    let content = content(3 * GROUP);
    let (_store, task) = kept(dir.path(), 1, &content);
    task.content_file().set_len(GROUP_BYTES + 5).unwrap();
    assert!(matches!(task.read(whole(&content)), Err(StoreError::Missing { .. })));
    assert!(!task.complete(), "the error was noted");
}

#[test]
fn a_task_whose_files_open_slowly_holds_up_nobody_else() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 1);
    drop(store.create(id(1)).unwrap());
    let slow = Arc::clone(&store.tasks.lock()[&id(1)].opened);
    let opening = slow.lock();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.task(id(1)).unwrap().unwrap());
        let presence = Arc::clone(&store.tasks.lock()[&id(1)].presence);
        while !presence.summary().in_use.any() {
            std::thread::yield_now();
        }
        store.create(id(2)).unwrap();
        assert_eq!(store.list().len(), 2);
        // What is being opened is not taken away under whoever opens it.
        let swept = store.make_room(SystemTime::now(), ByteSize(u64::MAX)).unwrap();
        assert_eq!(swept.evicted, [id(2)]);
        assert!(!waiting.is_finished());
        drop(opening);
        waiting.join().unwrap();
    });
}

#[test]
fn an_end_without_time_stops_between_tasks_and_says_what_is_not_marked() {
    let dir = TempDir::new().unwrap();
    let content = content(2 * GROUP);
    let store = open(dir.path(), 1);
    for number in 1..=3 {
        let task = store.create(id(number)).unwrap();
        task.set_length(content.len() as u64).unwrap();
        commit(&task, &content, GroupRange::new(0, 2)).unwrap();
    }
    assert_eq!(store.close(|| false).unwrap().unmarked, 3);
    let mut time = 1;
    let in_time = || {
        time -= 1;
        time >= 0
    };
    let CloseReport { unmarked, bytes } = store.close(in_time).unwrap();
    assert!(unmarked == 2 && bytes >= 4 * GROUP_BYTES, "{unmarked} tasks of {bytes} bytes");
    drop(store);

    let store = open(dir.path(), 2);
    let mut verified = Vec::new();
    for number in 1..=3 {
        let task = store.task(id(number)).unwrap().unwrap();
        verified.push(task.settle(GroupRange::new(0, 2)).unwrap().checked);
        assert_eq!(task.read(whole(&content)).unwrap(), content);
    }
    verified.sort_unstable();
    assert_eq!(verified, [0, 2, 2], "nothing is lost");
    assert_eq!(store.close(|| true).unwrap(), CloseReport::default());
}

#[test]
fn a_full_disk_records_nothing() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 1);
    let path = store.directory.path(id(1));
    fs::create_dir_all(&path).unwrap();
    std::os::unix::fs::symlink("/dev/full", path.join("content")).unwrap();
    let task = store.create(id(1)).unwrap();
    let full = task.commit(GroupRange::new(0, 1), &[1; GROUP], &[(Node::group(0), [1; 32])]);
    assert!(matches!(full, Err(StoreError::NoSpace { .. })), "{full:?}");
    assert!(task.have().is_empty() && task.node(Node::group(0)).is_none());
    // It cannot be synced either: what cannot be made durable is dropped at the end.
    drop(task);
    store.close(|| true).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_content_that_ends_on_a_group_is_as_long_as_before_and_trusted_after_a_clean_end() {
    let dir = TempDir::new().unwrap();
    let content = content(2 * GROUP + 7);
    let (store, task) = kept(dir.path(), 1, &content);
    let in_file = |task: &StoredTask| fs::metadata(task.content_path()).unwrap().len();
    let end_cleanly = |store: Store, task: StoredTask| {
        drop(task);
        store.close(|| true).unwrap();
        drop(store);
        let store = open(dir.path(), 2);
        let task = store.task(id(1)).unwrap().unwrap();
        assert_eq!(task.settle(GroupRange::new(0, 3)).unwrap().checked, 0);
        (store, task)
    };
    let (store, task) = end_cleanly(store, task);
    for _ in 0..2 {
        let _end = task.keep_end(Ends::OnGroup).unwrap();
        assert_eq!(in_file(&task), 3 * GROUP_BYTES);
    }
    let (store, task) = end_cleanly(store, task);
    assert_eq!(in_file(&task), 3 * GROUP_BYTES);
    assert_eq!(task.read(whole(&content)).unwrap(), content);
    assert!(task.complete() && task.length() == Some(content.len() as u64));
    let unknown = store.create(id(2)).unwrap();
    let _end = unknown.keep_end(Ends::OnGroup).unwrap();
    assert_eq!(in_file(&unknown), 0);
}

#[test]
fn a_file_ends_where_who_reads_it_needs_it_to_and_nowhere_else_meanwhile() {
    let dir = TempDir::new().unwrap();
    let content = content(2 * GROUP + 7);
    let (_store, task) = kept(dir.path(), 1, &content);
    let in_file = || fs::metadata(task.content_path()).unwrap().len();
    let refused = |ends| matches!(task.keep_end(ends), Err(StoreError::EndsElsewhere(_)));
    for _ in 0..2 {
        let on_group = task.keep_end(Ends::OnGroup).unwrap();
        let again = task.keep_end(Ends::OnGroup).unwrap();
        assert_eq!(in_file(), 3 * GROUP_BYTES);
        drop(on_group);
        assert!(refused(Ends::WithContent));
        assert_eq!(in_file(), 3 * GROUP_BYTES);
        drop(again);

        let with_content = task.keep_end(Ends::WithContent).unwrap();
        assert_eq!(in_file(), content.len() as u64);
        assert!(refused(Ends::OnGroup));
        assert_eq!(in_file(), content.len() as u64);
        drop(with_content);
    }
    assert_eq!(task.read(whole(&content)).unwrap(), content);
    // Both are one where it ends on a group anyhow.
    let even = kept(TempDir::new().unwrap().path(), 2, &self::content(2 * GROUP)).1;
    let _ends = [Ends::OnGroup, Ends::WithContent].map(|ends| even.keep_end(ends).unwrap());
}

#[test]
fn a_file_that_somebody_unknown_has_open_ends_where_it_did() {
    let dir = TempDir::new().unwrap();
    let content = content(2 * GROUP + 7);
    let (_store, task) = kept(dir.path(), 1, &content);
    let in_file = || fs::metadata(task.content_path()).unwrap().len();
    let refused = |ends| matches!(task.keep_end(ends), Err(StoreError::EndsElsewhere(_)));
    for (own, other) in [(Ends::OnGroup, Ends::WithContent), (Ends::WithContent, Ends::OnGroup)] {
        drop(task.keep_end(own).unwrap());
        let ends = in_file();
        // The kernel, for a mount of an earlier agent that has no name any more.
        let unknown = fs::File::open(task.content_path()).unwrap();
        assert!(refused(other));
        assert_eq!(in_file(), ends);
        drop(task.keep_end(own).unwrap());
        drop(unknown);
        drop(task.keep_end(other).unwrap());
        assert_ne!(in_file(), ends);
    }
}

#[test]
fn the_capacity_is_a_limit() {
    let dir = TempDir::new().unwrap();
    let capacity = Some(ByteSize(4 * GROUP_BYTES));
    let store =
        Store::open(dir.path(), StoreOptions { capacity, ..StoreOptions::default() }).unwrap();
    let content = content(8 * GROUP);
    let task = store.create(id(1)).unwrap();
    task.set_length(content.len() as u64).unwrap();
    commit(&task, &content, GroupRange::new(0, 3)).unwrap();
    let full = commit(&task, &content, GroupRange::new(3, 2));
    assert!(matches!(full, Err(StoreError::NoSpace { .. })));
    commit(&task, &content, GroupRange::new(0, 3)).expect("what is here already takes no more");

    let report = store.gc(SystemTime::now()).unwrap();
    assert_eq!(report, GcReport::default(), "below the high watermark");
    let used = store.used_bytes();
    assert!(used > 3 * GROUP_BYTES, "{used}");
    commit(&task, &content, GroupRange::new(3, 1)).unwrap_err();
    let report = store.make_room(SystemTime::now(), ByteSize(1)).unwrap();
    assert_eq!((report.evicted, report.freed), (vec![id(1)], used));
    assert_eq!((store.used_bytes(), store.list().len()), (0, 0));
}

#[test]
fn eviction_takes_the_expired_and_never_what_is_in_use() {
    let dir = TempDir::new().unwrap();
    let (store, task) = kept(dir.path(), 1, &content(2 * GROUP));
    let other = store.create(id(2)).unwrap();
    task.set_ttl(Some(Duration::from_secs(60))).unwrap();
    let later = SystemTime::now() + Duration::from_secs(600);
    let evict_all = || store.make_room(later, ByteSize(u64::MAX)).unwrap().evicted;
    for reason in [Use::Handle, Use::Mount, Use::Serve, Use::Fetch] {
        let guard = task.in_use(reason).unwrap();
        let second = task.in_use(reason).unwrap();
        drop(second);
        assert!(!evict_all().contains(&id(1)));
        assert!(matches!(store.remove(id(1), Pins::Count), Err(StoreError::InUse { .. })));
        let listed = store.list().into_iter().find(|listed| listed.id == id(1)).unwrap();
        assert!(listed.in_use.any() && !listed.pinned);
        drop(guard);
    }
    assert_eq!(store.gc(later).unwrap().evicted, [id(1)], "expired");
    assert!(matches!(task.in_use(Use::Handle), Err(StoreError::Gone(_))));
    assert!(matches!(
        commit(&task, &content(2 * GROUP), GroupRange::new(0, 1)),
        Err(StoreError::Gone(_))
    ));
    assert!(other.in_use(Use::Handle).is_err(), "made room for long ago");
    assert!(store.task(id(1)).unwrap().is_none());
    assert_eq!(fs::read_dir(dir.path().join("trash")).unwrap().count(), 0);
    assert_eq!(store.remove(id(1), Pins::Count).unwrap(), None);
}

#[test]
fn what_cannot_be_removed_is_there_as_before() {
    let dir = TempDir::new().unwrap();
    let (store, task) = kept(dir.path(), 1, &content(3 * GROUP));
    store.gc(SystemTime::now()).unwrap();
    let (trash, used) = (dir.path().join("trash"), store.used_bytes());
    // Whatever somebody put there goes.
    fs::write(trash.join("file"), b"").unwrap();
    store.make_room(SystemTime::now(), ByteSize(0)).unwrap();
    assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
    // Nothing can be moved there.
    fs::remove_dir(&trash).unwrap();
    fs::write(&trash, b"").unwrap();
    let later = SystemTime::now() + Duration::from_secs(3600);
    assert!(matches!(store.remove(id(1), Pins::Count), Err(StoreError::Io { .. })));
    assert!(store.make_room(later, ByteSize(u64::MAX)).is_err());
    assert_eq!((store.list().len(), store.used_bytes()), (1, used));
    assert!(task.in_use(Use::Handle).is_ok());
    fs::remove_file(&trash).unwrap();
    fs::create_dir(&trash).unwrap();
    assert!(store.remove(id(1), Pins::Count).unwrap().is_some_and(|freed| freed > 0));
    assert_eq!((store.list().len(), store.used_bytes()), (0, 0));
}

#[test]
fn what_is_pinned_stays_over_restarts_and_evictions_until_it_is_let_go() {
    let dir = TempDir::new().unwrap();
    let (store, task) = kept(dir.path(), 1, &content(4 * GROUP));
    task.set_ttl(Some(Duration::from_secs(1))).unwrap();
    store.create(id(2)).unwrap();
    assert_eq!(store.pin(id(1)).unwrap(), PinChange::Changed);
    assert_eq!(store.pin(id(1)).unwrap(), PinChange::Unchanged);
    assert_eq!(store.pin(id(3)).unwrap(), PinChange::Absent);
    drop((task, store));
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    let later = SystemTime::now() + Duration::from_secs(600);
    assert!(store.list().iter().all(|listed| listed.pinned == (listed.id == id(1))));
    assert_eq!(store.make_room(later, ByteSize(u64::MAX)).unwrap().evicted, [id(2)]);
    assert!(matches!(store.remove(id(1), Pins::Count), Err(StoreError::Pinned(_))));
    let task = store.task(id(1)).unwrap().unwrap();
    assert_eq!(task.have().len(), 4, "all of it");

    assert_eq!(store.unpin(id(1)).unwrap(), PinChange::Changed);
    assert_eq!(store.unpin(id(1)).unwrap(), PinChange::Unchanged);
    drop((task, store));
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    assert!(
        store.remove(id(1), Pins::Count).unwrap().is_some_and(|freed| freed >= 4 * GROUP as u64)
    );
    assert_eq!(store.unpin(id(1)).unwrap(), PinChange::Absent);

    store.create(id(4)).unwrap();
    assert_eq!(store.pin(id(4)).unwrap(), PinChange::Changed);
    assert!(store.remove(id(4), Pins::Count).is_err());
    assert!(store.remove(id(4), Pins::GoToo).unwrap().is_some());
    store.create(id(4)).unwrap();
    assert!(!store.list()[0].pinned, "the pin went with it");
}

#[test]
fn eviction_races_with_uses_and_never_wins_against_one() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 1);
    let content = content(GROUP);
    let evicted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let user = scope.spawn(|| {
            // At least so often, and until it has happened.
            for round in 0..100_000 {
                if round > 300 && evicted.load(Relaxed) > 0 {
                    break;
                }
                let task = store.create(id(1)).unwrap();
                let Ok(_guard) = task.in_use(Use::Handle) else { continue };
                task.set_length(GROUP_BYTES).unwrap();
                commit(&task, &content, GroupRange::new(0, 1)).unwrap();
                assert_eq!(fs::metadata(task.content_path()).unwrap().len(), GROUP_BYTES);
                assert_eq!(task.read(whole(&content)).unwrap(), content);
            }
        });
        while !user.is_finished() {
            let room = store.make_room(SystemTime::now(), ByteSize(u64::MAX)).unwrap();
            evicted.fetch_add(room.evicted.len(), Relaxed);
        }
    });
    assert!(evicted.load(Relaxed) > 0, "the race did not happen");
}

#[test]
fn nothing_is_evicted_while_somebody_asks_for_that() {
    let dir = TempDir::new().unwrap();
    let (store, _) = kept(dir.path(), 1, &content(GROUP));
    let evicted = || store.make_room(store.now(), ByteSize(u64::MAX)).unwrap().evicted;
    let spared = [store.spare(), store.spare()];
    for one in spared {
        assert!(evicted().is_empty());
        drop(one);
    }
    assert_eq!(evicted(), [id(1)]);
}

#[test]
fn a_task_that_cannot_be_moved_keeps_no_other_from_going() {
    let dir = TempDir::new().unwrap();
    let (store, _) = kept(dir.path(), 1, &content(3 * GROUP));
    store.create(id(2)).unwrap().set_length(GROUP_BYTES).unwrap();
    store.task(id(2)).unwrap().unwrap().set_ttl(Some(Duration::from_secs(3600))).unwrap();
    drop(store);
    let name = id(1).to_string();
    let old = fs::File::open(dir.path().join("tasks").join(&name[..2]).join(&name)).unwrap();
    old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let store = open(dir.path(), 1);
    // Something stands where it would be moved.
    let way = dir.path().join("trash").join(format!("{}.0", id(1)));
    fs::create_dir_all(way.join("x")).unwrap();
    let swept = store.make_room(store.now(), ByteSize(1)).unwrap();
    assert_eq!(swept.evicted, [id(2)]);
    let swept = store.make_room(store.now(), ByteSize(1)).unwrap();
    assert_eq!(swept.evicted, [id(1)], "nothing stands there any more");
}

#[test]
fn what_was_read_last_is_taken_last_whatever_the_machines_clock_is_set_to() {
    const YEAR: u64 = 365 * 86_400;
    let dir = TempDir::new().unwrap();
    let content = content(2 * GROUP);
    let keep = |store: &Store, number: u8| {
        let task = store.create(id(number)).unwrap();
        task.set_length(content.len() as u64).unwrap();
        commit(&task, &content, GroupRange::new(0, 2)).unwrap();
        task
    };
    // Years from now; then the machine is started with its clock years back.
    for (number, wall) in [(4, 4), (3, 10), (2, 0)] {
        let wall = Some(SystemTime::UNIX_EPOCH + Duration::from_secs((50 + wall) * YEAR));
        let store =
            Store::open(dir.path(), StoreOptions { wall, ..StoreOptions::default() }).unwrap();
        keep(&store, number).read(ByteRange::new(0, 1)).unwrap();
    }
    let store = open(dir.path(), 1);
    keep(&store, 1);
    for number in [4, 3, 2, 1] {
        let swept = store.make_room(store.now(), ByteSize(1)).unwrap();
        assert_eq!(swept.evicted, [id(number)]);
    }
}

#[test]
fn of_what_was_read_within_one_second_the_earliest_goes_first() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 1);
    let second = store.now() + Duration::from_secs(1);
    let order = [3, 1, 4, 2];
    for (after, number) in order.into_iter().enumerate() {
        store.create(id(number)).unwrap();
        let read = second + Duration::from_millis(after as u64);
        store.presence(id(number)).unwrap().note_read(read);
    }
    for number in order {
        let swept = store.make_room(store.now(), ByteSize(1)).unwrap();
        assert_eq!(swept.evicted, [id(number)]);
    }
}

#[test]
fn the_last_read_and_the_time_to_live_survive_a_restart() {
    let dir = TempDir::new().unwrap();
    let content = content(GROUP);
    let (store, task) = kept(dir.path(), 1, &content);
    task.set_ttl(Some(Duration::from_secs(60))).unwrap();
    let path = store.directory.path(id(1));
    drop((store, task));
    fs::File::open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let store = open(dir.path(), 1);
    assert_eq!(store.list()[0].last_read, SystemTime::UNIX_EPOCH);
    store.task(id(1)).unwrap().unwrap().read(whole(&content)).unwrap();
    drop(store);
    let store = open(dir.path(), 1);
    let listed = store.list()[0];
    assert!(listed.last_read > SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    let expired = listed.last_read + Duration::from_secs(61);
    assert!(store.gc(expired - Duration::from_secs(2)).unwrap().evicted.is_empty());
    assert_eq!(store.gc(expired).unwrap().evicted, [id(1)]);
}

#[test]
fn the_callers_record_is_replaced_as_a_whole() {
    let dir = TempDir::new().unwrap();
    let task = open(dir.path(), 1).create(id(1)).unwrap();
    assert_eq!(task.record::<String>().unwrap(), None);
    task.write_record(&"first").unwrap();
    task.write_record(&"second").unwrap();
    assert_eq!(task.record::<String>().unwrap().as_deref(), Some("second"));
    fs::write(task.content_path().with_file_name("record.json"), b"{").unwrap();
    assert!(matches!(task.record::<String>(), Err(StoreError::Record { .. })));
}

#[test]
fn verification_finds_what_rotted() {
    let dir = TempDir::new().unwrap();
    let content = content(4 * GROUP);
    let (store, task) = kept(dir.path(), 1, &content);
    damage(dir.path(), "content", 2 * GROUP_BYTES);
    let reports = store.verify(None).unwrap();
    let bad = vec![GroupRange::new(2, 1)];
    assert_eq!(reports, [VerifyReport { id: id(1), checked: 4, bad }]);
    assert_eq!(task.missing_in(GroupRange::new(0, 4)), [GroupRange::new(2, 1)]);
    assert_eq!(store.verify(Some(id(1))).unwrap()[0].bad, []);
    assert_eq!(store.verify(Some(id(9))).unwrap(), []);
}

#[test]
fn what_is_counted_is_what_is_kept_however_tasks_come_and_go() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 1);
    let content = content(3 * GROUP);
    let fill = |_: usize| {
        for _ in 0..150 {
            // A handle that has outlived its task, or not.
            let Ok(task) = store.create(id(7)) else { continue };
            if task.set_length(content.len() as u64).is_err() {
                continue;
            }
            for group in 0..3 {
                let _ = commit(&task, &content, GroupRange::new(group, 1));
            }
        }
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|n| {
                scope.spawn({
                    let fill = &fill;
                    move || fill(n)
                })
            })
            .collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            let _ = store.remove(id(7), Pins::Count);
            store.gc(SystemTime::UNIX_EPOCH).unwrap();
        }
    });
    let listed: u64 = store.list().iter().map(|task| task.bytes).sum();
    assert_eq!(store.used_bytes(), listed);
    let _ = store.remove(id(7), Pins::Count);
    assert_eq!(store.used_bytes(), 0);
}

#[test]
fn a_long_content_is_mapped_where_all_of_it_is_here_and_stays_when_it_is_removed() {
    let dir = TempDir::new().unwrap();
    let content = content((1 << 20) + 5);
    let all = groups_in(content.len() as u64);
    let store = open(dir.path(), 1);
    let task = store.create(id(1)).unwrap();
    task.set_length(content.len() as u64).unwrap();
    commit(&task, &content, GroupRange::new(0, all - 1)).unwrap();
    assert!(task.mapped().is_none(), "a group of it is missing");
    commit(&task, &content, GroupRange::new(all - 1, 1)).unwrap();
    let mapped = task.mapped().unwrap();
    assert!(mapped == content);
    store.remove(id(1), Pins::Count).unwrap();
    drop((task, store));
    assert!(mapped == content);

    let dir = TempDir::new().unwrap();
    let (_store, short) = kept(dir.path(), 1, &content[..GROUP]);
    assert!(short.mapped().is_none());
    let dir = TempDir::new().unwrap();
    drop(kept(dir.path(), 1, &content));
    let store = open(dir.path(), 2);
    let doubted = store.task(id(1)).unwrap().unwrap();
    assert!(doubted.mapped().is_none(), "it was kept under another boot");
}

#[test]
fn what_is_found_wrong_is_given_to_nobody_while_the_rest_is_looked_at() {
    let dir = TempDir::new().unwrap();
    let content = content(4 * GROUP);
    let (_store, task) = kept(dir.path(), 1, &content);
    damage(dir.path(), "content", 17);
    let (seen, told) = std::sync::mpsc::channel();
    let (first, second) = (task.clone(), task.clone());
    // When the first group is read again, and then the second.
    task.interrupt(move || {
        let looks = first.clone();
        first.interrupt(move || seen.send(looks.has(GroupRange::new(0, 1))).unwrap());
    });
    let check = second.verify(GroupRange::new(0, 4)).unwrap();
    assert_eq!((check.checked, check.bad), (4, vec![GroupRange::new(0, 1)]));
    assert!(!told.recv().unwrap());
}

#[test]
fn what_turns_out_wrong_while_it_comes_again_is_written_again() {
    let dir = TempDir::new().unwrap();
    let content = content(4 * GROUP);
    let (_store, task) = kept(dir.path(), 1, &content);
    damage(dir.path(), "content", 17);
    let judges = task.clone();
    let all = GroupRange::new(0, 4);
    task.interrupt(move || assert_eq!(judges.verify(all).unwrap().bad.len(), 1));
    commit(&task, &content, all).unwrap();
    assert!(task.read(whole(&content)).unwrap() == content, "the rotten bytes are shown");
    assert_eq!(task.verify(all).unwrap().bad, []);
}
