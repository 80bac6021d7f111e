//! What snapshots there are, with containerd's own rules: which may follow which, and which error says that one may not.
//!
//! Everything happens in one transaction: after a kill -9 at any moment it has happened, or has not. Directories are made
//! within it and taken away behind it, so that what a crash leaves is a directory that no snapshot has
//! ([`Store::directories`]).

mod rows;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::Connection;

use self::rows::Found;

/// Longest name of a snapshot.
const MAX_NAME: usize = 4096;
/// Longest label with its value: containerd takes none that is longer.
const MAX_LABEL: usize = 4096;
/// Labels of a snapshot.
const MAX_LABELS: usize = 256;
/// Snapshots over one another: the kernel takes no more layers.
const MAX_DEPTH: usize = 500;

/// Why something about a snapshot cannot be done. containerd goes by the kind of each.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is none of this name.
    #[error("snapshot {0} does not exist")]
    NotFound(String),
    /// There is one of this name.
    #[error("snapshot {0} already exists")]
    AlreadyExists(String),
    /// It does not have the kind that is wanted.
    #[error("snapshot {name} is not {wanted}")]
    OtherKind {
        /// Which one.
        name: String,
        /// What it had to be.
        wanted: &'static str,
    },
    /// Others lie over it.
    #[error("snapshot {0} has children: remove them first")]
    HasChildren(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The image that a snapshot is of cannot be shown.
    #[error("the image below the snapshot cannot be mounted: {0}")]
    Image(String),
    /// The database.
    #[error("the database of snapshots failed")]
    Database(#[from] rusqlite::Error),
    /// It was written by a later release.
    #[error("{} has format {found}, and this release knows {known} at most: use the later one, or another data directory", .path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// What it has.
        found: u32,
        /// What is known here.
        known: u32,
    },
    /// A directory of a snapshot.
    #[error("cannot {action} {}", .path.display())]
    Directory {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The process is stopping.
    #[error("the agent is stopping")]
    Stopping,
}

/// What a snapshot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To be looked at.
    View,
    /// To be written to.
    Active,
    /// To lie below others.
    Committed,
}

impl Kind {
    fn of(number: i64) -> Self {
        match number {
            1 => Self::View,
            2 => Self::Active,
            _ => Self::Committed,
        }
    }

    fn number(self) -> i64 {
        match self {
            Self::View => 1,
            Self::Active => 2,
            Self::Committed => 3,
        }
    }

    /// As containerd's filters have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::View => "View",
            Self::Active => "Active",
            Self::Committed => "Committed",
        }
    }
}

/// What is told of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its name, which containerd calls its key as long as it is not committed.
    pub name: String,
    /// That of the one below; empty where there is none.
    pub parent: String,
    /// What it is for.
    pub kind: Kind,
    /// When it was made, or committed, in nanoseconds since 1970.
    pub created_ns: i64,
    /// When something of it was changed.
    pub updated_ns: i64,
    /// What others have noted on it.
    pub labels: BTreeMap<String, String>,
}

/// What a snapshot takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of disk.
    pub size: i64,
    /// Files and directories.
    pub inodes: i64,
}

/// A layer of an image of a registry that is shown and not unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The image, by its digest.
    pub image: String,
    /// Which of its layers, counted from 1, the lowest.
    pub number: u32,
    /// How many the image has.
    pub of: u32,
    /// The name of the stack of all of them.
    pub top: String,
    /// The digest of its blob.
    pub digest: String,
}

/// What lies below a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Below {
    /// The directory of the snapshot of this number.
    Directory(i64),
    /// All layers of an image up to this one, as one tree; the snapshot's name is that of the stack.
    Image {
        /// The stack's name.
        name: String,
        /// The uppermost of them.
        layer: Layer,
    },
}

/// A snapshot that containers can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usable {
    /// Its number.
    pub id: i64,
    /// View or active.
    pub kind: Kind,
    /// What lies below it, the nearest first; nothing below an image.
    pub below: Vec<Below>,
}

/// One that was taken away.
#[derive(Debug, PartialEq, Eq)]
pub struct Removed {
    /// Its number.
    pub id: i64,
    /// Where it was a layer of an image.
    pub layer: Option<Layer>,
    /// Whether nothing else is of that blob.
    pub is_last_of_blob: bool,
    /// Whether nothing else is of that image.
    pub is_last_of_image: bool,
}

/// Of what a snapshot's usage is made.
#[derive(Debug, PartialEq, Eq)]
pub enum UsageOf {
    /// As it was when it was committed.
    Known(Usage),
    /// What is in the directory of this number now.
    Directory(i64),
    /// What is stored of this blob.
    Blob(String),
}

/// What to change of a snapshot.
pub enum Change<'a> {
    /// All labels.
    Labels,
    /// The label of this name.
    Label(&'a str),
}

