//! What the agent knows, as messages.

use std::path::Path;
use std::time::UNIX_EPOCH;

use dfs_model::{TaskId, groups_in};
use dfs_peer::engine::{Ledger, Task};
use dfs_peer::store::{TaskSummary, Verify};
use dfs_proto::common;
use dfs_proto::node::{self, MountInfo, StatusReply};

use crate::agent::follow::FollowView;
use crate::agent::kept::unix_ms;
use crate::agent::mounts::{MountView, shown};
use crate::agent::prefetch::{PrefetchView, State};
use crate::agent::{Agent, Asker, Away};
use crate::core::Seen;
use crate::mount::Survival;

pub(super) fn status(agent: &Agent) -> StatusReply {
    let engine = &agent.host().engine;
    let facts = agent.facts();
    StatusReply {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: agent.instance(),
        pid: std::process::id(),
        host_id: engine.identity().host().as_bytes().to_vec().into(),
        data_dir: facts.data_dir.to_string_lossy().into_owned(),
        used_bytes: engine.store().used_bytes(),
        medium: engine.store().medium().name().to_owned(),
        cache_dir: engine.store().place().to_string_lossy().into_owned(),
        capacity_bytes: facts.capacity.map_or(0, |capacity| capacity.0),
        cluster: facts.cluster.clone(),
        cluster_connected: engine.swarm().is_some_and(|swarm| swarm.is_connected()),
        pieces: agent.host().info.addresses.iter().copied().map(Into::into).collect(),
    }
}

pub(in crate::agent) fn ledger(ledger: &Ledger) -> node::Ledger {
    let parents = ledger.parents.iter().map(|parent| node::ParentBytes {
        name: parent.name.clone(),
        host_id: parent.host.as_bytes().to_vec().into(),
        kind: common::HostKind::from(parent.kind).into(),
        bytes: parent.bytes,
    });
    node::Ledger {
        cache_bytes: ledger.cache_bytes,
        source_bytes: ledger.source_bytes,
        source_requests: ledger.source_requests,
        parents: parents.collect(),
        wire_bytes: ledger.wire_bytes,
    }
}

/// The mounts that the asker may see, or the one on `only`. Blocks.
pub(super) fn mounts(agent: &Agent, only: Option<&Path>, asker: Asker) -> Vec<MountInfo> {
    agent
        .mounts()
        .list(only)
        .into_iter()
        .filter(|view| asker.may_see_mount(view.by, &view.opened))
        .map(|view| {
            let mut artifact = view.opened.describe();
            artifact.url = shown(&view.opened.target.url, &view.path);
            let index = view.opened.index.as_ref().and_then(|index| index.task.length());
            MountInfo {
                dir: view.dir.to_string_lossy().into_owned(),
                device: view.device.clone().unwrap_or_default(),
                lane: view.lane.lane.to_string(),
                lane_reason: view.lane.why.clone(),
                cached_bytes: view.cached,
                content_bytes: view.content,
                ledger: Some(ledger(&view.ledger)),
                state: state(&view),
                survival: Some(survival(&view.survival)),
                prefetch: Some(prefetch(&view.prefetch)),
                reads: view.reads.as_ref().map(reads),
                cache_quota: view.cache_quota.map(|quota| quota.0),
                verify_reads: view.verify == Verify::Reads,
                follow: view.follow.as_ref().map(follow),
                files: view.files,
                index_bytes: index.unwrap_or(0),
                left_out: view
                    .opened
                    .index
                    .as_ref()
                    .map_or(0, |index| index.index.left_out().count),
                artifact: Some(artifact),
                away: view.away.as_ref().map(away),
            }
        })
        .collect()
}

fn state(view: &MountView) -> String {
    let waiting = view.opened.tasks.iter().find_map(Task::waiting_for);
    let complete = view.opened.tasks.iter().all(Task::is_complete);
    let state = match waiting {
        Some(why) => format!("waiting for {why}"),
        None if complete => "complete: works offline".to_owned(),
        None => "ready".to_owned(),
    };
    match &view.survival {
        Survival::Kept { resends: true, .. }
        | Survival::Independent
        | Survival::Dies { why: None } => state,
        Survival::Kept { .. } => format!("{state}; reads under way fail if the agent dies"),
        Survival::Dies { why: Some(why) } => format!("{state}; dies with its agent: {why}"),
    }
}

fn away(away: &Away) -> node::Away {
    let since = away.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let since_unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    node::Away { since_unix_ms, why: away.why.clone() }
}

