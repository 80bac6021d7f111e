//! A crowd loses who leads it and who reads the origin for it, and reaches the origin and each other: one of them reads
//! what is missing, for all.

use dfs_tests::Testbed;
use dfs_tests::testbed::{Fate, Filter, Idcs, Layout, Machine, Role, Way, Whom};

use crate::support::crowd::{Crowd, LENGTH, LINK, NODES, Taker};
use crate::support::ledger::Account;
use crate::support::until;

/// Copies that a place may read from the origin where it has lost everybody else.
const ABOUT_ONCE: f64 = 1.3;

/// All of these have it, and have not read more of it from the origin than so many copies.
#[track_caller]
fn read_together(crowd: &Crowd<'_>, takers: Vec<Taker>, most_copies: f64) {
    let ended = takers.into_iter().map(|taker| taker.ends_well(&crowd.body));
    let accounts: Vec<Account> = ended.collect();
    let read: u64 = accounts.iter().map(|account| account.source).sum();
    let copies = read as f64 / LENGTH as f64;
    assert!(copies > 0.0, "it came too late");
    assert!(copies <= most_copies, "{copies} copies: {accounts:?}");
}

/// Bytes that a node has read from the origin.
fn has_read(crowd: &Crowd<'_>, machine: &Machine) -> f64 {
    let node = crowd.fleet.nodes().iter().find(|node| node.name() == machine.name()).unwrap();
    machine.inside(|| node.process().metric("dfs_node_source_bytes_total")).unwrap()
}

#[test]
fn a_data_centre_that_reaches_the_origin_and_nobody_else_reads_it_once() {
    let idcs = Some(Idcs { count: 2, uplink: LINK });
    let testbed = Testbed::build(&Layout { idcs, ..Layout::flat(NODES, LINK) }).unwrap();
    let crowd = Crowd::on(&testbed);
    let mut takers = crowd.take_each(0..NODES);
    let is_inside = |machine: &Machine| machine.idc().as_deref() == Some("idc1");
    let inside: Vec<&Machine> = testbed.all(Role::Node).filter(|one| is_inside(one)).collect();
    crowd.wait_middle(inside[0], &mut takers);
    let is_lost = |one: &&Machine| one.place().role != Role::Origin && !is_inside(one);
    let lost = testbed.machines().iter().filter(is_lost).map(Machine::address);
    let whom = Whom::These(lost.collect());
    let cut = Filter { whom, way: Way::Both, percent: 100, fate: Fate::Lost };
    for machine in &inside {
        testbed.filter(machine.name(), Some(&cut)).unwrap();
    }

    let is_cut_off = |taker: &Taker| is_inside(testbed.machine(&taker.name).unwrap());
    let (cut_off, others): (Vec<Taker>, Vec<Taker>) = takers.into_iter().partition(is_cut_off);
    read_together(&crowd, cut_off, ABOUT_ONCE);
    assert!(inside.iter().all(|machine| testbed.struck(machine.name()).unwrap() > 0));
    for taker in others {
        assert_eq!(taker.ends_well(&crowd.body).source, 0, "the seed is there for these");
    }
}

/// Kills the scheduler and the seed in the middle of it.
fn alone<'a>(testbed: &'a Testbed) -> (Crowd<'a>, Vec<Taker>) {
    let mut crowd = Crowd::on(testbed);
    let mut takers = crowd.take_each(0..NODES);
    crowd.wait_middle(testbed.machine("node2").unwrap(), &mut takers);
    crowd.fleet.kill("scheduler").unwrap();
    crowd.fleet.kill("seed1").unwrap();
    (crowd, takers)
}

#[test]
fn a_crowd_without_scheduler_and_seed_reads_the_origin_once() {
    let testbed = Testbed::build(&Layout::flat(NODES, LINK)).unwrap();
    let (crowd, takers) = alone(&testbed);
    read_together(&crowd, takers, ABOUT_ONCE);
}

#[test]
fn where_the_one_who_reads_for_all_hangs_another_one_does() {
    let testbed = Testbed::build(&Layout::flat(NODES, LINK)).unwrap();
    let (mut crowd, takers) = alone(&testbed);
    let mut reader = None;
    until("somebody reads for all", || {
        reader = testbed.all(Role::Node).find(|machine| has_read(&crowd, machine) > 0.0);
        reader.is_some()
    });
    let reader = reader.unwrap();
    crowd.fleet.freeze(reader.name()).unwrap();
    let (hung, others): (Vec<Taker>, Vec<Taker>) =
        takers.into_iter().partition(|taker| taker.name == reader.name());
    read_together(&crowd, others, ABOUT_ONCE);
    crowd.fleet.thaw(reader.name()).unwrap();
    let said = hung.into_iter().map(|taker| taker.ends(&crowd.body));
    // Its agent was silent for so long that it may have been taken for dead.
    assert!(said.into_iter().all(|end| end.err().is_none_or(|said| said.contains("DFS-4103"))));
}
