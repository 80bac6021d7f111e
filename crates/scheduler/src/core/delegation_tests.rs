//! Delegates, case by case.

use std::slice;

use dfs_model::{GroupRange, GroupSet, HostKind, Priority, TaskInfo};

use super::delegation::{BARRED_FOR, GOES_WITHIN};
use super::lead_tests::{end, leases, verified};
use super::tests::{Scene, id, limits, spec};
use super::*;

const GROUPS: u64 = 128;

/// One seed (100) and nodes 1 to 12 that take all of a task by lease: 1 to 8 in one data centre, the others in another.
fn crowd(limit: u64) -> (Scene, TaskInfo) {
    let limits = Limits { delegate_above: limit, delegate_from: 4, ..limits() };
    let task = spec("led", Some(GROUPS * dfs_model::GROUP_BYTES));
    let mut scene = Scene::deciding(limits, Leases::swarm());
    scene.join(100, HostKind::Seed, "");
    for n in 1..=12 {
        scene.join(n, HostKind::Node, if n <= 8 { "a" } else { "b" });
        let skill = if n == 2 { Skill::Follows } else { Skill::Leads };
        scene.tell(Event::Skilled { host: id(n), skill });
        scene.register(n, &task);
    }
    scene.seed_obtains(100, &task);
    (1..=12).for_each(|n| drop(want(&mut scene, &task, n)));
    (scene, task)
}

fn want(scene: &mut Scene, task: &TaskInfo, n: u8) -> Vec<Decision> {
    let (host, groups) = (id(n), GroupSet::full(GROUPS));
    scene.tell(Event::Want { host, task: task.id, groups, priority: Priority::Bulk })
}

/// It says that it went where it was handed.
fn went(scene: &mut Scene, task: &TaskInfo, n: u8) {
    let (host, groups) = (id(n), GroupSet::new());
    scene.tell(Event::Want { host, task: task.id, groups, priority: Priority::Bulk });
}

/// Time passes and something happens: messages are judged.
fn judged(scene: &mut Scene, task: &TaskInfo) -> Vec<Decision> {
    scene.now = scene.now.after(Duration::from_millis(600));
    verified(scene, task, GroupRange::new(0, 1))
}

fn asked(decisions: &[Decision]) -> Vec<u8> {
    let of = |decision: &Decision| match decision {
        Decision::AskToLead { host, .. } => Some(host.as_bytes()[0]),
        _ => None,
    };
    decisions.iter().filter_map(of).collect()
}

/// Who is told to go where.
fn handed(decisions: &[Decision]) -> Vec<(Vec<u8>, Option<u8>)> {
    let number = |host: &HostId| host.as_bytes()[0];
    let of = |decision: &Decision| match decision {
        Decision::Delegate { hosts, to, .. } => {
            Some((hosts.iter().map(number).collect(), to.as_ref().map(number)))
        }
        _ => None,
    };
    decisions.iter().filter_map(of).collect()
}

fn ends(decisions: &[Decision]) -> Vec<u8> {
    let of = |decision: &Decision| match decision {
        Decision::LeadNoMore { host, .. } => Some(host.as_bytes()[0]),
        _ => None,
    };
    decisions.iter().filter_map(of).collect()
}

/// Node 1 leads 2 to 8.
fn led() -> (Scene, TaskInfo) {
    let (mut scene, task) = crowd(20);
    assert_eq!(asked(&judged(&mut scene, &task)), [1, 9]);
    let decided = scene.tell(Event::Leads { host: id(1), task: task.id });
    assert_eq!(handed(&decided), [((2..=8).collect(), Some(1))]);
    (scene, task)
}

/// The seed has all of it, and what it was leased to send first has come.
fn moves(scene: &mut Scene, task: &TaskInfo, decided: &[Decision]) -> Vec<Decision> {
    let first = *leases(decided).last().unwrap();
    verified(scene, task, GroupRange::new(1, GROUPS - 1));
    end(scene, task, first, None)
}

#[test]
fn below_the_limit_nobody_is_asked_to_lead() {
    for limit in [0, 10_000] {
        let (mut scene, task) = crowd(limit);
        for _ in 0..5 {
            assert_eq!(asked(&judged(&mut scene, &task)), []);
        }
    }
}

