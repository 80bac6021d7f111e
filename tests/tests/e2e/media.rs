//! Where the cache lies, and how much of it one mount may take.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use dfs_tests::{Body, Cluster, Fault, Node, Origin};
use rustix::fs::{Advice, fadvise};

use crate::full::{FULL, on_disk};
use crate::support::{Agent, Expected, Place, Tmpfs, all, binaries, until};
use crate::survival::Holder;

const MIB: u64 = 1 << 20;

/// The least that a mount, or a cache in memory, can be given.
const LEAST: u64 = 64 * MIB;

/// What a mount with the least quota may hold for a moment: an eighth before readers wait, and what is fetched ahead of
/// them, a quarter.
const HELD_AT_MOST: u64 = LEAST + LEAST / 8 + LEAST / 4;

/// A directory with more than twice of that.
fn site() -> (Origin, Vec<(String, Vec<u8>)>) {
    let sizes = [("big", 100 * MIB + 7), ("other", 40 * MIB), ("small", 70_001)];
    let bodies = sizes.map(|(name, size)| (name, Body::noise(size, size)));
    let origin = Origin::of("/d/big", bodies[0].1.clone()).unwrap();
    bodies.iter().skip(1).for_each(|(name, body)| origin.put(&format!("/d/{name}"), body.clone()));
    (origin, bodies.map(|(name, body)| (name.to_owned(), all(&body))).into())
}

/// Reads all of a file although the kernel may have it.
fn read_anew(path: &Path) -> Vec<u8> {
    let mut file = File::open(path).unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// The most that `take` gives while `act` goes on.
fn most_while(take: impl Fn() -> u64 + Sync, act: impl FnOnce()) -> u64 {
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(take(), Ordering::Relaxed);
            }
        });
        // However it ends, the other one does.
        let _over = OnDrop(|| over.store(true, Ordering::Relaxed));
        act();
    });
    most.into_inner()
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn mount_with_quota(agent: &Agent, url: &str, dir: &Path, words: &[&str]) {
    agent.guard(dir);
    let mount = ["mount", "--cache-quota", "64MiB", url, dir.to_str().unwrap()];
    agent.dfctl(&[&mount[..], words].concat()).done();
}

#[test]
fn a_mount_larger_than_its_quota_is_read_twice_and_holds_no_more_than_that() {
    let place = Place::new();
    let (origin, files) = site();
    let agent = Agent::solo(&place, "agent");
    let dir = place.dir("mount");
    mount_with_quota(&agent, &origin.url("/d/"), &dir, &["--lane", "passthrough"]);
    let tasks = agent.data().join("tasks");
    let most = most_while(
        || on_disk(&tasks),
        || {
            for _ in 0..2 {
                for (name, bytes) in &files {
                    assert!(read_anew(&dir.join(name)) == *bytes, "{name}");
                }
            }
        },
    );
    // With what is known of the content, and the index.
    assert!(most <= HELD_AT_MOST + 4 * MIB, "{most} bytes were held");
    let shown = agent.shown(&dir).unwrap();
    assert_eq!((&shown["lane"], &shown["cache_quota_bytes"]), (&"fuse".into(), &LEAST.into()));
    assert!(shown["lane_reason"].as_str().unwrap().contains("quota"), "{shown}");
    let held = shown["cached_bytes"].as_u64().unwrap();
    assert!(held > LEAST / 2 && held <= HELD_AT_MOST, "{held}");
    let table = String::from_utf8(agent.dfctl(&["mounts"]).done().stdout).unwrap();
    assert!(table.contains("of 64.0 MiB quota"), "{table}");
    // What went came again, and from nowhere else.
    let sent = origin.counters().body_bytes;
    assert!(sent > 200 * MIB, "{sent}");
    assert!(agent.metric("dfs_node_quota_freed_bytes_total") > 100 * MIB);
    until("no more is held than the quota", || on_disk(&tasks) <= LEAST + 4 * MIB);
}

#[test]
fn the_next_agent_keeps_to_the_quota_of_a_mount() {
    let place = Place::new();
    let (origin, files) = site();
    let holder = Holder::start(&place, 300);
    let mut agent =
        Agent::solo_with(&place, "agent", &["--holder", holder.socket.to_str().unwrap()]);
    let dir = place.dir("mount");
    let options = ["-o", "cache-quota=64MiB"];
    agent.guard(&dir);
    let mount = ["mount", &origin.url("/d/"), dir.to_str().unwrap()];
    agent.dfctl(&[&mount[..], &options].concat()).done();
    agent.kill();
    agent.start_again();
    assert_eq!(agent.shown(&dir).unwrap()["cache_quota_bytes"], LEAST);
    let tasks = agent.data().join("tasks");
    let most = most_while(
        || on_disk(&tasks),
        || files.iter().for_each(|(name, bytes)| assert!(read_anew(&dir.join(name)) == *bytes)),
    );
    assert!(most <= HELD_AT_MOST + 4 * MIB, "{most} bytes were held");
}

