//! The leases of one task: its matcher, and what that was told of each peer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use dfs_model::{GroupRange, GroupSet, HostId};

use super::{Held, Lease, Millis, Peer};
use crate::matcher::{self, Joining, Matcher, Micros, PeerNumber, Place, Role, Tuning};

mod places;

pub use places::Places;

/// Most pieces of a task: a piece is one group, or the next power of two of groups that makes no more of them.
const MAX_PIECES: u64 = 4096;

/// As long as a child is leased nothing although somebody has what it lacks, and nobody is, it is told that it will be;
/// then it is left to choose for itself. A crowd may be so large, and its links so slow, that the first piece takes
/// longer to come to all of it: as long as leases are carried out for others, a child that none has failed waits.
const HOPE: Duration = Duration::from_secs(4);

/// A child that waits for leases hears so often that it still does.
pub(super) const HEARD_EVERY: Duration = Duration::from_secs(1);

/// The leases of one task.
#[derive(Debug)]
pub struct Lead {
    pub(super) matcher: Matcher,
    /// Groups in the content, and in a piece as a power of two.
    groups: u64,
    level: u8,
    /// By number; those of who left are vacant.
    hosts: Vec<Option<HostId>>,
    pub(super) places: Places,
    /// What is to be told once the event is over.
    letters: BTreeMap<HostId, Letter>,
    /// Leases that were taken back because the one who was to give left: by child and giver.
    pub(super) let_down: BTreeMap<(HostId, HostId), u32>,
    /// Pairs that give to each other no more.
    parted: Vec<(HostId, HostId)>,
    /// When the timer that is set fires.
    pub(super) due: Option<Millis>,
    /// Those who want anything, each by when it is to be looked at whether it has heard of late.
    waiting: BTreeSet<(Millis, HostId)>,
}

/// What a child is told of its leases.
#[derive(Debug, Default)]
pub(super) struct Letter {
    pub(super) leases: Vec<Lease>,
    pub(super) withdrawn: Vec<u64>,
}

/// A peer's part in the leases of its task.
#[derive(Debug)]
pub(super) struct Led {
    pub(super) number: PeerNumber,
    role: Role,
    place: Place,
    /// What the matcher was told that it wants, and what of that comes first.
    pub(super) wants: GroupSet,
    reads_next: GroupRange,
    /// What it gained that the matcher was not told of.
    gained: GroupSet,
    /// Whether it has turned out to hold something else than it gained.
    is_other: bool,
    /// Hosts that it was told the addresses of, and which addresses of theirs.
    partners: BTreeMap<HostId, u32>,
    pub(super) heard: Millis,
    /// When it is looked at whether it has heard of late.
    looked_at: Option<Millis>,
    /// When it took its part, or gained anything last.
    moved: Millis,
}

/// What of a peer the matcher is to know.
pub(super) struct Part {
    pub(super) role: Role,
    pub(super) place: Place,
    /// Leases that it gives at a time at most.
    pub(super) slots: u32,
    /// Bytes a second that it sent elsewhere; zero where that is not known.
    pub(super) rate: u64,
    /// Whether what it wants in any order is to come to it.
    pub(super) takes: bool,
    /// What of that comes first.
    pub(super) reads_next: GroupRange,
}

impl Led {
    /// It holds these groups too.
    pub(super) fn gain(&mut self, run: GroupRange) {
        self.gained.insert_range(run);
    }

    /// It holds something else than what it gained.
    pub(super) fn is_other(&mut self) {
        self.is_other = true;
    }

    /// It is told the address of a partner; whether that is news to it.
    pub(super) fn meet(&mut self, partner: HostId, address: u32) -> bool {
        self.partners.insert(partner, address) != Some(address)
    }

    /// It did not reach a partner: next time it is told the address anew.
    pub(super) fn misses(&mut self, partner: &HostId) {
        self.partners.remove(partner);
    }

