//! The asking side of one connection.
//!
//! One reader, one writer and one watch agent per connection, one guardian per request. The reader never
//! waits for anybody: what it delivers has its room reserved before it was asked for ([`budget`]), so a
//! consumer that stalls holds up its own request alone, and that only until its deadline.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dfs_model::{ByteSize, HostId};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::counters::WireCounters;
use super::error::{ConnectError, PieceError};
use super::exchange::Exchange;
use super::frame::{Frame, FrameError};
use super::hello::{LocalHost, greet};
use super::message::{PeerIdentity, PieceRequest, Refusal, Segment, WatchRequest};
use crate::dial::{Link, PeerAddress};

mod budget;
mod mailbox;
mod reader;
mod request;
mod watch;
mod writer;

pub(super) use budget::ReceiveBudget;
pub use request::Segments;
pub use watch::{HaveWatch, Holding};

use budget::Lanes;
use mailbox::Mailbox;
use watch::WatchTable;

/// Small frames that wait for the writer.
const OUTGOING_FRAMES: usize = 128;

/// How connections to parents behave.
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    /// Most bytes received and not yet taken, on one connection. At least two full requests fit anyway.
    pub buffer: ByteSize,
    /// Requests in flight; further ones wait. An eighth of them is kept for demand reads.
    pub in_flight: usize,
    /// Silence after which the peer is asked for a sign of life; twice that ends the connection.
    pub keepalive: Duration,
    /// The same while the peer owes an answer: one that hangs keeps nobody waiting for long.
    pub owing: Duration,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            buffer: ByteSize(64 << 20),
            in_flight: 64,
            keepalive: Duration::from_secs(10),
            owing: Duration::from_secs(2),
        }
    }
}

/// What all connections of a process share.
pub(super) struct Surroundings {
    pub(super) me: LocalHost,
    pub(super) options: ConnectionOptions,
    pub(super) budget: ReceiveBudget,
    pub(super) counters: Arc<WireCounters>,
    pub(super) tracker: TaskTracker,
    pub(super) cancel: CancellationToken,
}

/// A connection to one parent. Clones are cheap; it closes when the last one, and the last stream and
/// watch made from them, is dropped.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
    handle: Arc<DropGuard>,
}

struct Shared {
    peer: PeerIdentity,
    counters: Arc<WireCounters>,
    tracker: TaskTracker,
    lanes: Lanes,
    requests: Mutex<Requests>,
    watches: WatchTable,
    outgoing: mpsc::Sender<Frame>,
    /// Cancelled when the connection is over; `reason` is set before.
    closed: CancellationToken,
    reason: OnceLock<Arc<str>>,
}

struct Requests {
    open: HashMap<u32, OpenRequest>,
    next_id: u32,
    /// The peer said goodbye, or the ids are used up: what is open goes on, nothing begins.
    draining: bool,
    last_used: Instant,
}

impl Requests {
    fn new() -> Self {
        Self { open: HashMap::new(), next_id: 0, draining: false, last_used: Instant::now() }
    }
}

struct OpenRequest {
    exchange: Exchange,
    mailbox: Arc<Mailbox>,
}

