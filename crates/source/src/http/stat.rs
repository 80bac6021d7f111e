//! What a URL names: HEAD, and where that does not tell enough, one byte by GET.

use std::time::Duration;

use dfs_model::{CanonicalUrl, Validator, ValidatorStrength};

use super::exchange::{Answer, Ask};
use super::{Web, headers};
use crate::{Action, Attempt, SourceError, Stat, StatKind, Target};

/// What one answer tells.
#[derive(Clone)]
struct Seen {
    url: CanonicalUrl,
    directory: bool,
    validator: Validator,
    content_type: Option<String>,
    ranges: Option<bool>,
    max_age: Option<Duration>,
}

impl Seen {
    fn of(answer: &Answer, length: Option<u64>, ranges: Option<bool>) -> Self {
        let head = answer.headers();
        Self {
            url: answer.stays.clone(),
            directory: answer.url.path().ends_with('/') && headers::is_html(head),
            validator: headers::validator(head, length),
            content_type: headers::content_type(head),
            ranges,
            max_age: headers::max_age(head),
        }
    }

    /// Whether nothing is left to find out.
    fn is_enough(&self) -> bool {
        self.directory || (self.validator.length.is_some() && self.ranges.is_some())
    }

    fn into_stat(self) -> Stat {
        let kind = if self.directory { StatKind::Directory } else { StatKind::File };
        // The length of an index page is not the directory's.
        let length = if self.directory { None } else { self.validator.length };
        let validator = Validator { length, ..self.validator };
        Stat {
            length,
            unpinned: validator.strength() == ValidatorStrength::None,
            validator,
            content_type: self.content_type,
            ranges: self.ranges.unwrap_or(false),
            kind,
            url: self.url,
            modified: None,
            max_age: self.max_age,
        }
    }
}

impl Web {
    pub(super) async fn stat(&self, target: &Target) -> Result<Stat, SourceError> {
        self.counters.stat();
        let attempt = Attempt::new(Action::Stat, &target.url);
        self.bounded(&attempt, self.look(target, &attempt)).await
    }

    async fn look(&self, target: &Target, attempt: &Attempt) -> Result<Stat, SourceError> {
        let head = self.retrier.ask(|| self.head(target, attempt)).await?;
        if let Some(head) = head.clone().filter(Seen::is_enough) {
            return Ok(head.into_stat());
        }
        let probed = self.retrier.ask(|| self.probe(target, attempt, head.as_ref())).await?;
        Ok(probed.into_stat())
    }

    /// `None` when the origin does not take HEAD: GET may still be fine (signed URLs are made for
    /// one method).
    async fn head(&self, target: &Target, attempt: &Attempt) -> Result<Option<Seen>, SourceError> {
        let answer = self.exchange(target, &Ask::head(), attempt).await?;
        match answer.status() {
            200 => {
                let length = headers::content_length(answer.headers());
                let ranges = headers::accepts_ranges(answer.headers());
                Ok(Some(Seen::of(&answer, length, ranges)))
            }
            400 | 403 | 405 | 501 => Ok(None),
            _ => Err(answer.refusal(attempt)),
        }
    }

    /// Asks for the first byte: the answer's status is the proof of ranges.
    async fn probe(
        &self,
        target: &Target,
        attempt: &Attempt,
        head: Option<&Seen>,
    ) -> Result<Seen, SourceError> {
        let answer = self.exchange(target, &Ask::range(0, Some(0)), attempt).await?;
        match answer.status() {
            206 => {
                let part = headers::content_range(answer.headers());
                let part = part.filter(|part| part.first == 0).ok_or_else(|| {
                    let reason = "the origin answers 206 without a sound Content-Range".to_owned();
                    SourceError::Malformed { attempt: attempt.clone(), reason }
                })?;
                Ok(Seen::of(&answer, part.total, Some(true)))
            }
            200 => {
                let length = headers::content_length(answer.headers());
                Ok(Seen::of(&answer, length, Some(false)))
            }
            416 if headers::unsatisfied_total(answer.headers()).unwrap_or(0) == 0 => {
                Ok(empty(&answer, head))
            }
            _ => Err(answer.refusal(attempt)),
        }
    }
}

/// Nothing has no first byte. What HEAD told of the empty file is better than what the refusal
/// tells of itself.
fn empty(answer: &Answer, head: Option<&Seen>) -> Seen {
    let refusal = Seen::of(answer, Some(0), Some(true));
    let Some(head) = head else { return Seen { content_type: None, ..refusal } };
    let validator = Validator { length: Some(0), ..head.validator.clone() };
    Seen { validator, content_type: head.content_type.clone(), max_age: head.max_age, ..refusal }
}
