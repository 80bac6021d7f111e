//! Flights to the origin: runs of groups, or one stream of everything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use dfs_artifact::Origin;
use dfs_artifact::origin::Part;
use dfs_model::{GROUP_BYTES, GroupRange, Priority};
use futures::StreamExt;
use tokio::time::Instant;

use super::super::chunk::Chunk;
use super::super::error::ReadError;
use super::super::keep::{self, Arrival, Outcome};
use super::super::ledger::CameFrom;
use super::super::task::Wanted;
use super::{Context, FlightEvent};
use crate::conductor::FlightId;
use crate::hashtree::Shape;
use crate::store::{StoreError, Use};

/// Bytes that came so long ago are kept although their chunk is not whole: whoever waits for them has waited enough.
const EARLY_AFTER: Duration = Duration::from_millis(50);

/// A read of it, and how urgent that is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) flight: FlightId,
    pub(super) priority: Priority,
}

impl Context {
    /// Reads groups from the origin, or all in one stream.
    pub(super) async fn fetch(
        &self,
        reading: Reading,
        groups: Option<GroupRange>,
    ) -> Result<(), ReadError> {
        let origin = self.shared.origin.lock().clone();
        let origin = origin.ok_or_else(|| ReadError::Swarm("the origin is unknown here".into()))?;
        let _used = self.shared.stored.in_use(Use::Fetch)?;
        let _slot = self.shared.source_slot(origin.as_ref(), reading.priority).await;
        match groups {
            Some(groups) => self.fetch_run(reading, origin.as_ref(), groups).await,
            None => self.fetch_all(reading, origin.as_ref()).await,
        }
    }

    async fn fetch_run(
        &self,
        reading: Reading,
        origin: &dyn Origin,
        groups: GroupRange,
    ) -> Result<(), ReadError> {
        let shape = self.shared.shape();
        let length = shape.length().unwrap_or(u64::MAX);
        let range = groups.bytes(length);
        let mut parts = origin.read_parts(range).await?;
        let mut chunk = Chunk::starting(range.start);
        let mut kept = Instant::now();
        loop {
            match tokio::time::timeout_at(kept + EARLY_AFTER, parts.next()).await {
                Ok(None) => break,
                Err(_) => {}
                Ok(Some(part)) => {
                    if self.take_part(reading, shape, &mut chunk, part?).await? {
                        kept = Instant::now();
                    }
                }
            }
            if kept.elapsed() >= EARLY_AFTER {
                kept = Instant::now();
                if let Some((first, whole)) = chunk.early(0) {
                    self.keep_own(reading, shape, first, &whole).await?;
                }
            }
        }
        if let Some((first, rest)) = chunk.rest() {
            self.keep_own(reading, shape, first, &rest).await?;
        }
        Ok(())
    }

    /// The next of what a run is read in; whether any of it was kept.
    async fn take_part(
        &self,
        reading: Reading,
        shape: Shape,
        chunk: &mut Chunk,
        part: Part,
    ) -> Result<bool, ReadError> {
        let mut is_kept = false;
        match part {
            Part::Bytes(mut bytes) => {
                while let Some((first, whole)) = chunk.take(&mut bytes) {
                    self.keep_own(reading, shape, first, &whole).await?;
                    chunk.reuse(whole);
                    is_kept = true;
                }
            }
            Part::Void { length, error } => {
                let (before, groups) = chunk.skip(length);
                if let Some((first, whole)) = before {
                    self.keep_own(reading, shape, first, &whole).await?;
                }
                let error = error.into();
                self.report(FlightEvent::Void { flight: reading.flight, groups, error }).await;
            }
        }
        Ok(is_kept)
    }

