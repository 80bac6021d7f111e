//! Mounting and unmounting.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use dfs_fuse::content::{MemoryContent, SlowContent};
use dfs_fuse::mount::{
    Detach, MountError, MountOptions, UnmountError, Unmounted, mount, mounted_at, mounts, unmount,
};

use crate::support::{Fixture, noise, number, one_file, read, runtime, until};

fn is_mounted(fixture: &Fixture) -> bool {
    mounts().unwrap().iter().any(|mount| mount.dir == fixture.mounted.dir())
}

#[test]
fn an_unused_mount_is_taken_away_and_waited_for() {
    let tree = one_file(10);
    let mut fixture = Fixture::new(&tree, MemoryContent::cached(vec![noise(10)]));
    read(&fixture.path("f"));
    assert_eq!(fixture.mounted.unmount(Detach::WhenUnused).unwrap(), Unmounted::Ended);
    assert!(!is_mounted(&fixture));
    assert!(fixture.mounted.ended().is_cancelled());
    assert_eq!(fixture.mounted.unmount(Detach::WhenUnused).unwrap(), Unmounted::Ended);
}

#[test]
fn a_mount_in_use_stays_unless_it_is_detached() {
    let bytes = noise(2_000_000);
    let tree = one_file(bytes.len());
    let mut fixture = Fixture::new(&tree, MemoryContent::missing(vec![bytes.clone()]));
    let file = File::open(fixture.path("f")).unwrap();
    let busy = fixture.mounted.unmount(Detach::WhenUnused);
    assert!(matches!(busy, Err(UnmountError::Busy(_))), "{busy:?}");
    assert!(is_mounted(&fixture));
    assert_eq!(fixture.mounted.unmount(Detach::Lazily).unwrap(), Unmounted::StillServed);
    assert!(!is_mounted(&fixture));
    let mut buf = vec![0; 100_000];
    file.read_exact_at(&mut buf, 1_500_000).unwrap();
    assert_eq!(buf, bytes[1_500_000..1_600_000]);
    drop(file);
    let ended = fixture.mounted.ended();
    until("the last user is gone", || ended.is_cancelled());
}

#[test]
fn a_dropped_mount_is_gone_and_its_blocked_readers_end() {
    let tree = one_file(50_000);
    let content = SlowContent::new(MemoryContent::missing(vec![noise(50_000)]));
    let fixture = Fixture::new(&tree, content.clone());
    let dir = fixture.mounted.dir().to_owned();
    let file = File::open(fixture.path("f")).unwrap();
    let reader = std::thread::spawn(move || number(file.read_at(&mut [0; 100], 0)));
    until("the read is under way", || content.asked() > 0);
    drop(fixture);
    assert_eq!(reader.join().unwrap(), Some(libc::EIO));
    assert!(mounts().unwrap().iter().all(|mount| mount.dir != dir));
}

#[test]
fn a_mount_that_somebody_else_took_away_is_noticed() {
    let tree = one_file(10);
    let mut fixture = Fixture::new(&tree, MemoryContent::cached(vec![noise(10)]));
    assert!(Command::new("umount").arg(fixture.mounted.dir()).status().unwrap().success());
    let ended = fixture.mounted.ended();
    until("the session ends", || ended.is_cancelled());
    // What is mounted there by now is not ours to take away.
    let runtime = runtime();
    let options = MountOptions::new("second", runtime.handle().clone());
    let content = Arc::new(MemoryContent::cached(vec![noise(10)]));
    let second = mount(fixture.mounted.dir(), tree, content, &options).unwrap();
    assert_eq!(fixture.mounted.unmount(Detach::WhenUnused).unwrap(), Unmounted::Ended);
    assert!(is_mounted(&fixture));
    drop(second);
    assert!(!is_mounted(&fixture));
}

