//! The database of snapshots: SQLite in WAL mode. `PRAGMA user_version` is the schema's number: older ones are migrated,
//! newer ones refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Info, Kind, Layer, SnapshotError, Usage};

/// One step a schema number; never edited once released.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE snapshots (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        parent INTEGER REFERENCES snapshots (id),
        kind INTEGER NOT NULL,
        created_ns INTEGER NOT NULL,
        updated_ns INTEGER NOT NULL,
        size INTEGER NOT NULL DEFAULT 0,
        inodes INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX children ON snapshots (parent);
    CREATE TABLE labels (
        snapshot INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (snapshot, name)
    ) WITHOUT ROWID;
    CREATE TABLE layers (
        snapshot INTEGER PRIMARY KEY REFERENCES snapshots (id) ON DELETE CASCADE,
        image TEXT NOT NULL,
        number INTEGER NOT NULL,
        of INTEGER NOT NULL,
        top TEXT NOT NULL,
        digest TEXT NOT NULL
    );
    CREATE INDEX blobs ON layers (digest);
    CREATE INDEX images ON layers (image);
"];

/// How long a write waits for another process that has locked the database, as a backup does.
const LOCKED: Duration = Duration::from_secs(5);

/// Opens or makes the database. Blocks.
pub(super) fn open(path: &Path) -> Result<Connection, SnapshotError> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(LOCKED)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(SnapshotError::Newer { path: path.to_owned(), found, known });
    }
    for (step, number) in MIGRATIONS.iter().zip(1_u32..).skip(found as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(connection)
}

/// A snapshot as it stands in the database.
pub(super) struct Found {
    pub id: i64,
    pub parent: Option<i64>,
    pub usage: Usage,
    /// Without its labels, and with the name of its parent.
    pub info: Info,
    /// Where it is a layer of an image that is not unpacked.
    pub layer: Option<Layer>,
}

const FOUND: &str = "
    SELECT s.id, s.parent, s.name, p.name, s.kind, s.created_ns, s.updated_ns, s.size, s.inodes,
           l.image, l.number, l.of, l.top, l.digest
    FROM snapshots s LEFT JOIN snapshots p ON p.id = s.parent LEFT JOIN layers l ON l.snapshot = s.id";

fn found(row: &Row<'_>) -> rusqlite::Result<Found> {
    let parent: Option<String> = row.get(3)?;
    let image: Option<String> = row.get(9)?;
    let layer = image.map(|image| {
        Ok::<_, rusqlite::Error>(Layer {
            image,
            number: row.get(10)?,
            of: row.get(11)?,
            top: row.get(12)?,
            digest: row.get(13)?,
        })
    });
    Ok(Found {
        id: row.get(0)?,
        parent: row.get(1)?,
        usage: Usage { size: row.get(7)?, inodes: row.get(8)? },
        info: Info {
            name: row.get(2)?,
            parent: parent.unwrap_or_default(),
            kind: Kind::of(row.get(4)?),
            created_ns: row.get(5)?,
            updated_ns: row.get(6)?,
            labels: BTreeMap::new(),
        },
        layer: layer.transpose()?,
    })
}

/// The snapshot of this name.
pub(super) fn by_name(connection: &Connection, name: &str) -> Result<Option<Found>, SnapshotError> {
    let query = format!("{FOUND} WHERE s.name = ?1");
    Ok(connection.prepare_cached(&query)?.query_row([name], found).optional()?)
}

/// The snapshot of this number, where it is still there.
pub(super) fn by_id(connection: &Connection, id: i64) -> Result<Option<Found>, SnapshotError> {
    let query = format!("{FOUND} WHERE s.id = ?1");
    Ok(connection.prepare_cached(&query)?.query_row([id], found).optional()?)
}

/// All of them, in the order in which they were made.
pub(super) fn all(connection: &Connection) -> Result<Vec<Found>, SnapshotError> {
    let query = format!("{FOUND} ORDER BY s.id");
    Ok(connection.prepare_cached(&query)?.query_map([], found)?.collect::<Result<_, _>>()?)
}

