//! The address of a service as people write it: a name or a number, and a port.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use dfs_model::{is_hidden, printable};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// How long a name may take to be looked up.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(5);

/// `HOST:PORT`, where the host may be a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceAddress {
    host: String,
    port: u16,
}

/// Why a text is not the address of a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// A URL, or something else that no host is called.
    #[error("'{0}' is not an address: write it as host:port, as in 10.0.0.5:4000")]
    Form(String),
    /// Only a host.
    #[error("'{0}' has no port: write it as host:port, as in {0}:4000")]
    NoPort(String),
    /// Port 0 is what a service listens on to be given a free one.
    #[error(
        "nobody can be reached at port 0: name the one that the cluster listens on, usually 4000"
    )]
    PortZero,
}

/// Why the host of an address leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// There is no such name.
    #[error("no host is called {host}")]
    Unknown {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Whether there is such a name cannot be said: the resolver is away, or in trouble.
    #[error("the name {host} cannot be looked up")]
    Failed {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The resolver does not answer.
    #[error("the name {host} cannot be looked up: the resolver does not answer")]
    Late {
        /// The name.
        host: String,
    },
}

impl LookUpError {
    fn of(host: String, source: io::Error) -> Self {
        // The resolver's reason has no number here, only its words: those of glibc and of musl.
        let said = source.to_string();
        match NO_SUCH_NAME.iter().any(|words| said.ends_with(words)) {
            true => Self::Unknown { host, source },
            false => Self::Failed { host, source },
        }
    }
}

/// How resolvers say that there is no such name, or none with an address.
const NO_SUCH_NAME: [&str; 5] = [
    "Name or service not known",
    "No address associated with hostname",
    "Name does not resolve",
    "Name has no usable address",
    "the name has no address",
];

/// An address that a process tells others to reach it at.
pub trait Reachable: fmt::Display {
    /// Why nobody can reach anything there, where that is certain.
    fn why_not(&self) -> Option<&'static str>;
}

impl Reachable for IpAddr {
    fn why_not(&self) -> Option<&'static str> {
        let is_any = self.to_canonical().is_unspecified();
        is_any.then_some("it stands for every address of a machine, and for none in particular")
    }
}

impl Reachable for SocketAddr {
    fn why_not(&self) -> Option<&'static str> {
        match self.port() {
            0 => Some("port 0 is none that others can connect to"),
            _ => self.ip().why_not(),
        }
    }
}

/// Reads a list of addresses that others are to use.
pub fn reachable_all<'de, D, A>(value: D) -> Result<Vec<A>, D::Error>
where
    D: Deserializer<'de>,
    A: Reachable + Deserialize<'de>,
{
    let all = Vec::<A>::deserialize(value)?;
    match all.iter().find_map(|address| Some((address, address.why_not()?))) {
        Some((address, why)) => {
            Err(D::Error::custom(format!("nobody can be reached at {address}: {why}")))
        }
        None => Ok(all),
    }
}

/// Reads a name that others are shown: nothing in it ends a line or moves what a terminal shows.
pub fn label<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    let text = String::deserialize(value)?;
    match text.contains(is_hidden) {
        true => Err(D::Error::custom(format!(
            "'{}' is no name: it has characters that are not shown",
            printable(&text)
        ))),
        false => Ok(text),
    }
}

impl ServiceAddress {
    /// Whether it names this very machine, as far as can be told without looking anything up.
    pub fn is_on_loopback(&self) -> bool {
        let ip = self.host.parse::<IpAddr>();
        ip.map_or(self.host == "localhost", |ip| ip.to_canonical().is_loopback())
    }

    /// Every address it may mean, those of the name in the resolver's order.
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, LookUpError> {
        self.resolve_within(LOOK_UP_WITHIN).await
    }

    /// The same, for no longer than `within`.
    pub async fn resolve_within(&self, within: Duration) -> Result<Vec<SocketAddr>, LookUpError> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        let host = self.host.clone();
        let looking = tokio::net::lookup_host((self.host.as_str(), self.port));
        let found = match tokio::time::timeout(within, looking).await {
            Ok(Ok(found)) => found.collect::<Vec<_>>(),
            Ok(Err(source)) => return Err(LookUpError::of(host, source)),
            Err(_) => return Err(LookUpError::Late { host }),
        };
        if found.is_empty() {
            let source = io::Error::other("the name has no address");
            return Err(LookUpError::of(host, source));
        }
        Ok(found)
    }
}

impl From<SocketAddr> for ServiceAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for ServiceAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || BadAddress::Form(text.to_owned());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                Err(BadAddress::PortZero)
            } else {
                Ok(address.into())
            };
        }
        if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) || is_name(text) {
            return Err(BadAddress::NoPort(text.to_owned()));
        }
        let (host, port) = text.split_once(':').ok_or_else(form)?;
        if !is_name(host) {
            return Err(form());
        }
        match port.parse() {
            Ok(0) => Err(BadAddress::PortZero),
            Ok(port) => Ok(Self { host: host.to_owned(), port }),
            Err(_) => Err(form()),
        }
    }
}

/// Whether a host may be called so. What looks like a number and is none is no name either.
fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_number = |last: &str| last.bytes().all(|byte| byte.is_ascii_digit());
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.chars().all(fits) && !text.starts_with('.') && !is_number(last)
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (&self.host, self.port);
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl TryFrom<String> for ServiceAddress {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ServiceAddress> for String {
    fn from(address: ServiceAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_back_as_it_was_read() {
        for text in
            ["127.0.0.1:4000", "[::1]:4000", "localhost:4000", "a-b.example.:1", "h_1:65535"]
        {
            assert_eq!(text.parse::<ServiceAddress>().map(|it| it.to_string()), Ok(text.into()));
        }
    }

    #[test]
    fn what_is_no_address_is_told_by_what_it_lacks() {
        let reason = |text: &str| text.parse::<ServiceAddress>().unwrap_err();
        for bad in
            ["", ":4000", "http://h:4000", "h:x", "h:70000", "h:", "1.2.3:4000", "u@h:1", "::1"]
        {
            assert_eq!(reason(bad), BadAddress::Form(bad.into()), "{bad}");
        }
        for host in ["localhost", "10.0.0.5"] {
            assert_eq!(reason(host), BadAddress::NoPort(host.into()));
        }
        for zero in ["127.0.0.1:0", "[::1]:0", "localhost:0"] {
            assert_eq!(reason(zero), BadAddress::PortZero);
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_a_number_is_not() {
        let found = |text: &str| text.parse::<ServiceAddress>().unwrap();
        let local = found("localhost:7").resolve().await.unwrap();
        assert!(local.iter().all(|at| at.ip().is_loopback() && at.port() == 7), "{local:?}");
        let literal = found("[::1]:7").resolve().await.unwrap();
        assert_eq!(literal, ["[::1]:7".parse().unwrap()]);
        let nobody = found("no-such-host.invalid:7").resolve().await.unwrap_err();
        assert!(nobody.to_string().contains("no-such-host.invalid"), "{nobody}");
    }

    #[test]
    fn a_resolver_in_trouble_has_not_said_that_there_is_no_such_name() {
        let said = |words: &str| {
            let text = format!("failed to lookup address information: {words}");
            LookUpError::of("manager.example".into(), io::Error::other(text)).to_string()
        };
        assert_eq!(said("Name or service not known"), "no host is called manager.example");
        for trouble in ["Temporary failure in name resolution", "Try again", "System error"] {
            assert_eq!(said(trouble), "the name manager.example cannot be looked up");
        }
    }
}
