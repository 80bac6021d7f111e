//! Between the wire and the core: every message is checked here, once.

use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{
    GroupRange, GroupSet, HostId, HostInfo, HostKind, Priority, TaskId, TaskInfo, groups_in,
};
use dfs_peer::digests::{DigestsError, SignedDigests};
use dfs_proto::convert::{self, BadMessage};
use dfs_proto::scheduler::host_message::Kind as Up;
use dfs_proto::scheduler::scheduler_message::Kind as Down;
use dfs_proto::{common, scheduler, seed};

use super::Fill;
use super::naming::MOST_NAMES;
use crate::members::Members;
use dfs_scheduler::core::{
    Decision, Done, Event, Failed, FailureKind, Lease, LeaseEnd, LeaseFailure, MAX_GROUPS, Outcome,
    RefusalKind, Report, SeedEvent, SizeScope, Taken, Wanted,
};

/// Digest bytes in one message; longer snapshots continue in updates.
const DIGEST_BYTES: usize = 1 << 20;

/// Entries of a list in one message of a host.
const MAX_ENTRIES: usize = convert::MAX_RUNS;

/// Bytes that a host can be believed to have taken of one task: more than any content has.
const MAX_TAKEN: u64 = 1 << 50;

/// A message that a host may not send, or not in this way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// It does not say what it must.
    #[error(transparent)]
    Malformed(#[from] BadMessage),
    /// It says nothing.
    #[error("a message says nothing known to this version")]
    Empty,
    /// Only the first message announces.
    #[error("a host announces itself once, first")]
    AnnouncedTwice,
    /// What a task's id shall begin with is not the beginning of one.
    #[error("a task's id begins with hexadecimal digits")]
    Prefix,
    /// A list is too long.
    #[error("a list has more than {MAX_ENTRIES} entries")]
    TooMany,
    /// Signed digests that are not the host's own, or not signed by it.
    #[error("digests are not signed by this host: {0}")]
    Digests(String),
}

/// Reads a task as it travels.
pub fn task(message: Option<common::Task>) -> Result<TaskInfo, BadMessage> {
    TaskInfo::try_from(message.unwrap_or_default())
}

/// Writes a task as it travels.
pub fn task_message(spec: &TaskInfo) -> common::Task {
    spec.into()
}

/// Most groups of a content of this length.
pub(super) fn limit_of(length: Option<u64>) -> u64 {
    length.map_or(MAX_GROUPS, groups_in).min(MAX_GROUPS)
}

/// Whether a list is as short as it must be.
pub(super) fn bounded<T>(list: &[T]) -> Result<(), Unacceptable> {
    if list.len() > MAX_ENTRIES { Err(Unacceptable::TooMany) } else { Ok(()) }
}

