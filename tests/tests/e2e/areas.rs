//! Three areas, each with a scheduler, a seed and nodes of its own behind a narrow uplink: what they want leaves the
//! origin once and comes into each of them once, also on bad days.

use dfs_model::{CanonicalUrl, Rate, rank_areas};
use dfs_tests::testbed::{Fleet, Idcs, Layout, Machine, Role, Traffic};
use dfs_tests::{Body, Fault, Node, Origin, Testbed};

use crate::support::crowd::Taker;
use crate::support::ledger::Account;
use crate::support::{Expected, Place, binaries, until};

const MIB: u64 = 1 << 20;
const AREAS: usize = 3;
const NAMES: [&str; AREAS] = ["area1", "area2", "area3"];
const NODES: usize = 6;
const LINK: Rate = Rate(80_000_000 / 8);
const UPLINK: Rate = Rate(40_000_000 / 8);
const LENGTH: u64 = 12 * MIB + 17;
/// Each area's seed asks an origin that fails six times, and once more for a node that comes late.
const MOST_WHERE_IT_FAILS: u64 = 36;

fn layout() -> Layout {
    let areas = Some(Idcs { count: AREAS, uplink: UPLINK });
    Layout { seeds: AREAS, areas, ..Layout::flat(NODES, LINK) }
}

/// Everybody, and the file that they want.
struct World<'a> {
    place: Place,
    testbed: &'a Testbed,
    fleet: Fleet<'a>,
    origin: Origin,
    body: Body,
    url: String,
    /// What the uplinks had carried before anybody wanted anything.
    before: Vec<Traffic>,
}

impl<'a> World<'a> {
    fn on(testbed: &'a Testbed) -> Self {
        Self::with(testbed, |_| Vec::new())
    }

    /// With such variables of the manager, for what is at this URL.
    fn with(
        testbed: &'a Testbed,
        of_manager: impl Fn(&str) -> Vec<(&'static str, String)>,
    ) -> Self {
        let (place, body) = (Place::new(), Body::noise(1, LENGTH));
        let origin = testbed.start_origin(80).unwrap();
        origin.put("/file", body.clone());
        let url = origin.url("/file");
        let variables = of_manager(&url);
        let variables: Vec<_> =
            variables.iter().map(|(key, value)| ("manager", *key, &value[..])).collect();
        let started = Fleet::start_with(testbed, &binaries(), place.root(), &variables);
        let fleet = started.unwrap();
        let before = (0..AREAS).map(|area| testbed.uplink_traffic(area).unwrap()).collect();
        Self { place, testbed, fleet, origin, body, url, before }
    }

    /// The areas, the nearest to the origin first.
    fn order(&self) -> [usize; AREAS] {
        let url = CanonicalUrl::parse(&self.url).unwrap();
        let order = rank_areas(url.origin(), NAMES);
        std::array::from_fn(|at| NAMES.iter().position(|name| *name == order[at]).unwrap())
    }

    /// The areas whose seeds have asked the origin; nobody else has.
    fn askers(&self) -> Vec<usize> {
        let mut askers: Vec<usize> = Vec::new();
        for request in self.origin.log() {
            let from = request.from.unwrap();
            let asker = (0..AREAS).find(|area| self.machine(Role::Seed, *area).address() == from);
            askers.push(asker.unwrap_or_else(|| panic!("{from} is no seed: {request:?}")));
        }
        askers.sort_unstable();
        askers.dedup();
        askers
    }

    /// The machine of this role in an area; of several the first.
    fn machine(&self, role: Role, area: usize) -> &'a Machine {
        let is_there = |machine: &&Machine| machine.place().area == Some(area);
        self.testbed.all(role).find(is_there).unwrap()
    }

    fn nodes_of(&self, area: usize) -> Vec<&Node> {
        self.fleet.nodes().iter().skip(area).step_by(AREAS).collect()
    }

