//! Between what this host knows and what the scheduler's stream carries.

use std::time::Duration;

use bytes::Bytes;
use dfs_model::{GroupRange, HostId, HostInfo, HostKind, Priority, TaskId};
use dfs_proto::convert::{self, BadMessage};
use dfs_proto::scheduler::scheduler_message::Kind as Down;
use dfs_proto::scheduler::{
    FailureKind, GroupsDone, GroupsFailed, HostMessage, Leave, PeerResult, Progress, RefusalKind,
    Register, Reschedule, SchedulerMessage, Signer, SizeScope, TaskUpdate, Want,
    host_message::Kind as Up,
};
use dfs_proto::{common, scheduler};

use super::Members;
use super::outbox::{News, PeerEnd, Registration};
use crate::conductor::{Failure, LeaseEnd, LeaseOutcome};
use crate::digests::{Appointment, MOST_APPOINTED, Office, SignedDigests};
use crate::engine::{Command, Keyring, Lease, MOST_RESERVES, ParentHost, ReadError, Reserve};

/// The largest message taken from a scheduler: a resolution or a snapshot of digests.
pub(super) const MAX_MESSAGE: usize = 32 << 20;

pub(super) fn up(kind: Up) -> HostMessage {
    HostMessage { kind: Some(kind) }
}

pub(super) fn id_bytes(task: &TaskId) -> Bytes {
    Bytes::copy_from_slice(task.as_bytes())
}

/// Takes part, and wants whatever will be read.
pub(super) fn register(registration: &Registration) -> HostMessage {
    registered(registration, Vec::new(), Vec::new())
}

/// What it wants in any order.
pub(super) fn wants(registration: &Registration) -> HostMessage {
    up(Up::Want(Want {
        task_id: id_bytes(&registration.task.id),
        groups: registration.wants.clone(),
        priority: Priority::Bulk as u32,
    }))
}

/// What of that comes first.
fn reads_next(registration: &Registration) -> Option<HostMessage> {
    Some(up(Up::Want(Want {
        task_id: id_bytes(&registration.task.id),
        groups: vec![registration.reads_next?],
        priority: Priority::ReadAhead as u32,
    })))
}

/// Takes part, and wants no more than it holds.
fn rest(registration: &Registration, held: &[common::GroupRun]) -> HostMessage {
    registered(registration, held.to_vec(), held.to_vec())
}

fn registered(
    registration: &Registration,
    wanted: Vec<common::GroupRun>,
    held: Vec<common::GroupRun>,
) -> HostMessage {
    up(Up::Register(Register {
        task: Some((&registration.task).into()),
        priority: registration.priority as u32,
        principal: None,
        wanted,
        held,
    }))
}

fn failure_kind(failure: Failure) -> FailureKind {
    match failure {
        Failure::NotHeld => FailureKind::NotHeld,
        Failure::Unvouched => FailureKind::Unvouched,
        Failure::Busy => FailureKind::Busy,
        Failure::Disconnected => FailureKind::Disconnected,
        Failure::Timeout => FailureKind::Timeout,
        Failure::BadDigest => FailureKind::BadDigest,
        Failure::OriginFailed | Failure::Void => FailureKind::Origin,
        Failure::Other => FailureKind::Other,
    }
}

/// One task's news as messages, in the order in which they hold; `registered` as it is now.
pub(super) fn news(
    task: &TaskId,
    news: &News,
    registered: Option<Registration>,
) -> Vec<HostMessage> {
    let mut messages = Vec::new();
    if let Some(end) = &news.earlier_end {
        messages.push(up(Up::Result(result(task, end))));
    }
    if let Some(registration) = registered.as_ref().filter(|_| news.register) {
        messages.extend(news.forget.then(|| leave(task)));
        messages.push(register(registration));
    }
    // Before the groups: who is told of these finds what proves them.
    let signed = news
        .signed
        .iter()
        .map(|encoded| up(Up::Digests(common::SignedDigests { encoded: encoded.clone() })));
    messages.extend(signed);
    messages.extend(progress(task, news));
    // After what came of leases: what nobody wanted then may be wanted now.
    messages.extend(registered.as_ref().filter(|_| news.wants).map(wants));
    messages.extend(registered.as_ref().filter(|_| news.reads_on).and_then(reads_next));
    if let Some(end) = &news.end {
        messages.push(up(Up::Result(result(task, end))));
    }
    if let Some(bad) = &news.reschedule {
        messages.push(up(Up::Reschedule(Reschedule {
            task_id: id_bytes(task),
            bad_parents: bad.iter().map(|host| host.as_bytes().to_vec().into()).collect(),
            reason: String::new(),
        })));
    }
    if let Some((registration, held)) = &news.rest {
        messages.push(rest(registration, held));
    }
    if news.leave {
        messages.push(leave(task));
    }
    messages
}

