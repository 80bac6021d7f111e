use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const PIECES: u32 = 20;

fn node(idc: u32, rack: u32) -> Joining<'static> {
    Joining { role: Role::Node, place: Place { idc, rack }, has: &[], wants: ALL }
}

fn source() -> Joining<'static> {
    Joining { role: Role::Source, place: Place::default(), has: ALL, wants: &[] }
}

const EVERY: Range<u32> = 0..PIECES;
const ALL: &[Range<u32>] = std::slice::from_ref(&EVERY);

impl Matcher {
    /// What is counted is what there is.
    fn check(&self) {
        let mut outstanding = 0;
        let peers: Vec<u32> =
            (0..self.peers.count()).filter(|peer| self.peers.is_here(*peer)).collect();
        for peer in &peers {
            let lacks = (0..self.pieces.len()).filter(|piece| self.peers.lacks(*peer, *piece));
            let coming = |piece: &usize| {
                self.peers.is_coming(*peer, *piece) && !self.peers.has(*peer, *piece)
            };
            outstanding += lacks.count() + (0..self.pieces.len()).filter(coming).count();
        }
        assert_eq!(self.outstanding, outstanding as u64);
        for piece in 0..self.pieces.len() {
            let has = |peer: &&u32| {
                self.peers.counts(**peer)
                    && (self.peers.has(**peer, piece) || self.peers.is_expected(**peer, piece))
            };
            let copies = peers.iter().filter(has).count();
            assert_eq!(self.pieces.copies(piece) as usize, copies, "of {piece}");
        }
    }
}

/// What a matcher's rules say of its leases, kept beside it from what it was told and said.
#[derive(Default)]
struct Witness {
    roles: BTreeMap<PeerNumber, (Role, Place)>,
    has: BTreeMap<PeerNumber, BTreeSet<u32>>,
    out: BTreeMap<LeaseId, Lease>,
    giving: BTreeMap<PeerNumber, u32>,
    getting: BTreeMap<PeerNumber, u32>,
}

impl Witness {
    fn joined(&mut self, number: PeerNumber, joining: &Joining<'_>) {
        self.roles.insert(number, (joining.role, joining.place));
        self.has.insert(number, joining.has.iter().flat_map(Clone::clone).collect());
    }

    fn is_coming(&self, to: PeerNumber, piece: u32) -> bool {
        let covers = |lease: &&Lease| lease.pieces().any(|one| one == piece as usize);
        self.out.values().filter(covers).any(|lease| lease.to == to)
    }

    /// Whether anybody at a place that `is_there` has a piece or is being sent it.
    fn is_at(&self, piece: u32, is_there: impl Fn(Role, Place) -> bool) -> bool {
        self.roles.iter().any(|(number, (role, place))| {
            is_there(*role, *place)
                && (self.has[number].contains(&piece) || self.is_coming(*number, piece))
        })
    }

    fn leased(&mut self, lease: Lease, tuning: &Tuning) {
        assert!(lease.from != lease.to && lease.count >= 1 && lease.count <= tuning.run.into());
        let (role, from) = self.roles[&lease.from];
        let (_, to) = self.roles[&lease.to];
        for piece in lease.pieces().map(|piece| piece as u32) {
            assert!(self.has[&lease.from].contains(&piece), "nobody gives what they have not");
            assert!(!self.has[&lease.to].contains(&piece), "nobody is sent what they have");
            assert!(!self.is_coming(lease.to, piece), "nobody is sent a piece twice");
            if role == Role::Source {
                let is_node = |role, _| role == Role::Node;
                assert!(!self.is_at(piece, is_node), "a source sends each piece once");
            } else if from != to {
                let is_whole = from.idc != to.idc;
                let is_there = |role, place: Place| {
                    role == Role::Node && if is_whole { place.idc == to.idc } else { place == to }
                };
                assert!(!self.is_at(piece, is_there), "a piece enters an area once");
            }
        }
        *self.giving.entry(lease.from).or_default() += lease.count;
        *self.getting.entry(lease.to).or_default() += lease.count;
        assert!(self.giving[&lease.from] <= tuning.uplink);
        assert!(self.getting[&lease.to] <= tuning.downlink);
        assert!(self.out.insert(lease.id, lease).is_none(), "no name is given twice");
    }

    fn ended(&mut self, id: LeaseId, is_done: bool) {
        let Some(lease) = self.out.remove(&id) else { return };
        *self.giving.entry(lease.from).or_default() -= lease.count;
        *self.getting.entry(lease.to).or_default() -= lease.count;
        if let Some(has) = self.has.get_mut(&lease.to).filter(|_| is_done) {
            has.extend(lease.pieces().map(|piece| piece as u32));
        }
    }

    fn left(&mut self, number: PeerNumber) {
        let of_it = |lease: &&Lease| lease.from == number || lease.to == number;
        let of_it: Vec<_> = self.out.values().filter(of_it).map(|lease| lease.id).collect();
        of_it.into_iter().for_each(|id| self.ended(id, false));
        self.roles.remove(&number);
        self.has.remove(&number);
    }
}

