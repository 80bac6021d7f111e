//! Leases, case by case.

use super::leases::LATE_AFTER;
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const ALL: GroupRange = GroupRange { first: 0, count: 8 };
const HALF: GroupRange = GroupRange { first: 0, count: 4 };

fn host(n: u8) -> HostId {
    HostId::from_bytes([n; 16])
}

/// A download that wants all of eight groups in any order, has said so, and is led since the first second.
fn led() -> Conductor {
    let length = 8 * dfs_model::GROUP_BYTES;
    let mut conductor = Conductor::new(Some(length), 2, GroupSet::new(), 5);
    conductor.want(ALL, Priority::Bulk);
    assert_eq!(conductor.news_of_any_order(), Some(GroupSet::full(8)));
    conductor.lead(SECOND);
    conductor
}

fn flights(actions: &[Action]) -> Vec<(FlightId, HostId, GroupRange)> {
    let of = |action: &Action| match action {
        Action::Request { flight, parent, groups, .. } => Some((*flight, *parent, *groups)),
        _ => None,
    };
    actions.iter().filter_map(of).collect()
}

fn ends(conductor: &mut Conductor) -> Vec<(u64, LeaseOutcome)> {
    conductor.take_lease_ends().iter().map(|end| (end.id, end.outcome)).collect()
}

#[test]
fn a_lease_is_asked_of_its_parent_and_ends_when_all_of_it_is_here() {
    let mut conductor = led();
    conductor.set_parents(vec![Offer { host: host(1), fetches: true, place: Place::Here }]);
    assert_eq!(conductor.plan(SECOND), [], "it is told whose turn it is");
    conductor.lease(7, host(2), HALF, SECOND);
    let [(flight, parent, groups)] = flights(&conductor.plan(SECOND))[..] else { panic!() };
    assert_eq!((parent, groups), (host(2), HALF));
    conductor.arrived(flight, HALF, SECOND);
    assert_eq!(ends(&mut conductor), []);
    conductor.ended(flight, None, SECOND);
    conductor.plan(SECOND);
    assert_eq!(ends(&mut conductor), [(7, LeaseOutcome::Whole)]);
    assert_eq!(conductor.news_of_any_order(), None, "what came is no news");
}

#[test]
fn a_lease_of_what_is_under_way_waits_for_it_and_asks_for_it_where_it_does_not_come() {
    for comes in [true, false] {
        let mut conductor = led();
        conductor.set_parents(vec![Offer { host: host(1), fetches: true, place: Place::Here }]);
        conductor.want(HALF, Priority::Demand);
        let [(demanded, ..)] = flights(&conductor.plan(SECOND))[..] else { panic!() };
        conductor.lease(7, host(2), HALF, SECOND);
        assert_eq!(flights(&conductor.plan(SECOND)), [], "a group is in one flight");
        assert_eq!((ends(&mut conductor), conductor.news_of_any_order()), (vec![], None));
        if comes {
            conductor.arrived(demanded, HALF, SECOND);
        }
        conductor.ended(demanded, (!comes).then_some(Failure::Disconnected), SECOND);
        let asked = flights(&conductor.plan(SECOND));
        if comes {
            assert_eq!(ends(&mut conductor), [(7, LeaseOutcome::Held)], "nobody's credit");
        } else {
            assert!(asked.iter().all(|(_, parent, groups)| (*parent, *groups) == (host(2), HALF)));
            assert_eq!(asked.len(), 1, "{asked:?}");
        }
        assert_eq!(conductor.news_of_any_order(), None);
    }
}

#[test]
fn what_was_asked_for_by_own_choice_gives_way_to_a_lease_once_it_brings_nothing_unless_a_reader_waits_for_it()
 {
    for is_read in [false, true] {
        let mut conductor = led();
        conductor.release();
        conductor.set_parents(vec![Offer { host: host(1), fetches: true, place: Place::Here }]);
        if is_read {
            conductor.want(ALL, Priority::Demand);
        }
        let own = flights(&conductor.plan(SECOND));
        let own = own.iter().find(|(.., groups)| groups.contains(0)).map(|(flight, ..)| *flight);
        let own = own.expect("it chooses");
        conductor.lease(7, host(2), HALF, SECOND);
        let later = SECOND + LATE_AFTER;
        conductor.arrived(own, GroupRange::new(0, 1), SECOND + LATE_AFTER / 2);
        assert_eq!(flights(&conductor.plan(later)), [], "something of it has just come");
        let actions = conductor.plan(SECOND + 2 * LATE_AFTER);
        let given_up = actions.contains(&Action::Cancel(own));
        let asked: Vec<(HostId, GroupRange)> =
            flights(&actions).iter().map(|(_, parent, groups)| (*parent, *groups)).collect();
        match is_read {
            true => assert!(!given_up && asked.is_empty(), "{actions:?}"),
            false => {
                assert!(given_up, "{actions:?}");
                assert_eq!(asked, [(host(2), GroupRange::new(1, 3))]);
            }
        }
    }
}

