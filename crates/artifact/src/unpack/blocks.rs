//! Deflated bytes (RFC 1951), unpacked by one who knows where a block ends and can begin between two.
//!
//! Slower than what does not know, so it is used only to make checkpoints and to begin from them.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
    TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress};

use super::{STEP, UnpackError};

/// Bytes that a block may refer back to.
pub(super) const WINDOW: usize = 32 * 1024;
/// Room for the window and two steps, so that it seldom moves.
const BUFFER: usize = WINDOW + 2 * STEP;

/// Where an inflater stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// The end of its input or of the room it was given.
    Edge,
    /// The end of a block that is not the last.
    Boundary,
    /// The end of the last block.
    End,
}

/// Where an inflater is to stop before its input or room ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    AtBoundary,
    AtEnd,
}

/// What the byte at a boundary has of the next block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bits {
    /// How many bits; fewer than 8.
    pub count: u8,
    /// Them, the next one lowest.
    pub value: u8,
}

pub(super) struct Blocks {
    state: Box<DecompressorOxide>,
    /// The window, and behind it what is unpacked.
    buffer: Vec<u8>,
    /// Bytes of the buffer that are filled.
    filled: usize,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { state: Box::default(), buffer: vec![0; BUFFER], filled: 0 }
    }
}

impl Blocks {
    /// Begins between two blocks, behind these bits and this window of at most [`WINDOW`] bytes.
    pub fn resumed(bits: Bits, window: &[u8]) -> Self {
        let state = BlockBoundaryState {
            num_bits: bits.count,
            bit_buf: bits.value,
            ..BlockBoundaryState::default()
        };
        let state = Box::new(DecompressorOxide::from_block_boundary_state(&state));
        let mut buffer = vec![0; BUFFER];
        buffer[..window.len()].copy_from_slice(window);
        Self { state, buffer, filled: window.len() }
    }

    /// Gets ready for the first block of another member.
    pub fn reset(&mut self) {
        self.state.init();
        self.filled = 0;
    }

    /// Takes from `input` and appends to `out`, until that is `end` bytes long; at most [`STEP`] bytes.
    pub fn run(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        end: usize,
        stop: Stop,
    ) -> Result<Reached, UnpackError> {
        let wanted = end - out.len();
        if self.buffer.len() - self.filled < wanted {
            let window = self.filled - WINDOW..self.filled;
            self.buffer.copy_within(window, 0);
            self.filled = WINDOW;
        }
        let flags = TINFL_FLAG_HAS_MORE_INPUT
            | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF
            | match stop {
                Stop::AtBoundary => TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
                Stop::AtEnd => 0,
            };
        let (at, room) = (self.filled, &mut self.buffer[..self.filled + wanted]);
        let (status, taken, given) = decompress(&mut self.state, input, room, at, flags);
        self.filled += given;
        out.extend_from_slice(&self.buffer[at..self.filled]);
        *input = &input[taken..];
        match status {
            TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => Ok(Reached::Edge),
            TINFLStatus::BlockBoundary => Ok(Reached::Boundary),
            TINFLStatus::Done => Ok(Reached::End),
            _ => Err(UnpackError::senseless()),
        }
    }

    /// What was unpacked last of this member, as far as what follows may refer to it.
    pub fn window(&self) -> &[u8] {
        &self.buffer[self.filled.saturating_sub(WINDOW)..self.filled]
    }

    /// What the last byte taken has of the next block; `None` where no boundary is.
    pub fn bits(&self) -> Option<Bits> {
        let state = self.state.block_boundary_state()?;
        Some(Bits { count: state.num_bits, value: state.bit_buf })
    }
}
