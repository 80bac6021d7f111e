//! Mounts that go away with their test, and waiting for conditions.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dfs_fuse::content::Content;
use dfs_fuse::mount::{Detach, MountOptions, Mounted, mount, mounted_at, unmount};
use dfs_fuse::tree::{Extent, MemoryTree, MemoryTreeBuilder};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A mount of its own on a directory of its own.
pub struct Fixture {
    // Dropped in this order: the mount, whatever is left of it, the directory, the runtime.
    pub mounted: Mounted,
    _guard: Guard,
    _dir: TempDir,
    _runtime: Runtime,
}

/// Takes away what is mounted on a path, even when a failed test left it there.
pub struct Guard(pub PathBuf);

impl Drop for Guard {
    fn drop(&mut self) {
        // Nothing there is the usual case.
        if let Ok(Some(mount)) = mounted_at(&self.0) {
            let _ = unmount(&mount, Detach::Lazily);
        }
    }
}

impl Fixture {
    pub fn new(tree: &Arc<MemoryTree>, content: impl Content) -> Self {
        Self::with(tree, content, |_| {})
    }

    pub fn with(
        tree: &Arc<MemoryTree>,
        content: impl Content,
        adjust: impl FnOnce(&mut MountOptions),
    ) -> Self {
        let runtime = runtime();
        let dir = tempfile::tempdir().unwrap();
        let guard = Guard(dir.path().canonicalize().unwrap());
        let mut options =
            MountOptions::new("https://user:secret@host/a b,c", runtime.handle().clone());
        adjust(&mut options);
        let mounted = mount(dir.path(), tree.clone(), Arc::new(content), &options).unwrap();
        Self { mounted, _guard: guard, _dir: dir, _runtime: runtime }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.mounted.dir().join(name)
    }
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Waits until `condition` holds; fails the test after half a minute.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Bytes that are not the same anywhere near each other.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A tree of the one file `f`, which is space 0.
pub fn one_file(length: usize) -> Arc<MemoryTree> {
    let mut builder = MemoryTreeBuilder::new();
    let extent = Extent::Data { space: 0, offset: 0, length: length as u64 };
    builder.file("f", 0o755, vec![extent]).unwrap();
    Arc::new(builder.build())
}

/// The system's error number of a failure.
pub fn number<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
