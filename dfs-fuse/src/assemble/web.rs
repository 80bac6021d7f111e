//! What others than the kernel and dfctl are served: the mirror of registries and the proxy.

use std::net::SocketAddr;
use std::sync::Arc;

use dfs_service::net::NetError;
use dfs_service::run_info::RunInfo;
use dfs_service::{OnFailure, Tracker, process};
use dfs_source::HttpOptions;
use tokio::net::TcpListener;

use super::Error;
use crate::agent::Agent;
use crate::options::Options;
use crate::web::proxy::{Ground, Prepared};
use crate::web::{Counts, Mirror, Mirroring, Proxy, ProxyCounts};

/// What is served, and what has been counted of it.
#[derive(Default)]
pub(super) struct Web {
    mirror: Option<Mirror>,
    proxy: Arc<ProxyCounts>,
    mirror_at: Option<SocketAddr>,
    proxy_at: Option<SocketAddr>,
}

impl Web {
    /// Serves pulls of container runtimes, where that is wanted.
    pub async fn mirror(
        options: &Options,
        tracker: &Tracker,
        agent: &Agent,
    ) -> Result<Self, Error> {
        let (wanted, mirror) = (options.mirror(), Mirror::new(agent.clone()));
        let Some(wanted) = wanted else {
            return Ok(Self { mirror: mirror.ok(), ..Self::default() });
        };
        let mirror = mirror?;
        let (listener, at) = bind("mirror", wanted.listen).await?;
        let serving = Mirroring::new(mirror.clone(), wanted)?;
        let serving = serving.serve(listener, tracker.token().clone());
        tracker.spawn("mirror", OnFailure::StopProcess, serving);
        tracing::info!(%at, "registries are mirrored");
        Ok(Self { mirror: Some(mirror), mirror_at: Some(at), ..Self::default() })
    }

    /// Serves clients of a proxy, where that is wanted; they are not led to these ports of the agent.
    pub async fn proxy(
        &mut self,
        prepared: Option<Prepared>,
        tracker: &Tracker,
        (agent, http, ports): (&Agent, HttpOptions, &[SocketAddr]),
    ) -> Result<(), Error> {
        let Some(prepared) = prepared else { return Ok(()) };
        let (listener, at) = bind("proxy", prepared.listen()).await?;
        let own = ports.iter().chain(&self.mirror_at).chain([&at]);
        let ground = Ground {
            agent: agent.clone(),
            mirror: self.mirror.clone(),
            http,
            own_ports: own.map(SocketAddr::port).collect(),
            counts: Arc::clone(&self.proxy),
        };
        let serving = Proxy::new(ground, prepared)?.serve(listener, tracker.token().clone());
        tracker.spawn("proxy", OnFailure::StopProcess, serving);
        tracing::info!(%at, "the web is asked for whoever asks by a proxy");
        self.proxy_at = Some(at);
        Ok(())
    }

    /// What the mirror counts.
    pub fn mirrored(&self) -> Arc<Counts> {
        self.mirror.as_ref().map(|mirror| Arc::clone(mirror.counts())).unwrap_or_default()
    }

    /// What the proxy counts.
    pub fn proxied(&self) -> Arc<ProxyCounts> {
        Arc::clone(&self.proxy)
    }

    /// Says where it listens.
    pub fn told(&self, info: RunInfo) -> RunInfo {
        let named = [("mirror", self.mirror_at), ("proxy", self.proxy_at)];
        named.into_iter().fold(info, |info, (name, at)| match at {
            Some(at) => info.with_address(name, at),
            None => info,
        })
    }
}

async fn bind(service: &str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| {
        let service = service.to_owned();
        process::Error::from(NetError::Bind { service, address, source })
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let at = listener.local_addr().map_err(process::Error::from)?;
    Ok((listener, at))
}
