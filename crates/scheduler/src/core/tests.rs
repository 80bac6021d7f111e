//! What the core decides, case by case.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use dfs_model::{
    CanonicalUrl, GROUP_BYTES, GroupRange, GroupSet, HostKind, Location, PieceLayout, Priority,
    TaskInfo, TaskKind, Transform, Validator,
};

use super::*;

pub(super) const MIB: u64 = 1 << 20;

pub(super) fn id(n: u8) -> HostId {
    HostId::from_bytes([n; 16])
}

pub(super) fn info(n: u8, kind: HostKind, idc: &str) -> Arc<HostInfo> {
    Arc::new(HostInfo {
        id: id(n),
        kind,
        name: format!("host-{n}"),
        location: Location { area: String::new(), idc: idc.into(), rack: String::new() },
        addresses: vec![SocketAddr::from(([127, 0, 0, 1], 1000 + u16::from(n)))],
        public_key: [n; 32],
        upload_slots: 0,
    })
}

/// The usual limits of a scheduler that has been there for a while.
pub(super) fn limits() -> Limits {
    Limits { hearing: Duration::ZERO, ..Limits::default() }
}

pub(super) fn spec(name: &str, length: Option<u64>) -> TaskInfo {
    let key = dfs_model::TaskKey {
        domain: dfs_model::TaskKey::PUBLIC.into(),
        kind: TaskKind::Blob,
        url: CanonicalUrl::parse(&format!("https://example.org/{name}")).unwrap(),
        headers: Vec::new(),
        validator: Validator::default(),
        transform: Transform::Identity,
    };
    let piece_level = PieceLayout::for_length(length.unwrap_or(1 << 30)).level();
    TaskInfo { id: key.id(), key, place: None, length, piece_level, ranges: true }
}

/// A task that nobody takes part in.
pub(super) fn task(name: &str, length: Option<u64>) -> Task {
    let spec = spec(name, length);
    let arms = Arms::new(Box::new(Seed004), Vec::new());
    let arm = arms.drawn(&spec.key);
    Task::new(spec, arm)
}

pub(super) struct Scene {
    pub core: Core,
    pub now: Millis,
}

impl Scene {
    pub fn new() -> Self {
        Self::with(limits())
    }

    pub fn with(limits: Limits) -> Self {
        Self::deciding(limits, Seed004)
    }

    pub fn deciding(limits: Limits, strategy: impl Strategy + 'static) -> Self {
        Self::in_arms(limits, Arms::new(Box::new(strategy), Vec::new()))
    }

    pub fn in_arms(limits: Limits, arms: Arms) -> Self {
        Self { core: Core::new(limits, arms, 7), now: Millis(1) }
    }

    pub fn tell(&mut self, event: Event) -> Vec<Decision> {
        self.core.handle(event, self.now)
    }

    pub fn pass(&mut self, span: Duration) -> Vec<Decision> {
        self.now = self.now.after(span);
        self.tell(Event::Tick)
    }

    pub fn join(&mut self, n: u8, kind: HostKind, idc: &str) {
        assert!(self.tell(Event::HostJoined(info(n, kind, idc))).is_empty());
    }

    pub fn nodes(&mut self, hosts: impl IntoIterator<Item = u8>) {
        hosts.into_iter().for_each(|n| self.join(n, HostKind::Node, ""));
    }

    pub fn register(&mut self, n: u8, task: &TaskInfo) -> Vec<Decision> {
        self.register_for(n, task, Wanted::All)
    }

    fn register_for(&mut self, n: u8, task: &TaskInfo, wanted: Wanted) -> Vec<Decision> {
        let (host, task, held) = (id(n), task.clone(), GroupSet::new());
        let priority = Priority::Bulk;
        self.tell(Event::Register { host, task, wanted, held, priority })
    }

    /// It reads, here and there.
    fn reads(&mut self, n: u8, task: &TaskInfo) -> Vec<Decision> {
        let (host, task, held) = (id(n), task.clone(), GroupSet::new());
        let (wanted, priority) = (Wanted::All, Priority::Demand);
        self.tell(Event::Register { host, task, wanted, held, priority })
    }

    pub fn seed_says(&mut self, n: u8, task: &TaskInfo, event: SeedEvent) -> Vec<Decision> {
        let obtain = self.core.last_obtain;
        self.tell(Event::Seed { seed: id(n), task: task.id, obtain, event })
    }

    pub fn seed_obtains(&mut self, n: u8, task: &TaskInfo) -> Vec<Decision> {
        let held = GroupSet::new();
        self.seed_says(n, task, SeedEvent::Obtaining { length: task.length, held, tiny: None })
    }

    pub fn progress(&mut self, n: u8, task: &TaskInfo, done: Done) -> Vec<Decision> {
        self.tell(Event::Progress {
            host: id(n),
            task: task.id,
            report: Report {
                done: vec![done],
                failed: Vec::new(),
                leases: Vec::new(),
                uploads: 0,
                ..Report::default()
            },
        })
    }

    pub fn finish(&mut self, n: u8, task: &TaskInfo, parent: u8) -> Vec<Decision> {
        let groups = GroupRange::new(0, task.length.unwrap().div_ceil(GROUP_BYTES));
        self.progress(n, task, Done { groups, parent: Some(id(parent)), cost_ms: 10 })
    }

