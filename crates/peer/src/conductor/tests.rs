use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn host(n: u8) -> HostId {
    HostId::from_bytes([n; 16])
}

fn peer(n: u8) -> Offer {
    Offer { host: host(n), fetches: false, place: Place::Here }
}

fn seed(n: u8) -> Offer {
    Offer { host: host(n), fetches: true, place: Place::Here }
}

fn conductor(groups: u64) -> Conductor {
    Conductor::new(Some(groups * dfs_model::GROUP_BYTES), 2, GroupSet::new(), 5)
}

fn requests(actions: &[Action]) -> Vec<(HostId, GroupRange)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Request { parent, groups, .. } => Some((*parent, *groups)),
            _ => None,
        })
        .collect()
}

#[test]
fn however_many_ask_a_group_is_fetched_once() {
    let mut conductor = conductor(8);
    conductor.set_parents(vec![seed(1)]);
    conductor.want(GroupRange::new(2, 1), Priority::Demand);
    assert_eq!(requests(&conductor.plan(SECOND)), [(host(1), GroupRange::new(2, 1))]);
    conductor.want(GroupRange::new(2, 1), Priority::Demand);
    conductor.want(GroupRange::new(2, 1), Priority::Bulk);
    assert!(conductor.plan(SECOND).is_empty());
}

#[test]
fn a_neighbour_that_holds_is_asked_before_a_seed_that_must_fetch() {
    let mut conductor = conductor(8);
    conductor.set_parents(vec![seed(1), peer(2)]);
    conductor.parent_holds(host(2), &[GroupRange::new(0, 4)]);
    conductor.want(GroupRange::new(0, 8), Priority::Demand);
    let asked = requests(&conductor.plan(SECOND));
    assert_eq!(asked, [(host(2), GroupRange::new(0, 4)), (host(1), GroupRange::new(4, 4))]);
}

#[test]
fn what_nobody_known_has_signed_is_not_asked_for_again_until_somebody_may_have() {
    let mut conductor = conductor(8);
    conductor.set_parents(vec![peer(1)]);
    let (all, some) = (GroupRange::new(0, 8), GroupRange::new(2, 2));
    conductor.parent_holds(host(1), &[all]);
    conductor.want(all, Priority::Demand);
    let first = flights(&conductor.plan(SECOND))[0];
    conductor.ended(first, Some(Failure::Unvouched), SECOND);
    assert_eq!(requests(&conductor.plan(2 * SECOND)), []);
    conductor.are_vouched_for(some);
    let actions = conductor.plan(2 * SECOND);
    assert_eq!(requests(&actions), [(host(1), some)]);
    assert!(!conductor.is_promising(), "it has brought nothing since it failed");
    conductor.ended(flights(&actions)[0], Some(Failure::Unvouched), 2 * SECOND);
    assert_eq!(requests(&conductor.plan(11 * SECOND)), []);
    assert_eq!(requests(&conductor.plan(12 * SECOND)), [(host(1), all)], "it is tried in any case");
}

#[test]
fn an_origin_that_fails_makes_no_bad_parent_of_the_seed_and_who_asks_anew_has_it_tried_anew() {
    let mut conductor = conductor(8);
    conductor.set_parents(vec![seed(1)]);
    let groups = GroupRange::new(0, 4);
    for round in 1..=5 {
        conductor.want(groups, Priority::Demand);
        let now = SECOND * round;
        assert_eq!(requests(&conductor.plan(now)), [(host(1), groups)], "round {round}");
        let flight = *conductor.flights.keys().next().unwrap();
        conductor.ended(flight, Some(Failure::OriginFailed), now);
        conductor.want(groups, Priority::Demand);
        assert_eq!(requests(&conductor.plan(now)), [], "nobody has asked anew");
        assert!(conductor.bad.is_empty());
        conductor.forgive(groups);
    }
}

