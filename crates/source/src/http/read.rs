//! Pinned reads: exactly the bytes of one version, whatever happens on the way.
//!
//! A body that breaks or stalls is asked for again from the byte where it ended, pinned to what its
//! first answer showed; nothing of another version follows what was already passed on. An origin may answer with less than
//! was asked for, and says so (RFC 9110, 15.3.7): then the next part is asked for at once.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, Invariant, Validator, ValidatorStrength};
use futures::stream::{self, StreamExt as _};
use reqwest::Response;
use tokio::time::Instant;

use super::body::Counted;
use super::exchange::{Answer, Ask, Condition};
use super::{Web, headers};
use crate::retry::Retry;
use crate::{Action, Attempt, ByteStream, SourceError, Target};

/// Something that is read over HTTP, in the dialect of its kind of origin.
#[async_trait]
pub(crate) trait Readable: Send + Sync + 'static {
    /// Connections, options, counters.
    fn web(&self) -> &Web;

    /// What binds a ranged answer to the pinned version.
    fn condition(&self, pin: &Validator) -> Option<Condition>;

    /// One request and its answer; an unwelcome answer may be its error already.
    async fn ask(&self, ask: &Ask, attempt: &Attempt) -> Result<Answer, SourceError>;
}

/// A file on the web.
struct Page {
    web: Arc<Web>,
    target: Target,
}

#[async_trait]
impl Readable for Page {
    fn web(&self) -> &Web {
        &self.web
    }

    fn condition(&self, pin: &Validator) -> Option<Condition> {
        headers::strong_tag(pin).map(|tag| Condition::Unchanged(tag.to_owned()))
    }

    async fn ask(&self, ask: &Ask, attempt: &Attempt) -> Result<Answer, SourceError> {
        self.web.exchange(&self.target, ask, attempt).await
    }
}

/// A read under way.
struct Reader {
    place: Box<dyn Readable>,
    attempt: Attempt,
    /// What every answer must match; grows by what the first answer shows.
    pin: Validator,
    /// Asked without a range at first, so that origins without ranges serve it too.
    whole: bool,
    /// Next byte to pass on.
    next: u64,
    /// One past the last; `None` until known.
    end: Option<u64>,
    body: Option<Body>,
    retry: Retry,
    deadline: Option<Instant>,
}

/// What an answer must have to be as much as its origin gives at a time: who gives less has something wrong with it, and is
/// asked again no faster than other such.
const PORTION: u64 = 4 << 10;

/// The answer being read.
struct Body {
    response: Response,
    /// Its first byte.
    start: u64,
    /// One past the last byte that it promises.
    end: Option<u64>,
    /// Bytes to throw away first: an origin without ranges begins again at 0.
    skip: u64,
    /// Whether the end shows only by reaching it, and so may lie beyond the pinned one.
    open_ended: bool,
    /// Whether more came than was promised.
    surplus: bool,
}

pub(super) async fn read(
    web: Arc<Web>,
    target: &Target,
    range: Option<ByteRange>,
    pin: &Validator,
) -> Result<ByteStream, SourceError> {
    let attempt = Attempt::new(Action::Read(range), &target.url);
    let target = target.clone();
    read_pinned(Box::new(Page { web, target }), range, pin, attempt).await
}

/// The bytes of `range`, or all, of the version that `pin` names.
pub(crate) async fn read_pinned(
    place: Box<dyn Readable>,
    range: Option<ByteRange>,
    pin: &Validator,
    attempt: Attempt,
) -> Result<ByteStream, SourceError> {
    let web = place.web();
    web.counters.read();
    let all = pin.length.map(|length| ByteRange::new(0, length));
    if let (Some(range), Some(all)) = (range, all)
        && range.end > all.end
    {
        let reason = format!("the range ends beyond the {} bytes that there are", all.end);
        return Err(SourceError::Malformed { attempt, reason });
    }
    if range.or(all).is_some_and(|wanted| wanted.is_empty()) {
        return Ok(stream::empty().boxed());
    }
    let mut reader = Reader {
        retry: web.retrier.begin(),
        deadline: web.options.total_timeout.map(|limit| Instant::now() + limit),
        place,
        attempt,
        pin: pin.clone(),
        whole: range.is_none() || range == all,
        next: range.map_or(0, |range| range.start),
        end: range.or(all).map(|wanted| wanted.end),
        body: None,
    };
    reader.by_deadline(async |reader| reader.open().await).await?;
    let stream = stream::try_unfold(reader, async |mut reader| {
        let bytes = reader.by_deadline(async |reader| reader.next().await).await?;
        Ok(bytes.map(|bytes| (bytes, reader)))
    });
    Ok(stream.boxed())
}

