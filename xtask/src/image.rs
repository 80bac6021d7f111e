//! The image that benches and the demo start: Debian with Python and nginx, as anybody's image is made, in three layers packed by gzip. What
//! a start of its programs touches is found out by watching one in the unpacked root.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::prepare::DebianRoot;
use crate::run::{Failure, failed, run};

/// What is in the image.
const ROOT: DebianRoot = DebianRoot {
    name: "image-root",
    suite: "trixie",
    variant: "essential",
    packages: "python3-minimal,libpython3-stdlib,nginx-light",
    program: "usr/bin/python3",
};

/// What is in a layer beyond the ones below it: the last has all that is left.
const LAYERS: [&[&str]; 3] = [&["./usr/lib/python3*", "./usr/bin/python3*"], &["./usr/share"], &[]];

/// What its programs are asked, and answer.
pub const PROGRAMS: [Program; 2] = [
    Program { name: "python", line: &["python3", "-c", "import json; print(json.dumps([1]))"] },
    Program { name: "nginx", line: &["nginx", "-v"] },
];

/// The first file that is read.
pub const FIRST: &str = "etc/os-release";

/// The variable that names the registries which are asked without TLS.
pub const PLAIN: &str = "DFS_OCI_PLAIN_HTTP";

/// Name and tag at a registry.
pub const NAME: &str = "bench/debian:1";

/// What somebody starts.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// In rows.
    pub name: &'static str,
    /// As it is called.
    line: &'static [&'static str],
}

impl Program {
    /// Its answer, with `root` as its root.
    pub fn start(self, root: &Path) -> Result<(), Failure> {
        let said = self.command(root).output().map_err(failed(root))?;
        match said.status.success() {
            true => Ok(()),
            false => Err(Failure::Program {
                line: self.line.join(" "),
                end: format!(
                    "ended with {}\n{}",
                    said.status,
                    String::from_utf8_lossy(&said.stderr)
                ),
            }),
        }
    }

    /// What a shell that has the root as `$1` says.
    pub fn in_shell(self) -> String {
        let quoted: Vec<_> = self.line.iter().map(|word| format!("'{word}'")).collect();
        format!("chroot \"$1\" {}", quoted.join(" "))
    }

    fn command(self, root: &Path) -> Command {
        let mut command = Command::new("chroot");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg(root).args(self.line);
        command
    }
}

/// The image, and what is touched of it.
pub struct Image {
    /// The unpacked root.
    pub root: PathBuf,
    /// An `oci:` layout with nothing else in it.
    pub layout: PathBuf,
    /// The bytes of its layers, packed.
    pub packed: u64,
    /// The files that its programs read.
    pub touched: Vec<PathBuf>,
    /// The bytes in these.
    pub touched_bytes: u64,
}

impl Image {
    /// Makes it in `dir`, of a root that is made once.
    pub fn make(dir: &Path) -> Result<Self, Failure> {
        let root = ROOT.ensure()?;
        let layout = Self::lay(&root, dir, &[])?;
        let touched = touched(&root)?;
        let lengths = touched.iter().map(|path| length(&root.join(path)));
        let touched_bytes = lengths.sum::<Result<u64, Failure>>()?;
        let packed = packed(&layout)?;
        Ok(Self { root, layout, packed, touched, touched_bytes })
    }

    /// The layout of the next version, in `dir`: the first layer made again, with the files below `more` in it, and the
    /// others as they were.
    pub fn next(&self, dir: &Path, more: &Path) -> Result<PathBuf, Failure> {
        Self::lay(&self.root, dir, &[more])
    }

    /// A layout, of whose layers the first ones have more in them than the root has.
    fn lay(root: &Path, dir: &Path, more: &[&Path]) -> Result<PathBuf, Failure> {
        fs::create_dir_all(dir).map_err(failed(dir))?;
        let layout = dir.join("layout");
        let umoci = |action: &[&str]| {
            let mut umoci = Command::new("umoci");
            umoci.args(action);
            umoci
        };
        let image = format!("{}:1", layout.display());
        run(umoci(&["init", "--layout"]).arg(&layout))?;
        run(umoci(&["new", "--image", &image]).arg("--"))?;
        for number in 0..LAYERS.len() {
            let tar = dir.join("layer.tar");
            run(&mut layer(root, number, &tar))?;
            if let Some(more) = more.get(number) {
                let mut append = Command::new("tar");
                append.args(["--append", "--format=pax", "--file"]).arg(&tar);
                run(append.arg("--directory").arg(more).arg("."))?;
            }
            run(umoci(&["raw", "add-layer", "--image", &image]).arg(&tar))?;
        }
        run(umoci(&["gc", "--layout"]).arg(&layout))?;
        Ok(layout)
    }

    /// What its programs read and nothing else, as one tar packed by zstd.
    pub fn pack_touched(&self, into: &Path) -> Result<(), Failure> {
        let mut tar = Command::new("tar");
        tar.args(["--create", "--zstd", "--file"]).arg(into).arg("--directory").arg(&self.root);
        run(tar.args(&self.touched))
    }
}

