//! Two places, neither of which lies in the other.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dfs_source::Target;

use crate::codes;
use crate::error::CliError;
use crate::locator::Locator;

/// Refuses a source in its destination, and the other way round.
pub fn check(source: &Locator, destination: &Locator) -> Result<(), CliError> {
    let nested = match (source.local_path(), destination.local_path()) {
        (Some(source), Some(destination)) => {
            holds(&source, &destination) || holds(&destination, &source)
        }
        (None, None) => are_nested_keys(&source.target, &destination.target),
        _ => false,
    };
    if !nested {
        return Ok(());
    }
    let what = format!("cannot sync {} with {}", source.shown(), destination.shown());
    Err(CliError::new(&codes::NESTED, what).because("one of the two lies in the other"))
}

/// Whether `outer` is `inner` or a directory above it, by whatever way it is named.
fn holds(outer: &Path, inner: &Path) -> bool {
    let Ok(outer) = std::fs::metadata(outer) else { return false };
    let there = existing(inner);
    there.ancestors().any(|above| {
        std::fs::metadata(above)
            .is_ok_and(|above| (above.dev(), above.ino()) == (outer.dev(), outer.ino()))
    })
}

/// The path itself, or where it will be: links resolved as far as it is there.
fn existing(path: &Path) -> PathBuf {
    let mut there = path.ancestors().filter_map(|above| std::fs::canonicalize(above).ok());
    there.next().unwrap_or_else(|| path.to_owned())
}

/// Whether one key begins with the other, in one bucket of one store.
fn are_nested_keys(one: &Target, other: &Target) -> bool {
    let place = |target: &Target| {
        let url = target.url.url();
        let mut at: Vec<_> = url.query_pairs().into_owned().collect();
        at.retain(|(name, _)| name == "endpoint");
        let key = format!("{}/", url.path().trim_end_matches('/'));
        (url.scheme() == "s3", url.host_str().map(str::to_owned), at, key)
    };
    let ((is_bucket, bucket, at, key), (_, other_bucket, other_at, other_key)) =
        (place(one), place(other));
    let same_bucket = is_bucket && bucket == other_bucket && at == other_at;
    same_bucket && (key.starts_with(&other_key) || other_key.starts_with(&key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn checked(source: &str, destination: &str) -> bool {
        let locate = |text: &str| Locator::parse(text, &[]).unwrap();
        check(&locate(source), &locate(destination)).is_ok()
    }

    #[test]
    fn what_lies_in_the_other_is_refused_by_whatever_name() {
        let place = tempfile::tempdir().unwrap();
        let dir = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(dir("a/b")).unwrap();
        std::fs::write(dir("a/x.tar"), b"").unwrap();
        symlink(dir("a"), dir("link")).unwrap();
        assert!(checked(&dir("a"), &dir("ab")) && checked(&dir("a/x.tar"), &dir("a/b")));
        let nested =
            [("a", "a"), ("a", "a/new/deep"), ("a/b", "a"), ("a", "link/b"), ("a/x.tar", "a")];
        for (source, destination) in nested {
            assert!(!checked(&dir(source), &dir(destination)), "{source} {destination}");
        }
    }

    #[test]
    fn prefixes_of_one_bucket_are_told_from_those_of_two() {
        assert!(!checked("s3://b/p/", "s3://b/p/q/") && !checked("s3://b/p/q", "s3://b/p"));
        assert!(checked("s3://b/p/", "s3://b/pq/") && checked("s3://b/p/", "s3://c/p/"));
        assert!(checked("s3://b/p/?endpoint=http://h", "s3://b/p/?endpoint=http://i"));
        assert!(checked("https://b/p/", "s3://b/p/"));
    }
}
