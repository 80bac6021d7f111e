//! `cargo xtask fuzz`: looks for input that breaks a target, guided by coverage.
//!
//! Stable compilers know the instrumentation that libFuzzer reads, without the wrapper that usually asks for it. The
//! build lies apart from the others, because everything in it is instrumented.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::run::{self, Failure, failed};
use crate::workspace::{built, cargo, root};

const INSTRUMENTED: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                            -Cllvm-args=-sanitizer-coverage-pc-table \
                            -Cllvm-args=-sanitizer-coverage-trace-compares";

/// What to feed, and for how long.
#[derive(clap::Args)]
pub struct Args {
    /// The target, as its corpus is called: archive, tar, index, frames, …
    target: String,
    /// How long
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Runs it. What breaks the target, and what reached new code, is left beside the build.
pub fn run(args: &Args) -> Result<(), Failure> {
    let host = host()?;
    let place = built("fuzz")?;
    let mut build = cargo(&["build", "--quiet", "--package", "dfs-fuzz", "--features", "guided"])?;
    // With a target of its own, programs that run during the build are not instrumented.
    build.args(["--profile", "demo", "--target", &host]).arg("--target-dir").arg(&place);
    run::run(build.env("RUSTFLAGS", INSTRUMENTED))?;

    let (seeds, found) = (place.join("seeds").join(&args.target), place.join("found"));
    for dir in [&seeds, &found] {
        let made = fs::create_dir_all(dir);
        made.map_err(failed(dir))?;
    }
    let kept = root().join("tests/fuzz/corpus").join(&args.target);
    let mut fuzz = Command::new(place.join(&host).join("demo/fuzz"));
    fuzz.env("FUZZ_TARGET", &args.target).env("FUZZ_SEEDS", &seeds).arg(&seeds);
    fuzz.args(Some(kept).filter(|kept: &PathBuf| kept.is_dir()));
    fuzz.arg(format!("-max_total_time={}", args.seconds));
    fuzz.arg(format!("-artifact_prefix={}/{}-", found.display(), args.target));
    fuzz.args(["-timeout=10", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1"]);
    run::run(&mut fuzz)
}

/// The triple of this machine, as the compiler names it.
fn host() -> Result<String, Failure> {
    let said = Command::new("rustc").arg("-vV").output();
    let said =
        said.map_err(|error| Failure::Other(format!("rustc could not be started: {error}")))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned);
    host.ok_or_else(|| Failure::Other("rustc -vV names no host".to_owned()))
}