/// An id as it travels.
pub(super) fn id_bytes(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// What a host says after its announcement.
pub fn event(host: &HostInfo, message: scheduler::HostMessage) -> Result<Event, Unacceptable> {
    let id = host.id;
    Ok(match message.kind.ok_or(Unacceptable::Empty)? {
        Up::Announce(_) => return Err(Unacceptable::AnnouncedTwice),
        Up::Lacks(lacks) => Event::Lacks { host: id, task: convert::task_id(&lacks.task_id)? },
        // Its signatures are looked at elsewhere.
        Up::Held(_) => return Err(Unacceptable::Empty),
        Up::Names(names) => Event::Names { host: id, tasks: named(&names.task_ids)? },
        Up::Register(register) => registration(id, register)?,
        Up::Progress(report) => progress(id, report)?,
        Up::Want(want) => Event::Want {
            host: id,
            task: convert::task_id(&want.task_id)?,
            groups: convert::group_set(&want.groups, MAX_GROUPS)?,
            priority: priority(want.priority),
        },
        Up::Result(result) => Event::PeerResult {
            host: id,
            task: convert::task_id(&result.task_id)?,
            outcome: if result.success { Outcome::Success } else { Outcome::Failure },
            taken: Taken {
                source: result.source_bytes.min(MAX_TAKEN),
                seed: result.seed_bytes.min(MAX_TAKEN),
                peers: result.peer_bytes.min(MAX_TAKEN),
                cost_ms: result.cost_ms,
            },
        },
        // A seed goes when the manager lists it no more.
        Up::Leave(leave) if leave.task_id.is_empty() && host.kind == HostKind::Seed => {
            Event::HostSilent(id)
        }
        Up::Leave(leave) if leave.task_id.is_empty() => Event::HostLeft(id),
        Up::Leave(leave) => Event::Leave { host: id, task: convert::task_id(&leave.task_id)? },
        Up::Leading(leading) => {
            let task = convert::task_id(&leading.task_id)?;
            match leading.leads {
                true => Event::Leads { host: id, task },
                false => Event::Resigns { host: id, task },
            }
        }
        Up::CameBack(back) => Event::ComesBack {
            host: id,
            task: convert::task_id(&back.task_id)?,
            delegate: convert::host_id(&back.delegate_id)?,
        },
        Up::Reschedule(ask) => {
            bounded(&ask.bad_parents)?;
            let bad = ask.bad_parents.iter().map(|parent| convert::host_id(parent));
            let bad_parents = bad.collect::<Result<_, _>>()?;
            Event::Reschedule { host: id, task: convert::task_id(&ask.task_id)?, bad_parents }
        }
        Up::Digests(signed) => {
            let task = own_digests(host, &signed.encoded)?;
            Event::Digests { host: id, task, batch: signed.encoded }
        }
    })
}

fn named(ids: &[u8]) -> Result<Vec<TaskId>, Unacceptable> {
    if ids.len() > MOST_NAMES as usize * TaskId::LEN {
        return Err(Unacceptable::TooMany);
    }
    let ids = ids.chunks(TaskId::LEN).map(convert::task_id);
    Ok(ids.collect::<Result<_, _>>()?)
}

fn registration(host: HostId, register: scheduler::Register) -> Result<Event, Unacceptable> {
    let task = task(register.task)?;
    let limit = limit_of(task.length);
    let wanted = if register.wanted.is_empty() {
        Wanted::All
    } else {
        Wanted::Groups(convert::group_set(&register.wanted, limit)?)
    };
    let held = convert::group_set(&register.held, limit)?;
    Ok(Event::Register { host, task, wanted, held, priority: priority(register.priority) })
}

fn progress(host: HostId, report: scheduler::Progress) -> Result<Event, Unacceptable> {
    bounded(&report.done)?;
    bounded(&report.failed)?;
    bounded(&report.leases)?;
    bounded(&report.blocked_us)?;
    let leases = report.leases.into_iter().map(lease_end).collect();
    let done = report.done.into_iter().map(|done| {
        let parent = match &done.parent_id[..] {
            [] => None,
            id => Some(convert::host_id(id)?),
        };
        let groups = run(done.groups);
        Ok::<_, BadMessage>(Done { groups, parent, cost_ms: done.cost_ms })
    });
    let failed = report.failed.into_iter().map(|failed| {
        let kind = failure(failed.kind());
        Ok::<_, BadMessage>(Failed { parent: convert::host_id(&failed.parent_id)?, kind })
    });
    let task = convert::task_id(&report.task_id)?;
    let report = Report {
        lost: convert::group_set(&report.lost, MAX_GROUPS)?,
        done: done.collect::<Result<_, _>>()?,
        failed: failed.collect::<Result<_, _>>()?,
        leases,
        uploads: report.uploads,
        blocked_us: report.blocked_us,
    };
    Ok(Event::Progress { host, task, report })
}

fn lease_end(end: scheduler::LeaseEnd) -> LeaseEnd {
    let failure = match end.failure() {
        scheduler::FailureKind::Unspecified => None,
        scheduler::FailureKind::AlreadyHeld => Some(LeaseFailure::Held),
        scheduler::FailureKind::Unwanted => Some(LeaseFailure::Unwanted),
        kind => Some(LeaseFailure::Parent(failure(kind))),
    };
    LeaseEnd { id: end.id, groups: run(end.groups), cost_ms: end.cost_ms, failure }
}

/// A run within what the core keeps bitmaps for; one beyond it is empty.
fn run(run: Option<common::GroupRun>) -> GroupRange {
    let run = run.unwrap_or_default();
    let fits = run.first.checked_add(run.count).is_some_and(|end| end <= MAX_GROUPS);
    if fits { GroupRange::new(run.first, run.count) } else { GroupRange::new(0, 0) }
}

fn priority(value: u32) -> Priority {
    Priority::from_wire(u8::try_from(value).unwrap_or(u8::MAX))
}

fn failure(kind: scheduler::FailureKind) -> FailureKind {
    match kind {
        scheduler::FailureKind::Timeout => FailureKind::Timeout,
        scheduler::FailureKind::Disconnected => FailureKind::Disconnected,
        scheduler::FailureKind::NotHeld => FailureKind::NotHeld,
        scheduler::FailureKind::Busy => FailureKind::Busy,
        scheduler::FailureKind::BadDigest => FailureKind::BadDigest,
        scheduler::FailureKind::Unvouched => FailureKind::Unvouched,
        scheduler::FailureKind::Origin => FailureKind::Origin,
        scheduler::FailureKind::Unspecified
        | scheduler::FailureKind::Unwanted
        | scheduler::FailureKind::AlreadyHeld
        | scheduler::FailureKind::Other => FailureKind::Other,
    }
}

/// Digests that `host` itself signed; says of what.
pub fn own_digests(host: &HostInfo, encoded: &[u8]) -> Result<TaskId, Unacceptable> {
    let bad = |error: DigestsError| Unacceptable::Digests(error.to_string());
    let signed = SignedDigests::decode(encoded).map_err(bad)?;
    let key = |signer: &HostId| (*signer == host.id).then_some(host.public_key);
    Ok(signed.verify(key).map_err(bad)?.task)
}

/// Digests that a seed hands on: its own, or those of a seed that it took the bytes from; says of what. `None` where
/// their signer is not known yet: children have them with the bytes.
fn seed_digests(members: &Members, encoded: &[u8]) -> Result<Option<TaskId>, Unacceptable> {
    let bad = |error: DigestsError| Unacceptable::Digests(error.to_string());
    let signed = SignedDigests::decode(encoded).map_err(bad)?;
    match signed.verify(|signer| members.seed_key(signer)) {
        Ok(batch) => Ok(Some(batch.task)),
        Err(DigestsError::UnknownSigner(_)) => Ok(None),
        Err(error) => Err(bad(error)),
    }
}

/// What a seed says; `None` for what a later version may add, and for what cannot be judged. Digests count that a seed
/// of `members` has signed.
pub fn seed_event(
    members: &Members,
    task: &TaskInfo,
    message: seed::ObtainEvent,
) -> Result<Option<SeedEvent>, Unacceptable> {
    use seed::obtain_event::Kind;
    let Some(kind) = message.kind else { return Ok(None) };
    Ok(Some(match kind {
        Kind::Obtaining(obtaining) => {
            let found = self::task(obtaining.task)?;
            let held = convert::group_set(&obtaining.held, limit_of(found.length))?;
            let tiny = Some(obtaining.tiny).filter(|tiny| !tiny.is_empty());
            SeedEvent::Obtaining { length: found.length, held, tiny }
        }
        Kind::Digests(signed) => match seed_digests(members, &signed.encoded)? {
            Some(id) if id == task.id => SeedEvent::Digests(signed.encoded),
            Some(_) => return Err(Unacceptable::Digests("they are of another task".to_owned())),
            None => return Ok(None),
        },
        Kind::Verified(verified) => SeedEvent::Verified {
            groups: convert::group_set(&verified.groups, MAX_GROUPS)?,
            length: verified.length,
            giver: match &verified.giver_id[..] {
                [] => None,
                id => Some(convert::host_id(id)?),
            },
        },
        Kind::Failed(refused) => {
            SeedEvent::Failed { kind: refusal(refused.kind()), reason: refused.reason }
        }
    }))
}

fn refusal(kind: scheduler::RefusalKind) -> RefusalKind {
    match kind {
        scheduler::RefusalKind::NotFound => RefusalKind::NotFound,
        scheduler::RefusalKind::NotPermitted => RefusalKind::NotPermitted,
        scheduler::RefusalKind::OriginChanged => RefusalKind::OriginChanged,
        scheduler::RefusalKind::Busy => RefusalKind::Busy,
        scheduler::RefusalKind::Unspecified | scheduler::RefusalKind::OriginFailed => {
            RefusalKind::OriginFailed
        }
    }
}

pub(super) fn refusal_message(kind: RefusalKind) -> scheduler::RefusalKind {
    match kind {
        RefusalKind::NotFound => scheduler::RefusalKind::NotFound,
        RefusalKind::NotPermitted => scheduler::RefusalKind::NotPermitted,
        RefusalKind::OriginChanged => scheduler::RefusalKind::OriginChanged,
        RefusalKind::OriginFailed => scheduler::RefusalKind::OriginFailed,
        RefusalKind::Busy => scheduler::RefusalKind::Busy,
    }
}

fn down(kind: Down) -> scheduler::SchedulerMessage {
    scheduler::SchedulerMessage { kind: Some(kind) }
}

/// The greeting.
pub fn welcome(epoch: u64, strategy: &str) -> scheduler::SchedulerMessage {
    down(Down::Welcome(scheduler::Welcome { epoch, strategy: strategy.to_owned() }))
}

/// The word that a host's turn has come to name what it holds.
pub fn name_held(most: u32) -> scheduler::SchedulerMessage {
    down(Down::NameHeld(scheduler::NameHeld { most }))
}

/// A decision's name in metrics.
pub fn name(decision: &Decision) -> &'static str {
    match decision {
        Decision::SendRegistered { .. } => "registered",
        Decision::SendParents { .. } => "parents",
        Decision::SendLeases { .. } => "leases",
        Decision::SendUpdate { .. } => "update",
        Decision::NameReserves { .. } => "name-reserves",
        Decision::ObtainFromSeed { .. } => "obtain",
        Decision::EndObtain { .. } => "end-obtain",
        Decision::BackToSource { stand_in: false, .. } => "back-to-source",
        Decision::BackToSource { stand_in: true, .. } => "stand-in",
        Decision::Refuse { .. } => "refuse",
        Decision::Blacklisted { .. } => "blacklist",
        Decision::Forget { .. } => "forget",
        Decision::Recall { .. } => "recall",
        Decision::AskToLead { .. } => "ask-to-lead",
        Decision::LeadNoMore { .. } => "lead-no-more",
        Decision::Delegate { to: Some(_), .. } => "delegate",
        Decision::Delegate { to: None, .. } => "call-back",
    }
}

