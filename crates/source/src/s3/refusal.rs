//! What a store says when it does not do what it was asked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{DATE, HeaderMap};

use super::xml::walk;
use crate::http::headers;
use crate::{Action, Attempt, SourceError};

/// An answer that is no success.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusal {
    pub status: u16,
    /// The store's word for it; empty where the answer has no body, as to HEAD.
    pub code: String,
    /// Where the bucket really is.
    pub region: Option<String>,
    retry_after: Option<Duration>,
    /// How far the clock here is from the store's, where it is worth a word.
    skew: Option<Skew>,
}

#[derive(Debug, Clone, Copy)]
enum Skew {
    Ahead(Duration),
    Behind(Duration),
}

impl Refusal {
    pub fn new(status: u16, head: &HeaderMap, body: &[u8], now: SystemTime) -> Self {
        let region = head.get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
        let mut refusal = Self {
            status,
            region: region.and_then(|region| super::place::region(region).ok()),
            retry_after: headers::retry_after(head, now),
            skew: skew(head, now),
            ..Self::default()
        };
        // A body that is no error leaves the status to speak.
        let _ = walk(body, |names, text| {
            match names {
                ["Error", "Code"] | ["ErrorResponse", "Error", "Code"] => {
                    refusal.code =
                        text.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
                }
                ["Error", "Region"] if refusal.region.is_none() => {
                    refusal.region = super::place::region(text).ok();
                }
                _ => {}
            }
            Ok(())
        });
        refusal
    }

    /// Whether the request went to, or was signed for, another region than the bucket's.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.status, 301 | 307)
            || matches!(&*self.code, "AuthorizationHeaderMalformed" | "PermanentRedirect")
            || self.status == 400 && self.code.is_empty() && self.region.is_some()
    }

    /// Whether newer keys may be welcome.
    pub fn is_expired(&self) -> bool {
        matches!(&*self.code, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired")
    }

    /// In this crate's words. What is read is pinned: where it is gone, it has changed.
    pub fn error(self, attempt: &Attempt) -> SourceError {
        let attempt = attempt.clone();
        let reading = matches!(attempt.action, Action::Read(_));
        let changed =
            |attempt, detail: &str| SourceError::Changed { attempt, detail: detail.into() };
        match (self.status, &*self.code) {
            (_, "NoSuchBucket") => {
                let url = format!("{} (there is no such bucket)", attempt.url).into();
                SourceError::NotFound { attempt: Attempt { url, ..attempt } }
            }
            (_, "RequestTimeout") => {
                SourceError::Status { attempt, status: 408, retry_after: self.retry_after }
            }
            // Others write to the same place at this moment.
            (409, "ConditionalRequestConflict" | "OperationAborted") => {
                SourceError::Status { attempt, status: 503, retry_after: self.retry_after }
            }
            (404, _) if reading => changed(attempt, "it is gone"),
            (404 | 410, _) => SourceError::NotFound { attempt },
            (412, _) if attempt.action == Action::Write => SourceError::Exists { attempt },
            (412, _) => changed(attempt, "it is not the pinned version any more"),
            (416, _) => changed(attempt, "it has no such range any more"),
            (status @ (401 | 403), _) => self.denied(attempt, status),
            (400, code) if is_about_keys(code) => self.denied(attempt, 400),
            (301 | 307, _) => SourceError::Redirect {
                attempt,
                reason: "the bucket is in another region, and the store does not say in which"
                    .into(),
            },
            (status @ (408 | 425 | 429 | 500..), _) => {
                SourceError::Status { attempt, status, retry_after: self.retry_after }
            }
            _ => SourceError::Malformed { attempt, reason: self.words() },
        }
    }

    fn denied(self, attempt: Attempt, status: u16) -> SourceError {
        let reason = match self.skew {
            Some(Skew::Ahead(by)) => {
                format!("the clock here is {} ahead: {}", minutes(by), self.words())
            }
            Some(Skew::Behind(by)) => {
                format!("the clock here is {} behind: {}", minutes(by), self.words())
            }
            None => self.words(),
        };
        SourceError::NotPermitted { attempt, status: Some(status), reason: Some(Arc::from(reason)) }
    }

    fn words(&self) -> String {
        let words = format!("the store answered {} {}", self.status, self.code);
        words.trim_end().to_owned()
    }
}

