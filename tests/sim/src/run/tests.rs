use std::fs;
use std::path::Path;

use super::*;
use crate::faults::Fault;
use crate::scenario::{Others, Rates, Reads};
use crate::strategy::Strategy;

fn small() -> Scenario {
    Scenario { nodes: 63, pieces: 128, ..Scenario::default() }
}

fn by_swarm(scenario: &Scenario, seed: u64) -> Outcome {
    Strategy::Swarm.run(scenario, seed).unwrap()
}

fn ratio(scenario: &Scenario, outcome: &Outcome) -> f64 {
    outcome.last.unwrap() / bound::with_pieces(scenario)
}

#[test]
fn a_flash_crowd_is_served_near_the_bound_from_one_copy_and_never_sooner() {
    let scenario = small();
    for seed in 1..4 {
        let outcome = by_swarm(&scenario, seed);
        assert!(ratio(&scenario, &outcome) <= 1.06, "{outcome:?}");
        assert!(ratio(&scenario, &outcome) >= 1.0, "{outcome:?}");
        assert_eq!((outcome.source_copies, outcome.twice, outcome.in_vain), (1.0, 0.0, 0.0));
        assert_eq!(outcome.took.len(), 63);
    }
}

/// As a scheduler leases: many pieces of 64 KiB at a time, in runs.
#[test]
fn uplinks_that_are_leased_as_they_turn_out_to_be_fast_are_never_without_work() {
    let file = include_str!("../../scenarios/windows.toml");
    let scenario = Scenario { nodes: 31, ..Scenario::parse(file, "windows.toml").unwrap() };
    let outcome = by_swarm(&scenario, 1);
    let narrow = by_swarm(&Scenario { window_us: 0, ..scenario.clone() }, 1);
    let (wide, narrow) = (ratio(&scenario, &outcome), ratio(&scenario, &narrow));
    assert!(wide < 1.4 && wide < narrow, "{wide}, {narrow} without windows");
    assert!(outcome.source_copies < 1.02, "{}", outcome.source_copies);
}

/// A crowd whose readers are all at the same place is leased what they read next, and takes it from each other. Who reads
/// a mounted file asks for the first of it before that.
#[test]
fn a_crowd_that_reads_from_front_to_back_has_everything_and_by_leases_from_each_other() {
    let file = include_str!("../../scenarios/front-to-back.toml");
    let mounted = Scenario { nodes: 31, ..Scenario::parse(file, "front-to-back.toml").unwrap() };
    let piped = Scenario { reads: Reads::Piped, ..mounted.clone() };
    let [mounted, piped] = [mounted, piped].map(|scenario| {
        let outcome = by_swarm(&scenario, 1);
        let ratio = ratio(&scenario, &outcome);
        println!(
            "{:?}: {ratio:.2} times the bound, {:.2} copies",
            scenario.reads, outcome.source_copies
        );
        (ratio, outcome.source_copies)
    });
    assert!(piped.0 < 1.5 && piped.1 < 1.05, "{piped:?}");
    assert!(mounted.0 < 1.5 && mounted.1 < 1.3, "{mounted:?}");
}

#[test]
fn who_chooses_among_parents_gets_everything_and_later() {
    let scenario = Scenario { nodes: 31, pieces: 64, piece_bytes: 1 << 20, ..small() };
    let swarm = ratio(&scenario, &by_swarm(&scenario, 1));
    for strategy in [Strategy::Seed004, Strategy::Seed004Plus] {
        let (one, other) =
            (strategy.run(&scenario, 1).unwrap(), strategy.run(&scenario, 1).unwrap());
        assert_eq!(one.hash, other.hash);
        assert_eq!(one.costs.orders, 0, "nothing is leased");
        assert!(ratio(&scenario, &one) > swarm, "{strategy:?}: {one:?}");
        assert!(one.depths.iter().any(|depth| *depth > 1), "neighbours give");
    }
}

#[test]
fn a_data_centre_is_entered_once() {
    let outcome = by_swarm(&Scenario { idcs: 3, ..small() }, 1);
    assert!(outcome.last.is_some());
    assert_eq!((outcome.idc_copies, outcome.source_copies), (1.0, 1.0));
}

#[test]
fn a_data_centre_that_was_cut_off_is_entered_once_all_the_same() {
    let cut = Fault::Partition { idc: 1, from: 0.65, lasts: 2.9 };
    let link = 7_500_000;
    let scenario = Scenario {
        nodes: 8,
        pieces: 193,
        piece_bytes: 1 << 16,
        idcs: 2,
        link,
        source_link: link,
        idc_link: Some(link),
        control_us: 500,
        jitter_us: 100,
        batch_us: 4000,
        streams: 8,
        uplink_leases: 8,
        downlink_leases: 16,
        window_us: 100_000,
        pair_us: 2000,
        faults: vec![cut],
        ..Scenario::default()
    };
    for seed in 1..=4 {
        let outcome = by_swarm(&scenario, seed);
        // What was under way when it was cut off comes once more.
        assert!(outcome.idc_copies < 1.25, "seed {seed}: {outcome:?}");
        assert!(outcome.last.is_some_and(|last| last < 6.0), "seed {seed}: {outcome:?}");
    }
}

