//! What lies with hosts is found when it is wanted, and costs nothing until then.

use std::time::Duration;

use dfs_model::{GROUP_BYTES, GroupRange, GroupSet, HostKind, Priority, TaskInfo};

use super::tests::{Scene, id, ordered_seed, parents_of, spec};
use super::*;

const MIB: u64 = 1 << 20;

fn content() -> TaskInfo {
    spec("a", Some(100 * MIB))
}

/// Whom a decision asks what it holds.
fn recalled(decisions: &[Decision]) -> Vec<u8> {
    let pick = |decision: &Decision| match decision {
        Decision::Recall { host, .. } => Some(host.as_bytes()[0]),
        _ => None,
    };
    let mut all: Vec<u8> = decisions.iter().filter_map(pick).collect();
    all.sort_unstable();
    all
}

fn name(scene: &mut Scene, hosts: impl IntoIterator<Item = u8>, task: &TaskInfo) -> Vec<Decision> {
    let names = |host| Event::Names { host: id(host), tasks: vec![task.id] };
    hosts.into_iter().flat_map(|host| scene.tell(names(host))).collect()
}

fn says(scene: &mut Scene, host: u8, task: &TaskInfo, groups: u64) -> Vec<Decision> {
    scene.tell(Event::Announced {
        host: id(host),
        task: task.clone(),
        held: GroupSet::full(groups),
        digests: Vec::new(),
        stood_in: false,
    })
}

/// A seed (100) and nodes, some of which have named what they hold.
fn shelved(nodes: u8, holders: impl IntoIterator<Item = u8>) -> Scene {
    let mut scene = Scene::new();
    scene.join(100, HostKind::Seed, "");
    scene.nodes(1..=nodes);
    assert_eq!(name(&mut scene, holders, &content()), []);
    scene
}

#[test]
fn who_named_a_task_is_asked_for_it_when_it_is_wanted_and_the_seed_waits_for_the_answer() {
    let (task, all) = (content(), 100 * MIB / GROUP_BYTES);
    let mut scene = shelved(3, [1, 2]);
    assert_eq!((scene.core.size().1, scene.core.shelved()), (0, 2), "no task is known of it");
    let decisions = scene.register(3, &task);
    assert_eq!(recalled(&decisions), [1, 2]);
    assert_eq!((parents_of(&decisions, 3), ordered_seed(&decisions)), (None, None));
    let decisions = says(&mut scene, 1, &task, all);
    assert_eq!(parents_of(&decisions, 3), Some(vec![1]));
    let decisions = scene.tell(Event::Leave { host: id(2), task: task.id });
    assert_eq!(ordered_seed(&decisions), None, "who has it has all of it");
    assert_eq!(scene.core.shelved(), 0);
    assert_eq!(recalled(&scene.register(2, &task)), [], "they are asked once");
}

#[test]
fn who_registers_for_what_it_has_named_is_asked_for_it_too_and_keeps_what_it_said_since() {
    let task = content();
    let mut scene = shelved(3, [1]);
    let decisions = scene.register(1, &task);
    assert_eq!((recalled(&decisions), ordered_seed(&decisions)), (vec![1], Some(100)));
    let done = Done { groups: GroupRange::new(40, 1), parent: None, cost_ms: 1 };
    scene.progress(1, &task, done);
    says(&mut scene, 1, &task, 10);
    let held = scene.core.tasks[&task.id].peer(&id(1)).unwrap().held.clone();
    assert!(held.contains_all(GroupRange::new(0, 10)) && held.contains_all(GroupRange::new(40, 1)));
    assert_eq!(scene.core.shelved(), 0);
}

#[test]
fn who_lacks_what_it_had_named_takes_part_all_the_same() {
    let task = content();
    let mut scene = shelved(3, [1, 2]);
    assert_eq!(recalled(&scene.register(1, &task)), [1, 2]);
    scene.tell(Event::Lacks { host: id(1), task: task.id });
    let decisions = scene.tell(Event::Lacks { host: id(2), task: task.id });
    assert_eq!(ordered_seed(&decisions), Some(100));
    assert_eq!(parents_of(&scene.seed_obtains(100, &task), 1), Some(vec![100]));
}

#[test]
fn where_the_nearest_lack_something_the_next_ones_are_asked_before_a_seed() {
    let task = content();
    let mut scene = Scene::new();
    scene.join(100, HostKind::Seed, "");
    (101..=200).for_each(|n| scene.join(n, HostKind::Node, if n <= 164 { "near" } else { "far" }));
    name(&mut scene, 101..=200, &task);
    scene.join(1, HostKind::Node, "near");
    let near = recalled(&scene.register(1, &task));
    assert_eq!(near, (101..=164).collect::<Vec<_>>());
    let mut decisions = Vec::new();
    for host in near {
        decisions = says(&mut scene, host, &task, 10);
    }
    assert_eq!(recalled(&decisions), (165..=200).collect::<Vec<_>>());
    assert_eq!(ordered_seed(&decisions), None);
    for host in 165..=200 {
        decisions = says(&mut scene, host, &task, 20);
    }
    assert_eq!(ordered_seed(&decisions), Some(100));
}

