//! The question before anything is deleted.

use std::io;

use super::plan::Action;
use super::planning::Planned;
use crate::ask;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{count, counted, printable, printable_name};

/// Names that are shown with the question.
const SHOWN: usize = 5;

/// Whether what the plan deletes may go.
pub async fn confirmed(
    context: &Context,
    planned: &Planned,
    shown: &str,
) -> Result<bool, CliError> {
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
    let entries = counted(all, "entry", "entries");
    ask::confirmed(context, &format!("delete {entries} of {}?", printable(shown))).await
}
