//! What whoever leads counts.

dfs_service::metrics! {
    /// What a scheduler counts.
    pub struct SchedulerMetrics("dfs_scheduler") {
        /// Hosts known now.
        hosts: Gauge[Count],
        /// Tasks known now.
        tasks: Gauge[Count],
        /// Contents that hosts have named and nobody asks for, each once for every host.
        shelved: Gauge[Count],
        /// Streams of hosts open now.
        streams: Gauge[Count],
        /// Orders to seeds under way.
        obtaining: Gauge[Count],
        /// Tasks and places in which a delegate leads, or was asked to.
        delegates: Gauge[Count],
        /// Messages taken from hosts and seeds.
        events: Counter[Count],
        /// Decisions, by what they say.
        decisions: Counter[Count] by ("decision"),
        /// Hosts that came to the end of a task, by what came of it: success, failure.
        results: Counter[Count] by ("result"),
        /// Content bytes that those took, as they say, by whom from: source, seed, peers.
        taken: Counter[Bytes] by ("from"),
        /// Hosts that came to the end of a task, by its arm, as `dfctl scheduler compare` counts them: once for each time
        /// that they registered, and not where the origin refused.
        arm_results: Counter[Count] by ("arm", "result"),
        /// Content bytes moved by the arm of the task: from source (by hosts and seeds), from peers (and seeds), and of
        /// the latter from another data centre: crossed.
        arm_moved: Counter[Bytes] by ("arm", "from"),
        /// From the first want of a download until all of it was there, by the arm of the task.
        arm_completion: Histogram[Seconds] by ("arm"),
        /// How long reads waited that found nothing, by the arm of the task.
        arm_blocked: Histogram[Seconds] by ("arm"),
        /// Hosts sent to the source, by why: no-seed, no-parent, own-credentials.
        back_to_source: Counter[Count] by ("reason"),
        /// Hosts that served bytes which did not verify, for each task once.
        blacklisted: Counter[Count],
        /// Hosts dropped because they did not read what was sent to them.
        dropped: Counter[Count],
        /// Messages of hosts or seeds that were refused as malformed or forged.
        malformed: Counter[Count],
        /// URLs asked for, by where the answer came from: cache, flight, seed, kept, failed, none.
        resolved: Counter[Count] by ("answer"),
    }
}
