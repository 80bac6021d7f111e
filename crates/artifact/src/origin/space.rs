//! Members of a listing laid side by side.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use dfs_model::{ByteRange, Validator};
use dfs_source::{ByteStream, Source, SourceError, Target};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future, stream};

use super::wholes::Wholes;
use super::{Origin, Part, PartStream, cut, without_holes, zeros};
use crate::members::MemberTable;

/// Members asked for at a time within one read.
const REQUESTS_AT_ONCE: usize = 8;
/// A part up to this many bytes is taken whole while earlier ones are still being read.
const TAKEN_WHOLE: u64 = 256 * 1024;

/// A space: members at their offsets, zeros between them.
pub struct SpaceOrigin {
    source: Arc<dyn Source>,
    base: Target,
    table: Arc<MemberTable>,
    wholes: Arc<Wholes>,
}

/// A run of bytes of one kind.
enum Segment {
    Zeros(u64),
    Member(Box<Slice>),
}

/// A part of a member, or all of it.
struct Slice {
    target: Target,
    /// `None`: all of it.
    range: Option<ByteRange>,
    length: u64,
    /// Of the member.
    whole: u64,
    pin: Validator,
}

impl SpaceOrigin {
    /// The space of a table whose members lie below `base`.
    pub fn new(source: Arc<dyn Source>, base: Target, table: Arc<MemberTable>) -> Self {
        Self { source, base, table, wholes: Arc::default() }
    }

    fn segments(&self, range: ByteRange) -> Result<Vec<Segment>, SourceError> {
        let members = self.table.touched(range);
        let mut segments = Vec::with_capacity(2 * members.len() + 1);
        let mut at = range.start;
        for member in members {
            let wanted = member.range().intersection(range);
            if wanted.start > at {
                segments.push(Segment::Zeros(wanted.start - at));
            }
            at = wanted.end;
            let part = ByteRange::new(wanted.start - member.offset, wanted.end - member.offset);
            segments.push(Segment::Member(Box::new(Slice {
                target: self.base.join(&member.path)?,
                range: (part.len() < member.length).then_some(part),
                length: part.len(),
                whole: member.length,
                pin: member.validator.clone(),
            })));
        }
        if range.end > at {
            segments.push(Segment::Zeros(range.end - at));
        }
        Ok(segments)
    }
}

#[async_trait]
impl Origin for SpaceOrigin {
    fn length(&self) -> Option<u64> {
        Some(self.table.length())
    }

    fn ranges(&self) -> bool {
        true
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        let range = range.unwrap_or(ByteRange::new(0, self.table.length()));
        without_holes(self.read_parts(range).await?).await
    }

    fn has_members(&self) -> bool {
        true
    }

    async fn read_parts(&self, range: ByteRange) -> Result<PartStream, SourceError> {
        // Nothing lies behind the end, also when a hostile asker says so.
        let end = self.table.length();
        let range = ByteRange::new(range.start.min(end), range.end.min(end));
        let (source, wholes) = (Arc::clone(&self.source), Arc::clone(&self.wholes));
        let opened = self.segments(range)?.into_iter().map(move |segment| match segment {
            Segment::Zeros(count) => future::ok(zeros(count).map_ok(Part::Bytes).boxed()).boxed(),
            Segment::Member(part) => {
                open_part(Arc::clone(&source), Arc::clone(&wholes), part).boxed()
            }
        });
        Ok(stream::iter(opened).buffered(REQUESTS_AT_ONCE).try_flatten().boxed())
    }
}

/// Begins to read a part of a member. What the origin does not have of it any more is a hole.
async fn open_part(
    source: Arc<dyn Source>,
    wholes: Arc<Wholes>,
    part: Box<Slice>,
) -> Result<PartStream, SourceError> {
    let length = part.length;
    match open_member(source, wholes, part).await {
        Ok(bytes) => Ok(with_holes(bytes, length)),
        Err(error) => {
            let error = gone(error)?;
            Ok(stream::iter([Ok(Part::Void { length, error })]).boxed())
        }
    }
}

/// A member's bytes; where they end because it changed on the way, what is left of `length` is a hole.
fn with_holes(bytes: ByteStream, length: u64) -> PartStream {
    stream::unfold((bytes, length), |(mut bytes, left)| async move {
        let next = match bytes.next().await? {
            Ok(bytes) => Ok(Part::Bytes(bytes)),
            Err(error) => gone(error).map(|error| Part::Void { length: left, error }),
        };
        match &next {
            Ok(Part::Bytes(part)) => {
                let left = left.saturating_sub(part.len() as u64);
                Some((next, (bytes, left)))
            }
            // Nothing follows.
            _ => Some((next, (stream::empty().boxed(), 0))),
        }
    })
    .boxed()
}

/// The error as one of this member alone, whose neighbours may be well; otherwise it is given back.
fn gone(error: SourceError) -> Result<SourceError, SourceError> {
    match error {
        SourceError::NotFound { attempt } => {
            let detail = "it was listed and is not found any more".to_owned();
            Ok(SourceError::Changed { attempt, detail })
        }
        SourceError::Changed { .. }
        | SourceError::NotPermitted { .. }
        | SourceError::Malformed { .. }
        | SourceError::Encoded { .. }
        | SourceError::Redirect { .. }
        | SourceError::TooLarge { .. }
        | SourceError::Io { .. } => Ok(error),
        other => Err(other),
    }
}

/// Begins to read a part of a member; one that can only be read whole is read whole, kept for the other
/// parts, and cut.
async fn open_member(
    source: Arc<dyn Source>,
    wholes: Arc<Wholes>,
    part: Box<Slice>,
) -> Result<ByteStream, SourceError> {
    if let Some(range) = part.range
        && wholes.are_needed()
    {
        return part_of_whole(&*source, &wholes, &part, range).await;
    }
    let stream = match (source.read(&part.target, part.range, &part.pin).await, part.range) {
        (Err(SourceError::RangeIgnored { .. }), Some(range)) => {
            wholes.need();
            return part_of_whole(&*source, &wholes, &part, range).await;
        }
        (answer, _) => answer?,
    };
    if part.length > TAKEN_WHOLE {
        return Ok(stream);
    }
    let body = gather(stream, part.length).await?;
    Ok(stream::iter([Ok(body)]).boxed())
}

/// A part of a member whose origin knows no ranges.
async fn part_of_whole(
    source: &dyn Source,
    wholes: &Wholes,
    part: &Slice,
    range: ByteRange,
) -> Result<ByteStream, SourceError> {
    if part.whole > Wholes::LARGEST {
        return Ok(cut(source.read(&part.target, None, &part.pin).await?, range));
    }
    let body = wholes
        .get(part.target.url.as_str(), part.whole, async {
            gather(source.read(&part.target, None, &part.pin).await?, part.whole).await
        })
        .await?;
    let (start, end) = (range.start.min(part.whole), range.end.min(part.whole));
    Ok(stream::iter([Ok(body.slice(start as usize..end as usize))]).boxed())
}

/// All of a stream of `length` bytes.
async fn gather(stream: ByteStream, length: u64) -> Result<Bytes, SourceError> {
    let add = |mut sum: BytesMut, bytes: Bytes| {
        sum.extend_from_slice(&bytes);
        future::ok(sum)
    };
    let body = stream.try_fold(BytesMut::with_capacity(length as usize), add).await?;
    Ok(body.freeze())
}
