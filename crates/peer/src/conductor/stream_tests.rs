//! Readers that go from front to back, case by case.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const READ: GroupRange = GroupRange { first: 4, count: 2 };
const WINDOW: GroupRange = GroupRange { first: 4, count: 32 };

fn seed() -> Offer {
    Offer { host: HostId::from_bytes([1; 16]), fetches: true, place: Place::Here }
}

/// A download of sixty-four groups with a reader at the fifth that has its window wanted, and a seed.
fn with_reader() -> Conductor {
    let length = 64 * dfs_model::GROUP_BYTES;
    let mut conductor = Conductor::new(Some(length), 2, GroupSet::new(), 41);
    conductor.set_parents(vec![seed()]);
    conductor.reads_next(WINDOW);
    conductor.want(WINDOW, Priority::Bulk);
    conductor.want(READ, Priority::Demand);
    conductor
}

/// What is asked of parents, in the order of asking.
fn asked(conductor: &mut Conductor, now: Duration) -> Vec<(GroupRange, Priority)> {
    let of = |action: &Action| match action {
        Action::Request { groups, priority, .. } => Some((*groups, *priority)),
        _ => None,
    };
    conductor.plan(now).iter().filter_map(of).collect()
}

/// It is heard of whoever leases, as long as nothing is leased.
fn asked_while_led(conductor: &mut Conductor, now: Duration) -> Vec<(GroupRange, Priority)> {
    conductor.lead(now);
    asked(conductor, now)
}

#[test]
fn what_a_reader_from_front_to_back_waits_for_is_left_to_leases_and_not_for_long() {
    let mut conductor = with_reader();
    for tenth in 10..30 {
        assert_eq!(asked_while_led(&mut conductor, SECOND * tenth / 10), [], "{tenth}");
        assert!(conductor.follows_leases_alone(SECOND * tenth / 10));
    }
    assert_eq!(asked_while_led(&mut conductor, 3 * SECOND), [(READ, Priority::Demand)]);
}

#[test]
fn who_gets_on_goes_on_waiting() {
    let mut conductor = with_reader();
    let half = GroupRange { count: 1, ..READ };
    assert_eq!(asked_while_led(&mut conductor, SECOND), []);
    conductor.lease(7, seed().host, half, 2 * SECOND);
    let [Action::Request { flight, .. }] = conductor.plan(2 * SECOND)[..] else { panic!() };
    conductor.arrived(flight, half, 2 * SECOND);
    conductor.ended(flight, None, 2 * SECOND);
    assert_eq!(asked_while_led(&mut conductor, 3 * SECOND), []);
    let rest = GroupRange { first: 5, count: 1 };
    assert_eq!(asked_while_led(&mut conductor, 5 * SECOND), [(rest, Priority::Demand)]);
}

/// Asks as it plans, and has what it asks for come; what that was.
fn comes(conductor: &mut Conductor, now: Duration) -> Vec<GroupRange> {
    conductor.lead(now);
    let mut came = Vec::new();
    for action in conductor.plan(now) {
        let Action::Request { flight, groups, .. } = action else { continue };
        conductor.arrived(flight, groups, now);
        conductor.ended(flight, None, now);
        came.push(groups);
    }
    came
}

/// What comes to another reader of the same task is nothing to it, nor is what it was asked for without the swarm.
#[test]
fn who_does_not_get_on_by_the_swarm_waits_once_and_not_again_and_again() {
    let mut conductor = with_reader();
    assert_eq!(comes(&mut conductor, SECOND), []);
    let elsewhere = GroupRange::new(50, 1);
    conductor.want(elsewhere, Priority::Demand);
    assert_eq!(comes(&mut conductor, 2 * SECOND), [elsewhere]);
    assert_eq!(comes(&mut conductor, 3 * SECOND), [READ]);
    let then = GroupRange { first: READ.end(), ..READ };
    conductor.want(then, Priority::Demand);
    assert_eq!(comes(&mut conductor, 3 * SECOND), [then]);
    let leased = GroupRange::new(20, 1);
    conductor.lease(7, seed().host, leased, 3 * SECOND);
    assert_eq!(comes(&mut conductor, 3 * SECOND), [leased]);
    let later = GroupRange { first: then.end(), ..READ };
    conductor.want(later, Priority::Demand);
    assert_eq!(comes(&mut conductor, 3 * SECOND), [], "the swarm brings something of it again");
}

#[test]
fn who_reads_elsewhere_waits_for_no_lease() {
    let mut conductor = with_reader();
    let all = GroupRange::new(0, 64);
    let elsewhere = GroupRange::new(50, 1);
    conductor.want(all, Priority::Background);
    conductor.want(elsewhere, Priority::Demand);
    assert_eq!(asked_while_led(&mut conductor, SECOND), [(elsewhere, Priority::Demand)]);
    assert!(!conductor.follows_leases_alone(SECOND));
}

#[test]
fn where_nobody_leases_a_window_comes_in_order_behind_what_is_waited_for() {
    let mut conductor = with_reader();
    let asked = asked(&mut conductor, SECOND);
    let rest = GroupRange::new(READ.end(), WINDOW.count - READ.count);
    assert_eq!(asked, [(READ, Priority::Demand), (rest, Priority::ReadAhead)]);
}

#[test]
fn where_neighbours_choose_too_a_window_comes_in_any_order_and_a_reader_waits_for_it() {
    let mut conductor = with_reader();
    let neighbour = Offer { host: HostId::from_bytes([2; 16]), fetches: false, place: Place::Here };
    conductor.set_parents(vec![seed(), neighbour.clone()]);
    let is_urgent = |asked: &[(GroupRange, Priority)]| {
        asked.iter().any(|(_, priority)| *priority < Priority::Bulk)
    };
    let first = asked(&mut conductor, SECOND);
    assert!(!first.is_empty() && !is_urgent(&first), "{first:?}");
    // Whatever was asked for first, what is waited for is not on its way for ever.
    let flying = |asked: &[(GroupRange, Priority)]| asked.iter().any(|(run, _)| run.contains(4));
    assert!(!flying(&first), "chosen by lot, another one");
    let late = asked(&mut conductor, 3 * SECOND);
    assert!(late.contains(&(READ, Priority::Demand)), "{late:?}");
    // One that has everything is not of a crowd.
    let mut conductor = with_reader();
    conductor.set_parents(vec![seed(), neighbour.clone()]);
    conductor.parent_holds(neighbour.host, &[GroupRange::new(0, 64)]);
    let asked = asked(&mut conductor, SECOND);
    assert!(is_urgent(&asked), "{asked:?}");
}

#[test]
fn a_window_that_follows_another_keeps_what_is_still_waited_for_of_that() {
    let mut conductor = with_reader();
    conductor.reads_next(GroupRange::new(20, 32));
    assert_eq!(asked_while_led(&mut conductor, SECOND), []);
    // The window is wanted, and the reader far behind it somebody else.
    conductor.reads_next(GroupRange::new(40, 16));
    assert_eq!(asked_while_led(&mut conductor, SECOND), [(READ, Priority::Demand)]);
}

#[test]
fn of_many_readers_the_latest_are_remembered() {
    let mut conductor = with_reader();
    let others = |conductor: &mut Conductor, count: u64| {
        (0..count).for_each(|n| conductor.reads_next(GroupRange::new(100 + 10 * n, 1)));
    };
    others(&mut conductor, 15);
    assert_eq!(asked_while_led(&mut conductor, SECOND), []);
    others(&mut conductor, 16);
    assert_eq!(asked_while_led(&mut conductor, SECOND), [(READ, Priority::Demand)]);
}
