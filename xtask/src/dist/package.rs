//! The files of a package, laid out as on a Debian machine, and what is made of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Arch, PROGRAMS, Quality, notices};
use crate::run::{Failure, failed, run, said};
use crate::workspace::root;

const MAINTAINER: &str = "dfs maintainers <maintainers@dfs.example>";

const DESCRIPTION: &str = "\
Description: images, buckets and directories as lazy local file systems
 dfs mounts a container image, a bucket, a model repository, a web directory or
 one big file as a local read-only file system at once, and moves only the bytes
 that are read, from whichever neighbour already has them.
 .
 This package has the command line dfctl, the node agent dfs-fuse and the
 cluster's processes dfs-cluster.
";

/// Where examples lie in a tree.
pub const EXAMPLES: &str = "usr/share/doc/dfs/examples";

/// Puts everything below `tree`.
pub fn stage(programs: &Path, tree: &Path) -> Result<(), Failure> {
    let root = root();
    let put = |from: PathBuf, to: String, mode: u32| install(&from, &tree.join(to), mode);
    for program in PROGRAMS {
        put(programs.join(program), format!("usr/bin/{program}"), 0o755)?;
        let done = root.join("completions");
        let bash = format!("usr/share/bash-completion/completions/{program}");
        put(done.join(format!("{program}.bash")), bash, 0o644)?;
        let zsh = format!("usr/share/zsh/vendor-completions/_{program}");
        put(done.join(format!("_{program}")), zsh, 0o644)?;
        let fish = format!("usr/share/fish/vendor_completions.d/{program}.fish");
        put(done.join(format!("{program}.fish")), fish, 0o644)?;
    }
    // By its other name it is what mount(8) calls.
    let helper = tree.join("usr/sbin/mount.dfs");
    fs::create_dir_all(tree.join("usr/sbin")).map_err(failed(&helper))?;
    std::os::unix::fs::symlink("../bin/dfctl", &helper).map_err(failed(&helper))?;
    let own = (root.join("deploy/mount.dfs.8"), "mount.dfs.8".to_owned());
    for (path, name) in files(&root.join("man"))?.into_iter().chain([own]) {
        let section = name.rsplit('.').next().unwrap_or("1");
        let to = tree.join(format!("usr/share/man/man{section}/{name}"));
        install(&path, &to, 0o644)?;
        run(Command::new("gzip").args(["--best", "--no-name", "--force"]).arg(&to))?;
    }
    for (path, name) in files(&root.join("deploy/systemd"))? {
        match name.strip_suffix(".sysusers") {
            Some(user) => put(path, format!("usr/lib/sysusers.d/{user}.conf"), 0o644)?,
            None => put(path, format!("usr/lib/systemd/system/{name}"), 0o644)?,
        }
    }
    for (path, name) in files(&root.join("deploy/examples"))? {
        put(path, format!("{EXAMPLES}/{name}"), 0o644)?;
    }
    // Where a machine's settings go.
    let settings = tree.join("etc/dfs");
    fs::create_dir_all(&settings).map_err(failed(&settings))?;
    let doc = tree.join("usr/share/doc/dfs");
    put(root.join("README.md"), "usr/share/doc/dfs/README.md".to_owned(), 0o644)?;
    put(root.join("deploy/debian/copyright"), "usr/share/doc/dfs/copyright".to_owned(), 0o644)?;
    let overrides = "usr/share/lintian/overrides/dfs".to_owned();
    put(root.join("deploy/debian/overrides"), overrides, 0o644)?;
    let notices_file = doc.join("third-party.txt");
    fs::write(&notices_file, notices::text()?).map_err(failed(&notices_file))?;
    let changes = doc.join("changelog.gz");
    fs::write(doc.join("changelog"), changelog()?).map_err(failed(&changes))?;
    run(Command::new("gzip").args(["--best", "--no-name", "--force"]).arg(doc.join("changelog")))
}