    fn take(&self, node: &Node) -> Taker {
        // Of one that asks again.
        drop(std::fs::remove_file(self.place.path(&format!("{}.out", node.name()))));
        Taker::start(node, &self.url, &self.place)
    }

    fn take_in(&self, area: usize) -> Vec<Taker> {
        let nodes = self.nodes_of(area);
        nodes.into_iter().map(|node| self.take(node)).collect()
    }

    fn have_it(&self, takers: Vec<Taker>) -> Vec<Account> {
        takers.into_iter().map(|taker| taker.ends_well(&self.body)).collect()
    }

    /// Copies that came into an area, and left it.
    fn copies(&self, area: usize) -> (f64, f64) {
        let carried = self.testbed.uplink_traffic(area).unwrap() - self.before[area];
        let copies = |bytes: u64| bytes as f64 / LENGTH as f64;
        (copies(carried.received), copies(carried.sent))
    }

    /// Waits until the seed of an area is in the middle of it, and all of these are.
    fn wait_middle(&self, area: usize, takers: &mut [Taker]) {
        let seed = self.machine(Role::Seed, area);
        until("its seed is in the middle of it", || seed.traffic().unwrap().received > LENGTH / 4);
        assert!(takers.iter_mut().all(|taker| !taker.getting.has_ended()), "too late");
        assert!(seed.traffic().unwrap().received < LENGTH, "it had all of it");
    }

    /// Copies that have left the origin are no more than so many.
    #[track_caller]
    fn cost(&self, most_copies: f64) {
        let copies = self.origin.counters().body_bytes as f64 / LENGTH as f64;
        assert!(copies <= most_copies, "{copies} copies left the origin");
    }
}

#[test]
fn one_copy_leaves_the_origin_and_one_comes_into_each_area() {
    let testbed = Testbed::build(&layout()).unwrap();
    let world = World::on(&testbed);
    let takers = (0..AREAS).flat_map(|area| world.take_in(area)).collect();
    let accounts = world.have_it(takers);
    assert!(accounts.iter().all(|account| account.source == 0), "{accounts:?}");
    world.cost(1.0);
    let counters = world.origin.counters();
    assert_eq!(counters.method("HEAD"), 1, "one area asks what it is: {counters:?}");
    let mut left_all = 0.0;
    for area in 0..AREAS {
        let (came, left) = world.copies(area);
        // What a link carries beside the content, and what is sent again where processors are short.
        assert!((1.0..=1.3).contains(&came), "{came} copies came into area {area}");
        left_all += left;
    }
    assert!((2.0..=2.6).contains(&left_all), "{left_all} copies left an area for another one");
    for area in &world.order()[1..] {
        let node = world.nodes_of(*area)[0];
        let said = node.dfctl(["why", &world.url]).unwrap().done().text();
        let own = world.machine(Role::Seed, *area).name();
        assert!(said.contains("moved       source 0 B (0.00 copies)"), "{said}");
        let gave = |seed: &&Machine| said.contains(&format!("seed@{} 12.0 MiB", seed.name()));
        let givers: Vec<_> = testbed.all(Role::Seed).filter(gave).map(Machine::name).collect();
        assert!(givers.iter().any(|giver| *giver != own), "{givers:?}: {said}");
    }
}

#[test]
fn an_area_is_cut_off_in_the_middle_and_comes_back() {
    let testbed = Testbed::build(&layout()).unwrap();
    let world = World::on(&testbed);
    let [first, second, third] = world.order();
    let mut cut = world.take_in(third);
    let others = [first, second].into_iter().flat_map(|area| world.take_in(area)).collect();
    world.wait_middle(third, &mut cut);
    let name = world.machine(Role::Seed, third).area().unwrap();
    testbed.unplug(&name).unwrap();
    world.have_it(others);
    world.cost(1.0);
    assert!(cut.iter_mut().all(|taker| !taker.getting.has_ended()), "they were not cut off");
    testbed.plug(&name).unwrap();
    world.have_it(cut);
    // What was not there yet when it was cut off it may have read from the origin itself.
    world.cost(1.8);
    let (came, _) = world.copies(third);
    assert!((1.0..=1.3).contains(&came), "{came} copies came into it");
}

