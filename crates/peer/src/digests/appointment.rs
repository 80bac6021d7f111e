//! The scheduler's word that a host signs the digests of one task although it is no seed: it stands in, or is to where
//! nobody else does.
//!
//! Signed with the scheduler's own key, so that it can be handed back by whoever keeps it: a scheduler that was
//! restarted, and knows nobody any more, knows its own word again. Bound to the task, the host, its key and its office; nobody
//! makes one for itself.

use std::fmt;

use bytes::Bytes;
use dfs_model::{HostId, TaskId};
use ed25519_dalek::{Signature, Signer, VerifyingKey};

use super::{Identity, array};

/// Separates these signatures from any other use of the key.
const CONTEXT: &[u8] = b"dfs.stand-in.v1\0";

/// As what a host signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Office {
    /// In the place of a seed, for everybody.
    StandIn,
    /// For those to whom nobody else brings anything, and for others where nobody else signs (decision 0022).
    Reserve,
}

impl Office {
    /// The first byte; tells an appointment from a batch of digests, beside which it is kept.
    const fn format(self) -> u8 {
        match self {
            Self::StandIn => 0x82,
            Self::Reserve => 0x81,
        }
    }

    fn of_format(format: u8) -> Option<Self> {
        [Self::StandIn, Self::Reserve].into_iter().find(|office| office.format() == format)
    }
}

const HEAD: usize = 1 + TaskId::LEN + HostId::LEN + 32 + HostId::LEN;

/// Most who are appointed for one task and known at a time; the oldest are forgotten first.
pub const MOST_APPOINTED: usize = 64;

/// Who signs for one task in the place of a seed, as a scheduler says.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Appointment {
    /// Of what.
    pub task: TaskId,
    /// As what.
    pub office: Office,
    /// Who signs.
    pub host: HostId,
    /// With which key.
    pub key: [u8; 32],
    /// Who says so.
    scheduler: HostId,
    signature: [u8; 64],
}

/// An appointment that is no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppointmentError {
    /// Cut off, followed by other bytes, or of a newer release.
    #[error("an appointment is unreadable")]
    Unreadable,
    /// Nobody known, or no scheduler.
    #[error("{0}, which appointed a stand-in, is no scheduler that is known")]
    UnknownScheduler(HostId),
    /// The signature is not the scheduler's over these words.
    #[error("{host} was not appointed for task {task} by {scheduler}")]
    Forged {
        /// Of what.
        task: TaskId,
        /// Who.
        host: HostId,
        /// By whom, as is said.
        scheduler: HostId,
    },
}

impl Appointment {
    /// The longest encoding; all are as long.
    pub const BYTES: usize = HEAD + 64;

    /// Appoints a host, in the scheduler's name.
    pub fn sign(
        task: TaskId,
        office: Office,
        (host, key): (HostId, [u8; 32]),
        scheduler: &Identity,
    ) -> Self {
        let signature = [0; 64];
        let scheduler_id = scheduler.host();
        let mut appointment = Self { task, office, host, key, scheduler: scheduler_id, signature };
        let signed = scheduler.signing_key().sign(&appointment.message());
        appointment.signature = signed.to_bytes();
        appointment
    }

    fn head(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::BYTES);
        out.push(self.office.format());
        out.extend_from_slice(self.task.as_bytes());
        out.extend_from_slice(self.host.as_bytes());
        out.extend_from_slice(&self.key);
        out.extend_from_slice(self.scheduler.as_bytes());
        out
    }

    fn message(&self) -> Vec<u8> {
        [CONTEXT, &self.head()].concat()
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = self.head();
        out.extend_from_slice(&self.signature);
        out.into()
    }

    /// Reads exactly one; the signature is not checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, AppointmentError> {
        let office = bytes.first().copied().and_then(Office::of_format);
        let office = office.filter(|_| bytes.len() == Self::BYTES);
        let office = office.ok_or(AppointmentError::Unreadable)?;
        Ok(Self {
            office,
            task: TaskId::from_bytes(array(&bytes[1..33])),
            host: HostId::from_bytes(array(&bytes[33..49])),
            key: array(&bytes[49..81]),
            scheduler: HostId::from_bytes(array(&bytes[81..97])),
            signature: array(&bytes[97..]),
        })
    }

    /// Checks the signature against the key of the scheduler, which `lookup` finds.
    pub fn verify(
        &self,
        lookup: impl Fn(&HostId) -> Option<[u8; 32]>,
    ) -> Result<(), AppointmentError> {
        let Self { task, host, scheduler, .. } = *self;
        let key = lookup(&scheduler).ok_or(AppointmentError::UnknownScheduler(scheduler))?;
        let forged = |_| AppointmentError::Forged { task, host, scheduler };
        let key = VerifyingKey::from_bytes(&key).map_err(forged)?;
        key.verify_strict(&self.message(), &Signature::from_bytes(&self.signature)).map_err(forged)
    }
}

impl fmt::Debug for Appointment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appointment")
            .field("task", &self.task)
            .field("office", &self.office)
            .field("host", &self.host)
            .field("scheduler", &self.scheduler)
            .finish_non_exhaustive()
    }
}
