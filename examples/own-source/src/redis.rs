//! Values of a Redis server as files: `redis://host:port/key`; a slash at the end is all keys below it.
//!
//! A version is the SHA-1 of the value, which the server computes in the same step as it cuts the range
//! out, so that no two versions are ever mixed. A site with values of many megabytes would keep a version
//! beside each of them instead.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_model::{ByteRange, Validator};
use dfs_source::{
    Action, Attempt, ByteStream, Counters, Entry, EntryKind, Source, SourceError, Stat, StatKind,
    Target, check_path,
};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use percent_encoding::percent_decode_str;

use crate::protocol::{Connection, Reply};

/// `KEYS[1]`, `ARGV`: the first byte and the one after the last, counted from 0. Gives version, length, bytes.
const READ: &[u8] = b"local value = redis.call('GET', KEYS[1])
    if not value then return false end
    return {redis.sha1hex(value), #value, string.sub(value, ARGV[1] + 1, ARGV[2])}";

/// Bytes asked for at a time.
const PART: u64 = 4 << 20;

/// How long a server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The source.
pub struct RedisSource {
    counters: Arc<Counters>,
}

impl RedisSource {
    /// One that counts what it asks for in `counters`.
    pub fn new(counters: Arc<Counters>) -> Self {
        Self { counters }
    }
}

#[async_trait]
impl Source for RedisSource {
    async fn stat(&self, target: &Target) -> Result<Stat, SourceError> {
        self.counters.stat();
        let server = Server::of(target, Action::Stat, &self.counters);
        let stat = |length, validator, kind| Stat {
            length,
            validator,
            content_type: None,
            ranges: true,
            kind,
            url: target.url.clone(),
            unpinned: false,
            modified: None,
            max_age: None,
        };
        if server.key.is_empty() || server.key.ends_with(b"/") {
            return Ok(stat(None, Validator::default(), StatKind::Directory));
        }
        let value = server.read(ByteRange::new(0, 0)).await?;
        Ok(stat(Some(value.length), value.validator(), StatKind::File))
    }

    async fn read(
        &self,
        target: &Target,
        range: Option<ByteRange>,
        pin: &Validator,
    ) -> Result<ByteStream, SourceError> {
        self.counters.read();
        let server = Server::of(target, Action::Read(range), &self.counters);
        let whole = || ByteRange::new(0, pin.length.unwrap_or(0));
        let (range, pin) = (range.unwrap_or_else(whole), pin.clone());
        let parts = stream::try_unfold((server, range.start), move |(server, at)| {
            let (part, pin) = (ByteRange::new(at, range.end.min(at + PART)), pin.clone());
            async move {
                if part.is_empty() {
                    return Ok(None);
                }
                let value = server.read(part).await?;
                if value.validator() != pin {
                    let detail = "the value is another one".to_owned();
                    return Err(SourceError::Changed { attempt: server.attempt, detail });
                }
                server.counters.received(value.bytes.len());
                Ok(Some((value.bytes, (server, part.end))))
            }
        });
        Ok(parts.boxed())
    }

    fn list(&self, target: &Target) -> BoxStream<'static, Result<Entry, SourceError>> {
        self.counters.list();
        let server = Server::of(target, Action::List, &self.counters);
        let pages = stream::try_unfold(Some((server, b"0".to_vec())), |at| async move {
            let Some((server, cursor)) = at else { return Ok::<_, SourceError>(None) };
            let (entries, next) = server.page(&cursor).await?;
            let more = (next != b"0").then_some((server, next));
            Ok(Some((stream::iter(entries.into_iter().map(Ok)), more)))
        });
        // A server may tell a key twice.
        let mut seen = HashSet::new();
        let is_new = move |entry: &Entry| std::future::ready(seen.insert(entry.path.clone()));
        pages.try_flatten().try_filter(is_new).boxed()
    }
}

/// One version of a value, and a part of its bytes.
struct Value {
    version: String,
    length: u64,
    bytes: Bytes,
}

impl Value {
    fn validator(&self) -> Validator {
        let version = Some(self.version.clone());
        Validator { version, length: Some(self.length), ..Validator::default() }
    }
}

