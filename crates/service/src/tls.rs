//! Certificates: who a process is to others, and how it proves it.
//!
//! A cluster has one [`Authority`], kept by its manager. It signs certificates that last a day and name
//! hosts in roles ([`Names`]). A process gets its first one for a [`JoinToken`] and each next one for the
//! one before ([`enrol`]); it keeps it in its data directory ([`Credentials`]) and uses the newest for every
//! new connection ([`Identity`]). Private keys never leave the process that made them. What may be known of
//! the other side is decided here; connections are made in [`net`](crate::net).

pub mod authority;
mod credentials;
pub mod enrol;
mod identity;
mod names;
mod request;
mod stand_in;
mod token;
mod verify;

#[cfg(test)]
pub(crate) use identity::tests;

pub use authority::{Authority, Certificate, Validity};
pub use credentials::{Credentials, CredentialsError, now_ms};
pub use identity::{Identity, Plane, ReadAhead, connect_by_token};
pub use names::{BadNames, Name, Names, Role};
pub use request::{BadRequest, Host, Key, SigningRequest, ask, names_of};
pub use stand_in::{StandIn, StandInError};
pub use token::{BadToken, Fingerprint, JoinToken, Secret};
pub use verify::Refused;
