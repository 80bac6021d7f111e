//! The durable side: who is a member of the cluster, under which lease, and who has a certificate of it.
//!
//! Owns the member list and the database `manager.db` under the data directory. A change is on disk
//! before anybody hears of it, so a list's version never means two things. When the process dies the
//! leases go on from the moment it is back; members renew.

mod enrolment;
mod grpc;
mod registry;
mod service;
mod store;

use std::path::PathBuf;
use std::time::Duration;

use dfs_model::{Nearest, is_hidden, printable};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

pub use enrolment::{Desk, MAX_REQUEST, Registrar};
pub use grpc::Grpc;
pub use registry::Rejected;
pub use service::{Handle, Service};

/// The socket in the data directory at which it makes join tokens.
pub const SOCKET: &str = "manager.sock";

/// What a manager can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// How long a member may be silent before it is dropped from the list.
    #[serde(with = "crate::duration::waited")]
    pub lease: Duration,
    /// How long certificates last; each is renewed when two thirds of that are over.
    #[serde(with = "crate::duration::waited")]
    pub certificate_lifetime: Duration,
    /// The area that is nearest to an origin, by the host, `host:port` or bucket of its URLs: its seed asks the origin
    /// for all areas. Of an origin that is not named the areas agree on one by its name.
    #[serde(deserialize_with = "origins")]
    pub nearest: Nearest,
}

/// Origins as URLs name them, each with an area.
fn origins<'de, D: Deserializer<'de>>(value: D) -> Result<Nearest, D::Error> {
    let nearest = Nearest::deserialize(value)?;
    let is_origin = |text: &str| {
        let is_none = |c: char| is_hidden(c) || c.is_whitespace() || "/?#@".contains(c);
        !text.is_empty() && !text.contains(is_none)
    };
    match nearest.iter().find(|(origin, area)| !is_origin(origin) || area.contains(is_hidden)) {
        Some((origin, area)) => Err(D::Error::custom(format!(
            "'{} = {}' does not name an area for a host, host:port or bucket",
            printable(origin),
            printable(area)
        ))),
        None => Ok(nearest),
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            certificate_lifetime: Duration::from_secs(24 * 3600),
            nearest: Nearest::new(),
        }
    }
}

/// Why a manager cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be used.
    #[error("cannot {action} the manager's database {}", path.display())]
    Database {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The database was written by a later release.
    #[error("{} has schema {found}, this release knows {known}: use the later release", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema's number.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// A row that cannot be read.
    #[error("{} holds a member that cannot be read", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The writer thread cannot be started.
    #[error("cannot start the thread that writes the manager's database")]
    Thread(#[source] std::io::Error),
    /// The service has stopped.
    #[error("the manager has stopped")]
    Stopped,
}