#[test]
fn one_who_failed_promises_nothing_until_they_bring_something() {
    let mut conductor = conductor(8);
    conductor.set_parents(vec![seed(1)]);
    conductor.want(GroupRange::new(0, 4), Priority::Demand);
    let first = flights(&conductor.plan(SECOND))[0];
    assert!(conductor.is_promising());
    conductor.ended(first, Some(Failure::Disconnected), 2 * SECOND);
    assert!(!conductor.is_promising(), "nobody is asked");
    let second = flights(&conductor.plan(4 * SECOND))[0];
    assert!(!conductor.is_promising(), "asked again, after a failure");
    conductor.arrived(second, GroupRange::new(0, 1), 4 * SECOND);
    assert!(conductor.is_promising());
}

#[test]
fn bulk_takes_the_rarest_first() {
    let mut conductor = conductor(64).with_limits(Limits { parent_window: 4, ..Limits::default() });
    conductor.set_parents(vec![peer(1), peer(2)]);
    conductor.parent_holds(host(1), &[GroupRange::new(0, 64)]);
    conductor.parent_holds(host(2), &[GroupRange::new(0, 60)]);
    conductor.want(GroupRange::new(0, 64), Priority::Bulk);
    let asked = requests(&conductor.plan(SECOND));
    assert!(asked.contains(&(host(1), GroupRange::new(60, 4))), "{asked:?}");
}

#[test]
fn what_somebody_near_has_is_asked_of_nobody_elsewhere() {
    let mut conductor = conductor(64);
    let far = |n| Offer { place: Place::Elsewhere, ..peer(n) };
    conductor.set_parents(vec![far(1), peer(2)]);
    conductor.parent_holds(host(1), &[GroupRange::new(0, 64)]);
    conductor.parent_holds(host(2), &[GroupRange::new(0, 40)]);
    conductor.want(GroupRange::new(0, 64), Priority::Bulk);
    let of_far = |actions: &[Action]| -> Vec<GroupRange> {
        let asked = requests(actions).into_iter().filter(|(parent, _)| *parent == host(1));
        asked.map(|(_, groups)| groups).collect()
    };
    let actions = conductor.plan(SECOND);
    assert!(!of_far(&actions).is_empty());
    assert!(of_far(&actions).iter().all(|groups| groups.first >= 40), "{actions:?}");
    let near = conductor.flights.iter().find(|(_, one)| one.provider == Provider::Parent(host(2)));
    let near = *near.unwrap().0;
    conductor.ended(near, Some(Failure::Disconnected), SECOND);
    let ended: Vec<FlightId> = conductor.flights.keys().copied().collect();
    ended.into_iter().for_each(|flight| conductor.ended(flight, None, SECOND));
    assert!(of_far(&conductor.plan(SECOND)).iter().any(|groups| groups.first < 40), "it fails");
}

#[test]
fn a_near_holder_that_brings_nothing_keeps_nobody_from_who_is_elsewhere() {
    let mut conductor = conductor(64);
    conductor.set_parents(vec![Offer { place: Place::Elsewhere, ..peer(1) }, peer(2)]);
    for n in [1, 2] {
        conductor.parent_holds(host(n), &[GroupRange::new(0, 64)]);
    }
    conductor.want(GroupRange::new(0, 64), Priority::Bulk);
    let asked = |actions: Vec<Action>| asked_of(&actions, host(1));
    assert_eq!(asked(conductor.plan(SECOND)), 0);
    assert!(asked(conductor.plan(SECOND + SECOND / 2)) > 0);
}

/// One of four in a place, of whom all want everything from a seed elsewhere.
fn one_of_four(own: u8, groups: u64) -> Conductor {
    let length = Some(groups * dfs_model::GROUP_BYTES);
    let mut one = Conductor::new(length, 2, GroupSet::new(), spread_of(host(own)));
    let others = (1..=4).filter(|other| *other != own).map(peer);
    one.set_parents(others.chain([Offer { place: Place::Elsewhere, ..seed(9) }]).collect());
    one.want(GroupRange::new(0, groups), Priority::Bulk);
    one
}

/// A host and what it has asked for, of which two requests come in each round.
struct Fetcher {
    conductor: Conductor,
    asked: VecDeque<(FlightId, HostId, GroupRange)>,
}

impl Fetcher {
    fn new(conductor: Conductor) -> Self {
        Self { conductor, asked: VecDeque::new() }
    }

