//! Serving children: groups that are held and provable, on a seed also what must be fetched first.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{GroupRange, GroupSet, Priority, groups_in};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::broadcast::error::RecvError;

use super::Engine;
use super::error::ReadError;
use super::passing::Passage;
use super::task::{Shared, Task};
use crate::hashtree::{self, Node};
use crate::store::{StoreError, Use, UseGuard, Verify};
use crate::wire::{
    ErrorCode, HaveStream, HaveUpdate, PeerIdentity, PieceRequest, Provider, Ready, Refusal,
    Segment, SegmentStream, WatchRequest,
};

/// Groups in one segment: cut at absolute places, most need no proof.
const SEGMENT: u64 = 16;

#[async_trait]
impl Provider for Engine {
    async fn open(
        &self,
        peer: &PeerIdentity,
        request: &PieceRequest,
    ) -> Result<SegmentStream, Refusal> {
        let held = self.held(&request.task).await;
        let task = held.ok_or(Refusal::from(ErrorCode::NotFound))?;
        let may_fetch = self.inner.role.serves_by_fetching() || task.fetches_for_others();
        let fetch = request.fetch && may_fetch;
        let priority = request.priority;
        if fetch {
            self.authorise(&task, request).await?;
            if let Some(nearer) = self.nearer() {
                task.is_wanted_by(peer.host, nearer, self.identity().host()).await;
            }
            let length = task.length().unwrap_or(u64::MAX);
            task.prefetch(request.groups.bytes(length), priority);
        }
        let want_signed = request.want_signed;
        let used = Arc::new(task.in_use(Use::Serve).map_err(|error| refusal(&error))?);
        let answer = Answer {
            task,
            used,
            rest: request.groups.cut(SEGMENT).collect(),
            fetch: fetch.then_some(priority),
            want_signed,
            sent: false,
        };
        let segments = stream::unfold(answer, |mut answer| async move {
            let next = answer.next().await?;
            Some((next, answer))
        });
        Ok(segments.boxed())
    }

    fn watch(&self, _peer: &PeerIdentity, request: &WatchRequest) -> Option<HaveStream> {
        let (engine, id) = (self.clone(), request.task);
        let found = stream::once(async move { engine.held(&id).await });
        let told = found.flat_map(|task| task.map_or(stream::empty().boxed(), holdings));
        Some(told.boxed())
    }
}

/// An answer under way.
struct Answer {
    task: Task,
    /// Held until the last segment is read: eviction must not come between.
    used: Arc<UseGuard>,
    /// Cuts that are still to be sent.
    rest: VecDeque<GroupRange>,
    /// How urgently what is missing is fetched, where it is.
    fetch: Option<Priority>,
    want_signed: bool,
    sent: bool,
}

impl Answer {
    /// The next segment. An answer ends where a hole begins, and is a refusal only when its first group is
    /// in one: so the child learns group by group what cannot come, and gets everything else.
    async fn next(&mut self) -> Option<Result<Ready, Refusal>> {
        let groups = self.rest.pop_front()?;
        let there = match self.fetch {
            Some(priority) => self.ensure(groups, priority).await,
            None => Ok((groups, None)),
        };
        let (there, passage) = match there {
            Ok(there) => there,
            Err(error) => match self.task.hole_in(groups) {
                Some(_) if self.sent => return None,
                Some((hole, why)) if hole.first == groups.first => return Some(Err(void(&why))),
                _ => return Some(Err(self.refused(&error))),
            },
        };
        if there != groups {
            self.rest.clear();
        }
        self.sent = true;
        let (shared, want_signed) = (Arc::clone(&self.task.shared), self.want_signed);
        let used = Arc::clone(&self.used);
        Some(Ok(Ready::new(move || {
            let _kept_here = (used, passage);
            segment(&shared, there, want_signed)
        })))
    }

    fn refused(&self, error: &ReadError) -> Refusal {
        let fetched = self.fetch.and_then(|_| self.task.shared.refusal_of_origin(error));
        fetched.unwrap_or_else(|| refusal(error))
    }

    /// Has the groups fetched; gives those before the first hole, and what keeps them in memory where the store
    /// has no room for them.
    async fn ensure(
        &self,
        mut groups: GroupRange,
        priority: Priority,
    ) -> Result<(GroupRange, Option<Passage>), ReadError> {
        loop {
            let mut ensured = self.task.ensure_groups(groups, priority).await.map(|()| None);
            if ensured.as_ref().is_err_and(ReadError::is_no_space) {
                ensured = self.task.passage(groups, priority).await.map(Some);
            }
            let error = match ensured {
                Ok(passage) => return Ok((groups, passage)),
                Err(error) => error,
            };
            match self.task.hole_in(groups) {
                // Fewer in every round.
                Some((hole, _)) if hole.first > groups.first => {
                    groups = GroupRange::new(groups.first, hole.first - groups.first);
                }
                _ => return Err(error),
            }
        }
    }
}

