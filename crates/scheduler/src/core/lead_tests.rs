//! Leases, case by case.

use dfs_model::{GroupRange, GroupSet, HostKind, Priority, TaskInfo};

use super::leading::{ORDERED_AHEAD, ORDERED_EVERY};
use super::tests::{MIB, Scene, id, limits, ordered_seed, spec};
use super::*;

const GROUPS: u64 = 128;

/// One seed (100) that has nothing yet, and nodes that want everything in any order.
pub(super) fn led(nodes: std::ops::RangeInclusive<u8>) -> (Scene, TaskInfo) {
    let task = spec("led", Some(GROUPS * dfs_model::GROUP_BYTES));
    let mut scene = Scene::deciding(limits(), Leases::swarm());
    scene.join(100, HostKind::Seed, "");
    scene.nodes(nodes.clone());
    for node in nodes.clone() {
        scene.register(node, &task);
    }
    scene.seed_obtains(100, &task);
    for node in nodes {
        let decisions = want(&mut scene, &task, node);
        assert!(leases(&decisions).is_empty(), "nobody has anything");
    }
    (scene, task)
}

fn want(scene: &mut Scene, task: &TaskInfo, n: u8) -> Vec<Decision> {
    scene.tell(Event::Want {
        host: id(n),
        task: task.id,
        groups: GroupSet::full(GROUPS),
        priority: Priority::Bulk,
    })
}

pub(super) fn verified(scene: &mut Scene, task: &TaskInfo, groups: GroupRange) -> Vec<Decision> {
    let groups = GroupSet::from_ranges([groups], GROUPS).unwrap();
    scene.seed_says(100, task, SeedEvent::Verified { groups, length: None, giver: None })
}

/// By child.
pub(super) fn leases(decisions: &[Decision]) -> Vec<(u8, Lease)> {
    let of = |decision: &Decision| match decision {
        Decision::SendLeases { host, leases, .. } => {
            leases.iter().map(|lease| (host.as_bytes()[0], *lease)).collect()
        }
        _ => Vec::new(),
    };
    decisions.iter().flat_map(of).collect()
}

fn partners(decisions: &[Decision]) -> Vec<(u8, u8)> {
    let of = |decision: &Decision| match decision {
        Decision::SendLeases { host, partners, .. } => {
            partners.iter().map(|partner| (host.as_bytes()[0], partner.id.as_bytes()[0])).collect()
        }
        _ => Vec::new(),
    };
    decisions.iter().flat_map(of).collect()
}

pub(super) fn end(
    scene: &mut Scene,
    task: &TaskInfo,
    (child, lease): (u8, Lease),
    failure: Option<LeaseFailure>,
) -> Vec<Decision> {
    let end = LeaseEnd { id: lease.id, groups: lease.groups, cost_ms: 5, failure };
    scene.now = scene.now.after(Duration::from_millis(5));
    scene.tell(Event::Progress {
        host: id(child),
        task: task.id,
        report: Report {
            done: Vec::new(),
            failed: Vec::new(),
            leases: vec![end],
            uploads: 0,
            ..Report::default()
        },
    })
}

#[test]
fn what_the_seed_has_verified_is_leased_once_and_then_given_on_by_who_has_it() {
    let (mut scene, task) = led(1..=2);
    let given = verified(&mut scene, &task, GroupRange::new(0, 1));
    let [(child, lease)] = leases(&given)[..] else { panic!("{given:?}") };
    assert_eq!((lease.parent, lease.groups), (id(100), GroupRange::new(0, 1)));
    assert_eq!(partners(&given), [(child, 100)]);
    let passed_on = end(&mut scene, &task, (child, lease), None);
    let [(other, lease)] = leases(&passed_on)[..] else { panic!("{passed_on:?}") };
    assert_eq!((other, lease.parent), (3 - child, id(child)), "the seed sends a piece once");
    let after = end(&mut scene, &task, (other, lease), None);
    assert!(leases(&after).is_empty(), "everybody has it");
}

