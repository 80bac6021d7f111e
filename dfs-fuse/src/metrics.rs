//! Everything the node agent counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_leader::delegate::Led;
use dfs_peer::host::Host;
use dfs_service::metrics::Metrics;
use parking_lot::Mutex;

use crate::agent::Agent;
use crate::web::{Counts, ProxyCounts};

dfs_service::metrics! {
    /// What a node agent counts.
    pub struct AgentMetrics("dfs_node") {
        /// Content bytes that parents sent.
        taken: Counter[Bytes],
        /// Bytes that content from parents took as it was encoded.
        taken_encoded: Counter[Bytes],
        /// Content bytes sent to children.
        served: Counter[Bytes],
        /// Bytes that content sent to children took as it was encoded: what was served over this is the ratio.
        served_encoded: Counter[Bytes],
        /// Groups of 64 KiB sent to children, by how they were encoded: raw, zstd.
        served_groups: Counter[Count] by ("codec"),
        /// Bytes of the piece plane in either direction, framing and proofs included.
        wire: Counter[Bytes] by ("direction"),
        /// Content bytes that came and were of no use: they had come before, or nobody waited for them any more.
        wasted: Counter[Bytes],
        /// Requests of blocked readers that took too long and that a second parent was asked for too, by what came of it: asked (all of them), won (the second parent was faster).
        hedges: Counter[Count] by ("outcome"),
        /// Content bytes read from origins by this host.
        source: Counter[Bytes],
        /// Requests made to origins by this host.
        source_requests: Counter[Count],
        /// Disk or memory taken by the cache, by where that lies: disk, memory.
        cache_used: Gauge[Bytes] by ("medium"),
        /// Bytes given back that mounts held beyond their quotas.
        quota_freed: Counter[Bytes],
        /// Tasks in the cache.
        cache_tasks: Gauge[Count],
        /// Tasks in which this host leads its neighbours in its scheduler's place.
        leads: Gauge[Count],
        /// Hosts that it leads so, once for each task.
        led: Gauge[Count],
        /// Mounts served.
        mounts: Gauge[Count],
        /// Reads of mounts that came to the agent; what the kernel has in memory, or reads by itself, is not among them.
        reads: Counter[Count],
        /// Bytes that they were given.
        read: Counter[Bytes],
        /// Reads of mounts that failed.
        read_errors: Counter[Count],
        /// Reads of mounts that found something missing, by how long they waited: short, or stalled for a second or more.
        read_waits: Counter[Count] by ("wait"),
        /// Reads of mounts that wait now.
        readers_waiting: Gauge[Count],
        /// Pins of trees, by how far they are: fetching, waiting, whole, failed.
        pins: Gauge[Count] by ("state"),
        /// Times that a mount which follows its target switched to another version.
        follow_switches: Counter[Count],
        /// Times that the target of a mount could not be looked up, or what it names by now not be shown.
        follow_failures: Counter[Count],
        /// Requests of container runtimes that the mirror of registries answered.
        mirror_answers: Counter[Count],
        /// Bytes of blobs that the mirror gave, by where they came from: task (the cache and the swarm), registry (passed on).
        mirror_given: Counter[Bytes] by ("from"),
        /// Answers of the mirror that broke off in the middle.
        mirror_broken: Counter[Count],
        /// Requests that the proxy answered, by how: task (from the cache and the swarm), mirror (as a registry's), direct (passed on), tunnel, intercepted, refused.
        proxy_answers: Counter[Count] by ("way"),
        /// Bytes of contents that the proxy gave, by where they came from: task (the cache and the swarm), origin (passed on). Those of registries are the mirror's.
        proxy_given: Counter[Bytes] by ("from"),
        /// Bytes that passed through tunnels of the proxy that have ended.
        proxy_tunnelled: Counter[Bytes],
        /// Answers of the proxy that broke off in the middle.
        proxy_broken: Counter[Count],
        /// Connections to parents and from children that are open.
        connections: Gauge[Count] by ("side"),
        /// Peers that broke the protocol.
        violations: Counter[Count],
    }
}

/// Counters only grow: what is sampled elsewhere is added as it grew.
#[derive(Default)]
struct Seen {
    taken: u64,
    taken_encoded: u64,
    served: u64,
    served_encoded: u64,
    served_raw: u64,
    served_zstd: u64,
    wire_in: u64,
    wire_out: u64,
    wasted: u64,
    hedges_asked: u64,
    hedges_won: u64,
    source: u64,
    source_requests: u64,
    violations: u64,
    reads: u64,
    read: u64,
    read_errors: u64,
    read_waits: u64,
    read_stalls: u64,
    quota_freed: u64,
    follow_switches: u64,
    follow_failures: u64,
    mirror_answers: u64,
    mirror_by_task: u64,
    mirror_by_registry: u64,
    mirror_broken: u64,
    proxy_answers: [u64; 6],
    proxy_by_task: u64,
    proxy_by_origin: u64,
    proxy_tunnelled: u64,
    proxy_broken: u64,
}

/// What is counted beside the agent.
#[derive(Default)]
pub struct Counted {
    /// By whom it leads.
    pub led: Led,
    /// By the mirror of registries.
    pub mirror: Arc<Counts>,
    /// By the proxy.
    pub proxy: Arc<ProxyCounts>,
}

fn grown(seen: &mut u64, now: u64) -> u64 {
    let more = now.saturating_sub(*seen);
    *seen = now;
    more
}

