//! The seed: goes back to source for the cluster, and keeps.
//!
//! The gRPC face of a piece engine in the role of a seed. Lazy: what a URL is costs one stat and, for a
//! tree, its listing and index; bytes are fetched when somebody wants them. When the process dies, its
//! store has what it fetched, and the scheduler asks again.

mod abroad;
mod preheat;
mod service;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_model::{ByteRange, GroupRange, HostId, Priority, TaskInfo, TaskKey, groups_in};
use dfs_peer::engine::{CameFrom, Engine, ReadError, Task};
use dfs_peer::swarm::Channels;
use dfs_peer::targets;
use dfs_proto::common;
use dfs_proto::convert;
use dfs_proto::seed::obtain_event::Kind;
use dfs_proto::seed::seed_server;
use dfs_proto::seed::{
    FillPolicy, GroupsVerified, ObtainEvent, ObtainRequest, Obtaining, PreheatRequest,
    ResolveReply, ResolveRequest,
};
use dfs_scheduler::core::TINY_BYTES;
use dfs_service::Tracker;
use dfs_service::net::Caller;
use dfs_service::tls::Role;
use futures::stream::{self, Stream, StreamExt};
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

pub use self::service::{Error, Given, Options, Service};
pub use self::status::status_of;

/// Serves [`seed_server::Seed`] from an engine.
pub struct SeedService {
    engine: Engine,
    name: String,
    channels: Arc<dyn Channels>,
    tracker: Tracker,
}

/// Seeds take orders from schedulers only.
fn of_scheduler<T>(request: Request<T>) -> Result<T, Status> {
    Caller::of(request.extensions()).require_role(Role::Scheduler)?;
    Ok(request.into_inner())
}

type Events = Pin<Box<dyn Stream<Item = Result<ObtainEvent, Status>> + Send>>;

impl SeedService {
    /// The service over `engine`, which must be in the role of a seed, known to people as `name`. It asks the schedulers
    /// of other areas over `channels`. What it was told to fetch for nobody in particular are tasks of `tracker`.
    pub fn new(
        engine: Engine,
        name: String,
        channels: Arc<dyn Channels>,
        tracker: Tracker,
    ) -> Self {
        Self { engine, name, channels, tracker }
    }
}

