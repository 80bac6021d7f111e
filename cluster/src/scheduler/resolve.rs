//! What a URL is: asked of a seed once for everybody who asks at the same time, and remembered for a
//! short while.
//!
//! Answers got with credentials are given to nobody but the asker, and neither they nor the
//! credentials are kept.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::TaskInfo;
use dfs_model::{CanonicalUrl, Invariant, RouteKey, TaskKey};
use dfs_peer::dial::Callee;
use dfs_peer::swarm::{Channels, is_lost};
use dfs_proto::convert;
use dfs_proto::scheduler::{PreheatRequest, ResolveReply, ResolveRequest};
use dfs_proto::seed::seed_client::SeedClient;
use dfs_proto::{common, seed};
use dfs_scheduler::core::TINY_BYTES;
use dfs_service::Tracker;
use dfs_source::MAX_PATH_BYTES;
use dfs_source::oci::{Platform, platform_asked};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use crate::membership::{Member, Members};
use crate::metrics::SchedulerMetrics;
use crate::seed::{has_secrets, is_the_seeds_own};

mod cache;

use cache::{Cache, Kept, Key, Known};

/// Most bytes of digests that are remembered with a tiny content: one batch proves it.
const MAX_DIGESTS: usize = 4096;

/// Largest answer taken from a seed, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

/// How long a new answer is waited for at least where there is an old one.
const KEPT_AFTER: Duration = Duration::from_secs(10);

/// One that is found out takes so many times as long as the one before at most; where it takes longer, something has
/// failed that nobody says.
const LONGER: u32 = 3;

type Answer = Result<ResolveReply, Status>;

/// A question under way.
#[derive(Clone)]
struct Flight {
    began: Instant,
    /// Whether the origin is asked whatever is remembered.
    fresh: bool,
    landing: watch::Receiver<Option<Answer>>,
}

/// Those of one question.
#[derive(Default)]
struct Flights {
    now: Option<Flight>,
    /// The fresh one that begins when that has landed.
    next: Option<Flight>,
}

/// How a resolver asks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long an answer is remembered.
    pub remember: Duration,
    /// How long it stays the answer where nobody can give another one.
    pub keep: Duration,
    /// How long it may take to find one, with however many seeds.
    pub timeout: Duration,
    /// The scheduler's own area: it is the askers' too.
    pub area: String,
}

/// Resolves URLs through the seeds. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    cache: Mutex<Cache>,
    /// Of levels of listings, which are not kept: whoever asks can list one too.
    levels: Mutex<Cache>,
    flights: Mutex<BTreeMap<Key, Flights>>,
    members: watch::Receiver<Arc<Members>>,
    channels: Arc<dyn Channels>,
    metrics: SchedulerMetrics,
    tracker: Tracker,
}

impl Resolver {
    /// Questions that several wait for are tasks of `tracker` and end with it.
    pub fn new(
        settings: Settings,
        members: watch::Receiver<Arc<Members>>,
        channels: Arc<dyn Channels>,
        metrics: SchedulerMetrics,
        tracker: Tracker,
    ) -> Self {
        let cache = Mutex::new(Cache::new(settings.remember, settings.keep));
        let levels = Mutex::new(Cache::new(settings.remember, Duration::ZERO));
        let flights = Mutex::default();
        let shared =
            Shared { settings, cache, levels, flights, members, channels, metrics, tracker };
        Self { shared: Arc::new(shared) }
    }

    /// Says what a URL is.
    pub async fn resolve(&self, request: ResolveRequest) -> Answer {
        let shared = &self.shared;
        let question = Question::read(request, &shared.settings.area)?;
        if question.is_private {
            return shared.ask(&question).await;
        }
        let good_for = match question.fresh {
            true => question.max_age,
            false => Some(shared.settings.remember),
        };
        let now = Instant::now();
        if let Some(good_for) = good_for
            && let Some(reply) =
                shared.cache(&question.key).get_within(&question.key, now, good_for)
        {
            shared.metrics.resolved.of(["cache"]).inc();
            return Ok(reply);
        }
        let (kept, failure) = match question.fresh {
            true => (None, None),
            false => shared.last_word(&question),
        };
        match (kept, failure) {
            (Some(kept), Some(_)) => Ok(shared.as_it_was(&question.key, kept)),
            (None, Some(failure)) => {
                shared.metrics.resolved.of(["failed"]).inc();
                Err(failure)
            }
            (Some(kept), None) => self.ask_or(question, kept).await,
            (None, None) => self.join(question).lands().await,
        }
    }

