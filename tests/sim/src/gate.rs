//! What no change may make worse: rows with a goal each, and whether it is reached.

use std::fs;

use dfs_scheduler::matcher::{Joining, Matcher, Micros, Role, Tuning};

use crate::bound;
use crate::check::{self, Broken};
use crate::outcome::Outcome;
use crate::scenario::{Scenario, ScenarioError};
use crate::speed::{self, Crowd};
use crate::strategy::Strategy;

/// A figure, and the most that it may be.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name in the list of goals.
    pub name: &'static str,
    /// What was measured.
    pub value: f64,
    /// None: it tells of this machine, which nothing fails on.
    pub most: Option<f64>,
}

/// Why there is no row.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A scenario.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A rule.
    #[error("seed {SEED} of {1}: {0}")]
    Broken(Broken, String),
    /// Somebody waits for ever.
    #[error("{0} never ends")]
    Never(String),
    /// Memory cannot be measured here.
    #[error("cannot read /proc/self/statm: {0}")]
    Memory(std::io::Error),
}

/// Random numbers begin here.
const SEED: u64 = 1;

/// Peers whose memory is measured, and pieces of their task.
const PEERS: u32 = 50_000;
const PIECES: u32 = 256;

const FLASH: &str = include_str!("../scenarios/flash.toml");
const IDCS: &str = include_str!("../scenarios/idcs.toml");
const GIBIBYTE: &str = include_str!("../scenarios/p3b-1g.toml");
const HUNDRED: &str = include_str!("../scenarios/p3b-100g.toml");

impl Row {
    fn new(name: &'static str, value: f64, most: f64) -> Self {
        Self { name, value, most: Some(most) }
    }

    /// Whether its goal is reached.
    pub fn holds(&self) -> bool {
        self.most.is_none_or(|most| self.value <= most)
    }
}

/// Measures all rows, one after the other.
pub fn rows(told: &dyn Fn(&Row)) -> Result<Vec<Row>, GateError> {
    all(&[memory, decisions, flash, crowd, data_centres, gibibyte, hundred], told)
}

/// Measures how fast it is decided here.
pub fn speeds(told: &dyn Fn(&Row)) -> Result<Vec<Row>, GateError> {
    all(&[decisions], told)
}

type Measure = fn() -> Result<Vec<Row>, GateError>;

fn all(measures: &[Measure], told: &dyn Fn(&Row)) -> Result<Vec<Row>, GateError> {
    let mut all = Vec::new();
    for measure in measures {
        let rows = measure()?;
        rows.iter().for_each(told);
        all.extend(rows);
    }
    Ok(all)
}

fn scenario(text: &str) -> Result<Scenario, ScenarioError> {
    Scenario::parse(text, "its own scenario")?.check()
}

fn simulate(scenario: &Scenario) -> Result<Outcome, GateError> {
    let broken = |broken| GateError::Broken(broken, scenario.name.clone());
    Strategy::Swarm.run(scenario, SEED).map_err(broken)
}

fn ratio(scenario: &Scenario, outcome: &Outcome) -> Result<f64, GateError> {
    let last = outcome.last.ok_or_else(|| GateError::Never(scenario.name.clone()))?;
    Ok(last / bound::with_pieces(scenario))
}

fn flash() -> Result<Vec<Row>, GateError> {
    let scenario = scenario(FLASH)?;
    let (one, other) = (simulate(&scenario)?, simulate(&scenario)?);
    let same = check::the_same(&one.hash, &other.hash);
    same.map_err(|broken| GateError::Broken(broken, scenario.name.clone()))?;
    Ok(vec![
        Row::new("P3.r.1k", ratio(&scenario, &one)?, 1.06),
        Row::new("P3.source.1k", one.source_copies, 1.01),
    ])
}

fn crowd() -> Result<Vec<Row>, GateError> {
    let scenario = Scenario { nodes: 10_000, ..scenario(FLASH)? };
    let outcome = simulate(&scenario)?;
    Ok(vec![
        Row::new("P3.r.10k", ratio(&scenario, &outcome)?, 1.08),
        Row::new("P3.source.10k", outcome.source_copies, 1.01),
        Row::new("P3.partners.10k", f64::from(outcome.costs.partners), 64.0),
    ])
}

