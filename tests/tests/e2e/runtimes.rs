//! Container runtimes that are told of the mirror by `dfctl runtime install`, and not told any more.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use dfs_tests::process::{FreeAddress, Said};
use dfs_tests::registry::Guard;
use dfs_tests::{Dfctl, Owned, Registry};

use crate::support::images::{Layout, Packing, here};
use crate::support::podman;
use crate::support::trees::{noise, put};
use crate::support::{Agent, Expected, Place, binaries, until};

const MIRROR: &[&str] = &["--mirror-listen", "127.0.0.1:0"];

/// Runs `dfctl runtime install` for a machine below `root`.
fn install(runtime: &str, root: &Path, more: &[&str]) -> Said {
    let mut command = Dfctl::new(&binaries()).command().unwrap();
    command.args(["runtime", "install", runtime, "--root"]).arg(root).args(more);
    Said::by(&mut command).unwrap()
}

fn mirror_of(agent: &Agent) -> String {
    agent.node.process().address("mirror").unwrap().to_string()
}

/// A registry with `team/app:1`.
fn registry(place: &Place) -> (Registry, Layout) {
    let registry = Registry::start(place.root(), Guard::Nobody).unwrap();
    let mut layout = Layout::new(place.path("layout"));
    let tree = place.dir("tree");
    put(&tree.join("large"), &noise(3, 2_000_000));
    layout.layer(&tree, Packing::Gzip);
    layout.name(layout.image(here()));
    registry.push(layout.dir(), "team/app:1").unwrap();
    (registry, layout)
}

/// Every file below `dir`: what it says, its mode and owner.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>, u32, u32)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                dirs.push(path);
                continue;
            }
            let text = fs::read(&path).unwrap_or_default();
            found.push((path, text, meta.mode(), meta.uid()));
        }
    }
    found.sort();
    found
}

const DAEMON: &str =
    "{\n  \"debug\": false,\n  \"registry-mirrors\": [\"https://other.test\"]\n}\n";
const CONTAINERD: &str = "# ours\nversion = 2\n\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    sandbox_image = \"pause:3.9\" # never through a mirror alone\n";

/// A machine on which things are configured.
fn machine(place: &Place) -> PathBuf {
    let root = place.dir("machine");
    put(&root.join("etc/docker/daemon.json"), DAEMON.as_bytes());
    put(&root.join("etc/containerd/config.toml"), CONTAINERD.as_bytes());
    put(&root.join("etc/containers/registries.conf"), b"unqualified-search-registries = []\n");
    fs::set_permissions(root.join("etc/docker/daemon.json"), fs::Permissions::from_mode(0o640))
        .unwrap();
    std::os::unix::fs::chown(root.join("etc/docker/daemon.json"), Some(12), None).unwrap();
    root
}

#[test]
fn every_runtime_is_told_once_and_what_was_there_comes_back_exactly() {
    let place = Place::new();
    let root = machine(&place);
    let agent = Agent::solo_with(&place, "agent", MIRROR);
    let mirror = mirror_of(&agent);
    let of = |root: &Path| {
        let mut files = files(&root.join("etc"));
        files.retain(|(path, ..)| !path.ends_with("record"));
        files
    };
    let before = of(&root);
    for runtime in ["containerd", "docker", "podman", "cri-o"] {
        let more = ["--mirror", &mirror];
        let shown = install(runtime, &root, &["--mirror", &mirror, "--dry-run"]).done().text();
        assert!(
            shown.contains("@@ -") && shown.contains("+++ ") && shown.contains(&mirror),
            "{shown}"
        );
        assert_eq!(of(&root), before, "{runtime}: nothing was done");
        assert!(!root.join("var").exists() || runtime != "containerd");
        install(runtime, &root, &more).done();
        let after = of(&root);
        assert_ne!(after, before, "{runtime}");
        install(runtime, &root, &more).exits(9);
        assert_eq!(of(&root), after, "{runtime}: told once");
        install(runtime, &root, &["--undo"]).done();
        assert_eq!(of(&root), before, "{runtime}");
        install(runtime, &root, &["--undo"]).exits(9);
    }
    assert!(!root.join("etc/containerd/certs.d").exists(), "what was made for it is gone");

    // What somebody edits meanwhile stays.
    let daemon = root.join("etc/docker/daemon.json");
    install("docker", &root, &["--mirror", &mirror]).done();
    let text = fs::read_to_string(&daemon).unwrap();
    assert!(text.find(&mirror).unwrap() < text.find("other.test").unwrap(), "{text}");
    fs::write(&daemon, text.replace("false", "true")).unwrap();
    install("docker", &root, &["--undo"]).done();
    assert_eq!(fs::read_to_string(&daemon).unwrap(), DAEMON.replace("false", "true"));
    let meta = fs::metadata(&daemon).unwrap();
    assert_eq!((meta.mode() & 0o777, meta.uid()), (0o640, 12));
}

