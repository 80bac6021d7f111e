//! What is simulated: a file that a person writes.

use std::path::Path;

use dfs_scheduler::matcher::Tuning;
use serde::Deserialize;

use crate::faults::Fault;

/// A swarm, its links, and what goes wrong.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// Nodes that want everything.
    pub nodes: u32,
    /// Pieces of the content.
    pub pieces: u32,
    /// Bytes in a piece.
    pub piece_bytes: u64,
    /// Bytes a second that a node sends and receives.
    pub link: u64,
    /// Bytes a second that the source sends.
    pub source_link: u64,
    /// Uplinks as multiples of `link`, dealt out in turn; none: all alike.
    pub uplinks: Vec<f64>,
    /// One node in so many has an uplink that is `straggler_slowness` times slower; zero: none.
    pub stragglers: u32,
    /// See `stragglers`.
    pub straggler_slowness: f64,
    /// Data centres among which nodes are dealt out.
    pub idcs: u32,
    /// Racks in each of them.
    pub racks: u32,
    /// Bytes a second out of each data centre, and into it; none: without end.
    pub idc_link: Option<u64>,
    /// The same of racks.
    pub rack_link: Option<u64>,
    /// How streams share links.
    pub rates: Rates,
    /// Seconds over which nodes arrive.
    pub spread: f64,
    /// Microseconds from a node to the scheduler, and as many back.
    pub control_us: u64,
    /// What comes on top: the median of a logarithmic normal distribution.
    pub jitter_us: u64,
    /// Microseconds of the scheduler for each message that it gets or sends.
    pub service_us: u64,
    /// Processors of the scheduler.
    pub cores: u32,
    /// Microseconds between two messages of a node to the scheduler, and between two to it: what there is to say
    /// meanwhile is said together.
    pub batch_us: u64,
    /// Microseconds until two nodes are connected that were not.
    pub pair_us: u64,
    /// Microseconds of the sender's processor that this takes besides.
    pub pair_cpu_us: u64,
    /// Streams that an uplink sends at a time; what else it was leased waits.
    pub streams: u16,
    /// Leases that an uplink has at a time.
    pub uplink_leases: u32,
    /// Microseconds for which an uplink has leases, once it is known how fast it is, where that is more than
    /// `uplink_leases`; zero: no more than these.
    pub window_us: u64,
    /// Leases that a receiver is sent at a time.
    pub downlink_leases: u32,
    /// Receivers looked at for one lease.
    pub sampled: usize,
    /// Pieces in one lease.
    pub run: u16,
    /// Nodes that one gives to or takes from, both together.
    pub partners: u32,
    /// In which order nodes want it.
    pub reads: Reads,
    /// Messages in a second beyond which the scheduler appoints delegates; zero: never.
    pub delegate_above: u64,
    /// Nodes of a rack that a delegate may lead.
    pub delegate_from: usize,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// When everything that is wrong is healed for some nodes, which must then get everything, soon.
    pub heal_at: Option<f64>,
    /// The share of these.
    pub healed: f64,
    /// What becomes of all others then, for good.
    pub others: Others,
}

/// What becomes of nodes that are not healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Others {
    /// They are frozen: nobody is told.
    Silent,
    /// They are killed, and the scheduler sees it.
    Gone,
}

/// In which order nodes want the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reads {
    /// In any: what comes first is the scheduler's.
    #[default]
    AnyOrder,
    /// From the beginning to the end, as somebody who reads a mounted file: one piece is waited for, and some after it are
    /// fetched ahead, of parents and in order.
    FrontToBack,
    /// From the beginning to the end, as `dfctl get` does into a pipe: what comes next is fetched in any order.
    Piped,
}

/// How streams share links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Rates {
    /// Each link evenly, whatever its streams can use: constant work for each event
    Uplink,
    /// Fairly (max-min) at every moment
    Exact,
    /// Fairly, made anew 32 times in a piece time; in between, what is free
    Tick,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "flash".to_owned(),
            nodes: 255,
            pieces: 256,
            piece_bytes: 4 << 20,
            link: 125_000_000,
            source_link: 125_000_000,
            uplinks: Vec::new(),
            stragglers: 0,
            straggler_slowness: 50.0,
            idcs: 1,
            racks: 1,
            idc_link: None,
            rack_link: None,
            rates: Rates::Uplink,
            spread: 0.0,
            control_us: 0,
            jitter_us: 0,
            service_us: 0,
            cores: 1,
            batch_us: 0,
            pair_us: 0,
            pair_cpu_us: 0,
            streams: 1,
            uplink_leases: 1,
            window_us: 0,
            downlink_leases: 1,
            sampled: 8,
            run: 1,
            partners: 60,
            reads: Reads::default(),
            delegate_above: 0,
            delegate_from: 8,
            faults: Vec::new(),
            heal_at: None,
            healed: 0.5,
            others: Others::Silent,
        }
    }
}

