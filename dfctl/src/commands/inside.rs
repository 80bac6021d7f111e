//! Finding one entry inside a tree.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;

use dfs_artifact::image::graph::{GraphError, Top};
use dfs_service::config::ServiceAddress;
use dfs_source::FileOptions;
use dfs_source::oci::{Located, Platform, PlatformError};
use dfs_source::s3::Environment;
use futures::StreamExt;

use super::image::parts::{failed, platforms};
use crate::backend::{AgentStatus, Backend, Entry, Failure, FailureClass, Listed, Missing};
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::locator::{Locator, is_local};
use crate::output::progress::{TICK, Waiting};
use crate::output::{count, printable_name};

/// What `--platform` says for all that there are.
const ALL: &str = "all";

/// What a person names, as every command that reads takes it.
#[derive(clap::Args)]
pub struct Named {
    /// URL, or `URL!path` for something inside it, or a path of this machine
    ///
    /// What stands after the last `!` is a path inside the directory or archive (tar, also compressed, zip)
    /// that the URL names. A `!` of the URL or of the path itself is written `%21`, a `%` of the path `%25`;
    /// a URL that ends in `!` has no path. Shells want such names in single quotes.
    #[arg(value_name = "URL[!path]", value_hint = clap::ValueHint::AnyPath)]
    url: String,
    #[command(flatten)]
    access: Access,
}

/// How origins are asked, and by whom.
#[derive(clap::Args, Default)]
pub struct Access {
    /// Header for the origin; one that looks secret never leaves for another host
    #[arg(
        short = 'H',
        long = "header",
        value_name = "K: V",
        env = "DFS_HEADER",
        hide_env_values = true
    )]
    header: Vec<String>,
    /// Profile of ~/.aws with the keys and the region for s3:// URLs
    #[arg(long, value_name = "NAME", env = "DFS_PROFILE", hide_env_values = true)]
    profile: Option<String>,
    /// Store that s3:// URLs mean, as in http://host:9000 [default: AWS]
    #[arg(long, value_name = "URL", env = "DFS_ENDPOINT", hide_env_values = true)]
    endpoint: Option<String>,
    /// Of an image for several kinds of machines the one for these, as in linux/arm64
    #[arg(long, value_name = "OS/ARCH", env = "DFS_PLATFORM", hide_env_values = true)]
    platform: Option<String>,
}

impl Named {
    /// Reads it.
    pub async fn locate(&self, context: &Context) -> Result<Locator, CliError> {
        self.access.locate(context, &self.url).await
    }
}

impl Access {
    /// What `url` means to this user, with the headers given.
    pub async fn locate(&self, context: &Context, url: &str) -> Result<Locator, CliError> {
        let locator = self.locator(context, url, &self.header).await?;
        match self.platform()? {
            Some(platform) => Ok(locator.for_platform(platform)),
            None => Ok(locator),
        }
    }

    /// As [`Self::locate`], where `--platform all` means one for each kind of machines that an image is for.
    pub async fn locate_all(&self, context: &Context, url: &str) -> Result<Vec<Locator>, CliError> {
        if self.platform.as_deref() != Some(ALL) {
            return Ok(vec![self.locate(context, url).await?]);
        }
        let locator = self.locator(context, url, &self.header).await?;
        if Located::of(&locator.target.url).is_err() {
            return Ok(vec![locator]);
        }
        let sources = context.sources(FileOptions::default()).build();
        let source = sources.and_then(|sources| sources.for_target(&locator.target));
        let source = source.map_err(|error| failed("look at", &locator.shown(), error))?;
        let cannot = |error: GraphError| failed("look at", &locator.shown(), error);
        let top = answer(context, Top::of(&*source, &locator.target)).await?.map_err(cannot)?;
        let document = top.document().map_err(|error| cannot(error.into()))?;
        // Images that differ in what no name says are one by that name; what has no name is for nobody.
        let there: BTreeSet<Platform> =
            platforms(&document).into_iter().map(|(platform, _)| platform).collect();
        let there = there.into_iter().filter(Platform::is_nameable);
        let each: Vec<_> = there.map(|platform| locator.clone().for_platform(platform)).collect();
        Ok(if each.is_empty() { vec![locator] } else { each })
    }

    /// The machines that were named.
    pub fn platform(&self) -> Result<Option<Platform>, CliError> {
        let Some(platform) = &self.platform else { return Ok(None) };
        let platform: Result<Platform, PlatformError> = platform.parse();
        platform.map(Some).map_err(|error| {
            CliError::new(&codes::USAGE, "the platform cannot be understood")
                .caused_by(&error)
                .hint("--platform linux/arm64")
        })
    }

    /// The same for what is written to: headers and platform are for what is read, and a directory of this machine may
    /// be new and have any name.
    pub async fn locate_output(&self, context: &Context, url: &str) -> Result<Locator, CliError> {
        if is_local(url) {
            return Locator::directory(url);
        }
        self.locator(context, url, &[]).await
    }

    /// A program of the user's may be asked for keys; what it asks at the terminal is not drawn over.
    async fn locator(
        &self,
        context: &Context,
        url: &str,
        headers: &[String],
    ) -> Result<Locator, CliError> {
        let mut environment = Environment::of_process();
        if let Some(profile) = &self.profile {
            environment = environment.with("AWS_PROFILE", profile);
        }
        if let Some(endpoint) = &self.endpoint {
            environment = environment.with("AWS_ENDPOINT_URL_S3", endpoint);
        }
        let locator = Locator::parse(url, headers)?;
        tokio::select! {
            biased;
            () = context.interrupted.cancelled() => Err(interrupted()),
            meant = locator.meant_in(&environment, self.profile.is_some()) => meant,
        }
    }
}

