//! One accepted connection: reads what the child wants and keeps count of it.

use std::collections::HashMap;
use std::sync::Arc;

use dfs_model::TaskId;
use parking_lot::Mutex;
use tokio::io::ReadHalf;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::writer::{Item, Writer};
use super::{Shared, answer, watch};
use crate::dial::Link;
use crate::wire::codec::Delivery;
use crate::wire::frame::{Encoded, Frame, FrameError, Header, Kind, encode};
use crate::wire::hello::Greeted;
use crate::wire::io::{FrameReader, ReadError, Verdict};
use crate::wire::message::{ErrorCode, PeerIdentity, PieceRequest, Refusal, WatchRequest};

/// Small frames that wait for the writer.
const CONTROL_FRAMES: usize = 64;
/// Segments and ends of answers that wait for the writer.
const DATA_FRAMES: usize = 16;

/// State of one connection, shared by its reader and its answers.
pub(super) struct Session {
    pub(super) server: Arc<Shared>,
    pub(super) peer: PeerIdentity,
    /// Requests whose end is not queued yet. The child may ask anew once it read the end, so an answer
    /// leaves before its end is queued.
    open: Mutex<HashMap<u32, CancellationToken>>,
    pub(super) watches: Mutex<HashMap<TaskId, CancellationToken>>,
    pub(super) control: mpsc::Sender<Encoded>,
    pub(super) data: mpsc::Sender<Item>,
    /// How quickly the child takes what is sent to it.
    pub(super) delivery: Arc<Delivery>,
    /// One place per answer until the last of it is written; twice as many as requests in flight.
    places: Arc<Semaphore>,
    /// Cancelled when the connection is over.
    pub(super) over: CancellationToken,
    tracker: TaskTracker,
}

/// Serves one child until it leaves, misbehaves, or `stop` and its requests are done.
pub(super) async fn run(server: Arc<Shared>, greeted: Greeted, stop: CancellationToken) {
    let (control, control_frames) = mpsc::channel(CONTROL_FRAMES);
    let (data, data_frames) = mpsc::channel(DATA_FRAMES);
    let over = CancellationToken::new();
    let tracker = TaskTracker::new();
    let options = &server.options;
    let delivery = Arc::new(Delivery::new());
    let session = Arc::new(Session {
        places: Arc::new(Semaphore::new(options.in_flight * 2)),
        server: Arc::clone(&server),
        peer: greeted.peer,
        open: Mutex::default(),
        watches: Mutex::default(),
        control,
        data,
        delivery: Arc::clone(&delivery),
        over: over.clone(),
        tracker: tracker.clone(),
    });
    let writer = Writer::new(Arc::clone(&server), greeted.writer, delivery, over.clone());
    tracker.spawn(writer.run(control_frames, data_frames));
    let last_words = tokio::select! {
        biased;
        () = over.cancelled() => None,
        last_words = session.read(greeted.reader, stop) => last_words,
    };
    if let Some(reason) = last_words {
        // No room means that the child does not read anyway.
        let _ = session.try_say(Frame::Goodbye { reason });
    }
    over.cancel();
    drop(session);
    tracker.close();
    tracker.wait().await;
}

impl Session {
    /// Reads until there is nothing more to do here; the last words to the child, if any.
    async fn read(
        self: &Arc<Self>,
        mut reader: FrameReader<ReadHalf<Box<dyn Link>>>,
        stop: CancellationToken,
    ) -> Option<String> {
        let options = &self.server.options;
        let mut draining = None;
        let mut used = Instant::now();
        loop {
            let wake_at = draining.unwrap_or(used + options.idle_after);
            let frame = tokio::select! {
                biased;
                () = stop.cancelled(), if draining.is_none() => {
                    draining = Some(Instant::now() + options.drain_within);
                    let _ = self.try_say(Frame::Goodbye { reason: "shutting down".to_owned() });
                    continue;
                }
                () = self.drained(), if draining.is_some() => return None,
                () = tokio::time::sleep_until(wake_at) => {
                    if draining.is_some() {
                        return None;
                    }
                    if self.is_idle() {
                        return Some("idle".to_owned());
                    }
                    used = Instant::now();
                    continue;
                }
                frame = reader.next(judge) => frame,
            };
            let error = match frame {
                Ok(Some(Frame::Goodbye { .. })) | Ok(None) | Err(ReadError::Io(_)) => return None,
                Ok(Some(frame)) => {
                    if matches!(frame, Frame::Request { .. } | Frame::Watch(_)) {
                        used = Instant::now();
                    }
                    match self.take(frame, draining.is_some()).await {
                        Ok(()) => continue,
                        Err(error) => error,
                    }
                }
                Err(ReadError::Frame(error)) => error,
            };
            self.server.counters.violations.add(1);
            let peer = &self.peer;
            tracing::debug!(host = %peer.host, address = %peer.address, %error, "closing a child");
            return Some(error.to_string());
        }
    }

