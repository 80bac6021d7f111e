//! A space put together from parts of an archive, unpacked as they are read.
//!
//! Short parts are taken whole and checked against their sums before a byte of them is shown; those that
//! lie together in the archive come with one request, and stay a while for the rest of them. A long stored
//! part is read where it is wanted. A long deflated one is unpacked from its beginning; its sum is checked
//! where its end is reached.

mod fetch;
mod kept;
mod long;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use dfs_model::{ByteRange, CanonicalUrl};
use dfs_source::{Action, Attempt, ByteStream, SourceError};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future, stream};

use super::{Origin, Part as Piece, PartStream, RequestCount, without_holes, zeros};
use crate::parts::{Method, Part, PartTable, Refusal, SHORT};
use crate::zip::member::{Inflate, MemberError, data_of, extent};
use fetch::Fetch;
use kept::Kept;

/// Longest stored part that is read whole for a part of it.
const SHORT_STORED: u64 = 128 * 1024;
/// Most bytes that are asked for, and most that they unpack to, in one request for several parts.
const BATCH: u64 = 4 << 20;
/// Bytes of the archive between two parts that are read over.
const GAP: u64 = 64 * 1024;
/// Batches and long parts under way at a time within one read.
const AT_ONCE: usize = 4;

/// The space of a part table.
pub struct PartsOrigin {
    archive: Arc<dyn Origin>,
    inner: Arc<Inner>,
}

struct Inner {
    fetch: Fetch,
    table: Arc<PartTable>,
    url: CanonicalUrl,
    kept: Kept,
}

/// A run of bytes of one kind.
enum Segment {
    Zeros(u64),
    /// Short parts, by their places in the table, which lie together in the archive.
    Batch(std::ops::Range<usize>),
    /// A part of a long one.
    Long(usize),
}

impl PartsOrigin {
    /// The space of `table` over the archive at `url`.
    pub fn new(archive: Arc<dyn Origin>, url: CanonicalUrl, table: Arc<PartTable>) -> Self {
        let fetch = Fetch::new(Arc::clone(&archive), table.archive_length);
        Self { archive, inner: Arc::new(Inner { fetch, table, url, kept: Kept::default() }) }
    }
}

#[async_trait]
impl Origin for PartsOrigin {
    fn length(&self) -> Option<u64> {
        Some(self.inner.table.length())
    }

    /// A single long deflated part is a stream.
    fn ranges(&self) -> bool {
        let stream = matches!(self.inner.table.parts(), [only] if only.method == Method::Deflated
            && !is_short(only));
        !stream && self.inner.fetch.ranges()
    }

    fn reads_a_task(&self) -> bool {
        self.inner.fetch.reads_a_task()
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        let range = range.unwrap_or(ByteRange::new(0, self.inner.table.length()));
        without_holes(self.read_parts(range).await?).await
    }

    fn has_members(&self) -> bool {
        true
    }

    fn count_in(&self, count: &RequestCount) {
        self.archive.count_in(count);
    }

    async fn read_parts(&self, range: ByteRange) -> Result<PartStream, SourceError> {
        let inner = Arc::clone(&self.inner);
        // Nothing lies behind the end, also when a hostile asker says so.
        let end = inner.table.length();
        let range = ByteRange::new(range.start.min(end), range.end.min(end));
        let at_once = if inner.fetch.ranges() { AT_ONCE } else { 1 };
        let segments = inner.segments(range);
        let opened = segments.into_iter().map(move |segment| match segment {
            Segment::Zeros(count) => future::ok(zeros(count).map_ok(Piece::Bytes).boxed()).boxed(),
            Segment::Batch(parts) => Arc::clone(&inner).batch(parts, range).boxed(),
            Segment::Long(part) => Arc::clone(&inner).long(part, range).boxed(),
        });
        Ok(stream::iter(opened).buffered(at_once).try_flatten().boxed())
    }
}

fn is_short(part: &Part) -> bool {
    match part.method {
        Method::Raw | Method::Stored => part.length <= SHORT_STORED,
        Method::Deflated => part.length <= SHORT && part.packed <= SHORT,
        Method::Refused(_) => false,
    }
}

