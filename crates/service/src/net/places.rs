//! Places of a listener: how many connections it has at a time, and whose they are.
//!
//! A connection is silent until it has said something of use: a link of the piece plane its first byte, a client of gRPC
//! its first request under a name that may ask. Whoever is silent for [`SILENT_FOR`] is closed. There are so many places
//! for the silent, and whoever comes may have them as long as there are some: a hundred machines behind one address are a
//! hundred machines. When all are taken each address has its share, and what it has beyond that is lent to it: it gives way
//! to whoever has less than his own. Who has all of his share, or finds nobody with more, takes the place of the one that
//! has been silent longest, of his own address or of all, unless that one has only just come: then his connection is
//! closed, or waits to be taken. So whoever opens connections and says nothing pushes out himself, a crowd that comes at
//! once loses nobody, and neither costs more files than there are places.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dfs_model::HostId;
use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a connection may say nothing of use, its greeting included.
pub(super) const SILENT_FOR: Duration = Duration::from_secs(10);

/// Silent connections of a listener, where the process may open files enough: an eighth of them at most. One that is being
/// greeted takes 80 KiB.
const SILENT: usize = 512;
/// The least that it is, however few files there may be.
const SILENT_AT_LEAST: usize = 16;
/// The share that one address of another machine has in the places for the silent, where there are too few for all.
const PART_OF_ONE: usize = 8;

/// How long the silent are left alone: whoever has something to say says it by then.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is looked whether there is room.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Connections of a listener that have spoken are a quarter of the files that the process may open at most: two listeners
/// have many of them, and what they are for takes files too. Each is of a host of the cluster or a user of this machine.
const PART_OF_HEARD: usize = 4;
/// Those of one host that its certificate names, and of one user of this machine.
const HEARD_OF_ONE_HOST: usize = 64;
const HEARD_OF_ONE_USER: usize = 2048;

/// How often it is told that somebody is pushed out.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// gRPC to other machines.
    Grpc,
    /// Pieces.
    Pieces,
    /// gRPC to this machine, on a Unix socket.
    Local,
    /// Metrics and health.
    Pages,
    /// Images, to container runtimes.
    Mirror,
    /// Whatever there is, to whoever goes by a proxy.
    Proxy,
}

impl Serves {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Grpc, Self::Pieces, Self::Local, Self::Pages, Self::Mirror, Self::Proxy];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Pieces => "pieces",
            Self::Local => "local",
            Self::Pages => "metrics",
            Self::Mirror => "mirror",
            Self::Proxy => "proxy",
        }
    }
}

/// What the listeners of this process have counted, by what they serve.
static COUNTS: [Counts; Serves::ALL.len()] = [const { Counts::new() }; Serves::ALL.len()];

/// What the listeners of one kind have counted.
#[derive(Debug)]
pub struct Counts {
    /// Connections that have said nothing of use.
    pub silent: AtomicU64,
    /// Connections that have.
    pub heard: AtomicU64,
    /// Connections that gave way to others while they were silent.
    pub pushed_out: AtomicU64,
    /// Connections that were silent for too long.
    pub timed_out: AtomicU64,
    /// Connections of whom has too many.
    pub refused: AtomicU64,
}

impl Counts {
    const fn new() -> Self {
        Self {
            silent: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            pushed_out: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Those of this process.
    pub fn of(serves: Serves) -> &'static Self {
        &COUNTS[serves as usize]
    }
}

/// Whose a connection is, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Address(IpAddr),
    User(u32),
    Host(HostId),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => ip.fmt(f),
            Self::User(uid) => write!(f, "user {uid}"),
            Self::Host(host) => host.fmt(f),
        }
    }
}

impl Who {
    /// Whoever is at this address; of an IPv6 network everybody is one.
    pub(super) fn at(ip: IpAddr) -> Self {
        Self::Address(match ip.to_canonical() {
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            ip @ IpAddr::V4(_) => ip,
        })
    }

    /// How many of a listener's places for the silent it has.
    fn share(self, silent: usize) -> usize {
        match self {
            Self::Address(ip) if !ip.is_loopback() => (silent / PART_OF_ONE).max(1),
            Self::Address(_) | Self::User(_) | Self::Host(_) => silent,
        }
    }

