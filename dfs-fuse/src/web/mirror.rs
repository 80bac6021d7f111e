//! Answers each question of a client: by asking the registry on its behalf, and for blobs from their tasks.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_peer::error_chain;
use dfs_source::oci::{
    ContentDigest, Extent, Hashing, MAX_DOCUMENT, Named, OciSource, Passed, Sought, login_of,
};
use dfs_source::{Credentials, PassedAnswer, SourceError, Target};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, HeaderValue, IF_NONE_MATCH, IF_RANGE, LINK, RANGE,
};
use hyper::{HeaderMap, Response, StatusCode};
use parking_lot::Mutex;

use super::MirrorError;
use super::answer::{self, Body, BodyError, CONTENT_DIGEST, answer, put};
use super::asked::Question;
use super::blob::{Blob, Counts, Opened, Upstream};
use super::guarded::Guarded;
use super::range::Wanted;
use crate::agent::Agent;

/// Longest body of an answer that is no content.
const MAX_REFUSAL: usize = 1 << 20;

/// A registry mirror; cheap to clone.
#[derive(Clone)]
pub struct Mirror(Arc<Inner>);

struct Inner {
    agent: Agent,
    registries: Arc<OciSource>,
    guarded: Mutex<Guarded>,
    counts: Arc<Counts>,
}

/// What the head of a request says beside what it asks for.
struct Head {
    /// What goes on to the registry.
    passed: HeaderMap,
    login: Credentials,
    range: Option<String>,
    if_range: Option<String>,
}

impl Head {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let mut passed = HeaderMap::new();
        for name in [ACCEPT, IF_NONE_MATCH] {
            // One line of it goes out, and docker and podman write one for each kind that they take.
            let values = headers.get_all(&name).iter().map(HeaderValue::as_bytes);
            let values: Vec<&[u8]> = values.collect();
            if let Ok(value) = HeaderValue::from_bytes(&values.join(&b", "[..]))
                && !values.is_empty()
            {
                passed.insert(name, value);
            }
        }
        let login = text(AUTHORIZATION).map_or(Credentials::None, login_of);
        let (range, if_range) = (text(RANGE), text(IF_RANGE));
        Self { passed, login, range: range.map(Into::into), if_range: if_range.map(Into::into) }
    }

    /// The part that is asked for, of this version.
    fn wanted(&self, digest: &ContentDigest, length: u64) -> Wanted {
        let other = self.if_range.as_ref().is_some_and(|tag| *tag != format!("\"{digest}\""));
        Wanted::of(self.range.as_deref().filter(|_| !other), length)
    }
}

impl Mirror {
    /// One over an agent that runs.
    pub fn new(agent: Agent) -> Result<Self, MirrorError> {
        let registries = agent.host().engine.sources().registries();
        let registries = registries.cloned().ok_or(MirrorError::OtherSource)?;
        let (guarded, counts) = (Mutex::default(), Arc::default());
        Ok(Self(Arc::new(Inner { agent, registries, guarded, counts })))
    }

    /// The agent that it is of.
    pub(super) fn agent(&self) -> &Agent {
        &self.0.agent
    }

    /// The adapter that registries are asked by.
    pub(super) fn registries(&self) -> &OciSource {
        &self.0.registries
    }

