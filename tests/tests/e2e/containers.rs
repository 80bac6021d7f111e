//! An agent in a container: it goes with its container, and its mounts do not.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dfs_tests::origin::Injected;
use dfs_tests::process::Said;
use dfs_tests::{Body, Fault, Mount, Origin, Owned, wait};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use serde_json::{Value, json};

use crate::support::{Expected, Place, all, binaries, binary, dfctl_at, reading_with};

const MIB: u64 = 1 << 20;

/// What an agent needs of its container beside /dev/fuse.
const CAPABILITIES: [&str; 3] = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"];

/// A bundle, and the container that runs.
struct Container {
    name: String,
    bundle: PathBuf,
    log: PathBuf,
    runs: Option<Owned>,
}

impl Container {
    /// An agent in namespaces of its own: of processes, mounts and control groups. `shared` is the same inside, and
    /// what is mounted there on one side is on the other.
    fn new(place: &Place, shared: &Path, arguments: &[&str]) -> Self {
        let name = format!("dfs-e2e-{}", std::process::id());
        let bundle = place.dir("bundle");
        for dir in ["proc", "dev", "usr", "lib", "lib64", "etc", "programs", "tmp"] {
            fs::create_dir_all(bundle.join("rootfs").join(dir)).unwrap();
        }
        fs::create_dir_all(bundle.join("rootfs").join(shared.strip_prefix("/").unwrap())).unwrap();
        let program = binary("dfs-fuse");
        let words = [&["/programs/dfs-fuse"], arguments].concat();
        let config = config(&words, program.parent().unwrap(), shared);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        Self { name, log: place.path("container.log"), bundle, runs: None }
    }

    /// Starts it, in place of the one before.
    fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new("runc");
        command.arg("run").arg("--bundle").arg(&self.bundle).arg(&self.name);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.runs = Some(Owned::start(&mut command).unwrap());
    }

    /// Ends it as an orchestrator does that has lost its patience: everything in it is killed.
    fn delete(&mut self) {
        let mut command = Command::new("runc");
        Said::by(command.args(["delete", "--force", &self.name])).unwrap().done();
        self.runs = None;
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the container:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        // None is there where the test ended it.
        let _ = Command::new("runc").args(["delete", "--force", &self.name]).output();
    }
}

fn config(words: &[&str], programs: &Path, shared: &Path) -> Value {
    let bind = |from: &Path, to: &str, options: [&str; 2]| json!({ "destination": to, "type": "bind", "source": from, "options": options });
    let system = ["/usr", "/lib", "/lib64", "/etc"];
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }),
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }),
        bind(programs, "/programs", ["rbind", "ro"]),
        bind(shared, shared.to_str().unwrap(), ["rbind", "rshared"]),
    ];
    mounts.extend(system.map(|dir| bind(Path::new(dir), dir, ["rbind", "ro"])));
    let capabilities = CAPABILITIES;
    let kinds = ["pid", "mount", "cgroup", "ipc", "uts"];
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs", "readonly": true },
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": words,
            "env": ["PATH=/usr/bin:/bin", "HOME=/tmp"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "mounts": mounts,
        "linux": {
            // As for whoever mounts for others.
            "rootfsPropagation": "rshared",
            "namespaces": kinds.map(|kind| json!({ "type": kind })),
            "devices": [{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 }],
            "resources": { "devices": [{ "allow": true, "access": "rwm" }] },
        },
    })
}

/// Times that the container is deleted.
const ROUNDS: [u64; 2] = [1, 2];

/// Who reads all the while.
const READERS: u64 = 16;

/// Of their reads so many have come to the origin when the container goes; the others wait for their turn.
const AT_THE_ORIGIN: u64 = 8;

fn path_of(round: u64, reader: u64) -> String {
    format!("/d/{round}-{reader}")
}

fn body_of(round: u64, reader: u64) -> Body {
    Body::noise(100 * round + reader, 3 * MIB)
}

/// Reads what is for one reader in each round, one after the other, past the page cache.
fn reading(dir: &Path, reader: u64) -> Command {
    let mut shell = Command::new("sh");
    let script = "for file; do dd if=\"$file\" bs=1M iflag=direct status=none || exit; done";
    shell.args(["-c", script, "sh"]);
    shell.args(ROUNDS.map(|round| dir.join(format!("{round}-{reader}"))));
    shell
}

#[test]
fn an_agent_whose_container_is_deleted_leaves_its_mounts_to_the_next_container() {
    let place = Place::new();
    let shared = place.dir("shared").canonicalize().unwrap();
    let _shared = Mount::guard(&shared);
    mount_bind(&shared, &shared).unwrap();
    mount_change(&shared, MountPropagationFlags::SHARED).unwrap();
    let path = |name: &str| shared.join(name);
    let (data, dir) = (path("data"), path("mount"));
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(&dir).unwrap();
    let _guard = Mount::guard(&dir);
    let (socket, holder_at) = (path("agent.sock"), path("holder.sock"));

    let mut command = binaries().command("dfs-fuse").unwrap();
    command.arg("holder").arg("--socket").arg(&holder_at);
    let holder = Owned::start(&mut command).unwrap();
    wait::until("the holder listens", || holder_at.exists()).unwrap();
    let words = [&data, &socket, &holder_at].map(|path| path.to_str().unwrap());
    let [at, heard_at, held_at] = words;
    let arguments = ["--data-dir", at, "--socket", heard_at, "--holder", held_at];
    let arguments = [&arguments[..], &["--port-pieces", "0", "--port-metrics", "0"]].concat();
    let mut container = Container::new(&place, &shared, &arguments);

    let origin = Origin::start().unwrap();
    for round in ROUNDS {
        (0..READERS).for_each(|reader| origin.put(&path_of(round, reader), body_of(round, reader)));
    }
    container.start();
    wait::until("the agent listens", || socket.exists()).unwrap();
    dfctl_at(&socket, &["mount", &origin.url("/d/"), dir.to_str().unwrap()]).done();
    let listed = dfctl_at(&socket, &["mounts", "--format", "json"]).done().json().unwrap();
    assert!(!listed["items"][0]["survival"]["kept_by"].is_null(), "{listed}");

    // Each reads a file of its own in each round, all the time, and all wait when the agent goes.
    let gates = ROUNDS.map(|round| {
        let gate = |reader| origin.inject(Fault::gate().on(&path_of(round, reader)));
        (0..READERS).map(gate).collect::<Vec<_>>()
    });
    let readers: Vec<_> =
        (0..READERS).map(|reader| reading_with(&mut reading(&dir, reader))).collect();
    for gates in &gates {
        let asked = || gates.iter().map(Injected::struck).sum::<u64>();
        wait::until("the origin is asked", || asked() >= AT_THE_ORIGIN).unwrap();
        container.delete();
        fs::remove_file(&socket).unwrap();
        container.start();
        wait::until("the next agent listens", || socket.exists()).unwrap();
        assert!(
            readers.iter().all(|reader| !reader.is_finished()),
            "who reads learns nothing of it"
        );
        gates.iter().for_each(|gate| gate.lift());
    }
    for (number, reader) in (0..).zip(readers) {
        let read = reader.join().unwrap().unwrap();
        let wanted = ROUNDS.map(|round| all(&body_of(round, number))).concat();
        assert!(read == wanted, "reader {number}");
    }
    dfctl_at(&socket, &["umount", dir.to_str().unwrap()]).done();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    drop(holder);
}
