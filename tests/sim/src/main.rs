//! `dfs-sim`: see `--help`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use dfs_sim::check::Broken;
use dfs_sim::row;
use dfs_sim::scenario::{Rates, Scenario, ScenarioError};
use dfs_sim::strategy::Strategy;

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
    /// How streams share links, in place of what the scenario says
    #[arg(long, value_enum)]
    rates: Option<Rates>,
    /// Random numbers begin here
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How runs are printed
    #[arg(long, value_enum, default_value_t = Format::Tsv)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns, between tabulators
    Tsv,
    /// An object on each line
    Json,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error("seed {1} of {2:?}: {0}")]
    Broken(Broken, u64, Box<Scenario>),
}

fn main() -> ExitCode {
    match simulate(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, Error::Broken(..)) { 1 } else { 2 })
        }
    }
}

impl Args {
    fn scenarios(&self) -> Result<Vec<Scenario>, ScenarioError> {
        let read: Result<Vec<_>, _> =
            self.scenarios.iter().map(|path| Scenario::read(path)).collect();
        let mut all = read?;
        if all.is_empty() {
            all.push(Scenario::default());
        }
        let checked = all.into_iter().map(|scenario| {
            let nodes = self.nodes.unwrap_or(scenario.nodes);
            let pieces = self.pieces.unwrap_or(scenario.pieces);
            let rates = self.rates.unwrap_or(scenario.rates);
            Scenario { nodes, pieces, rates, ..scenario }.check()
        });
        checked.collect()
    }
}

fn simulate(args: &Args) -> Result<(), Error> {
    let scenarios = args.scenarios()?;
    let mut is_first = true;
    for scenario in &scenarios {
        for strategy in &args.strategy {
            strategy.check(scenario)?;
            let outcome = strategy
                .run(scenario, args.seed)
                .map_err(|broken| Error::Broken(broken, args.seed, Box::new(scenario.clone())))?;
            let fields = row::fields(&strategy.name(), scenario, args.seed, &outcome);
            match args.format {
                Format::Tsv if std::mem::take(&mut is_first) => {
                    println!("{}\n{}", row::heads(&fields), row::columns(&fields));
                }
                Format::Tsv => println!("{}", row::columns(&fields)),
                Format::Json => println!("{}", row::object(&fields)),
            }
        }
    }
    Ok(())
}
