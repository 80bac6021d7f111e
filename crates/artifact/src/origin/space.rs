//! Members of a listing laid side by side.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
        let health = Arc::new(Health::default());
        let opened = self.segments(range)?.into_iter().map(move |segment| match segment {
            Segment::Zeros(count) => future::ok(zeros(count).map_ok(Part::Bytes).boxed()).boxed(),
            Segment::Member(part) => {
                let health = Arc::clone(&health);
                open_part(Arc::clone(&source), Arc::clone(&wholes), part, health).boxed()
            }
        });
        Ok(stream::iter(opened).buffered(REQUESTS_AT_ONCE).try_flatten().boxed())
    }
}

/// How the members of one read fare: whether one that fails however often it is asked does so alone, or the
/// whole origin fails.
#[derive(Default)]
struct Health {
    /// Members that failed so since one was well.
    failing: AtomicUsize,
}

impl Health {
    fn well(&self) {
        self.failing.store(0, Ordering::Relaxed);
    }

    /// The error as one of this member alone, whose neighbours may be well; otherwise it is given back.
    fn alone(&self, error: SourceError) -> Result<SourceError, SourceError> {
        let one_of_few = || self.failing.fetch_add(1, Ordering::Relaxed) + 1 < REQUESTS_AT_ONCE;
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
            // Its host answers: no connection would be nobody's.
            SourceError::Unavailable { ref cause, .. }
                if !matches!(**cause, SourceError::Unreachable { .. }) && one_of_few() =>
            {
                Ok(error)
            }
            other => Err(other),
        }
    }
}

/// Begins to read a part of a member. What the origin does not give of it is a hole.
async fn open_part(
    source: Arc<dyn Source>,
    wholes: Arc<Wholes>,
    part: Box<Slice>,
    health: Arc<Health>,
) -> Result<PartStream, SourceError> {
    let length = part.length;
    match open_member(source, wholes, part).await {
        Ok(bytes) => {
            health.well();
            Ok(with_holes(bytes, length, health))
        }
        Err(error) => {
            let error = health.alone(error)?;
            Ok(stream::iter([Ok(Part::Void { length, error })]).boxed())
        }
    }
}

/// A member's bytes; where they end because it changed or failed on the way, what is left of `length` is a hole. That may
/// show only behind the last byte: the last bytes are held back until they are known to be all.
fn with_holes(bytes: ByteStream, length: u64, health: Arc<Health>) -> PartStream {
    stream::unfold((bytes, length, health), |(mut bytes, left, health)| async move {
        let part = match bytes.next().await? {
            Ok(part) => part,
            Err(error) => {
                let hole = void(left, error, &health);
                return Some((hole, (stream::empty().boxed(), 0, health)));
            }
        };
        let still = left.saturating_sub(part.len() as u64);
        if still > 0 || part.is_empty() {
            return Some((Ok(Part::Bytes(part)), (bytes, still, health)));
        }
        let next = match bytes.next().await {
            Some(Err(error)) => {
                let hole = void(part.len() as u64, error, &health);
                return Some((hole, (stream::empty().boxed(), 0, health)));
            }
            next => stream::iter(next).chain(bytes).boxed(),
        };
        Some((Ok(Part::Bytes(part)), (next, 0, health)))
    })
    .boxed()
}

