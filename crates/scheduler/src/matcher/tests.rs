use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const PIECES: u32 = 20;

fn node(idc: u32, rack: u32) -> Joining<'static> {
    Joining { place: Place { idc, rack }, ..Joining::new(Role::Node, &[], ALL) }
}

fn source() -> Joining<'static> {
    Joining::new(Role::Source, ALL, &[])
}

const EVERY: Range<u32> = 0..PIECES;
const ALL: &[Range<u32>] = std::slice::from_ref(&EVERY);

impl Matcher {
    /// What is counted is what there is.
    fn check(&self) {
        let mut outstanding = 0;
        let peers: Vec<u32> =
            (0..self.peers.count() as u32).filter(|peer| self.peers.is_here(*peer)).collect();
        for peer in &peers {
            let lacks = (0..self.pieces.len()).filter(|piece| self.peers.lacks(*peer, *piece));
            let coming = |piece: &usize| {
                self.peers.is_coming(*peer, *piece) && !self.peers.has(*peer, *piece)
            };
            outstanding += lacks.count() + (0..self.pieces.len()).filter(coming).count();
        }
        assert_eq!(self.outstanding, outstanding as u64);
        for peer in &peers {
            let partners = self.partners.of(*peer);
            assert!(partners.len() <= self.tuning.partners as usize);
            let is_alone =
                |other: &&u32| !self.peers.is_here(**other) || !self.partners.are(**other, *peer);
            assert_eq!(partners.iter().find(is_alone), None, "both know of it");
            for out in self.under_way.of(*peer, Side::Gives) {
                assert!(partners.contains(&out.lease.to.0), "leases are between partners");
            }
        }
        for piece in 0..self.pieces.len() {
            let has = |peer: &&u32| {
                self.peers.counts(**peer)
                    && (self.peers.has(**peer, piece) || self.is_expected(**peer, piece))
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
    /// Who has failed whom, until something has come to them.
    failed: BTreeSet<(PeerNumber, PeerNumber)>,
    apart: BTreeMap<(PeerNumber, PeerNumber), u64>,
    /// Whose copies do not count: they have not sent what they were to, nor anything since.
    doubtful: BTreeSet<PeerNumber>,
    /// To whom nothing on its way counts: they have not taken what others sent, nor anything since.
    struck: BTreeSet<PeerNumber>,
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

    /// Whether somebody who counts is sending it.
    fn is_expected(&self, to: PeerNumber, piece: u32) -> bool {
        let covers = |lease: &&Lease| lease.pieces().any(|one| one == piece as usize);
        let coming = self.out.values().filter(covers).filter(|lease| lease.to == to);
        !self.struck.contains(&to)
            && coming.map(|lease| lease.from).any(|from| !self.doubtful.contains(&from))
    }

    /// Whether anybody who counts for a receiver, at a place that `is_there`, has a piece or is being sent it.
    fn is_at(&self, to: PeerNumber, piece: u32, is_there: impl Fn(Role, Place) -> bool) -> bool {
        self.roles.iter().any(|(number, (role, place))| {
            is_there(*role, *place)
                && !self.doubtful.contains(number)
                && !self.failed.contains(&(*number, to))
                && !self.apart.contains_key(&(*number, to))
                && (self.has[number].contains(&piece) || self.is_expected(*number, piece))
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
            assert!(!self.apart.contains_key(&(lease.from, lease.to)), "these two are kept apart");
            if role == Role::Source {
                let is_node = |role, _| role == Role::Node;
                assert!(!self.is_at(lease.to, piece, is_node), "a source sends each piece once");
            } else if from != to {
                let is_whole = from.idc != to.idc;
                let is_there = |role, place: Place| {
                    role == Role::Node && if is_whole { place.idc == to.idc } else { place == to }
                };
                assert!(!self.is_at(lease.to, piece, is_there), "a piece enters an area once");
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
        if is_done {
            self.failed.retain(|(_, to)| *to != lease.to);
            self.doubtful.remove(&lease.from);
            self.struck.remove(&lease.to);
            let has = self.has.get_mut(&lease.to);
            has.into_iter().for_each(|has| has.extend(lease.pieces().map(|piece| piece as u32)));
        }
    }

    /// A lease is taken back for want of an answer.
    fn withdrawn(&mut self, lease: &Lease) {
        if self.out.contains_key(&lease.id) {
            self.failed.insert((lease.from, lease.to));
        }
        self.ended(lease.id, false);
    }

    fn left(&mut self, number: PeerNumber) {
        let of_it = |lease: &&Lease| lease.from == number || lease.to == number;
        let of_it: Vec<_> = self.out.values().filter(of_it).map(|lease| lease.id).collect();
        of_it.into_iter().for_each(|id| self.ended(id, false));
        self.roles.remove(&number);
        self.has.remove(&number);
        self.failed.retain(|(from, to)| *from != number && *to != number);
        self.doubtful.remove(&number);
        self.struck.remove(&number);
        self.apart.retain(|(from, to), _| *from != number && *to != number);
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
    partners: 64,
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
        self.witness.apart.retain(|_, until| *until > self.now);
        event(&mut self.matcher, &mut self.witness, Micros(self.now));
        for lease in self.matcher.withdrawn().collect::<Vec<_>>() {
            self.witness.withdrawn(&lease);
        }
        let all: Vec<PeerNumber> = self.witness.roles.keys().copied().collect();
        let peers = &self.matcher.peers;
        self.witness.doubtful.extend(all.iter().filter(|number| peers.is_doubtful(number.0)));
        self.witness.struck.extend(all.iter().filter(|number| peers.is_struck(number.0)));
        let parted: Vec<_> = self.matcher.parted().collect();
        let leases: Vec<_> = self.matcher.leases().collect();
        for lease in &leases {
            self.witness.leased(*lease, &self.tuning);
        }
        for (one, other) in parted {
            self.witness.failed.remove(&(one, other));
            self.witness.failed.remove(&(other, one));
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

    fn failed(&mut self, id: LeaseId, why: Failure) {
        let lease = self.witness.out[&id];
        self.tell(|matcher, witness, now| {
            witness.ended(id, false);
            match why {
                Failure::Apart | Failure::NotThere => {
                    witness.apart.insert((lease.from, lease.to), now.0 + APART);
                    witness.failed.insert((lease.from, lease.to));
                }
                Failure::Other => drop(witness.failed.insert((lease.from, lease.to))),
                Failure::Held => {
                    let has = witness.has.get_mut(&lease.to).unwrap();
                    has.extend(lease.pieces().map(|piece| piece as u32));
                }
                Failure::Unwanted => {}
            }
            matcher.failed(id, why, now);
            // What two have denied is not there.
            let has = witness.has.get_mut(&lease.from).unwrap();
            has.retain(|piece| matcher.has(lease.from, *piece));
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
    Failed(usize, Failure),
    /// A withdrawn lease brings its pieces all the same.
    Late(usize),
    Wait(u64),
    /// A node gives no more, and then gives again.
    Flips(usize),
    /// It reads from front to back.
    Reads(usize, u32, u32),
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        Just(Failure::NotThere),
        Just(Failure::Apart),
        Just(Failure::Other),
        Just(Failure::Held)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3u32, 0..2u32).prop_map(|(idc, rack)| Step::Join(idc, rack)),
        1 => any::<usize>().prop_map(Step::Leave),
        20 => any::<usize>().prop_map(Step::Done),
        2 => (any::<usize>(), failure()).prop_map(|(n, why)| Step::Failed(n, why)),
        1 => any::<usize>().prop_map(Step::Flips),
        2 => (any::<usize>(), 0..2 * PIECES, 0..PIECES)
            .prop_map(|(n, first, count)| Step::Reads(n, first, count)),
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
        partners in 4u32..9,
        slots in 1u32..5,
        seed in any::<u64>(),
    ) {
        // How fast anybody is means nothing here.
        let straggler = u64::MAX;
        let tuning =
            Tuning { run, uplink: slots, downlink: slots + 1, straggler, partners, ..FIXED };
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
                Step::Failed(n, why) => {
                    let Some(id) = one_of(&leases, n) else { continue };
                    field.failed(id, why);
                }
                Step::Late(n) if !nodes.is_empty() => {
                    let (number, piece) = (nodes[n % nodes.len()], n as u32 % PIECES);
                    field.tell(|matcher, witness, now| {
                        witness.has.get_mut(&number).unwrap().insert(piece);
                        matcher.gained(number, std::slice::from_ref(&(piece..piece + 1)), now);
                    });
                }
                Step::Wait(millis) => {
                    field.now += millis * 1000;
                    field.tell(|matcher, _, now| matcher.tick(now));
                }
                Step::Flips(n) if !nodes.is_empty() => {
                    let number = nodes[n % nodes.len()];
                    for role in [Role::Taker, Role::Node] {
                        field.tell(|matcher, witness, now| {
                            witness.roles.get_mut(&number).unwrap().0 = role;
                            matcher.becomes(number, role, now);
                        });
                        field.matcher.check();
                    }
                }
                Step::Reads(n, first, count) if !nodes.is_empty() => {
                    field.matcher.reads(nodes[n % nodes.len()], first..first + count);
                }
                Step::Leave(_) | Step::Late(_) | Step::Flips(_) | Step::Reads(..) => {}
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
    let both = 0..2;
    let all = std::slice::from_ref(&both);
    matcher.join(&Joining::new(Role::Source, all, &[]), Micros(0));
    let slow = matcher.join(&Joining::new(Role::Node, &[], all), Micros(0));
    let [lease] = give(&mut matcher)[..] else { panic!("the source has one slot") };
    assert_eq!(lease.to, slow);
    let fast = matcher.join(&Joining::new(Role::Node, &[], all), Micros(0));
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
    let all = 0..40_000;
    let all = std::slice::from_ref(&all);
    field.matcher.join(&Joining::new(Role::Source, all, &[]), Micros(0));
    field.matcher.join(&Joining::new(Role::Node, &[], all), Micros(0));
    let [first] = give(&mut field.matcher)[..] else { panic!("how fast it is is not known") };
    // A piece is 1000 bytes, and one takes 20 microseconds: 50 million bytes a second.
    let (mut now, mut under_way, mut most, mut longest) = (0, vec![first], 0, 0);
    let (mut sent, mut wide_after) = (0, None);
    while !under_way.is_empty() {
        now += 20 * u64::from(under_way[0].count);
        sent += under_way[0].count;
        field.matcher.done(under_way.remove(0).id, Micros(now));
        under_way.extend(give(&mut field.matcher));
        most = most.max(under_way.iter().map(|lease| lease.count).sum());
        wide_after = wide_after.or((most >= 80).then_some(sent));
        longest = under_way.iter().map(|lease| lease.count).max().unwrap_or(longest).max(longest);
    }
    assert!(most > 10 * FIXED.uplink, "{most} at a time");
    assert!(longest > 10, "in runs of {longest}");
    // Ten, twice ten, forty, eighty: 5 ms of each tell, in which it sends 250, and not 50.
    assert!(wide_after.is_some_and(|sent| sent < 1000), "after {wide_after:?}");
}

fn give(matcher: &mut Matcher) -> Vec<Lease> {
    matcher.leases().collect()
}

/// A source that has everything, and nodes that want it; who was leased the one piece, has it now.
fn one_holder(nodes: u32) -> (Matcher, PeerNumber, Vec<PeerNumber>, Vec<Lease>) {
    let one = 0..1;
    let all = std::slice::from_ref(&one);
    let mut matcher = Matcher::new(1, 1000, FIXED, 1);
    matcher.join(&Joining::new(Role::Source, all, &[]), Micros(0));
    let mut numbers: Vec<_> =
        (0..nodes).map(|_| matcher.join(&Joining::new(Role::Node, &[], all), Micros(0))).collect();
    let [lease] = give(&mut matcher)[..] else { panic!("a source gives a piece once") };
    matcher.done(lease.id, Micros(1000));
    numbers.retain(|number| *number != lease.to);
    let passed_on = give(&mut matcher);
    (matcher, lease.to, numbers, passed_on)
}

#[test]
fn who_brings_nothing_is_doubted_although_it_came_from_elsewhere_and_not_who_was_overtaken() {
    let is_doubted = |after: u64| {
        let (mut matcher, PeerNumber(holder), _, leases) = one_holder(2);
        let out = *matcher.under_way.get(leases[0].id).unwrap();
        let now = Micros(out.since.0 + out.may_take() * after / 100);
        matcher.failed(leases[0].id, Failure::Held, now);
        matcher.peers.is_doubtful(holder)
    };
    assert_eq!([10, 40, 60].map(is_doubted), [false, false, true]);
}

#[test]
fn what_the_only_holder_does_not_send_comes_from_the_source() {
    let (mut matcher, holder, others, leases) = one_holder(2);
    let [lease] = leases[..] else { panic!("{leases:?}") };
    assert_eq!((lease.from, lease.to), (holder, others[0]));
    let mut now = 1000;
    let again = loop {
        now += TICK;
        matcher.tick(Micros(now));
        if let [again] = give(&mut matcher)[..] {
            break again;
        }
        assert!(now < 10_000_000, "it waits for ever for one that hangs");
    };
    assert_eq!((again.from, again.to), (PeerNumber(0), others[0]));
    assert_eq!(matcher.withdrawn().map(|lease| lease.id).collect::<Vec<_>>(), [lease.id]);
}

#[test]
fn who_does_not_reach_the_only_holder_gets_it_from_the_source_at_once() {
    for why in [Failure::Apart, Failure::NotThere] {
        let (mut matcher, _, others, leases) = one_holder(2);
        matcher.failed(leases[0].id, why, Micros(2000));
        let [again] = give(&mut matcher)[..] else { panic!("{why:?}") };
        assert_eq!((again.from, again.to), (PeerNumber(0), others[0]), "{why:?}");
    }
}

#[test]
fn one_that_says_of_everybody_that_they_have_nothing_changes_nothing_for_others() {
    let (mut matcher, holder, others, leases) = one_holder(3);
    let liar = leases[0].to;
    matcher.failed(leases[0].id, Failure::NotThere, Micros(2000));
    assert!(matcher.has(holder, 0));
    matcher.tick(Micros(100_000));
    let again = give(&mut matcher);
    let honest = again.iter().find(|lease| lease.from == holder).unwrap();
    assert!(honest.to != liar && others.contains(&honest.to));
    matcher.failed(honest.id, Failure::NotThere, Micros(200_000));
    assert!(!matcher.has(holder, 0), "two say so");
}

#[test]
fn who_gives_no_more_has_its_leases_withdrawn_and_does_not_count() {
    let (mut matcher, holder, others, leases) = one_holder(2);
    matcher.becomes(holder, Role::Taker, Micros(2000));
    assert_eq!(matcher.withdrawn().map(|lease| lease.id).collect::<Vec<_>>(), [leases[0].id]);
    let [again] = give(&mut matcher)[..] else { panic!("the source gives it again") };
    assert_eq!((again.from, again.to), (PeerNumber(0), others[0]));
    matcher.check();
}

#[test]
fn whoever_comes_and_goes_from_ever_new_places_leaves_nothing_behind() {
    let mut field = Field::new(FIXED, 1);
    field.join(&source());
    for at in 0..100 {
        let number = field.join(&node(at, at));
        field.tell(|matcher, witness, now| {
            witness.left(number);
            matcher.leave(number, now);
        });
    }
    assert!(field.matcher.pieces.domains() <= 3);
}

/// Whoever hangs takes nothing and gives nothing from the `at`-th lease that is carried out on: whether the others have
/// everything ten seconds later.
fn others_are_done(at: usize, seed: u64) -> bool {
    let mut field = Field::new(FIXED, seed);
    field.join(&source());
    let nodes: Vec<PeerNumber> = (0..3).map(|_| field.join(&node(0, 0))).collect();
    let hanging = nodes[0];
    let mut carried_out = 0;
    let mut hung_at = None;
    while hung_at.is_none_or(|hung_at| field.now < hung_at + 10_000_000) {
        if nodes[1..].iter().all(|number| field.matcher.is_complete(*number)) {
            return true;
        }
        if carried_out == at {
            hung_at = hung_at.or(Some(field.now));
        }
        let hangs =
            |lease: &Lease| hung_at.is_some() && (lease.from == hanging || lease.to == hanging);
        let out = field.witness.out.values().find(|lease| !hangs(lease));
        match out.map(|lease| lease.id) {
            Some(id) => {
                field.done(id);
                carried_out += 1;
            }
            None => {
                field.now = field.matcher.next_tick().map_or(field.now, |due| due.0);
                field.tell(|matcher, _, now| matcher.tick(now));
            }
        }
        field.matcher.check();
    }
    false
}

#[test]
fn who_hangs_holds_nothing_up_whenever_it_is() {
    for (at, seed) in (1..40).flat_map(|at| (0..8).map(move |seed| (at, seed))) {
        assert!(others_are_done(at, seed), "it hangs after {at} leases, seed {seed}");
    }
}

#[test]
fn where_everybody_is_there_is_no_way_in() {
    let mut matcher = Matcher::new(PIECES, 1000, FIXED, 1);
    let PeerNumber(from) = matcher.join(&source(), Micros(0));
    let PeerNumber(to) = matcher.join(&node(1, 1), Micros(0));
    assert_eq!(matcher.way_in(from, to), None);
    let elsewhere = matcher.join(&node(2, 1), Micros(0));
    assert!(matcher.way_in(from, to).is_some());
    assert_eq!(matcher.way_in(to, to), None, "it is there");
    matcher.leave(elsewhere, Micros(0));
    assert_eq!(matcher.way_in(from, to), None);
}

/// How a crowd went of which some may read from front to back.
struct Went {
    /// What the first node had whenever something came to it: all, and from the front on.
    seen: Vec<(u32, u32)>,
    /// When the last had everything.
    last: u64,
    /// Pieces that were sent by who had everything from the beginning.
    given: u32,
}

const MANY: u32 = 1000;

/// Pieces ahead of a reader's front that come first.
const AHEAD: u32 = 100;

/// What an uplink is leased at a time: it comes in any order.
const WINDOW: u32 = 50;

/// Nodes of such a crowd.
const CROWD: u32 = 12;

/// A crowd behind equal uplinks, which send a piece in a millisecond, one after the other; the first `readers` of it read,
/// and one has everything.
fn crowd(readers: u32, giver: Role, seed: u64) -> Went {
    let every = 0..MANY;
    let all = std::slice::from_ref(&every);
    let mut matcher = Matcher::new(MANY, 1000, Tuning::default(), seed);
    for _ in 0..CROWD {
        matcher.join(&Joining::new(Role::Node, &[], all), Micros(0));
    }
    let giver = matcher.join(&Joining::new(giver, all, &[]), Micros(0));
    let (mut free, mut under_way) = (BTreeMap::new(), BTreeMap::new());
    let mut held = vec![BTreeSet::new(); CROWD as usize];
    let mut fronts = [0; CROWD as usize];
    let (mut now, mut seen, mut given) = (0, Vec::new(), 0);
    while matcher.next_tick().is_some() {
        for lease in matcher.withdrawn() {
            under_way.retain(|_, one: &mut Lease| one.id != lease.id);
        }
        for lease in give(&mut matcher) {
            let free = free.entry(lease.from).or_insert(now);
            *free = now.max(*free) + 1000 * u64::from(lease.count);
            under_way.insert((*free, lease.id), lease);
        }
        let Some(((at, _), lease)) = under_way.pop_first() else {
            now += TICK;
            matcher.tick(Micros(now));
            continue;
        };
        now = now.max(at);
        matcher.done(lease.id, Micros(now));
        given += if lease.from == giver { lease.count } else { 0 };
        let (held, front) = (&mut held[lease.to.0 as usize], &mut fronts[lease.to.0 as usize]);
        held.extend(lease.pieces().map(|piece| piece as u32));
        while held.contains(front) {
            *front += 1;
        }
        if lease.to == PeerNumber(0) {
            seen.push((held.len() as u32, *front));
        }
        if lease.to.0 < readers {
            matcher.reads(lease.to, *front..*front + AHEAD);
        }
    }
    Went { seen, last: now, given }
}

#[test]
fn who_reads_from_front_to_back_in_a_crowd_gets_on_as_the_others_do_and_costs_them_nothing() {
    let lag = |went: &Went| went.seen.iter().map(|(held, front)| held - front).max().unwrap();
    for seed in 0..4 {
        let [plain, reading] = [0, 1].map(|readers| crowd(readers, Role::Source, seed));
        assert!(lag(&plain) > MANY / 2, "{}: rarest first is no order", lag(&plain));
        let lag = lag(&reading);
        assert!(lag <= 2 * AHEAD + WINDOW, "it has {lag} that it cannot read");
        let cost = reading.last as f64 / plain.last as f64;
        assert!(cost < 1.05, "it takes {cost} of the time");
    }
}

/// One that came to everything by itself, as who stands in for a seed.
#[test]
fn readers_at_one_place_take_what_only_one_has_from_each_other() {
    for seed in 0..4 {
        let went = crowd(CROWD, Role::Node, seed);
        let copies = f64::from(went.given) / f64::from(MANY);
        assert!(copies < 1.6, "it sent {copies} copies");
        let plain = crowd(0, Role::Node, seed);
        let cost = went.last as f64 / plain.last as f64;
        assert!(cost < 1.1, "it takes {cost} of the time");
    }
}
