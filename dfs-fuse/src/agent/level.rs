//! One level of a listing: who looks into a directory does not wait for all that lies below it, and the origin is not
//! asked for it.

use std::sync::Arc;
use std::time::Instant;

use dfs_artifact::erofs::Kind;
use dfs_artifact::{Index, ResolveError};
use dfs_peer::opener::{Freshness, OpenUrlError};
use dfs_source::{SourceError, Target, check_path};

use super::walk::find;
use super::{Agent, CallError, Question};

impl Agent {
    /// An index with what lies right in the directory at `path`; `None` where the whole is known already, or only the
    /// whole tells.
    pub(super) async fn level(
        &self,
        question: &Question,
        path: &[u8],
    ) -> Result<Option<Arc<Index>>, CallError> {
        let is_known = self.inner.answers.lock().get(question, Instant::now()).is_some();
        if is_known || !(path.is_empty() || check_path(path).is_ok()) {
            return Ok(None);
        }
        let target = &question.target;
        let own = match self.listed(target, path).await {
            Ok(None) => return Ok(None),
            Ok(Some(index)) if find(&index, path)?.is_some() => return Ok(Some(index)),
            Ok(Some(index)) => Some(index),
            Err(error) if is_of_the_place(&error) && !path.is_empty() => None,
            // Others may know it.
            Err(_) if self.inner.host.engine.swarm().is_some() => return Ok(None),
            Err(error) => return Err(Arc::new(OpenUrlError::from(error)).into()),
        };
        let is_empty = own.is_some_and(|index| index.left_out().count == 0);
        self.seen_from_above(target, path, is_empty).await
    }

    /// What has nothing in it, or cannot be listed, may be a file, or not be there: the nearest directory above tells.
    async fn seen_from_above(
        &self,
        target: &Target,
        path: &[u8],
        is_empty: bool,
    ) -> Result<Option<Arc<Index>>, CallError> {
        let mut below = path;
        while !below.is_empty() {
            let above =
                below.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |at| &below[..at]);
            if let Ok(Some(index)) = self.listed(target, above).await {
                let found = find(&index, below)?.map(|nid| index.image().attr(nid)).transpose()?;
                return match found.map(|attr| attr.kind) {
                    Some(Kind::Directory) if is_empty && below == path => Ok(Some(index)),
                    Some(Kind::Directory) => Ok(None),
                    Some(_) if below == path => Err(CallError::NotTree),
                    _ => Err(CallError::NoPath(String::from_utf8_lossy(path).into_owned())),
                };
            }
            below = above;
        }
        Ok(None)
    }

    async fn listed(
        &self,
        target: &Target,
        below: &[u8],
    ) -> Result<Option<Arc<Index>>, ResolveError> {
        let freshness = match self.inner.answers.lock().is_gone(&target.url) {
            true => Freshness::Asked,
            false => Freshness::Usual,
        };
        self.inner.host.engine.level(target, below, freshness).await
    }
}

/// Whether an error speaks of the place that was asked for alone.
fn is_of_the_place(error: &ResolveError) -> bool {
    let ResolveError::Source(error) = error else { return false };
    matches!(
        error,
        SourceError::NotFound { .. }
            | SourceError::NotPermitted { .. }
            | SourceError::Malformed { .. }
    )
}
