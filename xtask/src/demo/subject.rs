//! What is demonstrated: a URL, the origin behind it where it is ours, and what is known to be
//! true about it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_tests::origin::decode_path;
use dfs_tests::{Body, Origin};

use super::pick;
use crate::run::{Failure, failed};

/// Files by their path in the mount, and where the true bytes are on this machine.
pub type Local = BTreeMap<PathBuf, PathBuf>;

/// What is mounted, and what is known about it.
pub struct Subject {
    /// What the nodes are told.
    pub url: String,
    /// Our own origin; none when the URL is somebody else's.
    pub origin: Option<Origin>,
    /// Where the truth is.
    pub known: Known,
}

/// Where the truth is.
pub enum Known {
    /// Served in place from these files of this machine.
    Tree(Local),
    /// Served in place: this one file, which may be an archive.
    File(PathBuf),
    /// With somebody else, at this URL.
    Elsewhere,
}

impl Subject {
    /// What to demonstrate with: what was given, else directories of this machine.
    pub fn of(given: Option<&str>) -> Result<Self, Failure> {
        let Some(given) = given else { return Self::of_this_machine() };
        let path = match given.split_once("://") {
            Some(("http" | "https", _)) => {
                let known = Known::Elsewhere;
                return Ok(Self { url: given.to_owned(), origin: None, known });
            }
            Some(("file", rest)) => {
                let bytes = decode_path(rest.strip_prefix("localhost").unwrap_or(rest));
                PathBuf::from(std::ffi::OsString::from_vec(bytes))
            }
            Some((scheme, _)) => {
                let what = format!("the demo takes http, https and file URLs, not {scheme}://");
                return Err(Failure::Other(what));
            }
            None => PathBuf::from(given),
        };
        let path = path.canonicalize().map_err(failed(&path))?;
        Self::of_path(&path)
    }

    fn of_path(path: &Path) -> Result<Self, Failure> {
        let origin = Origin::start()?;
        let name = path.file_name().unwrap_or(OsStr::new("root"));
        let name = name.to_str().ok_or_else(|| {
            Failure::Other(format!("the name of {} is not UTF-8", path.display()))
        })?;
        if path.is_dir() {
            origin.show(name, path);
            let url = origin.url(&format!("/{name}/"));
            let files = pick::files(path).into_iter();
            let files = files.filter_map(|file| {
                Some((file.path.strip_prefix(path).ok()?.to_owned(), file.path.clone()))
            });
            return Ok(Self { url, origin: Some(origin), known: Known::Tree(files.collect()) });
        }
        origin.put(&format!("/{name}"), Body::File(path.to_owned()));
        let url = origin.url(&format!("/{name}"));
        Ok(Self { url, origin: Some(origin), known: Known::File(path.to_owned()) })
    }

    fn of_this_machine() -> Result<Self, Failure> {
        let origin = Origin::start()?;
        let mut files = Local::new();
        for directory in pick::directories() {
            let shown = directory.path.to_string_lossy().into_owned();
            origin.show(&shown, &directory.path);
            files.extend(directory.files.into_iter().filter_map(|file| {
                let inside = file.path.strip_prefix("/").ok()?.to_owned();
                Some((inside, file.path))
            }));
        }
        if files.is_empty() {
            let what = "nothing to show was found on this machine: name a URL or a directory";
            return Err(Failure::Other(what.to_owned()));
        }
        Ok(Self { url: origin.url("/"), origin: Some(origin), known: Known::Tree(files) })
    }
}

/// The true bytes of what is mounted.
pub enum Truth {
    /// On this machine.
    Local(Local),
    /// At these URLs: of a directory, or of the one file.
    Urls(BTreeMap<PathBuf, String>),
}

/// Finds out where the truth of the mounted `files` is. `url` is the artifact's as its node shows
/// it; `work` takes what must be unpacked.
pub fn truth(
    subject: &Subject,
    url: &str,
    files: &[(PathBuf, u64)],
    work: &Path,
) -> Result<Truth, Failure> {
    let is_itself =
        |name: &[u8]| matches!(files, [(path, _)] if path.as_os_str().as_bytes() == name);
    match &subject.known {
        Known::Tree(local) => Ok(Truth::Local(local.clone())),
        Known::File(path) if is_itself(path.file_name().unwrap_or_default().as_bytes()) => {
            let one = files.iter().map(|(inside, _)| (inside.clone(), path.clone()));
            Ok(Truth::Local(one.collect()))
        }
        Known::File(path) => unpack(path, work),
        Known::Elsewhere if url.ends_with('/') => {
            let urls = files.iter().map(|(path, _)| {
                let inside = dfs_tests::origin::encode_path(path.as_os_str().as_bytes());
                (path.clone(), format!("{url}{inside}"))
            });
            Ok(Truth::Urls(urls.collect()))
        }
        Known::Elsewhere => {
            let path = url.split(['?', '#']).next().unwrap_or_default();
            let name = decode_path(path.rsplit('/').next().unwrap_or_default());
            if is_itself(&name) {
                let one = files.iter().map(|(inside, _)| (inside.clone(), url.to_owned()));
                return Ok(Truth::Urls(one.collect()));
            }
            let archive = work.join("archive.tar");
            crate::run::run(Command::new("curl").args(["-fsSL", "-o"]).arg(&archive).arg(url))?;
            unpack(&archive, work)
        }
    }
}

/// What is in an archive, as `tar` unpacks it.
fn unpack(archive: &Path, work: &Path) -> Result<Truth, Failure> {
    let inside = work.join("unpacked");
    fs::create_dir_all(&inside).map_err(failed(&inside))?;
    let mut tar = Command::new("tar");
    tar.args(["--no-same-owner", "-xf"]).arg(archive).arg("-C").arg(&inside);
    crate::run::run(&mut tar)?;
    let files = pick::files(&inside).into_iter().filter_map(|file| {
        Some((file.path.strip_prefix(&inside).ok()?.to_owned(), file.path.clone()))
    });
    Ok(Truth::Local(files.collect()))
}

/// Whether this user may read the file.
pub fn is_readable(path: &Path) -> bool {
    File::open(path).is_ok()
}
