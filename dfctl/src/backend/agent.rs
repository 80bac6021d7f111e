//! The node agent as a backend: its gRPC API over the Unix socket.
//!
//! What comes back is checked here, once. A failure carries what the agent said: its status code, and where the
//! agent gives them, the finer class and causes of [`Details`].

use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_fuse::mount::{MountEntry, mounts};
use dfs_model::TaskInfo;
use dfs_model::{ByteSize, HostId, TaskId};
use dfs_peer::targets;
use dfs_proto::convert;
use dfs_proto::node::node_client::NodeClient;
use dfs_proto::{common, node};
use dfs_source::Target;
use futures::stream::{self, BoxStream, StreamExt};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::swarm::{Look, Seen};
use super::{
    AgentStatus, Artifact, Away, Backend, CachedTask, CachedTree, Collected, Delivery, Entry,
    EntryKind, Failure, FailureClass, FilesEvent, FilesRequest, FilesStream, FollowInfo, ImageHere,
    Imported, LayerIndexes, Ledger, Listed, Missing, MountInfo, MountRequest, Named, ParentBytes,
    Pin, PinnedTree, Pins, Prefetch, PrefetchInfo, PrefetchState, Preheating, Profile, Pulling,
    Purpose, ReadEvent, ReadRequest, ReadStream, Repair, Survival, Traced, TracedFile, Unpinned,
    Verified, View,
};

mod by_path;
mod indexes;
mod kept;
mod status;
mod swarm;

pub use status::Details;

/// Longest name or link target an agent may send.
const MAX_NAME: usize = 8_192;
/// Most parents that a ledger may name.
const MAX_PARENTS: usize = 4_096;

/// A connection to one agent.
#[derive(Debug, Clone)]
pub struct Agent {
    client: NodeClient<Channel>,
    /// Owner of the socket, where it could be looked at.
    owner: Option<u32>,
    /// Whether it is in this process and goes with it.
    is_inside: bool,
    /// Whether it gives what it fetched to nobody else, so that an output may become the file it lies in.
    is_alone: bool,
    command: CommandId,
}

/// Names this run in all its calls, so that it sees one version of what it asks for.
#[derive(Debug, Clone)]
pub struct CommandId(Bytes);

impl CommandId {
    /// One that no other has.
    pub fn random() -> Self {
        let random = || RandomState::new().build_hasher().finish().to_le_bytes();
        Self(Bytes::from([random(), random()].concat()))
    }
}

impl Agent {
    /// The agent that listens on `socket`, over `connected` where there is a connection already; else one is made
    /// with the first question.
    pub fn at(socket: &Path, connected: Option<UnixStream>, command: CommandId) -> Self {
        let channel = dfs_service::net::grpc_local_channel(socket, connected);
        let client = NodeClient::new(channel).max_decoding_message_size(8 << 20);
        let owner = std::fs::metadata(socket).ok().map(|status| status.uid());
        Self { client, owner, is_inside: false, is_alone: false, command }
    }

    /// The agent inside this process, at the other end of `channel`; `is_alone`: it serves nobody else.
    pub fn inside(channel: Channel, is_alone: bool, command: CommandId) -> Self {
        let client = NodeClient::new(channel).max_decoding_message_size(8 << 20);
        let owner = Some(rustix::process::geteuid().as_raw());
        Self { client, owner, is_inside: true, is_alone, command }
    }

    /// Takes away what was mounted otherwise than it was meant.
    async fn undo(&self, made: &node::MountInfo, failed: Failure) -> Failure {
        failed.because(match self.unmount(&made.dir, false).await {
            Ok(_) => "it was taken away again".to_owned(),
            Err(gone) if gone.class == FailureClass::NotMounted => "it is gone already".to_owned(),
            Err(failure) => format!("and cannot be taken away: {}", failure.message),
        })
    }

    /// That nobody sees here what was mounted.
    async fn out_of_sight(&self) -> Failure {
        let what =
            "the node agent has another mount namespace: what it mounts there is not seen here";
        let failed = Failure::new(FailureClass::MountFailed, what);
        match self.status().await {
            Ok(AgentStatus { pid, .. }) => failed
                .because(format!("`nsenter --target {pid} --mount` leads to where it is seen")),
            Err(_) => failed,
        }
    }

