//! Flights: one request to a parent or to the origin, from asking to verified and kept.

mod copy;
mod source;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use dfs_model::{ByteSize, GroupRange, HostId, Priority};
use dfs_proto::common;
use dfs_source::SourceError;
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::source::Reading;
use super::Inner;
use super::error::ReadError;
use super::keep::{self, Arrival, Outcome};
use super::ledger::CameFrom;
use super::passing::Proven;
use super::task::{ParentHost, Shared};
use crate::conductor::{Failure, FlightId};
use crate::digests::{Appointment, DigestsError, MOST_APPOINTED, SignedDigests};
use crate::store::{StoreError, Use};
use crate::wire::{ErrorCode, PieceError, PieceRequest, SealedCredentials, Segment, Segments};

/// How long a parent may take over one request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// How long a blocked reader's request may take before somebody else is asked.
const DEMAND_DEADLINE: Duration = Duration::from_secs(10);

/// How long the key of a signer that is not known yet is waited for.
const KEY_WITHIN: Duration = Duration::from_secs(2);

/// What a flight reports.
#[derive(Debug)]
pub(super) enum FlightEvent {
    /// Groups are verified and in the store.
    Kept { flight: FlightId, groups: GroupRange, from: CameFrom, cost: Duration },
    /// Groups of other tasks are in the store as part of this one.
    Copied { groups: GroupRange },
    /// So is all that others have of these.
    LookedFor { groups: GroupRange },
    /// Groups are verified, but the store has no room: who waits for them as readers has them in memory.
    Passed { flight: FlightId, groups: GroupRange, error: ReadError },
    /// The origin does not have these groups any more; others of the flight may follow.
    Void { flight: FlightId, groups: GroupRange, error: ReadError },
    /// The length became known.
    Length(u64),
    /// The scheduler's answer brought everything, as this seed had it.
    Tiny { seed: HostId },
    /// It is over.
    Ended { flight: FlightId, fault: Option<Fault> },
}

/// Why a flight did not bring everything.
#[derive(Debug)]
pub(super) enum Fault {
    /// Another parent may do better.
    Parent { failure: Failure, groups: GroupRange, reason: String },
    /// The first group that was still to come is gone at the origin, as the parent says.
    Void { group: u64, error: ReadError },
    /// A seed cannot ask the origin: it has no credentials that suffice, and those of this host, if it has any,
    /// did not help it.
    NoCredentials { groups: GroupRange, reason: String },
    /// The origin sends everything whatever is asked: one stream from now on.
    NoRanges,
    /// Nobody can: whoever waits for these groups is told.
    Fatal { groups: GroupRange, error: ReadError },
}

/// What is asked of a parent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    pub(super) flight: FlightId,
    pub(super) groups: GroupRange,
    pub(super) priority: Priority,
    /// What it is to do where it is a seed that lacks it.
    pub(super) lacking: Lacking,
}

/// What a parent that fetches does that lacks what it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lacking {
    /// It fetches it.
    Fetches,
    /// It says so: another one is asked for it too.
    SaysSo,
}

/// What the scheduler says that is to be kept.
#[derive(Debug)]
pub(super) enum Word {
    Digests(SignedDigests),
    Appointments(Vec<Appointment>),
    /// This host stands in: what it has read for itself is for others too.
    StandsIn,
}

/// Batches of digests from the scheduler that wait to be looked at; further ones are let go, parents send
/// them too with what they prove.
const WAITING_DIGESTS: usize = 64;

/// Starts flights of one task.
pub(super) struct Flights {
    context: Context,
    words: mpsc::Sender<Word>,
    /// Those handed on already: the scheduler names all of them every time.
    appointments: HashSet<Appointment>,
}

#[derive(Clone)]
struct Context {
    engine: Arc<Inner>,
    shared: Arc<Shared>,
    events: mpsc::Sender<FlightEvent>,
    stop: CancellationToken,
}

