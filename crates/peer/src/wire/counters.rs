//! What the piece plane counts; the processes turn it into their metrics.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counters shared by all connections of one side, growing only (gauges aside).
        #[derive(Debug, Default)]
        pub struct WireCounters {
            $(pub(super) $name: Counter,)*
        }

        /// The counters at one moment.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct WireNumbers {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl WireCounters {
            /// All numbers now; each is exact, together they are approximate.
            pub fn numbers(&self) -> WireNumbers {
                WireNumbers { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Bytes of content that arrived and were wanted.
    payload_received,
    /// Bytes of content handed to links.
    payload_sent,
    /// Bytes that the content which arrived and was wanted took, as it was encoded.
    encoded_received,
    /// Bytes that the content handed to links took, as it was encoded.
    encoded_sent,
    /// Groups handed to links as they are.
    raw_groups_sent,
    /// Groups handed to links compressed.
    zstd_groups_sent,
    /// Bytes of content that arrived for requests already ended.
    payload_wasted,
    /// All bytes read from links.
    wire_received,
    /// All bytes written to links.
    wire_sent,
    /// Requests sent, or taken in by a server.
    requests,
    /// Requests that were refused.
    refusals,
    /// Requests cancelled before their end.
    cancelled,
    /// Connections made or accepted, greeting included.
    connections,
    /// Connections that failed before the end of their greeting.
    failed_greetings,
    /// Connections closed because the peer broke the protocol.
    violations,
    /// Connections closed because the peer did not take or give bytes for too long.
    stalls,
    /// Gauge: connections open now.
    open,
    /// Gauge: bytes received and not yet taken by their reader.
    buffered,
}

#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, amount: usize) {
        self.0.fetch_add(amount as u64, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, amount: usize) {
        self.0.fetch_sub(amount as u64, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