    /// One stream from the beginning to the end; the end tells the length when nothing did before.
    async fn fetch_all(&self, reading: Reading, origin: &dyn Origin) -> Result<(), ReadError> {
        let mut stream = origin.read(None).await?;
        let _streaming = self.shared.passing.begin_stream();
        let mut chunk = Chunk::starting(0);
        let mut total = 0;
        let mut kept = Instant::now();
        // The last bytes are published only when it is known whether they are the last.
        let mut held_back: Option<(u64, Bytes)> = None;
        loop {
            let mut ready = Vec::new();
            match tokio::time::timeout_at(kept + EARLY_AFTER, stream.next()).await {
                Ok(None) => break,
                Err(_) => {}
                Ok(Some(bytes)) => {
                    let mut bytes = bytes?;
                    total += bytes.len() as u64;
                    while let Some(whole) = chunk.take(&mut bytes) {
                        ready.extend(held_back.replace(whole));
                    }
                }
            }
            if kept.elapsed() >= EARLY_AFTER {
                kept = Instant::now();
                if !chunk.is_empty() {
                    ready.extend(held_back.take());
                    ready.extend(chunk.early(1));
                }
            }
            for (first, bytes) in ready {
                if !self.is_of_use(first).await {
                    return Ok(());
                }
                self.keep_own(reading, self.shared.shape(), first, &bytes).await?;
                chunk.reuse(bytes);
                kept = Instant::now();
            }
        }
        if let Some(known) = self.shared.shape().length()
            && known != total
        {
            let why = format!("it sent {total} bytes where {known} were announced");
            return Err(ReadError::OriginChanged(why));
        }
        match self.shared.stored.set_length(total) {
            Err(StoreError::Length { .. }) => {
                let why = format!("it sent {total} bytes, and another time more");
                return Err(ReadError::OriginChanged(why));
            }
            set => set?,
        }
        self.learn_length(Some(total)).await;
        // Of nothing there is a signature too: without one nobody else knows where it ends.
        let nothing = (total == 0).then(|| (0, Bytes::new()));
        for (first, bytes) in held_back.into_iter().chain(chunk.rest()).chain(nothing) {
            if total > 0 && !self.is_of_use(first).await {
                return Ok(());
            }
            self.keep_own(reading, Shape::known(total), first, &bytes).await?;
        }
        Ok(())
    }

    /// Whether a stream is worth going on with at group `first`. It waits for its reader, who may be slow, or have
    /// gone: the actor gives it up then. It is given up for one who wants what it is past.
    async fn is_of_use(&self, first: u64) -> bool {
        if !self.is_wanted_from(first).await {
            return false;
        }
        let lacks_room = self.shared.room.is_lacking(Instant::now());
        !lacks_room || self.shared.passing.is_awaited_from(first, &self.shared.stored).await
    }

    /// Whether something is wanted from group `first` on, once the actor has heard of all that was reported before.
    async fn is_wanted_from(&self, first: u64) -> bool {
        let reported = self.shared.reported.load(Ordering::Relaxed);
        let mut wanted = self.shared.wanted.subscribe();
        loop {
            let Wanted { events, span } = *wanted.borrow_and_update();
            match span {
                Some((_, end)) if end > first => return true,
                Some(_) if events >= reported => return false,
                Some(_) | None => {}
            }
            if wanted.changed().await.is_err() {
                return false;
            }
        }
    }

    async fn keep_own(
        &self,
        reading: Reading,
        shape: Shape,
        first: u64,
        bytes: &Bytes,
    ) -> Result<(), ReadError> {
        let task = self.shared.info.id;
        let work = || {
            let (shared, bytes) = (Arc::clone(&self.shared), bytes.clone());
            let signer = self.engine.signer_of(&self.shared);
            move || keep::own(&shared, signer.as_deref(), CameFrom::Source, shape, (first, &bytes))
        };
        let groups = GroupRange::new(first, (bytes.len() as u64).div_ceil(GROUP_BYTES));
        let turn = self.shared.turns.turn(reading.priority, task, groups).await;
        let mut kept = self.blocking(work()).await;
        if matches!(kept, Ok(Outcome::NoRoom(..))) && self.engine.made_room().await {
            kept = self.blocking(work()).await;
        }
        drop(turn);
        match kept.map_err(|error| error.into_read(task))? {
            Outcome::Kept(Arrival { groups, signed, .. }) => {
                if let (Some(swarm), Some(signed)) = (&self.engine.swarm, signed) {
                    swarm.signed(task, signed.encode().into());
                }
                let (from, cost) = (CameFrom::Source, Duration::ZERO);
                self.report(FlightEvent::Kept { flight: reading.flight, groups, from, cost }).await;
            }
            Outcome::NoRoom(proven, error) => {
                self.pass(reading.flight, proven, CameFrom::Source, error).await;
            }
        }
        if self.stop.is_cancelled() { Err(ReadError::Closing(task)) } else { Ok(()) }
    }
}
