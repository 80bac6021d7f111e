//! The founding design's parents, of better candidates: near ones before a sample is taken, and those first who have
//! what the child lacks.

use std::cmp::Reverse;

use dfs_model::{GroupRange, HostId};
use rand::rngs::StdRng;
use rand::seq::index;

use super::scoring::{self, SAMPLED};
use super::{Ask, Choice, Strategy, Swarm};
use crate::core::{Held, MAX_GROUPS, Wanted};

/// Hosts of the child's data centre, and of all, that are looked at to find fifteen: a bound on the work.
const LOOKED_AT: usize = 256;

/// Runs of what the child lacks that are looked for in a bitmap, spread over all of them: another bound.
const RUNS: usize = 64;

/// The fifteen are first those who pass the filter, of them those whose bitmap has what the child lacks, and of these
/// the nearest; filters, scores and takes the best four as [`Seed004`](super::seed004::Seed004) does.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seed004Plus;

impl Strategy for Seed004Plus {
    fn name(&self) -> &'static str {
        "seed004+"
    }

    fn parents(&self, swarm: &Swarm<'_>, ask: &Ask<'_>, random: &mut StdRng) -> Choice {
        scoring::choose(swarm, ask, candidates(swarm, ask, random))
    }
}

fn candidates(swarm: &Swarm<'_>, ask: &Ask<'_>, random: &mut StdRng) -> Vec<HostId> {
    let mut chosen = scoring::regulars(swarm, ask);
    let roster = swarm.task.roster();
    let idc = swarm.hosts.get(&ask.child).map(|child| &*child.idc).unwrap_or_default();
    let mut looked_at = Vec::new();
    for list in [roster.in_idc(idc), roster.all()] {
        let sample = index::sample(random, list.len(), list.len().min(LOOKED_AT));
        looked_at.extend(sample.into_iter().map(|place| list[place]));
    }
    let lacks = lacking(swarm, ask);
    // The order of the sample decides among equals.
    looked_at.sort_by_cached_key(|host| worth(swarm, ask, &lacks, host));
    for host in looked_at {
        if chosen.len() >= SAMPLED {
            break;
        }
        if !chosen.contains(&host) {
            chosen.push(host);
        }
    }
    chosen.truncate(SAMPLED);
    chosen
}

/// What a host is looked at by, the best first.
fn worth(
    swarm: &Swarm<'_>,
    ask: &Ask<'_>,
    lacks: &[GroupRange],
    host: &HostId,
) -> (bool, bool, Reverse<(bool, u32)>) {
    let is_dropped = scoring::filtered(swarm, ask, host).is_some();
    let is_useless = swarm.task.peer(host).is_none_or(|peer| !has_some(&peer.held, lacks));
    let place = |host| swarm.hosts.get(host).map(|host| &host.info.location);
    let nearness = match (place(&ask.child), place(host)) {
        (Some(here), Some(there)) => {
            let is_in_idc = scoring::idc_affinity(here, there) > 0.0;
            (is_in_idc, (scoring::location_affinity(here, there) * 100.0) as u32)
        }
        _ => (false, 0),
    };
    (is_dropped, is_useless, Reverse(nearness))
}

fn has_some(held: &Held, lacks: &[GroupRange]) -> bool {
    match held {
        Held::All => true,
        Held::Part(held) => lacks.iter().any(|run| held.present_in(*run).next().is_some()),
    }
}

/// Runs of what the child wants and does not hold: all of few; of many the next ones from places evenly apart.
fn lacking(swarm: &Swarm<'_>, ask: &Ask<'_>) -> Vec<GroupRange> {
    let Held::Part(held) = &ask.peer.held else { return Vec::new() };
    let all = GroupRange::new(0, swarm.task.groups().unwrap_or(MAX_GROUPS));
    match &ask.peer.wanted {
        Wanted::All => some_runs(all, |rest| held.missing_in(rest)),
        Wanted::Groups(wanted) => {
            some_runs(all, |rest| wanted.present_in(rest).flat_map(|run| held.missing_in(run)))
        }
    }
}

