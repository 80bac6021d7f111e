//! `dfctl preheat`.

use std::time::{Duration, Instant};

use dfs_model::ByteSize;
use futures::stream::BoxStream;
use serde_json::{Value, json};

use super::inside::{self, Access, interrupted, of_many};
use crate::backend::{Backend, Failure, FailureClass, Preheating, View};
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::locator::Locator;
use crate::output::progress::{Meter, Progress, TICK};
use crate::output::{Record, printable, when};

/// Where to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    /// The seed that answers for it.
    #[default]
    OneSeed,
}

/// Let the cluster's seed fetch all of something before anybody asks
///
/// Examples:
///   dfctl preheat https://host/model.bin --wait
///   dfctl preheat s3://bucket/data/ https://host/dir/ --scope one-seed
///   dfctl preheat oci://host/team/app:v1 --platform all
///
/// Of an image for several kinds of machines the one for this is meant, or for those of --platform; `--platform all` is all
/// that there are.
///
/// The seed fetches at the lowest urgency, and goes on when the command ends: without --wait that is as soon as it has
/// taken it on. With --wait, success means that a get or mount through the cluster asks the origin for nothing, as long as
/// the cluster remembers what the URL is.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// What to fetch
    #[arg(value_name = "URL", required = true)]
    urls: Vec<String>,
    #[command(flatten)]
    access: Access,
    /// Where to
    #[arg(long, value_enum, default_value_t, env = "DFS_SCOPE", hide_env_values = true)]
    scope: Scope,
    /// Until all of it is there
    #[arg(short, long, env = "DFS_WAIT", hide_env_values = true)]
    wait: bool,
    /// As it would be got, as it would be mounted, or both
    #[arg(long = "as", value_enum, value_name = "VIEW", default_value_t = Seen::Both, env = "DFS_AS",
          hide_env_values = true)]
    seen: Seen,
}

/// What of an artifact is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Seen {
    /// What a mount shows, and what a download gets.
    Both,
    /// The bytes of the URL itself.
    File,
    /// The tree.
    Tree,
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let mut located = Vec::new();
    for url in &args.urls {
        located.extend(args.access.locate_all(context, url).await?);
    }
    located.iter().try_for_each(check)?;
    let view = match args.seen {
        Seen::Both => View::Auto,
        Seen::File => View::File,
        Seen::Tree => View::Tree,
    };
    let Scope::OneSeed = args.scope;
    let backend = inside::backend(context).await?;
    let mut failed = Vec::new();
    for locator in &located {
        match one(context, &*backend, locator, view, args.wait).await {
            Ok(preheated) => context.output.report("preheated", &preheated, || preheated.line())?,
            Err(error) if error.code == &codes::INTERRUPTED => return Err(error),
            Err(error) => failed.push(error),
        }
    }
    of_many(context, located.len(), failed, "were not preheated")
}

/// All of an artifact, which a seed can read.
fn check(locator: &Locator) -> Result<(), CliError> {
    let shown = locator.shown();
    if locator.target.url.lies_here() {
        let what = format!("cannot preheat {shown}");
        return Err(CliError::new(&codes::UNSUPPORTED, what)
            .because("files of this machine are read by this machine only"));
    }
    if locator.inner.is_some() {
        let what = format!("cannot preheat {shown}");
        return Err(CliError::new(&codes::UNSUPPORTED, what)
            .because("an artifact is fetched whole, not a part of it")
            .hint(format!(
                "dfctl preheat {}",
                crate::output::shell_quoted(&locator.target.url.to_string())
            )));
    }
    Ok(())
}

async fn one(
    context: &Context,
    backend: &dyn Backend,
    locator: &Locator,
    view: View,
    wait: bool,
) -> Result<Preheated, CliError> {
    let (shown, begun) = (locator.shown(), Instant::now());
    let mut events = backend.preheat(&locator.target, view);
    let mut preheated = Preheated { url: shown.clone(), ..Preheated::default() };
    let mut progress: Option<Progress<'_>> = None;
    loop {
        let event = match next(context, &mut events, &mut progress).await? {
            Some(Ok(event)) => event,
            Some(Err(failure)) => {
                return Err(CliError::backend("preheat", &shown, failure));
            }
            None => {
                let what = "the preheating ended before all of it was there";
                let failure = Failure::new(FailureClass::SourceFailed, what);
                return Err(CliError::backend("preheat", &shown, failure));
            }
        };
        if let Some(seed) = event.seed {
            if !preheated.seed.is_empty() {
                context.output.note(&format!("another seed takes over: {}", printable(&seed)));
            }
            preheated.seed = seed;
        }
        if event.total != preheated.total {
            // More of it has been found out.
            progress.iter_mut().for_each(Progress::finish);
            progress = None;
        }
        let moved = event.held.saturating_sub(preheated.held);
        (preheated.held, preheated.total) = (event.held, event.total);
        (preheated.complete, preheated.took) = (event.complete, begun.elapsed());
        if event.complete || !wait {
            progress.iter_mut().for_each(Progress::finish);
            return Ok(preheated);
        }
        match &mut progress {
            Some(progress) => progress.moved(moved),
            None => {
                let meter = Meter::new(&shown, Some(event.total), event.held);
                progress = Some(Progress::new(&context.output, context.settings.progress, meter));
            }
        }
    }
}

async fn next(
    context: &Context,
    events: &mut BoxStream<'static, Result<Preheating, Failure>>,
    progress: &mut Option<Progress<'_>>,
) -> Result<Option<Result<Preheating, Failure>>, CliError> {
    use futures::StreamExt;
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            biased;
            () = context.interrupted.cancelled() => {
                return Err(interrupted().hint("the seed goes on; the same command again waits for it"));
            }
            event = events.next() => return Ok(event),
            _ = ticks.tick() => progress.iter_mut().for_each(Progress::tick),
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
struct Preheated {
    url: String,
    seed: String,
    held: u64,
    total: u64,
    complete: bool,
    took: Duration,
}

impl Preheated {
    fn line(&self) -> String {
        let (seed, url) = (printable(&self.seed), &self.url);
        match self.complete {
            true => {
                let took = when::rough(self.took);
                format!("preheated {url}  {} on {seed} in {took}", ByteSize(self.total))
            }
            false => format!("taken on  {url}  {} by {seed}", ByteSize(self.total)),
        }
    }
}

impl Record for Preheated {
    fn json(&self) -> Value {
        json!({
            "url": self.url,
            "seed": self.seed,
            "held_bytes": self.held,
            "total_bytes": self.total,
            "complete": self.complete,
            "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn name(&self) -> Vec<u8> {
        self.url.as_bytes().to_vec()
    }
}
