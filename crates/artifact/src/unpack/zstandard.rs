//! zstd, frame after frame, with a window of at most 128 MiB.

use std::io;

use zstd::stream::raw::{DParameter, Decoder, Operation};

use super::UnpackError;
use super::marker::Marker;

/// Largest window, as a power of two: what `zstd --long` uses.
const WINDOW_LOG2: u32 = 27;

pub(super) struct Unzstd {
    decoder: Decoder<'static>,
    /// Whether the last frame that began has ended.
    complete: bool,
    /// Bytes of the stream that were taken.
    packed: u64,
    /// Bytes that were given.
    given: u64,
    marker: Option<Marker>,
}

impl Unzstd {
    pub fn new(marker: Option<Marker>) -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG2))?;
        Ok(Self { decoder, complete: false, packed: 0, given: 0, marker })
    }

    /// What was marked.
    pub fn take_marker(&mut self) -> Option<Marker> {
        self.marker.take()
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
            self.packed += ran.bytes_read as u64;
            self.given += ran.bytes_written as u64;
            self.complete = ran.remaining == 0;
            if let Some(marker) = &mut self.marker {
                // A decoder that could not give all of a frame gives back its last byte.
                let held = u64::from(!self.complete);
                marker.pass(self.packed + held, self.given);
                if self.complete {
                    marker.end(self.packed, self.given);
                    marker.start(self.packed, self.given);
                }
            }
        }
        out.truncate(had);
        Ok(had == end)
    }
}
