//! Bytes that never cross the socket: the agent names its content file, and ranges of it are copied into the
//! output here as they arrive: by reflink or inside the kernel where the file systems can.
//!
//! The output never shares an inode with a cache that is kept. The agent inside this process keeps nothing: an
//! output may become its content file, and then nothing is copied at all. The file the agent names is read only if it is a regular
//! file of the same owner as the agent's socket, so that no agent can point us at a file of somebody else.
//! Where it cannot be opened, the bytes are asked for through the socket.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dfs_model::ByteRange;
use dfs_proto::node;
use dfs_proto::node::node_client::NodeClient;
use futures::stream::{self, StreamExt};
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use tonic::Streaming;
use tonic::transport::Channel;

use super::{missing, read_event, status};
use crate::backend::{Failure, FailureClass, Offer, ReadEvent, ReadStream};

const CHUNK: usize = 1 << 20;

/// Most ranges that are taken before their turn and remembered.
const MOST_EARLY: usize = 1 << 16;

/// The output, and what of it is wanted.
pub(super) struct Output {
    /// Where to.
    pub file: Arc<File>,
    /// Content offset of the file's first byte.
    pub origin: u64,
    /// Owner of the agent's socket.
    pub owner: u32,
    /// Whether the agent keeps what it fetched; one inside this process does not.
    pub keeps: bool,
}

struct Copying {
    client: NodeClient<Channel>,
    request: node::ReadRequest,
    output: Output,
    stage: Stage,
}

enum Stage {
    Asking,
    Receiving(Receiving),
    Over,
}

/// What is being told of the content, and where it goes.
struct Receiving {
    chunks: Box<Streaming<node::ReadChunk>>,
    content: Option<Content>,
    output: Arc<File>,
    /// Content offset of the output's first byte.
    origin: u64,
    /// What may be told.
    wanted: ByteRange,
    /// Whether the output is the content file itself.
    taken: Arc<AtomicBool>,
    early: Early,
}

/// What was copied before its turn: where it ends, by where it begins.
#[derive(Debug, Default)]
struct Early(BTreeMap<u64, u64>);

/// The agent's file that holds the bytes.
#[derive(Clone)]
struct Content {
    file: Arc<File>,
    offset: u64,
}

/// The events of a read whose bytes end up in `output`.
pub(super) fn read(
    client: NodeClient<Channel>,
    request: node::ReadRequest,
    output: Output,
) -> ReadStream {
    let copying = Copying { client, request, output, stage: Stage::Asking };
    stream::unfold(copying, |mut copying| async move {
        let event = copying.next().await?;
        if event.is_err() {
            copying.stage = Stage::Over;
        }
        Some((event, copying))
    })
    .boxed()
}

impl Copying {
    async fn next(&mut self) -> Option<Result<ReadEvent, Failure>> {
        match &mut self.stage {
            Stage::Over => None,
            Stage::Asking => Some(self.begin().await),
            Stage::Receiving(receiving) => receiving.next().await,
        }
    }

    async fn begin(&mut self) -> Result<ReadEvent, Failure> {
        let (mut chunks, mut start) = self.ask(true).await?;
        let opened = open(Path::new(&start.content_path), self.output.owner);
        let content = opened
            .and_then(|file| {
                // As long as it is open so, the agent takes nothing out of it that a quota has no room for. Without an
                // agent there are no quotas, and the output may be this file, with a lock of its own.
                if self.output.keeps {
                    rustix::fs::flock(&file, FlockOperation::LockShared)?;
                }
                Ok(file)
            })
            .ok()
            .map(|file| Content { file: Arc::new(file), offset: start.content_offset });
        if content.is_none() {
            (chunks, start) = self.ask(false).await?;
        }
        let taken = Arc::new(AtomicBool::new(false));
        let is_offered = content.is_some() && self.is_all_of(&start);
        let offer = is_offered
            .then(|| Offer { path: start.content_path.clone().into(), taken: Arc::clone(&taken) });
        let origin = self.output.origin;
        let first = self.request.start.unwrap_or(0).max(origin);
        self.stage = Stage::Receiving(Receiving {
            chunks: Box::new(chunks),
            content,
            output: self.output.file.clone(),
            origin,
            wanted: ByteRange::new(first, self.request.end.unwrap_or(u64::MAX).max(first)),
            taken,
            early: Early::default(),
        });
        let event =
            read_event(node::ReadChunk { kind: Some(node::read_chunk::Kind::Start(start)) });
        event.map(|event| match event {
            ReadEvent::Start { length, task, .. } => ReadEvent::Start { length, task, offer },
            other => other,
        })
    }

