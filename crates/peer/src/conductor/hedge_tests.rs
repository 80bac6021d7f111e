use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// In which a request brings what it was asked for, where nobody hangs.
const TRIP: Duration = Duration::from_millis(10);

const GROUPS: u64 = 4096;

fn host(n: u8) -> HostId {
    HostId::from_bytes([n; 16])
}

fn peer(n: u8) -> Offer {
    Offer { host: host(n), fetches: false, place: Place::Here }
}

/// A reader with parents that have everything.
fn reader(parents: &[u8]) -> Conductor {
    let length = Some(GROUPS * dfs_model::GROUP_BYTES);
    let mut conductor = Conductor::new(length, 2, GroupSet::new(), 5);
    conductor.set_parents(parents.iter().map(|n| peer(*n)).collect());
    for n in parents {
        conductor.parent_holds(host(*n), &[GroupRange::new(0, GROUPS)]);
    }
    conductor
}

/// A request of a plan: its flight, whom it asks for what, and beside which.
type Asked = (FlightId, HostId, GroupRange, Option<FlightId>);

fn asked(actions: &[Action]) -> Vec<Asked> {
    let request = |action: &Action| match action {
        Action::Request { flight, parent, groups, beside, .. } => {
            Some((*flight, *parent, *groups, *beside))
        }
        _ => None,
    };
    actions.iter().filter_map(request).collect()
}

fn read(conductor: &mut Conductor, first: u64, now: Duration) -> Asked {
    conductor.want(GroupRange::new(first, 2), Priority::Demand);
    let asked = asked(&conductor.plan(now));
    assert_eq!(asked.len(), 1, "{asked:?}");
    asked[0]
}

fn comes(conductor: &mut Conductor, (flight, _, groups, _): Asked, now: Duration) -> u64 {
    let news = conductor.arrived(flight, groups, now);
    conductor.ended(flight, None, now);
    groups.count - news.iter().map(|run| run.count).sum::<u64>()
}

/// Reads `count` times what comes in good time; when the last has come.
fn reads_well(conductor: &mut Conductor, count: u64, mut now: Duration) -> Duration {
    for at in 0..count {
        let one = read(conductor, 2 * at, now);
        now += TRIP;
        comes(conductor, one, now);
        assert_eq!(conductor.plan(now), []);
    }
    now
}

#[test]
fn what_a_reader_waits_for_too_long_is_asked_of_one_other_and_who_is_first_wins() {
    for second_wins in [true, false] {
        let mut conductor = reader(&[1, 2, 3]);
        let now = reads_well(&mut conductor, 30, SECOND);
        let first = read(&mut conductor, 100, now);
        assert_eq!(asked(&conductor.plan(now + TRIP)), [], "it may still come in time");
        let due = conductor.next_hedge(now).unwrap();
        assert!(due <= now + 2 * TRIP, "{due:?}: such requests take 10 ms");
        let hedges = asked(&conductor.plan(due));
        let [second @ (id, parent, groups, beside)] = hedges[..] else { panic!("{hedges:?}") };
        assert_eq!((groups, beside), (GroupRange::new(100, 2), Some(first.0)));
        assert_ne!(parent, first.1);
        assert_eq!(asked(&conductor.plan(due + SECOND)), [], "there is no third");
        assert_eq!(conductor.next_hedge(due), None);

        let (winner, loser) = if second_wins { (second, first.0) } else { (first, id) };
        assert_eq!(comes(&mut conductor, winner, due + TRIP), 0);
        assert_eq!(conductor.plan(due + TRIP), [Action::Cancel(loser)]);
        let won = u64::from(second_wins);
        assert_eq!(conductor.take_hedges(), HedgeCount { asked: 1, won });
        assert!(conductor.is_idle() && conductor.flying.is_empty());
        assert!(conductor.parents.iter().all(|parent| !parent.is_asked()), "nothing is left over");
    }
}

