//! What a part file keeps, refuses and leaves.

use std::path::Path;
use std::process::Command;

use dfs_model::GroupRange;
use dfs_peer::hashtree::{Shape, group_digests};

use super::*;

fn identity(content: &str, length: u64) -> Identity {
    Identity { content: content.into(), start: 0, length: Some(length) }
}

fn open(dir: &Path, content: &str, length: u64) -> Result<PartFile, PartError> {
    let dir = Arc::new(OutDir::open(dir).unwrap());
    PartFile::open(dir, OsStr::new("x"), identity(content, length), None, None, &never())
}

fn never() -> CancellationToken {
    CancellationToken::new()
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
    part.written(ByteRange::new(0, 3), &[]).unwrap();
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
    let another = |name| {
        PartFile::open(dir.clone(), OsStr::new(name), identity("a", 1), None, None, &never())
    };
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
fn what_somebody_changed_in_a_part_never_gets_into_the_file() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("x.dfs-part");
    let length = 200_000;
    for (at, bytes) in [(5, 150_000), (149_999, 150_000), (70_000, 131_072), (0, 200_000)] {
        let mut part = open(place.path(), "a", length).unwrap();
        part.append(&vec![7; bytes]).unwrap();
        part.keep().unwrap();
        File::options().write(true).open(&path).unwrap().write_all_at(b"8", at).unwrap();
        let part = open(place.path(), "a", length).unwrap();
        assert_eq!((part.resumed(), part.was_spoilt()), (0, true), "{at} of {bytes}");
        assert_eq!(names(place.path()), ["x.dfs-part"]);
    }
    let part = open(place.path(), "a", length).unwrap();
    assert!(!part.was_spoilt(), "nothing was there");
}

#[test]
fn digests_of_the_writer_are_those_of_the_bytes() {
    let length = 200_000_u64;
    let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let shape = Shape::known(length);
    let digests = group_digests(shape, GroupRange::new(0, 4), &content).unwrap();
    let (first, second) = (100_000, 131_072);
    for (told, end) in [(&digests[..1], first), (&digests[..0], first), (&digests[..2], second)] {
        let place = tempfile::tempdir().unwrap();
        let mut part = open(place.path(), "a", length).unwrap();
        part.file().write_all_at(&content, 0).unwrap();
        part.written(ByteRange::new(0, end), told).unwrap();
        let rest = &digests[(end as usize).div_ceil(65_536)..];
        part.written(ByteRange::new(end, length), rest).unwrap();
        part.keep().unwrap();
        assert_eq!(open(place.path(), "a", length).unwrap().resumed(), length, "{end}");
    }
    // Lies of a writer cost what they are about, no more.
    let place = tempfile::tempdir().unwrap();
    let mut part = open(place.path(), "a", length).unwrap();
    part.file().write_all_at(&content, 0).unwrap();
    part.written(ByteRange::new(0, second), &[[9; 32]; 2]).unwrap();
    part.keep().unwrap();
    assert!(open(place.path(), "a", length).unwrap().was_spoilt());
}

#[test]
fn checking_what_is_there_can_be_interrupted_and_costs_nothing() {
    let place = tempfile::tempdir().unwrap();
    let mut part = open(place.path(), "a", 6).unwrap();
    part.append(b"abc").unwrap();
    part.keep().unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let dir = Arc::new(OutDir::open(place.path()).unwrap());
    let opened = PartFile::open(dir, OsStr::new("x"), identity("a", 6), None, None, &stop);
    assert!(matches!(opened, Err(PartError::Interrupted(_))));
    assert_eq!(open(place.path(), "a", 6).unwrap().resumed(), 3);
}

#[test]
fn a_digest_covers_what_was_taken_over() {
    let place = tempfile::tempdir().unwrap();
    for like in [Digest::Sha256([0; 32]), Digest::Blake3([0; 32])] {
        let dir = Arc::new(OutDir::open(place.path()).unwrap());
        let mut part = PartFile::open(
            dir.clone(),
            OsStr::new("x"),
            identity("a", 6),
            None,
            Some(like),
            &never(),
        )
        .unwrap();
        part.append(b"abc").unwrap();
        part.keep().unwrap();
        let mut part =
            PartFile::open(dir, OsStr::new("x"), identity("a", 6), None, Some(like), &never())
                .unwrap();
        part.append(b"def").unwrap();
        let mut whole = Hasher::new(like);
        whole.update(b"abcdef");
        assert_eq!(part.digest().unwrap(), Some(whole.finish()));
        part.remove();
    }
}