#[test]
fn sixty_four_readers_of_a_mount_with_a_quota_read_what_is_right() {
    let place = Place::new();
    let (origin, files) = site();
    let agent = Agent::solo(&place, "agent");
    let dir = place.dir("mount");
    mount_with_quota(&agent, &origin.url("/d/"), &dir, &[]);
    let (tasks, (name, bytes)) = (agent.data().join("tasks"), &files[0]);
    let most = most_while(
        || on_disk(&tasks),
        || {
            thread::scope(|scope| {
                for reader in 0..64_u64 {
                    let path = dir.join(name);
                    scope.spawn(move || read_about(&path, bytes, reader));
                }
            });
        },
    );
    assert!(most <= HELD_AT_MOST + 4 * MIB, "{most} bytes were held");
}

/// Reads here and there, and on from there.
fn read_about(path: &Path, bytes: &[u8], seed: u64) {
    let file = File::open(path).unwrap();
    let mut at = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut buffer = vec![0; 300_000];
    for _ in 0..8 {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
        let offset = (at >> 16) as usize % bytes.len();
        fadvise(&file, offset as u64, None, Advice::DontNeed).unwrap();
        let read = file.read_at(&mut buffer, offset as u64).unwrap();
        assert!(buffer[..read] == bytes[offset..offset + read], "at {offset}");
    }
}

#[test]
fn where_another_mount_has_no_quota_nothing_goes() {
    let place = Place::new();
    let (origin, files) = site();
    let agent = Agent::solo(&place, "agent");
    let (limited, free) = (place.dir("limited"), place.dir("free"));
    mount_with_quota(&agent, &origin.url("/d/"), &limited, &[]);
    agent.mount(&origin.url("/d/"), free.clone());
    for (name, bytes) in &files {
        assert!(read_anew(&limited.join(name)) == *bytes, "{name}");
    }
    let size: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert_eq!(agent.shown(&limited).unwrap()["cached_bytes"], size);
    assert_eq!(agent.metric("dfs_node_quota_freed_bytes_total"), 0);
}

#[test]
fn who_copies_out_of_a_cache_that_is_held_to_a_quota_gets_what_is_right() {
    let place = Place::new();
    let (origin, files) = site();
    let agent = Agent::solo(&place, "agent");
    let dir = place.dir("mount");
    mount_with_quota(&agent, &origin.url("/d/"), &dir, &[]);
    thread::scope(|threads| {
        threads.spawn(|| {
            for (name, bytes) in files.iter().chain(&files) {
                assert!(read_anew(&dir.join(name)) == *bytes, "{name}");
            }
        });
        for round in 0..3 {
            for (name, bytes) in &files {
                let out = place.path(&format!("out-{round}-{name}"));
                let from = format!("{}!{name}", origin.url("/d/"));
                agent.dfctl(&["get", &from, "-o", out.to_str().unwrap()]).done();
                assert!(fs::read(&out).unwrap() == *bytes, "{name}");
                fs::remove_file(out).unwrap();
            }
        }
    });
}

#[test]
fn neighbours_of_a_mount_with_a_quota_read_what_is_right() {
    let place = Place::new();
    let (origin, files) = site();
    let cluster = Cluster::start(&binaries(), &place.dir("cluster")).unwrap();
    let agents = ["a", "b", "c"].map(|name| Agent::of(&cluster, &place, name));
    let dirs = ["on-a", "on-b", "on-c"].map(|name| place.dir(name));
    for (agent, dir) in agents.iter().zip(&dirs).take(2) {
        mount_with_quota(agent, &origin.url("/d/"), dir, &[]);
    }
    agents[2].mount(&origin.url("/d/"), dirs[2].clone());
    thread::scope(|threads| {
        for dir in &dirs {
            threads.spawn(|| {
                for (name, bytes) in files.iter().chain(&files) {
                    assert!(read_anew(&dir.join(name)) == *bytes, "{name}");
                }
            });
        }
    });
    let freed = |agent: &Agent| agent.metric("dfs_node_quota_freed_bytes_total");
    assert!(agents.iter().take(2).all(|agent| freed(agent) > 100 * MIB));
    assert_eq!(freed(&agents[2]), 0);
    let size: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let sent = origin.counters().body_bytes;
    assert!(
        sent <= size + size / 4,
        "{sent} bytes left the origin: the seed has what they gave back"
    );
}