    pub fn fail(&mut self, n: u8, task: &TaskInfo, parent: u8, kind: FailureKind) -> Vec<Decision> {
        self.tell(Event::Progress {
            host: id(n),
            task: task.id,
            report: Report {
                done: Vec::new(),
                failed: vec![Failed { parent: id(parent), kind }],
                leases: Vec::new(),
                uploads: 0,
                ..Report::default()
            },
        })
    }

    /// One seed (100) that takes part in `task`, and a first child (1) of it.
    pub fn with_seed(task: &TaskInfo) -> Self {
        let mut scene = Self::new();
        scene.join(100, HostKind::Seed, "");
        scene.nodes(1..=8);
        scene.register(1, task);
        assert_eq!(parents_of(&scene.seed_obtains(100, task), 1), Some(vec![100]));
        scene
    }
}

/// The last parents that `decisions` give a host.
pub(super) fn parents_of(decisions: &[Decision], n: u8) -> Option<Vec<u8>> {
    decisions.iter().rev().find_map(|decision| match decision {
        Decision::SendParents { host, parents, .. } if *host == id(n) => {
            Some(parents.iter().map(|parent| parent.id.as_bytes()[0]).collect())
        }
        _ => None,
    })
}

pub(super) fn ordered_seed(decisions: &[Decision]) -> Option<u8> {
    decisions.iter().find_map(|decision| match decision {
        Decision::ObtainFromSeed { seed, .. } => Some(seed.as_bytes()[0]),
        _ => None,
    })
}

fn sent_to_source(decisions: &[Decision]) -> Vec<(u8, bool)> {
    let pick = |decision: &Decision| match decision {
        Decision::BackToSource { host, stand_in, .. } => Some((host.as_bytes()[0], *stand_in)),
        _ => None,
    };
    decisions.iter().filter_map(pick).collect()
}

fn refused(decisions: &[Decision]) -> Vec<(u8, RefusalKind)> {
    let pick = |decision: &Decision| match decision {
        Decision::Refuse { host, kind, .. } => Some((host.as_bytes()[0], *kind)),
        _ => None,
    };
    decisions.iter().filter_map(pick).collect()
}

fn scope_for(decisions: &[Decision], n: u8) -> Option<SizeScope> {
    decisions.iter().find_map(|decision| match decision {
        Decision::SendRegistered { host, scope, .. } if *host == id(n) => Some(*scope),
        _ => None,
    })
}

#[test]
fn the_first_asker_makes_a_seed_obtain_and_becomes_its_child() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::new();
    scene.join(100, HostKind::Seed, "");
    scene.nodes([1, 2]);
    let first = scene.register(1, &task);
    assert_eq!(ordered_seed(&first), Some(100));
    assert_eq!(scope_for(&first, 1), Some(SizeScope::Normal));
    let second = scene.register(2, &task);
    assert_eq!(ordered_seed(&second), None, "one order does for all");
    let obtained = scene.seed_obtains(100, &task);
    assert_eq!(parents_of(&obtained, 1), Some(vec![100]));
    assert_eq!(parents_of(&obtained, 2).map(|p| p.contains(&100)), Some(true));
}

#[test]
fn the_seed_is_asked_with_what_its_first_asker_wants() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::new();
    scene.join(100, HostKind::Seed, "");
    scene.nodes([1]);
    let mut wanted = GroupSet::new();
    wanted.insert_range(GroupRange::new(5, 2));
    let decisions = scene.register_for(1, &task, Wanted::Groups(wanted.clone()));
    assert!(decisions.iter().any(|decision| matches!(
        decision,
        Decision::ObtainFromSeed { wanted: Wanted::Groups(groups), .. } if *groups == wanted
    )));
}

#[test]
fn sizes_are_answered_by_scope() {
    let mut scene = Scene::new();
    scene.join(100, HostKind::Seed, "");
    scene.nodes([1]);
    let empty = scene.register(1, &spec("empty", Some(0)));
    assert_eq!(scope_for(&empty, 1), Some(SizeScope::Empty));
    assert_eq!(ordered_seed(&empty), None, "nothing is nobody's work");
    let small = scene.register(1, &spec("small", Some(50_000)));
    assert_eq!(scope_for(&small, 1), Some(SizeScope::Small));
    let unknown = scene.register(1, &spec("unknown", None));
    assert_eq!(scope_for(&unknown, 1), Some(SizeScope::Normal));
}

#[test]
fn a_small_task_has_one_parent() {
    let task = spec("small", Some(50_000));
    let mut scene = Scene::with_seed(&task);
    scene.finish(1, &task, 100);
    for n in 2..6 {
        assert_eq!(parents_of(&scene.register(n, &task), n).map(|p| p.len()), Some(1));
    }
}

#[test]
fn a_tiny_task_comes_with_the_answer() {
    let task = spec("tiny", Some(3));
    let mut scene = Scene::new();
    scene.join(100, HostKind::Seed, "");
    scene.nodes([1, 2]);
    let first = scene.register(1, &task);
    assert_eq!((ordered_seed(&first), scope_for(&first, 1)), (Some(100), None));
    let tiny = Some(Bytes::from_static(b"abc"));
    let held = GroupSet::full(1);
    scene.seed_says(100, &task, SeedEvent::Obtaining { length: Some(3), held, tiny });
    let digests = scene.seed_says(100, &task, SeedEvent::Digests(Bytes::from_static(b"signed")));
    let late = scene.register(2, &task);
    for (decisions, n) in [(digests, 1), (late, 2)] {
        let complete = decisions.iter().any(|decision| matches!(
            decision,
            Decision::SendRegistered { host, scope: SizeScope::Tiny, content: Some(content), digests, .. }
                if *host == id(n) && &content[..] == b"abc" && digests.len() == 1
        ));
        assert!(complete, "host {n}: {decisions:?}");
    }
}

