//! The parents of the founding design: sample, filter, score, take the best.

use dfs_model::{HostId, Location};
use rand::rngs::StdRng;
use rand::seq::index;

use super::{Ask, Choice, Strategy, Swarm};
use crate::core::evidence::{Candidate, Reason, Scores, Verdict};
use crate::core::{Host, MAX_PARENTS, Peer, PeerState};

/// Candidates looked at for one child (`filterParentLimit`).
const SAMPLED: usize = 15;

/// Leading elements of a location that count.
const LOCATION_DEPTH: usize = 5;

/// Weights of the six scores; their sum is one.
mod weight {
    pub const FINISHED_PIECES: f64 = 0.2;
    pub const UPLOAD_SUCCESS: f64 = 0.2;
    pub const FREE_UPLOAD: f64 = 0.15;
    pub const HOST_TYPE: f64 = 0.15;
    pub const IDC: f64 = 0.15;
    pub const LOCATION: f64 = 0.15;
}

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
        let sampled = candidates(swarm, ask, random);
        let scene = Scene::of(swarm, ask, &sampled);
        let judged = sampled.into_iter().map(|host| Candidate {
            host,
            verdict: match scene.judge(swarm, ask, &host) {
                Ok(scores) => Verdict::Scored(scores),
                Err(reason) => Verdict::Dropped(reason),
            },
        });
        let candidates: Vec<Candidate> = judged.collect();
        let mut scored: Vec<(f64, HostId)> = candidates
            .iter()
            .filter_map(|candidate| match candidate.verdict {
                Verdict::Scored(scores) => Some((scores.sum, candidate.host)),
                Verdict::Dropped(_) => None,
            })
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let chosen = scored.into_iter().map(|(_, parent)| parent).take(MAX_PARENTS).collect();
        Choice { chosen, candidates }
    }
}

fn candidates(swarm: &Swarm<'_>, ask: &Ask<'_>, random: &mut StdRng) -> Vec<HostId> {
    let mut chosen: Vec<HostId> = swarm.task.state.seed().into_iter().collect();
    let former = ask.former.iter().filter(|host| Some(**host) != swarm.task.state.seed());
    chosen.extend(former);
    let roster = swarm.task.roster();
    let sample = index::sample(random, roster.len(), roster.len().min(SAMPLED));
    for place in sample {
        if !chosen.contains(&roster[place]) {
            chosen.push(roster[place]);
        }
    }
    chosen.truncate(SAMPLED);
    chosen
}

/// What all candidates of one child are measured against.
struct Scene {
    groups: u64,
    first_download: bool,
    location: Location,
}

impl Scene {
    fn of(swarm: &Swarm<'_>, ask: &Ask<'_>, candidates: &[HostId]) -> Self {
        let task = swarm.task;
        let peers = || candidates.iter().filter_map(|host| task.peer(host));
        // Without a length, the share is taken of the most that any candidate can show.
        let most = || peers().map(|peer| peer.held.count(0)).max().unwrap_or(0);
        let is_node_copy =
            |peer: &Peer| peer.state() == PeerState::Resting && !peer.held.is_nothing();
        Self {
            groups: task.groups().unwrap_or_else(most),
            first_download: !peers().any(is_node_copy),
            location: swarm
                .hosts
                .get(&ask.child)
                .map_or_else(Location::default, |host| host.info.location.clone()),
        }
    }

    fn judge(&self, swarm: &Swarm<'_>, ask: &Ask<'_>, parent: &HostId) -> Result<Scores, Reason> {
        if let Some(reason) = swarm.refusal(ask, parent) {
            return Err(reason);
        }
        let (Some(host), Some(peer)) = (swarm.hosts.get(parent), swarm.task.peer(parent)) else {
            return Err(Reason::Gone);
        };
        if peer.is_bad_node() { Err(Reason::BadNode) } else { Ok(self.score(host, peer)) }
    }

    fn score(&self, host: &Host, peer: &Peer) -> Scores {
        let held = peer.held.count(self.groups).min(self.groups);
        let finished = if self.groups == 0 { 0.0 } else { held as f64 / self.groups as f64 };
        let there = &host.info.location;
        let (success, free) = (host.success_share(), host.free_share());
        let kind = self.host_type(peer);
        let idc = idc_affinity(&self.location, there);
        let location = location_affinity(&self.location, there);
        let sum = weight::FINISHED_PIECES * finished
            + weight::UPLOAD_SUCCESS * success
            + weight::FREE_UPLOAD * free
            + weight::HOST_TYPE * kind
            + weight::IDC * idc
            + weight::LOCATION * location;
        let [finished, success, free, kind, idc, location] =
            [finished, success, free, kind, idc, location].map(|score| score as f32);
        Scores { finished, success, free, kind, idc, location, sum }
    }

    /// Seeds first while nobody else has a copy, last afterwards.
    fn host_type(&self, peer: &Peer) -> f64 {
        match (peer.state() == PeerState::Seeding, self.first_download) {
            (true, true) => 1.0,
            (true, false) => 0.0,
            (false, _) => 0.5,
        }
    }
}

fn idc_affinity(a: &Location, b: &Location) -> f64 {
    if !a.idc.is_empty() && a.idc.eq_ignore_ascii_case(&b.idc) { 1.0 } else { 0.0 }
}

/// Share of equal leading elements of area, then rack.
fn location_affinity(a: &Location, b: &Location) -> f64 {
    let elements = |place: &Location| -> Vec<String> {
        let rack = place.rack.split('|').filter(|element| !element.is_empty());
        std::iter::once(place.area.as_str())
            .chain(rack)
            .take(LOCATION_DEPTH)
            .map(str::to_ascii_lowercase)
            .collect()
    };
    let (a, b) = (elements(a), elements(b));
    if a == b {
        return if a.iter().all(String::is_empty) { 0.0 } else { 1.0 };
    }
    let equal = a.iter().zip(&b).take_while(|(a, b)| a == b && !a.is_empty()).count();
    equal as f64 / LOCATION_DEPTH as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(area: &str, idc: &str, rack: &str) -> Location {
        Location { area: area.into(), idc: idc.into(), rack: rack.into() }
    }

    #[test]
    fn nearness_is_the_share_of_equal_leading_elements() {
        let here = place("eu", "a", "hall1|row2|rack3");
        assert_eq!(location_affinity(&here, &here), 1.0);
        assert_eq!(location_affinity(&here, &place("EU", "b", "hall1|row9")), 0.4);
        assert_eq!(location_affinity(&here, &place("us", "a", "hall1|row2|rack3")), 0.0);
        let nowhere = Location::default();
        assert_eq!(location_affinity(&nowhere, &nowhere), 0.0);
        assert_eq!(idc_affinity(&nowhere, &nowhere), 0.0);
        assert_eq!(idc_affinity(&here, &place("", "A", "")), 1.0);
    }
}