/// The messages that carry a decision, and to whom; none for those that concern no host's stream.
/// `signers` are the stand-ins of its task: whoever is sent digests is told whose they may be.
pub fn messages(
    decision: Decision,
    signers: &[scheduler::Signer],
) -> (Vec<HostId>, Vec<scheduler::SchedulerMessage>) {
    match decision {
        Decision::SendRegistered { host, task, scope, content, digests, version } => {
            let mut chunks = chunks(digests).into_iter();
            let first = scheduler::Registered {
                task: Some(task_message(&task)),
                scope: scope_message(scope).into(),
                content: content.unwrap_or_default(),
                digests: chunks.next().unwrap_or_default(),
                signers: signers.to_vec(),
            };
            let rest = chunks.map(|chunk| update(task.id, version, None, chunk, &[]));
            (vec![host], std::iter::once(down(Down::Registered(first))).chain(rest).collect())
        }
        Decision::SendUpdate { hosts, task, version, length, digests } => {
            let mut chunks = chunks(digests);
            if chunks.is_empty() {
                chunks.push(Vec::new());
            }
            let updates =
                chunks.into_iter().map(|chunk| update(task, version, length, chunk, signers));
            (hosts, updates.collect())
        }
        Decision::SendParents { host, task, parents, led } => {
            let parents = parents.iter().map(|info| parent(info)).collect();
            let parents = scheduler::Parents { task_id: id_bytes(task.as_bytes()), parents, led };
            (vec![host], vec![down(Down::Parents(parents))])
        }
        Decision::SendLeases { host, task, leases, withdrawn, partners } => {
            let leases = scheduler::Leases {
                task_id: id_bytes(task.as_bytes()),
                leases: leases.into_iter().map(lease).collect(),
                withdrawn,
                partners: partners.iter().map(|info| parent(info)).collect(),
            };
            (vec![host], vec![down(Down::Leases(leases))])
        }
        Decision::BackToSource { host, task, reason, stand_in, .. } => {
            let task_id = id_bytes(task.as_bytes());
            let signers = if stand_in { signers.to_vec() } else { Vec::new() };
            let order = scheduler::BackToSource { task_id, reason, stand_in, signers };
            (vec![host], vec![down(Down::BackToSource(order))])
        }
        Decision::Refuse { host, task, kind, reason } => {
            let task_id = id_bytes(task.as_bytes());
            let kind = refusal_message(kind).into();
            (vec![host], vec![down(Down::Refused(scheduler::Refused { task_id, reason, kind }))])
        }
        Decision::Recall { host, task } => {
            let task_id = id_bytes(task.as_bytes());
            (vec![host], vec![down(Down::Recall(scheduler::Recall { task_id }))])
        }
        Decision::AskToLead { host, task } => {
            let message = scheduler::Lead { task: Some(task_message(&task)), ends: false };
            (vec![host], vec![down(Down::Lead(message))])
        }
        Decision::LeadNoMore { host, task } => {
            let task = common::Task { id: id_bytes(task.as_bytes()), ..common::Task::default() };
            let message = scheduler::Lead { task: Some(task), ends: true };
            (vec![host], vec![down(Down::Lead(message))])
        }
        // Where a delegate is, its stream knows; what reserves are named by, whoever signs.
        Decision::Delegate { .. }
        | Decision::NameReserves { .. }
        | Decision::ObtainFromSeed { .. }
        | Decision::EndObtain { .. }
        | Decision::Blacklisted { .. }
        | Decision::Forget { .. } => (Vec::new(), Vec::new()),
    }
}

