//! What a client asks, from the head of its request. Pure; hostile until checked.

use dfs_model::{CanonicalUrl, printable, shortened};
use dfs_source::oci::{ContentDigest, Extent, Named, PASSED_ON, Reference, Sought};
use hyper::header::{CONTENT_LENGTH, LINK, TRANSFER_ENCODING, VIA};
use hyper::{HeaderMap, Method, StatusCode, Uri};
use url::form_urlencoded;

use super::registry::RegistryHost;

/// Longest path and query that are looked at.
const MAX_BYTES: usize = 4096;

/// A question that a registry can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Which registry, as it was said.
    pub registry: RegistryHost,
    /// What is asked about. Of a ping any repository.
    pub reference: Reference,
    /// What of it.
    pub sought: Sought,
    /// How much of it.
    pub extent: Extent,
    /// Whether anything said which registry is meant.
    pub is_named: bool,
    /// The name of the repository as it was asked for, and the `ns` with it.
    spelled: (String, Option<String>),
}

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It would change something, or is no request of this kind.
    #[error("a mirror is read from only: send what changes something to the registry itself")]
    Method,
    /// It is for a proxy.
    #[error("this is the mirror of a registry and no proxy: ask for /v2/… of it")]
    Proxy,
    /// It has a body, or says so in two ways.
    #[error("a request to a mirror has no body")]
    Body,
    /// It was here before.
    #[error("the mirror was asked to ask itself")]
    Loop,
    /// Nobody may ask from there.
    #[error("clients at this address may not ask this mirror (mirror-client names those that may)")]
    Client,
    /// The registry's name.
    #[error("{0}")]
    Registry(String),
    /// The registry is none of those that may be asked.
    #[error("registry {0} is none of those that this mirror may ask (mirror-registry names them)")]
    OtherRegistry(RegistryHost),
    /// A repository, tag or digest.
    #[error("{0}")]
    Name(String),
    /// It is nothing that registries answer.
    #[error("a mirror answers /v2/, manifests, blobs, tags and referrers, and nothing else")]
    Unknown,
}

impl Refusal {
    /// As it is told: the status, and the word for it (OCI distribution 1.1, error codes).
    pub fn told(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::Proxy | Self::Body => (StatusCode::BAD_REQUEST, "UNSUPPORTED"),
            Self::Loop => (StatusCode::LOOP_DETECTED, "UNSUPPORTED"),
            Self::Client | Self::OtherRegistry(_) => (StatusCode::FORBIDDEN, "DENIED"),
            Self::Registry(_) | Self::Name(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::Unknown => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
        }
    }
}

impl Question {
    /// Reads the head of a request.
    pub fn of(
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        default: &RegistryHost,
    ) -> Result<Self, Refusal> {
        let extent = match *method {
            Method::GET => Extent::All,
            Method::HEAD => Extent::Head,
            _ => return Err(Refusal::Method),
        };
        if uri.scheme().is_some() || uri.authority().is_some() {
            return Err(Refusal::Proxy);
        }
        let lengths = headers.get_all(CONTENT_LENGTH).iter();
        let is_empty = lengths.map(|length| length.as_bytes()).all(|length| length == b"0");
        if headers.contains_key(TRANSFER_ENCODING) || !is_empty {
            return Err(Refusal::Body);
        }
        if headers.get_all(VIA).iter().any(|via| via.as_bytes() == PASSED_ON.as_bytes()) {
            return Err(Refusal::Loop);
        }
        let query = uri.query().unwrap_or_default();
        if uri.path().len() + query.len() > MAX_BYTES {
            return Err(Refusal::Name("the name of what is asked for is too long".to_owned()));
        }
        let path = uri.path().strip_prefix("/v2").ok_or(Refusal::Unknown)?;
        let (ns, query) = split_query(query)?;
        let named = ns.as_deref().map(str::parse::<RegistryHost>).transpose();
        let named = named.map_err(Refusal::Registry)?;
        let path = match path {
            "" | "/" => return Ok(Self::ping(named, default, extent)),
            path => path.strip_prefix('/').ok_or(Refusal::Unknown)?,
        };
        let (name, sought) = Part::of(path)?;
        let (in_path, repository) = match (&named, name.split_once('/')) {
            (None, Some((first, rest))) => match RegistryHost::in_path(first) {
                Some(registry) => (Some(registry), rest),
                None => (None, name),
            },
            _ => (None, name),
        };
        let is_named = named.is_some() || in_path.is_some();
        let registry = named.or(in_path).unwrap_or_else(|| default.clone());
        let (reference, sought) = sought.reference(&registry, repository, query)?;
        let spelled = (name.to_owned(), ns);
        Ok(Self { registry, reference, sought, extent, is_named, spelled })
    }

