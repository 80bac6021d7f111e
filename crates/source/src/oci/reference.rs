//! What a URL names in a registry: `oci://host[:port]/repository[:tag][@digest]`, a manifest, or
//! `oci://host[:port]/repository?blob=digest`, a blob. `?layers=N` behind an image is the N lowest of its layers,
//! `?platform=os/architecture[/variant]` the one for such machines among several.
//! Pure; grammar of the OCI distribution specification 1.1.

use std::fmt;
use std::net::Ipv6Addr;

use dfs_model::CanonicalUrl;

use super::{ContentDigest, Platform, PlatformError};

/// Longest name of a repository, and of host and port with it.
const MAX_NAME: usize = 255;
/// Scheme of the names of blobs.
pub(super) const CONTENT: &str = "oci-blob";
/// Scheme of the names of lists of layers.
const LAYERS: &str = "oci-layers";
/// Longest tag.
const MAX_TAG: usize = 128;

/// The registry that people mean by "docker.io", by the names that it has.
const DOCKER: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// A manifest or a blob in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    named: Named,
    /// Of an image, so many of its layers alone.
    layers: Option<u8>,
    /// Of an image for several kinds of machines, the one for these.
    platform: Option<Platform>,
}

/// What of a repository is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Named {
    /// What a tag names at the moment.
    Tag(String),
    /// The manifest of this digest. A tag beside it is for people only.
    Manifest(ContentDigest),
    /// The blob of this digest.
    Blob(ContentDigest),
}

impl Reference {
    /// Takes a URL apart; what is wrong with it.
    pub fn of(url: &CanonicalUrl) -> Result<Self, String> {
        let parsed = url.url();
        if parsed.scheme() != "oci" {
            return Err(format!("a registry is named by oci://, not {}://", parsed.scheme()));
        }
        let host = parsed.host_str().unwrap_or_default().to_ascii_lowercase();
        if !is_host(&host) {
            return Err("it names no registry: oci://HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]".into());
        }
        let registry = match parsed.port() {
            _ if DOCKER.contains(&host.as_str()) => DOCKER[0].to_owned(),
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        let path = parsed.path().strip_prefix('/').unwrap_or_default();
        let (path, digest) = match path.split_once('@') {
            Some((path, digest)) => (path, Some(self::digest(digest)?)),
            None => (path, None),
        };
        let tag = path.rfind(':').filter(|at| !path[*at..].contains('/'));
        let (name, tag) = tag.map_or((path, None), |at| (&path[..at], Some(&path[at + 1..])));
        if let Some(bad) = tag.filter(|tag| !is_tag(tag)) {
            return Err(format!(
                "'{bad}' is no tag: letters, digits, '_', '.' and '-', at most 128"
            ));
        }
        let repository = match registry == DOCKER[0] && !name.contains('/') {
            true => format!("library/{name}"),
            false => name.to_owned(),
        };
        if !is_repository(&repository) || registry.len() + repository.len() > MAX_NAME {
            return Err(format!(
                "'{name}' is no repository: lower-case letters and digits, parted by '/', '.', '_' or '-'"
            ));
        }
        let asked = asked_of(parsed.query())?;
        let Asked { blob, layers, platform } = asked;
        let named = match (blob, digest, tag) {
            (Some(blob), None, None) => Named::Blob(blob),
            (Some(_), ..) => {
                return Err("a blob has neither a tag nor another digest".to_owned());
            }
            (None, Some(digest), _) => Named::Manifest(digest),
            (None, None, tag) => Named::Tag(tag.unwrap_or("latest").to_owned()),
        };
        Ok(Self { registry, repository, named, layers, platform })
    }

    /// The same of a name as people and runtimes write it: one without a registry is of docker's.
    pub fn of_name(name: &str) -> Result<Self, String> {
        let registry = name.split_once('/').map(|(first, _)| first);
        let url = match registry.is_some_and(is_registry) {
            true => format!("oci://{name}"),
            false => format!("oci://{}/{name}", DOCKER[0]),
        };
        Self::of(&CanonicalUrl::parse(&url).map_err(|error| error.to_string())?)
    }

    /// Whether the registry goes by this name too: docker's has several.
    pub fn is_of(&self, registry: &str) -> bool {
        self.login_names().contains(&registry)
    }

    /// Host and port; `docker.io` by that name.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in it.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// What of it is meant.
    pub fn named(&self) -> &Named {
        &self.named
    }

    /// How many of an image's layers are meant, from the lowest; all where nothing is said.
    pub fn layers(&self) -> Option<usize> {
        self.layers.map(usize::from)
    }

    /// For which machines it is meant, where that is said.
    pub fn platform(&self) -> Option<&Platform> {
        self.platform.as_ref()
    }

    /// A blob of the same repository.
    pub fn blob(&self, digest: ContentDigest) -> Self {
        self.beside(Named::Blob(digest))
    }

    /// A manifest of the same repository.
    pub fn manifest(&self, digest: ContentDigest) -> Self {
        self.beside(Named::Manifest(digest))
    }

    /// Whether it is in the same repository.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.registry == other.registry && self.repository == other.repository
    }

