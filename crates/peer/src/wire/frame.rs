//! Frames: the bytes on the wire, their bounds, and how they are written and read.
//!
//! A frame is a header of [`HEADER_BYTES`] and a body; all numbers are little-endian.
//!
//! ```text
//! type u8 │ flags u8 │ 0 u16 │ body length u32 │ request id u32 │ body …
//!
//! request: task 32 │ first group u64 │ groups u32 │ priority u8 │ encodings accepted u8 │ grant length u16 │
//!          deadline ms u32 │ grant │ credentials
//! data:    first group u64 │ groups u16 │ encoding u8 │ batches u8 │ content length u64 │ proof length u32 │
//!          payload length u32 │ length u32 of each batch │ batches │ proof │ payload
//! ```
//! An encoding is 0, the bytes themselves, or 1, zstd: bit 1 << encoding of those accepted, and 0 always is. One that
//! was not accepted, and a payload that is not shorter for it, break the protocol.
//!
//! Every length is bounded before anything is allocated for it. A type this version does not know is
//! skipped when it carries [`SKIPPABLE`], and breaks the protocol otherwise. The layout is frozen by test
//! vectors; it changes only together with [`VERSION`], which the hello negotiates.

use bytes::Bytes;
use dfs_model::{GROUP_BYTES, HostId, TaskId};

use super::message::{Codec, HaveUpdate, PieceRequest, Refusal, Segment, WatchRequest};

mod decode;
mod encode;
#[cfg(test)]
mod vectors;

pub(super) use decode::decode;
pub(super) use encode::{Carried, Encoded, encode};

/// The version of the protocol that this code speaks.
pub(super) const VERSION: u16 = 1;
/// First bytes of a hello.
pub(super) const MAGIC: [u8; 8] = *b"dfspiece";
/// Bytes of a frame before its body.
pub(super) const HEADER_BYTES: usize = 12;
/// Most groups in one request: 16 MiB.
pub const MAX_REQUEST_GROUPS: u64 = 256;
/// Most groups in one data frame: 1 MiB.
pub const MAX_DATA_GROUPS: u16 = 16;
/// Most bytes in a grant.
pub const MAX_GRANT: usize = 1024;
/// Most bytes in the credentials of a request.
pub const MAX_CREDENTIALS: usize = 64 << 10;
/// Most runs of groups in one frame that says what a host holds.
pub const MAX_RUNS: usize = 4096;
/// Most bytes of text in an error or a goodbye.
pub(super) const MAX_TEXT: usize = 512;
/// Most bytes in the name of a host.
pub(super) const MAX_NAME: usize = 255;
/// Most bytes in the proof of one segment.
pub(super) const MAX_PROOF: usize = 64 << 10;
/// Most bytes in the signed digests of one segment.
pub(super) const MAX_SIGNED: usize = 512 << 10;
/// Groups are numbered below this, so that every byte offset fits 63 bits.
pub(super) const GROUP_LIMIT: u64 = (1 << 63) / GROUP_BYTES;

/// Frames with this flag may be skipped by those who do not know their type.
pub(super) const SKIPPABLE: u8 = 0x80;
/// Longest body that is skipped.
const MAX_SKIPPED: usize = 1 << 20;

const WANT_SIGNED: u8 = 0x01;
const FETCH: u8 = 0x02;
const HAS_CREDENTIALS: u8 = 0x04;
const LAST: u8 = 0x01;
const HAS_LENGTH: u8 = 0x02;
const FULL: u8 = 0x01;
const SNAPSHOT: u8 = 0x04;
const GONE: u8 = 0x08;

const HELLO_FIXED: usize = 36;
const REQUEST_FIXED: usize = 52;
const DATA_FIXED: usize = 28;
const HAVE_FIXED: usize = 44;
const WATCH_FIXED: usize = 34;

/// Bytes that are not a frame of this protocol, or a message that is too big for one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A type of frame that is unknown, or that this side never takes.
    #[error("a frame of type {0} is not expected here")]
    Unexpected(u8),
    /// A body beyond its bound.
    #[error("a frame of type {kind} with {length} bytes: at most {limit} are allowed")]
    TooLong {
        /// Type of the frame.
        kind: u8,
        /// Length stated.
        length: usize,
        /// Bound.
        limit: usize,
    },
    /// A body that ends too early.
    #[error("a frame is cut short")]
    Truncated,
    /// A field outside its bounds or in contradiction to others.
    #[error("a frame breaks the protocol: {0}")]
    Malformed(&'static str),
}

/// Types of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Kind {
    Hello = 1,
    Request = 2,
    Data = 3,
    Error = 4,
    Cancel = 5,
    Watch = 6,
    Unwatch = 7,
    Have = 8,
    Ping = 9,
    Pong = 10,
    Goodbye = 11,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Hello,
        Self::Request,
        Self::Data,
        Self::Error,
        Self::Cancel,
        Self::Watch,
        Self::Unwatch,
        Self::Have,
        Self::Ping,
        Self::Pong,
        Self::Goodbye,
    ];

    fn max_body(self) -> usize {
        match self {
            Self::Hello => 4096,
            Self::Request => REQUEST_FIXED + MAX_GRANT + MAX_CREDENTIALS,
            Self::Data => {
                let payload = usize::from(MAX_DATA_GROUPS) * GROUP_BYTES as usize;
                DATA_FIXED + 4 * 255 + MAX_SIGNED + MAX_PROOF + payload
            }
            Self::Error => 3 + MAX_TEXT,
            Self::Watch => WATCH_FIXED + MAX_GRANT,
            Self::Unwatch => TaskId::LEN,
            Self::Have => HAVE_FIXED + 16 * MAX_RUNS,
            Self::Cancel | Self::Ping | Self::Pong => 0,
            Self::Goodbye => 2 + MAX_TEXT,
        }
    }
}