#[test]
fn a_tiny_task_whose_digests_never_come_is_served_by_the_seed() {
    let task = spec("tiny", Some(3));
    let mut scene = Scene::new();
    scene.join(100, HostKind::Seed, "");
    scene.nodes([1]);
    scene.register(1, &task);
    let tiny = Some(Bytes::from_static(b"abc"));
    let held = GroupSet::full(1);
    scene.seed_says(100, &task, SeedEvent::Obtaining { length: Some(3), held, tiny });
    let all: Vec<_> = (0..5).flat_map(|_| scene.pass(Duration::from_millis(500))).collect();
    assert_eq!(parents_of(&all, 1), Some(vec![100]));
    assert_eq!(scope_for(&all, 1), Some(SizeScope::Small));
}

#[test]
fn later_children_have_at_most_four_parents_and_finished_neighbours_among_them() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    for n in 2..=8 {
        let parents = parents_of(&scene.register(n, &task), n).unwrap();
        assert!((1..=MAX_PARENTS).contains(&parents.len()) && !parents.contains(&n));
    }
    scene.finish(1, &task, 100);
    scene.nodes([9]);
    assert!(parents_of(&scene.register(9, &task), 9).unwrap().contains(&1));
}

#[test]
fn children_of_a_leaving_or_failing_parent_are_told_at_once() {
    let task = spec("a", Some(100 * MIB));
    for farewell in [
        Event::HostLeft(id(1)),
        Event::Leave { host: id(1), task: task.id },
        Event::PeerResult {
            host: id(1),
            task: task.id,
            outcome: Outcome::Failure,
            taken: Taken::default(),
        },
    ] {
        let mut scene = Scene::with_seed(&task);
        assert!(parents_of(&scene.register(2, &task), 2).unwrap().contains(&1));
        let parents = parents_of(&scene.tell(farewell), 2).expect("told at once");
        assert_eq!(parents, [100]);
    }
}

#[test]
fn a_silent_host_is_collected_when_its_lease_runs_out_and_not_when_it_comes_back() {
    let task = spec("a", Some(100 * MIB));
    let lease = Limits::default().host_lease;
    let mut scene = Scene::with_seed(&task);
    scene.register(2, &task);
    scene.tell(Event::HostSilent(id(1)));
    scene.nodes([1]);
    scene.pass(lease);
    assert!(scene.core.host(&id(1)).is_some());
    scene.tell(Event::HostSilent(id(1)));
    assert_eq!(parents_of(&scene.pass(lease), 2), Some(vec![100]));
    assert!(scene.core.host(&id(1)).is_none());
}

#[test]
fn a_parent_whose_bytes_do_not_verify_is_nobodys_parent_any_more() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    for n in [2, 3] {
        assert!(parents_of(&scene.register(n, &task), n).unwrap().contains(&1));
    }
    let decisions = scene.fail(2, &task, 1, FailureKind::BadDigest);
    assert!(decisions.contains(&Decision::Blacklisted { host: id(1), task: task.id }));
    for n in [2, 3] {
        assert!(!parents_of(&decisions, n).unwrap().contains(&1), "host {n}");
    }
    scene.tell(Event::HostLeft(id(1)));
    scene.nodes([1]);
    let held = GroupSet::full(1600);
    scene.tell(Event::Announced {
        stood_in: false,
        host: id(1),
        task: task.clone(),
        held,
        digests: Vec::new(),
    });
    let parents = parents_of(&scene.register(4, &task), 4).unwrap();
    assert!(!parents.contains(&1), "leaving and coming back clears nobody");
}

#[test]
fn who_never_was_a_childs_parent_cannot_be_denounced_by_it() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    scene.register(2, &task);
    assert!(scene.fail(1, &task, 2, FailureKind::BadDigest).is_empty());
}

#[test]
fn a_failed_seed_is_followed_by_the_next_one_and_then_by_a_stand_in() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::new();
    scene.join(100, HostKind::Seed, "");
    scene.join(101, HostKind::Seed, "");
    scene.nodes([1, 2]);
    let first = ordered_seed(&scene.register(1, &task)).unwrap();
    scene.seed_obtains(first, &task);
    scene.register(2, &task);
    let failure = |reason: &str| SeedEvent::Failed {
        kind: RefusalKind::OriginFailed,
        reason: reason.to_owned(),
    };
    let decisions = scene.seed_says(first, &task, failure("broken pipe"));
    let second = ordered_seed(&decisions).unwrap();
    assert_ne!(first, second);
    let decisions = scene.seed_says(second, &task, failure("broken pipe"));
    assert_eq!(sent_to_source(&decisions).len(), 1, "one stands in: {decisions:?}");
    let (stand_in, may_sign) = sent_to_source(&decisions)[0];
    assert!(may_sign);
    assert_eq!(parents_of(&decisions, 3 - stand_in), Some(vec![stand_in]));
}

