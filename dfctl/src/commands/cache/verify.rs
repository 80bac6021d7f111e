//! `dfctl cache verify`.

use dfs_model::{ByteSize, GROUP_BYTES};

use super::what;
use crate::backend::{Failure, FailureClass, Repair, Verified};
use crate::codes;
use crate::commands::inside::next;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::{Format, Items, Verbosity, count, counted, printable};

/// Hash what the cache holds again; mark damaged groups missing
///
/// Examples:
///   dfctl cache verify
///   dfctl cache verify --repair /mnt/models/llama
///
/// Of a path inside of a mount, or a URL, the tasks in which it lies are hashed as a whole. What is damaged is fetched again
/// when it is read next, with --repair at once, and always at once where a mount of the lane kernel shows it: there nobody is
/// asked. What was found before and has not come again since is repaired, too.
/// Ends with exit code 6 when damage was found, with --repair when some of it is still there.
/// Only the agent's own user and root may do it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Only these: tasks by their ids or the beginnings of them, paths inside of mounts, or URLs
    #[arg(value_name = "TASK|FILE|URL", value_hint = clap::ValueHint::AnyPath)]
    what: Vec<String>,
    /// Fetch what is damaged again now
    #[arg(long, env = "DFS_REPAIR", hide_env_values = true)]
    repair: bool,
}

/// How `dfctl cache verify` is typed.
const TYPED: &str = "cache verify";

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let (backend, tasks) = match args.what.is_empty() {
        true => (context.resident_backend()?, Vec::new()),
        false => what::all_tasks(context, &args.what, TYPED).await?,
    };
    let failed = |failure| CliError::backend("verify", "the cache", failure);
    let output = &context.output;
    let ids: Vec<_> = tasks.iter().map(|task| task.task.id).collect();
    let repair = if args.repair { Repair::Now } else { Repair::WhenRead };
    let mut events = backend.verify_cache(&ids, repair);
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
        output.line(&summary(&totals, repair))?;
    }
    left(&totals, repair)
}

fn summary(totals: &Verified, repair: Repair) -> String {
    let bytes = ByteSize(totals.groups_checked.saturating_mul(GROUP_BYTES));
    let repaired = match repair {
        Repair::WhenRead if totals.groups_repaired == 0 => String::new(),
        _ => format!(", {} fetched again", count(totals.groups_repaired)),
    };
    format!(
        "verified {} (at most {bytes}), {} damaged{repaired}",
        counted(totals.groups_checked, "group", "groups"),
        count(totals.groups_bad)
    )
}

/// Damage that is not mended is an error.
fn left(totals: &Verified, repair: Repair) -> Result<Outcome, CliError> {
    let left = totals.groups_bad.saturating_sub(totals.groups_repaired);
    if left == 0 {
        return Ok(Outcome::Done);
    }
    let what = match left {
        1 => "1 group of the cache is damaged".to_owned(),
        left => format!("{} groups of the cache are damaged", count(left)),
    };
    let error = CliError::new(&codes::CACHE_DAMAGED, what);
    Err(match repair {
        _ if !totals.why_not.is_empty() => error.because(printable(&totals.why_not)),
        Repair::WhenRead => {
            error.because("what is damaged is marked missing and fetched again when it is read")
        }
        Repair::Now => error.because("they are marked missing and could not be fetched again"),
    })
}

fn damage(event: &Verified) -> String {
    let groups: Vec<_> = event.bad_groups.iter().take(8).map(ToString::to_string).collect();
    let more = if event.bad_groups.len() > 8 { ", …" } else { "" };
    let task = event.task.map(|id| id.short()).unwrap_or_default();
    let again = match (event.groups_repaired, &event.why_not[..]) {
        (0, "") => String::new(),
        (0, why) => format!("   not fetched again: {}", printable(why)),
        (some, _) if some < event.groups_bad => format!("   {} fetched again", count(some)),
        _ => "   fetched again".to_owned(),
    };
    format!("damaged  {task}  groups {}{more}{again}", groups.join(", "))
}
