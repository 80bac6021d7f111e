//! Who reads the source for a place that nobody leads any more and no seed serves: named in advance, since nobody can be
//! asked then (decision 0022).
//!
//! Lost with the task: whoever registers anew is told anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{HostId, HostKind, TaskId, TaskKey};

use super::{Core, Decision, Millis, SizeScope};

/// Of a data centre: the second one reads where the first does not.
const MOST: usize = 2;

/// How often others are named where all of a data centre have gone: all who take part are told.
const NAMED_EVERY: Duration = Duration::from_secs(10);

/// The reserves of a task, by data centre.
#[derive(Debug, Default)]
pub struct Reserves(BTreeMap<Arc<str>, Named>);

#[derive(Debug, Default)]
struct Named {
    hosts: Vec<HostId>,
    /// When others were named in the place of those who had gone.
    renewed: Option<Millis>,
}

impl Reserves {
    /// Adds one, where there are too few.
    fn add(&mut self, idc: &Arc<str>, host: HostId) {
        let Named { hosts, .. } = self.0.entry(Arc::clone(idc)).or_default();
        if hosts.len() < MOST && !hosts.contains(&host) {
            hosts.push(host);
        }
    }

    /// Whether a data centre had some and has none any more.
    fn is_bereft(&self, idc: &Arc<str>) -> bool {
        self.0.get(idc).is_some_and(|named| named.hosts.is_empty())
    }

    /// Takes one away that goes; the data centre that has none any more over it.
    fn remove(&mut self, host: &HostId) -> Option<Arc<str>> {
        let (idc, named) = self.0.iter_mut().find(|(_, named)| named.hosts.contains(host))?;
        named.hosts.retain(|one| one != host);
        named.hosts.is_empty().then(|| Arc::clone(idc))
    }

    /// Whether others may be named again by now, in the place of those who have gone.
    fn may_be_renewed(&mut self, idc: &Arc<str>, now: Millis) -> bool {
        let Some(named) = self.0.get_mut(idc) else { return false };
        let may = named.renewed.is_none_or(|at| at.after(NAMED_EVERY) <= now);
        if may {
            named.renewed = Some(now);
        }
        may
    }
}

impl Core {
    /// A peer that has been answered hears of the reserves of its place, and is one itself where there are too few. What
    /// is private has none: each host reads it with its own credentials.
    pub(super) fn name_reserves_to(&mut self, task_id: TaskId, host: HostId) {
        let now = self.now;
        let Some(idc) = self.hosts.get(&host).map(|host| Arc::clone(&host.idc)) else { return };
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let is_shared =
            task.scope() == SizeScope::Normal && task.spec.key.domain == TaskKey::PUBLIC;
        let is_hungry = task.peer(&host).is_some_and(|peer| peer.is_hungry(task.groups()));
        if !is_shared || !is_hungry || task.blacklist.contains(&host) {
            return;
        }
        // The others know one who is there, or have to hear of this one.
        let is_for_all = task.reserves.is_bereft(&idc) && task.reserves.may_be_renewed(&idc, now);
        task.reserves.add(&idc, host);
        let told = if is_for_all { self.hungry_in(task_id, &idc) } else { vec![host] };
        self.name_reserves(task_id, &idc, told);
    }

    /// A peer has gone. Where it was the last reserve of its place, others are named.
    pub(super) fn is_reserve_no_more(&mut self, task_id: TaskId, host: &HostId) {
        let now = self.now;
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let Some(idc) = task.reserves.remove(host) else { return };
        if !task.reserves.may_be_renewed(&idc, now) {
            return;
        }
        let told = self.hungry_in(task_id, &idc);
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let honest = told.iter().filter(|host| !task.blacklist.contains(host));
        for host in honest.take(MOST) {
            task.reserves.add(&idc, *host);
        }
        self.name_reserves(task_id, &idc, told);
    }

    /// The peers of a data centre that lack something and are heard of.
    fn hungry_in(&self, task_id: TaskId, idc: &Arc<str>) -> Vec<HostId> {
        let Some(task) = self.tasks.get(&task_id) else { return Vec::new() };
        let groups = task.groups();
        let is_there = |id: &HostId| {
            self.hosts.get(id).is_some_and(|host| {
                host.idc == *idc && host.silent_since.is_none() && host.info.kind == HostKind::Node
            })
        };
        let hungry = task.hosts_where(|peer| peer.answered && peer.is_hungry(groups));
        hungry.into_iter().filter(is_there).collect()
    }

    fn name_reserves(&mut self, task: TaskId, idc: &Arc<str>, hosts: Vec<HostId>) {
        let named = self.tasks.get(&task).and_then(|task| task.reserves.0.get(idc));
        let named = named.into_iter().flat_map(|named| &named.hosts);
        let reserves: Vec<_> = named
            .filter_map(|host| self.hosts.get(host).map(|host| Arc::clone(&host.info)))
            .collect();
        if !hosts.is_empty() && !reserves.is_empty() {
            self.out.push(Decision::NameReserves { hosts, task, reserves });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Event;
    use super::super::tests::{MIB, Scene, id, spec};
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
}