fn prefetch(prefetch: &PrefetchView) -> node::PrefetchInfo {
    let PrefetchView { mode, state, runs, known, tally } = prefetch;
    let (state, waiting_for) = match state {
        State::Idle => (node::PrefetchState::Idle, ""),
        State::Fetching => (node::PrefetchState::Fetching, ""),
        State::Waiting(why) => (node::PrefetchState::Waiting, &**why),
        State::Done => (node::PrefetchState::Done, ""),
        State::Misled => (node::PrefetchState::Misled, ""),
    };
    node::PrefetchInfo {
        mode: node::Prefetch::from(*mode).into(),
        state: state.into(),
        waiting_for: waiting_for.to_owned(),
        runs: *runs,
        known_bytes: *known,
        touched_bytes: tally.touched,
        fetched_bytes: tally.fetched,
        hit_bytes: tally.hit,
    }
}

fn reads(seen: &Seen) -> node::ReadsInfo {
    let micros = |percent| {
        let wait = seen.wait(percent).unwrap_or_default();
        u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)
    };
    node::ReadsInfo {
        reads: seen.reads,
        bytes: seen.bytes,
        waits: seen.waits(),
        stalls: seen.stalls,
        errors: seen.errors,
        waiting: seen.waiting,
        unseen: seen.unseen,
        wait_p50_us: micros(50),
        wait_p99_us: micros(99),
    }
}

fn follow(follow: &FollowView) -> node::FollowInfo {
    let FollowView { following, looked, failing, earlier, never_changes } = follow;
    let (failing_unix_ms, failed) = match failing {
        Some((since, why)) => (unix_ms(*since), why.clone()),
        None => (0, String::new()),
    };
    node::FollowInfo {
        every_ms: u64::try_from(following.every.as_millis()).unwrap_or(u64::MAX),
        switches: following.switches,
        switched_unix_ms: following.switched.map_or(0, unix_ms),
        looked_unix_ms: looked.map_or(0, unix_ms),
        failed,
        failing_unix_ms,
        earlier: u32::try_from(*earlier).unwrap_or(u32::MAX),
        never_changes: *never_changes,
    }
}

fn survival(survival: &Survival) -> node::Survival {
    match survival {
        Survival::Kept { by, resends } => node::Survival {
            kept_by: by.holder.pid().unwrap_or(0),
            resends: *resends,
            ..node::Survival::default()
        },
        Survival::Independent => node::Survival { independent: true, ..node::Survival::default() },
        Survival::Dies { why } => {
            node::Survival { why_not: why.clone().unwrap_or_default(), ..node::Survival::default() }
        }
    }
}

pub(super) fn tasks(agent: &Agent, prefix: &str, asker: Asker) -> Vec<node::TaskInfo> {
    let summaries = agent.host().engine.store().list();
    let wanted = summaries.into_iter().filter(|task| task.id.to_string().starts_with(prefix));
    wanted.filter_map(|summary| task(agent, &summary, asker)).collect()
}

/// These of them, for who may look into what they are of.
pub(super) fn tasks_of(agent: &Agent, ids: &[TaskId]) -> Vec<node::TaskInfo> {
    let mut summaries = agent.host().engine.store().list();
    summaries.retain(|summary| ids.contains(&summary.id));
    summaries.iter().filter_map(|summary| task(agent, summary, Asker::Owner)).collect()
}

fn task(agent: &Agent, summary: &TaskSummary, asker: Asker) -> Option<node::TaskInfo> {
    // Not opened: a look at the cache must not cost files and actors for all of it.
    let (info, stored, open) = agent.host().engine.peek(&summary.id)?;
    if !asker.may_see(&info.key) {
        return None;
    }
    let have = stored.have();
    let length = info.length.unwrap_or(u64::MAX);
    let cached_bytes = have.ranges().map(|run| run.bytes(length).len()).sum();
    let cached = || Ledger { cache_bytes: cached_bytes, ..Ledger::default() };
    let since = summary.last_read.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(node::TaskInfo {
        task: Some((&info).into()),
        cached_bytes,
        disk_bytes: summary.bytes,
        in_use: summary.in_use.any(),
        pinned: summary.pinned,
        fetching: summary.in_use.fetches > 0,
        last_read_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        ledger: Some(ledger(&open.as_ref().map_or_else(cached, Task::ledger))),
        complete: info.length.is_some_and(|length| have.len() == groups_in(length)),
        parents: open.as_ref().map(Task::parents).unwrap_or_default(),
    })
}
