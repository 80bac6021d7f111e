//! Where an image is: in a registry, or on this machine as a layout or an archive. Pure.
//!
//! `oci-layout:///DIR` is a directory as the image specification has it, `docker-archive:///FILE` a tar as `docker save`
//! writes it. Behind the path stands what of it is meant: `?name=NAME`, `?manifest=DIGEST` or `?blob=DIGEST`; nothing where it
//! has but one image. `&platform=OS/ARCH` is the one for such machines among several.

use std::fmt;
use std::path::{Path, PathBuf};

use dfs_model::{CanonicalUrl, UrlError};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::{ContentDigest, DigestError, Named, Platform, Reference, reference};

/// What a query keeps as it is of a name.
const NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b'@');

/// Longest name of an image in a layout.
const MAX_NAME: usize = 1024;

/// A manifest or a blob, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Located {
    /// Of a registry.
    Registry(Reference),
    /// Of this machine.
    OnDisk(OnDisk),
}

/// How images lie on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// A directory of the image specification's layout.
    Layout,
    /// A tar of `docker save`, by either form that this has.
    Archive,
}

/// A manifest or a blob of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OnDisk {
    form: Form,
    /// As a URL has it.
    path: String,
    named: Named,
    platform: Option<Platform>,
}

impl Located {
    /// Takes a URL apart; what is wrong with it.
    pub fn of(url: &CanonicalUrl) -> Result<Self, String> {
        match Form::of(url) {
            Some(form) => OnDisk::of(form, url).map(Self::OnDisk),
            None => Reference::of(url).map(Self::Registry),
        }
    }

    /// What is meant. On a disk, a tag without any letters is that of the only image there.
    pub fn named(&self) -> &Named {
        match self {
            Self::Registry(reference) => reference.named(),
            Self::OnDisk(place) => &place.named,
        }
    }

    /// A blob beside it.
    pub fn blob(&self, digest: ContentDigest) -> Self {
        match self {
            Self::Registry(reference) => Self::Registry(reference.blob(digest)),
            Self::OnDisk(place) => Self::OnDisk(place.beside(Named::Blob(digest))),
        }
    }

    /// A manifest beside it.
    pub fn manifest(&self, digest: ContentDigest) -> Self {
        match self {
            Self::Registry(reference) => Self::Registry(reference.manifest(digest)),
            Self::OnDisk(place) => Self::OnDisk(place.beside(Named::Manifest(digest))),
        }
    }

    /// How many of an image's layers are meant, from the lowest; all where nothing is said, as on a disk.
    pub fn layers(&self) -> Option<usize> {
        match self {
            Self::Registry(reference) => reference.layers(),
            Self::OnDisk(_) => None,
        }
    }

    /// For which machines it is meant, where that is said.
    pub fn platform(&self) -> Option<&Platform> {
        match self {
            Self::Registry(reference) => reference.platform(),
            Self::OnDisk(place) => place.platform.as_ref(),
        }
    }

    /// The image in it for these machines. A blob is for all.
    pub fn with_platform(self, platform: Option<Platform>) -> Self {
        match self {
            Self::Registry(reference) => Self::Registry(reference.with_platform(platform)),
            Self::OnDisk(place) if matches!(place.named, Named::Blob(_)) => Self::OnDisk(place),
            Self::OnDisk(place) => Self::OnDisk(OnDisk { platform, ..place }),
        }
    }

    /// By what a list of layers is named, whose digest this is; `None` on a disk.
    pub fn layers_name(&self, list: &ContentDigest) -> Option<CanonicalUrl> {
        match self {
            Self::Registry(reference) => Some(reference.layers_name(list)),
            Self::OnDisk(_) => None,
        }
    }

    /// The one spelling of it.
    pub fn url(&self) -> CanonicalUrl {
        match self {
            Self::Registry(reference) => reference.url(),
            Self::OnDisk(place) => place.url(),
        }
    }
}

impl Form {
    /// What a URL's scheme says.
    pub fn of(url: &CanonicalUrl) -> Option<Self> {
        Self::of_scheme(url.url().scheme())
    }

    fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "oci-layout" => Some(Self::Layout),
            "docker-archive" => Some(Self::Archive),
            _ => None,
        }
    }

    /// The scheme of its URLs.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Layout => "oci-layout",
            Self::Archive => "docker-archive",
        }
    }
}

