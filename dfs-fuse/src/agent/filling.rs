//! Fetches places of an artifact that nobody waits for: in their order, a few requests at a time and never more under way
//! than comes in a moment. Whoever reads is served first, by the priority of what is fetched here and because little of it
//! is ever in the way.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dfs_model::{ByteRange, Priority};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::content::SpaceContent;
use crate::content::{Content, ContentErrorClass};
use crate::trace::Place;

/// Groups asked for at a time: 1 MiB.
const STEP: u64 = 16;

/// Requests under way at a time: as many as a task makes to its origin, of more it would take the first in the content
/// first.
const AT_A_TIME: usize = 4;

/// Bytes under way at first and at least, and at most.
const LEAST: u64 = 1 << 20;
const MOST: u64 = 16 << 20;

/// What takes less than the first leaves room for more under way; what takes longer than the second is in others' way.
const SOON: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_millis(400);

/// How often it tries where something cannot be had now, and how long it waits at first.
const TRIES: u32 = 3;
const RETRY: Duration = Duration::from_secs(1);

/// Failures in a row after which all the rest is left for later.
const IN_A_ROW: usize = 8;

/// When it is worth looking again for room in the cache.
pub(super) const ROOM: Duration = Duration::from_secs(5);

/// What is waited for meanwhile.
pub(super) const NO_ROOM: &str = "room in the cache";

/// For whom it is fetched.
#[async_trait]
pub(super) trait Filling: Sync {
    /// What is filled; `None` once nobody wants it any more.
    fn content(&self) -> Option<Arc<SpaceContent>>;
    /// How urgent it is.
    fn priority(&self) -> Priority;
    /// Whether there still is a use in it.
    fn goes_on(&self) -> bool {
        true
    }
    /// This place is asked for.
    fn asks(&self, _place: Place) {}
    /// It could not be had.
    fn gives_up(&self, _place: Place) {}
    /// Something else may go from the cache for it, if its user has it so.
    async fn makes_room(&self) {}
    /// How it goes.
    fn says(&self, news: News);
}

/// How it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// Something is fetched.
    Fetching,
    /// It cannot be had now.
    Waiting(String),
}

/// How a list of places ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With its last place.
    Through,
    /// There was no room for what is left.
    Full,
    /// There was no use in it any more.
    Stopped,
    /// Nobody wants it any more.
    Gone,
}

/// What came of a list of places.
#[derive(Debug)]
pub(super) struct Filled {
    /// How it ended.
    pub ended: Ended,
    /// What could not be had now, and what was left then.
    pub later: Vec<Place>,
    /// Why something cannot be had any more, where that is so.
    pub lost: Option<String>,
}

/// What became of a place.
enum Fetched {
    /// It came.
    Here { bytes: u64, took: Duration },
    /// It cannot be had now.
    Later,
    /// It could not be kept.
    NoRoom,
    /// It cannot be had.
    Never(String),
    /// Nobody wants it.
    Gone,
}

/// Fetches what is missing of `places`, in their order.
pub(super) async fn fill(filling: &dyn Filling, places: Vec<Place>) -> Filled {
    let steps = places.into_iter().flat_map(|Place { space, groups }| {
        groups.cut(STEP).map(move |groups| Place::new(space, groups))
    });
    let mut steps = steps.fuse();
    let (mut flights, mut window) = (FuturesUnordered::new(), Window::default());
    let mut filled = Filled { ended: Ended::Through, later: Vec::new(), lost: None };
    let mut failures = 0;
    loop {
        while filled.ended == Ended::Through
            && failures < IN_A_ROW
            && flights.len() < AT_A_TIME
            && window.has_room()
            && let Some(place) = steps.next()
        {
            if !filling.goes_on() {
                filled.ended = Ended::Stopped;
            } else if let Some(bytes) = missing(filling, place) {
                filling.asks(place);
                window.under_way += bytes;
                flights.push(fetch_place(filling, place, bytes));
            }
        }
        let Some((place, bytes, fetched)) = flights.next().await else {
            drop(flights);
            filled.later.extend(steps);
            return filled;
        };
        window.under_way -= bytes;
        match fetched {
            Fetched::Here { bytes, took } => {
                window.arrived(bytes, took);
                failures = 0;
            }
            Fetched::Later => {
                filling.gives_up(place);
                filled.later.push(place);
                failures += 1;
            }
            Fetched::NoRoom => {
                filling.gives_up(place);
                filled.later.push(place);
                if filled.ended == Ended::Through {
                    filled.ended = Ended::Full;
                }
            }
            Fetched::Never(why) => {
                filling.gives_up(place);
                filled.lost.get_or_insert(why);
            }
            Fetched::Gone => filled.ended = Ended::Gone,
        }
    }
}

