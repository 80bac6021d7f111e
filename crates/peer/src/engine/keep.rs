//! From bytes to verified groups in the store. All but the [`Keyring`] blocks and runs on blocking
//! threads.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_model::{GroupRange, GroupSet, HostId, Invariant, TaskId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::ReadError;
use super::ledger::CameFrom;
use super::passing::Proven;
use super::task::Shared;
use crate::conductor::Failure;
use crate::digests::{
    Appointment, DigestBatch, DigestsError, Identity, MOST_APPOINTED, SignedDigests,
};
use crate::hashtree::{self, Cv, Node, Proof, ProofDecodeError, Shape, VerifyError};
use crate::store::StoreError;
use crate::wire::{DecodeError, Segment};

type StandIns = VecDeque<(HostId, [u8; 32])>;

/// Keys of hosts whose signatures count: the cluster's seeds, and for single tasks the stand-ins that the
/// scheduler names.
#[derive(Debug, Default)]
pub struct Keyring {
    keys: RwLock<HashMap<HostId, [u8; 32]>>,
    /// The oldest first.
    stand_ins: RwLock<HashMap<TaskId, StandIns>>,
    /// Signers whose keys did not come, each until when they are not waited for again.
    absent: Mutex<HashMap<(TaskId, HostId), Instant>>,
    learnt: Notify,
    missed: Notify,
}

/// How long a signer whose key did not come is not waited for.
const ABSENT_FOR: Duration = Duration::from_secs(10);

/// Most of them remembered.
const MOST_ABSENT: usize = 4096;

impl Keyring {
    /// Adds the keys of the members now known; keys once trusted stay, for what they signed.
    pub fn learn(&self, keys: impl IntoIterator<Item = (HostId, [u8; 32])>) {
        self.keys.write().extend(keys);
        self.learnt.notify_waiters();
    }

    /// Adds the keys of a task's stand-ins; beyond [`MOST_APPOINTED`] the oldest are forgotten.
    pub fn learn_stand_ins(&self, task: TaskId, keys: Vec<(HostId, [u8; 32])>) {
        if keys.is_empty() {
            return;
        }
        let mut stand_ins = self.stand_ins.write();
        let known = stand_ins.entry(task).or_default();
        for (host, key) in keys {
            if !known.iter().any(|(known, _)| *known == host) {
                known.push_back((host, key));
            }
        }
        known.drain(..known.len().saturating_sub(MOST_APPOINTED));
        drop(stand_ins);
        self.learnt.notify_waiters();
    }

    /// Forgets a task's stand-ins: the scheduler names them again to whoever takes part again.
    pub fn forget_stand_ins(&self, task: &TaskId) {
        self.stand_ins.write().remove(task);
    }

    /// The key of somebody whose signature counts for a task.
    pub fn key(&self, task: &TaskId, host: &HostId) -> Option<[u8; 32]> {
        if let Some(key) = self.keys.read().get(host) {
            return Some(*key);
        }
        let stand_ins = self.stand_ins.read();
        stand_ins.get(task)?.iter().find(|(known, _)| known == host).map(|(_, key)| *key)
    }

    /// Has a signer's key asked for; whether it came in time. A seed may be younger than the member
    /// list that this host knows.
    pub(super) async fn comes(&self, task: &TaskId, host: &HostId, within: Duration) -> bool {
        let signer = (*task, *host);
        if self.absent.lock().get(&signer).is_some_and(|until| *until > Instant::now()) {
            return self.key(task, host).is_some();
        }
        let known = async {
            loop {
                let mut learnt = std::pin::pin!(self.learnt.notified());
                learnt.as_mut().enable();
                if self.key(task, host).is_some() {
                    return;
                }
                self.missed.notify_one();
                learnt.await;
            }
        };
        let comes = tokio::time::timeout(within, known).await.is_ok();
        if !comes {
            let (now, mut absent) = (Instant::now(), self.absent.lock());
            if absent.len() >= MOST_ABSENT {
                absent.clear();
            }
            absent.insert(signer, now + ABSENT_FOR);
        }
        comes
    }

    /// Waits until somebody misses a key.
    pub(crate) async fn missed(&self) {
        self.missed.notified().await;
    }
}

