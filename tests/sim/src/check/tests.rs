//! Each rule is broken, and seen to be.

use super::*;

fn scenario() -> Scenario {
    let (uplink_leases, downlink_leases) = (2, 2);
    Scenario { nodes: 8, pieces: 8, idcs: 2, uplink_leases, downlink_leases, ..Scenario::default() }
}

/// All nodes are there and have nothing.
fn witness(imports: Imports) -> Witness {
    let mut witness = Witness::new(&scenario(), imports);
    (1..=8).for_each(|node| join(&mut witness, node, &[]));
    witness
}

fn join(witness: &mut Witness, node: Node, has: &[std::ops::Range<u32>]) {
    witness.told(&Event::Joined { node, has: has.to_vec(), wants: true });
}

fn order(id: u64, from: Node, to: Node, first: u32) -> Order {
    Order { id, from, to, first, count: 1 }
}

fn decide(witness: &mut Witness, orders: &[Order]) -> Result<(), Broken> {
    witness.decided(&Decisions { orders: orders.to_vec(), ..Decisions::default() }, Micros(0))
}

#[test]
fn a_lease_is_from_who_has_it_to_who_lacks_it() {
    let mut witness = witness(Imports::Once);
    let first = order(1, 0, 1, 3);
    assert_eq!(decide(&mut witness, &[first]), Ok(()));
    let other = order(2, 1, 3, 3);
    assert_eq!(decide(&mut witness, &[other]), Err(Broken::SenderHasNot(other)));
    witness.told(&Event::Done(first));
    assert_eq!(decide(&mut witness, &[other]), Ok(()));
    let again = order(3, 1, 3, 3);
    assert_eq!(decide(&mut witness, &[again]), Err(Broken::OnItsWay(again)));
    witness.told(&Event::Done(other));
    assert_eq!(decide(&mut witness, &[again]), Err(Broken::ReceiverHas(again)));
    let own = order(4, 1, 1, 3);
    assert_eq!(decide(&mut witness, &[own]), Err(Broken::NotHere(own)));
    witness.told(&Event::Left(5));
    let gone = order(5, 1, 5, 3);
    assert_eq!(decide(&mut witness, &[gone]), Err(Broken::NotHere(gone)));
    assert_eq!(witness.full(Micros(0)), Ok(()));
}

#[test]
fn nobody_gives_or_takes_more_than_there_are_slots() {
    let mut one = witness(Imports::Once);
    let three = [order(1, 0, 1, 0), order(2, 0, 2, 1), order(3, 0, 3, 2)];
    assert_eq!(decide(&mut one, &three), Err(Broken::NoSlot(three[2])));
    let mut other = witness(Imports::Again);
    (2..=3).for_each(|node| join(&mut other, node, std::slice::from_ref(&(4..8))));
    let three = [order(1, 0, 1, 0), order(2, 2, 1, 4), order(3, 3, 1, 5)];
    assert_eq!(decide(&mut other, &three), Err(Broken::NoRoom(three[2])));
}

#[test]
fn a_piece_enters_an_area_once_unless_it_was_lost_there() {
    let mut witness = witness(Imports::Once);
    join(&mut witness, 1, std::slice::from_ref(&(0..4)));
    let (from_source, into_other) = (order(1, 0, 2, 0), order(2, 1, 2, 0));
    assert_eq!(decide(&mut witness, &[from_source]), Err(Broken::EnteredTwice(from_source)));
    assert_eq!(decide(&mut witness, &[into_other]), Ok(()));
    let again = order(3, 1, 4, 0);
    assert_eq!(decide(&mut witness, &[again]), Err(Broken::EnteredTwice(again)));
    witness.told(&Event::Left(2));
    assert_eq!(decide(&mut witness, &[again]), Ok(()));
    witness.told(&Event::Failed(again, Failure::Other));
    assert_eq!(decide(&mut witness, &[order(4, 0, 4, 0)]), Ok(()), "it has failed once");
    assert_eq!(witness.full(Micros(0)), Ok(()));
}

#[test]
fn a_lease_that_never_ends_and_a_wrong_count_are_noticed() {
    let mut witness = witness(Imports::Once);
    let only = order(1, 0, 1, 0);
    assert_eq!(decide(&mut witness, &[only]), Ok(()));
    assert_eq!(witness.full(Micros(4_000_000)), Ok(()));
    let late = Micros(60_000_000);
    assert_eq!(witness.full(late), Err(Broken::Outlived(only, Micros(0), late)));
    witness.giving[0] = 0;
    assert!(matches!(
        witness.full(Micros(0)),
        Err(Broken::Miscounted("leases from node", 0, 0, 1))
    ));
    witness.copies[0] = 7;
    assert_eq!(witness.full(Micros(0)), Err(Broken::Miscounted("copies", 0, 7, 1)));
}

#[test]
fn a_run_is_as_slow_as_it_must_be_and_the_same_again() {
    assert_eq!(not_sooner(2.0, 1.9), Ok(()));
    assert_eq!(not_sooner(1.8, 1.9), Err(Broken::SoonerThanFluid(1.8, 1.9)));
    assert_eq!(the_same("a", "a"), Ok(()));
    assert!(the_same("a", "b").is_err());
}