#[test]
fn a_seed_is_ordered_what_is_wanted_in_any_order_and_once_for_all() {
    let task = spec("ordered", Some(GROUPS * dfs_model::GROUP_BYTES));
    let mut scene = Scene::deciding(limits(), Leases::swarm());
    scene.join(100, HostKind::Seed, "");
    scene.nodes([1, 2]);
    scene.register(1, &task);
    scene.seed_obtains(100, &task);
    let ordered = want(&mut scene, &task, 1);
    assert_eq!(ordered_seed(&ordered), Some(100));
    let all = Wanted::Groups(GroupSet::full(GROUPS));
    let has_all = |decision: &Decision| matches!(decision, Decision::ObtainFromSeed { wanted, .. } if *wanted == all);
    assert!(ordered.iter().any(has_all), "{ordered:?}");
    let ends = |decision: &Decision| matches!(decision, Decision::EndObtain { .. });
    assert!(ordered.iter().any(ends), "it listens to one order");
    scene.register(2, &task);
    assert_eq!(ordered_seed(&want(&mut scene, &task, 2)), None);
}

/// A node takes part, and a seed for it, long enough after the beginning that more may be ordered at once.
fn one_with_a_seed(task: &TaskInfo) -> Scene {
    let mut scene = Scene::deciding(limits(), Leases::swarm());
    scene.now = scene.now.after(ORDERED_AHEAD);
    scene.join(100, HostKind::Seed, "");
    scene.nodes([1]);
    scene.register(1, task);
    scene.seed_obtains(100, task);
    scene
}

#[test]
fn a_seed_that_is_ordered_more_is_told_whose_digests_it_has_sent_already() {
    let task = spec("ordered", Some(GROUPS * dfs_model::GROUP_BYTES));
    let mut scene = one_with_a_seed(&task);
    let want = |scene: &mut Scene, end| {
        let (host, task, groups) = (id(1), task.id, GroupSet::full(end));
        let told = scene.tell(Event::Want { host, task, groups, priority: Priority::Bulk });
        let proven = |decision: &Decision| match decision {
            Decision::ObtainFromSeed { proven, .. } => Some(proven.clone()),
            _ => None,
        };
        told.iter().find_map(proven).unwrap()
    };
    assert!(want(&mut scene, 8).is_empty());
    let mut groups = GroupSet::full(3);
    groups.insert(5);
    let (length, giver) = (task.length, None);
    let verified = SeedEvent::Verified { groups: groups.clone(), length, giver };
    scene.seed_says(100, &task, verified);
    assert_eq!(want(&mut scene, 16), groups);
    let held = GroupSet::full(9);
    scene.seed_says(100, &task, SeedEvent::Obtaining { length, held: held.clone(), tiny: None });
    assert_eq!(want(&mut scene, 24), groups, "what proves the others may be on the way");
    scene.seed_says(100, &task, SeedEvent::Unjudged);
    scene.seed_says(100, &task, SeedEvent::Verified { groups: held.clone(), length, giver });
    assert_eq!(want(&mut scene, 32), groups);
    scene.seed_says(100, &task, SeedEvent::Verified { groups: held.clone(), length, giver });
    assert_eq!(want(&mut scene, 40), held);
}

#[test]
fn who_wants_a_little_more_again_and_again_has_it_ordered_at_once_a_few_times_and_then_by_turns() {
    let task = spec("ordered", Some(GROUPS * dfs_model::GROUP_BYTES));
    let mut scene = one_with_a_seed(&task);
    let mut end = 0;
    let mut wants_more = |scene: &mut Scene| {
        end += 1;
        let groups = GroupSet::full(end);
        let (host, task, priority) = (id(1), task.id, Priority::Bulk);
        ordered_seed(&scene.tell(Event::Want { host, task, groups, priority })).is_some()
    };
    let at_once = (0..20).take_while(|_| wants_more(&mut scene)).count();
    assert_eq!(at_once, 9, "eight that are due, and one now");
    let later = scene.pass(ORDERED_EVERY);
    assert_eq!(ordered_seed(&later), Some(100), "what was wanted since");
    assert!(!wants_more(&mut scene));
}

#[test]
fn an_uplink_whose_rate_is_known_from_one_task_is_leased_as_much_of_the_next_at_once() {
    let groups_of = |given: &[(u8, Lease)]| given.iter().map(|(_, lease)| lease.groups.count).sum();
    let (mut scene, task) = led(1..=1);
    let mut out = leases(&verified(&mut scene, &task, GroupRange::new(0, GROUPS)));
    let first: u64 = groups_of(&out);
    assert_eq!(first, 1, "how fast it is is not known");
    while let Some(lease) = out.pop() {
        out.extend(leases(&end(&mut scene, &task, lease, None)));
    }
    let next = spec("next", Some(GROUPS * dfs_model::GROUP_BYTES));
    scene.register(1, &next);
    scene.seed_obtains(100, &next);
    want(&mut scene, &next, 1);
    let out = leases(&verified(&mut scene, &next, GroupRange::new(0, GROUPS)));
    // 64 KiB in 5 ms are ten of them in a window of 50 ms.
    let at_once: u64 = groups_of(&out);
    assert!(at_once >= 10, "{at_once}");
}