/// Bytes that were not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    #[error("the digests do not hold: {0}")]
    Digests(#[from] DigestsError),
    #[error("the digests are of another task")]
    WrongTask,
    #[error("two signed lengths: {0} and {1}")]
    TwoLengths(u64, u64),
    #[error("the proof is unreadable: {0}")]
    Proof(#[from] ProofDecodeError),
    #[error("the bytes are not there: {0}")]
    Decode(#[from] DecodeError),
    #[error("the bytes do not verify: {0}")]
    Verify(#[from] VerifyError),
    #[error("the origin sends other bytes for group {0} than before")]
    Changed(u64),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("stopped")]
    Stopped,
}

impl KeepError {
    pub(super) fn into_read(self, task: TaskId) -> ReadError {
        match self {
            Self::Store(error) => error.into(),
            Self::Digests(error) => ReadError::Sign(error),
            Self::Changed(_) => ReadError::OriginChanged(self.to_string()),
            Self::Stopped => ReadError::Closing(task),
            other => ReadError::Swarm(other.to_string()),
        }
    }

    /// Whether only room was missing.
    pub(super) fn is_no_space(&self) -> bool {
        matches!(self, Self::Store(StoreError::NoSpace { .. }))
    }

    /// What is wrong with who sent the bytes.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Digests(DigestsError::UnknownSigner(_)) => Failure::Unvouched,
            Self::Digests(_) | Self::WrongTask | Self::Proof(_) => Failure::BadDigest,
            Self::Decode(_) | Self::Verify(_) => Failure::BadDigest,
            Self::TwoLengths(..) | Self::Changed(_) | Self::Store(_) | Self::Stopped => {
                Failure::Other
            }
        }
    }
}

/// Takes signed digests in; gives the length when they state it.
pub(super) fn digests(
    shared: &Shared,
    keyring: &Keyring,
    digests: &SignedDigests,
) -> Result<Option<u64>, KeepError> {
    let batch = digests.batch();
    if batch.task != shared.info.id {
        return Err(KeepError::WrongTask);
    }
    digests.verify(|host| keyring.key(&batch.task, host))?;
    if let Some(length) = batch.length {
        match shared.shape().length() {
            Some(known) if known != length => return Err(KeepError::TwoLengths(known, length)),
            Some(_) => {}
            None => shared.stored.set_length(length)?,
        }
    }
    shared.stored.add_signed(digests)?;
    Ok(batch.length)
}

/// What became of verified groups.
pub(super) enum Outcome {
    /// They are in the store.
    Kept(Arrival),
    /// The store has no room for them.
    NoRoom(Proven, StoreError),
}

/// Groups that arrived.
pub(super) struct Arrival {
    pub(super) groups: GroupRange,
    /// Of the content, where the sender states it.
    pub(super) length: Option<u64>,
    /// Their digests, where this host signs them.
    pub(super) signed: Option<SignedDigests>,
}

/// The batches that came with a segment.
#[derive(Default)]
struct Batches {
    /// Of the content, as they state it.
    length: Option<u64>,
    /// Those whose signature counts.
    signed: Vec<Arc<SignedDigests>>,
    /// A signer that is not known, where there is one: others may suffice.
    unknown: Option<DigestsError>,
}

impl Batches {
    /// Takes them in. A store without room does not keep them: the segment then passes.
    fn take(shared: &Shared, keyring: &Keyring, encoded: &[Bytes]) -> Result<Self, KeepError> {
        let mut batches = Self::default();
        for encoded in encoded {
            let signed = SignedDigests::decode(encoded)?;
            let name = blake3::hash(encoded);
            if shared.batches.knows(&name) {
                batches.length = signed.batch().length.or(batches.length);
                batches.signed.push(Arc::new(signed));
                continue;
            }
            match digests(shared, keyring, &signed) {
                Ok(stated) => {
                    shared.batches.learn(name);
                    batches.length = stated.or(batches.length);
                }
                Err(KeepError::Digests(error @ DigestsError::UnknownSigner(_))) => {
                    batches.unknown = Some(error);
                    continue;
                }
                Err(KeepError::Store(StoreError::NoSpace { .. })) => {
                    batches.length = signed.batch().length.or(batches.length);
                }
                Err(error) => return Err(error),
            }
            batches.signed.push(Arc::new(signed));
        }
        Ok(batches)
    }
}

/// Batches of a task whose signature was looked at and that are kept: another copy of one is nothing new.
#[derive(Debug, Default)]
pub(crate) struct KnownBatches(Mutex<HashSet<blake3::Hash>>);

/// Most batches remembered of a task.
const MOST_KNOWN: usize = 4096;

