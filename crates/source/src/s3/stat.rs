//! What an `s3://` URL names: an object by HEAD, a prefix by one listed key.

use reqwest::header::{HeaderMap, HeaderName};

use dfs_model::{CanonicalUrl, Validator, ValidatorStrength};

use super::page::{ObjectPage, parse_object_page};
use super::store::{Asker, Subject};
use crate::http::exchange::{Answer, Ask};
use crate::http::headers;
use crate::{Attempt, SourceError, Stat, StatKind, Timestamp};

/// Where who writes an object tells when its content was last changed; other tools use the name too.
pub(super) const TOLD_TIME: HeaderName = HeaderName::from_static("x-amz-meta-mtime");

/// The time that was told: seconds and their fraction.
fn told_time(head: &HeaderMap) -> Option<Timestamp> {
    let text = head.get(TOLD_TIME)?.to_str().ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let nanos = digits.then(|| format!("{fraction:0<9}").parse().ok())??;
    Some(Timestamp { seconds: seconds.parse().ok()?, nanos })
}

impl Asker {
    pub(super) async fn stat(&self, attempt: &Attempt) -> Result<Stat, SourceError> {
        if self.place.is_prefix() {
            return self.stat_prefix(self.place.key.clone(), attempt).await;
        }
        match self.store.web.retrier.ask(|| self.head(attempt)).await {
            Err(error @ SourceError::NotFound { .. }) if self.place.version.is_none() => {
                // As a web server sends on to the directory of the same name.
                let prefix = [&self.place.key[..], b"/"].concat();
                match self.stat_prefix(prefix, attempt).await {
                    Err(SourceError::NotFound { attempt })
                        if attempt.url.contains("(there is no") =>
                    {
                        Err(SourceError::NotFound { attempt })
                    }
                    // Who may not list learns what HEAD said.
                    Err(SourceError::NotFound { .. } | SourceError::NotPermitted { .. }) => {
                        Err(error)
                    }
                    other => other,
                }
            }
            other => other,
        }
    }

    async fn head(&self, attempt: &Attempt) -> Result<Stat, SourceError> {
        let query = self.place.version_query();
        let subject = Subject { key: &self.place.key, query: &query };
        match self.try_ask(&subject, &Ask::head(), attempt).await? {
            Ok(answer) => {
                let length = headers::content_length(answer.headers());
                Ok(self.told(&answer, length))
            }
            // HEAD's answer has no body that says why.
            Err(refusal) if matches!(refusal.status, 400 | 403) => {
                let answer = self.ask(&subject, &Ask::range(0, Some(0)), attempt).await?;
                let part = headers::content_range(answer.headers());
                Ok(self.told(&answer, part.and_then(|part| part.total)))
            }
            Err(refusal) => Err(refusal.error(attempt)),
        }
    }

    fn told(&self, answer: &Answer, length: Option<u64>) -> Stat {
        let head = answer.headers();
        let version = self.place.version.clone();
        let validator = Validator { version, ..headers::validator(head, length) };
        Stat {
            length,
            unpinned: validator.strength() == ValidatorStrength::None,
            validator,
            content_type: headers::content_type(head),
            ranges: true,
            kind: StatKind::File,
            url: self.url.clone(),
            modified: told_time(head),
            max_age: None,
        }
    }

    /// Something lies below a prefix, or it is not there; a bucket is there also when it is empty.
    async fn stat_prefix(&self, prefix: Vec<u8>, attempt: &Attempt) -> Result<Stat, SourceError> {
        let query = [("prefix", &prefix[..]), ("max-keys", b"1")];
        let page = self.store.web.retrier.ask(|| self.page(&query, attempt)).await?;
        if page.objects.is_empty() && !prefix.is_empty() {
            return Err(SourceError::NotFound { attempt: attempt.clone() });
        }
        if let Some(first) = page.objects.first().filter(|_| self.has_keys()) {
            self.prove(&first.key, attempt).await?;
        }
        Ok(Stat {
            length: None,
            validator: Validator::default(),
            content_type: None,
            ranges: false,
            kind: StatKind::Directory,
            url: self.directory_url()?,
            unpinned: true,
            modified: None,
            max_age: None,
        })
    }

    /// Whoever may list may perhaps not read, and is given nothing then that others with keys read.
    async fn prove(&self, key: &[u8], attempt: &Attempt) -> Result<(), SourceError> {
        let subject = Subject { key, query: &[] };
        let ask = Ask::head();
        let asked = self.store.web.retrier.ask(|| self.ask(&subject, &ask, attempt)).await;
        match asked {
            Err(SourceError::NotPermitted { attempt, status, .. }) => {
                let reason = Some("its names may be listed, and its objects not read".into());
                Err(SourceError::NotPermitted { attempt, status, reason })
            }
            // Gone meanwhile: so is what could be read.
            Err(SourceError::NotFound { .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    fn directory_url(&self) -> Result<CanonicalUrl, SourceError> {
        let mut url = self.url.url().clone();
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(CanonicalUrl::new(url)?)
    }

    /// One page of a listing.
    pub(super) async fn page(
        &self,
        query: &[(&str, &[u8])],
        attempt: &Attempt,
    ) -> Result<ObjectPage, SourceError> {
        let fixed: [(&str, &[u8]); 2] = [("list-type", b"2"), ("encoding-type", b"url")];
        let query = [&fixed[..], query].concat();
        let subject = Subject { key: b"", query: &query };
        let mut answer = self.ask(&subject, &Ask::whole(), attempt).await?;
        let limit = self.store.web.options.listing.page_bytes;
        let body = self.gather(&mut answer, limit, attempt).await?;
        parse_object_page(&body)
            .map_err(|reason| SourceError::Malformed { attempt: attempt.clone(), reason })
    }
}
