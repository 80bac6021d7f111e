//! The bytes of a task from its origin: one URL, what a compressed one unpacks to, the members of a space
//! with zeros between them, the parts of an archive, or the chunks of a blob.
//!
//! Invariant: every byte is of the version that the recipe pins. A member that changed fails the reads
//! that touch it and no others: who reads a longer run takes its parts ([`Origin::read_parts`]), among which a
//! changed member is a hole.

mod batches;
mod chunked;
mod fetch;
mod forward;
mod kept;
mod line;
mod parts;
mod requests;
mod space;
mod unpacked;
mod wholes;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, Transform, Validator};
use dfs_source::{ByteStream, Credentials, SourceError, Sources, Target};
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::members::Member;
use crate::recipe::{OriginRecipe, Recipe};
use crate::unpack::Checkpoints;
use chunked::ChunkedOrigin;
#[cfg(test)]
pub(crate) use chunked::tests::space_of;
pub(crate) use forward::Forward;
pub use line::Line;
use line::READ_OVER;
use parts::PartsOrigin;
pub(crate) use parts::part_of;
use requests::Counted;
pub use requests::{RequestCount, Requests};
pub use space::SpaceOrigin;
pub use unpacked::{KeepCheckpoints, UnpackedOrigin};

/// The next bytes of what was asked for, or a hole in it.
#[derive(Debug, Clone)]
pub enum Part {
    /// Bytes.
    Bytes(Bytes),
    /// Bytes that the origin does not have as they were pinned; what lies behind them follows.
    Void {
        /// How many.
        length: u64,
        /// What the origin said, and of which member.
        error: SourceError,
    },
}

/// Parts in the order of their places. It ends after the first error.
pub type PartStream = BoxStream<'static, Result<Part, SourceError>>;

/// Members that are here already, as parts of other spaces: of an earlier version of their listing.
#[async_trait]
pub trait MembersHere: Send + Sync {
    /// A part of a member, in the very version that it names; `None` where that is not here.
    async fn part_of(&self, member: &Member, part: ByteRange) -> Option<Bytes>;
}

/// Where a task's bytes come from when no peer has them.
#[async_trait]
pub trait Origin: Send + Sync {
    /// Bytes in the task; `None` when only reading it tells.
    fn length(&self) -> Option<u64>;

    /// Whether a part can be read without what stands before it, as far as the origin showed.
    fn ranges(&self) -> bool;

    /// The bytes of `range`, or all; exactly these, or an error.
    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError>;

    /// Whether it is made of members, each of which may change while the others stay.
    fn has_members(&self) -> bool {
        false
    }

    /// Whether its bytes are those of another task, which asks the origin itself for what it lacks.
    fn reads_a_task(&self) -> bool {
        false
    }

    /// Adds to `count`, from now on, each request that is made to the origin. One that asks it for nothing itself
    /// need not.
    fn count_in(&self, _count: &RequestCount) {}

    /// Has what is here of members already taken from there and not asked of the origin, from now on.
    fn take_from(&self, _earlier: Arc<dyn MembersHere>) {}

    /// Who reads forward reads over a gap up to this many bytes: another request would cost more.
    fn read_over(&self) -> u64 {
        READ_OVER
    }

    /// As [`Origin::read`], but a member that changed does not end it.
    async fn read_parts(&self, range: ByteRange) -> Result<PartStream, SourceError> {
        Ok(self.read(Some(range)).await?.map_ok(Part::Bytes).boxed())
    }

    /// Bytes in the task, found out by reading all of it where nothing else tells.
    async fn known_length(&self) -> Result<u64, SourceError> {
        if let Some(length) = self.length() {
            return Ok(length);
        }
        let bytes = self.read(None).await?;
        bytes.try_fold(0, async |sum, bytes| Ok(sum + bytes.len() as u64)).await
    }
}

/// The origin of a recipe's task, asked with these credentials.
pub fn open_origin(
    recipe: &Recipe,
    sources: &Sources,
    credentials: Credentials,
) -> Result<Arc<dyn Origin>, SourceError> {
    if let Some(archive) = recipe.archive() {
        let archive = open_origin(&archive, sources, credentials)?;
        return Ok(open_inside(recipe, archive));
    }
    match &recipe.origin {
        OriginRecipe::Members { base, table } => {
            let base = base.target(credentials);
            let source = sources.for_target(&base)?;
            Ok(Arc::new(SpaceOrigin::new(source, base, Arc::clone(table))))
        }
        OriginRecipe::Url { place, ranges }
        | OriginRecipe::Parts { place, ranges, .. }
        | OriginRecipe::Chunks { place, ranges, .. } => {
            let target = place.target(credentials);
            let source = sources.for_target(&target)?;
            let pin = recipe.key.validator.clone();
            let source = Counted::new(source);
            Ok(Arc::new(UrlOrigin { source, target, pin, length: recipe.length, ranges: *ranges }))
        }
    }
}