impl KnownBatches {
    fn knows(&self, name: &blake3::Hash) -> bool {
        self.0.lock().contains(name)
    }

    fn learn(&self, name: blake3::Hash) {
        let mut known = self.0.lock();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(name);
    }
}

/// Keeps the scheduler's words on who signs for a task, to be handed back when the task is announced.
pub(super) fn appointments(shared: &Shared, words: &[Appointment]) -> Result<(), KeepError> {
    let own = words.iter().filter(|word| word.task == shared.info.id);
    for word in own {
        shared.stored.add_appointment(word)?;
    }
    Ok(())
}

/// Verifies a parent's segment against signed digests, and keeps it.
pub(super) fn segment(
    shared: &Shared,
    keyring: &Keyring,
    segment: &Segment,
    from: &CameFrom,
) -> Result<Outcome, KeepError> {
    let Batches { length, signed, unknown } = Batches::take(shared, keyring, &segment.signed)?;
    let groups = segment.groups();
    if groups.is_empty() {
        let nothing = Arrival { groups, length, signed: None };
        return unknown.map_or(Ok(Outcome::Kept(nothing)), |error| Err(error.into()));
    }
    // From here on the bytes are what they are in the content, however they came.
    let Segment { payload, proof, .. } = segment.clone().decoded()?;
    let shape = Shape::new(length.or(shared.shape().length()));
    let proof = if proof.is_empty() { Proof::default() } else { Proof::decode(&proof)? };
    let verify = |signed: &[Arc<SignedDigests>]| {
        let entries = signed.iter().flat_map(|signed| &signed.batch().entries);
        let trusted: HashMap<Node, Cv> = entries.copied().collect();
        let lookup = |node: Node| trusted.get(&node).copied().or_else(|| shared.stored.node(node));
        hashtree::verify_bytes(shape, groups, &payload, &proof, lookup)
    };
    // What is signed is looked up in the log only where the digests that are at hand do not suffice.
    let verified = verify(&signed).or_else(|_| {
        let all = [signed.as_slice(), &shared.stored.signed_for(groups)].concat();
        verify(&all)
    });
    let nodes = match verified {
        Err(_) if Invariant::NoWrongByte.is_broken() => Vec::new(),
        Err(error) => return Err(unknown.map_or(KeepError::Verify(error), KeepError::Digests)),
        Ok(nodes) => nodes,
    };
    let proven = Proven { groups, bytes: payload, nodes, signed, length };
    keep(shared, proven, from.clone(), Arrival { groups, length, signed: None })
}

/// Digests and keeps what this host read itself, from the origin or from another task; signs it when that is its role.
pub(super) fn own(
    shared: &Shared,
    signer: Option<&Identity>,
    from: CameFrom,
    shape: Shape,
    (first, bytes): (u64, &Bytes),
) -> Result<Outcome, KeepError> {
    let count = dfs_model::groups_in(bytes.len() as u64);
    let groups = GroupRange::new(first, count);
    let cvs = hashtree::group_digests(shape, groups, bytes).map_err(VerifyError::from)?;
    let mut nodes: HashMap<Node, Cv> = groups.iter().map(Node::group).zip(cvs).collect();
    // A stream that begins anew, of an origin that pins nothing, may be of another version.
    for (node, cv) in &nodes {
        if shared.stored.node(*node).is_none_or(|known| known == *cv) {
            continue;
        }
        let group = GroupRange::new(node.index, 1);
        if shared.stored.ready(group).is_err() {
            // Nobody holds on to what was known of it but who signed that: the next one who reads it decides.
            shared.stored.mark_bad(&[group])?;
        }
        return Err(KeepError::Changed(node.index));
    }
    let mut covering = Vec::new();
    for node in shape.cover(groups) {
        if let Some(cv) = hashtree::fold(shape, node, |node| nodes.get(&node).copied()) {
            covering.push((node, cv));
        }
    }
    nodes.extend(covering.iter().copied());
    let nodes: Vec<(Node, Cv)> = nodes.into_iter().collect();
    let (bytes, length) = (bytes.clone(), shape.length());
    let mut proven = Proven { groups, bytes, nodes, signed: Vec::new(), length };
    let mut arrival = Arrival { groups, length: None, signed: None };
    if let Some(signer) = signer {
        let batch = DigestBatch {
            task: shared.info.id,
            signer: signer.host(),
            length: shape.length(),
            entries: covering,
        };
        // Before the groups are there: whoever sees them must find what proves them, and below what is signed
        // every digest.
        let batch = batch.sign(signer.signing_key())?;
        proven.signed.push(Arc::new(batch.clone()));
        if !shared.stored.has_room_for(groups) {
            // What is not kept leaves no trace either: the signature goes to children with the bytes.
            return Ok(Outcome::NoRoom(proven, shared.stored.full()));
        }
        let kept = shared.stored.keep_nodes(&proven.nodes);
        match kept.and_then(|()| shared.stored.add_signed(&batch)) {
            Err(error @ StoreError::NoSpace { .. }) => return Ok(Outcome::NoRoom(proven, error)),
            added => added?,
        }
        arrival.signed = Some(batch);
    }
    keep(shared, proven, from, arrival)
}

