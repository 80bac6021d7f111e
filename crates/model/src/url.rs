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

    /// Whether the path ends in a slash, which by custom names a directory.
    pub fn is_directory(&self) -> bool {
        self.0.path().ends_with('/')
    }
}

impl fmt::Display for CanonicalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for CanonicalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CanonicalUrl({})", self.as_str())
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

/// The text of a URL with whatever stands before an `@` in its authority removed.
pub fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..authority_end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => text.to_owned(),
    }
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
