//! What Debian's and systemd's own tools say of what we give away: nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::run::{Failure, failed, run};

/// Where units lie in a tree.
const UNITS: &str = "usr/lib/systemd/system";

/// The units of a staged tree, examples too, with the programs that they start, among the targets of this machine.
pub fn units(tree: &Path) -> Result<(), Failure> {
    let root = tree.with_extension("units");
    let dir = root.join(UNITS);
    fs::create_dir_all(&dir).map_err(failed(&dir))?;
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", "--recursive-errors=yes"]).arg("--root").arg(&root);
    let examples = super::package::files(&tree.join(super::package::EXAMPLES))?;
    for (from, name) in super::package::files(&tree.join(UNITS))?.into_iter().chain(examples) {
        if let Some(unit) = name.strip_suffix(".conf") {
            command.arg(drop_in(&dir, unit, &from)?);
            continue;
        }
        fs::copy(&from, dir.join(&name)).map_err(failed(&from))?;
        // A template is looked at as one of its instances.
        command.arg(name.replace("@.", "@seed."));
    }
    for (from, name) in super::package::files(&Path::new("/").join(UNITS))? {
        if name.ends_with(".target") || name.ends_with(".slice") {
            fs::copy(&from, dir.join(&name)).map_err(failed(&from))?;
        }
    }
    // Links that lead out of the root are not followed there.
    let programs = root.join("usr/bin");
    fs::create_dir_all(&programs).map_err(failed(&programs))?;
    for (from, name) in super::package::files(&tree.join("usr/bin"))? {
        fs::hard_link(&from, programs.join(name)).map_err(failed(&from))?;
    }
    run(&mut command)?;
    fs::remove_dir_all(&root).map_err(failed(&root))
}

/// Puts a drop-in beside a unit as short as can be; the unit's name.
fn drop_in(dir: &Path, unit: &str, from: &Path) -> Result<String, Failure> {
    let unit = format!("{unit}.service");
    let beside = dir.join(format!("{unit}.d"));
    fs::create_dir_all(&beside).map_err(failed(&beside))?;
    fs::copy(from, beside.join("dfs.conf")).map_err(failed(from))?;
    let path = dir.join(&unit);
    fs::write(&path, "[Service]\nExecStart=/usr/bin/dfctl version\n").map_err(failed(&path))?;
    Ok(unit)
}

/// A Debian package.
pub fn package(deb: &Path) -> Result<(), Failure> {
    let mut command = Command::new("lintian");
    command.args(["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]);
    run(command.arg(deb))
}