/// What the scheduler is to hear of a task that a delegate leads: who lied, and how the part in it ended.
pub(super) fn beside_delegate(task: &TaskId, news: &News) -> Vec<HostMessage> {
    let failed = news.lies.iter().map(|(groups, host)| GroupsFailed {
        groups: Some((*groups).into()),
        parent_id: host.as_bytes().to_vec().into(),
        kind: FailureKind::BadDigest.into(),
    });
    let failed: Vec<GroupsFailed> = failed.collect();
    let lies = (!failed.is_empty()).then(|| {
        let task_id = id_bytes(task);
        up(Up::Progress(Progress { task_id, failed, ..Progress::default() }))
    });
    let end = news.end.as_ref().map(|end| up(Up::Result(result(task, end))));
    let rest = news.rest.as_ref().map(|(registration, held)| rest(registration, held));
    let leave = news.leave.then(|| leave(task));
    lies.into_iter().chain(end).chain(rest).chain(leave).collect()
}

/// This host has gone to a delegate, and wants nothing here.
pub(super) fn went(task: &TaskId) -> HostMessage {
    let (task_id, priority) = (id_bytes(task), Priority::Bulk as u32);
    up(Up::Want(Want { task_id, groups: Vec::new(), priority }))
}

/// A delegate failed this host.
pub(super) fn came_back(task: &TaskId, delegate: &HostId) -> HostMessage {
    let delegate_id = Bytes::copy_from_slice(delegate.as_bytes());
    up(Up::CameBack(scheduler::CameBack { task_id: id_bytes(task), delegate_id }))
}

/// Whether this host leads others, or why not.
pub(super) fn leading(task: &TaskId, refusal: Option<String>) -> HostMessage {
    let (leads, reason) = (refusal.is_none(), refusal.unwrap_or_default());
    up(Up::Leading(scheduler::Leading { task_id: id_bytes(task), leads, reason }))
}

/// Nothing is held of a task that the scheduler asks for.
pub(super) fn lacks(task: &TaskId) -> HostMessage {
    up(Up::Lacks(scheduler::Lacks { task_id: id_bytes(task) }))
}

/// Nothing is held of a task, or it is no more of whoever led in it.
pub(super) fn leave(task: &TaskId) -> HostMessage {
    up(Up::Leave(Leave { task_id: id_bytes(task) }))
}

/// The host can name tasks that this scheduler has not heard of.
pub(super) fn more_to_name() -> HostMessage {
    up(Up::Names(scheduler::Names { task_ids: Bytes::new(), more: true }))
}

/// The host goes, with all that it holds.
pub(super) fn leave_for_good() -> HostMessage {
    up(Up::Leave(Leave { task_id: Bytes::new() }))
}

/// What came and what did not.
fn progress(task: &TaskId, news: &News) -> Option<HostMessage> {
    let done = news.done.iter().flat_map(|(parent, delivered)| {
        let cost_ms = u32::try_from(delivered.cost.as_millis()).unwrap_or(u32::MAX);
        delivered.groups.ranges().map(move |run| GroupsDone {
            groups: Some(run.into()),
            parent_id: parent.map(|host| host.as_bytes().to_vec().into()).unwrap_or_default(),
            cost_ms,
        })
    });
    let done: Vec<GroupsDone> = done.take(convert::MAX_RUNS).collect();
    let failed = news.failed.iter().map(|(groups, host, why)| GroupsFailed {
        groups: Some((*groups).into()),
        parent_id: host.as_bytes().to_vec().into(),
        kind: failure_kind(*why).into(),
    });
    let failed: Vec<GroupsFailed> = failed.collect();
    let leases: Vec<scheduler::LeaseEnd> = news.leases.iter().map(lease_end).collect();
    let lost = convert::runs(&news.lost);
    let blocked_us: Vec<u32> = news.blocked.iter().map(micros).collect();
    let came_nothing = done.is_empty() && failed.is_empty() && leases.is_empty();
    if lost.is_empty() && came_nothing && blocked_us.is_empty() {
        return None;
    }
    let task_id = id_bytes(task);
    Some(up(Up::Progress(Progress { task_id, lost, done, failed, uploads: 0, leases, blocked_us })))
}

