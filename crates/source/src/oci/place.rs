//! Where something is asked for, and whether over TLS: as `registries.conf` says it of this one place, or as is said of its host.

use dfs_model::{CanonicalUrl, UrlError};

use super::plain::PlainHosts;
use super::reference::Reference;

/// Something in a registry, as it is asked for.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub reference: Reference,
    /// Whether it is asked without TLS whatever its host is.
    pub is_insecure: bool,
}

impl Place {
    /// The same place, for something else there.
    pub fn of(&self, beside: impl FnOnce(&Reference) -> Reference) -> Self {
        Self { reference: beside(&self.reference), is_insecure: self.is_insecure }
    }

    pub fn is_plain(&self, hosts: &PlainHosts) -> bool {
        self.is_insecure || hosts.has(self.reference.address())
    }

    pub fn scheme(&self, hosts: &PlainHosts) -> &'static str {
        if self.is_plain(hosts) { "http" } else { "https" }
    }

    /// What stands at a path of the registry.
    pub fn url(&self, path: &str, hosts: &PlainHosts) -> Result<CanonicalUrl, UrlError> {
        let (scheme, address) = (self.scheme(hosts), self.reference.address());
        CanonicalUrl::parse(&format!("{scheme}://{address}{path}"))
    }
}
