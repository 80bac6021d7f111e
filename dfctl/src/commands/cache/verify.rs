//! `dfctl cache verify`.

use dfs_model::{ByteSize, GROUP_BYTES};

use crate::backend::{Failure, FailureClass, Verified};
use crate::codes;
use crate::commands::inside::next;
use crate::commands::task::named;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::{Format, Items, Verbosity, count, counted};

/// Hash what the cache holds again; mark damaged groups missing
///
/// Examples:
///   dfctl cache verify
///   dfctl cache verify 9f2c41
///
/// Ends with exit code 6 when damage was found.
/// Only the agent's own user and root may do it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Only this task, by its id or the beginning of it
    task: Option<String>,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let backend = context.resident_backend()?;
    let failed = |failure| CliError::backend("verify", "the cache", failure);
    let output = &context.output;
    let only = match &args.task {
        Some(task) => Some(named(context, &*backend, task).await?.task.id),
        None => None,
    };
    let mut events = backend.verify_cache(only);
    let mut items = Items::new(output, "verified");
    let mut totals = None;
    while let Some(event) = next(context, &mut events).await? {
        let event = event.map_err(failed)?;
        if event.finished {
            totals = Some(event);
            break;
        }
        items.push(&event)?;
        if output.format == Format::Human && event.groups_bad > 0 {
            output.line(&damage(&event))?;
        }
    }
    items.finish()?;
    let totals = totals.ok_or_else(|| {
        failed(Failure::new(FailureClass::AgentProtocol, "the answer ended before its totals"))
    })?;
    if output.format == Format::Human && output.verbosity > Verbosity::Quiet {
        let bytes = ByteSize(totals.groups_checked.saturating_mul(GROUP_BYTES));
        output.line(&format!(
            "verified {} (at most {bytes}), {} damaged",
            counted(totals.groups_checked, "group", "groups"),
            count(totals.groups_bad)
        ))?;
    }
    if totals.groups_bad > 0 {
        let what = match totals.groups_bad {
            1 => "1 group of the cache is damaged".to_owned(),
            bad => format!("{} groups of the cache are damaged", count(bad)),
        };
        return Err(CliError::new(&codes::CACHE_DAMAGED, what)
            .because("what is damaged is marked missing and fetched again when it is read"));
    }
    Ok(Outcome::Done)
}

fn damage(event: &Verified) -> String {
    let groups: Vec<_> = event.bad_groups.iter().take(8).map(ToString::to_string).collect();
    let more = if event.bad_groups.len() > 8 { ", …" } else { "" };
    let task = event.task.map(|id| id.short()).unwrap_or_default();
    format!("damaged  {task}  groups {}{more}", groups.join(", "))
}