/// An uplink is leased as many pieces however fast it is.
const FIXED: Tuning = Tuning {
    sampled: 8,
    uplink: 10,
    window: 0,
    downlink: 20,
    run: 64,
    choice: Choice::Rarest,
    straggler: 8,
};

struct Field {
    matcher: Matcher,
    witness: Witness,
    tuning: Tuning,
    now: u64,
}

impl Field {
    fn new(tuning: Tuning, seed: u64) -> Self {
        let matcher = Matcher::new(PIECES, 1000, tuning, seed);
        Self { matcher, witness: Witness::default(), tuning, now: 0 }
    }

    /// Told to the matcher first, and seen by the witness before the leases that follow.
    fn tell(&mut self, event: impl FnOnce(&mut Matcher, &mut Witness, Micros)) -> Vec<Lease> {
        self.now += 1000;
        event(&mut self.matcher, &mut self.witness, Micros(self.now));
        for lease in self.matcher.withdrawn().collect::<Vec<_>>() {
            self.witness.ended(lease.id, false);
        }
        let leases: Vec<_> = self.matcher.leases().collect();
        for lease in &leases {
            self.witness.leased(*lease, &self.tuning);
        }
        leases
    }

    fn join(&mut self, joining: &Joining<'_>) -> PeerNumber {
        let mut number = PeerNumber(0);
        self.tell(|matcher, witness, now| {
            number = matcher.join(joining, now);
            witness.joined(number, joining);
        });
        number
    }

    fn done(&mut self, id: LeaseId) {
        self.tell(|matcher, witness, now| {
            witness.ended(id, true);
            matcher.done(id, now);
        });
    }

    /// Carries out what is leased, and lets time pass where nothing is, until all nodes have everything.
    fn run_out(&mut self) -> bool {
        for _ in 0..5_000 {
            let nodes: Vec<_> = self.witness.roles.keys().copied().collect();
            if nodes.iter().all(|number| self.matcher.is_complete(*number)) {
                return true;
            }
            match self.witness.out.keys().next().copied() {
                Some(id) => self.done(id),
                None => {
                    self.now = self.matcher.next_tick().map_or(self.now, |due| due.0);
                    self.tell(|matcher, _, now| matcher.tick(now));
                }
            }
        }
        false
    }
}

#[derive(Debug, Clone)]
enum Step {
    Join(u32, u32),
    Leave(usize),
    Done(usize),
    Failed(usize, bool),
    /// A withdrawn lease brings its pieces all the same.
    Late(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3u32, 0..2u32).prop_map(|(idc, rack)| Step::Join(idc, rack)),
        1 => any::<usize>().prop_map(Step::Leave),
        20 => any::<usize>().prop_map(Step::Done),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(n, lost)| Step::Failed(n, lost)),
        1 => any::<usize>().prop_map(Step::Late),
        2 => prop_oneof![Just(1), Just(200), Just(3_000), Just(60_000)].prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_hold_whatever_happens_and_who_stays_gets_everything(
        steps in prop::collection::vec(step(), 1..200),
        run in 1..4u16,
        slots in 1u32..5,
        seed in any::<u64>(),
    ) {
        // How fast anybody is means nothing here.
        let straggler = u64::MAX;
        let tuning =
            Tuning { run, uplink: slots, downlink: slots + 1, straggler, ..FIXED };
        let mut field = Field::new(tuning, seed);
        let first = field.join(&source());
        for step in steps {
            let nodes: Vec<_> = field.witness.roles.keys().copied().filter(|n| *n != first).collect();
            let leases: Vec<_> = field.witness.out.keys().copied().collect();
            let one_of = |list: &[LeaseId], n: usize| list.get(n % list.len().max(1)).copied();
            match step {
                Step::Join(idc, rack) => drop(field.join(&node(idc, rack))),
                Step::Leave(n) if !nodes.is_empty() => {
                    let number = nodes[n % nodes.len()];
                    field.tell(|matcher, witness, now| {
                        witness.left(number);
                        matcher.leave(number, now);
                    });
                }
                Step::Done(n) => {
                    if let Some(id) = one_of(&leases, n) {
                        field.done(id);
                    }
                }
                Step::Failed(n, is_lost) => {
                    let Some(id) = one_of(&leases, n) else { continue };
                    let lease = field.witness.out[&id];
                    // The source has everything.
                    let is_lost = is_lost && lease.from != first;
                    field.tell(|matcher, witness, now| {
                        witness.ended(id, false);
                        let why = if is_lost { Failure::NotThere } else { Failure::Other };
                        if is_lost {
                            let has = witness.has.get_mut(&lease.from).unwrap();
                            let lost: BTreeSet<_> = lease.pieces().map(|piece| piece as u32).collect();
                            has.retain(|piece| !lost.contains(piece));
                        }
                        matcher.failed(id, why, now);
                    });
                }
                Step::Late(n) if !nodes.is_empty() => {
                    let (number, piece) = (nodes[n % nodes.len()], n as u32 % PIECES);
                    field.tell(|matcher, witness, now| {
                        witness.has.get_mut(&number).unwrap().insert(piece);
                        matcher.gained(number, piece..piece + 1, now);
                    });
                }
                Step::Wait(millis) => {
                    field.now += millis * 1000;
                    field.tell(|matcher, _, now| matcher.tick(now));
                }
                Step::Leave(_) | Step::Late(_) => {}
            }
        }
        field.matcher.check();
        prop_assert!(field.run_out(), "somebody waits for ever");
        field.matcher.check();
    }
}

