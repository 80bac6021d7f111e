//! Which registries are asked without TLS: those of this machine, and those that somebody named.

use std::net::IpAddr;

/// Registries by host, or by host and port; `*.` in front stands for what is below a host.
#[derive(Debug, Clone, Default)]
pub(super) struct PlainHosts(Vec<String>);

impl PlainHosts {
    pub fn new(named: &[String]) -> Self {
        Self(named.iter().map(|name| name.trim().to_ascii_lowercase()).collect())
    }

    /// Whether the registry at `address`, a host and perhaps a port, is one.
    pub fn has(&self, address: &str) -> bool {
        let host = host_of(address);
        let is_named = |named: &String| match named.strip_prefix('*') {
            Some(below) => address.ends_with(below) || host.ends_with(below),
            None => named == address || named == host,
        };
        self.0.iter().any(is_named) || is_this_machine(host)
    }
}

fn host_of(address: &str) -> &str {
    match address.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => address,
    }
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_what_is_named_is_asked_without_tls() {
        let plain = PlainHosts::new(&[
            "Registry.test:5000".to_owned(),
            "inner".to_owned(),
            "*.below.test".to_owned(),
        ]);
        for yes in [
            "registry.test:5000",
            "inner",
            "inner:80",
            "localhost:5000",
            "127.0.0.3",
            "[::1]:5000",
            "a.below.test",
            "a.below.test:5000",
        ] {
            assert!(plain.has(yes), "{yes}");
        }
        for no in [
            "registry.test",
            "registry.test:443",
            "x.inner",
            "below.test",
            "a.below.test.evil",
            "localhost.evil",
            "10.0.0.1",
            "127.0.0.1.evil",
        ] {
            assert!(!plain.has(no), "{no}");
        }
    }
}
