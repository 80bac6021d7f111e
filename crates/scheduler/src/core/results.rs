//! What came of the tasks of an arm, as hosts tell it: bounded whatever they tell.

use std::collections::BTreeMap;

use super::arms::ArmNumber;
use super::{Core, Millis, Outcome, Taken, Task, Totals};
use dfs_model::statistics::{Cluster, Mean, Moments, Sketch};
use dfs_model::{HostId, Measure, RouteKey, TaskId};

/// What was seen of one measure.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Its mean.
    pub mean: Mean,
    /// Its distribution, of times.
    pub sketch: Sketch,
}

/// What came of an arm.
#[derive(Debug, Default)]
pub(super) struct Results {
    moments: [Moments; Measure::ALL.len()],
    sketches: [Sketch; Measure::ALL.len()],
    moved: Totals,
}

/// What came of everything at one URL: its versions and views are in one arm together, and alike.
#[derive(Debug, Default)]
pub(super) struct Own {
    clusters: [Cluster; Measure::ALL.len()],
    /// How many of its tasks are known.
    tasks: usize,
}

impl Results {
    fn see(&mut self, own: &mut Own, measure: Measure, value: f64) {
        let at = measure as usize;
        self.moments[at].see(&mut own.clusters[at], value);
        if measure.has_distribution() {
            self.sketches[at].see(value);
        }
    }

    fn of(&self, measure: Measure) -> Series {
        let at = measure as usize;
        Series { mean: self.moments[at].mean(), sketch: self.sketches[at].clone() }
    }
}

/// An arm for people.
#[derive(Debug, Clone)]
pub struct ArmReport {
    /// Its name.
    pub name: String,
    /// Who decides.
    pub strategy: &'static str,
    /// Its share of the tasks, in parts of [`WHOLE`](dfs_model::WHOLE).
    pub share: u32,
    /// Tasks of it that are known now.
    pub tasks: usize,
    /// What was seen of each measure, in the order of [`Measure::ALL`].
    pub series: [Series; Measure::ALL.len()],
}

impl Core {
    /// Every arm and what came of it since the scheduler began; the one that has what is left is the last.
    pub fn arms(&self) -> Vec<ArmReport> {
        let report = |(number, arm): (ArmNumber, &super::Arm)| ArmReport {
            name: arm.name.clone(),
            strategy: arm.strategy.name(),
            share: arm.share,
            tasks: self.tasks.values().filter(|task| task.arm == number).count(),
            series: Measure::ALL.map(|measure| arm.results.of(measure)),
        };
        self.arms.all().map(report).collect()
    }

    /// The name of the arm that a task is in.
    pub fn arm_of(&self, task: &TaskId) -> Option<&str> {
        Some(&self.arms.of(self.tasks.get(task)?.arm).name)
    }

    /// Bytes moved for the tasks of each arm, in the order of [`Core::arms`].
    pub fn moved(&self) -> impl Iterator<Item = (&str, &Totals)> {
        self.arms.all().map(|(_, arm)| (&*arm.name, &arm.results.moved))
    }

