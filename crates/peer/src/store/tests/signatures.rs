use dfs_model::HostId;
use ed25519_dalek::SigningKey;

use super::*;
use crate::digests::{Appointment, DigestBatch, Identity, MOST_APPOINTED, Office, SignedDigests};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

pub(super) fn signed(length: Option<u64>, entries: Vec<(Node, Cv)>) -> SignedDigests {
    let signer = HostId::from_bytes([2; 16]);
    DigestBatch { task: id(1), signer, length, entries }.sign(&key()).unwrap()
}

fn nodes_in(task: &StoredTask, groups: GroupRange) -> Vec<Node> {
    let batches = task.signed_for(groups);
    let mut nodes: Vec<_> =
        batches.iter().flat_map(|signed| &signed.batch().entries).map(|(node, _)| *node).collect();
    nodes.sort_unstable();
    nodes
}

#[test]
fn the_highest_digest_over_a_group_is_the_one_that_is_kept() {
    let dir = TempDir::new().unwrap();
    let task = open(dir.path(), 1).create(id(1)).unwrap();
    let group = |group| (Node::group(group), [group as u8 + 1; 32]);
    let batches = [
        signed(None, vec![group(0), group(1)]),
        signed(None, vec![group(2)]),
        signed(None, vec![group(4)]),
    ];
    batches.iter().for_each(|batch| task.add_signed(batch).unwrap());
    assert_eq!(nodes_in(&task, GroupRange::new(0, 2)), [Node::group(0), Node::group(1)]);
    let piece = signed(None, vec![(Node::new(2, 0), [9; 32])]);
    task.add_signed(&piece).unwrap();
    assert_eq!(nodes_in(&task, GroupRange::new(0, 4)), [Node::new(2, 0)]);
    assert_eq!(nodes_in(&task, GroupRange::new(3, 3)), [Node::group(4), Node::new(2, 0)]);
    assert_eq!(task.node(Node::new(2, 0)), Some([9; 32]));

    let log = task.content_path().with_file_name("signed");
    let size = fs::metadata(&log).unwrap().len();
    task.add_signed(&piece).unwrap();
    task.add_signed(&batches[1]).unwrap();
    assert_eq!(fs::metadata(&log).unwrap().len(), size, "what is known is not written again");
    assert!(nodes_in(&task, GroupRange::new(9, 1)).is_empty());
}

#[test]
fn batches_survive_restarts_and_a_torn_tail_costs_only_itself() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 1);
    let task = store.create(id(1)).unwrap();
    for at in 0..3 {
        task.add_signed(&signed(Some(8 * GROUP_BYTES), vec![(Node::group(at), [1; 32])])).unwrap();
    }
    assert_eq!(task.length(), Some(8 * GROUP_BYTES));
    let log = task.content_path().with_file_name("signed");
    drop((task, store));
    let size = fs::metadata(&log).unwrap().len();
    OpenOptions::new().write(true).open(&log).unwrap().set_len(size - 3).unwrap();
    let store = open(dir.path(), 1);
    let task = store.task(id(1)).unwrap().unwrap();
    assert_eq!(nodes_in(&task, GroupRange::new(0, 8)), [Node::group(0), Node::group(1)]);
    assert!(!task.signed_for(GroupRange::new(0, 0)).is_empty(), "the length is told");
    task.add_signed(&signed(None, vec![(Node::group(5), [1; 32])])).unwrap();
    drop((task, store));
    damage(dir.path(), "signed", 60);
    let task = open(dir.path(), 1).task(id(1)).unwrap().unwrap();
    assert_eq!(nodes_in(&task, GroupRange::new(0, 8)), [Node::group(1), Node::group(5)]);
}

#[test]
fn a_glance_tells_what_is_provable_and_opens_nothing() {
    let dir = TempDir::new().unwrap();
    let content = content(8 * GROUP);
    let (store, task) = kept(dir.path(), 1, &content);
    let node = |node: Node| {
        let cvs =
            task.node(node).or_else(|| crate::hashtree::fold(task.shape(), node, |n| task.node(n)));
        (node, cvs.unwrap())
    };
    let length = Some(content.len() as u64);
    let batches = [
        signed(length, vec![node(Node::group(7))]),
        signed(length, vec![node(Node::group(0))]),
        signed(length, vec![node(Node::new(1, 1))]),
    ];
    batches.iter().for_each(|batch| task.add_signed(batch).unwrap());
    task.verify(GroupRange::new(0, 8)).unwrap();
    let open = store.glance(id(1), 1 << 20).unwrap();
    let path = task.content_path().with_file_name("state");
    drop(task);
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    let closed = store.glance(id(1), 1 << 20).unwrap();
    for glance in [open, closed] {
        assert_eq!(glance.length, length);
        let groups: Vec<_> = glance.provable.ranges().collect();
        assert_eq!(groups, [(0, 1), (2, 2), (7, 1)].map(|(at, n)| GroupRange::new(at, n)));
        // The one that tells the length is the last of all; the highest digests are in it too.
        assert_eq!(glance.batches.len(), 3);
        assert_eq!(glance.batches[0], batches[2].encode());
    }
    let one = batches[2].encode().len();
    assert_eq!(store.glance(id(1), one).unwrap().batches.len(), 1, "bounded");
    assert!(store.glance(id(2), one).is_none());
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before, "nothing is written");
    assert!(!store.has_open(id(1)));
}

