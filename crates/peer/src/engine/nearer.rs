//! What a seed takes from seeds of areas that are nearer to an origin before it reads that itself (decision 0017).
//!
//! Remembers who did not give, so that what comes after does not wait for them too. Lost with the process: they are
//! asked again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{CanonicalUrl, HostId, HostInfo, TaskId, TaskInfo};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::areas::Areas;

/// How long whoever did not give is not asked.
const DOUBTED_FOR: Duration = Duration::from_secs(30);

/// Hosts of other areas that are tried for one thing before its origin is asked.
const MOST_TRIED: usize = 4;

/// The hosts of areas nearer to origins, and what is known against them.
#[derive(Debug)]
pub struct Nearer {
    areas: watch::Receiver<Arc<Areas>>,
    /// Until when a host is not asked, for one task or for anything.
    doubts: Mutex<HashMap<(HostId, Option<TaskId>), Instant>>,
}

impl Nearer {
    /// As the member list says from time to time.
    pub fn new(areas: watch::Receiver<Arc<Areas>>) -> Self {
        Self { areas, doubts: Mutex::default() }
    }

    /// The seed to take a task from; none where the origin is this host's to ask.
    pub(super) fn seed_for(&self, task: &TaskInfo, now: Instant) -> Option<HostInfo> {
        let areas = Arc::clone(&self.areas.borrow());
        let seeds = areas.seeds_nearer(&task.key).into_iter().take(MOST_TRIED);
        let mut able = seeds.filter(|seed| !self.is_doubted(seed.id, task.id, now));
        able.next().cloned()
    }

    /// Whether a host is one of those that a task is taken from.
    pub(super) fn is_asked_for(&self, task: &TaskInfo, host: HostId) -> bool {
        let areas = Arc::clone(&self.areas.borrow());
        let is_far = |seed: &HostInfo| seed.id == host && seed.location.area != areas.own;
        // Nodes ask often.
        let asked = || areas.seeds_nearer(&task.key).into_iter().take(MOST_TRIED);
        areas.seeds.iter().any(is_far) && asked().any(|seed| seed.id == host)
    }

    /// The schedulers to ask what a URL is; none where the origin is this host's to ask, as it is for another area than its
    /// own: that one asks here because nobody there could tell, and must not be asked in turn.
    pub fn schedulers_for(
        &self,
        url: &CanonicalUrl,
        asked_by: &str,
        now: Instant,
    ) -> Vec<(HostId, SocketAddr)> {
        let areas = Arc::clone(&self.areas.borrow());
        if areas.own != asked_by {
            return Vec::new();
        }
        let doubts = self.doubts.lock();
        let is_doubted = |host| doubts.get(&(host, None)).is_some_and(|until| *until > now);
        let schedulers = areas.schedulers_nearer(url).into_iter().take(MOST_TRIED);
        schedulers.map(|(_, host, at)| (host, at)).filter(|(host, _)| !is_doubted(*host)).collect()
    }

    /// A host did not give a task, or does not answer at all.
    pub fn doubt(&self, host: HostId, of: Option<TaskId>, now: Instant) {
        let mut doubts = self.doubts.lock();
        doubts.retain(|_, until| *until > now);
        doubts.insert((host, of), now + DOUBTED_FOR);
    }

    fn is_doubted(&self, host: HostId, task: TaskId, now: Instant) -> bool {
        let doubts = self.doubts.lock();
        let until = [None, Some(task)].map(|of| doubts.get(&(host, of)));
        until.into_iter().flatten().any(|until| *until > now)
    }
}
