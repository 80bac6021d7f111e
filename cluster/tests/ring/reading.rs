//! People who read on nodes, and look at every byte.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_artifact::View;
use dfs_model::{ByteRange, Priority};
use dfs_peer::host::Host;
use dfs_peer::opener::{Freshness, Purpose};
use dfs_peer::store::Use;
use dfs_source::Target;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::origin;

/// Bytes read at a time.
const STEP: u64 = 256 << 10;

/// How somebody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As `get` does: all of it, in whatever order.
    Whole,
    /// From the beginning to the end.
    Forward,
    /// As `Forward`, but goes away after so long, and begins anew with more patience.
    Impatient(Duration),
    /// Here and there, all of it in the end; the number says in which order.
    Scattered(u64),
}

/// How far somebody is.
#[derive(Debug, Default, Clone)]
pub struct Progress {
    /// Bytes seen.
    pub bytes: u64,
    /// Whether everything was seen.
    pub is_done: bool,
    /// Errors that were told; after each it is tried again.
    pub errors: Vec<String>,
    /// What was seen and is not so.
    pub wrong: Option<String>,
}

/// How long the most impatient waits in the end.
const MOST_PATIENCE: Duration = Duration::from_secs(30);

/// How long somebody waits before trying again what failed.
const AGAIN: Duration = Duration::from_secs(1);

/// What came of reading.
enum Read {
    /// All was seen.
    All,
    /// Whoever read has gone.
    Left,
}

/// Reads a content until all of it was seen.
pub async fn read(
    host: Host,
    number: usize,
    expected: Bytes,
    manner: Manner,
    progress: Arc<Mutex<Progress>>,
) {
    let mut tries = 0;
    loop {
        tries = (tries + 1).min(10);
        let reading = once(&host, number, &expected, manner, &progress);
        let read = match manner {
            Manner::Impatient(patience) => {
                tokio::time::timeout(
                    patience.saturating_mul(1 << tries).min(MOST_PATIENCE),
                    reading,
                )
                .await
            }
            _ => Ok(reading.await),
        };
        match read.unwrap_or(Ok(Read::Left)) {
            Ok(Read::All) => break,
            Ok(Read::Left) => {}
            Err(error) => {
                tracing::info!(content = number, error, "a read fails");
                progress.lock().errors.push(error);
            }
        }
        if progress.lock().wrong.is_some() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
    progress.lock().is_done = true;
}

async fn once(
    host: &Host,
    number: usize,
    expected: &Bytes,
    manner: Manner,
    progress: &Mutex<Progress>,
) -> Result<Read, String> {
    let told = |error: &dyn std::error::Error| dfs_peer::error_chain(error);
    let target = Target::parse(&origin::url(number)).map_err(|error| told(&error))?;
    let opened = host.engine.open_url(&target, View::File, Freshness::Usual, Purpose::Read).await;
    let artifact = opened.map_err(|error| told(&error))?;
    let task = artifact.tasks.first().ok_or("no task")?;
    // As our programs do: what is in use is not taken away.
    let Ok(_in_use) = task.in_use(Use::Handle) else { return Ok(Read::Left) };
    let length = task.known_length().await.map_err(|error| told(&error))?;
    if length != expected.len() as u64 {
        progress.lock().wrong = Some(format!("{length} bytes of {}", expected.len()));
        return Err("wrong".to_owned());
    }
    let priority = if manner == Manner::Whole { Priority::Bulk } else { Priority::Demand };
    if manner == Manner::Whole {
        task.prefetch(ByteRange::new(0, length), priority);
    }
    let mut starts: Vec<u64> = (0..length).step_by(STEP as usize).collect();
    if let Manner::Scattered(order) = manner {
        starts.shuffle(&mut StdRng::seed_from_u64(order));
    }
    for start in starts {
        let range = ByteRange::new(start, (start + STEP).min(length));
        let bytes = task.read(range, priority).await.map_err(|error| told(&error))?;
        let right = expected.slice(range.start as usize..range.end as usize);
        if bytes != right {
            progress.lock().wrong = Some(format!("bytes {range} of content {number}"));
            return Err("wrong".to_owned());
        }
        progress.lock().bytes += bytes.len() as u64;
    }
    Ok(Read::All)
}