#[test]
fn beyond_it_those_lead_that_have_been_there_longest_where_that_saves_most() {
    let (mut scene, task) = crowd(20);
    assert_eq!(asked(&judged(&mut scene, &task)), [1, 9], "the larger place first");
    for _ in 0..3 {
        assert_eq!(asked(&judged(&mut scene, &task)), [], "they have not answered");
    }
}

#[test]
fn no_more_are_asked_than_it_takes() {
    // Sixty messages in 600 ms, two thirds of which are of the larger place.
    let (mut scene, task) = crowd(70);
    assert_eq!(asked(&judged(&mut scene, &task)), [1]);
}

#[test]
fn who_cannot_lead_or_serves_only_itself_or_lied_is_not_asked() {
    let (mut scene, task) = crowd(20);
    scene.tell(Event::Skilled { host: id(1), skill: Skill::None });
    scene.tell(Event::HostSilent(id(3)));
    let from_source = Done { groups: GroupRange::new(0, 1), parent: None, cost_ms: 1 };
    scene.progress(4, &task, from_source);
    assert_eq!(asked(&judged(&mut scene, &task)), [5, 9]);
}

#[test]
fn who_does_not_accept_in_time_is_not_asked_again() {
    let (mut scene, task) = crowd(20);
    assert_eq!(asked(&judged(&mut scene, &task)), [1, 9]);
    scene.tell(Event::Leads { host: id(9), task: task.id });
    scene.now = scene.now.after(Duration::from_millis(2100));
    (0..100).for_each(|_| drop(want(&mut scene, &task, 8)));
    let decided = judged(&mut scene, &task);
    assert_eq!(asked(&decided), [3], "2 cannot be reached by others");
    let late = scene.tell(Event::Leads { host: id(1), task: task.id });
    assert_eq!((handed(&late), ends(&late)), (vec![], vec![1]), "too late");
}

#[test]
fn who_was_handed_over_is_leased_nothing_and_what_it_held_counts() {
    let (mut scene, task) = crowd(20);
    let mut decided = judged(&mut scene, &task);
    decided.extend(scene.tell(Event::Leads { host: id(1), task: task.id }));
    let is_led_here = |child: u8| child == 1 || child > 8;
    decided
        .retain(|decision| leases(slice::from_ref(decision)).iter().any(|one| is_led_here(one.0)));
    let decided = moves(&mut scene, &task, &decided);
    let to: Vec<u8> = leases(&decided).iter().map(|(child, _)| *child).collect();
    assert!(!to.is_empty() && to.iter().all(|child| is_led_here(*child)), "{to:?}");
    assert_eq!(want(&mut scene, &task, 3), [], "it has not heard of it yet");
    let peer = scene.core.tasks[&task.id].peer(&id(3)).unwrap();
    assert_eq!((peer.state(), peer.delegate), (PeerState::Resting, Some(id(1))));
}

#[test]
fn what_is_under_way_to_who_is_handed_over_goes_on() {
    let (mut scene, task) = crowd(20);
    let first = judged(&mut scene, &task);
    let given = moves(&mut scene, &task, &first);
    assert!(leases(&given).iter().any(|(child, _)| (2..=8).contains(child)), "{given:?}");
    let decided = scene.tell(Event::Leads { host: id(1), task: task.id });
    let withdrawn = |decision: &Decision| match decision {
        Decision::SendLeases { host, withdrawn, .. } if (2..=8).contains(&host.as_bytes()[0]) => {
            !withdrawn.is_empty()
        }
        _ => false,
    };
    assert!(!decided.iter().any(withdrawn), "{decided:?}");
}

#[test]
fn who_comes_later_goes_to_the_delegate_of_its_place_once_it_says_what_it_wants() {
    let (mut scene, task) = led();
    for (n, idc, is_handed) in [(20, "a", true), (21, "b", false), (22, "", false)] {
        scene.join(n, HostKind::Node, idc);
        scene.tell(Event::Skilled { host: id(n), skill: Skill::Follows });
        assert_eq!(handed(&scene.register(n, &task)), []);
        let said = handed(&want(&mut scene, &task, n));
        assert_eq!(said, if is_handed { vec![(vec![n], Some(1))] } else { vec![] }, "{n}");
    }
    scene.join(23, HostKind::Node, "a");
    scene.register(23, &task);
    assert_eq!(handed(&want(&mut scene, &task, 23)), [], "it would not know what is meant");
}

