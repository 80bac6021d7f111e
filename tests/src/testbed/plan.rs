//! Which machines there are, and where each stands: names, addresses, links. No I/O.

use std::net::Ipv4Addr;

use dfs_model::Rate;

/// Ports of a bridge are what the kernel has room for.
const MOST_MACHINES: usize = 1000;
/// Machines of one subnet: the last two bytes of an address count in steps of this many.
const SUBNET: usize = 250;

/// What a testbed is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Machines that ask.
    pub nodes: usize,
    /// Machines that go back to the source for them.
    pub seeds: usize,
    /// What each machine's link carries, each way.
    pub link: Rate,
    /// What the link of manager and scheduler carries; as much as it can when not given.
    pub control_link: Option<Rate>,
    /// The nodes stand in data centres, each behind an uplink.
    pub idcs: Option<Idcs>,
    /// Seeds and nodes stand in areas, each with a scheduler of its own and behind an uplink.
    pub areas: Option<Idcs>,
    /// Whether connections are protected.
    pub links: Links,
}

/// How connections between machines are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Links {
    /// By TLS: every program has joined the cluster.
    #[default]
    Tls,
    /// Not at all, to see what that costs. Our programs do so on loopback addresses only: the machines have such, and
    /// their namespaces route them.
    Plain,
}

/// Data centres, or areas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idcs {
    /// How many; the nodes are dealt out to them in turn, and to areas the seeds too.
    pub count: usize,
    /// What the link of each to the core carries, each way.
    pub uplink: Rate,
}

/// What a machine is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Manager, and scheduler where there are no areas.
    Control,
    /// The scheduler of an area.
    Scheduler,
    /// The origin.
    Origin,
    /// A seed.
    Seed,
    /// A node.
    Node,
}

/// A machine as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name, and that of its port at the bridge.
    pub name: String,
    /// What it is there for.
    pub role: Role,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its data centre, counted from 0; the core when there is none.
    pub idc: Option<usize>,
    /// Its area, counted from 0; the core when there is none.
    pub area: Option<usize>,
    /// What its link carries each way; as much as it can when not given.
    pub link: Option<Rate>,
}

impl Layout {
    /// Nodes and one seed on links of this rate, in one place.
    pub fn flat(nodes: usize, link: Rate) -> Self {
        Self {
            nodes,
            seeds: 1,
            link,
            control_link: None,
            idcs: None,
            areas: None,
            links: Links::Tls,
        }
    }

    /// Why it cannot be built.
    pub fn why_not(&self) -> Option<String> {
        if self.nodes == 0 || self.seeds == 0 {
            return Some("a testbed has at least one node and one seed".to_owned());
        }
        if self.nodes + self.seeds > MOST_MACHINES {
            return Some(format!("a bridge has no room for more than {MOST_MACHINES} machines"));
        }
        if self.idcs.is_some_and(|idcs| idcs.count == 0 || idcs.count > self.nodes) {
            return Some("each data centre has at least one node".to_owned());
        }
        if self.areas.is_some_and(|areas| {
            areas.count == 0 || areas.count > self.nodes.min(self.seeds) || self.idcs.is_some()
        }) {
            return Some(
                "each area has at least one seed and one node, and no data centres".to_owned(),
            );
        }
        let uplink = self.idcs.or(self.areas).map(|groups| groups.uplink);
        let rates = [Some(self.link), self.control_link, uplink];
        rates.contains(&Some(Rate(0))).then(|| "a link carries something".to_owned())
    }

    /// All machines: control, origin, the seeds, the nodes.
    pub fn places(&self) -> Vec<Place> {
        let shaped = Some(self.link);
        let areas = self.areas.map_or(0, |areas| areas.count);
        let one = |name: String, role, host: usize, link| {
            let address = address(self.links, role, host);
            let idcs = self.idcs.filter(|_| role == Role::Node);
            let idc = idcs.map(|idcs| host % idcs.count);
            let is_inside = matches!(role, Role::Scheduler | Role::Seed | Role::Node);
            let area = (is_inside && areas > 0).then(|| host % areas);
            Place { name, role, address, idc, area, link }
        };
        let several = |name: &str, role, count, link| {
            let name = name.to_owned();
            (0..count).map(move |host| one(format!("{name}{}", host + 1), role, host, link))
        };
        let core = [
            one("control".to_owned(), Role::Control, 0, self.control_link),
            one("origin".to_owned(), Role::Origin, 1, shaped),
        ];
        core.into_iter()
            .chain(several("scheduler", Role::Scheduler, areas, self.control_link))
            .chain(several("seed", Role::Seed, self.seeds, shaped))
            .chain(several("node", Role::Node, self.nodes, shaped))
            .collect()
    }
}

