//! Canonical URLs: one spelling for one thing, never a credential in it.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::Url;

/// A URL in its one canonical spelling: lower-case scheme and host, no default port, no fragment,
/// no credentials.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CanonicalUrl(Url);

/// A URL that dfs cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL at all.
    #[error("'{url}' is not a URL ({reason}); write it as in https://host/path or file:///path")]
    Malformed {
        /// What was given, credentials removed.
        url: String,
        /// The parser's words.
        reason: String,
    },
    /// A URL that nothing of its kind can have.
    #[error("cannot use {url}: {reason}")]
    Unusable {
        /// What was given, as it may be shown.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A header that cannot be sent.
    #[error("header '{name}' {reason}")]
    Header {
        /// Its name; what it says may be a secret.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Credentials must travel separately.
    #[error("'{url}' carries credentials: canonical URLs have none")]
    Credentials {
        /// What was given, credentials removed.
        url: String,
    },
}

impl CanonicalUrl {
    /// Parses and normalises. Credentials are refused: split them off first.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let url = Url::parse(text).map_err(|error| UrlError::Malformed {
            url: redact(text),
            reason: error.to_string(),
        })?;
        Self::new(url)
    }

    /// Normalises a parsed URL.
    pub fn new(mut url: Url) -> Result<Self, UrlError> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::Credentials { url: redact(url.as_str()) });
        }
        url.set_fragment(None);
        if url.scheme() == "s3" {
            normalise_bucket(&mut url);
        }
        Ok(Self(url))
    }

    /// Drops the named query parameters (signatures, tokens) that do not change the content.
    pub fn without_query(&self, names: &[String]) -> Self {
        if names.is_empty() || self.0.query().is_none() {
            return self.clone();
        }
        let kept: Vec<(String, String)> = self
            .0
            .query_pairs()
            .filter(|(name, _)| !names.iter().any(|dropped| dropped == name))
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let mut url = self.0.clone();
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
        Self(url)
    }

    /// Host and port that it leads to, the port only where it is not the usual one; of a bucket its name.
    pub fn origin(&self) -> &str {
        self.0.authority()
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The parsed form.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The last path element, percent-decoded where that gives a usable file name.
    pub fn file_name(&self) -> Option<String> {
        let last = self.0.path_segments()?.rfind(|segment| !segment.is_empty())?;
        let name = percent_encoding::percent_decode_str(last).decode_utf8().ok()?;
        let usable =
            name != "." && name != ".." && !name.contains(['/', '\0']) && name.len() <= 255;
        usable.then(|| name.into_owned())
    }

    /// Whether it lies on the machine of who names it, whose own it is to read: a file, a directory, an image kept in such.
    pub fn lies_here(&self) -> bool {
        matches!(self.0.scheme(), "file" | "oci-layout" | "docker-archive")
    }

    /// Whether the path ends in a slash, which by custom names a directory.
    pub fn is_directory(&self) -> bool {
        self.0.path().ends_with('/')
    }
}

/// For people, programs and logs: see [`redact`]. What is asked, stored or compared is [`CanonicalUrl::as_str`].
impl fmt::Display for CanonicalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&redact(self.as_str()))
    }
}

impl fmt::Debug for CanonicalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CanonicalUrl({self})")
    }
}

impl From<CanonicalUrl> for String {
    fn from(url: CanonicalUrl) -> Self {
        url.0.into()
    }
}

impl TryFrom<String> for CanonicalUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

/// A bucket's root has a path as any other, and what a query says of where a bucket is has one order.
fn normalise_bucket(url: &mut Url) {
    if url.path().is_empty() {
        url.set_path("/");
    }
    let mut said: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    said.retain(|(_, value)| !value.is_empty());
    said.sort();
    said.dedup();
    url.set_query(None);
    if !said.is_empty() {
        url.query_pairs_mut().extend_pairs(said);
    }
}

/// What the name of a query parameter contains whose value nobody else is shown.
const SECRET: [&str; 10] =
    ["sig", "token", "key", "secret", "pass", "pwd", "credential", "auth", "jwt", "session"];