fn comes_back(scene: &mut Scene, task: &TaskInfo, n: u8) -> Vec<Decision> {
    let delegate = id(1);
    let mut decided = scene.tell(Event::ComesBack { host: id(n), task: task.id, delegate });
    decided.extend(scene.register(n, task));
    decided.extend(want(scene, task, n));
    decided
}

#[test]
fn whoever_a_delegate_fails_is_led_again_and_who_fails_several_leads_no_more() {
    let (mut scene, task) = led();
    let first = comes_back(&mut scene, &task, 3);
    assert_eq!((handed(&first), ends(&first)), (vec![], vec![]), "it is not sent there again");
    let second = comes_back(&mut scene, &task, 4);
    assert_eq!(handed(&second), [(vec![2, 5, 6, 7, 8], None)]);
    assert_eq!(ends(&second), [1]);
    for n in [2, 5, 6, 7, 8] {
        assert_eq!(handed(&comes_back(&mut scene, &task, n)), []);
    }
    (0..100).for_each(|_| drop(want(&mut scene, &task, 8)));
    scene.now = scene.now.after(Duration::from_secs(3));
    judged(&mut scene, &task);
    (0..100).for_each(|_| drop(want(&mut scene, &task, 8)));
    let next = asked(&judged(&mut scene, &task));
    assert!(next.iter().all(|n| *n > 8), "nobody of that place, to which nothing came: {next:?}");
}

#[test]
fn nobody_is_asked_to_lead_where_nobody_brings_what_is_lacked() {
    let (mut scene, task) = crowd(20);
    // Nobody is sent to the source.
    scene.core.limits.at_source = 0;
    scene.tell(Event::HostLeft(id(100)));
    let busy = |scene: &mut Scene| {
        (0..100).for_each(|_| drop(want(scene, &task, 8)));
        scene.now = scene.now.after(Duration::from_millis(600));
        asked(&want(scene, &task, 8))
    };
    assert_eq!(busy(&mut scene), []);
    let (host, held) = (id(12), GroupSet::full(GROUPS));
    let announced =
        Event::Announced { host, task: task.clone(), held, digests: Vec::new(), stood_in: false };
    scene.tell(announced);
    assert_eq!(busy(&mut scene), [1], "somebody has all of it");
}

#[test]
fn a_delegate_that_resigns_or_leaves_or_lied_leads_nobody_any_more() {
    let others = [(vec![2, 3, 4, 5, 6, 7, 8], None)];
    let (mut scene, task) = led();
    let decided = scene.tell(Event::Resigns { host: id(1), task: task.id });
    assert_eq!((handed(&decided), ends(&decided)), (others.to_vec(), vec![1]));
    let (mut scene, task) = led();
    let decided = scene.tell(Event::Leave { host: id(1), task: task.id });
    assert_eq!(handed(&decided), others);
    let (mut scene, _) = led();
    assert_eq!(handed(&scene.tell(Event::HostLeft(id(1)))), others);
    let (mut scene, task) = led();
    verified(&mut scene, &task, GroupRange::new(0, GROUPS));
    scene.core.tasks.get_mut(&task.id).unwrap().peer_mut(&id(9)).unwrap().meet(id(1));
    let decided = scene.fail(9, &task, 1, FailureKind::BadDigest);
    assert_eq!(handed(&decided), others);
}

#[test]
fn a_delegate_that_is_not_heard_of_goes_on_with_those_it_leads_and_gets_nobody_more() {
    let (mut scene, task) = led();
    (2..=8).for_each(|n| went(&mut scene, &task, n));
    let decided = scene.tell(Event::HostSilent(id(1)));
    assert_eq!((handed(&decided), ends(&decided)), (vec![], vec![]));
    scene.join(20, HostKind::Node, "a");
    scene.tell(Event::Skilled { host: id(20), skill: Skill::Follows });
    scene.register(20, &task);
    assert_eq!(handed(&want(&mut scene, &task, 20)), []);
}

#[test]
fn a_delegate_leads_until_all_whom_it_led_are_through_and_they_hold_what_they_have() {
    let (mut scene, task) = led();
    for n in 2..=8 {
        let (host, task_id, taken) = (id(n), task.id, Taken::default());
        let outcome = Outcome::Success;
        let decided = scene.tell(Event::PeerResult { host, task: task_id, outcome, taken });
        assert_eq!(ends(&decided), if n == 8 { vec![1] } else { vec![] });
        assert_eq!(scene.core.tasks[&task_id].peer(&host).unwrap().held, Held::All);
    }
    assert_eq!(scene.core.delegations(), 1, "the other place was asked");
}

