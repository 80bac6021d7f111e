//! Why a connection or a request came to nothing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dfs_model::HostId;

use super::frame::FrameError;
use super::message::Refusal;

/// No connection to a host.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The host has no address to try.
    #[error("no address is known for host {}", .0.short())]
    NoAddress(HostId),
    /// The link could not be made or broke while greeting.
    #[error("connecting failed")]
    Io(#[source] Arc<io::Error>),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// What answered does not speak this protocol, or breaks it.
    #[error("not a dfs peer, or a broken one")]
    Protocol(#[source] FrameError),
    /// Somebody else answered at this address.
    #[error("host {} answered where {} was expected", found.short(), expected.short())]
    WrongHost {
        /// Who was wanted.
        expected: HostId,
        /// Who answered.
        found: HostId,
    },
    /// It failed recently and is left alone for a while.
    #[error("left alone for another {remaining:?} after a failure")]
    BackingOff {
        /// How much longer.
        remaining: Duration,
        /// The failure.
        #[source]
        last: Arc<ConnectError>,
    },
    /// This side is shutting down.
    #[error("shutting down")]
    ShuttingDown,
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// A request that did not deliver everything it asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    /// The parent said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request's time ran out on this side.
    #[error("not delivered in time")]
    Deadline,
    /// The connection ended.
    #[error("disconnected: {0}")]
    Disconnected(Arc<str>),
    /// The request itself is out of bounds and was never sent.
    #[error("a request out of bounds")]
    OutOfBounds(#[source] FrameError),
}
