//! Bytes of a blob, or of one file inside a tree, for those who read without a mount.
//!
//! Either the bytes travel in the answer, or (`by_path`) the caller, who may open the content file
//! itself, is told which ranges of it are there.

mod files;
mod scattered;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dfs_artifact::erofs::{Extent, Kind};
use dfs_model::{ByteRange, GROUP_BYTES, GroupRange, GroupSet, Priority, groups_in};
use dfs_peer::engine::{Growth, Mark, ReadError, Task};
use dfs_peer::hashtree::Node;
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::{DirectGuard, Reads, StoreError, Use, UseGuard};
use dfs_proto::node::read_chunk::Kind as ChunkKind;
use dfs_proto::node::{
    ReadChunk, ReadEnd, ReadPresent, ReadProgress, ReadRequest, ReadSpan, ReadStart,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};

pub(super) use self::files::files;
use self::scattered::Scattered;
use super::views;
use crate::agent::walk::find;
use crate::agent::{Agent, CallError, Question};

/// Bytes in one message.
const MESSAGE: u64 = 256 * 1024;

/// Bytes waited for at a time; what lies behind is prefetched meanwhile.
const STEP: u64 = 4 << 20;

/// How far ahead of the reader bytes are asked for.
const AHEAD: u64 = 64 << 20;

/// What a reader takes in so long comes before what it takes later, and no less than [`NEXT`]: several times what it
/// takes until a neighbour has been found and has sent it.
const SOON: Duration = Duration::from_secs(1);
const NEXT: u64 = 2 * STEP;

/// Bytes that no file exceeds.
const LONGEST: u64 = i64::MAX as u64;

/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(200);

/// Most runs that are told with it before their turn.
const EARLY: usize = 512;

type Chunks = BoxStream<'static, Result<ReadChunk, CallError>>;

/// Where the wanted content lies.
struct Piece {
    task: Task,
    /// Of the content's first byte in the task.
    offset: u64,
    /// Of the content; `None` until the task's own length is known.
    length: Option<u64>,
}

