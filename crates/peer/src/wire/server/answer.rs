//! One answer: from the provider, under a slot, to the writer.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Ready;
use super::session::Session;
use super::writer::Item;
use crate::limits::Slot;
use crate::wire::codec::Probe;
use crate::wire::exchange::Exchange;
use crate::wire::frame::{Encoded, Frame, encode};
use crate::wire::message::{ErrorCode, PieceRequest, Refusal, Segment};

/// Sees a request to its end: the last segment, an error, or silence when it was cancelled.
pub(super) async fn run(
    session: Arc<Session>,
    id: u32,
    request: PieceRequest,
    cancel: CancellationToken,
) {
    let deadline = Instant::now() + request.deadline.min(session.server.options.longest_deadline);
    let answer = Answer { session: &session, id, request: &request, cancel: &cancel };
    let ended = tokio::select! {
        biased;
        () = cancel.cancelled() => return,
        ended = tokio::time::timeout_at(deadline, answer.send()) => ended,
    };
    let refusal = match ended {
        Ok(Ok(())) => return,
        Ok(Err(refusal)) => refusal,
        Err(_) => ErrorCode::Deadline.into(),
    };
    if !session.close(id) {
        return;
    }
    // Segments still queued are of no use to anybody.
    cancel.cancel();
    session.server.counters.refusals.add(1);
    if let Ok(frame) = encode(Frame::Error { id, refusal }) {
        // A closed queue means that the connection is over.
        let _ = session.data.send(Item::end(frame)).await;
    }
}

struct Answer<'a> {
    session: &'a Session,
    id: u32,
    request: &'a PieceRequest,
    cancel: &'a CancellationToken,
}

impl Answer<'_> {
    async fn send(&self) -> Result<(), Refusal> {
        let provider = &self.session.server.provider;
        let mut segments = provider.open(&self.session.peer, self.request).await?;
        let mut exchange = Exchange::new(self.request);
        let mut told = HashSet::new();
        loop {
            // Nothing is held meanwhile: this may wait for an origin.
            let Some(ready) = segments.next().await.transpose()? else {
                return self.end().await;
            };
            let slots = &self.session.server.slots;
            let slot = slots.acquire(self.session.peer.host, self.request.priority).await;
            let (mut segment, probe) = self.read(ready).await?;
            // One batch of digests often covers many segments: it goes out once.
            segment.signed.retain(|batch| told.insert(batch.clone()));
            let broken = |error| Refusal::new(ErrorCode::Internal, format!("{error}"));
            exchange.accept(&segment).map_err(broken)?;
            let last = exchange.complete();
            let frame = Frame::Data { id: self.id, segment, last };
            let frame = encode(frame).map_err(broken)?;
            if last && !self.session.close(self.id) {
                return Ok(());
            }
            self.write((frame, probe), Arc::new(slot)).await;
            if last {
                return Ok(());
            }
        }
    }

    /// Brings a segment into memory, as it is to travel.
    async fn read(&self, ready: Ready) -> Result<(Segment, Probe), Refusal> {
        let server = &self.session.server;
        // No link takes more than this host gives.
        let rate = [self.session.delivery.rate(), server.rate.rate()].into_iter().flatten().min();
        let encoder = Arc::clone(&server.encoder);
        let (task, accepted) = (self.request.task, self.request.codecs);
        let read = tokio::task::spawn_blocking(move || {
            let segment = ready.read()?;
            Ok(encoder.encode(&task, accepted, rate, segment))
        });
        read.await.map_err(|_| Refusal::from(ErrorCode::Internal))?
    }

    /// Ends an answer that is not complete.
    async fn end(&self) -> Result<(), Refusal> {
        let segment = Segment { first: self.request.groups.first, ..Segment::default() };
        let frame = Frame::Data { id: self.id, segment, last: true };
        if let Ok(frame) = encode(frame)
            && self.session.close(self.id)
        {
            let _ = self.session.data.send(Item::end(frame)).await;
        }
        Ok(())
    }

    /// Waits until the segment is written; its slot goes to others when that takes long.
    async fn write(&self, frame: (Encoded, Probe), slot: Arc<Slot>) {
        let (written, done) = oneshot::channel();
        let unread = YieldOnDrop(Arc::clone(&slot));
        let item = Item::segment(frame, self.cancel.clone(), (slot, written));
        let mut delivery = std::pin::pin!(async {
            if self.session.data.send(item).await.is_ok() {
                // Dropped without a word when it was skipped: then there is nothing to wait for either.
                let _ = done.await;
            }
        });
        let patience = self.session.server.options.slot_patience;
        if tokio::time::timeout(patience, &mut delivery).await.is_err() {
            unread.0.yield_slot();
            delivery.await;
        }
    }
}

/// Gives the slot to others when an answer is given up while its segment is stuck in the queue. The
/// queue's own hold on the slot keeps the child's share taken until then.
struct YieldOnDrop(Arc<Slot>);

impl Drop for YieldOnDrop {
    fn drop(&mut self) {
        self.0.yield_slot();
    }
}
