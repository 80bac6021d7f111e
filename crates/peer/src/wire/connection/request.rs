//! The guardian of one request: sees to it that the request ends, whatever happens.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::time::Instant;

use super::budget::Admission;
use super::mailbox::Mailbox;
use super::{Connection, Shared};
use crate::wire::error::PieceError;
use crate::wire::frame::{Frame, encode};
use crate::wire::message::{PieceRequest, Segment};

/// The answer to one request, as it arrives; see [`Connection::request`].
pub struct Segments {
    mailbox: Arc<Mailbox>,
    /// Keeps the connection open until the answer is taken.
    _connection: Connection,
}

impl Stream for Segments {
    type Item = Result<Segment, PieceError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.mailbox.poll_next(cx)
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.mailbox.abandon();
    }
}

pub(super) fn start(connection: &Connection, request: PieceRequest) -> Segments {
    let shared = &connection.shared;
    let mailbox = Mailbox::new(Arc::clone(&shared.counters));
    let guardian = Guardian {
        shared: Arc::clone(shared),
        mailbox: Arc::clone(&mailbox),
        deadline: Instant::now() + request.deadline,
    };
    match encode(Frame::Request { id: 0, request: request.clone() }) {
        Ok(_) => drop(shared.tracker.spawn(guardian.run(request))),
        Err(error) => mailbox.finish(Err(PieceError::OutOfBounds(error))),
    }
    Segments { mailbox, _connection: connection.clone() }
}

/// What ended a wait before its time.
enum Stop {
    /// The consumer dropped the stream.
    Abandoned,
    Closed,
    Deadline,
}

struct Guardian {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    deadline: Instant,
}

impl Guardian {
    async fn run(self, request: PieceRequest) {
        let mut stop = std::pin::pin!(self.stop());
        let Admission { place, room } = tokio::select! {
            biased;
            stop = &mut stop => return self.end(&stop),
            admission = self.shared.lanes.admit(&request) => admission,
        };
        self.mailbox.reserve(room);
        let id = match self.shared.register(&request, &self.mailbox) {
            Ok(id) => id,
            Err(error) => return self.mailbox.finish(Err(error)),
        };
        // The parent's clock starts when the request arrives: what was spent here is spent.
        let deadline = self.deadline.saturating_duration_since(Instant::now());
        let request = PieceRequest { deadline, ..request };
        tokio::select! {
            biased;
            stop = &mut stop => {
                self.shared.unregister(id);
                return self.end(&stop);
            }
            _ = self.shared.outgoing.send(Frame::Request { id, request }) => {}
        }
        self.shared.counters.requests.add(1);
        tokio::select! {
            biased;
            () = self.mailbox.ended() => {}
            stop = &mut stop => {
                if self.shared.unregister(id) {
                    self.cancel(id).await;
                }
                return self.end(&stop);
            }
        }
        drop(place);
        tokio::select! {
            biased;
            () = self.mailbox.settled() => {}
            () = tokio::time::sleep_until(self.deadline) => self.mailbox.expire(),
        }
    }

    async fn stop(&self) -> Stop {
        tokio::select! {
            biased;
            () = self.mailbox.settled() => Stop::Abandoned,
            () = self.shared.closed.cancelled() => Stop::Closed,
            () = tokio::time::sleep_until(self.deadline) => Stop::Deadline,
        }
    }

    fn end(&self, stop: &Stop) {
        match stop {
            Stop::Abandoned => {}
            Stop::Closed => self.mailbox.finish(Err(self.shared.disconnected())),
            Stop::Deadline => self.mailbox.expire(),
        }
    }

    /// Tells the parent. The guardian's place is kept until then, so that the parent never sees more
    /// requests than are allowed.
    async fn cancel(&self, id: u32) {
        self.shared.counters.cancelled.add(1);
        tokio::select! {
            biased;
            () = self.shared.closed.cancelled() => {}
            _ = self.shared.outgoing.send(Frame::Cancel { id }) => {}
        }
    }
}
