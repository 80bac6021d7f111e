//! What a mount of many objects takes of the agent's memory: what is its own, without what the page cache may drop.

use std::fs;

use dfs_tests::origin::Shelf;
use dfs_tests::{Body, Origin};

use crate::support::{Agent, Expected, Place};

const OBJECTS: u64 = 100_000;

/// Bytes that an agent may hold of a tree of [`OBJECTS`], whose index has a map of its own: 50 MiB for a million
/// would be 52 for each, with the 7 MiB that it holds of any tree.
const OF_ONE_TREE: u64 = 12 << 20;

/// What the kernel says of the agent's process.
fn told(agent: &Agent, what: &str) -> String {
    fs::read_to_string(format!("/proc/{}/{what}", agent.node.process().pid())).unwrap()
}

/// Bytes of the agent's own memory.
pub fn own_memory(agent: &Agent) -> u64 {
    let status = told(agent, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn two_mounts_of_one_thing_have_one_index_and_little_memory() {
    let place = Place::new();
    let origin = Origin::start().unwrap();
    origin.shelve("/lab", Shelf::new(OBJECTS, 1000));
    let url = format!("s3://anonymous@lab/?endpoint=http://{}", origin.address());
    let agent = Agent::solo(&place, "agent");
    let before = own_memory(&agent);
    agent.mount(&url, place.path("one"));
    let once = own_memory(&agent);
    assert!(once < before + OF_ONE_TREE, "{before} and then {once} bytes");
    agent.mount(&url, place.path("two"));
    let maps = told(&agent, "maps");
    let of_content = maps.lines().filter(|line| line.ends_with("/content")).count();
    assert_eq!(of_content, 1, "{maps}");
}

#[test]
fn each_of_many_mounts_takes_little_memory_and_gives_it_back() {
    const MOUNTS: usize = 24;
    const EACH: u64 = 2 << 20;
    let place = Place::new();
    let origin = Origin::of("/d/f", Body::noise(1, 200_000)).unwrap();
    let agent = Agent::solo(&place, "agent");
    let mount = |name: String| agent.mount(&origin.url("/d/"), place.path(&name));
    let umount =
        |dir: &std::path::PathBuf| drop(agent.dfctl(&["umount", dir.to_str().unwrap()]).done());
    // Whatever the first one costs, and what the allocator learns of its end.
    umount(&mount("first".to_owned()));
    let before = own_memory(&agent);
    let dirs: Vec<_> = (0..MOUNTS).map(|number| mount(format!("mount-{number}"))).collect();
    dirs.iter().for_each(|dir| assert_eq!(fs::read(dir.join("f")).unwrap().len(), 200_000));
    let all = own_memory(&agent);
    assert!(all < before + MOUNTS as u64 * EACH, "{before} and then {all} bytes");
    dirs.iter().for_each(umount);
    let after = own_memory(&agent);
    let (took, stays) = (all.saturating_sub(before), after.saturating_sub(before));
    assert!(stays < took / 2 + EACH, "{before}, {all} and then {after} bytes");
}