#[test]
fn the_seed_of_the_nearest_area_is_killed_in_the_middle() {
    let testbed = Testbed::build(&layout()).unwrap();
    let mut world = World::on(&testbed);
    let [first, second, third] = world.order();
    let mut takers: Vec<_> = (0..AREAS).flat_map(|area| world.take_in(area)).collect();
    world.wait_middle(first, &mut takers);
    world.fleet.kill(world.machine(Role::Seed, first).name()).unwrap();
    let at_its_end = world.origin.counters().body_bytes;
    assert!((LENGTH / 4..LENGTH).contains(&at_its_end), "{at_its_end}");
    world.have_it(takers);
    // The area that comes next reads for the rest: what only the one that is gone held, it reads again.
    world.cost(2.05);
    assert!(world.origin.counters().body_bytes > at_its_end);
    for area in [second, third] {
        let (came, _) = world.copies(area);
        assert!((1.0..=1.4).contains(&came), "{came} copies came into area {area}");
    }
}

#[test]
fn the_scheduler_of_the_nearest_area_is_killed_in_the_middle() {
    let testbed = Testbed::build(&layout()).unwrap();
    let mut world = World::on(&testbed);
    let [first, second, third] = world.order();
    // Others may have had all of it when the last area is in the middle.
    let mut last = world.take_in(third);
    let others = [first, second].into_iter().flat_map(|area| world.take_in(area)).collect();
    world.wait_middle(third, &mut last);
    world.fleet.kill(world.machine(Role::Scheduler, first).name()).unwrap();
    world.have_it(last);
    world.have_it(others);
    world.cost(1.05);
    for area in 0..AREAS {
        let (came, _) = world.copies(area);
        assert!((1.0..=1.3).contains(&came), "{came} copies came into area {area}");
    }
}

#[test]
fn what_an_area_has_it_gives_while_it_is_cut_off_also_to_who_comes_then() {
    let testbed = Testbed::build(&layout()).unwrap();
    let mut world = World::on(&testbed);
    let [.., third] = world.order();
    let names: Vec<String> =
        world.nodes_of(third).iter().map(|node| node.name().to_owned()).collect();
    let [one, other] = &names[..] else { panic!("an area has two nodes") };
    let take = |world: &World<'_>, name: &str| {
        let node = world.fleet.nodes().iter().find(|node| node.name() == name).unwrap();
        world.take(node).ends_well(&world.body)
    };
    take(&world, one);
    let name = world.machine(Role::Seed, third).area().unwrap();
    testbed.unplug(&name).unwrap();
    // It knows its area from before, and takes from it.
    world.fleet.restart(other).unwrap();
    let account = take(&world, other);
    assert_eq!((account.source, account.seed + account.peers), (0, LENGTH), "{account:?}");
    // What the URL is nobody can say any more after a while, and it is still what it was.
    let scheduler = world.machine(Role::Scheduler, third).name().to_owned();
    let kept = |world: &mut World<'_>| {
        let (machine, process) = world.fleet.part(&scheduler).unwrap();
        machine.inside(|| process.metric("dfs_scheduler_resolved_total{answer=\"kept\"}"))
    };
    until("it is what it was", || {
        take(&world, one);
        kept(&mut world).is_ok_and(|times| times > 0.0)
    });
    testbed.plug(&name).unwrap();
    world.cost(1.0);
}

#[test]
fn only_what_is_read_comes_into_an_area() {
    let testbed = Testbed::build(&layout()).unwrap();
    let world = World::on(&testbed);
    let [.., third] = world.order();
    let node = world.nodes_of(third)[0];
    let out = world.place.path("part");
    let part = ["get", &world.url, "--range", "3145728-4194303", "-o", out.to_str().unwrap()];
    node.dfctl(part).unwrap().done();
    let read = world.body.read(3 * MIB, 4 * MIB).unwrap();
    assert!(std::fs::read(out).unwrap() == read, "wrong bytes");
    world.cost(0.2);
    let (came, _) = world.copies(third);
    assert!(came < 0.25, "{came} copies came into it");
}