#[test]
fn who_lost_to_another_is_not_the_first_to_be_asked_for_a_while() {
    let mut conductor = reader(&[1, 2]);
    let now = reads_well(&mut conductor, 30, SECOND);
    let (_, slow, ..) = read(&mut conductor, 100, now);
    let due = conductor.next_hedge(now).unwrap();
    let second = asked(&conductor.plan(due))[0];
    comes(&mut conductor, second, due + TRIP);
    conductor.plan(due + TRIP);
    let mut now = due + TRIP;
    for at in 0..20 {
        let next = read(&mut conductor, 200 + 2 * at, now);
        assert_ne!(next.1, slow);
        now += TRIP;
        comes(&mut conductor, next, now);
    }
    now += 11 * SECOND;
    let later: Vec<HostId> = (0..2)
        .map(|at| {
            let next = read(&mut conductor, 300 + 2 * at, now);
            comes(&mut conductor, next, now + TRIP);
            now += 2 * TRIP;
            next.1
        })
        .collect();
    assert!(later.contains(&slow), "it may have woken: {later:?}");
}

#[test]
fn what_came_twice_is_told() {
    let mut conductor = reader(&[1, 2]);
    let first = read(&mut conductor, 100, SECOND);
    let second = asked(&conductor.plan(2 * SECOND))[0];
    assert_eq!(comes(&mut conductor, second, 2 * SECOND), 0);
    // It was on its way before anybody could give it up.
    assert_eq!(comes(&mut conductor, first, 2 * SECOND), 2);
    assert_eq!(conductor.plan(2 * SECOND), []);
    assert!(conductor.is_idle());
}

#[test]
fn nobody_is_asked_who_would_fetch_it_and_nothing_that_nobody_waits_for_is_asked_twice() {
    let mut conductor = reader(&[1]);
    let offers = vec![peer(1), Offer { host: host(9), fetches: true, place: Place::Here }];
    conductor.set_parents(offers);
    read(&mut conductor, 100, SECOND);
    assert_eq!(asked(&conductor.plan(5 * SECOND)), [], "the seed has not got it");
    conductor.parent_holds(host(9), &[GroupRange::new(100, 2)]);
    assert_eq!(asked(&conductor.plan(5 * SECOND)).len(), 1, "now it has");

    let mut conductor = reader(&[1, 2]);
    conductor.want(GroupRange::new(0, 64), Priority::Bulk);
    conductor.want(GroupRange::new(64, 64), Priority::ReadAhead);
    let before = asked(&conductor.plan(SECOND));
    assert!(before.len() > 1);
    let more = asked(&conductor.plan(5 * SECOND));
    assert!(more.iter().all(|(.., beside)| beside.is_none()), "{more:?}");
}

#[test]
fn a_reader_of_what_is_under_way_for_others_has_that_asked_of_another_and_what_moves_goes_on() {
    let mut conductor = reader(&[1, 2]);
    conductor.want(GroupRange::new(0, 32), Priority::ReadAhead);
    let [ahead] = asked(&conductor.plan(SECOND))[..] else { panic!() };
    conductor.arrived(ahead.0, GroupRange::new(0, 1), SECOND + TRIP);
    conductor.want(GroupRange::new(5, 1), Priority::Demand);
    assert_eq!(asked(&conductor.plan(10 * SECOND)), [], "somebody waits for it since now");
    let hedges = asked(&conductor.plan(11 * SECOND));
    let [second @ (_, _, groups, beside)] = hedges[..] else { panic!("{hedges:?}") };
    assert_eq!((groups, beside), (GroupRange::new(5, 1), Some(ahead.0)));
    comes(&mut conductor, second, 11 * SECOND);
    assert_eq!(conductor.plan(11 * SECOND), [], "30 others are still to come");
    let rest = (ahead.0, ahead.1, GroupRange::new(1, 31), None);
    assert_eq!(comes(&mut conductor, rest, 11 * SECOND), 1);
    assert!(conductor.is_idle());
}

