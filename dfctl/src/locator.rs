//! What a person names on the command line: `URL[!path]`, with headers.

use std::io;
use std::path::{Component, Path, PathBuf};

use dfs_model::redact;
use dfs_source::Target;
use dfs_source::oci::{Located, OnDisk, Platform, Written};
use dfs_source::s3::Environment;
use percent_encoding::percent_decode_str;

use crate::codes;
use crate::error::CliError;

/// An artifact, and perhaps something inside it.
#[derive(Debug, Clone)]
pub struct Locator {
    /// The artifact.
    pub target: Target,
    /// What stands after the `!`: elements joined by `/`, no leading or trailing slash.
    pub inner: Option<Vec<u8>>,
}

impl Locator {
    /// Reads `URL[!path]` or a path of this machine, and headers as `Name: value`.
    pub fn parse(text: &str, headers: &[String]) -> Result<Self, CliError> {
        let (text, inner) = match text.rsplit_once('!') {
            Some((artifact, inner)) if !is_local(text) || !Path::new(text).exists() => {
                (artifact, Some(inner_path(inner)?))
            }
            _ => (text, None),
        };
        let target = match OnDisk::written(text, Path::exists) {
            Some(written) => Ok(on_disk(&written)?),
            None if is_local(text) => Target::of_path(&existing(text)?),
            None => Target::parse(text),
        };
        let mut target = target.map_err(|error| {
            CliError::new(&codes::BAD_URL, error.to_string())
                .hint("dfctl stat https://host/path      or: dfctl stat /path/to/file")
        })?;
        for header in headers {
            target = with_header(target, header)?;
        }
        Ok(Self { target, inner: inner.filter(|inner| !inner.is_empty()) })
    }

    /// A directory of this machine, which may be new.
    pub fn directory(text: &str) -> Result<Self, CliError> {
        let target = Target::of_path(&absolute(text)?.join(""));
        let target = target.map_err(|error| CliError::new(&codes::BAD_URL, error.to_string()))?;
        Ok(Self { target, inner: None })
    }

    /// The same as the user of `environment` means it: in their store, asked with their keys or their login.
    /// `named`: a profile was named on the command line, so that its keys are the ones that are meant.
    pub async fn meant_in(self, environment: &Environment, named: bool) -> Result<Self, CliError> {
        match self.target.url.url().scheme() {
            "s3" => {}
            "oci" => return self.with_login(environment).await,
            _ => return Ok(self),
        }
        let target = dfs_source::s3::as_meant_in(environment, self.target).await;
        let target = target.map_err(|error| {
            CliError::new(&codes::BAD_CONFIG, "cannot use the access to object stores")
                .caused_by(&error)
                .hint("dfctl stat s3://bucket/key --profile NAME      or: unset AWS_PROFILE")
        })?;
        if named && target.credentials.is_none() {
            let what = "the profile given with --profile holds no keys";
            return Err(CliError::new(&codes::BAD_CONFIG, what)
                .hint("AWS_PROFILE=NAME dfctl --solo …, where it leads to keys in another way"));
        }
        Ok(Self { target, inner: self.inner })
    }

    /// Of an image, the one for these machines; anything else as it is.
    pub fn for_platform(mut self, platform: Platform) -> Self {
        if let Ok(located) = Located::of(&self.target.url) {
            self.target.url = located.with_platform(Some(platform)).url();
        }
        self
    }

    /// With their login for the registry.
    async fn with_login(self, environment: &Environment) -> Result<Self, CliError> {
        let target = dfs_source::oci::as_meant_in(environment, self.target).await;
        let target = target.map_err(|error| {
            CliError::new(&codes::BAD_CONFIG, "cannot use the access to registries")
                .caused_by(&error)
                .hint("docker login REGISTRY      or, without any login: DOCKER_CONFIG=/nowhere dfctl …")
        })?;
        Ok(Self { target, inner: self.inner })
    }

    /// As it was named, credentials removed.
    pub fn shown(&self) -> String {
        match &self.inner {
            Some(inner) => format!("{}!{}", self.target.url, String::from_utf8_lossy(inner)),
            None => self.target.url.to_string(),
        }
    }

    /// A name for a file or directory that holds it; never one that leads anywhere else.
    pub fn file_name(&self) -> Option<String> {
        let name = match &self.inner {
            Some(inner) => {
                String::from_utf8(inner.rsplit(|byte| *byte == b'/').next()?.to_vec()).ok()?
            }
            None => self.target.url.file_name()?,
        };
        sanitise(&name)
    }

    /// The path of what lies on this machine.
    pub fn local_path(&self) -> Option<PathBuf> {
        let url = self.target.url.url();
        if url.scheme() == "file" { url.to_file_path().ok() } else { None }
    }