#[test]
fn what_an_uplink_was_seen_to_send_counts_for_a_while_and_guesses_of_it_do_not() {
    let (mut scene, task) = led(1..=1);
    let [lease] = leases(&verified(&mut scene, &task, GroupRange::new(0, 1)))[..] else { panic!() };
    end(&mut scene, &task, lease, None);
    let rate = |scene: &Scene, later: u64| {
        let later = Duration::from_secs(later);
        scene.core.hosts[&id(100)].rate(scene.now.after(later))
    };
    let seen = rate(&scene, 0);
    assert!(seen > 1_000_000 && rate(&scene, 599) == seen);
    let [lease] = leases(&verified(&mut scene, &task, GroupRange::new(1, 1)))[..] else { panic!() };
    end(&mut scene, &task, lease, Some(LeaseFailure::Parent(FailureKind::Timeout)));
    assert_eq!(rate(&scene, 0), seen);
    assert_eq!(rate(&scene, 601), 0);
}

#[test]
fn short_and_private_contents_are_not_led() {
    let mut private = spec("private", Some(64 * MIB));
    private.key.domain = "tenant".into();
    private.id = private.key.id();
    for (task, is_led) in [
        (spec("short", Some(limits().led_from - 1)), false),
        (private, false),
        (spec("unknown", None), false),
        (spec("long", Some(limits().led_from)), true),
    ] {
        let mut scene = Scene::deciding(limits(), Leases::swarm());
        scene.join(100, HostKind::Seed, "");
        scene.nodes([1]);
        scene.register(1, &task);
        let held = GroupSet::full(1);
        let begun = SeedEvent::Obtaining { length: task.length, held, tiny: None };
        let told = scene.seed_says(100, &task, begun);
        let says = |decision: &Decision| match decision {
            Decision::SendParents { led, .. } => Some(*led),
            _ => None,
        };
        assert_eq!(told.iter().find_map(says), Some(is_led), "{}", task.key.url);
        let decisions = want(&mut scene, &task, 1);
        assert_eq!(!leases(&decisions).is_empty(), is_led, "{}", task.key.url);
    }
}

#[test]
fn a_liar_is_leased_no_more_and_what_it_had_comes_from_others() {
    let (mut scene, task) = led(1..=2);
    let given = verified(&mut scene, &task, GroupRange::new(0, 1));
    let (child, lease) = leases(&given)[0];
    let passed_on = end(&mut scene, &task, (child, lease), None);
    let (other, lease) = leases(&passed_on)[0];
    let lied = Some(LeaseFailure::Parent(FailureKind::BadDigest));
    let mut told = end(&mut scene, &task, (other, lease), lied);
    let blacklisted = |decision: &Decision| matches!(decision, Decision::Blacklisted { host, .. } if *host == id(child));
    assert!(told.iter().any(blacklisted), "{told:?}");
    told.extend(scene.pass(Duration::from_millis(200)));
    let again = leases(&told);
    assert!(again.iter().all(|(_, lease)| lease.parent == id(100)), "{again:?}");
    assert!(again.iter().any(|(to, _)| *to == other), "the seed gives again what only a liar has");
}

#[test]
fn what_comes_to_nothing_is_withdrawn_and_given_by_somebody_else() {
    let (mut scene, task) = led(1..=3);
    let given = verified(&mut scene, &task, GroupRange::new(0, 1));
    let (first, lease) = leases(&given)[0];
    end(&mut scene, &task, (first, lease), None);
    let mut later = Vec::new();
    for _ in 0..300 {
        later.extend(scene.pass(Duration::from_millis(100)));
    }
    let withdrawn = |decision: &Decision| match decision {
        Decision::SendLeases { withdrawn, .. } => withdrawn.len(),
        _ => 0,
    };
    assert!(later.iter().map(withdrawn).sum::<usize>() > 0, "{later:?}");
    assert!(!leases(&later).is_empty());
}

