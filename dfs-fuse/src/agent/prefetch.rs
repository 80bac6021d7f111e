//! Fetches for a mount what its readers will want, before they do: what the profile says, and all the rest where that
//! was asked for.
//!
//! In the profile's order, a few requests at a time and never more under way than comes in a moment: whoever reads is
//! served first, by the priority of what is fetched here and because little of it is ever in the way. A profile that
//! readers prove wrong is left. Nothing else is evicted for what nobody has asked for yet. Ends with the mount.

use std::sync::{Arc, Weak};
use std::time::Duration;

use dfs_model::Priority;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::content::SpaceContent;
use super::mounts::Shown;
use super::traces::Watched;
use crate::content::{Content, ContentErrorClass};
use crate::trace::{Place, Tally};

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

/// Failures in a row after which all the rest is left for later, and when that is.
const IN_A_ROW: usize = 8;
const LATER: Duration = Duration::from_secs(60);

/// How often it looks for room in the cache.
const ROOM: Duration = Duration::from_secs(5);

/// What is fetched before anybody reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Nothing.
    Off,
    /// What the profile says, where there is one.
    #[default]
    Trace,
    /// That, and then all the rest.
    All,
}

/// How it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// There is nothing to do.
    Idle,
    /// Something is fetched, or it is found out what.
    Fetching,
    /// It cannot be had now.
    Waiting(String),
    /// All that was to be fetched is here.
    Done,
    /// The profile was wrong.
    Misled,
}

/// What people see of it.
#[derive(Debug, Clone)]
pub struct PrefetchView {
    /// What it is to do.
    pub mode: Mode,
    /// How it goes.
    pub state: State,
    /// Runs that the profile was made of, none without one.
    pub runs: u32,
    /// Bytes that the profile has.
    pub known: u64,
    /// What readers touched, and what of it was fetched for them.
    pub tally: Tally,
}

/// See the module.
pub struct Prefetch {
    mode: Mode,
    watched: Arc<Watched>,
    content: Weak<SpaceContent>,
    progress: Mutex<Progress>,
}

struct Progress {
    state: State,
    runs: u32,
    known: u64,
}

/// What became of a place.
enum Fetched {
    /// It came.
    Here { bytes: u64, took: Duration },
    /// It cannot be had now.
    Later,
    /// It cannot be had.
    Never,
    /// The mount has ended.
    Gone,
}

/// How a list of places ended.
#[derive(PartialEq, Eq)]
enum Outcome {
    Through,
    Misled,
    Gone,
}

impl Prefetch {
    /// For a mount of `content`, whose reads are `watched`.
    pub fn new(mode: Mode, watched: Arc<Watched>, content: &Arc<SpaceContent>) -> Self {
        let progress = Progress { state: State::Idle, runs: 0, known: 0 };
        let content = Arc::downgrade(content);
        let prefetch = Self { mode, watched, content, progress: Mutex::new(progress) };
        prefetch.take_profile();
        prefetch
    }

    /// What is to be seen of it.
    pub fn view(&self) -> PrefetchView {
        let Progress { state, runs, known } = &*self.progress.lock();
        let tally = self.watched.recorder().tally();
        PrefetchView { mode: self.mode, state: state.clone(), runs: *runs, known: *known, tally }
    }