#[test]
fn the_signer_is_right_against_what_this_host_fetched_itself() {
    let dir = TempDir::new().unwrap();
    let content = content(4 * GROUP + 1);
    let (_store, task) = kept(dir.path(), 1, &content);
    let mut other = content.clone();
    other[GROUP] ^= 1;
    let shape = task.shape();
    let groups = GroupRange::new(0, 4);
    let piece = nodes_of(shape, groups, &other[..4 * GROUP]).pop().unwrap();
    task.add_signed(&signed(None, vec![piece])).unwrap();
    assert_eq!(task.node(piece.0), Some(piece.1));
    assert_eq!(task.have().ranges().collect::<Vec<_>>(), [GroupRange::new(4, 1)]);
    assert_eq!(task.node(Node::group(0)), None, "what rested on other bytes is forgotten");
    commit(&task, &other, groups).unwrap();
    assert!(task.complete());
}

#[test]
fn a_digest_that_rotted_is_restored_from_its_signature() {
    let dir = TempDir::new().unwrap();
    let content = content(4 * GROUP + 1);
    let (store, task) = kept(dir.path(), 1, &content);
    let piece = Node::new(2, 0);
    let cv = task.node(piece).unwrap();
    task.add_signed(&signed(None, vec![(piece, cv)])).unwrap();
    drop((task, store));
    // Slot 3 of the first block: node 2/0.
    damage(dir.path(), "state", 2 * 4096 + 3 * 32);
    let store = open(dir.path(), 1);
    let task = store.task(id(1)).unwrap().unwrap();
    assert_ne!(task.node(piece), Some(cv));
    task.mark_bad(&[GroupRange::new(1, 1)]).unwrap();
    assert_eq!(task.node(piece), Some(cv));
    assert_eq!(task.missing_in(GroupRange::new(0, 5)), [GroupRange::new(1, 1)]);
}

#[test]
fn digests_of_other_tasks_lengths_and_trees_are_refused() {
    let dir = TempDir::new().unwrap();
    let content = content(4 * GROUP);
    let (store, task) = kept(dir.path(), 1, &content);
    let other = store.create(id(2)).unwrap();
    let batch = signed(Some(content.len() as u64), vec![]);
    assert!(matches!(other.add_signed(&batch), Err(StoreError::OtherTask { .. })));
    assert!(task.add_signed(&batch).is_ok());
    assert!(matches!(task.add_signed(&signed(Some(1), vec![])), Err(StoreError::Length { .. })));
    for foreign in [Node::new(2, 0), Node::group(4), Node::new(3, 1)] {
        let refused = task.add_signed(&signed(None, vec![(foreign, [1; 32])]));
        assert!(matches!(refused, Err(StoreError::Misplaced { .. })), "{foreign}");
    }
}

#[test]
fn the_words_for_the_signers_survive_restarts_beside_what_they_signed() {
    let dir = TempDir::new().unwrap();
    let scheduler = Identity::load_or_create(dir.path()).unwrap();
    let word = |host: u8| {
        let key = key().verifying_key().to_bytes();
        Appointment::sign(id(1), Office::StandIn, (HostId::from_bytes([host; 16]), key), &scheduler)
    };
    let content = content(GROUP);
    let (store, task) = kept(dir.path(), 1, &content);
    task.add_appointment(&word(2)).unwrap();
    task.add_appointment(&word(3)).unwrap();
    let nodes = nodes_of(task.shape(), GroupRange::new(0, 1), &content);
    task.add_signed(&signed(Some(GROUP_BYTES), nodes)).unwrap();
    let log = task.content_path().with_file_name("signed");
    let size = fs::metadata(&log).unwrap().len();
    task.add_appointment(&word(2)).unwrap();
    assert_eq!(fs::metadata(&log).unwrap().len(), size, "what is known is not written again");
    drop((task, store));
    let store = open(dir.path(), 1);
    let glance = store.glance(id(1), 1 << 20).unwrap();
    assert_eq!((glance.batches.len(), glance.appointments), (1, vec![word(2).encode()]));
    let task = store.task(id(1)).unwrap().unwrap();
    for host in 10..10 + MOST_APPOINTED as u8 {
        task.add_appointment(&word(host)).unwrap();
    }
    drop(task);
    assert!(store.glance(id(1), 1 << 20).unwrap().appointments.is_empty(), "the oldest go first");
}

#[test]
fn more_batches_than_are_remembered_are_given_as_they_were_signed() {
    let dir = TempDir::new().unwrap();
    let task = open(dir.path(), 1).create(id(1)).unwrap();
    // Not side by side: none is below another's.
    let groups: Vec<u64> = (0..48).map(|number| number * 512).collect();
    let batch = |first: u64| {
        let entries = (0..100).map(|at| (Node::group(first + 2 * at), [at as u8 + 1; 32]));
        signed(None, entries.collect())
    };
    groups.iter().for_each(|first| task.add_signed(&batch(*first)).unwrap());
    for first in groups.iter().chain(groups.iter().rev()).chain(&groups) {
        let given = task.signed_for(GroupRange::new(*first, 1));
        assert_eq!(
            given.iter().map(|one| one.encode()).collect::<Vec<_>>(),
            [batch(*first).encode()]
        );
    }
    assert_eq!(nodes_in(&task, GroupRange::new(0, 48 * 512)).len(), 4_800);
}

#[test]
fn what_signatures_take_is_counted_as_they_come() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 1);
    let task = store.create(id(1)).unwrap();
    for at in 0..200 {
        task.add_signed(&signed(None, vec![(Node::group(2 * at), [1; 32])])).unwrap();
        let log = fs::metadata(task.content_path().with_file_name("signed")).unwrap();
        assert!(store.used_bytes() >= log.len() / 4096 * 4096, "{at}: {}", store.used_bytes());
    }
}
