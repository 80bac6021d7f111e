//! Long parts, as streams.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dfs_model::ByteRange;
use dfs_source::{ByteStream, SourceError};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::Parts;
use crate::origin::batches::{Batches, Packed as _};
use crate::origin::{Part as Piece, PartStream, cut};
use crate::parts::{Method, Part};
use crate::zip::member::{Inflate, LOCAL_BYTES, MemberError, extent, head_bytes};

/// Whether no other part is the worse for it.
fn is_of_the_part(error: &SourceError) -> bool {
    matches!(error, SourceError::Damaged { .. } | SourceError::Unreadable { .. })
}

impl Batches<Parts> {
    /// The bytes of `range` that a long part has; what is wrong with it alone is a hole.
    pub(super) async fn long(
        self: Arc<Self>,
        at: usize,
        range: ByteRange,
    ) -> Result<PartStream, SourceError> {
        let part = self.packed.units()[at];
        let wanted = part.range().intersection(range);
        let wanted = ByteRange::new(wanted.start - part.offset, wanted.end - part.offset);
        let opened = self.open_long(part, wanted).await;
        let (bytes, error) = match opened {
            Ok(bytes) => (bytes, None),
            Err(error) if is_of_the_part(&error) => (stream::empty().boxed(), Some(error)),
            Err(error) => return Err(error),
        };
        let refused = stream::iter(error.map(Err));
        let state = (bytes.chain(refused).boxed(), wanted.len());
        let pieces = stream::try_unfold(state, |(mut bytes, left)| async move {
            match bytes.try_next().await {
                Ok(None) => Ok(None),
                Ok(Some(next)) => {
                    let left = left.saturating_sub(next.len() as u64);
                    Ok(Some((Piece::Bytes(next), (bytes, left))))
                }
                // Nothing follows. A wrong sum after the last byte fails the whole.
                Err(error) if is_of_the_part(&error) && left > 0 => {
                    let void = Piece::Void { length: left, error };
                    Ok(Some((void, (stream::empty().boxed(), 0))))
                }
                Err(error) => Err(error),
            }
        });
        Ok(pieces.boxed())
    }

    async fn open_long(
        self: Arc<Self>,
        part: Part,
        wanted: ByteRange,
    ) -> Result<ByteStream, SourceError> {
        match part.method {
            Method::Raw => self.fetch.stream(shifted(wanted, part.from)).await,
            Method::Stored => {
                let head = self.fetch.bytes(ByteRange::at(part.from, LOCAL_BYTES)).await?;
                let head = head_bytes(&head).map_err(|error| self.packed.unfit(&part, &error))?;
                if part.from + head + part.packed > part.until {
                    return Err(self.packed.unfit(&part, &MemberError::CutOff));
                }
                self.fetch.stream(shifted(wanted, part.from + head)).await
            }
            Method::Deflated => {
                let packed = self.fetch.stream(extent(&part)).await?;
                let input = Input { stream: packed, ahead: Bytes::new() };
                let unpacking = Unpacking { inner: self, part, input, inflate: None };
                let bytes = stream::try_unfold(unpacking, Unpacking::next).boxed();
                // Read to its end also where the last byte is known to have come: then comes its sum.
                Ok(if wanted.len() == part.length { bytes } else { cut(bytes, wanted) })
            }
            Method::Refused(why) => Err(self.packed.unfit(&part, &MemberError::Refused(why))),
        }
    }
}

fn shifted(range: ByteRange, by: u64) -> ByteRange {
    ByteRange::new(range.start + by, range.end + by)
}

/// The archive from a part on.
struct Input {
    stream: ByteStream,
    ahead: Bytes,
}

impl Input {
    /// Whether more came.
    async fn refill(&mut self) -> Result<bool, SourceError> {
        while self.ahead.is_empty() {
            match self.stream.try_next().await? {
                Some(bytes) => self.ahead = bytes,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The next `count` bytes, fewer at the end.
    async fn take(&mut self, count: u64) -> Result<Bytes, SourceError> {
        let mut taken = BytesMut::new();
        while (taken.len() as u64) < count && self.refill().await? {
            let part = self.ahead.len().min(count as usize - taken.len());
            taken.extend_from_slice(&self.ahead.split_to(part));
        }
        Ok(taken.freeze())
    }
}

/// One pass through a deflated part.
struct Unpacking {
    inner: Arc<Batches<Parts>>,
    part: Part,
    input: Input,
    inflate: Option<Inflate>,
}

impl Unpacking {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, SourceError> {
        let mut inflate = match self.inflate.take() {
            Some(inflate) => inflate,
            None => self.begin().await?,
        };
        loop {
            if inflate.is_complete() {
                inflate.finish().map_err(|error| self.unfit(&error))?;
                return Ok(None);
            }
            if inflate.is_hungry() && !self.input.refill().await? {
                return Err(self.unfit(&MemberError::CutOff));
            }
            let ahead = std::mem::take(&mut self.input.ahead);
            let work = tokio::task::spawn_blocking(move || {
                let mut input = &ahead[..];
                let stepped = inflate.step(&mut input);
                let rest = ahead.slice(ahead.len() - input.len()..);
                (inflate, rest, stepped)
            });
            let done = work.await;
            let done = done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            let stepped;
            (inflate, self.input.ahead, stepped) = done;
            let bytes = stepped.map_err(|error| self.unfit(&error))?.unwrap_or_default();
            // The last bytes are shown once the sum is known to be right.
            if inflate.is_complete() {
                inflate.finish().map_err(|error| self.unfit(&error))?;
            }
            if !bytes.is_empty() {
                self.inflate = Some(inflate);
                return Ok(Some((bytes, self)));
            }
        }
    }

    /// Goes behind the local header.
    async fn begin(&mut self) -> Result<Inflate, SourceError> {
        let head = self.input.take(LOCAL_BYTES).await?;
        let head = head_bytes(&head).map_err(|error| self.unfit(&error))?;
        let names = head - LOCAL_BYTES;
        if self.input.take(names).await?.len() as u64 != names {
            return Err(self.unfit(&MemberError::CutOff));
        }
        Ok(Inflate::new(&self.part))
    }

    fn unfit(&self, error: &MemberError) -> SourceError {
        self.inner.packed.unfit(&self.part, error)
    }
}
