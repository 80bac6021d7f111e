//! Bad days of a crowd: eight nodes on narrow links want one file at once, and something happens while bytes are on
//! their way. Everybody who is left finishes with the right bytes, whoever was struck does once it is over, and the
//! origin pays for what was lost with who had it, and no more.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::symlink;

use dfs_tests::Testbed;
use dfs_tests::testbed::{Idcs, Layout, Machine, Role, Trouble};
use dfs_tests::wait::PATIENCE;

use crate::full::FULL;
use crate::recovery::spoil;
use crate::support::crowd::{Crowd, LENGTH, LINK, NODES, Taker};
use crate::support::{Place, Tmpfs, until};

const MIB: u64 = 1 << 20;

fn bad_day(trouble: &str, most_copies: f64) {
    bad_day_on(&Testbed::build(&Layout::flat(NODES, LINK)).unwrap(), &[trouble], most_copies);
}

/// All of these happen at once, each when whom it strikes is in the middle of it; they are over once everybody else has
/// the file.
fn bad_day_on(testbed: &Testbed, troubles: &[&str], most_copies: f64) {
    let troubles: Vec<Trouble> = troubles.iter().map(|text| text.parse().unwrap()).collect();
    let mut crowd = Crowd::on(testbed);
    let mut takers = crowd.take_each(0..NODES);
    for trouble in &troubles {
        crowd.wait_middle(trouble.witness(testbed).unwrap(), &mut takers);
    }
    for trouble in &troubles {
        trouble.strike(testbed, &mut crowd.fleet).unwrap();
    }

    let hits = |machine: &Machine| troubles.iter().any(|trouble| trouble.hits(machine));
    let is_hit = |taker: &Taker| hits(testbed.machine(&taker.name).unwrap());
    let (hit, others): (Vec<Taker>, Vec<Taker>) = takers.into_iter().partition(is_hit);
    crowd.have_it(others, most_copies);
    for trouble in &troubles {
        assert!(trouble.is_felt(testbed).unwrap(), "{trouble} was not felt");
        trouble.heal(testbed, &mut crowd.fleet).unwrap();
    }
    if hit.is_empty() {
        return;
    }
    crowd.fleet.wait_connected().unwrap();
    for one in hit {
        let again = crowd.fleet.nodes().iter().position(|node| node.name() == one.name).unwrap();
        if let Err(said) = one.ends(&crowd.body) {
            // Its agent was gone, or silent for so long that it was taken to be.
            assert!(said.contains("DFS-4103"), "{troubles:?}: {said}");
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
fn packets_come_through_in_one_direction_only() {
    let troubles = ["deaf:node2", "mute:node3", "adrift:node4", "unheard:node5"];
    bad_day_on(&Testbed::build(&Layout::flat(NODES, LINK)).unwrap(), &troubles, WITH_ALL_SEEDS);
}

#[test]
fn links_of_nodes_lose_one_five_and_twenty_packets_in_a_hundred() {
    let troubles = ["lossy-1:node2", "lossy:node3", "lossy-20:node4"];
    bad_day_on(&Testbed::build(&Layout::flat(NODES, LINK)).unwrap(), &troubles, WITH_ALL_SEEDS);
}

#[test]
fn connections_between_all_nodes_break_again_and_again() {
    let testbed = Testbed::build(&Layout::flat(NODES, LINK)).unwrap();
    let mut crowd = Crowd::on(&testbed);
    let mut takers = crowd.take_each(0..NODES);
    crowd.wait_middle(testbed.machine("node2").unwrap(), &mut takers);
    let each = || testbed.all(Role::Node).map(Machine::name);
    let storms: Vec<Trouble> =
        each().map(|name| format!("resets:{name}").parse().unwrap()).collect();
    for storm in &storms {
        storm.strike(&testbed, &mut crowd.fleet).unwrap();
    }
    until("connections have been broken", || {
        each().map(|name| testbed.struck(name).unwrap()).sum::<u64>() > 10 * NODES as u64
    });
    let is_under_way = |taker: &mut Taker| !taker.getting.has_ended();
    assert!(takers.iter_mut().any(is_under_way), "it came too late");
    for storm in &storms {
        storm.heal(&testbed, &mut crowd.fleet).unwrap();
    }
    let accounts = crowd.have_it(takers, WITH_ALL_SEEDS);
    assert!(accounts.iter().all(|account| account.source == 0), "{accounts:?}");
}

#[test]
fn a_data_centre_is_cut_off() {
    let idcs = Some(Idcs { count: 2, uplink: LINK });
    let testbed = Testbed::build(&Layout { idcs, ..Layout::flat(NODES, LINK) }).unwrap();
    bad_day_on(&testbed, &["unplug:idc1"], WITH_ALL_SEEDS);
    // Each of its nodes goes on with whom it knows until it hears of the scheduler again: when TCP tries the stream to
    // it once more, which is as long after the link is back as it was away at most. So long each of the four fetches
    // another part of what they lack; what one of them was to fetch from whom it cannot reach the others do, too.
    let copies = testbed.uplink_traffic(0).unwrap().received as f64 / LENGTH as f64;
    assert!((1.0..=1.8).contains(&copies), "{copies} copies came into the data centre");
}

/// Whoever is killed had what nobody else has; no more than two nodes read the origin for it afterwards.
fn a_seed_is_killed_when_nobody_has_it_all(seeds: usize, most_copies: f64) {
    let testbed = Testbed::build(&Layout { seeds, ..Layout::flat(NODES, LINK) }).unwrap();
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
    let accounts = crowd.have_it(takers, most_copies);
    let readers = accounts.iter().filter(|account| account.source > 0).count();
    assert!(readers <= 2, "{readers} nodes read the origin: {accounts:?}");
}

#[test]
fn one_of_two_seeds_is_killed_when_nobody_has_it_all() {
    a_seed_is_killed_when_nobody_has_it_all(2, 2.05);
}

#[test]
fn the_only_seed_is_killed_when_nobody_has_it_all() {
    a_seed_is_killed_when_nobody_has_it_all(1, WITH_STAND_INS);
}

/// Of the day, of an instant such as 2026-11-20T09:16:34.120Z.
fn millis(instant: &str) -> u64 {
    let numbers = instant[11..23].split([':', '.']).map(|digits| digits.parse::<u64>().unwrap());
    let units = [3_600_000, 60_000, 1000, 1];
    numbers.zip(units).map(|(number, unit)| number * unit).sum()
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
    // By the scheduler's own record: no later than a second after the first of the others was there again.
    let node = &crowd.fleet.nodes()[NODES - 1];
    let said = node.dfctl(["why", &crowd.url, "--format", "json"]).unwrap().ok().unwrap();
    let said = said.json().unwrap();
    let evidence = said["items"][0]["evidence"].as_array().unwrap().clone();
    let at = |node: &str, event: &str| {
        let of = evidence.iter().filter(|one| one["node"] == node && one["event"] == event);
        of.map(|one| millis(one["at"].as_str().unwrap())).min()
    };
    let back = (1..NODES).filter_map(|other| at(&format!("node{other}"), "registered")).min();
    let came = at(node.name(), "registered").max(back).unwrap_or_else(|| panic!("{said}"));
    let met = at(node.name(), "scheduled").unwrap_or_else(|| panic!("{said}"));
    assert!(met <= came + 1000, "it came at {came} and had parents at {met}: {said}");
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
