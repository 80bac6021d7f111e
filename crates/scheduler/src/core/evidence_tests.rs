//! What people are told of decisions, scene by scene.

use dfs_model::{GroupRange, GroupSet, HostKind, TaskInfo};

use super::lead_tests::{end, leases, led, verified};
use super::tests::{MIB, Scene, id, spec};
use super::*;

fn looked_at(scene: &Scene, task: &TaskInfo) -> TaskReport {
    let look = Look { which: Which::One(task.id), detail: Detail::Evidence, after: 0 };
    scene.core.look(&look, 10, scene.now).remove(0)
}

/// What is told of a host, in order.
fn told(report: &TaskReport, n: u8) -> Vec<&Evidence> {
    let of = report.entries.iter().filter(|entry| entry.host == id(n));
    of.map(|entry| &entry.what).collect()
}

fn last_scheduling(report: &TaskReport, n: u8) -> &Scheduling {
    let found = told(report, n).into_iter().rev().find_map(|what| match what {
        Evidence::Scheduled(scheduling) => Some(scheduling),
        _ => None,
    });
    found.expect("parents were looked for")
}

fn verdict(scheduling: &Scheduling, n: u8) -> Verdict {
    let found = scheduling.candidates.iter().find(|candidate| candidate.host == id(n));
    found.expect("it was looked at").verdict
}

fn standing(report: &TaskReport, n: u8) -> &Standing {
    &report.peers.iter().find(|peer| peer.host.id == id(n)).expect("it takes part").standing
}

fn failed(parent: u8, kind: FailureKind) -> Evidence {
    Evidence::Failed { parent: id(parent), kind, blocked: true }
}

#[test]
fn of_every_candidate_it_is_told_how_good_it_was_or_why_it_was_dropped() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    scene.finish(1, &task, 100);
    scene.register(2, &task);
    scene.register(3, &task);
    scene.fail(3, &task, 2, FailureKind::Timeout);
    let report = looked_at(&scene, &task);
    let scheduling = last_scheduling(&report, 3);
    let Verdict::Scored(whole) = verdict(scheduling, 1) else { panic!("{scheduling:?}") };
    let Verdict::Scored(seed) = verdict(scheduling, 100) else { panic!("{scheduling:?}") };
    assert_eq!((whole.finished, whole.success, whole.kind, seed.kind), (1.0, 1.0, 0.5, 0.0));
    assert!(whole.sum > seed.sum);
    assert_eq!(verdict(scheduling, 2), Verdict::Dropped(Reason::Blocked));
    assert_eq!((&scheduling.granted[..], scheduling.of), (&[id(1), id(100)][..], 4));
    assert!(scheduling.candidates.iter().all(|candidate| candidate.host != id(3)));
    let blocked = &report.peers.iter().find(|peer| peer.host.id == id(3)).unwrap().blocked;
    assert_eq!(blocked[..], [(id(2), scene.now.after(Limits::default().block))]);
}

#[test]
fn a_parent_that_dies_is_named_with_the_reason_also_when_it_is_gone_for_good() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    scene.register(2, &task);
    scene.finish(1, &task, 100);
    scene.register(3, &task);
    scene.tell(Event::HostSilent(id(1)));
    scene.fail(3, &task, 1, FailureKind::Disconnected);
    let report = looked_at(&scene, &task);
    assert_eq!(told(&report, 1).last(), Some(&&Evidence::Silent));
    assert!(matches!(standing(&report, 1), Standing::Silent { .. }));
    assert!(told(&report, 3).contains(&&failed(1, FailureKind::Disconnected)));
    assert_eq!(verdict(last_scheduling(&report, 3), 1), Verdict::Dropped(Reason::Silent));
    scene.pass(Limits::default().host_lease);
    let report = looked_at(&scene, &task);
    assert_eq!(told(&report, 1).last(), Some(&&Evidence::Gone));
    assert!(report.peers.iter().all(|peer| peer.host.id != id(1)));
    let who = report.others.iter().find(|who| who.id == id(1)).expect("its name is remembered");
    assert_eq!(who.name, "host-1");
}

#[test]
fn a_liar_is_told_of_with_who_found_out() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    scene.register(2, &task);
    scene.fail(2, &task, 1, FailureKind::BadDigest);
    scene.register(3, &task);
    let report = looked_at(&scene, &task);
    assert!(told(&report, 2).contains(&&failed(1, FailureKind::BadDigest)));
    assert!(told(&report, 1).contains(&&Evidence::Blacklisted { by: id(2) }));
    assert_eq!(report.blacklisted, [id(1)]);
    assert_eq!(verdict(last_scheduling(&report, 3), 1), Verdict::Dropped(Reason::Blacklisted));
}

#[test]
fn who_waits_is_told_of_with_what_for_and_until_when() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::new();
    scene.join(100, HostKind::Seed, "");
    scene.nodes([1, 2, 3]);
    (1..=3).for_each(|n| drop(scene.register(n, &task)));
    let due = scene.now.after(Limits::default().seed_answer);
    let report = looked_at(&scene, &task);
    assert_eq!(*standing(&report, 1), Standing::ForSeed { seed: Some(id(100)), due });
    assert_eq!(told(&report, 100), [&Evidence::Ordered { asker: Some(id(1)) }]);
    assert_eq!((report.taking, report.still), (3, 3));
    let failed = SeedEvent::Failed { kind: RefusalKind::OriginFailed, reason: "no route".into() };
    scene.seed_says(100, &task, failed);
    let report = looked_at(&scene, &task);
    let reason = "no route".to_owned();
    let no = Evidence::SeedFailed { kind: RefusalKind::OriginFailed, reason };
    assert!(told(&report, 100).contains(&&no));
    let sent = Evidence::Source { reason: SourceReason::NoSeed, stand_in: true };
    assert!(told(&report, 1).contains(&&sent));
    assert_eq!(*standing(&report, 1), Standing::AtSource { stand_in: true });
    assert_eq!(
        report.still, 0,
        "two stand in where there are no data centres, and give to the third"
    );
}

