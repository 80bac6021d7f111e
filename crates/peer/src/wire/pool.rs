//! Connections to parents, by host: made when first wanted, shared by all tasks, closed when idle.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::{ByteSize, HostId};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Connection, ConnectionOptions, ReceiveBudget, Surroundings};
use super::counters::WireCounters;
use super::error::ConnectError;
use super::hello::LocalHost;
use crate::dial::Dialer;

/// How the pool treats hosts.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// How each connection behaves.
    pub connection: ConnectionOptions,
    /// Most bytes received and not yet taken, over all connections. One full request always fits.
    pub buffer: ByteSize,
    /// Time for one address to connect and greet.
    pub connect_within: Duration,
    /// Head start of an address over the next one.
    pub stagger: Duration,
    /// A connection that nobody used for so long is closed.
    pub idle_after: Duration,
    /// How long a host is left alone after its first failure; doubles with each further one.
    pub backoff: Duration,
    /// Longest time a failing host is left alone.
    pub backoff_limit: Duration,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            connection: ConnectionOptions::default(),
            buffer: ByteSize(256 << 20),
            connect_within: Duration::from_secs(3),
            stagger: Duration::from_millis(250),
            idle_after: Duration::from_secs(60),
            backoff: Duration::from_millis(500),
            backoff_limit: Duration::from_secs(60),
        }
    }
}

/// How long to leave a host alone after `failures` in a row; `jitter` in 0..1 spreads the herd over the
/// upper half.
fn backoff(options: &PoolOptions, failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = options.backoff.saturating_mul(1 << doublings).min(options.backoff_limit);
    full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

type Outcome = Option<Result<Connection, Arc<ConnectError>>>;

/// What the pool knows of a host.
enum Entry {
    Ready(Connection),
    /// Somebody dials; everybody waits for that one outcome.
    Dialling {
        outcome: watch::Receiver<Outcome>,
        failures: u32,
    },
    Failed {
        error: Arc<ConnectError>,
        failures: u32,
        until: Instant,
    },
}

/// One connection per host, for the whole process. Clones are cheap.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: Arc<dyn Dialer>,
    options: PoolOptions,
    around: Surroundings,
    hosts: Mutex<HashMap<HostId, Entry>>,
}

impl Pool {
    /// A pool that works in `tracker` until `cancel`. Tasks of its own end then; so do its connections.
    pub fn new(
        dialer: Arc<dyn Dialer>,
        me: LocalHost,
        options: PoolOptions,
        tracker: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Self {
        let around = Surroundings {
            me,
            options: options.connection.clone(),
            budget: ReceiveBudget::new(options.buffer.0),
            counters: Arc::default(),
            tracker: tracker.clone(),
            cancel: cancel.clone(),
        };
        let shared = Arc::new(Shared { dialer, options, around, hosts: Mutex::default() });
        tracker.spawn(tidy(Arc::clone(&shared)));
        Self { shared }
    }

    /// What its connections counted.
    pub fn counters(&self) -> &Arc<WireCounters> {
        &self.shared.around.counters
    }

    /// The connection to `host`: the one there is, or a new one to the first of `addresses` (best first)
    /// that answers as that host. Concurrent callers share one attempt, and giving up the wait leaves it
    /// to the others.
    pub async fn connect(
        &self,
        host: HostId,
        addresses: &[SocketAddr],
    ) -> Result<Connection, Arc<ConnectError>> {
        let mut outcome = match self.shared.begin(host, addresses)? {
            Begun::Ready(connection) => return Ok(connection),
            Begun::Dialling(outcome) => outcome,
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().expect("waited for an outcome"),
            // The attempt was dropped with the tracker's runtime.
            Err(_) => Err(Arc::new(ConnectError::ShuttingDown)),
        }
    }

    /// The connection to `host` if there is a usable one.
    pub fn existing(&self, host: HostId) -> Option<Connection> {
        match self.shared.hosts.lock().get(&host) {
            Some(Entry::Ready(connection)) if connection.is_usable() => Some(connection.clone()),
            _ => None,
        }
    }

    /// Closes the connection to `host`, for a peer that lied, and leaves it alone like a failing one.
    pub fn drop_host(&self, host: HostId, reason: &str) {
        let error = ConnectError::Io(Arc::new(std::io::Error::other(reason.to_owned())));
        let until = Instant::now() + self.shared.options.backoff_limit;
        let failed = Entry::Failed { error: Arc::new(error), failures: 1, until };
        if let Some(Entry::Ready(connection)) = self.shared.hosts.lock().insert(host, failed) {
            connection.close(reason);
        }
    }
}

enum Begun {
    Ready(Connection),
    Dialling(watch::Receiver<Outcome>),
}

impl Shared {
    /// Finds the connection or the attempt under way, or starts one.
    fn begin(
        self: &Arc<Self>,
        host: HostId,
        addresses: &[SocketAddr],
    ) -> Result<Begun, Arc<ConnectError>> {
        if self.around.cancel.is_cancelled() {
            return Err(Arc::new(ConnectError::ShuttingDown));
        }
        let mut hosts = self.hosts.lock();
        let failures = match hosts.get(&host) {
            Some(Entry::Ready(connection)) if connection.is_usable() => {
                return Ok(Begun::Ready(connection.clone()));
            }
            Some(Entry::Dialling { outcome, .. }) => return Ok(Begun::Dialling(outcome.clone())),
            Some(Entry::Failed { error, failures, until }) => {
                let remaining = until.saturating_duration_since(Instant::now());
                if !remaining.is_zero() {
                    let last = Arc::clone(error);
                    return Err(Arc::new(ConnectError::BackingOff { remaining, last }));
                }
                *failures
            }
            _ => 0,
        };
        if addresses.is_empty() {
            return Err(Arc::new(ConnectError::NoAddress(host)));
        }
        let (sender, outcome) = watch::channel(None);
        hosts.insert(host, Entry::Dialling { outcome: outcome.clone(), failures });
        let attempt = Arc::clone(self).attempt(host, addresses.to_vec(), sender);
        self.around.tracker.spawn(attempt);
        Ok(Begun::Dialling(outcome))
    }

