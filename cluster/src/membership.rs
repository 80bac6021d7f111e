//! A process's place in the cluster: it joins the manager, renews its lease, and follows the list.
//!
//! While no manager answers, the last list stands, also over a restart, and joining goes on being tried.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{CanonicalUrl, HostId, HostInfo, Nearest, RouteKey, order_areas, rank};
use dfs_peer::areas::Areas;
use dfs_peer::swarm::KeptList;
use dfs_proto::convert::grpc_addresses;
use dfs_proto::manager::manager_client::ManagerClient;
use dfs_proto::manager::{MemberList, MembershipRequest, Role};
use dfs_proto::{common, manager};
use dfs_service::{Backoff, Tracker};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

/// The format of the messages that are sent.
const FORMAT: u32 = 1;

/// Longest pause between attempts to join: well within a lease.
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(3) };

/// How long a list that is kept is waited for.
const SAVE_WITHIN: Duration = Duration::from_secs(1);

/// Most origins whose area is named.
pub const MAX_NAMED: usize = 10_000;

/// A scheduler or seed of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// As what it takes part.
    pub role: Role,
    /// Who it is, with its key.
    pub host: Arc<HostInfo>,
    /// Where its gRPC service is.
    pub grpc: SocketAddr,
}

/// The member list, checked.
#[derive(Debug, Clone, Default)]
pub struct Members {
    /// Grows with every change.
    pub version: u64,
    /// The cluster's name; empty before a manager was heard.
    pub cluster_id: Vec<u8>,
    /// Who there is.
    pub all: Vec<Member>,
    /// Which areas origins are nearest to, as the operator says.
    pub nearest: Nearest,
}

impl Members {
    /// Checks a list; members that cannot be read are left out and counted.
    pub fn read(list: MemberList) -> (Self, usize) {
        let count = list.members.len();
        let all: Vec<Member> = list.members.into_iter().filter_map(read).collect();
        let unreadable = count - all.len();
        let named = list.origin_areas.into_iter().take(MAX_NAMED);
        let nearest = named.map(|named| (named.origin, named.area)).collect();
        let cluster_id = list.cluster_id.to_vec();
        (Self { version: list.version, cluster_id, all, nearest }, unreadable)
    }

    /// The seeds.
    pub fn seeds(&self) -> impl Iterator<Item = &Member> {
        self.all.iter().filter(|member| member.role == Role::Seed)
    }

    /// The key that a scheduler or seed signs with.
    pub fn key_of(&self, host: &HostId) -> Option<[u8; 32]> {
        self.all.iter().find(|member| member.host.id == *host).map(|member| member.host.public_key)
    }

    /// The key that a seed signs with.
    pub fn seed_key(&self, host: &HostId) -> Option<[u8; 32]> {
        self.seeds().find(|seed| seed.host.id == *host).map(|seed| seed.host.public_key)
    }

    /// The key by which a scheduler appoints stand-ins.
    pub fn scheduler_key(&self, host: &HostId) -> Option<[u8; 32]> {
        let mut schedulers = self.all.iter().filter(|member| member.role == Role::Scheduler);
        schedulers.find(|member| member.host.id == *host).map(|member| member.host.public_key)
    }

    /// The seeds for what `url` names under a key, the responsible one first: those of `area`, then those of the others,
    /// the areas that are nearer to its origin first.
    pub fn seeds_for(&self, key: &RouteKey, url: &CanonicalUrl, area: &str) -> Vec<&Member> {
        let all = self.seeds().map(|seed| seed.host.location.area.as_str());
        let far = all.filter(|other| *other != area);
        let areas = std::iter::once(area).chain(order_areas(url, &self.nearest, far));
        let of = |area| {
            let seeds = move || self.seeds().filter(move |seed| seed.host.location.area == area);
            let ranked = rank(key, seeds().map(|seed| &seed.host.id)).into_iter();
            ranked.filter_map(move |id| seeds().find(|seed| seed.host.id == id))
        };
        areas.flat_map(of).collect()
    }

    /// The areas as a seed of one of them sees them.
    pub fn areas(&self, own: &str) -> Areas {
        let of = |role| self.all.iter().filter(move |member| member.role == role);
        let scheduler = |member: &Member| (HostInfo::clone(&member.host), member.grpc);
        Areas {
            own: own.to_owned(),
            nearest: self.nearest.clone(),
            seeds: of(Role::Seed).map(|member| HostInfo::clone(&member.host)).collect(),
            schedulers: of(Role::Scheduler).map(scheduler).collect(),
        }
    }
}

