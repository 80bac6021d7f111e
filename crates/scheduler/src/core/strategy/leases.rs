//! Leases of free uplinks: what is wanted in any order is led by the [matcher](crate::matcher).

use rand::rngs::StdRng;

use super::seed004::Seed004;
use super::seed004_plus::Seed004Plus;
use super::{Ask, Choice, Strategy, Swarm};
use crate::matcher::{self, Tuning};

/// Uplinks are leased as they become free. Whoever the leases fail has the parents of the founding design beside them;
/// whoever reads here and there those of its better candidates: near ones that have what it lacks.
#[derive(Debug, Clone, Copy)]
pub struct Leases {
    name: &'static str,
    tuning: Tuning,
}

impl Leases {
    /// The rarest useful piece goes: the usual strategy.
    pub fn swarm() -> Self {
        Self { name: "swarm", tuning: Tuning::default() }
    }

    /// Any useful piece goes: what `swarm` is measured against.
    pub fn random() -> Self {
        let tuning = Tuning { choice: matcher::Choice::Random, ..Tuning::default() };
        Self { name: "random", tuning }
    }
}

impl Strategy for Leases {
    fn name(&self) -> &'static str {
        self.name
    }

    fn parents(&self, swarm: &Swarm<'_>, ask: &Ask<'_>, random: &mut StdRng) -> Choice {
        match ask.peer.is_reader() {
            true => Seed004Plus.parents(swarm, ask, random),
            false => Seed004.parents(swarm, ask, random),
        }
    }

    fn leases(&self) -> Option<Tuning> {
        Some(self.tuning)
    }
}