fn install(from: &Path, to: &Path, mode: u32) -> Result<(), Failure> {
    let dir = to.parent().unwrap_or(to);
    fs::create_dir_all(dir).map_err(failed(dir))?;
    fs::copy(from, to).map_err(failed(from))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).map_err(failed(to))
}

/// The files of a directory and their names, sorted.
pub fn files(dir: &Path) -> Result<Vec<(PathBuf, String)>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let entry = entry.map_err(failed(dir))?;
        found.push((entry.path(), entry.file_name().to_string_lossy().into_owned()));
    }
    found.sort();
    Ok(found)
}

/// A tarball that is the same for the same files, whenever and by whomever it is made.
pub fn tarball(tree: &Path, to: &Path) -> Result<PathBuf, Failure> {
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    command
        .arg(format!("--mtime=@{}", date()?))
        .arg("--use-compress-program=gzip --best --no-name");
    run(command
        .arg("--create")
        .arg("--file")
        .arg(to)
        .arg("--directory")
        .arg(tree)
        .args(["etc", "usr"]))?;
    Ok(to.to_owned())
}

/// A Debian package.
pub fn deb(tree: &Path, to: &Path, arch: Arch, quality: Quality) -> Result<PathBuf, Failure> {
    let control = tree.join("DEBIAN");
    fs::create_dir_all(&control).map_err(failed(&control))?;
    let text = format!(
        "Package: dfs\nVersion: {}\nArchitecture: {}\nMaintainer: {MAINTAINER}\n\
         Section: net\nPriority: optional\nInstalled-Size: {}\n\
         Depends: default-systemd-sysusers | systemd-sysusers\nRecommends: ca-certificates, fuse3\n{DESCRIPTION}",
        env!("CARGO_PKG_VERSION"),
        arch.debian(),
        size(&tree.join("usr"))?.div_ceil(1024),
    );
    let file = control.join("control");
    fs::write(&file, text).map_err(failed(&file))?;
    for script in ["postinst", "prerm"] {
        install(&root().join("deploy/debian").join(script), &control.join(script), 0o755)?;
    }
    let mut command = Command::new("dpkg-deb");
    let effort = if quality == Quality::Draft { "-z1" } else { "-z6" };
    command.args(["--root-owner-group", "-Zxz", effort, "--build"]).arg(tree).arg(to);
    run(command.env("SOURCE_DATE_EPOCH", date()?))?;
    fs::remove_dir_all(&control).map_err(failed(&control))?;
    Ok(to.to_owned())
}

/// `SHA256SUMS` beside the files.
pub fn sums(dir: &Path, files: &[PathBuf]) -> Result<(), Failure> {
    let mut command = Command::new("sha256sum");
    command.current_dir(dir).args(files.iter().filter_map(|file| file.file_name()));
    let sums = said(&mut command)?;
    let path = dir.join("SHA256SUMS");
    fs::write(&path, sums).map_err(failed(&path))
}

fn size(path: &Path) -> Result<u64, Failure> {
    let status = fs::symlink_metadata(path).map_err(failed(path))?;
    if !status.is_dir() {
        return Ok(status.len());
    }
    files(path)?.iter().map(|(path, _)| size(path)).sum()
}

/// When the source was last changed, in seconds since 1970.
fn date() -> Result<String, Failure> {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().filter(|date| !date.is_empty());
    given.map_or_else(|| git(&["log", "-1", "--format=%ct"]), Ok)
}

fn changelog() -> Result<String, Failure> {
    let day = said(
        Command::new("date").args(["--utc", "--rfc-email", "--date"]).arg(format!("@{}", date()?)),
    )?;
    let version = env!("CARGO_PKG_VERSION");
    Ok(format!(
        "dfs ({version}) unstable; urgency=medium\n\n  * Release {version}.\n\n -- {MAINTAINER}  {day}\n"
    ))
}

fn git(words: &[&str]) -> Result<String, Failure> {
    said(Command::new("git").args(words).current_dir(root()))
}
