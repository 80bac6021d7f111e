//! What the core tells people, as it travels: bounded, whatever hosts have said.

use bytes::Bytes;
use dfs_model::statistics::Mean;
use dfs_model::{HostId, Measure, shortened};
use dfs_proto::convert;
use dfs_proto::scheduler::evidence::What;
use dfs_proto::{common, scheduler};
use dfs_scheduler::core::{
    ArmReport, Candidate, Detail, Ending, Entry, Evidence, FailureKind, Given, Look, Millis,
    PeerReport, REASON_CHARS, Reason, Scheduling, Scores, Series, SourceReason, Standing,
    TaskReport, Verdict, Wait, Which, Who,
};
use prost::Message as _;

use super::messages::{Unacceptable, id_bytes, refusal_message, task_message};
use super::service::Seen;

/// Bytes of one answer: what is beyond them is left out, and said to be.
const MAX_BYTES: usize = 3 << 20;

/// Hexadecimal digits of a task's id.
const DIGITS: usize = 64;

/// Milliseconds that stand for "for ever" in the core.
const FOR_EVER: Millis = Millis(u64::MAX);

/// Reads what somebody wants to look at.
pub fn look(request: &scheduler::TasksRequest) -> Result<Look, Unacceptable> {
    let prefix = request.id_prefix.to_ascii_lowercase();
    let is_hex = prefix.len() <= DIGITS && prefix.bytes().all(|digit| digit.is_ascii_hexdigit());
    let which = match &request.task_id[..] {
        _ if request.arms => Which::Arms,
        [] if !is_hex => return Err(Unacceptable::Prefix),
        [] if !prefix.is_empty() => Which::Prefix(prefix),
        [] if !request.url.is_empty() => {
            Which::Url(convert::url(&request.url)?.as_str().to_owned())
        }
        [] => Which::All,
        id => Which::One(convert::task_id(id)?),
    };
    let detail = match request.detail() {
        scheduler::Detail::Summary => Detail::Summary,
        scheduler::Detail::Unspecified | scheduler::Detail::Peers => Detail::Peers,
        scheduler::Detail::Evidence => Detail::Evidence,
    };
    Ok(Look { which, detail, after: request.after })
}

/// What is seen, as far as one message has room for it.
pub fn reply(seen: &Seen) -> scheduler::TasksReply {
    let strategy = seen.strategy.to_owned();
    let arms = seen.arms.iter().map(arm).collect();
    let mut reply = scheduler::TasksReply { tasks: Vec::new(), more: false, strategy, arms };
    let mut bytes = 0;
    for report in &seen.tasks {
        let status = status(report, seen.epoch);
        bytes += status.encoded_len();
        if bytes > MAX_BYTES && !reply.tasks.is_empty() {
            reply.more = true;
            break;
        }
        reply.tasks.push(status);
    }
    reply
}

fn arm(report: &ArmReport) -> scheduler::Arm {
    let series = Measure::ALL.into_iter().zip(&report.series);
    scheduler::Arm {
        name: report.name.clone(),
        strategy: report.strategy.to_owned(),
        share: report.share,
        tasks: report.tasks as u64,
        series: series.map(|(measure, series)| series_message(measure, series)).collect(),
    }
}

fn series_message(measure: Measure, series: &Series) -> scheduler::Series {
    let measure = match measure {
        Measure::Completion => scheduler::Measure::CompletionMs,
        Measure::Source => scheduler::Measure::SourceBytes,
        Measure::Crossed => scheduler::Measure::CrossedBytes,
        Measure::Failed => scheduler::Measure::Failed,
        Measure::Blocked => scheduler::Measure::BlockedUs,
    };
    let Mean { clusters, count, mean, counts_squared, counts_by_errors, errors_squared } =
        series.mean;
    scheduler::Series {
        measure: measure.into(),
        urls: clusters,
        count,
        mean,
        counts_squared,
        counts_by_errors,
        errors_squared,
        buckets: series.sketch.counts().to_vec(),
    }
}

fn status(report: &TaskReport, epoch: u64) -> scheduler::TaskStatus {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let now = report.now;
    scheduler::TaskStatus {
        task: Some(task_message(&report.task)),
        state: report.state.to_owned(),
        peers: report.peers.iter().map(|one| peer(one, now)).collect(),
        hosts: count(report.hosts),
        complete: count(report.complete),
        taking: count(report.taking),
        still: count(report.still),
        source_bytes: report.totals.source,
        crossed_bytes: report.totals.crossed,
        taken_bytes: report.totals.taken,
        seed_id: report.seed.map(id).unwrap_or_default(),
        blacklisted: ids(&report.blacklisted),
        evidence: report.entries.iter().map(|one| entry(one, now)).collect(),
        forgotten: report.forgotten,
        others: report.others.iter().map(who).collect(),
        arm: report.arm.clone(),
        strategy: report.strategy.to_owned(),
        delegates: report.delegates.iter().map(delegate).collect(),
        now_ms: epoch.saturating_add(now.0),
    }
}

