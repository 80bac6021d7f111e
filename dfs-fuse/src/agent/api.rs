//! The agent's gRPC face, `dfs.node.v1`, served on its Unix socket.

mod cache;
mod cached;
mod images;
mod indexes;
mod read;
mod swarm;
pub(super) mod views;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dfs_artifact::erofs::Kind;
use dfs_artifact::{Index, View};
use dfs_model::{ByteSize, Capacity};
use dfs_peer::opener::{OpenArtifact, Purpose};
use dfs_peer::store::Verify;
use dfs_peer::targets;
use dfs_proto::common::Preheating;
use dfs_proto::convert::BadMessage;
use dfs_proto::node::node_server;
use dfs_proto::node::{
    ApplyTraceRequest, CachedReply, CachedRequest, CollectGarbageReply, CollectGarbageRequest,
    FilesChunk, HandOverReply, HandOverRequest, ImagesReply, ImagesRequest, ImportIndexesReply,
    ImportIndexesRequest, IndexImageRequest, LayerIndexPart, ListEntry, ListRequest, MountInfo,
    MountRequest, MountsReply, MountsRequest, Named, OpenReply, OpenRequest, PinReply, PinRequest,
    PinTaskReply, PinTaskRequest, PinsReply, PinsRequest, PreheatRequest, PullProgress,
    PullRequest, ReadChunk, ReadFilesRequest, ReadRequest, RecordTraceRequest, RefreshReply,
    RefreshRequest, RemoveTaskReply, RemoveTaskRequest, StatusReply, StatusRequest, SwarmReply,
    SwarmRequest, TasksReply, TasksRequest, TraceReply, TraceRequest, UnmountReply, UnmountRequest,
    UnpinReply, UnpinRequest, VerifyCacheEvent, VerifyCacheRequest,
};
use futures::stream::{self, Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::asker::Asker;
use super::before::ToMount;
use super::mounts::Meant;
use super::prefetch::Mode;
use super::status::{CallError, status_of};
use super::traced::Traced;
use super::walk::{Depth, Walk, find, missing};
use super::{Agent, CommandId, Looked, MountTableError, OFTENEST, Question, mounts};
use crate::core::Owner;
use crate::lane::Wanted;
use crate::mount::{Audience, Detach, Privileges, Programs, User};

/// Serves the node API from an agent.
#[derive(Clone)]
pub struct NodeService {
    agent: Agent,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn failed(error: impl Into<CallError>) -> Status {
    status_of(&error.into())
}

/// What an index has of the directory at `path`; `kept` is until all of it was taken.
fn entries<T: Send + 'static>(
    index: Arc<Index>,
    path: Vec<u8>,
    depth: Depth,
    kept: T,
) -> Result<Streamed<ListEntry>, Status> {
    let no_path = || failed(CallError::NoPath(String::from_utf8_lossy(&path).into_owned()));
    let nid = find(&index, &path).map_err(failed)?.ok_or_else(no_path)?;
    if index.image().attr(nid).map_err(failed)?.kind != Kind::Directory {
        return Err(failed(CallError::NotTree));
    }
    let lacking = missing(&index, &path, depth);
    let walk = Walk::new(index, nid, path, depth);
    let entries = walk.chain(lacking.into_iter().map(Ok)).map(move |entry| {
        let _kept = &kept;
        entry.map_err(failed)
    });
    Ok(stream::iter(entries).boxed())
}

/// The command that a call is of; none where it names none.
fn command_of(command: &[u8]) -> Result<Option<CommandId>, CallError> {
    let bad = || CallError::BadRequest("the command's name is not 16 bytes".to_owned());
    match command {
        [] => Ok(None),
        bytes => CommandId::from_slice(bytes).ok_or_else(bad).map(Some),
    }
}

/// How often a mount looks its target up that is to follow it.
fn follow_of(every_ms: u64) -> Result<Option<Duration>, CallError> {
    let every = Duration::from_millis(every_ms);
    if every_ms > 0 && every < OFTENEST {
        let what = format!("a mount follows its target every {} s at most", OFTENEST.as_secs());
        return Err(CallError::BadRequest(what));
    }
    Ok((every_ms > 0).then_some(every))
}

/// How a mount shows it.
fn mounted_as(view: dfs_proto::common::View) -> View {
    match targets::view_from_wire(view) {
        View::File => View::OneFile,
        other => other,
    }
}

impl NodeService {
    /// The service over `agent`.
    pub fn new(agent: Agent) -> Self {
        Self { agent }
    }

    /// Reads what is asked for, as it is meant here for who asks.
    async fn question(
        &self,
        (asker, user): (Asker, User),
        target: Option<dfs_proto::common::Target>,
        view: View,
        command: &[u8],
    ) -> Result<Question, CallError> {
        let target =
            targets::from_wire(target).map_err(|error| CallError::BadRequest(error.to_string()))?;
        let target = asker.names(target, user);
        let target = self.agent.complete(&target, asker.asking()).await?;
        let command = command_of(command)?;
        Ok(Question { target, view, command, purpose: Purpose::Look })
    }

    async fn opened(&self, question: &Question) -> Result<Arc<OpenArtifact>, Status> {
        self.agent.open(question).await.map_err(failed)
    }

    /// What is to be mounted, and how it was asked for where the origin had an answer.
    async fn to_mount(
        &self,
        (asker, user): (Asker, User),
        target: Option<dfs_proto::common::Target>,
        view: View,
    ) -> Result<(Option<Question>, ToMount), Status> {
        let named = target.clone();
        let found = match self.question((asker, user), target, view, &[]).await {
            Ok(question) => {
                let found = self.agent.to_mount(&question, asker).await;
                return Ok((Some(question), found.map_err(failed)?));
            }
            Err(CallError::Open(error)) => {
                let bad = |error: BadMessage| failed(CallError::BadRequest(error.to_string()));
                let named = asker.names(targets::from_wire(named).map_err(bad)?, user);
                self.agent.to_mount_without_keys(&named, view, (asker, error)).await
            }
            Err(error) => Err(error),
        };
        Ok((None, found.map_err(failed)?))
    }

    /// The mount or what could be mounted that is named, if the asker may look into it.
    async fn traced(
        &self,
        (asker, user): (Asker, User),
        request: TraceRequest,
    ) -> Result<Traced, Status> {
        if request.dir.is_empty() {
            let view = mounted_as(request.view());
            let question = self.question((asker, user), request.target, view, &[]).await;
            let opened = self.opened(&question.map_err(failed)?).await?;
            let (opened, path) = (OpenArtifact::clone(&opened), request.path.to_vec());
            return Ok(Traced { dir: None, opened, path });
        }
        let dir = PathBuf::from(request.dir);
        let shown = self.agent.mounts().shown_at(&dir).filter(|shown| shown.is_for(asker));
        let shown = shown.ok_or_else(|| failed(MountTableError::NotMounted(dir.clone())))?;
        Ok(shown.traced(dir))
    }

    /// What is named of a mount or of what could be mounted, if the asker may look into it, and where it lies in the
    /// artifact.
    async fn named(&self, (asker, user): (Asker, User), named: Named) -> Result<Meant, Status> {
        if !named.dir.is_empty() {
            let dir = PathBuf::from(named.dir);
            let shown = self.agent.mounts().shown_at(&dir).filter(|shown| shown.is_for(asker));
            let shown = shown.ok_or_else(|| failed(MountTableError::NotMounted(dir)))?;
            return Ok(shown.within(&named.path));
        }
        let view = mounted_as(named.view());
        let question = self.question((asker, user), named.target, view, &[]).await;
        let question = question.map_err(failed)?;
        let (opened, _in_use) =
            self.agent.hold(&question).await.map_err(failed)?.map_err(failed)?;
        let index = opened.index.as_ref().ok_or_else(|| failed(CallError::NotTree))?;
        if find(&index.index, &named.path).map_err(failed)?.is_none() {
            self.opened(&question.of_a_tree()).await?;
        }
        let path = named.path.to_vec();
        Ok(Meant { opened: OpenArtifact::clone(&opened), view, path, _in_use })
    }

    async fn of_traced(
        &self,
        call: impl FnOnce(&Agent) -> Result<TraceReply, CallError> + Send + 'static,
    ) -> Result<Response<TraceReply>, Status> {
        let agent = self.agent.clone();
        let called = tokio::task::spawn_blocking(move || call(&agent)).await;
        let told = called.map_err(|_| failed(MountTableError::Stopping))?;
        told.map(Response::new).map_err(failed)
    }

    async fn mounted_on(&self, dir: PathBuf, asker: Asker) -> Result<Response<MountInfo>, Status> {
        let info = self.mounted(Some(dir.clone()), asker).await?.pop();
        info.map(Response::new).ok_or_else(|| failed(MountTableError::NotMounted(dir)))
    }

    /// See [`views::mounts`].
    async fn mounted(&self, only: Option<PathBuf>, asker: Asker) -> Result<Vec<MountInfo>, Status> {
        let agent = self.agent.clone();
        let look = move || views::mounts(&agent, only.as_deref(), asker);
        let looking = tokio::task::spawn_blocking(look);
        looking.await.map_err(|_| failed(MountTableError::Stopping))
    }

    /// Attempts it as long as files are short for it and some can be closed.
    async fn with_files<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, MountTableError>
    where
        F: Future<Output = Result<T, MountTableError>>,
    {
        let mut tries = self.agent.host().engine.tries_while_short();
        loop {
            let outcome = attempt().await;
            let is_short = outcome.as_ref().is_err_and(MountTableError::is_for_want_of_resources);
            if !is_short || !tries.with_more_files().await {
                return outcome;
            }
        }
    }
}

#[tonic::async_trait]
impl node_server::Node for NodeService {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(views::status(&self.agent)))
    }

    async fn open(&self, request: Request<OpenRequest>) -> Result<Response<OpenReply>, Status> {
        let _busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        let request = request.into_inner();
        let view = targets::view_from_wire(request.view());
        let question = self.question((asker, user), request.target, view, &request.command).await;
        let mut question = question.map_err(failed)?;
        if request.read {
            question = question.to_read();
        }
        if request.fresh {
            self.agent.forget(&question.target);
        }
        let artifact = Some(self.opened(&question).await?.describe());
        Ok(Response::new(OpenReply { artifact }))
    }

    type ListStream = Streamed<ListEntry>;

    async fn list(
        &self,
        request: Request<ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        let request = request.into_inner();
        let question =
            self.question((asker, user), request.target, View::Auto, &request.command).await;
        let question = question.map_err(failed)?;
        let path = request.path.to_vec();
        let depth = if request.recursive { Depth::Everything } else { Depth::Level };
        if depth == Depth::Level
            && let Some(index) = self.agent.level(&question, &path).await.map_err(failed)?
        {
            return Ok(Response::new(entries(index, path, depth, busy)?));
        }
        let opened = self.opened(&question).await?;
        let index = opened.index.as_ref().ok_or_else(|| failed(CallError::NotTree))?;
        let index = Arc::clone(&index.index);
        if find(&index, &path).map_err(failed)?.is_none() {
            self.opened(&question.of_a_tree()).await?;
        }
        Ok(Response::new(entries(index, path, depth, (busy, opened))?))
    }

    type ReadStream = Streamed<ReadChunk>;

    async fn read(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        let mut request = request.into_inner();
        let view = if request.path.is_some() { View::Auto } else { View::File };
        let question =
            self.question((asker, user), request.target.take(), view, &request.command).await;
        let question = question.map_err(failed)?.to_read();
        let agent = self.agent.clone();
        let chunks = read::read(&agent, &question, request).await;
        let failed = move |error: CallError| {
            if error.is_of_another_version() {
                agent.forget(&question.target);
            }
            status_of(&error)
        };
        let chunks = chunks.map_err(&failed)?.map(move |chunk| {
            let _busy = &busy;
            chunk.map_err(&failed)
        });
        Ok(Response::new(chunks.boxed()))
    }

    type ReadFilesStream = Streamed<FilesChunk>;

    async fn read_files(
        &self,
        request: Request<ReadFilesRequest>,
    ) -> Result<Response<Self::ReadFilesStream>, Status> {
        let busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        let mut request = request.into_inner();
        let target = request.target.take();
        let question = self.question((asker, user), target, View::Auto, &request.command).await;
        let opened = self.opened(&question.map_err(failed)?).await?;
        let chunks = read::files(opened, request).await.map_err(failed)?.map(move |chunk| {
            let _busy = &busy;
            Ok(chunk)
        });
        Ok(Response::new(chunks.boxed()))
    }

    async fn images(
        &self,
        request: Request<ImagesRequest>,
    ) -> Result<Response<ImagesReply>, Status> {
        let images = images::images(&self.agent, Asker::of(&request)).await.map_err(failed)?;
        Ok(Response::new(ImagesReply { images }))
    }

    type IndexImageStream = Streamed<LayerIndexPart>;

    async fn index_image(
        &self,
        request: Request<IndexImageRequest>,
    ) -> Result<Response<Self::IndexImageStream>, Status> {
        let busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        let target = request.into_inner().target;
        let question = self.question((asker, user), target, View::Tree, &[]).await;
        let question = question.map_err(failed)?;
        let parts = indexes::index(&self.agent, &question.target).await.map_err(failed)?;
        let parts = parts.map(move |part| {
            let _busy = &busy;
            part.map_err(failed)
        });
        Ok(Response::new(parts.boxed()))
    }

    async fn import_indexes(
        &self,
        request: Request<ImportIndexesRequest>,
    ) -> Result<Response<ImportIndexesReply>, Status> {
        let _busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        // What is taken over is shown to all.
        asker.may_evict().map_err(failed)?;
        let ImportIndexesRequest { target, from } = request.into_inner();
        let question = self.question((asker, user), target, View::Tree, &[]).await;
        let from = self.question((asker, user), from, View::File, &[]).await;
        let (question, from) = (question.map_err(failed)?, from.map_err(failed)?);
        let imported = indexes::import(&self.agent, &question.target, &from.target).await;
        imported.map(Response::new).map_err(failed)
    }

    type PullStream = Streamed<PullProgress>;

    async fn pull(
        &self,
        request: Request<PullRequest>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        let PullRequest { target, command } = request.into_inner();
        let question = self.question((asker, user), target, View::Tree, &command).await;
        let question = question.map_err(failed)?;
        let (opened, in_use) = self.agent.hold(&question).await.map_err(failed)?.map_err(failed)?;
        let progress = self.agent.pull(opened, in_use).await.map_err(failed)?;
        let progress = progress.map(move |event| {
            let _busy = &busy;
            event.map_err(failed)
        });
        Ok(Response::new(progress.boxed()))
    }

    type PreheatStream = Streamed<Preheating>;

    async fn preheat(
        &self,
        request: Request<PreheatRequest>,
    ) -> Result<Response<Self::PreheatStream>, Status> {
        let busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        let request = request.into_inner();
        let view = targets::view_from_wire(request.view());
        let question = self.question((asker, user), request.target, view, &[]).await;
        let question = question.map_err(failed)?;
        let engine = &self.agent.host().engine;
        if engine.swarm().is_none() {
            return Err(failed(CallError::NoCluster));
        }
        let refused = |error| failed(CallError::from(Arc::new(error)));
        let events = engine.preheat_url(&question.target, view).await.map_err(refused)?;
        let events = events.map(move |event| {
            let _busy = &busy;
            event.map_err(refused)
        });
        Ok(Response::new(events.boxed()))
    }

    async fn mount(&self, request: Request<MountRequest>) -> Result<Response<MountInfo>, Status> {
        let _busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        let way = request.get_ref().handle.and_then(|handle| Asker::handle(&request, handle));
        let request = request.into_inner();
        let view = mounted_as(request.view());
        let prefetch = Mode::from(request.prefetch());
        let lane = request.lane.parse::<Wanted>();
        let lane = lane.map_err(|error| failed(CallError::BadRequest(error.to_string())))?;
        let dir = PathBuf::from(request.dir);
        if !dir.is_absolute() {
            return Err(failed(CallError::BadRequest("the mount point must be absolute".into())));
        }
        let command = command_of(&request.command).map_err(failed)?;
        if self.agent.mounts().is_of(&dir, command, asker) {
            // It did not hear of it, from this agent or the one before.
            return self.mounted_on(dir, asker).await;
        }
        let on = dir.clone();
        // Somebody else names it: it may lie where nobody answers.
        let may = tokio::task::spawn_blocking(move || asker.may_mount_on(&on)).await;
        may.map_err(|_| failed(MountTableError::Stopping))?.map_err(failed)?;
        let quota = request.cache_quota.map(ByteSize);
        let cache_quota = quota.map(Capacity::try_from).transpose();
        let cache_quota = cache_quota
            .map_err(|error| failed(CallError::BadRequest(error.to_string())))?
            .map(Capacity::size);
        let owner = Owner { uid: request.uid, gid: request.gid };
        let powers = if request.effective { Privileges::Effective } else { Privileges::Inert };
        asker.may_show_as(user, owner, powers).map_err(failed)?;
        let (question, found) = self.to_mount((asker, user), request.target, view).await?;
        let ToMount { opened, is_public, away, in_use: _in_use } = found;
        // What was fetched with somebody's credentials is shown to nobody else unasked.
        let audience = match (request.allow_other, is_public) {
            (true, _) => Audience::Everyone,
            (false, true) => Audience::WidestAllowed,
            (false, false) => Audience::Only(user),
        };
        let mounting = mounts::MountRequest {
            opened,
            view,
            path: request.path.into(),
            dir,
            way,
            audience,
            lane,
            owner,
            privileges: powers,
            programs: if request.noexec { Programs::AreRefused } else { Programs::Start },
            prefetch,
            follow: follow_of(request.follow_ms).map_err(failed)?,
            by: asker,
            data_dir: self.agent.facts().data_dir.clone(),
            away,
            cache_quota,
            verify: Verify::wanted(request.verify_reads),
            command,
        };
        let mounted = self.with_files(|| self.agent.mounts().mount(mounting.clone())).await;
        if let (Err(MountTableError::NoPath(_)), Some(question)) = (&mounted, question) {
            self.opened(&question.of_a_tree()).await?;
        }
        let dir = mounted.map_err(|error| failed(self.agent.mounts().by_url(error)))?;
        if mounting.away.is_none() {
            self.agent.mounts().remember(mounting).await;
        }
        self.mounted_on(dir, asker).await
    }

    async fn unmount(
        &self,
        request: Request<UnmountRequest>,
    ) -> Result<Response<UnmountReply>, Status> {
        let _busy = self.agent.enter();
        let asker = Asker::of(&request);
        let request = request.into_inner();
        let detach = if request.lazy { Detach::Lazily } else { Detach::WhenUnused };
        let dir = Path::new(&request.dir);
        let left = self.with_files(|| self.agent.mounts().unmount(dir, detach, asker)).await;
        let mounts_left = u32::try_from(left.map_err(failed)?).unwrap_or(u32::MAX);
        Ok(Response::new(UnmountReply { mounts_left }))
    }

    async fn mounts(
        &self,
        request: Request<MountsRequest>,
    ) -> Result<Response<MountsReply>, Status> {
        let mounts = self.mounted(None, Asker::of(&request)).await?;
        Ok(Response::new(MountsReply { mounts }))
    }

    async fn refresh(
        &self,
        request: Request<RefreshRequest>,
    ) -> Result<Response<RefreshReply>, Status> {
        let _busy = self.agent.enter();
        let asker = Asker::of(&request);
        let dir = PathBuf::from(request.into_inner().dir);
        let shown = self.agent.mounts().shown_at(&dir).filter(|shown| shown.is_for(asker));
        let shown = shown.ok_or_else(|| failed(MountTableError::NotMounted(dir.clone())))?;
        drop(shown);
        let follow = self.agent.mounts().follow_at(&dir).map_err(failed)?;
        let looked = follow.look_now().await;
        let looked = looked.ok_or_else(|| failed(MountTableError::NotMounted(dir.clone())))?;
        let switched = looked.map_err(failed)? == Looked::Switched;
        let mount = self.mounted(Some(dir), asker).await?.pop();
        Ok(Response::new(RefreshReply { switched, mount }))
    }

    async fn trace(&self, request: Request<TraceRequest>) -> Result<Response<TraceReply>, Status> {
        let _busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        let request = request.into_inner();
        let most = request.files as usize;
        let traced = self.traced((asker, user), request).await?;
        self.of_traced(move |agent| traced.tell(agent, most)).await
    }

    async fn apply_trace(
        &self,
        request: Request<ApplyTraceRequest>,
    ) -> Result<Response<TraceReply>, Status> {
        let _busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        let ApplyTraceRequest { what, profile } = request.into_inner();
        let traced = self.traced((asker, user), what.unwrap_or_default()).await?;
        self.of_traced(move |agent| {
            traced.apply(agent, &profile)?;
            traced.tell(agent, 0)
        })
        .await
    }

    async fn record_trace(
        &self,
        request: Request<RecordTraceRequest>,
    ) -> Result<Response<TraceReply>, Status> {
        let _busy = self.agent.enter();
        let asker = Asker::of(&request);
        let dir = PathBuf::from(request.into_inner().dir);
        let shown = self.agent.mounts().shown_at(&dir);
        let shown = shown.ok_or_else(|| failed(MountTableError::NotMounted(dir.clone())))?;
        if !asker.may_undo(shown.by()) {
            return Err(failed(MountTableError::NotYours(dir)));
        }
        let traced = shown.traced(dir);
        self.of_traced(move |agent| {
            traced.end_run(agent)?;
            traced.tell(agent, 0)
        })
        .await
    }

    async fn hand_over(
        &self,
        request: Request<HandOverRequest>,
    ) -> Result<Response<HandOverReply>, Status> {
        Asker::of(&request).may_replace().map_err(failed)?;
        let mounts = self.agent.hand_over().await.map_err(failed)?;
        let mounts = u32::try_from(mounts).unwrap_or(u32::MAX);
        Ok(Response::new(HandOverReply { pid: std::process::id(), mounts }))
    }

    async fn tasks(&self, request: Request<TasksRequest>) -> Result<Response<TasksReply>, Status> {
        let asker = Asker::of(&request);
        let (agent, prefix) = (self.agent.clone(), request.into_inner().id_prefix);
        let listing = tokio::task::spawn_blocking(move || views::tasks(&agent, &prefix, asker));
        let listing = listing.await;
        let tasks = listing.map_err(|_| Status::unavailable("the agent is stopping"))?;
        Ok(Response::new(TasksReply { tasks }))
    }

    async fn swarm(&self, request: Request<SwarmRequest>) -> Result<Response<SwarmReply>, Status> {
        let _busy = self.agent.enter();
        let asker = Asker::of(&request);
        let look = request.into_inner().look.unwrap_or_default();
        let seen = swarm::look(&self.agent, look, asker).await;
        seen.map(Response::new).map_err(failed)
    }

    async fn remove_task(
        &self,
        request: Request<RemoveTaskRequest>,
    ) -> Result<Response<RemoveTaskReply>, Status> {
        let _busy = self.agent.enter();
        Asker::of(&request).may_evict().map_err(failed)?;
        let removed = cache::remove(&self.agent, &request.into_inner()).await;
        removed.map(Response::new).map_err(failed)
    }

    async fn pin_task(
        &self,
        request: Request<PinTaskRequest>,
    ) -> Result<Response<PinTaskReply>, Status> {
        let _busy = self.agent.enter();
        Asker::of(&request).may_evict().map_err(failed)?;
        let pinned = cache::pin(&self.agent, &request.into_inner()).await;
        pinned.map(Response::new).map_err(failed)
    }

    async fn cached(
        &self,
        request: Request<CachedRequest>,
    ) -> Result<Response<CachedReply>, Status> {
        let _busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        let CachedRequest { what, entries } = request.into_inner();
        let Meant { opened, path, .. } =
            self.named((asker, user), what.unwrap_or_default()).await?;
        let agent = self.agent.clone();
        let look = move || cached::look(&agent, &opened, &path, entries as usize);
        let looked = tokio::task::spawn_blocking(look).await;
        let told = looked.map_err(|_| failed(MountTableError::Stopping))?;
        told.map(Response::new).map_err(failed)
    }

    async fn pin(&self, request: Request<PinRequest>) -> Result<Response<PinReply>, Status> {
        let _busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        asker.may_evict().map_err(failed)?;
        let what = request.into_inner().what.unwrap_or_default();
        let meant = self.named((asker, user), what).await?;
        let (pin, changed) = self.agent.pin(meant).await.map_err(failed)?;
        Ok(Response::new(PinReply { pin: Some(pin), changed }))
    }

    async fn unpin(&self, request: Request<UnpinRequest>) -> Result<Response<UnpinReply>, Status> {
        let _busy = self.agent.enter();
        let (asker, user) = (Asker::of(&request), Asker::user_of(&request));
        asker.may_evict().map_err(failed)?;
        let what = request.into_inner().what.unwrap_or_default();
        let unpinned = cache::unpin(self, (asker, user), what).await?;
        Ok(Response::new(unpinned))
    }

    async fn pins(&self, request: Request<PinsRequest>) -> Result<Response<PinsReply>, Status> {
        let pins = self.agent.pinned(Asker::of(&request)).await.map_err(failed)?;
        Ok(Response::new(PinsReply { pins }))
    }

    async fn collect_garbage(
        &self,
        request: Request<CollectGarbageRequest>,
    ) -> Result<Response<CollectGarbageReply>, Status> {
        let _busy = self.agent.enter();
        let asker = Asker::of(&request);
        let request = request.into_inner();
        if !request.dry_run {
            asker.may_evict().map_err(failed)?;
        }
        cache::collect(&self.agent, request, asker)
            .await
            .map(Response::new)
            .map_err(|e| status_of(&e))
    }

    type VerifyCacheStream = Streamed<VerifyCacheEvent>;

    async fn verify_cache(
        &self,
        request: Request<VerifyCacheRequest>,
    ) -> Result<Response<Self::VerifyCacheStream>, Status> {
        let busy = self.agent.enter();
        Asker::of(&request).may_verify().map_err(failed)?;
        let events = cache::verify(&self.agent, &request.into_inner());
        let events = events.map_err(|error| status_of(&error))?.map(move |event| {
            let _busy = &busy;
            event.map_err(|error| status_of(&error))
        });
        Ok(Response::new(events.boxed()))
    }
}