    fn round(&mut self, now: Duration) -> Vec<(HostId, GroupRange)> {
        for action in self.conductor.plan(now) {
            if let Action::Request { flight, parent, groups, .. } = action {
                self.asked.push_back((flight, parent, groups));
            }
        }
        let come = self.asked.drain(..self.asked.len().min(2));
        let brought = |(flight, parent, groups)| {
            self.conductor.arrived(flight, groups, now);
            self.conductor.ended(flight, None, now);
            (parent, groups)
        };
        come.map(brought).collect()
    }
}

#[test]
fn of_neighbours_each_fetches_other_pieces_from_elsewhere() {
    const GROUPS: u64 = 2048;
    let mut all: Vec<_> = (1..=4).map(|own| Fetcher::new(one_of_four(own, GROUPS))).collect();
    let (mut now, mut fetched) = (SECOND, 0);
    while !all.iter().all(|one| one.conductor.is_idle()) {
        assert!(now < 60 * SECOND, "it does not end");
        let rounds: Vec<_> = all.iter_mut().map(|one| one.round(now)).collect();
        for (from, come) in (1..).zip(rounds) {
            for (parent, groups) in come {
                fetched += if parent == host(9) { groups.count } else { 0 };
                all.iter_mut().for_each(|one| one.conductor.parent_holds(host(from), &[groups]));
            }
        }
        now += SECOND / 100;
    }
    // Whoever is done helps the others with what they are about to fetch.
    assert!((GROUPS..=GROUPS + GROUPS / 20).contains(&fetched), "{fetched}");
}

#[test]
fn what_neighbours_do_not_fetch_a_host_fetches_itself() {
    for later in [Duration::ZERO, 10 * SECOND] {
        let mut one = Fetcher::new(one_of_four(1, 256));
        one.round(SECOND);
        for _ in 0..300 {
            one.round(SECOND + later);
        }
        assert!(one.conductor.is_idle());
    }
}

/// Groups asked of a host.
fn asked_of(actions: &[Action], who: HostId) -> u64 {
    requests(actions).iter().filter(|(host, _)| *host == who).map(|(_, groups)| groups.count).sum()
}

#[test]
fn what_others_may_bring_soon_is_not_all_asked_of_the_one_who_has_it_now() {
    let limits = Limits { parent_window: 64, ..Limits::default() };
    let all = GroupRange::new(0, 256);
    let mut alone = conductor(256).with_limits(limits);
    alone.set_parents(vec![seed(1)]);
    alone.want(all, Priority::Bulk);
    assert_eq!(asked_of(&alone.plan(SECOND), host(1)), 64, "there is nobody else");

    let mut conductor = conductor(256).with_limits(limits);
    conductor.set_parents(vec![seed(1), peer(2)]);
    conductor.want(all, Priority::Bulk);
    let mut now = SECOND;
    let mut round = |takes: Duration| {
        let actions = conductor.plan(now);
        now += takes;
        for flight in flights(&actions) {
            let groups = conductor.flights[&flight].rest;
            conductor.arrived(flight, groups, now);
            conductor.ended(flight, None, now);
        }
        asked_of(&actions, host(1))
    };
    let quick = [(); 3].map(|()| round(Duration::from_millis(10)));
    assert_eq!(quick, [4, 8, 16], "it turns out to be quick");
    let late = [(); 3].map(|()| round(SECOND));
    assert_eq!(late, [32, 16, 8], "it has too much to do");
}

/// Lets a parent bring, round after round, all that it is asked for in any order; how much that is in each.
fn rounds(conductor: &mut Conductor, who: HostId, takes: impl Fn(u64) -> Duration) -> Vec<u64> {
    let mut now = SECOND;
    let round = |_| {
        let actions = conductor.plan(now);
        let asked = asked_of(&actions, who);
        now += takes(asked);
        for flight in flights(&actions) {
            let Flight { rest, provider, .. } = conductor.flights[&flight];
            if provider == Provider::Parent(who) {
                conductor.arrived(flight, rest, now);
                conductor.ended(flight, None, now);
            }
        }
        asked
    };
    (0..8).map(round).collect()
}

