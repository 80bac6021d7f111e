//! What a part file keeps, refuses and leaves.

use std::path::Path;

use super::*;

fn identity(content: &str, length: u64) -> Identity {
    Identity { content: content.into(), start: 0, length: Some(length) }
}

fn open(dir: &Path, content: &str, length: u64) -> Result<PartFile, PartError> {
    let dir = Arc::new(OutDir::open(dir).unwrap());
    PartFile::open(dir, OsStr::new("x"), identity(content, length), None)
}

fn names(dir: &Path) -> Vec<OsString> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn a_part_becomes_the_file_that_somebody_else_fills() {
    let (place, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content = cache.path().join("content");
    let filling = File::create(&content).unwrap();
    let mut part = open(place.path(), "a", 6).unwrap();
    assert!(part.take_over(&content).unwrap());
    filling.write_all_at(b"abc", 0).unwrap();
    part.written(ByteRange::new(0, 3)).unwrap();
    drop(part);
    let foreign = open(place.path(), "a", 6).err();
    assert!(
        matches!(foreign, Some(PartError::Shared(_))),
        "while the content has a name of its own"
    );
    std::fs::remove_file(&content).unwrap();
    let mut part = open(place.path(), "a", 6).unwrap();
    assert_eq!(part.resumed(), 3);
    assert!(!part.take_over(&content).unwrap(), "what came is not given up");
    part.append(b"def").unwrap();
    part.finish(None, Replace::Never).unwrap();
    assert_eq!(std::fs::read(place.path().join("x")).unwrap(), b"abcdef");
    assert_eq!(names(place.path()), ["x"]);
}

#[test]
fn a_file_of_the_user_is_not_in_the_way_and_stays() {
    let (place, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content = cache.path().join("content");
    File::create(&content).unwrap();
    let taken = place.path().join(format!("x{SUFFIX}.{}", std::process::id()));
    std::fs::write(&taken, b"mine").unwrap();
    let mut part = open(place.path(), "a", 6).unwrap();
    assert!(!part.take_over(&content).unwrap());
    assert_eq!(std::fs::read(&taken).unwrap(), b"mine");
}

#[test]
fn a_file_that_became_an_output_becomes_no_other() {
    let (place, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content = cache.path().join("content");
    File::create(&content).unwrap();
    let dir = Arc::new(OutDir::open(place.path()).unwrap());
    let another = |name| PartFile::open(dir.clone(), OsStr::new(name), identity("a", 1), None);
    let (mut first, mut second) = (another("x").unwrap(), another("y").unwrap());
    assert!(first.take_over(&content).unwrap());
    assert!(!second.take_over(&content).unwrap());
    assert!(!second.take_over(&cache.path().join("gone")).unwrap());
    drop((first, second));
    assert_eq!(names(place.path()), [] as [OsString; 0]);
}

#[test]
fn a_kill_costs_no_more_than_a_mebibyte() {
    let (place, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let length = 3 << 20;
    let mut part = open(place.path(), "a", length).unwrap();
    for _ in 0..25 {
        part.append(&[7; 100_000]).unwrap();
    }
    // What is there at this instant.
    let name = format!("x{SUFFIX}");
    std::fs::copy(place.path().join(&name), after.path().join(&name)).unwrap();
    let resumed = open(after.path(), "a", length).unwrap().resumed();
    assert!((2_500_000 - (1 << 20)..=2_500_000).contains(&resumed), "{resumed}");
}

#[test]
fn a_part_becomes_the_file_and_leaves_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let mut part = open(place.path(), "a", 6).unwrap();
    part.append(b"abc").unwrap();
    part.append(b"def").unwrap();
    part.mark().unwrap();
    part.finish(None, Replace::Never).unwrap();
    assert_eq!(names(place.path()), ["x"]);
    assert_eq!(std::fs::read(place.path().join("x")).unwrap(), b"abcdef");
}

#[test]
fn the_same_content_is_resumed_and_another_one_is_not() {
    let place = tempfile::tempdir().unwrap();
    let mut part = open(place.path(), "a", 6).unwrap();
    part.append(b"abc").unwrap();
    assert_eq!(part.keep(), Some(place.path().join("x.dfs-part")));
    let part = open(place.path(), "a", 6).unwrap();
    assert_eq!((part.done(), part.resumed()), (3, 3));
    drop(part);
    assert_eq!(open(place.path(), "b", 6).unwrap().done(), 0);
    assert_eq!(names(place.path()), Vec::<OsString>::new(), "an empty part is not kept");
}

#[test]
fn a_part_of_another_boot_is_not_trusted() {
    let place = tempfile::tempdir().unwrap();
    let mut part = open(place.path(), "a", 6).unwrap();
    part.append(b"abc").unwrap();
    part.boot = "another".into();
    part.keep();
    assert_eq!(open(place.path(), "a", 6).unwrap().done(), 0);
}

#[test]
fn a_digest_covers_what_was_taken_over() {
    let place = tempfile::tempdir().unwrap();
    for like in [Digest::Sha256([0; 32]), Digest::Blake3([0; 32])] {
        let dir = Arc::new(OutDir::open(place.path()).unwrap());
        let mut part =
            PartFile::open(dir.clone(), OsStr::new("x"), identity("a", 6), Some(like)).unwrap();
        part.append(b"abc").unwrap();
        part.keep().unwrap();
        let mut part = PartFile::open(dir, OsStr::new("x"), identity("a", 6), Some(like)).unwrap();
        part.append(b"def").unwrap();
        let mut whole = Hasher::new(like);
        whole.update(b"abcdef");
        assert_eq!(part.digest().unwrap(), Some(whole.finish()));
        part.remove();
    }
}

#[test]
fn ranges_written_in_any_order_count_when_the_gap_closes() {
    let place = tempfile::tempdir().unwrap();
    let mut part = open(place.path(), "a", 40).unwrap();
    part.written(ByteRange::new(10, 20)).unwrap();
    part.written(ByteRange::new(30, 40)).unwrap();
    assert_eq!(part.done(), 0);
    part.written(ByteRange::new(0, 10)).unwrap();
    assert_eq!(part.done(), 20);
    part.written(ByteRange::new(20, 30)).unwrap();
    assert_eq!(part.done(), 40);
    assert!(part.ahead.is_empty());
}

#[test]
fn two_writers_are_kept_apart() {
    let place = tempfile::tempdir().unwrap();
    let _first = open(place.path(), "a", 6).unwrap();
    assert!(matches!(open(place.path(), "a", 6), Err(PartError::Busy(_))));
}

#[test]
fn a_planted_part_file_is_refused_and_untouched() {
    let place = tempfile::tempdir().unwrap();
    let victim = place.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let part = place.path().join("x.dfs-part");
    std::os::unix::fs::symlink(&victim, &part).unwrap();
    assert!(matches!(open(place.path(), "a", 6), Err(PartError::Foreign(_))));
    std::fs::remove_file(&part).unwrap();
    std::fs::hard_link(&victim, &part).unwrap();
    assert!(matches!(open(place.path(), "a", 6), Err(PartError::Shared(_))));
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn a_file_that_appeared_meanwhile_is_not_replaced() {
    let place = tempfile::tempdir().unwrap();
    let mut part = open(place.path(), "a", 3).unwrap();
    part.append(b"new").unwrap();
    std::fs::write(place.path().join("x"), "old").unwrap();
    let unplaced = part.finish(None, Replace::Never).unwrap_err();
    assert_eq!(unplaced.error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(unplaced.kept, Some(place.path().join("x.dfs-part")));
    assert_eq!(std::fs::read(place.path().join("x")).unwrap(), b"old");
    let part = open(place.path(), "a", 3).unwrap();
    assert_eq!(part.resumed(), 3, "nothing of it must be got again");
    part.finish(None, Replace::Always).unwrap();
    assert_eq!(std::fs::read(place.path().join("x")).unwrap(), b"new");
}

fn tampered(error: &io::Error) -> Option<Tampered> {
    error.get_ref().and_then(|inner| inner.downcast_ref()).copied()
}

#[test]
fn a_part_that_somebody_cut_off_never_becomes_the_file() {
    let place = tempfile::tempdir().unwrap();
    let cut = |to| {
        let path = place.path().join("x.dfs-part");
        File::options().write(true).open(path).unwrap().set_len(to).unwrap();
    };
    // What is written after the cut makes it no longer than it was before the mark.
    for (before, after) in [(&b"abcdef"[..], &b""[..]), (b"abc", b"def")] {
        let mut part = open(place.path(), "a", 6).unwrap();
        part.append(before).unwrap();
        cut(2);
        part.append(after).unwrap();
        let unplaced = part.finish(None, Replace::Never).unwrap_err();
        assert_eq!(tampered(&unplaced.error), Some(Tampered::CutOff));
        assert_eq!((unplaced.kept, names(place.path()).len()), (None, 0), "it is of no use");
    }
    let mut part = open(place.path(), "a", 6).unwrap();
    part.append(b"abc").unwrap();
    cut(2);
    assert_eq!(tampered(&part.mark().unwrap_err()), Some(Tampered::CutOff), "nor is it marked");
    drop(part);
    assert_eq!(names(place.path()).len(), 0);
    let dir = Arc::new(OutDir::open(place.path()).unwrap());
    let unknown = Identity { content: "a".into(), start: 0, length: None };
    let mut part = PartFile::open(dir, OsStr::new("x"), unknown, None).unwrap();
    part.append(b"abc").unwrap();
    cut(2);
    assert_eq!(tampered(&part.append(b"def").unwrap_err()), Some(Tampered::CutOff));
}

#[test]
fn a_file_that_took_the_place_of_a_part_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("x.dfs-part");
    for is_finished in [true, false] {
        let mut part = open(place.path(), "a", 3).unwrap();
        part.append(b"new").unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        if is_finished {
            let unplaced = part.finish(None, Replace::Never).unwrap_err();
            assert_eq!(tampered(&unplaced.error), Some(Tampered::Replaced));
            assert_eq!(unplaced.kept, None);
        } else {
            assert_eq!(part.keep(), None);
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn the_longest_names_have_part_files_too() {
    let long = OsString::from("é".repeat(127));
    assert!(part_name(&long).len() <= 255);
    assert_ne!(part_name(&long), part_name(&OsString::from(format!("{}e", "é".repeat(127)))));
}
