//! The node agent: what a machine offers its users on top of a piece engine.
//!
//! Opens artifacts, reads and lists them, mounts them, and answers for the cache. The gRPC face on the
//! Unix socket is [`api`]; the same agent runs inside `dfctl` when there is no daemon. Mounts live in
//! this process; when it dies they end, what was fetched stays in the store.

pub mod api;
mod asker;
mod content;
pub mod inside;
mod mounts;
mod status;
mod walk;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dfs_artifact::View;
use dfs_model::{ByteSize, CanonicalUrl};
use dfs_peer::engine::Task;
use dfs_peer::host::Host;
use dfs_peer::opener::{Freshness, OpenArtifact, OpenUrlError};
use dfs_source::Target;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use self::asker::Asker;
pub use self::content::SpaceContent;
pub use self::mounts::{MountRequest, MountTable, MountTableError};
pub use self::status::{CallError, status_of};

/// How long an answer about a URL is good enough for the next question about it.
const REMEMBER: Duration = Duration::from_secs(10);

/// Artifacts remembered at a time.
const REMEMBERED: usize = 64;

/// What an agent is told about itself.
#[derive(Debug, Clone)]
pub struct AgentFacts {
    /// Where it keeps things.
    pub data_dir: PathBuf,
    /// Its cluster as given; empty is solo.
    pub cluster: String,
    /// Disk the cache may take.
    pub capacity: Option<ByteSize>,
}

struct Remembered {
    target: Target,
    view: View,
    opened: OpenArtifact,
    at: Instant,
}

struct Inner {
    host: Host,
    facts: AgentFacts,
    mounts: MountTable,
    remembered: Mutex<Vec<Remembered>>,
    /// URLs whose remembered version turned out to be gone.
    gone: Mutex<HashSet<CanonicalUrl>>,
    /// Number of calls under way, for those who end an idle agent.
    busy: watch::Sender<usize>,
}

/// A handle on the agent; cheap to clone.
#[derive(Clone)]
pub struct Agent {
    inner: Arc<Inner>,
}

impl Agent {
    /// An agent over a running host.
    pub fn new(host: Host, facts: AgentFacts) -> Self {
        let mounts = MountTable::default();
        let busy = watch::Sender::new(0);
        let (remembered, gone) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { host, facts, mounts, remembered, gone, busy }) }
    }

    /// The host below.
    pub fn host(&self) -> &Host {
        &self.inner.host
    }

    /// What it was told about itself.
    pub fn facts(&self) -> &AgentFacts {
        &self.inner.facts
    }

    /// What is mounted.
    pub fn mounts(&self) -> &MountTable {
        &self.inner.mounts
    }

    /// Opens what a target names; an answer of a moment ago is used again.
    pub async fn open(&self, target: &Target, view: View) -> Result<OpenArtifact, OpenUrlError> {
        if let Some(opened) = self.remembered(target, view) {
            return Ok(opened);
        }
        let gone = self.inner.gone.lock().remove(&target.url);
        let freshness = if gone { Freshness::Asked } else { Freshness::Usual };
        let opened = self.inner.host.engine.open_url(target, view, freshness).await?;
        let mut remembered = self.inner.remembered.lock();
        if remembered.len() >= REMEMBERED {
            remembered.remove(0);
        }
        remembered.push(Remembered {
            target: target.clone(),
            view,
            opened: opened.clone(),
            at: Instant::now(),
        });
        Ok(opened)
    }

    /// The same question by the same asker: credentials are part of it.
    fn remembered(&self, target: &Target, view: View) -> Option<OpenArtifact> {
        let mut remembered = self.inner.remembered.lock();
        remembered.retain(|known| known.at.elapsed() < REMEMBER);
        let same = |known: &&Remembered| {
            known.view == view
                && known.target.url == target.url
                && known.target.headers == target.headers
                && known.target.credentials == target.credentials
                && known.opened.tasks.iter().all(Task::is_open)
        };
        remembered.iter().find(same).map(|known| known.opened.clone())
    }

    /// Drops what is remembered of a target whose version turned out to be gone; the next question about it
    /// goes to the origin.
    pub fn forget(&self, target: &Target) {
        self.inner.remembered.lock().retain(|known| known.target.url != target.url);
        let mut gone = self.inner.gone.lock();
        if gone.len() >= REMEMBERED {
            gone.clear();
        }
        gone.insert(target.url.clone());
    }

    /// Waits until nothing is mounted and no call is under way, for `quiet` at a stretch.
    pub async fn idle_for(&self, quiet: Duration) {
        let mut busy = self.inner.busy.subscribe();
        let mut mounted = self.inner.mounts.count();
        loop {
            let is_idle = *busy.borrow_and_update() == 0 && *mounted.borrow_and_update() == 0;
            tokio::select! {
                _ = busy.changed() => {}
                _ = mounted.changed() => {}
                () = tokio::time::sleep(quiet), if is_idle => return,
            }
        }
    }

    fn enter(&self) -> Busy {
        self.inner.busy.send_modify(|calls| *calls += 1);
        Busy { agent: self.clone() }
    }
}

/// A call under way.
struct Busy {
    agent: Agent,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.agent.inner.busy.send_modify(|calls| *calls -= 1);
    }
}
