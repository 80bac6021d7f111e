//! Mounting and unmounting.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::Arc;

use dfs_fuse::content::{MemoryContent, SlowContent};
use dfs_fuse::mount::{
    Detach, MountError, MountOptions, UnmountError, Unmounted, mount, mounts, unmount,
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

#[test]
fn what_is_not_mounted_is_not_unmounted() {
    let dir = tempfile::tempdir().unwrap();
    let answer = unmount(dir.path(), Detach::WhenUnused);
    assert!(matches!(answer, Err(UnmountError::NotMounted(_))), "{answer:?}");
}