#[test]
fn a_lease_brings_what_is_wanted_of_it_and_no_more() {
    let length = 8 * dfs_model::GROUP_BYTES;
    let mut conductor = Conductor::new(Some(length), 2, GroupSet::new(), 5);
    let wanted = GroupRange::new(1, 2);
    conductor.want(wanted, Priority::Prefetch);
    conductor.lease(7, host(2), HALF, SECOND);
    let [(flight, _, groups)] = flights(&conductor.plan(SECOND))[..] else { panic!() };
    assert_eq!(groups, wanted);
    conductor.arrived(flight, wanted, SECOND);
    conductor.ended(flight, None, SECOND);
    conductor.plan(SECOND);
    let end = conductor.take_lease_ends().pop().unwrap();
    assert_eq!((end.outcome, &end.here[..]), (LeaseOutcome::Part, &[wanted][..]));
}

#[test]
fn what_nobody_wants_any_more_is_given_back_and_news_when_it_is_wanted_again() {
    let mut conductor = led();
    conductor.forget(ALL);
    conductor.lease(7, host(2), HALF, SECOND);
    assert_eq!(conductor.plan(SECOND), []);
    assert_eq!(ends(&mut conductor), [(7, LeaseOutcome::Unwanted)]);
    conductor.news_of_any_order();
    conductor.want(HALF, Priority::Bulk);
    assert!(conductor.news_of_any_order().is_some());
}

#[test]
fn a_lease_that_is_taken_back_is_cancelled_and_what_came_of_it_is_told() {
    let mut conductor = led();
    conductor.lease(7, host(2), HALF, SECOND);
    let [(flight, ..)] = flights(&conductor.plan(SECOND))[..] else { panic!() };
    let first = GroupRange::new(0, 1);
    conductor.arrived(flight, first, SECOND);
    assert_eq!(conductor.withdraw(7, SECOND), [Action::Cancel(flight)]);
    let end = conductor.take_lease_ends().pop().unwrap();
    assert_eq!((end.outcome, &end.here[..]), (LeaseOutcome::Withdrawn, &[first][..]));
    assert_eq!(conductor.flights(), 0);
}

#[test]
fn leases_that_fail_promise_nothing_until_one_brings_something() {
    let mut conductor = led();
    let lease = |conductor: &mut Conductor, id| {
        conductor.lease(id, host(2), HALF, SECOND);
        flights(&conductor.plan(SECOND))[0].0
    };
    let first = lease(&mut conductor, 1);
    assert!(conductor.is_promising());
    conductor.ended(first, Some(Failure::Timeout), SECOND);
    conductor.plan(SECOND);
    assert_eq!(ends(&mut conductor), [(1, LeaseOutcome::Failed(Failure::Timeout))]);
    let second = lease(&mut conductor, 2);
    assert!(!conductor.is_promising(), "asked again, after a failure");
    conductor.arrived(second, GroupRange::new(0, 1), SECOND);
    assert!(conductor.is_promising());
    conductor.withdraw(2, SECOND);
    lease(&mut conductor, 3);
    assert!(!conductor.is_promising(), "it was taken back for want of an answer");
}

#[test]
fn who_hears_nothing_for_two_seconds_chooses_for_itself() {
    let mut conductor = led();
    conductor.set_parents(vec![Offer { host: host(1), fetches: true, place: Place::Here }]);
    assert_eq!(conductor.plan(3 * SECOND - Duration::from_millis(1)), []);
    assert!(!flights(&conductor.plan(3 * SECOND)).is_empty());
}

#[test]
fn what_turned_out_damaged_is_wanted_anew_from_whoever_leases() {
    let mut conductor = led();
    conductor.here(ALL);
    assert_eq!(conductor.news_of_any_order(), None);
    assert_eq!(conductor.lost(HALF), [HALF]);
    assert_eq!(conductor.lost(HALF), [], "once");
    conductor.want(HALF, Priority::Bulk);
    let wanted = conductor.news_of_any_order().unwrap();
    assert_eq!(wanted.ranges().collect::<Vec<_>>(), [HALF]);
}

#[test]
fn more_runs_than_a_message_takes_are_told_as_they_come() {
    let groups = 20_000;
    let length = groups * dfs_model::GROUP_BYTES;
    let mut conductor = Conductor::new(Some(length), 2, GroupSet::new(), 5);
    (0..groups).step_by(2).for_each(|at| {
        conductor.want(GroupRange::new(at, 1), Priority::Prefetch);
    });
    let mut told = GroupSet::new();
    let mut messages = 0;
    while let Some(wanted) = conductor.news_of_any_order() {
        assert!(wanted.ranges().count() <= 4096);
        wanted.ranges().for_each(|run| conductor.here(run));
        told.insert_all(&wanted);
        messages += 1;
    }
    assert_eq!((told.len(), messages), (groups / 2, 3));
}

#[test]
fn who_doubts_leases_chooses_for_itself_for_two_seconds_whatever_it_hears() {
    let mut conductor = led();
    conductor.set_parents(vec![Offer { host: host(1), fetches: true, place: Place::Here }]);
    assert!(conductor.mute_parents().is_empty(), "nobody was asked");
    conductor.doubt_leases(SECOND);
    assert!(!flights(&conductor.plan(SECOND)).is_empty());
    assert_eq!(conductor.mute_parents(), [host(1)]);
    conductor.lead(2 * SECOND);
    assert!(!conductor.is_led(3 * SECOND - Duration::from_millis(1)));
    assert!(conductor.is_led(3 * SECOND));
}
