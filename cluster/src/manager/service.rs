//! The owner of the member list: one task, a bounded mailbox, one list that everybody watches.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::HostId;
use dfs_peer::error_chain;
use dfs_proto::{common, manager};
use dfs_service::admin::Check;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::registry::{Change, Registry, Rejected};
use super::store::Store;
use super::{Error, Options};
use crate::metrics::ManagerMetrics;

const MAILBOX: usize = 256;

/// How long after a write that failed the next is tried.
const RETRY: Duration = Duration::from_secs(1);

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
    store: Store,
}

impl Handle {
    /// The member list, and every change of it.
    pub fn list(&self) -> watch::Receiver<List> {
        self.list.clone()
    }

    /// What else is kept.
    pub(super) fn store(&self) -> Store {
        self.store.clone()
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
    /// The area that each of these is nearest to.
    origins: Vec<manager::OriginArea>,
    store: Store,
    renewals: mpsc::Receiver<Renewal>,
    list: watch::Sender<List>,
    metrics: ManagerMetrics,
    check: Check,
    /// After a write that failed: when the next is tried.
    retry_at: Option<Instant>,
}

impl Service {
    /// Opens the database `manager.db` in `data_dir`, made at the first start.
    pub async fn open(
        options: &Options,
        data_dir: &Path,
        metrics: ManagerMetrics,
        check: Check,
    ) -> Result<(Self, Handle), Error> {
        let path = data_dir.join("manager.db");
        let opening = tokio::task::spawn_blocking(move || Store::open(&path));
        let (store, saved) = opening.await.map_err(|_| Error::Stopped)??;
        let registry = Registry::new(saved, options.lease, Instant::now());
        let named = options.nearest.iter().map(|(origin, area)| manager::OriginArea {
            origin: origin.clone(),
            area: area.clone(),
        });
        let origins: Vec<_> = named.collect();
        let (list, watcher) = watch::channel(list_of(&registry, &origins));
        let (sender, renewals) = mpsc::channel(MAILBOX);
        metrics.members.set(i64::try_from(watcher.borrow().members.len()).unwrap_or(i64::MAX));
        let handle = Handle { renewals: sender, list: watcher, store: store.clone() };
        let service =
            Self { registry, origins, store, renewals, list, metrics, check, retry_at: None };
        Ok((service, handle))
    }

