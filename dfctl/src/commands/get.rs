//! `dfctl get`.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dfs_model::{ByteRange, Digest, Rate};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustix::fs::OFlags;

use super::inside::{self, Named};
use crate::backend::{Purpose, ReadRequest};
use crate::codes;
use crate::context::Context;
use crate::error::{CliError, Outcome};
use crate::links;
use crate::locator::Locator;
use crate::outdir::Replace;
use crate::output::{quoted_path, shell_quoted};

pub mod saved;
pub mod single;
pub mod sinks;
mod tree;
mod wanted;

/// Get a file, or with -r a whole tree, from a URL
///
/// Examples:
///   dfctl get https://host/model.bin
///   dfctl get -r https://host/dir/ -o data --exclude '*.tmp'
///
/// An output that exists is compared, never replaced unless --force is given. What was not finished stays in
/// NAME.dfs-part beside the output; the same command takes it up again.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    named: Named,
    /// Where to: a file, a directory that exists, or - for the standard output
    #[arg(short, long, value_name = "PATH|-", env = "DFS_OUTPUT", hide_env_values = true)]
    output: Option<PathBuf>,
    /// Everything below, into a directory
    #[arg(short, long, conflicts_with_all = ["range", "digest"], env = "DFS_RECURSIVE", hide_env_values = true)]
    recursive: bool,
    /// With -r: only files that match; a pattern without / matches names at any depth
    #[arg(
        long,
        value_name = "GLOB",
        requires = "recursive",
        env = "DFS_INCLUDE",
        hide_env_values = true
    )]
    include: Vec<String>,
    /// With -r: nothing that matches, nor what lies below it; counts more than --include
    #[arg(
        long,
        value_name = "GLOB",
        requires = "recursive",
        env = "DFS_EXCLUDE",
        hide_env_values = true
    )]
    exclude: Vec<String>,
    /// Without an agent, in a cluster: goes on serving others until nobody has asked for so long [default: 5m]
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "5m",
          value_parser = dfs_model::parse_duration, env = "DFS_LINGER", hide_env_values = true)]
    linger: Option<Duration>,
    /// Replace what exists
    #[arg(short, long, env = "DFS_FORCE", hide_env_values = true)]
    force: bool,
    #[command(flatten)]
    options: ReadOptions,
}

/// Flags of everything that reads bytes.
#[derive(clap::Args)]
pub struct ReadOptions {
    /// Only bytes A to B, counted from 0, both included
    #[arg(long, value_name = "A-B", env = "DFS_RANGE", hide_env_values = true)]
    range: Option<ByteRange>,
    /// What the bytes must be, as in sha256:9f2c… or blake3:9f2c…
    #[arg(long, value_name = "ALGO:HEX", env = "DFS_DIGEST", hide_env_values = true)]
    digest: Option<Digest>,
    /// At most this fast, as in 10MiB/s or 100Mbit/s
    #[arg(long, value_name = "RATE", value_parser = positive_rate, env = "DFS_LIMIT", hide_env_values = true)]
    limit: Option<Rate>,
    /// Urgency, 0 the most urgent
    #[arg(long, value_name = "0-6", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=6),
          env = "DFS_PRIORITY", hide_env_values = true)]
    priority: u8,
    /// Ask the origin what it has now, also where that is known of a few seconds ago
    #[arg(long, env = "DFS_FRESH", hide_env_values = true)]
    fresh: bool,
    /// End with a ledger of where every byte and the time came from
    #[arg(long, env = "DFS_EXPLAIN", hide_env_values = true)]
    explain: bool,
}

/// When the origin was asked what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// By this command.
    Now,
    /// Perhaps for somebody else, seconds ago.
    Lately,
}

impl ReadOptions {
    /// Files of this machine are asked for each time: that costs nobody anything.
    fn purpose(&self, locator: &Locator) -> Purpose {
        match self.fresh || locator.local_path().is_some() {
            true => Purpose::ReadAnew,
            false => Purpose::Read,
        }
    }

    /// Who works alone remembers nothing.
    fn asked(&self, context: &Context, locator: &Locator) -> Asked {
        let is_alone = context.is_alone() && context.settings.cluster_joined().is_none();
        match is_alone || self.purpose(locator) == Purpose::ReadAnew {
            true => Asked::Now,
            false => Asked::Lately,
        }
    }

    fn request(&self, locator: &Locator, path: Option<Vec<u8>>) -> ReadRequest {
        ReadRequest {
            target: locator.target.clone(),
            path,
            start: 0,
            end: None,
            priority: self.priority,
            limit: self.limit,
        }
    }
}

