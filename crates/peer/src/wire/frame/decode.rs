//! Reading frames. Nothing is copied but texts: digests, proofs and payload are slices of the body.

use std::time::Duration;

use bytes::{Buf, Bytes, TryGetError};
use dfs_model::{GroupRange, HostId, Priority, TaskId, is_hidden};

use super::{
    FETCH, FULL, Frame, FrameError, GONE, HAS_CREDENTIALS, HAS_LENGTH, Header, Hello, Kind, LAST,
    MAGIC, MAX_NAME, MAX_RUNS, MAX_TEXT, SNAPSHOT, WANT_SIGNED, check_grant, check_request,
    check_runs, check_segment,
};
use crate::wire::message::{
    Codec, Codecs, ErrorCode, HaveUpdate, PieceRequest, Refusal, SealedCredentials, Segment,
    WatchRequest,
};

impl From<TryGetError> for FrameError {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

/// Decodes the body of a frame whose header passed [`Header::check`].
pub(in crate::wire) fn decode(
    kind: Kind,
    header: &Header,
    mut body: Bytes,
) -> Result<Frame, FrameError> {
    let flags = header.flags;
    let id = header.id;
    let body_ref = &mut body;
    let frame = match kind {
        // A later version may say more in its hello.
        Kind::Hello => return decode_hello(body_ref).map(Frame::Hello),
        Kind::Request => Frame::Request { id, request: decode_request(flags, body_ref)? },
        Kind::Data => decode_data(id, flags, body_ref)?,
        Kind::Error => decode_error(id, body_ref)?,
        Kind::Cancel => Frame::Cancel { id },
        Kind::Watch => decode_watch(body_ref)?,
        Kind::Unwatch => Frame::Unwatch { task: task(body_ref)? },
        Kind::Have => decode_have(flags, body_ref)?,
        Kind::Ping => Frame::Ping { id },
        Kind::Pong => Frame::Pong { id },
        Kind::Goodbye => Frame::Goodbye { reason: text(body_ref, MAX_TEXT)? },
    };
    if body.has_remaining() {
        return Err(FrameError::Malformed("bytes after the end of a message"));
    }
    Ok(frame)
}

fn take(body: &mut Bytes, length: usize) -> Result<Bytes, FrameError> {
    if body.remaining() < length {
        return Err(FrameError::Truncated);
    }
    Ok(body.split_to(length))
}

fn array<const N: usize>(body: &mut Bytes) -> Result<[u8; N], FrameError> {
    let mut bytes = [0; N];
    body.try_copy_to_slice(&mut bytes)?;
    Ok(bytes)
}

fn task(body: &mut Bytes) -> Result<TaskId, FrameError> {
    array(body).map(TaskId::from_bytes)
}

/// A text with its length in front.
fn text(body: &mut Bytes, limit: usize) -> Result<String, FrameError> {
    let length = usize::from(body.try_get_u16_le()?);
    sized_text(body, length, limit)
}

/// Texts are for people only and end up in logs and terminals: what is not UTF-8 is replaced, and so are
/// control characters.
fn sized_text(body: &mut Bytes, length: usize, limit: usize) -> Result<String, FrameError> {
    if length > limit {
        return Err(FrameError::Malformed("a text beyond its bound"));
    }
    let text = take(body, length)?;
    Ok(String::from_utf8_lossy(&text).replace(is_hidden, " "))
}

fn decode_hello(body: &mut Bytes) -> Result<Hello, FrameError> {
    if array(body)? != MAGIC {
        return Err(FrameError::Malformed("not a greeting of the piece protocol"));
    }
    let version = body.try_get_u16_le()?;
    if version == 0 {
        return Err(FrameError::Malformed("there is no version 0"));
    }
    let name_length = usize::from(body.try_get_u16_le()?);
    let capabilities = body.try_get_u64_le()?;
    let host = HostId::from_bytes(array(body)?);
    let name = sized_text(body, name_length, MAX_NAME)?;
    Ok(Hello { version, capabilities, host, name })
}

fn decode_request(flags: u8, body: &mut Bytes) -> Result<PieceRequest, FrameError> {
    let task = task(body)?;
    let first = body.try_get_u64_le()?;
    let count = u64::from(body.try_get_u32_le()?);
    let priority = Priority::from_wire(body.try_get_u8()?);
    let codecs = Codecs(body.try_get_u8()?);
    let grant_length = usize::from(body.try_get_u16_le()?);
    let deadline = Duration::from_millis(u64::from(body.try_get_u32_le()?.max(1)));
    let grant = take(body, grant_length)?;
    let rest = if flags & HAS_CREDENTIALS == 0 { 0 } else { body.remaining() };
    let credentials = SealedCredentials(take(body, rest)?);
    let request = PieceRequest {
        task,
        groups: GroupRange::new(first, count),
        priority,
        codecs,
        want_signed: flags & WANT_SIGNED != 0,
        fetch: flags & FETCH != 0,
        grant,
        credentials,
        deadline,
    };
    check_request(&request)?;
    Ok(request)
}

fn decode_data(id: u32, flags: u8, body: &mut Bytes) -> Result<Frame, FrameError> {
    let first = body.try_get_u64_le()?;
    let count = body.try_get_u16_le()?;
    let codec = match body.try_get_u8()? {
        0 => Codec::Raw,
        1 => Codec::Zstd,
        _ => return Err(FrameError::Malformed("an encoding that nobody asked for")),
    };
    let batches = usize::from(body.try_get_u8()?);
    let stated = body.try_get_u64_le()?;
    let length = (flags & HAS_LENGTH != 0).then_some(stated);
    let proof_length = body.try_get_u32_le()? as usize;
    let payload_length = body.try_get_u32_le()? as usize;
    let mut lengths = take(body, 4 * batches)?;
    let mut signed = Vec::with_capacity(batches);
    while let Ok(length) = lengths.try_get_u32_le() {
        signed.push(take(body, length as usize)?);
    }
    let proof = take(body, proof_length)?;
    let payload = take(body, payload_length)?;
    let segment = Segment { first, count, length, signed, proof, codec, payload };
    check_segment(&segment)?;
    Ok(Frame::Data { id, segment, last: flags & LAST != 0 })
}

fn decode_error(id: u32, body: &mut Bytes) -> Result<Frame, FrameError> {
    let code = ErrorCode::from_wire(body.try_get_u8()?);
    Ok(Frame::Error { id, refusal: Refusal { code, text: text(body, MAX_TEXT)? } })
}

fn decode_watch(body: &mut Bytes) -> Result<Frame, FrameError> {
    let task = task(body)?;
    let grant_length = usize::from(body.try_get_u16_le()?);
    let grant = take(body, grant_length)?;
    check_grant(&grant)?;
    Ok(Frame::Watch(WatchRequest { task, grant }))
}

fn decode_have(flags: u8, body: &mut Bytes) -> Result<Frame, FrameError> {
    let task = task(body)?;
    let stated = body.try_get_u64_le()?;
    let runs = body.try_get_u32_le()? as usize;
    if runs > MAX_RUNS {
        return Err(FrameError::Malformed("too many runs of groups"));
    }
    let mut groups = Vec::with_capacity(runs);
    for _ in 0..runs {
        groups.push(GroupRange::new(body.try_get_u64_le()?, body.try_get_u64_le()?));
    }
    if flags & GONE != 0 {
        return Ok(Frame::Gone { task });
    }
    let update = HaveUpdate {
        length: (flags & HAS_LENGTH != 0).then_some(stated),
        full: flags & FULL != 0,
        snapshot: flags & SNAPSHOT != 0,
        groups,
    };
    check_runs(&update)?;
    Ok(Frame::Have { task, update })
}
