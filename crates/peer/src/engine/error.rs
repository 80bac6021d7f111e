//! Why bytes of a task cannot be had.

use std::sync::Arc;
use std::time::Duration;

use dfs_model::TaskId;
use dfs_source::SourceError;

use crate::digests::DigestsError;
use crate::store::StoreError;

/// Bytes that could not be read. Cheap to clone: every waiting reader gets one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The origin has another version now; this task is over.
    #[error("origin changed: {0}")]
    OriginChanged(String),
    /// The origin has no such thing (any more).
    #[error("not found: {0}")]
    NotFound(String),
    /// The origin or the cluster does not permit it.
    #[error("not permitted: {0}")]
    NotPermitted(String),
    /// The origin did not give the bytes.
    #[error("cannot read the origin")]
    Source(#[source] Arc<SourceError>),
    /// A parent's or the scheduler's word on the origin's failure.
    #[error("{0}")]
    Swarm(String),
    /// The local store failed.
    #[error("the cache failed")]
    Store(#[source] Arc<StoreError>),
    /// Signing failed: a broken identity.
    #[error("cannot sign digests")]
    Sign(#[source] DigestsError),
    /// Nothing came in time.
    #[error("nothing came within {waited:?}: {why}")]
    Timeout {
        /// How long was waited.
        waited: Duration,
        /// What was waited for.
        why: String,
    },
    /// The range lies behind the end.
    #[error("byte {offset} lies past the end at {length}")]
    PastEnd {
        /// First byte asked for.
        offset: u64,
        /// Bytes in the content.
        length: u64,
    },
    /// The engine is stopping.
    #[error("task {} is closing", .0.short())]
    Closing(TaskId),
}

impl ReadError {
    /// Whether only room in the store is missing.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Store(error) if matches!(**error, StoreError::NoSpace { .. }))
    }
}

impl ReadError {
    /// The origin changed, for a reason that somebody else may have told so already.
    pub fn origin_changed(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        let told = reason.trim_start_matches("origin changed: ");
        Self::OriginChanged(told.to_owned())
    }
}

impl From<SourceError> for ReadError {
    fn from(error: SourceError) -> Self {
        match &error {
            SourceError::Changed { attempt, detail } => {
                Self::OriginChanged(format!("cannot {attempt}: {detail}"))
            }
            SourceError::NotFound { .. } => Self::NotFound(error.to_string()),
            SourceError::NotPermitted { .. } => Self::NotPermitted(error.to_string()),
            _ => Self::Source(Arc::new(error)),
        }
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_once_however_many_pass_it_on() {
        let first = ReadError::origin_changed("the ETag is now \"b\"");
        let second = ReadError::origin_changed(first.to_string());
        let third = ReadError::origin_changed(format!("origin changed: {second}"));
        assert_eq!(third.to_string(), "origin changed: the ETag is now \"b\"");
    }
}