/// Asks the origin, without moving a byte, whether it gives what stands at `range` of the recipe's task to who
/// has these credentials.
pub async fn ask_permission(
    recipe: &Recipe,
    sources: &Sources,
    credentials: Credentials,
    range: ByteRange,
) -> Result<(), SourceError> {
    let table = match &recipe.origin {
        OriginRecipe::Members { table, .. } => Some(table),
        _ => None,
    };
    let target = recipe.origin.place().target(credentials);
    let source = sources.for_target(&target)?;
    // Who may list a directory may not read all that is in it.
    if let Some(member) = table.and_then(|table| table.touched(range).next()) {
        let asked = source.stat(&target.join(&member.path)?).await;
        // One that is gone says nothing of the others.
        if !matches!(asked, Err(SourceError::NotFound { .. })) {
            return asked.map(drop);
        }
    }
    source.stat(&target).await.map(drop)
}

/// The origin of a task that is made of an archive, over the bytes of that archive: of the task that
/// [`Recipe::archive`] names.
pub fn open_inside(recipe: &Recipe, archive: Arc<dyn Origin>) -> Arc<dyn Origin> {
    match &recipe.origin {
        OriginRecipe::Parts { place, table, .. } => {
            Arc::new(PartsOrigin::new(archive, place.url.clone(), Arc::clone(table)))
        }
        OriginRecipe::Chunks { place, table, .. } => {
            Arc::new(ChunkedOrigin::new(archive, place.url.clone(), Arc::clone(table)))
        }
        _ if recipe.key.transform == Transform::Identity => archive,
        _ => {
            let (url, transform) = (recipe.origin.place().url.clone(), recipe.key.transform);
            Arc::new(UnpackedOrigin::new(archive, url, transform, recipe.length))
        }
    }
}

/// As [`open_inside`] of what is unpacked as a whole, read from `checkpoints` where those are known, and else making them
/// for `keeper`.
pub fn open_unpacked(
    recipe: &Recipe,
    archive: Arc<dyn Origin>,
    checkpoints: Option<Checkpoints>,
    keeper: Arc<dyn KeepCheckpoints>,
) -> Arc<dyn Origin> {
    let (url, transform) = (recipe.origin.place().url.clone(), recipe.key.transform);
    let unpacked = UnpackedOrigin::new(archive, url, transform, recipe.length).kept_by(keeper);
    Arc::new(match checkpoints {
        Some(checkpoints) => unpacked.with_checkpoints(checkpoints),
        None => unpacked,
    })
}

/// One URL.
pub struct UrlOrigin {
    source: Counted,
    target: Target,
    pin: Validator,
    length: Option<u64>,
    ranges: bool,
}

#[async_trait]
impl Origin for UrlOrigin {
    fn length(&self) -> Option<u64> {
        self.length
    }

    fn ranges(&self) -> bool {
        self.ranges
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        self.source.read(&self.target, range, &self.pin).await
    }

    fn count_in(&self, count: &RequestCount) {
        self.source.requests.count_in(count);
    }
}

/// Bytes without a hole; the first one is an error.
async fn without_holes(parts: PartStream) -> Result<ByteStream, SourceError> {
    let mut stream = parts.map(|part| match part? {
        Part::Bytes(bytes) => Ok(bytes),
        Part::Void { error, .. } => Err(error),
    });
    // An error before the first byte is the answer to the read itself.
    match stream.next().await {
        Some(Ok(first)) => Ok(stream::iter([Ok(first)]).chain(stream).boxed()),
        Some(Err(error)) => Err(error),
        None => Ok(stream::empty().boxed()),
    }
}

/// Bytes `range` of a longer stream.
pub fn cut(stream: ByteStream, range: ByteRange) -> ByteStream {
    let state = (stream, 0u64);
    stream::unfold(state, move |(mut stream, mut at)| async move {
        while at < range.end {
            let bytes = match stream.next().await? {
                Ok(bytes) => bytes,
                // Nothing follows an error.
                Err(error) => return Some((Err(error), (stream::empty().boxed(), range.end))),
            };
            let here = ByteRange::at(at, bytes.len() as u64);
            let wanted = here.intersection(range);
            at = here.end;
            if !wanted.is_empty() && wanted.end > here.start {
                let (start, end) = (wanted.start - here.start, wanted.end - here.start);
                return Some((Ok(bytes.slice(start as usize..end as usize)), (stream, at)));
            }
        }
        None
    })
    .boxed()
}

/// This many zeros, in small pieces that share their memory.
fn zeros(count: u64) -> ByteStream {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    stream::unfold(count, |left| async move {
        let next = left.min(ZEROS.len() as u64);
        (next > 0).then(|| (Ok(Bytes::from_static(&ZEROS[..next as usize])), left - next))
    })
    .boxed()
}
