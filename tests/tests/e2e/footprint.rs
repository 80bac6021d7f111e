//! What a mount of many objects takes of the agent's memory: what is its own, without what the page cache may drop.

use std::fs;

use dfs_tests::Origin;
use dfs_tests::origin::Shelf;

use crate::support::{Agent, Place};

const OBJECTS: u64 = 100_000;

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
    assert!(once < before + 400 * OBJECTS, "{before} and then {once} bytes");
    agent.mount(&url, place.path("two"));
    let maps = told(&agent, "maps");
    let of_content = maps.lines().filter(|line| line.ends_with("/content")).count();
    assert_eq!(of_content, 1, "{maps}");
}