#[test]
fn names_that_are_never_told_more_of_keep_nobody_from_a_seed() {
    let task = content();
    let mut scene = shelved(4, []);
    scene.join(101, HostKind::Seed, "");
    let first = ordered_seed(&scene.register(3, &task)).unwrap();
    assert_eq!(recalled(&name(&mut scene, [1, 1, 1], &task)), [1], "once");
    let (kind, reason) = (RefusalKind::OriginFailed, "injected".to_owned());
    let decisions = scene.seed_says(first, &task, SeedEvent::Failed { kind, reason });
    assert_eq!(ordered_seed(&decisions), Some(201 - first));
}

#[test]
fn what_the_holders_turn_out_to_lack_is_ordered_from_a_seed() {
    let task = content();
    let mut scene = shelved(3, [1, 2]);
    scene.register(3, &task);
    let decisions = says(&mut scene, 1, &task, 10);
    assert_eq!((parents_of(&decisions, 3), ordered_seed(&decisions)), (Some(vec![1]), None));
    let decisions = says(&mut scene, 2, &task, 20);
    assert_eq!(ordered_seed(&decisions), Some(100));
}

#[test]
fn holders_that_do_not_answer_are_not_waited_for_long() {
    let task = content();
    let mut scene = shelved(3, [1, 2]);
    scene.register(3, &task);
    let decisions = scene.tell(Event::Leave { host: id(1), task: task.id });
    assert_eq!(ordered_seed(&decisions), None);
    let before = scene.pass(Duration::from_millis(900));
    assert_eq!(ordered_seed(&before), None);
    let decisions = scene.pass(Duration::from_millis(200));
    assert_eq!(ordered_seed(&decisions), Some(100));
    assert_eq!(
        parents_of(&says(&mut scene, 2, &task, 1600), 3),
        Some(vec![2]),
        "late is not never"
    );
}

#[test]
fn who_names_what_is_wanted_already_is_asked_at_once() {
    let task = content();
    let mut scene = shelved(4, []);
    assert_eq!(ordered_seed(&scene.register(3, &task)), Some(100));
    assert_eq!(recalled(&name(&mut scene, [1, 3], &task)), [1], "who takes part says what it gets");
}

#[test]
fn of_the_many_who_name_what_is_wanted_already_as_many_are_asked_as_of_those_who_named_it_before() {
    let task = content();
    let mut scene = shelved(99, []);
    scene.nodes(101..=202);
    scene.register(201, &task);
    assert_eq!(recalled(&name(&mut scene, 1..=90, &task)).len(), 64);
    assert_eq!(scene.core.shelved(), 90, "the others are found when they are looked for");
    let others = recalled(&scene.register(202, &task));
    assert_eq!(others, (65..=90).collect::<Vec<_>>());
    assert_eq!(recalled(&name(&mut scene, 101..=200, &task)).len(), 64, "another one wants it");
}

#[test]
fn the_nearest_of_many_holders_are_asked_and_no_silent_one() {
    let task = content();
    let mut scene = Scene::new();
    (1..=200).for_each(|n| scene.join(n, HostKind::Node, if n <= 20 { "near" } else { "far" }));
    name(&mut scene, 1..=199, &task);
    scene.tell(Event::HostSilent(id(7)));
    scene.join(201, HostKind::Node, "near");
    let asked = recalled(&scene.register(201, &task));
    let near: Vec<u8> = asked.iter().copied().filter(|n| *n <= 20).collect();
    assert_eq!(asked.len(), 64);
    assert_eq!(near, (1..=20).filter(|n| *n != 7).collect::<Vec<_>>());
}

#[test]
fn who_is_gone_holds_nothing() {
    let task = content();
    let mut scene = shelved(3, [1, 2]);
    scene.tell(Event::HostLeft(id(1)));
    scene.tell(Event::Leave { host: id(2), task: task.id });
    assert_eq!(scene.core.shelved(), 0);
    name(&mut scene, [1], &task);
    assert_eq!(scene.core.shelved(), 0, "it has not announced itself");
    assert_eq!(recalled(&scene.register(3, &task)), []);
}

/// It closes a task of which it holds so many groups.
fn closes(scene: &mut Scene, host: u8, task: &TaskInfo, groups: u64) {
    let held = GroupSet::full(groups);
    scene.tell(Event::Register {
        host: id(host),
        task: task.clone(),
        wanted: Wanted::Groups(held.clone()),
        held,
        priority: Priority::Bulk,
    });
}

#[test]
fn a_task_that_all_have_put_away_is_forgotten_and_still_found() {
    let (task, idle) = (content(), Limits::default().idle);
    let mut scene = Scene::with_seed(&task);
    scene.register(2, &task);
    scene.finish(1, &task, 100);
    scene.finish(2, &task, 100);
    closes(&mut scene, 1, &task, 1600);
    scene.pass(idle * 2);
    assert_eq!(scene.core.size().1, 1, "it is open at one of them");
    closes(&mut scene, 2, &task, 1600);
    scene.pass(idle - Duration::from_secs(1));
    assert_eq!(scene.core.size().1, 1);
    let decisions = scene.pass(Duration::from_secs(1));
    assert!(decisions.contains(&Decision::Forget { task: task.id }));
    assert_eq!((scene.core.size().1, scene.core.shelved()), (0, 2));
    assert_eq!(recalled(&scene.register(3, &task)), [1, 2]);
}