    /// Reads what a client asks a registry itself, where that can be answered in its place: a manifest or a blob.
    pub fn to(registry: &RegistryHost, method: &Method, path: &str) -> Option<Self> {
        let extent = match *method {
            Method::GET => Extent::All,
            Method::HEAD => Extent::Head,
            _ => return None,
        };
        let (name, part) = Part::of(path.strip_prefix("/v2/")?).ok()?;
        if !matches!(part, Part::Manifest(_) | Part::Blob(_)) {
            return None;
        }
        let (reference, sought) = part.reference(registry, name, String::new()).ok()?;
        let (registry, spelled) = (registry.clone(), (name.to_owned(), None));
        Some(Self { registry, reference, sought, extent, is_named: true, spelled })
    }

    fn ping(named: Option<RegistryHost>, default: &RegistryHost, extent: Extent) -> Self {
        let is_named = named.is_some();
        let registry = named.unwrap_or_else(|| default.clone());
        let url = CanonicalUrl::parse(&format!("oci://{registry}/any"));
        let reference = url.ok().and_then(|url| Reference::of(&url).ok());
        let reference =
            reference.expect("a registry's name makes a reference with any repository's");
        let (sought, spelled) = (Sought::Ping, (String::new(), None));
        Self { registry, reference, sought, extent, is_named, spelled }
    }

    /// The digest of the blob that is asked for.
    pub fn blob(&self) -> Option<ContentDigest> {
        match (&self.sought, self.reference.named()) {
            (Sought::Named, Named::Blob(digest)) => Some(*digest),
            _ => None,
        }
    }

    /// Where the registry says that the list goes on, as it is asked for here.
    pub fn link_of(&self, head: &HeaderMap) -> Option<String> {
        let link = head.get(LINK)?.to_str().ok()?.trim().strip_prefix('<')?;
        let (url, rest) = link.split_once('>')?;
        if !rest.replace(' ', "").starts_with(";rel=\"next\"") {
            return None;
        }
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        pairs.extend_pairs(
            form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != "ns"),
        );
        let (name, ns) = &self.spelled;
        if let Some(ns) = ns {
            pairs.append_pair("ns", ns);
        }
        let place = match &self.sought {
            Sought::Tags(_) => "tags/list".to_owned(),
            Sought::Referrers(digest, _) => format!("referrers/{digest}"),
            Sought::Ping | Sought::Named => return None,
        };
        Some(format!("</v2/{name}/{place}?{}>; rel=\"next\"", pairs.finish()))
    }
}