#[test]
fn who_waits_hears_that_it_is_not_forgotten_and_who_registers_anew_is_told_whom_to_ask() {
    let (mut scene, task) = led(1..=1);
    let waiting = scene.pass(Duration::from_secs(2));
    let is_word = |decision: &Decision| match decision {
        Decision::SendLeases { host, leases, .. } => *host == id(1) && leases.is_empty(),
        _ => false,
    };
    assert!(waiting.iter().any(is_word), "{waiting:?}");
    let given = verified(&mut scene, &task, GroupRange::new(0, 1));
    assert_eq!(partners(&given), [(1, 100)]);
    scene.register(1, &task);
    let given = want(&mut scene, &task, 1);
    assert_eq!(partners(&given), [(1, 100)], "{given:?}");
    assert!(!leases(&given).is_empty(), "what was leased before is leased anew");
}

#[test]
fn a_host_that_falls_silent_is_leased_nothing_and_gives_nothing() {
    let (mut scene, task) = led(1..=2);
    let given = verified(&mut scene, &task, GroupRange::new(0, 1));
    let (child, lease) = leases(&given)[0];
    let gone = scene.tell(Event::HostSilent(id(child)));
    let again = leases(&gone);
    assert!(again.iter().all(|(to, _)| *to != child), "{again:?}");
    let after = end(&mut scene, &task, (child, lease), None);
    assert!(leases(&after).iter().all(|(_, lease)| lease.parent == id(100)), "{after:?}");
}

#[test]
fn a_seed_that_hangs_is_not_waited_for_where_a_neighbour_has_it_and_the_other_way_round() {
    let (mut scene, task) = led(1..=2);
    let given = verified(&mut scene, &task, GroupRange::new(0, 1));
    let passed_on = end(&mut scene, &task, leases(&given)[0], None);
    let [(other, lease)] = leases(&passed_on)[..] else { panic!("{passed_on:?}") };
    let mut again = Vec::new();
    while again.is_empty() {
        again = leases(&scene.pass(Duration::from_millis(100)));
        assert!(scene.now < Millis(10_000), "it waits for ever for one that hangs");
    }
    assert!(again.contains(&(other, Lease { id: again[0].1.id, parent: id(100), ..lease })));
}

/// A crowd takes a content that the seed has, and node 9 says that it has; of what that one is leased to send, it sends
/// the first so many leases of each child and no more. Everybody has everything soon, from others, and nobody is sent to
/// the source.
fn one_of_nine_sends_no_more_than(first: usize) {
    let task = spec("stalled", Some(GROUPS * dfs_model::GROUP_BYTES));
    let mut scene = Scene::deciding(limits(), Leases::swarm());
    scene.join(100, HostKind::Seed, "");
    scene.nodes(1..=9);
    let held = GroupSet::full(GROUPS);
    let (digests, stood_in) = (Vec::new(), false);
    scene.tell(Event::Announced { host: id(9), task: task.clone(), held, digests, stood_in });
    let mut told: Vec<Decision> = (1..=8).flat_map(|node| scene.register(node, &task)).collect();
    told.extend((1..=8).flat_map(|node| want(&mut scene, &task, node)).collect::<Vec<_>>());
    let (mut got, mut sent) = ([0; 10], [0; 10]);
    let begun = scene.now;
    while got[1..=8].iter().any(|groups| *groups < GROUPS) {
        let is_sent_back = |decision: &Decision| matches!(decision, Decision::BackToSource { .. });
        assert!(!told.iter().any(is_sent_back), "{got:?} at {:?}", scene.now);
        assert!(scene.now.0 - begun.0 < 20_000, "{got:?}");
        let now = std::mem::take(&mut told);
        if ordered_seed(&now).is_some() {
            told.extend(scene.seed_obtains(100, &task));
            told.extend(verified(&mut scene, &task, GroupRange::new(0, GROUPS)));
        }
        for (child, lease) in leases(&now) {
            let at = usize::from(child);
            if lease.parent == id(9) {
                sent[at] += 1;
                if sent[at] > first {
                    continue;
                }
            }
            got[at] += lease.groups.count;
            told.extend(end(&mut scene, &task, (child, lease), None));
        }
        told.extend(scene.pass(Duration::from_millis(10)));
    }
}

#[test]
fn whoever_holds_everything_and_sends_nothing_keeps_nobody_from_what_the_seed_has() {
    one_of_nine_sends_no_more_than(0);
}

#[test]
fn whoever_sends_a_little_to_each_and_then_nothing_keeps_nobody_from_what_the_seed_has() {
    one_of_nine_sends_no_more_than(1);
}

