//! Everything the cluster's process counts.

pub use dfs_leader::metrics::SchedulerMetrics;
use dfs_peer::host::Host;
use dfs_peer::wire::WireNumbers;
use dfs_service::metrics::Metrics;
use parking_lot::Mutex;

dfs_service::metrics! {
    /// What a manager counts.
    pub struct ManagerMetrics("dfs_manager") {
        /// Schedulers and seeds listed now.
        members: Gauge[Count],
        /// Leases made or renewed.
        renewals: Counter[Count],
        /// Hosts that were not let in.
        rejected: Counter[Count],
        /// Changes of the member list that could not be written.
        write_failures: Counter[Count],
        /// Certificates signed, first ones and renewed ones.
        certificates: Counter[Count],
        /// Requests to join that were refused.
        refused_joins: Counter[Count],
    }
}

dfs_service::metrics! {
    /// What a seed counts.
    pub struct SeedMetrics("dfs_seed") {
        /// Content bytes read from origins.
        source: Counter[Bytes],
        /// Requests made to origins.
        source_requests: Counter[Count],
        /// Content bytes sent to children.
        served: Counter[Bytes],
        /// Bytes that content sent to children took as it was encoded: what was served over this is the ratio.
        served_encoded: Counter[Bytes],
        /// Groups of 64 KiB sent to children, by how they were encoded: raw, zstd.
        served_groups: Counter[Count] by ("codec"),
        /// Connections from children that are open.
        connections: Gauge[Count],
        /// Disk taken by the store.
        store_used: Gauge[Bytes],
        /// Tasks in the store.
        store_tasks: Gauge[Count],
    }
}

impl SeedMetrics {
    /// Registers them; they are sampled when somebody asks.
    pub fn install(metrics: &mut Metrics, host: Host) {
        let own = Self::register(metrics);
        let seen = Mutex::new((0, 0, WireNumbers::default()));
        metrics.before_scrape(move || {
            let source = host.engine.sources().counters().snapshot();
            let served = host.served.numbers();
            let now = (source.bytes, source.requests, served);
            let (bytes, requests, before) = std::mem::replace(&mut *seen.lock(), now);
            own.source.inc_by(source.bytes.saturating_sub(bytes));
            own.source_requests.inc_by(source.requests.saturating_sub(requests));
            own.count_served(&before, &served);
            own.connections.set(i64::try_from(served.open).unwrap_or(i64::MAX));
            let store = host.engine.store();
            own.store_used.set(i64::try_from(store.used_bytes()).unwrap_or(i64::MAX));
            own.store_tasks.set(i64::try_from(store.list().len()).unwrap_or(i64::MAX));
        });
    }

    /// Counters only grow: what was sent is added as it grew.
    fn count_served(&self, before: &WireNumbers, now: &WireNumbers) {
        let grown = |what: fn(&WireNumbers) -> u64| what(now).saturating_sub(what(before));
        self.served.inc_by(grown(|wire| wire.payload_sent));
        self.served_encoded.inc_by(grown(|wire| wire.encoded_sent));
        self.served_groups.of(["raw"]).inc_by(grown(|wire| wire.raw_groups_sent));
        self.served_groups.of(["zstd"]).inc_by(grown(|wire| wire.zstd_groups_sent));
    }
}