#[test]
fn equal_seeds_and_events_give_equal_leases() {
    let leases = |seed| {
        let mut field = Field::new(Tuning::default(), seed);
        field.join(&source());
        let mut all = Vec::new();
        for _ in 0..6 {
            let joining = node(0, 0);
            all.extend(field.tell(|matcher, witness, now| {
                let number = matcher.join(&joining, now);
                witness.joined(number, &joining);
            }));
        }
        for _ in 0..100 {
            let Some(id) = field.witness.out.keys().next().copied() else { break };
            all.extend(field.tell(|matcher, witness, now| {
                witness.ended(id, true);
                matcher.done(id, now);
            }));
        }
        all
    };
    assert_eq!(leases(1), leases(1));
    assert_ne!(leases(1), leases(2));
}

#[test]
fn what_only_a_straggler_has_is_sent_again() {
    let tuning = Tuning { uplink: 1, downlink: 1, ..FIXED };
    let mut matcher = Matcher::new(2, 1000, tuning, 1);
    let give = |matcher: &mut Matcher| matcher.leases().collect::<Vec<_>>();
    let both = 0..2;
    let all = std::slice::from_ref(&both);
    let joining = |role, has, wants| Joining { role, place: Place::default(), has, wants };
    matcher.join(&joining(Role::Source, all, &[]), Micros(0));
    let slow = matcher.join(&joining(Role::Node, &[], all), Micros(0));
    let [lease] = give(&mut matcher)[..] else { panic!("the source has one slot") };
    assert_eq!(lease.to, slow);
    let fast = matcher.join(&joining(Role::Node, &[], all), Micros(0));
    matcher.done(lease.id, Micros(1000));
    let mut sent = Vec::new();
    let mut now = 1000;
    // What the slow one is to send takes a thousand times as long as what the source sends.
    let mut under_way: Vec<(u64, Lease)> = Vec::new();
    while !matcher.is_complete(fast) && now < 60_000_000 {
        for lease in give(&mut matcher) {
            sent.push((lease.from, lease.to, lease.first));
            let takes = if lease.from == slow { 10_000_000 } else { 1000 };
            under_way.push((now + takes, lease));
        }
        under_way.sort_by_key(|(at, lease)| (*at, lease.id));
        let due = matcher.next_tick().map_or(u64::MAX, |due| due.0);
        match under_way.first().copied() {
            Some((at, lease)) if at <= due => {
                now = at;
                under_way.remove(0);
                matcher.done(lease.id, Micros(now));
            }
            _ => {
                now = due.min(now + 1_000_000);
                matcher.tick(Micros(now));
            }
        }
    }
    assert!(matcher.is_complete(fast), "{sent:?}");
    let again = (PeerNumber(0), fast, lease.first);
    assert!(sent.contains(&again) && now < 10_000_000, "{sent:?} until {now}");
}

#[test]
fn an_uplink_that_is_fast_is_leased_more_at_a_time_and_longer_runs() {
    let mut field =
        Field { matcher: Matcher::new(40_000, 1000, Tuning::default(), 3), ..Field::new(FIXED, 3) };
    let give = |matcher: &mut Matcher| matcher.leases().collect::<Vec<_>>();
    let all = 0..40_000;
    let source = Joining {
        role: Role::Source,
        place: Place::default(),
        has: std::slice::from_ref(&all),
        wants: &[],
    };
    field.matcher.join(&source, Micros(0));
    let node = Joining { role: Role::Node, place: Place::default(), has: &[], wants: &[all] };
    field.matcher.join(&node, Micros(0));
    let [first] = give(&mut field.matcher)[..] else { panic!("how fast it is is not known") };
    // A piece is 1000 bytes, and one takes 20 microseconds: 50 million bytes a second.
    let (mut now, mut under_way, mut most, mut longest) = (0, vec![first], 0, 0);
    while !under_way.is_empty() {
        now += 20 * u64::from(under_way[0].count);
        field.matcher.done(under_way.remove(0).id, Micros(now));
        under_way.extend(give(&mut field.matcher));
        most = most.max(under_way.iter().map(|lease| lease.count).sum());
        longest = under_way.iter().map(|lease| lease.count).max().unwrap_or(longest).max(longest);
    }
    assert!(most > 10 * FIXED.uplink, "{most} at a time");
    assert!(longest > 10, "in runs of {longest}");
}
