//! The question before anything is deleted.

use std::io::{self, Write};

use super::plan::Action;
use super::planning::Planned;
use crate::codes;
use crate::commands::inside::interrupted;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{count, printable_name};

/// Names that are shown with the question.
const SHOWN: usize = 5;

/// Asks whether what the plan deletes may go. Somebody is at the terminal.
pub async fn confirm(context: &Context, planned: &Planned, shown: &str) -> Result<(), CliError> {
    let unreadable = |error: io::Error| planned.unreadable(&error);
    let steps = planned.plan.steps().map_err(unreadable)?;
    let deleted =
        steps.filter(|step| step.as_ref().map_or(true, |step| step.action == Action::Delete));
    for step in deleted.take(SHOWN) {
        let path = step.map_err(unreadable)?.item.entry.path;
        context.output.say(&format!("  delete  {}", printable_name(&path)));
    }
    let all = planned.totals.deletes;
    if all > SHOWN as u64 {
        context.output.say(&format!("  … and {} more", count(all - SHOWN as u64)));
    }
    let question = format!("delete {} of {shown}? [y/N] ", told(all));
    let answered = tokio::task::spawn_blocking(move || {
        let mut stderr = io::stderr();
        write!(stderr, "{question}").and_then(|()| stderr.flush())?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = tokio::select! {
        () = context.interrupted.cancelled() => return Err(interrupted()),
        answer = answered => answer.ok().and_then(Result::ok).unwrap_or_default(),
    };
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(CliError::new(&codes::INTERRUPTED, "nothing was done").because("the answer was not yes"))
}

fn told(number: u64) -> String {
    match number {
        1 => "1 entry".to_owned(),
        number => format!("{} entries", count(number)),
    }
}