/// These read the source for their place once nobody else does, each by its word.
pub fn reserves(
    task: TaskId,
    reserves: impl Iterator<Item = (Arc<HostInfo>, scheduler::Signer)>,
) -> scheduler::SchedulerMessage {
    let reserve = |(info, word): (Arc<HostInfo>, _)| scheduler::Reserve {
        parent: Some(parent(&info)),
        signer: Some(word),
    };
    let (task_id, reserves) = (id_bytes(task.as_bytes()), reserves.map(reserve).collect());
    down(Down::Reserves(scheduler::Reserves { task_id, reserves }))
}

/// Somebody else leads a host from now on; nobody: the scheduler again.
pub fn delegated(task: TaskId, host: Option<common::Host>) -> scheduler::SchedulerMessage {
    down(Down::Delegated(scheduler::Delegated { task_id: id_bytes(task.as_bytes()), host }))
}

/// Says that a delegate is there.
pub fn alive() -> scheduler::SchedulerMessage {
    down(Down::Alive(scheduler::Alive {}))
}

/// To those whom it leads a delegate is a host as any other, and one that fetches what it lacks.
pub fn name_as_delegate(message: &mut scheduler::SchedulerMessage, delegate: HostId) {
    let named = match &mut message.kind {
        Some(Down::Parents(parents)) => &mut parents.parents,
        Some(Down::Leases(leases)) => &mut leases.partners,
        _ => return,
    };
    let hosts =
        named.iter_mut().filter_map(|parent| Some((&mut parent.fetches, parent.host.as_mut()?)));
    for (fetches, host) in hosts.filter(|(_, host)| host.id[..] == delegate.as_bytes()[..]) {
        *fetches = true;
        host.set_kind(common::HostKind::Node);
    }
}

