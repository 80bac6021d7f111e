//! The question before anything is deleted.

use std::io;

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
    for step in planned.plan.deletions().map_err(unreadable)?.take(SHOWN) {
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