/// Leases in a second of one processor: with one piece at a time each way, and as a scheduler leases them.
fn decisions() -> Result<Vec<Row>, GateError> {
    let crowd = Crowd { nodes: 10_000, pieces: PIECES, piece_bytes: 4 << 20, link: 125_000_000 };
    let one = Tuning { uplink: 1, downlink: 1, window: 0, run: 1, ..Tuning::default() };
    let measured = [
        ("P3.decisions", one, crowd),
        ("P3.decisions.1k", one, Crowd { nodes: 1000, ..crowd }),
        (
            "P3.decisions.runs",
            Tuning::default(),
            Crowd { nodes: 1000, piece_bytes: 64 << 10, pieces: 4096, ..crowd },
        ),
    ];
    let mut rows = Vec::new();
    for (name, tuning, crowd) in measured {
        let speed = speed::of(&crowd, tuning, SEED);
        let speed = speed.ok_or_else(|| GateError::Never("a crowd without links".to_owned()))?;
        rows.push(Row { name, value: speed.per_second(), most: None });
    }
    Ok(rows)
}

fn data_centres() -> Result<Vec<Row>, GateError> {
    let scenario = scenario(IDCS)?;
    let outcome = simulate(&scenario)?;
    ratio(&scenario, &outcome)?;
    Ok(vec![
        Row::new("P3.idc-copies", outcome.idc_copies, 1.02),
        Row::new("P3.source.idcs", outcome.source_copies, 1.01),
    ])
}

fn gibibyte() -> Result<Vec<Row>, GateError> {
    let scenario = scenario(GIBIBYTE)?;
    let outcome = simulate(&scenario)?;
    Ok(vec![
        Row::new("P3b.r.1g", ratio(&scenario, &outcome)?, 1.3),
        Row::new("P3b.messages.1g", outcome.messages, 50_000.0),
    ])
}

fn hundred() -> Result<Vec<Row>, GateError> {
    let scenario = scenario(HUNDRED)?;
    let outcome = simulate(&scenario)?;
    Ok(vec![
        Row::new("P3b.r.100g", ratio(&scenario, &outcome)?, 1.1),
        Row::new("P3b.messages.100g", outcome.messages, 50_000.0),
    ])
}

/// Bytes that the matcher keeps for each peer of a task, with what they are leased at once.
fn memory() -> Result<Vec<Row>, GateError> {
    let before = resident()?;
    let mut matcher = Matcher::new(PIECES, 4 << 20, Tuning::default(), SEED);
    let all = 0..PIECES;
    let all = std::slice::from_ref(&all);
    matcher.join(&Joining::new(Role::Source, all, &[]), Micros(0));
    for _ in 0..PEERS {
        matcher.join(&Joining::new(Role::Node, &[], all), Micros(0));
    }
    let after = resident()?;
    drop(matcher);
    let each = after.saturating_sub(before) as f64 / f64::from(PEERS);
    Ok(vec![Row::new("P3.bytes-per-peer", each, 512.0)])
}

/// Bytes of this process that are in memory and its own: what it has read of its program by then does not count.
fn resident() -> Result<u64, GateError> {
    let text = fs::read_to_string("/proc/self/statm").map_err(GateError::Memory)?;
    let mut pages = text.split_whitespace().skip(1).map_while(|pages| pages.parse::<u64>().ok());
    let (all, shared) = (pages.next().unwrap_or_default(), pages.next().unwrap_or_default());
    Ok(all.saturating_sub(shared) * 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_that_is_missed_is_seen() {
        assert!(Row::new("P3.r.1k", 1.06, 1.06).holds());
        assert!(!Row::new("P3.r.1k", 1.07, 1.06).holds());
        assert!(Row { name: "P3.decisions", value: 1e9, most: None }.holds());
    }

    #[test]
    fn what_is_measured_can_be_read() {
        for text in [FLASH, IDCS, GIBIBYTE, HUNDRED] {
            assert!(scenario(text).is_ok());
        }
        assert!(resident().unwrap() > 0);
    }
}