#[test]
fn a_seed_that_does_not_answer_in_time_counts_as_failed() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::new();
    scene.join(100, HostKind::Seed, "");
    scene.nodes([1]);
    scene.register(1, &task);
    let late = scene.pass(Limits::default().seed_answer);
    assert_eq!(sent_to_source(&late), [(1, true)]);
    assert!(late.iter().any(|decision| matches!(decision, Decision::EndObtain { .. })));
    assert!(scene.seed_obtains(100, &task).is_empty(), "too late");
}

#[test]
fn without_seeds_one_node_stands_in_and_the_others_take_from_it() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::new();
    scene.nodes(1..=5);
    assert_eq!(sent_to_source(&scene.register(1, &task)), [(1, true)]);
    for n in 2..=5 {
        let decisions = scene.register(n, &task);
        assert_eq!(sent_to_source(&decisions), []);
        assert!(parents_of(&decisions, n).unwrap().contains(&1));
    }
    let decisions = scene.tell(Event::HostLeft(id(1)));
    assert_eq!(sent_to_source(&decisions).len(), 1, "another one stands in: {decisions:?}");
}

#[test]
fn who_only_says_what_it_holds_is_not_sent_what_proves_it() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    scene.seed_says(100, &task, SeedEvent::Digests(Bytes::from_static(b"signed")));
    scene.nodes([2]);
    assert!(scene.register_for(2, &task, Wanted::Groups(GroupSet::new())).is_empty());
    let wanting = scene.register(2, &task);
    assert!(wanting.iter().any(|decision| matches!(decision, Decision::SendRegistered { .. })));
}

#[test]
fn only_stand_ins_may_publish_digests() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::new();
    scene.nodes(1..=2);
    scene.register(1, &task);
    scene.register(2, &task);
    let batch = Bytes::from_static(b"signed");
    let event = |n| Event::Digests { host: id(n), task: task.id, batch: batch.clone() };
    assert!(scene.tell(event(2)).is_empty());
    let decisions = scene.tell(event(1));
    assert!(matches!(&decisions[..], [Decision::SendUpdate { digests, .. }] if digests.len() == 1));
    assert!(scene.tell(event(1)).is_empty(), "the same batch is news once");
}

#[test]
fn what_an_ordinary_node_read_from_the_source_serves_only_itself() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    let groups = GroupRange::new(0, 1600);
    scene.progress(1, &task, Done { groups, parent: None, cost_ms: 1 });
    assert_eq!(parents_of(&scene.register(2, &task), 2), Some(vec![100]));
}

/// Node `n` complains about host 100, its only parent, and waits until it is looked at again.
fn complain(scene: &mut Scene, n: u8, task: &TaskInfo) -> Vec<Decision> {
    let event = Event::Reschedule { host: id(n), task: task.id, bad_parents: vec![id(100)] };
    let decisions = scene.tell(event);
    assert_eq!(parents_of(&decisions, n), Some(vec![]), "its only parent is gone: it is told");
    if sent_to_source(&decisions).is_empty() { scene.pass(limits().retry_after) } else { decisions }
}

#[test]
fn after_four_attempts_in_vain_a_peer_reads_the_source_for_its_neighbours() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    for _ in 0..3 {
        let decisions = complain(&mut scene, 1, &task);
        assert_eq!(parents_of(&decisions, 1), Some(vec![100]), "there is nobody else to try");
    }
    let event = Event::Reschedule { host: id(1), task: task.id, bad_parents: vec![id(100)] };
    assert_eq!(sent_to_source(&scene.tell(event)), [(1, true)]);
}

#[test]
fn when_a_seed_hangs_not_all_read_the_source() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    (2..=6).for_each(|n| drop(scene.register(n, &task)));
    let mut sent = Vec::new();
    // Twice as many attempts as one of them needs.
    for _ in 0..7 {
        for n in 1..=6 {
            let bad_parents = vec![id(100)];
            let event = Event::Reschedule { host: id(n), task: task.id, bad_parents };
            sent.extend(sent_to_source(&scene.tell(event)));
        }
        sent.extend(sent_to_source(&scene.pass(limits().retry_after)));
    }
    assert!((1..=2).contains(&sent.len()), "{sent:?}");
    assert!(sent.iter().all(|(_, stand_in)| *stand_in), "{sent:?}");
}

#[test]
fn who_stood_in_and_has_everything_spares_the_others_the_source() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    (2..=4).for_each(|n| drop(scene.register(n, &task)));
    let out_of_hope = |scene: &mut Scene, n| {
        let event = Event::Reschedule { host: id(n), task: task.id, bad_parents: Vec::new() };
        scene.tell(event)
    };
    let mut sent = Vec::new();
    for _ in 0..4 {
        sent.extend((1..=3).flat_map(|n| sent_to_source(&out_of_hope(&mut scene, n))));
    }
    let standing_in: Vec<u8> = sent.iter().map(|(n, _)| *n).collect();
    assert_eq!(standing_in.len(), 2, "{sent:?}");
    let waiting = (1..=3).find(|n| !standing_in.contains(n)).unwrap();
    let groups = GroupRange::new(0, task.length.unwrap().div_ceil(GROUP_BYTES));
    for n in &standing_in {
        scene.progress(*n, &task, Done { groups, parent: None, cost_ms: 10 });
    }
    let decisions = out_of_hope(&mut scene, waiting);
    assert_eq!(sent_to_source(&decisions), [], "two have everything");
    let parents = parents_of(&decisions, waiting).unwrap();
    assert!(standing_in.iter().any(|n| parents.contains(n)), "{parents:?} of {standing_in:?}");
}

