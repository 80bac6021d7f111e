//! A part of a compressed stream, unpacked from a checkpoint on.

use super::blocks::WINDOW;
use super::checkpoints::{Entry, Plan};
use super::gzip::Gunzip;
use super::{Format, Limits, UnpackError, Unpacker};

/// A range of the content being unpacked. It takes the bytes that its [`Plan`] names.
///
/// What comes of it is as right as the table of checkpoints: a member that is begun in the middle has no
/// checksum of its own.
pub struct Resumed {
    unpacker: Unpacker,
    /// Bytes that come before the range.
    skip: u64,
    /// Bytes of the range that are still to come.
    left: u64,
}

impl Resumed {
    /// Begins where the plan does. `limits` count from there.
    pub fn new(plan: &Plan, limits: Limits) -> Result<Self, UnpackError> {
        let broken = || UnpackError::Corrupt("it cannot be begun from this checkpoint".to_owned());
        let unpacker = match &plan.from {
            Entry::Passed => return Err(broken()),
            Entry::Start => Unpacker::new(plan.transform, limits).ok_or_else(broken)?,
            Entry::Block { bits, window } => {
                let window = zstd::bulk::decompress(window, WINDOW).map_err(|_| broken())?;
                Unpacker::of(Format::Gzip(Box::new(Gunzip::resumed(*bits, &window))), limits)
            }
        };
        Ok(Self { unpacker, skip: plan.skip, left: plan.length })
    }

    /// As [`Unpacker::step`], but appends only what is of the range. Once that is all, further input is
    /// passed over.
    pub fn step(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, UnpackError> {
        if self.left == 0 {
            *input = &[];
            return Ok(false);
        }
        let had = out.len();
        let more = self.unpacker.step(input, out)?;
        let before = self.skip.min((out.len() - had) as u64);
        self.skip -= before;
        out.drain(had..had + before as usize);
        let given = self.left.min((out.len() - had) as u64);
        self.left -= given;
        out.truncate(had + given as usize);
        Ok(more && self.left > 0)
    }

    /// Whether the end of the input may be here: all of the range has come.
    pub fn finish(&self) -> Result<(), UnpackError> {
        if self.left == 0 { Ok(()) } else { Err(UnpackError::Truncated) }
    }
}
