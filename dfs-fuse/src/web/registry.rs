//! Registries by host and port, as a client names them. Pure; hostile until checked.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use dfs_model::{CanonicalUrl, printable, shortened};
use dfs_source::is_nobodys;
use dfs_source::oci::{Reference, is_registry};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest that is looked at.
const MAX_BYTES: usize = 255;

/// A registry: `HOST` or `HOST:PORT`, in its one spelling.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegistryHost(String);

impl RegistryHost {
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one that stands as the first part of a repository's name, where no colon can: `HOST` or `HOST__PORT`. Repositories
    /// of a registry that is named otherwise have no dot there.
    pub fn in_path(part: &str) -> Option<Self> {
        let (host, port) = part.split_once("__").map_or((part, None), |(h, p)| (h, Some(p)));
        if !is_registry(host) {
            return None;
        }
        match port {
            Some(port) => format!("{host}:{port}").parse().ok(),
            None => host.parse().ok(),
        }
    }
}

impl FromStr for RegistryHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = || printable(&shortened(text, 80));
        let wrong = |why: &str| format!("'{}' names no registry: {why}", shown());
        if text.len() > MAX_BYTES {
            return Err(wrong("it is too long"));
        }
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        if text.is_empty() || !text.bytes().all(known) {
            return Err(wrong("it is HOST or HOST:PORT and nothing else"));
        }
        let url = |scheme| CanonicalUrl::parse(&format!("{scheme}://{text}/x"));
        let named = url("oci").ok().and_then(|url| Reference::of(&url).ok());
        // As it will be asked: what is an address there in another spelling is none that anybody means.
        let (Some(named), Ok(asked)) = (named, url("https")) else {
            return Err(wrong("it is no host"));
        };
        if asked.url().port() == Some(0) {
            return Err(wrong("nobody listens on port 0"));
        }
        let host = asked.url().host_str().unwrap_or_default();
        let has_gaps = host.split('.').any(str::is_empty);
        if has_gaps || !text.to_ascii_lowercase().starts_with(host) {
            return Err(wrong("it is no host"));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok_and(is_nobodys) {
            return Err(wrong("no registry is at such an address"));
        }
        Ok(Self(named.registry().to_owned()))
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RegistryHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RegistryHost {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        String::deserialize(value)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_has_one_spelling() {
        for (text, spelled) in [
            ("docker.io", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("Quay.IO", "quay.io"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("[::1]:5000", "[::1]:5000"),
            ("localhost:5000", "localhost:5000"),
        ] {
            assert_eq!(text.parse::<RegistryHost>().unwrap().as_str(), spelled);
        }
    }

    #[test]
    fn what_is_no_registry_is_refused() {
        for bad in [
            "",
            "/",
            "a/b",
            "user@host",
            "user:pw@host",
            "host:0",
            "host:99999",
            "host:x",
            "h?x",
            "h#x",
            "h%2fx",
            "169.254.169.254",
            "169.254.169.254:80",
            "[fe80::1]",
            "[::ffff:169.254.169.254]",
            "0.0.0.0",
            "[::]:5000",
            "224.0.0.1",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "..",
            "a..b",
            ".a",
            "a.",
            "h\nx",
            "h x",
            "[x]",
            "::1",
            &"x".repeat(300),
        ] {
            let parsed = bad.parse::<RegistryHost>();
            assert!(parsed.is_err(), "{bad:?} {parsed:?}");
        }
    }

    #[test]
    fn a_registry_stands_in_a_path_without_a_colon() {
        let found = |part| RegistryHost::in_path(part).map(|found| found.0);
        assert_eq!(found("quay.io").as_deref(), Some("quay.io"));
        assert_eq!(found("127.0.0.1__5000").as_deref(), Some("127.0.0.1:5000"));
        assert_eq!(found("localhost__5000").as_deref(), Some("localhost:5000"));
        for none in ["library", "team", "a__5000", "169.254.169.254", "x.y__0"] {
            assert_eq!(found(none), None, "{none}");
        }
    }
}
