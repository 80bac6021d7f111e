//! `dfctl cluster down`.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::place::{Log, of_this_machine};
use crate::codes;
use crate::commands::inside::interrupted;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::shell_quoted;

const STOP_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Stop the cluster of this machine; what it holds stays
///
/// Examples:
///   dfctl cluster down
///   dfctl cluster down --data-dir /srv/dfs
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// Runs it.
pub async fn run(_args: Args, context: &Context) -> Result<Outcome, CliError> {
    let (dir, run) = of_this_machine(context)?;
    let Some(run) = run else {
        context.output.note(&format!("no cluster runs on {}", dir.display()));
        return Ok(Outcome::Nothing);
    };
    let log = Log::of(&run, &dir);
    if let Log::Journal(unit) = &log {
        let what =
            format!("the cluster, pid {}, is run by systemd, which would start it again", run.pid);
        return Err(CliError::new(&codes::STOP_FAILED, what)
            .hint(format!("systemctl stop {}", shell_quoted(unit))));
    }
    let failed = |reason: &dyn std::error::Error| {
        let what = format!("cannot stop the cluster, pid {}", run.pid);
        CliError::new(&codes::STOP_FAILED, what).caused_by(reason)
    };
    let Some(pid) = i32::try_from(run.pid).ok().and_then(Pid::from_raw) else {
        return Err(failed(&std::io::Error::other("it announced an impossible pid")));
    };
    match kill_process(pid, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(failed(&error)),
    }
    // One that was stopped ends only once it goes on; one that has ended already needs nothing.
    let _ = kill_process(pid, Signal::CONT);
    let deadline = tokio::time::Instant::now() + STOP_WITHIN;
    while run.is_running() {
        if tokio::time::Instant::now() >= deadline {
            let what = format!("the cluster, pid {}, still runs after 30 s", run.pid);
            let error = CliError::new(&codes::STOP_FAILED, what);
            return Err(match log.command() {
                Some(command) => error.hint(command),
                None => error,
            });
        }
        tokio::select! {
            () = context.interrupted.cancelled() => return Err(interrupted()),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    context.output.note(&format!(
        "stopped the cluster, pid {}; its state stays in {}",
        run.pid,
        dir.display()
    ));
    Ok(Outcome::Done)
}
