//! Bad days of a crowd: eight nodes on narrow links want one file at once, and something happens while bytes are on
//! their way. Everybody who is left finishes with the right bytes, whoever was struck does once it is over, and the
//! origin pays for what was lost with who had it, and no more.

use std::fs;
use std::path::PathBuf;

use dfs_model::Rate;
use dfs_tests::testbed::{Fleet, Layout, Trouble};
use dfs_tests::wait::PATIENCE;
use dfs_tests::{Body, Node, Origin, Testbed};

use crate::recovery::spoil;
use crate::support::{Place, Running, all, binaries, until};

const MIB: u64 = 1 << 20;
const NODES: usize = 8;
const LINK: Rate = Rate(60_000_000 / 8);
const LENGTH: u64 = 12 * MIB + 17;

/// One node's part in the crowd.
struct Taker {
    name: String,
    getting: Running,
    output: PathBuf,
}

impl Taker {
    fn start(node: &Node, url: &str, place: &Place) -> Self {
        let name = node.name().to_owned();
        let output = place.path(&format!("{name}.out"));
        let mut command = node.dfctl_command().unwrap();
        command.args(["get", url, "-o", output.to_str().unwrap()]);
        Self { name, getting: Running::start(command), output }
    }

    /// Where it has not got it, what it said.
    fn ends(self, body: &Body) -> Result<(), String> {
        let said = self.getting.wait();
        if said.code != 0 {
            return Err(said.stderr);
        }
        assert!(fs::read(&self.output).unwrap() == all(body), "{} has wrong bytes", self.name);
        Ok(())
    }

    fn ends_well(self, body: &Body) {
        let name = self.name.clone();
        self.ends(body).unwrap_or_else(|said| panic!("{name}: {said}"));
    }
}

/// A crowd, and the file that it wants.
struct Crowd<'a> {
    place: Place,
    testbed: &'a Testbed,
    fleet: Fleet<'a>,
    origin: Origin,
    body: Body,
    url: String,
}

impl<'a> Crowd<'a> {
    fn on(testbed: &'a Testbed) -> Self {
        let (place, body) = (Place::new(), Body::noise(1, LENGTH));
        let origin = testbed.start_origin(0).unwrap();
        origin.put("/file", body.clone());
        let url = origin.url("/file");
        let fleet = Fleet::start(testbed, &binaries(), place.root()).unwrap();
        Self { place, testbed, fleet, origin, body, url }
    }

    fn take(&self, at: usize) -> Taker {
        Taker::start(&self.fleet.nodes()[at], &self.url, &self.place)
    }

    /// Copies of the file that have left the origin.
    fn copies(&self) -> f64 {
        self.origin.counters().body_bytes as f64 / LENGTH as f64
    }
}

fn bad_day(trouble: &str, most_copies: f64) {
    let trouble: Trouble = trouble.parse().unwrap();
    let testbed = Testbed::build(&Layout::flat(NODES, LINK)).unwrap();
    let mut crowd = Crowd::on(&testbed);
    let mut takers: Vec<Taker> = (0..NODES).map(|at| crowd.take(at)).collect();

    let struck = trouble.witness(&testbed).unwrap();
    until("the struck one is in the middle of it", || {
        Trouble::is_middle(struck.traffic().unwrap(), LENGTH)
    });
    let is_under_way = |taker: &mut Taker| !taker.getting.has_ended();
    assert!(takers.iter_mut().all(is_under_way), "{trouble} comes too late");
    trouble.strike(crowd.testbed, &mut crowd.fleet).unwrap();

    let (mut hit, others): (Vec<Taker>, Vec<Taker>) =
        takers.into_iter().partition(|taker| taker.name == trouble.whom());
    others.into_iter().for_each(|taker| taker.ends_well(&crowd.body));
    let copies = crowd.copies();
    assert!(copies <= most_copies, "{trouble}: {copies} copies left the origin");
    assert!(trouble.is_felt(crowd.testbed).unwrap(), "{trouble} was not felt");
    trouble.heal(crowd.testbed, &mut crowd.fleet).unwrap();
    let Some(hit) = hit.pop() else { return };
    crowd.fleet.wait_connected().unwrap();
    let again = crowd.fleet.nodes().iter().position(|node| node.name() == hit.name).unwrap();
    if let Err(said) = hit.ends(&crowd.body) {
        // Its agent was gone, or silent for so long that it was taken to be.
        assert!(said.contains("DFS-4103"), "{trouble}: {said}");
        crowd.take(again).ends_well(&crowd.body);
    }
    crowd.origin.wait_idle(PATIENCE).unwrap();
    let copies = crowd.copies();
    assert!(copies <= most_copies, "{trouble}: {copies} copies in the end");
}

