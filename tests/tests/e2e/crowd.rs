//! Everything at once on one task: readers, mounts, removals, evictions, pins, verification, and a second agent on the same
//! directory. Nobody reads a wrong byte, and nothing vanishes under a reader.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dfs_tests::process::Said;
use dfs_tests::{Body, Cluster, Node, Origin};

use crate::support::{Agent, Expected, Place, binaries, until};

const MIB: u64 = 1 << 20;
const READERS: usize = 6;
const READS: usize = 6;

/// What a command about a task that comes and goes may end with: done, in use, not there, nothing to do.
fn assert_told(said: &Said) {
    assert!(matches!(said.code, 0 | 1 | 3 | 9), "{said:?}");
    assert!(!said.stderr.contains("panicked"), "{said:?}");
}

#[test]
fn whatever_is_done_to_a_task_its_readers_have_their_bytes() {
    let place = Place::new();
    let body = Body::noise(1, 8 * MIB + 13);
    let all = body.read(0, body.length().unwrap()).unwrap();
    let origin = Origin::of("/model.bin", body).unwrap();
    let cluster = Cluster::start(&binaries(), place.root()).unwrap();
    let agent = Agent::of(&cluster, &place, "a");
    let url = origin.url("/model.bin");
    agent.dfctl(&["cat", &url]).done();
    let said = agent.dfctl(&["task", "ls", "--format", "name"]).done();
    let task = said.text().lines().next().unwrap().to_owned();
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let until_over = |words: &[&str]| {
        while !over.load(Ordering::Relaxed) {
            assert_told(&agent.dfctl(words));
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let until_over = &until_over;
        let (task, url, agent, all, place) = (&task, &url, &agent, &all, &place);
        scope.spawn(|| until_over(&["task", "rm", task, "--yes"]));
        scope.spawn(|| until_over(&["cache", "gc"]));
        scope.spawn(|| until_over(&["cache", "pin", task]));
        scope.spawn(|| until_over(&["cache", "unpin", task]));
        scope.spawn(|| until_over(&["cache", "verify"]));
        scope.spawn(|| until_over(&["preheat", url]));
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                scope.spawn(move || {
                    for read in 0..READS {
                        match reader % 3 {
                            0 => {
                                let said = agent.dfctl(&["cat", url]).done();
                                assert!(said.stdout == *all, "wrong bytes");
                            }
                            1 => {
                                let output = place.path(&format!("out-{reader}-{read}"));
                                agent.dfctl(&["get", url, "-o", output.to_str().unwrap()]).done();
                                assert!(fs::read(output).unwrap() == *all, "wrong bytes");
                            }
                            _ => {
                                let at = place.path(&format!("mount-{reader}-{read}"));
                                let mount = agent.mount(url, at.clone());
                                assert!(fs::read(mount.join("model.bin")).unwrap() == *all);
                                // What another reader has just forked has our files open until it executes.
                                until("it is not in use", || {
                                    let said = agent.dfctl(&["umount", at.to_str().unwrap()]);
                                    assert!(said.code == 0 || said.stderr.contains("DFS-5105"));
                                    said.code == 0
                                });
                            }
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = readers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "a reader failed");
    });
    assert!(done.load(Ordering::Relaxed) > 0);

    let second = Node::start(&binaries(), place.root(), "a", None).unwrap_err().to_string();
    assert!(second.contains("in use by dfs-fuse"), "{second}");
    agent.dfctl(&["cache", "verify"]).done();
    assert!(agent.dfctl(&["cat", &url]).done().stdout == all);
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
}