fn positive_rate(text: &str) -> Result<Rate, String> {
    match text.parse::<Rate>() {
        Ok(Rate(0)) => Err("nothing would ever arrive".to_owned()),
        Ok(rate) => Ok(rate),
        Err(error) => Err(error.to_string()),
    }
}

/// Where a single file goes.
pub enum Destination {
    /// The standard output.
    Stdout,
    /// A device or pipe.
    Device(File, PathBuf),
    /// A file under this name.
    File(PathBuf),
}

/// Runs it.
pub async fn run(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let linger = args.linger;
    let outcome = get(args, context).await?;
    linger.into_iter().for_each(|idle| context.linger(idle));
    Ok(outcome)
}

async fn get(args: Args, context: &Context) -> Result<Outcome, CliError> {
    let locator = args.named.locate(context).await?;
    let replace = if args.force { Replace::Always } else { Replace::Never };
    if args.recursive {
        let filter = Filter::new(&args.include, &args.exclude)?;
        let root = tree_root(&locator, args.output)?;
        return tree::run(context, &locator, &args.options, tree::Plan { root, filter, replace })
            .await;
    }
    let destination = match destination(context, &locator, args.output).await {
        Err(error) if error.code == &codes::USAGE => {
            return Err(without_name(context, &locator, &args.options, error).await);
        }
        destination => destination?,
    };
    match destination {
        Destination::File(path) => {
            single::to_file(context, &locator, &args.options, &path, replace).await
        }
        stream => single::to_stream(context, &locator, &args.options, stream).await,
    }
}

async fn destination(
    context: &Context,
    locator: &Locator,
    output: Option<PathBuf>,
) -> Result<Destination, CliError> {
    let Some(output) = output else {
        return default_name(locator, "", "NAME").map(|name| Destination::File(name.into()));
    };
    if is_stdout(&output) {
        return Ok(Destination::Stdout);
    }
    let named_as_directory = output.as_os_str().as_encoded_bytes().ends_with(b"/");
    let there = std::fs::metadata(&output).ok();
    match there {
        Some(there) if there.is_dir() => {
            Ok(Destination::File(output.join(default_name(locator, "", "NAME")?)))
        }
        Some(there) if !there.is_file() => {
            let file = open_device(context, &output).await?;
            Ok(Destination::Device(file, output))
        }
        _ if named_as_directory => {
            let what = format!("there is no directory {}", output.display());
            Err(CliError::new(&codes::OUTPUT_FAILED, what)
                .hint(format!("mkdir -p {}", quoted_path(&output))))
        }
        _ => Ok(Destination::File(output)),
    }
}

/// Whether a name means the standard output: `-`, or what leads to it by links, as `/dev/stdout` does. It is none to be
/// replaced, and nothing but the content goes there.
fn is_stdout(output: &Path) -> bool {
    if output.as_os_str() == "-" {
        return true;
    }
    let own = Path::new("/proc/self/fd").canonicalize().map(|dir| dir.join("1"));
    own.is_ok_and(|own| links::places(output).any(|place| place == own))
}

/// Opens what is no file. A pipe opens once somebody reads it, and then refuses what does not fit instead of waiting:
/// one who waits is not to be interrupted.
async fn open_device(context: &Context, path: &Path) -> Result<File, CliError> {
    let failed = |error: io::Error| CliError::output("write to", path, &error);
    let named = path.to_owned();
    let opening = tokio::task::spawn_blocking(move || {
        let file = File::options().write(true).open(named)?;
        if file.metadata()?.file_type().is_fifo() {
            rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)? | OFlags::NONBLOCK)?;
        }
        Ok(file)
    });
    let opened = inside::answer(context, opening).await?;
    opened.map_err(io::Error::other).flatten().map_err(failed)
}

/// Why what has no name cannot be saved: most of it is a tree, and not to be saved as one file at all.
async fn without_name(
    context: &Context,
    locator: &Locator,
    options: &ReadOptions,
    error: CliError,
) -> CliError {
    let backend = match inside::backend(context).await {
        Ok(backend) => backend,
        Err(error) => return error,
    };
    match wanted::Wanted::find(context, &*backend, locator, options, "get").await {
        Ok(_) => error,
        Err(found) if found.code == &codes::IS_TREE => {
            let url = shell_quoted(&locator.shown());
            found.hint(format!("dfctl get -r {url} -o DIR      or look at it: dfctl ls {url}"))
        }
        Err(found) => found,
    }
}

fn tree_root(locator: &Locator, output: Option<PathBuf>) -> Result<PathBuf, CliError> {
    match output {
        Some(output) if is_stdout(&output) => {
            Err(CliError::new(&codes::USAGE, "a tree cannot go to the standard output")
                .hint(format!("dfctl get -r {} -o DIR", shell_quoted(&locator.shown()))))
        }
        Some(output) => Ok(output),
        None => default_name(locator, "-r ", "DIR").map(PathBuf::from),
    }
}