impl OnDisk {
    fn of(form: Form, url: &CanonicalUrl) -> Result<Self, String> {
        let parsed = url.url();
        if parsed.host_str().is_some_and(|host| !host.is_empty() && host != "localhost") {
            return Err(format!("it is {}:///PATH, of this machine", form.scheme()));
        }
        let path = parsed.path().trim_end_matches('/');
        if path.is_empty() || !path.starts_with('/') {
            return Err(format!("it names no place: {}:///PATH", form.scheme()));
        }
        let (named, platform) = asked_of(parsed)?;
        Ok(Self { form, path: path.to_owned(), named, platform })
    }

    /// Reads what people write: `oci-layout:DIR[:NAME|@DIGEST]`, `docker-archive:FILE[:NAME|@DIGEST]`, with `exists` to tell a
    /// path that has such signs itself; `None` where it is not of this kind, or is a URL. The path may be relative.
    pub fn written(text: &str, exists: impl Fn(&Path) -> bool) -> Option<Written<'_>> {
        let (scheme, rest) = text.split_once(':')?;
        let form = Form::of_scheme(scheme)?;
        if rest.starts_with("//") {
            return None;
        }
        if exists(Path::new(rest)) {
            return Some(Written { form, path: rest, named: Named::Tag(String::new()) });
        }
        if let Some((path, digest)) = rest.rsplit_once('@')
            && let Ok(digest) = digest.parse()
        {
            return Some(Written { form, path, named: Named::Manifest(digest) });
        }
        let colons = || rest.match_indices(':').map(|(at, _)| at);
        let at = colons().find(|&at| exists(Path::new(&rest[..at]))).or_else(|| colons().next());
        let (path, name) = at.map_or((rest, ""), |at| (&rest[..at], &rest[at + 1..]));
        Some(Written { form, path, named: Named::Tag(name.to_owned()) })
    }

    fn beside(&self, named: Named) -> Self {
        Self { named, platform: None, ..self.clone() }
    }

    /// How it lies there.
    pub fn form(&self) -> Form {
        self.form
    }

    /// What of it is meant.
    pub fn named(&self) -> &Named {
        &self.named
    }

    /// The directory or file.
    pub fn path(&self) -> Result<PathBuf, UrlError> {
        let url = format!("file://{}", self.path);
        let path = Url::parse(&url).ok().and_then(|url| url.to_file_path().ok());
        path.ok_or_else(|| UrlError::Unusable {
            url: self.url().to_string(),
            reason: "a path has no NUL byte".to_owned(),
        })
    }

    /// The one spelling of it.
    pub fn url(&self) -> CanonicalUrl {
        CanonicalUrl::parse(&self.to_string()).expect("path and query are those of a URL")
    }
}

/// What somebody wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<'a> {
    /// How it lies there.
    pub form: Form,
    /// Where: perhaps from where they stand.
    pub path: &'a str,
    /// What of it is meant.
    pub named: Named,
}

impl Written<'_> {
    /// The same at an absolute path.
    pub fn at(&self, path: &Path) -> Result<OnDisk, UrlError> {
        let unusable = |reason: &str| UrlError::Unusable {
            url: format!("{}:{}", self.form.scheme(), path.display()),
            reason: reason.to_owned(),
        };
        let url = Url::from_file_path(path).map_err(|()| unusable("its path is not absolute"))?;
        let named = self.named.clone();
        let (form, path) = (self.form, url.path().to_owned());
        let place = OnDisk { form, path, named, platform: None };
        let url = CanonicalUrl::parse(&place.to_string())?;
        OnDisk::of(self.form, &url).map_err(|reason| unusable(&reason))
    }
}

impl fmt::Display for OnDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.form.scheme(), self.path)?;
        let mut sign = '&';
        match &self.named {
            Named::Tag(name) if name.is_empty() => {
                sign = '?';
                Ok(())
            }
            Named::Tag(name) => write!(f, "?name={}", utf8_percent_encode(name, NAME)),
            Named::Manifest(digest) => write!(f, "?manifest={digest}"),
            Named::Blob(digest) => write!(f, "?blob={digest}"),
        }?;
        self.platform.as_ref().map_or(Ok(()), |platform| write!(f, "{sign}platform={platform}"))
    }
}

