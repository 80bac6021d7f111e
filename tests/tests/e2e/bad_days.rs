//! Bad days of a crowd: eight nodes on narrow links want one file at once, and something happens while bytes are on
//! their way. Everybody who is left finishes with the right bytes, whoever was struck does once it is over, and the
//! origin pays for what was lost with who had it, and no more.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use dfs_model::Rate;
use dfs_tests::testbed::{Fleet, Layout, Role, Trouble};
use dfs_tests::wait::PATIENCE;
use dfs_tests::{Body, Node, Origin, Testbed};

use crate::recovery::spoil;
use crate::support::{Place, all, binaries, until};

const MIB: u64 = 1 << 20;
const NODES: usize = 8;
const LINK: Rate = Rate(60_000_000 / 8);
const LENGTH: u64 = 12 * MIB + 17;

/// One node's part in the crowd.
struct Taker {
    name: String,
    getting: Child,
    output: PathBuf,
    said: PathBuf,
}

impl Taker {
    fn start(node: &Node, url: &str, place: &Place) -> Self {
        let name = node.name().to_owned();
        let (output, said) =
            (place.path(&format!("{name}.out")), place.path(&format!("{name}.err")));
        let mut command = node.dfctl_command().unwrap();
        command.args(["get", url, "-o", output.to_str().unwrap()]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let getting = command.stderr(File::create(&said).unwrap()).spawn().unwrap();
        Self { name, getting, output, said }
    }

    fn is_under_way(&mut self) -> bool {
        self.getting.try_wait().unwrap().is_none()
    }

    /// What it said, where it has not got it.
    fn ends(&mut self) -> Result<(), String> {
        until(&format!("{} is done", self.name), || !self.is_under_way());
        let is_well = self.getting.wait().unwrap().success();
        if is_well { Ok(()) } else { Err(fs::read_to_string(&self.said).unwrap()) }
    }

    fn ends_well(&mut self, body: &Body) {
        self.ends().unwrap_or_else(|said| panic!("{}: {said}", self.name));
        assert!(fs::read(&self.output).unwrap() == all(body), "{} has wrong bytes", self.name);
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        // It has ended, or the test has failed.
        let _ = self.getting.kill();
        let _ = self.getting.wait();
    }
}

/// The machine whose link shows that a process is in the middle of it.
fn place_of(whom: &str) -> &str {
    if matches!(whom, "scheduler" | "manager") { "node2" } else { whom }
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
        let machine = testbed.first(Role::Origin).unwrap();
        let origin = machine.inside(|| Origin::start_at((machine.address(), 0).into())).unwrap();
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

    let struck = testbed.machine(place_of(trouble.whom())).unwrap();
    until("the struck one is in the middle of it", || {
        let carried = struck.traffic().unwrap();
        carried.received > LENGTH / 4 && carried.sent > LENGTH / 8
    });
    assert!(takers.iter_mut().all(Taker::is_under_way), "{trouble} comes too late");
    trouble.strike(crowd.testbed, &mut crowd.fleet).unwrap();

    for taker in takers.iter_mut().filter(|taker| taker.name != trouble.whom()) {
        taker.ends_well(&crowd.body);
    }
    let copies = crowd.copies();
    assert!(copies <= most_copies, "{trouble}: {copies} copies left the origin");
    trouble.heal(crowd.testbed, &mut crowd.fleet).unwrap();
    let Some(at) = takers.iter().position(|taker| taker.name == trouble.whom()) else { return };
    crowd.fleet.wait_connected().unwrap();
    if let Err(said) = takers[at].ends() {
        // Its agent was gone, or silent for so long that it was taken to be.
        assert!(said.contains("DFS-4103"), "{trouble}: {said}");
        takers[at] = crowd.take(at);
    }
    takers[at].ends_well(&crowd.body);
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
fn a_node_sends_wrong_bytes() {
    let testbed = Testbed::build(&Layout::flat(NODES, LINK)).unwrap();
    let crowd = Crowd::on(&testbed);
    crowd.take(1).ends_well(&crowd.body);
    assert!(spoil(crowd.fleet.nodes()[1].data_dir(), LENGTH) > 0);
    let mut others: Vec<Taker> =
        (0..NODES).filter(|at| *at != 1).map(|at| crowd.take(at)).collect();
    others.iter_mut().for_each(|taker| taker.ends_well(&crowd.body));
    let liar = crowd.fleet.nodes()[1].process();
    let served = || liar.metric("dfs_node_served_bytes_total");
    assert!(testbed.machine("node2").unwrap().inside(served).unwrap() > 0.0, "it was asked");
    assert!(crowd.copies() <= WITH_ALL_SEEDS);
}
