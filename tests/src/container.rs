//! A node agent in a container, by runc: in namespaces of its own of processes, mounts and control groups. What is shared with
//! it is the same inside, and what is mounted there on one side is on the other.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::process::Said;
use crate::{Failure, Owned};

/// What an agent needs of its container beside /dev/fuse.
const CAPABILITIES: [&str; 3] = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"];

/// A bundle, and the container that runs; gone when this is dropped.
pub struct Container {
    name: String,
    bundle: PathBuf,
    log: PathBuf,
    runs: Option<Owned>,
}

/// What runs in a container.
#[derive(Debug)]
pub struct Inside<'a> {
    /// The program `dfs-fuse`.
    pub program: &'a Path,
    /// What it is told.
    pub arguments: &'a [&'a str],
    /// Its environment beside the usual, as `NAME=value`.
    pub variables: &'a [String],
    /// The directory that is shared.
    pub shared: &'a Path,
}

impl Container {
    /// Prepares one with its bundle and its log below `dir`; nothing runs yet.
    pub fn new(dir: &Path, inside: &Inside<'_>) -> Result<Self, Failure> {
        let failed = || Failure::of("cannot make a bundle");
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("dfs-e2e-{}-{number}", std::process::id());
        let bundle = dir.join("bundle");
        for place in ["proc", "dev", "usr", "lib", "lib64", "etc", "programs", "tmp"] {
            fs::create_dir_all(bundle.join("rootfs").join(place)).map_err(failed())?;
        }
        let shared = inside.shared.strip_prefix("/").unwrap_or(inside.shared);
        fs::create_dir_all(bundle.join("rootfs").join(shared)).map_err(failed())?;
        fs::write(bundle.join("config.json"), inside.config().to_string()).map_err(failed())?;
        Ok(Self { name, log: dir.join("container.log"), bundle, runs: None })
    }

    /// Starts it, in place of the one before.
    pub fn start(&mut self) -> Result<(), Failure> {
        let failed = || Failure::of("cannot keep what a container says");
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed())?;
        let mut command = Command::new("runc");
        command.arg("run").arg("--bundle").arg(&self.bundle).arg(&self.name);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed())?).stderr(log);
        let needed = "runc is needed, `cargo xtask test` installs it";
        self.runs = Some(Owned::start(&mut command).map_err(Failure::of(needed))?);
        Ok(())
    }

    /// Ends it as an orchestrator does that has lost its patience: everything in it is killed.
    pub fn delete(&mut self) -> Result<(), Failure> {
        Said::by(Command::new("runc").args(["delete", "--force", &self.name]))?.ok()?;
        self.runs = None;
        Ok(())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the container:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        // None is there where it was deleted.
        let _ = Command::new("runc").args(["delete", "--force", &self.name]).output();
    }
}

impl Inside<'_> {
    fn config(&self) -> Value {
        let bind = |from: &Path, to: &Path, options: [&str; 2]| json!({ "destination": to, "type": "bind", "source": from, "options": options });
        let system = ["/usr", "/lib", "/lib64", "/etc"].map(Path::new);
        let programs = self.program.parent().unwrap_or(self.program);
        let mut mounts = vec![
            json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
            json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }),
            json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }),
            bind(programs, Path::new("/programs"), ["rbind", "ro"]),
            bind(self.shared, self.shared, ["rbind", "rshared"]),
        ];
        mounts.extend(system.map(|dir| bind(dir, dir, ["rbind", "ro"])));
        let capabilities = CAPABILITIES;
        let kinds = ["pid", "mount", "cgroup", "ipc", "uts"];
        let words = [&["/programs/dfs-fuse"], self.arguments].concat();
        let mut variables = vec!["PATH=/usr/bin:/bin".to_owned(), "HOME=/tmp".to_owned()];
        variables.extend_from_slice(self.variables);
        json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs", "readonly": true },
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": words,
                "env": variables,
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
}
