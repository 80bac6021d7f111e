//! What a person names, taken apart: where, how, who.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dfs_model::{CanonicalUrl, UrlError, redact};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use url::Url;

use crate::{Credentials, Secret, check_path};

/// What a path element's bytes must not be in a URL; everything else stays as people write it, so
/// that a member of a listing and the same URL typed by hand are one thing.
const ELEMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Headers that belong to the transfer, not to the person who asks.
pub(crate) const RESERVED_HEADERS: [&str; 11] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "if-match",
    "if-none-match",
    "if-range",
    "range",
    "te",
    "transfer-encoding",
];

/// What a person names, with what is needed to ask for it. `Debug` and `Display` never show
/// secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Where it is; never carries credentials.
    pub url: CanonicalUrl,
    /// Headers that change content; lower-case names, sorted; part of the task's identity.
    pub headers: Vec<(String, String)>,
    /// Who asks; never part of an identity.
    pub credentials: Credentials,
}

impl Target {
    /// A public target without headers.
    pub fn new(url: CanonicalUrl) -> Self {
        Self { url, headers: Vec::new(), credentials: Credentials::None }
    }

    /// Reads a URL or an absolute path; `user:password@` becomes [`Credentials::Basic`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.starts_with('/') {
            return Self::of_path(Path::new(text));
        }
        let mut url = Url::parse(text).map_err(|error| UrlError::Malformed {
            url: redact_hard(text),
            reason: error.to_string(),
        })?;
        if url.cannot_be_a_base() {
            let reason = "there is no '//' behind its scheme".to_owned();
            return Err(UrlError::Malformed { url: redact_hard(text), reason });
        }
        let credentials = take_credentials(&mut url)?;
        Ok(Self { credentials, ..Self::new(CanonicalUrl::new(url)?) })
    }

    /// What stands at an absolute path of this machine; `.` and `..` are resolved as in any URL.
    pub fn of_path(path: &Path) -> Result<Self, UrlError> {
        Ok(Self::new(file_url(path)?))
    }

    /// The same, asked by somebody.
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { credentials, ..self }
    }

    /// The same with one more header. One that looks secret (`authorization`, `cookie`, a token or
    /// key) joins the credentials, any other changes the content and so the identity.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, UrlError> {
        let name = name.trim().to_ascii_lowercase();
        let value = value.trim();
        let bad = |reason| UrlError::Header { name: name.clone(), reason };
        if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(bad("has a name that no header can have"));
        }
        if reqwest::header::HeaderValue::from_str(value).is_err() {
            return Err(bad("has a value that no header can have"));
        }
        if RESERVED_HEADERS.contains(&name.as_str()) {
            return Err(bad("is set by dfs itself"));
        }
        if is_secret_header(&name) {
            self.credentials = self.credentials.with_header(&name, Secret::new(value));
            return Ok(self);
        }
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self.headers.sort();
        Ok(self)
    }

    /// A member of a listing of this target, by the path of its [`crate::Entry`]. It lies at the
    /// same origin, so it keeps headers and credentials.
    pub fn join(&self, path: &[u8]) -> Result<Self, UrlError> {
        self.member(path, "")
    }

    /// A directory of a listing of this target; its URL ends in a slash.
    pub fn join_directory(&self, path: &[u8]) -> Result<Self, UrlError> {
        self.member(path, "/")
    }

    fn member(&self, path: &[u8], end: &str) -> Result<Self, UrlError> {
        check_path(path).map_err(|error| UrlError::Malformed {
            url: self.url.to_string(),
            reason: format!("member '{}': {error}", path.escape_ascii()),
        })?;
        let elements: Vec<String> = path
            .split(|byte| *byte == b'/')
            .map(|element| percent_encode(element, ELEMENT).to_string())
            .collect();
        let mut url = self.url.url().clone();
        let base = match url.scheme() {
            // Here a further slash is a part of the name.
            "s3" => url.path().strip_suffix('/').unwrap_or(url.path()).to_owned(),
            _ => url.path().trim_end_matches('/').to_owned(),
        };
        keep_whereabouts(&mut url);
        url.set_path(&format!("{base}/{}{end}", elements.join("/")));
        Ok(Self { url: CanonicalUrl::new(url)?, ..self.clone() })
    }

    /// Another URL asked with the same headers; credentials follow only within the same origin
    /// (scheme, host and port).
    pub fn elsewhere(&self, url: CanonicalUrl) -> Self {
        let same = url.url().origin() == self.url.url().origin();
        let credentials = if same { self.credentials.clone() } else { Credentials::None };
        Self { url, headers: self.headers.clone(), credentials }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("url", &self.url)
            .field("headers", &self.headers)
            .field("credentials", &self.credentials)
            .finish()
    }
}

/// Drops the query, which is about this thing and not about what lies below it; only where a bucket
/// is stays.
fn keep_whereabouts(url: &mut Url) {
    let is_place = |name: &str| matches!(name, "endpoint" | "region");
    let mut kept: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    kept.retain(|(name, _)| is_place(name));
    let is_bucket = url.scheme() == "s3";
    url.set_query(None);
    if is_bucket && !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
}

fn is_secret_header(name: &str) -> bool {
    const SECRET: [&str; 6] = ["auth", "cookie", "token", "secret", "key", "passw"];
    SECRET.iter().any(|part| name.contains(part))
}

