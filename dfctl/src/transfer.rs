//! From a backend's events into a sink: paced, shown, stopped by Ctrl-C.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dfs_model::{ByteRange, Rate, TaskId};
use dfs_peer::hashtree::Cv;
use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::{Failure, FailureClass, Ledger, ReadEvent, ReadStream};
use crate::error::CliError;
use crate::output::progress::{Progress, TICK};

/// Where bytes go.
pub trait Sink {
    /// The next bytes.
    fn data(&mut self, bytes: &[u8]) -> Result<(), CliError>;
    /// The backend has put the next bytes, this range of the content, into the file it was handed; see
    /// [`ReadEvent::Written`].
    fn written(&mut self, range: ByteRange, digests: &[Cv]) -> Result<(), CliError>;
    /// Becomes the file in which the backend gathers the content, where that is possible; whether it did.
    fn take_over(&mut self, _content: &Path) -> Result<bool, CliError> {
        Ok(false)
    }
}

/// What must hold of a transfer, and who may end it.
pub struct Terms<'a> {
    /// Which file of several it is, for the progress.
    pub file: u64,
    /// The task that the bytes must be of.
    pub task: Option<TaskId>,
    /// Bytes that must come, where known.
    pub expected: Option<u64>,
    /// Most bytes in a second.
    pub limit: Option<Rate>,
    /// Ctrl-C.
    pub interrupted: &'a CancellationToken,
}

/// A transfer that went to its end.
#[derive(Debug, Clone)]
pub struct Received {
    /// Bytes that came.
    pub bytes: u64,
    /// From where.
    pub ledger: Ledger,
    /// BLAKE3 of the whole content, where the backend knows it.
    pub blake3: Option<[u8; 32]>,
    /// From asking to the first byte.
    pub first_byte: Duration,
    /// Time spent standing still.
    pub stood: Duration,
}

/// A transfer that did not.
#[derive(Debug)]
pub enum TransferError {
    /// The backend failed.
    Backend(Failure),
    /// The sink failed.
    Sink(CliError),
    /// Ctrl-C.
    Interrupted,
}

/// Runs a transfer to its end. On any failure the sink holds what came until then.
pub async fn pump(
    mut stream: ReadStream,
    sink: &mut dyn Sink,
    terms: &Terms<'_>,
    progress: &RefCell<Progress<'_>>,
) -> Result<Received, TransferError> {
    let begun = Instant::now();
    let mut first_byte = None;
    let mut bytes = 0;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        let event = tokio::select! {
            biased;
            () = terms.interrupted.cancelled() => return Err(TransferError::Interrupted),
            event = stream.next() => event,
            _ = ticks.tick() => {
                progress.borrow_mut().tick();
                continue;
            }
        };
        let event = event.ok_or_else(ended_early)?.map_err(TransferError::Backend)?;
        let came = match event {
            ReadEvent::Start { task, offer, .. } => {
                check_task(terms.task, task)?;
                if let Some(offer) = offer {
                    let taken = sink.take_over(&offer.path).map_err(TransferError::Sink)?;
                    offer.taken.store(taken, Ordering::Relaxed);
                }
                0
            }
            ReadEvent::Data(data) => {
                sink.data(&data).map_err(TransferError::Sink)?;
                data.len() as u64
            }
            ReadEvent::Written { range, digests } => {
                sink.written(range, &digests).map_err(TransferError::Sink)?;
                range.len()
            }
            ReadEvent::Progress { ledger, waiting_for } => {
                progress.borrow_mut().heard(terms.file, ledger, waiting_for);
                0
            }
            ReadEvent::End { ledger, blake3, .. } => {
                if terms.expected.is_some_and(|expected| expected != bytes) {
                    return Err(ended_early());
                }
                progress.borrow_mut().settle(terms.file, &ledger);
                let first_byte = first_byte.unwrap_or_else(|| begun.elapsed());
                let stood = progress.borrow().meter().stood();
                return Ok(Received { bytes, ledger, blake3, first_byte, stood });
            }
        };
        if came > 0 {
            bytes += came;
            first_byte.get_or_insert_with(|| begun.elapsed());
            progress.borrow_mut().moved(came);
            pace(begun, bytes, terms).await?;
        }
    }
}

/// Waits until `bytes` are allowed at the limit; the backend is held back by not being read from.
async fn pace(begun: Instant, bytes: u64, terms: &Terms<'_>) -> Result<(), TransferError> {
    let Some(Rate(rate)) = terms.limit.filter(|rate| rate.0 > 0) else { return Ok(()) };
    let due = begun + Duration::from_secs_f64(bytes as f64 / rate as f64);
    tokio::select! {
        () = terms.interrupted.cancelled() => Err(TransferError::Interrupted),
        () = tokio::time::sleep_until(due) => Ok(()),
    }
}

fn check_task(expected: Option<TaskId>, got: Option<TaskId>) -> Result<(), TransferError> {
    match (expected, got) {
        (Some(expected), Some(got)) if expected != got => Err(TransferError::Backend(
            Failure::new(FailureClass::OriginChanged, "the origin changed").because(format!(
                "it was version {} a moment ago and is {} now",
                expected.short(),
                got.short()
            )),
        )),
        _ => Ok(()),
    }
}

fn ended_early() -> TransferError {
    TransferError::Backend(Failure::new(
        FailureClass::AgentProtocol,
        "the transfer ended before its last byte",
    ))
}
