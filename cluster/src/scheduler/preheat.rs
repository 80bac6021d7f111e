//! Letting a seed fetch all of an artifact: what the URL is, asked anew and remembered for those who will come, and the
//! order to the seed that found it out. When that seed is lost another one begins.
//!
//! What a download gets comes first and what a mount shows then, so that an archive is unpacked from what is there
//! already. It goes on when nobody listens any more, and ends with this scheduler; what the seed has begun, it ends.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use dfs_model::HostId;
use dfs_peer::classes::{CLASS, Class};
use dfs_peer::dial::Callee;
use dfs_proto::common::{self, Preheating, View};
use dfs_proto::scheduler::{PreheatRequest, ResolveRequest};
use dfs_proto::seed;
use dfs_proto::seed::seed_client::SeedClient;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::Resolver;
use crate::seed::is_the_seeds_own;

/// How a preheating goes.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<Preheating, Status>> + Send>>;

/// Seeds that are tried one after the other, for each way of looking at it.
const SEEDS: usize = 3;

/// News that a listener has not taken yet.
const NEWS: usize = 16;

/// A preheating under way.
struct Job {
    resolver: Resolver,
    request: PreheatRequest,
    news: mpsc::Sender<Result<Preheating, Status>>,
    /// Tasks that are there, and their bytes.
    done: BTreeSet<Bytes>,
    done_bytes: u64,
    /// The seed whose name was told.
    told: Option<HostId>,
}

/// What is to be fetched, and where it was found out.
struct Found {
    artifact: common::Artifact,
    tasks: Vec<common::Task>,
    seed: (HostId, SocketAddr),
}

/// Begins; answers once a seed has taken it on.
pub(super) async fn begin(resolver: Resolver, request: PreheatRequest) -> Result<Events, Status> {
    let (news, events) = mpsc::channel(NEWS);
    let tracker = resolver.tracker().clone();
    let job = Job { resolver, request, news, done: BTreeSet::new(), done_bytes: 0, told: None };
    tracker.tasks().clone().spawn(async move {
        // Who listens hears that the stream ends.
        let _ = tracker.token().run_until_cancelled(job.run()).await;
    });
    let mut events = ReceiverStream::new(events);
    let first = events.next().await;
    let first = first.unwrap_or_else(|| Err(Status::unavailable("the scheduler is stopping")))?;
    Ok(Box::pin(stream::iter([Ok(first)]).chain(events)))
}

impl Job {
    async fn run(mut self) {
        let last = match Box::pin(self.fetch()).await {
            Ok(last) => Ok(Preheating { complete: true, ..last }),
            Err(status) => Err(status),
        };
        // Nobody may listen any more.
        let _ = self.news.send(last).await;
    }

    async fn fetch(&mut self) -> Result<Preheating, Status> {
        match self.request.view() {
            View::Auto | View::Unspecified => {}
            view => {
                let found = self.find(view).await?;
                return self.fetch_found(view, found).await;
            }
        }
        let file = match self.find(View::File).await {
            Ok(found) => Some(self.fetch_found(View::File, found).await?),
            // A directory is no file, which is as well.
            Err(status) if is_refused(status.code()) => None,
            Err(status) => return Err(status),
        };
        match (self.find(View::Auto).await, file) {
            (Ok(found), _) => self.fetch_found(View::Auto, found).await,
            // Nobody can mount it: there is nothing more to be had of it.
            (Err(status), Some(file)) if is_unsupported(&status) => Ok(file),
            (Err(status), _) => Err(status),
        }
    }

    /// What it is by that view, with what is not there of it yet.
    async fn find(&self, view: View) -> Result<Found, Status> {
        let request = ResolveRequest {
            target: self.request.target.clone(),
            view: view.into(),
            principal: self.request.principal.clone(),
            platform: self.request.platform.clone(),
            fresh: true,
            ..ResolveRequest::default()
        };
        let began = Instant::now();
        let reply = self.resolver.resolve(request).await?;
        self.resolver.answer_trees_too(&self.request, &reply, began);
        let seed = HostId::from_slice(&reply.seed_id).zip(self.resolver.seed_at(&reply.seed_id));
        let seed =
            seed.ok_or_else(|| Status::unavailable("the seed that found it out has gone"))?;
        let artifact = reply.artifact.unwrap_or_default();
        let all = artifact.index.iter().chain(&artifact.tasks);
        let tasks = all.filter(|task| !self.done.contains(&task.id)).cloned().collect();
        Ok(Found { artifact, tasks, seed })
    }

    /// To its end; with a seed after the other as far as they are lost.
    async fn fetch_found(&mut self, view: View, mut found: Found) -> Result<Preheating, Status> {
        for left in (0..SEEDS).rev() {
            let lost = match self.order(&found).await {
                Ok(last) => {
                    self.done.extend(found.tasks.into_iter().map(|task| task.id));
                    self.done_bytes = last.total_bytes;
                    return Ok(last);
                }
                Err(status) => status,
            };
            if left == 0 || !is_the_seeds_own(lost.code()) {
                return Err(lost);
            }
            tracing::info!(error = %lost, "a seed was lost in a preheating: another one begins");
            found = self.find(view).await?;
        }
        Err(Status::unavailable("no seed is alive"))
    }

    /// Orders it of the seed that found it out, and follows until all is there.
    async fn order(&mut self, found: &Found) -> Result<Preheating, Status> {
        let mut last = Preheating {
            held_bytes: self.done_bytes,
            total_bytes: self.done_bytes,
            ..Preheating::default()
        };
        if found.tasks.is_empty() {
            return Ok(last);
        }
        let (seed, address) = found.seed;
        let channel = self.resolver.channels().channel(address, Callee::Seed(seed));
        let mut client = SeedClient::new(channel);
        let request = seed::PreheatRequest { tasks: found.tasks.clone() };
        let mut events: Streaming<Preheating> = client.preheat(request).await?.into_inner();
        let mut artifact = Some(found.artifact.clone());
        while let Some(event) = events.message().await? {
            let complete = event.complete;
            // The name stands where another seed begins, and nowhere else.
            let is_told = self.told.replace(seed) == Some(seed);
            last = Preheating {
                seed: if is_told { String::new() } else { event.seed },
                artifact: artifact.take(),
                held_bytes: event.held_bytes.saturating_add(self.done_bytes),
                total_bytes: event.total_bytes.saturating_add(self.done_bytes),
                complete: false,
            };
            if complete {
                return Ok(last);
            }
            // A listener that is slow, or has gone, keeps nobody waiting.
            let _ = self.news.try_send(Ok(last.clone()));
        }
        Err(Status::unavailable("the seed ended before it had all of it"))
    }
}

/// Whether the origin has it in a way that cannot be looked at so.
fn is_unsupported(status: &Status) -> bool {
    let named = status.metadata().get(CLASS).and_then(|class| class.to_str().ok());
    named.and_then(Class::of_name) == Some(Class::Unsupported)
}

/// Whether it is the question that was wrong.
fn is_refused(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented)
}
