//! Six weighted scores, and the best four by them: what the founding design makes of its candidates, however they
//! were come by.

use dfs_model::{HostId, Location, same_idc};

use super::{Ask, Choice, Swarm};
use crate::core::evidence::{Candidate, Reason, Scores, Verdict};
use crate::core::{Host, MAX_PARENTS, Peer, PeerState};

/// Candidates looked at for one child (`filterParentLimit`).
pub(super) const SAMPLED: usize = 15;

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

/// Those who are always among the candidates: the task's seed and the child's former parents.
pub(super) fn regulars(swarm: &Swarm<'_>, ask: &Ask<'_>) -> Vec<HostId> {
    let seed = swarm.task.state.seed();
    let former = ask.former.iter().copied().filter(|host| Some(*host) != seed);
    seed.into_iter().chain(former).collect()
}

/// Why the filter drops a candidate, where it does.
pub(super) fn filtered(swarm: &Swarm<'_>, ask: &Ask<'_>, parent: &HostId) -> Option<Reason> {
    let is_bad = || swarm.task.peer(parent).is_some_and(Peer::is_bad_node);
    swarm.refusal(ask, parent).or_else(|| is_bad().then_some(Reason::BadNode))
}

/// Judges the candidates, and takes the best four.
pub(super) fn choose(swarm: &Swarm<'_>, ask: &Ask<'_>, sampled: Vec<HostId>) -> Choice {
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
        if let Some(reason) = filtered(swarm, ask, parent) {
            return Err(reason);
        }
        let (Some(host), Some(peer)) = (swarm.hosts.get(parent), swarm.task.peer(parent)) else {
            return Err(Reason::Gone);
        };
        Ok(self.score(host, peer))
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

pub(in crate::core) fn idc_affinity(a: &Location, b: &Location) -> f64 {
    if same_idc(&a.idc, &b.idc) == Some(true) { 1.0 } else { 0.0 }
}

/// Share of equal leading elements of area, then rack.
pub(in crate::core) fn location_affinity(a: &Location, b: &Location) -> f64 {
    fn elements(place: &Location) -> impl Iterator<Item = &str> {
        let rack = place.rack.split('|').filter(|element| !element.is_empty());
        std::iter::once(&*place.area).chain(rack).take(LOCATION_DEPTH)
    }
    let same = |(a, b): &(&str, &str)| a.eq_ignore_ascii_case(b);
    let is_same = elements(a).count() == elements(b).count()
        && elements(a).zip(elements(b)).all(|pair| same(&pair));
    if is_same {
        return if elements(a).all(str::is_empty) { 0.0 } else { 1.0 };
    }
    let equal = elements(a).zip(elements(b)).take_while(|pair| same(pair) && !pair.0.is_empty());
    equal.count() as f64 / LOCATION_DEPTH as f64
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
