//! Everything the cluster's process counts.

dfs_service::metrics! {
    /// What a manager counts.
    pub struct ManagerMetrics("dfs_manager") {
        /// Schedulers and seeds listed now.
        members: Gauge[Count],
        /// Leases made or renewed.
        renewals: Counter[Count],
        /// Hosts that were not let in.
        rejected: Counter[Count],
    }
}

dfs_service::metrics! {
    /// What a scheduler counts.
    pub struct SchedulerMetrics("dfs_scheduler") {
        /// Hosts known now.
        hosts: Gauge[Count],
        /// Tasks known now.
        tasks: Gauge[Count],
        /// Streams of hosts open now.
        streams: Gauge[Count],
        /// Orders to seeds under way.
        obtaining: Gauge[Count],
        /// Messages taken from hosts and seeds.
        events: Counter[Count],
        /// Decisions, by what they say.
        decisions: Counter[Count] by ("decision"),
        /// Hosts dropped because they did not read what was sent to them.
        dropped: Counter[Count],
        /// Messages of hosts or seeds that were refused as malformed or forged.
        malformed: Counter[Count],
        /// URLs asked for, by where the answer came from: cache, flight, seed, none.
        resolved: Counter[Count] by ("answer"),
    }
}
