//! Agents that are killed while parts of files go: what is in the middle of going is nobody's to read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use dfs_tests::{Body, Origin};
use rustix::fs::{Advice, fadvise};

use crate::holes::{Ends, solid};
use crate::support::{Expected, Place, until};
use crate::survival::Holder;

const MIB: u64 = 1 << 20;

/// Length of each of the files, of which the least quota holds one and a half.
const LENGTH: u64 = 40 * MIB;

const FREED: &str = "dfs_node_quota_freed_bytes_total";

/// Files without a zero in them, of which somebody has parts only, and who reads them.
struct Readers {
    files: Vec<(PathBuf, Vec<u8>)>,
    over: AtomicBool,
    read: AtomicU64,
}

impl Readers {
    /// Reads here and there until it is over; a read waits for the next agent, and never fails.
    fn read(&self, seed: u64) {
        let (mut at, mut buffer) = (seed, vec![0; 300_000]);
        while !self.over.load(Ordering::Relaxed) {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
            let (path, bytes) = &self.files[(at >> 60) as usize % self.files.len()];
            let offset = (at >> 20) as usize % (bytes.len() - buffer.len());
            let file = File::open(path).unwrap();
            // What the mount's own page cache has is not what is asked for.
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            file.read_exact_at(&mut buffer, offset as u64).unwrap();
            assert!(buffer == bytes[offset..offset + buffer.len()], "{path:?} at {offset}");
            self.read.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// `KILLS=n` kills it as often.
#[test]
fn an_agent_that_is_killed_while_parts_of_files_go_shows_no_wrong_byte() {
    let kills: u64 = std::env::var("KILLS").map_or(20, |kills| kills.parse().unwrap());
    let place = Place::new();
    let names = ["a", "b", "c"];
    let files: Vec<_> = (1..).zip(names).map(|(seed, name)| (name, solid(seed, LENGTH))).collect();
    let origin = Origin::start().unwrap();
    files.iter().for_each(|(name, bytes)| origin.put(&format!("/d/{name}"), Body::bytes(&**bytes)));
    let holder = Holder::start(&place, 300);
    let mut agent = holder.agent(&place);
    let dir = place.dir("mount");
    agent.guard(&dir);
    let words = ["mount", "--cache-quota", "64MiB", &origin.url("/d/"), dir.to_str().unwrap()];
    agent.dfctl(&words).done();
    let files = files.into_iter().map(|(name, bytes)| (dir.join(name), bytes)).collect();
    let readers = Readers { files, over: AtomicBool::new(false), read: AtomicU64::new(0) };
    thread::scope(|scope| {
        (0..8).for_each(|seed| {
            drop(scope.spawn({
                let readers = &readers;
                move || readers.read(seed)
            }))
        });
        let _ends = Ends(&readers.over);
        for _ in 0..kills {
            // Each agent has something go, and is in the midst of it.
            until("parts of files go", || agent.metric(FREED) > 0);
            agent.kill();
            agent.start_again();
        }
        let before = readers.read.load(Ordering::Relaxed);
        until("reads go on", || readers.read.load(Ordering::Relaxed) > before + 16);
    });
    // Nothing but what it says is there is there.
    agent.dfctl(&["cache", "verify"]).done();
}