/// See the module.
pub struct Store {
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens or makes the database. Blocks, as all of these do.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        Ok(Self { connection: Mutex::new(rows::open(path)?) })
    }

    /// Makes one that containers can use. `place` makes its directory before it is there for good.
    pub fn create(
        &self,
        info: &Info,
        place: impl FnOnce(&Usable) -> Result<(), SnapshotError>,
    ) -> Result<Usable, SnapshotError> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction()?;
        let (id, parent) = insert(&transaction, info)?;
        let below = below(&transaction, parent)?;
        let usable = Usable { id, kind: info.kind, below };
        place(&usable)?;
        transaction.commit()?;
        Ok(usable)
    }

    /// Writes down a layer of an image as committed. What is there by that name already stays.
    pub fn create_layer(&self, info: &Info, layer: &Layer) -> Result<(), SnapshotError> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction()?;
        let (id, _) = insert(&transaction, info)?;
        rows::insert_layer(&transaction, id, layer)?;
        Ok(transaction.commit()?)
    }

    /// What containers can use by this name.
    pub fn usable(&self, key: &str) -> Result<Usable, SnapshotError> {
        let connection = self.connection.lock();
        let found = wanted(&connection, key)?;
        if found.info.kind == Kind::Committed {
            let (name, wanted) = (key.to_owned(), "active or a view");
            return Err(SnapshotError::OtherKind { name, wanted });
        }
        let below = below(&connection, found.parent)?;
        Ok(Usable { id: found.id, kind: found.info.kind, below })
    }

    /// The number of an active snapshot: its directory is what a commit is about.
    pub fn active(&self, key: &str) -> Result<i64, SnapshotError> {
        active(&self.connection.lock(), key)
    }

    /// Has what is active by the name `key` be committed as `info`, of which parent and kind do not count.
    pub fn commit(&self, key: &str, info: &Info, usage: Usage) -> Result<(), SnapshotError> {
        check(&info.name, &info.labels)?;
        let mut connection = self.connection.lock();
        let transaction = connection.transaction()?;
        wanted(&transaction, key)?;
        check_free(&transaction, &info.name)?;
        let id = active(&transaction, key)?;
        let info = Info { kind: Kind::Committed, ..info.clone() };
        rows::commit(&transaction, id, &info, usage)?;
        Ok(transaction.commit()?)
    }

    /// Takes one away that nothing lies over.
    pub fn remove(&self, key: &str) -> Result<Removed, SnapshotError> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction()?;
        let found = wanted(&transaction, key)?;
        if rows::has_children(&transaction, found.id)? {
            return Err(SnapshotError::HasChildren(key.to_owned()));
        }
        rows::delete(&transaction, found.id)?;
        let Found { id, layer, .. } = found;
        let (is_last_of_blob, is_last_of_image) = match &layer {
            Some(layer) => (
                rows::first_of_blob(&transaction, &layer.digest)?.is_none(),
                !rows::has_image(&transaction, &layer.image)?,
            ),
            None => (false, false),
        };
        transaction.commit()?;
        Ok(Removed { id, layer, is_last_of_blob, is_last_of_image })
    }

    /// What is told of one.
    pub fn info(&self, key: &str) -> Result<Info, SnapshotError> {
        let connection = self.connection.lock();
        let found = wanted(&connection, key)?;
        Ok(Info { labels: rows::labels(&connection, found.id)?, ..found.info })
    }

    /// What is told of all of them.
    pub fn infos(&self) -> Result<Vec<Info>, SnapshotError> {
        let connection = self.connection.lock();
        let with_labels =
            |found: Found| Ok(Info { labels: rows::labels(&connection, found.id)?, ..found.info });
        rows::all(&connection)?.into_iter().map(with_labels).collect()
    }

    /// Changes labels to what `to` has; how it is told of by then.
    pub fn update(
        &self,
        to: &Info,
        changes: &[Change<'_>],
        now_ns: i64,
    ) -> Result<Info, SnapshotError> {
        check(&to.name, &to.labels)?;
        let mut connection = self.connection.lock();
        let transaction = connection.transaction()?;
        let found = wanted(&transaction, &to.name)?;
        let mut labels = rows::labels(&transaction, found.id)?;
        for change in changes {
            match change {
                Change::Labels => labels.clone_from(&to.labels),
                Change::Label(name) => {
                    let value = to.labels.get(*name).cloned().unwrap_or_default();
                    labels.insert((*name).to_owned(), value);
                }
            }
        }
        check(&to.name, &labels)?;
        rows::set_labels(&transaction, found.id, &labels)?;
        rows::touch(&transaction, found.id, now_ns)?;
        let labels = rows::labels(&transaction, found.id)?;
        transaction.commit()?;
        Ok(Info { labels, updated_ns: now_ns, ..found.info })
    }

    /// Of what the usage of one is made.
    pub fn usage(&self, key: &str) -> Result<UsageOf, SnapshotError> {
        let connection = self.connection.lock();
        let Found { id, info, usage, layer, .. } = wanted(&connection, key)?;
        let Some(layer) = layer else {
            let is_written = info.kind == Kind::Active;
            return Ok(if is_written { UsageOf::Directory(id) } else { UsageOf::Known(usage) });
        };
        // The bytes of a blob are counted once.
        Ok(match rows::first_of_blob(&connection, &layer.digest)? == Some(id) {
            true => UsageOf::Blob(layer.digest),
            false => UsageOf::Known(Usage::default()),
        })
    }

    /// The numbers of all that have a directory.
    pub fn directories(&self) -> Result<HashSet<i64>, SnapshotError> {
        let all = rows::all(&self.connection.lock())?;
        Ok(all.into_iter().filter(|found| found.layer.is_none()).map(|found| found.id).collect())
    }

    /// The layers of images that there are, each by the name of its stack.
    pub fn layers(&self) -> Result<Vec<(String, Layer)>, SnapshotError> {
        let all = rows::all(&self.connection.lock())?;
        Ok(all.into_iter().filter_map(|found| Some((found.info.name, found.layer?))).collect())
    }

    /// Whether there is a layer by this name, over this parent.
    pub fn has_layer(&self, name: &str, parent: &str) -> Result<bool, SnapshotError> {
        let found = rows::by_name(&self.connection.lock(), name)?;
        Ok(found.is_some_and(|found| found.layer.is_some() && found.info.parent == parent))
    }

    /// Whether what has this name is a layer of an image.
    pub fn is_layer(&self, name: &str) -> Result<bool, SnapshotError> {
        let found = rows::by_name(&self.connection.lock(), name)?;
        Ok(found.is_some_and(|found| found.layer.is_some()))
    }

    /// Whether there is a layer of this blob.
    pub fn has_blob(&self, digest: &str) -> Result<bool, SnapshotError> {
        Ok(rows::first_of_blob(&self.connection.lock(), digest)?.is_some())
    }

    /// What would lie below a snapshot with this parent.
    pub fn below(&self, parent: &str) -> Result<Vec<Below>, SnapshotError> {
        if parent.is_empty() {
            return Ok(Vec::new());
        }
        let connection = self.connection.lock();
        let parent = wanted(&connection, parent)?.id;
        below(&connection, Some(parent))
    }
}