/// A reader from front to back with read-ahead, where one of its parents hangs from the beginning: how long it takes,
/// where others bring what they are asked for at once, and how many groups were asked for twice.
fn reads_over_one_that_hangs(parents: &[u8], hangs: HostId) -> (Duration, u64) {
    const AHEAD: u64 = 128;
    let mut conductor = reader(parents);
    let mut now = reads_well(&mut conductor, 30, SECOND);
    let (mut twice, began) = (0, now);
    for at in (60..GROUPS).step_by(2) {
        conductor.want(GroupRange::new(at, 2), Priority::Demand);
        conductor.want(GroupRange::new(at + 2, AHEAD), Priority::ReadAhead);
        while !conductor.have.contains_all(GroupRange::new(at, 2)) {
            let asked = asked(&conductor.plan(now));
            let beside = asked.iter().filter(|(.., beside)| beside.is_some());
            twice += beside.map(|(_, _, groups, _)| groups.count).sum::<u64>();
            let come: Vec<Asked> = asked.into_iter().filter(|one| one.1 != hangs).collect();
            now = match come.is_empty() {
                true => conductor.next_hedge(now).expect("it waits for ever").max(now),
                false => now + TRIP,
            };
            for one in come {
                comes(&mut conductor, one, now);
            }
            assert!(now < began + 20 * SECOND, "at {at}");
        }
    }
    (now - began, twice)
}

#[test]
fn a_reader_from_front_to_back_waits_for_each_request_to_a_parent_that_hangs_once_and_not_long() {
    let (took, twice) = reads_over_one_that_hangs(&[1, 2, 3], host(1));
    let (good, _) = reads_over_one_that_hangs(&[1, 2, 3], host(9));
    assert!(took < 2 * good + SECOND, "{took:?}, {good:?} where none hangs");
    assert!(twice > 0 && twice <= 64 + GROUPS / 20, "{twice}");
}

#[test]
fn what_is_asked_of_another_one_instead_is_not_asked_twice() {
    let mut conductor = reader(&[1, 2]);
    for at in 0..20 {
        // Long after the last time: whether it still hangs is not known.
        let now = 20 * SECOND * (at + 1);
        let run = GroupRange::new(16 * u64::from(at), 16);
        conductor.want(run, Priority::Demand);
        let [first] = asked(&conductor.plan(now))[..] else { panic!() };
        assert_eq!(first.1, host(1));
        let hedges = asked(&conductor.plan(now + SECOND));
        let [second] = hedges[..] else { panic!("{hedges:?} after {at}") };
        comes(&mut conductor, second, now + SECOND);
        assert_eq!(conductor.plan(now + SECOND), [Action::Cancel(first.0)]);
    }
}

#[test]
fn who_brought_something_and_hangs_then_is_given_up_the_second_time_that_it_loses() {
    let mut conductor = reader(&[1, 2, 3]);
    conductor.want(GroupRange::new(0, 32), Priority::ReadAhead);
    let [ahead] = asked(&conductor.plan(SECOND))[..] else { panic!() };
    conductor.arrived(ahead.0, GroupRange::new(0, 1), SECOND + TRIP);
    for at in 1..3 {
        let now = (10 * at as u32) * SECOND;
        conductor.want(GroupRange::new(at, 1), Priority::Demand);
        assert_eq!(asked(&conductor.plan(now)), []);
        let hedges = asked(&conductor.plan(now + SECOND));
        let [second @ (.., beside)] = hedges[..] else { panic!("{hedges:?}") };
        assert_eq!(beside, Some(ahead.0), "it is hedged in its turn");
        comes(&mut conductor, second, now + SECOND);
        let actions = conductor.plan(now + SECOND);
        assert_eq!(actions.contains(&Action::Cancel(ahead.0)), at == 2, "{actions:?}");
        let rest: u64 = asked(&actions).iter().map(|(_, _, groups, _)| groups.count).sum();
        assert_eq!(rest, if at == 2 { 29 } else { 0 }, "others are asked for it");
    }
}

#[test]
fn a_second_one_that_stops_in_the_middle_is_too_long_in_its_turn() {
    let mut conductor = reader(&[1, 2, 3]);
    let first = read(&mut conductor, 100, SECOND);
    let second = asked(&conductor.plan(2 * SECOND))[0];
    conductor.arrived(second.0, GroupRange::new(100, 1), 2 * SECOND);
    assert_eq!(conductor.plan(2 * SECOND), [Action::Cancel(first.0)]);
    let due = conductor.next_hedge(2 * SECOND).unwrap();
    let hedges = asked(&conductor.plan(due));
    let [(_, third, groups, beside)] = hedges[..] else { panic!("{hedges:?}") };
    assert_eq!((groups, beside), (GroupRange::new(101, 1), Some(second.0)));
    assert_ne!(third, second.1);
}