fn lease_end(end: &LeaseEnd) -> scheduler::LeaseEnd {
    let failure = match end.outcome {
        LeaseOutcome::Whole | LeaseOutcome::Part => FailureKind::Unspecified,
        LeaseOutcome::Held => FailureKind::AlreadyHeld,
        LeaseOutcome::Unwanted | LeaseOutcome::Withdrawn => FailureKind::Unwanted,
        LeaseOutcome::Failed(failure) => failure_kind(failure),
    };
    let all = end.here.first().copied().filter(|_| end.outcome.tells_groups());
    scheduler::LeaseEnd {
        id: end.id,
        groups: all.map(Into::into),
        cost_ms: u32::try_from(end.cost.as_millis()).unwrap_or(u32::MAX),
        failure: failure.into(),
    }
}

fn result(task: &TaskId, end: &PeerEnd) -> PeerResult {
    PeerResult {
        task_id: id_bytes(task),
        success: end.reason.is_none(),
        reason: end.reason.clone().unwrap_or_default(),
        source_bytes: end.ledger.source_bytes,
        seed_bytes: end.ledger.parent_bytes(Some(HostKind::Seed)),
        peer_bytes: end.ledger.parent_bytes(Some(HostKind::Node)),
        cost_ms: end.took.map_or(0, millis_at_least_one),
    }
}

/// Nothing is what is not known.
fn millis_at_least_one(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX).max(1)
}

fn micros(span: &Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

fn decode(digests: Vec<common::SignedDigests>) -> impl Iterator<Item = Command> {
    digests
        .into_iter()
        .filter_map(|signed| SignedDigests::decode(&signed.encoded).ok())
        .map(|signed| Command::Digests(Box::new(signed)))
}

/// Who says something.
#[derive(Clone, Copy)]
pub(super) enum By<'a> {
    /// A scheduler that a manager lists.
    Scheduler,
    /// A delegate: a node as any other.
    Delegate(&'a Members, &'a Keyring),
}

/// Who signs for a task. A scheduler is believed; of a delegate's only the word of a scheduler counts that comes with it.
fn signers(task: TaskId, signers: &[Signer], by: By<'_>) -> Result<Command, BadMessage> {
    // One that is unreadable, or that an older scheduler does not send, is only not handed back.
    let words = signers.iter().filter_map(|signer| Appointment::decode(&signer.appointment).ok());
    let (members, keyring) = match by {
        By::Scheduler => {
            let keys = signers.iter().map(convert::signer).collect::<Result<_, _>>()?;
            return Ok(Command::Signers { keys, appointments: words.collect() });
        }
        By::Delegate(members, keyring) => (members, keyring),
    };
    let words = words.take(MOST_APPOINTED).filter(|word| {
        let is_news = keyring.key(&task, &word.host) != Some(word.key);
        let stands_in = word.task == task && word.office == Office::StandIn;
        stands_in && is_news && word.verify(|host| members.scheduler_key(host)).is_ok()
    });
    let appointments: Vec<Appointment> = words.collect();
    let keys = appointments.iter().map(|word| (word.host, word.key)).collect();
    Ok(Command::Signers { keys, appointments })
}

/// Who reads the origin for this place when nobody else does.
fn named(
    task: TaskId,
    reserves: Vec<scheduler::Reserve>,
    by: By<'_>,
) -> Result<Vec<Reserve>, BadMessage> {
    let mut named = Vec::new();
    for scheduler::Reserve { parent, signer } in reserves.into_iter().take(MOST_RESERVES) {
        let word = Appointment::decode(&signer.unwrap_or_default().appointment);
        for mut parent in hosts(parent.into_iter().collect(), by)? {
            let is_its = |word: &&Appointment| {
                let is_reserve = word.task == task && word.office == Office::Reserve;
                is_reserve && word.host == parent.host.id
            };
            let Some(word) = word.as_ref().ok().filter(is_its) else { continue };
            parent.fetches = true;
            named.push(Reserve { word: word.clone(), parent });
        }
    }
    Ok(named)
}

fn hosts(parents: Vec<scheduler::Parent>, by: By<'_>) -> Result<Vec<ParentHost>, BadMessage> {
    let host = |parent: scheduler::Parent| {
        let mut host = HostInfo::try_from(parent.host.unwrap_or_default())?;
        if let By::Delegate(members, _) = by
            && !members.is_seed(&host)
        {
            // It would be given credentials.
            host.kind = HostKind::Node;
        }
        // An older scheduler does not say so of its seeds.
        let fetches = parent.fetches || host.kind == HostKind::Seed;
        Ok(ParentHost { host, grant: parent.grant, fetches })
    };
    parents.into_iter().map(host).collect()
}