impl Flights {
    pub(super) fn new(
        engine: Arc<Inner>,
        shared: Arc<Shared>,
        stop: CancellationToken,
    ) -> (Self, mpsc::Receiver<FlightEvent>) {
        let (events, receiver) = mpsc::channel(256);
        let context = Context { engine, shared, events, stop };
        let (words, waiting) = mpsc::channel(WAITING_DIGESTS);
        let worker = context.clone();
        context.engine.tracker.spawn(async move {
            let stop = worker.stop.clone();
            stop.run_until_cancelled(worker.accept_all(waiting)).await;
        });
        (Self { context, words, appointments: HashSet::new() }, receiver)
    }

    pub(super) fn request(&self, asking: Asking, parent: &ParentHost, stop: CancellationToken) {
        let context = self.context.clone();
        let parent = parent.clone();
        self.context.engine.tracker.spawn(async move {
            let asked = context.ask(asking, &parent);
            let fault = tokio::select! {
                // One that was given up before it began asks nobody.
                biased;
                () = stop.cancelled() => None,
                fault = asked => fault,
            };
            context.report(FlightEvent::Ended { flight: asking.flight, fault }).await;
        });
    }

    pub(super) fn read_source(
        &self,
        flight: FlightId,
        groups: Option<GroupRange>,
        priority: Priority,
        stop: CancellationToken,
    ) {
        let context = self.context.clone();
        self.context.engine.tracker.spawn(async move {
            let read = context.fetch(Reading { flight, priority }, groups);
            let fault = tokio::select! {
                // One that was given up before it began asks nobody.
                biased;
                () = stop.cancelled() => None,
                result = read => result.err().map(|error| source_fault(error, groups)),
            };
            context.report(FlightEvent::Ended { flight, fault }).await;
        });
    }

    /// Copies what other tasks have of the groups.
    pub(super) fn copy(&self, groups: GroupRange) {
        let context = self.context.clone();
        self.context.engine.tracker.spawn(async move {
            let stop = context.stop.clone();
            stop.run_until_cancelled(context.copy(groups)).await;
            context.report(FlightEvent::LookedFor { groups }).await;
        });
    }

    /// Has something kept that the scheduler said; whether there is room for it.
    pub(super) fn keep_word(&self, word: Word) -> bool {
        let taken = self.words.try_send(word).is_ok();
        if !taken {
            tracing::debug!("the scheduler says more than can be looked at: parents will send it");
        }
        taken
    }

    /// Has those appointments kept that are new.
    pub(super) fn keep_appointments(&mut self, mut appointments: Vec<Appointment>) {
        appointments.retain(|word| !self.appointments.contains(word));
        appointments.truncate(MOST_APPOINTED);
        if appointments.is_empty() || !self.keep_word(Word::Appointments(appointments.clone())) {
            return;
        }
        if self.appointments.len() > MOST_APPOINTED {
            self.appointments.clear();
        }
        self.appointments.extend(appointments);
    }

    /// The whole of a tiny content, as the scheduler had it from a seed. `looked_at` is dropped at the end.
    pub(super) fn keep_tiny(&self, whole: common::Whole, looked_at: Option<oneshot::Sender<()>>) {
        let context = self.context.clone();
        let signed: Vec<Bytes> = whole.digests.into_iter().map(|batch| batch.encoded).collect();
        self.context.engine.tracker.spawn(async move {
            let _looked_at = looked_at;
            let signer = signed.first().and_then(|batch| SignedDigests::decode(batch).ok());
            let Some(seed) = signer.map(|batch| batch.batch().signer) else { return };
            let payload = whole.content;
            let segment = Segment { count: 1, signed, payload, ..Segment::default() };
            match context.keep_segment(Priority::Demand, segment, &CameFrom::Parent(seed)).await {
                Ok(Outcome::Kept(_)) => context.report(FlightEvent::Tiny { seed }).await,
                // Parents or the source bring it instead.
                Ok(Outcome::NoRoom(_, error)) => {
                    tracing::debug!(%error, "a tiny content from the scheduler is not kept");
                }
                Err(error) => {
                    tracing::debug!(%error, "a tiny content from the scheduler is refused");
                }
            }
        });
    }
}

