//! The keys of this process's own user: from variables, profile files, a web identity, a program of
//! the user's, or the machine; renewed before they end.
//!
//! Where none is found, or none can be made, that is remembered for a while as keys are. Keys are held in memory
//! only and asked for once however many wait.

mod profile;
mod program;
mod remote;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::OnceCell;
use tokio::time::Instant;

pub use crate::environment::Environment;
use crate::http::Web;
use crate::s3::no_access;
use crate::{AccessKeys, Attempt, SourceError};
pub use profile::{Profile, ProfileError};
use remote::Remote;

/// Keys are renewed this long before they end, or when a quarter is left of the time that they had.
const MARGIN: Duration = Duration::from_secs(5 * 60);

/// Keys that have not ended are not renewed sooner: who gives out what is about to end is not asked for each request.
const LEAST: Duration = Duration::from_secs(60);

/// Whoever is asked answers by then: longer than a program of the user's may take, and than retries go on.
const WITHIN: Duration = Duration::from_secs(90);

/// For how long it is believed that no keys can be made.
const FAILED_FOR: Duration = Duration::from_secs(5);

/// For how long it is believed that there are no keys.
const NONE_FOR: Duration = Duration::from_secs(5 * 60);

/// Key ids remembered as given out.
const MAX_GIVEN: usize = 64;

/// Finds keys, and keeps them.
pub(super) struct Chain {
    /// Those that need nobody to be asked.
    fixed: Option<AccessKeys>,
    remote: Remote,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    current: Arc<OnceCell<Found>>,
    /// Ids of all keys that were given out, the oldest first.
    given: VecDeque<String>,
}

struct Found {
    keys: Result<Option<AccessKeys>, SourceError>,
    since: Instant,
    /// How long they would last then.
    lasting: Duration,
}

impl Found {
    fn new(keys: Result<Option<AccessKeys>, SourceError>, now: SystemTime) -> Self {
        let end = keys.as_ref().ok().and_then(|keys| keys.as_ref()?.expires);
        let lasting = end.and_then(|end| end.duration_since(now).ok()).unwrap_or_default();
        Self { keys, since: Instant::now(), lasting }
    }

    fn is_stale(&self, now: SystemTime) -> bool {
        let age = self.since.elapsed();
        match &self.keys {
            Ok(Some(keys)) => {
                let margin =
                    if age < LEAST { Duration::ZERO } else { MARGIN.min(self.lasting / 4) };
                keys.expires.is_some_and(|end| end < now + margin)
            }
            Ok(None) => age > NONE_FOR,
            Err(_) => age > FAILED_FOR,
        }
    }
}

impl Chain {
    pub fn new(
        environment: Environment,
        profile: Profile,
        region: Option<String>,
        web: Arc<Web>,
    ) -> Self {
        let fixed = profile.keys.clone();
        let remote = Remote::new(environment, profile, region, web);
        Self { fixed, remote, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is half done in it when a thread panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys in force; `None` when there are none.
    pub async fn keys(&self, attempt: &Attempt) -> Result<Option<AccessKeys>, SourceError> {
        if self.fixed.is_some() {
            return Ok(self.fixed.clone());
        }
        let cell = self.current(SystemTime::now());
        let found = cell
            .get_or_init(|| async { Found::new(self.find(attempt).await, SystemTime::now()) })
            .await;
        // What is remembered was found for another request.
        let keys = found.keys.clone().map_err(|error| error.of(attempt))?;
        if let Some(keys) = &keys {
            self.remember(&keys.id);
        }
        Ok(keys)
    }

    async fn find(&self, attempt: &Attempt) -> Result<Option<AccessKeys>, SourceError> {
        let late = |_| {
            let cause = format!("no keys within {} s", WITHIN.as_secs());
            Err(no_access(io::Error::new(io::ErrorKind::TimedOut, cause)))
        };
        tokio::time::timeout(WITHIN, self.remote.find(attempt)).await.unwrap_or_else(late)
    }

    /// The cell of the keys in force: a new one when they are about to end.
    fn current(&self, now: SystemTime) -> Arc<OnceCell<Found>> {
        let mut state = self.state();
        if state.current.get().is_some_and(|found| found.is_stale(now)) {
            state.current = Arc::default();
        }
        Arc::clone(&state.current)
    }

    fn remember(&self, id: &str) {
        let mut state = self.state();
        if state.given.iter().any(|given| given == id) {
            return;
        }
        if state.given.len() == MAX_GIVEN {
            state.given.pop_front();
        }
        state.given.push_back(id.to_owned());
    }

    /// Whether these keys came from here: then newer ones of here may stand for them.
    pub fn gave(&self, keys: &AccessKeys) -> bool {
        self.state().given.contains(&keys.id)
    }

    /// The store says that `keys` have ended: the next ones are asked for anew. `false` when nothing
    /// newer is to be had.
    pub fn renew(&self, keys: &AccessKeys) -> bool {
        if !self.gave(keys) {
            return false;
        }
        let mut state = self.state();
        let same = state.current.get().and_then(|found| found.keys.as_ref().ok()?.as_ref());
        if same.is_some_and(|current| current.id == keys.id) {
            state.current = Arc::default();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keys_are_renewed_before_they_end_but_not_all_the_time() {
        let begun = SystemTime::now();
        let lasting = |seconds| {
            let expires = Some(begun + Duration::from_secs(seconds));
            let keys = AccessKeys { id: "A".to_owned(), secret: "s".into(), token: None, expires };
            Found::new(Ok(Some(keys)), begun)
        };
        for (seconds, stale_after) in [(3600, 3300), (240, 180), (80, 60), (30, 30)] {
            let found = lasting(seconds);
            for (passed, is_stale) in
                [(0, false), (stale_after - 1, false), (stale_after + 1, true)]
            {
                let already = found.since.elapsed();
                tokio::time::advance(Duration::from_secs(passed).saturating_sub(already)).await;
                let now = begun + Duration::from_secs(passed);
                assert_eq!(found.is_stale(now), is_stale, "{seconds} s, after {passed} s");
            }
        }
    }
}