#[test]
fn quotas_that_are_none_are_refused() {
    let place = Place::new();
    let agent = Agent::solo(&place, "agent");
    let dir = place.dir("mount");
    let dir = dir.to_str().unwrap();
    for words in [["--cache-quota", "1MiB"], ["--cache-quota", "much"], ["-o", "cache-quota=63MiB"]]
    {
        let said = agent.dfctl(&[&["mount", "http://127.0.0.1:1/d/", dir], &words[..]].concat());
        assert_eq!(said.code, 2, "{}", said.stderr);
    }
}

/// An agent whose cache lies in a file system in memory of its own.
fn diskless(memory: &Tmpfs, extra: &[&str]) -> Agent {
    let words = [&["--cache-medium", "memory", "--cache-memory", "64MiB"], extra].concat();
    let mut node = Node::spawn(&binaries(), memory.path(), "agent", None, &words).unwrap();
    node.wait_ready().unwrap();
    Agent::around(node)
}

fn in_memory(agent: &Agent) -> PathBuf {
    agent.data().join("memory/store")
}

#[test]
fn a_diskless_agent_is_killed_and_its_mounts_and_cache_go_on() {
    let place = Place::new();
    let body = Body::noise(3, 20 * MIB);
    let bytes = all(&body);
    let origin = Origin::of("/d/f", body).unwrap();
    let holder = Holder::start(&place, 300);
    let memory = Tmpfs::mount(place.dir("machine"), 256 * MIB);
    let mut agent = diskless(&memory, &["--holder", holder.socket.to_str().unwrap()]);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    assert!(fs::read(dir.join("f")).unwrap() == bytes);
    assert!(!agent.data().join("tasks").exists() && in_memory(&agent).join("tasks").exists());
    let said = String::from_utf8(agent.dfctl(&["cache", "ls"]).done().stdout).unwrap();
    assert!(said.contains("of 64.0 MiB in memory"), "{said}");

    agent.kill();
    agent.start_again();
    let sent = origin.counters().body_bytes;
    origin.inject(Fault::status(503).on("/d/f"));
    assert!(read_anew(&dir.join("f")) == bytes, "what was kept is used again");
    assert_eq!(origin.counters().body_bytes, sent);
    // A holder of the machine's keeps the mounts over a stop, too, and so is what they need.
    agent.terminate();
    agent.start_again();
    assert!(read_anew(&dir.join("f")) == bytes);
    assert_eq!(origin.counters().body_bytes, sent);
}

#[test]
fn no_more_memory_is_taken_than_was_said_and_nobody_fails() {
    let place = Place::new();
    let (origin, files) = site();
    let memory = Tmpfs::mount(place.dir("machine"), 512 * MIB);
    let mut agent = diskless(&memory, &[]);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let (name, bytes) = &files[0];
    let most = most_while(
        || on_disk(&in_memory(&agent)),
        || {
            thread::scope(|scope| {
                for reader in 0..64_u64 {
                    let path = dir.join(name);
                    scope.spawn(move || read_about(&path, bytes, reader));
                }
            });
            assert!(read_anew(&dir.join(name)) == *bytes);
        },
    );
    assert!(most <= LEAST, "{most} bytes of memory were taken");
    assert!(most > LEAST / 2, "{most}");
    // It ends for good: nobody would give it back later.
    agent.terminate();
    assert!(!in_memory(&agent).exists());
}

#[test]
fn a_seed_without_a_disk_serves_nodes() {
    let place = Place::new();
    let (origin, files) = site();
    let memory = Tmpfs::mount(place.dir("machine"), 512 * MIB);
    let config = place.path("cluster.toml");
    fs::write(&config, "[seed]\ncache-medium = 'memory'\ncache-memory = '64MiB'\n").unwrap();
    let extra = ["--config", config.to_str().unwrap()];
    let cluster = Cluster::start_with(&binaries(), memory.path(), &extra).unwrap();
    let agent = Agent::of(&cluster, &place, "agent");
    let dir = agent.mount(&origin.url("/d/big"), place.dir("mount"));
    assert!(read_anew(&dir.join("big")) == files[0].1);
    let taken = on_disk(memory.path());
    assert!((16 * MIB..LEAST + 4 * MIB).contains(&taken), "the seed takes {taken} bytes");
    assert_eq!(agent.metric("dfs_node_source_bytes_total"), 0, "the seed alone reads the origin");
    drop((agent, cluster));
}

