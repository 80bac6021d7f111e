//! What a host gives by order: everything that is wanted of a task and that it has, told as it comes.
//!
//! A seed gives to the cluster so, over gRPC; a delegate to those whom it leads, inside its process.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use bytes::Bytes;
use dfs_model::{ByteRange, GroupRange, GroupSet, HostId, Priority, TaskId, TaskInfo, groups_in};
use dfs_peer::engine::{CameFrom, Engine, ReadError, Task};
use dfs_proto::common;
use dfs_proto::convert::{self, BadMessage};
use dfs_proto::seed::obtain_event::Kind;
use dfs_proto::seed::{FillPolicy, GroupsVerified, ObtainEvent, ObtainRequest, Obtaining};
use dfs_scheduler::core::TINY_BYTES;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// What comes of an order.
pub type Events = Pin<Box<dyn Stream<Item = ObtainEvent> + Send>>;

/// An order that cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not say what it must.
    #[error(transparent)]
    Malformed(#[from] BadMessage),
    /// The task is not known here; it may be elsewhere.
    #[error("task {} is not known here", .0.short())]
    Unknown(TaskId),
    /// Its content cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Begins to carry an order out.
pub async fn obtain(engine: &Engine, request: ObtainRequest) -> Result<Events, Error> {
    let fill = request.fill();
    let info = TaskInfo::try_from(request.task.unwrap_or_default())?;
    let limit = info.length.map_or(u64::MAX, groups_in);
    let wanted = convert::group_set(&request.wanted, limit)?;
    let proven = convert::group_set(&request.proven, limit)?;
    let held = match engine.held(&info.id).await {
        Some(task) => Some(task),
        None => engine.adopt(&info).await,
    };
    let task = held.ok_or(Error::Unknown(info.id))?;
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
    let first = obtaining(&task, &proven).await?;
    // What is wanted keeps it open; who only listens does not.
    let follow = stream::unfold((task.without_hold(), gained), |(task, mut gained)| async move {
        let events = next_events(&task, &mut gained).await?;
        Some((stream::iter(events), (task, gained)))
    });
    Ok(Box::pin(stream::iter(first).chain(follow.flatten())))
}

/// All of a content that is tiny and may be fetched.
pub async fn tiny(task: &Task) -> Option<Result<Bytes, ReadError>> {
    let length = task.length().filter(|length| *length <= TINY_BYTES)?;
    let may_be_read = task.is_complete() || task.may_ask_origin();
    may_be_read.then_some(())?;
    Some(task.read(ByteRange::new(0, length), Priority::Demand).await)
}

/// What is held at the beginning; then what proves it, but for what an earlier order proved.
async fn obtaining(task: &Task, proven: &GroupSet) -> Result<Vec<ObtainEvent>, ReadError> {
    let length = task.length();
    let tiny = tiny(task).await.transpose()?.unwrap_or_default();
    let held = task.stored().have();
    let info = TaskInfo { length, ..task.info().clone() };
    let news = held.ranges().take(convert::MAX_RUNS).flat_map(|run| proven.missing_in(run));
    let news: Vec<GroupRange> = news.collect();
    let groups = convert::runs(&held);
    let obtaining = Obtaining { task: Some((&info).into()), held: groups.clone(), tiny };
    let all = GroupsVerified { groups, length, giver_id: Bytes::new() };
    let first = std::iter::once(event(Kind::Obtaining(obtaining)));
    let proofs = digests(task, news.iter().copied());
    let verified = (!news.is_empty()).then(|| verified(task, &news)).into_iter().flatten();
    let verified = verified.chain([all]).map(Kind::Verified);
    Ok(first.chain(proofs).chain(verified.map(event)).collect())
}

fn event(kind: Kind) -> ObtainEvent {
    ObtainEvent { kind: Some(kind) }
}

/// The batches that prove these, each once.
fn digests(
    task: &Task,
    runs: impl Iterator<Item = GroupRange>,
) -> impl Iterator<Item = ObtainEvent> {
    let batches = runs.flat_map(|run| task.stored().signed_for(run));
    let encoded: BTreeSet<Vec<u8>> = batches.map(|signed| signed.encode()).collect();
    encoded
        .into_iter()
        .map(|encoded| event(Kind::Digests(common::SignedDigests { encoded: encoded.into() })))
}

/// Waits for the next groups; `None` when the task closes.
async fn next_events(
    task: &Task,
    gained: &mut broadcast::Receiver<GroupRange>,
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
    let mut events: Vec<ObtainEvent> = digests(task, runs.iter().copied()).collect();
    events.extend(verified(task, &runs).map(|verified| event(Kind::Verified(verified))));
    Some(events)
}

/// These, by who gave them.
fn verified(task: &Task, runs: &[GroupRange]) -> impl Iterator<Item = GroupsVerified> {
    let mut by_giver: BTreeMap<Option<HostId>, Vec<common::GroupRun>> = BTreeMap::new();
    for (from, run) in runs.iter().flat_map(|run| task.by_giver(*run)) {
        let giver = match from {
            CameFrom::Source | CameFrom::Here => None,
            CameFrom::Parent(host) => Some(host),
        };
        by_giver.entry(giver).or_default().push(run.into());
    }
    if by_giver.is_empty() {
        // Of a content with nothing in it only the length is news.
        by_giver.entry(None).or_default();
    }
    let length = task.length();
    by_giver.into_iter().map(move |(giver, groups)| {
        let giver_id = giver.map(|host| host.as_bytes().to_vec().into()).unwrap_or_default();
        GroupsVerified { groups, length, giver_id }
    })
}
