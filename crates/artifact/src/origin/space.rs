//! Members of a listing laid side by side.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use dfs_model::ByteRange;
use dfs_source::{ByteStream, Source, SourceError, Target};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future, stream};

use super::wholes::Wholes;
use super::{
    Counted, MembersHere, Origin, Part, PartStream, RequestCount, cut, without_holes, zeros,
};
use crate::members::{Member, MemberTable};

/// Members asked for at a time within one read: as many as a group of small files has, so that it is there after one
/// answer's time.
const REQUESTS_AT_ONCE: usize = 16;
/// Members that may fail one after another before it is the origin that does.
const FAILING: usize = 8;
/// A part up to this many bytes is taken whole while earlier ones are still being read.
const TAKEN_WHOLE: u64 = 256 * 1024;

/// A space: members at their offsets, zeros between them.
pub struct SpaceOrigin {
    source: Arc<Counted>,
    base: Target,
    table: Arc<MemberTable>,
    wholes: Arc<Wholes>,
    earlier: Arc<OnceLock<Arc<dyn MembersHere>>>,
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
    member: Member,
}

impl Slice {
    /// What of the member it is.
    fn part(&self) -> ByteRange {
        self.range.unwrap_or(ByteRange::new(0, self.length))
    }
}

impl SpaceOrigin {
    /// The space of a table whose members lie below `base`.
    pub fn new(source: Arc<dyn Source>, base: Target, table: Arc<MemberTable>) -> Self {
        let (source, wholes) = (Arc::new(Counted::new(source)), Arc::default());
        Self { source, base, table, wholes, earlier: Arc::default() }
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
                member,
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

    fn count_in(&self, count: &RequestCount) {
        self.source.requests.count_in(count);
    }

    fn take_from(&self, earlier: Arc<dyn MembersHere>) {
        // The first one stays: it is of when the task was opened.
        let _ = self.earlier.set(earlier);
    }

    async fn read_parts(&self, range: ByteRange) -> Result<PartStream, SourceError> {
        // Nothing lies behind the end, also when a hostile asker says so.
        let end = self.table.length();
        let range = ByteRange::new(range.start.min(end), range.end.min(end));
        let (source, wholes) = (Arc::clone(&self.source), Arc::clone(&self.wholes));
        let health = Arc::new(Health::default());
        let (members_health, earlier) = (Arc::clone(&health), Arc::clone(&self.earlier));
        let opened = self.segments(range)?.into_iter().map(move |segment| match segment {
            Segment::Zeros(count) => future::ok(zeros(count).map_ok(Came::Bytes).boxed()).boxed(),
            Segment::Member(part) => {
                let (source, wholes) = (Arc::clone(&source), Arc::clone(&wholes));
                let (health, earlier) = (Arc::clone(&members_health), Arc::clone(&earlier));
                let opened = async move {
                    match here(earlier.get(), &part).await {
                        Some(bytes) => Ok(stream::iter([Ok(Came::Bytes(bytes))]).boxed()),
                        None => open_part(source, wholes, part, health).await,
                    }
                };
                opened.boxed()
            }
        });
        let came = stream::iter(opened).buffered(REQUESTS_AT_ONCE).try_flatten().boxed();
        Ok(decided(came, health))
    }
}

/// What came of a run, some of which only its neighbours can explain.
enum Came {
    Bytes(Bytes),
    /// The member is another one now, or is not given.
    Void {
        length: u64,
        error: SourceError,
    },
    /// Its retries are over: the member's own fault if another one is well, the origin's otherwise.
    Doubtful {
        length: u64,
        error: SourceError,
    },
}

type CameStream = BoxStream<'static, Result<Came, SourceError>>;

/// Holds back what is doubtful until a member is well; where none is, the origin failed. Behind it there is
/// little to hold: zeros, other holes, and what was here already; bytes of the origin's are a member that is well.
fn decided(came: CameStream, health: Arc<Health>) -> PartStream {
    let begin = (came, VecDeque::new(), health);
    let parts = stream::try_unfold(begin, |(mut came, mut held, health)| async move {
        loop {
            let part = match held.pop_front() {
                Some(Came::Bytes(bytes)) => Part::Bytes(bytes),
                Some(Came::Void { length, error }) => Part::Void { length, error },
                Some(Came::Doubtful { length, error }) if health.is_anybody_well() => {
                    Part::Void { length, error }
                }
                doubtful => {
                    let next = came.try_next().await?;
                    match (doubtful, next) {
                        (None, None) => return Ok(None),
                        (Some(Came::Doubtful { error, .. }), None) => return Err(error),
                        (doubtful, next) => {
                            doubtful.into_iter().for_each(|first| held.push_front(first));
                            held.extend(next);
                        }
                    }
                    continue;
                }
            };
            return Ok(Some((part, (came, held, health))));
        }
    });
    parts.boxed()
}

/// How the members of one read fare: whether one that fails however often it is asked does so alone, or the
/// whole origin fails.
#[derive(Default)]
struct Health {
    /// Members that are well.
    well: AtomicUsize,
    /// Members that failed so since one was well.
    failing: AtomicUsize,
}

impl Health {
    fn well(&self) {
        self.well.fetch_add(1, Ordering::Relaxed);
        self.failing.store(0, Ordering::Relaxed);
    }

