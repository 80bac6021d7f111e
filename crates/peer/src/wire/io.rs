//! Frames from and to a link.

use std::io;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::counters::WireCounters;
use super::frame::{Frame, FrameError, HEADER_BYTES, Header, Kind, decode};

/// Bytes asked of the link at a time between large bodies.
const READ_BYTES: usize = 16 << 10;
/// Bodies up to this length come out of the read buffer; longer ones get memory of their own.
const SMALL_BODY: usize = 8 << 10;

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// What to do with a frame, judged by its header before its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    Skip,
}

#[derive(Debug)]
enum Stage {
    Header,
    Body { kind: Kind, header: Header, body: BytesMut },
    Skip { left: usize },
}

/// Reads frames. Giving up a read loses nothing: the next one goes on where it stopped.
pub(super) struct FrameReader<R> {
    input: R,
    buffer: BytesMut,
    stage: Stage,
    counters: Arc<WireCounters>,
    bytes_read: u64,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(input: R, counters: Arc<WireCounters>) -> Self {
        let buffer = BytesMut::new();
        Self { input, buffer, stage: Stage::Header, counters, bytes_read: 0 }
    }

    /// Bytes read so far: tells a slow peer from a silent one.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The next frame that `judge` takes; `None` at the end of the link between two frames. `judge` may
    /// refuse a frame by its header, before anything is allocated for it.
    pub(super) async fn next(
        &mut self,
        mut judge: impl FnMut(Kind, &Header) -> Result<Verdict, FrameError>,
    ) -> Result<Option<Frame>, ReadError> {
        loop {
            match &mut self.stage {
                Stage::Header if self.buffer.len() >= HEADER_BYTES => self.begin(&mut judge)?,
                Stage::Header => {
                    if self.fill().await? == 0 {
                        return self.at_end();
                    }
                }
                Stage::Body { kind, header, body } if body.len() == header.length() => {
                    let frame = decode(*kind, header, std::mem::take(body).freeze())?;
                    self.stage = Stage::Header;
                    return Ok(Some(frame));
                }
                Stage::Body { .. } => self.read_body().await?,
                Stage::Skip { left: 0 } => self.stage = Stage::Header,
                Stage::Skip { left } => {
                    let skipped = self.buffer.len().min(*left);
                    *left -= skipped;
                    drop(self.buffer.split_to(skipped));
                    if *left > 0 && self.fill().await? == 0 {
                        return Err(cut_short());
                    }
                }
            }
        }
    }

    fn begin(
        &mut self,
        judge: &mut impl FnMut(Kind, &Header) -> Result<Verdict, FrameError>,
    ) -> Result<(), FrameError> {
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(&self.buffer.split_to(HEADER_BYTES));
        let header = Header::parse(bytes);
        let left = header.length();
        self.stage = match header.check()? {
            None => Stage::Skip { left },
            Some(kind) => match judge(kind, &header)? {
                Verdict::Skip => Stage::Skip { left },
                Verdict::Take => Stage::Body { kind, header, body: self.start_body(left) },
            },
        };
        Ok(())
    }

    /// What is buffered of a body. A large one gets exactly its memory, to be read into directly.
    fn start_body(&mut self, length: usize) -> BytesMut {
        if self.buffer.len() >= length && length <= SMALL_BODY {
            return self.buffer.split_to(length);
        }
        let mut body = BytesMut::with_capacity(length);
        body.put(self.buffer.split_to(self.buffer.len().min(length)));
        body
    }

    async fn read_body(&mut self) -> Result<(), ReadError> {
        let Stage::Body { header, body, .. } = &mut self.stage else { return Ok(()) };
        let missing = header.length() - body.len();
        let read = self.input.read_buf(&mut body.limit(missing)).await?;
        if read == 0 {
            return Err(cut_short());
        }
        self.count(read);
        Ok(())
    }

    async fn fill(&mut self) -> Result<usize, ReadError> {
        self.buffer.reserve(READ_BYTES);
        let read = self.input.read_buf(&mut (&mut self.buffer).limit(READ_BYTES)).await?;
        self.count(read);
        Ok(read)
    }

    fn count(&mut self, read: usize) {
        self.bytes_read += read as u64;
        self.counters.wire_received.add(read);
    }

    fn at_end(&self) -> Result<Option<Frame>, ReadError> {
        if self.buffer.is_empty() { Ok(None) } else { Err(cut_short()) }
    }
}

fn cut_short() -> ReadError {
    io::Error::from(io::ErrorKind::UnexpectedEof).into()
}
