//! The image that `deploy/Containerfile` describes: built as anybody would, and looked into. It is not given away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PROGRAMS;
use crate::prepare;
use crate::run::{Failure, failed, run, said};
use crate::workspace::root;

/// The base, of which only its certificates matter: it has some, so that no network is needed.
const BASE: &str = "localhost/dfs-base";
const BASE_FILE: &str = "FROM scratch\nCOPY . /\n\
    RUN mkdir -p /etc/ssl/certs && touch /etc/ssl/certs/ca-certificates.crt\n";
const IMAGE: &str = "localhost/dfs";
const CONTAINER: &str = "dfs";

/// What runs until it is told to go, and where it keeps what it has.
const RESIDENT: [(&str, &str); 2] =
    [("dfs-fuse", "/var/lib/dfs"), ("dfs-cluster all", "/var/lib/dfs-cluster")];

/// Builds it of a staged tree, starts each program in it on what the image has, and runs what it runs where nothing is
/// said.
pub fn check(tree: &Path) -> Result<(), Failure> {
    if !prepare::is_root() {
        println!("the image is not looked at: it takes root to build one here");
        return Ok(());
    }
    let base = prepare::erofs_oracle()?;
    let store = Store::in_dir(tree.with_extension("image"))?;
    let base_file = store.dir.join("Containerfile");
    fs::write(&base_file, BASE_FILE).map_err(failed(&base_file))?;
    run(store.build(&base_file, BASE).arg(base))?;
    let mut build = store.build(&root().join("deploy/Containerfile"), IMAGE);
    run(build.args(["--build-arg", &format!("BASE={BASE}")]).arg(tree))?;

    run(store.buildah(&["from", "--quiet", "--name", CONTAINER]).arg(IMAGE))?;
    for program in PROGRAMS {
        run(store.inside().args([program, "--version"]))?;
    }
    for (line, data) in RESIDENT {
        let script = format!(
            "set -e; {line} & resident=$!; until test -e {data}/run.json; do kill -0 $resident; sleep 0.1; done; \
             kill $resident; wait $resident"
        );
        run(store.inside().args(["timeout", "60", "sh", "-c", &script]))?;
    }
    let words = "{{range .OCIv1.Config.Cmd}}{{.}} {{end}}";
    let usual = said(store.buildah(&["inspect", "--type", "image", "--format", words]).arg(IMAGE))?;
    let help = said(store.inside().args(usual.split_whitespace()))?;
    println!("`{}` prints {} lines", usual.trim(), help.lines().count());
    fs::remove_dir_all(&store.dir).map_err(failed(&store.dir))
}

/// Images and containers of this check alone.
struct Store {
    dir: PathBuf,
}

impl Store {
    /// An empty one.
    fn in_dir(dir: PathBuf) -> Result<Self, Failure> {
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(failed(&dir))?;
        }
        fs::create_dir_all(&dir).map_err(failed(&dir))?;
        Ok(Self { dir })
    }

    /// In whatever machine this is: nothing is asked of its kernel but chroot.
    fn buildah(&self, words: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        self.said_to(&mut command, words);
        command
    }

    /// Without a network.
    fn build(&self, file: &Path, name: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--net", "buildah"]);
        let words = ["build", "--quiet", "--isolation", "chroot", "--tag", name, "--file"];
        self.said_to(&mut command, &words);
        command.arg(file);
        command
    }

    fn said_to(&self, buildah: &mut Command, words: &[&str]) {
        buildah.args(["--storage-driver", "vfs", "--root"]).arg(self.dir.join("images"));
        buildah.arg("--runroot").arg(self.dir.join("run")).args(words);
    }

    fn inside(&self) -> Command {
        self.buildah(&["run", "--isolation", "chroot", CONTAINER, "--"])
    }
}