#[test]
fn who_came_to_have_everything_is_tried_again_by_those_it_failed() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::new();
    scene.nodes(1..=3);
    let fails = |scene: &mut Scene, n, parent| scene.fail(n, &task, parent, FailureKind::Timeout);
    assert_eq!(sent_to_source(&scene.register(1, &task)), [(1, true)]);
    scene.register(2, &task);
    assert_eq!(sent_to_source(&fails(&mut scene, 2, 1)), [(2, true)]);
    scene.register(3, &task);
    assert_eq!(parents_of(&fails(&mut scene, 3, 1), 3), Some(vec![2]));
    scene.pass(Duration::from_millis(1));
    let groups = GroupRange::new(0, task.length.unwrap().div_ceil(GROUP_BYTES));
    scene.progress(1, &task, Done { groups, parent: None, cost_ms: 10 });
    let decisions = fails(&mut scene, 3, 2);
    assert_eq!(sent_to_source(&decisions), [], "one has everything");
    assert_eq!(parents_of(&decisions, 3), Some(vec![1]));
    assert_eq!(parents_of(&fails(&mut scene, 3, 1), 3), Some(vec![]), "it has failed since");
}

#[test]
fn who_comes_back_with_everything_is_tried_again_by_those_it_failed() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::new();
    scene.nodes(1..=3);
    scene.register(1, &task);
    scene.register(2, &task);
    assert_eq!(sent_to_source(&scene.fail(2, &task, 1, FailureKind::Timeout)), [(2, true)]);
    scene.register(3, &task);
    let parents = parents_of(&scene.fail(3, &task, 1, FailureKind::Timeout), 3);
    assert_eq!(parents, Some(vec![2]));
    scene.pass(Duration::from_millis(1));
    scene.tell(Event::Announced {
        stood_in: true,
        host: id(1),
        task: task.clone(),
        held: GroupSet::full(task.length.unwrap().div_ceil(GROUP_BYTES)),
        digests: Vec::new(),
    });
    let decisions = scene.fail(3, &task, 2, FailureKind::Timeout);
    assert_eq!(parents_of(&decisions, 3), Some(vec![1]), "{decisions:?}");
}

/// Everybody among the first `nodes` says in turn that the seed (100) does not answer.
fn all_hear_nothing(scene: &mut Scene, nodes: u8, task: &TaskInfo) -> Vec<Decision> {
    (1..=nodes).flat_map(|n| scene.fail(n, task, 100, FailureKind::Disconnected)).collect()
}

#[test]
fn a_seed_whose_children_hear_nothing_of_it_is_replaced_by_two_of_them() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    (2..=6).for_each(|n| drop(scene.register(n, &task)));
    assert_eq!(sent_to_source(&all_hear_nothing(&mut scene, 6, &task)), [], "it may be restarting");
    scene.pass(limits().seed_silence);
    let mut decisions = all_hear_nothing(&mut scene, 6, &task);
    assert!(decisions.iter().any(|decision| matches!(decision, Decision::EndObtain { .. })));
    for _ in 0..40 {
        decisions.extend(scene.pass(limits().retry_after));
    }
    let sent = sent_to_source(&decisions);
    assert!((1..=2).contains(&sent.len()) && sent.iter().all(|(_, signs)| *signs), "{sent:?}");
    for n in (1..=6).filter(|n| sent.iter().all(|(stand_in, _)| stand_in != n)) {
        let parents = scene.core.tasks[&task.id].dag.parents(&id(n));
        assert!(!parents.is_empty() && !parents.contains(&id(100)), "host {n}: {parents:?}");
    }
}

#[test]
fn a_seed_that_hangs_is_followed_by_another_one() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    scene.join(101, HostKind::Seed, "");
    scene.fail(1, &task, 100, FailureKind::Timeout);
    scene.pass(limits().seed_silence);
    let decisions = scene.fail(1, &task, 100, FailureKind::Timeout);
    assert_eq!((ordered_seed(&decisions), sent_to_source(&decisions)), (Some(101), vec![]));
    scene.seed_obtains(101, &task);
    // After its pause it is as good as any other.
    scene.pass(limits().seed_pause);
    assert_eq!(ordered_seed(&scene.tell(Event::HostLeft(id(101)))), Some(100));
}

#[test]
fn a_seed_that_anybody_hears_of_does_not_hang_whoever_complains() {
    let task = spec("a", Some(100 * MIB));
    let groups = GroupRange::new(0, 1);
    let signs_of_life: [&dyn Fn(&mut Scene); 2] = [
        &|scene| drop(scene.seed_says(100, &task, SeedEvent::Digests(Bytes::from_static(b"d")))),
        &|scene| drop(scene.progress(2, &task, Done { groups, parent: Some(id(100)), cost_ms: 1 })),
    ];
    for sign in signs_of_life {
        let mut scene = Scene::with_seed(&task);
        scene.register(2, &task);
        for _ in 0..5 {
            let decisions = scene.fail(1, &task, 100, FailureKind::Disconnected);
            assert!(!decisions.iter().any(|d| matches!(d, Decision::EndObtain { .. })));
            scene.pass(limits().seed_silence);
            sign(&mut scene);
        }
    }
}

