//! gzip (RFC 1952), member after member. What stands behind the last one is passed over, as gzip does.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::UnpackError;
use super::blocks::{Bits, Blocks, Reached, Stop};
use super::marker::Marker;

const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const HEADER_CRC: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bytes of the fixed header that were read.
    Header(usize),
    /// The low byte of the length of the extra field, once read.
    ExtraLength(Option<u8>),
    /// Bytes of the extra field that are left.
    Extra(u16),
    Name,
    Comment,
    /// Bytes of the header's own sum that are left.
    HeaderCrc(u8),
    Body,
    /// Bytes of the trailer that were read.
    Trailer(usize),
    /// Behind a member.
    Between,
    /// Behind the last member.
    Rest,
}

pub(super) struct Gunzip {
    state: State,
    flags: u8,
    inflate: Inflate,
    /// Of the bytes of this member; `None` where its beginning was not seen.
    crc: Option<Crc>,
    trailer: [u8; 8],
    first: bool,
    /// Bytes of the stream that were taken.
    packed: u64,
    /// Bytes that were given.
    given: u64,
    marker: Option<Marker>,
}

/// What unpacks the members' bodies.
enum Inflate {
    /// The fast one.
    Plain(Decompress),
    /// The one that knows of blocks.
    Blocks(Blocks),
}

impl Inflate {
    /// As [`Blocks::run`]; a plain one never stops at boundaries.
    fn run(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        end: usize,
        stop: Stop,
    ) -> Result<Reached, UnpackError> {
        let inflate = match self {
            Self::Blocks(blocks) => return blocks.run(input, out, end, stop),
            Self::Plain(inflate) => inflate,
        };
        let (taken, before, had) = (inflate.total_in(), inflate.total_out(), out.len());
        out.resize(end, 0);
        let inflated = inflate.decompress(input, &mut out[had..], FlushDecompress::None);
        out.truncate(had + (inflate.total_out() - before) as usize);
        let status = inflated.map_err(|_| UnpackError::senseless())?;
        *input = &input[(inflate.total_in() - taken) as usize..];
        Ok(if status == Status::StreamEnd { Reached::End } else { Reached::Edge })
    }

    fn reset(&mut self) {
        match self {
            Self::Plain(inflate) => inflate.reset(false),
            Self::Blocks(blocks) => blocks.reset(),
        }
    }
}

impl Default for Gunzip {
    fn default() -> Self {
        Self {
            state: State::Header(0),
            flags: 0,
            inflate: Inflate::Plain(Decompress::new(false)),
            crc: Some(Crc::new()),
            trailer: [0; 8],
            first: true,
            packed: 0,
            given: 0,
            marker: None,
        }
    }
}

impl Gunzip {
    /// Begins a stream of which checkpoints are made.
    pub fn marked(marker: Marker) -> Self {
        let inflate = Inflate::Blocks(Blocks::default());
        Self { inflate, marker: Some(marker), ..Self::default() }
    }

    /// Begins between two blocks. The sum of what is left of their member is not known.
    pub fn resumed(bits: Bits, window: &[u8]) -> Self {
        let inflate = Inflate::Blocks(Blocks::resumed(bits, window));
        Self { state: State::Body, inflate, crc: None, ..Self::default() }
    }

