//! The piece plane: groups of tasks between hosts over persistent, pipelined connections (design §6).
//!
//! ```text
//! child                                   parent
//! Pool ── Connection ── frames ──────────▶ PieceServer ── Provider
//!           │  one guardian per request       │  one task per request
//!           ▼                                 ▼
//!         Segments (stream, bounded)        UploadSlots, RateLimiter, one writer
//! ```
//!
//! The side that dialled asks, the side that accepted answers; two hosts that take from each other keep
//! two connections. Invariants:
//! - a request ends exactly once: with its last segment, a refusal, its deadline, or the connection's end;
//! - memory is bounded before bytes are asked for: a child reserves room for a whole request, a parent
//!   pulls a segment only when it may send it (or holds one of few places to wait for it);
//! - whatever arrives is checked against its bounds before anything is allocated, and a peer that breaks
//!   the protocol loses its connection;
//! - nothing here decides whether bytes are right: segments carry proofs, the receiver decodes and verifies them
//!   (`codec`).
//!
//! Nothing is kept: when the process dies, the other side sees a lost connection.

mod codec;
mod connection;
mod counters;
mod error;
mod exchange;
mod frame;
mod hello;
mod io;
mod message;
mod pool;
mod server;
#[cfg(test)]
mod tests;

pub use codec::{Compression, DecodeError};
pub use connection::{Connection, ConnectionOptions, HaveWatch, Holding, Segments};
pub use counters::{WireCounters, WireNumbers};
pub use error::{ConnectError, PieceError};
pub use frame::{
    FrameError, MAX_CREDENTIALS, MAX_DATA_GROUPS, MAX_GRANT, MAX_REQUEST_GROUPS, MAX_RUNS,
    count_frames,
};
pub use hello::LocalHost;
pub use message::{
    Codec, Codecs, ErrorCode, HaveUpdate, PeerIdentity, PieceRequest, Refusal, SealedCredentials,
    Segment, WatchRequest,
};
pub use pool::{Pool, PoolOptions};
pub use server::{HaveStream, PieceServer, Provider, Ready, SegmentStream, ServerOptions};