    /// How many of its connections may have spoken, of so many of all. Behind an address there may be many; without
    /// certificates it is that of this machine, where all are.
    fn most(self, of_all: usize) -> usize {
        match self {
            Self::Address(_) => of_all,
            Self::User(_) => HEARD_OF_ONE_USER,
            Self::Host(_) => HEARD_OF_ONE_HOST,
        }
    }
}

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    serves: Serves,
    silent_at_most: usize,
    heard_at_most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// In the order in which they came.
    silent: BTreeMap<u64, Silent>,
    silent_of: HashMap<Who, usize>,
    heard: usize,
    heard_of: HashMap<Who, usize>,
    told: Option<Instant>,
}

#[derive(Debug)]
struct Silent {
    who: Who,
    since: Instant,
    out: CancellationToken,
}

impl Silent {
    fn had_time(&self) -> bool {
        self.since.elapsed() >= GRACE
    }
}

impl Places {
    pub(super) fn new(serves: Serves) -> Arc<Self> {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Arc::new(Self::of_files(serves, usize::try_from(files).unwrap_or(usize::MAX)))
    }

    /// Those of a process that may open so many files.
    fn of_files(serves: Serves, files: usize) -> Self {
        let silent_at_most = (files / 8).clamp(SILENT_AT_LEAST, SILENT);
        Self {
            serves,
            silent_at_most,
            heard_at_most: files / PART_OF_HEARD,
            taken: Mutex::default(),
        }
    }

    fn counts(&self) -> &'static Counts {
        Counts::of(self.serves)
    }

    /// Until there is a place for somebody, or one who may be pushed out.
    pub(super) async fn room(&self) {
        while !self.taken.lock().has_room(self.silent_at_most) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A place for a newcomer.
    pub(super) fn take(self: &Arc<Self>, who: Who) -> Result<Arc<Place>, TooMany> {
        let mut taken = self.taken.lock();
        if taken.silent.len() >= self.silent_at_most {
            self.tell(&mut taken, who);
            let Some(pushed_out) = taken.push_out(who, self.silent_at_most) else {
                self.counts().refused.fetch_add(1, Ordering::Relaxed);
                return Err(TooMany);
            };
            pushed_out.out.cancel();
            self.counts().silent.fetch_sub(1, Ordering::Relaxed);
            self.counts().pushed_out.fetch_add(1, Ordering::Relaxed);
        }
        let (number, out, since) = (taken.next, CancellationToken::new(), Instant::now());
        taken.next += 1;
        taken.silent.insert(number, Silent { who, since, out: out.clone() });
        *taken.silent_of.entry(who).or_default() += 1;
        self.counts().silent.fetch_add(1, Ordering::Relaxed);
        let (places, who, has_spoken) = (Arc::clone(self), Mutex::new(who), AtomicBool::new(false));
        Ok(Arc::new(Place { places, number, since, who, out, has_spoken }))
    }

    fn tell(&self, taken: &mut Taken, who: Who) {
        if taken.told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
            taken.told = Some(Instant::now());
            let listener = self.serves.name();
            tracing::warn!(listener, from = %who, "too many connections that say nothing: some are closed");
        }
    }
}

impl Taken {
    fn has_room(&self, most: usize) -> bool {
        let oldest = self.silent.first_key_value().map(|(_, silent)| silent);
        let is_taken = self.silent.len() >= most;
        !is_taken || oldest.is_some_and(Silent::had_time) || self.borrower(most).is_some()
    }

    /// Who has most beyond his share.
    fn borrower(&self, most: usize) -> Option<Who> {
        let beyond =
            |(who, count): (&Who, &usize)| Some((count.checked_sub(who.share(most))?, *who));
        let most_beyond =
            self.silent_of.iter().filter_map(beyond).max_by_key(|(beyond, _)| *beyond);
        most_beyond.filter(|(beyond, _)| *beyond > 0).map(|(_, who)| who)
    }