/// Groups in one batch of what was read before.
const VOUCHED: u64 = 1024;

/// Signs what this host has read from the origin before it was to sign: others are led to that too.
pub(super) fn vouch(shared: &Shared, signer: &Identity) -> Result<Vec<SignedDigests>, KeepError> {
    let (shape, stored) = (shared.shape(), &shared.stored);
    let all = GroupRange::new(0, shape.groups().unwrap_or(u64::MAX));
    let read = shared.provenance.by_giver(all).into_iter();
    let mut own = GroupSet::new();
    for (_, run) in read.filter(|(from, _)| matches!(from, CameFrom::Source | CameFrom::Here)) {
        let bare = run.iter().filter(|group| !stored.is_signed(*group));
        for group in bare.filter(|group| stored.has(GroupRange::new(*group, 1))) {
            own.insert(group);
        }
    }
    let mut batches = Vec::new();
    for groups in own.ranges().flat_map(|run| run.cut(VOUCHED)) {
        let folded = shape
            .cover(groups)
            .into_iter()
            .map(|node| hashtree::fold(shape, node, |node| stored.node(node)).map(|cv| (node, cv)));
        // Of what the digests have gone nothing is said.
        let Some(entries) = folded.collect::<Option<Vec<_>>>() else { continue };
        stored.keep_nodes(&entries)?;
        let (task, signer_id, length) = (shared.info.id, signer.host(), shape.length());
        let batch = DigestBatch { task, signer: signer_id, length, entries };
        let batch = batch.sign(signer.signing_key())?;
        stored.add_signed(&batch)?;
        batches.push(batch);
    }
    Ok(batches)
}

/// Keeps a whole content that this host made itself.
pub(super) fn import(
    shared: &Shared,
    signer: Option<&Identity>,
    content: &Bytes,
) -> Result<(), KeepError> {
    let shape = shared.shape();
    let groups = dfs_model::groups_in(content.len() as u64);
    for run in GroupRange::new(0, groups).cut(16) {
        let bytes = run.bytes(content.len() as u64);
        let part = content.slice(bytes.start as usize..bytes.end as usize);
        if let Outcome::NoRoom(_, error) =
            own(shared, signer, CameFrom::Source, shape, (run.first, &part))?
        {
            return Err(error.into());
        }
    }
    Ok(())
}

fn keep(
    shared: &Shared,
    proven: Proven,
    from: CameFrom,
    arrival: Arrival,
) -> Result<Outcome, KeepError> {
    // Before the groups are there: whoever sees them may ask at once where they came from.
    shared.provenance.came(proven.groups, from);
    let is_new = !shared.stored.has(proven.groups);
    match shared.stored.commit(proven.groups, &proven.bytes, &proven.nodes) {
        Ok(()) => {
            if is_new {
                shared.room.found();
            }
            Ok(Outcome::Kept(arrival))
        }
        Err(error @ StoreError::NoSpace { .. }) => {
            // A disk without room for digests either: children of this host ask others.
            let _ = shared.stored.keep_nodes(&proven.nodes);
            Ok(Outcome::NoRoom(proven, error))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stand_ins_are_believed() {
        let (keyring, task) = (Keyring::default(), TaskId::from_bytes([1; 32]));
        let host = |number: usize| HostId::from_bytes([number as u8; 16]);
        for number in 0..=MOST_APPOINTED {
            keyring.learn_stand_ins(task, vec![(host(number), [number as u8; 32])]);
        }
        assert_eq!(keyring.key(&task, &host(0)), None);
        assert_eq!(keyring.key(&task, &host(1)), Some([1; 32]));
        let newest = MOST_APPOINTED as u8;
        assert_eq!(keyring.key(&task, &host(MOST_APPOINTED)), Some([newest; 32]));
    }
}
