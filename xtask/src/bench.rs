//! `cargo xtask bench`: the rows of the goals, each subject in turn, run by run, so that a noisy
//! machine is noisy for all of them; medians.

use std::env;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use dfs_tests::Binaries;
use dfs_tests::process::is_left_over;
use tempfile::TempDir;

mod cold;
mod content;
mod crowd;
mod fio;
mod get;
mod image;
mod lazy;
mod measure;
mod mount;
mod peer;
mod pieces;
mod reader;
mod row;
mod server;
mod small;
mod storm;
mod subject;

use self::content::write_noise;
use crate::interrupt::Interrupt;
use crate::prepare;
use crate::run::{Failure, failed};
use crate::units::parse_size;
use crate::workspace::release_binaries;

/// What directories of benches are called, before the number of their process.
const WORK: &str = "dfs-bench";

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// P4: `dfctl get` of one file from nginx, plain and over TLS, against curl, and aria2
    Get(OneFile),
    /// P5: a file from a seed to an agent, by whether pieces may travel compressed, of noise and of text
    Peer(OneFile),
    /// Ways to write the pieces of a file, which is then read once: what the store does against others
    Pieces(OneFile),
    /// P7, P8: a file, names and small files through mounts, ours by lane and others': hot, from a full store, cold
    Mount(Mount),
    /// P9: a few files of a root file system, read behind a narrow link by who has nothing yet; needs root
    Cold(Cold),
    /// P9 of an image, P14: an image of a registry, started behind a narrow link by who has nothing yet, and by a crowd at
    /// once, against a full pull; needs root
    Image(Image),
    /// P6, P10 to P13: tiny files, many small ones, an archive, very many objects, and doing nothing
    Small(Small),
    /// P1, P2: one file to a crowd of nodes, each in a network namespace behind a shaped link, against the least time
    /// that such links allow; needs root
    Crowd(Crowd),
    /// One file to a crowd of nodes while one of them, the seed, the scheduler or a link fails: how long the slowest
    /// takes against a good day; needs root
    Storm(Storm),
    /// Nodes that mount one file and read here and there in it, on a good day, with a neighbour that hangs and with one
    /// that is slow: how long a read takes, and how often the file leaves the origin; needs root
    Lazy(Lazy),
}

#[derive(clap::Args)]
struct OneFile {
    #[command(flatten)]
    common: Common,
    /// Bytes in the file, as in 512MiB
    #[arg(long, default_value = "1GiB", value_parser = parse_size)]
    size: u64,
}

#[derive(clap::Args)]
struct Mount {
    #[command(flatten)]
    file: OneFile,
    #[command(flatten)]
    mount: mount::Args,
}

#[derive(clap::Args)]
struct Cold {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    cold: cold::Args,
}

#[derive(clap::Args)]
struct Image {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    image: image::Args,
}

#[derive(clap::Args)]
struct Small {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    small: small::Args,
}

#[derive(clap::Args)]
struct Crowd {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    crowd: crowd::Args,
}

#[derive(clap::Args)]
struct Storm {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    storm: storm::Args,
}

#[derive(clap::Args)]
struct Lazy {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    lazy: lazy::Args,
}

#[derive(clap::Args)]
struct Common {
    /// One JSON object a row, on stdout
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// How often each subject runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// Take the programs from here instead of building them
    #[arg(long, value_name = "DIR")]
    bins: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
}

/// What every bench works with.
struct Bench {
    binaries: Binaries,
    interrupt: Interrupt,
    work: TempDir,
    runs: usize,
    size: u64,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// A directory of this name, empty.
    fn fresh_dir(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.path(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(failed(&path))?;
        }
        std::fs::create_dir_all(&path).map_err(failed(&path))?;
        Ok(path)
    }

    /// A directory in memory, empty, where this machine has such.
    fn memory_dir(&self) -> Result<TempDir, Failure> {
        temporary_in(&crowd::memory())
    }

    /// How far it is.
    fn says(&self, text: &str) {
        eprintln!("  {text}");
    }
}

impl Args {
    /// A directory for everything that is made on the way.
    fn work(&self) -> Result<TempDir, Failure> {
        let dir = match &self.what {
            What::Crowd(crowd) => crowd.crowd.dir(),
            What::Storm(_) | What::Lazy(_) | What::Cold(_) | What::Image(_) => crowd::memory(),
            _ => env::temp_dir(),
        };
        temporary_in(&dir)
    }
}

fn temporary_in(dir: &Path) -> Result<TempDir, Failure> {
    remove_leftovers(dir);
    let own = format!("{WORK}-{}-", std::process::id());
    tempfile::Builder::new().prefix(&own).tempdir_in(dir).map_err(failed(dir))
}

/// What a run that was killed has left may be memory.
fn remove_leftovers(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if is_left_over(&entry.file_name().to_string_lossy(), WORK) {
            // Another one may do the same.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Runs it.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (common, size) = match &args.what {
        What::Get(one) | What::Peer(one) | What::Pieces(one) => (&one.common, one.size),
        What::Mount(mount) => (&mount.file.common, mount.file.size),
        What::Cold(cold) => (&cold.common, 0),
        What::Image(image) => (&image.common, 0),
        What::Small(small) => (&small.common, 0),
        What::Crowd(crowd) => (&crowd.common, crowd.crowd.size),
        What::Storm(storm) => (&storm.common, storm.storm.size),
        What::Lazy(lazy) => (&lazy.common, lazy.lazy.size),
    };
    let interrupt = Interrupt::install()?;
    prepare::packages(match &args.what {
        What::Crowd(_) | What::Storm(_) | What::Lazy(_) | What::Cold(_) | What::Image(_) => {
            prepare::FOR_TESTBED
        }
        _ => prepare::FOR_BENCH,
    })?;
    let binaries = match &common.bins {
        Some(dir) => Binaries::in_dir(dir),
        None => release_binaries()?,
    };
    interrupt.check()?;
    let work = args.work()?;
    let runs = usize::from(common.runs);
    let bench = Bench { binaries, interrupt, work, runs, size };
    let rows = match &args.what {
        What::Get(_) => get::measure(&bench),
        What::Peer(_) => peer::measure(&bench),
        What::Pieces(_) => pieces::measure(&bench),
        What::Mount(asked) => mount::measure(&bench, &asked.mount),
        What::Cold(asked) => cold::measure(&bench, &asked.cold),
        What::Image(asked) => image::measure(&bench, &asked.image),
        What::Small(asked) => small::measure(&bench, &asked.small),
        What::Crowd(asked) => crowd::measure(&bench, &asked.crowd),
        What::Storm(asked) => storm::measure(&bench, &asked.storm),
        What::Lazy(asked) => lazy::measure(&bench, &asked.lazy),
    };
    let rows = rows.map_err(|failure| bench.interrupt.check().err().unwrap_or(failure))?;
    match common.format {
        Format::Human => println!("{}", row::table(&rows)),
        Format::Json => rows.iter().for_each(|row| println!("{}", row.json())),
    }
    Ok(())
}
