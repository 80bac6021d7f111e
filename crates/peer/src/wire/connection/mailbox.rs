//! Where the reader leaves what arrives for one request, and its consumer takes it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::budget::Room;
use crate::wire::counters::WireCounters;
use crate::wire::error::PieceError;
use crate::wire::message::Segment;

/// A queue that ends exactly once. Its bytes were reserved before the request went out, and the exchange
/// checks every segment against that, so pushing never waits.
pub(super) struct Mailbox {
    state: Mutex<State>,
    consumer: AtomicWaker,
    /// Cancelled when the answer ended.
    ended: CancellationToken,
    /// Cancelled when the consumer took the end, or went away.
    settled: CancellationToken,
    counters: Arc<WireCounters>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Segment>,
    queued: usize,
    room: Option<Room>,
    end: Option<Result<(), PieceError>>,
    settled: bool,
}

impl State {
    fn clear(&mut self, counters: &WireCounters) {
        counters.buffered.sub(self.queued);
        self.queued = 0;
        self.queue.clear();
        self.room = None;
    }
}

fn weight(segment: &Segment) -> usize {
    segment.payload.len() + segment.extras()
}

impl Mailbox {
    pub(super) fn new(counters: Arc<WireCounters>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            consumer: AtomicWaker::new(),
            ended: CancellationToken::new(),
            settled: CancellationToken::new(),
            counters,
        })
    }

    /// Takes over the reservation for the answer.
    pub(super) fn reserve(&self, room: Room) {
        let mut state = self.state.lock();
        if !state.settled {
            state.room = Some(room);
        }
    }

    pub(super) fn push(&self, segment: Segment) {
        let mut state = self.state.lock();
        if state.settled || state.end.is_some() {
            return;
        }
        let weight = weight(&segment);
        state.queued += weight;
        self.counters.buffered.add(weight);
        state.queue.push_back(segment);
        drop(state);
        self.consumer.wake();
    }

    /// Ends the answer; what arrived before may still be taken. Only the first end counts.
    pub(super) fn finish(&self, end: Result<(), PieceError>) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
        state.end = Some(end);
        let queued = state.queued;
        if let Some(room) = &mut state.room {
            room.shrink_to(queued);
        }
        drop(state);
        self.ended.cancel();
        self.consumer.wake();
    }

    /// The time is up: what was not taken is dropped, even when all of it had arrived.
    pub(super) fn expire(&self) {
        let mut state = self.state.lock();
        if state.settled {
            return;
        }
        state.end = Some(Err(PieceError::Deadline));
        state.clear(&self.counters);
        drop(state);
        self.consumer.wake();
    }

    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    pub(super) async fn settled(&self) {
        self.settled.cancelled().await;
    }

    /// The consumer goes away.
    pub(super) fn abandon(&self) {
        self.settle(&mut self.state.lock());
    }

    fn settle(&self, state: &mut State) {
        state.settled = true;
        state.clear(&self.counters);
        self.settled.cancel();
    }

    pub(super) fn poll_next(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Segment, PieceError>>> {
        self.consumer.register(cx.waker());
        let mut state = self.state.lock();
        if let Some(segment) = state.queue.pop_front() {
            let weight = weight(&segment);
            state.queued -= weight;
            self.counters.buffered.sub(weight);
            if let Some(room) = &mut state.room {
                room.release(weight);
            }
            return Poll::Ready(Some(Ok(segment)));
        }
        if state.settled {
            return Poll::Ready(None);
        }
        let Some(end) = state.end.clone() else { return Poll::Pending };
        self.settle(&mut state);
        Poll::Ready(end.err().map(Err))
    }
}
