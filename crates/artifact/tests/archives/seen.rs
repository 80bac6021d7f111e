//! An archive as it is seen through its index and the origins of its spaces.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_artifact::erofs::Image;
use dfs_artifact::{Artifact, Index, ResolveError, ResolveOptions, View, open_origin, resolve};
use dfs_model::ByteRange;
use dfs_source::{Credentials, FileOptions, SourceError, Sources, Target};
use futures::TryStreamExt as _;

use crate::import::{Seen, seen_by_reader};

pub type Tree = BTreeMap<PathBuf, Seen>;

fn sources() -> Sources {
    Sources::builder().file(FileOptions::default()).build().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What a file on this machine is as a tree.
pub fn artifact(path: &Path) -> Result<Artifact, ResolveError> {
    let target = Target::parse(path.to_str().unwrap()).unwrap();
    let options = ResolveOptions::default();
    runtime().block_on(resolve(&sources(), &target, View::Tree, &options))
}

/// All bytes of a space.
pub fn space(artifact: &Artifact, number: usize) -> Result<Vec<u8>, SourceError> {
    part(artifact, number, None)
}

/// Bytes of a space, as a seed reads them that has lost the others.
pub fn part(
    artifact: &Artifact,
    number: usize,
    range: Option<ByteRange>,
) -> Result<Vec<u8>, SourceError> {
    runtime().block_on(async {
        let origin = open_origin(&artifact.tasks[number], &sources(), Credentials::None)?;
        let stream = origin.read(range).await?;
        let parts: Vec<_> = stream.try_collect().await?;
        Ok(parts.concat())
    })
}

/// The tree inside an archive, every byte read.
pub fn seen(path: &Path) -> Tree {
    let artifact = artifact(path).unwrap();
    let work = tempfile::tempdir().unwrap();
    let mut devices = Vec::new();
    for number in 0..artifact.tasks.len() {
        let device = work.path().join(number.to_string());
        let bytes = space(&artifact, number).unwrap();
        assert_eq!(Some(bytes.len() as u64), artifact.tasks[number].length);
        File::create(&device).unwrap().write_all(&bytes).unwrap();
        devices.push(device);
    }
    let index = Index::parse(artifact.index.unwrap().bytes.to_vec()).unwrap();
    let image = Image::open(index.image().data().clone()).unwrap();
    seen_by_reader(&image, &devices)
}

/// What does not go into an archive or does not come out of one: times and link counts of directories, which
/// depend on who made them.
pub fn without_directories(mut tree: Tree) -> Tree {
    tree.remove(Path::new(""));
    tree
}

pub fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// Runs a Python program with these arguments.
pub fn python(program: &str, arguments: &[&Path]) {
    run(Command::new("python3").arg("-c").arg(program).args(arguments));
}

/// An empty directory, and a place for an archive beside it.
pub fn work() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let work = tempfile::tempdir().unwrap();
    let (dir, file) = (work.path().join("dir"), work.path().join("archive.bin"));
    fs::create_dir(&dir).unwrap();
    (work, dir, file)
}
