//! What goes wrong, drawn from a seed: the same seed gives the same troubles at the same times.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::reading::Manner;
use crate::ring::{Ring, Size};
use crate::world::Which;

/// When the last trouble is over.
pub const OVER_BY: Duration = Duration::from_secs(45);

/// When the last reader and the last trouble begin.
const BEGIN_BY: Duration = Duration::from_secs(20);

/// How long after its end somebody may begin to help themselves over something that went wrong.
const FELT_FOR: Duration = Duration::from_secs(30);

/// The content that nobody reads before all is well again, and its length.
pub const FRESH_CONTENT: usize = 3;
const FRESH: usize = 1 << 20;

/// The least patience of somebody who is impatient.
const IMPATIENT: Duration = Duration::from_millis(200);

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What leaves the one for the other takes longer.
    Slow(Which, Which, Duration),
    /// The connections between the two break.
    Reset(Which, Which),
    /// Nothing gets from the one to the other; what comes back does.
    OneWay(Which, Which),
    /// Nothing gets from one to the other.
    Apart(Which, Which),
    /// Nothing gets to it or from it.
    Alone(Which),
    /// Its process is killed, and started again at the end.
    Kill(Which),
    /// Its power fails, and comes back.
    Power(Which),
    /// It stands still.
    Freeze(Which),
}

/// Something that goes wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What it is.
    pub kind: Kind,
}

/// Somebody who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// From when on.
    pub at: Duration,
    /// On which node: its number among the nodes.
    pub node: usize,
    /// Which content.
    pub content: usize,
    /// How.
    pub manner: Manner,
}

/// A cluster, what is read on it, and what goes wrong.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What chance begins with.
    pub seed: u64,
    /// The cluster.
    pub size: Size,
    /// Who reads.
    pub readers: Vec<Reader>,
    /// What goes wrong.
    pub troubles: Vec<Trouble>,
}

/// The machines of the kinds that a plan knows before they are there.
pub struct Machines {
    /// All but the nodes, by what they are.
    pub origin: Which,
    pub manager: Which,
    pub schedulers: Vec<Which>,
    pub seeds: Vec<Which>,
    pub nodes: Vec<Which>,
}

impl Machines {
    /// Of a cluster of this size.
    pub fn of(size: &Size) -> Self {
        let seeds = 2 + size.schedulers;
        let nodes = seeds + size.seeds;
        Self {
            origin: 0,
            manager: 1,
            schedulers: (2..seeds).collect(),
            seeds: (seeds..nodes).collect(),
            nodes: (nodes..nodes + size.nodes).collect(),
        }
    }

    fn all(&self) -> usize {
        2 + self.schedulers.len() + self.seeds.len() + self.nodes.len()
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let large = chance.random_range(1..5) << 20;
        let size = Size {
            nodes: chance.random_range(4..9),
            schedulers: chance.random_range(1..3),
            seeds: chance.random_range(1..3),
            rate: 1 << chance.random_range(19..22),
            cramped: chance.random_range(0..3),
            contents: vec![large + 12_345, chance.random_range(1..4096), 300_000, FRESH],
        };
        let millis = |chance: &mut StdRng, most: Duration| {
            Duration::from_millis(chance.random_range(0..most.as_millis() as u64))
        };
        let mut readers = Vec::new();
        for node in 0..size.nodes {
            for content in 0..FRESH_CONTENT {
                // One has nothing of the long one until all is well again.
                let is_left_out = content == 0 && node + 1 == size.nodes;
                if is_left_out || content > 0 && chance.random_bool(0.5) {
                    continue;
                }
                let manner = match chance.random_range(0..4) {
                    0 => Manner::Whole,
                    1 => Manner::Forward,
                    2 => Manner::Impatient(IMPATIENT + millis(&mut chance, Duration::from_secs(4))),
                    _ => Manner::Scattered(chance.random()),
                };
                let at = millis(&mut chance, BEGIN_BY);
                readers.push(Reader { at, node, content, manner });
            }
        }
        let machines = Machines::of(&size);
        let count = chance.random_range(0..12);
        let troubles = (0..count).map(|_| {
            let kind = draw_kind(&mut chance, &machines);
            let at = millis(&mut chance, BEGIN_BY);
            let longest = [6, 6, 25, 25, 45][chance.random_range(0..5)];
            let lasts = millis(&mut chance, Duration::from_secs(longest));
            let lasts = lasts.min(OVER_BY - at);
            Trouble { at, lasts, kind }
        });
        let troubles = troubles.collect();
        Self { seed, size, readers, troubles }
    }
}

