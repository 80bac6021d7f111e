//! `dfs-sim`: see `--help`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use clap::{Parser, ValueEnum};
use dfs_sim::bound;
use dfs_sim::check::Broken;
use dfs_sim::gate::{self, GateError, Row};
use dfs_sim::plot::{self, Drawn};
use dfs_sim::row;
use dfs_sim::scenario::{Rates, Scenario, ScenarioError};
use dfs_sim::strategy::Strategy;

/// Simulate a swarm and compare who decides
///
/// R is the time to the last node as a multiple of what no schedule undercuts. A rule that is broken ends the run with
/// the seed and the scenario that show it.
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
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Draw what came out into this file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Measure how many decisions a processor takes in a second, and nothing else
    #[arg(long, conflicts_with_all = ["scenarios", "strategy", "nodes", "pieces", "rates", "seed", "plot", "gate"])]
    speed: bool,
    /// Measure what no change may make worse, and nothing else; a goal that is missed is a failure
    #[arg(long, conflicts_with_all = ["scenarios", "strategy", "nodes", "pieces", "rates", "seed", "plot"])]
    gate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// What is looked at first, once all have run
    Table,
    /// Everything in columns, between tabulators
    Tsv,
    /// An object with everything on each line
    Json,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error("seed {1} of {2:?}: {0}")]
    Broken(Broken, u64, Box<Scenario>),
    #[error("cannot write {0}: {1}")]
    Plot(String, io::Error),
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error("{0}")]
    Missed(String),
}

impl Error {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Broken(..) | Self::Missed(_) | Self::Gate(_) => 1,
            Self::Scenario(_) | Self::Plot(..) => 2,
        })
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args {
        Args { gate: true, .. } => measure(args.format, gate::rows),
        Args { speed: true, .. } => measure(args.format, gate::speeds),
        _ => simulate(&args),
    };
    result.map_or_else(
        |error| {
            eprintln!("error: {error}");
            error.exit_code()
        },
        |()| ExitCode::SUCCESS,
    )
}

impl Args {
    fn scenarios(&self) -> Result<Vec<Scenario>, ScenarioError> {
        let read = self.scenarios.iter().map(|path| Scenario::read(path));
        let mut all = read.collect::<Result<Vec<_>, _>>()?;
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
    let (mut rows, mut drawn) = (Vec::new(), Vec::new());
    for scenario in &args.scenarios()? {
        for strategy in &args.strategy {
            strategy.check(scenario)?;
            let outcome = strategy
                .run(scenario, args.seed)
                .map_err(|broken| Error::Broken(broken, args.seed, Box::new(scenario.clone())))?;
            let fields = row::fields(&strategy.name(), scenario, args.seed, &outcome);
            print(args.format, &fields, rows.is_empty());
            rows.push(fields);
            let label = format!("{}, {}", scenario.name, strategy.name());
            drawn.push(Drawn { label, bound: bound::with_pieces(scenario), outcome });
        }
    }
    if args.format == Format::Table {
        print!("{}", row::table(&rows));
    }
    let Some(path) = &args.plot else { return Ok(()) };
    fs::write(path, plot::svg(&drawn))
        .map_err(|error| Error::Plot(path.display().to_string(), error))
}

fn print(format: Format, fields: &[row::Field], is_first: bool) {
    match format {
        Format::Table => {}
        Format::Tsv if is_first => println!("{}\n{}", row::heads(fields), row::columns(fields)),
        Format::Tsv => println!("{}", row::columns(fields)),
        Format::Json => println!("{}", row::object(fields)),
    }
}

fn measure(
    format: Format,
    rows: impl FnOnce(&dyn Fn(&Row)) -> Result<Vec<Row>, GateError>,
) -> Result<(), Error> {
    let show = |row: &Row| match (format, row.most) {
        (Format::Json, most) => {
            let (name, value) = (row.name, row.value);
            let goal = most.map_or("null".to_owned(), |most| most.to_string());
            println!(
                "{{\"row\":\"{name}\",\"subject\":\"dfs\",\"value\":{value},\"goal\":{goal},\"runs\":1}}"
            );
        }
        (_, Some(most)) => println!("{:<20} {:>12.4}  at most {most}", row.name, row.value),
        (_, None) => println!("{:<20} {:>12.4}", row.name, row.value),
    };
    let rows = rows(&show)?;
    let missed = rows.iter().filter(|row| !row.holds());
    let missed: Vec<_> = missed
        .map(|row| {
            format!("{} is {:.4}, above {}", row.name, row.value, row.most.unwrap_or_default())
        })
        .collect();
    if missed.is_empty() { Ok(()) } else { Err(Error::Missed(missed.join("; "))) }
}