/// A scenario that cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file.
    #[error("cannot read {0}: {1}")]
    Read(String, std::io::Error),
    /// What it says.
    #[error("cannot use {0}: {1}")]
    Parse(String, Box<toml::de::Error>),
    /// Something in it is zero that must not be.
    #[error("a scenario needs at least one of {0}")]
    Zero(&'static str),
    /// A fault that cannot happen.
    #[error("{1} in {0:?}")]
    Fault(Fault, &'static str),
    /// Faults happen to the swarm only: others know nothing of them.
    #[error("strategy {0} knows no faults")]
    Unfit(String),
    /// A share or a time that is none.
    #[error("{0} must be a number above zero")]
    NoNumber(&'static str),
}

impl Scenario {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ScenarioError::Read(shown.clone(), error))?;
        Self::parse(&text, &shown)
    }

    /// Reads the text of a file; what it is called in an error.
    pub fn parse(text: &str, shown: &str) -> Result<Self, ScenarioError> {
        let error = |error| ScenarioError::Parse(shown.to_owned(), Box::new(error));
        toml::from_str(text).map_err(error)
    }

    /// Whether it can be simulated.
    pub fn check(self) -> Result<Self, ScenarioError> {
        let needed = [
            ("nodes", u64::from(self.nodes)),
            ("pieces", u64::from(self.pieces)),
            ("piece-bytes", self.piece_bytes),
            ("link", self.link),
            ("source-link", self.source_link),
            ("idcs", u64::from(self.idcs)),
            ("racks", u64::from(self.racks)),
            ("streams", u64::from(self.streams)),
            ("uplink-leases", u64::from(self.uplink_leases)),
            ("downlink-leases", u64::from(self.downlink_leases)),
            ("sampled", self.sampled as u64),
            ("run", self.run.into()),
            ("partners", self.partners.into()),
            ("cores", self.cores.into()),
            ("idc-link", self.idc_link.unwrap_or(1)),
            ("rack-link", self.rack_link.unwrap_or(1)),
        ];
        if let Some((name, _)) = needed.into_iter().find(|(_, value)| *value == 0) {
            return Err(ScenarioError::Zero(name));
        }
        let is_some = |value: &f64| value.is_finite() && *value > 0.0;
        if !self.uplinks.iter().all(is_some) {
            return Err(ScenarioError::NoNumber("each of uplinks"));
        }
        if !is_some(&self.straggler_slowness) {
            return Err(ScenarioError::NoNumber("straggler-slowness"));
        }
        if !(self.spread.is_finite() && self.spread >= 0.0) {
            return Err(ScenarioError::NoNumber("spread"));
        }
        if !self.heal_at.iter().chain([&self.healed]).all(is_some) {
            return Err(ScenarioError::NoNumber("heal-at, and healed,"));
        }
        for fault in &self.faults {
            fault.check(self.idcs).map_err(|what| ScenarioError::Fault(fault.clone(), what))?;
        }
        Ok(self)
    }

    /// Bytes a second that node `number` sends.
    pub fn uplink(&self, number: u32) -> f64 {
        let share = match self.uplinks.len() {
            0 => 1.0,
            count => self.uplinks[number as usize % count],
        };
        let slowness = match self.is_straggler(number) {
            true => self.straggler_slowness,
            false => 1.0,
        };
        self.link as f64 * share / slowness
    }

    /// Whether its uplink is far slower than others.
    pub fn is_straggler(&self, number: u32) -> bool {
        self.stragglers > 0 && number % self.stragglers == self.stragglers / 2
    }

    /// How the scheduler leases.
    pub fn tuning(&self) -> Tuning {
        Tuning {
            sampled: self.sampled,
            uplink: self.uplink_leases,
            downlink: self.downlink_leases,
            window: self.window_us,
            run: self.run,
            partners: self.partners,
            ..Tuning::default()
        }
    }

    /// Whether a data centre is ever cut off from the others.
    pub fn is_ever_cut(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault, Fault::Partition { .. }))
    }

    /// Bytes of the content.
    pub fn bytes(&self) -> u64 {
        u64::from(self.pieces) * self.piece_bytes
    }
}
