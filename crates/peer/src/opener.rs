//! From what a person names to open tasks.
//!
//! On a node the seed resolves and indexes, once for everybody; its index arrives as a task like any
//! other. Alone, or when no scheduler answers, this host does it itself, with the same result: indexing is
//! deterministic, so the tasks are the same ones.

mod attached;
mod confirmed;
mod images;
mod indexes;
mod level;
mod resolving;
mod snapshots;

use confirmed::Seen;
pub(crate) use indexes::Indexes;
use resolving::{Beside, KeepWhatIsRead, WasHere, is_other_content};

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use dfs_artifact::origin::{Line, RequestCount, Requests};
use dfs_artifact::resolve::OpenTask;
use dfs_artifact::unpack::Checkpoints;
use dfs_artifact::{
    Artifact, Index, IndexError, Origin, OriginRecipe, Place, Recipe, ResolveError, ResolveOptions,
    View,
};
use dfs_model::TaskInfo;
use dfs_model::{ByteRange, GROUP_BYTES, Invariant, Priority, RouteKey, TaskKey, TaskKind};
use dfs_proto::convert::BadMessage;
use dfs_proto::{common, scheduler};
use dfs_source::oci::{Platform, is_content_name};
use dfs_source::{Action, Attempt, ByteStream, Credentials, SourceError, Target};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use crate::engine::{Engine, OpenError, ReadError, Role, Task};
use crate::swarm::{Swarm, SwarmError, route};
use crate::targets;

/// Bytes read at a time.
const READ_STEP: u64 = 4 << 20;

/// Tasks of one tree opened at a time.
const OPENING: usize = 16;

/// The largest index that is loaded: about twelve million files.
const LARGEST_INDEX: u64 = 4 << 30;

/// An index and the task that it is.
#[derive(Clone)]
pub struct OpenIndex {
    /// The task.
    pub task: Task,
    /// Parsed and checked.
    pub index: Arc<Index>,
}

/// What a URL turned out to be, ready to be read.
#[derive(Clone)]
pub struct OpenArtifact {
    /// What was asked for.
    pub target: Target,
    /// The index, of a tree.
    pub index: Option<OpenIndex>,
    /// The blob, or the spaces of the tree by number.
    pub tasks: Vec<Task>,
}

/// How old an answer about a URL may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// As the cluster remembers it.
    Usual,
    /// The origin is asked again: the version that was remembered turned out to be gone.
    Asked,
    /// The origin is asked again, unless the cluster did in this time.
    Within(Duration),
}

impl Freshness {
    /// Whether what is remembered is no answer by itself.
    pub(crate) fn is_fresh(self) -> bool {
        self != Self::Usual
    }

