//! One request to a store: signed, sent to where the bucket is, understood. No retry here, except
//! the one that another region or newer keys ask for.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use dfs_model::{CanonicalUrl, UrlError};
use reqwest::Response;
use reqwest::header::HeaderMap;
use tokio_util::task::TaskTracker;

use super::chain::Chain;
use super::place::{AddressStyle, Place};
use super::refusal::Refusal;
use super::sign::{Scope, sign};
use crate::http::Web;
use crate::http::exchange::{Answer, Ask};
use crate::{AccessKeys, Attempt, Credentials, SourceError, Target};

/// Where AWS keeps buckets of which nothing is said.
const USUAL_REGION: &str = "us-east-1";

/// Buckets whose region is remembered.
const MAX_REGIONS: usize = 1024;

/// Longest refusal that is read.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// What all requests share.
pub(super) struct Store {
    pub web: Arc<Web>,
    pub region: Option<String>,
    pub style: AddressStyle,
    pub chain: Option<Chain>,
    /// Uploads that nobody finishes being taken back.
    pub aborts: TaskTracker,
    /// Where uploads under way are written down.
    pub unfinished: Option<PathBuf>,
    /// Regions that stores told, by store and bucket.
    learned: Mutex<HashMap<String, String>>,
}

/// A place in a store, and who asks.
#[derive(Clone)]
pub(super) struct Asker {
    pub store: Arc<Store>,
    pub place: Arc<Place>,
    pub url: CanonicalUrl,
    keys: Option<AccessKeys>,
}

/// What a request is about: a key (the bucket itself when empty) and parameters.
pub(super) struct Subject<'a> {
    pub key: &'a [u8],
    pub query: &'a [(&'a str, &'a [u8])],
}

impl Store {
    pub fn new(
        web: Arc<Web>,
        region: Option<String>,
        style: AddressStyle,
        chain: Option<Chain>,
        unfinished: Option<PathBuf>,
    ) -> Self {
        let aborts = TaskTracker::new();
        aborts.close();
        Self { web, region, style, chain, aborts, unfinished, learned: Mutex::default() }
    }

    /// Takes a target apart.
    pub fn asker(
        self: &Arc<Self>,
        target: &Target,
        attempt: &Attempt,
    ) -> Result<Asker, SourceError> {
        let unusable = |reason: String| UrlError::Unusable { url: attempt.url.to_string(), reason };
        if !target.headers.is_empty() {
            let reason = "an object store takes no headers of one's own".to_owned();
            return Err(unusable(reason).into());
        }
        let place = Arc::new(Place::parse(&target.url).map_err(unusable)?);
        let keys = keys_of(&target.credentials).map_err(|reason| unusable(reason.to_owned()))?;
        Ok(Asker { store: Arc::clone(self), place, url: target.url.clone(), keys })
    }

    fn learned(&self) -> MutexGuard<'_, HashMap<String, String>> {
        // A map that was being written to when a thread panicked is a map all the same.
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn region(&self, place: &Place) -> String {
        let learned = self.learned().get(&name(place)).cloned();
        let given = place.region.clone().or_else(|| self.region.clone());
        learned.or(given).unwrap_or_else(|| USUAL_REGION.to_owned())
    }

    fn learn(&self, place: &Place, region: String) {
        let mut learned = self.learned();
        if learned.len() >= MAX_REGIONS {
            learned.clear();
        }
        learned.insert(name(place), region);
    }
}

fn name(place: &Place) -> String {
    let endpoint = place.endpoint.as_ref().map_or("", |endpoint| endpoint.as_str());
    format!("{endpoint} {}", place.bucket)
}

/// The keys that credentials are to a store; a user without a password named "anonymous" has none.
pub(super) fn keys_of(credentials: &Credentials) -> Result<Option<AccessKeys>, &'static str> {
    match credentials {
        Credentials::None => Ok(None),
        Credentials::Basic { user, password } if is_anonymous(user, password.expose()) => Ok(None),
        Credentials::Basic { user, password } => Ok(Some(AccessKeys {
            id: user.clone(),
            secret: password.clone(),
            token: None,
            expires: None,
        })),
        Credentials::Keys(keys) => Ok(Some(keys.clone())),
        Credentials::Bearer(_) | Credentials::Headers(_) | Credentials::User(_) => {
            Err("an object store takes access keys, not tokens or headers")
        }
    }
}

