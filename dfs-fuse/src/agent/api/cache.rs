//! Eviction and verification of the cache, on demand.

use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{ByteSize, TaskId};
use dfs_peer::store::{PinChange, Pins, StoreError, VerifyReport, plan};
use dfs_proto::node::{
    CollectGarbageReply, CollectGarbageRequest, PinTaskReply, PinTaskRequest, RemoveTaskReply,
    RemoveTaskRequest, VerifyCacheEvent,
};
use futures::stream::{self, Stream, StreamExt};

use crate::agent::{Agent, Asker, CallError, MountTableError};

fn id_bytes(id: &TaskId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub(super) async fn collect(
    agent: &Agent,
    request: CollectGarbageRequest,
    asker: Asker,
) -> Result<CollectGarbageReply, CallError> {
    let engine = &agent.host().engine;
    let store = Arc::clone(engine.store());
    let used = store.used_bytes();
    let to_free = request.target_bytes.map(|target| used.saturating_sub(target));
    let (evicted, freed) = if request.dry_run {
        let agent = agent.clone();
        let planning = tokio::task::spawn_blocking(move || would_go(&agent, to_free, asker));
        planning.await.map_err(|_| MountTableError::Stopping)?
    } else {
        let to_free = to_free.unwrap_or_else(|| store.to_free());
        let report = engine.evict(Some(ByteSize(to_free))).await?;
        (report.evicted, report.freed)
    };
    Ok(CollectGarbageReply {
        tasks_removed: u32::try_from(evicted.len()).unwrap_or(u32::MAX),
        bytes_freed: freed,
        used_bytes: if request.dry_run { used } else { engine.store().used_bytes() },
        task_ids: evicted.iter().map(id_bytes).collect(),
    })
}

/// The same plan that an eviction follows, as far as the asker may see it.
fn would_go(agent: &Agent, to_free: Option<u64>, asker: Asker) -> (Vec<TaskId>, u64) {
    let engine = &agent.host().engine;
    let store = engine.store();
    let entries = store.eviction_entries();
    let to_free = to_free.unwrap_or_else(|| store.to_free());
    let mut ids = plan(store.now(), &entries, to_free);
    ids.retain(|id| {
        asker == Asker::Owner || engine.peek(id).is_some_and(|(info, ..)| asker.may_see(&info.key))
    });
    let freed = entries.iter().filter(|e| ids.contains(&e.id)).map(|e| e.bytes).sum();
    (ids, freed)
}

/// Takes one task away, with its pin where that was said.
pub(super) async fn remove(
    agent: &Agent,
    request: &RemoveTaskRequest,
) -> Result<RemoveTaskReply, CallError> {
    let id = task_id(&request.task_id)?;
    let pins = if request.unpin { Pins::GoToo } else { Pins::Count };
    let freed = agent.host().engine.remove(id, pins).await?;
    Ok(RemoveTaskReply { bytes_freed: freed.ok_or(CallError::NoTask(id))? })
}

/// Pins one task or lets it go.
pub(super) async fn pin(
    agent: &Agent,
    request: &PinTaskRequest,
) -> Result<PinTaskReply, CallError> {
    let id = task_id(&request.task_id)?;
    let (store, pinned) = (Arc::clone(agent.host().engine.store()), request.pinned);
    match blocking(move || if pinned { store.pin(id) } else { store.unpin(id) }).await? {
        PinChange::Absent => Err(CallError::NoTask(id)),
        change => Ok(PinTaskReply { changed: change == PinChange::Changed }),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, CallError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| MountTableError::Stopping)??)
}

fn task_id(bytes: &[u8]) -> Result<TaskId, CallError> {
    let bad = || CallError::BadRequest("a task id is 32 bytes".to_owned());
    TaskId::from_slice(bytes).ok_or_else(bad)
}

/// Hashes tasks again, one event each and a last one with the totals.
pub(super) fn verify(
    agent: &Agent,
    only: &[u8],
) -> Result<impl Stream<Item = Result<VerifyCacheEvent, CallError>> + use<>, CallError> {
    let store = Arc::clone(agent.host().engine.store());
    let ids: Vec<TaskId> = match only {
        [] => store.list().into_iter().map(|task| task.id).collect(),
        bytes => vec![task_id(bytes)?],
    };
    let start = (ids.into_iter(), 0u64, 0u64, false);
    Ok(stream::unfold(start, move |(mut ids, checked, bad, finished)| {
        let store = Arc::clone(&store);
        async move {
            if finished {
                return None;
            }
            let Some(id) = ids.next() else {
                let totals = VerifyCacheEvent {
                    groups_checked: checked,
                    groups_bad: bad,
                    finished: true,
                    ..VerifyCacheEvent::default()
                };
                return Some((Ok(totals), (ids, checked, bad, true)));
            };
            let hashed = tokio::task::spawn_blocking(move || store.verify(Some(id))).await;
            let reports = match hashed {
                Ok(Ok(reports)) => reports,
                Ok(Err(error)) => return Some((Err(error.into()), (ids, checked, bad, true))),
                Err(_) => return None,
            };
            let event = event(&id, &reports);
            let totals = (checked + event.groups_checked, bad + event.groups_bad);
            Some((Ok(event), (ids, totals.0, totals.1, false)))
        }
    })
    .boxed())
}

fn event(id: &TaskId, reports: &[VerifyReport]) -> VerifyCacheEvent {
    let bad: Vec<u64> =
        reports.iter().flat_map(|report| &report.bad).flat_map(|run| run.iter()).collect();
    VerifyCacheEvent {
        task_id: id_bytes(id),
        groups_checked: reports.iter().map(|report| report.checked).sum(),
        groups_bad: bad.len() as u64,
        bad_groups: bad.into_iter().take(1024).collect(),
        finished: false,
    }
}