    /// Whether the content file is going to hold what is asked for and nothing else, for nobody else.
    fn is_all_of(&self, start: &node::ReadStart) -> bool {
        let wanted = (self.request.start.unwrap_or(0), self.request.end.or(start.length));
        let is_a_task = self.request.path.is_none() && start.content_offset == 0;
        !self.output.keeps && is_a_task && wanted == (self.output.origin, start.length)
    }

    async fn ask(
        &mut self,
        by_path: bool,
    ) -> Result<(Streaming<node::ReadChunk>, node::ReadStart), Failure> {
        let request = node::ReadRequest { by_path, ..self.request.clone() };
        let reply = self.client.read(request).await.map_err(status::failure)?;
        let mut chunks = reply.into_inner();
        let first = chunks.message().await.map_err(status::failure)?;
        match first.and_then(|chunk| chunk.kind) {
            Some(node::read_chunk::Kind::Start(start)) => Ok((chunks, start)),
            _ => Err(missing("chunk.start")),
        }
    }
}

impl Receiving {
    async fn next(&mut self) -> Option<Result<ReadEvent, Failure>> {
        let chunk = self.chunks.next().await?;
        let taken = self.taken.load(Ordering::Relaxed);
        Some(match chunk {
            Ok(chunk) => self.event(chunk, taken).await,
            Err(status) => Err(of_output(status::failure(status), taken)),
        })
    }

    async fn event(&mut self, chunk: node::ReadChunk, taken: bool) -> Result<ReadEvent, Failure> {
        use node::read_chunk::Kind;
        let Some(content) = self.content.clone() else { return read_event(chunk) };
        let mut ranges = Vec::new();
        let event = match &chunk.kind {
            Some(Kind::Progress(progress)) => {
                for span in &progress.early {
                    let range = self.told(span.start, span.end)?;
                    ranges.extend(self.early.takes(range).then_some(range));
                }
                read_event(chunk)?
            }
            Some(Kind::Present(present)) => {
                let range = self.told(present.start, present.end)?;
                ranges = self.early.not_yet(range);
                ReadEvent::Written { range, digests: present.digests.as_chunks().0.to_vec() }
            }
            _ => read_event(chunk)?,
        };
        if !taken && !ranges.is_empty() {
            self.copy(content, ranges).await?;
        }
        Ok(event)
    }

    /// A range that the agent tells, if it may.
    fn told(&self, start: u64, end: u64) -> Result<ByteRange, Failure> {
        let may_be = self.wanted.start <= start && start <= end && end <= self.wanted.end;
        may_be.then(|| ByteRange::new(start, end)).ok_or_else(|| missing("chunk.present"))
    }

    async fn copy(&self, content: Content, ranges: Vec<ByteRange>) -> Result<(), Failure> {
        let (file, origin) = (self.output.clone(), self.origin);
        let copied = tokio::task::spawn_blocking(move || {
            ranges.into_iter().try_for_each(|range| copy(&content, &file, origin, range))
        });
        copied.await.map_err(io::Error::other).and_then(|copied| copied).map_err(|error| {
            let class = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    FailureClass::OutputFull
                }
                _ => FailureClass::Internal,
            };
            Failure::new(class, "the bytes could not be written to the output")
                .because(error.to_string())
        })
    }
}

impl Early {
    /// Takes note of a range, if it is new and there is room.
    fn takes(&mut self, range: ByteRange) -> bool {
        let last = self.0.range(..range.end).next_back();
        let is_new = last.is_none_or(|(_, end)| *end <= range.start);
        let takes = is_new && !range.is_empty() && self.0.len() < MOST_EARLY;
        if takes {
            self.0.insert(range.start, range.end);
        }
        takes
    }

