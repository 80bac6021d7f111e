//! Hosts and ports, as people name them and as clients ask for them. Pure; hostile until checked.

use std::fmt;
use std::str::FromStr;

use dfs_model::{printable, shortened};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

/// Longest that is looked at.
const MAX_BYTES: usize = 512;

/// Ports that are meant where none is named.
const USUAL: [u16; 2] = [80, 443];

/// One host and one port, in their one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// A name in lower case, or an address; one of IPv6 in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Authority {
    /// What a client wants a tunnel to: `HOST:PORT`.
    pub fn of_tunnel(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(Self { host: spelled(host)?, port })
    }

    /// Where a URL leads.
    pub fn of_url(url: &Url) -> Option<Self> {
        let port = url.port_or_known_default().filter(|port| *port != 0)?;
        Some(Self { host: url.host_str()?.to_owned(), port })
    }

    /// As resolvers and sockets name the host.
    pub fn bare(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The one spelling of a host, which is what it is in a URL.
fn spelled(host: &str) -> Option<String> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if host.is_empty() || host.len() > MAX_BYTES || !host.bytes().all(known) {
        return None;
    }
    let url = Url::parse(&format!("http://{host}/")).ok()?;
    let found = url.host_str()?;
    let has_gaps = found.strip_suffix('.').unwrap_or(found).split('.').any(str::is_empty);
    let is_host = url.port().is_none() && !host.ends_with(':') && !has_gaps;
    is_host.then(|| found.to_owned())
}

/// Some hosts: `HOST`, `*.HOST` (all below it) or `*`, each perhaps with a port. Without one the usual ports are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    /// All whose names end so; it begins with a dot.
    Below(String),
    One(String),
}

impl Place {
    /// Whether it is there that somebody wants to go.
    pub fn has(&self, to: &Authority) -> bool {
        let is_port = match self.port {
            Some(port) => port == to.port,
            None => USUAL.contains(&to.port),
        };
        let host = to.host.trim_end_matches('.');
        is_port
            && match &self.hosts {
                Hosts::All => true,
                Hosts::Below(end) => host.len() > end.len() && host.ends_with(end.as_str()),
                Hosts::One(name) => host == name,
            }
    }

    /// Whether it names the port that somebody wants to go to, and that they may.
    pub fn names_port(&self, to: &Authority) -> bool {
        self.port.is_some() && self.has(to)
    }

    /// Whether it is everywhere.
    pub fn is_everywhere(&self) -> bool {
        self.hosts == Hosts::All
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let shown = printable(&shortened(text, 80));
            format!("'{shown}' names no hosts: write HOST, *.HOST or *, and :PORT behind it or not")
        };
        let is_port = |(_, port): &(&str, &str)| !port.ends_with(']');
        let (host, port) = match text.rsplit_once(':').filter(is_port) {
            Some((host, port)) => {
                let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
                let port = port.parse::<u16>().ok().filter(|port| is_number && *port != 0);
                (host, Some(port.ok_or_else(wrong)?))
            }
            None => (text, None),
        };
        let hosts = match host.strip_prefix('*') {
            Some("") => Hosts::All,
            Some(below) => {
                let name = below.strip_prefix('.').and_then(spelled).ok_or_else(wrong)?;
                Hosts::Below(format!(".{}", name.trim_end_matches('.')))
            }
            None => Hosts::One(spelled(host).ok_or_else(wrong)?.trim_end_matches('.').to_owned()),
        };
        Ok(Self { hosts, port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::All => f.write_str("*"),
            Hosts::Below(end) => write!(f, "*{end}"),
            Hosts::One(name) => f.write_str(name),
        }?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        String::deserialize(value)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn has(place: &str, to: &str) -> bool {
        place.parse::<Place>().unwrap().has(&Authority::of_tunnel(to).unwrap())
    }

    #[test]
    fn a_place_is_the_hosts_and_ports_that_it_names() {
        for (place, inside, outside) in [
            ("h.test", "h.test:443", "h.test:22"),
            ("h.test", "H.Test:80", "x.h.test:80"),
            ("h.test", "h.test.:443", "xh.test:443"),
            ("*.h.test", "a.b.h.test:443", "h.test:443"),
            ("*.h.test", "a.h.test:443", "ah.test:443"),
            ("h.test:8443", "h.test:8443", "h.test:443"),
            ("*", "anything:443", "anything:22"),
            ("*:22", "anything:22", "anything:443"),
            ("10.0.0.1", "0xa000001:80", "10.0.0.2:80"),
            ("[::1]:5000", "[0:0::1]:5000", "[::2]:5000"),
            ("[::1]", "[::1]:443", "[::1]:5000"),
        ] {
            assert!(has(place, inside), "{place} {inside}");
            assert!(!has(place, outside), "{place} {outside}");
        }
        assert_eq!("*.H.test:1".parse::<Place>().unwrap().to_string(), "*.h.test:1");
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for bad in [
            "", "*x", "a*", "h:0", "h:", "h:x", "h:+1", "h/x", "u@h", "*.", "*..", "h x",
            "http://h", "::1", "[::1", "h:99999",
        ] {
            assert!(bad.parse::<Place>().is_err(), "{bad:?}");
        }
        for bad in ["", "h", "h:0", "h:x", "u@h:1", "h/x:1", ":1", "[::1]", "a:b:1", "h\n:1"] {
            assert_eq!(Authority::of_tunnel(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn an_authority_has_one_spelling(text in "[a-zA-Z0-9.:\\[\\]_-]{0,24}:[0-9]{1,5}") {
            if let Some(authority) = Authority::of_tunnel(&text) {
                prop_assert_eq!(Authority::of_tunnel(&authority.to_string()), Some(authority));
            }
        }
    }
}
