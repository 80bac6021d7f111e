//! Writing frames. Payload, proofs and digests are passed on as they are, never copied.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dfs_model::TaskId;

use super::{
    DATA_FIXED, FETCH, FULL, Frame, FrameError, GONE, HAS_CREDENTIALS, HAS_LENGTH, HAVE_FIXED,
    HEADER_BYTES, HELLO_FIXED, Header, Hello, Kind, LAST, MAGIC, MAX_NAME, MAX_TEXT, REQUEST_FIXED,
    SNAPSHOT, WANT_SIGNED, WATCH_FIXED, check_grant, check_request, check_runs, check_segment,
};
use crate::wire::message::{
    Codec, HaveUpdate, PieceRequest, Refusal, SealedCredentials, Segment, WatchRequest,
};

/// A frame ready for a vectored write; what is written is consumed. None of its chunks is empty.
#[derive(Debug)]
pub(in crate::wire) struct Encoded {
    pub(super) chunks: VecDeque<Bytes>,
    carried: Carried,
}

/// What a frame carries of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::wire) struct Carried {
    /// Bytes of the content.
    pub(in crate::wire) content: usize,
    /// Bytes that they take.
    pub(in crate::wire) payload: usize,
    pub(in crate::wire) groups: usize,
    pub(in crate::wire) codec: Codec,
}

impl Carried {
    fn by(segment: &Segment) -> Self {
        Self {
            content: segment.content_bytes() as usize,
            payload: segment.payload.len(),
            groups: usize::from(segment.count),
            codec: segment.codec,
        }
    }
}

impl Encoded {
    fn whole(bytes: BytesMut) -> Self {
        Self { chunks: VecDeque::from([bytes.freeze()]), carried: Carried::default() }
    }

    /// What of a content is in the frame.
    pub(in crate::wire) fn carried(&self) -> Carried {
        self.carried
    }

    /// Has a ping written right behind it.
    pub(in crate::wire) fn followed_by_ping(&mut self, id: u32) {
        self.chunks.push_back(start(Kind::Ping, 0, 0, id).freeze());
    }
}

impl Buf for Encoded {
    fn remaining(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let filled = out.iter_mut().zip(&self.chunks);
        filled.map(|(slot, chunk)| *slot = IoSlice::new(chunk)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let chunk = self.chunks.front_mut().expect("advanced within what remains");
            if count < chunk.len() {
                return chunk.advance(count);
            }
            count -= chunk.len();
            self.chunks.pop_front();
        }
    }
}

/// Encodes a frame; an error names the bound that the message breaks. Texts are cut to their bound.
pub(in crate::wire) fn encode(frame: Frame) -> Result<Encoded, FrameError> {
    Ok(match frame {
        Frame::Hello(hello) => encode_hello(&hello),
        Frame::Request { id, request } => encode_request(id, &request)?,
        Frame::Data { id, segment, last } => encode_data(id, segment, last)?,
        Frame::Error { id, refusal } => encode_error(id, &refusal),
        Frame::Cancel { id } => Encoded::whole(start(Kind::Cancel, 0, 0, id)),
        Frame::Watch(watch) => encode_watch(&watch)?,
        Frame::Unwatch { task } => encode_unwatch(task),
        Frame::Have { task, update } => encode_have(task, &update)?,
        Frame::Gone { task } => encode_gone(task),
        Frame::Ping { id } => Encoded::whole(start(Kind::Ping, 0, 0, id)),
        Frame::Pong { id } => Encoded::whole(start(Kind::Pong, 0, 0, id)),
        Frame::Goodbye { reason } => encode_goodbye(&reason),
    })
}

/// A buffer for the frame that holds its header already. Callers keep `length` far below 4 GiB.
fn start(kind: Kind, flags: u8, length: usize, id: u32) -> BytesMut {
    let mut out = BytesMut::with_capacity(HEADER_BYTES + length);
    put_header(&mut out, kind, flags, length, id);
    out
}

