//! Writing objects: one PUT, or parts several at a time that become an object at the end.
//!
//! Parts are held in memory until the store has them, so that each can be sent again; how many is
//! bounded by bytes. An upload that is not finished, because something failed or nobody waits any
//! more, is taken back; one that a killed process wrote down is taken back by a later one that is asked to. It is
//! written down as soon as the store has named it: one that was cut off in between, or where there is no
//! directory for that, is the store's to expire.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use dfs_model::Validator;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::place::PATH;
use super::stat::TOLD_TIME;
use super::store::{Asker, Subject};
use super::unfinished::{Begun, Note, left_in};
use super::xml::walk;
use crate::http::exchange::{Answer, Ask, Condition};
use crate::http::headers;
use crate::write::check_length;
use crate::{Attempt, ByteStream, Content, Existing, SourceError, TakenBack, WriteOptions};

/// Smallest part, and largest object that is sent as one.
const PART_BYTES: u64 = 8 << 20;

/// Part of a content whose length is not known.
const UNKNOWN_PART_BYTES: u64 = 16 << 20;

/// What stores take.
const MAX_PARTS: u64 = 10_000;

/// Bytes of parts in memory, at least one part.
const MEMORY_BYTES: u64 = 64 << 20;

/// Parts under way at a time.
const PARTS_AT_ONCE: u64 = 4;

/// Largest object that a store copies at once.
const MAX_COPY_BYTES: u64 = 5 << 30;

/// Longest answer about an upload.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

pub(super) async fn write(
    asker: &Asker,
    content: Content,
    options: &WriteOptions,
    attempt: &Attempt,
) -> Result<Validator, SourceError> {
    writable(asker, attempt)?;
    let existing = options.existing;
    let Content { mut bytes, length } = content;
    let part_bytes = part_bytes(length);
    let mut parts = Parts { rest: Bytes::new(), bytes: &mut bytes };
    let first = parts.next(part_bytes).await?;
    if (first.len() as u64) < part_bytes {
        check_length(length, first.len() as u64, attempt)?;
        return put(asker, first, options, attempt).await;
    }
    let upload = Upload::begin(asker, options, attempt).await?;
    let written = upload.send_all(first, parts, (part_bytes, length)).await;
    let (tags, written) = match written {
        Ok(written) => written,
        Err(error) => return Err(upload.abandon(error).await),
    };
    match upload.complete(&tags, existing).await {
        Ok(etag) => {
            upload.end().await;
            Ok(Validator { etag, length: Some(written), ..Validator::default() })
        }
        Err(error) => Err(upload.abandon(error).await),
    }
}

/// An object has a name of its own, and is written as it is now.
fn writable(asker: &Asker, attempt: &Attempt) -> Result<(), SourceError> {
    let reason = match (&asker.place.key[..], &asker.place.version) {
        (b"", _) => "a bucket is not an object",
        (_, Some(_)) => "a version that is there is never written to",
        _ => return Ok(()),
    };
    Err(SourceError::Malformed { attempt: attempt.clone(), reason: reason.to_owned() })
}

/// Parts large enough that no more than the store takes are needed, in whole MiB.
fn part_bytes(length: Option<u64>) -> u64 {
    match length {
        Some(length) => length.div_ceil(MAX_PARTS).next_multiple_of(1 << 20).max(PART_BYTES),
        None => UNKNOWN_PART_BYTES,
    }
}

/// Cuts a stream into parts.
struct Parts<'a> {
    /// What came behind the last part.
    rest: Bytes,
    bytes: &'a mut ByteStream,
}

impl Parts<'_> {
    /// The next `length` bytes, fewer at the end.
    async fn next(&mut self, length: u64) -> Result<Bytes, SourceError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut part = BytesMut::new();
        loop {
            let taken = self.rest.len().min(length - part.len());
            part.extend_from_slice(&self.rest.split_to(taken));
            if part.len() == length {
                return Ok(part.freeze());
            }
            match self.bytes.next().await {
                Some(bytes) => self.rest = bytes?,
                None => return Ok(part.freeze()),
            }
        }
    }
}

fn condition(existing: Existing) -> Option<Condition> {
    (existing == Existing::Keep).then_some(Condition::Absent)
}

