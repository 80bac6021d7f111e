//! Who can be let decide.

use clap::ValueEnum;
use dfs_scheduler::core::{self, Seed004, Seed004Plus};
use dfs_scheduler::matcher::{Choice, Tuning};

use crate::baselines::{Graph, Pull, Pulling};
use crate::check::{Broken, Imports};
use crate::core::{Make, Scheduler, Tuned};
use crate::delegating::Delegating;
use crate::hosts;
use crate::outcome::Outcome;
use crate::run::{Nodes, run};
use crate::scenario::{Scenario, ScenarioError};

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Strategy {
    /// The scheduler, by leases
    Swarm,
    /// The same with any piece
    SwarmRandom,
    /// The scheduler, by the parents of the founding design
    #[value(name = "seed004")]
    Seed004,
    /// The same with near parents and bitmaps
    #[value(name = "seed004+")]
    Seed004Plus,
    /// Receivers take any piece of anybody
    Random,
    /// Receivers take the rarest piece of anybody
    Rarest,
    /// Three parents of fifteen
    Dag,
    /// A tree of two children each
    Tree,
    /// Ten neighbours
    Graph,
}

impl Strategy {
    /// Its name.
    pub fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }

    /// Whether it can decide in a scenario.
    pub fn check(self, scenario: &Scenario) -> Result<(), ScenarioError> {
        match self.core(scenario) {
            Some(_) => Ok(()),
            None if scenario.faults.is_empty() => Ok(()),
            None => Err(ScenarioError::Unfit(self.name())),
        }
    }

    /// Runs a scenario with it.
    pub fn run(self, scenario: &Scenario, seed: u64) -> Result<Outcome, Broken> {
        if let Some(make) = self.core(scenario) {
            let imports = if is_calm(scenario) { Imports::Once } else { Imports::Again };
            let task = hosts::task(scenario);
            let nodes = Nodes::new(scenario, &task);
            if scenario.delegate_above > 0 {
                let mut scheduler = Delegating::new(scenario, make, seed);
                return run(scenario, Imports::Unseen, &mut scheduler, Some(nodes), seed);
            }
            let mut scheduler = Scheduler::new(scenario, make, seed);
            return run(scenario, imports, &mut scheduler, Some(nodes), seed);
        }
        let (pull, graph) = match self {
            Self::Rarest => (Pull::Rarest, Graph::Everybody),
            Self::Dag => (Pull::Random, Graph::ThreeOfFifteen),
            Self::Tree => (Pull::Random, Graph::Tree(2)),
            Self::Graph => (Pull::Random, Graph::Neighbours(10)),
            _ => (Pull::Random, Graph::Everybody),
        };
        // Who is compared with it knows no limit.
        let scenario = Scenario { partners: u32::MAX, ..scenario.clone() };
        let mut policy = Pulling::new(&scenario, pull, graph, seed);
        run(&scenario, Imports::Again, &mut policy, None, seed)
    }

    /// Makes the strategy of the scheduler that it is, where it is one.
    fn core(self, scenario: &Scenario) -> Option<Make> {
        let tuned = |choice| Tuned(Tuning { choice, ..scenario.tuning() });
        let strategy: Box<dyn Fn() -> Box<dyn core::Strategy>> = match self {
            Self::Swarm => {
                let tuned = tuned(Choice::Rarest);
                Box::new(move || Box::new(tuned))
            }
            Self::SwarmRandom => {
                let tuned = tuned(Choice::Random);
                Box::new(move || Box::new(tuned))
            }
            Self::Seed004 => Box::new(|| Box::new(Seed004)),
            Self::Seed004Plus => Box::new(|| Box::new(Seed004Plus)),
            Self::Random | Self::Rarest | Self::Dag | Self::Tree | Self::Graph => return None,
        };
        Some(strategy)
    }
}

/// Whether no uplink can seem so slow that its copies do not count.
fn is_calm(scenario: &Scenario) -> bool {
    let is_instant = scenario.jitter_us == 0 && scenario.batch_us == 0 && scenario.service_us == 0;
    scenario.faults.is_empty()
        && scenario.stragglers == 0
        && scenario.uplinks.is_empty()
        && is_instant
}