#[test]
fn ranges_out_of_order_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let mut part = open(place.path(), "a", 40).unwrap();
    part.written(ByteRange::new(0, 10), &[]).unwrap();
    for range in [ByteRange::new(20, 30), ByteRange::new(0, 10), ByteRange { start: 10, end: 9 }] {
        assert!(part.written(range, &[]).is_err(), "{range:?}");
    }
    part.written(ByteRange::new(10, 20), &[]).unwrap();
    assert_eq!(part.done(), 20);
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
fn a_file_that_only_has_the_name_of_a_part_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("x.dfs-part");
    for mine in [b"mine".to_vec(), vec![b'm'; 5000]] {
        std::fs::write(&path, &mine).unwrap();
        assert!(matches!(open(place.path(), "a", 6), Err(PartError::NoPart(_))));
        assert_eq!(std::fs::read(&path).unwrap(), mine);
    }
    std::fs::remove_file(&path).unwrap();
    // What a killed get of unknown length left is its own all the same.
    let another = || {
        let dir = Arc::new(OutDir::open(place.path()).unwrap());
        let unknown = Identity { content: "a".into(), start: 0, length: None };
        PartFile::open(dir, OsStr::new("x"), unknown, None, None, &never()).unwrap()
    };
    let mut killed = another();
    killed.append(b"abc").unwrap();
    let left = place.path().join("left");
    assert!(Command::new("cp").arg("-a").args([&path, &left]).status().unwrap().success());
    drop(killed);
    std::fs::rename(left, &path).unwrap();
    let part = another();
    assert_eq!(part.done(), 0);
    part.finish(None, Replace::Never).unwrap();
    let attribute = rustix::fs::getxattr(place.path().join("x"), UNMARKED, &mut [0_u8; 1]);
    assert_eq!(attribute, Err(Errno::NODATA), "the output bears none of it");
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
    let mut part = open(place.path(), "a", 3).unwrap();
    part.append(b"abc").unwrap();
    cut(2);
    let digest = part.blake3().unwrap_err();
    assert_eq!(tampered(&digest), Some(Tampered::CutOff), "nor hashed");
    drop(part);
    let dir = Arc::new(OutDir::open(place.path()).unwrap());
    let unknown = Identity { content: "a".into(), start: 0, length: None };
    let mut part = PartFile::open(dir, OsStr::new("x"), unknown, None, None, &never()).unwrap();
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

#[test]
fn a_part_is_swept_unless_somebody_writes_it_or_it_cannot_be_asked() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let place = tempfile::tempdir().unwrap();
    let dir = OutDir::open(place.path()).unwrap();
    let name = part_name(OsStr::new("x"));
    let sweep = || sweep(&dir, &name);
    assert!(!sweep().unwrap(), "there is none");
    let part = open(place.path(), "a", 6).unwrap();
    assert!(!sweep().unwrap(), "it is being written");
    // No file can be opened any more: nobody knows whether it is written.
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limits }).unwrap();
    let asked = sweep();
    setrlimit(Resource::Nofile, limits).unwrap();
    assert_eq!(asked.unwrap_err().raw_os_error(), Some(Errno::MFILE.raw_os_error()));
    assert_eq!(names(place.path()), [name.as_os_str()]);
    part.finish(None, Replace::Never).unwrap();
    // What a killed run left, and a link: nobody can have locked one.
    std::fs::write(place.path().join(&name), b"x").unwrap();
    assert!(sweep().unwrap());
    std::os::unix::fs::symlink("x", place.path().join(&name)).unwrap();
    assert!(sweep().unwrap());
    assert_eq!(names(place.path()), ["x"]);
}

#[test]
fn drafts_of_processes_that_are_gone_are_swept_and_no_others() {
    let place = tempfile::tempdir().unwrap();
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    let dead = gone.id();
    gone.wait().unwrap();
    let own = std::process::id();
    let kept = [
        "f.dfs-part".to_owned(),
        format!("f.{dead}"),
        format!("f.dfs-part.{own}"),
        "f.dfs-part.0".to_owned(),
        "f.dfs-part.99999999999999999999".to_owned(),
    ];
    let left = [format!("f.dfs-part.{dead}"), format!("link.dfs-part.{dead}")];
    for name in kept.iter().chain(&left[..1]) {
        std::fs::write(place.path().join(name), b"x").unwrap();
    }
    std::os::unix::fs::symlink("x", place.path().join(&left[1])).unwrap();
    sweep_drafts(&OutDir::open(place.path()).unwrap());
    let mut kept = kept.map(OsString::from);
    kept.sort();
    let mut there = names(place.path());
    there.sort();
    assert_eq!(there, kept);
}
