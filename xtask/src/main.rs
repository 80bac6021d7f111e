//! The project's own commands: `cargo xtask COMMAND`, one file each.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod demo;
mod dist;
mod fuzz;
mod generate;
mod image;
mod interrupt;
mod prepare;
mod ring;
mod run;
mod sabotage;
mod sim;
mod test;
mod testbed;
mod units;
mod workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Work on dfs")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure against others: the rows of the goals
    Bench(bench::Args),
    /// Mount a URL on some nodes at once, read everything, and account for every byte
    Demo(demo::Args),
    /// Build what is given away: static programs, a tarball, a Debian package
    Dist(dist::Args),
    /// Look for input that breaks whatever reads what strangers write
    Fuzz(fuzz::Args),
    /// Write manual pages, completions and references from the programs
    Gen(generate::Args),
    /// Simulate whole clusters on links that break, each from a seed
    Ring(ring::Args),
    /// Simulate a swarm, and what else could decide in place of the scheduler
    Sim(sim::Args),
    /// Run what CI runs: format, lints, licences, doctests, unit and end-to-end tests
    Test(test::Args),
    /// Machines on links of their own, to try things on and to break
    Testbed(testbed::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Gen(args) => generate::run(&args),
        Command::Ring(args) => ring::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Testbed(args) => testbed::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nerror: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