    /// What was marked.
    pub fn take_marker(&mut self) -> Option<Marker> {
        self.marker.take()
    }

    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Between | State::Rest)
    }

    /// As [`super::Unpacker::step`].
    pub fn step(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<bool, UnpackError> {
        let end = out.len() + limit;
        while out.len() < end {
            if self.state == State::Body {
                if self.inflate(input, out, end)? {
                    continue;
                }
                return Ok(false);
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(false) };
            self.byte(byte)?;
            self.packed += 1;
            *input = rest;
        }
        Ok(true)
    }

    /// Whether to go on: the member ended, or its bytes filled `out`.
    fn inflate(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        end: usize,
    ) -> Result<bool, UnpackError> {
        let (before, had) = (input.len(), out.len());
        let stop = match &self.marker {
            Some(marker) if marker.is_due(self.packed, self.given) => Stop::AtBoundary,
            _ => Stop::AtEnd,
        };
        let reached = self.inflate.run(input, out, end, stop)?;
        self.packed += (before - input.len()) as u64;
        self.given += (out.len() - had) as u64;
        if let Some(crc) = &mut self.crc {
            crc.update(&out[had..]);
        }
        if let Some(marker) = &mut self.marker {
            marker.pass(self.packed, self.given);
        }
        match reached {
            Reached::Edge => return Ok(out.len() == end),
            Reached::Boundary => self.mark(),
            Reached::End => self.state = State::Trailer(0),
        }
        Ok(true)
    }

    fn mark(&mut self) {
        if let (Inflate::Blocks(blocks), Some(marker)) = (&self.inflate, &mut self.marker)
            && let Some(bits) = blocks.bits()
        {
            marker.block(self.packed, self.given, bits, blocks.window());
        }
    }

    /// A byte of a header, a trailer, or of what stands between.
    fn byte(&mut self, byte: u8) -> Result<(), UnpackError> {
        self.state = match self.state {
            State::Header(at) => match self.header_byte(at, byte)? {
                true => self.after(State::Header(9)),
                false if self.state == State::Rest => State::Rest,
                false => State::Header(at + 1),
            },
            State::ExtraLength(None) => State::ExtraLength(Some(byte)),
            State::ExtraLength(Some(low)) => match u16::from_le_bytes([low, byte]) {
                0 => self.after(State::Extra(0)),
                length => State::Extra(length),
            },
            State::Extra(left) if left > 1 => State::Extra(left - 1),
            State::Name | State::Comment if byte != 0 => self.state,
            State::HeaderCrc(left) if left > 1 => State::HeaderCrc(left - 1),
            done @ (State::Extra(_) | State::Name | State::Comment | State::HeaderCrc(_)) => {
                self.after(done)
            }
            State::Trailer(at) => {
                self.trailer[at] = byte;
                if at == 7 { self.check()? } else { State::Trailer(at + 1) }
            }
            State::Between if byte == 0x1f => {
                if let Some(marker) = &mut self.marker {
                    marker.start(self.packed, self.given);
                }
                State::Header(1)
            }
            // Padding of tapes.
            State::Between if byte == 0 => State::Between,
            State::Between | State::Rest | State::Body => State::Rest,
        };
        Ok(())
    }

    /// Whether the fixed header is whole with this byte.
    fn header_byte(&mut self, at: usize, byte: u8) -> Result<bool, UnpackError> {
        let fits = match at {
            0 => byte == 0x1f,
            1 => byte == 0x8b,
            2 => byte == 8,
            3 => byte & 0xe0 == 0,
            _ => true,
        };
        if !fits && self.first {
            return Err(UnpackError::Corrupt("it has no gzip header".to_owned()));
        }
        if !fits {
            self.state = State::Rest;
            return Ok(false);
        }
        if at == 3 {
            self.flags = byte;
        }
        Ok(at == 9)
    }

    /// What follows a part of the header.
    fn after(&self, done: State) -> State {
        let has = |flag| self.flags & flag != 0;
        let parts = [
            (has(EXTRA), State::ExtraLength(None)),
            (has(NAME), State::Name),
            (has(COMMENT), State::Comment),
            (has(HEADER_CRC), State::HeaderCrc(2)),
        ];
        let passed = match done {
            State::Header(_) => 0,
            State::ExtraLength(_) | State::Extra(_) => 1,
            State::Name => 2,
            State::Comment => 3,
            _ => 4,
        };
        let next = parts[passed..].iter().find(|(there, _)| *there);
        next.map_or(State::Body, |(_, state)| *state)
    }

    /// Whether the member is what its trailer says.
    fn check(&mut self) -> Result<State, UnpackError> {
        let sum = u32::from_le_bytes(*self.trailer.first_chunk().expect("8 bytes"));
        let length = u32::from_le_bytes(*self.trailer.last_chunk().expect("8 bytes"));
        let differs = |crc: &Crc| (sum, length) != (crc.sum(), crc.amount());
        if self.crc.as_ref().is_some_and(differs) {
            let why = "a member of it does not match its checksum";
            return Err(UnpackError::Corrupt(why.to_owned()));
        }
        self.crc = Some(Crc::new());
        self.inflate.reset();
        self.first = false;
        if let Some(marker) = &mut self.marker {
            // Behind the byte that is being looked at.
            marker.end(self.packed + 1, self.given);
        }
        Ok(State::Between)
    }
}