/// Whoever can read: a node agent, else this process itself.
pub async fn backend(context: &Context) -> Result<Arc<dyn Backend>, CliError> {
    let backend = context.any_backend().await?;
    context.reach_cluster().await?;
    in_the_cluster_meant(context, &*backend).await?;
    Ok(backend)
}

/// What the agent says of itself.
pub async fn status(context: &Context, backend: &dyn Backend) -> Result<AgentStatus, CliError> {
    let told = answer(context, backend.status()).await?;
    told.map_err(|failure| CliError::backend("ask", "the node agent", failure))
}

/// Refuses an agent that takes part in another cluster than the one that was named, or in none.
pub async fn in_the_cluster_meant(
    context: &Context,
    backend: &dyn Backend,
) -> Result<(), CliError> {
    let Some(wanted) = context.settings.cluster_joined().filter(|_| !context.is_alone()) else {
        return Ok(());
    };
    let status = status(context, backend).await?;
    let cluster = status.cluster.unwrap_or_default();
    let is_in_it = async {
        for address in cluster.split(',').filter_map(|address| address.parse().ok()) {
            if is_same(&address, wanted).await {
                return true;
            }
        }
        false
    };
    if answer(context, is_in_it).await? {
        return Ok(());
    }
    let is_in = if cluster.is_empty() { "none".to_owned() } else { cluster };
    let what = format!("the node agent, pid {}, is not in the cluster {wanted}", status.pid);
    Err(CliError::new(&codes::OTHER_CLUSTER, what)
        .because(format!("it takes part in {is_in}"))
        .hint(
            "dfctl config explain cluster      says where it came from; without it, or with --socket PATH of an agent \
             in it, the command goes on",
        ))
}

/// Whether two addresses are of one manager: a name and a number may be.
async fn is_same(one: &ServiceAddress, other: &ServiceAddress) -> bool {
    if one == other {
        return true;
    }
    match (one.resolve().await, other.resolve().await) {
        (Ok(one), Ok(other)) => one.iter().any(|address| other.contains(address)),
        _ => false,
    }
}

/// The entry at `path`, by the listing of its directory.
pub async fn entry_at(
    backend: &dyn Backend,
    locator: &Locator,
    path: &[u8],
) -> Result<Entry, Failure> {
    let parent = path.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &path[..at]);
    let mut entries = backend.list(&locator.target, parent, false);
    while let Some(entry) = entries.next().await {
        match entry? {
            Listed::Entry(entry) if entry.path == path => return Ok(entry),
            Listed::Missing(missing) if missing.path == path => {
                let what = "the origin lists it and does not give it";
                return Err(Failure::new(FailureClass::NoPath, what).because(missing.why));
            }
            Listed::Entry(_) | Listed::Missing(_) => {}
        }
    }
    // Where it is no tree at all, that is the reason.
    if let Some(Err(failure)) = backend.list(&locator.target, path, false).next().await {
        return Err(failure);
    }
    Err(Failure::new(FailureClass::NoPath, "there is no such name in the tree"))
}

/// What is told of something that is missing in a tree.
pub fn missing_error(shown: &str, missing: &Missing) -> CliError {
    let name = match &missing.path[..] {
        [] => "something".to_owned(),
        path => printable_name(path),
    };
    CliError::new(&codes::MEMBER_MISSING, format!("{name} of {shown} is missing"))
        .because(missing.why.clone())
}

/// The next of a stream, or the error of Ctrl-C.
pub async fn next<T>(
    context: &Context,
    stream: &mut (impl futures::Stream<Item = T> + Unpin),
) -> Result<Option<T>, CliError> {
    tokio::select! {
        biased;
        () = context.interrupted.cancelled() => Err(interrupted()),
        item = stream.next() => Ok(item),
    }
}

/// The answer of a call, or the error of Ctrl-C.
pub async fn answer<T>(context: &Context, call: impl Future<Output = T>) -> Result<T, CliError> {
    let mut call = pin!(call);
    let mut waiting = Waiting::new(&context.output, context.settings.progress);
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            biased;
            () = context.interrupted.cancelled() => return Err(interrupted()),
            answer = &mut call => return Ok(answer),
            _ = ticks.tick() => waiting.tick(),
        }
    }
}

/// What becomes of a command about so many things, of which some failed: one that is alone by its own error.
pub fn of_many(
    context: &Context,
    all: usize,
    mut failed: Vec<CliError>,
    what: &str,
) -> Result<Outcome, CliError> {
    let some = failed.len();
    match failed.pop() {
        None => Ok(Outcome::Done),
        Some(error) if all == 1 => Err(error),
        Some(error) => {
            failed.push(error);
            failed.iter().for_each(|error| context.output.error(error));
            let what = format!("{} of {} {what}", count(some as u64), count(all as u64));
            Err(CliError::new(&codes::PARTLY, what).because("each is named above"))
        }
    }
}

/// Stopped by Ctrl-C, with nothing half-done.
pub fn interrupted() -> CliError {
    CliError::new(&codes::INTERRUPTED, "interrupted")
}
