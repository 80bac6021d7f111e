//! Agents that are killed while parts of files go: what is in the middle of going is nobody's to read.

use std::thread;

use dfs_tests::{Body, Origin};

use crate::holes::solid;
use crate::support::readers::Readers;
use crate::support::{Expected, Place, until};
use crate::survival::Holder;

const MIB: u64 = 1 << 20;

/// Length of each of the files, of which the least quota holds one and a half.
const LENGTH: u64 = 40 * MIB;

const FREED: &str = "dfs_node_quota_freed_bytes_total";

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
    let shown = files.iter().map(|(name, bytes)| (dir.join(name), &**bytes)).collect();
    // Of each, somebody has parts only.
    let readers = Readers::of(shown, 300_000);
    thread::scope(|scope| {
        let _ends = readers.begin(scope, 0..8);
        for _ in 0..kills {
            // Each agent has something go, and is in the midst of it.
            until("parts of files go", || agent.metric(FREED) > 0);
            agent.kill();
            agent.start_again();
        }
        readers.wait_for(17);
    });
    assert_eq!(readers.failed(), 0, "a read waits for the next agent, and never fails");
    // Nothing but what it says is there is there.
    agent.dfctl(&["cache", "verify"]).done();
}
