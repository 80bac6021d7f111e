//! What hosts announce that they hold, checked: batches of digests are re-announced, never believed.
//!
//! A scheduler that was restarted hears its hosts before it has heard who its seeds are. What only they can vouch for
//! is neither taken nor dropped then: it is [`Pending`], within bounds, until the member list names them.

use std::sync::Arc;

use bytes::Bytes;
use dfs_model::{HostId, HostInfo, TaskId};
use dfs_peer::digests::{
    Appointment, AppointmentError, DigestsError, Identity, MOST_APPOINTED, Office, SignedDigests,
};
use dfs_proto::{convert, scheduler};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::messages::{self, Unacceptable};
use crate::members::Members;
use dfs_scheduler::core::Event;

/// What a host announces of one task.
#[derive(Debug)]
pub struct Announced {
    /// What it holds, or what has turned out to be vouched for.
    pub event: Event,
    /// Those whom earlier schedulers appointed, as they have proved.
    pub signers: Vec<scheduler::Signer>,
    /// As what these signed: what reserves did counts only where nobody else signs.
    pub office: Office,
}

/// All that is to be made of an announcement.
#[derive(Debug, Default)]
pub struct Findings {
    /// What counts by now.
    pub announced: Vec<Announced>,
    /// What cannot be judged yet.
    pub rest: Option<Unproven>,
}

/// Whose signatures count in announcements.
pub struct Trusted<'a> {
    /// The members: seeds sign digests, schedulers appoint.
    pub members: &'a Members,
    /// This scheduler, which knows its own word before it has heard of anybody.
    pub me: &'a Identity,
}

impl Trusted<'_> {
    fn scheduler(&self, host: &HostId) -> Option<[u8; 32]> {
        let own = (*host == self.me.host()).then(|| self.me.public_key());
        own.or_else(|| self.members.scheduler_key(host))
    }

    /// Whether it is known if there is a seed: else what reserves signed cannot be judged.
    fn knows_seeds(&self) -> bool {
        !self.members.all.is_empty()
    }
}

/// What nobody known has vouched for of one task.
#[derive(Debug)]
pub struct Unproven {
    task: TaskId,
    digests: Vec<Bytes>,
    appointments: Vec<Bytes>,
}

impl Unproven {
    /// Bytes that it takes.
    fn size(&self) -> usize {
        let parts = self.digests.iter().chain(&self.appointments);
        size_of::<Self>() + parts.map(|part| size_of::<Bytes>() + part.len()).sum::<usize>()
    }
}

/// What has been proved of one task's announcement.
struct Proven {
    by_others: Signed,
    by_reserves: Signed,
    rest: Option<Unproven>,
}

/// What some have signed.
#[derive(Default)]
struct Signed {
    digests: Vec<Bytes>,
    signers: Vec<scheduler::Signer>,
    /// Whether the announcing host is one of them: by the name *and* the key that it announces itself with.
    is_own: bool,
}

impl Signed {
    fn appointed(&mut self, word: &Appointment, host: &HostInfo) {
        self.is_own |= word.host == host.id && word.key == host.public_key;
        self.signers.push(signer(word));
    }

    /// Where it is news.
    fn vouched(self, host: HostId, task: TaskId, office: Office) -> Option<Announced> {
        let Self { digests, signers, is_own } = self;
        let is_news = !digests.is_empty() || !signers.is_empty();
        // What a reserve reads from now on counts where a scheduler makes it stand in.
        let stood_in = is_own && office == Office::StandIn;
        let event = Event::Vouched { host, task, digests, stood_in };
        is_news.then_some(Announced { event, signers, office })
    }
}

/// What a host holds, as it announces it. Batches that neither a member signed nor somebody whose appointment comes with
/// them are not taken. Verifies up to a whole message of signatures.
pub fn held(
    host: &HostInfo,
    held: scheduler::Held,
    trusted: &Trusted<'_>,
) -> Result<Findings, Unacceptable> {
    let task = messages::task(held.task)?;
    let groups = convert::group_set(&held.groups, messages::limit_of(task.length))?;
    messages::bounded(&held.digests)?;
    let digests = held.digests.into_iter().map(|signed| signed.encoded).collect();
    let appointments = held.appointments.into_iter().take(MOST_APPOINTED).collect();
    let said = Unproven { task: task.id, digests, appointments };
    let Proven { by_others, by_reserves, rest } = prove(host, said, trusted);
    let by_reserves = by_reserves.vouched(host.id, task.id, Office::Reserve);
    let Signed { digests, signers, is_own: stood_in } = by_others;
    let event = Event::Announced { host: host.id, task, held: groups, digests, stood_in };
    let first = Announced { event, signers, office: Office::StandIn };
    Ok(Findings { announced: std::iter::once(first).chain(by_reserves).collect(), rest })
}

