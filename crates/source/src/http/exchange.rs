//! One request and its answer, through its redirects. No retry here.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dfs_model::CanonicalUrl;
use reqwest::header::{
    ACCEPT_ENCODING, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, LOCATION, RANGE,
};
use reqwest::{Method, Response};
use url::Url;

use super::redirect::{NotFollowed, Route};
use super::{Web, client, headers};
use crate::target::RESERVED_HEADERS;
use crate::{Attempt, SourceError, Target};

/// The slowest line that a body is waited for on.
const SLOWEST_UPLOAD_BYTES_PER_SECOND: u64 = 64 << 10;

/// What one request asks for.
pub(crate) struct Ask {
    pub method: Method,
    /// First byte and, where known, last byte.
    range: Option<(u64, Option<u64>)>,
    condition: Option<Condition>,
    /// What the adapter says besides.
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What binds an answer to one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// `If-Range`: the range of this version, or all of another.
    Unchanged(String),
    /// `If-Match`: this version, or nothing.
    Exactly(String),
    /// `If-None-Match: *`: only if there is none yet.
    Absent,
}

/// An answer that is not a redirect; its body is unread.
pub(crate) struct Answer {
    pub response: Response,
    /// The URL that answered.
    pub url: Url,
    /// The name of the thing, see [`Route::stays`].
    pub stays: CanonicalUrl,
}

impl Ask {
    pub fn new(method: Method) -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Self { method, range: None, condition: None, headers, body }
    }

    pub fn head() -> Self {
        Self::new(Method::HEAD)
    }

    pub fn whole() -> Self {
        Self::new(Method::GET)
    }

    pub fn range(first: u64, last: Option<u64>) -> Self {
        Self { range: Some((first, last)), ..Self::whole() }
    }

    pub fn only(self, condition: Option<Condition>) -> Self {
        Self { condition, ..self }
    }

    pub fn is_ranged(&self) -> bool {
        self.range.is_some()
    }

    /// The headers that say what is asked for; they go over all others.
    pub fn put_into(&self, headers: &mut HeaderMap, attempt: &Attempt) -> Result<(), SourceError> {
        for name in RESERVED_HEADERS {
            headers.remove(name);
        }
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for (name, value) in &self.headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        if let Some((first, last)) = self.range {
            let last = last.map(|last| last.to_string()).unwrap_or_default();
            put(headers, RANGE.as_str(), &format!("bytes={first}-{last}"), attempt)?;
        }
        match &self.condition {
            Some(Condition::Unchanged(tag)) => put(headers, IF_RANGE.as_str(), tag, attempt)?,
            Some(Condition::Exactly(tag)) => put(headers, IF_MATCH.as_str(), tag, attempt)?,
            Some(Condition::Absent) => put(headers, IF_NONE_MATCH.as_str(), "*", attempt)?,
            None => return Ok(()),
        };
        Ok(())
    }
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Takes it for the version of this tag, whatever it says of its version itself.
    pub fn tag(&mut self, tag: &str, attempt: &Attempt) -> Result<(), SourceError> {
        let headers = self.response.headers_mut();
        headers.remove(LAST_MODIFIED);
        put(headers, ETAG.as_str(), tag, attempt).map(drop)
    }

    /// What an unwelcome status means.
    pub fn refusal(&self, attempt: &Attempt) -> SourceError {
        let attempt = attempt.clone();
        match self.status() {
            404 | 410 => SourceError::NotFound { attempt },
            status @ (401 | 403 | 407) => {
                SourceError::NotPermitted { attempt, status: Some(status), reason: None }
            }
            status => {
                let retry_after = headers::retry_after(self.headers(), SystemTime::now());
                SourceError::Status { attempt, status, retry_after }
            }
        }
    }
}