#[test]
fn a_seed_is_not_blamed_for_an_origin_that_fails() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    for _ in 0..5 {
        assert_eq!(scene.fail(1, &task, 100, FailureKind::Origin), []);
        scene.pass(limits().seed_silence);
    }
    assert_eq!(scene.core.hosts[&id(100)].uploads_failed, 0);
    assert_eq!(parents_of(&scene.register(2, &task), 2).map(|p| p.contains(&100)), Some(true));
}

#[test]
fn whoever_asks_for_parents_is_answered_even_where_there_is_nothing_new() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    let ask = |n| Event::Reschedule { host: id(n), task: task.id, bad_parents: Vec::new() };
    assert_eq!(parents_of(&scene.tell(ask(1)), 1), Some(vec![100]));
    scene.tell(Event::HostSilent(id(100)));
    complain(&mut scene, 1, &task);
    assert_eq!(parents_of(&scene.tell(ask(1)), 1), Some(vec![]), "it waits, and is told so");
    assert_eq!(refused(&scene.tell(ask(7))), [(7, RefusalKind::Busy)], "it must register first");
}

#[test]
fn a_parent_that_serves_again_makes_good_for_earlier_attempts() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    for round in 0..10 {
        let decisions = complain(&mut scene, 1, &task);
        assert_eq!(parents_of(&decisions, 1), Some(vec![100]), "round {round}");
        let groups = GroupRange::new(round, 1);
        scene.progress(1, &task, Done { groups, parent: Some(id(100)), cost_ms: 1 });
    }
}

#[test]
fn what_neighbours_do_is_no_attempt_of_one_who_waits() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    scene.nodes(2..=40);
    let event = Event::Reschedule { host: id(1), task: task.id, bad_parents: vec![id(100)] };
    scene.tell(Event::HostSilent(id(100)));
    scene.tell(event.clone());
    for n in 2..=40 {
        scene.register_for(n, &task, Wanted::Groups(GroupSet::new()));
        assert_eq!(sent_to_source(&scene.tell(Event::Leave { host: id(n), task: task.id })), []);
        assert_eq!(sent_to_source(&scene.tell(event.clone())), []);
    }
}

#[test]
fn the_crowd_at_the_source_is_bounded_and_whoever_waits_gets_a_turn() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with(Limits { at_source: 1, upload_slots: 1, ..limits() });
    scene.nodes(1..=3);
    assert_eq!(sent_to_source(&scene.register(1, &task)), [(1, true)]);
    assert!(parents_of(&scene.register(2, &task), 2).is_some());
    scene.register(3, &task);
    let passed: Vec<_> = (0..20).flat_map(|_| scene.pass(Duration::from_secs(1))).collect();
    assert_eq!((sent_to_source(&passed), refused(&passed)), (vec![], vec![]), "3 waits");
    let ended = Event::PeerResult {
        host: id(1),
        task: task.id,
        outcome: Outcome::Failure,
        taken: Taken::default(),
    };
    let mut passed = scene.tell(ended);
    passed.extend((0..20).flat_map(|_| scene.pass(Duration::from_secs(1))));
    assert_eq!(sent_to_source(&passed).len(), 1, "{passed:?}");
}

#[test]
fn the_origins_no_is_passed_on_and_stands_for_a_while() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    scene.register(2, &task);
    let kind = RefusalKind::OriginChanged;
    let reason = "ETag differs".to_owned();
    let decisions = scene.seed_says(100, &task, SeedEvent::Failed { kind, reason });
    let who: BTreeSet<_> =
        refused(&decisions).into_iter().collect::<Vec<_>>().into_iter().map(|r| r.0).collect();
    assert_eq!(who, BTreeSet::from([1, 2]));
    assert_eq!(refused(&scene.register(3, &task)), [(3, kind)]);
    scene.pass(Limits::default().refusal + Limits::default().seed_pause);
    assert_eq!(ordered_seed(&scene.register(3, &task)), Some(100));
}

#[test]
fn a_complete_neighbour_serves_even_when_the_origin_says_no() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    scene.finish(1, &task, 100);
    let (kind, reason) = (RefusalKind::NotFound, "gone".to_owned());
    scene.seed_says(100, &task, SeedEvent::Failed { kind, reason });
    assert_eq!(parents_of(&scene.register(2, &task), 2), Some(vec![1]));
}

#[test]
fn a_restarted_scheduler_learns_the_swarm_from_what_hosts_announce() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::new();
    scene.nodes(1..=3);
    scene.tell(Event::Announced {
        stood_in: false,
        host: id(1),
        task: task.clone(),
        held: GroupSet::full(1600),
        digests: vec![Bytes::from_static(b"signed")],
    });
    let decisions = scene.register(2, &task);
    assert_eq!(parents_of(&decisions, 2), Some(vec![1]));
    assert!(decisions.iter().any(|decision| matches!(
        decision,
        Decision::SendRegistered { digests, .. } if digests.len() == 1
    )));
    assert_eq!(sent_to_source(&decisions), []);
}

