//! What the agent passes on of the schedulers, checked and with names for ids.

use std::collections::{BTreeMap, BTreeSet};

use dfs_model::HostId;
use dfs_proto::scheduler::evidence::What;
use dfs_proto::scheduler::{DropReason, FailureKind, Plain, SourceReason, StandingKind, WaitKind};
use dfs_proto::{node, scheduler};

use dfs_model::statistics::{Mean, Sketch};
use dfs_model::{Measure, WHOLE};

use super::{missing, task};
use crate::backend::Failure;
use crate::backend::swarm::{
    Detail, Failing, Look, Seen, Standing, SwarmArm, SwarmCandidate, SwarmEntry, SwarmGiver,
    SwarmPeer, SwarmScheduling, SwarmTask, Told, Which,
};

/// Most of each list that is looked at.
const MAX_TASKS: usize = 4096;
const MAX_PEERS: usize = 1024;
const MAX_ENTRIES: usize = 4096;
const MAX_NAMED: usize = 256;
const MAX_ARMS: usize = 32;

/// Characters kept of what others wrote.
const MAX_TEXT: usize = 400;

/// Asks for it.
pub fn request(look: &Look) -> node::SwarmRequest {
    let mut request = scheduler::TasksRequest {
        detail: match look.detail {
            Detail::Summary => scheduler::Detail::Summary,
            Detail::Peers => scheduler::Detail::Peers,
            Detail::Evidence => scheduler::Detail::Evidence,
        }
        .into(),
        ..Default::default()
    };
    match &look.which {
        Which::All => {}
        Which::Arms => request.arms = true,
        Which::Prefix(prefix) => request.id_prefix.clone_from(prefix),
        Which::Url(url) => request.url.clone_from(url),
    }
    node::SwarmRequest { look: Some(request) }
}

/// Reads what came back.
pub fn seen(reply: node::SwarmReply) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    for view in reply.schedulers.into_iter().take(MAX_NAMED) {
        let name = text(view.name);
        let Some(reply) = view.reply else {
            seen.silent.push((name, text(view.error)));
            continue;
        };
        seen.more |= reply.more;
        let strategy = text(reply.strategy);
        seen.arms.extend(reply.arms.into_iter().take(MAX_ARMS).map(arm));
        for status in reply.tasks.into_iter().take(MAX_TASKS) {
            seen.tasks.push(swarm_task(status, &name, &strategy)?);
        }
    }
    Ok(seen)
}

fn text(text: String) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Names by id.
struct Names(BTreeMap<HostId, String>);

impl Names {
    fn of(status: &scheduler::TaskStatus) -> Self {
        let peers = status.peers.iter().take(MAX_PEERS).filter_map(|peer| peer.host.as_ref());
        let peers = peers.filter_map(|host| Some((HostId::from_slice(&host.id)?, &host.name)));
        let others = status.others.iter().take(MAX_PEERS);
        let others = others.filter_map(|who| Some((HostId::from_slice(&who.id)?, &who.name)));
        let mut names: BTreeMap<HostId, String> =
            peers.chain(others).map(|(id, name)| (id, text(name.clone()))).collect();
        let (mut known, mut double) = (BTreeSet::new(), BTreeSet::new());
        for name in names.values() {
            if !known.insert(name.clone()) {
                double.insert(name.clone());
            }
        }
        for (id, name) in &mut names {
            if name.is_empty() {
                *name = id.to_string();
            } else if double.contains(name) {
                let id: String = id.to_string().chars().take(6).collect();
                *name = format!("{name}#{id}");
            }
        }
        Self(names)
    }

    fn name(&self, id: &[u8]) -> String {
        let Some(id) = HostId::from_slice(id) else { return "nobody".to_owned() };
        self.0.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// Of an id that may be absent.
    fn some(&self, id: &[u8]) -> Option<String> {
        (!id.is_empty()).then(|| self.name(id))
    }

    fn all<'a>(&self, ids: impl IntoIterator<Item = &'a bytes::Bytes>) -> Vec<String> {
        ids.into_iter().take(MAX_NAMED).map(|id| self.name(id)).collect()
    }
}

fn arm(arm: scheduler::Arm) -> SwarmArm {
    let series = arm.series.into_iter().take(MAX_ARMS);
    SwarmArm {
        name: text(arm.name),
        strategy: text(arm.strategy),
        share: f64::from(arm.share) / f64::from(WHOLE),
        tasks: arm.tasks,
        series: series.filter_map(series_of).collect(),
    }
}