    /// Tells apart whose disk is full: this process's own is another matter than that of an agent which stays.
    fn own_failures(&self, events: ReadStream) -> ReadStream {
        if !self.is_inside {
            return events;
        }
        let own = |failure: Failure| match failure.class {
            FailureClass::NoSpace => Failure { class: FailureClass::NoOwnSpace, ..failure },
            _ => failure,
        };
        events.map(move |event| event.map_err(own)).boxed()
    }
}

/// Whether a mount is in a table. An agent of an earlier version does not say what device it shows.
fn is_in(table: &[MountEntry], made: &node::MountInfo) -> bool {
    let is_it = |seen: &MountEntry| {
        let has_device = made.device.is_empty() || seen.device == made.device;
        seen.dir == Path::new(&made.dir) && seen.shows_ours() && has_device
    };
    table.iter().any(is_it)
}

/// What of a request an agent of another version passed over, as it is typed.
fn unheeded(request: &node::MountRequest, made: &node::MountInfo) -> Option<&'static str> {
    let passed_over = [
        ("--verify-reads", request.verify_reads && !made.verify_reads),
        ("--cache-quota", request.cache_quota.is_some() && made.cache_quota.is_none()),
        ("--follow", request.follow_ms > 0 && made.follow.is_none()),
    ];
    passed_over.into_iter().find_map(|(option, is_passed_over)| is_passed_over.then_some(option))
}

#[async_trait]
impl Backend for Agent {
    async fn open(
        &self,
        target: &Target,
        view: View,
        purpose: Purpose,
    ) -> Result<Artifact, Failure> {
        let request = node::OpenRequest {
            target: Some(targets::to_wire(target)),
            view: view_message(view),
            command: self.command.0.clone(),
            fresh: matches!(purpose, Purpose::Watch | Purpose::ReadAnew),
            read: matches!(purpose, Purpose::Read | Purpose::ReadAnew),
        };
        let reply = self.client.clone().open(request).await.map_err(status::failure)?;
        artifact(reply.into_inner().artifact)
    }

