//! Who reads the source for a place that nobody leads any more and no seed serves: named in advance, since nobody can be
//! asked then (decision 0022).
//!
//! Lost with the task: whoever registers anew is told anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{HostId, HostKind, TaskId, TaskKey};

use super::{Core, Decision, Millis, SizeScope, Timer};

/// Of a data centre: the second one reads where the first does not.
const MOST: usize = 2;

/// How often others are named where those have gone of whom some had been told.
const NAMED_EVERY: Duration = Duration::from_secs(10);

/// The reserves of a task, by data centre.
#[derive(Debug, Default)]
pub struct Reserves {
    places: BTreeMap<Arc<str>, Named>,
    /// So many have been named.
    count: u64,
}

#[derive(Debug, Default)]
struct Named {
    /// Each with the how many-th it is that was named.
    hosts: Vec<(HostId, u64)>,
    /// When others were named in the place of those who had gone.
    renewed: Option<Millis>,
    /// When that is to be done again, where it was put off.
    due: Option<Millis>,
}

impl Named {
    /// Whether somebody who was told when so many had been named knows one who is there.
    fn are_known(&self, told: u64) -> bool {
        self.hosts.iter().any(|(_, number)| *number <= told)
    }
}

impl Reserves {
    /// Adds one, where there are too few.
    fn add(&mut self, idc: &Arc<str>, host: HostId) {
        let Named { hosts, .. } = self.places.entry(Arc::clone(idc)).or_default();
        if hosts.len() < MOST && hosts.iter().all(|(one, _)| *one != host) {
            self.count += 1;
            hosts.push((host, self.count));
        }
    }

    /// Whoever was told of those of a data centre is to be told anew.
    fn forget_who_knows(&mut self, idc: &Arc<str>) {
        let Some(named) = self.places.get_mut(idc) else { return };
        for (_, number) in &mut named.hosts {
            self.count += 1;
            *number = self.count;
        }
    }

    /// Takes one away that goes; the data centre whose it was.
    fn remove(&mut self, host: &HostId) -> Option<Arc<str>> {
        let is_it = |(one, _): &(HostId, u64)| one == host;
        let (idc, named) =
            self.places.iter_mut().find(|(_, named)| named.hosts.iter().any(is_it))?;
        named.hosts.retain(|one| !is_it(one));
        Some(Arc::clone(idc))
    }
}

impl Core {
    /// A peer that has been answered hears of the reserves of its place, and is one itself where there are too few. What
    /// is private has none: each host reads it with its own credentials.
    pub(super) fn name_reserves_to(&mut self, task_id: TaskId, host: HostId) {
        let Some(idc) = self.hosts.get(&host).map(|host| Arc::clone(&host.idc)) else { return };
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let is_shared =
            task.scope() == SizeScope::Normal && task.spec.key.domain == TaskKey::PUBLIC;
        let is_hungry = task.peer(&host).is_some_and(|peer| peer.is_hungry(task.groups()));
        if !is_shared || !is_hungry {
            return;
        }
        if !task.blacklist.contains(&host) {
            task.reserves.add(&idc, host);
        }
        self.name_reserves(task_id, &idc, vec![host]);
    }