/// None of what only later versions measure, and of what makes no sense.
fn series_of(series: scheduler::Series) -> Option<(Measure, Mean, Sketch)> {
    let measure = match series.measure() {
        scheduler::Measure::CompletionMs => Measure::Completion,
        scheduler::Measure::SourceBytes => Measure::Source,
        scheduler::Measure::CrossedBytes => Measure::Crossed,
        scheduler::Measure::Failed => Measure::Failed,
        scheduler::Measure::BlockedUs => Measure::Blocked,
        scheduler::Measure::Unspecified => return None,
    };
    let scheduler::Series { urls: clusters, count, mean, .. } = series;
    let mean = Mean {
        clusters,
        count,
        mean,
        counts_squared: series.counts_squared,
        counts_by_errors: series.counts_by_errors,
        errors_squared: series.errors_squared,
    };
    let numbers = [mean.mean, mean.counts_squared, mean.counts_by_errors, mean.errors_squared];
    let is_sound = numbers.iter().all(|number| number.is_finite()) && clusters <= count;
    is_sound.then(|| (measure, mean, Sketch::of(series.buckets)))
}

fn swarm_task(
    status: scheduler::TaskStatus,
    scheduler: &str,
    strategy: &str,
) -> Result<SwarmTask, Failure> {
    let names = Names::of(&status);
    let peers = status.peers.into_iter().take(MAX_PEERS);
    let entries = status.evidence.into_iter().take(MAX_ENTRIES);
    let delegates = status.delegates.iter().take(MAX_NAMED);
    Ok(SwarmTask {
        task: task(status.task.ok_or_else(|| missing("task"))?)?,
        scheduler: scheduler.to_owned(),
        strategy: match status.strategy.is_empty() {
            true => strategy.to_owned(),
            false => text(status.strategy),
        },
        arm: text(status.arm),
        hosts: status.hosts,
        complete: status.complete,
        taking: status.taking,
        still: status.still,
        source: status.source_bytes,
        taken: status.taken_bytes,
        crossed: status.crossed_bytes,
        seed: names.some(&status.seed_id),
        delegates: delegates.map(|one| (names.name(&one.id), one.hosts)).collect(),
        blacklisted: names.all(&status.blacklisted),
        peers: peers.map(|one| peer(one, &names)).collect(),
        entries: entries.map(|one| entry(one, &names)).collect(),
        forgotten: status.forgotten,
        now_ms: status.now_ms,
    })
}

fn peer(status: scheduler::PeerStatus, names: &Names) -> SwarmPeer {
    let host = status.host.unwrap_or_default();
    let kind = host.kind().into();
    let blocked = status.blocked.iter().take(MAX_NAMED);
    let givers = status.givers.into_iter().take(MAX_NAMED);
    SwarmPeer {
        name: names.name(&host.id),
        id: HostId::from_slice(&host.id).map(|id| id.to_string()).unwrap_or_default(),
        kind,
        idc: text(host.location.unwrap_or_default().idc),
        state: text(status.state),
        standing: standing(status.standing.unwrap_or_default(), names),
        held: status.held_bytes,
        parents: names.all(&status.parent_ids),
        blocked: blocked.map(|one| (names.name(&one.id), one.for_ms)).collect(),
        givers: givers.map(|one| giver(one, names)).collect(),
        from_source: status.source_bytes,
        given: status.given_bytes,
        withdrawn: status.withdrawn_leases,
        last_ms: status.last_age_ms,
    }
}

fn giver(giver: scheduler::Giver, names: &Names) -> SwarmGiver {
    let failures = giver.failures.iter().take(16);
    SwarmGiver {
        name: names.some(&giver.id),
        bytes: giver.bytes,
        runs: giver.runs,
        leases: giver.leases,
        failures: failures.map(|one| (failing(one.kind()), one.times)).collect(),
        last_ms: giver.last_age_ms,
    }
}

fn failing(kind: FailureKind) -> Failing {
    let (name, words) = match kind {
        FailureKind::Timeout => ("timeout", "did not answer in time"),
        FailureKind::Disconnected => ("disconnected", "broke the connection"),
        FailureKind::NotHeld => ("not-held", "did not hold what was asked for"),
        FailureKind::Busy => ("busy", "had no slot free"),
        FailureKind::BadDigest => ("bad-digest", "sent bytes that did not verify"),
        FailureKind::Unvouched => ("unvouched", "sent bytes that nobody known has signed"),
        FailureKind::Origin => ("origin", "got nothing from the origin"),
        FailureKind::Unwanted => ("unwanted", "was not needed any more"),
        FailureKind::AlreadyHeld => ("already-held", "was late: it had come in another way"),
        FailureKind::Other | FailureKind::Unspecified => ("other", "failed"),
    };
    Failing { name, words }
}

