//! Reads whose bytes are held against their digests.

use super::*;

const LENGTH: usize = 5 * GROUP + 77;

/// Places within groups and across them, up to the end of a content whose last group is short.
fn ranges() -> [ByteRange; 6] {
    let end = LENGTH as u64;
    [
        ByteRange::new(0, end),
        ByteRange::at(GROUP_BYTES, 2 * GROUP_BYTES),
        ByteRange::at(GROUP_BYTES + 5, 9),
        ByteRange::at(2 * GROUP_BYTES - 1, GROUP_BYTES + 2),
        ByteRange::new(5 * GROUP_BYTES + 70, end),
        ByteRange::new(5 * GROUP_BYTES, end),
    ]
}

fn read(task: &StoredTask, range: ByteRange) -> Result<Vec<u8>, StoreError> {
    task.read_by(range, Verify::Reads).map(Vec::from)
}

#[test]
fn what_is_intact_is_read_as_it_is() {
    let dir = TempDir::new().unwrap();
    let content = content(LENGTH);
    let (_store, task) = kept(dir.path(), 1, &content);
    for range in ranges() {
        let bytes = &content[range.start as usize..range.end as usize];
        assert!(read(&task, range).unwrap() == bytes, "{range}");
    }
}

#[test]
fn what_has_rotted_is_missing_and_nothing_else() {
    for group in 0..6 {
        let dir = TempDir::new().unwrap();
        let content = content(LENGTH);
        let (_store, task) = kept(dir.path(), 1, &content);
        damage(dir.path(), "content", group * GROUP_BYTES + 3);
        let at = GroupRange::new(group, 1);
        for range in ranges() {
            let touched = !range.groups().intersection(at).is_empty();
            match read(&task, range) {
                Ok(bytes) => {
                    assert!(!touched, "{group} {range}");
                    assert!(bytes == content[range.start as usize..range.end as usize]);
                }
                Err(StoreError::Missing { groups, .. }) => {
                    assert!(touched && groups == at, "{group} {range} {groups}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(task.missing_in(GroupRange::new(0, 6)), [at]);
    }
}

#[test]
fn all_that_has_rotted_of_a_range_is_missing_at_once() {
    let dir = TempDir::new().unwrap();
    let content = content(LENGTH);
    let (_store, task) = kept(dir.path(), 1, &content);
    [0, 2, 3, 5].iter().for_each(|group| damage(dir.path(), "content", group * GROUP_BYTES + 3));
    assert!(read(&task, whole(&content)).is_err());
    let missing = [(0, 1), (2, 2), (5, 1)].map(|(first, count)| GroupRange::new(first, count));
    assert_eq!(task.missing_in(GroupRange::new(0, 6)), missing);
}

#[test]
fn what_was_taken_out_before_it_was_read_has_not_rotted() {
    let dir = TempDir::new().unwrap();
    let content = content(8 * GROUP);
    let (_store, task) = kept(dir.path(), 1, &content);
    let gone = GroupRange::new(3, 1);
    let (goes, known) = (task.clone(), task.node(Node::group(3)));
    task.interrupt(move || drop(goes.take_out(&[gone]).unwrap()));
    assert!(matches!(read(&task, whole(&content)), Err(StoreError::Missing { .. })));
    assert_eq!(task.missing_in(GroupRange::new(0, 8)), [gone]);
    assert!(known.is_some() && task.node(Node::group(3)) == known, "what proves it stays");
}

#[test]
fn what_is_given_out_is_what_was_hashed() {
    let dir = TempDir::new().unwrap();
    let content = content(LENGTH);
    let (_store, task) = kept(dir.path(), 1, &content);
    for range in [ByteRange::at(GROUP_BYTES, GROUP_BYTES), ByteRange::at(3 * GROUP_BYTES + 1, 5)] {
        // The disk gives other bytes to whoever reads a second time.
        let (again, place) = (task.clone(), dir.path().to_owned());
        task.interrupt(move || again.interrupt(move || damage(&place, "content", range.start)));
        assert!(read(&task, range).unwrap() == content[range.start as usize..range.end as usize]);
        assert!(matches!(read(&task, range), Err(StoreError::Missing { .. })), "{range}");
    }
}