    fn list(
        &self,
        target: &Target,
        path: &[u8],
        recursive: bool,
    ) -> BoxStream<'static, Result<Listed, Failure>> {
        let request = node::ListRequest {
            target: Some(targets::to_wire(target)),
            path: path.to_vec().into(),
            recursive,
            command: self.command.0.clone(),
        };
        let mut client = self.client.clone();
        let opened = async move { client.list(request).await };
        flatten(opened, listed)
    }

    fn read(&self, request: ReadRequest, delivery: Delivery) -> ReadStream {
        // What is paced must come through the socket: only that holds the agent back.
        let paced = request.limit.is_some();
        let request = node::ReadRequest {
            target: Some(targets::to_wire(&request.target)),
            path: request.path.map(Into::into),
            start: Some(request.start),
            end: request.end,
            priority: request.priority.into(),
            by_path: false,
            command: self.command.0.clone(),
        };
        let mut client = self.client.clone();
        if let (Delivery::File { file, origin }, Some(owner), false) = (delivery, self.owner, paced)
        {
            let keeps = !self.is_alone;
            let output = by_path::Output { file, origin, owner, keeps };
            return self.own_failures(by_path::read(client, request, output));
        }
        let opened = async move { client.read(request).await };
        self.own_failures(flatten(opened, read_event))
    }

    fn read_files(&self, request: FilesRequest) -> FilesStream {
        let request = node::ReadFilesRequest {
            target: Some(targets::to_wire(&request.target)),
            paths: request.paths.into_iter().map(Into::into).collect(),
            priority: request.priority.into(),
            command: self.command.0.clone(),
        };
        let mut client = self.client.clone();
        let opened = async move { client.read_files(request).await };
        flatten(opened, files_event)
    }

    fn preheat(
        &self,
        target: &Target,
        view: View,
    ) -> BoxStream<'static, Result<Preheating, Failure>> {
        let request = node::PreheatRequest {
            target: Some(targets::to_wire(target)),
            view: view_message(view),
        };
        let mut client = self.client.clone();
        let opened = async move { client.preheat(request).await };
        flatten(opened, |message: common::Preheating| {
            Ok(Preheating {
                seed: (!message.seed.is_empty()).then_some(message.seed),
                held: message.held_bytes,
                total: message.total_bytes,
                complete: message.complete,
            })
        })
    }

    async fn mount(&self, request: MountRequest) -> Result<MountInfo, Failure> {
        let dir = request.dir.to_str().ok_or_else(|| {
            Failure::new(FailureClass::MountDir, "the mount point's name is not UTF-8")
        })?;
        let request = node::MountRequest {
            target: Some(targets::to_wire(&request.target)),
            dir: dir.to_owned(),
            handle: request.handle.as_ref().and_then(|open| u32::try_from(open.as_raw_fd()).ok()),
            view: view_message(request.view),
            lane: request.lane,
            uid: request.uid,
            gid: request.gid,
            noexec: request.noexec,
            effective: request.effective,
            allow_other: request.allow_other,
            path: request.path.into(),
            prefetch: match request.prefetch {
                Prefetch::Off => node::Prefetch::Off,
                Prefetch::Trace => node::Prefetch::Trace,
                Prefetch::All => node::Prefetch::All,
            }
            .into(),
            cache_quota: request.cache_quota.map(|quota| quota.0),
            verify_reads: request.verify_reads,
            follow_ms: request
                .follow
                .map_or(0, |every| u64::try_from(every.as_millis()).unwrap_or(u64::MAX)),
            command: self.command.0.clone(),
        };
        let reply = self.client.clone().mount(request.clone()).await.map_err(status::failure)?;
        let made = reply.into_inner();
        let failed = match unheeded(&request, &made) {
            None if mounts().map_or(true, |table| is_in(&table, &made)) => return mount_info(made),
            None => self.out_of_sight().await,
            Some(option) => {
                let what = format!("the node agent is of a version that does not know {option}");
                Failure::new(FailureClass::AgentProtocol, what)
            }
        };
        Err(self.undo(&made, failed).await)
    }

    async fn unmount(&self, dir: &str, lazy: bool) -> Result<u32, Failure> {
        let request = node::UnmountRequest { dir: dir.to_owned(), lazy };
        let reply = self.client.clone().unmount(request).await.map_err(status::failure)?;
        Ok(reply.into_inner().mounts_left)
    }

    async fn hand_over(&self) -> Result<u32, Failure> {
        let asked = self.client.clone().hand_over(node::HandOverRequest {}).await;
        Ok(asked.map_err(status::failure)?.into_inner().mounts)
    }

    async fn refresh(&self, dir: &str) -> Result<(bool, MountInfo), Failure> {
        let request = node::RefreshRequest { dir: dir.to_owned() };
        let reply = self.client.clone().refresh(request).await.map_err(status::failure)?;
        let node::RefreshReply { switched, mount } = reply.into_inner();
        Ok((switched, mount_info(mount.unwrap_or_default())?))
    }

    async fn mounts(&self) -> Result<Vec<MountInfo>, Failure> {
        let reply =
            self.client.clone().mounts(node::MountsRequest {}).await.map_err(status::failure)?;
        reply.into_inner().mounts.into_iter().map(mount_info).collect()
    }

    async fn trace(&self, traced: &Traced, files: u32) -> Result<Profile, Failure> {
        let request = node::TraceRequest { files, ..traced_message(traced) };
        let reply = self.client.clone().trace(request).await.map_err(status::failure)?;
        Ok(profile(reply.into_inner()))
    }

    async fn apply_trace(&self, traced: &Traced, file: Vec<u8>) -> Result<Profile, Failure> {
        let what = Some(traced_message(traced));
        let request = node::ApplyTraceRequest { what, profile: file.into() };
        let reply = self.client.clone().apply_trace(request).await.map_err(status::failure)?;
        Ok(profile(reply.into_inner()))
    }

    async fn record_trace(&self, dir: &str) -> Result<Profile, Failure> {
        let request = node::RecordTraceRequest { dir: dir.to_owned() };
        let reply = self.client.clone().record_trace(request).await.map_err(status::failure)?;
        Ok(profile(reply.into_inner()))
    }

    async fn tasks(&self, id_prefix: &str) -> Result<Vec<CachedTask>, Failure> {
        let request = node::TasksRequest { id_prefix: id_prefix.to_owned() };
        let reply = self.client.clone().tasks(request).await.map_err(status::failure)?;
        reply.into_inner().tasks.into_iter().map(cached_task).collect()
    }

    async fn swarm(&self, look: &Look) -> Result<Seen, Failure> {
        let reply = self.client.clone().swarm(swarm::request(look)).await;
        swarm::seen(reply.map_err(status::failure)?.into_inner())
    }

    async fn remove_task(&self, task: TaskId, pins: Pins) -> Result<u64, Failure> {
        let task_id = task.as_bytes().to_vec().into();
        let request = node::RemoveTaskRequest { task_id, unpin: pins == Pins::GoToo };
        let reply = self.client.clone().remove_task(request).await.map_err(status::failure)?;
        Ok(reply.into_inner().bytes_freed)
    }

    async fn pin_task(&self, task: TaskId, pin: Pin) -> Result<bool, Failure> {
        let task_id = task.as_bytes().to_vec().into();
        let request = node::PinTaskRequest { task_id, pinned: pin == Pin::Set };
        let reply = self.client.clone().pin_task(request).await.map_err(status::failure)?;
        Ok(reply.into_inner().changed)
    }

    async fn cached(&self, named: &Named, entries: u32) -> Result<CachedTree, Failure> {
        let request = node::CachedRequest { what: Some(kept::named(named)), entries };
        let reply = self.client.clone().cached(request).await.map_err(status::failure)?;
        kept::tree(reply.into_inner())
    }

    async fn pin_tree(&self, named: &Named) -> Result<(PinnedTree, bool), Failure> {
        let request = node::PinRequest { what: Some(kept::named(named)) };
        let reply = self.client.clone().pin(request).await.map_err(status::failure)?.into_inner();
        Ok((kept::pin(reply.pin.ok_or_else(|| missing("pin"))?)?, reply.changed))
    }

    async fn unpin_tree(&self, named: &Named) -> Result<Unpinned, Failure> {
        let request = node::UnpinRequest { what: Some(kept::named(named)) };
        let reply = self.client.clone().unpin(request).await.map_err(status::failure)?.into_inner();
        let within = (!reply.within.is_empty()).then(|| dfs_model::redact(&reply.within));
        Ok(Unpinned { pins: kept::pins(reply.pins)?, within })
    }

    async fn pins(&self) -> Result<Vec<PinnedTree>, Failure> {
        let reply = self.client.clone().pins(node::PinsRequest {}).await;
        kept::pins(reply.map_err(status::failure)?.into_inner().pins)
    }

    async fn images(&self) -> Result<Vec<ImageHere>, Failure> {
        let reply = self.client.clone().images(node::ImagesRequest {}).await;
        kept::images(reply.map_err(status::failure)?.into_inner().images)
    }

    fn pull(&self, target: &Target) -> BoxStream<'static, Result<Pulling, Failure>> {
        let (target, command) = (Some(targets::to_wire(target)), self.command.0.clone());
        let mut client = self.client.clone();
        let opened = async move { client.pull(node::PullRequest { target, command }).await };
        flatten(opened, |message: node::PullProgress| {
            Ok(Pulling {
                bytes: message.bytes,
                cached: message.cached_bytes.min(message.bytes),
                ledger: ledger(message.ledger),
                complete: message.complete,
            })
        })
    }

    async fn index_image(&self, target: &Target) -> Result<LayerIndexes, Failure> {
        let request = node::IndexImageRequest { target: Some(targets::to_wire(target)) };
        let reply = self.client.clone().index_image(request).await.map_err(status::failure)?;
        let mut parts = reply.into_inner();
        let mut gathered = indexes::Gathered::default();
        while let Some(part) = parts.message().await.map_err(status::failure)? {
            gathered.take(part)?;
        }
        gathered.finish()
    }

    async fn import_indexes(&self, target: &Target, from: &Target) -> Result<Imported, Failure> {
        let (target, from) = (Some(targets::to_wire(target)), Some(targets::to_wire(from)));
        let request = node::ImportIndexesRequest { target, from };
        let reply = self.client.clone().import_indexes(request).await.map_err(status::failure)?;
        let node::ImportIndexesReply { layers, taken, known } = reply.into_inner();
        Ok(Imported { layers, taken, known })
    }

    async fn collect_garbage(
        &self,
        target: Option<u64>,
        dry_run: bool,
    ) -> Result<Collected, Failure> {
        let request = node::CollectGarbageRequest { target_bytes: target, dry_run };
        let reply = self.client.clone().collect_garbage(request).await.map_err(status::failure)?;
        let reply = reply.into_inner();
        let ids = reply.task_ids.iter().map(|id| convert::task_id(id));
        Ok(Collected {
            tasks: ids.collect::<Result<_, _>>().map_err(|error| unreadable(&error))?,
            freed: reply.bytes_freed,
            used: reply.used_bytes,
        })
    }

    fn verify_cache(
        &self,
        tasks: &[TaskId],
        repair: Repair,
    ) -> BoxStream<'static, Result<Verified, Failure>> {
        let request = node::VerifyCacheRequest {
            task_ids: tasks.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
            repair: repair == Repair::Now,
            ..node::VerifyCacheRequest::default()
        };
        let mut client = self.client.clone();
        let opened = async move { client.verify_cache(request).await };
        flatten(opened, verified)
    }

    async fn status(&self) -> Result<AgentStatus, Failure> {
        let reply =
            self.client.clone().status(node::StatusRequest {}).await.map_err(status::failure)?;
        let reply = reply.into_inner();
        Ok(AgentStatus {
            version: reply.version,
            pid: reply.pid,
            instance: reply.instance,
            host_id: HostId::from_slice(&reply.host_id),
            data_dir: reply.data_dir,
            used: reply.used_bytes,
            capacity: reply.capacity_bytes,
            medium: reply.medium,
            cache_dir: reply.cache_dir,
            cluster: (!reply.cluster.is_empty()).then_some(reply.cluster),
            cluster_connected: reply.cluster_connected,
        })
    }
}