impl Connection {
    /// Greets the other side of `link` and starts the connection. The caller bounds the wait.
    pub(super) async fn open(
        link: Box<dyn Link>,
        address: PeerAddress,
        expected: Option<HostId>,
        around: &Surroundings,
    ) -> Result<Self, ConnectError> {
        let greeted = greet(link, address, &around.me, expected, &around.counters).await?;
        around.counters.connections.add(1);
        around.counters.open.add(1);
        let (outgoing, frames) = mpsc::channel(OUTGOING_FRAMES);
        let closed = around.cancel.child_token();
        let shared = Arc::new(Shared {
            peer: greeted.peer,
            counters: Arc::clone(&around.counters),
            tracker: around.tracker.clone(),
            lanes: Lanes::new(&around.options, around.budget.clone()),
            requests: Mutex::new(Requests::new()),
            watches: WatchTable::default(),
            outgoing,
            closed: closed.clone(),
            reason: OnceLock::new(),
        });
        let tracker = &around.tracker;
        tracker.spawn(reader::run(Arc::clone(&shared), greeted.reader, around.options.clone()));
        tracker.spawn(writer::run(
            Arc::clone(&shared),
            greeted.writer,
            frames,
            around.options.keepalive * 2,
        ));
        tracker.spawn(watch::run(Arc::clone(&shared)));
        Ok(Self { shared, handle: Arc::new(closed.drop_guard()) })
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &PeerIdentity {
        &self.shared.peer
    }

    /// Asks for groups. The request is on its way at once (or as soon as there is room for its answer);
    /// the stream yields what arrives and ends, or yields one error and ends. Dropping it cancels.
    ///
    /// The request's deadline holds from now until the last segment is taken from the stream.
    pub fn request(&self, request: PieceRequest) -> Segments {
        request::start(self, request)
    }

    /// Follows what the parent holds of a task. Groups at or above `limit_groups` are not recorded: it
    /// bounds the bitmap's memory when the length is not known yet.
    pub fn watch(&self, request: WatchRequest, limit_groups: u64) -> HaveWatch {
        watch::start(self, request, limit_groups)
    }

    /// Whether new requests may begin.
    pub fn is_usable(&self) -> bool {
        !self.shared.closed.is_cancelled() && !self.shared.requests.lock().draining
    }

    /// Waits for the end of the connection; the reason, for people.
    pub async fn closed(&self) -> Arc<str> {
        self.shared.closed.cancelled().await;
        self.shared.close_reason()
    }

    /// Ends the connection; open requests fail with `Disconnected`.
    pub fn close(&self, reason: &str) {
        self.shared.close(reason);
    }

    /// Whether nobody else has a handle, a stream or a watch on it.
    pub(super) fn is_only_handle(&self) -> bool {
        Arc::strong_count(&self.handle) == 1
    }

    /// When the last request began, or the connection itself.
    pub(super) fn last_used(&self) -> Instant {
        self.shared.requests.lock().last_used
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.shared.peer)
            .field("usable", &self.is_usable())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn close(&self, reason: &str) {
        let _ = self.reason.set(Arc::from(reason));
        self.closed.cancel();
    }

    fn close_reason(&self) -> Arc<str> {
        self.reason.get().cloned().unwrap_or_else(|| Arc::from("closed on this side"))
    }

    fn disconnected(&self) -> PieceError {
        PieceError::Disconnected(self.close_reason())
    }

    fn drain(&self) {
        self.requests.lock().draining = true;
    }

    /// Opens a request under an id of its own.
    fn register(&self, request: &PieceRequest, mailbox: &Arc<Mailbox>) -> Result<u32, PieceError> {
        let mut requests = self.requests.lock();
        let next = requests.next_id.checked_add(1);
        requests.draining |= next.is_none();
        let (Some(next), false) = (next, requests.draining) else {
            return Err(PieceError::Disconnected(Arc::from("the connection is ending")));
        };
        let id = std::mem::replace(&mut requests.next_id, next);
        requests.last_used = Instant::now();
        let exchange = Exchange::new(request);
        requests.open.insert(id, OpenRequest { exchange, mailbox: Arc::clone(mailbox) });
        Ok(id)
    }

    /// Whether an answer is outstanding.
    fn is_owed(&self) -> bool {
        !self.requests.lock().open.is_empty()
    }

    /// Forgets a request; whether it was still open.
    fn unregister(&self, id: u32) -> bool {
        self.requests.lock().open.remove(&id).is_some()
    }

    /// Whether an answer with this id is still wanted; ids that were never used are an error.
    fn expects(&self, id: u32) -> Result<bool, FrameError> {
        let requests = self.requests.lock();
        if id >= requests.next_id {
            return Err(FrameError::Malformed("an answer to nothing"));
        }
        Ok(requests.open.contains_key(&id))
    }

    fn deliver(&self, id: u32, segment: Segment, last: bool) -> Result<(), FrameError> {
        let mut requests = self.requests.lock();
        let Some(open) = requests.open.get_mut(&id) else {
            self.counters.payload_wasted.add(segment.payload.len());
            return Ok(());
        };
        open.exchange.accept(&segment)?;
        let mailbox = Arc::clone(&open.mailbox);
        let done = last || open.exchange.complete();
        if done {
            requests.open.remove(&id);
        }
        drop(requests);
        self.counters.payload_received.add(segment.content_bytes() as usize);
        self.counters.encoded_received.add(segment.payload.len());
        mailbox.push(segment);
        if done {
            mailbox.finish(Ok(()));
        }
        Ok(())
    }

    fn refuse(&self, id: u32, refusal: Refusal) {
        let Some(open) = self.requests.lock().open.remove(&id) else { return };
        self.counters.refusals.add(1);
        open.mailbox.finish(Err(PieceError::Refused(refusal)));
    }
}