/// One layer as a tar: what is left over for it by the ones below, and by those above.
fn layer(root: &Path, number: usize, into: &Path) -> Command {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=pax", "--xattrs", "--xattrs-include=*", "--sort=name"]);
    tar.arg("--file").arg(into).arg("--directory").arg(root);
    let others = LAYERS.iter().enumerate().filter(|(other, _)| *other != number);
    match LAYERS[number] {
        [] => {
            for path in others.flat_map(|(_, paths)| *paths) {
                tar.arg(format!("--exclude={path}"));
            }
            tar.arg(".")
        }
        paths => tar.args(paths.iter().flat_map(|path| matching(root, path))),
    };
    tar
}

/// The paths below `root` that a pattern with at most one star, at its end, means.
fn matching(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let Some(start) = pattern.strip_suffix('*') else { return vec![pattern.into()] };
    let start = Path::new(start);
    let (dir, name) = (start.parent().unwrap_or(start), start.file_name().unwrap_or_default());
    let listed = fs::read_dir(root.join(dir)).into_iter().flatten().flatten();
    let is_meant = |found: &OsStr| found.as_encoded_bytes().starts_with(name.as_encoded_bytes());
    let mut found: Vec<_> =
        listed.map(|entry| entry.file_name()).filter(|found| is_meant(found)).collect();
    found.sort();
    found.into_iter().map(|found| dir.join(found)).collect()
}

fn length(path: &Path) -> Result<u64, Failure> {
    Ok(fs::metadata(path).map_err(failed(path))?.len())
}

/// The bytes of all blobs.
fn packed(layout: &Path) -> Result<u64, Failure> {
    let blobs = layout.join("blobs/sha256");
    let listed = fs::read_dir(&blobs).map_err(failed(&blobs))?;
    listed.map(|entry| length(&entry.map_err(failed(&blobs))?.path())).sum()
}

/// The files, as they lie below the root, that are read where the programs start there.
fn touched(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut opened = BTreeSet::from([format!("/{FIRST}")]);
    for program in PROGRAMS {
        let command = program.command(root);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=open,openat,execve", "--"]);
        strace.arg(command.get_program()).args(command.get_args());
        strace.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let said = strace.output().map_err(failed(Path::new("strace")))?;
        opened.extend(opened_in(&String::from_utf8_lossy(&said.stderr)));
    }
    // Links lead where they lead from that root.
    let mut realpath = Command::new("chroot");
    realpath.arg(root).args(["realpath", "--canonicalize-existing", "--quiet", "--"]);
    let said = realpath.args(&opened).output().map_err(failed(root))?;
    let real: BTreeSet<_> = String::from_utf8_lossy(&said.stdout)
        .lines()
        .map(|path| PathBuf::from(path.trim_start_matches('/')))
        .filter(|path| fs::symlink_metadata(root.join(path)).is_ok_and(|meta| meta.is_file()))
        .collect();
    Ok(real.into_iter().collect())
}

/// The absolute paths that were opened, after the root was changed, as strace tells of them.
fn opened_in(told: &str) -> Vec<String> {
    let inside = told.lines().skip_while(|line| !is_second_start(line));
    let opened = inside.filter(|line| !line.contains(" = -1 "));
    opened
        .filter_map(|line| Some(line.split('"').nth(1)?.to_owned()))
        .filter(|path| path.starts_with('/'))
        .collect()
}

/// `chroot` is what is started first; the next start is in the new root.
fn is_second_start(line: &str) -> bool {
    line.contains("execve(") && !line.contains("chroot") && line.contains(" = 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_opened_in_the_new_root_is_read_off() {
        let told = "execve(\"/usr/sbin/chroot\", [\"chroot\"], 0x1) = 0\n\
            openat(AT_FDCWD, \"/lib/outside.so\", O_RDONLY) = 3\n\
            execve(\"/usr/bin/nginx\", [\"nginx\"], 0x1) = -1 ENOENT (No such file or directory)\n\
            execve(\"/usr/sbin/nginx\", [\"nginx\", \"-v\"], 0x1) = 0\n\
            openat(AT_FDCWD, \"/etc/ld.so.preload\", O_RDONLY) = -1 ENOENT (No such file)\n\
            openat(AT_FDCWD, \"/lib/inside.so\", O_RDONLY|O_CLOEXEC) = 3\n";
        assert_eq!(opened_in(told), ["/usr/sbin/nginx", "/lib/inside.so"]);
    }

    #[test]
    fn a_pattern_means_what_begins_so() {
        let root = tempfile::tempdir().unwrap();
        for name in ["python3", "python3.13", "perl"] {
            fs::create_dir_all(root.path().join("usr/lib").join(name)).unwrap();
        }
        let found = matching(root.path(), "./usr/lib/python3*");
        assert_eq!(found, ["./usr/lib/python3", "./usr/lib/python3.13"].map(PathBuf::from));
        assert_eq!(matching(root.path(), "./usr/share"), [PathBuf::from("./usr/share")]);
    }
}
