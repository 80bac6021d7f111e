//! Requests to origins: so many to one host at a time, and so many in all. A quarter of them is for blocked readers,
//! who do not wait behind what comes in the background.
//!
//! A host that hangs keeps those that wait for it, and nobody who asks another one, until so many hosts hang that
//! the bound over all is reached.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use dfs_model::{CanonicalUrl, Priority};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hosts that may be kept busy at a time.
const HOSTS: usize = 8;

/// The requests to origins of one engine.
#[derive(Debug)]
pub struct OriginSlots {
    to_one: usize,
    all: Arc<Turns>,
    /// Those that are asked now.
    hosts: Mutex<HashMap<String, Weak<Turns>>>,
}

/// A request to an origin; it is over when this is dropped.
#[derive(Debug)]
#[must_use = "the request is over when this is dropped"]
pub struct OriginSlot {
    _host: Turn,
    _all: Turn,
}

/// So many turns at a time.
#[derive(Debug)]
struct Turns {
    all: Arc<Semaphore>,
    /// Those of them that nobody is blocked for.
    patient: Arc<Semaphore>,
}

#[derive(Debug)]
struct Turn {
    _turns: Arc<Turns>,
    _patient: Option<OwnedSemaphorePermit>,
    _any: Option<OwnedSemaphorePermit>,
}

impl Turns {
    fn new(count: usize) -> Arc<Self> {
        let count = count.min(Semaphore::MAX_PERMITS);
        let [all, patient] =
            [count, count - count / 4].map(|count| Arc::new(Semaphore::new(count)));
        Arc::new(Self { all, patient })
    }

    async fn take(self: Arc<Self>, priority: Priority) -> Turn {
        // Neither is ever closed.
        let _patient = match priority {
            Priority::Demand => None,
            _ => Arc::clone(&self.patient).acquire_owned().await.ok(),
        };
        let _any = Arc::clone(&self.all).acquire_owned().await.ok();
        Turn { _turns: self, _patient, _any }
    }
}

impl OriginSlots {
    /// At most `to_one` requests at a time to one host, and eight times as many in all.
    pub fn new(to_one: usize) -> Self {
        let all = Turns::new(to_one.saturating_mul(HOSTS));
        Self { to_one, all, hosts: Mutex::default() }
    }

    /// Waits for a turn to ask the host of `url`.
    pub async fn acquire(&self, url: &CanonicalUrl, priority: Priority) -> OriginSlot {
        let url = url.url();
        let port = url.port_or_known_default();
        let host = format!("{}:{}", url.host_str().unwrap_or_default(), port.unwrap_or_default());
        // The host's first: whoever waits for one that hangs keeps nobody else from his turn.
        let _host = self.of(host).take(priority).await;
        let _all = Arc::clone(&self.all).take(priority).await;
        OriginSlot { _host, _all }
    }

    fn of(&self, host: String) -> Arc<Turns> {
        let mut hosts = self.hosts.lock();
        if let Some(known) = hosts.get(&host).and_then(Weak::upgrade) {
            return known;
        }
        hosts.retain(|_, slots| slots.strong_count() > 0);
        let fresh = Turns::new(self.to_one);
        hosts.insert(host, Arc::downgrade(&fresh));
        fresh
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn url(host: usize) -> CanonicalUrl {
        CanonicalUrl::parse(&format!("http://origin{host}.test/f")).unwrap()
    }

    #[test]
    fn a_host_has_its_share_and_all_together_theirs() {
        let slots = OriginSlots::new(2);
        let take = |host| slots.acquire(&url(host), Priority::Demand).now_or_never();
        let mut held: Vec<_> = (0..2).map(|_| take(0).expect("a first and a second")).collect();
        assert!(take(0).is_none(), "no third");
        assert!(
            slots
                .acquire(
                    &CanonicalUrl::parse("http://origin0.test:81/f").unwrap(),
                    Priority::Demand
                )
                .now_or_never()
                .is_some()
        );
        for host in 1..HOSTS {
            held.extend((0..2).map(|_| take(host).expect("another host's own")));
        }
        assert!(take(HOSTS).is_none(), "that is all");
        held.clear();
        drop(take(HOSTS).expect("a turn is given back"));
        assert_eq!(slots.hosts.lock().len(), 1, "hosts that nobody asks are forgotten");
    }

    #[test]
    fn who_is_blocked_does_not_wait_behind_what_comes_in_the_background() {
        let slots = OriginSlots::new(4);
        let take = |priority| slots.acquire(&url(0), priority).now_or_never();
        let mut held: Vec<_> =
            (0..3).map(|_| take(Priority::Bulk).expect("three of four")).collect();
        assert!(take(Priority::ReadAhead).is_none(), "the fourth is for others");
        held.push(take(Priority::Demand).expect("whoever is blocked"));
        assert!(take(Priority::Demand).is_none(), "no fifth");
    }
}
