//! Requests to an origin, counted where they are made: one read of a task may be one request, or one for each
//! of a thousand members.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use dfs_model::{ByteRange, Validator};
use dfs_source::{ByteStream, Source, SourceError, Target};

/// Requests so far.
pub type RequestCount = Arc<AtomicU64>;

/// Where an origin counts its requests, once it was told.
#[derive(Debug, Default)]
pub struct Requests(OnceLock<RequestCount>);

impl Requests {
    /// Counts in `count` from now on; only the first call counts.
    pub fn count_in(&self, count: &RequestCount) {
        self.0.get_or_init(|| Arc::clone(count));
    }

    /// One more is made.
    pub fn made(&self) {
        if let Some(count) = self.0.get() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A source whose reads are counted.
pub(super) struct Counted {
    source: Arc<dyn Source>,
    pub requests: Requests,
}

impl Counted {
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self { source, requests: Requests::default() }
    }

    /// See [`Source::read`].
    pub async fn read(
        &self,
        target: &Target,
        range: Option<ByteRange>,
        pin: &Validator,
    ) -> Result<ByteStream, SourceError> {
        self.requests.made();
        self.source.read(target, range, pin).await
    }
}
