//! What has a manifest and is no image: charts, modules, models, files of any kind. Its layers are its files, by the
//! names that their makers gave them.

use std::collections::BTreeMap;

use dfs_source::check_path;

use super::manifest::{Descriptor, ManifestError, shown};

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// Its path; always passes [`check_path`].
    pub path: Vec<u8>,
    /// Its bytes.
    pub blob: Descriptor,
}

/// The files that these layers are, by ascending paths. One without a name is called by its digest
/// (`sha256-…`); no two have the same path, and none lies below another.
pub(super) fn files(layers: &[Descriptor]) -> Result<Vec<ArtifactFile>, ManifestError> {
    let mut files = BTreeMap::new();
    for blob in layers {
        let path = match blob.title().filter(|title| !title.is_empty()) {
            Some(title) => title.to_owned(),
            None => format!("{}-{}", blob.digest.algorithm(), blob.digest.hex()),
        };
        let refused = |reason| Err(ManifestError::FileName { name: shown(&path), reason });
        if let Err(error) = check_path(path.as_bytes()) {
            return refused(error.to_string());
        }
        match files.insert(path.clone().into_bytes(), blob) {
            Some(there) if there.digest != blob.digest => {
                return refused("another file has the same name".to_owned());
            }
            _ => {}
        }
    }
    for path in files.keys() {
        let parents = (0..path.len()).filter(|&at| path[at] == b'/').map(|at| &path[..at]);
        for parent in parents {
            if files.contains_key(parent) {
                let name = shown(&String::from_utf8_lossy(path));
                let reason = "another file has the name of its directory".to_owned();
                return Err(ManifestError::FileName { name, reason });
            }
        }
    }
    let file = |(path, blob): (Vec<u8>, &Descriptor)| ArtifactFile { path, blob: blob.clone() };
    Ok(files.into_iter().map(file).collect())
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::descriptor;
    use super::*;

    fn titled(title: &str, content: &[u8]) -> Descriptor {
        let annotations = serde_json::json!({ "org.opencontainers.image.title": title });
        let mut json = descriptor("application/octet-stream", content);
        json["annotations"] = annotations;
        serde_json::from_value(json).unwrap()
    }

    fn paths(layers: &[Descriptor]) -> Result<Vec<String>, String> {
        let files = files(layers).map_err(|error| error.to_string())?;
        Ok(files.into_iter().map(|file| String::from_utf8(file.path).unwrap()).collect())
    }

    #[test]
    fn files_have_their_names_or_their_digests() {
        let unnamed = titled("", b"c");
        let name = format!("sha256-{}", unnamed.digest.hex());
        let layers = [titled("model/b.bin", b"b"), titled("a", b"a"), unnamed, titled("a", b"a")];
        assert_eq!(paths(&layers), Ok(vec!["a".to_owned(), "model/b.bin".to_owned(), name]));
        assert_eq!(paths(&[]), Ok(Vec::new()));
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = "n".repeat(256);
        for name in ["../a", "/etc/passwd", "a//b", "a/", "a/./b", "..", "a\0b", &long] {
            let error = paths(&[titled(name, b"x")]).unwrap_err();
            assert!(error.contains("is refused: it"), "{error}");
        }
        let error = paths(&[titled("\x1b[31m/../a", b"x")]).unwrap_err();
        assert!(!error.contains('\x1b'), "{error}");
    }

    #[test]
    fn names_must_not_meet() {
        let twice = paths(&[titled("a", b"1"), titled("a", b"2")]).unwrap_err();
        assert_eq!(twice, "file 'a' of the artifact is refused: another file has the same name");
        // '!' and '.' sort before the slash.
        let layers =
            [titled("a", b"1"), titled("a!", b"1"), titled("a.b", b"1"), titled("a/b/c", b"2")];
        let below = paths(&layers).unwrap_err();
        assert!(below.starts_with("file 'a/b/c' of the artifact is refused: another"), "{below}");
    }
}