/// What stands behind the name of a repository.
enum Part<'a> {
    Manifest(&'a str),
    Blob(&'a str),
    Tags,
    Referrers(&'a str),
}

impl<'a> Part<'a> {
    /// The name of the repository, and what is sought of it.
    fn of(path: &'a str) -> Result<(&'a str, Self), Refusal> {
        if let Some(name) = path.strip_suffix("/tags/list") {
            return Ok((name, Self::Tags));
        }
        let (rest, last) = path.rsplit_once('/').ok_or(Refusal::Unknown)?;
        let (name, kind) = rest.rsplit_once('/').ok_or(Refusal::Unknown)?;
        match kind {
            "manifests" => Ok((name, Self::Manifest(last))),
            "blobs" => Ok((name, Self::Blob(last))),
            "referrers" => Ok((name, Self::Referrers(last))),
            _ => Err(Refusal::Unknown),
        }
    }

    fn reference(
        self,
        registry: &RegistryHost,
        repository: &str,
        query: String,
    ) -> Result<(Reference, Sought), Refusal> {
        let wrong = |what: &str, text: &str| {
            Refusal::Name(format!("'{}' is no {what}", printable(&shortened(text, 150))))
        };
        // A colon or an at-sign would begin something else; what is encoded has no place in a name.
        if repository.contains([':', '@', '?', '%']) {
            return Err(wrong("repository", repository));
        }
        let of = |rest: String, what: &str, text: &str| {
            let url = CanonicalUrl::parse(&format!("oci://{registry}/{repository}{rest}"));
            let reference = url.ok().and_then(|url| Reference::of(&url).ok());
            // What the grammar of URLs makes of a name must be that name.
            let reference = reference.filter(|found| is_spelled(found, repository));
            reference.ok_or_else(|| wrong(what, text))
        };
        let plain = || of(String::new(), "repository", repository);
        let digest = |text: &str| text.parse::<ContentDigest>().map_err(|_| wrong("digest", text));
        match self {
            Self::Tags => Ok((plain()?, Sought::Tags(query))),
            Self::Referrers(text) => Ok((plain()?, Sought::Referrers(digest(text)?, query))),
            Self::Blob(text) => Ok((plain()?.blob(digest(text)?), Sought::Named)),
            Self::Manifest(text) if text.contains(':') => {
                Ok((plain()?.manifest(digest(text)?), Sought::Named))
            }
            Self::Manifest(tag) => {
                plain()?;
                if tag.contains(['@', '?', '%', '#']) {
                    return Err(wrong("tag", tag));
                }
                Ok((of(format!(":{tag}"), "tag", tag)?, Sought::Named))
            }
        }
    }
}

fn is_spelled(reference: &Reference, repository: &str) -> bool {
    let found = reference.repository();
    found == repository || found.strip_prefix("library/") == Some(repository)
}

/// The registry that the query names, and the query without that.
fn split_query(query: &str) -> Result<(Option<String>, String), Refusal> {
    let mut named = None;
    let mut rest = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "ns" {
            rest.append_pair(&name, &value);
        } else if named.replace(value.into_owned()).is_some() {
            return Err(Refusal::Registry("two registries are named at once".to_owned()));
        }
    }
    Ok((named, rest.finish()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn asked(method: Method, uri: &str, headers: &[(&str, &str)]) -> Result<Question, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, value.parse().unwrap());
        }
        Question::of((&method, &uri.parse().unwrap(), &map), &"docker.io".parse().unwrap())
    }

    fn get(uri: &str) -> Result<Question, Refusal> {
        asked(Method::GET, uri, &[])
    }

    #[test]
    fn a_registry_is_named_by_the_query_or_the_path_or_not_at_all() {
        for (uri, reference) in [
            (
                "/v2/team/app/manifests/1?ns=quay.io".to_owned(),
                "oci://quay.io/team/app:1".to_owned(),
            ),
            (
                "/v2/team/app/manifests/1?ns=127.0.0.1%3A5000".to_owned(),
                "oci://127.0.0.1:5000/team/app:1".to_owned(),
            ),
            ("/v2/quay.io/team/app/manifests/1".to_owned(), "oci://quay.io/team/app:1".to_owned()),
            (
                "/v2/127.0.0.1__5000/app/manifests/1".to_owned(),
                "oci://127.0.0.1:5000/app:1".to_owned(),
            ),
            (
                "/v2/library/debian/manifests/13".to_owned(),
                "oci://docker.io/library/debian:13".to_owned(),
            ),
            // With a query the path is the name.
            (
                "/v2/quay.io/app/manifests/1?ns=ghcr.io".to_owned(),
                "oci://ghcr.io/quay.io/app:1".to_owned(),
            ),
            (format!("/v2/a/b/manifests/{DIGEST}?ns=h.test"), format!("oci://h.test/a/b@{DIGEST}")),
            (format!("/v2/a/blobs/{DIGEST}?ns=h.test"), format!("oci://h.test/a?blob={DIGEST}")),
        ] {
            assert_eq!(get(&uri).unwrap().reference.to_string(), reference, "{uri}");
        }
        let ping = get("/v2/").unwrap();
        assert_eq!((ping.sought, ping.is_named), (Sought::Ping, false));
        let ping = get("/v2/?ns=quay.io").unwrap();
        assert_eq!((ping.registry.as_str(), ping.is_named), ("quay.io", true));
        let tags = get("/v2/team/app/tags/list?n=2&ns=quay.io&last=x").unwrap();
        assert_eq!(tags.sought, Sought::Tags("n=2&last=x".to_owned()));
    }

    #[test]
    fn what_a_registry_itself_is_asked_is_of_that_registry_alone() {
        let registry = "quay.io".parse().unwrap();
        let to = |method: Method, path: &str| Question::to(&registry, &method, path);
        for (path, reference) in [
            ("/v2/team/app/manifests/1".to_owned(), "oci://quay.io/team/app:1".to_owned()),
            // No other registry is named by it.
            ("/v2/ghcr.io/app/manifests/1".to_owned(), "oci://quay.io/ghcr.io/app:1".to_owned()),
            (format!("/v2/a/blobs/{DIGEST}"), format!("oci://quay.io/a?blob={DIGEST}")),
        ] {
            assert_eq!(to(Method::GET, &path).unwrap().reference.to_string(), reference, "{path}");
        }
        for path in
            ["/v2/", "/v2/a/tags/list", "/v2/a/blobs/uploads/", "/v2/../x/manifests/1", "/x"]
        {
            assert!(to(Method::GET, path).is_none(), "{path}");
        }
        assert!(to(Method::PUT, "/v2/team/app/manifests/1").is_none());
    }

    #[test]
    fn what_goes_on_elsewhere_goes_on_here() {
        let mut head = HeaderMap::new();
        head.insert(LINK, "</v2/app/tags/list?last=b&n=2>; rel=\"next\"".parse().unwrap());
        let link = |uri: &str| get(uri).unwrap().link_of(&head);
        assert_eq!(
            link("/v2/app/tags/list?n=2&ns=quay.io").as_deref(),
            Some("</v2/app/tags/list?last=b&n=2&ns=quay.io>; rel=\"next\"")
        );
        assert_eq!(
            link("/v2/quay.io/app/tags/list?n=2").as_deref(),
            Some("</v2/quay.io/app/tags/list?last=b&n=2>; rel=\"next\"")
        );
        assert_eq!(link("/v2/app/manifests/1?ns=quay.io"), None);
    }

    #[test]
    fn whatever_is_hostile_is_refused() {
        let name = |uri: &str| matches!(get(uri), Err(Refusal::Name(_)));
        for uri in [
            "/v2/../etc/manifests/1",
            "/v2/a/../b/manifests/1",
            "/v2/a/./b/manifests/1",
            "/v2/a%2f..%2fb/manifests/1",
            "/v2/A/manifests/1",
            "/v2/a/manifests/-x",
            "/v2/a/manifests/%2e%2e",
            "/v2/a/manifests/1%3Fblob=x",
            "/v2/a@b/manifests/1",
            "/v2//a/manifests/1",
            "/v2/a/manifests/",
            "/v2/a/blobs/sha256:0",
            "/v2/a/blobs/latest",
            "/v2/a/blobs/sha256:..",
            &format!("/v2/a/referrers/{DIGEST}x"),
            &format!("/v2/{}/manifests/1", "x".repeat(300)),
            &format!("/v2/{}/manifests/1", "x/".repeat(4000)),
        ] {
            assert!(name(uri), "{uri} {:?}", get(uri));
        }
        for ns in
            ["", "user%40h", "h%3A0", "169.254.169.254", "h%2Fpath", "h%0d%0aHost%3a", "2852039166"]
        {
            let asked = get(&format!("/v2/a/manifests/1?ns={ns}"));
            assert!(matches!(asked, Err(Refusal::Registry(_))), "{ns} {asked:?}");
        }
        assert!(matches!(get("/v2/a/manifests/1?ns=a.b&ns=c.d"), Err(Refusal::Registry(_))));
        for unknown in ["/", "/v1/x", "/v2x", "/v2/_catalog", "/v2/a/blobs/uploads/", "/metrics"] {
            assert!(matches!(get(unknown), Err(Refusal::Unknown | Refusal::Name(_))), "{unknown}");
        }
        assert_eq!(get("http://other.test/v2/").unwrap_err(), Refusal::Proxy);
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::CONNECT] {
            assert_eq!(asked(method, "/v2/", &[]).unwrap_err(), Refusal::Method);
        }
        for headers in [
            &[("content-length", "5")][..],
            &[("transfer-encoding", "chunked")],
            &[("content-length", "0"), ("transfer-encoding", "chunked")],
            &[("content-length", "+0")],
        ] {
            assert_eq!(asked(Method::GET, "/v2/", headers).unwrap_err(), Refusal::Body);
        }
        assert_eq!(asked(Method::GET, "/v2/", &[("via", PASSED_ON)]).unwrap_err(), Refusal::Loop);
        assert!(asked(Method::GET, "/v2/", &[("content-length", "0")]).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_taken_is_of_the_registry_that_is_named(
            name in "[a-zA-Z0-9._:@/%?#-]{0,30}",
            kind in "(manifests|blobs|referrers|tags)",
            last in "[a-zA-Z0-9._:@%-]{0,20}",
        ) {
            let Ok(uri) = format!("/v2/{name}/{kind}/{last}?ns=h.test:5000").parse::<Uri>() else {
                return Ok(());
            };
            let registry = "docker.io".parse().unwrap();
            let asked = Question::of((&Method::GET, &uri, &HeaderMap::new()), &registry);
            if let Ok(question) = asked {
                if question.is_named {
                    prop_assert_eq!(question.registry.as_str(), "h.test:5000");
                }
                prop_assert_eq!(question.reference.registry(), question.registry.as_str());
                prop_assert!(!question.reference.repository().contains(".."));
            }
        }
    }
}