    async fn attempt(
        self: Arc<Self>,
        host: HostId,
        addresses: Vec<SocketAddr>,
        outcome: watch::Sender<Outcome>,
    ) {
        let connected = tokio::select! {
            () = self.around.cancel.cancelled() => Err(ConnectError::ShuttingDown),
            connected = self.dial_any(host, &addresses) => connected,
        };
        let connected = connected.map_err(Arc::new);
        let mut hosts = self.hosts.lock();
        // The host may have been dropped meanwhile: that verdict stands.
        let failures = match hosts.get(&host) {
            Some(Entry::Dialling { failures, .. }) => *failures,
            Some(Entry::Failed { error, .. }) => {
                let _ = outcome.send(Some(Err(Arc::clone(error))));
                return;
            }
            _ => {
                let _ = outcome.send(Some(Err(Arc::new(ConnectError::ShuttingDown))));
                return;
            }
        };
        let entry = match &connected {
            Ok(connection) => Entry::Ready(connection.clone()),
            Err(error) => {
                self.around.counters.failed_greetings.add(1);
                let failures = failures.saturating_add(1);
                let wait = backoff(&self.options, failures, rand::random());
                Entry::Failed { error: Arc::clone(error), failures, until: Instant::now() + wait }
            }
        };
        hosts.insert(host, entry);
        drop(hosts);
        let _ = outcome.send(Some(connected));
    }

    /// Tries the addresses in order, each a little after the one before, and keeps the first that greets
    /// as `host`. The error is that of the best address.
    async fn dial_any(
        &self,
        host: HostId,
        addresses: &[SocketAddr],
    ) -> Result<Connection, ConnectError> {
        let mut waiting = addresses.iter().copied().enumerate();
        let mut attempts = FuturesUnordered::new();
        let mut first_error: Option<(usize, ConnectError)> = None;
        loop {
            if let Some((rank, address)) = waiting.next() {
                attempts.push(async move { (rank, self.dial_one(host, address).await) });
            } else if attempts.is_empty() {
                let error = first_error.map(|(_, error)| error);
                return Err(error.unwrap_or(ConnectError::NoAddress(host)));
            }
            let pause = if waiting.len() == 0 { Duration::MAX } else { self.options.stagger };
            match tokio::time::timeout(pause, attempts.next()).await {
                Ok(Some((_, Ok(connection)))) => return Ok(connection),
                Ok(Some((rank, Err(error)))) => {
                    if first_error.as_ref().is_none_or(|(best, _)| rank < *best) {
                        first_error = Some((rank, error));
                    }
                }
                Ok(None) | Err(_) => {}
            }
        }
    }

    async fn dial_one(&self, host: HostId, addr: SocketAddr) -> Result<Connection, ConnectError> {
        let within = self.options.connect_within;
        let connect = async {
            let (link, peer) = self.dialer.dial(addr).await?;
            Connection::open(link, peer, Some(host), &self.around).await
        };
        tokio::time::timeout(within, connect).await.unwrap_or(Err(ConnectError::Timeout(within)))
    }
}

/// Closes what is idle and forgets hosts that are long past their failures.
async fn tidy(shared: Arc<Shared>) {
    let mut ticks =
        tokio::time::interval(shared.options.idle_after.max(Duration::from_secs(1)) / 2);
    loop {
        tokio::select! {
            () = shared.around.cancel.cancelled() => break,
            now = ticks.tick() => shared.tidy_at(now),
        }
    }
    shared.hosts.lock().clear();
}

impl Shared {
    fn tidy_at(&self, now: Instant) {
        let idle_after = self.options.idle_after;
        self.hosts.lock().retain(|_, entry| match entry {
            Entry::Ready(connection) if !connection.is_usable() => false,
            Entry::Ready(connection) => {
                let used = connection.last_used();
                let idle = now.saturating_duration_since(used) >= idle_after;
                let close = idle && connection.is_only_handle();
                if close {
                    connection.close("idle");
                }
                !close
            }
            Entry::Dialling { .. } => true,
            Entry::Failed { until, .. } => now < *until + self.options.backoff_limit,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let options = PoolOptions::default();
        assert_eq!(backoff(&options, 1, 1.0), Duration::from_millis(500));
        assert_eq!(backoff(&options, 3, 1.0), Duration::from_secs(2));
        assert_eq!(backoff(&options, 3, 0.0), Duration::from_secs(1));
        assert_eq!(backoff(&options, u32::MAX, 1.0), Duration::from_secs(60));
    }
}
