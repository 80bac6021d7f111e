//! The seeds, for a host that reaches no scheduler: they say what a URL is, as far as they know, and give what they have.
//!
//! A seed is known by the member list, which is kept on disk: scheduler, manager and origin may all be gone.

use std::sync::atomic::Ordering;

use dfs_model::{CanonicalUrl, HostInfo, RouteKey};
use dfs_proto::scheduler::{ResolveReply, ResolveRequest};
use dfs_proto::seed;
use dfs_proto::seed::seed_client::SeedClient;
use dfs_source::oci::{Platform, platform_asked};

use super::{Swarm, SwarmError, messages, refused};
use crate::dial::Callee;

/// Seeds that are asked for one thing.
const MOST_ASKED: usize = 3;

impl Swarm {
    /// What a seed makes of a URL. The first one that says anything is believed.
    pub async fn resolve_at_seeds(
        &self,
        route: &RouteKey,
        request: &ResolveRequest,
    ) -> Result<ResolveReply, SwarmError> {
        let mut last = SwarmError::Unreachable("no seed is known".to_owned());
        let seeds = self.members.borrow().seeds_for(route);
        for (host, address) in seeds.into_iter().take(MOST_ASKED) {
            let channel = self.options.channels.channel(address, Callee::Seed(host.id));
            let client = SeedClient::new(channel);
            let mut client = client.max_decoding_message_size(messages::MAX_MESSAGE);
            let mut call = tonic::Request::new(self.question_of_seed(request));
            call.set_timeout(self.options.call_timeout);
            match client.resolve(call).await {
                Ok(reply) => {
                    let seed::ResolveReply { artifact, tiny, level } = reply.into_inner();
                    let seed_id = host.id.as_bytes().to_vec().into();
                    return Ok(ResolveReply { artifact, seed_id, tiny, level });
                }
                Err(status) => {
                    let (seed, error) = (&host.name, status.message());
                    tracing::debug!(seed, error, "no answer from the seed");
                    last = refused(status);
                    if !matches!(last, SwarmError::Unreachable(_)) {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    fn question_of_seed(&self, request: &ResolveRequest) -> seed::ResolveRequest {
        let url = request.target.as_ref().map(|target| CanonicalUrl::parse(&target.url));
        let platform = url
            .and_then(Result::ok)
            .and_then(|url| platform_asked(&url, &Platform::here().to_string()));
        seed::ResolveRequest {
            target: request.target.clone(),
            view: request.view,
            principal: request.principal.clone(),
            fresh: request.fresh,
            area: self.options.host.location.area.clone(),
            read: request.read,
            level: request.level.clone(),
            platform: platform.map(|platform| platform.to_string()).unwrap_or_default(),
        }
    }

    /// Who gives a task to a host that no scheduler leads; nobody while one does.
    pub(crate) fn seeds_without_scheduler(&self, route: &RouteKey) -> Vec<HostInfo> {
        if !self.is_left_alone.load(Ordering::Relaxed) || self.is_connected() {
            return Vec::new();
        }
        let seeds = self.members.borrow().seeds_for(route);
        seeds.into_iter().take(MOST_ASKED).map(|(host, _)| host).collect()
    }
}