#[test]
fn a_parent_that_is_far_away_and_fast_is_asked_for_more_and_more() {
    let of_two = || {
        let mut conductor = conductor(4096);
        conductor.set_parents(vec![seed(1), peer(2)]);
        conductor.want(GroupRange::new(0, 4096), Priority::Bulk);
        conductor
    };
    let far = rounds(&mut of_two(), host(1), |_| Duration::from_millis(400));
    assert_eq!(far[..5], [4, 8, 16, 32, 64], "the way is not its fault");
    let slow = rounds(&mut of_two(), host(1), |groups| Duration::from_millis(400) * groups as u32);
    assert!(slow.iter().all(|asked| *asked <= 8), "{slow:?}: it would wait there");
}

#[test]
fn who_does_not_work_is_nobody_who_could_bring_it_too() {
    let mut conductor = conductor(256);
    conductor.set_parents(vec![seed(1), peer(2)]);
    conductor.parent_holds(host(2), &[GroupRange::new(0, 256)]);
    conductor.want(GroupRange::new(0, 256), Priority::Bulk);
    let actions = conductor.plan(SECOND);
    assert!(asked_of(&actions, host(1)) <= 4, "two can bring it");
    for flight in flights(&actions) {
        if conductor.flights[&flight].provider == Provider::Parent(host(2)) {
            conductor.ended(flight, Some(Failure::Disconnected), SECOND);
        }
    }
    let more = asked_of(&conductor.plan(SECOND), host(1));
    assert!(more > 100, "{more}: there is nobody else");
}

#[test]
fn what_has_no_known_end_is_asked_for_from_its_beginning() {
    // Another number would begin in the middle.
    let mut conductor = Conductor::new(None, 4, GroupSet::new(), 100);
    conductor.set_parents(vec![seed(1), peer(2)]);
    conductor.parent_holds(host(2), &[GroupRange::new(0, 16)]);
    conductor.want(GroupRange::new(0, 256), Priority::Bulk);
    let mut asked = GroupSet::new();
    for (_, groups) in requests(&conductor.plan(SECOND)) {
        asked.insert_range(groups);
    }
    assert_eq!(asked.ranges().next().map(|run| run.first), Some(0), "{asked:?}");
    assert_eq!(asked.ranges().count(), 1, "{asked:?}");
}

#[test]
fn what_a_liar_sent_is_asked_of_somebody_else_and_of_the_liar_never_again() {
    let mut conductor = conductor(2);
    conductor.set_parents(vec![peer(1), peer(2)]);
    for n in [1, 2] {
        conductor.parent_holds(host(n), &[GroupRange::new(0, 2)]);
    }
    conductor.want(GroupRange::new(0, 2), Priority::Demand);
    let actions = conductor.plan(SECOND);
    let [Action::Request { flight, parent, .. }] = actions[..] else { panic!("{actions:?}") };
    conductor.ended(flight, Some(Failure::BadDigest), SECOND);
    let again = requests(&conductor.plan(100 * SECOND));
    assert_eq!(again.len(), 1);
    assert_ne!(again[0].0, parent);
}

/// The flights that a plan begins.
fn flights(actions: &[Action]) -> Vec<FlightId> {
    let flight = |action: &Action| match action {
        Action::Request { flight, .. } => Some(*flight),
        _ => None,
    };
    actions.iter().filter_map(flight).collect()
}

#[test]
fn a_connection_that_breaks_under_many_requests_is_one_failure() {
    let mut conductor = conductor(1024).with_limits(Limits { request: 1, ..Limits::default() });
    conductor.set_parents(vec![seed(1)]);
    conductor.want(GroupRange::new(0, 1024), Priority::Bulk);
    let under_way = flights(&conductor.plan(SECOND));
    assert!(under_way.len() > 100);
    for flight in under_way {
        conductor.ended(flight, Some(Failure::Disconnected), SECOND);
    }
    assert_eq!(conductor.plan(SECOND), [], "paused, but not given up");
    let soon = SECOND + Duration::from_millis(100);
    assert!(requests(&conductor.plan(soon)).len() > 100);
}