impl Inner {
    fn segments(&self, range: ByteRange) -> Vec<Segment> {
        let parts = self.table.parts();
        let mut at = parts.partition_point(|part| part.range().end <= range.start);
        let mut segments = Vec::new();
        let mut end = range.start;
        while let Some(part) = parts.get(at).filter(|part| part.offset < range.end) {
            if part.offset > end {
                segments.push(Segment::Zeros(part.offset - end));
            }
            let next = if is_short(part) { self.batch_end(at, range) } else { at + 1 };
            segments.push(if is_short(part) {
                Segment::Batch(at..next)
            } else {
                Segment::Long(at)
            });
            end = parts[next - 1].range().end.min(range.end);
            at = next;
        }
        if range.end > end {
            segments.push(Segment::Zeros(range.end - end));
        }
        segments
    }

    /// Where the batch that begins with part `first` ends.
    fn batch_end(&self, first: usize, range: ByteRange) -> usize {
        let parts = self.table.parts();
        let (begin, mut length) = (parts[first].from, 0);
        let mut before = extent(&parts[first]).end;
        let more = parts[first..].iter().take_while(|part| {
            let extent = extent(part);
            length += part.length;
            let near = extent.start >= begin && extent.start <= before + GAP;
            before = before.max(extent.end);
            let fits = extent.end.saturating_sub(begin) <= BATCH && length <= BATCH;
            part.offset < range.end && is_short(part) && near && fits
        });
        first + more.count().max(1)
    }

    /// The bytes of `range` that short parts have, zeros between them.
    async fn batch(
        self: Arc<Self>,
        parts: std::ops::Range<usize>,
        range: ByteRange,
    ) -> Result<PartStream, SourceError> {
        let bodies = self.bodies(parts.clone()).await?;
        let parts = &self.table.parts()[parts];
        let mut pieces = Vec::with_capacity(2 * bodies.len());
        let mut end = parts.first().map_or(0, |part| part.offset.max(range.start));
        for (part, body) in parts.iter().zip(bodies) {
            let wanted = part.range().intersection(range);
            pieces.push(zeros(wanted.start.saturating_sub(end)).map_ok(Piece::Bytes).boxed());
            let (start, stop) = (wanted.start - part.offset, wanted.end - part.offset);
            let piece = match body {
                Ok(body) => Piece::Bytes(body.slice(start as usize..stop as usize)),
                Err(error) => Piece::Void { length: wanted.len(), error },
            };
            pieces.push(stream::iter([Ok(piece)]).boxed());
            end = wanted.end;
        }
        Ok(stream::iter(pieces).flatten().boxed())
    }

    /// The whole of each of these parts, kept or fetched now, or what is wrong with it alone.
    async fn bodies(
        self: &Arc<Self>,
        parts: std::ops::Range<usize>,
    ) -> Result<Vec<Result<Bytes, SourceError>>, SourceError> {
        let kept: Vec<Option<Bytes>> = parts.clone().map(|part| self.kept.get(part)).collect();
        let missing = |at: &usize| kept[at - parts.start].is_none();
        let first = parts.clone().find(missing);
        let Some((first, last)) = first.zip(parts.clone().rev().find(missing)) else {
            return Ok(kept.into_iter().flatten().map(Ok).collect());
        };
        let table = self.table.parts();
        let extents = table[first..=last].iter().map(extent);
        let span = extents.reduce(|a, b| ByteRange::new(a.start.min(b.start), a.end.max(b.end)));
        let span = span.unwrap_or(ByteRange::new(0, 0));
        let packed = self.fetch.bytes(span).await?;
        let inner = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let fetched = |at: usize| {
                let part = &inner.table.parts()[at];
                let body = part_of(&packed, span.start, part);
                let body = body.map_err(|error| inner.unfit(part, &error))?;
                inner.kept.put(at, &body);
                Ok(body)
            };
            let all = parts.clone().map(|at| match &kept[at - parts.start] {
                Some(body) => Ok(body.clone()),
                None => fetched(at),
            });
            all.collect()
        });
        Ok(work.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())))
    }

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