/// The first group asked for is in a hole, whatever the reason: nothing is said of the others.
fn void(why: &ReadError) -> Refusal {
    let code = match why {
        ReadError::OriginChanged(_) => ErrorCode::OriginChanged,
        _ => ErrorCode::Void,
    };
    Refusal::new(code, crate::error_chain(why))
}

fn refusal(error: &ReadError) -> Refusal {
    let code = match error {
        ReadError::OriginChanged(_) => ErrorCode::OriginChanged,
        ReadError::NotFound(_) | ReadError::NotPermitted(_) | ReadError::Source(_) => {
            ErrorCode::OriginFailed
        }
        ReadError::Timeout { .. } => ErrorCode::Deadline,
        ReadError::PastEnd { .. } => ErrorCode::NotHeld,
        _ => ErrorCode::Internal,
    };
    Refusal::new(code, crate::error_chain(error))
}

/// Reads groups back with their proof. Blocks.
fn segment(shared: &Shared, groups: GroupRange, want_signed: bool) -> Result<Segment, Refusal> {
    let shape = shared.shape();
    let groups = match shape.groups() {
        Some(count) => groups.intersection(GroupRange::new(0, count)),
        None => groups,
    };
    // Who asks beyond the end learns from the last group's batch where it is.
    let proven = match (shape.groups(), groups.is_empty()) {
        (Some(count), true) => GroupRange::new(count.saturating_sub(1), 1),
        _ => groups,
    };
    let signed = shared.signed_for(proven);
    let trusted: Vec<Node> = signed
        .iter()
        .flat_map(|signed| signed.batch().entries.iter().map(|(node, _)| *node))
        .collect();
    let length = shape.length();
    let mut out = Segment { first: groups.first, length, ..Segment::default() };
    if want_signed {
        out.signed = signed.iter().map(|signed| Bytes::from(signed.encode())).collect();
    }
    if groups.is_empty() {
        return Ok(out);
    }
    let lookup = |node: Node| shared.node(node);
    let proof = hashtree::prove(shape, groups, &trusted, lookup)
        .map_err(|error| Refusal::new(ErrorCode::NotHeld, error.to_string()))?;
    let bytes = groups.bytes(length.unwrap_or(u64::MAX));
    let payload = shared.bytes(bytes, Verify::Arrivals).map_err(|error| match error {
        StoreError::Missing { .. } => Refusal::from(ErrorCode::NotHeld),
        error => Refusal::new(ErrorCode::Internal, error.to_string()),
    })?;
    if !proof.is_empty() {
        let mut encoded = Vec::new();
        proof.encode(&mut encoded);
        out.proof = encoded.into();
    }
    out.count = u16::try_from(groups.count).unwrap_or(u16::MAX);
    out.payload = payload;
    Ok(out)
}

/// The groups of `runs` that can be proven to others.
fn provable(shared: &Shared, runs: impl Iterator<Item = GroupRange>) -> Vec<GroupRange> {
    let mut groups = GroupSet::new();
    for group in runs.flat_map(|run| run.iter()).filter(|group| shared.stored.is_signed(*group)) {
        groups.insert(group);
    }
    groups.ranges().collect()
}

/// A snapshot of what is held, then what comes.
fn holdings(task: Task) -> BoxStream<'static, HaveUpdate> {
    let gained = task.gained();
    stream::unfold((task, gained, true), |(task, mut gained, snapshot)| async move {
        if snapshot {
            return Some((snapshot_of(&task).await?, (task, gained, false)));
        }
        let mut groups = GroupSet::new();
        let news = tokio::select! {
            news = gained.recv() => news,
            // It was evicted.
            () = task.closed() => return None,
        };
        match news {
            Ok(run) => groups.insert_range(run),
            Err(RecvError::Lagged(_)) => {
                return Some((snapshot_of(&task).await?, (task, gained, false)));
            }
            Err(RecvError::Closed) => return None,
        }
        while let Ok(run) = gained.try_recv() {
            groups.insert_range(run);
        }
        let update = HaveUpdate {
            length: task.length(),
            full: false,
            snapshot: false,
            groups: provable(&task.shared, groups.ranges()),
        };
        Some((update, (task, gained, false)))
    })
    .boxed()
}

/// All that is held now; `None` when the process stops.
async fn snapshot_of(task: &Task) -> Option<HaveUpdate> {
    let shared = Arc::clone(&task.shared);
    let snapshot = move || {
        let length = shared.shape().length();
        let groups = provable(&shared, shared.stored.have().ranges());
        let held: u64 = groups.iter().map(|run| run.count).sum();
        let full = held > 0 && length.is_some_and(|length| held == groups_in(length));
        HaveUpdate { length, full, snapshot: true, groups }
    };
    // A long list is made of many look-ups, and the first of them reads the log of signatures.
    tokio::task::spawn_blocking(snapshot).await.ok()
}