struct Transfer {
    piece: Piece,
    mark: Mark,
    /// Content bytes still to deliver; without end until the length is known.
    rest: ByteRange,
    /// The first that was asked for.
    first: u64,
    /// Whether less than everything was.
    is_range: bool,
    priority: Priority,
    by_path: bool,
    /// Groups that were told before their turn.
    early: GroupSet,
    /// Nothing of the task is evicted meanwhile.
    _in_use: UseGuard,
    /// Nor taken out of the file that is read by its path.
    _whole: Option<DirectGuard>,
    /// Since when it is read.
    began: Instant,
    /// What it was opened as stays known while it is read.
    _opened: Arc<OpenArtifact>,
    told: Instant,
    pending: Bytes,
    /// The next step, where its bytes do not come through the store.
    passing: Option<BoxFuture<'static, Result<Bytes, ReadError>>>,
    /// While the length is not known: what comes next.
    growing: Option<BoxFuture<'static, Result<Growth, ReadError>>>,
    /// The next step, where its bytes come into the store, and where it ends: whoever waits again would have let go
    /// of it.
    ensured: Option<(u64, BoxFuture<'static, Result<(), ReadError>>)>,
    stage: Stage,
}

#[derive(PartialEq)]
enum Stage {
    Start,
    Bytes,
    Over,
}

pub(super) async fn read(
    agent: &Agent,
    question: &Question,
    request: ReadRequest,
) -> Result<Chunks, CallError> {
    let (opened, piece, in_use) = match open(agent, question, &request).await? {
        Opened::Run(opened, piece, in_use) => (opened, piece, in_use),
        Opened::Runs(opened, nid, length) => return scattered(opened, nid, length, &request),
    };
    let start = request.start.unwrap_or(0);
    let end = match (request.end, piece.length) {
        (Some(end), Some(length)) if end > length => return Err(CallError::BadRange(length)),
        (Some(end), Some(_)) => end,
        (None, Some(length)) => length,
        // Where it ends is found on the way.
        (end, None) => end.unwrap_or(u64::MAX).min(LONGEST),
    };
    if start > end {
        return Err(CallError::BadRange(end));
    }
    let transfer = Transfer {
        mark: piece.task.mark(),
        _in_use: in_use,
        _whole: request.by_path.then(|| piece.task.stored().read_directly(Reads::AWhileLonger)),
        _opened: opened,
        rest: ByteRange::new(start, end),
        first: start,
        is_range: start > 0 || request.end.is_some(),
        priority: Priority::from_wire(u8::try_from(request.priority).unwrap_or(u8::MAX)),
        by_path: request.by_path,
        early: GroupSet::new(),
        began: Instant::now(),
        told: Instant::now(),
        pending: Bytes::new(),
        passing: None,
        growing: None,
        ensured: None,
        stage: Stage::Start,
        piece,
    };
    Ok(stream::unfold(transfer, |mut transfer| async move {
        let next = transfer.next().await?;
        if next.is_err() {
            transfer.stage = Stage::Over;
        }
        Some((next, transfer))
    })
    .boxed())
}

/// What is to be read.
enum Opened {
    Run(Arc<OpenArtifact>, Piece, UseGuard),
    /// A file with holes: its node and length.
    Runs(Arc<OpenArtifact>, u64, u64),
}

/// Opens what is asked for.
async fn open(
    agent: &Agent,
    question: &Question,
    request: &ReadRequest,
) -> Result<Opened, CallError> {
    Ok(agent.put_to_use(question, |opened| take(opened, request)).await??)
}

fn take(
    opened: Arc<OpenArtifact>,
    request: &ReadRequest,
) -> Result<Result<Opened, (Task, ReadError)>, CallError> {
    let piece = match request.path.as_deref() {
        None => whole(&opened)?,
        Some(path) => match inside(&opened, path)? {
            Located::Run(piece) => piece,
            Located::Runs(nid, length) => return Ok(Ok(Opened::Runs(opened, nid, length))),
        },
    };
    Ok(match piece.task.in_use(Use::Handle) {
        Ok(in_use) => Ok(Opened::Run(opened, piece, in_use)),
        Err(error) => Err((piece.task, error)),
    })
}

fn whole(opened: &OpenArtifact) -> Result<Piece, CallError> {
    let task = opened.tasks.first().ok_or(CallError::IsTree)?.clone();
    let length = task.length();
    Ok(Piece { task, offset: 0, length })
}

/// How a file of a tree lies.
enum Located {
    /// In one run, as all but those with holes.
    Run(Piece),
    /// In several: its node and length.
    Runs(u64, u64),
}

/// A file of a tree.
fn inside(opened: &OpenArtifact, path: &[u8]) -> Result<Located, CallError> {
    let index = &opened.index.as_ref().ok_or(CallError::NotTree)?.index;
    let missing = || CallError::NoPath(String::from_utf8_lossy(path).into_owned());
    let nid = find(index, path)?.ok_or_else(missing)?;
    let image = index.image();
    let attr = image.attr(nid)?;
    if attr.kind != Kind::File {
        return Err(if attr.kind == Kind::Directory { CallError::IsTree } else { missing() });
    }
    let (space, offset) = match image.extent(nid, 0)? {
        Some(Extent { space: Some(space), offset, length }) if length >= attr.size => {
            (space, offset)
        }
        None if !opened.tasks.is_empty() => (0, 0),
        _ => return Ok(Located::Runs(nid, attr.size)),
    };
    let task = opened.tasks.get(usize::from(space)).ok_or_else(missing)?.clone();
    Ok(Located::Run(Piece { task, offset, length: Some(attr.size) }))
}

fn scattered(
    opened: Arc<OpenArtifact>,
    nid: u64,
    length: u64,
    request: &ReadRequest,
) -> Result<Chunks, CallError> {
    let rest = ByteRange::new(request.start.unwrap_or(0), request.end.unwrap_or(length));
    if rest.end > length || rest.start > length || request.start > request.end.or(Some(length)) {
        return Err(CallError::BadRange(length));
    }
    let priority = Priority::from_wire(u8::try_from(request.priority).unwrap_or(u8::MAX));
    Ok(Scattered { opened, nid, length, rest, priority }.chunks())
}

fn chunk(kind: ChunkKind) -> ReadChunk {
    ReadChunk { kind: Some(kind) }
}

impl Transfer {
    fn in_task(&self, content: ByteRange) -> ByteRange {
        let offset = self.piece.offset;
        ByteRange::new(content.start + offset, content.end + offset)
    }

