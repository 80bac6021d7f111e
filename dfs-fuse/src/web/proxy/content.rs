//! What is shared: a content of the web as the task of its URL.
//!
//! Its origin is asked for its head first, each time, as the client asks: so it is known which version there is, and that this
//! client may have it. What no task can be made of goes to the origin as it is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_model::{CanonicalUrl, Validator, ValidatorStrength};
use dfs_source::{PassedAnswer, Relay, Secret, SourceError, Target, is_same_version};
use hyper::header::{
    ACCEPT_RANGES, AUTHORIZATION, CACHE_CONTROL, COOKIE, ETAG, HeaderName, HeaderValue, IF_RANGE,
    LAST_MODIFIED, RANGE, SET_COOKIE, VARY,
};
use hyper::{HeaderMap, Method, Response};

use super::rules::Shared;
use super::{Client, Proxy, answered, head};
use crate::web::answer::{Body, nothing};
use crate::web::blob::{Blob, Opened, Upstream};
use crate::web::range::Wanted;

/// What answers may differ by without being about another content: plain bytes are always asked for.
const HARMLESS: [&str; 2] = ["accept-encoding", "origin"];

/// How long an origin may think about a head: one that does not answer may still answer what is asked for.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(10);

/// A content that can be a task.
struct Sharable {
    length: u64,
    version: Validator,
    /// What the origin says of it.
    head: HeaderMap,
}

impl Proxy {
    /// Answers from the task of a URL; nothing where there can be none.
    pub(super) async fn by_task(
        &self,
        client: Client,
        (method, url, headers): (&Method, &CanonicalUrl, &HeaderMap),
        shared: &Shared,
    ) -> Option<Response<Body>> {
        if method != Method::GET || head::has_login(headers) && !shared.with_login {
            return None;
        }
        let relay = self.relay(client);
        let mut asked = headers.clone();
        asked.remove(RANGE);
        asked.remove(IF_RANGE);
        let looking = Box::pin(relay.ask(Method::HEAD, url, asked.clone()));
        let looked = tokio::time::timeout(LOOKED_AT_WITHIN, looking).await.ok()?.ok()?;
        let sharable = Sharable::of(&looked)?;
        let target = target(&url.without_query(&shared.ignore_query), headers)?;
        let opened = self.open(&target, &sharable).await?;
        let upstream = Origin {
            relay: relay.clone(),
            url: url.clone(),
            headers: asked,
            version: sharable.version.clone(),
            length: sharable.length,
        };
        Some(self.given(sharable, headers, (opened, upstream)))
    }

    fn given(
        &self,
        sharable: Sharable,
        headers: &HeaderMap,
        (opened, upstream): (Opened, Origin),
    ) -> Response<Body> {
        let length = sharable.length;
        let mut told = head::of_answer(&sharable.head, &self.0.via);
        told.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let (status, wanted) = sharable.wanted(headers).told(&mut told, length);
        let Some(wanted) = wanted else { return answered(status, told, nothing()) };
        let counts = Arc::clone(&self.0.counts.given);
        let blob = Blob::new(upstream, Some(opened), (None, length), wanted, counts);
        answered(status, told, blob.into_body())
    }

    /// The task of this version; what was known of another one is forgotten.
    async fn open(&self, target: &Target, sharable: &Sharable) -> Option<Opened> {
        for is_last in [false, true] {
            let opened = match Opened::by(&self.0.agent, target.clone()).await {
                Ok(opened) => opened,
                Err(why) => {
                    tracing::info!(url = %target.url, why, "it is passed on from its origin");
                    return None;
                }
            };
            if sharable.is_of(&opened) {
                return Some(opened);
            }
            if !is_last {
                self.0.agent.forget(target);
            }
        }
        tracing::info!(url = %target.url, "its task is of another version: it is passed on");
        None
    }
}

impl Sharable {
    /// What an origin says of a content that everybody who may ask for it gets alike.
    fn of(looked: &PassedAnswer) -> Option<Self> {
        let (head, length) = (looked.headers(), looked.length()?);
        let version = looked.version(Some(length));
        let is_pinned = version.strength() != ValidatorStrength::None;
        let is_plain = looked.status() == 200 && !looked.is_encoded() && is_pinned;
        (is_plain && is_shared(head)).then(|| Self { length, version, head: head.clone() })
    }

    /// What of it is asked for.
    fn wanted(&self, headers: &HeaderMap) -> Wanted {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let own = |name: HeaderName| self.head.get(name).and_then(|value| value.to_str().ok());
        let is_it = |tag: &str| {
            let tag = tag.trim();
            own(ETAG).is_some_and(|own| own == tag && !own.starts_with("W/"))
                || own(LAST_MODIFIED) == Some(tag)
        };
        let is_other = text(IF_RANGE).is_some_and(|tag| !is_it(tag));
        Wanted::of(text(RANGE).filter(|_| !is_other), self.length)
    }