/// The fixed start of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) length: u32,
    pub(super) id: u32,
}

impl Header {
    pub(super) fn parse(bytes: [u8; HEADER_BYTES]) -> Self {
        let [kind, flags, _, _, l0, l1, l2, l3, i0, i1, i2, i3] = bytes;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        Self { kind, flags, length, id: u32::from_le_bytes([i0, i1, i2, i3]) }
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.kind;
        bytes[1] = self.flags;
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.id.to_le_bytes());
        bytes
    }

    pub(super) fn length(&self) -> usize {
        self.length as usize
    }

    /// The type of the frame, its length being within the type's bound; `None` when it is to be skipped.
    pub(super) fn check(&self) -> Result<Option<Kind>, FrameError> {
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == self.kind);
        if kind.is_none() && self.flags & SKIPPABLE == 0 {
            return Err(FrameError::Unexpected(self.kind));
        }
        let limit = kind.map_or(MAX_SKIPPED, Kind::max_body);
        if self.length() > limit {
            return Err(FrameError::TooLong { kind: self.kind, length: self.length(), limit });
        }
        Ok(kind)
    }
}

/// First frame of both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version: u16,
    pub(super) capabilities: u64,
    pub(super) host: HostId,
    pub(super) name: String,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Hello(Hello),
    Request {
        id: u32,
        request: PieceRequest,
    },
    Data {
        id: u32,
        segment: Segment,
        last: bool,
    },
    Error {
        id: u32,
        refusal: Refusal,
    },
    Cancel {
        id: u32,
    },
    Watch(WatchRequest),
    Unwatch {
        task: TaskId,
    },
    Have {
        task: TaskId,
        update: HaveUpdate,
    },
    /// The host does not hold the task, or not any more, or does not tell.
    Gone {
        task: TaskId,
    },
    Ping {
        id: u32,
    },
    Pong {
        id: u32,
    },
    Goodbye {
        reason: String,
    },
}

/// How many frames stand in `bytes`, one behind the other as on a link, those included that are to be skipped. Payloads
/// are decoded, and may not be what they say: that is found out by who verifies.
pub fn count_frames(bytes: &[u8]) -> Result<usize, FrameError> {
    let (mut rest, mut count) = (bytes, 0);
    while !rest.is_empty() {
        let (header, behind) = rest.split_first_chunk().ok_or(FrameError::Truncated)?;
        let header = Header::parse(*header);
        let kind = header.check()?;
        let (body, next) = behind.split_at_checked(header.length()).ok_or(FrameError::Truncated)?;
        let frame = kind.map(|kind| decode(kind, &header, Bytes::copy_from_slice(body)));
        if let Some(Frame::Data { segment, .. }) = frame.transpose()? {
            let content = segment.content_bytes();
            if let Ok(decoded) = segment.decoded() {
                assert_eq!(decoded.payload.len() as u64, content, "no byte more, none less");
            }
        }
        (rest, count) = (next, count + 1);
    }
    Ok(count)
}

/// Whether the groups of a segment and its payload fit together.
fn check_segment(segment: &Segment) -> Result<(), FrameError> {
    let malformed = |what| Err(FrameError::Malformed(what));
    let count = u64::from(segment.count);
    if segment.count > MAX_DATA_GROUPS || segment.first > GROUP_LIMIT - count {
        return malformed("too many groups in a segment");
    }
    let most = count * GROUP_BYTES;
    let content = segment.content_bytes();
    let least = if count == 0 { 0 } else { most - GROUP_BYTES + 1 };
    if content < least || content > most {
        return malformed("a payload that does not fill its groups");
    }
    if segment.codec != Codec::Raw && segment.payload.len() as u64 >= content {
        return malformed("an encoding that makes nothing shorter");
    }
    if segment.proof.len() > MAX_PROOF {
        return malformed("a proof beyond its bound");
    }
    if segment.signed.len() > 255 || segment.extras() - segment.proof.len() > MAX_SIGNED {
        return malformed("signed digests beyond their bound");
    }
    Ok(())
}

fn check_request(request: &PieceRequest) -> Result<(), FrameError> {
    let groups = request.groups;
    if groups.count == 0 || groups.count > MAX_REQUEST_GROUPS {
        return Err(FrameError::Malformed("a request for no groups, or for too many"));
    }
    if groups.first > GROUP_LIMIT - groups.count {
        return Err(FrameError::Malformed("groups beyond any content"));
    }
    if request.credentials.0.len() > MAX_CREDENTIALS {
        return Err(FrameError::Malformed("credentials beyond their bound"));
    }
    check_grant(&request.grant)
}

fn check_grant(grant: &Bytes) -> Result<(), FrameError> {
    if grant.len() > MAX_GRANT {
        return Err(FrameError::Malformed("a grant beyond its bound"));
    }
    Ok(())
}

fn check_runs(update: &HaveUpdate) -> Result<(), FrameError> {
    if update.groups.len() > MAX_RUNS {
        return Err(FrameError::Malformed("too many runs of groups"));
    }
    let mut next = 0;
    for run in &update.groups {
        let fits =
            run.count > 0 && run.count <= GROUP_LIMIT && run.first <= GROUP_LIMIT - run.count;
        if !fits || run.first < next {
            return Err(FrameError::Malformed("runs of groups that are not ascending"));
        }
        next = run.end();
    }
    Ok(())
}