#[test]
fn who_was_slow_at_the_end_is_a_parent_once_it_has_everything() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    let groups = 100 * MIB / GROUP_BYTES;
    for (at, cost_ms) in (0..groups - 1).map(|at| (at, 10)).chain([(groups - 2, 90_000)]) {
        let done = Done { groups: GroupRange::new(at, 1), parent: Some(id(100)), cost_ms };
        scene.progress(1, &task, done);
    }
    scene.register(2, &task);
    assert_eq!(scene.core.tasks[&task.id].dag.parents(&id(2)), [id(100)], "it is far too slow");
    let last =
        Done { groups: GroupRange::new(groups - 1, 1), parent: Some(id(100)), cost_ms: 90_000 };
    scene.progress(1, &task, last);
    scene.register(3, &task);
    assert!(scene.core.tasks[&task.id].dag.parents(&id(3)).contains(&id(1)));
}

#[test]
fn what_is_vouched_for_later_reaches_everybody_and_changes_nothing_that_is_held() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    scene.finish(1, &task, 100);
    scene.register(2, &task);
    let digests = vec![Bytes::from_static(b"signed")];
    let vouched =
        |n| Event::Vouched { host: id(n), task: task.id, digests: digests.clone(), stood_in: true };
    assert_eq!(scene.tell(vouched(7)), [], "it does not take part");
    let decisions = scene.tell(vouched(1));
    assert!(matches!(
        &decisions[..],
        [Decision::SendUpdate { hosts, digests: sent, .. }] if hosts.contains(&id(2)) && *sent == digests
    ));
    let peer = scene.core.tasks[&task.id].peer(&id(1)).unwrap();
    assert!(peer.stand_in && peer.held == Held::All, "{:?}", peer.held);
}

#[test]
fn what_neighbours_lack_is_ordered_from_a_seed() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::new();
    scene.join(100, HostKind::Seed, "");
    scene.nodes(1..=3);
    scene.tell(Event::Announced {
        stood_in: false,
        host: id(1),
        task: task.clone(),
        held: GroupSet::full(10),
        digests: Vec::new(),
    });
    let decisions = scene.register(2, &task);
    assert_eq!(parents_of(&decisions, 2), Some(vec![1]));
    assert_eq!(ordered_seed(&decisions), Some(100));
    let lazy = Wanted::Groups(GroupSet::full(10));
    let mut other = Scene::new();
    other.join(100, HostKind::Seed, "");
    other.nodes(1..=3);
    other.tell(Event::Announced {
        stood_in: false,
        host: id(1),
        task: task.clone(),
        held: GroupSet::full(10),
        digests: Vec::new(),
    });
    assert_eq!(ordered_seed(&other.register_for(2, &task, lazy)), None);
}

#[test]
fn who_reads_here_and_there_has_somebody_who_has_or_fetches_whatever_it_reads() {
    for strategy in ["seed004", "seed004+", "swarm"] {
        let mut scene = match strategy {
            "seed004" => Scene::deciding(limits(), Seed004),
            "seed004+" => Scene::deciding(limits(), strategy::seed004_plus::Seed004Plus),
            _ => Scene::deciding(limits(), strategy::leases::Leases::swarm()),
        };
        scene.join(100, HostKind::Seed, "");
        scene.nodes(1..=60);
        let task = spec("a", Some(64 * MIB));
        scene.reads(1, &task);
        scene.seed_obtains(100, &task);
        // One has read what it wanted: a seed is no better a parent than others.
        scene.tell(Event::Announced {
            host: id(60),
            task: task.clone(),
            held: GroupSet::full(9),
            digests: Vec::new(),
            stood_in: false,
        });
        // Each has come to hold a few groups, and reads on.
        for n in 2..=50 {
            scene.reads(n, &task);
            let groups = GroupRange::new(u64::from(n), 2);
            scene.progress(n, &task, Done { groups, parent: Some(id(100)), cost_ms: 10 });
        }
        for n in 51..=59 {
            let told = scene.reads(n, &task);
            let given = parents_of(&told, n).unwrap();
            assert!(given.contains(&100), "{strategy}: {given:?} hold a few groups each");
        }
    }
}

#[test]
fn who_reads_here_and_there_in_a_led_task_has_holders_that_are_near() {
    let mut scene = Scene::deciding(limits(), strategy::leases::Leases::swarm());
    scene.join(100, HostKind::Seed, "far");
    for n in 1..=90 {
        scene.join(n, HostKind::Node, if n > 86 { "near" } else { "far" });
    }
    let task = spec("a", Some(64 * MIB));
    scene.reads(1, &task);
    scene.seed_obtains(100, &task);
    for n in 2..=89 {
        scene.reads(n, &task);
        scene.finish(n, &task, 100);
    }
    let told = scene.reads(90, &task);
    let given = parents_of(&told, 90).unwrap();
    assert!([87, 88, 89].iter().all(|near| given.contains(near)), "{given:?}");
}

#[test]
fn a_resting_peer_that_wants_more_gets_parents_again() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    scene.register_for(2, &task, Wanted::Groups(GroupSet::full(1)));
    let groups = GroupRange::new(0, 1);
    scene.progress(2, &task, Done { groups, parent: Some(id(100)), cost_ms: 1 });
    let mut groups = GroupSet::new();
    groups.insert(9);
    let want = Event::Want { host: id(2), task: task.id, groups, priority: Priority::Demand };
    assert!(parents_of(&scene.tell(want), 2).unwrap().contains(&100));
}

