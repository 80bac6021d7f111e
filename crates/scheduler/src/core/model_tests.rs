//! The rules of [`super`], against random events.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dfs_model::{GroupRange, GroupSet, HostKind, Priority, TaskInfo};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;

use super::tests::{MIB, Scene, id, info, spec};
use super::*;

const NODES: std::ops::Range<u8> = 1..8;
const SEEDS: std::ops::Range<u8> = 100..102;
const GROUPS: u64 = 32;

#[derive(Debug, Clone)]
enum Step {
    Join(u8),
    Silent(u8),
    Gone(u8),
    Announce(u8, u8, u64),
    Name(u8, u8),
    Close(u8, u8, u64),
    Register(u8, u8, Option<u64>),
    Done(u8, u8, u64, Option<u8>),
    Fail(u8, u8, u8, u8),
    Want(u8, u8, u64),
    WantInAnyOrder(u8, u8, u64),
    /// One of the leases that are out ends.
    LeaseEnds(usize, u8),
    Reschedule(u8, u8, u8),
    Result(u8, u8, bool),
    Leave(u8, u8),
    Skilled(u8, u8),
    Leads(u8, u8),
    Resigns(u8, u8),
    ComesBack(u8, u8, u8),
    SeedObtains(u8),
    SeedDigests(u8, u8),
    SeedVerifies(u8, u64),
    SeedFails(u8, bool),
    SeedEnds(u8),
    Pass(u16),
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    let host = prop_oneof![4 => NODES, 1 => SEEDS];
    let node = || NODES;
    let task = || 0u8..3;
    let group = || 0..GROUPS;
    prop_oneof![
        2 => host.clone().prop_map(Step::Join),
        1 => host.clone().prop_map(Step::Silent),
        1 => host.prop_map(Step::Gone),
        2 => (node(), task(), group()).prop_map(|(n, t, g)| Step::Announce(n, t, g)),
        3 => (node(), task()).prop_map(|(n, t)| Step::Name(n, t)),
        2 => (node(), task(), group()).prop_map(|(n, t, g)| Step::Close(n, t, g)),
        8 => (node(), task(), prop::option::of(group())).prop_map(|(n, t, g)| Step::Register(n, t, g)),
        8 => (node(), task(), group(), prop::option::of(NODES))
            .prop_map(|(n, t, g, p)| Step::Done(n, t, g, p)),
        3 => (node(), task(), prop_oneof![2 => NODES, 1 => SEEDS], 0u8..8)
            .prop_map(|(n, t, p, k)| Step::Fail(n, t, p, k)),
        3 => (node(), task(), group()).prop_map(|(n, t, g)| Step::Want(n, t, g)),
        4 => (node(), task(), 0..=GROUPS).prop_map(|(n, t, g)| Step::WantInAnyOrder(n, t, g)),
        20 => (any::<usize>(), 0u8..17).prop_map(|(n, how)| Step::LeaseEnds(n, how)),
        2 => (node(), task(), prop_oneof![2 => NODES, 1 => SEEDS])
            .prop_map(|(n, t, p)| Step::Reschedule(n, t, p)),
        2 => (node(), task(), any::<bool>()).prop_map(|(n, t, ok)| Step::Result(n, t, ok)),
        2 => (node(), task()).prop_map(|(n, t)| Step::Leave(n, t)),
        2 => (node(), 0u8..3).prop_map(|(n, s)| Step::Skilled(n, s)),
        6 => (node(), task()).prop_map(|(n, t)| Step::Leads(n, t)),
        1 => (node(), task()).prop_map(|(n, t)| Step::Resigns(n, t)),
        3 => (node(), task(), NODES).prop_map(|(n, t, d)| Step::ComesBack(n, t, d)),
        4 => task().prop_map(Step::SeedObtains),
        2 => (task(), any::<u8>()).prop_map(|(t, n)| Step::SeedDigests(t, n)),
        2 => (task(), group()).prop_map(|(t, g)| Step::SeedVerifies(t, g)),
        2 => (task(), any::<bool>()).prop_map(|(t, end)| Step::SeedFails(t, end)),
        1 => task().prop_map(Step::SeedEnds),
        4 => (0u16..30_000).prop_map(Step::Pass),
    ]
}

