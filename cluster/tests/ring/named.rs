//! Stories that are told one by one.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::reading::{Manner, Progress};
use crate::ring::{Ring, Size};
use crate::story;
use crate::world::Which;

const SECOND: Duration = Duration::from_secs(1);

/// A content that takes a while.
const LONG: usize = 8 << 20;

fn ring(nodes: usize) -> Ring {
    Ring::new(
        7,
        &Size {
            nodes,
            schedulers: 1,
            seeds: 1,
            cramped: 0,
            rate: 1 << 20,
            contents: vec![LONG, LONG, 1000],
        },
    )
}

/// Somebody on each of these nodes reads all of the first content.
fn all_read(ring: &Ring, nodes: &[Which]) -> Vec<Arc<Mutex<Progress>>> {
    nodes.iter().map(|node| ring.read(*node, 0, Manner::Whole)).collect()
}

fn are_done(readers: &[Arc<Mutex<Progress>>]) -> bool {
    readers.iter().all(|reader| reader.lock().is_done)
}

/// Content bytes that a node has of the first content.
fn kept(ring: &Ring, node: Which) -> u64 {
    let host = ring.host(node).expect("a node that runs");
    host.engine.store().used_bytes()
}

/// Waits until everybody has seen everything, and nobody was told an error.
fn finish(ring: &mut Ring, readers: &[Arc<Mutex<Progress>>], within: Duration) {
    let are_through = ring.wait(within, |_| are_done(readers));
    let progress: Vec<Progress> = readers.iter().map(|reader| reader.lock().clone()).collect();
    let doings = || ring.nodes.iter().map(|node| ring.doings(*node)).collect::<Vec<_>>();
    assert!(are_through, "{progress:#?} {:#?}", doings());
    for Progress { errors, wrong, .. } in progress {
        assert!(errors.is_empty() && wrong.is_none(), "{errors:?} {wrong:?}");
    }
}

#[test]
fn those_who_come_to_a_restarted_scheduler_have_parents_within_a_second() {
    let mut ring = ring(5);
    let (early, late) = ring.nodes.split_at(3);
    let (early, late) = (early.to_vec(), late.to_vec());
    let readers = all_read(&ring, &early);
    finish(&mut ring, &readers, 60 * SECOND);
    ring.world.crash(ring.schedulers[0]);
    ring.world.pass(5 * SECOND);
    ring.boot(ring.schedulers[0]);
    ring.settle();
    let before = ring.copies(0);
    let readers = all_read(&ring, &late);
    ring.world.pass(SECOND);
    for node in &late {
        assert!(kept(&ring, *node) > 0, "nobody gives it anything");
    }
    finish(&mut ring, &readers, 60 * SECOND);
    assert_eq!(ring.copies(0), before, "the origin was asked again");
    story::end(&mut ring).unwrap();
}

#[test]
fn what_is_under_way_goes_on_while_the_scheduler_is_away() {
    let mut ring = ring(4);
    let readers = all_read(&ring, &ring.nodes);
    ring.world.pass(2 * SECOND);
    ring.world.crash(ring.schedulers[0]);
    let mut before = vec![0; ring.nodes.len()];
    while !are_done(&readers) {
        // A seed that reads a slow origin may keep them waiting for what they asked it for, and not for long.
        ring.world.pass(8 * SECOND);
        let now: Vec<u64> = ring.nodes.iter().map(|node| kept(&ring, *node)).collect();
        for (node, reader) in readers.iter().enumerate() {
            let goes_on = reader.lock().is_done || now[node] > before[node];
            assert!(goes_on, "{:?}", ring.doings(ring.nodes[node]));
        }
        before = now;
    }
    finish(&mut ring, &readers, SECOND);
    assert!(ring.copies(0) < 1.01, "{} copies", ring.copies(0));
    ring.boot(ring.schedulers[0]);
    story::end(&mut ring).unwrap();
}

#[test]
fn a_node_that_loses_sight_of_the_cluster_alone_finishes_with_its_partners() {
    let mut ring = ring(4);
    let readers = all_read(&ring, &ring.nodes);
    ring.world.pass(2 * SECOND);
    let (network, node) = (ring.world.network.clone(), ring.world.ip(ring.nodes[0]));
    for service in [ring.schedulers[0], ring.manager].map(|which| ring.world.ip(which)) {
        network.cut(node, service);
        network.cut(service, node);
    }
    finish(&mut ring, &readers, 60 * SECOND);
    assert!(ring.copies(0) < 1.01, "{} copies", ring.copies(0));
    for service in [ring.schedulers[0], ring.manager].map(|which| ring.world.ip(which)) {
        network.mend(node, service);
        network.mend(service, node);
    }
    story::end(&mut ring).unwrap();
}