    /// What of a range was not copied before its turn; what was is forgotten up to there.
    fn not_yet(&mut self, range: ByteRange) -> Vec<ByteRange> {
        let (mut rest, mut at) = (Vec::new(), range.start);
        while let Some((start, end)) = self.0.first_key_value().map(|(s, e)| (*s, *e))
            && start < range.end
        {
            self.0.pop_first();
            if start > at {
                rest.push(ByteRange::new(at, start));
            }
            at = at.max(end);
            if end > range.end {
                self.0.insert(range.end, end);
            }
        }
        if at < range.end {
            rest.push(ByteRange::new(at, range.end));
        }
        rest
    }
}

/// A cache that is full is the output's own disk, where the output is the cache's file.
fn of_output(failure: Failure, taken: bool) -> Failure {
    match failure.class {
        FailureClass::NoSpace if taken => Failure { class: FailureClass::OutputFull, ..failure },
        _ => failure,
    }
}

fn open(path: &Path, owner: u32) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let status = file.metadata()?;
    if !path.is_absolute() || !status.is_file() || status.uid() != owner {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(file)
}

fn copy(content: &Content, output: &File, origin: u64, range: ByteRange) -> io::Result<()> {
    let mut from = content
        .offset
        .checked_add(range.start)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut to = range.start - origin;
    let end = range.end - origin;
    while to < end {
        let want = usize::try_from(end - to).unwrap_or(usize::MAX);
        let copied = rustix::fs::copy_file_range(
            &content.file,
            Some(&mut from),
            output,
            Some(&mut to),
            want,
        );
        match copied {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            // Two file systems, or one that cannot.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_through_memory(&content.file, from, output, ByteRange::new(to, end));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_through_memory(
    content: &File,
    mut from: u64,
    output: &File,
    mut to: ByteRange,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    while !to.is_empty() {
        let want = usize::try_from(to.len()).unwrap_or(CHUNK).min(CHUNK);
        content.read_exact_at(&mut buffer[..want], from)?;
        output.write_all_at(&buffer[..want], to.start)?;
        from += want as u64;
        to.start += want as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn both_ways_to_copy_give_the_same_bytes() {
        let place = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let path = place.path().join("content");
        std::fs::write(&path, &bytes).unwrap();
        let own = rustix::process::geteuid().as_raw();
        let content = Content { file: Arc::new(open(&path, own).unwrap()), offset: 100 };
        let range = ByteRange::new(1000, 2_500_000);
        let wanted = &bytes[1100..2_500_100];
        let output = tempfile::tempfile().unwrap();
        copy(&content, &output, 1000, range).unwrap();
        let mut got = vec![0; wanted.len()];
        output.read_exact_at(&mut got, 0).unwrap();
        assert_eq!(got, wanted);
        let output = tempfile::tempfile().unwrap();
        copy_through_memory(&content.file, 1100, &output, ByteRange::new(0, wanted.len() as u64))
            .unwrap();
        output.read_exact_at(&mut got, 0).unwrap();
        assert_eq!(got, wanted);
    }

    #[test]
    fn every_byte_is_copied_once_in_its_turn_or_before() {
        let mut dice = StdRng::seed_from_u64(1);
        for _ in 0..500 {
            let (mut known, mut times, mut at) = (Early::default(), [0; 512], 0);
            for _ in 0..10 {
                for _ in 0..4 {
                    let start = at + dice.random_range(0..64);
                    let early = ByteRange::new(start, start + dice.random_range(0..16));
                    if known.takes(early) {
                        (early.start..early.end).for_each(|byte| times[byte as usize] += 1);
                    }
                }
                let turn = ByteRange::new(at, at + dice.random_range(1..20));
                for rest in known.not_yet(turn) {
                    (rest.start..rest.end).for_each(|byte| times[byte as usize] += 1);
                }
                at = turn.end;
                assert!(times[..at as usize].iter().all(|times| *times == 1), "{times:?}");
            }
        }
    }

    #[test]
    fn an_agent_cannot_point_at_what_is_not_its_own() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("content");
        std::fs::write(&path, "x").unwrap();
        let own = rustix::process::geteuid().as_raw();
        assert!(open(&path, own).is_ok());
        assert!(open(&path, own + 1).is_err());
        assert!(open(place.path(), own).is_err());
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(open(&link, own).is_err());
    }
}
