//! Eight nodes in two data centres behind narrow uplinks, and a scheduler for which their messages are too many: one node
//! of each data centre leads the others there, also on bad days.

use std::time::Duration;

use dfs_model::Rate;
use dfs_tests::testbed::{Fleet, Idcs, Layout, Machine, Role, Traffic};
use dfs_tests::wait::{PATIENCE, find};
use dfs_tests::{Body, Node, Origin, Testbed};

use crate::support::crowd::Taker;
use crate::support::ledger::Account;
use crate::support::{Expected, Place, binaries, until};

const MIB: u64 = 1 << 20;
const IDCS: usize = 2;
const NODES: usize = 8;
/// Of a crowd on a bad day.
const CROWD: usize = 6;
const LINK: Rate = Rate(60_000_000 / 8);
const UPLINK: Rate = Rate(30_000_000 / 8);
const LENGTH: u64 = 20 * MIB + 17;

/// On bad days: what is to be struck in the middle of it takes its time.
const SLOW_LINK: Rate = Rate(LINK.0 / 2);
const SLOW_UPLINK: Rate = Rate(UPLINK.0 / 2);
const LENGTH_OF_DAY: u64 = 32 * MIB + 17;

/// They hear nothing for three seconds, and a quarter of one more until that is seen; connections end after ten to
/// fifteen. Processors may be short.
const BACK_WITHIN: Duration = Duration::from_secs(9);

/// Messages are too many at once, and four hosts are enough.
const FEW: [(&str, &str, &str); 2] = [
    ("scheduler", "DFS_SCHEDULER__DELEGATE_ABOVE", "10"),
    ("scheduler", "DFS_SCHEDULER__DELEGATE_FROM", "3"),
];

fn testbed() -> Testbed {
    testbed_of(NODES, LINK, UPLINK)
}

fn testbed_of(nodes: usize, link: Rate, uplink: Rate) -> Testbed {
    let idcs = Some(Idcs { count: IDCS, uplink });
    Testbed::build(&Layout { idcs, ..Layout::flat(nodes, link) }).unwrap()
}

/// Everybody, and the file that they want.
struct World<'a> {
    place: Place,
    testbed: &'a Testbed,
    fleet: Fleet<'a>,
    origin: Origin,
    body: Body,
    length: u64,
    url: String,
    before: Vec<Traffic>,
}

impl<'a> World<'a> {
    fn on(testbed: &'a Testbed) -> Self {
        Self::with(testbed, LENGTH)
    }

    fn with(testbed: &'a Testbed, length: u64) -> Self {
        let (place, body) = (Place::new(), Body::noise(1, length));
        let origin = testbed.start_origin(0).unwrap();
        origin.put("/file", body.clone());
        let url = origin.url("/file");
        let fleet = Fleet::start_with(testbed, &binaries(), place.root(), &FEW).unwrap();
        let before = (0..IDCS).map(|idc| testbed.uplink_traffic(idc).unwrap()).collect();
        Self { place, testbed, fleet, origin, body, length, url, before }
    }

    fn take(&self) -> Vec<Taker> {
        let nodes = self.fleet.nodes();
        nodes.iter().map(|node| Taker::start(node, &self.url, &self.place)).collect()
    }

