//! Follows what one parent holds of a task, over the piece plane.

use std::sync::Arc;
use std::time::Duration;

use dfs_model::{GroupRange, GroupSet};
use tokio_util::sync::CancellationToken;

use super::Inner;
use super::task::{Command, ParentHost, Shared};
use crate::wire::{Holding, WatchRequest};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Groups followed while the length is not known: 64 GiB.
const LIMIT_WHEN_GROWING: u64 = 1 << 20;

/// Starts following; ends when the token that it gives, or `stop`, is cancelled.
pub(super) fn watch(
    engine: &Arc<Inner>,
    shared: &Arc<Shared>,
    parent: &ParentHost,
    stop: &CancellationToken,
) -> CancellationToken {
    let watching = stop.child_token();
    let token = watching.clone();
    let engine = Arc::clone(engine);
    let shared = Arc::clone(shared);
    let parent = parent.clone();
    engine.tracker.clone().spawn(async move {
        tokio::select! {
            () = watching.cancelled() => {}
            () = follow(&engine, &shared, &parent) => {}
        }
    });
    token
}

async fn follow(engine: &Inner, shared: &Shared, parent: &ParentHost) {
    let Some(pool) = &engine.pool else { return };
    let mut pause = FIRST_PAUSE;
    loop {
        if let Ok(connection) = pool.connect(parent.host.id, &parent.host.addresses).await {
            let request = WatchRequest { task: shared.info.id, grant: parent.grant.clone() };
            let limit = shared.shape().groups().unwrap_or(LIMIT_WHEN_GROWING);
            let mut holding = connection.watch(request, limit);
            let mut told = GroupSet::new();
            let first = holding.current().clone();
            tell(shared, parent, &first, &mut told).await;
            while holding.changed().await {
                pause = FIRST_PAUSE;
                let news = holding.current().clone();
                tell(shared, parent, &news, &mut told).await;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Unauthenticated: only a hint on whom to ask. What was told before is not told again.
async fn tell(shared: &Shared, parent: &ParentHost, holding: &Holding, told: &mut GroupSet) {
    let everything = holding.full.then(|| shared.shape().groups()).flatten();
    let groups: Vec<GroupRange> = match everything {
        Some(count) => told.missing_in(GroupRange::new(0, count)).collect(),
        None => holding.groups.ranges().flat_map(|run| told.missing_in(run)).collect(),
    };
    if groups.is_empty() {
        return;
    }
    groups.iter().for_each(|run| told.insert_range(*run));
    // The actor is gone only when the task closes.
    let _ = shared.commands.send(Command::Holds { host: parent.host.id, groups }).await;
}