#[test]
fn one_that_denies_that_anybody_has_anything_takes_nothing_from_others() {
    let (mut scene, task) = led(1..=3);
    let given = verified(&mut scene, &task, GroupRange::new(0, 8));
    let mut under_way = leases(&given);
    let mut denied = 0;
    let has_all = |scene: &Scene, n| {
        let held = &scene.core.tasks[&task.id].peer(&id(n)).unwrap().held;
        held.contains_all(GroupRange::new(0, 8))
    };
    while !(has_all(&scene, 2) && has_all(&scene, 3)) {
        if let Some((child, lease)) = under_way.pop() {
            denied += u32::from(child == 1);
            let failure = (child == 1).then_some(LeaseFailure::Parent(FailureKind::NotHeld));
            let told = end(&mut scene, &task, (child, lease), failure);
            under_way.extend(leases(&told));
        }
        under_way.extend(leases(&scene.pass(Duration::from_millis(10))));
        assert!(scene.now < Millis(4000), "{under_way:?}");
    }
    assert!(denied > 0);
}

#[test]
fn the_words_to_one_that_waits_come_often_enough() {
    let (mut scene, task) = led(1..=1);
    let mut heard = scene.now;
    for at in 0..300 {
        let told = match at % 100 {
            0 => {
                let given = verified(&mut scene, &task, GroupRange::new(at / 100, 1));
                end(&mut scene, &task, leases(&given)[0], None);
                given
            }
            _ => scene.pass(Duration::from_millis(33)),
        };
        if told.iter().any(|decision| matches!(decision, Decision::SendLeases { .. })) {
            let silence = scene.now.0 - heard.0;
            assert!(silence < 1500, "{silence} ms without a word: it chooses for itself after 2 s");
            heard = scene.now;
        }
    }
    assert!(scene.now.0 - heard.0 < 1500);
}

#[test]
fn of_a_seed_to_which_nothing_comes_nothing_is_promised() {
    let (mut scene, _) = led(1..=1);
    let told = scene.pass(Duration::from_millis(3_900));
    assert!(told.iter().any(|decision| matches!(decision, Decision::SendLeases { .. })));
    for _ in 0..60 {
        let told = scene.pass(Duration::from_millis(100));
        let is_word = |decision: &Decision| matches!(decision, Decision::SendLeases { .. });
        assert!(!told.iter().any(is_word), "its child is to look after itself");
    }
}

#[test]
fn who_is_leased_nothing_although_there_is_something_is_left_to_choose_for_itself() {
    let (mut scene, task) = led(1..=1);
    let given = verified(&mut scene, &task, GroupRange::new(0, 1));
    let apart = Some(LeaseFailure::Parent(FailureKind::Disconnected));
    end(&mut scene, &task, leases(&given)[0], apart);
    let mut last_word = scene.now;
    for _ in 0..48 {
        let told = scene.pass(Duration::from_millis(100));
        assert!(leases(&told).is_empty(), "they do not reach each other");
        if told.iter().any(|decision| matches!(decision, Decision::SendLeases { .. })) {
            last_word = scene.now;
        }
    }
    assert!(scene.now.0 - last_word.0 > 800, "nothing is promised any more");
}

#[test]
fn who_moved_is_named_anew_to_those_it_gives_to() {
    let (mut scene, task) = led(1..=1);
    let given = verified(&mut scene, &task, GroupRange::new(0, 1));
    assert_eq!(partners(&given), [(1, 100)]);
    let next = end(&mut scene, &task, leases(&given)[0], None);
    assert!(leases(&next).is_empty());
    let given = verified(&mut scene, &task, GroupRange::new(1, 1));
    assert_eq!(partners(&given), [], "it is known");
    end(&mut scene, &task, leases(&given)[0], None);
    let mut moved = (*super::tests::info(100, HostKind::Seed, "")).clone();
    moved.addresses[0].set_port(4711);
    scene.tell(Event::HostJoined(Arc::new(moved)));
    let given = verified(&mut scene, &task, GroupRange::new(2, 1));
    assert_eq!(partners(&given), [(1, 100)], "{given:?}");
}

#[test]
fn what_is_wanted_before_the_length_is_known_is_led_once_it_is() {
    let task = spec("unknown", None);
    let mut scene = Scene::deciding(limits(), Leases::swarm());
    scene.join(100, HostKind::Seed, "");
    scene.nodes([1]);
    scene.register(1, &task);
    scene.seed_obtains(100, &task);
    want(&mut scene, &task, 1);
    let groups = GroupSet::full(1);
    let length = Some(GROUPS * dfs_model::GROUP_BYTES);
    let told = scene.seed_says(100, &task, SeedEvent::Verified { groups, length, giver: None });
    assert_eq!(leases(&told).len(), 1, "{told:?}");
}