/// The URL of an absolute path. It is parsed from its text, so that `.` and `..` are resolved as in
/// any URL.
fn file_url(path: &Path) -> Result<CanonicalUrl, UrlError> {
    let bad = |reason: &str| UrlError::Malformed {
        url: path.display().to_string(),
        reason: reason.to_owned(),
    };
    let bytes = path.as_os_str().as_bytes();
    if bytes.contains(&0) {
        return Err(bad("a path has no NUL byte"));
    }
    let mut url = Url::from_file_path(path).map_err(|()| bad("it is not an absolute path"))?;
    if bytes.ends_with(b"/") && !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    CanonicalUrl::parse(url.as_str())
}

fn take_credentials(url: &mut Url) -> Result<Credentials, UrlError> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(Credentials::None);
    }
    let decode = |text: &str| {
        percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| {
            UrlError::Malformed {
                url: redact(url.as_str()),
                reason: "its user or password is not UTF-8".into(),
            }
        })
    };
    let user = decode(url.username())?;
    let password = Secret::new(decode(url.password().unwrap_or_default())?);
    let cleared = url.set_username("").and_then(|()| url.set_password(None));
    cleared.map_err(|()| UrlError::Malformed {
        url: redact(url.as_str()),
        reason: "it cannot carry credentials".into(),
    })?;
    Ok(Credentials::Basic { user, password })
}

/// For text that is no URL: whatever may be credentials goes, that is, also all up to the last `@`.
fn redact_hard(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => redact(&format!("{scheme}://{rest}")),
        (None, Some((_, rest))) => redact(rest),
        _ => redact(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(text: &str) -> Target {
        Target::parse(text).unwrap()
    }

    #[test]
    fn credentials_are_split_off_the_url_and_never_printed() {
        let target = target("https://ada:p%40ss@example.org/x");
        assert_eq!(target.url.as_str(), "https://example.org/x");
        let expected = Credentials::Basic { user: "ada".into(), password: "p@ss".into() };
        assert_eq!(target.credentials, expected);
        let shown = format!("{target} {target:?}");
        assert!(!shown.contains("p@ss") && !shown.contains("p%40ss"), "{shown}");
        for bad in ["http://u:p/w@host/x", "http://u:pw@ho st/", "u:pw@host"] {
            let error = Target::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("pw") && !error.contains("p/w"), "{error}");
        }
    }

    #[test]
    fn an_absolute_path_is_a_file_url() {
        assert_eq!(target("/data/a b#1?.bin").url.as_str(), "file:///data/a%20b%231%3F.bin");
        assert_eq!(target("/data/").url.as_str(), "file:///data/");
        assert_eq!(target("/data/../etc").url.as_str(), "file:///etc");
        assert_eq!(target("/").url.as_str(), "file:///");
        assert!(Target::parse("data/x").is_err());
    }

    #[test]
    fn members_stay_below_and_keep_who_asks() {
        let base = target("https://u:p@h/dir?q=1");
        let member = base.join(b"a b/\xff%2e+;.txt").unwrap();
        assert_eq!(member.url.as_str(), "https://h/dir/a%20b/%FF%252e+;.txt");
        assert_eq!(member.credentials, base.credentials);
        assert_eq!(base.join_directory(b"x").unwrap().url.as_str(), "https://h/dir/x/");
        assert_eq!(target("https://h/").join(b"x").unwrap().url.as_str(), "https://h/x");
        assert!(base.join(b"../x").is_err());
        let bucket = target("s3://b/p//?versionId=1&endpoint=http://h");
        let member = bucket.join(b"x").unwrap();
        assert_eq!(member.url.as_str(), "s3://b/p//x?endpoint=http%3A%2F%2Fh");
    }

    #[test]
    fn credentials_do_not_follow_to_another_origin() {
        let base = target("https://u:p@h/a").with_header("Accept", "text/plain").unwrap();
        let to = |url: &str| base.elsewhere(CanonicalUrl::parse(url).unwrap());
        assert_eq!(to("https://h/b").credentials, base.credentials);
        for other in ["http://h/a", "https://h:444/a", "https://i/a", "https://sub.h/a"] {
            assert!(to(other).credentials.is_none(), "{other}");
            assert_eq!(to(other).headers, base.headers);
        }
    }

    #[test]
    fn secret_headers_join_the_credentials_and_others_the_identity() {
        let target = target("https://h/a").with_header("X-Api-Key", "k").unwrap();
        assert!(target.headers.is_empty());
        assert_eq!(target.credentials.headers()[0].0, "x-api-key");
        let target = target.with_header("Accept", " a/b ").unwrap();
        assert_eq!(target.headers, [("accept".to_owned(), "a/b".to_owned())]);
        for (name, value) in [("Range", "bytes=0-1"), ("a b", "x"), ("x", "a\nb")] {
            assert!(target.clone().with_header(name, value).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_member_url_decodes_to_the_member_path(path in proptest::collection::vec(any::<u8>(), 1..40)) {
            for base in ["https://h/a%20b/", "file:///srv/x", "s3://b/x/"] {
                let base = Target::parse(base).unwrap();
                let Ok(member) = base.join(&path) else {
                    prop_assert!(check_path(&path).is_err());
                    continue;
                };
                let prefix = base.url.url().path().trim_end_matches('/').to_owned() + "/";
                let rest = member.url.url().path().strip_prefix(&prefix).unwrap();
                prop_assert_eq!(percent_decode_str(rest).collect::<Vec<u8>>(), path.clone());
            }
        }
    }
}