    /// Works until `stop`. What cannot be written now is written later: until then the list stays as it is,
    /// and the manager is not ready.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        self.check.ready();
        loop {
            let look_at = self.retry_at.or(self.registry.next_expiry());
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                // First: while a write took its time, nobody's lease runs out who has renewed it.
                Some(renewal) = self.renewals.recv() => self.renew(renewal).await,
                () = until(look_at) => self.drop_late().await?,
            }
        }
    }

    /// Drops those whose lease has run out. After a failure it writes in any case: that tells whether
    /// writing is possible again.
    async fn drop_late(&mut self) -> Result<(), Error> {
        let failed_before = self.retry_at.is_some();
        let late = self.registry.expired(Instant::now());
        let written = match late.is_empty() {
            true => self.probe().await,
            false => self.commit(late).await,
        };
        match written {
            Err(Error::Stopped) => Err(Error::Stopped),
            Err(error) if failed_before => {
                tracing::debug!(error = %error_chain(&error), "the member list still cannot be written");
                Ok(())
            }
            Err(error) => {
                tracing::warn!(error = %error_chain(&error), "the member list cannot be written");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn probe(&mut self) -> Result<(), Error> {
        let written = self.store.save(self.registry.version(), Vec::new()).await;
        self.note(&written);
        written
    }

    /// Says on the readiness page how writing goes, and when to try again.
    fn note(&mut self, written: &Result<(), Error>) {
        match written {
            Ok(()) => {
                if self.retry_at.take().is_some() {
                    tracing::info!("the member list can be written again");
                    self.check.ready();
                }
            }
            Err(error) => {
                self.metrics.write_failures.inc();
                self.check.not_ready(error_chain(error));
                self.retry_at = Some(Instant::now() + RETRY);
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
        let written = self.store.save(self.registry.next_version(), changes.clone()).await;
        self.note(&written);
        written?;
        self.registry.apply(changes, Instant::now());
        let list = list_of(&self.registry, &self.origins);
        tracing::info!(version = list.version, members = list.members.len(), "member list changed");
        self.metrics.members.set(i64::try_from(list.members.len()).unwrap_or(i64::MAX));
        self.list.send_replace(list);
        Ok(())
    }
}

fn list_of(registry: &Registry, origins: &[manager::OriginArea]) -> List {
    Arc::new(manager::MemberList { origin_areas: origins.to_vec(), ..registry.list() })
}

async fn until(expiry: Option<Instant>) {
    match expiry {
        Some(expiry) => tokio::time::sleep_until(expiry).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use dfs_service::admin::Readiness;
    use dfs_service::metrics::Metrics;
    use rusqlite::Connection;

    use super::super::registry::tests::host;
    use super::*;

    #[tokio::test]
    async fn every_list_says_which_areas_are_nearest_to_origins() {
        let dir = tempfile::tempdir().unwrap();
        let nearest = [("example.org".to_owned(), "eu".to_owned())].into();
        let options = Options { nearest, ..Options::default() };
        let metrics = ManagerMetrics::register(&mut Metrics::new());
        let check = Readiness::default().check("manager");
        let opening = Service::open(&options, dir.path(), metrics, check).await;
        let (service, handle) = opening.unwrap();
        let named = || handle.list().borrow().origin_areas.clone();
        let expected =
            vec![manager::OriginArea { origin: "example.org".into(), area: "eu".into() }];
        assert_eq!(named(), expected);
        let stop = CancellationToken::new();
        tokio::select! {
            ended = service.run(stop.clone()) => panic!("it ended: {ended:?}"),
            renewed = handle.renew(manager::Role::Seed, host(1)) => renewed.unwrap(),
        }
        assert_eq!((named(), handle.list().borrow().members.len()), (expected, 1));
    }

    #[tokio::test]
    async fn a_list_that_cannot_be_written_is_told_and_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let readiness = Readiness::default();
        let metrics = ManagerMetrics::register(&mut Metrics::new());
        let failures = metrics.write_failures.clone();
        let options = Options { lease: Duration::from_millis(50), ..Options::default() };
        let check = readiness.check("manager");
        let opening = Service::open(&options, dir.path(), metrics, check).await;
        let (service, handle) = opening.unwrap();
        let stop = CancellationToken::new();
        let work = service.run(stop.clone());
        let story = async {
            handle.renew(manager::Role::Seed, host(1)).await.unwrap();
            assert!(readiness.is_ready());
            // As a backup does. The lease runs out meanwhile.
            let other = Connection::open(dir.path().join("manager.db")).unwrap();
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            while failures.get() == 0 {
                tokio::task::yield_now().await;
            }
            let (ready, page) = readiness.report();
            assert!(!ready && page.contains("cannot write") && page.contains("locked"), "{page}");
            assert_eq!(handle.list().borrow().members.len(), 1, "what is seen is what is durable");
            let refused = handle.renew(manager::Role::Seed, host(2)).await;
            assert!(matches!(refused, Err(RenewalError::Failed(Error::Database { .. }))));

            other.execute_batch("COMMIT").unwrap();
            let mut list = handle.list();
            list.wait_for(|list| list.members.is_empty()).await.unwrap();
            assert!(readiness.is_ready(), "{:?}", readiness.report());
            handle.renew(manager::Role::Seed, host(2)).await.unwrap();
        };
        tokio::select! {
            ended = work => panic!("it ended: {ended:?}"),
            () = story => stop.cancel(),
        }
    }
}
