//! Parts of a cluster that hang: they are there, take connections and say nothing. What that costs is time, and of
//! the origin what a part that is gone costs: never a copy for each node.

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dfs_tests::origin::Injected;
use dfs_tests::{Body, Cluster, Fault, Origin, Process};

use crate::support::ledger::Account;
use crate::support::site::Site;
use crate::support::{Agent, Expected, Place, Running, binaries, until};

const MIB: u64 = 1 << 20;

/// Four nodes that get one file at once from a slow origin.
struct Race {
    place: Place,
    body: Body,
    origin: Origin,
    pace: Injected,
    site: Site,
    agents: Vec<Agent>,
    getting: Vec<(Running, PathBuf)>,
}

/// How a race ended.
struct Outcome {
    accounts: Vec<Account>,
    /// Bytes that the origin had sent when the blow fell, and at the end.
    before: u64,
    sent: u64,
    length: u64,
}

impl Race {
    fn begin() -> Self {
        let place = Place::new();
        let body = Body::noise(1, 48 * MIB + 9);
        let origin = Origin::of("/f", body.clone()).unwrap();
        let pace = origin.inject(Fault::pace(16 * MIB));
        let mut site = Site::start(&place);
        site.keep_ports();
        let agents: Vec<_> = ["a", "b", "c", "d"].map(|name| site.agent(&place, name)).into();
        let mut race = Self { place, body, origin, pace, site, agents, getting: Vec::new() };
        race.getting = race.agents.iter().map(|agent| race.get(agent, "/f", "first")).collect();
        race
    }

    fn length(&self) -> u64 {
        self.body.length().unwrap()
    }

    /// Starts to get a path of the origin with an agent.
    fn get(&self, agent: &Agent, path: &str, label: &str) -> (Running, PathBuf) {
        let output = self.place.path(&format!("{label}-{}", agent.node.name()));
        let url = self.origin.url(path);
        let words = ["get", &url, "-o", output.to_str().unwrap(), "--format", "json"];
        (agent.dfctl_start(&words), output)
    }

    fn wait_first_bytes(&self) {
        self.origin.wait_in_flight("/f", 1).unwrap();
    }

    /// Waits until every node has a part, and more is on its way from the origin.
    fn wait_middle(&self) {
        let all_have_some =
            || self.agents.iter().all(|agent| agent.cached(self.length()) > 4 * MIB);
        until("every node has a part", all_have_some);
        self.wait_first_bytes();
    }

    /// Strikes, and waits until every node has the file all the same.
    fn strike(&mut self, blow: impl FnOnce(&mut Site)) -> Outcome {
        let length = self.length();
        blow(&mut self.site);
        let before = self.origin.counters().body_bytes;
        assert!(before < length && self.pace.struck() > 0, "{before} of {length}");
        self.pace.lift();
        let wanted = self.body.read(0, length).unwrap();
        let accounts = std::mem::take(&mut self.getting).into_iter().map(|(getting, output)| {
            let said = getting.wait().done().json().unwrap();
            assert!(fs::read(output).unwrap() == wanted);
            let account = Account::of(&said["ledger"]);
            assert_eq!(account.total(), length, "{account:?}");
            account
        });
        let accounts = accounts.collect();
        Outcome { accounts, before, sent: self.origin.counters().body_bytes, length }
    }
}

impl Outcome {
    /// Bytes that nodes read from the origin themselves, beside what the origin goes on sending to a seed that takes
    /// nothing.
    fn read(&self) -> u64 {
        self.accounts.iter().map(|account| account.source).sum()
    }

    /// A seed fell out: after it no more is read than two nodes lack that stand in for it, each of them once.
    #[track_caller]
    fn costs_two_stand_ins(&self) {
        let standing_in = self.accounts.iter().filter(|account| account.source > 0).count();
        assert!(standing_in <= 2, "{standing_in} read the origin: {:?}", self.accounts);
        self.are(0.0..=2.05, self.read());
        self.are(1.0..=3.05, self.sent);
    }

    /// The same of a seed that is back meanwhile: all that left the origin after it fell out.
    #[track_caller]
    fn costs_two_stand_ins_in_all(&self) {
        self.costs_two_stand_ins();
        self.are(0.0..=2.05, self.sent - self.before);
    }

    /// What the origin had sent before and what nodes read instead of the seed.
    #[track_caller]
    fn costs(&self, copies: RangeInclusive<f64>) {
        self.are(copies, self.before + self.read());
    }

    /// All that left the origin.
    #[track_caller]
    fn costs_in_all(&self, copies: RangeInclusive<f64>) {
        self.are(copies, self.sent);
    }

    #[track_caller]
    fn are(&self, copies: RangeInclusive<f64>, bytes: u64) {
        let cost = bytes as f64 / self.length as f64;
        let (before, accounts) = (self.before, &self.accounts);
        assert!(copies.contains(&cost), "{cost} copies, {before} before: {accounts:?}");
    }
}

/// Nobody goes to the origin whom a seed serves.
const ONE: RangeInclusive<f64> = 1.0..=1.05;