impl Context {
    async fn report(&self, event: FlightEvent) {
        self.shared.reported.fetch_add(1, Ordering::Relaxed);
        // The actor is gone only when the task closes: nothing to report to then.
        let _ = self.events.send(event).await;
    }

    async fn ask(&self, asking: Asking, parent: &ParentHost) -> Option<Fault> {
        let Asking { groups, priority, lacking, .. } = asking;
        let pool = self.engine.pool.as_ref()?;
        let _used = match self.shared.stored.in_use(Use::Fetch) {
            Ok(used) => used,
            Err(error) => return Some(Fault::Fatal { groups, error: error.into() }),
        };
        let connection = match pool.connect(parent.host.id, &parent.host.addresses).await {
            Ok(connection) => connection,
            Err(error) => {
                let (failure, reason) = (Failure::Disconnected, error.to_string());
                return Some(Fault::Parent { failure, groups, reason });
            }
        };
        let deadline =
            if priority == Priority::Demand { DEMAND_DEADLINE } else { REQUEST_DEADLINE };
        let mut request = PieceRequest {
            task: self.shared.info.id,
            groups,
            priority,
            codecs: self.engine.compression.accepts(),
            want_signed: !self.is_signed(groups),
            fetch: parent.fetches && lacking == Lacking::Fetches,
            grant: parent.grant.clone(),
            credentials: SealedCredentials::default(),
            deadline,
        };
        let mut next = groups.first;
        loop {
            let segments = connection.request(request.clone());
            let fault = self.receive(&asking, parent, groups, segments, &mut next).await;
            let is_unproven =
                matches!(fault, Some(Fault::Parent { failure: Failure::BadDigest, .. }));
            if is_unproven && !request.want_signed && next < groups.end() {
                // It may have proved the bytes by other digests than this host knows.
                request.want_signed = true;
                request.groups = GroupRange::new(next, groups.end() - next);
                continue;
            }
            let Some(Fault::NoCredentials { groups, reason }) = fault else { return fault };
            let fault = Some(Fault::NoCredentials { groups, reason });
            // Once: the seed has tried what was sent.
            let own = self.shared.own_credentials();
            if own.is_empty() || !request.credentials.is_empty() || next >= groups.end() {
                return fault;
            }
            request.groups = GroupRange::new(next, groups.end() - next);
            request.credentials = own;
        }
    }

    /// Whether signed digests over all of these groups are here already.
    fn is_signed(&self, groups: GroupRange) -> bool {
        let is_length_known = self.shared.shape().length().is_some();
        is_length_known && groups.iter().all(|group| self.shared.stored.is_signed(group))
    }

    /// Verifies and keeps what a parent sends of `groups`; `next` is the first that is still to come.
    async fn receive(
        &self,
        asking: &Asking,
        parent: &ParentHost,
        groups: GroupRange,
        mut segments: Segments,
        next: &mut u64,
    ) -> Option<Fault> {
        let mut asked = Instant::now();
        while let Some(segment) = segments.next().await {
            let segment = match segment {
                Ok(segment) => segment,
                Err(error) => return Some(self.piece_fault(parent, error, groups, *next)),
            };
            let (flight, from) = (asking.flight, CameFrom::Parent(parent.host.id));
            let kept = match self.keep_segment(asking.priority, segment, &from).await {
                Ok(kept) => kept,
                Err(keep::KeepError::Store(error)) => {
                    return Some(Fault::Fatal { groups, error: error.into() });
                }
                Err(error) => {
                    let failure = error.failure();
                    return Some(Fault::Parent { failure, groups, reason: error.to_string() });
                }
            };
            match kept {
                Outcome::Kept(Arrival { groups, .. }) if groups.is_empty() => {}
                Outcome::Kept(Arrival { groups, .. }) => {
                    *next = (*next).max(groups.end());
                    let cost = std::mem::replace(&mut asked, Instant::now()).elapsed();
                    self.report(FlightEvent::Kept { flight, groups, from, cost }).await;
                }
                Outcome::NoRoom(proven, error) => {
                    *next = (*next).max(proven.groups.end());
                    self.pass(flight, proven, from, error).await;
                }
            }
        }
        None
    }