    /// What it has given so far.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.0.counts
    }

    /// Answers a question as the client asks it whose head this is.
    pub(super) async fn answer(&self, question: &Question, headers: &HeaderMap) -> Response<Body> {
        let head = Head::of(headers);
        let answered = match (&question.sought, question.blob()) {
            (Sought::Ping, _) if !question.is_named => return answer::pong(),
            (Sought::Named, Some(digest)) => self.blob(question, &head, digest).await,
            (Sought::Named, None) => self.document(question, &head).await,
            (Sought::Ping | Sought::Tags(_) | Sought::Referrers(..), _) => {
                self.as_it_is(question, &head).await
            }
        };
        answered.unwrap_or_else(|error| {
            let asked = question.reference.to_string();
            tracing::info!(asked, error = error_chain(&error), "a registry cannot be asked");
            answer::failure(&error)
        })
    }

    async fn ask(
        &self,
        question: &Question,
        head: &Head,
        extent: Extent,
    ) -> Result<PassedAnswer, SourceError> {
        let passed = passed(question, head, extent);
        Box::pin(self.0.registries.pass(&passed)).await
    }

    /// The registry's answer to what no digest names.
    async fn as_it_is(
        &self,
        question: &Question,
        head: &Head,
    ) -> Result<Response<Body>, SourceError> {
        let answered = self.ask(question, head, question.extent).await?;
        let link = question.link_of(answered.headers());
        let mut response = self.passed_on(question, answered).await?;
        if let Some(link) = link {
            put(response.headers_mut(), LINK, &link);
        }
        Ok(response)
    }

    /// An answer that is short: all of it.
    async fn passed_on(
        &self,
        question: &Question,
        answered: PassedAnswer,
    ) -> Result<Response<Body>, SourceError> {
        let (status, mut head) = (answer::status_of(&answered), answer::passed_head(&answered));
        if status == StatusCode::NOT_MODIFIED {
            return Ok(answer(status, head, answer::nothing()));
        }
        if question.extent == Extent::Head {
            if let Some(length) = answered.length() {
                head.insert(CONTENT_LENGTH, length.into());
            }
            return Ok(answer(status, head, answer::nothing()));
        }
        let limit = if status.is_success() { MAX_DOCUMENT } else { MAX_REFUSAL };
        let body = answered.gather(limit).await?;
        Ok(answer(status, head, answer::bytes(body)))
    }

    /// A manifest, held against its digest.
    async fn document(
        &self,
        question: &Question,
        head: &Head,
    ) -> Result<Response<Body>, SourceError> {
        let mut answered = self.ask(question, head, question.extent).await?;
        let told = told_digest(&answered);
        if question.extent == Extent::Head && answered.status() == 200 && told.is_none() {
            // It does not say in its head which version it is.
            answered = self.ask(question, head, Extent::All).await?;
        }
        if answered.status() != 200 {
            return self.passed_on(question, answered).await;
        }
        let named = match question.reference.named() {
            Named::Manifest(digest) => Some(*digest),
            Named::Tag(_) | Named::Blob(_) => None,
        };
        if let (Some(named), Some(told)) = (named, told)
            && named != told
        {
            return Ok(other_content(&told, &named));
        }
        if question.extent == Extent::Head && told.is_some() {
            return self.passed_on(question, answered).await;
        }
        let mut response_head = answer::passed_head(&answered);
        let body = answered.gather(MAX_DOCUMENT).await?;
        let expected = named.or(told);
        let mut hashing = Hashing::like(&expected.unwrap_or(ContentDigest::Sha256([0; 32])));
        hashing.update(&body);
        let actual = hashing.finish();
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            return Ok(other_content(&actual, &expected));
        }
        put(&mut response_head, CONTENT_DIGEST, &actual.to_string());
        response_head.insert(CONTENT_LENGTH, body.len().into());
        let body = match question.extent {
            Extent::Head => answer::nothing(),
            Extent::All => answer::bytes(body),
        };
        Ok(answer(StatusCode::OK, response_head, body))
    }

    /// A blob, or a part of it. That the client may have it the registry says, each time.
    async fn blob(
        &self,
        question: &Question,
        head: &Head,
        digest: ContentDigest,
    ) -> Result<Response<Body>, SourceError> {
        let seen = self.ask(question, head, Extent::Head).await?;
        let length = seen.length().filter(|_| seen.status() == 200);
        let Some(length) = length else {
            return match question.extent {
                Extent::Head => self.passed_on(question, seen).await,
                Extent::All => self.whole(question, head, digest).await,
            };
        };
        if let Some(told) = told_digest(&seen).filter(|told| *told != digest) {
            return Ok(other_content(&told, &digest));
        }
        let mut answered = answer::blob_head(&seen, &digest, length);
        if question.extent == Extent::Head {
            return Ok(answer(StatusCode::OK, answered, answer::nothing()));
        }
        drop(seen);
        let (status, wanted) = head.wanted(&digest, length).told(&mut answered, length);
        let Some(wanted) = wanted else {
            return Ok(answer(status, answered, answer::nothing()));
        };
        let opened = self.open(question, &head.login, length).await;
        let registries = Arc::clone(&self.0.registries);
        let registry = Registry { registries, passed: passed(question, head, Extent::All) };
        let counts = Arc::clone(&self.0.counts);
        let blob = Blob::new(registry, opened, (Some(digest), length), wanted, counts);
        Ok(answer(status, answered, blob.into_body()))
    }

    /// The blob as its task: that of everybody where the registry gives it to everybody, else that of who has a login.
    async fn open(&self, question: &Question, login: &Credentials, length: u64) -> Option<Opened> {
        let reference = &question.reference;
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        let is_guarded = self.0.guarded.lock().has(&repository, Instant::now());
        if login.is_none() || !is_guarded {
            match self.open_as(question, &Credentials::None).await {
                Ok(opened) => return fitting(opened, length),
                Err(why) if login.is_none() => return untaken(question, &why),
                Err(_) => {}
            }
        }
        match self.open_as(question, login).await {
            Ok(opened) => {
                self.0.guarded.lock().note(repository, Instant::now());
                fitting(opened, length)
            }
            Err(why) => untaken(question, &why),
        }
    }

    async fn open_as(&self, question: &Question, login: &Credentials) -> Result<Opened, String> {
        let target = Target::new(question.reference.url()).with_credentials(login.clone());
        Opened::by(&self.0.agent, target).await
    }

    /// What the registry answers to who asks for all of a blob of which it does not tell the length before.
    async fn whole(
        &self,
        question: &Question,
        head: &Head,
        digest: ContentDigest,
    ) -> Result<Response<Body>, SourceError> {
        let answered = self.ask(question, head, Extent::All).await?;
        if answered.status() != 200 {
            return self.passed_on(question, answered).await;
        }
        let mut response_head = answer::passed_head(&answered);
        put(&mut response_head, CONTENT_DIGEST, &digest.to_string());
        if let Some(length) = answered.length() {
            response_head.insert(CONTENT_LENGTH, length.into());
        }
        Ok(answer(StatusCode::OK, response_head, unmeasured(answered, digest)))
    }
}

