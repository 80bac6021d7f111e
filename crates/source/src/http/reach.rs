//! Which addresses an origin can have, and how its name leads to them. A name is looked up where it is asked, and what may
//! not be asked is left out then: nobody can show one address to who looks and another to who asks.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::{Cause, SourceError};

/// Addresses that lead to no origin, and to what trusts whoever can reach it: the metadata of a cloud's machines.
pub fn is_nobodys(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_broadcast()
                || METADATA.contains(&ip)
        }
        IpAddr::V6(ip) => {
            let embedded = embedded(ip.segments());
            ip.is_unicast_link_local()
                || ip.is_unspecified()
                || ip.is_multicast()
                || embedded.is_some_and(is_nobodys)
                || ip == EC2
        }
    }
}

/// Where clouds have the metadata of their machines beside the link-local addresses: Alibaba, Oracle and Azure, and EC2 by IPv6.
const METADATA: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
const EC2: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// The address of IPv4 that gateways make of one of IPv6 (NAT64, 6to4).
fn embedded(segments: [u16; 8]) -> Option<IpAddr> {
    let pair = match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => [high, low],
        _ => return None,
    };
    let bits = u32::from(pair[0]) << 16 | u32::from(pair[1]);
    Some(IpAddr::V4(bits.into()))
}

/// Whether an address may be asked.
pub type IsAsked = fn(IpAddr) -> bool;

/// All that an origin can have.
pub fn any_origin(ip: IpAddr) -> bool {
    !is_nobodys(ip)
}

/// Which addresses may be asked. One that somebody names can be another's choice than one that they are led to: by a name that
/// they do not own, or by a redirect.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// Those that stand in a URL.
    pub named: IsAsked,
    /// Those that names and redirects of origins lead to.
    pub led_to: IsAsked,
}

impl Reach {
    /// The same of both.
    pub fn only(is_asked: IsAsked) -> Self {
        Self { named: is_asked, led_to: is_asked }
    }

    /// What a name may lead to. `localhost` is as much an address as 127.0.0.1 is.
    fn of_name(&self, name: &str) -> IsAsked {
        if is_localhost(name) { self.named } else { self.led_to }
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

impl Default for Reach {
    fn default() -> Self {
        Self::only(any_origin)
    }
}

/// A name that leads nowhere that may be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} leads to an address that may not be asked for through here")]
pub struct Unreached(pub String);

impl Unreached {
    /// Whether an origin was not asked for this.
    pub fn is_why(error: &SourceError) -> bool {
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = next {
            // What is shared stands in the chain as itself, and not as what it is.
            let shared =
                error.downcast_ref::<Cause>().map(|cause| &**cause as &(dyn Error + 'static));
            if shared.unwrap_or(error).is::<Self>() {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// Where a name leads, of that what may be asked.
pub async fn look_up(name: &str, port: u16, reach: Reach) -> std::io::Result<Vec<SocketAddr>> {
    let found: Vec<_> = tokio::net::lookup_host((name, port)).await?.collect();
    let is_asked = reach.of_name(name);
    let allowed: Vec<_> = found.iter().copied().filter(|at| is_asked(at.ip())).collect();
    match allowed.is_empty() && !found.is_empty() {
        true => Err(std::io::Error::other(Unreached(name.to_owned()))),
        false => Ok(allowed),
    }
}

/// Whether a URL may be asked, as far as its address stands in it.
pub(super) fn check(url: &Url, is_asked: IsAsked) -> Result<(), Unreached> {
    let ip = match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
        Some(Host::Domain(name)) if is_localhost(name) => Ipv4Addr::LOCALHOST.into(),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    match is_asked(ip) {
        true => Ok(()),
        false => Err(Unreached(ip.to_string())),
    }
}

/// Looks names up for the client.
pub(super) struct Resolver(pub Reach);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = look_up(name.as_str(), 0, reach).await;
            // An I/O error hides what is in it from who looks for the cause.
            let found = found.map_err(|error| match error.downcast::<Unreached>() {
                Ok(unreached) => unreached.into(),
                Err(error) => Box::<dyn Error + Send + Sync>::from(error),
            })?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_an_address_makes_it_another() {
        for nobodys in [
            "http://169.254.169.254/",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0251.0376.0251.0376/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:a9fe:a9fe::1]/",
            "http://[fd00:ec2::254]/",
            "http://[fe80::1]/",
            "http://100.100.100.200/",
            "http://192.0.0.192/",
            "http://168.63.129.16/",
            "http://[64:ff9b::6464:64c8]/",
            "http://0/",
            "http://[::]/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
        ] {
            assert!(check(&Url::parse(nobodys).unwrap(), any_origin).is_err(), "{nobodys}");
        }
        for somebodys in
            ["http://127.0.0.1/", "http://10.0.0.1/", "http://[fd00::1]/", "http://h.test/"]
        {
            assert!(check(&Url::parse(somebodys).unwrap(), any_origin).is_ok(), "{somebodys}");
        }
    }

    #[test]
    fn what_was_not_asked_for_its_address_is_told_from_what_did_not_answer() {
        let url = dfs_model::CanonicalUrl::parse("http://h.test/").unwrap();
        let attempt = crate::Attempt::new(crate::Action::Stat, &url);
        let failed = |cause: Cause| SourceError::Unreachable { attempt: attempt.clone(), cause };
        assert!(Unreached::is_why(&failed(std::sync::Arc::new(Unreached("h.test".to_owned())))));
        let other = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert!(!Unreached::is_why(&failed(std::sync::Arc::new(other))));
    }

    #[tokio::test]
    async fn a_name_leads_only_where_it_may() {
        assert!(!look_up("localhost", 80, Reach::default()).await.unwrap().is_empty());
        let nowhere = look_up("localhost", 80, Reach::only(|_| false)).await.unwrap_err();
        assert!(nowhere.downcast::<Unreached>().is_ok());
    }

    #[tokio::test]
    async fn who_names_an_address_may_ask_where_a_name_may_not_lead() {
        let reach = Reach { named: any_origin, led_to: |ip| !ip.is_loopback() };
        for named in ["localhost", "LocalHost.", "x.localhost"] {
            assert!((reach.of_name(named))([127, 0, 0, 1].into()), "{named}");
        }
        for led in ["h.test", "localhost.test", "xlocalhost"] {
            assert!(!(reach.of_name(led))([127, 0, 0, 1].into()), "{led}");
            assert!((reach.of_name(led))([192, 0, 2, 1].into()), "{led}");
        }
        assert!(!look_up("localhost", 80, reach).await.unwrap().is_empty());
    }
}