#[test]
fn what_was_announced_is_held_by_who_registers_without_a_word_of_it() {
    let task = spec("announced", Some(GROUPS * dfs_model::GROUP_BYTES));
    let mut scene = Scene::deciding(limits(), Leases::swarm());
    scene.join(100, HostKind::Seed, "");
    scene.nodes([1]);
    scene.tell(Event::Announced {
        host: id(1),
        task: task.clone(),
        held: GroupSet::full(GROUPS - 1),
        digests: Vec::new(),
        stood_in: false,
    });
    scene.register(1, &task);
    scene.seed_obtains(100, &task);
    want(&mut scene, &task, 1);
    let given = leases(&verified(&mut scene, &task, GroupRange::new(0, GROUPS)));
    let [(1, lease)] = given[..] else { panic!("{given:?}") };
    assert_eq!(lease.groups, GroupRange::new(GROUPS - 1, 1));
}

#[test]
fn what_is_lost_is_given_by_nobody_who_lost_it_and_leased_anew() {
    let (mut scene, task) = led(1..=1);
    let given = verified(&mut scene, &task, GroupRange::new(0, 1));
    end(&mut scene, &task, leases(&given)[0], None);
    let lost = GroupSet::full(1);
    let report = Report { lost, ..Report::default() };
    scene.tell(Event::Progress { host: id(1), task: task.id, report });
    let again = leases(&want(&mut scene, &task, 1));
    let again =
        if again.is_empty() { leases(&scene.pass(Duration::from_millis(100))) } else { again };
    assert_eq!(again.len(), 1);
}

#[test]
fn a_task_that_nobody_wants_any_more_is_led_no_more() {
    let (mut scene, task) = led(1..=1);
    let nothing = (GroupSet::new(), Priority::Bulk);
    scene.tell(Event::Want { host: id(1), task: task.id, groups: nothing.0, priority: nothing.1 });
    assert!(scene.core.tasks[&task.id].lead.is_some());
    scene.pass(Duration::from_secs(61));
    scene.pass(Duration::from_secs(61));
    assert!(scene.core.tasks[&task.id].lead.is_none());
    scene.register(1, &task);
    want(&mut scene, &task, 1);
    assert_eq!(leases(&verified(&mut scene, &task, GroupRange::new(0, 1))).len(), 1);
}

#[test]
fn ranges_that_are_wanted_one_after_the_other_are_ordered_together() {
    let task = spec("ranges", Some(GROUPS * dfs_model::GROUP_BYTES));
    let mut scene = Scene::deciding(limits(), Leases::swarm());
    scene.join(100, HostKind::Seed, "");
    scene.nodes([1]);
    scene.register(1, &task);
    scene.seed_obtains(100, &task);
    let mut orders = Vec::new();
    for at in 0..64 {
        let groups = GroupSet::from_ranges([GroupRange::new(0, at + 1)], GROUPS).unwrap();
        let priority = Priority::Prefetch;
        let told = scene.tell(Event::Want { host: id(1), task: task.id, groups, priority });
        orders.extend(ordered_seed(&told));
        orders.extend(ordered_seed(&scene.pass(Duration::from_millis(1))));
    }
    orders.extend(ordered_seed(&scene.pass(Duration::from_millis(100))));
    assert!(orders.len() <= 3, "{} orders", orders.len());
    let ordered = &scene.core.tasks[&task.id].ordered;
    assert_eq!(*ordered, GroupSet::from_ranges([GroupRange::new(0, 64)], GROUPS).unwrap());
}

#[test]
fn a_seed_that_sends_nothing_of_what_it_was_leased_to_counts_as_gone_after_two_seconds() {
    let (mut scene, task) = led(1..=3);
    let begun = scene.now;
    assert!(!leases(&verified(&mut scene, &task, GroupRange::new(0, 8))).is_empty());
    let mut told = Vec::new();
    let sent_back = |told: &[Decision]| {
        let is = |decision: &&Decision| matches!(decision, Decision::BackToSource { .. });
        told.iter().filter(is).count()
    };
    while sent_back(&told) == 0 {
        told.extend(scene.pass(Duration::from_millis(100)));
        assert!(scene.now.0 - begun.0 < 8_000, "{told:?}");
    }
    assert!(scene.now.0 - begun.0 >= 2_000);
    assert!(sent_back(&told) <= 2, "never all of them");
}

