//! What the kernel was told of a mount once it does not ask again: whoever looks a second time needs no agent.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use dfs_tests::wait;
use rustix::process::Pid;

use crate::support::Place;
use crate::support::lanes::{self, Lane, Stopped};
use crate::support::own::Own;
use crate::support::trees::{self, noise, put};

/// Looks while the agent does not run; what was seen.
#[track_caller]
fn without<T: Send>(agent: Pid, look: impl FnOnce() -> T + Send) -> T {
    let stopped = Stopped::new(agent);
    thread::scope(|scope| {
        let looking = scope.spawn(look);
        let ended = wait::until("nobody asks the agent", || looking.is_finished());
        // It ends now in any case.
        drop(stopped);
        let seen = looking.join().unwrap();
        ended.unwrap();
        seen
    })
}

/// A tree with some of everything, and a large file in it.
fn planted() -> (Place, PathBuf) {
    let place = Place::new();
    let source = place.dir("source");
    trees::varied(&source);
    trees::rich(&source.join("rich"));
    put(&source.join("large"), &noise(8, 9_000_001));
    (place, source)
}

/// What a program is told of a name.
type Told = (u32, u64, i64, u64);

fn told(path: &Path) -> io::Result<Told> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.mode(), meta.size(), meta.mtime(), meta.ino()))
}

/// Names that are there, and for each one that is not.
fn told_of(dir: &Path, paths: &[PathBuf]) -> Vec<(Told, io::ErrorKind)> {
    let missing = |path: &Path| told(&path.with_extension("missing")).unwrap_err().kind();
    let told = paths.iter().map(|path| dir.join(path));
    told.map(|path| (self::told(&path).unwrap(), missing(&path))).collect()
}

#[test]
fn what_was_looked_at_once_is_looked_at_again_without_an_agent() {
    let (_place, source) = planted();
    let paths: Vec<_> = trees::walk(&source).into_keys().collect();
    for lane in [Lane::Fuse, Lane::Lazy] {
        println!("by the lane {lane:?}");
        let own = Own::start(Place::new());
        let (dir, _mounts) = lanes::mounted(&own, lane, &format!("file://{}/", source.display()));
        // Every directory is listed, every byte read, every link followed, and what is not there is looked for.
        let look = || (trees::walk(&dir), told_of(&dir, &paths));
        let seen = look();
        assert!(seen.0 == trees::walk(&source));
        assert!(seen.1.iter().all(|(_, missed)| *missed == io::ErrorKind::NotFound));
        assert!(without(own.agent(), look) == seen);
        // Whoever opens it anew has the same pages, in his own memory too.
        let mapped = || crate::survival::map(&dir.join("large")).to_vec();
        assert!(without(own.agent(), mapped) == noise(8, 9_000_001));
    }
}

#[test]
fn names_are_remembered_where_every_open_is_asked_about() {
    let (_place, source) = planted();
    let paths: Vec<_> = trees::walk(&source).into_keys().collect();
    let own = Own::start(Place::new());
    let url = format!("file://{}/", source.display());
    let (dir, _mounts) = lanes::mounted(&own, Lane::Passthrough, &url);
    let seen = told_of(&dir, &paths);
    assert!(without(own.agent(), || told_of(&dir, &paths)) == seen);
    // That it is asked is no matter of taste: it knows which files are whole.
    let large = File::open(dir.join("large")).unwrap();
    assert!(lanes::is_read_without(own.agent(), &large, &noise(8, 9_000_001)));
}

#[test]
fn who_lists_a_directory_has_looked_at_all_that_is_in_it() {
    let place = Place::new();
    let source = place.dir("source");
    let names: BTreeSet<_> = (0..12).map(|number| OsString::from(format!("f{number}"))).collect();
    names.iter().for_each(|name| put(&source.join("dir").join(name), b"some bytes"));
    let own = Own::start(Place::new());
    let (dir, _guard) = own.mount_in("fuse", &format!("file://{}/", source.display()));
    // Once for all the kernel asks whether it is told when files were made.
    told(&dir).unwrap();
    // Nothing was looked at yet by its name.
    let dir = dir.join("dir");
    let listed = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(listed.collect::<BTreeSet<_>>(), names);
    let lengths = || names.iter().map(|name| told(&dir.join(name)).unwrap().1).collect::<Vec<_>>();
    assert_eq!(without(own.agent(), lengths), [10; 12]);
}