    /// The one that gives way to a newcomer of `who`: the oldest that there is of whoever borrows from others, or the
    /// oldest of his own or of all that had time to speak.
    fn push_out(&mut self, who: Who, most: usize) -> Option<Silent> {
        let has_its_share = self.silent_of.get(&who).copied().unwrap_or(0) >= who.share(most);
        let borrower = self.borrower(most).filter(|_| !has_its_share);
        let from = borrower.or(has_its_share.then_some(who));
        let of_them = |silent: &Silent| from.is_none_or(|from| silent.who == from);
        let (number, oldest) = self.silent.iter().find(|(_, silent)| of_them(silent))?;
        let number = *number;
        (borrower.is_some() || oldest.had_time()).then_some(())?;
        self.remove_silent(number)
    }

    fn remove_silent(&mut self, number: u64) -> Option<Silent> {
        let removed = self.silent.remove(&number)?;
        one_less(&mut self.silent_of, removed.who);
        Some(removed)
    }
}

fn one_less(of: &mut HashMap<Who, usize>, who: Who) {
    if let Some(count) = of.get_mut(&who) {
        *count -= 1;
        if *count == 0 {
            of.remove(&who);
        }
    }
}

/// The place of one connection; given back when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    /// When it was taken.
    since: Instant,
    /// Whose it counts as.
    who: Mutex<Who>,
    out: CancellationToken,
    has_spoken: AtomicBool,
}