    /// A peer has gone, or is elsewhere. Where it was the last reserve that somebody of its place knew, others are named.
    pub(super) fn is_reserve_no_more(&mut self, task_id: TaskId, host: &HostId) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        if let Some(idc) = task.reserves.remove(host) {
            self.renew_reserves(task_id, &idc);
        }
    }

    /// One of them lies: nobody is to turn to it.
    pub(super) fn reserve_lies(&mut self, task_id: TaskId, host: &HostId) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        if let Some(idc) = task.reserves.remove(host) {
            task.reserves.forget_who_knows(&idc);
            self.renew_reserves(task_id, &idc);
        }
    }

    /// A peer has come to want something: it may not have been told.
    pub(super) fn may_need_reserves(&mut self, task_id: TaskId, host: HostId) {
        let Some(idc) = self.hosts.get(&host).map(|host| &host.idc) else { return };
        let Some(task) = self.tasks.get(&task_id) else { return };
        let Some(peer) = task.peer(&host).filter(|peer| peer.answered) else { return };
        let named = task.reserves.places.get(idc);
        if named.is_none_or(|named| !named.are_known(peer.reserves_told)) {
            self.name_reserves_to(task_id, host);
        }
    }

    /// Others may be named by now where that was to wait.
    pub(super) fn renew_due_reserves(&mut self, task_id: TaskId) {
        let Some(task) = self.tasks.get(&task_id) else { return };
        let is_due = |named: &Named| named.due.is_some_and(|due| due <= self.now);
        let places = task.reserves.places.iter().filter(|(_, named)| is_due(named));
        let places: Vec<Arc<str>> = places.map(|(idc, _)| Arc::clone(idc)).collect();
        places.iter().for_each(|idc| self.renew_reserves(task_id, idc));
    }

    /// Names others to those of a data centre who know none who is there. All of them leaving one after the other would
    /// else cost messages by the square, so not too often.
    fn renew_reserves(&mut self, task_id: TaskId, idc: &Arc<str>) {
        let uninformed = self.uninformed_in(task_id, idc);
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(named) = task.reserves.places.get_mut(idc) else { return };
        if uninformed.is_empty() {
            if named.hosts.is_empty() {
                task.reserves.places.remove(idc);
            }
            return;
        }
        let due = named.renewed.map_or(now, |at| at.after(NAMED_EVERY));
        if due > now {
            named.due = Some(due);
            return self.timers.set(due, Timer::Reserves(task_id));
        }
        (named.renewed, named.due) = (Some(now), None);
        let honest = uninformed.iter().filter(|host| !task.blacklist.contains(host));
        for host in honest.take(MOST) {
            task.reserves.add(idc, *host);
        }
        self.name_reserves(task_id, idc, uninformed);
    }

    /// The peers of a data centre that lack something, are heard of, and know no reserve who is there.
    fn uninformed_in(&self, task_id: TaskId, idc: &Arc<str>) -> Vec<HostId> {
        let Some(task) = self.tasks.get(&task_id) else { return Vec::new() };
        let Some(named) = task.reserves.places.get(idc) else { return Vec::new() };
        let groups = task.groups();
        let is_there = |id: &&HostId| {
            self.hosts.get(id).is_some_and(|host| {
                host.idc == *idc && host.silent_since.is_none() && host.info.kind == HostKind::Node
            })
        };
        let is_uninformed = |id: &&HostId| {
            task.peer(id).is_some_and(|peer| {
                !named.are_known(peer.reserves_told) && peer.answered && peer.is_hungry(groups)
            })
        };
        // Those without a data centre's name are in no list of their own.
        let mates = if idc.is_empty() { task.roster().all() } else { task.roster().in_idc(idc) };
        let mut uninformed: Vec<HostId> =
            mates.iter().filter(is_uninformed).filter(is_there).copied().collect();
        uninformed.sort_unstable();
        uninformed
    }

    fn name_reserves(&mut self, task_id: TaskId, idc: &Arc<str>, hosts: Vec<HostId>) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let named = task.reserves.places.get(idc).into_iter().flat_map(|named| &named.hosts);
        let reserves: Vec<_> = named
            .filter_map(|(host, _)| self.hosts.get(host).map(|host| Arc::clone(&host.info)))
            .collect();
        if hosts.is_empty() || reserves.is_empty() {
            return;
        }
        let told = task.reserves.count;
        for host in &hosts {
            if let Some(peer) = task.peer_untouched(host) {
                peer.reserves_told = told;
            }
        }
        self.out.push(Decision::NameReserves { hosts, task: task_id, reserves });
    }
}

#[cfg(test)]
mod tests {
    use dfs_model::{GroupSet, Priority};

    use super::super::tests::{MIB, Scene, id, spec};
    use super::super::{Event, Wanted};
    use super::*;

    /// Who is told, and of whom.
    fn named(decisions: &[Decision]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let pick = |decision: &Decision| match decision {
            Decision::NameReserves { hosts, reserves, .. } => Some((
                hosts.iter().map(|host| host.as_bytes()[0]).collect(),
                reserves.iter().map(|info| info.id.as_bytes()[0]).collect(),
            )),
            _ => None,
        };
        decisions.iter().filter_map(pick).collect()
    }

    /// Nodes 1 to 4 in one data centre, 5 and 6 in another one, and a seed that fetches `task` for them.
    fn scene(task: &dfs_model::TaskInfo) -> Scene {
        let mut scene = Scene::new();
        scene.join(100, HostKind::Seed, "");
        (1..=6).for_each(|n| scene.join(n, HostKind::Node, if n < 5 { "a" } else { "b" }));
        scene.register(6, task);
        scene.seed_obtains(100, task);
        scene
    }