fn prove(host: &HostInfo, said: Unproven, trusted: &Trusted<'_>) -> Proven {
    let task = said.task;
    let (mut appointed, mut unknown) = (Vec::new(), Vec::new());
    for encoded in said.appointments {
        let Ok(word) = Appointment::decode(&encoded) else { continue };
        if word.task != task {
            continue;
        }
        match word.verify(|scheduler| trusted.scheduler(scheduler)) {
            Ok(()) if word.office == Office::Reserve && !trusted.knows_seeds() => {
                unknown.push(encoded);
            }
            Ok(()) => appointed.push(word),
            Err(AppointmentError::UnknownScheduler(_)) => unknown.push(encoded),
            Err(_) => {}
        }
    }
    // One that was both signs in the place of a seed.
    appointed.sort_by_key(|word| word.office == Office::Reserve);
    let (mut by_others, mut by_reserves) = (Signed::default(), Signed::default());
    for word in &appointed {
        match word.office {
            Office::StandIn => by_others.appointed(word, host),
            Office::Reserve => by_reserves.appointed(word, host),
        }
    }
    let word_of = |signer: &HostId| appointed.iter().find(|word| word.host == *signer);
    let member = |signer: &HostId| trusted.members.key_of(signer);
    let key = |signer: &HostId| member(signer).or_else(|| word_of(signer).map(|word| word.key));
    let is_reserve = |signer: &HostId| {
        let is_named = word_of(signer).is_some_and(|word| word.office == Office::Reserve);
        is_named && member(signer).is_none()
    };
    let mut unsigned = Vec::new();
    for encoded in said.digests {
        let Ok(signed) = SignedDigests::decode(&encoded) else { continue };
        match signed.verify(key) {
            Ok(batch) if batch.task == task => match is_reserve(&batch.signer) {
                true => by_reserves.digests.push(encoded),
                false => by_others.digests.push(encoded),
            },
            Err(DigestsError::UnknownSigner(_)) if signed.batch().task == task => {
                unsigned.push(encoded);
            }
            Ok(_) | Err(_) => {}
        }
    }
    let rest = Unproven { task, digests: unsigned, appointments: unknown };
    let is_empty = rest.digests.is_empty() && rest.appointments.is_empty();
    Proven { by_others, by_reserves, rest: (!is_empty).then_some(rest) }
}

/// One who was appointed as others are told of it.
pub fn signer(appointment: &Appointment) -> scheduler::Signer {
    scheduler::Signer {
        host_id: messages::id_bytes(appointment.host.as_bytes()),
        public_key: messages::id_bytes(&appointment.key),
        appointment: appointment.encode(),
    }
}

/// What one host announced and nobody known has vouched for, until its stream ends.
#[derive(Debug)]
pub struct Pending {
    /// Bytes that all hosts' may take together.
    room: Arc<Semaphore>,
    unproven: Vec<(Unproven, OwnedSemaphorePermit)>,
}

impl Pending {
    /// Nothing yet; all that is added takes room.
    pub fn new(room: Arc<Semaphore>) -> Self {
        Self { room, unproven: Vec::new() }
    }