impl Place {
    /// It has said something of use, as whom; fails where they have too many connections.
    pub(super) fn hear(&self, who: Option<Who>) -> Result<(), TooMany> {
        if self.is_heard() {
            return Ok(());
        }
        let mut taken = self.places.taken.lock();
        let mut own = self.who.lock();
        let who = who.unwrap_or(*own);
        let counts = self.places.counts();
        let of_one = taken.heard_of.get(&who).copied().unwrap_or(0);
        let most = self.places.heard_at_most;
        if taken.heard >= most || of_one >= who.most(most) {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            return Err(TooMany);
        }
        // Two requests may be the first, and one that was pushed out is on its way out.
        if taken.remove_silent(self.number).is_some() {
            taken.heard += 1;
            *taken.heard_of.entry(who).or_default() += 1;
            *own = who;
            self.has_spoken.store(true, Ordering::Release);
            counts.silent.fetch_sub(1, Ordering::Relaxed);
            counts.heard.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn is_heard(&self) -> bool {
        self.has_spoken.load(Ordering::Acquire)
    }

    /// Until it has to go, however often that is asked. One that has spoken by then stays.
    pub(super) async fn silenced(self: Arc<Self>) -> io::Error {
        let until = self.since + SILENT_FOR;
        let pushed_out = tokio::time::timeout_at(until, self.out.cancelled()).await.is_ok();
        if self.is_heard() {
            return std::future::pending().await;
        }
        if pushed_out {
            return io::Error::new(io::ErrorKind::ConnectionAborted, "it gave way to others");
        }
        self.places.counts().timed_out.fetch_add(1, Ordering::Relaxed);
        io::Error::new(io::ErrorKind::TimedOut, "it was silent for too long")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        let counts = self.places.counts();
        if self.is_heard() {
            taken.heard -= 1;
            one_less(&mut taken.heard_of, *self.who.lock());
            counts.heard.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        if taken.remove_silent(self.number).is_some() {
            counts.silent.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// There are too many connections, or too many of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many connections")]
pub(super) struct TooMany;

#[cfg(test)]
mod tests {
    use super::*;

    fn who(n: u8) -> Who {
        Who::at([10, 0, 0, n].into())
    }

    fn is_out(place: &Arc<Place>) -> bool {
        place.out.is_cancelled()
    }

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_silent_gives_way_to_newcomers_of_the_same_address() {
        let places = Arc::new(Places::of_files(Serves::Pages, 16 * 8));
        let honest = places.take(who(2)).unwrap();
        let first: Vec<_> = (0..15).map(|_| places.take(who(1)).unwrap()).collect();
        assert!(places.take(who(1)).is_err(), "its places have only just been taken");
        pass(GRACE).await;
        let second = [(); 2].map(|()| places.take(who(1)).unwrap());
        assert!(first[..2].iter().all(is_out) && !first[2..].iter().any(is_out));
        assert!(!second.iter().any(is_out) && !is_out(&honest));
        honest.hear(None).unwrap();
        drop((first, second));
        let taken = places.taken.lock();
        assert!(taken.silent.is_empty() && taken.silent_of.is_empty());
        assert_eq!(taken.heard, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_has_all_places_until_others_come_and_keeps_its_share() {
        let places = Arc::new(Places::of_files(Serves::Pages, 16 * 8));
        let many: Vec<_> = (0..16).map(|_| places.take(who(1)).unwrap()).collect();
        // All are new, and lent: whoever else comes waits for nothing.
        let others: Vec<_> = (2..16)
            .map(|n| {
                let coming = tokio::time::timeout(Duration::ZERO, places.room());
                assert!(futures::FutureExt::now_or_never(coming).is_some_and(|room| room.is_ok()));
                places.take(who(n)).unwrap()
            })
            .collect();
        assert!(many[..14].iter().all(is_out) && !many[14..].iter().any(is_out));
        assert!(!others.iter().any(is_out));
        // Nobody has more than his share: the oldest of all goes, once it had time to speak.
        assert!(tokio::time::timeout(GRACE / 2, places.room()).await.is_err(), "all are new");
        assert!(places.take(who(20)).is_err());
        places.room().await;
        let last = places.take(who(20)).unwrap();
        assert!(is_out(&many[14]) && !is_out(&many[15]) && !is_out(&last));
        assert!(!others.iter().any(is_out));
    }

    #[test]
    fn a_process_that_may_open_many_files_hears_many() {
        let places = Places::of_files(Serves::Grpc, 1 << 20);
        assert_eq!((places.silent_at_most, places.heard_at_most), (SILENT, 1 << 18));
        let few = Places::of_files(Serves::Grpc, 64);
        assert_eq!((few.silent_at_most, few.heard_at_most), (SILENT_AT_LEAST, 16));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_this_machine_waits_for_its_turn_and_nobody_is_lost() {
        let places = Arc::new(Places::of_files(Serves::Pages, 16 * 8));
        let user = Who::User(7);
        let mut crowd: Vec<_> = (0..16).map(|_| places.take(user).unwrap()).collect();
        for _ in 0..100 {
            assert!(tokio::time::timeout(GRACE / 2, places.room()).await.is_err());
            crowd.iter().for_each(|place| place.hear(None).unwrap());
            places.room().await;
            crowd = (0..16).map(|_| places.take(user).unwrap()).collect();
            assert!(!crowd.iter().any(is_out));
        }
    }

    #[test]
    fn a_host_has_so_many_connections_that_spoke_and_they_are_given_back() {
        let places = Arc::new(Places::of_files(Serves::Pages, 512 * 8));
        let host = Some(Who::Host(HostId::from_bytes([7; 16])));
        let mut own: Vec<_> =
            (0..HEARD_OF_ONE_HOST).map(|_| places.take(who(1)).unwrap()).collect();
        assert!(own.iter().all(|place| place.hear(host).is_ok() && place.hear(host).is_ok()));
        let further = places.take(who(1)).unwrap();
        assert_eq!(further.hear(host), Err(TooMany));
        assert_eq!(further.hear(Some(Who::Host(HostId::from_bytes([8; 16])))), Ok(()));
        own.pop();
        assert_eq!(places.take(who(1)).unwrap().hear(host), Ok(()));
        drop((own, further));
        let taken = places.taken.lock();
        assert!(taken.heard == 0 && taken.heard_of.is_empty() && taken.silent.is_empty());
    }

    #[test]
    fn a_network_is_one_address() {
        let at = |text: &str| Who::at(text.parse().unwrap());
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:3::4"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_eq!(at("::ffff:10.0.0.1"), who(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_closed_and_one_that_spoke_is_not() {
        let places = Arc::new(Places::of_files(Serves::Pages, 16 * 8));
        let [silent, spoken] = [1, 2].map(|n| places.take(who(n)).unwrap());
        spoken.hear(None).unwrap();
        let began = Instant::now();
        let greeting = tokio::time::timeout(SILENT_FOR / 2, Arc::clone(&silent).silenced());
        assert!(greeting.await.is_err());
        assert_eq!(silent.silenced().await.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), SILENT_FOR, "its greeting included");
        let waiting = tokio::time::timeout(10 * SILENT_FOR, spoken.silenced()).await;
        assert!(waiting.is_err(), "it stays");
    }
}
