//! Payloads that travel smaller than they are: raw or zstd, as the child accepts and the sender finds it quicker.
//!
//! ```text
//! parent                                                       child
//! Encoder ── Choice (per task: ratio, cost) ──▶ segment ─────▶ Segment::decoded ──▶ verified as ever
//!    ▲                                             │ ping behind it
//!    └──── Delivery (per connection: rate) ◀───────┴── pong
//! ```
//! What is compressed is one segment, by itself. Nothing here decides whether bytes are right: proofs are of the
//! content, and the child verifies what it decoded. Invariants:
//! - nothing is allocated by what a peer claims: a payload decodes into as many bytes as its groups have, and
//!   to exactly these or it is refused;
//! - an encoded payload is shorter than what it encodes, on the way out and on the way in.
//!
//! What was learnt is lost with the process, and learnt again from the first segments.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::frame::MAX_DATA_GROUPS;
use super::message::{Codec, Codecs, Segment};

mod choice;
mod delivery;
mod encoder;

pub(super) use delivery::Delivery;
pub(super) use encoder::{Encoder, Probe};

/// Whether a host compresses what it sends, and takes what is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Where samples of the content and the rate of the link say that it is quicker.
    #[default]
    Auto,
    /// Never, in either direction.
    Off,
}

impl Compression {
    /// What a host that is told so accepts.
    pub fn accepts(self) -> Codecs {
        match self {
            Self::Auto => Codecs::ALL,
            Self::Off => Codecs::RAW,
        }
    }
}

/// A payload that is not an encoding of its groups: whoever sent it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not what it says it is, or stands for more bytes than its groups have.
    #[error("it does not decode: {0}")]
    Corrupt(&'static str),
    /// It stands for fewer bytes than its groups have.
    #[error("it decodes to {found} bytes, where its groups have {wanted}")]
    Length {
        /// Bytes that came out.
        found: u64,
        /// Bytes of the groups.
        wanted: u64,
    },
}

/// The bytes compressed, where that makes them fewer. Blocks.
fn compress(bytes: &[u8], level: i32) -> Option<Bytes> {
    let mut out = Vec::with_capacity(bytes.len().saturating_sub(1));
    zstd::zstd_safe::compress(&mut out, bytes, level).ok()?;
    (out.len() < bytes.len()).then(|| out.into())
}

impl Segment {
    /// The same with the payload as it is in the content. Blocks.
    pub fn decoded(mut self) -> Result<Self, DecodeError> {
        if self.codec == Codec::Raw {
            return Ok(self);
        }
        if self.count > MAX_DATA_GROUPS {
            return Err(DecodeError::Corrupt("too many groups in a segment"));
        }
        let wanted = self.content_bytes();
        // At most a MiB, whatever the payload says of itself: a longer one does not fit, and is refused.
        let mut out = Vec::with_capacity(wanted as usize);
        zstd::zstd_safe::decompress(&mut out, &self.payload)
            .map_err(|code| DecodeError::Corrupt(zstd::zstd_safe::get_error_name(code)))?;
        let found = out.len() as u64;
        if found != wanted {
            return Err(DecodeError::Length { found, wanted });
        }
        (self.codec, self.payload) = (Codec::Raw, out.into());
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use dfs_model::GROUP_BYTES;
    use proptest::prelude::*;

    use super::*;

    /// A segment of a content of `length` bytes, compressed.
    fn zstd(first: u64, length: u64, content: &[u8], level: i32) -> Option<Segment> {
        let count = content.len().div_ceil(GROUP_BYTES as usize) as u16;
        let payload = compress(content, level)?;
        let codec = Codec::Zstd;
        Some(Segment { first, count, length: Some(length), codec, payload, ..Segment::default() })
    }

    /// Bytes of which about `share` in 256 repeat.
    fn mixed(seed: [u8; 32], share: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new_keyed(&seed).finalize_xof().fill(&mut bytes);
        for run in bytes.chunks_mut(64) {
            if run[0] < share {
                run.fill(b'a' + run[0] % 8);
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn whatever_is_compressed_reads_back_and_is_shorter(
            seed: [u8; 32],
            share: u8,
            first in 0u64..1000,
            length in 1usize..(16 * GROUP_BYTES as usize),
            level in prop::sample::select(vec![1, 3, 6, 9]),
        ) {
            let content = mixed(seed, share, length);
            let end = first * GROUP_BYTES + length as u64;
            if let Some(segment) = zstd(first, end, &content, level) {
                prop_assert!(segment.payload.len() < content.len());
                prop_assert_eq!(segment.content_bytes(), length as u64);
                let decoded = segment.decoded().unwrap();
                prop_assert_eq!(decoded.codec, Codec::Raw);
                prop_assert!(decoded.payload == content);
            }
        }

        #[test]
        fn damage_is_an_error_or_harmless_and_never_more_bytes(
            seed: [u8; 32],
            length in 1usize..(3 * GROUP_BYTES as usize),
            at: prop::sample::Index,
            value: u8,
            keep: prop::sample::Index,
        ) {
            let content = mixed(seed, 200, length);
            let Some(segment) = zstd(0, length as u64, &content, 1) else { return Ok(()) };
            let mut damaged = segment.payload.to_vec();
            let at = at.index(damaged.len());
            damaged[at] = value;
            damaged.truncate(keep.index(damaged.len() + 1));
            let damaged = Segment { payload: damaged.into(), ..segment };
            if let Ok(decoded) = damaged.decoded() {
                prop_assert_eq!(decoded.payload.len(), length);
            }
        }

        #[test]
        fn garbage_never_panics(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let codec = Codec::Zstd;
            let garbage = Segment { count: 1, codec, payload: payload.into(), ..Segment::default() };
            if let Ok(decoded) = garbage.decoded() {
                prop_assert_eq!(decoded.payload.len() as u64, GROUP_BYTES);
            }
        }
    }

    #[test]
    fn what_cannot_be_compressed_is_not() {
        assert_eq!(compress(&mixed([1; 32], 0, 1 << 20), 1), None);
        assert_eq!(compress(&[], 1), None);
    }

    #[test]
    fn a_bomb_and_a_dud_are_refused() {
        let group = GROUP_BYTES as usize;
        // 64 MiB of zeros are 2 KiB.
        let bomb = compress(&vec![0; 1024 * group], 1).unwrap();
        assert!(bomb.len() < group);
        let honest = zstd(0, 2 * GROUP_BYTES, &vec![0; 2 * group], 1).unwrap();
        let bomb = Segment { payload: bomb, ..honest.clone() };
        assert!(matches!(bomb.decoded(), Err(DecodeError::Corrupt(_))));
        let dud = Segment { payload: compress(&vec![0; group], 1).unwrap(), ..honest.clone() };
        let wanted = 2 * GROUP_BYTES;
        assert_eq!(dud.decoded(), Err(DecodeError::Length { found: GROUP_BYTES, wanted }));
        let empty = Segment { payload: Bytes::new(), ..honest.clone() };
        assert_eq!(empty.decoded(), Err(DecodeError::Length { found: 0, wanted }));
        let many = Segment { count: u16::MAX, ..honest };
        assert!(matches!(many.decoded(), Err(DecodeError::Corrupt(_))));
    }
}
