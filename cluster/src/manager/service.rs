//! The owner of the member list: one task, a bounded mailbox, one list that everybody watches.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use dfs_model::HostId;
use dfs_proto::{common, manager};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::registry::{Change, Registry, Rejected};
use super::store::Store;
use super::{Error, Options};
use crate::metrics::ManagerMetrics;

const MAILBOX: usize = 256;

/// The list as it is handed around.
pub type List = Arc<manager::MemberList>;

struct Renewal {
    role: manager::Role,
    host: common::Host,
    reply: oneshot::Sender<Result<(), RenewalError>>,
}

/// Why a renewal came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The host may not join.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The manager cannot keep it.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Talks to the service. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    renewals: mpsc::Sender<Renewal>,
    list: watch::Receiver<List>,
}

impl Handle {
    /// The member list, and every change of it.
    pub fn list(&self) -> watch::Receiver<List> {
        self.list.clone()
    }

    /// Joins, or renews a lease.
    pub async fn renew(&self, role: manager::Role, host: common::Host) -> Result<(), RenewalError> {
        let (reply, answer) = oneshot::channel();
        let renewal = Renewal { role, host, reply };
        self.renewals.send(renewal).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }
}

/// Owns the list and its database.
pub struct Service {
    registry: Registry,
    store: Store,
    renewals: mpsc::Receiver<Renewal>,
    list: watch::Sender<List>,
    metrics: ManagerMetrics,
}

impl Service {
    /// Opens the database `manager.db` in `data_dir`, made at the first start.
    pub async fn open(
        options: &Options,
        data_dir: &Path,
        metrics: ManagerMetrics,
    ) -> Result<(Self, Handle), Error> {
        let path = data_dir.join("manager.db");
        let opening = tokio::task::spawn_blocking(move || Store::open(&path));
        let (store, saved) = opening.await.map_err(|_| Error::Stopped)??;
        let registry = Registry::new(saved, options.lease, Instant::now());
        let (list, watcher) = watch::channel(Arc::new(registry.list()));
        let (sender, renewals) = mpsc::channel(MAILBOX);
        metrics.members.set(i64::try_from(watcher.borrow().members.len()).unwrap_or(i64::MAX));
        let handle = Handle { renewals: sender, list: watcher };
        Ok((Self { registry, store, renewals, list, metrics }, handle))
    }

    /// Works until `stop`; fails when the database does.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        loop {
            let expiry = self.registry.next_expiry();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(renewal) = self.renewals.recv() => self.renew(renewal).await,
                () = until(expiry) => {
                    let late = self.registry.expired(Instant::now());
                    self.commit(late).await?;
                }
            }
        }
    }

    async fn renew(&mut self, renewal: Renewal) {
        let Renewal { role, host, reply } = renewal;
        let outcome = match self.registry.check(role, &host) {
            Ok(Some(change)) => self.commit(vec![change]).await.map_err(RenewalError::Failed),
            Ok(None) => Ok(()),
            Err(rejected) => {
                self.metrics.rejected.inc();
                Err(rejected.into())
            }
        };
        if let (Ok(()), Some(id)) = (&outcome, HostId::from_slice(&host.id)) {
            self.registry.renew(role, id, Instant::now());
            self.metrics.renewals.inc();
        }
        // Whoever asked may have gone; the lease stands.
        let _ = reply.send(outcome);
    }

    /// Durable first, then seen.
    async fn commit(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.store.save(self.registry.next_version(), changes.clone()).await?;
        self.registry.apply(changes, Instant::now());
        let list = self.registry.list();
        tracing::info!(version = list.version, members = list.members.len(), "member list changed");
        self.metrics.members.set(i64::try_from(list.members.len()).unwrap_or(i64::MAX));
        self.list.send_replace(Arc::new(list));
        Ok(())
    }
}

async fn until(expiry: Option<Instant>) {
    match expiry {
        Some(expiry) => tokio::time::sleep_until(expiry.into()).await,
        None => std::future::pending().await,
    }
}
