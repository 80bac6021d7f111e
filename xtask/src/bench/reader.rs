//! A node that mounts a file and reads it from front to back, as one command: as `get`, but for the mount.

use std::fs;
use std::path::Path;
use std::process::Command;

use dfs_tests::{Mount, Node};

use crate::run::{Failure, failed};

/// What it says to a shell: where the mount is, where the bytes go, and how `dfctl` is called, whose last word the mount
/// is too.
const SCRIPT: &str = r#"at=$1 into=$2; shift 2; "$@" "$at" && cat "$at"/* > "$into""#;

/// Has `node` mount `url` on the directory `at`, which is made, and copy the one file there to `into`. Nothing is
/// mounted there when it begins, nor once the guard is dropped.
pub fn reader(node: &Node, url: &str, at: &Path, into: &Path) -> Result<(Command, Mount), Failure> {
    drop(Mount::guard(at));
    fs::create_dir_all(at).map_err(failed(at))?;
    let guard = Mount::guard(at);
    let dfctl = node.dfctl_command()?;
    let mut shell = Command::new("sh");
    shell.args(["-c", SCRIPT, "reader"]).arg(at).arg(into);
    shell.arg(dfctl.get_program()).args(dfctl.get_args()).args(["-q", "mount", url]);
    let kept = dfctl.get_envs().filter_map(|(name, value)| Some((name, value?)));
    shell.env_clear().envs(kept);
    Ok((shell, guard))
}