fn task(n: u8) -> TaskInfo {
    match n {
        0 => spec("normal", Some(2 * MIB)),
        1 => spec("unknown", None),
        _ => spec("tiny", Some(100)),
    }
}

fn limits() -> Limits {
    let delegates = Limits { delegate_above: 1, delegate_from: 2, ..super::tests::limits() };
    Limits { upload_slots: 2, at_source: 3, led_from: 1, ..delegates }
}

fn kind_of(n: u8) -> HostKind {
    if SEEDS.contains(&n) { HostKind::Seed } else { HostKind::Node }
}

/// The event of a step; `None` when it has no object now.
fn event_of(scene: &mut Scene, step: Step) -> Option<Event> {
    Some(match step {
        Step::Join(n) => {
            let idc = ["", "a", "b"][usize::from(n % 3)];
            Event::HostJoined(info(n, kind_of(n), idc))
        }
        Step::Silent(n) => Event::HostSilent(id(n)),
        Step::Gone(n) => Event::HostLeft(id(n)),
        Step::Announce(n, t, g) => Event::Announced {
            stood_in: false,
            host: id(n),
            task: task(t),
            held: GroupSet::full(g),
            digests: vec![Bytes::from(vec![n, t])],
        },
        Step::Name(n, t) => Event::Names { host: id(n), tasks: vec![task(t).id] },
        Step::Close(n, t, g) => {
            register(n, t, Wanted::Groups(GroupSet::full(g)), GroupSet::full(g))
        }
        Step::Register(n, t, g) => {
            let wanted = g.map_or(Wanted::All, |g| Wanted::Groups(GroupSet::full(g)));
            register(n, t, wanted, GroupSet::new())
        }
        Step::Done(n, t, g, parent) => Event::Progress {
            host: id(n),
            task: task(t).id,
            report: Report {
                done: vec![Done {
                    groups: GroupRange::new(g, 4),
                    parent: parent.map(id),
                    cost_ms: u32::from(n) * 100,
                }],
                failed: Vec::new(),
                leases: Vec::new(),
                uploads: u32::from(n % 3),
                ..Report::default()
            },
        },
        Step::Fail(n, t, parent, kind) => Event::Progress {
            host: id(n),
            task: task(t).id,
            report: Report {
                done: Vec::new(),
                failed: vec![Failed { parent: id(parent), kind: failure(kind) }],
                leases: Vec::new(),
                uploads: 0,
                ..Report::default()
            },
        },
        Step::Want(n, t, g) => want(n, t, g, Priority::Demand),
        Step::WantInAnyOrder(n, t, g) => want(n, t, g, Priority::Bulk),
        Step::LeaseEnds(..) => return None,
        Step::Reschedule(n, t, bad) => {
            Event::Reschedule { host: id(n), task: task(t).id, bad_parents: vec![id(bad)] }
        }
        Step::Result(n, t, ok) => {
            let outcome = if ok { Outcome::Success } else { Outcome::Failure };
            Event::PeerResult { host: id(n), task: task(t).id, outcome, taken: Taken::default() }
        }
        Step::Leave(n, t) => Event::Leave { host: id(n), task: task(t).id },
        Step::SeedObtains(t)
        | Step::SeedDigests(t, _)
        | Step::SeedVerifies(t, _)
        | Step::SeedFails(t, _)
        | Step::SeedEnds(t) => seed_event_of(scene, &step, t)?,
        Step::Pass(ms) => {
            scene.now = scene.now.after(Duration::from_millis(ms.into()));
            Event::Tick
        }
        step => return delegate_event_of(scene, &step),
    })
}

