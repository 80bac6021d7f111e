//! What the two sides say to each other, as types.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use dfs_model::{GroupRange, HostId, Priority, TaskId};

use crate::dial::PeerAddress;

/// Ways a payload may be encoded, as a set on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Codecs(pub u8);

impl Codecs {
    /// The bytes themselves: always accepted.
    pub const RAW: Self = Self(1);
    /// All that this version reads.
    pub const ALL: Self = Self(1 | 1 << Codec::Zstd as u8);

    /// Whether a payload may come so. Bits of later versions mean nothing here.
    pub fn has(self, codec: Codec) -> bool {
        codec == Codec::Raw || self.0 & (1 << codec as u8) != 0
    }
}

/// How a payload is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Codec {
    /// The bytes themselves.
    #[default]
    Raw = 0,
    /// One or more zstd frames that stand for exactly the bytes of the groups, and are shorter than these.
    Zstd = 1,
}

/// Secrets for an origin, opaque here: never printed, and kept by nobody on the way.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SealedCredentials(pub Bytes);

impl SealedCredentials {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SealedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "<redacted>" })
    }
}

/// A child's wish for a run of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceRequest {
    /// Of which task.
    pub task: TaskId,
    /// Which groups: one to [`super::MAX_REQUEST_GROUPS`].
    pub groups: GroupRange,
    /// How urgent.
    pub priority: Priority,
    /// Which encodings the child reads.
    pub codecs: Codecs,
    /// Send the signed digests that cover the groups too.
    pub want_signed: bool,
    /// The parent may go back to source for what it lacks (seeds do, others refuse).
    pub fetch: bool,
    /// The scheduler's word that this child may have this task; at most [`super::MAX_GRANT`] bytes.
    pub grant: Bytes,
    /// The child's own credentials for the origin, for a parent that asked for them by
    /// [`ErrorCode::Credentials`]; at most [`super::MAX_CREDENTIALS`] bytes.
    pub credentials: SealedCredentials,
    /// How long the whole answer is of use; milliseconds on the wire, from arrival there.
    pub deadline: Duration,
}

impl PieceRequest {
    /// A bulk request for groups that the parent is known to hold.
    pub fn new(task: TaskId, groups: GroupRange) -> Self {
        Self {
            task,
            groups,
            priority: Priority::Bulk,
            codecs: Codecs::RAW,
            want_signed: false,
            fetch: false,
            grant: Bytes::new(),
            credentials: SealedCredentials::default(),
            deadline: Duration::from_secs(30),
        }
    }
}

/// Some of the groups asked for, with what proves them.
///
/// Segments of one answer come in any order and never overlap. One of zero groups only carries news: the
/// length, or signed digests.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Segment {
    /// First group.
    pub first: u64,
    /// Number of groups, at most [`super::MAX_DATA_GROUPS`].
    pub count: u16,
    /// Length of the whole content in bytes, once it is known.
    pub length: Option<u64>,
    /// Signed digest batches, opaque here; at most 255. Equal ones go out once per answer.
    pub signed: Vec<Bytes>,
    /// Proof of the groups, opaque here.
    pub proof: Bytes,
    /// How `payload` is encoded; see [`Segment::decoded`].
    pub codec: Codec,
    /// The bytes: `count` whole groups, only the content's last group is shorter.
    pub payload: Bytes,
}

impl Segment {
    /// The groups in it.
    pub fn groups(&self) -> GroupRange {
        GroupRange::new(self.first, u64::from(self.count))
    }

    /// Bytes of content that the payload stands for. What is encoded says so by its groups and the length that
    /// it states, in whole groups where it states none.
    pub fn content_bytes(&self) -> u64 {
        match self.codec {
            Codec::Raw => self.payload.len() as u64,
            Codec::Zstd => self.groups().bytes(self.length.unwrap_or(u64::MAX)).len(),
        }
    }

    /// Bytes it carries beside the payload.
    pub fn extras(&self) -> usize {
        self.proof.len() + self.signed.iter().map(Bytes::len).sum::<usize>()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("groups", &self.groups())
            .field("length", &self.length)
            .field("signed", &self.signed.len())
            .field("proof_bytes", &self.proof.len())
            .field("codec", &self.codec)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

/// Why a parent does not give what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorCode {
    /// The task or the origin's object does not exist.
    NotFound = 1,
    /// This host does not hold these groups and may not fetch them.
    NotHeld = 2,
    /// Too much at once: come again later or go elsewhere.
    Busy = 3,
    /// This child may not have this task.
    Refused = 4,
    /// The request's time ran out.
    Deadline = 5,
    /// The origin has another version now: the task is over.
    OriginChanged = 6,
    /// The origin did not give the bytes; the text says why.
    OriginFailed = 7,
    /// Something broke on the parent's side.
    Internal = 8,
    /// The first group asked for lies in a member that the origin does not give; its neighbours may be well.
    Void = 9,
    /// The origin wants credentials, and the parent has none that suffice: the child may send its own.
    Credentials = 10,
}

impl ErrorCode {
    /// Reads a code off the wire; ones of later versions count as `Internal`.
    pub fn from_wire(code: u8) -> Self {
        match code {
            1 => Self::NotFound,
            2 => Self::NotHeld,
            3 => Self::Busy,
            4 => Self::Refused,
            5 => Self::Deadline,
            6 => Self::OriginChanged,
            7 => Self::OriginFailed,
            9 => Self::Void,
            10 => Self::Credentials,
            _ => Self::Internal,
        }
    }

    fn phrase(self) -> &'static str {
        match self {
            Self::NotFound => "there is no such content",
            Self::NotHeld => "the peer does not hold these groups",
            Self::Busy => "the peer is busy",
            Self::Refused => "the peer refused",
            Self::Deadline => "the peer could not answer in time",
            Self::OriginChanged => "origin changed",
            Self::OriginFailed => "the origin failed",
            Self::Internal => "the peer failed",
            Self::Void => "the origin does not give a member",
            Self::Credentials => "the peer has no credentials for the origin",
        }
    }
}

/// A parent's no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{text}", code.phrase(), if text.is_empty() { "" } else { ": " })]
pub struct Refusal {
    /// What kind of no.
    pub code: ErrorCode,
    /// Details for people; cut to 512 bytes on the wire, may be empty.
    pub text: String,
}

impl Refusal {
    /// A refusal with details.
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, text: String::new() }
    }
}

/// A child's wish to be told what a parent holds of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRequest {
    /// Of which task.
    pub task: TaskId,
    /// As in [`PieceRequest::grant`].
    pub grant: Bytes,
}

/// What a parent holds of a task: everything (`snapshot`), or what came since the last update.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HaveUpdate {
    /// Length of the whole content in bytes, once it is known.
    pub length: Option<u64>,
    /// It holds all of it; `groups` may then be empty.
    pub full: bool,
    /// Forget earlier updates.
    pub snapshot: bool,
    /// Runs of groups, ascending. Any number here; several frames on the wire.
    pub groups: Vec<GroupRange>,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its lasting name: checked against the certificate where there is one, claimed otherwise.
    pub host: HostId,
    /// Name for people.
    pub name: String,
    /// Where it is.
    pub address: PeerAddress,
    /// Protocol version both sides speak.
    pub version: u16,
    /// Capabilities it offers, as bits.
    pub capabilities: u64,
}