/// An agent with memory over its disk, in a file system of its own.
fn layered(place: &Place, extra: &[&str]) -> (Agent, Tmpfs) {
    let data = place.dir("agent");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let memory = Tmpfs::mount(place.dir("agent/memory"), 256 * MIB);
    let words = [&["--cache-medium", "layered", "--cache-memory", "64MiB"], extra].concat();
    (Agent::solo_with(place, "agent", &words), memory)
}

#[test]
fn what_lies_in_memory_over_the_disk_is_read_on_after_a_kill_and_moves_down_as_memory_is_needed() {
    let place = Place::new();
    let (origin, files) = site();
    let holder = Holder::start(&place, 300);
    let (mut agent, _memory) = layered(&place, &["--holder", holder.socket.to_str().unwrap()]);
    assert_eq!(agent.data(), place.path("agent"));
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    let (other, tasks) = (&files[1], agent.data().join("tasks"));
    assert!(read_anew(&dir.join(&other.0)) == other.1);
    assert!(on_disk(&in_memory(&agent)) >= 40 * MIB && on_disk(&tasks) < 4 * MIB);

    agent.kill();
    agent.start_again();
    let sent = origin.counters().body_bytes;
    assert!(read_anew(&dir.join(&other.0)) == other.1, "it is found again where it lay");
    assert_eq!(origin.counters().body_bytes, sent);

    let most = most_while(
        || on_disk(&in_memory(&agent)),
        || files.iter().for_each(|(name, bytes)| assert!(read_anew(&dir.join(name)) == *bytes)),
    );
    assert!(most <= LEAST + MIB, "{most} bytes of memory were taken");
    assert!(on_disk(&tasks) >= 70 * MIB, "what memory has no room for lies on disk");
    agent.kill();
    agent.start_again();
    let sent = origin.counters().body_bytes;
    files.iter().for_each(|(name, bytes)| assert!(read_anew(&dir.join(name)) == *bytes));
    assert_eq!(origin.counters().body_bytes, sent);
    // Who copies out of the content file finds all of it there.
    let out = place.path("out");
    agent
        .dfctl(&["get", &format!("{}!other", origin.url("/d/")), "-o", out.to_str().unwrap()])
        .done();
    assert!(fs::read(&out).unwrap() == other.1);
}

#[test]
fn a_full_disk_below_memory_stops_nobody() {
    let place = Place::new();
    let (origin, files) = site();
    let disk = Tmpfs::mount(place.dir("disk"), 24 * MIB);
    let data = disk.path().join("agent");
    fs::create_dir_all(data.join("memory")).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    let memory = Tmpfs::mount(data.join("memory"), 256 * MIB);
    let words = ["--cache-medium", "layered", "--cache-memory", "64MiB"];
    let mut node = Node::spawn(&binaries(), disk.path(), "agent", None, &words).unwrap();
    node.wait_ready().unwrap();
    let agent = Agent::around(node);
    assert_eq!(agent.data(), data);
    let dir = agent.mount(&origin.url("/d/"), place.dir("mount"));
    for _ in 0..2 {
        files.iter().for_each(|(name, bytes)| assert!(read_anew(&dir.join(name)) == *bytes));
    }
    assert!(agent.log().contains(FULL), "{}", agent.log());
    drop((agent, memory));
}

#[test]
fn media_that_cannot_be_are_said_to_be() {
    let place = Place::new();
    let run = |words: &[&str]| {
        let mut command = binaries().command("dfs-fuse").unwrap();
        command.arg("--data-dir").arg(place.path("data")).args(words);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let wrong: [(&[&str], &str); 4] = [
        (&["--cache-medium", "tape"], "'tape' is not disk"),
        (&["--cache-memory", "1GiB"], "say cache-medium too"),
        (&["--cache-medium", "memory", "--capacity", "1GiB"], "say cache-memory instead"),
        (&["--cache-medium", "memory", "--cache-memory", "1MiB"], "64.0 MiB"),
    ];
    for (words, why) in wrong {
        let (code, said) = run(words);
        assert!(code == Some(2) && said.contains(why), "{words:?}: {code:?} {said}");
    }
    let (code, said) = run(&["--cache-medium", "memory", "--cache-memory", "500TiB"]);
    assert!(code == Some(1) && said.contains("cannot take 500.0 TiB of memory"), "{code:?} {said}");
}