fn update(
    task: TaskId,
    version: u64,
    length: Option<u64>,
    digests: Vec<common::SignedDigests>,
    signers: &[scheduler::Signer],
) -> scheduler::SchedulerMessage {
    let task_id = id_bytes(task.as_bytes());
    let signers = signers.to_vec();
    down(Down::Update(scheduler::TaskUpdate { task_id, version, length, digests, signers }))
}

fn parent(info: &HostInfo) -> scheduler::Parent {
    let fetches = info.kind == HostKind::Seed;
    scheduler::Parent { host: Some(info.into()), grant: Bytes::new(), fetches }
}

fn lease(lease: Lease) -> scheduler::Lease {
    scheduler::Lease {
        id: lease.id,
        parent_id: id_bytes(lease.parent.as_bytes()),
        groups: Some(lease.groups.into()),
    }
}

fn chunks(batches: Vec<Bytes>) -> Vec<Vec<common::SignedDigests>> {
    let mut chunks: Vec<Vec<common::SignedDigests>> = Vec::new();
    let mut left = 0;
    for encoded in batches {
        if chunks.is_empty() || encoded.len() > left {
            chunks.push(Vec::new());
            left = DIGEST_BYTES;
        }
        left = left.saturating_sub(encoded.len());
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(common::SignedDigests { encoded });
        }
    }
    chunks
}

