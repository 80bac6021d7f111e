//! `dfctl cache pin`.

use std::time::{Duration, Instant};

use dfs_model::ByteSize;

use super::pins::{self, Changed};
use super::what::{self, What};
use crate::backend::{Backend, FailureClass, Ledger, Pin, PinState, PinnedTree, View};
use crate::codes;
use crate::commands::inside::{Access, answer, interrupted};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::printable;
use crate::output::progress::{Meter, Progress, TICK};

/// Keep something in the cache whatever happens, until it is unpinned
///
/// Examples:
///   dfctl cache pin --wait /mnt/models/llama
///   dfctl cache pin 'https://host/data.tar!2026'
///
/// A path inside of a mount, or a URL, is made whole: what is missing of it is fetched in the background, behind whatever
/// somebody waits for, also after a restart of the agent. The version that is mounted, or that the URL has now, is meant.
/// More than the cache has room for is refused before anything is fetched. Credentials are never written down: after a
/// restart the agent asks with its own.
///
/// Of a task, named by its id, what is here and what comes to be here is kept; nothing is fetched because of it.
/// Only the agent's own user and root may do it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Tasks by their ids or the beginnings of them, paths inside of mounts, or URLs
    #[arg(required = true, value_name = "TASK|FILE|URL", value_hint = clap::ValueHint::AnyPath)]
    what: Vec<String>,
    /// Until all of it is here
    #[arg(short, long, env = "DFS_WAIT", hide_env_values = true)]
    wait: bool,
    /// Of a URL: as it would be mounted
    #[arg(long = "as", value_enum, value_name = "VIEW", env = "DFS_AS", hide_env_values = true)]
    view: Option<View>,
    #[command(flatten)]
    access: Access,
}

/// How `dfctl cache pin` is typed.
const TYPED: &str = "cache pin";

/// How often it is looked how far a pin is.
const LOOK: Duration = Duration::from_millis(200);

/// How long an agent that is being replaced or started again is waited for.
const RETURNS: Duration = Duration::from_secs(15);

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let view = args.view.unwrap_or(View::Auto);
    let meant = what::all(context, &args.what, &args.access, view).await?;
    let backend = what::backend(context, &meant, TYPED).await?;
    let tasks = pins::tasks_of(context, &*backend, &meant).await?;
    let mut changed = Vec::new();
    for (what, tasks) in meant.iter().zip(tasks) {
        match what.named() {
            None => changed.extend(pins::of_tasks(context, &*backend, tasks, Pin::Set).await?),
            Some(named) => {
                let pinned = answer(context, backend.pin_tree(&named)).await?;
                let (pin, is_news) = match pinned {
                    Ok(pinned) => pinned,
                    Err(failure) => {
                        return Err(what.failed(context, "pin", TYPED, failure).await);
                    }
                };
                let pin = match args.wait {
                    true => follow(context, &*backend, what, pin).await?,
                    false => pin,
                };
                changed.push(Changed::Tree { pin, set: Pin::Set, is_news });
            }
        }
    }
    pins::tell(context, &changed)?;
    let any = args.wait || changed.iter().any(Changed::is_news);
    Ok(if any { Outcome::Done } else { Outcome::Nothing })
}

/// Waits until it is whole.
async fn follow(
    context: &Context,
    backend: &dyn Backend,
    what: &What,
    mut pin: PinnedTree,
) -> Result<PinnedTree, CliError> {
    let meter = Meter::new(&what.shown(), Some(pin.bytes), pin.cached);
    let mut progress = Progress::new(&context.output, context.settings.progress, meter);
    loop {
        match pin.state {
            PinState::Whole => {
                progress.finish();
                return Ok(pin);
            }
            PinState::Failed => {
                let what = format!("some of {} cannot be had", printable(&pin.url));
                let here = format!("{} of {} are here", ByteSize(pin.cached), ByteSize(pin.bytes));
                return Err(CliError::new(&codes::PIN_FAILED, what)
                    .because(printable(&pin.why))
                    .because(here)
                    .hint("dfctl cache ls --pins"));
            }
            PinState::Waiting => progress.heard(0, Ledger::default(), Some(pin.why.clone())),
            PinState::Fetching => {}
        }
        pause(context, &mut progress).await?;
        let now = look(context, backend, &pin).await?;
        let moved = now.cached.saturating_sub(pin.cached);
        if moved > 0 {
            progress.moved(moved);
        }
        pin = now;
    }
}

async fn pause(context: &Context, progress: &mut Progress<'_>) -> Result<(), CliError> {
    let mut ticks = tokio::time::interval(TICK);
    let over = tokio::time::sleep(LOOK);
    tokio::pin!(over);
    loop {
        tokio::select! {
            biased;
            () = context.interrupted.cancelled() => {
                return Err(interrupted().hint("the agent goes on; the same command again waits for it"));
            }
            () = &mut over => return Ok(()),
            _ = ticks.tick() => progress.tick(),
        }
    }
}

/// How far it is now; an agent that is not there is on its way back.
async fn look(
    context: &Context,
    backend: &dyn Backend,
    pin: &PinnedTree,
) -> Result<PinnedTree, CliError> {
    let began = Instant::now();
    loop {
        let failure = match answer(context, backend.pins()).await? {
            Ok(pins) => {
                let found = pins.into_iter().find(|other| other.id == pin.id);
                return found.ok_or_else(|| {
                    let what = format!("{} was unpinned by somebody else", printable(&pin.url));
                    CliError::new(&codes::PIN_FAILED, what)
                });
            }
            Err(failure) => failure,
        };
        let is_away = matches!(failure.class, FailureClass::AgentLost | FailureClass::AgentSilent);
        if !is_away || began.elapsed() > RETURNS {
            return Err(CliError::backend("look at the pin of", &pin.url, failure));
        }
        tokio::select! {
            () = context.interrupted.cancelled() => return Err(interrupted()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