#[test]
fn a_directory_shows_one_mount_at_a_time() {
    let tree = one_file(10);
    let content = MemoryContent::cached(vec![noise(10)]);
    let fixture = Fixture::new(&tree, content.clone());
    let runtime = runtime();
    let options = MountOptions::new("second", runtime.handle().clone());
    let second = mount(fixture.mounted.dir(), tree, Arc::new(content), &options);
    let error = second.unwrap_err();
    assert!(matches!(error, MountError::AlreadyMounted { .. }), "{error}");
    assert!(error.to_string().contains("dfctl umount"), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
}

fn run(program: &str, words: &[&str], dir: &Path) {
    assert!(Command::new(program).args(words).arg(dir).status().unwrap().success());
}

/// Whoever looks at all mounts of the machine has each of them in use for a moment.
fn take_away(dir: &Path) {
    let umount = || Command::new("umount").arg(dir).status().unwrap().success();
    until("it can be unmounted", umount);
}

const DISK: [&str; 3] = ["-t", "tmpfs", "dfs-test"];

fn shows(dir: &Path) -> Option<String> {
    mounted_at(dir).unwrap().map(|mount| mount.name)
}

#[test]
fn what_is_not_mounted_any_more_is_not_unmounted() {
    let mut fixture = Fixture::new(&one_file(10), MemoryContent::cached(vec![noise(10)]));
    let dir = fixture.mounted.dir().to_owned();
    let mount = mounted_at(&dir).unwrap().unwrap();
    take_away(&dir);
    run("mount", &DISK, &dir);
    for detach in [Detach::WhenUnused, Detach::Lazily] {
        let answer = unmount(&mount, detach);
        assert!(matches!(answer, Err(UnmountError::NotMounted(_))), "{answer:?}");
    }
    // Its own thread says so, a moment after the kernel has let go of it.
    let ended = fixture.mounted.ended();
    until("nobody serves it", || ended.is_cancelled());
    assert_eq!(fixture.mounted.unmount(Detach::Lazily).unwrap(), Unmounted::Ended);
    assert_eq!(shows(&dir).as_deref(), Some("dfs-test"));
    take_away(&dir);
}

/// The kernel gives the number and the device of a mount that is gone to the next one.
#[test]
fn another_mount_of_the_same_elsewhere_is_not_taken_for_one_that_is_gone() {
    let fixture = || Fixture::new(&one_file(10), MemoryContent::cached(vec![noise(10)]));
    let first = fixture();
    let dir = first.mounted.dir().to_owned();
    let gone = mounted_at(&dir).unwrap().unwrap();
    take_away(&dir);
    let others = [fixture(), fixture(), fixture()];
    for detach in [Detach::WhenUnused, Detach::Lazily] {
        let answer = unmount(&gone, detach);
        assert!(matches!(answer, Err(UnmountError::NotMounted(_))), "{answer:?}");
    }
    assert!(others.iter().all(|other| shows(other.mounted.dir()).is_some()));
}

#[test]
fn mounts_that_come_and_go_beside_it_are_not_taken_for_one_that_is_gone() {
    let fixture = || Fixture::new(&one_file(10), MemoryContent::cached(vec![noise(10)]));
    let first = fixture();
    let dir = first.mounted.dir().to_owned();
    let gone = mounted_at(&dir).unwrap().unwrap();
    take_away(&dir);
    let (over, made) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    drop(fixture());
                    made.fetch_add(1, Relaxed);
                }
            });
        }
        let _ends = Ends(&over);
        while made.load(Relaxed) < 300 {
            let answer = unmount(&gone, Detach::WhenUnused);
            assert!(matches!(answer, Err(UnmountError::NotMounted(_))), "{answer:?}");
        }
    });
}

/// However a test ends, who waits for its end does not wait for ever.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn what_is_mounted_over_a_mount_is_left_alone() {
    let mut fixture = Fixture::new(&one_file(10), MemoryContent::cached(vec![noise(10)]));
    let dir = fixture.mounted.dir().to_owned();
    run("mount", &DISK, &dir);
    for detach in [Detach::WhenUnused, Detach::Lazily] {
        let answer = fixture.mounted.unmount(detach);
        assert!(matches!(answer, Err(UnmountError::Covered(_))), "{answer:?}");
        assert_eq!(shows(&dir).as_deref(), Some("dfs-test"));
    }
    take_away(&dir);
    assert_eq!(fixture.mounted.unmount(Detach::WhenUnused).unwrap(), Unmounted::Ended);
    assert_eq!(shows(&dir), None);
}

#[test]
fn a_link_in_the_way_does_not_lead_an_unmount_elsewhere() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().canonicalize().unwrap();
    let (way, moved, other) = (root.join("way"), root.join("moved"), root.join("other"));
    for dir in [&way, &other] {
        std::fs::create_dir_all(dir.join("m")).unwrap();
    }
    let runtime = runtime();
    let options = MountOptions::new("ours", runtime.handle().clone());
    let content = Arc::new(MemoryContent::cached(vec![noise(10)]));
    let mut mounted = mount(&way.join("m"), one_file(10), content, &options).unwrap();
    run("mount", &DISK, &other.join("m"));
    std::fs::rename(&way, &moved).unwrap();
    std::os::unix::fs::symlink(&other, &way).unwrap();
    assert_eq!(mounted.unmount(Detach::WhenUnused).unwrap(), Unmounted::Ended);
    assert_eq!(shows(&moved.join("m")), None);
    assert_eq!(shows(&other.join("m")).as_deref(), Some("dfs-test"));
    take_away(&other.join("m"));
}
