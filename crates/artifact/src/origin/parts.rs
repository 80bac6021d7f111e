//! A space put together from parts of an archive, unpacked as they are read.
//!
//! Short parts are taken whole and checked against their sums before a byte of them is shown; those that
//! lie together in the archive come with one request, and stay a while for the rest of them. A long stored
//! part is read where it is wanted. A long deflated one is unpacked from its beginning; its sum is checked
//! where its end is reached.

mod long;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dfs_model::{ByteRange, CanonicalUrl};
use dfs_source::{Action, Attempt, SourceError};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::batches::{Batches, Packed, PackedOrigin};
use super::{Origin, PartStream};
use crate::parts::{Method, Part, PartTable, Refusal, SHORT};
use crate::zip::member::{Inflate, MemberError, data_of, extent};

/// Longest stored part that is read whole for a part of it.
const SHORT_STORED: u64 = 128 * 1024;

/// The space of a part table.
pub(super) type PartsOrigin = PackedOrigin<Parts>;

/// A part table and where its archive is.
pub(super) struct Parts {
    table: Arc<PartTable>,
    url: CanonicalUrl,
}

impl PartsOrigin {
    /// The space of `table` over the archive at `url`.
    pub fn new(archive: Arc<dyn Origin>, url: CanonicalUrl, table: Arc<PartTable>) -> Self {
        let length = table.archive_length;
        Self::over(archive, length, Parts { table, url })
    }
}

impl Packed for Parts {
    type Unit = Part;

    fn length(&self) -> u64 {
        self.table.length()
    }

    fn units(&self) -> &[Part] {
        self.table.parts()
    }

    fn place(part: &Part) -> ByteRange {
        part.range()
    }

    fn extent(part: &Part) -> ByteRange {
        extent(part)
    }

    fn unpack(&self, parts: &[&Part], packed: &Bytes) -> Vec<Result<Bytes, SourceError>> {
        let body = |part: &&Part| {
            let body = part_of(packed, extent(part).start, part);
            body.map_err(|error| self.unfit(part, &error))
        };
        parts.iter().map(body).collect()
    }

    fn is_short(part: &Part) -> bool {
        is_short(part)
    }

    /// A single long deflated part.
    fn is_stream(&self) -> bool {
        matches!(self.units(), [only] if only.method == Method::Deflated && !is_short(only))
    }

    fn long(
        batches: Arc<Batches<Self>>,
        part: usize,
        range: ByteRange,
    ) -> BoxFuture<'static, Result<PartStream, SourceError>> {
        batches.long(part, range).boxed()
    }
}

fn is_short(part: &Part) -> bool {
    match part.method {
        Method::Raw | Method::Stored => part.length <= SHORT_STORED,
        Method::Deflated => part.length <= SHORT && part.packed <= SHORT,
        Method::Refused(_) => false,
    }
}

impl Parts {
    /// What is wrong with a part alone.
    fn unfit(&self, part: &Part, error: &MemberError) -> SourceError {
        let place = ByteRange::new(part.from, part.until);
        let attempt = Attempt::new(Action::Read(Some(place)), &self.url);
        let reason = error.to_string();
        match error {
            MemberError::Refused(Refusal::Encrypted | Refusal::Method(_)) => {
                SourceError::Unreadable { attempt, reason }
            }
            MemberError::Refused(Refusal::Lies)
            | MemberError::NotThere
            | MemberError::CutOff
            | MemberError::Corrupt
            | MemberError::Length
            | MemberError::Sum => SourceError::Damaged { attempt, reason },
        }
    }
}

/// A whole part out of the bytes of the archive from `start` on.
pub(crate) fn part_of(archive: &Bytes, start: u64, part: &Part) -> Result<Bytes, MemberError> {
    let extent = extent(part);
    let (from, to) = (extent.start.checked_sub(start), extent.end.checked_sub(start));
    let place = from.zip(to).filter(|&(_, to)| to <= archive.len() as u64);
    let (from, to) = place.ok_or(MemberError::CutOff)?;
    let packed = archive.slice(from as usize..to as usize);
    let data = data_of(part, &packed)?;
    let packed = packed.slice(data.start as usize..data.end as usize);
    if part.method != Method::Deflated {
        check_sum(part, &packed)?;
        return Ok(packed);
    }
    let mut inflate = Inflate::new(part);
    let mut out = BytesMut::with_capacity(part.length as usize);
    let mut input = &packed[..];
    while let Some(bytes) = inflate.step(&mut input)? {
        out.extend_from_slice(&bytes);
    }
    inflate.finish()?;
    Ok(out.freeze())
}

fn check_sum(part: &Part, bytes: &[u8]) -> Result<(), MemberError> {
    if part.method == Method::Raw {
        return Ok(());
    }
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    if crc.sum() == part.crc { Ok(()) } else { Err(MemberError::Sum) }
}