    fn is_of(&self, opened: &Opened) -> bool {
        let task = &opened.task;
        task.length().is_none_or(|own| own == self.length)
            && is_same_version(&task.info().key.validator, &self.version)
    }
}

/// Whether a head says nothing against its content being kept and given to others.
fn is_shared(head: &HeaderMap) -> bool {
    let words = |name: HeaderName| {
        let values = head.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let values = values.flat_map(|value| value.split(','));
        values.map(|word| word.trim().to_ascii_lowercase()).collect::<Vec<_>>()
    };
    let is_kept = |word: &String| {
        let word = word.split('=').next().unwrap_or_default().trim();
        !matches!(word, "no-store" | "private")
    };
    !head.contains_key(SET_COOKIE)
        && words(CACHE_CONTROL).iter().all(is_kept)
        && words(VARY).iter().all(|word| HARMLESS.contains(&word.as_str()))
}

/// What is opened for who shows this.
fn target(url: &CanonicalUrl, headers: &HeaderMap) -> Option<Target> {
    let mut target = Target::new(url.clone());
    for name in [AUTHORIZATION, COOKIE] {
        let values = headers.get_all(&name).iter().map(|value| value.to_str().ok());
        let values = values.collect::<Option<Vec<_>>>()?;
        if !values.is_empty() {
            let secret = Secret::new(values.join("; "));
            target.credentials = target.credentials.with_header(name.as_str(), secret);
        }
    }
    Some(target)
}

/// The origin of a content, asked as the client asks it.
struct Origin {
    relay: Relay,
    url: CanonicalUrl,
    headers: HeaderMap,
    version: Validator,
    length: u64,
}

#[async_trait]
impl Upstream for Origin {
    fn name(&self) -> String {
        self.url.to_string()
    }

    async fn ask(&self, range: Option<HeaderValue>) -> Result<PassedAnswer, SourceError> {
        let mut headers = self.headers.clone();
        headers.extend(range.map(|range| (RANGE, range)));
        self.relay.ask(Method::GET, &self.url, headers).await
    }

    fn is_same(&self, answer: &PassedAnswer) -> bool {
        let length = match answer.part() {
            Some((_, length)) => length,
            None => answer.length(),
        };
        let seen = answer.version(length.or(Some(self.length)));
        !answer.is_encoded() && is_same_version(&self.version, &seen)
    }
}

#[cfg(test)]
mod tests {
    use dfs_model::ByteRange;

    use super::*;
    use crate::web::proxy::head::tests::head;

    #[test]
    fn what_is_for_one_alone_is_not_shared() {
        for ours in [
            &[][..],
            &[("cache-control", "max-age=0, no-cache")],
            &[("vary", "Accept-Encoding"), ("vary", "origin")],
        ] {
            assert!(is_shared(&head(ours)), "{ours:?}");
        }
        for theirs in [
            &[("set-cookie", "a=b")][..],
            &[("cache-control", "max-age=60, Private")],
            &[("cache-control", "no-store")],
            &[("cache-control", "private=\"x-own\"")],
            &[("vary", "*")],
            &[("vary", "Accept-Encoding, Accept-Language")],
        ] {
            assert!(!is_shared(&head(theirs)), "{theirs:?}");
        }
    }

    #[test]
    fn a_part_is_of_the_version_that_is_there() {
        let told = head(&[("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        let sharable = Sharable { length: 100, version: Validator::default(), head: told };
        let part = Wanted::Part(ByteRange::new(5, 10));
        let range = ("range", "bytes=5-9");
        for (lines, wanted) in [
            (&[range][..], part),
            (&[range, ("if-range", "\"a\"")], part),
            (&[range, ("if-range", "Sun, 06 Nov 1994 08:49:37 GMT")], part),
            (&[range, ("if-range", "\"b\"")], Wanted::All),
            (&[range, ("if-range", "W/\"a\"")], Wanted::All),
            (&[("if-range", "\"a\"")], Wanted::All),
        ] {
            assert_eq!(sharable.wanted(&head(lines)), wanted, "{lines:?}");
        }
    }

    #[test]
    fn who_shows_a_login_asks_for_a_content_of_their_own() {
        let url = CanonicalUrl::parse("http://h.test/x").unwrap();
        let plain = target(&url, &head(&[("accept", "x/y")])).unwrap();
        assert!(plain.credentials.is_none() && plain.headers.is_empty());
        let lines = [("authorization", "Basic eA=="), ("cookie", "a=1"), ("cookie", "b=2")];
        let shown = target(&url, &head(&lines)).unwrap().credentials.headers();
        let shown: Vec<_> =
            shown.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(shown, [("authorization", "Basic eA=="), ("cookie", "a=1; b=2")]);
    }
}
