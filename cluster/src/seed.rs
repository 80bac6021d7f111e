//! The seed: goes back to source for the cluster, and keeps.
//!
//! The gRPC face of a piece engine in the role of a seed. Lazy: what a URL is costs one stat and, for a
//! tree, its listing and index; bytes are fetched when somebody wants them. When the process dies, its
//! store has what it fetched, and the scheduler asks again.

mod abroad;
mod answers;
mod level;
mod preheat;
mod service;
mod status;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dfs_leader::giving;
use dfs_model::{GroupRange, TaskKey};
use dfs_peer::engine::{Engine, Task};
use dfs_peer::swarm::Channels;
use dfs_peer::targets;
use dfs_proto::common;
use dfs_proto::convert;
use dfs_proto::seed::seed_server;
use dfs_proto::seed::{ObtainEvent, ObtainRequest, PreheatRequest, ResolveReply, ResolveRequest};
use dfs_service::Tracker;
use dfs_service::net::Caller;
use dfs_service::tls::Role;
use dfs_source::Target;
use dfs_source::oci::Platform;
use futures::stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

pub use self::answers::Answers;
pub(crate) use self::answers::has_secrets;
pub use self::service::{Error, Given, Options, Service};
pub(crate) use self::status::is_the_seeds_own;
pub use self::status::status_of;

/// Serves [`seed_server::Seed`] from an engine.
pub struct SeedService {
    engine: Engine,
    name: String,
    channels: Arc<dyn Channels>,
    tracker: Tracker,
    answers: Answers,
}

/// Seeds take orders from schedulers only.
fn of_scheduler<T>(request: Request<T>) -> Result<T, Status> {
    Caller::of(request.extensions()).require_role(Role::Scheduler)?;
    Ok(request.into_inner())
}

/// What a URL is they also say to nodes, which ask when no scheduler answers.
fn of_scheduler_or_node<T>(request: Request<T>) -> Result<T, Status> {
    let caller = Caller::of(request.extensions());
    caller.require_role(Role::Node).or_else(|_| caller.require_role(Role::Scheduler))?;
    Ok(request.into_inner())
}

type Events = Pin<Box<dyn Stream<Item = Result<ObtainEvent, Status>> + Send>>;

impl SeedService {
    /// The service over `engine`, which must be in the role of a seed, known to people as `name`. It asks the schedulers
    /// of other areas over `channels`. What it was told to fetch for nobody in particular are tasks of `tracker`; what it
    /// was asked is answered from `answers` where the origin is gone.
    pub fn new(
        engine: Engine,
        name: String,
        channels: Arc<dyn Channels>,
        tracker: Tracker,
        answers: Answers,
    ) -> Self {
        Self { engine, name, channels, tracker, answers }
    }

    /// Asks whoever knows what a target is.
    async fn find_out(
        &self,
        target: &Target,
        asked: &ResolveRequest,
    ) -> Result<ResolveReply, Status> {
        let opened = match self.open_as_told(target, asked).await {
            Some(opened) => opened?,
            None => {
                let view = targets::view_from_wire(asked.view());
                let platform = asked.platform.parse().unwrap_or_else(|_| Platform::here());
                let opened = self.engine.open_here(target, view, platform).await;
                opened.map_err(|error| status_of(&error))?
            }
        };
        let delta = self.engine.delta_to(&opened).await;
        let artifact = common::Artifact { delta, ..opened.describe() };
        let tiny = match (&opened.index, &opened.tasks[..]) {
            (None, [task]) if asked.read && task.info().key.domain == TaskKey::PUBLIC => {
                whole(task).await
            }
            _ => None,
        };
        Ok(ResolveReply { artifact: Some(artifact), tiny, level: None })
    }
}

#[tonic::async_trait]
impl seed_server::Seed for SeedService {
    async fn resolve(
        &self,
        request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveReply>, Status> {
        let asked = of_scheduler_or_node(request)?;
        let target = targets::from_wire(asked.target.clone()).map_err(bad_request)?;
        if target.url.lies_here() {
            let why = "files are read by the host that was asked, never by a seed";
            return Err(Status::permission_denied(why));
        }
        if let Some(below) = &asked.level {
            let level = Some(self.level(&target, below, &asked).await?);
            return Ok(Response::new(ResolveReply { level, ..ResolveReply::default() }));
        }
        match self.find_out(&target, &asked).await {
            Ok(answer) => {
                // Whoever waits need not wait for the disk.
                let (answers, known) = (self.answers.clone(), answer.clone());
                self.tracker.tasks().spawn(async move { answers.keep(&asked, &known).await });
                Ok(Response::new(answer))
            }
            Err(status) if !is_the_seeds_own(status.code()) => {
                self.answers.forget(&asked).await;
                Err(status)
            }
            Err(status) => {
                let last = if asked.fresh { None } else { self.answers.last(&asked).await };
                let last = last.ok_or(status)?;
                tracing::info!(url = %target.url, "nobody says what it is now: it is what it was");
                Ok(Response::new(last))
            }
        }
    }

    type PreheatStream = preheat::Events;

    async fn preheat(
        &self,
        request: Request<PreheatRequest>,
    ) -> Result<Response<Self::PreheatStream>, Status> {
        let tasks = of_scheduler(request)?.tasks;
        let events = preheat::begin(&self.engine, &self.name, &self.tracker, tasks).await?;
        Ok(Response::new(events))
    }

    type ObtainStream = Events;

    async fn obtain(
        &self,
        request: Request<ObtainRequest>,
    ) -> Result<Response<Self::ObtainStream>, Status> {
        let events = giving::obtain(&self.engine, of_scheduler(request)?).await;
        let events = events.map_err(|error| match error {
            giving::Error::Malformed(error) => bad_request(error),
            // Not NotFound, which is the origin's word: another seed may know the task.
            giving::Error::Unknown(_) => Status::unavailable(error.to_string()),
            giving::Error::Read(error) => status_of(&error.into()),
        })?;
        Ok(Response::new(Box::pin(events.map(Ok))))
    }
}

fn bad_request(error: convert::BadMessage) -> Status {
    Status::invalid_argument(error.to_string())
}

/// How long the answer to what a URL is may wait for its content.
const CONTENT_WITHIN: Duration = Duration::from_secs(1);

/// The same with what proves it, if it comes soon. Whoever wants it hears in another way why it does not.
async fn whole(task: &Task) -> Option<common::Whole> {
    let content = tokio::time::timeout(CONTENT_WITHIN, giving::tiny(task)).await.ok()??.ok()?;
    let signed = task.stored().signed_for(GroupRange::new(0, 1));
    let digests = signed.iter().map(|signed| signed.encode().into());
    let digests = digests.map(|encoded| common::SignedDigests { encoded }).collect();
    Some(common::Whole { content, digests })
}