/// The server and the key that a target names, and what is attempted there.
struct Server {
    address: String,
    key: Vec<u8>,
    attempt: Attempt,
    counters: Arc<Counters>,
}

impl Server {
    fn of(target: &Target, action: Action, counters: &Arc<Counters>) -> Self {
        let url = target.url.url();
        let host = url.host_str().unwrap_or_default();
        Self {
            address: format!("{host}:{}", url.port().unwrap_or(6379)),
            key: percent_decode_str(url.path().trim_start_matches('/')).collect(),
            attempt: Attempt::new(action, &target.url),
            counters: Arc::clone(counters),
        }
    }

    async fn ask(&self, commands: &[Vec<&[u8]>]) -> Result<Vec<Reply>, SourceError> {
        self.counters.request();
        let asking = async { Connection::open(&self.address, 2 * PART).await?.ask(commands).await };
        let within = tokio::time::timeout(PATIENCE, asking).await;
        within.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
            SourceError::Unreachable { attempt: self.attempt.clone(), cause: Arc::new(error) }
        })
    }

    async fn read(&self, range: ByteRange) -> Result<Value, SourceError> {
        let (start, end) = (range.start.to_string(), range.end.to_string());
        let words = vec![b"EVAL", READ, b"1", &self.key[..], start.as_bytes(), end.as_bytes()];
        match self.ask(&[words]).await?.pop() {
            Some(Reply::Nothing) => Err(SourceError::NotFound { attempt: self.attempt.clone() }),
            Some(Reply::List(parts)) => match <[Reply; 3]>::try_from(parts) {
                Ok([Reply::Bytes(version), Reply::Number(length), Reply::Bytes(bytes)]) => {
                    let version = String::from_utf8_lossy(&version).into_owned();
                    let length = u64::try_from(length).map_err(|_| self.malformed(None))?;
                    Ok(Value { version, length, bytes: bytes.into() })
                }
                _ => Err(self.malformed(None)),
            },
            other => Err(self.malformed(other)),
        }
    }

    /// Some of the keys below the place, and where the next ones begin.
    async fn page(&self, cursor: &[u8]) -> Result<(Vec<Entry>, Vec<u8>), SourceError> {
        let mut pattern = Vec::new();
        for byte in &self.key {
            if b"*?[]\\".contains(byte) {
                pattern.push(b'\\');
            }
            pattern.push(*byte);
        }
        pattern.push(b'*');
        let words: [&[u8]; 8] =
            [b"SCAN", cursor, b"MATCH", &pattern, b"COUNT", b"1000", b"TYPE", b"string"];
        let (next, keys) = match self.ask(&[words.to_vec()]).await?.pop() {
            Some(Reply::List(parts)) => match <[Reply; 2]>::try_from(parts) {
                Ok([Reply::Bytes(next), Reply::List(keys)]) => (next, keys),
                _ => return Err(self.malformed(None)),
            },
            other => return Err(self.malformed(other)),
        };
        let keys: Vec<Vec<u8>> = keys
            .into_iter()
            .filter_map(|key| if let Reply::Bytes(key) = key { Some(key) } else { None })
            .filter(|key| key.starts_with(&self.key) && check_path(&key[self.key.len()..]).is_ok())
            .collect();
        self.counters.received_listing(keys.iter().map(Vec::len).sum());
        if keys.is_empty() {
            return Ok((Vec::new(), next));
        }
        let lengths: Vec<Vec<&[u8]>> =
            keys.iter().map(|key| vec![b"STRLEN".as_slice(), key]).collect();
        let lengths = self.ask(&lengths).await?;
        let entry = |(key, length): (Vec<u8>, Reply)| Entry {
            path: key[self.key.len()..].to_vec(),
            kind: EntryKind::File,
            length: if let Reply::Number(length) = length { length.try_into().ok() } else { None },
            modified: None,
            validator: None,
            attributes: None,
        };
        Ok((keys.into_iter().zip(lengths).map(entry).collect(), next))
    }

    fn malformed(&self, reply: Option<Reply>) -> SourceError {
        let reason = match reply {
            Some(Reply::Refused(reason)) => format!("the server says: {reason}"),
            _ => "the server's answer makes no sense".to_owned(),
        };
        SourceError::Malformed { attempt: self.attempt.clone(), reason }
    }
}
