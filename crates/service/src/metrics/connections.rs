//! Connections that others have made to this process.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Counter, Metrics};
use crate::net::places::{Counts, Serves};

crate::metrics! {
    /// What the listeners of this process have counted.
    pub struct ConnectionMetrics("dfs") {
        /// Connections of others now, by what they came for; silent are those that have said nothing of use yet.
        connections: Gauge[Count] by ("listener", "state"),
        /// Connections that were ended since there were too many silent ones, one was silent for too long, or somebody
        /// had too many.
        connections_ended: Counter[Count] by ("listener", "reason"),
    }
}

impl ConnectionMetrics {
    pub(super) fn install(metrics: &mut Metrics) {
        let connections = Self::register(metrics);
        metrics.before_scrape(move || connections.sample());
    }

    fn sample(&self) {
        for serves in Serves::ALL {
            let (listener, counts) = (serves.name(), Counts::of(serves));
            let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
            for (state, count) in [("silent", &counts.silent), ("heard", &counts.heard)] {
                let count = i64::try_from(now(count)).unwrap_or(i64::MAX);
                self.connections.of([listener, state]).set(count);
            }
            let ended = [
                ("pushed-out", &counts.pushed_out),
                ("silent", &counts.timed_out),
                ("too-many", &counts.refused),
            ];
            for (reason, count) in ended {
                let counter: Counter = self.connections_ended.of([listener, reason]);
                counter.inc_by(now(count).saturating_sub(counter.get()));
            }
        }
    }
}
