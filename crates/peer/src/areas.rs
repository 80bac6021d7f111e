//! Which areas are nearer to an origin than one's own, and who asks there (decision 0017).
//!
//! Pure, made anew of each member list. Whoever has the same list puts the areas of an origin into the same order, and
//! each asks only those before its own: no two wait for each other.

use std::net::SocketAddr;

use dfs_model::{CanonicalUrl, HostId, HostInfo, Nearest, RouteKey, TaskKey, order_areas, rank};

/// Seeds of one area that a task is taken from: the others would have to ask the origin for it.
const SEEDS_OF_AREA: usize = 2;

/// The areas of the member list as one of its seeds sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Areas {
    /// The seed's own.
    pub own: String,
    /// What the operator says.
    pub nearest: Nearest,
    /// The seeds of all areas.
    pub seeds: Vec<HostInfo>,
    /// The schedulers of all areas, and where their gRPC is.
    pub schedulers: Vec<(HostInfo, SocketAddr)>,
}

impl Areas {
    /// The areas before one's own. Only those count that have both a scheduler and a seed.
    pub fn nearer(&self, url: &CanonicalUrl) -> Vec<&str> {
        let others = |area: &&str| *area != self.own;
        let has_scheduler =
            |area: &&str| self.schedulers.iter().any(|(host, _)| area_of(host) == *area);
        if !self.seeds.iter().any(|seed| area_of(seed) != self.own) {
            return Vec::new();
        }
        let whole = self.seeds.iter().map(area_of).filter(has_scheduler);
        order_areas(url, &self.nearest, whole).into_iter().take_while(others).collect()
    }

    /// The seeds that a task is taken from before its origin is asked, the nearest to that first. What is private is
    /// taken from nobody: those who may have it have given their credentials here.
    pub fn seeds_nearer(&self, task: &TaskKey) -> Vec<&HostInfo> {
        if task.domain != TaskKey::PUBLIC {
            return Vec::new();
        }
        let key = RouteKey::of(&task.domain, &task.url);
        let of = |area| {
            let seeds = move || self.seeds.iter().filter(move |seed| area_of(seed) == area);
            let ranked = rank(&key, seeds().map(|seed| &seed.id)).into_iter().take(SEEDS_OF_AREA);
            ranked.filter_map(move |id| seeds().find(|seed| seed.id == id))
        };
        self.nearer(&task.url).into_iter().flat_map(of).collect()
    }

    /// The schedulers that know what a URL is before the origin is asked: of each area the one that its own hosts ask.
    pub fn schedulers_nearer(&self, url: &CanonicalUrl) -> Vec<(&str, HostId, SocketAddr)> {
        let key = RouteKey::of(TaskKey::PUBLIC, url);
        let of = |area| {
            let there =
                move || self.schedulers.iter().filter(move |(host, _)| area_of(host) == area);
            let first = *rank(&key, there().map(|(host, _)| &host.id)).first()?;
            there().find(|(host, _)| host.id == first).map(|(host, at)| (area, host.id, *at))
        };
        self.nearer(url).into_iter().filter_map(of).collect()
    }
}

fn area_of(host: &HostInfo) -> &str {
    &host.location.area
}

#[cfg(test)]
mod tests {
    use dfs_model::{HostKind, Location, TaskKind, Transform, Validator, rank_areas};

    use super::*;

    fn host(number: u8, area: &str) -> HostInfo {
        HostInfo {
            id: HostId::from_bytes([number; 16]),
            kind: HostKind::Seed,
            name: format!("host{number}"),
            location: Location { area: area.to_owned(), ..Location::default() },
            addresses: Vec::new(),
            public_key: [number; 32],
            upload_slots: 1,
        }
    }

    fn url(text: &str) -> CanonicalUrl {
        CanonicalUrl::parse(text).unwrap()
    }

    /// As a seed of `own` sees three areas of one scheduler and three seeds each, and one that has no scheduler.
    fn areas(own: &str) -> Areas {
        let at = SocketAddr::from(([127, 0, 0, 1], 1));
        let of = |area: usize, first: u8| host(first + area as u8, ["ap", "eu", "us", "in"][area]);
        let seeds = (0..12).map(|number| of(number % 4, 1 + 4 * (number / 4) as u8));
        Areas {
            own: own.to_owned(),
            nearest: Nearest::new(),
            seeds: seeds.collect(),
            schedulers: (0..3).map(|area| (of(area, 101), at)).collect(),
        }
    }

    fn task(url: &str, domain: &str) -> TaskKey {
        TaskKey {
            domain: domain.into(),
            kind: TaskKind::Blob,
            url: CanonicalUrl::parse(url).unwrap(),
            headers: Vec::new(),
            validator: Validator::default(),
            transform: Transform::Identity,
        }
    }

    #[test]
    fn each_asks_those_before_it_and_the_first_nobody() {
        let x = url("https://example.org/x");
        let order = rank_areas("example.org", ["ap", "eu", "us"]);
        for (place, own) in order.iter().enumerate() {
            assert_eq!(areas(own).nearer(&x), order[..place], "{own}");
        }
        assert_eq!(areas("in").nearer(&x), order, "nobody asks an area without a scheduler");
        let alone = Areas { own: "eu".into(), seeds: vec![host(1, "eu")], ..Areas::default() };
        assert!(alone.nearer(&x).is_empty());
    }

    #[test]
    fn what_is_asked_with_credentials_is_taken_from_no_other_area() {
        let order = rank_areas("example.org", ["ap", "eu", "us"]);
        let areas = areas(order[2]);
        let of = |domain| areas.seeds_nearer(&task("https://example.org/x", domain)).len();
        assert_eq!(of(TaskKey::PUBLIC), 2 * SEEDS_OF_AREA);
        assert_eq!(of(TaskKey::PRIVATE), 0);
    }

    #[test]
    fn seeds_come_in_the_order_of_their_areas_and_schedulers_are_those_that_lead_the_thing_there() {
        let x = task("https://example.org/x", TaskKey::PUBLIC);
        let order = rank_areas("example.org", ["ap", "eu", "us"]);
        let areas = areas(order[2]);
        let seeds = areas.seeds_nearer(&x);
        let of: Vec<&str> = seeds.iter().map(|seed| area_of(seed)).collect();
        assert_eq!(of, [order[0], order[0], order[1], order[1]]);
        let key = RouteKey::of(TaskKey::PUBLIC, &x.url);
        let there: Vec<HostId> =
            areas.seeds.iter().filter(|s| area_of(s) == order[0]).map(|s| s.id).collect();
        assert_eq!([seeds[0].id, seeds[1].id], rank(&key, &there)[..2]);
        let schedulers = areas.schedulers_nearer(&x.url);
        assert_eq!(schedulers.iter().map(|(area, ..)| *area).collect::<Vec<_>>(), order[..2]);
    }
}
