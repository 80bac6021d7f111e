//! Which requests go through a proxy. Pure, but for the one look at the environment.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

/// Proxies of the web, as people write them into variables. `Debug` shows no credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyOptions {
    /// For `http://`: `[scheme://][user:password@]host:port`.
    pub http: Option<String>,
    /// For `https://`, by CONNECT.
    pub https: Option<String>,
    /// Hosts that are asked without one: names with all below them, addresses, networks as in
    /// `10.0.0.0/8`, each perhaps with a port; `*` for all.
    pub except: Vec<String>,
    /// Whether this machine itself, too, is asked through them.
    pub loopback: bool,
}

impl fmt::Debug for ProxyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |proxy: &Option<String>| proxy.as_deref().map(|text| shown(text).to_owned());
        f.debug_struct("ProxyOptions")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("except", &self.except)
            .field("loopback", &self.loopback)
            .finish()
    }
}

/// What stands behind the credentials.
fn shown(text: &str) -> &str {
    text.rsplit('@').next().unwrap_or_default()
}

impl ProxyOptions {
    /// What `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say, the lower-case spelling
    /// first.
    pub fn of_process() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| {
            let upper = name.to_ascii_uppercase();
            // In a CGI program this one is a header of whoever asks.
            let forged = upper == "HTTP_PROXY" && variable("REQUEST_METHOD").is_some();
            let value = variable(name).or_else(|| variable(&upper).filter(|_| !forged));
            value.filter(|value| !value.trim().is_empty())
        };
        let all = get("all_proxy");
        let except = get("no_proxy").unwrap_or_default();
        let except = except.split([',', ' ']).map(str::trim).filter(|host| !host.is_empty());
        Self {
            http: get("http_proxy").or_else(|| all.clone()),
            https: get("https_proxy").or(all),
            except: except.map(str::to_owned).collect(),
            loopback: false,
        }
    }
}

/// Proxies that were understood.
pub(super) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    except: Vec<Exception>,
    loopback: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Exception {
    whom: Whom,
    port: Option<u16>,
}

#[derive(Debug, PartialEq, Eq)]
enum Whom {
    All,
    /// This name and all below it.
    Name(String),
    /// Addresses that share this many leading bits.
    Network(IpAddr, u8),
}

impl Proxies {
    /// Reads the options; the reason where one makes no sense. Exceptions that make none except
    /// nobody.
    pub fn new(options: &ProxyOptions) -> Result<Self, String> {
        let proxy = |text: &Option<String>| text.as_deref().map(parse).transpose();
        Ok(Self {
            http: proxy(&options.http)?,
            https: proxy(&options.https)?,
            except: options.except.iter().filter_map(|text| Exception::parse(text)).collect(),
            loopback: options.loopback,
        })
    }

    /// The proxy that a request goes through.
    pub fn for_url(&self, url: &Url) -> Option<&Url> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref()?,
            _ => self.http.as_ref()?,
        };
        let host = url.host()?;
        let near = is_near(&host) && !self.loopback;
        let port = url.port_or_known_default();
        let excepted = self.except.iter().any(|exception| exception.covers(&host, port));
        (!near && !excepted).then_some(proxy)
    }
}

fn parse(text: &str) -> Result<Url, String> {
    let text = text.trim();
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&whole);
    let url = url.map_err(|error| format!("the proxy '{}' is no URL ({error})", shown(text)))?;
    if !matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h") || url.host().is_none() {
        let known = "http://, https://, socks5:// or socks5h://";
        return Err(format!("the proxy '{}' is not one of {known}", shown(text)));
    }
    Ok(url)
}

/// This machine, or what only it can reach.
fn is_near(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        Host::Ipv6(ip) => ip.is_loopback() || ip.is_unspecified(),
    }
}

