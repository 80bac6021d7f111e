//! What a certificate says: hosts, each in a role.

use std::fmt;
use std::str::FromStr;

use dfs_model::HostId;
use dfs_proto::manager;

/// Most names in one certificate: a process runs few roles.
pub const MAX_NAMES: usize = 8;

/// As what a host takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Keeps the cluster together.
    Manager,
    /// Says who may take what from whom.
    Scheduler,
    /// Reads origins for all.
    Seed,
    /// Takes and gives pieces.
    Node,
    /// The same, for a process beside a node that ends soon.
    Guest,
}

impl Role {
    const ALL: [Self; 5] = [Self::Manager, Self::Scheduler, Self::Seed, Self::Node, Self::Guest];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Scheduler => "scheduler",
            Self::Seed => "seed",
            Self::Node => "node",
            Self::Guest => "guest",
        }
    }

    /// Whether a host in this role gives and takes pieces.
    pub fn has_pieces(self) -> bool {
        matches!(self, Self::Seed | Self::Node | Self::Guest)
    }

    /// As it travels.
    pub fn wire(self) -> manager::Role {
        match self {
            Self::Manager => manager::Role::Manager,
            Self::Scheduler => manager::Role::Scheduler,
            Self::Seed => manager::Role::Seed,
            Self::Node => manager::Role::Node,
            Self::Guest => manager::Role::Guest,
        }
    }

    /// As it travelled; `None` for what is no role.
    pub fn of_wire(role: manager::Role) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.wire() == role)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = BadNames;

    fn from_str(text: &str) -> Result<Self, BadNames> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        found.ok_or_else(|| BadNames::Malformed(shortened(text)))
    }
}

/// A host in a role: `dfs://HOST/ROLE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Who.
    pub host: HostId,
    /// As what.
    pub role: Role,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dfs://{}/{}", self.host, self.role)
    }
}

impl FromStr for Name {
    type Err = BadNames;

    fn from_str(text: &str) -> Result<Self, BadNames> {
        let malformed = || BadNames::Malformed(shortened(text));
        let parts = text.strip_prefix("dfs://").and_then(|rest| rest.split_once('/'));
        let (host, role) = parts.ok_or_else(malformed)?;
        Ok(Self { host: host.parse().map_err(|_| malformed())?, role: role.parse()? })
    }
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// Names that no certificate of a cluster has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNames {
    /// Nobody.
    #[error("the certificate names no host of a cluster")]
    None,
    /// Too many.
    #[error("the certificate has {0} names, at most {MAX_NAMES} are usual")]
    TooMany(usize),
    /// Something else.
    #[error("the certificate names '{0}', which is no host in a role")]
    Malformed(String),
    /// Two hosts behind one piece plane.
    #[error("the certificate names two hosts that give pieces")]
    TwoPieceHosts,
}

/// Everything that one certificate names; of hosts that give and take pieces at most one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(Vec<Name>);

impl Names {
    /// Checks names; their order does not matter.
    pub fn new(mut names: Vec<Name>) -> Result<Self, BadNames> {
        if names.is_empty() {
            return Err(BadNames::None);
        }
        if names.len() > MAX_NAMES {
            return Err(BadNames::TooMany(names.len()));
        }
        names.sort_unstable();
        names.dedup();
        let mut hosts = names.iter().filter(|name| name.role.has_pieces()).map(|name| name.host);
        let first = hosts.next();
        if hosts.any(|host| Some(host) != first) {
            return Err(BadNames::TwoPieceHosts);
        }
        Ok(Self(names))
    }

    /// A host in a role and no other.
    pub fn one(host: HostId, role: Role) -> Self {
        Self(vec![Name { host, role }])
    }

    /// All of them.
    pub fn all(&self) -> &[Name] {
        &self.0
    }

    /// Whether this host is named in this role.
    pub fn has(&self, host: HostId, role: Role) -> bool {
        self.0.contains(&Name { host, role })
    }

    /// Whether anybody is named in this role.
    pub fn has_role(&self, role: Role) -> bool {
        self.0.iter().any(|name| name.role == role)
    }

    /// Who gives and takes pieces.
    pub fn piece_host(&self) -> Option<HostId> {
        self.0.iter().find(|name| name.role.has_pieces()).map(|name| name.host)
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.0.iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(f, "{comma}{} {}", name.role, name.host.short())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(n: u8) -> HostId {
        HostId::from_bytes([n; 16])
    }

    #[test]
    fn a_name_is_read_as_it_is_written_and_nothing_else_is() {
        for role in Role::ALL {
            let name = Name { host: host(7), role };
            assert_eq!(name.to_string().parse(), Ok(name));
            assert_eq!(Role::of_wire(role.wire()), Some(role));
        }
        let id = host(1).to_string();
        for bad in [
            "".to_owned(),
            format!("https://{id}/node"),
            format!("dfs://{id}"),
            format!("dfs://{id}/"),
            format!("dfs://{id}/root"),
            format!("dfs://{id}/node/"),
            format!("dfs://{}/node", &id[1..]),
            format!("DFS://{id}/node"),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert_eq!(Role::of_wire(manager::Role::Unspecified), None);
    }

    #[test]
    fn one_host_at_most_is_behind_a_piece_plane() {
        let name = |n, role| Name { host: host(n), role };
        let all = vec![name(1, Role::Manager), name(1, Role::Scheduler), name(2, Role::Seed)];
        let names = Names::new(all).unwrap();
        assert_eq!(names.piece_host(), Some(host(2)));
        assert!(names.has(host(1), Role::Scheduler) && !names.has(host(2), Role::Scheduler));
        let two = vec![name(1, Role::Node), name(2, Role::Seed)];
        assert_eq!(Names::new(two), Err(BadNames::TwoPieceHosts));
        assert_eq!(Names::new(Vec::new()), Err(BadNames::None));
        let many = (0..9).map(|n| name(n, Role::Scheduler)).collect();
        assert_eq!(Names::new(many), Err(BadNames::TooMany(9)));
        assert_eq!(Names::one(host(1), Role::Manager).piece_host(), None);
    }
}