#[test]
fn bulk_requests_grow_with_the_rate_of_a_parent() {
    let limits = Limits { parent_window: 128, request: 64, ..Limits::default() };
    let mut conductor = conductor(8192).with_limits(limits);
    conductor.set_parents(vec![seed(1)]);
    conductor.want(GroupRange::new(0, 8192), Priority::Bulk);
    let mut sizes = Vec::new();
    let mut now = SECOND;
    // 8 MiB in 10 ms, then in 1 s.
    for took in [Duration::from_millis(10); 20].into_iter().chain([SECOND; 20]) {
        let actions = conductor.plan(now);
        let asked = requests(&actions);
        sizes.push(asked.iter().map(|(_, groups)| groups.count).max().unwrap_or(0));
        now += took;
        for (at, (flight, (_, groups))) in flights(&actions).into_iter().zip(asked).enumerate() {
            // What comes first says how far it is, what follows how fast.
            let at = if at == 0 { now - took } else { now };
            conductor.arrived(flight, groups, at);
            conductor.ended(flight, None, at);
        }
    }
    assert!(sizes[0] < sizes[19], "{sizes:?}");
    assert_eq!((sizes[19], sizes[39]), (64, 4), "a piece is 4 groups: {sizes:?}");
}

#[test]
fn the_source_is_read_in_runs_joined_over_small_gaps() {
    let mut conductor = conductor(1000);
    conductor.set_source(SourceAccess::Ranges);
    conductor.want(GroupRange::new(0, 3), Priority::Demand);
    conductor.want(GroupRange::new(5, 3), Priority::ReadAhead);
    conductor.want(GroupRange::new(100, 1), Priority::Bulk);
    let runs: Vec<_> = conductor
        .plan(SECOND)
        .into_iter()
        .map(|action| match action {
            Action::ReadSource { groups, .. } => groups,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(runs, [Some(GroupRange::new(0, 8)), Some(GroupRange::new(100, 1))]);
}

#[test]
fn the_source_is_not_read_for_what_a_parent_can_give() {
    let mut conductor = conductor(4);
    conductor.set_parents(vec![peer(1)]);
    conductor.parent_holds(host(1), &[GroupRange::new(0, 2)]);
    conductor.set_source(SourceAccess::Ranges);
    conductor.want(GroupRange::new(0, 4), Priority::Demand);
    let actions = conductor.plan(SECOND);
    assert_eq!(requests(&actions), [(host(1), GroupRange::new(0, 2))]);
    assert!(actions.iter().any(|action| matches!(
        action,
        Action::ReadSource { groups: Some(run), .. } if *run == GroupRange::new(2, 2)
    )));
}

#[test]
fn a_source_without_ranges_is_read_in_one_stream() {
    let mut conductor = Conductor::new(None, 0, GroupSet::new(), 0);
    conductor.set_source(SourceAccess::Sequential);
    conductor.want(GroupRange::new(3, 1), Priority::Demand);
    let actions = conductor.plan(SECOND);
    let [Action::ReadSource { flight, groups: None, .. }] = actions[..] else {
        panic!("{actions:?}")
    };
    for group in 0..3 {
        conductor.arrived(flight, GroupRange::new(group, 1), SECOND);
        assert!(conductor.plan(SECOND).is_empty());
    }
    conductor.arrived(flight, GroupRange::new(3, 1), SECOND);
    conductor.set_length(4 * dfs_model::GROUP_BYTES);
    conductor.ended(flight, None, SECOND);
    assert!(conductor.is_idle());
}

#[test]
fn a_parent_that_is_taken_away_loses_its_flights_and_others_take_over() {
    let mut conductor = conductor(4);
    conductor.set_parents(vec![seed(1)]);
    conductor.want(GroupRange::new(0, 4), Priority::Demand);
    let first = conductor.plan(SECOND);
    assert_eq!(requests(&first).len(), 1);
    let cancelled = conductor.set_parents(vec![seed(2)]);
    assert!(matches!(cancelled[..], [Action::Cancel(_)]));
    assert_eq!(requests(&conductor.plan(SECOND)), [(host(2), GroupRange::new(0, 4))]);
}

#[test]
fn what_a_seed_has_read_is_taken_before_what_it_has_not() {
    let mut conductor = conductor(64);
    conductor.set_parents(vec![Offer { host: host(9), fetches: true, place: Place::Here }]);
    // Few of many: none of them is near where it begins.
    let read = GroupRange::new(40, 4);
    conductor.parent_holds(host(9), &[read]);
    conductor.want(GroupRange::new(0, 64), Priority::Bulk);
    let asked = requests(&conductor.plan(SECOND));
    assert_eq!(asked[0].1, read, "{asked:?}");
    assert!(asked.len() > 1, "the rest is read for it");
}

#[test]
fn with_nobody_to_ask_it_asks_for_parents_after_a_second_and_then_once_a_second() {
    let mut conductor = conductor(4);
    conductor.want(GroupRange::new(0, 1), Priority::Demand);
    assert!(conductor.plan(SECOND).is_empty());
    assert!(matches!(conductor.plan(2 * SECOND)[..], [Action::AskForParents { .. }]));
    assert!(conductor.plan(2 * SECOND).is_empty());
    assert!(matches!(conductor.plan(3 * SECOND)[..], [Action::AskForParents { .. }]));
}

#[derive(Debug, Clone)]
enum Step {
    Want(u64, u64, u8),
    Arrive(usize, u64),
    /// Nothing happens for so many milliseconds.
    Wait(u64),
    Fail(usize, u8),
    Hold(u8, u64, u64),
    Parents(u8),
    /// The cache is full: from now on only this is wanted.
    Full(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..64u64, 1..16u64, 0..5u8).prop_map(|(a, n, p)| Step::Want(a, n, p)),
        (0..16usize, 1..8u64).prop_map(|(f, n)| Step::Arrive(f, n)),
        (0..1500u64).prop_map(Step::Wait),
        (0..16usize, 0..8u8).prop_map(|(f, k)| Step::Fail(f, k)),
        (0..4u8, 0..64u64, 1..32u64).prop_map(|(p, a, n)| Step::Hold(p, a, n)),
        any::<u8>().prop_map(Step::Parents),
        (0..64u64, 1..16u64).prop_map(|(a, n)| Step::Full(a, n)),
    ]
}

fn failure(kind: u8) -> Failure {
    [
        Failure::NotHeld,
        Failure::Unvouched,
        Failure::Busy,
        Failure::Disconnected,
        Failure::Timeout,
        Failure::BadDigest,
        Failure::OriginFailed,
        Failure::Other,
    ][usize::from(kind)]
}

/// What a correct shell would know: flights under way, what is left of each, and whom they ask.
#[derive(Default)]
struct Model {
    flying: HashMap<FlightId, GroupRange>,
    order: Vec<FlightId>,
    parents: HashMap<FlightId, HostId>,
    /// Those that were hedged, by those beside them, as long as neither has brought anything.
    races: HashMap<FlightId, FlightId>,
    /// Those that ever were in one.
    raced: HashSet<FlightId>,
}

impl Model {
    fn apply(&mut self, actions: Vec<Action>) {
        for action in actions {
            let (flight, groups, beside) = match action {
                Action::Request { flight, parent, groups, beside, .. } => {
                    self.parents.insert(flight, parent);
                    (flight, groups, beside)
                }
                Action::ReadSource { flight, groups: Some(groups), .. } => (flight, groups, None),
                Action::Cancel(flight) => {
                    self.is_over(flight);
                    continue;
                }
                _ => continue,
            };
            assert!(groups.count > 0 && groups.end() <= 64, "{groups}");
            let mut same =
                self.flying.iter().filter(|(_, rest)| rest.intersection(groups).count > 0);
            match beside {
                None => {
                    // What somebody who lost brings all the same has come already.
                    assert!(same.all(|(id, _)| self.raced.contains(id)), "{groups} is in two");
                }
                Some(slow) => {
                    assert_eq!(self.flying[&slow].intersection(groups), groups);
                    for (id, _) in same {
                        assert!(*id == slow || self.raced.contains(id), "{groups} is in three");
                        let is_open =
                            self.races.iter().any(|(one, other)| id == one || id == other);
                        assert!(!is_open, "there is no third");
                    }
                    let first = GroupRange::new(groups.first, 1);
                    let asked =
                        self.flying.iter().filter(|(_, r)| !r.intersection(first).is_empty());
                    for (id, _) in asked {
                        assert_ne!(self.parents[id], self.parents[&flight], "the same one again");
                    }
                    self.races.insert(flight, slow);
                    self.raced.extend([flight, slow]);
                }
            }
            self.flying.insert(flight, groups);
            self.order.push(flight);
        }
    }

    fn is_over(&mut self, flight: FlightId) {
        self.flying.remove(&flight);
        self.is_decided(flight);
    }

    fn is_decided(&mut self, flight: FlightId) {
        self.races.retain(|one, other| *one != flight && *other != flight);
    }

    fn pick(&self, n: usize) -> Option<FlightId> {
        let alive: Vec<_> = self.order.iter().filter(|id| self.flying.contains_key(id)).collect();
        (!alive.is_empty()).then(|| *alive[n % alive.len()])
    }

    fn arrive(&mut self, conductor: &mut Conductor, flight: FlightId, count: u64, now: Duration) {
        let rest = self.flying[&flight];
        let came = GroupRange::new(rest.first, count.min(rest.count));
        conductor.arrived(flight, came, now);
        self.is_decided(flight);
        let left = GroupRange::new(came.end(), rest.count - came.count);
        self.flying.insert(flight, left);
        if left.is_empty() {
            self.is_over(flight);
            conductor.ended(flight, None, now);
        }
    }
}

proptest! {
    #[test]
    fn no_group_flies_twice_and_everything_wanted_comes(
        steps in proptest::collection::vec(step(), 1..80)
    ) {
        let mut conductor = conductor(64);
        let mut model = Model::default();
        let mut wanted = GroupSet::new();
        let mut now = SECOND;
        for step in steps {
            now += Duration::from_millis(50);
            match step {
                Step::Want(first, count, priority) => {
                    let run = GroupRange::new(first, count.min(64 - first));
                    wanted.insert_range(run);
                    conductor.want(run, Priority::from_wire(priority));
                }
                Step::Arrive(flight, count) => {
                    if let Some(flight) = model.pick(flight) {
                        model.arrive(&mut conductor, flight, count, now);
                    }
                }
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Fail(flight, kind) => {
                    if let Some(flight) = model.pick(flight) {
                        model.is_over(flight);
                        conductor.ended(flight, Some(failure(kind)), now);
                    }
                }
                Step::Hold(parent, first, count) => {
                    let run = GroupRange::new(first, count.min(64 - first));
                    conductor.parent_holds(host(parent), &[run]);
                }
                Step::Parents(mask) => {
                    let offers = (0..4).filter(|n| mask >> n & 1 == 1).map(|n| Offer {
                        host: host(n),
                        fetches: mask >> (n + 4) & 1 == 1,
                        place: if n % 2 == 0 { Place::Here } else { Place::Elsewhere },
                    });
                    let actions = conductor.set_parents(offers.collect());
                    model.apply(actions);
                }
                Step::Full(first, count) => {
                    let run = GroupRange::new(first, count.min(64 - first));
                    wanted = GroupSet::from_ranges([run], 64).unwrap();
                    conductor.forget(GroupRange::new(0, u64::MAX));
                    conductor.want(run, Priority::Demand);
                    let actions = conductor.drop_unwanted();
                    model.apply(actions);
                    let is_of_use = |rest: &GroupRange| {
                        rest.iter().any(|group| wanted.contains(group) && !conductor.have.contains(group))
                    };
                    prop_assert!(model.flying.values().all(is_of_use));
                }
            }
            let actions = conductor.plan(now);
            model.apply(actions);
        }
        conductor.set_source(SourceAccess::Ranges);
        for _ in 0..400 {
            now += SECOND;
            let actions = conductor.plan(now);
            model.apply(actions);
            while let Some(flight) = model.pick(0) {
                model.arrive(&mut conductor, flight, 64, now);
            }
        }
        prop_assert!(conductor.is_idle());
        for run in wanted.ranges() {
            prop_assert!(conductor.have.contains_all(run));
        }
    }
}