impl Race {
    /// All parts are there and work again: what is asked for next comes from the seed, and once.
    fn is_whole_again(&self) {
        until("the manager hears of all", || {
            self.site.manager.metric("dfs_manager_members").is_ok_and(|members| members >= 2.0)
        });
        let body = Body::noise(2, 4 * MIB + 1);
        let length = body.length().unwrap();
        // A file may meet a part that is only just back.
        let mut number = 0;
        until("a seed serves all of a file", || {
            number += 1;
            let path = format!("/next-{number}");
            self.origin.put(&path, body.clone());
            let (getting, output) = self.get(&self.agents[number % 4], &path, "next");
            let said = getting.wait().done().json().unwrap();
            assert!(fs::read(output).unwrap() == body.read(0, length).unwrap());
            Account::of(&said["ledger"]).seed == length
        });
    }
}

#[test]
fn a_seed_that_hangs_from_its_first_bytes_on_costs_two_stand_ins_and_is_used_again() {
    let mut race = Race::begin();
    race.wait_first_bytes();
    race.strike(|site| site.seed.freeze()).costs_two_stand_ins();
    race.site.seed.thaw();
    race.is_whole_again();
}

#[test]
fn a_seed_that_hangs_in_the_middle_costs_two_stand_ins_and_is_used_again() {
    let mut race = Race::begin();
    race.wait_middle();
    race.strike(|site| site.seed.freeze()).costs_two_stand_ins();
    race.site.seed.thaw();
    race.is_whole_again();
}

#[test]
fn a_seed_that_is_killed_and_comes_back_costs_two_stand_ins() {
    let mut race = Race::begin();
    race.wait_middle();
    race.strike(|site| site.seed.restart().unwrap()).costs_two_stand_ins_in_all();
    race.is_whole_again();
}

#[test]
fn a_scheduler_that_hangs_in_the_middle_stops_nobody_and_is_used_again() {
    let mut race = Race::begin();
    race.wait_middle();
    race.strike(|site| site.scheduler.freeze()).costs_in_all(ONE);
    race.site.scheduler.thaw();
    race.is_whole_again();
}

#[test]
fn a_scheduler_that_is_killed_and_comes_back_costs_one_copy() {
    let mut race = Race::begin();
    race.wait_middle();
    race.strike(|site| site.scheduler.restart().unwrap()).costs_in_all(ONE);
    race.is_whole_again();
}

#[test]
fn a_scheduler_and_a_seed_that_hang_together_cost_one_node_what_all_lack() {
    let mut race = Race::begin();
    race.wait_middle();
    let outcome = race.strike(|site| {
        site.scheduler.freeze();
        site.seed.freeze();
    });
    outcome.costs(1.0..=1.3);
    race.site.scheduler.thaw();
    race.site.seed.thaw();
    race.is_whole_again();
}

#[test]
fn a_manager_that_hangs_is_not_noticed() {
    let mut race = Race::begin();
    race.wait_middle();
    race.strike(|site| site.manager.freeze()).costs_in_all(ONE);
    race.site.manager.thaw();
    race.is_whole_again();
}

#[test]
fn a_manager_that_is_killed_and_comes_back_is_not_noticed() {
    let mut race = Race::begin();
    race.wait_middle();
    race.strike(|site| site.manager.restart().unwrap()).costs_in_all(ONE);
    race.is_whole_again();
}

#[test]
fn a_cluster_that_hangs_as_a_whole_leaves_its_nodes_what_the_origin_has() {
    let place = Place::new();
    let body = Body::noise(3, 24 * MIB + 9);
    let origin = Origin::of("/f", body.clone()).unwrap();
    let pace = origin.inject(Fault::pace(8 * MIB));
    let cluster = Cluster::start(&binaries(), &place.dir("cluster")).unwrap();
    let agent = Agent::of(&cluster, &place, "node");
    let output = place.path("out");
    let words = ["get", &origin.url("/f"), "-o", output.to_str().unwrap(), "--format", "json"];
    let getting = agent.dfctl_start(&words);
    until("the node has a part", || agent.cached(body.length().unwrap()) > 4 * MIB);
    cluster.process().freeze();
    pace.lift();
    let said = getting.wait().done().json().unwrap();
    cluster.process().thaw();
    assert!(fs::read(&output).unwrap() == body.read(0, body.length().unwrap()).unwrap());
    let account = Account::of(&said["ledger"]);
    assert!(account.source > 0 && pace.struck() > 0, "{account:?}");
}

#[test]
fn a_scheduler_that_hangs_is_gone_around_before_its_connection_is_given_up() {
    let place = Place::new();
    let origin = Origin::of("/f", Body::noise(4, MIB)).unwrap();
    let cluster = Cluster::start(&binaries(), &place.dir("cluster")).unwrap();
    let agent = Agent::of(&cluster, &place, "node");
    agent.dfctl(&["stat", &origin.url("/f")]).done();
    origin.put("/new", Body::noise(5, MIB));
    cluster.process().freeze();
    let said = agent.dfctl(&["stat", &origin.url("/new"), "--format", "json"]);
    cluster.process().thaw();
    assert_eq!(said.done().json().unwrap()["bytes"], MIB);
    assert!(agent.log().contains("the scheduler does not answer"), "{}", agent.log());
}