/// What it names beyond any content is beyond this one too.
fn lease(lease: scheduler::Lease) -> Result<Lease, BadMessage> {
    let run = lease.groups.unwrap_or_default();
    let end = run.first.saturating_add(run.count);
    let groups = GroupRange::new(run.first, end - run.first);
    Ok(Lease { id: lease.id, parent: convert::host_id(&lease.parent_id)?, groups })
}

/// A scheduler's message as commands to one task; none for messages about no task.
pub(super) fn down(
    message: SchedulerMessage,
    by: By<'_>,
) -> Result<Option<(TaskId, Vec<Command>)>, BadMessage> {
    let Some(kind) = message.kind else { return Ok(None) };
    let addressed = match kind {
        Down::Parents(parents) => {
            let id = convert::task_id(&parents.task_id)?;
            let led = parents.led;
            let parents = hosts(parents.parents, by)?;
            (id, vec![Command::Parents { parents, led }])
        }
        Down::Leases(leases) => {
            let id = convert::task_id(&leases.task_id)?;
            let partners = hosts(leases.partners, by)?;
            let withdrawn = leases.withdrawn;
            let leases = leases.leases.into_iter().map(lease).collect::<Result<_, _>>()?;
            (id, vec![Command::Leases { leases, withdrawn, partners }])
        }
        Down::Registered(registered) => {
            let task = registered.task.as_ref().map(|task| &task.id[..]);
            let id = convert::task_id(task.unwrap_or_default())?;
            let signers = signers(id, &registered.signers, by)?;
            let tiny = registered.scope() == SizeScope::Tiny && !registered.content.is_empty();
            if tiny {
                let (content, digests) = (registered.content, registered.digests);
                let whole = common::Whole { content, digests };
                (id, vec![signers, Command::Tiny { whole, looked_at: None }])
            } else {
                (id, std::iter::once(signers).chain(decode(registered.digests)).collect())
            }
        }
        Down::Update(TaskUpdate { task_id, digests, signers: keys, .. }) => {
            let id = convert::task_id(&task_id)?;
            let signers = signers(id, &keys, by)?;
            (id, std::iter::once(signers).chain(decode(digests)).collect())
        }
        // A scheduler names them.
        Down::Reserves(_) if matches!(by, By::Delegate(..)) => return Ok(None),
        Down::Reserves(reserves) => {
            let id = convert::task_id(&reserves.task_id)?;
            (id, vec![Command::Reserves(named(id, reserves.reserves, by)?)])
        }
        Down::BackToSource(order) => {
            let reason = format!("the scheduler says: {}", order.reason);
            let id = convert::task_id(&order.task_id)?;
            let signers = signers(id, &order.signers, by)?;
            (id, vec![signers, Command::BackToSource { reason, stand_in: order.stand_in }])
        }
        Down::Refused(refused) => {
            let id = convert::task_id(&refused.task_id)?;
            if refused.kind() == RefusalKind::Busy {
                return Ok(Some((id, vec![Command::Unregistered])));
            }
            let error = match refused.kind() {
                RefusalKind::NotFound => ReadError::NotFound(refused.reason),
                RefusalKind::NotPermitted => ReadError::NotPermitted(refused.reason),
                RefusalKind::OriginChanged => ReadError::origin_changed(refused.reason),
                _ => ReadError::Swarm(refused.reason),
            };
            (id, vec![Command::Refused(error)])
        }
        Down::Welcome(_) | Down::SlowDown(_) | Down::Moved(_) => return Ok(None),
        // They are about what no task is open for.
        Down::NameHeld(_) | Down::Recall(_) => return Ok(None),
        // Who leads is the session's to know.
        Down::Lead(_) | Down::Delegated(_) | Down::Alive(_) => return Ok(None),
    };
    Ok(Some(addressed))
}

#[cfg(test)]
mod tests {
    use dfs_model::Location;

    use super::*;
    use crate::digests::Identity;

    fn identity() -> Identity {
        Identity::load_or_create(tempfile::tempdir().unwrap().path()).unwrap()
    }

    fn host(identity: &Identity, kind: HostKind) -> HostInfo {
        HostInfo {
            id: identity.host(),
            kind,
            name: "host".into(),
            location: Location::default(),
            addresses: Vec::new(),
            public_key: identity.public_key(),
            upload_slots: 0,
        }
    }