impl Web {
    /// Sends one request and follows where it leads.
    pub(crate) async fn exchange(
        &self,
        target: &Target,
        ask: &Ask,
        attempt: &Attempt,
    ) -> Result<Answer, SourceError> {
        let mut route = Route::new(&target.url, self.options.reach.led_to);
        for _ in 0..=self.options.redirects {
            let response = self.send(&route, target, ask, attempt).await?;
            let status = response.status().as_u16();
            if !Route::is_redirect(status) {
                return plain(Answer { response, url: route.url, stays: route.stays }, attempt);
            }
            let location = response.headers().get(LOCATION).map(HeaderValue::as_bytes);
            route.follow(status, location).map_err(|NotFollowed(reason)| {
                SourceError::Redirect { attempt: attempt.clone(), reason }
            })?;
        }
        let reason = format!("the origin redirects more than {} times", self.options.redirects);
        Err(SourceError::Redirect { attempt: attempt.clone(), reason })
    }

    async fn send(
        &self,
        route: &Route,
        target: &Target,
        ask: &Ask,
        attempt: &Attempt,
    ) -> Result<Response, SourceError> {
        let headers = request_headers(route, target, ask, attempt)?;
        self.send_one(route.url.clone(), headers, ask, attempt).await
    }

    /// Sends one request as it is, and follows nothing.
    pub(crate) async fn send_one(
        &self,
        url: Url,
        headers: HeaderMap,
        ask: &Ask,
        attempt: &Attempt,
    ) -> Result<Response, SourceError> {
        let mut request = self.client.request(ask.method.clone(), url).headers(headers);
        if !ask.body.is_empty() || matches!(ask.method, Method::PUT | Method::POST) {
            request = request.body(ask.body.clone());
        }
        self.counters.request();
        // What is sent takes its time too, also over a slow line.
        let sending = Duration::from_secs(ask.body.len() as u64 / SLOWEST_UPLOAD_BYTES_PER_SECOND);
        let limit = self.options.answer_timeout.saturating_add(sending);
        match tokio::time::timeout(limit, request.send()).await {
            Ok(answer) => answer.map_err(|error| client::classify(error, attempt, &self.options)),
            Err(_) => Err(SourceError::Timeout { attempt: attempt.clone(), limit }),
        }
    }

    /// Bounds a whole operation where the options ask for it.
    pub(crate) async fn bounded<T>(
        &self,
        attempt: &Attempt,
        work: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        let Some(limit) = self.options.total_timeout else { return work.await };
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(SourceError::Timeout { attempt: attempt.clone(), limit }),
        }
    }
}

/// An answer with an encoding holds other bytes than the content's, so no part of it can be used.
pub(crate) fn plain(answer: Answer, attempt: &Attempt) -> Result<Answer, SourceError> {
    match headers::encoding(answer.headers()) {
        Some(encoding) if answer.response.status().is_success() => {
            Err(SourceError::Encoded { attempt: attempt.clone(), encoding })
        }
        _ => Ok(answer),
    }
}

fn request_headers(
    route: &Route,
    target: &Target,
    ask: &Ask,
    attempt: &Attempt,
) -> Result<HeaderMap, SourceError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &target.headers {
        put(&mut headers, name, value, attempt)?;
    }
    if route.trusted {
        for (name, value) in target.credentials.headers() {
            put(&mut headers, &name, value.expose(), attempt)?.set_sensitive(true);
        }
    }
    // Ours come last, so that nothing above can change what is asked for.
    ask.put_into(&mut headers, attempt)?;
    Ok(headers)
}

pub(crate) fn put<'a>(
    headers: &'a mut HeaderMap,
    name: &str,
    value: &str,
    attempt: &Attempt,
) -> Result<&'a mut HeaderValue, SourceError> {
    let bad = || SourceError::Malformed {
        attempt: attempt.clone(),
        reason: format!("header '{}' cannot be sent", name.escape_default()),
    };
    let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
    let value = HeaderValue::from_str(value).map_err(|_| bad())?;
    headers.insert(key.clone(), value);
    headers.get_mut(&key).ok_or_else(bad)
}
