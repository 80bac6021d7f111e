//! `cargo xtask dist`: what is given away. Static programs for each architecture, checked; a tarball, a
//! Debian package and what is needed for a container; their sums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::prepare;
use crate::run::{Failure, failed, run as run_command};
use crate::units;
use crate::workspace::target_dir;

mod elf;
mod image;
mod lint;
mod machine;
mod notices;
mod package;
mod toolchain;

use toolchain::Toolchain;

/// The programs, each of which is checked and packed.
const PROGRAMS: [&str; 3] = ["dfctl", "dfs-fuse", "dfs-cluster"];

/// What `dfs-cluster` may take on disk, stripped: 25 MB.
const CLUSTER_BYTES: u64 = 25_000_000;

/// What to build.
#[derive(clap::Args)]
pub struct Args {
    /// Only this architecture; may be given several times
    #[arg(long, value_name = "ARCH")]
    only: Vec<Arch>,
    /// See that everything fits together, quickly: programs that nobody should be given
    #[arg(long)]
    draft: bool,
}

/// Where the programs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Arch {
    #[value(name = "x86-64")]
    X8664,
    #[value(name = "aarch64")]
    Aarch64,
}

const ALL: [Arch; 2] = [Arch::X8664, Arch::Aarch64];

impl Arch {
    fn name(self) -> &'static str {
        match self {
            Self::X8664 => "x86-64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// What Rust calls it.
    fn target(self) -> &'static str {
        match self {
            Self::X8664 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    /// What Debian calls it.
    fn debian(self) -> &'static str {
        match self {
            Self::X8664 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Runs programs of this architecture on another one.
    fn emulator(self) -> Option<&'static str> {
        let native = match self {
            Self::X8664 => cfg!(target_arch = "x86_64"),
            Self::Aarch64 => cfg!(target_arch = "aarch64"),
        };
        match self {
            _ if native => None,
            Self::X8664 => Some("qemu-x86_64-static"),
            Self::Aarch64 => Some("qemu-aarch64-static"),
        }
    }
}

/// How it is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quality {
    Draft,
    Release,
}

/// Builds, checks and packs.
pub fn run(args: &Args) -> Result<(), Failure> {
    let archs = if args.only.is_empty() { &ALL[..] } else { &args.only[..] };
    let quality = if args.draft { Quality::Draft } else { Quality::Release };
    make(archs, quality)
}

/// What CI does: all of it, as a draft.
pub fn check() -> Result<(), Failure> {
    make(&ALL, Quality::Draft)
}

/// Installs what it needs.
pub fn prepare() -> Result<(), Failure> {
    prepare::packages(prepare::FOR_DIST)?;
    if prepare::is_root() {
        prepare::erofs_oracle()?;
        machine::prepare()?;
    }
    Toolchain::ensure(&ALL).map(drop)
}

fn make(archs: &[Arch], quality: Quality) -> Result<(), Failure> {
    prepare::packages(prepare::FOR_DIST)?;
    let toolchain = Toolchain::ensure(archs)?;
    let out = out_dir(quality)?;
    let mut files = Vec::new();
    for arch in archs {
        toolchain.build(*arch, quality)?;
        let programs = toolchain.built(*arch, quality)?;
        let tree = out.join(arch.name());
        package::stage(&programs, &tree)?;
        for program in PROGRAMS {
            let path = tree.join("usr/bin").join(program);
            check_program(&path, program, *arch, quality)?;
        }
        lint::units(&tree)?;
        if arch.emulator().is_none() {
            image::check(&tree)?;
        }
        let name = format!("dfs-{}-linux-{}", env!("CARGO_PKG_VERSION"), arch.name());
        files.push(package::tarball(&tree, &out.join(format!("{name}.tar.gz")))?);
        let name = format!("dfs_{}_{}.deb", env!("CARGO_PKG_VERSION"), arch.debian());
        let deb = package::deb(&tree, &out.join(name), *arch, quality)?;
        lint::package(&deb)?;
        if arch.emulator().is_none() {
            machine::check(&deb)?;
        }
        files.push(deb);
    }
    package::sums(&out, &files)?;
    for file in &files {
        let size = fs::metadata(file).map_or(0, |file| file.len());
        println!("{:>10}  {}", units::bytes(size), file.display());
    }
    Ok(())
}

fn out_dir(quality: Quality) -> Result<PathBuf, Failure> {
    let out = target_dir()?.join(match quality {
        Quality::Draft => "dist-draft",
        Quality::Release => "dist",
    });
    if out.exists() {
        fs::remove_dir_all(&out).map_err(failed(&out))?;
    }
    fs::create_dir_all(&out).map_err(failed(&out))?;
    Ok(out)
}

/// It is what it is said to be, needs nothing of the machine it runs on, and runs.
fn check_program(path: &Path, name: &str, arch: Arch, quality: Quality) -> Result<(), Failure> {
    let bytes = fs::read(path).map_err(failed(path))?;
    elf::check(&bytes, arch)
        .map_err(|why| Failure::Other(format!("{} cannot be given away: {why}", path.display())))?;
    if quality == Quality::Release && name == "dfs-cluster" && bytes.len() as u64 > CLUSTER_BYTES {
        let size = bytes.len();
        return Err(Failure::Other(format!("{name} has {size} bytes: more than {CLUSTER_BYTES}")));
    }
    let mut command = match arch.emulator() {
        Some(emulator) => Command::new(emulator),
        None => Command::new(path),
    };
    if arch.emulator().is_some() {
        command.arg(path);
    }
    println!("{:>10}  {}, {}, static", units::bytes(bytes.len() as u64), name, arch.name());
    run_command(command.arg("--version"))
}