/// Refuses what is longer than anything that containerd has.
fn check(name: &str, labels: &BTreeMap<String, String>) -> Result<(), SnapshotError> {
    let invalid = |why: String| Err(SnapshotError::Invalid(why));
    if name.is_empty() {
        return invalid("a snapshot has a name".to_owned());
    }
    if name.len() > MAX_NAME {
        return invalid(format!("the name of a snapshot has {MAX_NAME} bytes at most"));
    }
    if labels.values().filter(|value| !value.is_empty()).count() > MAX_LABELS {
        return invalid(format!("a snapshot has {MAX_LABELS} labels at most"));
    }
    if labels.iter().any(|(name, value)| name.len() + value.len() > MAX_LABEL) {
        return invalid(format!("a label has {MAX_LABEL} bytes at most, with its value"));
    }
    Ok(())
}

fn wanted(connection: &Connection, name: &str) -> Result<Found, SnapshotError> {
    rows::by_name(connection, name)?.ok_or_else(|| SnapshotError::NotFound(name.to_owned()))
}

fn active(connection: &Connection, key: &str) -> Result<i64, SnapshotError> {
    let found = wanted(connection, key)?;
    match found.info.kind {
        Kind::Active => Ok(found.id),
        Kind::View | Kind::Committed => {
            Err(SnapshotError::OtherKind { name: key.to_owned(), wanted: "active" })
        }
    }
}

fn check_free(connection: &Connection, name: &str) -> Result<(), SnapshotError> {
    match rows::by_name(connection, name)? {
        Some(_) => Err(SnapshotError::AlreadyExists(name.to_owned())),
        None => Ok(()),
    }
}

/// Writes down a new one, which may be there by this name and over this parent; its number and that of the parent.
fn insert(connection: &Connection, info: &Info) -> Result<(i64, Option<i64>), SnapshotError> {
    check(&info.name, &info.labels)?;
    let parent = parent_of(connection, info)?;
    check_free(connection, &info.name)?;
    Ok((rows::insert(connection, info, parent)?, parent))
}

fn parent_of(connection: &Connection, info: &Info) -> Result<Option<i64>, SnapshotError> {
    if info.parent.is_empty() {
        return Ok(None);
    }
    let parent = wanted(connection, &info.parent)?;
    if parent.info.kind != Kind::Committed {
        let why = format!("the parent {} is not a committed snapshot", info.parent);
        return Err(SnapshotError::Invalid(why));
    }
    Ok(Some(parent.id))
}

/// What lies below one with this parent.
fn below(connection: &Connection, mut parent: Option<i64>) -> Result<Vec<Below>, SnapshotError> {
    let mut below = Vec::new();
    while let Some(id) = parent {
        if below.len() == MAX_DEPTH {
            let why = format!("{MAX_DEPTH} snapshots at most lie over one another");
            return Err(SnapshotError::Invalid(why));
        }
        let Some(found) = rows::by_id(connection, id)? else { break };
        if let Some(layer) = found.layer {
            below.push(Below::Image { name: found.info.name, layer });
            break;
        }
        below.push(Below::Directory(id));
        parent = found.parent;
    }
    Ok(below)
}

#[cfg(test)]
mod tests;