fn draw_kind(chance: &mut StdRng, machines: &Machines) -> Kind {
    let mut any = |from: usize| chance.random_range(from..machines.all());
    // The origin may be away, but it is not what is tested: seldom.
    let one = any(1);
    let mut other = any(0);
    while other == one {
        other = any(0);
    }
    let services = std::iter::once(&machines.manager).chain(&machines.schedulers);
    let services: Vec<Which> = services.chain(&machines.seeds).copied().collect();
    let service = services[chance.random_range(0..services.len())];
    let one = if chance.random_bool(0.4) { service } else { one };
    let by = Duration::from_millis(chance.random_range(20..2000));
    match chance.random_range(0..10) {
        0 => Kind::Slow(one, other, by),
        1 | 2 => Kind::Reset(one, other),
        3 => Kind::OneWay(one, other),
        4 => Kind::OneWay(other, one),
        5 => Kind::Apart(one, other),
        6 => Kind::Alone(one),
        7 => Kind::Kill(one),
        8 => Kind::Power(one),
        _ => Kind::Freeze(one),
    }
}

impl Trouble {
    /// Whether somebody may have begun to help themselves over it at a time.
    pub fn has_effect(&self, at: Duration) -> bool {
        self.at <= at && at <= self.at + self.lasts + FELT_FOR
    }
}

impl Kind {
    /// The machines that it strikes.
    pub fn strikes(self, machine: Which) -> bool {
        match self {
            Self::Slow(a, b, _) | Self::Reset(a, b) | Self::OneWay(a, b) | Self::Apart(a, b) => {
                machine == a || machine == b
            }
            Self::Alone(a) | Self::Kill(a) | Self::Power(a) | Self::Freeze(a) => machine == a,
        }
    }

    /// Whether a node may stand still over it: it is struck itself, or cannot reach the origin.
    pub fn halts(self, node: Which, origin: Which) -> bool {
        match self {
            Self::Slow(..) | Self::Reset(..) => false,
            Self::OneWay(a, b) | Self::Apart(a, b) => {
                [a, b] == [node, origin] || [b, a] == [node, origin]
            }
            Self::Alone(a) | Self::Kill(a) | Self::Power(a) | Self::Freeze(a) => {
                a == node || a == origin
            }
        }
    }

    /// Whether a node may have to help itself over it: it is struck itself, or what serves it.
    pub fn excuses(self, node: Which, is_service: impl Fn(Which) -> bool) -> bool {
        match self {
            Self::Slow(a, b, _) | Self::Reset(a, b) | Self::OneWay(a, b) | Self::Apart(a, b) => {
                let is_its = |which| is_service(which) || which == node;
                is_its(a) && is_its(b)
            }
            Self::Alone(a) | Self::Kill(a) | Self::Power(a) | Self::Freeze(a) => {
                is_service(a) || a == node
            }
        }
    }

    /// It begins.
    pub fn begin(self, ring: &mut Ring) {
        let ip = |which| ring.world.ip(which);
        let network = ring.world.network.clone();
        match self {
            Self::Slow(a, b, by) => network.slow_down(ip(a), ip(b), by),
            Self::Reset(a, b) => {
                network.reset(ip(a), ip(b));
            }
            Self::OneWay(a, b) => network.cut(ip(a), ip(b)),
            Self::Apart(a, b) => {
                network.cut(ip(a), ip(b));
                network.cut(ip(b), ip(a));
            }
            Self::Alone(a) => {
                for other in 0..ring.world.machines.len() {
                    network.cut(ip(a), ip(other));
                    network.cut(ip(other), ip(a));
                }
            }
            Self::Kill(a) => ring.world.crash(a),
            Self::Power(a) => ring.world.cut_power(a),
            Self::Freeze(a) => ring.world.freeze(a),
        }
    }

    /// It is over. What was down may have been down for another reason.
    pub fn end(self, ring: &mut Ring) {
        let ip = |which| ring.world.ip(which);
        let network = ring.world.network.clone();
        match self {
            Self::Reset(..) => {}
            Self::Slow(a, b, _) | Self::OneWay(a, b) => network.mend(ip(a), ip(b)),
            Self::Apart(a, b) => {
                network.mend(ip(a), ip(b));
                network.mend(ip(b), ip(a));
            }
            Self::Alone(a) => {
                for other in 0..ring.world.machines.len() {
                    network.mend(ip(a), ip(other));
                    network.mend(ip(other), ip(a));
                }
            }
            Self::Kill(a) | Self::Power(a) => {
                if ring.world.face(a).is_none() {
                    ring.boot(a);
                }
            }
            Self::Freeze(a) => ring.world.thaw(a),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size { nodes, schedulers: _, seeds, rate, cramped, contents } = &self.size;
        writeln!(
            f,
            "seed {}: {nodes} nodes ({cramped} cramped), {seeds} seeds, {rate} bytes/s, {contents:?}",
            self.seed
        )?;
        let machines = Machines::of(&self.size);
        writeln!(
            f,
            "origin {}, manager {}, schedulers {:?}, seeds {:?}, nodes {:?}",
            machines.origin, machines.manager, machines.schedulers, machines.seeds, machines.nodes
        )?;
        for Reader { at, node, content, manner } in &self.readers {
            writeln!(f, "  {at:?} node{} reads {content} {manner:?}", node + 1)?;
        }
        for Trouble { at, lasts, kind } in &self.troubles {
            writeln!(f, "  {at:?} for {lasts:?}: {kind:?}")?;
        }
        Ok(())
    }
}
