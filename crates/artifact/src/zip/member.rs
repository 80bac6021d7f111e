//! One member of a zip: its local header, its packed bytes, its sum.

use bytes::Bytes;
use dfs_model::ByteRange;
use flate2::{Crc, Decompress, FlushDecompress, Status};

use crate::parts::{Method, Part, Refusal};

/// Bytes of a local header without its names.
pub(crate) const LOCAL_BYTES: u64 = 30;
/// Most bytes that name and extra field take behind it.
const NAMES: u64 = 2 * 65_535;
/// Most bytes that one step gives.
const STEP: usize = 256 * 1024;

/// Why a member cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MemberError {
    /// Never.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No local header where the directory says.
    #[error("there is no member of the zip where its directory says")]
    NotThere,
    /// Its bytes end too early.
    #[error("this member of the zip is cut off")]
    CutOff,
    /// Its bytes make no sense.
    #[error("the deflated bytes of this member of the zip make no sense")]
    Corrupt,
    /// It unpacks to another length than the directory says.
    #[error("this member of the zip is not as long as its directory says")]
    Length,
    /// It is not what the directory says.
    #[error("this member of the zip does not match its checksum")]
    Sum,
}

/// Bytes of the archive that are asked for to have a part: not more than its names can take, where a gap
/// follows it.
pub(crate) fn extent(part: &Part) -> ByteRange {
    let head = if part.method == Method::Raw { 0 } else { LOCAL_BYTES + NAMES };
    let most = part.from.saturating_add(head).saturating_add(part.packed);
    ByteRange::new(part.from, most.min(part.until))
}

/// Bytes of a local header with its names.
pub(crate) fn head_bytes(local: &[u8]) -> Result<u64, MemberError> {
    let local: &[u8; LOCAL_BYTES as usize] = local.first_chunk().ok_or(MemberError::CutOff)?;
    if !local.starts_with(b"PK\x03\x04") {
        return Err(MemberError::NotThere);
    }
    let length = |at: usize| u64::from(u16::from_le_bytes([local[at], local[at + 1]]));
    Ok(LOCAL_BYTES + length(26) + length(28))
}

/// Where a part's packed bytes stand in the bytes of its [`extent`].
pub(crate) fn data_of(part: &Part, extent: &[u8]) -> Result<ByteRange, MemberError> {
    let head = match part.method {
        Method::Raw => 0,
        Method::Refused(why) => return Err(why.into()),
        Method::Stored | Method::Deflated => head_bytes(extent)?,
    };
    let data = ByteRange::at(head, part.packed);
    if data.end <= extent.len() as u64 { Ok(data) } else { Err(MemberError::CutOff) }
}

/// A deflated member being unpacked.
pub(crate) struct Inflate {
    inflate: Decompress,
    crc: Crc,
    expected: u32,
    /// Packed bytes that were not taken yet.
    packed: u64,
    length: u64,
    ended: bool,
    hungry: bool,
}

impl Inflate {
    /// Begins the member of `part`.
    pub fn new(part: &Part) -> Self {
        Self {
            inflate: Decompress::new(false),
            crc: Crc::new(),
            expected: part.crc,
            packed: part.packed,
            length: part.length,
            ended: false,
            hungry: true,
        }
    }

    /// Whether all of it was given.
    pub fn is_complete(&self) -> bool {
        self.ended
    }

    /// Whether nothing comes without further input.
    pub fn is_hungry(&self) -> bool {
        self.hungry
    }

    /// Takes from `input` and gives bytes; `None` when there is no more of it, or no more without input.
    pub fn step(&mut self, input: &mut &[u8]) -> Result<Option<Bytes>, MemberError> {
        if self.ended {
            return Ok(None);
        }
        let usable = input.len().min(usize::try_from(self.packed).unwrap_or(usize::MAX));
        let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
        // One byte more than is expected shows a member that is too long.
        let room = (self.length - given).saturating_add(1).min(STEP as u64);
        let mut out = vec![0; room as usize];
        let status = self.inflate.decompress(&input[..usable], &mut out, FlushDecompress::None);
        let status = status.map_err(|_| MemberError::Corrupt)?;
        let consumed = self.inflate.total_in() - taken;
        out.truncate((self.inflate.total_out() - given) as usize);
        *input = &input[consumed as usize..];
        self.packed -= consumed;
        self.crc.update(&out);
        self.ended = status == Status::StreamEnd;
        self.hungry = (out.len() as u64) < room;
        if self.inflate.total_out() > self.length {
            return Err(MemberError::Length);
        }
        if self.packed == 0 && self.hungry && !self.ended {
            return Err(MemberError::CutOff);
        }
        Ok((!out.is_empty() || self.ended).then(|| out.into()))
    }

    /// Whether it was what the directory of the zip says.
    pub fn finish(&self) -> Result<(), MemberError> {
        if !self.ended {
            return Err(MemberError::CutOff);
        }
        if self.inflate.total_out() != self.length {
            return Err(MemberError::Length);
        }
        if self.crc.sum() == self.expected { Ok(()) } else { Err(MemberError::Sum) }
    }
}