fn standing(standing: scheduler::Standing, names: &Names) -> Standing {
    let due = standing.due_ms.unwrap_or_default();
    match standing.kind() {
        StandingKind::Rests => Standing::Rests,
        StandingKind::Seeds => Standing::Seeds,
        StandingKind::Moves => Standing::Moves,
        StandingKind::ForBytes => Standing::ForBytes(standing.since_ms),
        StandingKind::ForLease => Standing::ForLease(standing.flag),
        StandingKind::ForSeed => Standing::ForSeed(names.some(&standing.seed_id), due),
        StandingKind::ForHearing => Standing::ForHearing(due),
        StandingKind::ForHolders => Standing::ForHolders(due),
        StandingKind::ForParents => Standing::ForParents(standing.tries, standing.tries_of, due),
        StandingKind::ForTurn => Standing::ForTurn(due),
        StandingKind::WithDelegate => Standing::WithDelegate(names.name(&standing.seed_id)),
        StandingKind::AtSource => Standing::AtSource(standing.flag),
        StandingKind::Silent => Standing::Silent(due),
        StandingKind::Void => Standing::Void(text(standing.reason), due),
        StandingKind::GaveUp => Standing::GaveUp,
        StandingKind::Unspecified => Standing::Other,
    }
}

fn entry(evidence: scheduler::Evidence, names: &Names) -> SwarmEntry {
    SwarmEntry {
        number: evidence.number,
        first_ms: evidence.first_age_ms,
        last_ms: evidence.last_age_ms,
        times: evidence.times,
        host: names.name(&evidence.host_id),
        what: evidence.what.map_or(Told::Other, |what| told(what, names)),
    }
}

fn told(what: What, names: &Names) -> Told {
    match what {
        What::Registered(counted) => Told::Registered(counted.groups),
        What::Announced(counted) => Told::Announced(counted.groups),
        What::Scheduled(one) => Told::Scheduled(scheduling(&one, names)),
        What::Waits(waiting) => Told::Waits(wait(waiting.kind()), waiting.tries, waiting.tries_of),
        What::Failed(failed) => Told::Failed {
            parent: names.name(&failed.parent_id),
            why: failing(failed.kind()),
            blocked: failed.blocked,
        },
        What::LetDown(one) => Told::LetDown(names.name(&one.giver_id), one.leases),
        What::Leads(counted) => Told::Leads(counted.groups),
        What::LeadsNoMore(reason) => Told::LeadsNoMore(text(reason)),
        What::DelegatedTo(host) => Told::Delegated(names.name(&host)),
        What::CameBackFrom(host) => Told::CameBack(names.name(&host)),
        What::Rescheduled(hosts) => Told::Rescheduled(names.all(&hosts.ids)),
        What::BlacklistedBy(by) => Told::Blacklisted(names.name(&by)),
        What::OrderedFor(asker) => Told::Ordered(names.some(&asker)),
        What::Obtains(counted) => Told::Obtains(counted.groups),
        What::SeedFailed(refusal) => Told::SeedFailed(text(refusal.reason)),
        What::Source(order) => Told::Source(source(order.reason()), order.stand_in),
        What::Refused(refusal) => Told::Refused(text(refusal.reason)),
        What::Ended(ended) => Told::Ended {
            success: ended.success,
            from: [ended.source_bytes, ended.seed_bytes, ended.peer_bytes],
            cost_ms: ended.cost_ms,
        },
        What::Plain(plain) => match Plain::try_from(plain) {
            Ok(Plain::Silent) => Told::Silent,
            Ok(Plain::Returned) => Told::Returned,
            Ok(Plain::Gone) => Told::Gone,
            Ok(Plain::AskedToLead) => Told::AskedToLead,
            Ok(Plain::Unspecified) | Err(_) => Told::Other,
        },
    }
}

fn wait(kind: WaitKind) -> &'static str {
    match kind {
        WaitKind::Seed => "the seed's answer",
        WaitKind::Digests => "the seed's digests",
        WaitKind::Hearing => "seeds to be heard of: the scheduler has just started",
        WaitKind::Parents => "somebody who can serve it",
        WaitKind::Turn => "its turn at the source",
        WaitKind::Holders => "those who hold it to say what they have",
        WaitKind::Unspecified => "something",
    }
}

