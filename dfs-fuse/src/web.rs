//! The registry mirror: container runtimes of this machine pull through the agent, and need not know of it.
//!
//! It answers what a registry answers (OCI distribution 1.1), for the registry that `?ns=` or the first part of a name
//! says, else for the one that it stands for. Who asks is judged by that registry, each time, by what they show themselves:
//! a manifest, a tag list and each error are the registry's own answers, and a blob is looked at there before a byte of it
//! is given. The bytes of blobs come through the swarm, as the tasks that they are, and from the registry where the swarm
//! fails, from the byte on that was reached; an answer that cannot be ended well breaks its connection. What is whole is
//! held against its digest before its last byte is given.
//!
//! It is never an open proxy: it listens on loopback, or for named networks and named registries only; it speaks to
//! registries and gives nothing but what they have. When the process dies here, answers break off in the middle; clients
//! ask again, or go to the registry.
//!
//! [`proxy`] is the same for whatever else there is on the web, for clients that ask by a proxy.

mod answer;
mod asked;
mod blob;
mod clients;
mod guarded;
mod mirror;
mod mirroring;
pub mod proxy;
mod range;
mod registry;

use std::net::SocketAddr;

pub use blob::Counts;
pub use clients::Network;
pub use mirror::Mirror;
pub use mirroring::Mirroring;
pub use proxy::{Proxy, ProxyCounts, ProxyError, ProxyOptions};
pub use registry::RegistryHost;

/// For whom there is a mirror, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Registries that may be asked through it; any where there are none, by clients of this machine.
    pub registries: Vec<RegistryHost>,
    /// Networks of other machines that may ask.
    pub clients: Vec<Network>,
    /// The registry that is meant where none is named.
    pub default: RegistryHost,
}

/// Why there is no mirror.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Others could reach it, and nothing says who may, and what.
    #[error(
        "refusing to mirror registries on {listen}: others can reach it; name the networks that may ask \
         (--mirror-client 10.0.0.0/8) and the registries that they may ask for (--mirror-registry HOST), or \
         listen on loopback (127.0.0.1 or ::1)"
    )]
    Open {
        /// Where it was to listen.
        listen: SocketAddr,
    },
    /// The site has another adapter for registries, which cannot pass on what clients ask.
    #[error("registries cannot be mirrored: this program's source for oci:// is not dfs's own")]
    OtherSource,
}

impl MirrorOptions {
    /// Whether it is nobody's open proxy.
    pub fn check(&self) -> Result<(), MirrorError> {
        let is_ours = self.listen.ip().to_canonical().is_loopback();
        let is_bounded = !self.clients.is_empty() && !self.registries.is_empty();
        match is_ours || is_bounded {
            true => Ok(()),
            false => Err(MirrorError::Open { listen: self.listen }),
        }
    }

    /// Whether whoever is there may ask.
    fn lets_in(&self, client: SocketAddr) -> bool {
        clients::let_in(&self.clients, client)
    }

    /// Whether this registry may be asked.
    fn has(&self, registry: &RegistryHost) -> bool {
        self.registries.is_empty()
            || self.registries.contains(registry)
            || self.default == *registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(listen: &str, registries: &[&str], clients: &[&str]) -> MirrorOptions {
        MirrorOptions {
            listen: listen.parse().unwrap(),
            registries: registries.iter().map(|name| name.parse().unwrap()).collect(),
            clients: clients.iter().map(|network| network.parse().unwrap()).collect(),
            default: "docker.io".parse().unwrap(),
        }
    }

    #[test]
    fn others_are_let_in_only_where_it_is_said_who_and_what_for() {
        let (who, what) = (&["10.0.0.0/8"][..], &["quay.io"][..]);
        assert!(options("127.0.0.1:4050", &[], &[]).check().is_ok());
        assert!(options("[::1]:4050", &[], &[]).check().is_ok());
        assert!(options("0.0.0.0:4050", what, who).check().is_ok());
        for (what, who) in [(&[][..], &[][..]), (what, &[]), (&[], who)] {
            for listen in ["0.0.0.0:4050", "10.0.0.1:4050", "[::]:4050", "[::ffff:10.0.0.1]:1"] {
                let error = options(listen, what, who).check().unwrap_err().to_string();
                assert!(error.contains("--mirror-client") && error.contains(listen), "{error}");
            }
        }
    }

    #[test]
    fn who_asks_and_what_for_is_looked_at() {
        let options = options("0.0.0.0:4050", &["quay.io"], &["10.0.0.0/8", "fd00::/8"]);
        for (client, is_let_in) in [
            ("127.0.0.1:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.1.2.3:1", true),
            ("[::ffff:10.1.2.3]:1", true),
            ("[fd00::1]:1", true),
            ("11.1.2.3:1", false),
            ("[fe80::1]:1", false),
        ] {
            assert_eq!(options.lets_in(client.parse().unwrap()), is_let_in, "{client}");
        }
        assert!(options.has(&"quay.io".parse().unwrap()));
        assert!(options.has(&"docker.io".parse().unwrap()), "what it stands for");
        assert!(!options.has(&"ghcr.io".parse().unwrap()));
    }
}