fn delegate((host, hosts): &(HostId, usize)) -> scheduler::Delegate {
    scheduler::Delegate { id: id(*host), hosts: u32::try_from(*hosts).unwrap_or(u32::MAX) }
}

fn id(host: HostId) -> Bytes {
    id_bytes(host.as_bytes())
}

fn ids(hosts: &[HostId]) -> Vec<Bytes> {
    hosts.iter().copied().map(id).collect()
}

fn age(at: Millis, now: Millis) -> u64 {
    now.0.saturating_sub(at.0)
}

fn left(until: Millis, now: Millis) -> u64 {
    until.0.saturating_sub(now.0)
}

fn who(who: &Who) -> scheduler::Who {
    let kind = common::HostKind::from(who.kind).into();
    scheduler::Who { id: id(who.id), name: who.name.clone(), kind }
}

fn peer(report: &PeerReport, now: Millis) -> scheduler::PeerStatus {
    let named = report.givers.iter().map(|one| giver(id(one.host), &one.given, now));
    let others = (report.other_givers != Given::default())
        .then(|| giver(Bytes::new(), &report.other_givers, now));
    let blocked = report.blocked.iter().map(|(host, until)| scheduler::Blocked {
        id: id(*host),
        for_ms: (*until != FOR_EVER).then(|| left(*until, now)),
    });
    scheduler::PeerStatus {
        host: Some((&*report.host).into()),
        state: report.state.to_owned(),
        held_groups: report.held_groups,
        parent_ids: ids(&report.parents),
        standing: Some(standing(&report.standing, now)),
        held_bytes: report.held_bytes,
        givers: named.chain(others).collect(),
        source_bytes: report.from_source,
        given_bytes: report.given,
        withdrawn_leases: report.withdrawn,
        last_age_ms: report.last.map(|at| age(at, now)),
        blocked: blocked.collect(),
    }
}

fn giver(id: Bytes, given: &Given, now: Millis) -> scheduler::Giver {
    let failures = given
        .failures()
        .map(|(ending, times)| scheduler::Failures { kind: ending_message(ending).into(), times });
    scheduler::Giver {
        id,
        bytes: given.bytes,
        runs: given.runs,
        leases: given.leased,
        failures: failures.collect(),
        last_age_ms: given.last.map(|at| age(at, now)),
    }
}

fn ending_message(ending: Ending) -> scheduler::FailureKind {
    match ending {
        Ending::Failed(kind) => failure_message(kind),
        Ending::Held => scheduler::FailureKind::AlreadyHeld,
        Ending::Unwanted => scheduler::FailureKind::Unwanted,
    }
}

fn failure_message(kind: FailureKind) -> scheduler::FailureKind {
    match kind {
        FailureKind::Timeout => scheduler::FailureKind::Timeout,
        FailureKind::Disconnected => scheduler::FailureKind::Disconnected,
        FailureKind::NotHeld => scheduler::FailureKind::NotHeld,
        FailureKind::Busy => scheduler::FailureKind::Busy,
        FailureKind::BadDigest => scheduler::FailureKind::BadDigest,
        FailureKind::Unvouched => scheduler::FailureKind::Unvouched,
        FailureKind::Origin => scheduler::FailureKind::Origin,
        FailureKind::Other => scheduler::FailureKind::Other,
    }
}