#[test]
fn who_was_handed_over_and_does_not_say_that_it_went_is_called_back_and_heard() {
    let (mut scene, task) = led();
    (3..=8).for_each(|n| went(&mut scene, &task, n));
    let due = scene.now.after(GOES_WITHIN);
    scene.now = scene.now.after(GOES_WITHIN - Duration::from_millis(1));
    assert_eq!(handed(&scene.tell(Event::Tick)), []);
    scene.now = due;
    assert_eq!(handed(&scene.tell(Event::Tick)), [(vec![2], None)]);
    let is_led = |scene: &Scene, n| scene.core.tasks[&task.id].peer(&id(n)).unwrap().delegate;
    assert_eq!((is_led(&scene, 2), is_led(&scene, 3)), (None, Some(id(1))));
    assert_eq!(handed(&want(&mut scene, &task, 2)), [], "it is not sent there again");
    assert_eq!(handed(&want(&mut scene, &task, 3)), []);
}

#[test]
fn those_whose_delegation_is_over_are_heard_and_led_also_where_they_never_went() {
    let (mut scene, task) = led();
    (3..=8).for_each(|n| went(&mut scene, &task, n));
    let decided = scene.tell(Event::Resigns { host: id(1), task: task.id });
    assert_eq!(handed(&decided), [((2..=8).collect(), None)]);
    let peer = |scene: &Scene, n| {
        let peer = scene.core.tasks[&task.id].peer(&id(n)).unwrap();
        (peer.delegate, peer.is_active())
    };
    assert!((2..=8).all(|n| peer(&scene, n) == (None, true)));
    want(&mut scene, &task, 2);
    let peer = scene.core.tasks[&task.id].peer(&id(2)).unwrap();
    assert!(!peer.in_any_order.is_empty(), "it is not heard");
}

#[test]
fn who_has_not_gone_to_a_delegate_that_falls_silent_is_called_back() {
    let (mut scene, task) = led();
    (3..=8).for_each(|n| went(&mut scene, &task, n));
    assert_eq!(handed(&scene.tell(Event::HostSilent(id(1)))), [(vec![2], None)]);
}

#[test]
fn a_place_in_which_two_have_failed_has_no_delegate_for_minutes() {
    let (mut scene, task) = led();
    scene.tell(Event::Resigns { host: id(9), task: task.id });
    let tried = |scene: &mut Scene| {
        (1..=12).for_each(|n| drop(scene.register(n, &task)));
        (1..=12).for_each(|n| drop(want(scene, &task, n)));
        (0..100).for_each(|_| drop(want(scene, &task, 8)));
        asked(&judged(scene, &task))
    };
    scene.tell(Event::Resigns { host: id(1), task: task.id });
    let next = tried(&mut scene);
    assert_eq!(next, [3, 10]);
    for host in next {
        scene.tell(Event::Resigns { host: id(host), task: task.id });
    }
    assert_eq!(tried(&mut scene), []);
    scene.now = scene.now.after(BARRED_FOR);
    verified(&mut scene, &task, GroupRange::new(1, 1));
    judged(&mut scene, &task);
    assert_eq!(tried(&mut scene), [4, 11]);
}

#[test]
fn racks_of_one_name_are_one_place_only_in_one_data_centre_of_one_area() {
    let place = |area: &str, idc: &str| {
        let (mut scene, task) = crowd(20);
        for n in 1..=8 {
            let mut host = HostInfo::clone(scene.core.host(&id(n)).unwrap());
            host.location.rack = "r1".into();
            host.location.idc = if n <= 4 { "a".into() } else { idc.into() };
            host.location.area = if n <= 4 { String::new() } else { area.into() };
            scene.tell(Event::HostJoined(host.into()));
        }
        asked(&judged(&mut scene, &task)).into_iter().filter(|n| *n <= 8).collect::<Vec<_>>()
    };
    assert_eq!(place("", "a"), [1]);
    assert_eq!(place("west", "a"), [1, 5]);
    assert_eq!(place("", ""), [1], "nobody knows where the others are");
}