    /// Whether it has come to hold more of late, or may soon.
    pub(super) fn gets_on(&self, now: Millis) -> bool {
        self.moved.after(HOPE) > now
    }

    /// Whether the matcher can be told of what has changed: who comes from elsewhere, or reads the source for others,
    /// is another.
    fn stays(&self, part: &Part) -> bool {
        let is_source = |role| role == Role::Source;
        self.place == part.place && is_source(self.role) == is_source(part.role)
    }
}

impl Lead {
    pub(super) fn new(groups: u64, tuning: Tuning, seed: u64) -> Self {
        let level = (0..u8::MAX).find(|level| groups.div_ceil(1 << level) <= MAX_PIECES);
        let level = level.unwrap_or_default();
        let pieces = clipped(groups.div_ceil(1 << level));
        let piece_bytes = dfs_model::GROUP_BYTES << level;
        Self {
            matcher: Matcher::new(pieces, piece_bytes, tuning, seed),
            groups,
            level,
            hosts: Vec::new(),
            places: Places::default(),
            letters: BTreeMap::new(),
            let_down: BTreeMap::new(),
            parted: Vec::new(),
            due: None,
            waiting: BTreeSet::new(),
        }
    }

    /// Those who are to be looked at by now whether they have heard of late; whoever goes on waiting is to be [looked at
    /// again](Self::looks_again).
    pub(super) fn take_waiting(&mut self, now: Millis) -> Vec<HostId> {
        let later = self
            .waiting
            .split_off(&(now.after(Duration::from_millis(1)), HostId::from_bytes([0; 16])));
        let due = std::mem::replace(&mut self.waiting, later);
        due.into_iter().map(|(_, host)| host).collect()
    }

    /// Whether one that wants something has heard of late is to be looked at then.
    pub(super) fn looks_again(&mut self, host: HostId, led: &mut Led, at: Millis) {
        led.looked_at = (!led.wants.is_empty()).then_some(at);
        self.waiting.extend(led.looked_at.map(|at| (at, host)));
    }

    /// Whose number it is.
    pub(super) fn host(&self, PeerNumber(number): PeerNumber) -> Option<HostId> {
        self.hosts.get(number as usize).copied().flatten()
    }

    fn is_number_of(&mut self, PeerNumber(number): PeerNumber, host: Option<HostId>) {
        let number = number as usize;
        self.hosts.resize(self.hosts.len().max(number + 1), None);
        self.hosts[number] = host;
    }

    /// Pieces of which some group is in a run.
    fn touched(&self, run: GroupRange) -> Range<u32> {
        let run = run.intersection(GroupRange::new(0, self.groups));
        clipped(run.first >> self.level)..clipped(run.end().div_ceil(1 << self.level))
    }

    /// The groups of a run of pieces.
    pub(super) fn groups_in(&self, first: u32, count: u32) -> GroupRange {
        let run = GroupRange::new(u64::from(first) << self.level, u64::from(count) << self.level);
        run.intersection(GroupRange::new(0, self.groups))
    }

    /// Whether a peer that holds this has a piece as a whole.
    pub(super) fn is_whole(&self, held: &Held, piece: u32) -> bool {
        held.contains_all(self.groups_in(piece, 1))
    }

