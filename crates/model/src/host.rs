//! Machines taking part in the swarm.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::HostId;

/// What a host is to the swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostKind {
    /// A node agent or a one-shot client.
    Node,
    /// Goes back to source for the cluster, and keeps.
    Seed,
}

/// Where a host stands; empty fields are unknown.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Location {
    /// Region: scheduler and seed rings are per area.
    pub area: String,
    /// Data centre: within it the network is wide.
    pub idc: String,
    /// Finer place, elements separated by `|`, widest first.
    pub rack: String,
}

/// Whether two names are of one data centre, whatever letters they are written with; `None` where either is not known.
pub fn same_idc(one: &str, other: &str) -> Option<bool> {
    let are_known = !one.is_empty() && !other.is_empty();
    are_known.then(|| one.eq_ignore_ascii_case(other))
}

/// A host as it announces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Its lasting name.
    pub id: HostId,
    /// What it is to the swarm.
    pub kind: HostKind,
    /// Name for people.
    pub name: String,
    /// Where it stands.
    pub location: Location,
    /// Addresses of its piece plane, best first; IPv4 and IPv6.
    pub addresses: Vec<SocketAddr>,
    /// Ed25519 key that its digest batches are signed with.
    pub public_key: [u8; 32],
    /// Uploads it serves at a time.
    pub upload_slots: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_centre_that_is_not_known_is_neither_the_same_nor_another() {
        assert_eq!(same_idc("East", "eAST"), Some(true));
        assert_eq!(same_idc("east", "west"), Some(false));
        assert_eq!([same_idc("", "west"), same_idc("west", ""), same_idc("", "")], [None; 3]);
    }
}
