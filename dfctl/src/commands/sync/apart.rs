//! Two places, neither of which lies in the other.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dfs_fuse::mount::{MountEntry, mounts};
use dfs_source::Target;

use crate::codes;
use crate::error::CliError;
use crate::locator::Locator;

/// Refuses a source in its destination, and the other way round.
pub fn check(source: &Locator, destination: &Locator) -> Result<(), CliError> {
    let nested = match (source.local_path(), destination.local_path()) {
        (Some(source), Some(destination)) => overlap(&source, &destination),
        (None, None) => are_nested_keys(&source.target, &destination.target),
        _ => false,
    };
    if !nested {
        return Ok(());
    }
    let what = format!("cannot sync {} with {}", source.shown(), destination.shown());
    Err(CliError::new(&codes::NESTED, what).because("one of the two lies in the other"))
}

/// Where something lies: on which file system and where there, whatever links and mounts lead to it.
struct Spot {
    device: String,
    path: PathBuf,
}

impl Spot {
    fn overlaps(&self, other: &Self) -> bool {
        let nested = self.path.starts_with(&other.path) || other.path.starts_with(&self.path);
        nested && self.device == other.device
    }
}

/// Whether one of the two is seen in the other.
fn overlap(one: &Path, other: &Path) -> bool {
    // Where nobody tells what is mounted, paths and inodes still do.
    let mounts = mounts().unwrap_or_default();
    holds(one, other) || holds(other, one) || overlap_in(&mounts, one, other)
}

/// Whether `outer` is `inner` or a directory above it, as the file system itself tells: also where names differ in
/// case alone, and where what is mounted last hides what was before.
fn holds(outer: &Path, inner: &Path) -> bool {
    let Ok(outer) = outer.metadata() else { return false };
    real(inner).ancestors().any(|above| {
        above.metadata().is_ok_and(|above| (above.dev(), above.ino()) == (outer.dev(), outer.ino()))
    })
}

/// Whether one of the two is seen in the other, by the table of mounts.
fn overlap_in(mounts: &[MountEntry], one: &Path, other: &Path) -> bool {
    let ((one, in_one), (other, in_other)) = (spots(mounts, one), spots(mounts, other));
    let is_in = |spot: &Spot, below: &[Spot]| below.iter().any(|below| below.overlaps(spot));
    one.overlaps(&other) || is_in(&one, &in_other) || is_in(&other, &in_one)
}

/// Where `path` lies, and what is mounted below it.
fn spots(mounts: &[MountEntry], path: &Path) -> (Spot, Vec<Spot>) {
    let path = real(path);
    let spot = |mount: &MountEntry, path| Spot { device: mount.device.clone(), path };
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.dir));
    let uppermost = above.max_by_key(|mount| mount.dir.components().count());
    let own = match uppermost {
        Some(mount) => spot(mount, mount.root.join(path.strip_prefix(&mount.dir).unwrap_or(&path))),
        None => Spot { device: String::new(), path: path.clone() },
    };
    let below = mounts.iter().filter(|mount| mount.dir != path && mount.dir.starts_with(&path));
    (own, below.map(|mount| spot(mount, mount.root.clone())).collect())
}

/// The path itself, or where it will be: links resolved as far as it is there.
fn real(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, real)) = there else { return path.to_owned() };
    real.join(path.strip_prefix(above).unwrap_or(Path::new("")))
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
    use crate::commands::tests::mounted;

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

    fn mount(dir: &str, device: &str, root: &str) -> MountEntry {
        mounted((dir, root), device, "ext4")
    }

    #[test]
    fn what_is_mounted_somewhere_else_is_found_again() {
        let table = [
            mount("/", "8:1", "/"),
            mount("/bound", "8:1", "/a/sub"),
            mount("/a/data", "8:2", "/"),
            mount("/disk", "8:2", "/"),
        ];
        let lie = |one: &str, other: &str| overlap_in(&table, one.as_ref(), other.as_ref());
        assert!(lie("/a", "/bound/new") && lie("/bound", "/a") && lie("/a", "/disk/x"));
        assert!(!lie("/b", "/bound/new") && !lie("/bound/x", "/a/other") && !lie("/c", "/disk"));
    }

    #[test]
    fn what_lies_in_the_other_is_refused_where_no_mount_is_known() {
        for table in [Vec::new(), vec![mount("/new/a/data", "8:2", "/")]] {
            let lie = |one: &str, other: &str| overlap_in(&table, one.as_ref(), other.as_ref());
            assert!(lie("/new/a", "/new/a/b") && lie("/new/a/b", "/new/a") && lie("/new", "/new"));
            assert!(!lie("/new/a", "/new/ab") && !lie("/new/a", "/new/b"));
        }
        let place = tempfile::tempdir().unwrap();
        let (outer, inner) = (place.path(), place.path().join("a"));
        assert!(holds(outer, &inner) && holds(outer, outer) && !holds(&inner, outer));
    }

    #[test]
    fn prefixes_of_one_bucket_are_told_from_those_of_two() {
        assert!(!checked("s3://b/p/", "s3://b/p/q/") && !checked("s3://b/p/q", "s3://b/p"));
        assert!(checked("s3://b/p/", "s3://b/pq/") && checked("s3://b/p/", "s3://c/p/"));
        assert!(checked("s3://b/p/?endpoint=http://h", "s3://b/p/?endpoint=http://i"));
        assert!(checked("https://b/p/", "s3://b/p/"));
    }
}