#[test]
fn a_seed_that_has_it_no_more_is_not_to_fetch_it_beside_another_and_is_asked_for_other_things() {
    let mut conductor = reader(&[1]);
    conductor
        .set_parents(vec![peer(1), Offer { host: host(9), fetches: true, place: Place::Here }]);
    conductor.parent_holds(host(9), &[GroupRange::new(100, 2)]);
    let first = read(&mut conductor, 100, SECOND);
    assert_eq!(first.1, host(1));
    let second = asked(&conductor.plan(2 * SECOND))[0];
    assert!(conductor.is_beside(second.0) && !conductor.is_beside(first.0));
    conductor.ended(second.0, Some(Failure::NotHeld), 2 * SECOND);
    assert_eq!(conductor.plan(2 * SECOND), [], "it does not have it");
    let seed = conductor.parents.iter().find(|parent| parent.host == host(9)).unwrap();
    assert!(seed.may_be_asked(2 * SECOND) && !seed.is_failing());
}

#[test]
fn how_long_a_busy_seed_waits_for_the_origin_says_nothing_of_when_others_are_too_long() {
    let mut conductor = reader(&[1, 2]);
    conductor.set_parents(vec![
        peer(1),
        peer(2),
        Offer { host: host(9), fetches: true, place: Place::Here },
    ]);
    let mut now = reads_well(&mut conductor, 30, SECOND);
    conductor.set_parents(vec![Offer { host: host(9), fetches: true, place: Place::Here }]);
    conductor.want(GroupRange::new(2000, 64), Priority::ReadAhead);
    let ahead = asked(&conductor.plan(now));
    assert!(!ahead.is_empty(), "it has something else to do");
    for at in 0..60 {
        let one = read(&mut conductor, 1000 + 2 * at, now);
        now += SECOND;
        comes(&mut conductor, one, now);
        conductor.plan(now);
    }
    conductor.forget(GroupRange::new(0, GROUPS));
    conductor.set_parents(vec![peer(1), peer(2)]);
    conductor.parent_holds(host(1), &[GroupRange::new(0, GROUPS)]);
    read(&mut conductor, 3000, now);
    assert!(conductor.next_hedge(now).unwrap() <= now + 2 * TRIP);
}

/// A reader that takes what is leased to it from front to back, with the lease of a parent that hangs; another one has
/// the first of it.
fn leased_by_one_that_hangs(held: GroupRange) -> (Conductor, FlightId, Asked) {
    let mut conductor = reader(&[1]);
    conductor.set_parents(vec![peer(1), peer(2)]);
    conductor.parent_holds(host(2), &[held]);
    let run = GroupRange::new(0, 4);
    conductor.want(run, Priority::Bulk);
    conductor.lease(7, host(1), run, SECOND);
    let [leased] = asked(&conductor.plan(SECOND))[..] else { panic!() };
    conductor.want(run, Priority::Demand);
    assert_eq!(asked(&conductor.plan(SECOND)), []);
    let [second] = asked(&conductor.plan(2 * SECOND))[..] else { panic!() };
    assert_eq!((second.2, second.3), (held, Some(leased.0)));
    (conductor, leased.0, second)
}

#[test]
fn what_a_second_one_brought_of_a_lease_is_not_to_the_credit_of_who_was_to_give_it() {
    let (mut conductor, leased, second) = leased_by_one_that_hangs(GroupRange::new(0, 4));
    assert_eq!(comes(&mut conductor, second, 2 * SECOND), 0);
    assert_eq!(conductor.plan(2 * SECOND), [Action::Cancel(leased)]);
    let [end] = &conductor.take_lease_ends()[..] else { panic!() };
    assert_eq!(end.outcome, LeaseOutcome::Held);

    let (mut conductor, leased, second) = leased_by_one_that_hangs(GroupRange::new(0, 2));
    comes(&mut conductor, second, 2 * SECOND);
    assert_eq!(conductor.plan(2 * SECOND), [], "half of it is still to come");
    assert_eq!(
        conductor.arrived(leased, GroupRange::new(0, 4), 3 * SECOND),
        [GroupRange::new(2, 2)]
    );
    conductor.ended(leased, None, 3 * SECOND);
    conductor.plan(3 * SECOND);
    let [end] = &conductor.take_lease_ends()[..] else { panic!() };
    assert_eq!((end.outcome, &end.here[..]), (LeaseOutcome::Part, &[GroupRange::new(2, 2)][..]));
}