    pub(super) fn count_moved(&mut self, task_id: TaskId, moved: Totals) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        task.totals.add(moved);
        self.arms.results_of(task.arm).moved.add(moved);
    }

    /// A seed has read bytes of a task: they belong to whichever host succeeds next.
    pub(super) fn count_read_by_seed(&mut self, task_id: TaskId, source: u64) {
        self.count_moved(task_id, Totals { source, ..Totals::default() });
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        task.read_by_seeds = task.read_by_seeds.saturating_add(source);
    }

    /// What the last event added to the results of arms.
    pub fn counted(&self) -> impl Iterator<Item = (&str, Measure, f64)> {
        let named = |(arm, measure, value): &(ArmNumber, _, _)| {
            (&*self.arms.of(*arm).name, *measure, *value)
        };
        self.counted.iter().map(named)
    }

    /// A task is known from now on.
    pub(super) fn keep_route(came: &mut BTreeMap<RouteKey, Own>, task: &Task) {
        came.entry(task.route).or_default().tasks += 1;
    }

    /// A task is forgotten, and with the last one of its URL what came of that.
    pub(super) fn forget_route(&mut self, route: RouteKey) {
        let Some(own) = self.came.get_mut(&route) else { return };
        own.tasks = own.tasks.saturating_sub(1);
        if own.tasks == 0 {
            self.came.remove(&route);
        }
    }

    fn see(&mut self, task_id: TaskId, measure: Measure, value: f64) {
        let Some(task) = self.tasks.get(&task_id) else { return };
        let Some(own) = self.came.get_mut(&task.route) else { return };
        self.arms.results_of(task.arm).see(own, measure, value);
        self.counted.push((task.arm, measure, value));
    }

    /// A host is through with a task: once for each time that it registered. What the origin has refused is no failure
    /// of the swarm's.
    pub(super) fn keep_result(
        &mut self,
        task_id: TaskId,
        host: HostId,
        (outcome, taken): (Outcome, Taken),
        now: Millis,
    ) {
        let Some(task) = self.tasks.get_mut(&task_id) else { return };
        let is_refused = task.is_void(now);
        let length = task.spec.length.unwrap_or(u64::MAX);
        let Some(peer) = task.peer_untouched(&host) else { return };
        if !std::mem::take(&mut peer.owes_result) {
            return;
        }
        match outcome {
            Outcome::Failure if is_refused => {}
            Outcome::Failure => self.see(task_id, Measure::Failed, 1.0),
            Outcome::Success => {
                let crossed = std::mem::take(&mut peer.crossed);
                // Nobody needs more of it than there is.
                let source = taken.source.min(length).saturating_add(task.read_by_seeds);
                task.read_by_seeds = 0;
                self.see(task_id, Measure::Failed, 0.0);
                self.see(task_id, Measure::Source, source as f64);
                self.see(task_id, Measure::Crossed, crossed as f64);
                if taken.cost_ms > 0 {
                    self.see(task_id, Measure::Completion, taken.cost_ms.into());
                }
            }
        }
    }

    /// Reads had to wait so long, each in microseconds.
    pub(super) fn keep_blocked(&mut self, task_id: TaskId, blocked_us: &[u32]) {
        blocked_us.iter().for_each(|us| self.see(task_id, Measure::Blocked, f64::from(*us)));
    }
}

#[cfg(test)]
mod tests {
    use dfs_model::{GroupRange, GroupSet, HostKind, TaskInfo};

    use super::super::tests::{MIB, Scene, id, limits, spec};
    use super::super::{Arm, Arms, Done, Event, Leases, RefusalKind, Report, Seed004, SeedEvent};
    use super::*;

    const GROUPS: u64 = 16;

    /// Two arms of a half each, a seed (100) and nodes in two data centres.
    fn scene() -> Scene {
        let tested = Arm::new("tested", Box::new(Seed004), 5_000);
        let arms = Arms::new(Box::new(Leases::swarm()), vec![tested]);
        let mut scene = Scene::in_arms(limits(), arms);
        scene.join(100, HostKind::Seed, "a");
        (1..=3).for_each(|n| scene.join(n, HostKind::Node, if n == 3 { "b" } else { "a" }));
        scene
    }

    /// The `n`th task of an arm.
    fn task(scene: &Scene, arm: &str, n: usize) -> TaskInfo {
        let all = (0..).map(|name: u32| spec(&name.to_string(), Some(MIB)));
        let of_arm = |spec: &TaskInfo| {
            let drawn = scene.core.arms.drawn(&spec.key);
            scene.core.arms.of(drawn).name == arm
        };
        all.filter(of_arm).nth(n).unwrap()
    }

    fn takes_part(scene: &mut Scene, task: &TaskInfo) {
        scene.register(1, task);
        scene.seed_obtains(100, task);
        let groups = GroupSet::full(GROUPS);
        scene.seed_says(100, task, SeedEvent::Verified { groups, length: None, giver: None });
    }

