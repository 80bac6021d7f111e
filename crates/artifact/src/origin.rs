//! The bytes of a task from its origin: one URL, or the members of a space with zeros between them.
//!
//! Invariant: every byte is of the version that the recipe pins. A member that changed fails the reads
//! that touch it and no others: who reads a longer run takes its parts ([`Origin::read_parts`]), among which a
//! changed member is a hole.

mod space;
mod wholes;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, Validator};
use dfs_source::{ByteStream, Credentials, Source, SourceError, Sources, Target};
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::recipe::{OriginRecipe, Recipe};
pub use space::SpaceOrigin;

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

    /// As [`Origin::read`], but a member that changed does not end it.
    async fn read_parts(&self, range: ByteRange) -> Result<PartStream, SourceError> {
        Ok(self.read(Some(range)).await?.map_ok(Part::Bytes).boxed())
    }
}

/// The origin of a recipe's task, asked with these credentials.
pub fn open_origin(
    recipe: &Recipe,
    sources: &Sources,
    credentials: Credentials,
) -> Result<Arc<dyn Origin>, SourceError> {
    match &recipe.origin {
        OriginRecipe::Url { place, ranges } => {
            let target = place.target(credentials);
            let source = sources.for_target(&target)?;
            let pin = recipe.key.validator.clone();
            Ok(Arc::new(UrlOrigin { source, target, pin, length: recipe.length, ranges: *ranges }))
        }
        OriginRecipe::Members { base, table } => {
            let base = base.target(credentials);
            let source = sources.for_target(&base)?;
            Ok(Arc::new(SpaceOrigin::new(source, base, Arc::clone(table))))
        }
    }
}

/// One URL.
pub struct UrlOrigin {
    source: Arc<dyn Source>,
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
}

/// Bytes `range` of a longer stream.
fn cut(stream: ByteStream, range: ByteRange) -> ByteStream {
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
