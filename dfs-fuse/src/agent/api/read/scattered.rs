//! Bytes of a file that lies in several runs: one with holes. They always travel in the answer.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use dfs_artifact::erofs::Extent;
use dfs_model::{ByteRange, Priority};
use dfs_peer::engine::{Ledger, Mark, Task};
use dfs_peer::opener::OpenArtifact;
use dfs_peer::store::{Use, UseGuard};
use dfs_proto::node::read_chunk::Kind as ChunkKind;
use dfs_proto::node::{ReadEnd, ReadStart};
use futures::stream::{self, StreamExt};

use super::{Chunks, MESSAGE, chunk};
use crate::agent::CallError;
use crate::agent::api::views;

/// Zeros of holes, in portions that share their memory.
static ZEROS: [u8; MESSAGE as usize] = [0; MESSAGE as usize];

/// A file being read run by run.
pub(super) struct Scattered {
    pub opened: Arc<OpenArtifact>,
    pub nid: u64,
    /// Bytes of the file.
    pub length: u64,
    /// What is still to be delivered.
    pub rest: ByteRange,
    pub priority: Priority,
}

/// A space that bytes were taken from.
struct Taken {
    task: Task,
    mark: Mark,
    _in_use: UseGuard,
}

struct Reading {
    file: Scattered,
    taken: HashMap<u16, Taken>,
    ledger: Ledger,
    over: bool,
}

impl Scattered {
    /// The answer, from its first chunk to its last.
    pub fn chunks(self) -> Chunks {
        let start = ReadStart { length: Some(self.length), ..ReadStart::default() };
        let (taken, ledger) = (HashMap::new(), Ledger::default());
        let reading = Reading { file: self, taken, ledger, over: false };
        let rest = stream::try_unfold(reading, Reading::next);
        stream::iter([Ok(chunk(ChunkKind::Start(start)))]).chain(rest).boxed()
    }

    /// The run at the beginning of what is left; runs that follow each other are one.
    fn run(&self) -> Result<Option<Extent>, CallError> {
        let index = &self.opened.index.as_ref().ok_or(CallError::NotTree)?.index;
        let next = |at| index.image().extent(self.nid, at);
        let Some(mut run) = next(self.rest.start)? else { return Ok(None) };
        while run.length < MESSAGE
            && let Some(more) = next(self.rest.start + run.length)?
        {
            let follows = more.space.is_none() || more.offset == run.offset + run.length;
            if more.space != run.space || !follows {
                break;
            }
            run.length += more.length;
        }
        let length = run.length.min(MESSAGE).min(self.rest.len());
        Ok(Some(Extent { length, ..run }))
    }
}

impl Reading {
    async fn next(mut self) -> Result<Option<(dfs_proto::node::ReadChunk, Self)>, CallError> {
        if self.over {
            return Ok(None);
        }
        let run = if self.file.rest.is_empty() { None } else { self.file.run()? };
        let Some(run) = run else {
            self.over = true;
            let end = self.end();
            return Ok(Some((end, self)));
        };
        let bytes = match run.space {
            Some(space) => self.fetch(space, ByteRange::at(run.offset, run.length)).await?,
            None => {
                // It was known before anything was asked for.
                self.ledger.cache_bytes += run.length;
                Bytes::from_static(&ZEROS[..run.length as usize])
            }
        };
        let rest = self.file.rest;
        self.file.rest = ByteRange::new(rest.start + run.length, rest.end);
        Ok(Some((chunk(ChunkKind::Data(bytes)), self)))
    }

    async fn fetch(&mut self, space: u16, range: ByteRange) -> Result<Bytes, CallError> {
        let taken = match self.taken.entry(space) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let task = self.file.opened.tasks.get(usize::from(space));
                let task = task.ok_or(CallError::NotTree)?.clone();
                let (mark, _in_use) = (task.mark(), task.in_use(Use::Handle)?);
                place.insert(Taken { task, mark, _in_use })
            }
        };
        let bytes = taken.task.read(range, self.file.priority).await?;
        let mut part = taken.task.ledger_since(&taken.mark, range);
        // Of all runs together, at the end.
        part.source_requests = 0;
        self.ledger += &part;
        Ok(bytes)
    }

    fn end(&self) -> dfs_proto::node::ReadChunk {
        let mut ledger = self.ledger.clone();
        for taken in self.taken.values() {
            ledger += &taken.task.told_since(&taken.mark, ByteRange::new(0, 0));
        }
        let (ledger, length) = (Some(views::ledger(&ledger)), self.file.length);
        chunk(ChunkKind::End(ReadEnd { ledger, length, blake3: None }))
    }
}
