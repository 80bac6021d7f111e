//! What goes wrong, and when: faults of a scenario, drawn from a seed as a list of what happens at which time.

use dfs_scheduler::matcher::Micros;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;

use crate::policy::Node;
use crate::scenario::{Others, Scenario};

/// Something that goes wrong. Shares are of all nodes; times are in seconds; where there is `from` and `until` each
/// node has a moment of its own between the two.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
#[serde(deny_unknown_fields)]
pub enum Fault {
    /// Nodes are killed; they come back after `lasts`, where it is given, with what they had or without.
    Crash {
        /// Of all nodes.
        share: f64,
        /// The first.
        from: f64,
        /// The last.
        until: f64,
        /// Until it is back.
        lasts: Option<f64>,
        /// Whether it has then what it had.
        #[serde(default)]
        keeps: bool,
    },
    /// Nodes neither send nor receive for a while, and say nothing of it.
    Freeze {
        /// Of all nodes.
        share: f64,
        /// The first.
        from: f64,
        /// The last.
        until: f64,
        /// Until it goes on.
        lasts: f64,
    },
    /// Nodes send so many `times` slower for a while.
    Slow {
        /// Of all nodes.
        share: f64,
        /// The first.
        from: f64,
        /// The last.
        until: f64,
        /// Until it is fast again.
        lasts: f64,
        /// How much slower.
        times: f64,
    },
    /// A data centre is cut off from all others, from the source and from the scheduler.
    Partition {
        /// Which.
        idc: u32,
        /// When.
        from: f64,
        /// How long.
        lasts: f64,
    },
    /// The scheduler is killed, and knows nothing when it is back but what nodes then tell.
    Scheduler {
        /// When.
        from: f64,
        /// How long.
        lasts: f64,
    },
    /// Of the reports that a piece has come, these shares are lost, come twice, or come later than others.
    Reports {
        /// When it begins.
        from: f64,
        /// When it ends.
        until: f64,
        /// Lost.
        #[serde(default)]
        dropped: f64,
        /// Twice.
        #[serde(default)]
        duplicated: f64,
        /// Late, by up to a tenth of a second.
        #[serde(default)]
        delayed: f64,
    },
    /// Nodes claim to have everything, and have nothing.
    Lie {
        /// Of all nodes.
        share: f64,
    },
    /// What nodes have goes bad: whoever gets it sees that it is wrong.
    Rot {
        /// Of all nodes.
        share: f64,
        /// The first.
        from: f64,
        /// The last.
        until: f64,
    },
}

impl Fault {
    /// Whether it can happen.
    pub fn check(&self, idcs: u32) -> Result<(), &'static str> {
        let (shares, times) = self.numbers();
        if !shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            return Err("a share is between 0 and 1");
        }
        if !times.iter().all(|time| time.is_finite() && *time >= 0.0) {
            return Err("a time is not below zero");
        }
        match self {
            Self::Partition { idc, .. } if *idc >= idcs => Err("there is no such idc"),
            Self::Slow { times, .. } if *times < 1.0 => Err("times is at least 1"),
            _ => Ok(()),
        }
    }

    fn numbers(&self) -> (Vec<f64>, Vec<f64>) {
        match *self {
            Self::Crash { share, from, until, lasts, .. } => {
                (vec![share], vec![from, until, lasts.unwrap_or_default()])
            }
            Self::Freeze { share, from, until, lasts } => (vec![share], vec![from, until, lasts]),
            Self::Slow { share, from, until, lasts, times } => {
                (vec![share], vec![from, until, lasts, times])
            }
            Self::Partition { from, lasts, .. } | Self::Scheduler { from, lasts } => {
                (Vec::new(), vec![from, lasts])
            }
            Self::Reports { from, until, dropped, duplicated, delayed } => {
                (vec![dropped, duplicated, delayed], vec![from, until])
            }
            Self::Lie { share } => (vec![share], Vec::new()),
            Self::Rot { share, from, until } => (vec![share], vec![from, until]),
        }
    }
}

/// Shares of reports that do not come as they should.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Losses {
    /// Lost.
    pub dropped: f64,
    /// Twice.
    pub duplicated: f64,
    /// Late.
    pub delayed: f64,
}