/// What hosts say of delegates.
fn delegate_event_of(scene: &Scene, step: &Step) -> Option<Event> {
    Some(match *step {
        Step::Skilled(n, skill) => {
            let skill = [Skill::None, Skill::Follows, Skill::Leads][usize::from(skill)];
            Event::Skilled { host: id(n), skill }
        }
        Step::Leads(n, t) => {
            let known = scene.core.tasks.get(&task(t).id);
            let mut asked = known.into_iter().flat_map(|task| task.delegations.places.values());
            let host = asked.next().map_or(id(n), |place| place.delegate);
            Event::Leads { host, task: task(t).id }
        }
        Step::Resigns(n, t) => Event::Resigns { host: id(n), task: task(t).id },
        Step::ComesBack(n, t, delegate) => {
            Event::ComesBack { host: id(n), task: task(t).id, delegate: id(delegate) }
        }
        _ => return None,
    })
}

fn register(n: u8, t: u8, wanted: Wanted, held: GroupSet) -> Event {
    Event::Register {
        host: id(n),
        task: task(t),
        wanted,
        held,
        priority: Priority::from_wire(n % 5),
    }
}

fn want(n: u8, t: u8, g: u64, priority: Priority) -> Event {
    Event::Want { host: id(n), task: task(t).id, groups: GroupSet::full(g), priority }
}

/// What the seed says that was ordered for a task.
fn seed_event_of(scene: &Scene, step: &Step, t: u8) -> Option<Event> {
    let state = &scene.core.tasks.get(&task(t).id)?.state;
    let (seed, obtain) = (state.seed()?, state.obtain()?);
    let event = match *step {
        Step::SeedObtains(_) => SeedEvent::Obtaining {
            length: Some(task(t).length.unwrap_or(MIB)),
            held: GroupSet::new(),
            tiny: (t == 2).then(|| Bytes::from(vec![0; 100])),
        },
        Step::SeedDigests(_, n) => SeedEvent::Digests(Bytes::from(vec![n; 9])),
        Step::SeedVerifies(_, g) => {
            SeedEvent::Verified { groups: GroupSet::full(g), length: None, giver: None }
        }
        Step::SeedFails(_, end) => {
            let kind = if end { RefusalKind::OriginChanged } else { RefusalKind::OriginFailed };
            SeedEvent::Failed { kind, reason: "injected".into() }
        }
        _ => SeedEvent::Ended,
    };
    Some(Event::Seed { seed, task: task(t).id, obtain, event })
}

fn failure(kind: u8) -> FailureKind {
    [
        FailureKind::Timeout,
        FailureKind::Disconnected,
        FailureKind::NotHeld,
        FailureKind::Busy,
        FailureKind::BadDigest,
        FailureKind::Unvouched,
        FailureKind::Other,
        FailureKind::Origin,
    ][usize::from(kind)]
}