#[test]
fn digests_reach_everybody_as_numbered_deltas_and_late_joiners_as_a_snapshot() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    let mut last = 0;
    for text in ["one", "two"] {
        let batch = Bytes::from(text);
        let decisions = scene.seed_says(100, &task, SeedEvent::Digests(batch.clone()));
        let [Decision::SendUpdate { hosts, version, digests, .. }] = &decisions[..] else {
            panic!("{decisions:?}");
        };
        assert_eq!((&hosts[..], &digests[..]), (&[id(1)][..], &[batch][..]));
        assert!(*version > last);
        last = *version;
    }
    assert!(scene.register(2, &task).iter().any(|decision| matches!(
        decision,
        Decision::SendRegistered { digests, version, .. } if digests.len() == 2 && *version == last
    )));
}

#[test]
fn a_task_that_nobody_takes_is_forgotten() {
    let task = spec("a", Some(100 * MIB));
    let mut scene = Scene::with_seed(&task);
    scene.tell(Event::Leave { host: id(1), task: task.id });
    assert_eq!(scene.core.size().1, 1, "the seed still has it");
    let decisions = scene.pass(Limits::default().idle);
    assert!(decisions.contains(&Decision::Forget { task: task.id }));
    assert_eq!(scene.core.size().1, 0);
}

#[test]
fn hosts_that_did_not_announce_themselves_are_refused() {
    let decisions = Scene::new().register(1, &spec("a", Some(1)));
    assert_eq!(refused(&decisions), [(1, RefusalKind::NotPermitted)]);
}

#[test]
fn a_scheduler_that_has_just_started_waits_for_seeds_before_it_sends_anybody_to_the_source() {
    let mut scene = Scene::with(Limits::default());
    scene.nodes([1]);
    let task = spec("young", Some(1 << 20));
    let at_once = scene.register(1, &task);
    let is_order = |decision: &Decision| matches!(decision, Decision::BackToSource { .. });
    assert!(!at_once.iter().any(is_order), "{at_once:?}");
    let later = scene.pass(Limits::default().hearing + Limits::default().retry_after * 2);
    assert!(later.iter().any(is_order), "{later:?}");
}

#[test]
fn what_a_seed_takes_from_another_area_is_no_read_of_the_source() {
    let mut scene = Scene::new();
    scene.join(100, HostKind::Seed, "");
    scene.join(1, HostKind::Node, "");
    let task = spec("a", Some(MIB));
    scene.register(1, &task);
    scene.seed_obtains(100, &task);
    let (half, all) = (GroupSet::full(8), GroupSet::full(16));
    let (length, held) = (task.length, half.clone());
    scene.seed_says(100, &task, SeedEvent::Obtaining { length, held, tiny: None });
    let abroad = SeedEvent::Verified { groups: half, length: None, giver: Some(id(101)) };
    scene.seed_says(100, &task, abroad);
    // It is ordered more, and says by whom what it has come to have meanwhile has come.
    let (length, held) = (task.length, all.clone());
    scene.seed_says(100, &task, SeedEvent::Obtaining { length, held, tiny: None });
    scene.seed_says(100, &task, SeedEvent::Verified { groups: all, length: None, giver: None });
    let look = Look { which: Which::One(task.id), ..Look::default() };
    let report = scene.core.look(&look, 1, scene.now).remove(0);
    let Totals { source, taken, crossed } = report.totals;
    assert_eq!((source, taken, crossed), (MIB / 2, MIB / 2, MIB / 2));
    let seed = report.peers.iter().find(|peer| peer.host.id == id(100)).unwrap();
    assert_eq!((seed.from_source, seed.held_bytes), (MIB / 2, MIB));
    assert_eq!((seed.givers[0].host, seed.givers[0].given.bytes), (id(101), MIB / 2));
}

#[test]
fn without_a_seed_of_its_own_area_a_task_is_ordered_where_its_origin_is_nearest() {
    let place = |n: u8, kind, area: &str| {
        let location = Location { area: area.into(), ..Location::default() };
        Arc::new(HostInfo { location, ..HostInfo::clone(&info(n, kind, "")) })
    };
    let order = dfs_model::rank_areas("example.org", ["a", "b", "c"]);
    for (own, named) in [("a", "b"), ("b", "c"), ("c", ""), ("nowhere", ""), ("nowhere", order[2])]
    {
        let mut scene = Scene::new();
        scene.tell(Event::HostJoined(place(1, HostKind::Node, own)));
        let seeds = ["a", "b", "c"].into_iter().zip(100..);
        for (area, n) in seeds.clone() {
            scene.tell(Event::HostJoined(place(n, HostKind::Seed, area)));
        }
        let nearest = (!named.is_empty()).then(|| ("example.org".into(), named.into()));
        scene.tell(Event::Nearest(nearest.into_iter().collect()));
        let told = scene.register(1, &spec("x", Some(MIB)));
        let ordered = told.iter().find_map(|decision| match decision {
            Decision::ObtainFromSeed { seed, .. } => Some(*seed),
            _ => None,
        });
        let wanted = match (own, named) {
            ("nowhere", "") => order[0],
            ("nowhere", named) => named,
            (own, _) => own,
        };
        let expected = seeds.into_iter().find(|(area, _)| *area == wanted).map(|(_, n)| id(n));
        assert_eq!(ordered, expected, "{own}, {named}");
    }
}