    pub(super) fn beside(&self, named: Named) -> Self {
        Self { named, layers: None, platform: None, ..self.clone() }
    }

    /// The image in it for these machines. A blob is for all.
    pub fn with_platform(self, platform: Option<Platform>) -> Self {
        match self.named {
            Named::Blob(_) => self,
            Named::Tag(_) | Named::Manifest(_) => Self { platform, ..self },
        }
    }

    /// The same of another repository, which is named with its registry.
    pub(super) fn at(&self, place: &str) -> Result<Self, String> {
        let url = CanonicalUrl::parse(&format!("oci://{place}"));
        let place = Self::of(&url.map_err(|error| error.to_string())?)?;
        Ok(Self { registry: place.registry, repository: place.repository, ..self.clone() })
    }

    /// So many of its layers, from the lowest.
    pub fn with_layers(self, layers: u8) -> Self {
        Self { layers: Some(layers), ..self }
    }

    /// By what a blob is the same in all repositories of its registry; `None` of what is no blob.
    pub fn content_name(&self) -> Option<CanonicalUrl> {
        let Named::Blob(digest) = self.named else { return None };
        let digest = digest.to_string().replacen(':', "/", 1);
        let name = CanonicalUrl::parse(&format!("{CONTENT}://{}/{digest}", self.registry));
        Some(name.expect("host and digest are fit for a URL"))
    }

    /// By what a list of layers of the registry is named, whose digest this is.
    pub fn layers_name(&self, list: &ContentDigest) -> CanonicalUrl {
        let digest = list.to_string().replacen(':', "/", 1);
        let name = CanonicalUrl::parse(&format!("{LAYERS}://{}/{digest}", self.registry));
        name.expect("host and digest are fit for a URL")
    }

    /// The one spelling of it.
    pub fn url(&self) -> CanonicalUrl {
        CanonicalUrl::parse(&self.to_string())
            .expect("host, repository, tag and digest are fit for a URL")
    }

    /// Where requests go: host and port.
    pub fn address(&self) -> &str {
        if self.registry == DOCKER[0] { DOCKER[2] } else { &self.registry }
    }

    /// The path of it in the registry's own interface.
    pub(super) fn path(&self) -> String {
        let name = &self.repository;
        match &self.named {
            Named::Tag(tag) => format!("/v2/{name}/manifests/{tag}"),
            Named::Manifest(digest) => format!("/v2/{name}/manifests/{digest}"),
            Named::Blob(digest) => format!("/v2/{name}/blobs/{digest}"),
        }
    }

    /// Names under which a login for the registry may be written down.
    pub(super) fn login_names(&self) -> Vec<&str> {
        if self.registry == DOCKER[0] { DOCKER.to_vec() } else { vec![&self.registry] }
    }

    /// What a credential helper is asked for.
    pub(super) fn login_server(&self) -> &str {
        if self.registry == DOCKER[0] { "https://index.docker.io/v1/" } else { &self.registry }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}/{}", self.registry, self.repository)?;
        match &self.named {
            Named::Tag(tag) => write!(f, ":{tag}"),
            Named::Manifest(digest) => write!(f, "@{digest}"),
            Named::Blob(digest) => write!(f, "?blob={digest}"),
        }?;
        match (self.layers, &self.platform) {
            (None, None) => Ok(()),
            (Some(layers), None) => write!(f, "?layers={layers}"),
            (None, Some(platform)) => write!(f, "?platform={platform}"),
            (Some(layers), Some(platform)) => write!(f, "?layers={layers}&platform={platform}"),
        }
    }
}