    fn members(scheduler: &Identity) -> Members {
        let host = host(scheduler, HostKind::Node);
        let mut members = Members::default();
        members.schedulers = vec![(host, ([127, 0, 0, 1], 1).into())];
        members
    }

    fn signer(host: &Identity, appointment: Option<Appointment>) -> Signer {
        Signer {
            host_id: host.host().as_bytes().to_vec().into(),
            public_key: host.public_key().to_vec().into(),
            appointment: appointment.map(|word| word.encode()).unwrap_or_default(),
        }
    }

    /// Whose keys are taken of an update about a task.
    fn taken(task: TaskId, signers: Vec<Signer>, by: By<'_>) -> Vec<HostId> {
        let update = TaskUpdate { task_id: id_bytes(&task), signers, ..TaskUpdate::default() };
        let message = SchedulerMessage { kind: Some(Down::Update(update)) };
        let (_, commands) = down(message, by).unwrap().unwrap();
        let Command::Signers { keys, appointments } = &commands[0] else { panic!("{commands:?}") };
        let words: Vec<HostId> = appointments.iter().map(|word| word.host).collect();
        let keys: Vec<HostId> = keys.iter().map(|(host, _)| *host).collect();
        assert!(words.is_empty() || words == keys);
        keys
    }

    #[test]
    fn a_delegate_makes_nobody_a_signer_whom_no_scheduler_appointed() {
        let (scheduler, stand_in, liar) = (identity(), identity(), identity());
        let (task, other) = (TaskId::from_bytes([1; 32]), TaskId::from_bytes([2; 32]));
        let appointed = |task, host: &Identity, by: &Identity| {
            Some(Appointment::sign(task, Office::StandIn, (host.host(), host.public_key()), by))
        };
        let own = (liar.host(), liar.public_key());
        let reserve = Appointment::sign(task, Office::Reserve, own, &scheduler);
        let (members, keyring) = (members(&scheduler), Keyring::default());
        let said = vec![
            signer(&liar, None),
            signer(&liar, appointed(task, &liar, &liar)),
            signer(&liar, appointed(other, &liar, &scheduler)),
            signer(&liar, Some(reserve)),
            // Its own key beside another's appointment.
            Signer {
                appointment: appointed(task, &stand_in, &scheduler).unwrap().encode(),
                ..signer(&liar, None)
            },
        ];
        let by = By::Delegate(&members, &keyring);
        assert_eq!(taken(task, said.clone(), by), [stand_in.host()]);
        let far_too_many = vec![said[1].clone(); 100_000];
        assert!(taken(task, far_too_many, by).is_empty());
        keyring.learn_stand_ins(task, vec![(stand_in.host(), stand_in.public_key())]);
        assert!(taken(task, said.clone(), by).is_empty(), "it is known already");
        assert_eq!(taken(task, said[..1].to_vec(), By::Scheduler), [liar.host()]);
    }

    #[test]
    fn a_delegate_makes_nobody_a_seed_who_would_be_given_credentials() {
        let (seed, liar) = (identity(), identity());
        let (mut members, keyring) = (members(&identity()), Keyring::default());
        members.seeds = vec![(host(&seed, HostKind::Seed), ([127, 0, 0, 1], 1).into())];
        let task_id = id_bytes(&TaskId::from_bytes([1; 32]));
        let seeds = |by: By<'_>| -> Vec<HostId> {
            let stolen = HostInfo { public_key: [9; 32], ..host(&seed, HostKind::Seed) };
            let named = [host(&seed, HostKind::Seed), stolen, host(&liar, HostKind::Seed)];
            let parents = named.iter().map(|info| scheduler::Parent {
                host: Some(info.into()),
                fetches: true,
                ..scheduler::Parent::default()
            });
            let (task_id, parents) = (task_id.clone(), parents.collect());
            let parents = scheduler::Parents { task_id, parents, led: false };
            let message = SchedulerMessage { kind: Some(Down::Parents(parents)) };
            let (_, commands) = down(message, by).unwrap().unwrap();
            let Command::Parents { parents, .. } = &commands[0] else { panic!("{commands:?}") };
            assert!(parents.iter().all(|parent| parent.fetches), "they are asked all the same");
            let seeds = parents.iter().filter(|parent| parent.host.kind == HostKind::Seed);
            seeds.map(|parent| parent.host.id).collect()
        };
        assert_eq!(seeds(By::Delegate(&members, &keyring)), [seed.host()]);
        assert_eq!(seeds(By::Scheduler), [seed.host(), seed.host(), liar.host()]);
    }
}
