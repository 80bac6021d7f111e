//! The arms of a comparison: which strategy decides about a task, and what came of it.
//!
//! A task is drawn by its route key alone: it is in the same arm after a restart, with every scheduler that is told the
//! same arms, and in all its versions and views.

use dfs_model::{REST, RouteKey, TaskKey, WHOLE};

use super::Strategy;
use super::results::Results;

/// Most arms beside the one that has what is left.
pub const MAX_ARMS: usize = 16;

/// A strategy and the share of all tasks that it decides about.
pub struct Arm {
    /// Its name.
    pub name: String,
    /// Who decides.
    pub strategy: Box<dyn Strategy>,
    /// Its share of the tasks, in parts of [`WHOLE`].
    pub share: u32,
    /// What came of it.
    pub(super) results: Results,
}

impl Arm {
    /// Nothing has come of it yet.
    pub fn new(name: impl Into<String>, strategy: Box<dyn Strategy>, share: u32) -> Self {
        Self { name: name.into(), strategy, share, results: Results::default() }
    }
}

/// All arms, in the order in which they divide the keys; the last one has what is left.
pub struct Arms(Vec<Arm>);

/// An arm by its place among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArmNumber(usize);

impl From<Box<dyn Strategy>> for Arms {
    fn from(strategy: Box<dyn Strategy>) -> Self {
        Self::new(strategy, Vec::new())
    }
}

impl Arms {
    /// These arms, as far as their shares go, and the usual strategy for the rest.
    pub fn new(usual: Box<dyn Strategy>, mut arms: Vec<Arm>) -> Self {
        let rest = arms.iter().fold(WHOLE, |rest, arm| rest.saturating_sub(arm.share));
        arms.push(Arm::new(REST, usual, rest));
        Self(arms)
    }

    /// The arm that a task is in.
    pub(super) fn drawn(&self, key: &TaskKey) -> ArmNumber {
        let point = RouteKey::of(&key.domain, &key.url).drawn_of(WHOLE);
        let mut below = 0;
        let number = self.0.iter().position(|arm| {
            below += arm.share;
            point < below
        });
        ArmNumber(number.unwrap_or(self.0.len() - 1))
    }

    pub(super) fn of(&self, number: ArmNumber) -> &Arm {
        &self.0[number.0]
    }

    pub(super) fn results_of(&mut self, number: ArmNumber) -> &mut Results {
        &mut self.0[number.0].results
    }

    /// The one that has what is left.
    pub(super) fn usual(&self) -> &Arm {
        &self.0[self.0.len() - 1]
    }

    /// All of them, by their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (ArmNumber, &Arm)> {
        self.0.iter().enumerate().map(|(number, arm)| (ArmNumber(number), arm))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::spec;
    use super::super::{Leases, Seed004};
    use super::*;

    fn arms() -> Arms {
        let tested = vec![
            Arm::new("a", Box::new(Seed004), 2_000),
            Arm::new("b", Box::new(Leases::random()), 500),
        ];
        Arms::new(Box::new(Leases::swarm()), tested)
    }

    #[test]
    fn every_arm_has_its_share_and_the_usual_one_the_rest() {
        let arms = arms();
        let mut counts = [0; 3];
        for n in 0..10_000 {
            counts[arms.drawn(&spec(&n.to_string(), None).key).0] += 1;
        }
        assert!((1_850..2_150).contains(&counts[0]), "{counts:?}");
        assert!((420..580).contains(&counts[1]), "{counts:?}");
        assert_eq!((arms.usual().name.as_str(), arms.usual().share), (REST, 7_500));
    }

    #[test]
    fn a_task_is_in_the_same_arm_whoever_draws_and_in_every_version() {
        let (one, other) = (arms(), arms());
        for n in 0..200 {
            let key = spec(&n.to_string(), None).key;
            let mut newer = key.clone();
            newer.validator.etag = Some("\"2\"".into());
            assert_eq!(one.drawn(&key), other.drawn(&newer));
        }
    }

    #[test]
    fn all_of_the_tasks_can_be_given_away() {
        let all = vec![Arm::new("a", Box::new(Seed004), WHOLE)];
        let arms = Arms::new(Box::new(Leases::swarm()), all);
        assert!((0..200).all(|n| arms.drawn(&spec(&n.to_string(), None).key) == ArmNumber(0)));
        assert_eq!(arms.usual().share, 0);
    }
}
