//! `dfctl image pull`.

use std::time::{Duration, Instant};

use dfs_model::ByteSize;
use dfs_source::oci::Located;
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::{Value, json};

use crate::backend::{Failure, FailureClass, Ledger, Named, Pulling, View};
use crate::codes;
use crate::commands::inside::{Access, answer, interrupted};
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::output::ledger::shares;
use crate::output::progress::{Meter, Progress, TICK};
use crate::output::records::ledger_json;
use crate::output::{Record, when};

/// Fetch all of an image into this machine's cache
///
/// Examples:
///   dfctl image pull oci://localhost:5000/team/app:v1
///   dfctl image pull --pin oci://localhost:5000/team/app:v1 --platform linux/arm64
///
/// All that a mount of it shows is fetched from whoever has it, and verified as everything is: mounted afterwards, no byte of its
/// files comes from anywhere else. It may be evicted like all that was read, unless --pin keeps it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Which: oci://HOST[:PORT]/REPOSITORY[:TAG], oci-layout:DIR[:NAME] or docker-archive:FILE[:NAME]
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    access: Access,
    /// Keep it, whatever happens, until it is unpinned
    #[arg(long, env = "DFS_PIN", hide_env_values = true)]
    pin: bool,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let locator = args.access.locate(context, &args.url).await?;
    let shown = locator.shown();
    if locator.inner.is_some() || Located::of(&locator.target.url).is_err() {
        return Err(CliError::new(&codes::BAD_URL, format!("{shown} names no image"))
            .hint("dfctl image pull oci://HOST/REPOSITORY:TAG"));
    }
    let backend = context.resident_backend()?;
    if args.pin {
        let target = Box::new(locator.target.clone());
        let named = Named::Target { target, view: View::Tree, path: Vec::new() };
        let pinned = answer(context, backend.pin_tree(&named)).await?;
        pinned.map_err(|failure| CliError::backend("pin", &shown, failure))?;
    }
    let begun = Instant::now();
    let last = follow(context, backend.pull(&locator.target), &shown).await?;
    let Pulling { bytes, ledger, .. } = last;
    let pulled = Pulled { url: shown, bytes, ledger, pinned: args.pin, took: begun.elapsed() };
    context.output.report("pulled", &pulled, || pulled.line())?;
    Ok(Outcome::Done)
}

/// Waits until all of it is here.
async fn follow(
    context: &Context,
    mut events: BoxStream<'static, Result<Pulling, Failure>>,
    shown: &str,
) -> Result<Pulling, CliError> {
    let mut progress: Option<Progress<'_>> = None;
    let mut before = 0;
    loop {
        let event = next(context, &mut events, &mut progress).await?;
        let event = event.unwrap_or_else(|| {
            Err(Failure::new(FailureClass::AgentLost, "it ended before all of it was here"))
        });
        let event = match event {
            Ok(event) => event,
            Err(failure) => {
                progress.iter_mut().for_each(Progress::finish);
                return Err(CliError::backend("pull", shown, failure));
            }
        };
        let progress = progress.get_or_insert_with(|| {
            before = event.cached;
            let meter = Meter::new(shown, Some(event.bytes), event.cached);
            Progress::new(&context.output, context.settings.progress, meter)
        });
        progress.heard(0, event.ledger.clone(), None);
        match event.cached.saturating_sub(before) {
            0 => progress.tick(),
            moved => progress.moved(moved),
        }
        before = before.max(event.cached);
        if event.complete {
            progress.finish();
            return Ok(event);
        }
    }
}

async fn next(
    context: &Context,
    events: &mut BoxStream<'static, Result<Pulling, Failure>>,
    progress: &mut Option<Progress<'_>>,
) -> Result<Option<Result<Pulling, Failure>>, CliError> {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            biased;
            () = context.interrupted.cancelled() => {
                progress.iter_mut().for_each(Progress::finish);
                return Err(interrupted().hint("the same command again fetches what is missing"));
            }
            event = events.next() => return Ok(event),
            _ = ticks.tick() => progress.iter_mut().for_each(Progress::tick),
        }
    }
}

/// What was done.
struct Pulled {
    url: String,
    bytes: u64,
    ledger: Ledger,
    pinned: bool,
    took: Duration,
}

impl Pulled {
    fn line(&self) -> String {
        let (bytes, took) = (ByteSize(self.bytes), when::rough(self.took));
        let pinned = if self.pinned { "   pinned" } else { "" };
        let from = shares(&self.ledger);
        format!("pulled  {}   {bytes} in {took}{pinned}\n        {from}", self.url)
    }
}

impl Record for Pulled {
    fn json(&self) -> Value {
        json!({
            "url": self.url,
            "bytes": self.bytes,
            "pinned": self.pinned,
            "ledger": ledger_json(&self.ledger),
            "seconds": self.took.as_secs_f64(),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.url.as_bytes().to_vec()
    }
}
