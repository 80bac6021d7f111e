//! How soon the last node can be done, whatever is done.

use crate::scenario::Scenario;

/// Seconds that no schedule undercuts: `max(F/u_s, F/d, N·F/(u_s + Σu))`, where a fluid flows (Kumar and Ross, HotWeb
/// 2006); and what the links of data centres and racks take for one copy.
pub fn fluid(scenario: &Scenario) -> f64 {
    let uplinks: f64 = (0..scenario.nodes).map(|number| scenario.uplink(number)).sum();
    let source = scenario.source_link as f64;
    let all = f64::from(scenario.nodes) * scenario.bytes() as f64 / (source + uplinks);
    of_one(scenario).max(all)
}

/// The same, whoever else wants it.
pub fn of_one(scenario: &Scenario) -> f64 {
    let borders = scenario.idc_link.into_iter().chain(scenario.rack_link);
    let slowest = borders.fold(scenario.source_link.min(scenario.link), u64::min);
    scenario.bytes() as f64 / slowest as f64
}

/// The same for content that goes piece by piece, where a piece is passed on once it is whole and all links are alike:
/// `M + ⌊log2 N⌋` piece times (Mundinger, Weber and Weiss, J. Scheduling 11, 2008). Where links differ it is the measure
/// that results are given by, and no bound. Who arrives last is not done before the content could have come to them.
pub fn with_pieces(scenario: &Scenario) -> f64 {
    let steps = f64::from(scenario.nodes.max(1).ilog2());
    let at_once = fluid(scenario) + steps * scenario.piece_bytes as f64 / scenario.link as f64;
    let last_arrival = scenario.spread * f64::from(scenario.nodes - 1) / f64::from(scenario.nodes);
    at_once.max(last_arrival + scenario.bytes() as f64 / scenario.link as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_source_downlink_and_all_uplinks_together_decides() {
        let links = |source_link, nodes| Scenario {
            link: 100,
            source_link,
            nodes,
            pieces: 10,
            piece_bytes: 10,
            ..Scenario::default()
        };
        assert_eq!(fluid(&links(100, 9)), 1.0);
        assert_eq!(fluid(&links(50, 1)), 2.0);
        assert_eq!(fluid(&links(1000, 9)), 1.0);
        let slow = Scenario { stragglers: 1, straggler_slowness: 10.0, ..links(100, 10) };
        assert_eq!(fluid(&slow), 5.0);
        assert_eq!(with_pieces(&links(100, 7)), 1.0 + 2.0 * 0.1);
        assert_eq!(with_pieces(&links(100, 1)), 1.0);
        let late = Scenario { spread: 9.0, ..links(100, 10) };
        assert_eq!(with_pieces(&late), 9.0 * 0.9 + 1.0);
    }
}
