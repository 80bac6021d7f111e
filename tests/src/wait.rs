//! Waiting for a condition, never for a time: the deadline only ends a wait that is in vain.

use std::thread;
use std::time::{Duration, Instant};

use crate::Failure;

/// Long enough for anything that works, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

const LOOK_EVERY: Duration = Duration::from_millis(3);

/// Looks until `look` finds something; fails after `limit`, saying what was waited for.
pub fn find<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, Failure> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(format!("waited {limit:?} in vain until {what}")));
        }
        thread::park_timeout(LOOK_EVERY);
    }
}

/// Waits until `condition` holds, for at most [`PATIENCE`].
pub fn until(what: &str, mut condition: impl FnMut() -> bool) -> Result<(), Failure> {
    find(what, PATIENCE, || condition().then_some(()))
}
