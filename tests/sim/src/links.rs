//! The links that a stream goes through, and how fast each is.

use crate::policy::{Node, place};
use crate::scenario::Scenario;

/// Names a link.
pub type LinkId = u32;

/// No link.
const NONE: LinkId = LinkId::MAX;

/// The links of one stream: out of a node, a rack and a data centre, and into them. A source is outside of all: its
/// uplink is the link of the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path([LinkId; 6]);

impl Path {
    /// One by one.
    pub fn links(self) -> impl Iterator<Item = LinkId> {
        self.0.into_iter().take_while(|link| *link != NONE)
    }

    /// The same stream, where links have other names.
    pub fn renamed(self, name: impl Fn(LinkId) -> LinkId) -> Self {
        Self(self.0.map(|link| if link == NONE { NONE } else { name(link) }))
    }
}

impl FromIterator<LinkId> for Path {
    fn from_iter<I: IntoIterator<Item = LinkId>>(links: I) -> Self {
        let mut path = [NONE; 6];
        path.iter_mut().zip(links).for_each(|(place, link)| *place = link);
        Self(path)
    }
}

/// Which links there are.
#[derive(Debug, Clone)]
pub struct Links {
    nodes: u32,
    idcs: u32,
    racks: u32,
    /// (data centre, rack) by node.
    places: Vec<(u32, u32)>,
    rates: Vec<f64>,
    has_borders: bool,
    has_racks: bool,
}

impl Links {
    /// Those of a scenario.
    pub fn new(scenario: &Scenario) -> Self {
        let link = scenario.link as f64;
        let mut rates = vec![scenario.source_link as f64, link];
        for node in 0..scenario.nodes {
            rates.extend([scenario.uplink(node), link]);
        }
        let limit = |of: Option<u64>| of.map_or(f64::INFINITY, |rate| rate as f64);
        let (idcs, racks) = (scenario.idcs, scenario.idcs * scenario.racks);
        rates.extend((0..2 * idcs).map(|_| limit(scenario.idc_link)));
        rates.extend((0..2 * racks).map(|_| limit(scenario.rack_link)));
        let place = |node| {
            let place = place(scenario, node);
            (place.idc, place.idc * scenario.racks + place.rack)
        };
        Self {
            nodes: scenario.nodes + 1,
            idcs,
            racks,
            places: (0..=scenario.nodes).map(place).collect(),
            rates,
            has_borders: scenario.idc_link.is_some() || scenario.is_ever_cut(),
            has_racks: scenario.rack_link.is_some(),
        }
    }

    /// Bytes a second, by link.
    pub fn rates(&self) -> &[f64] {
        &self.rates
    }

    /// Out of a node, and into it.
    pub fn of_node(node: Node) -> [LinkId; 2] {
        [2 * node, 2 * node + 1]
    }

    /// Out of a data centre, and into it.
    pub fn of_idc(&self, idc: u32) -> [LinkId; 2] {
        let first = 2 * self.nodes;
        [first + idc, first + self.idcs + idc]
    }

    fn of_rack(&self, rack: u32) -> [LinkId; 2] {
        let first = 2 * (self.nodes + self.idcs);
        [first + rack, first + self.racks + rack]
    }

    /// Through which links a stream goes.
    pub fn path(&self, from: Node, to: Node) -> Path {
        let ((from_idc, from_rack), (to_idc, to_rack)) =
            (self.places[from as usize], self.places[to as usize]);
        let is_outside = from == 0;
        let leaves_rack = self.has_racks && (is_outside || from_rack != to_rack);
        let leaves_idc = self.has_borders && (is_outside || from_idc != to_idc);
        let links = [
            (true, Self::of_node(from)[0]),
            (leaves_rack && !is_outside, self.of_rack(from_rack)[0]),
            (leaves_idc && !is_outside, self.of_idc(from_idc)[0]),
            (leaves_idc, self.of_idc(to_idc)[1]),
            (leaves_rack, self.of_rack(to_rack)[1]),
            (true, Self::of_node(to)[1]),
        ];
        links.into_iter().filter(|(is_there, _)| *is_there).map(|(_, link)| link).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_through_the_borders_that_it_crosses() {
        let scenario = Scenario {
            nodes: 8,
            idcs: 2,
            racks: 2,
            idc_link: Some(7),
            rack_link: Some(9),
            ..Scenario::default()
        };
        let links = Links::new(&scenario);
        let rates = |from, to| {
            let named = links.path(from, to).links().map(|link| links.rates()[link as usize]);
            named.collect::<Vec<_>>()
        };
        let own = scenario.link as f64;
        assert_eq!(rates(0, 1), [own, 7.0, 9.0, own]);
        // 1 and 5 are in one rack, 1 and 3 in one data centre.
        assert_eq!(rates(1, 5), [own, own]);
        assert_eq!(rates(1, 3), [own, 9.0, 9.0, own]);
        assert_eq!(rates(1, 2), [own, 9.0, 7.0, 7.0, 9.0, own]);
    }
}