#[test]
fn equal_seeds_give_equal_decisions() {
    let late = Scenario { spread: 1.0, control_us: 500, jitter_us: 100, ..small() };
    for scenario in [small(), late] {
        let hash = |seed| by_swarm(&scenario, seed).hash;
        assert_eq!(check::the_same(&hash(1), &hash(1)), Ok(()));
        assert!(check::the_same(&hash(1), &hash(2)).is_err());
    }
}

#[test]
fn what_is_compared_with_it_ends_later() {
    let scenario = Scenario { nodes: 31, pieces: 32, ..small() };
    let swarm = ratio(&scenario, &by_swarm(&scenario, 1));
    for strategy in [Strategy::Random, Strategy::Dag, Strategy::Tree, Strategy::Graph] {
        let other = ratio(&scenario, &strategy.run(&scenario, 1).unwrap());
        assert!(other > swarm, "{strategy:?}: {other} and {swarm}");
    }
}

/// Decisions differ from the first tick on: only the means of some runs can be compared. That equal orders end at equal
/// times is seen in [`crate::network`].
#[test]
fn ticks_come_to_the_same_as_fair_shares_at_every_moment() {
    let nodes = if cfg!(debug_assertions) { 100 } else { 500 };
    let (streams, uplink_leases, downlink_leases) = (2, 2, 4);
    let scenario =
        Scenario { nodes, streams, uplink_leases, downlink_leases, pieces: 64, ..small() };
    let mean = |rates| {
        let scenario = Scenario { rates, ..scenario.clone() };
        (1..=8).map(|seed| by_swarm(&scenario, seed).last.unwrap()).sum::<f64>() / 8.0
    };
    let (exact, ticking) = (mean(Rates::Exact), mean(Rates::Tick));
    assert!((exact - ticking).abs() / exact < 0.01, "{exact} and {ticking}");
}

#[test]
fn a_scheduler_that_is_asked_too_much_costs_time() {
    let quick = Scenario { control_us: 500, service_us: 20, ..small() };
    let slow = Scenario { service_us: 2000, ..quick.clone() };
    let (quick, slow) = (by_swarm(&quick, 1), by_swarm(&slow, 1));
    assert!(slow.last > quick.last);
    assert!(slow.waits.last() > quick.waits.last());
    assert!(slow.messages <= 500.0 * 1.01, "{}", slow.messages);
}

/// One of each, at once and in turn.
fn troubled(seed: u64) -> Scenario {
    let (share, from, until) = (0.1, 0.2, 3.0);
    let faults = vec![
        Fault::Crash { share, from, until, lasts: Some(0.5), keeps: seed.is_multiple_of(2) },
        Fault::Crash { share: 0.05, from, until, lasts: None, keeps: false },
        Fault::Freeze { share, from, until, lasts: 1.0 },
        Fault::Slow { share, from, until, lasts: 2.0, times: 20.0 },
        Fault::Partition { idc: 1, from: 1.0, lasts: 1.0 },
        Fault::Scheduler { from: 2.0, lasts: 0.5 },
        Fault::Reports { from, until, dropped: 0.05, duplicated: 0.05, delayed: 0.05 },
        Fault::Rot { share: 0.05, from, until },
        Fault::Lie { share: 0.02 },
    ];
    Scenario {
        nodes: 41,
        pieces: 64,
        piece_bytes: 8 << 20,
        idcs: 2,
        control_us: 500,
        jitter_us: 100,
        streams: 4,
        uplink_leases: 4,
        downlink_leases: 4,
        faults,
        ..Scenario::default()
    }
}

#[test]
fn whatever_goes_wrong_no_rule_is_broken_and_who_is_owed_gets_everything() {
    for seed in 1..=3 {
        let scenario = troubled(seed);
        let outcome = by_swarm(&scenario, seed);
        assert!(outcome.last.is_some(), "seed {seed}: {scenario:?}");
        assert_eq!(outcome.hash, by_swarm(&scenario, seed).hash);
        assert!(outcome.in_vain > 0.0 && outcome.costs.stopped > 0, "nothing went wrong");
    }
}

fn healed(seed: u64, others: Others) -> Result<Outcome, Broken> {
    let scenario = Scenario { heal_at: Some(2.5), healed: 0.5, others, ..troubled(seed) };
    Strategy::Swarm.run(&scenario, seed)
}