/// A registry that is asked for a blob, with what the client showed.
struct Registry {
    registries: Arc<OciSource>,
    passed: Passed,
}

#[async_trait]
impl Upstream for Registry {
    fn name(&self) -> String {
        self.passed.reference.to_string()
    }

    async fn ask(&self, range: Option<HeaderValue>) -> Result<PassedAnswer, SourceError> {
        let mut passed = self.passed.clone();
        passed.headers.remove(RANGE);
        passed.headers.extend(range.map(|range| (RANGE, range)));
        self.registries.pass(&passed).await
    }

    /// A digest names no other.
    fn is_same(&self, _: &PassedAnswer) -> bool {
        true
    }
}

fn passed(question: &Question, head: &Head, extent: Extent) -> Passed {
    Passed {
        reference: question.reference.clone(),
        sought: question.sought.clone(),
        extent,
        headers: head.passed.clone(),
        login: head.login.clone(),
    }
}

fn told_digest(answered: &PassedAnswer) -> Option<ContentDigest> {
    answered.headers().get(CONTENT_DIGEST)?.to_str().ok()?.trim().parse().ok()
}

fn other_content(actual: &ContentDigest, expected: &ContentDigest) -> Response<Body> {
    answer::other_content(&format!("the registry has {actual} where {expected} was asked for"))
}

/// A task whose length is another than the registry's is none to read.
fn fitting(opened: Opened, length: u64) -> Option<Opened> {
    opened.task.length().is_none_or(|own| own == length).then_some(opened)
}

fn untaken(question: &Question, why: &str) -> Option<Opened> {
    let blob = question.reference.to_string();
    tracing::info!(blob, why, "a blob is passed on from its registry");
    None
}

/// A body of unknown length, whose end is held back until all of it is what it is named.
fn unmeasured(answered: PassedAnswer, digest: ContentDigest) -> Body {
    let hashing = Some(Hashing::like(&digest));
    let begun = Unmeasured { answered, digest, hashing, held: Bytes::new() };
    let steps = futures::stream::try_unfold(begun, |mut body| async move {
        let given = body.next().await?;
        Ok::<_, BodyError>(given.map(|bytes| (Frame::data(bytes), body)))
    });
    StreamBody::new(steps).boxed_unsync()
}

struct Unmeasured {
    answered: PassedAnswer,
    digest: ContentDigest,
    /// Of what came; nothing once all did.
    hashing: Option<Hashing>,
    /// What came last.
    held: Bytes,
}

impl Unmeasured {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let Some(mut hashing) = self.hashing.take() else { return Ok(None) };
        let came = loop {
            match self.answered.chunk().await? {
                Some(bytes) if bytes.is_empty() => {}
                came => break came,
            }
        };
        let given = std::mem::take(&mut self.held);
        if let Some(bytes) = came {
            hashing.update(&bytes);
            (self.hashing, self.held) = (Some(hashing), bytes);
            return Ok(Some(given));
        }
        let (actual, digest) = (hashing.finish(), self.digest);
        match actual == digest {
            true => Ok(Some(given)),
            false => Err(format!("what came is {actual}, not {digest}").into()),
        }
    }
}