fn read(member: manager::Member) -> Option<Member> {
    let role = member.role();
    let host = member.host.unwrap_or_default();
    let grpc = grpc_addresses(&host).ok()?.into_iter().next()?;
    let host = HostInfo::try_from(host).ok()?;
    Some(Member { role, host: Arc::new(host), grpc })
}

/// Joins as `role` and keeps at it as tasks of `tracker`; gives the list: until it is heard the one that was kept, if any.
pub fn follow(
    manager: Channel,
    me: common::Host,
    role: Role,
    kept: Option<KeptList>,
    tracker: &Tracker,
) -> watch::Receiver<Arc<Members>> {
    let first = kept.as_ref().and_then(KeptList::load).map(|list| Members::read(list).0);
    let (sender, receiver) = watch::channel(Arc::new(first.unwrap_or_default()));
    let sender = Arc::new(sender);
    let stop = tracker.token().clone();
    tracker.spawn_restarting("membership", RETRY, move || {
        let request = MembershipRequest {
            host: Some(me.clone()),
            role: role.into(),
            format: FORMAT,
            known_version: sender.borrow().version,
        };
        attend(manager.clone(), request, Arc::clone(&sender), kept.clone(), stop.clone())
    });
    receiver
}

/// One stream to the manager, until it breaks or `stop`.
async fn attend(
    manager: Channel,
    mut request: MembershipRequest,
    members: Arc<watch::Sender<Arc<Members>>>,
    kept: Option<KeptList>,
    stop: CancellationToken,
) -> Result<(), Status> {
    let (renewals, outgoing) = mpsc::channel(1);
    // The mailbox is empty: this cannot fail.
    let _ = renewals.try_send(request.clone());
    let mut client = ManagerClient::new(manager);
    let joining = client.membership(ReceiverStream::new(outgoing));
    let Some(joined) = stop.run_until_cancelled(joining).await else { return Ok(()) };
    let mut lists = joined?.into_inner();
    let mut pause = Duration::from_secs(1);
    // Lists that come often must not put off a renewal: each who is dropped for that would make another one.
    let mut due = Instant::now() + pause;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            list = lists.message() => {
                let ended = || Status::unavailable("the manager ended the stream");
                let list = list?.ok_or_else(ended)?;
                pause = Duration::from_millis((list.lease_ms / 3).max(10).into());
                due = due.min(Instant::now() + pause);
                let heard = list.clone();
                let (list, unreadable) = Members::read(list);
                if unreadable > 0 {
                    tracing::warn!(unreadable, "members that cannot be read are left out");
                }
                request.known_version = list.version;
                members.send_replace(Arc::new(list));
                if let Some(kept) = kept.clone() {
                    // A disk that is slow must not put off a renewal; without it the list before stays.
                    let saving = tokio::task::spawn_blocking(move || kept.save(&heard));
                    let _ = tokio::time::timeout(SAVE_WITHIN, saving).await;
                }
            }
            () = tokio::time::sleep_until(due) => {
                due = Instant::now() + pause;
                let ended = |_| Status::unavailable("the stream to the manager is closed");
                renewals.send(request.clone()).await.map_err(ended)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use dfs_model::{HostKind, Location, rank_areas};

    use super::*;

    fn member(number: u8, area: &str) -> Member {
        let location = Location { area: area.to_owned(), ..Location::default() };
        let host = HostInfo {
            id: HostId::from_bytes([number; 16]),
            kind: HostKind::Seed,
            name: format!("host{number}"),
            location,
            addresses: Vec::new(),
            public_key: [number; 32],
            upload_slots: 1,
        };
        let grpc = SocketAddr::from(([127, 0, 0, 1], 4000));
        Member { role: Role::Seed, host: Arc::new(host), grpc }
    }

    #[test]
    fn the_seeds_of_the_own_area_come_first_then_those_of_areas_nearer_to_the_origin() {
        let areas = ["a", "b", "c"];
        let all = (1..=6).map(|number| member(number, areas[usize::from(number) % 3])).collect();
        let members = Members { all, ..Members::default() };
        let url = CanonicalUrl::parse("https://example.org/x").unwrap();
        let key = RouteKey::of("public", &url);
        for own in areas {
            let seeds = members.seeds_for(&key, &url, own);
            let of: Vec<&str> = seeds.iter().map(|seed| &*seed.host.location.area).collect();
            let mut expected = rank_areas("example.org", areas);
            expected.sort_by_key(|area| *area != own);
            assert_eq!(of, expected.iter().flat_map(|area| [*area; 2]).collect::<Vec<_>>());
            for pair in seeds.chunks(2) {
                let ids: Vec<HostId> = pair.iter().map(|seed| seed.host.id).collect();
                assert_eq!(rank(&key, &ids), ids, "as they rank");
            }
        }
    }
}