/// Something happens to the swarm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Act {
    /// A node is killed; whether it keeps what it has.
    Crash(Node, bool),
    /// It is back.
    Restart(Node),
    /// It neither sends nor receives from now on, or does again.
    Freeze(Node, bool),
    /// It sends so many times slower than it can.
    Slow(Node, f64),
    /// What it has goes bad; or is good again.
    Rot(Node, bool),
    /// A data centre is cut off.
    Cut(u32),
    /// It is reached again.
    Mend(u32),
    /// The scheduler is killed, or back.
    Scheduler(bool),
    /// Reports fare like this from now on.
    Reports(Losses),
}

/// All that goes wrong.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// In the order of time.
    pub acts: Vec<(Micros, Act)>,
    /// Nodes that lie.
    pub liars: Vec<Node>,
    /// Nodes that must get everything.
    pub must: Vec<Node>,
}

/// Draws what goes wrong in a scenario. Each fault has random numbers of its own: without one the others happen as
/// before.
pub fn plan(scenario: &Scenario, seed: u64) -> Plan {
    let mut plan = Plan::default();
    for fault in &scenario.faults {
        let kind = std::mem::discriminant(fault);
        let before = scenario.faults.iter().take_while(|other| !std::ptr::eq(*other, fault));
        let nth = before.filter(|other| std::mem::discriminant(*other) == kind).count() as u64;
        let mut random = StdRng::seed_from_u64(seed ^ salt(fault) << 32 ^ nth << 48);
        add(fault, scenario, &mut random, &mut plan);
    }
    if let Some(heal_at) = scenario.heal_at {
        heal(scenario, micros(heal_at), seed, &mut plan);
    } else {
        let mut is_gone = vec![false; scenario.nodes as usize + 1];
        plan.acts.sort_by_key(|(time, _)| *time);
        for (_, act) in &plan.acts {
            match act {
                Act::Crash(node, _) => is_gone[*node as usize] = true,
                Act::Restart(node) => is_gone[*node as usize] = false,
                _ => {}
            }
        }
        let is_owed = |node: &Node| !is_gone[*node as usize] && !plan.liars.contains(node);
        plan.must = (1..=scenario.nodes).filter(is_owed).collect();
    }
    plan.acts.sort_by_key(|(time, _)| *time);
    plan
}

fn salt(fault: &Fault) -> u64 {
    match fault {
        Fault::Crash { .. } => 1,
        Fault::Freeze { .. } => 2,
        Fault::Slow { .. } => 3,
        Fault::Partition { .. } => 4,
        Fault::Scheduler { .. } => 5,
        Fault::Reports { .. } => 6,
        Fault::Lie { .. } => 7,
        Fault::Rot { .. } => 8,
    }
}

fn micros(seconds: f64) -> Micros {
    Micros((seconds * 1e6) as u64)
}

fn add(fault: &Fault, scenario: &Scenario, random: &mut StdRng, plan: &mut Plan) {
    let mut some = |share: f64, from: f64, until: f64| {
        let mut all: Vec<Node> = (1..=scenario.nodes).collect();
        all.shuffle(random);
        all.truncate((f64::from(scenario.nodes) * share).round() as usize);
        let span = (until - from).max(0.0);
        let timed = all.into_iter().map(|node| (node, from + span * random.random::<f64>()));
        timed.collect::<Vec<_>>()
    };
    let mut at = |time: f64, act: Act| plan.acts.push((micros(time), act));
    match *fault {
        Fault::Crash { share, from, until, lasts, keeps } => {
            for (node, time) in some(share, from, until) {
                at(time, Act::Crash(node, keeps));
                if let Some(lasts) = lasts {
                    at(time + lasts, Act::Restart(node));
                }
            }
        }
        Fault::Freeze { share, from, until, lasts } => {
            for (node, time) in some(share, from, until) {
                at(time, Act::Freeze(node, true));
                at(time + lasts, Act::Freeze(node, false));
            }
        }
        Fault::Slow { share, from, until, lasts, times } => {
            for (node, time) in some(share, from, until) {
                at(time, Act::Slow(node, times));
                at(time + lasts, Act::Slow(node, 1.0));
            }
        }
        Fault::Partition { idc, from, lasts } => {
            at(from, Act::Cut(idc));
            at(from + lasts, Act::Mend(idc));
        }
        Fault::Scheduler { from, lasts } => {
            at(from, Act::Scheduler(false));
            at(from + lasts, Act::Scheduler(true));
        }
        Fault::Reports { from, until, dropped, duplicated, delayed } => {
            at(from, Act::Reports(Losses { dropped, duplicated, delayed }));
            at(until, Act::Reports(Losses::default()));
        }
        Fault::Lie { share } => {
            plan.liars.extend(some(share, 0.0, 0.0).into_iter().map(|(node, _)| node));
        }
        Fault::Rot { share, from, until } => {
            for (node, time) in some(share, from, until) {
                at(time, Act::Rot(node, true));
            }
        }
    }
}