    fn machine(&self, node: &Node) -> &'a Machine {
        self.testbed.all(Role::Node).find(|machine| machine.name() == node.name()).unwrap()
    }

    fn metric(&self, node: &Node, name: &str) -> f64 {
        let machine = self.machine(node);
        machine.inside(|| node.process().metric(name)).unwrap_or_default()
    }

    /// Nodes that lead, and how many each.
    fn leading(&self) -> Vec<(String, f64)> {
        let nodes = self.fleet.nodes().iter();
        let all = nodes.map(|node| (node.name().to_owned(), self.metric(node, "dfs_node_led")));
        all.filter(|(_, led)| *led > 0.0).collect()
    }

    /// Waits until a node leads in each data centre, and all others there are led; in the middle of it.
    fn wait_led(&self, takers: &mut [Taker]) -> Vec<String> {
        let mut names = Vec::new();
        until("each data centre has a delegate that leads all others", || {
            let leading = self.leading();
            let led: f64 = leading.iter().map(|(_, led)| led).sum();
            names = leading.into_iter().map(|(name, _)| name).collect();
            names.len() == IDCS && led as usize == takers.len() - IDCS
        });
        assert!(takers.iter_mut().all(|taker| !taker.getting.has_ended()), "too late");
        names
    }

    /// What a node has taken so far.
    fn received(&self, name: &str) -> u64 {
        self.testbed.machine(name).unwrap().traffic().unwrap().received
    }

    /// Waits until a delegate has brought more to those whom it leads.
    fn wait_moves(&self, name: &str) {
        let (sent, had) = (self.sent(name), self.received(name));
        until("the delegate takes and gives", || {
            self.sent(name) > sent + MIB && self.received(name) > had + MIB
        });
    }

    fn sent(&self, name: &str) -> u64 {
        self.testbed.machine(name).unwrap().traffic().unwrap().sent
    }

    fn have_it(&self, takers: Vec<Taker>) {
        for taker in takers {
            let account = taker.ends_well(&self.body);
            assert_eq!(account.source, 0, "{account:?}");
        }
    }

    /// Copies that came into a data centre.
    fn copies_into(&self, idc: usize) -> f64 {
        let carried = self.testbed.uplink_traffic(idc).unwrap() - self.before[idc];
        carried.received as f64 / self.length as f64
    }

    #[track_caller]
    fn cost(&self, most_copies: f64) {
        let copies = self.origin.counters().body_bytes as f64 / self.length as f64;
        assert!(copies <= most_copies, "{copies} copies left the origin");
    }

    /// Messages with leases that the scheduler has sent.
    fn leases(&mut self) -> f64 {
        let (machine, process) = self.fleet.part("scheduler").unwrap();
        let leases = "dfs_scheduler_decisions_total{decision=\"leases\"}";
        machine.inside(|| process.metric(leases)).unwrap_or_default()
    }
}

/// Takes one of them out: it is struck.
fn without(mut takers: Vec<Taker>, name: &str) -> Vec<Taker> {
    takers.retain(|taker| taker.name != name);
    takers
}

#[test]
fn one_node_of_each_data_centre_leads_the_others_and_one_copy_comes_into_it() {
    let testbed = testbed();
    let mut world = World::on(&testbed);
    let mut takers = world.take();
    let delegates = world.wait_led(&mut takers);
    let then = world.leases();
    world.wait_moves(&delegates[0]);
    let said = world.fleet.nodes()[0].dfctl(["why", &world.url]).unwrap().done().text();
    for delegate in &delegates {
        assert!(said.contains(&format!("{delegate} leads 3 hosts")), "{said}");
        assert!(said.contains(&format!("led by {delegate} from now on")), "{said}");
    }
    world.have_it(takers);
    world.cost(1.01);
    for idc in 0..IDCS {
        let came = world.copies_into(idc);
        assert!((1.0..=1.6).contains(&came), "{came} copies came into data centre {idc}");
    }
    // Six of eight are led elsewhere: each of them had as many before as those who lead.
    let (since, of_one) = (world.leases() - then, (LENGTH / 65_536) as f64);
    assert!(since < 2.2 * of_one, "{since} messages with leases, where one has at most {of_one}");
    until("nobody leads any more", || world.leading().is_empty());
}

/// Those who were led by this one go back to the scheduler sooner than a connection of which nothing is heard ends.
fn are_back(world: &World<'_>, delegate: &str) {
    let other = world.fleet.nodes().iter().find(|node| node.name() != delegate).unwrap();
    let back = format!("comes back: {delegate} failed it");
    let is_back = || {
        let said = other.dfctl(["why", &world.url]).unwrap().done().text();
        (said.matches(&back).count() >= 2).then_some(())
    };
    find("they are back", BACK_WITHIN, is_back).unwrap();
}