impl Reader {
    async fn by_deadline<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let Some(deadline) = self.deadline else { return work(self).await };
        let limit = self.place.web().options.total_timeout.unwrap_or_default();
        let attempt = self.attempt.clone();
        match tokio::time::timeout_at(deadline, work(self)).await {
            Ok(result) => result,
            Err(_) => Err(SourceError::Timeout { attempt, limit }),
        }
    }

    /// The next bytes of the wanted ones; `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            if self.end == Some(self.next) {
                return self.finish().await;
            }
            let received = match self.receive().await {
                Ok(Some(bytes)) if bytes.is_empty() => continue,
                Ok(Some(bytes)) => {
                    self.next += bytes.len() as u64;
                    self.retry.progress(bytes.len(), Instant::now());
                    return Ok(Some(bytes));
                }
                Ok(None) if self.end.is_none() => return Ok(None),
                Ok(None) if self.was_portion() => {
                    self.body = None;
                    self.open().await?;
                    continue;
                }
                Ok(None) => self.cut_off(),
                Err(error) => error,
            };
            self.body = None;
            self.try_again(received).await?;
            self.open().await?;
        }
    }

    /// Whether the answer was as long as it said itself, and more can follow it.
    fn was_portion(&self) -> bool {
        let is_one = |body: &Body| {
            !body.surplus && body.end == Some(self.next) && self.next - body.start >= PORTION
        };
        self.is_pinned() && self.body.as_ref().is_some_and(is_one)
    }

    /// Whether what is asked for next can be told from another version.
    fn is_pinned(&self) -> bool {
        self.pin.strength() > ValidatorStrength::None || self.pin.length.is_some()
    }

    fn cut_off(&self) -> SourceError {
        SourceError::Truncated { attempt: self.attempt.clone(), received: self.next, cause: None }
    }

    /// Bytes off the wire, clipped to what was promised and wanted; possibly empty.
    async fn receive(&mut self) -> Result<Option<Bytes>, SourceError> {
        let Some(body) = &mut self.body else { return Err(self.cut_off()) };
        let response = &mut body.response;
        let web = self.place.web();
        let chunk = web.chunk(response, Counted::Content, self.next, &self.attempt).await?;
        let Some(mut bytes) = chunk else {
            // An end before the place where it broke last time is not the end.
            return if body.skip > 0 { Err(self.cut_off()) } else { Ok(None) };
        };
        let skipped = usize::try_from(body.skip).unwrap_or(usize::MAX).min(bytes.len());
        bytes = bytes.slice(skipped..);
        body.skip -= skipped as u64;
        let end = [body.end, self.end].into_iter().flatten().min();
        let room = end.map_or(u64::MAX, |end| end - self.next);
        if bytes.len() as u64 > room {
            body.surplus = true;
            bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        }
        if bytes.is_empty() && body.surplus {
            // Its promise is kept although more is wanted: the rest needs another answer.
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    /// All wanted bytes came. An answer without a length may go on: then this is not the pinned
    /// version.
    async fn finish(&mut self) -> Result<Option<Bytes>, SourceError> {
        let Some(mut body) = self.body.take() else { return Ok(None) };
        if !body.open_ended {
            return Ok(None);
        }
        while !body.surplus {
            let response = &mut body.response;
            let web = self.place.web();
            let more = web.chunk(response, Counted::Content, self.next, &self.attempt).await;
            match more {
                Ok(Some(bytes)) => body.surplus = !bytes.is_empty(),
                Ok(None) | Err(_) => return Ok(None),
            }
        }
        Err(self.changed(format!("it has more than {} bytes now", self.next)))
    }

    fn changed(&self, detail: String) -> SourceError {
        SourceError::Changed { attempt: self.attempt.clone(), detail }
    }

    /// Waits before the next attempt, or gives up. What nothing pins cannot be continued.
    async fn try_again(&mut self, error: SourceError) -> Result<(), SourceError> {
        if self.next > 0 && !self.is_pinned() {
            return Err(error);
        }
        self.place.web().retrier.pause(&mut self.retry, error).await
    }

    /// Asks, until there is an answer that holds the next byte of the pinned version.
    async fn open(&mut self) -> Result<(), SourceError> {
        loop {
            match self.open_once().await {
                Ok(body) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Err(error) => self.place.web().retrier.pause(&mut self.retry, error).await?,
            }
        }
    }

    async fn open_once(&mut self) -> Result<Body, SourceError> {
        let ask = if self.whole && self.next == 0 {
            Ask::whole()
        } else {
            let last = self.end.map(|end| end - 1);
            Ask::range(self.next, last)
        };
        let ask = ask.only(self.place.condition(&self.pin));
        let answer = self.place.ask(&ask, &self.attempt).await?;
        match (answer.status(), ask.is_ranged()) {
            (200, ranged) => self.take_whole(answer, ranged),
            (206, true) => self.take_part(answer),
            (206, false) => {
                Err(self.malformed("the origin answers 206 although no range was asked"))
            }
            (412, _) => Err(self.changed("it is not the pinned version any more".to_owned())),
            (416, true) => Err(self.changed("it has no such range any more".to_owned())),
            _ => Err(answer.refusal(&self.attempt)),
        }
    }

    fn malformed(&self, reason: &str) -> SourceError {
        SourceError::Malformed { attempt: self.attempt.clone(), reason: reason.to_owned() }
    }

    /// An answer that begins at byte 0.
    fn take_whole(&mut self, answer: Answer, ranged: bool) -> Result<Body, SourceError> {
        let length = headers::content_length(answer.headers());
        self.match_pin(&answer, length)?;
        if ranged && !self.whole {
            return Err(SourceError::RangeIgnored { attempt: self.attempt.clone() });
        }
        self.end = self.end.or(length);
        let (response, skip, open_ended) = (answer.response, self.next, length.is_none());
        Ok(Body { response, start: 0, end: self.end, skip, open_ended, surplus: false })
    }

    /// An answer that holds a part.
    fn take_part(&mut self, answer: Answer) -> Result<Body, SourceError> {
        let part = headers::content_range(answer.headers()).ok_or_else(|| {
            self.malformed("the origin answers 206 without a sound Content-Range")
        })?;
        let inside = self.end.is_none_or(|end| part.last < end);
        if part.first != self.next || !inside {
            return Err(self.malformed("the origin answers with another range than was asked"));
        }
        self.match_pin(&answer, part.total)?;
        let end = Some(part.last + 1);
        // Who was asked for all the rest, and does not tell the total, gave all the rest.
        self.end = self.end.or(part.total).or(end);
        let (response, start) = (answer.response, part.first);
        Ok(Body { response, start, end, skip: 0, open_ended: false, surplus: false })
    }

    /// Compares with the pinned version, and pins what it left open.
    fn match_pin(&mut self, answer: &Answer, length: Option<u64>) -> Result<(), SourceError> {
        let seen = headers::validator(answer.headers(), length);
        if let Some(detail) = headers::difference(&self.pin, &seen)
            && !Invariant::VersionsNeverMix.is_broken()
        {
            // What a strong tag names does not change: an answer that says so is the one that is wrong.
            let tag = headers::strong_tag(&self.pin);
            let is_pinned = tag.is_some() && tag == headers::strong_tag(&seen);
            return Err(match is_pinned {
                true => SourceError::Contradictory { attempt: self.attempt.clone(), detail },
                false => self.changed(detail),
            });
        }
        let Validator { etag, modified, version, length } = std::mem::take(&mut self.pin);
        self.pin = Validator {
            etag: etag.or(seen.etag),
            modified: modified.or(seen.modified),
            version,
            length: length.or(seen.length),
        };
        Ok(())
    }
}