#[test]
fn what_one_reads_that_stands_in_for_a_seed_is_leased_to_the_others() {
    for (is_told_at_once, denies) in [(false, false), (true, false), (false, true)] {
        let (mut scene, task) = led(1..=3);
        let mut told = scene.tell(Event::HostLeft(id(100)));
        told.extend(scene.pass(Duration::from_secs(1)));
        let stands_in = |decision: &Decision| match decision {
            Decision::BackToSource { host, stand_in: true, .. } => Some(host.as_bytes()[0]),
            _ => None,
        };
        let standing_in: Vec<u8> = told.iter().filter_map(stands_in).collect();
        let [first, ..] = standing_in[..] else { panic!("{told:?}") };
        let mut given = Vec::new();
        for group in 0..GROUPS * u64::from(!is_told_at_once) {
            let done = Done { groups: GroupRange::new(group, 1), parent: None, cost_ms: 1 };
            let report = Report { done: vec![done], ..Report::default() };
            let told = scene.tell(Event::Progress { host: id(first), task: task.id, report });
            given.extend(leases(&told));
            if denies && let Some(lease) = given.pop() {
                let failure = Some(LeaseFailure::Parent(FailureKind::NotHeld));
                end(&mut scene, &task, lease, failure);
            }
        }
        let outcome = Outcome::Success;
        given.extend(leases(&scene.tell(Event::PeerResult {
            host: id(first),
            task: task.id,
            outcome,
            taken: Taken::default(),
        })));
        for _ in 0..80 {
            given.extend(leases(&scene.pass(Duration::from_millis(100))));
        }
        let by_it = given.iter().filter(|(_, lease)| lease.parent == id(first)).count();
        assert!(by_it > 0, "told at once {is_told_at_once}, denied {denies}: {given:?}");
    }
}

/// A node that is here, and has all of it.
fn announced(scene: &mut Scene, task: &TaskInfo, n: u8) {
    scene.tell(Event::HostJoined(super::tests::info(n, HostKind::Node, "")));
    let (held, digests) = (GroupSet::full(GROUPS), Vec::new());
    let (host, task) = (id(n), task.clone());
    scene.tell(Event::Announced { host, task, held, digests, stood_in: false });
    scene.tell(Event::AnnouncedAll(id(n)));
}

#[test]
fn what_a_host_that_is_back_does_not_announce_it_holds_no_more() {
    let task = spec("lost", Some(GROUPS * dfs_model::GROUP_BYTES));
    let mut scene = Scene::deciding(limits(), Leases::swarm());
    announced(&mut scene, &task, 1);
    announced(&mut scene, &task, 2);
    // The disk of the second is another one when it comes back.
    scene.tell(Event::HostSilent(id(2)));
    scene.tell(Event::HostJoined(super::tests::info(2, HostKind::Node, "")));
    scene.tell(Event::AnnouncedAll(id(2)));
    let told = scene.register(2, &task);
    let parents = super::tests::parents_of(&told, 2);
    assert_eq!(parents, Some(vec![1]), "it lacks everything: {told:?}");
    let given = leases(&want(&mut scene, &task, 2));
    assert!(given.iter().any(|(child, lease)| (*child, lease.parent) == (2, id(1))), "{given:?}");
    assert!(given.iter().all(|(_, lease)| lease.parent != id(2)));
}

#[test]
fn what_a_host_that_is_back_announces_it_holds_and_what_it_takes_it_goes_on_taking() {
    let task = spec("kept", Some(GROUPS * dfs_model::GROUP_BYTES));
    let mut scene = Scene::deciding(limits(), Leases::swarm());
    announced(&mut scene, &task, 1);
    scene.tell(Event::HostSilent(id(1)));
    announced(&mut scene, &task, 1);
    scene.nodes([2]);
    scene.register(2, &task);
    want(&mut scene, &task, 2);
    scene.tell(Event::HostSilent(id(2)));
    scene.tell(Event::HostJoined(super::tests::info(2, HostKind::Node, "")));
    scene.tell(Event::AnnouncedAll(id(2)));
    scene.register(2, &task);
    let given = leases(&want(&mut scene, &task, 2));
    assert!(given.iter().any(|(_, lease)| lease.parent == id(1)), "{given:?}");
}