impl Exception {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self { whom: Whom::All, port: None });
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.parse().ok().filter(|bits| *bits <= most)?;
            return Some(Self { whom: Whom::Network(address, bits), port: None });
        }
        let bare = text.trim_matches(['[', ']']);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            return Some(Self { whom: Whom::Network(address, bits), port: None });
        }
        if let Some((host, port)) = text.rsplit_once(':') {
            let inner = Self::parse(host)?;
            return Some(Self { port: Some(port.parse().ok()?), ..inner });
        }
        let name = text.trim_start_matches("*.").trim_matches('.').to_ascii_lowercase();
        (!name.is_empty()).then_some(Self { whom: Whom::Name(name), port: None })
    }

    fn covers(&self, host: &Host<&str>, port: Option<u16>) -> bool {
        let host_covered = match (&self.whom, host) {
            (Whom::All, _) => true,
            (Whom::Name(name), Host::Domain(host)) => {
                let host = host.trim_end_matches('.');
                host.strip_suffix(&**name)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Whom::Network(IpAddr::V4(network), bits), Host::Ipv4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(*bits)).unwrap_or(0);
                network.to_bits() & mask == ip.to_bits() & mask
            }
            (Whom::Network(IpAddr::V6(network), bits), Host::Ipv6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(*bits)).unwrap_or(0);
                network.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        };
        host_covered && self.port.is_none_or(|own| Some(own) == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(variables: &[(&str, &str)]) -> ProxyOptions {
        ProxyOptions::of(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn used(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let proxies = Proxies::new(&options(variables)).unwrap();
        proxies.for_url(&Url::parse(url).unwrap()).map(|proxy| proxy.to_string())
    }

    #[test]
    fn each_scheme_has_its_variable_and_all_stands_in() {
        let both = [("HTTP_PROXY", "p1:3128"), ("https_proxy", "http://p2"), ("HTTPS_PROXY", "p3")];
        assert_eq!(used(&both, "http://h/").as_deref(), Some("http://p1:3128/"));
        assert_eq!(used(&both, "https://h/").as_deref(), Some("http://p2/"));
        let all = [("ALL_PROXY", "socks5h://p4:1080"), ("http_proxy", "p1")];
        assert_eq!(used(&all, "https://h/").as_deref(), Some("socks5h://p4:1080"));
        assert_eq!(used(&all, "http://h/").as_deref(), Some("http://p1/"));
        assert_eq!(used(&[], "http://h/"), None);
        let forged = [("HTTP_PROXY", "evil"), ("REQUEST_METHOD", "GET")];
        assert_eq!(used(&forged, "http://h/"), None);
    }

    #[test]
    fn this_machine_and_exceptions_are_asked_directly() {
        let set = [
            ("ALL_PROXY", "p"),
            (
                "NO_PROXY",
                "example.org, .corp,*.lab 10.0.0.0/8,192.0.2.7,[2001:db8::]/32,other:8080,::/0x",
            ),
        ];
        for direct in [
            "http://localhost/",
            "http://127.0.0.1:8080/",
            "https://[::1]/",
            "http://169.254.169.254/",
            "https://example.org/",
            "https://a.example.org/",
            "http://x.corp/",
            "http://corp/",
            "http://y.lab/",
            "http://10.1.2.3/",
            "http://192.0.2.7:99/",
            "http://other:8080/",
        ] {
            assert_eq!(used(&set, direct), None, "{direct}");
        }
        for proxied in [
            "https://notexample.org/",
            "http://11.0.0.1/",
            "http://192.0.2.8/",
            "http://other/",
            "http://example.org.evil/",
        ] {
            assert!(used(&set, proxied).is_some(), "{proxied}");
        }
        assert_eq!(used(&[("ALL_PROXY", "p"), ("NO_PROXY", "*")], "http://h/"), None);
        let named = ProxyOptions { loopback: true, ..options(&set) };
        let proxies = Proxies::new(&named).unwrap();
        assert!(proxies.for_url(&Url::parse("http://127.0.0.1/").unwrap()).is_some());
    }

    #[test]
    fn a_proxy_that_makes_no_sense_is_named_without_its_password() {
        for bad in ["ftp://u:hunter2@h", "http://u:hunter2@ho st", "u:hunter2@:x"] {
            let error = Proxies::new(&options(&[("ALL_PROXY", bad)])).err().unwrap();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let shown = format!("{:?}", options(&[("ALL_PROXY", "http://u:hunter2@h:1")]));
        assert!(!shown.contains("hunter2") && shown.contains("h:1"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_exception_makes_it_panic(text in "[0-9a-f.:/*\\[\\]-]{0,24}", host in "[a-z0-9.]{1,8}") {
            let set = [("ALL_PROXY", "p"), ("NO_PROXY", &*text)];
            if Url::parse(&format!("http://{host}/")).is_ok() {
                let _ = used(&set, &format!("http://{host}/"));
            }
        }
    }
}
