//! `dfctl cache unpin`.

use super::pins::{self, Changed};
use super::what;
use crate::backend::{Pin, View};
use crate::commands::inside::{Access, answer};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::{printable, shell_quoted};

/// Let what is pinned go the way of everything else
///
/// Examples:
///   dfctl cache unpin /mnt/models/llama
///   dfctl cache unpin https://host/data/ 9f2c41
///
/// It stays until the cache needs its room; what of it is still missing is not fetched any more. A path means the pin of just
/// that, a URL those of all versions of it. Only the agent's own user and root may do it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Tasks by their ids or the beginnings of them, paths inside of mounts, or URLs
    #[arg(required = true, value_name = "TASK|FILE|URL", value_hint = clap::ValueHint::AnyPath)]
    what: Vec<String>,
}

/// How `dfctl cache unpin` is typed.
const TYPED: &str = "cache unpin";

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let meant = what::all(context, &args.what, &Access::default(), View::Auto).await?;
    let backend = what::backend(context, &meant, TYPED).await?;
    let tasks = pins::tasks_of(context, &*backend, &meant).await?;
    let mut changed = Vec::new();
    for (what, tasks) in meant.iter().zip(tasks) {
        let Some(named) = what.named() else {
            changed.extend(pins::of_tasks(context, &*backend, tasks, Pin::Lift).await?);
            continue;
        };
        let lifted = match answer(context, backend.unpin_tree(&named)).await? {
            Ok(lifted) => lifted,
            Err(failure) => return Err(what.failed(context, "unpin", TYPED, failure).await),
        };
        if lifted.pins.is_empty() {
            let shown = printable(&what.shown());
            context.output.note(&match lifted.within {
                Some(within) => {
                    let within = shell_quoted(&within);
                    format!("{shown} is pinned as a part only: `dfctl cache unpin {within}` lets all of it go")
                }
                None => format!("{shown} is not pinned"),
            });
        }
        let trees = lifted.pins.into_iter();
        changed.extend(trees.map(|pin| Changed::Tree { pin, set: Pin::Lift, is_news: true }));
    }
    if !changed.is_empty() {
        pins::tell(context, &changed)?;
    }
    let any = changed.iter().any(Changed::is_news);
    Ok(if any { Outcome::Done } else { Outcome::Nothing })
}