    /// The answer as it is now, or as it was: where nobody can tell, or it takes too long.
    async fn ask_or(&self, question: Question, kept: Kept) -> Answer {
        let key = question.key.clone();
        let flight = self.join(question);
        let until = flight.began + patience(&kept);
        match tokio::time::timeout_at(until, flight.lands()).await {
            Ok(answer) if answer.as_ref().err().is_none_or(|no| !is_the_seeds_own(no.code())) => {
                answer
            }
            // Its area is cut off, or the origin is gone: what there is of it may be here.
            Ok(_) | Err(_) => Ok(self.shared.as_it_was(&key, kept)),
        }
    }

    /// Takes a tree for the answer to whoever asks for one by that word: `auto` and `tree` are the same then.
    /// It was asked for at `began`.
    pub(super) fn answer_trees_too(
        &self,
        request: &PreheatRequest,
        reply: &ResolveReply,
        began: Instant,
    ) {
        let is_tree = reply.artifact.as_ref().is_some_and(|artifact| artifact.index.is_some());
        for view in [common::View::Auto, common::View::Tree].into_iter().filter(|_| is_tree) {
            let asked = ResolveRequest {
                target: request.target.clone(),
                view: view.into(),
                principal: request.principal.clone(),
                platform: request.platform.clone(),
                ..ResolveRequest::default()
            };
            let question = Question::read(asked, &self.shared.settings.area);
            let Ok(question) = question else { return };
            let now = Instant::now();
            let known = Known { reply: reply.clone(), since: now, took: now.duration_since(began) };
            let mut cache = self.shared.cache.lock();
            if !question.is_private && cache.get(&question.key, Instant::now()).is_none() {
                cache.put(question.key, known);
            }
        }
    }

    /// Where the seed with this id listens.
    pub(super) fn seed_at(&self, id: &[u8]) -> Option<SocketAddr> {
        let members = Arc::clone(&self.shared.members.borrow());
        members.seeds().find(|seed| seed.host.id.as_bytes() == id).map(|seed| seed.grpc)
    }

    /// What goes on beside an answer is a task of this.
    pub(super) fn tracker(&self) -> &Tracker {
        &self.shared.tracker
    }

    /// Makes connections to seeds.
    pub(super) fn channels(&self) -> &Arc<dyn Channels> {
        &self.shared.channels
    }

    /// Waits with those who ask the same, or begins to ask. The question goes on when its first asker goes away.
    ///
    /// Whoever wants a fresh answer joins none that began before: where one is being found out they share the next.
    fn join(&self, question: Question) -> Flight {
        let mut flights = self.shared.flights.lock();
        let known = flights.entry(question.key.clone()).or_default();
        let now = known.now.clone().filter(Flight::is_under_way);
        let joined = match question.fresh {
            false => now.clone(),
            true => known.next.clone().filter(Flight::is_under_way),
        };
        if let Some(flight) = joined {
            self.shared.metrics.resolved.of(["flight"]).inc();
            return flight;
        }
        let (landing, landed) = watch::channel(None);
        let (began, fresh) = (Instant::now(), question.fresh);
        let flight = Flight { began, fresh, landing: landed };
        let before = now.filter(|now| fresh && now.fresh);
        match before {
            Some(_) => known.next = Some(flight.clone()),
            None => known.now = Some(flight.clone()),
        }
        let work = Arc::clone(&self.shared).fly(question, flight.clone(), before, landing);
        self.shared.tracker.tasks().spawn(work);
        flight
    }
}

impl Flight {
    fn is_under_way(&self) -> bool {
        self.landing.has_changed().is_ok()
    }

    fn is(&self, other: &Self) -> bool {
        self.landing.same_channel(&other.landing)
    }

    async fn lands(mut self) -> Answer {
        let stopping = || Status::unavailable("the scheduler is stopping");
        let landed = self.landing.wait_for(Option::is_some).await;
        landed.map_err(|_| stopping())?.clone().unwrap_or_else(|| Err(stopping()))
    }
}

/// A question, checked.
struct Question {
    key: Key,
    route: RouteKey,
    is_private: bool,
    fresh: bool,
    /// How old a fresh answer may be.
    max_age: Option<Duration>,
    /// Of a seed of another area: what it is told becomes the answer there, and is new there.
    for_area: bool,
    request: seed::ResolveRequest,
}

