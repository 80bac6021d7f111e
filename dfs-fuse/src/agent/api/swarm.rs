//! What the schedulers of the cluster know of tasks, for who may be told.

use dfs_model::TaskInfo;
use dfs_proto::convert;
use dfs_proto::node::{SchedulerView, SwarmReply};
use dfs_proto::scheduler::{TasksReply, TasksRequest};

use super::super::asker::Asker;
use super::super::status::CallError;
use crate::agent::Agent;

/// Bytes of one answer.
const MAX_BYTES: usize = 7 << 20;

/// Asks every scheduler: of each area one may know of a task.
pub async fn look(
    agent: &Agent,
    request: TasksRequest,
    asker: Asker,
) -> Result<SwarmReply, CallError> {
    let Some(swarm) = agent.host().engine.swarm() else { return Err(CallError::NoCluster) };
    let seen = swarm.look(&request).await.map_err(|error| CallError::Swarm(error.to_string()))?;
    let mut left = MAX_BYTES;
    let views = seen.into_iter().map(|seen| match seen.answer {
        Ok(mut reply) => {
            keep_what_may_be_seen(&mut reply, asker);
            match left.checked_sub(convert::encoded_len(&reply)) {
                Some(rest) => {
                    left = rest;
                    SchedulerView { name: seen.name, error: String::new(), reply: Some(reply) }
                }
                None => {
                    let error = "the answer has no room for what it says".to_owned();
                    SchedulerView { name: seen.name, error, reply: None }
                }
            }
        }
        Err(error) => SchedulerView { name: seen.name, error: error.to_string(), reply: None },
    });
    Ok(SwarmReply { schedulers: views.collect() })
}

/// What somebody's credentials opened is told to nobody who has shown none.
fn keep_what_may_be_seen(reply: &mut TasksReply, asker: Asker) {
    reply.tasks.retain(|status| {
        let task = status.task.clone().map(TaskInfo::try_from);
        matches!(task, Some(Ok(task)) if asker.may_see(&task.key))
    });
}