fn asked_of(url: &Url) -> Result<(Named, Option<Platform>), String> {
    let (mut named, mut platform) = (None, None);
    for (key, value) in url.query_pairs() {
        let is_new = match key.as_ref() {
            "platform" => platform.replace(reference::platform(&value)?).is_none(),
            "name" if !value.is_empty() && value.len() <= MAX_NAME => {
                named.replace(Named::Tag(value.into_owned())).is_none()
            }
            "manifest" => named.replace(Named::Manifest(digest(&value)?)).is_none(),
            "blob" => named.replace(Named::Blob(digest(&value)?)).is_none(),
            _ => {
                return Err(
                    "behind a path there is ?name=, ?manifest= or ?blob=, and platform=".to_owned()
                );
            }
        };
        if !is_new {
            return Err("one thing of it can be named at a time".to_owned());
        }
    }
    match (named, platform) {
        (Some(Named::Blob(_)), Some(_)) => Err("a blob has no platform".to_owned()),
        (named, platform) => Ok((named.unwrap_or(Named::Tag(String::new())), platform)),
    }
}

fn digest(text: &str) -> Result<ContentDigest, String> {
    text.parse().map_err(|error: DigestError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn canonical(url: &str) -> Result<String, String> {
        let located = Located::of(&CanonicalUrl::parse(url).unwrap())?;
        assert_eq!(Located::of(&located.url()).as_ref(), Ok(&located));
        Ok(located.url().as_str().to_owned())
    }

    #[test]
    fn an_image_has_one_spelling_wherever_it_is() {
        for (url, spelled) in [
            ("oci://h/a", "oci://h/a:latest".to_owned()),
            ("oci://h/a?layers=2", "oci://h/a:latest?layers=2".to_owned()),
            ("oci-layout:///a/b/", "oci-layout:///a/b".to_owned()),
            ("oci-layout:///a/../b?name=v1", "oci-layout:///b?name=v1".to_owned()),
            (
                "oci-layout:///a?platform=linux/armhf",
                "oci-layout:///a?platform=linux/arm/v7".to_owned(),
            ),
            (
                "oci-layout:///a?platform=linux/arm64&name=v1",
                "oci-layout:///a?name=v1&platform=linux/arm64".to_owned(),
            ),
            (
                "docker-archive:///a.tar?name=h%3A5%2Fa+b",
                "docker-archive:///a.tar?name=h:5/a%20b".to_owned(),
            ),
            (
                &format!("oci-layout:///a?manifest={DIGEST}"),
                format!("oci-layout:///a?manifest={DIGEST}"),
            ),
            (&format!("oci-layout:///a?blob={DIGEST}"), format!("oci-layout:///a?blob={DIGEST}")),
        ] {
            assert_eq!(canonical(url), Ok(spelled));
        }
        for bad in [
            "oci-layout:///",
            "oci-layout://host/a",
            "oci-layout:///a?tag=x",
            "oci-layout:///a?blob=x",
            "oci-layout:///a?name=",
            "oci-layout:///a?name=x&name=y",
            "oci-layout:///a?name=x&platform=",
            &format!("oci-layout:///a?blob={DIGEST}&platform=linux/amd64"),
        ] {
            assert!(canonical(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_people_write_is_told_apart_by_what_is_there() {
        let there = ["dir", "odd:dir", "a.tar"];
        let written = |text: &str| {
            let exists = |path: &Path| there.iter().any(|there| Path::new(there) == path);
            let written = OnDisk::written(text, exists)?;
            let place = written.at(&Path::new("/at").join(written.path)).unwrap();
            Some(place.url().as_str().to_owned())
        };
        for (text, url) in [
            ("oci-layout:dir", "oci-layout:///at/dir".to_owned()),
            ("oci-layout:dir:v1", "oci-layout:///at/dir?name=v1".to_owned()),
            ("oci-layout:odd:dir", "oci-layout:///at/odd:dir".to_owned()),
            ("oci-layout:odd:dir:v1", "oci-layout:///at/odd:dir?name=v1".to_owned()),
            ("oci-layout:new:v1", "oci-layout:///at/new?name=v1".to_owned()),
            (
                "docker-archive:a.tar:h:5000/a:1",
                "docker-archive:///at/a.tar?name=h:5000/a:1".to_owned(),
            ),
            (
                &format!("oci-layout:dir@{DIGEST}"),
                format!("oci-layout:///at/dir?manifest={DIGEST}"),
            ),
        ] {
            assert_eq!(written(text), Some(url), "{text}");
        }
        for other in ["oci-layout:///a", "dir:v1", "https://h/a", "a"] {
            assert_eq!(written(other), None, "{other}");
        }
    }
}
