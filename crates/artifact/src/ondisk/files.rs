//! What an image on a disk is made of, by path: files of a directory, or members of a tar.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dfs_model::{ByteRange, Validator};
use dfs_source::oci::{ContentDigest, Hashing, MAX_DOCUMENT};
use dfs_source::{
    Attempt, ByteStream, FileSource, Source as _, SourceError, Stat, StatKind, Target, Timestamp,
};
use futures::TryStreamExt as _;

use crate::tar::{TarError, TarScan};
use crate::tree::{Content, TreeBuilder};

/// Headers of a tar that are looked at: an archive of images has a few for each layer.
const MAX_HEADERS: usize = 100_000;
/// Bytes of a tar that are read at a time while its headers are looked for.
const AHEAD: u64 = 64 << 10;
/// Links after one another that are followed inside of a tar.
const MAX_LINKS: usize = 8;

/// Files by their paths.
pub(super) enum Files {
    /// Below a directory, which is not left.
    Directory(Arc<FileSource>, Target),
    /// In a tar, by the tar's own target.
    Archive(Archive, Target),
}

/// Bytes of one version of a file.
pub(super) struct Window {
    source: Arc<FileSource>,
    pub target: Target,
    pub pin: Validator,
    /// When anything about the file was last changed.
    pub changed: Timestamp,
    /// Where in the file they lie.
    pub range: ByteRange,
}

/// Where the members of a tar lie; cheap to clone.
#[derive(Clone)]
pub(super) struct Archive {
    source: Arc<FileSource>,
    version: Validator,
    changed: Timestamp,
    members: Arc<BTreeMap<String, Member>>,
}

enum Member {
    File(ByteRange),
    Link(String),
}

impl Files {
    /// What lies at `path`; `None` where nothing does.
    pub async fn open(&self, path: &str, attempt: &Attempt) -> Result<Option<Window>, SourceError> {
        match self {
            Self::Archive(archive, target) => Ok(archive.open(path, target)),
            Self::Directory(source, dir) => {
                let target = dir.join(path.as_bytes())?;
                let (stat, changed) = match source.stat_and_change(&target).await {
                    Ok(found) => found,
                    Err(SourceError::NotFound { .. }) => return Ok(None),
                    Err(error) => return Err(error.of(attempt)),
                };
                if stat.kind == StatKind::Directory {
                    let reason = format!("its {path} is a directory");
                    return Err(SourceError::Unreadable { attempt: attempt.clone(), reason });
                }
                let (source, length) = (Arc::clone(source), stat.length.unwrap_or_default());
                let range = ByteRange::new(0, length);
                Ok(Some(Window { source, target, pin: stat.validator, changed, range }))
            }
        }
    }

    /// All of a document; `None` where there is none.
    pub async fn document(
        &self,
        path: &str,
        attempt: &Attempt,
    ) -> Result<Option<Bytes>, SourceError> {
        let Some(window) = self.open(path, attempt).await? else { return Ok(None) };
        if window.range.len() > MAX_DOCUMENT as u64 {
            let (what, limit) = ("bytes in a document", MAX_DOCUMENT as u64);
            return Err(SourceError::TooLarge { attempt: attempt.clone(), what, limit });
        }
        window.all().await.map(Some)
    }
}

impl Window {
    /// The bytes of a part of it, or all.
    pub async fn read(&self, part: Option<ByteRange>) -> Result<ByteStream, SourceError> {
        let range = match part {
            Some(part) => ByteRange::at(self.range.start + part.start, part.len()),
            None => self.range,
        };
        self.source.read(&self.target, Some(range), &self.pin).await
    }

    /// The first bytes, fewer where there are no more.
    pub async fn first(&self, count: u64) -> Result<Bytes, SourceError> {
        let part = ByteRange::new(0, count.min(self.range.len()));
        gathered(self.read(Some(part)).await?).await
    }

    /// All of it, which is known to be short.
    pub async fn all(&self) -> Result<Bytes, SourceError> {
        gathered(self.read(None).await?).await
    }

    /// Its digest, by the algorithm of `like`.
    pub async fn digest(&self, like: &ContentDigest) -> Result<ContentDigest, SourceError> {
        let mut bytes = self.read(None).await?;
        let mut hashing = Hashing::like(like);
        while let Some(part) = bytes.try_next().await? {
            hashing.update(&part);
        }
        Ok(hashing.finish())
    }
}

