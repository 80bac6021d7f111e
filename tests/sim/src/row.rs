//! A run as one line: in columns, or as an object.

use crate::bound;
use crate::outcome::{Outcome, quantile};
use crate::scenario::Scenario;

/// A name and what it is.
pub type Field = (&'static str, String);

/// All that there is to say of a run.
pub fn fields(strategy: &str, scenario: &Scenario, seed: u64, outcome: &Outcome) -> Vec<Field> {
    let fluid = bound::fluid(scenario);
    let bound = bound::with_pieces(scenario);
    let last =
        |of: f64| outcome.last.map_or("never".to_owned(), |last| format!("{:.4}", last / of));
    let took = |share| number(quantile(&outcome.took, share), 3);
    let costs = &outcome.costs;
    let per_node = 2.0 * costs.handshakes as f64 / f64::from(scenario.nodes);
    let mean = outcome.uplinks.iter().sum::<f64>() / outcome.uplinks.len().max(1) as f64;
    let whole = |value: Option<u32>| value.map_or("-".to_owned(), |value| value.to_string());
    let depth = |share| whole(quantile(&outcome.depths, share).map(u32::from));
    let nanos = |share| whole(quantile(outcome.nanos(), share));
    vec![
        ("scenario", scenario.name.clone()),
        ("strategy", strategy.to_owned()),
        ("rates", format!("{:?}", scenario.rates).to_lowercase()),
        ("nodes", scenario.nodes.to_string()),
        ("pieces", scenario.pieces.to_string()),
        ("seed", seed.to_string()),
        ("R", last(bound)),
        ("last/fluid", last(fluid)),
        ("last", number(outcome.last, 3)),
        ("p50", took(0.5)),
        ("p90", took(0.9)),
        ("p99", took(0.99)),
        ("source", format!("{:.3}", outcome.source_copies)),
        ("idc", format!("{:.3}", outcome.idc_copies)),
        ("rack", format!("{:.3}", outcome.rack_copies)),
        ("twice", format!("{:.4}", outcome.twice)),
        ("in-vain", format!("{:.4}", outcome.in_vain)),
        ("uplinks", format!("{mean:.3}")),
        ("uplinks-p10", number(quantile(&outcome.uplinks, 0.1), 3)),
        ("jain", format!("{:.3}", outcome.evenness)),
        ("most-sent", format!("{:.2}", outcome.most_sent)),
        ("depth-p50", depth(0.5)),
        ("depth-p99", depth(0.99)),
        ("leases", costs.orders.to_string()),
        ("stopped", costs.stopped.to_string()),
        ("leases/s", format!("{:.0}", outcome.orders_per_second())),
        ("ns-p50", nanos(0.5)),
        ("ns-p99", nanos(0.99)),
        ("ns-max", nanos(1.0)),
        ("messages/s", format!("{:.0}", outcome.messages)),
        ("delegates", costs.led.len().to_string()),
        ("delegate-messages/s", format!("{:.0}", outcome.led_messages)),
        ("queue-us-p99", whole(quantile(&outcome.waits, 0.99))),
        ("partners-max", costs.partners.to_string()),
        ("handshakes/node", format!("{per_node:.1}")),
        ("decisions", outcome.hash.clone()),
    ]
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

/// What is looked at first.
const SHOWN: [&str; 16] = [
    "scenario",
    "strategy",
    "rates",
    "nodes",
    "pieces",
    "R",
    "last",
    "p50",
    "source",
    "idc",
    "in-vain",
    "uplinks",
    "leases/s",
    "messages/s",
    "delegates",
    "delegate-messages/s",
];

/// What is looked at first of some runs, below each other.
pub fn table(runs: &[Vec<Field>]) -> String {
    let shown = |fields: &[Field]| {
        let of = |name: &&str| fields.iter().find(|(known, _)| known == name).cloned();
        SHOWN.iter().filter_map(of).map(|(_, value)| value).collect::<Vec<_>>()
    };
    let heads = SHOWN.map(str::to_owned).to_vec();
    let lines: Vec<Vec<String>> =
        [heads].into_iter().chain(runs.iter().map(|run| shown(run))).collect();
    let width = |at: usize| lines.iter().map(|line| line[at].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..SHOWN.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
            0..=2 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// The names, in columns.
pub fn heads(fields: &[Field]) -> String {
    fields.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("\t")
}

/// What they are, in columns.
pub fn columns(fields: &[Field]) -> String {
    fields.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join("\t")
}

/// Both, as an object; what is not there is null.
pub fn object(fields: &[Field]) -> serde_json::Value {
    let named = fields.iter().map(|(name, value)| {
        let is_word = matches!(*name, "scenario" | "strategy" | "rates" | "decisions");
        let value = match serde_json::from_str(value) {
            Ok(number) if !is_word => number,
            _ if is_word => serde_json::Value::from(value.as_str()),
            _ => serde_json::Value::Null,
        };
        ((*name).to_owned(), value)
    });
    serde_json::Value::Object(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_numbers_where_there_are_any() {
        let fields = [("R", "1.02"), ("last", "-"), ("decisions", "12"), ("nodes", "3")];
        let object = object(&fields.map(|(name, value)| (name, value.to_owned())));
        let expected = r#"{"R":1.02,"decisions":"12","last":null,"nodes":3}"#;
        assert_eq!(object.to_string(), expected);
    }
}