    /// Does it for what is `shown`, and again when another profile is put in place. Does not end by itself.
    pub(super) async fn run(&self, shown: &Arc<Shown>) {
        if self.mode != Mode::Off {
            self.watched.ask().await;
        }
        let mut replaced = self.watched.replaced();
        loop {
            replaced.borrow_and_update();
            let fetching = async {
                if self.mode != Mode::Off {
                    self.fetch_all(shown).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = fetching => {}
                changed = replaced.changed() => if changed.is_err() { return },
            }
            self.take_profile();
        }
    }

    /// What the profile says now, as far as it is in the artifact.
    fn take_profile(&self) -> Vec<Place> {
        let (profile, recorder) = (self.watched.profile(), self.watched.recorder());
        if self.mode != Mode::Off {
            recorder.follow(&profile);
        }
        let places: Vec<_> = profile.places().filter_map(|place| recorder.within(place)).collect();
        let known = places.iter().map(|place| recorder.bytes(*place)).sum();
        let state = if self.mode == Mode::Off { State::Idle } else { State::Fetching };
        *self.progress.lock() = Progress { state, runs: profile.runs(), known };
        places
    }

    async fn fetch_all(&self, shown: &Arc<Shown>) {
        let foreseen = self.take_profile();
        let nothing = foreseen.is_empty();
        let mut outcome = self.fetch_patiently(foreseen, Priority::Prefetch).await;
        if self.mode == Mode::All && outcome != Outcome::Gone {
            let shown = Arc::clone(shown);
            let listing = tokio::task::spawn_blocking(move || shown.places());
            let Ok(all) = listing.await else { return };
            outcome = self.fetch_patiently(all, Priority::Background).await;
        }
        self.say(match outcome {
            Outcome::Misled => State::Misled,
            Outcome::Through if nothing && self.mode == Mode::Trace => State::Idle,
            Outcome::Through | Outcome::Gone => State::Done,
        });
    }

    /// Fetches places in their order, and now and then again what could not be had.
    async fn fetch_patiently(&self, places: Vec<Place>, priority: Priority) -> Outcome {
        let mut left = places;
        loop {
            let (outcome, later) = self.fetch(left, priority).await;
            if later.is_empty() || outcome != Outcome::Through {
                return outcome;
            }
            tokio::time::sleep(LATER).await;
            left = later;
        }
    }

    /// Fetches places in their order; what is left for later.
    async fn fetch(&self, places: Vec<Place>, priority: Priority) -> (Outcome, Vec<Place>) {
        let recorder = self.watched.recorder();
        let steps = places.into_iter().flat_map(|Place { space, groups }| {
            groups.cut(STEP).map(move |groups| Place::new(space, groups))
        });
        let mut steps = steps.fuse();
        let (mut flights, mut window) = (FuturesUnordered::new(), Window::default());
        let (mut outcome, mut later, mut failures) = (Outcome::Through, Vec::new(), 0);
        loop {
            while outcome == Outcome::Through
                && failures < IN_A_ROW
                && flights.len() < AT_A_TIME
                && window.has_room()
                && let Some(place) = steps.next()
            {
                if priority == Priority::Prefetch && recorder.is_misled() {
                    outcome = Outcome::Misled;
                } else if self.is_missing(place) {
                    recorder.fetches(place);
                    window.under_way += recorder.bytes(place);
                    flights.push(self.fetch_place(place, priority));
                }
            }
            match flights.next().await {
                Some((place, fetched)) => {
                    window.under_way -= recorder.bytes(place);
                    match fetched {
                        Fetched::Here { bytes, took } => {
                            window.arrived(bytes, took);
                            failures = 0;
                        }
                        Fetched::Later => {
                            recorder.gives_up(place);
                            later.push(place);
                            failures += 1;
                        }
                        Fetched::Never => recorder.gives_up(place),
                        Fetched::Gone => outcome = Outcome::Gone,
                    }
                }
                None => {
                    drop(flights);
                    later.extend(steps);
                    return (outcome, later);
                }
            }
        }
    }

    fn is_missing(&self, place: Place) -> bool {
        let range = place.groups.bytes(u64::MAX);
        self.content.upgrade().is_some_and(|content| !content.present(place.space, range))
    }

    /// Tries until it is here, or there is no use in it.
    async fn fetch_place(&self, place: Place, priority: Priority) -> (Place, Fetched) {
        let range = place.groups.bytes(u64::MAX);
        let (mut retry, mut tries) = (RETRY, 0);
        loop {
            let Some(content) = self.content.upgrade() else { return (place, Fetched::Gone) };
            if !content.has_room(place.space, range) {
                drop(content);
                self.say(State::Waiting("room in the cache".to_owned()));
                tokio::time::sleep(ROOM).await;
                continue;
            }
            let (fetching, since) = (content.fetch(place.space, range, priority), Instant::now());
            // Who mounted it decides how long it is in use.
            drop(content);
            self.say(State::Fetching);
            match fetching.await {
                Ok(()) => {
                    let bytes = self.watched.recorder().bytes(place);
                    return (place, Fetched::Here { bytes, took: since.elapsed() });
                }
                Err(error) => match error.class {
                    ContentErrorClass::Io | ContentErrorClass::Timeout => {
                        self.say(State::Waiting(error.reason));
                        tries += 1;
                        if tries == TRIES {
                            return (place, Fetched::Later);
                        }
                        tokio::time::sleep(retry).await;
                        retry *= 2;
                    }
                    // Whoever reads it is told.
                    ContentErrorClass::Integrity
                    | ContentErrorClass::OriginChanged
                    | ContentErrorClass::NotPermitted => return (place, Fetched::Never),
                },
            }
        }
    }

    fn say(&self, state: State) {
        self.progress.lock().state = state;
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