    async fn keep_segment(
        &self,
        priority: Priority,
        segment: Segment,
        from: &CameFrom,
    ) -> Result<Outcome, keep::KeepError> {
        let wire = (segment.payload.len() + segment.extras()) as u64;
        self.shared.provenance.received(from, segment.content_bytes(), wire);
        let segment = Arc::new(segment);
        let mut kept = self.verify(priority, &segment, from).await;
        let again = match &kept {
            Err(keep::KeepError::Digests(DigestsError::UnknownSigner(signer))) => {
                self.engine.keyring.comes(&self.shared.info.id, signer, KEY_WITHIN).await
            }
            Ok(Outcome::NoRoom(..)) => self.engine.made_room().await,
            Ok(Outcome::Kept(_)) | Err(_) => false,
        };
        if again {
            kept = self.verify(priority, &segment, from).await;
        }
        let kept = kept?;
        let (Outcome::Kept(Arrival { length, .. }) | Outcome::NoRoom(Proven { length, .. }, _)) =
            &kept;
        self.learn_length(*length).await;
        Ok(kept)
    }

    /// Hands what the store has no room for to those who wait for it.
    async fn pass(&self, flight: FlightId, proven: Proven, from: CameFrom, error: StoreError) {
        let (groups, bytes) = (proven.groups, proven.bytes.len() as u64);
        let error = ReadError::from(error);
        if self.shared.room.lacks(Instant::now()) {
            let used = ByteSize(self.engine.store.used_bytes());
            tracing::warn!(
                error = crate::error_chain(&error), %used,
                "the cache is full of what is in use: what is read now is fetched and not kept",
            );
        }
        if self.shared.passing.hand_over(proven) {
            self.shared.provenance.passed_through(from, bytes);
        }
        self.report(FlightEvent::Passed { flight, groups, error }).await;
    }

    async fn verify(
        &self,
        priority: Priority,
        segment: &Arc<Segment>,
        from: &CameFrom,
    ) -> Result<Outcome, keep::KeepError> {
        let keyring = Arc::clone(&self.engine.keyring);
        let (shared, segment) = (Arc::clone(&self.shared), Arc::clone(segment));
        let from = from.clone();
        let groups = GroupRange::new(segment.first, segment.count.into());
        let _turn = self.shared.turns.turn(priority, self.shared.info.id, groups).await;
        self.blocking(move || keep::segment(&shared, &keyring, &segment, &from)).await
    }

    /// What the scheduler says, one after the other.
    async fn accept_all(&self, mut waiting: mpsc::Receiver<Word>) {
        while let Some(word) = waiting.recv().await {
            let accepted = match word {
                Word::Digests(digests) => self.accept_digests(digests).await,
                Word::Appointments(words) => self.accept_appointments(words).await,
                Word::StandsIn => self.vouch().await,
            };
            if let Err(reason) = accepted {
                tracing::debug!(reason, "what the scheduler says is not kept");
            }
        }
    }

