//! podman as it is in use elsewhere, with places of its own.

use std::path::Path;
use std::process::Command;

use super::trees::put;

/// The start of a pull; what is pulled is kept below `dir`.
pub fn pull(dir: &Path) -> Command {
    let mut command = Command::new("podman");
    command.arg("--root").arg(dir.join("root")).arg("--runroot").arg(dir.join("run"));
    let without = ["--cgroup-manager", "cgroupfs", "--events-backend", "none"];
    command.args(["--storage-driver", "vfs"]).args(without);
    let policy = dir.join("policy.json");
    put(&policy, br#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
    command.args(["pull", "--signature-policy"]).arg(policy);
    command
}