    /// Keeps something, while there is room, in place of what was kept of the same task.
    pub fn add(&mut self, unproven: Unproven) {
        self.unproven.retain(|(before, _)| before.task != unproven.task);
        let size = u32::try_from(unproven.size()).unwrap_or(u32::MAX);
        match Arc::clone(&self.room).try_acquire_many_owned(size) {
            Ok(share) => self.unproven.push((unproven, share)),
            Err(_) => tracing::debug!(
                task = %unproven.task,
                "digests of signers that are not known yet are dropped: too many wait for them"
            ),
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.unproven.is_empty()
    }

    /// What somebody vouches for now; the rest goes on waiting. Signatures of those who are still unknown are not
    /// looked at.
    pub fn vouched(&mut self, host: &HostInfo, trusted: &Trusted<'_>) -> Vec<Announced> {
        let mut vouched = Vec::new();
        for (said, share) in std::mem::take(&mut self.unproven) {
            // It is smaller than before and gives its room back when it is added again.
            drop(share);
            let Findings { announced, rest } = vouched_for(host, said, trusted);
            if let Some(rest) = rest {
                self.add(rest);
            }
            vouched.extend(announced);
        }
        vouched
    }
}

/// What of it somebody vouches for, and the rest.
fn vouched_for(host: &HostInfo, said: Unproven, trusted: &Trusted<'_>) -> Findings {
    let task = said.task;
    let Proven { by_others, by_reserves, rest } = prove(host, said, trusted);
    let all = [(by_others, Office::StandIn), (by_reserves, Office::Reserve)];
    let news = all.into_iter().filter_map(|(signed, office)| signed.vouched(host.id, task, office));
    Findings { announced: news.collect(), rest }
}

/// Digests that a delegate's own engine has of one who stands in for a seed, with the word of the scheduler that has it
/// do so: those below know neither.
pub fn of_stand_in(
    own: &HostInfo,
    task: TaskId,
    batch: Bytes,
    appointments: Vec<Bytes>,
    trusted: &Trusted<'_>,
) -> Option<Announced> {
    let said = Unproven { task, digests: vec![batch], appointments };
    let mut found = vouched_for(own, said, trusted).announced.into_iter();
    found.find(|announced| announced.office == Office::StandIn)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use dfs_model::{HostKind, Location};
    use dfs_peer::digests::DigestBatch;
    use dfs_proto::common;
    use dfs_proto::manager::Role;

    use super::super::messages::tests::some_task;
    use super::*;
    use crate::members::Member;

    fn identity() -> Identity {
        Identity::load_or_create(tempfile::tempdir().unwrap().path()).unwrap()
    }

    fn host(id: HostId, public_key: [u8; 32]) -> HostInfo {
        HostInfo {
            id,
            kind: HostKind::Node,
            name: "node".into(),
            location: Location::default(),
            addresses: Vec::new(),
            public_key,
            upload_slots: 1,
        }
    }

    fn node(identity: &Identity) -> HostInfo {
        host(identity.host(), identity.public_key())
    }

    fn members(all: &[(&Identity, Role)]) -> Members {
        let grpc = SocketAddr::from(([127, 0, 0, 1], 1));
        let member = |(identity, role): &(&Identity, Role)| Member {
            role: *role,
            host: Arc::new(node(identity)),
            grpc,
        };
        Members { all: all.iter().map(member).collect(), ..Members::default() }
    }

    /// A batch that says nothing of any group, signed.
    fn batch(signer: &Identity) -> Bytes {
        let task = some_task().id;
        let batch =
            DigestBatch { task, signer: signer.host(), length: Some(1), entries: Vec::new() };
        batch.sign(signer.signing_key()).unwrap().encode().into()
    }

    fn announcement(digests: Vec<Bytes>, appointments: Vec<Bytes>) -> scheduler::Held {
        let digests =
            digests.into_iter().map(|encoded| common::SignedDigests { encoded }).collect();
        let task = Some(messages::task_message(&some_task()));
        scheduler::Held { task, digests, appointments, ..scheduler::Held::default() }
    }

    fn word(signer: &Identity, office: Office, scheduler: &Identity) -> Appointment {
        let who = (signer.host(), signer.public_key());
        Appointment::sign(some_task().id, office, who, scheduler)
    }

    fn taken(announced: &Announced) -> (&[Bytes], bool) {
        match &announced.event {
            Event::Announced { digests, stood_in, .. }
            | Event::Vouched { digests, stood_in, .. } => (digests, *stood_in),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_stand_in_is_known_again_by_its_name_and_its_key() {
        let (me, stand_in, thief) = (identity(), identity(), identity());
        let word = word(&stand_in, Office::StandIn, &me).encode();
        let nobody = Members::default();
        let trusted = Trusted { members: &nobody, me: &me };
        let stood_in = |id: HostId, key| {
            let said = announcement(Vec::new(), vec![word.clone()]);
            taken(&held(&host(id, key), said, &trusted).unwrap().announced[0]).1
        };
        assert!(stood_in(stand_in.host(), stand_in.public_key()));
        assert!(!stood_in(stand_in.host(), thief.public_key()), "its name and another's key");
        assert!(!stood_in(thief.host(), thief.public_key()));
    }

    #[test]
    fn what_a_reserve_signed_is_told_apart_and_waits_until_it_is_known_who_the_seeds_are() {
        let (me, seed, reserve, both) = (identity(), identity(), identity(), identity());
        let words = [
            word(&reserve, Office::Reserve, &me),
            word(&both, Office::Reserve, &me),
            word(&both, Office::StandIn, &me),
        ];
        let batches = vec![batch(&reserve), batch(&both), batch(&seed)];
        let said = announcement(batches, words.iter().map(Appointment::encode).collect());
        let announcer = node(&reserve);
        let nobody = Members::default();
        let found = held(&announcer, said.clone(), &Trusted { members: &nobody, me: &me }).unwrap();
        let at_once: Vec<_> = found.announced.iter().map(taken).collect();
        assert_eq!(at_once, [(&[batch(&both)][..], false)]);

        let mut pending = Pending::new(Arc::new(Semaphore::new(1 << 20)));
        pending.add(found.rest.unwrap());
        let listed = members(&[(&me, Role::Scheduler), (&seed, Role::Seed)]);
        let trusted = Trusted { members: &listed, me: &me };
        let now = pending.vouched(&announcer, &trusted);
        let offices: Vec<Office> = now.iter().map(|one| one.office).collect();
        assert_eq!(offices, [Office::StandIn, Office::Reserve]);
        assert_eq!(taken(&now[0]), (&[batch(&seed)][..], false));
        assert_eq!(taken(&now[1]), (&[batch(&reserve)][..], false));
        let found = held(&announcer, said, &trusted).unwrap();
        let at_once: Vec<_> = found.announced.iter().map(taken).collect();
        let by_others = [batch(&both), batch(&seed)];
        assert_eq!(at_once, [(&by_others[..], false), (&[batch(&reserve)][..], false)]);
        assert!(found.rest.is_none());
    }

    #[test]
    fn what_is_announced_before_the_members_are_known_is_taken_once_they_are() {
        let (me, seed, stranger) = (identity(), identity(), identity());
        let (other_scheduler, stand_in) = (identity(), identity());
        let word = word(&stand_in, Office::StandIn, &other_scheduler);
        let (by_seed, by_stand_in) = (batch(&seed), batch(&stand_in));
        let said = announcement(
            vec![by_seed.clone(), by_stand_in.clone(), batch(&stranger)],
            vec![word.encode()],
        );
        let announcer = node(&stand_in);
        let nobody = Members::default();
        let found = held(&announcer, said, &Trusted { members: &nobody, me: &me }).unwrap();
        assert_eq!(taken(&found.announced[0]), (&[][..], false), "nobody vouches for any of it");

        let mut pending = Pending::new(Arc::new(Semaphore::new(1 << 20)));
        pending.add(found.rest.unwrap());
        assert!(pending.vouched(&announcer, &Trusted { members: &nobody, me: &me }).is_empty());
        let seeds = members(&[(&seed, Role::Seed)]);
        let now = pending.vouched(&announcer, &Trusted { members: &seeds, me: &me });
        assert_eq!(taken(&now[0]), (&[by_seed][..], false));
        let all = members(&[(&seed, Role::Seed), (&other_scheduler, Role::Scheduler)]);
        let now = pending.vouched(&announcer, &Trusted { members: &all, me: &me });
        assert_eq!(taken(&now[0]), (&[by_stand_in][..], true));
        assert_eq!(now[0].signers, [signer(&word)]);
        assert!(!pending.is_empty(), "the stranger's goes on waiting");
        assert!(pending.vouched(&announcer, &Trusted { members: &all, me: &me }).is_empty());
    }

    #[test]
    fn what_a_stand_in_signed_is_told_below_a_delegate_with_the_word_of_the_scheduler() {
        let (own, scheduler, stand_in) = (identity(), identity(), identity());
        let task = some_task().id;
        let reserve = word(&stand_in, Office::Reserve, &scheduler);
        let word = word(&stand_in, Office::StandIn, &scheduler);
        let listed = members(&[(&scheduler, Role::Scheduler)]);
        let told = |members: &Members, words: Vec<Bytes>| {
            let trusted = Trusted { members, me: &own };
            of_stand_in(&node(&own), task, batch(&stand_in), words, &trusted)
        };
        let now = told(&listed, vec![word.encode()]).unwrap();
        assert_eq!(taken(&now), (&[batch(&stand_in)][..], false));
        assert_eq!(now.signers, [signer(&word)]);
        assert!(told(&listed, Vec::new()).is_none(), "nobody says that it may");
        assert!(told(&listed, vec![reserve.encode()]).is_none(), "it is a reserve only");
        assert!(told(&Members::default(), vec![word.encode()]).is_none(), "nobody known does");
    }

    #[test]
    fn what_waits_for_its_signers_is_bounded_by_task_and_gives_its_room_back() {
        let (me, seed) = (identity(), identity());
        let nobody = Members::default();
        let trusted = Trusted { members: &nobody, me: &me };
        let unproven = |number: u8| {
            let said = announcement(vec![batch(&seed)], Vec::new());
            let rest = held(&node(&me), said, &trusted).unwrap().rest.unwrap();
            Unproven { task: TaskId::from_bytes([number; 32]), ..rest }
        };
        let size = unproven(0).size();
        let room = Arc::new(Semaphore::new(size * 3));
        let mut pending = Pending::new(Arc::clone(&room));
        (0..5).for_each(|_| pending.add(unproven(0)));
        assert_eq!((pending.unproven.len(), room.available_permits()), (1, size * 2), "once each");
        (1..5).for_each(|number| pending.add(unproven(number)));
        assert_eq!((pending.unproven.len(), room.available_permits()), (3, 0));
        let seeds = members(&[(&seed, Role::Seed)]);
        pending.vouched(&node(&me), &Trusted { members: &seeds, me: &me });
        assert_eq!((pending.is_empty(), room.available_permits()), (true, size * 3));
    }
}