pub(super) fn labels(
    connection: &Connection,
    id: i64,
) -> Result<BTreeMap<String, String>, SnapshotError> {
    let query = "SELECT name, value FROM labels WHERE snapshot = ?1";
    let pair = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    Ok(connection.prepare_cached(query)?.query_map([id], pair)?.collect::<Result<_, _>>()?)
}

/// Puts these in the place of the labels that it has. An empty value is none, as containerd has it.
pub(super) fn set_labels(
    connection: &Connection,
    id: i64,
    labels: &BTreeMap<String, String>,
) -> Result<(), SnapshotError> {
    connection.execute("DELETE FROM labels WHERE snapshot = ?1", [id])?;
    let insert = "INSERT INTO labels (snapshot, name, value) VALUES (?1, ?2, ?3)";
    let mut insert = connection.prepare_cached(insert)?;
    for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
        insert.execute(params![id, name, value])?;
    }
    Ok(())
}

/// Writes down a new one; its number.
pub(super) fn insert(
    connection: &Connection,
    info: &Info,
    parent: Option<i64>,
) -> Result<i64, SnapshotError> {
    let insert = "INSERT INTO snapshots (name, parent, kind, created_ns, updated_ns) VALUES (?1, ?2, ?3, ?4, ?5)";
    let Info { name, kind, created_ns, updated_ns, .. } = info;
    let values = params![name, parent, kind.number(), created_ns, updated_ns];
    connection.execute(insert, values)?;
    let id = connection.last_insert_rowid();
    set_labels(connection, id, &info.labels)?;
    Ok(id)
}

pub(super) fn insert_layer(
    connection: &Connection,
    id: i64,
    layer: &Layer,
) -> Result<(), SnapshotError> {
    let insert = "INSERT INTO layers (snapshot, image, number, of, top, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let Layer { image, number, of, top, digest } = layer;
    connection.execute(insert, params![id, image, number, of, top, digest])?;
    Ok(())
}

/// Has an active one be committed, by another name.
pub(super) fn commit(
    connection: &Connection,
    id: i64,
    info: &Info,
    usage: Usage,
) -> Result<(), SnapshotError> {
    let update = "UPDATE snapshots SET name = ?2, kind = ?3, created_ns = ?4, updated_ns = ?5, size = ?6, inodes = ?7 WHERE id = ?1";
    let Info { name, kind, created_ns, updated_ns, .. } = info;
    let Usage { size, inodes } = usage;
    let values = params![id, name, kind.number(), created_ns, updated_ns, size, inodes];
    connection.execute(update, values)?;
    set_labels(connection, id, &info.labels)
}

pub(super) fn touch(connection: &Connection, id: i64, now_ns: i64) -> Result<(), SnapshotError> {
    connection
        .execute("UPDATE snapshots SET updated_ns = ?2 WHERE id = ?1", params![id, now_ns])?;
    Ok(())
}

pub(super) fn has_children(connection: &Connection, id: i64) -> Result<bool, SnapshotError> {
    let query = "SELECT EXISTS (SELECT 1 FROM snapshots WHERE parent = ?1)";
    Ok(connection.prepare_cached(query)?.query_row([id], |row| row.get(0))?)
}

pub(super) fn delete(connection: &Connection, id: i64) -> Result<(), SnapshotError> {
    connection.execute("DELETE FROM snapshots WHERE id = ?1", [id])?;
    Ok(())
}

/// The first of the snapshots that are this blob, to which its bytes are counted.
pub(super) fn first_of_blob(
    connection: &Connection,
    digest: &str,
) -> Result<Option<i64>, SnapshotError> {
    let query = "SELECT MIN(snapshot) FROM layers WHERE digest = ?1";
    Ok(connection.prepare_cached(query)?.query_row([digest], |row| row.get(0))?)
}

/// Whether there is a layer of this image.
pub(super) fn has_image(connection: &Connection, image: &str) -> Result<bool, SnapshotError> {
    let query = "SELECT EXISTS (SELECT 1 FROM layers WHERE image = ?1)";
    Ok(connection.prepare_cached(query)?.query_row([image], |row| row.get(0))?)
}
