//! stargz-snapshotter beside containerd: an image whose layers were converted to eStargz, pulled as its client pulls.
//!
//! Debian packages its client and its library; the program that serves the library is made here (`stargz.go`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dfs_tests::cluster::detach;
use dfs_tests::{Owned, wait};

use crate::prepare;
use crate::run::{Failure, failed, run, said};

/// What it takes, and the package of Debian that has it.
const NEEDED: [(&str, &str); 4] = [
    ("containerd", "containerd"),
    ("ctr-remote", "stargz-snapshotter"),
    ("go", "golang-go"),
    (
        "/usr/share/gocode/src/github.com/containerd/stargz-snapshotter/fs/fs.go",
        "golang-github-containerd-stargz-snapshotter-dev",
    ),
];

/// The packages that are missing.
pub fn missing() -> Option<String> {
    let missing = NEEDED.iter().filter(|(program, _)| !prepare::is_installed(program));
    let missing: Vec<_> = missing.map(|(_, package)| *package).collect();
    (!missing.is_empty()).then(|| missing.join(" "))
}

/// The snapshotter's program.
pub struct Program(PathBuf);

impl Program {
    /// Makes it in `dir`.
    pub fn make(dir: &Path) -> Result<Self, Failure> {
        let (source, program) = (dir.join("src/stargz"), dir.join("stargz"));
        fs::create_dir_all(&source).map_err(failed(&source))?;
        let main = source.join("main.go");
        fs::write(&main, include_str!("stargz.go")).map_err(failed(&main))?;
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(&program).arg("stargz").current_dir(&source);
        go.env("GOPATH", format!("{}:/usr/share/gocode", dir.display()));
        go.env("GO111MODULE", "off").env("GOCACHE", dir.join("cache"));
        run(&mut go)?;
        Ok(Self(program))
    }
}

/// Has a registry's image converted, and put beside it by another name.
pub fn convert(work: &Path, image: &str, converted: &str) -> Result<(), Failure> {
    let containerd = Containerd::start(work, None)?;
    let client = |words: &[&str]| said(containerd.client().args(words)).map(drop);
    client(&["content", "fetch", "--plain-http", image])?;
    client(&["images", "convert", "--estargz", "--oci", image, converted])?;
    client(&["images", "push", "--plain-http", converted])
}

/// containerd and the snapshotter, with nothing yet; all of it goes when this is dropped.
pub struct Stargz {
    containerd: Containerd,
    _snapshotter: Owned,
    work: PathBuf,
}

impl Stargz {
    /// Starts both.
    pub fn start(program: &Program, work: &Path) -> Result<Self, Failure> {
        let socket = work.join("stargz.sock");
        let mut command = Command::new(&program.0);
        command.arg(work.join("stargz")).arg(&socket);
        let snapshotter = owned(&mut command, &work.join("stargz.log"))?;
        wait::until("the snapshotter listens", || socket.exists())?;
        let containerd = Containerd::start(work, Some(&socket))?;
        Ok(Self { containerd, _snapshotter: snapshotter, work: work.to_owned() })
    }

    /// Pulls an image, and mounts its root on `dir`.
    pub fn mount(&self, image: &str, dir: &Path) -> Result<(), Failure> {
        fs::create_dir_all(dir).map_err(failed(dir))?;
        let client = |words: &[&str]| said(self.containerd.client().args(words));
        client(&["images", "rpull", "--plain-http", "--snapshotter", "stargz", image])?;
        let top = top(&client(&["snapshots", "--snapshotter", "stargz", "ls"])?);
        let top = top.ok_or_else(|| Failure::Other("nothing was pulled".to_owned()))?;
        let mut prepare = self.containerd.client();
        prepare.args(["snapshots", "--snapshotter", "stargz", "prepare", "--target"]);
        let mount = said(prepare.arg(dir).args(["root", &top]))?;
        run(Command::new("sh").args(["-ec", &mount]))
    }
}

impl Drop for Stargz {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
        let ours: Vec<_> = places.filter(|place| place.starts_with(&self.work)).collect();
        // What was mounted last lies on what was mounted before.
        ours.into_iter().rev().for_each(detach);
    }
}

/// The snapshot that is below no other one, as they are listed.
fn top(listed: &str) -> Option<String> {
    let lines = listed.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let lines: Vec<_> = lines.filter(|words| words.last() == Some(&"Committed")).collect();
    let is_below = |name: &str| lines.iter().any(|words| words.len() == 3 && words[1] == name);
    let names = lines.iter().map(|words| words[0]);
    names.into_iter().find(|name| !is_below(name)).map(str::to_owned)
}

struct Containerd {
    socket: PathBuf,
    _runs: Owned,
}

impl Containerd {
    fn start(work: &Path, snapshotter: Option<&Path>) -> Result<Self, Failure> {
        let (socket, config) = (work.join("containerd.sock"), work.join("containerd.toml"));
        let settings = format!(
            "version = 2\nroot = \"{0}/containerd\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.aufs\", \
             \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.devmapper\", \
             \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = \"{1}\"\n",
            work.display(),
            socket.display()
        );
        let plugin = snapshotter.map_or_else(String::new, |at| {
            let at = at.display();
            format!("[proxy_plugins.stargz]\ntype = \"snapshot\"\naddress = \"{at}\"\n")
        });
        fs::write(&config, settings + &plugin).map_err(failed(&config))?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&config);
        let runs = owned(&mut command, &work.join("containerd.log"))?;
        let containerd = Self { socket, _runs: runs };
        let answers = || said(containerd.client().arg("version")).is_ok();
        wait::until("containerd answers", answers)?;
        Ok(containerd)
    }

    fn client(&self) -> Command {
        let mut client = Command::new("ctr-remote");
        client.arg("--address").arg(&self.socket).stdin(Stdio::null());
        client
    }
}

fn owned(command: &mut Command, log: &Path) -> Result<Owned, Failure> {
    let out = File::create(log).map_err(failed(log))?;
    let err = out.try_clone().map_err(failed(log))?;
    command.stdin(Stdio::null()).stdout(out).stderr(err).env_remove("NOTIFY_SOCKET");
    Owned::start(command).map_err(failed(log))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_of_a_stack_is_told_from_what_lies_below() {
        let listed = "KEY PARENT KIND\nsha256:b sha256:a Committed\nsha256:a  Committed\n\
                      sha256:c sha256:b Committed\nextract-1 sha256:c Active\n";
        assert_eq!(top(listed).as_deref(), Some("sha256:c"));
        assert_eq!(top("KEY PARENT KIND\n"), None);
    }
}
