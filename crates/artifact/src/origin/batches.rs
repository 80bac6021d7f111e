//! A space put together from units that lie packed in an archive: parts of it, or chunks of a blob.
//!
//! A unit is unpacked whole, and held against what is known of it, before a byte of it is shown. Those that lie together in the
//! archive come with one request, and stay a while for the rest of them. What is wrong with one is a hole in what its
//! neighbours are read in.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::ByteRange;
use dfs_source::{ByteStream, SourceError};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future, stream};

use super::fetch::Fetch;
use super::kept::Kept;
use super::{Origin, Part as Piece, PartStream, RequestCount, without_holes, zeros};

/// Most bytes that are asked for, and most that they unpack to, in one request for several units.
const BATCH: u64 = 4 << 20;
/// Bytes of the archive between two units that are read over.
const GAP: u64 = 64 * 1024;
/// Batches and long units under way at a time within one read.
const AT_ONCE: usize = 4;

/// What a space is put together from.
pub(super) trait Packed: Send + Sync + Sized + 'static {
    /// A unit.
    type Unit: Send + Sync;

    /// Bytes of the space.
    fn length(&self) -> u64;

    /// The units in the order of their places, which are apart.
    fn units(&self) -> &[Self::Unit];

    /// Where a unit lies in the space.
    fn place(unit: &Self::Unit) -> ByteRange;

    /// Bytes of the archive that are needed to have a unit.
    fn extent(unit: &Self::Unit) -> ByteRange;

    /// The bodies of units that have the same extent, from its bytes, or what is wrong with each. Blocks.
    fn unpack(&self, units: &[&Self::Unit], packed: &Bytes) -> Vec<Result<Bytes, SourceError>>;

    /// Whether a unit is unpacked whole for a part of it.
    fn is_short(_unit: &Self::Unit) -> bool {
        true
    }

    /// Whether all of it is had from front to back only, whatever its archive knows.
    fn is_stream(&self) -> bool {
        false
    }

    /// The bytes of `range` that a unit has which is not short.
    fn long(
        batches: Arc<Batches<Self>>,
        unit: usize,
        range: ByteRange,
    ) -> BoxFuture<'static, Result<PartStream, SourceError>> {
        batches.batch(unit..unit + 1, range).boxed()
    }
}

/// The space that units make.
pub(super) struct PackedOrigin<P> {
    archive: Arc<dyn Origin>,
    inner: Arc<Batches<P>>,
}

impl<P: Packed> PackedOrigin<P> {
    /// Over an archive of so many bytes.
    pub fn over(archive: Arc<dyn Origin>, archive_length: u64, packed: P) -> Self {
        let inner = Batches::new(Arc::clone(&archive), archive_length, packed);
        Self { archive, inner }
    }
}

#[async_trait]
impl<P: Packed> Origin for PackedOrigin<P> {
    fn length(&self) -> Option<u64> {
        Some(self.inner.packed.length())
    }

    fn ranges(&self) -> bool {
        !self.inner.packed.is_stream() && self.inner.fetch.ranges()
    }

    fn reads_a_task(&self) -> bool {
        self.inner.fetch.reads_a_task()
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        without_holes(self.inner.read_parts(range.unwrap_or(self.inner.whole()))).await
    }

    fn has_members(&self) -> bool {
        true
    }

    fn count_in(&self, count: &RequestCount) {
        self.archive.count_in(count);
    }

    async fn read_parts(&self, range: ByteRange) -> Result<PartStream, SourceError> {
        Ok(self.inner.read_parts(range))
    }
}

/// The units and the archive they are in.
pub(super) struct Batches<P> {
    pub fetch: Fetch,
    pub packed: P,
    kept: Kept,
}

/// A run of bytes of one kind.
enum Segment {
    Zeros(u64),
    /// Short units, by their places in the table, which lie together in the archive.
    Batch(Range<usize>),
    /// A part of a long one.
    Long(usize),
}

impl<P: Packed> Batches<P> {
    /// Over an archive of so many bytes.
    pub fn new(archive: Arc<dyn Origin>, archive_length: u64, packed: P) -> Arc<Self> {
        let fetch = Fetch::new(archive, archive_length);
        Arc::new(Self { fetch, packed, kept: Kept::default() })
    }

    /// The whole space.
    pub fn whole(&self) -> ByteRange {
        ByteRange::new(0, self.packed.length())
    }

    /// See [`Origin::read_parts`].
    pub fn read_parts(self: &Arc<Self>, range: ByteRange) -> PartStream {
        // Nothing lies behind the end, also when a hostile asker says so.
        let end = self.packed.length();
        let range = ByteRange::new(range.start.min(end), range.end.min(end));
        let at_once = if self.fetch.ranges() { AT_ONCE } else { 1 };
        let (segments, batches) = (self.segments(range), Arc::clone(self));
        let opened = segments.into_iter().map(move |segment| {
            let batches = Arc::clone(&batches);
            match segment {
                Segment::Zeros(count) => {
                    future::ok(zeros(count).map_ok(Piece::Bytes).boxed()).boxed()
                }
                Segment::Batch(units) => batches.batch(units, range).boxed(),
                Segment::Long(unit) => P::long(batches, unit, range),
            }
        });
        stream::iter(opened).buffered(at_once).try_flatten().boxed()
    }