#[test]
fn nothing_is_told_of_a_mirror_that_is_not_there_nor_written_outside() {
    let place = Place::new();
    let root = machine(&place);
    let before = files(&root.join("etc"));
    let nobody = FreeAddress::new().unwrap();
    let at = nobody.at().to_string();
    install("docker", &root, &["--mirror", &at]).fails(5, "DFS-4154");
    // Somebody else is there.
    let (registry, _) = registry(&place);
    install("docker", &root, &["--mirror", &registry.address()]).fails(5, "DFS-4154");
    assert_eq!(files(&root.join("etc")), before);

    let agent = Agent::solo_with(&place, "agent", MIRROR);
    let mirror = mirror_of(&agent);
    let outside = place.path("outside.json");
    put(&outside, b"{}");
    fs::remove_file(root.join("etc/docker/daemon.json")).unwrap();
    symlink(&outside, root.join("etc/docker/daemon.json")).unwrap();
    install("docker", &root, &["--mirror", &mirror]).fails(2, "DFS-4153");
    assert_eq!(fs::read(&outside).unwrap(), b"{}");
    let config = root.join("etc/containerd/config.toml");
    for (text, why) in [("version = 7\n", "neither 2 nor 3"), ("version =", "cannot be read")] {
        fs::write(&config, text).unwrap();
        let said = install("containerd", &root, &["--mirror", &mirror]).fails(2, "DFS-4153");
        assert!(said.stderr.contains(why), "{}", said.stderr);
        assert_eq!(fs::read_to_string(&config).unwrap(), text);
    }
    fs::write(&config, CONTAINERD).unwrap();
    install("containerd", &root, &["--mirror", &mirror]).done();
    let hosts = root.join("etc/containerd/certs.d/_default/hosts.toml");
    fs::write(&hosts, "# somebody wrote it anew\n").unwrap();
    install("containerd", &root, &["--undo"]).fails(1, "DFS-4155");
    assert!(fs::read_to_string(&config).unwrap().contains("config_path"), "all of it or nothing");
}

/// Pulls by hands that are not ours, from a registry without TLS, as `conf` says.
fn skopeo(conf: &Path, from: &str, to: &Path) -> Said {
    let mut command = Command::new("skopeo");
    command.arg("--registries-conf").arg(conf).args(["copy", "--quiet", "--insecure-policy"]);
    command.arg("--src-tls-verify=false").arg(from).arg(format!("oci:{}:x", to.display()));
    Said::by(&mut command).unwrap()
}

/// The same by podman, which keeps what it pulls below `dir`.
fn podman(conf: &Path, reference: &str, dir: &Path) -> Said {
    let mut command = podman::pull(dir);
    command.env("CONTAINERS_REGISTRIES_CONF", conf).arg("--tls-verify=false").arg(reference);
    Said::by(&mut command).unwrap()
}

#[test]
fn podman_and_skopeo_pull_as_they_were_told_and_directly_when_the_agent_is_gone() {
    let place = Place::new();
    let root = machine(&place);
    let (registry, layout) = registry(&place);
    let mut agent = Agent::solo_with(&place, "agent", MIRROR);
    let address = registry.address();
    install("podman", &root, &["--mirror", &mirror_of(&agent), "--registry", &address]).done();
    let conf = root.join("etc/containers/registries.conf.d/50-dfs-podman.conf");
    let reference = format!("{address}/team/app:1");
    let (from, layer) = (format!("docker://{reference}"), layout.layer_digest(0));
    let direct = || registry.requests_but_by("dfs/", "GET", &layer);
    let pushed = direct();
    skopeo(&conf, &from, &place.path("one")).done();
    podman(&conf, &reference, &place.dir("two")).done();
    assert_eq!(direct(), pushed, "all of it came through us");
    assert!(registry.requests_by("dfs/", "GET", &layer) > 0);
    agent.terminate();
    skopeo(&conf, &from, &place.path("three")).done();
    podman(&conf, &reference, &place.dir("four")).done();
    assert_eq!(direct() - pushed, 2, "the registry itself");
}

/// dockerd, which knows the mirrors that its configuration names.
struct Dockerd {
    _runs: Owned,
    socket: PathBuf,
    // It stands on it.
    _containerd: Containerd,
}

