//! Steps of a plan in a bucket: an object appears whole or not at all, as the store does it.

use std::sync::Arc;

use dfs_source::{
    Action as Attempted, Attempt, ByteStream, Content, Existing, SourceError, Target, WriteOptions,
};
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::Run;
use super::destination::Destination;
use super::item::Item;
use super::origin::of_source_error;
use crate::backend::{Delivery, Failure, Ledger, ReadEvent, ReadStream};
use crate::codes;
use crate::commands::inside::interrupted;
use crate::error::CliError;
use crate::output::printable_name;
use crate::output::progress::TICK;

/// Memory that all objects under way may take, in MiB, and one at most: its parts that are being sent.
pub const ROOM_MIB: usize = 192;
const MOST_MIB: u64 = 48;

/// What a transfer tells while the store takes it.
#[derive(Default)]
struct Feed {
    moved: u64,
    ledger: Ledger,
    waiting_for: Option<String>,
    failure: Option<Failure>,
}

impl Run<'_> {
    /// Puts a file into the bucket.
    pub async fn put(&self, number: u64, item: &Item, room: &Semaphore) -> Result<(), CliError> {
        let Destination::Bucket { source, .. } = &self.destination else { return Ok(()) };
        if std::str::from_utf8(&item.entry.path).is_err() {
            let what = format!("cannot write {}", printable_name(&item.entry.path));
            return Err(CliError::new(&codes::UNSAFE_NAME, what)
                .because("its name is not UTF-8, and a bucket holds no other"));
        }
        let object = self.destination.member(&item.entry.path, false)?;
        let wanted = (item.entry.length >> 20).saturating_add(1).min(MOST_MIB);
        let held = room.acquire_many(u32::try_from(wanted).unwrap_or(1)).await;
        let _held = held.map_err(|_| interrupted())?;
        let feed = Arc::new(Mutex::new(Feed::default()));
        let stream = self.origin.read(item, 0, Delivery::Stream);
        let bytes = fed(stream, Arc::clone(&feed), &object);
        let content = Content { bytes, length: Some(item.entry.length) };
        let options =
            WriteOptions { existing: Existing::Replace, root: None, modified: item.time() };
        let mut writing = std::pin::pin!(source.write(&object, content, &options));
        let mut ticks = tokio::time::interval(TICK);
        let written = loop {
            tokio::select! {
                biased;
                () = self.context.interrupted.cancelled() => return Err(interrupted()),
                written = &mut writing => break written,
                _ = ticks.tick() => self.show(number, &feed),
            }
        };
        self.show(number, &feed);
        self.progress.borrow_mut().settle(number, &feed.lock().ledger);
        let failure = feed.lock().failure.take();
        match (written, failure) {
            (_, Some(failure)) => {
                Err(CliError::backend("sync", &self.name_in_source(item), failure))
            }
            (Err(error), None) => {
                Err(CliError::backend("write", &object.url.to_string(), of_source_error(&error)))
            }
            (Ok(validator), None) => {
                self.destination.note(item, &validator.etag.unwrap_or_default());
                Ok(())
            }
        }
    }

    fn show(&self, number: u64, feed: &Mutex<Feed>) {
        let mut feed = feed.lock();
        let mut progress = self.progress.borrow_mut();
        let moved = std::mem::take(&mut feed.moved);
        if moved > 0 {
            progress.moved(moved);
        }
        progress.heard(number, feed.ledger.clone(), feed.waiting_for.clone());
        progress.tick();
    }

    /// Takes an object away that the source does not have.
    pub async fn take_away(&self, item: &Item) -> Result<(), CliError> {
        let Destination::Bucket { source, .. } = &self.destination else { return Ok(()) };
        if self.context.interrupted.is_cancelled() {
            return Err(interrupted());
        }
        let object = self.destination.member(&item.entry.path, item.is_directory())?;
        let deleted = source.delete(&object, &WriteOptions::default()).await;
        deleted.map_err(|error| {
            CliError::backend("delete", &object.url.to_string(), of_source_error(&error))
        })
    }
}

/// What a backend reads, as the bytes that a store takes.
fn fed(stream: ReadStream, feed: Arc<Mutex<Feed>>, object: &Target) -> ByteStream {
    let attempt = Attempt::new(Attempted::Write, &object.url);
    let next = move |(mut stream, feed): (ReadStream, Arc<Mutex<Feed>>)| {
        let attempt = attempt.clone();
        async move {
            loop {
                let broken = |failure: Failure, feed: Arc<Mutex<Feed>>, stream| {
                    let reason = failure.message.clone();
                    feed.lock().failure = Some(failure);
                    let error = SourceError::Malformed { attempt: attempt.clone(), reason };
                    Some((Err(error), (stream, feed)))
                };
                match stream.next().await? {
                    Ok(ReadEvent::Data(data)) => {
                        feed.lock().moved += data.len() as u64;
                        return Some((Ok(data), (stream, feed)));
                    }
                    Ok(ReadEvent::Progress { ledger, waiting_for }) => {
                        let mut feed = feed.lock();
                        (feed.ledger, feed.waiting_for) = (ledger, waiting_for);
                    }
                    Ok(ReadEvent::End { ledger, .. }) => {
                        feed.lock().ledger = ledger;
                        return None;
                    }
                    Ok(ReadEvent::Start { .. } | ReadEvent::Written { .. }) => {}
                    Err(failure) => return broken(failure, feed, stream),
                }
            }
        }
    };
    // Asked once more at its end by who fills parts.
    stream::unfold((stream, feed), next).fuse().boxed()
}
