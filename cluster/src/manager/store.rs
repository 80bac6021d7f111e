//! The manager's database: SQLite in WAL mode, written by one thread.
//!
//! `PRAGMA user_version` is the schema's number: older ones are migrated, newer ones refused.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use dfs_model::HostId;
use dfs_proto::{common, manager};
use prost::Message;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tokio::sync::{mpsc, oneshot};

use super::Error;
use super::registry::{Change, Saved};

mod tokens;

pub use tokens::{NewToken, Redeemed, Redemption};

/// One step a schema number; never edited once released.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE cluster (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        id BLOB NOT NULL,
        list_version INTEGER NOT NULL
    );
    CREATE TABLE members (
        role INTEGER NOT NULL,
        host_id BLOB NOT NULL,
        host BLOB NOT NULL,
        PRIMARY KEY (role, host_id)
    ) WITHOUT ROWID;
    CREATE TABLE keys (
        host_id BLOB PRIMARY KEY,
        public_key BLOB NOT NULL
    ) WITHOUT ROWID;
",
    "
    CREATE TABLE tokens (
        hash BLOB PRIMARY KEY,
        role INTEGER NOT NULL,
        uses_left INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE redemptions (
        token BLOB NOT NULL,
        key BLOB NOT NULL,
        PRIMARY KEY (token, key)
    ) WITHOUT ROWID;
",
];

/// How long a write waits for another process that has locked the database, as a backup does.
const LOCKED: Duration = Duration::from_secs(1);

/// Writes waiting for the thread.
const MAILBOX: usize = 64;

/// Something to be done with the database, on its thread.
type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// The way to the thread of the database, which ends when every handle is dropped.
#[derive(Clone)]
pub struct Store {
    work: mpsc::Sender<Work>,
    path: Arc<Path>,
}

impl Store {
    /// Opens or makes the database and starts its thread. Blocks.
    pub fn open(path: &Path) -> Result<(Self, Saved), Error> {
        let mut connection =
            Connection::open(path).map_err(|source| failed("open", path, source))?;
        prepare(&mut connection, path)?;
        let saved = load(&mut connection, path)?;
        let (work, mut mailbox) = mpsc::channel::<Work>(MAILBOX);
        let working = move || {
            while let Some(work) = mailbox.blocking_recv() {
                work(&mut connection);
            }
        };
        thread::Builder::new().name("manager-db".into()).spawn(working).map_err(Error::Thread)?;
        Ok((Self { work, path: path.into() }, saved))
    }

    /// Makes changes durable as `version` of the list.
    pub async fn save(&self, version: u64, changes: Vec<Change>) -> Result<(), Error> {
        self.write(move |connection| write(connection, version, &changes)).await
    }

    /// Does something in the database; it stands even if nobody waits for it any more.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (done, result) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            // Whoever asked may have gone.
            let _ = done.send(work(connection));
        });
        self.work.send(work).await.map_err(|_| Error::Stopped)?;
        let written = result.await.map_err(|_| Error::Stopped)?;
        written.map_err(|source| failed("write", &self.path, source))
    }
}

fn failed(action: &'static str, path: &Path, source: rusqlite::Error) -> Error {
    Error::Database { action, path: path.to_owned(), source }
}

fn prepare(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let failed = |source| failed("migrate", path, source);
    connection.busy_timeout(LOCKED).map_err(failed)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    let found: u32 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    if found > known {
        return Err(Error::Newer { path: path.to_owned(), found, known });
    }
    for (step, number) in MIGRATIONS.iter().zip(1u32..).skip(found as usize) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(step).map_err(failed)?;
        transaction.pragma_update(None, "user_version", number).map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}

fn load(connection: &mut Connection, path: &Path) -> Result<Saved, Error> {
    let failed = |source| failed("read", path, source);
    let damaged = || Error::Damaged { path: path.to_owned() };
    let (cluster_id, version) = cluster(connection).map_err(failed)?;
    let members = rows(connection, "SELECT role, host_id, host FROM members", |row| {
        Ok((row.get::<_, i32>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, Vec<u8>>(2)?))
    });
    let members = members.map_err(failed)?.into_iter().map(|(role, id, host)| {
        let role = manager::Role::try_from(role).ok()?;
        let host = common::Host::decode(&host[..]).ok()?;
        Some((role, HostId::from_slice(&id)?, host))
    });
    let keys = rows(connection, "SELECT host_id, public_key FROM keys", |row| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))
    });
    let keys = keys.map_err(failed)?.into_iter();
    tokens::look_through(connection).map_err(failed)?;
    let keys = keys.map(|(id, key)| Some((HostId::from_slice(&id)?, key.try_into().ok()?)));
    Ok(Saved {
        cluster_id,
        version,
        members: members.collect::<Option<_>>().ok_or_else(damaged)?,
        keys: keys.collect::<Option<_>>().ok_or_else(damaged)?,
    })
}

