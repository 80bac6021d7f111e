//! Where an object is: its `s3://` URL taken apart, and the web address that stands for it.

use std::fmt::Write as _;

use dfs_model::CanonicalUrl;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use url::{Host, Url};

/// What SigV4 leaves as it is in a query.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The same in a path, where a slash is one.
pub(super) const PATH: &AsciiSet = &UNRESERVED.remove(b'/');

/// Longest key that stores take.
const MAX_KEY_BYTES: usize = 1024;

/// How a bucket becomes part of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressStyle {
    /// A host of its own at AWS, a path anywhere else.
    #[default]
    Auto,
    /// `https://endpoint/bucket/key`.
    Path,
    /// `https://bucket.endpoint/key`.
    VirtualHost,
}

/// What an `s3://` URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub bucket: String,
    /// Key or prefix, without the slash that parts it from the bucket.
    pub key: Vec<u8>,
    pub version: Option<String>,
    /// The store; AWS when absent.
    pub endpoint: Option<Url>,
    pub region: Option<String>,
}

impl Place {
    /// Reads a URL; the reason when it is none.
    pub fn parse(url: &CanonicalUrl) -> Result<Self, String> {
        let url = url.url();
        let bucket = url.host_str().filter(|bucket| is_bucket(bucket)).ok_or(
            "there is no bucket in it: write s3://bucket/key with a bucket of letters, digits, '.', '-'",
        )?;
        if url.port().is_some() {
            return Err(
                "a bucket has no port: name the store with ?endpoint=http://host:port".into()
            );
        }
        let path = url.path().strip_prefix('/').unwrap_or_default();
        let key: Vec<u8> = percent_decode_str(path).collect();
        if key.len() > MAX_KEY_BYTES {
            return Err(format!("its key is longer than {MAX_KEY_BYTES} bytes"));
        }
        let bucket = bucket.to_owned();
        let mut place = Self { bucket, key, version: None, endpoint: None, region: None };
        for (name, value) in url.query_pairs() {
            match &*name {
                "versionId" => place.version = Some(value.into_owned()),
                "endpoint" => place.endpoint = Some(endpoint(&value)?),
                "region" => place.region = Some(region(&value)?),
                _ => {
                    let name = name.escape_debug();
                    return Err(format!(
                        "'{name}' is no parameter of it: write '?' in a key as %3F"
                    ));
                }
            }
        }
        Ok(place)
    }

    /// What the keys of everything below it begin with.
    pub fn directory_key(&self) -> Vec<u8> {
        let end: &[u8] = if self.is_prefix() { b"" } else { b"/" };
        [&self.key[..], end].concat()
    }

    /// Whether it names a prefix: a place that can be listed.
    pub fn is_prefix(&self) -> bool {
        self.key.is_empty() || self.key.ends_with(b"/")
    }

    /// What asks for the version that it names.
    pub fn version_query(&self) -> Vec<(&str, &[u8])> {
        self.version.iter().map(|version| ("versionId", version.as_bytes())).collect()
    }

    /// The address of `key` in this bucket, with these parameters in any order. An empty key is the
    /// bucket itself.
    pub fn address(
        &self,
        key: &[u8],
        query: &[(&str, &[u8])],
        region: &str,
        style: AddressStyle,
    ) -> Result<Url, String> {
        let (base, style) = match &self.endpoint {
            Some(endpoint) => (endpoint.clone(), style),
            None => (aws("s3", region)?, style.at_aws(&self.bucket)),
        };
        let mut url = base;
        let prefix = url.path().trim_end_matches('/').to_owned();
        let key = percent_encode(key, PATH);
        match style {
            AddressStyle::VirtualHost => {
                let host = match url.host() {
                    Some(Host::Domain(host)) => format!("{}.{host}", self.bucket),
                    _ => return Err("a store without a name has no host for each bucket".into()),
                };
                url.set_host(Some(&host)).map_err(|error| error.to_string())?;
                url.set_path(&format!("{prefix}/{key}"));
            }
            AddressStyle::Path | AddressStyle::Auto => {
                url.set_path(&format!("{prefix}/{}/{key}", self.bucket));
            }
        }
        url.set_query(written(query).as_deref());
        Ok(url)
    }
}

impl AddressStyle {
    /// At AWS a bucket has a host of its own, except where its dots leave the certificate's name.
    fn at_aws(self, bucket: &str) -> Self {
        match self {
            Self::Auto if !bucket.contains('.') && bucket == bucket.to_ascii_lowercase() => {
                Self::VirtualHost
            }
            Self::Auto => Self::Path,
            chosen => chosen,
        }
    }
}