/// A stream from the call that opens it, each message converted. It ends after the first failure.
fn flatten<M, T>(
    opened: impl Future<Output = Result<tonic::Response<tonic::Streaming<M>>, Status>> + Send + 'static,
    convert: fn(M) -> Result<T, Failure>,
) -> BoxStream<'static, Result<T, Failure>>
where
    M: Send + 'static,
    T: Send + 'static,
{
    let opened = async move {
        match opened.await {
            Ok(reply) => reply
                .into_inner()
                .map(move |message| message.map_err(status::failure).and_then(convert))
                .boxed(),
            Err(status) => stream::iter([Err(status::failure(status))]).boxed(),
        }
    };
    stream::once(opened).flatten().boxed()
}

fn unreadable(error: &dyn std::error::Error) -> Failure {
    Failure::new(FailureClass::AgentProtocol, "the node agent's answer cannot be read")
        .because(error.to_string())
}

fn missing(field: &str) -> Failure {
    Failure::new(FailureClass::AgentProtocol, "the node agent's answer cannot be read")
        .because(format!("field '{field}' is missing or too long"))
}

fn view_message(view: View) -> i32 {
    match view {
        View::File => common::View::File,
        View::Tree => common::View::Tree,
        View::Auto => common::View::Auto,
    }
    .into()
}

