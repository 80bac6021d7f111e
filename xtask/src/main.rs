//! The project's own commands: `cargo xtask COMMAND`, one file each.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod demo;
mod interrupt;
mod prepare;
mod run;
mod test;
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
    /// Mount a URL on some nodes at once, read everything, and account for every byte
    Demo(demo::Args),
    /// Run what CI runs: format, lints, licences, doctests, unit and end-to-end tests
    Test(test::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nerror: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