#[test]
fn what_comes_again_and_again_is_one_entry_and_keeps_to_its_bound() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with(Limits { at_source: 0, ..tests::limits() });
    scene.nodes(1..=9);
    for n in 1..=9 {
        scene.register(n, &task);
    }
    for _ in 0..200 {
        scene.pass(Limits::default().retry_after);
    }
    let report = looked_at(&scene, &task);
    assert!(report.entries.len() <= MAX_ENTRIES_PER_TASK);
    let waits = Evidence::Waits { wait: Wait::Turn, tries: (0, 4) };
    for n in 1..=9 {
        let waiting = report.entries.iter().filter(|e| e.host == id(n) && e.what == waits);
        let times: Vec<u32> = waiting.map(|entry| entry.times).collect();
        assert!(times.len() == 1 && times[0] > 50, "host {n}: {times:?}");
        assert!(matches!(standing(&report, n), Standing::ForTurn { .. }));
    }
}

#[test]
fn leases_are_counted_by_giver_and_leave_no_entries() {
    let (mut scene, task) = led(1..=2);
    let before = looked_at(&scene, &task).entries.len();
    let given = verified(&mut scene, &task, GroupRange::new(0, 1));
    let (child, lease) = leases(&given)[0];
    let passed_on = end(&mut scene, &task, (child, lease), None);
    let (other, second) = leases(&passed_on)[0];
    end(&mut scene, &task, (other, second), Some(LeaseFailure::Parent(FailureKind::Timeout)));
    let report = looked_at(&scene, &task);
    let of = |n: u8, giver: HostId| {
        let peer = report.peers.iter().find(|peer| peer.host.id == id(n)).unwrap();
        peer.givers.iter().find(|one| one.host == giver).unwrap().given
    };
    let first = of(child, id(100));
    assert_eq!((first.leased, first.runs, first.bytes), (1, 1, dfs_model::GROUP_BYTES));
    let failures: Vec<_> = of(other, id(child)).failures().collect();
    assert_eq!(failures, [(Ending::Failed(FailureKind::Timeout), 1)]);
    let giver = report.peers.iter().find(|peer| peer.host.id == id(child)).unwrap();
    assert_eq!(giver.given, 0, "what failed was not given");
    assert_eq!(report.totals.source, dfs_model::GROUP_BYTES, "what the seed read");
    let new: Vec<_> = report.entries[before..].iter().map(|entry| &entry.what).collect();
    assert!(
        new.iter().all(|what| matches!(what, Evidence::Failed { .. } | Evidence::Scheduled(_))),
        "{new:?}"
    );
}

#[test]
fn who_is_let_down_by_a_giver_that_falls_silent_is_told_of_with_its_name() {
    let (mut scene, task) = led(1..=2);
    let given = verified(&mut scene, &task, GroupRange::new(0, 1));
    let (child, lease) = leases(&given)[0];
    let passed_on = end(&mut scene, &task, (child, lease), None);
    let (other, _) = leases(&passed_on)[0];
    scene.tell(Event::HostSilent(id(child)));
    let report = looked_at(&scene, &task);
    let let_down = Evidence::LetDown { giver: id(child), leases: 1 };
    assert!(told(&report, other).contains(&&let_down), "{:?}", report.entries);
}

#[test]
fn what_crosses_between_data_centres_is_counted_to_the_byte() {
    let task = spec("a", Some(MIB + 1));
    let mut scene = Scene::new();
    for (n, idc) in [(1, "east"), (2, "EAST"), (3, "west"), (4, "")] {
        scene.join(n, HostKind::Node, idc);
    }
    let (held, digests) = (GroupSet::full(17), Vec::new());
    let task_info = task.clone();
    scene.tell(Event::Announced { host: id(1), task: task_info, held, digests, stood_in: false });
    for n in [2, 3, 4] {
        scene.register(n, &task);
        scene.finish(n, &task, 1);
    }
    let totals = looked_at(&scene, &task).totals;
    assert_eq!((totals.source, totals.crossed), (0, MIB + 1));
}

#[test]
fn tasks_are_found_by_the_beginning_of_their_id_and_by_their_url() {
    let (one, two) = (spec("a", Some(MIB)), spec("b", Some(MIB)));
    let mut scene = Scene::new();
    scene.nodes([1]);
    scene.register(1, &one);
    scene.register(1, &two);
    let found = |which| {
        let look = Look { which, detail: Detail::Summary, after: 0 };
        let found = scene.core.look(&look, 10, scene.now);
        found.into_iter().map(|report| report.task.id).collect::<Vec<_>>()
    };
    assert_eq!(found(Which::All).len(), 2);
    assert_eq!(found(Which::Prefix(one.id.to_string()[..12].to_owned())), [one.id]);
    assert_eq!(found(Which::Url(two.key.url.as_str().to_owned())), [two.id]);
    assert_eq!(found(Which::Url("https://example.org/c".to_owned())), []);
}