    #[test]
    fn the_first_two_of_a_data_centre_are_named_to_all_of_it() {
        let task = spec("a", Some(100 * MIB));
        let mut scene = scene(&task);
        let told: Vec<_> = (1..=5).flat_map(|n| named(&scene.register(n, &task))).collect();
        let expected = [
            (vec![1], vec![1]),
            (vec![2], vec![1, 2]),
            (vec![3], vec![1, 2]),
            (vec![4], vec![1, 2]),
            (vec![5], vec![6, 5]),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_small_and_what_is_private_has_none() {
        let small = spec("small", Some(5000));
        let mut private = spec("private", Some(100 * MIB));
        private.key.domain = "tenant".into();
        for task in [small, private] {
            let mut scene = scene(&task);
            assert!(named(&scene.register(1, &task)).is_empty());
        }
    }

    #[test]
    fn where_all_have_gone_others_are_named_and_not_to_everybody_again_and_again() {
        let task = spec("a", Some(100 * MIB));
        let mut scene = scene(&task);
        (1..=4).for_each(|n| drop(scene.register(n, &task)));
        let mut leaves = |n| named(&scene.tell(Event::HostLeft(id(n))));
        assert!(leaves(1).is_empty(), "there is another one");
        assert_eq!(leaves(2), [(vec![3, 4], vec![3, 4])]);
        assert!(leaves(3).is_empty());
        scene.join(1, HostKind::Node, "a");
        scene.join(2, HostKind::Node, "a");
        assert_eq!(named(&scene.register(1, &task)), [(vec![1], vec![4, 1])]);
        scene.register(2, &task);
        let mut leaves = |n| named(&scene.tell(Event::HostLeft(id(n))));
        assert!(leaves(4).is_empty() && leaves(1).is_empty(), "all were told a moment ago");
        assert_eq!(named(&scene.register(2, &task)), [(vec![2], vec![2])]);
        scene.now = scene.now.after(NAMED_EVERY);
        scene.join(3, HostKind::Node, "a");
        scene.join(4, HostKind::Node, "a");
        (3..=4).for_each(|n| drop(scene.register(n, &task)));
        let mut leaves = |n| named(&scene.tell(Event::HostLeft(id(n))));
        assert!(leaves(2).is_empty());
        assert_eq!(leaves(3), [(vec![4], vec![4])]);
    }

    #[test]
    fn who_knows_only_such_as_have_gone_is_told_of_others_though_the_place_has_some() {
        let task = spec("a", Some(100 * MIB));
        let mut scene = scene(&task);
        (1..=4).for_each(|n| drop(scene.register(n, &task)));
        let leaves = |scene: &mut Scene, n| named(&scene.tell(Event::HostLeft(id(n))));
        assert!(leaves(&mut scene, 1).is_empty());
        scene.join(7, HostKind::Node, "a");
        assert_eq!(named(&scene.register(7, &task)), [(vec![7], vec![2, 7])]);
        assert_eq!(leaves(&mut scene, 2), [(vec![3, 4], vec![7, 3])], "node 7 they never heard of");
        assert!(leaves(&mut scene, 7).is_empty(), "node 3 is there");
        assert!(leaves(&mut scene, 3).is_empty(), "others were named a moment ago");
        scene.now = scene.now.after(NAMED_EVERY);
        assert_eq!(named(&scene.tell(Event::Tick)), [(vec![4], vec![4])]);
    }

    #[test]
    fn who_goes_from_place_to_place_is_a_reserve_of_one_of_them() {
        let task = spec("a", Some(100 * MIB));
        let mut scene = scene(&task);
        for place in ["a", "c", "d", "e"] {
            scene.join(1, HostKind::Node, place);
            assert_eq!(named(&scene.register(1, &task)), [(vec![1], vec![1])]);
        }
        let reserves = &scene.core.tasks[&task.id].reserves;
        let places: Vec<&str> = reserves.places.keys().map(|idc| &**idc).collect();
        assert_eq!(places, ["b", "e"]);
    }

    #[test]
    fn where_one_lies_all_are_told_of_others_and_the_liar_too() {
        let task = spec("a", Some(100 * MIB));
        let mut scene = scene(&task);
        (1..=4).for_each(|n| drop(scene.register(n, &task)));
        scene.core.tasks.get_mut(&task.id).unwrap().blacklist.insert(id(1));
        scene.core.reserve_lies(task.id, &id(1));
        assert_eq!(named(&scene.core.out), [(vec![1, 2, 3, 4], vec![2, 3])]);
    }

    #[test]
    fn who_wants_something_again_is_told_of_those_who_were_named_meanwhile() {
        let task = spec("a", Some(100 * MIB));
        let mut scene = scene(&task);
        (1..=3).for_each(|n| drop(scene.register(n, &task)));
        let want = |scene: &mut Scene| {
            let (host, task, groups) = (id(3), task.id, GroupSet::full(9));
            named(&scene.tell(Event::Want { host, task, groups, priority: Priority::Demand }))
        };
        assert!(want(&mut scene).is_empty(), "it knows them");
        let wanted = |wanted| Event::Register {
            host: id(3),
            task: task.clone(),
            wanted: Wanted::Groups(wanted),
            held: GroupSet::new(),
            priority: Priority::Demand,
        };
        scene.tell(wanted(GroupSet::new()));
        (1..=2).for_each(|n| drop(scene.tell(Event::HostLeft(id(n)))));
        assert_eq!(want(&mut scene), [(vec![3], vec![3])]);
    }
}