fn put_header(out: &mut BytesMut, kind: Kind, flags: u8, length: usize, id: u32) {
    debug_assert!(length <= kind.max_body(), "{kind:?} of {length} bytes");
    let header = Header { kind: kind as u8, flags, length: length as u32, id };
    out.put_slice(&header.to_bytes());
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// The longest start of `text` that fits `limit` bytes.
fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

fn encode_hello(hello: &Hello) -> Encoded {
    let name = cut(&hello.name, MAX_NAME);
    let mut out = start(Kind::Hello, 0, HELLO_FIXED + name.len(), 0);
    out.put_slice(&MAGIC);
    out.put_u16_le(hello.version);
    out.put_u16_le(name.len() as u16);
    out.put_u64_le(hello.capabilities);
    out.put_slice(hello.host.as_bytes());
    out.put_slice(name.as_bytes());
    Encoded::whole(out)
}

fn encode_request(id: u32, request: &PieceRequest) -> Result<Encoded, FrameError> {
    check_request(request)?;
    let SealedCredentials(credentials) = &request.credentials;
    let flags = flag(request.want_signed, WANT_SIGNED)
        | flag(request.fetch, FETCH)
        | flag(!credentials.is_empty(), HAS_CREDENTIALS);
    let length = REQUEST_FIXED + request.grant.len() + credentials.len();
    let mut out = start(Kind::Request, flags, length, id);
    out.put_slice(request.task.as_bytes());
    out.put_u64_le(request.groups.first);
    out.put_u32_le(request.groups.count as u32);
    out.put_u8(request.priority as u8);
    out.put_u8(request.codecs.0);
    out.put_u16_le(request.grant.len() as u16);
    out.put_u32_le(u32::try_from(request.deadline.as_millis()).unwrap_or(u32::MAX).max(1));
    out.put_slice(&request.grant);
    // Last, so that who sends none sends what it always sent.
    out.put_slice(credentials);
    Ok(Encoded::whole(out))
}

fn encode_data(id: u32, segment: Segment, last: bool) -> Result<Encoded, FrameError> {
    check_segment(&segment)?;
    let carried = Carried::by(&segment);
    let payload = segment.payload.len();
    let batches = segment.signed.len();
    let fixed = DATA_FIXED + 4 * batches;
    let length = fixed + segment.extras() + payload;
    let flags = flag(last, LAST) | flag(segment.length.is_some(), HAS_LENGTH);
    let mut out = BytesMut::with_capacity(HEADER_BYTES + fixed);
    put_header(&mut out, Kind::Data, flags, length, id);
    out.put_u64_le(segment.first);
    out.put_u16_le(segment.count);
    out.put_u8(segment.codec as u8);
    out.put_u8(batches as u8);
    out.put_u64_le(segment.length.unwrap_or(0));
    out.put_u32_le(segment.proof.len() as u32);
    out.put_u32_le(payload as u32);
    for batch in &segment.signed {
        out.put_u32_le(batch.len() as u32);
    }
    let mut chunks = VecDeque::with_capacity(3 + batches);
    chunks.push_back(out.freeze());
    chunks.extend(segment.signed);
    chunks.push_back(segment.proof);
    chunks.push_back(segment.payload);
    chunks.retain(|chunk| !chunk.is_empty());
    Ok(Encoded { chunks, carried })
}

fn encode_error(id: u32, refusal: &Refusal) -> Encoded {
    let text = cut(&refusal.text, MAX_TEXT);
    let mut out = start(Kind::Error, 0, 3 + text.len(), id);
    out.put_u8(refusal.code as u8);
    out.put_u16_le(text.len() as u16);
    out.put_slice(text.as_bytes());
    Encoded::whole(out)
}

fn encode_watch(watch: &WatchRequest) -> Result<Encoded, FrameError> {
    check_grant(&watch.grant)?;
    let mut out = start(Kind::Watch, 0, WATCH_FIXED + watch.grant.len(), 0);
    out.put_slice(watch.task.as_bytes());
    out.put_u16_le(watch.grant.len() as u16);
    out.put_slice(&watch.grant);
    Ok(Encoded::whole(out))
}

fn encode_unwatch(task: TaskId) -> Encoded {
    let mut out = start(Kind::Unwatch, 0, TaskId::LEN, 0);
    out.put_slice(task.as_bytes());
    Encoded::whole(out)
}

fn encode_have(task: TaskId, update: &HaveUpdate) -> Result<Encoded, FrameError> {
    check_runs(update)?;
    let flags = flag(update.full, FULL)
        | flag(update.length.is_some(), HAS_LENGTH)
        | flag(update.snapshot, SNAPSHOT);
    let mut out = start(Kind::Have, flags, HAVE_FIXED + 16 * update.groups.len(), 0);
    out.put_slice(task.as_bytes());
    out.put_u64_le(update.length.unwrap_or(0));
    out.put_u32_le(update.groups.len() as u32);
    for run in &update.groups {
        out.put_u64_le(run.first);
        out.put_u64_le(run.count);
    }
    Ok(Encoded::whole(out))
}

fn encode_gone(task: TaskId) -> Encoded {
    let mut out = start(Kind::Have, GONE, HAVE_FIXED, 0);
    out.put_slice(task.as_bytes());
    out.put_u64_le(0);
    out.put_u32_le(0);
    Encoded::whole(out)
}

fn encode_goodbye(reason: &str) -> Encoded {
    let reason = cut(reason, MAX_TEXT);
    let mut out = start(Kind::Goodbye, 0, 2 + reason.len(), 0);
    out.put_u16_le(reason.len() as u16);
    out.put_slice(reason.as_bytes());
    Encoded::whole(out)
}