    fn ends(scene: &mut Scene, n: u8, task: &TaskInfo, outcome: Outcome, cost_ms: u32) {
        let taken = Taken { cost_ms, ..Taken::default() };
        scene.tell(Event::PeerResult { host: id(n), task: task.id, outcome, taken });
    }

    fn series(scene: &Scene, arm: &str, measure: Measure) -> Series {
        let arms = scene.core.arms();
        let arm = arms.iter().find(|report| report.name == arm).unwrap();
        arm.series[measure as usize].clone()
    }

    #[test]
    fn the_arm_decides_by_its_own_strategy_and_has_its_own_results() {
        let mut scene = scene();
        for (arm, strategy, cost) in [("tested", "seed004", 40), ("default", "swarm", 10)] {
            for n in 0..2 {
                let task = task(&scene, arm, n);
                takes_part(&mut scene, &task);
                scene.register(2, &task);
                ends(&mut scene, 1, &task, Outcome::Success, cost);
                ends(&mut scene, 2, &task, Outcome::Success, cost);
                let look = super::super::Look {
                    which: super::super::Which::One(task.id),
                    ..Default::default()
                };
                let report = scene.core.look(&look, 1, scene.now).remove(0);
                assert_eq!((&*report.arm, report.strategy), (arm, strategy));
                assert_eq!(scene.core.arm_of(&task.id), Some(arm));
            }
            let Mean { clusters, count, mean, .. } = series(&scene, arm, Measure::Completion).mean;
            assert_eq!((clusters, count, mean), (2, 4, f64::from(cost)));
            // One megabyte a task, read by the seed: for two hosts.
            let source = series(&scene, arm, Measure::Source).mean;
            assert_eq!((source.count, source.mean), (4, MIB as f64 / 2.0));
        }
        let moved: Vec<_> = scene.core.moved().map(|(name, moved)| (name, moved.source)).collect();
        assert_eq!(moved, [("tested", 2 * MIB), ("default", 2 * MIB)]);
        let names: Vec<_> =
            scene.core.arms().iter().map(|arm| (arm.name.clone(), arm.tasks)).collect();
        assert_eq!(names, [("tested".to_owned(), 2), ("default".to_owned(), 2)]);
    }

    #[test]
    fn what_crosses_is_told_once_and_what_was_read_lazily_has_no_completion() {
        let mut scene = scene();
        let task = task(&scene, "tested", 0);
        takes_part(&mut scene, &task);
        scene.register(3, &task);
        let groups = GroupRange::new(0, GROUPS);
        scene.progress(3, &task, Done { groups, parent: Some(id(100)), cost_ms: 1 });
        ends(&mut scene, 3, &task, Outcome::Success, 0);
        scene.register(3, &task);
        ends(&mut scene, 3, &task, Outcome::Success, 0);
        let crossed = series(&scene, "tested", Measure::Crossed).mean;
        assert_eq!((crossed.count, crossed.mean), (2, MIB as f64 / 2.0));
        assert_eq!(series(&scene, "tested", Measure::Completion).mean.count, 0);
        let report = Report { blocked_us: vec![1000, 3000], ..Report::default() };
        scene.tell(Event::Progress { host: id(3), task: task.id, report });
        let blocked = series(&scene, "tested", Measure::Blocked);
        assert_eq!((blocked.mean.count, blocked.mean.mean), (2, 2000.0));
        assert!(blocked.sketch.quantile(1.0).unwrap() > 2900.0);
    }

    #[test]
    fn a_registration_has_one_result_and_it_is_of_the_task_at_most() {
        let mut scene = scene();
        let task = task(&scene, "tested", 0);
        scene.register(1, &task);
        let says = |scene: &mut Scene, outcome| {
            let taken = Taken { source: u64::MAX, cost_ms: 7, ..Taken::default() };
            scene.tell(Event::PeerResult { host: id(1), task: task.id, outcome, taken });
            let of = |measure| series(scene, "tested", measure).mean.count;
            (of(Measure::Failed), of(Measure::Completion))
        };
        assert_eq!(says(&mut scene, Outcome::Success), (1, 1));
        assert_eq!(series(&scene, "tested", Measure::Source).mean.mean, MIB as f64);
        assert_eq!(says(&mut scene, Outcome::Success), (1, 1));
        assert_eq!(says(&mut scene, Outcome::Failure), (1, 1));
        scene.register(1, &task);
        assert_eq!(says(&mut scene, Outcome::Failure), (2, 1));
        assert_eq!(says(&mut scene, Outcome::Success), (2, 1));
    }