#[test]
fn nobody_is_leased_what_came_to_it_otherwise_as_the_same_report_says() {
    let (mut scene, task) = led(1..=2);
    let given = leases(&verified(&mut scene, &task, GroupRange::new(0, 1)));
    let [(child, lease)] = given[..] else { panic!("{given:?}") };
    let other = 3 - child;
    verified(&mut scene, &task, GroupRange::new(1, 1));
    let end = LeaseEnd { id: lease.id, groups: lease.groups, cost_ms: 5, failure: None };
    let done = Done { groups: GroupRange::new(1, 1), parent: Some(id(100)), cost_ms: 5 };
    let report = Report { done: vec![done], leases: vec![end], ..Report::default() };
    let told = scene.tell(Event::Progress { host: id(child), task: task.id, report });
    for (child_of, lease) in leases(&told) {
        assert!(child_of == other || lease.groups.first > 1, "{lease:?}");
    }
}

#[test]
fn who_is_through_reads_nothing_next() {
    let (mut scene, task) = led(1..=2);
    let reads_next = |scene: &Scene| {
        let task = &scene.core.tasks[&task.id];
        let number = task.peer(&id(1)).unwrap().led.as_ref().unwrap().number;
        task.lead.as_ref().unwrap().matcher.read_next(number).cloned()
    };
    let groups = GroupSet::from_ranges([GroupRange::new(100, 28)], GROUPS).unwrap();
    let (host, priority) = (id(1), Priority::ReadAhead);
    scene.tell(Event::Want { host, task: task.id, groups, priority });
    assert_eq!(reads_next(&scene), Some(100..128));
    scene.finish(1, &task, 100);
    assert_eq!(reads_next(&scene), None, "others are not given the end first for its sake");
}

#[test]
fn a_seed_that_hangs_while_a_crowd_takes_from_it_is_found_out_soon() {
    let (mut scene, task) = led(1..=8);
    let began = scene.now;
    let mut out: Vec<(Millis, (u8, Lease))> = Vec::new();
    let mut told = 0;
    let hangs = began.after(Duration::from_millis(500));
    let mut found = None;
    for _ in 0..2000 {
        let mut decisions = scene.pass(Duration::from_millis(5));
        let now = scene.now;
        if now < hangs && told < GROUPS {
            decisions.extend(verified(&mut scene, &task, GroupRange::new(told, 1)));
            told += 1;
        }
        let (due, later): (Vec<_>, Vec<_>) = out
            .drain(..)
            .partition(|(at, (_, lease))| *at <= now && (lease.parent != id(100) || now < hangs));
        out = later;
        for (_, lease) in due {
            scene.now = now;
            decisions.extend(end(&mut scene, &task, lease, None));
        }
        scene.now = now;
        for lease in leases(&decisions) {
            out.push((now.after(Duration::from_millis(40)), lease));
        }
        let is_found = |decision: &Decision| matches!(decision, Decision::BackToSource { .. });
        if decisions.iter().any(is_found) {
            found = Some(now);
            break;
        }
    }
    let found = found.expect("somebody reads the source");
    assert!(found < hangs.after(Duration::from_secs(4)));
}

#[test]
fn once_nobody_brings_what_is_lacked_one_reads_the_source_for_all_soon() {
    let (mut scene, task) = led(1..=2);
    // Another one has some of it, and is a parent.
    scene.nodes([3]);
    let held = GroupSet::from_ranges([GroupRange::new(0, 32)], GROUPS).unwrap();
    let (host, digests) = (id(3), Vec::new());
    let announced = Event::Announced { host, task: task.clone(), held, digests, stood_in: false };
    let given = scene.tell(announced);
    let stands_in =
        |decision: &Decision| matches!(decision, Decision::BackToSource { stand_in: true, .. });
    let readers = |decided: &[Decision]| decided.iter().filter(|one| stands_in(one)).count();
    let pass = |scene: &mut Scene, decided: Vec<Decision>, tenths: usize| {
        let mut sent = readers(&decided);
        let mut out = leases(&decided);
        for _ in 0..tenths {
            while let Some(lease) = out.pop() {
                let decided = end(scene, &task, lease, None);
                sent += readers(&decided);
                out.extend(leases(&decided));
            }
            scene.now = scene.now.after(Duration::from_millis(100));
            let decided = scene.tell(Event::Tick);
            sent += readers(&decided);
            out.extend(leases(&decided));
        }
        sent
    };
    assert_eq!(pass(&mut scene, given, 10), 0, "the seed may bring the rest");
    let left = scene.tell(Event::HostLeft(id(100)));
    assert_eq!(pass(&mut scene, left, 30), 1, "and the other one waits for it");
}