fn address(links: Links, role: Role, host: usize) -> Ipv4Addr {
    let net = match links {
        Links::Tls => 10,
        Links::Plain => 127,
    };
    let subnet = match role {
        Role::Control | Role::Origin => 0,
        Role::Scheduler => 5,
        Role::Seed => 10,
        Role::Node => 20,
    };
    let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    Ipv4Addr::new(net, 77, byte(subnet + host / SUBNET), byte(1 + host % SUBNET))
}

impl Place {
    /// The hardware address of its link.
    pub fn mac(&self) -> String {
        let [a, b, c, d] = self.address.octets();
        format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LINK: Rate = Rate(12_500_000);

    #[test]
    fn every_machine_has_a_name_and_addresses_of_its_own() {
        let layout = Layout { seeds: 3, ..Layout::flat(600, LINK) };
        assert_eq!(layout.why_not(), None);
        let places = layout.places();
        assert_eq!(places.len(), 605);
        let names: BTreeSet<_> = places.iter().map(|place| place.name.clone()).collect();
        let macs: BTreeSet<_> = places.iter().map(Place::mac).collect();
        assert_eq!((names.len(), macs.len()), (605, 605));
        // What the kernel takes for the name of a link.
        assert!(names.iter().all(|name| name.len() <= 15));
        assert!(places.iter().all(|place| place.address.is_private()));
        let node = places.iter().find(|place| place.name == "node251").unwrap();
        assert_eq!(node.address, Ipv4Addr::new(10, 77, 21, 1));
        assert_eq!(node.mac(), "02:00:0a:4d:15:01");
        let plain = Layout { links: Links::Plain, ..layout }.places();
        assert!(plain.iter().all(|place| place.address.is_loopback()));
    }

    #[test]
    fn nodes_are_dealt_out_to_data_centres_and_only_they() {
        let idcs = Some(Idcs { count: 2, uplink: LINK });
        let places = Layout { idcs, ..Layout::flat(5, LINK) }.places();
        let of = |idc| places.iter().filter(|place| place.idc == idc).count();
        assert_eq!((of(None), of(Some(0)), of(Some(1))), (3, 3, 2));
        assert_eq!(places[0].link, None);
    }

    #[test]
    fn an_area_has_a_scheduler_and_its_share_of_seeds_and_nodes() {
        let areas = Some(Idcs { count: 3, uplink: LINK });
        let layout = Layout { seeds: 3, areas, ..Layout::flat(7, LINK) };
        assert_eq!(layout.why_not(), None);
        let places = layout.places();
        let of = |area, role| {
            places.iter().filter(|place| (place.area, place.role) == (area, role)).count()
        };
        let roles = [Role::Scheduler, Role::Seed, Role::Node];
        assert_eq!(roles.map(|role| of(Some(0), role)), [1, 1, 3]);
        assert_eq!(roles.map(|role| of(Some(2), role)), [1, 1, 2]);
        assert_eq!([Role::Control, Role::Origin].map(|role| of(None, role)), [1, 1]);
    }

    #[test]
    fn what_cannot_be_is_told() {
        let idcs = Some(Idcs { count: 3, uplink: LINK });
        for layout in [
            Layout::flat(0, LINK),
            Layout::flat(2000, LINK),
            Layout::flat(3, Rate(0)),
            Layout { seeds: 0, ..Layout::flat(3, LINK) },
            Layout { idcs, ..Layout::flat(2, LINK) },
            Layout { areas: idcs, ..Layout::flat(3, LINK) },
            Layout { idcs, areas: idcs, seeds: 3, ..Layout::flat(3, LINK) },
        ] {
            assert!(layout.why_not().is_some(), "{layout:?}");
        }
    }
}