fn standing(standing: &Standing, now: Millis) -> scheduler::Standing {
    use scheduler::StandingKind as Kind;
    let of = |kind: Kind| scheduler::Standing { kind: kind.into(), ..Default::default() };
    let due = |kind, at| scheduler::Standing { due_ms: Some(left(at, now)), ..of(kind) };
    match standing {
        Standing::Rests => of(Kind::Rests),
        Standing::Seeds => of(Kind::Seeds),
        Standing::Moves => of(Kind::Moves),
        Standing::ForBytes { since } => {
            let since_ms = since.map(|since| age(since, now));
            scheduler::Standing { since_ms, ..of(Kind::ForBytes) }
        }
        Standing::ForLease { hopeful } => {
            scheduler::Standing { flag: *hopeful, ..of(Kind::ForLease) }
        }
        Standing::ForSeed { seed, due: at } => {
            let seed_id = seed.map(id).unwrap_or_default();
            scheduler::Standing { seed_id, ..due(Kind::ForSeed, *at) }
        }
        Standing::ForHearing { due: at } => due(Kind::ForHearing, *at),
        Standing::ForHolders { due: at } => due(Kind::ForHolders, *at),
        Standing::ForParents { tries, of, due: at } => {
            scheduler::Standing { tries: *tries, tries_of: *of, ..due(Kind::ForParents, *at) }
        }
        Standing::ForTurn { due: at } => due(Kind::ForTurn, *at),
        Standing::WithDelegate { delegate } => {
            scheduler::Standing { seed_id: id(*delegate), ..of(Kind::WithDelegate) }
        }
        Standing::AtSource { stand_in } => {
            scheduler::Standing { flag: *stand_in, ..of(Kind::AtSource) }
        }
        Standing::Silent { until } => due(Kind::Silent, *until),
        Standing::Void { kind, reason, until } => scheduler::Standing {
            refusal: refusal_message(*kind).into(),
            reason: shortened(reason, REASON_CHARS).into_owned(),
            ..due(Kind::Void, *until)
        },
        Standing::GaveUp => of(Kind::GaveUp),
    }
}

fn entry(entry: &Entry, now: Millis) -> scheduler::Evidence {
    scheduler::Evidence {
        number: entry.number,
        first_age_ms: age(entry.first, now),
        last_age_ms: age(entry.last, now),
        times: entry.times,
        host_id: id(entry.host),
        what: Some(what(&entry.what)),
    }
}

fn what(what: &Evidence) -> What {
    let plain = |plain: scheduler::Plain| What::Plain(plain.into());
    let refusal = |kind, reason: &str| scheduler::Refusal {
        kind: refusal_message(kind).into(),
        reason: reason.to_owned(),
    };
    match what {
        Evidence::Registered { held } => What::Registered(scheduler::Counted { groups: *held }),
        Evidence::Announced { held } => What::Announced(scheduler::Counted { groups: *held }),
        Evidence::Scheduled(one) => What::Scheduled(scheduling(one)),
        Evidence::Waits { wait, tries: (tries, tries_of) } => What::Waits(scheduler::Waiting {
            kind: wait_message(*wait).into(),
            tries: *tries,
            tries_of: *tries_of,
        }),
        Evidence::Failed { parent, kind, blocked } => What::Failed(scheduler::ParentFailed {
            parent_id: id(*parent),
            kind: failure_message(*kind).into(),
            blocked: *blocked,
        }),
        Evidence::Leads { hosts } => What::Leads(scheduler::Counted { groups: *hosts as u64 }),
        Evidence::LeadsNoMore { reason } => What::LeadsNoMore((*reason).to_owned()),
        Evidence::Delegated { to } => What::DelegatedTo(id(*to)),
        Evidence::CameBack { from } => What::CameBackFrom(id(*from)),
        Evidence::AskedToLead => plain(scheduler::Plain::AskedToLead),
        Evidence::LetDown { giver, leases } => {
            What::LetDown(scheduler::LetDown { giver_id: id(*giver), leases: *leases })
        }
        Evidence::Rescheduled { bad } => What::Rescheduled(scheduler::Hosts { ids: ids(bad) }),
        Evidence::Blacklisted { by } => What::BlacklistedBy(id(*by)),
        Evidence::Ordered { asker } => What::OrderedFor(asker.map(id).unwrap_or_default()),
        Evidence::Obtains { held } => What::Obtains(scheduler::Counted { groups: *held }),
        Evidence::SeedFailed { kind, reason } => What::SeedFailed(refusal(*kind, reason)),
        Evidence::Source { reason, stand_in } => What::Source(scheduler::ToSource {
            reason: source_message(*reason).into(),
            stand_in: *stand_in,
        }),
        Evidence::Refused { kind, reason } => What::Refused(refusal(*kind, reason)),
        Evidence::Ended { success, taken } => What::Ended(scheduler::Ended {
            success: *success,
            source_bytes: taken.source,
            seed_bytes: taken.seed,
            peer_bytes: taken.peers,
            cost_ms: taken.cost_ms,
        }),
        Evidence::Silent => plain(scheduler::Plain::Silent),
        Evidence::Returned => plain(scheduler::Plain::Returned),
        Evidence::Gone => plain(scheduler::Plain::Gone),
    }
}