    /// The origin's name for a ledger.
    pub fn origin(&self) -> &str {
        self.target.url.url().host_str().unwrap_or("this machine")
    }
}

/// A name from elsewhere as one that is safe here: no separators, no control characters, not hidden, not an
/// option, not too long. `None` when nothing is left.
fn sanitise(name: &str) -> Option<String> {
    let safe = |c: char| if c.is_control() || matches!(c, '/' | '\\') { '_' } else { c };
    let mut name: String = name.trim().chars().map(safe).collect();
    if name.starts_with(['.', '-']) {
        name.replace_range(..1, "_");
    }
    while name.len() > 200 {
        name.pop();
    }
    let useless = name.is_empty() || name.chars().all(|c| c == '_' || c == '.');
    (!useless).then_some(name)
}

/// Whether the text names something on this machine: it has no scheme.
pub fn is_local(text: &str) -> bool {
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    !scheme.is_some_and(|scheme| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// An image that lies here.
fn on_disk(written: &Written<'_>) -> Result<Target, CliError> {
    let place = written.at(&absolute(written.path)?);
    let place = place.map_err(|error| {
        let scheme = written.form.scheme();
        CliError::new(&codes::BAD_URL, error.to_string())
            .hint(format!("dfctl stat {scheme}:PATH:NAME"))
    })?;
    Ok(Target::new(place.url()))
}

/// The path that `text` is here; a directory's ends in a slash.
fn existing(text: &str) -> Result<PathBuf, CliError> {
    let looks_like_path = text.starts_with(['/', '.']) || Path::new(text).exists();
    if !looks_like_path {
        let what = format!("'{}' is neither a URL nor a file here", redact(text));
        let error = CliError::new(&codes::BAD_URL, what);
        let looks_like_host =
            text.split('/').next().is_some_and(|host| host.contains('.') && !host.contains('@'));
        return Err(if looks_like_host {
            error.hint(format!("https://{}", redact(text)))
        } else {
            error.hint("https://host/path, file:///path or an absolute path")
        });
    }
    let path = absolute(text)?;
    Ok(if text.ends_with('/') || path.is_dir() { path.join("") } else { path })
}

/// Behind a link, `..` is the directory above where it leads, as everywhere but in URLs; behind what is not there
/// yet, the one that it will be in.
fn absolute(text: &str) -> Result<PathBuf, CliError> {
    let unknown = |error: io::Error| {
        CliError::new(&codes::BAD_URL, format!("cannot find out where {text} is")).caused_by(&error)
    };
    let path = std::path::absolute(text).map_err(unknown)?;
    let mut led = PathBuf::new();
    for part in path.components() {
        if part != Component::ParentDir {
            led.push(part);
            continue;
        }
        match led.canonicalize() {
            Ok(real) => led = real,
            // A link that leads nowhere has nothing above it.
            Err(error) if error.kind() != io::ErrorKind::NotFound || led.is_symlink() => {
                return Err(unknown(error));
            }
            Err(_) => {}
        }
        led.pop();
    }
    Ok(led)
}

fn inner_path(text: &str) -> Result<Vec<u8>, CliError> {
    let decoded: Vec<u8> = percent_decode_str(text).collect();
    let elements: Vec<&[u8]> = decoded
        .split(|byte| *byte == b'/')
        .filter(|element| !element.is_empty() && *element != b".")
        .collect();
    if elements.contains(&&b".."[..]) || decoded.contains(&0) {
        let what = format!("'{}' is no path inside an artifact", redact(text));
        return Err(
            CliError::new(&codes::BAD_URL, what).hint("write it from the root, without '..'")
        );
    }
    Ok(elements.join(&b'/'))
}

fn with_header(target: Target, header: &str) -> Result<Target, CliError> {
    let Some((name, value)) = header.split_once(':') else {
        // The text may be a secret: it is not repeated.
        return Err(CliError::new(&codes::USAGE, "a header given with -H has no colon")
            .hint("-H 'Name: value'"));
    };
    target.with_header(name, value).map_err(|error| {
        CliError::new(&codes::USAGE, "a header given with -H cannot be sent").caused_by(&error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Locator {
        Locator::parse(text, &[]).unwrap()
    }

    #[test]
    fn what_is_inside_stands_after_the_last_exclamation_mark() {
        let locator = parse("https://h/a.tar!dir//./f%20g/");
        assert_eq!(locator.target.url.as_str(), "https://h/a.tar");
        assert_eq!(locator.inner.as_deref(), Some(&b"dir/f g"[..]));
        assert_eq!(locator.shown(), "https://h/a.tar!dir/f g");
        assert_eq!(parse("https://h/a.tar!/").inner, None);
        let quoted = parse("https://h/a%21b.tar!c%21d%25");
        assert_eq!(quoted.target.url.as_str(), "https://h/a%21b.tar");
        assert_eq!(quoted.inner.as_deref(), Some(&b"c!d%"[..]));
        let last = parse("https://h/a!b.tar!");
        assert_eq!((last.target.url.as_str(), last.inner), ("https://h/a!b.tar", None));
        assert!(Locator::parse("https://h/a.tar!a/../b", &[]).is_err());
    }

    #[test]
    fn a_platform_is_part_of_the_name_of_an_image_and_of_nothing_else() {
        let platform: Platform = "linux/aarch64".parse().unwrap();
        for (text, named) in [
            ("oci://h/a:1!etc/x", "oci://h/a:1?platform=linux/arm64!etc/x"),
            ("oci://h/a:1?platform=linux/s390x", "oci://h/a:1?platform=linux/arm64"),
            ("oci-layout:///d?name=v1", "oci-layout:///d?name=v1&platform=linux/arm64"),
            ("https://h/a.tar", "https://h/a.tar"),
        ] {
            assert_eq!(parse(text).for_platform(platform.clone()).shown(), named);
        }
    }

    #[test]
    fn names_for_files_are_safe() {
        let name = |text: &str| parse(text).file_name();
        assert_eq!(name("https://h/a/model.bin?x=/etc/passwd").as_deref(), Some("model.bin"));
        assert_eq!(name("https://h/%2e%2e%2fetc"), None);
        assert_eq!(name("https://h/.bashrc").as_deref(), Some("_bashrc"));
        assert_eq!(name("https://h/-rf").as_deref(), Some("_rf"));
        assert_eq!(name("https://h/a%1b[2Jb").as_deref(), Some("a_[2Jb"));
        assert_eq!(name("https://h/a%5c..%5cb").as_deref(), Some("a_.._b"));
        assert_eq!(name("https://h/"), None);
        assert_eq!(name("https://h/a.tar!d/f").as_deref(), Some("f"));
        assert!(
            name(&format!("https://h/{}", "x".repeat(250))).is_some_and(|name| name.len() == 200)
        );
    }

    #[test]
    fn paths_of_this_machine_become_urls() {
        assert_eq!(parse("/etc/hostname").target.url.as_str(), "file:///etc/hostname");
        assert_eq!(parse("/etc").target.url.as_str(), "file:///etc/");
        assert_eq!(parse("./x").target.url.url().scheme(), "file");
    }

    #[test]
    fn a_directory_to_write_to_has_any_name_and_lies_where_links_lead() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path().canonicalize().unwrap();
        std::fs::create_dir_all(place.join("real/deep")).unwrap();
        std::os::unix::fs::symlink("real/deep", place.join("link")).unwrap();
        let of = |name: &str| {
            let locator = Locator::directory(place.join(name).to_str().unwrap()).unwrap();
            assert_eq!(locator.inner, None);
            locator.local_path().unwrap()
        };
        assert_eq!(of("new!name?x#y%41"), place.join("new!name?x#y%41"));
        assert_eq!(of("link/../out"), place.join("real/out"));
        assert_eq!(of("new/../out"), place.join("out"));
        assert_eq!(of("link/../new/../out"), place.join("real/out"));
        assert_eq!(of("link/new/deeper/../../../out"), place.join("real/out"));
        assert_eq!(of("new/../link/../out"), place.join("real/out"));
        std::os::unix::fs::symlink("nowhere/deep", place.join("dangling")).unwrap();
        std::fs::write(place.join("file"), b"").unwrap();
        for nowhere in ["dangling/../out", "file/x/../out"] {
            assert!(Locator::directory(place.join(nowhere).to_str().unwrap()).is_err());
        }
        let source = parse(place.join("link/..").to_str().unwrap());
        assert_eq!(source.local_path().unwrap(), place.join("real"));
    }

    #[test]
    fn mistakes_never_repeat_a_secret() {
        let shown = |text: &str, headers: &[&str]| {
            let headers: Vec<_> = headers.iter().map(|&header| header.to_owned()).collect();
            Locator::parse(text, &headers).unwrap_err().render(None)
        };
        for error in [
            shown("https://user:hunter2@host:bad/x", &[]),
            shown("https://h/x", &["hunter2"]),
            shown("https://h/x", &["Authorization: hunter2\n3"]),
        ] {
            assert!(!error.contains("hunter2"), "{error}");
        }
        let hint = shown("host.org/x", &[]);
        assert!(hint.contains("try      https://host.org/x"), "{hint}");
    }
}