    fn segments(&self, range: ByteRange) -> Vec<Segment> {
        let units = self.packed.units();
        let mut at = units.partition_point(|unit| P::place(unit).end <= range.start);
        let mut segments = Vec::new();
        let mut end = range.start;
        while let Some(unit) = units.get(at).filter(|unit| P::place(unit).start < range.end) {
            let start = P::place(unit).start;
            if start > end {
                segments.push(Segment::Zeros(start - end));
            }
            let is_short = P::is_short(unit);
            let next = if is_short { self.batch_end(at, range) } else { at + 1 };
            segments.push(if is_short { Segment::Batch(at..next) } else { Segment::Long(at) });
            end = P::place(&units[next - 1]).end.min(range.end);
            at = next;
        }
        if range.end > end {
            segments.push(Segment::Zeros(range.end - end));
        }
        segments
    }

    /// Where the batch that begins with unit `first` ends.
    fn batch_end(&self, first: usize, range: ByteRange) -> usize {
        let units = &self.packed.units()[first..];
        let (begin, mut length) = (P::extent(&units[0]).start, 0);
        let mut before = P::extent(&units[0]).end;
        let more = units.iter().take_while(|unit| {
            let (place, extent) = (P::place(unit), P::extent(unit));
            length += place.len();
            let near = extent.start >= begin && extent.start <= before + GAP;
            before = before.max(extent.end);
            let fits = extent.end.saturating_sub(begin) <= BATCH && length <= BATCH;
            place.start < range.end && P::is_short(unit) && near && fits
        });
        first + more.count().max(1)
    }

    /// The bytes of `range` that these units have, zeros between them.
    async fn batch(
        self: Arc<Self>,
        units: Range<usize>,
        range: ByteRange,
    ) -> Result<PartStream, SourceError> {
        let bodies = self.bodies(units.clone()).await?;
        let units = &self.packed.units()[units];
        let mut pieces = Vec::with_capacity(2 * bodies.len());
        let mut end = units.first().map_or(0, |unit| P::place(unit).start.max(range.start));
        for (place, body) in units.iter().map(P::place).zip(bodies) {
            let wanted = place.intersection(range);
            pieces.push(zeros(wanted.start.saturating_sub(end)).map_ok(Piece::Bytes).boxed());
            let (start, stop) = (wanted.start - place.start, wanted.end - place.start);
            let piece = match body {
                Ok(body) => Piece::Bytes(body.slice(start as usize..stop as usize)),
                Err(error) => Piece::Void { length: wanted.len(), error },
            };
            pieces.push(stream::iter([Ok(piece)]).boxed());
            end = wanted.end;
        }
        Ok(stream::iter(pieces).flatten().boxed())
    }

    /// The whole of each of these units, kept or fetched now, or what is wrong with it alone.
    async fn bodies(
        self: &Arc<Self>,
        units: Range<usize>,
    ) -> Result<Vec<Result<Bytes, SourceError>>, SourceError> {
        let table = self.packed.units();
        let is_kept = |&unit: &usize| Kept::takes(P::place(&table[unit]).len());
        let longer: Vec<usize> =
            units.clone().filter(|unit| is_kept(unit) && self.kept.get(*unit).is_none()).collect();
        let _turns = self.kept.turns(&longer).await;
        let mut kept: Vec<Option<Bytes>> = units.clone().map(|unit| self.kept.get(unit)).collect();
        let missing = units.clone().zip(&kept).filter(|(_, body)| body.is_none());
        let missing: Vec<usize> = missing.map(|(unit, _)| unit).collect();
        let extents = missing.iter().map(|&unit| P::extent(&table[unit]));
        let span = extents.reduce(|a, b| ByteRange::new(a.start.min(b.start), a.end.max(b.end)));
        let Some(span) = span else { return Ok(kept.into_iter().flatten().map(Ok).collect()) };
        let archive = self.fetch.bytes(span).await?;
        let inner = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || inner.unpack(&missing, &archive, span));
        let unpacked = work.await;
        let unpacked =
            unpacked.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let mut unpacked = unpacked.into_iter();
        let bodies = kept.iter_mut().map_while(|body| match body.take() {
            Some(body) => Some(Ok(body)),
            None => unpacked.next(),
        });
        Ok(bodies.collect())
    }

    /// The bodies of these units, from the bytes of the archive that stand at `span`; those that are sound are kept.
    fn unpack(
        &self,
        missing: &[usize],
        archive: &Bytes,
        span: ByteRange,
    ) -> Vec<Result<Bytes, SourceError>> {
        let units = self.packed.units();
        let mut bodies = Vec::with_capacity(missing.len());
        for together in missing.chunk_by(|&a, &b| P::extent(&units[a]) == P::extent(&units[b])) {
            let extent = P::extent(&units[together[0]]);
            let end = archive.len().min((extent.end - span.start) as usize);
            let packed = archive.slice(end.min((extent.start - span.start) as usize)..end);
            let sharing: Vec<&P::Unit> = together.iter().map(|&unit| &units[unit]).collect();
            bodies.extend(self.packed.unpack(&sharing, &packed));
        }
        for (&unit, body) in missing.iter().zip(&bodies) {
            if let Ok(body) = body {
                self.kept.put(unit, body);
            }
        }
        bodies
    }
}
