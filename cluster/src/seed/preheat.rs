//! Fetching all of an artifact before anybody asks for it: at the lowest urgency, so that whoever waits goes first, and
//! to its end, whoever stops listening.

use std::pin::Pin;
use std::time::Duration;

use dfs_model::{ByteRange, Priority, TaskInfo};
use dfs_peer::classes::CLASS;
use dfs_peer::engine::{Engine, ReadError, Task};
use dfs_proto::common::{self, Preheating};
use dfs_service::Tracker;
use futures::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::{bad_request, status_of};

/// How it goes, until it is complete or fails.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<Preheating, Status>> + Send>>;

/// Tasks of one artifact: its index, at most 256 spaces, and the blob.
const MAX_TASKS: usize = 1024;

/// Bytes asked for at a time.
const STEP: u64 = 32 << 20;

/// Bytes asked for at a time of a content whose length is found out on the way.
const UNKNOWN_STEP: u64 = 1 << 20;

/// Tasks fetched at a time.
const AT_ONCE: usize = 4;

/// How often it is told how it goes.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// How it ended.
type End = watch::Receiver<Option<Result<(), Status>>>;

/// Begins to fetch what of `tasks` is not held.
pub(super) async fn begin(
    engine: &Engine,
    name: &str,
    tracker: &Tracker,
    tasks: Vec<common::Task>,
) -> Result<Events, Status> {
    if tasks.is_empty() || tasks.len() > MAX_TASKS {
        return Err(Status::invalid_argument("this many tasks are of no artifact"));
    }
    let mut held = Vec::with_capacity(tasks.len());
    for task in tasks {
        let info = TaskInfo::try_from(task).map_err(bad_request)?;
        // Not NotFound, which is the origin's word: this seed may have been restarted since it resolved.
        let gone = || Status::unavailable(format!("task {} is not known here", info.id.short()));
        held.push(match engine.held(&info.id).await {
            Some(task) => task,
            None => engine.adopt(&info).await.ok_or_else(gone)?,
        });
    }
    check_room(engine, name, &held)?;
    let (over, end) = watch::channel(None);
    let (filling, stop, seed) = (held.clone(), tracker.token().clone(), name.to_owned());
    tracker.tasks().spawn(async move {
        let filled = stop.run_until_cancelled(fill(&seed, &filling)).await;
        let filled = filled.unwrap_or_else(|| Err(Status::unavailable("the seed is stopping")));
        over.send_replace(Some(filled));
    });
    let first = Preheating { seed: name.to_owned(), ..state(&held, false) };
    let rest = stream::unfold(Some((held, end)), |following| async move {
        let (held, mut end) = following?;
        match next(&held, &mut end).await {
            Ok(event) if event.complete => Some((Ok(event), None)),
            Ok(event) => Some((Ok(event), Some((held, end)))),
            Err(status) => Some((Err(status), None)),
        }
    });
    Ok(Box::pin(stream::iter([Ok(first)]).chain(rest)))
}

async fn next(held: &[Task], end: &mut End) -> Result<Preheating, Status> {
    let ended = tokio::time::timeout(TELL_EVERY, end.wait_for(Option::is_some)).await;
    match ended.map(|ended| ended.map(|end| end.clone())) {
        Err(_) => Ok(state(held, false)),
        Ok(Ok(Some(Ok(())))) => Ok(state(held, true)),
        Ok(Ok(Some(Err(status)))) => Err(status),
        Ok(Ok(None) | Err(_)) => Err(Status::unavailable("the seed is stopping")),
    }
}

fn state(held: &[Task], complete: bool) -> Preheating {
    Preheating {
        held_bytes: held.iter().map(Task::cached_bytes).sum(),
        total_bytes: held.iter().filter_map(Task::length).sum(),
        complete,
        ..Preheating::default()
    }
}

/// What can never fit is not begun.
fn check_room(engine: &Engine, name: &str, held: &[Task]) -> Result<(), Status> {
    let Some(capacity) = engine.store().capacity() else { return Ok(()) };
    let total: u64 = held.iter().filter_map(Task::length).sum();
    if total <= capacity.0 { Ok(()) } else { Err(no_room(name)) }
}

fn no_room(name: &str) -> Status {
    let why = format!("the seed {name} has no room for all of it");
    let mut status = Status::resource_exhausted(why);
    status.metadata_mut().insert(CLASS, MetadataValue::from_static("no-space"));
    status
}

async fn fill(name: &str, tasks: &[Task]) -> Result<(), Status> {
    let filling: Vec<_> = tasks.iter().map(|task| fill_one(name, task)).collect();
    stream::iter(filling).buffer_unordered(AT_ONCE).try_collect().await
}

async fn fill_one(name: &str, task: &Task) -> Result<(), Status> {
    let mut at = 0;
    loop {
        let length = task.length();
        let step = if length.is_some() { STEP } else { UNKNOWN_STEP };
        let end = length.map_or(at + step, |length| length.min(at + step));
        if at >= end {
            break;
        }
        match task.ensure(ByteRange::new(at, end), Priority::Background).await {
            Ok(()) => at = end,
            // Its end was found out meanwhile.
            Err(ReadError::PastEnd { .. }) if length.is_none() && task.length().is_some() => {}
            Err(error) => return Err(failed(name, error)),
        }
    }
    // What went past a full store is not here.
    if task.is_complete() { Ok(()) } else { Err(no_room(name)) }
}

/// The origin's word stays the origin's; whatever else goes wrong, another seed may do better.
fn failed(name: &str, error: ReadError) -> Status {
    if error.is_no_space() {
        return no_room(name);
    }
    let status = status_of(&error.into());
    match status.code() {
        Code::Internal => Status::unavailable(status.message().to_owned()),
        _ => status,
    }
}
