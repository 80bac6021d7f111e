//! The keys of this process's own user: from variables, profile files, a web identity, a program of
//! the user's, or the machine; renewed before they end.
//!
//! Where none is found, that is remembered for a while as keys are. Keys are held in memory only and
//! asked for once however many wait.

mod environment;
mod profile;
mod program;
mod remote;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::http::Web;
use crate::{AccessKeys, Attempt, SourceError};
pub use environment::Environment;
pub use profile::{Profile, ProfileError};
use remote::Remote;

/// Keys are renewed this long before they end.
const MARGIN: Duration = Duration::from_secs(5 * 60);

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
    keys: Option<AccessKeys>,
    since: Instant,
}

impl Found {
    fn is_stale(&self, now: SystemTime) -> bool {
        match &self.keys {
            Some(keys) => keys.expires.is_some_and(|end| end < now + MARGIN),
            None => self.since.elapsed() > NONE_FOR,
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
            .get_or_try_init(|| async {
                let keys = self.remote.find(attempt).await?;
                let since = Instant::now();
                Ok::<_, SourceError>(Found { keys, since })
            })
            .await?;
        if let Some(keys) = &found.keys {
            self.remember(&keys.id);
        }
        Ok(found.keys.clone())
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
        let same = state.current.get().and_then(|found| found.keys.as_ref());
        if same.is_some_and(|current| current.id == keys.id) {
            state.current = Arc::default();
        }
        true
    }
}