impl Dockerd {
    fn start(place: &Place, config: &Path) -> Self {
        let containerd = Containerd::start(place);
        let (dir, socket) = (place.dir("docker"), place.path("docker.sock"));
        let log = fs::File::create(place.path("docker.log")).unwrap();
        let mut command = Command::new("dockerd");
        command.arg("--config-file").arg(config).arg("--containerd").arg(&containerd.socket);
        command.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec"));
        command.arg("--pidfile").arg(dir.join("pid"));
        command.arg("--host").arg(format!("unix://{}", socket.display()));
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        command.arg("--storage-driver=vfs");
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let runs = Owned::start(&mut command);
        let runs = runs.expect("dockerd is there, `cargo xtask test` installs it");
        let started = Self { _runs: runs, socket, _containerd: containerd };
        until("dockerd answers", || started.docker(place, &["version"]).code == 0);
        started
    }

    fn docker(&self, place: &Place, words: &[&str]) -> Said {
        let mut command = Command::new("docker");
        command.env("DOCKER_CONFIG", place.dir("docker-client")).env_remove("DOCKER_HOST");
        command.arg("--host").arg(format!("unix://{}", self.socket.display())).args(words);
        Said::by(&mut command).unwrap()
    }
}

#[test]
fn docker_pulls_through_the_mirror_and_from_the_next_one_when_the_agent_is_gone() {
    let place = Place::new();
    let root = place.dir("machine");
    let (registry, layout) = registry(&place);
    registry.push(layout.dir(), "library/app:1").unwrap();
    let address = registry.address();
    let daemon = root.join("etc/docker/daemon.json");
    put(&daemon, format!("{{\"registry-mirrors\": [\"http://{address}\"]}}").as_bytes());
    let more = [MIRROR, &["--mirror-default", &address]].concat();
    let mut agent = Agent::solo_with(&place, "agent", &more);
    install("docker", &root, &["--mirror", &mirror_of(&agent)]).done();
    let dockerd = Dockerd::start(&place, &daemon);
    let layer = layout.layer_digest(0);
    let pull = || {
        dockerd.docker(&place, &["pull", "--quiet", "app:1"]).done();
        dockerd.docker(&place, &["image", "rm", "app:1"]).done();
    };
    let by_it = || registry.requests_by("docker/", "GET", "/v2/library/app/");
    pull();
    assert_eq!(by_it(), 0, "all of it came through us");
    assert!(registry.requests_by("dfs/", "GET", &layer) > 0);
    let by_us = || registry.requests_by("dfs/", "GET", "");
    agent.terminate();
    let before = by_us();
    pull();
    assert!(registry.requests_by("docker/", "GET", &layer) > 0, "the next mirror itself");
    assert_eq!(by_us(), before);
}

/// containerd, without anything that it needs for running containers.
struct Containerd {
    child: Child,
    socket: PathBuf,
}

impl Containerd {
    fn start(place: &Place) -> Self {
        let (dir, socket) = (place.dir("containerd"), place.path("containerd.sock"));
        let config = place.path("containerd.toml");
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{1}\"\n",
            dir.display(),
            socket.display()
        );
        put(&config, text.as_bytes());
        let log = fs::File::create(place.path("containerd.log")).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("containerd is there, `cargo xtask test` installs it");
        let started = Self { child, socket };
        until("containerd answers", || started.ctr(&["version"]).code == 0);
        started
    }

    fn ctr(&self, words: &[&str]) -> Said {
        let mut command = Command::new("ctr");
        Said::by(command.arg("--address").arg(&self.socket).args(words)).unwrap()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn containerd_pulls_as_its_hosts_say_and_directly_when_the_agent_is_gone() {
    let place = Place::new();
    let root = machine(&place);
    let (registry, layout) = registry(&place);
    let mut agent = Agent::solo_with(&place, "agent", MIRROR);
    install("containerd", &root, &["--mirror", &mirror_of(&agent)]).done();
    let hosts = root.join("etc/containerd/certs.d");
    let containerd = Containerd::start(&place);
    let layer = layout.layer_digest(0);
    let pull = || {
        let reference = format!("{}/team/app:1", registry.address());
        let words =
            ["images", "pull", "--snapshotter", "native", "--hosts-dir", hosts.to_str().unwrap()];
        containerd.ctr(&[&words[..], &[&reference]].concat()).done();
        containerd.ctr(&["images", "rm", "--sync", &reference]).done();
    };
    let by_it = || registry.requests_by("containerd/", "GET", &layer);
    pull();
    assert_eq!(by_it(), 0, "all of it came through us");
    assert!(registry.requests_by("dfs/", "GET", &layer) > 0);
    agent.terminate();
    pull();
    assert!(by_it() > 0, "the registry itself");
}