    /// One that began well failed on the way: it speaks for nobody.
    fn not_well(&self) {
        self.well.fetch_sub(1, Ordering::Relaxed);
    }

    fn is_anybody_well(&self) -> bool {
        self.well.load(Ordering::Relaxed) > 0
    }

    /// What the error makes of a member's bytes; one of the origin is given back.
    fn hole(&self, length: u64, error: SourceError) -> Result<Came, SourceError> {
        let one_of_few = || self.failing.fetch_add(1, Ordering::Relaxed) + 1 < FAILING;
        match error {
            // None where nothing was to come any more.
            error if length == 0 => Err(error),
            SourceError::NotFound { attempt } => {
                let detail = "it was listed and is not found any more".to_owned();
                Ok(Came::Void { length, error: SourceError::Changed { attempt, detail } })
            }
            SourceError::Changed { .. }
            | SourceError::NotPermitted { .. }
            | SourceError::Malformed { .. }
            | SourceError::Damaged { .. }
            | SourceError::Unreadable { .. }
            | SourceError::Encoded { .. }
            | SourceError::Redirect { .. }
            | SourceError::TooLarge { .. }
            | SourceError::Io { .. } => Ok(Came::Void { length, error }),
            // Its host answers: no connection would be nobody's.
            SourceError::Unavailable { ref cause, .. }
                if !matches!(**cause, SourceError::Unreachable { .. }) && one_of_few() =>
            {
                Ok(Came::Doubtful { length, error })
            }
            other => Err(other),
        }
    }
}

/// A part of a member that is here already. It says nothing of the origin.
async fn here(earlier: Option<&Arc<dyn MembersHere>>, part: &Slice) -> Option<Bytes> {
    let earlier = earlier.filter(|_| part.length <= TAKEN_WHOLE)?;
    earlier.part_of(&part.member, part.part()).await
}

/// Begins to read a part of a member. What the origin does not give of it is a hole.
async fn open_part(
    source: Arc<Counted>,
    wholes: Arc<Wholes>,
    part: Box<Slice>,
    health: Arc<Health>,
) -> Result<CameStream, SourceError> {
    let length = part.length;
    match open_member(source, wholes, part).await {
        Ok(bytes) => {
            health.well();
            Ok(with_holes(bytes, length, health))
        }
        Err(error) => {
            let hole = health.hole(length, error)?;
            Ok(stream::iter([Ok(hole)]).boxed())
        }
    }
}

/// A member's bytes; where they end because it changed or failed on the way, what is left of `length` is a
/// hole. That may show only behind the last byte: the last bytes are held back until they are known to be all.
fn with_holes(bytes: ByteStream, length: u64, health: Arc<Health>) -> CameStream {
    stream::unfold((bytes, length, health), |(mut bytes, left, health)| async move {
        let hole = |left: u64, error: SourceError, health: Arc<Health>| {
            health.not_well();
            let hole = health.hole(left, error);
            Some((hole, (stream::empty().boxed(), 0, health)))
        };
        let part = match bytes.next().await? {
            Ok(part) => part,
            Err(error) => return hole(left, error, health),
        };
        let still = left.saturating_sub(part.len() as u64);
        if still > 0 || part.is_empty() {
            return Some((Ok(Came::Bytes(part)), (bytes, still, health)));
        }
        let next = match bytes.next().await {
            Some(Err(error)) => return hole(part.len() as u64, error, health),
            next => stream::iter(next).chain(bytes).boxed(),
        };
        Some((Ok(Came::Bytes(part)), (next, 0, health)))
    })
    .boxed()
}

/// Begins to read a part of a member; one that can only be read whole is read whole, kept for the other
/// parts, and cut.
async fn open_member(
    source: Arc<Counted>,
    wholes: Arc<Wholes>,
    part: Box<Slice>,
) -> Result<ByteStream, SourceError> {
    if let Some(range) = part.range
        && wholes.are_needed()
    {
        return part_of_whole(&source, &wholes, &part, range).await;
    }
    let stream =
        match (source.read(&part.target, part.range, &part.member.validator).await, part.range) {
            (Err(SourceError::RangeIgnored { .. }), Some(range)) => {
                wholes.need();
                return part_of_whole(&source, &wholes, &part, range).await;
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
    source: &Counted,
    wholes: &Wholes,
    part: &Slice,
    range: ByteRange,
) -> Result<ByteStream, SourceError> {
    if part.member.length > Wholes::LARGEST {
        return Ok(cut(source.read(&part.target, None, &part.member.validator).await?, range));
    }
    let body = wholes
        .get(part.target.url.as_str(), part.member.length, async {
            gather(
                source.read(&part.target, None, &part.member.validator).await?,
                part.member.length,
            )
            .await
        })
        .await?;
    let (start, end) = (range.start.min(part.member.length), range.end.min(part.member.length));
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
    use dfs_model::{CanonicalUrl, Validator};
    use dfs_source::{Action, Attempt, Entry, Stat};

    use super::*;

    fn attempt() -> Attempt {
        let url = CanonicalUrl::parse("http://origin.test/x").unwrap();
        Attempt::new(Action::Read(None), &url)
    }

    fn longer() -> SourceError {
        let attempt = attempt();
        SourceError::Changed { attempt, detail: "it goes on behind its end".to_owned() }
    }

    /// Lengths of the parts, those of holes negative.
    async fn parts_of(sent: Vec<Result<Bytes, SourceError>>, length: u64) -> Vec<i64> {
        let health = Arc::new(Health::default());
        health.well();
        let came = with_holes(stream::iter(sent).boxed(), length, Arc::clone(&health));
        let parts = decided(came, health);
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
        holes_among(20, names, cause).await
    }

    async fn holes_among(
        members: u64,
        names: &[&'static str],
        cause: fn(Attempt) -> SourceError,
    ) -> Result<usize, SourceError> {
        let member = |number: u64| Member {
            path: format!("m{number:02}").into_bytes(),
            offset: number * 4096,
            length: 100,
            validator: Validator::default(),
        };
        let table = Arc::new(MemberTable::new((0..members).map(member)).unwrap());
        let base = Target::new(CanonicalUrl::parse("http://origin.test/d/").unwrap());
        let source = Arc::new(Failing { names: names.to_vec(), cause });
        let origin = SpaceOrigin::new(source, base, table);
        let parts = origin.read_parts(ByteRange::new(0, members * 4000)).await?;
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

    #[tokio::test]
    async fn few_members_that_all_fail_are_no_holes_but_a_failing_origin() {
        let first = ["m00", "m01", "m02", "m03"];
        for members in [1, 4] {
            let failed = holes_among(members, &first, busy).await;
            assert!(matches!(failed, Err(SourceError::Unavailable { .. })), "{failed:?}");
        }
        assert_eq!(holes_among(5, &first, busy).await.unwrap(), 4, "the last one is well");
        assert_eq!(holes_among(5, &["m01", "m02", "m03", "m04"], busy).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn a_member_that_is_cut_off_for_good_does_not_speak_for_itself() {
        let attempt = attempt();
        let gone = SourceError::Unavailable {
            cause: Box::new(busy(attempt.clone())),
            attempt,
            attempts: 6,
            retry_after: None,
        };
        let sent = || vec![Ok(Bytes::from(vec![1; 60])), Err(gone.clone())];
        let health = Arc::new(Health::default());
        health.well();
        let came = with_holes(stream::iter(sent()).boxed(), 100, Arc::clone(&health));
        let parts: Vec<_> = decided(came, Arc::clone(&health)).collect().await;
        assert!(matches!(parts[..], [Ok(Part::Bytes(_)), Err(_)]), "{parts:?}");
        (0..2).for_each(|_| health.well());
        let came = with_holes(stream::iter(sent()).boxed(), 100, Arc::clone(&health));
        let parts: Vec<_> = decided(came, health).collect().await;
        assert!(matches!(parts[..], [Ok(Part::Bytes(_)), Ok(Part::Void { length: 40, .. })]));
    }
}