fn task(message: common::Task) -> Result<TaskInfo, Failure> {
    TaskInfo::try_from(message).map_err(|error| unreadable(&error))
}

fn artifact(message: Option<common::Artifact>) -> Result<Artifact, Failure> {
    let message = message.ok_or_else(|| missing("artifact"))?;
    let view = match message.view() {
        common::View::File => View::File,
        common::View::Tree => View::Tree,
        common::View::Auto | common::View::OneFile | common::View::Unspecified => {
            return Err(missing("artifact.view"));
        }
    };
    if message.tasks.len() > 256 {
        return Err(missing("artifact.tasks"));
    }
    Ok(Artifact {
        url: dfs_model::redact(&message.url),
        view,
        index: message.index.map(task).transpose()?,
        tasks: message.tasks.into_iter().map(task).collect::<Result<_, _>>()?,
        files: message.files,
        bytes: message.bytes,
    })
}

fn listed(message: node::ListEntry) -> Result<Listed, Failure> {
    let too_long = message.path.len() > MAX_NAME * 8 || message.why.len() > MAX_NAME * 8;
    if too_long || message.link_target.len() > MAX_NAME {
        return Err(missing("entry.path"));
    }
    if message.kind() == node::EntryKind::Missing {
        return Ok(Listed::Missing(Missing { path: message.path.to_vec(), why: message.why }));
    }
    entry(message).map(Listed::Entry)
}

/// The kind of what is there; `None` of what is not.
fn entry_kind(kind: node::EntryKind) -> Option<EntryKind> {
    match kind {
        node::EntryKind::File => Some(EntryKind::File),
        node::EntryKind::Directory => Some(EntryKind::Directory),
        node::EntryKind::Symlink => Some(EntryKind::Symlink),
        node::EntryKind::Other => Some(EntryKind::Other),
        node::EntryKind::Missing | node::EntryKind::Unspecified => None,
    }
}

