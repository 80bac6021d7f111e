//! Bad days of a crowd: eight nodes on narrow links want one file at once, and something happens while bytes are on
//! their way. Everybody who is left finishes with the right bytes, whoever was struck does once it is over, and the
//! origin pays for what was lost with who had it, and no more.

use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use dfs_model::Rate;
use dfs_tests::testbed::{Fleet, Idcs, Layout, Machine, Role, Trouble};
use dfs_tests::wait::PATIENCE;
use dfs_tests::{Body, Node, Origin, Testbed};

use crate::full::FULL;
use crate::recovery::spoil;
use crate::support::ledger::Account;
use crate::support::{Place, Running, Tmpfs, all, binaries, until};

const MIB: u64 = 1 << 20;
const NODES: usize = 8;
const LINK: Rate = Rate(60_000_000 / 8);
const LENGTH: u64 = 12 * MIB + 17;

/// One node's part in the crowd.
pub struct Taker {
    name: String,
    pub getting: Running,
    output: PathBuf,
}

impl Taker {
    pub fn start(node: &Node, url: &str, place: &Place) -> Self {
        let name = node.name().to_owned();
        let output = place.path(&format!("{name}.out"));
        let mut command = node.dfctl_command().unwrap();
        command.args(["get", url, "-o", output.to_str().unwrap(), "--format", "json"]);
        Self { name, getting: Running::start(command), output }
    }

    /// Where it has the file from; where it has not got it, what it said.
    fn ends(self, body: &Body) -> Result<Account, String> {
        let said = self.getting.wait();
        if said.code != 0 {
            return Err(said.stderr);
        }
        assert!(fs::read(&self.output).unwrap() == all(body), "{} has wrong bytes", self.name);
        Ok(Account::of(&said.json().unwrap()["ledger"]))
    }

    pub fn ends_well(self, body: &Body) -> Account {
        let name = self.name.clone();
        self.ends(body).unwrap_or_else(|said| panic!("{name}: {said}"))
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
        Self::in_place(Place::new(), testbed)
    }

    fn in_place(place: Place, testbed: &'a Testbed) -> Self {
        let body = Body::noise(1, LENGTH);
        let origin = testbed.start_origin(0).unwrap();
        origin.put("/file", body.clone());
        let url = origin.url("/file");
        let fleet = Fleet::start(testbed, &binaries(), place.root()).unwrap();
        Self { place, testbed, fleet, origin, body, url }
    }

    fn take(&self, at: usize) -> Taker {
        Taker::start(&self.fleet.nodes()[at], &self.url, &self.place)
    }

    fn take_each(&self, nodes: Range<usize>) -> Vec<Taker> {
        nodes.map(|at| self.take(at)).collect()
    }

    /// Waits until this machine is in the middle of it, and all of these are.
    fn wait_middle(&self, machine: &Machine, takers: &mut [Taker]) {
        until("the struck one is in the middle of it", || {
            Trouble::is_middle(machine.traffic().unwrap(), LENGTH)
        });
        let is_under_way = |taker: &mut Taker| !taker.getting.has_ended();
        assert!(takers.iter_mut().all(is_under_way), "too late for {}", machine.name());
    }

    /// Waits until these have it; the origin has sent no more than so many copies by then.
    fn have_it(&self, takers: Vec<Taker>, most_copies: f64) -> Vec<Account> {
        let accounts = takers.into_iter().map(|taker| taker.ends_well(&self.body)).collect();
        self.cost(most_copies);
        accounts
    }

    /// Copies of the file that have left the origin are no more than so many.
    #[track_caller]
    fn cost(&self, most_copies: f64) {
        let copies = self.origin.counters().body_bytes as f64 / LENGTH as f64;
        assert!(copies <= most_copies, "{copies} copies left the origin");
    }
}

fn bad_day(trouble: &str, most_copies: f64) {
    bad_day_on(&Layout::flat(NODES, LINK), trouble, most_copies);
}