/// At most [`RUNS`] of the runs there are: it does not come to many more.
fn some_runs<Runs: Iterator<Item = GroupRange>>(
    all: GroupRange,
    runs_in: impl Fn(GroupRange) -> Runs,
) -> Vec<GroupRange> {
    let first: Vec<GroupRange> = runs_in(all).take(RUNS + 1).collect();
    if first.len() <= RUNS {
        return first;
    }
    let apart = all.count.div_ceil(RUNS as u64);
    let mut runs: Vec<GroupRange> = Vec::new();
    for place in (all.first..all.end()).step_by(apart as usize) {
        if runs.last().is_some_and(|run| run.end() > place) {
            continue;
        }
        let Some(run) = runs_in(GroupRange::new(place, all.end() - place)).next() else { break };
        runs.push(run);
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use dfs_model::{GroupSet, HostInfo, HostKind, Location};
    use rand::SeedableRng as _;

    use super::*;
    use crate::core::strategy::seed004::Seed004;
    use crate::core::tests::{MIB, task};
    use crate::core::{Host, Millis, Peer, PeerState, Task, Wait};

    const CHILD: HostId = HostId::from_bytes([0xff; 16]);

    fn id(n: u32) -> HostId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        HostId::from_bytes(bytes)
    }

    struct Field {
        task: Task,
        hosts: BTreeMap<HostId, Host>,
    }

    impl Field {
        /// A child in data centre 7, rack 3, which holds the first half and wants all.
        fn new() -> Self {
            let mut field = Self { task: task("a", Some(64 * MIB)), hosts: BTreeMap::new() };
            field.enter(CHILD, "dc7", "row1|rack3", 0..512);
            let child = field.task.peer_mut(&CHILD).unwrap();
            child.become_(PeerState::Waiting { due: Millis(0), wait: Wait::Parents });
            child.wanted = Wanted::All;
            field
        }

        /// Ten thousand hosts over a hundred data centres that hold what the child holds.
        fn crowded() -> Self {
            let mut field = Self::new();
            (0..10_000).for_each(|n| field.enter(id(n), &format!("dc{}", n % 100), "", 0..512));
            field
        }

        fn enter(&mut self, host: HostId, idc: &str, rack: &str, held: std::ops::Range<u64>) {
            let location = Location { area: "eu".into(), idc: idc.into(), rack: rack.into() };
            let info = HostInfo {
                id: host,
                kind: HostKind::Node,
                name: String::new(),
                location,
                addresses: Vec::new(),
                public_key: [0; 32],
                upload_slots: 10,
            };
            let here = Host::new(Arc::new(info), 10);
            let mut groups = GroupSet::new();
            groups.insert_range(GroupRange::new(held.start, held.end - held.start));
            let peer = || Peer::new(PeerState::Resting, Held::Part(groups));
            self.task.enter(host, &here.idc, peer);
            self.hosts.insert(host, here);
        }

        fn gain(&mut self, n: u32) {
            let all = self.task.groups();
            let peer = self.task.peer_mut(&id(n)).unwrap();
            peer.holds(Held::Part(GroupSet::new()), Millis(0));
            peer.gain(GroupRange::new(512, 512), all, Millis(0));
        }

        fn ask(&self, strategy: &impl Strategy, seed: u64) -> Choice {
            let swarm = Swarm { task: &self.task, hosts: &self.hosts, now: Millis(0) };
            let peer = self.task.peer(&CHILD).unwrap();
            let descendants = BTreeSet::new();
            let ask = Ask { child: CHILD, peer, former: &[], descendants: &descendants };
            strategy.parents(&swarm, &ask, &mut StdRng::seed_from_u64(seed))
        }
    }

    #[test]
    fn of_ten_thousand_the_few_neighbours_with_what_is_lacking_are_found() {
        let mut field = Field::crowded();
        let near = [7, 2507, 5007, 7507, 9907];
        near.into_iter().for_each(|n| field.gain(n));
        (0..10_000).step_by(3).filter(|n| n % 100 != 7).for_each(|n| field.gain(n));
        let is_near = |host: &HostId| near.iter().any(|n| id(*n) == *host);
        let found = |strategy: &dyn Fn(u64) -> Choice| -> usize {
            (0..20).map(|seed| strategy(seed).chosen.iter().filter(|h| is_near(h)).count()).sum()
        };
        assert_eq!(found(&|seed| field.ask(&Seed004Plus, seed)), 20 * 4, "four of the five");
        assert!(found(&|seed| field.ask(&Seed004, seed)) <= 4, "a sample of everybody misses them");
        let candidates = field.ask(&Seed004Plus, 1).candidates;
        assert_eq!(candidates.len(), SAMPLED);
        let lacks = [GroupRange::new(512, 512)];
        let has_some = |host: &HostId| has_some(&field.task.peer(host).unwrap().held, &lacks);
        assert!(candidates.iter().all(|candidate| has_some(&candidate.host)));
    }

    #[test]
    fn of_a_bitmap_with_holes_all_over_a_few_are_looked_at_and_a_single_one_is_found() {
        let all = GroupRange::new(0, 6_553_600);
        let mut held = GroupSet::new();
        (0..all.count).step_by(2).for_each(|group| held.insert_range(GroupRange::new(group, 1)));
        let met = std::cell::Cell::new(0);
        let meets = |_: &GroupRange| met.set(met.get() + 1);
        let runs = some_runs(all, |rest| held.missing_in(rest).inspect(meets));
        let expected = (0..64).map(|place| GroupRange::new(place * 102_400 + 1, 1));
        assert_eq!(runs, expected.collect::<Vec<_>>());
        assert_eq!(met.get(), 65 + 64, "of three million");

        let few: Vec<_> = [7, 9, 5_000_001].map(|group| GroupRange::new(group, 1)).into();
        held = GroupSet::full(all.count);
        few.iter().for_each(|run| held.remove_range(*run));
        assert_eq!(some_runs(all, |rest| held.missing_in(rest)), few);
        (100..300).step_by(2).for_each(|group| held.remove_range(GroupRange::new(group, 1)));
        let runs = some_runs(all, |rest| held.missing_in(rest));
        assert_eq!(runs, [few[0], few[2]], "each once");
        assert_eq!(some_runs(GroupRange::new(0, 0), |rest| held.missing_in(rest)), []);
    }

    #[test]
    fn where_no_neighbour_has_what_is_lacking_those_who_have_it_come_from_afar() {
        let mut field = Field::crowded();
        (0..10_000).filter(|n| n % 100 == 50).for_each(|n| field.gain(n));
        let chosen = field.ask(&Seed004Plus, 1).candidates;
        let afar = chosen.iter().filter(|one| field.hosts[&one.host].info.location.idc == "dc50");
        let near = chosen.iter().filter(|one| field.hosts[&one.host].info.location.idc == "dc7");
        let (afar, near) = (afar.count(), near.count());
        assert!(afar > 0 && afar + near == SAMPLED, "{afar} and {near}: the rest is near");
    }

    #[test]
    fn neighbours_in_the_rack_come_before_those_in_the_data_centre_and_full_ones_last() {
        let mut field = Field::new();
        (0..100).for_each(|n| field.enter(id(n), "DC7", "row1|rack9", 0..1000));
        (100..116).for_each(|n| field.enter(id(n), "dc7", "row1|rack3", 0..1000));
        for n in 100..103 {
            let host = field.hosts.get_mut(&id(n)).unwrap();
            (0..10).for_each(|child| host.take(id(1000 + child)));
        }
        let candidates = field.ask(&Seed004Plus, 1).candidates;
        let in_rack = candidates.iter().filter(|one| (id(103)..id(116)).contains(&one.host));
        assert_eq!((in_rack.count(), candidates.len()), (13, SAMPLED));
        let full = candidates.iter().filter(|one| (id(100)..id(103)).contains(&one.host));
        assert_eq!(full.count(), 0);
    }
}
