//! Tars made by the real `tar`, and listings of real directories: resolved, mounted by the kernel with
//! the tar or the spaces as devices, and equal to what they were made from.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_artifact::{Artifact, Index, ResolveOptions, View, open_origin, resolve};
use dfs_source::{Credentials, FileOptions, Sources, Target};
use futures::TryStreamExt as _;

use crate::import::{assert_same, seen_by_kernel};
use crate::mount::Mounted;
use crate::oracle;
use crate::trees::{odd_attributes, odd_names, set_time};

fn sources() -> Sources {
    Sources::builder().file(FileOptions::default()).build().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn artifact(path: &Path) -> Artifact {
    let target = Target::parse(path.to_str().unwrap()).unwrap();
    let options = ResolveOptions::default();
    resolve(&sources(), &target, View::Auto, &options).await.unwrap()
}

/// Writes the index and fills every space from its origin, whole blocks.
async fn materialise(artifact: &Artifact, into: &Path) -> (PathBuf, Vec<PathBuf>) {
    let image = into.join("index");
    let bytes = artifact.index.as_ref().unwrap().bytes.to_vec();
    fs::write(&image, &bytes).unwrap();
    let index = Index::parse(bytes).unwrap();
    let mut devices = Vec::new();
    for (number, recipe) in index.spaces().iter().enumerate() {
        let path = into.join(format!("space-{number}"));
        let mut space = File::create(&path).unwrap();
        let origin = open_origin(recipe, &sources(), Credentials::None).unwrap();
        let mut stream = origin.read(None).await.unwrap();
        while let Some(bytes) = stream.try_next().await.unwrap() {
            space.write_all(&bytes).unwrap();
        }
        assert_eq!(space.metadata().unwrap().len(), recipe.length.unwrap());
        let blocks = recipe.length.unwrap().next_multiple_of(index.image().block_bytes());
        space.set_len(blocks).unwrap();
        devices.push(path);
    }
    (image, devices)
}

fn assert_mounts_as(artifact: &Artifact, original: &Path, root_too: bool) {
    let work = oracle::workspace();
    let (image, devices) = runtime().block_on(materialise(artifact, work.path()));
    oracle::fsck(&image, &devices);
    let mounted = Mounted::new(&image, &devices);
    let (mut expected, mut seen) = (seen_by_kernel(original), seen_by_kernel(mounted.path()));
    if !root_too {
        expected.remove(Path::new(""));
        seen.remove(Path::new(""));
    }
    assert_same(&expected, &seen);
}

fn tar(dir: &Path, into: &Path, options: &[&str]) {
    let mut command = Command::new("tar");
    command.arg("--create").arg("--file").arg(into).args(options).arg("--directory").arg(dir);
    assert!(command.arg(".").status().unwrap().success());
}

/// Whole seconds everywhere: what ustar and GNU headers can say.
fn round_times(dir: &Path) {
    for path in seen_by_kernel(dir).keys().rev() {
        set_time(&dir.join(path), 1_600_000_000 + path.as_os_str().as_bytes().len() as i64, 0);
    }
}

#[test]
fn a_pax_tar_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    odd_attributes(dir.path());
    odd_names(dir.path());
    // Neither sockets nor binary ACLs can be in a tar.
    fs::remove_file(dir.path().join("socket")).unwrap();
    for (path, name) in [("owned", "access"), ("sticky", "default")] {
        let name = format!("system.posix_acl_{name}");
        rustix::fs::lremovexattr(dir.path().join(path), name.as_str()).unwrap();
    }
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("archive.bin");
    tar(dir.path(), &file, &["--format=pax", "--xattrs", "--xattrs-include=*"]);
    let artifact = runtime().block_on(artifact(&file));
    assert_mounts_as(&artifact, dir.path(), true);
}

#[test]
fn tars_of_every_format_mount_as_what_they_were_made_from() {
    for format in ["gnu", "pax", "ustar"] {
        let dir = tempfile::tempdir().unwrap();
        let long = format!("{}/{}/{}", "a".repeat(90), "b".repeat(60), "c".repeat(90));
        let path = dir.path().join(long);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![1; 2000]).unwrap();
        fs::write(dir.path().join("empty"), b"").unwrap();
        fs::write(dir.path().join("megabytes"), vec![2; 3 << 20]).unwrap();
        fs::hard_link(dir.path().join("megabytes"), dir.path().join("other-name")).unwrap();
        std::os::unix::fs::symlink("megabytes", dir.path().join("link")).unwrap();
        if format != "ustar" {
            let name = "n".repeat(255);
            fs::write(dir.path().join(&name), b"long").unwrap();
            std::os::unix::fs::symlink("t".repeat(1000), dir.path().join("long-link")).unwrap();
            fs::hard_link(dir.path().join(&name), dir.path().join("to-long")).unwrap();
        }
        round_times(dir.path());
        let work = tempfile::tempdir().unwrap();
        let file = work.path().join("archive.bin");
        tar(dir.path(), &file, &[&format!("--format={format}")]);
        let artifact = runtime().block_on(artifact(&file));
        assert_mounts_as(&artifact, dir.path(), true);
    }
}

#[test]
fn holes_of_a_tar_are_holes_to_the_kernel() {
    let dir = tempfile::tempdir().unwrap();
    for (name, length, at) in
        [("begins", 200_000, 131_072), ("ends", 4 << 20, 0), ("empty", 70_000, 0)]
    {
        let sparse = File::create(dir.path().join(name)).unwrap();
        sparse.set_len(length).unwrap();
        if name != "empty" {
            std::os::unix::fs::FileExt::write_all_at(&sparse, &[3; 5000], at).unwrap();
        }
    }
    round_times(dir.path());
    let work = tempfile::tempdir().unwrap();
    let file = work.path().join("archive.bin");
    tar(dir.path(), &file, &["--format=pax", "--sparse"]);
    let artifact = runtime().block_on(artifact(&file));
    assert_mounts_as(&artifact, dir.path(), true);
}

#[test]
fn a_listing_of_files_mounts_as_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    odd_attributes(dir.path());
    odd_names(dir.path());
    fs::write(dir.path().join("large"), vec![5; 9 << 20]).unwrap();
    fs::write(dir.path().join("medium"), vec![6; 2 << 20]).unwrap();
    let artifact = runtime().block_on(artifact(dir.path()));
    assert_eq!(artifact.left_out.named, []);
    // A listing says nothing of the listed directory itself.
    assert_mounts_as(&artifact, dir.path(), false);
}