/// What one node held alone when it was struck the origin may send again.
const WITH_ALL_SEEDS: f64 = 1.05;

/// Two nodes stand in for a seed, and each may lack what the other reads.
const WITH_STAND_INS: f64 = 3.05;

#[test]
fn a_node_is_killed() {
    bad_day("kill:node2", WITH_ALL_SEEDS);
}

#[test]
fn a_node_hangs() {
    bad_day("freeze:node2", WITH_ALL_SEEDS);
}

#[test]
fn a_node_loses_its_link() {
    bad_day("unplug:node2", WITH_ALL_SEEDS);
}

#[test]
fn the_link_of_a_node_crawls() {
    bad_day("crawl:node2", WITH_ALL_SEEDS);
}

#[test]
fn the_seed_is_killed() {
    bad_day("kill:seed1", WITH_STAND_INS);
}

#[test]
fn the_seed_hangs() {
    bad_day("freeze:seed1", WITH_STAND_INS);
}

#[test]
fn the_seed_is_started_again() {
    bad_day("restart:seed1", WITH_STAND_INS);
}

#[test]
fn the_scheduler_is_killed() {
    bad_day("kill:scheduler", WITH_ALL_SEEDS);
}

#[test]
fn the_scheduler_is_started_again() {
    bad_day("restart:scheduler", WITH_ALL_SEEDS);
}

#[test]
fn the_scheduler_hangs() {
    bad_day("freeze:scheduler", WITH_ALL_SEEDS);
}

#[test]
fn the_manager_is_killed() {
    bad_day("kill:manager", WITH_ALL_SEEDS);
}

#[test]
fn the_manager_is_started_again() {
    bad_day("restart:manager", WITH_ALL_SEEDS);
}

#[test]
fn a_node_cannot_reach_manager_and_scheduler() {
    bad_day("cut:node2", WITH_ALL_SEEDS);
}

#[test]
fn a_node_cannot_reach_the_other_nodes() {
    bad_day("shun:node2", WITH_ALL_SEEDS);
}

#[test]
fn the_link_of_a_node_loses_packets() {
    bad_day("lossy:node2", WITH_ALL_SEEDS);
}

#[test]
fn a_node_sends_wrong_bytes() {
    let testbed = Testbed::build(&Layout::flat(NODES, LINK)).unwrap();
    let crowd = Crowd::on(&testbed);
    crowd.take(1).ends_well(&crowd.body);
    assert!(spoil(crowd.fleet.nodes()[1].data_dir(), LENGTH) > 0);
    let others: Vec<Taker> = (0..NODES).filter(|at| *at != 1).map(|at| crowd.take(at)).collect();
    others.into_iter().for_each(|taker| taker.ends_well(&crowd.body));
    let liar = crowd.fleet.nodes()[1].process();
    let served = || liar.metric("dfs_node_served_bytes_total");
    assert!(testbed.machine("node2").unwrap().inside(served).unwrap() > 0.0, "it was asked");
    assert!(crowd.copies() <= WITH_ALL_SEEDS);
}