    /// Runs of those pieces, of some, that are as they should be.
    fn runs(pieces: impl Iterator<Item = u32>, is_such: impl Fn(u32) -> bool) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for piece in pieces.filter(|piece| is_such(*piece)) {
            match runs.last_mut() {
                Some(last) if last.end == piece => last.end += 1,
                _ => runs.push(piece..piece + 1),
            }
        }
        runs
    }

    /// The runs of pieces that touch a set of groups, each piece once.
    fn touched_by(&self, groups: &GroupSet) -> BTreeSet<u32> {
        groups.ranges().flat_map(|run| self.touched(run)).collect()
    }

    /// Brings what the matcher knows of a peer to what it is now.
    pub(super) fn tell(&mut self, host: HostId, peer: &mut Peer, part: Option<Part>, now: Millis) {
        let stays = match (&peer.led, &part) {
            (Some(led), Some(part)) => led.stays(part),
            _ => false,
        };
        if !stays && let Some(led) = peer.led.take() {
            self.leave(&led, now);
        }
        let Some(part) = part else { return };
        let nothing = GroupSet::new();
        let wants = if part.takes { &peer.in_any_order } else { &nothing };
        match &mut peer.led {
            Some(led) => self.tell_part(led, &peer.held, &part, wants, now),
            led => *led = Some(self.join(host, &peer.held, &part, wants, now)),
        }
        let Some(led) = peer.led.as_mut() else { return };
        if led.looked_at.is_none() {
            self.looks_again(host, led, led.heard.after(HEARD_EVERY));
        }
        if led.reads_next != part.reads_next {
            led.reads_next = part.reads_next;
            self.matcher.reads(led.number, self.touched(part.reads_next));
        }
    }

    fn tell_part(
        &mut self,
        led: &mut Led,
        held: &Held,
        part: &Part,
        wants: &GroupSet,
        now: Millis,
    ) {
        if led.role != part.role || led.wants != *wants {
            led.moved = now;
        }
        if led.role != part.role {
            led.role = part.role;
            self.matcher.becomes(led.number, part.role, micros(now));
        }
        self.tell_held(led, held, now);
        self.tell_wants(led, wants, now);
    }

    /// Tells the matcher what a peer has come to hold, at once.
    pub(super) fn catch_up(&mut self, peer: &mut Peer, now: Millis) {
        let Some(led) = &mut peer.led else { return };
        if led.is_other || !led.gained.is_empty() {
            self.tell_held(led, &peer.held, now);
        }
    }

    fn tell_held(&mut self, led: &mut Led, held: &Held, now: Millis) {
        let (number, gained) = (led.number, std::mem::take(&mut led.gained));
        let is_other = std::mem::take(&mut led.is_other);
        let looked_at: BTreeSet<u32> = match is_other {
            true => self.touched(GroupRange::new(0, self.groups)).collect(),
            false => self.touched_by(&gained),
        };
        let is_news = |piece| !self.matcher.has(number, piece) && self.is_whole(held, piece);
        let news = Self::runs(looked_at.iter().copied(), is_news);
        if is_other {
            let is_lost = |piece| self.matcher.has(number, piece) && !self.is_whole(held, piece);
            let lost = Self::runs(looked_at.iter().copied(), is_lost);
            self.matcher.lost(number, &lost, micros(now));
        }
        if !news.is_empty() {
            led.moved = now;
        }
        self.matcher.gained(number, &news, micros(now));
    }

    fn tell_wants(&mut self, led: &mut Led, wants: &GroupSet, now: Millis) {
        if led.wants == *wants {
            return;
        }
        let former = std::mem::replace(&mut led.wants, wants.clone());
        let now = micros(now);
        let (mut less, mut more) = (former.clone(), wants.clone());
        less.remove_all(wants);
        more.remove_all(&former);
        let is_wanted = |piece| wants.present_in(self.groups_in(piece, 1)).next().is_some();
        let forgotten = self.touched_by(&less);
        let forgotten = Self::runs(forgotten.into_iter(), |piece| !is_wanted(piece));
        self.matcher.forget(led.number, &forgotten, now);
        let wanted = Self::runs(self.touched_by(&more).into_iter(), |_| true);
        self.matcher.want(led.number, &wanted, now);
    }

    fn join(
        &mut self,
        host: HostId,
        held: &Held,
        part: &Part,
        wants: &GroupSet,
        now: Millis,
    ) -> Led {
        let all = self.touched(GroupRange::new(0, self.groups));
        let has = Self::runs(all, |piece| self.is_whole(held, piece));
        let mut missing = wants.clone();
        match held {
            Held::All => missing = GroupSet::new(),
            Held::Part(held) => missing.remove_all(held),
        }
        let lacks = Self::runs(self.touched_by(&missing).into_iter(), |_| true);
        let Part { role, place, slots, rate, .. } = *part;
        let joining = Joining { role, place, slots, rate, has: &has, wants: &lacks };
        let number = self.matcher.join(&joining, micros(now));
        self.is_number_of(number, Some(host));
        self.places.enter(place);
        Led {
            number,
            role,
            place,
            wants: wants.clone(),
            reads_next: GroupRange::new(0, 0),
            gained: GroupSet::new(),
            is_other: false,
            partners: BTreeMap::new(),
            heard: now,
            looked_at: None,
            moved: now,
        }
    }

    /// A peer is gone.
    pub(super) fn leave(&mut self, led: &Led, now: Millis) {
        self.collect_withdrawn();
        self.matcher.leave(led.number, micros(now));
        let giver = self.host(led.number);
        if let Some(entry) = led.looked_at.zip(giver) {
            self.waiting.remove(&entry);
        }
        for lease in self.matcher.withdrawn() {
            let PeerNumber(to) = lease.to;
            let Some(child) = self.hosts.get(to as usize).copied().flatten() else { continue };
            self.letters.entry(child).or_default().withdrawn.push(lease.id.0);
            if let Some(giver) = giver.filter(|_| lease.from == led.number) {
                *self.let_down.entry((child, giver)).or_default() += 1;
            }
        }
        self.collect_parted();
        self.is_number_of(led.number, None);
        self.places.leave(led.place);
    }

    /// Hosts that somebody else leads from now on go on with what they have begun.
    pub(super) fn go_on_with_what_is_under_way(&mut self, hosts: &[HostId]) {
        self.collect_withdrawn();
        for host in hosts {
            self.letters.remove(host);
        }
        self.let_down.retain(|(child, _), _| !hosts.contains(child));
    }

    /// What is withdrawn is told to those whom their numbers name now.
    fn collect_withdrawn(&mut self) {
        for lease in self.matcher.withdrawn() {
            let PeerNumber(to) = lease.to;
            if let Some(child) = self.hosts.get(to as usize).copied().flatten() {
                self.letters.entry(child).or_default().withdrawn.push(lease.id.0);
            }
        }
    }

    /// Pairs that have come to give to each other no more.
    pub(super) fn take_parted(&mut self) -> Vec<(HostId, HostId)> {
        self.collect_parted();
        std::mem::take(&mut self.parted)
    }

    /// Whoever parts is told by the names that numbers have now.
    fn collect_parted(&mut self) {
        let names = |(one, other)| Some((self.host(one)?, self.host(other)?));
        let parted: Vec<_> = self.matcher.parted().filter_map(names).collect();
        self.parted.extend(parted);
    }

    /// What is to be told, by child.
    pub(super) fn letters(&mut self) -> BTreeMap<HostId, Letter> {
        self.collect_withdrawn();
        let leases: Vec<matcher::Lease> = self.matcher.leases().collect();
        for lease in leases {
            let pair = (self.host(lease.to), self.host(lease.from));
            let (Some(child), Some(parent)) = pair else { continue };
            let groups = self.groups_in(lease.first, lease.count);
            let lease = Lease { id: lease.id.0, parent, groups };
            self.letters.entry(child).or_default().leases.push(lease);
        }
        std::mem::take(&mut self.letters)
    }

    /// Seeds that did not send what they were leased to, nor anything since.
    pub(super) fn late_sources(&self) -> impl Iterator<Item = HostId> {
        let late = self.matcher.late_sources();
        late.filter_map(|number| self.host(number))
    }

    /// One to whom a lease has come to nothing, where nothing came of any for so long.
    pub(super) fn let_down_for(&self, span: Duration, now: Millis) -> Option<HostId> {
        let Micros(moved) = self.matcher.moved();
        if Millis(moved / 1000).after(span) > now {
            return None;
        }
        let children = (0..).zip(&self.hosts).filter_map(|(number, host)| Some((number, (*host)?)));
        let mut down = children.filter(|(number, _)| self.matcher.is_let_down(PeerNumber(*number)));
        down.next().map(|(_, host)| host)
    }

    /// Whether nothing is sent to a child, and nobody has anything for it.
    pub(super) fn starves(&self, number: PeerNumber) -> bool {
        !self.matcher.is_sent_anything(number) && !self.matcher.has_anything_for(number)
    }

    /// Whether a child that waits will be leased something: it is, or was of late, or others are and its turn comes, or
    /// nobody has anything for it yet and somebody `brings` more.
    pub(super) fn is_hopeful(&self, number: PeerNumber, brings: bool, now: Millis) -> bool {
        let is_late = |Micros(at): Micros| Millis(at / 1000).after(HOPE) > now;
        self.matcher.is_sent_anything(number)
            || is_late(self.matcher.leased_at(number))
            || (is_late(self.matcher.moved()) && !self.matcher.is_let_down(number))
            || (brings && !self.matcher.has_anything_for(number))
    }
}