fn entry(message: node::ListEntry) -> Result<Entry, Failure> {
    let kind = entry_kind(message.kind()).ok_or_else(|| missing("entry.kind"))?;
    Ok(Entry {
        path: message.path.to_vec(),
        kind,
        length: message.length,
        mode: message.mode,
        mtime: (message.mtime_seconds, message.mtime_nanos.min(999_999_999)),
        uid: message.uid,
        gid: message.gid,
        link_target: message.link_target.to_vec(),
    })
}

fn ledger(message: Option<node::Ledger>) -> Ledger {
    let message = message.unwrap_or_default();
    let parent = |parent: node::ParentBytes| ParentBytes {
        kind: parent.kind().into(),
        host_id: HostId::from_slice(&parent.host_id),
        name: parent.name,
        bytes: parent.bytes,
    };
    Ledger {
        cache: message.cache_bytes,
        source: message.source_bytes,
        source_requests: message.source_requests,
        parents: message.parents.into_iter().take(MAX_PARENTS).map(parent).collect(),
        wire: message.wire_bytes,
    }
}

fn read_event(message: node::ReadChunk) -> Result<ReadEvent, Failure> {
    use node::read_chunk::Kind;
    Ok(match message.kind.ok_or_else(|| missing("chunk.kind"))? {
        Kind::Start(start) => ReadEvent::Start {
            length: start.length,
            task: start.task.and_then(|task| TaskId::from_slice(&task.id)),
            offer: None,
        },
        Kind::Data(bytes) => ReadEvent::Data(bytes),
        // Only who asked for it by path is told of ranges instead of bytes.
        Kind::Present(_) => return Err(missing("chunk.data")),
        Kind::Progress(progress) => ReadEvent::Progress {
            ledger: ledger(progress.ledger),
            waiting_for: (!progress.waiting_for.is_empty()).then_some(progress.waiting_for),
        },
        Kind::End(end) => ReadEvent::End {
            ledger: ledger(end.ledger),
            length: end.length,
            blake3: end.blake3.and_then(|digest| digest[..].try_into().ok()),
        },
    })
}

fn files_event(message: node::FilesChunk) -> Result<FilesEvent, Failure> {
    if let Some(last) = message.ledger {
        return Ok(FilesEvent::End { ledger: ledger(Some(last)) });
    }
    if let Some(progress) = message.progress {
        return Ok(FilesEvent::Progress {
            ledger: ledger(progress.ledger),
            waiting_for: (!progress.waiting_for.is_empty()).then_some(progress.waiting_for),
        });
    }
    let files = message.files.into_iter().map(|file| (file.number as usize, file.data));
    Ok(FilesEvent::Files(files.collect()))
}

fn mount_info(message: node::MountInfo) -> Result<MountInfo, Failure> {
    Ok(MountInfo {
        dir: message.dir,
        artifact: artifact(message.artifact)?,
        lane: message.lane,
        lane_reason: message.lane_reason,
        cached: message.cached_bytes,
        content: message.content_bytes,
        ledger: ledger(message.ledger),
        state: message.state,
        files: message.files,
        index_bytes: message.index_bytes,
        left_out: message.left_out,
        survival: survival(message.survival.unwrap_or_default()),
        prefetch: prefetch(message.prefetch.unwrap_or_default()),
        away: message.away.map(|away| Away { since_unix_ms: away.since_unix_ms, why: away.why }),
        reads: message.reads.map(kept::reads),
        cache_quota: message.cache_quota.map(ByteSize),
        verify_reads: message.verify_reads,
        follow: message.follow.map(follow),
    })
}

fn follow(message: node::FollowInfo) -> FollowInfo {
    FollowInfo {
        every: Duration::from_millis(message.every_ms),
        switches: message.switches,
        switched_ms: message.switched_unix_ms,
        looked_ms: message.looked_unix_ms,
        failed: (!message.failed.is_empty()).then_some(message.failed),
        failing_ms: message.failing_unix_ms,
        earlier: message.earlier,
        never_changes: message.never_changes,
    }
}