/// Keeps the time of the content with the object: the store's own is that of the writing.
fn tell_time(ask: &mut Ask, options: &WriteOptions) {
    let time = options.modified.and_then(|time| HeaderValue::from_str(&time.to_string()).ok());
    if let Some(time) = time {
        ask.headers.insert(TOLD_TIME, time);
    }
}

fn tag(answer: &Answer) -> Option<String> {
    headers::validator(answer.headers(), None).etag
}

/// A small content at once.
async fn put(
    asker: &Asker,
    body: Bytes,
    options: &WriteOptions,
    attempt: &Attempt,
) -> Result<Validator, SourceError> {
    let length = Some(body.len() as u64);
    let mut ask = Ask::new(Method::PUT).only(condition(options.existing));
    ask.body = body;
    tell_time(&mut ask, options);
    let subject = Subject { key: &asker.place.key, query: &[] };
    let send = || asker.ask(&subject, &ask, attempt);
    let answer = asker.store.web.retrier.run(send).await?;
    Ok(Validator { etag: tag(&answer), length, ..Validator::default() })
}

/// An upload under way: taken back when it is dropped before its end.
struct Upload<'a> {
    asker: &'a Asker,
    attempt: &'a Attempt,
    id: String,
    /// What is written down of it, until it is over.
    note: Option<Note>,
    over: bool,
}

impl<'a> Upload<'a> {
    async fn begin(
        asker: &'a Asker,
        options: &WriteOptions,
        attempt: &'a Attempt,
    ) -> Result<Self, SourceError> {
        let subject = Subject { key: &asker.place.key, query: &[("uploads", b"")] };
        let mut ask = Ask::new(Method::POST);
        tell_time(&mut ask, options);
        let begin = || async {
            let answer = asker.ask(&subject, &ask, attempt).await?;
            texts(asker, answer, &["UploadId"], attempt).await
        };
        let [id]: [Option<String>; 1] = asker.store.web.retrier.run(begin).await?;
        let reason = "the store began an upload without telling its name".to_owned();
        let id = id.ok_or(SourceError::Malformed { attempt: attempt.clone(), reason })?;
        let mut upload = Self { asker, attempt, id, note: None, over: false };
        upload.note = upload.write_down().await;
        Ok(upload)
    }

    /// What cannot be written down is the store's to expire.
    async fn write_down(&self) -> Option<Note> {
        let dir = self.asker.store.unfinished.clone()?;
        let begun = Begun { url: self.asker.url.clone(), id: self.id.clone() };
        // Who clears up may have come between, once.
        let write = move || Note::of(&dir, &begun).or_else(|_| Note::of(&dir, &begun));
        tokio::task::spawn_blocking(write).await.ok()?.ok()
    }

    /// Sends everything; the parts' tags in order, and how many bytes they are.
    async fn send_all(
        &self,
        first: Bytes,
        mut parts: Parts<'_>,
        (part_bytes, length): (u64, Option<u64>),
    ) -> Result<(Vec<String>, u64), SourceError> {
        let at_once = (MEMORY_BYTES / part_bytes).clamp(1, PARTS_AT_ONCE) as usize;
        let mut sending = FuturesUnordered::new();
        let mut tags: Vec<String> = Vec::new();
        let (mut written, mut part) = (0, first);
        while !part.is_empty() {
            written += part.len() as u64;
            if tags.len() as u64 == MAX_PARTS || length.is_some_and(|length| written > length) {
                let (attempt, limit) = (self.attempt.clone(), length.unwrap_or(written));
                return Err(SourceError::TooLarge { attempt, what: "bytes", limit });
            }
            let number = tags.len();
            tags.push(String::new());
            sending.push(async move { self.send(number, part).await.map(|tag| (number, tag)) });
            while sending.len() >= at_once
                && let Some(sent) = sending.next().await
            {
                let (number, tag) = sent?;
                tags[number] = tag;
            }
            // Parts go on being sent while the next one comes.
            let mut next = pin!(parts.next(part_bytes));
            part = loop {
                tokio::select! {
                    part = &mut next => break part?,
                    Some(sent) = sending.next() => {
                        let (number, tag) = sent?;
                        tags[number] = tag;
                    }
                }
            };
        }
        while let Some(sent) = sending.next().await {
            let (number, tag) = sent?;
            tags[number] = tag;
        }
        check_length(length, written, self.attempt)?;
        Ok((tags, written))
    }