/// The parameters as SigV4 wants them: strictly encoded, in order; `None` when there are none.
fn written(query: &[(&str, &[u8])]) -> Option<String> {
    let mut pairs: Vec<(String, String)> = query
        .iter()
        .map(|(name, value)| (name.to_string(), percent_encode(value, UNRESERVED).to_string()))
        .collect();
    pairs.sort();
    let mut text = String::new();
    for (name, value) in pairs {
        let and = if text.is_empty() { "" } else { "&" };
        // Writing into a text does not fail.
        let _ = write!(text, "{and}{name}={value}");
    }
    (!text.is_empty()).then_some(text)
}

/// A service of AWS in a region.
pub(crate) fn aws(service: &str, region: &str) -> Result<Url, String> {
    let region = self::region(region)?;
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    Url::parse(&format!("https://{service}.{region}.{domain}/")).map_err(|error| error.to_string())
}

/// A store's address: the web, no credentials, nothing behind the path.
pub(crate) fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("its endpoint is no URL ({error})"))?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain { Ok(url) } else { Err("its endpoint is not http://host or https://host".into()) }
}

/// A region becomes part of a host's name: only what may stand there.
pub(crate) fn region(text: &str) -> Result<String, String> {
    let named = !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if named { Ok(text.to_owned()) } else { Err("its region is not the name of one".into()) }
}

/// A bucket becomes part of a host's name or of a path: only what may stand in both.
fn is_bucket(text: &str) -> bool {
    let dots = text.starts_with('.') || text.ends_with('.') || text.contains("..");
    let characters =
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    (1..=255).contains(&text.len()) && characters && !dots
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(text: &str) -> Result<Place, String> {
        Place::parse(&CanonicalUrl::parse(text).unwrap())
    }

    fn address(text: &str, style: AddressStyle) -> String {
        let place = place(text).unwrap();
        place.address(&place.key, &[], "eu-west-3", style).unwrap().into()
    }

    #[test]
    fn a_url_names_bucket_key_version_and_store() {
        let found =
            place("s3://b/a//c%20d?versionId=x%2By&endpoint=http://h:9000&region=r1").unwrap();
        assert_eq!((&*found.bucket, &found.key[..]), ("b", &b"a//c d"[..]));
        assert_eq!(found.version.as_deref(), Some("x+y"));
        assert_eq!(found.endpoint.unwrap().as_str(), "http://h:9000/");
        assert_eq!(found.region.as_deref(), Some("r1"));
        for bad in [
            "s3:///key",
            "s3://b..c/key",
            "s3://b/key?acl=1",
            "s3://b:80/key",
            "s3://b/k?endpoint=file:///etc",
            "s3://b/k?endpoint=http://u:p@h/",
            "s3://b/k?region=a.evil.example%2F",
        ] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn buckets_stand_in_the_host_at_aws_and_in_the_path_elsewhere() {
        let auto = AddressStyle::Auto;
        assert_eq!(address("s3://b/k", auto), "https://b.s3.eu-west-3.amazonaws.com/k");
        assert_eq!(address("s3://b.c/k", auto), "https://s3.eu-west-3.amazonaws.com/b.c/k");
        assert_eq!(address("s3://b/k+1?endpoint=http://h:9/p", auto), "http://h:9/p/b/k%2B1");
        let host = AddressStyle::VirtualHost;
        assert_eq!(address("s3://b/k?endpoint=http://s.local:9", host), "http://b.s.local:9/k");
        let numbered = place("s3://b/k?endpoint=http://127.0.0.1:9").unwrap();
        assert!(numbered.address(b"k", &[], "r", host).is_err());
    }

    proptest! {
        #[test]
        fn any_key_without_dot_elements_is_addressed_exactly(key in proptest::collection::vec(any::<u8>(), 1..40)) {
            let dots = |element: &[u8]| element == b"." || element == b"..";
            prop_assume!(!key.split(|byte| *byte == b'/').any(dots));
            let place = place("s3://b/x?endpoint=http://h").unwrap();
            let url = place.address(&key, &[("versionId", &key)], "r", AddressStyle::Path).unwrap();
            let path = url.path().strip_prefix("/b/").unwrap();
            prop_assert_eq!(percent_decode_str(path).collect::<Vec<u8>>(), key.clone());
            let query = url.query().unwrap().strip_prefix("versionId=").unwrap();
            prop_assert_eq!(percent_decode_str(query).collect::<Vec<u8>>(), key);
        }
    }
}