/// From then on nothing is wrong with some nodes that can reach each other and the source, which has a full copy.
fn heal(scenario: &Scenario, time: Micros, seed: u64, plan: &mut Plan) {
    let mut random = StdRng::seed_from_u64(seed ^ 9 << 32);
    let mut all: Vec<Node> =
        (1..=scenario.nodes).filter(|node| !plan.liars.contains(node)).collect();
    all.shuffle(&mut random);
    let healed = (all.len() as f64 * scenario.healed).ceil() as usize;
    let lost = all.split_off(healed.min(all.len()));
    plan.acts.retain(|(at, _)| *at < time);
    let mut at = |act: Act| plan.acts.push((time, act));
    for node in &all {
        at(Act::Restart(*node));
        at(Act::Freeze(*node, false));
        at(Act::Slow(*node, 1.0));
        at(Act::Rot(*node, false));
    }
    for node in lost {
        at(match scenario.others {
            Others::Silent => Act::Freeze(node, true),
            Others::Gone => Act::Crash(node, false),
        });
    }
    (0..scenario.idcs).for_each(|idc| at(Act::Mend(idc)));
    at(Act::Scheduler(true));
    at(Act::Reports(Losses::default()));
    all.sort_unstable();
    plan.must = all;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        let crash = |lasts| Fault::Crash { share: 0.2, from: 1.0, until: 2.0, lasts, keeps: true };
        let freeze = Fault::Freeze { share: 0.1, from: 0.0, until: 3.0, lasts: 9.0 };
        let faults = vec![crash(None), freeze, crash(Some(1.0)), Fault::Lie { share: 0.1 }];
        Scenario { nodes: 50, faults, ..Scenario::default() }
    }

    #[test]
    fn equal_seeds_draw_equal_faults_and_each_fault_for_itself() {
        let scenario = scenario();
        assert_eq!(plan(&scenario, 3), plan(&scenario, 3));
        assert_ne!(plan(&scenario, 3).acts, plan(&scenario, 4).acts);
        let mut fewer = scenario.clone();
        fewer.faults.remove(1);
        let with = plan(&scenario, 3).acts;
        assert!(plan(&fewer, 3).acts.iter().all(|act| with.contains(act)));
        assert!(with.is_sorted_by_key(|(time, _)| *time));
    }

    #[test]
    fn who_is_gone_for_good_or_lies_is_owed_nothing() {
        let plan = plan(&scenario(), 1);
        let gone = plan.acts.iter().filter(|(_, act)| matches!(act, Act::Crash(..))).count();
        let back = plan.acts.iter().filter(|(_, act)| matches!(act, Act::Restart(_))).count();
        assert_eq!((gone, back, plan.liars.len()), (20, 10, 5));
        assert!((50 - 10 - 5..=50 - 10).contains(&plan.must.len()), "{:?}", plan.must);
    }

    #[test]
    fn once_healed_nothing_goes_wrong_any_more_with_those_that_are_owed() {
        let scenario = Scenario { heal_at: Some(1.5), healed: 0.5, ..scenario() };
        let plan = plan(&scenario, 1);
        assert_eq!(plan.must.len(), 23);
        let last = plan.acts.iter().map(|(time, _)| *time).max();
        assert_eq!(last, Some(Micros(1_500_000)));
        for node in &plan.must {
            let of_it = plan.acts.iter().filter(
                |(_, act)| matches!(act, Act::Freeze(one, _) | Act::Restart(one) if one == node),
            );
            let ends: Vec<_> = of_it.map(|(_, act)| *act).collect();
            assert!(ends.ends_with(&[Act::Restart(*node), Act::Freeze(*node, false)]));
        }
    }
}