fn scope_message(scope: SizeScope) -> scheduler::SizeScope {
    match scope {
        SizeScope::Empty => scheduler::SizeScope::Empty,
        SizeScope::Tiny => scheduler::SizeScope::Tiny,
        SizeScope::Small => scheduler::SizeScope::Small,
        SizeScope::Normal => scheduler::SizeScope::Normal,
    }
}

/// An order to a seed. Whoever names no groups will read on demand: the seed fetches what is asked
/// of it on the piece plane, and beyond that what `fill` says.
pub fn obtain_request(
    task: &TaskInfo,
    wanted: &Wanted,
    proven: &GroupSet,
    fill: Fill,
) -> seed::ObtainRequest {
    let wanted = match wanted {
        Wanted::All => GroupSet::new(),
        Wanted::Groups(groups) => groups.clone(),
    };
    let fill = match fill {
        Fill::Wanted => seed::FillPolicy::Wanted,
        Fill::Idle => seed::FillPolicy::Idle,
        Fill::All => seed::FillPolicy::All,
    };
    seed::ObtainRequest {
        task: Some(task_message(task)),
        credentials: None,
        wanted: convert::runs(&wanted),
        fill: fill.into(),
        proven: convert::runs(proven),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use dfs_model::{CanonicalUrl, Location, TaskKey, TaskKind, Transform, Validator};
    use dfs_peer::digests::{DigestBatch, Identity};
    use dfs_proto::manager::Role;

    use super::*;
    use crate::members::Member;

    /// A task as any other.
    pub fn some_task() -> TaskInfo {
        let key = TaskKey {
            domain: TaskKey::PUBLIC.into(),
            kind: TaskKind::Blob,
            url: CanonicalUrl::parse("http://origin.test/x").unwrap(),
            headers: Vec::new(),
            validator: Validator { etag: Some("\"1\"".into()), ..Validator::default() },
            transform: Transform::Identity,
        };
        TaskInfo::new(key, Some(1 << 20), true)
    }

    fn hands_on(signer: &Identity, of: TaskId) -> seed::ObtainEvent {
        let batch =
            DigestBatch { task: of, signer: signer.host(), length: Some(1), entries: Vec::new() };
        let encoded = batch.sign(signer.signing_key()).unwrap().encode().into();
        let kind = seed::obtain_event::Kind::Digests(common::SignedDigests { encoded });
        seed::ObtainEvent { kind: Some(kind) }
    }

    #[test]
    fn a_seed_hands_on_what_seeds_have_signed_and_nobody_else() {
        let identity = || Identity::load_or_create(tempfile::tempdir().unwrap().path()).unwrap();
        let (seed, node, stranger) = (identity(), identity(), identity());
        let member = |identity: &Identity, role| Member {
            role,
            host: Arc::new(HostInfo {
                id: identity.host(),
                kind: HostKind::Seed,
                name: "member".into(),
                location: Location::default(),
                addresses: Vec::new(),
                public_key: identity.public_key(),
                upload_slots: 1,
            }),
            grpc: ([127, 0, 0, 1], 1).into(),
        };
        let all = vec![member(&seed, Role::Seed), member(&node, Role::Scheduler)];
        let members = Members { all, ..Members::default() };
        let task = some_task();
        let read = |signer, of| seed_event(&members, &task, hands_on(signer, of));
        assert!(matches!(read(&seed, task.id), Ok(Some(SeedEvent::Digests(_)))));
        assert_eq!(read(&node, task.id), Ok(None), "a scheduler signs no digests");
        assert_eq!(read(&stranger, task.id), Ok(None), "it may be younger than the list");
        assert!(read(&seed, TaskId::from_bytes([1; 32])).is_err());
    }
}
