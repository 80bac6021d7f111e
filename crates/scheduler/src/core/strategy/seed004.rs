//! The parents of the founding design: sample, filter, score, take the best.

use dfs_model::HostId;
use rand::rngs::StdRng;
use rand::seq::index;

use super::scoring::{self, SAMPLED};
use super::{Ask, Choice, Strategy, Swarm};

/// Samples 15 peers, filters them, and returns the best four by six weighted scores.
///
/// The task's seeds and the child's former parents are always among the fifteen.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seed004;

impl Strategy for Seed004 {
    fn name(&self) -> &'static str {
        "seed004"
    }

    fn parents(&self, swarm: &Swarm<'_>, ask: &Ask<'_>, random: &mut StdRng) -> Choice {
        scoring::choose(swarm, ask, candidates(swarm, ask, random))
    }
}

fn candidates(swarm: &Swarm<'_>, ask: &Ask<'_>, random: &mut StdRng) -> Vec<HostId> {
    let mut chosen = scoring::regulars(swarm, ask);
    let roster = swarm.task.roster().all();
    let sample = index::sample(random, roster.len(), roster.len().min(SAMPLED));
    for place in sample {
        if !chosen.contains(&roster[place]) {
            chosen.push(roster[place]);
        }
    }
    chosen.truncate(SAMPLED);
    chosen
}
