//! Peers that lie, each in its way: nobody takes a wrong byte, nobody waits for them for long, and they are asked a
//! bounded number of times.

use dfs_tests::Testbed;
use dfs_tests::testbed::{Layout, Links};

use crate::support::crowd::{Crowd, LENGTH, LINK, NODES};
use crate::support::liar::{Liar, Lie};

const WITH_ALL_SEEDS: f64 = 1.05;
/// Groups of the file.
const GROUPS: u64 = LENGTH.div_ceil(65_536);

/// Liars hold all of it when a crowd comes; who comes later than the crowd meets them too. How often each was asked by
/// the crowd, and by the last.
fn lied_to(lies: &[Lie]) -> Vec<[u64; 2]> {
    let layout = Layout { links: Links::Plain, ..Layout::flat(NODES, LINK) };
    let testbed = Testbed::build(&layout).unwrap();
    let crowd = Crowd::on(&testbed);
    let manager = crowd.fleet.manager().unwrap();
    let home = testbed.machine("node8").unwrap();
    let root = crowd.place.root();
    let start = |lie: &Lie| Liar::start(home, root, manager, &crowd.url, *lie);
    let liars: Vec<Liar> = lies.iter().map(start).collect();
    liars.iter().for_each(Liar::lie);
    let asked = || liars.iter().map(Liar::asked).collect::<Vec<u64>>();
    let accounts = crowd.have_it(crowd.take_each(0..NODES - 2), WITH_ALL_SEEDS);
    let by_the_crowd = asked();
    assert!(by_the_crowd.iter().all(|times| *times > 0), "{by_the_crowd:?} times: {accounts:?}");
    crowd.have_it(crowd.take_each(NODES - 2..NODES - 1), WITH_ALL_SEEDS);
    let in_all = asked();
    by_the_crowd.into_iter().zip(in_all).map(|(crowd, all)| [crowd, all - crowd]).collect()
}

#[test]
fn whoever_sends_wrong_bytes_is_asked_by_nobody_any_more() {
    for [crowd, last] in lied_to(&[Lie::Corrupts, Lie::Swaps]) {
        assert!(crowd <= GROUPS, "asked {crowd} times");
        assert_eq!(last, 0, "who came later was sent there");
    }
}

#[test]
fn whoever_holds_nothing_of_what_it_says_is_asked_no_more_than_once_for_each_of_it() {
    let asked = lied_to(&[Lie::HoldsNothing])[0];
    assert!(asked.iter().sum::<u64>() <= GROUPS, "{asked:?}");
}

#[test]
fn whoever_answers_and_sends_nothing_or_drips_keeps_nobody_from_the_file() {
    for asked in lied_to(&[Lie::Stalls, Lie::Drips]) {
        assert!(asked.iter().sum::<u64>() <= GROUPS, "{asked:?}");
    }
}
