//! Fetches for a mount what its readers will want, before they do: what the profile says, and all the rest where that
//! was asked for.
//!
//! In the profile's order, a few requests at a time and never more under way than comes in a moment: whoever reads is
//! served first, by the priority of what is fetched here and because little of it is ever in the way. A profile that
//! readers prove wrong is left. Nothing else is evicted for what nobody has asked for yet. Ends with the mount.

use std::sync::{Arc, Weak};
use std::time::Duration;

use dfs_model::Priority;
use dfs_service::Backoff;
use dfs_service::lifecycle::jittered;
use parking_lot::Mutex;

use super::content::SpaceContent;
use super::filling::{self, Ended, Filling, NO_ROOM, News, ROOM};
use super::mounts::Shown;
use super::traces::{Asked, Watched};
use crate::trace::{Place, Tally};

/// When what could not be had is tried again.
const LATER: Duration = Duration::from_secs(60);

/// When a cluster that did not answer is asked for its profile again, and how often: for about a quarter of an hour.
const ASK_AGAIN: Backoff = Backoff { first: Duration::from_secs(4), max: Duration::from_secs(300) };
const ASKED_AGAIN: u32 = 8;

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

/// How all lists of places ended.
#[derive(PartialEq, Eq)]
enum Outcome {
    Through,
    Misled,
    Gone,
}

/// Fetches what a profile foresees as long as it is right, or all the rest.
struct Ahead<'a> {
    prefetch: &'a Prefetch,
    priority: Priority,
}

impl Filling for Ahead<'_> {
    fn content(&self) -> Option<Arc<SpaceContent>> {
        self.prefetch.content.upgrade()
    }

    fn priority(&self) -> Priority {
        self.priority
    }

    fn goes_on(&self) -> bool {
        self.priority != Priority::Prefetch || !self.prefetch.watched.recorder().is_misled()
    }

    fn asks(&self, place: Place) {
        self.prefetch.watched.recorder().fetches(place);
    }

    fn gives_up(&self, place: Place) {
        self.prefetch.watched.recorder().gives_up(place);
    }

    fn says(&self, news: News) {
        self.prefetch.say(match news {
            News::Fetching => State::Fetching,
            News::Waiting(why) => State::Waiting(why),
        });
    }
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
        let asked = match self.mode {
            Mode::Off => Asked::Answered,
            Mode::Trace | Mode::All => self.watched.ask().await,
        };
        let asking = async {
            if asked == Asked::Unanswered {
                self.ask_again().await;
            }
        };
        tokio::join!(asking, self.fetch_what_is_known(shown));
    }

    /// The cluster may be there later, while there still is a use in what it knows: it is asked some more times, by all
    /// who mount the same at other times.
    async fn ask_again(&self) {
        for failures in 1..=ASKED_AGAIN {
            tokio::time::sleep(jittered(ASK_AGAIN.after(failures))).await;
            if self.watched.ask().await == Asked::Answered {
                return;
            }
        }
    }

    /// Begins anew whenever another profile is in place.
    async fn fetch_what_is_known(&self, shown: &Arc<Shown>) {
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
            let filled = filling::fill(&Ahead { prefetch: self, priority }, left).await;
            let wait = match filled.ended {
                Ended::Stopped => return Outcome::Misled,
                Ended::Gone => return Outcome::Gone,
                Ended::Through if filled.later.is_empty() => return Outcome::Through,
                Ended::Through => LATER,
                Ended::Full => {
                    self.say(State::Waiting(NO_ROOM.to_owned()));
                    ROOM
                }
            };
            tokio::time::sleep(wait).await;
            left = filled.later;
        }
    }

    fn say(&self, state: State) {
        self.progress.lock().state = state;
    }
}
