//! What a client asks of a proxy, from the head of its request, and why it is not given. Pure; hostile until checked.

use dfs_model::{CanonicalUrl, printable, shortened};
use hyper::header::VIA;
use hyper::{HeaderMap, Method, StatusCode, Uri};

use super::place::Authority;

/// Longest URL that is looked at.
const MAX_BYTES: usize = 16 * 1024;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// To speak to somebody.
    Tunnel(Authority),
    /// Something on the web, and where that leads.
    Content(CanonicalUrl, Authority),
}

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is for an origin.
    #[error("this is a proxy and no web server: name it as one (http_proxy=http://HOST:PORT)")]
    Origin,
    /// A tunnel within a tunnel, or a URL of somebody else in it.
    #[error("this connection leads to {0} and nowhere else")]
    Elsewhere(Authority),
    /// It is none.
    #[error("'{0}' is no URL that can be asked for by a proxy")]
    Url(String),
    /// It was here before.
    #[error("the proxy was asked to ask itself")]
    Loop,
    /// Nobody may ask from there.
    #[error("clients at this address may not ask this proxy (proxy-client names those that may)")]
    Client,
    /// No name and password, or none that are known.
    #[error("this proxy wants a name and a password that it knows (proxy-users has them)")]
    Unknown,
    /// The place is none of those that may be asked.
    #[error("{0} is none of the places that this proxy may ask (proxy-allow names them)")]
    Place(Authority),
    /// A port that nobody tunnels to.
    #[error("tunnels lead to port 443 and not to {0} (proxy-allow names others, as in HOST:PORT)")]
    Port(Authority),
    /// The agent itself.
    #[error("{0} is this agent itself")]
    Itself(Authority),
    /// An address of nobody.
    #[error("{0} leads to an address that may not be asked for through here")]
    Address(Authority),
    /// Somebody wrote so.
    #[error("rule {0} of this proxy refuses that")]
    Rule(usize),
    /// What a rule makes of it is no URL.
    #[error("rule {0} of this proxy makes no URL of that")]
    Nowhere(usize),
    /// The other side.
    #[error("{0} cannot be reached: {1}")]
    Unreached(Authority, String),
    /// An origin could not be asked.
    #[error("{1}")]
    Failed(StatusCode, String),
}

impl Refusal {
    /// The status that it is told by.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Origin | Self::Elsewhere(_) | Self::Url(_) => StatusCode::BAD_REQUEST,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::Unknown => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::Client
            | Self::Place(_)
            | Self::Port(_)
            | Self::Itself(_)
            | Self::Address(_)
            | Self::Rule(_) => StatusCode::FORBIDDEN,
            Self::Unreached(..) | Self::Nowhere(_) => StatusCode::BAD_GATEWAY,
            Self::Failed(status, _) => *status,
        }
    }
}

impl Asked {
    /// Reads the head of a request to a proxy that is known on the way as `via`.
    pub fn of(method: &Method, uri: &Uri, headers: &HeaderMap, via: &str) -> Result<Self, Refusal> {
        check_loop(headers, via)?;
        let shown =
            || Refusal::Url(printable(&shortened(&dfs_model::redact(&uri.to_string()), 120)));
        if method == Method::CONNECT {
            let authority = uri.authority().and_then(|text| Authority::of_tunnel(text.as_str()));
            return authority.map(Self::Tunnel).ok_or_else(shown);
        }
        match uri.scheme_str() {
            Some("http" | "https") => content(&uri.to_string()).ok_or_else(shown),
            Some(_) => Err(shown()),
            None => Err(Refusal::Origin),
        }
    }