#[test]
fn once_some_are_healed_and_the_others_gone_they_get_everything_in_time() {
    for seed in 1..=3 {
        let outcome = healed(seed, Others::Gone);
        assert!(outcome.is_ok(), "seed {seed}: {outcome:?}");
    }
}

#[test]
fn once_some_are_healed_and_the_others_silent_they_get_everything_in_time() {
    for seed in 1..=3 {
        let outcome = healed(seed, Others::Silent);
        assert!(outcome.is_ok(), "seed {seed}: {outcome:?}");
    }
}

/// How much later it ends without a fault that makes it later than any other does: the mean of some seeds, since every
/// other run decides differently. Each fault has random numbers of its own: the others happen as before.
fn worst_without(leases: u32) -> (f64, Option<Fault>) {
    let last = |without: Option<usize>| {
        let of = |seed: u64| {
            let mut scenario = troubled(seed);
            (scenario.uplink_leases, scenario.downlink_leases) = (leases, leases);
            without.map(|at| scenario.faults.remove(at));
            by_swarm(&scenario, seed).last.unwrap()
        };
        (1..=4).map(of).sum::<f64>()
    };
    let faults = troubled(1).faults;
    let with = last(None);
    let ratios = (0..faults.len()).map(|at| (last(Some(at)) / with, at));
    let (worst, at) = ratios.max_by(|one, other| one.0.total_cmp(&other.0)).unwrap();
    (worst, faults.get(at).cloned())
}

#[test]
fn without_one_of_the_faults_it_does_not_end_much_later() {
    let (worst, without) = worst_without(4);
    assert!(worst <= 1.2, "{worst} times as late without {without:?}");
}

/// Whoever is sent one piece at a time by who turns out to be slow waits for it, and so do all to whom it is to go on: from
/// one run to the next that differs by half.
#[test]
fn without_one_of_the_faults_it_does_not_end_much_later_with_one_lease_at_a_time() {
    let (worst, without) = worst_without(1);
    assert!(worst <= 1.6, "{worst} times as late without {without:?}");
}

/// Gives these orders, at once.
struct Stubborn(Vec<Order>);

impl Policy for Stubborn {
    fn step(&mut self, _event: Event, _now: Micros, out: &mut Decisions) {
        out.orders.append(&mut self.0);
    }
}

#[test]
fn whoever_breaks_a_rule_is_stopped() {
    let scenario = small();
    let order = |id, from, to| Order { id, from, to, first: 0, count: 1 };
    let decide = |orders: Vec<Order>, scenario: &Scenario| {
        run(scenario, Imports::Once, &mut Stubborn(orders), None, 1).unwrap_err()
    };
    let bad = order(1, 1, 0);
    assert_eq!(decide(vec![bad], &scenario), Broken::SenderHasNot(bad));
    let idle = Scenario { heal_at: Some(1.0), ..scenario.clone() };
    assert!(matches!(decide(Vec::new(), &idle), Broken::NotDone(32, _)));

    let mut nobody = Stubborn(Vec::new());
    let mut run = Run::new(&scenario, Imports::Once, &mut nobody, None, 1);
    assert_eq!(run.ordered(bad), Err(Broken::NeverHad(bad)));
    assert_eq!(run.ordered(order(2, 0, 1)), Ok(()));
}

#[test]
fn every_scenario_can_be_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files = fs::read_dir(dir).unwrap();
    let names: Vec<_> = files
        .map(|file| Scenario::read(&file.unwrap().path()).unwrap().check().unwrap().name)
        .collect();
    assert!(names.len() >= 3, "{names:?}");
    assert!(Scenario { pieces: 0, ..small() }.check().is_err());
    let lie = Fault::Lie { share: 2.0 };
    assert!(Scenario { faults: vec![lie], ..small() }.check().is_err());
}

#[test]
fn delegates_take_messages_from_the_scheduler_and_nothing_from_the_source() {
    let racks =
        Scenario { nodes: 160, pieces: 256, racks: 4, control_us: 500, service_us: 20, ..small() };
    let alone = by_swarm(&racks, 1);
    let delegated = by_swarm(&Scenario { delegate_above: 1_000, ..racks.clone() }, 1);
    assert!(alone.messages > 1_500.0 && alone.costs.led.is_empty(), "{}", alone.messages);
    assert_eq!(delegated.costs.led.len(), 4, "one in each rack");
    assert!(delegated.messages < 1_000.0, "{}", delegated.messages);
    assert!(delegated.source_copies <= 1.01, "{}", delegated.source_copies);
    assert_eq!(delegated.took.len(), 160);
    // What a delegate sends to its rack and to others both goes through its uplink.
    let longer = delegated.last.unwrap() / alone.last.unwrap();
    assert!((1.0..2.6).contains(&longer), "{longer}");
}