async fn gathered(mut bytes: ByteStream) -> Result<Bytes, SourceError> {
    let mut all = BytesMut::new();
    while let Some(part) = bytes.try_next().await? {
        all.extend_from_slice(&part);
    }
    Ok(all.freeze())
}

impl Archive {
    /// Looks through the headers of a tar, of the version that `stat` tells.
    pub async fn scan(
        source: Arc<FileSource>,
        target: &Target,
        (stat, changed): (&Stat, Timestamp),
        attempt: &Attempt,
    ) -> Result<Self, SourceError> {
        let length = stat.length.unwrap_or_default();
        let (pin, range) = (stat.validator.clone(), ByteRange::new(0, length));
        let file = Window { source, target: target.clone(), pin, changed, range };
        let damaged = |error: TarError| SourceError::Damaged {
            attempt: attempt.clone(),
            reason: format!("it is no archive of images: {error}"),
        };
        let mut scan = TarScan::new(length);
        let mut ahead = Ahead { file: &file, start: 0, bytes: Bytes::new() };
        let mut headers = 0;
        while let Some(wanted) = scan.wanted() {
            headers += 1;
            if headers > MAX_HEADERS {
                let (what, limit) = ("headers in an archive of images", MAX_HEADERS as u64);
                return Err(SourceError::TooLarge { attempt: attempt.clone(), what, limit });
            }
            let bytes = ahead.read(wanted, length).await?;
            scan.feed(&bytes).map_err(damaged)?;
        }
        let tree = scan.finish().map_err(damaged)?.tree;
        let Window { source, pin: version, .. } = file;
        Ok(Self { source, version, changed, members: Arc::new(members(&tree)) })
    }

    /// Whether a file lies at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    fn open(&self, path: &str, target: &Target) -> Option<Window> {
        let range = self.find(path)?;
        let (source, pin) = (Arc::clone(&self.source), self.version.clone());
        Some(Window { source, target: target.clone(), pin, changed: self.changed, range })
    }

    /// Follows links, which lead nowhere but to other members.
    fn find(&self, path: &str) -> Option<ByteRange> {
        let mut path = normal("", path)?;
        for _ in 0..MAX_LINKS {
            match self.members.get(&path)? {
                Member::File(range) => return Some(*range),
                Member::Link(to) => {
                    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
                    path = normal(dir, to)?;
                }
            }
        }
        None
    }
}

/// A path as members have it; `None` where it leads out of the archive.
fn normal(dir: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = match path.starts_with('/') {
        true => Vec::new(),
        false => dir.split('/').filter(|part| !part.is_empty()).collect(),
    };
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Files and links of a tree; what has holes or a name that is no text is no member.
fn members(tree: &TreeBuilder) -> BTreeMap<String, Member> {
    let mut found = BTreeMap::new();
    let mut left = vec![(String::new(), TreeBuilder::ROOT)];
    while let Some((path, id)) = left.pop() {
        let node = tree.node(id);
        let member = match &node.content {
            Content::File(file) => {
                Some(Member::File(ByteRange::at(file.location.offset, file.length)))
            }
            Content::Symlink(to) => String::from_utf8(to.clone()).ok().map(Member::Link),
            _ => None,
        };
        for (name, &child) in node.children() {
            let Ok(name) = std::str::from_utf8(name) else { continue };
            let below = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            left.push((below, child));
        }
        if let Some(member) = member {
            found.insert(path, member);
        }
    }
    found
}

/// Reads a file in order, a little ahead: headers lie close to one another.
struct Ahead<'a> {
    file: &'a Window,
    start: u64,
    bytes: Bytes,
}

impl Ahead<'_> {
    async fn read(&mut self, wanted: ByteRange, length: u64) -> Result<Bytes, SourceError> {
        let is_there = |start: u64, bytes: &Bytes| {
            wanted.start >= start && wanted.end <= start + bytes.len() as u64
        };
        if !is_there(self.start, &self.bytes) {
            let end = wanted.end.max(wanted.start + AHEAD).min(length);
            let part = ByteRange::new(wanted.start, end.max(wanted.start));
            (self.start, self.bytes) =
                (part.start, gathered(self.file.read(Some(part)).await?).await?);
        }
        let from = (wanted.start - self.start) as usize;
        let to = (from + wanted.len() as usize).min(self.bytes.len());
        Ok(self.bytes.slice(from..to))
    }
}