impl Question {
    fn read(request: ResolveRequest, area: &str) -> Result<Self, Status> {
        let invalid = |what: String| Status::invalid_argument(what);
        let target = request.target.ok_or_else(|| invalid("the target is missing".to_owned()))?;
        let url = CanonicalUrl::parse(&target.url).map_err(|error| invalid(error.to_string()))?;
        let headers = convert::headers(target.headers.clone());
        let headers = headers.map_err(|error| invalid(error.to_string()))?;
        let is_private = has_secrets(&target) && !Invariant::NobodyReadsWhatIsNotTheirs.is_broken();
        if request.level.as_ref().is_some_and(|below| is_private || below.len() > MAX_PATH_BYTES) {
            return Err(invalid(
                "who has credentials lists a level, and paths are short".to_owned(),
            ));
        }
        let tenant = request.principal.as_ref().map_or("", |principal| &principal.tenant);
        // As the seed names the tasks: whoever resolves is who is ordered to obtain.
        let domain = match (is_private, tenant) {
            (false, _) => TaskKey::PUBLIC,
            (true, "") => TaskKey::PRIVATE,
            (true, tenant) => tenant,
        };
        let platform = platform_asked(&url, &request.platform);
        let told = platform.as_ref().map(Platform::to_string).unwrap_or_default();
        let (view, level) = (request.view, request.level.clone());
        Ok(Self {
            route: RouteKey::of(domain, &url),
            key: Key { url, headers, view, platform, level },
            is_private,
            fresh: request.fresh,
            max_age: (request.fresh && request.max_age_ms > 0)
                .then(|| Duration::from_millis(request.max_age_ms)),
            for_area: request.for_area,
            request: seed::ResolveRequest {
                target: Some(target),
                view: request.view,
                principal: request.principal,
                read: request.read,
                fresh: request.fresh,
                level: request.level,
                area: area.to_owned(),
                platform: told,
            },
        })
    }
}

impl Shared {
    fn cache(&self, key: &Key) -> MutexGuard<'_, Cache> {
        let cache = if key.level.is_some() { &self.levels } else { &self.cache };
        cache.lock()
    }

    /// What there is to say without asking: the answer as it was, and why nobody could give another one just now.
    fn last_word(&self, question: &Question) -> (Option<Kept>, Option<Status>) {
        let (cache, now) = (self.cache(&question.key), Instant::now());
        let kept = cache.kept(&question.key, now).filter(|_| !question.for_area);
        (kept, cache.failure(&question.key, now))
    }

    /// Finds an answer out once the flight `before` has landed, or takes too long.
    async fn fly(
        self: Arc<Self>,
        question: Question,
        mine: Flight,
        before: Option<Flight>,
        landing: watch::Sender<Option<Answer>>,
    ) {
        let key = &question.key;
        let ask = async {
            if let Some(before) = before {
                // Whatever came of it.
                let _ = tokio::time::timeout(KEPT_AFTER, before.lands()).await;
                // From here on nobody joins who wants what is newer than this.
                let mut flights = self.flights.lock();
                let known = flights.entry(key.clone()).or_default();
                known.next.take_if(|next| next.is(&mine));
                known.now = Some(mine.clone());
            }
            let began = Instant::now();
            (self.ask(&question).await, began)
        };
        let Some((answer, began)) = self.tracker.token().run_until_cancelled(ask).await else {
            return;
        };
        self.learn(key, &answer, began);
        let mut flights = self.flights.lock();
        if let Some(known) = flights.get_mut(key) {
            known.now.take_if(|now| now.is(&mine));
            if known.now.is_none() && known.next.is_none() {
                flights.remove(key);
            }
        }
        drop(flights);
        landing.send_replace(Some(answer));
    }

    fn as_it_was(&self, key: &Key, kept: Kept) -> ResolveReply {
        tracing::info!(url = %key.url, "nobody says what it is now: it is what it was");
        self.metrics.resolved.of(["kept"]).inc();
        kept.reply
    }

    /// Remembers what came of a question.
    fn learn(&self, key: &Key, answer: &Answer, began: Instant) {
        let (now, mut cache) = (Instant::now(), self.cache(key));
        match answer {
            Ok(reply) => {
                let took = now.duration_since(began);
                cache.put(key.clone(), Known { reply: reply.clone(), since: now, took });
            }
            Err(no) if is_the_seeds_own(no.code()) => {
                cache.fail(key.clone(), no.clone(), now);
            }
            // The origin's own word: what was kept is so no more.
            Err(_) => cache.forget(key),
        }
    }

    /// Asks the seeds in turn, the responsible one first, until the time for all of them is over.
    async fn ask(&self, question: &Question) -> Answer {
        let until = Instant::now() + self.settings.timeout;
        let members = Arc::clone(&self.members.borrow());
        let mut last = Status::unavailable("no seed is alive");
        let area = &self.settings.area;
        let seeds = members.seeds_for(&question.route, &question.key.url, area);
        let is_near = |member: &Member| member.host.location.area == *area;
        // Credentials cross no area that has a seed.
        let mut stays = question.is_private && seeds.iter().any(|member| is_near(member));
        for member in seeds {
            if (stays && !is_near(member)) || until <= Instant::now() {
                break;
            }
            match self.ask_one(member, &question.request, until).await {
                Ok(reply) => {
                    self.metrics.resolved.of(["seed"]).inc();
                    return Ok(reply);
                }
                Err(status) if is_the_seeds_own(status.code()) => {
                    // An origin that fails one seed is not asked by those of other areas, and theirs, one after the other.
                    stays |= status.code() == Code::Unknown && is_near(member);
                    last = status;
                }
                Err(status) => {
                    self.metrics.resolved.of(["none"]).inc();
                    return Err(status);
                }
            }
        }
        self.metrics.resolved.of(["none"]).inc();
        Err(last)
    }

    async fn ask_one(
        &self,
        member: &Member,
        request: &seed::ResolveRequest,
        until: Instant,
    ) -> Answer {
        let channel = self.channels.channel(member.grpc, Callee::Seed(member.host.id));
        let mut client = SeedClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let is_level = request.level.is_some();
        let mut request = Request::new(request.clone());
        request.set_timeout(until.duration_since(Instant::now()));
        let asking = tokio::time::timeout_at(until, client.resolve(request));
        let late = || Status::deadline_exceeded("the seed takes too long to find out");
        let asked = asking.await.map_err(|_| late())?;
        // The other side may have counted the time to its end first.
        let failed = |status| if Instant::now() < until { seed_lost(status) } else { late() };
        let reply = asked.map_err(failed)?.into_inner();
        let seed_id = member.host.id.as_bytes().to_vec().into();
        if let Some(level) = reply.level.filter(|_| is_level) {
            return Ok(ResolveReply { seed_id, level: Some(level), ..ResolveReply::default() });
        }
        let artifact = reply.artifact.ok_or_else(|| Status::internal("the seed found nothing"))?;
        check(&artifact)?;
        let tiny = reply.tiny.filter(|tiny| is_whole_of(tiny, &artifact));
        Ok(ResolveReply { artifact: Some(artifact), seed_id, tiny, level: None })
    }
}

