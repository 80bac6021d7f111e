//! `registries.conf` of version 2, and the files of the directory beside it: `PATH.d/*.conf`, in the order of their names. Of two
//! that speak of one prefix the later counts. What is said there of short names is nobody's here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use dfs_model::{CanonicalUrl, printable, shortened};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::config_file;
use super::super::reference::Reference;
use super::{MirrorsError, Pulls};

/// Most registries, and mirrors of one.
const MOST: usize = 256;

/// What is told of what begins so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// Host, host and port, or these with a path; `*.` in front stands for what is below a host.
    pub prefix: String,
    /// What stands in the place of the prefix; of `*.` nothing may.
    pub location: Option<String>,
    pub is_insecure: bool,
    pub is_blocked: bool,
    pub mirrors: Vec<ToldMirror>,
}

/// What is told of a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToldMirror {
    pub location: String,
    pub pulls: Pulls,
    pub is_insecure: bool,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    registry: Vec<Written>,
    /// What version 1 had.
    registries: Option<IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Written {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<WrittenMirror>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct WrittenMirror {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

/// All that is told at `path` and beside it.
pub(super) fn read(path: &Path) -> Result<Vec<Told>, MirrorsError> {
    let mut by_prefix = BTreeMap::new();
    for file in files(path)? {
        let failed = |reason| MirrorsError { path: file.clone(), reason };
        let text = config_file::read_text(&file).map_err(|error| failed(error.to_string()))?;
        for told in parse(&text).map_err(failed)? {
            by_prefix.insert(told.prefix.clone(), told);
        }
        if by_prefix.len() > MOST {
            return Err(failed(format!("there are more than {MOST} registries")));
        }
    }
    Ok(by_prefix.into_values().collect())
}

fn files(path: &Path) -> Result<Vec<PathBuf>, MirrorsError> {
    let mut dir = path.as_os_str().to_owned();
    dir.push(".d");
    let dir = PathBuf::from(dir);
    let beside = match config_file::in_directory(&dir, &["conf"]) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        found => found.map_err(|error| MirrorsError { path: dir, reason: error.to_string() })?,
    };
    Ok(std::iter::once(path.to_owned()).chain(beside).collect())
}

fn parse(text: &str) -> Result<Vec<Told>, String> {
    let document: Document = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start].lines().count().max(1));
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        format!("{line}{}", printable(&shortened(error.message(), 200)))
    })?;
    if document.registries.is_some() {
        return Err("it is of version 1: write [[registry]] with prefix and location".to_owned());
    }
    let told: Vec<Told> =
        document.registry.into_iter().map(Written::check).collect::<Result<_, _>>()?;
    for (at, one) in told.iter().enumerate() {
        if told[..at].iter().any(|other| other.prefix == one.prefix) {
            return Err(format!("it speaks of {} twice", one.prefix));
        }
    }
    Ok(told)
}

impl Written {
    fn check(self) -> Result<Told, String> {
        let place = |text: &str| Some(place(text)).filter(|_| !text.is_empty()).transpose();
        let location = place(&self.location)?;
        let prefix = match (self.prefix.strip_prefix("*."), &location) {
            (Some(host), _) => format!("*.{}", self::place(host)?),
            (None, None) if self.prefix.is_empty() => {
                return Err("a [[registry]] has neither prefix nor location".to_owned());
            }
            (None, None) => {
                let prefix = shown(&self.prefix);
                return Err(format!("the registry {prefix} has no location"));
            }
            (None, Some(location)) if self.prefix.is_empty() => location.clone(),
            (None, Some(_)) => self::place(&self.prefix)?,
        };
        if self.mirror.len() > MOST {
            return Err(format!("the registry {prefix} has more than {MOST} mirrors"));
        }
        let by_digest = self.mirror_by_digest_only;
        let mirrors = self.mirror.into_iter().map(|mirror| mirror.check(by_digest));
        let mirrors = mirrors.collect::<Result<_, _>>();
        let mirrors = mirrors.map_err(|why: String| format!("the registry {prefix}: {why}"))?;
        let (is_insecure, is_blocked) = (self.insecure, self.blocked);
        Ok(Told { prefix, location, is_insecure, is_blocked, mirrors })
    }
}

impl WrittenMirror {
    fn check(self, by_digest: bool) -> Result<ToldMirror, String> {
        if self.location.is_empty() {
            return Err("a mirror of it has no location".to_owned());
        }
        let pulls = match (self.pull_from_mirror.as_str(), by_digest) {
            ("", true) => Pulls::Digests,
            (_, true) if !self.pull_from_mirror.is_empty() => {
                let why = "mirror-by-digest-only and pull-from-mirror are not for one registry";
                return Err(why.to_owned());
            }
            ("" | "all", _) => Pulls::All,
            ("digest-only", _) => Pulls::Digests,
            ("tag-only", _) => Pulls::Tags,
            (other, _) => {
                let other = shown(other);
                return Err(format!(
                    "pull-from-mirror is all, digest-only or tag-only, not '{other}'"
                ));
            }
        };
        let (location, is_insecure) = (place(&self.location)?, self.insecure);
        Ok(ToldMirror { location, pulls, is_insecure })
    }
}

fn shown(text: &str) -> String {
    printable(&shortened(text, 80))
}

/// A host with what may follow it, in one spelling.
fn place(text: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("'{}' names no registry: {why}", shown(text));
    if text.contains("://") {
        return Err(wrong("it has a scheme"));
    }
    let plain = text.trim_end_matches('/');
    let (host, path) = plain.find('/').map_or((plain, ""), |at| plain.split_at(at));
    if path.contains([':', '@', '?', '#']) {
        return Err(wrong("it has a tag, a digest or a query"));
    }
    let host = host.to_ascii_lowercase();
    let within = if path.is_empty() { "/x" } else { path };
    let url = CanonicalUrl::parse(&format!("oci://{host}{within}"));
    let url = url.map_err(|_| wrong("it is no host"))?;
    Reference::of(&url).map_err(|why| wrong(&why))?;
    Ok(format!("{host}{path}"))
}