fn scheduling(scheduling: &Scheduling) -> scheduler::Scheduling {
    scheduler::Scheduling {
        candidates: scheduling.candidates.iter().map(candidate).collect(),
        granted: ids(&scheduling.granted),
        of: u32::try_from(scheduling.of).unwrap_or(u32::MAX),
    }
}

fn candidate(candidate: &Candidate) -> scheduler::Candidate {
    let (dropped, scores) = match candidate.verdict {
        Verdict::Scored(scores) => (scheduler::DropReason::Unspecified, six(scores)),
        Verdict::Dropped(reason) => (reason_message(reason), Vec::new()),
    };
    scheduler::Candidate { id: id(candidate.host), dropped: dropped.into(), scores }
}

fn six(scores: Scores) -> Vec<f32> {
    let Scores { finished, success, free, kind, idc, location, sum } = scores;
    vec![finished, success, free, kind, idc, location, sum as f32]
}

fn reason_message(reason: Reason) -> scheduler::DropReason {
    match reason {
        Reason::Itself => scheduler::DropReason::Itself,
        Reason::Gone => scheduler::DropReason::Gone,
        Reason::Silent => scheduler::DropReason::Silent,
        Reason::Blacklisted => scheduler::DropReason::Blacklisted,
        Reason::LivesOnIt => scheduler::DropReason::LivesOnIt,
        Reason::NoSlot => scheduler::DropReason::NoSlot,
        Reason::Blocked => scheduler::DropReason::Blocked,
        Reason::ServesOnlyItself => scheduler::DropReason::ServesOnlyItself,
        Reason::GaveUp => scheduler::DropReason::GaveUp,
        Reason::HasNothing => scheduler::DropReason::HasNothing,
        Reason::BadNode => scheduler::DropReason::BadNode,
    }
}

fn wait_message(wait: Wait) -> scheduler::WaitKind {
    match wait {
        Wait::Seed => scheduler::WaitKind::Seed,
        Wait::Digests => scheduler::WaitKind::Digests,
        Wait::Hearing => scheduler::WaitKind::Hearing,
        Wait::Holders => scheduler::WaitKind::Holders,
        Wait::Parents => scheduler::WaitKind::Parents,
        Wait::Turn => scheduler::WaitKind::Turn,
    }
}

fn source_message(reason: SourceReason) -> scheduler::SourceReason {
    match reason {
        SourceReason::NoSeed => scheduler::SourceReason::NoSeed,
        SourceReason::NoParent => scheduler::SourceReason::NoParent,
        SourceReason::OwnCredentials => scheduler::SourceReason::OwnCredentials,
    }
}

#[cfg(test)]
mod tests {
    use super::super::messages::tests::some_task;
    use super::*;

    fn report(url_bytes: usize) -> TaskReport {
        let mut task = some_task();
        let url = format!("http://origin.test/{}", "x".repeat(url_bytes));
        task.key.url = dfs_model::CanonicalUrl::parse(&url).unwrap();
        TaskReport {
            task,
            state: "open",
            arm: "default".into(),
            strategy: "swarm",
            seed: None,
            totals: Default::default(),
            hosts: 0,
            complete: 0,
            taking: 0,
            still: 0,
            delegates: Vec::new(),
            blacklisted: Vec::new(),
            peers: Vec::new(),
            entries: Vec::new(),
            forgotten: 0,
            others: Vec::new(),
            now: Millis(0),
        }
    }

    #[test]
    fn an_answer_has_room_for_so_much_and_says_when_there_is_more() {
        let tasks = (0..1000).map(|_| report(8000)).collect();
        let reply = reply(&Seen { tasks, strategy: "swarm", arms: Vec::new(), epoch: 0 });
        assert!(reply.more && reply.tasks.len() > 100);
        assert!(reply.encoded_len() <= MAX_BYTES + 100);
    }

    #[test]
    fn a_prefix_is_hexadecimal_and_no_longer_than_an_id() {
        let of = |prefix: &str| {
            let id_prefix = prefix.to_owned();
            look(&scheduler::TasksRequest { id_prefix, ..Default::default() })
        };
        assert_eq!(of("9F2C").map(|look| look.which), Ok(Which::Prefix("9f2c".to_owned())));
        assert_eq!(of("").map(|look| look.which), Ok(Which::All));
        assert_eq!(of("ä"), Err(Unacceptable::Prefix));
        assert_eq!(of(&"0".repeat(65)), Err(Unacceptable::Prefix));
    }
}
