//! What the sources asked of their origins: the process's half of the byte ledger.

use std::sync::atomic::{AtomicU64, Ordering};

/// Running totals since the process started; shared by all adapters of one [`crate::Sources`].
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    stats: AtomicU64,
    lists: AtomicU64,
    reads: AtomicU64,
    bytes: AtomicU64,
    listing_bytes: AtomicU64,
    retries: AtomicU64,
}

/// The totals at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CountersSnapshot {
    /// Requests sent to origins, redirects and retries included; opened files for `file://`.
    pub requests: u64,
    /// Calls of `stat`.
    pub stats: u64,
    /// Directories listed: index pages or directories read.
    pub lists: u64,
    /// Calls of `read`.
    pub reads: u64,
    /// Content bytes received, those thrown away included.
    pub bytes: u64,
    /// Bytes of index pages received.
    pub listing_bytes: u64,
    /// Attempts made again after a transient failure.
    pub retries: u64,
}

macro_rules! count {
    ($($(#[$doc:meta])* $method:ident => $field:ident),* $(,)?) => {
        $($(#[$doc])* pub fn $method(&self) {
            self.$field.fetch_add(1, Ordering::Relaxed);
        })*
    };
}

impl Counters {
    count! {
        /// One request was sent.
        request => requests,
        /// `stat` was called.
        stat => stats,
        /// One directory is being listed.
        list => lists,
        /// `read` was called.
        read => reads,
        /// A failed attempt is made again.
        retry => retries,
    }

    /// Content bytes were received.
    pub fn received(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of an index page were received.
    pub fn received_listing(&self, bytes: usize) {
        self.listing_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The totals now; each is exact, together they are not one instant.
    pub fn snapshot(&self) -> CountersSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountersSnapshot {
            requests: load(&self.requests),
            stats: load(&self.stats),
            lists: load(&self.lists),
            reads: load(&self.reads),
            bytes: load(&self.bytes),
            listing_bytes: load(&self.listing_bytes),
            retries: load(&self.retries),
        }
    }
}