    #[test]
    fn versions_of_one_url_are_one_cluster_until_the_last_is_forgotten() {
        let mut scene = scene();
        let one = task(&scene, "tested", 0);
        let mut key = one.key.clone();
        key.validator.etag = Some("\"newer\"".into());
        let newer = TaskInfo { id: key.id(), key, ..one.clone() };
        let other = task(&scene, "tested", 1);
        for (task, clusters) in [(&one, 1), (&newer, 1), (&other, 2)] {
            scene.register(1, task);
            ends(&mut scene, 1, task, Outcome::Success, 10);
            let mean = series(&scene, "tested", Measure::Completion).mean;
            assert_eq!(mean.clusters, clusters);
        }
        assert_eq!(series(&scene, "tested", Measure::Completion).mean.count, 3);
        let kept = [&one, &newer, &other].map(|task| {
            scene.tell(Event::Leave { host: id(1), task: task.id });
            scene.pass(limits().idle);
            assert!(!scene.core.knows(&task.id));
            scene.core.came.len()
        });
        assert_eq!(kept, [2, 1, 0]);
    }

    #[test]
    fn who_takes_no_part_adds_nothing_to_an_arm() {
        let mut scene = scene();
        let task = task(&scene, "tested", 0);
        takes_part(&mut scene, &task);
        let waits = |scene: &mut Scene, n| {
            let report = Report { blocked_us: vec![1000], ..Report::default() };
            scene.tell(Event::Progress { host: id(n), task: task.id, report });
            (scene.core.counted().count(), series(scene, "tested", Measure::Blocked).mean.count)
        };
        assert_eq!(waits(&mut scene, 2), (0, 0), "it is not in the task");
        assert_eq!(waits(&mut scene, 100), (0, 0), "a seed has no readers");
        let held = GroupSet::full(GROUPS);
        let digests = Vec::new();
        let spec = task.clone();
        scene.tell(Event::Announced { host: id(3), task: spec, held, digests, stood_in: false });
        assert_eq!(waits(&mut scene, 3), (0, 0), "it has announced what it holds, no more");
        assert_eq!(waits(&mut scene, 1), (1, 1));
        assert_eq!(
            scene.core.counted().collect::<Vec<_>>(),
            [("tested", Measure::Blocked, 1000.0)]
        );
        scene.tell(Event::Tick);
        assert_eq!(scene.core.counted().count(), 0, "of the last event");
    }

    #[test]
    fn who_gives_up_is_counted_unless_the_origin_refused() {
        let mut scene = scene();
        let task_0 = task(&scene, "tested", 0);
        takes_part(&mut scene, &task_0);
        ends(&mut scene, 1, &task_0, Outcome::Failure, 5);
        let failed = series(&scene, "tested", Measure::Failed).mean;
        assert_eq!((failed.count, failed.mean), (1, 1.0));
        assert_eq!(series(&scene, "tested", Measure::Completion).mean.count, 0);
        let task_1 = task(&scene, "tested", 1);
        scene.register(2, &task_1);
        let (kind, reason) = (RefusalKind::NotFound, String::new());
        scene.seed_says(100, &task_1, SeedEvent::Failed { kind, reason });
        ends(&mut scene, 2, &task_1, Outcome::Failure, 5);
        assert_eq!(series(&scene, "tested", Measure::Failed).mean.count, 1);
        // Nobody takes part who has not registered.
        ends(&mut scene, 3, &task_0, Outcome::Failure, 5);
        assert_eq!(series(&scene, "tested", Measure::Failed).mean.count, 1);
    }
}