/// A hole of so many bytes, which is none where nothing was to come any more.
fn void(length: u64, error: SourceError, health: &Health) -> Result<Part, SourceError> {
    let error = health.alone(error)?;
    if length == 0 {
        return Err(error);
    }
    Ok(Part::Void { length, error })
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

#[cfg(test)]
mod tests {
    use dfs_model::CanonicalUrl;
    use dfs_source::{Action, Attempt, Entry, Stat};

    use super::*;
    use crate::members::Member;

    fn longer() -> SourceError {
        let url = CanonicalUrl::parse("http://origin.test/x").unwrap();
        let attempt = Attempt::new(Action::Read(None), &url);
        SourceError::Changed { attempt, detail: "it goes on behind its end".to_owned() }
    }

    /// Lengths of the parts, those of holes negative.
    async fn parts_of(sent: Vec<Result<Bytes, SourceError>>, length: u64) -> Vec<i64> {
        let parts = with_holes(stream::iter(sent).boxed(), length, Arc::default());
        let told = parts.map_ok(|part| match part {
            Part::Bytes(bytes) => bytes.len() as i64,
            Part::Void { length, .. } => -(length as i64),
        });
        told.try_collect().await.unwrap()
    }

    #[tokio::test]
    async fn a_member_that_goes_on_behind_its_end_has_its_hole_before_it() {
        let bytes = |count: usize| Ok(Bytes::from(vec![1; count]));
        assert_eq!(parts_of(vec![bytes(60), bytes(40)], 100).await, [60, 40]);
        assert_eq!(parts_of(vec![bytes(60), Err(longer())], 100).await, [60, -40]);
        assert_eq!(parts_of(vec![bytes(60), bytes(40), Err(longer())], 100).await, [60, -40]);
        assert_eq!(parts_of(vec![bytes(100), Err(longer())], 100).await, [-100]);
    }

    /// Members of a hundred bytes each, of which those named fail with every attempt.
    struct Failing {
        names: Vec<&'static str>,
        cause: fn(Attempt) -> SourceError,
    }

    #[async_trait]
    impl Source for Failing {
        async fn stat(&self, _: &Target) -> Result<Stat, SourceError> {
            unreachable!("the table tells")
        }

        async fn read(
            &self,
            target: &Target,
            _: Option<ByteRange>,
            _: &Validator,
        ) -> Result<ByteStream, SourceError> {
            if self.names.iter().any(|name| target.url.as_str().ends_with(name)) {
                let attempt = Attempt::new(Action::Read(None), &target.url);
                let cause = Box::new((self.cause)(attempt.clone()));
                let (attempts, retry_after) = (6, None);
                return Err(SourceError::Unavailable { attempt, attempts, retry_after, cause });
            }
            Ok(stream::iter([Ok(Bytes::from(vec![1; 100]))]).boxed())
        }

        fn list(&self, _: &Target) -> stream::BoxStream<'static, Result<Entry, SourceError>> {
            unreachable!("it is known what there is")
        }
    }

    fn busy(attempt: Attempt) -> SourceError {
        SourceError::Status { attempt, status: 503, retry_after: None }
    }

    fn unreachable_host(attempt: Attempt) -> SourceError {
        SourceError::Unreachable { attempt, cause: Arc::new(std::fmt::Error) }
    }

    /// Holes in a run of twenty members of which some fail, or that the run failed.
    async fn holes_of(
        names: &[&'static str],
        cause: fn(Attempt) -> SourceError,
    ) -> Result<usize, SourceError> {
        let member = |number: u64| Member {
            path: format!("m{number:02}").into_bytes(),
            offset: number * 4096,
            length: 100,
            validator: Validator::default(),
        };
        let table = Arc::new(MemberTable::new((0..20).map(member).collect()).unwrap());
        let base = Target::new(CanonicalUrl::parse("http://origin.test/d/").unwrap());
        let source = Arc::new(Failing { names: names.to_vec(), cause });
        let origin = SpaceOrigin::new(source, base, table);
        let parts = origin.read_parts(ByteRange::new(0, 80_000)).await?;
        let parts: Vec<Part> = parts.try_collect().await?;
        Ok(parts.iter().filter(|part| matches!(part, Part::Void { .. })).count())
    }

    #[tokio::test]
    async fn a_member_that_always_fails_is_a_hole_and_an_origin_that_does_is_none() {
        assert_eq!(holes_of(&["m03", "m17"], busy).await.unwrap(), 2);
        holes_of(&["m03"], unreachable_host).await.unwrap_err();
        let failed = holes_of(&["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], busy).await;
        assert!(matches!(failed, Err(SourceError::Unavailable { .. })), "{failed:?}");
    }
}