fn prefetch(message: node::PrefetchInfo) -> PrefetchInfo {
    PrefetchInfo {
        mode: match message.mode() {
            node::Prefetch::Off | node::Prefetch::Unspecified => Prefetch::Off,
            node::Prefetch::Trace => Prefetch::Trace,
            node::Prefetch::All => Prefetch::All,
        },
        state: match message.state() {
            node::PrefetchState::Unspecified | node::PrefetchState::Idle => PrefetchState::Idle,
            node::PrefetchState::Fetching => PrefetchState::Fetching,
            node::PrefetchState::Waiting => PrefetchState::Waiting,
            node::PrefetchState::Done => PrefetchState::Done,
            node::PrefetchState::Misled => PrefetchState::Misled,
        },
        waiting_for: message.waiting_for,
        runs: message.runs,
        known: message.known_bytes,
        touched: message.touched_bytes,
        fetched: message.fetched_bytes,
        hit: message.hit_bytes,
    }
}

fn traced_message(traced: &Traced) -> node::TraceRequest {
    match traced {
        Traced::Mount(dir) => {
            node::TraceRequest { dir: dir.clone(), ..node::TraceRequest::default() }
        }
        Traced::Target { target, view, path } => node::TraceRequest {
            target: Some(targets::to_wire(target)),
            view: view_message(*view),
            path: path.clone().into(),
            ..node::TraceRequest::default()
        },
    }
}

fn profile(message: node::TraceReply) -> Profile {
    let file = |file: node::TracedFile| TracedFile {
        path: file.path.to_vec(),
        length: file.length,
        bytes: file.bytes,
        touched: file.touched,
        runs: file.runs,
    };
    Profile {
        url: dfs_model::redact(&message.url),
        dir: (!message.dir.is_empty()).then_some(message.dir),
        file: message.profile.to_vec(),
        runs: message.runs,
        bytes: message.bytes,
        written_ms: message.written_unix_ms,
        files: message.files,
        first: message.first.into_iter().map(file).collect(),
    }
}

fn survival(message: node::Survival) -> Survival {
    match message.kept_by {
        0 if message.independent => Survival::Independent,
        0 => Survival::Dies { why: Some(message.why_not).filter(|why| !why.is_empty()) },
        holder => Survival::Kept { holder, resends: message.resends },
    }
}

fn cached_task(message: node::TaskInfo) -> Result<CachedTask, Failure> {
    Ok(CachedTask {
        task: task(message.task.ok_or_else(|| missing("task"))?)?,
        cached: message.cached_bytes,
        disk: message.disk_bytes,
        in_use: message.in_use,
        pinned: message.pinned,
        fetching: message.fetching,
        last_read_ms: message.last_read_unix_ms,
        ledger: ledger(message.ledger),
        complete: message.complete,
        parents: message.parents.into_iter().take(MAX_PARENTS).collect(),
    })
}

fn verified(message: node::VerifyCacheEvent) -> Result<Verified, Failure> {
    Ok(Verified {
        task: TaskId::from_slice(&message.task_id),
        groups_checked: message.groups_checked,
        groups_bad: message.groups_bad,
        bad_groups: message.bad_groups,
        groups_repaired: message.groups_repaired,
        why_not: message.why_not,
        finished: message.finished,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::tests::mounted;

    #[test]
    fn a_mount_is_seen_where_it_is_the_one_that_was_made() {
        let table = [mounted(("/mnt/a", "/"), "0:40", "fuse.dfs")];
        let seen = |dir: &str, device: &str| {
            let (dir, device) = (dir.to_owned(), device.to_owned());
            is_in(&table, &node::MountInfo { dir, device, ..node::MountInfo::default() })
        };
        assert!(seen("/mnt/a", "0:40") && seen("/mnt/a", ""));
        assert!(!seen("/mnt/a", "0:41") && !seen("/mnt/b", "0:40"));
    }

    #[test]
    fn what_an_agent_of_another_version_passes_over_is_named_as_it_was_typed() {
        let asked = node::MountRequest {
            verify_reads: true,
            cache_quota: Some(64 << 20),
            follow_ms: 1_000,
            ..node::MountRequest::default()
        };
        let mut made = node::MountInfo::default();
        assert_eq!(unheeded(&node::MountRequest::default(), &made), None);
        assert_eq!(unheeded(&asked, &made), Some("--verify-reads"));
        made.verify_reads = true;
        assert_eq!(unheeded(&asked, &made), Some("--cache-quota"));
        made.cache_quota = asked.cache_quota;
        assert_eq!(unheeded(&asked, &made), Some("--follow"));
        made.follow = Some(node::FollowInfo::default());
        assert_eq!(unheeded(&asked, &made), None);
    }
}