#[test]
fn what_is_asked_with_credentials_crosses_no_area() {
    let testbed = Testbed::build(&layout()).unwrap();
    let mut world = World::on(&testbed);
    let _locked = world.origin.inject(Fault::require_authorization("Basic dXNlcjpwYXNz"));
    world.url = world.url.replace("http://", "http://user:pass@");
    let takers: Vec<Taker> = (0..AREAS).flat_map(|area| world.take_in(area)).collect();
    world.have_it(takers);
    let copies = world.origin.counters().body_bytes as f64 / LENGTH as f64;
    assert!((2.95..=3.05).contains(&copies), "each area pays for itself: {copies}");
    for area in 0..AREAS {
        let (_, left) = world.copies(area);
        assert!(left < 0.2, "{left} copies left area {area}");
    }
}

#[test]
fn the_area_that_the_operator_names_asks_the_origin() {
    let testbed = Testbed::build(&layout()).unwrap();
    let world = World::with(&testbed, |url| {
        let url = CanonicalUrl::parse(url).unwrap();
        let last = rank_areas(url.origin(), NAMES)[AREAS - 1];
        vec![("DFS_MEMBERS__NEAREST", format!("{{ \"{}\" = \"{last}\" }}", url.origin()))]
    });
    let [.., last] = world.order();
    let takers = (0..AREAS).flat_map(|area| world.take_in(area)).collect();
    world.have_it(takers);
    world.cost(1.0);
    assert_eq!(world.askers(), [last]);
    for area in (0..AREAS).filter(|area| *area != last) {
        let (_, left) = world.copies(area);
        assert!(left < 0.2, "{left} copies left area {area}");
    }
}

#[test]
fn an_origin_that_refuses_or_fails_is_asked_a_few_times_by_each_area_and_each_node_hears_why() {
    let testbed = Testbed::build(&layout()).unwrap();
    let mut world = World::on(&testbed);
    for (status, code) in [(403, "DFS-2103"), (502, "DFS-2104")] {
        world.url = world.origin.url(&format!("/{status}"));
        world.origin.put(&format!("/{status}"), world.body.clone());
        world.origin.reset_counters();
        let fails = world.origin.inject(Fault::status(status).on(&format!("/{status}")));
        let takers: Vec<Taker> = (0..AREAS).flat_map(|area| world.take_in(area)).collect();
        for taker in takers {
            let said = taker.ends(&world.body).unwrap_err();
            assert!(said.contains(code) && said.matches("DFS-").count() == 1, "{said}");
        }
        let counters = world.origin.counters();
        assert!(counters.requests <= MOST_WHERE_IT_FAILS, "{status}: {counters:?}");
        world.askers();
        fails.lift();
        world.origin.reset_counters();
        until("it fails no more", || {
            let takers: Vec<Taker> = (0..AREAS).flat_map(|area| world.take_in(area)).collect();
            takers.into_iter().map(|taker| taker.ends(&world.body)).all(|ended| ended.is_ok())
        });
        world.cost(1.0);
    }
}

#[test]
fn credentials_stay_in_their_area_also_where_the_origin_fails() {
    let testbed = Testbed::build(&layout()).unwrap();
    let mut world = World::on(&testbed);
    let [.., last] = world.order();
    let _failing = world.origin.inject(Fault::status(502));
    world.url = world.url.replace("http://", "http://user:pass@");
    for taker in world.take_in(last) {
        let said = taker.ends(&world.body).unwrap_err();
        assert!(said.contains("DFS-2104") && said.matches("DFS-").count() == 1, "{said}");
        assert!(!said.contains("pass"), "{said}");
    }
    assert_eq!(world.askers(), [last]);
}