    async fn accept_appointments(&self, words: Vec<Appointment>) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let work = move || keep::appointments(&shared, &words);
        self.blocking(work).await.map_err(|error| error.to_string())
    }

    async fn vouch(&self) -> Result<(), String> {
        let (shared, signer) = (Arc::clone(&self.shared), Arc::clone(&self.engine.identity));
        let work = move || keep::vouch(&shared, &signer);
        let batches = self.blocking(work).await.map_err(|error| error.to_string())?;
        if let Some(swarm) = &self.engine.swarm {
            let signed = batches.iter().map(|batch| batch.encode().into());
            signed.for_each(|batch| swarm.signed(self.shared.info.id, batch));
        }
        Ok(())
    }

    async fn accept_digests(&self, digests: SignedDigests) -> Result<(), String> {
        let keyring = Arc::clone(&self.engine.keyring);
        let shared = Arc::clone(&self.shared);
        let work = move || keep::digests(&shared, &keyring, &digests);
        let length = self.blocking(work).await.map_err(|error| error.to_string())?;
        self.learn_length(length).await;
        Ok(())
    }

    async fn learn_length(&self, length: Option<u64>) {
        let Some(length) = length else { return };
        let news = self.shared.length.send_if_modified(|known| {
            let news = known.is_none();
            *known = known.or(Some(length));
            news
        });
        if news {
            self.report(FlightEvent::Length(length)).await;
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, keep::KeepError> + Send + 'static,
    ) -> Result<T, keep::KeepError> {
        // It goes on when the flight is cancelled, and the engine's end must wait for it.
        match self.engine.tracker.spawn_blocking(work).await {
            Ok(result) => result,
            Err(_) => Err(keep::KeepError::Stopped),
        }
    }

    /// Why a parent did not send what was asked, from `next` on. Only a seed asks the origin: nobody else's word on
    /// it counts, nor is anybody else told credentials.
    fn piece_fault(
        &self,
        parent: &ParentHost,
        error: PieceError,
        groups: GroupRange,
        next: u64,
    ) -> Fault {
        let reason = error.to_string();
        let asks_origin = parent.host.kind == dfs_model::HostKind::Seed;
        let failure = match &error {
            PieceError::Refused(refusal) => match refusal.code {
                ErrorCode::NotFound | ErrorCode::NotHeld => Failure::NotHeld,
                ErrorCode::Busy => Failure::Busy,
                ErrorCode::Deadline => Failure::Timeout,
                ErrorCode::OriginChanged
                | ErrorCode::Void
                | ErrorCode::Credentials
                | ErrorCode::OriginFailed
                    if !asks_origin =>
                {
                    Failure::Other
                }
                ErrorCode::OriginChanged => return self.changed(&refusal.text, groups, next),
                ErrorCode::Void => {
                    let error = ReadError::Swarm(refusal.text.clone());
                    return Fault::Void { group: next, error };
                }
                ErrorCode::Credentials => return Fault::NoCredentials { groups, reason },
                ErrorCode::OriginFailed => Failure::OriginFailed,
                ErrorCode::Refused | ErrorCode::Internal => Failure::Other,
            },
            PieceError::Deadline => Failure::Timeout,
            _ => Failure::Disconnected,
        };
        Fault::Parent { failure, groups, reason }
    }

    /// A seed says that the origin changed. Of what has members that is said of the first group it was to
    /// send; the others are asked for anew.
    fn changed(&self, text: &str, groups: GroupRange, next: u64) -> Fault {
        let error = ReadError::origin_changed(text);
        let has_members = self.shared.origin.lock().as_ref().is_some_and(|o| o.has_members());
        match has_members {
            true => Fault::Void { group: next, error },
            false => Fault::Fatal { groups, error },
        }
    }
}

fn source_fault(error: ReadError, groups: Option<GroupRange>) -> Fault {
    match (&error, groups) {
        (ReadError::Source(source), Some(_))
            if matches!(**source, SourceError::RangeIgnored { .. }) =>
        {
            Fault::NoRanges
        }
        _ => Fault::Fatal { groups: groups.unwrap_or(GroupRange::new(0, u64::MAX)), error },
    }
}