#[test]
fn a_direction_that_loses_everything_is_gone_around() {
    for is_to_node in [true, false] {
        let mut ring = ring(4);
        let readers = all_read(&ring, &ring.nodes);
        ring.world.pass(2 * SECOND);
        let (network, node) = (ring.world.network.clone(), ring.world.ip(ring.nodes[0]));
        let others = [ring.seeds[0], ring.nodes[1]].map(|which| ring.world.ip(which));
        for other in others {
            let (from, to) = if is_to_node { (other, node) } else { (node, other) };
            network.cut(from, to);
        }
        finish(&mut ring, &readers, 60 * SECOND);
        assert!(ring.copies(0) < 1.3, "{} copies", ring.copies(0));
        others.iter().for_each(|other| {
            network.mend(*other, node);
            network.mend(node, *other);
        });
        story::end(&mut ring).unwrap();
    }
}

#[test]
fn left_alone_nodes_take_what_their_partners_have_and_one_after_the_other_reads_the_origin_for_all()
{
    let mut ring = ring(5);
    let readers = all_read(&ring, &ring.nodes);
    ring.world.pass(3 * SECOND);
    let left = ring.world.now;
    for which in [ring.schedulers[0], ring.manager, ring.seeds[0]] {
        ring.world.crash(which);
    }
    finish(&mut ring, &readers, 120 * SECOND);
    let counts = ring.shelf.counts(0);
    let origin: Vec<Duration> = ring
        .nodes
        .iter()
        .filter_map(|node| counts.by.get(&ring.world.ip(*node)))
        .map(|(at, _)| *at - left)
        .collect();
    assert!(!origin.is_empty(), "somebody else has the rest");
    let spread = *origin.iter().max().unwrap() - *origin.iter().min().unwrap();
    assert!(origin.len() == 1 || spread > SECOND / 5, "they come as a herd: {origin:?}");
    // What the seed read, and the rest for all of them.
    assert!(ring.copies(0) < 1.5, "{} copies", ring.copies(0));
    for which in [ring.manager, ring.schedulers[0], ring.seeds[0]] {
        ring.boot(which);
    }
    story::end(&mut ring).unwrap();
}

#[test]
fn a_seed_that_dies_while_it_is_asked_what_a_url_is_is_not_taken_for_the_origin() {
    let mut ring = ring(3);
    ring.world.freeze(ring.origin);
    let reader = ring.read(ring.nodes[0], 0, Manner::Forward);
    ring.world.pass(2 * SECOND);
    ring.world.crash(ring.seeds[0]);
    ring.world.thaw(ring.origin);
    finish(&mut ring, &[reader], 60 * SECOND);
    ring.boot(ring.seeds[0]);
    story::end(&mut ring).unwrap();
}

#[test]
fn a_scheduler_that_the_manager_loses_sight_of_is_told_what_goes_on_all_the_same() {
    let mut ring = ring(4);
    let network = ring.world.network.clone();
    let ends = [ring.manager, ring.schedulers[0]].map(|which| ring.world.ip(which));
    network.cut(ends[0], ends[1]);
    network.cut(ends[1], ends[0]);
    // The manager drops it from its list, and the nodes hear of that.
    ring.world.pass(30 * SECOND);
    let readers = all_read(&ring, &ring.nodes[..3]);
    finish(&mut ring, &readers, 60 * SECOND);
    assert!(ring.copies(0) < 1.01, "{} copies", ring.copies(0));
    ring.world.crash(ring.seeds[0]);
    network.mend(ends[0], ends[1]);
    network.mend(ends[1], ends[0]);
    ring.world.pass(30 * SECOND);
    // Only the scheduler can say who has it.
    let last = ring.nodes[3];
    let readers = all_read(&ring, &[last]);
    finish(&mut ring, &readers, 60 * SECOND);
    assert!(ring.copies(0) < 1.01, "{} copies", ring.copies(0));
    ring.boot(ring.seeds[0]);
    story::end(&mut ring).unwrap();
}