    async fn send(&self, number: usize, body: Bytes) -> Result<String, SourceError> {
        let place = (number + 1).to_string();
        let query = [("partNumber", place.as_bytes()), ("uploadId", self.id.as_bytes())];
        let subject = Subject { key: &self.asker.place.key, query: &query };
        let mut ask = Ask::new(Method::PUT);
        ask.body = body;
        let send = || self.asker.ask(&subject, &ask, self.attempt);
        let answer = self.asker.store.web.retrier.run(send).await?;
        let reason = "the store took a part without telling its ETag".to_owned();
        tag(&answer).ok_or(SourceError::Malformed { attempt: self.attempt.clone(), reason })
    }

    /// Makes the parts an object.
    async fn complete(
        &self,
        tags: &[String],
        existing: Existing,
    ) -> Result<Option<String>, SourceError> {
        let parts: String = tags
            .iter()
            .enumerate()
            .map(|(number, tag)| {
                let (number, tag) = (number + 1, quick_xml::escape::escape(tag));
                format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
            })
            .collect();
        let mut ask = Ask::new(Method::POST).only(condition(existing));
        ask.body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>").into();
        let query = [("uploadId", self.id.as_bytes())];
        let subject = Subject { key: &self.asker.place.key, query: &query };
        let complete = || async {
            let answer = self.asker.ask(&subject, &ask, self.attempt).await?;
            texts(self.asker, answer, &["ETag"], self.attempt).await
        };
        let [etag]: [Option<String>; 1] = self.asker.store.web.retrier.run(complete).await?;
        Ok(etag)
    }

    /// It is an object.
    async fn end(mut self) {
        self.over = true;
        settle(self.note.take()).await;
    }

    /// Takes the upload back because of `error`.
    async fn abandon(mut self, error: SourceError) -> SourceError {
        self.forget().await;
        error
    }

    /// It is over, and taken back by what this gives.
    fn forget(&mut self) -> impl Future<Output = ()> + use<> {
        self.over = true;
        let (asker, id, attempt) = (self.asker.clone(), self.id.clone(), self.attempt.clone());
        let note = self.note.take();
        async move {
            if let Err(error) = abort(asker, id, &attempt, note).await {
                tracing::warn!(%error, "an unfinished upload stays at the store, which charges for it");
            }
        }
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // Without a runtime nobody is left who could tell the store.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let forget = self.forget();
            self.asker.store.aborts.spawn_on(forget, &runtime);
        }
    }
}

/// Nothing is to be done about an upload any more.
async fn settle(note: Option<Note>) {
    if let Some(note) = note {
        // A note that stays is found to be of nothing later.
        let _ = tokio::task::spawn_blocking(move || note.settle()).await;
    }
}

/// What became of an upload that is taken back.
enum Ended {
    /// It was there until now.
    Aborted,
    /// The store knew nothing of it: it had ended.
    Gone,
}

/// Takes an upload back.
async fn abort(
    asker: Asker,
    id: String,
    attempt: &Attempt,
    note: Option<Note>,
) -> Result<Ended, SourceError> {
    let query = [("uploadId", id.as_bytes())];
    let subject = Subject { key: &asker.place.key, query: &query };
    let ask = Ask::new(Method::DELETE);
    let mut asked = 0;
    let abort = || {
        asked += 1;
        asker.ask(&subject, &ask, attempt)
    };
    let ended = match asker.store.web.retrier.run(abort).await {
        Ok(_) => Ended::Aborted,
        // The answer to the first attempt may have been lost after it was carried out.
        Err(SourceError::NotFound { .. }) if asked > 1 => Ended::Aborted,
        Err(SourceError::NotFound { .. }) => Ended::Gone,
        Err(error) => return Err(error),
    };
    settle(note).await;
    Ok(ended)
}

/// Takes back the uploads below `asker`'s place that killed processes left.
pub(super) async fn take_back(asker: &Asker, attempt: &Attempt) -> TakenBack {
    let mut taken = TakenBack::default();
    let Some(dir) = asker.store.unfinished.clone() else { return taken };
    let looked = tokio::task::spawn_blocking(move || left_in(&dir)).await;
    for (begun, note) in looked.ok().and_then(Result::ok).unwrap_or_default() {
        let Some(asker) = asker.below(&begun.url) else { continue };
        match abort(asker, begun.id, attempt, Some(note)).await {
            Ok(Ended::Aborted) => taken.done += 1,
            Ok(Ended::Gone) => {}
            Err(error) => {
                taken.failed += 1;
                taken.error.get_or_insert(error);
            }
        }
    }
    taken
}

