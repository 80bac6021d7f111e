//! The answering side: serves what a [`Provider`] holds to whoever connects.
//!
//! Nobody's slowness is somebody else's: what has to come first is waited for with nothing in hand, however
//! many wait; a segment is read only under an upload slot; a slot is given up when its child does not read;
//! and a child that takes nothing for long loses its connection.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::codec::{Compression, Encoder};
use super::counters::WireCounters;
use super::hello::{LocalHost, greet};
use super::message::{HaveUpdate, PeerIdentity, PieceRequest, Refusal, Segment, WatchRequest};
use crate::dial::{Acceptor, Link, PeerAddress};
use crate::limits::{RateLimiter, UploadSlots};

mod answer;
mod session;
mod watch;
mod writer;

/// A segment whose groups are here and can be read at once; nothing of it is in memory yet.
pub struct Ready(Box<dyn FnOnce() -> Result<Segment, Refusal> + Send>);

impl Ready {
    /// One that `read` brings into memory, on a thread where that may block.
    pub fn new(read: impl FnOnce() -> Result<Segment, Refusal> + Send + 'static) -> Self {
        Self(Box::new(read))
    }

    /// Brings it into memory. Blocks.
    pub fn read(self) -> Result<Segment, Refusal> {
        (self.0)()
    }
}

/// An answer: segments of at most [`super::MAX_DATA_GROUPS`] groups, in any order, each group once. Ending
/// before all groups were there is allowed; the child then asks elsewhere.
pub type SegmentStream = BoxStream<'static, Result<Ready, Refusal>>;

/// What is held of a task: a snapshot, then what is added. It ends when the task is dropped.
pub type HaveStream = BoxStream<'static, HaveUpdate>;

/// Where a server takes its answers from.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Begins an answer. The next segment is asked for when the one before it was sent, and read when there
    /// is room to send it; the answer is dropped when the child cancels, disconnects, or the deadline
    /// passes. It may wait for long, as for an origin: that costs others nothing. Whether `peer` may have the task is decided here.
    async fn open(
        &self,
        peer: &PeerIdentity,
        request: &PieceRequest,
    ) -> Result<SegmentStream, Refusal>;

    /// Begins to tell what is held of a task; `None` when nothing is, or nothing is to be told.
    fn watch(&self, peer: &PeerIdentity, request: &WatchRequest) -> Option<HaveStream>;
}

/// Bounds and patience of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Connections at a time; further ones are dropped unanswered.
    pub connections: usize,
    /// Requests in flight on one connection; further ones are refused as busy.
    pub in_flight: usize,
    /// Tasks followed on one connection.
    pub watches: usize,
    /// Time for the greeting.
    pub greet_within: Duration,
    /// A connection without requests and watches for so long is closed.
    pub idle_after: Duration,
    /// A child that takes no byte for so long loses its connection.
    pub stall_after: Duration,
    /// How long a segment being written may keep its upload slot from others.
    pub slot_patience: Duration,
    /// Longest deadline that a request gets.
    pub longest_deadline: Duration,
    /// Time for requests in flight when the server stops.
    pub drain_within: Duration,
    /// Whether what is sent is compressed.
    pub compression: Compression,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections: 1024,
            in_flight: 64,
            watches: 256,
            greet_within: Duration::from_secs(5),
            idle_after: Duration::from_secs(300),
            stall_after: Duration::from_secs(30),
            slot_patience: Duration::from_millis(500),
            longest_deadline: Duration::from_secs(600),
            drain_within: Duration::from_secs(5),
            compression: Compression::Auto,
        }
    }
}

/// Serves the piece plane. Clones are cheap and serve the same.
#[derive(Clone)]
pub struct PieceServer {
    shared: Arc<Shared>,
}

struct Shared {
    provider: Arc<dyn Provider>,
    me: LocalHost,
    options: ServerOptions,
    slots: Arc<UploadSlots>,
    rate: Arc<RateLimiter>,
    counters: Arc<WireCounters>,
    connections: Arc<Semaphore>,
    encoder: Arc<Encoder>,
}

impl PieceServer {
    /// A server that answers from `provider`, within the process's `slots` and `rate`.
    pub fn new(
        provider: Arc<dyn Provider>,
        me: LocalHost,
        options: ServerOptions,
        slots: Arc<UploadSlots>,
        rate: Arc<RateLimiter>,
    ) -> Self {
        let connections = Arc::new(Semaphore::new(options.connections));
        let counters = Arc::default();
        let encoder = Arc::new(Encoder::new(options.compression));
        let shared = Shared { provider, me, options, slots, rate, counters, connections, encoder };
        Self { shared: Arc::new(shared) }
    }

    /// What its connections counted.
    pub fn counters(&self) -> &Arc<WireCounters> {
        &self.shared.counters
    }

    /// Serves whoever `acceptor` lets in until `cancel`, then lets requests in flight end (see
    /// [`ServerOptions::drain_within`]) and returns when all connections are closed.
    pub async fn serve(&self, acceptor: Arc<dyn Acceptor>, cancel: CancellationToken) {
        let tracker = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                accepted = acceptor.accept() => accepted,
            };
            match accepted {
                Ok((link, address)) => self.admit(link, address, &tracker, &cancel),
                // Out of descriptors, most likely: trying again at once would spin.
                Err(error) => {
                    tracing::debug!(%error, "accepting a link failed");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        tracker.close();
        tracker.wait().await;
    }

    fn admit(
        &self,
        link: Box<dyn Link>,
        address: PeerAddress,
        tracker: &TaskTracker,
        cancel: &CancellationToken,
    ) {
        let shared = Arc::clone(&self.shared);
        let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
            shared.counters.failed_greetings.add(1);
            return;
        };
        let cancel = cancel.clone();
        tracker.spawn(async move {
            let greeting = greet(link, address, &shared.me, None, &shared.counters);
            let greeted = tokio::select! {
                () = cancel.cancelled() => return,
                greeted = tokio::time::timeout(shared.options.greet_within, greeting) => greeted,
            };
            let Ok(Ok(greeted)) = greeted else {
                shared.counters.failed_greetings.add(1);
                return;
            };
            shared.counters.connections.add(1);
            shared.counters.open.add(1);
            session::run(Arc::clone(&shared), greeted, cancel).await;
            shared.counters.open.sub(1);
            drop(permit);
        });
    }
}
