//! The lanes as tests want them: by which way the kernel reads a mount, and whether it does.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use dfs_tests::{Mount, wait};
use rustix::fs::{Advice, fadvise};
use rustix::process::{Pid, Signal, kill_process};

use super::own::Own;
use super::trees;

/// By which way the kernel reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// It asks the agent.
    Fuse,
    /// It reads what is whole and large by itself.
    Passthrough,
    /// It reads all by itself, and all is here.
    Whole,
    /// It reads all by itself, and asks about what is not here.
    Lazy,
}

pub const LANES: [Lane; 4] = [Lane::Fuse, Lane::Passthrough, Lane::Whole, Lane::Lazy];

/// From this length on a file lies alone in a content file.
const ALONE_FROM: u64 = 8 << 20;

impl Lane {
    /// As it is named on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Fuse => "fuse",
            Self::Passthrough => "passthrough",
            Self::Whole | Self::Lazy => "kernel",
        }
    }

    /// Whether the kernel shows the index, and not the agent.
    pub fn is_by_kernel(self) -> bool {
        matches!(self, Self::Whole | Self::Lazy)
    }
}

/// Mounts in a lane, and sees that it is read so. To be shown in the lane of what is whole all of it is read beforehand,
/// by way of another mount, which stays.
pub fn mounted(own: &Own, lane: Lane, url: &str) -> (PathBuf, Vec<Mount>) {
    mounted_with(own, lane, &[], url)
}

/// The same with further words.
pub fn mounted_with(own: &Own, lane: Lane, words: &[&str], url: &str) -> (PathBuf, Vec<Mount>) {
    let mut mounts = Vec::new();
    if lane == Lane::Whole {
        let (first, mount) = own.mount_at(own.place.dir("first"), "fuse", url);
        trees::walk(&first);
        // A holder starts an agent again that has something to go on with.
        mounts.push(mount);
    }
    let words = [&["--lane", lane.name()], words].concat();
    let (dir, mount) = own.mount_with(own.place.dir("mount"), &words, url);
    mounts.push(mount);
    let shown = own.shown(&dir).unwrap();
    assert_eq!(shown["lane"], lane.name(), "{shown}");
    assert_eq!(shown["survival"]["kept_by"].is_u64(), lane != Lane::Whole, "{shown}");
    if lane == Lane::Passthrough {
        wait_until_passed(own, &dir);
    }
    (dir, mounts)
}

/// Reads all there is, and waits until the kernel reads every large file by itself.
pub fn wait_until_passed(own: &Own, dir: &Path) {
    let is_large = |found: &trees::Found| found.length() >= Some(ALONE_FROM);
    let found = trees::walk(dir);
    let large = found.iter().filter(|(_, found)| is_large(found)).map(|(path, _)| dir.join(path));
    let large: Vec<_> = large.collect();
    assert!(!large.is_empty(), "there are no large files in {}", dir.display());
    for path in large {
        let bytes = fs::read(&path).unwrap();
        // Who was the last to close it the kernel tells the agent when it finds the time.
        wait::until(&format!("{} is passed", path.display()), || {
            is_read_without(own.agent(), &File::open(&path).unwrap(), &bytes)
        })
        .unwrap();
    }
}

/// A process that does not run until this is dropped.
pub struct Stopped(Pid);

impl Stopped {
    pub fn new(pid: Pid) -> Self {
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Whether all of an open file can be read without its agent.
pub fn is_read_without(agent: Pid, file: &File, bytes: &[u8]) -> bool {
    // What the mount's own page cache has is not what is asked for.
    fadvise(file, 0, None, Advice::DontNeed).unwrap();
    let stopped = Stopped::new(agent);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = vec![0; bytes.len()];
            file.read_exact_at(&mut read, 0).unwrap();
            read == bytes
        });
        let ended =
            wait::find("it is read", Duration::from_secs(3), || reader.is_finished().then_some(()));
        drop(stopped);
        // It ends now in any case, with the right bytes.
        assert!(reader.join().unwrap());
        ended.is_ok()
    })
}
