//! `dfs-sim`: see `--help`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use dfs_scheduler::matcher::{Choice, Tuning};
use dfs_sim::baselines::{Graph, Pull, Pulling};
use dfs_sim::policy::{Policy, Swarm};
use dfs_sim::row;
use dfs_sim::run::run;
use dfs_sim::scenario::{Scenario, ScenarioError};

/// Simulate a swarm and compare who decides
#[derive(Parser)]
struct Args {
    /// Files of scenarios; none: the flash crowd that the flags describe
    scenarios: Vec<PathBuf>,
    /// Who decides
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["swarm"])]
    strategy: Vec<Strategy>,
    /// Nodes, in place of what the scenario says
    #[arg(long)]
    nodes: Option<u32>,
    /// Pieces, in place of what the scenario says
    #[arg(long)]
    pieces: Option<u32>,
    /// Random numbers begin here
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Strategy {
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
    fn policy(self, scenario: &Scenario, seed: u64) -> Box<dyn Policy> {
        let pulling =
            |pull, graph| Box::new(Pulling::new(scenario, pull, graph, seed)) as Box<dyn Policy>;
        let swarm = |choice| {
            let tuning = Tuning {
                sampled: scenario.sampled,
                uplink: scenario.uplink_leases,
                downlink: scenario.downlink_leases,
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

    fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }
}

fn main() -> ExitCode {
    match simulate(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn simulate(args: &Args) -> Result<(), ScenarioError> {
    let mut scenarios = Vec::new();
    for path in &args.scenarios {
        scenarios.push(Scenario::read(path)?);
    }
    if scenarios.is_empty() {
        scenarios.push(Scenario::default());
    }
    println!("scenario\t{}", row::HEADS.join("\t"));
    for scenario in scenarios {
        let nodes = args.nodes.unwrap_or(scenario.nodes);
        let pieces = args.pieces.unwrap_or(scenario.pieces);
        let scenario = Scenario { nodes, pieces, ..scenario }.check()?;
        for strategy in &args.strategy {
            let mut policy = strategy.policy(&scenario, args.seed);
            let outcome = run(&scenario, &mut *policy);
            let columns = row::columns(&strategy.name(), &scenario, args.seed, &outcome);
            println!("{}\t{}", scenario.name, columns.join("\t"));
        }
    }
    Ok(())
}