fn struck(strike: impl Fn(&mut Fleet<'_>, &str)) {
    let testbed = testbed();
    let mut world = World::on(&testbed);
    let mut takers = world.take();
    let delegates = world.wait_led(&mut takers);
    world.wait_moves(&delegates[0]);
    strike(&mut world.fleet, &delegates[0]);
    are_back(&world, &delegates[0]);
    let mut takers = without(takers, &delegates[0]);
    assert!(takers.iter_mut().all(|taker| !taker.getting.has_ended()), "too late");
    world.have_it(takers);
    world.cost(1.01);
}

#[test]
fn those_whom_a_delegate_led_that_is_killed_go_back_to_the_scheduler() {
    struck(|fleet, delegate| fleet.kill(delegate).unwrap());
}

#[test]
fn those_whom_a_delegate_led_that_hangs_go_back_to_the_scheduler() {
    struck(|fleet, delegate| fleet.freeze(delegate).unwrap());
}

#[test]
fn delegates_go_on_when_the_scheduler_is_killed() {
    let testbed = testbed();
    let mut world = World::on(&testbed);
    let mut takers = world.take();
    let delegates = world.wait_led(&mut takers);
    world.wait_moves(&delegates[0]);
    world.fleet.kill("scheduler").unwrap();
    world.have_it(takers);
    world.cost(1.01);
}

/// Who is struck on a bad day, and copies that leave the origin at most.
struct Day {
    strike: fn(&mut World<'_>, &[String]) -> Vec<String>,
    most_copies: f64,
}

/// What each who reads the source for a data centre reads that another one read.
const WITHOUT_SEED: f64 = 1.7;

/// Nothing is lost but what is on its way.
const WITH_SEED: f64 = 1.3;

/// Four nodes are led by two others, some of the source has been read, and something happens. Whoever is not struck has
/// the file soon, the source pays once, and no more than one node of each data centre reads it.
fn bad_day(day: &Day) {
    let testbed = testbed_of(CROWD, SLOW_LINK, SLOW_UPLINK);
    // As slow as the way into a data centre: when it happens, not all of it has been read.
    testbed.slow("origin", SLOW_UPLINK).unwrap();
    let mut world = World::with(&testbed, LENGTH_OF_DAY);
    let mut takers = world.take();
    let delegates = world.wait_led(&mut takers);
    delegates.iter().for_each(|delegate| world.wait_moves(delegate));
    let read = world.origin.counters().body_bytes;
    assert!(read < LENGTH_OF_DAY * 3 / 4, "too late: {read} bytes of the source have been read");
    let struck = (day.strike)(&mut world, &delegates);
    let mut left = struck.iter().fold(takers, |left, name| without(left, name));
    let have_ended = || left.iter_mut().all(|taker| taker.getting.has_ended()).then_some(());
    // By the way into a data centre it takes eighteen seconds where nothing happens.
    find("everybody has it", PATIENCE, have_ended).unwrap();
    let accounts: Vec<Account> =
        left.into_iter().map(|taker| taker.ends_well(&world.body)).collect();
    world.cost(day.most_copies);
    let readers = accounts.iter().filter(|account| account.source > 0).count();
    assert!(readers <= IDCS, "{readers} nodes read the source: {accounts:?}");
}

#[test]
fn the_seed_is_killed() {
    let strike = |world: &mut World<'_>, _: &[String]| {
        world.fleet.kill("seed1").unwrap();
        Vec::new()
    };
    bad_day(&Day { strike, most_copies: WITHOUT_SEED });
}

#[test]
fn the_scheduler_and_all_delegates_are_killed() {
    let strike = |world: &mut World<'_>, delegates: &[String]| {
        world.fleet.kill("scheduler").unwrap();
        delegates.iter().for_each(|delegate| world.fleet.kill(delegate).unwrap());
        delegates.to_vec()
    };
    bad_day(&Day { strike, most_copies: WITH_SEED });
}

#[test]
fn the_scheduler_and_a_delegate_hang() {
    let strike = |world: &mut World<'_>, delegates: &[String]| {
        world.fleet.freeze("scheduler").unwrap();
        world.fleet.freeze(&delegates[0]).unwrap();
        delegates[..1].to_vec()
    };
    bad_day(&Day { strike, most_copies: WITH_SEED });
}

#[test]
fn the_scheduler_hangs_and_goes_on() {
    let strike = |world: &mut World<'_>, delegates: &[String]| {
        world.fleet.freeze("scheduler").unwrap();
        (0..6).for_each(|_| world.wait_moves(&delegates[0]));
        world.fleet.thaw("scheduler").unwrap();
        Vec::new()
    };
    bad_day(&Day { strike, most_copies: WITH_SEED });
}

#[test]
fn the_seed_is_killed_and_the_scheduler_once_a_node_reads_in_its_place() {
    let strike = |world: &mut World<'_>, _: &[String]| {
        world.fleet.kill("seed1").unwrap();
        let read = world.origin.counters().body_bytes;
        // More than lies in buffers on the way to it: others have heard of what it signs.
        until("a node reads the source", || world.origin.counters().body_bytes > read + 8 * MIB);
        world.fleet.kill("scheduler").unwrap();
        Vec::new()
    };
    bad_day(&Day { strike, most_copies: WITHOUT_SEED });
}
