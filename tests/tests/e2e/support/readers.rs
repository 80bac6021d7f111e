//! Readers that compare every byte, all the time.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Scope};

use dfs_tests::wait;
use rustix::fs::{Advice, fadvise};

/// Of files without a zero in them.
pub struct Readers<'a> {
    files: Vec<(PathBuf, &'a [u8])>,
    /// Bytes of one read.
    length: usize,
    over: AtomicBool,
    /// Reads that gave what they should.
    right: AtomicU64,
    /// Reads that failed.
    failed: AtomicU64,
}

impl<'a> Readers<'a> {
    pub fn of(files: Vec<(PathBuf, &'a [u8])>, length: usize) -> Self {
        let (over, right, failed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        Self { files, length, over, right, failed }
    }

    /// One for each seed begins, and goes on as long as what this gives is there.
    pub fn begin<'s>(&'s self, scope: &'s Scope<'s, '_>, seeds: Range<u64>) -> Ends<'s> {
        seeds.for_each(|seed| drop(scope.spawn(move || self.read(seed))));
        Ends(&self.over)
    }

    /// Reads here and there until it is over, opened anew each time.
    fn read(&self, seed: u64) {
        let (mut at, mut buffer) = (seed, vec![0; self.length]);
        while !self.over.load(Ordering::Relaxed) {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
            let (path, bytes) = &self.files[(at >> 60) as usize % self.files.len()];
            let offset = (at >> 20) as usize % (bytes.len() - buffer.len());
            buffer.fill(0);
            let read = File::open(path).and_then(|file| {
                // What the mount's own page cache has is not what is asked for.
                fadvise(&file, 0, None, Advice::DontNeed)?;
                file.read_exact_at(&mut buffer, offset as u64)
            });
            match read {
                Ok(()) => {
                    assert!(!buffer.contains(&0), "a hole was read at {offset} of {path:?}");
                    assert!(buffer == bytes[offset..][..buffer.len()], "{path:?} at {offset}");
                    self.right.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    thread::yield_now();
                }
            }
        }
    }

    /// Waits until so many more were right.
    pub fn wait_for(&self, more: u64) {
        let before = self.right.load(Ordering::Relaxed);
        wait::until("reads go on", || self.right.load(Ordering::Relaxed) >= before + more).unwrap();
    }

    /// Reads that failed so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// However the test ends, its readers do.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