    async fn take(self: &Arc<Self>, frame: Frame, draining: bool) -> Result<(), FrameError> {
        match frame {
            Frame::Request { id, request } => self.take_request(id, request, draining).await?,
            Frame::Cancel { id } => {
                if let Some(cancel) = self.open.lock().remove(&id) {
                    self.server.counters.cancelled.add(1);
                    cancel.cancel();
                }
            }
            Frame::Watch(request) => self.take_watch(request).await,
            Frame::Unwatch { task } => {
                if let Some(cancel) = self.watches.lock().remove(&task) {
                    cancel.cancel();
                }
            }
            Frame::Ping { id } => self.say(Frame::Pong { id }).await,
            Frame::Pong { id } => self.delivery.arrived(id),
            _ => {}
        }
        Ok(())
    }

    async fn take_request(
        self: &Arc<Self>,
        id: u32,
        request: PieceRequest,
        draining: bool,
    ) -> Result<(), FrameError> {
        let counters = &self.server.counters;
        counters.requests.add(1);
        let cancel = self.over.child_token();
        let refusal = {
            let mut open = self.open.lock();
            if open.contains_key(&id) {
                return Err(FrameError::Malformed("an id that is in use"));
            }
            if draining {
                Some(Refusal::new(ErrorCode::Busy, "shutting down"))
            } else if open.len() >= self.server.options.in_flight {
                Some(Refusal::new(ErrorCode::Busy, "too many requests in flight"))
            } else {
                open.insert(id, cancel.clone());
                None
            }
        };
        if let Some(refusal) = refusal {
            counters.refusals.add(1);
            self.say(Frame::Error { id, refusal }).await;
            return Ok(());
        }
        // Answers that ended and wait for the writer are bounded too: then nothing more is read.
        let place = Arc::clone(&self.places).acquire_owned().await;
        let session = Arc::clone(self);
        self.tracker.spawn(async move {
            answer::run(session, id, request, cancel).await;
            drop(place);
        });
        Ok(())
    }

    async fn take_watch(self: &Arc<Self>, request: WatchRequest) {
        let cancel = self.over.child_token();
        let task = request.task;
        let full = {
            let mut watches = self.watches.lock();
            if let Some(earlier) = watches.remove(&task) {
                earlier.cancel();
            }
            let full = watches.len() >= self.server.options.watches;
            if !full {
                watches.insert(task, cancel.clone());
            }
            full
        };
        if full {
            return self.say(Frame::Gone { task }).await;
        }
        self.tracker.spawn(watch::run(Arc::clone(self), request, cancel));
    }

    /// Closes the books on a request before its end is queued; `false` when it was cancelled meanwhile.
    pub(super) fn close(&self, id: u32) -> bool {
        self.open.lock().remove(&id).is_some()
    }

    /// Queues a small frame; waits for room, which is what holds back a child that asks without reading.
    async fn say(&self, frame: Frame) {
        if let Ok(encoded) = encode(frame) {
            // A closed queue means that the connection is over.
            let _ = self.control.send(encoded).await;
        }
    }

    fn try_say(&self, frame: Frame) -> bool {
        encode(frame).is_ok_and(|encoded| self.control.try_send(encoded).is_ok())
    }

    /// Waits until every answer is written.
    async fn drained(&self) {
        let all = u32::try_from(self.server.options.in_flight * 2).unwrap_or(u32::MAX);
        let _ = self.places.acquire_many(all).await;
    }

    fn is_idle(&self) -> bool {
        self.open.lock().is_empty() && self.watches.lock().is_empty()
    }
}

/// Judges a frame before memory is spent on it: children do not send data.
fn judge(kind: Kind, _: &Header) -> Result<Verdict, FrameError> {
    match kind {
        Kind::Request | Kind::Cancel | Kind::Watch | Kind::Unwatch => Ok(Verdict::Take),
        Kind::Ping | Kind::Pong | Kind::Goodbye => Ok(Verdict::Take),
        Kind::Hello | Kind::Data | Kind::Error | Kind::Have => {
            Err(FrameError::Unexpected(kind as u8))
        }
    }
}
