//! zstd, frame after frame, with a window of at most 128 MiB.

use std::io;

use zstd::stream::raw::{DParameter, Decoder, Operation};

use super::UnpackError;

/// Largest window, as a power of two: what `zstd --long` uses.
const WINDOW_LOG2: u32 = 27;

pub(super) struct Unzstd {
    decoder: Decoder<'static>,
    /// Whether the last frame that began has ended.
    complete: bool,
}

impl Unzstd {
    pub fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG2))?;
        Ok(Self { decoder, complete: false })
    }

    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// As [`super::Unpacker::step`].
    pub fn step(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<bool, UnpackError> {
        let (mut had, end) = (out.len(), out.len() + limit);
        out.resize(end, 0);
        // A decoder that has ended a frame would take an empty input for the beginning of another.
        while had < end && !(input.is_empty() && self.complete) {
            let ran = self.decoder.run_on_buffers(input, &mut out[had..]);
            let ran = ran.map_err(|error| UnpackError::Corrupt(error.to_string()))?;
            if ran.bytes_read == 0 && ran.bytes_written == 0 {
                break;
            }
            *input = &input[ran.bytes_read..];
            had += ran.bytes_written;
            self.complete = ran.remaining == 0;
        }
        out.truncate(had);
        Ok(had == end)
    }
}