#[test]
fn where_one_of_two_fails_the_other_one_brings_it() {
    for (fails, brings) in [(0, 1), (1, 0)] {
        let mut conductor = reader(&[1, 2]);
        let first = read(&mut conductor, 100, SECOND);
        let second = asked(&conductor.plan(2 * SECOND))[0];
        let both = [first, second];
        conductor.ended(both[fails].0, Some(Failure::Timeout), 2 * SECOND);
        assert_eq!(conductor.plan(2 * SECOND), [], "it is under way");
        comes(&mut conductor, both[brings], 3 * SECOND);
        assert!(conductor.is_idle());
        assert_eq!(conductor.plan(3 * SECOND), []);
    }
}

#[test]
fn of_what_readers_got_a_twentieth_is_asked_twice_at_most() {
    let mut conductor = reader(&[1, 2, 3, 4]);
    let mut now = SECOND;
    let (mut got, mut twice) = (0, 0);
    for at in 0..GROUPS / 2 {
        // Nobody answers in time, ever.
        let first = read(&mut conductor, 2 * at, now);
        now += 2 * SECOND;
        let hedges = asked(&conductor.plan(now));
        twice += hedges.iter().map(|(_, _, groups, _)| groups.count).sum::<u64>();
        comes(&mut conductor, first, now);
        got += first.2.count;
        conductor.plan(now);
    }
    let most = 64 + got / 20;
    assert!(twice > most / 2 && twice <= most, "{twice} of {got}");
}

#[test]
fn of_holders_the_one_is_asked_that_answers_soonest_and_of_a_queue_the_shorter() {
    let mut conductor = reader(&[1, 2]);
    let takes = |parent| match parent {
        parent if parent == host(1) => Duration::from_millis(80),
        _ => Duration::from_millis(8),
    };
    let mut now = SECOND;
    let mut asked_whom = Vec::new();
    for at in 0..10 {
        let one = read(&mut conductor, 2 * at, now);
        now += takes(one.1);
        comes(&mut conductor, one, now);
        conductor.plan(now);
        asked_whom.push(one.1);
    }
    assert_eq!(asked_whom[2..], [host(2); 8], "{asked_whom:?}");
    // So much is asked of the near one that the far one is the sooner.
    conductor.want(GroupRange::new(100, 400), Priority::ReadAhead);
    let spread: Vec<HostId> = asked(&conductor.plan(now)).iter().map(|one| one.1).collect();
    assert_eq!(spread[0], host(2));
    assert!(spread.contains(&host(1)), "{spread:?}");
}

#[test]
fn of_many_holders_other_four_are_compared_each_time() {
    let all: Vec<u8> = (1..=40).collect();
    let mut conductor = reader(&all);
    let mut whom: Vec<HostId> = Vec::new();
    for at in 0..40 {
        let one = read(&mut conductor, 2 * at, SECOND);
        comes(&mut conductor, one, SECOND + TRIP);
        whom.push(one.1);
    }
    whom.sort();
    whom.dedup();
    assert!(whom.len() >= 5, "{whom:?}");
}

#[test]
fn how_long_a_seed_takes_to_fetch_is_measured_and_no_constant() {
    let mut conductor = reader(&[1]);
    conductor.set_parents(vec![Offer { host: host(9), fetches: true, place: Place::Here }]);
    let mut now = SECOND;
    for at in 0..4 {
        let one = read(&mut conductor, 2 * at, now);
        now += SECOND;
        comes(&mut conductor, one, now);
        conductor.parent_holds(host(9), &[one.2]);
        conductor.plan(now);
    }
    conductor
        .set_parents(vec![peer(1), Offer { host: host(9), fetches: true, place: Place::Here }]);
    conductor.parent_holds(host(1), &[GroupRange::new(0, GROUPS)]);
    // Much is asked of the neighbour: so little that a seed which fetched at once would be preferred.
    conductor.want(GroupRange::new(1000, 32), Priority::ReadAhead);
    let ahead = asked(&conductor.plan(now));
    assert_eq!(ahead.iter().map(|one| one.1).collect::<Vec<_>>(), [host(1)]);
    assert_eq!(read(&mut conductor, 500, now).1, host(1), "a second would pass at the seed");
}