/// How many bytes a place has, if some of them are missing.
fn missing(filling: &dyn Filling, place: Place) -> Option<u64> {
    let content = filling.content()?;
    let range = place.groups.bytes(content.length(place.space).unwrap_or(u64::MAX));
    (!content.present(place.space, range)).then(|| range.len())
}

/// What is filled, where what is missing of a place could be kept.
async fn with_room(
    filling: &dyn Filling,
    space: u16,
    range: ByteRange,
) -> Result<Arc<SpaceContent>, Fetched> {
    let content = filling.content().ok_or(Fetched::Gone)?;
    if content.has_room(space, range) {
        return Ok(content);
    }
    drop(content);
    filling.makes_room().await;
    let content = filling.content().ok_or(Fetched::Gone)?;
    if content.has_room(space, range) { Ok(content) } else { Err(Fetched::NoRoom) }
}

/// Tries until it is here, or there is no use in it now.
async fn fetch_place(filling: &dyn Filling, place: Place, bytes: u64) -> (Place, u64, Fetched) {
    let range = place.groups.bytes(u64::MAX);
    let (mut retry, mut tries) = (RETRY, 0);
    loop {
        let content = match with_room(filling, place.space, range).await {
            Ok(content) => content,
            Err(fetched) => return (place, bytes, fetched),
        };
        let fetching = content.fetch(place.space, range, filling.priority());
        let since = Instant::now();
        // Who wants it decides how long it is in use.
        drop(content);
        filling.says(News::Fetching);
        let error = match fetching.await {
            Ok(()) => return (place, bytes, Fetched::Here { bytes, took: since.elapsed() }),
            Err(error) => error,
        };
        match error.class {
            ContentErrorClass::Io | ContentErrorClass::Timeout => {
                filling.says(News::Waiting(error.reason));
                tries += 1;
                if tries == TRIES {
                    return (place, bytes, Fetched::Later);
                }
                tokio::time::sleep(retry).await;
                retry *= 2;
            }
            // Whoever reads it is told.
            ContentErrorClass::Integrity
            | ContentErrorClass::OriginChanged
            | ContentErrorClass::NotPermitted => {
                return (place, bytes, Fetched::Never(error.to_string()));
            }
        }
    }
}

/// How much may be under way: as much as comes soon.
#[derive(Debug)]
struct Window {
    most: u64,
    under_way: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { most: LEAST, under_way: 0 }
    }
}

impl Window {
    fn has_room(&self) -> bool {
        self.under_way < self.most
    }

    /// So much came, and took so long.
    fn arrived(&mut self, bytes: u64, took: Duration) {
        if took < SOON {
            self.most = (self.most + bytes).min(MOST);
        } else if took > LATE {
            self.most = (self.most / 2).max(LEAST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_soon_makes_room_for_more_and_what_is_late_for_less() {
        let mut window = Window::default();
        for _ in 0..100 {
            window.arrived(LEAST, SOON / 2);
        }
        assert_eq!(window.most, MOST);
        window.arrived(LEAST, (SOON + LATE) / 2);
        assert_eq!(window.most, MOST);
        for _ in 0..100 {
            window.arrived(LEAST, LATE * 2);
        }
        assert_eq!(window.most, LEAST);
        window.under_way = LEAST;
        assert!(!window.has_room());
    }
}
