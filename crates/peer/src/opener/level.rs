//! One level of a listing: of what is public the seed of the cluster lists it, once for all who look into it.

use std::sync::Arc;

use bytes::Bytes;
use dfs_artifact::resolve::{ResolveOptions, resolve_level};
use dfs_artifact::{Index, ResolveError};
use dfs_proto::scheduler;
use dfs_source::Target;

use super::{Freshness, OpenUrlError, domain_of};
use crate::engine::Engine;
use crate::swarm::{Swarm, SwarmError, route};
use crate::targets;

impl Engine {
    /// An index of what lies right in the directory `below` of a listing; `None` where the target is none. Where the
    /// cluster does not tell, and of what is asked with credentials, this host lists it.
    pub async fn level(
        &self,
        target: &Target,
        below: &[u8],
        freshness: Freshness,
    ) -> Result<Option<Arc<Index>>, ResolveError> {
        let is_shared = target.credentials.is_none() && !target.url.lies_here();
        if let Some(swarm) = self.swarm().filter(|_| is_shared) {
            match told(swarm, target, below, freshness).await {
                Ok(level) => return Ok(level),
                Err(error) => {
                    tracing::debug!(url = %target.url, %error, "a level is listed by this host");
                }
            }
        }
        let options = ResolveOptions::default();
        let built = resolve_level(self.sources(), target, below, &options).await?;
        let open = |source| ResolveError::Index { url: target.url.clone(), source };
        built.map(|built| Index::open(built.bytes).map(Arc::new).map_err(open)).transpose()
    }
}

/// What the cluster says.
async fn told(
    swarm: &Swarm,
    target: &Target,
    below: &[u8],
    freshness: Freshness,
) -> Result<Option<Arc<Index>>, OpenUrlError> {
    let request = scheduler::ResolveRequest {
        target: Some(targets::to_wire(target)),
        fresh: freshness.is_fresh(),
        level: Some(Bytes::copy_from_slice(below)),
        ..scheduler::ResolveRequest::default()
    };
    let route = route(&domain_of(&target.credentials), &target.url);
    let said = swarm.resolve(&route, request).await?.level;
    // An older one makes nothing of the question.
    let unknown = || SwarmError::Unreachable("the cluster tells no levels".to_owned());
    let index = said.ok_or_else(unknown)?.index;
    let opened = tokio::task::spawn_blocking(move || index.map(Index::open).transpose()).await;
    let opened = opened.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    Ok(opened?.map(Arc::new))
}
