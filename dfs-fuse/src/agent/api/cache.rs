//! Eviction and verification of the cache, on demand.

use std::sync::Arc;
use std::vec;

use bytes::Bytes;
use dfs_artifact::View;
use dfs_model::{ByteSize, TaskId};
use dfs_peer::store::{PinChange, Pins, StoreError, VerifyReport, plan};
use dfs_proto::node::{
    CollectGarbageReply, CollectGarbageRequest, Named, PinTaskReply, PinTaskRequest,
    RemoveTaskReply, RemoveTaskRequest, UnpinReply, VerifyCacheEvent, VerifyCacheRequest,
};
use futures::stream::{self, Stream, StreamExt};
use tonic::Status;

use super::{NodeService, failed};
use crate::agent::damage::{Mended, Repair};
use crate::agent::mounts::Meant;
use crate::agent::pins::is_pin_of;
use crate::agent::traces::subject;
use crate::agent::{Agent, Asker, CallError, MountTableError};
use crate::mount::User;

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
    if let (Pins::GoToo, Some(keeper)) = (pins, agent.pins().keeper_of(&id)) {
        return Err(CallError::KeptForPin { task: id, keeper });
    }
    let freed = agent.host().engine.remove(id, pins).await?;
    Ok(RemoveTaskReply { bytes_freed: freed.ok_or(CallError::NoTask(id))? })
}

/// Pins one task or lets it go.
pub(super) async fn pin(
    agent: &Agent,
    request: &PinTaskRequest,
) -> Result<PinTaskReply, CallError> {
    let id = task_id(&request.task_id)?;
    let changed = match request.pinned {
        true => agent.pin_alone(id).await?,
        false => agent.unpin_alone(id).await?,
    };
    match changed {
        PinChange::Absent => Err(CallError::NoTask(id)),
        change => Ok(PinTaskReply { changed: change == PinChange::Changed }),
    }
}

/// Lets go of what is named: by a path the pin of just that, by a URL those of every version of it.
pub(super) async fn unpin(
    service: &NodeService,
    (asker, user): (Asker, User),
    what: Named,
) -> Result<UnpinReply, Status> {
    let agent = &service.agent;
    let (subject, url, path) = if what.dir.is_empty() {
        let question = service.question((asker, user), what.target, View::Auto, &[]).await;
        let url = question.map_err(failed)?.target.url.as_str().to_owned();
        (None, url, what.path.to_vec())
    } else {
        let Meant { opened, path, .. } = service.named((asker, user), what).await?;
        (subject(&opened, &path), opened.target.url.as_str().to_owned(), path)
    };
    let is_meant = is_pin_of(subject, url.clone(), path.clone());
    let pins = agent.unpin(is_meant).await.map_err(failed)?;
    let within = match pins.is_empty() {
        true => agent.pinned_around(&url, &path),
        false => None,
    };
    Ok(UnpinReply { pins, within: within.unwrap_or_default() })
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

/// A walk through the cache that hashes what is there.
struct Verifying {
    agent: Agent,
    left: vec::IntoIter<TaskId>,
    repair: bool,
    totals: VerifyCacheEvent,
}

/// Hashes tasks again, one event each and a last one with the totals.
pub(super) fn verify(
    agent: &Agent,
    request: &VerifyCacheRequest,
) -> Result<impl Stream<Item = Result<VerifyCacheEvent, CallError>> + use<>, CallError> {
    let named = [&request.task_id].into_iter().filter(|id| !id.is_empty());
    let mut ids: Vec<TaskId> =
        named.chain(&request.task_ids).map(|id| task_id(id)).collect::<Result<_, _>>()?;
    if ids.is_empty() {
        ids = agent.host().engine.store().list().into_iter().map(|task| task.id).collect();
    }
    let (agent, repair) = (agent.clone(), request.repair);
    let (left, totals) = (ids.into_iter(), VerifyCacheEvent::default());
    let start = Some(Verifying { agent, left, repair, totals });
    Ok(stream::unfold(start, |verifying| async move { verifying?.next().await }).boxed())
}

impl Verifying {
    async fn next(mut self) -> Option<(Result<VerifyCacheEvent, CallError>, Option<Self>)> {
        let Some(id) = self.left.next() else {
            let totals = VerifyCacheEvent { finished: true, ..self.totals };
            return Some((Ok(totals), None));
        };
        let event = self.one(id).await;
        if let Ok(event) = &event {
            self.totals.groups_checked += event.groups_checked;
            self.totals.groups_bad += event.groups_bad;
            self.totals.groups_repaired += event.groups_repaired;
            if !event.why_not.is_empty() {
                self.totals.why_not.clone_from(&event.why_not);
            }
        }
        let goes_on = event.is_ok().then_some(self);
        Some((event, goes_on))
    }

    /// To its end: what is found damaged is told to mounts and mended, also where nobody waits for that any more.
    async fn one(&self, id: TaskId) -> Result<VerifyCacheEvent, CallError> {
        let agent = self.agent.clone();
        let repair = if self.repair { Repair::Always } else { Repair::WhereNobodyAsks };
        let verifying = async move {
            let store = Arc::clone(agent.host().engine.store());
            let reports = blocking(move || store.verify(Some(id))).await?;
            let bad: Vec<_> = reports.iter().flat_map(|report| &report.bad).copied().collect();
            let mended = agent.mend(id, &bad, repair).await;
            Ok(event(&id, &reports, mended))
        };
        self.agent.works().to_the_end(verifying).await?
    }
}

fn event(id: &TaskId, reports: &[VerifyReport], mended: Mended) -> VerifyCacheEvent {
    let bad = mended.bad.ranges().flat_map(|run| run.iter());
    VerifyCacheEvent {
        task_id: id_bytes(id),
        groups_checked: reports.iter().map(|report| report.checked).sum(),
        groups_bad: mended.bad.len(),
        bad_groups: bad.take(1024).collect(),
        groups_repaired: mended.repaired,
        why_not: mended.why_not,
        ..VerifyCacheEvent::default()
    }
}
