//! The one place where an answering connection's bytes leave, and where their rate is kept.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::dial::Link;
use crate::limits::Slot;
use crate::wire::codec::{Delivery, Probe};
use crate::wire::frame::{Carried, Encoded};
use crate::wire::message::Codec;

/// Bytes taken from the rate at a time, so that connections alternate.
const QUANTUM: usize = 64 << 10;
/// Time for a last word.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// What a segment holds until it is written: its slot, and whom to tell.
type Held = (Arc<Slot>, oneshot::Sender<()>);

/// A part of an answer.
pub(super) struct Item {
    frame: Encoded,
    /// Cancelled when nobody wants it any more.
    unwanted: Option<CancellationToken>,
    held: Option<Held>,
    probe: Probe,
}

impl Item {
    /// The end of an answer.
    pub(super) fn end(frame: Encoded) -> Self {
        Self { frame, unwanted: None, held: None, probe: Probe::Useless }
    }

    /// A segment, which is to tell the rate of the link or not.
    pub(super) fn segment(
        (frame, probe): (Encoded, Probe),
        unwanted: CancellationToken,
        held: Held,
    ) -> Self {
        Self { frame, unwanted: Some(unwanted), held: Some(held), probe }
    }

    fn is_unwanted(&self) -> bool {
        self.unwanted.as_ref().is_some_and(CancellationToken::is_cancelled)
    }
}

/// Writes one connection.
pub(super) struct Writer {
    server: Arc<Shared>,
    link: WriteHalf<Box<dyn Link>>,
    delivery: Arc<Delivery>,
    over: CancellationToken,
}

impl Writer {
    pub(super) fn new(
        server: Arc<Shared>,
        link: WriteHalf<Box<dyn Link>>,
        delivery: Arc<Delivery>,
        over: CancellationToken,
    ) -> Self {
        Self { server, link, delivery, over }
    }

    /// Writes until the connection is over, small frames first; ends the connection when it cannot.
    pub(super) async fn run(
        mut self,
        mut control: mpsc::Receiver<Encoded>,
        mut data: mpsc::Receiver<Item>,
    ) {
        let over = self.over.clone();
        let between_frames = loop {
            let written = tokio::select! {
                biased;
                () = over.cancelled() => break true,
                Some(frame) = control.recv() => {
                    self.server.rate.charge(frame.remaining() as u64);
                    tokio::select! {
                        biased;
                        written = self.write(frame) => written,
                        () = over.cancelled() => break false,
                    }
                }
                Some(item) = data.recv() => tokio::select! {
                    biased;
                    written = self.write_item(item) => written,
                    () = over.cancelled() => break false,
                },
                else => break true,
            };
            let written = match written {
                Ok(()) if control.is_empty() && data.is_empty() => self.flush().await,
                written => written,
            };
            if written.is_err() {
                break false;
            }
        };
        over.cancel();
        // Whoever waits for the writer finds out now, not after the last words.
        drop(data);
        control.close();
        let last_words = async {
            while between_frames && let Ok(frame) = control.try_recv() {
                if self.write(frame).await.is_err() {
                    break;
                }
            }
            let _ = self.link.shutdown().await;
        };
        let _ = tokio::time::timeout(GOODBYE_WITHIN, last_words).await;
    }

    async fn write_item(&mut self, item: Item) -> io::Result<()> {
        if item.is_unwanted() {
            return Ok(());
        }
        let Item { mut frame, held, probe, .. } = item;
        // From here on it is the link that is waited for, or what holds it below its rate.
        let wanted = probe == Probe::Wanted;
        if let Some(ping) = self.delivery.sends(frame.remaining() as u64, wanted) {
            frame.followed_by_ping(ping);
        }
        while frame.has_remaining() {
            let mut part = frame.remaining();
            if self.server.rate.rate().is_some() {
                part = part.min(QUANTUM);
                self.server.rate.take(part as u64).await;
            }
            self.write_part(&mut frame, part).await?;
        }
        self.count(frame.carried());
        if let Some((_, written)) = held {
            // Nobody waits when the answer was given up.
            let _ = written.send(());
        }
        Ok(())
    }

    fn count(&self, carried: Carried) {
        let counters = &self.server.counters;
        counters.payload_sent.add(carried.content);
        counters.encoded_sent.add(carried.payload);
        let groups = match carried.codec {
            Codec::Raw => &counters.raw_groups_sent,
            Codec::Zstd => &counters.zstd_groups_sent,
        };
        groups.add(carried.groups);
    }

    async fn write(&mut self, mut frame: Encoded) -> io::Result<()> {
        let all = frame.remaining();
        self.write_part(&mut frame, all).await
    }

    /// Writes `bytes` of a frame from where they lie.
    async fn write_part(&mut self, frame: &mut Encoded, bytes: usize) -> io::Result<()> {
        let stall = self.server.options.stall_after;
        let mut part = frame.take(bytes);
        while part.has_remaining() {
            let write = self.link.write_buf(&mut part);
            let written = match tokio::time::timeout(stall, write).await {
                Ok(written) => written?,
                Err(_) => return Err(self.stalled()),
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.server.counters.wire_sent.add(written);
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        let stall = self.server.options.stall_after;
        match tokio::time::timeout(stall, self.link.flush()).await {
            Ok(flushed) => flushed,
            Err(_) => Err(self.stalled()),
        }
    }

    fn stalled(&self) -> io::Error {
        self.server.counters.stalls.add(1);
        io::ErrorKind::TimedOut.into()
    }
}