/// How long a better answer than the one that is kept is waited for.
fn patience(kept: &Kept) -> Duration {
    match kept.fails {
        // What becomes of the question is for those who come next.
        true => Duration::ZERO,
        false => KEPT_AFTER.max(kept.took.saturating_mul(LONGER)),
    }
}

/// A seed that is gone is told as one: other words would be taken for the origin's, and end what could go on.
fn seed_lost(status: Status) -> Status {
    match is_lost(&status) {
        true => Status::unavailable(format!("the seed is lost: {}", status.message())),
        false => status,
    }
}

/// Whether this can be all of what an artifact is, and is as short as it is to be remembered.
fn is_whole_of(tiny: &common::Whole, artifact: &common::Artifact) -> bool {
    let length = tiny.content.len() as u64;
    let digests: usize = tiny.digests.iter().map(|batch| batch.encoded.len()).sum();
    let is_it = |task: &common::Task| task.length == Some(length);
    artifact.index.is_none()
        && matches!(&artifact.tasks[..], [task] if is_it(task))
        && length <= TINY_BYTES
        && digests <= MAX_DIGESTS
}

/// Every task that a seed names is what it says it is.
fn check(artifact: &common::Artifact) -> Result<(), Status> {
    let delta = artifact.delta.iter().flat_map(|delta| &delta.task);
    for task in artifact.index.iter().chain(&artifact.tasks).chain(delta) {
        TaskInfo::try_from(task.clone())
            .map_err(|error| Status::internal(format!("the seed's answer: {error}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_waited_for_and_what_fails_is_not() {
        let kept = |seconds, fails| {
            let took = Duration::from_secs(seconds);
            patience(&Kept { reply: ResolveReply::default(), took, fails }).as_secs()
        };
        assert_eq!([kept(1, false), kept(30, false), kept(30, true)], [10, 90, 0]);
    }

    #[test]
    fn a_content_that_cannot_be_what_was_asked_for_is_not_remembered() {
        let task = common::Task { length: Some(3), ..common::Task::default() };
        let artifact =
            common::Artifact { tasks: vec![task.clone()], ..common::Artifact::default() };
        let batch = |bytes| common::SignedDigests { encoded: vec![0; bytes].into() };
        let tiny = |content: &'static [u8], bytes| common::Whole {
            content: content.into(),
            digests: vec![batch(bytes)],
        };
        assert!(is_whole_of(&tiny(b"abc", 200), &artifact));
        assert!(!is_whole_of(&tiny(b"ab", 200), &artifact));
        assert!(!is_whole_of(&tiny(b"abc", MAX_DIGESTS + 1), &artifact));
        let long = vec![0; TINY_BYTES as usize + 1];
        let of_long = common::Task { length: Some(long.len() as u64), ..task.clone() };
        let long = common::Whole { content: long.into(), digests: vec![batch(1)] };
        let with = |tasks, index| common::Artifact { tasks, index, ..common::Artifact::default() };
        assert!(!is_whole_of(&long, &with(vec![of_long], None)));
        assert!(!is_whole_of(&tiny(b"abc", 200), &with(vec![task.clone(); 2], None)));
        assert!(!is_whole_of(&tiny(b"abc", 200), &with(vec![task.clone()], Some(task))));
    }
}
