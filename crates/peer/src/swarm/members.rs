//! The member list: who schedules, who seeds, with which key.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{HostId, HostInfo, RouteKey, rank};
use dfs_proto::convert::{BadMessage, grpc_addresses};
use dfs_proto::manager::manager_client::ManagerClient;
use dfs_proto::manager::{MemberList, MembersRequest, Role};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::SwarmOptions;
use crate::dial::Callee;

/// How often a manager is asked while it answers, and while none does.
const PERIOD: Duration = Duration::from_secs(5);
const PERIOD_WITHOUT: Duration = Duration::from_millis(300);

/// The cluster's services as a manager lists them.
#[derive(Debug, Clone, Default)]
pub struct Members {
    /// Version of the list.
    pub version: u64,
    /// Of which cluster it is.
    pub cluster_id: Vec<u8>,
    /// Schedulers and where their gRPC is.
    pub schedulers: Vec<(HostInfo, SocketAddr)>,
    /// Seeds and where their gRPC is.
    pub seeds: Vec<(HostInfo, SocketAddr)>,
    area: String,
}

impl Members {
    /// Reads a manager's list for a host in `area`.
    pub fn read(list: MemberList, area: &str) -> Result<Self, BadMessage> {
        let (version, cluster_id) = (list.version, list.cluster_id.to_vec());
        let area = area.to_owned();
        let mut members = Self { version, cluster_id, area, ..Self::default() };
        for member in list.members {
            let role = member.role();
            let Some(host) = member.host else { continue };
            let Some(address) = grpc_addresses(&host)?.first().copied() else { continue };
            let host = HostInfo::try_from(host)?;
            match role {
                Role::Scheduler => members.schedulers.push((host, address)),
                Role::Seed => members.seeds.push((host, address)),
                Role::Node | Role::Manager | Role::Guest | Role::Unspecified => {}
            }
        }
        Ok(members)
    }

    /// The keys of the seeds.
    fn keys(&self) -> impl Iterator<Item = (HostId, [u8; 32])> + '_ {
        self.seeds.iter().map(|(seed, _)| (seed.id, seed.public_key))
    }

    /// The key by which a scheduler appoints stand-ins.
    pub(super) fn scheduler_key(&self, host: &HostId) -> Option<[u8; 32]> {
        let listed = self.schedulers.iter().find(|(scheduler, _)| scheduler.id == *host);
        listed.map(|(scheduler, _)| scheduler.public_key)
    }

    /// Whether a host is a seed that is listed, by its name and its key.
    pub(super) fn is_seed(&self, host: &HostInfo) -> bool {
        self.keys().any(|(id, key)| (id, key) == (host.id, host.public_key))
    }

    /// Where no scheduler is listed those known before stand: a manager that does not hear of them may be the one who is
    /// cut off, and whoever talks to one goes on.
    fn after(mut self, known: &Self) -> Self {
        if self.schedulers.is_empty() {
            self.schedulers.clone_from(&known.schedulers);
        }
        self
    }

    /// Seeds in the order in which they are asked for a key.
    pub(super) fn seeds_for(&self, route: &RouteKey) -> Vec<(HostInfo, SocketAddr)> {
        self.ranked(&self.seeds, route).cloned().collect()
    }

    /// The scheduler responsible for a key.
    pub fn scheduler_for(&self, route: &RouteKey) -> Option<(HostId, SocketAddr)> {
        let (host, address) = self.ranked(&self.schedulers, route).next()?;
        Some((host.id, *address))
    }

    /// Those within the area in rendezvous order; of all areas where the own one has none.
    fn ranked<'a>(
        &self,
        listed: &'a [(HostInfo, SocketAddr)],
        route: &RouteKey,
    ) -> impl Iterator<Item = &'a (HostInfo, SocketAddr)> {
        let here = |host: &HostInfo| host.location.area == self.area;
        let any_here = listed.iter().any(|(host, _)| here(host));
        let eligible = listed.iter().filter(|(host, _)| !any_here || here(host));
        let ids: Vec<HostId> = eligible.map(|(host, _)| host.id).collect();
        let find = |id| listed.iter().find(move |(host, _)| host.id == id);
        rank(route, &ids).into_iter().filter_map(find)
    }
}

/// Keeps asking a manager for the list: the one that answered last, else each in turn. One that answers no more is
/// looked up anew: it may have moved.
pub(super) fn follow(
    options: Arc<SwarmOptions>,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> watch::Receiver<Arc<Members>> {
    let (sender, receiver) = watch::channel(Arc::new(Members::default()));
    tracker.spawn(async move {
        let (mut turn, mut known) = (0, None);
        if let Some(kept) = kept(&options).await {
            options.keyring.learn(kept.keys());
            sender.send_replace(Arc::new(kept));
        }
        loop {
            let asking = one_turn(&options, turn, known, &sender);
            let Some(answered) = stop.run_until_cancelled(asking).await else { break };
            known = answered;
            let pause = if known.is_some() { PERIOD } else { PERIOD_WITHOUT };
            turn += usize::from(known.is_none());
            let missed = async {
                tokio::time::sleep(PERIOD_WITHOUT).await;
                options.keyring.missed().await;
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
                () = missed => {}
            }
        }
    });
    receiver
}

/// The list of an earlier process.
async fn kept(options: &SwarmOptions) -> Option<Members> {
    let kept = options.kept.clone()?;
    let list = tokio::task::spawn_blocking(move || kept.load()).await.ok()??;
    Members::read(list, &options.host.location.area).ok()
}

/// Asks the manager that is `known`, or the one whose turn it is at each of its addresses; the address where one
/// answered.
async fn one_turn(
    options: &SwarmOptions,
    turn: usize,
    known: Option<SocketAddr>,
    sender: &watch::Sender<Arc<Members>>,
) -> Option<SocketAddr> {
    if let Some(known) = known {
        return ask(options, known, sender).await.then_some(known);
    }
    let place = options.managers.get(turn % options.managers.len().max(1))?;
    for address in place.addresses().await {
        if ask(options, address, sender).await {
            return Some(address);
        }
    }
    None
}

async fn ask(
    options: &SwarmOptions,
    manager: SocketAddr,
    sender: &watch::Sender<Arc<Members>>,
) -> bool {
    let area = options.host.location.area.clone();
    let mut request = tonic::Request::new(MembersRequest {
        known_version: sender.borrow().version,
        area: area.clone(),
    });
    request.set_timeout(options.call_timeout);
    let mut client = ManagerClient::new(options.channels.channel(manager, Callee::Manager));
    let list = match client.members(request).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => {
            tracing::debug!(%manager, error = %status.message(), "no answer from the manager");
            return false;
        }
    };
    let members = match Members::read(list.clone(), &area) {
        Ok(members) => members,
        Err(error) => {
            tracing::warn!(%manager, %error, "the member list is unreadable");
            return false;
        }
    };
    options.keyring.learn(members.keys());
    let complete = !members.schedulers.is_empty() && !members.seeds.is_empty();
    let is_news = sender.send_if_modified(|known| {
        let is_other = (known.version, &known.cluster_id) != (members.version, &members.cluster_id);
        let news = is_other || known.schedulers.is_empty();
        if news {
            *known = Arc::new(members.after(known));
        }
        news
    });
    if let Some(kept) = options.kept.clone().filter(|_| is_news) {
        // The process may be ending: the one before stays.
        let _ = tokio::task::spawn_blocking(move || kept.save(&list)).await;
    }
    complete
}
