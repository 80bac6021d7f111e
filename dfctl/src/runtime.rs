//! Container runtimes told to pull through the node agent's mirror, and told to do so no more.
//!
//! What a runtime is told is planned over the texts of its files, without touching any ([`Runtime::plan`]); what is written
//! is recorded first, with what was there before, so that it can be taken back exactly, also where somebody edited
//! something else since ([`Written::undone`]). The registry itself stays what is asked last: with the agent gone pulls go
//! there. A process that dies in the middle leaves files whole, each as before or as planned, and the record to take
//! all of it back.

mod containerd;
mod diff;
mod docker;
mod place;
mod record;
mod registries;

use std::net::SocketAddr;

use toml_edit::DocumentMut;

pub use diff::unified;
pub use place::{Place, PlaceError};
pub use record::{Record, Written};
pub use registries::DROP_INS;

/// Says whose lines these are, wherever a file can say it.
const OURS: &str = "Written by `dfctl runtime install`; with `--undo` it is taken away.";

/// A container runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Runtime {
    /// containerd, also below Kubernetes
    Containerd,
    /// Docker
    Docker,
    /// Podman, and what else reads registries.conf: buildah, skopeo
    Podman,
    /// CRI-O
    #[value(name = "cri-o")]
    CriO,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Where the mirror listens.
    pub mirror: SocketAddr,
    /// Registries that are pulled from through it, where the runtime wants them named.
    pub registries: Vec<String>,
}

/// Why a runtime cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub struct Unfit {
    /// Which file.
    pub path: String,
    /// What stands against it.
    pub why: String,
}

impl Unfit {
    fn new(path: &str, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), why: why.into() }
    }
}

/// Reads a file of TOML.
fn document(path: &str, text: &str) -> Result<DocumentMut, Unfit> {
    let parsed = text.parse::<DocumentMut>();
    parsed.map_err(|error| Unfit::new(path, format!("it cannot be read: {}", error.message())))
}

impl Runtime {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::CriO => "cri-o",
        }
    }

    /// How it takes note of what it was told.
    pub fn notice(self) -> Option<&'static str> {
        match self {
            Self::Containerd => Some("systemctl restart containerd"),
            Self::Docker => Some("systemctl reload docker"),
            Self::Podman => None,
            Self::CriO => Some("systemctl reload crio"),
        }
    }

    /// What its files are to say, of those that change; `text` reads one.
    pub fn plan(
        self,
        told: &Told,
        text: &mut dyn FnMut(&str) -> Result<Option<String>, PlaceError>,
        listed: &[String],
    ) -> Result<Vec<(String, String)>, PlanError> {
        match self {
            Self::Containerd => containerd::plan(told, text),
            Self::Docker => docker::plan(told, text),
            Self::Podman | Self::CriO => registries::plan(self, told, text, listed),
        }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// What is there stands against it.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// A file cannot be read.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

#[cfg(test)]
mod tests;