    /// What of it is done, in the task.
    fn done(&self) -> ByteRange {
        self.in_task(ByteRange::new(self.first, self.rest.start))
    }

    async fn next(&mut self) -> Option<Result<ReadChunk, CallError>> {
        match self.stage {
            Stage::Start => {
                self.stage = Stage::Bytes;
                Some(Ok(self.start()))
            }
            Stage::Bytes => Some(self.bytes().await),
            Stage::Over => None,
        }
    }

    fn start(&self) -> ReadChunk {
        let task = &self.piece.task;
        let path = task.stored().content_path();
        chunk(ChunkKind::Start(ReadStart {
            length: self.piece.length,
            task: Some(task.info().into()),
            content_path: match self.by_path {
                true => path.to_string_lossy().into_owned(),
                false => String::new(),
            },
            content_offset: self.piece.offset,
        }))
    }

    async fn bytes(&mut self) -> Result<ReadChunk, CallError> {
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            return Ok(self.data(pending));
        }
        if self.rest.is_empty() {
            self.stage = Stage::Over;
            return Ok(self.end());
        }
        if self.told.elapsed() >= PROGRESS {
            return Ok(self.progress().await);
        }
        if self.piece.length.is_none() {
            return self.grown().await;
        }
        let step = match self.ensured {
            Some((end, _)) => ByteRange::new(self.rest.start, end),
            None => self.step(),
        };
        if self.passing.is_some() {
            return self.around(step).await;
        }
        let mut ensured = match self.ensured.take() {
            Some((_, ensured)) => ensured,
            None => {
                self.prefetch_behind(step.end);
                self.tell_place();
                let (task, range, priority) =
                    (self.piece.task.clone(), self.in_task(step), self.priority);
                async move { task.ensure(range, priority).await }.boxed()
            }
        };
        let due = PROGRESS.saturating_sub(self.told.elapsed());
        match tokio::time::timeout(due, &mut ensured).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) if self.piece.task.passes(self.in_task(step)) => {
                return self.around(step).await;
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => {
                let front = self.front(step);
                if front.is_none_or(|front| front.end < step.end) {
                    self.ensured = Some((step.end, ensured));
                }
                return match front {
                    Some(front) => self.deliver(front).await,
                    None => Ok(self.progress().await),
                };
            }
        }
        self.deliver(step).await
    }

    /// What is here of the beginning of a step, where whoever stops now keeps what was told.
    fn front(&self, step: ByteRange) -> Option<ByteRange> {
        let groups = self.in_task(step).groups();
        let here = self.piece.task.stored().present_in(groups).into_iter().next();
        let here = here.filter(|here| self.by_path && here.first == groups.first)?;
        let end = (here.end() * GROUP_BYTES).saturating_sub(self.piece.offset).min(step.end);
        (end > step.start).then(|| ByteRange::new(step.start, end))
    }

    /// What follows of a content without a known length: no more than is here, it may be long until there is more.
    async fn grown(&mut self) -> Result<ReadChunk, CallError> {
        let mut growing = match self.growing.take() {
            Some(growing) => growing,
            None => {
                self.prefetch_behind(self.rest.start + GROUP_BYTES);
                let (task, at, priority) =
                    (self.piece.task.clone(), self.rest.start, self.priority);
                async move { task.grown(at, STEP, priority).await }.boxed()
            }
        };
        let due = PROGRESS.saturating_sub(self.told.elapsed());
        let Ok(growth) = tokio::time::timeout(due, &mut growing).await else {
            self.growing = Some(growing);
            return Ok(self.progress().await);
        };
        match growth? {
            Growth::Here(here) => self.deliver(here.intersection(self.rest)).await,
            Growth::Passed(bytes) => {
                let wanted =
                    bytes.len().min(usize::try_from(self.rest.len()).unwrap_or(usize::MAX));
                self.rest.start += wanted as u64;
                Ok(self.data(bytes.slice(..wanted)))
            }
            Growth::Ended(length) if self.is_range && self.first >= length => {
                Err(CallError::BadRange(length))
            }
            Growth::Ended(length) => {
                self.piece.length = Some(length);
                self.rest.end = self.rest.end.min(length);
                Ok(self.progress().await)
            }
        }
    }

    /// Asks for what the reader is going to want.
    fn prefetch_behind(&self, end: u64) {
        let ahead =
            ByteRange::new(end.min(self.rest.end), end.saturating_add(AHEAD).min(self.rest.end));
        self.piece.task.prefetch(self.in_task(ahead), self.background());
    }

    /// Whoever takes bytes in order is to have them in order. Who takes them by path has all of them or nothing.
    fn tell_place(&self) {
        if self.by_path {
            return;
        }
        let rate = (self.rest.start - self.first) as f64 / self.began.elapsed().as_secs_f64();
        let next = ((rate * SOON.as_secs_f64()) as u64).clamp(NEXT, AHEAD);
        let end = self.rest.start.saturating_add(next).min(self.rest.end);
        self.piece.task.reads_next(self.in_task(ByteRange::new(self.rest.start, end)));
    }

    /// Hands over what is in the store.
    async fn deliver(&mut self, step: ByteRange) -> Result<ReadChunk, CallError> {
        if self.by_path && !self.settle(step).await? {
            return Ok(self.progress().await);
        }
        if self.by_path {
            self.rest.start = step.end;
            let digests = self.digests(step);
            let present = ReadPresent { start: step.start, end: step.end, digests };
            return Ok(chunk(ChunkKind::Present(present)));
        }
        let bytes = self.piece.task.read(self.in_task(step), self.priority).await?;
        self.rest.start += bytes.len() as u64;
        Ok(self.data(bytes))
    }

    /// The first message of these bytes; the others follow.
    fn data(&mut self, bytes: Bytes) -> ReadChunk {
        self.pending = bytes;
        let part = self.pending.split_to(self.pending.len().min(MESSAGE as usize));
        chunk(ChunkKind::Data(part))
    }

    /// What is not in the content file, and never will be, goes through the socket: the groups that it
    /// shares with something that changed cannot be kept.
    async fn around(&mut self, step: ByteRange) -> Result<ReadChunk, CallError> {
        let (task, range, priority) = (self.piece.task.clone(), self.in_task(step), self.priority);
        let mut reading = self
            .passing
            .take()
            .unwrap_or_else(|| async move { task.read(range, priority).await }.boxed());
        let due = PROGRESS.saturating_sub(self.told.elapsed());
        let Ok(bytes) = tokio::time::timeout(due, &mut reading).await else {
            self.passing = Some(reading);
            return Ok(self.progress().await);
        };
        let bytes = bytes?;
        self.rest.start += bytes.len() as u64;
        Ok(self.data(bytes))
    }

    /// Whoever reads the content file directly must find no group in doubt; whether it is so. What turns
    /// out damaged is fetched again.
    async fn settle(&mut self, step: ByteRange) -> Result<bool, CallError> {
        let stored = self.piece.task.stored().clone();
        let groups = self.in_task(step).groups();
        let on_disk = move || {
            stored.put_down(groups, u64::MAX)?;
            stored.ready(groups)
        };
        let settled = tokio::task::spawn_blocking(on_disk).await;
        match settled {
            Ok(Ok(())) => Ok(true),
            Ok(Err(StoreError::Missing { groups, .. })) => {
                self.piece.task.report_lost(groups).await?;
                Ok(false)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(CallError::BadRequest("the agent is stopping".to_owned())),
        }
    }

    /// Read-ahead is less urgent than what is waited for, never more.
    fn background(&self) -> Priority {
        self.priority.max(Priority::Bulk)
    }

    /// The next range, ending where a group does.
    fn step(&self) -> ByteRange {
        let start = self.rest.start + self.piece.offset;
        let end = (start + STEP) / GROUP_BYTES * GROUP_BYTES;
        ByteRange::new(self.rest.start, (end - self.piece.offset).min(self.rest.end))
    }

    async fn progress(&mut self) -> ReadChunk {
        let early = self.early().await;
        self.told = Instant::now();
        chunk(ChunkKind::Progress(ReadProgress {
            early,
            ledger: Some(views::ledger(&self.piece.task.ledger_since(&self.mark, self.done()))),
            waiting_for: self.piece.task.waiting_for().unwrap_or_default(),
        }))
    }

    /// What is here of what comes later. A swarm brings the last of a step and the last of all at about the same time:
    /// who copied each step in its turn would begin when everything is here.
    async fn early(&mut self) -> Vec<ReadSpan> {
        if !self.by_path || self.piece.length.is_none() {
            return Vec::new();
        }
        let end = self.rest.start.saturating_add(STEP + AHEAD).min(self.rest.end);
        let ahead = self.in_task(ByteRange::new(self.rest.start, end));
        let stored = self.piece.task.stored().clone();
        let mut here = GroupSet::new();
        stored.present_in(ahead.groups()).into_iter().for_each(|run| here.insert_range(run));
        here.remove_all(&self.early);
        if here.is_empty() {
            return Vec::new();
        }
        let settled = tokio::task::spawn_blocking(move || {
            // What is in doubt and not as it should be is found missing in its turn.
            let down = |run: &GroupRange| stored.put_down(*run, u64::MAX).is_ok();
            let runs = here.ranges().take(EARLY).filter(down);
            let runs = runs.flat_map(|run| stored.ready_in(run));
            runs.collect::<Vec<_>>()
        });
        let mut spans = Vec::new();
        for run in settled.await.unwrap_or_default() {
            self.early.insert_range(run);
            let bytes = ByteRange::new(run.first * GROUP_BYTES, run.end() * GROUP_BYTES);
            let ByteRange { start, end } = bytes.intersection(ahead);
            spans.push(ReadSpan { start: start - self.piece.offset, end: end - self.piece.offset });
        }
        spans
    }

    /// Those of the groups inside of `step`, for whoever wants to know later that they are unchanged.
    fn digests(&self, step: ByteRange) -> Bytes {
        let Some(length) = self.task_length() else { return Bytes::new() };
        let end = if step.end == length { groups_in(length) } else { step.end / GROUP_BYTES };
        let groups = step.start.div_ceil(GROUP_BYTES)..end;
        let stored = self.piece.task.stored();
        let digests: Option<Vec<_>> = groups.map(|group| stored.node(Node::group(group))).collect();
        digests.unwrap_or_default().concat().into()
    }

    /// Bytes of the task, if the read is of nothing else.
    fn task_length(&self) -> Option<u64> {
        let length = self.piece.task.length();
        let is_task =
            self.piece.offset == 0 && self.piece.length.is_none_or(|of| Some(of) == length);
        length.filter(|_| is_task)
    }

    fn end(&self) -> ReadChunk {
        let length = self.piece.length.unwrap_or(self.rest.end);
        let blake3 = self.task_length().and_then(|_| self.piece.task.digest());
        chunk(ChunkKind::End(ReadEnd {
            ledger: Some(views::ledger(&self.piece.task.told_since(&self.mark, self.done()))),
            length,
            blake3: blake3.map(|digest| digest.to_vec().into()),
        }))
    }
}