/// What is said behind a repository.
#[derive(Default)]
struct Asked {
    blob: Option<ContentDigest>,
    layers: Option<u8>,
    platform: Option<Platform>,
}

fn digest(text: &str) -> Result<ContentDigest, String> {
    text.parse().map_err(|error: super::DigestError| error.to_string())
}

fn asked_of(query: Option<&str>) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let Some(query) = query else { return Ok(asked) };
    for part in query.split('&') {
        let is_new = match part.split_once('=') {
            Some(("blob", text)) => asked.blob.replace(digest(text)?).is_none(),
            Some(("layers", number)) => asked.layers.replace(layers(number)?).is_none(),
            Some(("platform", text)) => asked.platform.replace(platform(text)?).is_none(),
            _ => {
                return Err(
                    "only ?blob=DIGEST, ?layers=N and ?platform=OS/ARCH are known behind a \
                            repository"
                        .to_owned(),
                );
            }
        };
        if !is_new {
            return Err("one of each is said behind a repository".to_owned());
        }
    }
    match asked {
        Asked { blob: Some(_), layers: None, platform: None } | Asked { blob: None, .. } => {
            Ok(asked)
        }
        _ => Err("a blob has neither layers nor a platform".to_owned()),
    }
}

fn layers(number: &str) -> Result<u8, String> {
    let layers = number.parse().ok().filter(|number: &u8| *number > 0);
    layers.ok_or_else(|| "?layers= takes a number of layers, from 1 to 255".to_owned())
}

/// A platform as it stands behind a name.
pub(super) fn platform(text: &str) -> Result<Platform, String> {
    text.parse().map_err(|error: PlatformError| error.to_string())
}

/// Whether the first part of a name is a registry, as docker has it: it has a dot or a port, or is this machine.
pub fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    // No label is empty: such a host is none, or another spelling of one.
    host.bytes().all(known) && host.split('.').all(|label| !label.is_empty())
}

fn is_tag(tag: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let begins = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    tag.len() <= MAX_TAG && tag.as_bytes().first().is_some_and(begins) && tag.bytes().all(known)
}

fn is_repository(name: &str) -> bool {
    name.split('/').all(is_element)
}