impl Told {
    /// How much of an image's name is what this begins with; `None` where it does not begin so.
    pub fn prefix_of(&self, image: &str) -> Option<usize> {
        let length = match self.prefix.strip_prefix('*') {
            Some(below) => {
                let at = image.find(below)?;
                // What is below is a part of the host.
                (at > 0 && !image[..at].contains('/')).then_some(at + below.len())?
            }
            None => image.starts_with(&self.prefix).then_some(self.prefix.len())?,
        };
        // A port may follow, as podman has it.
        let rest = &image[length..];
        (rest.is_empty() || rest.starts_with(['/', ':'])).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"
unqualified-search-registries = ["registry.example"]
short-name-mode = "enforcing"

[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "mirror.example:5000/hub/"
insecure = true
[[registry.mirror]]
location = "second.example"
pull-from-mirror = "digest-only"

[[registry]]
prefix = "*.example.com"
blocked = true

[[registry]]
location = "old.example/team"
mirror-by-digest-only = true
[[registry.mirror]]
location = "third.example"

[aliases]
debian = "docker.io/library/debian"
"#;

    #[test]
    fn what_containers_are_told_is_read() {
        let told = parse(CONF).unwrap();
        let [hub, below, team] = &told[..] else { panic!("{told:?}") };
        let mirrors: Vec<_> =
            hub.mirrors.iter().map(|mirror| (mirror.location.as_str(), mirror.pulls)).collect();
        let expected =
            [("mirror.example:5000/hub", Pulls::All), ("second.example", Pulls::Digests)];
        assert_eq!(mirrors, expected);
        assert!(!hub.is_insecure && hub.mirrors[0].is_insecure && !hub.mirrors[1].is_insecure);
        assert!(below.is_blocked && below.location.is_none());
        assert_eq!(team.prefix, "old.example/team");
        assert_eq!(team.mirrors[0].pulls, Pulls::Digests);
    }

    #[test]
    fn a_prefix_is_whole_parts_of_a_name() {
        for (prefix, image, length) in [
            ("docker.io", "docker.io/library/debian", Some(9)),
            ("docker.io/lib", "docker.io/library/debian", None),
            ("docker.io/library", "docker.io/library/debian", Some(17)),
            ("docker.io/library/debian", "docker.io/library/debian", Some(24)),
            ("example.com", "example.com.evil/app", None),
            ("example.com:5000", "example.com:5000/app", Some(16)),
            ("*.example.com", "a.example.com/app", Some(13)),
            ("*.example.com", "a.b.example.com:5000/app", Some(15)),
            ("*.example.com", "example.com/app", None),
            ("*.example.com", "evil/a.example.com/app", None),
            ("*.example.com/team", "a.example.com/team/app", Some(18)),
        ] {
            let text = format!("[[registry]]\nprefix = {prefix:?}\nlocation = \"x.example\"\n");
            let told = parse(&text).unwrap();
            assert_eq!(told[0].prefix_of(image), length, "{prefix} {image}");
        }
    }

    #[test]
    fn what_is_wrong_with_it_is_said() {
        for (text, said) in [
            ("[registries.search]\nregistries = []\n", "it is of version 1"),
            ("[[registry]]\ninsecure = true\n", "neither prefix nor location"),
            ("[[registry]]\nprefix = \"a.b\"\n", "a.b has no location"),
            ("[[registry]]\nlocation = \"https://a.b\"\n", "it has a scheme"),
            ("[[registry]]\nlocation = \"a.b/c:1\"\n", "it has a tag"),
            ("[[registry]]\nlocation = \"a.b/C\"\n", "names no registry"),
            (
                "[[registry]]\nlocation = \"a.b\"\n[[registry.mirror]]\n",
                "a mirror of it has no location",
            ),
            (
                "[[registry]]\nlocation = \"a.b\"\n[[registry]]\nprefix = \"a.b\"\nlocation = \"c.d\"\n",
                "speaks of a.b twice",
            ),
            (
                "[[registry]]\nlocation = \"a.b\"\n[[registry.mirror]]\nlocation = \"c.d\"\npull-from-mirror = \"never\"\n",
                "not 'never'",
            ),
            (
                "[[registry]]\nlocation = \"a.b\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"c.d\"\npull-from-mirror = \"all\"\n",
                "not for one registry",
            ),
            ("\n[[registry]]\nlocation = 7\n", "line 3: "),
            ("[[registry", "line 1: "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn files_beside_it_go_over_it_by_their_prefixes() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("registries.conf");
        let write = |name: &str, prefix: &str, location: &str| {
            let text = format!("[[registry]]\nprefix = \"{prefix}\"\nlocation = \"{location}\"\n");
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let error = read(&conf).unwrap_err().to_string();
        assert!(error.contains("registries.conf cannot be used"), "{error}");
        write("registries.conf", "a.example", "one.example");
        write("registries.conf.d/20.conf", "a.example", "three.example");
        write("registries.conf.d/10.conf", "a.example", "two.example");
        write("registries.conf.d/notes.txt", "a.example", "four.example");
        write("registries.conf.d/15.conf", "b.example", "five.example");
        let told = read(&conf).unwrap();
        let locations: Vec<_> = told.iter().filter_map(|one| one.location.as_deref()).collect();
        assert_eq!(locations, ["three.example", "five.example"]);
    }
}
