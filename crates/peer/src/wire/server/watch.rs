//! Tells a child what is held of a task.

use std::sync::Arc;

use dfs_model::TaskId;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::session::Session;
use crate::wire::frame::{Encoded, Frame, FrameError, MAX_RUNS, encode};
use crate::wire::message::{HaveUpdate, WatchRequest};

/// Passes updates on until the child ends the watch, the connection is over, or the task is dropped.
/// Updates are pulled one at a time: a child that does not read holds up nothing but its own.
pub(super) async fn run(session: Arc<Session>, request: WatchRequest, cancel: CancellationToken) {
    let task = request.task;
    let tell = async {
        if let Some(mut updates) = session.server.provider.watch(&session.peer, &request) {
            while let Some(update) = updates.next().await {
                let Ok(frames) = frames(task, update) else { break };
                for frame in frames {
                    if session.control.send(frame).await.is_err() {
                        return;
                    }
                }
            }
        }
        if let Ok(frame) = encode(Frame::Gone { task }) {
            let _ = session.control.send(frame).await;
        }
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => return,
        () = tell => {}
    }
    let mut watches = session.watches.lock();
    // A later watch of the same task took this one's place if it was cancelled.
    if !cancel.is_cancelled() {
        watches.remove(&task);
    }
}

/// One update as frames of at most [`MAX_RUNS`] runs; only the first of them is a snapshot.
fn frames(task: TaskId, update: HaveUpdate) -> Result<Vec<Encoded>, FrameError> {
    let part = |groups, snapshot| {
        let update = HaveUpdate { groups, snapshot, ..update.clone() };
        encode(Frame::Have { task, update })
    };
    if update.groups.is_empty() {
        return Ok(vec![part(Vec::new(), update.snapshot)?]);
    }
    let parts = update.groups.chunks(MAX_RUNS).enumerate();
    parts.map(|(at, groups)| part(groups.to_vec(), update.snapshot && at == 0)).collect()
}
