//! `dfctl upgrade`.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::inside::{answer, interrupted, status};
use crate::backend::AgentStatus;
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::when::rough;
use crate::output::{Record, counted};

/// How long the next agent may take to answer.
const ANSWERS: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Have the node agent replaced by the program that is installed now
///
/// Examples:
///   dfctl upgrade
///   dfctl upgrade --format json
///
/// What is mounted stays, files stay open, and reads go on with the next agent.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// What was done.
struct Upgraded {
    before: AgentStatus,
    after: AgentStatus,
    mounts: u32,
    took: Duration,
}

impl Record for Upgraded {
    fn json(&self) -> Value {
        json!({
            "before": self.before.json(),
            "after": self.after.json(),
            "mounts": self.mounts,
            "seconds": self.took.as_secs_f64(),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.after.version.clone().into()
    }
}

/// Runs it.
pub async fn run(_args: Args, context: &Context) -> Result<Outcome, CliError> {
    let Some(backend) = context.running_backend()? else { return nothing(context) };
    let before = status(context, &*backend).await?;
    let asked = answer(context, backend.hand_over()).await?;
    let began = Instant::now();
    let mounts =
        asked.map_err(|failure| CliError::backend("replace", "the node agent", failure))?;
    let after = next(context, &before, began).await?;
    let upgraded = Upgraded { before, after, mounts, took: began.elapsed() };
    context.output.report("upgraded", &upgraded, || {
        let Upgraded { before, after, mounts, took } = &upgraded;
        let mounts = counted(u64::from(*mounts), "mount goes on", "mounts go on");
        format!(
            "upgraded  {} to {}   pid {} to {}   {mounts}   {} without an agent",
            before.version,
            after.version,
            before.pid,
            after.pid,
            rough(*took)
        )
    })?;
    Ok(Outcome::Done)
}

/// An agent that is started later is of the program that is there then.
fn nothing(context: &Context) -> Result<Outcome, CliError> {
    context.output.note("no node agent runs: the next one is of the program that is installed");
    Ok(Outcome::Nothing)
}

/// Waits for another agent. Its process may have the same number: each container has a first one.
async fn next(
    context: &Context,
    before: &AgentStatus,
    began: Instant,
) -> Result<AgentStatus, CliError> {
    while began.elapsed() < ANSWERS {
        if let Ok(Some(backend)) = context.answering_backend()
            && let Ok(status) = backend.status().await
            && status.instance != before.instance
        {
            return Ok(status);
        }
        tokio::select! {
            () = context.interrupted.cancelled() => return Err(interrupted()),
            () = sleep(LOOK_EVERY) => {}
        }
    }
    Err(CliError::new(&codes::NOT_REPLACED, "no other node agent has come")
        .because(format!("the one with pid {} was told to end", before.pid))
        .because("who starts agents here has started none yet: its mounts wait for one"))
}