/// Lower-case letters and digits; between them a dot, one or two underscores, or any number of hyphens.
fn is_element(element: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = element.as_bytes();
    let mut between = bytes.split(is_word).filter(|between| !between.is_empty());
    let ends = [bytes.first(), bytes.last()];
    ends.into_iter().all(|end| end.is_some_and(is_word))
        && between.all(|between| {
            matches!(between, b"." | b"_" | b"__") || between.iter().all(|byte| *byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn reference(url: &str) -> Result<Reference, String> {
        Reference::of(&CanonicalUrl::parse(url).unwrap())
    }

    fn canonical(url: &str) -> String {
        let one = reference(url).unwrap();
        assert_eq!(Reference::of(&one.url()).unwrap(), one, "{url}");
        assert_eq!(one.url().as_str(), one.to_string());
        one.to_string()
    }

    #[test]
    fn a_reference_has_one_spelling() {
        for (url, spelled) in [
            ("oci://Ghcr.IO/org/app", "oci://ghcr.io/org/app:latest".to_owned()),
            ("oci://h:5000/a/b/c__d:v1.2", "oci://h:5000/a/b/c__d:v1.2".to_owned()),
            ("oci://docker.io/debian:13", "oci://docker.io/library/debian:13".to_owned()),
            ("oci://registry-1.docker.io/a/b", "oci://docker.io/a/b:latest".to_owned()),
            ("oci://[::1]:5000/a", "oci://[::1]:5000/a:latest".to_owned()),
            (&format!("oci://h/a:tag@{DIGEST}"), format!("oci://h/a@{DIGEST}")),
            (&format!("oci://h/a?blob={DIGEST}"), format!("oci://h/a?blob={DIGEST}")),
            ("oci://h/a:1?layers=02", "oci://h/a:1?layers=2".to_owned()),
            (
                "oci://h/a?platform=Linux/aarch64",
                "oci://h/a:latest?platform=linux/arm64".to_owned(),
            ),
            (
                "oci://h/a:1?platform=linux/arm/7&layers=2",
                "oci://h/a:1?layers=2&platform=linux/arm/v7".to_owned(),
            ),
        ] {
            assert_eq!(canonical(url), spelled);
        }
    }

    #[test]
    fn what_no_registry_can_have_is_refused() {
        for bad in [
            "https://h/a",
            "oci:///a",
            "oci://h",
            "oci://h/",
            "oci://h/A",
            "oci://h/a/",
            "oci://h//a",
            "oci://../a",
            "oci://h..test/a",
            "oci://h./a",
            "oci://h/a..b",
            "oci://h/a___b",
            "oci://h/-a",
            "oci://h/a:",
            "oci://h/a:-x",
            "oci://h/a@sha256:0",
            "oci://h/a%2fb",
            "oci://h/a?tag=x",
            "oci://h/a?blob=x",
            "oci://h/a?layers=0",
            "oci://h/a?layers=256",
            "oci://h/a?platform=linux",
            "oci://h/a?platform=linux/a%20b",
            "oci://h/a?platform=linux/amd64&platform=linux/amd64",
            &format!("oci://h/a?blob={DIGEST}&platform=linux/amd64"),
            &format!("oci://h/a?blob={DIGEST}&layers=1"),
            &format!("oci://h/a:x?blob={DIGEST}"),
            &format!("oci://h/a@{DIGEST}?blob={DIGEST}"),
            &format!("oci://h/a:{}", "x".repeat(129)),
            &format!("oci://h/{}", "x".repeat(255)),
        ] {
            assert!(reference(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_lies_beside_it_is_named_by_digest() {
        let (one, digest) = (reference("oci://docker.io/debian").unwrap(), DIGEST.parse().unwrap());
        assert_eq!(one.address(), "registry-1.docker.io");
        assert_eq!(one.path(), "/v2/library/debian/manifests/latest");
        assert_eq!(one.blob(digest).path(), format!("/v2/library/debian/blobs/{DIGEST}"));
        assert_eq!(one.manifest(digest).path(), format!("/v2/library/debian/manifests/{DIGEST}"));
        let arm = one.clone().with_platform(Some("linux/arm64".parse().unwrap()));
        assert_eq!(arm.manifest(digest), one.manifest(digest));
        assert_eq!(one.blob(digest).with_platform(arm.platform().cloned()), one.blob(digest));
    }

    proptest! {
        #[test]
        fn what_is_taken_reads_back(rest in "[a-z0-9A-Z._:@/?=%-]{0,40}") {
            let Ok(url) = CanonicalUrl::parse(&format!("oci://h.test:5000/{rest}")) else {
                return Ok(());
            };
            if let Ok(one) = Reference::of(&url) {
                prop_assert_eq!(Reference::of(&one.url()).unwrap(), one);
            }
        }
    }

    #[test]
    fn a_blob_has_one_name_in_all_repositories_of_its_registry_and_no_other_place_has_it() {
        use super::super::{content_name, is_content_name, named_digest};
        let url = |text: &str| CanonicalUrl::parse(text).unwrap();
        let digest = format!("sha256:{}", "ab".repeat(32));
        let name = content_name(&url(&format!("oci://h:5000/team/app?blob={digest}")));
        assert_eq!(name.as_str(), format!("oci-blob://h:5000/sha256/{}", "ab".repeat(32)));
        assert_eq!(content_name(&url(&format!("oci://h:5000/other?blob={digest}"))), name);
        assert_ne!(content_name(&url(&format!("oci://h/team/app?blob={digest}"))), name);
        assert_eq!(named_digest(&name).unwrap().to_string(), digest);
        assert!(is_content_name(&name));
        for other in ["oci://h:5000/team/app:1", "https://h/x", "oci-blob://h/md5/00"] {
            assert_eq!(content_name(&url(other)).as_str(), other);
            assert_eq!(named_digest(&url(other)), None);
        }
    }
}
