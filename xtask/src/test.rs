//! `cargo xtask test`: everything that CI runs, in the order in which it fails fastest.

use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::prepare;
use crate::run::{self, Failure};
use crate::sabotage;
use crate::workspace::cargo;
use crate::{dist, generate, sim};

/// What to run.
#[derive(clap::Args)]
pub struct Args {
    /// Only format, lints and unit tests: nothing beside cargo's own tools is needed
    #[arg(long)]
    fast: bool,
    /// Only this step; may be given several times
    #[arg(long, value_name = "STEP")]
    only: Vec<Step>,
}

/// In the order in which they run; the tests are last, so that their summary ends the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Install what the other steps need; comes before them in any case
    Prepare,
    /// Formatting
    Fmt,
    /// Lints, warnings denied
    Clippy,
    /// Licences, sources and bans of dependencies
    Deny,
    /// Examples in the documentation
    Doc,
    /// Manual pages, completions and references are those of the programs
    Gen,
    /// The programs that end-to-end tests drive
    Build,
    /// The package outside of the workspace that compiles in a source of its own
    Example,
    /// What is given away, as a draft: it is built, checked and packed for each architecture
    Dist,
    /// What a simulated swarm must reach, in a build of its own
    Sim,
    /// Invariants broken on purpose: each has a test that notices
    Sabotage,
    /// Unit and end-to-end tests
    Tests,
}

const ALL: &[Step] = &[
    Step::Prepare,
    Step::Fmt,
    Step::Clippy,
    Step::Deny,
    Step::Build,
    Step::Gen,
    Step::Doc,
    Step::Example,
    Step::Dist,
    Step::Sim,
    Step::Sabotage,
    Step::Tests,
];
const EXAMPLE: &str = "examples/own-source/Cargo.toml";
const FAST: &[Step] = &[Step::Prepare, Step::Fmt, Step::Clippy, Step::Tests];

/// Runs the steps that were asked for, up to the first that fails.
pub fn run(args: &Args) -> Result<(), Failure> {
    let candidates = if args.fast { FAST } else { ALL };
    let steps: Vec<_> = candidates
        .iter()
        .copied()
        .filter(|step| args.only.is_empty() || args.only.contains(step))
        .collect();
    if steps.is_empty() {
        return Err(Failure::Other("--fast leaves this step out".to_owned()));
    }

    let needing = if steps.contains(&Step::Prepare) { candidates } else { &steps };
    let mut times = vec![timed("prepare", || prepare(needing, args.fast))?];
    for step in steps {
        if step == Step::Sabotage {
            times.push(timed(step.name(), sabotage::run)?);
        } else if step == Step::Gen {
            times.push(timed(step.name(), check_generated)?);
        } else if step == Step::Dist {
            times.push(timed(step.name(), dist::check)?);
        } else if step == Step::Sim {
            times.push(timed(step.name(), sim::gate)?);
        } else if let Some(mut command) = step.command(args.fast)? {
            times.push(timed(step.name(), || run::run(&mut command))?);
        }
    }
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    let parts: Vec<_> =
        times.iter().map(|(name, time)| format!("{name} {}", seconds(*time))).collect();
    println!("\npassed in {}: {}", seconds(total), parts.join(" · "));
    Ok(())
}

/// Everything is installed before the first step, so that a machine that is not ready says so at
/// once and not after the lints.
fn prepare(steps: &[Step], fast: bool) -> Result<(), Failure> {
    let drives = |step: &Step| matches!(step, Step::Tests | Step::Sabotage);
    if steps.iter().any(drives) && !fast {
        prepare::packages(prepare::FOR_TESTS)?;
        prepare::erofs_oracle()?;
        prepare::python_home(&prepare::S3_SERVER)?;
        prepare::programs()?;
    }
    if steps.iter().any(drives) {
        prepare::cargo_tool("nextest")?;
    }
    if steps.contains(&Step::Dist) {
        dist::prepare()?;
    }
    if steps.contains(&Step::Deny) {
        prepare::cargo_tool("deny")?;
    }
    Ok(())
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Deny => "deny",
            Self::Gen => "gen",
            Self::Doc => "doc",
            Self::Build => "build",
            Self::Example => "example",
            Self::Dist => "dist",
            Self::Sim => "sim",
            Self::Sabotage => "sabotage",
            Self::Tests => "tests",
        }
    }

    /// What is run for this step; preparing is done already.
    fn command(self, fast: bool) -> Result<Option<Command>, Failure> {
        let Some(arguments) = self.arguments(fast) else { return Ok(None) };
        let feature = if self.is_of_the_test_build() { sabotage::FEATURE } else { &[] };
        cargo(&[arguments, feature].concat()).map(Some)
    }

    /// One build serves all of these, also the tests of programs whose invariants can be broken: a second one
    /// without that would take as long as all tests.
    fn is_of_the_test_build(self) -> bool {
        matches!(self, Self::Build | Self::Doc | Self::Tests)
    }

    /// What cargo does for this step, where that is all.
    fn arguments(self, fast: bool) -> Option<&'static [&'static str]> {
        Some(match self {
            Self::Prepare | Self::Gen | Self::Dist | Self::Sim | Self::Sabotage => return None,
            Self::Fmt => &["fmt", "--all", "--check"],
            Self::Clippy => &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
            Self::Deny => {
                &["deny", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]
            }
            Self::Doc => &["test", "--quiet", "--workspace", "--doc"],
            Self::Build => &["build", "--quiet", "--workspace", "--bins"],
            Self::Example => &["build", "--quiet", "--locked", "--manifest-path", EXAMPLE],
            Self::Tests if fast => &["nextest", "run", "--workspace", "--lib", "--bins"],
            Self::Tests => &["nextest", "run", "--workspace"],
        })
    }
}

fn check_generated() -> Result<(), Failure> {
    let build = Step::Build.command(false)?;
    build.map_or(Ok(()), |mut build| run::run(&mut build))?;
    generate::check()
}

fn timed(
    name: &'static str,
    step: impl FnOnce() -> Result<(), Failure>,
) -> Result<(&'static str, Duration), Failure> {
    println!("\n━━ {name}");
    let started = Instant::now();
    let result = step();
    let time = started.elapsed();
    match &result {
        Ok(()) => println!("━━ {name}: done in {}", seconds(time)),
        Err(_) => println!("━━ {name}: FAILED after {}", seconds(time)),
    }
    result.map(|()| (name, time))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