/// What must hold of the state after every event.
fn check(core: &Core) {
    let mut granted: BTreeMap<HostId, BTreeMap<HostId, u32>> = BTreeMap::new();
    for (task_id, task) in &core.tasks {
        assert!(!task.roster().is_empty() || matches!(task.state, TaskState::Void { .. }));
        for (parent, child) in task.dag.edges() {
            *granted.entry(parent).or_default().entry(child).or_default() += 1;
            assert!(!task.dag.descendants(&child).contains(&parent), "a circle");
            assert!(core.hosts.contains_key(&parent) && task.peer(&parent).is_some(), "gone");
            assert!(!task.blacklist.contains(&parent), "blacklisted");
            assert_ne!(parent, child);
        }
        for host in core.shelf.holders(task_id, 0) {
            assert!(core.hosts.contains_key(host), "gone, and still named");
            assert!(task.peer(host).is_none(), "it takes part");
        }
        for (host, peer) in task.peers() {
            assert!(core.hosts[host].tasks.contains(task_id));
            let parents = task.dag.parents(host);
            assert!(parents.len() <= MAX_PARENTS);
            match peer.state() {
                PeerState::Fetching => assert!(!parents.is_empty(), "fetching from nobody"),
                PeerState::Waiting { due, .. } => {
                    assert!(due >= core.now && core.next_tick() <= Some(due), "nobody looks again");
                    assert!(parents.is_empty());
                }
                _ => assert!(parents.is_empty()),
            }
            if peer.delegate.is_some() {
                assert!(peer.registered && peer.state() != PeerState::Fetching, "led twice");
            }
            let starved = peer.registered
                && peer.delegate.is_none()
                && peer.state() == PeerState::Resting
                && !matches!(peer.wanted, Wanted::All)
                && peer.is_hungry(task.groups());
            assert!(!starved || task.scope() == SizeScope::Tiny, "hungry at rest");
        }
    }
    check_delegations(core);
    for (id, host) in &core.hosts {
        assert_eq!(host.children, granted.remove(id).unwrap_or_default(), "grants are counted");
        assert!(host.children.len() <= host.limit as usize, "beyond its upload limit");
        assert!(host.tasks.iter().all(|t| core.tasks[t].peer(id).is_some()));
    }
}

/// A delegate takes part itself, and leads those who say so of it and are leased nothing here.
fn check_delegations(core: &Core) {
    let places = core.tasks.values().map(|task| task.delegations.places.len());
    assert_eq!(core.delegations(), places.sum::<usize>(), "they are counted");
    for (task_id, task) in &core.tasks {
        for place in task.delegations.places.values() {
            assert!(task.peer(&place.delegate).is_some(), "a delegate that is gone");
            assert!(!place.members.contains_key(&place.delegate));
            for member in place.members.keys() {
                let peer = task.peer(member).unwrap();
                assert_eq!(peer.delegate, Some(place.delegate), "of {task_id}");
                assert!(peer.in_any_order.is_empty() && !peer.is_active(), "led twice");
            }
        }
    }
}

/// Whoever asks for parents is told something: else it takes the scheduler to be gone.
fn check_answer(event: &Event, decisions: &[Decision]) {
    let Event::Reschedule { host: asker, task: asked, .. } = event else { return };
    let is_answer = |decision: &Decision| match decision {
        Decision::SendParents { host, task, .. }
        | Decision::BackToSource { host, task, .. }
        | Decision::Refuse { host, task, .. } => (host, task) == (asker, asked),
        _ => false,
    };
    assert!(decisions.iter().any(is_answer), "{decisions:?}");
}

/// The leases that are out, and whom each child was told of, for each task.
#[derive(Default)]
struct Leased {
    out: Vec<(HostId, TaskId, Lease)>,
    told: BTreeSet<(HostId, TaskId, HostId)>,
}

impl Leased {
    /// The event of a lease that ends, where one is out.
    fn end(&mut self, at: usize, how: u8) -> Option<Event> {
        let at = at % self.out.len().max(1);
        let (host, task, lease) = (at < self.out.len()).then(|| self.out.swap_remove(at))?;
        let failure = match how {
            0..8 => Some(LeaseFailure::Parent(failure(how))),
            8 => Some(LeaseFailure::Unwanted),
            _ => None,
        };
        let end = LeaseEnd { id: lease.id, groups: lease.groups, cost_ms: 3, failure };
        let report = Report { leases: vec![end], ..Report::default() };
        Some(Event::Progress { host, task, report })
    }

    fn told(&mut self, event: &Event) {
        if let Event::Register { host, task, .. } = event {
            self.told.retain(|(child, of, _)| (child, of) != (host, &task.id));
        }
    }