/// The cluster's id and the list's version, made at the first start.
fn cluster(connection: &mut Connection) -> rusqlite::Result<(Vec<u8>, u64)> {
    let transaction = connection.transaction()?;
    let query = "SELECT id, list_version FROM cluster WHERE only = 1";
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
    };
    let found = transaction.query_row(query, [], read).optional()?;
    let cluster = match found {
        Some(cluster) => cluster,
        None => {
            let id = rand::random::<[u8; 16]>().to_vec();
            let insert = "INSERT INTO cluster (only, id, list_version) VALUES (1, ?1, 0)";
            transaction.execute(insert, params![id])?;
            (id, 0)
        }
    };
    transaction.commit()?;
    Ok(cluster)
}

fn rows<T>(
    connection: &Connection,
    query: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare(query)?.query_map([], read)?.collect()
}

fn write(connection: &mut Connection, version: u64, changes: &[Change]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for change in changes {
        write_one(&transaction, change)?;
    }
    let update = "UPDATE cluster SET list_version = ?1 WHERE only = 1";
    transaction.execute(update, params![version.cast_signed()])?;
    transaction.commit()
}

fn write_one(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Put { role, id, host, key } => {
            let put = "INSERT INTO members (role, host_id, host) VALUES (?1, ?2, ?3)
                       ON CONFLICT (role, host_id) DO UPDATE SET host = excluded.host";
            let id = id.as_bytes().as_slice();
            transaction.execute(put, params![*role as i32, id, host.encode_to_vec()])?;
            let pin = "INSERT OR IGNORE INTO keys (host_id, public_key) VALUES (?1, ?2)";
            transaction.execute(pin, params![id, key.as_slice()])?;
        }
        Change::Drop { role, id } => {
            let delete = "DELETE FROM members WHERE role = ?1 AND host_id = ?2";
            transaction.execute(delete, params![*role as i32, id.as_bytes().as_slice()])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::registry::tests::host;
    use super::*;

    fn put(n: u8) -> Change {
        let (id, key) = (HostId::from_bytes([n; 16]), [n; 32]);
        Change::Put { role: manager::Role::Seed, id, host: Box::new(host(n)), key }
    }

    #[tokio::test]
    async fn what_was_saved_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manager.db");
        let (store, first) = Store::open(&path).unwrap();
        assert_eq!((first.version, first.members.len(), first.cluster_id.len()), (0, 0, 16));
        store.save(1, vec![put(1), put(2)]).await.unwrap();
        let id = HostId::from_bytes([1; 16]);
        store.save(2, vec![Change::Drop { role: manager::Role::Seed, id }]).await.unwrap();
        drop(store);
        let (_store, again) = Store::open(&path).unwrap();
        assert_eq!((again.version, again.cluster_id), (2, first.cluster_id));
        assert_eq!(again.members, [(manager::Role::Seed, HostId::from_bytes([2; 16]), host(2))]);
        assert_eq!(again.keys.len(), 2, "a name stays taken");
    }

    /// What is in the database after so many writes: half as many members, the last ones.
    fn change(version: u8) -> Vec<Change> {
        let id = HostId::from_bytes([version / 2; 16]);
        let mut changes = vec![put(version)];
        changes.extend((version > 1).then_some(Change::Drop { role: manager::Role::Seed, id }));
        changes
    }

    #[track_caller]
    fn assert_is_of_one_version(saved: &Saved, cluster_id: &[u8], what: &str) {
        // Before the first commit that reached the disk there was no cluster.
        assert!(saved.version == 0 || saved.cluster_id == cluster_id, "{what}");
        let version = u8::try_from(saved.version).unwrap();
        let expected: Vec<_> = (version / 2 + 1..=version)
            .map(|n| (manager::Role::Seed, HostId::from_bytes([n; 16]), host(n)))
            .collect();
        assert_eq!(saved.members, expected, "{what}");
        let names = (1..=version).map(|n| (HostId::from_bytes([n; 16]), [n; 32]));
        assert!(saved.keys.iter().copied().eq(names), "{what}");
    }

    #[track_caller]
    fn assert_names_it(error: &Error) {
        assert!(error.to_string().contains("torn.db"), "{error}");
    }

    #[tokio::test]
    async fn a_database_that_was_torn_anywhere_is_one_that_was_or_is_refused() {
        const WRITES: u8 = 10;
        const SECTOR: usize = 512;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manager.db");
        let (store, first) = Store::open(&path).unwrap();
        let beside = |file: &Path, end| PathBuf::from(format!("{}{end}", file.display()));
        let mut stale = Vec::new();
        for version in 1..=WRITES {
            store.save(version.into(), change(version)).await.unwrap();
            if version == WRITES / 2 {
                // As a backup that copies the file alone.
                stale = std::fs::read(&path).unwrap();
            }
        }
        let (whole, log) =
            (std::fs::read(&path).unwrap(), std::fs::read(beside(&path, "-wal")).unwrap());
        assert!(log.len() > 100 * SECTOR, "nothing of it was moved into the database yet");
        drop(store);

        let mut number = 0;
        // Each in a place of its own: the thread of the one before may still be closing it.
        let mut reopen = |database: &[u8], log: &[u8]| {
            number += 1;
            let torn = dir.path().join(format!("{number}-torn.db"));
            std::fs::write(&torn, database).unwrap();
            std::fs::write(beside(&torn, "-wal"), log).unwrap();
            Store::open(&torn).map(|(_, saved)| saved)
        };
        let mut versions = std::collections::BTreeSet::new();
        for end in (0..log.len()).step_by(SECTOR).chain([log.len()]) {
            let what = format!("the log ends at {end}");
            match reopen(&whole, &log[..end]) {
                Ok(saved) => {
                    assert_is_of_one_version(&saved, &first.cluster_id, &what);
                    versions.insert(saved.version);
                }
                Err(error) => panic!("{what}: {error}"),
            }
            // A sector that was never written between others that were.
            if end + SECTOR <= log.len() {
                let mut holed = log.clone();
                holed[end..end + SECTOR].fill(0);
                match reopen(&whole, &holed) {
                    Ok(saved) => assert_is_of_one_version(&saved, &first.cluster_id, &what),
                    Err(error) => assert_names_it(&error),
                }
            }
        }
        assert_eq!(versions.len(), usize::from(WRITES) + 1, "each of them was seen, and none");

        // Everything in the database itself.
        let copied = dir.path().join("copied.db");
        std::fs::write(&copied, &whole).unwrap();
        std::fs::write(beside(&copied, "-wal"), &log).unwrap();
        let merge =
            |connection: Connection| connection.pragma_update(None, "journal_mode", "DELETE");
        Connection::open(&copied).and_then(merge).unwrap();
        let full = std::fs::read(&copied).unwrap();
        assert!(full.len() > 10 * SECTOR, "closing moved the log into it");
        for end in (0..full.len()).step_by(SECTOR) {
            match reopen(&full[..end], &[]) {
                // Of a table that is empty the end is zeros, which are read where nothing is.
                Ok(saved) if end > 0 && full[end..].iter().all(|byte| *byte == 0) => {
                    assert_is_of_one_version(&saved, &first.cluster_id, "nothing is missing");
                    assert_eq!(saved.version, u64::from(WRITES), "it ends at {end}");
                }
                Ok(saved) => assert!(end == 0 && saved.version == 0, "it ends at {end}"),
                Err(error) => assert_names_it(&error),
            }
        }
        for log in [&log[..], &log[..log.len() / 2]] {
            if let Ok(saved) = reopen(&stale, log) {
                assert_is_of_one_version(&saved, &first.cluster_id, "a stale database");
            }
        }
    }

    #[test]
    fn a_database_of_a_later_release_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manager.db");
        drop(Store::open(&path).unwrap());
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        assert!(matches!(Store::open(&path), Err(Error::Newer { found: 99, known: 2, .. })));
    }
}