    /// Reads the head of a request within a connection to `to`.
    pub fn within(
        to: &Authority,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        via: &str,
    ) -> Result<Self, Refusal> {
        check_loop(headers, via)?;
        if method == Method::CONNECT || uri.scheme().is_some() || uri.authority().is_some() {
            return Err(Refusal::Elsewhere(to.clone()));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("https://{to}{path}");
        let shown = || Refusal::Url(printable(&shortened(&dfs_model::redact(&url), 120)));
        match content(&url) {
            Some(Self::Content(_, ref led)) if led != to => Err(shown()),
            asked => asked.ok_or_else(shown),
        }
    }
}

fn content(url: &str) -> Option<Asked> {
    let url = CanonicalUrl::parse(url).ok().filter(|url| url.as_str().len() <= MAX_BYTES)?;
    let authority = Authority::of_url(url.url())?;
    Some(Asked::Content(url, authority))
}

fn check_loop(headers: &HeaderMap, via: &str) -> Result<(), Refusal> {
    let mut passed = headers.get_all(VIA).iter().filter_map(|value| value.to_str().ok());
    let is_own = |hop: &str| hop.split_whitespace().nth(1) == Some(via);
    match passed.any(|hops| hops.split(',').any(is_own)) {
        true => Err(Refusal::Loop),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(method: Method, uri: &str) -> Result<Asked, Refusal> {
        Asked::of(&method, &uri.parse().unwrap(), &HeaderMap::new(), "dfs-1")
    }

    fn authority(text: &str) -> Authority {
        Authority::of_tunnel(text).unwrap()
    }

    #[test]
    fn a_url_is_asked_for_and_a_place_is_spoken_to() {
        let Ok(Asked::Content(url, to)) = asked(Method::POST, "http://H.test/a?b=c") else {
            panic!("it is a URL")
        };
        assert_eq!((url.as_str(), to), ("http://h.test/a?b=c", authority("h.test:80")));
        let tunnel = asked(Method::CONNECT, "H.test:443").unwrap();
        assert_eq!(tunnel, Asked::Tunnel(authority("h.test:443")));
        assert_eq!(asked(Method::GET, "/x").unwrap_err(), Refusal::Origin);
        for bad in ["ftp://h/x", "http://u:pw@h/x", "http://h:0/"] {
            let refused = asked(Method::GET, bad).unwrap_err();
            assert!(matches!(&refused, Refusal::Url(_)), "{bad} {refused:?}");
            assert!(!refused.to_string().contains("pw"), "{refused}");
        }
    }

    #[test]
    fn within_a_connection_nothing_leads_elsewhere() {
        let to = authority("h.test:8443");
        let within = |method: Method, uri: &str| {
            let uri = uri.parse().unwrap();
            Asked::within(&to, (&method, &uri, &HeaderMap::new()), "dfs-1")
        };
        let Ok(Asked::Content(url, led)) = within(Method::GET, "/a/../b?c") else {
            panic!("it is a path")
        };
        assert_eq!((url.as_str(), led), ("https://h.test:8443/b?c", to.clone()));
        for (method, elsewhere) in [
            (Method::GET, "http://other.test/"),
            (Method::CONNECT, "other.test:443"),
            (Method::GET, "https://h.test:8443/"),
        ] {
            assert_eq!(within(method, elsewhere), Err(Refusal::Elsewhere(to.clone())));
        }
    }

    #[test]
    fn what_was_here_before_is_not_asked_again() {
        let mut headers = HeaderMap::new();
        headers.append(VIA, "1.1 other, 1.1 dfs-2".parse().unwrap());
        let uri: Uri = "http://h.test/".parse().unwrap();
        assert!(Asked::of(&Method::GET, &uri, &headers, "dfs-1").is_ok());
        headers.append(VIA, "1.0 x,1.1 dfs-1 (agent)".parse().unwrap());
        assert_eq!(Asked::of(&Method::GET, &uri, &headers, "dfs-1"), Err(Refusal::Loop));
    }

    proptest! {
        #[test]
        fn within_a_connection_a_path_stays_a_path(path in "/[a-z0-9@:/?#%.&=\\\\-]{0,30}") {
            let to = authority("h.test:443");
            let Ok(uri) = path.parse::<Uri>() else { return Ok(()) };
            let asked = Asked::within(&to, (&Method::GET, &uri, &HeaderMap::new()), "dfs-1");
            if let Ok(Asked::Content(url, led)) = asked {
                prop_assert_eq!(led, to);
                prop_assert_eq!(url.url().host_str(), Some("h.test"));
            }
        }
    }
}