    /// A lease is from one who is here, trusted and has it, and whose address its child was told.
    fn check(&mut self, core: &Core, decisions: &[Decision]) {
        for decision in decisions {
            let Decision::SendLeases { host, task, leases, withdrawn, partners } = decision else {
                continue;
            };
            self.out.retain(|(_, of, lease)| of != task || !withdrawn.contains(&lease.id));
            self.told.extend(partners.iter().map(|partner| (*host, *task, partner.id)));
            for lease in leases {
                let parent = core.tasks[task].peer(&lease.parent).unwrap();
                assert!(lease.parent != *host && core.hosts[&lease.parent].silent_since.is_none());
                assert!(!core.tasks[task].blacklist.contains(&lease.parent));
                assert!(!lease.groups.is_empty() && parent.held.contains_all(lease.groups));
                assert!(self.told.contains(&(*host, *task, lease.parent)), "of whom?");
                self.out.push((*host, *task, *lease));
            }
        }
    }
}

/// What must hold of the decisions themselves.
fn check_decisions(core: &Core, decisions: &[Decision]) {
    for decision in decisions {
        if let Decision::SendParents { host, parents, .. } = decision {
            let distinct: BTreeSet<_> = parents.iter().map(|parent| parent.id).collect();
            assert_eq!(distinct.len(), parents.len());
            assert!(parents.len() <= MAX_PARENTS && !distinct.contains(host));
            assert!(distinct.iter().all(|parent| core.hosts.contains_key(parent)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_rules_hold_whatever_happens(
        steps in prop::collection::vec(step(), 1..150),
        is_led in any::<bool>(),
    ) {
        let mut scene = match is_led {
            true => Scene::deciding(limits(), Leases::swarm()),
            false => Scene::deciding(limits(), Seed004Plus),
        };
        let mut leased = Leased::default();
        for n in NODES.chain(SEEDS) {
            let event = event_of(&mut scene, Step::Join(n)).unwrap();
            scene.tell(event);
        }
        for step in steps {
            let event = match step {
                Step::LeaseEnds(at, how) => leased.end(at, how),
                step => event_of(&mut scene, step),
            };
            let Some(event) = event else { continue };
            leased.told(&event);
            let decisions = scene.tell(event.clone());
            leased.check(&scene.core, &decisions);
            check_decisions(&scene.core, &decisions);
            check_answer(&event, &decisions);
            check(&scene.core);
        }
        everybody_ends_somewhere(&mut scene);
        nothing_is_left_when_all_are_gone(&mut scene);
    }

    #[test]
    fn equal_seeds_and_events_give_equal_decisions(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let scene = || Scene::deciding(limits(), Leases::swarm());
        let (mut a, mut b) = (scene(), scene());
        for step in steps {
            let Some(event) = event_of(&mut a, step.clone()) else { continue };
            event_of(&mut b, step);
            prop_assert_eq!(a.tell(event.clone()), b.tell(event));
        }
    }
}

/// Without another word from anybody, nobody waits for ever but for a place at the source.
fn everybody_ends_somewhere(scene: &mut Scene) {
    for _ in 0..100 {
        scene.pass(Duration::from_millis(500));
        check(&scene.core);
    }
    for task in scene.core.tasks.values() {
        let waiting = task.hosts_where(|peer| matches!(peer.state(), PeerState::Waiting { .. }));
        let at_source = task.hosts_where(|peer| matches!(peer.state(), PeerState::Source { .. }));
        let is_crowded = at_source.len() >= limits().at_source;
        assert!(waiting.is_empty() || is_crowded, "{waiting:?} wait for ever in {:?}", task.state);
    }
}

fn nothing_is_left_when_all_are_gone(scene: &mut Scene) {
    for n in NODES.chain(SEEDS) {
        scene.tell(Event::HostLeft(id(n)));
        check(&scene.core);
    }
    scene.pass(Limits::default().idle * 2);
    assert_eq!(scene.core.size(), (0, 0));
    assert_eq!(scene.core.timers.len(), 0);
}
