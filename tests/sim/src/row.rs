//! A run as one line.

use crate::bound;
use crate::run::Outcome;
use crate::scenario::Scenario;

/// The heads of the columns.
pub const HEADS: [&str; 13] = [
    "strategy",
    "nodes",
    "pieces",
    "seed",
    "R",
    "last",
    "p50",
    "p99",
    "source",
    "crossing",
    "wasted",
    "ns/lease",
    "decisions",
];

/// The columns.
pub fn columns(strategy: &str, scenario: &Scenario, seed: u64, outcome: &Outcome) -> Vec<String> {
    let mut took = outcome.took.clone();
    took.sort_by(f64::total_cmp);
    let quantile = |share: f64| {
        let at = (took.len().saturating_sub(1) as f64 * share).round() as usize;
        took.get(at).map_or("-".to_owned(), |seconds| format!("{seconds:.3}"))
    };
    let ratio = outcome.last.map(|last| last / bound::with_pieces(scenario));
    let nanos = outcome.deciding.as_nanos() / u128::from(outcome.orders.max(1));
    vec![
        strategy.to_owned(),
        scenario.nodes.to_string(),
        scenario.pieces.to_string(),
        seed.to_string(),
        ratio.map_or("never".to_owned(), |ratio| format!("{ratio:.4}")),
        outcome.last.map_or("-".to_owned(), |last| format!("{last:.3}")),
        quantile(0.5),
        quantile(0.99),
        format!("{:.3}", outcome.source_copies),
        format!("{:.3}", outcome.crossing_copies),
        format!("{:.4}", outcome.wasted),
        nanos.to_string(),
        outcome.hash.clone(),
    ]
}