fn is_about_keys(code: &str) -> bool {
    matches!(
        code,
        "AuthorizationHeaderMalformed"
            | "ExpiredToken"
            | "InvalidToken"
            | "InvalidAccessKeyId"
            | "TokenRefreshRequired"
            | "AuthorizationQueryParametersError"
    )
}

/// Stores take 15 minutes; less is no reason.
fn skew(head: &HeaderMap, now: SystemTime) -> Option<Skew> {
    const ALLOWED: Duration = Duration::from_secs(14 * 60);
    let theirs = httpdate::parse_http_date(head.get(DATE)?.to_str().ok()?).ok()?;
    match now.duration_since(theirs) {
        Ok(ahead) if ahead > ALLOWED => Some(Skew::Ahead(ahead)),
        Err(behind) if behind.duration() > ALLOWED => Some(Skew::Behind(behind.duration())),
        _ => None,
    }
}

fn minutes(time: Duration) -> String {
    format!("{} minutes", time.as_secs().div_ceil(60))
}

#[cfg(test)]
mod tests {
    use dfs_model::CanonicalUrl;

    use super::*;

    fn error(
        action: Action,
        status: u16,
        head: &[(&'static str, &str)],
        code: &str,
    ) -> SourceError {
        let mut headers = HeaderMap::new();
        for (name, value) in head {
            headers.insert(*name, value.parse().unwrap());
        }
        let body = format!("<Error><Code>{code}</Code><Region>eu-west-3</Region></Error>");
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let url = CanonicalUrl::parse("s3://lab/run-43/part-7").unwrap();
        let refusal = Refusal::new(status, &headers, body.as_bytes(), now);
        refusal.error(&Attempt::new(action, &url))
    }

    #[test]
    fn refusals_say_what_a_person_can_act_on() {
        let denied = error(Action::Read(None), 403, &[], "AccessDenied").to_string();
        assert_eq!(
            denied,
            "cannot read s3://lab/run-43/part-7: the store answered 403 AccessDenied"
        );
        let date = [("date", "Sun, 06 Nov 1994 08:20:00 GMT")];
        let skewed = error(Action::Stat, 403, &date, "RequestTimeTooSkewed").to_string();
        let said =
            "the clock here is 30 minutes ahead: the store answered 403 RequestTimeTooSkewed";
        assert!(skewed.ends_with(said), "{skewed}");
        let bucket = error(Action::List, 404, &[], "NoSuchBucket").to_string();
        assert!(bucket.ends_with("(there is no such bucket): not found"), "{bucket}");
    }

    #[test]
    fn what_is_pinned_and_gone_has_changed() {
        for status in [404, 412, 416] {
            let found = error(Action::Read(None), status, &[], "Whatever");
            assert!(matches!(found, SourceError::Changed { .. }), "{found:?}");
        }
        let found = error(Action::Stat, 404, &[], "NoSuchKey");
        assert!(matches!(found, SourceError::NotFound { .. }));
        assert!(matches!(error(Action::Write, 412, &[], "x"), SourceError::Exists { .. }));
    }

    #[test]
    fn a_store_under_pressure_is_asked_again() {
        let head = [("retry-after", "7")];
        let slow = error(Action::Read(None), 503, &head, "SlowDown");
        assert!(slow.is_transient());
        assert_eq!(slow.retry_after(), Some(Duration::from_secs(7)));
        assert!(error(Action::Stat, 400, &[], "RequestTimeout").is_transient());
        assert!(!error(Action::Stat, 400, &[], "InvalidArgument").is_transient());
    }

    #[test]
    fn the_region_is_read_from_head_or_body_and_never_leaves_the_name_of_one() {
        let refusal = |head: &[(&'static str, &str)], body: &str| {
            let mut headers = HeaderMap::new();
            head.iter().for_each(|(name, value)| {
                headers.insert(*name, value.parse().unwrap());
            });
            Refusal::new(301, &headers, body.as_bytes(), SystemTime::now()).region
        };
        let body = "<Error><Region>eu-west-3</Region></Error>";
        assert_eq!(refusal(&[], body).as_deref(), Some("eu-west-3"));
        assert_eq!(refusal(&[("x-amz-bucket-region", "a-1")], body).as_deref(), Some("a-1"));
        assert_eq!(refusal(&[], "<Error><Region>evil.example/</Region></Error>"), None);
    }
}