fn default_name(locator: &Locator, flags: &str, output: &str) -> Result<String, CliError> {
    locator.file_name().ok_or_else(|| {
        let shown = locator.shown();
        CliError::new(&codes::USAGE, format!("{shown} gives no name for the output"))
            .hint(format!("dfctl get {flags}{} -o {output}", shell_quoted(&shown)))
    })
}

/// Which files of a tree are wanted.
pub struct Filter {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Filter {
    /// Of the patterns of --include and --exclude.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, CliError> {
        let include = if include.is_empty() { None } else { Some(globs(include)?) };
        Ok(Self { include, exclude: globs(exclude)? })
    }

    /// Whether no --include narrows it: then empty directories are wanted too.
    pub fn is_open(&self) -> bool {
        self.include.is_none()
    }

    /// Whether what is missing at `path` may be wanted: nobody knows what it would have been.
    pub fn may_have(&self, path: &[u8]) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        !path.ancestors().any(|above| self.exclude.is_match(above))
    }

    /// Whether the file at `path` is. What lies in an excluded directory is excluded.
    pub fn has(&self, path: &Path) -> bool {
        self.include.as_ref().is_none_or(|include| include.is_match(path))
            && self.may_have(path.as_os_str().as_bytes())
    }
}

fn globs(patterns: &[String]) -> Result<GlobSet, CliError> {
    let bad = |error: &globset::Error| {
        CliError::new(&codes::USAGE, "a pattern cannot be understood").caused_by(error)
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        if pattern.trim_start_matches('/').is_empty() {
            let what = format!("the pattern '{pattern}' names nothing");
            let hint = "--include '*' is everything; without the flag everything is too";
            return Err(CliError::new(&codes::USAGE, what).hint(hint));
        }
        let anchored = match pattern.trim_start_matches('/') {
            name if !pattern.contains('/') => format!("**/{name}"),
            below if below.ends_with('/') => format!("{below}**"),
            path => path.to_owned(),
        };
        let glob = GlobBuilder::new(&anchored).literal_separator(true).build();
        set.add(glob.map_err(|error| bad(&error))?);
    }
    set.build().map_err(|error| bad(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_output_has_many_names() {
        let dir = tempfile::tempdir().unwrap();
        let link = |name: &str, to: &str| {
            let link = dir.path().join(name);
            std::os::unix::fs::symlink(to, &link).unwrap();
            link
        };
        let (first, circle) = (link("first", "/dev/stdout"), link("circle", "circle"));
        let (second, error) = (link("second", "first"), link("error", "/proc/self/fd/2"));
        for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            assert!(is_stdout(Path::new(name)), "{name}");
        }
        assert!(is_stdout(&first) && is_stdout(&second));
        for name in ["1", "./-", "/dev/stderr", "/dev/null", "/proc/self/fd/", "/", ""] {
            assert!(!is_stdout(Path::new(name)), "{name}");
        }
        assert!(!is_stdout(&circle) && !is_stdout(&error));
    }

    #[test]
    fn patterns_match_names_anywhere_and_paths_from_the_root() {
        let wanted = |include: &[&str], exclude: &[&str], path: &str| {
            let own =
                |patterns: &[&str]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
            Filter::new(&own(include), &own(exclude)).unwrap().has(Path::new(path))
        };
        assert!(wanted(&[], &[], "a/b"));
        assert!(wanted(&["*.txt"], &[], "a/b/c.txt") && wanted(&["*.txt"], &[], "c.txt"));
        assert!(!wanted(&["*.txt"], &["c.*"], "a/c.txt"));
        assert!(wanted(&["a/*.txt"], &[], "a/c.txt") && !wanted(&["a/*.txt"], &[], "a/b/c.txt"));
        assert!(wanted(&["a/**"], &[], "a/b/c.txt") && wanted(&["a/"], &[], "a/b/c.txt"));
        assert!(!wanted(&[], &["/a/"], "a/b") && wanted(&[], &["/a/"], "b/a/c"));
        assert!(!wanted(&[], &["a"], "b/a/c") && !wanted(&[], &["b/a"], "b/a/c/d"));
        for empty in ["", "/"] {
            assert!(Filter::new(&[empty.to_owned()], &[]).is_err());
            assert!(Filter::new(&[], &[empty.to_owned()]).is_err());
        }
        assert!(!wanted(&["*.txt"], &["**/b"], "a/b/c.txt") && wanted(&[], &["/b"], "a/b/c"));
    }
}