pub(crate) fn is_anonymous(user: &str, password: &str) -> bool {
    user == "anonymous" && password.is_empty()
}

impl Asker {
    /// The same who asks for `url`, where that lies below this place.
    pub fn below(&self, url: &CanonicalUrl) -> Option<Self> {
        let place = Place::parse(url).ok()?;
        let is_same_bucket =
            place.endpoint == self.place.endpoint && place.bucket == self.place.bucket;
        (is_same_bucket && place.key.starts_with(&self.place.key)).then(|| Self {
            place: Arc::new(place),
            url: url.clone(),
            ..self.clone()
        })
    }

    /// Whether anybody in particular asks.
    pub fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Asks; an answer that is no success is its error.
    pub async fn ask(
        &self,
        subject: &Subject<'_>,
        ask: &Ask,
        attempt: &Attempt,
    ) -> Result<Answer, SourceError> {
        self.try_ask(subject, ask, attempt).await?.map_err(|refusal| refusal.error(attempt))
    }

    /// Asks, and leaves it to the caller what a refusal means.
    pub async fn try_ask(
        &self,
        subject: &Subject<'_>,
        ask: &Ask,
        attempt: &Attempt,
    ) -> Result<Result<Answer, Refusal>, SourceError> {
        let (mut moved, mut renewed) = (false, false);
        loop {
            let region = self.store.region(&self.place);
            let keys = self.current_keys(attempt).await?;
            let response = self.send(subject, ask, (&region, keys.as_ref()), attempt).await?;
            if response.status().is_success() {
                let url = response.url().clone();
                return Ok(Ok(Answer { response, url, stays: self.url.clone() }));
            }
            let refusal = self.read_refusal(response, attempt).await;
            match (&refusal.region, &self.store.chain, keys) {
                (Some(right), ..) if refusal.is_elsewhere() && *right != region && !moved => {
                    moved = true;
                    self.store.learn(&self.place, right.clone());
                }
                (_, Some(chain), Some(keys)) if refusal.is_expired() && !renewed => {
                    renewed = true;
                    if !chain.renew(&keys) {
                        return Ok(Err(refusal));
                    }
                }
                _ => return Ok(Err(refusal)),
            }
        }
    }

    /// Keys that this process's own chain gave out are followed by the chain's newer ones.
    async fn current_keys(&self, attempt: &Attempt) -> Result<Option<AccessKeys>, SourceError> {
        match (&self.store.chain, &self.keys) {
            (Some(chain), Some(keys)) if chain.gave(keys) => chain.keys(attempt).await,
            (_, keys) => Ok(keys.clone()),
        }
    }

    async fn send(
        &self,
        subject: &Subject<'_>,
        ask: &Ask,
        (region, keys): (&str, Option<&AccessKeys>),
        attempt: &Attempt,
    ) -> Result<Response, SourceError> {
        let malformed =
            |reason: String| SourceError::Malformed { attempt: attempt.clone(), reason };
        let (style, query) = (self.store.style, subject.query);
        let url = self.place.address(subject.key, query, region, style).map_err(malformed)?;
        let mut headers = HeaderMap::new();
        ask.put_into(&mut headers, attempt)?;
        if let Some(keys) = keys {
            let scope = Scope { region, service: "s3" };
            let request = (&ask.method, &url, &ask.body[..]);
            sign(&mut headers, request, keys, scope, SystemTime::now())
                .map_err(|_| malformed("its access keys cannot be sent".to_owned()))?;
        }
        self.store.web.send_one(url, headers, ask, attempt).await
    }

    async fn read_refusal(&self, mut response: Response, attempt: &Attempt) -> Refusal {
        let status = response.status().as_u16();
        let head = response.headers().clone();
        let body = self.store.web.gather(&mut response, MAX_REFUSAL_BYTES, attempt).await;
        // Without its body the status still speaks.
        Refusal::new(status, &head, &body.unwrap_or_default(), SystemTime::now())
    }

    /// All of a small answer.
    pub async fn gather(
        &self,
        answer: &mut Answer,
        limit: usize,
        attempt: &Attempt,
    ) -> Result<Bytes, SourceError> {
        self.store.web.gather(&mut answer.response, limit, attempt).await
    }
}