/// The texts of these elements right below the root. A store may find that it failed after it has
/// said that all is well: then an error stands where they should.
async fn texts<const N: usize>(
    asker: &Asker,
    mut answer: Answer,
    wanted: &[&str; N],
    attempt: &Attempt,
) -> Result<[Option<String>; N], SourceError> {
    let body = asker.gather(&mut answer, MAX_ANSWER_BYTES, attempt).await?;
    let mut found = [const { None }; N];
    let mut failed = None;
    let read = walk(&body, |names, text| {
        match names {
            ["Error", "Code"] => failed = Some(text.to_owned()),
            [_, name] => {
                if let Some(at) = wanted.iter().position(|wanted| wanted == name) {
                    found[at] = Some(text.trim().to_owned());
                }
            }
            _ => {}
        }
        Ok(())
    });
    let attempt = attempt.clone();
    match (failed, read) {
        (Some(_), _) => Err(SourceError::Status { attempt, status: 500, retry_after: None }),
        (None, Err(reason)) => Err(SourceError::Malformed { attempt, reason }),
        (None, Ok(())) => Ok(found),
    }
}

pub(super) async fn copy(
    from: &Asker,
    pin: &Validator,
    asker: &Asker,
    existing: Existing,
    attempt: &Attempt,
) -> Result<Option<Validator>, SourceError> {
    writable(asker, attempt)?;
    let same_store = from.place.endpoint == asker.place.endpoint;
    let small = pin.length.is_some_and(|length| length <= MAX_COPY_BYTES);
    let Some(etag) = headers::strong_tag(pin).filter(|_| same_store && small) else {
        return Ok(None);
    };
    let mut ask = Ask::new(Method::PUT).only(condition(existing));
    let source = copy_source(from);
    let named = copy_headers(&mut ask.headers, &source, etag);
    let reason = "the name of what is copied cannot be sent".to_owned();
    named.ok_or(SourceError::Malformed { attempt: attempt.clone(), reason })?;
    let subject = Subject { key: &asker.place.key, query: &[] };
    let copy = || async {
        let answer = match asker.try_ask(&subject, &ask, attempt).await? {
            Ok(answer) => answer,
            // What failed is the condition on the source, unless nothing may be there already.
            Err(refusal) if refusal.status == 412 && existing == Existing::Replace => {
                let detail = "it is not the pinned version any more".to_owned();
                return Err(SourceError::Changed { attempt: attempt.clone(), detail });
            }
            Err(refusal) => return Err(refusal.error(attempt)),
        };
        texts(asker, answer, &["ETag"], attempt).await
    };
    let [etag]: [Option<String>; 1] = asker.store.web.retrier.run(copy).await?;
    Ok(Some(Validator { etag, length: pin.length, ..Validator::default() }))
}

fn copy_source(from: &Asker) -> String {
    let key = percent_encode(&from.place.key, PATH);
    let version = from.place.version.as_deref().map(|version| {
        format!("?versionId={}", percent_encode(version.as_bytes(), NON_ALPHANUMERIC))
    });
    format!("/{}/{key}{}", from.place.bucket, version.unwrap_or_default())
}

fn copy_headers(headers: &mut HeaderMap, source: &str, etag: &str) -> Option<()> {
    const SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");
    const IF_MATCH: HeaderName = HeaderName::from_static("x-amz-copy-source-if-match");
    headers.insert(SOURCE, HeaderValue::from_str(source).ok()?);
    headers.insert(IF_MATCH, HeaderValue::from_str(etag).ok()?);
    Some(())
}

pub(super) async fn delete(asker: &Asker, attempt: &Attempt) -> Result<(), SourceError> {
    if asker.place.key.is_empty() {
        let reason = "a bucket is not an object".to_owned();
        return Err(SourceError::Malformed { attempt: attempt.clone(), reason });
    }
    let query = asker.place.version_query();
    let subject = Subject { key: &asker.place.key, query: &query };
    let ask = Ask::new(Method::DELETE);
    let delete = || asker.ask(&subject, &ask, attempt);
    match asker.store.web.retrier.run(delete).await {
        Err(SourceError::NotFound { attempt }) if !attempt.url.contains("(there is no") => Ok(()),
        other => other.map(drop),
    }
}
