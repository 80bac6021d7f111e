//! Reads what the parent sends. It waits for the link alone, so no request can hold up another.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::ReadHalf;
use tokio::time::Instant;

use super::{ConnectionOptions, Shared};
use crate::dial::Link;
use crate::wire::frame::{Frame, FrameError, Header, Kind};
use crate::wire::io::{FrameReader, ReadError, Verdict};

/// Reads until the connection is over, and closes it.
pub(super) async fn run(
    shared: Arc<Shared>,
    reader: FrameReader<ReadHalf<Box<dyn Link>>>,
    options: ConnectionOptions,
) {
    let reason = tokio::select! {
        biased;
        () = shared.closed.cancelled() => None,
        reason = read(&shared, reader, &options) => Some(reason),
    };
    if let Some(reason) = reason {
        shared.close(&reason);
    }
    shared.counters.open.sub(1);
}

/// Why nothing more can be read.
async fn read(
    shared: &Shared,
    mut reader: FrameReader<ReadHalf<Box<dyn Link>>>,
    options: &ConnectionOptions,
) -> String {
    let mut goodbye = None;
    let mut silence = Silence::since(reader.bytes_read());
    loop {
        let next = reader.next(|kind, header| judge(shared, kind, header));
        let look = options.owing.min(options.keepalive);
        let frame = match tokio::time::timeout(look, next).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return goodbye.unwrap_or_else(|| "the peer closed it".to_owned()),
            Ok(Err(ReadError::Io(error))) => return format!("reading failed: {error}"),
            Ok(Err(ReadError::Frame(error))) => return violation(shared, &error),
            Err(_) => {
                let bound = if shared.is_owed() { options.owing } else { options.keepalive };
                match silence.look(reader.bytes_read(), bound) {
                    Sign::Enough => {}
                    Sign::Asked => {
                        // A full queue is a sign of life asked for already.
                        let _ = shared.outgoing.try_send(Frame::Ping { id: 0 });
                    }
                    Sign::Missing => {
                        shared.counters.stalls.add(1);
                        return "the peer fell silent".to_owned();
                    }
                }
                continue;
            }
        };
        silence = Silence::since(reader.bytes_read());
        match take(shared, frame) {
            Ok(None) => {}
            Ok(Some(reason)) => {
                shared.drain();
                goodbye = Some(format!("the peer said goodbye: {reason}"));
            }
            Err(error) => return violation(shared, &error),
        }
    }
}

/// Since when nothing was read, and since when a sign of life has been asked for.
struct Silence {
    heard: u64,
    since: Instant,
    asked: Option<Instant>,
}

/// What silence calls for.
enum Sign {
    /// Nothing yet.
    Enough,
    /// To ask for one.
    Asked,
    /// Nothing more: none came.
    Missing,
}

impl Silence {
    fn since(heard: u64) -> Self {
        Self { heard, since: Instant::now(), asked: None }
    }

    /// Looks, `read` bytes having been read by now: so much silence is borne before and after a question.
    fn look(&mut self, read: u64, bound: Duration) -> Sign {
        if read != self.heard {
            *self = Self::since(read);
            return Sign::Enough;
        }
        match self.asked {
            Some(asked) if asked.elapsed() >= bound => Sign::Missing,
            None if self.since.elapsed() >= bound => {
                self.asked = Some(Instant::now());
                Sign::Asked
            }
            _ => Sign::Enough,
        }
    }
}

fn violation(shared: &Shared, error: &FrameError) -> String {
    shared.counters.violations.add(1);
    error.to_string()
}

/// Judges a frame before memory is spent on it.
fn judge(shared: &Shared, kind: Kind, header: &Header) -> Result<Verdict, FrameError> {
    match kind {
        Kind::Data if !shared.expects(header.id)? => {
            shared.counters.payload_wasted.add(header.length());
            Ok(Verdict::Skip)
        }
        Kind::Data | Kind::Have | Kind::Ping | Kind::Pong | Kind::Goodbye => Ok(Verdict::Take),
        Kind::Error => shared.expects(header.id).map(|_| Verdict::Take),
        Kind::Hello | Kind::Request | Kind::Cancel | Kind::Watch | Kind::Unwatch => {
            Err(FrameError::Unexpected(kind as u8))
        }
    }
}

/// Hands a frame on; the peer's last words, if these are they.
fn take(shared: &Shared, frame: Frame) -> Result<Option<String>, FrameError> {
    match frame {
        Frame::Data { id, segment, last } => shared.deliver(id, segment, last)?,
        Frame::Error { id, refusal } => shared.refuse(id, refusal),
        Frame::Have { task, update } => shared.watches.apply(task, &update),
        Frame::Gone { task } => shared.watches.end(task),
        Frame::Ping { id } => {
            // Not waiting for room: a peer that floods pings may miss an answer.
            let _ = shared.outgoing.try_send(Frame::Pong { id });
        }
        Frame::Goodbye { reason } => return Ok(Some(reason)),
        _ => {}
    }
    Ok(None)
}
