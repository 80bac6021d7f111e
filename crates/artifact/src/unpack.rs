//! Compressed streams, unpacked step by step: gzip with all its members, zstd with all its frames.
//!
//! An [`Unpacker`] is a pure state machine of bounded memory: a window, and what one step gives. A stream
//! that unfolds to more than the limits allow is refused as a bomb as soon as it does.
//!
//! Once it was unpacked from front to back, any part of it is had without what lies before: [`Checkpoints`]
//! are made on the way where they are asked for, or read from the table that some streams have at their end
//! ([`seek_table`]); a [`Resumed`] unpacker begins at one of them. What a table says of a stream
//! is hostile until the bytes that come of it are verified: it can lead to wrong ones, to nothing worse.

mod blocks;
pub mod checkpoints;
mod gzip;
mod marker;
mod resumed;
pub mod seek_table;
mod zstandard;

use dfs_model::{ByteSize, Transform};

use gzip::Gunzip;
use marker::Marker;
use zstandard::Unzstd;

pub use checkpoints::{CheckpointError, Checkpoints, Plan};
pub use resumed::Resumed;

/// Most bytes that one step gives.
pub const STEP: usize = 256 * 1024;

/// Bytes of the beginning that tell a compressed stream from others.
pub const MAGIC: usize = 4;

/// How much a stream may unfold to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes in all.
    pub length: u64,
    /// Bytes for each compressed one, beyond `free`.
    pub ratio: u64,
    /// Bytes that are let through whatever the ratio.
    pub free: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { length: 1 << 40, ratio: 250, free: 1 << 30 }
    }
}

impl Limits {
    /// Refuses so many bytes that come of so many compressed ones.
    pub fn admit(&self, input: u64, output: u64) -> Result<(), UnpackError> {
        let is_bomb = output > self.free && output / self.ratio > input;
        if is_bomb || output > self.length {
            let (input, output) = (ByteSize(input), ByteSize(output));
            return Err(UnpackError::Bomb { input, output });
        }
        Ok(())
    }
}

/// Why a stream is not unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// Not what it should be.
    #[error("the compressed stream is corrupt: {0}")]
    Corrupt(String),
    /// It ends too early.
    #[error("the compressed stream is cut off")]
    Truncated,
    /// It unfolds to far more than anything useful does.
    #[error("the compressed stream is taken for a bomb: {input} unfold to more than {output}")]
    Bomb {
        /// Compressed bytes read.
        input: ByteSize,
        /// What they gave so far.
        output: ByteSize,
    },
}

impl UnpackError {
    fn senseless() -> Self {
        Self::Corrupt("its deflated bytes make no sense".to_owned())
    }
}

/// What kind of compressed stream begins so, if any.
pub fn transform_of(first: &[u8]) -> Option<Transform> {
    match first {
        [0x1f, 0x8b, 8, ..] => Some(Transform::Gunzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Transform::Unzstd),
        // A frame to be skipped, as parallel compressors put first.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Transform::Unzstd),
        _ => None,
    }
}

/// All that a short stream unpacks to, by a transform that unpacks.
pub(crate) fn unpack_all(
    transform: Transform,
    limits: Limits,
    mut input: &[u8],
) -> Result<Vec<u8>, UnpackError> {
    let cannot = || UnpackError::Corrupt("it cannot be unpacked".to_owned());
    let mut unpacker = Unpacker::new(transform, limits).ok_or_else(cannot)?;
    let mut out = Vec::new();
    while unpacker.step(&mut input, &mut out)? || !input.is_empty() {}
    unpacker.finish().map(|()| out)
}

/// One stream being unpacked.
pub struct Unpacker {
    format: Format,
    limits: Limits,
    input: u64,
    output: u64,
}

enum Format {
    Gzip(Box<Gunzip>),
    Zstd(Box<Unzstd>),
}

impl Unpacker {
    /// Begins; `None` where there is nothing to unpack.
    pub fn new(transform: Transform, limits: Limits) -> Option<Self> {
        let format = match transform {
            Transform::Identity => return None,
            Transform::Gunzip => Format::Gzip(Box::default()),
            Transform::Unzstd => Format::Zstd(Box::new(Unzstd::new(None).ok()?)),
        };
        Some(Self::of(format, limits))
    }

    /// Begins as [`Self::new`] does, and makes checkpoints on the way: up to 32 MiB of them. Of gzip that takes longer.
    pub fn with_checkpoints(transform: Transform, limits: Limits) -> Option<Self> {
        Self::marked(transform, limits, Marker::default())
    }

    fn marked(transform: Transform, limits: Limits, marker: Marker) -> Option<Self> {
        let format = match transform {
            Transform::Identity => return None,
            Transform::Gunzip => Format::Gzip(Box::new(Gunzip::marked(marker))),
            Transform::Unzstd => Format::Zstd(Box::new(Unzstd::new(Some(marker)).ok()?)),
        };
        Some(Self::of(format, limits))
    }

    fn of(format: Format, limits: Limits) -> Self {
        Self { format, limits, input: 0, output: 0 }
    }

    /// Takes from `input` and appends to `out`, at most [`STEP`] bytes. Whether there is more to be had
    /// without further input.
    pub fn step(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, UnpackError> {
        let (before, had) = (input.len(), out.len());
        let more = match &mut self.format {
            Format::Gzip(gzip) => gzip.step(input, out, STEP)?,
            Format::Zstd(zstd) => zstd.step(input, out, STEP)?,
        };
        self.input += (before - input.len()) as u64;
        self.output += (out.len() - had) as u64;
        self.limits.admit(self.input, self.output)?;
        Ok(more)
    }

    /// Whether the end of the input may be here.
    pub fn finish(&self) -> Result<(), UnpackError> {
        let complete = match &self.format {
            Format::Gzip(gzip) => gzip.is_complete(),
            Format::Zstd(zstd) => zstd.is_complete(),
        };
        if complete { Ok(()) } else { Err(UnpackError::Truncated) }
    }

    /// The checkpoints of a stream that has ended, once; `None` where it has not, or none were asked for.
    pub fn take_checkpoints(&mut self) -> Option<Checkpoints> {
        self.finish().ok()?;
        let (marker, transform) = match &mut self.format {
            Format::Gzip(gzip) => (gzip.take_marker(), Transform::Gunzip),
            Format::Zstd(zstd) => (zstd.take_marker(), Transform::Unzstd),
        };
        Some(marker?.finish(transform))
    }
}

#[cfg(test)]
mod tests;