fn source(reason: SourceReason) -> &'static str {
    match reason {
        SourceReason::NoSeed => "no seed is alive",
        SourceReason::NoParent => "nobody could serve it",
        SourceReason::OwnCredentials => "the origin gives it to its own users only",
        SourceReason::Unspecified => "no reason was given",
    }
}

fn scheduling(scheduling: &scheduler::Scheduling, names: &Names) -> SwarmScheduling {
    let candidates = scheduling.candidates.iter().take(MAX_NAMED).map(|one| SwarmCandidate {
        name: names.name(&one.id),
        dropped: dropped(one.dropped()),
        scores: <[f32; 7]>::try_from(&one.scores[..]).ok(),
    });
    SwarmScheduling {
        candidates: candidates.collect(),
        granted: names.all(&scheduling.granted),
        of: scheduling.of,
    }
}

fn dropped(reason: DropReason) -> Option<(&'static str, &'static str)> {
    Some(match reason {
        DropReason::Unspecified => return None,
        DropReason::Itself => ("itself", "is the one that asks"),
        DropReason::Gone => ("gone", "is gone"),
        DropReason::Silent => ("silent", "is not heard of any more"),
        DropReason::Blacklisted => ("blacklisted", "sent bytes that did not verify"),
        DropReason::LivesOnIt => ("cycle", "lives on the one that asks"),
        DropReason::NoSlot => ("no-slot", "has no upload slot free"),
        DropReason::Blocked => ("blocked", "failed it a moment ago"),
        DropReason::ServesOnlyItself => {
            ("serves-only-itself", "read the source for itself: nobody vouches for that")
        }
        DropReason::GaveUp => ("gave-up", "gave up"),
        DropReason::HasNothing => ("has-nothing", "has nothing yet"),
        DropReason::BadNode => ("bad-node", "downloads too slowly to depend on"),
    })
}

#[cfg(test)]
mod tests {
    use dfs_proto::common;

    use super::*;

    fn host(n: u8, name: &str) -> scheduler::Who {
        let kind = common::HostKind::Node.into();
        scheduler::Who { id: vec![n; 16].into(), name: name.to_owned(), kind }
    }

    #[test]
    fn hosts_of_one_name_are_told_apart_and_unknown_ones_by_their_ids() {
        let others = vec![host(1, "node"), host(2, "node"), host(3, "other"), host(4, "")];
        let names = Names::of(&scheduler::TaskStatus { others, ..Default::default() });
        assert_eq!(names.name(&[1; 16]), "node#010101");
        assert_eq!(names.name(&[2; 16]), "node#020202");
        assert_eq!(names.name(&[3; 16]), "other");
        assert_eq!(names.name(&[4; 16]), HostId::from_bytes([4; 16]).to_string());
        assert_eq!(names.name(&[9; 16]), HostId::from_bytes([9; 16]).to_string());
        assert_eq!((names.name(b"x"), names.some(b"")), ("nobody".to_owned(), None));
    }

    #[test]
    fn results_that_make_no_sense_are_left_out() {
        let sound = scheduler::Series {
            measure: scheduler::Measure::CompletionMs.into(),
            urls: 2,
            count: 3,
            mean: 5.0,
            buckets: vec![1; 100_000],
            ..Default::default()
        };
        let wrong = [
            scheduler::Series { mean: f64::NAN, ..sound.clone() },
            scheduler::Series { errors_squared: f64::INFINITY, ..sound.clone() },
            scheduler::Series { urls: 4, ..sound.clone() },
            scheduler::Series { measure: 99, ..sound.clone() },
        ];
        let series = wrong.into_iter().chain([sound]).collect();
        let name = "ä".repeat(1000);
        let read = arm(scheduler::Arm { name, series, share: 1250, ..Default::default() });
        assert_eq!((read.share, read.series.len()), (0.125, 1));
        assert_eq!(read.name.chars().count(), MAX_TEXT + 1);
        let (measure, mean, sketch) = &read.series[0];
        assert_eq!((*measure, mean.clusters, mean.count), (Measure::Completion, 2, 3));
        assert_eq!(sketch.counts().len(), dfs_model::statistics::BUCKETS);
    }

    #[test]
    fn what_others_wrote_is_cut_at_a_character() {
        assert_eq!(text("ä".repeat(1000)).chars().count(), MAX_TEXT + 1);
        assert_eq!(text("short".into()), "short");
    }
}