fn bad_day_on(layout: &Layout, trouble: &str, most_copies: f64) {
    let trouble: Trouble = trouble.parse().unwrap();
    let testbed = Testbed::build(layout).unwrap();
    let mut crowd = Crowd::on(&testbed);
    let mut takers = crowd.take_each(0..NODES);
    crowd.wait_middle(trouble.witness(&testbed).unwrap(), &mut takers);
    trouble.strike(crowd.testbed, &mut crowd.fleet).unwrap();

    let is_hit = |taker: &Taker| trouble.hits(testbed.machine(&taker.name).unwrap());
    let (hit, others): (Vec<Taker>, Vec<Taker>) = takers.into_iter().partition(is_hit);
    crowd.have_it(others, most_copies);
    assert!(trouble.is_felt(crowd.testbed).unwrap(), "{trouble} was not felt");
    trouble.heal(crowd.testbed, &mut crowd.fleet).unwrap();
    if hit.is_empty() {
        return;
    }
    crowd.fleet.wait_connected().unwrap();
    for one in hit {
        let again = crowd.fleet.nodes().iter().position(|node| node.name() == one.name).unwrap();
        if let Err(said) = one.ends(&crowd.body) {
            // Its agent was gone, or silent for so long that it was taken to be.
            assert!(said.contains("DFS-4103"), "{trouble}: {said}");
            crowd.take(again).ends_well(&crowd.body);
        }
    }
    crowd.origin.wait_idle(PATIENCE).unwrap();
    crowd.cost(most_copies);
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
fn a_data_centre_is_cut_off() {
    let idcs = Some(Idcs { count: 2, uplink: LINK });
    let layout = Layout { idcs, ..Layout::flat(NODES, LINK) };
    bad_day_on(&layout, "unplug:idc1", WITH_ALL_SEEDS);
}

#[test]
fn one_of_two_seeds_is_killed_when_nobody_has_it_all() {
    let testbed = Testbed::build(&Layout { seeds: 2, ..Layout::flat(NODES, LINK) }).unwrap();
    let mut crowd = Crowd::on(&testbed);
    let mut takers = crowd.take_each(0..NODES);
    let carried = |seed: &Machine| seed.traffic().unwrap();
    let mut struck = None;
    until("a seed is in the middle of it", || {
        struck = testbed.all(Role::Seed).find(|seed| Trouble::is_middle(carried(seed), LENGTH));
        struck.is_some()
    });
    let struck = struck.unwrap();
    crowd.wait_middle(struck, &mut takers);
    crowd.fleet.kill(struck.name()).unwrap();
    assert!(crowd.origin.counters().body_bytes < LENGTH, "it had all of it");
    let accounts = crowd.have_it(takers, 2.05);
    let readers = accounts.iter().filter(|account| account.source > 0).count();
    assert!(readers <= 2, "{readers} nodes read the origin: {accounts:?}");
}

#[test]
fn who_comes_to_a_new_scheduler_has_what_the_others_announce() {
    let testbed = Testbed::build(&Layout::flat(NODES, LINK)).unwrap();
    let mut crowd = Crowd::on(&testbed);
    let mut takers = crowd.take_each(0..NODES - 1);
    crowd.wait_middle(testbed.machine("node2").unwrap(), &mut takers);
    crowd.fleet.restart("scheduler").unwrap();
    takers.push(crowd.take(NODES - 1));
    let accounts = crowd.have_it(takers, WITH_ALL_SEEDS);
    assert!(accounts.iter().all(|account| account.source == 0), "{accounts:?}");
    let late = accounts[NODES - 1];
    assert!(late.peers > 0, "it met nobody: {late:?}");
}

#[test]
fn the_disk_of_a_node_fills_up() {
    let (elsewhere, place) = (Place::new(), Place::new());
    let disk = Tmpfs::mount(elsewhere.dir("disk"), 24 * MIB);
    symlink(disk.path(), place.path("node2")).unwrap();
    let testbed = Testbed::build(&Layout::flat(NODES, LINK)).unwrap();
    let crowd = Crowd::in_place(place, &testbed);
    let mut takers = crowd.take_each(0..NODES);
    crowd.wait_middle(testbed.machine("node2").unwrap(), &mut takers);
    let mut filler = File::create(disk.path().join("filler")).unwrap();
    while filler.write_all(&[7; 65_536]).is_ok() {}
    crowd.have_it(takers, WITH_ALL_SEEDS);
    let log = crowd.fleet.nodes()[1].process().log();
    assert!(log.contains(FULL), "it was not full: {log}");
}

#[test]
fn a_node_sends_wrong_bytes() {
    let testbed = Testbed::build(&Layout::flat(NODES, LINK)).unwrap();
    let crowd = Crowd::on(&testbed);
    crowd.take(1).ends_well(&crowd.body);
    assert!(spoil(crowd.fleet.nodes()[1].data_dir(), LENGTH) > 0);
    let others: Vec<Taker> = (0..NODES).filter(|at| *at != 1).map(|at| crowd.take(at)).collect();
    crowd.have_it(others, WITH_ALL_SEEDS);
    let liar = crowd.fleet.nodes()[1].process();
    let served = || liar.metric("dfs_node_served_bytes_total");
    assert!(testbed.machine("node2").unwrap().inside(served).unwrap() > 0.0, "it was asked");
}
