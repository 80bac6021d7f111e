//! Bytes of the archive: by ranges, or, where its origin has none, in one pass from front to back.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dfs_model::ByteRange;
use dfs_source::{ByteStream, SourceError};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Mutex;

use super::{Forward, Origin};

/// Bytes taken at a time from a pass.
const STEP: u64 = 256 * 1024;

pub(super) enum Fetch {
    Ranges(Arc<dyn Origin>),
    Forward(Arc<Mutex<Forward>>),
}

impl Fetch {
    pub fn new(archive: Arc<dyn Origin>, length: u64) -> Self {
        match archive.ranges() {
            true => Self::Ranges(archive),
            false => Self::Forward(Arc::new(Mutex::new(Forward::new(archive, length)))),
        }
    }

    pub fn ranges(&self) -> bool {
        matches!(self, Self::Ranges(_))
    }

    /// See [`Origin::reads_a_task`]: what does so is read in ranges.
    pub fn reads_a_task(&self) -> bool {
        matches!(self, Self::Ranges(archive) if archive.reads_a_task())
    }

    /// The bytes of `range` as they come.
    pub async fn stream(&self, range: ByteRange) -> Result<ByteStream, SourceError> {
        match self {
            Self::Ranges(archive) => archive.read(Some(range)).await,
            Self::Forward(forward) => {
                let forward = Arc::clone(forward);
                let steps = stream::try_unfold((forward, range), |(forward, range)| async move {
                    let end = range.end.min(range.start + STEP);
                    let bytes = forward.lock().await.read(ByteRange::new(range.start, end)).await?;
                    let rest = ByteRange::new(range.start + bytes.len() as u64, range.end);
                    Ok((!bytes.is_empty()).then_some((bytes, (forward, rest))))
                });
                Ok(steps.boxed())
            }
        }
    }

    /// The bytes of `range`, which is short.
    pub async fn bytes(&self, range: ByteRange) -> Result<Bytes, SourceError> {
        let stream = self.stream(range).await?;
        let add = async |mut sum: BytesMut, bytes: Bytes| {
            sum.extend_from_slice(&bytes);
            Ok(sum)
        };
        let sum = BytesMut::with_capacity(range.len() as usize);
        Ok(stream.try_fold(sum, add).await?.freeze())
    }
}
