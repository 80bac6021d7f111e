//! The cluster's services as the manager lists them, checked: whose signatures count, and where seeds are.

use std::net::SocketAddr;
use std::sync::Arc;

use dfs_model::{CanonicalUrl, HostId, HostInfo, Nearest, RouteKey, order_areas, rank};
use dfs_peer::areas::Areas;
use dfs_proto::convert::grpc_addresses;
use dfs_proto::manager;
use dfs_proto::manager::{MemberList, Role};

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