/// A reader of a file that two neighbours and the seed have.
struct Reading {
    place: Place,
    body: Body,
    origin: Origin,
    site: Site,
    holders: [Agent; 2],
    reader: Agent,
    file: fs::File,
    /// Bytes that the origin had sent before.
    sent: u64,
}

const READ: u64 = 128 << 10;

impl Reading {
    fn begin() -> Self {
        let place = Place::new();
        let body = Body::noise(4, 64 * MIB);
        let origin = Origin::of("/f", body.clone()).unwrap();
        let site = Site::start(&place);
        let [a, b, reader] = ["a", "b", "reader"].map(|name| site.agent(&place, name));
        let holders = [a, b];
        for agent in &holders {
            let output = place.path(agent.node.name());
            let output = output.with_extension("out");
            agent.dfctl(&["get", &origin.url("/f"), "-o", output.to_str().unwrap()]).done();
        }
        let sent = origin.counters().body_bytes;
        let dir = reader.mount(&origin.url("/f"), place.dir("mount"));
        let path = fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
        let file = fs::File::open(path).unwrap();
        Self { place, body, origin, site, holders, reader, file, sent }
    }

    /// Reads at a place; how long it took.
    fn read(&self, at: u64) -> Duration {
        let mut bytes = vec![0; READ as usize];
        let began = Instant::now();
        self.file.read_exact_at(&mut bytes, at).unwrap();
        let took = began.elapsed();
        assert!(bytes == self.body.read(at, at + READ).unwrap(), "at {at}");
        took
    }

    fn givers(&self) -> [&Process; 3] {
        let [a, b] = &self.holders;
        [a.node.process(), b.node.process(), &self.site.seed]
    }

    fn served(&self) -> [u64; 3] {
        let metrics =
            ["dfs_node", "dfs_node", "dfs_seed"].map(|of| format!("{of}_served_bytes_total"));
        let givers = self.givers();
        [0, 1, 2].map(|at| givers[at].metric(&metrics[at]).unwrap() as u64)
    }

    /// Whoever gives the most while something is done.
    fn gives_most(&self, meanwhile: impl FnOnce()) -> &Process {
        let before = self.served();
        meanwhile();
        let gave = self.served();
        self.givers()[(0..3).max_by_key(|at| gave[*at] - before[*at]).unwrap()]
    }

    fn won(&self) -> u64 {
        self.reader.metric("dfs_node_hedges_total{outcome=\"won\"}")
    }

    /// Nothing came from the origin, and what came twice counts once.
    fn came_once(&self) {
        assert_eq!(self.reader.metric("dfs_node_source_bytes_total"), 0);
        assert_eq!(self.origin.counters().body_bytes, self.sent, "the seed has it");
        let output = self.place.path("all");
        let url = self.origin.url("/f");
        let words = ["get", &url, "-o", output.to_str().unwrap(), "--format", "json"];
        let account = Account::of(&self.reader.dfctl(&words).done().json().unwrap()["ledger"]);
        assert_eq!(account.total(), self.body.length().unwrap(), "{account:?}");
    }
}

#[test]
fn a_reader_whose_parent_hangs_has_what_it_waits_for_from_a_second_one_and_not_from_the_origin() {
    let reading = Reading::begin();
    let count = reading.body.length().unwrap() / READ;
    // From place to place, so that nothing is fetched ahead.
    let mut places = (0..count).map(|n| n * 197 % count * READ);
    let mut read_on = || reading.read(places.next().expect("no hedge over the whole file"));
    for _ in 0..30 {
        read_on();
    }
    // Whoever answers soonest is asked next.
    let soonest = reading.gives_most(|| {
        for _ in 0..10 {
            read_on();
        }
    });
    soonest.freeze();
    while reading.won() == 0 {
        read_on();
    }
    soonest.thaw();
    reading.came_once();
}

#[test]
fn a_reader_from_front_to_back_does_not_wait_until_a_parent_that_hangs_is_found_to_be_dead() {
    let reading = Reading::begin();
    let mut places = (0..reading.body.length().unwrap() / READ).map(|n| n * READ);
    let mut longest = Duration::ZERO;
    // Whoever hangs may have had nothing on its way.
    while reading.won() == 0 {
        let hangs = reading.gives_most(|| {
            for at in places.by_ref().take(20) {
                reading.read(at);
            }
        });
        hangs.freeze();
        let took = places.by_ref().take(60).map(|at| reading.read(at)).max();
        hangs.thaw();
        longest = longest.max(took.expect("nothing was asked of others over the whole file"));
    }
    // Four seconds is what it takes until one is found to be dead.
    assert!(longest < Duration::from_secs(3), "{longest:?}");
    reading.came_once();
}
