//! Who can be let decide.

use clap::ValueEnum;
use dfs_scheduler::matcher::{Choice, Tuning};

use crate::baselines::{Graph, Pull, Pulling};
use crate::check::{Broken, Imports};
use crate::outcome::Outcome;
use crate::policy::{Policy, Swarm};
use crate::run::run;
use crate::scenario::{Scenario, ScenarioError};

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Strategy {
    /// The scheduler's matcher
    Swarm,
    /// The same with any piece
    SwarmRandom,
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
        match self {
            Self::Swarm | Self::SwarmRandom => Ok(()),
            _ if scenario.faults.is_empty() => Ok(()),
            _ => Err(ScenarioError::Unfit(self.name())),
        }
    }

    /// Runs a scenario with it.
    pub fn run(self, scenario: &Scenario, seed: u64) -> Result<Outcome, Broken> {
        let imports = match self {
            Self::Swarm | Self::SwarmRandom if is_calm(scenario) => Imports::Once,
            _ => Imports::Again,
        };
        let mut policy = self.policy(scenario, seed);
        match self {
            Self::Swarm | Self::SwarmRandom => run(scenario, imports, &mut *policy, seed),
            // Who is compared with it knows no limit.
            _ => {
                let scenario = Scenario { partners: u32::MAX, ..scenario.clone() };
                run(&scenario, imports, &mut *policy, seed)
            }
        }
    }

    fn policy(self, scenario: &Scenario, seed: u64) -> Box<dyn Policy> {
        let pulling =
            |pull, graph| Box::new(Pulling::new(scenario, pull, graph, seed)) as Box<dyn Policy>;
        let swarm = |choice| {
            let tuning = Tuning {
                sampled: scenario.sampled,
                uplink: scenario.uplink_leases,
                downlink: scenario.downlink_leases,
                window: 0,
                run: scenario.run,
                partners: scenario.partners,
                choice,
                ..Tuning::default()
            };
            Box::new(Swarm::new(scenario, tuning, seed)) as Box<dyn Policy>
        };
        match self {
            Self::Swarm => swarm(Choice::Rarest),
            Self::SwarmRandom => swarm(Choice::Random),
            Self::Random => pulling(Pull::Random, Graph::Everybody),
            Self::Rarest => pulling(Pull::Rarest, Graph::Everybody),
            Self::Dag => pulling(Pull::Random, Graph::ThreeOfFifteen),
            Self::Tree => pulling(Pull::Random, Graph::Tree(2)),
            Self::Graph => pulling(Pull::Random, Graph::Neighbours(10)),
        }
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