    /// How old an answer may be all the same, in milliseconds.
    pub(crate) fn max_age_ms(self) -> u64 {
        match self {
            Self::Usual | Self::Asked => 0,
            Self::Within(time) => u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// What a URL is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To see what it is.
    Look,
    /// To read it next: a tiny content may come with the answer.
    Read,
}

/// A URL that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenUrlError {
    /// The origin, asked by this host.
    #[error(transparent)]
    Resolve(ResolveError),
    /// The cluster's answer.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    /// What the cluster answered makes no sense.
    #[error("the cluster's answer is unreadable")]
    Malformed(#[from] BadMessage),
    /// The origin, asked by this host.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The index did not come, or this host failed while it made it.
    #[error("cannot get the index")]
    Fetch(#[from] ReadError),
    /// The index is not one, or not the one that was announced.
    #[error("the index is corrupt")]
    Index(#[from] IndexError),
    /// The index came whole but is not what its name says.
    #[error("the index of {0} is not the one announced")]
    OtherIndex(String),
    /// The store failed.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<ResolveError> for OpenUrlError {
    /// An archive is read through this host's store: where that fails it is not the origin that did.
    fn from(error: ResolveError) -> Self {
        if let ResolveError::Source(SourceError::Unreachable { cause, .. }) = &error
            && let Some(own) = cause.downcast_ref::<ReadError>().filter(|own| is_ours(own))
        {
            return Self::Fetch(own.clone());
        }
        Self::Resolve(error)
    }
}

impl OpenArtifact {
    /// As it travels.
    pub fn describe(&self) -> common::Artifact {
        let facts = self.index.as_ref().map(|open| open.index.facts().clone());
        let view = if facts.is_some() { common::View::Tree } else { common::View::File };
        let length = self.tasks.first().and_then(Task::length).unwrap_or(0);
        common::Artifact {
            url: self.target.url.as_str().to_owned(),
            view: view.into(),
            index: self.index.as_ref().map(|open| current(&open.task)),
            tasks: self.tasks.iter().map(current).collect(),
            files: facts.as_ref().map_or(1, |facts| facts.files),
            bytes: facts.as_ref().map_or(length, |facts| facts.bytes),
            delta: None,
        }
    }
}

/// A task as it is now: its length may have become known since it was opened.
fn current(task: &Task) -> common::Task {
    (&TaskInfo { length: task.length(), ..task.info().clone() }).into()
}

impl Engine {
    /// Opens what `target` names.
    pub async fn open_url(
        &self,
        target: &Target,
        view: View,
        freshness: Freshness,
        purpose: Purpose,
    ) -> Result<OpenArtifact, OpenUrlError> {
        let own_file = target.url.lies_here();
        if self.role() != Role::Node || self.swarm().is_none() || own_file {
            return self.open_here(target, view, Platform::here()).await;
        }
        let request = question(target, view, freshness, purpose);
        match self.open_by_swarm(target, request.clone()).await {
            Err(OpenUrlError::Swarm(SwarmError::Unreachable(why)))
                if !Invariant::WhatIsHereStaysUsable.is_broken() =>
            {
                let by_seeds = self.open_by_seeds(target, &request).await;
                let Err(error) = by_seeds else { return by_seeds };
                let error = crate::error_chain(&error);
                tracing::info!(url = %target.url, why, error, "no scheduler: asking the origin itself");
                self.open_here(target, view, Platform::here()).await
            }
            Err(OpenUrlError::Fetch(error)) if !is_ours(&error) => {
                tracing::info!(url = %target.url, %error, "no index comes: asking the origin itself");
                self.open_here(target, view, Platform::here()).await
            }
            other => other,
        }
    }

    /// Lets the seed of this host's cluster fetch all that `target` names; how that goes.
    pub async fn preheat_url(
        &self,
        target: &Target,
        view: View,
    ) -> Result<BoxStream<'static, Result<common::Preheating, OpenUrlError>>, OpenUrlError> {
        let swarm = self.cluster()?;
        let request = scheduler::PreheatRequest {
            target: Some(targets::to_wire(target)),
            view: targets::view_to_wire(view).into(),
            ..scheduler::PreheatRequest::default()
        };
        let events = swarm.preheat(&route_to(target), request).await?;
        Ok(events.map(|event| event.map_err(OpenUrlError::from)).boxed())
    }

    /// Asks the origin, and indexes here. Of an image whose URL names no platform, the one for this is opened.
    pub async fn open_here(
        &self,
        target: &Target,
        view: View,
        platform: Platform,
    ) -> Result<OpenArtifact, OpenUrlError> {
        let artifact = match self.resolve_here(target, view, &platform).await {
            // What was here and is none of its image's any more is read anew.
            Err((_, WasHere(true))) => self.resolve_here(target, view, &platform).await,
            resolved => resolved,
        };
        let artifact = artifact.map_err(|(error, _)| error)?;
        let Some(built) = artifact.index else {
            let tasks = self.open_recipes(target, &artifact.tasks).await?;
            return Ok(OpenArtifact { target: target.clone(), index: None, tasks });
        };
        // Those in the index, which share its bytes, and not the ones that it was made of.
        drop(artifact.tasks);
        let index = self.import_index(built).await?;
        let tasks = self.open_recipes(target, index.index.spaces()).await?;
        Ok(OpenArtifact { target: target.clone(), index: Some(index), tasks })
    }

    async fn resolve_here(
        &self,
        target: &Target,
        view: View,
        platform: &Platform,
    ) -> Result<Artifact, (ResolveError, WasHere)> {
        let (opener, options) = self.resolving(target, platform.clone());
        loop {
            let resolving = dfs_artifact::resolve(self.sources(), target, view, &options);
            let error = match Box::pin(resolving).await {
                Ok(artifact) => return Ok(artifact),
                Err(error) => error,
            };
            let was_here = opener.give_back(&error).await;
            // A mirror's bytes may be wrong where the registry's are right; each is doubted once.
            if was_here.0 || !is_other_content(&error) || !self.sources().doubt_mirrors(target) {
                return Err((error, was_here));
            }
        }
    }

    /// How this host resolves what is at `target`.
    fn resolving(
        &self,
        target: &Target,
        platform: Platform,
    ) -> (Arc<KeepWhatIsRead>, ResolveOptions) {
        let opener = Arc::new(KeepWhatIsRead::new(self, target));
        let options = ResolveOptions {
            domain: domain_of(&target.credentials).into_owned(),
            opener: Some(Arc::clone(&opener) as Arc<dyn OpenTask>),
            index_trust: self.index_trust(),
            platform,
            ..ResolveOptions::default()
        };
        (opener, options)
    }

    async fn open_recipes(
        &self,
        target: &Target,
        recipes: &[Recipe],
    ) -> Result<Vec<Task>, OpenUrlError> {
        let opening: Vec<_> =
            recipes.iter().map(|recipe| self.open_recipe(recipe, &target.credentials)).collect();
        let tasks: Vec<_> = stream::iter(opening).buffered(OPENING).try_collect().await?;
        self.look_for_earlier(&tasks, recipes, &target.credentials).await;
        Ok(tasks)
    }

    /// Opens a task of which it is known how its origin is read.
    pub(crate) async fn open_recipe(
        &self,
        recipe: &Recipe,
        credentials: &Credentials,
    ) -> Result<Task, OpenUrlError> {
        let origin = self.origin_of(recipe, credentials).await?;
        let origin = self.held_against_what_was_seen(recipe, origin).await;
        let info = TaskInfo::new(recipe.key.clone(), recipe.length, origin.ranges());
        let info = info.at(&recipe.origin.place().url);
        let task = self.open(&info, Some(recipe.clone()), Some(origin)).await?;
        if self.role() == Role::Node {
            task.opened_with(credentials);
        }
        Ok(task)
    }

    /// How this host reads the origin of a task. What is made of an archive takes from the archive's own
    /// task what is there already, so that the origin does not send it twice.
    async fn origin_of(
        &self,
        recipe: &Recipe,
        credentials: &Credentials,
    ) -> Result<Arc<dyn Origin>, OpenUrlError> {
        let direct = dfs_artifact::open_origin(recipe, self.sources(), credentials.clone())?;
        let Some(archive) = recipe.archive().filter(|_| self.role() != Role::Node) else {
            return Ok(direct);
        };
        let origin = Box::pin(self.origin_of(&archive, credentials)).await?;
        let kept = Kept::of(Box::pin(self.open_recipe(&archive, credentials)).await?);
        let is_shared = is_pulled(&archive, &kept.task);
        let archive = Arc::new(Archive { kept, origin, is_shared });
        let is_unpacked = matches!(recipe.origin, OriginRecipe::Url { .. });
        if !is_unpacked {
            return Ok(dfs_artifact::open_inside(recipe, archive));
        }
        let keeper = Beside::checkpoints(self, recipe);
        // Of what is all here nothing is read again.
        let known = if self.is_whole(&recipe.key.id()) { None } else { keeper.known().await };
        let known = known.and_then(|encoded| Checkpoints::decode(encoded).ok());
        Ok(dfs_artifact::open_unpacked(recipe, archive, known, Arc::new(keeper)))
    }

    async fn open_by_swarm(
        &self,
        target: &Target,
        request: scheduler::ResolveRequest,
    ) -> Result<OpenArtifact, OpenUrlError> {
        let reply = self.cluster()?.resolve(&route_to(target), request).await?;
        self.open_answer(target, reply).await
    }

    /// The same without a scheduler: by what the seeds know, that are known here.
    async fn open_by_seeds(
        &self,
        target: &Target,
        request: &scheduler::ResolveRequest,
    ) -> Result<OpenArtifact, OpenUrlError> {
        let reply = self.cluster()?.resolve_at_seeds(&route_to(target), request).await?;
        self.open_answer(target, reply).await
    }

    fn cluster(&self) -> Result<&Swarm, SwarmError> {
        let nobody = || SwarmError::Unreachable("this host has no cluster".to_owned());
        self.swarm().ok_or_else(nobody)
    }

    /// Opens what a scheduler says that `target` is.
    pub async fn open_answer(
        &self,
        target: &Target,
        answer: scheduler::ResolveReply,
    ) -> Result<OpenArtifact, OpenUrlError> {
        let artifact = answer.artifact.unwrap_or_default();
        let Some(index) = artifact.index else {
            let mut tasks = Vec::with_capacity(artifact.tasks.len());
            for task in artifact.tasks {
                tasks.push(self.open_blob(target, task).await?);
            }
            if let (Some(whole), [task]) = (answer.tiny, &tasks[..]) {
                task.take(whole).await;
            }
            return Ok(OpenArtifact { target: target.clone(), index: None, tasks });
        };
        let info = TaskInfo::try_from(index)?;
        let made = match artifact.delta {
            Some(delta) => self.step_to(&info, delta).await,
            None => None,
        };
        let index = match made {
            Some(index) => index,
            None => self.fetch_index(info).await?,
        };
        let tasks = self.open_recipes(target, index.index.spaces()).await?;
        Ok(OpenArtifact { target: target.clone(), index: Some(index), tasks })
    }

    /// A blob that the swarm names; this host could read its origin too, with the same pin.
    async fn open_blob(&self, target: &Target, task: common::Task) -> Result<Task, OpenUrlError> {
        let info = TaskInfo::try_from(task)?;
        let elsewhere = BadMessage::new("task.place", "is not where its key is read");
        let place = Place::of_task(&info).ok_or(elsewhere)?;
        let origin = OriginRecipe::Url { place, ranges: info.ranges };
        let recipe = Recipe { key: info.key, length: info.length, origin };
        self.open_recipe(&recipe, &target.credentials).await
    }

    /// Opens a task that another host resolved, where its key alone says how to read it: a public
    /// content behind one URL.
    pub async fn adopt(&self, info: &TaskInfo) -> Option<Task> {
        let key = &info.key;
        let place = Place::of_task(info)?;
        let readable = matches!(place.url.url().scheme(), "http" | "https" | "s3" | "oci");
        if key.kind != TaskKind::Blob || key.domain != TaskKey::PUBLIC || !readable {
            return None;
        }
        let origin = OriginRecipe::Url { place, ranges: info.ranges };
        // Only what the key pins is believed of the length.
        let recipe = Recipe { key: key.clone(), length: key.pinned_length(), origin };
        Box::pin(self.open_recipe(&recipe, &Credentials::None)).await.ok()
    }
}

/// What a scheduler or a seed is asked.
fn question(
    target: &Target,
    view: View,
    freshness: Freshness,
    purpose: Purpose,
) -> scheduler::ResolveRequest {
    scheduler::ResolveRequest {
        target: Some(targets::to_wire(target)),
        view: targets::view_to_wire(view).into(),
        fresh: freshness.is_fresh(),
        max_age_ms: freshness.max_age_ms(),
        read: purpose == Purpose::Read,
        ..scheduler::ResolveRequest::default()
    }
}

/// Who is asked about a target.
fn route_to(target: &Target) -> RouteKey {
    route(&domain_of(&target.credentials), &target.url)
}

/// The domain of what is fetched with these credentials.
fn domain_of(credentials: &Credentials) -> Cow<'static, str> {
    match credentials {
        Credentials::None => TaskKey::PUBLIC.into(),
        // What one user may read of this machine's files, another may not.
        Credentials::User(user) => format!("user-{}", user.uid).into(),
        _ => TaskKey::PRIVATE.into(),
    }
}

/// Whether a task failed for a reason of this host, which the origin does not mend.
fn is_ours(error: &ReadError) -> bool {
    matches!(error, ReadError::Store(_) | ReadError::Sign(_) | ReadError::Closing(_))
}

/// All bytes of a task of at most `limit` bytes.
pub async fn read_whole(task: &Task, limit: u64) -> Result<Bytes, ReadError> {
    let length = task.known_length().await?;
    if length > limit {
        let why = format!("{length} bytes where at most {limit} are expected");
        return Err(ReadError::Swarm(why));
    }
    task.prefetch(ByteRange::new(0, length), Priority::Bulk);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    let mut at = 0;
    while at < length {
        let part = ByteRange::new(at, (at + READ_STEP).min(length));
        bytes.extend_from_slice(&task.read(part, Priority::Demand).await?);
        at = part.end;
    }
    Ok(bytes.into())
}

/// A task's bytes, fetched into the store on the way.
struct Kept {
    task: Task,
    requests: Requests,
    /// As its reads of what was missing show it.
    line: Arc<Mutex<Line>>,
    /// What is seen of it by who reads all of it.
    seen: Option<Seen>,
}

impl Kept {
    fn of(task: Task) -> Self {
        Self { task, requests: Requests::default(), line: Arc::default(), seen: None }
    }

    fn bytes(&self, range: ByteRange) -> ByteStream {
        let (task, line) = (self.task.clone(), Arc::clone(&self.line));
        let first = line.lock().first_step();
        let begin = (task, line, range.start, first);
        let bytes = stream::unfold(begin, move |(task, line, at, step)| async move {
            let part = ByteRange::new(at, (at + step).min(range.end));
            if part.is_empty() {
                return None;
            }
            let read = read_over_line(&task, &line, part).await;
            let next = if read.is_ok() { part.end } else { range.end };
            let step = line.lock().step();
            Some((read.map_err(|error| source_error(&task, error)), (task, line, next, step)))
        });
        bytes.boxed()
    }
}

/// Reads bytes of a task; what had to be fetched for them shows how the line is.
async fn read_over_line(
    task: &Task,
    line: &Mutex<Line>,
    part: ByteRange,
) -> Result<Bytes, ReadError> {
    let missing = task.stored().missing_in(part.groups());
    let missing: u64 = missing.iter().map(|run| run.count * GROUP_BYTES).sum();
    let begun = Instant::now();
    let read = task.read(part, Priority::Demand).await;
    if missing > 0 && read.is_ok() {
        line.lock().read_took(missing, begun.elapsed());
    }
    read
}

#[async_trait]
impl Origin for Kept {
    fn length(&self) -> Option<u64> {
        self.task.length()
    }

    fn ranges(&self) -> bool {
        self.task.info().ranges || self.task.is_complete()
    }

    fn reads_a_task(&self) -> bool {
        true
    }

    fn read_over(&self) -> u64 {
        self.line.lock().read_over()
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        self.requests.made();
        let length = self.known_length().await?;
        let whole = ByteRange::new(0, length);
        let bytes = self.bytes(range.unwrap_or(whole).intersection(whole));
        Ok(match &self.seen {
            Some(seen) if range.is_none() => seen.watch(bytes, length),
            _ => bytes,
        })
    }

    /// What another task asks for is one request, of whoever that reads it for.
    fn count_in(&self, count: &RequestCount) {
        self.requests.count_in(count);
    }

    async fn known_length(&self) -> Result<u64, SourceError> {
        self.task.known_length().await.map_err(|error| source_error(&self.task, error))
    }
}

/// Whether somebody pulls an image's layer as it is packed, or did: what they get of it the registry does not send again for
/// the tar that it unpacks to.
fn is_pulled(archive: &Recipe, task: &Task) -> bool {
    let is_layer = is_content_name(&archive.key.url);
    is_layer && (task.cached_bytes() > 0 || task.is_wanted())
}

/// An archive: from its task what is there, from its origin the rest. One whose origin can only be read
/// whole is kept whole, and one that others read too is read with them.
struct Archive {
    kept: Kept,
    origin: Arc<dyn Origin>,
    is_shared: bool,
}

impl Archive {
    fn task(&self) -> &Task {
        &self.kept.task
    }

    /// Whether its origin is asked for what is missing, and not its task.
    fn asks_origin(&self) -> bool {
        self.origin.ranges() && !self.is_shared
    }

    /// Bytes from the beginning on that are here.
    fn here(&self, length: u64) -> u64 {
        let all = ByteRange::new(0, length).groups();
        let missing = self.task().stored().missing_in(all);
        missing.first().map_or(length, |run| run.bytes(length).start)
    }
}

#[async_trait]
impl Origin for Archive {
    fn length(&self) -> Option<u64> {
        self.task().length()
    }

    fn ranges(&self) -> bool {
        true
    }

    fn reads_a_task(&self) -> bool {
        !self.asks_origin()
    }

    fn count_in(&self, count: &RequestCount) {
        self.kept.count_in(count);
        self.origin.count_in(count);
    }

    async fn read(&self, range: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        let ranged = self.asks_origin();
        if !self.task().is_open() && (ranged || range.is_none()) {
            return self.origin.read(range).await;
        }
        if !ranged {
            return self.kept.read(range).await;
        }
        let Some(length) = self.length() else { return self.origin.read(range).await };
        let wanted = range.unwrap_or(ByteRange::new(0, length));
        if self.task().has(wanted) {
            return self.kept.read(Some(wanted)).await;
        }
        let here = if range.is_none() { self.here(length) } else { wanted.start };
        let rest = ByteRange::new(here.max(wanted.start), wanted.end);
        let rest = match self.origin.read(Some(rest)).await {
            // Now it shows: who wants all of it gets that.
            Err(SourceError::RangeIgnored { .. }) if range.is_none() => {
                return self.origin.read(None).await;
            }
            rest => rest?,
        };
        if here <= wanted.start {
            return Ok(rest);
        }
        Ok(self.kept.bytes(ByteRange::new(wanted.start, here)).chain(rest).boxed())
    }
}

fn source_error(task: &Task, error: ReadError) -> SourceError {
    let attempt = Attempt::new(Action::Read(None), task.info().place());
    match error {
        ReadError::Source(source) => (*source).clone(),
        ReadError::OriginChanged(reason) => {
            // It may have named the attempt already.
            let named = format!("cannot {attempt}: ");
            let detail = reason.strip_prefix(&named).unwrap_or(&reason).to_owned();
            SourceError::Changed { attempt, detail }
        }
        ReadError::NotFound(_) => SourceError::NotFound { attempt },
        ReadError::NotPermitted(_) => {
            SourceError::NotPermitted { attempt, status: None, reason: None }
        }
        other => SourceError::Unreachable { attempt, cause: Arc::new(other) },
    }
}