/// A URL as it may be shown: without user and password, and without the values of query parameters whose names look
/// secret, or that are such URLs themselves.
pub fn redact(text: &str) -> String {
    redact_within(text, 1)
}

fn redact_within(text: &str, levels: u8) -> String {
    let is_scheme = |(scheme, _): &(&str, &str)| !scheme.contains(['/', '?', '#']);
    let (scheme, rest) = match text.split_once("://").filter(is_scheme) {
        Some((scheme, rest)) => (&text[..scheme.len() + 3], rest),
        None => ("", text),
    };
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let rest = match authority.rfind('@') {
        Some(at) if !scheme.is_empty() || authority[..at].contains(':') => &rest[at + 1..],
        _ => rest,
    };
    let (path, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let mut shown = format!("{scheme}{path}");
    for part in query.split_inclusive(['?', '&', ';', '#']) {
        let pair = part.trim_end_matches(['?', '&', ';', '#']);
        match pair.split_once('=') {
            Some((name, value)) if is_secret(name, value, levels) => {
                shown.push_str(&format!("{name}=<redacted>{}", &part[pair.len()..]));
            }
            _ => shown.push_str(part),
        }
    }
    shown
}

fn is_secret(name: &str, value: &str, levels: u8) -> bool {
    let decoded = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    let name = decoded(name).to_ascii_lowercase();
    let value = decoded(value);
    SECRET.iter().any(|part| name.contains(part))
        || levels > 0 && redact_within(&value, levels - 1) != value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_one_thing() {
        let url = CanonicalUrl::parse("HTTPS://Example.ORG:443/a/../b?x=1#top").unwrap();
        assert_eq!(url.as_str(), "https://example.org/b?x=1");
        assert_eq!(url.without_query(&["x".into()]).as_str(), "https://example.org/b");
    }

    #[test]
    fn buckets_have_one_spelling_too() {
        let url = |text: &str| CanonicalUrl::parse(text).unwrap().to_string();
        assert_eq!(url("S3://Bucket"), "s3://Bucket/");
        let expected = "s3://b/a//k?endpoint=http%3A%2F%2Fh%3A9000&versionId=7";
        assert_eq!(url("s3://b/a//k?versionId=7&region=&endpoint=http://h:9000#x"), expected);
        assert_eq!(url(expected), expected);
    }

    #[test]
    fn credentials_never_enter() {
        let error = CanonicalUrl::parse("https://user:secret@host/x").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_eq!(redact("https://u:p@h/x@y"), "https://h/x@y");
        assert_eq!(redact("u:p@h/x"), "h/x");
        assert_eq!(redact("/a:b/c@d"), "/a:b/c@d");
    }

    #[test]
    fn what_a_query_lets_its_holder_do_is_not_shown() {
        let signed = "https://h/x?versionId=7&X-Amz-Signature=abc&x%2Damz%2Dsecurity%2Dtoken=d&e";
        let shown = "https://h/x?versionId=7&X-Amz-Signature=<redacted>\
                     &x%2Damz%2Dsecurity%2Dtoken=<redacted>&e";
        let url = CanonicalUrl::parse(signed).unwrap();
        assert_eq!((url.to_string().as_str(), url.as_str()), (shown, signed));
        assert!(!format!("{url:?}").contains("abc"));
        assert_eq!(redact("h/x?a=1;sig=2#token=3"), "h/x?a=1;sig=<redacted>#token=<redacted>");
        let within = "https://h/?to=https%3A%2F%2Fo%2F%3Fsig%3Dabc&by=http://u:p@i/";
        assert_eq!(redact(within), "https://h/?to=<redacted>&by=<redacted>");
        let harmless = "https://h/x?at=http%3A%2F%2Fo%3A9000#top=1";
        assert_eq!(redact(harmless), harmless);
    }

    #[test]
    fn file_names_are_safe() {
        let name = |text: &str| CanonicalUrl::parse(text).unwrap().file_name();
        assert_eq!(name("https://h/a%20b.bin"), Some("a b.bin".into()));
        assert_eq!(name("https://h/a%2fb"), None);
        assert_eq!(name("https://h/"), None);
        assert_eq!(name("https://h/dir/"), Some("dir".into()));
    }
}