/// Registers the metrics; they are sampled when somebody asks.
pub fn install(metrics: &mut Metrics, agent: &Agent, counted: Counted) {
    let own = AgentMetrics::register(metrics);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let agent = agent.clone();
    metrics.before_scrape(move || {
        sample(&own, &agent, &mut seen.lock());
        sample_mirror(&own, &counted.mirror, &mut seen.lock());
        sample_proxy(&own, &counted.proxy, &mut seen.lock());
        own.leads.set(gauge(counted.led.tasks() as u64));
        own.led.set(gauge(counted.led.hosts() as u64));
    });
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn sample(own: &AgentMetrics, agent: &Agent, seen: &mut Seen) {
    let host: &Host = agent.host();
    let (taken, served) = (host.taken.numbers(), host.served.numbers());
    own.taken.inc_by(grown(&mut seen.taken, taken.payload_received));
    own.taken_encoded.inc_by(grown(&mut seen.taken_encoded, taken.encoded_received));
    own.served.inc_by(grown(&mut seen.served, served.payload_sent));
    own.served_encoded.inc_by(grown(&mut seen.served_encoded, served.encoded_sent));
    let groups = &own.served_groups;
    groups.of(["raw"]).inc_by(grown(&mut seen.served_raw, served.raw_groups_sent));
    groups.of(["zstd"]).inc_by(grown(&mut seen.served_zstd, served.zstd_groups_sent));
    let wire_in = taken.wire_received + served.wire_received;
    let wire_out = taken.wire_sent + served.wire_sent;
    own.wire.of(["in"]).inc_by(grown(&mut seen.wire_in, wire_in));
    own.wire.of(["out"]).inc_by(grown(&mut seen.wire_out, wire_out));
    let hedges = host.engine.hedges();
    own.wasted.inc_by(grown(&mut seen.wasted, taken.payload_wasted + hedges.twice));
    own.hedges.of(["asked"]).inc_by(grown(&mut seen.hedges_asked, hedges.count.asked));
    own.hedges.of(["won"]).inc_by(grown(&mut seen.hedges_won, hedges.count.won));
    own.violations.inc_by(grown(&mut seen.violations, taken.violations + served.violations));
    let source = host.engine.sources().counters().snapshot();
    own.source.inc_by(grown(&mut seen.source, source.bytes));
    own.source_requests.inc_by(grown(&mut seen.source_requests, source.requests));
    let store = host.engine.store();
    let in_memory = store.used_memory();
    own.cache_used.of(["memory"]).set(gauge(in_memory));
    own.cache_used.of(["disk"]).set(gauge(store.used_bytes().saturating_sub(in_memory)));
    own.quota_freed.inc_by(grown(&mut seen.quota_freed, agent.mounts().given_back()));
    own.cache_tasks.set(gauge(host.engine.store().list().len() as u64));
    let follows = agent.mounts().follows();
    let switches = follows.switches.load(Ordering::Relaxed);
    let failures = follows.failures.load(Ordering::Relaxed);
    own.follow_switches.inc_by(grown(&mut seen.follow_switches, switches));
    own.follow_failures.inc_by(grown(&mut seen.follow_failures, failures));
    own.mounts.set(gauge(*agent.mounts().count().borrow() as u64));
    sample_reads(own, agent, seen);
    for (state, count) in agent.pins().count_by_state() {
        own.pins.of([state]).set(gauge(count));
    }
    own.connections.of(["parents"]).set(gauge(taken.open));
    own.connections.of(["children"]).set(gauge(served.open));
}

fn sample_mirror(own: &AgentMetrics, counts: &Counts, seen: &mut Seen) {
    let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
    own.mirror_answers.inc_by(grown(&mut seen.mirror_answers, now(&counts.answers)));
    let (by_task, by_registry) = (now(&counts.by_task), now(&counts.by_origin));
    own.mirror_given.of(["task"]).inc_by(grown(&mut seen.mirror_by_task, by_task));
    own.mirror_given.of(["registry"]).inc_by(grown(&mut seen.mirror_by_registry, by_registry));
    own.mirror_broken.inc_by(grown(&mut seen.mirror_broken, now(&counts.broken)));
}

fn sample_proxy(own: &AgentMetrics, counts: &ProxyCounts, seen: &mut Seen) {
    let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let ways = [
        ("task", &counts.by_task),
        ("mirror", &counts.by_mirror),
        ("direct", &counts.direct),
        ("tunnel", &counts.tunnels),
        ("intercepted", &counts.intercepted),
        ("refused", &counts.refused),
    ];
    for ((way, count), seen) in ways.into_iter().zip(&mut seen.proxy_answers) {
        own.proxy_answers.of([way]).inc_by(grown(seen, now(count)));
    }
    let (by_task, by_origin) = (now(&counts.given.by_task), now(&counts.given.by_origin));
    own.proxy_given.of(["task"]).inc_by(grown(&mut seen.proxy_by_task, by_task));
    own.proxy_given.of(["origin"]).inc_by(grown(&mut seen.proxy_by_origin, by_origin));
    own.proxy_tunnelled.inc_by(grown(&mut seen.proxy_tunnelled, now(&counts.tunnelled)));
    own.proxy_broken.inc_by(grown(&mut seen.proxy_broken, now(&counts.given.broken)));
}

fn sample_reads(own: &AgentMetrics, agent: &Agent, seen: &mut Seen) {
    let reads = agent.mounts().reads();
    own.reads.inc_by(grown(&mut seen.reads, reads.reads));
    own.read.inc_by(grown(&mut seen.read, reads.bytes));
    own.read_errors.inc_by(grown(&mut seen.read_errors, reads.errors));
    let short = reads.waits().saturating_sub(reads.stalls);
    own.read_waits.of(["short"]).inc_by(grown(&mut seen.read_waits, short));
    own.read_waits.of(["stalled"]).inc_by(grown(&mut seen.read_stalls, reads.stalls));
    own.readers_waiting.set(gauge(reads.waiting));
}