fn clipped(piece: u64) -> u32 {
    u32::try_from(piece).unwrap_or(u32::MAX)
}

/// A time of the core as the matcher has it.
pub(super) fn micros(now: Millis) -> Micros {
    Micros(now.0.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    #[test]
    fn what_is_not_given_stands_still_from_when_it_is_wanted_however_long_nobody_wanted_anything() {
        let mut lead = Lead::new(1, Tuning::default(), 1);
        let all = 0..1;
        let all = slice::from_ref(&all);
        let late = Millis(3_600_000);
        lead.matcher.join(&Joining::new(Role::Node, all, &[]), Micros(0));
        let child = lead.matcher.join(&Joining::new(Role::Node, &[], all), micros(late));
        lead.is_number_of(child, Some(HostId::from_bytes([1; 16])));
        let lease = lead.matcher.leases().next().unwrap();
        lead.matcher.failed(lease.id, matcher::Failure::NotThere, micros(late));
        let span = Duration::from_secs(2);
        assert_eq!(lead.let_down_for(span, late), None, "it has just begun");
        assert!(lead.let_down_for(span, late.after(span)).is_some());
    }

    #[test]
    fn whoever_waits_its_turn_in_a_crowd_has_hope_as_long_as_others_are_served() {
        let tuning = Tuning { uplink: 1, downlink: 1, window: 0, run: 1, ..Tuning::default() };
        let mut lead = Lead::new(1, tuning, 1);
        let all = 0..1;
        let all = slice::from_ref(&all);
        let joining = |role, has, wants| Joining { slots: 200, ..Joining::new(role, has, wants) };
        lead.matcher.join(&joining(Role::Source, all, &[]), Micros(0));
        let mut join = |_| lead.matcher.join(&joining(Role::Node, &[], all), Micros(0));
        let crowd: Vec<PeerNumber> = (0..50).map(&mut join).collect();
        let mut now = Millis(0);
        for _ in 0..4 {
            now = now.after(Duration::from_millis(3_900));
            for lease in lead.matcher.leases().collect::<Vec<_>>() {
                lead.matcher.done(lease.id, micros(now));
            }
        }
        let waits = |number: &&PeerNumber| {
            !lead.matcher.is_sent_anything(**number) && !lead.matcher.is_complete(**number)
        };
        let waiting: Vec<PeerNumber> = crowd.iter().filter(waits).copied().collect();
        assert!(waiting.len() > 20, "the piece has not come to all yet: {waiting:?}");
        let hopes = |now| waiting.iter().filter(|one| lead.is_hopeful(**one, false, now)).count();
        assert_eq!(hopes(now), waiting.len());
        assert_eq!(hopes(now.after(HOPE)), 0, "nobody is served any more");
    }
}