#[tonic::async_trait]
impl seed_server::Seed for SeedService {
    async fn resolve(
        &self,
        request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveReply>, Status> {
        let asked = of_scheduler(request)?;
        let view = targets::view_from_wire(asked.view());
        let target = targets::from_wire(asked.target.clone()).map_err(bad_request)?;
        if target.url.url().scheme() == "file" {
            let why = "files are read by the host that was asked, never by a seed";
            return Err(Status::permission_denied(why));
        }
        let opened = match self.open_as_told(&target, &asked).await {
            Some(opened) => opened?,
            None => self.engine.open_here(&target, view).await.map_err(|e| status_of(&e))?,
        };
        let delta = self.engine.delta_to(&opened).await;
        let artifact = common::Artifact { delta, ..opened.describe() };
        let tiny = match (&opened.index, &opened.tasks[..]) {
            (None, [task]) if asked.read && task.info().key.domain == TaskKey::PUBLIC => {
                whole(task).await
            }
            _ => None,
        };
        Ok(Response::new(ResolveReply { artifact: Some(artifact), tiny }))
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
        let request = of_scheduler(request)?;
        let fill = request.fill();
        let info = TaskInfo::try_from(request.task.unwrap_or_default()).map_err(bad_request)?;
        let limit = info.length.map_or(u64::MAX, groups_in);
        let wanted = convert::group_set(&request.wanted, limit).map_err(bad_request)?;
        // Not NotFound, which is the origin's word: another seed may know the task.
        let gone = || Status::unavailable(format!("task {} is not known here", info.id.short()));
        let held = match self.engine.held(&info.id).await {
            Some(task) => Some(task),
            None => self.engine.adopt(&info).await,
        };
        let task = held.ok_or_else(gone)?;
        let gained = task.gained();
        let length = task.length().unwrap_or(u64::MAX);
        // What is private is fetched for those who give their credentials with what they ask for.
        let may_ask = task.may_ask_origin();
        for run in wanted.ranges().filter(|_| may_ask) {
            task.prefetch(run.bytes(length), Priority::Bulk);
        }
        if fill == FillPolicy::All && may_ask {
            task.prefetch(ByteRange::new(0, length), Priority::Background);
        }
        let first = obtaining(&task).await?;
        // What is wanted keeps it open; who only listens does not.
        let follow =
            stream::unfold((task.without_hold(), gained), |(task, mut gained)| async move {
                let events = next_events(&task, &mut gained).await?;
                Some((stream::iter(events.into_iter().map(Ok)), (task, gained)))
            });
        let events = stream::iter(first.into_iter().map(Ok)).chain(follow.flatten());
        Ok(Response::new(Box::pin(events)))
    }
}

fn bad_request(error: convert::BadMessage) -> Status {
    Status::invalid_argument(error.to_string())
}

/// How long the answer to what a URL is may wait for its content.
const CONTENT_WITHIN: Duration = Duration::from_secs(1);

/// All of a content that is tiny and may be fetched.
async fn tiny(task: &Task) -> Option<Result<Bytes, ReadError>> {
    let length = task.length().filter(|length| *length <= TINY_BYTES)?;
    let may_be_read = task.is_complete() || task.may_ask_origin();
    may_be_read.then_some(())?;
    Some(task.read(ByteRange::new(0, length), Priority::Demand).await)
}

/// The same with what proves it, if it comes soon. Whoever wants it hears in another way why it does not.
async fn whole(task: &Task) -> Option<common::Whole> {
    let content = tokio::time::timeout(CONTENT_WITHIN, tiny(task)).await.ok()??.ok()?;
    let signed = task.stored().signed_for(GroupRange::new(0, 1));
    let digests = signed.iter().map(|signed| signed.encode().into());
    let digests = digests.map(|encoded| common::SignedDigests { encoded }).collect();
    Some(common::Whole { content, digests })
}

/// What is held at the beginning, and what proves it.
async fn obtaining(task: &Task) -> Result<Vec<ObtainEvent>, Status> {
    let length = task.length();
    let tiny = tiny(task).await.transpose().map_err(|error| status_of(&error.into()))?;
    let tiny = tiny.unwrap_or_default();
    let held = task.stored().have();
    let info = TaskInfo { length, ..task.info().clone() };
    let mut events = vec![event(Kind::Obtaining(Obtaining {
        task: Some((&info).into()),
        held: convert::runs(&held),
        tiny,
    }))];
    for run in held.ranges().take(convert::MAX_RUNS) {
        events.extend(digests(task, run));
    }
    Ok(events)
}

fn event(kind: Kind) -> ObtainEvent {
    ObtainEvent { kind: Some(kind) }
}

fn digests(task: &Task, groups: GroupRange) -> impl Iterator<Item = ObtainEvent> {
    task.stored().signed_for(groups).into_iter().map(|signed| {
        let encoded = signed.encode().into();
        event(Kind::Digests(common::SignedDigests { encoded }))
    })
}

/// Waits for the next groups; `None` when the task closes.
async fn next_events(
    task: &Task,
    gained: &mut tokio::sync::broadcast::Receiver<GroupRange>,
) -> Option<Vec<ObtainEvent>> {
    let news = tokio::select! {
        biased;
        news = gained.recv() => news,
        () = task.closed() => return None,
    };
    let runs = match news {
        Ok(run) => vec![run],
        // The scheduler only needs what is held, not when it came.
        Err(RecvError::Lagged(_)) => task.stored().have().ranges().collect(),
        Err(RecvError::Closed) => return None,
    };
    let mut events: Vec<ObtainEvent> =
        runs.iter().flat_map(|run| digests(task, *run).collect::<Vec<_>>()).collect();
    let mut by_giver: BTreeMap<Option<HostId>, Vec<common::GroupRun>> = BTreeMap::new();
    for (from, run) in runs.iter().flat_map(|run| task.by_giver(*run)) {
        let giver = match from {
            CameFrom::Source => None,
            CameFrom::Parent(host) => Some(host),
        };
        by_giver.entry(giver).or_default().push(run.into());
    }
    if by_giver.is_empty() {
        // Of a content with nothing in it only the length is news.
        by_giver.entry(None).or_default();
    }
    events.extend(by_giver.into_iter().map(|(giver, groups)| {
        let giver_id = giver.map(|host| host.as_bytes().to_vec().into()).unwrap_or_default();
        event(Kind::Verified(GroupsVerified { groups, length: task.length(), giver_id }))
    }));
    Some(events)
}
